//! What happened: the facts of one exchange, gathered on its way and logged once it is over, and each minute while it runs.
//!
//! Watching never changes traffic: nothing here buffers, delays or narrows anything. It holds facts, never prompts or answers.

mod body;
mod exchange;
mod in_flight;
mod line;
mod log;
mod readers;
mod recorder;
mod tail;

pub(crate) use body::{Facts, Opened, watch};
pub(crate) use exchange::{Ending, Exchange};
pub(crate) use in_flight::InFlight;
pub use line::{ExchangeLog, LineSink};
pub(crate) use readers::Readers;
pub(crate) use recorder::Recorder;
