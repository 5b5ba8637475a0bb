//! What the mock answers instead of its own answer: when … reply …, with delays, errors, cuts and stalls.

use std::{collections::BTreeMap, sync::Mutex, time::Duration};

use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::{Value, json};

/// Rules, tried in order; the first that matches answers. Without one, the mock answers by itself.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(transparent)]
pub struct Script {
    rules: Vec<Rule>,
}

/// When … reply ….
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Which requests it is for.
    #[serde(default)]
    pub when: When,
    /// How often it answers; without limit where absent.
    #[serde(default)]
    pub times: Option<u32>,
    /// What it answers.
    pub reply: Answer,
}

/// Which requests a rule is for; what is absent does not matter.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct When {
    /// The path, without query.
    #[serde(default)]
    pub path: Option<String>,
    /// Such as `POST`.
    #[serde(default)]
    pub method: Option<String>,
    /// The model that the body names (`model` or `name`).
    #[serde(default)]
    pub model: Option<String>,
    /// A text that stands in the body.
    #[serde(default)]
    pub contains: Option<String>,
    /// Only the `nth` (from 0) of the requests that match otherwise.
    #[serde(default)]
    pub nth: Option<u32>,
}

/// What a rule answers: `lines`, a `body`, or the mock's own answer, changed.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// How long the head waits.
    #[serde(default, deserialize_with = "duration")]
    pub delay: Duration,
    /// 200 where absent.
    #[serde(default)]
    pub status: Option<u16>,
    /// Headers besides (or instead of) the usual ones.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// NDJSON, one HTTP chunk each. A map is completed with what Ollama always sends (model, created_at, message, done); `{raw: "text"}` is
    /// sent as it is.
    #[serde(default)]
    pub lines: Option<Vec<Value>>,
    /// One JSON body, or a text, with Content-Length.
    #[serde(default)]
    pub body: Option<Value>,
    /// How long to wait before each line after the first.
    #[serde(default, deserialize_with = "duration")]
    pub pause: Duration,
    /// How it ends.
    #[serde(default)]
    pub then: Then,
    /// After how many lines of the mock's own answer `then` comes; after all where absent.
    #[serde(default)]
    pub after: Option<usize>,
    /// The mock's own answer, with `delay`, `pause`, `headers` and `then` applied.
    #[serde(default)]
    pub faithful: bool,
}

/// How an answer ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Then {
    /// In order.
    #[default]
    End,
    /// The connection is closed before the body's end.
    Cut,
    /// The connection is reset.
    Reset,
    /// Nothing more comes, and the connection stays open.
    Stall,
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_duration(&text).map_err(|error| D::Error::custom(format!("{text:?} is no duration such as \"50ms\": {error}")))
}

impl Script {
    /// A rule for a path, to be given its answer by the methods below.
    #[must_use]
    pub fn on(path: &str) -> Self {
        let when = When { path: Some(path.to_owned()), ..When::default() };
        Self { rules: vec![Rule { when, ..Rule::default() }] }
    }

    fn last(mut self, change: impl FnOnce(&mut Rule)) -> Self {
        if let Some(rule) = self.rules.last_mut() {
            change(rule);
        }
        self
    }

    /// The last rule answers with these lines.
    #[must_use]
    pub fn lines(self, lines: impl IntoIterator<Item = Value>) -> Self {
        self.last(|rule| rule.reply.lines = Some(lines.into_iter().collect()))
    }

    /// The last rule answers with this body.
    #[must_use]
    pub fn body(self, status: u16, body: impl Into<Value>) -> Self {
        self.last(|rule| {
            rule.reply.status = Some(status);
            rule.reply.body = Some(body.into());
        })
    }

    /// The last rule answers as the mock would by itself.
    #[must_use]
    pub fn faithful(self) -> Self {
        self.last(|rule| rule.reply.faithful = true)
    }

    /// The last rule ends its answer so.
    #[must_use]
    pub fn then(self, then: Then) -> Self {
        self.last(|rule| rule.reply.then = then)
    }

    /// The last rule waits before its head.
    #[must_use]
    pub fn delay(self, delay: Duration) -> Self {
        self.last(|rule| rule.reply.delay = delay)
    }

    /// The last rule waits between lines.
    #[must_use]
    pub fn pause(self, pause: Duration) -> Self {
        self.last(|rule| rule.reply.pause = pause)
    }

    /// The last rule answers so often, and then no more.
    #[must_use]
    pub fn times(self, times: u32) -> Self {
        self.last(|rule| rule.times = Some(times))
    }

    /// The rules of both, this one's first.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.rules.extend(other.rules);
        self
    }
}

/// A script at work: it counts.
#[derive(Debug, Default)]
pub(crate) struct Stage {
    rules: Vec<Rule>,
    /// For each rule, how many requests matched and how often it answered.
    counts: Mutex<Vec<(u32, u32)>>,
}

impl Stage {
    pub(crate) fn new(script: Script) -> Self {
        let counts = Mutex::new(vec![(0, 0); script.rules.len()]);
        Self { rules: script.rules, counts }
    }

    /// The answer for a request, if a rule has one.
    pub(crate) fn answer(&self, method: &str, path: &str, body: &[u8]) -> Option<&Answer> {
        if self.rules.is_empty() {
            return None;
        }
        let text = String::from_utf8_lossy(body);
        let json: Option<Value> = serde_json::from_slice(body).ok();
        let model = json.as_ref().and_then(|json| json.get("model").or_else(|| json.get("name"))).and_then(Value::as_str);
        let mut counts = self.counts.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        self.rules.iter().zip(counts.iter_mut()).find_map(|(rule, (matched, answered))| {
            let When { path: on, method: by, model: of, contains, nth } = &rule.when;
            let fits = on.as_deref().is_none_or(|on| on == path)
                && by.as_deref().is_none_or(|by| by.eq_ignore_ascii_case(method))
                && of.as_deref().is_none_or(|of| model == Some(of))
                && contains.as_deref().is_none_or(|part| text.contains(part));
            if !fits || rule.times.is_some_and(|times| *answered >= times) {
                return None;
            }
            *matched += 1;
            if nth.is_some_and(|nth| nth + 1 != *matched) {
                return None;
            }
            *answered += 1;
            Some(&rule.reply)
        })
    }
}

/// A line as it crosses the wire, without its newline.
pub(crate) fn line(path: &str, model: &str, created_at: &str, line: &Value) -> String {
    let Some(given) = line.as_object() else { return line.to_string() };
    if let Some(raw) = given.get("raw").and_then(Value::as_str) {
        return raw.to_owned();
    }
    if given.contains_key("error") || !matches!(path, "/api/chat" | "/api/generate") {
        return crate::go::encode(line);
    }
    let mut whole = json!({"model": model, "created_at": created_at});
    if path == "/api/chat" {
        whole["message"] = json!({"role": "assistant", "content": ""});
    } else {
        whole["response"] = "".into();
    }
    whole["done"] = false.into();
    for (name, value) in given {
        match (whole[name].as_object_mut(), value.as_object()) {
            (Some(usual), Some(given)) => usual.extend(given.clone()),
            _ => whole[name] = value.clone(),
        }
    }
    crate::go::encode(&whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_completed_with_what_ollama_always_sends() {
        let done = line("/api/chat", "m", "now", &json!({"message": {"content": "hi"}, "done": true, "eval_count": 3}));
        assert_eq!(done, r#"{"model":"m","created_at":"now","message":{"role":"assistant","content":"hi"},"done":true,"eval_count":3}"#);
        assert_eq!(line("/api/chat", "m", "now", &json!({"error": "x"})), r#"{"error":"x"}"#);
        assert_eq!(line("/api/chat", "m", "now", &json!({"raw": "<html>"})), "<html>");
    }

    #[test]
    fn rules_count_how_often_they_answer() {
        let script: Script = serde_json::from_value(json!([
            {"when": {"path": "/api/chat", "nth": 1}, "reply": {"status": 500, "body": "second"}},
            {"when": {"model": "m"}, "times": 1, "reply": {"body": "once"}}
        ]))
        .unwrap();
        let stage = Stage::new(script);
        let mut ask = || stage.answer("POST", "/api/chat", br#"{"model":"m"}"#).and_then(|answer| answer.body.clone());
        assert_eq!([ask(), ask(), ask()], [Some("once".into()), Some("second".into()), None]);
    }

    #[test]
    fn an_unknown_key_is_refused() {
        assert!(serde_json::from_value::<Script>(json!([{"when": {"pth": "/"}, "reply": {}}])).is_err());
        assert!(serde_json::from_value::<Script>(json!([{"reply": {"delay": "soon"}}])).is_err());
    }
}
