//! `POST /v1/responses/input_tokens`. Ollama has no route that counts tokens, so this is an estimate, and the receipt says so.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use serde_json::json;

use super::take;
use crate::{
    app::App,
    error::Error,
    gate::Owner,
    observe::Recorder,
    openai::request::{image_urls, json::Json},
};

/// How long the prompt would be.
pub(crate) async fn input_tokens(
    State(app): State<App>,
    recorder: Recorder,
    owner: Owner,
    json: Json,
) -> Result<Response, Error> {
    // What is in an image does not matter here.
    let json = if app.config.images.fetch { image_urls::stand_in(&json).0 } else { json };
    let prepared = take(&app, &recorder, owner, json, None, String::new(), None).await?;
    let mut receipt = prepared.receipt;
    receipt.note("input_tokens", "estimate");
    recorder.receipt(receipt);
    Ok(axum::Json(json!({"object": "response.input_tokens", "input_tokens": prepared.facts.estimate})).into_response())
}
