//! JSON that llama-server's grammar for a JSON Schema allows, and what it says of a schema that it cannot use. Pure.
//!
//! What Ollama ignores is broken on purpose, so that a test that relies on it fails: bounds of numbers, `multipleOf`,
//! `uniqueItems`, `format`s other than dates and UUIDs, `minProperties`, lengths of arrays without `items`, types
//! beside `enum`. Which keywords are obeyed, in which order, is in [`shape`].

mod fault;
mod pattern;
mod refs;
mod shape;

use std::borrow::Cow;

use serde_json::{Map, Value, json};

pub(crate) use self::fault::{Fault, fault};
use self::{
    refs::Refs,
    shape::{Object, Others, Shape},
};

/// How deep optional parts are filled in; what is required goes on.
const DEPTH: usize = 6;
/// Where a schema that requires itself without end is given up.
const ABYSS: usize = 40;
/// The most items and characters that are made because a schema wants so many.
const MOST: usize = 10_000;

/// A value that the schema's grammar allows. Strings are about the hints, and differ with the seed.
pub(crate) fn sample(schema: &Value, hints: &[String], seed: u64) -> Value {
    let (refs, _) = Refs::of(schema);
    let mut sampler = Sampler { refs: &refs, hints, roll: seed };
    // A property without a name takes the place of the whole schema in the grammar (recorded: structured/odd-names).
    let unnamed = match shape::of(schema, &|reference| refs.get(reference)) {
        Shape::Object(object) => object.properties.iter().find(|(name, ..)| name.is_empty()).map(|(_, part, _)| *part),
        _ => None,
    };
    sampler.value(unnamed.unwrap_or(schema), 0)
}

struct Sampler<'a> {
    refs: &'a Refs,
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
        let refs = self.refs;
        match shape::of(schema, &|reference| refs.get(reference)) {
            Shape::Ref(reference) => match refs.get(reference) {
                Some(target) => self.value(target, depth + 1),
                None => self.any_object(&Map::new()),
            },
            Shape::Union(parts) => self.one_of(&parts, depth),
            Shape::Literals(values) => self.literal(schema, &values),
            Shape::Object(object) => self.object(&object, depth),
            Shape::Tuple(items) => items.iter().map(|item| self.value(item, depth + 1)).collect(),
            Shape::Array { item, least, most } => self.array(schema, item, (least, most), depth),
            Shape::Pattern(pattern) => {
                let roll = self.roll(1000);
                pattern::sample(pattern, roll).unwrap_or_else(|| self.hint(roll)).into()
            }
            Shape::Uuid => format!("00000000-0000-4000-8000-{:012x}", self.roll(1000)).into(),
            Shape::Time(format) => self.time(format).into(),
            Shape::Text { least, most } => self.text(least, most).into(),
            Shape::Integer { least, most } => self.integer(schema, least, most).into(),
            Shape::Primitive("array") => any_array(schema),
            Shape::Primitive("boolean") => (self.roll(2) == 0).into(),
            Shape::Primitive("null") => Value::Null,
            Shape::Primitive(kind @ ("integer" | "number")) => self.number(schema, kind == "integer"),
            Shape::AnyObject => self.any_object(schema.as_object().unwrap_or(&Map::new())),
            Shape::Primitive(_) | Shape::AnyValue | Shape::Unrecognized => self.text(0, usize::MAX).into(),
        }
    }

    /// Deep down the first part that leads nowhere deeper is taken, so that recursion ends; null only where there is
    /// nothing else.
    fn one_of(&mut self, parts: &[Cow<'_, Value>], depth: usize) -> Value {
        let is_null = |part: &Value| part.get("type").is_some_and(|kind| kind == "null");
        if depth > DEPTH
            && let Some(shallow) = parts.iter().find(|part| is_shallow(part))
        {
            return self.value(shallow, depth + 1);
        }
        let is_nullable_type = matches!(parts.first(), Some(Cow::Owned(_)));
        let choices: Vec<&Cow<'_, Value>> = parts.iter().filter(|part| !is_nullable_type || !is_null(part)).collect();
        let chosen = self.roll(choices.len());
        match choices.get(chosen) {
            Some(part) => self.value(part, depth + 1),
            None => Value::Null,
        }
    }

    /// A value of an `enum`; one that the type beside it would not allow, if there is one.
    fn literal(&mut self, schema: &Value, values: &[&Value]) -> Value {
        let odd: Vec<&Value> = values.iter().copied().filter(|value| !fits(schema, value)).collect();
        let among = if odd.is_empty() { values } else { &odd };
        let chosen = self.roll(among.len());
        among.get(chosen).map_or(Value::Null, |value| (*value).clone())
    }

    fn object(&mut self, shape: &Object<'_>, depth: usize) -> Value {
        let mut object = Map::new();
        for (name, part, is_required) in &shape.properties {
            if depth <= DEPTH || *is_required {
                object.insert((*name).to_owned(), self.value(part, depth + 1));
            }
        }
        let other = match shape.others {
            Others::None => None,
            Others::Any => Some(json!(self.roll(100))),
            Others::Of(part) => (depth <= DEPTH).then(|| self.value(part, depth + 1)),
        };
        object.extend(other.map(|other| ("key1".to_owned(), other)));
        object.into()
    }

    /// Any object: one property, or none where there should be more.
    fn any_object(&mut self, schema: &Map<String, Value>) -> Value {
        let wanted = schema.get("minProperties").and_then(Value::as_u64).unwrap_or_default();
        if wanted > 0 { json!({}) } else { json!({"b": self.roll(100)}) }
    }

    fn array(&mut self, schema: &Value, item: &Value, (least, most): (usize, usize), depth: usize) -> Value {
        let usual = if depth > DEPTH { 0 } else { 1 + self.roll(2) };
        let repeats = schema.get("uniqueItems") == Some(&Value::Bool(true));
        let usual = if repeats { usual.max(2) } else { usual };
        let len = usual.max(least.min(MOST)).min(most);
        let mut items: Vec<Value> = Vec::new();
        for _ in 0..len {
            let next = match items.first() {
                Some(first) if repeats => first.clone(),
                _ => self.value(item, depth + 1),
            };
            items.push(next);
        }
        items.into()
    }

    /// An integer between bounds, which are obeyed, and no multiple of what it should be one of.
    fn integer(&mut self, schema: &Value, least: i64, most: i64) -> i64 {
        let low = if least == i64::MIN { most.saturating_sub(100) } else { least };
        let high = if most == i64::MAX { low.saturating_add(100) } else { most.max(low) };
        let span = usize::try_from(high.saturating_sub(low).saturating_add(1)).unwrap_or(usize::MAX).min(1000);
        let rolled = low.saturating_add(i64::try_from(self.roll(span)).unwrap_or_default());
        let step = schema.get("multipleOf").and_then(Value::as_i64).filter(|step| *step > 1);
        match step {
            Some(step) if rolled % step == 0 && rolled < high => rolled + 1,
            Some(step) if rolled % step == 0 && rolled > low => rolled - 1,
            _ => rolled,
        }
    }

    /// A number out of its bounds, and no multiple of what it should be one of: Ollama obeys neither.
    fn number(&mut self, schema: &Value, is_integer: bool) -> Value {
        let bound = |key: &str| schema.get(key).and_then(Value::as_f64);
        let rolled = small(1 + self.roll(100));
        let low = bound("minimum").or_else(|| bound("exclusiveMinimum"));
        let high = bound("maximum").or_else(|| bound("exclusiveMaximum"));
        let mut number = match (low, high) {
            (Some(low), _) => low - rolled,
            (None, Some(high)) => high + rolled,
            (None, None) => rolled,
        };
        if let Some(step) = bound("multipleOf").filter(|step| *step > 0.0 && (number / step).fract() == 0.0) {
            number += if is_integer && step > 1.0 { 1.0 } else { step / 3.0 };
        }
        #[expect(clippy::cast_possible_truncation, reason = "such numbers are small")]
        if is_integer || number.fract() == 0.0 { json!(number.trunc() as i64) } else { json!(number) }
    }

    fn time(&mut self, format: &str) -> String {
        let roll = self.roll(1000);
        let date = format!("2026-{:02}-{:02}", roll % 12 + 1, roll % 28 + 1);
        let time = format!("{:02}:{:02}:00Z", roll % 24, roll % 60);
        match format {
            "date" => date,
            "time" => time,
            _ => format!("{date}T{time}"),
        }
    }

    fn text(&mut self, least: usize, most: usize) -> String {
        let roll = self.roll(1000);
        let text = self.hint(roll);
        let filler = std::iter::repeat("abcdefghij".chars()).flatten();
        let missing = least.min(MOST).saturating_sub(text.chars().count());
        text.chars().chain(filler.take(missing)).take(most).collect()
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

/// An array without a schema of its items: its length is not obeyed.
fn any_array(schema: &Value) -> Value {
    let bound = |key: &str| schema.get(key).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
    match (bound("minItems"), bound("maxItems")) {
        (Some(least), _) if least > 0 => json!([]),
        (_, Some(most)) => vec![json!(1); most.min(MOST) + 1].into(),
        _ => json!(["a"]),
    }
}

fn small(n: usize) -> f64 {
    f64::from(u32::try_from(n).unwrap_or(u32::MAX))
}

/// Whether a schema has no parts of its own that might lead back to it.
fn is_shallow(schema: &Value) -> bool {
    !["$ref", "properties", "items", "allOf", "anyOf", "oneOf", "prefixItems"]
        .iter()
        .any(|key| schema.get(key).is_some())
}

/// Whether a value of an `enum` has the type that stands beside it.
fn fits(schema: &Value, value: &Value) -> bool {
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
    schema.get("type").and_then(Value::as_str).is_none_or(is)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A plain reading of what grammars obey; written apart from the sampler, so that both would have to err alike.
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
        if let Some(to) = schema.get("$ref") {
            return satisfies(root, root.pointer(&to.as_str().unwrap()[1..]).unwrap(), value);
        }
        if let Some(parts) = list("oneOf").or(list("anyOf")) {
            return parts.iter().any(|part| satisfies(root, part, value));
        }
        if let Some(wanted) = schema.get("const") {
            return wanted == value;
        }
        if let Some(values) = list("enum") {
            return values.contains(value);
        }
        let kind = match schema.get("type") {
            Some(Value::String(kind)) => is(kind),
            Some(Value::Array(kinds)) => kinds.iter().any(|kind| is(kind.as_str().unwrap())),
            _ => true,
        };
        let sized = |size: usize, least: &str, most: &str| {
            number(least).is_none_or(|least| size as f64 >= least)
                && number(most).is_none_or(|most| size as f64 <= most)
        };
        kind && match value {
            Value::String(text) => {
                let pattern =
                    schema.get("pattern").map(|pattern| regex::Regex::new(pattern.as_str().unwrap()).unwrap());
                sized(text.chars().count(), "minLength", "maxLength")
                    && pattern.is_none_or(|pattern| pattern.is_match(text))
            }
            Value::Number(n) if schema.get("type").is_some_and(|kind| kind == "integer") => {
                let n = n.as_f64().unwrap();
                number("minimum").is_none_or(|low| n >= low)
                    && number("maximum").is_none_or(|high| n <= high)
                    && number("exclusiveMinimum").is_none_or(|low| n > low)
                    && number("exclusiveMaximum").is_none_or(|high| n < high)
            }
            Value::Array(items) if schema.contains_key("items") => {
                sized(items.len(), "minItems", "maxItems")
                    && items.iter().all(|item| satisfies(root, &schema["items"], item))
            }
            Value::Object(object) if schema.contains_key("properties") => {
                let known = schema["properties"].as_object().unwrap();
                let required: Vec<&String> = known
                    .keys()
                    .filter(|name| list("required").is_some_and(|names| names.iter().any(|other| other == *name)))
                    .collect();
                let order = |names: Vec<&String>| {
                    names.iter().map(|name| known.keys().position(|known| known == *name)).collect::<Vec<_>>()
                };
                required.iter().all(|name| object.contains_key(*name))
                    && order(object.keys().filter(|name| known.contains_key(*name)).collect()).is_sorted()
                    && object.iter().all(|(name, value)| match known.get(name) {
                        Some(part) => satisfies(root, part, value),
                        None => match schema.get("additionalProperties") {
                            Some(Value::Bool(allowed)) => *allowed,
                            Some(part) => satisfies(root, part, value),
                            None => false,
                        },
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
    fn samples_obey_what_grammars_obey() {
        for schema in [
            json!({"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}, "required": ["name", "age"]}),
            json!({"const": {"a": [1]}}),
            json!({"type": ["null", "boolean"]}),
            json!({"type": "array", "items": {"type": "integer", "minimum": 1, "maximum": 5}, "minItems": 5}),
            json!({"type": "array", "items": {"type": "null"}, "maxItems": 0}),
            json!({"type": "integer", "minimum": 15, "exclusiveMaximum": 28}),
            json!({"type": "integer", "minimum": -3, "maximum": -3}),
            json!({"type": "string", "minLength": 30, "maxLength": 31}),
            json!({"type": "string", "maxLength": 2}),
            json!({"type": "string", "pattern": "^[A-Z]{3}-[0-9]{2,4}$"}),
            json!({"properties": {"a": {"const": 1}}, "additionalProperties": {"type": "boolean"}}),
            json!({"anyOf": [{"type": "string"}, {"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"]}]}),
            json!({"$ref": "#/$defs/node", "$defs": {"node": {"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}, "all": {"type": "array", "items": {"$ref": "#/$defs/node"}}}, "required": ["next"]}}}),
        ] {
            assert_eq!(fault(&schema), None, "{schema}");
            check(&schema);
        }
    }

    #[test]
    fn what_ollama_ignores_is_broken_on_purpose() {
        let of = |schema: &Value, seed: u64| sample(schema, &["Paris".to_owned()], seed);
        let number = |value: Value| value.as_f64().unwrap();
        for seed in 0..40 {
            assert!(number(of(&json!({"type": "number", "minimum": 100}), seed)) < 100.0);
            assert!(number(of(&json!({"type": "number", "exclusiveMaximum": 3}), seed)) > 3.0);
            assert_ne!(number(of(&json!({"type": "integer", "multipleOf": 10}), seed)) % 10.0, 0.0);
            assert_ne!(number(of(&json!({"type": "number", "multipleOf": 0.5}), seed)) % 0.5, 0.0);
            let bounded = number(of(&json!({"type": "integer", "minimum": 10, "maximum": 19, "multipleOf": 5}), seed));
            assert!((10.0..=19.0).contains(&bounded) && bounded % 5.0 != 0.0);
            let same = json!({"type": "array", "items": {"enum": [1, 2]}, "minItems": 3, "uniqueItems": true});
            let same = of(&same, seed);
            assert!(same[0] == same[1] && same[1] == same[2], "{same}");
            assert_eq!(of(&json!({"type": "string", "format": "email"}), seed), "Paris");
            assert_eq!(of(&json!({"type": "string", "not": {"const": "Paris"}}), seed), "Paris");
            assert_eq!(of(&json!({"type": "string", "enum": ["a", 1, "b"]}), seed), 1);
            assert_eq!(of(&json!({"type": "object", "minProperties": 1}), seed), json!({}));
            assert_eq!(of(&json!({"type": "array", "minItems": 2}), seed), json!([]));
            assert_eq!(of(&json!({"type": "array", "maxItems": 2}), seed).as_array().unwrap().len(), 3);
            let named = json!({"type": "object", "patternProperties": {"^x": {}}, "propertyNames": {"pattern": "^x"}});
            assert!(of(&named, seed).get("b").is_some());
            let chosen =
                json!({"properties": {"a": {"const": 1}}, "if": {}, "then": {"required": ["b"]}, "required": ["c"]});
            assert_eq!(of(&chosen, seed), json!({"a": 1}), "no property that is not described");
            let all = json!({"allOf": [{"properties": {"x": {"const": 1}}}, {"properties": {"y": {"const": 2}}, "required": []}]});
            assert_eq!(of(&all, seed), json!({"x": 1, "y": 2}));
            let beside = json!({"type": "object", "properties": {"a": {}}, "anyOf": [{"required": ["a"]}]});
            assert!(of(&beside, seed).is_string(), "nothing beside anyOf counts");
            assert!(of(&json!({"$ref": "https://example.com/x.json"}), seed).is_object());
            assert!(of(&json!({}), seed).is_object());
            assert!(of(&json!({"description": "a number"}), seed).is_string());
            let others =
                of(&json!({"type": "object", "properties": {"a": {"const": 1}}, "additionalProperties": true}), seed);
            assert_eq!(others.as_object().unwrap().len(), 2, "what may be there is there");
        }
    }

    #[test]
    fn members_come_in_the_order_of_properties() {
        let schema =
            json!({"properties": {"zeta": {"type": "null"}, "alpha": {"type": "null"}}, "required": ["alpha", "zeta"]});
        assert_eq!(sample(&schema, &[], 1).to_string(), "{\"zeta\":null,\"alpha\":null}");
    }

    #[test]
    fn a_property_without_a_name_takes_the_place_of_the_whole() {
        let schema = json!({"properties": {"a": {"type": "null"}, "": {"const": 7}}});
        assert_eq!(sample(&schema, &[], 1), json!(7));
        let inner = json!({"properties": {"a": {"properties": {"": {"const": 7}}}}});
        assert_eq!(sample(&inner, &[], 1), json!({"a": {"": 7}}));
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
            Just(json!({"type": "number"})),
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
        let mentions = schema.to_string().matches("$defs").count();
        mentions > 2 || (mentions > 0 && schema.get("$defs").is_none())
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
