//! A request's body, which fails when the client falls silent in the middle of it.
//!
//! Only silence that somebody waits for counts: a body that is not asked for, because the remote is slow or the request stands in the
//! queue, may rest as long as it likes. A big upload may take as long as it takes.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Instant;

use crate::{deadline::Alarm, error::Error};

/// The body.
pub(crate) struct Upload<B> {
    body: B,
    /// Zero means without limit.
    within: Duration,
    /// Since when somebody waits for it.
    since: Option<Instant>,
    alarm: Alarm,
}

impl<B> Upload<B> {
    pub(crate) fn new(body: B, within: Duration) -> Self {
        Self { body, within, since: None, alarm: Alarm::default() }
    }
}

impl<B> HttpBody for Upload<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<axum::BoxError>,
{
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            this.since = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        if this.within.is_zero() {
            return Poll::Pending;
        }
        let since = *this.since.get_or_insert_with(Instant::now);
        ready!(this.alarm.poll(since + this.within, cx));
        Poll::Ready(Some(Err(Error::Silent { within: this.within }.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
