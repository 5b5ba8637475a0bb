//! Calls that a model must make, and answers in a form beside tools: Ollama's `format` holds the model to JSON that is one or the other,
//! and what it then says is read back into a call or an answer. Pure.
//!
//! Of `tools` and `format` together Ollama obeys `format` alone (recorded: tools/with-format), so one schema has to say both:
//! `{"name": …, "arguments": …}` for a call of each tool, `{"answer": …}` for an answer.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::{
    Value, json,
    value::{RawValue, to_raw_value},
};

use super::Tool;
use crate::{error::Error, openai::tools::choice::Mode, receipt::Receipt};

/// What the model's words must be read as.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Form {
    /// Words.
    #[default]
    Free,
    /// A call of one of these tools.
    Call(Vec<String>),
    /// A call of one of these tools, or an answer.
    CallOrAnswer(Vec<String>),
}

/// What the model has said.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// A call; the arguments are the text of a JSON object, keys in the model's order.
    Call { name: String, arguments: String },
    /// The answer itself.
    Answer(String),
}

impl Form {
    /// What a model must be held to that is offered `tools`. Its words are free unless it must make a call, or is to answer in a form of its
    /// own beside tools.
    pub(crate) fn of(tools: &[Tool<'_>], choice: Mode, formatted: bool) -> Self {
        let names = || {
            let functions = tools.iter().filter_map(|tool| tool.function.as_ref());
            functions.map(|function| function.name.to_string()).collect()
        };
        match choice {
            _ if tools.is_empty() => Self::Free,
            Mode::Required => Self::Call(names()),
            Mode::Auto | Mode::None if formatted => Self::CallOrAnswer(names()),
            Mode::Auto | Mode::None => Self::Free,
        }
    }

    /// What the words of a model that is held to this stand for. `None`: they were cut off before they meant anything.
    /// `format` is the field that asks for a form.
    ///
    /// # Errors
    /// There is no call where one must be made.
    pub(crate) fn said(
        &self,
        text: &str,
        done_reason: Option<&str>,
        format: &str,
        receipt: &mut Receipt,
    ) -> Result<Option<Said>, Error> {
        match (self.read(text), self) {
            (Some(said), _) => Ok(Some(said)),
            (None, _) if done_reason == Some("length") => Ok(None),
            (None, Self::Free | Self::CallOrAnswer(_)) => {
                receipt.note(format, "not-obeyed");
                Ok(Some(Said::Answer(text.to_owned())))
            }
            (None, Self::Call(_)) => Err(Error::unsupported(
                "tool_choice",
                "The model made no call, though 'tool_choice' asks for one and its answer was constrained to one by 'format': \
                 this model, or this version of Ollama, does not obey 'format'. Use tool_choice 'auto', or another model.",
            )),
        }
    }

    /// Reads what the model has said, once it is whole. `None`: it is neither a call of a tool that may be called nor an answer.
    pub(crate) fn read(&self, text: &str) -> Option<Said> {
        #[derive(Deserialize)]
        struct Spoken<'a> {
            #[serde(borrow, default)]
            name: Option<Cow<'a, str>>,
            #[serde(borrow, default)]
            arguments: Option<&'a RawValue>,
            #[serde(borrow, default)]
            answer: Option<&'a RawValue>,
        }
        let (names, answers) = match self {
            Self::Free => return Some(Said::Answer(text.to_owned())),
            Self::Call(names) => (names, false),
            Self::CallOrAnswer(names) => (names, true),
        };
        let spoken: Spoken<'_> = serde_json::from_str(text).ok()?;
        match (spoken.name, spoken.arguments, spoken.answer) {
            (Some(name), Some(arguments), _) if arguments.get().starts_with('{') => {
                let name = names.iter().find(|known| **known == *name)?;
                Some(Said::Call { name: name.clone(), arguments: arguments.get().to_owned() })
            }
            (None, _, Some(answer)) if answers => Some(Said::Answer(answer.get().to_owned())),
            _ => None,
        }
    }
}

/// `format` that allows calls of `tools`, and `answer` if there is one.
///
/// # Errors
/// None that readable schemas can cause.
pub(crate) fn format(tools: &[Tool<'_>], answer: Option<&RawValue>) -> Result<Box<RawValue>, Error> {
    let mut definitions = serde_json::Map::new();
    let mut forms = Vec::with_capacity(tools.len() + 1);
    for (n, function) in tools.iter().filter_map(|tool| tool.function.as_ref()).enumerate() {
        let mut parameters = schema(function.parameters)?;
        if let Value::Object(parameters) = &mut parameters
            && !["type", "$ref", "anyOf", "oneOf", "allOf"].iter().any(|key| parameters.contains_key(*key))
        {
            parameters.insert("type".to_owned(), "object".into());
        }
        let arguments = placed(parameters, &format!("tool{n}"), &mut definitions);
        forms.push(form(&[("name", json!({ "const": &*function.name })), ("arguments", arguments)]));
    }
    if let Some(answer) = answer {
        let answer = placed(schema(Some(answer))?, "answer", &mut definitions);
        forms.push(form(&[("answer", answer)]));
    }
    let mut root = if forms.len() == 1 { forms.remove(0) } else { json!({ "anyOf": forms }) };
    if !definitions.is_empty() {
        root["$defs"] = definitions.into();
    }
    to_raw_value(&root).map_err(|error| Error::Internal { message: error.to_string() })
}

fn schema(raw: Option<&RawValue>) -> Result<Value, Error> {
    let raw = raw.map_or("null", RawValue::get);
    let value: Value = serde_json::from_str(raw).map_err(|error| Error::Internal { message: error.to_string() })?;
    // A function without parameters has an empty object of them.
    Ok(if value.is_null() { json!({"type": "object", "properties": {}}) } else { value })
}

/// An object of exactly these keys, in this order.
fn form(keys: &[(&str, Value)]) -> Value {
    let properties: serde_json::Map<_, _> = keys.iter().map(|(key, part)| ((*key).to_owned(), part.clone())).collect();
    let required: Vec<&str> = keys.iter().map(|(key, _)| *key).collect();
    json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
}

/// A schema where it stands in a bigger one. References start at the root, so one that has any moves to `$defs` under `name`.
fn placed(mut schema: Value, name: &str, definitions: &mut serde_json::Map<String, Value>) -> Value {
    if !refers(&mut schema, &format!("#/$defs/{name}")) {
        return schema;
    }
    definitions.insert(name.to_owned(), schema);
    json!({ "$ref": format!("#/$defs/{name}") })
}

/// Makes references start at `root`; whether there were any.
fn refers(schema: &mut Value, root: &str) -> bool {
    match schema {
        Value::Object(map) => {
            let mut found = false;
            for (key, part) in map {
                match part {
                    Value::String(target) if key == "$ref" && target.starts_with('#') => {
                        *target = format!("{root}{}", &target[1..]);
                        found = true;
                    }
                    part => found |= refers(part, root),
                }
            }
            found
        }
        Value::Array(parts) => {
            let mut found = false;
            for part in parts {
                found |= refers(part, root);
            }
            found
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tools(json: &str) -> Vec<Tool<'_>> {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn references_of_each_schema_still_lead_to_their_own_definitions() {
        let both = tools(
            r##"[{"type":"function","function":{"name":"f","parameters":{"type":"object","properties":{"a":{"$ref":"#/$defs/A"}},"$defs":{"A":{"type":"string"}}}}},
                {"type":"function","function":{"name":"g","parameters":{"type":"object","properties":{"a":{"$ref":"#"}}}}}]"##,
        );
        let format: Value = serde_json::from_str(format(&both, None).unwrap().get()).unwrap();
        let arguments =
            |n: usize| format["anyOf"][n]["properties"]["arguments"]["$ref"].as_str().unwrap()[1..].to_owned();
        assert_eq!(format.pointer(&arguments(0)).unwrap()["properties"]["a"]["$ref"], "#/$defs/tool0/$defs/A");
        assert_eq!(format.pointer("/$defs/tool0/$defs/A").unwrap()["type"], "string");
        assert_eq!(format.pointer(&arguments(1)).unwrap()["properties"]["a"]["$ref"], "#/$defs/tool1");
    }

    #[test]
    fn one_tool_without_parameters_is_an_empty_object_of_arguments() {
        let one = tools(r#"[{"type":"function","function":{"name":"f"}}]"#);
        let expected = json!({"type": "object", "properties": {"name": {"const": "f"}, "arguments": {"type": "object", "properties": {}}},
            "required": ["name", "arguments"], "additionalProperties": false});
        assert_eq!(serde_json::from_str::<Value>(format(&one, None).unwrap().get()).unwrap(), expected);
    }

    #[test]
    fn only_a_call_of_a_tool_that_may_be_called_is_one() {
        let call = Form::Call(vec!["f".to_owned()]);
        let said = |form: &Form, text: &str| form.read(text);
        let read = Said::Call { name: "f".to_owned(), arguments: r#"{"b": 1.0,"a":2}"#.to_owned() };
        assert_eq!(said(&call, r#" {"name":"f", "arguments":{"b": 1.0,"a":2}}"#), Some(read));
        for text in [
            r#"{"name":"g","arguments":{}}"#,
            r#"{"name":"f","arguments":"x"}"#,
            r#"{"name":"f","argu"#,
            "f",
            r#"{"answer":1}"#,
        ] {
            assert_eq!(said(&call, text), None, "{text}");
        }
        let either = Form::CallOrAnswer(vec!["f".to_owned()]);
        assert_eq!(said(&either, r#"{"answer":{"b":1,"a":2}}"#), Some(Said::Answer(r#"{"b":1,"a":2}"#.to_owned())));
    }
}
