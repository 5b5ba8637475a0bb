//! The inspector: headers and bodies of the last exchanges, while an operator has it switched on. Bounded in count,
//! bytes and time; keys are masked before anything is kept.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use serde::Serialize;

use super::Exchange;
use crate::{gate, redact::masked, stamp::unix_ms};

/// Maximum size of one body that is kept; the rest of it is only counted.
const BODY: usize = 256 << 10;

/// Maximum number of requests to Ollama that are kept of one exchange.
const ASKS: usize = 8;

/// A body, as far as it is kept.
#[derive(Debug, Default)]
struct Kept {
    bytes: Vec<u8>,
    total: u64,
}

impl Kept {
    fn push(&mut self, bytes: &[u8]) {
        self.total += bytes.len() as u64;
        let room = BODY.saturating_sub(self.bytes.len());
        self.bytes.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn text(&self, secrets: &[HeaderValue]) -> Text {
        Text {
            text: masked(&String::from_utf8_lossy(&self.bytes), secrets).into_owned(),
            bytes: self.total,
            cut: self.total > self.bytes.len() as u64,
        }
    }
}

/// What an exchange has shown so far.
#[derive(Debug, Default)]
struct Raw {
    request: Kept,
    asks: Vec<Asked>,
    /// Whether several requests to Ollama ran at the same time, whose replies come in turns.
    parallel: bool,
    reply: Kept,
    response_headers: Vec<(String, String)>,
    response: Kept,
}

/// One request to Ollama.
#[derive(Debug, Default)]
struct Asked {
    path: String,
    body: Kept,
    /// Status and text of a refusal.
    refused: Option<(u16, String)>,
    reply: Kept,
}

/// The capture of one exchange. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Capture(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    path: String,
    headers: Vec<(String, String)>,
    raw: Mutex<Raw>,
}

impl Capture {
    fn raw(&self) -> MutexGuard<'_, Raw> {
        self.0.raw.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request to Ollama: its path and its body.
    pub(crate) fn asked(&self, path: &str, body: &[u8]) {
        let mut raw = self.raw();
        if raw.asks.len() < ASKS {
            let mut asked = Asked { path: path.to_owned(), ..Asked::default() };
            asked.body.push(body);
            raw.asks.push(asked);
        }
    }

    /// Ollama has refused the last request.
    pub(crate) fn refused(&self, status: StatusCode, message: &str) {
        if let Some(last) = self.raw().asks.last_mut() {
            last.refused = Some((status.as_u16(), message.to_owned()));
        }
    }

    /// Several requests to Ollama run at the same time.
    pub(crate) fn is_parallel(&self) {
        self.raw().parallel = true;
    }

    /// A part of Ollama's reply.
    pub(crate) fn replied(&self, packet: &[u8]) {
        let mut raw = self.raw();
        raw.reply.push(packet);
        if let Some(last) = raw.asks.last_mut() {
            last.reply.push(packet);
        }
    }

    /// The head of the response.
    pub(crate) fn head(&self, headers: &HeaderMap) {
        self.raw().response_headers = shown_headers(headers, &[]);
    }
}

/// A body for a person: masked text, how long the whole was, and whether it is cut.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Text {
    pub(crate) text: String,
    pub(crate) bytes: u64,
    pub(crate) cut: bool,
}

/// A request to Ollama.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Ask {
    pub(crate) path: String,
    pub(crate) body: Text,
    /// Status and text, if Ollama refused it.
    #[serde(skip)]
    pub(crate) refused: Option<(u16, String)>,
    /// What it replied to this one; absent where several ran at the same time.
    #[serde(skip)]
    pub(crate) reply: Option<Text>,
}

/// An exchange that has ended, as the inspector shows it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Inspected {
    pub(crate) key: u64,
    pub(crate) id: String,
    pub(crate) method: String,
    /// With its query.
    pub(crate) path: String,
    pub(crate) endpoint: &'static str,
    pub(crate) model: Option<String>,
    pub(crate) status: Option<u16>,
    pub(crate) ending: &'static str,
    pub(crate) ended_ms: u64,
    pub(crate) request_headers: Vec<(String, String)>,
    pub(crate) request: Text,
    /// What Ollama was asked. Empty on the native lane, where that is the request itself.
    pub(crate) asks: Vec<Ask>,
    /// What Ollama replied. On the native lane that is the response itself.
    pub(crate) reply: Text,
    pub(crate) response_headers: Vec<(String, String)>,
    pub(crate) response: Text,
    pub(crate) receipt: Option<String>,
    pub(crate) error: Option<String>,
}

impl Inspected {
    fn size(&self) -> usize {
        let asks = self.asks.iter().flat_map(|ask| [Some(&ask.body), ask.reply.as_ref()]).flatten();
        let texts = [&self.request, &self.reply, &self.response].into_iter().chain(asks);
        texts.map(|text| text.text.len() + 256).sum()
    }
}

/// The last captures.
#[derive(Debug, Default)]
pub(crate) struct Inspector {
    /// Unix milliseconds until which it is on.
    until: AtomicU64,
    store: Mutex<Store>,
}

#[derive(Debug, Default)]
struct Store {
    most: usize,
    most_bytes: usize,
    bytes: usize,
    kept: VecDeque<Inspected>,
}

impl Inspector {
    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Switches it on for `time`, for the last `most` exchanges of `most_bytes` in all; zero switches it off. What is
    /// kept stays.
    pub(crate) fn switch(&self, time: Duration, most: usize, most_bytes: usize) {
        let mut store = self.store();
        (store.most, store.most_bytes) = (most, most_bytes);
        let time = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.until.store(if time == 0 { 0 } else { unix_ms().saturating_add(time) }, Ordering::Relaxed);
    }

    /// Whether it has been on since the start.
    pub(super) fn was_on(&self) -> bool {
        self.store().most > 0
    }

    /// Unix milliseconds until which it is on; None: it is off.
    pub(crate) fn until(&self) -> Option<u64> {
        // Most of the time it is off, and the clock is not read.
        match self.until.load(Ordering::Relaxed) {
            0 => None,
            until => (unix_ms() < until).then_some(until),
        }
    }

    /// Captures `request` from now on, if the inspector is on.
    pub(crate) fn capture(&self, request: &mut Request<Body>, key_header: &HeaderName) -> Option<Capture> {
        self.until()?;
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let keys: Vec<&HeaderName> = gate::key_headers(key_header).collect();
        let headers = shown_headers(request.headers(), &keys);
        let capture = Capture(Arc::new(Shared { path, headers, raw: Mutex::default() }));
        let tee = capture.clone();
        let body = std::mem::take(request.body_mut());
        *request.body_mut() = Body::new(Tee { body, capture: tee, side: |raw| &mut raw.request });
        Some(capture)
    }

    /// Keeps the capture of an exchange that has ended.
    pub(super) fn finish(&self, exchange: &Exchange<'_>) {
        let Some(capture) = exchange.capture else { return };
        let raw = capture.raw();
        let secrets = exchange.secrets;
        let inspected = Inspected {
            key: exchange.key,
            id: masked(exchange.id, secrets).into_owned(),
            method: exchange.method.to_string(),
            path: masked(&capture.0.path, secrets).into_owned(),
            endpoint: exchange.endpoint,
            model: exchange.model.map(|model| masked(model, secrets).into_owned()),
            status: exchange.status.map(|status: StatusCode| status.as_u16()),
            ending: exchange.ending.as_str(),
            ended_ms: unix_ms(),
            request_headers: capture
                .0
                .headers
                .iter()
                .map(|(name, value)| (name.clone(), masked(value, secrets).into_owned()))
                .collect(),
            request: raw.request.text(secrets),
            asks: raw
                .asks
                .iter()
                .map(|asked| Ask {
                    path: asked.path.clone(),
                    body: asked.body.text(secrets),
                    refused: asked.refused.as_ref().map(|(status, text)| (*status, masked(text, secrets).into_owned())),
                    reply: (!raw.parallel && raw.asks.len() > 1).then(|| asked.reply.text(secrets)),
                })
                .collect(),
            reply: raw.reply.text(secrets),
            response_headers: raw.response_headers.clone(),
            response: raw.response.text(secrets),
            receipt: (!exchange.receipt.is_empty()).then(|| exchange.receipt.to_string()),
            error: exchange.error.map(|error| masked(&error.to_string(), secrets).into_owned()),
        };
        drop(raw);
        let mut store = self.store();
        store.bytes += inspected.size();
        store.kept.push_back(inspected);
        while store.kept.len() > store.most || store.bytes > store.most_bytes {
            let Some(oldest) = store.kept.pop_front() else { break };
            store.bytes -= oldest.size();
        }
    }

    /// All that is kept, the oldest first.
    pub(crate) fn list(&self) -> Vec<Inspected> {
        self.store().kept.iter().cloned().collect()
    }

    /// The capture of the exchange that was listed under `key`.
    pub(crate) fn get(&self, key: u64) -> Option<Inspected> {
        self.store().kept.iter().find(|inspected| inspected.key == key).cloned()
    }

    /// Forgets all.
    pub(crate) fn clear(&self) {
        let mut store = self.store();
        store.kept.clear();
        store.bytes = 0;
    }
}

/// Headers for a person, without the values of those that hold keys.
fn shown_headers(headers: &HeaderMap, keys: &[&HeaderName]) -> Vec<(String, String)> {
    const SECRET: [HeaderName; 6] = [
        header::AUTHORIZATION,
        header::PROXY_AUTHORIZATION,
        header::COOKIE,
        header::SET_COOKIE,
        HeaderName::from_static("api-key"),
        HeaderName::from_static("x-goog-api-key"),
    ];
    let secret = |name: &HeaderName| SECRET.contains(name) || keys.contains(&name);
    let value = |name: &HeaderName, value: &HeaderValue| match secret(name) {
        true => "***".to_owned(),
        false => String::from_utf8_lossy(value.as_bytes()).into_owned(),
    };
    headers.iter().map(|(name, header)| (name.to_string(), value(name, header))).collect()
}

/// Copies the body that passes through, unchanged.
struct Tee {
    body: Body,
    capture: Capture,
    side: fn(&mut Raw) -> &mut Kept,
}

impl HttpBody for Tee {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
        {
            (this.side)(&mut this.capture.raw()).push(data);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Copies the body of a response for `capture`.
pub(crate) fn tee_response(response: axum::response::Response, capture: &Capture) -> axum::response::Response {
    capture.head(response.headers());
    let capture = capture.clone();
    response.map(|body| Body::new(Tee { body, capture, side: |raw| &mut raw.response }))
}
