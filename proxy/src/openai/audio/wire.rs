//! The types of OpenAI's audio API, as they cross the wire: fields of a form or of a JSON body.

use std::borrow::Cow;

use axum::{
    body::Body,
    extract::{DefaultBodyLimit, FromRequest, Multipart, Request as HttpRequest},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderValue, header};
use serde::Serialize;

use crate::{
    error::Error,
    openai::{
        content,
        json::{Json, Text},
    },
};

/// A request, its known fields taken apart.
#[derive(Debug, Default)]
pub(crate) struct Request {
    pub(crate) model: String,
    /// The transcript itself, an extension.
    pub(crate) text: Option<String>,
    pub(crate) prompt: Option<String>,
    pub(crate) language: Option<String>,
    pub(crate) temperature: Option<f64>,
    pub(crate) plain: bool,
    /// Sound in base64.
    pub(crate) file: Option<String>,
}

/// What both kinds of body are read into.
#[derive(Debug, Default)]
struct Given {
    fields: Vec<(String, String)>,
    file: Option<String>,
}

impl Request {
    /// Reads a body: a form where `content_type` says so, else JSON. What it does not know is added to `ignored`.
    ///
    /// # Errors
    /// A field that is missing, of the wrong type, out of range, or that Ollama cannot serve.
    pub(crate) async fn read(
        content_type: &HeaderValue,
        json: &Json,
        ignored: &mut Vec<String>,
    ) -> Result<Self, Error> {
        let form = content_type
            .to_str()
            .is_ok_and(|kind| kind.trim_start().to_ascii_lowercase().starts_with("multipart/form-data"));
        let given = if form { multipart(content_type, json.bytes().clone()).await? } else { object(json)? };
        Self::take(given, ignored)
    }

    fn take(given: Given, ignored: &mut Vec<String>) -> Result<Self, Error> {
        let mut request = Self { file: given.file, ..Self::default() };
        for (name, value) in given.fields {
            match name.trim_end_matches("[]") {
                _ if value.is_empty() => {}
                "model" => request.model = value,
                "text" => request.text = Some(value),
                "prompt" => request.prompt = Some(value),
                "language" => request.language = Some(value),
                "temperature" => request.temperature = Some(temperature(&value)?),
                "response_format" => request.plain = plain(&value)?,
                "stream" if value == "false" => {}
                "stream" => {
                    return Err(Error::unsupported("stream", "A transcript is not streamed here; leave out 'stream'."));
                }
                "timestamp_granularities" => {
                    return Err(Error::unsupported(
                        "timestamp_granularities",
                        "Ollama's models do not tell when a word was spoken; leave out 'timestamp_granularities'.",
                    ));
                }
                "include" => {
                    return Err(Error::unsupported(
                        "include",
                        "Probabilities of a transcript are not told; leave out 'include'.",
                    ));
                }
                _ => ignored.push(name),
            }
        }
        if request.model.is_empty() {
            return Err(missing("model"));
        }
        Ok(request)
    }
}

pub(super) fn missing(name: &str) -> Error {
    Error::Invalid {
        message: format!("Missing required parameter: '{name}'."),
        param: Some(name.to_owned()),
        code: Some("missing_required_parameter"),
    }
}

fn temperature(value: &str) -> Result<f64, Error> {
    value.trim().parse().ok().filter(|number| (0.0..=1.0).contains(number)).ok_or_else(|| {
        Error::invalid(
            "temperature",
            format!("Invalid 'temperature': expected a number from 0 to 1, but got '{value}' instead."),
        )
    })
}

/// Whether the transcript alone is wanted, without JSON around it.
fn plain(format: &str) -> Result<bool, Error> {
    match format {
        "json" => Ok(false),
        "text" => Ok(true),
        "srt" | "vtt" | "verbose_json" | "diarized_json" => Err(Error::unsupported(
            "response_format",
            format!(
                "Ollama's models tell neither times nor speakers, so '{format}' would be made up; take 'json' or 'text'."
            ),
        )),
        other => Err(Error::invalid(
            "response_format",
            format!("Invalid value: '{other}'. Supported values are: 'json' and 'text'."),
        )),
    }
}

async fn multipart(content_type: &HeaderValue, body: Bytes) -> Result<Given, Error> {
    let broken = |error: &dyn std::fmt::Display| Error::Invalid {
        message: format!("the request body is no whole multipart/form-data: {error}"),
        param: None,
        code: None,
    };
    let mut request = HttpRequest::new(Body::from(body));
    request.headers_mut().insert(header::CONTENT_TYPE, content_type.clone());
    // The body is here already, within our own limit.
    DefaultBodyLimit::disable().apply(&mut request);
    let mut form = Multipart::from_request(request, &()).await.map_err(|error| broken(&error.body_text()))?;
    let mut given = Given::default();
    while let Some(field) = form.next_field().await.map_err(|error| broken(&error.body_text()))? {
        let name = field.name().unwrap_or_default().to_owned();
        let value = field.bytes().await.map_err(|error| broken(&error.body_text()))?;
        if name == "file" {
            if value.is_empty() {
                return Err(Error::invalid("file", "The file is empty."));
            }
            given.file = Some(STANDARD.encode(&value));
        } else {
            given.fields.push((name, String::from_utf8_lossy(&value).into_owned()));
        }
    }
    Ok(given)
}

/// Of a JSON body, whose `file` is base64 or a data URL.
fn object(json: &Json) -> Result<Given, Error> {
    let mut fields = json.fields()?;
    let mut given = Given::default();
    if let Some(file) = fields.take::<Text<'_>>("file", &mut Vec::new())? {
        given.file = Some(content::sound(file.0, "file").map(Cow::into_owned)?);
    }
    for (name, raw) in fields.left() {
        // Numbers and lists as a form would write them.
        let value = serde_json::from_str::<Text<'_>>(raw.get())
            .map_or_else(|_| raw.get().to_owned(), |text| text.0.into_owned());
        given.fields.push((name.into_owned(), value));
    }
    Ok(given)
}

/// A whole answer.
#[derive(Debug, Serialize)]
pub(crate) struct Transcription<'a> {
    pub(crate) text: &'a str,
    pub(crate) usage: AudioUsage,
}

/// What it cost, in tokens: how long a sound lasts, Ollama does not tell.
#[derive(Debug, Serialize)]
pub(crate) struct AudioUsage {
    pub(crate) r#type: &'static str,
    pub(crate) input_tokens: u64,
    pub(crate) output_tokens: u64,
    pub(crate) total_tokens: u64,
}
