//! What lives longer than a request: the listener and its connections, in one set, ended at shutdown.

use std::{net::SocketAddr, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::{GracefulShutdown, Watcher},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinSet,
};

/// How long a client may take to send a request's head, or keep a connection open between two requests. Longer than any client's own limit
/// (about 90 s), so that none finds its connection closed while it sends.
const HEAD_WITHIN: Duration = Duration::from_secs(120);

/// A listener at work.
#[derive(Debug)]
pub(crate) struct Serving {
    pub(crate) addr: SocketAddr,
    stop: oneshot::Sender<Duration>,
    set: JoinSet<()>,
}

impl Serving {
    /// Accepts connections on `listener` and answers them with `router`.
    pub(crate) fn start(listener: TcpListener, addr: SocketAddr, router: Router) -> Self {
        let (stop, stopped) = oneshot::channel();
        let mut set = JoinSet::new();
        set.spawn(listen(listener, router, stopped));
        Self { addr, stop, set }
    }

    /// Takes no new connections, lets the answers in flight end within `grace`, then cuts what is left.
    pub(crate) async fn stop(mut self, grace: Duration) {
        // The listener is gone already if nobody receives this.
        let _ = self.stop.send(grace);
        while self.set.join_next().await.is_some() {}
    }
}

async fn listen(listener: TcpListener, router: Router, mut stopped: oneshot::Receiver<Duration>) {
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let grace = loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(converse(stream, router.clone(), graceful.watcher()));
                }
                // Out of file descriptors, say: connections that end will free some.
                Err(error) => {
                    tracing::warn!("cannot accept a connection: {error}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
            Some(_) = connections.join_next() => {}
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

async fn converse(stream: TcpStream, router: Router, watcher: Watcher) {
    // Small events must not wait for each other.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!("no TCP_NODELAY: {error}");
    }
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        // An answer that passes through gets no header of ours.
        .auto_date_header(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    // Clients leave in many ways; the exchange tells how it ended.
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!("connection ended: {error}");
    }
}
