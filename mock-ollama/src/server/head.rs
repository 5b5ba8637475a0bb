//! The head of a request, read with the leniencies and the refusals of Go's HTTP server (recorded: 0.33.0-rc2
//! `http/*`).

use std::time::Instant;

use bytes::{Buf, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use tokio::{io::AsyncReadExt, net::TcpStream};

use crate::journal::Entry;

/// The maximum size of a head: Go's default limit and the slack of its read buffer.
const LARGEST: usize = (1 << 20) + 4096;

/// A request before its body.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) method: Method,
    /// The target as it came.
    pub(crate) target: String,
    /// The target without scheme, authority and query.
    pub(crate) path: String,
    pub(crate) query: Option<String>,
    pub(crate) headers: HeaderMap,
    /// Names in lower case and values, in their order.
    pub(crate) listed: Vec<(String, String)>,
    /// HTTP/1.0, which knows no chunks and closes by default.
    pub(crate) is_1_0: bool,
    pub(crate) framing: Framing,
}

/// How the length of a request's body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    Length(u64),
    Chunked,
}

/// Why a request never reaches a handler. Each has the text that Go puts into the body and, mostly, into the status
/// line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rejection {
    /// 400 without an explanation.
    Bad,
    /// 400 with one.
    BadBecause(&'static str),
    TooLarge,
    Encoding,
    Version,
}

impl Rejection {
    /// The whole response; Go sends neither `Date` nor `Content-Length` with it.
    pub(crate) fn response(self) -> String {
        let (status, body) = match self {
            Self::Bad => ("400 Bad Request".to_owned(), None),
            Self::BadBecause(why) => (format!("400 Bad Request: {why}"), None),
            Self::TooLarge => ("431 Request Header Fields Too Large".to_owned(), None),
            Self::Encoding => ("501 Not Implemented".to_owned(), Some("Unsupported transfer encoding")),
            Self::Version => ("505 HTTP Version Not Supported: unsupported protocol version".to_owned(), None),
        };
        let body = body.unwrap_or(&status);
        format!("HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n{body}")
    }
}

/// What came instead of a head.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NoHead {
    /// The peer closed the connection, or it broke.
    Gone,
    Rejected(Rejection),
}

/// Reads one head; what follows it stays in the buffer. After a POST, Go forgives old clients up to four bytes of line
/// ends.
///
/// # Errors
/// The peer closes before a whole head arrived, or the head is not one that Go's server accepts.
pub(crate) async fn read(stream: &mut TcpStream, buffer: &mut BytesMut, is_after_post: bool) -> Result<Head, NoHead> {
    let mut searched = 0;
    let mut forgiven = if is_after_post { 4 } else { 0 };
    loop {
        while forgiven > 0 && matches!(buffer.first(), Some(b'\r' | b'\n')) {
            buffer.advance(1);
            forgiven -= 1;
        }
        if let Some(end) = end_of_head(buffer, searched) {
            if end > LARGEST {
                return Err(NoHead::Rejected(Rejection::TooLarge));
            }
            let text = buffer.split_to(end);
            return parse(&text).map_err(NoHead::Rejected);
        }
        if buffer.len() > LARGEST {
            return Err(NoHead::Rejected(Rejection::TooLarge));
        }
        searched = buffer.len().saturating_sub(3);
        match stream.read_buf(buffer).await {
            Ok(0) | Err(_) => return Err(NoHead::Gone),
            Ok(_) => {}
        }
    }
}

/// The offset after the empty line that ends a head; lines end with LF, with or without CR.
fn end_of_head(buffer: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    while let Some(found) = buffer[at..].iter().position(|byte| *byte == b'\n') {
        let after = at + found + 1;
        match buffer[after..] {
            [b'\n', ..] => return Some(after + 1),
            [b'\r', b'\n', ..] => return Some(after + 2),
            _ => at = after,
        }
    }
    None
}

/// Parses the text of a head.
///
/// # Errors
/// The head is not one that Go's server accepts.
fn parse(text: &[u8]) -> Result<Head, Rejection> {
    let mut lines = text.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let first = std::str::from_utf8(lines.next().unwrap_or_default()).map_err(|_| Rejection::Bad)?;
    let mut parts = first.splitn(3, ' ');
    let (Some(method), Some(target), Some(version)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(Rejection::Bad);
    };
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| Rejection::Bad)?;
    let version = match version.strip_prefix("HTTP/").map(str::as_bytes) {
        Some([major @ b'0'..=b'9', b'.', minor @ b'0'..=b'9']) => (major - b'0', minor - b'0'),
        _ => return Err(Rejection::Bad),
    };
    let listed = fields(lines)?;
    let (authority, path, query) = split_target(&method, target)?;
    let framing = framing(&listed, version)?;
    if version.0 != 1 {
        return Err(Rejection::Version);
    }
    let hosts = listed.iter().filter(|(name, _)| name == "host").count();
    match hosts {
        0 if version.1 >= 1 && method != Method::CONNECT => {
            return Err(Rejection::BadBecause("missing required Host header"));
        }
        0 | 1 => {}
        _ => return Err(Rejection::Bad),
    }
    let mut headers = HeaderMap::new();
    for (name, value) in &listed {
        let name = HeaderName::try_from(name).map_err(|_| Rejection::BadBecause("invalid header name"))?;
        let value = HeaderValue::from_bytes(value.as_bytes());
        headers.append(name, value.map_err(|_| Rejection::BadBecause("invalid header value"))?);
    }
    // A host in the target wins over the header, as in Go.
    if let Some(host) = authority.and_then(|host| HeaderValue::from_str(host).ok()) {
        headers.insert(header::HOST, host);
    }
    Ok(Head {
        method,
        target: target.to_owned(),
        path: path.to_owned(),
        query: query.map(str::to_owned),
        headers,
        listed,
        is_1_0: version == (1, 0),
        framing,
    })
}

/// Header fields: names in lower case; a line that begins with white space continues the one before.
fn fields<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Result<Vec<(String, String)>, Rejection> {
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in lines.take_while(|line| !line.is_empty()) {
        let line = String::from_utf8_lossy(line);
        if line.starts_with([' ', '\t']) {
            let (_, value) = fields.last_mut().ok_or(Rejection::Bad)?;
            *value = format!("{value} {}", line.trim()).trim().to_owned();
            continue;
        }
        let (name, value) = line.split_once(':').ok_or(Rejection::Bad)?;
        if name.is_empty() || name.contains([' ', '\t']) {
            return Err(Rejection::Bad);
        }
        fields.push((name.to_ascii_lowercase(), value.trim_matches([' ', '\t']).to_owned()));
    }
    Ok(fields)
}

/// Authority, path and query of a target: `/path?query`, a whole URL, or `*` for OPTIONS.
fn split_target<'a>(
    method: &Method,
    target: &'a str,
) -> Result<(Option<&'a str>, &'a str, Option<&'a str>), Rejection> {
    if target == "*" && *method == Method::OPTIONS {
        return Ok((None, target, None));
    }
    let (authority, rest) = match target.split_once("://") {
        Some((scheme, rest)) if !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
            let end = rest.find(['/', '?']).unwrap_or(rest.len());
            (Some(&rest[..end]), &rest[end..])
        }
        _ => (None, target),
    };
    let (path, query) = rest.split_once('?').map_or((rest, None), |(path, query)| (path, Some(query)));
    let path = if path.is_empty() && authority.is_some() { "/" } else { path };
    let has_controls = target.bytes().any(|byte| byte < 0x20 || byte == 0x7f);
    let is_readable = path
        .split('%')
        .skip(1)
        .all(|code| code.as_bytes().get(..2).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)));
    if !path.starts_with('/') || has_controls || !is_readable {
        return Err(Rejection::Bad);
    }
    Ok((authority, path, query))
}

/// How the body is framed; chunks win over a length, and HTTP/1.0 has none.
fn framing(fields: &[(String, String)], version: (u8, u8)) -> Result<Framing, Rejection> {
    let values = |name: &'static str| fields.iter().filter(move |(known, _)| known == name).map(|(_, value)| value);
    let mut lengths = values("content-length");
    let length = match lengths.next() {
        None => 0,
        Some(first) => {
            let is_number = !first.is_empty() && first.bytes().all(|byte| byte.is_ascii_digit());
            if !is_number || lengths.any(|other| other != first) {
                return Err(Rejection::Bad);
            }
            first.parse().map_err(|_| Rejection::Bad)?
        }
    };
    let encodings: Vec<&String> = values("transfer-encoding").collect();
    match encodings[..] {
        [] => Ok(Framing::Length(length)),
        _ if version < (1, 1) => Ok(Framing::Length(length)),
        [encoding] if encoding.eq_ignore_ascii_case("chunked") => Ok(Framing::Chunked),
        _ => Err(Rejection::Encoding),
    }
}

impl Head {
    /// A header's value as text.
    pub(crate) fn header(&self, name: &HeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Whether a header holds a token, in any case: `Connection: keep-alive, Upgrade`.
    fn has_token(&self, name: &HeaderName, token: &str) -> bool {
        let values = self.headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|part| part.trim().eq_ignore_ascii_case(token))
    }

    /// Whether the client wants the connection to end with this exchange.
    pub(crate) fn wants_close(&self) -> bool {
        self.has_token(&header::CONNECTION, "close") || (self.is_1_0 && !self.wants_keep_alive())
    }

    /// Whether an HTTP/1.0 client asks to keep the connection.
    pub(crate) fn wants_keep_alive(&self) -> bool {
        self.has_token(&header::CONNECTION, "keep-alive")
    }

    /// Whether there is a body to read.
    pub(crate) fn has_body(&self) -> bool {
        self.framing != Framing::Length(0)
    }

    /// What the journal keeps of it.
    pub(crate) fn entry(&self) -> Entry {
        Entry {
            method: self.method.to_string(),
            target: self.target.clone(),
            headers: self.listed.clone(),
            body: bytes::Bytes::new(),
            body_len: 0,
            arrived: Instant::now(),
            read: false,
            wrote: None,
            ended: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rejected(text: &str) -> Option<Rejection> {
        parse(text.as_bytes()).err()
    }

    #[test]
    fn heads_are_rejected_for_gos_reasons() {
        for (text, why) in [
            ("nonsense\r\n\r\n", Rejection::Bad),
            ("GET / HTTP/1.1 \r\nHost: a\r\n\r\n", Rejection::Bad),
            ("GET / http/1.1\r\nHost: a\r\n\r\n", Rejection::Bad),
            ("GET x HTTP/1.1\r\nHost: a\r\n\r\n", Rejection::Bad),
            ("GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n", Rejection::Bad),
            ("GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n", Rejection::Bad),
            ("GET / HTTP/1.1\r\nHost: a\r\nX y: 1\r\n\r\n", Rejection::Bad),
            ("GET / HTTP/1.1\r\n folded: first\r\n\r\n", Rejection::Bad),
            ("GET / HTTP/1.1\r\nHost: a\r\nX{: 1\r\n\r\n", Rejection::BadBecause("invalid header name")),
            ("GET / HTTP/1.1\r\nHost: a\r\nX: \u{1}\r\n\r\n", Rejection::BadBecause("invalid header value")),
            ("GET / HTTP/1.1\r\n\r\n", Rejection::BadBecause("missing required Host header")),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", Rejection::Bad),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: two\r\n\r\n", Rejection::Bad),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +2\r\n\r\n", Rejection::Bad),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n", Rejection::Bad),
            ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", Rejection::Encoding),
            ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n", Rejection::Encoding),
            ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", Rejection::Version),
        ] {
            assert_eq!(rejected(text), Some(why), "{text}");
        }
    }

    #[test]
    fn what_go_accepts_is_read() {
        let head = parse(
            b"POST http://b/x?y=%zz HTTP/1.1\nhOsT: a\nX: 1\n  2\nContent-Length: 2\nTransfer-Encoding: Chunked\n\n",
        );
        let head = head.unwrap();
        assert_eq!((head.path.as_str(), head.query.as_deref()), ("/x", Some("y=%zz")));
        assert_eq!(head.header(&header::HOST), Some("b"), "the host of the target wins");
        assert_eq!(head.listed[1], ("x".to_owned(), "1 2".to_owned()));
        assert_eq!(head.framing, Framing::Chunked);
        let same = parse(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n").unwrap();
        assert_eq!(same.framing, Framing::Length(2));
        let old = parse(b"GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
        assert!(old.is_1_0 && old.wants_close() && !old.has_body());
        let kept = parse(b"GET / HTTP/1.0\r\nConnection: x, Keep-Alive\r\n\r\n").unwrap();
        assert!(!kept.wants_close());
        assert_eq!(parse(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").unwrap().path, "*");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(text in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = (end_of_head(&text, 0), parse(&text));
        }

        #[test]
        fn no_odd_head_makes_it_panic(text in "[A-Z]{1,4} [ -~]{0,12} HTTP/1.[0-9]\r\n([A-Za-z:% \t-]{0,12}\r\n){0,4}\r\n") {
            let _ = parse(text.as_bytes());
        }
    }
}
