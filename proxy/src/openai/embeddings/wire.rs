//! The types of OpenAI's embeddings, as they cross the wire.

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::{
    error::Error,
    openai::request::{
        json::{Fields, Text, read},
        options::Native,
        parameters::{Endpoint, settle},
    },
    receipt::Receipt,
};

/// Most inputs of one request, as OpenAI has it.
const MOST: usize = 2048;

/// A request, its known fields taken apart.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub(crate) model: Text<'a>,
    pub(crate) input: Vec<Cow<'a, str>>,
    pub(crate) encoding: Encoding,
    pub(crate) dimensions: Option<u64>,
    pub(crate) native: Native<'a>,
}

/// What the answer must know of its request.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) model: String,
    pub(crate) inputs: usize,
    pub(crate) encoding: Encoding,
    pub(crate) dimensions: Option<u64>,
}

/// How a vector is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// An array of numbers.
    Float,
    /// Little-endian float32 in base64, which the official clients ask for unasked.
    Base64,
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
        let input = input(fields.need("input", ignored)?)?;
        let encoding = match fields.take::<Text<'a>>("encoding_format", ignored)?.as_deref() {
            None | Some("float") => Encoding::Float,
            Some("base64") => Encoding::Base64,
            Some(other) => {
                return Err(Error::invalid(
                    "encoding_format",
                    format!("Invalid value: '{other}'. Supported values are: 'float' and 'base64'."),
                ));
            }
        };
        let dimensions = match fields.take::<i64>("dimensions", ignored)? {
            None => None,
            Some(n) => match u64::try_from(n) {
                Ok(n) if n > 0 => Some(n),
                _ => {
                    return Err(Error::Invalid {
                        message: format!(
                            "Invalid 'dimensions': integer below minimum value. Expected a value >= 1, but got {n} instead."
                        ),
                        param: Some("dimensions".to_owned()),
                        code: Some("integer_below_min_value"),
                    });
                }
            },
        };
        let native = Native::take(&mut fields, &[], receipt)?;
        ignored.extend(native.think.map(|_| "think".to_owned()));
        ignored.extend(native.format.map(|_| "format".to_owned()));
        ignored.extend(native.shift.map(|_| "shift".to_owned()));
        if encoding == Encoding::Base64 {
            receipt.emulated("encoding_format");
        }
        settle(Endpoint::Embeddings, fields, unknown, receipt)?;
        Ok(Self { model, input, encoding, dimensions, native })
    }

    /// What the answer must know.
    pub(crate) fn facts(&self) -> Facts {
        Facts {
            model: self.model.to_string(),
            inputs: self.input.len(),
            encoding: self.encoding,
            dimensions: self.dimensions,
        }
    }
}

/// The texts of an `input`: one, or a list of them.
fn input(raw: &RawValue) -> Result<Vec<Cow<'_, str>>, Error> {
    if raw.get().starts_with('"') {
        return Ok(vec![given("input", read::<Text<'_>>("input", raw)?)?]);
    }
    if !raw.get().starts_with('[') {
        return Err(Error::Invalid {
            message: "Invalid type for 'input': expected a string or an array of strings.".to_owned(),
            param: Some("input".to_owned()),
            code: Some("invalid_type"),
        });
    }
    let items: Vec<&RawValue> = read("input", raw)?;
    let wrong = |message: String, code| Error::Invalid { message, param: Some("input".to_owned()), code: Some(code) };
    if items.is_empty() {
        return Err(wrong(
            "Invalid 'input': empty array. Expected an array with minimum length 1, but got an empty array instead."
                .to_owned(),
            "empty_array",
        ));
    }
    // Numbers, or lists of numbers: what some client libraries make of a text before they send it.
    let is_token = |item: &&RawValue| item.get().starts_with(|c: char| c == '[' || c == '-' || c.is_ascii_digit());
    if items.iter().all(is_token) {
        return Err(Error::unsupported(
            "input",
            "Arrays of tokens cannot be embedded: Ollama takes texts, and the ids of another model's tokenizer mean nothing to its models. \
             Have the client send the text itself (langchain's OpenAIEmbeddings: check_embedding_ctx_length=False).",
        ));
    }
    if items.len() > MOST {
        let n = items.len();
        return Err(wrong(
            format!(
                "Invalid 'input': array too long. Expected an array with maximum length {MOST}, but got an array with length {n} instead."
            ),
            "array_above_max_length",
        ));
    }
    items
        .into_iter()
        .enumerate()
        .map(|(n, item)| {
            let at = format!("input[{n}]");
            let text = read::<Text<'_>>(&at, item)?;
            given(&at, text)
        })
        .collect()
}

/// A text that is not empty.
fn given<'a>(at: &str, text: Text<'a>) -> Result<Cow<'a, str>, Error> {
    if text.is_empty() {
        return Err(Error::invalid(at, format!("Invalid '{at}': input cannot be an empty string.")));
    }
    Ok(text.0)
}
