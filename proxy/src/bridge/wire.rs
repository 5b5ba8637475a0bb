//! The types of both sides: what an OpenAI server is asked and answers, and what clients of Ollama get. What is only
//! carried (numbers, schemas, arguments, tools) stays raw. Pure.

use std::borrow::Cow;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer, de,
    ser::{SerializeMap, SerializeStruct},
};
use serde_json::value::RawValue;

use crate::{bridge::go::Object, openai::request::json::Text};

/// Body of `POST /chat/completions` or `POST /completions`: the fields that every request has, and those that it sets.
#[derive(Debug, Default)]
pub(super) struct GenerationBody<'a> {
    pub(super) model: &'a str,
    pub(super) input: Input<'a>,
    pub(super) stream: bool,
    pub(super) fields: Vec<(&'static str, Field<'a>)>,
}

/// What the model reads.
#[derive(Debug)]
pub(super) enum Input<'a> {
    Messages(Vec<Message<'a>>),
    Prompt { prompt: &'a str, suffix: Option<&'a str> },
}

impl Default for Input<'_> {
    fn default() -> Self {
        Self::Messages(Vec::new())
    }
}

/// The value of a field.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Field<'a> {
    Raw(&'a RawValue),
    Flag(bool),
    Number(i64),
    Word(&'static str),
    Tools(Vec<Tool<'a>>),
    Format(ResponseFormat<'a>),
    Usage { include_usage: bool },
    Template { enable_thinking: bool, thinking: bool },
}

impl Serialize for GenerationBody<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("model", self.model)?;
        match &self.input {
            Input::Messages(messages) => map.serialize_entry("messages", messages)?,
            Input::Prompt { prompt, suffix } => {
                map.serialize_entry("prompt", prompt)?;
                if let Some(suffix) = suffix {
                    map.serialize_entry("suffix", suffix)?;
                }
            }
        }
        map.serialize_entry("stream", &self.stream)?;
        for (name, value) in &self.fields {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// A tool on offer: as the client wrote it, or with the type that OpenAI wants and Ollama does not ask for.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Tool<'a> {
    Raw(&'a RawValue),
    Typed { r#type: &'static str, function: &'a RawValue },
}

/// `response_format`.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum ResponseFormat<'a> {
    JsonObject,
    JsonSchema { json_schema: NamedSchema<'a> },
}

/// A schema with the name that OpenAI wants.
#[derive(Debug, Serialize)]
pub(super) struct NamedSchema<'a> {
    pub(super) name: &'static str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) strict: bool,
    pub(super) schema: &'a RawValue,
}

/// One message of a request.
#[derive(Debug, Default, Serialize)]
pub(super) struct Message<'a> {
    pub(super) role: &'a str,
    /// Null beside calls.
    pub(super) content: Option<Content<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reasoning_content: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) tool_calls: Vec<PastCall<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tool_call_id: Option<Cow<'a, str>>,
}

/// The content of a message.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Content<'a> {
    Text(&'a str),
    Parts(Vec<Part<'a>>),
}

/// One part of a content.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Part<'a> {
    Text { text: &'a str },
    ImageUrl { image_url: ImageUrl },
    InputAudio { input_audio: Audio<'a> },
}

/// An image as a data URL.
#[derive(Debug, Serialize)]
pub(super) struct ImageUrl {
    pub(super) url: String,
}

/// Sound in base64.
#[derive(Debug, Serialize)]
pub(super) struct Audio<'a> {
    pub(super) data: &'a str,
    pub(super) format: &'static str,
}

/// A call in the history.
#[derive(Debug, Serialize)]
pub(super) struct PastCall<'a> {
    pub(super) id: Cow<'a, str>,
    pub(super) r#type: &'static str,
    pub(super) function: PastFunction<'a>,
}

#[derive(Debug, Serialize)]
pub(super) struct PastFunction<'a> {
    pub(super) name: &'a str,
    /// The text of an object.
    pub(super) arguments: &'a str,
}

/// Body of `POST /embeddings`.
#[derive(Debug, Serialize)]
pub(super) struct EmbeddingsBody<'a> {
    pub(super) model: &'a str,
    pub(super) input: &'a [Cow<'a, str>],
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) encoding_format: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) dimensions: Option<u64>,
}

/// A whole completion, or one event of a stream.
#[derive(Debug, Deserialize)]
pub(super) struct Completion<'a> {
    #[serde(borrow, default)]
    pub(super) choices: Option<Vec<Choice<'a>>>,
    #[serde(default)]
    pub(super) usage: Option<Usage>,
    #[serde(default)]
    pub(super) timings: Option<Timings>,
    #[serde(borrow, default)]
    pub(super) error: Option<&'a RawValue>,
}

/// One choice.
#[derive(Debug, Deserialize)]
pub(super) struct Choice<'a> {
    /// `delta` of a stream, `message` of a whole completion.
    #[serde(borrow, default, alias = "message")]
    pub(super) delta: Option<Delta<'a>>,
    /// Of `POST /completions`.
    #[serde(borrow, default)]
    pub(super) text: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) finish_reason: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) logprobs: Option<Logprobs<'a>>,
}

/// What is new, or the whole message.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Delta<'a> {
    #[serde(borrow, default)]
    pub(super) content: Option<Said<'a>>,
    #[serde(borrow, default)]
    pub(super) reasoning_content: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) reasoning: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) refusal: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) tool_calls: Option<Vec<DeltaCall<'a>>>,
}

/// What a model said: text, or parts of text and thinking (Mistral's reasoning models).
#[derive(Debug, Default)]
pub(super) struct Said<'a> {
    pub(super) text: Cow<'a, str>,
    pub(super) thinking: String,
}

#[derive(Deserialize)]
struct SaidPart<'a> {
    #[serde(borrow, default)]
    text: Option<Text<'a>>,
    #[serde(borrow, default)]
    thinking: Option<Vec<SaidPart<'a>>>,
}

impl<'de: 'a, 'a> Deserialize<'de> for Said<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw: &'de RawValue = Deserialize::deserialize(deserializer)?;
        if let Some(Text(text)) = Text::of(raw) {
            return Ok(Self { text, thinking: String::new() });
        }
        let parts: Vec<SaidPart<'de>> = serde_json::from_str(raw.get())
            .map_err(|_| de::Error::custom("invalid type, expected a text or a list of parts"))?;
        let (mut text, mut thinking) = (String::new(), String::new());
        for part in parts {
            text.extend(part.text.iter().map(|text| &**text));
            let inner = part.thinking.iter().flatten().filter_map(|part| part.text.as_ref());
            thinking.extend(inner.map(|text| &**text));
        }
        Ok(Self { text: Cow::Owned(text), thinking })
    }
}

/// A call, or a piece of one.
#[derive(Debug, Deserialize)]
pub(super) struct DeltaCall<'a> {
    #[serde(default)]
    pub(super) index: Option<u64>,
    #[serde(borrow, default)]
    pub(super) id: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) function: Option<DeltaFunction<'a>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct DeltaFunction<'a> {
    #[serde(borrow, default)]
    pub(super) name: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) arguments: Option<&'a RawValue>,
}

/// Log probabilities: OpenAI's of chat completions, or the lists of its legacy completions.
#[derive(Debug, Deserialize)]
pub(super) struct Logprobs<'a> {
    #[serde(borrow, default)]
    pub(super) content: Option<Vec<Logprob<'a>>>,
    #[serde(borrow, default)]
    tokens: Option<Vec<Text<'a>>>,
    #[serde(borrow, default)]
    token_logprobs: Option<Vec<&'a RawValue>>,
    #[serde(borrow, default)]
    top_logprobs: Option<Vec<Option<Object<'a>>>>,
}

/// One token, as both APIs have it.
#[derive(Debug, Deserialize)]
pub(super) struct Logprob<'a> {
    #[serde(borrow)]
    token: Text<'a>,
    #[serde(borrow)]
    logprob: &'a RawValue,
    #[serde(borrow, default)]
    bytes: Option<&'a RawValue>,
    #[serde(borrow, default)]
    top_logprobs: Option<Vec<Logprob<'a>>>,
}

impl Serialize for Logprob<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("token", &*self.token)?;
        map.serialize_entry("logprob", self.logprob)?;
        match self.bytes {
            Some(bytes) => map.serialize_entry("bytes", bytes)?,
            // A token that is part of a character cannot be recognized by its text.
            None if self.token.is_empty() || self.token.contains('\u{fffd}') => {}
            None => map.serialize_entry("bytes", self.token.as_bytes())?,
        }
        if let Some(top) = self.top_logprobs.as_ref().filter(|top| !top.is_empty()) {
            map.serialize_entry("top_logprobs", top)?;
        }
        map.end()
    }
}

impl<'a> Logprobs<'a> {
    /// The tokens, in either form.
    pub(super) fn tokens(self) -> Vec<Logprob<'a>> {
        if let Some(content) = self.content {
            return content;
        }
        let (tokens, values) = (self.tokens.unwrap_or_default(), self.token_logprobs.unwrap_or_default());
        let mut tops = self.top_logprobs.unwrap_or_default().into_iter();
        let tokens = tokens.into_iter().zip(values).map(|(token, logprob)| {
            let top = tops.next().flatten().map(|top| {
                let token = |(token, logprob): (Cow<'a, str>, &'a RawValue)| Logprob {
                    token: Text(token),
                    logprob,
                    bytes: None,
                    top_logprobs: None,
                };
                top.into_fields().map(token).collect()
            });
            Logprob { token, logprob, bytes: None, top_logprobs: top }
        });
        // The first token of a prompt has none.
        tokens.filter(|token| token.logprob.get() != "null").collect()
    }
}

/// Tokens that were counted.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(super) struct Usage {
    #[serde(default)]
    pub(super) prompt_tokens: Option<u64>,
    #[serde(default)]
    pub(super) completion_tokens: Option<u64>,
    #[serde(default)]
    pub(super) prompt_tokens_details: Option<PromptDetails>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct PromptDetails {
    #[serde(default)]
    pub(super) cached_tokens: Option<u64>,
}

/// What llama.cpp's server adds: milliseconds.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct Timings {
    #[serde(default)]
    pub(super) prompt_ms: Option<f64>,
    #[serde(default)]
    pub(super) predicted_ms: Option<f64>,
}

/// Answer of `POST /embeddings`.
#[derive(Debug, Deserialize)]
pub(super) struct Embeddings<'a> {
    #[serde(borrow)]
    pub(super) data: Vec<Embedding<'a>>,
    #[serde(default)]
    pub(super) usage: Option<Usage>,
}

/// One vector: numbers, or base64 of float32.
#[derive(Debug, Deserialize)]
pub(super) struct Embedding<'a> {
    #[serde(default)]
    pub(super) index: Option<usize>,
    #[serde(borrow)]
    pub(super) embedding: &'a RawValue,
}

/// A reply of `/api/chat` or `/api/generate`, whole or one line.
#[derive(Debug)]
pub(super) struct Reply<'a> {
    pub(super) model: &'a str,
    pub(super) created_at: &'a str,
    pub(super) answer: Answer<'a>,
    pub(super) done: bool,
    pub(super) done_reason: Option<&'a str>,
    pub(super) logprobs: Vec<Logprob<'a>>,
    pub(super) costs: Costs,
}

/// What of a reply differs between the two.
#[derive(Debug)]
pub(super) enum Answer<'a> {
    Chat(ReplyMessage<'a>),
    Generate { response: &'a str, thinking: &'a str },
}

/// In Ollama's order of keys. By hand: flattened structs cost three times as much, and a stream has one for each token.
impl Serialize for Reply<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Costs {
            total_duration,
            prompt_eval_count,
            prompt_eval_cached_count,
            prompt_eval_duration,
            eval_count,
            eval_duration,
        } = self.costs;
        let mut reply = serializer.serialize_struct("Reply", 0)?;
        reply.serialize_field("model", self.model)?;
        reply.serialize_field("created_at", self.created_at)?;
        let chat = match &self.answer {
            Answer::Chat(message) => {
                reply.serialize_field("message", message)?;
                true
            }
            Answer::Generate { response, thinking } => {
                reply.serialize_field("response", response)?;
                if !thinking.is_empty() {
                    reply.serialize_field("thinking", thinking)?;
                }
                false
            }
        };
        reply.serialize_field("done", &self.done)?;
        if let Some(reason) = self.done_reason {
            reply.serialize_field("done_reason", reason)?;
        }
        if chat && !self.logprobs.is_empty() {
            reply.serialize_field("logprobs", &self.logprobs)?;
        }
        // Zero is left out, as Ollama does.
        for (name, number) in [
            ("total_duration", total_duration),
            ("prompt_eval_count", prompt_eval_count),
            ("prompt_eval_cached_count", prompt_eval_cached_count),
            ("prompt_eval_duration", prompt_eval_duration),
            ("eval_count", eval_count),
            ("eval_duration", eval_duration),
        ] {
            if number > 0 {
                reply.serialize_field(name, &number)?;
            }
        }
        if !chat && !self.logprobs.is_empty() {
            reply.serialize_field("logprobs", &self.logprobs)?;
        }
        reply.end()
    }
}

/// The message of a reply.
#[derive(Debug, Serialize)]
pub(super) struct ReplyMessage<'a> {
    pub(super) role: &'static str,
    pub(super) content: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(super) thinking: &'a str,
    #[serde(skip_serializing_if = "<[ReplyCall<'_>]>::is_empty")]
    pub(super) tool_calls: &'a [ReplyCall<'a>],
}

/// A call of the model's.
#[derive(Debug, Serialize)]
pub(super) struct ReplyCall<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(super) id: &'a str,
    pub(super) function: ReplyFunction<'a>,
}

#[derive(Debug, Serialize)]
pub(super) struct ReplyFunction<'a> {
    pub(super) index: usize,
    pub(super) name: &'a str,
    pub(super) arguments: &'a RawValue,
}

/// Counts, and nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Costs {
    pub(super) total_duration: u64,
    pub(super) prompt_eval_count: u64,
    pub(super) prompt_eval_cached_count: u64,
    pub(super) prompt_eval_duration: u64,
    pub(super) eval_count: u64,
    pub(super) eval_duration: u64,
}
