//! HTTP/1.1 as bytes: heads verbatim, and bodies with the boundaries of their chunks. A library would hide both, and
//! recordings need them.

use std::io;

use mock_ollama::recording::Headers;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The longest head.
const HEAD: usize = 256 << 10;
/// The longest line that announces a chunk.
const CHUNK_LINE: usize = 4096;
/// The most that is read of a body at once.
const PIECE: usize = 64 << 10;

/// A start line and headers, as they came.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Head {
    pub(super) line: String,
    pub(super) headers: Headers,
}

impl Head {
    /// The value of a header.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| &**value)
    }

    /// Whether a list in a header has this word.
    fn lists(&self, name: &str, word: &str) -> bool {
        self.value(name).is_some_and(|list| list.split(',').any(|item| item.trim().eq_ignore_ascii_case(word)))
    }

    /// The nth word of the start line.
    pub(super) fn word(&self, nth: usize) -> &str {
        self.line.split(' ').nth(nth).unwrap_or_default()
    }

    /// Whether the connection can be used again after the message.
    pub(super) fn keeps_alive(&self, version: &str) -> bool {
        !self.lists("connection", "close") && (version != "HTTP/1.0" || self.lists("connection", "keep-alive"))
    }

    /// The head on the wire.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut text = format!("{}\r\n", self.line);
        for (name, value) in &self.headers {
            text += &format!("{name}: {value}\r\n");
        }
        text += "\r\n";
        text.into_bytes()
    }

    /// How the body of a request is framed.
    ///
    /// # Errors
    /// Fails if its length is not a number.
    pub(super) fn request_framing(&self) -> io::Result<Framing> {
        if self.lists("transfer-encoding", "chunked") {
            return Ok(Framing::Chunked);
        }
        self.value("content-length").map_or(Ok(Framing::None), length)
    }

    /// How the body of a response to `method` is framed.
    ///
    /// # Errors
    /// Fails if its length is not a number.
    pub(super) fn response_framing(&self, method: &str) -> io::Result<Framing> {
        if method == "HEAD" || matches!(self.word(1), "204" | "304") || self.word(1).starts_with('1') {
            return Ok(Framing::None);
        }
        if self.lists("transfer-encoding", "chunked") {
            return Ok(Framing::Chunked);
        }
        self.value("content-length").map_or(Ok(Framing::Close), length)
    }
}

fn length(value: &str) -> io::Result<Framing> {
    let wrong = |_| invalid(&format!("invalid Content-Length {value:?}"));
    value.parse().map(Framing::Length).map_err(wrong)
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// How a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    None,
    Length(u64),
    Chunked,
    /// With the connection.
    Close,
}

impl Framing {
    /// Its name in a recording.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Length(_) => "length",
            Self::Chunked => "chunked",
            Self::Close => "close",
        }
    }
}

/// Reads a head. Returns `None` if the connection ended before it began.
///
/// # Errors
/// Fails if the connection ends within the head, or if this is not HTTP.
pub(super) async fn read_head(reader: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<Head>> {
    let mut left = HEAD;
    let mut head = Head::default();
    loop {
        let Some(line) = read_line(reader, left).await? else {
            return if head.line.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        };
        left = left.saturating_sub(line.len() + 2);
        match (head.line.is_empty(), line.split_once(':')) {
            // An empty line before a request is allowed (RFC 9112, 2.2).
            (true, _) => head.line = line,
            (false, _) if line.is_empty() => return Ok(Some(head)),
            (false, Some((name, value))) => head.headers.push((name.to_owned(), value.trim().to_owned())),
            (false, None) => return Err(invalid("a header line without a colon")),
        }
    }
}

/// A line without its end; `None` at the end of the connection.
async fn read_line(reader: &mut (impl AsyncBufRead + Unpin), limit: usize) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    (&mut *reader).take(limit as u64).read_until(b'\n', &mut line).await?;
    match line.pop() {
        None if limit > 0 => return Ok(None),
        Some(b'\n') => {}
        _ if line.len() + 1 >= limit => return Err(invalid("a line is too long")),
        _ => return Err(io::ErrorKind::UnexpectedEof.into()),
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    String::from_utf8(line).map(Some).map_err(|_| invalid("a line is not UTF-8"))
}

/// A part of a body.
#[derive(Debug, PartialEq)]
pub(super) struct Piece {
    pub(super) data: Vec<u8>,
    /// A chunk, or a body with a length, ends with it.
    pub(super) is_last: bool,
}

/// Reads a body.
#[derive(Debug)]
pub(super) struct Body {
    framing: Framing,
    left: u64,
}

impl Body {
    pub(super) fn new(framing: Framing) -> Self {
        Self { framing, left: if let Framing::Length(length) = framing { length } else { 0 } }
    }

    /// The next part; `None` at the end.
    ///
    /// # Errors
    /// Fails if the connection ends within the body, or if its chunks are not HTTP.
    pub(super) async fn next(&mut self, reader: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<Piece>> {
        match self.framing {
            Framing::None => return Ok(None),
            Framing::Length(_) if self.left == 0 => return Ok(None),
            Framing::Chunked if self.left == 0 => {
                self.left = chunk_size(reader).await?;
                if self.left == 0 {
                    while read_line(reader, CHUNK_LINE).await?.is_some_and(|trailer| !trailer.is_empty()) {}
                    self.framing = Framing::None;
                    return Ok(None);
                }
            }
            _ => {}
        }
        let available = reader.fill_buf().await?;
        if available.is_empty() {
            let is_end = self.framing == Framing::Close;
            return if is_end { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
        let mut size = available.len().min(PIECE);
        if self.framing != Framing::Close {
            size = size.min(usize::try_from(self.left).unwrap_or(usize::MAX));
        }
        let data = available[..size].to_vec();
        reader.consume(size);
        self.left = self.left.saturating_sub(size as u64);
        let is_last = self.left == 0 && self.framing != Framing::Close;
        if is_last && self.framing == Framing::Chunked && read_line(reader, CHUNK_LINE).await?.as_deref() != Some("") {
            return Err(invalid("a chunk is longer than announced"));
        }
        Ok(Some(Piece { data, is_last }))
    }
}

async fn chunk_size(reader: &mut (impl AsyncBufRead + Unpin)) -> io::Result<u64> {
    let line = read_line(reader, CHUNK_LINE).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let size = line.split(';').next().unwrap_or_default().trim();
    u64::from_str_radix(size, 16).map_err(|_| invalid(&format!("invalid chunk size {size:?}")))
}

/// Writes a part of a body.
///
/// # Errors
/// Fails if the peer no longer reads.
pub(super) async fn write_piece(
    writer: &mut (impl AsyncWrite + Unpin),
    framing: Framing,
    data: &[u8],
) -> io::Result<()> {
    if framing == Framing::Chunked {
        let chunk = [format!("{:x}\r\n", data.len()).as_bytes(), data, b"\r\n"].concat();
        writer.write_all(&chunk).await?;
    } else {
        writer.write_all(data).await?;
    }
    writer.flush().await
}

/// Writes what ends a body.
///
/// # Errors
/// Fails if the peer no longer reads.
pub(super) async fn write_end(writer: &mut (impl AsyncWrite + Unpin), framing: Framing) -> io::Result<()> {
    if framing == Framing::Chunked {
        writer.write_all(b"0\r\n\r\n").await?;
    }
    writer.flush().await
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(bytes: &[u8], method: &str) -> io::Result<(Head, Vec<Piece>)> {
        let mut reader = bytes;
        let head = read_head(&mut reader).await?.unwrap();
        let mut body = Body::new(head.response_framing(method)?);
        let mut pieces = Vec::new();
        while let Some(piece) = body.next(&mut reader).await? {
            pieces.push(piece);
        }
        Ok((head, pieces))
    }

    fn piece(data: &str) -> Piece {
        Piece { data: data.into(), is_last: true }
    }

    #[tokio::test]
    async fn chunks_keep_their_boundaries_and_headers_their_spelling() {
        let text = b"HTTP/1.1 200 OK\r\nX-Odd:  a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: 1\r\n\r\n";
        let (head, pieces) = read(text, "GET").await.unwrap();
        assert_eq!(head.headers[0], ("X-Odd".to_owned(), "a".to_owned()));
        assert_eq!(pieces, [piece("abc"), piece("de")]);
        assert_eq!(head.to_bytes(), b"HTTP/1.1 200 OK\r\nX-Odd: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    }

    #[tokio::test]
    async fn each_framing_ends_where_it_must() {
        let (_, pieces) = read(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabcd", "GET").await.unwrap();
        assert_eq!(pieces, [piece("ab")]);
        let (_, pieces) = read(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", "HEAD").await.unwrap();
        assert_eq!(pieces, []);
        let (_, pieces) = read(b"HTTP/1.1 200 OK\r\n\r\nabcd", "GET").await.unwrap();
        assert_eq!(pieces, [Piece { data: "abcd".into(), is_last: false }]);
        assert!(read_head(&mut &b""[..]).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn what_is_cut_or_not_http_is_an_error() {
        for text in [
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab",
            "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nab",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: b",
        ] {
            assert!(read(text.as_bytes(), "GET").await.is_err(), "{text:?}");
        }
    }
}
