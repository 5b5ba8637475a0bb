//! How the OpenAI client of a scenario is set up: whose key it sends, in which header, and whether it tries again.

use std::fmt;

use serde::{
    Deserialize,
    de::{Deserializer, Error, Visitor},
};
use serde_saphyr::Spanned;

/// The client's settings; what is absent is as the scenario, or else the harness, has it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Client {
    /// The key that it sends.
    pub key: Option<Spanned<Key>>,
    /// The header that holds it; default: `authorization` (as a Bearer token).
    pub header: Option<Spanned<String>>,
    /// How often it retries; default: never, so that what it shows is one exchange.
    pub retries: Option<Retries>,
}

impl Client {
    /// These settings, with `general` ones where they say nothing.
    #[must_use]
    pub fn or(&self, general: &Self) -> Self {
        Self {
            key: self.key.clone().or_else(|| general.key.clone()),
            header: self.header.clone().or_else(|| general.header.clone()),
            retries: self.retries.or(general.retries),
        }
    }

    /// Where it stands, if it says anything that has a place.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.key.is_none() && self.header.is_none() && self.retries.is_none()
    }
}

/// A key, or `false` for none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// No key at all.
    None,
    /// This one.
    Text(String),
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl Visitor<'_> for Read {
            type Value = Key;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key, or false for none")
            }

            fn visit_bool<E: Error>(self, sent: bool) -> Result<Key, E> {
                if sent { Err(E::custom("key takes a key, or false for none")) } else { Ok(Key::None) }
            }

            fn visit_str<E: Error>(self, key: &str) -> Result<Key, E> {
                Ok(Key::Text(key.to_owned()))
            }
        }
        deserializer.deserialize_any(Read)
    }
}

/// How often a client tries again what failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retries {
    /// The client's own default.
    Default,
    /// So often.
    Times(usize),
}

impl<'de> Deserialize<'de> for Retries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl Visitor<'_> for Read {
            type Value = Retries;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`default` or a number of retries")
            }

            fn visit_str<E: Error>(self, word: &str) -> Result<Retries, E> {
                match word {
                    "default" => Ok(Retries::Default),
                    other => {
                        Err(E::custom(format_args!("`{other}` is not a number of retries: expected one, or `default`")))
                    }
                }
            }

            fn visit_u64<E: Error>(self, times: u64) -> Result<Retries, E> {
                usize::try_from(times).map(Retries::Times).map_err(E::custom)
            }

            fn visit_i64<E: Error>(self, times: i64) -> Result<Retries, E> {
                usize::try_from(times).map(Retries::Times).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Read)
    }
}
