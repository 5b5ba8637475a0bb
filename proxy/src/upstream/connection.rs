//! One connection to the remote, and one exchange at a time on it: a request goes out, an answer comes in, at the same time where they overlap.
//!
//! It does nothing by itself: whoever waits for the answer, or reads it, drives it. What lies in memory for it while a stream is open is one
//! small buffer.

use std::{
    future::{Future, poll_fn},
    io::{self, IoSlice},
    pin::{Pin, pin},
    task::{Context, Poll, Waker, ready},
};

use axum::body::Body;
use bytes::{Buf, Bytes, BytesMut};
use http::{Method, Request};
use http_body::Body as HttpBody;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use super::head;
use crate::upstream::{
    framing::{Framing, Taken},
    head::{Head, Outgoing},
};

/// How much is read at once: little, but more and more of an answer that fills it.
const READ: usize = 2 << 10;
const MAX_READ: usize = 64 << 10;

/// Pieces of a request's body up to this size are gathered, so that they share a write; bigger ones go out as they lie in memory.
const GATHERED: usize = 16 << 10;

/// What a connection is made of: TCP, or TLS over it.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Why an exchange failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    /// Our side of it: the body of the request came to no good end.
    #[error("the request's body failed")]
    Request(#[source] Option<axum::Error>),
    /// The network.
    #[error("{0}")]
    Network(#[from] io::Error),
    /// What arrives is no HTTP.
    #[error("{0}")]
    NotHttp(String),
    /// The connection ended in the middle of it.
    #[error("the connection was closed before the message was whole")]
    Closed,
}

/// The body of a request on its way.
struct Upload {
    body: Body,
    outgoing: Outgoing,
}

/// One connection.
pub(crate) struct Line {
    io: Box<dyn Io>,
    /// What has arrived.
    read: BytesMut,
    /// How much is asked for next.
    want: usize,
    /// What is to be written, in this order.
    out: BytesMut,
    big: Bytes,
    after: &'static [u8],
    /// Where the rest of the request comes from.
    upload: Option<Upload>,
}

impl Line {
    pub(crate) fn new(io: Box<dyn Io>) -> Self {
        let (read, out) = (BytesMut::new(), BytesMut::new());
        Self { io, read, want: READ, out, big: Bytes::new(), after: b"", upload: None }
    }

    /// Sends `request`, whose URI is in origin form, and waits for the head of the answer, which may come before all of the request is sent.
    ///
    /// # Errors
    /// There is none.
    pub(crate) async fn ask(&mut self, request: Request<Body>) -> Result<Head, Broken> {
        let (parts, body) = request.into_parts();
        let method = parts.method.clone();
        let size = (!body.is_end_stream()).then(|| body.size_hint());
        let outgoing = head::write(parts, size, &mut self.out);
        if outgoing != Outgoing::Length(0) {
            self.upload = Some(Upload { body, outgoing });
        }
        poll_fn(|cx| {
            let sent = match self.poll_send(cx) {
                Poll::Ready(Err(failed @ Broken::Request(_))) => return Poll::Ready(Err(failed)),
                sent => sent,
            };
            // Who refuses a request may answer and close before it has read all.
            match (self.poll_head(&method, cx), sent) {
                (Poll::Ready(Ok(head)), _) => Poll::Ready(Ok(head)),
                (_, Poll::Ready(Err(failed))) | (Poll::Ready(Err(failed)), _) => Poll::Ready(Err(failed)),
                (Poll::Pending, _) => Poll::Pending,
            }
        })
        .await
    }

    fn poll_head(&mut self, method: &Method, cx: &mut Context<'_>) -> Poll<Result<Head, Broken>> {
        loop {
            if let Some(head) = head::read(&mut self.read, method).map_err(Broken::NotHttp)? {
                return Poll::Ready(Ok(head));
            }
            ready!(self.poll_read(cx))?;
        }
    }

    /// The next piece of the answer's body, of which `framing` is to come; None: its end.
    pub(crate) fn poll_data(
        &mut self,
        framing: &mut Framing,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Broken>>> {
        loop {
            match framing.take(&mut self.read) {
                Ok(Taken::Data(data)) => return Poll::Ready(Some(Ok(data))),
                Ok(Taken::End) => return Poll::Ready(None),
                Ok(Taken::More) => {}
                Err(wrong) => return Poll::Ready(Some(Err(Broken::NotHttp(wrong.to_owned())))),
            }
            // The answer may be read though the rest of the request finds no reader any more.
            if self.is_sending()
                && let Poll::Ready(Err(failed)) = self.poll_send(cx)
            {
                self.give_up_sending();
                if matches!(failed, Broken::Request(_)) {
                    return Poll::Ready(Some(Err(failed)));
                }
            }
            match ready!(self.poll_read(cx)) {
                Ok(()) => {}
                Err(Broken::Closed) if framing.may_end() => return Poll::Ready(None),
                Err(failed) => return Poll::Ready(Some(Err(failed))),
            }
        }
    }

    /// Whether nothing is on its way in either direction and the connection lives, so that it can take another request. Who waited for it
    /// is not woken by it any more.
    pub(crate) fn is_idle(&mut self) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        if self.read.is_empty() && self.want > READ {
            (self.read, self.want) = (BytesMut::new(), READ);
        }
        !self.is_sending() && self.read.is_empty() && self.poll_read(&mut context).is_pending()
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        if self.read.capacity() - self.read.len() < self.want / 4 {
            self.read.reserve(self.want);
        }
        let room = self.read.capacity() - self.read.len();
        let read = ready!(pin!(self.io.read_buf(&mut self.read)).poll(cx))?;
        if read == room {
            self.want = (self.want * 2).min(MAX_READ);
        } else if read < self.want / 4 {
            self.want = (self.want / 2).max(READ);
        }
        Poll::Ready(if read == 0 { Err(Broken::Closed) } else { Ok(()) })
    }

    fn is_sending(&self) -> bool {
        self.upload.is_some() || !self.out.is_empty() || !self.big.is_empty()
    }

    fn give_up_sending(&mut self) {
        (self.upload, self.big) = (None, Bytes::new());
        self.out.clear();
    }

    /// Ready once all of the request is sent.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        loop {
            let waits = self.gather(cx)?.is_pending();
            if self.out.is_empty() && self.big.is_empty() {
                ready!(Pin::new(&mut self.io).poll_flush(cx))?;
                if waits {
                    return Poll::Pending;
                }
                self.out = BytesMut::new();
                return Poll::Ready(Ok(()));
            }
            let written = if self.big.is_empty() {
                ready!(Pin::new(&mut self.io).poll_write(cx, &self.out))?
            } else {
                let slices = [IoSlice::new(&self.out), IoSlice::new(&self.big)];
                ready!(Pin::new(&mut self.io).poll_write_vectored(cx, &slices))?
            };
            if written == 0 {
                return Poll::Ready(Err(io::Error::from(io::ErrorKind::WriteZero).into()));
            }
            let of_out = written.min(self.out.len());
            self.out.advance(of_out);
            self.big.advance(written - of_out);
            if self.big.is_empty() {
                self.out.extend_from_slice(std::mem::take(&mut self.after));
            }
        }
    }

    /// Gathers what is there of the request's body. Ready: no more of it is needed now, or to come.
    fn gather(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, Broken> {
        while let Some(upload) = &mut self.upload
            && self.out.len() < GATHERED
            && self.big.is_empty()
        {
            let Poll::Ready(frame) = Pin::new(&mut upload.body).poll_frame(cx) else { return Ok(Poll::Pending) };
            let data = match frame.transpose().map_err(|error| Broken::Request(Some(error)))? {
                // Trailers end here.
                Some(frame) => frame.into_data().unwrap_or_default(),
                None => {
                    match upload.outgoing {
                        Outgoing::Length(_) => return Err(Broken::Request(None)),
                        Outgoing::Chunked => self.out.extend_from_slice(b"0\r\n\r\n"),
                    }
                    self.upload = None;
                    break;
                }
            };
            if !data.is_empty() {
                self.put(data);
            }
        }
        Ok(Poll::Ready(()))
    }

    fn put(&mut self, mut data: Bytes) {
        let Some(upload) = &mut self.upload else { return };
        match &mut upload.outgoing {
            Outgoing::Length(left) => {
                data.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= data.len() as u64;
                if *left == 0 {
                    self.upload = None;
                }
            }
            Outgoing::Chunked => {
                self.out.extend_from_slice(format!("{:x}\r\n", data.len()).as_bytes());
                self.after = b"\r\n";
            }
        }
        if data.len() < GATHERED {
            self.out.extend_from_slice(&data);
            self.out.extend_from_slice(std::mem::take(&mut self.after));
        } else {
            self.big = data;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use http::StatusCode;
    use proptest::prelude::*;
    use tokio::io::{AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    fn run<T>(test: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(test)
    }

    fn pair(room: usize) -> (Line, DuplexStream) {
        let (near, far) = duplex(room);
        (Line::new(Box::new(near)), far)
    }

    /// A body that nobody knows the length of.
    fn pieces(pieces: Vec<Vec<u8>>) -> Body {
        Body::from_stream(stream::iter(pieces.into_iter().map(Ok::<_, io::Error>)))
    }

    fn post(body: Body) -> Request<Body> {
        Request::post("/x").body(body).unwrap()
    }

    async fn rest(line: &mut Line, mut framing: Framing) -> Result<Vec<u8>, Broken> {
        let mut out = Vec::new();
        while let Some(data) = poll_fn(|cx| line.poll_data(&mut framing, cx)).await {
            out.extend_from_slice(&data?);
        }
        Ok(out)
    }

    /// Takes `asked` off the wire, byte by byte the same, and answers in packets of `cut` bytes.
    async fn answer(mut far: DuplexStream, asked: &[u8], answer: &[u8], cut: usize) -> DuplexStream {
        let mut read = vec![0; asked.len()];
        far.read_exact(&mut read).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&read), String::from_utf8_lossy(asked));
        for packet in answer.chunks(cut) {
            far.write_all(packet).await.unwrap();
            tokio::task::yield_now().await;
        }
        far
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn requests_and_answers_cross_the_wire_unchanged_however_it_cuts_them(
            uploads in prop::collection::vec(
                prop::collection::vec(prop_oneof![1_usize..50, GATHERED - 2..GATHERED + 2, Just(3 * GATHERED)], 1..4), 1..3,
            ),
            known: bool, size in 0_usize..5000, chunked: bool, room in prop_oneof![1_usize..40, Just(100_000)], cut in 1_usize..3000,
        ) {
            run(async {
                let (mut line, mut far) = pair(room);
                let body: Vec<u8> = (0..size).map(|n| n as u8).collect();
                let head = if chunked { "Transfer-Encoding: chunked".to_owned() } else { format!("Content-Length: {size}") };
                let mut wire = format!("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n{head}\r\n\r\n").into_bytes();
                if chunked {
                    body.chunks(700).for_each(|chunk| wire.extend([format!("{:X}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat()));
                    wire.extend(b"0\r\n\r\n");
                } else {
                    wire.extend(&body);
                }
                // One after the other on the same connection.
                for lengths in uploads {
                    let upload: Vec<Vec<u8>> = lengths.iter().map(|length| vec![b'u'; *length]).collect();
                    let (sent, asked) = if known {
                        let all = upload.concat();
                        let head = format!("POST /x HTTP/1.1\r\ncontent-length: {}\r\n\r\n", all.len());
                        (Body::from(all.clone()), [head.as_bytes(), &all].concat())
                    } else {
                        let chunk = |piece: &Vec<u8>| [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat();
                        let chunks: Vec<u8> = upload.iter().flat_map(chunk).collect();
                        let head = b"POST /x HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n";
                        (pieces(upload), [&head[..], &chunks, b"0\r\n\r\n"].concat())
                    };
                    let asking = async {
                        let head = line.ask(post(sent)).await.unwrap();
                        assert!(head.status == StatusCode::OK && head.keeps);
                        rest(&mut line, head.framing).await.unwrap()
                    };
                    let (read, back) = tokio::join!(asking, answer(far, &asked, &wire, cut));
                    assert!(read == body, "{} bytes of {}", read.len(), body.len());
                    assert!(line.is_idle());
                    far = back;
                }
            });
        }
    }

    #[test]
    fn an_answer_that_comes_before_the_request_is_sent_is_read() {
        run(async {
            let (mut line, mut far) = pair(100);
            far.write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig").await.unwrap();
            let head = line.ask(post(pieces(vec![vec![0; 100_000]]))).await.unwrap();
            assert_eq!(head.status, StatusCode::PAYLOAD_TOO_LARGE);
            assert_eq!(rest(&mut line, head.framing).await.unwrap(), b"big");
            assert!(!line.is_idle(), "the rest of the request would come in front of the next");
        });
    }

    #[test]
    fn who_answers_and_closes_without_reading_is_heard() {
        run(async {
            let (mut line, mut far) = pair(100);
            far.write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig").await.unwrap();
            drop(far);
            let head = line.ask(post(Body::from(vec![0; 100_000]))).await.unwrap();
            assert_eq!(rest(&mut line, head.framing).await.unwrap(), b"big");
            assert!(!line.is_idle());
        });
    }

    #[test]
    fn what_ends_too_early_is_never_whole() {
        let head = "HTTP/1.1 200 OK\r\n";
        for (wire, whole) in [
            ("Content-Length: 5\r\n\r\nfour", false),
            ("Transfer-Encoding: chunked\r\n\r\n5\r\nfour", false),
            ("Transfer-Encoding: chunked\r\n\r\n4\r\nfour\r\n", false),
            ("\r\nfour", true),
        ] {
            run(async {
                let (mut line, far) = pair(1000);
                let asked = b"POST /x HTTP/1.1\r\n\r\n";
                let wire = format!("{head}{wire}");
                let answering = async { drop(answer(far, asked, wire.as_bytes(), 7).await) };
                let (head, ()) = tokio::join!(line.ask(post(Body::empty())), answering);
                let read = rest(&mut line, head.unwrap().framing).await;
                assert_eq!(read.is_ok(), whole, "{wire}");
                assert!(whole || matches!(read, Err(Broken::Closed)), "{wire}");
            });
        }
        run(async {
            let (mut line, mut far) = pair(1000);
            far.write_all(b"HTTP/1.1 200 O").await.unwrap();
            drop(far);
            assert!(line.ask(post(Body::empty())).await.is_err());
        });
    }

    #[test]
    fn a_request_whose_body_fails_or_ends_early_is_our_failure() {
        for body in [
            Body::from_stream(stream::iter([Ok(Bytes::from("a")), Err(io::Error::other("gone"))])),
            pieces(vec![vec![b'a']]),
        ] {
            run(async {
                let (mut line, _far) = pair(1000);
                let request = Request::post("/x").header("content-length", "2").body(body).unwrap();
                assert!(matches!(line.ask(request).await, Err(Broken::Request(_))));
            });
        }
    }

    #[test]
    fn a_connection_that_was_closed_or_speaks_unasked_is_not_idle() {
        run(async {
            let (mut line, mut far) = pair(1000);
            assert!(line.is_idle());
            far.write_all(b"HTTP/1.1 408 Request Timeout\r\n\r\n").await.unwrap();
            assert!(!line.is_idle());
            let (mut line, far) = pair(1000);
            drop(far);
            assert!(!line.is_idle());
        });
    }
}
