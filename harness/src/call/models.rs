//! The list of models, and one model, with the OpenAI client.

use async_openai::{Client, config::OpenAIConfig};
use serde::Serialize;
use serde_json::{Value, json};

use super::{Understood, error, without_nulls};

/// `GET /v1/models`.
pub(super) async fn list(client: &Client<OpenAIConfig>, understood: &Understood) {
    let answer = client.models().list().await;
    understood.set(answer.map_or_else(|failed| error(&failed), value));
}

/// `GET /v1/models/{id}`. The client puts the id into the path as it is.
pub(super) async fn retrieve(client: &Client<OpenAIConfig>, id: &str, understood: &Understood) {
    let answer = client.models().retrieve(id).await;
    understood.set(answer.map_or_else(|failed| error(&failed), value));
}

fn value(answer: impl Serialize) -> Value {
    serde_json::to_value(answer).map_or_else(|error| json!({"error": {"message": error.to_string()}}), without_nulls)
}
