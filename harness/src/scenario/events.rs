//! What is expected of single events of a stream: which of them, how many there are, what each holds, and in which
//! order they come.

use std::fmt;

use serde::{
    Deserialize,
    de::{Deserializer, Error, MapAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json::Value;
use serde_saphyr::{Location, Spanned};

use super::{Check, Checks};

/// Entries in the order of the file; all must hold.
pub type Events = Vec<Spanned<Entry>>;

/// An expectation of some of a stream's events, or of their order.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "Written")]
pub enum Entry {
    /// Of those that are picked.
    Some(Box<Wanted>),
    /// One after the other, with anything in between.
    InOrder(Spanned<Vec<Spanned<Next>>>),
}

/// What is wanted of those events that are picked.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Which they are.
    pub pick: Pick,
    /// Which one of them; default: all.
    pub at: Option<At>,
    /// Matcher of how many are picked, before `at`; default: at least one.
    pub count: Option<Spanned<Value>>,
    /// JSONPath → matcher, on each of them, or on the one.
    pub expect: Checks,
}

impl Entry {
    /// Every JSONPath with its matcher.
    pub fn checks(&self) -> impl Iterator<Item = &Check> {
        let (own, order) = match self {
            Self::Some(wanted) => (Some(wanted.pick.r#where.0.iter().chain(&wanted.expect.0)), None),
            Self::InOrder(order) => (None, Some(order.value.iter().flat_map(|next| &next.value.0.r#where.0))),
        };
        own.into_iter().flatten().chain(order.into_iter().flatten())
    }
}

/// Which events: those of which all of this holds.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pick {
    /// Matcher of the `type` within its JSON.
    pub r#type: Option<Spanned<Value>>,
    /// Matcher of the name on its `event:` line.
    pub event: Option<Spanned<Value>>,
    /// JSONPath → matcher on its JSON.
    #[serde(default)]
    pub r#where: Checks,
}

impl Pick {
    /// What it picks, in words.
    #[must_use]
    pub fn phrase(&self) -> String {
        let mut words: Vec<String> = Vec::new();
        for (name, wanted) in [("type", &self.r#type), ("event", &self.event)] {
            words.extend(wanted.as_ref().map(|wanted| format!("{name} {}", wanted.value)));
        }
        words.extend(self.r#where.0.iter().map(|check| format!("{} {}", check.key, check.expected)));
        if words.is_empty() { "any event".to_owned() } else { format!("an event with {}", words.join(", ")) }
    }

    /// Whether it picks every event.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.r#type.is_none() && self.event.is_none() && self.r#where.0.is_empty()
    }
}

/// An event in an order: its `type` alone, or as it is picked.
#[derive(Clone, Debug)]
pub struct Next(pub Pick);

impl<'de> Deserialize<'de> for Next {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Next;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the `type` of an event, or a mapping with type, event and where")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Next, E> {
                // Its place is that of the whole.
                let word = Spanned::new(Value::from(text), Location::UNKNOWN, Location::UNKNOWN);
                Ok(Next(Pick { r#type: Some(word), ..Pick::default() }))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Next, A::Error> {
                Pick::deserialize(MapAccessDeserializer::new(map)).map(Next)
            }
        }
        deserializer.deserialize_any(Read)
    }
}

/// One of those that are picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// Counted from 0.
    FromFirst(usize),
    /// Counted from the end, the last is 0.
    FromLast(usize),
}

impl At {
    /// Its place among so many.
    #[must_use]
    pub fn of(self, many: usize) -> Option<usize> {
        match self {
            Self::FromFirst(nth) => Some(nth).filter(|nth| *nth < many),
            Self::FromLast(nth) => many.checked_sub(nth + 1),
        }
    }
}

impl<'de> Deserialize<'de> for At {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const FORMS: &str = "`at` takes first, last, or a number, from 0, or from -1 for the last";
        let written = Value::deserialize(deserializer)?;
        match (written.as_str(), written.as_i64()) {
            (Some("first"), _) => Ok(Self::FromFirst(0)),
            (Some("last"), _) => Ok(Self::FromLast(0)),
            (None, Some(nth)) => {
                let size = usize::try_from(nth.unsigned_abs()).map_err(|_| D::Error::custom(FORMS))?;
                Ok(if nth < 0 { Self::FromLast(size - 1) } else { Self::FromFirst(size) })
            }
            _ => Err(D::Error::custom(FORMS)),
        }
    }
}

/// An entry as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    r#type: Option<Spanned<Value>>,
    event: Option<Spanned<Value>>,
    #[serde(default)]
    r#where: Checks,
    at: Option<At>,
    count: Option<Spanned<Value>>,
    #[serde(default)]
    expect: Checks,
    in_order: Option<Spanned<Vec<Spanned<Next>>>>,
}

impl TryFrom<Written> for Entry {
    type Error = &'static str;

    fn try_from(written: Written) -> Result<Self, &'static str> {
        let Written { r#type, event, r#where, at, count, expect, in_order } = written;
        let pick = Pick { r#type, event, r#where };
        match in_order {
            None if pick.is_empty() && at.is_none() && count.is_none() && expect.0.is_empty() => {
                Err("an entry of `events` has type, event or where, at, count, expect; or in_order alone")
            }
            None => Ok(Self::Some(Box::new(Wanted { pick, at, count, expect }))),
            Some(_) if !pick.is_empty() || at.is_some() || count.is_some() || !expect.0.is_empty() => {
                Err("`in_order` must be alone in its entry")
            }
            Some(order) => Ok(Self::InOrder(order)),
        }
    }
}
