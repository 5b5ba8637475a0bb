//! The body that hyper pulls: each piece is flushed on its own, as Ollama does, and the journal learns how it ended.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use super::{
    answer::{Part, Parts},
    wire::Fault,
};
use crate::journal::Pencil;

/// Bytes after the data of a chunk.
const CHUNK_END: usize = 2;

/// The body of every answer.
pub(crate) struct MockBody {
    content: Content,
    /// Bytes that are still to come, where that is known.
    left: Option<u64>,
    /// Set after each piece: hyper flushes when nothing is ready.
    flushing: bool,
    /// A cut or a reset has been asked for; the wire does the rest.
    broken: bool,
    fault: Option<Fault>,
    pencil: Option<Pencil>,
}

enum Content {
    Empty,
    Whole(Bytes),
    Parts(Parts),
}

impl MockBody {
    fn new(content: Content, left: Option<u64>) -> Self {
        Self { content, left, flushing: false, broken: false, fault: None, pencil: None }
    }

    pub(crate) fn empty() -> Self {
        Self::new(Content::Empty, Some(0))
    }

    pub(crate) fn whole(bytes: Bytes) -> Self {
        let left = bytes.len() as u64;
        Self::new(Content::Whole(bytes), Some(left))
    }

    pub(crate) fn parts(length: Option<u64>, parts: Parts) -> Self {
        Self::new(Content::Parts(parts), length)
    }

    /// The body takes over the journal's entry and the hand on the wire.
    pub(crate) fn attach(&mut self, fault: Fault, mut pencil: Pencil, is_head: bool) {
        // Of such a body hyper asks nothing.
        if is_head || matches!(self.content, Content::Empty) {
            pencil.complete();
        }
        self.fault = Some(fault);
        self.pencil = Some(pencil);
    }

    fn complete(&mut self) {
        if let Some(pencil) = &mut self.pencil {
            pencil.complete();
        }
    }

    fn data(&mut self, bytes: Bytes) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.flushing = true;
        if let Some(pencil) = &self.pencil {
            pencil.wrote();
        }
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(bytes.len() as u64);
            if *left == 0 && !self.broken {
                self.complete();
            }
        }
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }
}

impl Body for MockBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.flushing {
            self.flushing = false;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if self.broken {
            return Poll::Ready(Some(Err(io::Error::other("the script breaks the connection here"))));
        }
        let part = match &mut self.content {
            Content::Empty => None,
            Content::Whole(bytes) if bytes.is_empty() => None,
            Content::Whole(bytes) => Some(Part::Data(std::mem::take(bytes))),
            Content::Parts(parts) => match parts.as_mut().poll_next(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(part) => part,
            },
        };
        match part {
            None => {
                self.complete();
                Poll::Ready(None)
            }
            Some(Part::Data(bytes)) => self.data(bytes),
            Some(Part::Cut(bytes)) if bytes.is_empty() => {
                // The head leaves while nothing is ready.
                self.broken = true;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Some(Part::Cut(bytes)) => {
                let held = bytes.len().div_ceil(2) + if self.left.is_none() { CHUNK_END } else { 0 };
                self.broken = true;
                if let Some(fault) = &self.fault {
                    fault.cut(held);
                }
                self.data(bytes)
            }
            Some(Part::Reset) => {
                self.broken = true;
                if let Some(fault) = &self.fault {
                    fault.reset();
                }
                // The wire turns the next write into a reset, so there must be one.
                self.data(Bytes::from_static(b"\n"))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        !self.broken && self.left == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
