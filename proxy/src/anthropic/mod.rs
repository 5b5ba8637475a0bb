//! What clients speak: Anthropic's Messages API, over `POST /api/chat`. What it shares with OpenAI's endpoints is in
//! `openai/`.

mod content;
#[cfg(test)]
mod laws;
pub(crate) mod models;
mod request;
mod stops;
mod stream;
mod tools;
mod translate;
#[cfg(test)]
pub(crate) mod vectors;
mod wire;

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http_body_util::BodyExt;
use request::{Facts, For, Request};
use stream::Messages;
use wire::TokenCount;

use crate::{
    app::App,
    error::Error,
    observe::Recorder,
    openai::{
        request::{image_urls, json::Json},
        response::sse::{self, Feed, Translator},
        upstream_request::{
            prepare::{Context, Prepared, take_with_images},
            send::{self, UpstreamRequest},
        },
    },
    receipt::Receipt,
};

/// Translates a body.
///
/// # Errors
/// Fails if the request is invalid, or asks for something that is not available here.
pub(crate) fn prepare(json: &Json, context: &Context<'_>) -> Result<Prepared<Facts>, Error> {
    prepare_for(For::Message, json, context)
}

fn prepare_for(purpose: For, json: &Json, context: &Context<'_>) -> Result<Prepared<Facts>, Error> {
    let (config, mut receipt) = (context.config, Receipt::default());
    let fields = json.fields()?;
    let tools = context.tools(&fields);
    let mut request = Request::read(fields, purpose, config, &tools, &mut receipt)?;
    let policy = context.policy(&mut request.model, &mut request.native, &mut receipt)?;
    let (ask, facts) = translate::ask(request, &policy, &mut receipt)?;
    receipt.enforce_strict(config)?;
    Ok(Prepared { asks: vec![ask], facts, receipt })
}

/// One message, streamed or not.
pub(crate) async fn create(State(app): State<App>, recorder: Recorder, json: Json) -> Result<Response, Error> {
    let (mut asks, facts) = take_with_images(&app, &recorder, json, prepare).await?;
    let stream = facts.stream;
    let messages = Messages::new(app.stamp("msg_"), facts, Some(recorder.id()));
    if stream {
        let openings = send::openings(&app, asks, &recorder);
        return sse::respond(openings, messages, &app.config.heartbeat, recorder).await;
    }
    match asks.pop() {
        Some(ask) => whole(&app, ask, messages, &recorder).await,
        None => Err(Error::Internal { message: "a message is one request".to_owned() }),
    }
}

/// Reads the stream until the message is whole. One that ends at a stop sequence is not read further, and not generated
/// further.
async fn whole(app: &App, ask: UpstreamRequest, messages: Messages, recorder: &Recorder) -> Result<Response, Error> {
    let mut body = send::open(app, ask, recorder).await?;
    let mut feed = Feed::of(messages, 1).redacting(app.upstream.redactor());
    let mut outcome = Ok(());
    while outcome.is_ok() && !feed.translator().closed() {
        outcome = match body.frame().await {
            None => feed.eof_of(0),
            Some(Err(error)) => Err(error),
            Some(Ok(frame)) => frame.into_data().map_or(Ok(()), |packet| {
                recorder.first_token();
                recorder.replied(&packet);
                feed.packet_of(0, packet)
            }),
        };
    }
    recorder.receipt(feed.receipt());
    if let Some(usage) = feed.translator().usage() {
        recorder.usage(usage);
    }
    outcome?;
    Ok(axum::Json(feed.translator().answer()).into_response())
}

/// How long a prompt would be. Ollama has no route that counts tokens, so this is an estimate, and the receipt says so.
pub(crate) async fn count_tokens(State(app): State<App>, recorder: Recorder, json: Json) -> Result<Response, Error> {
    // What is in an image does not matter here.
    let json = if app.config.images.fetch { image_urls::stand_in(&json).0 } else { json };
    let count = |json: &Json, context: &Context<'_>| prepare_for(For::Count, json, context);
    let (_, facts) = take_with_images(&app, &recorder, json, count).await?;
    let mut receipt = Receipt::default();
    receipt.note("input_tokens", "estimate");
    recorder.receipt(receipt);
    Ok(axum::Json(TokenCount { input_tokens: facts.estimate }).into_response())
}

/// Anthropic's batches, which farllama does not have: nothing runs here after its request has ended.
pub(crate) async fn refuse_batches() -> Error {
    Error::NotImplemented {
        message:
            "Nothing runs here after its request has ended, so there are no batches; send each message to /v1/messages."
                .to_owned(),
    }
}
