//! What the mock remembers: models, blobs, and what is loaded until when. Locks are held for a look or a change, never while answering.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};

use crate::{go::KeepAlive, models::Model, names::Name, version::Version};

/// Ollama's default for `keep_alive`.
const KEEP_ALIVE: Duration = Duration::from_secs(300);
/// How long older versions still list a model that was unloaded.
const LINGER: SignedDuration = SignedDuration::from_secs(1);

/// What the mock remembers.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) version: Version,
    /// As `OLLAMA_CONTEXT_LENGTH`.
    pub(crate) context_length: Option<u32>,
    pub(crate) listens_on_loopback: bool,
    store: Mutex<Store>,
    counter: AtomicU64,
}

#[derive(Debug, Default)]
struct Store {
    models: BTreeMap<String, Model>,
    /// `sha256:<hex>` → the first bytes.
    blobs: HashMap<String, Vec<u8>>,
    loaded: HashMap<String, Loaded>,
}

/// A model in memory.
#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    pub(crate) model: Model,
    pub(crate) context_length: u32,
    keep_alive: KeepAlive,
    pub(crate) expires: Timestamp,
    /// What stands for the last prompt.
    cached: Option<u64>,
}

impl State {
    pub(crate) fn new(
        version: Version,
        context_length: Option<u32>,
        listens_on_loopback: bool,
        models: Vec<Model>,
    ) -> Self {
        let state =
            Self { version, context_length, listens_on_loopback, store: Mutex::default(), counter: AtomicU64::new(0) };
        for model in models {
            state.put(model);
        }
        state
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn key(&self, name: &Name) -> String {
        name.key(self.version.names_ignore_case())
    }

    /// A number that was not given before.
    pub(crate) fn next(&self) -> u64 {
        self.counter.fetch_add(1, Ordering::Relaxed)
    }

    /// All models, the newest first.
    pub(crate) fn models(&self) -> Vec<Model> {
        let mut models: Vec<Model> = self.store().models.values().cloned().collect();
        models.sort_by(|one, other| {
            other
                .modified
                .as_second()
                .cmp(&one.modified.as_second())
                .then_with(|| one.name.short().cmp(&other.name.short()))
        });
        models
    }

    pub(crate) fn model(&self, name: &Name) -> Option<Model> {
        self.store().models.get(&self.key(name)).cloned()
    }

    /// Adds a model, or replaces the one of that name.
    pub(crate) fn put(&self, model: Model) {
        let key = self.key(&model.name);
        self.store().models.insert(key, model);
    }

    /// Whether there was one to remove.
    pub(crate) fn remove(&self, name: &Name) -> bool {
        let key = self.key(name);
        let mut store = self.store();
        store.loaded.remove(&key);
        store.models.remove(&key).is_some()
    }

    pub(crate) fn put_blob(&self, digest: &str, start: &[u8]) {
        self.store().blobs.insert(digest.to_owned(), start.to_vec());
    }

    /// The first bytes of a blob; the blobs of the models count.
    pub(crate) fn blob(&self, digest: &str) -> Option<Vec<u8>> {
        let store = self.store();
        store.blobs.get(digest).cloned().or_else(|| {
            let hex = digest.strip_prefix("sha256:")?;
            store.models.values().any(|model| model.layers().iter().any(|layer| layer == hex)).then(|| b"GGUF".to_vec())
        })
    }

    /// Loads a model, or keeps it loaded. An absent `keep_alive` keeps what the last request said.
    ///
    /// Returns whether it had to be loaded.
    pub(crate) fn load(&self, model: &Model, context_length: u32, keep_alive: Option<KeepAlive>) -> bool {
        let key = self.key(&model.name);
        let mut store = self.store();
        let before = store.loaded.get(&key).filter(|loaded| loaded.expires > Timestamp::now());
        let is_cold = before.is_none_or(|loaded| loaded.context_length != context_length);
        let keep_alive = keep_alive.or_else(|| before.map(|loaded| loaded.keep_alive)).unwrap_or(Some(KEEP_ALIVE));
        let expires = expiry(keep_alive);
        let cached = before.filter(|_| !is_cold).and_then(|loaded| loaded.cached);
        store.loaded.insert(key, Loaded { model: model.clone(), context_length, keep_alive, expires, cached });
        is_cold
    }

    /// Whether the model's last prompt was this one; it is from now on.
    pub(crate) fn has_cached(&self, model: &Model, prompt: u64) -> bool {
        let key = self.key(&model.name);
        self.store().loaded.get_mut(&key).is_some_and(|loaded| loaded.cached.replace(prompt) == Some(prompt))
    }

    /// A request on a loaded model has ended: its idle time starts, and is over at once where `keep_alive` was 0.
    fn release(&self, model: &Model) {
        let key = self.key(&model.name);
        let mut store = self.store();
        let Some(loaded) = store.loaded.get_mut(&key) else { return };
        loaded.expires = expiry(loaded.keep_alive);
        let is_over = loaded.keep_alive == Some(Duration::ZERO);
        if is_over && self.version.unloads_at_once() {
            store.loaded.remove(&key);
        }
    }

    /// Unloads at once; older versions still list the model for a moment.
    pub(crate) fn unload(&self, model: &Model) {
        let key = self.key(&model.name);
        let mut store = self.store();
        if self.version.unloads_at_once() {
            store.loaded.remove(&key);
        } else if let Some(loaded) = store.loaded.get_mut(&key) {
            loaded.expires = Timestamp::now();
        }
    }

    /// What is loaded, the longest-lived first.
    pub(crate) fn loaded(&self) -> Vec<Loaded> {
        let now = Timestamp::now();
        let linger = if self.version.unloads_at_once() { SignedDuration::ZERO } else { LINGER };
        let mut store = self.store();
        store.loaded.retain(|_, loaded| loaded.expires.saturating_add(linger).is_ok_and(|gone| gone > now));
        let mut loaded: Vec<Loaded> = store.loaded.values().cloned().collect();
        loaded.sort_by_key(|loaded| std::cmp::Reverse(loaded.expires));
        loaded
    }
}

/// A request that uses a loaded model; dropped when it has ended.
#[derive(Debug)]
pub(crate) struct Busy {
    state: Arc<State>,
    model: Model,
}

impl Busy {
    pub(crate) fn new(state: &Arc<State>, model: &Model) -> Self {
        Self { state: Arc::clone(state), model: model.clone() }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.state.release(&self.model);
    }
}

/// For ever is about 292 years, as Go's longest duration.
fn expiry(keep_alive: KeepAlive) -> Timestamp {
    let longest = SignedDuration::from_nanos(i64::MAX);
    let keep =
        keep_alive.and_then(|keep| SignedDuration::try_from(keep).ok()).map_or(longest, |keep| keep.min(longest));
    Timestamp::now().saturating_add(keep).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(version: &str) -> (State, Model) {
        let model: Model = "m".parse().unwrap();
        (State::new(version.parse().unwrap(), None, true, vec![model.clone()]), model)
    }

    #[test]
    fn keep_alive_is_kept_until_another_request_sets_it() {
        let (state, model) = state("0.33.0");
        assert!(state.load(&model, 4096, Some(None)), "cold");
        assert!(!state.load(&model, 4096, None), "warm");
        assert!(
            state.loaded()[0].expires
                > Timestamp::now().saturating_add(SignedDuration::from_hours(24 * 365 * 200)).unwrap()
        );
        assert!(state.load(&model, 8192, Some(Some(Duration::ZERO))), "another context length reloads");
        state.release(&model);
        assert!(state.loaded().is_empty());
    }

    #[test]
    fn older_versions_list_an_unloaded_model_for_a_moment() {
        let (state, model) = state("0.20.0");
        state.load(&model, 4096, None);
        state.unload(&model);
        assert!(state.loaded()[0].expires <= Timestamp::now());
    }

    #[test]
    fn names_are_the_same_model_in_any_case_but_not_in_old_versions() {
        let upper = Name::parse("M").unwrap();
        assert!(state("0.33.0").0.model(&upper).is_some());
        assert!(state("0.13.5").0.model(&upper).is_none());
    }
}
