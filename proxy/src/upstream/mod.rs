//! HTTP to the remote Ollama: connecting, pooling, and passing native requests through.

pub(crate) mod client;
pub(crate) mod connect;
pub(crate) mod connection;
pub(crate) mod framing;
pub(crate) mod head;
pub(crate) mod passthrough;
pub(crate) mod pool;
