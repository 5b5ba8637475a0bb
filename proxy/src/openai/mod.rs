//! What clients speak: OpenAI's API. This page is the list of routes, nothing else.

#[cfg(test)]
pub(crate) mod arbitrary;
pub(crate) mod audio;
pub(crate) mod chat;
pub(crate) mod completions;
pub(crate) mod embeddings;
pub(crate) mod images;
pub(crate) mod models;
pub(crate) mod moderations;
pub(crate) mod request;
pub(crate) mod response;
pub(crate) mod responses;
pub(crate) mod tools;
pub(crate) mod upstream_request;

use axum::{
    Router,
    extract::Request,
    routing::{MethodRouter, get, post},
};

use crate::{app::App, error::Error};

/// The translated routes under `base`, such as `/v1`.
pub(crate) fn routes(base: &str) -> Router<App> {
    Router::new()
        .route(&format!("{base}/chat/completions"), only("POST", post(chat::create)))
        .route(&format!("{base}/completions"), only("POST", post(completions::create)))
        .route(&format!("{base}/embeddings"), only("POST", post(embeddings::create)))
        .route(&format!("{base}/audio/transcriptions"), only("POST", post(audio::transcribe)))
        .route(&format!("{base}/audio/translations"), only("POST", post(audio::translate)))
        .route(&format!("{base}/audio/speech"), only("POST", post(audio::speech)))
        .route(&format!("{base}/images/generations"), only("POST", post(images::create)))
        .route(&format!("{base}/moderations"), only("POST", post(moderations::create)))
        .route(&format!("{base}/responses"), only("POST", post(responses::create)))
        .route(&format!("{base}/responses/compact"), only("POST", post(responses::compact)))
        .route(&format!("{base}/responses/input_tokens"), only("POST", post(responses::input_tokens)))
        .route(
            &format!("{base}/responses/{{id}}"),
            only("GET, DELETE", get(responses::retrieve).delete(responses::delete)),
        )
        .route(&format!("{base}/responses/{{id}}/cancel"), only("POST", post(responses::cancel)))
        .route(&format!("{base}/responses/{{id}}/input_items"), only("GET", get(responses::input_items)))
        .route(&format!("{base}/models"), only("GET", get(models::list)))
        .route(&format!("{base}/models/{{*id}}"), only("GET", get(models::retrieve)))
}

/// Refuses other methods than `allow`.
fn only(allow: &'static str, route: MethodRouter<App>) -> MethodRouter<App> {
    route.fallback(move |request: Request| async move { Error::Method { method: request.method().to_string(), allow } })
}
