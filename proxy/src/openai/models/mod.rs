//! `GET /v1/models` and `GET /v1/models/{id}` over `GET /api/tags` and `POST /api/show`; and which names are near one that does not exist.

mod translate;
#[cfg(test)]
pub(crate) mod vectors;
mod wire;

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::Method;

use crate::{
    app::App,
    error::Error,
    observe::Recorder,
    ollama::{
        refusal::Refusal,
        wire::{Show, ShowRequest, Tags},
    },
    routes::Id,
    upstream::client::encode,
};

/// All models of the remote, in its order.
pub(crate) async fn list(State(app): State<App>) -> Result<Response, Error> {
    let reply = app.upstream.call(Method::GET, "/api/tags", None).await?;
    let tags: Tags<'_> = app.upstream.read("/api/tags", &reply)?;
    Ok(axum::Json(translate::list(&tags)).into_response())
}

/// One model. Its id may hold slashes and colons, raw or percent-encoded; `m` is `m:latest`.
pub(crate) async fn retrieve(State(app): State<App>, recorder: Recorder, Id(id): Id) -> Result<Response, Error> {
    recorder.model(&id);
    let ask = encode(&ShowRequest { model: &id })?;
    let reply = self::ask(&app, "/api/show", ask, &id).await?;
    let show: Show<'_> = app.upstream.read("/api/show", &reply)?;
    Ok(axum::Json(translate::shown(&id, &show)).into_response())
}

/// Asks what is asked of `model`, and reads the whole answer.
///
/// # Errors
/// As [`Client::call`](crate::upstream::client::Client::call); a missing model is told with the names that are near.
pub(crate) async fn ask(app: &App, path: &'static str, ask: Bytes, model: &str) -> Result<Bytes, Error> {
    match app.upstream.call(Method::POST, path, Some(ask)).await {
        Ok(reply) => Ok(reply),
        Err(error) => Err(explain(app, error, model).await),
    }
}

/// Whether `model` has a capability, such as `vision` or `audio`. Versions that tell no capabilities do not have it.
///
/// # Errors
/// As [`ask`].
pub(crate) async fn can(app: &App, model: &str, capability: &str) -> Result<bool, Error> {
    let reply = self::ask(app, "/api/show", encode(&ShowRequest { model })?, model).await?;
    let show: Show<'_> = app.upstream.read("/api/show", &reply)?;
    Ok(show.capabilities.is_some_and(|all| all.iter().any(|known| known == capability)))
}

/// Whether `model` can be given pictures or sounds, as far as the remote tells.
///
/// # Errors
/// As [`ask`].
pub(crate) async fn senses(app: &App, model: &str) -> Result<bool, Error> {
    let reply = self::ask(app, "/api/show", encode(&ShowRequest { model })?, model).await?;
    let show: Show<'_> = app.upstream.read("/api/show", &reply)?;
    Ok(show.capabilities.is_none_or(|all| all.iter().any(|known| known == "vision" || known == "audio")))
}

/// Adds to a "not found" which names are near. Other errors stay as they are, and so does this one if the remote does not list its models.
pub(crate) async fn explain(app: &App, error: Error, model: &str) -> Error {
    let refused = match error {
        Error::Refused(refused) if refused.refusal == Refusal::NoModel => refused,
        error => return error,
    };
    let names = match app.upstream.call(Method::GET, "/api/tags", None).await {
        Ok(reply) => {
            app.upstream.read::<Tags<'_>>("/api/tags", &reply).ok().map(|tags| translate::nearest(model, &tags))
        }
        Err(_) => None,
    };
    let message = translate::not_found(model, &refused.message, names.as_ref());
    Error::NotFound { message, param: Some("model".to_owned()), code: "model_not_found" }
}
