//! The second listener, for operators: health, metrics, a JSON API and a console. It stays up while the data listener
//! is stopped, restarted or pointed at another remote.
//!
//! The API is described by `openapi.json`, which a test compares with the table of routes below.

mod api;
mod events;
mod guard;
mod inspect;
mod page;
mod remote;
mod remotes;
mod scenario;
mod status;

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Instant,
};

use axum::{
    Json, Router,
    extract::DefaultBodyLimit,
    middleware,
    response::{IntoResponse, Response},
    routing::{MethodRouter, delete, get, post, put},
};
use http::StatusCode;
use serde::Serialize;
use tokio::{net::TcpListener, sync::Semaphore, task::JoinSet};

use crate::{config::Sources, control::Control, observe::LogRing, own_names, stamp::unix_ms};

/// Maximum size of a request body.
const BODY: usize = 64 << 10;

/// Event streams at the same time.
const STREAMS: usize = 32;

/// A running admin listener. Dropping it stops it.
#[derive(Debug)]
pub struct Admin {
    addr: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Admin {
    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(crate) async fn start(control: Arc<Control>, log: LogRing, sources: Sources) -> io::Result<Self> {
        let config = control.config();
        let admin = &config.admin;
        let listener = TcpListener::bind((&*admin.host, admin.port)).await?;
        let addr = listener.local_addr()?;
        control.persistent.metrics.switch_on();
        control.persistent.history.switch_on(admin.requests);
        log.keep(admin.log_bytes);
        let guard = guard::Guard::new(admin, addr, own_names(&config));
        let state = State(Arc::new(Inner {
            control,
            log,
            sources,
            addr,
            started: Instant::now(),
            started_ms: unix_ms(),
            health: tokio::sync::Mutex::default(),
            capabilities: Mutex::default(),
            streams: Arc::new(Semaphore::new(STREAMS)),
        }));
        let mut router = Router::new();
        for (_, path, handler) in ROUTES {
            router = router.route(path, handler());
        }
        let router = router
            .fallback(|| async { Problem::new(StatusCode::NOT_FOUND, "no such path; /openapi.json describes the API") })
            .method_not_allowed_fallback(|| async {
                Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this path takes another method; see /openapi.json")
            })
            .layer(DefaultBodyLimit::max(BODY))
            .layer(middleware::from_fn_with_state(Arc::new(guard), guard::check))
            .with_state(state);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            // It never ends by itself.
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { addr, _tasks: tasks })
    }
}

/// Every route: its method, its path, and who answers.
type Routes = &'static [(&'static str, &'static str, fn() -> MethodRouter<State>)];

const ROUTES: Routes = &[
    ("get", "/", || get(page::index)),
    ("get", "/console.css", || get(page::style)),
    ("get", "/console.js", || get(page::script)),
    ("get", "/openapi.json", || get(page::openapi)),
    ("get", "/healthz", || get(status::healthz)),
    ("get", "/readyz", || get(status::readyz)),
    ("get", "/metrics", || get(status::metrics)),
    ("get", "/api/status", || get(status::status)),
    ("post", "/api/start", || post(api::start)),
    ("post", "/api/stop", || post(api::stop)),
    ("post", "/api/restart", || post(api::restart)),
    ("get", "/api/remote", || get(remote::show)),
    ("put", "/api/remote", || put(remote::set)),
    ("post", "/api/remote/test", || post(remote::test)),
    ("get", "/api/remotes", || get(remotes::list)),
    ("get", "/api/models", || get(api::models)),
    ("get", "/api/requests", || get(api::requests)),
    ("post", "/api/requests/{key}/cancel", || post(api::cancel)),
    ("get", "/api/history", || get(api::history)),
    ("get", "/api/quotas", || get(api::quotas)),
    ("get", "/api/logs", || get(api::logs)),
    ("delete", "/api/logs", || delete(api::clear_logs)),
    ("get", "/api/events", || get(events::stream)),
    ("get", "/api/inspector", || get(inspect::list)),
    ("put", "/api/inspector", || put(inspect::switch)),
    ("delete", "/api/inspector", || delete(inspect::clear)),
    ("get", "/api/inspector/{key}", || get(inspect::one)),
    ("get", "/api/inspector/{key}/curl", || get(inspect::curl)),
    ("get", "/api/inspector/{key}/scenario", || get(inspect::scenario)),
];

/// What handlers share. Cheap to clone.
#[derive(Clone)]
pub(crate) struct State(Arc<Inner>);

pub(crate) struct Inner {
    control: Arc<Control>,
    log: LogRing,
    sources: Sources,
    addr: SocketAddr,
    started: Instant,
    started_ms: u64,
    /// The last look at the remote, and when it was.
    health: tokio::sync::Mutex<Option<(Instant, String, status::Health)>>,
    /// Capabilities of models, by their digest.
    capabilities: Mutex<HashMap<String, Vec<String>>>,
    streams: Arc<Semaphore>,
}

impl std::ops::Deref for State {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

/// An error of the API: a status, and one text.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    text: String,
}

impl Problem {
    fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self { status, text: text.into() }
    }

    fn bad(text: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, text)
    }
}

#[derive(Serialize)]
struct ProblemBody {
    error: String,
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        (self.status, Json(ProblemBody { error: self.text })).into_response()
    }
}

/// Reads a JSON body.
///
/// # Errors
/// Fails if it is not JSON, or has unknown or missing fields.
fn read<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    let body = if body.trim_ascii().is_empty() { b"{}" } else { body };
    serde_json::from_slice(body).map_err(|error| Problem::bad(format!("invalid body: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_describes_every_route_and_no_other() {
        let document: serde_json::Value = serde_json::from_str(page::OPENAPI).unwrap();
        let described: Vec<(String, String)> = document["paths"]
            .as_object()
            .unwrap()
            .iter()
            .flat_map(|(path, item)| item.as_object().unwrap().keys().map(move |method| (method.clone(), path.clone())))
            .filter(|(method, _)| method != "parameters")
            .collect();
        let known = |(method, path): &(String, String)| ROUTES.iter().any(|row| row.0 == method && row.1 == path);
        for row in &described {
            assert!(known(row), "{row:?} is described, but there is no such route");
        }
        for (method, path, _) in ROUTES {
            let row = ((*method).to_owned(), (*path).to_owned());
            assert!(described.contains(&row), "{row:?} is not described");
        }
    }
}
