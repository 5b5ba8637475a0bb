//! A whole exchange with a remote that writes anything, in packets of any size, and closes: it ends, and without a
//! panic.
#![no_main]

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use http1_client::{Connection, encode};
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What a remote sends, and how much it takes.
struct Remote {
    wire: Vec<u8>,
    at: usize,
    piece: usize,
    takes: usize,
}

impl AsyncRead for Remote {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let end = self.wire.len().min(self.at + self.piece.min(buffer.remaining()));
        buffer.put_slice(&self.wire[self.at..end]);
        self.at = end;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Remote {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.takes == 0 {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let taken = bytes.len().min(self.takes).min(self.piece);
        self.takes -= taken;
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fuzz_target!(|input: (u8, u16, u16, Vec<u8>)| {
    let (piece, takes, size, wire) = input;
    let remote = Remote { wire, at: 0, piece: usize::from(piece).max(1), takes: usize::from(takes) };
    let mut connection = Connection::new(remote);
    let body = Full::new(Bytes::from(vec![b'b'; usize::from(size)]));
    let (parts, body) = Request::post("/").body(body).expect("a valid request").into_parts();
    let request = encode(&parts, Some(http_body::Body::size_hint(&body)));
    let cx = &mut Context::from_waker(Waker::noop());
    connection.start(&request, Some(body));
    let mut head = match connection.poll_head(cx) {
        Poll::Ready(Ok(head)) => head,
        Poll::Ready(Err(_)) => return,
        Poll::Pending => panic!("the remote never waits"),
    };
    loop {
        match connection.poll_frame(&mut head.framing, cx) {
            Poll::Ready(Some(Ok(_))) => {}
            Poll::Ready(None) => {
                assert!(head.framing.may_end());
                break;
            }
            Poll::Ready(Some(Err(_))) => break,
            Poll::Pending => panic!("the remote never waits"),
        }
    }
    connection.poll_reusable(cx);
});
