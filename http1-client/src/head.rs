//! The request head as bytes, the response head from bytes, and how both say where the body ends (RFC 9112, sections 2
//! to 6). Pure.

use std::mem::MaybeUninit;

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header, request};
use http_body::SizeHint;

use crate::{error::Invalid, framing::Framing};

/// Maximum number of headers of a response, maximum size of its head, and maximum number of interim responses before
/// it.
pub(crate) const MAX_HEADERS: usize = 100;
pub(crate) const MAX_HEAD: usize = 256 << 10;
pub(crate) const MAX_INTERIM: u8 = 8;

/// A head up to this size is parsed with every packet, and once beyond it, so that what is no HTTP is found out early.
/// A larger one is parsed again when it is complete: a remote that trickles it byte by byte must not cost quadratic
/// time.
const EAGER: usize = 1 << 10;

/// How a request body goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outgoing {
    /// This many bytes are still to be sent.
    Length(u64),
    /// In chunks, because its length is unknown.
    Chunked,
}

/// An encoded request head. It can be sent more than once.
#[derive(Clone, Debug)]
pub struct Encoded {
    pub(crate) head: Bytes,
    pub(crate) outgoing: Outgoing,
    pub(crate) is_head: bool,
    /// Whether it expects `100 Continue` before its body.
    pub(crate) expects_continue: bool,
}

/// Encodes the head of a request, whose URI is in origin form. `size` is the size of its body; `None` means that it has
/// no body.
///
/// The exact size of a body wins over its `Content-Length`. A body of unknown size goes out with its `Content-Length`
/// if it has a valid one, else in chunks, whatever the method.
#[must_use]
pub fn encode(parts: &request::Parts, size: Option<SizeHint>) -> Encoded {
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
    encode_with(&parts.method, target, &parts.headers, |_| false, b"", size)
}

/// [`encode`], without the headers that are `hidden`, and with `lines`: whole lines of other headers, which go out
/// verbatim.
#[must_use]
pub fn encode_with(
    method: &Method,
    target: &str,
    headers: &HeaderMap,
    hidden: impl Fn(&HeaderName) -> bool,
    lines: &[u8],
    size: Option<SizeHint>,
) -> Encoded {
    let (outgoing, announced) = match size.map(|size| size.exact()) {
        None => (Outgoing::Length(0), true),
        Some(Some(exact)) => (Outgoing::Length(exact), false),
        Some(None) => match content_length(headers) {
            Ok(Some(length)) => (Outgoing::Length(length), true),
            _ => (Outgoing::Chunked, false),
        },
    };
    let mut head = BytesMut::with_capacity(96 + target.len() + 64 * headers.len() + lines.len());
    for part in [method.as_str(), " ", target, " HTTP/1.1\r\n"] {
        head.extend_from_slice(part.as_bytes());
    }
    let mut expects_continue = false;
    for (name, value) in headers {
        let framing = *name == header::TRANSFER_ENCODING || !announced && *name == header::CONTENT_LENGTH;
        if framing || hidden(name) {
            continue;
        }
        expects_continue |=
            *name == header::EXPECT && value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"100-continue");
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            head.extend_from_slice(part);
        }
    }
    head.extend_from_slice(lines);
    match outgoing {
        _ if announced => {}
        Outgoing::Length(length) => {
            head.extend_from_slice(b"content-length: ");
            head.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
            head.extend_from_slice(b"\r\n");
        }
        Outgoing::Chunked => head.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
    head.extend_from_slice(b"\r\n");
    expects_continue &= outgoing != Outgoing::Length(0);
    Encoded { head: head.freeze(), outgoing, is_head: *method == Method::HEAD, expects_continue }
}

/// The head of a response.
#[derive(Debug)]
pub struct Head {
    /// The status.
    pub status: StatusCode,
    /// The headers. Lengths that the framing overrules are removed, repeated ones are merged.
    pub headers: HeaderMap,
    /// Where the body ends.
    pub framing: Framing,
    /// Whether the connection can take another request once the body is complete.
    pub keep_alive: bool,
}

/// What was found at the beginning of the received bytes.
#[derive(Debug)]
pub enum Parsed {
    /// More bytes are needed.
    Partial,
    /// An interim response (1xx), which was skipped.
    Interim(StatusCode),
    /// The head of the response.
    Head(Head),
}

/// Reads the response heads of one exchange.
#[derive(Clone, Copy, Debug)]
pub struct Heads {
    is_head: bool,
    /// How many bytes were searched for the end of the head.
    searched: usize,
}

impl Heads {
    /// `is_head`: the request was a HEAD.
    #[must_use]
    pub fn new(is_head: bool) -> Self {
        Self { is_head, searched: 0 }
    }

    /// Takes the next response head out of `read` once it is complete.
    ///
    /// # Errors
    /// Fails if the bytes are not a valid head of HTTP/1.0 or 1.1.
    pub fn take(&mut self, read: &mut BytesMut) -> Result<Parsed, Invalid> {
        if read.len() > EAGER {
            let (eagerly, from) = (self.searched <= EAGER, self.searched.saturating_sub(2));
            self.searched = read.len();
            if !eagerly && !has_end(&read[from..]) {
                return if read.len() > MAX_HEAD { Err(Invalid::HeadTooLarge) } else { Ok(Parsed::Partial) };
            }
        }
        let parsed = parse(read, self.is_head)?;
        if !matches!(parsed, Parsed::Partial) {
            self.searched = 0;
        }
        Ok(parsed)
    }
}

/// Whether an empty line may be in `bytes`.
fn has_end(bytes: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', bytes).any(|at| matches!(bytes.get(at + 1..), Some([b'\n', ..] | [b'\r', b'\n', ..])))
}

fn parse(read: &mut BytesMut, is_head: bool) -> Result<Parsed, Invalid> {
    if read.is_empty() {
        return Ok(Parsed::Partial);
    }
    let mut headers = [MaybeUninit::uninit(); MAX_HEADERS];
    let mut response = httparse::Response::new(&mut []);
    let parsed = httparse::ParserConfig::default()
        .parse_response_with_uninit_headers(&mut response, read, &mut headers)
        .map_err(|error| invalid(error, read))?;
    let httparse::Status::Complete(length) = parsed else {
        return if read.len() > MAX_HEAD { Err(Invalid::HeadTooLarge) } else { Ok(Parsed::Partial) };
    };
    if length > MAX_HEAD {
        return Err(Invalid::HeadTooLarge);
    }
    let status = response.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(Invalid::StatusLine)?;
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(Invalid::SwitchingProtocols);
    }
    if status.is_informational() {
        read.advance(length);
        return Ok(Parsed::Interim(status));
    }
    let version = if response.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 };
    let mut headers = collect(response.headers)?;
    read.advance(length);
    let mut keep_alive = keeps_alive(version, &headers);
    let framing = framing(status, version, is_head, &mut headers, &mut keep_alive)?;
    Ok(Parsed::Head(Head { status, headers, framing, keep_alive }))
}

/// The reason for a parse error that the parser itself does not distinguish.
fn invalid(error: httparse::Error, read: &[u8]) -> Invalid {
    match error {
        httparse::Error::TooManyHeaders => Invalid::TooManyHeaders,
        httparse::Error::HeaderName | httparse::Error::HeaderValue | httparse::Error::NewLine => {
            let end = memchr::memmem::find(read, b"\r\n\r\n").unwrap_or(read.len());
            let folded = memchr::memchr_iter(b'\n', &read[..end])
                .any(|newline| matches!(read.get(newline + 1), Some(b' ' | b'\t')));
            let status_line = read.starts_with(b"HTTP/1.");
            match (status_line, folded) {
                (false, _) => Invalid::StatusLine,
                (true, true) => Invalid::FoldedHeader,
                (true, false) => Invalid::Header,
            }
        }
        _ => Invalid::StatusLine,
    }
}

fn collect(found: &[httparse::Header<'_>]) -> Result<HeaderMap, Invalid> {
    // With room for some that the caller adds: a map that is full is built anew.
    let mut headers = HeaderMap::with_capacity(found.len() + 2);
    for field in found {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Invalid::Header)?;
        headers.append(name, HeaderValue::from_bytes(field.value).map_err(|_| Invalid::Header)?);
    }
    Ok(headers)
}

/// Where the body ends (RFC 9112, section 6.3). Leaves at most one `Content-Length`, and none that the framing
/// overrules.
fn framing(
    status: StatusCode,
    version: Version,
    is_head: bool,
    headers: &mut HeaderMap,
    keep_alive: &mut bool,
) -> Result<Framing, Invalid> {
    if is_head || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        return Ok(Framing::Length(0));
    }
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        // This client sends no TE header, so nothing but `chunked` may come (RFC 9112, section 7.4).
        if version == Version::HTTP_10
            || codings.next().is_some()
            || !coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked")
        {
            return Err(Invalid::TransferEncoding);
        }
        // Both together may be an attempt to smuggle a response (RFC 9112, section 6.3): nothing after it is trusted.
        if headers.remove(header::CONTENT_LENGTH).is_some() {
            *keep_alive = false;
        }
        return Ok(Framing::CHUNKED);
    }
    match content_length(headers)? {
        None => {
            *keep_alive = false;
            Ok(Framing::UntilClose)
        }
        Some(length) => {
            let mut values = headers.get_all(header::CONTENT_LENGTH).iter();
            let single =
                values.next().is_some_and(|value| !value.as_bytes().contains(&b',')) && values.next().is_none();
            if !single {
                headers.insert(header::CONTENT_LENGTH, length.into());
            }
            Ok(Framing::Length(length))
        }
    }
}

/// The length in the headers, which may be repeated but not differ.
fn content_length(headers: &HeaderMap) -> Result<Option<u64>, Invalid> {
    let mut length = None;
    for value in headers.get_all(header::CONTENT_LENGTH) {
        for text in value.to_str().map_err(|_| Invalid::ContentLength)?.split(',') {
            let text = text.trim();
            if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(Invalid::ContentLength);
            }
            let next = text.parse().map_err(|_| Invalid::ContentLength)?;
            if *length.get_or_insert(next) != next {
                return Err(Invalid::ContentLengths);
            }
        }
    }
    Ok(length)
}

fn keeps_alive(version: Version, headers: &HeaderMap) -> bool {
    let says = |option: &[u8]| {
        headers.get_all(header::CONNECTION).iter().any(|value| {
            value.as_bytes().split(|byte| *byte == b',').any(|said| said.trim_ascii().eq_ignore_ascii_case(option))
        })
    };
    !says(b"close") && (version == Version::HTTP_11 || says(b"keep-alive"))
}

#[cfg(test)]
mod tests {
    use http::Request;
    use proptest::prelude::*;

    use super::*;

    fn encoded(request: http::request::Builder, size: Option<SizeHint>) -> (String, Outgoing) {
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let encoded = encode(&parts, size);
        (String::from_utf8(encoded.head.to_vec()).unwrap(), encoded.outgoing)
    }

    #[test]
    fn a_body_goes_out_with_its_length_or_in_chunks() {
        let (exact, unknown) = (Some(SizeHint::with_exact(7)), Some(SizeHint::default()));
        let post = || Request::post("/api/chat?a=b").header("X-One", "1");
        assert_eq!(
            encoded(post(), exact),
            ("POST /api/chat?a=b HTTP/1.1\r\nx-one: 1\r\ncontent-length: 7\r\n\r\n".to_owned(), Outgoing::Length(7))
        );
        let chunked = "HTTP/1.1\r\nx-one: 1\r\ntransfer-encoding: chunked\r\n\r\n";
        assert_eq!(encoded(post(), unknown), (format!("POST /api/chat?a=b {chunked}"), Outgoing::Chunked));
        assert_eq!(
            encoded(post().header("content-length", "9"), unknown),
            ("POST /api/chat?a=b HTTP/1.1\r\nx-one: 1\r\ncontent-length: 9\r\n\r\n".to_owned(), Outgoing::Length(9))
        );
        assert_eq!(encoded(post(), None).1, Outgoing::Length(0));
        assert_eq!(encoded(Request::get("/"), None), ("GET / HTTP/1.1\r\n\r\n".to_owned(), Outgoing::Length(0)));
        // A GET may have a body too, and an announced length never overrules the real one.
        assert_eq!(
            encoded(Request::get("/").header("X-One", "1"), unknown),
            (format!("GET / {chunked}"), Outgoing::Chunked)
        );
        assert_eq!(encoded(Request::post("/").header("content-length", "9"), exact).1, Outgoing::Length(7));
    }

    fn head(wire: &str, is_head: bool) -> Result<Head, Invalid> {
        match Heads::new(is_head).take(&mut BytesMut::from(wire))? {
            Parsed::Head(head) => Ok(head),
            other => panic!("{other:?}: {wire}"),
        }
    }

    #[test]
    fn the_head_says_where_the_body_ends_and_whether_the_connection_stays() {
        for (rest, is_head, framing, keep_alive) in [
            ("1.1 200 OK\r\nContent-Length: 5\r\n", false, Framing::Length(5), true),
            ("1.1 200 OK\r\nContent-Length: 5, 5\r\nContent-Length: 5\r\n", false, Framing::Length(5), true),
            ("1.1 200 OK\r\nContent-Length: 5\r\n", true, Framing::Length(0), true),
            ("1.1 204 No Content\r\nContent-Length: 5\r\n", false, Framing::Length(0), true),
            ("1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n", false, Framing::Length(0), true),
            ("1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n", false, Framing::CHUNKED, true),
            ("1.1 200 OK\r\nTransfer-Encoding: Chunked\r\nContent-Length: 5\r\n", false, Framing::CHUNKED, false),
            ("1.1 200\r\n", false, Framing::UntilClose, false),
            (
                "1.1 200 OK\r\nConnection: keep-alive\r\nConnection: x, Close\r\nContent-Length: 0\r\n",
                false,
                Framing::Length(0),
                false,
            ),
            ("1.0 200 OK\r\nContent-Length: 5\r\n", false, Framing::Length(5), false),
            ("1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 5\r\n", false, Framing::Length(5), true),
        ] {
            let head = head(&format!("HTTP/{rest}\r\n"), is_head).unwrap();
            assert_eq!((head.framing, head.keep_alive), (framing, keep_alive), "{rest}");
        }
    }

    #[test]
    fn a_length_that_is_passed_on_is_one_number_and_the_one_that_counts() {
        let lengths = |rest: &str| {
            let head = head(&format!("HTTP/1.1 200 OK\r\n{rest}\r\n"), false).unwrap();
            head.headers
                .get_all("content-length")
                .iter()
                .map(|value| value.to_str().unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(lengths("Content-Length: 5, 5\r\nContent-Length: 5\r\n"), ["5"]);
        assert_eq!(lengths("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n"), [""; 0]);
    }

    #[test]
    fn each_invalid_head_has_its_own_reason() {
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(MAX_HEADERS + 1));
        for (wire, reason) in [
            ("SSH-2.0-OpenSSH_9.2\r\n", Invalid::StatusLine),
            ("HTTP/2.0 200 OK\r\n\r\n", Invalid::StatusLine),
            ("\x15\x03\x01\x00\x02\x02\x46", Invalid::StatusLine),
            (&"\u{ff}\r".repeat(10_000), Invalid::StatusLine),
            (&many, Invalid::TooManyHeaders),
            ("HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n", Invalid::FoldedHeader),
            ("HTTP/1.1 200 OK\r\nBad Name: 1\r\n\r\n", Invalid::Header),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", Invalid::ContentLengths),
            ("HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n", Invalid::ContentLength),
            ("HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\n", Invalid::ContentLength),
            ("HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n", Invalid::ContentLength),
            ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Invalid::TransferEncoding),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", Invalid::TransferEncoding),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n",
                Invalid::TransferEncoding,
            ),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n", Invalid::TransferEncoding),
            ("HTTP/1.1 101 Switching Protocols\r\n\r\n", Invalid::SwitchingProtocols),
        ] {
            assert_eq!(head(wire, false).unwrap_err(), reason, "{wire:?}");
        }
        let long = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(MAX_HEAD));
        assert_eq!(Heads::new(false).take(&mut BytesMut::from(&*long)).unwrap_err(), Invalid::HeadTooLarge);
        let whole = format!("{long}\r\n\r\n");
        assert_eq!(Heads::new(false).take(&mut BytesMut::from(&*whole)).unwrap_err(), Invalid::HeadTooLarge);
    }

    #[test]
    fn a_trickled_head_takes_linear_time() {
        let wire = format!("HTTP/1.1 200 OK\r\n{}\r\n", format!("A: {}\r\n", "b".repeat(10_000)).repeat(20));
        let (mut heads, mut buffer, mut found) = (Heads::new(false), BytesMut::new(), false);
        let begun = std::time::Instant::now();
        for byte in wire.bytes() {
            assert!(!found);
            buffer.extend_from_slice(&[byte]);
            found = matches!(heads.take(&mut buffer).unwrap(), Parsed::Head(_));
        }
        // Parsing it anew with every byte takes minutes.
        assert!(found && begun.elapsed().as_secs() < 5);
    }

    proptest! {
        #[test]
        fn a_head_is_read_however_it_is_cut_and_no_byte_more(
            interim in 0_usize..3, value in "[ -~\u{e9}]{0,20}|[a-z ]{1020,1040}", next in "[ -~\r\n]{0,9}", cut in 1_usize..30,
        ) {
            let announced = "HTTP/1.1 100 Continue\r\nX: y\r\n\r\n".repeat(interim);
            let wire = format!("{announced}HTTP/1.1 418 A Teapot\r\nX-A: {value}\r\nx-a: b\r\nContent-Length: 9\r\n\r\n");
            let mut buffer = BytesMut::new();
            let (mut heads, mut skipped, mut found) = (Heads::new(false), 0, None);
            for packet in wire.as_bytes().chunks(cut).chain([next.as_bytes()]) {
                buffer.extend_from_slice(packet);
                while found.is_none() {
                    match heads.take(&mut buffer).unwrap() {
                        Parsed::Partial => break,
                        Parsed::Interim(_) => skipped += 1,
                        Parsed::Head(head) => found = Some(head),
                    }
                }
            }
            let head = found.unwrap();
            prop_assert_eq!((head.status.as_u16(), head.framing, skipped), (418, Framing::Length(9), interim));
            let values: Vec<_> = head.headers.get_all("x-a").iter().map(|value| value.as_bytes().to_vec()).collect();
            prop_assert_eq!(values, vec![value.trim_matches(' ').as_bytes().to_vec(), b"b".to_vec()]);
            prop_assert_eq!(&buffer[..], next.as_bytes());
        }
    }
}
