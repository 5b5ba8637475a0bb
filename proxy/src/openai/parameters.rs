//! The one table of OpenAI's request fields: what becomes of each, at each endpoint. Pure.
//!
//! Read by the endpoints (which refuse and note by it), by the tests (a field without a row fails), and by the page `docs/parameters.md`.

use serde_json::{Value, value::RawValue};

use super::{json::Fields, receipt::Receipt};
use crate::error::Error;

/// Where a field may stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// `POST /v1/chat/completions`
    Chat,
    /// `POST /v1/responses`
    Responses,
}

/// What becomes of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Ollama is given it, in its own words.
    Mapped,
    /// Ollama has nothing like it; farllama brings its effect about.
    Emulated,
    /// It cannot be had here, so a request that asks for it is refused.
    Refused,
    /// A hint that changes nothing here. It stands in the receipt.
    NoEffect,
}

/// One field at some endpoints.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) on: &'static [Endpoint],
    pub(crate) fate: Fate,
    /// The JSON that asks for nothing, besides null and what is empty; or nothing.
    pub(crate) default: &'static str,
    /// What is done, or for what is refused: the words of the refusal.
    pub(crate) note: &'static str,
}

const CHAT: &[Endpoint] = &[Endpoint::Chat];

const fn row(
    name: &'static str,
    on: &'static [Endpoint],
    fate: Fate,
    default: &'static str,
    note: &'static str,
) -> Row {
    Row { name, on, fate, default, note }
}

use Fate::{Emulated, Mapped, NoEffect, Refused};

/// Every field, by name.
pub(crate) const TABLE: &[Row] = &[
    row("audio", CHAT, Refused, "", "Ollama's models answer in text, not in sound."),
    row("frequency_penalty", CHAT, Mapped, "", "`options.frequency_penalty`"),
    row("function_call", CHAT, Refused, "\"auto\"", "'function_call' is deprecated; use 'tool_choice'."),
    row("functions", CHAT, Refused, "", "'functions' is deprecated; use 'tools'."),
    row("logit_bias", CHAT, Refused, "", "Ollama has no 'logit_bias'."),
    row("logprobs", CHAT, Mapped, "", "`logprobs`"),
    row("max_completion_tokens", CHAT, Mapped, "", "`options.num_predict`; wins over `max_tokens`"),
    row("max_tokens", CHAT, Mapped, "", "`options.num_predict`"),
    row("messages", CHAT, Mapped, "", "`messages`, one native message for each"),
    row("metadata", CHAT, NoEffect, "", "for OpenAI's dashboard"),
    row("modalities", CHAT, Refused, "[\"text\"]", "Ollama's models answer in text; 'modalities' may be [\"text\"]."),
    row("model", CHAT, Mapped, "", "`model`"),
    row("moderation", CHAT, NoEffect, "", "for OpenAI's own moderation"),
    row("n", CHAT, Emulated, "1", "Ollama is asked n times at once, each time with another seed; usage is the sum"),
    row("parallel_tool_calls", CHAT, Emulated, "true", "where it is false, calls after the first are dropped"),
    row("prediction", CHAT, NoEffect, "", "a hint that makes OpenAI's models faster"),
    row("presence_penalty", CHAT, Mapped, "", "`options.presence_penalty`"),
    row("prompt_cache_key", CHAT, NoEffect, "", "Ollama finds what it has cached by itself"),
    row("prompt_cache_options", CHAT, NoEffect, "", "Ollama finds what it has cached by itself"),
    row("prompt_cache_retention", CHAT, NoEffect, "\"in_memory\"", "Ollama finds what it has cached by itself"),
    row(
        "reasoning_effort",
        CHAT,
        Mapped,
        "",
        "`think`: none is false, minimal is low, xhigh is max; without effect on a model that cannot think",
    ),
    row("response_format", CHAT, Mapped, "", "`format`: `json`, or the schema"),
    row("safety_identifier", CHAT, NoEffect, "", "for OpenAI's own moderation"),
    row("seed", CHAT, Mapped, "", "`options.seed`"),
    row("service_tier", CHAT, NoEffect, "\"auto\"", "for OpenAI's billing"),
    row("stop", CHAT, Mapped, "", "`options.stop`, a list of 4 at most"),
    row("store", CHAT, NoEffect, "false", "nothing is stored here"),
    row("stream", CHAT, Mapped, "", "`stream`, and events instead of one answer"),
    row("stream_options", CHAT, Mapped, "", "`include_usage` is answered from `prompt_eval_count` and `eval_count`"),
    row("temperature", CHAT, Mapped, "", "`options.temperature`"),
    row(
        "tool_choice",
        CHAT,
        Emulated,
        "",
        "what may not be called is not offered; what must be called is brought about by `format`, which holds the model to the tools' schemas",
    ),
    row("tools", CHAT, Mapped, "", "`tools`; only those of type `function`"),
    row("top_logprobs", CHAT, Mapped, "", "`top_logprobs`"),
    row("top_p", CHAT, Mapped, "", "`options.top_p`"),
    row("user", CHAT, NoEffect, "", "for OpenAI's own moderation"),
    row("verbosity", CHAT, NoEffect, "\"medium\"", "Ollama's models have no such switch"),
    row("web_search_options", CHAT, NoEffect, "", "nothing is searched for here"),
];

const RESPONSES: &[Endpoint] = &[Endpoint::Responses];

/// Every field of responses, by name.
pub(crate) const RESPONSES_TABLE: &[Row] = &[
    row("access_programs", RESPONSES, NoEffect, "", "for OpenAI's own models"),
    row(
        "background",
        RESPONSES,
        Refused,
        "false",
        "Nothing runs here after its request has ended; leave 'background' out.",
    ),
    row("background_options", RESPONSES, NoEffect, "", "nothing runs in the background here"),
    row(
        "context_management",
        RESPONSES,
        NoEffect,
        "",
        "nothing is compacted unasked; `context.max` lets contexts grow",
    ),
    row(
        "conversation",
        RESPONSES,
        Refused,
        "",
        "No conversations are kept here; go on from a response with 'previous_response_id'.",
    ),
    row("frequency_penalty", RESPONSES, Mapped, "", "`options.frequency_penalty`"),
    row("image", RESPONSES, NoEffect, "", "for OpenAI's own models"),
    row(
        "include",
        RESPONSES,
        Mapped,
        "",
        "`message.output_text.logprobs` is `logprobs`; `reasoning.encrypted_content` is emulated; what else it may name is of tools that are not run here",
    ),
    row(
        "input",
        RESPONSES,
        Mapped,
        "",
        "`messages`: what one turn of a model has brought forth is several items, and one message",
    ),
    row("instructions", RESPONSES, Mapped, "", "the first of `messages`, in the system's voice"),
    row("max_output_tokens", RESPONSES, Mapped, "", "`options.num_predict`"),
    row("max_tool_calls", RESPONSES, Emulated, "", "further calls are dropped"),
    row("metadata", RESPONSES, Emulated, "", "kept with the response"),
    row("model", RESPONSES, Mapped, "", "`model`"),
    row("moderation", RESPONSES, NoEffect, "", "for OpenAI's own moderation"),
    row("parallel_tool_calls", RESPONSES, Emulated, "true", "where it is false, calls after the first are dropped"),
    row("presence_penalty", RESPONSES, Mapped, "", "`options.presence_penalty`"),
    row(
        "previous_response_id",
        RESPONSES,
        Emulated,
        "",
        "Ollama keeps nothing; the items of the earlier responses, which are kept here, go before the new ones",
    ),
    row(
        "prompt",
        RESPONSES,
        Refused,
        "",
        "No prompt templates are kept here; send the prompt itself in 'input' and 'instructions'.",
    ),
    row("prompt_cache_key", RESPONSES, NoEffect, "", "Ollama finds what it has cached by itself"),
    row("prompt_cache_options", RESPONSES, NoEffect, "", "Ollama finds what it has cached by itself"),
    row("prompt_cache_retention", RESPONSES, NoEffect, "\"in_memory\"", "Ollama finds what it has cached by itself"),
    row(
        "reasoning",
        RESPONSES,
        Mapped,
        "",
        "`effort` is `think`: none is false, minimal is low, xhigh is max; without effect on a model that cannot think. What a model thinks is always told, whatever `summary` says",
    ),
    row("safety_identifier", RESPONSES, NoEffect, "", "for OpenAI's own moderation"),
    row("service_tier", RESPONSES, NoEffect, "\"auto\"", "for OpenAI's billing"),
    row("store", RESPONSES, Emulated, "", "responses are kept in memory, as `[responses]` in the settings says"),
    row("stream", RESPONSES, Mapped, "", "events instead of one answer; Ollama is always asked for a stream"),
    row("stream_options", RESPONSES, Mapped, "", "`include_obfuscation`: nothing is padded here"),
    row("temperature", RESPONSES, Mapped, "", "`options.temperature`"),
    row("text", RESPONSES, Mapped, "", "`format`: `json`, or the schema; `verbosity` has no effect"),
    row(
        "tool_choice",
        RESPONSES,
        Emulated,
        "",
        "what may not be called is not offered; what must be called is brought about by `format`, which holds the model to the tools' schemas",
    ),
    row(
        "tools",
        RESPONSES,
        Mapped,
        "",
        "`tools`; custom tools and namespaces as functions, and back; what OpenAI runs itself is skipped, or refused (`responses.hosted_tools`)",
    ),
    row("top_logprobs", RESPONSES, Mapped, "", "`top_logprobs`, where `include` asks for probabilities"),
    row("top_p", RESPONSES, Mapped, "", "`options.top_p`"),
    row(
        "truncation",
        RESPONSES,
        Mapped,
        "",
        "`truncate`: auto is true, disabled is false; where it is left out, `context.overflow` in the settings counts",
    ),
    row("user", RESPONSES, NoEffect, "", "for OpenAI's own moderation"),
];

/// The rows of one endpoint.
pub(crate) fn rows(endpoint: Endpoint) -> impl Iterator<Item = &'static Row> {
    TABLE.iter().chain(RESPONSES_TABLE).filter(move |row| row.on.contains(&endpoint))
}

impl Row {
    /// Whether a value asks for anything: null, what is empty and OpenAI's default do not.
    fn asks(&self, raw: &RawValue) -> bool {
        let value: Value = serde_json::from_str(raw.get()).unwrap_or_default();
        match &value {
            Value::Null => false,
            Value::String(text) if text.is_empty() => false,
            Value::Array(list) if list.is_empty() => false,
            Value::Object(map) if map.is_empty() => false,
            value => serde_json::from_str::<Value>(self.default).map_or(true, |default| *value != default),
        }
    }
}

/// Settles what the endpoint has not taken: refuses, or notes what has no effect. Names that OpenAI does not have are such, too.
///
/// # Errors
/// A field that asks for what cannot be had.
pub(crate) fn settle(endpoint: Endpoint, mut fields: Fields<'_>, receipt: &mut Receipt) -> Result<(), Error> {
    for row in rows(endpoint) {
        match row.fate {
            Mapped | Emulated => {}
            Refused => {
                if fields.take_raw(row.name).is_some_and(|raw| row.asks(raw)) {
                    return Err(Error::unsupported(row.name, row.note));
                }
            }
            NoEffect => {
                if fields.take_raw(row.name).is_some_and(|raw| row.asks(raw)) {
                    receipt.no_effect(row.name);
                }
            }
        }
    }
    for (name, _) in fields.left() {
        receipt.no_effect(&name);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_of_openais_responses_has_one_row() {
        let fields: Vec<&str> = include_str!("responses/fields.txt").lines().collect();
        let known: Vec<&str> = rows(Endpoint::Responses).map(|row| row.name).collect();
        assert_eq!(known, fields, "the table and responses/fields.txt list the same fields, by name");
    }

    #[test]
    fn every_field_of_openais_chat_has_one_row() {
        let fields: Vec<&str> = include_str!("chat/fields.txt").lines().collect();
        let known: Vec<&str> = rows(Endpoint::Chat).map(|row| row.name).collect();
        assert_eq!(known, fields, "the table and chat/fields.txt list the same fields, by name");
    }

    #[test]
    fn what_asks_for_nothing_is_neither_refused_nor_noted() {
        let nothing = ["null", "\"\"", "[]", "{}", " { } "];
        for row in rows(Endpoint::Chat).chain(rows(Endpoint::Responses)) {
            for text in nothing.into_iter().chain((!row.default.is_empty()).then_some(row.default)) {
                let raw: &RawValue = serde_json::from_str(text).unwrap();
                assert!(!row.asks(raw), "{} {text}", row.name);
            }
        }
    }

    fn line(row: &Row) -> String {
        let fate = match row.fate {
            Mapped => "mapped",
            Emulated => "emulated",
            Refused => "refused",
            NoEffect => "no effect",
        };
        format!("| `{}` | {fate} | {} |\n", row.name, row.note)
    }

    #[test]
    fn the_page_tells_what_the_table_says() {
        let mut page = String::from(
            "# What becomes of each request field\n\nA field is *mapped* to what Ollama has, *emulated* by farllama, *refused* with a 400, or has *no effect*; \
             what is emulated or has no effect\nstands in the answer's header `x-farllama-receipt`. Null, empty values and OpenAI's defaults are never refused.\n\n\
             ## POST /v1/chat/completions\n\n| field | fate | how |\n|---|---|---|\n",
        );
        for row in rows(Endpoint::Chat) {
            page.push_str(&line(row));
        }
        page.push_str("\n## POST /v1/responses\n\n| field | fate | how |\n|---|---|---|\n");
        for row in rows(Endpoint::Responses) {
            page.push_str(&line(row));
        }
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/parameters.md");
        if std::env::var_os("FARLLAMA_BLESS").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &page).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap_or_default(), page, "cargo xtask bless rewrites the page");
    }
}
