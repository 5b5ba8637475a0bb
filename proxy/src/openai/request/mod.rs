//! What endpoints share to read a request: its body, the table of parameters, options, content parts, files, images by
//! URL.

pub(crate) mod content;
pub(crate) mod document;
pub(crate) mod encoding;
pub(crate) mod form;
pub(crate) mod image_urls;
pub(crate) mod input_files;
pub(crate) mod json;
pub(crate) mod metadata;
pub(crate) mod options;
pub(crate) mod parameters;
mod parts;
mod pdf;
pub(crate) mod surrogates;

use crate::{app::App, error::Error, observe::Recorder};
use json::Json;

/// Puts the files and the images that a body names in their places.
///
/// # Errors
/// Fails on a file or an image that cannot be fetched or used.
pub(crate) async fn inline_all(app: &App, recorder: &Recorder, json: Json) -> Result<Json, Error> {
    let json = input_files::inline(app, recorder, json).await?;
    image_urls::inline(app, recorder, json).await
}

/// The body with a stand-in for each file and image that [`inline_all`] would put there, and how they are named.
pub(crate) fn stand_in(json: &Json, fetches: bool) -> (Json, Vec<String>) {
    let (json, mut named) = input_files::stand_in(json, fetches);
    if !fetches {
        return (json, named);
    }
    let (json, urls) = image_urls::stand_in(&json);
    named.extend(urls);
    (json, named)
}
