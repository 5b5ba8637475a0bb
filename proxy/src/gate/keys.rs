//! Whose key a request brings: compared by digest, all of them, in constant time.
//!
//! Keeps no key, only what the settings keep: digests. What a caller may do is judged elsewhere.

use axum::extract::Request;
use http::{HeaderMap, HeaderName, Method, header};
use jiff::Timestamp;
use subtle::{ConditionallySelectable, ConstantTimeEq};

use crate::{
    config::{Auth, Digest, Token},
    error::Error,
    gate::{access::Access, paths::Paths},
    routes::Route,
};

/// The holder of a key.
#[derive(Debug)]
pub(crate) struct Caller {
    pub(crate) token: Token,
    pub(crate) access: Access,
}

/// The keys that may pass.
#[derive(Debug)]
pub(crate) struct Keys {
    header: HeaderName,
    callers: Vec<Caller>,
    exempt: Paths,
}

impl Keys {
    /// None if no key is required.
    pub(crate) fn new(auth: &Auth) -> Option<Self> {
        auth.enabled.then(|| Self {
            header: auth.header.clone(),
            callers: auth
                .tokens
                .iter()
                .map(|token| Caller { token: token.clone(), access: Access::new(token) })
                .collect(),
            exempt: Paths::new(&auth.exempt),
        })
    }

    /// The header that the settings name.
    pub(crate) fn header(&self) -> &HeaderName {
        &self.header
    }

    pub(crate) fn tokens(&self) -> impl Iterator<Item = &Token> {
        self.callers.iter().map(|caller| &caller.token)
    }

    /// The caller who holds the request's key; none on a path that is exempt, which only GET and HEAD are.
    ///
    /// # Errors
    /// There is no key, or it is none of ours.
    pub(crate) fn caller(&self, request: &Request, route: &Route) -> Result<Option<&Caller>, Error> {
        let exempt = matches!(*request.method(), Method::GET | Method::HEAD) && route.plain;
        self.find_caller(request.headers(), exempt.then(|| route.path(request)))
    }

    /// The caller with this digest, who was admitted before.
    ///
    /// # Errors
    /// Fails if the key is not valid any more, or keys are required since.
    pub(crate) fn known(&self, digest: Option<Digest>) -> Result<Option<&Caller>, Error> {
        match digest.and_then(|digest| self.find(digest)) {
            Some(caller) => Ok(Some(caller)),
            None => {
                let message = "The API key that this began with is not valid any more".to_owned();
                Err(Error::Key { message, sent: digest.is_some() })
            }
        }
    }

    /// The same, where only `path` may be exempt.
    fn find_caller(&self, headers: &HeaderMap, path: Option<&str>) -> Result<Option<&Caller>, Error> {
        let (mut sent, mut expired) = (false, None);
        for key in self.sent(headers) {
            sent = true;
            if let Some(caller) = self.find(Digest::of(key)) {
                match caller.token.expires.filter(|at| *at <= Timestamp::now()) {
                    None => return Ok(Some(caller)),
                    Some(at) => expired = Some(at),
                }
            }
        }
        if let Some(at) = expired {
            let message = format!("This API key expired at {at}: ask the operator of this proxy for a new one");
            return Err(Error::Key { message, sent: true });
        }
        if path.is_some_and(|path| self.exempt.contain(path)) {
            return Ok(None);
        }
        // The key itself is not repeated: a response may end up in a log.
        let message = if sent {
            "Incorrect API key provided: this proxy does not know it".to_owned()
        } else {
            let bare = headers.get(header::AUTHORIZATION).is_some_and(|value| !value.as_bytes().contains(&b' '));
            let why = if bare { " (the Authorization header has no `Bearer` before the key)" } else { "" };
            format!(
                "You didn't provide an API key{why}: send it as `Authorization: Bearer KEY` or as `{}: KEY`",
                self.header.as_str()
            )
        };
        Err(Error::Key { message, sent })
    }

    /// Every key that the request brings; a client that sends two needs one of them to be right.
    fn sent<'a>(&self, headers: &'a HeaderMap) -> impl Iterator<Item = &'a [u8]> {
        let bearer = headers.get_all(header::AUTHORIZATION).iter().filter_map(|value| {
            let (scheme, key) = value.as_bytes().split_at_checked(7)?;
            scheme.eq_ignore_ascii_case(b"Bearer ").then(|| key.trim_ascii())
        });
        let own = headers.get_all(&self.header).iter().map(|value| value.as_bytes().trim_ascii());
        own.chain(bearer).filter(|key| !key.is_empty())
    }

    /// Looks at every token, whichever fits.
    fn find(&self, digest: Digest) -> Option<&Caller> {
        let no_key = u64::MAX;
        let found = self
            .tokens()
            .zip(0u64..)
            .fold(no_key, |found, (token, at)| u64::conditional_select(&found, &at, token.digest.0.ct_eq(&digest.0)));
        self.callers.get(usize::try_from(found).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller<'a>(keys: &'a Keys, path: &str, headers: &[(&str, &str)]) -> Result<Option<&'a str>, Error> {
        let headers =
            headers.iter().map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap())).collect();
        Ok(keys.find_caller(&headers, Some(path))?.map(|caller| &*caller.token.name))
    }

    fn keys(header: &str, exempt: &[&str]) -> Keys {
        Keys::new(&Auth {
            enabled: true,
            header: header.parse().unwrap(),
            tokens: vec![Token::new("ann", "a-key"), Token::new("bob", "b-key")],
            exempt: exempt.iter().map(|&path| path.to_owned()).collect(),
            ..Auth::default()
        })
        .unwrap()
    }

    #[test]
    fn a_key_is_taken_from_its_header_or_as_a_bearer_token() {
        let keys = keys("x-api-key", &[]);
        for headers in [
            &[("x-api-key", "b-key")][..],
            &[("authorization", "Bearer b-key")],
            &[("authorization", "bearer  b-key ")],
            &[("authorization", "Bearer dummy"), ("x-api-key", "b-key")],
            &[("authorization", "Bearer b-key"), ("x-api-key", "dummy")],
        ] {
            assert_eq!(caller(&keys, "/", headers).unwrap(), Some("bob"), "{headers:?}");
        }
    }

    #[test]
    fn what_is_no_key_of_ours_is_refused() {
        let keys = keys("x-team-key", &[]);
        for headers in [
            &[][..],
            &[("x-api-key", "b-key")],
            &[("x-team-key", "")],
            &[("x-team-key", "b-ke")],
            &[("authorization", "b-key")],
            &[("authorization", "Basic b-key")],
        ] {
            assert!(matches!(caller(&keys, "/", headers), Err(Error::Key { .. })), "{headers:?}");
        }
    }

    #[test]
    fn an_expired_key_is_refused_and_says_so() {
        let mut keys = keys("x-api-key", &["/api/version"]);
        keys.callers[0].token.expires = Some("2020-01-01T00:00:00Z".parse().unwrap());
        keys.callers[1].token.expires = Some("2999-01-01T00:00:00Z".parse().unwrap());
        let error = caller(&keys, "/api/version", &[("x-api-key", "a-key")]).unwrap_err();
        assert!(matches!(&error, Error::Key { message, sent: true } if message.contains("expired at 2020-01-01")));
        assert_eq!(caller(&keys, "/", &[("x-api-key", "b-key")]).unwrap(), Some("bob"));
        let both = [("x-api-key", "a-key"), ("authorization", "Bearer b-key")];
        assert_eq!(caller(&keys, "/", &both).unwrap(), Some("bob"), "one of two keys is good");
    }

    #[test]
    fn a_key_without_its_scheme_is_distinguished_from_none() {
        let message = |headers: &[(&str, &str)]| caller(&keys("x-api-key", &[]), "/", headers).unwrap_err().to_string();
        assert!(message(&[("authorization", "b-key")]).contains("no `Bearer` before the key"));
        assert!(!message(&[]).contains("no `Bearer`"));
        assert!(!message(&[("authorization", "Basic b-key")]).contains("no `Bearer`"));
    }

    #[test]
    fn an_exempt_path_needs_no_key_but_knows_one() {
        let keys = keys("x-api-key", &["/api/version"]);
        assert_eq!(caller(&keys, "/api/version", &[]).unwrap(), None);
        assert_eq!(caller(&keys, "/api/version", &[("x-api-key", "a-key")]).unwrap(), Some("ann"));
        assert!(caller(&keys, "/api/versions", &[]).is_err());
        assert!(keys.find_caller(&HeaderMap::new(), None).is_err());
    }
}
