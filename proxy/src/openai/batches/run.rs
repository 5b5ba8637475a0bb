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
use serde_json::Value;
use tokio::sync::watch;

use super::{
    stored::Stored,
    wire::{Answered, Batch, Line, LineError, NotAsked, Outcome, Status, lines},
};
use crate::{
    app::{self, App},
    error::{self, Dialect, Error},
    gate::{Inner, Owner},
    offload,
    openai::files::{self, wire::FileObject},
    store::{Kind, Record, Updated},
    tasks::Tasks,
    whole_body,
};

/// How often a batch looks whether the proxy is idle.
const LOOK: Duration = Duration::from_millis(50);

/// How often a batch renews its lease and its record, at least, and looks whether it has expired.
const BEAT: Duration = Duration::from_secs(1);

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
    let stopping = || app.batches.state().stopping;
    if stopping() {
        return Err(Error::Canceled { shutdown: true });
    }
    // Before the caller has the id, which it may ask another process for.
    app.store.hold(Kind::Batch, &batch.id).await?;
    app.store.put(Stored { batch: batch.clone() }.record(owner)?).await?;
    let run = Arc::new(Run { owner, batch: Mutex::new(batch.clone()), stop: watch::Sender::default() });
    let ending = Ending { app: app.clone(), run: run.clone(), output: 0 };
    app.batches.state().runs.insert(batch.id.clone(), run.clone());
    if stopping() {
        run.stop.send_replace(Some(Stop::Shutdown));
    }
    if app.batches.tasks.start(most, work(ending, file, expires_after)).is_err() {
        app.batches.state().runs.remove(&batch.id);
        app.store.remove(Kind::Batch, owner, &batch.id).await?;
        app.store.release(Kind::Batch, &batch.id).await?;
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

    /// Writes the record anew.
    async fn save(&self) {
        save(&self.app, &self.run).await;
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

/// Writes the record of a batch anew; returns what was written, unless it could not be.
async fn save(app: &App, run: &Run) -> Option<Batch> {
    let id = run.now().id;
    // What is written is what it is then: two of these may run at the same time.
    let now = |_: &Record| Stored { batch: run.now() }.record(run.owner);
    match app.store.update(Kind::Batch, run.owner, &id, now).await {
        Ok(Updated::Stored(record)) => Stored::read(&record).ok().map(|stored| stored.batch),
        Ok(Updated::Missing | Updated::TooBig) => None,
        Err(error) => {
            tracing::warn!(target: "farllama", "a batch could not be stored: {error}");
            None
        }
    }
}

/// Renews the lease and the record of a batch, and stops it when another process asks for that or its time is over.
async fn keep(app: App, run: Arc<Run>) {
    let id = run.now().id;
    let every = app.store.lease().map_or(BEAT, |lease| BEAT.min(lease / 3));
    let mut saved = None;
    loop {
        let left = Duration::from_secs(run.batch().expires_at.saturating_sub(app.now()));
        tokio::time::sleep(every.min(left.max(LOOK))).await;
        if app.now() >= run.batch().expires_at {
            run.stop.send_if_modified(|stop| stop.is_none() && stop.replace(Stop::Expired).is_none());
        }
        // While the store cannot be reached, the lease may expire: others then report the batch as lost.
        if app.store.hold(Kind::Batch, &id).await.unwrap_or(false) {
            run.cancel(app.now());
        }
        if saved.as_ref() != Some(&*run.batch()) {
            saved = save(&app, &run).await;
        }
    }
}

async fn work(ending: Ending, file: Bytes, expires_after: Option<u64>) {
    let (app, run) = (ending.app.clone(), ending.run.clone());
    tokio::select! {
        biased;
        () = send_all(ending, file, expires_after) => {}
        () = keep(app.clone(), run.clone()) => {}
    }
    let id = run.now().id;
    if let Err(error) = app.store.release(Kind::Batch, &id).await {
        tracing::warn!(target: "farllama", "the lease of a batch could not be released: {error}");
    }
}

async fn send_all(mut ending: Ending, file: Bytes, expires_after: Option<u64>) {
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
    let (mut stopped, mut full) = (None, false);
    for line in &lines {
        let response = match stopped {
            None => ask(&ending, file.slice(line.body.clone())).await,
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
async fn ask(ending: &Ending, body: Bytes) -> Result<Reply, Stop> {
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
    let room = files::stored::reserve(&ending.app, ending.run.owner, file.bytes).await?;
    files::stored::put(&ending.app, room, &file, content.into()).await?;
    Ok(Some(file.id))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use mock_ollama::{Mock, Script};
    use serde_json::json;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
    };

    use crate::{Config, Running, serve};

    use super::*;

    /// The body of the answer to a request.
    async fn ask(proxy: &Running, head: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(proxy.addr()).await.unwrap();
        let length = body.len();
        let request =
            format!("{head}\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(" 200 "), "{answer}");
        body.to_owned()
    }

    async fn json(proxy: &Running, head: &str, body: &str) -> Value {
        serde_json::from_str(&ask(proxy, head, body).await).unwrap()
    }

    #[tokio::test]
    async fn a_batch_whose_time_is_over_has_expired_with_what_it_has() {
        let slow = Script::on("/api/chat").containing("second").delay(Duration::from_secs(60));
        let mock = Mock::start(slow).await.unwrap();
        let mut config = Config::default();
        config.local.port = 0;
        config.remote.port = mock.addr().port();
        let proxy = serve(config).await.unwrap();
        let line = |text: &str| {
            let body = json!({"model": "smollm2:135m", "messages": [{"role": "user", "content": text}]});
            json!({"custom_id": text, "method": "POST", "url": "/v1/chat/completions", "body": body}).to_string() + "\n"
        };
        let lines = ["first", "second", "third"].map(line).concat();
        let form = format!(
            "--x\r\ncontent-disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n--x\r\ncontent-disposition: \
             form-data; name=\"file\"; filename=\"a.jsonl\"\r\n\r\n{lines}\r\n--x--\r\n"
        );
        let file =
            json(&proxy, "POST /v1/files HTTP/1.1\r\nContent-Type: multipart/form-data; boundary=x", &form).await;
        let body = json!({"input_file_id": file["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h"});
        let made = json(&proxy, "POST /v1/batches HTTP/1.1", &body.to_string()).await;
        let id = made["id"].as_str().unwrap();
        let begun = Instant::now();
        let wait = async || {
            assert!(begun.elapsed() < Duration::from_secs(20));
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        let run = proxy.0.persistent.batches.get(Owner::default(), id).unwrap();
        while run.now().request_counts.completed == 0 || proxy.requests() == 0 {
            wait().await;
        }
        run.batch().expires_at = made["created_at"].as_u64().unwrap();
        drop(run);
        while proxy.0.persistent.batches.tasks.count() > 0 {
            wait().await;
        }
        assert_eq!(proxy.requests(), 0, "the remote is let go of");
        let expired = json(&proxy, &format!("GET /v1/batches/{id} HTTP/1.1"), "").await;
        assert_eq!((&expired["status"], &expired["errors"]), (&json!("expired"), &Value::Null), "{expired}");
        assert!(expired["expired_at"].is_u64() && expired["completed_at"].is_null());
        assert_eq!(expired["request_counts"], json!({"total": 3, "completed": 1, "failed": 0}));
        let lines = async |name: &str| -> Vec<Value> {
            let file = expired[name].as_str().unwrap();
            let text = ask(&proxy, &format!("GET /v1/files/{file}/content HTTP/1.1"), "").await;
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        };
        let (output, errors) = (lines("output_file_id").await, lines("error_file_id").await);
        assert_eq!((output.len(), &output[0]["custom_id"]), (1, &json!("first")));
        let codes: Vec<_> = errors.iter().map(|line| [&line["custom_id"], &line["error"]["code"]]).collect();
        assert_eq!(json!(codes), json!([["second", "batch_expired"], ["third", "batch_expired"]]));
    }
}
