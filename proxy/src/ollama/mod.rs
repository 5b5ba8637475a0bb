//! What the upstream speaks: Ollama's native API, the road to it, and the lane that passes bytes through.

pub(crate) mod embed;
mod gateway;
pub(crate) mod generate;
pub(crate) mod models;
pub(crate) mod ndjson;
pub(crate) mod refusal;
pub(crate) mod version;
pub(crate) mod wire;
