//! Work that would hold up the event loop: large bodies are parsed, translated and written on other threads.
//!
//! The binary has one thread for all connections, so 50 MB that are parsed there stop every stream for half a second. Small work is done at
//! once: handing it over costs more than the work.

use std::{sync::LazyLock, thread::available_parallelism};

use tokio::sync::Semaphore;

/// Work on fewer bytes than this is done at once. Parsing takes up to 5 ms for a MiB, and a stream should not wait for longer than one.
const LARGE: usize = 256 << 10;

/// As many jobs at a time as leave one core to the event loop. One for the process, as the cores are.
static CORES: LazyLock<Semaphore> =
    LazyLock::new(|| Semaphore::new(available_parallelism().map_or(1, |cores| cores.get().saturating_sub(1).max(1))));

/// Does `work` on `size` bytes, on another thread if they are many. If the caller goes away, work that has begun is finished in vain.
///
/// # Panics
/// Panics if `work` does, wherever it was done.
pub(crate) async fn run<T: Send + 'static>(size: usize, work: impl FnOnce() -> T + Send + 'static) -> T {
    if size < LARGE {
        return work();
    }
    // Boxed, so that small work does not carry the room for it.
    Box::pin(async move {
        // Never closed: an error would mean that there is no bound, and the work is done all the same.
        let permit = CORES.acquire().await.ok();
        let work = move || {
            let _permit = permit;
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
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::thread;

    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn large_work_is_done_elsewhere_and_small_work_here() {
        let here = thread::current().id();
        assert_eq!(run(LARGE - 1, || thread::current().id()).await, here);
        assert_ne!(run(LARGE, || thread::current().id()).await, here);
    }

    #[tokio::test]
    async fn a_panic_reaches_the_caller_and_frees_its_core() {
        for _ in 0..2 * available_parallelism().unwrap().get() {
            let panicked = std::panic::AssertUnwindSafe(run(LARGE, || panic!("on purpose"))).catch_unwind().await;
            assert!(panicked.is_err());
        }
        assert_eq!(run(LARGE, || 7).await, 7);
    }
}
