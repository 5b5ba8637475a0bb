//! Self-proof: traffic that is broken in named ways, to see that scenarios notice.
//!
//! A scenario that no broken server can fail proves nothing. So a layer stands between client and proxy, and another
//! between proxy and Ollama, and they break one thing at a time. [`crate::proof`] runs and judges them, and does the
//! same for the fields of requests.

mod action;
mod answers;
mod documents;
mod events;
mod field;
mod form;
mod frame;
mod frames;
mod layer;
mod library;
mod message;
mod messages;
mod requests;

pub use action::{Mutation, Traffic};
pub use field::Field;
pub use layer::{Layer, Side};
pub use library::{MUTANTS, Mutant, named};
