//! One HTTP/1.1 client connection, without a task, a channel or a big buffer.
//!
//! Nothing happens in the background: the task that awaits the response head or reads the response body drives the
//! connection, in both directions. Dropping a [`Connection`] closes it. There is no pool, no redirect, no retry and no
//! decompression here; a pool only needs [`Connection::poll_reusable`], and a retry [`Connection::has_received`] and
//! [`Connection::take_body`].
//!
//! ```
//! use bytes::Bytes;
//! use http_body_util::Empty;
//! use http1_client::{Connection, encode};
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // Any stream of bytes: TCP, TLS, or one in memory.
//! let (client, mut server) = tokio::io::duplex(1024);
//! let (parts, ()) = http::Request::get("/greeting").header("host", "example.com").body(())?.into_parts();
//! let mut connection = Connection::<_, Empty<Bytes>>::new(client);
//! let request = encode(&parts, None);
//! let response = async {
//!     let mut head = connection.send(&request, None).await?;
//!     let mut body = Vec::new();
//!     while let Some(frame) = connection.frame(&mut head.framing).await {
//!         body.extend(frame?.into_data().unwrap_or_default());
//!     }
//!     Ok::<_, http1_client::Error>((head.status, body))
//! };
//! let served = async {
//!     server.read(&mut [0; 1024]).await?;
//!     server.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").await
//! };
//! let (response, _) = tokio::join!(response, served);
//! let (status, body) = response?;
//! assert_eq!((status.as_u16(), &body[..]), (200, &b"hello"[..]));
//! # Ok(())
//! # }
//! ```
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
