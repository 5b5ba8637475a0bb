//! The socket under hyper, with a hand on the wire: an answer can be cut inside a chunk or reset, which no HTTP library does on its own.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// No fault, or how many bytes of the next write are held back before the connection is closed, or a reset.
const NONE: usize = usize::MAX;
const RESET: usize = usize::MAX - 1;

/// Breaks the connection that it belongs to, at its next write.
#[derive(Clone, Debug)]
pub(crate) struct Fault(Arc<AtomicUsize>);

impl Fault {
    /// The last `held` bytes of the next write stay here, and the connection is closed.
    pub(crate) fn cut(&self, held: usize) {
        self.0.store(held, Ordering::SeqCst);
    }

    /// The peer gets a reset in place of the next write.
    pub(crate) fn reset(&self) {
        self.0.store(RESET, Ordering::SeqCst);
    }
}

/// A socket that obeys a [`Fault`].
#[derive(Debug)]
pub(crate) struct Wire {
    stream: TcpStream,
    fault: Fault,
}

impl Wire {
    pub(crate) fn new(stream: TcpStream) -> (Self, Fault) {
        let fault = Fault(Arc::new(AtomicUsize::new(NONE)));
        (Self { stream, fault: fault.clone() }, fault)
    }

    fn broken() -> io::Error {
        io::Error::new(io::ErrorKind::ConnectionAborted, "the script breaks the connection here")
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.fault.0.load(Ordering::SeqCst) {
            NONE => Pin::new(&mut self.stream).poll_write(cx, buf),
            RESET => {
                // Closing a socket that lingers for no time is what sends RST.
                self.stream.set_zero_linger()?;
                Poll::Ready(Err(Self::broken()))
            }
            held => {
                let rest = &buf[..buf.len().saturating_sub(held)];
                if rest.is_empty() {
                    return Poll::Ready(Err(Self::broken()));
                }
                let written = ready!(Pin::new(&mut self.stream).poll_write(cx, rest))?;
                // What is left of this write is the held part, or that and an unsent part.
                Poll::Ready(Ok(written))
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
