//! farllama: a local Ollama and an OpenAI server in front of a remote Ollama.
//!
//! Shows [`Config`] and [`serve`]; the rest is private, so that no test can borrow its wire types.
//!
//! ```
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut config = farllama::Config::default();
//! config.remote.host = "gpu-box".to_owned();
//! // A free port.
//! config.local.port = 0;
//! let proxy = farllama::serve(config).await?;
//! println!("an Ollama and an OpenAI server on http://{}", proxy.addr());
//! proxy.stop(std::time::Duration::from_secs(10)).await;
//! # Ok(())
//! # }
//! ```

pub mod config;

pub mod admin;
mod anthropic;
mod app;
#[cfg(test)]
mod bad_ends;
mod bridge;
mod buffered;
mod control;
#[cfg(test)]
mod costs;
mod deadline;
mod error;
mod explain;
mod fetch;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod gate;
mod json_writer;
mod listed;
mod near;
mod observe;
mod offload;
mod ollama;
mod openai;
mod probe;
mod receipt;
mod redact;
mod resolve;
mod retain;
mod routes;
mod sealed;
mod server;
mod stamp;
mod store;
mod tasks;
mod text;
mod tls_client;
mod upstream;
mod usage;
#[cfg(test)]
mod vectors;
mod warm;
mod whole_body;

use std::{
    io,
    net::{SocketAddr, ToSocketAddrs},
    sync::Arc,
    time::{Duration, Instant},
};

pub use config::Config;
use control::Control;
pub use explain::{Explained, Pasted, PastedCall, endpoints, explain, explain_with};
use gate::{Gate, origin::Rules};
pub use listed::{ListedModel, listed_models};
pub use observe::{ExchangeLog, LineSink, LogLine, LogRing};
pub use ollama::version::{CUTS, VERSIONS};
pub use probe::{Probe, Probed, leads_to_itself, unmatched};
use server::listener::Setup;
pub use tls_client::remote_tls;
use tokio::net::TcpListener;
use upstream::remotes::{Known, Remotes};
pub use warm::Warmer;

/// A proxy at work. Dropping it stops it at once.
#[derive(Debug)]
pub struct Running(Arc<Control>);

impl Running {
    /// Where it listens, or listened last; the port is the one that was taken, also if 0 was asked for.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.0.addr()
    }

    /// The configuration in force.
    #[must_use]
    pub fn config(&self) -> Arc<Config> {
        self.0.config()
    }

    /// From now on requests are answered by `config`, while answers in flight go on as they began. The address that it
    /// listens on, and what is logged, stay unchanged.
    ///
    /// # Errors
    /// TLS cannot be set up. Then the settings stay as they were.
    pub fn reload(&self, config: Config) -> io::Result<()> {
        self.0.reload(config)
    }

    /// Returns once the remote in force is another one.
    pub async fn remote_changed(&self) {
        self.0.remote_changed().await;
    }

    /// The number of requests that are running, streams included.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.0.persistent.in_flight.count()
    }

    /// Logs each request that has run for another `every` since it was last logged.
    pub fn log_long_requests(&self, every: Duration) {
        self.0.persistent.in_flight.log_long(Instant::now(), every);
    }

    /// Starts the admin listener as the configuration says. `log` is what it shows of the log, `sources` where it saves
    /// settings.
    ///
    /// # Errors
    /// Fails if the address cannot be listened on ([`io::ErrorKind::AddrInUse`] if it is taken).
    pub async fn admin(&self, log: LogRing, sources: config::Sources) -> io::Result<admin::Admin> {
        admin::Admin::start(self.0.clone(), log, sources).await
    }

    /// Stops: no new connections; answers in flight may end within `grace`, then they end with an error.
    pub async fn stop(self, grace: Duration) {
        self.0.shut_down(grace).await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.cut();
    }
}

/// Starts the proxy.
///
/// # Errors
/// Fails if the address cannot be listened on ([`io::ErrorKind::AddrInUse`] if it is taken), or TLS cannot be set up.
pub async fn serve(config: Config) -> io::Result<Running> {
    serve_logging(config, None).await
}

/// [`serve`], where the log lines of exchanges go to `log` directly. Without one, they are events of `tracing`.
///
/// # Errors
/// As [`serve`].
pub async fn serve_logging(config: Config, log: Option<ExchangeLog>) -> io::Result<Running> {
    let listener = TcpListener::bind((&*config.local.host, config.local.port)).await?;
    Control::start(config, listener, app::Persistent::logging(log)).map(|control| Running(Arc::new(control)))
}

/// Checks all that [`serve`] checks, but for whether the port is free.
///
/// # Errors
/// Fails where [`serve`] would.
pub fn check(config: &Config) -> io::Result<()> {
    // A name that cannot be resolved now may be later.
    let found = (&*config.local.host, config.local.port).to_socket_addrs().ok().and_then(|mut found| found.next());
    if let Some(addr) = found {
        refuse_public(config, addr)?;
    }
    Remotes::new(config, &app::via(), &Known::default())?;
    if !config.store.url.0.is_empty() {
        store::redis::client(&config.store)?;
    }
    server::tls::acceptor(&config.local).map(|_| ())
}

/// # Errors
/// Fails if anyone on the network could use the proxy without a key, and the settings do not say that this is meant.
fn refuse_public(config: &Config, addr: SocketAddr) -> io::Result<()> {
    if addr.ip().is_loopback() || config.auth.enabled || config.local.public {
        return Ok(());
    }
    let host = &config.local.host;
    let change = if config.auth.tokens.is_empty() {
        "create one (`farllama key new --name NAME --save`)"
    } else {
        "auth.enabled is false, so those in auth.keys are not required: set it to true"
    };
    let message = format!("refusing to listen on {host} without keys: {change}, or pass --local-public");
    Err(io::Error::new(io::ErrorKind::InvalidInput, message))
}

/// Everything that `config` makes of a request that comes to `addr`.
///
/// # Errors
/// Fails if TLS cannot be set up, or if anyone could use the proxy without a key.
fn setup(config: Config, addr: SocketAddr, persistent: &app::Persistent) -> io::Result<Setup> {
    refuse_public(&config, addr)?;
    let remotes = Remotes::new(&config, &app::via(), &persistent.remotes)?;
    let origins = Rules::new(config.origins.clone(), addr.ip().is_loopback(), own_names(&config), &config.local.hosts);
    persistent.buffered.set(config.limits.buffered);
    let redis = persistent.store.of(&config)?;
    let gate = Gate::new(&config, origins, persistent.counts.clone(), persistent.buffered.clone(), redis.clone());
    let (tls, limits) = (server::tls::acceptor(&config.local)?, config.limits.clone());
    let shared = Arc::new(app::Shared::new(config, remotes, gate, redis, persistent)?);
    persistent.batches.renew(&shared);
    Ok(Setup { shared, tls, limits })
}

/// The names under which clients may ask for this machine.
fn own_names(config: &Config) -> Vec<String> {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/hostname").ok().map(|name| name.trim().to_owned());
    [Some(config.local.host.clone()), kernel].into_iter().flatten().filter(|name| !name.is_empty()).collect()
}
