//! The conformance table of `README.md`: raw responses, in one piece and byte by byte.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::task::{Context, Waker};

use bytes::Bytes;
use http::Request;
use http_body_util::Empty;
use http1_client::{Connection, Error, Invalid, encode};
use tokio::io::{AsyncWriteExt, duplex};

/// What became of a response.
#[derive(Debug, PartialEq)]
enum Outcome {
    /// Its body came to its end; whether the connection can take another request.
    Complete(u16, String, bool),
    Invalid(Invalid),
    Closed,
}

/// What becomes of `wire`, written in pieces of `piece` bytes, after which the remote closes or waits.
async fn outcome(method: &str, wire: &[u8], piece: usize, closes: bool) -> Outcome {
    let (near, mut far) = duplex(1 << 20);
    let (parts, ()) = Request::builder().method(method).uri("/").body(()).unwrap().into_parts();
    let mut connection = Connection::<_, Empty<Bytes>>::new(near);
    let serving = async {
        for piece in wire.chunks(piece) {
            far.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
        (!closes).then_some(far)
    };
    let asking = async {
        let head = connection.send(&encode(&parts, None), None).await?;
        let (mut framing, mut body) = (head.framing, Vec::new());
        while let Some(frame) = connection.frame(&mut framing).await {
            body.extend_from_slice(&frame?.into_data().unwrap_or_default());
        }
        Ok((head.status.as_u16(), String::from_utf8(body).unwrap(), head.keep_alive))
    };
    let (answered, _far) = tokio::join!(asking, serving);
    match answered {
        Ok((status, body, keep_alive)) => {
            let reusable = connection.poll_reusable(&mut Context::from_waker(Waker::noop()));
            Outcome::Complete(status, body, keep_alive && reusable)
        }
        Err(Error::Invalid(invalid)) => Outcome::Invalid(invalid),
        Err(Error::Closed) => Outcome::Closed,
        Err(other) => panic!("{other}"),
    }
}

/// Checks a row: the response head after the version, the rest, whether the remote closes afterwards, and what must
/// come of it.
async fn check(method: &str, wire: &str, closes: bool, expected: &Outcome) {
    for piece in [1, 2, 5, wire.len()] {
        assert_eq!(&outcome(method, wire.as_bytes(), piece, closes).await, expected, "{method} {wire:?} by {piece}");
    }
}

fn complete(status: u16, body: &str, reusable: bool) -> Outcome {
    Outcome::Complete(status, body.to_owned(), reusable)
}

#[tokio::test]
async fn bodies_end_where_the_table_says() {
    for (method, wire, expected) in [
        ("GET", "200 OK\r\nContent-Length: 5\r\n\r\nhello", complete(200, "hello", true)),
        ("GET", "200 OK\r\nContent-Length: 5, 5\r\nContent-Length: 5\r\n\r\nhello", complete(200, "hello", true)),
        ("GET", "200 OK\r\ncontent-length:5\r\n\r\nhello", complete(200, "hello", true)),
        (
            "GET",
            "200 OK\r\nTransfer-Encoding: CHUNKED\r\n\r\n5;a=\"b\"\r\nhello\r\n00\r\n\r\n",
            complete(200, "hello", true),
        ),
        (
            "GET",
            "200 OK\r\nTransfer-Encoding: chunked\r\n\r\nA\r\n0123456789\r\n0\r\nX-Sum: 1\r\n\r\n",
            complete(200, "0123456789", true),
        ),
        (
            "GET",
            "200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            complete(200, "hello", false),
        ),
        ("GET", "204 No Content\r\nContent-Length: 5\r\n\r\n", complete(204, "", true)),
        ("GET", "304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", complete(304, "", true)),
        ("HEAD", "200 OK\r\nContent-Length: 5\r\n\r\n", complete(200, "", true)),
        ("HEAD", "404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n", complete(404, "", true)),
        (
            "GET",
            "100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nX: y\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            complete(200, "", true),
        ),
        ("GET", "200 OK\r\nConnection: x, CLOSE\r\nContent-Length: 0\r\n\r\n", complete(200, "", false)),
        // Bytes after the response belong to no exchange.
        ("GET", "200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n", complete(200, "ok", false)),
        ("HEAD", "200 OK\r\nContent-Length: 2\r\n\r\nok", complete(200, "", false)),
    ] {
        check(method, &format!("HTTP/1.1 {wire}"), false, &expected).await;
    }
    check("GET", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", false, &complete(200, "ok", false)).await;
    let kept = "HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 2\r\n\r\nok";
    check("GET", kept, false, &complete(200, "ok", true)).await;
    for version in ["1.0", "1.1"] {
        let wire = format!("HTTP/{version} 200 OK\r\n\r\nuntil the end");
        check("GET", &wire, true, &complete(200, "until the end", false)).await;
    }
}

#[tokio::test]
async fn what_is_cut_off_is_never_complete() {
    for wire in [
        "",
        "HTTP/1.1 200",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfour",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfour",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfour\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfour\r\n0\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfour\r\n0\r\nX-Sum: 1\r\n",
        "HTTP/1.1 100 Continue\r\n\r\n",
    ] {
        for piece in [1, wire.len().max(1)] {
            assert_eq!(outcome("GET", wire.as_bytes(), piece, true).await, Outcome::Closed, "{wire:?}");
        }
    }
}

#[tokio::test]
async fn each_violation_has_its_reason() {
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(101));
    let large = format!("HTTP/1.1 200 OK\r\nA: {}\r\n\r\n", "b".repeat(256 << 10));
    let flood = "HTTP/1.1 102 Processing\r\n\r\n".repeat(9);
    for (wire, reason) in [
        (&*many, Invalid::TooManyHeaders),
        (&large, Invalid::HeadTooLarge),
        (&flood, Invalid::TooManyInterim),
        ("HTTP/2.0 200 OK\r\n\r\n", Invalid::StatusLine),
        ("220 mail.example ESMTP\r\n", Invalid::StatusLine),
        ("HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", Invalid::FoldedHeader),
        ("HTTP/1.1 200 OK\r\nA : b\r\n\r\n", Invalid::Header),
        ("HTTP/1.1 200 OK\r\nA\0: b\r\n\r\n", Invalid::Header),
        ("HTTP/1.1 200 OK\r\nA: \0\r\n\r\n", Invalid::Header),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", Invalid::ContentLengths),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\nhello", Invalid::ContentLengths),
        ("HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello", Invalid::ContentLength),
        ("HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello", Invalid::ContentLength),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0x5\r\n\r\nhello", Invalid::ContentLength),
        ("HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551616\r\n\r\n", Invalid::ContentLength),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", Invalid::TransferEncoding),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", Invalid::TransferEncoding),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\n", Invalid::TransferEncoding),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n", Invalid::TransferEncoding),
        ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Invalid::TransferEncoding),
        ("HTTP/1.1 101 Switching Protocols\r\n\r\n", Invalid::SwitchingProtocols),
    ] {
        for piece in [7, wire.len()] {
            let outcome = outcome("GET", wire.as_bytes(), piece, false).await;
            assert_eq!(outcome, Outcome::Invalid(reason), "{:?}", &wire[..wire.len().min(80)]);
        }
    }
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    for body in [
        "\r\n",
        " 1\r\na\r\n0\r\n\r\n",
        "+1\r\na\r\n0\r\n\r\n",
        "0x1\r\na\r\n0\r\n\r\n",
        "10000000000000000\r\n",
        "1\na\r\n0\r\n\r\n",
        "1\r\nab\r\n0\r\n\r\n",
        "1;\rx\r\na\r\n0\r\n\r\n",
        "0\r\nX : 1\r\n\r\n",
        "0\r\nX: 1\r\n folded\r\n\r\n",
    ] {
        let wire = [head, body].concat();
        for piece in [1, wire.len()] {
            let outcome = outcome("GET", wire.as_bytes(), piece, false).await;
            assert!(matches!(outcome, Outcome::Invalid(Invalid::Chunk(_))), "{body:?}: {outcome:?}");
        }
    }
}
