//! `POST /v1/completions` over `POST /api/generate`. Each of several answers is an ask of its own.

mod stream;
pub(crate) mod translate;
#[cfg(test)]
pub(crate) mod vectors;
mod wire;

use axum::{extract::State, response::Response};

use crate::{
    app::App,
    error::Error,
    observe::Recorder,
    ollama::generate::GenerateReply,
    openai::{
        request::json::Json,
        response::{self, sse},
        upstream_request::{
            prepare::{Context, Prepared, take},
            send,
        },
    },
    receipt::Receipt,
    usage::Usage,
};

/// Translates a body.
///
/// # Errors
/// Fails if the request is invalid, or asks for something that is not available here.
pub(crate) fn prepare(json: &Json, context: &Context<'_>) -> Result<Prepared<wire::Facts>, Error> {
    let mut receipt = Receipt::default();
    let mut request = wire::Request::read(json.fields()?, &mut receipt)?;
    let facts = request.facts();
    let policy = context.policy(&mut request.model, &mut request.native, &mut receipt)?;
    let config = context.config;
    Ok(Prepared {
        asks: translate::asks(request, config.completions.raw, &policy, config.limits.body)?,
        facts,
        receipt,
    })
}

/// The answers to one prompt or many, streamed or not.
pub(crate) async fn create(State(app): State<App>, recorder: Recorder, json: Json) -> Result<Response, Error> {
    let (asks, facts) = take(&app, &recorder, json, prepare).await?;
    let stamp = app.stamp("cmpl-");
    if facts.stream {
        let openings = send::openings(&app, asks, &recorder);
        return sse::respond(openings, stream::Completions::new(stamp, facts), &app.config.heartbeat, recorder).await;
    }
    let bodies = send::all(&app, asks, &recorder).await?;
    send::respond(bodies, move |bodies| {
        let replies = bodies.iter().map(|body| app.upstream.read(translate::PATH, body));
        let replies = replies.collect::<Result<Vec<GenerateReply<'_>>, _>>()?;
        recorder.usage(replies.iter().map(Usage::from).sum());
        let answer = translate::response(&stamp, &facts, replies)?;
        response::json(&answer, bodies.iter().map(|body| body.len() + 512).sum())
    })
    .await
}
