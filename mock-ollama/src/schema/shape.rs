//! What llama-server makes of one schema, keyword by keyword in its order: the first that applies decides, and its
//! neighbors are ignored (recorded: 0.33.0-rc2 `structured/*`; order and texts: llama.cpp's conversion of schemas to
//! grammars).

use std::borrow::Cow;

use serde_json::{Map, Value};

/// One schema without its parts.
#[derive(Debug, PartialEq)]
pub(super) enum Shape<'a> {
    Ref(&'a str),
    /// One of these schemas, whatever stands beside them.
    Union(Vec<Cow<'a, Value>>),
    /// One of these values, whatever their types.
    Literals(Vec<&'a Value>),
    Object(Object<'a>),
    Tuple(&'a [Value]),
    Array {
        item: &'a Value,
        least: usize,
        most: usize,
    },
    Pattern(&'a str),
    Uuid,
    /// `date`, `time` or `date-time`.
    Time(&'a str),
    Text {
        least: usize,
        most: usize,
    },
    Integer {
        least: i64,
        most: i64,
    },
    /// A type with nothing that is obeyed.
    Primitive(&'a str),
    AnyObject,
    AnyValue,
    Unrecognized,
}

/// An object with known properties.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Object<'a> {
    /// Names, schemas, and whether they must be there; in their order.
    pub(super) properties: Vec<(&'a str, &'a Value, bool)>,
    pub(super) others: Others<'a>,
}

/// What else may stand in an object.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) enum Others<'a> {
    /// Left out counts as false.
    #[default]
    None,
    Any,
    Of(&'a Value),
}

const PRIMITIVES: [&str; 9] = ["boolean", "number", "integer", "value", "object", "array", "string", "null", "char"];

/// Properties of an object; of anything else, none.
fn properties(value: Option<&Value>) -> impl Iterator<Item = (&str, &Value)> {
    value.and_then(Value::as_object).into_iter().flatten().map(|(name, part)| (name.as_str(), part))
}

fn list<'a>(object: &'a Map<String, Value>, key: &str) -> Option<&'a [Value]> {
    object.get(key).and_then(Value::as_array).map(Vec::as_slice)
}

fn count(object: &Map<String, Value>, key: &str, absent: usize) -> usize {
    object.get(key).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok()).unwrap_or(absent)
}

/// A bound as 64 bits; fractions are cut off.
fn bound(object: &Map<String, Value>, key: &str) -> Option<i64> {
    let value = object.get(key)?;
    #[expect(clippy::cast_possible_truncation, reason = "llama-server truncates too")]
    value.as_i64().or_else(|| value.as_f64().map(|float| float as i64))
}

/// The shape of a schema; `resolve` gives the target of a reference, for `allOf`.
pub(super) fn of<'a>(schema: &'a Value, resolve: &dyn Fn(&str) -> Option<&'a Value>) -> Shape<'a> {
    let Some(object) = schema.as_object() else {
        let is_empty = schema.is_null() || schema.as_array().is_some_and(Vec::is_empty);
        return if is_empty { Shape::AnyObject } else { Shape::Unrecognized };
    };
    let has = |key: &str| object.contains_key(key);
    if let Some(target) = object.get("$ref").and_then(Value::as_str) {
        return Shape::Ref(target);
    }
    if let Some(parts) = list(object, "oneOf").or_else(|| list(object, "anyOf")) {
        return Shape::Union(parts.iter().map(Cow::Borrowed).collect());
    }
    let kind = match object.get("type") {
        Some(Value::Array(kinds)) => {
            let copy = |kind: &Value| {
                let mut copy = object.clone();
                copy.insert("type".to_owned(), kind.clone());
                Cow::Owned(Value::Object(copy))
            };
            return Shape::Union(kinds.iter().map(copy).collect());
        }
        None | Some(Value::Null) => None,
        Some(kind) => Some(kind),
    };
    let is = |wanted: &str| kind.is_some_and(|kind| kind == wanted);
    let may_be = |wanted: &str| kind.is_none() || is(wanted);
    if let Some(value) = object.get("const") {
        return Shape::Literals(vec![value]);
    }
    if let Some(values) = list(object, "enum") {
        return Shape::Literals(values.iter().collect());
    }
    let others = object.get("additionalProperties");
    if may_be("object") && (has("properties") || others.is_some_and(|others| others != &Value::Bool(true))) {
        let required = list(object, "required").unwrap_or_default();
        let is_required = |name: &str| required.iter().any(|required| required == name);
        let properties = properties(object.get("properties")).map(|(name, part)| (name, part, is_required(name)));
        let others = match others {
            Some(Value::Bool(true)) => Others::Any,
            Some(part @ Value::Object(_)) => Others::Of(part),
            _ => Others::None,
        };
        return Shape::Object(Object { properties: properties.collect(), others });
    }
    if (may_be("object") || is("string"))
        && let Some(parts) = list(object, "allOf")
    {
        return all_of(parts, resolve);
    }
    if may_be("array")
        && let Some(items) = object.get("items").or_else(|| object.get("prefixItems"))
    {
        return match items {
            Value::Array(items) => Shape::Tuple(items),
            item => {
                Shape::Array { item, least: count(object, "minItems", 0), most: count(object, "maxItems", usize::MAX) }
            }
        };
    }
    if may_be("string") {
        if let Some(pattern) = object.get("pattern").and_then(Value::as_str) {
            return Shape::Pattern(pattern);
        }
        match object.get("format").and_then(Value::as_str) {
            Some("uuid" | "uuid1" | "uuid2" | "uuid3" | "uuid4" | "uuid5") => return Shape::Uuid,
            Some(format @ ("date" | "time" | "date-time")) => return Shape::Time(format),
            _ => {}
        }
    }
    if is("string") && (has("minLength") || has("maxLength")) {
        return Shape::Text { least: count(object, "minLength", 0), most: count(object, "maxLength", usize::MAX) };
    }
    let bounds = ["minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"];
    if is("integer") && bounds.iter().any(|key| has(key)) {
        let above = || bound(object, "exclusiveMinimum").map(|low| low.saturating_add(1));
        let below = || bound(object, "exclusiveMaximum").map(|high| high.saturating_sub(1));
        return Shape::Integer {
            least: bound(object, "minimum").or_else(above).unwrap_or(i64::MIN),
            most: bound(object, "maximum").or_else(below).unwrap_or(i64::MAX),
        };
    }
    match kind {
        _ if object.is_empty() || is("object") => Shape::AnyObject,
        None => Shape::AnyValue,
        Some(Value::String(kind)) if PRIMITIVES.contains(&kind.as_str()) => Shape::Primitive(kind),
        Some(_) => Shape::Unrecognized,
    }
}

/// All properties of all parts, whatever their own `required` says; of values, those that stand in every part.
fn all_of<'a>(parts: &'a [Value], resolve: &dyn Fn(&str) -> Option<&'a Value>) -> Shape<'a> {
    let mut object = Object::default();
    let mut values: Vec<(&Value, usize)> = Vec::new();
    let mut add = |part: &'a Value, is_required: bool| {
        let mut part = part;
        for _ in 0..super::ABYSS {
            let Some(target) = part.get("$ref").and_then(Value::as_str) else { break };
            part = resolve(target).unwrap_or(&Value::Null);
        }
        if part.get("properties").is_some() {
            object.properties.extend(properties(part.get("properties")).map(|(name, part)| (name, part, is_required)));
        } else if let Some(more) = part.get("enum").and_then(Value::as_array) {
            for value in more {
                match values.iter_mut().find(|(known, _)| *known == value) {
                    Some((_, times)) => *times += 1,
                    None => values.push((value, 1)),
                }
            }
        }
    };
    for part in parts {
        match part.get("anyOf").and_then(Value::as_array) {
            Some(some) => some.iter().for_each(|part| add(part, false)),
            None => add(part, true),
        }
    }
    let common: Vec<&Value> =
        values.iter().filter(|(_, times)| *times == parts.len()).map(|(value, _)| *value).collect();
    if common.is_empty() { Shape::Object(object) } else { Shape::Literals(common) }
}
