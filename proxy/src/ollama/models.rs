//! What the remote reports about its models: `POST /api/show`, `GET /api/tags` and `GET /api/ps`.

use bytes::Bytes;
use http::Method;

use crate::{
    error::Error,
    ollama::wire::{Ps, Show, ShowRequest},
    upstream::{client::encode, remotes::Candidates},
};

/// Returns the response of `POST /api/show`, to be read as [`Show`].
///
/// # Errors
/// As [`Candidates::call`].
pub(crate) async fn show(client: &Candidates, model: &str) -> Result<Bytes, Error> {
    client.call(Method::POST, "/api/show", Some(encode(&ShowRequest { model })?)).await
}

/// Returns the response of `GET /api/tags`, that of all remotes if there are several, to be read as
/// [`Tags`](crate::ollama::wire::Tags).
///
/// # Errors
/// As [`Candidates::call`].
pub(crate) async fn tags(client: &Candidates) -> Result<Bytes, Error> {
    client.tags().await
}

/// Whether `model` has a capability, such as `vision` or `audio`. Models of versions that report no capabilities do not
/// have it.
///
/// # Errors
/// As [`show`].
pub(crate) async fn can(client: &Candidates, model: &str, capability: &str) -> Result<bool, Error> {
    let reply = show(client, model).await?;
    let show: Show<'_> = client.read("/api/show", &reply)?;
    Ok(show.capabilities.is_some_and(|all| all.iter().any(|known| known == capability)))
}

/// Whether `model` takes images or sound, as far as the remote reports.
///
/// # Errors
/// As [`show`].
pub(crate) async fn senses(client: &Candidates, model: &str) -> Result<bool, Error> {
    let reply = show(client, model).await?;
    let show: Show<'_> = client.read("/api/show", &reply)?;
    Ok(show.capabilities.is_none_or(|all| all.iter().any(|known| known == "vision" || known == "audio")))
}

/// Returns the context that the model was made for, if the remote reports it.
pub(crate) async fn own_context(client: &Candidates, model: &str) -> Option<u64> {
    let reply = show(client, model).await.ok()?;
    let show: Show<'_> = client.read("/api/show", &reply).ok()?;
    show.context_length()
}

/// Returns the response of `GET /api/ps`, that of all remotes if there are several and none was chosen for a model, to
/// be read as [`Ps`]. None if the remote does not say what is loaded: nothing depends on it.
pub(crate) async fn loaded(client: &Candidates) -> Option<Bytes> {
    client.loaded().await.ok()
}

/// Returns the bytes of a loaded model, all of them and those on the graphics card. `is` finds it by its name.
pub(crate) async fn loaded_size(client: &Candidates, is: impl Fn(&str) -> bool) -> Option<(u64, u64)> {
    let reply = loaded(client).await?;
    let ps: Ps<'_> = client.read("/api/ps", &reply).ok()?;
    ps.models.iter().find(|loaded| is(&loaded.name)).map(|loaded| (loaded.size, loaded.size_vram))
}
