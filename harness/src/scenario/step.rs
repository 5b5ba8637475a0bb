//! A step: one call, or several that begin together, and what is expected of each and of the whole; or new settings for
//! the proxy.

use std::{fmt, sync::Arc};

use serde::{
    Deserialize,
    de::{Deserializer, Error, MapAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json::Value;
use serde_saphyr::Spanned;

use super::{Call, Checks, Client, Events, Place, Sent, Time, Wire, variables::Answer};

/// Most calls that may begin together: each is a connection.
pub const MOST: usize = 1000;

/// One step.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "Written")]
pub struct Step {
    /// What the step is about, for reports.
    pub name: Option<String>,
    /// A file of steps that are done in this one's place, found from the scenario's folder; see [`crate::check::load`].
    pub include: Option<Spanned<String>>,
    /// The file that it was included from.
    pub from: Option<Arc<str>>,
    /// Settings that the proxy has from now on, as the text of its TOML file.
    pub reload: Option<Spanned<String>>,
    /// The calls, which begin together. Empty only where the step is a reload.
    pub parts: Vec<Part>,
    /// How often it is done, one after the other, and how often the model must be right.
    pub repeat: Option<Spanned<Repeat>>,
    /// The time in which it may be tried again until it passes, such as `5s`.
    pub within: Option<Spanned<String>>,
    /// What is expected of the whole of several calls.
    pub answers: Option<Spanned<Answers>>,
    /// What reached the upstream, from the mock's journal.
    pub sent: Option<Sent>,
    /// Name → JSONPath: values of the answer that later steps use as `${name}`.
    pub capture: Checks,
}

impl Step {
    /// How many calls it makes.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.parts.iter().map(Part::calls).sum()
    }

    /// What can be known of its answer before it is done.
    #[must_use]
    pub fn answer(&self) -> Answer {
        match self.calls() {
            0 => Answer::None("makes no call"),
            1 if self.repeat.is_none() => Answer::Promised,
            _ => Answer::None("makes several calls, so it has no single answer"),
        }
    }

    /// Where its first call stands.
    #[must_use]
    pub fn place(&self) -> Place {
        self.parts.first().map(|part| Place::from(&part.call)).unwrap_or_default()
    }

    /// Whether its one call must be live; see [`Time::live`].
    #[must_use]
    pub fn live(&self) -> Option<&Spanned<bool>> {
        self.parts.first().and_then(|part| part.time.live.as_ref())
    }

    /// Its expectations of the upstream, which only a backend with a journal can check.
    #[must_use]
    pub fn of_upstream(&self) -> Vec<&'static str> {
        let all = [("sent", self.sent.is_some()), ("time.live", self.live().is_some())];
        all.into_iter().filter_map(|(name, is)| is.then_some(name)).collect()
    }

    /// Whether nothing is expected of an answer.
    #[must_use]
    pub fn is_blind(&self) -> bool {
        self.reload.is_none() && self.answers.is_none() && self.parts.iter().all(Part::is_blind)
    }
}

/// A step that is done several times, because a model is not always right.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Repeat {
    /// How often.
    pub times: usize,
    /// How often what is expected under `model` must hold; default: always. Everything else must always hold.
    pub pass: Option<usize>,
}

impl Repeat {
    /// How often what is expected of the model must hold.
    #[must_use]
    pub fn needed(self) -> usize {
        self.pass.unwrap_or(self.times)
    }
}

/// A call, and what is expected of each of its answers.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// What it is about, for reports.
    pub name: Option<String>,
    /// The one call.
    pub call: Spanned<Call>,
    /// How often it is made, all at the same time.
    pub times: Option<Spanned<usize>>,
    /// How the OpenAI client is set up, if not as the scenario has it.
    pub client: Option<Client>,
    /// JSONPath → matcher, on what the client understood.
    #[serde(default)]
    pub expect: Checks,
    /// Single events of a stream.
    #[serde(default)]
    pub events: Events,
    /// JSONPath → matcher, on what the client understood, for what depends on the model's wisdom and not on the server.
    #[serde(default)]
    pub model: Checks,
    /// What crossed the wire.
    #[serde(default)]
    pub wire: Wire,
    /// When.
    #[serde(default)]
    pub time: Time,
}

impl Part {
    /// How often it is made.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.times.as_ref().map_or(1, |times| times.value)
    }

    /// Whether nothing is expected of its answers.
    #[must_use]
    pub fn is_blind(&self) -> bool {
        self.expect.0.is_empty()
            && self.events.is_empty()
            && self.model.0.is_empty()
            && self.wire.is_empty()
            && self.time.is_empty()
    }
}

/// A step as it is written: with `call` it is its own one part.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: Option<String>,
    include: Option<Spanned<String>>,
    reload: Option<Spanned<String>>,
    call: Option<Spanned<Call>>,
    parallel: Option<Spanned<Vec<Part>>>,
    times: Option<Spanned<usize>>,
    client: Option<Client>,
    #[serde(default)]
    expect: Checks,
    #[serde(default)]
    events: Events,
    #[serde(default)]
    model: Checks,
    #[serde(default)]
    wire: Wire,
    #[serde(default)]
    time: Time,
    repeat: Option<Spanned<Repeat>>,
    within: Option<Spanned<String>>,
    answers: Option<Spanned<Answers>>,
    sent: Option<Sent>,
    #[serde(default)]
    capture: Checks,
}

impl TryFrom<Written> for Step {
    type Error = &'static str;

    fn try_from(written: Written) -> Result<Self, &'static str> {
        let Written {
            name,
            reload,
            call,
            parallel,
            times,
            client,
            expect,
            events,
            model,
            wire,
            time,
            repeat,
            within,
            answers,
            sent,
            capture,
            include,
        } = written;
        let timed = !time.is_empty() || time.live.is_some() || !model.0.is_empty();
        let judged = !expect.0.is_empty() || !events.is_empty() || !wire.is_empty() || timed;
        let own = times.is_some() || client.is_some() || judged;
        if include.is_some() {
            let nothing =
                call.is_none() && parallel.is_none() && reload.is_none() && repeat.is_none() && within.is_none();
            if !nothing || own || answers.is_some() || sent.is_some() || !capture.0.is_empty() {
                return Err("an `include` must be alone in its step");
            }
            let parts = Vec::new();
            return Ok(Self { name, include, from: None, reload, parts, repeat, within, answers, sent, capture });
        }
        let parts = match (call, parallel) {
            (None, None) if reload.is_some() => {
                if own
                    || repeat.is_some()
                    || within.is_some()
                    || answers.is_some()
                    || sent.is_some()
                    || !capture.0.is_empty()
                {
                    return Err("a `reload` has no answer to expect anything of");
                }
                Vec::new()
            }
            (Some(_), _) | (_, Some(_)) if reload.is_some() => {
                return Err("a step has a `call` or a `reload`, not both");
            }
            (Some(call), None) => vec![Part { name: None, call, times, client, expect, events, model, wire, time }],
            (None, Some(parallel)) => {
                if own {
                    return Err(
                        "times, client, expect, events, model, wire and time belong to each call in `parallel`; for the whole there are answers and sent",
                    );
                }
                if parallel.value.is_empty() {
                    return Err("`parallel` has no calls");
                }
                parallel.value
            }
            (None, None) => {
                return Err("a step has a `call`, or several in `parallel`, or a `reload`, or an `include`");
            }
            (Some(_), Some(_)) => return Err("a step has a `call` or `parallel`, not both"),
        };
        Ok(Self { name, include: None, from: None, reload, parts, repeat, within, answers, sent, capture })
    }
}

/// What is expected of several answers, by their status. Another status must not occur.
#[derive(Clone, Debug, Default)]
pub struct Answers(pub Vec<Answered>);

/// The answers with one status.
#[derive(Clone, Debug)]
pub struct Answered {
    /// The status.
    pub status: u16,
    /// Where it stands.
    pub at: Place,
    /// Matcher of how many there are; default: at least one.
    pub count: Option<Value>,
    /// JSONPath → matcher, on what the client understood of each.
    pub expect: Checks,
    /// Single events of each stream.
    pub events: Events,
    /// What crossed the wire of each.
    pub wire: Wire,
}

impl Answers {
    /// The expectation of a status.
    #[must_use]
    pub fn of(&self, status: u16) -> Option<&Answered> {
        self.0.iter().find(|answered| answered.status == status)
    }
}

impl<'de> Deserialize<'de> for Answers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Answers;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mapping of statuses to how many answers have them")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Answers, A::Error> {
                let mut answers = Vec::new();
                while let Some(status) = map.next_key::<Spanned<u16>>()? {
                    let Each { count, expect, events, wire } = map.next_value()?;
                    let (status, at) = (status.value, Place::from(&status));
                    answers.push(Answered { status, at, count, expect, events, wire });
                }
                Ok(Answers(answers))
            }
        }
        deserializer.deserialize_map(Read)
    }
}

/// A number alone, or what is expected of each.
struct Each {
    count: Option<Value>,
    expect: Checks,
    events: Events,
    wire: Wire,
}

impl<'de> Deserialize<'de> for Each {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Whole {
            count: Option<Value>,
            #[serde(default)]
            expect: Checks,
            #[serde(default)]
            events: Events,
            #[serde(default)]
            wire: Wire,
        }
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Each;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("how many, or a mapping with count, expect, events and wire")
            }

            fn visit_u64<E: Error>(self, count: u64) -> Result<Each, E> {
                let (expect, events, wire) = (Checks::default(), Events::default(), Wire::default());
                Ok(Each { count: Some(count.into()), expect, events, wire })
            }

            fn visit_i64<E: Error>(self, count: i64) -> Result<Each, E> {
                u64::try_from(count).map_err(E::custom).and_then(|count| self.visit_u64(count))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Each, A::Error> {
                let Whole { count, expect, events, wire } = Whole::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Each { count, expect, events, wire })
            }
        }
        deserializer.deserialize_any(Read)
    }
}
