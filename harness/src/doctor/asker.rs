//! Makes the requests of the probes, within the time that is left.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use serde_json::Value;

use super::fact::{Fact, Replay, State};
use crate::{
    call::{self, CallTarget, Outcome, tap::End},
    report::{Exchange, Secrets},
    scenario::{Call, Client, Http},
    text::shorten,
};

/// Where a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// To the server itself.
    Direct,
    /// To Ollama's API: through farllama, if it stands in front.
    Native,
    /// To OpenAI's API: through farllama, if it stands in front.
    V1,
}

/// After one request without an end, others wait this much shorter: a server that hangs is examined in a bearable time.
const SHORTER: u32 = 4;

/// Makes requests.
pub(super) struct Asker {
    pub(super) http: reqwest::Client,
    /// Where the server is.
    pub(super) place: String,
    /// How the server is reached if this program cannot connect to it itself; direct requests then go through farllama.
    pub(super) by_way_of: Option<String>,
    pub(super) direct: String,
    pub(super) native: String,
    pub(super) openai: String,
    /// Headers of direct requests: the key.
    pub(super) headers: BTreeMap<String, String>,
    /// The key of a server without farllama in front.
    pub(super) key: Option<String>,
    pub(super) secrets: Secrets,
    /// How long one request may take.
    pub(super) timeout: Duration,
    /// Whether a request had not ended when its time was up.
    pub(super) hung: AtomicBool,
    /// When the time for tries is up.
    pub(super) until: Instant,
}

/// A request of a probe.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) lane: Lane,
    method: &'static str,
    path: String,
    body: Option<Value>,
    headers: BTreeMap<String, String>,
    leave_after: Option<usize>,
    expect: Value,
}

impl Ask {
    pub(super) fn get(lane: Lane, path: &str) -> Self {
        Self {
            lane,
            method: "GET",
            path: path.to_owned(),
            body: None,
            headers: BTreeMap::new(),
            leave_after: None,
            expect: Value::Null,
        }
    }

    pub(super) fn post(lane: Lane, path: &str, body: Value) -> Self {
        Self { method: "POST", body: Some(body), ..Self::get(lane, path) }
    }

    pub(super) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.insert(name.to_owned(), value.to_owned());
        self
    }

    /// The client leaves after so many lines or events.
    pub(super) fn leaving_after(self, lines: usize) -> Self {
        Self { leave_after: Some(lines), ..self }
    }

    /// What the model should answer, for the scenario: JSONPath → matcher.
    pub(super) fn expecting(self, expect: Value) -> Self {
        Self { expect, ..self }
    }

    /// The request as a scenario makes it again.
    pub(super) fn replay(&self) -> Replay {
        let path = if self.lane == Lane::V1 { format!("/v1{}", self.path) } else { self.path.clone() };
        Replay {
            method: self.method.to_owned(),
            path,
            body: self.body.clone().unwrap_or_default(),
            expect: self.expect.clone(),
        }
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) outcome: Outcome,
    pub(super) exchange: Exchange,
    replay: Replay,
    /// How long it was waited for.
    patience: Duration,
    secrets: Secrets,
}

impl Asker {
    /// Whether there is time for another try.
    pub(super) fn has_time(&self) -> bool {
        Instant::now() < self.until
    }

    /// How long the next request may take.
    pub(super) fn patience(&self) -> Duration {
        if self.hung.load(Ordering::Relaxed) { self.timeout / SHORTER } else { self.timeout }
    }

    /// Makes a request and waits for the end of its answer.
    pub(super) async fn ask(&self, ask: Ask) -> Answer {
        let replay = ask.replay();
        let mut headers = ask.headers;
        if ask.lane == Lane::Direct {
            headers.extend(self.headers.clone());
        }
        let url = match ask.lane {
            Lane::Direct => &self.direct,
            Lane::Native => &self.native,
            Lane::V1 => &self.openai,
        };
        let call = Call::Http(Http {
            method: Some(ask.method.to_owned()),
            path: ask.path,
            headers,
            body: ask.body,
            form: None,
            cut_after: None,
            leave_after: ask.leave_after,
        });
        let target = CallTarget { url, openai: &self.openai, key: self.key.as_deref(), http: &self.http, seen: None };
        let patience = self.patience();
        let outcome = call::make(&call, &Client::default(), target, patience).await;
        if outcome.timed_out {
            self.hung.store(true, Ordering::Relaxed);
        }
        let exchange = Exchange::new(&outcome, &self.secrets);
        Answer { outcome, exchange, replay, patience, secrets: self.secrets.clone() }
    }
}

impl Answer {
    pub(super) fn status(&self) -> Option<u16> {
        self.outcome.recording.status
    }

    pub(super) fn is_ok(&self) -> bool {
        self.status().is_some_and(|status| (200..300).contains(&status))
    }

    /// The JSON of the body.
    pub(super) fn json(&self) -> &Value {
        &self.outcome.understood
    }

    /// The JSON of a stream's events or lines.
    pub(super) fn events(&self) -> Vec<Value> {
        self.outcome.frames.events().map(|(_, value)| value).collect()
    }

    pub(super) fn is_complete(&self) -> bool {
        self.outcome.recording.end == End::Complete
    }

    /// When the first byte of the body came.
    pub(super) fn first(&self) -> Option<Duration> {
        self.outcome.recording.pieces.first().map(|piece| piece.after)
    }

    /// When the last byte of the body came.
    pub(super) fn last(&self) -> Option<Duration> {
        self.outcome.recording.pieces.last().map(|piece| piece.after)
    }

    pub(super) fn is_page(&self) -> bool {
        let body = self.outcome.recording.body();
        let start = String::from_utf8_lossy(&body[..body.len().min(40)]).trim_start().to_ascii_lowercase();
        start.starts_with("<!doctype") || start.starts_with("<html")
    }

    /// What the server said, in one line, keys masked.
    pub(super) fn words(&self) -> String {
        let error = &self.json()["error"];
        let message = error.as_str().or_else(|| error["message"].as_str());
        let (status, end) = (self.status(), &self.exchange.end);
        let text = match (status, message) {
            (None, _) if self.outcome.timed_out => {
                format!("no response within {}", crate::text::duration(self.patience))
            }
            (None, _) => end.clone(),
            (Some(status), Some(message)) => format!("{status}: {message}"),
            (Some(status), None) if self.is_page() => format!("{status} with an HTML page"),
            (Some(status), None) if !self.is_ok() => format!("{status}: {}", self.exchange.body.trim()),
            (Some(status), None) => match &self.outcome.recording.end {
                End::Complete | End::Left => {
                    let failed = self.events().into_iter().find(|event| !event["error"].is_null());
                    let error = failed.map(|event| event["error"].clone());
                    let words = error.map(|error| error["message"].as_str().map_or(error.to_string(), str::to_owned));
                    words.map_or_else(|| status.to_string(), |words| format!("an error in mid-stream: {words}"))
                }
                End::Open => format!("{status}, and then no end within {}", crate::text::duration(self.patience)),
                _ => format!("{status}, and then {end}"),
            },
        };
        shorten(&self.secrets.hidden(&text).replace('\n', " "), 240)
    }

    /// A fact that this answer shows, with the exchange.
    pub(super) fn shows(self, fact: Fact) -> Fact {
        if fact.state == State::Good || fact.state == State::Info {
            return fact;
        }
        Fact { exchange: Some(self.exchange), replay: Some(self.replay), ..fact }
    }
}

/// The quantile of some times, which are sorted first; zero of none.
pub(super) fn quantile(times: &mut [Duration], share: f64) -> Duration {
    times.sort_unstable();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index within a short list"
    )]
    let at = ((times.len().saturating_sub(1)) as f64 * share).round() as usize;
    times.get(at).copied().unwrap_or_default()
}

/// A short time with a decimal: `0.4 ms`, `31 ms`, `2.3 s`.
pub(super) fn brief(time: Duration) -> String {
    if time < Duration::from_millis(10) {
        format!("{:.1} ms", time.as_secs_f64() * 1000.0)
    } else {
        crate::text::duration(time)
    }
}
