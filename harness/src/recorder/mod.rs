//! Recordings of a real Ollama: made by a proxy in front of it, masked, and compared with what another server answers.

mod mask;
mod proxy;
mod upstream;
mod verify;
mod wire;

pub(crate) use self::{
    mask::Masks,
    proxy::Recorder,
    upstream::Upstream,
    verify::{Skipped, Terms, Verified, introduce, verify},
};
