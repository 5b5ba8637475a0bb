//! A completion request for Ollama, one ask for each answer, and the whole answers back. Pure.
//!
//! The prompt goes through the model's template, as in Ollama's own compatible layer: nearly every model there is
//! trained for conversation, and without its template it does not find an end. Who wants a text continued as it stands
//! says `raw: true`, or sets `completions.raw`.

use std::borrow::Cow;

use crate::{
    error::{Error, Params},
    ollama::{
        generate::{GenerateReply, GenerateRequest},
        wire as native,
    },
    openai::{
        completions::wire::{Alternatives, Choice, Completion, Facts, Logprobs, Request},
        request::options::{Seeds, limit, think},
        tools::repair::Repairs,
        upstream_request::{
            context::Policy,
            send::{Bodies, UpstreamRequest, VersionGated},
        },
    },
    stamp::Stamp,
    usage::{CompletionUsage, Usage},
};

/// Where Ollama is asked.
pub(super) const PATH: &str = "/api/generate";

/// What every answer says of the system that made it.
pub(super) const FINGERPRINT: &str = "fp_ollama";

/// What is asked of Ollama, and what may be changed about it where it is refused.
///
/// # Errors
/// A reasoning effort that does not exist, or bodies larger than `room` together.
///
/// Prompt by prompt, the n answers of each one after the other.
pub(super) fn asks(
    request: Request<'_>,
    raw_by_default: bool,
    policy: &Policy,
    room: usize,
) -> Result<Vec<UpstreamRequest>, Error> {
    let model = request.model.to_string();
    let effort = request.effort.as_ref().filter(|_| request.native.think.is_none()).map(|_| "reasoning_effort");
    let (may_grow, limit) = (policy.may_grow(&request.native), limit(&request.native.options));
    let mut native = request.native;
    let truncate = policy.apply(&mut native);
    let think = match (native.think, request.effort) {
        (Some(raw), _) => Some(Cow::Borrowed(raw)),
        (None, Some(effort)) => Some(Cow::Owned(think(&effort, "reasoning_effort")?)),
        (None, None) => native.preset_think.map(Cow::Borrowed),
    };
    let mut asked = GenerateRequest {
        model: request.model.0,
        prompt: Cow::Borrowed(""),
        raw: request.raw.unwrap_or(raw_by_default && request.suffix.is_none()),
        suffix: request.suffix.map(|suffix| suffix.0),
        system: native.preset_system.map(Cow::Borrowed),
        stream: request.stream,
        format: native.format,
        keep_alive: native.keep_alive,
        options: native.options,
        think,
        truncate,
        shift: native.shift,
        logprobs: request.logprobs.is_some(),
        top_logprobs: request.logprobs.filter(|n| *n > 0),
    };
    let max = asked.think.as_ref().is_some_and(|think| think.get() == "\"max\"");
    let version_gated = VersionGated { max, logprobs: asked.logprobs, ..VersionGated::default() };
    let (mut seeds, mut bodies) = (Seeds::of(&asked.options), Bodies::within(room));
    let mut asks = Vec::with_capacity(request.prompts.len() * request.n);
    for prompt in request.prompts {
        asked.prompt = prompt;
        seeds.first(&mut asked.options);
        for nth in 0..request.n {
            if nth == 0 || seeds.next(&mut asked.options) {
                bodies.encode(&asked)?;
            }
            let (model, body) = (model.clone(), bodies.last());
            asks.push(UpstreamRequest {
                path: PATH,
                params: Params::reading("prompt"),
                model,
                body,
                may_grow,
                limit,
                effort,
                forced: false,
                version_gated,
                reask: Repairs::default(),
            });
        }
    }
    Ok(asks)
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
    let usage: Usage = replies.iter().map(Usage::from).sum();
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

/// OpenAI's word for why the model stopped.
pub(super) fn finish_reason(done_reason: Option<&str>) -> &'static str {
    if done_reason == Some("length") { "length" } else { "stop" }
}

/// Probabilities in the legacy shape. `offset` is where the first token begins, and then where the next one would.
pub(crate) fn logprobs<'a>(tokens: Vec<native::Logprob<'a>>, offset: &mut u64) -> Logprobs<'a> {
    let mut out = Logprobs::default();
    for token in tokens {
        // The token itself is among the alternatives, if there are any.
        let mut top = Alternatives::default();
        for other in token.top_logprobs {
            top.0.entry(other.token).or_insert(other.logprob);
        }
        if !top.0.is_empty() {
            top.0.entry(token.token.clone()).or_insert(token.logprob);
        }
        out.text_offset.push(*offset);
        *offset += token.token.chars().count() as u64;
        out.top_logprobs.push(top);
        out.token_logprobs.push(token.logprob);
        out.tokens.push(token.token);
    }
    out
}
