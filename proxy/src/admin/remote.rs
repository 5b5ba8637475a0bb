//! Shows, tests and changes the remote. A change is tested before it is applied, and nothing is applied by half: first
//! the test, then the settings file if it is to be saved, then the switch.

use axum::{Json, extract::State as Extract};
use bytes::Bytes;
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::{Problem, State, read};
use crate::{
    config::{self, Config, Credentials, Protocol, SETTINGS, SavedRemote, Sources, save_remote},
    probe::{Probe, leads_to_itself},
};

/// The remote in force.
#[derive(Debug, Serialize)]
pub(crate) struct Shown {
    url: String,
    protocol: &'static str,
    host: String,
    port: u16,
    base_path: String,
    /// What it speaks, as the settings say: `ollama`, `openai` or `auto`.
    kind: &'static str,
    /// `none`, `api_key` or `basic_auth`.
    credentials: &'static str,
    /// Names of extra headers.
    headers: Vec<String>,
    /// Where a change is saved, if that is asked for.
    file: Option<String>,
}

/// What is asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Change {
    /// A name, an address, host:port, or a URL; or the parts singly.
    url: Option<String>,
    protocol: Option<String>,
    host: Option<String>,
    port: Option<u16>,
    base_path: Option<String>,
    /// What it speaks. Absent: as now.
    kind: Option<String>,
    /// Empty: none. Absent: the one in force, if the machine stays the same.
    api_key: Option<String>,
    /// Write it into the settings file.
    #[serde(default)]
    save: bool,
    /// Apply it though the test fails.
    #[serde(default)]
    force: bool,
}

/// What a test found, and what was done.
#[derive(Debug, Serialize)]
pub(crate) struct Outcome {
    url: String,
    reachable: bool,
    /// What it was found to speak: `ollama` or `openai`.
    kind: Option<&'static str>,
    /// The program that an OpenAI server is, if it says.
    server: Option<&'static str>,
    version: Option<String>,
    models: Option<usize>,
    error: Option<String>,
    /// Whether requests go there now.
    applied: bool,
    /// The file that it was written to.
    saved: Option<String>,
    warnings: Vec<String>,
}

pub(crate) async fn show(Extract(state): Extract<State>) -> Json<Shown> {
    let (config, setup) = (state.control.config(), state.control.setup());
    let remote = &config.remote;
    let credentials = remote
        .authorization
        .as_ref()
        .map_or("none", |value| if value.as_bytes().starts_with(b"Basic ") { "basic_auth" } else { "api_key" });
    Json(Shown {
        url: setup.shared.remotes.first().client.remote(),
        protocol: protocol(remote.protocol),
        host: remote.host.clone(),
        port: remote.port,
        base_path: remote.base_path.clone(),
        kind: remote.kind.name(),
        credentials,
        headers: remote.headers.iter().map(|(name, _)| name.to_string()).collect(),
        file: state.sources.path().map(|path| path.display().to_string()),
    })
}

fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Http => "http",
        Protocol::Https => "https",
    }
}

/// A change that was read: the new configuration, what to save, and what there is to say.
struct Candidate {
    config: Config,
    saved: SavedRemote,
    warnings: Vec<String>,
}

/// # Errors
/// Fails if the change names no remote, or an impossible one.
fn candidate(state: &State, change: &Change) -> Result<Candidate, Problem> {
    if change.url.is_none() && change.host.is_none() {
        return Err(Problem::bad("url or host is missing: name the machine that runs Ollama"));
    }
    if change.url.is_some() && change.host.is_some() {
        return Err(Problem::bad("url and host both name the remote: give only one of them"));
    }
    let port = change.port.map(|port| port.to_string());
    let mut config = Config::clone(&state.control.config());
    let kind = change.kind.clone().unwrap_or_else(|| config.remote.kind.name().to_owned());
    let given = [
        ("remote.kind", Some(&kind)),
        ("remote.host", change.url.as_ref().or(change.host.as_ref())),
        ("remote.protocol", change.protocol.as_ref()),
        ("remote.port", port.as_ref()),
        ("remote.base_path", change.base_path.as_ref()),
        ("remote.api_key", change.api_key.as_ref()),
    ];
    let flags = given.into_iter().filter_map(|(key, value)| Some((key, value?.clone()))).collect();
    let loaded =
        config::load(&Sources { flags, ..Sources::default() }).map_err(|error| Problem::bad(error.to_string()))?;
    if !config.remotes.is_empty() {
        return Err(Problem::bad(
            "[[remotes]] names the remotes: change the settings file, and farllama reads it again on SIGHUP",
        ));
    }
    let (old, new) = (&config.remote, loaded.config.remote);
    let mut warnings = Vec::new();
    // Over SSH, one address stands for many machines.
    let same = (&old.host, old.port, &old.reach.ssh) == (&new.host, new.port, &new.reach.ssh);
    // Credentials of one machine are never sent to another.
    let keeps = same && change.api_key.is_none() && new.authorization.is_none();
    let (authorization, headers) = if keeps {
        (old.authorization.clone(), old.headers.clone())
    } else {
        let dropped = old.authorization.is_some() && new.authorization.is_none() && change.api_key.is_none();
        if dropped {
            warnings.push("the credentials of the old remote are not sent to the new one: give its api_key".to_owned());
        }
        if !old.headers.is_empty() && !same {
            warnings.push("remote.headers belong to the old remote and are no longer sent".to_owned());
        }
        let headers = if same { old.headers.clone() } else { Vec::new() };
        (new.authorization.clone(), headers)
    };
    let credentials = (!keeps).then(|| match (&change.api_key, &new.authorization) {
        (Some(key), _) if !key.is_empty() => Credentials::ApiKey(key.trim().to_owned()),
        (_, Some(value)) => basic(value.as_bytes()).map_or(Credentials::None, Credentials::Basic),
        _ => Credentials::None,
    });
    let saved = SavedRemote {
        protocol: new.protocol,
        host: new.host.clone(),
        port: new.port,
        base_path: new.base_path.clone(),
        kind: new.kind,
        ssh: new.reach.ssh.clone(),
        credentials,
    };
    let remote = &mut config.remote;
    (remote.protocol, remote.host, remote.port, remote.kind) = (new.protocol, new.host, new.port, new.kind);
    (remote.base_path, remote.authorization, remote.headers) = (new.base_path, authorization, headers);
    let reach = &mut remote.reach;
    if !same {
        // They belong to the old machine; a proxy is on the way to both.
        (reach.wake, reach.client_cert, reach.client_key) = (None, None, None);
    }
    if new.reach.ssh.is_some() {
        reach.proxy = None;
    }
    reach.ssh = new.reach.ssh;
    Ok(Candidate { config, saved, warnings })
}

/// User and password of a Basic `Authorization`.
fn basic(value: &[u8]) -> Option<String> {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let encoded = value.strip_prefix(b"Basic ")?;
    String::from_utf8(STANDARD.decode(encoded).ok()?).ok()
}

/// Tests a remote.
///
/// # Errors
/// Fails if it is this proxy itself, which `force` does not change.
async fn look(state: &State, config: &Config) -> Result<Outcome, Problem> {
    let mut own = config.clone();
    own.local.port = state.control.addr().port();
    own.local.host = state.control.addr().ip().to_string();
    let looped = tokio::task::spawn_blocking(move || leads_to_itself(&own)).await.unwrap_or(false);
    let setup = state.control.setup();
    // It carries what requests of this proxy carry, so a way back to here is noticed behind other names, too.
    let via = setup.shared.remotes.first().client.via().clone();
    let mut quick = config.clone();
    quick.timeouts.connect = quick.timeouts.connect.min(std::time::Duration::from_secs(5));
    let probe = Probe::with_via(&quick, via).map_err(|error| Problem::bad(error.to_string()))?;
    let url = probe.remote();
    if looped {
        return Err(Problem::bad(format!("{url} is this proxy itself: name the machine that runs Ollama")));
    }
    let mut outcome = Outcome {
        url,
        reachable: false,
        kind: None,
        server: None,
        version: None,
        models: None,
        error: None,
        applied: false,
        saved: None,
        warnings: Vec::new(),
    };
    match probe.look().await {
        Ok(probed) => {
            outcome.reachable = true;
            outcome.kind = Some(if probed.openai { "openai" } else { "ollama" });
            outcome.server = probed.server;
            outcome.version = probed.version;
            outcome.models = probed.models.map(|models| models.len());
        }
        Err(error) if error.contains("has passed here before") => {
            return Err(Problem::bad(format!(
                "{} leads back to this proxy: name the machine that runs Ollama",
                outcome.url
            )));
        }
        Err(error) => outcome.error = Some(error),
    }
    Ok(outcome)
}

pub(crate) async fn test(Extract(state): Extract<State>, body: Bytes) -> Result<Json<Outcome>, Problem> {
    let Candidate { config, warnings, .. } = candidate(&state, &read(&body)?)?;
    let outcome = look(&state, &config).await?;
    Ok(Json(Outcome { warnings, ..outcome }))
}

pub(crate) async fn set(Extract(state): Extract<State>, body: Bytes) -> Result<Json<Outcome>, Problem> {
    let change: Change = read(&body)?;
    let Candidate { config, saved, mut warnings } = candidate(&state, &change)?;
    let mut outcome = look(&state, &config).await?;
    if let Some(error) = outcome.error.as_ref().filter(|_| !change.force) {
        return Err(Problem::new(StatusCode::BAD_GATEWAY, format!("nothing was changed: {error}")));
    }
    if change.save {
        let failed = |error| Problem::new(StatusCode::CONFLICT, format!("nothing was changed: {error}"));
        let path = save_remote(&state.sources, &saved).map_err(failed)?;
        outcome.saved = Some(path.display().to_string());
        warnings.extend(overriding(&state.sources).map(|name| {
            format!("{name} names the remote too, and wins over the settings file when farllama starts or reloads")
        }));
    }
    state.control.reload(config).map_err(|error| Problem::bad(error.to_string()))?;
    tracing::info!(target: "farllama", "remote set to {} by an operator; running requests go on", outcome.url);
    outcome.applied = true;
    outcome.warnings = warnings;
    Ok(Json(outcome))
}

/// Variables and flags that name a part of the remote.
fn overriding(sources: &Sources) -> impl Iterator<Item = String> {
    const PARTS: [&str; 7] = [
        "remote.kind",
        "remote.url",
        "remote.host",
        "remote.port",
        "remote.protocol",
        "remote.base_path",
        "remote.ssh",
    ];
    SETTINGS.iter().filter(|setting| PARTS.contains(&setting.key)).filter_map(|setting| {
        if sources.flags.iter().any(|(key, _)| *key == setting.key) {
            return Some(format!("--{}", setting.flag()));
        }
        let variable = setting.variable();
        sources.environment.iter().any(|(name, _)| *name == variable).then_some(variable)
    })
}
