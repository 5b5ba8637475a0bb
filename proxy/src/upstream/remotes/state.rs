//! What is known of one remote: whether it is in use, which models it has, and how many requests it has.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde::Deserialize;
use tokio::{sync::Notify, time::Instant};

use crate::{config::Health, ollama::name, openai::upstream_request::context::Grown};

/// What is known of one remote.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// How far the contexts of its models have grown.
    pub(crate) grown: Grown,
    in_flight: AtomicUsize,
    standing: Mutex<Standing>,
    /// Held by the one caller that looks at its lists.
    pub(super) looking: tokio::sync::Mutex<()>,
    /// Wakes the health check.
    pub(super) suspected: Notify,
}

/// How a remote stands.
#[derive(Clone, Debug, Default)]
pub(crate) struct Standing {
    /// None: not known yet.
    pub(crate) up: Option<bool>,
    /// Failures, and successes, in a row.
    failures: usize,
    successes: usize,
    /// Why it failed last.
    pub(crate) error: Option<String>,
    /// None: it does not say.
    pub(crate) version: Option<String>,
    /// Time of `GET /api/version`.
    pub(crate) latency: Option<Duration>,
    /// When it came or left.
    pub(crate) since: Option<Instant>,
    /// When its lists were last asked for.
    looked: Option<Instant>,
    /// The models that it has; None: it does not say.
    pub(crate) installed: Option<Arc<[Listed]>>,
    /// Those that are in memory.
    pub(crate) loaded: Option<Arc<[Listed]>>,
}

/// A model in a list.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "Named")]
pub(crate) struct Listed {
    pub(crate) name: String,
    /// The id of a model of an OpenAI server, where `name` has a tag that it does not have.
    id: Option<String>,
    /// The spelling by which names are compared.
    pub(crate) full: String,
}

/// A model as a list has it.
#[derive(Deserialize)]
struct Named {
    name: String,
    openai_id: Option<String>,
}

impl From<Named> for Listed {
    fn from(Named { name, openai_id }: Named) -> Self {
        Self { id: openai_id, ..Self::new(&name) }
    }
}

impl Listed {
    pub(crate) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), id: None, full: name::full(name).into_owned() }
    }

    /// The name by which its remote knows it.
    pub(crate) fn own_name(&self) -> &str {
        self.id.as_deref().unwrap_or(&self.name)
    }
}

/// Whether a remote has a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Has {
    /// In memory.
    Loaded,
    Installed,
    /// Its models are not known.
    Unknown,
    No,
}

/// What a success or a failure changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// It is there, seen for the first time.
    Came,
    Left,
    Returned,
}

impl Standing {
    /// Whether requests are sent to it before others that are out of use.
    pub(crate) fn is_up(&self) -> bool {
        self.up != Some(false)
    }

    /// Whether it responds, and the last request to it did not fail.
    pub(super) fn is_well(&self) -> bool {
        self.up == Some(true) && self.failures == 0
    }

    /// Whether its lists were asked for after `begun`.
    pub(super) fn looked_since(&self, begun: Instant) -> bool {
        self.looked.is_some_and(|looked| looked > begun)
    }

    /// Whether its lists were asked for after `since`; None: ever.
    pub(super) fn is_recent(&self, since: Option<Instant>) -> bool {
        self.looked.is_some_and(|looked| since.is_none_or(|since| looked > since))
    }

    /// Whether it has the model with this full name.
    pub(crate) fn has(&self, full: &str) -> Has {
        let lists = |list: &Option<Arc<[Listed]>>| {
            list.as_deref().is_some_and(|list| list.iter().any(|known| known.full == full))
        };
        match &self.installed {
            None => Has::Unknown,
            Some(_) if !lists(&self.installed) => Has::No,
            Some(_) if lists(&self.loaded) => Has::Loaded,
            Some(_) => Has::Installed,
        }
    }

    /// Counts a success.
    fn succeeded(&mut self, health: &Health) -> Option<Change> {
        self.failures = 0;
        match self.up {
            Some(true) => None,
            None => self.change(true, Change::Came),
            Some(false) => {
                self.successes += 1;
                if self.successes < health.return_after {
                    return None;
                }
                self.change(true, Change::Returned)
            }
        }
    }

    /// Counts a failure.
    fn failed(&mut self, health: &Health) -> Option<Change> {
        self.successes = 0;
        self.failures += 1;
        if self.up == Some(false) || self.failures < health.fail_after {
            return None;
        }
        self.change(false, Change::Left)
    }

    fn change(&mut self, up: bool, change: Change) -> Option<Change> {
        (self.up, self.failures, self.successes) = (Some(up), 0, 0);
        self.since = Some(Instant::now());
        Some(change)
    }
}

impl State {
    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy of how it stands.
    pub(crate) fn now(&self) -> Standing {
        self.standing().clone()
    }

    /// Reads how it stands.
    pub(super) fn with<T>(&self, read: impl FnOnce(&Standing) -> T) -> T {
        read(&self.standing())
    }

    /// How many requests it has.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Notes that it responded.
    pub(super) fn succeeded(&self, health: &Health) -> Option<Change> {
        let mut standing = self.standing();
        standing.error = None;
        standing.succeeded(health)
    }

    /// Notes that it did not respond.
    pub(super) fn failed(&self, error: &str, health: &Health) -> Option<Change> {
        let mut standing = self.standing();
        standing.error = Some(error.to_owned());
        standing.failed(health)
    }

    pub(super) fn learn_version(&self, version: Option<String>, latency: Duration) {
        let mut standing = self.standing();
        (standing.version, standing.latency) = (version, Some(latency));
    }

    /// Notes the models that it has. None: it does not say.
    pub(super) fn learn_installed(&self, installed: Option<Vec<Listed>>) {
        self.standing().installed = installed.map(Into::into);
    }

    pub(super) fn learn_loaded(&self, loaded: Vec<Listed>) {
        self.standing().loaded = Some(loaded.into());
    }

    /// Notes that its lists were asked for, whatever came of it.
    pub(super) fn looked(&self) {
        self.standing().looked = Some(Instant::now());
    }

    /// Its lists are no longer true.
    pub(crate) fn forget_lists(&self) {
        self.standing().looked = None;
    }
}

/// A request that a remote has, until this is dropped.
pub(crate) struct Counted(Arc<State>);

impl Counted {
    pub(super) fn new(state: &Arc<State>) -> Self {
        state.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(state.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Counted")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remote_leaves_and_returns_at_its_thresholds_and_each_once() {
        let health = Health { fail_after: 2, return_after: 2, ..Health::default() };
        let mut standing = Standing::default();
        assert!(standing.is_up(), "until it is known");
        assert_eq!(standing.succeeded(&health), Some(Change::Came));
        assert_eq!(standing.failed(&health), None);
        assert_eq!(standing.succeeded(&health), None);
        assert_eq!(standing.failed(&health), None, "not in a row");
        assert_eq!(standing.failed(&health), Some(Change::Left));
        assert_eq!((standing.failed(&health), standing.is_up()), (None, false));
        assert_eq!(standing.succeeded(&health), None);
        assert_eq!(standing.failed(&health), None);
        assert_eq!((standing.succeeded(&health), standing.succeeded(&health)), (None, Some(Change::Returned)));
        assert_eq!((standing.succeeded(&health), standing.is_up()), (None, true));
    }

    #[test]
    fn a_model_is_found_by_any_spelling_of_its_name() {
        let list = |names: &[&str]| Some(names.iter().map(|name| Listed::new(name)).collect::<Vec<_>>().into());
        let mut standing = Standing::default();
        assert_eq!(standing.has("m:latest"), Has::Unknown);
        standing.installed = list(&["M", "qwen3:8b"]);
        assert_eq!(standing.has(&name::full("m")), Has::Installed);
        standing.loaded = list(&["m:latest", "gone"]);
        assert_eq!((standing.has("m:latest"), standing.has("gone:latest")), (Has::Loaded, Has::No));
    }
}
