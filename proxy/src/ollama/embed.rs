//! The native types of `/api/embed`, in Ollama's own words and key order. Vectors stay raw: whoever carries floats does not touch a digit.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::ollama::wire::Options;

/// Body of `POST /api/embed`.
#[derive(Debug, Serialize)]
pub(crate) struct EmbedRequest<'a> {
    pub(crate) model: Cow<'a, str>,
    pub(crate) input: Vec<Cow<'a, str>>,
    /// Ollama cuts what is too long in silence, unless this is false.
    pub(crate) truncate: Cow<'a, RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) dimensions: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) keep_alive: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Options::is_empty")]
    pub(crate) options: Options<'a>,
}

/// Answer of `POST /api/embed`.
#[derive(Debug, Deserialize)]
pub(crate) struct EmbedReply<'a> {
    /// One array of numbers for each input, in their order.
    #[serde(borrow)]
    pub(crate) embeddings: Vec<&'a RawValue>,
    /// Tokens of all inputs.
    #[serde(default)]
    pub(crate) prompt_eval_count: Option<u64>,
}
