//! What the upstream speaks: Ollama's native API.

pub(crate) mod embed;
mod gateway;
pub(crate) mod generate;
pub(crate) mod listing;
pub(crate) mod models;
pub(crate) mod name;
pub(crate) mod ndjson;
pub(crate) mod refusal;
pub(crate) mod version;
pub(crate) mod wire;
