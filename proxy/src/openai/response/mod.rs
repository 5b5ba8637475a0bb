//! What endpoints share to write a response: the event stream and log probabilities.

pub(crate) mod logprobs;
pub(crate) mod sse;
