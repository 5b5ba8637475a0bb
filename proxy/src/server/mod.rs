//! The listener and its connections: limits, TLS, and request bodies that nobody read to the end.

pub(crate) mod body_timeout;
pub(crate) mod connection;
pub(crate) mod listener;
pub(crate) mod tls;
pub(crate) mod unread;
