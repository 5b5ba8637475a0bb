//! One connection's seat: whether it is being answered or idle, and since when; how long the head of a request may take, and how long none may come.
//!
//! An idle connection may be closed for one that comes; one that is being answered never is.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use axum::body::{Body, Bytes};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Notify,
};

use crate::{config::Limits, deadline::Alarm};

/// What is known of a connection. All clones are the same seat.
#[derive(Clone, Debug)]
pub(crate) struct Seat {
    state: Arc<Mutex<State>>,
    /// Told when an answer ends.
    idle: Arc<Notify>,
}

#[derive(Clone, Copy, Debug)]
struct State {
    answering: usize,
    /// Requests whose heads have come.
    heads: u64,
    since: Instant,
}

impl Seat {
    pub(crate) fn new(idle: Arc<Notify>) -> Self {
        Self { state: Arc::new(Mutex::new(State { answering: 0, heads: 0, since: Instant::now() })), idle }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Since when nothing is being answered; None while something is.
    pub(crate) fn idle_since(&self) -> Option<Instant> {
        let state = self.state();
        (state.answering == 0).then_some(state.since)
    }

    /// A request's head has come.
    pub(crate) fn begin(&self) -> Answering {
        let mut state = self.state();
        state.answering += 1;
        state.heads += 1;
        drop(state);
        Answering(self.clone())
    }
}

/// A request that is being answered, until this is dropped.
#[derive(Debug)]
pub(crate) struct Answering(Seat);

impl Drop for Answering {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.answering -= 1;
        state.since = Instant::now();
        drop(state);
        self.0.idle.notify_one();
    }
}

/// An answer's body.
pub(crate) struct Answer {
    body: Body,
    /// Held while the body lasts.
    _answering: Answering,
}

impl Answer {
    pub(crate) fn new(body: Body, answering: Answering) -> Self {
        Self { body, _answering: answering }
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A stream that fails when a head, once begun, is not whole in time, or when none begins for long.
pub(crate) struct Heads<S> {
    inner: S,
    seat: Seat,
    /// How long a head may take. Zero here and below: without limit.
    head_time: Duration,
    /// How long none may come.
    idle: Duration,
    /// Since when a head is on its way, and after how many others.
    begun: Option<(u64, Instant)>,
    alarm: Alarm,
}

impl<S> Heads<S> {
    pub(crate) fn new(inner: S, seat: Seat, limits: &Limits) -> Self {
        let Limits { head_time, idle, .. } = *limits;
        Self { inner, seat, head_time, idle, begun: None, alarm: Alarm::default() }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Heads<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.inner).poll_read(cx, buffer);
        let State { answering, heads, since } = *this.seat.state();
        if answering > 0 {
            this.begun = None;
            if read.is_pending() && !this.idle.is_zero() {
                // Nobody has to read again when the answer ends: then the alarm sees to it, before anything is due.
                let _ = this.alarm.poll((Instant::now() + this.idle).into(), cx);
            }
            return read;
        }
        this.begun.take_if(|(head, _)| *head != heads);
        if read.is_ready() {
            if buffer.filled().len() > before {
                this.begun.get_or_insert_with(|| (heads, Instant::now()));
            }
            return read;
        }
        let (from, within, what) = match this.begun {
            Some((_, begun)) => (begun, this.head_time, "a request's head took too long"),
            None => (since, this.idle, "no request came for long"),
        };
        if !within.is_zero() && this.alarm.poll((from + within).into(), cx).is_ready() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, what)));
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Heads<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
