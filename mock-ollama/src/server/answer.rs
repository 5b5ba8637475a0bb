//! An answer before it is HTTP: a status, the headers that a handler set, and a body whose framing follows Go's rules.

use std::{fmt, pin::Pin};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use crate::go;

/// An answer before it is HTTP.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    /// As a handler set them; they are sorted when they are sent.
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) body: Body,
}

/// The body of an [`Answer`].
pub(crate) enum Body {
    Empty,
    /// One piece: `Content-Length` if Go would buffer it, else one chunk.
    Whole(Bytes),
    /// One piece in one chunk, however short.
    OneChunk(Bytes),
    /// One chunk for each line.
    Lines(Lines),
    /// One chunk for each line, made over time.
    Stream(Pieces),
    /// An answer that takes time to be made.
    Pending(Pin<Box<dyn Future<Output = Answer> + Send>>),
    /// What a script plays.
    Script {
        length: Option<u64>,
        parts: Parts,
    },
}

/// Lines that are made when they are asked for: who leaves, ends the work.
pub(crate) type Lines = Box<dyn Iterator<Item = Bytes> + Send>;

/// Pieces of a body, each a chunk of its own.
pub(crate) type Pieces = Pin<Box<dyn Stream<Item = Bytes> + Send>>;

/// What a script does on the wire, in this order.
pub(crate) type Parts = Pin<Box<dyn Stream<Item = Part> + Send>>;

/// One thing that a script does on the wire.
#[derive(Debug)]
pub(crate) enum Part {
    Data(Bytes),
    /// The bytes are announced, half of them are sent, and the connection is closed.
    Cut(Bytes),
    Reset,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").field("status", &self.status).field("headers", &self.headers).finish_non_exhaustive()
    }
}

impl Answer {
    /// A status and nothing else.
    pub(crate) fn empty(status: StatusCode) -> Self {
        Self { status, headers: Vec::new(), body: Body::Empty }
    }

    /// JSON as gin writes it.
    pub(crate) fn json(status: StatusCode, value: &Value) -> Self {
        Self::json_text(status, go::encode(value))
    }

    /// JSON that is a text already.
    pub(crate) fn json_text(status: StatusCode, json: String) -> Self {
        Self::empty(status).with(header::CONTENT_TYPE, "application/json; charset=utf-8").body(Body::Whole(json.into()))
    }

    /// `{"error": …}` as gin writes it.
    pub(crate) fn error(status: StatusCode, text: &str) -> Self {
        Self::json(status, &json!({"error": text}))
    }

    /// An error that was found while a stream was being made, before its first line.
    pub(crate) fn stream_error(status: StatusCode, text: &str) -> Self {
        let body = Body::OneChunk(go::encode(&json!({"error": text})).into());
        Self::empty(status).with(header::CONTENT_TYPE, "application/json").body(body)
    }

    /// A stream of JSON lines.
    pub(crate) fn lines(lines: impl Iterator<Item = Value> + Send + 'static) -> Self {
        let lines = lines.map(|value| Bytes::from(go::encode(&value) + "\n"));
        Self::empty(StatusCode::OK)
            .with(header::CONTENT_TYPE, "application/x-ndjson")
            .body(Body::Lines(Box::new(lines)))
    }

    /// Text with a media type.
    pub(crate) fn text(status: StatusCode, media_type: &'static str, text: impl Into<Bytes>) -> Self {
        Self::empty(status).with(header::CONTENT_TYPE, media_type).body(Body::Whole(text.into()))
    }

    /// Adds a header; a value that HTTP cannot carry is left out.
    pub(crate) fn with(mut self, name: HeaderName, value: impl AsRef<str>) -> Self {
        if let Ok(value) = HeaderValue::from_str(value.as_ref()) {
            self.headers.push((name, value));
        }
        self
    }

    fn body(mut self, body: Body) -> Self {
        self.body = body;
        self
    }

    /// The body as a script sees it: the pieces in their order.
    pub(crate) fn pieces(self) -> Pieces {
        match self.body {
            Body::Empty | Body::Pending(_) | Body::Script { .. } => stream::empty().boxed(),
            Body::Stream(pieces) => pieces,
            Body::Whole(bytes) | Body::OneChunk(bytes) => stream::iter([bytes]).boxed(),
            Body::Lines(lines) => stream::iter(lines).boxed(),
        }
    }

    /// Waits for an answer that is still being made.
    pub(crate) async fn settled(mut self) -> Self {
        while let Body::Pending(answer) = self.body {
            self = answer.await;
        }
        self
    }
}
