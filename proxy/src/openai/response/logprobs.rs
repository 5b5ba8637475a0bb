//! Probabilities of tokens in OpenAI's shape: keys that Ollama leaves out are null or empty. Pure.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::{error::Error, ollama::wire as native, openai::request::json::read};

/// One token; all four keys always.
#[derive(Debug, Serialize)]
pub(crate) struct Logprob<'a> {
    pub(crate) token: Cow<'a, str>,
    pub(crate) logprob: &'a RawValue,
    pub(crate) bytes: Option<&'a RawValue>,
    pub(crate) top_logprobs: Vec<TopLogprob<'a>>,
}

/// An alternative to a token.
#[derive(Debug, Serialize)]
pub(crate) struct TopLogprob<'a> {
    pub(crate) token: Cow<'a, str>,
    pub(crate) logprob: &'a RawValue,
    pub(crate) bytes: Option<&'a RawValue>,
}

impl<'a> From<native::Logprob<'a>> for Logprob<'a> {
    fn from(token: native::Logprob<'a>) -> Self {
        Self {
            token: token.token,
            logprob: token.logprob,
            bytes: token.bytes,
            top_logprobs: token.top_logprobs.into_iter().map(TopLogprob::from).collect(),
        }
    }
}

impl<'a> From<native::Logprob<'a>> for TopLogprob<'a> {
    fn from(top: native::Logprob<'a>) -> Self {
        Self { token: top.token, logprob: top.logprob, bytes: top.bytes }
    }
}

/// How many alternatives to each token are wanted, 0 to 20.
///
/// # Errors
/// It is another number, or none.
pub(crate) fn top(raw: &RawValue) -> Result<u8, Error> {
    let n: i64 = read("top_logprobs", raw)?;
    u8::try_from(n).ok().filter(|n| *n <= 20).ok_or_else(|| Error::Invalid {
        message: format!("Invalid 'top_logprobs': expected an integer from 0 to 20, but got {n} instead."),
        param: Some("top_logprobs".to_owned()),
        code: Some(if n < 0 { "integer_below_min_value" } else { "integer_above_max_value" }),
    })
}
