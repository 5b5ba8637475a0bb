//! Whether a value fits a schema, decided with a bounded amount of work. Pure.
//!
//! The `jsonschema` crate has the last word. But compiling a schema takes longer than checking one call, and a schema
//! is the client's input: nested alternatives that refer to each other take time that grows exponentially. So
//! [`Checker`] walks schema and value first, with a budget. It judges the keywords that tools really use by itself;
//! where others stand it says [`Fit::Unsure`], and the crate decides. What exhausts the budget is not checked at all.

use std::cell::Cell;

use serde_json::{Map, Number, Value};

/// Most steps of one call: what ten tools of a coding agent take is about a hundred.
const STEPS: u32 = 20_000;

/// Deepest nesting of schema and value together: each level is a few stack frames, here and in the crate.
const DEPTH: u32 = 200;

/// Characters that cost as much as a step.
const CHARS_PER_STEP: usize = 256;

/// Items of a list, or names of an object, in a schema that cost as much as a step.
const ITEMS_PER_STEP: usize = 8;

/// Keywords that [`Checker`] leaves to the crate.
const LEFT: [&str; 17] = [
    "pattern",
    "patternProperties",
    "propertyNames",
    "dependencies",
    "dependentRequired",
    "dependentSchemas",
    "if",
    "then",
    "else",
    "contains",
    "minContains",
    "maxContains",
    "unevaluatedItems",
    "unevaluatedProperties",
    "additionalItems",
    "prefixItems",
    "multipleOf",
];

/// Keywords that change what a reference means.
const ODD: [&str; 6] = ["$id", "id", "$anchor", "$dynamicAnchor", "$dynamicRef", "$recursiveRef"];

/// Whether a value fits a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    Yes,
    No,
    /// A keyword that is not judged here stands in the way.
    Unsure,
}

impl Fit {
    fn of(fits: bool) -> Self {
        if fits { Self::Yes } else { Self::No }
    }

    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::No, _) | (_, Self::No) => Self::No,
            (Self::Unsure, _) | (_, Self::Unsure) => Self::Unsure,
            (Self::Yes, Self::Yes) => Self::Yes,
        }
    }
}

/// Judges values by one schema and its parts.
pub(super) struct Checker<'s> {
    root: &'s Value,
    /// Drafts up to 7 ignore what stands beside a reference.
    lone_references: bool,
    /// An older draft, or one that is not known: its keywords may mean something else.
    old: bool,
    steps: Cell<u32>,
    /// Whether the work is not bounded, or a reference may mean something else than it seems to.
    gave_up: Cell<bool>,
}

impl<'s> Checker<'s> {
    pub(super) fn new(root: &'s Value) -> Self {
        let draft = root.get("$schema").map(|draft| draft.as_str().unwrap_or_default());
        let (lone_references, old) = match draft {
            None => (false, false),
            Some(draft) if draft.contains("2020-12") || draft.contains("2019-09") => (false, false),
            Some(draft) if draft.contains("draft-07") => (true, false),
            Some(_) => (true, true),
        };
        Self { root, lone_references, old, steps: Cell::new(STEPS), gave_up: Cell::new(false) }
    }

    /// Whether nothing that was said counts: the schema is too much work, or too odd.
    pub(super) fn gave_up(&self) -> bool {
        self.gave_up.get()
    }

    /// Takes a step. Fails once there were too many.
    pub(super) fn step(&self, cost: usize) -> bool {
        let cost = u32::try_from(cost).unwrap_or(u32::MAX);
        match self.steps.get().checked_sub(cost) {
            Some(left) => {
                self.steps.set(left);
                true
            }
            None => {
                self.gave_up.set(true);
                false
            }
        }
    }

    /// Whether what stands beside a reference counts.
    pub(super) fn lone_references(&self) -> bool {
        self.lone_references
    }

    /// Whether `value` fits `schema`, which is the root or a part of it.
    pub(super) fn fit(&self, schema: &Value, value: &Value) -> Fit {
        self.judge(schema, value, true, 0)
    }

    /// The same, but for what stands in `$ref`, `anyOf`, `oneOf` and `allOf`.
    pub(super) fn fit_itself(&self, schema: &Value, value: &Value) -> Fit {
        self.judge(schema, value, false, 0)
    }

    /// What a reference leads to. Only places within the schema count: nothing is ever fetched.
    pub(super) fn target(&self, reference: &str) -> Option<&'s Value> {
        let pointer = reference.strip_prefix('#')?;
        if pointer.is_empty() {
            return Some(self.root);
        }
        if pointer.contains('%') {
            return None;
        }
        self.root.pointer(pointer)
    }

    // Every part is visited, even where the answer is known: the number of steps must bound what another validator
    // needs.
    fn judge(&self, schema: &Value, value: &Value, whole: bool, depth: u32) -> Fit {
        let size = value.as_str().map_or(1, |text| 1 + text.len() / CHARS_PER_STEP);
        if depth > DEPTH {
            self.gave_up.set(true);
        }
        if self.gave_up.get() || !self.step(size) {
            return Fit::Unsure;
        }
        let schema = match schema {
            Value::Bool(fits) => return Fit::of(*fits),
            Value::Object(schema) => schema,
            _ => {
                self.gave_up.set(true);
                return Fit::Unsure;
            }
        };
        let down = |schema: &Value, value: &Value| self.judge(schema, value, true, depth + 1);
        let mut fit = if self.old { Fit::Unsure } else { Fit::Yes };
        let reference = schema.get("$ref");
        if let Some(reference) = reference
            && (whole || self.lone_references)
        {
            match reference.as_str().and_then(|reference| self.target(reference)) {
                Some(target) => fit = fit.and(down(target, value)),
                None => self.gave_up.set(true),
            }
            if self.lone_references {
                return fit;
            }
        }
        for (keyword, part) in schema {
            let keyword = keyword.as_str();
            // Long lists are compared item by item.
            let length = part.as_array().map_or(0, Vec::len).max(part.as_object().map_or(0, Map::len));
            if !self.step(length / ITEMS_PER_STEP) {
                return Fit::Unsure;
            }
            let judged = match keyword {
                "type" => kind(part, value),
                "enum" => part.as_array().map(|values| Fit::of(values.iter().any(|known| same(known, value)))),
                "const" => Some(Fit::of(same(part, value))),
                "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" => bound(keyword, part, value),
                "minLength" | "maxLength" => size_of(part, value.as_str(), |text| text.chars().count(), keyword),
                "minItems" | "maxItems" => size_of(part, value.as_array(), Vec::len, keyword),
                "minProperties" | "maxProperties" => size_of(part, value.as_object(), Map::len, keyword),
                "uniqueItems" => match (part, value) {
                    (Value::Bool(true), Value::Array(items)) if items.len() > 1 => Some(Fit::Unsure),
                    (Value::Bool(_), _) => Some(Fit::Yes),
                    _ => None,
                },
                "required" => part.as_array().and_then(|names| required(names, value)),
                "properties" => match (part, value) {
                    (Value::Object(known), Value::Object(given)) => {
                        let parts = known.iter().filter_map(|(name, part)| Some((part, given.get(name)?)));
                        Some(parts.fold(Fit::Yes, |fit, (part, value)| fit.and(down(part, value))))
                    }
                    (Value::Object(_), _) => Some(Fit::Yes),
                    _ => None,
                },
                "additionalProperties" => match value {
                    Value::Object(given) => {
                        let known = schema.get("properties");
                        let others =
                            given.iter().filter(|(name, _)| known.is_none_or(|known| known.get(name).is_none()));
                        let fit = others.fold(Fit::Yes, |fit, (_, value)| fit.and(down(part, value)));
                        // Which names the patterns take is for the crate to say.
                        Some(if schema.contains_key("patternProperties") { Fit::Unsure } else { fit })
                    }
                    _ => Some(Fit::Yes),
                },
                "items" => match (part, value) {
                    (Value::Array(_), _) => Some(self.left(keyword, part, value, depth)),
                    (part, Value::Array(items)) => {
                        let fit = items.iter().fold(Fit::Yes, |fit, item| fit.and(down(part, item)));
                        Some(if schema.contains_key("prefixItems") { Fit::Unsure } else { fit })
                    }
                    _ => Some(Fit::Yes),
                },
                "anyOf" | "oneOf" | "allOf" => match part {
                    Value::Array(branches) if whole && !branches.is_empty() => {
                        let fits: Vec<Fit> = branches.iter().map(|branch| down(branch, value)).collect();
                        Some(together(keyword, &fits))
                    }
                    Value::Array(branches) if !branches.is_empty() => Some(Fit::Yes),
                    _ => None,
                },
                "not" => Some(match down(part, value) {
                    Fit::Yes => Fit::No,
                    Fit::No => Fit::Yes,
                    Fit::Unsure => Fit::Unsure,
                }),
                keyword if ODD.contains(&keyword) && (depth > 0 || keyword != "$id" && keyword != "id") => {
                    self.gave_up.set(true);
                    None
                }
                keyword if LEFT.contains(&keyword) => Some(self.left(keyword, part, value, depth)),
                _ => Some(Fit::Yes),
            };
            fit = fit.and(judged.unwrap_or(Fit::Unsure));
        }
        fit
    }

    /// Visits the parts of a keyword that is left to the crate.
    fn left(&self, keyword: &str, part: &Value, value: &Value, depth: u32) -> Fit {
        let visit = |schema: &Value, value: &Value| {
            if schema.is_object() {
                self.judge(schema, value, true, depth + 1);
            }
        };
        let each = |schema: &Value| match value {
            Value::Array(items) => items.iter().for_each(|item| visit(schema, item)),
            Value::Object(given) => given.values().for_each(|value| visit(schema, value)),
            _ => {}
        };
        match (keyword, part) {
            ("if" | "then" | "else", part) => visit(part, value),
            ("dependencies" | "dependentSchemas", Value::Object(parts)) => {
                parts.values().for_each(|part| visit(part, value));
            }
            ("patternProperties", Value::Object(parts)) => parts.values().for_each(each),
            ("prefixItems" | "items", Value::Array(parts)) => parts.iter().for_each(each),
            (_, part) => each(part),
        }
        match (keyword, value) {
            // They say nothing of values of another kind.
            ("pattern", value) if !value.is_string() => Fit::Yes,
            ("multipleOf", value) if !value.is_number() => Fit::Yes,
            _ => Fit::Unsure,
        }
    }
}

/// Whether `value` is of a type; `None` for a type that does not exist.
fn kind(part: &Value, value: &Value) -> Option<Fit> {
    let is = |name: &Value| {
        Some(match name.as_str()? {
            "string" => value.is_string(),
            "integer" => value.as_number().is_some_and(integral),
            "number" => value.is_number(),
            "boolean" => value.is_boolean(),
            "array" => value.is_array(),
            "object" => value.is_object(),
            "null" => value.is_null(),
            _ => return None,
        })
    };
    match part {
        Value::Array(names) if !names.is_empty() => {
            let fits: Vec<bool> = names.iter().map(is).collect::<Option<_>>()?;
            Some(Fit::of(fits.contains(&true)))
        }
        name => is(name).map(Fit::of),
    }
}

pub(super) fn integral(number: &Number) -> bool {
    number.is_i64() || number.is_u64() || number.as_f64().is_some_and(|number| number.fract() == 0.0)
}

/// Whether two values are the same; 1 and 1.0 are.
pub(super) fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => {
            one == other || (one.as_f64() == other.as_f64() && exact(one, other))
        }
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one.iter().all(|(name, one)| other.get(name).is_some_and(|other| same(one, other)))
        }
        (one, other) => one == other,
    }
}

/// Whether two numbers of different kinds can be compared as floating point numbers.
fn exact(one: &Number, other: &Number) -> bool {
    const LIMIT: f64 = (1u64 << 53) as f64;
    one.is_f64() != other.is_f64() && one.as_f64().is_some_and(|number| number.abs() <= LIMIT)
}

fn bound(keyword: &str, part: &Value, value: &Value) -> Option<Fit> {
    const LIMIT: f64 = (1u64 << 53) as f64;
    let limit = part.as_number()?.as_f64()?;
    let Value::Number(number) = value else { return Some(Fit::Yes) };
    let number = number.as_f64()?;
    if number.abs() > LIMIT || limit.abs() > LIMIT {
        return None;
    }
    Some(Fit::of(match keyword {
        "minimum" => number >= limit,
        "maximum" => number <= limit,
        "exclusiveMinimum" => number > limit,
        _ => number < limit,
    }))
}

fn size_of<T>(limit: &Value, value: Option<&T>, size: impl FnOnce(&T) -> usize, keyword: &str) -> Option<Fit>
where
    T: ?Sized,
{
    let limit = usize::try_from(limit.as_u64()?).ok()?;
    let Some(size) = value.map(size) else { return Some(Fit::Yes) };
    Some(Fit::of(if keyword.starts_with("min") { size >= limit } else { size <= limit }))
}

fn required(names: &[Value], value: &Value) -> Option<Fit> {
    let mut fits = true;
    for name in names {
        let name = name.as_str()?;
        fits &= value.as_object().is_none_or(|given| given.contains_key(name));
    }
    Some(Fit::of(fits))
}

fn together(keyword: &str, fits: &[Fit]) -> Fit {
    let count = |wanted: Fit| fits.iter().filter(|fit| **fit == wanted).count();
    let (yes, unsure) = (count(Fit::Yes), count(Fit::Unsure));
    match keyword {
        "allOf" => fits.iter().fold(Fit::Yes, |all, fit| all.and(*fit)),
        "anyOf" if yes > 0 => Fit::Yes,
        "anyOf" if unsure > 0 => Fit::Unsure,
        "anyOf" => Fit::No,
        _ if yes > 1 => Fit::No,
        _ if unsure > 0 => Fit::Unsure,
        _ => Fit::of(yes == 1),
    }
}
