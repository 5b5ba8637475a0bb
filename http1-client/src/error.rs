//! Why an exchange failed.

use std::io;

use crate::{BoxError, head::MAX_HEADERS};

/// Why an exchange failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The request body failed, or ended before its announced length (`None`).
    #[error("the request body failed")]
    Body(#[source] Option<BoxError>),
    /// Reading from or writing to the connection failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The response violates HTTP/1.1.
    #[error("{0}")]
    Invalid(#[from] Invalid),
    /// The connection was closed before the response was complete.
    #[error("the connection was closed before the response was complete")]
    Closed,
}

/// How a response violates HTTP/1.1, or what it uses that this client does not support.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Invalid {
    /// The first bytes are not a status line of HTTP/1.0 or HTTP/1.1.
    #[error("it does not start with an HTTP/1 status line")]
    StatusLine,
    /// More than 100 header lines.
    #[error("more than {MAX_HEADERS} headers")]
    TooManyHeaders,
    /// A head of more than 256 KiB.
    #[error("a response head of more than {} KiB", crate::head::MAX_HEAD >> 10)]
    HeadTooLarge,
    /// A header that continues on the next line (obsolete line folding, RFC 9112 section 5.2).
    #[error("a folded header line")]
    FoldedHeader,
    /// A header line with an invalid name or value.
    #[error("an invalid header line")]
    Header,
    /// A `Content-Length` that is not a number.
    #[error("an invalid Content-Length")]
    ContentLength,
    /// Several `Content-Length` values that differ.
    #[error("several Content-Length values that differ")]
    ContentLengths,
    /// A transfer coding other than `chunked`, which was not requested, or any on HTTP/1.0.
    #[error("an unsupported Transfer-Encoding")]
    TransferEncoding,
    /// A switch of protocols that was not requested.
    #[error("an unexpected switch of protocols")]
    SwitchingProtocols,
    /// More than 8 interim (1xx) responses.
    #[error("more than {} interim (1xx) responses", crate::head::MAX_INTERIM)]
    TooManyInterim,
    /// A chunked body with invalid framing.
    #[error("an invalid chunked body: {0}")]
    Chunk(&'static str),
}
