//! What is left of a request's body when its response begins: the request was refused at the gate, say, or the remote
//! answered early.
//!
//! A connection cannot go on before all of it has come. So a little is read and discarded; if more is left, or the
//! remote is still being sent the body, the response says `Connection: close`. The connection then lingers
//! (`connection.rs`), so that a client that is still sending is not reset before it has read its response.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use axum::{body::Body, extract::Request};
use http::header::EXPECT;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;

use crate::upstream::passthrough::Expectation;

/// Maximum size of what is read and discarded, and how long that may take: a chat with an image, but no flood.
const MAX_DISCARDED: u64 = 4 << 20;
const MAX_TIME: Duration = Duration::from_secs(1);

/// Follows a request's body.
pub(crate) struct UnreadBody {
    state: Arc<Mutex<State>>,
    /// The client sends its body only when it is asked to.
    expects_continue: bool,
}

impl UnreadBody {
    /// Follows the body of `request`; None if it has none.
    pub(crate) fn of(request: &mut Request) -> Option<Self> {
        if request.body().is_end_stream() {
            return None;
        }
        let state = Arc::new(Mutex::new(State::Reading));
        let expects_continue = request.headers().contains_key(EXPECT);
        let expectation = expects_continue.then(Expectation::default);
        if let Some(expectation) = &expectation {
            request.extensions_mut().insert(expectation.clone());
        }
        let body = std::mem::take(request.body_mut());
        *request.body_mut() = Body::new(FollowedBody { body: Some(body), expectation, state: state.clone() });
        Some(Self { state, expects_continue })
    }

    /// Discards what is left. False if the connection must close after the response.
    pub(crate) async fn discard(self) -> bool {
        let state = std::mem::replace(&mut *lock(&self.state), State::Broken);
        let mut body = match state {
            State::Ended => return true,
            State::Dropped(body) => body,
            // Still being read: the remote answered early, and may never take the rest.
            State::Reading | State::Broken => return false,
        };
        if self.expects_continue || body.size_hint().lower() > MAX_DISCARDED {
            return false;
        }
        let reading = async {
            let mut read = 0;
            while let Some(frame) = body.frame().await {
                let Ok(frame) = frame else { return false };
                read += frame.data_ref().map_or(0, |data| data.len() as u64);
                if read > MAX_DISCARDED {
                    return false;
                }
            }
            true
        };
        tokio::time::timeout(MAX_TIME, reading).await.unwrap_or(false)
    }
}

/// What has become of a body.
enum State {
    Reading,
    /// It has come to its end.
    Ended,
    /// Its reader dropped it.
    Dropped(Body),
    /// It failed, or the rest is not needed.
    Broken,
}

fn lock(state: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A body that is handed back when its reader drops it.
struct FollowedBody {
    /// None: it has ended.
    body: Option<Body>,
    /// None: the client sends its body without being asked.
    expectation: Option<Expectation>,
    state: Arc<Mutex<State>>,
}

impl FollowedBody {
    fn end(&mut self, end: State) {
        self.body = None;
        *lock(&self.state) = end;
    }
}

impl HttpBody for FollowedBody {
    type Data = <Body as HttpBody>::Data;
    type Error = <Body as HttpBody>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        if let Some(expectation) = &self.expectation {
            expectation.meet();
        }
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let polled = Pin::new(&mut *body).poll_frame(context);
        match &polled {
            Poll::Ready(None) => self.end(State::Ended),
            // A body whose length is known is not asked for its end.
            Poll::Ready(Some(Ok(_))) if body.is_end_stream() => self.end(State::Ended),
            Poll::Ready(Some(Err(_))) => self.end(State::Broken),
            _ => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

impl Drop for FollowedBody {
    fn drop(&mut self) {
        let Some(body) = self.body.take() else { return };
        let mut state = lock(&self.state);
        if matches!(*state, State::Reading) {
            *state = State::Dropped(body);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::{StreamExt, stream};
    use http_body_util::StreamBody;

    use super::*;

    /// A request whose body comes in frames of these sizes, and fails at the end if `fails`.
    fn request(sizes: &[usize], fails: bool) -> Request {
        let frames: Vec<_> = sizes.iter().map(|size| Ok(Frame::data(Bytes::from(vec![b'x'; *size])))).collect();
        let end = fails.then(|| Err(axum::BoxError::from("gone")));
        Request::new(Body::new(StreamBody::new(stream::iter(frames.into_iter().chain(end)))))
    }

    async fn read(body: &mut Body, frames: usize) {
        for _ in 0..frames {
            // The end, or a failure, is also something to see.
            let _ = body.frame().await;
        }
    }

    /// Whether the connection may go on after `frames` of the body were read, and the rest dropped.
    async fn goes_on(mut request: Request, frames: usize) -> bool {
        let unread = UnreadBody::of(&mut request).expect("it has a body");
        let mut body = request.into_body();
        read(&mut body, frames).await;
        drop(body);
        unread.discard().await
    }

    #[tokio::test]
    async fn a_connection_goes_on_after_a_body_that_was_read_or_is_small() {
        assert!(UnreadBody::of(&mut Request::new(Body::empty())).is_none());
        assert!(goes_on(request(&[5, 5], false), 3).await, "read to its end");
        assert!(goes_on(request(&[5, 5], false), 1).await, "dropped in its middle");
        assert!(goes_on(request(&[5, 5], false), 0).await, "never read");
        assert!(
            goes_on(Request::new(Body::from("12345")), 1).await,
            "its length is known, so its end is not asked for"
        );
    }

    #[tokio::test]
    async fn a_connection_ends_after_a_body_that_is_large_failed_or_not_sent_yet() {
        assert!(!goes_on(request(&[3 << 20, 3 << 20], false), 0).await, "too large");
        assert!(!goes_on(Request::new(Body::from(vec![0; 5 << 20])), 0).await, "it says that it is too large");
        assert!(!goes_on(request(&[5], true), 2).await, "failed in the reader's hands");
        assert!(!goes_on(request(&[5], true), 0).await, "failed while it was discarded");
        let mut waiting = request(&[5], false);
        waiting.headers_mut().insert(EXPECT, http::HeaderValue::from_static("100-continue"));
        assert!(!goes_on(waiting, 0).await, "the client was never asked for it");
    }

    #[tokio::test]
    async fn a_body_that_is_still_being_read_ends_the_connection() {
        let mut early = request(&[5, 5], false);
        let unread = UnreadBody::of(&mut early).expect("it has a body");
        let mut body = early.into_body();
        read(&mut body, 1).await;
        assert!(!unread.discard().await);
        // Its reader may go on.
        assert!(body.frame().await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_go_on_sending_is_not_waited_for() {
        let silent = stream::iter([Ok::<_, axum::BoxError>(Frame::data(Bytes::from("x")))]).chain(stream::pending());
        let begun = tokio::time::Instant::now();
        assert!(!goes_on(Request::new(Body::new(StreamBody::new(silent))), 0).await);
        assert_eq!(begun.elapsed(), MAX_TIME);
    }
}
