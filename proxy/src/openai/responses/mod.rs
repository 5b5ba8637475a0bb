//! `POST /v1/responses` and what is done with a response, over `POST /api/chat`.

pub(crate) mod background;
mod choice;
mod compact;
mod compaction;
mod elsewhere;
mod estimate;
mod event_log;
mod events;
mod grammar;
pub(crate) mod include;
pub(crate) mod input;
pub(crate) mod items;
pub(crate) mod kept;
#[cfg(test)]
mod laws;
mod offer;
pub(crate) mod request;
pub(crate) mod socket;
pub(crate) mod stored;
mod stream;
mod translate;
#[cfg(test)]
pub(crate) mod vectors;
mod wire;

use std::{borrow::Cow, collections::HashMap, sync::Arc};

use axum::{
    Extension,
    extract::State,
    response::{IntoResponse, Response},
};
use serde_json::value::RawValue;

use crate::{
    app::App,
    buffered::{FREE, Lease},
    config::Config,
    error::Error,
    gate::Owner,
    observe::Recorder,
    offload,
    ollama::wire::ChatReply,
    openai::{
        conversations,
        request::{
            inline_all,
            json::{Fields, Json, Text},
        },
        response::sse::{self, Feed, Frames, Saving, Translator},
        tools::repair::Repairs,
        upstream_request::{
            context::{Grown, Policy},
            prepare::hold,
            send::{self, UpstreamRequest},
        },
    },
    receipt::Receipt,
    resolve::{self, Target},
    sealed,
    store::{Kind, Record, Store},
    usage::Usage,
};
pub(crate) use compact::compact;
pub(crate) use estimate::input_tokens;
use items::Asked;
pub(crate) use kept::{cancel, delete, input_items, retrieve};
use request::{Continuation, Facts, Request, Terms};
pub(crate) use socket::connect;
use socket::{Session, remembered::Remembered};
use stored::{Fetched, StoredItem, items_of};
use stream::Answer;

/// A request, ready to be asked.
struct Prepared {
    ask: UpstreamRequest,
    facts: Facts,
    receipt: Receipt,
    /// What was asked, as it will be stored. None: it is more than is stored.
    input: Option<Asked>,
    /// The messages that a compaction carries.
    carried: Vec<Box<RawValue>>,
}

/// What became of preparing a request.
enum Step {
    Ready(Box<Prepared>),
    /// It names records, which have to be fetched first.
    Fetch(Needs),
}

/// The ids of the records that a request names.
#[derive(Debug, Default)]
pub(crate) struct Needs {
    pub(crate) continuation: Continuation,
    /// The items that it refers to.
    pub(crate) items: Vec<String>,
}

impl Needs {
    fn is_empty(&self) -> bool {
        self.continuation == Continuation::Nothing && self.items.is_empty()
    }

    /// Fetches the records.
    ///
    /// # Errors
    /// Fails if the store cannot be reached.
    pub(crate) async fn fetch(self, store: &Store, session: Option<&Session>, owner: Owner) -> Result<Fetched, Error> {
        let mut fetched = Fetched::default();
        match (&self.continuation, session) {
            (Continuation::Nothing, _) => {}
            (Continuation::Response(id), None) => {
                fetched.chain = Some(store.chain(Kind::Response, owner, id).await?);
            }
            (Continuation::Response(id), Some(session)) => {
                fetched.chain = Some(chain(store, &session.memory, owner, id).await?);
            }
            (Continuation::Conversation(id), _) => {
                fetched.conversation = store.get(Kind::Conversation, owner, id).await?;
            }
        }
        if self.items.is_empty() {
            return Ok(fetched);
        }
        let mut found = store.find(Kind::Response, owner, &self.items).await?;
        let add = |found: &mut Vec<Option<Arc<Record>>>, more: Vec<Option<Arc<Record>>>| {
            found.iter_mut().zip(more).for_each(|(found, more)| *found = found.take().or(more));
        };
        if let Some(session) = session {
            add(&mut found, session.memory.find(&self.items));
        }
        if found.iter().any(Option::is_none) {
            add(&mut found, store.find(Kind::Conversation, owner, &self.items).await?);
        }
        fetched.items = self.items.into_iter().zip(found).collect();
        Ok(fetched)
    }
}

/// A response on a WebSocket and all that it goes on from, each stored or in the memory of its connection.
async fn chain(
    store: &Store,
    memory: &Remembered,
    owner: Owner,
    id: &str,
) -> Result<Result<Vec<Arc<Record>>, String>, Error> {
    let (mut chain, mut wanted) = (Vec::new(), Some(id.to_owned()));
    while let Some(id) = wanted {
        let found = match memory.get(&id) {
            Some(record) => Some(record),
            None => store.get(Kind::Response, owner, &id).await?,
        };
        let Some(record) = found else { return Ok(Err(id)) };
        wanted = record.previous.clone();
        chain.push(record);
    }
    chain.reverse();
    Ok(Ok(chain))
}

/// What `prepare` must know besides the body.
struct Around<'a> {
    config: &'a Config,
    grown: &'a Grown,
    /// Hex digits that belong to this response alone.
    random: &'a str,
    /// The models that the request names, where they were looked for.
    target: Option<&'a Target>,
    /// Whether it is a turn on a WebSocket.
    socket: bool,
    /// What opens compactions.
    key: Option<&'a sealed::Key>,
}

impl<'a> Around<'a> {
    fn new(app: &'a App, random: &'a str) -> Self {
        let target = app.target.as_deref();
        let key = Some(&*app.compaction_key);
        Self { config: &app.config, grown: app.upstream.grown(), random, target, socket: false, key }
    }
}

/// The items that go before those of a request.
fn earlier(continuation: &Continuation, fetched: &Fetched) -> Result<Vec<StoredItem>, Error> {
    let id = match continuation {
        Continuation::Nothing => return Ok(Vec::new()),
        Continuation::Conversation(id) => {
            let record = fetched.conversation.as_ref().ok_or_else(|| conversations::missing(id, "conversation"))?;
            return items_of(record);
        }
        Continuation::Response(id) => &**id,
    };
    let chain = fetched.chain.as_ref().ok_or(id).and_then(|chain| chain.as_deref().map_err(|missing| &**missing));
    let chain = chain.map_err(|missing| {
        let which =
            if missing == id { String::new() } else { format!(" ('{missing}', which it goes on from, is gone)") };
        Error::Invalid {
            message: format!("Previous response with id '{id}' not found{which}."),
            param: Some("previous_response_id".to_owned()),
            code: Some("previous_response_not_found"),
        }
    })?;
    let mut items = Vec::new();
    for record in chain {
        items.extend(items_of(record)?);
    }
    Ok(items)
}

/// The ids of the items that those of the field `name` refer to, each with its place.
pub(crate) fn references(input: &[Cow<'_, RawValue>], name: &str) -> Result<Vec<(usize, String)>, Error> {
    let mut references = Vec::new();
    for (n, item) in input.iter().enumerate() {
        if let Some(id) = input::reference(item, &format!("{name}[{n}]"))? {
            references.push((n, id));
        }
    }
    Ok(references)
}

/// Puts items in the place of references to them in the field `name`.
pub(crate) fn resolve(
    input: &mut [Cow<'_, RawValue>],
    name: &str,
    references: Vec<(usize, String)>,
    found: &HashMap<&str, Box<RawValue>>,
) -> Result<(), Error> {
    for (n, id) in references {
        let item = found.get(&*id).ok_or_else(|| Error::NotFound {
            message: format!(
                "Item with id '{id}' not found. Items are not kept when `store` is set to false, or once they are too old or too many; send the item itself."
            ),
            param: Some(format!("{name}[{n}]")),
            code: "item_not_found",
        })?;
        input[n] = Cow::Owned(item.clone());
    }
    Ok(())
}

/// Translates a body with the records that it names. `more` are items that go after those of the input.
///
/// # Errors
/// Fails if the request is invalid, or asks for something that is not available here.
fn prepare(
    json: &Json,
    more: Option<&RawValue>,
    around: &Around<'_>,
    fetched: Option<&Fetched>,
    recorder: &Recorder,
) -> Result<Step, Error> {
    let config = around.config;
    let mut receipt = Receipt::default();
    let mut fields: Fields<'_> = json.fields()?;
    let terms = Terms {
        hosted: config.responses.hosted_tools,
        keeps: config.responses.max_bytes > 0 && config.responses.max_count > 0,
        tools: resolve::tools(config, around.target, &fields),
        socket: around.socket,
    };
    let mut model: Text<'_> = fields.need("model", &mut Vec::new())?;
    recorder.model(&model);
    let mut input = request::input(&mut fields)?;
    let references = references(&input, "input")?;
    let continuation = Continuation::of(&fields)?;
    let from = continuation.field();
    let before = match fetched {
        Some(fetched) => {
            resolve(&mut input, "input", references, &fetched.found()?)?;
            earlier(&continuation, fetched)?
        }
        None => {
            let items = references.into_iter().map(|(_, id)| id).collect();
            let needs = Needs { continuation, items };
            if !needs.is_empty() {
                return Ok(Step::Fetch(needs));
            }
            Vec::new()
        }
    };
    let earlier = || before.iter().map(|item| &*item.json);
    let brought = input::brought(from, earlier(), &input)?;
    let mut request = Request::read(model.clone(), fields, &brought, terms, &mut receipt)?;
    if input.is_empty() && before.is_empty() && more.is_none() {
        return Err(Error::Invalid {
            message: "One of 'input' or 'previous_response_id' or 'conversation' (with items) must be provided."
                .to_owned(),
            param: Some("input".to_owned()),
            code: Some("missing_required_parameter"),
        });
    }
    let preset = resolve::replace(config, around.target, &mut model, &mut receipt);
    if let Some(preset) = preset {
        request.native.fill(preset);
    }
    let policy = Policy::of(config, preset, around.grown.of(&model), &model, &request.native, &mut receipt);
    recorder.model(&model);
    request.model = model;
    let items = || earlier().chain(input.iter().map(|item| &**item));
    let carried = match more {
        Some(_) => compaction::messages(items(), around.key, &mut receipt)?,
        None => Vec::new(),
    };
    let wish = more.map(Cow::Borrowed);
    let input: Vec<_> = input.iter().map(|item| Cow::Borrowed(&**item)).chain(wish).collect();
    let (ask, facts) = translate::ask(request, from, earlier(), &input, policy, around.key, &mut receipt)?;
    receipt.enforce_strict(config)?;
    let stored = facts.echo.store || around.socket || facts.echo.conversation.is_some();
    let input = match stored {
        true => items::asked_within(&input, around.random, config.responses.max_bytes)?,
        false => Some(Asked::default()),
    };
    Ok(Step::Ready(Box::new(Prepared { ask, facts, receipt, input, carried })))
}

/// Translates a body for those who only want to see what it becomes: nothing has grown, and nothing is kept that it
/// could go on from.
///
/// # Errors
/// As [`prepare`].
pub(crate) fn explain(json: &Json, config: &Config) -> Result<(Vec<UpstreamRequest>, Receipt, Repairs), Error> {
    let secret = config.responses.compaction_key.0.as_bytes();
    let key = if secret.is_empty() { None } else { Some(sealed::Key::of(secret)?) };
    let key = key.as_ref();
    let around = Around { config, grown: &Grown::default(), random: "", target: None, socket: false, key };
    match prepare(json, None, &around, Some(&Fetched::default()), &Recorder::default())? {
        Step::Ready(prepared) => Ok((vec![prepared.ask], prepared.receipt, prepared.facts.repairs)),
        Step::Fetch(needs) => Err(unfetched(&needs)),
    }
}

/// Records were fetched, and more are asked for.
fn unfetched(needs: &Needs) -> Error {
    Error::Internal { message: format!("records were not fetched: {needs:?}") }
}

/// How a response is asked for, other than by a client's request.
#[derive(Clone, Debug)]
pub(crate) enum Turn {
    /// By the task of a response in the background.
    Background(Arc<background::Run>),
    /// By a message on a WebSocket.
    Socket(Arc<socket::Session>),
}

/// One response, streamed or not, or in the background.
pub(crate) async fn create(
    State(app): State<App>,
    recorder: Recorder,
    owner: Owner,
    turn: Option<Extension<Turn>>,
    json: Json,
) -> Result<Response, Error> {
    let session = match turn {
        Some(Extension(Turn::Background(run))) => return background::run(&app, run, recorder).await,
        Some(Extension(Turn::Socket(session))) => {
            session.began(&recorder);
            Some(session)
        }
        None => None,
    };
    recorder.payload("request", json.bytes());
    let json = inline_all(&app, &recorder, json).await?;
    let stamp = app.stamp("resp_");
    let Prepared { ask, facts, receipt, input, .. } =
        take(&app, &recorder, owner, json, None, stamp.random.clone(), session.as_deref()).await?;
    let stream = facts.stream;
    if facts.echo.background && session.is_some() {
        return Err(Error::unsupported("background", "A WebSocket has no responses in the background; use POST."));
    }
    if facts.echo.background {
        recorder.receipt(receipt.clone());
        // Its events are stored, whether a client reads them or not.
        let facts = Facts { stream: true, ..facts };
        let keeping = Keeping::new(Answer::new(stamp, facts), &app, owner, input);
        return background::start(&app, ask, receipt, keeping, stream).await;
    }
    recorder.receipt(receipt);
    let kept = Keeping { session, ..Keeping::new(Answer::new(stamp, facts), &app, owner, input) };
    if stream {
        let openings = send::openings(&app, vec![ask], &recorder);
        return sse::respond(openings, kept, &app.config.heartbeat, recorder).await;
    }
    let body = send::whole(&app, ask, &recorder).await?;
    let fed = offload::run(body.len() + kept.weight(), move || {
        let mut feed = Feed::of(kept, 1).redacting(app.upstream.redactor());
        let fed = feed.packet_of(0, body).and_then(|()| feed.eof_of(0));
        let response = fed.map(|()| axum::Json(feed.translator().answer.response()).into_response());
        (feed, response)
    });
    let (mut feed, response) = fed.await;
    if let Some(saving) = feed.saving() {
        let receipt = saving.await;
        feed.saved(receipt);
    }
    recorder.receipt(feed.receipt());
    if let Some(usage) = feed.translator().usage() {
        recorder.usage(usage);
    }
    response
}

/// Calls [`prepare`], off the event loop if the body is large.
async fn take(
    app: &App,
    recorder: &Recorder,
    owner: Owner,
    json: Json,
    more: Option<Box<RawValue>>,
    random: String,
    session: Option<&Session>,
) -> Result<Prepared, Error> {
    let (mut fetched, socket) = (None, session.is_some());
    loop {
        let (state, recorder, json) = (app.clone(), recorder.clone(), json.clone());
        let (more, random) = (more.clone(), random.clone());
        let size = json.bytes().len() + fetched.as_ref().map_or(0, Fetched::size);
        let had = fetched.is_some();
        let working = app.buffered.working(json.bytes()).await?;
        let step = offload::run(size, move || {
            let _working = working;
            let around = Around { socket, ..Around::new(&state, &random) };
            prepare(&json, more.as_deref(), &around, fetched.as_ref(), &recorder)
        });
        match step.await? {
            Step::Ready(mut prepared) => {
                hold(std::slice::from_mut(&mut prepared.ask), &app.buffered);
                return Ok(*prepared);
            }
            Step::Fetch(needs) if had => return Err(unfetched(&needs)),
            Step::Fetch(needs) => fetched = Some(needs.fetch(&app.store, session, owner).await?),
        }
    }
}

/// The records that a body names.
#[cfg(test)]
pub(crate) fn needs(json: &Json) -> Needs {
    let around = Around {
        config: &Config::default(),
        grown: &Grown::default(),
        random: "",
        target: None,
        socket: false,
        key: None,
    };
    match prepare(json, None, &around, None, &Recorder::default()) {
        Ok(Step::Fetch(needs)) => needs,
        _ => Needs::default(),
    }
}

/// A response that is kept once it is whole, if it is to be.
struct Keeping {
    answer: Answer,
    app: App,
    owner: Owner,
    input: Vec<StoredItem>,
    /// What `input` takes, counted while it waits for the answer.
    held: Lease,
    /// What was asked is more than is stored.
    too_big: bool,
    /// The connection whose turn it is, if it is one on a WebSocket.
    session: Option<Arc<Session>>,
    /// What the driver is to store.
    record: Option<Record>,
    /// What it is to add to the conversation.
    added: Option<Vec<StoredItem>>,
    receipt: Receipt,
}

impl std::fmt::Debug for Keeping {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keeping").field("answer", &self.answer).finish_non_exhaustive()
    }
}

impl Keeping {
    fn new(answer: Answer, app: &App, owner: Owner, input: Option<Asked>) -> Self {
        let (app, receipt) = (app.clone(), Receipt::default());
        let (too_big, Asked { items: input, size }) = (input.is_none(), input.unwrap_or_default());
        let mut held = app.buffered.lease();
        if size > FREE {
            held.add(size);
        }
        Self { answer, app, owner, input, held, too_big, session: None, record: None, added: None, receipt }
    }

    fn keep(&mut self) {
        let echo = &self.answer.facts().echo;
        if !self.answer.closed() {
            return;
        }
        let input = std::mem::take(&mut self.input);
        if self.too_big {
            return self.note_too_big();
        }
        // One that failed or was canceled is not part of the conversation.
        if echo.conversation.is_some() && self.answer.answered() {
            match stored::outputs(&self.answer) {
                Ok(output) => self.added = Some(input.iter().cloned().chain(output).collect()),
                Err(_) => self.receipt.note("conversation", "failed"),
            }
        }
        let echo = &self.answer.facts().echo;
        if echo.store || self.session.is_some() {
            let record = if echo.store { stored::record } else { stored::items };
            match record(self.owner, &self.answer, input) {
                Ok(record) => self.record = Some(record),
                Err(_) => self.receipt.note("store", "failed"),
            }
        }
    }
}

impl Keeping {
    fn note_too_big(&mut self) {
        let echo = &self.answer.facts().echo;
        let parts = [
            ("conversation", echo.conversation.is_some() && self.answer.answered()),
            ("store", echo.store || self.session.is_some()),
        ];
        for (part, wanted) in parts {
            if wanted {
                self.receipt.note(part, "too-big");
            }
        }
    }
}

impl Translator for Keeping {
    type Reply<'a> = ChatReply<'a>;

    fn reply(&mut self, reply: ChatReply<'_>, out: &mut Frames) {
        if reply.done {
            self.answer.at(self.app.now());
        }
        let open = !self.answer.closed();
        self.answer.reply(reply, out);
        if open {
            self.keep();
        }
    }

    fn fail(&mut self, error: &Error, out: &mut Frames) {
        let open = !self.answer.closed();
        self.answer.fail(error, out);
        // No client has the id of an unstreamed one.
        if open && self.answer.facts().stream {
            self.keep();
        }
    }

    fn closed(&self) -> bool {
        self.answer.closed()
    }

    fn usage(&self) -> Option<Usage> {
        self.answer.usage()
    }

    fn receipt(&mut self) -> Receipt {
        let mut receipt = self.answer.receipt();
        receipt.add(std::mem::take(&mut self.receipt));
        receipt
    }

    fn saving(&mut self) -> Option<Saving> {
        let (record, added) = (self.record.take(), self.added.take());
        if record.is_none() && added.is_none() {
            return None;
        }
        let echo = &self.answer.facts().echo;
        let shared = self.app.store.clone();
        let session = self.session.clone().filter(|_| !echo.store);
        let app = self.app.clone();
        let added = echo.conversation.clone().zip(added);
        let (owner, random) = (self.owner, self.answer.random().to_owned());
        Some(Box::pin(async move {
            let mut receipt = match (record, session) {
                (None, _) => Receipt::default(),
                (Some(record), None) => shared.save(record).await,
                (Some(record), Some(session)) => {
                    let mut receipt = Receipt::default();
                    if !session.memory.put(record, &app.config.responses) {
                        receipt.note("store", "too-big");
                    }
                    receipt
                }
            };
            if let Some((conversation, items)) = added {
                receipt.add(conversations::append(&shared, owner, &conversation.id, items, &random).await);
            }
            receipt
        }))
    }

    fn saved(&mut self, receipt: Receipt) {
        self.receipt.add(receipt);
    }

    fn wrong(&mut self) -> Option<Error> {
        self.answer.wrong()
    }

    fn weight(&self) -> usize {
        self.held.bytes()
    }
}
