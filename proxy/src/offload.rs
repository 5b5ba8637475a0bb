//! Work that would hold up the event loop: large bodies are parsed, translated and written on other threads.
//!
//! The binary has one thread for all connections, so 50 MB that are parsed there stop every stream for half a second.
//! Small work is done at once: handing it over costs more than the work.

use std::{
    cell::Cell,
    pin::Pin,
    sync::LazyLock,
    task::{Context, Poll},
    thread::available_parallelism,
};

use axum::body::{Body, Bytes};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::Semaphore;

/// Work on fewer bytes than this is done at once. Parsing takes up to 5 ms for a MiB, and a stream should not wait for
/// longer than one.
pub(crate) const LARGE: usize = 256 << 10;

/// As many jobs at a time as leave one core to the event loop. One for the process, as the cores are.
static CORES: LazyLock<Semaphore> =
    LazyLock::new(|| Semaphore::new(available_parallelism().map_or(1, |cores| cores.get().saturating_sub(1).max(1))));

thread_local! {
    /// Whether this thread does such a job now. What a job hands over in turn, it does itself: it would wait for the
    /// permit that it holds.
    static AT_WORK: Cell<bool> = const { Cell::new(false) };
}

/// Does `work` on `size` bytes, on another thread if they are many. If the caller goes away, work that has begun is
/// finished in vain.
///
/// # Panics
/// Panics if `work` does, wherever it was done.
pub(crate) async fn run<T: Send + 'static>(size: usize, work: impl FnOnce() -> T + Send + 'static) -> T {
    if size < LARGE || AT_WORK.get() {
        return work();
    }
    // Boxed, so that small work does not carry the room for it.
    Box::pin(apart(&CORES, work)).await
}

/// Does `work` on another thread, as many at a time as `permits` has. If the caller goes away, work that has begun is
/// finished in vain.
///
/// # Panics
/// Panics if `work` does.
pub(crate) async fn apart<T: Send + 'static>(
    permits: &'static Semaphore,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    // Never closed: an error would mean that there is no bound, and the work is done all the same.
    let permit = permits.acquire().await.ok();
    let work = move || {
        let _permit = permit;
        let _at_work = AtWork::begin();
        work()
    };
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(failed) => match failed.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down, and this future with it.
            Err(_) => std::future::pending().await,
        },
    }
}

/// Marks the thread until it is dropped, also if the job panics: the runtime uses its threads again.
struct AtWork;

impl AtWork {
    fn begin() -> Self {
        AT_WORK.set(true);
        Self
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        AT_WORK.set(false);
    }
}

/// As [`run`], for a future that waits for nothing but its own work.
///
/// # Panics
/// As [`run`].
pub(crate) async fn run_future<T: Send + 'static>(size: usize, work: impl Future<Output = T> + Send + 'static) -> T {
    if size < LARGE || AT_WORK.get() {
        return work.await;
    }
    let runtime = tokio::runtime::Handle::current();
    run(size, move || runtime.block_on(work)).await
}

/// The same bytes; if they are many, their memory is given back on another thread. That takes the system 4 ms for 100
/// MB.
pub(crate) fn freed_elsewhere(bytes: Bytes) -> Bytes {
    if bytes.len() < LARGE { bytes } else { Bytes::from_owner(FreedElsewhere(bytes)) }
}

/// The same body, whose memory is given back on another thread if it is large.
pub(crate) fn freed_body(body: Body) -> Body {
    let size = body.size_hint().lower();
    if size < LARGE as u64 { body } else { Body::new(FreedBody(body)) }
}

struct FreedBody(Body);

impl HttpBody for FreedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.0).poll_frame(cx);
        polled.map_ok(|frame| frame.map_data(freed_elsewhere))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

struct FreedElsewhere(Bytes);

impl AsRef<[u8]> for FreedElsewhere {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for FreedElsewhere {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.0);
        // Outside of a runtime there is no stream to delay.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn_blocking(move || drop(bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use futures_util::FutureExt;
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn large_work_is_done_elsewhere_and_small_work_here() {
        let here = thread::current().id();
        assert_eq!(run(LARGE - 1, || thread::current().id()).await, here);
        assert_ne!(run(LARGE, || thread::current().id()).await, here);
        assert_eq!(run_future(LARGE - 1, async { thread::current().id() }).await, here);
        assert_ne!(run_future(LARGE, async { thread::current().id() }).await, here);
    }

    #[tokio::test]
    async fn jobs_within_jobs_do_not_wait_for_their_own_permits() {
        // More than there are permits on any machine.
        let jobs = (0..300).map(|n| {
            run_future(LARGE, async move { run_future(LARGE, async move { run(LARGE, move || n).await }).await })
        });
        let all = tokio::time::timeout(std::time::Duration::from_secs(20), futures_util::future::join_all(jobs)).await;
        assert_eq!(all.unwrap(), (0..300).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_panic_reaches_the_caller_and_frees_its_core() {
        for _ in 0..2 * available_parallelism().unwrap().get() {
            let panicked = std::panic::AssertUnwindSafe(run(LARGE, || panic!("on purpose"))).catch_unwind().await;
            assert!(panicked.is_err());
        }
        assert_eq!(run(LARGE, || 7).await, 7);
    }

    #[tokio::test]
    async fn large_memory_is_given_back_elsewhere_and_nothing_else_changes() {
        /// Reports the thread that drops it.
        struct Dropped(std::sync::mpsc::Sender<thread::ThreadId>, Vec<u8>);
        impl AsRef<[u8]> for Dropped {
            fn as_ref(&self) -> &[u8] {
                &self.1
            }
        }
        impl Drop for Dropped {
            fn drop(&mut self) {
                let _ = self.0.send(thread::current().id());
            }
        }
        let here = thread::current().id();
        for (size, elsewhere) in [(LARGE - 1, false), (LARGE, true)] {
            let (send, dropped) = std::sync::mpsc::channel();
            let bytes = Bytes::from_owner(Dropped(send, vec![7; size]));
            let body = freed_body(Body::from(bytes));
            assert_eq!(body.size_hint().exact(), Some(size as u64));
            let whole = body.collect().await.unwrap().to_bytes();
            assert!(whole.len() == size && whole.iter().all(|byte| *byte == 7));
            drop(whole);
            let by = tokio::task::spawn_blocking(move || dropped.recv().unwrap()).await.unwrap();
            assert_eq!(by != here, elsewhere, "{size}");
        }
    }
}
