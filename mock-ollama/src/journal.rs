//! What the mock was asked, and how each exchange ended.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::sync::watch;

/// How much of a request's body is kept.
pub(crate) const KEPT: usize = 1 << 20;
/// How many of the latest bodies are kept, so that a mock may run for days.
const BODIES: usize = 10_000;

/// Everything that was asked, in order of arrival. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Journal(Arc<Pages>);

#[derive(Debug)]
struct Pages {
    entries: Mutex<Vec<Entry>>,
    changed: watch::Sender<u64>,
}

/// One request.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Such as `POST`.
    pub method: String,
    /// The request's target as it came, path and query.
    pub target: String,
    /// Names in lower case, values as they came.
    pub headers: Vec<(String, String)>,
    /// The first MiB of the body; empty for all but the latest 10,000 requests.
    pub body: Bytes,
    /// Bytes of the whole body.
    pub body_len: u64,
    /// When its head had arrived.
    pub arrived: Instant,
    /// Whether the whole body has arrived.
    pub read: bool,
    /// When the latest piece of the answer was written.
    pub wrote: Option<Instant>,
    /// How and when the exchange ended, once it has.
    pub ended: Option<(Ending, Instant)>,
}

/// How an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The whole answer was sent.
    Complete,
    /// The peer went away before that, or the script broke the answer off.
    Aborted,
}

impl Entry {
    /// The body as JSON, if it is.
    #[must_use]
    pub fn json(&self) -> Option<serde_json::Value> {
        serde_json::from_slice(&self.body).ok()
    }

    /// The first value of a header; `name` in any case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| &**value)
    }

    /// The target without its query.
    #[must_use]
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }
}

impl Default for Journal {
    fn default() -> Self {
        Self(Arc::new(Pages { entries: Mutex::default(), changed: watch::channel(0).0 }))
    }
}

impl Journal {
    fn pages(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.0.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All entries so far.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        self.pages().clone()
    }

    /// Waits until the `nth` request (from 0) is there with its whole body; `None` if that takes longer than `within`.
    pub async fn arrived(&self, nth: usize, within: Duration) -> Option<Entry> {
        self.wait(nth, within, |entry| entry.read).await
    }

    /// Waits until the `nth` exchange (from 0) has ended; `None` if that takes longer than `within`.
    pub async fn ended(&self, nth: usize, within: Duration) -> Option<Entry> {
        self.wait(nth, within, |entry| entry.ended.is_some()).await
    }

    async fn wait(&self, nth: usize, within: Duration, is: impl Fn(&Entry) -> bool) -> Option<Entry> {
        let mut changed = self.0.changed.subscribe();
        let waiting = async {
            loop {
                changed.mark_unchanged();
                if let Some(entry) = self.pages().get(nth).filter(|entry| is(entry)) {
                    return Some(entry.clone());
                }
                // The sender lives as long as the journal.
                changed.changed().await.ok()?;
            }
        };
        tokio::time::timeout(within, waiting).await.ok().flatten()
    }

    fn change(&self, nth: usize, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.pages().get_mut(nth) {
            change(entry);
        }
        self.0.changed.send_modify(|n| *n += 1);
    }

    /// Opens an entry; the line is drawn under it when the pencil is dropped.
    pub(crate) fn open(&self, entry: Entry) -> OpenEntry {
        let nth = {
            let mut pages = self.pages();
            pages.push(entry);
            if let Some(old) = pages.len().checked_sub(BODIES + 1) {
                pages[old].body = Bytes::new();
            }
            pages.len() - 1
        };
        self.0.changed.send_modify(|n| *n += 1);
        OpenEntry { journal: self.clone(), nth, ending: Ending::Aborted }
    }
}

/// Writes one entry of the journal. Dropped before [`OpenEntry::complete`], the exchange counts as aborted.
#[derive(Debug)]
pub(crate) struct OpenEntry {
    journal: Journal,
    nth: usize,
    ending: Ending,
}

impl OpenEntry {
    pub(crate) fn body(&self, body: Bytes, body_len: u64) {
        self.journal.change(self.nth, |entry| {
            entry.body = body;
            entry.body_len = body_len;
            entry.read = true;
        });
    }

    pub(crate) fn wrote(&self) {
        self.journal.change(self.nth, |entry| entry.wrote = Some(Instant::now()));
    }

    pub(crate) fn complete(&mut self) {
        self.ending = Ending::Complete;
    }
}

impl Drop for OpenEntry {
    fn drop(&mut self) {
        let ending = self.ending;
        self.journal.change(self.nth, |entry| entry.ended = Some((ending, Instant::now())));
    }
}
