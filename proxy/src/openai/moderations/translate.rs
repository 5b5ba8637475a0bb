//! Inputs to judge, one ask for each, and the judgements back. Pure.

use std::borrow::Cow;

use crate::{
    error::{Error, Params},
    ollama::wire::{ChatReply, ChatRequest},
    openai::{
        moderations::{
            judge::Judge,
            wire::{CATEGORIES, Judged, Map, Moderation, Request},
        },
        request::options::limit,
        upstream_request::{
            context::Policy,
            send::{Bodies, UpstreamRequest, VersionGated},
        },
    },
    stamp::Stamp,
};

/// Where Ollama is asked.
pub(super) const PATH: &str = "/api/chat";

/// What the answer must know of its request.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    /// What the client is told.
    pub(crate) model: String,
    /// Which model judges.
    pub(crate) judge: Judge,
    /// What each input holds: text, pictures.
    pub(crate) kinds: Vec<(bool, bool)>,
}

/// The model that judges: the one that is named, or the configured one in place of OpenAI's.
///
/// # Errors
/// None is named, and none is configured.
pub(super) fn model(named: Option<&str>, configured: &str) -> Result<String, Error> {
    let theirs = |name: &str| name.starts_with("omni-moderation") || name.starts_with("text-moderation");
    match named {
        Some(name) if !theirs(name) => Ok(name.to_owned()),
        _ if !configured.is_empty() => Ok(configured.to_owned()),
        _ => Err(Error::unsupported(
            "model",
            "OpenAI's moderation models are not here: name a model of the remote that judges, such as llama-guard3, or set moderation.model (--moderation-model).",
        )),
    }
}

/// What is asked of Ollama, what the answer must know, and what may be changed about the asks where they are refused.
///
/// # Errors
/// Bodies that are larger than `room` together.
pub(super) fn asks(
    request: Request<'_>,
    model: &str,
    policy: &Policy,
    room: usize,
) -> Result<(Vec<UpstreamRequest>, Facts), Error> {
    let (may_grow, limit) = (policy.may_grow(&request.native), limit(&request.native.options));
    let judge = Judge::of(model);
    let facts = Facts {
        model: request.model.map_or_else(|| model.to_owned(), |model| model.to_string()),
        judge,
        kinds: request.inputs.iter().map(|input| (!input.text.is_empty(), !input.images.is_empty())).collect(),
    };
    let mut native = request.native;
    // A text of which only a part is judged is not judged, unless somebody says so.
    let truncate = policy.apply(&mut native)?;
    native.be_exact()?;
    let mut asked = ChatRequest {
        model: Cow::Borrowed(model),
        messages: Vec::new(),
        stream: false,
        format: judge.format()?.map(Cow::Owned),
        keep_alive: native.keep_alive,
        tools: None,
        options: native.options,
        think: native.think.map(Cow::Borrowed),
        truncate: Some(truncate),
        shift: native.shift,
        logprobs: false,
        top_logprobs: None,
    };
    let mut bodies = Bodies::within(room);
    let mut asks = Vec::with_capacity(request.inputs.len());
    for input in request.inputs {
        asked.messages = judge.messages(input);
        bodies.encode(&asked)?;
        // Whether the model can see is known before.
        let (model, body, version_gated) = (model.to_owned(), bodies.last(), VersionGated::default());
        asks.push(UpstreamRequest {
            path: PATH,
            params: Params::reading("input"),
            model,
            body,
            may_grow,
            limit,
            effort: None,
            version_gated,
        });
    }
    Ok((asks, facts))
}

/// Upstream → client.
///
/// # Errors
/// An answer that is no verdict, or that Ollama itself broke off.
pub(super) fn response<'a>(
    stamp: &'a Stamp,
    facts: &'a Facts,
    replies: &[ChatReply<'_>],
) -> Result<Moderation<'a>, Error> {
    let mut results = Vec::with_capacity(replies.len());
    for (reply, kinds) in replies.iter().zip(&facts.kinds) {
        if !reply.done {
            return Err(Error::unfinished());
        }
        results.push(judged(facts.judge.read(&reply.message.content)?, *kinds));
    }
    Ok(Moderation { id: &stamp.id, model: &facts.model, results })
}

/// The models tell verdicts, not probabilities, so a score is 0 or 1.
fn judged(categories: Map<bool>, (text, image): (bool, bool)) -> Judged {
    let applied = CATEGORIES.map(|(_, pictures)| {
        let mut types = Vec::new();
        types.extend(text.then_some("text"));
        types.extend((image && pictures).then_some("image"));
        types
    });
    Judged {
        flagged: categories.0.contains(&true),
        category_scores: Map(categories.0.map(|flag| if flag { 1.0 } else { 0.0 })),
        categories,
        category_applied_input_types: Map(applied),
    }
}
