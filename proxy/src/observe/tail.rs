//! Token counts of a native answer, read from a kept copy of its last bytes after the last one has left.
//!
//! What cannot be read is unknown, not zero.

use std::{borrow::Cow, time::Duration};

use serde::Deserialize;

use crate::usage::Usage;

/// How much is kept: the last line of a stream, or a short whole answer.
const KEPT: usize = 8 << 10;

/// The last bytes of an answer.
#[derive(Debug, Default)]
pub(crate) struct Tail(Vec<u8>);

#[derive(Deserialize)]
struct Last<'a> {
    #[serde(borrow)]
    model: Option<Cow<'a, str>>,
    prompt_eval_count: Option<u64>,
    eval_count: Option<u64>,
    eval_duration: Option<u64>,
}

/// What the last line of an answer says.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Read {
    pub(crate) model: Option<String>,
    pub(crate) usage: Option<Usage>,
    /// How long the model took to generate its answer, by Ollama's clock.
    pub(crate) generating: Option<Duration>,
}

impl Tail {
    pub(crate) fn push(&mut self, packet: &[u8]) {
        let new = &packet[packet.len().saturating_sub(KEPT)..];
        let old = (self.0.len() + new.len()).saturating_sub(KEPT).min(self.0.len());
        self.0.drain(..old);
        self.0.extend_from_slice(new);
    }

    /// Whether the answer so far ends with a whole line, or has not begun.
    pub(crate) fn ends_a_line(&self) -> bool {
        self.0.last().is_none_or(|last| *last == b'\n')
    }

    /// Reads the model and the counts in the last line.
    pub(crate) fn read(&self) -> Read {
        let kept = self.0.trim_ascii_end();
        let line = memchr::memrchr(b'\n', kept).map_or(kept, |end| &kept[end + 1..]);
        let Ok(last) = serde_json::from_slice::<Last<'_>>(line) else { return Read::default() };
        let counted = last.prompt_eval_count.is_some() || last.eval_count.is_some();
        let usage = counted.then(|| Usage {
            input: last.prompt_eval_count.unwrap_or(0),
            output: last.eval_count.unwrap_or(0),
            ..Usage::default()
        });
        Read { model: last.model.map(Cow::into_owned), usage, generating: last.eval_duration.map(Duration::from_nanos) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_tells_model_and_counts() {
        let mut tail = Tail::default();
        for _ in 0..1000 {
            tail.push(b"{\"model\":\"m\",\"done\":false}\n");
        }
        tail.push(b"{\"model\":\"m\",\"done\":true,\"prompt_eval_");
        tail.push(b"count\":7,\"eval_count\":3,\"eval_duration\":2000000000}\n");
        let read = Read {
            model: Some("m".to_owned()),
            usage: Some(Usage { input: 7, output: 3, cached: 0 }),
            generating: Some(Duration::from_secs(2)),
        };
        assert_eq!(tail.read(), read);
        assert!(tail.0.len() <= KEPT);
    }

    #[test]
    fn what_cannot_be_read_is_unknown() {
        let mut tail = Tail::default();
        tail.push(b"<html>");
        assert_eq!(tail.read(), Read::default());
    }
}
