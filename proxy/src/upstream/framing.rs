//! Where the body of an answer ends, and which bytes of the wire are its data (RFC 9112, 6 and 7). Pure.

use bytes::{Buf, Bytes, BytesMut};

/// Longest line around a chunk (its size and extensions, a trailer), and most bytes of trailers.
const MAX_LINE: usize = 16 << 10;

/// What of a body is still to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// So many bytes.
    Length(u64),
    /// Chunks, of which the next part is this.
    Chunked(Part),
    /// Whatever comes until the connection ends.
    UntilClose,
}

/// A part of a chunked body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// A line with the size of a chunk.
    Size,
    /// So many bytes of a chunk.
    Data(u64),
    /// The line end after a chunk's data.
    DataEnd,
    /// Trailers, of which so many bytes were skipped, and the empty line after them.
    Trailers(usize),
    /// Nothing.
    Nothing,
}

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// A piece of the body.
    Data(Bytes),
    /// More bytes are needed to go on.
    More,
    /// The body is over.
    End,
}

impl Framing {
    /// A chunked body.
    pub(crate) const CHUNKED: Self = Self::Chunked(Part::Size);

    /// Takes what comes next out of `read`, which holds what has arrived. Trailers are skipped.
    ///
    /// # Errors
    /// What is no HTTP, in words.
    pub(crate) fn take(&mut self, read: &mut BytesMut) -> Result<Taken, &'static str> {
        loop {
            match self {
                Self::Length(0) => return Ok(Taken::End),
                Self::Length(left) => return Ok(data(left, read)),
                Self::UntilClose => return Ok(data(&mut { u64::MAX }, read)),
                Self::Chunked(part) => match part {
                    Part::Nothing => return Ok(Taken::End),
                    Part::Data(0) => *part = Part::DataEnd,
                    Part::Data(left) => return Ok(data(left, read)),
                    Part::DataEnd => match read.get(..2) {
                        None => return Ok(Taken::More),
                        Some(b"\r\n") => {
                            read.advance(2);
                            *part = Part::Size;
                        }
                        Some(_) => return Err("a chunk that is longer than its size"),
                    },
                    Part::Size => match line(read)? {
                        None => return Ok(Taken::More),
                        Some(end) => {
                            let size = size(&read[..end])?;
                            read.advance(end + 2);
                            *part = if size == 0 { Part::Trailers(0) } else { Part::Data(size) };
                        }
                    },
                    Part::Trailers(skipped) => match line(read)? {
                        None => return Ok(Taken::More),
                        Some(0) => {
                            read.advance(2);
                            *part = Part::Nothing;
                        }
                        Some(end) => {
                            *skipped += end;
                            if *skipped > MAX_LINE {
                                return Err("too many trailers");
                            }
                            read.advance(end + 2);
                        }
                    },
                },
            }
        }
    }

    /// Whether the body may end where the connection does.
    pub(crate) fn may_end(&self) -> bool {
        self.is_over() || *self == Self::UntilClose
    }

    /// Whether nothing of the body is to come.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self, Self::Length(0) | Self::Chunked(Part::Nothing))
    }
}

/// Up to `left` bytes of data.
fn data(left: &mut u64, read: &mut BytesMut) -> Taken {
    if read.is_empty() {
        return Taken::More;
    }
    let size = usize::try_from(*left).unwrap_or(usize::MAX).min(read.len());
    *left -= size as u64;
    Taken::Data(read.split_to(size).freeze())
}

/// Where the first line of `read` ends, if it is whole. A line end is CR LF, and neither stands alone.
fn line(read: &[u8]) -> Result<Option<usize>, &'static str> {
    match memchr::memchr2(b'\r', b'\n', read) {
        Some(end) if end > MAX_LINE => Err("a line that is too long between chunks"),
        Some(end) => match read.get(end..end + 2) {
            Some(b"\r\n") => Ok(Some(end)),
            None if read[end] == b'\r' => Ok(None),
            _ => Err("a line end that is none between chunks"),
        },
        None if read.len() > MAX_LINE => Err("a line that is too long between chunks"),
        None => Ok(None),
    }
}

/// The size that a chunk's first line tells.
fn size(line: &[u8]) -> Result<u64, &'static str> {
    // Some servers write blanks after it.
    let digits = line.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii_end();
    if digits.is_empty() {
        return Err("a chunk without a size");
    }
    digits.iter().try_fold(0_u64, |size, digit| {
        let digit = char::from(*digit).to_digit(16).ok_or("a chunk whose size is no number")?;
        size.checked_mul(16).map(|size| size + u64::from(digit)).ok_or("a chunk of more bytes than there are")
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads `wire`, which arrives in packets of `sizes`, in turns: the data, the bytes left over, and how it ended.
    fn read(mut framing: Framing, wire: &[u8], sizes: &[usize]) -> (Vec<u8>, Vec<u8>, Result<bool, &'static str>) {
        let (mut buffer, mut out, mut at) = (BytesMut::new(), Vec::new(), 0);
        let mut sizes = sizes.iter().cycle();
        loop {
            match framing.take(&mut buffer) {
                Ok(Taken::Data(data)) => {
                    assert!(!data.is_empty());
                    out.extend_from_slice(&data);
                }
                Ok(Taken::More) if at == wire.len() => return (out, buffer.to_vec(), Ok(framing.may_end())),
                Ok(Taken::More) => {
                    let end = wire.len().min(at + sizes.next().unwrap());
                    buffer.extend_from_slice(&wire[at..end]);
                    at = end;
                }
                Ok(Taken::End) => {
                    assert!(framing.is_over());
                    let left = [&buffer[..], &wire[at..]].concat();
                    return (out, left, Ok(true));
                }
                Err(wrong) => return (out, Vec::new(), Err(wrong)),
            }
        }
    }

    fn chunked(chunks: &[Vec<u8>], extension: &str, trailer: &str) -> Vec<u8> {
        let mut wire = Vec::new();
        for chunk in chunks {
            wire.extend_from_slice(format!("{:x}{extension}\r\n", chunk.len()).as_bytes());
            wire.extend_from_slice(chunk);
            wire.extend_from_slice(b"\r\n");
        }
        wire.extend_from_slice(format!("0{extension}\r\n{trailer}\r\n").as_bytes());
        wire
    }

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'0'), any::<u8>()], 1..40)
    }

    proptest! {
        #[test]
        fn chunks_are_read_however_they_are_cut_and_no_byte_more(
            chunks in prop::collection::vec(bytes(), 0..6),
            extension in prop_oneof![Just(""), Just(";a=b"), Just(" ")],
            trailer in prop_oneof![Just(""), Just("X-Sum: 1\r\n"), Just("A: b\r\nC: d\r\n")],
            next in prop::collection::vec(any::<u8>(), 0..9),
            sizes in prop::collection::vec(1_usize..30, 1..5),
        ) {
            let wire = [chunked(&chunks, extension, trailer), next.clone()].concat();
            prop_assert_eq!(read(Framing::CHUNKED, &wire, &sizes), (chunks.concat(), next, Ok(true)));
        }

        #[test]
        fn a_known_length_is_read_however_it_is_cut_and_no_byte_more(
            body in prop::collection::vec(any::<u8>(), 0..60), next in bytes(), sizes in prop::collection::vec(1_usize..30, 1..5),
        ) {
            let wire = [body.clone(), next.clone()].concat();
            prop_assert_eq!(read(Framing::Length(body.len() as u64), &wire, &sizes), (body, next, Ok(true)));
        }

        #[test]
        fn a_body_without_a_length_ends_with_the_connection(body in bytes(), sizes in prop::collection::vec(1_usize..30, 1..5)) {
            prop_assert_eq!(read(Framing::UntilClose, &body, &sizes), (body, Vec::new(), Ok(true)));
        }

        #[test]
        fn a_cut_body_is_never_taken_for_a_whole_one(
            chunks in prop::collection::vec(bytes(), 0..4), cut in 0_usize..200, sizes in prop::collection::vec(1_usize..30, 1..5),
        ) {
            let wire = chunked(&chunks, "", "");
            let cut = &wire[..cut.min(wire.len() - 1)];
            prop_assert_eq!(read(Framing::CHUNKED, cut, &sizes).2, Ok(false));
            prop_assert_eq!(read(Framing::Length(wire.len() as u64), cut, &sizes).2, Ok(false));
        }

        #[test]
        fn whatever_comes_is_read_alike_however_it_is_cut(wire in "[0-3a-c;\r\n ]{0,60}", sizes in prop::collection::vec(1_usize..9, 1..5)) {
            let (whole, cut) = (read(Framing::CHUNKED, wire.as_bytes(), &[wire.len().max(1)]), read(Framing::CHUNKED, wire.as_bytes(), &sizes));
            prop_assert_eq!(whole, cut);
        }
    }

    #[test]
    fn what_is_no_chunk_is_told() {
        for (wire, told) in [
            ("\r\n", "a chunk without a size"),
            ("+1\r\na\r\n", "a chunk whose size is no number"),
            ("0x1\r\na\r\n", "a chunk whose size is no number"),
            ("-1\r\na\r\n", "a chunk whose size is no number"),
            ("10000000000000000\r\n", "a chunk of more bytes than there are"),
            ("1\r\nab\r\n", "a chunk that is longer than its size"),
            ("1\na\r\n", "a line end that is none between chunks"),
            ("1;a\rb\r\na\r\n", "a line end that is none between chunks"),
        ] {
            assert_eq!(read(Framing::CHUNKED, wire.as_bytes(), &[1]).2, Err(told), "{wire:?}");
        }
        let long = "1;".to_owned() + &"x".repeat(MAX_LINE);
        assert_eq!(read(Framing::CHUNKED, long.as_bytes(), &[4096]).2, Err("a line that is too long between chunks"));
        let trailers = "0\r\n".to_owned() + &"a: b\r\n".repeat(MAX_LINE / 4 + 1);
        assert_eq!(read(Framing::CHUNKED, trailers.as_bytes(), &[4096]).2, Err("too many trailers"));
    }
}
