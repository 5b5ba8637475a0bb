//! The parameters of a tool, as Ollama's Go types take them. Pure.
//!
//! Ollama reads a tool into typed structs, and answers 400 to valid JSON Schema that does not fit them: a property that
//! is `true`, a list of types at the top, `properties: []` as PHP writes an empty object. What means the same in
//! another form is rewritten here.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{self, IgnoredAny},
};
use serde_json::{Map, Value, json, value::RawValue};

use crate::{
    error::Error,
    openai::{request::options, schema},
};

/// Returns `raw` in a form that Ollama takes: verbatim if it is one. `at` is its place, such as
/// `tools[0].function.parameters`.
///
/// # Errors
/// Fails, with the exact place, if no such form means the same.
pub(crate) fn accepted<'a>(raw: &'a RawValue, at: impl FnOnce() -> String) -> Result<Cow<'a, RawValue>, Error> {
    // Nearly all tools fit, and an agent sends dozens on every turn: this reads without allocating.
    if serde_json::from_str::<Top>(raw.get()).is_ok() {
        return Ok(Cow::Borrowed(raw));
    }
    let at = at();
    let mut value: Value = serde_json::from_str(raw.get()).map_err(|_| Error::invalid(&*at, schema::TOO_DEEP))?;
    top(&mut value, &at)?;
    Ok(Cow::Owned(options::raw(&value)))
}

/// Rewrites the whole.
fn top(value: &mut Value, at: &str) -> Result<(), Error> {
    match value {
        Value::Null | Value::Bool(true) => *value = json!({"type": "object", "properties": {}}),
        Value::Array(list) if list.is_empty() => *value = json!({"type": "object", "properties": {}}),
        Value::Object(schema) => {
            if let Some(kind) = schema.get_mut("type") {
                // Arguments are always an object.
                match kind {
                    Value::String(_) => {}
                    Value::Null => *kind = "object".into(),
                    Value::Array(kinds) if kinds.is_empty() || kinds.iter().any(|kind| kind == "object") => {
                        *kind = "object".into();
                    }
                    other => return Err(wrong(&format!("{at}.type"), "\"object\"", other)),
                }
            }
            parts(schema, at)?;
        }
        other => return Err(wrong(at, "an object", other)),
    }
    Ok(())
}

/// Rewrites what the whole and its properties have in common.
fn parts(schema: &mut Map<String, Value>, at: &str) -> Result<(), Error> {
    let mut required = Vec::new();
    if let Some(properties) = schema.get_mut("properties") {
        let at = format!("{at}.properties");
        match properties {
            Value::Null => {}
            Value::Array(list) if list.is_empty() => *properties = json!({}),
            Value::Object(properties) => {
                // A property that must not be given is not offered.
                properties.retain(|_, property| *property != Value::Bool(false));
                for (name, property) in properties.iter_mut() {
                    if self::property(property, &format!("{at}.{name}"))? {
                        required.push(Value::from(name.as_str()));
                    }
                }
            }
            other => return Err(wrong(&at, "an object", other)),
        }
    }
    match schema.get_mut("required") {
        Some(Value::Array(names)) => {
            if let Some(other) = names.iter().find(|name| !name.is_string()) {
                return Err(wrong(&format!("{at}.required"), "an array of strings", other));
            }
            required.retain(|name| !names.contains(name));
            names.append(&mut required);
        }
        // An empty object is how PHP writes an empty list.
        Some(Value::Bool(_) | Value::Null) => drop(schema.shift_remove("required")),
        Some(Value::Object(names)) if names.is_empty() => drop(schema.shift_remove("required")),
        Some(other) => return Err(wrong(&format!("{at}.required"), "an array of strings", other)),
        None => {}
    }
    if !required.is_empty() {
        schema.insert("required".to_owned(), required.into());
    }
    Ok(())
}

/// Rewrites a property; whether it says by itself that it is required, as in JSON Schema before draft 4.
fn property(value: &mut Value, at: &str) -> Result<bool, Error> {
    match value {
        Value::Bool(_) | Value::Null => *value = json!({}),
        Value::Array(list) if list.is_empty() => *value = json!({}),
        _ => {}
    }
    let Value::Object(schema) = value else { return Err(wrong(at, "an object or a boolean", value)) };
    let required = schema.get("required") == Some(&Value::Bool(true));
    if let Some(kind) = schema.get("type") {
        let fits = match kind {
            Value::Array(kinds) => kinds.iter().all(Value::is_string),
            kind => kind.is_string() || kind.is_null(),
        };
        if !fits {
            return Err(wrong(&format!("{at}.type"), "a string or an array of strings", kind));
        }
    }
    if let Some(description) = schema.get_mut("description") {
        match description {
            Value::String(_) | Value::Null => {}
            Value::Number(_) | Value::Bool(_) => *description = description.to_string().into(),
            other => return Err(wrong(&format!("{at}.description"), "a string", other)),
        }
    }
    match schema.get("enum") {
        None | Some(Value::Array(_) | Value::Null) => {}
        Some(Value::Object(values)) if values.is_empty() => drop(schema.shift_remove("enum")),
        Some(other) => return Err(wrong(&format!("{at}.enum"), "an array", other)),
    }
    match schema.get_mut("anyOf") {
        None | Some(Value::Null) => {}
        Some(Value::Array(choices)) => {
            choices.retain(|choice| *choice != Value::Bool(false));
            for (n, choice) in choices.iter_mut().enumerate() {
                property(choice, &format!("{at}.anyOf[{n}]"))?;
            }
        }
        Some(Value::Object(choices)) if choices.is_empty() => drop(schema.shift_remove("anyOf")),
        Some(other) => return Err(wrong(&format!("{at}.anyOf"), "an array", other)),
    }
    parts(schema, at)?;
    Ok(required)
}

fn wrong(at: &str, expected: &str, value: &Value) -> Error {
    let got = match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    };
    Error::Invalid {
        message: format!("Invalid type for '{at}': expected {expected}, but got {got} instead."),
        param: Some(at.to_owned()),
        code: Some("invalid_type"),
    }
}

// What follows has the shape of Ollama's types and holds nothing: whether a schema can be read into them is all that
// matters.

#[derive(Deserialize)]
#[expect(dead_code, reason = "only whether it can be read matters")]
struct Top {
    r#type: Option<Str>,
    properties: Option<Properties>,
    required: Option<Vec<Str>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "only whether it can be read matters")]
struct Property {
    any_of: Option<Vec<Object>>,
    r#type: Option<StrOrList>,
    description: Option<Str>,
    r#enum: Option<Vec<IgnoredAny>>,
    properties: Option<Properties>,
    required: Option<Vec<Str>>,
}

struct Str;

struct StrOrList;

struct Properties;

impl<'de> Deserialize<'de> for Str {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Str;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_str<E: de::Error>(self, _: &str) -> Result<Str, E> {
                Ok(Str)
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

impl<'de> Deserialize<'de> for StrOrList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = StrOrList;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a list of strings")
            }

            fn visit_str<E: de::Error>(self, _: &str) -> Result<StrOrList, E> {
                Ok(StrOrList)
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<StrOrList, A::Error> {
                while list.next_element::<Str>()?.is_some() {}
                Ok(StrOrList)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl<'de> Deserialize<'de> for Properties {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Properties;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of properties")
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Properties, A::Error> {
                while map.next_entry::<Str, Object>()?.is_some() {}
                Ok(Properties)
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

/// A property that is an object: derived types take a list in its place as well.
struct Object;

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Object, A::Error> {
                Property::deserialize(de::value::MapAccessDeserializer::new(map)).map(|_| Object)
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(schema: &str) -> Result<String, Error> {
        let raw: &RawValue = serde_json::from_str(schema).unwrap();
        accepted(raw, || "tools[0].function.parameters".to_owned()).map(|schema| schema.get().to_owned())
    }

    #[test]
    fn what_fits_passes_verbatim() {
        for schema in [
            r#"{ "type":"object", "properties":{"a":{"type":["string","null"],"enum":[1.0,null],"x":true}},"required":["a"],"additionalProperties":false}"#,
            r#"{"$defs":{"a":true},"items":true,"properties":null}"#,
            r#"{"type":"object","properties":{"a":{"anyOf":[{"type":"string"},{"properties":{"b":{}}}],"items":false}}}"#,
        ] {
            assert_eq!(rewritten(schema).unwrap(), schema);
        }
    }

    #[test]
    fn what_means_the_same_in_another_form_is_rewritten() {
        let empty = r#"{"type":"object","properties":{}}"#;
        for (schema, expected) in [
            ("true", empty),
            ("[]", empty),
            (r#"{"type":["object","null"],"properties":[]}"#, empty),
            (r#"{"type":"object","properties":{"model":true}}"#, r#"{"type":"object","properties":{"model":{}}}"#),
            (
                r#"{"properties":{"a":{"properties":{"b":true,"c":false,"d":[]},"anyOf":[true,{"properties":{"e":true}},false]}}}"#,
                r#"{"properties":{"a":{"properties":{"b":{},"d":{}},"anyOf":[{},{"properties":{"e":{}}}]}}}"#,
            ),
            (
                r#"{"properties":{"a":{"required":true},"b":{"required":false},"c":{"required":true}},"required":["c"]}"#,
                r#"{"properties":{"a":{},"b":{},"c":{}},"required":["c","a"]}"#,
            ),
            (r#"{"properties":{"a":{"required":true}}}"#, r#"{"properties":{"a":{}},"required":["a"]}"#),
            (
                r#"{"required":{},"properties":{"a":{"anyOf":{},"description":7}}}"#,
                r#"{"properties":{"a":{"description":"7"}}}"#,
            ),
        ] {
            assert_eq!(rewritten(schema).unwrap(), expected, "{schema}");
        }
    }

    #[test]
    fn what_cannot_be_given_to_ollama_is_refused_with_its_place() {
        for (schema, place) in [
            (r#""x""#, ""),
            ("false", ""),
            (r#"{"type":7}"#, ".type"),
            (r#"{"type":["string"]}"#, ".type"),
            (r#"{"properties":["a"]}"#, ".properties"),
            (r#"{"properties":{"a":"string"}}"#, ".properties.a"),
            (r#"{"properties":{"a":{"enum":"x"}}}"#, ".properties.a.enum"),
            (r#"{"properties":{"a":{"anyOf":[{"type":5}]}}}"#, ".properties.a.anyOf[0].type"),
            (
                r#"{"properties":{"a":{"properties":{"b":{"description":[]}}}}}"#,
                ".properties.a.properties.b.description",
            ),
            (r#"{"required":"a"}"#, ".required"),
            (r#"{"required":[1]}"#, ".required"),
        ] {
            let error = rewritten(schema).unwrap_err();
            assert_eq!(error.param(), Some(&*format!("tools[0].function.parameters{place}")), "{schema}");
        }
    }
}
