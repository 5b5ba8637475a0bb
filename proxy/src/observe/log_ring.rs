//! The last lines of the log, for the console and `farllama logs`. Bounded by their bytes.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::Serialize;

/// Maximum length of a line that is kept; the rest of it is cut.
const LINE: usize = 8 << 10;

/// What a line takes besides its text.
const OVERHEAD: usize = 64;

/// One line.
#[derive(Clone, Debug, Serialize)]
pub struct LogLine {
    /// Position in the log: clients ask for lines after the last one they have.
    pub seq: u64,
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub level: &'static str,
    /// The line, without colors.
    pub text: String,
}

/// The last lines. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct LogRing(Arc<Mutex<Ring>>);

#[derive(Debug, Default)]
struct Ring {
    seq: u64,
    bytes: usize,
    /// Maximum of `bytes`. 0: nothing is kept.
    capacity: usize,
    lines: VecDeque<LogLine>,
}

impl LogRing {
    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps lines of `bytes` in all.
    pub fn keep(&self, bytes: usize) {
        let mut ring = self.ring();
        ring.capacity = bytes;
        ring.evict();
    }

    /// Adds lines as they go to stderr: each ends with a newline.
    pub fn push(&self, lines: &[u8]) {
        let mut ring = self.ring();
        if ring.capacity == 0 {
            return;
        }
        let mut begin = 0;
        for end in memchr::memchr_iter(b'\n', lines).chain([lines.len()]) {
            let line = &lines[begin..end];
            begin = end + 1;
            if line.is_empty() {
                continue;
            }
            let kept = &line[..line.len().min(LINE)];
            // Most lines are ASCII, which is validated in blocks.
            let mut text = match std::str::from_utf8(kept) {
                Ok(kept) => plain(kept),
                Err(_) => plain(&String::from_utf8_lossy(kept)),
            };
            if line.len() > LINE {
                text.push('…');
            }
            ring.seq += 1;
            let (seq, level) = (ring.seq, level(&text));
            ring.bytes += text.len() + OVERHEAD;
            ring.lines.push_back(LogLine { seq, level, text });
        }
        ring.evict();
    }

    /// The lines after `seq`, the oldest first: at most the last `most` of those that are at least as important as `level` and contain
    /// `text`, whatever its case.
    #[must_use]
    pub fn after(&self, seq: u64, most: usize, level: Option<&str>, text: &str) -> Vec<LogLine> {
        let (least, text) = (level.map_or(LEVELS.len(), rank), text.to_lowercase());
        let wanted = |line: &&LogLine| {
            line.seq > seq && rank(line.level) <= least && (text.is_empty() || line.text.to_lowercase().contains(&text))
        };
        let ring = self.ring();
        let mut found: Vec<LogLine> = ring.lines.iter().rev().filter(wanted).take(most).cloned().collect();
        found.reverse();
        found
    }

    /// Forgets all lines.
    pub fn clear(&self) {
        let mut ring = self.ring();
        ring.lines.clear();
        ring.bytes = 0;
    }
}

impl Ring {
    fn evict(&mut self) {
        while self.bytes > self.capacity
            && let Some(oldest) = self.lines.pop_front()
        {
            self.bytes -= oldest.text.len() + OVERHEAD;
        }
    }
}

/// The levels, the most important first.
pub(crate) const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

fn rank(level: &str) -> usize {
    LEVELS.iter().position(|known| *known == level).unwrap_or(LEVELS.len())
}

/// The level of a line in either format.
fn level(line: &str) -> &'static str {
    let json = line.strip_prefix('{').and_then(|line| line.split_once("\"level\":\""));
    let word = match json {
        Some((_, rest)) => rest.split('"').next(),
        // The time comes first.
        None => line.split_whitespace().nth(1),
    };
    let word = word.unwrap_or_default();
    LEVELS.into_iter().find(|level| word.eq_ignore_ascii_case(level)).unwrap_or("info")
}

/// A line without the escape sequences that color it.
fn plain(line: &str) -> String {
    if memchr::memchr(0x1b, line.as_bytes()).is_none() {
        return line.to_owned();
    }
    let mut pieces = line.split("\u{1b}[");
    let mut text = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        text.push_str(piece.split_once(|c: char| c.is_ascii_alphabetic()).map_or("", |(_, rest)| rest));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(lines: &[LogLine]) -> Vec<&str> {
        lines.iter().map(|line| &*line.text).collect()
    }

    #[test]
    fn lines_are_kept_by_bytes_and_found_by_level_and_text() {
        let ring = LogRing::default();
        ring.push(b"2026-11-27T00:00:00Z  INFO lost, because nothing is kept yet\n");
        ring.keep(1 << 10);
        ring.push(
            b"2026-11-27T00:00:01Z  INFO one\n\x1b[2m2026-11-27T00:00:02Z\x1b[0m \x1b[33m WARN\x1b[0m Two\n{\"timestamp\":\"t\",\"level\":\"ERROR\",\"message\":\"three\"}\n",
        );
        let all = ring.after(0, 10, None, "");
        assert_eq!(all.iter().map(|line| line.level).collect::<Vec<_>>(), ["info", "warn", "error"]);
        assert_eq!(all[1].text, "2026-11-27T00:00:02Z  WARN Two");
        assert_eq!(texts(&ring.after(0, 10, Some("warn"), "two")), ["2026-11-27T00:00:02Z  WARN Two"]);
        assert_eq!(texts(&ring.after(all[1].seq, 10, None, "")).len(), 1);
        assert_eq!(ring.after(0, 1, None, "")[0].level, "error");
        for n in 0..1000 {
            ring.push(format!("t INFO {n}\n").as_bytes());
        }
        let bytes: usize = ring.after(0, 5000, None, "").iter().map(|line| line.text.len() + OVERHEAD).sum();
        assert!((900..=1 << 10).contains(&bytes), "{bytes}");
        ring.clear();
        assert!(ring.after(0, 10, None, "").is_empty());
    }

    #[test]
    fn a_line_without_end_is_cut() {
        let ring = LogRing::default();
        ring.keep(1 << 20);
        ring.push(&[b'x'; 100 << 10]);
        assert_eq!(ring.after(0, 1, None, "")[0].text.chars().count(), LINE + 1);
    }
}
