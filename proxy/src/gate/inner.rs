//! Requests that the proxy makes to itself on behalf of a caller who has been admitted: a turn on a WebSocket
//! connection, a response in the background. They pass the gate as all others, but bring no key: the caller is known by
//! its digest.

use axum::extract::Request;

use crate::config::Digest;

/// Marks a request as one of the proxy's own. Only the proxy can set it: it is no header.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Inner {
    /// Whose it is. None: no key was needed.
    pub(crate) digest: Option<Digest>,
    /// Whether the request that it belongs to has counted in the caller's window already.
    pub(crate) counted: bool,
}

impl Inner {
    /// The mark of `request`, if it has one.
    pub(crate) fn of(request: &Request) -> Option<Self> {
        request.extensions().get().copied()
    }
}
