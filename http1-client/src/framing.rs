//! Where a response body ends, and which bytes of the wire are its data (RFC 9112, sections 6 and 7). Pure.

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::error::Invalid;

/// Maximum length of a line between chunks (a size with its extensions), and maximum size of a trailer section.
const MAX_LINE: usize = 16 << 10;

/// Maximum number of trailer fields.
const MAX_TRAILERS: usize = 32;

/// What of a body is still to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// This many bytes.
    Length(u64),
    /// Chunks, of which the next part is this.
    Chunked(Part),
    /// Everything until the connection ends.
    UntilClose,
}

/// A part of a chunked body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The line with the size of a chunk.
    Size,
    /// This many bytes of a chunk.
    Data(u64),
    /// The line end after the data of a chunk.
    DataEnd,
    /// Trailers, and the empty line after them.
    Trailers,
    /// Nothing.
    Nothing,
}

/// The next piece of a body.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken {
    /// Data.
    Data(Bytes),
    /// The trailers, after which the body ends. Boxed, so that data, which comes with every chunk, stays small.
    Trailers(Box<HeaderMap>),
    /// More bytes are needed.
    More,
    /// The body is complete.
    End,
}

impl Framing {
    /// A chunked body, from its beginning.
    pub const CHUNKED: Self = Self::Chunked(Part::Size);

    /// Takes the next piece out of `read`, which holds the received bytes.
    ///
    /// # Errors
    /// Fails if the bytes are not a valid chunked body.
    #[inline]
    pub fn take(&mut self, read: &mut BytesMut) -> Result<Taken, Invalid> {
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
                        Some(_) => return Err(Invalid::Chunk("a chunk is longer than its size")),
                    },
                    Part::Size => match line(read)? {
                        None => return Ok(Taken::More),
                        Some(end) => {
                            let size = size(&read[..end])?;
                            read.advance(end + 2);
                            *part = if size == 0 { Part::Trailers } else { Part::Data(size) };
                        }
                    },
                    Part::Trailers => {
                        let Some(trailers) = trailers(read)? else { return Ok(Taken::More) };
                        *part = Part::Nothing;
                        if !trailers.is_empty() {
                            return Ok(Taken::Trailers(Box::new(trailers)));
                        }
                    }
                },
            }
        }
    }

    /// Whether the body may end where the connection does.
    #[must_use]
    pub fn may_end(&self) -> bool {
        self.is_over() || *self == Self::UntilClose
    }

    /// Whether nothing of the body is still to come.
    #[must_use]
    pub fn is_over(&self) -> bool {
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

/// Where the first line of `read` ends, if it is complete. A line ends with CR LF, and neither stands alone.
fn line(read: &[u8]) -> Result<Option<usize>, Invalid> {
    match memchr::memchr2(b'\r', b'\n', read) {
        Some(end) if end > MAX_LINE => Err(Invalid::Chunk("a line is too long")),
        Some(end) => match read.get(end..end + 2) {
            Some(b"\r\n") => Ok(Some(end)),
            None if read[end] == b'\r' => Ok(None),
            _ => Err(Invalid::Chunk("an invalid line end")),
        },
        None if read.len() > MAX_LINE => Err(Invalid::Chunk("a line is too long")),
        None => Ok(None),
    }
}

/// The size in the first line of a chunk.
fn size(line: &[u8]) -> Result<u64, Invalid> {
    // Some servers write blanks after it.
    let digits = line.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii_end();
    if digits.is_empty() {
        return Err(Invalid::Chunk("a chunk without a size"));
    }
    digits.iter().try_fold(0_u64, |size, digit| {
        let digit = char::from(*digit).to_digit(16).ok_or(Invalid::Chunk("a chunk size is not a number"))?;
        size.checked_mul(16).map(|size| size + u64::from(digit)).ok_or(Invalid::Chunk("a chunk size is too large"))
    })
}

/// Takes the trailer section out of `read` once it is complete.
fn trailers(read: &mut BytesMut) -> Result<Option<HeaderMap>, Invalid> {
    let length = match read.get(..2) {
        None => return Ok(None),
        Some(b"\r\n") => 2,
        Some(_) => match memchr::memmem::find(read, b"\r\n\r\n") {
            Some(end) if end <= MAX_LINE => end + 4,
            None if read.len() <= MAX_LINE => return Ok(None),
            _ => return Err(Invalid::Chunk("too many trailers")),
        },
    };
    let mut trailers = HeaderMap::new();
    if length > 2 {
        let mut fields = [httparse::EMPTY_HEADER; MAX_TRAILERS];
        let fields = match httparse::parse_headers(&read[..length], &mut fields) {
            Ok(httparse::Status::Complete((parsed, fields))) if parsed == length => fields,
            Err(httparse::Error::TooManyHeaders) => return Err(Invalid::Chunk("too many trailers")),
            _ => return Err(Invalid::Chunk("an invalid trailer")),
        };
        for field in fields {
            let name = HeaderName::from_bytes(field.name.as_bytes());
            let value = HeaderValue::from_bytes(field.value);
            let (Ok(name), Ok(value)) = (name, value) else { return Err(Invalid::Chunk("an invalid trailer")) };
            if !is_framing(&name) {
                trailers.append(name, value);
            }
        }
    }
    read.advance(length);
    Ok(Some(trailers))
}

/// Whether a field changes how a message is framed or routed, so that it must not come as a trailer (RFC 9110, section
/// 6.5.1).
fn is_framing(name: &HeaderName) -> bool {
    matches!(
        *name,
        header::CONTENT_LENGTH
            | header::TRANSFER_ENCODING
            | header::CONNECTION
            | header::HOST
            | header::TRAILER
            | header::TE
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads `wire`, which arrives in packets of `sizes`, in turns: the data, the bytes left over, and how it ended.
    fn read(mut framing: Framing, wire: &[u8], sizes: &[usize]) -> (Vec<u8>, Vec<u8>, Result<bool, Invalid>) {
        let (mut buffer, mut out, mut at) = (BytesMut::new(), Vec::new(), 0);
        let mut sizes = sizes.iter().cycle();
        loop {
            match framing.take(&mut buffer) {
                Ok(Taken::Data(data)) => {
                    assert!(!data.is_empty());
                    out.extend_from_slice(&data);
                }
                Ok(Taken::Trailers(trailers)) => assert!(!trailers.is_empty() && framing.is_over()),
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
    fn each_invalid_chunk_has_its_reason() {
        for (wire, reason) in [
            ("\r\n", "a chunk without a size"),
            ("+1\r\na\r\n", "a chunk size is not a number"),
            ("0x1\r\na\r\n", "a chunk size is not a number"),
            ("-1\r\na\r\n", "a chunk size is not a number"),
            ("10000000000000000\r\n", "a chunk size is too large"),
            ("1\r\nab\r\n", "a chunk is longer than its size"),
            ("1\na\r\n", "an invalid line end"),
            ("1;a\rb\r\na\r\n", "an invalid line end"),
            ("0\r\nbad name: 1\r\n\r\n", "an invalid trailer"),
            ("0\r\na: 1\r\n folded\r\n\r\n", "an invalid trailer"),
        ] {
            assert_eq!(read(Framing::CHUNKED, wire.as_bytes(), &[1]).2, Err(Invalid::Chunk(reason)), "{wire:?}");
        }
        let long = "1;".to_owned() + &"x".repeat(MAX_LINE);
        assert_eq!(read(Framing::CHUNKED, long.as_bytes(), &[4096]).2, Err(Invalid::Chunk("a line is too long")));
        for trailers in ["a: b\r\n".repeat(MAX_LINE / 4 + 1), "a: b\r\n".repeat(MAX_TRAILERS + 1) + "\r\n"] {
            let wire = "0\r\n".to_owned() + &trailers;
            assert_eq!(read(Framing::CHUNKED, wire.as_bytes(), &[4096]).2, Err(Invalid::Chunk("too many trailers")));
        }
    }

    #[test]
    fn trailers_are_kept_but_for_those_that_would_change_the_framing() {
        let mut wire = BytesMut::from("1\r\na\r\n0\r\nX-Sum: 1\r\nContent-Length: 9\r\nX-Sum: 2\r\n\r\nnext");
        let mut framing = Framing::CHUNKED;
        assert_eq!(framing.take(&mut wire).unwrap(), Taken::Data(Bytes::from_static(b"a")));
        let Taken::Trailers(trailers) = framing.take(&mut wire).unwrap() else { panic!("no trailers") };
        assert_eq!(trailers.get_all("x-sum").iter().collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(trailers.len(), 2);
        assert_eq!((framing.take(&mut wire).unwrap(), &wire[..]), (Taken::End, &b"next"[..]));
    }
}
