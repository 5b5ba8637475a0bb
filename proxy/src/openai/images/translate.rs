//! A picture's request for Ollama, and the pictures back. Pure.

use crate::{
    error::Error,
    ollama::version::Version,
    openai::images::wire::{Image, ImageRequest, Images, Reply, Request, Seed},
    stamp::Stamp,
};

/// Why there is no picture.
pub(super) fn refused(model: &str, version: &Version) -> Error {
    let message = if version.makes_pictures() {
        format!("The model `{model}` makes no pictures; take one with the capability image.")
    } else {
        format!("The remote Ollama is {}, and pictures are made by 0.14.3 to 0.32.5 only.", version.text())
    };
    Error::unsupported("model", message)
}

/// Client → upstream: one ask for each picture.
pub(super) fn requests<'a>(request: &'a Request<'a>) -> Vec<ImageRequest<'a>> {
    let ask = |nth: u64| ImageRequest {
        model: &request.model,
        prompt: &request.prompt,
        stream: false,
        width: request.size.map(|(width, _)| width),
        height: request.size.map(|(_, height)| height),
        keep_alive: request.keep_alive,
        // The same seed would give the same picture n times.
        options: request.seed.map(|seed| Seed { seed: seed.wrapping_add_unsigned(nth) }),
    };
    (0..request.n).map(ask).collect()
}

/// The object with the picture: the last one, where progress comes before it.
///
/// # Errors
/// There is none.
pub(super) fn picture<'a>(reply: &'a [u8], model: &str) -> Result<Reply<'a>, Error> {
    let objects = serde_json::Deserializer::from_slice(reply).into_iter::<Reply<'a>>();
    let with =
        objects.filter_map(Result::ok).filter(|reply| reply.image.as_ref().is_some_and(|image| !image.is_empty()));
    with.last().ok_or_else(|| no_picture(model))
}

fn no_picture(model: &str) -> Error {
    Error::unsupported("model", format!("The model `{model}` answered without a picture."))
}

/// Upstream → client.
///
/// # Errors
/// An answer without a picture.
pub(super) fn response<'a>(stamp: &Stamp, model: &str, replies: Vec<Reply<'a>>) -> Result<Images<'a>, Error> {
    let picture = |reply: Reply<'a>| reply.image.map(|b64_json| Image { b64_json }).ok_or_else(|| no_picture(model));
    let data = replies.into_iter().map(picture).collect::<Result<_, Error>>()?;
    Ok(Images { created: stamp.created, data, output_format: "png" })
}
