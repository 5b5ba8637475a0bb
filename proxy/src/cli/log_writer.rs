//! The log on its way to stderr: lines that are written together leave together, once there is nothing else to do. So a line costs the
//! exchange that it tells of no time, and under load many share one write. None waits longer than the work at hand; warnings and errors do
//! not wait at all.

use std::{
    io::{self, Write},
    sync::{Mutex, MutexGuard, PoisonError},
};

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// Lines leave at the latest when they are this many bytes.
const FULL: usize = 16 << 10;

static WAITING: Mutex<Vec<u8>> = Mutex::new(Vec::new());

/// Writes to stderr what has waited.
pub(crate) fn flush() {
    flush_all(&mut waiting());
}

fn waiting() -> MutexGuard<'static, Vec<u8>> {
    WAITING.lock().unwrap_or_else(PoisonError::into_inner)
}

fn flush_all(lines: &mut Vec<u8>) {
    if !lines.is_empty() {
        // Nobody is left to be told where stderr fails.
        let _ = io::stderr().write_all(lines);
        lines.clear();
        lines.shrink_to(FULL * 2);
    }
}

/// Where the log is written to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lines {
    /// What is written now waits for nothing.
    at_once: bool,
}

impl Lines {
    pub(crate) const fn new() -> Self {
        Self { at_once: false }
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        *self
    }

    fn make_writer_for(&'a self, event: &Metadata<'_>) -> Self {
        Self { at_once: *event.level() <= Level::WARN }
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut lines = waiting();
        lines.extend_from_slice(bytes);
        if self.at_once || lines.len() >= FULL {
            flush_all(&mut lines);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        flush_all(&mut waiting());
        Ok(())
    }
}

/// Has lines written when this goes, however it does.
#[derive(Debug)]
pub(crate) struct Last;

impl Drop for Last {
    fn drop(&mut self) {
        flush();
    }
}
