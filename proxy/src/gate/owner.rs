//! Who owns what is kept between two requests: known by the digest of the key, which outlives a change of the settings.

use std::fmt;

use crate::config::{Digest, Token};

/// The key that made it; none where no key was needed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Owner(Option<Digest>);

impl Owner {
    pub(crate) fn of(token: Option<&Token>) -> Self {
        Self(token.map(|token| token.digest))
    }

    /// The digest of the key; None where no key was needed.
    pub(crate) fn digest(self) -> Option<Digest> {
        self.0
    }
}

/// The digest in hexadecimal digits, or `-` where no key was needed.
impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(digest) => digest.0.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
            None => f.write_str("-"),
        }
    }
}

#[cfg(test)]
impl Owner {
    /// The owner of `key`.
    pub(crate) fn of_key(key: &[u8]) -> Self {
        Self(Some(Digest::of(key)))
    }
}
