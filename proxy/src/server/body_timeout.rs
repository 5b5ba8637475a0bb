//! A request body that fails when the client stops sending it, or sends it too slowly.
//!
//! Only time that the proxy spends waiting for the client counts: a body that is not read, because the remote is slow
//! or the request is queued, may rest. A big upload may take as long as it takes.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Instant;

use crate::{config::Limits, deadline::Alarm, error::Error, server::connection::ConnState};

/// How long a body may be waited for in all before its rate counts.
const RATE_GRACE: Duration = Duration::from_secs(60);

/// The body.
pub(crate) struct TimedBody<B: HttpBody> {
    body: B,
    connection: ConnState,
    /// It has come to its end.
    ended: bool,
    /// How long the client may be silent. Zero: without limit.
    idle: Duration,
    /// The lowest rate, in bytes per second of waiting. Zero: without limit.
    rate: u64,
    /// Since when the proxy has been waiting for the next bytes.
    since: Option<Instant>,
    /// How long it has waited before that.
    waited: Duration,
    received: u64,
    deadline: Alarm,
}

impl<B: HttpBody> TimedBody<B> {
    /// The body of a request on `connection`.
    pub(crate) fn new(body: B, limits: &Limits, connection: ConnState) -> Self {
        Self {
            ended: body.is_end_stream(),
            body,
            connection,
            idle: limits.body_idle,
            rate: limits.body_rate,
            since: None,
            waited: Duration::ZERO,
            received: 0,
            deadline: Alarm::default(),
        }
    }

    /// When the wait that began at `since` is over, and why; None: never.
    fn due(&self, since: Instant) -> Option<(Instant, Error)> {
        let silent = (!self.idle.is_zero()).then(|| (since + self.idle, Error::Silent { within: self.idle }));
        let slow = self.received.checked_div(self.rate).map(|earned| {
            let allowed = RATE_GRACE.saturating_add(Duration::from_secs(earned));
            (since + allowed.saturating_sub(self.waited), Error::Slow { rate: self.rate })
        });
        silent.into_iter().chain(slow).min_by_key(|(due, _)| *due)
    }
}

impl<B> HttpBody for TimedBody<B>
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
            if let Some(since) = this.since.take() {
                this.waited += since.elapsed();
            }
            if let Some(Ok(frame)) = &frame {
                this.received += frame.data_ref().map_or(0, |data| data.len() as u64);
            }
            this.ended = frame.is_none();
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let since = *this.since.get_or_insert_with(Instant::now);
        let Some((due, error)) = this.due(since) else { return Poll::Pending };
        ready!(this.deadline.poll(due, cx));
        Poll::Ready(Some(Err(error.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B: HttpBody> Drop for TimedBody<B> {
    fn drop(&mut self) {
        if !self.ended && !self.body.is_end_stream() {
            self.connection.leave_unread();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{StreamExt, stream};
    use http_body_util::{BodyExt, StreamBody};

    use super::*;
    use crate::error;

    fn connection() -> ConnState {
        ConnState::new(std::net::Ipv4Addr::LOCALHOST.into(), std::sync::Arc::default())
    }

    /// Reads a body that sends `bytes` bytes every `pause`, `times` times: how it ended, and after how long.
    async fn trickle(bytes: usize, pause: Duration, times: usize, limits: &Limits) -> (Option<Error>, u64) {
        let begun = Instant::now();
        let frames = stream::iter(0..times).then(move |_| async move {
            tokio::time::sleep(pause).await;
            Ok::<_, axum::BoxError>(Frame::data(Bytes::from(vec![b'x'; bytes])))
        });
        let body = TimedBody::new(StreamBody::new(Box::pin(frames)), limits, connection());
        let error = body.collect().await.err().and_then(|error| error::own(&*error));
        (error, begun.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_a_body() {
        let limits = Limits { body_idle: Duration::from_secs(5), body_rate: 0, ..Limits::default() };
        let (error, after) = trickle(1, Duration::from_secs(6), 3, &limits).await;
        assert_eq!((error, after), (Some(Error::Silent { within: limits.body_idle }), 5));
        assert_eq!(trickle(1, Duration::from_secs(4), 100, &limits).await, (None, 400));
    }

    #[tokio::test(start_paused = true)]
    async fn a_trickle_ends_a_body_after_a_grace() {
        let limits = Limits { body_idle: Duration::from_secs(60), body_rate: 100, ..Limits::default() };
        // 10 bytes a second earn a tenth of each second.
        let (error, after) = trickle(10, Duration::from_secs(1), 1000, &limits).await;
        assert_eq!((error, after), (Some(Error::Slow { rate: 100 }), 66));
        assert_eq!(trickle(100, Duration::from_secs(1), 1000, &limits).await, (None, 1000));
    }

    #[tokio::test(start_paused = true)]
    async fn time_in_which_the_body_is_not_read_does_not_count() {
        let limits = Limits { body_idle: Duration::from_secs(5), body_rate: 100, ..Limits::default() };
        let frames = stream::iter(0..5).map(|_| Ok::<_, axum::BoxError>(Frame::data(Bytes::from_static(b"x"))));
        let mut body = TimedBody::new(StreamBody::new(frames), &limits, connection());
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_secs(600)).await;
            body.frame().await.unwrap().unwrap();
        }
    }
}
