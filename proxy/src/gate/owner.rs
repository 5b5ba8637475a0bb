//! Whose a thing is that is kept between two requests: known by the digest of the key, which outlives a change of the settings.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use http::request::Parts;

use crate::config::Digest;

/// Whoever made it. Nobody in particular where no key was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Owner(Option<Digest>);

impl<S: Send + Sync> FromRequestParts<S> for Owner {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(parts.extensions.get::<Digest>().copied()))
    }
}

#[cfg(test)]
impl Owner {
    /// Whoever holds `key`.
    pub(crate) fn of(key: &[u8]) -> Self {
        Self(Some(Digest::of(key)))
    }
}
