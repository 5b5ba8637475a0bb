//! Asks Ollama for an answer as its version understands it, and once more where a small change cures a refusal: a
//! context that grows, a way of thinking that the model does not have. All of it before the first token, and listed in
//! the receipt.

use std::{borrow::Cow, pin::Pin};

use axum::response::Response;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use http::Method;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use crate::{
    app::App,
    error::{Error, Params},
    observe::Recorder,
    offload,
    ollama::{
        models, name,
        refusal::{Refusal, Refused},
        wire::{ChatRequest, Options},
    },
    openai::{
        self,
        request::json::Fields,
        tools::repair::Repairs,
        upstream_request::{
            context::size,
            reask,
            truncate::{self, Dropped},
        },
    },
    receipt::Receipt,
    redact::Redactor,
    upstream::client::{self, Upstream, encode, encode_sized},
};

/// What is asked, and what may be changed about it.
#[derive(Clone, Debug)]
pub(crate) struct UpstreamRequest {
    pub(crate) path: &'static str,
    /// How the client calls what it is made of.
    pub(crate) params: Params,
    pub(crate) model: String,
    pub(crate) body: Bytes,
    /// Whether the context may grow: the client asks for none itself, and wants nothing cut.
    pub(crate) may_grow: bool,
    /// The longest answer that the client wants.
    pub(crate) limit: Option<u64>,
    /// The field that says how much to think, unless the client speaks Ollama's own words.
    pub(crate) effort: Option<&'static str>,
    /// Whether `format` alone makes the model call its tools, so that a model without tools can do it too.
    pub(crate) forced: bool,
    /// What it has that older remotes do not know.
    pub(crate) version_gated: VersionGated,
    /// What calls must fit, or the model is asked once more; empty if it is not.
    pub(crate) reask: Repairs,
}

/// What of an ask only newer versions of Ollama understand. Most asks have none of it, and then no version is asked
/// for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct VersionGated {
    /// It thinks at the level `max`.
    pub(crate) max: bool,
    /// It wants probabilities.
    pub(crate) logprobs: bool,
    /// It has images or sounds.
    pub(crate) images: bool,
    /// What does not fit is to be refused, so that the oldest messages can be dropped.
    pub(crate) drops: bool,
}

impl VersionGated {
    /// What is new in a chat.
    pub(crate) fn of(ask: &ChatRequest<'_>) -> Self {
        Self {
            max: ask.think.as_ref().is_some_and(|think| think.get() == "\"max\""),
            logprobs: ask.logprobs,
            images: ask.messages.iter().any(|message| !message.images.is_empty()),
            drops: false,
        }
    }
}

/// Encodes the bodies of the upstream requests that one client request becomes. What they hold together is bounded:
/// each may repeat a long prompt, long options or an image.
pub(crate) struct Bodies {
    limit: usize,
    /// About how large each is.
    size: usize,
    /// Bytes of all bodies but the first, which is about as large as the client's own.
    held: usize,
    last: Bytes,
}

impl Bodies {
    /// Bodies of `limit` bytes together, the first not counted.
    pub(crate) fn within(limit: usize) -> Self {
        Self { limit, size: 1 << 10, held: 0, last: Bytes::new() }
    }

    /// The same, where each is about `size` bytes long.
    pub(crate) fn of_size(self, size: usize) -> Self {
        Self { size, ..self }
    }

    /// Encodes the next body.
    ///
    /// # Errors
    /// Fails if the bodies are too large together.
    pub(crate) fn encode(&mut self, request: &impl Serialize) -> Result<(), Error> {
        let body = encode_sized(request, self.size)?;
        if !self.last.is_empty() {
            self.held += body.len();
        }
        if self.held > self.limit {
            return Err(Error::Invalid {
                message: format!(
                    "The requests to Ollama that this one becomes are larger than {} bytes together. UpstreamRequest for fewer answers at a time, \
                     or raise limits.body in the settings of farllama.",
                    self.limit
                ),
                param: None,
                code: Some("request_too_large"),
            });
        }
        self.last = body;
        Ok(())
    }

    /// The last body. Requests that differ in nothing share it.
    pub(crate) fn last(&self) -> Bytes {
        self.last.clone()
    }
}

/// The bodies of `asks`, as JSON.
#[cfg(test)]
pub(crate) fn bodies(asks: &[UpstreamRequest]) -> Vec<Box<RawValue>> {
    asks.iter().map(|ask| serde_json::from_slice(&ask.body).unwrap()).collect()
}

/// Makes the response out of whole replies with `answer`, off the event loop if they are large.
///
/// # Errors
/// As `answer`.
pub(crate) async fn respond(
    bodies: Vec<Bytes>,
    answer: impl FnOnce(&[Bytes]) -> Result<Response, Error> + Send + 'static,
) -> Result<Response, Error> {
    let size = bodies.iter().map(Bytes::len).sum();
    let response = offload::run(size, move || answer(&bodies)).await?;
    Ok(response.map(offload::freed_body))
}

/// How many of the asks of one request are on their way at a time: one after the other would leave the remote idle in
/// between, and its queue is for others too.
pub(crate) const AT_ONCE: usize = 4;

/// Leads to the body of an answer.
pub(crate) type Opening = Pin<Box<dyn Future<Output = Result<Upstream, Error>> + Send>>;

/// What leads to the bodies of the upstream responses that one stream is made of.
pub(crate) struct Openings {
    pub(crate) openings: Vec<Opening>,
    /// Masks the remote's credentials.
    pub(crate) redactor: Redactor,
}

/// What leads to the streamed answers.
pub(crate) fn openings(app: &App, asks: Vec<UpstreamRequest>, recorder: &Recorder) -> Openings {
    let opening = |ask| -> Opening {
        let (app, recorder) = (app.clone(), recorder.clone());
        Box::pin(async move { open(&app, ask, &recorder).await })
    };
    Openings { openings: asks.into_iter().map(opening).collect(), redactor: app.upstream.redactor().clone() }
}

/// Asks all, [`AT_ONCE`] at a time, and reads the whole answers.
///
/// # Errors
/// The first that fails, as [`whole`].
pub(crate) async fn all(app: &App, asks: Vec<UpstreamRequest>, recorder: &Recorder) -> Result<Vec<Bytes>, Error> {
    // Most requests are one ask, whose future need not be moved through a queue.
    let asks = match <[UpstreamRequest; 1]>::try_from(asks) {
        Ok([only]) => return Ok(vec![whole(app, only, recorder).await?]),
        Err(asks) => asks,
    };
    if let Some(capture) = recorder.capture() {
        capture.is_parallel();
    }
    let asking = asks.into_iter().map(|ask| whole(app, ask, recorder));
    stream::iter(asking).buffered(AT_ONCE).try_collect().await
}

/// Asks, and reads the whole answer.
///
/// # Errors
/// As [`open`]; an answer that is cut off.
pub(crate) async fn whole(app: &App, ask: UpstreamRequest, recorder: &Recorder) -> Result<Bytes, Error> {
    let reply = client::whole(open(app, ask, recorder).await?).await?;
    recorder.replied(&reply);
    Ok(reply)
}

/// Asks; the answer's body as it arrives.
///
/// # Errors
/// What Ollama refuses for good.
pub(crate) async fn open(app: &App, ask: UpstreamRequest, recorder: &Recorder) -> Result<Upstream, Error> {
    let params = ask.params;
    if !ask.reask.is_empty() {
        return Box::pin(reask::open(app, ask, recorder)).await.map_err(|error| error.blaming(params));
    }
    send_with_fallbacks(app, ask, recorder).await.map_err(|error| error.blaming(params))
}

// What is rare is boxed here and below: every request would carry the room for it otherwise.
pub(super) async fn send_with_fallbacks(
    app: &App,
    mut ask: UpstreamRequest,
    recorder: &Recorder,
) -> Result<Upstream, Error> {
    if ask.version_gated != VersionGated::default() {
        if app.upstream.has_next() {
            return Box::pin(send_to_each(app, ask, recorder)).await;
        }
        Box::pin(adapt_to_version(app, &mut ask, recorder)).await?;
    }
    recorder.waits_for("the remote");
    recorder.payload("ask", &ask.body);
    let mut thinking = None;
    let mut dropped: Option<Box<Dropped>> = None;
    // A context grows once, tools are described once, thinking only becomes less, and messages only fewer, so this
    // ends.
    loop {
        if let Some(capture) = recorder.capture() {
            capture.asked(ask.path, &ask.body);
        }
        let error = match app.upstream.open(Method::POST, ask.path, Some(ask.body.clone())).await {
            Ok(answer) => {
                if let Some(dropped) = dropped.filter(|dropped| !dropped.is_empty()) {
                    dropped.report(recorder);
                }
                return Ok(answer);
            }
            Err(error) => error,
        };
        let refused = match error {
            Error::Refused(refused) => refused,
            error => return Err(error),
        };
        if let Some(capture) = recorder.capture() {
            capture.refused(refused.status, &refused.message);
        }
        if ask.version_gated.drops && matches!(refused.refusal, Refusal::ContextLength { .. }) {
            let dropped = dropped.get_or_insert_default();
            let shorter = truncate::shorten(ask.body.clone(), &refused.refusal, ask.limit, dropped);
            match Box::pin(shorter).await? {
                Some(shorter) => ask.body = shorter,
                None => Box::pin(let_remote_cut(&mut ask, recorder)).await?,
            }
            continue;
        }
        match (&refused.refusal, ask.effort, fallback_for(&refused.refusal)) {
            (Refusal::ContextLength { .. }, ..) if ask.may_grow && app.config.context.max > 0 => {
                return Box::pin(grow(app, &ask, *refused, recorder)).await;
            }
            (Refusal::NoTools, ..) if ask.forced => {
                ask.forced = false;
                Box::pin(describe_tools(&mut ask, recorder)).await?;
            }
            (_, Some(field), Some(change)) if !app.config.openai.strict && thinking < Some(change) => {
                thinking = Some(change);
                Box::pin(think(&mut ask, field, change, recorder)).await?;
            }
            _ => {
                return Err(Box::pin(openai::models::explain(app, Error::Refused(refused), &ask.model)).await);
            }
        }
    }
}

/// Sends an ask that not every version understands to one remote after the other, until one responds: they may be of
/// different versions.
async fn send_to_each(app: &App, ask: UpstreamRequest, recorder: &Recorder) -> Result<Upstream, Error> {
    let mut first = None;
    loop {
        let at = app.upstream.position().0;
        let mut here = app.clone();
        here.upstream = app.upstream.pinned();
        match send_with_fallbacks(&here, ask.clone(), recorder).await {
            Err(error) if here.upstream.is_exhausted() && app.upstream.advance(at) => {
                first.get_or_insert(error);
            }
            // The best remote's reason says most.
            Err(error) if here.upstream.is_exhausted() => {
                app.upstream.exhaust();
                return Err(first.unwrap_or(error));
            }
            outcome => return outcome,
        }
    }
}

/// Makes an ask what this version of Ollama understands.
///
/// # Errors
/// It asks for what this version would leave out in silence.
async fn adapt_to_version(app: &App, ask: &mut UpstreamRequest, recorder: &Recorder) -> Result<(), Error> {
    let version = app.upstream.version().await?;
    if ask.version_gated.logprobs && !version.has_logprobs() {
        return Err(Error::unsupported(
            "logprobs",
            format!("The remote Ollama is {}, and probabilities are given from 0.12.11 on.", version.text()),
        ));
    }
    if ask.version_gated.drops && !version.obeys_truncate() {
        let mut receipt = Receipt::default();
        receipt.note("truncation", "by-remote");
        recorder.receipt(receipt);
    }
    let senses = async || {
        let senses = models::senses(&app.upstream, &ask.model).await;
        openai::models::explained(app, &ask.model, senses).await
    };
    if ask.version_gated.images && !version.refuses_images() && !senses().await? {
        return Err(Error::unsupported(
            ask.params.prompt,
            format!("The model `{}` cannot process images; use one with the capability vision.", ask.model),
        ));
    }
    match ask.effort {
        Some(field) if ask.version_gated.max && !version.has_think_max() && !app.config.openai.strict => {
            think(ask, field, Thinking::High, recorder).await
        }
        _ => Ok(()),
    }
}

/// The levels of thinking to try for a model that does not know the given one, the smallest change first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Thinking {
    /// As the highest level that older versions have.
    High,
    /// Without a level: it can only think or not.
    On,
    /// It cannot think.
    Not,
}

/// Returns how to ask again for an effort that was refused, so that this model, or this version of Ollama, understands
/// it.
fn fallback_for(refusal: &Refusal) -> Option<Thinking> {
    match refusal {
        Refusal::NoThinking => Some(Thinking::Not),
        Refusal::ThinkLevel { for_model: true, .. } => Some(Thinking::On),
        Refusal::ThinkLevel { only_max: true, .. } => Some(Thinking::High),
        _ => None,
    }
}

/// Changes the level of thinking; `field` is the client's name for it.
async fn think(ask: &mut UpstreamRequest, field: &str, change: Thinking, recorder: &Recorder) -> Result<(), Error> {
    ask.body = changed(ask.body.clone(), move |top| match change {
        Thinking::High => set(top, "think", "\"high\""),
        Thinking::On => set(top, "think", "true"),
        Thinking::Not => {
            top.remove("think");
            Ok(())
        }
    })
    .await?;
    let mut receipt = Receipt::default();
    match change {
        Thinking::High => receipt.note(field, "lowered:high"),
        Thinking::On => receipt.note(field, "lowered:true"),
        Thinking::Not => receipt.no_effect(field),
    }
    recorder.receipt(receipt);
    Ok(())
}

/// Lets the remote cut within the last message, which alone is too long.
async fn let_remote_cut(ask: &mut UpstreamRequest, recorder: &Recorder) -> Result<(), Error> {
    ask.body = changed(ask.body.clone(), |top| set(top, "truncate", "true")).await?;
    ask.version_gated.drops = false;
    let mut receipt = Receipt::default();
    receipt.note("truncation", "by-remote");
    recorder.receipt(receipt);
    Ok(())
}

/// Describes the tools in a system message in place of `tools`, for a model whose template has no room for them:
/// `format` alone makes it write the calls.
async fn describe_tools(ask: &mut UpstreamRequest, recorder: &Recorder) -> Result<(), Error> {
    ask.body = changed(ask.body.clone(), |top| {
        let described = |name| top.get(name).map_or("null", RawValue::get);
        let content = format!(
            "You can call these tools, which are described in JSON:\n{}\nReply with JSON that follows this schema:\n{}",
            described("tools"),
            described("format")
        );
        let system = to_raw_value(&serde_json::json!({"role": "system", "content": content}))
            .map_err(|error| Error::Internal { message: error.to_string() })?;
        let messages = top.get("messages").map_or("[]", RawValue::get);
        let messages: Vec<&RawValue> =
            serde_json::from_str(messages).map_err(|error| Error::Internal { message: error.to_string() })?;
        let messages: Vec<&RawValue> = std::iter::once(&*system).chain(messages).collect();
        let messages = to_raw_value(&messages).map_err(|error| Error::Internal { message: error.to_string() })?;
        top.remove("tools");
        top.set("messages", Cow::Owned(messages));
        Ok(())
    })
    .await?;
    let mut receipt = Receipt::default();
    receipt.emulated("tools");
    recorder.receipt(receipt);
    Ok(())
}

/// Asks once more, with a context that holds the prompt. One request at a time makes a model grow; those who wait find
/// it grown.
async fn grow(app: &App, ask: &UpstreamRequest, refused: Refused, recorder: &Recorder) -> Result<Upstream, Error> {
    let counts = match &refused.refusal {
        Refusal::ContextLength { counts, .. } => *counts,
        _ => None,
    };
    let turn = app.upstream.grown().turn(&ask.model).await;
    let cap = app.config.context.max.min(models::own_context(&app.upstream, &ask.model).await.unwrap_or(u64::MAX));
    let size = match counts {
        Some((prompt, _)) => size(prompt, ask.limit, cap),
        // This version does not report how long the prompt is.
        None => Some(cap),
    };
    let size = size.map(|size| size.max(app.upstream.grown().of(&ask.model).unwrap_or(0)).min(cap));
    let Some(size) = size.filter(|size| counts.is_none_or(|(_, context)| *size > context)) else {
        return Err(Refused { refusal: Refusal::ContextLength { counts, cap: Some(cap) }, ..refused }.into());
    };
    let body = changed(ask.body.clone(), move |top| {
        let mut options = fields(top.get("options").map_or("{}", RawValue::get))?;
        set(&mut options, "num_ctx", &size.to_string())?;
        let options = to_raw_value(&options).map_err(|error| Error::Internal { message: error.to_string() })?;
        top.set("options", Cow::Owned(options));
        Ok(())
    })
    .await?;
    tracing::info!(target: "farllama", model = ask.model, num_ctx = size, "the prompt does not fit: asking once more with a bigger context");
    let answer = app.upstream.open(Method::POST, ask.path, Some(body)).await?;
    app.upstream.grown().remember(&ask.model, size);
    drop(turn);
    let mut receipt = Receipt::default();
    receipt.note("num_ctx", format!("raised:{size}"));
    recorder.receipt(receipt);
    warn_if_it_spills(app, &ask.model, size).await;
    Ok(answer)
}

/// A bigger context may push a model off the graphics card, which makes it many times slower.
async fn warn_if_it_spills(app: &App, model: &str, context: u64) {
    let loaded = models::loaded_size(&app.upstream, |loaded| name::full(loaded) == name::full(model)).await;
    if let Some((size, size_vram)) = loaded
        && size_vram < size
    {
        tracing::warn!(
            target: "farllama",
            model,
            num_ctx = context,
            "with this context only {} of {} MiB of the model are on the graphics card: it will be slow; lower context.max",
            size_vram >> 20,
            size >> 20
        );
    }
}

/// The ask with another top level.
pub(crate) async fn changed(
    body: Bytes,
    change: impl FnOnce(&mut Options<'_>) -> Result<(), Error> + Send + 'static,
) -> Result<Bytes, Error> {
    offload::run(body.len(), move || {
        let text = std::str::from_utf8(&body).map_err(|error| Error::Internal { message: error.to_string() })?;
        let mut top = fields(text)?;
        change(&mut top)?;
        encode(&top)
    })
    .await
}

pub(crate) fn fields(text: &str) -> Result<Options<'_>, Error> {
    let fields: Fields<'_> =
        serde_json::from_str(text).map_err(|error| Error::Internal { message: error.to_string() })?;
    let mut options = Options::default();
    fields.left().for_each(|(name, value)| options.set(name, Cow::Borrowed(value)));
    Ok(options)
}

pub(super) fn set(options: &mut Options<'_>, name: &'static str, value: &str) -> Result<(), Error> {
    let value =
        RawValue::from_string(value.to_owned()).map_err(|error| Error::Internal { message: error.to_string() })?;
    options.set(name, Cow::Owned(value));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bodies_of_one_request_are_bounded_together_but_for_the_first() {
        let mut bodies = Bodies::within(10);
        bodies.encode(&"a first one may be as large as it is").unwrap();
        bodies.encode(&"1234").unwrap();
        assert_eq!(&*bodies.last(), b"\"1234\"");
        let error = bodies.encode(&"12345").unwrap_err();
        assert_eq!(error.row().code, Some("request_too_large"));
        assert!(error.to_string().contains("limits.body"), "{error}");
    }
}
