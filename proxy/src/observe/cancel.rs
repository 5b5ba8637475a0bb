//! Ends an exchange from outside: on behalf of an operator, or because the process stops.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll, Waker},
};

use crate::error::Error;

/// Why an exchange is canceled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// An operator canceled it.
    Operator,
    /// The process stops.
    Shutdown,
    /// The caller canceled it, with another request or message.
    Caller,
}

const RUNNING: u8 = 0;
const OPERATOR: u8 = 1;
const SHUTDOWN: u8 = 2;
const CALLER: u8 = 3;

/// Whether an exchange is canceled, and the task to wake when it is.
#[derive(Debug, Default)]
pub(crate) struct Cancel {
    reason: AtomicU8,
    waker: Mutex<Option<Waker>>,
}

impl Cancel {
    /// Cancels the exchange, unless it is canceled already. Returns whether it was running.
    pub(crate) fn cancel(&self, reason: Reason) -> bool {
        let reason = match reason {
            Reason::Operator => OPERATOR,
            Reason::Shutdown => SHUTDOWN,
            Reason::Caller => CALLER,
        };
        let running = self.reason.compare_exchange(RUNNING, reason, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if let Some(waker) = self.waker.lock().unwrap_or_else(PoisonError::into_inner).take() {
            waker.wake();
        }
        running
    }

    /// Why the exchange is canceled, as the error that ends it.
    pub(crate) fn error(&self) -> Option<Error> {
        match self.reason.load(Ordering::Acquire) {
            RUNNING => None,
            OPERATOR => Some(Error::Canceled { shutdown: false }),
            CALLER => Some(Error::CanceledByCaller),
            _ => Some(Error::Canceled { shutdown: true }),
        }
    }

    /// Returns the error once the exchange is canceled; until then wakes the task of `cx` when that happens.
    pub(crate) fn poll(&self, cx: &Context<'_>) -> Poll<Error> {
        let mut waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner);
        if !waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        drop(waker);
        self.error().map_or(Poll::Pending, Poll::Ready)
    }

    /// Lets go of the task that waits. The exchange has ended, and readers may keep its facts for long.
    pub(super) fn forget_task(&self) {
        self.waker.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, sync::Arc};

    use super::*;

    #[tokio::test]
    async fn a_task_that_waits_is_woken_and_gets_the_first_reason() {
        let cancel = Arc::new(Cancel::default());
        let waiting = cancel.clone();
        let waiting = async move { poll_fn(|cx| waiting.poll(cx)).await };
        let (error, ()) = tokio::join!(waiting, async {
            tokio::task::yield_now().await;
            assert!(cancel.cancel(Reason::Operator));
            assert!(!cancel.cancel(Reason::Shutdown), "it is canceled already");
        });
        assert_eq!(error, Error::Canceled { shutdown: false });
    }
}
