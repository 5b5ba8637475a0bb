//! The corpus of malformed calls.

use anyhow::Context;
use serde::Deserialize;
use serde_json::Value;

const CORPUS: &str = include_str!(env!("FARLLAMA_CHECK_TOOL_CALLS"));

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Corpus {
    pub(super) tools: Vec<Value>,
    pub(super) cases: Vec<Case>,
}

/// An answer of a model.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Case {
    pub(super) id: String,
    /// The call that Ollama reports, or
    #[serde(default)]
    pub(super) call: Option<Wanted>,
    /// the text that the model wrote.
    #[serde(default)]
    pub(super) text: Option<String>,
    #[serde(default)]
    pub(super) done_reason: Option<String>,
    /// The calls that a client should get.
    #[serde(default)]
    pub(super) right: Vec<Wanted>,
    /// Nothing is certain, so nothing should be changed.
    #[serde(default)]
    pub(super) leave: bool,
}

/// A call.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Wanted {
    pub(super) name: String,
    pub(super) arguments: Value,
}

impl PartialEq for Wanted {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && same(&self.arguments, &other.arguments)
    }
}

/// Whether two values are the same; 1 and 1.0 are.
fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one == other || one.as_f64() == other.as_f64(),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one.iter().all(|(name, one)| other.get(name).is_some_and(|other| same(one, other)))
        }
        (one, other) => one == other,
    }
}

impl Corpus {
    pub(super) fn read() -> anyhow::Result<Self> {
        serde_json::from_str(CORPUS).context("the corpus of tool calls")
    }
}
