//! Fields of the objects inside a request: messages, content parts, tools and their like. Pure.

use crate::{near::nearest, receipt::Receipt};

/// The names that OpenAI, Anthropic or Ollama give to such fields. One of them that nothing reads is known but has no
/// effect; any other is probably misspelled. Sorted. A name that is missing here is reported as unknown, and its
/// request is answered all the same.
const NAMES: &[&str] = &[
    "action",
    "allowed_callers",
    "allowed_domains",
    "allowed_tools",
    "always_include",
    "annotations",
    "approximate",
    "arguments",
    "audio",
    "authorization",
    "background",
    "blocked_domains",
    "budget_tokens",
    "cache_control",
    "call_id",
    "caller",
    "citations",
    "compaction",
    "container",
    "content",
    "context",
    "custom",
    "data",
    "defer_loading",
    "definition",
    "description",
    "detail",
    "display",
    "eager_input_streaming",
    "effort",
    "encrypted_content",
    "expires_at",
    "file",
    "file_data",
    "file_id",
    "file_ids",
    "file_url",
    "filename",
    "filters",
    "format",
    "function",
    "function_call",
    "generate_summary",
    "grammar",
    "headers",
    "id",
    "image_url",
    "images",
    "include_obfuscation",
    "include_usage",
    "index",
    "input",
    "input_audio",
    "input_examples",
    "is_error",
    "json_schema",
    "logprobs",
    "max_characters",
    "max_content_tokens",
    "max_num_results",
    "max_uses",
    "media_type",
    "mode",
    "moderation",
    "name",
    "namespace",
    "namespaces",
    "obfuscation",
    "output",
    "parameters",
    "phase",
    "prediction",
    "prompt_cache_breakpoint",
    "properties",
    "quality",
    "queries",
    "ranking_options",
    "reasoning",
    "reasoning_content",
    "reasoning_details",
    "redacted_thinking",
    "refusal",
    "require_approval",
    "required",
    "results",
    "return_token_budget",
    "role",
    "schema",
    "search_context_size",
    "server_description",
    "server_label",
    "server_url",
    "signature",
    "size",
    "source",
    "status",
    "strict",
    "summary",
    "syntax",
    "text",
    "thinking",
    "title",
    "tool_call_id",
    "tool_calls",
    "tool_name",
    "tool_reference",
    "tool_use_id",
    "tools",
    "transcript",
    "type",
    "url",
    "user_location",
    "value",
    "vector_store_ids",
    "verbosity",
    "video_url",
];

/// The name at the end of a path.
fn last(path: &str) -> &str {
    let name = path.rsplit('.').next().unwrap_or(path);
    name.split('[').next().unwrap_or(name)
}

/// Whether the field at the end of `path` is one of an API's.
fn is_known(path: &str) -> bool {
    NAMES.binary_search(&last(path)).is_ok()
}

/// Notes a field that nothing read, by its path: without effect if its name is known, unknown otherwise.
pub(crate) fn unread(path: &str, receipt: &mut Receipt) {
    if is_known(path) {
        receipt.no_effect(path);
    } else {
        receipt.unknown(path, nearest(last(path), NAMES.iter().copied()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_name_has_no_effect_and_another_may_be_misspelled() {
        assert!(NAMES.is_sorted());
        let mut receipt = Receipt::default();
        for path in ["messages[3].name", "messages[0].contnt", "tools[1].function.paramters", "input[0].zzz"] {
            unread(path, &mut receipt);
        }
        assert_eq!(
            receipt.hint().unwrap(),
            "unknown field `messages[].contnt`: did you mean `content`? \
             unknown field `tools[].function.paramters`: did you mean `parameters`?"
        );
        assert_eq!(
            receipt.take_unsent().unwrap(),
            "messages[].name=no-effect, messages[].contnt=unknown, tools[].function.paramters=unknown, input[].zzz=unknown"
        );
    }
}
