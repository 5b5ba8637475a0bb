//! Records that outlive a request: responses today, and whatever else a client may come back for. In memory by default;
//! on a Redis or Valkey server that several proxies share where `[store]` names one.
//!
//! A [`Record`] is bytes (JSON, mostly) with a [`Kind`], an owner and an id. It belongs to the key that made it; for
//! all others it does not exist, so every method takes the owner and there is none without. [`Bounds`] apply to each
//! kind on its own: how many records, how many bytes, how long after the last use. Beyond them the least recently used
//! record of the owner who has the most is evicted, so one owner never evicts another's records.
//!
//! # Using it
//!
//! A handler works in three steps: collect the ids that a request names (pure), fetch their records (async), translate
//! with what was found (pure). [`Store`] is in `app.store`:
//!
//! | method | does |
//! |---|---|
//! | [`Store::put`] | stores a record, in the place of one with the same id; returns false if it alone exceeds the bounds |
//! | [`Store::get`] | returns the record of an id |
//! | [`Store::chain`] | returns a record and all that it goes on from ([`Record::previous`]), the oldest first |
//! | [`Store::find`] | returns, for each of several names ([`Record::names`]), the newest record that has it |
//! | [`Store::present`] | returns, for each of several ids, whether there is a record |
//! | [`Store::list`] | returns a page of an owner's records of one kind, in order of creation |
//! | [`Store::update`] | changes a record from what it is now, atomically; the closure may run more than once |
//! | [`Store::remove`] | deletes a record |
//! | [`Store::save`] | [`Store::put`], with a receipt of what went wrong |
//! | [`Store::hold`] | says for a lease that this process works on a record, for [`Store::is_held`] in others |
//!
//! `get`, `chain` and `update` count as a use, which postpones age and eviction; `find`, `present` and `list` do not. A
//! record keeps its place in the order of creation when it is replaced or updated. What belongs together is one record,
//! so that it is evicted together: a conversation with its items, found by their ids through `names`. Large content
//! that lists should not load, such as a file's, is a record of a kind of its own with the same id.
//!
//! The methods are async because records may be in another process. In memory they never yield. A [`Translator`] cannot
//! await: it hands what is to be stored to the driver of the stream ([`Translator::saving`]), which sends the last
//! events once it is stored.
//!
//! # Adding a kind
//!
//! Its variant in [`Kind`], its line in [`Kind::ALL`] and its arms in [`Kind::bounds`] and [`Kind::name`]. A body is
//! read by other versions of this program: add fields with a default, and rename none.
//!
//! [`Translator`]: crate::openai::response::sse::Translator
//! [`Translator::saving`]: crate::openai::response::sse::Translator::saving

mod memory;
pub(crate) mod redis;

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
pub(crate) use memory::Memory;
use redis::Redis;

use crate::{config::Config, error::Error, gate::Owner, offload, receipt::Receipt};

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// A response of `/v1/responses`.
    Response,
    /// A chat completion with `store: true`.
    Chat,
    /// A conversation of `/v1/conversations`, with its items.
    Conversation,
    /// A response that runs in the background, for other processes: as a record of a response. Only where the store is
    /// shared.
    Background,
    /// What describes a file of `/v1/files`.
    File,
    /// The content of a file, under the same id.
    FileContent,
    /// A batch of requests.
    Batch,
}

impl Kind {
    /// Every kind, in the order of the variants.
    pub(crate) const ALL: [Self; 7] =
        [Self::Response, Self::Chat, Self::Conversation, Self::Background, Self::File, Self::FileContent, Self::Batch];

    fn bounds(self, config: &Config) -> Bounds {
        match self {
            Self::Response | Self::Chat | Self::Conversation | Self::Background => {
                let responses = &config.responses;
                Bounds { count: responses.max_count, bytes: responses.max_bytes, ttl: responses.ttl }
            }
            // What describes a file, and a batch, has a bounded size, so that the number bounds it.
            Self::File | Self::Batch => Bounds { bytes: usize::MAX, ..Self::FileContent.bounds(config) },
            Self::FileContent => {
                let files = &config.files;
                Bounds { count: files.max_count, bytes: files.max_bytes, ttl: files.ttl }
            }
        }
    }
}

impl Kind {
    /// Its name in the keys of a shared store.
    fn name(self) -> &'static str {
        match self {
            Self::Response => "response",
            Self::Chat => "chat",
            Self::Conversation => "conversation",
            Self::Background => "background",
            Self::File => "file",
            Self::FileContent => "file-content",
            Self::Batch => "batch",
        }
    }
}

/// The server that proxies share, as long as the settings name the same one. Outlives a reload.
#[derive(Debug, Default)]
pub(crate) struct Shared(Mutex<Option<Arc<Redis>>>);

impl Shared {
    /// The server that `config` names, if it names one.
    ///
    /// # Errors
    /// Fails if its URL is invalid, or `store.ca_file` cannot be read.
    pub(crate) fn of(&self, config: &Config) -> io::Result<Option<Arc<Redis>>> {
        let mut shared = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if config.store.url.0.is_empty() {
            *shared = None;
        } else if !shared.as_ref().is_some_and(|redis| redis.fits(&config.store)) {
            *shared = Some(Arc::new(Redis::new(&config.store)?));
        }
        Ok(shared.clone())
    }

    /// The server in use.
    pub(crate) fn current(&self) -> Option<Arc<Redis>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// How much of a kind is stored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Maximum number of records. 0: none is stored.
    pub(crate) count: usize,
    /// Maximum size of all records together.
    pub(crate) bytes: usize,
    /// For how long after its last use a record is there. Zero: without limit.
    pub(crate) ttl: Duration,
}

/// What is stored.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Record {
    pub(crate) kind: Kind,
    pub(crate) owner: Owner,
    pub(crate) id: String,
    /// The id of the record of the same kind that this one goes on from.
    pub(crate) previous: Option<String>,
    /// Further names that it is found by, such as the ids of its items.
    pub(crate) names: Vec<String>,
    pub(crate) body: Bytes,
}

impl Record {
    /// Roughly how much memory one of its names takes, besides its text.
    pub(crate) const NAME: usize = 128;

    /// Roughly how much memory it takes.
    pub(crate) fn size(&self) -> usize {
        let names = self.names.iter().map(|name| name.len() + Self::NAME).sum::<usize>();
        self.body.len() + self.id.len() + Self::NAME + names
    }
}

/// Which page of a list is wanted.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    /// The id that the page begins after.
    pub(crate) after: Option<String>,
    pub(crate) limit: usize,
    /// The oldest first.
    pub(crate) ascending: bool,
}

/// A page of a list.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) records: Vec<Arc<Record>>,
    pub(crate) has_more: bool,
}

/// What became of an update.
#[derive(Debug, PartialEq)]
pub(crate) enum Updated {
    /// The owner has no such record.
    Missing,
    /// The new record alone exceeds the bounds; the old one is there still.
    TooBig,
    /// The record as it is now.
    Stored(Arc<Record>),
}

/// Where records are, and the bounds that the settings give them. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    backend: Backend,
    bounds: [Bounds; Kind::ALL.len()],
}

#[derive(Clone, Debug)]
enum Backend {
    Memory(Arc<Memory>),
    Redis(Arc<Redis>),
}

impl Store {
    /// The store that the settings describe: `redis` if there is one, or `memory`, which has what the settings before
    /// these stored.
    pub(crate) fn new(config: &Config, memory: Arc<Memory>, redis: Option<Arc<Redis>>) -> Self {
        let backend = redis.map_or(Backend::Memory(memory), Backend::Redis);
        Self { backend, bounds: Kind::ALL.map(|kind| kind.bounds(config)) }
    }

    fn bounds(&self, kind: Kind) -> &Bounds {
        &self.bounds[kind as usize]
    }

    /// For how long a process that works on a record holds it before it must say so again. None: no other process has
    /// the store.
    pub(crate) fn lease(&self) -> Option<Duration> {
        match &self.backend {
            Backend::Memory(_) => None,
            Backend::Redis(redis) => Some(redis.lease()),
        }
    }

    /// Works on a record of `kind` for another lease. Returns whether another process asks this one to end.
    ///
    /// # Errors
    /// Fails if the store cannot be reached.
    pub(crate) async fn hold(&self, kind: Kind, id: &str) -> Result<bool, Error> {
        match &self.backend {
            Backend::Memory(_) => Ok(false),
            Backend::Redis(redis) => Ok(Box::pin(redis.hold(kind, id)).await?),
        }
    }

    /// Whether a process works on a record.
    ///
    /// # Errors
    /// Fails if the store cannot be reached.
    pub(crate) async fn is_held(&self, kind: Kind, id: &str) -> Result<bool, Error> {
        match &self.backend {
            Backend::Memory(_) => Ok(false),
            Backend::Redis(redis) => Ok(Box::pin(redis.is_held(kind, id)).await?),
        }
    }

    /// Asks the process that works on a record to end. Returns whether there is one.
    ///
    /// # Errors
    /// Fails if the store cannot be reached.
    pub(crate) async fn ask_to_end(&self, kind: Kind, id: &str) -> Result<bool, Error> {
        match &self.backend {
            Backend::Memory(_) => Ok(false),
            Backend::Redis(redis) => Ok(Box::pin(redis.ask_to_end(kind, id)).await?),
        }
    }

    /// Ends the work on a record.
    ///
    /// # Errors
    /// Fails if the store cannot be reached.
    pub(crate) async fn release(&self, kind: Kind, id: &str) -> Result<(), Error> {
        match &self.backend {
            Backend::Memory(_) => Ok(()),
            Backend::Redis(redis) => Ok(Box::pin(redis.release(kind, id)).await?),
        }
    }

    /// Stores a record, in the place of one with the same id. False: it alone exceeds the bounds, and nothing has
    /// changed.
    ///
    /// # Errors
    /// Fails if the store cannot be reached.
    pub(crate) async fn put(&self, record: Record) -> Result<bool, Error> {
        let bounds = self.bounds(record.kind);
        match &self.backend {
            Backend::Memory(memory) => Ok(memory.put(record, bounds, Instant::now())),
            Backend::Redis(redis) => Ok(Box::pin(redis.put(&record, bounds)).await?),
        }
    }

    /// Stores a record. The receipt says why it could not be, and is empty if it was.
    pub(crate) async fn save(&self, record: Record) -> Receipt {
        let mut receipt = Receipt::default();
        // Off the event loop if it is large: each of its names takes an entry.
        let (size, store) = (record.size(), self.clone());
        match offload::run_future(size, async move { store.put(record).await }).await {
            Ok(true) => {}
            Ok(false) => receipt.note("store", "too-big"),
            Err(_) => receipt.note("store", "unreachable"),
        }
        receipt
    }

    /// The record of that id, if it is `owner`'s.
    ///
    /// # Errors
    /// Fails if the store cannot be reached.
    pub(crate) async fn get(&self, kind: Kind, owner: Owner, id: &str) -> Result<Option<Arc<Record>>, Error> {
        match &self.backend {
            Backend::Memory(memory) => Ok(memory.get(kind, owner, id, self.bounds(kind), Instant::now())),
            Backend::Redis(redis) => Ok(Box::pin(redis.get(kind, owner, id, self.bounds(kind))).await?),
        }
    }

    /// The record of that id and all that it goes on from, the oldest first; or the id of the first one that is
    /// missing.
    ///
    /// # Errors
    /// Fails if the store cannot be reached.
    pub(crate) async fn chain(
        &self,
        kind: Kind,
        owner: Owner,
        id: &str,
    ) -> Result<Result<Vec<Arc<Record>>, String>, Error> {
        match &self.backend {
            Backend::Memory(memory) => Ok(memory.chain(kind, owner, id, self.bounds(kind), Instant::now())),
            Backend::Redis(redis) => Ok(Box::pin(redis.chain(kind, owner, id, self.bounds(kind))).await?),
        }
    }

    /// For each of `names`, the newest record of `owner`'s that has it.
    ///
    /// # Errors
    /// Fails if the store cannot be reached.
    pub(crate) async fn find(
        &self,
        kind: Kind,
        owner: Owner,
        names: &[String],
    ) -> Result<Vec<Option<Arc<Record>>>, Error> {
        match &self.backend {
            Backend::Memory(memory) => Ok(memory.find(kind, owner, names)),
            Backend::Redis(redis) => Ok(Box::pin(redis.find(kind, owner, names, self.bounds(kind))).await?),
        }
    }

    /// For each of `ids`, whether `owner` has a record.
    ///
    /// # Errors
    /// Fails if the store cannot be reached.
    pub(crate) async fn present(&self, kind: Kind, owner: Owner, ids: &[String]) -> Result<Vec<bool>, Error> {
        match &self.backend {
            Backend::Memory(memory) => Ok(memory.present(kind, owner, ids, self.bounds(kind), Instant::now())),
            Backend::Redis(redis) => Ok(Box::pin(redis.present(kind, owner, ids, self.bounds(kind))).await?),
        }
    }

    /// A page of `owner`'s records, in order of creation. None: there is no record `page.after`.
    ///
    /// # Errors
    /// Fails if the store cannot be reached.
    pub(crate) async fn list(&self, kind: Kind, owner: Owner, page: &Page) -> Result<Option<Listed>, Error> {
        match &self.backend {
            Backend::Memory(memory) => Ok(memory.list(kind, owner, page, self.bounds(kind), Instant::now())),
            Backend::Redis(redis) => Ok(Box::pin(redis.list(kind, owner, page, self.bounds(kind))).await?),
        }
    }

    /// Changes a record. `change` makes the new one of what is stored; its kind, owner and id stay. It runs again if
    /// another change came between, so it has no effects of its own.
    ///
    /// # Errors
    /// Fails if `change` does, or if the store cannot be reached.
    pub(crate) async fn update(
        &self,
        kind: Kind,
        owner: Owner,
        id: &str,
        change: impl FnMut(&Record) -> Result<Record, Error>,
    ) -> Result<Updated, Error> {
        match &self.backend {
            Backend::Memory(memory) => memory.update(kind, owner, id, self.bounds(kind), Instant::now(), change),
            Backend::Redis(redis) => Box::pin(redis.update(kind, owner, id, self.bounds(kind), change)).await,
        }
    }

    /// Deletes a record; whether `owner` had it.
    ///
    /// # Errors
    /// Fails if the store cannot be reached.
    pub(crate) async fn remove(&self, kind: Kind, owner: Owner, id: &str) -> Result<bool, Error> {
        match &self.backend {
            Backend::Memory(memory) => Ok(memory.remove(kind, owner, id)),
            Backend::Redis(redis) => Ok(Box::pin(redis.remove(kind, owner, id, self.bounds(kind))).await?),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    /// The outcome of what must not yield.
    fn at_once<T>(future: impl Future<Output = Result<T, Error>>) -> T {
        future.now_or_never().expect("memory never yields").unwrap()
    }

    #[test]
    fn no_method_yields_in_memory() {
        let (store, owner, kind) =
            (Store::new(&Config::default(), Arc::default(), None), Owner::default(), Kind::Response);
        let record = |id: &str| Record {
            kind,
            owner,
            id: id.to_owned(),
            previous: None,
            names: vec!["name".to_owned()],
            body: Bytes::from_static(b"{}"),
        };
        assert!(at_once(store.put(record("a"))));
        assert_eq!(*at_once(store.get(kind, owner, "a")).unwrap(), record("a"));
        assert_eq!(at_once(store.chain(kind, owner, "a")).unwrap().len(), 1);
        assert!(at_once(store.find(kind, owner, &["name".to_owned()]))[0].is_some());
        assert_eq!(at_once(store.present(kind, owner, &["a".to_owned(), "b".to_owned()])), [true, false]);
        let page = Page { after: None, limit: 1, ascending: true };
        let listed = at_once(store.list(kind, owner, &page)).unwrap();
        assert!(listed.records.len() == 1 && !listed.has_more);
        let changed = Bytes::from_static(b"[]");
        let change = |old: &Record| Ok(Record { body: changed.clone(), ..old.clone() });
        let Updated::Stored(new) = at_once(store.update(kind, owner, "a", change)) else { panic!() };
        assert_eq!(new.body, changed);
        assert!(at_once(store.remove(kind, owner, "a")) && !at_once(store.remove(kind, owner, "a")));
    }

    #[test]
    fn every_kind_is_at_its_place() {
        assert!(Kind::ALL.into_iter().enumerate().all(|(at, kind)| kind as usize == at));
    }
}
