//! What happened: the facts of one exchange, gathered on its way and logged once it is over, and each minute while it
//! runs.
//!
//! Watching never changes traffic: nothing here buffers, delays or narrows anything. It holds facts, never prompts or
//! answers.

mod body;
mod cancel;
mod exchange;
mod history;
mod in_flight;
mod inspector;
mod line;
mod log;
mod log_ring;
mod metrics;
mod otlp;
mod readers;
mod recorder;
mod tail;
mod trace_context;
mod traces;

pub(crate) use body::{Facts, Opened, watch};
pub(crate) use cancel::Reason;
pub(crate) use exchange::{Ending, Exchange};
pub(crate) use history::{History, Point, Row};
pub(crate) use in_flight::{InFlight, Open};
pub(crate) use inspector::{Ask, Inspected, Inspector, Text, tee_response};
pub use line::{ExchangeLog, LineSink};
pub(crate) use log_ring::LEVELS;
pub use log_ring::{LogLine, LogRing};
pub(crate) use metrics::{Gauges, Metrics, Traffic};
pub(crate) use readers::{Reader, Readers};
pub(crate) use recorder::Recorder;
pub(crate) use trace_context::TRACEPARENT;
pub(crate) use traces::Tracer;
