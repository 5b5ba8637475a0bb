//! The native types that we read or write (`/api/chat`, `/api/tags`, `/api/show`), in Ollama's own words and key order.
//!
//! What we only carry (schemas, arguments, options) stays raw: exact digits, exact key order, no work.

use std::{borrow::Cow, collections::HashMap};

use foldhash::quality::RandomState;
use indexmap::IndexMap;
use serde::{Deserialize, Serialize, Serializer, ser::SerializeMap};
use serde_json::value::RawValue;

use crate::json_writer;

/// Body of `POST /api/chat`. An absent field is not sent, so that Modelfile defaults stay in force.
#[derive(Debug, Serialize)]
pub(crate) struct ChatRequest<'a> {
    pub(crate) model: Cow<'a, str>,
    pub(crate) messages: Vec<Message<'a>>,
    /// Always sent: Ollama's default is true.
    pub(crate) stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) format: Option<Cow<'a, RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) keep_alive: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tools: Option<Cow<'a, RawValue>>,
    #[serde(skip_serializing_if = "Options::is_empty")]
    pub(crate) options: Options<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) think: Option<Cow<'a, RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) truncate: Option<Cow<'a, RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) shift: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) logprobs: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) top_logprobs: Option<u8>,
}

/// The `options` object: names with raw values, in the order in which they were given. A name stands once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options<'a>(IndexMap<Cow<'a, str>, Cow<'a, RawValue>, RandomState>);

impl<'a> Options<'a> {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of `name`.
    pub(crate) fn get(&self, name: &str) -> Option<&RawValue> {
        self.0.get(name).map(|value| &**value)
    }

    /// Takes `name` out.
    pub(crate) fn remove(&mut self, name: &str) {
        self.0.shift_remove(name);
    }

    /// Sets `name`, in the place of an earlier value if there is one.
    pub(crate) fn set(&mut self, name: impl Into<Cow<'a, str>>, value: Cow<'a, RawValue>) {
        self.0.insert(name.into(), value);
    }
}

impl Serialize for Options<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// One message of a request.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Message<'a> {
    pub(crate) role: Cow<'a, str>,
    /// Always a string: Ollama answers 400 to an array.
    pub(crate) content: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) thinking: Option<Cow<'a, str>>,
    /// Bare base64, of images and of sound alike.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) images: Vec<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) tool_calls: Vec<AskedCall<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tool_name: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tool_call_id: Option<Cow<'a, str>>,
}

/// A tool call in a request's history.
#[derive(Debug, Serialize)]
pub(crate) struct AskedCall<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<Cow<'a, str>>,
    pub(crate) function: AskedFunction<'a>,
}

/// The function of an [`AskedCall`].
#[derive(Debug, Serialize)]
pub(crate) struct AskedFunction<'a> {
    pub(crate) index: usize,
    pub(crate) name: Cow<'a, str>,
    /// A JSON object; a string is refused by Ollama.
    pub(crate) arguments: Cow<'a, RawValue>,
}

/// What one line of a stream holds.
pub(crate) trait Line<'a>: Deserialize<'a> {
    /// Reads a line that Ollama writes for most tokens, at a tenth of what a JSON parser costs. None: it is something
    /// else.
    fn of_token(_line: &'a str) -> Option<Self> {
        None
    }
}

/// A whole answer of `POST /api/chat`, or one line of a stream.
#[derive(Debug, Deserialize)]
pub(crate) struct ChatReply<'a> {
    #[serde(borrow)]
    pub(crate) message: ReplyMessage<'a>,
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

impl<'a> Line<'a> for ChatReply<'a> {
    fn of_token(line: &'a str) -> Option<Self> {
        let (_, rest) = text(line.strip_prefix(r#"{"model":"#)?)?;
        let (_, rest) = text(rest.strip_prefix(r#","created_at":"#)?)?;
        let (content, mut rest) = text(rest.strip_prefix(r#","message":{"role":"assistant","content":"#)?)?;
        let mut thinking = None;
        if let Some(begin) = rest.strip_prefix(r#","thinking":"#) {
            let (thought, after) = text(begin)?;
            (thinking, rest) = (Some(thought.into()), after);
        }
        (rest == r#"},"done":false}"#).then(|| Self {
            message: ReplyMessage { content: content.into(), thinking, tool_calls: None },
            done: false,
            done_reason: None,
            prompt_eval_count: None,
            prompt_eval_cached_count: None,
            eval_count: None,
            logprobs: None,
        })
    }
}

#[cfg(test)]
impl Line<'_> for serde::de::IgnoredAny {}

/// The text in quotes that `json` begins with, and what follows it. None: there is none, or it has escapes.
fn text(json: &str) -> Option<(&str, &str)> {
    let begin = json.strip_prefix('"')?;
    let (text, rest) = begin.split_at(json_writer::plain(begin.as_bytes()));
    Some((text, rest.strip_prefix('"')?))
}

/// What the model said.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct ReplyMessage<'a> {
    #[serde(borrow, default)]
    pub(crate) content: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(crate) thinking: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(crate) tool_calls: Option<Vec<ReplyCall<'a>>>,
}

/// A call that the model wants. Its `id` may be absent or used twice; its `index` is 0 for every call of some models.
#[derive(Debug, Deserialize)]
pub(crate) struct ReplyCall<'a> {
    #[serde(borrow, default)]
    pub(crate) id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(crate) function: ReplyFunction<'a>,
}

/// The function of a [`ReplyCall`].
#[derive(Debug, Deserialize)]
pub(crate) struct ReplyFunction<'a> {
    #[serde(borrow)]
    pub(crate) name: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(crate) arguments: Option<&'a RawValue>,
}

/// One token with its probability and the alternatives.
#[derive(Debug, Deserialize)]
pub(crate) struct Logprob<'a> {
    #[serde(borrow)]
    pub(crate) token: Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) logprob: &'a RawValue,
    #[serde(borrow, default)]
    pub(crate) bytes: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(crate) top_logprobs: Vec<Logprob<'a>>,
}

/// Answer of `GET /api/tags`.
#[derive(Debug, Deserialize)]
pub(crate) struct Tags<'a> {
    #[serde(borrow)]
    pub(crate) models: Vec<Tag<'a>>,
}

/// One model of the list.
#[derive(Debug, Deserialize)]
pub(crate) struct Tag<'a> {
    #[serde(borrow)]
    pub(crate) name: Cow<'a, str>,
    /// The id of a model of an OpenAI server, where `name` has a tag that it does not have.
    #[serde(borrow, default)]
    pub(crate) openai_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(crate) modified_at: Cow<'a, str>,
    #[serde(default)]
    pub(crate) details: Option<Details>,
    /// What the model can do, such as `completion`, `tools`, `vision`; older versions do not list it.
    #[serde(borrow, default)]
    pub(crate) capabilities: Option<Vec<Cow<'a, str>>>,
}

impl Tag<'_> {
    /// The name by which clients of OpenAI's API know the model: the server's own.
    pub(crate) fn id(&self) -> &str {
        self.openai_id.as_deref().unwrap_or(&self.name)
    }
}

/// What we read of a model's details.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Details {
    /// Tokens that the model was made for, which is not what it is loaded with; older versions do not report it.
    #[serde(default)]
    pub(crate) context_length: Option<u64>,
}

/// Body of `POST /api/show`.
#[derive(Debug, Serialize)]
pub(crate) struct ShowRequest<'a> {
    pub(crate) model: &'a str,
}

/// What we read of the answer of `POST /api/show`.
#[derive(Debug, Deserialize)]
pub(crate) struct Show<'a> {
    #[serde(borrow, default)]
    pub(crate) modified_at: Cow<'a, str>,
    /// From 0.6.4 on.
    #[serde(borrow, default)]
    pub(crate) capabilities: Option<Vec<Cow<'a, str>>>,
    /// The model file's own keys, such as `general.architecture` and `llama.context_length`.
    #[serde(borrow, default)]
    pub(crate) model_info: HashMap<Cow<'a, str>, &'a RawValue>,
    /// The model's own options, one per line: a name, spaces and a value.
    #[serde(borrow, default)]
    parameters: Option<Cow<'a, str>>,
}

impl Show<'_> {
    /// Tokens that the model was made for.
    pub(crate) fn context_length(&self) -> Option<u64> {
        let architecture: Cow<'_, str> =
            serde_json::from_str(self.model_info.get("general.architecture")?.get()).ok()?;
        self.model_info.get(&*format!("{architecture}.context_length"))?.get().parse().ok()
    }

    /// Tokens that the model is loaded with where a request asks for none, if its model file says so.
    pub(crate) fn num_ctx(&self) -> Option<u64> {
        let mut words = self.parameters.as_ref()?.lines().map(str::split_whitespace);
        words.find_map(|mut words| (words.next() == Some("num_ctx")).then(|| words.next()?.parse().ok())?)
    }
}

/// Answer of `GET /api/ps`.
#[derive(Debug, Deserialize)]
pub(crate) struct Ps<'a> {
    #[serde(borrow)]
    pub(crate) models: Vec<Loaded<'a>>,
}

/// A model in memory.
#[derive(Debug, Deserialize)]
pub(crate) struct Loaded<'a> {
    #[serde(borrow)]
    pub(crate) name: Cow<'a, str>,
    /// Bytes, all of them and those on the graphics card.
    #[serde(default)]
    pub(crate) size: u64,
    #[serde(default)]
    pub(crate) size_vram: u64,
    /// Tokens; from 0.10.0 on.
    #[serde(default)]
    pub(crate) context_length: Option<u64>,
}

/// A line `{"error":"…"}`, which takes the place of a reply in mid-stream.
#[derive(Debug, Deserialize)]
pub(crate) struct ErrorLine<'a> {
    #[serde(borrow)]
    pub(crate) error: Cow<'a, str>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_line_of_a_token_is_read_as_a_parser_reads_it(
            (model, content, thinking) in ("[a-z:\"\\\\]{0,5}", "[ -~é\n\u{2028}]{0,20}", prop::option::of("[a-z\t]{0,9}")), cut in 0_usize..300, done: bool,
        ) {
            let quoted = |text: &str| serde_json::to_string(text).unwrap();
            let thinking = thinking.map(|text| format!(r#","thinking":{}"#, quoted(&text))).unwrap_or_default();
            let line = format!(
                r#"{{"model":{},"created_at":"2026-11-22T12:37:41.5Z","message":{{"role":"assistant","content":{}{thinking}}},"done":{done}}}"#,
                quoted(&model), quoted(&content)
            );
            let plain = !done && !line.contains('\\');
            let read = ChatReply::of_token(&line);
            prop_assert_eq!(read.is_some(), plain);
            if let Some(read) = read {
                let parsed: ChatReply<'_> = serde_json::from_str(&line).unwrap();
                prop_assert_eq!(format!("{read:?}"), format!("{parsed:?}"));
            }
            let part: String = line.chars().take(cut).collect();
            prop_assert!(part == line || ChatReply::of_token(&part).is_none());
        }
    }

    #[test]
    fn what_only_looks_like_a_line_of_a_token_is_left_to_the_parser() {
        let line =
            |end: &str| format!(r#"{{"model":"m","created_at":"t","message":{{"role":"assistant","content":"a"{end}"#);
        assert!(ChatReply::of_token(&line(r#"},"done":false}"#)).is_some());
        for end in [
            r#"},"done":true}"#,
            r#"},"done":false} "#,
            r#"},"done":false}}"#,
            r#"},"done":false,"logprobs":[]}"#,
            r#","images":[]},"done":false}"#,
            r#","thinking":null},"done":false}"#,
            r#","tool_calls":[]},"done":false}"#,
        ] {
            assert!(ChatReply::of_token(&line(end)).is_none(), "{end}");
        }
        assert!(ChatReply::of_token(&line("\u{1}},\"done\":false}")).is_none());
    }
}
