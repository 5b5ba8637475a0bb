//! Responses in the background: each is queued, asked for by a task through the gate, and can be fetched, streamed or
//! canceled meanwhile.
//!
//! The task makes a request of the proxy's own ([`Inner`]), so slots, limits, logs and the shutdown treat it like any
//! other. Its events are kept in a log, numbered as they came, until newer ones need the room; the response itself is
//! stored like every other when it ends.
//!
//! Where the store is shared, other processes find a copy of its state there ([`Kind::Background`]) and a lease that
//! says that it runs ([`Sharing`]). They may ask this process to cancel it; once the lease has expired without a
//! response, it has failed (`elsewhere.rs`).

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use axum::{
    body::Body,
    extract::Request,
    response::{IntoResponse, Response},
};
use futures_util::stream;
use http::{Method, header};
use http_body_util::BodyExt;
use tokio::sync::watch;

use super::{
    Keeping, Turn,
    event_log::{EventLog, Place},
    stored::{self, StoredItem},
};
use crate::{
    app::{self, App, Refusal},
    config::{Config, Heartbeat},
    error::Error,
    gate::{Inner, Owner},
    observe::{Reason, Recorder},
    ollama::wire::ChatReply,
    openai::{
        response::sse::{self, Frames, Saving, Translator},
        upstream_request::send::{self, UpstreamRequest},
    },
    receipt::Receipt,
    store::{Kind, Record, Store},
    usage::Usage,
};

/// How often the process that runs a response looks whether another wants it canceled.
pub(super) const LOOK: Duration = Duration::from_secs(1);

/// The responses that run in the background, and the events of those that did.
#[derive(Debug, Default)]
pub(crate) struct Runs(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    runs: HashMap<String, Arc<Run>>,
    /// Those that have ended, the oldest first.
    ended: VecDeque<Arc<Run>>,
    /// Bytes of the events of those.
    bytes: usize,
}

impl Runs {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The response with this id, if `owner` has it.
    pub(super) fn get(&self, owner: Owner, id: &str) -> Option<Arc<Run>> {
        self.known().runs.get(id).filter(|run| run.owner == owner).cloned()
    }

    /// Adds one that begins.
    fn add(&self, run: &Arc<Run>) {
        self.known().runs.insert(run.id.clone(), run.clone());
    }

    /// Keeps the events of one that has ended, and evicts those of the oldest beyond `most` bytes.
    fn end(&self, run: &Arc<Run>, most: usize) {
        let mut known = self.known();
        // It may have been deleted meanwhile.
        if !known.runs.contains_key(&run.id) {
            return;
        }
        known.bytes += run.size();
        known.ended.push_back(run.clone());
        while known.bytes > most {
            let Some(oldest) = known.ended.pop_front() else { break };
            known.bytes = known.bytes.saturating_sub(oldest.size());
            known.runs.remove(&oldest.id);
        }
    }

    /// Forgets one, which is canceled if it runs.
    pub(super) async fn remove(&self, run: &Arc<Run>) {
        run.cancel().await;
        self.forget(run);
    }

    fn forget(&self, run: &Arc<Run>) {
        let mut known = self.known();
        known.runs.remove(&run.id);
        if let Some(at) = known.ended.iter().position(|ended| ended.id == run.id) {
            known.ended.remove(at);
            known.bytes = known.bytes.saturating_sub(run.size());
        }
    }
}

/// One response.
#[derive(Debug)]
pub(crate) struct Run {
    owner: Owner,
    id: String,
    state: Mutex<State>,
    /// Wakes streams when there are more events, and the task when the caller cancels.
    changed: watch::Sender<()>,
    /// That of the exchange with the remote, once it has begun.
    recorder: OnceLock<Recorder>,
}

#[derive(Debug)]
struct State {
    /// What is asked, until it is.
    ask: Option<(UpstreamRequest, Receipt)>,
    /// None once it has ended and is stored.
    keeping: Option<Keeping>,
    log: EventLog,
    canceled: bool,
}

impl Run {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bytes of its events.
    fn size(&self) -> usize {
        self.state().log.size()
    }

    /// Whether it has ended and is stored.
    pub(super) fn ended(&self) -> bool {
        self.state().keeping.is_none()
    }

    /// The object as it is now; None once it is stored.
    pub(super) fn response(&self) -> Option<Response> {
        let state = self.state();
        state.keeping.as_ref().map(|keeping| axum::Json(keeping.answer.response()).into_response())
    }

    /// What it was asked, and the response that it goes on from; None once it is stored.
    pub(super) fn input(&self) -> Option<(Option<String>, Vec<StoredItem>)> {
        let state = self.state();
        let keeping = state.keeping.as_ref().filter(|keeping| !keeping.answer.closed())?;
        Some((keeping.answer.facts().echo.previous_response_id.clone(), keeping.input.clone()))
    }

    /// Lets `step` take the response on, and logs the events; the last ones only once it is stored.
    fn step<T>(&self, step: impl FnOnce(&mut Keeping, &mut Frames) -> T) -> Option<T> {
        let mut state = self.state();
        let state = &mut *state;
        let keeping = state.keeping.as_mut()?;
        let mut frames = Frames::default();
        let stepped = step(keeping, &mut frames);
        state.log.add(frames.take(), keeping.answer.closed());
        self.changed.send_replace(());
        Some(stepped)
    }

    /// Ends it with an error, unless it has ended.
    fn fail(&self, error: &Error) {
        self.step(|keeping, frames| keeping.fail(error, frames));
    }

    /// It is stored, or cannot be: the last events may go out.
    fn finish(&self) {
        let mut state = self.state();
        state.log.end();
        (state.keeping, state.ask) = (None, None);
        self.changed.send_replace(());
    }

    /// Cancels it, unless it has ended, and waits until it is stored. The task lets go of the remote.
    pub(super) async fn cancel(&self) {
        let mut changed = self.changed.subscribe();
        self.begin_to_cancel();
        while !self.ended() && changed.changed().await.is_ok() {}
    }

    fn begin_to_cancel(&self) {
        let open = {
            let mut state = self.state();
            let open = state.keeping.as_ref().is_some_and(|keeping| !keeping.answer.closed());
            state.canceled |= open;
            open
        };
        if open {
            if let Some(recorder) = self.recorder.get() {
                recorder.cancel().cancel(Reason::Caller);
            }
            self.fail(&Error::CanceledByCaller);
        }
    }

    /// What other processes may know of it, and its status; None once it has ended.
    fn shared(&self) -> Option<(Record, &'static str)> {
        let state = self.state();
        let keeping = state.keeping.as_ref().filter(|keeping| !keeping.answer.closed())?;
        let status = keeping.answer.response().status;
        let record = stored::record(self.owner, &keeping.answer, keeping.input.clone()).ok()?;
        Some((Record { kind: Kind::Background, names: Vec::new(), ..record }, status))
    }

    /// Its events after the one with the number `after`, as they come; the last one in any case.
    pub(super) fn stream(self: Arc<Self>, after: Option<u64>, every: Duration) -> Response {
        struct Reader {
            changed: watch::Receiver<()>,
            run: Arc<Run>,
            place: Place,
        }
        let reader = Reader { changed: self.changed.subscribe(), run: self, place: Place::after(after) };
        let events = stream::unfold(Some(reader), move |reader| async move {
            let mut reader = reader?;
            loop {
                reader.changed.mark_unchanged();
                let (events, ended) = reader.place.read(&reader.run.state().log);
                if ended {
                    return Some((Ok::<_, Error>(events), None));
                }
                if !events.is_empty() {
                    return Some((Ok(events), Some(reader)));
                }
                let waiting = reader.changed.changed();
                if every.is_zero() {
                    let _ = waiting.await;
                } else if tokio::time::timeout(every, waiting).await.is_err() {
                    let mut frames = Frames::default();
                    frames.heartbeat();
                    return Some((Ok(frames.take()), Some(reader)));
                }
            }
        });
        sse::event_stream(Body::from_stream(events))
    }
}

/// A response as other processes find it in a store that they share.
struct Sharing {
    store: Store,
    run: Arc<Run>,
    /// The status that was stored last.
    status: &'static str,
}

impl Sharing {
    /// None if no other process has the store.
    fn of(store: &Store, run: &Arc<Run>) -> Option<Self> {
        store.lease().map(|_| Self { store: store.clone(), run: run.clone(), status: "" })
    }

    /// Says that the response runs here, and how it stands if that has changed. Returns whether another process wants
    /// it canceled.
    ///
    /// While the store cannot be reached, the lease may expire: others then report the response as failed, until it is
    /// stored.
    async fn renew(&mut self) -> bool {
        let ends = self.store.hold(Kind::Background, &self.run.id).await.unwrap_or(false);
        if let Some((record, status)) = self.run.shared().filter(|(_, status)| *status != self.status)
            && self.store.put(record).await.is_ok()
        {
            self.status = status;
        }
        ends
    }

    /// Renews the lease for as long as this is polled.
    async fn keep(&mut self) {
        let every = self.store.lease().map_or(LOOK, |lease| LOOK.min(lease / 3));
        loop {
            tokio::time::sleep(every).await;
            if self.renew().await {
                self.run.begin_to_cancel();
            }
        }
    }

    /// The response is stored, or never will be.
    async fn end(self) {
        let _ = self.store.remove(Kind::Background, self.run.owner, &self.run.id).await;
        let _ = self.store.release(Kind::Background, &self.run.id).await;
    }
}

/// Starts a response in the background, and answers with the object, which is queued, or with its events.
///
/// # Errors
/// Fails if as many run as may.
pub(super) async fn start(
    app: &App,
    ask: UpstreamRequest,
    receipt: Receipt,
    keeping: Keeping,
    streamed: bool,
) -> Result<Response, Error> {
    // As the client has named it: the request below is resolved and judged again.
    let model = keeping.answer.facts().model.clone();
    let (owner, id) = (keeping.owner, keeping.answer.id().to_owned());
    let log = EventLog::default();
    let state = State { ask: Some((ask, receipt)), keeping: Some(keeping), log, canceled: false };
    let (changed, recorder) = (watch::Sender::default(), OnceLock::new());
    let run = Arc::new(Run { owner, id, state: Mutex::new(state), changed, recorder });
    run.step(|keeping, frames| keeping.answer.queue(frames));
    let queued = run.response();
    let most = app.config.responses.max_background;
    let inner = Inner { digest: owner.digest(), counted: true };
    let request =
        request(&app.config, inner, Turn::Background(run.clone()), serde_json::json!({"model": model}).to_string())?;
    let mut sharing = Sharing::of(&app.store, &run);
    // Before the caller has the id, which it may ask another process for.
    if let Some(sharing) = &mut sharing {
        Box::pin(sharing.renew()).await;
    }
    let work = work(app.clone(), request, run.clone(), sharing);
    app.background.add(&run);
    if app.tasks.start(most, work).is_err() {
        app.background.forget(&run);
        if let Some(sharing) = Sharing::of(&app.store, &run) {
            Box::pin(sharing.end()).await;
        }
        return Err(full(most));
    }
    match queued {
        Some(queued) if !streamed => Ok(queued),
        _ => Ok(run.stream(None, app.config.heartbeat.every)),
    }
}

fn full(most: usize) -> Error {
    Error::Quota {
        message: format!(
            "Too many responses in the background: {most} run or wait already (responses.max_background). Please try again later."
        ),
        retry_after: 10,
    }
}

/// A request of the proxy's own for one response.
pub(super) fn request(config: &Config, inner: Inner, turn: Turn, body: impl Into<Body>) -> Result<Box<Request>, Error> {
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("{}/responses", config.openai.base_path))
        .header(header::HOST, "localhost")
        .header(header::CONTENT_TYPE, "application/json")
        .extension(inner)
        .extension(turn);
    let request = request.body(body.into()).map_err(|error| Error::Internal { message: error.to_string() })?;
    Ok(Box::new(request))
}

/// Ends a response whose task is aborted, or panics.
struct EndOnDrop(App, Arc<Run>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        let Self(app, run) = self;
        if !run.ended() {
            run.fail(&if std::thread::panicking() { Error::panicked() } else { Error::Canceled { shutdown: true } });
            run.finish();
        }
        // A part of what responses may take: the events are several times as long as what they say.
        app.background.end(run, app.config.responses.max_bytes / 4);
    }
}

/// Asks for a response until it has ended.
async fn work(app: App, request: Box<Request>, run: Arc<Run>, mut sharing: Option<Sharing>) {
    let ending = EndOnDrop(app.clone(), run.clone());
    let mut changed = run.changed.subscribe();
    let canceled = async { while !run.state().canceled && changed.changed().await.is_ok() {} };
    let asking = async {
        let response = app::answer(app.shared(), None, request).await;
        if let Some(Refusal(error)) = response.extensions().get() {
            run.fail(error);
        }
        let mut body = response.into_body();
        while let Some(Ok(_)) = body.frame().await {}
    };
    let kept = async {
        match &mut sharing {
            Some(sharing) => sharing.keep().await,
            None => std::future::pending().await,
        }
    };
    // Dropping what is asked closes the connection to the remote.
    tokio::select! {
        biased;
        () = asking => {}
        () = canceled => {}
        () = kept => {}
    }
    if !run.ended() {
        // Nothing happens where it has ended already.
        run.fail(&Error::unfinished());
        let saving = run.state().keeping.as_mut().and_then(Translator::saving);
        if let Some(saving) = saving {
            let receipt = saving.await;
            if let Some(keeping) = &mut run.state().keeping {
                keeping.saved(receipt);
            }
        }
        run.finish();
    }
    if let Some(sharing) = sharing {
        sharing.end().await;
    }
    drop(ending);
}

/// Asks the remote for a response that was queued.
///
/// # Errors
/// Fails if it has ended meanwhile.
pub(super) async fn run(app: &App, run: Arc<Run>, recorder: Recorder) -> Result<Response, Error> {
    let Some((ask, receipt)) = run.state().ask.take() else { return Err(Error::CanceledByCaller) };
    recorder.model(&ask.model);
    recorder.receipt(receipt);
    let _ = run.recorder.set(recorder.clone());
    // The task waits for nothing but the end.
    let heartbeat = Heartbeat { after: Duration::ZERO, every: Duration::ZERO };
    sse::respond(
        send::openings(app, vec![ask], &recorder),
        Logged { run, usage: None, receipt: Receipt::default() },
        &heartbeat,
        recorder,
    )
    .await
}

/// Writes events to the log of a response instead of a stream.
struct Logged {
    run: Arc<Run>,
    usage: Option<Usage>,
    /// What has become known of it and was not asked for.
    receipt: Receipt,
}

impl Translator for Logged {
    type Reply<'a> = ChatReply<'a>;

    fn reply(&mut self, reply: ChatReply<'_>, out: &mut Frames) {
        let usage = self.run.step(|keeping, frames| {
            keeping.reply(reply, frames);
            keeping.usage()
        });
        self.usage = usage.flatten().or(self.usage);
        if self.closed() {
            out.done();
        }
    }

    fn fail(&mut self, error: &Error, out: &mut Frames) {
        self.run.fail(error);
        out.done();
    }

    fn closed(&self) -> bool {
        self.run.state().keeping.as_ref().is_none_or(|keeping| keeping.answer.closed())
    }

    fn heartbeat(&self, _: &mut Frames) {}

    fn saving(&mut self) -> Option<Saving> {
        let mut state = self.run.state();
        // The task of one that is canceled stores it: this exchange is dropped, maybe before a shared store responds.
        if state.canceled { None } else { state.keeping.as_mut().and_then(Translator::saving) }
    }

    fn saved(&mut self, receipt: Receipt) {
        if let Some(keeping) = &mut self.run.state().keeping {
            keeping.saved(receipt);
        }
        self.receipt = self.receipt();
        self.run.finish();
    }

    fn usage(&self) -> Option<Usage> {
        self.usage
    }

    fn receipt(&mut self) -> Receipt {
        let mut receipt = std::mem::take(&mut self.receipt);
        receipt.add(self.run.state().keeping.as_mut().map(Translator::receipt).unwrap_or_default());
        receipt
    }

    fn wrong(&mut self) -> Option<Error> {
        self.run.state().keeping.as_mut().and_then(Translator::wrong)
    }
}
