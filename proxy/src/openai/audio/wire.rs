//! The types of OpenAI's audio API, as they cross the wire: fields of a form or of a JSON body.

use serde::Serialize;

use crate::{
    error::Error,
    openai::request::{
        json::{Json, Text},
        options::Native,
        parameters::{Endpoint, settle},
    },
    receipt::Receipt,
};

/// A request, its known fields taken apart.
#[derive(Debug, Default)]
pub(crate) struct Request<'a> {
    pub(crate) model: Text<'a>,
    /// The transcript itself, an extension.
    pub(crate) text: Option<Text<'a>>,
    pub(crate) prompt: Option<Text<'a>>,
    /// What is likely to be spoken, one or several.
    pub(crate) languages: Vec<Text<'a>>,
    /// Words that are likely to be heard.
    pub(crate) keywords: Vec<Text<'a>>,
    /// Without JSON around the transcript.
    pub(crate) plain: bool,
    /// Sound in base64.
    pub(crate) file: Option<&'a str>,
    pub(crate) native: Native<'a>,
}

/// What both kinds of body are read into.
#[derive(Debug)]
pub(crate) struct Given {
    /// All fields but the file.
    pub(crate) fields: Json,
    /// Sound in base64.
    pub(crate) file: Option<String>,
}

impl<'a> Request<'a> {
    /// Takes what was read apart. What it does not know, and what has no effect, is noted in `receipt`.
    ///
    /// # Errors
    /// A field that is missing, out of range, or that Ollama cannot serve.
    pub(crate) fn read(given: &'a Given, endpoint: Endpoint, receipt: &mut Receipt) -> Result<Self, Error> {
        let mut fields = given.fields.fields()?;
        let mut unknown = Vec::new();
        let ignored = &mut unknown;
        let model: Text<'a> = fields.need("model", ignored)?;
        if model.is_empty() {
            return Err(Error::missing("model"));
        }
        let some = |text: &Text<'a>| !text.is_empty();
        let text = fields.take("text", ignored)?.filter(some);
        let prompt = fields.take("prompt", ignored)?.filter(some);
        let (mut languages, mut keywords) = (Vec::new(), Vec::new());
        if endpoint == Endpoint::Transcriptions {
            languages = fields.take("languages", ignored)?.unwrap_or_default();
            languages.extend(fields.take("language", ignored)?.filter(some));
            keywords = fields.take("keywords", ignored)?.unwrap_or_default();
        }
        let plain = fields.take::<Text<'a>>("response_format", ignored)?.map_or(Ok(false), |format| plain(&format))?;
        if plain {
            receipt.emulated("response_format");
        }
        let native = Native::take(&mut fields, &[], receipt)?;
        ignored.extend(native.format.map(|_| "format".to_owned()));
        settle(endpoint, fields, unknown, receipt)?;
        Ok(Self { model, text, prompt, languages, keywords, plain, file: given.file.as_deref(), native })
    }
}

/// Whether the transcript alone is wanted, without JSON around it.
fn plain(format: &str) -> Result<bool, Error> {
    match format {
        "" | "json" => Ok(false),
        "text" => Ok(true),
        "srt" | "vtt" | "verbose_json" | "diarized_json" => Err(Error::unsupported(
            "response_format",
            format!(
                "Ollama's models return neither timestamps nor speakers, so '{format}' is not available; use 'json' or 'text'."
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

/// What it cost, in tokens: Ollama does not report the length of a recording.
#[derive(Debug, Serialize)]
pub(crate) struct AudioUsage {
    pub(crate) r#type: &'static str,
    pub(crate) input_tokens: u64,
    pub(crate) output_tokens: u64,
    pub(crate) total_tokens: u64,
}
