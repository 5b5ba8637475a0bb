//! Ollama's API over a server that speaks OpenAI's: vLLM, llama.cpp, LM Studio, OpenRouter, OpenAI itself (`remote.kind
//! = "openai"`).
//!
//! The native routes are translated (`handlers.rs`): `request.rs` reads what clients of Ollama ask, `translate.rs`
//! makes OpenAI's request of it, `stream.rs` makes Ollama's lines, or the one object, of the answer; `models.rs` lists
//! and shows models, `refusal.rs` understands errors. OpenAI's own routes pass through byte for byte
//! ([`Bridge::target`]). Routes that farllama makes of a chat (`/v1/responses`, `/v1/messages`) ask natively as always,
//! and [`open`] answers them as an Ollama would.

mod calls;
mod embed;
mod fields;
mod go;
mod handlers;
#[cfg(test)]
mod laws;
mod models;
mod refusal;
mod request;
mod stream;
mod think;
pub(crate) mod translate;
#[cfg(test)]
pub(crate) mod vectors;
mod wire;

use std::{
    borrow::Cow,
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
pub(crate) use handlers::{chat, embed, embeddings, generate, ps, pull, refuse, root, show, tags, version};
use http::{HeaderMap, Method, Response, StatusCode, header};
pub(crate) use models::Catalog;

use crate::{
    bridge::{
        fields::Without,
        request::{Chat, Embed, Generate},
        stream::{Now, Stream},
        translate::{Facts, Plan, Shape},
    },
    config::{Config, Kind, Remote},
    error::Error,
    offload,
    receipt::Receipt,
    redact::Redactor,
    stamp,
    upstream::{
        client::{self, Client, Upstream, encode, encode_sized},
        fence,
    },
};

/// The version of Ollama whose API this is.
pub(crate) const VERSION: &str = "0.33.0";

/// For how long a list of models is used before it is asked for anew.
pub(crate) const LISTED: Duration = Duration::from_secs(60);

/// For how long it is known whether a server answers a route itself.
const ROUTES_KNOWN: Duration = Duration::from_secs(3600);

/// How long a server may take to say so.
const ROUTES_WITHIN: Duration = Duration::from_secs(5);

/// For how many models it is known which fields the server refuses.
const LEARNED: usize = 256;

/// For how long a model counts as loaded after it has answered: as long as an Ollama keeps one by default.
const KEPT: Duration = Duration::from_secs(300);

/// How many times a request is sent anew without the fields that the server refused.
const RETRIES: usize = 4;

/// How many times a text that is too long to embed is cut: to a hundredth of its length.
const CUTS: usize = 12;

/// What the stream of an OpenAI server becomes that arrives in packets of `step` bytes: lines, and whether it failed.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn lines_of(data: &[u8], step: usize, shape: Shape) -> (String, bool) {
    let facts = Facts { model: "m".to_owned(), shape, stream: true, splits: true };
    let mut stream = Stream::new(facts, Redactor::default());
    let now = Now { created_at: "2026-11-22T12:37:41.5Z", elapsed: Duration::from_millis(5) };
    let mut out = Vec::new();
    let pushed = data.chunks(step).try_for_each(|packet| stream.push(Bytes::copy_from_slice(packet), &now, &mut out));
    let failed = pushed.and_then(|()| stream.end(&now, &mut out)).is_err();
    (String::from_utf8_lossy(&out).into_owned(), failed)
}

/// What a remote speaks, and what is known of it if that is OpenAI's API.
#[derive(Debug)]
pub(crate) struct Bridge {
    /// [`OLLAMA`], [`OPENAI`], or [`UNKNOWN`] until the remote has answered.
    kind: AtomicU8,
    /// Where the remote's routes stand, such as `/v1`.
    root: String,
    /// The path prefix in the settings.
    prefix: String,
    /// Where farllama's own stand.
    local: String,
    /// Fields that a model's server has refused.
    learned: Mutex<HashMap<String, Without>>,
    /// What it refuses of every model.
    refuses: Without,
    listed: Mutex<Option<(Instant, Arc<Catalog>)>>,
    /// When each model answered last. What answers is in memory.
    used: Mutex<HashMap<String, Instant>>,
    /// Routes that the server was asked for, when, and whether it has them.
    routes: Mutex<Vec<(&'static str, Instant, bool)>>,
}

const OLLAMA: u8 = 0;
const OPENAI: u8 = 1;
const UNKNOWN: u8 = 2;

impl Bridge {
    pub(crate) fn new(config: &Config, remote: &Remote) -> Self {
        let prefix = remote.base_path.clone();
        let kind = match remote.kind {
            Kind::Ollama => OLLAMA,
            Kind::OpenAi => OPENAI,
            // Only an OpenAI server's address ends so.
            Kind::Auto if prefix.ends_with("/v1") => OPENAI,
            Kind::Auto => UNKNOWN,
        };
        let refuses = match &*remote.host {
            "api.openai.com" => Without::of_openai(),
            _ => Without::default(),
        };
        Self {
            kind: AtomicU8::new(kind),
            // A base URL as OpenAI's clients take it; one without a path has the usual one.
            root: if prefix.is_empty() { "/v1".to_owned() } else { prefix.clone() },
            prefix,
            local: config.openai.base_path.clone(),
            learned: Mutex::default(),
            refuses,
            listed: Mutex::default(),
            used: Mutex::default(),
            routes: Mutex::default(),
        }
    }

    /// Whether the remote speaks OpenAI's API.
    pub(crate) fn is_on(&self) -> bool {
        self.kind.load(Ordering::Relaxed) == OPENAI
    }

    /// Whether the remote is known to speak Ollama's API.
    pub(crate) fn is_ollama(&self) -> bool {
        self.kind.load(Ordering::Relaxed) == OLLAMA
    }

    /// Whether it is not known yet what the remote speaks.
    pub(crate) fn is_unknown(&self) -> bool {
        self.kind.load(Ordering::Relaxed) == UNKNOWN
    }

    fn settle(&self, openai: bool) {
        self.kind.store(if openai { OPENAI } else { OLLAMA }, Ordering::Relaxed);
    }

    /// The remote's path for a caller's `path_and_query` that passes through: routes under farllama's own base path
    /// stand under the remote's.
    ///
    /// # Errors
    /// Fails if the path leaves the remote's, or belongs to an Ollama.
    pub(crate) fn target<'a>(&self, path_and_query: &'a str) -> Result<Cow<'a, str>, Error> {
        let under = |base: &str| path_and_query.strip_prefix(base).filter(|rest| rest.starts_with('/'));
        let path = |text: &'a str| text.split('?').next().unwrap_or_default();
        if let Some(rest) = under(&self.local).or_else(|| under("/v1")) {
            if fence::leaves(path(rest)) {
                let message = "the path leaves the remote's base path".to_owned();
                return Err(Error::Invalid { message, param: None, code: None });
            }
            return Ok(Cow::Owned(format!("{}{rest}", self.root)));
        }
        let ollamas = under("/api").is_some() || path(path_and_query) == "/";
        if ollamas || !(self.prefix.is_empty() || self.prefix == "/v1") {
            let message = format!(
                "the remote is an OpenAI server, which has no {}; farllama answers /api/chat, /api/generate, /api/embed, /api/embeddings, \
                 /api/tags, /api/show, /api/ps, /api/version and /api/pull for it",
                crate::text::name(path(path_and_query))
            );
            return Err(Error::NotFound { message, param: None, code: "unknown_url" });
        }
        // A server's own routes beside the API, such as /health.
        Ok(Cow::Borrowed(path_and_query))
    }

    /// The remote's path of `path`, which stands under the API's root.
    pub(crate) fn under_root(&self, path: &str) -> String {
        format!("{}{path}", self.root)
    }

    fn learned(&self, model: &str) -> Without {
        let learned = self.learned.lock().unwrap_or_else(PoisonError::into_inner);
        self.refuses.and(learned.get(model).copied().unwrap_or_default())
    }

    fn learn(&self, model: &str, without: Without) {
        let mut learned = self.learned.lock().unwrap_or_else(PoisonError::into_inner);
        if learned.len() >= LEARNED && !learned.contains_key(model) {
            learned.clear();
        }
        learned.insert(model.to_owned(), without);
    }

    /// The last list of models, if it is younger than `age`.
    fn listed(&self, age: Duration) -> Option<Arc<Catalog>> {
        let listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        listed.as_ref().filter(|(since, _)| since.elapsed() < age).map(|(_, catalog)| catalog.clone())
    }

    /// Notes that the model with this id has answered.
    fn use_model(&self, id: &str) {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = used.get_mut(id) {
            *last = Instant::now();
            return;
        }
        used.retain(|_, last| last.elapsed() < KEPT);
        if used.len() >= LEARNED {
            return;
        }
        used.insert(id.to_owned(), Instant::now());
    }

    /// Notes that a client needs the model with this id no more.
    fn unload(&self, id: &str) {
        self.used.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    /// The answer of `GET /api/ps`.
    fn ps(&self, catalog: &Catalog) -> serde_json::Value {
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let left = used.iter().map(|(id, last)| (&**id, KEPT.saturating_sub(last.elapsed())));
        let left: Vec<_> = left.filter(|(_, left)| !left.is_zero()).collect();
        catalog.ps(&left, &stamp::created_at())
    }

    /// The program that the server is, as far as its last list says.
    pub(crate) fn server(&self) -> Option<&'static str> {
        self.listed(Duration::MAX)?.server()
    }

    /// The server's id of the model that a client calls `name`, if the last list has it.
    pub(crate) fn id_of(&self, name: &str) -> Option<String> {
        let listed = self.listed(Duration::MAX)?;
        listed.has(name).then(|| listed.id_of(name).to_owned())
    }
}

/// Finds out what the remote speaks, if the settings leave that open: an Ollama answers `/api/version`. What cannot be
/// reached counts as an Ollama for now.
pub(crate) async fn settle_kind(client: &Client) {
    #[derive(serde::Deserialize)]
    struct Version {
        #[serde(rename = "version")]
        _version: String,
    }
    let asked = client.exchange(Method::GET, &client.bridge().ollamas("/api/version"), None).await;
    let Ok(response) = asked else { return };
    let success = response.status() == StatusCode::OK;
    let Ok(body) = client::whole(response.into_body()).await else { return };
    if success && serde_json::from_slice::<Version>(&body).is_ok() {
        client.bridge().settle(false);
    } else if catalog(client, Duration::ZERO).await.is_ok() {
        client.bridge().settle(true);
    }
}

impl Bridge {
    fn ollamas(&self, path: &str) -> String {
        format!("{}{path}", self.prefix)
    }
}

/// What an OpenAI server is, for people.
pub(crate) fn described(server: Option<&str>) -> String {
    server.map_or_else(|| "an OpenAI server".to_owned(), |server| format!("an OpenAI server ({server})"))
}

/// Returns the models of the remote, from the last list if that is younger than `age`.
///
/// # Errors
/// Fails if the remote does not list its models.
pub(crate) async fn catalog(client: &Client, age: Duration) -> Result<Arc<Catalog>, Error> {
    let bridge = client.bridge();
    if let Some(catalog) = bridge.listed(age) {
        return Ok(catalog);
    }
    let path = bridge.under_root("/models");
    let response = client.exchange(Method::GET, &path, None).await?;
    let (parts, body) = response.into_parts();
    let body = client::whole(body).await?;
    let asked = client.asked(&path);
    let read = || if parts.status == StatusCode::OK { Catalog::read(&body) } else { None };
    let Some(catalog) = read() else {
        return Err(refusal::read(parts.status, &parts.headers, &body, &asked, None, client.redactor()));
    };
    let catalog = Arc::new(catalog);
    *bridge.listed.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), catalog.clone()));
    Ok(catalog)
}

/// Whether the server answers `path`, below the API's root, itself. The first time it is asked with an empty object: a
/// server that has the route refuses that, and one that does not has no such path. What the server leaves open counts
/// as no, for this time.
pub(crate) async fn has(client: &Client, path: &'static str) -> bool {
    let bridge = client.bridge();
    let routes = || bridge.routes.lock().unwrap_or_else(PoisonError::into_inner);
    let known =
        routes().iter().find(|(known, at, _)| *known == path && at.elapsed() < ROUTES_KNOWN).map(|known| known.2);
    if let Some(has) = known {
        return has;
    }
    let target = bridge.under_root(path);
    let asking = async {
        let response = client.exchange(Method::POST, &target, Some(Bytes::from_static(b"{}"))).await?;
        let status = response.status();
        Ok::<_, Error>((status, client::whole(response.into_body()).await?))
    };
    let Ok(Ok((status, body))) = tokio::time::timeout(ROUTES_WITHIN, asking).await else { return false };
    let has = match status {
        StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY | StatusCode::INTERNAL_SERVER_ERROR => true,
        // A model without a name does not exist.
        StatusCode::NOT_FOUND => memchr::memmem::find(&body, b"model").is_some(),
        // Some answer to every path.
        StatusCode::OK | StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => false,
        _ => return false,
    };
    let mut routes = routes();
    routes.retain(|(known, ..)| *known != path);
    routes.push((path, Instant::now(), has));
    has
}

/// An answer to a native request.
pub(crate) struct Answered {
    pub(crate) answer: Answer,
    pub(crate) receipt: Receipt,
    /// As the client spelled it.
    pub(crate) model: String,
}

pub(crate) enum Answer {
    /// One object.
    Whole(Bytes),
    /// One object, which is the only line of a stream.
    Line(Bytes),
    /// Lines.
    Stream(Box<Upstream>),
}

/// Translates lines of events that come from the remote, while they come.
#[derive(Debug)]
pub(crate) struct Translation {
    stream: Stream,
    started: Instant,
}

impl Translation {
    /// Whether the last line is written.
    pub(crate) fn closed(&self) -> bool {
        self.stream.closed()
    }

    /// Takes a packet, or the end. Returns the lines that it completes, and why nothing more follows if the answer
    /// cannot be completed.
    pub(crate) fn take(&mut self, packet: Option<Bytes>) -> (Bytes, Option<Error>) {
        let created_at = stamp::created_at();
        let now = Now { created_at: &created_at, elapsed: self.started.elapsed() };
        let mut out = Vec::with_capacity(packet.as_ref().map_or(512, |packet| packet.len().min(16 << 10)));
        let taken = match packet {
            Some(packet) => self.stream.push(packet, &now, &mut out),
            None => self.stream.end(&now, &mut out),
        };
        (out.into(), taken.err())
    }
}

/// What is asked for a native request.
struct Asked {
    path: &'static str,
    body: Bytes,
    used: Without,
}

/// A native request, taken apart; None where nothing is asked.
type Prepared = (Facts, Option<Asked>, bool, Receipt, String);

/// Reads `body` and translates it. `without` says which fields the server of a model is known to refuse.
fn prepare(
    shape: Shape,
    body: &[u8],
    catalog: Option<&Catalog>,
    without: &dyn Fn(&str) -> Without,
) -> Result<Prepared, Error> {
    let text = String::from_utf8_lossy(body);
    let mut receipt = Receipt::default();
    let id_of = |name: &str| match catalog {
        Some(catalog) => catalog.id_of(name).to_owned(),
        None => name.strip_suffix(":latest").unwrap_or(name).to_owned(),
    };
    let finish = |facts: Facts, plan: Plan<'_>, id: String, receipt: Receipt| match plan {
        Plan::Nothing { unloads } => Ok((facts, None, unloads, receipt, id)),
        Plan::Ask { path, body: ask, used } => {
            let body = encode_sized(&*ask, body.len() + 256)?;
            Ok((facts, Some(Asked { path, body, used }), false, receipt, id))
        }
    };
    match shape {
        Shape::Chat => {
            let request = Chat::read(&text, &mut receipt)?;
            let id = id_of(&request.common.model);
            let (facts, plan) = translate::chat(&request, &id, &without(&id), &mut receipt);
            finish(facts, plan, id.clone(), receipt)
        }
        Shape::Generate => {
            let request = Generate::read(&text, &mut receipt)?;
            let id = id_of(&request.common.model);
            let (facts, plan) = translate::generate(&request, &id, &without(&id), &mut receipt)?;
            finish(facts, plan, id.clone(), receipt)
        }
    }
}

/// Answers `POST /api/chat` or `POST /api/generate`.
///
/// # Errors
/// Fails where Ollama would refuse the request, and with what the server refuses, in Ollama's words.
pub(crate) async fn generation(client: &Client, shape: Shape, body: Bytes) -> Result<Answered, Error> {
    let started = Instant::now();
    // Only of such a name it is not clear which model it means.
    let tagged = memchr::memmem::find(&body, b":latest\"").is_some();
    let catalog = if tagged { catalog(client, LISTED).await.ok() } else { None };
    let (size, mut more) = (body.len(), Without::default());
    for attempt in 0.. {
        let prepared = {
            let (bridge, body, catalog) = (client.bridge().clone(), body.clone(), catalog.clone());
            let preparing = move || prepare(shape, &body, catalog.as_deref(), &|id| bridge.learned(id).and(more));
            offload::run(size, preparing).await?
        };
        let (facts, asked, unloads, receipt, id) = prepared;
        let model = facts.model.clone();
        let Some(Asked { path, body: ask, used }) = asked else {
            let created_at = stamp::created_at();
            let now = Now { created_at: &created_at, elapsed: started.elapsed() };
            // A model that does not exist cannot be loaded.
            if self::catalog(client, LISTED).await.is_ok_and(|catalog| !catalog.has(&model)) {
                return Err(request::not_found(format!("model '{model}' not found")));
            }
            match unloads {
                true => client.bridge().unload(&id),
                false => client.bridge().use_model(&id),
            }
            let answer = Answer::Whole(stream::nothing(&facts, unloads, &now)?.into());
            return Ok(Answered { answer, receipt, model });
        };
        let path = client.bridge().under_root(path);
        let response = client.exchange(Method::POST, &path, Some(ask)).await?;
        if response.status() == StatusCode::OK {
            if attempt > 0 {
                client.bridge().learn(&id, client.bridge().learned(&id).and(more));
            }
            client.bridge().use_model(&id);
            let answer = answered(client, facts, response, started).await?;
            return Ok(Answered { answer, receipt, model });
        }
        let (status, error) = refused(client, &path, response, &model).await;
        let refused = match status {
            StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => used.refused_by(&error.to_string()),
            _ => Without::default(),
        };
        if refused.is_empty() || attempt >= RETRIES {
            return Err(error);
        }
        more = more.and(refused);
    }
    Err(Error::Internal { message: "no attempt was made".to_owned() })
}

/// The answer out of a successful response.
async fn answered(
    client: &Client,
    facts: Facts,
    response: Response<Upstream>,
    started: Instant,
) -> Result<Answer, Error> {
    let streams = is(response.headers(), "text/event-stream");
    if streams && facts.stream {
        let stream = Stream::new(facts, client.redactor().clone());
        let mut body = response.into_body();
        body.translate(Translation { stream, started });
        return Ok(Answer::Stream(Box::new(body)));
    }
    let body = client::whole(response.into_body()).await?;
    let redactor: Redactor = client.redactor().clone();
    let stream = facts.stream;
    let written = offload::run(body.len(), move || {
        let created_at = stamp::created_at();
        let now = Now { created_at: &created_at, elapsed: started.elapsed() };
        stream::whole(&facts, &body, &redactor, &now)
    })
    .await?;
    Ok(if stream { Answer::Line(written.into()) } else { Answer::Whole(written.into()) })
}

fn is(headers: &HeaderMap, kind: &str) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(kind.as_bytes()))
}

/// Why a response is not a success.
async fn refused(client: &Client, path: &str, response: Response<Upstream>, model: &str) -> (StatusCode, Error) {
    let (parts, body) = response.into_parts();
    let error = match client::whole(body).await {
        Ok(body) => {
            let asked = client.asked(path);
            refusal::read(parts.status, &parts.headers, &body, &asked, Some(model), client.redactor())
        }
        Err(error) => error,
    };
    (parts.status, error)
}

/// Answers `POST /api/embed` (or the older `/api/embeddings`).
///
/// # Errors
/// As [`generation`].
pub(crate) async fn embedding(client: &Client, old: bool, body: Bytes) -> Result<Answered, Error> {
    let started = Instant::now();
    let mut receipt = Receipt::default();
    let text = String::from_utf8_lossy(&body);
    let mut request = match old {
        true => Embed::read_old(&text, &mut receipt)?,
        false => Embed::read(&text, &mut receipt)?,
    };
    let model = request.model.to_string();
    let listed = match model.ends_with(":latest") || request.input.is_empty() {
        true => catalog(client, LISTED).await.ok(),
        false => None,
    };
    let missing = || request::not_found(format!("model {model:?} not found, try pulling it first"));
    let written = if request.input.is_empty() {
        if listed.is_some_and(|listed| !listed.has(&model)) {
            return Err(missing());
        }
        let nothing = if old {
            serde_json::json!({"embedding": []})
        } else {
            serde_json::json!({"model": model, "embeddings": []})
        };
        encode(&nothing)?
    } else {
        let id = match &listed {
            Some(listed) => listed.id_of(&model),
            None => model.strip_suffix(":latest").unwrap_or(&model),
        };
        let path = client.bridge().under_root("/embeddings");
        let (mut more, mut cuts) = (Without::default(), 0);
        let reply = loop {
            let (ask, used) = translate::embed(&request, id, &client.bridge().learned(id).and(more));
            let response = client.exchange(Method::POST, &path, Some(encode(&ask)?)).await?;
            if response.status() == StatusCode::OK {
                if !more.is_empty() {
                    client.bridge().learn(id, client.bridge().learned(id).and(more));
                }
                client.bridge().use_model(id);
                break client::whole(response.into_body()).await?;
            }
            let (status, error) = refused(client, &path, response, &model).await;
            if matches!(error, Error::NotFound { code: "model_not_found", .. }) {
                return Err(missing());
            }
            let refused = match status {
                StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => used.refused_by(&error.to_string()),
                _ => Without::default(),
            };
            if request.truncate && cuts < CUTS && refusal::is_too_long(&error) && request.cut() {
                if cuts == 0 {
                    receipt.emulated("truncate");
                }
                cuts += 1;
                continue;
            }
            // Each field is refused once.
            if refused.is_empty() {
                return Err(error);
            }
            more = more.and(refused);
        };
        let (inputs, redactor, elapsed) = (request.input.len(), client.redactor().clone(), started.elapsed());
        let name = model.clone();
        offload::run(reply.len(), move || match old {
            true => embed::old_reply(&reply, &redactor),
            false => embed::reply(&name, &reply, inputs, elapsed, &redactor),
        })
        .await?
        .into()
    };
    Ok(Answered { answer: Answer::Whole(written), receipt, model })
}

/// What a native request to `path` becomes, for `farllama explain`: the path and the body that are asked, None if
/// nothing is.
///
/// # Errors
/// As the route.
pub(crate) fn explain(path: &str, body: &[u8], config: &Config) -> Result<(Option<(String, Bytes)>, Receipt), Error> {
    let bridge = Bridge::new(config, &config.remote);
    let old = path == "/api/embeddings";
    let shape = match path {
        "/api/chat" => Shape::Chat,
        "/api/generate" => Shape::Generate,
        _ => {
            let mut receipt = Receipt::default();
            let text = String::from_utf8_lossy(body);
            let request = if old { Embed::read_old(&text, &mut receipt)? } else { Embed::read(&text, &mut receipt)? };
            if request.input.is_empty() {
                return Ok((None, receipt));
            }
            let id = request.model.strip_suffix(":latest").unwrap_or(&request.model);
            let (ask, _) = translate::embed(&request, id, &bridge.learned(id));
            return Ok((Some((bridge.under_root("/embeddings"), encode(&ask)?)), receipt));
        }
    };
    let (_, asked, _, receipt, _) = prepare(shape, body, None, &|id| bridge.learned(id))?;
    Ok((asked.map(|asked| (bridge.under_root(asked.path), asked.body)), receipt))
}

/// What an Ollama would answer to `path`, for routes that ask one.
///
/// # Errors
/// As those of the route.
pub(crate) async fn open(client: &Client, path: &str, ask: Option<Bytes>) -> Result<Upstream, Error> {
    let ask = ask.unwrap_or_default();
    let answered = match path {
        "/api/chat" => generation(client, Shape::Chat, ask).await?,
        "/api/generate" => generation(client, Shape::Generate, ask).await?,
        "/api/embed" => embedding(client, false, ask).await?,
        "/api/tags" => return Ok(client.given(encode(&catalog(client, Duration::from_secs(1)).await?.tags())?)),
        "/api/ps" => {
            let catalog = catalog(client, LISTED).await?;
            return Ok(client.given(encode(&client.bridge().ps(&catalog))?));
        }
        "/api/version" => return Ok(client.given(encode(&serde_json::json!({"version": VERSION}))?)),
        "/api/show" => return Ok(client.given(encode(&shown(client, &String::from_utf8_lossy(&ask)).await?)?)),
        _ => {
            return Err(Error::NotImplemented {
                message: format!("the remote is an OpenAI server, which has no {path}"),
            });
        }
    };
    Ok(match answered.answer {
        Answer::Whole(bytes) | Answer::Line(bytes) => client.given(bytes),
        Answer::Stream(upstream) => *upstream,
    })
}

/// Answers `POST /api/show`.
///
/// # Errors
/// Fails if there is no such model, or the remote does not list its models.
async fn shown(client: &Client, body: &str) -> Result<serde_json::Value, Error> {
    let (model, _) = request::named("ShowRequest", body)?;
    if model.is_empty() {
        return Err(go::bad_request("model is required"));
    }
    let listed = catalog(client, LISTED).await?;
    let shown = match listed.show(&model) {
        Some(shown) => Some(shown),
        // It may be new.
        None => catalog(client, Duration::ZERO).await?.show(&model),
    };
    shown.ok_or_else(|| {
        let last = model.rsplit('/').next().unwrap_or(&model);
        // Recorded: show/bad-name. Servers may have models whose names Ollama would not take.
        if model.split('/').count() > 3 || last.matches(':').count() > 1 {
            return go::bad_request("invalid model name");
        }
        let tagged = last.contains(':');
        let tag = if tagged { "" } else { ":latest" };
        request::not_found(format!("model '{model}{tag}' not found"))
    })
}
