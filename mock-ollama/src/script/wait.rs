//! How long a script waits: so long, or until the client has seen something.

use std::time::Duration;

use serde::{
    Deserialize, Deserializer,
    de::{Error, value::MapAccessDeserializer},
};

use crate::Seen;

/// A wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// So long: `2s`.
    For(Duration),
    /// Until the client has seen something more, so long at most: `{ seen: 10s }`. Only in process, see
    /// [`crate::Mock::seen`].
    Seen(Duration),
}

impl Default for Wait {
    fn default() -> Self {
        Self::For(Duration::ZERO)
    }
}

impl From<Duration> for Wait {
    fn from(time: Duration) -> Self {
        Self::For(time)
    }
}

impl Wait {
    pub(crate) fn is_none(self) -> bool {
        self == Self::default()
    }

    /// Waits; `before` is how often the client had seen something when there was nothing to wait for yet.
    pub(crate) async fn pass(self, seen: &Seen, before: u64) {
        match self {
            Self::For(time) if time.is_zero() => {}
            Self::For(time) => tokio::time::sleep(time).await,
            Self::Seen(at_most) => seen.beyond(before, at_most).await,
        }
    }
}

impl<'de> Deserialize<'de> for Wait {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Until {
            seen: String,
        }
        struct Read;
        impl<'de> serde::de::Visitor<'de> for Read {
            type Value = Wait;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a duration such as 50ms, or { seen: 10s }")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Wait, E> {
                duration(text).map(Wait::For)
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, map: A) -> Result<Wait, A::Error> {
                duration(&Until::deserialize(MapAccessDeserializer::new(map))?.seen).map(Wait::Seen)
            }
        }
        deserializer.deserialize_any(Read)
    }
}

fn duration<E: Error>(text: &str) -> Result<Duration, E> {
    humantime::parse_duration(text)
        .map_err(|error| E::custom(format!("{text:?} is not a duration such as 50ms or 2s: {error}")))
}
