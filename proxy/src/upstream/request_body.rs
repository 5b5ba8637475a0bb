//! A request body that can be sent a second time, so that a request that met a closed connection is not lost.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, HeaderName};
use http_body::{Body as HttpBody, Frame, SizeHint};

/// Frames up to this size are copied: a slice would hold the buffer that the whole request was read into.
const COPIED: usize = 4 << 10;

/// A request body.
pub(crate) enum RequestBody {
    /// A translated request.
    Whole {
        /// All of it.
        bytes: Bytes,
        /// Whether it was handed over.
        sent: bool,
    },
    /// A native request, which streams.
    Stream(Box<Stream>),
}

/// A streamed body, and what was handed over of it.
pub(crate) struct Stream {
    body: Body,
    /// The trailers that are passed on.
    passed: Vec<HeaderName>,
    kept: Vec<Bytes>,
    kept_bytes: usize,
    /// How many of the kept frames were handed over in this attempt.
    next: usize,
    /// Maximum of `kept_bytes`. A body that is larger, or that has ended otherwise than in order, cannot be sent again.
    limit: usize,
    replayable: bool,
    trailers: Option<HeaderMap>,
    ended: bool,
}

impl Default for RequestBody {
    fn default() -> Self {
        Self::empty()
    }
}

impl RequestBody {
    pub(crate) fn empty() -> Self {
        Self::whole(Bytes::new())
    }

    pub(crate) fn whole(bytes: Bytes) -> Self {
        let sent = bytes.is_empty();
        Self::Whole { bytes, sent }
    }

    /// A streamed body, of which up to `limit` bytes are kept to be sent again. Trailers other than `passed` are
    /// dropped.
    pub(crate) fn stream(body: Body, limit: usize, passed: Vec<HeaderName>) -> Self {
        if body.is_end_stream() {
            return Self::empty();
        }
        Self::Stream(Box::new(Stream {
            body,
            passed,
            kept: Vec::new(),
            kept_bytes: 0,
            next: 0,
            limit,
            replayable: limit > 0,
            trailers: None,
            ended: false,
        }))
    }

    /// Begins again. Returns whether that is possible.
    pub(crate) fn rewind(&mut self) -> bool {
        match self {
            Self::Whole { bytes, sent } => {
                *sent = bytes.is_empty();
                true
            }
            Self::Stream(stream) => {
                stream.next = 0;
                stream.replayable
            }
        }
    }
}

impl Stream {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Some(data) = self.kept.get(self.next) {
            self.next += 1;
            return Poll::Ready(Some(Ok(Frame::data(data.clone()))));
        }
        if self.ended {
            return Poll::Ready(self.trailers.clone().map(|trailers| Ok(Frame::trailers(trailers))));
        }
        let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => {
                self.replayable = false;
                return Poll::Ready(Some(Err(error)));
            }
            None => {
                self.ended = true;
                return Poll::Ready(None);
            }
        };
        Poll::Ready(Some(Ok(match frame.into_data() {
            Ok(data) => {
                self.keep(&data);
                Frame::data(data)
            }
            Err(frame) => {
                let mut trailers = HeaderMap::new();
                let all = frame.into_trailers().unwrap_or_default();
                for name in &self.passed {
                    for value in all.get_all(name) {
                        trailers.append(name, value.clone());
                    }
                }
                self.ended = true;
                self.trailers = Some(trailers.clone());
                Frame::trailers(trailers)
            }
        })))
    }

    fn keep(&mut self, data: &Bytes) {
        if !self.replayable {
            return;
        }
        self.kept_bytes += data.len();
        if self.kept_bytes > self.limit {
            self.replayable = false;
            (self.kept, self.next) = (Vec::new(), 0);
            return;
        }
        self.kept.push(if data.len() <= COPIED { Bytes::copy_from_slice(data) } else { data.clone() });
        self.next = self.kept.len();
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        match &mut *self {
            Self::Whole { sent: true, .. } => Poll::Ready(None),
            Self::Whole { bytes, sent } => {
                *sent = true;
                Poll::Ready(Some(Ok(Frame::data(bytes.clone()))))
            }
            Self::Stream(stream) => stream.poll_next(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole { sent, .. } => *sent,
            Self::Stream(stream) => {
                stream.next == stream.kept.len()
                    && (stream.ended && stream.trailers.is_none() || stream.body.is_end_stream())
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole { sent: true, .. } => SizeHint::with_exact(0),
            Self::Whole { bytes, .. } => SizeHint::with_exact(bytes.len() as u64),
            Self::Stream(stream) => {
                let kept: u64 = stream.kept[stream.next..].iter().map(|data| data.len() as u64).sum();
                let rest = stream.body.size_hint();
                let mut hint = SizeHint::new();
                if let Some(upper) = rest.upper() {
                    hint.set_upper(upper + kept);
                }
                hint.set_lower(rest.lower() + kept);
                hint
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    fn streamed(pieces: &[&'static str], limit: usize) -> RequestBody {
        let pieces: Vec<_> = pieces.iter().map(|piece| Ok::<_, std::io::Error>(Bytes::from(*piece))).collect();
        RequestBody::stream(Body::from_stream(stream::iter(pieces)), limit, Vec::new())
    }

    async fn read(body: &mut RequestBody) -> String {
        let mut read = Vec::new();
        while let Some(frame) = body.frame().await {
            read.extend_from_slice(&frame.unwrap().into_data().unwrap_or_default());
        }
        String::from_utf8(read).unwrap()
    }

    #[tokio::test]
    async fn a_body_within_the_bound_is_read_twice_alike_however_far_the_first_attempt_came() {
        for frames in 0..=3 {
            let mut body = streamed(&["one", "two", "three"], 11);
            for _ in 0..frames {
                body.frame().await.unwrap().unwrap();
            }
            assert!(body.rewind());
            assert_eq!(read(&mut body).await, "onetwothree");
            assert!(body.rewind());
            assert_eq!(read(&mut body).await, "onetwothree");
        }
        let mut whole = RequestBody::whole("{}".into());
        assert_eq!((read(&mut whole).await, whole.rewind(), read(&mut whole).await), ("{}".into(), true, "{}".into()));
    }

    #[tokio::test]
    async fn a_body_beyond_the_bound_is_read_once_and_not_kept() {
        let mut body = streamed(&["one", "two", "three"], 10);
        assert_eq!(read(&mut body).await, "onetwothree");
        assert!(!body.rewind());
        let RequestBody::Stream(stream) = &body else { panic!("it streams") };
        assert!(stream.kept.is_empty());
        let mut never = streamed(&["one"], 0);
        read(&mut never).await;
        assert!(!never.rewind());
    }

    #[tokio::test]
    async fn only_announced_trailers_are_passed_on_in_every_attempt() {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-api-key", "secret".parse().unwrap());
        trailers.insert("x-sum", "7".parse().unwrap());
        let frames = [Ok::<_, std::io::Error>(Frame::data(Bytes::from("a"))), Ok(Frame::trailers(trailers))];
        let body = Body::new(StreamBody::new(stream::iter(frames)));
        let mut body = RequestBody::stream(body, 10, vec![HeaderName::from_static("x-sum")]);
        for _ in 0..2 {
            body.frame().await.unwrap().unwrap();
            let trailers = body.frame().await.unwrap().unwrap().into_trailers().unwrap();
            assert_eq!(trailers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-sum"]);
            assert!(body.rewind());
        }
    }
}
