//! What the upstream speaks: Ollama's native API, the road to it, and the lane that passes bytes through.

pub(crate) mod client;
pub(crate) mod connect;
pub(crate) mod embed;
pub(crate) mod framing;
pub(crate) mod generate;
pub(crate) mod head;
pub(crate) mod line;
pub(crate) mod ndjson;
pub(crate) mod passthrough;
pub(crate) mod pool;
pub(crate) mod refusal;
pub(crate) mod version;
pub(crate) mod wire;
