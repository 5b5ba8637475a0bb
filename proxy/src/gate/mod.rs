//! Who may pass, in one place and one order: origin → key → access → quota → body → slot. Handlers know none of it.

mod access;
mod concurrency;
mod counts;
pub(crate) mod held_body;
mod inner;
mod keys;
pub(crate) mod model_names;
mod models;
mod open_requests;
pub(crate) mod origin;
mod owner;
pub(crate) mod paths;
pub(crate) mod pattern;
mod quota;
mod tokens;

use std::sync::Arc;

use axum::{
    extract::Request,
    response::{IntoResponse, Response},
};
use counts::{Admission, Asked, Counting, Estimate};
pub(crate) use counts::{Counts, KeyStanding, Spend};
use http::{HeaderName, StatusCode};
use http_body::Body as _;
pub(crate) use inner::Inner;
use keys::{Caller, Keys};
use models::{AliasSettings, Aliases};
pub(crate) use models::{Models, allows};
use open_requests::{OpenRequest, OpenRequests};
use origin::{Rules, Verdict};
pub(crate) use owner::Owner;

use crate::{
    buffered::{Budget, Share},
    config::{Config, Token},
    error::Error,
    observe::Recorder,
    routes::{Names, Route},
    store::redis::Redis,
    upstream::passthrough,
};

/// What the rest of the proxy needs to know of an admitted request's caller.
#[derive(Clone, Debug, Default)]
pub(crate) struct Admitted {
    pub(crate) owner: Owner,
    /// The models that the caller may use. None: all.
    pub(crate) models: Option<Models>,
    pub(crate) buffered: Share,
}

/// What stands before both lanes.
#[derive(Debug)]
pub(crate) struct Gate {
    origins: Rules,
    /// None if no key is required: then this costs nothing.
    keys: Option<Keys>,
    /// None where nothing is limited.
    counting: Option<Counting>,
    open: Arc<OpenRequests>,
    /// Maximum number of requests of one key in flight. 0: without limit.
    open_per_key: usize,
    buffered: Arc<Budget>,
    /// The names that stand for other models.
    aliases: Arc<AliasSettings>,
    /// Maximum size of a body on a translated route.
    body: usize,
    /// Maximum size of a body on a native route; 0: unlimited.
    native_body: usize,
}

impl Gate {
    /// `counts` are those of the settings before these, or new ones.
    pub(crate) fn new(
        config: &Config,
        origins: Rules,
        counts: Arc<Counts>,
        buffered: Arc<Budget>,
        store: Option<Arc<Redis>>,
    ) -> Self {
        let keys = Keys::new(&config.auth);
        let tokens = || keys.iter().flat_map(Keys::tokens);
        let limited =
            |token: &Token| token.limit_per_minute.is_some() || token.max_concurrent.is_some() || token.limits_tokens();
        let open = counts.open.clone();
        let counting = (config.quota.max_concurrent > 0 || tokens().any(limited))
            .then(|| Counting::new(&config.quota, counts, store));
        Self {
            origins,
            keys,
            counting,
            open,
            open_per_key: config.limits.connections_per_key,
            buffered,
            aliases: Arc::new(AliasSettings { models: config.models.clone(), anthropic: config.anthropic.clone() }),
            body: config.limits.body,
            native_body: config.limits.native_body,
        }
    }

    /// Passes `request` on to `next`, with what it needs to know of the caller, or refuses it. Allowed pages may read
    /// the response, refusals too; preflights are answered here.
    pub(crate) async fn pass<F: Future<Output = Response>>(
        &self,
        request: Box<Request>,
        route: &Route,
        recorder: &Recorder,
        next: impl FnOnce(Box<Request>, Admitted) -> F,
    ) -> Response {
        if Inner::of(&request).is_some() {
            return self.judge(request, route, recorder, next).await;
        }
        match self.origins.judge(request.method(), request.headers()) {
            Ok(Verdict::Pass) => self.judge(request, route, recorder, next).await,
            Ok(Verdict::Allow(allowed)) => {
                let mut response = self.judge(request, route, recorder, next).await;
                origin::allow(response.headers_mut(), allowed);
                response
            }
            Ok(Verdict::Preflight(allowed)) => {
                let mut response = StatusCode::NO_CONTENT.into_response();
                origin::preflight(response.headers_mut(), allowed, request.headers());
                response
            }
            Err(error) => error.into_response(),
        }
    }

    async fn judge<F: Future<Output = Response>>(
        &self,
        mut request: Box<Request>,
        route: &Route,
        recorder: &Recorder,
        next: impl FnOnce(Box<Request>, Admitted) -> F,
    ) -> Response {
        let (mut caller, inner) = (None, Inner::of(&request));
        if let Some(keys) = &self.keys {
            let found = match inner {
                Some(inner) => keys.known(inner.digest),
                None => keys.caller(&request, route),
            };
            caller = match found {
                Ok(caller) => caller,
                Err(error) => return error.into_response(),
            };
            for name in key_headers(keys.header()) {
                request.headers_mut().remove(name);
            }
        }
        if let Some(caller) = caller {
            recorder.caller(&caller.token.name);
        }
        let token = caller.map(|caller| &caller.token);
        let open = match self.open(token) {
            Ok(open) => open,
            Err(error) => return error.into_response(),
        };
        // What opens a WebSocket runs nothing; each of its turns is a request of its own.
        let counting = self.counting.as_ref().filter(|_| !route.opens_socket());
        if counting.is_some() {
            recorder.waits_for("a free slot");
        }
        let estimate = token.filter(|token| token.limits_tokens() && route.runs_model()).map(|_| {
            let length = request.headers().get(http::header::CONTENT_LENGTH);
            Estimate::of(length.and_then(|length| length.to_str().ok()?.parse().ok()))
        });
        let asked = Asked { counted: inner.is_some_and(|inner| inner.counted), estimate };
        let owner = Owner::of(token);
        let buffered = Share::new(self.buffered.clone(), owner);
        let models = caller.and_then(|caller| caller.access.models()).cloned();
        let share = buffered.clone();
        let next = |request| next(request, Admitted { owner, models, buffered });
        let answer = match caller {
            // Boxed, so that all others do not carry the room for it.
            Some(caller) if !caller.access.is_free() => {
                Box::pin(self.restricted((caller, asked), route, &share, recorder, request, next)).await
            }
            // Who cleans it and who does not would take it for two different paths.
            _ if self.keys.is_some() && !route.plain => Err(unclear_path()),
            _ => match counting {
                None => match self.check_head(route, &request) {
                    Ok(()) => Ok(next(request).await),
                    Err(error) => Err(error),
                },
                Some(counting) => {
                    Box::pin(async {
                        let admission = counting.admit(token, asked).await?;
                        self.run(admission, route, &share, recorder, request, next).await
                    })
                    .await
                }
            },
        };
        let mut response = counts::hold(open, answer.into_response());
        if let Some(counting) = counting {
            counting.add_headers(token, route.dialect, response.headers_mut());
        }
        response
    }

    /// Counts a request of `token` as in flight.
    fn open(&self, token: Option<&Token>) -> Result<Option<OpenRequest>, Error> {
        let most = self.open_per_key;
        let Some(token) = token.filter(|_| most > 0) else { return Ok(None) };
        let open = self.open.enter(token.digest, most).ok_or_else(|| Error::Busy {
            message: format!(
                "this key has {most} requests in flight already; wait for one to end, or raise limits.connections_per_key"
            ),
        })?;
        Ok(Some(open))
    }

    /// The maximum size of a body.
    fn limit(&self, route: &Route) -> usize {
        match (route.translated(), self.native_body) {
            (true, _) => self.body,
            (false, 0) => usize::MAX,
            (false, limit) => limit,
        }
    }

    /// Refuses what the head alone forbids, so that a client that expects `100 Continue` is not asked for its body.
    ///
    /// # Errors
    /// Fails on a method that farllama does not answer, and on a body that is announced as too large.
    fn check_head(&self, route: &Route, request: &Request) -> Result<(), Error> {
        route.check_method(request.method())?;
        let limit = self.limit(route);
        if request.body().size_hint().lower() > limit as u64 {
            return Err(Error::TooLarge { limit });
        }
        Ok(())
    }

    async fn restricted<F: Future<Output = Response>>(
        &self,
        (caller, asked): (&Caller, Asked),
        route: &Route,
        share: &Share,
        recorder: &Recorder,
        request: Box<Request>,
        next: impl FnOnce(Box<Request>) -> F,
    ) -> Result<Response, Error> {
        let method = request.method().clone();
        let aliases = Aliases::on(route, &self.aliases);
        caller.access.check(route, route.path(&request), &aliases)?;
        if !route.plain {
            return Err(unclear_path());
        }
        // Its own share is reserved before the body is read, so that a key has no more bodies read than it may have
        // requests.
        if route.opens_socket() {
            return Ok(next(request).await);
        }
        let admission = match &self.counting {
            Some(counting) => Some(counting.admit(Some(&caller.token), asked).await?),
            None => None,
        };
        if let Err(error) = self.check_head(route, &request) {
            // It counts as any other.
            if let Some(admission) = admission {
                admission.run(true).await?;
            }
            return Err(error);
        }
        let (request, shown) = caller.access.check_body(*request, route, &aliases, self.limit(route), share).await?;
        let request = Box::new(request);
        let response = match admission {
            Some(admission) => self.run(admission, route, share, recorder, request, next).await?,
            None => next(request).await,
        };
        match shown {
            None => Ok(response),
            Some(shown) => shown.of(response, &method).await,
        }
    }

    /// Runs an admitted request. Where slots are shared, it gets one when its body is whole: no request waits for a
    /// body that arrives slowly.
    async fn run<F: Future<Output = Response>>(
        &self,
        mut admission: Admission<'_>,
        route: &Route,
        share: &Share,
        recorder: &Recorder,
        request: Box<Request>,
        next: impl FnOnce(Box<Request>) -> F,
    ) -> Result<Response, Error> {
        let refused = self.check_head(route, &request).err();
        // The files of models stream: they have gigabytes, and no model runs for them.
        let runs_nothing = route.row.is_some_and(|row| row.names == Names::Weights);
        let shares = self.counting.as_ref().is_some_and(Counting::shares);
        let request = if refused.is_none() && shares && !runs_nothing && !request.body().is_end_stream() {
            recorder.waits_for("the request body");
            Box::new(held_body::read(*request, route.translated(), self.limit(route), share).await?)
        } else {
            request
        };
        recorder.waits_for("a free slot");
        let spend = admission.take_spend();
        let permits = admission.run(runs_nothing).await?;
        if let Some(spend) = spend {
            recorder.meter(spend);
        }
        match refused {
            Some(error) => Err(error),
            None => Ok(counts::hold(permits, next(request).await)),
        }
    }
}

fn unclear_path() -> Error {
    let message = "the path has `//`, `.` or `..` in it once decoded; where keys are needed, send it without them";
    Error::Invalid { message: message.to_owned(), param: None, code: None }
}

/// Every header that may hold a caller's key, where `configured` is the one that the settings name.
pub(crate) fn key_headers(configured: &HeaderName) -> impl Iterator<Item = &HeaderName> {
    passthrough::KEYS.iter().chain([configured])
}
