//! `GET /v1/models` and `GET /v1/models/{id}` over `GET /api/tags` and `POST /api/show`; and which names are near one
//! that does not exist.

mod translate;
#[cfg(test)]
pub(crate) mod vectors;
mod wire;

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};

use futures_util::future::join;

use crate::{
    app::App,
    error::Error,
    observe::Recorder,
    ollama::{
        listing::Listing,
        models,
        refusal::Refusal,
        wire::{Show, Tags},
    },
    receipt::Receipt,
    resolve,
    routes::Id,
};

/// Notes in the receipt which remotes have each model, if there are several.
pub(crate) fn note_places(app: &App, recorder: &Recorder) {
    let Some(places) = app.upstream.places() else { return };
    let mut receipt = Receipt::default();
    places.into_iter().filter(|(model, _)| app.may_see(model)).for_each(|(model, at)| receipt.note(&model, at));
    recorder.receipt(receipt);
}

/// All models of the remote, in its order, then the aliases; of several remotes each model once.
pub(crate) async fn list(State(app): State<App>, recorder: Recorder) -> Result<Response, Error> {
    let (reply, loaded) = join(models::tags(&app.upstream), models::loaded(&app.upstream)).await;
    let reply = reply?;
    note_places(&app, &recorder);
    let tags: Tags<'_> = app.upstream.read("/api/tags", &reply)?;
    let loaded = loaded.as_ref().and_then(|reply| app.upstream.read("/api/ps", reply).ok());
    let listing = Listing { config: &app.config, loaded: loaded.as_ref() };
    Ok(axum::Json(translate::list(&listing, &tags)).into_response())
}

/// One model. Its id may hold slashes and colons, raw or percent-encoded; `m` is `m:latest`.
pub(crate) async fn retrieve(State(app): State<App>, recorder: Recorder, Id(id): Id) -> Result<Response, Error> {
    let model = resolve::behind(&app.config, app.target.as_deref(), &id).0;
    let model = model.as_deref().unwrap_or(&id);
    recorder.model(model);
    let (reply, loaded) = join(models::show(&app.upstream, model), models::loaded(&app.upstream)).await;
    let reply = explained(&app, model, reply).await?;
    let show: Show<'_> = app.upstream.read("/api/show", &reply)?;
    let loaded = loaded.as_ref().and_then(|reply| app.upstream.read("/api/ps", reply).ok());
    let listing = Listing { config: &app.config, loaded: loaded.as_ref() };
    Ok(axum::Json(translate::shown(&listing, &id, model, &show)).into_response())
}

/// Whether `model` has a capability, such as `vision` or `audio`.
///
/// # Errors
/// As [`models::can`]; if there is no such model, with names that are near.
pub(crate) async fn can(app: &App, model: &str, capability: &str) -> Result<bool, Error> {
    explained(app, model, models::can(&app.upstream, model, capability).await).await
}

/// Adds to the failure of what was asked about `model`, if there is no such model, which names are near.
///
/// # Errors
/// The failure.
pub(crate) async fn explained<T>(app: &App, model: &str, outcome: Result<T, Error>) -> Result<T, Error> {
    match outcome {
        Ok(value) => Ok(value),
        Err(error) => Err(Box::pin(explain(app, error, model)).await),
    }
}

/// Adds to a "not found" which names are near. Other errors stay as they are, and so does this one if the remote does
/// not list its models.
pub(crate) async fn explain(app: &App, error: Error, model: &str) -> Error {
    let refused = match error {
        Error::Refused(refused) if refused.refusal == Refusal::NoModel => refused,
        error => return error,
    };
    let names = match models::tags(&app.upstream).await {
        Ok(reply) => app.upstream.read::<Tags<'_>>("/api/tags", &reply).ok().map(|mut tags| {
            // A key with a list of models sees no other's name.
            tags.models.retain(|tag| app.may_see(&tag.name));
            let listing = Listing { config: &app.config, loaded: None };
            translate::instead(model, &listing.entries(&tags))
        }),
        Err(_) => None,
    };
    let message = translate::not_found(model, &refused.message, names.as_ref());
    Error::NotFound { message, param: Some("model".to_owned()), code: "model_not_found" }
}
