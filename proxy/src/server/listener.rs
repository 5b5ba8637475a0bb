//! What lives longer than a request: the listener and its connections, in one set, ended at shutdown.

use std::{
    cmp::Reverse,
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use axum::body::Body;
use http::{HeaderValue, Request, Response, StatusCode, Version, header::CONNECTION};
use http_body::Body as HttpBody;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{Notify, oneshot, watch},
    task::{AbortHandle, Id, JoinSet},
    time::Instant,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::{
    app::{self, Shared},
    config::Limits,
    openai::responses::socket::{self, Socket},
    retain::Retain,
    server::{
        body_timeout::TimedBody,
        connection::{ConnState, TimedStream, network},
    },
};

/// hyper reads at most this much of a body at a time. Independent of `limits.head`, so that a small limit on heads does
/// not slow uploads.
const READ_BUFFER: usize = 256 << 10;

/// After how long without traffic the system asks whether a client is still there, how often it asks, and how many
/// times.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(60), Duration::from_secs(15), 4);

/// How many connections are accepted in a row before others get a turn.
const ACCEPTS: usize = 8;

/// How long an evicted connection may take to close before it is cut.
const EVICTION: Duration = Duration::from_millis(100);

/// How often a listener that cannot accept logs it.
const ACCEPT_LOG: Duration = Duration::from_secs(10);

/// What requests are answered with, until it is replaced.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) shared: Arc<Shared>,
    /// None: clear text.
    pub(crate) tls: Option<TlsAcceptor>,
    pub(crate) limits: Limits,
}

/// The setup in force. A request keeps the one that it began with; reading it takes no lock.
type InForce = Arc<ArcSwap<Setup>>;

/// A request on a connection beyond `limits.connections_per_address`: it is refused before its body is read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OverAddressLimit(pub(crate) usize);

/// A running listener.
pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    setup: InForce,
    stop: oneshot::Sender<()>,
    /// Resolves once the socket is closed.
    closed: oneshot::Receiver<()>,
    set: JoinSet<()>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("addr", &self.addr).finish_non_exhaustive()
    }
}

impl Server {
    /// Accepts connections on `listener` and answers their requests with `setup`.
    pub(crate) fn start(listener: TcpListener, addr: SocketAddr, setup: Setup) -> Self {
        let ((stop, stopped), (close, closed)) = (oneshot::channel(), oneshot::channel());
        let mut set = JoinSet::new();
        let setup = Arc::new(ArcSwap::from_pointee(setup));
        set.spawn(listen(listener, setup.clone(), stopped, close));
        Self { addr, setup, stop, closed, set }
    }

    /// Answers requests with `setup` from now on; requests in flight keep theirs.
    pub(crate) fn replace(&self, setup: Setup) {
        self.setup.store(Arc::new(setup));
    }

    /// Closes the socket, so that the address is free again, and returns what serves the requests in flight until the
    /// last one has ended. Dropping that cuts them.
    pub(crate) async fn close(self) -> impl Future<Output = ()> + Send {
        let Self { stop, closed, mut set, .. } = self;
        // Both fail only if the listener has ended already.
        let _ = stop.send(());
        let _ = closed.await;
        async move { while set.join_next().await.is_some() {} }
    }
}

async fn listen(listener: TcpListener, setup: InForce, mut stopped: oneshot::Receiver<()>, close: oneshot::Sender<()>) {
    // True when the listener closes. Every connection subscribes to it, and is waited for.
    let stopping = watch::Sender::new(false);
    let mut open = Connections::default();
    let idle = Arc::new(Notify::new());
    let mut accept_failed: Option<Instant> = None;
    // Accepted while all connections were busy: it waits until one of them is idle or gone, and no other is accepted
    // meanwhile.
    let mut waiting: Option<(TcpStream, SocketAddr)> = None;
    let mut accepted_in_a_row = 0;
    let draining = loop {
        tokio::select! {
            accepted = listener.accept(), if waiting.is_none() => match accepted {
                Ok(accepted) => waiting = Some(accepted),
                // For example, no file descriptor is free: connections that end will free some.
                Err(error) => {
                    if accept_failed.is_none_or(|last| last.elapsed() >= ACCEPT_LOG) {
                        accept_failed = Some(Instant::now());
                        tracing::warn!("cannot accept connections: {error}");
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
            Some(ended) = open.tasks.join_next_with_id() => {
                open.remove(ended.map_or_else(|error| error.id(), |(id, ())| id));
            }
            () = idle.notified(), if waiting.is_some() => {}
            // A dropped sender is a dropped server: nothing is waited for.
            stop = &mut stopped => break stop.is_ok(),
        }
        if let Some((stream, addr)) = waiting.take() {
            let limits = setup.load();
            let (most, per_address) = (limits.limits.connections, limits.limits.connections_per_address);
            let peer = network(addr.ip());
            let full = |open: &Connections| per_address > 0 && open.of(peer) >= per_address;
            while full(&open) && open.evict_idle(&idle, |state| state.peer() == peer).await {
                tracing::debug!("{peer} has {per_address} connections: its longest idle one is evicted");
            }
            if most > 0 && open.len() >= most && !open.evict_idle(&idle, |_| true).await {
                waiting = Some((stream, addr));
                continue;
            }
            let state = ConnState::new(addr.ip(), idle.clone());
            let over = full(&open).then_some(OverAddressLimit(per_address));
            let serving = serve_connection(stream, setup.clone(), state.clone(), over, stopping.subscribe());
            open.spawn(state, serving);
            accepted_in_a_row += 1;
            if accepted_in_a_row == ACCEPTS {
                accepted_in_a_row = 0;
                tokio::task::yield_now().await;
            }
        }
    };
    drop(listener);
    // A connection that was accepted while all others were busy is closed with the socket.
    drop(waiting);
    let _ = close.send(());
    if draining {
        stopping.send_replace(true);
        stopping.closed().await;
    }
    open.tasks.shutdown().await;
}

/// The open connections.
#[derive(Default)]
struct Connections {
    tasks: JoinSet<()>,
    states: HashMap<Id, (AbortHandle, ConnState)>,
    per_peer: HashMap<IpAddr, usize>,
}

impl Connections {
    fn len(&self) -> usize {
        self.states.len()
    }

    /// How many connections `peer` has.
    fn of(&self, peer: IpAddr) -> usize {
        self.per_peer.get(&peer).copied().unwrap_or(0)
    }

    fn spawn(&mut self, state: ConnState, serving: impl Future<Output = ()> + Send + 'static) {
        *self.per_peer.entry(state.peer()).or_default() += 1;
        let handle = self.tasks.spawn(serving);
        self.states.insert(handle.id(), (handle, state));
    }

    fn remove(&mut self, id: Id) {
        let Some((_, state)) = self.states.remove(&id) else { return };
        if let Some(count) = self.per_peer.get_mut(&state.peer()) {
            *count -= 1;
            if *count == 0 {
                self.per_peer.remove(&state.peer());
            }
        }
    }

    /// Closes an idle connection of those that `may` be closed: of the client that has the most connections, the one
    /// that has been idle for the longest. One on which a request has
    /// arrived stays, and the next is looked at. False if there is none.
    async fn evict_idle(&mut self, idle: &Notify, may: impl Fn(&ConnState) -> bool) -> bool {
        loop {
            let idling = self.states.iter().filter(|(_, (_, state))| may(state));
            let idling =
                idling.filter_map(|(id, (_, state))| Some((Reverse(self.of(state.peer())), state.idle_since()?, *id)));
            let Some((.., id)) = idling.min_by_key(|(connections, since, _)| (*connections, *since)) else {
                return false;
            };
            let Some((handle, state)) = self.states.get(&id).cloned() else { return false };
            if !state.try_evict() {
                continue;
            }
            let decided = async {
                while state.is_asked() {
                    idle.notified().await;
                }
            };
            if tokio::time::timeout(EVICTION, decided).await.is_err() {
                state.decide(true);
            }
            if state.is_evicted() {
                handle.abort();
                self.remove(id);
                return true;
            }
        }
    }
}

async fn serve_connection(
    stream: TcpStream,
    setup: InForce,
    state: ConnState,
    over: Option<OverAddressLimit>,
    stopping: watch::Receiver<bool>,
) {
    let begun = setup.load_full();
    let limits = &begun.limits;
    let peer = stream.peer_addr().ok();
    if let Err(error) = set_socket_options(&stream, limits) {
        tracing::debug!("cannot set socket options: {error}");
    }
    let Some(tls) = &begun.tls else { return serve_http((stream, peer), setup, limits, state, over, stopping).await };
    // Boxed, so that connections in clear text do not carry the room for it.
    Box::pin(async {
        if let Some(stream) = accept_tls(stream, tls, limits).await {
            serve_http((stream, peer), setup, limits, state, over, stopping).await;
        }
    })
    .await;
}

fn set_socket_options(stream: &TcpStream, limits: &Limits) -> std::io::Result<()> {
    // Small events must not wait for each other.
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let (time, interval, retries) = KEEPALIVE;
    let keepalive = TcpKeepalive::new().with_time(time).with_interval(interval);
    #[cfg(not(target_os = "openbsd"))]
    let keepalive = keepalive.with_retries(retries);
    socket.set_tcp_keepalive(&keepalive)?;
    // A client that is gone, or reads nothing, acknowledges nothing.
    #[cfg(any(target_os = "android", target_os = "linux"))]
    if !limits.write_idle.is_zero() {
        socket.set_tcp_user_timeout(Some(limits.write_idle))?;
    }
    Ok(())
}

async fn accept_tls(stream: TcpStream, tls: &TlsAcceptor, limits: &Limits) -> Option<TlsStream<TcpStream>> {
    // A client that never finishes its handshake is one that never finishes its head.
    let within = if limits.head_time.is_zero() { limits.idle } else { limits.head_time };
    let handshake = tls.accept(stream);
    let accepted = if within.is_zero() {
        handshake.await
    } else {
        match tokio::time::timeout(within, handshake).await {
            Ok(accepted) => accepted,
            Err(_) => {
                tracing::debug!("a TLS handshake took too long");
                return None;
            }
        }
    };
    accepted.inspect_err(|error| tracing::debug!("the TLS handshake failed: {error}")).ok()
}

/// Whether a client of HTTP/1.0 finds the end of `response` at the end of the connection only, or knows that it closes.
fn ends_with_connection(response: &Response<Body>) -> bool {
    response.body().size_hint().exact().is_none()
        || response.headers().get(CONNECTION).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"close"))
}

/// The connection was evicted just before this request arrived.
#[derive(Debug, thiserror::Error)]
#[error("the connection was evicted to make room for another")]
struct Evicted;

async fn serve_http<S>(
    (stream, peer): (S, Option<SocketAddr>),
    setup: InForce,
    limits: &Limits,
    state: ConnState,
    over: Option<OverAddressLimit>,
    mut stopping: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let traffic = setup.load().shared.traffic.clone();
    let stream = TimedStream::new(stream, state.clone(), limits).counted(traffic);
    // The WebSocket that the connection becomes.
    let opened = Arc::new(Mutex::new(None));
    let (opening, current) = (opened.clone(), setup.clone());
    let answer = service_fn(move |mut request: Request<Incoming>| {
        let in_flight = state.begin();
        let setup = setup.load();
        let version = request.version();
        if let Some(over) = over {
            request.extensions_mut().insert(over);
        }
        let request = request.map(|body| Body::new(TimedBody::new(body, &setup.limits, state.clone())));
        let opening = opening.clone();
        let answering = app::answer(setup.shared.clone(), peer, Box::new(request));
        // Boxed: the room for it is given back once the response begins.
        Box::pin(async move {
            let in_flight = in_flight.ok_or(Evicted)?;
            let mut response = answering.await;
            if version == Version::HTTP_10 && ends_with_connection(&response) {
                // hyper adds `Connection: keep-alive` for a client of HTTP/1.0, but not to a response of that version.
                *response.version_mut() = Version::HTTP_10;
            }
            if response.status() == StatusCode::SWITCHING_PROTOCOLS
                && let Some(socket) = Socket::opened_by(&mut response)
            {
                let mut opening = opening.lock().unwrap_or_else(PoisonError::into_inner);
                *opening = Some((socket, in_flight));
                return Ok(response);
            }
            if over.is_some() {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Evicted>(response.map(|body| Body::new(Retain::new(body, in_flight))))
        })
    });
    let connection = http1::Builder::new()
        // Its timer would be made anew for each request; `TimedStream` has the timeouts.
        .header_read_timeout(None)
        .max_header_size(limits.head)
        .max_buf_size(READ_BUFFER.max(limits.head))
        // Responses that pass through get no header of ours.
        .auto_date_header(false)
        .serve_connection(TokioIo::new(stream), answer)
        .with_upgrades();
    // Clients leave in many ways; the exchange's own log line says how it ended.
    let served = {
        let mut connection = pin!(connection);
        tokio::select! {
            served = connection.as_mut() => served,
            () = socket::stopped(&mut stopping) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    };
    if let Err(error) = served {
        tracing::debug!(peer = peer.map(tracing::field::display), "connection ended: {error}");
    }
    let opened = opened.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some((socket, in_flight)) = opened {
        // Boxed, so that other connections do not carry the room for it.
        Box::pin(socket.run(move || current.load().shared.clone(), stopping)).await;
        drop(in_flight);
    }
}
