//! What a rule answers with.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, de::Error};
use serde_json::{Map, Value, json};

use super::Wait;
use crate::timestamps;

/// An answer.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(try_from = "Written")]
pub struct Reply {
    /// Waits before the head is sent.
    pub delay: Wait,
    /// What the content implies if absent: 200, or the faithful one.
    pub status: Option<u16>,
    /// Added to, or in place of, what Ollama would send.
    pub headers: BTreeMap<String, String>,
    /// What is sent.
    pub content: Content,
    /// How many lines of a faithful answer come before `then`; all of them if absent.
    pub after: Option<u64>,
    /// Waits between lines.
    pub pause: Wait,
    /// What happens after the lines.
    pub then: Then,
}

/// What an answer holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Content {
    /// What Ollama would answer.
    #[default]
    Faithful,
    /// What Ollama would answer if the model wrote these words, tags of thinking and of tool calls included.
    Says(String),
    /// NDJSON, one HTTP chunk each.
    Lines(Vec<Line>),
    /// One body with `Content-Length`: text as it is, anything else as JSON.
    Body(Value),
    /// So many bytes, with `Content-Length`.
    Bytes(u64),
    /// No body: a status alone.
    Nothing,
}

/// The file's form of a [`Reply`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    delay: Wait,
    status: Option<u16>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    lines: Option<Vec<Line>>,
    body: Option<Value>,
    bytes: Option<u64>,
    says: Option<String>,
    faithful: Option<bool>,
    after: Option<u64>,
    #[serde(default)]
    pause: Wait,
    #[serde(default)]
    then: Then,
}

impl TryFrom<Written> for Reply {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let Written { delay, status, headers, lines, body, bytes, says, faithful, after, pause, then } = written;
        let given = [
            ("lines", lines.map(Content::Lines)),
            ("body", body.map(Content::Body)),
            ("bytes", bytes.map(Content::Bytes)),
            ("says", says.map(Content::Says)),
            ("faithful", faithful.filter(|faithful| *faithful).map(|_| Content::Faithful)),
        ];
        let mut given = given.into_iter().filter_map(|(name, content)| content.map(|content| (name, content)));
        let content = match (given.next(), given.next()) {
            (Some((one, _)), Some((other, _))) => {
                return Err(format!("a reply has one of lines, body, bytes, says and faithful, not {one} and {other}"));
            }
            (Some((_, content)), None) => content,
            (None, _) if status.is_some() && after.is_none() => Content::Nothing,
            (None, _) => Content::Faithful,
        };
        if after.is_some() && !matches!(content, Content::Faithful | Content::Says(_)) {
            return Err("`after` counts the lines of a faithful answer: leave it out, or the lines".to_owned());
        }
        if then == Then::Kill && !matches!(content, Content::Faithful | Content::Says(_)) {
            return Err("`then: kill` ends a faithful answer: leave out lines, body and bytes".to_owned());
        }
        if status.is_some_and(|status| !(200..=599).contains(&status)) {
            return Err("`status` is from 200 to 599".to_owned());
        }
        for (name, value) in &headers {
            if http::HeaderName::try_from(name).is_err() || http::HeaderValue::try_from(value).is_err() {
                return Err(format!("{name:?}: {value:?} is not an HTTP header"));
            }
        }
        Ok(Self { delay, status, headers, content, after, pause, then })
    }
}

/// What happens after the lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Then {
    /// The answer ends as it should.
    #[default]
    End,
    /// The last line is cut in its middle, inside its chunk, and the connection closed.
    Cut,
    /// The connection is reset (RST).
    Reset,
    /// Nothing more comes, and the connection stays open.
    Stall,
    /// The process that runs the model is killed, after the lines of `after` (none if absent): the answer ends as
    /// Ollama's does then, and the model is no longer loaded. Faithful answers only.
    Kill,
}

/// One line of an NDJSON answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Line {
    /// A JSON object. Absent `model`, `created_at`, `message` or `response`, and `done` are filled in on the routes
    /// that always send them; a null leaves the key out. An object with `error` is sent as it is.
    Json(Map<String, Value>),
    /// Sent as it is, in a chunk of its own, without a newline: `raw: "…"` in a file.
    Raw(String),
}

impl From<Value> for Line {
    fn from(value: Value) -> Self {
        match value {
            Value::Object(mut object) if object.len() == 1 && object.get("raw").is_some_and(Value::is_string) => {
                match object.remove("raw") {
                    Some(Value::String(text)) => Self::Raw(text),
                    _ => Self::Json(object),
                }
            }
            Value::Object(object) => Self::Json(object),
            Value::String(text) => Self::Raw(text),
            other => Self::Raw(other.to_string() + "\n"),
        }
    }
}

impl From<&str> for Line {
    fn from(text: &str) -> Self {
        Self::Raw(text.to_owned())
    }
}

impl<'de> Deserialize<'de> for Line {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            value @ Value::Object(_) => Ok(value.into()),
            _ => Err(D::Error::custom("a line is an object, or `raw: \"text\"`")),
        }
    }
}

/// Keys in the order in which Ollama writes them; the others follow as they come.
const ORDER: [&str; 5] = ["model", "created_at", "message", "response", "done"];

impl Line {
    /// The line as it is sent on `path` for `model`.
    pub(super) fn complete(&self, path: &str, model: &str) -> String {
        let object = match self {
            Self::Raw(text) => return text.clone(),
            Self::Json(object) => object,
        };
        let answer = match path {
            "/api/chat" => Some(("message", json!({"role": "assistant", "content": ""}))),
            "/api/generate" => Some(("response", json!(""))),
            _ => None,
        };
        let Some((answer, empty)) = answer.filter(|_| !object.contains_key("error")) else {
            return line(object);
        };
        let mut whole = Map::new();
        for key in ORDER {
            let value = match (key, object.get(key)) {
                ("message", Some(Value::Object(message))) => Some(completed(message)),
                (_, Some(value)) => Some(value.clone()),
                ("model", None) => Some(model.into()),
                ("created_at", None) => Some(timestamps::now().into()),
                ("done", None) => Some(false.into()),
                (key, None) if key == answer => Some(empty.clone()),
                _ => None,
            };
            if let Some(value) = value {
                whole.insert(key.to_owned(), value);
            }
        }
        for (key, value) in object.iter().filter(|(key, _)| !ORDER.contains(&key.as_str())) {
            whole.insert(key.clone(), value.clone());
        }
        line(&whole)
    }
}

/// A message always has a role and a content.
fn completed(message: &Map<String, Value>) -> Value {
    let mut whole = Map::new();
    whole.insert("role".to_owned(), message.get("role").cloned().unwrap_or_else(|| "assistant".into()));
    whole.insert("content".to_owned(), message.get("content").cloned().unwrap_or_else(|| "".into()));
    whole.extend(
        message
            .iter()
            .filter(|(key, _)| *key != "role" && *key != "content")
            .map(|(key, value)| (key.clone(), value.clone())),
    );
    whole.retain(|_, value| !value.is_null());
    whole.into()
}

fn line(object: &Map<String, Value>) -> String {
    let mut object = object.clone();
    object.retain(|_, value| !value.is_null());
    crate::go::encode(&object.into()) + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_completed_as_ollama_would_send_them() {
        let line = Line::from(json!({"created_at": "t", "message": {"content": "a<b"}}));
        assert_eq!(
            line.complete("/api/chat", "m"),
            "{\"model\":\"m\",\"created_at\":\"t\",\"message\":{\"role\":\"assistant\",\"content\":\"a\\u003cb\"},\"done\":false}\n"
        );
        let done = Line::from(json!({"done": true, "created_at": null, "eval_count": 3}));
        assert_eq!(
            done.complete("/api/generate", "m"),
            "{\"model\":\"m\",\"response\":\"\",\"done\":true,\"eval_count\":3}\n"
        );
    }

    #[test]
    fn errors_raw_text_and_other_routes_are_sent_as_they_are() {
        assert_eq!(Line::from(json!({"error": "x"})).complete("/api/chat", "m"), "{\"error\":\"x\"}\n");
        assert_eq!(Line::from(json!({"raw": "{\"a"})).complete("/api/chat", "m"), "{\"a");
        assert_eq!(Line::from(json!({"status": "success"})).complete("/api/pull", "m"), "{\"status\":\"success\"}\n");
    }
}
