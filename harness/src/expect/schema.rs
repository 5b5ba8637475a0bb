//! JSON Schema (the `jsonschema` crate judges), but stricter with the schema: a keyword that would be passed over is
//! refused, and nothing is fetched.

use std::sync::Arc;

use jsonschema::{PatternOptions, Validator};
use serde_json::{Map, Value};

/// Keywords whose value is a schema.
const OF_ONE: [&str; 11] = [
    "additionalProperties",
    "contains",
    "else",
    "if",
    "items",
    "not",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
    "additionalItems",
];
/// Keywords whose value is a list of schemas.
const OF_LIST: [&str; 4] = ["allOf", "anyOf", "oneOf", "prefixItems"];
/// Keywords whose value names schemas.
const OF_NAMES: [&str; 5] = ["$defs", "definitions", "dependentSchemas", "patternProperties", "properties"];
/// All others.
const OTHERS: [&str; 33] = [
    "$anchor",
    "$comment",
    "$dynamicAnchor",
    "$dynamicRef",
    "$id",
    "$ref",
    "$schema",
    "const",
    "default",
    "dependentRequired",
    "deprecated",
    "description",
    "enum",
    "examples",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "format",
    "maxContains",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minContains",
    "minItems",
    "minLength",
    "minProperties",
    "minimum",
    "multipleOf",
    "pattern",
    "required",
    "title",
    "type",
    "uniqueItems",
];

/// A schema that values are judged by. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Schema(Arc<Validator>);

impl Schema {
    /// Reads a schema.
    ///
    /// # Errors
    /// The first part that cannot be judged by.
    pub fn read(schema: &Value) -> Result<Self, String> {
        known(schema)?;
        jsonschema::options()
            .should_validate_formats(true)
            .should_ignore_unknown_formats(false)
            .with_pattern_options(PatternOptions::regex())
            .offline()
            .build(schema)
            .map(|validator| Self(Arc::new(validator)))
            .map_err(|wrong| format!("the JSON Schema is wrong at {}: {wrong}", place(wrong.instance_path().as_str())))
    }

    /// Where a value breaks the schema, as `/choices/0/index`, and how; nothing if it does not.
    #[must_use]
    pub fn breach(&self, value: &Value) -> Option<String> {
        let wrong = self.0.validate(value).err()?;
        let reported = crate::text::shorten(&wrong.masked().to_string(), 300);
        Some(format!("{}: {reported}", place(wrong.instance_path().as_str())))
    }
}

fn place(pointer: &str) -> &str {
    if pointer.is_empty() { "/" } else { pointer }
}

/// Looks for an unknown keyword, which JSON Schema would pass over.
fn known(schema: &Value) -> Result<(), String> {
    let fields: &Map<String, Value> = match schema {
        Value::Object(fields) => fields,
        Value::Bool(_) => return Ok(()),
        other => return Err(format!("a JSON Schema is a mapping, true or false, not {other}")),
    };
    for (name, value) in fields {
        match (&**name, value) {
            // In old drafts `items` may be a list.
            (name, Value::Array(parts)) if OF_LIST.contains(&name) || name == "items" => {
                parts.iter().try_for_each(known)?;
            }
            (name, Value::Object(parts)) if OF_NAMES.contains(&name) => parts.values().try_for_each(known)?,
            (name, part) if OF_ONE.contains(&name) => known(part)?,
            // The library reports a wrong kind of value.
            (name, _) if OTHERS.contains(&name) || OF_LIST.contains(&name) || OF_NAMES.contains(&name) => {}
            (name, _) => return Err(format!("the JSON Schema has `{name}`, which cannot be checked here")),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_breach_says_where_and_what() {
        let schema = Schema::read(&json!({
            "type": "object",
            "required": ["name"],
            "properties": {
                "name": { "type": "string", "minLength": 1, "pattern": "^[A-Z]" },
                "ages": { "type": "array", "items": { "$ref": "#/$defs/age" }, "maxItems": 2 },
                "mail": { "format": "email" },
            },
            "additionalProperties": false,
            "$defs": { "age": { "type": "integer", "minimum": 0, "exclusiveMaximum": 150 } },
        }))
        .unwrap();
        assert_eq!(schema.breach(&json!({"name": "Ada", "ages": [1, 2], "mail": "ada@example.org"})), None);
        for (value, reported) in [
            (json!([]), "/: value is not of type \"object\""),
            (json!({}), "/: \"name\" is a required property"),
            (json!({"name": "ada"}), "/name: value does not match \"^[A-Z]\""),
            (json!({"name": "Ada", "ages": [1, -2]}), "/ages/1: value is less than the minimum of 0"),
            (json!({"name": "Ada", "ages": [1, 2, 3]}), "/ages: value has more than 2 items"),
            (json!({"name": "Ada", "mail": "none"}), "/mail: value is not a \"email\""),
            (json!({"name": "Ada", "more": 1}), "/: Additional properties are not allowed ('more' was unexpected)"),
        ] {
            assert_eq!(schema.breach(&value).as_deref(), Some(reported));
        }
    }

    #[test]
    fn what_cannot_be_checked_is_refused() {
        for (wrong, reported) in [
            (json!({"properties": {"a": {"requird": ["b"]}}}), "`requird`, which cannot be checked"),
            (json!({"allOf": [{"not": {"maximun": 1}}]}), "`maximun`"),
            (json!({"format": "shoe-size"}), "/format: Unknown format"),
            (json!({"type": "text"}), "/type: "),
            (json!({"pattern": "("}), "/pattern: "),
            (json!({"minimum": "1"}), "/minimum: "),
            (json!({"$ref": "#/$defs/none"}), "does not exist"),
            (json!({"$ref": "http://127.0.0.1:1/schema"}), "Retrieval is disabled"),
            (json!({"$ref": "file:///etc/hostname"}), "Retrieval is disabled"),
            (json!(1), "a mapping, true or false"),
        ] {
            let refused = Schema::read(&wrong).unwrap_err();
            assert!(refused.contains(reported), "{reported}: {refused}");
        }
    }

    #[test]
    fn a_schema_that_refers_to_itself_without_end_is_no_end_of_the_harness() {
        let part = json!({"anyOf": [{"$ref": "#/$defs/a"}, {"type": "string"}]});
        for schema in [json!({"$ref": "#"}), json!({"$ref": "#/$defs/a", "$defs": {"a": part}})] {
            let _ = Schema::read(&schema).unwrap().breach(&json!(1));
        }
    }
}
