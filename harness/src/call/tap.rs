//! What crosses the wire during one call: the request, the answer's head, every piece of its body with its time of
//! arrival, and its end.
//!
//! A client that tries again makes several exchanges of one call: the last is kept, and how many there were.
//!
//! The tap sits below every client. It reads the body to its end by itself, so that what a client leaves unread
//! (bytes after `[DONE]`) is seen too. It judges nothing.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use async_openai::{error::OpenAIError, middleware::HttpRequestFactory};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use mock_ollama::Seen;
use tokio::sync::{mpsc, watch};

use crate::{net, text::chain};

/// How a recorded answer ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum End {
    /// It had not ended when the time was up.
    #[default]
    Open,
    /// With its proper end.
    Complete,
    /// In the middle: the transport's words.
    Cut(String),
    /// The client disconnected, as the step says.
    Left,
    /// There was no answer at all: the transport's words.
    NoAnswer(String),
}

/// A piece of the answer's body.
#[derive(Clone, Debug)]
pub struct Piece {
    /// When it came, counted from the request.
    pub after: Duration,
    /// Its bytes.
    pub bytes: Bytes,
}

/// One exchange as it crossed the wire.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    /// When the request began.
    pub began: Option<Instant>,
    /// The request's method.
    pub method: String,
    /// The request's URL.
    pub url: String,
    /// The request's headers, as the client set them.
    pub request_headers: Vec<(String, String)>,
    /// The request's body.
    pub request_body: Bytes,
    /// The answer's status, if one came.
    pub status: Option<u16>,
    /// The answer's headers.
    pub headers: Vec<(String, String)>,
    /// When the head came, counted from the request.
    pub head_after: Duration,
    /// The answer's body as it arrived.
    pub pieces: Vec<Piece>,
    /// How it ended.
    pub end: End,
    /// From the request to the end.
    pub took: Duration,
}

impl Recording {
    /// The answer's body.
    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        self.pieces.iter().flat_map(|piece| piece.bytes.iter().copied()).collect()
    }

    /// The answer's header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| &**value)
    }

    /// The answer's content type without parameters.
    #[must_use]
    pub fn media_type(&self) -> &str {
        self.header("content-type").and_then(|value| value.split(';').next()).unwrap_or_default().trim()
    }
}

/// Records one call. Cheap to clone; clones share the recording.
#[derive(Clone, Debug)]
pub struct Tap {
    http: reqwest::Client,
    /// The client leaves after so many lines or events.
    leave_after: Option<usize>,
    /// Called with each piece.
    seen: Option<Seen>,
    /// The key is elsewhere or nowhere, so the client's Bearer token is taken off.
    without_bearer: bool,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Of the last attempt.
    recording: Mutex<Recording>,
    /// How many there were.
    attempts: AtomicUsize,
    /// Whether the last one has ended.
    ended: watch::Sender<bool>,
    reader: Mutex<Option<tokio::task::JoinHandle<()>>>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        // A caller that is gone must not leave a response running.
        if let Some(reader) = self.reader.get_mut().unwrap_or_else(PoisonError::into_inner) {
            reader.abort();
        }
    }
}

impl Tap {
    /// A tap for one call that goes out through `http`; `seen` is called with each piece.
    #[must_use]
    pub fn new(http: reqwest::Client, leave_after: Option<usize>, seen: Option<Seen>) -> Self {
        let shared = Shared {
            recording: Mutex::default(),
            attempts: AtomicUsize::new(0),
            ended: watch::Sender::new(false),
            reader: Mutex::new(None),
        };
        Self { http, leave_after, seen, without_bearer: false, shared: Arc::new(shared) }
    }

    /// Takes the Bearer token off every request.
    #[must_use]
    pub fn without_bearer(self) -> Self {
        Self { without_bearer: true, ..self }
    }

    /// Sends a request and hands its answer on, recording both.
    ///
    /// # Errors
    /// As the transport has them.
    pub async fn send(&self, request: reqwest::Request) -> reqwest::Result<reqwest::Response> {
        let (http, url) = (&self.http, request.url().to_string());
        self.send_by(request, url, |request| http.execute(request), net::why).await
    }

    /// As [`Self::send`], by another transport, to `url`; `words` formats its errors.
    ///
    /// # Errors
    /// As the transport has them.
    pub async fn send_by<F: Future<Output = Result<reqwest::Response, E>>, E>(
        &self,
        mut request: reqwest::Request,
        url: String,
        execute: impl FnOnce(reqwest::Request) -> F,
        words: impl FnOnce(&E) -> String,
    ) -> Result<reqwest::Response, E> {
        let start = Instant::now();
        if self.without_bearer {
            request.headers_mut().remove(http::header::AUTHORIZATION);
        }
        let attempt = self.begin();
        self.note(|recording| {
            recording.began = Some(start);
            recording.method = request.method().to_string();
            recording.url = url;
            recording.request_headers = pairs(request.headers());
            let body = request.body().and_then(reqwest::Body::as_bytes);
            recording.request_body = body.map(Bytes::copy_from_slice).unwrap_or_default();
        });
        let response = match execute(request).await {
            Ok(response) => response,
            Err(error) => {
                self.shared.end(attempt, start, End::NoAnswer(words(&error)));
                return Err(error);
            }
        };
        self.note(|recording| {
            recording.status = Some(response.status().as_u16());
            recording.headers = pairs(response.headers());
            recording.head_after = start.elapsed();
        });
        let mut head = http::Response::new(());
        *head.status_mut() = response.status();
        *head.version_mut() = response.version();
        *head.headers_mut() = response.headers().clone();
        let (forward, received) = mpsc::unbounded_channel();
        let (shared, seen) = (Arc::downgrade(&self.shared), self.seen.clone());
        let tap = Weak { shared, leave_after: self.leave_after, seen };
        let reader = tokio::spawn(async move { tap.read(attempt, start, response, forward).await });
        *self.shared.reader.lock().unwrap_or_else(PoisonError::into_inner) = Some(reader);
        let body = stream::unfold(received, |mut received| async move { Some((received.recv().await?, received)) });
        Ok(head.map(|()| reqwest::Body::wrap_stream(body)).into())
    }

    /// Begins one more attempt with an empty recording, and gives its number.
    fn begin(&self) -> usize {
        if let Some(reader) = self.shared.reader.lock().unwrap_or_else(PoisonError::into_inner).take() {
            reader.abort();
        }
        self.note(|recording| *recording = Recording::default());
        self.shared.ended.send_replace(false);
        self.shared.attempts.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// How often a request was sent.
    #[must_use]
    pub fn attempts(&self) -> usize {
        self.shared.attempts.load(Ordering::SeqCst)
    }

    /// Waits until the answer has ended.
    pub async fn ended(&self) {
        // The sender lives in `self`, so waiting cannot fail.
        let _ = self.shared.ended.subscribe().wait_for(|ended| *ended).await;
    }

    /// What has been recorded so far.
    #[must_use]
    pub fn recording(&self) -> Recording {
        self.shared.recording.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, write: impl FnOnce(&mut Recording)) {
        self.shared.note(write);
    }
}

impl Shared {
    fn note(&self, write: impl FnOnce(&mut Recording)) {
        write(&mut self.recording.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn end(&self, attempt: usize, start: Instant, end: End) {
        if attempt != self.attempts.load(Ordering::SeqCst) {
            return;
        }
        self.note(|recording| {
            recording.took = start.elapsed();
            recording.end = end;
        });
        self.ended.send_replace(true);
    }
}

/// The reading half; it does not keep the recording alive.
struct Weak {
    shared: std::sync::Weak<Shared>,
    leave_after: Option<usize>,
    seen: Option<Seen>,
}

impl Weak {
    async fn read(
        self,
        attempt: usize,
        start: Instant,
        response: reqwest::Response,
        forward: mpsc::UnboundedSender<reqwest::Result<Bytes>>,
    ) {
        let mut body = response.bytes_stream();
        let end = loop {
            let next = body.next().await;
            let Some(shared) = self.shared.upgrade() else { return };
            match next {
                None => break End::Complete,
                Some(Ok(bytes)) => {
                    let piece = Piece { after: start.elapsed(), bytes: bytes.clone() };
                    shared.note(|recording| recording.pieces.push(piece));
                    if let Some(seen) = &self.seen {
                        seen.more();
                    }
                    // The client may have stopped listening; the tap reads on.
                    let _ = forward.send(Ok(bytes));
                    if self.leave_after.is_some_and(|enough| shared.has(enough)) {
                        break End::Left;
                    }
                }
                Some(Err(error)) => {
                    let words = chain(&error);
                    let _ = forward.send(Err(error));
                    break End::Cut(words);
                }
            }
        };
        // Leaving means that the connection is gone before any test learns of it.
        drop(body);
        if let Some(shared) = self.shared.upgrade() {
            shared.end(attempt, start, end);
        }
    }
}

impl Shared {
    /// Whether so many lines (or events, where there are events) have come.
    fn has(&self, enough: usize) -> bool {
        let recording = self.recording.lock().unwrap_or_else(PoisonError::into_inner);
        let body = recording.body();
        let mark: &[u8] = if recording.media_type() == "text/event-stream" { b"\n\n" } else { b"\n" };
        body.windows(mark.len()).filter(|window| *window == mark).count() >= enough
    }
}

/// The seam under the OpenAI client: one attempt.
impl tower::Service<HttpRequestFactory> for Tap {
    type Response = reqwest::Response;
    type Error = OpenAIError;
    type Future = Pin<Box<dyn Future<Output = Result<reqwest::Response, OpenAIError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), OpenAIError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, factory: HttpRequestFactory) -> Self::Future {
        let tap = self.clone();
        Box::pin(async move { Ok(tap.send(factory.build().await?).await?) })
    }
}

fn pairs(headers: &http::HeaderMap) -> Vec<(String, String)> {
    headers
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect()
}
