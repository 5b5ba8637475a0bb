//! JSON that satisfies a JSON Schema, for `format` and for the arguments of tool calls. Pure.
//!
//! Covers what clients send: types, enum, const, properties and required, arrays with their bounds, numbers with theirs, strings with
//! theirs and the usual formats, `anyOf`, `oneOf`, `allOf`, and `$ref` into `$defs`. Patterns are not obeyed.

use serde_json::{Map, Value, json};

use crate::words::Dice;

/// How deep optional parts are filled in; a recursive schema ends here.
const DEEPEST: usize = 6;

/// A value for `schema`. Texts are taken from `words` in their order, as a model takes them from the prompt.
pub(crate) fn satisfy(schema: &Value, words: &mut Vec<String>, dice: &mut Dice) -> Value {
    Maker { root: schema, words, dice }.value(schema, 0)
}

struct Maker<'a> {
    root: &'a Value,
    words: &'a mut Vec<String>,
    dice: &'a mut Dice,
}

impl Maker<'_> {
    fn value(&mut self, schema: &Value, depth: usize) -> Value {
        let Some(object) = schema.as_object() else {
            // `true` allows anything.
            return Value::from("anything");
        };
        if let Some(target) = object.get("$ref").and_then(Value::as_str) {
            let root = self.root;
            return match target.strip_prefix('#').and_then(|pointer| root.pointer(pointer)) {
                Some(found) if depth <= DEEPEST * 2 => self.value(found, depth + 1),
                _ => Value::Null,
            };
        }
        if let Some(constant) = object.get("const") {
            return constant.clone();
        }
        if let Some(choices) = object.get("enum").and_then(Value::as_array).filter(|choices| !choices.is_empty()) {
            return self.dice.pick(&choices.iter().collect::<Vec<_>>()).clone();
        }
        if let Some(parts) = object.get("allOf").and_then(Value::as_array) {
            let mut whole = object.clone();
            whole.remove("allOf");
            for part in parts {
                merge(&mut whole, self.resolve(part));
            }
            return self.value(&Value::Object(whole), depth + 1);
        }
        for choice in ["anyOf", "oneOf"] {
            if let Some(choices) = object.get(choice).and_then(Value::as_array).filter(|choices| !choices.is_empty()) {
                // Deep down the simplest choice ends the recursion.
                let null = choices.iter().find(|choice| choice["type"] == "null");
                let chosen = match null {
                    Some(null) if depth >= DEEPEST => null.clone(),
                    _ => choices[0].clone(),
                };
                let mut whole = object.clone();
                whole.remove(choice);
                merge(&mut whole, self.resolve(&chosen));
                return self.value(&Value::Object(whole), depth + 1);
            }
        }
        let kind = match object.get("type") {
            Some(Value::String(kind)) => &**kind,
            Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).find(|kind| *kind != "null").unwrap_or("null"),
            _ if object.contains_key("properties") => "object",
            _ if object.contains_key("items") => "array",
            _ => "string",
        };
        match kind {
            "object" => self.object(object, depth),
            "array" => self.array(object, depth),
            "integer" => self.integer(object),
            "number" => self.number(object),
            "boolean" => Value::from(self.dice.below(2) == 0),
            "null" => Value::Null,
            _ => self.text(object),
        }
    }

    fn resolve(&self, schema: &Value) -> Value {
        match schema["$ref"].as_str().and_then(|target| target.strip_prefix('#')).and_then(|pointer| self.root.pointer(pointer)) {
            Some(found) => found.clone(),
            None => schema.clone(),
        }
    }

    fn object(&mut self, schema: &Map<String, Value>, depth: usize) -> Value {
        let required: Vec<&str> = schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
        let mut out = Map::new();
        for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
            if required.contains(&name.as_str()) || depth < DEEPEST {
                out.insert(name.clone(), self.value(property, depth + 1));
            }
        }
        for name in required {
            if !out.contains_key(name) {
                let property = schema.get("additionalProperties").filter(|schema| schema.is_object()).cloned();
                out.insert(name.to_owned(), self.value(&property.unwrap_or(json!({"type": "string"})), depth + 1));
            }
        }
        Value::Object(out)
    }

    fn array(&mut self, schema: &Map<String, Value>, depth: usize) -> Value {
        let bound = |name: &str| schema.get(name).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
        let least = bound("minItems").unwrap_or(if depth < DEEPEST { 1 } else { 0 });
        let n = least.min(bound("maxItems").unwrap_or(usize::MAX)).min(10_000);
        let first = schema.get("prefixItems").and_then(Value::as_array).cloned().unwrap_or_default();
        let rest = schema.get("items").cloned().unwrap_or(json!({"type": "string"}));
        let unique = schema.get("uniqueItems") == Some(&Value::Bool(true));
        let mut items: Vec<Value> = Vec::new();
        while items.len() < n {
            let mut item = self.value(first.get(items.len()).unwrap_or(&rest), depth + 1);
            for tries in 0..50 {
                if !unique || !items.contains(&item) {
                    break;
                }
                item = match &item {
                    Value::Number(n) => n.as_i64().map_or(json!(tries), |n| json!(n + 1)),
                    Value::String(text) => json!(format!("{text}{tries}")),
                    _ => self.value(&rest, depth + 1),
                };
            }
            items.push(item);
        }
        Value::Array(items)
    }

    fn integer(&mut self, schema: &Map<String, Value>) -> Value {
        let bound = |name: &str| schema.get(name).and_then(Value::as_f64);
        #[expect(clippy::cast_possible_truncation, reason = "bounds beyond i64 are beyond any answer")]
        let (least, most) = (
            bound("minimum").map(|n| n.ceil() as i64).or(bound("exclusiveMinimum").map(|n| n.floor() as i64 + 1)),
            bound("maximum").map(|n| n.floor() as i64).or(bound("exclusiveMaximum").map(|n| n.ceil() as i64 - 1)),
        );
        let low = least.unwrap_or_else(|| most.map_or(1, |most| most.min(1)));
        let high = most.unwrap_or(low.saturating_add(98)).max(low);
        let step = schema.get("multipleOf").and_then(Value::as_i64).filter(|step| *step > 0).unwrap_or(1);
        let span = high.saturating_sub(low).min(1_000).unsigned_abs();
        let n = low.saturating_add(i64::try_from(self.dice.below(span + 1)).unwrap_or(0));
        let n = n.div_euclid(step) * step;
        Value::from(if n < low { n.saturating_add(step) } else { n })
    }

    fn number(&mut self, schema: &Map<String, Value>) -> Value {
        let bound = |name: &str| schema.get(name).and_then(Value::as_f64);
        let low = bound("minimum").or(bound("exclusiveMinimum"));
        let high = bound("maximum").or(bound("exclusiveMaximum"));
        let (low, high) = match (low, high) {
            (Some(low), Some(high)) => (low, high),
            (Some(low), None) => (low, low + 10.0),
            (None, Some(high)) => (high - 10.0, high),
            (None, None) => (0.0, 10.0),
        };
        // Inside, so that exclusive bounds hold too; in eighths where there is room, which print short.
        let inside = low + (high - low) * (0.25 + self.dice.fraction() / 2.0);
        let eighth = (inside * 8.0).round() / 8.0;
        json!(if eighth > low && eighth < high { eighth } else { inside })
    }

    fn text(&mut self, schema: &Map<String, Value>) -> Value {
        let fixed = match schema.get("format").and_then(Value::as_str) {
            Some("date-time") => Some("2026-08-21T20:15:01Z"),
            Some("date") => Some("2026-08-21"),
            Some("time") => Some("20:15:01Z"),
            Some("email") => Some("ann@example.com"),
            Some("uri") => Some("https://example.com/"),
            Some("uuid") => Some("123e4567-e89b-42d3-a456-426614174000"),
            Some("ipv4") => Some("127.0.0.1"),
            _ => None,
        };
        if let Some(fixed) = fixed {
            return fixed.into();
        }
        let bound = |name: &str| schema.get(name).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
        let mut text = if self.words.is_empty() {
            self.dice.pick(&["amber", "birch", "cedar", "delta", "ember"]).to_owned()
        } else {
            self.words.remove(0)
        };
        while text.chars().count() < bound("minLength").unwrap_or(0).min(10_000) {
            text.push('a');
        }
        if let Some(most) = bound("maxLength") {
            text = text.chars().take(most).collect();
        }
        text.into()
    }
}

/// Adds what `part` says to `whole`.
fn merge(whole: &mut Map<String, Value>, part: Value) {
    let Value::Object(part) = part else { return };
    for (name, value) in part {
        match (whole.get_mut(&name), value) {
            (Some(Value::Object(old)), Value::Object(new)) => old.extend(new),
            (Some(Value::Array(old)), Value::Array(new)) if name == "required" => old.extend(new),
            (_, value) => {
                whole.insert(name, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(schema: &Value) -> Value {
        satisfy(schema, &mut vec!["Paris".to_owned()], &mut Dice::new(&7))
    }

    #[test]
    fn an_object_has_what_its_schema_asks_for() {
        let schema = json!({"type": "object", "properties": {
            "city": {"type": "string"}, "days": {"type": "integer", "minimum": 3, "maximum": 5}, "unit": {"enum": ["C", "F"]},
            "tags": {"type": "array", "items": {"$ref": "#/$defs/tag"}, "minItems": 2}, "ok": {"const": true},
            "either": {"anyOf": [{"type": "number", "exclusiveMinimum": 1, "maximum": 2}, {"type": "null"}]}},
            "required": ["city", "missing"], "$defs": {"tag": {"type": "string", "maxLength": 3}}});
        let value = made(&schema);
        assert_eq!((&value["city"], &value["ok"]), (&json!("Paris"), &json!(true)));
        assert!((3..=5).contains(&value["days"].as_i64().unwrap()));
        assert!(["C", "F"].contains(&value["unit"].as_str().unwrap()));
        assert_eq!(value["tags"].as_array().unwrap().len(), 2);
        assert!(value["tags"][0].as_str().unwrap().len() <= 3);
        let either = value["either"].as_f64().unwrap();
        assert!(either > 1.0 && either <= 2.0);
        assert!(value["missing"].is_string());
    }

    #[test]
    fn a_recursive_schema_ends() {
        let schema = json!({"$ref": "#/$defs/node", "$defs": {"node": {"type": "object", "required": ["name"],
            "properties": {"name": {"type": "string"}, "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
            "children": {"type": "array", "items": {"$ref": "#/$defs/node"}}}}}});
        assert!(made(&schema)["name"].is_string());
    }

    #[test]
    fn all_of_is_all_of_it() {
        let schema = json!({"allOf": [{"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
            {"properties": {"b": {"type": "boolean"}}, "required": ["b"]}]});
        let value = made(&schema);
        assert!(value["a"].is_i64() && value["b"].is_boolean());
    }
}
