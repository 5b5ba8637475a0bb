//! How much a model remembers: what is asked for, and how far it has grown for prompts that did not fit.
//!
//! Ollama silently truncates a prompt that is too long, unless the request says not to (`truncate: false`, obeyed from
//! 0.13.5 on). `shift` is left alone: it is a setting of the loaded model, and changing it loads the model anew.

use std::{
    borrow::Cow,
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use serde_json::value::RawValue;

use crate::{
    config::{Config, Overflow, Preset},
    ollama::name,
    openai::request::options::{Native, raw},
    receipt::Receipt,
};

/// Tokens that are kept free for an answer that has no limit of its own, or a higher one.
const ANSWER: u64 = 4096;

/// What is asked of Ollama where the client says nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Policy {
    /// What becomes of a prompt that does not fit.
    pub(crate) overflow: Overflow,
    /// Tokens; `None` leaves it to the remote.
    pub(crate) num_ctx: Option<u64>,
}

impl Policy {
    /// What the settings say for `model`, and how far it has grown, which the receipt says. A client that names a size
    /// gets that.
    pub(crate) fn of(
        config: &Config,
        preset: Option<&Preset>,
        grown: Option<u64>,
        model: &str,
        native: &Native<'_>,
        receipt: &mut Receipt,
    ) -> Self {
        let context = &config.context;
        let grown = grown.filter(|_| !sized(native));
        if let Some(tokens) = grown {
            receipt.note("num_ctx", format!("raised:{tokens}"));
        }
        let num_ctx = preset.and_then(|preset| preset.num_ctx).unwrap_or(context.num_ctx);
        let own = context.overflow_by_model.iter().find(|(name, _)| name::full(name) == name::full(model));
        Self {
            overflow: own.map_or(context.overflow, |(_, overflow)| *overflow),
            num_ctx: grown.max(Some(num_ctx)).filter(|tokens| *tokens > 0),
        }
    }

    /// Whether the context may grow: the client asks for no size itself, and neither request nor settings allow
    /// truncation.
    pub(crate) fn may_grow(&self, native: &Native<'_>) -> bool {
        !sized(native) && native.truncate.is_none() && self.overflow == Overflow::Refuse
    }

    /// Adds what the client has not said; gives `truncate`.
    pub(crate) fn apply<'a>(&self, native: &mut Native<'a>) -> Cow<'a, RawValue> {
        if let Some(tokens) = self.num_ctx
            && !sized(native)
        {
            native.options.set("num_ctx", Cow::Owned(raw(&tokens)));
        }
        match native.truncate {
            Some(given) => Cow::Borrowed(given),
            None if self.overflow == Overflow::Truncate => Cow::Borrowed(RawValue::TRUE),
            None => Cow::Borrowed(RawValue::FALSE),
        }
    }
}

fn sized(native: &Native<'_>) -> bool {
    native.options.get("num_ctx").is_some()
}

/// The context that holds `prompt` tokens and an answer of `limit` tokens: a power of two, `cap` at most. `None`: `cap`
/// does not hold it.
pub(crate) fn size(prompt: u64, limit: Option<u64>, cap: u64) -> Option<u64> {
    let wanted = prompt.saturating_add(limit.map_or(ANSWER, |limit| limit.min(ANSWER)));
    let size = wanted.checked_next_power_of_two().unwrap_or(cap).min(cap);
    (size > prompt).then_some(size)
}

/// How far the contexts of one remote's models have grown, and who is at it.
#[derive(Debug, Default)]
pub(crate) struct Grown(Mutex<Models>);

#[derive(Debug, Default)]
struct Models {
    remote: String,
    max: u64,
    growth: HashMap<String, Growth>,
}

#[derive(Clone, Debug, Default)]
struct Growth {
    tokens: u64,
    /// Held by the one request that makes it grow.
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Grown {
    /// From now on it is about `remote`, whose contexts may grow to `max`. What is known of another machine's models is
    /// forgotten.
    pub(crate) fn belongs_to(&self, remote: &str, max: u64) {
        let mut models = self.models();
        if models.remote != remote {
            *models = Models { remote: remote.to_owned(), ..Models::default() };
        }
        models.max = max;
    }

    /// How far it has grown.
    pub(crate) fn of(&self, model: &str) -> Option<u64> {
        let models = self.models();
        models.growth.get(&*name::full(model)).map(|growth| growth.tokens.min(models.max)).filter(|tokens| *tokens > 0)
    }

    /// The holder of this may make `model` grow.
    pub(crate) async fn turn(&self, model: &str) -> tokio::sync::OwnedMutexGuard<()> {
        let turn = self.models().growth.entry(name::full(model).into_owned()).or_default().turn.clone();
        turn.lock_owned().await
    }

    /// It has grown.
    pub(crate) fn remember(&self, model: &str, tokens: u64) {
        self.models().growth.entry(name::full(model).into_owned()).or_default().tokens = tokens;
    }

    fn models(&self) -> std::sync::MutexGuard<'_, Models> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_grows_to_a_power_of_two_that_holds_prompt_and_answer() {
        assert_eq!(size(20_000, None, 65_536), Some(32_768));
        assert_eq!(size(20_000, Some(32_000), 65_536), Some(32_768), "a limit alone never asks for more");
        assert_eq!(size(4_000, Some(50), 65_536), Some(4_096));
        assert_eq!(size(30_000, None, 32_768), Some(32_768));
        assert_eq!(size(32_768, None, 32_768), None);
        assert_eq!(size(u64::MAX, None, 32_768), None);
    }

    #[test]
    fn a_model_without_a_tag_is_its_latest() {
        let mut config = Config::default();
        config.context.overflow_by_model = vec![("llama3.2".to_owned(), Overflow::Truncate)];
        let overflow =
            |model| Policy::of(&config, None, None, model, &Native::default(), &mut Receipt::default()).overflow;
        assert_eq!(overflow("llama3.2:latest"), Overflow::Truncate);
        assert_eq!(overflow("llama3.2:1b"), Overflow::Refuse);
    }
}
