//! Health, readiness, metrics, and where things stand.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Json, extract,
    response::{IntoResponse, Response},
};
use http::{Method, StatusCode, header};
use serde::{Deserialize, Serialize};

use super::{State, remotes::Shown};
use crate::{
    bridge::{self, Bridge},
    error::Error,
    observe::Gauges,
    upstream::{
        client::Client,
        remotes::{Remotes, Standing},
    },
};

/// How long a remote may take to say that it is there.
const PATIENCE: Duration = Duration::from_secs(5);

/// How old a look at the remote may be.
pub(crate) const RECENT: Duration = Duration::from_secs(5);

/// How the remote is.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Health {
    pub(crate) reachable: bool,
    /// `ollama` or `openai`; None while that is not known.
    pub(crate) kind: Option<&'static str>,
    /// The program that an OpenAI server is, if it says.
    pub(crate) server: Option<&'static str>,
    /// None if it does not say.
    pub(crate) version: Option<String>,
    /// Time of `GET /api/version`, or of the list of models of an OpenAI server.
    pub(crate) latency_ms: Option<f64>,
    /// Why it is not reachable: the text of the 502 that a request would get.
    pub(crate) error: Option<String>,
}

#[derive(Deserialize)]
struct VersionReply {
    version: Option<String>,
}

impl Health {
    /// A remote that cannot be reached, or of which nothing is known yet.
    fn of_kind(bridge: &Bridge) -> Self {
        let kind = match (bridge.is_on(), bridge.is_ollama()) {
            (true, _) => Some("openai"),
            (_, true) => Some("ollama"),
            _ => None,
        };
        Self { kind, server: bridge.server(), ..Self::default() }
    }

    /// How a remote stands that is watched.
    pub(crate) fn standing(client: &Client, standing: Standing) -> Self {
        let kind = Self::of_kind(client.bridge());
        let Standing { up, error, version, latency, .. } = standing;
        let latency_ms = latency.map(|latency| (latency.as_secs_f64() * 10_000.0).round() / 10.0);
        match up == Some(true) {
            true => Self { reachable: true, version, latency_ms, ..kind },
            false => Self { error: error.or_else(|| Some("it has not responded yet".to_owned())), ..kind },
        }
    }

    /// How several remotes are: reachable if one of them is.
    fn of_all(all: Vec<(String, Self)>) -> Self {
        if let Some((_, up)) = all.iter().find(|(_, health)| health.reachable) {
            return up.clone();
        }
        let errors = all.into_iter().map(|(name, health)| format!("{name}: {}", health.error.unwrap_or_default()));
        Self { error: Some(errors.collect::<Vec<_>>().join("; ")), ..Self::default() }
    }

    /// Asks the remote for its version, or an OpenAI server for its models.
    pub(crate) async fn of(client: &Client) -> Self {
        let client = client.without_waking();
        if client.bridge().is_unknown() {
            // What does not answer in time is asked below, as an Ollama.
            let _ = tokio::time::timeout(PATIENCE, bridge::settle_kind(&client)).await;
        }
        let asked = Instant::now();
        let asking = async {
            if client.bridge().is_on() {
                return bridge::catalog(&client, Duration::ZERO).await.map(|_| None);
            }
            let reply = client.call(Method::GET, "/api/version", None).await?;
            Ok(client.read::<VersionReply>("/api/version", &reply)?.version)
        };
        let found = tokio::time::timeout(PATIENCE, asking).await;
        let latency_ms = Some((asked.elapsed().as_secs_f64() * 10_000.0).round() / 10.0);
        let kind = Self::of_kind(client.bridge());
        match found {
            Ok(Ok(version)) => Self { reachable: true, version, latency_ms, ..kind },
            // A gateway may let only some paths through.
            Ok(Err(Error::Refused(refused))) if refused.status.is_client_error() => {
                Self { reachable: true, latency_ms, ..kind }
            }
            Ok(Err(error)) => Self { error: Some(error.to_string()), ..kind },
            Err(_) => {
                let error = format!("{} did not answer within {} s", client.remote(), PATIENCE.as_secs());
                Self { error: Some(error), ..kind }
            }
        }
    }
}

/// Everything that `farllama status` and the head of the console show.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Status {
    version: &'static str,
    pid: u32,
    started_ms: u64,
    uptime_s: u64,
    listener: Listener,
    remote: Remote,
    /// All of them, if there are several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    remotes: Vec<Shown>,
    requests: Requests,
    inspector: Inspector,
    admin: String,
}

#[derive(Clone, Debug, Serialize)]
struct Listener {
    running: bool,
    /// Whether the process is about to end.
    shutting_down: bool,
    /// Base URL of Ollama's API.
    ollama: String,
    /// Base URL of OpenAI's.
    openai: String,
    /// Whether callers need a key.
    keys: bool,
}

#[derive(Clone, Debug, Serialize)]
struct Remote {
    url: String,
    #[serde(flatten)]
    health: Health,
}

#[derive(Clone, Debug, Serialize)]
struct Requests {
    in_flight: usize,
}

#[derive(Clone, Debug, Serialize)]
struct Inspector {
    /// Unix milliseconds; None: it is off.
    until_ms: Option<u64>,
}

impl State {
    fn client(&self) -> Arc<Client> {
        self.control.setup().shared.remotes.first().client.clone()
    }

    /// How the remote is, looked at no longer than `age` ago; of several, whether one is there. Callers that ask at the
    /// same time share one look.
    pub(crate) async fn health(&self, age: Duration) -> Health {
        let setup = self.control.setup();
        if setup.shared.remotes.are_several() {
            let all = setup.shared.remotes.survey().await;
            return Health::of_all(
                all.into_iter()
                    .map(|(one, standing)| (one.name.clone(), Health::standing(&one.client, standing)))
                    .collect(),
            );
        }
        let client = self.client();
        let remote = client.remote();
        let mut known = self.health.lock().await;
        if let Some((at, of, health)) = &*known
            && at.elapsed() < age
            && *of == remote
        {
            return health.clone();
        }
        let health = Health::of(&client).await;
        *known = Some((Instant::now(), remote, health.clone()));
        health
    }

    pub(crate) async fn current(&self) -> Status {
        let (config, addr) = (self.control.config(), self.control.addr());
        let scheme = if config.local.tls_cert.is_some() { "https" } else { "http" };
        let ollama = format!("{scheme}://{addr}");
        let several = self.control.setup().shared.remotes.are_several();
        Status {
            version: env!("CARGO_PKG_VERSION"),
            pid: std::process::id(),
            started_ms: self.started_ms,
            uptime_s: self.started.elapsed().as_secs(),
            listener: Listener {
                running: self.control.is_listening(),
                shutting_down: self.control.is_stopping(),
                openai: format!("{ollama}{}", config.openai.base_path),
                ollama,
                keys: config.auth.enabled,
            },
            remote: Remote { url: self.client().remote(), health: self.health(RECENT).await },
            remotes: if several { self.remotes().await } else { Vec::new() },
            requests: Requests { in_flight: self.control.persistent.in_flight.count() },
            inspector: Inspector { until_ms: self.control.persistent.inspector.until() },
            admin: format!("http://{}", self.addr),
        }
    }
}

pub(crate) async fn status(extract::State(state): extract::State<State>) -> Json<Status> {
    Json(state.current().await)
}

#[derive(Serialize)]
struct Ready {
    ready: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// The process is alive.
pub(crate) async fn healthz() -> &'static str {
    "ok\n"
}

/// Whether a request would be answered: the data listener accepts, and the remote answers.
pub(crate) async fn readyz(extract::State(state): extract::State<State>) -> Response {
    let reason = if state.control.is_listening() {
        let health = state.health(Duration::from_secs(1)).await;
        health.error.filter(|_| !health.reachable)
    } else {
        let stopping = state.control.is_stopping();
        Some(if stopping { "farllama is shutting down" } else { "the data listener is stopped" }.to_owned())
    };
    let status = if reason.is_none() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Ready { ready: reason.is_none(), reason })).into_response()
}

/// Connections to all remotes: idle ones, and all of them.
fn pool(remotes: &Remotes) -> (usize, usize) {
    let each = remotes.all().iter().map(|member| member.client.connections());
    each.fold((0, 0), |(idle, all), (more_idle, more)| (idle + more_idle, all + more))
}

pub(crate) async fn metrics(extract::State(state): extract::State<State>) -> Response {
    let (control, config) = (&state.control, state.control.config());
    let standings = control.persistent.counts.standings(&config);
    let limited = standings.into_iter().filter_map(|key| Some((key.name, key.used, key.limit?)));
    let text = control.persistent.metrics.text(&Gauges {
        in_flight: control.persistent.in_flight.count(),
        listening: control.is_listening(),
        pool: pool(&control.setup().shared.remotes),
        quotas: limited.collect(),
    });
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}
