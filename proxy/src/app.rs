//! The layers and the two lanes, on one page; and the only clock and the only dice.

use std::{
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use axum::{
    Router,
    body::Body,
    extract::{MatchedPath, Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use futures_util::FutureExt;
use http::{
    HeaderName, HeaderValue,
    header::{CONNECTION, CONTENT_LENGTH},
};
use http_body_util::{BodyExt, LengthLimitError, Limited};

use crate::{
    config::Config,
    error::{self, Dialect, Error},
    fetch::Fetcher,
    gate::{self, Counts, Gate},
    observe::{self, Opened, Recorder},
    openai::{self, responses::store::Store, upstream_request::context::Grown},
    server::{request_check, unread::Unread},
    stamp::Stamp,
    upstream::{client::Client, passthrough},
};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const RECEIPT: HeaderName = HeaderName::from_static("x-farllama-receipt");

/// What every request shares. Cheap to clone.
pub(crate) type App = Arc<Shared>;

/// What every request shares.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) ollama: Client,
    pub(crate) grown: Arc<Grown>,
    pub(crate) responses: Arc<Store>,
    pub(crate) fetcher: Fetcher,
    gate: Gate,
}

/// What outlives the settings: those that are read again begin with what those before them have.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    pub(crate) counts: Arc<Counts>,
    pub(crate) grown: Arc<Grown>,
    pub(crate) responses: Arc<Store>,
}

impl Shared {
    pub(crate) fn new(config: Config, ollama: Client, gate: Gate, kept: &Kept) -> Self {
        kept.grown.belongs_to(&ollama.remote(), config.context.max);
        let fetcher = Fetcher::new(config.images.clone());
        Self { config, ollama, grown: kept.grown.clone(), responses: kept.responses.clone(), fetcher, gate }
    }

    /// Time and identity of an answer that begins now.
    pub(crate) fn stamp(&self, prefix: &str) -> Stamp {
        let random = random();
        Stamp { id: format!("{prefix}{random}"), random, created: self.now() }
    }

    /// Unix seconds.
    #[expect(clippy::disallowed_methods, reason = "this is the one clock")]
    #[expect(clippy::unused_self, reason = "whoever has the app has the time")]
    pub(crate) fn now(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
    }
}

/// What this process adds to `Via`: no other has the same.
pub(crate) fn via() -> HeaderValue {
    HeaderValue::try_from(format!("1.1 farllama-{}", &random()[..12]))
        .unwrap_or_else(|_| HeaderValue::from_static("1.1 farllama"))
}

fn random() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

/// Everything that the data listener answers. The lanes: translated routes, and all else as it is.
pub(crate) fn router(app: App) -> Router {
    Router::new()
        .merge(openai::routes(&app.config.openai.base_path))
        .fallback(native)
        .layer(middleware::from_fn_with_state(app.clone(), layers))
        .with_state(app)
}

/// What stands around both lanes, the outermost first: the exchange is opened and named; whatever fails within, a panic too, is told in the
/// words of whoever asked; the gate lets pass or refuses; and the exchange is closed when the answer's body ends, fails or is dropped.
async fn layers(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let translated = request.extensions().get::<MatchedPath>().is_some();
    let dialect = dialect(&app, request.uri().path());
    let (opened, id) = open(&app, &mut request);
    let unread = Unread::of(&mut request);
    let answering = AssertUnwindSafe(gate(&app, request, next)).catch_unwind();
    let mut response = answering.await.unwrap_or_else(|_| {
        Error::Internal { message: "the proxy failed on this request; its log says where".to_owned() }.into_response()
    });
    let refused = response.extensions_mut().remove::<Error>();
    if let Some(error) = &refused {
        let added = std::mem::take(response.headers_mut());
        response = error::speak(error, dialect);
        // What the gate has added stays.
        response.headers_mut().extend(added);
    }
    if translated {
        response.headers_mut().insert(REQUEST_ID, id);
        let receipt = opened.recorder.untold().and_then(|receipt| HeaderValue::try_from(receipt).ok());
        response.headers_mut().extend(receipt.map(|receipt| (RECEIPT, receipt)));
    }
    if let Some(unread) = unread
        && !unread.finish().await
    {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    observe::watch(opened, refused.as_ref(), !translated, response)
}

/// OpenAI's words under its base path, Ollama's elsewhere.
fn dialect(app: &Shared, path: &str) -> Dialect {
    match path.strip_prefix(&*app.config.openai.base_path) {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => Dialect::OpenAi,
        _ => Dialect::Ollama,
    }
}

/// Opens the exchange: its beginning, its name, and a recorder for whoever has something to note.
fn open(app: &Shared, request: &mut Request) -> (Opened, HeaderValue) {
    let id = match request.headers().get(&REQUEST_ID) {
        Some(id) if id.len() <= 128 && id.to_str().is_ok() => id.clone(),
        _ => HeaderValue::try_from(format!("req_{}", random())).unwrap_or_else(|_| HeaderValue::from_static("req_")),
    };
    let recorder = Recorder::default();
    recorder.keeps(secrets(app, request.headers()));
    let opened = Opened {
        id: id.to_str().unwrap_or_default().to_owned(),
        method: request.method().clone(),
        route: request.uri().path().to_owned(),
        started: Instant::now(),
        recorder: recorder.clone(),
    };
    request.extensions_mut().insert(recorder);
    (opened, id)
}

/// A request that comes back is told so; all others stand before the gate.
async fn gate(app: &Shared, request: Request, next: Next) -> Response {
    if let Err(error) = request_check::check(&request) {
        return error.into_response();
    }
    if app.ollama.has_sent(request.headers()) {
        let message = format!(
            "this request has passed here before: the remote {} leads back to this proxy; point --remote-host at the machine that runs Ollama",
            app.ollama.remote()
        );
        return Error::Loop { message }.into_response();
    }
    app.gate.pass(request, next).await
}

/// The native lane.
async fn native(State(app): State<App>, mut request: Request) -> Result<Response, Error> {
    if !app.config.remote.forward_auth {
        request.headers_mut().remove(&app.config.auth.header);
    }
    let limit = app.config.limits.native_body;
    if limit > 0 {
        let told = request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
        if told.is_some_and(|length| length > limit) {
            return Err(Error::TooLarge { limit });
        }
        // One that does not tell its length is cut there.
        request = request.map(|body| {
            let too_large = move |error: axum::BoxError| match error.is::<LengthLimitError>() {
                true => Error::TooLarge { limit }.into(),
                false => error,
            };
            Body::new(Limited::new(body, limit).map_err(too_large))
        });
    }
    passthrough::pass(&app.ollama, request, app.config.remote.forward_auth).await
}

/// Every key that a text might hold.
fn secrets(app: &Shared, headers: &http::HeaderMap) -> Vec<HeaderValue> {
    let sent = gate::key_headers(&app.config.auth.header).flat_map(|name| headers.get_all(name));
    let carried =
        app.config.remote.authorization.iter().chain(app.config.remote.headers.iter().map(|(_, value)| value));
    // Copies: a clone would hold the buffer that the head was read into for as long as the answer lasts.
    sent.chain(carried).filter_map(|value| HeaderValue::from_bytes(value.as_bytes()).ok()).collect()
}
