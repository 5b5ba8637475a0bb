//! Who may pass, in one place and one order: origin → key → quota. Handlers know none of it.

mod counts;
mod crowd;
mod keys;
pub(crate) mod origin;
mod paths;
mod quota;

use std::sync::Arc;

use axum::{
    extract::Request,
    middleware::Next,
    response::{IntoResponse, Response},
};
use counts::Counting;
pub(crate) use counts::Counts;
use http::{HeaderName, StatusCode};
use keys::Keys;
use origin::{Rules, Verdict};

use crate::{
    config::{Config, Token},
    observe::Recorder,
    ollama::passthrough,
};

/// What stands before both lanes.
#[derive(Debug)]
pub(crate) struct Gate {
    origins: Rules,
    /// None where nobody is asked for a key: then nothing here costs anything.
    keys: Option<Keys>,
    /// None where nothing is limited.
    counting: Option<Counting>,
}

impl Gate {
    /// `counts` are those of the settings before these, or new ones.
    pub(crate) fn new(config: &Config, origins: Rules, counts: Arc<Counts>) -> Self {
        let keys = Keys::new(&config.auth);
        let tokens = keys.as_ref().map_or(&[][..], Keys::tokens);
        let limited = |token: &Token| token.limit_per_minute.is_some() || token.max_concurrent.is_some();
        let counting = (config.quota.max_concurrent > 0 || tokens.iter().any(limited))
            .then(|| Counting::new(&config.quota, tokens, counts));
        Self { origins, keys, counting }
    }

    /// Lets `request` pass to whoever is `next`, or refuses it. Allowed pages may read what comes out, refusals too; preflights are answered here.
    pub(crate) async fn pass(&self, request: Request, next: Next) -> Response {
        match self.origins.judge(request.method(), request.headers()) {
            Ok(Verdict::Pass) => self.judge(request, next).await,
            Ok(Verdict::Allow(allowed)) => {
                let mut response = self.judge(request, next).await;
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

    async fn judge(&self, mut request: Request, next: Next) -> Response {
        let caller = match &self.keys {
            None => None,
            Some(keys) => match keys.caller(&paths::read(request.uri().path()), request.headers()) {
                Ok(caller) => caller,
                Err(error) => return error.into_response(),
            },
        };
        if let (Some(caller), Some(recorder)) = (caller, request.extensions().get::<Recorder>()) {
            recorder.caller(&caller.name);
        }
        if let Some(keys) = &self.keys {
            for name in key_headers(keys.header()) {
                request.headers_mut().remove(name);
            }
        }
        let Some(counting) = &self.counting else { return next.run(request).await };
        let mut response = match counting.admit(caller).await {
            Ok(place) => counts::hold(place, next.run(request).await),
            Err(error) => error.into_response(),
        };
        counting.tell(caller, response.headers_mut());
        response
    }
}

/// Every header that may hold a caller's key, where `configured` is the one that the settings name.
pub(crate) fn key_headers(configured: &HeaderName) -> impl Iterator<Item = &HeaderName> {
    passthrough::KEYS.iter().chain([configured])
}
