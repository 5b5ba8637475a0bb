//! JSON Schema, as far as answers are checked with it. A keyword that is not known here is refused, never passed over.

use regex::Regex;
use serde_json::{Map, Value};

/// What says nothing about the value.
const NOTES: [&str; 9] =
    ["$schema", "$id", "$comment", "title", "description", "default", "examples", "$defs", "definitions"];
/// What is checked.
const CHECKED: [&str; 27] = [
    "$ref",
    "type",
    "enum",
    "const",
    "properties",
    "required",
    "additionalProperties",
    "patternProperties",
    "propertyNames",
    "minProperties",
    "maxProperties",
    "items",
    "prefixItems",
    "minItems",
    "maxItems",
    "uniqueItems",
    "minLength",
    "maxLength",
    "pattern",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "allOf",
    "anyOf",
    "oneOf",
    "not",
];

/// What is wrong with a schema.
///
/// # Errors
/// The first part that cannot be checked with.
pub fn check(schema: &Value) -> Result<(), String> {
    read(schema, schema)
}

fn read(root: &Value, schema: &Value) -> Result<(), String> {
    let fields = match schema {
        Value::Bool(_) => return Ok(()),
        Value::Object(fields) => fields,
        other => return Err(format!("a JSON Schema is a mapping, true or false, not {other}")),
    };
    for (name, value) in fields {
        if NOTES.contains(&name.as_str()) {
            continue;
        }
        if !CHECKED.contains(&name.as_str()) {
            return Err(format!("the JSON Schema has `{name}`, which cannot be checked here"));
        }
        let wrong = || format!("`{name}` of the JSON Schema cannot be {value}");
        match &**name {
            "$ref" => {
                value.as_str().and_then(|reference| resolve(root, reference)).ok_or_else(wrong)?;
            }
            "pattern" => {
                value.as_str().and_then(|text| Regex::new(text).ok()).ok_or_else(wrong)?;
            }
            "patternProperties" => {
                for (pattern, part) in value.as_object().ok_or_else(wrong)? {
                    Regex::new(pattern).map_err(|_| wrong())?;
                    read(root, part)?;
                }
            }
            "properties" => value.as_object().ok_or_else(wrong)?.values().try_for_each(|part| read(root, part))?,
            "allOf" | "anyOf" | "oneOf" | "prefixItems" => {
                value.as_array().ok_or_else(wrong)?.iter().try_for_each(|part| read(root, part))?;
            }
            "items" | "additionalProperties" | "propertyNames" | "not" => read(root, value)?,
            "enum" | "required" => {
                value.as_array().ok_or_else(wrong)?;
            }
            "type" => {
                let known = |word: &Value| word.as_str().is_some_and(|word| TYPES.contains(&word));
                let all = value.as_array().map_or_else(|| known(value), |words| words.iter().all(known));
                all.then_some(()).ok_or_else(wrong)?;
            }
            "const" | "uniqueItems" => {}
            _ => {
                value.as_f64().ok_or_else(wrong)?;
            }
        }
    }
    for defined in ["$defs", "definitions"].iter().filter_map(|name| fields.get(*name)?.as_object()) {
        defined.values().try_for_each(|part| read(root, part))?;
    }
    Ok(())
}

const TYPES: [&str; 7] = ["null", "boolean", "integer", "number", "string", "array", "object"];

fn resolve<'a>(root: &'a Value, reference: &str) -> Option<&'a Value> {
    root.pointer(reference.strip_prefix('#')?)
}

/// Where a value breaks its schema, as `/choices/0/index`, and how; nothing if it does not.
#[must_use]
pub fn breach(schema: &Value, value: &Value) -> Option<String> {
    Judge { root: schema, depth: 0 }.breach(schema, value, "")
}

/// Deeper than any document; a schema that refers to itself without end stops here.
const DEEPEST: usize = 200;

#[derive(Clone, Copy)]
struct Judge<'a> {
    root: &'a Value,
    depth: usize,
}

impl Judge<'_> {
    fn breach(self, schema: &Value, value: &Value, at: &str) -> Option<String> {
        let at_root = if at.is_empty() { "/" } else { at };
        let fields = match schema {
            Value::Object(fields) => fields,
            Value::Bool(false) => return Some(format!("{at_root}: nothing may be there")),
            _ => return None,
        };
        if self.depth > DEEPEST {
            return Some(format!("{at_root}: the schema refers to itself without end"));
        }
        let deeper = Self { depth: self.depth + 1, ..self };
        for (name, wanted) in fields {
            let holds = match &**name {
                "$ref" => {
                    let Some(part) = wanted.as_str().and_then(|reference| resolve(self.root, reference)) else {
                        continue;
                    };
                    if let Some(found) = deeper.breach(part, value, at) {
                        return Some(found);
                    }
                    true
                }
                "type" => match wanted {
                    Value::Array(words) => words.iter().any(|word| is(value, word)),
                    word => is(value, word),
                },
                "enum" => wanted.as_array().is_some_and(|all| all.contains(value)),
                "const" => wanted == value,
                "minimum" => number(value, wanted, |a, b| a >= b),
                "maximum" => number(value, wanted, |a, b| a <= b),
                "exclusiveMinimum" => number(value, wanted, |a, b| a > b),
                "exclusiveMaximum" => number(value, wanted, |a, b| a < b),
                "minLength" | "minItems" | "minProperties" => {
                    size(name, value).is_none_or(|size| size >= wanted.as_f64().unwrap_or(0.0))
                }
                "maxLength" | "maxItems" | "maxProperties" => {
                    size(name, value).is_none_or(|size| size <= wanted.as_f64().unwrap_or(0.0))
                }
                "pattern" => value.as_str().is_none_or(|text| found(wanted.as_str().unwrap_or_default(), text)),
                "uniqueItems" => {
                    let items = value.as_array().map_or(&[][..], Vec::as_slice);
                    wanted != true || !(1..items.len()).any(|nth| items[..nth].contains(&items[nth]))
                }
                "allOf" => {
                    if let Some(found) = all(wanted).iter().find_map(|part| deeper.breach(part, value, at)) {
                        return Some(found);
                    }
                    true
                }
                "anyOf" => all(wanted).iter().any(|part| deeper.breach(part, value, at).is_none()),
                "oneOf" => all(wanted).iter().filter(|part| deeper.breach(part, value, at).is_none()).count() == 1,
                "not" => deeper.breach(wanted, value, at).is_some(),
                _ => true,
            };
            if !holds {
                return Some(format!("{at_root}: {name} is {}", crate::report::shorten(&wanted.to_string(), 100)));
            }
        }
        match value {
            Value::Object(object) => deeper.object(fields, object, at),
            Value::Array(items) => {
                let first = fields.get("prefixItems").map_or(&[][..], all);
                items.iter().enumerate().find_map(|(nth, item)| {
                    let part = first.get(nth).or_else(|| fields.get("items"))?;
                    deeper.breach(part, item, &format!("{at}/{nth}"))
                })
            }
            _ => None,
        }
    }

    fn object(self, schema: &Map<String, Value>, object: &Map<String, Value>, at: &str) -> Option<String> {
        for name in schema.get("required").map_or(&[][..], all).iter().filter_map(Value::as_str) {
            if !object.contains_key(name) {
                return Some(format!("{}: {name} is required", if at.is_empty() { "/" } else { at }));
            }
        }
        let known = schema.get("properties").and_then(Value::as_object);
        let patterns = schema.get("patternProperties").and_then(Value::as_object);
        for (name, value) in object {
            let at = format!("{at}/{name}");
            let named = known.and_then(|known| known.get(name));
            let matching =
                patterns.into_iter().flatten().filter(|(pattern, _)| found(pattern, name)).map(|(_, part)| part);
            let mut parts: Vec<&Value> = named.into_iter().chain(matching).collect();
            if parts.is_empty() {
                parts.extend(schema.get("additionalProperties"));
            }
            if let Some(found) = parts.into_iter().find_map(|part| self.breach(part, value, &at)) {
                return Some(found);
            }
            if let Some(names) = schema.get("propertyNames")
                && let Some(found) = self.breach(names, &Value::from(name.as_str()), &at)
            {
                return Some(found);
            }
        }
        None
    }
}

fn all(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn is(value: &Value, word: &Value) -> bool {
    match word.as_str() {
        Some("null") => value.is_null(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => {
            value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|number| number.fract() == 0.0)
        }
        Some("number") => value.is_number(),
        Some("string") => value.is_string(),
        Some("array") => value.is_array(),
        _ => value.is_object(),
    }
}

fn number(value: &Value, bound: &Value, holds: impl Fn(f64, f64) -> bool) -> bool {
    value.as_f64().zip(bound.as_f64()).is_none_or(|(value, bound)| holds(value, bound))
}

/// The size that a keyword is about, if the value has one.
fn size(keyword: &str, value: &Value) -> Option<f64> {
    let size = match value {
        Value::String(text) if keyword.ends_with("Length") => text.chars().count(),
        Value::Array(items) if keyword.ends_with("Items") => items.len(),
        Value::Object(fields) if keyword.ends_with("Properties") => fields.len(),
        _ => return None,
    };
    u32::try_from(size).ok().map(f64::from)
}

fn found(pattern: &str, text: &str) -> bool {
    // What is no expression was refused when the schema was read.
    Regex::new(pattern).is_ok_and(|expression| expression.is_match(text))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_breach_tells_where_and_what() {
        let schema = json!({
            "type": "object",
            "required": ["name"],
            "properties": {
                "name": { "type": "string", "minLength": 1, "pattern": "^[A-Z]" },
                "ages": { "type": "array", "items": { "$ref": "#/$defs/age" }, "maxItems": 2 },
                "kind": { "enum": ["a", "b"] },
                "either": { "oneOf": [{ "type": "string" }, { "type": "null" }] },
            },
            "additionalProperties": false,
            "$defs": { "age": { "type": "integer", "minimum": 0, "exclusiveMaximum": 150 } },
        });
        assert_eq!(check(&schema), Ok(()));
        assert_eq!(breach(&schema, &json!({"name": "Ada", "ages": [1, 2], "kind": "a", "either": null})), None);
        for (value, told) in [
            (json!([]), "/: type is \"object\""),
            (json!({}), "/: name is required"),
            (json!({"name": ""}), "/name: minLength is 1"),
            (json!({"name": "ada"}), "/name: pattern is \"^[A-Z]\""),
            (json!({"name": "Ada", "ages": [1, -2]}), "/ages/1: minimum is 0"),
            (json!({"name": "Ada", "ages": [150]}), "/ages/0: exclusiveMaximum is 150"),
            (json!({"name": "Ada", "ages": [1, 2, 3]}), "/ages: maxItems is 2"),
            (json!({"name": "Ada", "kind": "c"}), "/kind: enum is [\"a\",\"b\"]"),
            (json!({"name": "Ada", "either": 1}), "/either: oneOf is [{\"type\":\"string\"},{\"type\":\"null\"}]"),
            (json!({"name": "Ada", "more": 1}), "/more: nothing may be there"),
        ] {
            assert_eq!(breach(&schema, &value).as_deref(), Some(told));
        }
    }

    #[test]
    fn what_cannot_be_checked_is_refused() {
        for wrong in [
            json!({"format": "email"}),
            json!({"properties": {"a": {"dependentRequired": {}}}}),
            json!({"type": "text"}),
            json!({"pattern": "("}),
            json!({"$ref": "#/$defs/none"}),
            json!({"minimum": "1"}),
            json!(1),
        ] {
            assert!(check(&wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_schema_that_refers_to_itself_without_end_is_no_end_of_the_harness() {
        let schema = json!({"$ref": "#"});
        assert_eq!(check(&schema), Ok(()));
        assert!(breach(&schema, &json!(1)).unwrap().contains("without end"));
    }
}
