//! Connections to the remote, kept for the next request.
//!
//! A connection has no task of its own: whoever waits for its answer, or reads it, drives it. So nothing has to be handed from task to task,
//! what has arrived together is read together, and dropping the reader closes the connection at once.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
    task::{Context, Poll, Waker},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::{
    body::Incoming,
    client::conn::http1::{self, Connection, SendRequest},
};
use tokio::time::Instant;
use tower::{Service, ServiceExt};

use super::{
    connect::{Cause, Connector},
    version::Version,
};

/// How long an idle connection is kept. Shorter than what gateways keep (nginx 75 s, load balancers 60 s), so that a request is not sent
/// into a connection that is being closed.
const KEPT_FOR: Duration = Duration::from_secs(45);

/// How many idle connections are kept.
const KEPT: usize = 64;

/// Why there was no answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// There is no connection.
    Connect(Cause),
    /// The connection did not bring an answer.
    Exchange(hyper::Error),
}

/// What is known of the remote for as long as any connection to it lives: once all are lost, another may answer there.
pub(crate) type Known = OnceLock<Version>;

type Io = <Connector as Service<Uri>>::Response;

/// One connection.
struct Line {
    sender: SendRequest<Body>,
    connection: Connection<Io, Body>,
    _known: Arc<Known>,
}

impl Line {
    /// Lets the connection do what it can now, and tells whether it would take another request.
    fn is_idle(&mut self) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        Pin::new(&mut self.connection).poll(&mut context).is_pending() && self.sender.is_ready()
    }
}

/// The connections to one remote.
pub(crate) struct Pool {
    connector: Connector,
    remote: Uri,
    idle: Arc<Idle>,
    /// Held by the connections.
    known: Mutex<Weak<Known>>,
}

/// Idle connections, the one used last at the end.
#[derive(Default)]
struct Idle(Mutex<Vec<(Line, Instant)>>);

impl Idle {
    fn lines(&self) -> MutexGuard<'_, Vec<(Line, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, line: Line) {
        let now = Instant::now();
        let mut lines = self.lines();
        lines.retain(|(_, since)| now - *since < KEPT_FOR);
        if lines.len() < KEPT {
            lines.push((line, now));
        }
    }

    fn take(&self) -> Option<Line> {
        let now = Instant::now();
        loop {
            let (mut line, since) = self.lines().pop()?;
            if now - since < KEPT_FOR && line.is_idle() {
                return Some(line);
            }
        }
    }
}

impl Pool {
    /// For connections to the scheme and authority of `remote`.
    pub(crate) fn new(connector: Connector, remote: Uri) -> Self {
        Self { connector, remote, idle: Arc::default(), known: Mutex::default() }
    }

    /// What is known of the remote, if there is a connection to it.
    pub(crate) fn known(&self) -> Option<Arc<Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).upgrade()
    }

    /// Sends `request` (its URI in origin form) and waits for the head of the answer. Dropping the future closes the connection.
    pub(crate) async fn send(&self, mut request: Request<Body>) -> Result<Response<Answer>, Failure> {
        loop {
            let (mut line, used) = match self.idle.take() {
                Some(line) => (line, true),
                None => (self.connect().await?, false),
            };
            let mut answering = Box::pin(line.sender.try_send_request(request));
            let mut closed = false;
            let answered = std::future::poll_fn(|cx| {
                if !closed {
                    closed = Pin::new(&mut line.connection).poll(cx).is_ready();
                }
                answering.as_mut().poll(cx)
            })
            .await;
            drop(answering);
            match answered {
                Ok(answer) => {
                    let line = (!closed).then_some(line);
                    return Ok(answer.map(|body| Answer { body, line, idle: self.idle.clone() }));
                }
                // The remote had closed the idle connection before a byte was sent: that is no failure of the request.
                Err(mut failed) => match failed.take_message() {
                    Some(unsent) if used => request = unsent,
                    _ => return Err(Failure::Exchange(failed.into_error())),
                },
            }
        }
    }

    async fn connect(&self) -> Result<Line, Failure> {
        let io = self.connector.clone().oneshot(self.remote.clone()).await.map_err(Failure::Connect)?;
        let (sender, connection) = http1::handshake(io).await.map_err(Failure::Exchange)?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let held = known.upgrade().unwrap_or_default();
        *known = Arc::downgrade(&held);
        Ok(Line { sender, connection, _known: held })
    }
}

/// The body of an answer, and the connection that brings it.
pub(crate) struct Answer {
    body: Incoming,
    line: Option<Line>,
    idle: Arc<Idle>,
}

impl Answer {
    /// Keeps the connection for the next request, if the exchange is over on both sides.
    fn release(&mut self) {
        if let Some(mut line) = self.line.take().filter(|_| self.body.is_end_stream())
            && line.is_idle()
        {
            self.idle.put(line);
        }
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = &mut *self;
        let mut polled = Pin::new(&mut this.body).poll_frame(cx);
        if polled.is_pending()
            && let Some(line) = &mut this.line
        {
            match Pin::new(&mut line.connection).poll(cx) {
                Poll::Ready(ended) => {
                    this.line = None;
                    polled = Pin::new(&mut this.body).poll_frame(cx);
                    if let (true, Err(error)) = (polled.is_pending(), ended) {
                        return Poll::Ready(Some(Err(error)));
                    }
                }
                Poll::Pending => polled = Pin::new(&mut this.body).poll_frame(cx),
            }
        }
        if let Poll::Ready(None) = polled
            && let Some(mut line) = this.line.take()
            && line.is_idle()
        {
            this.idle.put(line);
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

impl Drop for Answer {
    fn drop(&mut self) {
        // A body whose length is known is not asked for its end.
        self.release();
    }
}
