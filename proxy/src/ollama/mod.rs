//! What the upstream speaks: Ollama's native API.

use base64::{
    alphabet,
    engine::{GeneralPurpose, GeneralPurposeConfig},
};

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

/// How Ollama, with Go's `encoding/base64`, reads base64: padded, and whatever the unused bits of the last character
/// are.
pub(crate) const BASE64: GeneralPurpose =
    GeneralPurpose::new(&alphabet::STANDARD, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));
