//! What judging produces: an expectation that does not hold, and who is to blame.

use serde::{Deserialize, Serialize};

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
    /// The law that a stream breaks, if it is about one.
    pub law: Option<&'static str>,
}

impl Finding {
    /// A finding about an expectation of a scenario.
    #[must_use]
    pub fn new(at: Place, about: impl Into<String>, expected: impl Into<String>, actual: impl Into<String>) -> Self {
        Self { at, about: about.into(), expected: expected.into(), actual: actual.into(), law: None }
    }
}

/// Who is to blame for what does not hold. Every report uses these two words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Blame {
    /// The server, which does not keep the protocol.
    #[default]
    Server,
    /// The model, which answered badly; the server may be fit.
    Model,
}

impl std::fmt::Display for Blame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Server => "server",
            Self::Model => "model",
        })
    }
}
