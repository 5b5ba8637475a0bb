//! What is counted of each key across requests and across reloads: its log of admissions, and who runs now. Reads the clock for both.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::{body::Body, response::Response};
use http::{HeaderMap, HeaderName, HeaderValue};
use jiff::{RoundMode, SignedDuration, Timestamp, TimestampRound, Unit};
use serde::Serialize;

use crate::{
    config::{Config, Digest, Quota, Token},
    error::{Dialect, Error},
    gate::{
        concurrency::{Full, Limiter, Permit},
        open_requests::OpenRequests,
        quota::{Limit, Log, Standing, written},
    },
    retain::Retain,
};

/// Everything that is counted.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    logs: Mutex<HashMap<Digest, Log>>,
    limiter: Arc<Limiter>,
    pub(crate) open: Arc<OpenRequests>,
}

/// Where a key stands.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct KeyStanding {
    pub(crate) name: String,
    /// Requests that began in the current window, and those that wait.
    pub(crate) used: usize,
    /// Requests in a window. None: without limit.
    pub(crate) limit: Option<usize>,
    pub(crate) left: Option<usize>,
    /// How long until all are left again.
    pub(crate) reset_ms: u64,
    /// Requests at the same time. None: without limit.
    pub(crate) max_concurrent: Option<usize>,
}

/// What the settings say of counting.
#[derive(Debug)]
pub(crate) struct Counting {
    quota: Quota,
    counts: Arc<Counts>,
}

/// A request that has what is its caller's own, and does not run yet: meanwhile its body may be read.
#[derive(Debug)]
pub(crate) struct Admission<'a> {
    counting: &'a Counting,
    caller: Option<&'a Token>,
    reserved: Option<Reserved>,
    own: Option<Permit>,
    /// How long it has waited for a slot.
    waited: Duration,
}

/// What a request holds while it runs: its caller's own permit, and one of all.
pub(crate) type Permits = (Option<Permit>, Option<Permit>);

impl Admission<'_> {
    /// Waits until the request may run. From then on it counts. Where a route `runs_nothing`, it needs no slot of those that are shared.
    ///
    /// # Errors
    /// No slot was free in time, or too many wait already. Then nothing is counted.
    pub(crate) async fn run(mut self, runs_nothing: bool) -> Result<Option<Permits>, Error> {
        let mut shared = None;
        if self.counting.shares() && !runs_nothing {
            let entering = self.counting.counts.limiter.enter(self.caller.map(|caller| caller.digest));
            shared = Some(self.wait(entering).await?);
        }
        if let Some(reserved) = self.reserved {
            reserved.begin();
        }
        Ok((self.own.is_some() || shared.is_some()).then_some((self.own, shared)))
    }

    /// Waits for a permit, `quota.wait` at most in all.
    async fn wait(&mut self, entering: impl Future<Output = Result<Permit, Full>>) -> Result<Permit, Error> {
        let Quota { wait, queue, .. } = self.counting.quota;
        let begun = Instant::now();
        let entered = if wait.is_zero() {
            entering.await
        } else {
            tokio::time::timeout(wait.saturating_sub(self.waited), entering).await.map_err(|_| {
                let waited = humantime::format_duration(wait);
                busy(&format!("no free slot within {waited}. Please try again later."))
            })?
        };
        self.waited += begun.elapsed();
        entered.map_err(|Full| busy(&format!("the queue is full ({queue} waiting). Please try again in a moment.")))
    }
}

fn busy(why: &str) -> Error {
    Error::Quota { message: format!("Too many requests at the same time: {why}"), retry_after: 1 }
}

/// A place in the window that is taken back unless the request gets to run.
#[derive(Debug)]
pub(crate) struct Reserved {
    counts: Arc<Counts>,
    digest: Digest,
    runs: bool,
}

impl Reserved {
    /// From here on it counts, even if the client leaves before its answer.
    pub(crate) fn begin(mut self) {
        self.runs = true;
        // The clock is read under the lock, so that instants stand in order.
        self.counts.with(self.digest, |log| log.begin(Instant::now()));
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if !self.runs {
            self.counts.with(self.digest, Log::take_back);
        }
    }
}

impl Counts {
    /// Where every key of `config` stands.
    pub(crate) fn standings(&self, config: &Config) -> Vec<KeyStanding> {
        let standing = |token: &Token| {
            let limit = token.limit_per_minute.map(|requests| Limit { requests, window: config.quota.window });
            let standing = limit.map(|limit| self.with(token.digest, |log| log.look(Instant::now(), limit)));
            let left = standing.map(|standing| standing.remaining);
            KeyStanding {
                name: token.name.clone(),
                used: token.limit_per_minute.zip(left).map_or(0, |(limit, left)| limit - left),
                limit: token.limit_per_minute,
                left,
                reset_ms: standing.map_or(0, |standing| u64::try_from(standing.reset.as_millis()).unwrap_or(u64::MAX)),
                max_concurrent: token.max_concurrent,
            }
        };
        config.auth.tokens.iter().filter(|_| config.auth.enabled).map(standing).collect()
    }

    fn with<T>(&self, digest: Digest, act: impl FnOnce(&mut Log) -> T) -> T {
        let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        act(logs.entry(digest).or_default())
    }
}

impl Counting {
    pub(crate) fn new(quota: &Quota, counts: Arc<Counts>) -> Self {
        let limit = (quota.max_concurrent > 0).then_some(quota.max_concurrent);
        counts.limiter.set(limit, quota.queue);
        Self { quota: quota.clone(), counts }
    }

    /// Reserves what is the caller's own: a place in its window, unless it was `counted` there, and a slot within its `max_concurrent`, which it
    /// waits for.
    ///
    /// # Errors
    /// There were too many in this window, or too many wait already. Then nothing is counted.
    pub(crate) async fn admit<'a>(&'a self, caller: Option<&'a Token>, counted: bool) -> Result<Admission<'a>, Error> {
        let reserved = match caller.filter(|_| !counted).and_then(|caller| Some((caller, self.limit(caller)?))) {
            Some((caller, limit)) => Some(self.reserve(caller, limit)?),
            None => None,
        };
        let mut admission = Admission { counting: self, caller, reserved, own: None, waited: Duration::ZERO };
        if let Some((caller, limit)) = caller.and_then(|caller| Some((caller, caller.max_concurrent?))) {
            let entering = self.counts.limiter.enter_own(Some(caller.digest), limit);
            admission.own = Some(admission.wait(entering).await?);
        }
        Ok(admission)
    }

    /// Whether all callers together share a number of slots.
    pub(crate) fn shares(&self) -> bool {
        self.quota.max_concurrent > 0
    }

    fn reserve(&self, caller: &Token, limit: Limit) -> Result<Reserved, Error> {
        let standing = self.counts.with(caller.digest, |log| log.ask(Instant::now(), limit));
        if standing.admitted {
            return Ok(Reserved { counts: self.counts.clone(), digest: caller.digest, runs: false });
        }
        let window = match limit.window.as_secs() {
            60 => "minute".to_owned(),
            _ => humantime::format_duration(limit.window).to_string(),
        };
        Err(Error::Quota {
            message: format!(
                "Rate limit reached for {} on requests per {window}: Limit {}, Used {}, Requested 1. Please try again in {}.",
                caller.name,
                limit.requests,
                limit.requests,
                written(standing.next)
            ),
            retry_after: standing.retry_after(),
        })
    }

    fn limit(&self, caller: &Token) -> Option<Limit> {
        Some(Limit { requests: caller.limit_per_minute?, window: self.quota.window })
    }

    /// Adds the headers that say where a limited caller stands: Anthropic's in its dialect, else OpenAI's.
    pub(crate) fn add_headers(&self, caller: Option<&Token>, dialect: Dialect, headers: &mut HeaderMap) {
        let Some((caller, limit)) = caller.and_then(|caller| Some((caller, self.limit(caller)?))) else { return };
        let Standing { remaining, reset, .. } = self.counts.with(caller.digest, |log| log.look(Instant::now(), limit));
        let name = HeaderName::from_static;
        if dialect == Dialect::Anthropic {
            headers.insert(name("anthropic-ratelimit-requests-limit"), HeaderValue::from(limit.requests));
            headers.insert(name("anthropic-ratelimit-requests-remaining"), HeaderValue::from(remaining));
            let at = SignedDuration::try_from(reset).ok().and_then(|reset| Timestamp::now().checked_add(reset).ok());
            // RFC 3339, in whole seconds: never before the reset.
            let at =
                at.and_then(|at| at.round(TimestampRound::new().smallest(Unit::Second).mode(RoundMode::Ceil)).ok());
            headers.extend(
                at.and_then(|at| HeaderValue::try_from(at.to_string()).ok())
                    .map(|at| (name("anthropic-ratelimit-requests-reset"), at)),
            );
            return;
        }
        headers.insert(name("x-ratelimit-limit-requests"), HeaderValue::from(limit.requests));
        headers.insert(name("x-ratelimit-remaining-requests"), HeaderValue::from(remaining));
        if let Ok(reset) = HeaderValue::try_from(written(reset)) {
            headers.insert(name("x-ratelimit-reset-requests"), reset);
        }
    }
}

/// Holds `place` until the body of `response` ends or is dropped.
pub(crate) fn hold<T: Send + Unpin + 'static>(place: Option<T>, response: Response) -> Response {
    match place {
        None => response,
        Some(place) => response.map(|body| Body::new(Retain::new(body, place))),
    }
}
