//! A completion request for Ollama, one ask for each answer, and the whole answers back. Pure.
//!
//! The prompt goes through the model's template, as in Ollama's own compatible layer: nearly every model there is trained for conversation,
//! and without its template it does not find an end. Who wants a text continued as it stands says `raw: true`, or sets `completions.raw`.

use std::borrow::Cow;

use serde_json::value::{RawValue, to_raw_value};

use super::wire::{Alternatives, Choice, Completion, Facts, Logprobs, Request};
use crate::{
    app::Stamp,
    error::Error,
    ollama::{
        generate::{GenerateReply, GenerateRequest},
        wire as native,
    },
    openai::{
        options::think,
        usage::{CompletionUsage, Usage},
    },
};

/// What every answer says of the system that made it.
pub(super) const FINGERPRINT: &str = "fp_ollama";

/// Client → upstream: prompt by prompt, the n answers of each one after the other.
///
/// # Errors
/// A reasoning effort that there is not.
pub(super) fn requests(request: Request<'_>, raw_by_default: bool) -> Result<Vec<GenerateRequest<'_>>, Error> {
    let native = request.native;
    let think = match (native.think, request.effort) {
        (Some(raw), _) => Some(Cow::Borrowed(raw)),
        (None, Some(effort)) => Some(Cow::Owned(think(&effort, "reasoning_effort")?)),
        (None, None) => None,
    };
    let first = GenerateRequest {
        model: request.model.0,
        prompt: Cow::Borrowed(""),
        raw: request.raw.unwrap_or(raw_by_default && request.suffix.is_none()),
        suffix: request.suffix.map(|suffix| suffix.0),
        stream: request.stream,
        format: native.format,
        keep_alive: native.keep_alive,
        options: native.options,
        think,
        truncate: native.truncate.map_or_else(|| raw(&false).map(Cow::Owned), |told| Ok(Cow::Borrowed(told)))?,
        shift: native.shift,
        logprobs: request.logprobs.is_some(),
        top_logprobs: request.logprobs.filter(|n| *n > 0),
    };
    let seed: Option<i64> = first.options.get("seed").and_then(|seed| seed.get().parse().ok());
    let mut asks = Vec::with_capacity(request.prompts.len() * request.n);
    for prompt in request.prompts {
        for nth in 0..request.n {
            let mut ask = GenerateRequest { prompt: prompt.clone(), ..first.clone() };
            // The same seed would give the same answer n times.
            if let Some(seed) = seed.filter(|_| nth > 0) {
                let seed = seed.wrapping_add(i64::try_from(nth).unwrap_or_default());
                ask.options.set("seed", Cow::Owned(raw(&seed)?));
            }
            asks.push(ask);
        }
    }
    Ok(asks)
}

fn raw(value: &impl serde::Serialize) -> Result<Box<RawValue>, Error> {
    to_raw_value(value).map_err(|error| Error::Internal { message: error.to_string() })
}

/// Upstream → client: whole answers, in the order of their asks.
///
/// # Errors
/// An answer that Ollama itself broke off.
pub(super) fn response<'a>(
    stamp: &'a Stamp,
    facts: &'a Facts,
    replies: Vec<GenerateReply<'a>>,
) -> Result<Completion<'a, CompletionUsage>, Error> {
    let usage = total(&replies);
    let mut choices = Vec::with_capacity(replies.len());
    for (index, reply) in replies.into_iter().enumerate() {
        if !reply.done {
            return Err(Error::unfinished());
        }
        let echoed = facts.echoed(index);
        let text = if echoed.is_empty() { reply.response } else { Cow::Owned(format!("{echoed}{}", reply.response)) };
        choices.push(Choice {
            text,
            index,
            logprobs: reply.logprobs.map(|tokens| logprobs(tokens, &mut 0)),
            finish_reason: Some(finish_reason(reply.done_reason.as_deref())),
            reasoning_content: reply.thinking.filter(|text| !text.is_empty()),
        });
    }
    Ok(Completion {
        id: &stamp.id,
        object: "text_completion",
        created: stamp.created,
        model: &facts.model,
        system_fingerprint: FINGERPRINT,
        choices,
        usage: Some(usage.into()),
    })
}

/// What all answers cost together.
pub(super) fn total<'a>(replies: impl IntoIterator<Item = &'a GenerateReply<'a>>) -> Usage {
    replies.into_iter().fold(Usage::default(), |sum, reply| Usage {
        input: sum.input + reply.prompt_eval_count.unwrap_or(0),
        output: sum.output + reply.eval_count.unwrap_or(0),
    })
}

/// OpenAI's word for why the model stopped.
pub(super) fn finish_reason(done_reason: Option<&str>) -> &'static str {
    if done_reason == Some("length") { "length" } else { "stop" }
}

/// Probabilities in the legacy shape. `offset` is where the first token begins, and then where the next one would.
pub(super) fn logprobs<'a>(tokens: Vec<native::Logprob<'a>>, offset: &mut u64) -> Logprobs<'a> {
    let mut out = Logprobs::default();
    for token in tokens {
        // The token itself is among the alternatives, wherever any are told.
        let mut top: Vec<(Cow<'a, str>, &'a RawValue)> = Vec::new();
        for other in token.top_logprobs {
            if top.iter().all(|(known, _)| *known != other.token) {
                top.push((other.token, other.logprob));
            }
        }
        if !top.is_empty() && top.iter().all(|(known, _)| *known != token.token) {
            top.push((token.token.clone(), token.logprob));
        }
        out.text_offset.push(*offset);
        *offset += token.token.chars().count() as u64;
        out.top_logprobs.push(Alternatives(top));
        out.token_logprobs.push(token.logprob);
        out.tokens.push(token.token);
    }
    out
}
