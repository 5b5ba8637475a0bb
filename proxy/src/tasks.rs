//! Work that goes on after its request has been answered: responses in the background, and batches. The only tasks
//! besides those of connections; their number is bounded, and the process waits for them before it ends.

use std::{
    future::poll_fn,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::task::JoinSet;

/// The tasks that run now.
#[derive(Debug, Default)]
pub(crate) struct Tasks(Mutex<JoinSet<()>>);

/// As many tasks run as may.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full;

impl Tasks {
    fn set(&self) -> MutexGuard<'_, JoinSet<()>> {
        let mut set = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while set.try_join_next().is_some() {}
        set
    }

    /// Starts `work`, unless `most` tasks run already.
    ///
    /// # Errors
    /// Fails if as many run.
    pub(crate) fn start(&self, most: usize, work: impl Future<Output = ()> + Send + 'static) -> Result<(), Full> {
        let mut set = self.set();
        if set.len() >= most {
            return Err(Full);
        }
        set.spawn(work);
        Ok(())
    }

    /// How many run now.
    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        self.set().len()
    }

    /// Returns once no task runs. Tasks that are started meanwhile are waited for too.
    pub(crate) async fn ended(&self) {
        poll_fn(|cx| {
            let mut set = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            loop {
                match std::task::ready!(set.poll_join_next(cx)) {
                    Some(_) => {}
                    None => return std::task::Poll::Ready(()),
                }
            }
        })
        .await;
    }

    /// Ends all of them at once.
    pub(crate) fn abort_all(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn no_more_run_than_may_and_the_end_of_all_is_awaited() {
        let tasks = Arc::new(Tasks::default());
        let (first, waits) = oneshot::channel::<()>();
        tasks.start(1, async { drop(waits.await) }).unwrap();
        assert_eq!((tasks.start(1, async {}), tasks.count()), (Err(Full), 1));
        let ended = tasks.ended();
        tokio::pin!(ended);
        assert!(futures_util::poll!(&mut ended).is_pending());
        drop(first);
        ended.await;
        assert_eq!((tasks.count(), tasks.start(1, async {})), (0, Ok(())));
    }
}
