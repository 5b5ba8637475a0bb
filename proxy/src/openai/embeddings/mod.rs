//! `POST /v1/embeddings` over `POST /api/embed`.

mod translate;
#[cfg(test)]
pub(crate) mod vectors;
mod wire;

use axum::{extract::State, response::Response};

use crate::{
    app::App,
    error::Error,
    observe::Recorder,
    ollama::embed::EmbedReply,
    openai::{
        request::json::Json,
        response,
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
    Ok(Prepared { asks: vec![translate::ask(request, &policy)?], facts, receipt })
}

/// The vectors of one text or many.
pub(crate) async fn create(State(app): State<App>, recorder: Recorder, json: Json) -> Result<Response, Error> {
    let (asks, facts) = take(&app, &recorder, json, prepare).await?;
    let bodies = send::all(&app, asks, &recorder).await?;
    send::respond(bodies, move |bodies| {
        let body = bodies.first().ok_or_else(|| Error::Internal { message: "a request without asks".to_owned() })?;
        let reply = EmbedReply::compact(body).map_or_else(|| app.upstream.read(translate::PATH, body), Ok)?;
        recorder.usage(Usage { input: reply.prompt_eval_count.unwrap_or(0), ..Usage::default() });
        Ok(response::written(translate::response(&facts, &reply, body.len())?))
    })
    .await
}
