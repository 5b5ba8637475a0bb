//! The API's handlers that need no file of their own.

use std::sync::PoisonError;

use axum::{
    Json,
    extract::{Path, Query, State as Extract},
};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Problem, State};
use crate::{
    error::Dialect,
    gate::KeyStanding,
    observe::{LEVELS, LogLine, Open, Point, Row},
};

/// Rows or lines in one response at most.
pub(crate) const MOST: usize = 1000;

/// Models whose capabilities are asked for at most.
const SHOWN: usize = 100;

/// What became of the data listener.
#[derive(Debug, Serialize)]
pub(crate) struct Acted {
    running: bool,
    /// Whether that is new.
    changed: bool,
}

pub(crate) async fn start(Extract(state): Extract<State>) -> Result<Json<Acted>, Problem> {
    let changed = state.control.resume().await.map_err(|error| cannot_listen(&state, &error))?;
    if changed {
        tracing::info!(target: "farllama", "data listener started by an operator");
    }
    Ok(Json(Acted { running: true, changed }))
}

pub(crate) async fn stop(Extract(state): Extract<State>) -> Json<Acted> {
    let changed = state.control.stop().await;
    if changed {
        tracing::info!(target: "farllama", "data listener stopped by an operator; running requests go on");
    }
    Json(Acted { running: false, changed })
}

pub(crate) async fn restart(Extract(state): Extract<State>) -> Result<Json<Acted>, Problem> {
    state.control.restart().await.map_err(|error| cannot_listen(&state, &error))?;
    tracing::info!(target: "farllama", "data listener restarted by an operator; running requests go on");
    Ok(Json(Acted { running: true, changed: true }))
}

fn cannot_listen(state: &State, error: &std::io::Error) -> Problem {
    let text = format!("cannot listen on {}: {error}", state.control.addr());
    Problem::new(StatusCode::CONFLICT, text)
}

/// Which rows or lines are wanted.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct After {
    /// Only those after this position.
    #[serde(default)]
    after: u64,
    limit: Option<usize>,
    /// Only lines that are at least as important.
    level: Option<String>,
    /// Only lines that contain this text.
    #[serde(default)]
    search: String,
}

/// What runs, and what has ended.
#[derive(Debug, Serialize)]
pub(crate) struct Requests {
    pub(crate) running: Vec<Open>,
    pub(crate) finished: Vec<Row>,
}

fn query<T>(query: Result<Query<T>, axum::extract::rejection::QueryRejection>) -> Result<T, Problem> {
    query.map(|Query(query)| query).map_err(|error| Problem::bad(error.body_text()))
}

type Asked<T> = Result<Query<T>, axum::extract::rejection::QueryRejection>;

pub(crate) async fn requests(Extract(state): Extract<State>, asked: Asked<After>) -> Result<Json<Requests>, Problem> {
    let After { after, limit, .. } = query(asked)?;
    let persistent = &state.control.persistent;
    let finished = persistent.history.after(after, limit.unwrap_or(200).min(MOST));
    Ok(Json(Requests { running: persistent.in_flight.list(), finished }))
}

/// A key in a path.
pub(crate) fn key(path: Result<Path<u64>, axum::extract::rejection::PathRejection>) -> Result<u64, Problem> {
    path.map(|Path(key)| key).map_err(|_| Problem::bad("invalid key: expected the number of a request"))
}

pub(crate) async fn cancel(
    Extract(state): Extract<State>,
    path: Result<Path<u64>, axum::extract::rejection::PathRejection>,
) -> Result<StatusCode, Problem> {
    let key = key(path)?;
    if state.control.persistent.in_flight.cancel(key) {
        tracing::info!(target: "farllama", key, "request canceled by an operator");
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(Problem::new(StatusCode::NOT_FOUND, format!("no request with the key {key} is running")))
}

#[derive(Debug, Serialize)]
pub(crate) struct Hour {
    points: Vec<Point>,
}

pub(crate) async fn history(Extract(state): Extract<State>) -> Json<Hour> {
    Json(Hour { points: state.control.persistent.history.hour() })
}

#[derive(Debug, Serialize)]
pub(crate) struct Quotas {
    window_s: u64,
    keys: Vec<KeyStanding>,
}

pub(crate) async fn quotas(Extract(state): Extract<State>) -> Json<Quotas> {
    let config = state.control.config();
    let keys = state.control.persistent.counts.standings(&config);
    Json(Quotas { window_s: config.quota.window.as_secs(), keys })
}

#[derive(Debug, Serialize)]
pub(crate) struct Lines {
    lines: Vec<LogLine>,
}

pub(crate) async fn logs(Extract(state): Extract<State>, asked: Asked<After>) -> Result<Json<Lines>, Problem> {
    let After { after, limit, level, search } = query(asked)?;
    if let Some(unknown) = level.as_deref().filter(|level| !LEVELS.contains(level)) {
        return Err(Problem::bad(format!("invalid level {unknown:?}: expected one of {}", LEVELS.join(", "))));
    }
    let lines = state.log.after(after, limit.unwrap_or(200).min(MOST), level.as_deref(), &search);
    Ok(Json(Lines { lines }))
}

pub(crate) async fn clear_logs(Extract(state): Extract<State>) -> StatusCode {
    state.log.clear();
    StatusCode::NO_CONTENT
}

#[derive(Debug, Serialize)]
pub(crate) struct Models {
    loaded: Vec<Value>,
    installed: Vec<Value>,
}

/// The models of the remote: those that are loaded, and those that are installed, with their capabilities.
pub(crate) async fn models(Extract(state): Extract<State>) -> Result<Json<Models>, Problem> {
    let setup = state.control.setup();
    let remotes = &setup.shared.remotes;
    let client = remotes.first().client.without_waking();
    let list = async |path| -> Result<Vec<Value>, Problem> {
        let failed = |error: crate::error::Error| Problem::new(StatusCode::BAD_GATEWAY, error.to_string());
        let reply =
            if remotes.are_several() { remotes.list(path).await } else { client.call(Method::GET, path, None).await };
        let reply = reply.map_err(failed)?;
        let mut reply: Value = client.read(path, &reply).map_err(failed)?;
        Ok(reply["models"].take().as_array_mut().map(std::mem::take).unwrap_or_default())
    };
    // Older versions have no /api/ps.
    let loaded = list("/api/ps").await.unwrap_or_default();
    let mut installed = list("/api/tags").await?;
    let show = async |model: &Value| -> Option<Vec<String>> {
        if let Some(given) = model["capabilities"].as_array() {
            return Some(given.iter().filter_map(|one| one.as_str().map(str::to_owned)).collect());
        }
        let (name, digest) = (model["name"].as_str()?, model["digest"].as_str().unwrap_or_default().to_owned());
        if let Some(known) = state.capabilities.lock().unwrap_or_else(PoisonError::into_inner).get(&digest) {
            return Some(known.clone());
        }
        let ask = Bytes::from(serde_json::to_vec(&json!({ "model": name })).ok()?);
        let at = match remotes.are_several() {
            true => remotes.with(name, Dialect::Ollama, |_| true).await.ok()?,
            false => remotes.only(),
        };
        let reply = at.call(Method::POST, "/api/show", Some(ask)).await.ok()?;
        let shown: Value = serde_json::from_slice(&reply).ok()?;
        let found: Vec<String> =
            shown["capabilities"].as_array()?.iter().filter_map(|one| one.as_str().map(str::to_owned)).collect();
        let mut capabilities = state.capabilities.lock().unwrap_or_else(PoisonError::into_inner);
        if !digest.is_empty() && capabilities.len() < MOST {
            capabilities.insert(digest, found.clone());
        }
        Some(found)
    };
    let found: Vec<_> = stream::iter(installed.iter().take(SHOWN).map(show)).buffered(4).collect().await;
    for (model, capabilities) in installed.iter_mut().zip(found) {
        if let (Value::Object(model), Some(capabilities)) = (model, capabilities) {
            model.insert("capabilities".to_owned(), json!(capabilities));
        }
    }
    Ok(Json(Models { loaded, installed }))
}
