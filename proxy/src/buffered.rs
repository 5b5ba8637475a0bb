//! One budget for the request bodies that the process holds (`limits.buffered`). Beyond it nothing more is read, so
//! senders meet backpressure; a body that finds no room for [`WAIT`] is answered 503.
//!
//! Fair shares: the last eighth of the budget is for small bodies, which therefore always find room soon, and one key
//! can have three quarters of all. A body of up to [`FREE`] bytes that came at once is not counted: it is gone as soon.
//!
//! What a request becomes counts too, without waiting: images that are put into it, the requests to the remote, and
//! what is stored of it once it is answered. Requests that wait for each other to let go of their bodies would never
//! end. What translating it takes meanwhile waits for room ([`Share::working`]), but for one request at a time, so that
//! bodies that fill the budget do not wait for each other. So the budget can be exceeded by what one request takes
//! while it is translated, and no request may take more of it than a body may.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::StatusCode;
use tokio::sync::Notify;

use crate::{error::Error, gate::Owner, offload};

/// The size up to which a body costs less than counting it.
pub(crate) const FREE: usize = 16 << 10;

/// Beyond this size a body is a large one.
const SMALL: usize = 64 << 10;

/// The maximum time in which a body waits for room.
const WAIT: Duration = Duration::from_secs(10);

/// The budget. It outlives a reload of the settings.
#[derive(Debug)]
pub(crate) struct Budget {
    state: Mutex<State>,
    freed: Notify,
}

#[derive(Debug)]
struct State {
    total: usize,
    used: usize,
    /// How many requests are being translated, of those that are counted.
    working: usize,
    /// What each key has, where keys are needed.
    owners: HashMap<Owner, usize>,
}

impl Default for Budget {
    fn default() -> Self {
        let state = State { total: usize::MAX, used: 0, working: 0, owners: HashMap::new() };
        Self { state: Mutex::new(state), freed: Notify::new() }
    }
}

impl Budget {
    /// Sets the size; 0 stands for a quarter of the memory, 512 MiB at most.
    pub(crate) fn set(&self, total: usize) {
        const MOST: usize = 512 << 20;
        self.state().total = match total {
            0 => memory().map_or(MOST, |memory| (memory / 4).min(MOST)),
            total => total,
        };
        self.freed.notify_waiters();
    }

    /// How many bytes are held now.
    #[cfg(test)]
    pub(crate) fn used(&self) -> usize {
        self.state().used
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Counts stay true whatever panicked elsewhere.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// What a body of `size` bytes may bring the whole and its owner to.
    fn limits(&self, size: usize) -> (usize, usize) {
        let all = if size <= SMALL { self.total } else { self.total - self.total / 8 };
        (all, self.total / 4 * 3)
    }

    fn add(&mut self, owner: Owner, bytes: usize) {
        self.used += bytes;
        if owner != Owner::default() {
            *self.owners.entry(owner).or_default() += bytes;
        }
    }
}

/// The bytes of memory that the process may use, as far as the system says.
fn memory() -> Option<usize> {
    let number = |path: &str| std::fs::read_to_string(path).ok()?.trim().parse::<usize>().ok();
    let machine = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        Some(total.trim().strip_suffix("kB")?.trim().parse::<usize>().ok()? << 10)
    });
    // What a container may have.
    [machine, number("/sys/fs/cgroup/memory.max")].into_iter().flatten().min()
}

/// A caller's access to the budget. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Share {
    budget: Arc<Budget>,
    owner: Owner,
}

impl Share {
    pub(crate) fn new(budget: Arc<Budget>, owner: Owner) -> Self {
        Self { budget, owner }
    }

    /// Nothing yet.
    pub(crate) fn lease(&self) -> Lease {
        Lease { share: self.clone(), bytes: 0, works: false }
    }

    /// Counts what translating `body` takes while it is done, besides the body, and waits until there is room.
    ///
    /// # Errors
    /// Fails if that alone is more than one request may take, or if there is no room for [`WAIT`].
    pub(crate) async fn working(&self, body: &Bytes) -> Result<Lease, Error> {
        let mut lease = self.lease();
        if body.len() <= SMALL {
            return Ok(lease);
        }
        // Boxed: most bodies are small.
        Box::pin(async move {
            let counted = body.clone();
            let size = offload::run(body.len(), move || working_size(&counted)).await;
            let most = lease.most(size);
            if size > most {
                return Err(Error::Http {
                    status: StatusCode::PAYLOAD_TOO_LARGE,
                    message: format!(
                        "translating this request takes about {size} bytes of memory, and one request may take {most} bytes of limits.buffered; \
                         send fewer items at a time, or raise it in the settings"
                    ),
                });
            }
            lease.wait(|lease| Ok(lease.try_work(size))).await?;
            Ok(lease)
        })
        .await
    }

    /// Counts a body that is there already, whether there is room or not. It is given back when the last copy is
    /// dropped.
    pub(crate) fn hold(&self, body: Bytes) -> Bytes {
        if body.len() <= FREE {
            return body;
        }
        let mut lease = self.lease();
        lease.add(body.len());
        lease.hold(body)
    }
}

/// Roughly what a body takes in memory while it is translated: the request that is made of it, of about the same size,
/// and the values that it is parsed into. A message of 50 bytes takes 300.
fn working_size(body: &[u8]) -> usize {
    const OBJECT: usize = 256;
    const VALUE: usize = 32;
    let count = |byte| memchr::memchr_iter(byte, body).count();
    body.len() + OBJECT * count(b'{') + VALUE * count(b',')
}

/// Marks a request whose body is held and counted already.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counted;

/// A part of the budget, given back when dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    share: Share,
    bytes: usize,
    /// Whether it is for translating a request.
    works: bool,
}

impl Lease {
    /// Takes `bytes` more, and waits until there is room.
    ///
    /// # Errors
    /// Fails if there is no room for [`WAIT`], or can be none.
    pub(crate) async fn grow(&mut self, bytes: usize) -> Result<(), Error> {
        if self.try_grow(bytes)? {
            return Ok(());
        }
        // Boxed: most bodies need not wait.
        Box::pin(self.wait(|lease| lease.try_grow(bytes))).await
    }

    /// Waits until `attempt` finds room.
    ///
    /// # Errors
    /// As `attempt`; fails if there is no room for [`WAIT`].
    async fn wait(&mut self, mut attempt: impl FnMut(&mut Self) -> Result<bool, Error>) -> Result<(), Error> {
        let waiting = async {
            loop {
                let budget = self.share.budget.clone();
                let mut freed = std::pin::pin!(budget.freed.notified());
                // Room that is given back from here on wakes it.
                freed.as_mut().enable();
                if attempt(self)? {
                    return Ok(());
                }
                freed.await;
            }
        };
        tokio::time::timeout(WAIT, waiting).await.unwrap_or_else(|_| {
            Err(Error::Busy {
                message: "no memory left for this request's body: other requests use all of limits.buffered; \
                          try again in a moment"
                    .to_owned(),
            })
        })
    }

    /// How much it has taken.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The most that a body of `size` bytes may bring a request to.
    fn most(&self, size: usize) -> usize {
        let (all, one) = self.share.budget.state().limits(size);
        if self.share.owner == Owner::default() { all } else { all.min(one) }
    }

    /// # Errors
    /// Fails if a body of `size` bytes can never find room.
    pub(crate) fn fits(&self, size: usize) -> Result<(), Error> {
        let most = self.most(size);
        if size <= most {
            return Ok(());
        }
        Err(Error::Http {
            status: StatusCode::PAYLOAD_TOO_LARGE,
            message: format!(
                "the request body is larger than {most} bytes, the most that one body may take of limits.buffered; raise it in the settings"
            ),
        })
    }

    /// Takes `bytes` more, if there is room.
    ///
    /// # Errors
    /// Fails if there can be none.
    fn try_grow(&mut self, bytes: usize) -> Result<bool, Error> {
        let size = self.bytes + bytes;
        self.fits(size)?;
        let mut state = self.share.budget.state();
        let (all, one) = state.limits(size);
        let keyed = self.share.owner != Owner::default();
        let own = state.owners.get(&self.share.owner).copied().unwrap_or(0);
        if state.used.saturating_add(bytes) > all || keyed && own.saturating_add(bytes) > one {
            return Ok(false);
        }
        state.add(self.share.owner, bytes);
        drop(state);
        self.bytes = size;
        Ok(true)
    }

    /// Takes `bytes` for translating a request, if there is room, or if no other request is being translated.
    fn try_work(&mut self, bytes: usize) -> bool {
        let mut state = self.share.budget.state();
        if state.working > 0 && state.used.saturating_add(bytes) > state.total {
            return false;
        }
        state.working += 1;
        state.add(self.share.owner, bytes);
        drop(state);
        (self.bytes, self.works) = (bytes, true);
        true
    }

    /// Takes `bytes` more of what is there already, whether there is room or not.
    pub(crate) fn add(&mut self, bytes: usize) {
        self.share.budget.state().add(self.share.owner, bytes);
        self.bytes += bytes;
    }

    /// Gives back `bytes`, or all that it has.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        if bytes == 0 {
            return;
        }
        self.bytes -= bytes;
        let mut state = self.share.budget.state();
        state.used = state.used.saturating_sub(bytes);
        if let Some(own) = state.owners.get_mut(&self.share.owner) {
            *own = own.saturating_sub(bytes);
            if *own == 0 {
                state.owners.remove(&self.share.owner);
            }
        }
        drop(state);
        self.share.budget.freed.notify_waiters();
    }

    /// Binds the lease to `body`: it is given back when the last copy of that is dropped.
    pub(crate) fn hold(self, body: Bytes) -> Bytes {
        struct Held {
            body: Bytes,
            _lease: Lease,
        }
        impl AsRef<[u8]> for Held {
            fn as_ref(&self) -> &[u8] {
                &self.body
            }
        }
        if self.bytes == 0 {
            return body;
        }
        Bytes::from_owner(Held { body, _lease: self })
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.works {
            self.share.budget.state().working -= 1;
        }
        self.shrink(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const MIB: usize = 1 << 20;

    fn budget(total: usize) -> Arc<Budget> {
        let budget = Arc::new(Budget::default());
        budget.set(total);
        budget
    }

    #[tokio::test]
    async fn what_translating_takes_is_counted_and_bounded() {
        let budget = budget(8 * MIB);
        let ann = Share::new(budget.clone(), Owner::of_key(b"ann"));
        let item = r#"{"role":"user","content":"hi"},"#;
        let working = ann.working(&item.repeat(5_000).into()).await.unwrap();
        let used = budget.state().used;
        assert!((5_000 * 300..5_000 * 500).contains(&used), "{used}");
        drop(working);
        assert_eq!(budget.state().used, 0);
        assert_eq!(ann.working(&item.repeat(100).into()).await.unwrap().bytes, 0, "a small one is gone as soon");
        let refused = ann.working(&item.repeat(25_000).into()).await.unwrap_err();
        assert!(refused.to_string().contains("limits.buffered"), "{refused}");
        assert!(ann.working(&vec![b'a'; 5 * MIB].into()).await.is_ok(), "a large image is few values");
    }

    #[tokio::test(start_paused = true)]
    async fn translating_waits_for_room_but_for_one_request_at_a_time() {
        let budget = budget(8 * MIB);
        let share = Share::new(budget.clone(), Owner::default());
        let _bodies = taken(&share, 7 * MIB).unwrap();
        let body = Bytes::from(vec![b'a'; 2 * MIB]);
        // Counting on another thread is not what is waited for here.
        let work = || async {
            let mut lease = share.lease();
            lease.wait(|lease| Ok(lease.try_work(body.len()))).await.map(|()| lease)
        };
        let first = work().now_or_never().unwrap().unwrap();
        let mut second = Box::pin(work());
        assert!(second.as_mut().now_or_never().is_none());
        drop(first);
        let second = second.now_or_never().unwrap().unwrap();
        let refused = work().await.unwrap_err();
        assert!(matches!(refused, Error::Busy { .. }), "{refused}");
        drop(second);
        let state = budget.state();
        assert_eq!((state.used, state.working), (7 * MIB, 0));
    }

    fn taken(share: &Share, bytes: usize) -> Option<Lease> {
        let mut lease = share.lease();
        let grown = lease.grow(bytes).now_or_never();
        grown.map(|grown| grown.unwrap()).map(|()| lease)
    }

    #[tokio::test]
    async fn large_bodies_leave_room_for_small_ones_and_one_key_for_another() {
        let budget = budget(8 * MIB);
        let [ann, bob] = [b"ann", b"bob"].map(|key| Share::new(budget.clone(), Owner::of_key(key)));
        let anns: Vec<_> = (0..20).map_while(|_| taken(&ann, MIB)).collect();
        assert_eq!(anns.len(), 6);
        let bobs: Vec<_> = (0..20).map_while(|_| taken(&bob, MIB)).collect();
        assert_eq!(bobs.len(), 1);
        let small: Vec<_> = (0..100).map_while(|_| taken(&bob, SMALL)).collect();
        assert_eq!(small.len(), MIB / SMALL);
        drop((anns, bobs, small));
        let state = budget.state();
        assert_eq!((state.used, state.owners.len()), (0, 0));
    }

    #[tokio::test]
    async fn who_waits_goes_on_when_room_is_given_back() {
        let budget = budget(8 * MIB);
        let share = Share::new(budget, Owner::default());
        let held = taken(&share, 7 * MIB).unwrap().hold(Bytes::from_static(b"body"));
        let mut next = share.lease();
        let mut growing = Box::pin(next.grow(MIB));
        assert!(growing.as_mut().now_or_never().is_none());
        let copy = held.clone();
        drop(held);
        assert!(growing.as_mut().now_or_never().is_none(), "a copy is left");
        drop(copy);
        growing.now_or_never().unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn who_finds_no_room_in_time_is_refused_and_what_never_fits_at_once() {
        let share = Share::new(budget(8 * MIB), Owner::default());
        let _held = taken(&share, 7 * MIB).unwrap();
        let refused = share.lease().grow(MIB).await.unwrap_err();
        assert!(matches!(refused, Error::Busy { .. }), "{refused}");
        let never = share.lease().grow(8 * MIB).now_or_never().unwrap().unwrap_err();
        assert_eq!(never.row().status, StatusCode::PAYLOAD_TOO_LARGE);
    }

    #[test]
    fn without_a_size_it_is_a_part_of_the_memory() {
        let total = budget(0).state().total;
        assert!((1..=512 * MIB).contains(&total), "{total}");
    }
}
