//! Who may pass, in one place and one order: origin → key → access → quota. Handlers know none of it.

mod access;
mod concurrency;
mod counts;
mod keys;
mod model_names;
mod models;
mod open_requests;
pub(crate) mod origin;
mod owner;
mod paths;
mod quota;

use std::sync::Arc;

use axum::{
    extract::Request,
    response::{IntoResponse, Response},
};
use counts::Counting;
pub(crate) use counts::Counts;
use http::{HeaderName, StatusCode};
use keys::{Caller, Keys};
pub(crate) use models::allows;
use open_requests::{OpenRequest, OpenRequests};
use origin::{Rules, Verdict};
pub(crate) use owner::Owner;

use crate::{
    config::{Config, Token},
    error::Error,
    observe::Recorder,
    upstream::passthrough,
};

/// What stands before both lanes.
#[derive(Debug)]
pub(crate) struct Gate {
    origins: Rules,
    /// None where nobody is asked for a key: then nothing here costs anything.
    keys: Option<Keys>,
    /// None where nothing is limited.
    counting: Option<Counting>,
    open: Arc<OpenRequests>,
    /// Maximum number of requests of one key in flight. 0: without limit.
    open_per_key: usize,
    /// Where OpenAI's routes stand.
    base: String,
    /// Most bytes of a body that is read for its names.
    body: usize,
}

impl Gate {
    /// `counts` are those of the settings before these, or new ones.
    pub(crate) fn new(config: &Config, origins: Rules, counts: Arc<Counts>) -> Self {
        let keys = Keys::new(&config.auth);
        let tokens = || keys.iter().flat_map(Keys::tokens);
        let limited = |token: &Token| token.limit_per_minute.is_some() || token.max_concurrent.is_some();
        let open = counts.open.clone();
        let counting = (config.quota.max_concurrent > 0 || tokens().any(limited))
            .then(|| Counting::new(&config.quota, tokens(), counts));
        Self {
            origins,
            keys,
            counting,
            open,
            open_per_key: config.limits.connections_per_key,
            base: config.openai.base_path.clone(),
            body: config.limits.body,
        }
    }

    /// Passes `request` and its owner on to `next`, or refuses it. Allowed pages may read the response, refusals too; preflights are answered
    /// here.
    pub(crate) async fn pass<F: Future<Output = Response>>(
        &self,
        request: Request,
        recorder: &Recorder,
        next: impl FnOnce(Request, Owner) -> F,
    ) -> Response {
        match self.origins.judge(request.method(), request.headers()) {
            Ok(Verdict::Pass) => self.judge(request, recorder, next).await,
            Ok(Verdict::Allow(allowed)) => {
                let mut response = self.judge(request, recorder, next).await;
                origin::allow(response.headers_mut(), allowed);
                response
            }
            Ok(Verdict::Preflight(allowed)) => {
                let mut response = StatusCode::NO_CONTENT.into_response();
                origin::preflight(response.headers_mut(), allowed);
                response
            }
            Err(error) => error.into_response(),
        }
    }

    async fn judge<F: Future<Output = Response>>(
        &self,
        mut request: Request,
        recorder: &Recorder,
        next: impl FnOnce(Request, Owner) -> F,
    ) -> Response {
        let mut asking = None;
        if let Some(keys) = &self.keys {
            let path = paths::read(request.uri().path());
            let caller = match keys.caller(&path, request.headers()) {
                Ok(caller) => caller,
                Err(error) => return error.into_response(),
            };
            for name in key_headers(keys.header()) {
                request.headers_mut().remove(name);
            }
            if let Some(caller) = caller {
                recorder.caller(&caller.token.name);
            }
            asking = caller.map(|caller| (caller, path));
        }
        let token = asking.as_ref().map(|(caller, _)| &caller.token);
        let open = match self.open(token) {
            Ok(open) => open,
            Err(error) => return error.into_response(),
        };
        if self.counting.is_some() {
            recorder.waits_for("a free slot");
        }
        let owner = Owner::of(token);
        let next = |request| next(request, owner);
        let answer = match &asking {
            // Boxed, so that all others do not carry the room for it.
            Some((caller, path)) if !caller.access.is_free() => {
                Box::pin(self.restricted(caller, path, request, next)).await
            }
            _ => self.count(token, request, next).await,
        };
        let mut response = counts::hold(open, answer.into_response());
        if let Some(counting) = &self.counting {
            counting.tell(token, response.headers_mut());
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

    async fn restricted<F: Future<Output = Response>>(
        &self,
        caller: &Caller,
        path: &str,
        request: Request,
        next: impl FnOnce(Request) -> F,
    ) -> Result<Response, Error> {
        let method = request.method().clone();
        let (request, shown) = caller.access.check(request, path, &self.base, self.body).await?;
        let response = self.count(Some(&caller.token), request, next).await?;
        match shown {
            None => Ok(response),
            Some(shown) => shown.of(response, &method).await,
        }
    }

    async fn count<F: Future<Output = Response>>(
        &self,
        token: Option<&Token>,
        request: Request,
        next: impl FnOnce(Request) -> F,
    ) -> Result<Response, Error> {
        let Some(counting) = &self.counting else { return Ok(next(request).await) };
        let place = counting.admit(token).await?;
        Ok(counts::hold(place, next(request).await))
    }
}

/// Every header that may hold a caller's key, where `configured` is the one that the settings name.
pub(crate) fn key_headers(configured: &HeaderName) -> impl Iterator<Item = &HeaderName> {
    passthrough::KEYS.iter().chain([configured])
}
