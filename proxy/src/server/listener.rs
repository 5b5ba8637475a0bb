//! What lives longer than a request: the listener and its connections, in one set, ended at shutdown.

use std::{collections::HashMap, convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use axum::{Router, body::Body};
use http::Request;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::TokioIo,
    server::graceful::{GracefulShutdown, Watcher},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{Notify, oneshot},
    task::{AbortHandle, Id, JoinSet},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tower::ServiceExt;

use crate::{
    config::Limits,
    server::{
        body_timeout::Upload,
        connection::{Answer, Heads, Seat},
    },
};

/// What connections are answered with, until it is replaced.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) router: Router,
    /// None: clear text.
    pub(crate) tls: Option<TlsAcceptor>,
    pub(crate) limits: Limits,
}

/// The setup in force. A request keeps the one that it began with; to look at it takes no lock.
type InForce = Arc<ArcSwap<Setup>>;

/// A listener at work.
pub(crate) struct Serving {
    pub(crate) addr: SocketAddr,
    setup: InForce,
    stop: oneshot::Sender<Duration>,
    set: JoinSet<()>,
}

impl std::fmt::Debug for Serving {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Serving").field("addr", &self.addr).finish_non_exhaustive()
    }
}

impl Serving {
    /// Accepts connections on `listener` and answers them with `setup`.
    pub(crate) fn start(listener: TcpListener, addr: SocketAddr, setup: Setup) -> Self {
        let (stop, stopped) = oneshot::channel();
        let mut set = JoinSet::new();
        let setup = Arc::new(ArcSwap::from_pointee(setup));
        set.spawn(listen(listener, setup.clone(), stopped));
        Self { addr, setup, stop, set }
    }

    /// From now on requests are answered with `setup`; those that run go on as they began.
    pub(crate) fn replace(&self, setup: Setup) {
        self.setup.store(Arc::new(setup));
    }

    /// Takes no new connections, lets the answers in flight end within `grace`, then cuts what is left.
    pub(crate) async fn stop(mut self, grace: Duration) {
        // The listener is gone already if nobody receives this.
        let _ = self.stop.send(grace);
        while self.set.join_next().await.is_some() {}
    }
}

async fn listen(listener: TcpListener, setup: InForce, mut stopped: oneshot::Receiver<Duration>) {
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let mut seats: HashMap<Id, (AbortHandle, Seat)> = HashMap::new();
    let idle = Arc::new(Notify::new());
    let grace = loop {
        let most = setup.load().limits.connections;
        let full = most > 0 && seats.len() >= most;
        // Whoever has been idle for the longest makes room; if nobody is, whoever comes waits until somebody is.
        let room = if full { longest_idle(&seats) } else { None };
        tokio::select! {
            accepted = listener.accept(), if !full || room.is_some() => match accepted {
                Ok((stream, _)) => {
                    if let Some((handle, _)) = room.and_then(|id| seats.remove(&id)) {
                        tracing::debug!("{most} connections are open: the one that was idle for the longest is closed");
                        handle.abort();
                    }
                    let seat = Seat::new(idle.clone());
                    let handle = connections.spawn(greet(stream, setup.clone(), seat.clone(), graceful.watcher()));
                    seats.insert(handle.id(), (handle, seat));
                }
                // Out of file descriptors, say: connections that end will free some.
                Err(error) => {
                    tracing::warn!("cannot accept a connection: {error}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
            Some(ended) = connections.join_next_with_id() => {
                seats.remove(&ended.map_or_else(|error| error.id(), |(id, ())| id));
            }
            () = idle.notified(), if full => {}
            // A dropped sender is a dropped server: no grace.
            grace = &mut stopped => break grace.unwrap_or_default(),
        }
    };
    drop(listener);
    if tokio::time::timeout(grace, graceful.shutdown()).await.is_err() {
        tracing::warn!("{} answers were still running at shutdown and are cut", connections.len());
    }
    connections.shutdown().await;
}

fn longest_idle(seats: &HashMap<Id, (AbortHandle, Seat)>) -> Option<Id> {
    let idle = seats.iter().filter_map(|(id, (_, seat))| Some((seat.idle_since()?, *id)));
    idle.min_by_key(|(since, _)| *since).map(|(_, id)| id)
}

async fn greet(stream: TcpStream, setup: InForce, seat: Seat, watcher: Watcher) {
    // Small events must not wait for each other.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!("no TCP_NODELAY: {error}");
    }
    let begun = setup.load_full();
    let limits = &begun.limits;
    let Some(tls) = &begun.tls else { return converse(stream, setup, limits, seat, watcher).await };
    // Boxed, so that connections in clear text do not carry the room for it.
    Box::pin(async {
        if let Some(stream) = shake_hands(stream, tls, limits).await {
            converse(stream, setup, limits, seat, watcher).await;
        }
    })
    .await;
}

async fn shake_hands(stream: TcpStream, tls: &TlsAcceptor, limits: &Limits) -> Option<TlsStream<TcpStream>> {
    // A client that never finishes its handshake is one that never finishes its head.
    let within = if limits.head_time.is_zero() { limits.idle } else { limits.head_time };
    let greeting = tls.accept(stream);
    let greeted = if within.is_zero() {
        greeting.await
    } else {
        match tokio::time::timeout(within, greeting).await {
            Ok(greeted) => greeted,
            Err(_) => {
                tracing::debug!("a TLS handshake took too long");
                return None;
            }
        }
    };
    greeted.inspect_err(|error| tracing::debug!("no TLS: {error}")).ok()
}

async fn converse<S>(stream: S, setup: InForce, limits: &Limits, seat: Seat, watcher: Watcher)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let stream = Heads::new(stream, seat.clone(), limits);
    let body_idle = limits.body_idle;
    let answer = service_fn(move |request: Request<Incoming>| {
        let answering = seat.begin();
        let answer = setup.load().router.clone().oneshot(request.map(|body| Body::new(Upload::new(body, body_idle))));
        async move { Ok::<_, Infallible>(answer.await?.map(|body| Answer::new(body, answering))) }
    });
    let connection = http1::Builder::new()
        // Its timer would be made anew for each request; `Heads` looks after idle connections and slow heads.
        .header_read_timeout(None)
        .max_buf_size(limits.head.max(8 << 10))
        // An answer that passes through gets no header of ours.
        .auto_date_header(false)
        .serve_connection(TokioIo::new(stream), answer);
    // Clients leave in many ways; the exchange tells how it ended.
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!("connection ended: {error}");
    }
}
