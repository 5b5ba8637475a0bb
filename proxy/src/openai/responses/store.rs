//! Stored responses, in memory and within bounds. Beyond them the least recently used response of the owner who has the most is evicted. No
//! clock: the time is an argument.
//!
//! A response belongs to the key that made it; for all others it does not exist.

use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use serde_json::value::{RawValue, to_raw_value};

use super::items;
use crate::{config::Responses, error::Error, gate::Owner, openai::responses::stream::Answer};

/// One response.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) owner: Owner,
    pub(crate) answer: Answer,
    /// What was asked, without what went before.
    pub(crate) input: Vec<StoredItem>,
    /// What was answered.
    output: Vec<StoredItem>,
    /// About how many it takes.
    bytes: usize,
}

/// One item.
#[derive(Clone, Debug)]
pub(crate) struct StoredItem {
    pub(crate) id: String,
    pub(crate) json: Box<RawValue>,
}

impl Stored {
    /// # Errors
    /// None that a response can cause.
    pub(crate) fn new(owner: Owner, answer: Answer, input: Vec<StoredItem>) -> Result<Self, Error> {
        const EACH: usize = 128;
        let output = items::answered(answer.output())?;
        let object =
            to_raw_value(&answer.response()).map_err(|error| Error::Internal { message: error.to_string() })?;
        let items = input.iter().chain(&output).map(|item| item.id.len() + item.json.get().len() + EACH);
        let bytes = object.get().len() + items.sum::<usize>() + EACH;
        Ok(Self { owner, answer, input, output, bytes })
    }

    fn id(&self) -> &str {
        self.answer.id()
    }

    /// What was asked and answered, in order.
    pub(crate) fn items(&self) -> impl Iterator<Item = &StoredItem> {
        self.input.iter().chain(&self.output)
    }
}

/// All that is kept.
#[derive(Debug, Default)]
pub(crate) struct Store(Mutex<Shelf>);

#[derive(Debug, Default)]
struct Shelf {
    kept: HashMap<String, Kept>,
    /// By when they were last used.
    order: BTreeMap<u64, String>,
    /// What each owner has.
    shares: HashMap<Owner, Share>,
    /// Where the items are.
    items: HashMap<(Owner, String), Places>,
    bytes: usize,
    next: u64,
}

/// What one owner has.
#[derive(Debug, Default)]
struct Share {
    /// By when they were last used.
    order: BTreeMap<u64, String>,
    bytes: usize,
}

/// The responses that have an item, by the order in which they came, and its place in each.
type Places = BTreeMap<u64, (Arc<Stored>, usize)>;

#[derive(Debug)]
struct Kept {
    stored: Arc<Stored>,
    /// When it came, which never changes.
    came: u64,
    /// When it was last used.
    turn: u64,
    used: Instant,
}

impl Store {
    /// Keeps a response, and lets go of what is too old or too much; whether it is kept. One that alone is too much makes no other go.
    pub(crate) fn put(&self, stored: Stored, bounds: &Responses, now: Instant) -> bool {
        if stored.bytes > bounds.max_bytes || bounds.max_count == 0 {
            return false;
        }
        let mut shelf = self.shelf();
        shelf.forget(stored.id());
        shelf.bytes += stored.bytes;
        shelf.shares.entry(stored.owner).or_default().bytes += stored.bytes;
        let (turn, id, stored) = (shelf.turn(stored.owner, stored.id()), stored.id().to_owned(), Arc::new(stored));
        for (nth, item) in stored.items().enumerate() {
            let places = shelf.items.entry((stored.owner, item.id.clone())).or_default();
            places.entry(turn).or_insert_with(|| (stored.clone(), nth));
        }
        shelf.kept.insert(id, Kept { stored, came: turn, turn, used: now });
        shelf.tidy(bounds, now);
        true
    }

    /// The response of that id, if it is `owner`'s.
    pub(crate) fn get(&self, owner: Owner, id: &str, bounds: &Responses, now: Instant) -> Option<Arc<Stored>> {
        let mut shelf = self.shelf();
        shelf.tidy(bounds, now);
        shelf.touch(owner, id, now)
    }

    /// The response of that id and all that it goes on from, the first one first.
    ///
    /// # Errors
    /// The id of the one that is not there.
    pub(crate) fn chain(
        &self,
        owner: Owner,
        id: &str,
        bounds: &Responses,
        now: Instant,
    ) -> Result<Vec<Arc<Stored>>, String> {
        let mut shelf = self.shelf();
        shelf.tidy(bounds, now);
        let mut chain = Vec::new();
        let mut wanted = Some(id.to_owned());
        while let Some(id) = wanted {
            let stored = shelf.touch(owner, &id, now).ok_or(id)?;
            wanted = stored.answer.facts().echo.previous_response_id.clone();
            chain.push(stored);
        }
        chain.reverse();
        Ok(chain)
    }

    /// The item of that id, in any response of `owner`'s.
    pub(crate) fn item(&self, owner: Owner, id: &str) -> Option<StoredItem> {
        let shelf = self.shelf();
        let (_, (stored, nth)) = shelf.items.get(&(owner, id.to_owned()))?.last_key_value()?;
        stored.items().nth(*nth).cloned()
    }

    /// Lets go of a response; whether `owner` had it.
    pub(crate) fn remove(&self, owner: Owner, id: &str) -> bool {
        let mut shelf = self.shelf();
        let owned = shelf.kept.get(id).is_some_and(|kept| kept.stored.owner == owner);
        if owned {
            shelf.forget(id);
        }
        owned
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        // A panic elsewhere does not make what is kept untrue.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shelf {
    /// The place of what is used now.
    fn turn(&mut self, owner: Owner, id: &str) -> u64 {
        let turn = self.next;
        self.next += 1;
        self.order.insert(turn, id.to_owned());
        self.shares.entry(owner).or_default().order.insert(turn, id.to_owned());
        turn
    }

    fn touch(&mut self, owner: Owner, id: &str, now: Instant) -> Option<Arc<Stored>> {
        let kept = self.kept.get(id).filter(|kept| kept.stored.owner == owner)?;
        let before = kept.turn;
        self.order.remove(&before);
        if let Some(share) = self.shares.get_mut(&owner) {
            share.order.remove(&before);
        }
        let turn = self.turn(owner, id);
        let kept = self.kept.get_mut(id)?;
        (kept.turn, kept.used) = (turn, now);
        Some(kept.stored.clone())
    }

    /// Lets go of what is too old, and of what is too much; the bounds may be others than last time.
    fn tidy(&mut self, bounds: &Responses, now: Instant) {
        let over = |kept: &Kept| !bounds.ttl.is_zero() && now.saturating_duration_since(kept.used) >= bounds.ttl;
        while self.order.first_key_value().and_then(|(_, id)| self.kept.get(id)).is_some_and(over) {
            if let Some((_, id)) = self.order.pop_first() {
                self.forget(&id);
            }
        }
        while self.kept.len() > bounds.max_count {
            self.evict_from_largest(|share| share.order.len());
        }
        while self.bytes > bounds.max_bytes {
            self.evict_from_largest(|share| share.bytes);
        }
    }

    /// Evicts the least recently used response of the owner who has the most, so that nobody's responses push out another's.
    fn evict_from_largest(&mut self, size: impl Fn(&Share) -> usize) {
        let oldest = |share: &Share| share.order.first_key_value().map(|(turn, _)| std::cmp::Reverse(*turn));
        let largest = self.shares.values().max_by_key(|share| (size(share), oldest(share)));
        if let Some(id) = largest.and_then(|share| share.order.first_key_value()).map(|(_, id)| id.clone()) {
            self.forget(&id);
        }
    }

    fn forget(&mut self, id: &str) {
        if let Some(kept) = self.kept.remove(id) {
            self.bytes -= kept.stored.bytes;
            self.order.remove(&kept.turn);
            if let Entry::Occupied(mut share) = self.shares.entry(kept.stored.owner) {
                share.get_mut().bytes -= kept.stored.bytes;
                share.get_mut().order.remove(&kept.turn);
                if share.get().order.is_empty() {
                    share.remove();
                }
            }
            for item in kept.stored.items() {
                if let Entry::Occupied(mut places) = self.items.entry((kept.stored.owner, item.id.clone())) {
                    places.get_mut().remove(&kept.came);
                    if places.get().is_empty() {
                        places.remove();
                    }
                }
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::{openai::responses::request::tests::facts, stamp::Stamp, vectors::stamp};

    /// A response with `n` items.
    pub(crate) fn response_of(n: usize) -> Stored {
        let answer = Answer::new(stamp("resp_"), facts(&json!({"model": "m"})));
        let json = || RawValue::from_string("{}".to_owned()).unwrap();
        let items = (0..n).map(|n| StoredItem { id: format!("item_{n}"), json: json() }).collect();
        Stored::new(Owner::default(), answer, items).unwrap()
    }

    fn response(id: &str, previous: Option<&str>, size: usize) -> Stored {
        let body = json!({"model": "m", "instructions": "x".repeat(size), "previous_response_id": previous});
        let answer = Answer::new(Stamp { id: id.to_owned(), ..stamp("") }, facts(&body));
        let item = StoredItem { id: format!("item_{id}"), json: RawValue::from_string("{}".to_owned()).unwrap() };
        Stored::new(Owner::default(), answer, vec![item]).unwrap()
    }

    fn ids(chain: &[Arc<Stored>]) -> Vec<&str> {
        chain.iter().map(|stored| stored.id()).collect()
    }

    #[test]
    fn a_chain_is_told_from_its_beginning_and_breaks_where_one_is_gone() {
        let (store, bounds, now) = (Store::default(), Responses::default(), Instant::now());
        for (id, previous) in [("a", None), ("b", Some("a")), ("c", Some("b"))] {
            store.put(response(id, previous, 1), &bounds, now);
        }
        let nobody = Owner::default();
        assert_eq!(ids(&store.chain(nobody, "c", &bounds, now).unwrap()), ["a", "b", "c"]);
        assert!(store.item(nobody, "item_b").is_some());
        assert!(store.remove(nobody, "b") && !store.remove(nobody, "b"));
        assert_eq!(store.chain(nobody, "c", &bounds, now).unwrap_err(), "b");
        assert!(store.item(nobody, "item_b").is_none());
    }

    #[test]
    fn the_one_that_was_not_used_for_the_longest_makes_room() {
        let bounds = Responses { max_count: 2, ..Responses::default() };
        let (store, now, nobody) = (Store::default(), Instant::now(), Owner::default());
        store.put(response("a", None, 1), &bounds, now);
        store.put(response("b", None, 1), &bounds, now);
        assert!(store.get(nobody, "a", &bounds, now).is_some());
        store.put(response("c", None, 1), &bounds, now);
        let there = ["a", "b", "c"].map(|id| store.get(nobody, id, &bounds, now).is_some());
        assert_eq!(there, [true, false, true]);
    }

    #[test]
    fn no_more_bytes_are_kept_than_allowed() {
        let bounds = Responses { max_bytes: 100_000, ..Responses::default() };
        let (store, now) = (Store::default(), Instant::now());
        for n in 0..100 {
            assert!(store.put(response(&n.to_string(), None, n * 300), &bounds, now));
            assert!(store.shelf().bytes <= 100_000);
        }
        let before = store.shelf().kept.len();
        assert!(!store.put(response("huge", None, 200_000), &bounds, now), "what is too big is not kept");
        assert_eq!(store.shelf().kept.len(), before, "and makes no other go");
        let none = Responses { max_count: 0, ..bounds };
        assert!(store.get(Owner::default(), "99", &none, now).is_none());
        let shelf = store.shelf();
        assert_eq!((shelf.kept.len(), shelf.order.len(), shelf.items.len(), shelf.bytes), (0, 0, 0, 0));
    }

    #[test]
    fn what_is_not_used_for_too_long_is_gone() {
        let bounds = Responses { ttl: Duration::from_secs(10), ..Responses::default() };
        let (store, start, nobody) = (Store::default(), Instant::now(), Owner::default());
        let at = |seconds| start + Duration::from_secs(seconds);
        store.put(response("a", None, 1), &bounds, at(0));
        assert!(store.get(nobody, "a", &bounds, at(9)).is_some());
        assert!(store.get(nobody, "a", &bounds, at(18)).is_some(), "each use counts anew");
        assert!(store.get(nobody, "a", &bounds, at(28)).is_none());
        assert_eq!(store.shelf().bytes, 0);
    }

    #[test]
    fn one_owner_never_pushes_out_another() {
        let (ann, bob) = (Owner::of_key(b"ann"), Owner::of_key(b"bob"));
        let (start, owned) = (Instant::now(), |owner, id: &str, size| Stored { owner, ..response(id, None, size) });
        for bounds in [
            Responses { max_count: 5, ..Responses::default() },
            Responses { max_bytes: 5 * response("a", None, 2000).bytes, ..Responses::default() },
        ] {
            let store = Store::default();
            for id in ["a1", "a2"] {
                store.put(owned(ann, id, 2000), &bounds, start);
            }
            for n in 0..1000 {
                assert!(store.put(owned(bob, &format!("b{n}"), 2000), &bounds, start));
            }
            let there = |owner, id| store.get(owner, id, &bounds, start).is_some();
            assert!(there(ann, "a1") && there(ann, "a2") && there(bob, "b999") && !there(bob, "b990"));
            assert!(store.shelf().kept.len() >= 4);
            assert!(store.remove(ann, "a1") && store.remove(ann, "a2"));
            assert_eq!(store.shelf().shares.len(), 1);
        }
    }

    #[test]
    fn another_key_finds_nothing() {
        let (store, bounds, now) = (Store::default(), Responses::default(), Instant::now());
        let ann = Owner::of_key(b"ann");
        store.put(Stored { owner: ann, ..response("a", None, 1) }, &bounds, now);
        for other in [Owner::default(), Owner::of_key(b"bob")] {
            assert!(store.get(other, "a", &bounds, now).is_none());
            assert!(store.chain(other, "a", &bounds, now).is_err());
            assert!(store.item(other, "item_a").is_none() && !store.remove(other, "a"));
        }
        assert!(store.get(ann, "a", &bounds, now).is_some());
    }
}
