//! The last lines of the log, for the console and `farllama logs`. Bounded by their bytes. They are read as text only
//! when they are read.

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
    chunks: VecDeque<Chunk>,
}

/// Lines that follow each other, as they came.
#[derive(Debug)]
struct Chunk {
    /// The position of its first line.
    first: u64,
    count: u64,
    bytes: Vec<u8>,
}

/// Maximum size of a chunk: the unit in which lines are evicted.
const CHUNK: usize = 16 << 10;

/// What `count` lines of `bytes` in all take.
fn cost(bytes: usize, count: u64) -> usize {
    bytes + usize::try_from(count).unwrap_or(usize::MAX) * OVERHEAD
}

impl Chunk {
    fn cost(&self) -> usize {
        cost(self.bytes.len(), self.count)
    }

    fn lines(&self) -> impl Iterator<Item = LogLine> {
        let lines = self.bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.zip(self.first..).map(|(line, seq)| {
            let text = plain(&String::from_utf8_lossy(line));
            LogLine { seq, level: level(&text), text }
        })
    }
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
        let mut rest = lines;
        while !rest.is_empty() {
            rest = ring.take(rest);
        }
        ring.evict();
    }

    /// The lines after `seq`, the oldest first: at most the last `most` of those that are at least as important as
    /// `level` and contain `text`, whatever its case.
    #[must_use]
    pub fn after(&self, seq: u64, most: usize, level: Option<&str>, text: &str) -> Vec<LogLine> {
        let (least, text) = (level.map_or(LEVELS.len(), rank), text.to_lowercase());
        let wanted = |line: &&LogLine| {
            line.seq > seq && rank(line.level) <= least && (text.is_empty() || line.text.to_lowercase().contains(&text))
        };
        let ring = self.ring();
        let newer = ring.chunks.iter().rev().take_while(|chunk| chunk.first + chunk.count > seq + 1);
        let mut found = VecDeque::new();
        for chunk in newer {
            let mut lines: Vec<LogLine> = chunk.lines().filter(|line| wanted(&line)).collect();
            while found.len() < most
                && let Some(line) = lines.pop()
            {
                found.push_front(line);
            }
            if found.len() == most {
                break;
            }
        }
        found.into()
    }

    /// Forgets all lines.
    pub fn clear(&self) {
        let mut ring = self.ring();
        ring.chunks.clear();
        ring.bytes = 0;
    }
}

impl Ring {
    /// Adds the lines at the beginning of `lines` as one chunk, and returns the rest. A line that is too long is a
    /// chunk of its own.
    fn take<'a>(&mut self, lines: &'a [u8]) -> &'a [u8] {
        let most = CHUNK.min(self.capacity / 4);
        let (mut end, mut count) = (0, 0);
        for next in memchr::memchr_iter(b'\n', lines).chain([lines.len()]) {
            let length = next - end;
            if length > LINE {
                if end == 0 {
                    let cut = [&lines[..LINE], "…".as_bytes()].concat();
                    self.add(1, &cut);
                    return lines.get(next + 1..).unwrap_or_default();
                }
                break;
            }
            if end > 0 && next > most {
                break;
            }
            count += u64::from(length > 0);
            end = (next + 1).min(lines.len());
        }
        if count > 0 {
            self.add(count, &lines[..end]);
        }
        &lines[end..]
    }

    /// Adds `count` lines, to the last chunk if there is room in it.
    fn add(&mut self, count: u64, lines: &[u8]) {
        let room = CHUNK.min(self.capacity / 16);
        let cost = cost(lines.len(), count);
        let last = self.chunks.back_mut();
        match last.filter(|last| last.cost() + cost <= room && last.bytes.ends_with(b"\n")) {
            Some(last) => {
                last.count += count;
                last.bytes.extend_from_slice(lines);
            }
            None => {
                let mut bytes = Vec::with_capacity(lines.len().max(room));
                bytes.extend_from_slice(lines);
                self.chunks.push_back(Chunk { first: self.seq + 1, count, bytes });
            }
        }
        self.seq += count;
        self.bytes += cost;
    }

    fn evict(&mut self) {
        while self.bytes > self.capacity
            && let Some(oldest) = self.chunks.pop_front()
        {
            self.bytes -= oldest.cost();
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
    fn lines_keep_their_positions_however_they_come_together() {
        let all: Vec<String> = (0..3000).map(|n| format!("t INFO line {n}")).collect();
        let text = all.join("\n") + "\n";
        for size in [1, 7, 1000, CHUNK, text.len()] {
            let ring = LogRing::default();
            ring.keep(10 << 20);
            let mut from = 0;
            while from < text.len() {
                // Writes end with a newline.
                let end = text[(from + size).min(text.len()) - 1..]
                    .find('\n')
                    .map_or(text.len(), |at| (from + size).min(text.len()) + at);
                ring.push(&text.as_bytes()[from..end]);
                from = end;
            }
            let found = ring.after(0, 5000, None, "");
            assert_eq!(texts(&found), all, "{size}");
            assert!(found.iter().zip(1..).all(|(line, seq)| line.seq == seq), "{size}");
            assert_eq!(texts(&ring.after(2990, 5, None, "")), all[2995..], "{size}");
            assert_eq!(ring.after(2998, 5, None, "").len(), 2, "{size}");
        }
    }

    #[test]
    fn a_long_line_among_others_is_cut_alone() {
        let ring = LogRing::default();
        ring.keep(1 << 20);
        let long = "x".repeat(LINE + 1);
        ring.push(format!("one\n\n{long}\ntwo\n").as_bytes());
        let found = ring.after(0, 9, None, "");
        assert_eq!(found.iter().map(|line| line.text.chars().count()).collect::<Vec<_>>(), [3, LINE + 1, 3]);
        assert_eq!(found[2].seq, 3);
    }

    #[test]
    fn a_line_without_end_is_cut() {
        let ring = LogRing::default();
        ring.keep(1 << 20);
        ring.push(&[b'x'; 100 << 10]);
        assert_eq!(ring.after(0, 1, None, "")[0].text.chars().count(), LINE + 1);
    }
}
