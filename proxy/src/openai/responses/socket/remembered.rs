//! The responses that a WebSocket remembers because they are not stored. They are few, so a list is enough, and an idle
//! connection stays small.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{config::Responses, store::Record};

/// The records of one connection, the least recently used first.
#[derive(Debug, Default)]
pub(in crate::openai::responses) struct Remembered(Mutex<VecDeque<Arc<Record>>>);

impl Remembered {
    fn records(&self) -> MutexGuard<'_, VecDeque<Arc<Record>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a record, and evicts the least recently used ones beyond the bounds. False: the record alone exceeds them.
    pub(in crate::openai::responses) fn put(&self, record: Record, bounds: &Responses) -> bool {
        if record.size() > bounds.max_bytes || bounds.max_count == 0 {
            return false;
        }
        let mut records = self.records();
        records.retain(|known| known.id != record.id);
        records.push_back(Arc::new(record));
        let mut bytes: usize = records.iter().map(|record| record.size()).sum();
        while records.len() > bounds.max_count || bytes > bounds.max_bytes {
            let Some(oldest) = records.pop_front() else { break };
            bytes -= oldest.size();
        }
        true
    }

    /// The record of that id, which is used with this.
    pub(in crate::openai::responses) fn get(&self, id: &str) -> Option<Arc<Record>> {
        let mut records = self.records();
        let at = records.iter().position(|record| record.id == id)?;
        let record = records.remove(at)?;
        records.push_back(record.clone());
        Some(record)
    }

    /// For each of `names`, a record that has it.
    pub(in crate::openai::responses) fn find(&self, names: &[String]) -> Vec<Option<Arc<Record>>> {
        let records = self.records();
        let with = |name: &String| records.iter().rev().find(|record| record.names.contains(name)).cloned();
        names.iter().map(with).collect()
    }

    /// Forgets a record.
    pub(in crate::openai::responses) fn remove(&self, id: &str) {
        self.records().retain(|record| record.id != id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::openai::responses::stored::tests::response_of;

    #[test]
    fn the_least_recently_used_record_makes_room() {
        let remembered = Remembered::default();
        let record = |id: &str| Record { id: id.to_owned(), names: vec![format!("item_{id}")], ..response_of(0) };
        let bounds = Responses { max_count: 2, ..Responses::default() };
        assert!(remembered.put(record("a"), &bounds) && remembered.put(record("b"), &bounds));
        assert!(remembered.get("a").is_some());
        assert!(remembered.put(record("c"), &bounds) && remembered.get("b").is_none());
        let found = remembered.find(&["item_a".to_owned(), "item_b".to_owned()]);
        assert_eq!(found.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false]);
        assert!(remembered.put(record("a"), &bounds), "in the place of the one that is there");
        assert!(remembered.get("c").is_some());
        remembered.remove("a");
        assert!(remembered.get("a").is_none());
        let size = record("d").size();
        assert!(!remembered.put(record("d"), &Responses { max_bytes: size - 1, ..Responses::default() }));
        assert!(remembered.put(record("d"), &Responses { max_bytes: size, ..Responses::default() }));
        assert!(remembered.get("c").is_none(), "evicted for its bytes");
    }
}
