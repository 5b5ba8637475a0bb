//! The exchanges that are open now, so that those that run for long can be logged before they end.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::{Facts, log};

/// The exchanges that are open now.
#[derive(Debug, Default)]
pub(crate) struct InFlight(Mutex<Open>);

#[derive(Debug, Default)]
struct Open {
    next: u64,
    exchanges: HashMap<u64, (Arc<Facts>, u32)>,
}

impl InFlight {
    fn open(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an exchange, and returns its key for [`InFlight::leave`].
    pub(crate) fn enter(&self, facts: Arc<Facts>) -> u64 {
        let mut open = self.open();
        open.next += 1;
        let key = open.next;
        open.exchanges.insert(key, (facts, 0));
        key
    }

    pub(crate) fn leave(&self, key: u64) {
        self.open().exchanges.remove(&key);
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.open().exchanges.len()
    }

    /// Logs every exchange that has run for another `every` since it was last logged.
    pub(crate) fn log_long(&self, now: Instant, every: Duration) {
        for facts in self.due(now, every) {
            log::running(&facts, now);
        }
    }

    /// The exchanges to log, the oldest first.
    fn due(&self, now: Instant, every: Duration) -> Vec<Arc<Facts>> {
        let mut open = self.open();
        let mut due: Vec<Arc<Facts>> = Vec::new();
        for (facts, logged) in open.exchanges.values_mut() {
            let ran = now.saturating_duration_since(facts.started).as_millis();
            let times = u32::try_from(ran / every.as_millis().max(1)).unwrap_or(u32::MAX);
            if times > *logged {
                *logged = times;
                due.push(facts.clone());
            }
        }
        due.sort_by_key(|facts| facts.started);
        due
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::observe::Recorder;

    #[test]
    fn an_exchange_is_due_once_in_each_interval_while_it_is_open() {
        let (open, started, minute) = (InFlight::default(), Instant::now(), Duration::from_secs(60));
        let facts = Facts {
            id: "req_1".to_owned(),
            method: Method::GET,
            route: "/".to_owned(),
            endpoint: "other",
            peer: None,
            started,
            recorder: Recorder::default(),
        };
        let key = open.enter(Arc::new(facts));
        let due = |seconds| open.due(started + Duration::from_secs(seconds), minute).len();
        assert_eq!([due(59), due(60), due(75), due(121), due(122)], [0, 1, 0, 1, 0]);
        open.leave(key);
        assert_eq!((due(600), open.count()), (0, 0));
    }
}
