//! What is left of a request's body when its answer is there: whoever is refused at the gate, say, is still sending.
//!
//! A connection cannot go on before all of it has come. So a little is read and thrown away; after more, the answer says that the connection
//! ends here. Without either, a client would send its next request on a connection that is closed under it.

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

/// How much is read, and for how long: a chat with a picture, but no flood.
const MOST: u64 = 4 << 20;
const PATIENCE: Duration = Duration::from_secs(1);

/// What nobody has read of a body, once nobody will.
pub(crate) struct Unread {
    left: Arc<Mutex<Left>>,
    /// The client sends its body only when it is asked to.
    waits: bool,
}

impl Unread {
    /// Looks after the request's body; None where it has none.
    pub(crate) fn of(request: &mut Request) -> Option<Self> {
        if request.body().is_end_stream() {
            return None;
        }
        let left = Arc::new(Mutex::new(Left::Nothing));
        let body = std::mem::take(request.body_mut());
        *request.body_mut() = Body::new(Read { body: Some(body), left: left.clone() });
        Some(Self { left, waits: request.headers().contains_key(EXPECT) })
    }

    /// Reads what is left, and tells whether that was all.
    pub(crate) async fn finish(self) -> bool {
        let left = std::mem::take(&mut *self.left.lock().unwrap_or_else(PoisonError::into_inner));
        let mut body = match left {
            Left::Nothing => return true,
            Left::Body(body) => body,
            Left::Broken => return false,
        };
        if self.waits || body.size_hint().lower() > MOST {
            return false;
        }
        let reading = async {
            let mut read = 0;
            while let Some(frame) = body.frame().await {
                let Ok(frame) = frame else { return false };
                read += frame.data_ref().map_or(0, |data| data.len() as u64);
                if read > MOST {
                    return false;
                }
            }
            true
        };
        tokio::time::timeout(PATIENCE, reading).await.unwrap_or(false)
    }
}

#[derive(Default)]
enum Left {
    #[default]
    Nothing,
    Body(Body),
    /// It failed: the client fell silent, say.
    Broken,
}

/// A body that is not lost when its reader drops it.
struct Read {
    /// None: it has come to its end.
    body: Option<Body>,
    left: Arc<Mutex<Left>>,
}

impl Read {
    fn leave(&self, left: Left) {
        *self.left.lock().unwrap_or_else(PoisonError::into_inner) = left;
    }
}

impl HttpBody for Read {
    type Data = <Body as HttpBody>::Data;
    type Error = <Body as HttpBody>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let polled = Pin::new(body).poll_frame(context);
        match polled {
            Poll::Ready(None) => self.body = None,
            Poll::Ready(Some(Err(_))) => {
                self.body = None;
                self.leave(Left::Broken);
            }
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

impl Drop for Read {
    fn drop(&mut self) {
        if let Some(body) = self.body.take().filter(|body| !body.is_end_stream()) {
            self.leave(Left::Body(body));
        }
    }
}
