//! The types of OpenAI's image generation, and of Ollama's, as they cross the wire.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    error::Error,
    openai::request::{
        json::{Fields, Text},
        parameters::{Endpoint, settle},
    },
    receipt::Receipt,
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
    /// Takes a body apart. What it does not know, and what has no effect, is noted in `receipt`.
    ///
    /// # Errors
    /// A field that is missing, of the wrong type, out of range, or that Ollama cannot serve.
    pub(crate) fn read(mut fields: Fields<'a>, receipt: &mut Receipt) -> Result<Self, Error> {
        let mut unknown = Vec::new();
        let ignored = &mut unknown;
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
        let request = Self {
            model,
            prompt,
            n,
            size,
            seed: fields.take("seed", ignored)?,
            keep_alive: fields.take_raw("keep_alive"),
        };
        if n > 1 {
            receipt.emulated("n");
        }
        settle(Endpoint::Images, fields, unknown, receipt)?;
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

/// Body of `POST /api/generate` for an image, as Ollama 0.14.3 to 0.32.5 takes it.
#[derive(Debug, Serialize)]
pub(crate) struct ImageRequest<'a> {
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

/// The one option that matters to an image.
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

/// One image.
#[derive(Debug, Serialize)]
pub(crate) struct Image<'a> {
    pub(crate) b64_json: Cow<'a, str>,
}
