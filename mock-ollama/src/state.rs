//! What the mock remembers: models, blobs, and what is loaded until when. Locks are held for a look or a change, never
//! while answering.
//!
//! What is loaded is known by its weights, as in Ollama's scheduler: names that share them are one entry, under the
//! name that loaded them.

use crate::version::Feature;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::Notify;

use crate::{go::KeepAlive, models::Model, names::Name, version::Version};

/// Ollama's default for `keep_alive`.
const KEEP_ALIVE: Duration = Duration::from_secs(300);
/// How long older versions still list a model that was unloaded.
const LINGER: SignedDuration = SignedDuration::from_secs(1);

/// The largest blob that is kept whole.
const KEPT_BLOB: usize = 64 << 20;
/// What the runner says when it was killed, and wrote nothing before that.
const KILLED: &str = "unexpected EOF";

/// What the mock remembers.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) version: Version,
    /// As `OLLAMA_CONTEXT_LENGTH`.
    pub(crate) context_length: u32,
    pub(crate) listens_on_loopback: bool,
    /// How many models fit and how many requests may wait for a place; without it there is always one.
    limits: Option<Limits>,
    /// What registries hold that are played.
    published: Vec<Model>,
    store: Mutex<Store>,
    counter: AtomicU64,
    /// Notified when a request ends or a model is unloaded.
    changed: Notify,
}

/// As `OLLAMA_MAX_QUEUE` and `OLLAMA_MAX_LOADED_MODELS`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) queue: usize,
    pub(crate) loaded: usize,
}

/// What becomes of a request that needs a model at work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It runs; whether the model has to be loaded.
    Runs { is_cold: bool },
    /// It is tried again when something changes.
    Waits,
    /// Too many wait.
    Refused,
}

/// A place in the queue of one request, given back when it is dropped.
#[derive(Debug, Default)]
pub(crate) struct Ticket(Mutex<Option<(u64, Arc<State>)>>);

impl Drop for Ticket {
    fn drop(&mut self) {
        self.give_back();
    }
}

impl Ticket {
    fn number(&self) -> Option<u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|(number, _)| *number)
    }

    fn take(&self, state: &Arc<State>) -> u64 {
        let number = state.next();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((number, Arc::clone(state)));
        number
    }

    fn give_back(&self) {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((number, state)) = held {
            state.store().waiting.remove(&number);
            state.changed.notify_waiters();
        }
    }
}

#[derive(Debug, Default)]
struct Store {
    models: BTreeMap<String, Model>,
    /// `sha256:<hex>` → the content, or its first bytes.
    blobs: HashMap<String, Bytes>,
    /// Downloads that have not ended.
    partials: HashMap<String, Vec<u8>>,
    /// By weights.
    loaded: HashMap<String, Loaded>,
    /// Requests that wait for a place, in their order. The first is the scheduler's, the others stand in the queue.
    waiting: BTreeSet<u64>,
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
    /// Requests at work.
    busy: usize,
    /// The last error that the runner wrote, about whichever request.
    error: Option<String>,
}

impl State {
    pub(crate) fn new(
        version: Version,
        context_length: u32,
        listens_on_loopback: bool,
        limits: Option<Limits>,
        models: Vec<Model>,
    ) -> Self {
        let state = Self {
            version,
            context_length,
            listens_on_loopback,
            limits,
            published: Vec::new(),
            store: Mutex::default(),
            counter: AtomicU64::new(0),
            changed: Notify::new(),
        };
        for model in models {
            state.put(model);
        }
        state
    }

    /// With models that registries hold, which are played.
    pub(crate) fn publishing(self, published: Vec<Model>) -> Self {
        Self { published, ..self }
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn key(&self, name: &Name) -> String {
        name.key(self.version.has(Feature::NamesIgnoreCase))
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
        let removed = store.models.remove(&key);
        store.loaded.retain(|_, loaded| self.key(&loaded.model.name) != key);
        // Blobs that no other model has go too.
        let Some(removed) = removed else { return false };
        let of = |model: &Model| model.contents().into_iter().chain([model.config()]).map(|layer| layer.digest);
        let kept: BTreeSet<String> = store.models.values().flat_map(of).collect();
        for digest in of(&removed).filter(|digest| !kept.contains(digest)) {
            store.blobs.remove(&format!("sha256:{digest}"));
        }
        true
    }

    /// Keeps a blob, or at least its beginning.
    pub(crate) fn put_blob(&self, digest: &str, content: Bytes) {
        // A slice would keep all of a large body in memory.
        let kept = if content.len() > KEPT_BLOB { Bytes::copy_from_slice(&content[..16]) } else { content };
        self.store().blobs.insert(digest.to_lowercase(), kept);
    }

    /// The first bytes of a blob; the blobs of the models count.
    pub(crate) fn blob(&self, digest: &str) -> Option<Bytes> {
        self.blob_content(digest)
    }

    /// A blob, or its beginning where it was too large to be kept.
    pub(crate) fn blob_content(&self, digest: &str) -> Option<Bytes> {
        let store = self.store();
        store.blobs.get(&digest.to_lowercase()).cloned().or_else(|| {
            let hex = digest.strip_prefix("sha256:")?;
            let mut layers = store.models.values().flat_map(Model::contents);
            layers.find(|layer| layer.digest == hex).map(|layer| layer.content)
        })
    }

    /// How much of a blob an earlier download has fetched.
    pub(crate) fn partial(&self, digest: &str) -> u64 {
        self.store().partials.get(digest).map_or(0, |partial| partial.len() as u64)
    }

    /// Adds to what was fetched; returns how much it is.
    pub(crate) fn add_to_partial(&self, digest: &str, data: &[u8]) -> u64 {
        let mut store = self.store();
        let partial = store.partials.entry(digest.to_owned()).or_default();
        partial.extend_from_slice(data);
        partial.len() as u64
    }

    /// What was fetched, which is forgotten.
    pub(crate) fn take_partial(&self, digest: &str) -> Vec<u8> {
        self.store().partials.remove(digest).unwrap_or_default()
    }

    /// Whether a script publishes models at a host.
    pub(crate) fn publishes_at(&self, host: &str) -> bool {
        self.published.iter().any(|model| model.name.host == host)
    }

    /// A model that a script publishes.
    pub(crate) fn published(&self, name: &Name) -> Option<Model> {
        self.published.iter().find(|model| self.key(&model.name) == self.key(name)).cloned()
    }

    /// Gives a request its model: loads the weights, or keeps them loaded. An absent `keep_alive` keeps what the last
    /// request said.
    pub(crate) fn load(
        self: &Arc<Self>,
        model: &Model,
        context_length: u32,
        keep_alive: Option<KeepAlive>,
        ticket: &Ticket,
    ) -> Admission {
        let weights = model.weights();
        let now = Timestamp::now();
        let mut store = self.store();
        store.loaded.retain(|_, loaded| loaded.busy > 0 || self.is_listed(loaded, now));
        let before = store.loaded.get(&weights).filter(|loaded| loaded.busy > 0 || loaded.expires > now);
        let is_cold = before.is_none_or(|loaded| loaded.context_length != context_length);
        let keep_alive = keep_alive.or_else(|| before.map(|loaded| loaded.keep_alive)).unwrap_or(Some(KEEP_ALIVE));
        if let Some(limits) = self.limits {
            // The loaded weights serve one request after another, and no queue is needed for that (recorded: queue).
            let is_busy = before.is_some_and(|loaded| loaded.busy > 0);
            if !is_cold && is_busy {
                return Admission::Waits;
            }
            if is_cold && (is_busy || !store.has_place(limits.loaded, ticket.number())) {
                let waits = ticket.number().is_some() || store.waiting.len() <= limits.queue;
                if waits && ticket.number().is_none() {
                    store.waiting.insert(ticket.take(self));
                }
                return if waits { Admission::Waits } else { Admission::Refused };
            }
        }
        let expires = expiry(keep_alive);
        match store.loaded.get_mut(&weights).filter(|_| !is_cold) {
            Some(loaded) => {
                loaded.keep_alive = keep_alive;
                loaded.expires = expires;
            }
            None => {
                let busy = store.loaded.get(&weights).map_or(0, |loaded| loaded.busy);
                let model = model.clone();
                let loaded = Loaded { model, context_length, keep_alive, expires, cached: None, busy, error: None };
                store.loaded.insert(weights, loaded);
            }
        }
        drop(store);
        ticket.give_back();
        Admission::Runs { is_cold }
    }

    /// Waits until a request ends or something is unloaded; create it before looking.
    pub(crate) fn changes(&self) -> tokio::sync::futures::Notified<'_> {
        self.changed.notified()
    }

    /// Whether the model's last prompt was this one; it is from now on.
    pub(crate) fn has_cached(&self, model: &Model, prompt: u64) -> bool {
        let mut store = self.store();
        store.loaded.get_mut(&model.weights()).is_some_and(|loaded| loaded.cached.replace(prompt) == Some(prompt))
    }

    fn engage(&self, model: &Model) {
        if let Some(loaded) = self.store().loaded.get_mut(&model.weights()) {
            loaded.busy += 1;
        }
    }

    /// A request on a loaded model has ended: its idle time starts, and is over at once where `keep_alive` was 0.
    fn release(&self, model: &Model) {
        let weights = model.weights();
        let mut store = self.store();
        if let Some(loaded) = store.loaded.get_mut(&weights) {
            loaded.busy = loaded.busy.saturating_sub(1);
            loaded.expires = expiry(loaded.keep_alive);
            if loaded.keep_alive == Some(Duration::ZERO) && loaded.busy == 0 && self.version.has(Feature::UnloadsAtOnce)
            {
                store.loaded.remove(&weights);
            }
        }
        drop(store);
        self.changed.notify_waiters();
    }

    /// Unloads the weights, whatever name loaded them: at once, or when the requests at work have ended; older versions
    /// still list them for a moment.
    pub(crate) fn unload(&self, model: &Model) {
        let weights = model.weights();
        let mut store = self.store();
        let Some(loaded) = store.loaded.get_mut(&weights) else { return };
        loaded.keep_alive = Some(Duration::ZERO);
        loaded.expires = Timestamp::now();
        if self.version.has(Feature::UnloadsAtOnce) && loaded.busy == 0 {
            store.loaded.remove(&weights);
        }
        drop(store);
        self.changed.notify_waiters();
    }

    /// The runner wrote an error about one of its requests.
    pub(crate) fn runner_wrote(&self, model: &Model, error: &str) {
        if let Some(loaded) = self.store().loaded.get_mut(&model.weights()) {
            loaded.error = Some(error.to_owned());
        }
    }

    /// The process that runs the model is killed; returns what the requests at work hear of it: the last error that the
    /// runner wrote, about whichever request, and only without one that it is gone (recorded:
    /// mid-failure/chat-stream-older-error).
    pub(crate) fn kill_runner(&self, model: &Model) -> String {
        let killed = self.store().loaded.remove(&model.weights());
        self.changed.notify_waiters();
        killed.and_then(|loaded| loaded.error).unwrap_or_else(|| KILLED.to_owned())
    }

    /// Whether `/api/ps` lists it still.
    fn is_listed(&self, loaded: &Loaded, now: Timestamp) -> bool {
        let linger = if self.version.has(Feature::UnloadsAtOnce) { SignedDuration::ZERO } else { LINGER };
        loaded.expires.saturating_add(linger).is_ok_and(|gone| gone > now)
    }

    /// What is loaded, the longest-lived first.
    pub(crate) fn loaded(&self) -> Vec<Loaded> {
        let now = Timestamp::now();
        let mut store = self.store();
        store.loaded.retain(|_, loaded| loaded.busy > 0 || self.is_listed(loaded, now));
        let mut loaded: Vec<Loaded> = store.loaded.values().cloned().collect();
        loaded.sort_by_key(|loaded| std::cmp::Reverse(loaded.expires));
        loaded
    }
}

impl Store {
    /// Whether a model can be loaded for the request with this ticket: there is room, or an idle one can go, and no
    /// earlier request waits.
    fn has_place(&mut self, most: usize, ticket: Option<u64>) -> bool {
        if self.waiting.first().is_some_and(|first| Some(*first) != ticket) {
            return false;
        }
        if self.loaded.len() >= most {
            let idle = self.loaded.iter().filter(|(_, loaded)| loaded.busy == 0);
            let idle = idle.min_by_key(|(_, loaded)| loaded.expires).map(|(weights, _)| weights.clone());
            idle.map(|weights| self.loaded.remove(&weights));
        }
        self.loaded.len() < most
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
        state.engage(model);
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

    fn state(version: &str) -> (Arc<State>, Model) {
        let model: Model = "m".parse().unwrap();
        let state = State::new(version.parse().unwrap(), 4096, true, None, vec![model.clone()]);
        (Arc::new(state), model)
    }

    fn is_cold(state: &Arc<State>, model: &Model, context_length: u32, keep_alive: Option<KeepAlive>) -> bool {
        state.load(model, context_length, keep_alive, &Ticket::default()) == Admission::Runs { is_cold: true }
    }

    #[test]
    fn keep_alive_is_kept_until_another_request_sets_it() {
        let (state, model) = state("0.33.0");
        assert!(is_cold(&state, &model, 4096, Some(None)), "cold");
        assert!(!is_cold(&state, &model, 4096, None), "warm");
        assert!(
            state.loaded()[0].expires
                > Timestamp::now().saturating_add(SignedDuration::from_hours(24 * 365 * 200)).unwrap()
        );
        assert!(is_cold(&state, &model, 8192, Some(Some(Duration::ZERO))), "another context length reloads");
        drop(Busy::new(&state, &model));
        assert!(state.loaded().is_empty());
    }

    #[test]
    fn names_that_share_weights_are_one_entry() {
        let (state, model) = state("0.33.0");
        let twin = Model { name: Name::parse("twin").unwrap(), system: "Be brief.".to_owned(), ..model.clone() };
        assert!(is_cold(&state, &model, 4096, None) && !is_cold(&state, &twin, 4096, None));
        let names: Vec<String> = state.loaded().iter().map(|loaded| loaded.model.name.short()).collect();
        assert_eq!(names, ["m:latest"], "under the name that loaded them");
        let busy = Busy::new(&state, &model);
        state.unload(&twin);
        assert_eq!(state.loaded().len(), 1, "a request is still at work");
        drop(busy);
        assert!(state.loaded().is_empty());
        let other: Model = "other".parse().unwrap();
        assert!(is_cold(&state, &model, 4096, None) && is_cold(&state, &other, 4096, None));
        assert_eq!(state.loaded().len(), 2);
    }

    #[test]
    fn requests_beyond_the_queue_are_refused_and_the_others_take_their_turn() {
        let models: Vec<Model> = ["a", "b", "c"].iter().map(|name| name.parse().unwrap()).collect();
        let limits = Some(Limits { queue: 1, loaded: 1 });
        let state = Arc::new(State::new(Version::default(), 4096, true, limits, models.clone()));
        let load = |nth: usize, ticket: &Ticket| state.load(&models[nth], 4096, None, ticket);
        let tickets: Vec<Ticket> = (0..4).map(|_| Ticket::default()).collect();
        assert_eq!(load(0, &tickets[0]), Admission::Runs { is_cold: true });
        let running = Busy::new(&state, &models[0]);
        assert_eq!(load(0, &Ticket::default()), Admission::Waits, "what is loaded serves one after another");
        assert_eq!(load(1, &tickets[1]), Admission::Waits, "the scheduler's");
        assert_eq!(load(2, &tickets[2]), Admission::Waits, "in the queue");
        assert_eq!(load(1, &tickets[3]), Admission::Refused);
        assert_eq!(load(1, &tickets[1]), Admission::Waits, "trying again takes no second place");
        drop(running);
        assert_eq!(load(2, &tickets[2]), Admission::Waits, "another one is first");
        assert_eq!(load(1, &tickets[1]), Admission::Runs { is_cold: true });
        let running = Busy::new(&state, &models[1]);
        assert_eq!(load(2, &tickets[2]), Admission::Waits);
        drop(running);
        assert_eq!(load(2, &tickets[2]), Admission::Runs { is_cold: true });
        assert_eq!(state.loaded().len(), 1, "the idle one had to go");
    }

    #[test]
    fn a_killed_runner_repeats_its_last_error() {
        let (state, model) = state("0.33.0");
        is_cold(&state, &model, 4096, None);
        assert_eq!(state.kill_runner(&model), "unexpected EOF");
        is_cold(&state, &model, 4096, None);
        state.runner_wrote(&model, "error: x");
        assert_eq!((state.kill_runner(&model).as_str(), state.loaded().len()), ("error: x", 0));
    }

    #[test]
    fn older_versions_list_an_unloaded_model_for_a_moment() {
        let (state, model) = state("0.20.0");
        is_cold(&state, &model, 4096, None);
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
