//! A script while it is played: which rule applies, and its answer on the wire. No lock is held while answering.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde_json::Value;

use super::{Content, Reply, Script, Then, Wait, when::model_of};
use crate::{
    Seen, go,
    server::{
        answer::{Answer, Body, Part, Parts},
        request::Asked,
    },
};

/// A script and how often its rules have matched.
#[derive(Debug)]
pub(crate) struct Playing {
    script: Script,
    pub(crate) seen: Seen,
    counts: Mutex<Vec<Counts>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    matched: u64,
    applied: u64,
}

impl Playing {
    pub(crate) fn new(script: Script, seen: Seen) -> Self {
        let counts = Mutex::new(vec![Counts::default(); script.rules.len()]);
        Self { script, seen, counts }
    }

    /// The first rule that is for this request.
    pub(crate) fn choose(&self, asked: &Asked) -> Option<&Reply> {
        if self.script.rules.is_empty() {
            return None;
        }
        let json: Option<Value> = serde_json::from_slice(&asked.body).ok();
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        for (rule, counts) in self.script.rules.iter().zip(counts.iter_mut()) {
            if !rule.when.is_met(asked, json.as_ref()) {
                continue;
            }
            counts.matched += 1;
            let is_turn = rule.when.nth.is_none_or(|nth| nth == counts.matched);
            if is_turn && rule.times.is_none_or(|times| counts.applied < times) {
                counts.applied += 1;
                return Some(&rule.reply);
            }
        }
        None
    }

    /// Whether a rule might be for this request, as far as its head shows.
    pub(crate) fn may_be_for(&self, unread: &Asked) -> bool {
        self.script.rules.iter().any(|rule| rule.when.may_be_met(unread))
    }
}

impl Reply {
    /// The model's words in a faithful answer; none where the answer is not faithful.
    pub(crate) fn faithful_words(&self) -> Option<Option<&str>> {
        match &self.content {
            Content::Faithful => Some(None),
            Content::Says(words) => Some(Some(words)),
            _ => None,
        }
    }

    /// Whether it kills the runner.
    pub(crate) fn kills(&self) -> bool {
        self.then == Then::Kill
    }

    /// The scripted answer; `faithful` is the mock's own where [`Reply::faithful_words`] asks for it.
    pub(crate) fn answer(&self, asked: &Asked, seen: &Seen, faithful: Answer) -> Answer {
        let ok = |media_type| Answer::empty(StatusCode::OK).with(header::CONTENT_TYPE, media_type);
        let mut answer = match &self.content {
            Content::Faithful | Content::Says(_) => self.faithful(faithful, seen),
            Content::Lines(lines) => {
                let json: Option<Value> = serde_json::from_slice(&asked.body).ok();
                let model = json.as_ref().and_then(model_of).unwrap_or_default().to_owned();
                let path = asked.path.clone();
                // Completed when they are sent: each has its own time.
                let lines = lines.clone().into_iter().map(move |line| Bytes::from(line.complete(&path, &model)));
                self.play(ok("application/x-ndjson"), None, stream::iter(lines), seen)
            }
            Content::Body(body) => {
                let (media_type, text) = match body {
                    Value::String(text) => ("text/plain; charset=utf-8", text.clone()),
                    json => ("application/json; charset=utf-8", go::encode(json)),
                };
                let length = text.len() as u64;
                self.play(ok(media_type), Some(length), stream::iter([Bytes::from(text)]), seen)
            }
            Content::Bytes(bytes) => self.play(ok("application/octet-stream"), Some(*bytes), plenty(*bytes), seen),
            Content::Nothing if self.then == Then::End => Answer::empty(StatusCode::OK),
            Content::Nothing => self.play(Answer::empty(StatusCode::OK), None, stream::empty(), seen),
        };
        if let Some(status) = self.status.and_then(|status| StatusCode::from_u16(status).ok()) {
            answer.status = status;
        }
        for (name, value) in &self.headers {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                answer.headers.retain(|(known, _)| *known != name);
                answer.headers.push((name, value));
            }
        }
        answer
    }

    /// Ollama's answer with what the rest of the reply does to it.
    fn faithful(&self, mut answer: Answer, seen: &Seen) -> Answer {
        // What comes after the kill is in the answer already.
        if self.pause.is_none() && (self.kills() || (self.then == Then::End && self.after.is_none())) {
            return answer;
        }
        let head = Answer { status: answer.status, headers: std::mem::take(&mut answer.headers), body: Body::Empty };
        let length = match &answer.body {
            Body::Whole(bytes) if self.after.is_none() || self.kills() => Some(bytes.len() as u64),
            _ => None,
        };
        let after = self.after.filter(|_| !self.kills());
        let lines = after.and_then(|after| usize::try_from(after).ok()).unwrap_or(usize::MAX);
        self.play(head, length, answer.pieces().take(lines), seen)
    }

    fn play(
        &self,
        mut answer: Answer,
        length: Option<u64>,
        pieces: impl Stream<Item = Bytes> + Send + 'static,
        seen: &Seen,
    ) -> Answer {
        answer.body = Body::Script { length, parts: parts(pieces, self.pause, self.then, seen.clone()) };
        answer
    }
}

/// An answer whose runner was killed: so many of its lines, and what Ollama says then.
pub(crate) fn killed(answer: Answer, after: u64, error: &str, asked: &Asked, has_llama_server: bool) -> Answer {
    let internal = StatusCode::INTERNAL_SERVER_ERROR;
    let text = format!("an error was encountered while running the model: {error}");
    if answer.status != StatusCode::OK {
        return answer;
    }
    match (asked.path.as_str(), &answer.body) {
        ("/api/chat" | "/api/generate", Body::Lines(_)) if after == 0 => Answer::stream_error(internal, &text),
        ("/api/chat" | "/api/generate", Body::Lines(_)) => {
            let headers = answer.headers.clone();
            let error = Bytes::from(go::encode(&serde_json::json!({"error": text})) + "\n");
            let lines = answer.pieces().take(usize::try_from(after).unwrap_or(usize::MAX)).chain(stream::iter([error]));
            Answer { status: StatusCode::OK, headers, body: Body::Stream(lines.boxed()) }
        }
        ("/api/chat" | "/api/generate", _) => Answer::error(internal, &text),
        // The runner is asked for the tokens first (recorded: mid-failure/embed, port replaced).
        ("/api/embed" | "/api/embeddings", _) if has_llama_server => {
            Answer::error(StatusCode::BAD_REQUEST, "Post \"http://127.0.0.1:40000/tokenize\": EOF")
        }
        ("/api/embed" | "/api/embeddings", _) => Answer::error(internal, "do embedding request: EOF"),
        _ => answer,
    }
}

/// The pieces with their pauses, and what comes then.
fn parts(pieces: impl Stream<Item = Bytes> + Send + 'static, pause: Wait, then: Then, seen: Seen) -> Parts {
    let parts = match then {
        // A kill is reported by the last piece; see `killed`.
        Then::End | Then::Kill => pieces.map(Part::Data).boxed(),
        Then::Cut => cut_last(pieces).boxed(),
        Then::Reset => pieces.map(Part::Data).chain(stream::iter([Part::Reset])).boxed(),
        Then::Stall => pieces.map(Part::Data).chain(stream::pending()).boxed(),
    };
    if pause.is_none() {
        return parts;
    }
    let pausing = stream::unfold((parts, seen, None), move |(mut parts, seen, before)| async move {
        if let Some(before) = before {
            pause.pass(&seen, before).await;
        }
        // Counted before the part is sent: what is seen from now on may be of it.
        let now = seen.times();
        Some((parts.next().await?, (parts, seen, Some(now))))
    });
    pausing.boxed()
}

/// The last piece is only known as such once the next one is not there. Without any, the head alone is sent.
fn cut_last(pieces: impl Stream<Item = Bytes> + Send + 'static) -> impl Stream<Item = Part> + Send + 'static {
    stream::unfold((Box::pin(pieces.peekable()), 0_u64), |(mut pieces, nth)| async move {
        let Some(piece) = pieces.next().await else {
            return (nth == 0).then(|| (Part::Cut(Bytes::new()), (pieces, 1)));
        };
        let is_last = pieces.as_mut().peek().await.is_none();
        Some((if is_last { Part::Cut(piece) } else { Part::Data(piece) }, (pieces, nth + 1)))
    })
}

/// So many bytes, in pieces.
fn plenty(bytes: u64) -> impl Stream<Item = Bytes> + Send + 'static {
    const PIECE: u64 = 64 << 10;
    let piece = Bytes::from(vec![b'x'; PIECE as usize]);
    stream::iter(0..bytes.div_ceil(PIECE)).map(move |nth| {
        let left = bytes - nth * PIECE;
        piece.slice(..usize::try_from(left.min(PIECE)).unwrap_or(0))
    })
}
