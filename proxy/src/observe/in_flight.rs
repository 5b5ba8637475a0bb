//! The exchanges that are open now, so that those that run for long can be logged before they end.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use foldhash::fast::RandomState;
use serde::Serialize;

use super::{Facts, Reason, log, log::shown};
use crate::stamp::unix_ms;

/// The exchanges that are open now.
#[derive(Debug, Default)]
pub(crate) struct InFlight(Mutex<List>);

#[derive(Debug, Default)]
struct List {
    next: u64,
    exchanges: HashMap<u64, (Arc<Facts>, u32), RandomState>,
}

/// An exchange that is open now. Every text is masked and cut.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Open {
    pub(crate) key: u64,
    pub(crate) id: String,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) endpoint: &'static str,
    pub(crate) model: Option<String>,
    pub(crate) caller: Option<String>,
    pub(crate) peer: Option<String>,
    /// Unix milliseconds.
    pub(crate) started_ms: u64,
    pub(crate) running_ms: u64,
    pub(crate) first_token_ms: Option<u64>,
    pub(crate) waiting_for: Option<&'static str>,
}

impl InFlight {
    fn open(&self) -> MutexGuard<'_, List> {
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

    /// What is open now, the oldest first.
    pub(crate) fn list(&self) -> Vec<Open> {
        let mut facts: Vec<_> = self.open().exchanges.iter().map(|(key, (facts, _))| (*key, facts.clone())).collect();
        facts.sort_by_key(|(key, _)| *key);
        let (now, clock) = (Instant::now(), unix_ms());
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let open = |(key, facts): (u64, Arc<Facts>)| {
            let Facts { id, method, route, endpoint, peer, started, recorder } = &*facts;
            let notes = recorder.notes();
            let running_ms = ms(now.saturating_duration_since(*started));
            Open {
                key,
                id: shown(id, &notes.secrets).into_owned(),
                method: method.to_string(),
                path: shown(route, &notes.secrets).into_owned(),
                endpoint,
                model: notes.model.as_ref().map(|model| shown(model, &notes.secrets).into_owned()),
                caller: notes.caller.clone(),
                peer: peer.map(|peer| peer.to_string()),
                started_ms: clock.saturating_sub(running_ms),
                running_ms,
                first_token_ms: notes.first_token.map(|at| ms(at.saturating_duration_since(*started))),
                waiting_for: notes.waiting_for.filter(|_| notes.first_token.is_none()),
            }
        };
        facts.into_iter().map(open).collect()
    }

    /// Cancels the exchange that is listed under `key`. Returns whether there is one.
    pub(crate) fn cancel(&self, key: u64) -> bool {
        let facts = self.open().exchanges.get(&key).map(|(facts, _)| facts.clone());
        facts.is_some_and(|facts| facts.recorder.cancel().cancel(Reason::Operator))
    }

    /// Cancels all exchanges, because the process stops.
    pub(crate) fn cancel_all(&self) {
        let all: Vec<_> = self.open().exchanges.values().map(|(facts, _)| facts.clone()).collect();
        for facts in all {
            facts.recorder.cancel().cancel(Reason::Shutdown);
        }
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
            id: "req_1".into(),
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
