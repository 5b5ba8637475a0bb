//! What endpoints share to send a generation to Ollama: messages, the context size, and the retries that adapt a
//! request to the model or to the version of Ollama.

pub(crate) mod context;
pub(crate) mod estimate;
pub(crate) mod message;
pub(crate) mod prepare;
mod reask;
pub(crate) mod send;
mod truncate;
