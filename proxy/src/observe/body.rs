//! A wrapper around a response body: it sees the first byte and the end, however the body ends, and then logs the
//! exchange.

use std::{
    net::SocketAddr,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use axum::{body::Body, response::Response};
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header};
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::{Ending, Exchange, InFlight, Readers, Recorder};
use crate::{
    error::{self, Dialect, Error},
    observe::tail::Tail,
    redact, stamp,
    usage::Usage,
};

/// What is known of an exchange from its request's head on.
#[derive(Debug)]
pub(crate) struct Facts {
    /// The request's id, `req_…` or what the client sent as `x-request-id`.
    pub(crate) id: Arc<str>,
    pub(crate) method: Method,
    /// The path, without its query.
    pub(crate) route: String,
    /// The label of its route.
    pub(crate) endpoint: &'static str,
    /// The address at the other end of the connection.
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) started: Instant,
    pub(crate) recorder: Recorder,
}

/// An open exchange. If it is dropped without a response, because the client closed its connection first, that is
/// logged too.
pub(crate) struct Opened {
    facts: Arc<Facts>,
    in_flight: Arc<InFlight>,
    readers: Arc<Readers>,
    key: u64,
    closed: bool,
}

impl Opened {
    pub(crate) fn new(facts: Facts, in_flight: Arc<InFlight>, readers: Arc<Readers>) -> Self {
        let facts = Arc::new(facts);
        let key = in_flight.enter(facts.clone());
        Self { facts, in_flight, readers, key, closed: false }
    }

    /// The request's id.
    pub(crate) fn id(&self) -> &str {
        &self.facts.id
    }

    pub(crate) fn recorder(&self) -> &Recorder {
        &self.facts.recorder
    }

    /// Hands the exchange to its readers, once.
    fn close(&mut self, ended: Ending, response: Option<&Seen>) {
        let recorder = &self.facts.recorder;
        if std::mem::replace(&mut self.closed, true) || !(self.readers.want() || recorder.metered()) {
            return;
        }
        let Facts { id, method, route, endpoint, peer, started, .. } = &*self.facts;
        let now = Instant::now();
        let since = |at: Instant| at.saturating_duration_since(*started);
        let mut notes = recorder.notes();
        let read = response.and_then(|seen| seen.tail.as_ref()).map(Tail::read).unwrap_or_default();
        notes.model = notes.model.take().or(read.model);
        notes.usage = notes.usage.or(read.usage);
        // Some clients close right after the last event, before the body's own end.
        let ended = if notes.finished { Ending::Complete } else { ended };
        if ended == Ending::ClientGone && notes.error.is_none() {
            // The proxy itself has cut the connection.
            notes.error = recorder.cancel().error();
        }
        let refused = response.is_some_and(|seen| seen.status.is_client_error());
        let ending = match &notes.error {
            Some(Error::Canceled { .. } | Error::CanceledByCaller) => Ending::Canceled,
            _ if ended == Ending::ClientGone => Ending::ClientGone,
            Some(Error::Internal { .. }) => Ending::ProxyFailed,
            Some(error) if error.is_own_refusal() => Ending::Refused,
            Some(error) if error.row().status.is_server_error() => Ending::UpstreamFailed,
            Some(_) => Ending::Refused,
            None if ended == Ending::Complete && refused => Ending::Refused,
            None => ended,
        };
        if let Some(spend) = notes.spend.take() {
            let tokens = match (notes.usage, recorder.lines()) {
                (Some(usage), _) => usage.input.saturating_add(usage.output),
                // The stream ended before its counts: by what it has generated.
                (None, lines @ 1..) => spend.prompt().saturating_add(lines),
                // The remote has read the prompt, perhaps.
                (None, 0) if matches!(ending, Ending::ClientGone | Ending::Canceled) => spend.prompt(),
                (None, 0) => 0,
            };
            spend.settle(tokens);
        }
        let first_byte = response.map(|seen| seen.first_byte.unwrap_or(now));
        // On the native lane a stream's first line is its first token; there are no heartbeats.
        let first_token = notes.first_token.or(response.filter(|seen| seen.native_stream).and(first_byte));
        // Keys are looked for once, not by each reader: most exchanges show none.
        let texts = [Some(&**id), Some(&**route), notes.model.as_deref()];
        let may_show_keys = notes.error.is_some()
            || notes.receipt.has_notes()
            || recorder.capture().is_some()
            || texts.into_iter().flatten().any(|text| redact::may_show_key(text, &notes.secrets));
        let generating = read.generating.or(first_token.map(|first| now.saturating_duration_since(first)));
        self.readers.read(&Exchange {
            key: self.key,
            id,
            method,
            route,
            endpoint,
            peer: *peer,
            caller: notes.caller.as_deref(),
            model: notes.model.as_deref(),
            status: response.map(|seen| seen.status),
            first_byte: first_byte.map(since),
            first_token: first_token.map(since),
            total: since(now),
            waiting_for: notes.waiting_for.filter(|_| response.is_none()),
            usage: notes.usage,
            tokens_per_second: notes.usage.zip(generating).and_then(|(usage, took)| speed(usage, took)),
            receipt: &notes.receipt,
            error: notes.error.as_ref(),
            ending,
            secrets: if may_show_keys { &notes.secrets } else { &[] },
            capture: recorder.capture(),
            now,
            clock: stamp::now(),
            facts: Some(&self.facts),
            trace: recorder.trace(),
        });
        // Readers may keep the facts for long, but no keys.
        notes.secrets = Vec::new();
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.in_flight.leave(self.key);
        self.close(Ending::ClientGone, None);
        self.recorder().cancel().forget_task();
    }
}

/// Tokens a second. A single token, or tokens that came all at once, have no speed.
fn speed(usage: Usage, took: Duration) -> Option<f64> {
    let measurable = usage.output > 1 && took >= Duration::from_millis(1);
    measurable.then(|| (usage.output as f64 / took.as_secs_f64() * 10.0).round() / 10.0)
}

/// Puts the watcher around `response`. `native` responses have their token counts in their last line.
pub(crate) fn watch(opened: Opened, refused: Option<&Error>, native: bool, response: Response) -> Response {
    if let Some(error) = refused {
        opened.recorder().failed(error);
    }
    let seen = Seen {
        status: response.status(),
        first_byte: None,
        native_stream: native && is_ndjson(response.headers()),
        tail: native.then(Tail::default),
    };
    response.map(|body| Body::new(Watched { body, opened, seen, cancelable: false }))
}

fn is_ndjson(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/x-ndjson"))
}

/// What was seen of a response.
struct Seen {
    status: StatusCode,
    first_byte: Option<Instant>,
    /// Whether each line is a token.
    native_stream: bool,
    tail: Option<Tail>,
}

struct Watched {
    body: Body,
    opened: Opened,
    seen: Seen,
    /// The task that polls this is known to the exchange's [`Cancel`](super::cancel::Cancel).
    cancelable: bool,
}

impl Watched {
    fn close(&mut self, ended: Ending) {
        self.opened.close(ended, Some(&self.seen));
    }

    /// Ends a native body that is canceled: a stream of lines with a last one that says so, any other with a cut
    /// connection. A translated stream ends itself, with an error event, and a whole answer is complete already.
    fn cancel(&mut self, error: &Error) -> Option<Result<Frame<Bytes>, axum::Error>> {
        let between_lines = self.seen.native_stream && self.body.size_hint().exact().is_none();
        let tail = self.seen.tail.as_ref().filter(|_| !self.body.is_end_stream())?;
        let between_lines = between_lines && tail.ends_a_line();
        self.opened.recorder().failed(error);
        self.body = Body::empty();
        Some(if between_lines {
            let mut line = error::body(error, Dialect::Ollama, None);
            line.push(b'\n');
            Ok(Frame::data(line.into()))
        } else {
            Err(axum::Error::new(error.clone()))
        })
    }
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        if let Some(error) = this.opened.recorder().cancel().error()
            && let Some(last) = this.cancel(&error)
        {
            this.close(Ending::Canceled);
            return Poll::Ready(Some(last));
        }
        let polling = AssertUnwindSafe(|| Pin::new(&mut this.body).poll_frame(cx));
        let polled = std::panic::catch_unwind(polling).unwrap_or_else(|_| {
            // The panic itself is in the log. The client learns that the body is not whole, because its connection
            // ends.
            let error = Error::panicked();
            this.opened.recorder().failed(&error);
            this.body = Body::empty();
            Poll::Ready(Some(Err(axum::Error::new(error))))
        });
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    if this.seen.first_byte.is_none() {
                        this.seen.first_byte = Some(Instant::now());
                        if this.seen.native_stream {
                            // Each line is a token: the model is no longer waited for.
                            this.opened.recorder().first_token();
                        }
                    }
                    if let Some(tail) = &mut this.seen.tail {
                        tail.push(data);
                    }
                    if this.seen.native_stream {
                        this.opened.recorder().count_lines(data);
                    }
                }
            }
            Poll::Ready(Some(Err(_))) => this.close(Ending::UpstreamFailed),
            Poll::Ready(None) => this.close(Ending::Complete),
            // Once: a connection polls its bodies on one task.
            Poll::Pending if !this.cancelable => {
                this.cancelable = true;
                if this.opened.recorder().cancel().poll(cx).is_ready() {
                    cx.waker().wake_by_ref();
                }
            }
            Poll::Pending => {}
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

impl Drop for Watched {
    fn drop(&mut self) {
        // A body whose length is known is not asked for its end.
        let ended = if self.body.is_end_stream() { Ending::Complete } else { Ending::ClientGone };
        self.close(ended);
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    /// A body of one frame, after which it panics.
    struct Panics(bool);

    impl HttpBody for Panics {
        type Data = Bytes;
        type Error = axum::Error;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
            assert!(!std::mem::replace(&mut self.0, true), "on purpose");
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"one")))))
        }
    }

    #[tokio::test]
    async fn a_panic_fails_the_body_and_is_recorded_as_a_failure_of_the_proxy() {
        let recorder = Recorder::default();
        let facts = Facts {
            id: "".into(),
            method: Method::GET,
            route: "/".to_owned(),
            endpoint: "native",
            peer: None,
            started: Instant::now(),
            recorder: recorder.clone(),
        };
        let opened = Opened::new(facts, Arc::default(), Arc::default());
        let mut body = watch(opened, None, true, Response::new(Body::new(Panics(false)))).into_body();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "one");
        assert!(body.frame().await.unwrap().is_err());
        assert!(body.frame().await.is_none());
        assert_eq!(recorder.notes().error, Some(Error::panicked()));
    }
}
