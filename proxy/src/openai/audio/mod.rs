//! `POST /v1/audio/transcriptions` and `/translations` over `POST /api/chat`; and why there is no `/v1/audio/speech`.

pub(crate) mod form;
mod translate;
#[cfg(test)]
pub(crate) mod vectors;
mod wire;

use std::sync::Arc;

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, header};

use crate::{
    app::App,
    buffered::Lease,
    error::{Error, Params},
    observe::Recorder,
    offload,
    ollama::wire::ChatReply,
    openai::{
        models::can,
        request::{json::Json, parameters::Endpoint},
        upstream_request::{
            context::Policy,
            prepare::{self, Context},
            send::{self, UpstreamRequest},
        },
    },
    receipt::Receipt,
    usage::Usage,
};
use translate::Source;
use wire::Given;

/// The transcript of a recording.
pub(crate) async fn transcribe(
    State(app): State<App>,
    recorder: Recorder,
    headers: HeaderMap,
    json: Json,
) -> Result<Response, Error> {
    let audio = Audio::read(app, recorder, Endpoint::Transcriptions, &headers, json).await?;
    let (text, usage) = audio.transcript().await?;
    Ok(audio.answer(&text, usage))
}

/// The English of a recording.
pub(crate) async fn translate(
    State(app): State<App>,
    recorder: Recorder,
    headers: HeaderMap,
    json: Json,
) -> Result<Response, Error> {
    let audio = Audio::read(app, recorder, Endpoint::Translations, &headers, json).await?;
    let (text, heard) = audio.transcript().await?;
    let size = text.len();
    let ask = audio.with(size, move |request, policy| translate::english(request, &text, policy)).await?;
    let (text, spent) = audio.ask(ask).await?;
    Ok(audio.answer(&text, heard.plus(spent)))
}

/// Always refused.
pub(crate) async fn speech() -> Error {
    Error::unsupported("model", "Ollama has no text-to-speech models. Use another service for speech.")
}

/// Translates a JSON body as if every model could hear: what would be asked first, if anything is.
///
/// # Errors
/// Fails if the request is invalid, or asks for something that is not available here.
pub(crate) fn prepare(
    json: &Json,
    context: &Context<'_>,
    endpoint: Endpoint,
) -> Result<(Vec<UpstreamRequest>, Receipt), Error> {
    let given = form::object(json)?;
    let mut receipt = Receipt::default();
    let (request, policy) = read(&given, endpoint, context, &mut receipt)?;
    let text = match translate::source(&request, true, context.config.audio.prompt_as_transcript)? {
        Source::Sound(sound) => return Ok((vec![translate::transcribe(&request, sound, &policy)?], receipt)),
        Source::Given(text) => text,
        Source::Prompt(text) => {
            receipt.note("prompt", "transcript");
            text
        }
    };
    let translates = endpoint == Endpoint::Translations;
    let asks = translates.then(|| translate::english(&request, text, &policy)).into_iter().collect::<Result<_, _>>()?;
    Ok((asks, receipt))
}

fn read<'a>(
    given: &'a Given,
    endpoint: Endpoint,
    context: &Context<'a>,
    receipt: &mut Receipt,
) -> Result<(wire::Request<'a>, Policy), Error> {
    let mut request = wire::Request::read(given, endpoint, receipt)?;
    let policy = context.policy(&mut request.model, &mut request.native, receipt)?;
    Ok((request, policy))
}

/// A request that was read, and what answers it.
struct Audio {
    app: App,
    recorder: Recorder,
    endpoint: Endpoint,
    given: Arc<Given>,
    /// Its size in memory, which counts against `limits.buffered` while the request lasts.
    size: usize,
    _lease: Lease,
    model: String,
    plain: bool,
    /// Whether there is a recording to be heard, and no transcript.
    heard: bool,
}

/// [`Source`], for one who owns what it has.
enum Next {
    Given(String),
    Prompt(String),
    Sound(UpstreamRequest),
}

impl Audio {
    async fn read(
        app: App,
        recorder: Recorder,
        endpoint: Endpoint,
        headers: &HeaderMap,
        json: Json,
    ) -> Result<Self, Error> {
        let given = form::read(headers.get(header::CONTENT_TYPE), json).await?;
        let size = given.fields.bytes().len() + given.file.as_ref().map_or(0, String::len);
        // There already, so it is counted without waiting.
        let mut lease = app.buffered.lease();
        lease.add(size);
        let given = Arc::new(given);
        let (shared, notes, whole) = (app.clone(), recorder.clone(), given.clone());
        let (model, plain, heard) = offload::run(given.fields.bytes().len(), move || {
            let mut receipt = Receipt::default();
            let (request, _) = read(&whole, endpoint, &Context::of(&shared, &notes), &mut receipt)?;
            notes.receipt(receipt);
            let heard = request.text.is_none() && request.file.is_some();
            Ok::<_, Error>((request.model.to_string(), request.plain, heard))
        })
        .await?;
        Ok(Self { app, recorder, endpoint, given, size, _lease: lease, model, plain, heard })
    }

    /// What `make` makes of the request and of `more` bytes, off the event loop if they are many.
    async fn with<T: Send + 'static>(
        &self,
        more: usize,
        make: impl FnOnce(&wire::Request<'_>, &Policy) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (app, recorder, given, endpoint) =
            (self.app.clone(), self.recorder.clone(), self.given.clone(), self.endpoint);
        offload::run(self.size + more, move || {
            // Noted already, when the request was read first.
            let mut receipt = Receipt::default();
            let (request, policy) = read(&given, endpoint, &Context::of(&app, &recorder), &mut receipt)?;
            make(&request, &policy)
        })
        .await
    }

    async fn transcript(&self) -> Result<(String, Usage), Error> {
        let hears = self.heard && can(&self.app, &self.model, "audio").await?;
        let prompt_as_transcript = self.app.config.audio.prompt_as_transcript;
        let next = self.with(0, move |request, policy| {
            Ok(match translate::source(request, hears, prompt_as_transcript)? {
                Source::Given(text) => Next::Given(text.to_owned()),
                Source::Prompt(text) => Next::Prompt(text.to_owned()),
                Source::Sound(sound) => Next::Sound(translate::transcribe(request, sound, policy)?),
            })
        });
        match next.await? {
            Next::Given(text) => Ok((text, Usage::default())),
            Next::Prompt(text) => {
                let mut receipt = Receipt::default();
                receipt.note("prompt", "transcript");
                self.recorder.receipt(receipt);
                Ok((text, Usage::default()))
            }
            Next::Sound(ask) => self.ask(ask).await,
        }
    }

    /// What the model says to one ask.
    async fn ask(&self, mut ask: UpstreamRequest) -> Result<(String, Usage), Error> {
        prepare::hold(std::slice::from_mut(&mut ask), &self.app.buffered);
        let (params, limited) = (ask.params, ask.limit.is_some());
        let reply = send::whole(&self.app, ask, &self.recorder).await?;
        let app = self.app.clone();
        offload::run(reply.len(), move || said(&app, &reply, params, limited)).await
    }

    fn answer(&self, text: &str, usage: Usage) -> Response {
        self.recorder.usage(usage);
        if self.plain {
            return format!("{text}\n").into_response();
        }
        axum::Json(translate::response(text, usage)).into_response()
    }
}

fn said(app: &App, reply: &[u8], params: Params, limited: bool) -> Result<(String, Usage), Error> {
    let reply: ChatReply<'_> = app.upstream.read(translate::PATH, reply)?;
    if !reply.done {
        return Err(Error::unfinished());
    }
    // Half a transcript looks like a whole one: there is no word for it in the answer.
    if reply.done_reason.as_deref() == Some("length") && !limited {
        return Err(Error::Invalid {
            message: translate::CUT.to_owned(),
            param: Some(params.prompt.to_owned()),
            code: Some("context_length_exceeded"),
        });
    }
    let usage = Usage::from(&reply);
    Ok((reply.message.content.trim().to_owned(), usage))
}
