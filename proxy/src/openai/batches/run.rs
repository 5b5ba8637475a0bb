//! Runs batches: each is a task that sends one request of its file after the other, whenever the proxy is otherwise
//! idle.
//!
//! The requests are the proxy's own ([`Inner`]), so the gate, quotas and logs treat them like those of the key that
//! made the batch.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::{sync::watch, time::Instant};

use super::wire::{Answered, Batch, Line, LineError, NotAsked, Outcome, Status, lines};
use crate::{
    app::{self, App},
    error::{self, Dialect, Error},
    gate::{Inner, Owner},
    offload,
    openai::files::{stored, wire::FileObject},
    store::{Kind, Record, Updated},
    tasks::Tasks,
    whole_body,
};

/// How often a batch looks whether the proxy is idle.
const LOOK: Duration = Duration::from_millis(50);

/// How often the record of a running batch is written anew.
const BEAT: Duration = Duration::from_secs(5);

/// After what time without that a batch counts as lost.
const LOST: u64 = 120;

/// How often a request is sent again because the remote cannot be reached, and the first pause.
const RETRIES: u32 = 3;
const PAUSE: Duration = Duration::from_secs(2);

/// Longest pause after a 429.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The batches that run in this process.
#[derive(Debug, Default)]
pub(crate) struct Runs {
    /// Apart from those of responses in the background, which have a bound of their own.
    pub(crate) tasks: Tasks,
    state: Mutex<State>,
    /// What the settings in force have made: a batch outlives those that it began with, and its key may be gone.
    current: Mutex<Weak<app::Shared>>,
}

#[derive(Debug, Default)]
struct State {
    runs: HashMap<String, Arc<Run>>,
    /// Requests that are on their way.
    requests: usize,
    /// Bytes of output that are not stored yet.
    output: usize,
    stopping: bool,
}

/// What ends a batch before its last request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    Canceled,
    Shutdown,
    Expired,
}

/// A batch that runs.
#[derive(Debug)]
pub(super) struct Run {
    owner: Owner,
    batch: Mutex<Batch>,
    stop: watch::Sender<Option<Stop>>,
}

impl Run {
    fn batch(&self) -> MutexGuard<'_, Batch> {
        self.batch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The batch as it is now.
    pub(super) fn now(&self) -> Batch {
        self.batch().clone()
    }

    /// Cancels it: no further request is sent, and the one on its way is dropped.
    pub(super) fn cancel(&self, now: u64) -> Batch {
        let mut batch = self.batch();
        if !batch.status.is_final() && batch.status != Status::Cancelling {
            batch.set(Status::Cancelling, now);
            self.stop.send_replace(Some(Stop::Canceled));
        }
        batch.clone()
    }
}

impl Runs {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The batch with this id, if it runs here and `owner` has it.
    pub(super) fn get(&self, owner: Owner, id: &str) -> Option<Arc<Run>> {
        self.state().runs.get(id).filter(|run| run.owner == owner).cloned()
    }

    /// Lets later requests of batches go to `shared`.
    pub(crate) fn renew(&self, shared: &Arc<app::Shared>) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(shared);
    }

    fn current(&self) -> Option<Arc<app::Shared>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).upgrade()
    }

    /// Ends all of them soon, because the process stops: what they have is stored.
    pub(crate) fn stop(&self) {
        let mut state = self.state();
        state.stopping = true;
        state.runs.values().for_each(|run| {
            run.stop.send_replace(Some(Stop::Shutdown));
        });
    }

    /// A slot for one request, unless `most` are on their way, or the proxy has other requests than these.
    fn slot(self: &Arc<Self>, most: usize, open: usize) -> Option<Slot> {
        let mut state = self.state();
        if state.requests >= most || open > state.requests {
            return None;
        }
        state.requests += 1;
        Some(Slot(self.clone()))
    }
}

/// A request that is on its way.
struct Slot(Arc<Runs>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.state().requests -= 1;
    }
}

/// The record of a batch.
#[derive(Deserialize, Serialize)]
struct Stored {
    batch: Batch,
    /// Unix seconds of the last change by the process that runs it.
    beat: u64,
    /// Whether another process was asked to cancel it.
    #[serde(default)]
    cancel: bool,
}

impl Stored {
    fn read(record: &Record) -> Result<Self, Error> {
        serde_json::from_slice(&record.body).map_err(|error| Error::Internal {
            message: format!("the stored record '{}' cannot be read: {error}", record.id),
        })
    }

    fn record(&self, owner: Owner) -> Result<Record, Error> {
        let body = serde_json::to_vec(self).map_err(|error| Error::Internal { message: error.to_string() })?;
        let id = self.batch.id.clone();
        Ok(Record { kind: Kind::Batch, owner, id, previous: None, names: Vec::new(), body: body.into() })
    }
}

/// The batch of a record. One that no process runs any more has failed.
pub(super) fn read(app: &App, record: &Record) -> Result<Batch, Error> {
    let Stored { mut batch, beat, .. } = Stored::read(record)?;
    if let Some(run) = app.batches.get(record.owner, &record.id) {
        return Ok(run.now());
    }
    let now = app.now();
    if !batch.status.is_final() && now.saturating_sub(beat) >= LOST {
        batch.fail(vec![LineError::of_batch("lost", "The proxy that ran this batch has ended.")], now);
    }
    Ok(batch)
}

/// Asks the process that runs a batch to cancel it.
///
/// # Errors
/// Fails if the store cannot be reached.
pub(super) async fn cancel_elsewhere(app: &App, owner: Owner, id: &str) -> Result<Option<Batch>, Error> {
    let now = app.now();
    let change = |record: &Record| {
        let mut stored = Stored::read(record)?;
        if !stored.batch.status.is_final() && !stored.cancel {
            stored.cancel = true;
            stored.batch.set(Status::Cancelling, now);
        }
        stored.record(owner)
    };
    match app.store.update(Kind::Batch, owner, id, change).await? {
        Updated::Stored(record) => Ok(Some(read(app, &record)?)),
        Updated::Missing | Updated::TooBig => Ok(None),
    }
}

/// Starts a batch of the requests in `file`.
///
/// # Errors
/// Fails if as many run as may, or the store cannot be reached.
pub(super) async fn start(
    app: &App,
    owner: Owner,
    batch: Batch,
    file: Bytes,
    expires_after: Option<u64>,
) -> Result<Batch, Error> {
    let most = app.config.batches.max_count;
    let stored = Stored { batch: batch.clone(), beat: app.now(), cancel: false };
    app.store.put(stored.record(owner)?).await?;
    let run = Arc::new(Run { owner, batch: Mutex::new(batch.clone()), stop: watch::Sender::default() });
    let ending = Ending { app: app.clone(), run: run.clone(), output: 0 };
    {
        let mut state = app.batches.state();
        if state.stopping {
            return Err(Error::Canceled { shutdown: true });
        }
        state.runs.insert(batch.id.clone(), run);
    }
    if app.batches.tasks.start(most, work(ending, file, expires_after)).is_err() {
        app.batches.state().runs.remove(&batch.id);
        app.store.remove(Kind::Batch, owner, &batch.id).await?;
        return Err(Error::Quota {
            message: format!(
                "Too many batches: {most} run or wait already (batches.max_count). Please try again later."
            ),
            retry_after: 60,
        });
    }
    Ok(batch)
}

/// A batch whose task runs; dropped when it ends, is aborted, or panics.
struct Ending {
    app: App,
    run: Arc<Run>,
    /// Bytes of its output that are counted.
    output: usize,
}

impl Drop for Ending {
    fn drop(&mut self) {
        let mut state = self.app.batches.state();
        state.output -= self.output;
        state.runs.remove(&self.run.batch().id);
    }
}

impl Ending {
    fn change(&self, change: impl FnOnce(&mut Batch, u64)) {
        change(&mut self.run.batch(), self.app.now());
    }

    /// Writes the record anew. Another process may have asked to cancel the batch.
    async fn save(&self) {
        let batch = self.run.now();
        let (id, now) = (batch.id.clone(), self.app.now());
        let mut canceled = false;
        let change = |record: &Record| {
            canceled = Stored::read(record)?.cancel;
            Stored { batch: batch.clone(), beat: now, cancel: canceled }.record(self.run.owner)
        };
        let saved = self.app.store.update(Kind::Batch, self.run.owner, &id, change).await;
        if let Err(error) = saved {
            tracing::warn!(target: "farllama", "a batch could not be stored: {error}");
        }
        if canceled {
            self.run.cancel(now);
        }
    }

    fn stopped(&self) -> Option<Stop> {
        let expired = self.app.now() >= self.run.batch().expires_at;
        (*self.run.stop.borrow()).or(expired.then_some(Stop::Expired))
    }

    /// Waits, unless the batch is stopped meanwhile.
    async fn pause(&self, time: Duration) {
        let mut stop = self.run.stop.subscribe();
        if stop.borrow_and_update().is_none() {
            let _ = tokio::time::timeout(time, stop.changed()).await;
        }
    }

    /// Counts bytes of output; false if there are too many.
    fn holds(&mut self, bytes: usize) -> bool {
        let files = &self.app.config.files;
        let mut state = self.app.batches.state();
        if self.output + bytes > files.max_bytes_per_key || state.output + bytes > files.max_bytes {
            return false;
        }
        state.output += bytes;
        self.output += bytes;
        true
    }
}

async fn work(mut ending: Ending, file: Bytes, expires_after: Option<u64>) {
    let (endpoint, content) = (ending.run.now().endpoint, file.clone());
    let validated = offload::run(file.len(), move || lines(&content, &endpoint)).await;
    let lines = match validated {
        Ok((lines, model)) => {
            ending.change(|batch, now| {
                batch.request_counts.total = lines.len();
                batch.model = model;
                if batch.status == Status::Validating {
                    batch.set(Status::InProgress, now);
                }
            });
            ending.save().await;
            lines
        }
        Err(errors) => {
            ending.change(|batch, now| batch.fail(errors, now));
            return ending.save().await;
        }
    };
    let (mut output, mut errors) = (Vec::new(), Vec::new());
    let mut beat = Instant::now();
    let (mut stopped, mut full) = (None, false);
    for line in &lines {
        let response = match stopped {
            None => ask(&ending, file.slice(line.body.clone()), &mut beat).await,
            Some(stop) => Err(stop),
        };
        if let Err(stop) = response {
            stopped = Some(stop);
        }
        let (failed, text) = outcome(&ending, line, response);
        if !ending.holds(text.len()) {
            full = true;
            break;
        }
        if failed { &mut errors } else { &mut output }.extend_from_slice(&text);
        if beat.elapsed() >= BEAT {
            beat = Instant::now();
            ending.save().await;
        }
    }
    finish(&ending, output, errors, stopped, full, expires_after).await;
}

/// The line of an output file for a response, and whether it goes to the errors.
fn outcome(ending: &Ending, line: &Line, response: Result<Reply, Stop>) -> (bool, Vec<u8>) {
    let id = ending.app.stamp("batch_req_").id;
    let (body, error, response) = match response {
        Ok(Reply { status, id, body }) => (body, None, Some((status, id))),
        Err(stop) => (Value::Null, Some(not_asked(stop)), None),
    };
    let failed = response.as_ref().is_none_or(|(status, _)| !status.is_success());
    if response.is_some() {
        ending.change(|batch, _| {
            let counts = &mut batch.request_counts;
            if failed {
                counts.failed += 1;
            } else {
                counts.completed += 1;
                batch.usage.get_or_insert_default().add(&body["usage"]);
            }
        });
    }
    let response =
        response.as_ref().map(|(status, id)| Answered { status_code: status.as_u16(), request_id: id, body: &body });
    let outcome = Outcome { id, custom_id: &line.custom_id, response, error };
    let mut text = serde_json::to_vec(&outcome).unwrap_or_default();
    text.push(b'\n');
    (failed, text)
}

fn not_asked(stop: Stop) -> NotAsked {
    match stop {
        Stop::Canceled => {
            NotAsked { code: "batch_cancelled", message: "This request was not sent: the batch was cancelled." }
        }
        Stop::Shutdown => {
            NotAsked { code: "batch_failed", message: "This request was not sent: the proxy has shut down." }
        }
        Stop::Expired => NotAsked {
            code: "batch_expired",
            message: "This request could not be sent before the completion window expired.",
        },
    }
}

/// A response to a request of a batch.
struct Reply {
    status: StatusCode,
    id: String,
    body: Value,
}

/// Sends one request once the proxy is idle, and again where that may help.
///
/// # Errors
/// Fails if the batch is stopped.
async fn ask(ending: &Ending, body: Bytes, beat: &mut Instant) -> Result<Reply, Stop> {
    let app = &ending.app;
    let mut retries = 0;
    loop {
        let slot = loop {
            if let Some(stop) = ending.stopped() {
                return Err(stop);
            }
            if let Some(slot) = app.batches.slot(app.config.batches.concurrency.max(1), app.requests()) {
                break slot;
            }
            if beat.elapsed() >= BEAT {
                *beat = Instant::now();
                ending.save().await;
            }
            ending.pause(LOOK).await;
        };
        let mut stop = ending.run.stop.subscribe();
        // Dropping the request closes the connection to the remote.
        let asked = tokio::select! {
            biased;
            () = async { drop(stop.wait_for(Option::is_some).await) } => None,
            asked = send(ending, body.clone()) => Some(asked),
        };
        drop(slot);
        let Some((reply, again)) = asked else { continue };
        let pause = match reply.status.as_u16() {
            429 => again.clamp(Duration::from_secs(1), LONGEST_PAUSE),
            502..=504 if retries < RETRIES => {
                retries += 1;
                PAUSE * 2_u32.pow(retries - 1)
            }
            _ => return Ok(reply),
        };
        ending.pause(pause).await;
    }
}

/// Sends one request; returns after what time it may be sent again, too.
async fn send(ending: &Ending, body: Bytes) -> (Reply, Duration) {
    let (app, owner) = (&ending.app, ending.run.owner);
    let endpoint = ending.run.batch().endpoint.clone();
    let path = endpoint.strip_prefix("/v1").unwrap_or_default();
    let request = http::Request::builder()
        .method(Method::POST)
        .uri(format!("{}{path}", app.config.openai.base_path))
        .header(header::HOST, "localhost")
        .header(header::CONTENT_TYPE, "application/json")
        .extension(Inner { digest: owner.digest(), counted: false })
        .body(body.into());
    let failed = |error: &Error| Reply {
        status: error.row().status,
        id: String::new(),
        body: serde_json::from_slice(&error::body(error, Dialect::OpenAi, None)).unwrap_or_default(),
    };
    let request = match request {
        Ok(request) => Box::new(request),
        Err(error) => return (failed(&Error::Internal { message: error.to_string() }), Duration::ZERO),
    };
    let shared = app.batches.current().unwrap_or_else(|| app.shared());
    let response = app::answer(shared, None, request).await;
    let (status, headers) = (response.status(), response.headers());
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let again = text("retry-after").and_then(|after| after.parse().ok()).map_or(Duration::ZERO, Duration::from_secs);
    let id = text("x-request-id").unwrap_or_default();
    match whole_body::read(response.into_body(), app.config.files.max_bytes_per_key).await {
        Ok(body) => {
            let length = body.len();
            let body = offload::run(length, move || serde_json::from_slice(&body).unwrap_or_default()).await;
            (Reply { status, id, body }, again)
        }
        Err(error) => (failed(&error.into_error(app.config.files.max_bytes_per_key)), Duration::ZERO),
    }
}

/// Stores what came out of a batch, and ends it.
async fn finish(
    ending: &Ending,
    output: Vec<u8>,
    errors: Vec<u8>,
    stopped: Option<Stop>,
    full: bool,
    expires_after: Option<u64>,
) {
    if stopped.is_none() {
        ending.change(|batch, now| batch.set(Status::Finalizing, now));
        ending.save().await;
    }
    let id = ending.run.now().id;
    let output = store(ending, output, &format!("{id}_output.jsonl"), expires_after).await;
    let errors = store(ending, errors, &format!("{id}_error.jsonl"), expires_after).await;
    ending.change(|batch, now| {
        let mut wrong = Vec::new();
        for (file, stored) in [(&mut batch.output_file_id, output), (&mut batch.error_file_id, errors)] {
            match stored {
                Ok(id) => *file = id,
                Err(error) => wrong.push(LineError::of_batch("output_not_stored", error.to_string())),
            }
        }
        if full {
            let message = "The output is larger than files.max_bytes_per_key, or that of all batches larger than files.max_bytes.";
            wrong.push(LineError::of_batch("output_too_large", message));
        }
        if stopped == Some(Stop::Shutdown) {
            wrong.push(LineError::of_batch("shutting_down", "The proxy has shut down before the batch had ended."));
        }
        match stopped {
            _ if !wrong.is_empty() => batch.fail(wrong, now),
            Some(Stop::Canceled) => batch.set(Status::Cancelled, now),
            Some(Stop::Expired) => batch.set(Status::Expired, now),
            Some(Stop::Shutdown) | None => batch.set(Status::Completed, now),
        }
    });
    ending.save().await;
}

async fn store(
    ending: &Ending,
    content: Vec<u8>,
    name: &str,
    expires_after: Option<u64>,
) -> Result<Option<String>, Error> {
    if content.is_empty() {
        return Ok(None);
    }
    let file = FileObject::new(ending.app.stamp("file-"), name, "batch_output", content.len(), expires_after);
    stored::put(&ending.app, ending.run.owner, &file, content.into()).await?;
    Ok(Some(file.id))
}
