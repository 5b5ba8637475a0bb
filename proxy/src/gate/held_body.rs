//! Request bodies that are read before their requests go on: before one gets a slot that other callers wait for
//! (`quota.max_concurrent`), or to find the names of models in it. What is held of them counts against
//! `limits.buffered`.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll},
};

use axum::{
    body::{Body, Bytes},
    extract::Request,
};
use bytes::BytesMut;
use http::{HeaderMap, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;

use crate::{
    buffered::{Counted, FREE, Lease, Share},
    error::{self, Error},
    whole_body,
};

/// Reads the body of `request`, up to `limit` bytes. On a `translated` route it becomes one piece, as its handler needs
/// it; elsewhere its frames and its framing stay the same.
///
/// # Errors
/// Fails if the body is larger, breaks off, or finds no room in the budget.
pub(crate) async fn read(request: Request, translated: bool, limit: usize, share: &Share) -> Result<Request, Error> {
    if translated {
        let counted = request.extensions().get::<Counted>().is_some();
        let (mut parts, body) = request.into_parts();
        let body = read_whole(body, counted, limit, share).await?;
        parts.extensions.insert(Counted);
        return Ok(Request::from_parts(parts, Body::from(body)));
    }
    let lease = share.lease();
    let (parts, body) = request.into_parts();
    let size = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if size > limit {
        return Err(Error::TooLarge { limit });
    }
    lease.fits(size)?;
    let mut held = HeldBody::new(body, lease);
    held.read(limit, |_| true).await?;
    if !held.is_whole() || held.left > limit {
        return Err(Error::TooLarge { limit });
    }
    Ok(Request::from_parts(parts, Body::new(held)))
}

/// Reads a body into one piece, up to `limit` bytes, and counts it unless it is `counted` already.
///
/// # Errors
/// As [`read`].
pub(crate) async fn read_whole(body: Body, counted: bool, limit: usize, share: &Share) -> Result<Bytes, Error> {
    let mut lease = share.lease();
    let read = if counted {
        whole_body::read(body, limit).await
    } else {
        whole_body::read_leased(body, limit, &mut lease).await
    };
    read.map(|body| lease.hold(body)).map_err(|failed| failed.into_error(limit))
}

/// Whether a body is compressed.
pub(crate) fn is_encoded(headers: &HeaderMap) -> bool {
    headers.get_all(header::CONTENT_ENCODING).iter().any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"))
}

/// A body whose first part was read, or all of it, with the frames and the framing that it came with.
pub(crate) struct HeldBody {
    frames: VecDeque<Frame<Bytes>>,
    /// Bytes in `frames`.
    left: usize,
    /// Whether its length was announced.
    sized: bool,
    lease: Lease,
    /// What was not read yet. None: it has ended.
    rest: Option<Body>,
}

impl HeldBody {
    /// `lease` counts what is read.
    pub(crate) fn new(body: Body, lease: Lease) -> Self {
        let sized = body.size_hint().exact().is_some();
        Self { frames: VecDeque::new(), left: 0, sized, lease, rest: Some(body) }
    }

    /// A body of which a frame was read already. It is small, so it is not counted.
    pub(crate) fn begun(frame: Frame<Bytes>, rest: Body) -> Self {
        let left = frame.data_ref().map_or(0, Bytes::len);
        let mut held = Self::new(rest, Share::default().lease());
        held.lease.add(left);
        (held.left, held.frames) = (left, [frame].into());
        held
    }

    /// Whether nothing is left to read.
    pub(crate) fn is_whole(&self) -> bool {
        self.rest.is_none()
    }

    /// Reads on until the body ends, more than `limit` bytes are held, or `goes_on` is false for a part that was read.
    ///
    /// # Errors
    /// Fails if the body breaks off, or finds no room in the budget.
    pub(crate) async fn read(&mut self, limit: usize, mut goes_on: impl FnMut(&Bytes) -> bool) -> Result<(), Error> {
        while self.left <= limit
            && let Some(body) = &mut self.rest
        {
            let Some(frame) = body.frame().await else {
                self.rest = None;
                break;
            };
            let frame = frame.map_err(|error| error::own(&error).unwrap_or_else(|| whole_body::broken(&error)))?;
            let ended = body.is_end_stream();
            let part = frame.data_ref().cloned().unwrap_or_default();
            self.left += part.len();
            let only = self.frames.is_empty() && ended;
            if !(only && self.left <= FREE) {
                self.lease.grow(part.len()).await?;
            }
            self.frames.push_back(frame);
            if ended {
                self.rest = None;
            }
            if !goes_on(&part) {
                break;
            }
        }
        Ok(())
    }

    /// The bytes that were read.
    pub(crate) fn bytes(&self) -> Bytes {
        let mut parts = self.frames.iter().filter_map(Frame::data_ref);
        match (parts.next(), parts.next()) {
            (None, _) => Bytes::new(),
            (Some(only), None) => only.clone(),
            (Some(_), Some(_)) => {
                let mut all = BytesMut::with_capacity(self.left);
                self.frames.iter().filter_map(Frame::data_ref).for_each(|part| all.extend_from_slice(part));
                all.freeze()
            }
        }
    }

    /// Puts `bytes` in the place of those that were read. Trailers stay.
    pub(crate) fn replace(&mut self, bytes: Bytes) {
        self.frames.retain(Frame::is_trailers);
        self.left = bytes.len();
        self.frames.push_front(Frame::data(bytes));
    }

    /// Changes what is still to come.
    pub(crate) fn map_rest(&mut self, change: impl FnOnce(Body) -> Body) {
        self.rest = self.rest.take().map(change);
    }
}

impl HttpBody for HeldBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Some(frame) = self.frames.pop_front() else {
            return self.rest.as_mut().map_or(Poll::Ready(None), |rest| Pin::new(rest).poll_frame(cx));
        };
        let part = frame.data_ref().map_or(0, Bytes::len);
        self.left -= part;
        self.lease.shrink(part);
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        // A body without an announced length has an end of its own, also if it is empty.
        self.frames.is_empty() && self.rest.as_ref().map_or(self.sized, HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.as_ref().map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint);
        let mut hint = SizeHint::new();
        hint.set_lower(self.left as u64 + rest.lower());
        if let Some(upper) = rest.upper().filter(|_| self.sized) {
            hint.set_upper(self.left as u64 + upper);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, StreamExt, stream};
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
