//! The types of OpenAI's audio API, as they cross the wire: fields of a form or of a JSON body.

use serde::Serialize;

use crate::error::Error;

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
pub(crate) struct Given {
    /// All fields but the file, as a form writes them.
    pub(crate) fields: Vec<(String, String)>,
    /// Sound in base64.
    pub(crate) file: Option<String>,
}

impl Request {
    /// Takes what was read apart. What it does not know is added to `ignored`.
    ///
    /// # Errors
    /// A field that is missing, out of range, or that Ollama cannot serve.
    pub(crate) fn take(given: Given, ignored: &mut Vec<String>) -> Result<Self, Error> {
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
