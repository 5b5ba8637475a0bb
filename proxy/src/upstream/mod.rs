//! HTTP to the remote Ollama: connecting, pooling, and passing native requests through.

pub(crate) mod client;
pub(crate) mod connect;
pub(crate) mod fence;
mod last_line;
pub(crate) mod passthrough;
pub(crate) mod pool;
pub(crate) mod remotes;
pub(crate) mod request_body;
