//! Which model a request is for, found between the gate and the handler where the settings need it: a name may stand
//! for another model (`[models]`), and one of several remotes is chosen by it. Without such settings no request passes
//! here.
//!
//! The body of a translated request is read whole, as its handler needs it. Of a native one only the part up to the
//! name is held, unless a preset changes more than the name.

pub(crate) mod native_answer;
mod native_body;
pub(crate) mod native_calls;
mod openai_body;

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use axum::{
    body::{Body, Bytes},
    extract::Request,
};
use foldhash::fast::RandomState;
use futures_util::stream;
use http::header;
use http_body::{Body as HttpBody, Frame, SizeHint};
use native_body::Kind;

use crate::{
    app::Shared,
    buffered::{Counted, FREE},
    config::{Config, Preset, Resolved, Tools},
    error::{Dialect, Error},
    gate::{
        Admitted,
        held_body::{self, HeldBody},
        model_names::{self, Name, Scan},
    },
    observe::Recorder,
    offload,
    ollama::{models, name, wire::Tags},
    openai::{
        request::{
            encoding,
            json::{Fields, Text},
        },
        tools::repair::Repairs,
    },
    receipt::Receipt,
    routes::{Names, Route, Row},
    text,
    upstream::{client::Client, remotes::Candidates},
    whole_body,
};

/// The name of the native route whose answers may call tools.
const CHAT: &str = "api/chat";

/// How much of a native body is read at most in front of the model's name.
const IN_FRONT: usize = 1 << 20;

/// The models that a request names.
#[derive(Debug)]
pub(crate) struct Target {
    /// Every name that was read. Their places are those in the body that came in.
    pub(crate) names: Vec<Name>,
    /// The model that runs, or is managed. None: it is not named, or behind the part that was read.
    pub(crate) model: Option<Arc<Resolved>>,
    /// What the calls of a native answer are checked against.
    pub(crate) repairs: Repairs,
}

/// Puts the remote's model in the place of `model`, as a body names it, and returns its preset.
pub(crate) fn replace<'a>(
    config: &'a Config,
    target: Option<&'a Target>,
    model: &mut Text<'_>,
    receipt: &mut Receipt,
) -> Option<&'a Preset> {
    if config.models.is_empty() {
        return None;
    }
    let (target, preset) = behind(config, target, model);
    if let Some(target) = target {
        receipt.note("model", format!("alias:{}", text::name(&target)));
        model.0 = Cow::Owned(target);
    }
    preset
}

/// The remote's model behind `model`, if it is another, and its preset.
pub(crate) fn behind<'a>(
    config: &'a Config,
    target: Option<&'a Target>,
    model: &str,
) -> (Option<String>, Option<&'a Preset>) {
    let resolved = target.and_then(|target| target.model.as_ref()).filter(|resolved| *resolved.asked == *model);
    let (behind, preset) = match resolved {
        Some(resolved) => (&*resolved.model, resolved.preset.as_deref()),
        None => (config.models.behind(model, None).0, config.models.preset(model)),
    };
    ((behind != model).then(|| behind.to_owned()), preset)
}

/// The settings of tools for the model that the `fields` of a body name.
pub(crate) fn tools(config: &Config, target: Option<&Target>, fields: &Fields<'_>) -> Tools {
    let mut tools = config.tools;
    if config.models.is_empty() {
        return tools;
    }
    let named = fields.raw("model").and_then(|raw| serde_json::from_str::<Text<'_>>(raw.get()).ok());
    if let Some(preset) = named.and_then(|named| behind(config, target, &named).1) {
        tools = merged(tools, preset);
    }
    tools
}

/// The settings of tools with those of a preset.
fn merged(tools: Tools, preset: &Preset) -> Tools {
    let own = preset.tools;
    Tools {
        repair: own.repair.unwrap_or(tools.repair),
        rescue: own.rescue.unwrap_or(tools.rescue),
        reask: own.reask.unwrap_or(tools.reask),
        repair_native: own.repair_native.unwrap_or(tools.repair_native),
    }
}

/// What the names of models in requests stand for, as long as the settings stay the same. Bounded.
#[derive(Debug, Default)]
pub(crate) struct ResolvedNames {
    plain: Mutex<HashMap<Arc<str>, Arc<Resolved>, RandomState>>,
    /// Where Anthropic's names stand for models, too.
    anthropic: Mutex<HashMap<Arc<str>, Arc<Resolved>, RandomState>>,
}

impl ResolvedNames {
    /// Maximum number of names, and length of one: callers send any.
    const MOST: usize = 256;
    const LONGEST: usize = 256;

    fn of(&self, config: &Config, asked: &str, anthropic: bool) -> Arc<Resolved> {
        let names = if anthropic { &self.anthropic } else { &self.plain };
        let mut names = names.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = names.get(asked) {
            return known.clone();
        }
        let resolved = Arc::new(config.resolve(asked, anthropic));
        if names.len() < Self::MOST && asked.len() <= Self::LONGEST {
            names.insert(resolved.asked.clone(), resolved.clone());
        }
        resolved
    }
}

/// Whether the settings need to know which model a request is for.
pub(crate) fn is_needed(shared: &Shared, route: &Route) -> bool {
    let config = &shared.config;
    let repairs = config.tools.repair_native && route.row.is_some_and(|row| row.name == CHAT);
    // Anthropic's names may stand for a model of a server that the request passes through to.
    let anthropic = route.per_remote.is_some() && route.dialect == Dialect::Anthropic;
    repairs || anthropic || (!config.models.is_empty() || shared.remotes.are_several()) && route.row.is_some()
}

/// Finds the model that `request` is for where that takes no more than a look at a small body, as mostly. None: see
/// [`resolve`]; the request is the same as before.
pub(crate) async fn at_once(shared: &Shared, route: &Route, request: &mut Request) -> Option<Target> {
    let row = route.row.filter(|row| !row.management)?;
    let Names::Body(fields @ [_]) = row.names else { return None };
    let size = request.body().size_hint().exact()?;
    if !(1..=FREE as u64).contains(&size)
        || !shared.config.models.default.is_empty()
        || shared.config.tools.repair_native && row.name == CHAT
        || request.headers().contains_key(header::CONTENT_ENCODING)
    {
        return None;
    }
    // It is polled once. If it is not there yet, it is polled again.
    let polled = poll_fn(|cx| Poll::Ready(Pin::new(request.body_mut()).poll_frame(cx))).await;
    let Poll::Ready(Some(frame)) = polled else { return None };
    let body = match frame.map(Frame::into_data) {
        Ok(Ok(body)) if request.body().is_end_stream() => body,
        Ok(frame) => {
            let (frame, rest) = (frame.map_or_else(|frame| frame, Frame::data), std::mem::take(request.body_mut()));
            *request.body_mut() = Body::new(HeldBody::begun(frame, rest));
            return None;
        }
        Err(error) => {
            *request.body_mut() = Body::from_stream(stream::iter([Err::<Bytes, _>(error)]));
            return None;
        }
    };
    let target = model_names::first_name(&body, fields).and_then(|name| {
        let anthropic = route.dialect == Dialect::Anthropic && route.translated();
        let model = Some(shared.names.of(&shared.config, &name.name, anthropic)).filter(|_| !name.name.is_empty())?;
        let plain = model.preset.as_ref().is_none_or(|preset| preset.is_empty());
        (plain || !route.is_native()).then(|| Target {
            names: vec![name],
            model: Some(model),
            repairs: Repairs::default(),
        })
    });
    let alias = target.as_ref().filter(|_| route.is_native()).and_then(|target| {
        let model = target.model.as_ref().filter(|model| model.is_alias())?;
        Some(native_body::with_name(&body, &target.names, &model.model))
    });
    *request.body_mut() = alias.map_or_else(|| Body::from(body), Body::from);
    target
}

/// Finds the model that `request` is for. A native request gets the remote's name for it; handlers resolve the names
/// that they read.
///
/// # Errors
/// Fails if the body is too large or breaks off, or if the caller may not use the model that takes the place of an
/// unknown one. A body whose names cannot be read passes on unchanged: the handler, or the remote, says what is wrong
/// with it.
pub(crate) async fn resolve(
    shared: &Shared,
    route: &Route,
    recorder: &Recorder,
    admitted: &Admitted,
    mut request: Box<Request>,
) -> Result<(Box<Request>, Option<Target>), Error> {
    let Some(row) = route.row else { return Ok((request, None)) };
    let fields = match row.names {
        Names::Path => {
            let name = route.id.as_deref().unwrap_or_default().into();
            let target = target(shared, route, row, admitted, vec![Name { field: "model", name, span: None }]).await?;
            return Ok((request, Some(target)));
        }
        Names::Body(fields) | Names::Definition(fields) => fields,
        Names::Form => &["model"],
        Names::Weights | Names::Listed(..) | Names::Nowhere => return Ok((request, None)),
    };
    if request.body().is_end_stream() {
        return Ok((request, None));
    }
    recorder.waits_for("the request body");
    if !route.is_native() {
        let body = whole(shared, admitted, &mut request).await?;
        if row.names == Names::Body(fields)
            && let Some(name) = model_names::first_name(&body, fields)
        {
            let target = target(shared, route, row, admitted, vec![name]).await?;
            return Ok((request, Some(target)));
        }
        let names = match row.names {
            Names::Form => {
                let (form, headers) = (body.clone(), request.headers().clone());
                offload::run(body.len(), move || model_names::in_form(form, &headers)).await
            }
            _ => offload::run(body.len(), move || all_names(Scan::new(fields), &body)).await,
        };
        let target = target(shared, route, row, admitted, names.unwrap_or_default()).await?;
        return Ok((request, Some(target)));
    }
    if held_body::is_encoded(request.headers()) {
        return Ok((request, None));
    }
    native(shared, route, row, admitted, fields, request).await
}

/// Notes what became of an alias and its preset in a request that passes through to an OpenAI server.
pub(crate) fn note_preset(row: &Row, target: &Target, recorder: &Recorder) {
    let (Some(chat), Some(model)) = (Kind::of(row.name).openai(), &target.model) else { return };
    let mut receipt = Receipt::default();
    if model.is_alias() {
        receipt.note("model", format!("alias:{}", text::name(&model.model)));
    }
    if let Some(preset) = &model.preset {
        openai_body::note(preset, chat, &mut receipt);
    }
    recorder.receipt(receipt);
}

/// Puts the name that an OpenAI server has for the model in the place of the caller's, where they differ, and adds its
/// preset. `request` is of a translated route, `row`, and passes through.
pub(crate) async fn for_server(
    request: Box<Request>,
    row: &Row,
    target: &Target,
    client: &Client,
    recorder: &Recorder,
) -> Box<Request> {
    let Some(model) = &target.model else { return request };
    let id = client.bridge().id_of(&model.model).unwrap_or_else(|| model.model.to_string());
    let kind = Kind::of(row.name);
    note_preset(row, target, recorder);
    // A form has no name that could be replaced.
    let preset = model.preset.as_ref().filter(|preset| kind.openai().is_some() && kind.takes(preset));
    let unchanged = *id == *model.asked && preset.is_none();
    if unchanged || target.names.iter().any(|name| name.span.is_none()) {
        return request;
    }
    let (parts, body) = request.into_parts();
    // It was read whole to find the names.
    let body = match whole_body::read(body, usize::MAX).await {
        Ok(body) => {
            let filled =
                preset.and_then(|preset| native_body::with_preset(&body, &target.names, Some(&id), preset, kind));
            Body::from(filled.unwrap_or_else(|| native_body::with_name(&body, &target.names, &id)))
        }
        Err(_) => Body::empty(),
    };
    Box::new(Request::from_parts(parts, body))
}

fn all_names(mut scan: Scan, body: &[u8]) -> Result<Vec<Name>, model_names::Unreadable> {
    scan.push(body)?;
    scan.end()?;
    Ok(scan.found().to_vec())
}

/// Reads the body of a translated request whole, and decompresses it.
async fn whole(shared: &Shared, admitted: &Admitted, request: &mut Request) -> Result<Bytes, Error> {
    let limit = shared.config.limits.body;
    let body = std::mem::take(request.body_mut());
    let counted = request.extensions().get::<Counted>().is_some();
    let mut body = held_body::read_whole(body, counted, limit, &admitted.buffered).await?;
    // A body of this size is not counted a second time.
    if !counted && body.len() > FREE {
        request.extensions_mut().insert(Counted);
    }
    if held_body::is_encoded(request.headers()) {
        let headers = request.headers().clone();
        // Text grows to many times its compressed size.
        body = offload::run(body.len().saturating_mul(20), move || encoding::decode(&headers, body, limit)).await?;
        body = admitted.buffered.hold(body);
        request.extensions_mut().insert(Counted);
        request.headers_mut().remove(header::CONTENT_ENCODING);
        request.headers_mut().remove(header::CONTENT_LENGTH);
    }
    *request.body_mut() = Body::from(body.clone());
    Ok(body)
}

/// Reads the body of a native request up to its model's name, and puts the remote's name for the model in its place.
async fn native(
    shared: &Shared,
    route: &Route,
    row: &Row,
    admitted: &Admitted,
    fields: &'static [&'static str],
    mut request: Box<Request>,
) -> Result<(Box<Request>, Option<Target>), Error> {
    let mut held = HeldBody::new(std::mem::take(request.body_mut()), admitted.buffered.lease());
    // Mostly this is all of it.
    held.read(IN_FRONT, |_| false).await?;
    let front = held.bytes();
    let first = if held.is_whole() { model_names::first_name(&front, fields) } else { None };
    let mut scan = Scan::new(fields);
    let names = match first {
        Some(name) => vec![name],
        None => {
            let mut readable = scan.push(&front).is_ok();
            if readable && scan.found().is_empty() && !scan.closed() {
                held.read(IN_FRONT, |part| {
                    readable = scan.push(part).is_ok();
                    readable && scan.found().is_empty() && !scan.closed()
                })
                .await?;
            }
            if readable { scan.found().to_vec() } else { Vec::new() }
        }
    };
    let mut target = target(shared, route, row, admitted, names).await?;
    let Some(model) = &target.model else {
        *request.body_mut() = Body::new(held);
        return Ok((request, Some(target)));
    };
    let (kind, alias) = (Kind::of(row.name), model.is_alias().then(|| model.model.clone()));
    let tools = model.preset.as_ref().map_or(shared.config.tools, |preset| merged(shared.config.tools, preset));
    let fills = model.preset.as_ref().is_some_and(|preset| kind.takes(preset));
    let repairs = tools.repair_native && row.name == CHAT;
    let limit = shared.config.limits.body;
    if (fills || repairs) && !held.is_whole() {
        held.read(limit, |part| scan.push(part).is_ok()).await?;
        if fills && !held.is_whole() {
            return Err(Error::TooLarge { limit });
        }
        target.names = scan.found().to_vec();
    }
    if held.is_whole() && (fills || repairs) {
        let (body, names) = (held.bytes(), target.names.clone());
        let preset = model.preset.clone().unwrap_or_default();
        let edit = move || {
            let edited = native_body::with_preset(&body, &names, alias.as_deref(), &preset, kind);
            let repairs = if repairs { native_calls::repairs(&body, &tools) } else { Repairs::default() };
            (edited, repairs)
        };
        let (edited, repairs) = offload::run(held.bytes().len(), edit).await;
        target.repairs = repairs;
        // A body that is sent as it came keeps its frames.
        if let Some(edited) = edited.filter(|edited| *edited != held.bytes()) {
            held.replace(edited.into());
        }
    } else if let Some(alias) = alias {
        held.replace(native_body::with_name(&held.bytes(), &target.names, &alias).into());
        let count = scan.found().len();
        held.map_rest(|body| Body::new(NoOtherName { body, scan, count }));
    }
    *request.body_mut() = Body::new(held);
    Ok((request, Some(target)))
}

/// Finds what the names of a request stand for.
async fn target(
    shared: &Shared,
    route: &Route,
    row: &Row,
    admitted: &Admitted,
    names: Vec<Name>,
) -> Result<Target, Error> {
    let fields: &[&str] = match row.names {
        Names::Body(fields) | Names::Definition(fields) => fields,
        _ => &["model"],
    };
    // Of a field that stands twice the last counts.
    let named = |field: &&str| names.iter().rfind(|name| name.field == *field && !name.name.is_empty());
    let Some(asked) = fields.iter().find_map(named).map(|name| name.name.clone()) else {
        return Ok(Target { names, model: None, repairs: Repairs::default() });
    };
    let anthropic = route.dialect == Dialect::Anthropic && route.translated();
    let mut model = match row.management {
        true => Arc::new(Resolved::itself(&asked)),
        false => shared.names.of(&shared.config, &asked, anthropic),
    };
    let unknown = !row.management && !model.is_alias() && model.preset.is_none();
    if unknown
        && let Some(default) = shared.config.models.fallback(&model.asked)
        && shared.installed.lacks(&shared.remotes.only(), &model.asked).await
    {
        if let Some(models) = &admitted.models {
            models.check(&default.model)?;
        }
        model = Arc::new(default);
    }
    Ok(Target { names, model: Some(model), repairs: Repairs::default() })
}

/// The rest of a body whose name was replaced. Ollama would take a later name instead, so there must be none.
struct NoOtherName {
    body: Body,
    scan: Scan,
    count: usize,
}

impl HttpBody for NoOtherName {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        let Poll::Ready(Some(Ok(frame))) = &polled else { return polled };
        let read = frame.data_ref().map_or(Ok(()), |part| this.scan.push(part));
        if read.is_err() || this.scan.found().len() > this.count {
            let message = "the body has another model's name after the first one, or is not a JSON object".to_owned();
            return Poll::Ready(Some(Err(axum::Error::new(Error::Invalid { message, param: None, code: None }))));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The names of the remote's models, remembered for a moment.
#[derive(Debug, Default)]
pub(crate) struct Installed(Mutex<Option<(Instant, HashSet<String>)>>);

impl Installed {
    /// For how long a model that was there is taken to be there, and for how long one that was not is taken to be
    /// absent.
    const FRESH: Duration = Duration::from_secs(30);
    const ABSENT: Duration = Duration::from_secs(2);

    /// Whether the remote does not have `model`, as far as it lists its models.
    pub(crate) async fn lacks(&self, upstream: &Candidates, model: &str) -> bool {
        let model = name::full(model);
        let known = |names: &HashSet<String>| names.contains(&*model);
        let remembered = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, names)) = &*remembered() {
            match (at.elapsed(), known(names)) {
                (age, true) if age < Self::FRESH => return false,
                (age, false) if age < Self::ABSENT => return true,
                _ => {}
            }
        }
        let Ok(reply) = models::tags(upstream).await else { return false };
        let Ok(tags) = upstream.read::<Tags<'_>>("/api/tags", &reply) else { return false };
        let names: HashSet<String> = tags.models.iter().map(|tag| name::full(&tag.name).into_owned()).collect();
        let lacks = !known(&names);
        *remembered() = Some((Instant::now(), names));
        lacks
    }
}
