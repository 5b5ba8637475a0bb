//! One connection, and one exchange at a time on it: a request goes out and a response comes in, at the same time where
//! they overlap.
//!
//! It does nothing by itself: the caller that waits for the response, or reads it, drives it. All that an open stream
//! holds in memory here is one small read buffer.

use std::{
    future::{Future, poll_fn},
    io::{self, IoSlice},
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body::{Body, Frame};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite},
    task::{unconstrained, yield_now},
};

use crate::{
    BoxError,
    error::{Error, Invalid},
    framing::{Framing, Taken},
    head::{Encoded, Head, Heads, MAX_INTERIM, Outgoing, Parsed},
};

/// After how many bytes in a row other tasks get a turn: a server that takes or sends a large body as fast as it comes
/// would keep the thread for all of it. Moving them takes up to 0.1 ms, and every other task waits for one turn of each
/// connection that is busy.
const TURN: usize = 64 << 10;

/// Maximum size of one write of a large body: the system copies it at once, while nothing else runs on this thread.
const MAX_WRITE: usize = TURN;

/// How much is read at once at first, and at most: a response that fills the buffer gets a bigger one.
const READ: usize = 2 << 10;
const MAX_READ: usize = 64 << 10;

/// Pieces of a request body up to this size are gathered, so that they share a write; bigger ones are written from
/// where they are.
const GATHERED: usize = 16 << 10;

/// The request body.
struct Upload<B> {
    body: B,
    outgoing: Outgoing,
    /// Whether all of it was handed over. It is kept until a response head comes, so that it can be sent again.
    done: bool,
}

/// One connection.
pub struct Connection<S, B> {
    io: S,
    /// What was received and not taken yet.
    read: BytesMut,
    /// How much to read next.
    want: usize,
    /// What is to be written, in this order.
    out: BytesMut,
    big: Bytes,
    after: &'static [u8],
    /// The rest of the request.
    upload: Option<Upload<B>>,
    /// Whether a request body that was sent is kept after the response head.
    keep: bool,
    /// Whether the request body waits for `100 Continue`.
    waits: bool,
    /// Whether something was written that is not flushed: TLS buffers what it encrypts.
    unflushed: bool,
    heads: Heads,
    interim: u8,
    received: bool,
    /// Bytes read since other tasks had a turn.
    in_a_row: usize,
}

impl<S, B> std::fmt::Debug for Connection<S, B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("read", &self.read.len())
            .field("sent", &self.is_sent())
            .finish_non_exhaustive()
    }
}

impl<S, B> Connection<S, B> {
    /// A connection over `io`, for instance TCP or TLS.
    pub fn new(io: S) -> Self {
        Self {
            io,
            read: BytesMut::new(),
            want: READ,
            out: BytesMut::new(),
            big: Bytes::new(),
            after: b"",
            upload: None,
            keep: false,
            waits: false,
            unflushed: false,
            heads: Heads::new(false),
            interim: 0,
            received: false,
            in_a_row: 0,
        }
    }

    /// What the connection is over.
    pub fn io(&self) -> &S {
        &self.io
    }

    /// Whether all of the request was written and flushed.
    #[must_use]
    pub fn is_sent(&self) -> bool {
        !self.unflushed
            && !self.waits
            && self.out.is_empty()
            && self.big.is_empty()
            && self.upload.as_ref().is_none_or(|upload| upload.done)
    }

    /// Whether any byte came since the exchange began. A request on a reused connection that failed before can be sent
    /// again: the remote had closed the connection before it read the request.
    #[must_use]
    pub fn has_received(&self) -> bool {
        self.received
    }

    /// Whether the request body waits for `100 Continue`, which its `Expect` header asks for. Nothing of it is read
    /// meanwhile, and nothing at all if the response comes first; then the connection takes no other request.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.waits
    }

    /// Sends the request body without `100 Continue`, which not every server sends.
    pub fn stop_waiting(&mut self) {
        self.waits = false;
    }

    /// Takes the request body back from a failed exchange, to send it again.
    pub fn take_body(&mut self) -> Option<B> {
        self.upload.take().map(|upload| upload.body)
    }

    /// Whether the request body is kept after the response head, so that [`Connection::take_body`] has it. No longer
    /// keeping it drops what was sent.
    pub fn keep_body(&mut self, keep: bool) {
        self.keep = keep;
        if !keep {
            self.drop_upload();
        }
    }

    /// Lets go of a request body of which nothing more is sent.
    fn drop_upload(&mut self) {
        if self.waits || self.upload.as_ref().is_some_and(|upload| upload.done) {
            self.upload = None;
        }
    }

    fn stop_sending(&mut self) {
        (self.upload, self.big, self.unflushed) = (None, Bytes::new(), false);
        self.out.clear();
    }
}

impl<S, B> Connection<S, B>
where
    S: AsyncRead + AsyncWrite + Unpin,
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    /// Begins an exchange. The connection must be new or reusable. [`Connection::poll_head`] sends the request and
    /// reads the response.
    pub fn start(&mut self, request: &Encoded, body: Option<B>) {
        // Room for a short body too, so that it need not grow.
        let size = body.as_ref().map_or(0, |body| usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX));
        self.out.reserve(request.head.len() + if size < GATHERED { size.max(512) } else { 0 });
        self.out.extend_from_slice(&request.head);
        let done = request.outgoing == Outgoing::Length(0);
        self.upload = body.map(|body| Upload { body, outgoing: request.outgoing, done });
        self.waits = request.expects_continue && self.upload.is_some();
        (self.heads, self.interim, self.received) = (Heads::new(request.is_head), 0, false);
    }

    /// The response head, which may come before all of the request is sent.
    ///
    /// # Errors
    /// Fails if the request body fails, or no valid response head comes.
    pub fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Head, Error>> {
        loop {
            let sent = match self.poll_send(cx) {
                Poll::Ready(Err(error @ Error::Body(_))) => return Poll::Ready(Err(error)),
                sent => sent,
            };
            let waited = self.waits;
            // A server that refuses a request may answer and close before it has read all of it.
            match (self.poll_read_head(cx), sent) {
                (Poll::Ready(Ok(head)), _) => {
                    if !self.keep {
                        self.drop_upload();
                    }
                    return Poll::Ready(Ok(head));
                }
                (_, Poll::Ready(Err(error))) | (Poll::Ready(Err(error)), _) => return Poll::Ready(Err(error)),
                // `100 Continue` came: the body follows.
                (Poll::Pending, _) if waited && !self.waits => {}
                (Poll::Pending, _) => return Poll::Pending,
            }
        }
    }

    /// Sends a request and waits for the response head.
    ///
    /// # Errors
    /// As [`Connection::poll_head`].
    pub async fn send(&mut self, request: &Encoded, body: Option<B>) -> Result<Head, Error> {
        self.start(request, body);
        poll_fn(|cx| self.poll_head(cx)).await
    }

    fn poll_read_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Head, Error>> {
        loop {
            match self.heads.take(&mut self.read)? {
                Parsed::Head(head) => return Poll::Ready(Ok(head)),
                Parsed::Interim(status) => {
                    self.waits &= status != StatusCode::CONTINUE;
                    self.interim += 1;
                    if self.interim > MAX_INTERIM {
                        return Poll::Ready(Err(Invalid::TooManyInterim.into()));
                    }
                }
                Parsed::Partial => ready!(self.poll_read(cx))?,
            }
        }
    }

    /// The next frame of the response body, of which `framing` is still to come; `None`: its end. Also goes on sending
    /// the request.
    ///
    /// # Errors
    /// Fails if the body ends before it is complete or is framed wrongly, or if the request body fails.
    pub fn poll_frame(
        &mut self,
        framing: &mut Framing,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        loop {
            match framing.take(&mut self.read) {
                Ok(Taken::Data(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Ok(Taken::Trailers(trailers)) => return Poll::Ready(Some(Ok(Frame::trailers(*trailers)))),
                Ok(Taken::End) => return Poll::Ready(None),
                Ok(Taken::More) => {}
                Err(invalid) => return Poll::Ready(Some(Err(invalid.into()))),
            }
            // The response may be read to its end even if the server no longer reads the request.
            if !self.is_sent()
                && let Poll::Ready(Err(error)) = self.poll_send(cx)
            {
                self.stop_sending();
                if matches!(error, Error::Body(_)) {
                    return Poll::Ready(Some(Err(error)));
                }
            }
            match ready!(self.poll_read(cx)) {
                Ok(()) => {}
                Err(Error::Closed) if framing.may_end() => return Poll::Ready(None),
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
    }

    /// The next frame of the response body; see [`Connection::poll_frame`].
    ///
    /// # Errors
    /// As [`Connection::poll_frame`].
    pub async fn frame(&mut self, framing: &mut Framing) -> Option<Result<Frame<Bytes>, Error>> {
        poll_fn(|cx| self.poll_frame(framing, cx)).await
    }

    /// Whether the connection can take another request: nothing is under way in either direction, and the remote has
    /// not closed it. `cx` is woken when that changes.
    pub fn poll_reusable(&mut self, cx: &mut Context<'_>) -> bool {
        if self.read.is_empty() && self.want > READ {
            (self.read, self.want) = (BytesMut::new(), READ);
        }
        self.in_a_row = 0;
        // Unconstrained: with an exhausted budget, a closed connection would look alive.
        self.is_sent()
            && self.read.is_empty()
            && pin!(unconstrained(poll_fn(|cx| self.poll_read(cx)))).poll(cx).is_pending()
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if self.in_a_row >= TURN {
            self.in_a_row = 0;
            return pin!(yield_now()).poll(cx).map(Ok);
        }
        if self.read.capacity() - self.read.len() < self.want / 4 {
            self.read.reserve(self.want);
        }
        let room = self.read.capacity() - self.read.len();
        let polled = pin!(self.io.read_buf(&mut self.read)).poll(cx);
        if polled.is_pending() {
            self.in_a_row = 0;
        }
        let read = ready!(polled)?;
        if read == 0 {
            return Poll::Ready(Err(Error::Closed));
        }
        self.received = true;
        self.in_a_row += read;
        if read == room {
            self.want = (self.want * 2).min(MAX_READ);
        } else if read < self.want / 4 {
            self.want = (self.want / 2).max(READ);
        }
        Poll::Ready(Ok(()))
    }

    /// Ready once all of the request is sent.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let mut sent = 0;
        loop {
            let waits = self.gather(cx)?.is_pending();
            if self.out.is_empty() && self.big.is_empty() {
                if self.unflushed {
                    ready!(Pin::new(&mut self.io).poll_flush(cx))?;
                    self.unflushed = false;
                }
                if waits {
                    return Poll::Pending;
                }
                self.out = BytesMut::new();
                return Poll::Ready(Ok(()));
            }
            if sent >= TURN {
                // Not `wake_by_ref`: the runtime would come back dozens of times before it asks the system what else is
                // ready.
                return pin!(yield_now()).poll(cx).map(Ok);
            }
            let written = if self.big.is_empty() {
                ready!(Pin::new(&mut self.io).poll_write(cx, &self.out))?
            } else {
                let slices = [IoSlice::new(&self.out), IoSlice::new(&self.big[..self.big.len().min(MAX_WRITE)])];
                ready!(Pin::new(&mut self.io).poll_write_vectored(cx, &slices))?
            };
            if written == 0 {
                return Poll::Ready(Err(io::Error::from(io::ErrorKind::WriteZero).into()));
            }
            self.unflushed = true;
            sent += written;
            let of_out = written.min(self.out.len());
            self.out.advance(of_out);
            self.big.advance(written - of_out);
            if self.big.is_empty() {
                // An empty slice would hold all of a large body for as long as the connection is pooled.
                self.big = Bytes::new();
                self.out.extend_from_slice(std::mem::take(&mut self.after));
            }
        }
    }

    /// Gathers what is available of the request body. Ready: nothing more is needed now, or will come.
    fn gather(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, Error> {
        if self.waits {
            return Ok(Poll::Pending);
        }
        while let Some(upload) = &mut self.upload
            && !upload.done
            && self.out.len() < GATHERED
            && self.big.is_empty()
        {
            let Poll::Ready(frame) = Pin::new(&mut upload.body).poll_frame(cx) else { return Ok(Poll::Pending) };
            let frame = frame.transpose().map_err(|error| Error::Body(Some(error.into())))?;
            match frame.map(Frame::into_data) {
                Some(Ok(data)) if data.is_empty() => {}
                Some(Ok(data)) => self.put(data),
                Some(Err(frame)) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        self.end(&trailers)?;
                    }
                }
                None => self.end(&HeaderMap::new())?,
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
                upload.done = *left == 0;
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

    /// The request body is over.
    fn end(&mut self, trailers: &HeaderMap<HeaderValue>) -> Result<(), Error> {
        let Some(upload) = &mut self.upload else { return Ok(()) };
        match upload.outgoing {
            Outgoing::Length(_) => return Err(Error::Body(None)),
            Outgoing::Chunked => {
                self.out.extend_from_slice(b"0\r\n");
                for (name, value) in trailers {
                    if !matches!(*name, header::CONTENT_LENGTH | header::TRANSFER_ENCODING | header::TRAILER) {
                        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                            self.out.extend_from_slice(part);
                        }
                    }
                }
                self.out.extend_from_slice(b"\r\n");
            }
        }
        upload.done = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use http::Request;
    use http_body_util::{BodyExt, Empty, Full, StreamBody, combinators::UnsyncBoxBody};
    use proptest::prelude::*;
    use tokio::io::{AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    fn run<T>(test: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
    }

    type TestBody = UnsyncBoxBody<Bytes, io::Error>;
    type Line = Connection<DuplexStream, TestBody>;

    fn pair(room: usize) -> (Line, DuplexStream) {
        let (near, far) = duplex(room);
        (Connection::new(near), far)
    }

    /// A body of unknown length.
    fn pieces(pieces: Vec<Vec<u8>>) -> TestBody {
        failing(pieces.into_iter().map(|piece| Ok(piece.into())).collect())
    }

    fn failing(pieces: Vec<io::Result<Bytes>>) -> TestBody {
        StreamBody::new(stream::iter(pieces.into_iter().map(|piece| piece.map(Frame::data)))).boxed_unsync()
    }

    fn full(body: impl Into<Bytes>) -> TestBody {
        Full::new(body.into()).map_err(|never| match never {}).boxed_unsync()
    }

    fn empty() -> TestBody {
        Empty::new().map_err(|never| match never {}).boxed_unsync()
    }

    fn prepared(request: http::request::Builder, body: TestBody) -> (Encoded, Option<TestBody>) {
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let size = (!body.is_end_stream()).then(|| body.size_hint());
        (crate::head::encode(&parts, size), size.map(|_| body))
    }

    async fn post(line: &mut Line, body: TestBody) -> Result<Head, Error> {
        let (request, body) = prepared(Request::post("/x"), body);
        line.send(&request, body).await
    }

    fn is_reusable(line: &mut Line) -> bool {
        line.poll_reusable(&mut Context::from_waker(std::task::Waker::noop()))
    }

    async fn rest(line: &mut Line, mut framing: Framing) -> Result<Vec<u8>, Error> {
        let mut out = Vec::new();
        while let Some(frame) = line.frame(&mut framing).await {
            out.extend_from_slice(&frame?.into_data().unwrap_or_default());
        }
        Ok(out)
    }

    /// What a request with `Expect` does: what came after its head, and what the second answer is sent for.
    async fn expecting(answer: &'static [u8]) -> (Line, DuplexStream, Result<Head, Error>, Vec<u8>) {
        let (mut line, mut far) = pair(1 << 10);
        let (request, body) = prepared(Request::post("/x").header("expect", "100-continue"), full("body"));
        let serving = async move {
            let mut head = vec![0; b"POST /x HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n".len()];
            far.read_exact(&mut head).await.unwrap();
            assert!(head.ends_with(b"content-length: 4\r\n\r\n"));
            for _ in 0..5 {
                tokio::task::yield_now().await;
            }
            far.write_all(answer).await.unwrap();
            let mut sent = Vec::new();
            if answer.starts_with(b"HTTP/1.1 100") {
                sent.resize(4, 0);
                far.read_exact(&mut sent).await.unwrap();
                far.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
            }
            (far, sent)
        };
        let (head, (mut far, mut sent)) = tokio::join!(line.send(&request, body), serving);
        let mut more = [0; 8];
        if let Ok(Ok(n)) = tokio::time::timeout(std::time::Duration::from_millis(20), far.read(&mut more)).await {
            sent.extend_from_slice(&more[..n]);
        }
        (line, far, head, sent)
    }

    #[test]
    fn a_body_waits_for_100_continue_and_is_not_sent_after_a_response() {
        run(async {
            let (mut line, _far, head, sent) = expecting(b"HTTP/1.1 100 Continue\r\n\r\n").await;
            assert_eq!((head.unwrap().status, &*sent), (StatusCode::OK, &b"body"[..]));
            assert!(is_reusable(&mut line));
            // Another interim response is none of that, and a final one ends it.
            let (mut line, _far, head, sent) =
                expecting(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await;
            assert_eq!((head.unwrap().status, sent.len()), (StatusCode::NOT_FOUND, 0));
            assert!(!is_reusable(&mut line), "the server may still wait for the body");
        });
    }

    #[test]
    fn a_body_that_waits_is_sent_without_being_asked_for_if_the_caller_says_so() {
        run(async {
            let (mut line, mut far) = pair(1 << 10);
            let (request, body) = prepared(Request::post("/x").header("expect", "100-continue"), full("body"));
            line.start(&request, body);
            let mut polls = 0;
            let head = poll_fn(|cx| {
                polls += 1;
                if polls == 3 {
                    line.stop_waiting();
                }
                cx.waker().wake_by_ref();
                line.poll_head(cx)
            });
            let serving = async {
                let mut read = Vec::new();
                while !read.ends_with(b"\r\n\r\nbody") {
                    far.read_buf(&mut read).await.unwrap();
                }
                far.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
            };
            let (head, ()) = tokio::join!(head, serving);
            assert_eq!(head.unwrap().status, StatusCode::OK);
        });
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
                        (full(all.clone()), [head.as_bytes(), &all].concat())
                    } else {
                        let chunk = |piece: &Vec<u8>| [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat();
                        let chunks: Vec<u8> = upload.iter().flat_map(chunk).collect();
                        let head = b"POST /x HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n";
                        (pieces(upload), [&head[..], &chunks, b"0\r\n\r\n"].concat())
                    };
                    let asking = async {
                        let head = post(&mut line, sent).await.unwrap();
                        assert!(head.status == StatusCode::OK && head.keep_alive);
                        rest(&mut line, head.framing).await.unwrap()
                    };
                    let (read, back) = tokio::join!(asking, answer(far, &asked, &wire, cut));
                    assert!(read == body, "{} bytes of {}", read.len(), body.len());
                    assert!(is_reusable(&mut line));
                    far = back;
                }
            });
        }
    }

    #[test]
    fn a_response_that_comes_before_the_request_is_sent_is_read() {
        run(async {
            let (mut line, mut far) = pair(100);
            far.write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig").await.unwrap();
            let head = post(&mut line, pieces(vec![vec![0; 100_000]])).await.unwrap();
            assert_eq!(head.status, StatusCode::PAYLOAD_TOO_LARGE);
            assert_eq!(rest(&mut line, head.framing).await.unwrap(), b"big");
            assert!(!is_reusable(&mut line), "the rest of the request would come in front of the next");
        });
    }

    #[test]
    fn a_response_of_a_server_that_closes_without_reading_is_read() {
        run(async {
            let (mut line, mut far) = pair(100);
            far.write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig").await.unwrap();
            drop(far);
            let head = post(&mut line, full(vec![0; 100_000])).await.unwrap();
            assert_eq!(rest(&mut line, head.framing).await.unwrap(), b"big");
            assert!(!is_reusable(&mut line));
        });
    }

    #[test]
    fn a_body_that_ends_too_early_is_never_complete() {
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
                let (head, ()) = tokio::join!(post(&mut line, empty()), answering);
                let read = rest(&mut line, head.unwrap().framing).await;
                assert_eq!(read.is_ok(), whole, "{wire}");
                assert!(whole || matches!(read, Err(Error::Closed)), "{wire}");
            });
        }
        run(async {
            let (mut line, mut far) = pair(1000);
            far.write_all(b"HTTP/1.1 200 O").await.unwrap();
            drop(far);
            assert!(post(&mut line, empty()).await.is_err());
        });
    }

    #[test]
    fn a_request_whose_body_fails_or_ends_early_is_our_failure() {
        for body in [failing(vec![Ok(Bytes::from("a")), Err(io::Error::other("gone"))]), pieces(vec![vec![b'a']])] {
            run(async {
                let (mut line, _far) = pair(1000);
                let (request, body) = prepared(Request::post("/x").header("content-length", "2"), body);
                assert!(matches!(line.send(&request, body).await, Err(Error::Body(_))));
            });
        }
    }

    #[test]
    fn a_connection_that_was_closed_or_speaks_unasked_is_not_reusable() {
        run(async {
            let (mut line, mut far) = pair(1000);
            assert!(is_reusable(&mut line));
            far.write_all(b"HTTP/1.1 408 Request Timeout\r\n\r\n").await.unwrap();
            assert!(!is_reusable(&mut line));
            let (mut line, far) = pair(1000);
            drop(far);
            assert!(!is_reusable(&mut line));
        });
    }

    #[test]
    fn trailers_cross_in_both_directions() {
        run(async {
            let (mut line, far) = pair(1000);
            let mut trailers = HeaderMap::new();
            trailers.insert("x-sum", HeaderValue::from_static("7"));
            let frames = [Ok(Frame::data(Bytes::from("ab"))), Ok(Frame::trailers(trailers))];
            let body = StreamBody::new(stream::iter(frames)).boxed_unsync();
            let asked = b"POST /x HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nx-sum: 7\r\n\r\n";
            let wire = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-End: 1\r\n\r\n";
            let asking = async {
                let mut framing = post(&mut line, body).await.unwrap().framing;
                let data = line.frame(&mut framing).await.unwrap().unwrap();
                let trailers = line.frame(&mut framing).await.unwrap().unwrap().into_trailers().unwrap();
                assert_eq!(
                    (&data.into_data().unwrap()[..], &trailers["x-end"]),
                    (&b"a"[..], &HeaderValue::from_static("1"))
                );
                assert!(line.frame(&mut framing).await.is_none());
            };
            let ((), _far) = tokio::join!(asking, answer(far, asked, wire, 5));
            assert!(is_reusable(&mut line));
        });
    }

    #[test]
    fn a_flood_of_interim_responses_is_cut_off() {
        for (interim, passes) in [(usize::from(MAX_INTERIM), true), (usize::from(MAX_INTERIM) + 1, false)] {
            run(async {
                let (mut line, mut far) = pair(100_000);
                let wire = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(interim) + "HTTP/1.1 204 No Content\r\n\r\n";
                far.write_all(wire.as_bytes()).await.unwrap();
                match post(&mut line, empty()).await {
                    Ok(_) => assert!(passes),
                    Err(error) => assert!(!passes && matches!(error, Error::Invalid(Invalid::TooManyInterim))),
                }
            });
        }
    }

    #[test]
    fn a_pooled_connection_holds_nothing_of_a_large_body() {
        /// A body that shows whether it is held.
        struct Held(#[expect(dead_code, reason = "counted")] std::sync::Arc<()>, Vec<u8>);
        impl AsRef<[u8]> for Held {
            fn as_ref(&self) -> &[u8] {
                &self.1
            }
        }
        run(async {
            let (mut line, far) = pair(1000);
            let held = std::sync::Arc::new(());
            let body = full(Bytes::from_owner(Held(held.clone(), vec![b'a'; 4 * GATHERED])));
            let asked = [b"POST /x HTTP/1.1\r\ncontent-length: 65536\r\n\r\n", &vec![b'a'; 4 * GATHERED][..]].concat();
            let (head, _far) =
                tokio::join!(post(&mut line, body), answer(far, &asked, b"HTTP/1.1 204 No Content\r\n\r\n", 99));
            assert_eq!(head.unwrap().status, StatusCode::NO_CONTENT);
            assert!(is_reusable(&mut line));
            assert_eq!(std::sync::Arc::strong_count(&held), 1);
        });
    }

    #[test]
    fn large_bodies_give_other_tasks_their_turns() {
        const SIZE: usize = 8 << 20;
        let turns = std::cell::Cell::new(0);
        run(async {
            let others = async {
                loop {
                    turns.set(turns.get() + 1);
                    yield_now().await;
                }
            };
            let (mut line, mut far) = pair(4 * SIZE);
            let exchange = async {
                let serving = async {
                    let mut asked = vec![0; "POST /x HTTP/1.1\r\ncontent-length: 8388608\r\n\r\n".len() + SIZE];
                    far.read_exact(&mut asked).await.unwrap();
                    let sent = turns.replace(0);
                    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n");
                    far.write_all(&[head.as_bytes(), &vec![b'a'; SIZE]].concat()).await.unwrap();
                    sent
                };
                let (head, sent) = tokio::join!(post(&mut line, full(vec![b'b'; SIZE])), serving);
                let read = rest(&mut line, head.unwrap().framing).await.unwrap();
                (sent, turns.get(), read.len())
            };
            tokio::select! {
                () = others => unreachable!(),
                (sent, received, read) = exchange => {
                    assert_eq!(read, SIZE);
                    assert!(sent >= SIZE / TURN - 1 && received >= SIZE / TURN / 2, "{sent} {received}");
                }
            }
        });
    }

    #[test]
    fn a_failed_exchange_gives_the_body_back_and_says_whether_a_byte_came() {
        for (wire, received) in [("", false), ("HTTP", true)] {
            run(async {
                let (mut line, mut far) = pair(1000);
                let serving = async {
                    let mut read = [0; 10];
                    far.read_exact(&mut read).await.unwrap();
                    far.write_all(wire.as_bytes()).await.unwrap();
                    drop(far);
                };
                let (sent, ()) = tokio::join!(post(&mut line, full("body")), serving);
                assert!(matches!(sent, Err(Error::Closed | Error::Io(_))));
                assert_eq!((line.has_received(), line.take_body().is_some()), (received, true));
            });
        }
    }

    /// A stream that keeps what is written until it is flushed, as TLS does, and needs two attempts for that.
    struct Lazy {
        inner: DuplexStream,
        held: Vec<u8>,
        refusals: u8,
    }

    impl AsyncRead for Lazy {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buffer: &mut tokio::io::ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut self.inner).poll_read(cx, buffer)
        }
    }

    impl AsyncWrite for Lazy {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.held.extend_from_slice(bytes);
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            if self.refusals > 0 {
                self.refusals -= 1;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let this = &mut *self;
            let written = ready!(Pin::new(&mut this.inner).poll_write(cx, &this.held))?;
            this.held.drain(..written);
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn the_rest_of_a_request_is_flushed_while_the_response_is_read() {
        run(async {
            let (near, mut far) = duplex(1000);
            let mut line = Connection::new(Lazy { inner: near, held: Vec::new(), refusals: 2 });
            far.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await.unwrap();
            let (request, body) = prepared(Request::post("/x"), full("body"));
            let mut framing = line.send(&request, body).await.unwrap().framing;
            assert!(!line.is_sent(), "it is not flushed yet");
            let serving = async {
                let mut read = vec![0; request.head.len() + 4];
                far.read_exact(&mut read).await.unwrap();
                far.write_all(b"0\r\n\r\n").await.unwrap();
            };
            let (end, ()) = tokio::join!(line.frame(&mut framing), serving);
            assert!(end.is_none() && line.is_sent());
        });
    }

    #[test]
    fn a_closed_connection_is_not_reusable_even_with_an_exhausted_budget() {
        run(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let near = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let mut line: Connection<_, TestBody> = Connection::new(near);
            drop(listener.accept().await.unwrap());
            line.io.readable().await.unwrap();
            let reusable = poll_fn(|cx| {
                // A task may do this many operations of IO before it must yield.
                while pin!(tokio::task::consume_budget()).poll(cx).is_ready() {}
                Poll::Ready(line.poll_reusable(cx))
            });
            assert!(!reusable.await);
        });
    }
}
