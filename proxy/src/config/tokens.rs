//! The callers' keys, as the settings hold them: digests only, so that no part of the program can show one. One row
//! each field.

use std::{fmt::Write, fs};

use jiff::{Timestamp, civil::Date, tz::TimeZone};
use sha2::{Digest as _, Sha256};

use crate::config::value::{Value, count, list, number, text};

/// What a key in the settings begins with when it is written as its digest.
const HASHED: &str = "sha256:";

/// The SHA-256 of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Digest(pub(crate) [u8; 32]);

impl Digest {
    /// The digest of `key` as a client sends it.
    #[must_use]
    pub fn of(key: &[u8]) -> Self {
        Self(Sha256::digest(key).into())
    }

    /// Reads `sha256:` and 64 hexadecimal digits.
    fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix(HASHED).filter(|digits| digits.len() == 64 && digits.is_ascii())?;
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Self(bytes))
    }
}

/// As `key_hash` in the settings.
impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(HASHED)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// One key, and what its holder may do.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// Who holds it, for the log; `key 1`, `key 2`, … if it has no name.
    pub name: String,
    /// What it is compared by.
    pub digest: Digest,
    /// Requests in any window of `quota.window`. None: without limit.
    pub limit_per_minute: Option<usize>,
    /// Tokens, of prompts and answers, in any window of `quota.window`. None: without limit.
    pub tokens_per_minute: Option<u64>,
    /// Tokens in any 24 hours. None: without limit.
    pub tokens_per_day: Option<u64>,
    /// When the key stops working. None: never.
    pub expires: Option<Timestamp>,
    /// Requests at the same time. None: without limit.
    pub max_concurrent: Option<usize>,
    /// Models that it may use, `*` at most once in each. None: all.
    pub models: Option<Vec<String>>,
    /// Paths that it may ask for, `*` at the end for all below, `!` in front for what is taken out. None: all.
    pub routes: Option<Vec<String>>,
}

impl Token {
    /// A key that may do everything.
    #[must_use]
    pub fn new(name: impl Into<String>, key: &str) -> Self {
        Self {
            name: name.into(),
            digest: Digest::of(key.as_bytes()),
            limit_per_minute: None,
            tokens_per_minute: None,
            tokens_per_day: None,
            expires: None,
            max_concurrent: None,
            models: None,
            routes: None,
        }
    }

    /// Whether its tokens are counted.
    pub(crate) fn limits_tokens(&self) -> bool {
        self.tokens_per_minute.is_some() || self.tokens_per_day.is_some()
    }
}

/// A token in the making.
#[derive(Debug, Default)]
pub(super) struct Draft {
    digest: Option<Digest>,
    name: Option<String>,
    limit_per_minute: Option<usize>,
    tokens_per_minute: Option<u64>,
    tokens_per_day: Option<u64>,
    expires: Option<Timestamp>,
    max_concurrent: Option<usize>,
    models: Option<Vec<String>>,
    routes: Option<Vec<String>>,
}

/// One field of a token: how it is called, and what it does to the draft. The environment is where `key_env` looks.
type Field = (&'static str, fn(&mut Draft, Value, &[(String, String)]) -> Result<(), String>);

/// Every field of `auth.tokens`.
pub(super) const FIELDS: &[Field] = &[
    ("key", |draft, value, _| draft.key(&text(value)?)),
    ("key_file", |draft, value, _| {
        let path = text(value)?;
        let key = fs::read_to_string(&path).map_err(|error| format!("{path}: cannot read this file: {error}"))?;
        draft.key(&key)
    }),
    ("key_env", |draft, value, environment| {
        let name = text(value)?;
        let found = environment.iter().find(|(known, _)| *known == name);
        draft.key(&found.ok_or_else(|| format!("the environment variable {name} is not set"))?.1)
    }),
    ("key_hash", |draft, value, _| {
        let digest = Digest::parse(text(value)?.trim());
        draft.digest(digest.ok_or("expected \"sha256:\" and 64 hexadecimal digits, as `farllama key new` prints them")?)
    }),
    ("name", |draft, value, _| {
        draft.name = Some(text(value)?).filter(|name| !name.is_empty());
        Ok(())
    }),
    ("limit_per_minute", |draft, value, _| set(&mut draft.limit_per_minute, limit(value)?)),
    ("tokens_per_minute", |draft, value, _| set(&mut draft.tokens_per_minute, token_limit(value)?)),
    ("tokens_per_day", |draft, value, _| set(&mut draft.tokens_per_day, token_limit(value)?)),
    ("expires", |draft, value, _| set(&mut draft.expires, expiry(&text(value)?)?)),
    ("max_concurrent", |draft, value, _| set(&mut draft.max_concurrent, limit(value)?)),
    ("models", |draft, value, _| {
        let models = list(value)?;
        if let Some(wrong) = models.iter().find(|model| model.matches('*').count() > 1 || model.is_empty()) {
            return Err(format!(
                "invalid model {wrong:?}: expected one such as \"llama3.2\" or \"qwen3:8b\", with at most one *"
            ));
        }
        set(&mut draft.models, models)
    }),
    ("routes", |draft, value, _| set(&mut draft.routes, routes(value)?)),
];

/// Patterns of paths.
pub(super) fn routes(value: Value) -> Result<Vec<String>, String> {
    let routes = list(value)?;
    let fine = |route: &&String| {
        let path = route.strip_prefix('!').unwrap_or(route);
        (path.starts_with('/') || path == "*") && !path.strip_suffix('*').unwrap_or(path).contains('*')
    };
    match routes.iter().find(|route| !fine(route)) {
        Some(wrong) => {
            Err(format!("invalid path {wrong:?}: expected one such as \"/api/chat\", \"/v1/*\" or \"!/api/delete\""))
        }
        None => Ok(routes),
    }
}

fn set<T>(place: &mut Option<T>, value: T) -> Result<(), String> {
    *place = Some(value);
    Ok(())
}

fn limit(value: Value) -> Result<usize, String> {
    match number(value)? {
        0 => Err("invalid limit 0: leave it out for no limit".to_owned()),
        limit => Ok(limit),
    }
}

fn token_limit(value: Value) -> Result<u64, String> {
    match count(value)? {
        0 => Err("invalid limit 0: leave it out for no limit".to_owned()),
        limit => Ok(limit),
    }
}

/// A day, which is over for a key where it begins in UTC, or an instant.
fn expiry(text: &str) -> Result<Timestamp, String> {
    let day = || text.parse::<Date>().ok()?.to_zoned(TimeZone::UTC).ok().map(|day| day.timestamp());
    text.parse::<Timestamp>().ok().or_else(day).ok_or_else(|| {
        format!("invalid date {text:?}: expected one such as \"2027-01-01\" or \"2027-01-01T12:00:00Z\"")
    })
}

impl Draft {
    fn key(&mut self, key: &str) -> Result<(), String> {
        let key = key.trim();
        if key.is_empty() {
            return Err("the key is empty".to_owned());
        }
        if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("the key has characters that are not allowed in a header".to_owned());
        }
        self.digest(Digest::of(key.as_bytes()))
    }

    fn digest(&mut self, digest: Digest) -> Result<(), String> {
        match self.digest.replace(digest) {
            None => Ok(()),
            Some(_) => Err("give one of key, key_file, key_env and key_hash".to_owned()),
        }
    }

    /// The token, `nth` from 1 in the list.
    pub(super) fn finish(self, nth: usize) -> Result<Token, String> {
        let Self {
            digest,
            name,
            limit_per_minute,
            tokens_per_minute,
            tokens_per_day,
            expires,
            max_concurrent,
            models,
            routes,
        } = self;
        let digest = digest.ok_or("a key is missing: give key, key_file, key_env or key_hash")?;
        let name = name.unwrap_or_else(|| format!("key {nth}"));
        Ok(Token {
            name,
            digest,
            limit_per_minute,
            tokens_per_minute,
            tokens_per_day,
            expires,
            max_concurrent,
            models,
            routes,
        })
    }
}

/// Keys without limits, as a variable or a flag gives them.
pub(super) fn plain(value: Value) -> Result<Vec<Token>, String> {
    let keys = list(value)?;
    let token = |(at, key): (usize, &String)| {
        let mut draft = Draft::default();
        draft.key(key).and_then(|()| draft.finish(at + 1))
    };
    keys.iter().enumerate().map(token).collect()
}

/// The list as a file could hold it. Digests are shown no more than keys are: who has one can try keys against it.
pub(super) fn shown(tokens: &[Token]) -> String {
    let row = |token: &Token| {
        let mut row = format!("{{ key = \"***\", name = {:?}", token.name);
        let tokens = |limit: Option<u64>| limit.map(|limit| limit.to_string());
        let requests = |limit: Option<usize>| limit.map(|limit| limit.to_string());
        for (name, limit) in [
            ("limit_per_minute", requests(token.limit_per_minute)),
            ("tokens_per_minute", tokens(token.tokens_per_minute)),
            ("tokens_per_day", tokens(token.tokens_per_day)),
            ("expires", token.expires.map(|at| format!("\"{at}\""))),
            ("max_concurrent", requests(token.max_concurrent)),
        ] {
            let _ = limit.map(|limit| write!(row, ", {name} = {limit}"));
        }
        for (name, list) in [("models", &token.models), ("routes", &token.routes)] {
            let _ = list.as_ref().map(|list| write!(row, ", {name} = {list:?}"));
        }
        row + " }"
    };
    format!("[{}]", tokens.iter().map(row).collect::<Vec<_>>().join(", "))
}

/// Which keys were changed, added and removed, by their names; None if there is no difference.
pub(super) fn changes(before: &[Token], after: &[Token]) -> Option<String> {
    let find = |tokens: &[Token], name: &str| tokens.iter().find(|token| token.name == name).cloned();
    let mut changes = Vec::new();
    for token in after {
        match find(before, &token.name) {
            None => changes.push(format!("{} added", token.name)),
            Some(old) if old != *token => changes.push(format!("{} changed", token.name)),
            Some(_) => {}
        }
    }
    let removed = before.iter().filter(|token| find(after, &token.name).is_none());
    changes.extend(removed.map(|token| format!("{} removed", token.name)));
    (!changes.is_empty()).then(|| format!("auth.keys: {}", changes.join(", ")))
}

/// What must hold of all of them together.
pub(super) fn check(tokens: &[Token]) -> Result<(), String> {
    for (at, token) in tokens.iter().enumerate() {
        if let Some(earlier) = tokens[..at].iter().find(|earlier| earlier.digest == token.digest) {
            return Err(format!("{:?} and {:?} have the same key", earlier.name, token.name));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_expires_where_its_day_begins_or_at_an_instant() {
        assert_eq!(expiry("2027-01-01").unwrap().to_string(), "2027-01-01T00:00:00Z");
        assert_eq!(expiry("2027-01-01T12:00:00+02:00").unwrap().to_string(), "2027-01-01T10:00:00Z");
        assert!(expiry("next year").unwrap_err().contains("2027-01-01"));
    }

    #[test]
    fn a_digest_is_read_as_it_is_written() {
        let digest = Digest::of(b"k");
        assert_eq!(Digest::parse(&digest.to_string()), Some(digest));
        assert_eq!(Digest::parse("sha256:12"), None);
        assert_eq!(Digest::parse(&digest.to_string().replace("sha256", "md5")), None);
    }
}
