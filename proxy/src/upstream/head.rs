//! The head of a request as bytes, the head of an answer out of bytes, and what both say of the body that follows (RFC 9112, 2 to 6). Pure.

use std::mem::MaybeUninit;

use bytes::{Buf, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header, request};
use http_body::SizeHint;

use crate::upstream::framing::Framing;

/// Most headers of an answer, and most bytes of its head.
const MAX_HEADERS: usize = 100;
const MAX_HEAD: usize = 256 << 10;

/// How the body of a request goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outgoing {
    /// So many bytes are still to go out.
    Length(u64),
    /// In chunks, because nobody knows its length.
    Chunked,
}

/// Writes the head of a request, whose body is as long as `size` says; None: it has none.
pub(crate) fn write(mut parts: request::Parts, size: Option<SizeHint>, out: &mut BytesMut) -> Outgoing {
    let headers = &mut parts.headers;
    headers.remove(header::TRANSFER_ENCODING);
    let outgoing = match size {
        None => Outgoing::Length(0),
        Some(size) => match content_length(headers).ok().flatten() {
            Some(told) => Outgoing::Length(told),
            None => match size.exact() {
                Some(exact) => {
                    headers.insert(header::CONTENT_LENGTH, exact.into());
                    Outgoing::Length(exact)
                }
                // These have no body, unless they say so.
                None if matches!(parts.method, Method::GET | Method::HEAD | Method::CONNECT) => Outgoing::Length(0),
                None => {
                    headers.remove(header::CONTENT_LENGTH);
                    headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
                    Outgoing::Chunked
                }
            },
        },
    };
    // Room for a short body too, so that it need not grow step by step.
    out.reserve(512 + 64 * parts.headers.len());
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
    for part in [parts.method.as_str(), " ", target, " HTTP/1.1\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    for (name, value) in &parts.headers {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            out.extend_from_slice(part);
        }
    }
    out.extend_from_slice(b"\r\n");
    outgoing
}

/// The head of an answer.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    /// Its body.
    pub(crate) framing: Framing,
    /// Whether the connection can be used again, once the body has come.
    pub(crate) keeps: bool,
}

/// Takes the head of the answer to a request with `method` out of `read`, once it is whole. Those that only announce another are skipped.
///
/// # Errors
/// What is no HTTP, in words.
pub(crate) fn read(read: &mut BytesMut, method: &Method) -> Result<Option<Head>, String> {
    while !read.is_empty() {
        let mut headers = [MaybeUninit::uninit(); MAX_HEADERS];
        let mut answer = httparse::Response::new(&mut []);
        let parser = httparse::ParserConfig::default();
        let parsed = parser.parse_response_with_uninit_headers(&mut answer, read, &mut headers);
        let httparse::Status::Complete(length) = parsed.map_err(|error| error.to_string())? else {
            return if read.len() > MAX_HEAD { Err("its head is too long".to_owned()) } else { Ok(None) };
        };
        let status = answer.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or("a status that is none")?;
        if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
            read.advance(length);
            continue;
        }
        let version = if answer.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 };
        let headers = collect(answer.headers)?;
        read.advance(length);
        let framing = framing(status, version, method, &headers)?;
        return Ok(Some(Head { status, framing, keeps: keeps(version, &headers), headers }));
    }
    Ok(None)
}

fn collect(found: &[httparse::Header<'_>]) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::with_capacity(found.len());
    for field in found {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|error| error.to_string())?;
        headers.append(name, HeaderValue::from_bytes(field.value).map_err(|error| error.to_string())?);
    }
    Ok(headers)
}

fn framing(status: StatusCode, version: Version, method: &Method, headers: &HeaderMap) -> Result<Framing, String> {
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return Err("it switches to a protocol that nobody asked for".to_owned());
    }
    if matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) || method == Method::HEAD {
        return Ok(Framing::Length(0));
    }
    // It counts more than a length.
    if let Some(last) = headers.get_all(header::TRANSFER_ENCODING).iter().next_back() {
        if version == Version::HTTP_10 {
            return Err("HTTP/1.0 knows no transfer encoding".to_owned());
        }
        let last = last.as_bytes().rsplit(|byte| *byte == b',').next().unwrap_or_default();
        let chunked = last.trim_ascii().eq_ignore_ascii_case(b"chunked");
        return Ok(if chunked { Framing::CHUNKED } else { Framing::UntilClose });
    }
    Ok(content_length(headers)?.map_or(Framing::UntilClose, Framing::Length))
}

/// The length that the headers tell, as often as they like but the same.
fn content_length(headers: &HeaderMap) -> Result<Option<u64>, &'static str> {
    const WRONG: &str = "a content length that is none";
    let mut length = None;
    for value in headers.get_all(header::CONTENT_LENGTH) {
        for told in value.to_str().map_err(|_| WRONG)?.split(',') {
            let digits =
                Some(told.trim()).filter(|told| told.bytes().all(|byte| byte.is_ascii_digit())).ok_or(WRONG)?;
            let told = digits.parse().map_err(|_| WRONG)?;
            if *length.get_or_insert(told) != told {
                return Err(WRONG);
            }
        }
    }
    Ok(length)
}

fn keeps(version: Version, headers: &HeaderMap) -> bool {
    let says = |word: &str| {
        headers.get_all(header::CONNECTION).iter().any(|value| {
            value
                .as_bytes()
                .split(|byte| *byte == b',')
                .any(|said| said.trim_ascii().eq_ignore_ascii_case(word.as_bytes()))
        })
    };
    !says("close") && (version == Version::HTTP_11 || says("keep-alive"))
}

#[cfg(test)]
mod tests {
    use http::Request;
    use proptest::prelude::*;

    use super::*;

    fn written(request: http::request::Builder, size: Option<SizeHint>) -> (String, Outgoing) {
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let mut out = BytesMut::new();
        let outgoing = write(parts, size, &mut out);
        (String::from_utf8(out.to_vec()).unwrap(), outgoing)
    }

    #[test]
    fn a_body_goes_out_with_its_length_or_in_chunks() {
        let (exact, unknown) = (Some(SizeHint::with_exact(7)), Some(SizeHint::default()));
        let post = || Request::post("/api/chat?a=b").header("X-One", "1");
        assert_eq!(
            written(post(), exact),
            ("POST /api/chat?a=b HTTP/1.1\r\nx-one: 1\r\ncontent-length: 7\r\n\r\n".to_owned(), Outgoing::Length(7))
        );
        assert_eq!(
            written(post(), unknown),
            (
                "POST /api/chat?a=b HTTP/1.1\r\nx-one: 1\r\ntransfer-encoding: chunked\r\n\r\n".to_owned(),
                Outgoing::Chunked
            )
        );
        assert_eq!(
            written(post().header("content-length", "9"), unknown),
            ("POST /api/chat?a=b HTTP/1.1\r\nx-one: 1\r\ncontent-length: 9\r\n\r\n".to_owned(), Outgoing::Length(9))
        );
        assert_eq!(written(post(), None).1, Outgoing::Length(0));
        assert_eq!(written(Request::get("/"), unknown), ("GET / HTTP/1.1\r\n\r\n".to_owned(), Outgoing::Length(0)));
    }

    fn head(wire: &str, method: &Method) -> Result<Head, String> {
        read(&mut BytesMut::from(wire), method).map(|head| head.unwrap())
    }

    #[test]
    fn the_head_says_how_the_body_comes_and_whether_the_connection_stays() {
        let until_close = Framing::UntilClose;
        for (head_of, method, framing, keeps) in [
            ("1.1 200 OK\r\nContent-Length: 5\r\n", Method::GET, Framing::Length(5), true),
            ("1.1 200 OK\r\nContent-Length: 5, 5\r\nContent-Length: 5\r\n", Method::GET, Framing::Length(5), true),
            ("1.1 200 OK\r\nContent-Length: 5\r\n", Method::HEAD, Framing::Length(0), true),
            ("1.1 204 No Content\r\nContent-Length: 5\r\n", Method::GET, Framing::Length(0), true),
            ("1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n", Method::GET, Framing::Length(0), true),
            ("1.1 200 OK\r\nTransfer-Encoding: Chunked\r\nContent-Length: 5\r\n", Method::GET, Framing::CHUNKED, true),
            ("1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n", Method::GET, Framing::CHUNKED, true),
            (
                "1.1 200 OK\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
                Method::GET,
                Framing::CHUNKED,
                true,
            ),
            ("1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n", Method::GET, until_close, true),
            ("1.1 200\r\n", Method::GET, until_close, true),
            (
                "1.1 200 OK\r\nConnection: keep-alive\r\nConnection: x, Close\r\nContent-Length: 0\r\n",
                Method::GET,
                Framing::Length(0),
                false,
            ),
            ("1.0 200 OK\r\nContent-Length: 5\r\n", Method::GET, Framing::Length(5), false),
            ("1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 5\r\n", Method::GET, Framing::Length(5), true),
        ] {
            let head = head(&format!("HTTP/{head_of}\r\n"), &method).unwrap();
            assert_eq!((head.framing, head.keeps), (framing, keeps), "{head_of}");
        }
    }

    #[test]
    fn what_is_no_head_is_refused() {
        for wrong in [
            "SSH-2.0-OpenSSH_9.2\r\n",
            "HTTP/2.0 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 101 Switching Protocols\r\n\r\n",
            "HTTP/1.1 200 OK\r\nBad Name: 1\r\n\r\n",
        ] {
            assert!(head(wrong, &Method::GET).is_err(), "{wrong:?}");
        }
        let long = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(MAX_HEAD));
        assert!(read(&mut BytesMut::from(&*long), &Method::GET).is_err());
    }

    proptest! {
        #[test]
        fn a_head_is_read_however_it_is_cut_and_no_byte_more(
            announced in 0_usize..3, value in "[ -~\u{e9}]{0,20}", next in "[ -~\r\n]{0,9}", cut in 1_usize..30,
        ) {
            let announced = "HTTP/1.1 100 Continue\r\nX: y\r\n\r\n".repeat(announced);
            let wire = format!("{announced}HTTP/1.1 418 A Teapot\r\nX-A: {value}\r\nx-a: b\r\nContent-Length: 9\r\n\r\n");
            let mut buffer = BytesMut::new();
            for packet in wire.as_bytes().chunks(cut) {
                prop_assert!(buffer.is_empty() || read(&mut buffer, &Method::GET).unwrap().is_none());
                buffer.extend_from_slice(packet);
            }
            buffer.extend_from_slice(next.as_bytes());
            let head = read(&mut buffer, &Method::GET).unwrap().unwrap();
            prop_assert_eq!((head.status.as_u16(), head.framing), (418, Framing::Length(9)));
            let values: Vec<_> = head.headers.get_all("x-a").iter().map(|value| value.as_bytes().to_vec()).collect();
            prop_assert_eq!(values, vec![value.trim_matches(' ').as_bytes().to_vec(), b"b".to_vec()]);
            prop_assert_eq!(&buffer[..], next.as_bytes());
        }
    }
}
