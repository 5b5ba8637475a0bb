//! One remote: its client, its state, and what is asked about its health.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use serde::Deserialize;
use tokio::time::{Instant, timeout};

use super::state::{Change, Counted, Listed, Standing, State};
use crate::{
    bridge::{self, LISTED},
    config::Health,
    error::Error,
    gate::Models,
    ollama::refusal::Refusal,
    receipt::RemoteLine,
    upstream::client::{Client, Missed},
};

/// One remote.
pub(crate) struct Member {
    pub(crate) name: String,
    /// Names it on receipts.
    pub(super) line: Arc<RemoteLine>,
    pub(crate) client: Arc<Client>,
    /// Asks about its health, where `client` would wake its machine.
    pub(super) checker: Option<Arc<Client>>,
    /// What is known of it. Outlives a reload.
    pub(crate) state: Arc<State>,
    pub(crate) priority: u32,
    pub(crate) weight: u32,
    /// The models that it is used for. None: all.
    pub(super) models: Option<Models>,
    pub(super) health: Health,
    /// Whether it is logged here when it comes and goes; `farllama serve` does so of an only one.
    pub(super) one_of_several: bool,
}

/// For the log: `gpu (http://gpu-box:11434)`.
impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.client.remote())
    }
}

#[derive(Deserialize)]
struct VersionReply {
    version: Option<String>,
}

#[derive(Deserialize)]
struct List {
    models: Vec<Listed>,
}

impl Member {
    /// The same remote, where requests carry one more header.
    pub(super) fn with_header(&self, name: &HeaderName, value: &HeaderValue) -> Self {
        Self {
            name: self.name.clone(),
            line: self.line.clone(),
            client: Arc::new(self.client.with_header(name.clone(), value)),
            checker: self.checker.clone(),
            state: self.state.clone(),
            priority: self.priority,
            weight: self.weight,
            models: self.models.clone(),
            health: self.health.clone(),
            one_of_several: self.one_of_several,
        }
    }

    /// Whether requests are sent to it before others that are out of use.
    pub(crate) fn is_up(&self) -> bool {
        self.state.with(Standing::is_up)
    }

    /// Whether it is used for `model`.
    pub(crate) fn is_for(&self, model: &str) -> bool {
        self.models.as_ref().is_none_or(|models| models.contain(model))
    }

    /// The models that it has, of those that it is used for, as its list was last seen.
    pub(crate) fn models(&self) -> Vec<Listed> {
        let installed = self.state.with(|standing| standing.installed.clone());
        installed.iter().flat_map(|list| &**list).filter(|listed| self.is_for(&listed.full)).cloned().collect()
    }

    /// Counts a request of it as in flight.
    pub(crate) fn enter(&self) -> Counted {
        Counted::new(&self.state)
    }

    /// Notes that it responded.
    pub(crate) fn responded(&self) {
        if let Some(change) = self.state.succeeded(&self.health) {
            self.log(change);
        }
    }

    /// Notes why a request got no response that counts.
    pub(crate) fn missed(&self, missed: &Missed) {
        let of_health = match &missed.error {
            Error::Unreachable { .. } | Error::Timeout { .. } | Error::NotOllama { .. } => true,
            // A busy Ollama is a healthy one.
            Error::Refused(refused) => missed.again && refused.refusal == Refusal::Gateway,
            _ => return,
        };
        if of_health {
            self.failed(&missed.error);
            // So that it is known soon whether it is gone.
            self.state.suspected.notify_one();
        } else {
            self.responded();
        }
    }

    /// Notes that a gateway in front of it responds with `status`.
    pub(crate) fn gateway_failed(&self, status: StatusCode) {
        let message = format!("the gateway at {} answered {status}: Ollama is not there", self.client.remote());
        self.failed(&Error::Unreachable { message });
        self.state.suspected.notify_one();
    }

    /// Notes a failure.
    pub(crate) fn failed(&self, error: &Error) {
        if let Some(change) = self.state.failed(&error.to_string(), &self.health) {
            self.log(change);
        }
    }

    fn log(&self, change: Change) {
        if !self.one_of_several {
            return;
        }
        let standing = self.state.now();
        let version = match standing.version {
            Some(version) => format!(": Ollama {version}"),
            None if self.client.bridge().is_on() => {
                format!(": {}", bridge::described(self.client.bridge().server()))
            }
            None => String::new(),
        };
        match change {
            Change::Came => tracing::info!(target: "farllama", "remote {self} responds{version}"),
            Change::Returned => tracing::info!(target: "farllama", "remote {self} is in use again{version}"),
            Change::Left => tracing::warn!(
                target: "farllama",
                "remote {self} is out of use: {}",
                standing.error.unwrap_or_default()
            ),
        }
    }

    /// What to say of a request that it did not respond to in time.
    pub(super) fn silent(&self, path: &str) -> Error {
        let within = humantime::format_duration(self.health.timeout);
        Error::Timeout {
            message: format!("the remote {self} did not answer GET {path} within {within} (health.timeout)"),
        }
    }

    async fn ask(&self, path: &'static str) -> Result<Bytes, Error> {
        match timeout(self.health.timeout, self.asking().call(Method::GET, path, None)).await {
            Ok(reply) => reply,
            Err(_) => Err(self.silent(path)),
        }
    }

    /// Asks for the models of an OpenAI server. While it is well, it is asked no more often than its list is used for.
    async fn check_openai(&self) {
        let well = self.state.with(Standing::is_well);
        let asked = Instant::now();
        match timeout(self.health.timeout, bridge::catalog(self.asking(), if well { LISTED } else { Duration::ZERO }))
            .await
        {
            Ok(Err(Error::Refused(refused))) if refused.status.is_client_error() => {}
            Ok(Err(error)) => return self.failed(&error),
            Err(_) => return self.failed(&self.silent("/models")),
            Ok(Ok(_)) => {}
        }
        if !well {
            self.state.learn_version(None, asked.elapsed());
            self.responded();
        }
        let _turn = self.state.looking.lock().await;
        self.read_lists().await;
    }

    fn asking(&self) -> &Client {
        self.checker.as_ref().unwrap_or(&self.client)
    }

    /// Finds out what it speaks, if that is not known yet.
    async fn settle(&self) {
        if self.client.bridge().is_unknown() {
            // What does not answer in time is asked again later.
            let _ = timeout(self.health.timeout, bridge::settle_kind(self.asking())).await;
        }
    }

    /// Asks for its version, and then for its models.
    pub(super) async fn check(&self) {
        self.settle().await;
        if self.client.bridge().is_on() {
            return self.check_openai().await;
        }
        let asked = Instant::now();
        let version = match self.ask("/api/version").await {
            Ok(reply) => match self.client.read::<VersionReply>("/api/version", &reply) {
                Ok(read) => read.version,
                Err(error) => return self.failed(&error),
            },
            // A gateway may let only some paths through.
            Err(Error::Refused(refused)) if refused.status.is_client_error() => None,
            Err(error) => return self.failed(&error),
        };
        self.state.learn_version(version, asked.elapsed());
        self.responded();
        self.look(Duration::ZERO).await;
    }

    /// Asks for its lists of models, unless that was done at most `age` ago. Callers that ask at the same time share
    /// one look.
    pub(super) async fn look(&self, age: Duration) {
        let recent = || self.state.with(|standing| standing.is_recent(Instant::now().checked_sub(age)));
        if recent() {
            return;
        }
        let begun = Instant::now();
        let _turn = self.state.looking.lock().await;
        self.settle().await;
        // Another caller may have looked meanwhile.
        if recent() || self.state.with(|standing| standing.looked_since(begun)) {
            return;
        }
        if self.client.bridge().is_on() {
            // Both lists are made of this one.
            let listed = timeout(self.health.timeout, bridge::catalog(self.asking(), age)).await;
            match listed.unwrap_or_else(|_| Err(self.silent("/models"))) {
                Ok(_) | Err(Error::Refused(_)) => {}
                Err(error) => {
                    self.state.looked();
                    return self.failed(&error);
                }
            }
        }
        self.read_lists().await;
    }

    /// Asks for its lists of models.
    async fn read_lists(&self) {
        let (installed, loaded) = tokio::join!(self.ask("/api/tags"), self.ask("/api/ps"));
        self.state.looked();
        let names = |path, reply: &Bytes| Some(self.client.read::<List>(path, reply).ok()?.models);
        match installed {
            Ok(reply) => self.state.learn_installed(names("/api/tags", &reply)),
            // It does not list its models.
            Err(Error::Refused(refused)) if refused.status.is_client_error() => self.state.learn_installed(None),
            Err(error) => return self.failed(&error),
        }
        self.responded();
        if let Some(loaded) = loaded.ok().and_then(|reply| names("/api/ps", &reply)) {
            self.state.learn_loaded(loaded);
        }
    }
}
