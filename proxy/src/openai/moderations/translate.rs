//! Inputs to judge, one ask for each, and the judgments back. Pure.

use std::borrow::Cow;

use crate::{
    error::{Error, Params},
    ollama::wire::{ChatReply, ChatRequest},
    openai::{
        moderations::{
            judge::{Judge, Verdict},
            wire::{CATEGORIES, Judged, Map, Moderation, Request},
        },
        request::options::limit,
        tools::repair::Repairs,
        upstream_request::{
            context::Policy,
            send::{Bodies, UpstreamRequest, VersionGated},
        },
    },
    receipt::Receipt,
    stamp::Stamp,
};

/// Where Ollama is asked.
pub(super) const PATH: &str = "/api/chat";

/// What the answer must know of its request.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    /// What the client gets.
    pub(crate) model: String,
    /// Which model judges.
    pub(crate) judge: Judge,
    /// What each input holds: text, images.
    pub(crate) kinds: Vec<(bool, bool)>,
}

/// What the remote has to judge with.
#[derive(Clone, Debug, Default)]
pub(crate) struct Means {
    /// The model that judges where none is named and none configured.
    pub(super) guard: Option<String>,
    /// Whether answers come with the probabilities of their tokens.
    pub(super) scored: bool,
}

/// Most alternatives to a token that Ollama gives (recorded: logprobs-raw/top-21).
const ALTERNATIVES: u8 = 20;

/// Whether a request leaves the choice of the model to us: it names none, or one of OpenAI's.
pub(super) fn is_open(named: Option<&str>) -> bool {
    named.is_none_or(|name| name.starts_with("omni-moderation") || name.starts_with("text-moderation"))
}

/// The model that judges: the one that is named, or in place of OpenAI's the configured one, or else a guard model that
/// the remote has, which is noted.
///
/// # Errors
/// Fails if there is none.
pub(super) fn model(
    named: Option<&str>,
    configured: &str,
    guard: Option<&str>,
    receipt: &mut Receipt,
) -> Result<String, Error> {
    match (named.filter(|_| !is_open(named)), guard) {
        (Some(name), _) => Ok(name.to_owned()),
        (None, _) if !configured.is_empty() => Ok(configured.to_owned()),
        (None, Some(guard)) => {
            let plain = |c: char| if c.is_ascii_graphic() && !matches!(c, ',' | '"') { c } else { '_' };
            receipt.note("model", guard.chars().map(plain).collect::<String>());
            Ok(guard.to_owned())
        }
        (None, None) => Err(Error::unsupported(
            "model",
            "OpenAI's moderation models are not here, and the remote has no guard model: get one (ollama pull llama-guard3), name a model that judges, or set moderation.model (--moderation-model).",
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
    scored: bool,
) -> Result<(Vec<UpstreamRequest>, Facts), Error> {
    let (may_grow, limit) = (policy.may_grow(&request.native), limit(&request.native.options));
    let judge = Judge::of(model);
    let facts = Facts {
        model: request.model.map_or_else(|| model.to_owned(), |model| model.to_string()),
        judge,
        kinds: request.inputs.iter().map(|input| (!input.text.is_empty(), !input.images.is_empty())).collect(),
    };
    let mut native = request.native;
    // A text of which only a part is judged is not judged, unless the request or the settings say so.
    let truncate = policy.apply(&mut native);
    native.be_exact();
    let mut asked = ChatRequest {
        model: Cow::Borrowed(model),
        messages: Vec::new(),
        stream: false,
        format: judge.format().map(Cow::Owned),
        keep_alive: native.keep_alive,
        tools: None,
        options: native.options,
        think: native.think.map(Cow::Borrowed),
        truncate: Some(truncate),
        shift: native.shift,
        logprobs: scored,
        top_logprobs: scored.then_some(ALTERNATIVES),
    };
    let mut bodies = Bodies::within(room);
    let mut asks = Vec::with_capacity(request.inputs.len() * judge.questions());
    let questions = request.inputs.iter().flat_map(|input| (0..judge.questions()).map(move |nth| (input, nth)));
    for (input, nth) in questions {
        asked.messages = judge.messages(input, nth);
        bodies.encode(&asked)?;
        // Whether the model can see, and whether there are probabilities, is known before.
        let (model, body, version_gated) = (model.to_owned(), bodies.last(), VersionGated::default());
        asks.push(UpstreamRequest {
            path: PATH,
            params: Params::reading("input"),
            model,
            body,
            may_grow,
            limit,
            effort: None,
            forced: false,
            version_gated,
            reask: Repairs::default(),
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
    replies: &'a [ChatReply<'_>],
) -> Result<Moderation<'a>, Error> {
    let mut results = Vec::with_capacity(replies.len());
    for (replies, kinds) in replies.chunks(facts.judge.questions()).zip(&facts.kinds) {
        if replies.iter().any(|reply| !reply.done) {
            return Err(Error::unfinished());
        }
        let answer =
            |reply: &'a ChatReply<'_>| (&*reply.message.content, reply.logprobs.as_deref().unwrap_or_default());
        let answers: Vec<_> = replies.iter().map(answer).collect();
        results.push(judged(facts.judge.read(&answers)?, *kinds));
    }
    Ok(Moderation { id: &stamp.id, model: &facts.model, results })
}

fn judged(Verdict { flags, scores }: Verdict, (text, image): (bool, bool)) -> Judged {
    let applied = CATEGORIES.map(|(_, judges_images)| {
        let mut types = Vec::new();
        types.extend(text.then_some("text"));
        types.extend((image && judges_images).then_some("image"));
        types
    });
    Judged {
        flagged: flags.0.contains(&true),
        category_scores: scores,
        categories: flags,
        category_applied_input_types: Map(applied),
    }
}
