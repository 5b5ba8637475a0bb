//! The watcher around an answer's body: it sees the first byte and the end, failure and drop included, and then tells the exchange.

use std::{
    panic::AssertUnwindSafe,
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use axum::{body::Body, response::Response};
use bytes::Bytes;
use http::{Method, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::{Ending, Exchange, Recorder, log};
use crate::{error::Error, observe::tail::Tail, redact::masked};

/// What is known of an exchange once its answer's head is ready.
pub(crate) struct Opened {
    pub(crate) id: String,
    pub(crate) method: Method,
    pub(crate) route: String,
    /// The label of its route.
    pub(crate) endpoint: &'static str,
    pub(crate) started: Instant,
    pub(crate) recorder: Recorder,
}

/// Puts the watcher around `response`. `native` answers tell their token counts themselves, in their last line.
pub(crate) fn watch(opened: Opened, refused: Option<&Error>, native: bool, response: Response) -> Response {
    if let Some(error) = refused {
        opened.recorder.failed(error);
    }
    let status = response.status();
    response.map(|body| {
        Body::new(Watched { body, tail: native.then(Tail::default), opened: Some(opened), status, first_byte: None })
    })
}

struct Watched {
    body: Body,
    tail: Option<Tail>,
    /// Taken when the exchange is told.
    opened: Option<Opened>,
    status: StatusCode,
    first_byte: Option<Instant>,
}

impl Watched {
    fn close(&mut self, ended: Ending) {
        let Some(Opened { id, method, route, endpoint, started, recorder }) = self.opened.take() else { return };
        let now = Instant::now();
        let mut notes = recorder.notes();
        if let Some((model, usage)) = self.tail.as_ref().map(Tail::read) {
            notes.model = notes.model.take().or(model);
            notes.usage = notes.usage.or(usage);
        }
        // Some clients close right after the last event, before the body's own end.
        let ended = if notes.finished { Ending::Complete } else { ended };
        let ending = match &notes.error {
            _ if ended == Ending::ClientGone => Ending::ClientGone,
            Some(Error::Internal { .. }) => Ending::ProxyFailed,
            Some(error) if error.row().status.is_server_error() => Ending::UpstreamFailed,
            Some(_) => Ending::Refused,
            None if ended == Ending::Complete && self.status.is_client_error() => Ending::Refused,
            None => ended,
        };
        log::line(&Exchange {
            id,
            method,
            route,
            endpoint,
            caller: notes.caller.take(),
            model: notes.model.take().map(|model| masked(&model, &notes.secrets)),
            status: self.status,
            first_byte: self.first_byte.unwrap_or(now) - started,
            total: now - started,
            usage: notes.usage,
            receipt: std::mem::take(&mut notes.receipt),
            error: notes.error.as_ref().map(|error| masked(&error.to_string(), &notes.secrets)),
            ending,
        });
    }
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        let polling = AssertUnwindSafe(|| Pin::new(&mut this.body).poll_frame(cx));
        let polled = std::panic::catch_unwind(polling).unwrap_or_else(|_| {
            // The panic itself is in the log. The client learns that the body is not whole, because its connection ends.
            let error = Error::panicked();
            if let Some(opened) = &this.opened {
                opened.recorder.failed(&error);
            }
            this.body = Body::empty();
            Poll::Ready(Some(Err(axum::Error::new(error))))
        });
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    this.first_byte.get_or_insert_with(Instant::now);
                    if let Some(tail) = &mut this.tail {
                        tail.push(data);
                    }
                }
            }
            Poll::Ready(Some(Err(_))) => this.close(Ending::UpstreamFailed),
            Poll::Ready(None) => this.close(Ending::Complete),
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // A body whose length is known is not asked for its end.
        let ended = if self.body.is_end_stream() { Ending::Complete } else { Ending::ClientGone };
        self.close(ended);
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    /// A body of one frame, after which it panics.
    struct Panics(bool);

    impl HttpBody for Panics {
        type Data = Bytes;
        type Error = axum::Error;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
            assert!(!std::mem::replace(&mut self.0, true), "on purpose");
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"one")))))
        }
    }

    #[tokio::test]
    async fn a_panic_fails_the_body_and_is_recorded_as_a_failure_of_the_proxy() {
        let recorder = Recorder::default();
        let opened = Opened {
            id: String::new(),
            method: Method::GET,
            route: "/".to_owned(),
            endpoint: "native",
            started: Instant::now(),
            recorder: recorder.clone(),
        };
        let mut body = watch(opened, None, true, Response::new(Body::new(Panics(false)))).into_body();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "one");
        assert!(body.frame().await.unwrap().is_err());
        assert!(body.frame().await.is_none());
        assert_eq!(recorder.notes().error, Some(Error::panicked()));
    }
}
