//! A request body that is read before its request gets a slot that other callers wait for (`quota.max_concurrent`). It counts against
//! `limits.buffered` while it waits.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll},
};

use axum::{
    body::{Body, Bytes},
    extract::Request,
};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;

use crate::{
    buffered::{Counted, FREE, Lease, Share},
    error::{self, Error},
    whole_body,
};

/// Reads the body of `request`, up to `limit` bytes. On a `translated` route it becomes one piece, as its handler needs it; elsewhere its
/// frames and its framing stay the same.
///
/// # Errors
/// Fails if the body is larger, breaks off, or finds no room in the budget.
pub(crate) async fn read(request: Request, translated: bool, limit: usize, share: &Share) -> Result<Request, Error> {
    let mut lease = share.lease();
    if translated {
        let counted = request.extensions().get::<Counted>().is_some();
        let (mut parts, body) = request.into_parts();
        let read = if counted {
            whole_body::read(body, limit).await
        } else {
            whole_body::read_leased(body, limit, &mut lease).await
        };
        let body = read.map_err(|failed| failed.into_error(limit))?;
        parts.extensions.insert(Counted);
        return Ok(Request::from_parts(parts, Body::from(lease.hold(body))));
    }
    let (parts, mut body) = request.into_parts();
    let announced = body.size_hint().exact();
    let size = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if size > limit {
        return Err(Error::TooLarge { limit });
    }
    lease.fits(size)?;
    let (mut frames, mut size) = (VecDeque::new(), 0);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| error::own(&error).unwrap_or_else(|| whole_body::broken(&error)))?;
        let part = frame.data_ref().map_or(0, Bytes::len);
        size += part;
        if size > limit {
            return Err(Error::TooLarge { limit });
        }
        let only = frames.is_empty() && body.is_end_stream();
        if !(only && size <= FREE) {
            lease.grow(part).await?;
        }
        frames.push_back(frame);
    }
    Ok(Request::from_parts(parts, Body::new(HeldBody { frames, left: size as u64, sized: announced.is_some(), lease })))
}

/// A body that was read, with the frames and the framing that it came with.
struct HeldBody {
    frames: VecDeque<Frame<Bytes>>,
    /// Bytes in `frames`.
    left: u64,
    /// Whether its length was announced.
    sized: bool,
    lease: Lease,
}

impl HttpBody for HeldBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = self.frames.pop_front();
        let part = frame.as_ref().and_then(Frame::data_ref).map_or(0, Bytes::len);
        self.left -= part as u64;
        self.lease.shrink(part);
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        // A body without an announced length has an end of its own, also if it is empty.
        self.sized && self.frames.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = SizeHint::new();
        hint.set_lower(self.left);
        if self.sized {
            hint.set_upper(self.left);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, StreamExt, stream};
    use http::HeaderMap;
    use http_body_util::StreamBody;

    use super::*;

    fn request(body: Body) -> Request {
        Request::new(body)
    }

    fn held(body: Body, limit: usize) -> Result<Body, Error> {
        let read = read(request(body), false, limit, &Share::default()).now_or_never().expect("all of it is there");
        read.map(Request::into_body)
    }

    #[test]
    fn a_native_body_keeps_its_frames_and_its_framing() {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-end", http::HeaderValue::from_static("1"));
        let frames = ["ab", "c"].map(|part| Frame::data(Bytes::from(part)));
        let frames = frames.into_iter().chain([Frame::trailers(trailers)]).map(Ok::<_, axum::BoxError>);
        let mut body = held(Body::new(StreamBody::new(stream::iter(frames))), 3).unwrap();
        assert_eq!((body.size_hint().lower(), body.size_hint().exact()), (3, None));
        let mut next = || body.frame().now_or_never().unwrap().map(Result::unwrap);
        assert_eq!(next().unwrap().into_data().unwrap(), "ab");
        assert_eq!(next().unwrap().into_data().unwrap(), "c");
        assert_eq!(next().unwrap().into_trailers().unwrap().len(), 1);
        assert!(next().is_none());
        let sized = held(Body::from("abc"), 3).unwrap();
        assert_eq!((sized.size_hint().exact(), sized.is_end_stream()), (Some(3), false));
        let empty = held(Body::from_stream(stream::empty::<Result<Bytes, axum::BoxError>>()), 3).unwrap();
        assert!(!empty.is_end_stream(), "chunked, and empty");
    }

    #[test]
    fn a_body_that_is_too_large_or_breaks_off_gets_no_slot() {
        let parts = |end: Option<axum::BoxError>| {
            let parts = stream::iter(["ab", "cd"]).map(|part| Ok(Bytes::from(part)));
            Body::from_stream(parts.chain(stream::iter(end.map(Err))))
        };
        assert_eq!(held(parts(None), 3).unwrap_err(), Error::TooLarge { limit: 3 });
        assert_eq!(held(Body::from("abcd"), 3).unwrap_err(), Error::TooLarge { limit: 3 });
        let broken = held(parts(Some("gone".into())), 9).unwrap_err();
        assert!(matches!(broken, Error::Invalid { .. }), "{broken}");
        let silent = Error::Silent { within: std::time::Duration::from_secs(1) };
        assert_eq!(held(parts(Some(silent.clone().into())), 9).unwrap_err(), silent);
    }
}
