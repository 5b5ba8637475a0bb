//! Concurrency limiter with a bounded, fair queue: so many requests run at the same time, per key and in all, and the others wait. The key that
//! was served longest ago comes first. Where the queue is full, the newest waiter of the key with the most waiters gives way, so a key's
//! backlog costs that key alone.

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
pub(crate) struct Limiter(Mutex<State>);

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
    ticket: oneshot::Sender<Permit>,
}

/// The queue is full.
#[derive(Debug, PartialEq)]
pub(crate) struct Full;

/// A permit among those that run, given back when dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    limiter: Arc<Limiter>,
    caller: Caller,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.limiter.state();
        state.running = state.running.saturating_sub(1);
        if let Some(own) = state.callers.get_mut(&self.caller) {
            own.running = own.running.saturating_sub(1);
        }
        let let_in = state.let_in(&self.limiter);
        drop(state);
        hand_out(let_in);
    }
}

impl Limiter {
    /// Sets what holds in all: how many may run, and how many may wait.
    pub(crate) fn set(self: &Arc<Self>, limit: Option<usize>, queue: usize) {
        let mut state = self.state();
        (state.limit, state.queue) = (limit, queue);
        let let_in = state.let_in(self);
        drop(state);
        hand_out(let_in);
    }

    /// Waits for a permit, of which the caller may have `limit`.
    ///
    /// # Errors
    /// The queue is full, or another caller needed this request's place in it.
    pub(crate) async fn enter(self: &Arc<Self>, caller: Caller, limit: Option<usize>) -> Result<Permit, Full> {
        let (ticket, called) = oneshot::channel();
        let let_in = {
            let mut state = self.state();
            state.waiting.retain(|waiter| !waiter.ticket.is_closed());
            state.waiting.push(Waiter { caller, limit, ticket });
            let let_in = state.let_in(self);
            while state.waiting.len() > state.queue {
                // Its dropped ticket is its refusal.
                state.evict();
            }
            let_in
        };
        hand_out(let_in);
        // A waiter that leaves drops `called`; a permit that is handed to it then comes back by its own drop.
        called.await.map_err(|_| Full)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Counts stay true whatever panicked elsewhere.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Takes the newest waiter out of the queue of the caller with the most waiters; of equal ones, of the one with the most running; of those,
    /// the newest.
    fn evict(&mut self) {
        let mut load: HashMap<Caller, (usize, usize)> = HashMap::new();
        for waiter in &self.waiting {
            load.entry(waiter.caller).or_default().0 += 1;
        }
        for (caller, load) in &mut load {
            load.1 = self.callers.get(caller).map_or(0, |own| own.running);
        }
        let last = self.waiting.iter().enumerate().max_by_key(|(at, waiter)| (load.get(&waiter.caller), *at));
        if let Some((at, _)) = last {
            self.waiting.remove(at);
        }
    }

    /// Takes out of the queue whoever may run now.
    fn let_in(&mut self, limiter: &Arc<Limiter>) -> Vec<(oneshot::Sender<Permit>, Permit)> {
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
            let_in.push((ticket, Permit { limiter: Arc::clone(limiter), caller }));
        }
        let_in
    }
}

/// Outside of the lock: a permit that nobody takes comes back at once, which locks again.
fn hand_out(let_in: Vec<(oneshot::Sender<Permit>, Permit)>) {
    for (ticket, permit) in let_in {
        drop(ticket.send(permit));
    }
}

#[cfg(test)]
mod tests {
    use std::{future::Future, pin::pin};

    use futures_util::FutureExt;

    use super::*;

    fn limiter(limit: Option<usize>, queue: usize) -> Arc<Limiter> {
        let limiter = Arc::new(Limiter::default());
        limiter.set(limit, queue);
        limiter
    }

    fn now(entering: impl Future<Output = Result<Permit, Full>>) -> Permit {
        entering.now_or_never().expect("it need not wait").expect("there is a permit")
    }

    #[test]
    fn a_full_queue_refuses_and_a_free_permit_is_taken() {
        let limiter = limiter(Some(1), 1);
        let first = now(limiter.enter(None, None));
        let mut second = Box::pin(limiter.enter(None, None));
        assert!(second.as_mut().now_or_never().is_none());
        assert_eq!(limiter.enter(None, None).now_or_never().unwrap().unwrap_err(), Full);
        drop(first);
        now(second);
    }

    #[test]
    fn a_backlog_of_one_key_never_refuses_another() {
        let limiter = limiter(Some(2), 5);
        let [ann, bob, eve] = [b"a", b"b", b"e"].map(|key| Some(Digest::of(key)));
        let mut running: Vec<_> = (0..2).map(|_| now(limiter.enter(ann, None))).collect();
        let waits = |caller| {
            let mut waiter = Box::pin(limiter.enter(caller, None));
            assert!(waiter.as_mut().now_or_never().is_none(), "it waits");
            waiter
        };
        let mut anns: Vec<_> = (0..5).map(|_| waits(ann)).collect();
        assert_eq!(limiter.enter(ann, None).now_or_never().unwrap().unwrap_err(), Full, "its own backlog");
        let bobs = waits(bob);
        let eves = waits(eve);
        let states: Vec<_> =
            anns.iter_mut().map(|waiter| matches!(waiter.as_mut().now_or_never(), Some(Err(Full)))).collect();
        assert_eq!(states, [false, false, false, true, true], "the newest gave way");
        running.clear();
        let (bobs, eves) = (now(bobs), now(eves));
        drop((bobs, eves));
        let anns: Vec<_> = anns.drain(..3).map(FutureExt::now_or_never).collect();
        assert!(matches!(&anns[..], [Some(Ok(_)), Some(Ok(_)), None]), "{anns:?}");
    }

    #[test]
    fn among_keys_with_one_waiter_each_the_one_with_the_most_running_gives_way() {
        let limiter = limiter(Some(1), 1);
        let (ann, bob) = (Some(Digest::of(b"a")), Some(Digest::of(b"b")));
        let first = now(limiter.enter(ann, None));
        let mut anns = Box::pin(limiter.enter(ann, None));
        assert!(anns.as_mut().now_or_never().is_none());
        let mut bobs = Box::pin(limiter.enter(bob, None));
        assert!(bobs.as_mut().now_or_never().is_none(), "bob has nothing running");
        assert_eq!(anns.now_or_never().unwrap().unwrap_err(), Full);
        assert_eq!(limiter.enter(ann, None).now_or_never().unwrap().unwrap_err(), Full);
        drop(first);
        now(bobs);
    }

    #[test]
    fn whoever_leaves_the_queue_takes_no_permit() {
        let limiter = limiter(Some(1), 1);
        let first = now(limiter.enter(None, None));
        {
            let mut gone = Box::pin(limiter.enter(None, None));
            assert!(gone.as_mut().now_or_never().is_none());
        }
        let mut next = pin!(limiter.enter(None, None));
        assert!(next.as_mut().now_or_never().is_none());
        drop(first);
        assert!(next.now_or_never().unwrap().is_ok());
        now(limiter.enter(None, None));
    }

    #[test]
    fn a_key_at_its_limit_does_not_hold_up_the_others() {
        let limiter = limiter(Some(2), 9);
        let (ann, bob) = (Some(Digest::of(b"a")), Some(Digest::of(b"b")));
        let first = now(limiter.enter(ann, Some(1)));
        let mut second = Box::pin(limiter.enter(ann, Some(1)));
        assert!(second.as_mut().now_or_never().is_none());
        let _bobs = now(limiter.enter(bob, None));
        drop(first);
        now(second);
    }

    #[test]
    fn the_key_that_was_served_longest_ago_comes_first() {
        let limiter = limiter(Some(1), 9);
        let (ann, bob) = (Some(Digest::of(b"a")), Some(Digest::of(b"b")));
        let first = now(limiter.enter(ann, None));
        let mut anns: Vec<_> = (0..3).map(|_| Box::pin(limiter.enter(ann, None))).collect();
        assert!(anns.iter_mut().all(|ann| ann.as_mut().now_or_never().is_none()));
        let mut bobs = Box::pin(limiter.enter(bob, None));
        assert!(bobs.as_mut().now_or_never().is_none());
        drop(first);
        let permit = now(bobs);
        assert!(anns[0].as_mut().now_or_never().is_none());
        drop(permit);
        now(anns.remove(0));
    }
}
