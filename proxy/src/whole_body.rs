//! Reads a body whole, within a limit. A body that says that it is too large is refused before a byte of it is read
//! (and before a client is sent `100 Continue`), and a large one is joined into one buffer off the event loop.

use axum::BoxError;
use bytes::{Bytes, BytesMut};
use http_body::Body as HttpBody;
use http_body_util::BodyExt;

use crate::{
    buffered::{FREE, Lease},
    error::{self, Error},
    offload,
};

/// Why a body could not be read.
#[derive(Debug)]
pub(crate) enum Failed {
    /// It is larger than the limit.
    TooLarge,
    /// It broke off, or failed.
    Broken(BoxError),
    /// The budget for bodies has no room for it, or what came of it was refused.
    Refused(Error),
}

impl Failed {
    /// The error for a request body that may have `limit` bytes.
    pub(crate) fn into_error(self, limit: usize) -> Error {
        match self {
            Self::TooLarge => Error::TooLarge { limit },
            Self::Refused(error) => error,
            Self::Broken(error) => error::own(&*error).unwrap_or_else(|| broken(&error)),
        }
    }
}

/// The error for a request body that failed with `error`.
pub(crate) fn broken(error: &dyn std::fmt::Display) -> Error {
    let message = format!("the request body could not be read to its end: {error}");
    Error::Invalid { message, param: None, code: None }
}

/// # Errors
/// Fails if the body is larger than `limit` bytes, or fails itself.
pub(crate) async fn read<B>(body: B, limit: usize) -> Result<Bytes, Failed>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    read_counted(body, limit, None, |_| Ok(())).await
}

/// Reads the body of a request, whose bytes `lease` counts while they are held: the caller binds it to them.
///
/// # Errors
/// As [`read`]; fails if there is no room in the budget.
pub(crate) async fn read_leased<B>(body: B, limit: usize, lease: &mut Lease) -> Result<Bytes, Failed>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    read_counted(body, limit, Some(lease), |_| Ok(())).await
}

/// As [`read_leased`], where `watch` sees each part as it comes.
///
/// # Errors
/// As [`read_leased`]; fails as soon as `watch` does.
pub(crate) async fn read_watched<B>(
    body: B,
    limit: usize,
    lease: &mut Lease,
    watch: impl FnMut(&Bytes) -> Result<(), Error>,
) -> Result<Bytes, Failed>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    read_counted(body, limit, Some(lease), watch).await
}

async fn read_counted<B>(
    body: B,
    limit: usize,
    mut lease: Option<&mut Lease>,
    mut watch: impl FnMut(&Bytes) -> Result<(), Error>,
) -> Result<Bytes, Failed>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    let mut body = body;
    if body.size_hint().lower() > limit as u64 {
        return Err(Failed::TooLarge);
    }
    if let Some(lease) = &lease {
        let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
        lease.fits(announced).map_err(Failed::Refused)?;
    }
    let (mut parts, mut size) = (Vec::new(), 0);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Failed::Broken(error.into()))?;
        let Ok(part) = frame.into_data() else { continue };
        size += part.len();
        if size > limit {
            return Err(Failed::TooLarge);
        }
        watch(&part).map_err(Failed::Refused)?;
        let only = parts.is_empty() && body.is_end_stream();
        if let Some(lease) = &mut lease
            && !(only && size <= FREE)
        {
            lease.grow(part.len()).await.map_err(Failed::Refused)?;
        }
        // Most bodies are one part, which needs no list.
        if only {
            return Ok(part);
        }
        parts.push(part);
    }
    Ok(match parts.len() {
        0 => Bytes::new(),
        1 => parts.swap_remove(0),
        _ => offload::run(size, move || join(parts, size)).await,
    })
}

fn join(parts: Vec<Bytes>, size: usize) -> Bytes {
    let mut whole = BytesMut::with_capacity(size);
    // Each part is freed once it is copied, so that the body is not held twice.
    for part in parts {
        whole.extend_from_slice(&part);
    }
    whole.freeze()
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use http_body::Frame;
    use http_body_util::{Full, StreamBody};

    use super::*;

    fn parts(sizes: &[usize]) -> impl HttpBody<Data = Bytes, Error = BoxError> + Unpin {
        let frames: Vec<_> = sizes.iter().map(|size| Ok(Frame::data(Bytes::from(vec![b'x'; *size])))).collect();
        StreamBody::new(stream::iter(frames))
    }

    #[tokio::test]
    async fn parts_are_joined_in_order_and_within_the_limit() {
        let size = async |sizes: &[usize], limit| read(parts(sizes), limit).await.map(|body| body.len());
        assert!(matches!(size(&[], 0).await, Ok(0)));
        assert!(matches!(size(&[5], 5).await, Ok(5)));
        assert!(matches!(size(&[2, 3], 5).await, Ok(5)));
        assert!(matches!(size(&[2, 4], 5).await, Err(Failed::TooLarge)));
        assert!(matches!(size(&[1 << 20, 1 << 20], 4 << 20).await, Ok(0x20_0000)), "off the event loop");
        let frames = ["a", "b", "c"].map(|part| Ok::<_, BoxError>(Frame::data(Bytes::from(part))));
        assert_eq!(read(StreamBody::new(stream::iter(frames)), 3).await.unwrap(), "abc");
    }

    #[tokio::test]
    async fn a_body_that_says_it_is_too_large_is_not_read() {
        /// Panics when it is read.
        struct Unreadable;
        impl HttpBody for Unreadable {
            type Data = Bytes;
            type Error = BoxError;

            fn poll_frame(
                self: std::pin::Pin<&mut Self>,
                _: &mut std::task::Context<'_>,
            ) -> std::task::Poll<Option<Result<Frame<Bytes>, BoxError>>> {
                unreachable!("it is too large")
            }

            fn size_hint(&self) -> http_body::SizeHint {
                http_body::SizeHint::with_exact(6)
            }
        }
        assert!(matches!(read(Unreadable, 5).await, Err(Failed::TooLarge)));
        assert_eq!(read(Full::new(Bytes::from("12345")), 5).await.unwrap(), "12345");
    }

    #[tokio::test]
    async fn what_failed_the_body_is_kept() {
        let frames = [Ok(Frame::data(Bytes::from("a"))), Err(BoxError::from("gone"))];
        let failed = read(StreamBody::new(stream::iter(frames)), 5).await;
        assert!(matches!(failed, Err(Failed::Broken(error)) if error.to_string() == "gone"));
    }
}
