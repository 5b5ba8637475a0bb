//! Concurrency limiter with a bounded, fair queue, in two steps. A key's own limit (`max_concurrent`) counts its
//! requests from before their bodies are read; the limit in all (`quota.max_concurrent`) counts those that run, whose
//! bodies are whole. So a body that arrives slowly takes a slot of its own key alone. The key that was served longest
//! ago comes first. Where the queue is full, the newest waiter of the key with the most waiters gives way, so a key's
//! backlog costs that key alone.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

use crate::config::Digest;

/// Whose request it is; None where keys are off.
type Caller = Option<Digest>;

/// All requests that hold a permit or wait for one.
#[derive(Debug, Default)]
pub(crate) struct Limiter(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Maximum number of running requests in all. None: without limit.
    limit: Option<usize>,
    /// Maximum number of waiters.
    queue: usize,
    running: usize,
    /// Counts the permits that were given out, so that it is known which key was served longest ago.
    turn: u64,
    callers: HashMap<Caller, Own>,
    waiting: Vec<Waiter>,
}

/// What one caller has.
#[derive(Debug, Default)]
struct Own {
    /// Requests within its own limit.
    admitted: usize,
    /// Requests within the limit in all.
    running: usize,
    served: u64,
}

#[derive(Debug)]
struct Waiter {
    caller: Caller,
    within: Within,
    ticket: oneshot::Sender<Permit>,
}

/// The limit that a permit counts in.
#[derive(Clone, Copy, Debug)]
enum Within {
    /// The caller's own.
    Own(usize),
    /// That of all callers together.
    All,
}

/// The queue is full.
#[derive(Debug, PartialEq)]
pub(crate) struct Full;

/// A permit within one of the limits, given back when dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    limiter: Arc<Limiter>,
    caller: Caller,
    within: Within,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.limiter.state();
        let own = state.callers.entry(self.caller).or_default();
        match self.within {
            Within::Own(_) => own.admitted = own.admitted.saturating_sub(1),
            Within::All => {
                own.running = own.running.saturating_sub(1);
                state.running = state.running.saturating_sub(1);
            }
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

    /// Waits for a permit within the caller's own `limit`.
    ///
    /// # Errors
    /// Fails if the queue is full, or another caller needs this request's place in it.
    pub(crate) async fn enter_own(self: &Arc<Self>, caller: Caller, limit: usize) -> Result<Permit, Full> {
        self.wait(caller, Within::Own(limit)).await
    }

    /// Waits for a permit within the limit in all.
    ///
    /// # Errors
    /// As [`Self::enter_own`].
    pub(crate) async fn enter(self: &Arc<Self>, caller: Caller) -> Result<Permit, Full> {
        self.wait(caller, Within::All).await
    }

    async fn wait(self: &Arc<Self>, caller: Caller, within: Within) -> Result<Permit, Full> {
        let (ticket, called) = oneshot::channel();
        let let_in = {
            let mut state = self.state();
            state.waiting.retain(|waiter| !waiter.ticket.is_closed());
            state.waiting.push(Waiter { caller, within, ticket });
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
    /// Takes the newest waiter out of the queue of the caller with the most waiters; of equal ones, of the one with the
    /// most requests admitted or running; of those, the newest.
    fn evict(&mut self) {
        let mut load: HashMap<Caller, (usize, usize)> = HashMap::new();
        for waiter in &self.waiting {
            load.entry(waiter.caller).or_default().0 += 1;
        }
        for (caller, load) in &mut load {
            load.1 = self.callers.get(caller).map_or(0, |own| own.running.max(own.admitted));
        }
        let last = self.waiting.iter().enumerate().max_by_key(|(at, waiter)| (load.get(&waiter.caller), *at));
        if let Some((at, _)) = last {
            self.waiting.remove(at);
        }
    }

    /// Takes the waiters out of the queue that may go on now.
    fn let_in(&mut self, limiter: &Arc<Limiter>) -> Vec<(oneshot::Sender<Permit>, Permit)> {
        let mut let_in = Vec::new();
        loop {
            let own = |caller: &Caller| self.callers.get(caller).map_or((0, 0), |own| (own.admitted, own.served));
            let may = |waiter: &&Waiter| match waiter.within {
                Within::Own(limit) => own(&waiter.caller).0 < limit,
                Within::All => self.limit.is_none_or(|limit| self.running < limit),
            };
            // The first of those that are equal, so each caller's own requests keep their order.
            let next = self.waiting.iter().filter(may).min_by_key(|waiter| own(&waiter.caller).1);
            let Some(at) = next.and_then(|next| self.waiting.iter().position(|waiter| std::ptr::eq(waiter, next)))
            else {
                return let_in;
            };
            let Waiter { caller, within, ticket } = self.waiting.remove(at);
            if ticket.is_closed() {
                continue;
            }
            let own = self.callers.entry(caller).or_default();
            match within {
                Within::Own(_) => own.admitted += 1,
                Within::All => {
                    self.running += 1;
                    self.turn += 1;
                    own.running += 1;
                    own.served = self.turn;
                }
            }
            let_in.push((ticket, Permit { limiter: Arc::clone(limiter), caller, within }));
        }
    }
}

/// Outside of the lock: a permit that no waiter takes comes back at once, which locks again.
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
        let first = now(limiter.enter(None));
        let mut second = Box::pin(limiter.enter(None));
        assert!(second.as_mut().now_or_never().is_none());
        assert_eq!(limiter.enter(None).now_or_never().unwrap().unwrap_err(), Full);
        drop(first);
        now(second);
    }

    #[test]
    fn a_backlog_of_one_key_never_refuses_another() {
        let limiter = limiter(Some(2), 5);
        let [ann, bob, eve] = [b"a", b"b", b"e"].map(|key| Some(Digest::of(key)));
        let mut running: Vec<_> = (0..2).map(|_| now(limiter.enter(ann))).collect();
        let waits = |caller| {
            let mut waiter = Box::pin(limiter.enter(caller));
            assert!(waiter.as_mut().now_or_never().is_none(), "it waits");
            waiter
        };
        let mut anns: Vec<_> = (0..5).map(|_| waits(ann)).collect();
        assert_eq!(limiter.enter(ann).now_or_never().unwrap().unwrap_err(), Full, "its own backlog");
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
        let first = now(limiter.enter(ann));
        let mut anns = Box::pin(limiter.enter(ann));
        assert!(anns.as_mut().now_or_never().is_none());
        let mut bobs = Box::pin(limiter.enter(bob));
        assert!(bobs.as_mut().now_or_never().is_none(), "bob has nothing running");
        assert_eq!(anns.now_or_never().unwrap().unwrap_err(), Full);
        assert_eq!(limiter.enter(ann).now_or_never().unwrap().unwrap_err(), Full);
        drop(first);
        now(bobs);
    }

    #[test]
    fn a_request_that_leaves_the_queue_takes_no_permit() {
        let limiter = limiter(Some(1), 1);
        let first = now(limiter.enter(None));
        {
            let mut gone = Box::pin(limiter.enter(None));
            assert!(gone.as_mut().now_or_never().is_none());
        }
        let mut next = pin!(limiter.enter(None));
        assert!(next.as_mut().now_or_never().is_none());
        drop(first);
        assert!(next.now_or_never().unwrap().is_ok());
        now(limiter.enter(None));
    }

    #[test]
    fn a_key_at_its_limit_does_not_hold_up_the_others() {
        let limiter = limiter(Some(2), 9);
        let (ann, bob) = (Some(Digest::of(b"a")), Some(Digest::of(b"b")));
        let first = (now(limiter.enter_own(ann, 1)), now(limiter.enter(ann)));
        let mut second = Box::pin(limiter.enter_own(ann, 1));
        assert!(second.as_mut().now_or_never().is_none());
        let _bobs = now(limiter.enter(bob));
        drop(first);
        let _second = now(second);
        now(limiter.enter(ann));
    }

    #[test]
    fn requests_that_do_not_run_yet_take_nothing_from_other_keys() {
        let limiter = limiter(Some(1), 9);
        let (ann, bob) = (Some(Digest::of(b"a")), Some(Digest::of(b"b")));
        let reading: Vec<_> = (0..3).map(|_| now(limiter.enter_own(ann, 3))).collect();
        assert!(limiter.enter_own(ann, 3).now_or_never().is_none(), "it has three");
        let bobs = now(limiter.enter(bob));
        let mut anns = Box::pin(limiter.enter(ann));
        assert!(anns.as_mut().now_or_never().is_none());
        drop(bobs);
        now(anns);
        drop(reading);
        now(limiter.enter_own(ann, 1));
    }

    #[test]
    fn a_backlog_within_a_key_s_own_limit_gives_way_in_the_queue() {
        let limiter = limiter(Some(1), 2);
        let (ann, bob) = (Some(Digest::of(b"a")), Some(Digest::of(b"b")));
        let _first = (now(limiter.enter_own(ann, 1)), now(limiter.enter(ann)));
        let mut anns: Vec<_> = (0..2).map(|_| Box::pin(limiter.enter_own(ann, 1))).collect();
        assert!(anns.iter_mut().all(|ann| ann.as_mut().now_or_never().is_none()));
        let mut bobs = Box::pin(limiter.enter(bob));
        assert!(bobs.as_mut().now_or_never().is_none(), "it waits");
        let states: Vec<_> = anns.into_iter().map(FutureExt::now_or_never).collect();
        assert!(matches!(&states[..], [None, Some(Err(Full))]), "{states:?}");
    }

    #[test]
    fn the_key_that_was_served_longest_ago_comes_first() {
        let limiter = limiter(Some(1), 9);
        let (ann, bob) = (Some(Digest::of(b"a")), Some(Digest::of(b"b")));
        let first = now(limiter.enter(ann));
        let mut anns: Vec<_> = (0..3).map(|_| Box::pin(limiter.enter(ann))).collect();
        assert!(anns.iter_mut().all(|ann| ann.as_mut().now_or_never().is_none()));
        let mut bobs = Box::pin(limiter.enter(bob));
        assert!(bobs.as_mut().now_or_never().is_none());
        drop(first);
        let permit = now(bobs);
        assert!(anns[0].as_mut().now_or_never().is_none());
        drop(permit);
        now(anns.remove(0));
    }
}
