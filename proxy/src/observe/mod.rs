//! What happened: the facts of one exchange, gathered on its way and told once it is over.
//!
//! Watching never changes traffic: nothing here buffers, delays or narrows anything. It holds facts, never prompts or answers.

mod body;
mod exchange;
mod log;
mod recorder;
mod tail;

pub(crate) use body::{Opened, watch};
pub(crate) use exchange::{Ending, Exchange};
pub(crate) use recorder::Recorder;
