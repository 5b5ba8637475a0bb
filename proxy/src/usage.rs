//! What an exchange cost, as Ollama counts it and as OpenAI tells it. Pure.

use std::iter::Sum;

use serde::Serialize;

use crate::ollama::{generate::GenerateReply, wire::ChatReply};

/// Tokens of the prompt and of the answer, thinking included. Counts that Ollama left out (a cache hit, an old version) are 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) input: u64,
    pub(crate) output: u64,
}

impl Usage {
    /// Both together.
    pub(crate) fn plus(self, other: Self) -> Self {
        Self { input: self.input + other.input, output: self.output + other.output }
    }
}

impl From<&ChatReply<'_>> for Usage {
    fn from(reply: &ChatReply<'_>) -> Self {
        Self { input: reply.prompt_eval_count.unwrap_or(0), output: reply.eval_count.unwrap_or(0) }
    }
}

impl From<&GenerateReply<'_>> for Usage {
    fn from(reply: &GenerateReply<'_>) -> Self {
        Self { input: reply.prompt_eval_count.unwrap_or(0), output: reply.eval_count.unwrap_or(0) }
    }
}

impl Sum for Usage {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), Self::plus)
    }
}

/// `usage` of chat completions and completions. Details that Ollama does not tell are 0, because strict clients want the keys.
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
    fn from(Usage { input, output }: Usage) -> Self {
        Self {
            prompt_tokens: input,
            completion_tokens: output,
            total_tokens: input + output,
            prompt_tokens_details: PromptDetails::default(),
            completion_tokens_details: CompletionDetails::default(),
        }
    }
}
