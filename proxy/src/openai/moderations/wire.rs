//! The types of OpenAI's moderations, as they cross the wire.

use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::value::RawValue;

use crate::{
    error::Error,
    openai::request::{
        content::{Content, Gathered, gather},
        json::{Fields, Text, read},
        options::Native,
        parameters::{Endpoint, settle},
    },
    receipt::Receipt,
};

/// OpenAI's categories, in its order, and whether it judges images by them too.
pub(crate) const CATEGORIES: [(&str, bool); 13] = [
    ("harassment", false),
    ("harassment/threatening", false),
    ("hate", false),
    ("hate/threatening", false),
    ("illicit", false),
    ("illicit/violent", false),
    ("self-harm", true),
    ("self-harm/instructions", true),
    ("self-harm/intent", true),
    ("sexual", true),
    ("sexual/minors", false),
    ("violence", true),
    ("violence/graphic", true),
];

/// A request, its known fields taken apart.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    /// As the client wrote it.
    pub(crate) model: Option<Text<'a>>,
    /// What is judged, each on its own.
    pub(crate) inputs: Vec<Gathered<'a>>,
    pub(crate) native: Native<'a>,
}

impl<'a> Request<'a> {
    /// Takes a body apart. What it does not know, and what has no effect, is noted in `receipt`.
    ///
    /// # Errors
    /// A field that is missing, of the wrong type, or that Ollama cannot be given.
    pub(crate) fn read(mut fields: Fields<'a>, receipt: &mut Receipt) -> Result<Self, Error> {
        let mut unknown = Vec::new();
        let ignored = &mut unknown;
        let model = fields.take::<Text<'a>>("model", ignored)?;
        let inputs = inputs(fields.need("input", ignored)?)?;
        let native = Native::take(&mut fields, &[], receipt)?;
        ignored.extend(native.format.map(|_| "format".to_owned()));
        settle(Endpoint::Moderations, fields, unknown, receipt)?;
        Ok(Self { model, inputs, native })
    }
}

/// The maximum number of inputs of one request, as for embeddings. Each is a request to Ollama of its own.
const MAX_INPUTS: usize = 2048;

/// One text, several, or one input of several parts.
fn inputs(raw: &RawValue) -> Result<Vec<Gathered<'_>>, Error> {
    let wrong = |message: &str, code| Error::Invalid {
        message: message.to_owned(),
        param: Some("input".to_owned()),
        code: Some(code),
    };
    let text = |at: &str, raw| match read::<Text<'_>>(at, raw)? {
        text if text.is_empty() => {
            Err(Error::invalid(at, format!("Invalid '{at}': there is nothing to judge in an empty text.")))
        }
        text => Ok(Gathered { text: text.0, images: Vec::new() }),
    };
    if raw.get().starts_with('"') {
        return Ok(vec![text("input", raw)?]);
    }
    if !raw.get().starts_with('[') {
        return Err(wrong(
            "Invalid type for 'input': expected a string, an array of strings, or an array of parts.",
            "invalid_type",
        ));
    }
    let items: Vec<&RawValue> = read("input", raw)?;
    let Some(first) = items.first() else {
        return Err(wrong(
            "Invalid 'input': empty array. Expected an array with minimum length 1, but got an empty array instead.",
            "empty_array",
        ));
    };
    if first.get().starts_with('{') {
        let gathered = gather(Some(read::<Content<'_>>("input", raw)?), || "input".to_owned())?;
        if gathered.text.is_empty() && gathered.images.is_empty() {
            return Err(wrong("Invalid 'input': there is nothing to judge in it.", "invalid_value"));
        }
        return Ok(vec![gathered]);
    }
    if items.len() > MAX_INPUTS {
        let n = items.len();
        return Err(wrong(
            &format!(
                "Invalid 'input': array too long. Expected an array with maximum length {MAX_INPUTS}, but got an array with length {n} instead."
            ),
            "array_above_max_length",
        ));
    }
    items.into_iter().enumerate().map(|(n, item)| text(&format!("input[{n}]"), item)).collect()
}

/// A whole answer.
#[derive(Debug, Serialize)]
pub(crate) struct Moderation<'a> {
    pub(crate) id: &'a str,
    pub(crate) model: &'a str,
    pub(crate) results: Vec<Judged>,
}

/// The judgment of one input.
#[derive(Debug, Serialize)]
pub(crate) struct Judged {
    pub(crate) flagged: bool,
    pub(crate) categories: Map<bool>,
    pub(crate) category_scores: Map<f32>,
    pub(crate) category_applied_input_types: Map<Vec<&'static str>>,
}

/// A value for each of [`CATEGORIES`].
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Map<V>(pub(crate) [V; CATEGORIES.len()]);

impl<V: Serialize> Serialize for Map<V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(CATEGORIES.len()))?;
        for ((name, _), value) in CATEGORIES.iter().zip(&self.0) {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}
