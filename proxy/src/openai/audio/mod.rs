//! `POST /v1/audio/transcriptions` and `/translations` over `POST /api/chat`; and why there is no `/v1/audio/speech`.

pub(crate) mod form;
mod translate;
#[cfg(test)]
pub(crate) mod vectors;
mod wire;

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, header};

use crate::{
    app::App,
    error::Error,
    observe::Recorder,
    ollama::wire::ChatReply,
    openai::{
        models::can,
        request::{json::Json, parameters::Endpoint},
        upstream_request::{
            context::Policy,
            prepare::Context,
            send::{self, UpstreamRequest},
        },
    },
    receipt::Receipt,
    usage::Usage,
};
use translate::Source;

/// The transcript of a recording.
pub(crate) async fn transcribe(
    State(app): State<App>,
    recorder: Recorder,
    headers: HeaderMap,
    json: Json,
) -> Result<Response, Error> {
    let given = form::read(headers.get(header::CONTENT_TYPE), &json).await?;
    drop(json);
    let (request, policy) = taken(&app, &recorder, &given, Endpoint::Transcriptions)?;
    let (text, usage) = transcript(&app, &recorder, &request, &policy).await?;
    Ok(answer(&recorder, &request, &text, usage))
}

/// The English of a recording.
pub(crate) async fn translate(
    State(app): State<App>,
    recorder: Recorder,
    headers: HeaderMap,
    json: Json,
) -> Result<Response, Error> {
    let given = form::read(headers.get(header::CONTENT_TYPE), &json).await?;
    drop(json);
    let (request, policy) = taken(&app, &recorder, &given, Endpoint::Translations)?;
    let (text, heard) = transcript(&app, &recorder, &request, &policy).await?;
    let (text, spent) = ask(&app, &recorder, translate::english(&request, &text, &policy)?).await?;
    Ok(answer(&recorder, &request, &text, heard.plus(spent)))
}

/// Always refused.
pub(crate) async fn speech() -> Error {
    Error::unsupported("model", "Ollama's models write; none of them speaks. Use another service for speech.")
}

/// Translates a JSON body as if every model could hear: what would be asked first, if anything is.
///
/// # Errors
/// What the client got wrong, and what cannot be had here.
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

fn taken<'a>(
    app: &App,
    recorder: &Recorder,
    given: &'a wire::Given,
    endpoint: Endpoint,
) -> Result<(wire::Request<'a>, Policy), Error> {
    let mut receipt = Receipt::default();
    let taken = read(given, endpoint, &Context::of(app, recorder), &mut receipt)?;
    recorder.receipt(receipt);
    Ok(taken)
}

fn read<'a>(
    given: &'a wire::Given,
    endpoint: Endpoint,
    context: &Context<'_>,
    receipt: &mut Receipt,
) -> Result<(wire::Request<'a>, Policy), Error> {
    let request = wire::Request::read(given, endpoint, receipt)?;
    let policy = context.policy(&request.model, &request.native, receipt)?;
    Ok((request, policy))
}

async fn transcript(
    app: &App,
    recorder: &Recorder,
    request: &wire::Request<'_>,
    policy: &Policy,
) -> Result<(String, Usage), Error> {
    let asks_to_hear = request.text.is_none() && request.file.is_some();
    let hears = asks_to_hear && can(app, &request.model, "audio").await?;
    match translate::source(request, hears, app.config.audio.prompt_as_transcript)? {
        Source::Given(text) => Ok((text.to_owned(), Usage::default())),
        Source::Prompt(text) => {
            let mut receipt = Receipt::default();
            receipt.note("prompt", "transcript");
            recorder.receipt(receipt);
            Ok((text.to_owned(), Usage::default()))
        }
        Source::Sound(sound) => ask(app, recorder, translate::transcribe(request, sound, policy)?).await,
    }
}

/// What the model says to one ask.
async fn ask(app: &App, recorder: &Recorder, ask: UpstreamRequest) -> Result<(String, Usage), Error> {
    let (params, limited) = (ask.params, ask.limit.is_some());
    let reply = send::whole(app, ask, recorder).await?;
    let reply: ChatReply<'_> = app.upstream.read(translate::PATH, &reply)?;
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

fn answer(recorder: &Recorder, request: &wire::Request<'_>, text: &str, usage: Usage) -> Response {
    recorder.usage(usage);
    if request.plain {
        return format!("{text}\n").into_response();
    }
    axum::Json(translate::response(text, usage)).into_response()
}
