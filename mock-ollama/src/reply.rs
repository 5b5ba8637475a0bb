//! An answer before it becomes HTTP: status, the handler's headers, and a body in Ollama's framing.
//!
//! Framing, content types and their exceptions: `ollama-wire` A0, recorded.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::{go, script::Then};

/// What a handler answers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// Names as Ollama spells them.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Body,
    /// How long the head waits.
    pub(crate) delay: Duration,
    pub(crate) then: Then,
}

/// A body.
#[derive(Clone, Debug, Default)]
pub(crate) enum Body {
    /// None at all; `Content-Length: 0` unless the status forbids one.
    #[default]
    Empty,
    /// One piece. Go chunks what is longer than its buffer (2,048 bytes), as one chunk.
    Whole(Bytes),
    /// One piece, chunked whatever its length.
    Chunk(Bytes),
    /// One HTTP chunk each, with a pause before.
    Lines(Vec<(Duration, Bytes)>),
}

/// Content types as Ollama writes them.
pub(crate) const JSON: &str = "application/json; charset=utf-8";
pub(crate) const BARE_JSON: &str = "application/json";
pub(crate) const NDJSON: &str = "application/x-ndjson";
pub(crate) const TEXT: &str = "text/plain; charset=utf-8";

impl Reply {
    pub(crate) fn empty(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    pub(crate) fn text(status: u16, content_type: &str, text: impl Into<Bytes>) -> Self {
        Self { status, body: Body::Whole(text.into()), ..Self::default() }.header("Content-Type", content_type)
    }

    /// A JSON answer of a handler.
    pub(crate) fn json(body: &Value) -> Self {
        Self::text(200, JSON, go::encode(body))
    }

    /// A refusal by the handler.
    pub(crate) fn error(status: u16, text: impl AsRef<str>) -> Self {
        Self::text(status, JSON, go::encode(&json!({"error": text.as_ref()})))
    }

    /// A refusal found while a stream was about to begin: its status is true, its framing a stream's.
    pub(crate) fn late_error(status: u16, text: impl AsRef<str>) -> Self {
        let body = Body::Chunk(go::encode(&json!({"error": text.as_ref()})).into());
        Self { status, body, ..Self::default() }.header("Content-Type", BARE_JSON)
    }

    /// A stream of lines.
    pub(crate) fn lines(lines: impl IntoIterator<Item = String>) -> Self {
        let lines = lines.into_iter().map(|line| (Duration::ZERO, Bytes::from(format!("{line}\n")))).collect();
        Self { status: 200, body: Body::Lines(lines), ..Self::default() }.header("Content-Type", NDJSON)
    }

    /// Sets a header.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// A refusal on its way out of a handler.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) text: String,
    /// Found while generating, not by the handler.
    pub(crate) late: bool,
}

impl Refusal {
    pub(crate) fn new(status: u16, text: impl Into<String>) -> Self {
        Self { status, text: text.into(), late: false }
    }

    pub(crate) fn late(status: u16, text: impl Into<String>) -> Self {
        Self { status, text: text.into(), late: true }
    }

    /// As an answer to a request that wanted a stream, or not.
    pub(crate) fn reply(&self, stream: bool) -> Reply {
        if self.late && stream { Reply::late_error(self.status, &self.text) } else { Reply::error(self.status, &self.text) }
    }
}
