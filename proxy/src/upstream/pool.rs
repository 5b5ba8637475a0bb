//! Connections to the remote, kept for the next request.
//!
//! A connection has no task of its own: whoever waits for its answer, or reads it, drives it. So nothing has to be handed from task to task,
//! what has arrived together is read together, and dropping the reader closes the connection at once.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Instant;
use tower::ServiceExt;

use crate::{
    ollama::version::Version,
    upstream::{
        connect::{Cause, Connector},
        connection::{Broken, Line},
        framing::Framing,
    },
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
    Exchange(Broken),
}

/// What is known of the remote for as long as any connection to it lives: once all are lost, another may answer there.
pub(crate) type Known = OnceLock<Version>;

/// A connection, and what is known of the remote for as long as it lives.
struct Held {
    line: Box<Line>,
    _known: Arc<Known>,
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
struct Idle(Mutex<Vec<(Held, Instant)>>);

impl Idle {
    fn lines(&self) -> MutexGuard<'_, Vec<(Held, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, held: Held) {
        let now = Instant::now();
        let mut lines = self.lines();
        lines.retain(|(_, since)| now - *since < KEPT_FOR);
        if lines.len() < KEPT {
            lines.push((held, now));
        }
    }

    fn take(&self) -> Option<Held> {
        let now = Instant::now();
        loop {
            let (mut held, since) = self.lines().pop()?;
            // The remote may have closed it: that is no failure of the request.
            if now - since < KEPT_FOR && held.line.is_idle() {
                return Some(held);
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
    pub(crate) async fn send(&self, request: Request<Body>) -> Result<Response<Answer>, Failure> {
        let mut held = match self.idle.take() {
            Some(held) => held,
            // Most requests find a connection.
            None => Box::pin(self.connect()).await?,
        };
        let head = held.line.ask(request).await.map_err(Failure::Exchange)?;
        let idle = head.keeps.then(|| self.idle.clone());
        let mut answer = Response::new(Answer { held: Some(held), framing: head.framing, idle });
        (*answer.status_mut(), *answer.headers_mut()) = (head.status, head.headers);
        Ok(answer)
    }

    async fn connect(&self) -> Result<Held, Failure> {
        let io = self.connector.clone().oneshot(self.remote.clone()).await.map_err(Failure::Connect)?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let held = known.upgrade().unwrap_or_default();
        *known = Arc::downgrade(&held);
        Ok(Held { line: Box::new(Line::new(io)), _known: held })
    }
}

/// The body of an answer, and the connection that brings it.
pub(crate) struct Answer {
    /// None: nothing more is read from it.
    held: Option<Held>,
    framing: Framing,
    /// Where the connection is kept afterwards, if it can be.
    idle: Option<Arc<Idle>>,
}

impl Answer {
    /// Keeps the connection for the next request, if the exchange is over on both sides.
    fn release(&mut self) {
        if let Some(mut held) = self.held.take()
            && let Some(idle) = &self.idle
            && self.framing.is_over()
            && held.line.is_idle()
        {
            idle.put(held);
        }
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let this = &mut *self;
        let Some(held) = &mut this.held else { return Poll::Ready(None) };
        let polled = ready!(held.line.poll_data(&mut this.framing, cx));
        match &polled {
            Some(Ok(_)) => {}
            Some(Err(_)) => this.held = None,
            None => this.release(),
        }
        Poll::Ready(polled.map(|data| data.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.held.is_none() || self.framing.is_over()
    }

    fn size_hint(&self) -> SizeHint {
        match self.framing {
            Framing::Length(left) => SizeHint::with_exact(left),
            _ => SizeHint::default(),
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        // A body whose length is known is not asked for its end.
        self.release();
    }
}
