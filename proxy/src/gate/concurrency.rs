//! How many requests run at the same time, per key and in all; the others wait their turn in a bounded queue, which no key can fill the
//! others out of: the key that was served longest ago comes first.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

use crate::config::Digest;

/// Whose request it is; None where nobody is asked for a key.
type Caller = Option<Digest>;

/// Everyone who runs or waits.
#[derive(Debug, Default)]
pub(crate) struct Crowd(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// At the same time in all. None: without limit.
    limit: Option<usize>,
    /// Most requests that wait.
    queue: usize,
    running: usize,
    /// Counts whoever is let in, to tell who was served longest ago.
    turn: u64,
    callers: HashMap<Caller, Own>,
    waiting: Vec<Waiter>,
}

/// What one caller has.
#[derive(Debug, Default)]
struct Own {
    running: usize,
    served: u64,
}

#[derive(Debug)]
struct Waiter {
    caller: Caller,
    limit: Option<usize>,
    ticket: oneshot::Sender<Place>,
}

/// The queue is full.
#[derive(Debug, PartialEq)]
pub(crate) struct Full;

/// A place among those that run, given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    crowd: Arc<Crowd>,
    caller: Caller,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.crowd.state();
        state.running = state.running.saturating_sub(1);
        if let Some(own) = state.callers.get_mut(&self.caller) {
            own.running = own.running.saturating_sub(1);
        }
        let let_in = state.let_in(&self.crowd);
        drop(state);
        hand_out(let_in);
    }
}

impl Crowd {
    /// Sets what holds in all: how many may run, and how many may wait.
    pub(crate) fn set(self: &Arc<Self>, limit: Option<usize>, queue: usize) {
        let mut state = self.state();
        (state.limit, state.queue) = (limit, queue);
        let let_in = state.let_in(self);
        drop(state);
        hand_out(let_in);
    }

    /// Waits for a place, of which the caller may have `limit`.
    ///
    /// # Errors
    /// As many wait already as may.
    pub(crate) async fn enter(self: &Arc<Self>, caller: Caller, limit: Option<usize>) -> Result<Place, Full> {
        let (ticket, called) = oneshot::channel();
        let let_in = {
            let mut state = self.state();
            state.waiting.retain(|waiter| !waiter.ticket.is_closed());
            state.waiting.push(Waiter { caller, limit, ticket });
            let let_in = state.let_in(self);
            if let_in.is_empty() && state.waiting.len() > state.queue {
                // The one that came now is the last.
                state.waiting.pop();
            }
            let_in
        };
        hand_out(let_in);
        // A waiter that leaves drops `called`; a place that is handed to it then comes back by its own drop.
        called.await.map_err(|_| Full)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Counts stay true whatever panicked elsewhere.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Takes out of the queue whoever may run now.
    fn let_in(&mut self, crowd: &Arc<Crowd>) -> Vec<(oneshot::Sender<Place>, Place)> {
        let mut let_in = Vec::new();
        while self.limit.is_none_or(|limit| self.running < limit) {
            let own = |caller: &Caller| self.callers.get(caller).map_or((0, 0), |own| (own.running, own.served));
            let may = |waiter: &&Waiter| waiter.limit.is_none_or(|limit| own(&waiter.caller).0 < limit);
            // The first of those that are equal, so each caller's own requests keep their order.
            let next = self.waiting.iter().filter(may).min_by_key(|waiter| own(&waiter.caller).1);
            let Some(at) = next.and_then(|next| self.waiting.iter().position(|waiter| std::ptr::eq(waiter, next)))
            else {
                break;
            };
            let Waiter { caller, ticket, .. } = self.waiting.remove(at);
            if ticket.is_closed() {
                continue;
            }
            self.running += 1;
            self.turn += 1;
            let own = self.callers.entry(caller).or_default();
            own.running += 1;
            own.served = self.turn;
            let_in.push((ticket, Place { crowd: Arc::clone(crowd), caller }));
        }
        let_in
    }
}

/// Outside of the lock: a place that nobody takes comes back at once, which locks again.
fn hand_out(let_in: Vec<(oneshot::Sender<Place>, Place)>) {
    for (ticket, place) in let_in {
        drop(ticket.send(place));
    }
}

#[cfg(test)]
mod tests {
    use std::{future::Future, pin::pin};

    use futures_util::FutureExt;

    use super::*;

    fn crowd(limit: Option<usize>, queue: usize) -> Arc<Crowd> {
        let crowd = Arc::new(Crowd::default());
        crowd.set(limit, queue);
        crowd
    }

    fn now(entering: impl Future<Output = Result<Place, Full>>) -> Place {
        entering.now_or_never().expect("it need not wait").expect("there is a place")
    }

    #[test]
    fn a_full_queue_refuses_and_a_free_place_is_taken() {
        let crowd = crowd(Some(1), 1);
        let first = now(crowd.enter(None, None));
        let mut second = Box::pin(crowd.enter(None, None));
        assert!(second.as_mut().now_or_never().is_none());
        assert_eq!(crowd.enter(None, None).now_or_never().unwrap().unwrap_err(), Full);
        drop(first);
        now(second);
    }

    #[test]
    fn whoever_leaves_the_queue_takes_no_place() {
        let crowd = crowd(Some(1), 1);
        let first = now(crowd.enter(None, None));
        {
            let mut gone = Box::pin(crowd.enter(None, None));
            assert!(gone.as_mut().now_or_never().is_none());
        }
        let mut next = pin!(crowd.enter(None, None));
        assert!(next.as_mut().now_or_never().is_none());
        drop(first);
        assert!(next.now_or_never().unwrap().is_ok());
        now(crowd.enter(None, None));
    }

    #[test]
    fn a_key_at_its_limit_does_not_hold_up_the_others() {
        let crowd = crowd(Some(2), 9);
        let (ann, bob) = (Some(Digest::of(b"a")), Some(Digest::of(b"b")));
        let first = now(crowd.enter(ann, Some(1)));
        let mut second = Box::pin(crowd.enter(ann, Some(1)));
        assert!(second.as_mut().now_or_never().is_none());
        let _bobs = now(crowd.enter(bob, None));
        drop(first);
        now(second);
    }

    #[test]
    fn the_key_that_was_served_longest_ago_comes_first() {
        let crowd = crowd(Some(1), 9);
        let (ann, bob) = (Some(Digest::of(b"a")), Some(Digest::of(b"b")));
        let first = now(crowd.enter(ann, None));
        let mut anns: Vec<_> = (0..3).map(|_| Box::pin(crowd.enter(ann, None))).collect();
        assert!(anns.iter_mut().all(|ann| ann.as_mut().now_or_never().is_none()));
        let mut bobs = Box::pin(crowd.enter(bob, None));
        assert!(bobs.as_mut().now_or_never().is_none());
        drop(first);
        let place = now(bobs);
        assert!(anns[0].as_mut().now_or_never().is_none());
        drop(place);
        now(anns.remove(0));
    }
}
