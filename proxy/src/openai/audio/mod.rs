//! `POST /v1/audio/transcriptions` and `/translations` over `POST /api/chat`; and why there is no `/v1/audio/speech`.

mod form;
mod translate;
#[cfg(test)]
pub(crate) mod vectors;
mod wire;

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, header};

use super::{json::Json, models, receipt::Receipt, usage::Usage};
use crate::{
    app::App,
    error::Error,
    observe::Recorder,
    ollama::{
        client::encode,
        wire::{ChatReply, ChatRequest},
    },
};
use translate::Source;

const PATH: &str = "/api/chat";

/// The transcript of a recording.
pub(crate) async fn transcribe(
    State(app): State<App>,
    recorder: Recorder,
    headers: HeaderMap,
    json: Json,
) -> Result<Response, Error> {
    let request = read(&app, &recorder, &headers, &json).await?;
    drop(json);
    let (text, usage) = transcript(&app, &recorder, &request).await?;
    Ok(answer(&recorder, &request, &text, usage))
}

/// The English of a recording.
pub(crate) async fn translate(
    State(app): State<App>,
    recorder: Recorder,
    headers: HeaderMap,
    json: Json,
) -> Result<Response, Error> {
    let request = read(&app, &recorder, &headers, &json).await?;
    drop(json);
    let (text, heard) = transcript(&app, &recorder, &request).await?;
    let (text, spent) = ask(&app, &recorder, &request, &translate::english(&request, &text)?).await?;
    let usage = Usage { input: heard.input + spent.input, output: heard.output + spent.output };
    Ok(answer(&recorder, &request, &text, usage))
}

/// Always refused.
pub(crate) async fn speech() -> Error {
    Error::unsupported("model", "Ollama's models write; none of them speaks. Use another service for speech.")
}

async fn read(app: &App, recorder: &Recorder, headers: &HeaderMap, json: &Json) -> Result<wire::Request, Error> {
    let mut ignored = Vec::new();
    let given = form::read(headers.get(header::CONTENT_TYPE), json).await?;
    let request = wire::Request::take(given, &mut ignored)?;
    recorder.model(&request.model);
    recorder.receipt(Receipt::ignoring(&ignored, app.config.openai.strict)?);
    Ok(request)
}

async fn transcript(app: &App, recorder: &Recorder, request: &wire::Request) -> Result<(String, Usage), Error> {
    let asks_to_hear = request.text.is_none() && request.file.is_some();
    let hears = asks_to_hear && models::can(app, &request.model, "audio").await?;
    match translate::source(request, hears, app.config.audio.prompt_as_transcript)? {
        Source::Given(text) => Ok((text.to_owned(), Usage::default())),
        Source::Prompt(text) => {
            let mut receipt = Receipt::default();
            receipt.note("prompt", "transcript");
            recorder.receipt(receipt);
            Ok((text.to_owned(), Usage::default()))
        }
        Source::Sound(sound) => ask(app, recorder, request, &translate::transcribe(request, sound)?).await,
    }
}

/// What the model says to one ask.
async fn ask(
    app: &App,
    recorder: &Recorder,
    request: &wire::Request,
    ask: &ChatRequest<'_>,
) -> Result<(String, Usage), Error> {
    let ask = encode(ask)?;
    recorder.payload("ask", &ask);
    let reply = models::ask(app, PATH, ask, &request.model).await.map_err(|error| error.about("file"))?;
    recorder.payload("reply", &reply);
    let reply: ChatReply<'_> = app.ollama.read(PATH, &reply)?;
    if !reply.done {
        return Err(Error::unfinished());
    }
    let usage = Usage::from(&reply);
    Ok((reply.message.content.trim().to_owned(), usage))
}

fn answer(recorder: &Recorder, request: &wire::Request, text: &str, usage: Usage) -> Response {
    recorder.usage(usage);
    if request.plain {
        return format!("{text}\n").into_response();
    }
    axum::Json(translate::response(text, usage)).into_response()
}
