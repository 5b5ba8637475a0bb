//! The types of OpenAI's responses, as they cross the wire: the object, its items, and the events of a stream.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::value::RawValue;

use crate::{error::Error, usage::Usage};

/// A response. Every key is always there, because strict clients want them.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Response<'a> {
    pub(crate) id: &'a str,
    pub(crate) object: &'static str,
    pub(crate) created_at: u64,
    /// Unix seconds, of a response that is completed.
    pub(crate) completed_at: Option<u64>,
    pub(crate) status: &'static str,
    pub(crate) background: bool,
    pub(crate) error: Option<Failure>,
    pub(crate) incomplete_details: Option<Incomplete>,
    pub(crate) instructions: Option<&'a str>,
    pub(crate) max_output_tokens: Option<u64>,
    pub(crate) max_tool_calls: Option<u64>,
    pub(crate) model: &'a str,
    pub(crate) output: &'a [Item],
    pub(crate) parallel_tool_calls: bool,
    pub(crate) previous_response_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) conversation: Option<&'a InConversation>,
    pub(crate) reasoning: &'a Reasoning,
    pub(crate) service_tier: &'static str,
    pub(crate) store: bool,
    pub(crate) temperature: &'a RawValue,
    pub(crate) top_p: &'a RawValue,
    pub(crate) presence_penalty: &'a RawValue,
    pub(crate) frequency_penalty: &'a RawValue,
    pub(crate) top_logprobs: u8,
    pub(crate) text: &'a RawValue,
    pub(crate) tool_choice: &'a RawValue,
    pub(crate) tools: &'a RawValue,
    pub(crate) truncation: &'static str,
    pub(crate) usage: Option<ResponseUsage>,
    pub(crate) user: Option<&'a str>,
    pub(crate) metadata: &'a RawValue,
    pub(crate) safety_identifier: Option<&'a str>,
    pub(crate) prompt_cache_key: Option<&'a str>,
}

/// What a response repeats of its request, with OpenAI's defaults for what was not said.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Echo {
    #[serde(default)]
    pub(crate) background: bool,
    pub(crate) instructions: Option<String>,
    pub(crate) max_output_tokens: Option<u64>,
    pub(crate) max_tool_calls: Option<u64>,
    pub(crate) parallel_tool_calls: bool,
    pub(crate) previous_response_id: Option<String>,
    #[serde(default)]
    pub(crate) conversation: Option<InConversation>,
    pub(crate) reasoning: Reasoning,
    pub(crate) store: bool,
    pub(crate) temperature: Box<RawValue>,
    pub(crate) top_p: Box<RawValue>,
    pub(crate) presence_penalty: Box<RawValue>,
    pub(crate) frequency_penalty: Box<RawValue>,
    pub(crate) top_logprobs: u8,
    pub(crate) text: Box<RawValue>,
    pub(crate) tool_choice: Box<RawValue>,
    pub(crate) tools: Box<RawValue>,
    #[serde(deserialize_with = "constant")]
    pub(crate) truncation: Constant,
    pub(crate) user: Option<String>,
    pub(crate) metadata: Box<RawValue>,
    pub(crate) safety_identifier: Option<String>,
    pub(crate) prompt_cache_key: Option<String>,
}

/// The conversation that a response is part of.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct InConversation {
    pub(crate) id: String,
}

/// How a response was to be thought about.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Reasoning {
    pub(crate) effort: Option<String>,
    pub(crate) summary: Option<String>,
}

/// Why a response failed.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Failure {
    /// One of the few codes that the API has.
    #[serde(deserialize_with = "constant")]
    pub(crate) code: Constant,
    pub(crate) message: String,
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        let row = error.row();
        let code = match row.status.as_u16() {
            429 => "rate_limit_exceeded",
            400..=499 => "invalid_prompt",
            _ => "server_error",
        };
        Self { code, message: error.to_string() }
    }
}

/// Why a response is incomplete.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Incomplete {
    pub(crate) reason: &'static str,
}

/// `usage`. Details that Ollama does not report are 0.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct ResponseUsage {
    input_tokens: u64,
    input_tokens_details: InputDetails,
    output_tokens: u64,
    output_tokens_details: OutputDetails,
    total_tokens: u64,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
struct InputDetails {
    cached_tokens: u64,
    cache_write_tokens: u64,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
struct OutputDetails {
    reasoning_tokens: u64,
}

impl From<Usage> for ResponseUsage {
    fn from(Usage { input, output, cached }: Usage) -> Self {
        Self {
            input_tokens: input,
            input_tokens_details: InputDetails { cached_tokens: cached, ..InputDetails::default() },
            output_tokens: output,
            output_tokens_details: OutputDetails::default(),
            total_tokens: input + output,
        }
    }
}

impl From<ResponseUsage> for Usage {
    fn from(usage: ResponseUsage) -> Self {
        Self {
            input: usage.input_tokens,
            output: usage.output_tokens,
            cached: usage.input_tokens_details.cached_tokens,
        }
    }
}

/// One of [`CONSTANTS`]. An alias, because `serde` borrows what is written as a reference.
type Constant = &'static str;

/// Every constant that a stored response has in a field of a fixed set of values.
const CONSTANTS: [&str; 15] = [
    "reasoning",
    "message",
    "function_call",
    "custom_tool_call",
    "in_progress",
    "completed",
    "incomplete",
    "assistant",
    "output_text",
    "summary_text",
    "auto",
    "disabled",
    "rate_limit_exceeded",
    "invalid_prompt",
    "server_error",
];

/// Reads one of [`CONSTANTS`].
fn constant<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Constant, D::Error> {
    let read = Cow::<'de, str>::deserialize(deserializer)?;
    let known = CONSTANTS.into_iter().find(|known| *known == read);
    known.ok_or_else(|| de::Error::custom(format!("unknown value {read:?}")))
}

/// As [`constant`], where the field may be missing.
fn some_constant<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Constant>, D::Error> {
    constant(deserializer).map(Some)
}

/// One item of the output; which keys it has depends on its type. What is not set is left out: some checkers take null
/// amiss.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Item {
    #[serde(deserialize_with = "constant")]
    pub(crate) r#type: Constant,
    pub(crate) id: String,
    #[serde(default, deserialize_with = "some_constant", skip_serializing_if = "Option::is_none")]
    pub(crate) status: Option<Constant>,
    #[serde(default, deserialize_with = "some_constant", skip_serializing_if = "Option::is_none")]
    pub(crate) role: Option<Constant>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) content: Option<Vec<Part>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) call_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) namespace: Option<String>,
    /// Of a function: the text of a JSON object, keys in the model's order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) arguments: Option<String>,
    /// Of a custom tool: any text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) input: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) summary: Option<Vec<Part>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) encrypted_content: Option<String>,
}

/// A part of a message's content, or of a reasoning's summary.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Part {
    #[serde(deserialize_with = "constant")]
    pub(crate) r#type: Constant,
    pub(crate) text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) annotations: Option<[(); 0]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) logprobs: Option<Vec<Box<RawValue>>>,
}

impl Part {
    /// Words of an answer, none yet.
    pub(crate) fn output_text() -> Self {
        Self { r#type: "output_text", text: String::new(), annotations: Some([]), logprobs: Some(Vec::new()) }
    }

    /// Words of a thought.
    pub(crate) fn summary_text() -> Self {
        Self { r#type: "summary_text", ..Self::default() }
    }
}

/// One token's probability. The bytes of a token and of its alternatives are always present.
#[derive(Debug, Serialize)]
pub(crate) struct Probability<'a> {
    pub(crate) token: &'a str,
    pub(crate) logprob: &'a RawValue,
    pub(crate) bytes: Cow<'a, [u8]>,
    pub(crate) top_logprobs: Vec<Alternative<'a>>,
}

/// An alternative to a token.
#[derive(Debug, Serialize)]
pub(crate) struct Alternative<'a> {
    pub(crate) token: &'a str,
    pub(crate) logprob: &'a RawValue,
    pub(crate) bytes: Cow<'a, [u8]>,
}

/// One event of a stream; which keys it has depends on its type.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Event<'a> {
    pub(crate) r#type: &'static str,
    pub(crate) sequence_number: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) response: Option<Response<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) item_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) output_index: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) content_index: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) summary_index: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) item: Option<&'a Item>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) part: Option<&'a Part>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) delta: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) arguments: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) input: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) logprobs: Option<&'a [Box<RawValue>]>,
}
