//! Records in memory, within bounds. No clock: the time is an argument.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use super::{Bounds, Kind, Listed, Page, Record, Updated};
use crate::{error::Error, gate::Owner};

/// All records of this process.
#[derive(Debug, Default)]
pub(crate) struct Memory([Mutex<Shelf>; Kind::ALL.len()]);

/// The records of one kind.
#[derive(Debug, Default)]
struct Shelf {
    owners: HashMap<Owner, Share>,
    /// By when they were last used.
    order: BTreeMap<u64, (Owner, Arc<str>)>,
    bytes: usize,
    next: u64,
}

/// What one owner has.
#[derive(Debug, Default)]
struct Share {
    records: HashMap<Arc<str>, Kept>,
    /// By when they were last used.
    order: BTreeMap<u64, Arc<str>>,
    /// By when they were created.
    created: BTreeMap<u64, Arc<str>>,
    /// The records that have a name, by when they were created.
    names: HashMap<String, BTreeMap<u64, Arc<str>>>,
    bytes: usize,
}

#[derive(Debug)]
struct Kept {
    record: Arc<Record>,
    /// When it was created, which never changes.
    created: u64,
    /// When it was last used.
    turn: u64,
    used: Instant,
    size: usize,
}

impl Memory {
    /// Stores a record and evicts what is too old or too much. False: the record alone is too much, which evicts
    /// nothing.
    pub(super) fn put(&self, record: Record, bounds: &Bounds, now: Instant) -> bool {
        let mut shelf = self.shelf(record.kind);
        let stored = shelf.put(record, bounds, now).is_some();
        if stored {
            shelf.tidy(bounds, now);
        }
        stored
    }

    pub(super) fn get(&self, kind: Kind, owner: Owner, id: &str, bounds: &Bounds, now: Instant) -> Option<Arc<Record>> {
        let mut shelf = self.shelf(kind);
        shelf.tidy(bounds, now);
        shelf.touch(owner, id, now)
    }

    pub(super) fn chain(
        &self,
        kind: Kind,
        owner: Owner,
        id: &str,
        bounds: &Bounds,
        now: Instant,
    ) -> Result<Vec<Arc<Record>>, String> {
        let mut shelf = self.shelf(kind);
        shelf.tidy(bounds, now);
        let mut chain = Vec::new();
        let mut wanted = Some(id.to_owned());
        while let Some(id) = wanted {
            let Some(record) = shelf.touch(owner, &id, now) else { return Err(id) };
            wanted = record.previous.clone();
            chain.push(record);
        }
        chain.reverse();
        Ok(chain)
    }

    pub(super) fn find(&self, kind: Kind, owner: Owner, names: &[String]) -> Vec<Option<Arc<Record>>> {
        let shelf = self.shelf(kind);
        let share = shelf.owners.get(&owner);
        let newest = |name: &String| {
            let share = share?;
            let (_, id) = share.names.get(name)?.last_key_value()?;
            Some(share.records.get(id)?.record.clone())
        };
        names.iter().map(newest).collect()
    }

    pub(super) fn present(&self, kind: Kind, owner: Owner, ids: &[String], bounds: &Bounds, now: Instant) -> Vec<bool> {
        let mut shelf = self.shelf(kind);
        shelf.tidy(bounds, now);
        let share = shelf.owners.get(&owner);
        ids.iter().map(|id| share.is_some_and(|share| share.records.contains_key(&**id))).collect()
    }

    pub(super) fn list(&self, kind: Kind, owner: Owner, page: &Page, bounds: &Bounds, now: Instant) -> Option<Listed> {
        let mut shelf = self.shelf(kind);
        shelf.tidy(bounds, now);
        let Some(share) = shelf.owners.get(&owner) else {
            return page.after.is_none().then(|| Listed { records: Vec::new(), has_more: false });
        };
        let after = match &page.after {
            Some(after) => Some(share.records.get(&**after)?.created),
            None => None,
        };
        let ids: Box<dyn Iterator<Item = &Arc<str>>> = match (after, page.ascending) {
            (None, true) => Box::new(share.created.values()),
            (None, false) => Box::new(share.created.values().rev()),
            (Some(after), true) => Box::new(share.created.range(after + 1..).map(|(_, id)| id)),
            (Some(after), false) => Box::new(share.created.range(..after).rev().map(|(_, id)| id)),
        };
        let mut records: Vec<_> = ids
            .take(page.limit.saturating_add(1))
            .filter_map(|id| Some(share.records.get(id)?.record.clone()))
            .collect();
        let has_more = records.len() > page.limit;
        records.truncate(page.limit);
        Some(Listed { records, has_more })
    }

    pub(super) fn update(
        &self,
        kind: Kind,
        owner: Owner,
        id: &str,
        bounds: &Bounds,
        now: Instant,
        mut change: impl FnMut(&Record) -> Result<Record, Error>,
    ) -> Result<Updated, Error> {
        loop {
            let touched = {
                let mut shelf = self.shelf(kind);
                shelf.tidy(bounds, now);
                shelf.touch(owner, id, now)
            };
            let Some(old) = touched else { return Ok(Updated::Missing) };
            // Without the lock, which the event loop needs too: a large record takes long to change.
            let new = Record { kind, owner, id: id.to_owned(), ..change(&old)? };
            let mut shelf = self.shelf(kind);
            match shelf.peek(owner, id) {
                None => return Ok(Updated::Missing),
                Some(now) if !Arc::ptr_eq(now, &old) => continue,
                Some(_) => {}
            }
            let Some(stored) = shelf.put(new, bounds, now) else { return Ok(Updated::TooBig) };
            shelf.tidy(bounds, now);
            return Ok(Updated::Stored(stored));
        }
    }

    pub(super) fn remove(&self, kind: Kind, owner: Owner, id: &str) -> bool {
        self.shelf(kind).forget(owner, id).is_some()
    }

    fn shelf(&self, kind: Kind) -> MutexGuard<'_, Shelf> {
        // A panic elsewhere does not make what is stored untrue.
        self.0[kind as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shelf {
    /// Stores a record, unless it alone is too much.
    fn put(&mut self, record: Record, bounds: &Bounds, now: Instant) -> Option<Arc<Record>> {
        let size = record.size();
        if size > bounds.bytes || bounds.count == 0 {
            return None;
        }
        let before = self.forget(record.owner, &record.id);
        let turn = self.next;
        self.next += 1;
        let created = before.unwrap_or(turn);
        let (owner, id) = (record.owner, Arc::<str>::from(&*record.id));
        self.bytes += size;
        self.order.insert(turn, (owner, id.clone()));
        let share = self.owners.entry(owner).or_default();
        share.bytes += size;
        share.order.insert(turn, id.clone());
        share.created.insert(created, id.clone());
        for name in &record.names {
            share.names.entry(name.clone()).or_default().insert(created, id.clone());
        }
        let record = Arc::new(record);
        share.records.insert(id, Kept { record: record.clone(), created, turn, used: now, size });
        Some(record)
    }

    fn peek(&self, owner: Owner, id: &str) -> Option<&Arc<Record>> {
        Some(&self.owners.get(&owner)?.records.get(id)?.record)
    }

    fn touch(&mut self, owner: Owner, id: &str, now: Instant) -> Option<Arc<Record>> {
        let share = self.owners.get_mut(&owner)?;
        let kept = share.records.get_mut(id)?;
        let turn = self.next;
        self.next += 1;
        if let Some(place) = self.order.remove(&kept.turn) {
            self.order.insert(turn, place);
        }
        if let Some(id) = share.order.remove(&kept.turn) {
            share.order.insert(turn, id);
        }
        (kept.turn, kept.used) = (turn, now);
        Some(kept.record.clone())
    }

    /// Evicts what is too old, and what is too much; the bounds may be others than last time.
    fn tidy(&mut self, bounds: &Bounds, now: Instant) {
        while let Some((_, (owner, id))) = self.order.first_key_value() {
            let used = self.owners.get(owner).and_then(|share| share.records.get(id)).map(|kept| kept.used);
            let over =
                used.is_none_or(|used| !bounds.ttl.is_zero() && now.saturating_duration_since(used) >= bounds.ttl);
            if !over {
                break;
            }
            if let Some((_, (owner, id))) = self.order.pop_first() {
                self.forget(owner, &id);
            }
        }
        while self.order.len() > bounds.count {
            self.evict_from_largest(|share| share.order.len());
        }
        while self.bytes > bounds.bytes {
            self.evict_from_largest(|share| share.bytes);
        }
    }

    /// Evicts the least recently used record of the owner who has the most, so that no owner's records evict another's.
    fn evict_from_largest(&mut self, size: impl Fn(&Share) -> usize) {
        let oldest = |share: &Share| share.order.first_key_value().map(|(turn, _)| Reverse(*turn));
        let largest = self.owners.iter().max_by_key(|(_, share)| (size(share), oldest(share)));
        let found = largest.and_then(|(owner, share)| Some((*owner, share.order.first_key_value()?.1.clone())));
        if let Some((owner, id)) = found {
            self.forget(owner, &id);
        }
    }

    /// Deletes a record; returns when it was created.
    fn forget(&mut self, owner: Owner, id: &str) -> Option<u64> {
        let Entry::Occupied(mut entry) = self.owners.entry(owner) else { return None };
        let share = entry.get_mut();
        let kept = share.records.remove(id)?;
        self.bytes -= kept.size;
        self.order.remove(&kept.turn);
        share.bytes -= kept.size;
        share.order.remove(&kept.turn);
        share.created.remove(&kept.created);
        for name in &kept.record.names {
            if let Some(places) = share.names.get_mut(name) {
                places.remove(&kept.created);
                if places.is_empty() {
                    share.names.remove(name);
                }
            }
        }
        if share.records.is_empty() {
            entry.remove();
        }
        Some(kept.created)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;

    const KIND: Kind = Kind::Response;

    const BOUNDS: Bounds = Bounds { count: 1000, bytes: 64 << 20, ttl: Duration::from_secs(24 * 60 * 60) };

    fn record(id: &str, previous: Option<&str>, size: usize) -> Record {
        Record {
            kind: KIND,
            owner: Owner::default(),
            id: id.to_owned(),
            previous: previous.map(ToOwned::to_owned),
            names: vec![format!("item_{id}")],
            body: Bytes::from(vec![b'x'; size]),
        }
    }

    #[test]
    fn a_thousand_large_records_are_within_the_bounds_and_found_at_once() {
        let (memory, now, owner) = (Memory::default(), Instant::now(), Owner::default());
        let bounds = Bounds { bytes: 100 << 20, ..BOUNDS };
        for n in 0..1000 {
            let previous = (n % 10 > 0).then(|| format!("r{}", n - 1));
            assert!(memory.put(record(&format!("r{n}"), previous.as_deref(), 100_000), &bounds, now));
        }
        let shelf = memory.shelf(KIND);
        assert!(shelf.order.len() == 1000 && shelf.bytes <= bounds.bytes, "{}", shelf.bytes);
        drop(shelf);
        let begun = Instant::now();
        for n in 0..1000 {
            assert!(memory.get(KIND, owner, &format!("r{n}"), &bounds, now).is_some());
            assert!(memory.get(KIND, owner, &format!("x{n}"), &bounds, now).is_none());
            assert!(memory.find(KIND, owner, &[format!("item_r{n}")])[0].is_some());
            assert_eq!(memory.chain(KIND, owner, &format!("r{n}"), &bounds, now).unwrap().len(), n % 10 + 1);
        }
        // 0.1 ms each.
        assert!(begun.elapsed() < Duration::from_millis(400), "{:?}", begun.elapsed());
    }

    fn owned(owner: Owner, id: &str, size: usize) -> Record {
        Record { owner, ..record(id, None, size) }
    }

    fn ids(records: &[Arc<Record>]) -> Vec<&str> {
        records.iter().map(|record| &*record.id).collect()
    }

    fn has_name(store: &Memory, owner: Owner, name: &str) -> bool {
        store.find(KIND, owner, &[name.to_owned()])[0].is_some()
    }

    #[test]
    fn a_chain_starts_at_its_beginning_and_breaks_where_one_is_missing() {
        let (store, now) = (Memory::default(), Instant::now());
        for (id, previous) in [("a", None), ("b", Some("a")), ("c", Some("b"))] {
            store.put(record(id, previous, 1), &BOUNDS, now);
        }
        let owner = Owner::default();
        assert_eq!(ids(&store.chain(KIND, owner, "c", &BOUNDS, now).unwrap()), ["a", "b", "c"]);
        assert!(has_name(&store, owner, "item_b"));
        assert!(store.remove(KIND, owner, "b") && !store.remove(KIND, owner, "b"));
        assert_eq!(store.chain(KIND, owner, "c", &BOUNDS, now).unwrap_err(), "b");
        assert!(!has_name(&store, owner, "item_b"));
    }

    #[test]
    fn the_least_recently_used_record_makes_room() {
        let bounds = Bounds { count: 2, ..BOUNDS };
        let (store, now, owner) = (Memory::default(), Instant::now(), Owner::default());
        store.put(record("a", None, 1), &bounds, now);
        store.put(record("b", None, 1), &bounds, now);
        assert!(store.get(KIND, owner, "a", &bounds, now).is_some());
        store.put(record("c", None, 1), &bounds, now);
        let there = ["a", "b", "c"].map(|id| store.get(KIND, owner, id, &bounds, now).is_some());
        assert_eq!(there, [true, false, true]);
    }

    #[test]
    fn no_more_bytes_are_stored_than_allowed() {
        let bounds = Bounds { bytes: 100_000, ..BOUNDS };
        let (store, now) = (Memory::default(), Instant::now());
        for n in 0..100 {
            assert!(store.put(record(&n.to_string(), None, n * 300), &bounds, now));
            assert!(store.shelf(KIND).bytes <= 100_000);
        }
        let before = store.shelf(KIND).order.len();
        assert!(!store.put(record("huge", None, 200_000), &bounds, now), "a record that is too big is not stored");
        assert_eq!(store.shelf(KIND).order.len(), before, "and evicts nothing");
        let none = Bounds { count: 0, ..bounds };
        assert!(store.get(KIND, Owner::default(), "99", &none, now).is_none());
        let shelf = store.shelf(KIND);
        assert_eq!((shelf.owners.len(), shelf.order.len(), shelf.bytes), (0, 0, 0));
    }

    #[test]
    fn a_record_that_is_not_used_for_too_long_is_gone() {
        let bounds = Bounds { ttl: Duration::from_secs(10), ..BOUNDS };
        let (store, start, owner) = (Memory::default(), Instant::now(), Owner::default());
        let at = |seconds| start + Duration::from_secs(seconds);
        store.put(record("a", None, 1), &bounds, at(0));
        assert!(store.get(KIND, owner, "a", &bounds, at(9)).is_some());
        assert!(store.get(KIND, owner, "a", &bounds, at(18)).is_some(), "each use counts anew");
        assert!(store.get(KIND, owner, "a", &bounds, at(28)).is_none());
        assert_eq!(store.shelf(KIND).bytes, 0);
    }

    #[test]
    fn one_owner_never_evicts_the_records_of_another() {
        let (ann, bob, start) = (Owner::of_key(b"ann"), Owner::of_key(b"bob"), Instant::now());
        for bounds in [Bounds { count: 5, ..BOUNDS }, Bounds { bytes: 5 * record("b100", None, 2000).size(), ..BOUNDS }]
        {
            let store = Memory::default();
            for id in ["a1", "a2"] {
                store.put(owned(ann, id, 2000), &bounds, start);
            }
            for n in 0..1000 {
                assert!(store.put(owned(bob, &format!("b{n}"), 2000), &bounds, start));
            }
            let there = |owner, id| store.get(KIND, owner, id, &bounds, start).is_some();
            assert!(there(ann, "a1") && there(ann, "a2") && there(bob, "b999") && !there(bob, "b990"));
            assert!(store.shelf(KIND).order.len() >= 4);
            assert!(store.remove(KIND, ann, "a1") && store.remove(KIND, ann, "a2"));
            assert_eq!(store.shelf(KIND).owners.len(), 1);
        }
    }

    #[test]
    fn another_key_finds_nothing() {
        let (store, now) = (Memory::default(), Instant::now());
        let ann = Owner::of_key(b"ann");
        store.put(owned(ann, "a", 1), &BOUNDS, now);
        let page = Page { after: None, limit: 9, ascending: true };
        for other in [Owner::default(), Owner::of_key(b"bob")] {
            assert!(store.get(KIND, other, "a", &BOUNDS, now).is_none());
            assert!(store.chain(KIND, other, "a", &BOUNDS, now).is_err());
            assert!(!has_name(&store, other, "item_a") && !store.remove(KIND, other, "a"));
            assert!(store.list(KIND, other, &page, &BOUNDS, now).unwrap().records.is_empty());
            let after = Page { after: Some("a".to_owned()), ..page.clone() };
            assert!(store.list(KIND, other, &after, &BOUNDS, now).is_none());
            let updated = store.update(KIND, other, "a", &BOUNDS, now, |record| Ok(record.clone()));
            assert_eq!(updated.unwrap(), Updated::Missing);
            // An id that another owner has is free.
            store.put(owned(other, "a", 2), &BOUNDS, now);
            assert!(store.remove(KIND, other, "a"));
        }
        assert_eq!(store.get(KIND, ann, "a", &BOUNDS, now).unwrap().body.len(), 1);
    }

    #[test]
    fn a_list_has_the_order_of_creation_page_by_page() {
        let (store, now, owner) = (Memory::default(), Instant::now(), Owner::default());
        for id in ["a", "b", "c", "d", "e"] {
            store.put(record(id, None, 1), &BOUNDS, now);
        }
        // Neither a use nor a change moves a record.
        store.get(KIND, owner, "b", &BOUNDS, now);
        store.put(record("a", None, 9), &BOUNDS, now);
        store.remove(KIND, owner, "d");
        let list = |after: Option<&str>, limit, ascending| {
            let page = Page { after: after.map(ToOwned::to_owned), limit, ascending };
            store.list(KIND, owner, &page, &BOUNDS, now).map(|listed| {
                (listed.records.iter().map(|record| record.id.clone()).collect::<String>(), listed.has_more)
            })
        };
        assert_eq!(list(None, 2, true).unwrap(), ("ab".to_owned(), true));
        assert_eq!(list(Some("b"), 2, true).unwrap(), ("ce".to_owned(), false));
        assert_eq!(list(None, 3, false).unwrap(), ("ecb".to_owned(), true));
        assert_eq!(list(Some("b"), 3, false).unwrap(), ("a".to_owned(), false));
        assert_eq!(list(Some("e"), 3, true).unwrap(), (String::new(), false));
        assert!(list(Some("d"), 3, true).is_none());
    }

    #[test]
    fn an_update_changes_body_and_names_or_nothing() {
        let bounds = Bounds { bytes: 10_000, ..BOUNDS };
        let (store, now, owner) = (Memory::default(), Instant::now(), Owner::default());
        store.put(record("a", None, 1), &bounds, now);
        store.put(Record { names: vec!["item_a".to_owned()], ..record("b", None, 1) }, &bounds, now);
        let sized = |size: usize| {
            move |old: &Record| {
                let body = Bytes::from(vec![b'y'; size]);
                Ok(Record { id: "other".to_owned(), body, names: vec!["new".to_owned()], ..old.clone() })
            }
        };
        let Updated::Stored(new) = store.update(KIND, owner, "a", &bounds, now, sized(9)).unwrap() else { panic!() };
        assert_eq!((&*new.id, new.body.len()), ("a", 9));
        assert_eq!(
            store
                .find(KIND, owner, &["item_a".to_owned(), "new".to_owned(), "x".to_owned()])
                .iter()
                .map(|found| found.as_ref().map(|record| record.id.clone()))
                .collect::<Vec<_>>(),
            [Some("b".to_owned()), Some("a".to_owned()), None]
        );
        assert_eq!(store.update(KIND, owner, "a", &bounds, now, sized(20_000)).unwrap(), Updated::TooBig);
        let failing = |_: &Record| Err(Error::panicked());
        assert!(store.update(KIND, owner, "a", &bounds, now, failing).is_err());
        assert_eq!(store.get(KIND, owner, "a", &bounds, now).unwrap().body.len(), 9);
    }
}
