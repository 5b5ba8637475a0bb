//! Connections to the remote, kept for the next request.
//!
//! A connection has no task of its own: the caller that waits for its response, or reads it, drives it. So nothing is
//! handed from task to task, what has arrived together is read together, and dropping the reader closes the connection
//! at once. Idle connections are watched by one task for all of them ([`Pool::reaper`]).

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, Waker, ready},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http1_client::{Connection, Encoded, Error, Framing, Head};
use tokio::time::{Instant, sleep, sleep_until};

#[cfg(target_os = "linux")]
use crate::upstream::connect::{UNACKNOWLEDGED, UNACKNOWLEDGED_UPLOAD};
use crate::{
    ollama::version::Version,
    upstream::{
        connect::{Cause, Connector, Io},
        request_body::RequestBody,
    },
};

/// How long an idle connection is kept. Shorter than what gateways keep (nginx 75 s, load balancers 60 s), so that a
/// request is not sent into a connection that is being closed.
const MAX_IDLE: Duration = Duration::from_secs(45);

/// How long the remote may take to say `100 Continue`, or to respond, before a body that waits for it is sent all the
/// same: not every server knows `Expect` (RFC 9110, 10.1.1). As long as curl and Go's client wait.
const CONTINUE: Duration = Duration::from_secs(1);

/// How many idle connections are kept.
const MAX_IDLE_CONNECTIONS: usize = 64;

/// How long the remote's version is believed while connections live: behind a gateway they survive an upgrade.
const MAX_VERSION_AGE: Duration = Duration::from_secs(60);

/// Why there was no response.
#[derive(Debug)]
pub(crate) enum Failure {
    /// There is no connection.
    Connect(Cause),
    /// The connection did not bring a response.
    Exchange(Error),
    /// No response came within `timeouts.first_byte` after the request had been sent.
    FirstByte,
}

/// A request without a response.
pub(crate) struct Unanswered {
    pub(crate) failure: Failure,
    /// Whether it can be sent elsewhere: no byte of a response came, and its body can be replayed.
    pub(crate) again: bool,
    /// Its body, from the beginning.
    pub(crate) body: Option<RequestBody>,
}

/// Returns the wall-clock time. Ages are measured by it, because [`Instant`] stands still while a laptop sleeps.
#[expect(clippy::disallowed_methods, reason = "ages must count the time that the machine is suspended")]
fn wall_clock() -> SystemTime {
    SystemTime::now()
}

/// Whether `since` is at least `age` ago. A clock that was set back makes everything old.
fn is_older(since: SystemTime, age: Duration, now: SystemTime) -> bool {
    now.duration_since(since).map_or(true, |elapsed| elapsed >= age)
}

/// What is known of the remote while any connection to it lives: once all are lost, another may answer there.
#[derive(Debug, Default)]
pub(crate) struct Known(Mutex<Option<(Version, SystemTime)>>);

impl Known {
    pub(crate) fn version(&self) -> Option<Version> {
        self.version_at(wall_clock())
    }

    fn version_at(&self, now: SystemTime) -> Option<Version> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.take_if(|(_, since)| is_older(*since, MAX_VERSION_AGE, now));
        known.as_ref().map(|(version, _)| version.clone())
    }

    pub(crate) fn learn(&self, version: Version) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((version, wall_clock()));
    }
}

/// A connection, and what is known of the remote while it lives.
struct Pooled {
    connection: Box<Connection<Box<dyn Io>, RequestBody>>,
    /// Whether its written bytes may stay unacknowledged for as long as an upload needs.
    patient: bool,
    _known: Arc<Known>,
}

impl Pooled {
    /// Gives an upload more time than other requests, whose bytes are acknowledged even by a remote that does not read
    /// them.
    #[cfg(target_os = "linux")]
    fn allow_for(&mut self, body: Option<&RequestBody>) {
        /// What fits into any receive window, with the head.
        const SMALL: u64 = 32 << 10;
        let patient = body.is_some_and(|body| body.size_hint().upper().is_none_or(|size| size > SMALL));
        if patient != self.patient
            && let Some(tcp) = self.connection.io().tcp()
        {
            let time = if patient { UNACKNOWLEDGED_UPLOAD } else { UNACKNOWLEDGED };
            // Without it, a dead connection is only noticed later.
            let _ = socket2::SockRef::from(tcp).set_tcp_user_timeout(Some(time));
            self.patient = patient;
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn allow_for(&mut self, _: Option<&RequestBody>) {}
}

/// A request as it goes out. It is encoded before anything is waited for, so that no future has room for its headers.
pub(crate) struct Outgoing {
    head: Encoded,
    /// None: it has none.
    body: Option<RequestBody>,
    is_head: bool,
    /// Whether the remote's machine is woken for it.
    wakes: bool,
}

impl Outgoing {
    /// A request with those `headers` that are not `hidden`, and with `lines`, whole lines of headers.
    pub(crate) fn new(
        method: &Method,
        target: &str,
        headers: &HeaderMap,
        hidden: impl Fn(&HeaderName) -> bool,
        lines: &[u8],
        body: RequestBody,
    ) -> Self {
        let body = (!body.is_end_stream()).then_some(body);
        let size = body.as_ref().map(HttpBody::size_hint);
        let head = http1_client::encode_with(method, target, headers, hidden, lines, size);
        Self { head, body, is_head: *method == Method::HEAD, wakes: true }
    }

    /// The same request, which fails if the remote's machine is asleep.
    pub(crate) fn without_waking(self) -> Self {
        Self { wakes: false, ..self }
    }
}

/// The connections to one remote.
pub(crate) struct Pool {
    connector: Connector,
    idle: Arc<Idle>,
    /// Held by the connections.
    known: Mutex<Weak<Known>>,
}

/// Idle connections.
struct Idle {
    state: Mutex<IdleState>,
    clock: fn() -> SystemTime,
}

#[derive(Default)]
struct IdleState {
    /// The one used last is at the end.
    connections: Vec<(Pooled, SystemTime)>,
    /// The task that watches them, if one does.
    reaper: Option<Waker>,
    /// Whether that task has a timer that goes off before the oldest connection is too old.
    timer: bool,
}

impl Default for Idle {
    fn default() -> Self {
        Self { state: Mutex::default(), clock: wall_clock }
    }
}

impl Idle {
    fn state(&self) -> MutexGuard<'_, IdleState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a connection, if it can be reused.
    fn put(&self, mut pooled: Pooled) {
        let now = (self.clock)();
        let mut state = self.state();
        let reaper = state.reaper.as_ref().unwrap_or(Waker::noop());
        if !pooled.connection.poll_reusable(&mut Context::from_waker(reaper)) {
            return;
        }
        state.connections.retain(|(_, since)| !is_older(*since, MAX_IDLE, now));
        if state.connections.len() < MAX_IDLE_CONNECTIONS {
            state.connections.push((pooled, now));
        }
        // One wake-up per timer, not per request.
        if !state.timer
            && let Some(reaper) = &state.reaper
        {
            reaper.wake_by_ref();
        }
    }

    /// Takes the connection that was used last, unless the remote has closed it.
    fn take(&self) -> Option<Pooled> {
        let now = (self.clock)();
        loop {
            let (mut pooled, since) = self.state().connections.pop()?;
            let noop = &mut Context::from_waker(Waker::noop());
            if !is_older(since, MAX_IDLE, now) && pooled.connection.poll_reusable(noop) {
                return Some(pooled);
            }
        }
    }

    /// Closes connections that are too old or that the remote has closed. `cx` is woken when the remote closes another.
    /// Returns when the next one will be too old.
    fn reap(&self, cx: &mut Context<'_>) -> Option<Duration> {
        let now = (self.clock)();
        let mut state = self.state();
        state.reaper = Some(cx.waker().clone());
        state
            .connections
            .retain_mut(|(pooled, since)| !is_older(*since, MAX_IDLE, now) && pooled.connection.poll_reusable(cx));
        let oldest = state.connections.first().map(|(_, since)| *since);
        state.timer = oldest.is_some();
        oldest.map(|since| MAX_IDLE.saturating_sub(now.duration_since(since).unwrap_or_default()))
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        // So that the reaper ends.
        if let Some(reaper) = self.state().reaper.take() {
            reaper.wake();
        }
    }
}

impl Pool {
    /// For connections that `connector` makes.
    pub(crate) fn new(connector: Connector) -> Self {
        Self { connector, idle: Arc::default(), known: Mutex::default() }
    }

    /// Watches the idle connections until the pool is dropped: closes those that are too old, and those that the remote
    /// has closed.
    pub(crate) fn reaper(&self) -> impl Future<Output = ()> + Send + use<> {
        let idle = Arc::downgrade(&self.idle);
        let mut timer = Box::pin(sleep(MAX_IDLE));
        poll_fn(move |cx| {
            loop {
                let Some(idle) = idle.upgrade() else { return Poll::Ready(()) };
                let Some(next) = idle.reap(cx) else { return Poll::Pending };
                timer.as_mut().reset(Instant::now() + next);
                ready!(timer.as_mut().poll(cx));
            }
        })
    }

    /// How many connections there are: idle ones, and all of them.
    pub(crate) fn connections(&self) -> (usize, usize) {
        let idle = self.idle.state().connections.len();
        // Each connection holds what is known of the remote.
        let all = self.known.lock().unwrap_or_else(PoisonError::into_inner).strong_count();
        (idle, all.max(idle))
    }

    /// What is known of the remote, if there is a connection to it.
    pub(crate) fn known(&self) -> Option<Arc<Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).upgrade()
    }

    /// Sends `request` (its URI in origin form) and waits for the head of the response: for at most `first_byte` once
    /// the request has been sent, zero being without limit. Dropping the future closes the connection.
    ///
    /// Sends it once more, on a fresh connection, if the pooled one was closed before any byte of a response came and
    /// the body can be replayed. A remote that restarted, a gateway with a short keep-alive and a laptop that slept
    /// leave such connections behind.
    pub(crate) async fn send(&self, request: Outgoing, first_byte: Duration) -> Result<Response<Body>, Failure> {
        let Outgoing { head: request, mut body, is_head, wakes } = request;
        if let Some(mut pooled) = self.idle.take() {
            match exchange(&mut pooled, &request, body, first_byte).await {
                Ok(head) => return Ok(self.response(pooled, head, is_head)),
                Err(failure) => body = replay(failure, &mut pooled)?,
            }
        }
        // Most requests find a connection.
        let mut pooled = Box::pin(self.connect(wakes)).await?;
        let head = exchange(&mut pooled, &request, body, first_byte).await?;
        Ok(self.response(pooled, head, is_head))
    }

    /// As [`Pool::send`], for a request that may be sent to another remote: its body is kept for that until it is taken
    /// or forgotten.
    ///
    /// # Errors
    /// Fails with what is needed to send it elsewhere.
    pub(crate) async fn try_send(
        &self,
        request: Outgoing,
        first_byte: Duration,
    ) -> Result<Response<Body>, Box<Unanswered>> {
        let Outgoing { head: request, mut body, is_head, wakes } = request;
        let has_body = body.is_some();
        if let Some(mut pooled) = self.idle.take() {
            pooled.connection.keep_body(true);
            match exchange(&mut pooled, &request, body, first_byte).await {
                Ok(head) => return Ok(self.response(pooled, head, is_head)),
                Err(failure) => match replay(failure, &mut pooled) {
                    Ok(again) => body = again,
                    // It was in use before, so a failure says as much of the remote as one of a fresh connection.
                    Err(failure) => return Err(unanswered(failure, &mut pooled, has_body)),
                },
            }
        }
        // Most requests find a connection.
        let mut pooled = match Box::pin(self.connect(wakes)).await {
            Ok(pooled) => pooled,
            Err(failure) => {
                let again = body.as_mut().is_none_or(RequestBody::rewind);
                return Err(Box::new(Unanswered { failure, again, body }));
            }
        };
        pooled.connection.keep_body(true);
        match Box::pin(exchange(&mut pooled, &request, body, first_byte)).await {
            Ok(head) => Ok(self.response(pooled, head, is_head)),
            Err(failure) => Err(unanswered(failure, &mut pooled, has_body)),
        }
    }

    fn response(&self, pooled: Pooled, head: Head, is_head: bool) -> Response<Body> {
        let idle = head.keep_alive.then(|| self.idle.clone());
        let mut response = Response::new(Body { pooled: Some(pooled), framing: head.framing, is_head, idle });
        (*response.status_mut(), *response.headers_mut()) = (head.status, head.headers);
        response
    }

    async fn connect(&self, wakes: bool) -> Result<Pooled, Failure> {
        let io = self.connector.connect(wakes).await.map_err(Failure::Connect)?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let held = known.upgrade().unwrap_or_default();
        *known = Arc::downgrade(&held);
        Ok(Pooled { connection: Box::new(Connection::new(io)), patient: false, _known: held })
    }
}

/// One attempt.
async fn exchange(
    pooled: &mut Pooled,
    request: &Encoded,
    body: Option<RequestBody>,
    first_byte: Duration,
) -> Result<Head, Failure> {
    pooled.allow_for(body.as_ref());
    let connection = &mut pooled.connection;
    connection.start(request, body);
    let (mut waiting, mut timer) = (None, None);
    poll_fn(|cx| {
        if let Poll::Ready(head) = connection.poll_head(cx) {
            return Poll::Ready(head.map_err(Failure::Exchange));
        }
        if connection.is_waiting() {
            let waiting = waiting.get_or_insert_with(|| Box::pin(sleep(CONTINUE)));
            ready!(waiting.as_mut().poll(cx));
            connection.stop_waiting();
            if let Poll::Ready(head) = connection.poll_head(cx) {
                return Poll::Ready(head.map_err(Failure::Exchange));
            }
        }
        if first_byte.is_zero() || !connection.is_sent() {
            return Poll::Pending;
        }
        let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + first_byte)));
        timer.as_mut().poll(cx).map(|()| Err(Failure::FirstByte))
    })
    .await
}

/// What is needed to send a request elsewhere that failed with `failure`.
fn unanswered(failure: Failure, pooled: &mut Pooled, has_body: bool) -> Box<Unanswered> {
    let connection = &mut pooled.connection;
    let silent = !connection.has_received()
        && matches!(failure, Failure::Exchange(Error::Io(_) | Error::Closed) | Failure::FirstByte);
    let mut body = connection.take_body();
    let whole = body.as_mut().map_or(!has_body, RequestBody::rewind);
    Box::new(Unanswered { failure, again: silent && whole, body })
}

/// The body to send again after `failure` on a reused connection.
///
/// # Errors
/// Fails with `failure` if the request must not be sent again.
fn replay(failure: Failure, pooled: &mut Pooled) -> Result<Option<RequestBody>, Failure> {
    let connection = &mut pooled.connection;
    if connection.has_received() || !matches!(failure, Failure::Exchange(Error::Io(_) | Error::Closed)) {
        return Err(failure);
    }
    match connection.take_body() {
        Some(mut body) => {
            if body.rewind() {
                tracing::debug!("a pooled connection was closed: the request is sent again on a fresh one");
                Ok(Some(body))
            } else {
                Err(failure)
            }
        }
        None => Ok(None),
    }
}

/// The body of a response, and the connection that brings it.
pub(crate) struct Body {
    /// `None`: nothing more is read from it.
    pooled: Option<Pooled>,
    framing: Framing,
    is_head: bool,
    /// Where the connection is kept afterwards, if it can be.
    idle: Option<Arc<Idle>>,
}

impl Body {
    /// Takes the request body back, to send it elsewhere in place of this response. Fails if it cannot be sent again.
    pub(crate) fn take_request(&mut self) -> Result<Option<RequestBody>, ()> {
        let Some(pooled) = &mut self.pooled else { return Err(()) };
        match pooled.connection.take_body() {
            None => Ok(None),
            Some(mut body) => {
                if body.rewind() {
                    Ok(Some(body))
                } else {
                    Err(())
                }
            }
        }
    }

    /// Lets go of what was sent of the request body: the response counts.
    pub(crate) fn forget_request(&mut self) {
        if let Some(pooled) = &mut self.pooled {
            pooled.connection.keep_body(false);
        }
    }

    /// Keeps the connection for the next request, if the exchange is over on both sides.
    fn release(&mut self) {
        if let Some(pooled) = self.pooled.take()
            && let Some(idle) = &self.idle
            && self.framing.is_over()
        {
            idle.put(pooled);
        }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        let Some(pooled) = &mut this.pooled else { return Poll::Ready(None) };
        let polled = ready!(pooled.connection.poll_frame(&mut this.framing, cx));
        match &polled {
            Some(Ok(_)) => {}
            Some(Err(_)) => this.pooled = None,
            None => this.release(),
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.pooled.is_none() || self.framing.is_over()
    }

    fn size_hint(&self) -> SizeHint {
        match self.framing {
            // The response to a HEAD has the length that its header says, or an unknown one.
            Framing::Length(left) if !self.is_head => SizeHint::with_exact(left),
            _ => SizeHint::default(),
        }
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        // A body of known length is not asked for its end.
        self.release();
    }
}

#[cfg(test)]
mod tests;
