//! Answers from recordings instead of playing a model: the recorded response for the request that was recorded, and,
//! for another request of the same shape, that response with the request's own text.
//!
//! Two requests have the same shape if they go to the same route for the same model and ask for the same kind of
//! response: streamed or whole, with or without tools, images, a format, thinking, messages, and for as many
//! embeddings. Of several recordings of a shape, the one whose fields are most like the request's is played. One that
//! was recorded several times is played in turn, the last again and again.

use std::{
    collections::{BTreeSet, HashMap},
    path::Path,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderName, StatusCode, header};
use serde_json::{Value, json};

use crate::{
    Version, go,
    names::Name,
    recording::{self, ReadError, Recording},
    script::model_of,
    server::{
        answer::{Answer, Body, Part},
        request::Asked,
    },
    timestamps,
};

/// Recordings to answer from: see `farllama-check record`.
#[derive(Clone, Debug)]
pub struct Replay {
    recordings: Vec<Recording>,
    version: Version,
    /// Waits between chunks as long as the recorded server did.
    pub timing: bool,
    /// Answers faithfully where no recording fits, instead of with 501.
    pub fallback: bool,
}

/// Recordings that cannot be replayed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// They cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// They are of several servers.
    #[error("recordings of several versions ({0}): choose one with --version, or name its folder")]
    Versions(String),
    /// There is none of the version that was asked for.
    #[error("no recording of version {wanted}; there are recordings of {known}")]
    NoneOf {
        /// The version that was asked for.
        wanted: Version,
        /// The versions that there are.
        known: String,
    },
    /// A recording's version is not a version.
    #[error("{name}: {error}")]
    Version {
        /// The recording.
        name: String,
        /// Why.
        error: crate::NoVersion,
    },
}

impl Replay {
    /// Reads the recordings of a folder; with `version`, those of that version.
    ///
    /// # Errors
    /// Fails if they cannot be read, or are of several versions and none was chosen.
    pub fn read(dir: &Path, version: Option<&Version>) -> Result<Self, ReplayError> {
        Self::of(recording::read_dir(dir)?, version)
    }

    /// The same, from recordings.
    ///
    /// # Errors
    /// Fails if there is none, or they are of several versions and none was chosen.
    pub fn of(mut recordings: Vec<Recording>, version: Option<&Version>) -> Result<Self, ReplayError> {
        let mut known: Vec<&str> = recordings.iter().map(|recording| &*recording.ollama).collect();
        known.sort_unstable();
        known.dedup();
        let version = match (version, &known[..]) {
            (Some(wanted), known) if !known.contains(&&*wanted.to_string()) => {
                return Err(ReplayError::NoneOf { wanted: wanted.clone(), known: known.join(", ") });
            }
            (Some(wanted), _) => wanted.clone(),
            (None, [one]) => one.parse().map_err(|error| ReplayError::Version { name: (*one).to_owned(), error })?,
            (None, several) => return Err(ReplayError::Versions(several.join(", "))),
        };
        let text = version.to_string();
        // Others have no response that could be sent to another client.
        let is_whole = |recording: &Recording| {
            recording.left_after_chunks.is_none()
                && recording.runner_killed_after_chunks.is_none()
                && recording.runner_killed_ms.is_none()
                && recording.request.whole_head.is_none()
                && recording.response.code().is_some()
        };
        recordings.retain(|recording| recording.ollama == text && is_whole(recording));
        Ok(Self { recordings, version, timing: false, fallback: false })
    }

    /// The version that the recorded server reported.
    #[must_use]
    pub fn version(&self) -> &Version {
        &self.version
    }

    /// How many recordings can be replayed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.recordings.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.recordings.is_empty()
    }
}

/// A replay while it runs.
#[derive(Debug)]
pub(crate) struct Replaying {
    known: Vec<Known>,
    timing: bool,
    pub(crate) fallback: bool,
    /// How often a request was answered exactly, by the place of its first recording.
    turns: Mutex<HashMap<usize, usize>>,
}

/// A recording and what its request asks for.
#[derive(Debug)]
struct Known {
    recording: Recording,
    request: Wanted,
}

impl Known {
    fn is_success(&self) -> bool {
        self.recording.response.code().is_some_and(|code| (200..300).contains(&code))
    }
}

/// What a request asks for.
#[derive(Debug)]
struct Wanted {
    method: String,
    path: String,
    query: String,
    body: Bytes,
    json: Option<Value>,
    shape: Vec<(&'static str, String)>,
}

impl Wanted {
    fn new(method: &str, path: &str, query: &str, body: Bytes) -> Self {
        let json: Option<Value> = serde_json::from_slice(&body).ok();
        let shape = shape(method, path, json.as_ref());
        Self { method: method.to_owned(), path: path.to_owned(), query: query.to_owned(), body, json, shape }
    }

    fn is(&self, other: &Self) -> bool {
        let same_body = match (&self.json, &other.json) {
            (Some(own), Some(other)) => own == other,
            _ => self.body == other.body,
        };
        same_body && (&self.method, &self.path, &self.query) == (&other.method, &other.path, &other.query)
    }

    /// The first part of the shape that differs: its name, the other's and this one's.
    fn differs_from<'a>(&'a self, known: &'a Self) -> Option<(&'static str, &'a str, &'a str)> {
        let pairs = self.shape.iter().zip(&known.shape);
        pairs.filter(|(own, known)| own != known).map(|(own, known)| (own.0, &*known.1, &*own.1)).next()
    }

    /// In how many fields the bodies differ.
    fn distance(&self, other: &Self) -> usize {
        let fields = |json: &Option<Value>| {
            let mut fields = BTreeSet::new();
            collect(json.as_ref(), String::new(), &mut fields);
            fields
        };
        fields(&self.json).symmetric_difference(&fields(&other.json)).count()
    }
}

/// What decides which kind of response a request gets. The same parts in the same order for every request.
fn shape(method: &str, path: &str, json: Option<&Value>) -> Vec<(&'static str, String)> {
    let field = |name: &str| json.and_then(|json| json.get(name)).filter(|value| !value.is_null());
    let has = |name: &str| field(name).is_some_and(|value| value.as_array().is_none_or(|items| !items.is_empty()));
    let messages = field("messages").and_then(Value::as_array);
    let any_message = |name: &str| {
        let has = |message: &Value| message.get(name).is_some_and(|value| !value.is_null());
        messages.is_some_and(|messages| messages.iter().any(has))
    };
    let model =
        json.and_then(model_of).map(|name| Name::parse(name).map_or_else(|| name.to_owned(), |name| name.short()));
    let kind = |value: &Value| match value {
        Value::Object(_) => "schema".to_owned(),
        other => other.to_string(),
    };
    let inputs = field("input").map(|input| input.as_array().map_or(1, Vec::len));
    vec![
        ("method", method.to_owned()),
        ("path", path.to_owned()),
        ("model", model.unwrap_or_default()),
        ("stream", field("stream").map_or_else(|| "true".to_owned(), Value::to_string)),
        ("messages", messages.is_some_and(|messages| !messages.is_empty()).to_string()),
        ("tools", has("tools").to_string()),
        ("tool results", any_message("tool_calls").to_string()),
        ("images", (any_message("images") || has("images")).to_string()),
        ("format", field("format").map(kind).unwrap_or_default()),
        ("think", field("think").map(Value::to_string).unwrap_or_default()),
        ("logprobs", field("logprobs").map(Value::to_string).unwrap_or_default()),
        ("suffix", has("suffix").to_string()),
        ("inputs", inputs.unwrap_or(0).to_string()),
    ]
}

/// The paths of all fields of a document.
fn collect(value: Option<&Value>, path: String, fields: &mut BTreeSet<String>) {
    match value {
        Some(Value::Object(object)) => {
            for (key, value) in object {
                collect(Some(value), format!("{path}/{key}"), fields);
            }
        }
        Some(Value::Array(items)) => {
            for (nth, item) in items.iter().enumerate() {
                collect(Some(item), format!("{path}/{nth}"), fields);
            }
        }
        _ => {}
    }
    fields.insert(path);
}

impl Replaying {
    pub(crate) fn new(replay: Replay) -> Self {
        let known = replay.recordings.into_iter().map(|recording| {
            let request = &recording.request;
            let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
            let wanted = Wanted::new(&request.method, path, query, request.whole_body().into());
            Known { request: wanted, recording }
        });
        Self { known: known.collect(), timing: replay.timing, fallback: replay.fallback, turns: Mutex::default() }
    }

    /// The response to play, or why no recording fits.
    pub(crate) fn answer(&self, asked: &Asked) -> Result<Answer, String> {
        let query = asked.query.as_deref().unwrap_or_default();
        let wanted = Wanted::new(asked.method.as_str(), &asked.path, query, asked.body.clone());
        let exact: Vec<usize> = (0..self.known.len()).filter(|nth| self.known[*nth].request.is(&wanted)).collect();
        if let Some(first) = exact.first() {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            let turn = turns.entry(*first).or_default();
            let recording = &self.known[exact[(*turn).min(exact.len() - 1)]].recording;
            *turn += 1;
            tracing::info!(recording = recording.name, "replayed exactly");
            return Ok(self.play(recording, recording.response.chunks.clone()));
        }
        let is_success =
            |known: &&Known| known.recording.response.code().is_some_and(|code| (200..300).contains(&code));
        let similar =
            self.known.iter().filter(is_success).filter(|known| wanted.differs_from(&known.request).is_none());
        let Some(known) = similar.min_by_key(|known| wanted.distance(&known.request)) else {
            return Err(self.why_not(&wanted));
        };
        tracing::info!(recording = known.recording.name, "replayed by shape");
        Ok(self.play(&known.recording, own_text(&known.recording, &wanted)))
    }

    /// Names the recording that comes nearest, and the first thing in which it differs.
    fn why_not(&self, wanted: &Wanted) -> String {
        let asked = format!("no recording fits {} {}", wanted.method, wanted.path);
        let agreeing = |known: &&Known| {
            let pairs = wanted.shape.iter().zip(&known.request.shape);
            pairs.filter(|(own, known)| own == known).count()
        };
        let on_route = |known: &&Known| (&known.request.method, &known.request.path) == (&wanted.method, &wanted.path);
        match self.known.iter().filter(on_route).rev().max_by_key(|known| (known.is_success(), agreeing(known))) {
            None => format!("{asked}: that route was not recorded"),
            Some(nearest) => {
                let name = &nearest.recording.name;
                match wanted.differs_from(&nearest.request) {
                    Some((part, recorded, own)) => {
                        format!("{asked}: the nearest is {name}, whose {part} is {recorded:?} instead of {own:?}")
                    }
                    None => format!("{asked}: the nearest is {name}, an error for exactly that request"),
                }
            }
        }
    }

    fn play(&self, recording: &Recording, chunks: Vec<(u64, String)>) -> Answer {
        let response = &recording.response;
        let status = response.code().and_then(|code| StatusCode::from_u16(code).ok()).unwrap_or(StatusCode::OK);
        let mut answer = Answer::empty(status);
        for (name, value) in &response.headers {
            let Ok(name) = HeaderName::try_from(&**name) else { continue };
            // A response without a body may name the length that it would have.
            let is_length = name == header::CONTENT_LENGTH && response.framing != "none";
            if !is_length && ![header::DATE, header::TRANSFER_ENCODING, header::CONNECTION].contains(&name) {
                answer = answer.with(name, value);
            }
        }
        if response.framing == "none" {
            return answer;
        }
        let length = chunks.iter().map(|(_, chunk)| chunk.len() as u64).sum();
        let length = (response.framing == "length").then_some(length);
        let timing = self.timing;
        let mut before = 0;
        let parts = stream::iter(chunks).then(move |(at, chunk)| {
            let pause = Duration::from_millis(if timing { at.saturating_sub(before) } else { 0 });
            before = at;
            async move {
                if !pause.is_zero() {
                    tokio::time::sleep(pause).await;
                }
                Part::Data(Bytes::from(chunk))
            }
        });
        answer.body = Body::Script { length, parts: parts.boxed() };
        answer
    }
}

/// The chunks of a recording for a request of the same shape: the model's name and the time are the request's, and what
/// the model wrote is the request's last text, in as many pieces. Text that a format or a list of log probabilities
/// belongs to stays as recorded.
fn own_text(recording: &Recording, wanted: &Wanted) -> Vec<(u64, String)> {
    let chunks = &recording.response.chunks;
    let mut lines: Vec<(u64, Value)> = Vec::new();
    for (at, chunk) in chunks {
        let Ok(line) = serde_json::from_str::<Value>(chunk) else { return chunks.clone() };
        lines.push((*at, line));
    }
    let json = wanted.json.as_ref();
    let model = json.and_then(model_of);
    let text = json.and_then(last_text).unwrap_or_default();
    let keeps = |line: &Value| !line["logprobs"].is_null();
    let has_format = json.is_some_and(|json| !json["format"].is_null());
    let pieces = lines.iter_mut().filter_map(|(_, line)| content(line)).count();
    let replaced = pieces > 0 && !text.is_empty() && !has_format && !lines.iter().any(|(_, line)| keeps(line));
    let mut texts = if replaced { split(text, pieces) } else { Vec::new() }.into_iter();
    let mut own = Vec::new();
    for (at, mut line) in lines {
        if let Some(content) = content(&mut line).filter(|_| replaced) {
            let Some(text) = texts.next() else { continue };
            *content = json!(text);
        }
        if let (Some(model), Some(named)) = (model, line.get_mut("model")) {
            *named = json!(model);
        }
        if let Some(time) = line.get_mut("created_at") {
            *time = json!(timestamps::now());
        }
        let newline = if recording.response.header("Content-Type").is_some_and(|value| value.contains("ndjson")) {
            "\n"
        } else {
            ""
        };
        own.push((at, go::encode(&line) + newline));
    }
    own
}

/// Where a line has text that the model wrote.
fn content(line: &mut Value) -> Option<&mut Value> {
    let path = if line.get("message").is_some() { "/message/content" } else { "/response" };
    line.pointer_mut(path).filter(|value| value.as_str().is_some_and(|text| !text.is_empty()))
}

/// The last user message, or the prompt.
fn last_text(json: &Value) -> Option<&str> {
    let messages = json["messages"].as_array();
    let last = messages.and_then(|messages| messages.iter().rev().find(|message| message["role"] == "user"));
    last.map_or(&json["prompt"], |message| &message["content"]).as_str()
}

/// At most `pieces` pieces of about the same number of words; fewer if there are fewer words.
fn split(text: &str, pieces: usize) -> Vec<String> {
    let words: Vec<&str> = text.split_inclusive(' ').collect();
    let pieces = pieces.min(words.len()).max(1);
    let at = |nth: usize| nth * words.len() / pieces;
    (0..pieces).map(|nth| words[at(nth)..at(nth + 1)].concat()).collect()
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method};

    use super::*;
    use crate::recording::tests::posted;

    fn asked(path: &str, body: &Value) -> Asked {
        Asked {
            method: Method::POST,
            path: path.to_owned(),
            route: path.to_owned(),
            query: None,
            headers: HeaderMap::new(),
            body: body.to_string().into(),
            sha256: None,
            fault: None,
        }
    }

    fn replaying(recordings: Vec<Recording>) -> Replaying {
        Replaying::new(Replay::of(recordings, None).unwrap())
    }

    async fn body(answer: Answer) -> Vec<String> {
        let Body::Script { parts, .. } = answer.body else { return Vec::new() };
        let texts = parts.map(|part| match part {
            Part::Data(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
            other => format!("{other:?}"),
        });
        texts.collect().await
    }

    fn line(content: &str) -> String {
        format!("{{\"model\":\"m\",\"created_at\":\"2026-01-01T00:00:00Z\",\"message\":{{\"content\":{content:?}}}}}\n")
    }

    fn chat(text: &str) -> Value {
        json!({"model": "m", "messages": [{"role": "user", "content": text}]})
    }

    #[tokio::test]
    async fn the_recorded_request_gets_the_recorded_bytes_in_turn() {
        let (one, two) = (line("one"), line("two"));
        let of = |text: &str| posted("/api/chat", &chat("Hi").to_string(), "chunked", &[text]);
        let replaying = replaying(vec![of(&one), of(&two)]);
        // The same JSON, written in another way.
        let request = json!({"messages": [{"content": "Hi", "role": "user"}], "model": "m"});
        for expected in [&one, &two, &two] {
            assert_eq!(body(replaying.answer(&asked("/api/chat", &request)).unwrap()).await, [expected.as_str()]);
        }
    }

    #[tokio::test]
    async fn a_request_of_the_same_shape_gets_its_own_text_in_as_many_pieces() {
        let lines = [line("a"), line("b"), line("c"), line("")];
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let replaying = replaying(vec![posted("/api/chat", &chat("Hi").to_string(), "chunked", &lines)]);
        let said = async |text: &str| {
            let chunks = body(replaying.answer(&asked("/api/chat", &chat(text))).unwrap()).await;
            let parse = |chunk: &String| -> Value { serde_json::from_str(chunk).unwrap() };
            let contents = chunks.iter().map(|chunk| parse(chunk)["message"]["content"].as_str().unwrap().to_owned());
            contents.collect::<Vec<_>>()
        };
        assert_eq!(said("this is my own text").await, ["this ", "is my ", "own text", ""]);
        assert_eq!(said("short").await, ["short", ""]);
    }

    #[tokio::test]
    async fn another_shape_is_refused_with_the_difference() {
        let replaying = replaying(vec![posted("/api/chat", &chat("Hi").to_string(), "chunked", &[&line("a")])]);
        let why = |path: &str, body: &Value| replaying.answer(&asked(path, body)).unwrap_err();
        let mut request = chat("Hi");
        request["stream"] = json!(false);
        let nearest = "no recording fits POST /api/chat: the nearest is chat/one, whose";
        assert_eq!(why("/api/chat", &request), format!("{nearest} stream is \"true\" instead of \"false\""));
        request["model"] = json!("other");
        let model = "model is \"m:latest\" instead of \"other:latest\"";
        assert_eq!(why("/api/chat", &request), format!("{nearest} {model}"));
        let text = why("/api/embed", &json!({"model": "m"}));
        assert_eq!(text, "no recording fits POST /api/embed: that route was not recorded");
    }

    #[tokio::test]
    async fn an_error_is_for_its_own_request_alone() {
        let mut recording = posted("/api/chat", &chat("Hi").to_string(), "length", &["{\"error\":\"no\"}"]);
        recording.response.status = "HTTP/1.1 400 Bad Request".to_owned();
        let replaying = replaying(vec![recording]);
        let answer = replaying.answer(&asked("/api/chat", &chat("Hi"))).unwrap();
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
        assert!(replaying.answer(&asked("/api/chat", &chat("Ho"))).is_err());
    }

    #[test]
    fn recordings_of_several_versions_need_a_choice() {
        let (one, mut two) = (posted("/a", "", "length", &[]), posted("/a", "", "length", &[]));
        two.ollama = "0.13.5".to_owned();
        let of = |version: Option<&str>| {
            let version = version.map(|version| version.parse().unwrap());
            Replay::of(vec![one.clone(), two.clone()], version.as_ref())
        };
        let text = of(None).unwrap_err().to_string();
        assert!(text.starts_with("recordings of several versions (0.13.5, 0.33.0)"), "{text}");
        assert_eq!(of(Some("0.13.5")).unwrap().len(), 1);
        let text = of(Some("0.1.0")).unwrap_err().to_string();
        assert_eq!(text, "no recording of version 0.1.0; there are recordings of 0.13.5, 0.33.0");
    }
}
