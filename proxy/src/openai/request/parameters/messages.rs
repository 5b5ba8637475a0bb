//! The rows of the table for Anthropic's messages.

use super::Row;
use crate::openai::request::parameters::{
    Endpoint::Messages,
    Fate::{Emulated, Mapped, NoEffect, Refused},
    table::row,
};

/// Every field, by name.
pub(crate) const TABLE: &[Row] = &[
    row("billing_policy", &[Messages], NoEffect, &[], "for Anthropic's billing"),
    row("cache_control", &[Messages], NoEffect, &[], "Ollama finds what it has cached by itself; usage reports it"),
    row(
        "compaction",
        &[Messages],
        NoEffect,
        &[],
        "nothing is compacted unasked; `context.max` lets contexts grow, and a prompt that is too long gets the error that clients compact at",
    ),
    row("container", &[Messages], NoEffect, &[], "for code that Anthropic runs itself"),
    row(
        "context_management",
        &[Messages],
        NoEffect,
        &["{\"edits\":[]}"],
        "nothing is cleared unasked; `context.max` lets contexts grow",
    ),
    row("diagnostics", &[Messages], NoEffect, &[], "for Anthropic's own prompt cache"),
    row("fallback_credit_token", &[Messages], NoEffect, &[], "for Anthropic's billing"),
    row("fallbacks", &[Messages], NoEffect, &[], "no other model is asked; an error names the models that there are"),
    row("inference_geo", &[Messages], NoEffect, &[], "the remote is where it is"),
    row("max_tokens", &[Messages], Mapped, &[], "`options.num_predict`"),
    row(
        "mcp_servers",
        &[Messages],
        Refused,
        &[],
        "No MCP servers are called from here; let the client call them, and leave out 'mcp_servers'.",
    ),
    row(
        "messages",
        &[Messages],
        Mapped,
        &[],
        "`messages`; each result of a tool is a message of its own; documents, PDFs too, are their text, and images go beside the text",
    ),
    row("metadata", &[Messages], NoEffect, &[], "for Anthropic's own abuse detection"),
    row(
        "model",
        &[Messages],
        Mapped,
        &[],
        "`model`; Anthropic's names (`claude-…`) mean the settings `anthropic.model` and `anthropic.small_model`",
    ),
    row(
        "output_config",
        &[Messages],
        Mapped,
        &[],
        "`format` is `format`: the schema; `effort` is the level of `think`, where `thinking` is on",
    ),
    row("output_format", &[Messages], Mapped, &[], "`format`: the schema"),
    row("service_tier", &[Messages], NoEffect, &["\"auto\"", "\"standard_only\""], "for Anthropic's billing"),
    row("speed", &[Messages], NoEffect, &["\"standard\""], "the remote has one speed"),
    row(
        "stop_sequences",
        &[Messages],
        Emulated,
        &[],
        "looked for here, because Ollama does not say which string stopped it; usage is an estimate then, because the rest is not generated",
    ),
    row("stream", &[Messages], Mapped, &["false"], "events instead of one answer; Ollama is always asked for a stream"),
    row("system", &[Messages], Mapped, &[], "the first of `messages`, in the system's voice"),
    row("temperature", &[Messages], Mapped, &[], "`options.temperature`"),
    row(
        "thinking",
        &[Messages],
        Mapped,
        &[],
        "`think`: enabled by `budget_tokens` (up to 2048 low, up to 8192 medium, else high) or by `output_config.effort`; \
         where it is absent or disabled, a model that can choose does not think, and no thoughts are shown",
    ),
    // The official clients go on without threads where they get this refusal.
    row(
        "thread",
        &[Messages],
        Refused,
        &[],
        "No threads are kept here; send all messages in each request, and leave out 'thread'.",
    ),
    row(
        "tool_choice",
        &[Messages],
        Emulated,
        &[],
        "what may not be called is not offered; what must be called is brought about by `format`, which holds the model to the tools' schemas; \
         where parallel calls are off, calls after the first are dropped",
    ),
    row(
        "tools",
        &[Messages],
        Mapped,
        &[],
        "`tools`; those that Anthropic defines or runs itself are skipped, or refused (`anthropic.server_tools`)",
    ),
    row("top_k", &[Messages], Mapped, &[], "`options.top_k`"),
    row("top_p", &[Messages], Mapped, &[], "`options.top_p`"),
    row("user_profile_id", &[Messages], NoEffect, &[], "for Anthropic's accounts"),
    row("workspace_id", &[Messages], NoEffect, &[], "for Anthropic's accounts"),
];
