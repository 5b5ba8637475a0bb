//! The listener and its connections: limits, timeouts, TLS, and request bodies that were not read to their end.

pub(crate) mod body_timeout;
pub(crate) mod connection;
pub(crate) mod listener;
pub(crate) mod request_check;
pub(crate) mod tls;
pub(crate) mod unread;
