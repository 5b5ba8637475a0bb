//! `POST /v1/embeddings` over `POST /api/embed`.

mod translate;
#[cfg(test)]
pub(crate) mod vectors;
mod wire;

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};

use super::{json::Json, models, receipt::Receipt, usage::Usage};
use crate::{
    app::App,
    error::Error,
    observe::Recorder,
    ollama::{client::encode, embed::EmbedReply},
};

/// The vectors of one text or many.
pub(crate) async fn create(State(app): State<App>, recorder: Recorder, json: Json) -> Result<Response, Error> {
    recorder.payload("request", json.bytes());
    let (ask, facts) = {
        let mut ignored = Vec::new();
        let request = wire::Request::read(json.fields()?, &mut ignored)?;
        recorder.model(&request.model);
        recorder.receipt(Receipt::ignoring(&ignored, app.config.openai.strict)?);
        let facts = request.facts();
        (encode(&translate::request(request)?)?, facts)
    };
    drop(json);
    recorder.payload("ask", &ask);
    let reply = models::ask(&app, "/api/embed", ask, &facts.model).await.map_err(refused)?;
    recorder.payload("reply", &reply);
    let reply: EmbedReply<'_> = app.ollama.read("/api/embed", &reply)?;
    recorder.usage(Usage { input: reply.prompt_eval_count.unwrap_or(0), output: 0 });
    Ok(axum::Json(translate::response(&facts, &reply)?).into_response())
}

/// Ollama's refusals, told in the words of this endpoint.
fn refused(error: Error) -> Error {
    match error {
        // Some versions call it 501, which clients would retry.
        Error::Upstream { message, .. } if message.contains("does not support embeddings") => Error::unsupported(
            "model",
            format!("The model cannot embed; take one that can, such as nomic-embed-text. (Ollama: {message})"),
        ),
        error => error.about("input"),
    }
}
