//! The types of OpenAI's models API, as they cross the wire.

use std::borrow::Cow;

use serde::Serialize;

/// All models.
#[derive(Debug, Serialize)]
pub(crate) struct List<'a> {
    pub(crate) object: &'static str,
    pub(crate) data: Vec<Model<'a>>,
}

/// One model.
#[derive(Debug, Serialize)]
pub(crate) struct Model<'a> {
    pub(crate) id: Cow<'a, str>,
    pub(crate) object: &'static str,
    /// Unix seconds.
    pub(crate) created: u64,
    pub(crate) owned_by: Cow<'a, str>,
    /// Not OpenAI's: tokens that a prompt and its answer may have together; left out if Ollama does not report it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) context_length: Option<u64>,
    /// Not OpenAI's: what the model can do, in Ollama's words; left out if Ollama does not report it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) capabilities: Option<&'a [Cow<'a, str>]>,
}
