//! JSON that satisfies a JSON Schema, and what llama-server says of one that is none. Pure.
//!
//! Keywords that are obeyed: `type`, `enum`, `const`, `$ref`, `properties`, `required`, `additionalProperties`, `minProperties`, `items`,
//! `prefixItems`, `minItems`, `maxItems`, `uniqueItems`, `minLength`, `maxLength`, `pattern`, `format`, the numeric ones, `allOf`, `anyOf`, `oneOf`.
//! Not obeyed: `not`, `if`, `dependentSchemas`, and exclusiveness of `oneOf`, as in the grammar of the real one.

mod fault;
mod merge;
mod pattern;

use serde_json::{Map, Value, json};

pub(crate) use self::fault::fault;
use self::merge::merge;

/// How deep optional parts are filled in; what is required goes on.
const DEPTH: usize = 6;
/// Where a schema that requires itself without end is given up.
const ABYSS: usize = 40;
/// The most items, properties and characters that are made because a schema wants so many.
const MOST: usize = 10_000;

/// A value that satisfies the schema. Strings are about the hints, and differ with the seed.
pub(crate) fn sample(schema: &Value, hints: &[String], seed: u64) -> Value {
    let mut sampler = Sampler { root: schema, hints, roll: seed };
    sampler.value(schema, 0)
}

/// What `#/a/b` points to.
fn resolve<'a>(root: &'a Value, reference: &str) -> Option<&'a Value> {
    root.pointer(reference.strip_prefix('#')?)
}

struct Sampler<'a> {
    root: &'a Value,
    hints: &'a [String],
    roll: u64,
}

impl Sampler<'_> {
    /// A number below `below`, another one each time.
    fn roll(&mut self, below: usize) -> usize {
        self.roll = self.roll.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.roll >> 33).unwrap_or_default() % below.max(1)
    }

    fn value(&mut self, schema: &Value, depth: usize) -> Value {
        if depth > ABYSS {
            return Value::Null;
        }
        let Some(object) = schema.as_object() else { return self.text(&Map::new()) };
        let mut flat = Map::new();
        self.flatten(object, &mut flat, depth, 0);
        if let Some(value) = flat.get("const") {
            return value.clone();
        }
        if let Some(values) = flat.get("enum").and_then(Value::as_array).filter(|values| !values.is_empty()) {
            let fitting: Vec<&Value> = values.iter().filter(|value| fits(&flat, value)).collect();
            let chosen = self.roll(fitting.len());
            return fitting.get(chosen).map_or(Value::Null, |value| (*value).clone());
        }
        match self.kind(&flat).as_str() {
            "object" => self.object(&flat, depth),
            "array" => self.array(&flat, depth),
            "number" => self.number(&flat, false),
            "integer" => self.number(&flat, true),
            "boolean" => (self.roll(2) == 0).into(),
            "null" => Value::Null,
            _ => self.text(&flat),
        }
    }

    /// One flat schema: references followed, all parts of `allOf` and one of `anyOf` and `oneOf` merged in.
    fn flatten(&mut self, schema: &Map<String, Value>, flat: &mut Map<String, Value>, depth: usize, hops: usize) {
        if hops > ABYSS {
            return;
        }
        if let Some(target) =
            schema.get("$ref").and_then(Value::as_str).and_then(|reference| resolve(self.root, reference))
            && let Some(target) = target.as_object()
        {
            self.flatten(target, flat, depth, hops + 1);
        }
        for part in schema.get("allOf").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_object) {
            self.flatten(part, flat, depth, hops + 1);
        }
        for key in ["anyOf", "oneOf"] {
            let Some(parts) = schema.get(key).and_then(Value::as_array).filter(|parts| !parts.is_empty()) else {
                continue;
            };
            // Deep down the first part that leads nowhere deeper is taken, so that recursion ends.
            let chosen = match parts.iter().position(is_shallow) {
                Some(shallow) if depth > DEPTH => shallow,
                _ => self.roll(parts.len()),
            };
            if let Some(part) = parts[chosen].as_object() {
                self.flatten(part, flat, depth, hops + 1);
            }
        }
        for (key, value) in schema
            .iter()
            .filter(|(key, _)| !matches!(key.as_str(), "$ref" | "allOf" | "anyOf" | "oneOf" | "$defs" | "definitions"))
        {
            merge(flat, key, value);
        }
    }

    fn kind(&mut self, flat: &Map<String, Value>) -> String {
        match flat.get("type") {
            Some(Value::String(kind)) => kind.clone(),
            Some(Value::Array(kinds)) => {
                let kinds: Vec<&str> = kinds.iter().filter_map(Value::as_str).collect();
                let telling: Vec<&str> = kinds.iter().copied().filter(|kind| *kind != "null").collect();
                let chosen = self.roll(telling.len());
                telling.get(chosen).copied().unwrap_or("null").to_owned()
            }
            _ => implied_kind(flat).to_owned(),
        }
    }

    fn object(&mut self, flat: &Map<String, Value>, depth: usize) -> Value {
        let required: Vec<&str> =
            flat.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
        let mut object = Map::new();
        let anything = json!({"type": "string"});
        let others = flat.get("additionalProperties").filter(|others| others.is_object()).unwrap_or(&anything);
        for (name, part) in flat.get("properties").and_then(Value::as_object).into_iter().flatten() {
            if part == &Value::Bool(false) || (depth > DEPTH && !required.contains(&name.as_str())) {
                continue;
            }
            object.insert(name.clone(), self.value(part, depth + 1));
        }
        for name in required {
            if !object.contains_key(name) {
                object.insert(name.to_owned(), self.value(others, depth + 1));
            }
        }
        let least = count(flat, "minProperties").unwrap_or(0).min(MOST);
        for nth in 1.. {
            if object.len() >= least {
                break;
            }
            object.insert(format!("key{nth}"), self.value(others, depth + 1));
        }
        if object.is_empty() && flat.get("additionalProperties").is_some_and(Value::is_object) && depth <= DEPTH {
            object.insert("key1".to_owned(), self.value(others, depth + 1));
        }
        object.into()
    }

    fn array(&mut self, flat: &Map<String, Value>, depth: usize) -> Value {
        let least = count(flat, "minItems").unwrap_or(0).min(MOST);
        let most = count(flat, "maxItems").unwrap_or(usize::MAX);
        let first: Vec<&Value> = flat.get("prefixItems").and_then(Value::as_array).into_iter().flatten().collect();
        let others = match flat.get("items") {
            Some(Value::Bool(false)) => None,
            Some(items) => Some(items.clone()),
            None => Some(json!({"type": "string"})),
        };
        let usual = if depth > DEPTH { 0 } else { first.len().max(1 + self.roll(2)) };
        let len = usual.max(least).min(most);
        let is_unique = flat.get("uniqueItems") == Some(&Value::Bool(true));
        let mut items: Vec<Value> = Vec::new();
        for nth in 0..len {
            let Some(part) = first.get(nth).copied().or(others.as_ref()) else { break };
            let part = part.clone();
            let mut item = self.value(&part, depth + 1);
            for _ in 0..100 {
                if !is_unique || !items.contains(&item) {
                    break;
                }
                item = self.value(&part, depth + 1);
            }
            if is_unique && items.contains(&item) {
                break;
            }
            items.push(item);
        }
        items.into()
    }

    fn number(&mut self, flat: &Map<String, Value>, is_integer: bool) -> Value {
        let bound = |key: &str| flat.get(key).and_then(Value::as_f64);
        let step = bound("multipleOf").filter(|step| *step > 0.0).unwrap_or(if is_integer { 1.0 } else { 0.5 });
        let step = if is_integer && step.fract() != 0.0 { 1.0 } else { step };
        let least = bound("minimum").or_else(|| bound("exclusiveMinimum"));
        let most = bound("maximum").or_else(|| bound("exclusiveMaximum"));
        let (low, high) = match (least, most) {
            (Some(low), Some(high)) => (low, high),
            (Some(low), None) => (low, low + 100.0 * step),
            (None, Some(high)) => (high - 100.0 * step, high),
            (None, None) => (step, 100.0 * step),
        };
        let fits = |n: f64| {
            bound("minimum").is_none_or(|low| n >= low)
                && bound("maximum").is_none_or(|high| n <= high)
                && bound("exclusiveMinimum").is_none_or(|low| n > low)
                && bound("exclusiveMaximum").is_none_or(|high| n < high)
        };
        let (first, last) = ((low / step).ceil(), (high / step).floor());
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most 100 steps are counted")]
        let steps = (last - first).clamp(0.0, 100.0) as usize;
        let rolled = (first + small(self.roll(steps + 1))) * step;
        let candidates = [rolled, first * step, (first + 1.0) * step, f64::midpoint(low, high)];
        let chosen = candidates.into_iter().find(|n| fits(*n)).unwrap_or(rolled);
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a float beyond 64 bits is not an integer that anyone asks for"
        )]
        if is_integer { json!(chosen as i64) } else { json!(chosen) }
    }

    fn text(&mut self, flat: &Map<String, Value>) -> Value {
        let roll = self.roll(1000);
        if let Some(text) =
            flat.get("pattern").and_then(Value::as_str).and_then(|pattern| pattern::sample(pattern, roll))
        {
            return text.into();
        }
        let text = match flat.get("format").and_then(Value::as_str) {
            Some("date") => format!("2026-{:02}-{:02}", roll % 12 + 1, roll % 28 + 1),
            Some("time") => format!("{:02}:{:02}:00Z", roll % 24, roll % 60),
            Some("date-time") => format!("2026-{:02}-{:02}T{:02}:00:00Z", roll % 12 + 1, roll % 28 + 1, roll % 24),
            Some("duration") => format!("PT{}S", roll + 1),
            Some("email") => format!("user{roll}@example.com"),
            Some("hostname") => format!("host{roll}.example.com"),
            Some("ipv4") => format!("192.0.2.{}", roll % 255),
            Some("ipv6") => format!("2001:db8::{roll:x}"),
            Some("uri" | "url" | "uri-reference") => format!("https://example.com/{roll}"),
            Some("uuid") => format!("00000000-0000-4000-8000-{roll:012x}"),
            _ => self.hint(roll),
        };
        let least = count(flat, "minLength").unwrap_or(0).min(MOST);
        let most = count(flat, "maxLength").unwrap_or(usize::MAX);
        let filler = std::iter::repeat("abcdefghij".chars()).flatten();
        let missing = least.saturating_sub(text.chars().count());
        text.chars().chain(filler.take(missing)).take(most).collect::<String>().into()
    }

    /// The hints in their order, then words with a number.
    fn hint(&mut self, roll: usize) -> String {
        match self.hints.split_first() {
            Some((first, rest)) => {
                self.hints = rest;
                first.clone()
            }
            None => format!("text {roll}"),
        }
    }
}

fn small(n: usize) -> f64 {
    f64::from(u32::try_from(n).unwrap_or(u32::MAX))
}

fn count(flat: &Map<String, Value>, key: &str) -> Option<usize> {
    flat.get(key).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok())
}

/// Whether a schema has no parts of its own that might lead back to it.
fn is_shallow(schema: &Value) -> bool {
    !["$ref", "properties", "items", "allOf", "anyOf", "oneOf", "prefixItems"]
        .iter()
        .any(|key| schema.get(key).is_some())
}

fn implied_kind(flat: &Map<String, Value>) -> &'static str {
    let has = |keys: &[&str]| keys.iter().any(|key| flat.contains_key(*key));
    if has(&["properties", "required", "additionalProperties", "minProperties"]) {
        "object"
    } else if has(&["items", "prefixItems", "minItems", "maxItems", "uniqueItems"]) {
        "array"
    } else if has(&["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"]) {
        "number"
    } else {
        "string"
    }
}

/// Whether a value of an `enum` has the type that stands beside it.
fn fits(flat: &Map<String, Value>, value: &Value) -> bool {
    let is = |kind: &str| match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        _ => false,
    };
    match flat.get("type") {
        Some(Value::String(kind)) => is(kind),
        Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).any(is),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A plain reading of the keywords that are obeyed; written apart from the sampler, so that both would have to err alike.
    fn satisfies(root: &Value, schema: &Value, value: &Value) -> bool {
        let Some(schema) = schema.as_object() else { return schema != &Value::Bool(false) };
        let number = |key: &str| schema.get(key).and_then(Value::as_f64);
        let list = |key: &str| schema.get(key).and_then(Value::as_array);
        let is = |kind: &str| match (kind, value) {
            ("object", Value::Object(_))
            | ("array", Value::Array(_))
            | ("string", Value::String(_))
            | ("boolean", Value::Bool(_))
            | ("null", Value::Null)
            | ("number", Value::Number(_)) => true,
            ("integer", Value::Number(n)) => n.as_f64().unwrap().fract() == 0.0,
            _ => false,
        };
        let kind = match schema.get("type") {
            Some(Value::String(kind)) => is(kind),
            Some(Value::Array(kinds)) => kinds.iter().any(|kind| is(kind.as_str().unwrap())),
            _ => true,
        };
        let sized = |size: usize, least: &str, most: &str| {
            number(least).is_none_or(|least| size as f64 >= least)
                && number(most).is_none_or(|most| size as f64 <= most)
        };
        kind && schema.get("const").is_none_or(|wanted| wanted == value)
            && list("enum").is_none_or(|values| values.contains(value))
            && schema
                .get("$ref")
                .is_none_or(|to| satisfies(root, root.pointer(&to.as_str().unwrap()[1..]).unwrap(), value))
            && list("allOf").is_none_or(|parts| parts.iter().all(|part| satisfies(root, part, value)))
            && ["anyOf", "oneOf"]
                .iter()
                .all(|key| list(key).is_none_or(|parts| parts.iter().any(|part| satisfies(root, part, value))))
            && match value {
                Value::String(text) => {
                    let pattern =
                        schema.get("pattern").map(|pattern| regex::Regex::new(pattern.as_str().unwrap()).unwrap());
                    sized(text.chars().count(), "minLength", "maxLength")
                        && pattern.is_none_or(|pattern| pattern.is_match(text))
                }
                Value::Number(n) => {
                    let n = n.as_f64().unwrap();
                    number("minimum").is_none_or(|low| n >= low)
                        && number("maximum").is_none_or(|high| n <= high)
                        && number("exclusiveMinimum").is_none_or(|low| n > low)
                        && number("exclusiveMaximum").is_none_or(|high| n < high)
                        && number("multipleOf").is_none_or(|step| (n / step).fract() == 0.0)
                }
                Value::Array(items) => {
                    let first = list("prefixItems").map_or(0, Vec::len);
                    sized(items.len(), "minItems", "maxItems")
                        && items
                            .iter()
                            .take(first)
                            .zip(list("prefixItems").into_iter().flatten())
                            .all(|(item, part)| satisfies(root, part, item))
                        && items
                            .iter()
                            .skip(first)
                            .all(|item| schema.get("items").is_none_or(|part| satisfies(root, part, item)))
                        && (schema.get("uniqueItems") != Some(&Value::Bool(true))
                            || (1..items.len()).all(|nth| !items[..nth].contains(&items[nth])))
                }
                Value::Object(object) => {
                    let known = schema.get("properties").and_then(Value::as_object);
                    list("required")
                        .is_none_or(|names| names.iter().all(|name| object.contains_key(name.as_str().unwrap())))
                        && number("minProperties").is_none_or(|least| object.len() as f64 >= least)
                        && object.iter().all(|(name, value)| match known.and_then(|known| known.get(name)) {
                            Some(part) => satisfies(root, part, value),
                            None => schema.get("additionalProperties").is_none_or(|part| satisfies(root, part, value)),
                        })
                }
                _ => true,
            }
    }

    fn check(schema: &Value) {
        for seed in 0..40 {
            let value = sample(schema, &["Paris".to_owned()], seed);
            assert!(satisfies(schema, schema, &value), "{schema} → {value}");
        }
    }

    #[test]
    fn samples_satisfy_schemas_of_every_kind() {
        for schema in [
            json!({"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}, "required": ["name", "age"]}),
            json!({"enum": ["a", 1, null], "type": "string"}),
            json!({"const": {"a": [1]}}),
            json!({"type": ["null", "boolean"]}),
            json!({"type": "array", "items": {"type": "number", "exclusiveMinimum": 0, "maximum": 0.25}, "minItems": 3, "maxItems": 4}),
            json!({"type": "array", "items": {"type": "integer", "minimum": 1, "maximum": 5}, "minItems": 5, "uniqueItems": true}),
            json!({"type": "array", "prefixItems": [{"type": "string"}, {"type": "null"}], "items": false, "minItems": 2}),
            json!({"type": "integer", "multipleOf": 7, "minimum": 15, "exclusiveMaximum": 28}),
            json!({"type": "integer", "minimum": -3, "maximum": -3}),
            json!({"type": "string", "minLength": 30, "maxLength": 31}),
            json!({"type": "string", "maxLength": 2}),
            json!({"type": "string", "pattern": "^[A-Z]{3}-\\d{2,4}$"}),
            json!({"type": "object", "additionalProperties": {"type": "integer"}, "minProperties": 3}),
            json!({"type": "object", "required": ["x"], "additionalProperties": {"type": "boolean"}}),
            json!({"anyOf": [{"type": "string"}, {"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"]}]}),
            json!({"allOf": [{"properties": {"a": {"minimum": 3}}}, {"properties": {"a": {"type": "integer", "maximum": 4}}, "required": ["a"]}]}),
            json!({"$ref": "#/$defs/node", "$defs": {"node": {"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}, "all": {"type": "array", "items": {"$ref": "#"}}}, "required": ["next"]}}}),
        ] {
            assert_eq!(fault(&schema), None, "{schema}");
            check(&schema);
        }
    }

    #[test]
    fn strings_are_about_the_hints() {
        let schema = json!({"type": "object", "properties": {"city": {"type": "string"}}});
        assert_eq!(sample(&schema, &["Paris".to_owned()], 1), json!({"city": "Paris"}));
    }

    fn schemas() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(json!({"type": "string"})),
            (0_u64..9, 0_u64..9)
                .prop_map(|(least, more)| json!({"type": "string", "minLength": least, "maxLength": least + more})),
            (-50_i64..50, 0_i64..50)
                .prop_map(|(low, more)| json!({"type": "integer", "minimum": low, "maximum": low + more})),
            (-50.0..50.0_f64).prop_map(|low| json!({"type": "number", "exclusiveMinimum": low})),
            Just(json!({"type": ["boolean", "null"]})),
            Just(json!({"enum": ["a", "b", 3]})),
            Just(json!({})),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                (proptest::collection::vec(inner.clone(), 0..4), any::<bool>()).prop_map(|(parts, all)| {
                    let names: Vec<String> = (0..parts.len()).map(|nth| format!("p{nth}")).collect();
                    let required = if all { names.clone() } else { Vec::new() };
                    let properties: Map<String, Value> = names.into_iter().zip(parts).collect();
                    json!({"type": "object", "properties": properties, "required": required})
                }),
                (inner.clone(), 0_u64..4, 0_u64..3).prop_map(|(part, least, more)| json!({"type": "array", "items": part, "minItems": least, "maxItems": least + more})),
                proptest::collection::vec(inner.clone(), 1..4).prop_map(|parts| json!({"anyOf": parts})),
                inner.prop_map(|part| json!({"$ref": "#/$defs/part", "$defs": {"part": part}})),
            ]
        })
    }

    /// References are to the root, so only the root may have definitions.
    fn has_inner_definitions(schema: &Value) -> bool {
        schema.to_string().matches("$defs").count() > 2
    }

    proptest! {
        #[test]
        fn any_schema_gets_a_value_that_satisfies_it(schema in schemas(), seed: u64) {
            prop_assume!(!has_inner_definitions(&schema) && fault(&schema).is_none());
            let value = sample(&schema, &[], seed);
            prop_assert!(satisfies(&schema, &schema, &value), "{} → {}", schema, value);
        }

        #[test]
        fn no_json_makes_it_panic(text in "[\\[\\]{}\":,a-c0-9$#/]{0,40}", seed: u64) {
            if let Ok(schema) = serde_json::from_str::<Value>(&text) {
                let _ = (fault(&schema), sample(&schema, &[], seed));
            }
        }
    }
}
