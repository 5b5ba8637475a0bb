//! One exchange between a client and the proxy, as facts.

use std::time::Duration;

use http::{Method, StatusCode};

use crate::{receipt::Receipt, usage::Usage};

/// Everything that readers (the log line, later metrics and console) want to know. A new fact is one field.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Exchange {
    /// The request's id, `req_…` or what the client sent as `x-request-id`.
    pub(crate) id: String,
    pub(crate) method: Method,
    /// The path, without its query.
    pub(crate) route: String,
    /// What it was for, a label with few values: `chat`, `api/tags`, `other`.
    pub(crate) endpoint: &'static str,
    /// Whose key it was, where keys are asked for.
    pub(crate) caller: Option<String>,
    pub(crate) model: Option<String>,
    pub(crate) status: StatusCode,
    /// From the request's head to the first byte of the answer's body (or its end, if it has none).
    pub(crate) first_byte: Duration,
    /// From the request's head to the end.
    pub(crate) total: Duration,
    /// Unknown where nobody told, which is not zero.
    pub(crate) usage: Option<Usage>,
    /// What was emulated, and what had no effect.
    pub(crate) receipt: Receipt,
    /// What went wrong, in the words that the client got.
    pub(crate) error: Option<String>,
    pub(crate) ending: Ending,
}

/// How an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The client got the whole answer.
    Complete,
    /// The client left before.
    ClientGone,
    /// The remote did not answer, or not to the end.
    UpstreamFailed,
    /// A bug of ours.
    ProxyFailed,
    /// The request was refused, here or by the remote.
    Refused,
}

impl Ending {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::ClientGone => "client gone",
            Self::UpstreamFailed => "upstream failed",
            Self::ProxyFailed => "proxy failed",
            Self::Refused => "refused",
        }
    }
}
