//! The proxy as an operator steers it: its configuration, the state that outlives it, and the data listener, which can
//! be stopped and started again while requests in flight go on.

use std::{
    io,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{
    net::TcpListener,
    sync::watch,
    task::{AbortHandle, JoinSet},
};

use crate::{
    app::Persistent,
    config::Config,
    server::listener::{Server, Setup},
    setup,
};

/// How long requests get to end with an error once the grace is over.
const LAST: Duration = Duration::from_secs(1);

/// A proxy.
pub(crate) struct Control {
    config: ArcSwap<Config>,
    setup: ArcSwap<Setup>,
    pub(crate) persistent: Persistent,
    addr: SocketAddr,
    /// None: stopped.
    listener: Mutex<Option<Server>>,
    /// Listeners that were stopped, while they serve requests in flight.
    draining: Mutex<JoinSet<()>>,
    /// Closes idle connections to the remote: one task for each configuration that requests were answered by. And the
    /// worker of a shared store.
    reapers: Mutex<JoinSet<()>>,
    /// Watches the health of the remotes of the configuration in force.
    watcher: Mutex<AbortHandle>,
    /// Changes with the remote.
    remote: watch::Sender<()>,
    /// Set when the process is about to end.
    stopping: AtomicBool,
    /// Held while the listener is stopped or started: one of these at a time.
    operation: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control").field("addr", &self.addr).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Control {
    /// # Errors
    /// Fails if TLS cannot be set up, or if anyone could use the proxy without a key.
    pub(crate) fn start(config: Config, listener: TcpListener, persistent: Persistent) -> io::Result<Self> {
        let addr = listener.local_addr()?;
        let setup = setup(config.clone(), addr, &persistent)?;
        let mut reapers = JoinSet::new();
        for member in setup.shared.remotes.all() {
            reapers.spawn(member.client.reaper());
        }
        if let Some(exporter) = persistent.tracer.set(&config.traces)? {
            reapers.spawn(exporter);
        }
        let watcher = reapers.spawn(setup.shared.remotes.watch());
        if let Some(worker) = persistent.store.current().and_then(|store| store.worker()) {
            reapers.spawn(worker);
        }
        Ok(Self {
            config: ArcSwap::from_pointee(config),
            setup: ArcSwap::from_pointee(setup.clone()),
            persistent,
            addr,
            listener: Mutex::new(Some(Server::start(listener, addr, setup))),
            draining: Mutex::default(),
            stopping: AtomicBool::new(false),
            reapers: Mutex::new(reapers),
            watcher: Mutex::new(watcher),
            remote: watch::Sender::new(()),
            operation: tokio::sync::Mutex::default(),
        })
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Whether the data listener accepts connections.
    pub(crate) fn is_listening(&self) -> bool {
        lock(&self.listener).is_some()
    }

    /// Whether the process is about to end: requests in flight have their grace.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    pub(crate) fn config(&self) -> Arc<Config> {
        self.config.load_full()
    }

    /// What requests are answered with.
    pub(crate) fn setup(&self) -> Arc<Setup> {
        self.setup.load_full()
    }

    /// Answers requests by `config` from now on; requests in flight keep theirs.
    ///
    /// # Errors
    /// Fails if TLS cannot be set up. Then nothing changes.
    pub(crate) fn reload(&self, config: Config) -> io::Result<()> {
        let setup = setup(config.clone(), self.addr, &self.persistent)?;
        let remotes =
            |setup: &Setup| setup.shared.remotes.all().iter().map(|member| member.client.remote()).collect::<Vec<_>>();
        let other = remotes(&self.setup.load()) != remotes(&setup);
        let own: Vec<_> = setup.shared.remotes.all().iter().map(|member| member.client.reaper()).collect();
        let exporter = self.persistent.tracer.set(&config.traces)?;
        let watch = setup.shared.remotes.watch();
        self.setup.store(Arc::new(setup.clone()));
        self.config.store(Arc::new(config));
        if let Some(server) = &*lock(&self.listener) {
            server.replace(setup);
        }
        let mut reapers = lock(&self.reapers);
        // Those of configurations that are gone have ended.
        while reapers.try_join_next().is_some() {}
        for reaper in own {
            reapers.spawn(reaper);
        }
        if let Some(exporter) = exporter {
            reapers.spawn(exporter);
        }
        std::mem::replace(&mut *lock(&self.watcher), reapers.spawn(watch)).abort();
        if let Some(worker) = self.persistent.store.current().and_then(|store| store.worker()) {
            reapers.spawn(worker);
        }
        drop(reapers);
        if other {
            self.remote.send_replace(());
        }
        Ok(())
    }

    /// Returns once the remote in force is another one.
    pub(crate) async fn remote_changed(&self) {
        // The sender lives as long as this.
        let _ = self.remote.subscribe().changed().await;
    }

    /// Stops the data listener. Requests in flight go on. Returns whether it was running.
    pub(crate) async fn stop(&self) -> bool {
        let _operation = self.operation.lock().await;
        self.close().await
    }

    /// Starts the data listener where it listened before. Returns whether it was stopped.
    ///
    /// # Errors
    /// Fails if the address cannot be listened on.
    pub(crate) async fn resume(&self) -> io::Result<bool> {
        let _operation = self.operation.lock().await;
        self.open().await
    }

    /// Stops and starts the data listener. Requests in flight go on.
    ///
    /// # Errors
    /// Fails if the address cannot be listened on again.
    pub(crate) async fn restart(&self) -> io::Result<()> {
        let _operation = self.operation.lock().await;
        self.close().await;
        self.open().await.map(|_| ())
    }

    async fn close(&self) -> bool {
        let Some(server) = lock(&self.listener).take() else { return false };
        let draining = server.close().await;
        let mut all = lock(&self.draining);
        while all.try_join_next().is_some() {}
        all.spawn(draining);
        true
    }

    async fn open(&self) -> io::Result<bool> {
        if self.is_stopping() {
            return Err(io::Error::other("farllama is shutting down"));
        }
        if self.is_listening() {
            return Ok(false);
        }
        let listener = TcpListener::bind(self.addr).await?;
        let setup = Setup::clone(&self.setup.load());
        *lock(&self.listener) = Some(Server::start(listener, self.addr, setup));
        Ok(true)
    }

    /// Stops for good: no new connections; requests in flight may end within `grace`, then they end with an error.
    pub(crate) async fn shut_down(&self, grace: Duration) {
        self.stopping.store(true, Ordering::Relaxed);
        self.stop().await;
        let mut draining = std::mem::take(&mut *lock(&self.draining));
        let (tasks, batches) = (&self.persistent.tasks, &self.persistent.batches);
        batches.stop();
        let mut drained = pin!(async {
            while draining.join_next().await.is_some() {}
            tasks.ended().await;
            batches.tasks.ended().await;
        });
        if tokio::time::timeout(grace, &mut drained).await.is_ok() {
            return self.flush().await;
        }
        let requests = self.persistent.in_flight.count();
        tracing::warn!(target: "farllama", "shutdown.grace is over: ending {requests} running requests with an error");
        self.persistent.in_flight.cancel_all();
        if tokio::time::timeout(LAST, drained).await.is_err() {
            tracing::warn!(target: "farllama", "cutting connections whose clients do not read");
        }
        self.flush().await;
    }

    /// Sends what waits to be sent: traces, and what requests held on the shared store, so that other processes need
    /// not wait until it expires.
    async fn flush(&self) {
        self.persistent.tracer.flush(LAST).await;
        if let Some(store) = self.persistent.store.current() {
            store.flush(LAST).await;
        }
    }

    /// Ends everything at once.
    pub(crate) fn cut(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.persistent.in_flight.cancel_all();
        drop(lock(&self.listener).take());
        lock(&self.draining).abort_all();
        lock(&self.reapers).abort_all();
        self.persistent.tasks.abort_all();
        self.persistent.batches.tasks.abort_all();
    }
}
