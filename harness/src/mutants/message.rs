//! HTTP/1.1 messages, taken apart and put together by hand: a layer that breaks rules must not be kept from it by a
//! library.
//!
//! It speaks with our own client and our own proxy alone, one exchange to a connection.

use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt};

/// The first line and the headers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) first: String,
    pub(super) headers: Vec<(String, String)>,
}

/// A request or an answer with its whole body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) head: Head,
    pub(super) body: Vec<u8>,
}

impl Head {
    /// Reads a head; `None` if the connection ends before it.
    pub(super) async fn read(from: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<Self>> {
        let first = line(from).await?;
        if first.is_empty() {
            return Ok(None);
        }
        let mut headers = Vec::new();
        loop {
            let line = line(from).await?;
            let Some((name, value)) = line.split_once(':') else { break };
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
        Ok(Some(Self { first, headers }))
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| &**value)
    }

    /// Takes a header off.
    pub(super) fn remove(&mut self, name: &str) {
        self.headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
    }

    /// Sets a header that stands once.
    pub(super) fn set(&mut self, name: &str, value: impl Into<String>) {
        self.remove(name);
        self.headers.push((name.to_owned(), value.into()));
    }

    /// The content type without parameters.
    pub(super) fn media_type(&self) -> &str {
        self.header("content-type").and_then(|value| value.split(';').next()).unwrap_or_default().trim()
    }

    /// The status of an answer.
    pub(super) fn status(&self) -> u16 {
        self.first.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or_default()
    }

    /// The path of a request, without its query.
    pub(super) fn target(&self) -> &str {
        self.first.split(' ').nth(1).and_then(|target| target.split('?').next()).unwrap_or_default()
    }

    /// Whether a request is one of Ollama's own API.
    pub(super) fn is_native(&self) -> bool {
        self.target().starts_with("/api/")
    }

    /// The first word of a request.
    pub(super) fn method(&self) -> &str {
        self.first.split(' ').next().unwrap_or_default()
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut text = format!("{}\r\n", self.first);
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        text.into_bytes()
    }
}

/// How a body says where it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// There is none.
    Empty,
    /// So many bytes.
    Length(u64),
    /// In chunks.
    Chunked,
    /// With the connection.
    Close,
}

impl Framing {
    /// Of a request.
    pub(super) fn of_request(head: &Head) -> Self {
        match Self::declared(head) {
            Self::Close => Self::Empty,
            declared => declared,
        }
    }

    /// Of the answer to a request with this method.
    pub(super) fn of_answer(head: &Head, method: &str) -> Self {
        if method == "HEAD" || matches!(head.status(), 204 | 304) { Self::Empty } else { Self::declared(head) }
    }

    fn declared(head: &Head) -> Self {
        if head.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
            return Self::Chunked;
        }
        head.header("content-length").and_then(|value| value.parse().ok()).map_or(Self::Close, Self::Length)
    }
}

/// A body as it comes.
#[derive(Debug)]
pub(super) struct Body {
    framing: Framing,
    over: bool,
}

impl Body {
    pub(super) fn new(framing: Framing) -> Self {
        Self { framing, over: framing == Framing::Empty || framing == Framing::Length(0) }
    }

    /// The next piece; `None` at its proper end. A connection that breaks off before that is an error.
    pub(super) async fn next(&mut self, from: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<Vec<u8>>> {
        if self.over {
            return Ok(None);
        }
        if self.framing == Framing::Chunked {
            return self.chunk(from).await;
        }
        let there = from.fill_buf().await?;
        let piece = match self.framing {
            Framing::Length(left) => &there[..there.len().min(usize::try_from(left).unwrap_or(usize::MAX))],
            _ => there,
        }
        .to_vec();
        from.consume(piece.len());
        if piece.is_empty() {
            self.over = true;
            return if self.framing == Framing::Close { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
        if let Framing::Length(left) = &mut self.framing {
            *left -= piece.len() as u64;
            self.over = *left == 0;
        }
        Ok(Some(piece))
    }

    async fn chunk(&mut self, from: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<Vec<u8>>> {
        let size = line(from).await?;
        let size = size.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16).map_err(|_| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        let mut piece = vec![0; size];
        from.read_exact(&mut piece).await?;
        line(from).await?;
        self.over = size == 0;
        Ok((size > 0).then_some(piece))
    }

    /// Adds all that is left to `all`; where it breaks off, what came before that.
    pub(super) async fn rest(&mut self, from: &mut (impl AsyncBufRead + Unpin), all: &mut Vec<u8>) -> io::Result<()> {
        while let Some(piece) = self.next(from).await? {
            all.extend(piece);
        }
        Ok(())
    }
}

/// A line without its end; empty at the connection's end.
async fn line(from: &mut (impl AsyncBufRead + Unpin)) -> io::Result<String> {
    let mut line = Vec::new();
    from.read_until(b'\n', &mut line).await?;
    Ok(String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn all(framing: Framing, bytes: &str) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        Body::new(framing).rest(&mut bytes.as_bytes(), &mut all).await.map(|()| all)
    }

    #[tokio::test]
    async fn a_body_ends_as_its_head_says() {
        assert_eq!(all(Framing::Empty, "abc").await.unwrap(), b"");
        assert_eq!(all(Framing::Length(2), "abc").await.unwrap(), b"ab");
        assert_eq!(all(Framing::Chunked, "2\r\nab\r\n1\r\nc\r\n0\r\n\r\n").await.unwrap(), b"abc");
        assert_eq!(all(Framing::Close, "abc").await.unwrap(), b"abc");
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_an_error() {
        assert!(all(Framing::Length(4), "abc").await.is_err());
        assert!(all(Framing::Chunked, "2\r\nab\r\n").await.is_err());
    }

    #[tokio::test]
    async fn a_head_is_read_and_written_alike() {
        let text = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nx: a:b\r\n\r\n";
        let head = Head::read(&mut text.as_bytes()).await.unwrap().unwrap();
        assert_eq!((head.status(), head.media_type(), head.header("X")), (200, "text/event-stream", Some("a:b")));
        assert_eq!(head.bytes(), text.as_bytes());
    }
}
