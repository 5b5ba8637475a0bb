//! What the mock does instead of its faithful responses: rules of *when* and *reply*, from YAML, JSON or Rust.
//!
//! ```yaml
//! - when: { path: /api/chat, model: llama3.2, body: { /stream: true }, nth: 2 }   # each absent condition is met
//!   times: 1                       # how often the rule applies; absent: always
//!   reply:
//!     delay: 2s                    # before the head
//!     lines:                       # one HTTP chunk each; what Ollama always sends is filled in, `key: null` leaves a key out
//!       - { message: { content: "Hel" } }
//!       - raw: "{\"broken"         # sent as it is, without a newline
//!     pause: 50ms                  # between lines; here and in `delay`, { seen: 10s } waits until the client has seen something
//!                                  # more, but not longer than that (in process only: the client must report it)
//!     then: cut                    # end · cut · reset · stall · kill (the process that runs the model)
//! ```
//! Instead of `lines`: `body` (JSON or text, with `Content-Length`), `bytes: N` (so many of them), `says: "…"` (the
//! model's words; the mock answers with them as Ollama would, thinking and tool calls separated), or `faithful: true`,
//! with `after: N` lines kept before `then`. An item `models: ["NAME=tools,thinking", …]` adds models instead; `chaos:
//! "seed=7,cut=0.01"` makes every response misbehave at random (see [`Chaos`]); `published:
//! ["127.0.0.1:5000/me/mine=tools"]` plays transfers with that host, where otherwise a registry is asked. The first
//! rule that matches wins; where none does, the answer is faithful.

mod play;
mod reply;
mod wait;
mod when;

use serde::Deserialize;
use serde_json::Value;

pub(crate) use self::play::{Playing, killed};
pub(crate) use self::when::model_of;
pub use self::{
    reply::{Content, Line, Reply, Then},
    wait::Wait,
    when::{BodyIs, When},
};
use crate::{chaos::Chaos, models::Model};

/// Rules in the order in which they are tried. The default has none: every answer is faithful.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(try_from = "Vec<Item>")]
pub struct Script {
    /// The rules.
    pub rules: Vec<Rule>,
    /// Models that the mock has besides those of its options.
    pub models: Vec<Model>,
    /// Seeded misbehavior of every response, faithful ones included.
    pub chaos: Option<Chaos>,
    /// Models that registries hold: pulls from their hosts and pushes to them are played, without a registry.
    pub published: Vec<Model>,
}

/// One rule.
#[derive(Clone, Debug, Default)]
pub struct Rule {
    /// Which requests it is for.
    pub when: When,
    /// How often it applies; absent: always.
    pub times: Option<u64>,
    /// What is answered.
    pub reply: Reply,
}

/// An item of a file: a rule, models, or chaos.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Item {
    models: Option<Vec<Model>>,
    chaos: Option<Chaos>,
    published: Option<Vec<Model>>,
    when: Option<When>,
    times: Option<u64>,
    reply: Option<Reply>,
}

impl TryFrom<Vec<Item>> for Script {
    type Error = &'static str;

    fn try_from(items: Vec<Item>) -> Result<Self, Self::Error> {
        let mut script = Self::default();
        for Item { models, chaos, published, when, times, reply } in items {
            let is_setting = models.is_some() || chaos.is_some() || published.is_some();
            let is_rule = when.is_some() || times.is_some() || reply.is_some();
            if is_rule && is_setting {
                return Err(
                    "an item of a script is a rule, or it has models, published models or chaos: write two items",
                );
            }
            if !is_setting {
                script.rules.push(Rule { when: when.unwrap_or_default(), times, reply: reply.unwrap_or_default() });
            }
            script.models.extend(models.unwrap_or_default());
            script.published.extend(published.unwrap_or_default());
            script.chaos = chaos.or(script.chaos);
        }
        Ok(script)
    }
}

/// Writes scripts in tests: `Script::on("/api/chat").lines([json!({…})]).then(Then::Cut)`. Each call changes the last
/// rule.
impl Script {
    /// One rule for a path, without a query; its answer is faithful until another call says otherwise.
    #[must_use]
    pub fn on(path: &str) -> Self {
        let when = When { path: Some(path.to_owned()), ..When::default() };
        Self { rules: vec![Rule { when, ..Rule::default() }], ..Self::default() }
    }

    /// One rule for every request.
    #[must_use]
    pub fn always() -> Self {
        Self { rules: vec![Rule::default()], ..Self::default() }
    }

    /// These rules, then those of the other.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.rules.extend(other.rules);
        self.models.extend(other.models);
        self.published.extend(other.published);
        self.chaos = other.chaos.or(self.chaos);
        self
    }

    /// No rule: every answer is faithful, and misbehaves as the chaos says.
    #[must_use]
    pub fn chaos(chaos: Chaos) -> Self {
        Self { chaos: Some(chaos), ..Self::default() }
    }

    fn change(mut self, change: impl FnOnce(&mut Rule)) -> Self {
        if self.rules.is_empty() {
            self.rules.push(Rule::default());
        }
        if let Some(rule) = self.rules.last_mut() {
            change(rule);
        }
        self
    }

    /// Only for this method.
    #[must_use]
    pub fn method(self, method: &str) -> Self {
        self.change(|rule| rule.when.method = Some(method.to_owned()))
    }

    /// Only for this model: the `model` or `name` of the body.
    #[must_use]
    pub fn model(self, model: &str) -> Self {
        self.change(|rule| rule.when.model = Some(model.to_owned()))
    }

    /// Only where the body contains the text.
    #[must_use]
    pub fn containing(self, text: &str) -> Self {
        self.change(|rule| rule.when.body = Some(BodyIs::Containing(text.to_owned())))
    }

    /// Only for the nth (from 1) of the requests that meet the other conditions.
    #[must_use]
    pub fn nth(self, nth: u64) -> Self {
        self.change(|rule| rule.when.nth = Some(nth))
    }

    /// At most so often.
    #[must_use]
    pub fn times(self, times: u64) -> Self {
        self.change(|rule| rule.times = Some(times))
    }

    /// Waits before the head is sent.
    #[must_use]
    pub fn delay(self, delay: impl Into<Wait>) -> Self {
        self.change(|rule| rule.reply.delay = delay.into())
    }

    /// Answers with this status; without a content, with nothing else.
    #[must_use]
    pub fn status(self, status: u16) -> Self {
        self.change(|rule| {
            rule.reply.status = Some(status);
            if rule.reply.content == Content::Faithful && rule.reply.after.is_none() {
                rule.reply.content = Content::Nothing;
            }
        })
    }

    /// Adds or replaces a header.
    #[must_use]
    pub fn header(self, name: &str, value: &str) -> Self {
        self.change(|rule| {
            rule.reply.headers.insert(name.to_owned(), value.to_owned());
        })
    }

    /// Answers with NDJSON, one chunk a line; see [`Line`] for what is filled in.
    #[must_use]
    pub fn lines(self, lines: impl IntoIterator<Item = impl Into<Line>>) -> Self {
        self.change(|rule| rule.reply.content = Content::Lines(lines.into_iter().map(Into::into).collect()))
    }

    /// Answers with one body: text as it is, anything else as JSON.
    #[must_use]
    pub fn body(self, body: impl Into<Value>) -> Self {
        self.change(|rule| rule.reply.content = Content::Body(body.into()))
    }

    /// Answers with so many bytes.
    #[must_use]
    pub fn bytes(self, bytes: u64) -> Self {
        self.change(|rule| rule.reply.content = Content::Bytes(bytes))
    }

    /// The model writes this, and the mock answers with it as Ollama would.
    #[must_use]
    pub fn says(self, words: &str) -> Self {
        self.change(|rule| rule.reply.content = Content::Says(words.to_owned()))
    }

    /// Keeps so many lines (or one body) of a faithful answer before [`Script::then`].
    #[must_use]
    pub fn after(self, lines: u64) -> Self {
        self.change(|rule| rule.reply.after = Some(lines))
    }

    /// Waits between lines.
    #[must_use]
    pub fn pause(self, pause: impl Into<Wait>) -> Self {
        self.change(|rule| rule.reply.pause = pause.into())
    }

    /// What happens after the lines.
    #[must_use]
    pub fn then(self, then: Then) -> Self {
        self.change(|rule| rule.reply.then = then)
    }
}
