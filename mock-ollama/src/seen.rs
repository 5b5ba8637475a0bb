//! What a client has seen of responses, reported by that client: a script can wait for it, where a fixed time would be
//! a guess.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

/// How often a client has seen something. Cheap to clone; clones share the count.
#[derive(Clone, Debug)]
pub struct Seen(Arc<watch::Sender<u64>>);

impl Default for Seen {
    fn default() -> Self {
        Self(Arc::new(watch::channel(0).0))
    }
}

impl Seen {
    /// The client has seen something more.
    pub fn more(&self) {
        self.0.send_modify(|times| *times += 1);
    }

    /// How often so far.
    pub(crate) fn times(&self) -> u64 {
        *self.0.borrow()
    }

    /// Waits until it was more often than this, `at_most` so long.
    pub(crate) async fn beyond(&self, times: u64, at_most: Duration) {
        let mut seen = self.0.subscribe();
        // The sender lives in `self`; a rule that waits in vain continues as well.
        let _ = tokio::time::timeout(at_most, seen.wait_for(|now| *now > times)).await;
    }
}
