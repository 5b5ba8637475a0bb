//! A request once it has arrived. Blobs of any size are digested on the way; only what may be JSON is kept whole.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, Method, header};
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::head::{Framing, Head};
use crate::journal::{KEPT, OpenEntry};

/// Larger bodies are no JSON that a client means to send; they are counted and digested all the same.
const WHOLE: usize = 256 << 20;
/// How much of an unread body Go reads before it answers, to keep the connection.
const DISCARDED: u64 = 256 << 10;
/// The longest line that announces a chunk.
const CHUNK_LINE: usize = 4096;

/// A request with its body.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    /// The target without its query, as it came.
    pub(crate) path: String,
    /// The path that routes are found by: percent signs decoded, as in Go.
    pub(crate) route: String,
    pub(crate) query: Option<String>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// 64 hex digits, of a blob's body.
    pub(crate) sha256: Option<String>,
    /// What was wrong with the framing of the body, in Go's words.
    pub(crate) fault: Option<&'static str>,
}

impl Asked {
    /// A request whose body has not been read.
    pub(crate) fn unread(head: &Head) -> Self {
        Self {
            method: head.method.clone(),
            path: head.path.clone(),
            route: decode(&head.path),
            query: head.query.clone(),
            headers: head.headers.clone(),
            body: Bytes::new(),
            sha256: None,
            fault: None,
        }
    }

    /// A header's value as text.
    pub(crate) fn header(&self, name: &http::HeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// The body of a request on its way.
#[derive(Debug)]
pub(crate) struct Incoming {
    framing: Framing,
    /// Bytes of the body, or of the chunk, that are still to come.
    left: u64,
    state: State,
    /// The client waits for a 100 Continue.
    waits: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Data,
    /// Before the line that announces a chunk.
    ChunkLine,
    /// After the data of a chunk.
    ChunkEnd,
    Trailers,
    Over,
}

/// What reading a body gave.
enum Read {
    Data(Bytes),
    End,
    Fault(&'static str),
}

impl Incoming {
    pub(crate) fn new(head: &Head) -> Self {
        let expects = head.header(&header::EXPECT).is_some_and(|value| value.eq_ignore_ascii_case("100-continue"));
        let (left, state) = match head.framing {
            Framing::Length(0) => (0, State::Over),
            Framing::Length(length) => (length, State::Data),
            Framing::Chunked => (0, State::ChunkLine),
        };
        Self { framing: head.framing, left, state, waits: expects && !head.is_1_0 && head.has_body() }
    }

    /// Whether nothing more is to come.
    pub(crate) fn is_over(&self) -> bool {
        self.state == State::Over
    }

    /// Reads the whole body and enters it in the journal.
    ///
    /// # Errors
    /// The peer goes away before the end.
    pub(crate) async fn receive(
        &mut self,
        head: &Head,
        stream: &mut TcpStream,
        buffer: &mut BytesMut,
        entry: &OpenEntry,
    ) -> io::Result<Asked> {
        let is_blob = head.path.starts_with("/api/blobs/");
        let most = if is_blob || !head.path.starts_with("/api/") { KEPT } else { WHOLE };
        let mut digest = is_blob.then(Sha256::new);
        let mut kept = BytesMut::new();
        let mut len = 0_u64;
        if std::mem::take(&mut self.waits) {
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        let fault = loop {
            match self.next(stream, buffer).await? {
                Read::Data(data) => {
                    len += data.len() as u64;
                    if let Some(digest) = &mut digest {
                        digest.update(&data);
                    }
                    let room = most.saturating_sub(kept.len());
                    kept.extend_from_slice(&data[..data.len().min(room)]);
                }
                Read::End => break None,
                Read::Fault(fault) => break Some(fault),
            }
        };
        let kept = kept.freeze();
        // A slice would keep the whole of a large body in memory.
        let noted = if kept.len() > KEPT { Bytes::copy_from_slice(&kept[..KEPT]) } else { kept.clone() };
        entry.body(noted, len);
        let sha256 = digest.map(|digest| hex(&digest.finalize()));
        Ok(Asked { body: kept, sha256, fault, ..Asked::unread(head) })
    }

    /// Reads what an answered request still sends, as far as Go does, and returns whether the body has ended.
    ///
    /// # Errors
    /// The peer goes away before the end.
    pub(crate) async fn discard(
        &mut self,
        stream: &mut TcpStream,
        buffer: &mut BytesMut,
        entry: &OpenEntry,
    ) -> io::Result<bool> {
        if self.waits || (self.framing != Framing::Chunked && self.left >= DISCARDED) {
            return Ok(false);
        }
        let mut kept = BytesMut::new();
        loop {
            match self.next(stream, buffer).await? {
                Read::Data(data) => kept.extend_from_slice(&data),
                Read::End => {
                    let len = kept.len() as u64;
                    entry.body(kept.freeze(), len);
                    return Ok(true);
                }
                Read::Fault(_) => return Ok(false),
            }
            if kept.len() as u64 > DISCARDED {
                return Ok(false);
            }
        }
    }

    async fn next(&mut self, stream: &mut TcpStream, buffer: &mut BytesMut) -> io::Result<Read> {
        loop {
            match self.state {
                State::Over => return Ok(Read::End),
                State::Data => {
                    if buffer.is_empty() {
                        fill(stream, buffer).await?;
                    }
                    let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
                    let data = buffer.split_to(most).freeze();
                    self.left -= data.len() as u64;
                    if self.left == 0 {
                        self.state = match self.framing {
                            Framing::Length(_) => State::Over,
                            Framing::Chunked => State::ChunkEnd,
                        };
                    }
                    return Ok(Read::Data(data));
                }
                State::ChunkEnd => {
                    while buffer.len() < 2 {
                        fill(stream, buffer).await?;
                    }
                    if !buffer.starts_with(b"\r\n") {
                        self.state = State::Over;
                        return Ok(Read::Fault("malformed chunked encoding"));
                    }
                    buffer.advance(2);
                    self.state = State::ChunkLine;
                }
                State::ChunkLine => {
                    let Some(line) = line(stream, buffer).await? else {
                        self.state = State::Over;
                        return Ok(Read::Fault("header line too long"));
                    };
                    let size = line.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
                    let size =
                        std::str::from_utf8(size).ok().filter(|size| size.bytes().all(|b| b.is_ascii_hexdigit()));
                    let Some(size) = size.and_then(|size| u64::from_str_radix(size, 16).ok()) else {
                        self.state = State::Over;
                        return Ok(Read::Fault("invalid byte in chunk length"));
                    };
                    self.left = size;
                    self.state = if size == 0 { State::Trailers } else { State::Data };
                }
                State::Trailers => match line(stream, buffer).await? {
                    Some(line) if line.is_empty() => self.state = State::Over,
                    Some(_) => {}
                    None => {
                        self.state = State::Over;
                        return Ok(Read::Fault("http: suspiciously long trailer after chunked body"));
                    }
                },
            }
        }
    }
}

async fn fill(stream: &mut TcpStream, buffer: &mut BytesMut) -> io::Result<()> {
    // Blobs come in large pieces.
    buffer.reserve(16 << 10);
    match stream.read_buf(buffer).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

/// A line without its end; none if it is too long.
async fn line(stream: &mut TcpStream, buffer: &mut BytesMut) -> io::Result<Option<Bytes>> {
    loop {
        if let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
            let mut line = buffer.split_to(end + 1).freeze();
            line.truncate(end);
            if line.ends_with(b"\r") {
                line.truncate(end - 1);
            }
            return Ok(Some(line));
        }
        if buffer.len() > CHUNK_LINE {
            return Ok(None);
        }
        fill(stream, buffer).await?;
    }
}

/// `%41` is `A`; what is no such code stays.
fn decode(path: &str) -> String {
    let mut parts = path.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        match part.get(..2).and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                bytes.extend_from_slice(&part.as_bytes()[2..]);
            }
            None => bytes.extend_from_slice(format!("%{part}").as_bytes()),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Bytes as lower-case hex digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_codes_are_decoded_where_they_are_codes() {
        assert_eq!(decode("/api/%74ags%2Fx"), "/api/tags/x");
        assert_eq!(decode("/a%zz%4"), "/a%zz%4");
    }
}
