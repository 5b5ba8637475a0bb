//! The native types of `/api/generate`, in Ollama's own words and key order.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::ollama::wire::{Line, Logprob, Options};

/// Body of `POST /api/generate`. An absent field is not sent, so that Modelfile defaults stay in force.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct GenerateRequest<'a> {
    pub(crate) model: Cow<'a, str>,
    pub(crate) prompt: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) suffix: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) system: Option<Cow<'a, str>>,
    /// Always sent: Ollama's default is true.
    pub(crate) stream: bool,
    /// The prompt as it is, without the model's template.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) raw: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) format: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) keep_alive: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Options::is_empty")]
    pub(crate) options: Options<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) think: Option<Cow<'a, RawValue>>,
    /// Ollama cuts what is too long in silence, unless this is false.
    pub(crate) truncate: Cow<'a, RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) shift: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) logprobs: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) top_logprobs: Option<u8>,
}

/// A whole answer of `POST /api/generate`, or one line of a stream.
#[derive(Debug, Deserialize)]
pub(crate) struct GenerateReply<'a> {
    #[serde(borrow)]
    pub(crate) response: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(crate) thinking: Option<Cow<'a, str>>,
    pub(crate) done: bool,
    #[serde(borrow, default)]
    pub(crate) done_reason: Option<Cow<'a, str>>,
    #[serde(default)]
    pub(crate) prompt_eval_count: Option<u64>,
    /// How many of them were in the cache; newer versions only.
    #[serde(default)]
    pub(crate) prompt_eval_cached_count: Option<u64>,
    #[serde(default)]
    pub(crate) eval_count: Option<u64>,
    #[serde(borrow, default)]
    pub(crate) logprobs: Option<Vec<Logprob<'a>>>,
}

impl<'a> Line<'a> for GenerateReply<'a> {}
