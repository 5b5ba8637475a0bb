//! What judging produces: an expectation that does not hold, and who is to blame.

use serde::Serialize;

use crate::scenario::Place;

/// An expectation that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Where the expectation stands.
    pub at: Place,
    /// What it is about: a JSONPath, `wire.status`, `sent.path`, …
    pub about: String,
    /// What was expected.
    pub expected: String,
    /// What there was.
    pub actual: String,
}

/// Who is to blame for what does not hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Blame {
    /// The server, which broke what it promises.
    #[default]
    Protocol,
    /// The model, which was not wise enough; the server may be fit.
    Model,
}
