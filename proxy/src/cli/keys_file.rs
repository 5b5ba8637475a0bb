//! Watches the file with keys (`auth.keys_file`).

use std::{
    fs,
    path::PathBuf,
    time::{Duration, SystemTime},
};

/// How often the file is looked at. A system call each time.
const EVERY: Duration = Duration::from_secs(2);

/// A file and what it was like when it was read.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    path: Option<PathBuf>,
    seen: Option<Stamp>,
}

#[derive(Debug, PartialEq)]
struct Stamp {
    modified: Option<SystemTime>,
    length: u64,
}

impl Watch {
    fn stamp(&self) -> Option<Stamp> {
        // Of the file that a link leads to: mounted secrets are replaced by moving a link.
        let metadata = fs::metadata(self.path.as_ref()?).ok()?;
        Some(Stamp { modified: metadata.modified().ok(), length: metadata.len() })
    }

    /// Watches `path` from now on; nothing changes if it is watched already.
    pub(crate) fn follow(&mut self, path: Option<&PathBuf>) {
        if self.path.as_ref() != path {
            self.path = path.cloned();
            self.seen = self.stamp();
        }
    }

    /// Returns once the file is another than when this last returned. A file that is missing has not changed: it may be
    /// in the middle of being replaced.
    pub(crate) async fn changed(&mut self) {
        if self.path.is_none() {
            return std::future::pending().await;
        }
        loop {
            let now = self.stamp();
            if now.is_some() && now != self.seen {
                self.seen = now;
                return;
            }
            tokio::time::sleep(EVERY).await;
        }
    }
}
