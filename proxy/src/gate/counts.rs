//! What is counted of each key across requests and across reloads: its log of admissions, and who runs now. Reads the
//! clock for both.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
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
        Owner,
        concurrency::{Full, Limiter, Permit},
        open_requests::OpenRequests,
        quota::{Limit, Log, Standing, whole_seconds, written},
        tokens::{TokenLimit, TokenLog, TokenStanding},
    },
    retain::Retain,
    store::redis::{self as shared, Decision, Lease, LimitKind, Outcome, Redis, SharedStanding},
};

/// How often a request that waits for a slot asks the shared store again.
const POLL: Duration = Duration::from_millis(50);

/// The window of `tokens_per_day`.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Everything that is counted.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    logs: Mutex<HashMap<Digest, Log>>,
    tokens: Mutex<HashMap<Digest, Tokens>>,
    /// Where keys stood when the shared store last decided.
    shared: Mutex<HashMap<Digest, Seen>>,
    limiter: Arc<Limiter>,
    pub(crate) open: Arc<OpenRequests>,
}

/// The tokens of one key.
#[derive(Debug, Default)]
struct Tokens {
    minute: TokenLog,
    day: TokenLog,
}

/// Where a key stood on the shared store at an instant.
#[derive(Clone, Copy, Debug)]
struct Seen {
    at: Instant,
    requests: Option<SharedStanding>,
    minute: Option<SharedStanding>,
    day: Option<SharedStanding>,
}

impl Seen {
    /// What has passed since is taken off.
    fn now(&self, standing: Option<SharedStanding>) -> Option<SharedStanding> {
        let standing = standing?;
        let reset = standing.reset.saturating_sub(self.at.elapsed());
        Some(SharedStanding { used: if reset.is_zero() { 0 } else { standing.used }, reset })
    }
}

/// How many tokens a request needs, as far as its head shows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Estimate {
    /// Those of its prompt.
    prompt: u64,
    /// Those of its prompt and of a short answer.
    total: u64,
}

impl Estimate {
    /// For a body of `length` bytes. About four bytes are a token; what is longer than any usual prompt is mostly
    /// images.
    pub(crate) fn of(length: Option<u64>) -> Self {
        let (answer, unknown, most) = (256, 1024, 8192);
        let prompt = length.map_or(unknown, |length| (length / 4).clamp(1, most));
        Self { prompt, total: prompt + answer }
    }
}

/// What a request asks of its caller's limits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    /// Whether it is in the caller's window already.
    pub(crate) counted: bool,
    /// The tokens that it needs, where a model is to run and its caller's are limited.
    pub(crate) estimate: Option<Estimate>,
}

/// The tokens that a request has reserved until it is known what it used. Dropped, it has used none.
#[derive(Debug)]
pub(crate) struct Spend {
    estimate: Estimate,
    reserved: ReservedTokens,
}

/// Where tokens are reserved.
#[derive(Debug)]
enum ReservedTokens {
    Here { counts: Arc<Counts>, digest: Digest, window: Duration, settled: bool },
    Shared(Arc<Lease>),
}

impl Spend {
    /// The estimate for the prompt alone.
    pub(crate) fn prompt(&self) -> u64 {
        self.estimate.prompt
    }

    /// Counts what the request used, in the place of its estimate.
    pub(crate) fn settle(mut self, tokens: u64) {
        self.end(tokens);
    }

    fn end(&mut self, tokens: u64) {
        match &mut self.reserved {
            ReservedTokens::Here { settled: true, .. } => {}
            ReservedTokens::Here { counts, digest, window, settled } => {
                *settled = true;
                counts.with_tokens(*digest, |log| {
                    for (log, window) in [(&mut log.minute, *window), (&mut log.day, DAY)] {
                        log.release(self.estimate.total);
                        // The clock is read under the lock, so that instants stand in order.
                        log.charge(Instant::now(), window, tokens);
                    }
                });
            }
            // Without a count, none is used.
            ReservedTokens::Shared(lease) if tokens > 0 => lease.settle(tokens),
            ReservedTokens::Shared(_) => {}
        }
    }
}

impl Drop for Spend {
    fn drop(&mut self) {
        self.end(0);
    }
}

/// Where a key stands with its tokens in one window.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct TokensLeft {
    /// Tokens in the window, those that running requests have reserved included.
    used: u64,
    limit: u64,
    left: u64,
    /// How long until all are left again.
    reset_ms: u64,
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
    /// None: without limit.
    pub(crate) tokens_per_minute: Option<TokensLeft>,
    /// None: without limit.
    pub(crate) tokens_per_day: Option<TokensLeft>,
}

/// What the settings say of counting.
#[derive(Debug)]
pub(crate) struct Counting {
    quota: Quota,
    counts: Arc<Counts>,
    /// Where limits are shared with other processes.
    store: Option<Arc<Redis>>,
}

/// A request that has what is its caller's own, and does not run yet: meanwhile its body may be read.
#[derive(Debug)]
pub(crate) struct Admission<'a> {
    counting: &'a Counting,
    caller: Option<&'a Token>,
    reserved: Option<Reserved>,
    spend: Option<Spend>,
    /// What the shared store holds for it.
    lease: Option<Arc<Lease>>,
    own: Option<Permit>,
    /// How long it has waited for a slot.
    waited: Duration,
}

/// What a request holds while it runs: its caller's own permit, and one of all.
#[derive(Debug)]
pub(crate) struct Permits {
    _own: Option<Permit>,
    _all: Option<Permit>,
    _leases: [Option<Arc<Lease>>; 2],
}

impl Admission<'_> {
    /// The tokens that it has reserved, which are settled once the real count is known.
    pub(crate) fn take_spend(&mut self) -> Option<Spend> {
        self.spend.take()
    }

    /// Waits until the request may run. From then on it counts. Where a route `runs_nothing`, it needs no slot of those
    /// that are shared.
    ///
    /// # Errors
    /// No slot was free in time, or too many wait already. Then nothing is counted.
    pub(crate) async fn run(mut self, runs_nothing: bool) -> Result<Option<Permits>, Error> {
        let mut shared = None;
        if self.counting.shares() && !runs_nothing {
            let entering = self.counting.counts.limiter.enter(self.caller.map(|caller| caller.digest));
            shared = Some(self.wait(entering).await?);
        }
        let mut lease_of_all = None;
        if let Some(store) = self.counting.store.as_ref().filter(|_| shared.is_some()) {
            lease_of_all = Box::pin(self.enter_shared(store)).await?;
        }
        if let Some(reserved) = self.reserved {
            reserved.begin();
        }
        if let Some(lease) = &self.lease {
            lease.begin();
        }
        let holds = self.own.is_some() || shared.is_some() || self.lease.is_some();
        Ok(holds.then_some(Permits { _own: self.own, _all: shared, _leases: [self.lease, lease_of_all] }))
    }

    /// Waits until fewer requests than `quota.max_concurrent` run on all processes together.
    async fn enter_shared(&mut self, store: &Arc<Redis>) -> Result<Option<Arc<Lease>>, Error> {
        let most = u64::try_from(self.counting.quota.max_concurrent).unwrap_or(u64::MAX);
        let limit = shared::Limit {
            key: store.key("running"),
            kind: LimitKind::Running,
            most,
            window: Duration::ZERO,
            amount: 1,
        };
        loop {
            match store.admit(vec![limit.clone()]).await {
                Ok(Decision { outcome: Outcome::Admitted(lease), .. }) => return Ok(Some(lease)),
                Ok(Decision { outcome: Outcome::Refused(..), .. }) => self.pause().await?,
                Err(_) if store.fails_open() => return Ok(None),
                Err(unreachable) => return Err(unreachable.into()),
            }
        }
    }

    /// Waits a moment, if there is any time left to wait.
    async fn pause(&mut self) -> Result<(), Error> {
        let wait = self.counting.quota.wait;
        if !wait.is_zero() && self.waited + POLL > wait {
            let waited = humantime::format_duration(wait);
            return Err(busy(&format!("no free slot within {waited}. Please try again later.")));
        }
        tokio::time::sleep(POLL).await;
        self.waited += POLL;
        Ok(())
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
            let tokens = |limit: Option<u64>, window, log: fn(&mut Tokens) -> &mut TokenLog| {
                let limit = TokenLimit { tokens: limit?, window };
                let standing = self.with_tokens(token.digest, |tokens| log(tokens).look(Instant::now(), limit, 0));
                Some(TokensLeft {
                    used: standing.used,
                    limit: limit.tokens,
                    left: standing.remaining,
                    reset_ms: u64::try_from(standing.reset.as_millis()).unwrap_or(u64::MAX),
                })
            };
            KeyStanding {
                tokens_per_minute: tokens(token.tokens_per_minute, config.quota.window, |tokens| &mut tokens.minute),
                tokens_per_day: tokens(token.tokens_per_day, DAY, |tokens| &mut tokens.day),
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

    fn with_tokens<T>(&self, digest: Digest, act: impl FnOnce(&mut Tokens) -> T) -> T {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        act(tokens.entry(digest).or_default())
    }

    fn with<T>(&self, digest: Digest, act: impl FnOnce(&mut Log) -> T) -> T {
        let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        act(logs.entry(digest).or_default())
    }
}

impl Counting {
    pub(crate) fn new(quota: &Quota, counts: Arc<Counts>, store: Option<Arc<Redis>>) -> Self {
        let limit = (quota.max_concurrent > 0).then_some(quota.max_concurrent);
        counts.limiter.set(limit, quota.queue);
        Self { quota: quota.clone(), counts, store }
    }

    /// Reserves what is the caller's own: a place in its window, the tokens of its estimate, and a slot within its
    /// `max_concurrent`, which it waits for.
    ///
    /// # Errors
    /// There were too many in this window, or too many wait already. Then nothing is counted.
    pub(crate) async fn admit<'a>(&'a self, caller: Option<&'a Token>, asked: Asked) -> Result<Admission<'a>, Error> {
        if let (Some(store), Some(caller)) = (&self.store, caller) {
            return Box::pin(self.admit_shared(store, caller, asked)).await;
        }
        let Asked { counted, estimate } = asked;
        let reserved = match caller.filter(|_| !counted).and_then(|caller| Some((caller, self.limit(caller)?))) {
            Some((caller, limit)) => Some(self.reserve(caller, limit)?),
            None => None,
        };
        let spend = match caller.filter(|caller| caller.limits_tokens()).zip(estimate) {
            Some((caller, estimate)) => Some(self.reserve_tokens(caller, estimate)?),
            None => None,
        };
        let mut admission =
            Admission { counting: self, caller, reserved, spend, lease: None, own: None, waited: Duration::ZERO };
        if let Some((caller, limit)) = caller.and_then(|caller| Some((caller, caller.max_concurrent?))) {
            let entering = self.counts.limiter.enter_own(Some(caller.digest), limit);
            admission.own = Some(admission.wait(entering).await?);
        }
        Ok(admission)
    }

    /// As [`Self::admit`], where the shared store decides; first come those of this process, so that its queue is fair.
    async fn admit_shared<'a>(
        &'a self,
        store: &Arc<Redis>,
        caller: &'a Token,
        asked: Asked,
    ) -> Result<Admission<'a>, Error> {
        let mut admission = Admission {
            counting: self,
            caller: Some(caller),
            reserved: None,
            spend: None,
            lease: None,
            own: None,
            waited: Duration::ZERO,
        };
        if let Some(limit) = caller.max_concurrent {
            let entering = self.counts.limiter.enter_own(Some(caller.digest), limit);
            admission.own = Some(admission.wait(entering).await?);
        }
        let Asked { counted, estimate } = asked;
        let estimate = estimate.filter(|_| caller.limits_tokens());
        let limits = self.limits(store, caller, Asked { counted, estimate });
        if limits.is_empty() {
            return Ok(admission);
        }
        loop {
            let Decision { outcome, standings } = match store.admit(limits.clone()).await {
                Ok(decision) => decision,
                Err(_) if store.fails_open() => {
                    // This process counts alone.
                    lock(&self.counts.shared).remove(&caller.digest);
                    let limit = self.limit(caller).filter(|_| !counted);
                    admission.reserved = limit.map(|limit| self.reserve(caller, limit)).transpose()?;
                    admission.spend = estimate.map(|estimate| self.reserve_tokens(caller, estimate)).transpose()?;
                    return Ok(admission);
                }
                Err(unreachable) => return Err(unreachable.into()),
            };
            self.see(store, caller, &limits, &standings);
            match outcome {
                Outcome::Admitted(lease) => {
                    let reserved = || ReservedTokens::Shared(lease.clone());
                    admission.spend = estimate.map(|estimate| Spend { estimate, reserved: reserved() });
                    admission.lease = Some(lease);
                    return Ok(admission);
                }
                Outcome::Refused(nth, wait) => {
                    let (limit, standing) = (&limits[nth], &standings[nth]);
                    match limit.kind {
                        LimitKind::Running => admission.pause().await?,
                        LimitKind::Requests => return Err(too_many(caller, limit.most, limit.window, wait)),
                        LimitKind::Tokens => {
                            return Err(too_many_tokens(
                                caller,
                                limit.most,
                                limit.window,
                                standing.used,
                                limit.amount,
                                wait,
                            ));
                        }
                    }
                }
            }
        }
    }

    /// The limits that the shared store is asked about.
    fn limits(&self, store: &Redis, caller: &Token, asked: Asked) -> Vec<shared::Limit> {
        let Asked { counted, estimate } = asked;
        let owner = Owner::of(Some(caller));
        let number = |limit: Option<usize>| limit.map(|limit| u64::try_from(limit).unwrap_or(u64::MAX));
        let tokens = |limit: Option<u64>| limit.zip(estimate).map(|(limit, _)| limit);
        let total = estimate.map_or(0, |estimate| estimate.total);
        let all = [
            (
                "requests",
                LimitKind::Requests,
                number(caller.limit_per_minute.filter(|_| !counted)),
                self.quota.window,
                1,
            ),
            ("minute", LimitKind::Tokens, tokens(caller.tokens_per_minute), self.quota.window, total),
            ("day", LimitKind::Tokens, tokens(caller.tokens_per_day), DAY, total),
            ("running", LimitKind::Running, number(caller.max_concurrent), Duration::ZERO, 1),
        ];
        let limit = |(name, kind, most, window, amount): (&str, _, Option<u64>, _, _)| {
            Some(shared::Limit { key: store.key(format_args!("{name}:{owner}")), kind, most: most?, window, amount })
        };
        all.into_iter().filter_map(limit).collect()
    }

    /// Keeps where a key stands, for headers and the admin API.
    fn see(&self, store: &Redis, caller: &Token, limits: &[shared::Limit], standings: &[SharedStanding]) {
        let owner = Owner::of(Some(caller));
        let find = |name: &str| {
            let key = store.key(format_args!("{name}:{owner}"));
            limits.iter().zip(standings).find(|(limit, _)| limit.key == key).map(|(_, standing)| *standing)
        };
        let mut seen = lock(&self.counts.shared);
        let before = seen.get(&caller.digest).copied();
        // A request that runs no model asks for no tokens.
        let tokens = |name, old: fn(&Seen) -> Option<SharedStanding>| {
            find(name).or_else(|| before.and_then(|before| before.now(old(&before))))
        };
        let (minute, day) = (tokens("minute", |seen| seen.minute), tokens("day", |seen| seen.day));
        seen.insert(caller.digest, Seen { at: Instant::now(), requests: find("requests"), minute, day });
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
        let most = u64::try_from(limit.requests).unwrap_or(u64::MAX);
        Err(too_many(caller, most, limit.window, standing.next))
    }

    /// Reserves tokens in both windows, or in neither.
    fn reserve_tokens(&self, caller: &Token, estimate: Estimate) -> Result<Spend, Error> {
        let window = self.quota.window;
        let refusal = self.counts.with_tokens(caller.digest, |tokens| {
            let now = Instant::now();
            for (limit, window, log) in
                [(caller.tokens_per_minute, window, &mut tokens.minute), (caller.tokens_per_day, DAY, &mut tokens.day)]
            {
                let Some(limit) = limit.map(|tokens| TokenLimit { tokens, window }) else { continue };
                let standing = log.look(now, limit, estimate.total);
                if !standing.admitted {
                    return Some((limit, standing));
                }
            }
            tokens.minute.reserve(estimate.total);
            tokens.day.reserve(estimate.total);
            None
        });
        let Some((limit, standing)) = refusal else {
            let (counts, digest) = (self.counts.clone(), caller.digest);
            return Ok(Spend { estimate, reserved: ReservedTokens::Here { counts, digest, window, settled: false } });
        };
        let TokenStanding { used, next, .. } = standing;
        Err(too_many_tokens(caller, limit.tokens, limit.window, used, estimate.total, next))
    }

    fn limit(&self, caller: &Token) -> Option<Limit> {
        Some(Limit { requests: caller.limit_per_minute?, window: self.quota.window })
    }

    /// Adds the headers that say where a limited caller stands: Anthropic's in its dialect, else OpenAI's.
    pub(crate) fn add_headers(&self, caller: Option<&Token>, dialect: Dialect, headers: &mut HeaderMap) {
        let Some(caller) = caller else { return };
        let seen = self.store.as_ref().and_then(|_| lock(&self.counts.shared).get(&caller.digest).copied());
        if let Some(seen) = seen {
            self.add_shared_headers(caller, seen, dialect, headers);
            return;
        }
        if let Some(limit) = self.limit(caller) {
            let Standing { remaining, reset, .. } =
                self.counts.with(caller.digest, |log| log.look(Instant::now(), limit));
            add_standing(dialect, &REQUESTS, limit.requests.into(), remaining.into(), reset, headers);
        }
        // The shorter window, as OpenAI's headers are about it.
        let minute = caller.tokens_per_minute.map(|tokens| (tokens, self.quota.window));
        if let Some((tokens, window)) = minute.or(caller.tokens_per_day.map(|tokens| (tokens, DAY))) {
            let TokenStanding { remaining, reset, .. } = self.counts.with_tokens(caller.digest, |tokens_of| {
                let log = if minute.is_some() { &mut tokens_of.minute } else { &mut tokens_of.day };
                log.look(Instant::now(), TokenLimit { tokens, window }, 0)
            });
            add_standing(dialect, &TOKENS, tokens.into(), remaining.into(), reset, headers);
        }
    }
}

impl Counting {
    /// As [`Self::add_headers`], by the shared store's last decision.
    fn add_shared_headers(&self, caller: &Token, seen: Seen, dialect: Dialect, headers: &mut HeaderMap) {
        let mut add = |names: &Names, limit: u64, standing: Option<SharedStanding>| {
            let SharedStanding { used, reset } =
                seen.now(standing).unwrap_or(SharedStanding { used: 0, reset: Duration::ZERO });
            add_standing(dialect, names, limit.into(), limit.saturating_sub(used).into(), reset, headers);
        };
        if let Some(limit) = caller.limit_per_minute {
            add(&REQUESTS, u64::try_from(limit).unwrap_or(u64::MAX), seen.requests);
        }
        match (caller.tokens_per_minute, caller.tokens_per_day) {
            (Some(limit), _) => add(&TOKENS, limit, seen.minute),
            (None, Some(limit)) => add(&TOKENS, limit, seen.day),
            (None, None) => {}
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Counts stay true whatever panicked elsewhere.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn too_many(caller: &Token, most: u64, window: Duration, next: Duration) -> Error {
    Error::Quota {
        message: format!(
            "Rate limit reached for {} on requests per {}: Limit {most}, Used {most}, Requested 1. Please try again in {}.",
            caller.name,
            named(window),
            written(next)
        ),
        retry_after: whole_seconds(next),
    }
}

fn too_many_tokens(caller: &Token, most: u64, window: Duration, used: u64, needed: u64, next: Duration) -> Error {
    Error::Tokens {
        message: format!(
            "Rate limit reached for {} on tokens per {}: Limit {most}, Used {used}, Requested about {needed}. Please try again in {}.",
            caller.name,
            named(window),
            written(next)
        ),
        retry_after: whole_seconds(next),
    }
}

/// A window as messages name it.
fn named(window: Duration) -> String {
    match window {
        DAY => "day".to_owned(),
        window if window.as_secs() == 60 => "minute".to_owned(),
        window => humantime::format_duration(window).to_string(),
    }
}

/// The names of headers that say where a caller stands: its limit, what remains, and when all is left again.
struct Names {
    openai: [&'static str; 3],
    anthropic: [&'static str; 3],
}

const REQUESTS: Names = Names {
    openai: ["x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"],
    anthropic: [
        "anthropic-ratelimit-requests-limit",
        "anthropic-ratelimit-requests-remaining",
        "anthropic-ratelimit-requests-reset",
    ],
};

const TOKENS: Names = Names {
    openai: ["x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"],
    anthropic: [
        "anthropic-ratelimit-tokens-limit",
        "anthropic-ratelimit-tokens-remaining",
        "anthropic-ratelimit-tokens-reset",
    ],
};

fn add_standing(
    dialect: Dialect,
    names: &Names,
    limit: HeaderValue,
    remaining: HeaderValue,
    reset: Duration,
    headers: &mut HeaderMap,
) {
    let names = if dialect == Dialect::Anthropic { &names.anthropic } else { &names.openai };
    let [limit_name, remaining_name, reset_name] = names.map(HeaderName::from_static);
    headers.insert(limit_name, limit);
    headers.insert(remaining_name, remaining);
    let reset = match dialect {
        Dialect::Anthropic => {
            let at = SignedDuration::try_from(reset).ok().and_then(|reset| Timestamp::now().checked_add(reset).ok());
            // RFC 3339, in whole seconds: never before the reset.
            at.and_then(|at| at.round(TimestampRound::new().smallest(Unit::Second).mode(RoundMode::Ceil)).ok())
                .map(|at| at.to_string())
        }
        _ => Some(written(reset)),
    };
    headers.extend(reset.and_then(|reset| HeaderValue::try_from(reset).ok()).map(|reset| (reset_name, reset)));
}

/// Holds `place` until the body of `response` ends or is dropped.
pub(crate) fn hold<T: Send + Unpin + 'static>(place: Option<T>, response: Response) -> Response {
    match place {
        None => response,
        Some(place) => response.map(|body| Body::new(Retain::new(body, place))),
    }
}
