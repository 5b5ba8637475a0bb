//! A response's request for Ollama. Pure; the way back is `stream.rs`.

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::{
    config::Overflow,
    error::{Error, Params},
    openai::{
        responses::{
            input::Conversation,
            request::{Facts, Request},
        },
        tools::{forced::Form, repair::Repairs},
        upstream_request::{
            context::Policy,
            estimate,
            message::Turn,
            send::{UpstreamRequest, VersionGated},
        },
    },
    receipt::Receipt,
    sealed::Key,
    upstream::client::encode_sized,
};

/// What is asked of Ollama, and what making the response must know. `before` are the items that go before those of the
/// input, the oldest first; `from` is the field that names where they are.
///
/// The upstream request is always streamed: only a stream shows in which order a model thinks, writes and calls tools.
///
/// # Errors
/// Content, tools or a format that Ollama cannot be given.
pub(super) fn ask<'a>(
    mut request: Request<'a>,
    from: &str,
    before: impl Iterator<Item = &'a RawValue>,
    input: &'a [Cow<'a, RawValue>],
    settings: Policy,
    key: Option<&Key>,
    receipt: &mut Receipt,
) -> Result<(UpstreamRequest, Facts), Error> {
    let policy = request.policy(settings);
    // The proxy drops what does not fit, so that it can say what; Ollama would cut without a word.
    let drops = policy.overflow == Overflow::Truncate && request.native.truncate.is_none();
    let policy = if drops { Policy { overflow: Overflow::Refuse, ..policy } } else { policy };
    let mut conversation = Conversation::new(request.instructions.clone()).opening_with(key);
    for item in before {
        conversation.add(item, from, receipt)?;
    }
    conversation.reserve(input.len());
    for (n, item) in input.iter().enumerate() {
        conversation.add(item, &format!("input[{n}]"), receipt)?;
    }
    let size = 1024 + input.iter().map(|item| item.get().len()).sum::<usize>();
    let mut facts = request.facts;
    let reask = match facts.form {
        Form::Free => facts.repairs.for_asking_again(),
        _ => Repairs::default(),
    };
    let turn = Turn {
        model: request.model,
        stream: true,
        native: request.native,
        effort: request.effort,
        thinking_switch: None,
        format: request.format,
        tools: request.tools,
        form: facts.form.clone(),
        most_calls: facts.most_calls,
        logprobs: request.logprobs,
        top_logprobs: request.top_logprobs,
    };
    let params = Params { prompt: "input", format: "text.format", ..Params::default() };
    let ask = turn.ask(params, &policy);
    let may_grow = ask.may_grow && !drops;
    let mut native = turn.request(conversation.messages(), &policy, receipt)?;
    facts.estimate = estimate::tokens(&native);
    if !facts.generate {
        // Ollama then loads the model, and says so (`chat/load` in the recordings).
        native.messages.clear();
    }
    let version_gated = VersionGated { drops, ..VersionGated::of(&native) };
    Ok((UpstreamRequest { body: encode_sized(&native, size)?, may_grow, version_gated, reask, ..ask }, facts))
}
