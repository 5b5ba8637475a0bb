//! The types of OpenAI's image generation, and of Ollama's, as they cross the wire.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    error::Error,
    openai::json::{Fields, Text},
};

/// A request, its known fields taken apart.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub(crate) model: Text<'a>,
    pub(crate) prompt: Text<'a>,
    pub(crate) n: u64,
    /// Width and height in pixels; absent, the model's own.
    pub(crate) size: Option<(u32, u32)>,
    pub(crate) seed: Option<i64>,
    pub(crate) keep_alive: Option<&'a RawValue>,
}

impl<'a> Request<'a> {
    /// Takes a body apart. What it does not know, and what has no effect, is added to `ignored`.
    ///
    /// # Errors
    /// A field that is missing, of the wrong type, out of range, or that Ollama cannot serve.
    pub(crate) fn read(mut fields: Fields<'a>, ignored: &mut Vec<String>) -> Result<Self, Error> {
        let model = fields.need("model", ignored)?;
        let prompt: Text<'a> = fields.need("prompt", ignored)?;
        if prompt.is_empty() {
            return Err(Error::invalid("prompt", "Invalid 'prompt': it is empty."));
        }
        let n: i64 = fields.take("n", ignored)?.unwrap_or(1);
        let n = u64::try_from(n).ok().filter(|n| (1..=10).contains(n)).ok_or_else(|| {
            Error::invalid("n", format!("Invalid 'n': expected an integer from 1 to 10, but got {n} instead."))
        })?;
        let size = match fields.take::<Text<'a>>("size", ignored)?.as_deref() {
            None | Some("auto") => None,
            Some(text) => Some(size(text)?),
        };
        // What differs from what is done is refused, unless it only says how good a picture should be.
        let rows: [(&str, &[&str], &str); 5] = [
            ("response_format", &["b64_json"], "Pictures are not stored, so there is no URL; take 'b64_json'."),
            ("output_format", &["png"], "Ollama's pictures are PNG; 'output_format' may be 'png'."),
            ("background", &["opaque", "auto"], "Ollama makes no transparent pictures; 'background' may be 'opaque'."),
            ("stream", &["false"], "Pictures are not streamed here; leave out 'stream'."),
            ("partial_images", &["0"], "Ollama tells no half-made pictures; 'partial_images' may be 0."),
        ];
        for (name, fine, message) in rows {
            if fields.take_raw(name).is_some_and(|raw| !fine.contains(&raw.get().trim_matches('"'))) {
                return Err(Error::unsupported(name, message));
            }
        }
        let request = Self {
            model,
            prompt,
            n,
            size,
            seed: fields.take("seed", ignored)?,
            keep_alive: fields.take_raw("keep_alive"),
        };
        ignored.extend(fields.left().map(|(name, _)| name.into_owned()));
        Ok(request)
    }
}

fn size(text: &str) -> Result<(u32, u32), Error> {
    let sides = text.split_once('x').and_then(|(width, height)| Some((width.parse().ok()?, height.parse().ok()?)));
    sides.filter(|(width, height)| *width > 0 && *height > 0).ok_or_else(|| {
        Error::invalid(
            "size",
            format!("Invalid value: '{text}'. Expected 'auto' or a width and a height such as '1024x1024'."),
        )
    })
}

/// Body of `POST /api/generate` for a picture, as Ollama 0.14.3 to 0.32.5 takes it.
#[derive(Debug, Serialize)]
pub(crate) struct Ask<'a> {
    pub(crate) model: &'a str,
    pub(crate) prompt: &'a str,
    pub(crate) stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) width: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) height: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) keep_alive: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) options: Option<Seed>,
}

/// The one option that matters to a picture.
#[derive(Debug, Serialize)]
pub(crate) struct Seed {
    pub(crate) seed: i64,
}

/// Its answer.
#[derive(Debug, Deserialize)]
pub(crate) struct Reply<'a> {
    /// Base64.
    #[serde(borrow, default)]
    pub(crate) image: Option<Cow<'a, str>>,
}

/// A whole answer.
#[derive(Debug, Serialize)]
pub(crate) struct Images<'a> {
    pub(crate) created: u64,
    pub(crate) data: Vec<Image<'a>>,
    pub(crate) output_format: &'static str,
}

/// One picture.
#[derive(Debug, Serialize)]
pub(crate) struct Image<'a> {
    pub(crate) b64_json: Cow<'a, str>,
}
