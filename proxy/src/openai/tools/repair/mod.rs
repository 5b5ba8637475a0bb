//! Calls that hold: names and arguments of a model's calls, repaired to the tools that were offered. Pure.
//!
//! [`Repairs::new`] takes the tools of a request, [`Repairs::fix`] a call of the answer before it is written; every
//! endpoint with tools calls these two. Calls that a model wrote as text are found by [`rescue`](super::rescue).
//!
//! A request without tools pays nothing. With tools, their schemas are copied; a schema is parsed when its tool is
//! called, and compiled only if it has keywords that [`schema::Checker`] does not judge by itself.

pub(crate) mod arguments;
pub(super) mod literal;
mod names;
mod schema;
#[cfg(test)]
mod tests;

use std::{
    borrow::Cow,
    fmt,
    sync::{Arc, OnceLock},
};

use arguments::{Change, Mended, Mender, keeps_numbers};
use jsonschema::{PatternOptions, Validator};
use schema::{Checker, Fit};
use serde_json::{Value, value::RawValue};

use super::{CalledFunction, Function, Tool, forced};
use crate::{
    config,
    error::Error,
    openai::request::json::Text,
    receipt::{Call, Receipt},
};

/// Longest schema that calls are checked against, in bytes: the tools of coding agents have up to 10 KB.
const LONGEST_SCHEMA: usize = 64 << 10;

/// Longest arguments that are checked, in bytes: a tool that writes a file gets all of it.
const LONGEST_ARGUMENTS: usize = 4 << 20;

/// Most changes of one call that are listed one by one.
const LISTED: usize = 8;

/// Largest regular expression of a schema, compiled.
const PATTERN: usize = 1 << 20;

/// What the calls of an answer are checked against. Cheap to clone; empty where nothing is checked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Repairs(Option<Arc<Offer>>);

/// The tools of a request, and what is done for their calls.
#[derive(Debug)]
pub(super) struct Offer {
    repair: bool,
    rescue: bool,
    reask: bool,
    tools: Vec<Offered>,
}

/// A tool on offer.
#[derive(Debug)]
struct Offered {
    name: String,
    /// The schema as JSON text; empty if there is none.
    parameters: Box<str>,
    strict: bool,
    schema: OnceLock<Option<Schema>>,
}

/// A schema that was parsed.
struct Schema {
    value: Value,
    compiled: OnceLock<Option<Validator>>,
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

/// What became of arguments.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// They fit unchanged.
    Fits,
    /// As JSON text, and what was changed.
    Repaired(String, Vec<Change>),
    /// They do not fit, and no single repair makes them.
    Misfit,
    /// The schema takes too much work, or cannot be judged by.
    Unchecked,
    /// They are no JSON: the answer was cut off in the middle of them.
    Cut,
}

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Fits,
    Repaired,
    /// Its arguments do not fit.
    Misfit,
    /// No tool is called so.
    Unknown,
    Unchecked,
}

impl Schema {
    fn parse(json: &str) -> Option<Self> {
        let value = serde_json::from_str(json).ok()?;
        Some(Self { value, compiled: OnceLock::new() })
    }

    /// Whether the crate finds that `value` fits; `None` if the schema cannot be compiled.
    fn judge(&self, value: &Value) -> Option<bool> {
        let compile = || {
            jsonschema::options()
                .should_validate_formats(false)
                .with_pattern_options(PatternOptions::regex().size_limit(PATTERN).dfa_size_limit(PATTERN))
                .offline()
                .build(&self.value)
                .ok()
        };
        Some(self.compiled.get_or_init(compile).as_ref()?.is_valid(value))
    }

    /// Repairs arguments, given as JSON text.
    fn repair(&self, json: &str) -> Outcome {
        let Ok(value) = serde_json::from_str::<Value>(json) else { return Outcome::Cut };
        let checker = Checker::new(&self.value);
        let mut fit = checker.fit(&self.value, &value);
        if checker.gave_up() {
            return Outcome::Unchecked;
        }
        if fit == Fit::Unsure {
            match self.judge(&value) {
                Some(fits) => fit = if fits { Fit::Yes } else { Fit::No },
                None => return Outcome::Unchecked,
            }
        }
        if fit == Fit::Yes {
            return Outcome::Fits;
        }
        let Mended::One(mended, changes) = Mender::new(&checker).mend(&self.value, &value, "", 0) else {
            return Outcome::Misfit;
        };
        let fits = match checker.fit(&self.value, &mended) {
            Fit::Yes => true,
            Fit::No => false,
            Fit::Unsure => self.judge(&mended) == Some(true),
        };
        // Text that is written anew must say the same.
        if !fits || checker.gave_up() || !mended.is_object() || !keeps_numbers(json) {
            return Outcome::Misfit;
        }
        match serde_json::to_string(&mended) {
            Ok(json) => Outcome::Repaired(json, changes),
            Err(_) => Outcome::Misfit,
        }
    }
}

impl Offered {
    fn repair(&self, json: &str) -> Outcome {
        if self.parameters.is_empty() {
            return Outcome::Fits;
        }
        if json.len() > LONGEST_ARGUMENTS {
            return Outcome::Unchecked;
        }
        self.schema().map_or(Outcome::Unchecked, |schema| schema.repair(json))
    }

    /// The schema, if it can be read.
    fn schema(&self) -> Option<&Schema> {
        let parse = || (self.parameters.len() <= LONGEST_SCHEMA).then(|| Schema::parse(&self.parameters)).flatten();
        self.schema.get_or_init(parse).as_ref()
    }
}

impl Offer {
    /// Whether calls are looked for in text.
    pub(super) fn rescues(&self) -> bool {
        self.rescue
    }

    fn nth(&self, said: &str) -> Option<usize> {
        names::resolve(said, &self.tools.iter().map(|tool| tool.name.as_str()))
    }

    /// The name of the tool that `said` means in a text. A namespace that no tool has, and that is none of those that
    /// models add, is not looked through: text that comes in pieces was passed on before its separator.
    pub(super) fn resolve(&self, said: &str) -> Option<&str> {
        let nth = self.nth(said).filter(|_| self.may_become(said))?;
        Some(&self.tools[nth].name)
    }

    /// Whether a name that begins so may mean a tool.
    pub(super) fn may_become(&self, begun: &str) -> bool {
        names::may_become(begun, &self.tools.iter().map(|tool| tool.name.as_str()))
    }

    /// The only property that a tool takes, if it takes one.
    pub(super) fn only_property(&self, name: &str) -> Option<String> {
        let schema = self.tools[self.nth(name)?].schema()?;
        let mut properties = schema.value.get("properties")?.as_object()?.keys();
        properties.next().filter(|_| properties.next().is_none()).cloned()
    }

    /// Reads the values of a call that were written without types, by the schema of its tool.
    pub(super) fn read_types(&self, call: &mut forced::Call) {
        if let Some(Outcome::Repaired(json, _)) =
            self.nth(&call.name).map(|nth| self.tools[nth].repair(&call.arguments))
        {
            call.arguments = json;
        }
    }

    /// Whether a call fits, if need be after a repair.
    pub(super) fn fits(&self, call: &forced::Call) -> bool {
        let outcome = self.nth(&call.name).map(|nth| self.tools[nth].repair(&call.arguments));
        matches!(outcome, Some(Outcome::Fits | Outcome::Repaired(..)))
    }
}

impl Repairs {
    /// The tools, where anything is done for their calls.
    pub(super) fn offer(&self) -> Option<&Arc<Offer>> {
        self.0.as_ref()
    }

    /// Checks calls of `tools` as the settings say. The schemas are copied.
    pub(crate) fn new(tools: &[Tool<'_>], settings: &config::Tools) -> Self {
        let (repair, rescue) = (settings.repair == config::Repair::Auto, settings.rescue == config::Repair::Auto);
        if tools.is_empty() || !repair && !rescue {
            return Self::default();
        }
        let offered = tools.iter().filter_map(|tool| tool.function.as_ref()).map(|function| Offered {
            name: function.name.to_string(),
            parameters: function.parameters.as_ref().map_or("", |raw| raw.get()).into(),
            strict: function.strict == Some(true),
            schema: OnceLock::new(),
        });
        Self(Some(Arc::new(Offer { repair, rescue, reask: settings.reask, tools: offered.collect() })))
    }

    /// The same, if the model may be asked again for a call that does not fit: the settings say so, or a tool is
    /// strict.
    pub(crate) fn for_asking_again(&self) -> Self {
        let asks = |offer: &&Arc<Offer>| offer.repair && (offer.reask || offer.tools.iter().any(|tool| tool.strict));
        Self(self.0.as_ref().filter(asks).cloned())
    }

    /// Whether there are no tools whose calls are checked or looked for.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// The number of the tool, if a call does not fit and the model is to be asked for it again.
    pub(crate) fn to_ask_again(&self, name: &str, arguments: &str) -> Option<usize> {
        let offer = self.0.as_ref()?;
        let nth = offer.nth(name)?;
        let tool = &offer.tools[nth];
        ((offer.reask || tool.strict) && matches!(tool.repair(arguments), Outcome::Misfit)).then_some(nth)
    }

    /// The name of a tool, and the format that forces one call of it.
    ///
    /// # Errors
    /// None that readable schemas can cause.
    pub(crate) fn forced_call(&self, nth: usize) -> Result<(String, Box<RawValue>), Error> {
        let internal = |error: serde_json::Error| Error::Internal { message: error.to_string() };
        let tool = self.0.as_ref().and_then(|offer| offer.tools.get(nth));
        let tool = tool.ok_or_else(|| Error::Internal { message: "a tool is missing".to_owned() })?;
        let parameters = (!tool.parameters.is_empty()).then(|| RawValue::from_string(tool.parameters.to_string()));
        let function = Function {
            name: Text(tool.name.as_str().into()),
            description: None,
            parameters: parameters.transpose().map_err(internal)?.map(Cow::Owned),
            strict: None,
        };
        let format = forced::format(&[Tool::from(function)], None, 1, &mut Receipt::default())?;
        Ok((tool.name.clone(), format))
    }

    /// Arguments that fit, if need be after a repair.
    pub(crate) fn fitting(&self, nth: usize, arguments: &str) -> Option<String> {
        match self.0.as_ref()?.tools.get(nth)?.repair(arguments) {
            Outcome::Fits => Some(arguments.to_owned()),
            Outcome::Repaired(json, _) => Some(json),
            _ => None,
        }
    }

    /// Whether calls are checked.
    pub(crate) fn checks(&self) -> bool {
        self.0.as_ref().is_some_and(|offer| offer.repair)
    }

    /// Repairs the name and the arguments of a call, and notes what was changed, and what does not hold.
    pub(crate) fn fix(&self, call: &mut CalledFunction<'_>, receipt: &mut Receipt) -> Verdict {
        let Some(offer) = self.0.as_ref().filter(|offer| offer.repair) else { return Verdict::Unchecked };
        let Some(nth) = offer.nth(&call.name) else {
            receipt.note(&format!("tools.{}", call.name), "unknown-tool");
            receipt.count(Call::Unknown);
            return Verdict::Unknown;
        };
        let tool = &offer.tools[nth];
        let renamed = tool.name != *call.name;
        if renamed {
            receipt.note(&format!("tools.{}", tool.name), "renamed");
            call.name = Cow::Owned(tool.name.clone());
        }
        match tool.repair(&call.arguments) {
            Outcome::Fits if renamed => {
                receipt.count(Call::Repaired);
                Verdict::Repaired
            }
            Outcome::Fits => {
                receipt.count(Call::Fits);
                Verdict::Fits
            }
            Outcome::Repaired(json, changes) => {
                for Change { path, what } in changes.iter().take(LISTED) {
                    let dot = if path.is_empty() || path.starts_with('[') { "" } else { "." };
                    receipt.note(&format!("tools.{}{dot}{path}", tool.name), what.as_str());
                }
                call.arguments = Cow::Owned(json);
                receipt.count(Call::Repaired);
                Verdict::Repaired
            }
            Outcome::Misfit => {
                let what = if tool.strict { "not-obeyed" } else { "does-not-fit" };
                receipt.note(&format!("tools.{}", tool.name), what);
                receipt.count(Call::Misfit);
                Verdict::Misfit
            }
            Outcome::Unchecked => {
                receipt.note(&format!("tools.{}", tool.name), "not-checked");
                Verdict::Unchecked
            }
            Outcome::Cut => Verdict::Unchecked,
        }
    }
}
