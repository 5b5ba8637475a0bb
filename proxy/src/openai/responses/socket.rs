//! `GET /v1/responses`: a WebSocket on which a client creates one response after the other (`response.create`), and
//! gets the events of each as text messages, the same as those of a stream.
//!
//! Each turn is a request of the proxy's own ([`Inner`]), so the gate, quotas and logs treat it like a POST. The
//! connection's task drives the turns; there is no other. Responses that are not stored are kept in the connection's
//! own memory, and go with it.

pub(super) mod message;
pub(super) mod remembered;

use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use axum::{
    body::Body,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use http_body::Body as _;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::{sync::watch, time::Instant};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        self, Message,
        error::CapacityError,
        handshake::derive_accept_key,
        protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
    },
};

use message::{Asked, Create, error_event, events, in_lane, read, response_id};
use remembered::Remembered;

use super::{Turn, background::request};
use crate::{
    app::{self, App, Refusal, Shared},
    error::Error,
    gate::{Inner, Owner},
    observe::{Reason, Recorder},
    offload,
};

/// Maximum number of turns that run at the same time on one connection, each in a lane (`stream_id`) of its own.
const LANES: usize = 8;

/// Maximum number of turns that wait for one in their lane.
const WAITING: usize = 16;

/// How many connections are open.
#[derive(Debug, Default)]
pub(crate) struct Sockets(AtomicUsize);

/// One open connection.
#[derive(Debug)]
struct Place(Arc<Sockets>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Sockets {
    fn enter(self: &Arc<Self>, most: usize) -> Option<Place> {
        let entered =
            self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |open| (open < most).then_some(open + 1));
        entered.ok().map(|_| Place(self.clone()))
    }

    /// How many are open now.
    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// A connection whose handshake is answered. It runs once the answer is sent.
#[derive(Debug)]
pub(crate) struct Socket {
    upgrade: OnUpgrade,
    owner: Owner,
    place: Place,
}

/// Hands a [`Socket`] to the connection beside the response to its handshake.
#[derive(Clone, Debug)]
struct Opening(Arc<Mutex<Option<Socket>>>);

impl Socket {
    /// The connection that `response` opens.
    pub(crate) fn opened_by(response: &mut Response) -> Option<Self> {
        let Opening(socket) = response.extensions_mut().remove()?;
        socket.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// What a turn has of its connection.
#[derive(Debug)]
pub(crate) struct Session {
    /// The responses that are not stored.
    pub(super) memory: Arc<Remembered>,
    /// That of the turn's exchange, once its handler runs.
    recorder: OnceLock<Recorder>,
}

impl Session {
    /// The turn has begun.
    pub(super) fn began(&self, recorder: &Recorder) {
        let _ = self.recorder.set(recorder.clone());
    }
}

/// Answers the handshake (RFC 6455, 4.2).
pub(crate) async fn connect(State(app): State<App>, owner: Owner, mut request: Request) -> Response {
    let headers = request.headers();
    let version = headers.get(header::SEC_WEBSOCKET_VERSION).map(HeaderValue::as_bytes);
    let key = headers.get(header::SEC_WEBSOCKET_KEY).filter(|_| asks(headers) && version == Some(b"13"));
    let Some(accept) = key.and_then(|key| HeaderValue::try_from(derive_accept_key(key.as_bytes())).ok()) else {
        let message =
            "GET on this path opens a WebSocket (RFC 6455, version 13); to create a response without one, send a POST"
                .to_owned();
        let mut response = Error::Http { status: StatusCode::UPGRADE_REQUIRED, message }.into_response();
        response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        response.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        return response;
    };
    let most = app.config.responses.max_websockets;
    let Some(place) = app.sockets.enter(most) else {
        let message =
            format!("{most} WebSockets are open already (responses.max_websockets); use POST, or try again later");
        return Error::Busy { message }.into_response();
    };
    let socket = Socket { upgrade: hyper::upgrade::on(&mut request), owner, place };
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    response.extensions_mut().insert(Opening(Arc::new(Mutex::new(Some(socket)))));
    response
}

/// Whether the client asks for a WebSocket.
fn asks(headers: &HeaderMap) -> bool {
    let has = |name: HeaderName, word: &str| {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|value| value.trim().eq_ignore_ascii_case(word))
    };
    has(header::CONNECTION, "upgrade") && has(header::UPGRADE, "websocket")
}

type Stream = WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>;

/// How a connection ends.
#[derive(Debug)]
enum End {
    /// The client has closed it, or is gone.
    Gone,
    /// The proxy closes it.
    Close(CloseCode, &'static str),
}

impl Socket {
    /// Serves the connection until either side closes it. `shared` is what each turn is answered with; `stopping`
    /// becomes true when the listener closes: turns that run may end, and no other begins.
    pub(crate) async fn run(self, shared: impl Fn() -> Arc<Shared>, mut stopping: watch::Receiver<bool>) {
        let Self { upgrade, owner, place: _place } = self;
        let upgraded = match upgrade.await {
            Ok(upgraded) => upgraded,
            Err(error) => return tracing::debug!("a WebSocket could not be opened: {error}"),
        };
        let limit = shared().config.limits.body;
        let config = WebSocketConfig::default()
            // What an idle connection holds.
            .read_buffer_size(4 << 10)
            .write_buffer_size(0)
            .max_message_size(Some(limit))
            .max_frame_size(Some(limit));
        let mut stream = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
        let mut turns = Turns { owner, memory: None, lanes: Vec::new() };
        let end = turns.serve(&mut stream, &shared, &mut stopping).await;
        // What still runs is canceled.
        drop(turns);
        if let End::Close(code, reason) = end {
            let _ = stream.close(Some(CloseFrame { code, reason: reason.into() })).await;
            // The client answers with a close of its own; one that does not is left.
            let answered = async { while let Some(Ok(_)) = stream.next().await {} };
            let _ = tokio::time::timeout(std::time::Duration::from_secs(1), answered).await;
        }
    }
}

/// Returns once the listener closes.
pub(crate) async fn stopped(stopping: &mut watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

/// The turns of one connection.
struct Turns {
    owner: Owner,
    /// Made with the first turn: an idle connection needs none.
    memory: Option<Arc<Remembered>>,
    lanes: Vec<Lane>,
}

/// Turns that run one after the other.
struct Lane {
    /// What the client calls it (`stream_id`).
    id: Option<String>,
    waiting: VecDeque<Create>,
    running: Option<Running>,
}

/// A turn that runs.
struct Running {
    session: Arc<Session>,
    /// The id of the response, once it is known.
    id: Option<String>,
    previous: Option<String>,
    /// Whether it has failed.
    failed: bool,
    stage: Stage,
}

enum Stage {
    Asking(Pin<Box<dyn Future<Output = Response> + Send>>),
    Streaming(Body),
}

/// What a turn gives.
enum Step {
    /// Whole frames of its stream.
    Frames(Bytes),
    /// It was refused.
    Refused(Error, HeaderMap),
    /// It has ended.
    Ended,
}

impl Running {
    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        loop {
            match &mut self.stage {
                Stage::Asking(asking) => {
                    let mut response = std::task::ready!(asking.as_mut().poll(cx));
                    if let Some(Refusal(error)) = response.extensions_mut().remove() {
                        self.failed = true;
                        let headers = std::mem::take(response.headers_mut());
                        // Read to its end, so that the log does not call the client gone. It is there at once.
                        let mut body = response.into_body();
                        while let Poll::Ready(Some(Ok(_))) = Pin::new(&mut body).poll_frame(cx) {}
                        return Poll::Ready(Step::Refused(error, headers));
                    }
                    self.stage = Stage::Streaming(response.into_body());
                }
                Stage::Streaming(body) => match std::task::ready!(Pin::new(body).poll_frame(cx)) {
                    Some(Ok(frame)) => {
                        if let Ok(data) = frame.into_data() {
                            return Poll::Ready(Step::Frames(data));
                        }
                    }
                    Some(Err(_)) => {
                        self.failed = true;
                        return Poll::Ready(Step::Ended);
                    }
                    None => return Poll::Ready(Step::Ended),
                },
            }
        }
    }
}

impl Turns {
    async fn serve(
        &mut self,
        stream: &mut Stream,
        shared: &impl Fn() -> Arc<Shared>,
        stopping: &mut watch::Receiver<bool>,
    ) -> End {
        let mut used = Instant::now();
        loop {
            let busy = !self.lanes.is_empty();
            let stops = *stopping.borrow();
            if stops && !busy {
                return End::Close(CloseCode::Away, "the proxy is shutting down");
            }
            let idle = shared().config.responses.websocket_idle;
            let until = (!busy && !idle.is_zero()).then(|| used + idle);
            let over = async move {
                match until {
                    None => std::future::pending().await,
                    Some(until) => tokio::time::sleep_until(until).await,
                }
            };
            let over = pin!(over);
            tokio::select! {
                biased;
                (at, step) = poll_fn(|cx| self.poll_step(cx)), if busy => {
                    used = Instant::now();
                    if let Err(end) = self.hand_on(at, step, stream, shared).await {
                        return end;
                    }
                }
                message = stream.next() => match self.receive(message, stream, shared, stops).await {
                    Ok(()) => used = Instant::now(),
                    Err(end) => return end,
                },
                // The loop begins with what follows.
                () = stopped(stopping), if !stops => {}
                () = over => return End::Close(CloseCode::Normal, "idle for too long (responses.websocket_idle)"),
            }
        }
    }

    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<(usize, Step)> {
        for (at, lane) in self.lanes.iter_mut().enumerate() {
            if let Some(running) = &mut lane.running
                && let Poll::Ready(step) = running.poll_step(cx)
            {
                return Poll::Ready((at, step));
            }
        }
        Poll::Pending
    }

    /// Sends what a turn has given, and begins the next one of its lane when it has ended.
    async fn hand_on(
        &mut self,
        at: usize,
        step: Step,
        stream: &mut Stream,
        shared: &impl Fn() -> Arc<Shared>,
    ) -> Result<(), End> {
        let lane = &mut self.lanes[at];
        let Some(running) = &mut lane.running else { return Ok(()) };
        let lane_id = lane.id.clone();
        let mut revoked = false;
        match step {
            Step::Frames(frames) => {
                let mut any = false;
                for event in events(&frames) {
                    any = true;
                    if running.id.is_none() {
                        running.id = response_id(&event);
                    }
                    running.failed |=
                        event.starts_with(b"{\"type\":\"response.failed\"") || !event.starts_with(b"{\"type\":");
                    let event = in_lane(&event, lane_id.as_deref());
                    stream.feed(Message::Text(event.unwrap_or_default())).await.map_err(|_| End::Gone)?;
                }
                // A heartbeat.
                if !any {
                    stream.feed(Message::Ping(Bytes::new())).await.map_err(|_| End::Gone)?;
                }
                return stream.flush().await.map_err(|_| End::Gone);
            }
            Step::Refused(error, headers) => {
                revoked = matches!(error, Error::Key { .. });
                let event = error_event(&error, &headers, lane_id.as_deref());
                stream.send(Message::text(event)).await.map_err(|_| End::Gone)?;
            }
            Step::Ended => {}
        }
        let ended = lane.running.take();
        if let Some(Running { failed: true, previous: Some(previous), .. }) = ended
            && let Some(memory) = &self.memory
        {
            memory.remove(&previous);
        }
        if revoked {
            return Err(End::Close(CloseCode::Policy, "the API key is not valid any more"));
        }
        self.begin(at, shared);
        self.drop_idle(at);
        Ok(())
    }

    /// Drops a lane in which no turn runs.
    fn drop_idle(&mut self, at: usize) {
        if self.lanes[at].running.is_none() {
            self.lanes.swap_remove(at);
        }
        if self.lanes.is_empty() {
            // An idle connection holds as little as it can.
            self.lanes = Vec::new();
        }
    }

    /// Begins the next turn of a lane that is free.
    fn begin(&mut self, at: usize, shared: &impl Fn() -> Arc<Shared>) {
        let Some(next) = self.lanes[at].waiting.pop_front() else { return };
        let shared = shared();
        let memory = self.memory.get_or_insert_default().clone();
        let session = Arc::new(Session { memory, recorder: OnceLock::new() });
        let inner = Inner { digest: self.owner.digest(), counted: false };
        let asking: Pin<Box<dyn Future<Output = Response> + Send>> =
            match request(&shared.config, inner, Turn::Socket(session.clone()), next.body) {
                Ok(request) => Box::pin(app::answer(shared, None, request)),
                Err(error) => Box::pin(async move { error.into_response() }),
            };
        let stage = Stage::Asking(asking);
        self.lanes[at].running = Some(Running { session, id: None, previous: next.previous, failed: false, stage });
    }

    /// Takes what has come from the client.
    async fn receive(
        &mut self,
        message: Option<tungstenite::Result<Message>>,
        stream: &mut Stream,
        shared: &impl Fn() -> Arc<Shared>,
        stopping: bool,
    ) -> Result<(), End> {
        let text = match message {
            Some(Ok(Message::Text(text))) => text,
            // Pings are answered by the library, pongs mean nothing.
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {
                return stream.flush().await.map_err(|_| End::Gone);
            }
            Some(Ok(Message::Binary(_))) => {
                return Err(End::Close(CloseCode::Unsupported, "only text messages are understood"));
            }
            Some(Ok(Message::Close(_))) => {
                // The library answers it.
                let _ = stream.flush().await;
                return Err(End::Gone);
            }
            Some(Err(tungstenite::Error::Capacity(CapacityError::MessageTooLong { .. }))) => {
                return Err(End::Close(CloseCode::Size, "the message is larger than limits.body"));
            }
            Some(Err(tungstenite::Error::Utf8(_))) => {
                return Err(End::Close(CloseCode::Invalid, "the message is not UTF-8"));
            }
            Some(Err(tungstenite::Error::Protocol(error))) => {
                tracing::debug!("a WebSocket broke the protocol: {error}");
                return Err(End::Close(CloseCode::Protocol, "protocol error"));
            }
            Some(Err(_)) | None => return Err(End::Gone),
        };
        let (size, now) = (text.len(), shared());
        let read = offload::run(size, move || read(text.into(), &now.config)).await;
        let (lane, outcome) = match read {
            Ok(Asked::Create(lane, create)) if !stopping => {
                let outcome = self.create(lane.clone(), create, shared);
                (lane, outcome)
            }
            Ok(Asked::Create(lane, _)) => (lane, Err(Error::Canceled { shutdown: true })),
            Ok(Asked::Cancel(lane, id)) => {
                let outcome = self.cancel(lane.as_deref(), id.as_deref(), shared);
                (lane, outcome)
            }
            Ok(Asked::Steer(event)) => {
                return stream.send(Message::text(event)).await.map_err(|_| End::Gone);
            }
            Err(error) => (None, Err(error)),
        };
        if let Err(error) = outcome {
            let event = error_event(&error, &HeaderMap::new(), lane.as_deref());
            stream.send(Message::text(event)).await.map_err(|_| End::Gone)?;
        }
        Ok(())
    }

    fn create(&mut self, id: Option<String>, create: Create, shared: &impl Fn() -> Arc<Shared>) -> Result<(), Error> {
        let at = match self.lanes.iter().position(|lane| lane.id == id) {
            Some(at) => at,
            None if self.lanes.len() < LANES => {
                self.lanes.push(Lane { id, waiting: VecDeque::new(), running: None });
                self.lanes.len() - 1
            }
            None => return Err(full(&format!("{LANES} responses run on this WebSocket already"))),
        };
        if self.lanes[at].waiting.len() >= WAITING {
            return Err(full(&format!("{WAITING} responses wait on this WebSocket already")));
        }
        self.lanes[at].waiting.push_back(create);
        if self.lanes[at].running.is_none() {
            self.begin(at, shared);
        }
        Ok(())
    }

    /// Cancels the response that runs in a lane. It ends with its own last event, or with an error where it has not
    /// begun.
    fn cancel(&mut self, lane: Option<&str>, id: Option<&str>, shared: &impl Fn() -> Arc<Shared>) -> Result<(), Error> {
        let wanted = |running: &Running| id.is_none() || running.id.as_deref() == id;
        let found = self.lanes.iter().position(|found| match lane {
            Some(lane) => found.id.as_deref() == Some(lane) && found.running.as_ref().is_some_and(wanted),
            None => found.running.as_ref().is_some_and(wanted),
        });
        let Some(at) = found else {
            return Err(Error::Invalid {
                message: "No such response runs on this WebSocket.".to_owned(),
                param: Some("response_id".to_owned()),
                code: Some("response_not_active"),
            });
        };
        let recorder = self.lanes[at].running.as_ref().and_then(|running| running.session.recorder.get());
        if let Some(recorder) = recorder {
            recorder.cancel().cancel(Reason::Caller);
            return Ok(());
        }
        self.lanes[at].running = None;
        self.begin(at, shared);
        self.drop_idle(at);
        Err(Error::CanceledByCaller)
    }
}

fn full(why: &str) -> Error {
    Error::Quota { message: format!("Too many requests at the same time: {why}."), retry_after: 1 }
}
