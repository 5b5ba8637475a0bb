//! The conditions of a rule.

use serde::{Deserialize, Deserializer, de::Error};
use serde_json::{Map, Value};

use crate::server::request::Asked;

/// Conditions on a request; an absent one is met.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct When {
    /// Such as `POST`, in any case.
    pub method: Option<String>,
    /// The path as it came, without the query.
    pub path: Option<String>,
    /// The `model` or `name` of the body.
    pub model: Option<String>,
    /// What the body is like.
    pub body: Option<BodyIs>,
    /// Only the nth (from 1) of the requests that meet the other conditions.
    pub nth: Option<u64>,
}

/// A condition on the body.
#[derive(Clone, Debug)]
pub enum BodyIs {
    /// The text stands in it.
    Containing(String),
    /// JSON with these values: JSON pointer (`/options/seed`) → value; null is also met by absence.
    Json(Map<String, Value>),
}

impl<'de> Deserialize<'de> for BodyIs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(text) => Ok(Self::Containing(text)),
            Value::Object(values) => match values.keys().find(|pointer| !pointer.starts_with('/')) {
                Some(wrong) => {
                    Err(D::Error::custom(format!("{wrong:?} is not a JSON pointer: it must start with a slash")))
                }
                None => Ok(Self::Json(values)),
            },
            _ => Err(D::Error::custom("`body` is a text that the body contains, or a map of JSON pointer to value")),
        }
    }
}

impl When {
    /// Whether the conditions on the head are met.
    pub(super) fn may_be_met(&self, asked: &Asked) -> bool {
        self.method.as_ref().is_none_or(|method| method.eq_ignore_ascii_case(asked.method.as_str()))
            && self.path.as_ref().is_none_or(|path| *path == asked.path)
    }

    /// Whether all conditions but `nth` are met.
    pub(super) fn is_met(&self, asked: &Asked, json: Option<&Value>) -> bool {
        self.may_be_met(asked)
            && self.model.as_ref().is_none_or(|model| json.and_then(model_of) == Some(model))
            && match &self.body {
                None => true,
                Some(BodyIs::Containing(text)) => String::from_utf8_lossy(&asked.body).contains(text),
                Some(BodyIs::Json(values)) => values.iter().all(|(pointer, value)| {
                    json.and_then(|json| json.pointer(pointer)).unwrap_or(&Value::Null) == value
                }),
            }
    }
}

/// The model that a body names.
pub(crate) fn model_of(json: &Value) -> Option<&str> {
    json.get("model").or_else(|| json.get("name")).and_then(Value::as_str)
}
