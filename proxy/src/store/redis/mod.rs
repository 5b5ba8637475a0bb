//! Limits and records that several proxies share, in Redis or Valkey.
//!
//! Each decision is one script, atomic on the server and by its clock: `limits.lua` and `records.lua`. Scripts can run
//! twice without counting twice, so a call whose answer was lost with its connection is sent again. What a request
//! holds is a lease, which expires unless the process that runs the request renews it; a process that dies gives
//! everything back. [`Redis::worker`], one task for each store, renews leases and ends them, because a request that is
//! dropped cannot await.

mod held;
mod records;

use std::{
    collections::HashMap,
    fmt, io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use redis::{
    Client, ConnectionAddr, ConnectionInfo, ErrorKind, FromRedisValue, IntoConnectionInfo, RedisError, Script,
    ServerErrorKind, TlsCertificates,
    aio::{ConnectionManager, ConnectionManagerConfig},
};
use tokio::sync::{mpsc, oneshot};

use crate::config;

/// How many ends of requests may wait for the server. Beyond them leases end by themselves.
const WAITING: usize = 16 << 10;

/// While the server is unreachable, only one call in this time tries to reach it; the others fail at once.
const RETRY: Duration = Duration::from_millis(500);

/// The pause between two attempts of one call.
const PAUSE: Duration = Duration::from_millis(50);

/// How often one call follows a cluster to another of its nodes.
const REDIRECTS: u32 = 4;

/// A server that several proxies share, or a cluster, of which one node has all keys: their prefix has a hash tag.
pub(crate) struct Redis {
    /// Leads to the address of the settings.
    client: Client,
    node: Mutex<Node>,
    settings: config::Store,
    /// Its address, without a password.
    address: String,
    limits: Script,
    records: Script,
    held_script: Script,
    down: Mutex<Option<Down>>,
    /// What running requests of this process hold.
    held: Mutex<HashMap<Arc<str>, Arc<[Limit]>>>,
    ends: mpsc::Sender<End>,
    /// Taken by the worker.
    ended: Mutex<Option<mpsc::Receiver<End>>>,
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis").field("address", &self.address).finish_non_exhaustive()
    }
}

/// The server that is asked.
struct Node {
    /// None: that of the settings. A cluster may name another.
    address: Option<String>,
    connection: ConnectionManager,
}

/// The server cannot be reached.
#[derive(Clone, Copy, Debug)]
struct Down {
    since: Instant,
    tried: Instant,
}

/// The server cannot be reached, which the log says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unreachable;

impl From<Unreachable> for crate::error::Error {
    fn from(Unreachable: Unreachable) -> Self {
        let message = "the shared store of this proxy cannot be reached; please try again in a moment";
        Self::Busy { message: message.to_owned() }
    }
}

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LimitKind {
    /// Requests that begin in a window.
    Requests,
    /// Tokens in a window.
    Tokens,
    /// Requests at the same time.
    Running,
}

/// One limit, and what a request takes of it.
#[derive(Clone, Debug)]
pub(crate) struct Limit {
    pub(crate) key: String,
    pub(crate) kind: LimitKind,
    pub(crate) most: u64,
    pub(crate) window: Duration,
    pub(crate) amount: u64,
}

/// Where a limit stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SharedStanding {
    pub(crate) used: u64,
    pub(crate) reset: Duration,
}

/// What the server decided, and where each limit stands.
#[derive(Debug)]
pub(crate) struct Decision {
    pub(crate) outcome: Outcome,
    pub(crate) standings: Vec<SharedStanding>,
}

#[derive(Debug)]
pub(crate) enum Outcome {
    Admitted(Arc<Lease>),
    /// The limit with this place in the list refuses; for how long.
    Refused(usize, Duration),
}

/// What a request holds until the last clone of this is dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    redis: Arc<Redis>,
    id: Arc<str>,
    limits: Arc<[Limit]>,
    /// Whether the request began, so that it counts.
    began: AtomicBool,
    /// The tokens that it used.
    tokens: AtomicU64,
    /// Whether the server may know of it.
    sent: AtomicBool,
}

impl Lease {
    /// From here on the request counts, even if the client leaves before its answer.
    pub(crate) fn begin(&self) {
        self.began.store(true, Ordering::Relaxed);
    }

    /// Sets the tokens that the request used.
    pub(crate) fn settle(&self, tokens: u64) {
        self.tokens.store(tokens, Ordering::Relaxed);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.redis.held().remove(&self.id);
        if !*self.sent.get_mut() {
            return;
        }
        let (began, tokens) = (*self.began.get_mut(), *self.tokens.get_mut());
        // A request that began stays in its window, and holds nothing else.
        if began && self.limits.iter().all(|limit| limit.kind == LimitKind::Requests) {
            return;
        }
        let ended = |limit: &Limit| {
            let amount = match limit.kind {
                LimitKind::Requests => u64::from(!began),
                LimitKind::Tokens => tokens,
                LimitKind::Running => 0,
            };
            Limit { amount, ..limit.clone() }
        };
        let limits = self.limits.iter().map(ended).collect();
        // Where there is no room, the lease expires.
        let _ = self.redis.ends.try_send(End::Request(self.id.clone(), limits));
    }
}

/// What the worker does next.
#[derive(Debug)]
enum End {
    Request(Arc<str>, Vec<Limit>),
    /// Reports that everything before it is done.
    Flush(oneshot::Sender<()>),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is counted stays true whatever panicked elsewhere.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).max(1)
}

impl Redis {
    /// The server that the settings name. It is connected to when it is needed.
    ///
    /// # Errors
    /// Fails if the URL is invalid, or `store.ca_file` cannot be read.
    pub(crate) fn new(settings: &config::Store) -> io::Result<Self> {
        let client = client(settings)?;
        let address = client.get_connection_info().addr().to_string();
        let connection = connection(client.clone(), settings.timeout).map_err(io::Error::other)?;
        let (ends, ended) = mpsc::channel(WAITING);
        Ok(Self {
            client,
            node: Mutex::new(Node { address: None, connection }),
            settings: settings.clone(),
            address,
            limits: Script::new(include_str!("limits.lua")),
            records: Script::new(include_str!("records.lua")),
            held_script: Script::new(include_str!("held.lua")),
            down: Mutex::default(),
            held: Mutex::default(),
            ends,
            ended: Mutex::new(Some(ended)),
        })
    }

    /// Whether it does what other settings say.
    pub(crate) fn fits(&self, settings: &config::Store) -> bool {
        self.settings == *settings
    }

    /// Whether requests go on without it while it cannot be reached.
    pub(crate) fn fails_open(&self) -> bool {
        self.settings.fail == config::Fail::Open
    }

    /// A key of this proxy's on the server.
    pub(crate) fn key(&self, name: impl fmt::Display) -> String {
        format!("{}{name}", self.settings.prefix)
    }

    fn held(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<[Limit]>>> {
        lock(&self.held)
    }

    /// Lets all of `limits` count a request, or none.
    ///
    /// # Errors
    /// Fails if the server cannot be reached.
    pub(crate) async fn admit(self: &Arc<Self>, limits: Vec<Limit>) -> Result<Decision, Unreachable> {
        let lease = Lease {
            redis: self.clone(),
            id: uuid::Uuid::new_v4().simple().to_string().into(),
            limits: limits.into(),
            began: AtomicBool::new(false),
            tokens: AtomicU64::new(0),
            sent: AtomicBool::new(false),
        };
        self.may_try()?;
        // If the answer is lost, or its waiter has gone, the drop of the lease takes back what may have been counted.
        lease.sent.store(true, Ordering::Relaxed);
        let decided: Vec<i64> = self.decide("admit", &lease.id, &lease.limits, true).await?;
        let number = |at: usize| u64::try_from(decided.get(at).copied().unwrap_or(0)).unwrap_or(0);
        let standing = |nth: usize| SharedStanding {
            used: number(2 + 2 * nth),
            reset: Duration::from_millis(number(3 + 2 * nth)),
        };
        let standings = (0..lease.limits.len()).map(standing).collect();
        let outcome = match usize::try_from(number(0)).unwrap_or(0) {
            0 => {
                if lease.limits.iter().any(|limit| limit.kind != LimitKind::Requests) {
                    self.held().insert(lease.id.clone(), lease.limits.clone());
                }
                Outcome::Admitted(Arc::new(lease))
            }
            refusing => {
                lease.sent.store(false, Ordering::Relaxed);
                Outcome::Refused(refusing - 1, Duration::from_millis(number(1)))
            }
        };
        Ok(Decision { outcome, standings })
    }

    /// Runs the script of limits.
    async fn decide<T: FromRedisValue>(
        &self,
        what: &str,
        id: &str,
        limits: &[Limit],
        within: bool,
    ) -> Result<T, Unreachable> {
        let call = |attempt: u32| async move {
            let mut invocation = self.limits.prepare_invoke();
            invocation.arg(what).arg(id).arg(milliseconds(self.settings.lease)).arg(attempt);
            for limit in limits {
                let kind = match limit.kind {
                    LimitKind::Requests => "requests",
                    LimitKind::Tokens => "tokens",
                    LimitKind::Running => "running",
                };
                let window = milliseconds(limit.window);
                invocation.key(&limit.key).arg(kind).arg(limit.most).arg(window).arg(limit.amount);
            }
            invocation.invoke_async(&mut self.connection()).await
        };
        self.call(call, within).await
    }

    fn connection(&self) -> ConnectionManager {
        lock(&self.node).connection.clone()
    }

    /// Goes on to the node of a cluster that has the keys, at `address`.
    fn follow(&self, address: &str) -> Result<(), RedisError> {
        let info = self.client.get_connection_info();
        let Some((host, port)) = address.rsplit_once(':') else { return Ok(()) };
        let port = port.parse().unwrap_or(6379);
        let mut addr = info.addr().clone();
        match &mut addr {
            ConnectionAddr::Tcp(old, old_port) | ConnectionAddr::TcpTls { host: old, port: old_port, .. } => {
                // A node that does not know its own name leaves it out.
                if !host.is_empty() {
                    *old = host.trim_start_matches('[').trim_end_matches(']').to_owned();
                }
                *old_port = port;
            }
            _ => return Ok(()),
        }
        let info = info.clone().set_addr(addr).into_connection_info()?;
        let connection = connection(client_of(&self.settings, info)?, self.settings.timeout)?;
        let mut node = lock(&self.node);
        if node.address.as_deref() != Some(address) {
            tracing::info!(target: "farllama", "the store {} is a cluster, whose node {address} has the keys", self.address);
            *node = Node { address: Some(address.to_owned()), connection };
        }
        Ok(())
    }

    /// Asks the server of the settings again: the node of the cluster that was asked is gone.
    fn unfollow(&self) {
        let mut node = lock(&self.node);
        if node.address.is_some()
            && let Ok(connection) = connection(self.client.clone(), self.settings.timeout)
        {
            *node = Node { address: None, connection };
        }
    }

    /// Fails at once while the server is known to be unreachable, but for one call now and then.
    fn may_try(&self) -> Result<(), Unreachable> {
        match &mut *lock(&self.down) {
            Some(down) if down.tried.elapsed() < RETRY => Err(Unreachable),
            Some(down) => {
                down.tried = Instant::now();
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Calls the server, again while a connection fails: `within` the timeout, or for ever. The scripts can run twice.
    async fn call<T, F: Future<Output = Result<T, RedisError>>>(
        &self,
        call: impl Fn(u32) -> F,
        within: bool,
    ) -> Result<T, Unreachable> {
        let until = Instant::now() + self.settings.timeout;
        let (mut attempt, mut redirects) = (1, 0);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let failure = match tokio::time::timeout(if within { left } else { self.settings.timeout }, call(attempt))
                .await
            {
                Ok(Ok(done)) => {
                    self.is_up();
                    return Ok(done);
                }
                Ok(Err(error)) if is_moved(&error) && redirects < REDIRECTS => {
                    redirects += 1;
                    let node = error.redirect_node().map_or("", |(node, _)| node);
                    if let Err(error) = self.follow(node) {
                        self.is_down(&error);
                        return Err(Unreachable);
                    }
                    // The node did nothing, so this is the same attempt.
                    continue;
                }
                Ok(Err(error)) if is_crossing(&error) => {
                    let prefix = &self.settings.prefix;
                    self.is_down(&format_args!(
                            "it is a cluster, where store.prefix needs a hash tag, such as \"{{farllama}}:\", and is {prefix:?}"
                        ));
                    return Err(Unreachable);
                }
                Ok(Err(error)) if !may_pass(&error) => {
                    // A mistake in a script, or a server that lacks a command.
                    self.is_down(&error);
                    return Err(Unreachable);
                }
                Ok(Err(error)) => {
                    self.unfollow();
                    error.to_string()
                }
                Err(_) => {
                    self.unfollow();
                    "no answer in time".to_owned()
                }
            };
            attempt += 1;
            if !within {
                self.is_down(&failure);
                tokio::time::sleep(RETRY).await;
            } else if Instant::now() + PAUSE < until {
                tokio::time::sleep(PAUSE).await;
            } else {
                self.is_down(&failure);
                return Err(Unreachable);
            }
        }
    }

    fn is_up(&self) {
        if let Some(down) = lock(&self.down).take() {
            let seconds = down.since.elapsed().as_secs();
            tracing::info!(target: "farllama", "the store {} can be reached again after {seconds} s", self.address);
        }
    }

    fn is_down(&self, error: &dyn fmt::Display) {
        let now = Instant::now();
        let mut down = lock(&self.down);
        let first = down.is_none();
        let since = down.map_or(now, |down| down.since);
        *down = Some(Down { since, tried: now });
        drop(down);
        if first {
            let until = if self.fails_open() {
                "this process counts alone until it is back, and finds no stored records (store.fail = \"open\")"
            } else {
                "requests that need it are refused until it is back (store.fail = \"closed\")"
            };
            tracing::warn!(target: "farllama", "the store {} cannot be reached: {error}; {until}", self.address);
        }
    }

    /// Renews and ends leases while the store is in use. None if it runs already.
    pub(crate) fn worker(self: &Arc<Self>) -> Option<impl Future<Output = ()> + Send + use<>> {
        let ended = lock(&self.ended).take()?;
        let every = self.settings.lease / 3;
        Some(work(Arc::downgrade(self), ended, every))
    }

    /// Returns once the ends of all requests so far are on the server, or after `within`.
    pub(crate) async fn flush(&self, within: Duration) {
        let (done, flushed) = oneshot::channel();
        if self.ends.try_send(End::Flush(done)).is_ok() {
            let _ = tokio::time::timeout(within, flushed).await;
        }
    }

    /// Renews what the running requests hold.
    async fn renew(&self) {
        let held: Vec<_> = self.held().iter().map(|(id, limits)| (id.clone(), limits.clone())).collect();
        for some in held.chunks(32) {
            // One that has ended since has its end still to come.
            let renewals = some.iter().map(|(id, limits)| self.decide::<()>("renew", id, limits, true));
            if join_all(renewals).await.iter().any(Result::is_err) {
                return;
            }
        }
    }
}

/// The worker: one batch of ends after the other, and renewals in between.
async fn work(redis: Weak<Redis>, mut ended: mpsc::Receiver<End>, every: Duration) {
    let mut renewals = tokio::time::interval(every.max(Duration::from_millis(10)));
    renewals.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut batch = Vec::new();
    loop {
        tokio::select! {
            _ = renewals.tick() => {
                let Some(redis) = redis.upgrade() else { return };
                if !redis.held().is_empty() {
                    redis.renew().await;
                }
            }
            received = ended.recv_many(&mut batch, 64) => {
                let Some(redis) = redis.upgrade().filter(|_| received > 0) else { return };
                {
                    let requests = batch.iter().filter_map(|end| match end {
                        End::Request(id, limits) => Some((id, limits)),
                        End::Flush(_) => None,
                    });
                    let ends = requests.map(|(id, limits)| redis.decide::<()>("finish", id, limits, false));
                    // As long as it takes; meanwhile the leases of requests that run are renewed.
                    let mut ends = std::pin::pin!(join_all(ends));
                    loop {
                        tokio::select! {
                            _ = &mut ends => break,
                            _ = renewals.tick() => redis.renew().await,
                        }
                    }
                }
                for end in batch.drain(..) {
                    if let End::Flush(done) = end {
                        let _ = done.send(());
                    }
                }
            }
        }
    }
}

/// Whether the same call can succeed later.
fn may_pass(error: &RedisError) -> bool {
    use ServerErrorKind::{Ask, BusyLoading, ClusterDown, MasterDown, TryAgain};
    let passing = [BusyLoading, TryAgain, MasterDown, ClusterDown, Ask];
    let starting = matches!(error.kind(), ErrorKind::Server(kind) if passing.contains(&kind));
    starting || error.is_io_error() || error.is_timeout() || error.is_connection_dropped()
}

/// Whether another node of a cluster has the keys.
fn is_moved(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::Moved)
}

/// Whether the keys of one call belong to several nodes of a cluster.
fn is_crossing(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::CrossSlot)
        // A script that names keys that are not its arguments.
        || error.to_string().contains("non local key in a cluster")
        || error.to_string().contains("do not hash to the same slot")
}

/// A connection that is made when it is needed.
fn connection(client: Client, timeout: Duration) -> Result<ConnectionManager, RedisError> {
    let config = ConnectionManagerConfig::new()
        .set_min_delay(PAUSE)
        .set_max_delay(RETRY)
        .set_number_of_retries(2)
        .set_connection_timeout(Some(timeout))
        .set_response_timeout(Some(timeout));
    ConnectionManager::new_lazy_with_config(client, config)
}

/// A client for the server that the settings name.
///
/// # Errors
/// Fails if the URL is invalid, or `store.ca_file` cannot be read.
pub(crate) fn client(settings: &config::Store) -> io::Result<Client> {
    // `rustls` asks for one where several crates bring their own; it is set once for the process.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    // The URL may have a password, so errors do not repeat it.
    let wrong = |error: RedisError| io::Error::new(io::ErrorKind::InvalidInput, format!("store.url: {error}"));
    let info = settings.url.0.as_str().into_connection_info().map_err(wrong)?;
    client_of(settings, info)
}

/// A client for a server with the certificates that the settings name.
fn client_of(settings: &config::Store, info: ConnectionInfo) -> io::Result<Client> {
    let wrong = |error: RedisError| io::Error::new(io::ErrorKind::InvalidInput, format!("store.url: {error}"));
    let Some(file) = &settings.ca_file else { return Client::open(info).map_err(wrong) };
    let read = std::fs::read(file);
    let root =
        read.map_err(|error| io::Error::new(error.kind(), format!("store.ca_file: {}: {error}", file.display())))?;
    Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert: Some(root) }).map_err(wrong)
}
