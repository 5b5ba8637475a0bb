//! How many requests each key has in flight, from its first byte to the end of the response: so that one key cannot
//! take all connections with bodies that it never finishes.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use crate::config::Digest;

/// The counts of all keys.
#[derive(Debug, Default)]
pub(crate) struct OpenRequests(Mutex<HashMap<Digest, usize>>);

impl OpenRequests {
    fn with<T>(&self, act: impl FnOnce(&mut HashMap<Digest, usize>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Counts a request of `key` until the guard is dropped. None if it has `most` already.
    pub(crate) fn enter(self: &Arc<Self>, key: Digest, most: usize) -> Option<OpenRequest> {
        self.with(|open| {
            let count = open.entry(key).or_default();
            (*count < most).then(|| *count += 1)
        })?;
        Some(OpenRequest { all: self.clone(), key })
    }
}

/// A request in flight, until this is dropped.
#[derive(Debug)]
pub(crate) struct OpenRequest {
    all: Arc<OpenRequests>,
    key: Digest,
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        self.all.with(|open| {
            if let Some(count) = open.get_mut(&self.key) {
                *count -= 1;
                if *count == 0 {
                    open.remove(&self.key);
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_its_own_count_and_gets_it_back() {
        let open = Arc::new(OpenRequests::default());
        let (ann, bob) = (Digest::of(b"ann"), Digest::of(b"bob"));
        let held: Vec<_> = (0..2).filter_map(|_| open.enter(ann, 2)).collect();
        assert!(held.len() == 2 && open.enter(ann, 2).is_none() && open.enter(bob, 2).is_some());
        drop(held);
        assert!(open.enter(ann, 2).is_some());
        assert!(open.with(|open| open.is_empty()), "nothing is kept of keys without requests");
    }
}
