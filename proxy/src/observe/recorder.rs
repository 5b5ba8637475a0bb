//! The handle that handlers get for recording facts about their exchange.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;
use http::HeaderValue;

use super::{cancel::Cancel, inspector::Capture, traces::Trace};
use crate::{
    error::Error,
    gate::Spend,
    observe::log::{snippet, verbose},
    receipt::{Receipt, RemoteLine},
    usage::Usage,
};

/// What handlers note. Cheap to clone; all clones note on the same page.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recorder(Arc<Page>);

#[derive(Debug, Default)]
struct Page {
    notes: Mutex<Notes>,
    cancel: Cancel,
    /// Whether its tokens count in a quota.
    metered: AtomicBool,
    /// How many lines of a stream the remote has sent, where they are counted: each is about a token.
    lines: AtomicU64,
    /// Set if the inspector was on when the exchange began.
    capture: OnceLock<Capture>,
    /// Set if there are traces.
    trace: OnceLock<Box<Trace>>,
}

/// The facts.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    /// The request's id, for lines in between.
    id: Arc<str>,
    /// Whose key it was.
    pub(crate) caller: Option<String>,
    pub(crate) model: Option<String>,
    pub(crate) usage: Option<Usage>,
    /// The tokens that it has reserved.
    pub(crate) spend: Option<Spend>,
    /// What the exchange waits for until its first token.
    pub(crate) waiting_for: Option<&'static str>,
    pub(crate) first_token: Option<Instant>,
    pub(crate) receipt: Receipt,
    pub(crate) error: Option<Error>,
    /// The last event of a stream has gone out: a client that leaves now has everything.
    pub(crate) finished: bool,
    /// Headers with keys, to mask these wherever else they stand.
    pub(crate) secrets: Vec<HeaderValue>,
}

impl Recorder {
    pub(crate) fn notes(&self) -> MutexGuard<'_, Notes> {
        // A panic elsewhere does not make facts untrue.
        self.0.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What ends the exchange from outside.
    pub(crate) fn cancel(&self) -> &Cancel {
        &self.0.cancel
    }

    /// Copies what the exchange shows from now on.
    pub(crate) fn set_capture(&self, capture: Capture) {
        // It is set once, when the exchange begins.
        let _ = self.0.capture.set(capture);
    }

    /// Where the inspector's copy is made, if it was on when the exchange began.
    pub(crate) fn capture(&self) -> Option<&Capture> {
        self.0.capture.get()
    }

    /// Notes which trace the exchange belongs to.
    pub(crate) fn set_trace(&self, trace: Trace) {
        // It is set once, when the exchange begins.
        let _ = self.0.trace.set(Box::new(trace));
    }

    /// The trace that the exchange belongs to, if there are traces.
    pub(crate) fn trace(&self) -> Option<&Trace> {
        self.0.trace.get().map(|trace| &**trace)
    }

    /// Begins the record of the request `id`; `secrets` are headers with keys, to be masked in every text.
    pub(crate) fn begin(&self, id: Arc<str>, secrets: Vec<HeaderValue>) {
        let mut notes = self.notes();
        notes.id = id;
        notes.secrets = secrets;
    }

    /// The id of the request.
    pub(crate) fn id(&self) -> String {
        self.notes().id.to_string()
    }

    /// Records what the exchange waits for from now on.
    pub(crate) fn waits_for(&self, what: &'static str) {
        self.notes().waiting_for = Some(what);
    }

    /// Records that the model's first token has arrived.
    pub(crate) fn first_token(&self) {
        self.notes().first_token.get_or_insert_with(Instant::now);
    }

    pub(crate) fn caller(&self, name: &str) {
        self.notes().caller = Some(name.to_owned());
    }

    pub(crate) fn model(&self, model: &str) {
        self.notes().model = Some(model.to_owned());
    }

    pub(crate) fn usage(&self, usage: Usage) {
        self.notes().usage = Some(usage);
    }

    /// Counts the exchange's tokens in a quota from now on.
    pub(crate) fn meter(&self, spend: Spend) {
        self.notes().spend = Some(spend);
        self.0.metered.store(true, Ordering::Relaxed);
    }

    /// Whether the exchange's tokens count in a quota.
    pub(crate) fn metered(&self) -> bool {
        self.0.metered.load(Ordering::Relaxed)
    }

    /// Counts the lines of a stream, in case it ends before its own counts.
    pub(crate) fn count_lines(&self, packet: &[u8]) {
        if self.metered() {
            let lines = memchr::memchr_iter(b'\n', packet).count();
            self.0.lines.fetch_add(u64::try_from(lines).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
    }

    /// How many lines were counted.
    pub(crate) fn lines(&self) -> u64 {
        self.0.lines.load(Ordering::Relaxed)
    }

    /// What became of the request's fields.
    pub(crate) fn receipt(&self, receipt: Receipt) {
        self.notes().receipt.add(receipt);
    }

    /// Notes which remote has responded.
    pub(crate) fn remote(&self, line: &Arc<RemoteLine>) {
        self.notes().receipt.remote(line);
    }

    /// As [`Recorder::take_unsent`], as a header.
    pub(crate) fn take_header(&self) -> Option<HeaderValue> {
        self.notes().receipt.take_header()
    }

    /// The part of the receipt that the client does not have yet; it must be sent now.
    pub(crate) fn take_unsent(&self) -> Option<String> {
        self.notes().receipt.take_unsent()
    }

    /// What went wrong after the head had left.
    pub(crate) fn failed(&self, error: &Error) {
        self.notes().error.get_or_insert_with(|| error.clone());
    }

    /// The last event of a stream has gone out.
    pub(crate) fn finished(&self) {
        self.notes().finished = true;
    }

    /// A payload on its way, for `--verbose`.
    pub(crate) fn payload(&self, what: &'static str, payload: &[u8]) {
        if verbose() {
            let notes = self.notes();
            let text = snippet(payload, &notes.secrets);
            tracing::debug!(target: "farllama::payload", id = &*notes.id, "{what} {text}");
        }
    }

    /// A part of Ollama's reply that is read whole before it is translated, for `--verbose` and the inspector.
    pub(crate) fn replied(&self, part: &[u8]) {
        self.payload("reply", part);
        if let Some(capture) = self.capture() {
            capture.replied(part);
        }
    }

    /// One write of an event stream, for `--verbose`: a line each frame.
    pub(crate) fn sent(&self, frames: &Bytes) {
        if verbose() {
            for frame in frames.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                self.payload("sent", frame);
            }
        }
    }
}
