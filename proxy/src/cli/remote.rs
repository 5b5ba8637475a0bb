//! Watches the remote while the proxy runs, and logs when it comes or goes.

use std::time::Duration;

use farllama::{Config, Probe, Probed, unmatched};

/// How soon an unreachable remote is probed again, if that is sooner than the usual interval.
const SOON: Duration = Duration::from_secs(10);

/// What was logged last.
#[derive(Debug, PartialEq)]
enum Known {
    Nothing,
    Up(Option<String>),
    Down,
}

/// Probes the remote again and again.
#[derive(Debug)]
pub(crate) struct Watch {
    /// None if TLS cannot be set up, which `serve` reports by itself.
    probe: Option<Probe>,
    config: Config,
    known: Known,
}

impl Watch {
    pub(crate) fn new(config: &Config) -> Self {
        Self { probe: Probe::new(config).ok(), config: config.clone(), known: Known::Nothing }
    }

    /// Probes and logs what has changed, at once for the first time. Never ends.
    pub(crate) async fn run(&mut self) {
        let every = self.config.remote.probe;
        // Several are watched by the proxy itself.
        let several = self.config.remotes.len() > 1;
        let Some(probe) = self.probe.take().filter(|_| !every.is_zero() && !several) else {
            return std::future::pending().await;
        };
        loop {
            let seen = probe.look().await;
            self.log(&probe.remote(), seen);
            let wait = if self.known == Known::Down { every.min(SOON) } else { every };
            tokio::time::sleep(wait).await;
        }
    }

    fn log(&mut self, remote: &str, seen: Result<Probed, String>) {
        let now = match &seen {
            Ok(probed) => Known::Up(probed.version.clone()),
            Err(_) => Known::Down,
        };
        if now == self.known {
            return;
        }
        match seen {
            Ok(probed) => {
                let again = if self.known == Known::Down { " (reachable again)" } else { "" };
                tracing::info!(target: "farllama", "remote {remote}: {probed}{again}");
                for warning in probed.models.iter().flat_map(|models| unmatched(&self.config, models)) {
                    tracing::warn!(target: "farllama", "{warning}");
                }
            }
            Err(text) => tracing::warn!(target: "farllama", "remote {remote}: {text}"),
        }
        self.known = now;
    }
}
