//! JSON Schema as Ollama's grammar takes it. Pure.
//!
//! Ollama gives a schema to llama.cpp, which makes a grammar of it. That refuses valid schemas (`true`, unanchored
//! patterns, `\d`), and ignores keywords without a word (recorded: 0.33.0-rc2 structured/*). Here a schema is rewritten
//! where another form means the same, what cannot be said is refused with its exact place, and what is ignored goes to
//! the receipt.

mod pattern;

use serde_json::{Map, Value, json};

use crate::{error::Error, receipt::Receipt};

/// What becomes of a part that no grammar can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Impossible {
    /// The request is refused: the client was promised that answers follow the schema.
    Refused,
    /// The part is dropped: the schema is first of all a description for the model.
    Dropped,
}

/// Why a schema of more than 128 levels is refused.
pub(crate) const TOO_DEEP: &str = "The schema is nested too deeply.";

/// A schema's types.
const TYPES: [&str; 7] = ["object", "array", "string", "number", "integer", "boolean", "null"];

/// Types that any value has one of; every integer is a number.
const ANY: [&str; 6] = ["object", "array", "string", "number", "boolean", "null"];

/// Formats that have a rule in the grammar, besides `uuid`.
const FORMATS: [&str; 3] = ["date", "time", "date-time"];

/// Keywords that restrict a value, and of which types; `None`: of any.
const RESTRICTING: &[(&str, Option<&[&str]>)] = &[
    ("$ref", None),
    ("allOf", None),
    ("anyOf", None),
    ("oneOf", None),
    ("not", None),
    ("if", None),
    ("then", None),
    ("else", None),
    ("const", None),
    ("enum", None),
    ("nullable", None),
    ("properties", Some(&["object"])),
    ("required", Some(&["object"])),
    ("additionalProperties", Some(&["object"])),
    ("patternProperties", Some(&["object"])),
    ("propertyNames", Some(&["object"])),
    ("minProperties", Some(&["object"])),
    ("maxProperties", Some(&["object"])),
    ("dependencies", Some(&["object"])),
    ("dependentRequired", Some(&["object"])),
    ("dependentSchemas", Some(&["object"])),
    ("items", Some(&["array"])),
    ("prefixItems", Some(&["array"])),
    ("minItems", Some(&["array"])),
    ("maxItems", Some(&["array"])),
    ("uniqueItems", Some(&["array"])),
    ("contains", Some(&["array"])),
    ("minContains", Some(&["array"])),
    ("maxContains", Some(&["array"])),
    ("pattern", Some(&["string"])),
    ("format", Some(&["string"])),
    ("minLength", Some(&["string"])),
    ("maxLength", Some(&["string"])),
    ("multipleOf", Some(&["number", "integer"])),
    ("minimum", Some(&["number", "integer"])),
    ("maximum", Some(&["number", "integer"])),
    ("exclusiveMinimum", Some(&["number", "integer"])),
    ("exclusiveMaximum", Some(&["number", "integer"])),
];

/// Rewrites `schema`, which stands at `at`. `noted`: whether ignored keywords go to the receipt.
///
/// # Errors
/// Fails, with the exact place, on a part that no grammar can say, where such parts are refused.
pub(crate) fn rewrite(
    schema: &mut Value,
    at: &str,
    impossible: Impossible,
    noted: bool,
    receipt: &mut Receipt,
) -> Result<(), Error> {
    if *schema == json!(true) {
        *schema = json!({});
        return Ok(());
    }
    // The whole is looked at where references lead.
    let root = schema.clone();
    let mut rewriting = Rewriting { root: &root, impossible, noted, receipt };
    match schema {
        // An empty schema is JSON mode, more or less; it is left alone.
        Value::Object(object) if object.is_empty() => Ok(()),
        schema => rewriting.schema(schema, at),
    }
}

/// Whether Ollama's grammar enforces exactly this pattern.
///
/// # Errors
/// Says why it does not.
pub(crate) fn expressible(pattern: &str) -> Result<(), String> {
    if pattern::rewrite(pattern)?.looser {
        return Err("Ollama's grammar has no lookarounds".to_owned());
    }
    Ok(())
}

/// One rewriting.
struct Rewriting<'a> {
    root: &'a Value,
    impossible: Impossible,
    noted: bool,
    receipt: &'a mut Receipt,
}

impl Rewriting<'_> {
    fn schema(&mut self, schema: &mut Value, at: &str) -> Result<(), Error> {
        match schema {
            Value::Bool(true) => *schema = json!({ "type": ANY }),
            Value::Bool(false) => {
                self.impossible(at, "nothing matches the schema 'false'")?;
                *schema = json!({ "type": ANY });
            }
            Value::Object(object) => self.object(object, at)?,
            _ => {
                self.impossible(at, "a schema is an object or a boolean")?;
                *schema = json!({ "type": ANY });
            }
        }
        Ok(())
    }

    fn object(&mut self, schema: &mut Map<String, Value>, at: &str) -> Result<(), Error> {
        self.kind(schema, at)?;
        self.properties(schema, at)?;
        self.items(schema, at)?;
        self.alternatives(schema, at)?;
        self.all_of(schema, at)?;
        self.reference(schema, at)?;
        self.pattern(schema, at)?;
        for key in ["$defs", "definitions"] {
            for (name, part) in schema.get_mut(key).and_then(Value::as_object_mut).into_iter().flatten() {
                // One that nothing can match may stand there as long as nothing refers to it.
                if *part != Value::Bool(false) {
                    self.schema(part, &format!("{at}.{key}.{name}"))?;
                }
            }
        }
        if let Some(Value::Array(values)) = schema.get("enum")
            && values.is_empty()
        {
            self.impossible(&format!("{at}.enum"), "an empty 'enum' allows no value")?;
            schema.shift_remove("enum");
        }
        // The grammar takes a schema without any of these for a mistake, or for an object.
        let known = ["type", "$ref", "allOf", "anyOf", "oneOf", "const", "enum", "properties", "items", "prefixItems"];
        let open = schema.get("additionalProperties").is_none_or(|more| *more == Value::Bool(true));
        let said = !open || known.iter().any(|key| schema.contains_key(*key));
        if !said && !schema.contains_key("pattern") && !has_known_format(schema) {
            schema.insert("type".to_owned(), json!(ANY));
        }
        if self.noted {
            self.note_ignored(schema, at);
        }
        Ok(())
    }

    /// Types must exist (recorded: structured/top-unknown-type).
    fn kind(&mut self, schema: &mut Map<String, Value>, at: &str) -> Result<(), Error> {
        let known = |kind: &Value| kind.as_str().is_some_and(|kind| TYPES.contains(&kind));
        let fits = match schema.get("type") {
            None => true,
            Some(Value::Array(kinds)) => !kinds.is_empty() && kinds.iter().all(known),
            Some(kind) => known(kind),
        };
        if !fits {
            self.impossible(&format!("{at}.type"), &format!("a type is one of {}", TYPES.join(", ")))?;
            schema.shift_remove("type");
        }
        Ok(())
    }

    fn properties(&mut self, schema: &mut Map<String, Value>, at: &str) -> Result<(), Error> {
        let required: Vec<Value> = schema.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
        match schema.get_mut("properties") {
            // PHP's empty object.
            Some(properties @ Value::Array(_)) if *properties == json!([]) => *properties = json!({}),
            Some(Value::Object(properties)) => {
                let mut forbidden = Vec::new();
                for (name, part) in properties.iter_mut() {
                    let at = format!("{at}.properties.{name}");
                    match part {
                        Value::Bool(false) if required.iter().any(|known| known == name) => {
                            self.impossible(&at, "the property is required, and nothing matches the schema 'false'")?;
                            forbidden.push(name.clone());
                        }
                        // What is not described is not written.
                        Value::Bool(false) => forbidden.push(name.clone()),
                        part => self.schema(part, &at)?,
                    }
                }
                properties.retain(|name, _| !forbidden.contains(name));
            }
            Some(_) => {
                self.impossible(&format!("{at}.properties"), "'properties' is an object")?;
                schema.shift_remove("properties");
            }
            None => {}
        }
        match schema.get_mut("additionalProperties") {
            Some(part @ Value::Object(_)) => self.schema(part, &format!("{at}.additionalProperties")),
            _ => Ok(()),
        }
    }

    fn items(&mut self, schema: &mut Map<String, Value>, at: &str) -> Result<(), Error> {
        let tuple = schema.contains_key("prefixItems");
        let counted = schema.contains_key("minItems") || schema.contains_key("maxItems");
        let counted = counted && kinds(schema).contains(&"array");
        match schema.get_mut("items") {
            // Without `items` the grammar takes the list for the whole array.
            Some(Value::Bool(false)) if tuple => drop(schema.shift_remove("items")),
            Some(Value::Bool(false)) => {
                schema.shift_remove("items");
                schema.insert("const".to_owned(), json!([]));
            }
            Some(Value::Array(parts)) => {
                for (n, part) in parts.iter_mut().enumerate() {
                    self.schema(part, &format!("{at}.items[{n}]"))?;
                }
            }
            Some(part) => self.schema(part, &format!("{at}.items"))?,
            // Only where items are described their number counts.
            None if !tuple && counted => drop(schema.insert("items".to_owned(), json!({ "type": ANY }))),
            None => {}
        }
        if let Some(Value::Array(parts)) = schema.get_mut("prefixItems") {
            for (n, part) in parts.iter_mut().enumerate() {
                self.schema(part, &format!("{at}.prefixItems[{n}]"))?;
            }
        }
        Ok(())
    }

    fn alternatives(&mut self, schema: &mut Map<String, Value>, at: &str) -> Result<(), Error> {
        for key in ["anyOf", "oneOf"] {
            let path = format!("{at}.{key}");
            let described = schema.contains_key("properties");
            let Some(parts) = schema.get_mut(key) else { continue };
            let Some(parts) = parts.as_array_mut() else {
                self.impossible(&path, &format!("'{key}' is an array"))?;
                schema.shift_remove(key);
                continue;
            };
            // `anyOf: [{required: [a]}, {required: [b]}]` beside `properties` would take their place.
            let bare = |part: &Value| part.as_object().is_some_and(|part| part.keys().all(|key| key == "required"));
            if described && parts.iter().all(bare) {
                schema.shift_remove(key);
                self.note(&path);
                continue;
            }
            let before = parts.len();
            parts.retain(|part| *part != Value::Bool(false));
            if parts.is_empty() {
                self.impossible(
                    &path,
                    if before == 0 { "there is nothing to choose from" } else { "nothing matches" },
                )?;
                schema.shift_remove(key);
                continue;
            }
            for (n, part) in parts.iter_mut().enumerate() {
                self.schema(part, &format!("{path}[{n}]"))?;
            }
        }
        Ok(())
    }

    fn all_of(&mut self, schema: &mut Map<String, Value>, at: &str) -> Result<(), Error> {
        let path = format!("{at}.allOf");
        let Some(Value::Array(parts)) = schema.get_mut("allOf") else { return Ok(()) };
        parts.retain(|part| *part != Value::Bool(true));
        for (n, part) in parts.iter_mut().enumerate() {
            self.schema(part, &format!("{path}[{n}]"))?;
        }
        // `allOf` with one part is that part: the grammar combines objects only.
        let only = match &mut **parts {
            [] => Some(Map::new()),
            [Value::Object(only)] => Some(std::mem::take(only)),
            _ => None,
        };
        let Some(only) = only else { return Ok(()) };
        let alone = |key: &String| !only.contains_key(key);
        if schema.keys().filter(|key| *key != "allOf" && *key != "description" && *key != "title").all(alone) {
            schema.shift_remove("allOf");
            for (key, value) in only {
                schema.entry(key).or_insert(value);
            }
        } else if let Some(Value::Array(parts)) = schema.get_mut("allOf") {
            *parts = vec![Value::Object(only)];
        }
        Ok(())
    }

    /// A reference must lead somewhere (recorded: structured/ref-unknown).
    fn reference(&mut self, schema: &mut Map<String, Value>, at: &str) -> Result<(), Error> {
        let Some(target) = schema.get("$ref").and_then(Value::as_str) else { return Ok(()) };
        let leads = match target.strip_prefix('#') {
            Some(pointer) => self.root.pointer(&percent_decoded(pointer)).is_some(),
            // One to another place is ignored.
            None => true,
        };
        if !leads {
            self.impossible(&format!("{at}.$ref"), &format!("there is nothing at '{target}' in the schema"))?;
            schema.shift_remove("$ref");
        }
        Ok(())
    }

    fn pattern(&mut self, schema: &mut Map<String, Value>, at: &str) -> Result<(), Error> {
        let path = format!("{at}.pattern");
        match schema.get_mut("pattern") {
            None => {}
            Some(Value::String(pattern)) => match pattern::rewrite(pattern) {
                Ok(rewritten) => {
                    *pattern = rewritten.pattern;
                    if rewritten.looser {
                        self.note(&path);
                    }
                }
                Err(why) => {
                    self.impossible(&path, &why)?;
                    schema.shift_remove("pattern");
                }
            },
            Some(_) => {
                self.impossible(&path, "a pattern is a string")?;
                schema.shift_remove("pattern");
            }
        }
        Ok(())
    }

    /// Notes the keywords of one schema that its grammar leaves out.
    fn note_ignored(&mut self, schema: &Map<String, Value>, at: &str) {
        let kinds = kinds(schema);
        for (key, of) in RESTRICTING {
            let Some(value) = schema.get(*key) else { continue };
            let asks = match *key {
                "nullable" | "uniqueItems" => *value == Value::Bool(true),
                "additionalProperties" => *value != Value::Bool(true),
                "required" => value.as_array().is_some_and(|names| !names.is_empty()),
                "minLength" | "minItems" | "minProperties" => *value != json!(0),
                _ => true,
            };
            let concerned = of.map_or(&kinds[..], |of| of);
            if asks && concerned.iter().any(|kind| kinds.contains(kind) && !enforced(schema, kind, key, value)) {
                self.note(&format!("{at}.{key}"));
            }
        }
    }

    fn note(&mut self, at: &str) {
        if self.noted {
            self.receipt.note(at, "not-enforced");
        }
    }

    /// # Errors
    /// Fails if such parts are refused.
    fn impossible(&mut self, at: &str, why: &str) -> Result<(), Error> {
        match self.impossible {
            Impossible::Refused => {
                let message = format!("Invalid schema for '{at}': Ollama cannot enforce it: {why}.");
                Err(Error::Invalid { message, param: Some(at.to_owned()), code: Some("invalid_json_schema") })
            }
            Impossible::Dropped => {
                self.receipt.note(at, "loosened");
                Ok(())
            }
        }
    }
}

/// The types that a schema allows, as far as it says.
fn kinds(schema: &Map<String, Value>) -> Vec<&str> {
    match schema.get("type") {
        Some(Value::String(kind)) => vec![kind],
        Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).collect(),
        _ if schema.contains_key("properties") => vec!["object"],
        _ if schema.contains_key("items") || schema.contains_key("prefixItems") => vec!["array"],
        _ if schema.contains_key("pattern") || has_known_format(schema) => vec!["string"],
        _ => ANY.to_vec(),
    }
}

fn has_known_format(schema: &Map<String, Value>) -> bool {
    schema.get("format").and_then(Value::as_str).is_some_and(is_known_format)
}

fn is_known_format(format: &str) -> bool {
    FORMATS.contains(&format) || matches!(format, "uuid" | "uuid1" | "uuid2" | "uuid3" | "uuid4" | "uuid5")
}

fn is_remote(schema: &Map<String, Value>) -> bool {
    schema.get("$ref").and_then(Value::as_str).is_some_and(|target| !target.starts_with('#'))
}

/// Whether the grammar for a value of type `kind` has a rule for keyword `key`. The order of the branches is that of
/// the converter: the first keyword that it knows decides, and the others are left out.
fn enforced(schema: &Map<String, Value>, kind: &str, key: &str, value: &Value) -> bool {
    let has = |key: &str| schema.contains_key(key);
    if has("$ref") {
        return key == "$ref" && !is_remote(schema);
    }
    if has("oneOf") {
        return key == "oneOf";
    }
    if has("anyOf") {
        return key == "anyOf";
    }
    // Each value is spelled out.
    if has("const") || has("enum") {
        return true;
    }
    let bounded =
        has("properties") || schema.get("additionalProperties").is_some_and(|more| *more != Value::Bool(true));
    if has("allOf") && !bounded {
        return key == "allOf";
    }
    match kind {
        "object" if bounded => match key {
            // A property that is not described is never written (recorded: structured/required-unknown).
            "required" => {
                let described = schema.get("properties").and_then(Value::as_object);
                let names = value.as_array().into_iter().flatten().filter_map(Value::as_str);
                names.into_iter().all(|name| described.is_some_and(|described| described.contains_key(name)))
            }
            "properties" | "additionalProperties" => true,
            _ => false,
        },
        "array" if has("items") => matches!(key, "items" | "minItems" | "maxItems"),
        "array" => key == "prefixItems",
        "string" if has("pattern") => key == "pattern",
        "string" if has_known_format(schema) => key == "format",
        "string" => matches!(key, "minLength" | "maxLength"),
        "integer" => matches!(key, "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum"),
        _ => false,
    }
}

/// A JSON pointer inside of a URI.
fn percent_decoded(pointer: &str) -> String {
    percent_encoding::percent_decode_str(pointer).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(mut schema: Value) -> (Result<Value, Error>, String) {
        let mut receipt = Receipt::default();
        let outcome = rewrite(&mut schema, "s", Impossible::Refused, true, &mut receipt);
        (outcome.map(|()| schema), receipt.to_string())
    }

    /// A schema of an object with the property `a`.
    fn of(a: &Value) -> Value {
        json!({"type": "object", "properties": {"a": a}, "required": ["a"]})
    }

    #[test]
    fn what_the_grammar_takes_is_unchanged() {
        // All of recordings/0.33.0-rc2/structured that are obeyed.
        for a in [
            json!({"type": "integer", "minimum": 10, "exclusiveMaximum": 19}),
            json!({"type": "array", "items": {"type": "integer"}, "minItems": 3, "maxItems": 3}),
            json!({"anyOf": [{"type": "integer"}, {"type": "null"}]}),
            json!({"oneOf": [{"type": "integer"}, {"type": "boolean"}]}),
            json!({"const": {"k": [1, null]}}),
            json!({"enum": ["x", 2, null, true]}),
            json!({"type": "string", "format": "date-time"}),
            json!({"type": "string", "format": "uuid", "description": "d", "default": "x"}),
            json!({"type": "string", "minLength": 12, "maxLength": 14}),
            json!({"type": "string", "pattern": "^[A-Z]{2}-[0-9]{3}$"}),
            json!({"type": ["integer", "null"], "minimum": 1}),
            json!({"allOf": [{"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]},
                {"type": "object", "properties": {"y": {"type": "boolean"}}, "required": ["y"]}]}),
            json!({"type": "object", "properties": {"b": {"type": "integer"}}, "additionalProperties": {"type": "boolean"}}),
        ] {
            let schema = of(&a);
            assert_eq!(rewritten(schema.clone()), (Ok(schema), String::new()), "{a}");
        }
        let recursive = json!({"type": "object", "properties": {"a": {"$ref": "#/$defs/t"}}, "required": ["a"],
            "$defs": {"t": {"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#/$defs/t"}, {"type": "null"}]}}}}});
        assert_eq!(rewritten(recursive.clone()), (Ok(recursive), String::new()));
    }

    #[test]
    fn what_means_the_same_in_another_form_is_rewritten() {
        let any = json!({ "type": ANY });
        for (a, expected) in [
            (json!(true), any.clone()),
            (json!({}), any.clone()),
            (json!({"description": "x"}), json!({"description": "x", "type": ANY})),
            (json!({"anyOf": [true, false]}), json!({"anyOf": [any]})),
            (json!({"type": "array", "items": true}), json!({"type": "array", "items": any})),
            (json!({"type": "array", "maxItems": 2}), json!({"type": "array", "maxItems": 2, "items": any})),
            (json!({"type": "array", "items": false}), json!({"type": "array", "const": []})),
            (
                json!({"type": "array", "prefixItems": [{"type": "string"}, true], "items": false}),
                json!({"type": "array", "prefixItems": [{"type": "string"}, any]}),
            ),
            (json!({"allOf": [{"enum": ["x"]}], "description": "d"}), json!({"description": "d", "enum": ["x"]})),
            (json!({"type": "object", "properties": {"b": false}}), json!({"type": "object", "properties": {}})),
            (json!({"type": "object", "properties": []}), json!({"type": "object", "properties": {}})),
            (json!({"type": "string", "pattern": r"^\d{3}$"}), json!({"type": "string", "pattern": "^[0-9]{3}$"})),
        ] {
            assert_eq!(rewritten(of(&a)), (Ok(of(&expected)), String::new()), "{a}");
        }
        assert_eq!(rewritten(json!(true)).0, Ok(json!({})));
        assert_eq!(rewritten(json!({})).0, Ok(json!({})));
    }

    #[test]
    fn what_no_grammar_can_say_is_refused_with_its_place_or_dropped() {
        for (a, place) in [
            (json!(false), ""),
            (json!(7), ""),
            (json!({"type": "date"}), ".type"),
            (json!({"type": 5}), ".type"),
            (json!({"$ref": "#/$defs/none"}), ".$ref"),
            (json!({"type": "string", "pattern": "^[a-z$"}), ".pattern"),
            (json!({"anyOf": [{"type": "array", "items": {"anyOf": [false]}}]}), ".anyOf[0].items.anyOf"),
            (json!({"enum": []}), ".enum"),
            (json!({"type": "object", "properties": {"b": false}, "required": ["b"]}), ".properties.b"),
        ] {
            let error = rewritten(of(&a)).0.unwrap_err();
            assert_eq!(error.param(), Some(&*format!("s.properties.a{place}")), "{a}");
            assert_eq!(error.row().status, 400);
            let mut dropped = of(&a);
            let mut receipt = Receipt::default();
            rewrite(&mut dropped, "s", Impossible::Dropped, false, &mut receipt).unwrap();
            assert_eq!(
                receipt.to_string(),
                format!("{}=loosened", format!("s.properties.a{place}").replace("[0]", "[]"))
            );
            assert_eq!(rewritten(dropped).0.map(|_| ()), Ok(()), "{a}");
        }
    }

    #[test]
    fn what_the_grammar_leaves_out_is_noted() {
        for (a, noted) in [
            (json!({"type": "number", "minimum": 100}), "minimum"),
            (json!({"type": "integer", "multipleOf": 10}), "multipleOf"),
            (json!({"type": "array", "items": {"enum": [1]}, "uniqueItems": true}), "uniqueItems"),
            (json!({"type": "string", "not": {"const": "x"}}), "not"),
            (json!({"type": "integer", "nullable": true}), "nullable"),
            (json!({"type": "string", "format": "email"}), "format"),
            (json!({"type": "string", "pattern": "^(?=h)[a-z]{3}$"}), "pattern"),
            (json!({"$ref": "https://example.com/x.json"}), "$ref"),
            (json!({"type": "string", "pattern": "^a*$", "maxLength": 3}), "maxLength"),
            (json!({"type": "object", "properties": {}, "required": ["b"]}), "required"),
            (json!({"type": "object", "patternProperties": {"^x": {}}}), "patternProperties"),
            (json!({"type": "object", "properties": {"b": {"type": "null"}}, "anyOf": [{"required": ["b"]}]}), "anyOf"),
            (json!({"minimum": 3}), "minimum"),
        ] {
            assert_eq!(rewritten(of(&a)).1, format!("s.properties.a.{noted}=not-enforced"), "{a}");
        }
        // What is about another type restricts nothing.
        assert_eq!(rewritten(of(&json!({"type": "string", "minimum": 3, "uniqueItems": false}))).1, "");
    }
}
