//! What a scenario says: the types of its YAML, each remembering where it stands in the file.
//!
//! Nothing here judges a value (that is [`crate::check`]) or runs a step (that is [`crate::run`]).

pub mod call;
pub mod client;
pub mod events;
pub mod loaded;
pub mod need;
pub mod step;
pub mod time;
pub mod variables;
pub mod vars;
pub mod versions;

use std::fmt;

use mock_ollama::Script;
use serde::{
    Deserialize,
    de::{Deserializer, Error, MapAccess, SeqAccess, Visitor},
};
use serde_json::Value;
use serde_saphyr::Spanned;

pub use call::{Call, Field, Http, IdCall, JsonCall};
pub use client::{Client, Retries};
pub use events::Events;
pub use need::{Capability, Need};
pub use step::{Answered, Answers, Part, Step};
pub use time::Time;

/// One file: a behavior, described in a sentence, and the steps that show it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// A sentence that a user understands.
    pub title: Spanned<String>,
    /// Words to select by, besides the folders.
    #[serde(default)]
    pub tags: Vec<String>,
    /// What a backend must promise. A scenario with `upstream` or `mock` needs `script` without saying so.
    #[serde(default)]
    pub needs: Vec<Need>,
    /// How the mock is set up.
    pub mock: Option<MockSettings>,
    /// What the upstream answers instead of its faithful answers.
    pub upstream: Option<Script>,
    /// Settings of the proxy, as the text of its TOML file.
    pub config: Option<Spanned<String>>,
    /// Names of laws that its streams are not checked against.
    #[serde(default)]
    pub no_laws: Vec<Spanned<String>>,
    /// Name → value, or where it comes from; see [`vars`].
    #[serde(default)]
    pub vars: Checks,
    /// Name → values: the scenario is run once for each combination.
    #[serde(default)]
    pub matrix: Checks,
    /// Steps that make ready. Where one fails, the scenario could not be run.
    #[serde(default)]
    pub setup: Vec<Step>,
    /// How the OpenAI client is set up, unless a step says otherwise.
    #[serde(default)]
    pub client: Client,
    /// What is done, in this order; the first failing step ends the scenario.
    pub steps: Vec<Step>,
    /// Steps that tidy up, whatever came of the others.
    #[serde(default)]
    pub teardown: Vec<Step>,
}

impl Scenario {
    /// Every step in the order in which they are done.
    pub fn all_steps(&self) -> impl Iterator<Item = &Step> {
        self.setup.iter().chain(&self.steps).chain(&self.teardown)
    }

    /// Whether it uses a variable.
    #[must_use]
    pub fn mentions(&self, variable: &str) -> bool {
        // Variables may stand in any text, of whatever kind of call or expectation.
        format!("{self:?}").contains(&format!("${{{variable}}}"))
    }

    /// Everything that a backend must promise, said or not.
    #[must_use]
    pub fn needs(&self) -> Vec<Need> {
        let mut needs = self.needs.clone();
        let calls = || self.all_steps().flat_map(|step| &step.parts).map(|part| &part.call.value);
        let native = |call: &Call| matches!(call, Call::Http(http) if http.path.starts_with("/api"));
        let implied = [
            (Need::Script, self.upstream.is_some() || self.mock.is_some()),
            (
                Need::Proxy,
                self.config.is_some() || self.all_steps().any(|step| step.reload.is_some()) || self.asks_ours(),
            ),
            (Need::Native, calls().any(native)),
        ];
        for (need, is) in implied {
            if is && !needs.contains(&need) {
                needs.push(need);
            }
        }
        needs
    }

    /// Whether it expects a header that only our proxy has.
    fn asks_ours(&self) -> bool {
        let mut headers = self.all_steps().flat_map(|step| &step.parts).flat_map(|part| &part.wire.headers.0);
        headers.any(|check| check.key.to_ascii_lowercase().starts_with("x-farllama-"))
    }
}

/// How the mock is set up.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MockSettings {
    /// The Ollama version that it plays, as `/api/version` reports it.
    pub version: Option<Spanned<String>>,
    /// The first version that the scenario speaks of, where it is run at several.
    pub from: Option<Spanned<String>>,
    /// The first version that it is no longer about.
    pub before: Option<Spanned<String>>,
    /// As `OLLAMA_CONTEXT_LENGTH`.
    pub context_length: Option<u32>,
}

/// What is expected of the bytes.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wire {
    /// Matcher of the status; 2xx is expected if neither this nor an error is.
    pub status: Option<Spanned<Value>>,
    /// Matcher of the `content-type`, parameters included.
    pub content_type: Option<Spanned<Value>>,
    /// Header name → matcher.
    #[serde(default)]
    pub headers: Checks,
    /// Whether `data: [DONE]` comes, exactly once and last.
    pub done: Option<Spanned<bool>>,
    /// Whether each event or line came in one piece. Only for short ones, from a server that writes them so.
    pub whole: Option<Spanned<bool>>,
    /// Matcher of the number of events before `[DONE]`, or of lines.
    pub frames: Option<Spanned<Value>>,
    /// Matcher of the body as text.
    pub text: Option<Spanned<Value>>,
    /// Matcher of how often the client asked, until it had its last answer.
    pub attempts: Option<Spanned<Value>>,
    /// Matcher of how the answer ended: `complete`, `cut` in the middle, or `left` by the client, as the step says.
    /// Default: `complete`.
    pub end: Option<Spanned<Value>>,
    /// JSONPath → matcher on the body: its JSON, or the array of its events or lines.
    #[serde(default)]
    pub body: Checks,
}

impl Wire {
    /// Whether nothing is asked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.status.is_none()
            && self.content_type.is_none()
            && self.headers.0.is_empty()
            && self.done.is_none()
            && self.whole.is_none()
            && self.frames.is_none()
            && self.text.is_none()
            && self.attempts.is_none()
            && self.end.is_none()
            && self.body.0.is_empty()
    }
}

/// Where something stands in its file; both count from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line.
    pub line: u64,
    /// The column, in characters.
    pub column: u64,
}

impl<T> From<&Spanned<T>> for Place {
    fn from(spanned: &Spanned<T>) -> Self {
        spanned.referenced.into()
    }
}

impl From<serde_saphyr::Location> for Place {
    fn from(location: serde_saphyr::Location) -> Self {
        Self { line: location.line(), column: location.column() }
    }
}

/// A key (a JSONPath, a header, a name) and what is expected there.
#[derive(Clone, Debug)]
pub struct Check {
    /// The key.
    pub key: String,
    /// The matcher, as written.
    pub expected: Value,
    /// Where the key stands.
    pub at: Place,
}

/// Keys and matchers in the order of the file.
#[derive(Clone, Debug, Default)]
pub struct Checks(pub Vec<Check>);

impl<'de> Deserialize<'de> for Checks {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Checks;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mapping of keys to matchers")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Checks, A::Error> {
                let mut checks = Vec::new();
                while let Some(key) = map.next_key::<Spanned<String>>()? {
                    let at = Place::from(&key);
                    checks.push(Check { key: key.value, expected: map.next_value()?, at });
                }
                Ok(Checks(checks))
            }
        }
        deserializer.deserialize_map(Read)
    }
}

/// What must have reached the upstream during a step.
#[derive(Clone, Debug)]
pub enum Sent {
    /// The first request, and maybe how many there were.
    First(Box<Ask>),
    /// Every request, in this order, and no other.
    Each(Vec<Ask>),
}

/// One request as the upstream saw it.
#[derive(Clone, Debug, Default)]
pub struct Ask {
    /// Matcher of the method.
    pub method: Option<Check>,
    /// Matcher of the raw request target.
    pub path: Option<Check>,
    /// Header name → matcher.
    pub headers: Checks,
    /// Matcher of the body as text.
    pub text: Option<Check>,
    /// Matcher of how the exchange ended there: `complete`, or `aborted` if the proxy left.
    pub ended: Option<Check>,
    /// Matcher of how many milliseconds after the client's end the exchange ended there; 0 if it was earlier.
    pub ended_ms: Option<Check>,
    /// Matcher of the number of requests during the step.
    pub count: Option<Check>,
    /// JSONPath → matcher on the JSON body.
    pub body: Checks,
}

impl Ask {
    /// Its keys, besides JSONPaths.
    pub const WORDS: [&str; 7] = ["method", "path", "headers", "text", "ended", "ended_ms", "count"];

    fn is_empty(&self) -> bool {
        self.body.0.is_empty()
            && self.headers.0.is_empty()
            && [&self.method, &self.path, &self.text, &self.ended, &self.ended_ms, &self.count]
                .iter()
                .all(|check| check.is_none())
    }

    fn read<'de, A: MapAccess<'de>>(mut map: A) -> Result<Self, A::Error> {
        let mut ask = Self::default();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            let at = Place::from(&key);
            let key = key.value;
            if key.starts_with('$') {
                ask.body.0.push(Check { key, expected: map.next_value()?, at });
                continue;
            }
            let place = match &*key {
                "headers" => {
                    ask.headers = map.next_value()?;
                    continue;
                }
                "method" => &mut ask.method,
                "path" => &mut ask.path,
                "text" => &mut ask.text,
                "ended" => &mut ask.ended,
                "ended_ms" => &mut ask.ended_ms,
                "count" => &mut ask.count,
                other => {
                    return Err(A::Error::custom(format_args!(
                        "unknown key `{other}` in sent, expected a JSONPath into the body (it begins with $) or one of {}",
                        Self::WORDS.join(", ")
                    )));
                }
            };
            *place = Some(Check { key, expected: map.next_value()?, at });
        }
        Ok(ask)
    }
}

impl Sent {
    /// Whether nothing is asked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match self {
            Self::First(ask) => ask.is_empty(),
            // "No request" is something to ask.
            Self::Each(_) => false,
        }
    }

    /// The single requests.
    #[must_use]
    pub fn asks(&self) -> &[Ask] {
        match self {
            Self::First(ask) => std::slice::from_ref(ask),
            Self::Each(asks) => asks,
        }
    }
}

impl<'de> Deserialize<'de> for Ask {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Ask;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mapping that describes one request")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Ask, A::Error> {
                Ask::read(map)
            }
        }
        deserializer.deserialize_map(Read)
    }
}

impl<'de> Deserialize<'de> for Sent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Sent;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mapping (the first request) or a list (every request)")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Sent, A::Error> {
                Ask::read(map).map(|ask| Sent::First(Box::new(ask)))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Sent, A::Error> {
                let mut asks = Vec::new();
                while let Some(ask) = list.next_element()? {
                    asks.push(ask);
                }
                Ok(Sent::Each(asks))
            }
        }
        deserializer.deserialize_any(Read)
    }
}
