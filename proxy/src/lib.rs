//! farllama: a local Ollama and an OpenAI server in front of a remote Ollama.
//!
//! Shows [`Config`] and [`serve`]; the rest is private, so that no test can borrow its wire types.

pub mod config;

mod app;
mod error;
mod explain;
mod gate;
mod observe;
mod ollama;
mod openai;
mod tasks;
#[cfg(test)]
mod vectors;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

pub use config::Config;
pub use explain::{Explained, explain};
use gate::{Gate, origin::Rules};
use tokio::net::TcpListener;

/// A proxy at work. Dropping it stops it at once.
#[derive(Debug)]
pub struct Running(tasks::Serving);

impl Running {
    /// Where it listens; the port is the one that was taken, also if 0 was asked for.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.0.addr
    }

    /// Stops: no new connections, answers in flight may end within `grace`, then they are cut.
    pub async fn stop(self, grace: Duration) {
        self.0.stop(grace).await;
    }
}

/// Starts the proxy.
///
/// # Errors
/// The address cannot be listened on ([`io::ErrorKind::AddrInUse`] if it is taken), or TLS towards the remote cannot be set up.
pub async fn serve(config: Config) -> io::Result<Running> {
    let ollama = ollama::client::Client::new(&config, app::via())?;
    let listener = TcpListener::bind((&*config.local.host, config.local.port)).await?;
    let addr = listener.local_addr()?;
    let origins = Rules::new(config.origins.clone(), addr.ip().is_loopback(), own_names(&config));
    let gate = Gate::new(&config, origins, Arc::default());
    let app = Arc::new(app::Shared::new(config, ollama, gate));
    Ok(Running(tasks::Serving::start(listener, addr, app::router(app))))
}

/// The names under which clients may ask for this machine.
fn own_names(config: &Config) -> Vec<String> {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/hostname").ok().map(|name| name.trim().to_owned());
    [Some(config.local.host.clone()), kernel].into_iter().flatten().filter(|name| !name.is_empty()).collect()
}
