//! The inspector over the API: on and off, what it has, and what to make of it.

use std::time::Duration;

use axum::{
    Json,
    extract::{Path, State as Extract, rejection::PathRejection},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{StatusCode, header::CONTENT_TYPE};
use serde::{Deserialize, Serialize};

use super::{Problem, State, api::key, read, scenario as make};
use crate::observe::Inspected;

/// An exchange in the list.
#[derive(Debug, Serialize)]
struct Entry {
    key: u64,
    id: String,
    method: String,
    path: String,
    endpoint: &'static str,
    model: Option<String>,
    status: Option<u16>,
    ending: &'static str,
    ended_ms: u64,
    bytes: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct List {
    /// Unix milliseconds; None: it is off.
    until_ms: Option<u64>,
    exchanges: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Switch {
    on: bool,
}

pub(crate) async fn list(Extract(state): Extract<State>) -> Json<List> {
    let inspector = &state.control.persistent.inspector;
    let entry = |one: Inspected| Entry {
        key: one.key,
        bytes: one.request.bytes + one.response.bytes,
        id: one.id,
        method: one.method,
        path: one.path,
        endpoint: one.endpoint,
        model: one.model,
        status: one.status,
        ending: one.ending,
        ended_ms: one.ended_ms,
    };
    let exchanges = inspector.list().into_iter().map(entry).collect();
    Json(List { until_ms: inspector.until(), exchanges })
}

pub(crate) async fn switch(Extract(state): Extract<State>, body: Bytes) -> Result<Json<List>, Problem> {
    let Switch { on } = read(&body)?;
    let config = state.control.config();
    let admin = &config.admin;
    let time = if on { admin.inspector_time } else { Duration::ZERO };
    state.control.persistent.inspector.switch(time, admin.inspector_requests, admin.inspector_bytes);
    if on {
        let time = humantime::format_duration(time);
        tracing::warn!(target: "farllama", "inspector switched on by an operator: it keeps prompts and answers for {time}");
    } else {
        tracing::info!(target: "farllama", "inspector switched off by an operator");
    }
    Ok(list(Extract(state)).await)
}

pub(crate) async fn clear(Extract(state): Extract<State>) -> StatusCode {
    state.control.persistent.inspector.clear();
    StatusCode::NO_CONTENT
}

fn find(state: &State, path: Result<Path<u64>, PathRejection>) -> Result<Inspected, Problem> {
    let key = key(path)?;
    let missing = || Problem::new(StatusCode::NOT_FOUND, format!("the inspector has no exchange with the key {key}"));
    state.control.persistent.inspector.get(key).ok_or_else(missing)
}

pub(crate) async fn one(
    Extract(state): Extract<State>,
    path: Result<Path<u64>, PathRejection>,
) -> Result<Json<Inspected>, Problem> {
    find(&state, path).map(Json)
}

pub(crate) async fn curl(
    Extract(state): Extract<State>,
    path: Result<Path<u64>, PathRejection>,
) -> Result<String, Problem> {
    let config = state.control.config();
    let scheme = if config.local.tls_cert.is_some() { "https" } else { "http" };
    Ok(make::curl(&find(&state, path)?, &format!("{scheme}://{}", state.control.addr())))
}

pub(crate) async fn scenario(
    Extract(state): Extract<State>,
    path: Result<Path<u64>, PathRejection>,
) -> Result<Response, Problem> {
    let config = state.control.config();
    let text = make::scenario(&find(&state, path)?, &config.openai.base_path)
        .map_err(|why| Problem::new(StatusCode::CONFLICT, format!("cannot make a scenario of this exchange: {why}")))?;
    Ok(([(CONTENT_TYPE, "application/yaml")], text).into_response())
}
