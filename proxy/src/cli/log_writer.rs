//! The log on its way to stderr: a bounded buffer, and a thread that writes it out.
//!
//! A stderr that is not read (a full pipe, a stopped terminal) blocks that thread only. Lines that find the buffer full
//! are dropped, and a later line says how many. The thread pauses after each write, so that lines written in quick
//! succession share a system call; warnings and errors end the pause.

use std::{
    io::{self, Write},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use farllama::{LineSink, LogRing};
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// Maximum size of the lines that wait.
const CAPACITY: usize = 256 << 10;

/// How long the thread collects lines after a write.
const PAUSE: Duration = Duration::from_millis(5);

/// How long the end of the process waits for the last lines.
const LAST: Duration = Duration::from_millis(500);

/// A buffer of log lines. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct LogWriter(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Notified when lines come while the thread sleeps.
    filled: Condvar,
    /// Notified when all lines are written.
    drained: Condvar,
    capacity: usize,
}

#[derive(Debug, Default)]
struct State {
    lines: Vec<u8>,
    /// Lines that found the buffer full, since that was last reported.
    dropped: u64,
    /// The thread waits for `filled`.
    sleeping: bool,
    /// A warning or an error is among the lines: it does not wait for others.
    urgent: bool,
    /// The thread has taken lines and not yet written them.
    writing: bool,
}

/// A sink that copies what is written into the ring for the console.
struct Copied<W> {
    ring: LogRing,
    sink: W,
}

impl<W: Write> Write for Copied<W> {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        self.sink.write(lines)
    }

    fn write_all(&mut self, lines: &[u8]) -> io::Result<()> {
        // First, because stderr may not be read.
        self.ring.push(lines);
        self.sink.write_all(lines)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}

impl LogWriter {
    /// Starts the thread, which writes to stderr.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(crate) fn start(ring: LogRing) -> io::Result<Self> {
        let writer = Self::new(CAPACITY);
        let thread = writer.clone();
        std::thread::Builder::new()
            .name("log".to_owned())
            .stack_size(128 << 10)
            .spawn(move || thread.run(Copied { ring, sink: io::stderr() }, PAUSE))?;
        Ok(writer)
    }

    fn new(capacity: usize) -> Self {
        let state = Mutex::default();
        Self(Arc::new(Shared { state, filled: Condvar::new(), drained: Condvar::new(), capacity }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a whole line, or drops it if there is no room.
    fn push(&self, line: &[u8], urgent: bool) {
        self.append(|lines| lines.extend_from_slice(line), urgent);
    }

    /// Adds the line that `write` appends, or drops it if there is no room.
    fn append(&self, write: impl FnOnce(&mut Vec<u8>), urgent: bool) {
        let mut state = self.lock();
        let before = state.lines.len();
        write(&mut state.lines);
        // A single line of any length finds room in an empty buffer.
        if before > 0 && state.lines.len() > self.0.capacity {
            state.lines.truncate(before);
            state.dropped += 1;
            return;
        }
        state.urgent |= urgent;
        let wake = std::mem::take(&mut state.sleeping) || urgent;
        drop(state);
        if wake {
            self.0.filled.notify_one();
        }
    }

    /// Writes lines to `sink` forever.
    fn run(&self, mut sink: impl Write, pause: Duration) {
        let mut lines = Vec::new();
        loop {
            let dropped = self.take(&mut lines);
            // There is no other place to report that stderr fails.
            let _ = sink.write_all(&lines);
            lines.clear();
            lines.shrink_to(32 << 10);
            let mut state = self.lock();
            state.writing = false;
            let drained = state.lines.is_empty() && dropped == 0;
            drop(state);
            if drained {
                self.0.drained.notify_all();
            }
            if dropped > 0 {
                tracing::warn!(target: "farllama", dropped, "log lines were dropped, because stderr was not read in time");
            }
            let state = self.lock();
            let calm = |state: &mut State| !state.urgent;
            drop(self.0.filled.wait_timeout_while(state, pause, calm).unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// Waits for lines, and swaps them with the empty `lines`. Returns how many were dropped before.
    fn take(&self, lines: &mut Vec<u8>) -> u64 {
        let mut state = self.lock();
        while state.lines.is_empty() {
            state.sleeping = true;
            state = self.0.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.sleeping = false;
        state.urgent = false;
        state.writing = true;
        std::mem::swap(&mut state.lines, lines);
        std::mem::take(&mut state.dropped)
    }

    /// Waits until all lines are written, at most for `within`.
    pub(crate) fn flush(&self, within: Duration) {
        let until = Instant::now() + within;
        let mut state = self.lock();
        while !state.lines.is_empty() || state.writing {
            let Some(left) = until.checked_duration_since(Instant::now()) else { return };
            state = self.0.drained.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl LineSink for LogWriter {
    fn add(&self, write: &mut dyn FnMut(&mut Vec<u8>)) {
        self.append(write, false);
    }
}

/// Takes one whole line with each call, as `tracing_subscriber` writes them.
#[derive(Debug)]
pub(crate) struct LineWriter<'a> {
    writer: &'a LogWriter,
    urgent: bool,
}

impl<'a> MakeWriter<'a> for LogWriter {
    type Writer = LineWriter<'a>;

    fn make_writer(&'a self) -> LineWriter<'a> {
        LineWriter { writer: self, urgent: false }
    }

    fn make_writer_for(&'a self, event: &Metadata<'_>) -> LineWriter<'a> {
        LineWriter { writer: self, urgent: *event.level() <= Level::WARN }
    }
}

impl Write for LineWriter<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.writer.push(line, self.urgent);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes out what waits when it is dropped, also during unwinding. Gives up on a stderr that is not read.
#[derive(Debug)]
pub(crate) struct FlushOnDrop(pub(crate) LogWriter);

impl Drop for FlushOnDrop {
    fn drop(&mut self) {
        self.0.flush(LAST);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// A sink that reports each write, and accepts it only when it is allowed to.
    struct Gated {
        writes: mpsc::Sender<Vec<u8>>,
        allowed: mpsc::Receiver<()>,
    }

    impl Write for Gated {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // Both fail when the test has ended.
            let _ = self.allowed.recv();
            let _ = self.writes.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A running writer; what it writes; and what allows it one more write.
    fn gated(capacity: usize) -> (LogWriter, mpsc::Receiver<Vec<u8>>, mpsc::Sender<()>) {
        let ((writes, written), (allow, allowed)) = (mpsc::channel(), mpsc::channel());
        let writer = LogWriter::new(capacity);
        let thread = writer.clone();
        std::thread::spawn(move || thread.run(Gated { writes, allowed }, Duration::ZERO));
        (writer, written, allow)
    }

    /// Waits until the thread is in the middle of a write.
    fn until_writing(writer: &LogWriter) {
        while !writer.lock().writing {
            std::thread::yield_now();
        }
    }

    const PATIENCE: Duration = Duration::from_secs(5);

    #[test]
    fn a_sink_that_takes_nothing_stops_no_request_and_lines_are_dropped_whole_and_counted() {
        let (writer, written, allow) = gated(10);
        writer.push(b"first\n", false);
        until_writing(&writer);
        for line in [&b"12345\n"[..], b"too long\n", b"abc\n", b"x\n"] {
            writer.push(line, false);
        }
        assert_eq!(writer.lock().dropped, 2);
        let begun = Instant::now();
        writer.flush(Duration::from_millis(20));
        assert!(begun.elapsed() < PATIENCE, "the end of the process does not wait forever");
        allow.send(()).unwrap();
        allow.send(()).unwrap();
        assert_eq!(written.recv_timeout(PATIENCE).unwrap(), b"first\n");
        assert_eq!(written.recv_timeout(PATIENCE).unwrap(), b"12345\nabc\n");
        // There is room again.
        allow.send(()).unwrap();
        writer.push(b"a line longer than the buffer\n", false);
        assert_eq!(written.recv_timeout(PATIENCE).unwrap(), b"a line longer than the buffer\n");
        writer.flush(PATIENCE);
        assert!(writer.lock().lines.is_empty());
    }

    #[test]
    fn lines_that_come_while_one_is_written_share_a_write() {
        let (writer, written, allow) = gated(1 << 20);
        writer.push(b"0\n", false);
        until_writing(&writer);
        (1..100).for_each(|n| writer.push(format!("{n}\n").as_bytes(), false));
        allow.send(()).unwrap();
        allow.send(()).unwrap();
        assert_eq!(written.recv_timeout(PATIENCE).unwrap(), b"0\n");
        let together: String = (1..100).map(|n| format!("{n}\n")).collect();
        assert_eq!(written.recv_timeout(PATIENCE).unwrap(), together.as_bytes());
    }

    #[test]
    fn a_warning_does_not_wait_for_the_pause() {
        let ((writes, written), (allow, allowed)) = (mpsc::channel(), mpsc::channel());
        let writer = LogWriter::new(1 << 20);
        let thread = writer.clone();
        std::thread::spawn(move || thread.run(Gated { writes, allowed }, 100 * PATIENCE));
        (0..2).for_each(|_| allow.send(()).unwrap());
        writer.push(b"info\n", false);
        assert_eq!(written.recv_timeout(PATIENCE).unwrap(), b"info\n");
        writer.push(b"next\n", false);
        writer.push(b"warning\n", true);
        assert_eq!(written.recv_timeout(PATIENCE).unwrap(), b"next\nwarning\n");
    }
}
