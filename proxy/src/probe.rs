//! Looks at the remote before any request does: whether it answers, which version it is, and which models it has.

use std::{
    io,
    net::{IpAddr, ToSocketAddrs, UdpSocket},
    time::Duration,
};

use http::{HeaderValue, Method};
use serde::Deserialize;

use crate::{
    app, bridge,
    config::{Config, Remote},
    error::Error,
    gate::allows,
    upstream::client::Client,
};

/// How long a probe may wait for each response, once it is connected.
const PATIENCE: Duration = Duration::from_secs(10);

/// The response of `GET /api/version`, as far as a probe reads it.
#[derive(Deserialize)]
struct VersionReply {
    version: Option<String>,
}

/// The response of `GET /api/tags`, as far as a probe reads it.
#[derive(Deserialize)]
struct TagsReply {
    models: Vec<TagReply>,
}

#[derive(Deserialize)]
struct TagReply {
    name: String,
}

/// Probes one remote.
pub struct Probe {
    client: Client,
    /// The limit of each request.
    within: Duration,
}

impl std::fmt::Debug for Probe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Probe").field("remote", &self.remote()).finish_non_exhaustive()
    }
}

/// What a remote says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probed {
    /// Whether it speaks OpenAI's API.
    pub openai: bool,
    /// The program that an OpenAI server is, if it says.
    pub server: Option<&'static str>,
    /// Its version; None if it does not say.
    pub version: Option<String>,
    /// The names of its models; None if it does not list them.
    pub models: Option<Vec<String>>,
}

impl Probe {
    /// # Errors
    /// Fails if TLS cannot be set up.
    pub fn new(config: &Config) -> io::Result<Self> {
        Self::with_via(config, app::via())
    }

    /// A probe whose requests carry `via`, so that a proxy which sends the same refuses them as a loop.
    ///
    /// # Errors
    /// Fails if TLS cannot be set up.
    pub(crate) fn with_via(config: &Config, via: HeaderValue) -> io::Result<Self> {
        let mut config = config.clone();
        // The probe has a limit of its own: an error must not name a setting that the user has not set.
        config.timeouts.first_byte = Duration::ZERO;
        // Requests wake the remote's machine, looking at it does not.
        config.remote.reach.wake = None;
        Ok(Self { client: Client::new(&config, via)?, within: config.timeouts.connect + PATIENCE })
    }

    /// The remote as a URL, without credentials.
    #[must_use]
    pub fn remote(&self) -> String {
        self.client.remote()
    }

    /// Asks the remote for its version and its models.
    ///
    /// # Errors
    /// Fails with the text of the 502 that a request would get.
    pub async fn look(&self) -> Result<Probed, String> {
        if self.client.bridge().is_unknown() {
            // What does not answer in time is asked below, as an Ollama.
            let _ = tokio::time::timeout(self.within, bridge::settle_kind(&self.client)).await;
        }
        if self.client.bridge().is_on() {
            return self.look_at_openai().await;
        }
        let asking = self.client.call(Method::GET, "/api/version", None);
        let version = match tokio::time::timeout(self.within, asking).await {
            Err(_) => {
                return Err(format!(
                    "the remote Ollama at {} accepted the connection, but did not answer GET /api/version within {}: is it overloaded, \
                     or not an Ollama?",
                    self.remote(),
                    humantime::format_duration(self.within)
                ));
            }
            Ok(Ok(reply)) => {
                let read = self.client.read::<VersionReply>("/api/version", &reply);
                read.map_err(|error| error.to_string())?.version
            }
            // A gateway may let only some paths through.
            Ok(Err(Error::Refused(_))) => None,
            Ok(Err(error)) => return Err(error.to_string()),
        };
        let asking = self.client.call(Method::GET, "/api/tags", None);
        let models = match tokio::time::timeout(self.within, asking).await {
            Ok(Ok(reply)) => {
                let tags = self.client.read::<TagsReply>("/api/tags", &reply).map_err(|error| error.to_string())?;
                Some(tags.models.into_iter().map(|tag| tag.name).collect())
            }
            Err(_) => None,
            Ok(Err(_)) if version.is_some() => None,
            Ok(Err(error)) => return Err(error.to_string()),
        };
        Ok(Probed { openai: false, server: None, version, models })
    }

    /// Asks an OpenAI server for its models.
    async fn look_at_openai(&self) -> Result<Probed, String> {
        let models = match tokio::time::timeout(self.within, bridge::catalog(&self.client, Duration::ZERO)).await {
            Ok(Ok(catalog)) => Some(catalog.names().collect()),
            Ok(Err(error)) => return Err(error.to_string()),
            Err(_) => {
                return Err(format!(
                    "the remote server at {} accepted the connection, but did not list its models within {}: is it overloaded, or not an OpenAI \
                     server?",
                    self.remote(),
                    humantime::format_duration(self.within)
                ));
            }
        };
        Ok(Probed { openai: true, server: self.client.bridge().server(), version: None, models })
    }
}

/// For a log line: `Ollama 0.33.0, 11 models`.
impl std::fmt::Display for Probed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.version {
            Some(version) => write!(f, "Ollama {version}")?,
            None if self.openai => f.write_str(&bridge::described(self.server))?,
            None => f.write_str("Ollama of unknown version")?,
        }
        match self.models.as_ref().map(Vec::len) {
            None => f.write_str(", models unknown"),
            Some(0) if self.openai => f.write_str(", no models"),
            Some(0) => f.write_str(", no models yet (ollama pull NAME)"),
            Some(1) => f.write_str(", 1 model"),
            Some(count) => write!(f, ", {count} models"),
        }
    }
}

/// Whether a remote is the listener itself. Names that have no address are not: the first request will say so. Waits
/// for name resolution.
#[must_use]
pub fn leads_to_itself(config: &Config) -> bool {
    config.every_remote().iter().any(|entry| is_itself(config, &entry.remote))
}

fn is_itself(Config { local, .. }: &Config, remote: &Remote) -> bool {
    // What it is called elsewhere is not known here.
    if remote.reach.ssh.is_some() || remote.reach.proxy.is_some() {
        return false;
    }
    if local.port == 0 || local.port != remote.port {
        return false;
    }
    let addresses = |host: &str| -> Vec<IpAddr> {
        (host, 0).to_socket_addrs().map(|found| found.map(|addr| addr.ip()).collect()).unwrap_or_default()
    };
    let (locals, remotes) = (addresses(&local.host), addresses(&remote.host));
    remotes.iter().any(|remote| {
        locals.iter().any(|local| {
            local == remote
                || (local.is_unspecified() && is_own(*remote))
                || (remote.is_unspecified() && local.is_loopback())
        })
    })
}

/// Whether this machine has the address: only then can a socket be bound to it.
fn is_own(address: IpAddr) -> bool {
    address.is_loopback() || address.is_unspecified() || UdpSocket::bind((address, 0)).is_ok()
}

/// What the settings say of models that the remote does not have, one text each.
#[must_use]
pub fn unmatched(config: &Config, models: &[String]) -> Vec<String> {
    let missing = |pattern: &String| !models.iter().any(|model| allows(pattern, model));
    let mut found = Vec::new();
    for token in config.auth.tokens.iter().filter(|_| config.auth.enabled) {
        for pattern in token.models.iter().flatten().filter(|pattern| missing(pattern)) {
            found.push(format!("auth.keys: {} is allowed {pattern:?}, but the remote has no such model", token.name));
        }
    }
    for (model, _) in config.context.overflow_by_model.iter().filter(|(model, _)| missing(model)) {
        found.push(format!("context.overflow_by_model: the remote has no model {model:?}"));
    }
    if !config.moderation.model.is_empty() && missing(&config.moderation.model) {
        found.push(format!("moderation.model: the remote has no model {:?}", config.moderation.model));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_and_names_that_match_no_model_are_reported() {
        let config = Config::from_toml(
            "[auth]\nenabled = true\nkeys = [{ key = \"k\", name = \"ann\", models = [\"gpt-oss\", \"gpt-os\", \"qwen*\", \"m:7b\"] }]\n[moderation]\nmodel = \"llama-guard3\"",
        )
        .unwrap();
        let models = ["gpt-oss:20b", "qwen3:8b", "m:latest"].map(str::to_owned);
        let found = unmatched(&config, &models);
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[0].contains("ann is allowed \"gpt-os\"") && found[1].contains("m:7b"), "{found:?}");
        assert!(found[2].starts_with("moderation.model"), "{found:?}");
    }

    #[test]
    fn what_was_found_fits_on_one_line() {
        let probed = |version: Option<&str>, models: Option<usize>| {
            let models = models.map(|count| vec!["m".to_owned(); count]);
            Probed { openai: false, server: None, version: version.map(str::to_owned), models }.to_string()
        };
        assert_eq!(probed(Some("0.33.0"), Some(11)), "Ollama 0.33.0, 11 models");
        assert_eq!(probed(Some("0.33.0"), Some(1)), "Ollama 0.33.0, 1 model");
        assert!(probed(None, Some(0)).contains("no models yet"));
        let models = Some(vec!["m".to_owned()]);
        let server = Probed { openai: true, server: Some("vLLM"), version: None, models };
        assert_eq!(server.to_string(), "an OpenAI server (vLLM), 1 model");
    }
}
