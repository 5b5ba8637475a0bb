//! One HTTP/1.1 client connection, without a task, a channel or a big buffer.
//!
//! Nothing happens in the background: the task that awaits the response head or reads the response body drives the
//! connection, in both directions. Dropping a [`Connection`] closes it. There is no pool, no redirect, no retry and no
//! decompression here; a pool only needs [`Connection::poll_reusable`], and a retry [`Connection::has_received`] and
//! [`Connection::take_body`].
//!
//! `README.md` has the conformance table; `tests/conformance.rs` runs it.

mod connection;
mod error;
mod framing;
mod head;

pub use connection::Connection;
pub use error::{Error, Invalid};
pub use framing::{Framing, Part, Taken};
pub use head::{Encoded, Head, Heads, Outgoing, Parsed, encode, encode_with};

/// Any error of a request body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
