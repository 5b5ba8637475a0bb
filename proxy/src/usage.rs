//! What an exchange cost, as Ollama counts it and as OpenAI reports it. Pure.

use std::iter::Sum;

use serde::Serialize;

use crate::ollama::{generate::GenerateReply, wire::ChatReply};

/// Tokens of the prompt and of the answer, thinking included. Counts that Ollama left out (a cache hit, an old version)
/// are 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) input: u64,
    pub(crate) output: u64,
    /// Tokens of the prompt that were in the cache; `input` counts them too.
    pub(crate) cached: u64,
}

impl Usage {
    /// From Ollama's counts, where it gives them. A version that leaves the cached tokens out of the prompt's (0.30.0)
    /// has fewer there.
    fn counted(prompt: Option<u64>, cached: Option<u64>, answer: Option<u64>) -> Self {
        let cached = cached.unwrap_or(0);
        Self { input: prompt.unwrap_or(0).max(cached), output: answer.unwrap_or(0), cached }
    }

    /// Both together.
    pub(crate) fn plus(self, other: Self) -> Self {
        Self { input: self.input + other.input, output: self.output + other.output, cached: self.cached + other.cached }
    }
}

impl From<&ChatReply<'_>> for Usage {
    fn from(reply: &ChatReply<'_>) -> Self {
        Self::counted(reply.prompt_eval_count, reply.prompt_eval_cached_count, reply.eval_count)
    }
}

impl From<&GenerateReply<'_>> for Usage {
    fn from(reply: &GenerateReply<'_>) -> Self {
        Self::counted(reply.prompt_eval_count, reply.prompt_eval_cached_count, reply.eval_count)
    }
}

impl Sum for Usage {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), Self::plus)
    }
}

/// `usage` of chat completions and completions. Details that Ollama does not report are 0, because strict clients want
/// the keys.
#[derive(Debug, Serialize)]
pub(crate) struct CompletionUsage {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
    prompt_tokens_details: PromptDetails,
    completion_tokens_details: CompletionDetails,
}

#[derive(Debug, Default, Serialize)]
struct PromptDetails {
    cached_tokens: u64,
    audio_tokens: u64,
}

#[derive(Debug, Default, Serialize)]
struct CompletionDetails {
    reasoning_tokens: u64,
    audio_tokens: u64,
    accepted_prediction_tokens: u64,
    rejected_prediction_tokens: u64,
}

impl From<Usage> for CompletionUsage {
    fn from(Usage { input, output, cached }: Usage) -> Self {
        Self {
            prompt_tokens: input,
            completion_tokens: output,
            total_tokens: input + output,
            prompt_tokens_details: PromptDetails { cached_tokens: cached, ..PromptDetails::default() },
            completion_tokens_details: CompletionDetails::default(),
        }
    }
}
