//! The layers and the two lanes, on one page; and the only clock and the only dice.

use std::{
    convert::Infallible,
    future::poll_fn,
    io,
    net::SocketAddr,
    ops::Deref,
    panic::AssertUnwindSafe,
    pin::pin,
    sync::Arc,
    task::Poll,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use axum::{
    body::Body,
    extract::{FromRequestParts, Request},
    response::{IntoResponse, Response},
};
use futures_util::FutureExt;
use http::{
    HeaderName, HeaderValue, Method, StatusCode,
    header::{ACCEPT_ENCODING, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE},
    request::Parts,
};
use http_body::Body as _;
use http_body_util::{BodyExt, LengthLimitError, Limited};

use crate::{
    bridge,
    buffered::{Budget, Share},
    config::{Config, Secret},
    error::{self, Dialect, Error},
    fetch::Fetcher,
    gate::{self, Admitted, Counts, Gate, Models, Owner, held_body::HeldBody},
    observe::{
        self, ExchangeLog, Facts, History, InFlight, Inspector, Metrics, Opened, Readers, Recorder, TRACEPARENT,
        Tracer, Traffic,
    },
    openai::{
        batches,
        files::stored::Reserved,
        responses::{background::Runs, socket::Sockets},
    },
    redact,
    resolve::{self, Installed, ResolvedNames, Target, native_answer, native_calls},
    routes::{self, Handler, PerRemote, Route, Row},
    sealed,
    server::{request_check, unread::UnreadBody},
    stamp::Stamp,
    store::{self, Memory, Store, redis::Redis},
    tasks::Tasks,
    text,
    upstream::{
        passthrough,
        remotes::{Candidates, Known, Remotes, Sent},
    },
};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const ANTHROPIC_REQUEST_ID: HeaderName = HeaderName::from_static("request-id");
pub(crate) const RECEIPT: HeaderName = HeaderName::from_static("x-farllama-receipt");

/// What a handler works with: what all requests share, and the remote that this one goes to. Cheap to clone.
#[derive(Clone)]
pub(crate) struct App {
    shared: Arc<Shared>,
    pub(crate) upstream: Arc<Candidates>,
    /// The caller's share of the budget for bodies.
    pub(crate) buffered: Share,
    /// The models that the caller may use. None: all.
    models: Option<Models>,
    pub(crate) recorder: Recorder,
    pub(crate) owner: Owner,
    /// The path's parameter, decoded.
    pub(crate) id: Option<String>,
    /// The models that the request names, where the settings need them.
    pub(crate) target: Option<Arc<Target>>,
}

impl App {
    /// Whether the caller may use `model`, or see its name in a text.
    pub(crate) fn may_see(&self, model: &str) -> bool {
        self.models.as_ref().is_none_or(|models| models.contain(model))
    }

    /// The remotes for `model`, which the request does not name itself.
    ///
    /// # Errors
    /// Fails if no remote has it.
    pub(crate) async fn upstream_for(&self, model: &str) -> Result<Arc<Candidates>, Error> {
        if !self.upstream.is_choice_of_all() {
            return Ok(self.upstream.clone());
        }
        let mut upstream = Box::pin(self.remotes.with(model, Dialect::OpenAi, |name| self.may_see(name))).await?;
        if let Some(candidates) = Arc::get_mut(&mut upstream) {
            candidates.record(&self.recorder);
        }
        Ok(upstream)
    }
}

/// Here, and not beside the types, so that gate and observe know nothing of the app.
impl FromRequestParts<App> for Owner {
    type Rejection = Infallible;

    async fn from_request_parts(_: &mut Parts, app: &App) -> Result<Self, Infallible> {
        Ok(app.owner)
    }
}

impl FromRequestParts<App> for Recorder {
    type Rejection = Infallible;

    async fn from_request_parts(_: &mut Parts, app: &App) -> Result<Self, Infallible> {
        Ok(app.recorder.clone())
    }
}

impl App {
    /// What all requests share, for a request of the proxy's own.
    pub(crate) fn shared(&self) -> Arc<Shared> {
        self.shared.clone()
    }
}

impl Deref for App {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.shared
    }
}

/// Why a request was refused, beside the body that says so.
#[derive(Clone, Debug)]
pub(crate) struct Refusal(pub(crate) Error);

/// What all requests share.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) remotes: Remotes,
    pub(crate) store: Store,
    pub(crate) background: Arc<Runs>,
    pub(crate) tasks: Arc<Tasks>,
    pub(crate) batches: Arc<batches::run::Runs>,
    pub(crate) sockets: Arc<Sockets>,
    /// Room for files that are uploaded now.
    pub(crate) uploads: Arc<Reserved>,
    /// What compactions are sealed with.
    pub(crate) compaction_key: Arc<sealed::Key>,
    pub(crate) fetcher: Fetcher,
    pub(crate) traffic: Arc<Traffic>,
    pub(crate) installed: Installed,
    pub(crate) names: ResolvedNames,
    in_flight: Arc<InFlight>,
    readers: Arc<Readers>,
    inspector: Arc<Inspector>,
    tracer: Arc<Tracer>,
    gate: Gate,
}

/// State that outlives a reload of the settings.
#[derive(Debug)]
pub(crate) struct Persistent {
    pub(crate) counts: Arc<Counts>,
    pub(crate) buffered: Arc<Budget>,
    pub(crate) remotes: Known,
    pub(crate) records: Arc<Memory>,
    pub(crate) background: Arc<Runs>,
    pub(crate) tasks: Arc<Tasks>,
    pub(crate) batches: Arc<batches::run::Runs>,
    pub(crate) sockets: Arc<Sockets>,
    pub(crate) uploads: Arc<Reserved>,
    /// A secret of this process, where the settings have none for compactions.
    secret: Secret,
    pub(crate) store: store::Shared,
    pub(crate) in_flight: Arc<InFlight>,
    pub(crate) readers: Arc<Readers>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) history: Arc<History>,
    pub(crate) inspector: Arc<Inspector>,
    pub(crate) tracer: Arc<Tracer>,
}

impl Default for Persistent {
    fn default() -> Self {
        Self::logging(None)
    }
}

impl Persistent {
    /// Nothing yet. The lines of exchanges go to `log`, or to `tracing` where there is none.
    pub(crate) fn logging(log: Option<ExchangeLog>) -> Self {
        let (metrics, history) = (Arc::<Metrics>::default(), Arc::<History>::default());
        let inspector = Arc::<Inspector>::default();
        let tracer = Arc::<Tracer>::default();
        let readers = Readers::logging(log).and(metrics.clone(), history.clone(), inspector.clone(), tracer.clone());
        Self {
            counts: Arc::default(),
            buffered: Arc::default(),
            remotes: Known::default(),
            records: Arc::default(),
            background: Arc::default(),
            tasks: Arc::default(),
            batches: Arc::default(),
            sockets: Arc::default(),
            uploads: Arc::default(),
            secret: Secret([random(), random()].concat()),
            store: store::Shared::default(),
            in_flight: Arc::default(),
            readers: Arc::new(readers),
            metrics,
            history,
            inspector,
            tracer,
        }
    }
}

impl Shared {
    /// # Errors
    /// None that settings can cause.
    pub(crate) fn new(
        config: Config,
        remotes: Remotes,
        gate: Gate,
        redis: Option<Arc<Redis>>,
        persistent: &Persistent,
    ) -> io::Result<Self> {
        let secret = config.responses.compaction_key.0.as_str();
        let secret = if secret.is_empty() { persistent.secret.0.as_str() } else { secret };
        let compaction_key = Arc::new(sealed::Key::of(secret.as_bytes()).map_err(io::Error::other)?);
        let fetcher = Fetcher::new(config.images.clone());
        let store = Store::new(&config, persistent.records.clone(), redis);
        let in_flight = persistent.in_flight.clone();
        let (background, tasks) = (persistent.background.clone(), persistent.tasks.clone());
        let (batches, sockets) = (persistent.batches.clone(), persistent.sockets.clone());
        let uploads = persistent.uploads.clone();
        let (readers, inspector, tracer) =
            (persistent.readers.clone(), persistent.inspector.clone(), persistent.tracer.clone());
        let traffic = persistent.metrics.traffic.clone();
        let installed = Installed::default();
        Ok(Self {
            config,
            remotes,
            store,
            background,
            tasks,
            batches,
            sockets,
            uploads,
            compaction_key,
            fetcher,
            traffic,
            installed,
            names: ResolvedNames::default(),
            in_flight,
            readers,
            inspector,
            tracer,
            gate,
        })
    }

    /// Time and identity of an answer that begins now.
    pub(crate) fn stamp(&self, prefix: &str) -> Stamp {
        let random = random();
        Stamp { id: [prefix, &random].concat(), random, created: self.now() }
    }

    /// How many requests are open now.
    pub(crate) fn requests(&self) -> usize {
        self.in_flight.count()
    }

    /// Unix seconds.
    #[expect(clippy::disallowed_methods, reason = "this is the one clock")]
    #[expect(clippy::unused_self, reason = "the time is part of what the app offers")]
    pub(crate) fn now(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
    }
}

/// What this process adds to `Via`: no other has the same.
pub(crate) fn via() -> HeaderValue {
    HeaderValue::try_from(format!("1.1 farllama-{}", &random()[..12]))
        .unwrap_or_else(|_| HeaderValue::from_static("1.1 farllama"))
}

/// A factor between 0.9 and 1.1.
pub(crate) fn jitter() -> f64 {
    let (random, ..) = uuid::Uuid::new_v4().as_fields();
    0.9 + 0.2 * f64::from(random) / f64::from(u32::MAX)
}

fn random() -> String {
    with_random("")
}

/// `prefix` and 32 random hex digits.
fn with_random(prefix: &str) -> String {
    let mut digits = [0; uuid::fmt::Simple::LENGTH];
    let digits: &str = uuid::Uuid::new_v4().simple().encode_lower(&mut digits);
    [prefix, digits].concat()
}

/// Answers one request. The layers, outermost first: the route is found; the exchange is opened; whatever fails inside,
/// a panic too, becomes an error in the dialect of the route; the gate admits or refuses; the exchange is closed when
/// the response's body ends, fails or is dropped.
///
/// The request is boxed, because each layer would have room for two copies of it otherwise.
pub(crate) async fn answer(shared: Arc<Shared>, peer: Option<SocketAddr>, mut request: Box<Request>) -> Response {
    if shared.remotes.first().client.bridge().is_unknown() && !shared.remotes.are_several() {
        Box::pin(bridge::settle_kind(&shared.remotes.first().client)).await;
    }
    let route = Route::of(&request, &shared.config, shared.remotes.speaks());
    let dialect = route.dialect;
    let (translated, native) = (route.translated(), route.is_native());
    let (several, based) = (shared.remotes.are_several(), route.based);
    let opened = open(&shared, &route, peer, &request);
    let unread = UnreadBody::of(&mut request);
    if let Some(capture) = shared.inspector.capture(&mut request, &shared.config.auth.header) {
        opened.recorder().set_capture(capture);
    }
    let answering = admit(shared, route, opened.recorder().clone(), request);
    let mut answering = pin!(AssertUnwindSafe(answering).catch_unwind());
    let answering = poll_fn(|cx| match answering.as_mut().poll(cx) {
        Poll::Ready(answered) => Poll::Ready(answered.unwrap_or_else(|_| Error::panicked().into_response())),
        Poll::Pending => opened.recorder().cancel().poll(cx).map(IntoResponse::into_response),
    });
    let mut response = answering.await;
    let refused = response.extensions_mut().remove::<Error>();
    let AnsweredBy { translated, native } =
        response.extensions_mut().remove().unwrap_or(AnsweredBy { translated, native });
    if let Some(error) = &refused {
        let added = std::mem::take(response.headers_mut());
        response = error::speak(error, dialect, Some(opened.id()));
        // What the gate has added stays.
        response.headers_mut().extend(added);
        // For callers without a connection.
        response.extensions_mut().insert(Refusal(error.clone()));
    }
    if translated {
        // It was one of a header, or is made of hex digits.
        if let Ok(id) = HeaderValue::try_from(opened.id()) {
            if dialect == Dialect::Anthropic {
                response.headers_mut().insert(ANTHROPIC_REQUEST_ID, id.clone());
            }
            response.headers_mut().insert(REQUEST_ID, id);
        }
    }
    // A native response with one remote has none. One that passes through from an OpenAI server has one if an alias or
    // a preset changed the request.
    if (translated || several || based)
        && let Some(receipt) = opened.recorder().take_header()
    {
        response.headers_mut().insert(RECEIPT, receipt);
    }
    if let Some(unread) = unread
        && !unread.discard().await
    {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if let Some(capture) = opened.recorder().capture() {
        response = observe::tee_response(response, capture);
    }
    observe::watch(opened, refused.as_ref(), native, response)
}

/// Opens the exchange: its start, its id, and a recorder for its facts.
fn open(shared: &Shared, route: &Route, peer: Option<SocketAddr>, request: &Request) -> Opened {
    let given = request.headers().get(&REQUEST_ID).and_then(|id| id.to_str().ok()).filter(|id| id.len() <= 128);
    let id: Arc<str> = given.map_or_else(|| with_random("req_").into(), Into::into);
    let recorder = Recorder::default();
    recorder.begin(id.clone(), secrets(shared, request.headers()));
    if let Some(trace) = shared.tracer.begin(request.headers()) {
        recorder.set_trace(trace);
    }
    let facts = Facts {
        id,
        method: request.method().clone(),
        route: request.uri().path().to_owned(),
        endpoint: route.label(),
        peer,
        started: Instant::now(),
        recorder,
    };
    Opened::new(facts, shared.in_flight.clone(), shared.readers.clone())
}

/// Refuses a request that breaks HTTP's rules or has passed here before; all others meet the gate.
async fn admit(shared: Arc<Shared>, route: Route, recorder: Recorder, request: Box<Request>) -> Response {
    if let Err(error) = request_check::check(&request) {
        return error.into_response();
    }
    // A gateway that answers TRACE would show the credentials of the remote; CONNECT asks for a tunnel, which this is
    // not.
    if matches!(*request.method(), Method::TRACE | Method::CONNECT) {
        let allow = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS".to_owned();
        return Error::Method { method: request.method().to_string(), allow }.into_response();
    }
    if shared.remotes.first().client.has_sent(request.headers()) {
        let message = format!(
            "this request has passed here before: the remote {} leads back to this proxy; point --remote-host at the machine that runs Ollama",
            shared.remotes.first().client.remote()
        );
        return Error::Loop { message }.into_response();
    }
    let next = |request, admitted| dispatch(shared.clone(), &route, &recorder, admitted, request);
    shared.gate.pass(request, &route, &recorder, next).await
}

/// Finds the model that is asked for, where the settings need it, and calls the handler of a translated route; all else
/// goes to the remote.
async fn dispatch(
    shared: Arc<Shared>,
    route: &Route,
    recorder: &Recorder,
    admitted: Admitted,
    request: Box<Request>,
) -> Response {
    let (mut request, mut target) = (request, None);
    if resolve::is_needed(&shared, route) {
        target = resolve::at_once(&shared, route, &mut request).await.map(Arc::new);
        if target.is_none() {
            // Boxed, so that all others do not carry the room for it.
            match Box::pin(resolve::resolve(&shared, route, recorder, &admitted, request)).await {
                Ok(found) => (request, target) = (found.0, found.1.map(Arc::new)),
                Err(error) => return error.into_response(),
            }
        }
        if let (Some(row), Some(target), true) = (route.row, target.as_deref(), route.is_native()) {
            resolve::note_preset(row, target, recorder);
        }
    }
    let named = request.headers_mut().remove(&passthrough::REMOTE);
    let upstream = if named.is_none() && !shared.remotes.are_several() {
        shared.remotes.only()
    } else {
        let model = target.as_deref().and_then(|target| target.model.as_ref());
        let at_once = model.filter(|_| named.is_none()).and_then(|model| shared.remotes.at_once(route, &model.full));
        let sent = match at_once {
            Some(candidates) => Ok(Sent::To(Arc::new(candidates))),
            // Boxed, so that all others do not carry the room for it.
            None => {
                let (method, model) = (request.method().clone(), model.map(|model| model.model.clone()));
                Box::pin(choose(&shared, route, method, named, model, &admitted)).await
            }
        };
        match sent {
            Ok(Sent::To(mut upstream)) => {
                // The one that all requests share is the only remote.
                if let Some(candidates) = Arc::get_mut(&mut upstream) {
                    candidates.record(recorder);
                }
                upstream
            }
            Ok(Sent::Answered(response)) => {
                let models = &shared.config.models;
                return match native_answer::change(models, route, request.method(), target.as_deref()) {
                    Some(change) => change.make(models, response).await,
                    None => response,
                };
            }
            Err(error) => return error.into_response(),
        }
    };
    if let Some(over_openai) = route.per_remote {
        let sent = send_by_kind(shared, route, over_openai, recorder, admitted, target, upstream, request);
        return Box::pin(sent).await;
    }
    let answered = match (route.handler, route.row) {
        (Some(handler), Some(row)) => {
            translate(shared, route, row, handler, recorder, admitted, target, upstream, request).await
        }
        _ => {
            recorder.waits_for("the remote");
            let upstream = traced(&shared, recorder, upstream);
            native(&shared, route, &upstream, target.as_deref(), recorder, request).await
        }
    };
    answered.into_response()
}

/// Who has answered, where that depended on the remote.
#[derive(Clone, Copy)]
struct AnsweredBy {
    /// A handler of farllama.
    translated: bool,
    /// The response is one of Ollama's, or the remote's own.
    native: bool,
}

/// Answers a request whose remotes do not all speak the same API: what is passed through to one is translated for
/// another. Before the first byte of a response, a request that fails goes on to the candidates that speak otherwise.
#[expect(clippy::too_many_arguments, reason = "each is what one layer above has found")]
async fn send_by_kind(
    shared: Arc<Shared>,
    route: &Route,
    over_openai: PerRemote,
    recorder: &Recorder,
    admitted: Admitted,
    target: Option<Arc<Target>>,
    upstream: Arc<Candidates>,
    request: Box<Request>,
) -> Response {
    let missing = |what: &str| Error::Internal { message: format!("there is no {what} to send the request to") };
    let Some(row) = route.row else { return missing("route").into_response() };
    let mut groups = upstream.by_kind();
    let own = gate::Inner::of(&request).is_some();
    let (parts, mut body) = request.into_parts();
    // What may be sent a second time is read whole first, and counts until it is answered.
    let mut whole = None;
    if groups.len() > 1 {
        let mut held = HeldBody::new(body, admitted.buffered.lease());
        if let Err(error) = held.read(shared.config.remote.replay_body, |_| true).await {
            return error.into_response();
        }
        if held.is_whole() {
            whole = Some((held.bytes(), held));
            body = Body::empty();
        } else {
            groups.truncate(1);
            body = Body::new(held);
        }
    }
    let last = groups.len() - 1;
    let mut first = None;
    for (nth, group) in groups.into_iter().enumerate() {
        let body = match &whole {
            Some((bytes, _)) => Body::from(bytes.clone()),
            None => std::mem::take(&mut body),
        };
        let mut request = Box::new(Request::from_parts(parts.clone(), body));
        let (shared, admitted, target) = (shared.clone(), admitted.clone(), target.clone());
        let openai = group.client().bridge().is_on();
        let handler = match over_openai.theirs {
            _ if !openai => route.handler,
            // What reads the answer of a request of farllama's own expects an answer of farllama's.
            Some(path) if !own && bridge::has(group.client(), path).await => None,
            _ => over_openai.handler,
        };
        let answered = if let Some(handler) = handler {
            translate(shared, route, row, handler, recorder, admitted, target, group.clone(), request).await
        } else {
            if openai && let Some(target) = &target {
                request = resolve::for_server(request, row, target, group.client(), recorder).await;
            }
            recorder.waits_for("the remote");
            let group = traced(&shared, recorder, group.clone());
            native(&shared, route, &group, target.as_deref(), recorder, request).await
        };
        let mut response = answered.into_response();
        if !group.is_exhausted() {
            let native = handler.is_none() || matches!(row.lane, routes::Lane::Native);
            response.extensions_mut().insert(AnsweredBy { translated: handler.is_some(), native });
            return response;
        }
        if nth < last {
            tracing::info!(target: "farllama", "a request failed on remote {} and goes on", group.current());
        }
        // The best remote's reason says most.
        first.get_or_insert(response);
    }
    first.unwrap_or_else(|| missing("remote").into_response())
}

/// Chooses the remotes that a request for `model` may be sent to.
async fn choose(
    shared: &Shared,
    route: &Route,
    method: Method,
    named: Option<HeaderValue>,
    model: Option<Arc<str>>,
    admitted: &Admitted,
) -> Result<Sent, Error> {
    let may_see = |name: &str| admitted.models.as_ref().is_none_or(|models| models.contain(name));
    shared.remotes.route(route, &method, named, model.as_deref(), may_see, &shared.config).await
}

#[expect(clippy::too_many_arguments, reason = "each is what one layer above has found")]
async fn translate(
    shared: Arc<Shared>,
    route: &Route,
    row: &Row,
    handler: Handler,
    recorder: &Recorder,
    admitted: Admitted,
    target: Option<Arc<Target>>,
    upstream: Arc<Candidates>,
    request: Box<Request>,
) -> Result<Response, Error> {
    if !row.verb.allows(request.method()) {
        return Err(Error::Method { method: request.method().to_string(), allow: routes::allow(row.path) });
    }
    let head = request.method() == Method::HEAD;
    // Of lists and descriptions that farllama makes for an OpenAI server; an Ollama's pass through.
    let change = native_answer::change(&shared.config.models, route, request.method(), target.as_deref());
    let settings = change.is_some().then(|| shared.clone());
    let Admitted { owner, models, buffered } = admitted;
    let upstream = traced(&shared, recorder, upstream);
    let (recorder, id) = (recorder.clone(), route.id.clone());
    let app = App { shared, upstream, buffered, models, recorder, owner, id, target };
    let mut response = handler(*request, app).await;
    if let Some((change, shared)) = change.zip(settings) {
        response = Box::pin(change.make(&shared.config.models, response)).await;
    }
    if head {
        let length = response.body().size_hint().exact().map(HeaderValue::from);
        response.headers_mut().extend(length.map(|length| (CONTENT_LENGTH, length)));
        *response.body_mut() = Body::empty();
    }
    Ok(response)
}

/// Notes that `upstream` is asked now, and passes the trace on to it where the settings say so.
fn traced(shared: &Shared, recorder: &Recorder, upstream: Arc<Candidates>) -> Arc<Candidates> {
    let Some(trace) = recorder.trace() else { return upstream };
    let (host, port) = upstream.client().address();
    trace.asks(host, port);
    if shared.tracer.propagates() { upstream.with_header(&TRACEPARENT, &trace.for_remote()) } else { upstream }
}

/// The native lane.
async fn native(
    shared: &Shared,
    route: &Route,
    upstream: &Candidates,
    target: Option<&Target>,
    recorder: &Recorder,
    mut request: Box<Request>,
) -> Result<Response, Error> {
    let config = &shared.config;
    // What the remote does not know either may be a wrong base URL.
    let unknown = route.row.is_none().then(|| (request.method().clone(), route.path(&request).to_owned()));
    let limit = config.limits.native_body;
    if limit > 0 {
        let reported =
            request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
        if reported.is_some_and(|length| length > limit) {
            return Err(Error::TooLarge { limit });
        }
        // One of unknown length is cut there.
        let too_large = move |error: axum::BoxError| match error.is::<LengthLimitError>() {
            true => Error::TooLarge { limit }.into(),
            false => error,
        };
        let body = std::mem::take(request.body_mut());
        *request.body_mut() = Body::new(Limited::new(body, limit).map_err(too_large));
    }
    let change = native_answer::change(&config.models, route, request.method(), target);
    let repairs = target.map(|target| &target.repairs).filter(|repairs| !repairs.is_empty());
    if change.is_some() || repairs.is_some() {
        // A compressed answer could not be changed.
        request.headers_mut().remove(ACCEPT_ENCODING);
    }
    let mut response = if upstream.is_choice() {
        let managing = route.row.is_some_and(|row| row.management);
        let passed = Box::pin(passthrough::pass_to(upstream, request, config)).await;
        if managing {
            upstream.current().state.forget_lists();
        }
        passed?
    } else {
        passthrough::pass(upstream.client(), request, config).await?
    };
    if let Some(change) = change {
        response = Box::pin(change.make(&config.models, response)).await;
    }
    if let Some(repairs) = repairs {
        response = native_calls::repair(response, repairs.clone(), recorder.clone());
    }
    match unknown {
        Some((method, path)) if is_bare_not_found(&response) => {
            let hint = routes::hint(&method, &path, &config.openai.base_path);
            let message = format!("Invalid URL ({method} {}): {hint}", text::name(&path));
            Err(Error::NotFound { message, param: None, code: "unknown_url" })
        }
        _ => Ok(response),
    }
}

/// Whether a response is the 404 of a Go server that has no such route, which is what Ollama answers.
fn is_bare_not_found(response: &Response) -> bool {
    const BARE: u64 = "404 page not found".len() as u64;
    let kind = response.headers().get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    // A text of that length, with a newline or without.
    let length = response.body().size_hint().exact();
    let length = length.or_else(|| response.headers().get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok());
    response.status() == StatusCode::NOT_FOUND
        && kind.starts_with(b"text/plain")
        && length.is_some_and(|length| length == BARE || length == BARE + 1)
}

/// Every header with a key that a text might hold.
fn secrets(shared: &Shared, headers: &http::HeaderMap) -> Vec<HeaderValue> {
    let sent = gate::key_headers(&shared.config.auth.header).flat_map(|name| headers.get_all(name));
    let carried = shared.remotes.secrets().iter();
    // Copies: a clone would hold the buffer that the head was read into for as long as the answer lasts.
    let copies =
        sent.filter(|value| holds_key(value)).filter_map(|value| HeaderValue::from_bytes(value.as_bytes()).ok());
    copies.chain(carried.filter(|value| holds_key(value)).cloned()).collect()
}

/// Whether a header has a word that is masked. What tools send for want of a key is none.
fn holds_key(value: &HeaderValue) -> bool {
    redact::keys_of(value).next().is_some()
}
