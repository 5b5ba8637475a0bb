//! Bytes → lines, wherever the packets split.
//!
//! Does not parse JSON, and copies a byte only when its line spans two packets.

use bytes::{Buf, Bytes, BytesMut};

use crate::error::Error;

/// Longest line that is kept. Ollama's own client stops at 8 MB; images and long tool calls stay far below 64 MiB.
const MAX_LINE: usize = 64 << 20;

/// Cuts a sequence of packets into lines without their newline; empty lines vanish.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    /// The begun line of earlier packets.
    held: BytesMut,
    /// The packet that is being cut.
    packet: Bytes,
}

impl Lines {
    /// How many bytes of a line are here that has not ended.
    pub(crate) fn begun(&self) -> usize {
        self.held.len() + self.packet.len()
    }

    /// Takes the next packet. Every line of the one before must have been taken out with [`Lines::next`].
    pub(crate) fn push(&mut self, packet: Bytes) -> Result<(), Error> {
        if !self.packet.is_empty() {
            self.held.extend_from_slice(&self.packet);
        }
        if self.held.len() + packet.len() > MAX_LINE && memchr::memchr(b'\n', &packet).is_none() {
            return Err(Error::Cut { message: format!("the remote sent a line of more than {MAX_LINE} bytes") });
        }
        self.packet = packet;
        Ok(())
    }

    /// The next whole line, if there is one.
    pub(crate) fn next(&mut self) -> Option<Bytes> {
        loop {
            let end = memchr::memchr(b'\n', &self.packet)?;
            let tail = self.packet.split_to(end);
            self.packet.advance(1);
            if self.packet.is_empty() {
                // What is empty holds the buffer of what was read all the same, until the next packet comes.
                self.packet = Bytes::new();
            }
            let line = if self.held.is_empty() {
                tail
            } else {
                self.held.extend_from_slice(&tail);
                self.held.split().freeze()
            };
            let line = trim(line);
            if !line.is_empty() {
                return Some(line);
            }
        }
    }

    /// What is left after the last packet: a last line without a newline.
    pub(crate) fn rest(&mut self) -> Option<Bytes> {
        let packet = std::mem::take(&mut self.packet);
        self.held.extend_from_slice(&packet);
        let line = trim(self.held.split().freeze());
        (!line.is_empty()).then_some(line)
    }
}

fn trim(mut line: Bytes) -> Bytes {
    if line.last() == Some(&b'\r') {
        line.truncate(line.len() - 1);
    }
    line
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cut(text: &[u8], splits: &[usize]) -> Vec<Vec<u8>> {
        let mut lines = Lines::default();
        let mut out = Vec::new();
        let mut from = 0;
        for at in splits.iter().copied().chain([text.len()]) {
            let at = at.min(text.len());
            if at < from {
                continue;
            }
            lines.push(Bytes::copy_from_slice(&text[from..at])).unwrap();
            while let Some(line) = lines.next() {
                out.push(line.to_vec());
            }
            from = at;
        }
        out.extend(lines.rest().map(|line| line.to_vec()));
        out
    }

    proptest! {
        #[test]
        fn any_packet_split_gives_the_same_lines(text in "[a-c\n\r]{0,60}", mut splits in proptest::collection::vec(0usize..60, 0..8)) {
            splits.sort_unstable();
            prop_assert_eq!(cut(text.as_bytes(), &splits), cut(text.as_bytes(), &[]));
        }
    }

    #[test]
    fn a_last_line_without_a_newline_is_kept() {
        assert_eq!(cut(b"one\n\ntwo", &[1, 5]), [b"one".to_vec(), b"two".to_vec()]);
    }
}
