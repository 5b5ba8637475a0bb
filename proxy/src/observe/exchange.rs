//! One exchange between a client and the proxy, as facts.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use http::{HeaderValue, Method, StatusCode};

use super::{Facts, inspector::Capture, traces::Trace};
use crate::{error::Error, receipt::Receipt, usage::Usage};

/// Everything that readers want to know, unformatted. A new fact is one field.
#[derive(Clone, Debug)]
pub(crate) struct Exchange<'a> {
    /// The key under which it was listed while it ran; unlike the id, no two exchanges have the same.
    pub(crate) key: u64,
    /// The request's id, `req_…` or what the client sent as `x-request-id`.
    pub(crate) id: &'a str,
    pub(crate) method: &'a Method,
    /// The path, without its query.
    pub(crate) route: &'a str,
    /// What it was for, a label with few values: `chat`, `api/tags`, `other`.
    pub(crate) endpoint: &'static str,
    /// The address at the other end of the connection.
    pub(crate) peer: Option<SocketAddr>,
    /// Whose key it was, where keys are asked for.
    pub(crate) caller: Option<&'a str>,
    pub(crate) model: Option<&'a str>,
    /// None if the client left before there was a response.
    pub(crate) status: Option<StatusCode>,
    /// From the request's head to the first byte of the response's body (or its end, if it has none). It may be a
    /// heartbeat.
    pub(crate) first_byte: Option<Duration>,
    /// From the request's head to the first token, where tokens are streamed.
    pub(crate) first_token: Option<Duration>,
    /// From the request's head to the end.
    pub(crate) total: Duration,
    /// What was waited for when the client left.
    pub(crate) waiting_for: Option<&'static str>,
    /// `None` if it is unknown, which is not zero.
    pub(crate) usage: Option<Usage>,
    /// How fast the model generated.
    pub(crate) tokens_per_second: Option<f64>,
    /// What was emulated, and what had no effect.
    pub(crate) receipt: &'a Receipt,
    /// What went wrong.
    pub(crate) error: Option<&'a Error>,
    pub(crate) ending: Ending,
    /// Headers with keys: readers mask these in every text. Empty if no text shows one.
    pub(crate) secrets: &'a [HeaderValue],
    /// What the inspector has copied of it.
    pub(crate) capture: Option<&'a Capture>,
    /// When it ended.
    pub(crate) now: Instant,
    pub(crate) clock: SystemTime,
    /// Its facts, for readers that format them later.
    pub(crate) facts: Option<&'a Arc<Facts>>,
    /// The trace that it belongs to, where there are traces.
    pub(crate) trace: Option<&'a Trace>,
}

#[cfg(test)]
impl<'a> Exchange<'a> {
    /// A chat that was answered, for tests.
    pub(crate) fn sample(receipt: &'a Receipt) -> Self {
        Self {
            key: 1,
            id: "req_1",
            method: &Method::POST,
            route: "/v1/chat/completions",
            endpoint: "chat",
            peer: None,
            caller: Some("ann"),
            model: Some("m"),
            status: Some(StatusCode::OK),
            first_byte: None,
            first_token: Some(Duration::from_millis(30)),
            total: Duration::from_secs(2),
            waiting_for: None,
            usage: Some(Usage { input: 7, output: 3, cached: 0 }),
            tokens_per_second: None,
            receipt,
            error: None,
            ending: Ending::Complete,
            secrets: &[],
            capture: None,
            now: Instant::now(),
            clock: SystemTime::UNIX_EPOCH,
            facts: None,
            trace: None,
        }
    }
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
    /// An operator canceled it, or the process stopped.
    Canceled,
}

impl Ending {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::ClientGone => "client gone",
            Self::UpstreamFailed => "upstream failed",
            Self::ProxyFailed => "proxy failed",
            Self::Refused => "refused",
            Self::Canceled => "canceled",
        }
    }

    /// The value of a metric's label.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::ClientGone => "client_gone",
            Self::UpstreamFailed => "upstream_failed",
            Self::ProxyFailed => "proxy_failed",
            one => one.as_str(),
        }
    }
}
