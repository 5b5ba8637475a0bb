//! Bytes → lines, wherever the packets split.
//!
//! Does not parse JSON, and copies a byte only when its line spans two packets: once, when the line is whole.

use bytes::{Buf, Bytes};

use crate::error::Error;

/// Longest line that is kept. Ollama's own client stops at 8 MB; images and long tool calls stay far below 64 MiB.
const MAX_LINE: usize = 64 << 20;

/// Packets of this size are kept until their line is whole. Smaller ones are gathered, because each that is kept takes
/// memory besides its bytes.
const LARGE: usize = 4 << 10;

/// The begun line of earlier packets.
#[derive(Debug, Default)]
struct Held {
    /// What came before `small`.
    pieces: Vec<Bytes>,
    small: Vec<u8>,
    /// The size of all.
    len: usize,
}

impl Held {
    fn push(&mut self, packet: Bytes) {
        self.len += packet.len();
        if packet.len() < LARGE {
            self.small.extend_from_slice(&packet);
            return;
        }
        if !self.small.is_empty() {
            self.pieces.push(std::mem::take(&mut self.small).into());
        }
        self.pieces.push(packet);
    }

    /// Takes all of it, followed by `tail`.
    fn take(&mut self, tail: &[u8]) -> Bytes {
        let mut line = std::mem::take(&mut self.small);
        if !self.pieces.is_empty() {
            let mut whole = Vec::with_capacity(self.len + tail.len());
            self.pieces.drain(..).for_each(|piece| whole.extend_from_slice(&piece));
            whole.extend_from_slice(&line);
            // A large line is rare: the room for its pieces is not kept.
            self.pieces = Vec::new();
            line = whole;
        }
        line.extend_from_slice(tail);
        self.len = 0;
        line.into()
    }
}

/// Cuts a sequence of packets into lines without their newline; empty lines vanish.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    held: Held,
    /// The packet that is being cut.
    packet: Bytes,
}

impl Lines {
    /// How many bytes of a line are here that has not ended.
    pub(crate) fn begun(&self) -> usize {
        self.held.len + self.packet.len()
    }

    /// Takes the next packet. Every line of the one before must have been taken out with [`Lines::next`].
    pub(crate) fn push(&mut self, packet: Bytes) -> Result<(), Error> {
        if !self.packet.is_empty() {
            self.held.push(std::mem::take(&mut self.packet));
        }
        if self.held.len + packet.len() > MAX_LINE && memchr::memchr(b'\n', &packet).is_none() {
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
            let line = if self.held.len == 0 { tail } else { self.held.take(&tail) };
            let line = trim(line);
            if !line.is_empty() {
                return Some(line);
            }
        }
    }

    /// What is left after the last packet: a last line without a newline.
    pub(crate) fn rest(&mut self) -> Option<Bytes> {
        let packet = std::mem::take(&mut self.packet);
        let line = trim(if self.held.len == 0 { packet } else { self.held.take(&packet) });
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
    fn a_long_line_of_large_and_small_packets_is_whole() {
        let text: Vec<u8> = (0..100_000_u32).map(|n| b'a' + (n % 26) as u8).chain(*b"\nnext\n").collect();
        let splits = [1, 10, 5000, 5001, 30_000, 30_100, 34_196, 99_999, 100_000, 100_003];
        let whole = [&text[..100_000], b"next"];
        assert_eq!(cut(&text, &splits), whole);
        assert_eq!(cut(&text[..100_000], &splits[..6]), [&text[..100_000]]);
        let mut lines = Lines::default();
        for packet in text[..50_000].chunks(7000) {
            lines.push(Bytes::copy_from_slice(packet)).unwrap();
            assert!(lines.next().is_none());
        }
        assert_eq!(lines.begun(), 50_000);
    }

    #[test]
    fn a_last_line_without_a_newline_is_kept() {
        assert_eq!(cut(b"one\n\ntwo", &[1, 5]), [b"one".to_vec(), b"two".to_vec()]);
    }
}
