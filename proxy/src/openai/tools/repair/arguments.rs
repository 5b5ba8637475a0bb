//! Arguments that do not fit their schema, repaired where exactly one repair is possible. Pure.
//!
//! A repair changes what is wrong and nothing else, loses nothing but what the schema forbids or calls absent, and
//! never invents a value. Each node of the schema names the values that the given one may stand for; if they are one,
//! it is taken, and if they are several, the arguments stay unchanged. What was written as text is text where text is
//! asked for, whatever it looks like.

use serde_json::{Map, Number, Value};

use super::{
    literal,
    names::{normal, own_name},
    schema::{Checker, Fit, integral},
};

/// Deepest nesting of repairs, texts within texts included.
const DEPTH: usize = 64;

/// Names of a single property that say nothing of the value in it.
const WRAPPERS: [&str; 14] = [
    "value", "values", "text", "string", "number", "integer", "boolean", "array", "list", "items", "item", "data",
    "input", "content",
];

/// Names of a single property that holds all arguments.
const ENVELOPES: [&str; 9] =
    ["arguments", "argument", "parameters", "params", "args", "kwargs", "input", "properties", "payload"];

/// What may stand beside arguments in a call that is written again.
const CALL: [&str; 5] = ["name", "function", "tool", "tool_name", "type"];

/// What may stand beside `properties` in a schema.
const SCHEMA: [&str; 8] =
    ["type", "required", "additionalProperties", "title", "description", "$schema", "$defs", "definitions"];

/// What was changed, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    /// Such as `stops[0].days`; empty for the arguments themselves.
    pub(crate) path: String,
    pub(crate) what: What,
}

/// A kind of change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum What {
    /// A number, boolean or null was in quotes, or a number was not.
    Coerced,
    /// A list or an object was serialized as text.
    Parsed,
    /// A value stands for a list of it.
    Wrapped,
    /// An object with one property stands for its value.
    Unwrapped,
    /// The name of a property was written differently.
    Renamed,
    /// A value of an `enum` was written differently.
    Matched,
    /// Null or an empty text stood for an absent property.
    Omitted,
    /// A property is not allowed.
    Dropped,
    /// A required property has a default.
    Filled,
}

impl What {
    /// The word in the receipt.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Coerced => "coerced",
            Self::Parsed => "parsed",
            Self::Wrapped => "wrapped",
            Self::Unwrapped => "unwrapped",
            Self::Renamed => "renamed",
            Self::Matched => "matched",
            Self::Omitted => "omitted",
            Self::Dropped => "dropped",
            Self::Filled => "filled",
        }
    }
}

/// What a value may stand for.
#[derive(Debug)]
pub(super) enum Mended {
    /// Itself.
    Fits,
    /// One other value.
    One(Value, Vec<Change>),
    /// Several, or none.
    Not,
}

/// The values that a value may stand for; equal ones count once.
#[derive(Default)]
struct Candidates(Vec<(Value, Vec<Change>)>);

impl Candidates {
    fn add(&mut self, value: Value, changes: Vec<Change>) {
        if !self.0.iter().any(|(known, _)| *known == value) {
            self.0.push((value, changes));
        }
    }

    fn only(mut self) -> Mended {
        match (self.0.pop(), self.0.is_empty()) {
            (Some((value, changes)), true) => Mended::One(value, changes),
            _ => Mended::Not,
        }
    }
}

/// Repairs values by the parts of one schema.
pub(super) struct Mender<'c, 's> {
    checker: &'c Checker<'s>,
}

impl<'c, 's> Mender<'c, 's> {
    pub(super) fn new(checker: &'c Checker<'s>) -> Self {
        Self { checker }
    }

    /// What `value` stands for, where `schema` describes it.
    pub(super) fn mend(&self, schema: &Value, value: &Value, path: &str, depth: usize) -> Mended {
        if depth > DEPTH || !self.checker.step(1) {
            return Mended::Not;
        }
        if self.checker.fit(schema, value) != Fit::No {
            return Mended::Fits;
        }
        let (mut layers, mut choices) = (Vec::new(), Vec::new());
        if !self.flatten(schema, &mut layers, &mut choices, depth) {
            return Mended::Not;
        }
        let (mut current, mut changes) = (value.clone(), Vec::new());
        let mut take = |mended, current: &mut Value| match mended {
            Mended::Fits => true,
            Mended::One(value, more) => {
                *current = value;
                changes.extend(more);
                true
            }
            Mended::Not => false,
        };
        for layer in layers {
            if !take(self.layer(layer, &current, path, depth), &mut current) {
                return Mended::Not;
            }
        }
        for (keyword, branches) in choices {
            if !take(self.choice(keyword, branches, &current, path, depth), &mut current) {
                return Mended::Not;
            }
        }
        if self.checker.fit(schema, &current) == Fit::No || self.checker.gave_up() {
            return Mended::Not;
        }
        Mended::One(current, changes)
    }

    /// Takes a schema apart: all `layers` apply, and one branch of each of `choices`.
    fn flatten<'v>(
        &self,
        schema: &'v Value,
        layers: &mut Vec<&'v Value>,
        choices: &mut Vec<(&'v str, &'v [Value])>,
        depth: usize,
    ) -> bool
    where
        's: 'v,
    {
        let Value::Object(keywords) = schema else { return !schema.is_boolean() };
        if depth > DEPTH || !self.checker.step(1) {
            return false;
        }
        if let Some(reference) = keywords.get("$ref") {
            let Some(target) = reference.as_str().and_then(|reference| self.checker.target(reference)) else {
                return false;
            };
            if !self.flatten(target, layers, choices, depth + 1) {
                return false;
            }
            if self.checker.lone_references() {
                return true;
            }
        }
        layers.push(schema);
        for (keyword, part) in keywords {
            let Value::Array(branches) = part else { continue };
            match keyword.as_str() {
                "allOf" if branches.iter().all(|branch| self.flatten(branch, layers, choices, depth + 1)) => {}
                "allOf" => return false,
                "anyOf" | "oneOf" => choices.push((keyword, branches)),
                _ => {}
            }
        }
        true
    }

    /// One branch of several is what is meant.
    fn choice(&self, keyword: &str, branches: &[Value], value: &Value, path: &str, depth: usize) -> Mended {
        let fits = branches.iter().filter(|branch| self.checker.fit(branch, value) != Fit::No).count();
        match (keyword, fits) {
            ("anyOf", 1..) | (_, 1) => return Mended::Fits,
            (_, 0) => {}
            // It fits several of `oneOf`: no change would show which is meant.
            _ => return Mended::Not,
        }
        let mut candidates = Candidates::default();
        for branch in branches {
            if let Mended::One(value, changes) = self.mend(branch, value, path, depth + 1) {
                candidates.add(value, changes);
            }
        }
        candidates.only()
    }

    /// What a value stands for by the keywords of one schema, those that combine schemas left out.
    fn layer(&self, layer: &Value, value: &Value, path: &str, depth: usize) -> Mended {
        if self.checker.fit_itself(layer, value) != Fit::No {
            return Mended::Fits;
        }
        let mut candidates = Candidates::default();
        let coerced = |what| vec![Change { path: path.to_owned(), what }];
        let known = layer
            .get("enum")
            .and_then(Value::as_array)
            .map(Vec::as_slice)
            .or(layer.get("const").map(std::slice::from_ref));
        if let Some(known) = known
            && let Some((value, what)) = matched(known, value)
        {
            candidates.add(value, coerced(what));
        }
        let types: Vec<&str> = match layer.get("type") {
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
            _ if layer.get("properties").is_some() => vec!["object"],
            _ if layer.get("items").is_some() => vec!["array"],
            _ => Vec::new(),
        };
        for wanted in &types {
            match (*wanted, value) {
                ("object", Value::Object(given)) => {
                    if let Some((value, changes)) = self.fields(layer, given, path, depth) {
                        candidates.add(value, changes);
                    }
                }
                ("array", Value::Array(given)) => {
                    if let Some((value, changes)) = self.items(layer, given, path, depth) {
                        candidates.add(value, changes);
                    }
                }
                ("array" | "object", Value::String(text)) if self.checker.step(text.len() / 64) => {
                    // A text that is a serialized list is not an item of a list as well.
                    match serialized(text) {
                        Some(parsed) => self.go_on(layer, parsed, What::Parsed, path, depth, &mut candidates),
                        None if *wanted == "array" => self.wrapped(layer, value, path, depth, &mut candidates),
                        None => {}
                    }
                }
                ("array", value) if !value.is_null() => self.wrapped(layer, value, path, depth, &mut candidates),
                (wanted, value) if known.is_none() => {
                    if let Some(value) = scalar(wanted, value) {
                        candidates.add(value, coerced(What::Coerced));
                    }
                }
                _ => {}
            }
        }
        if let Value::Object(given) = value {
            if types.contains(&"object") {
                if let Some(inner) = envelope(layer, given) {
                    // The envelope is all that there is: dropping it would lose everything.
                    candidates.0.clear();
                    self.go_on(layer, inner.clone(), What::Unwrapped, path, depth, &mut candidates);
                }
            } else if let Some((name, inner)) = given.iter().next()
                && given.len() == 1
                && says_nothing(name, path)
            {
                self.go_on(layer, inner.clone(), What::Unwrapped, path, depth, &mut candidates);
            }
        }
        candidates.0.retain(|(value, _)| self.checker.fit_itself(layer, value) != Fit::No);
        candidates.only()
    }

    /// Adds what `value` stands for, which was made of the given one by `what`.
    fn go_on(&self, layer: &Value, value: Value, what: What, path: &str, depth: usize, candidates: &mut Candidates) {
        let mut changes = vec![Change { path: path.to_owned(), what }];
        if depth > DEPTH || !self.checker.step(1) {
            return;
        }
        match self.layer(layer, &value, path, depth + 1) {
            Mended::Fits => candidates.add(value, changes),
            Mended::One(value, more) => {
                changes.extend(more);
                candidates.add(value, changes);
            }
            Mended::Not => {}
        }
    }

    /// Adds the list of one item that a value stands for.
    fn wrapped(&self, layer: &Value, value: &Value, path: &str, depth: usize, candidates: &mut Candidates) {
        // A text with separators may be one item or several, and an empty one may be none.
        let several = |text: &str| text.trim().is_empty() || text.contains([',', ';', '\n', '|']);
        if value.as_str().is_some_and(several) {
            return;
        }
        if let Some((value, mut changes)) = self.items(layer, std::slice::from_ref(value), path, depth) {
            changes.insert(0, Change { path: path.to_owned(), what: What::Wrapped });
            candidates.add(value, changes);
        }
    }

    /// A list, each item repaired; `None` if one cannot be.
    fn items(&self, layer: &Value, given: &[Value], path: &str, depth: usize) -> Option<(Value, Vec<Change>)> {
        let (mut items, mut changes) = (Vec::with_capacity(given.len()), Vec::new());
        let first = layer.get("prefixItems").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        for (n, item) in given.iter().enumerate() {
            let schema = first.get(n).or(layer.get("items"));
            match schema.map(|schema| self.mend(schema, item, &format!("{path}[{n}]"), depth + 1)) {
                None | Some(Mended::Fits) => items.push(item.clone()),
                Some(Mended::One(item, more)) => {
                    items.push(item);
                    changes.extend(more);
                }
                Some(Mended::Not) => return None,
            }
        }
        Some((items.into(), changes))
    }

    /// An object, its names and values repaired; `None` if one cannot be.
    fn fields(
        &self,
        layer: &Value,
        given: &Map<String, Value>,
        path: &str,
        depth: usize,
    ) -> Option<(Value, Vec<Change>)> {
        let none = Map::new();
        let declared = layer.get("properties").and_then(Value::as_object).unwrap_or(&none);
        let required: Vec<&str> =
            layer.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
        // Names that a pattern may allow are left alone.
        let patterns = layer.get("patternProperties").is_some();
        let others = layer.get("additionalProperties").filter(|_| !patterns);
        let closed = others == Some(&Value::Bool(false));
        let at = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        let (mut fields, mut changes) = (Map::new(), Vec::new());
        for (name, value) in given {
            let name = if declared.contains_key(name) || patterns {
                name
            } else {
                let renamed = self.meant(name, given, declared, closed, &required)?;
                if let Some(known) = renamed {
                    changes.push(Change { path: at(known), what: What::Renamed });
                }
                renamed.unwrap_or(name)
            };
            let schema = match (declared.get(name), others) {
                (None, Some(Value::Bool(false))) => {
                    changes.push(Change { path: at(name), what: What::Dropped });
                    continue;
                }
                (Some(schema), _) | (None, Some(schema)) => schema,
                (None, None) => &Value::Bool(true),
            };
            let absent = value.is_null() || value.as_str() == Some("");
            let may_be_absent = !required.contains(&name.as_str())
                || value.is_null() && schema.get("default").is_some_and(|default| !default.is_null());
            if absent && may_be_absent && declared.contains_key(name) && self.checker.fit(schema, value) == Fit::No {
                changes.push(Change { path: at(name), what: What::Omitted });
                continue;
            }
            let value = match self.mend(schema, value, &at(name), depth + 1) {
                Mended::Fits => value.clone(),
                Mended::One(value, more) => {
                    changes.extend(more);
                    value
                }
                Mended::Not => return None,
            };
            fields.insert(name.clone(), value);
        }
        for name in required {
            if !fields.contains_key(name)
                && let Some(schema) = declared.get(name)
                && let Some(default) = schema.get("default")
                && self.checker.fit(schema, default) != Fit::No
            {
                fields.insert(name.to_owned(), default.clone());
                changes.push(Change { path: at(name), what: What::Filled });
            }
        }
        Some((fields.into(), changes))
    }

    /// The declared name that an unknown one stands for, if any. `None`: there are several, or several names stand for
    /// one.
    fn meant<'n>(
        &self,
        name: &str,
        given: &Map<String, Value>,
        declared: &'n Map<String, Value>,
        closed: bool,
        required: &[&str],
    ) -> Option<Option<&'n String>> {
        let form = normal(name);
        if form.is_empty() || !self.checker.step(1 + declared.len() / 8) {
            return Some(None);
        }
        // Where any name is allowed, only a missing one that is required can be meant.
        let wanted = |known: &String| closed || required.contains(&known.as_str()) && !given.contains_key(known);
        let mut alike = declared.keys().filter(|known| wanted(known) && normal(known) == form);
        let Some(known) = alike.next() else { return Some(None) };
        let rival = |other: &String| other != name && normal(other) == form;
        if alike.next().is_some() || given.keys().any(rival) {
            return None;
        }
        Some(Some(known))
    }
}

/// The object that is asked for, where it stands in another one that says nothing more: under a name for arguments, in
/// a call that is written again, or in the schema that the model was shown.
fn envelope<'v>(layer: &Value, given: &'v Map<String, Value>) -> Option<&'v Value> {
    let declared = layer.get("properties").and_then(Value::as_object)?;
    if given.keys().any(|name| declared.contains_key(name) || declared_alike(Some(declared), name)) {
        return None;
    }
    let (name, inner) = given.iter().find(|(name, _)| ENVELOPES.contains(&normal(name).as_str()))?;
    let inside = match inner {
        Value::Object(inner) => !inner.is_empty() && inner.keys().all(|name| declared_alike(Some(declared), name)),
        Value::String(text) => text.trim_start().starts_with('{'),
        _ => false,
    };
    let mut others = given.iter().filter(|(other, _)| *other != name);
    let beside = others.all(|(other, value)| {
        name == "properties" && SCHEMA.contains(&other.as_str()) || CALL.contains(&other.as_str()) && value.is_string()
    });
    (inside && beside).then_some(inner)
}

fn declared_alike(declared: Option<&Map<String, Value>>, name: &str) -> bool {
    declared.is_some_and(|declared| declared.keys().any(|known| normal(known) == normal(name)))
}

/// Whether the single name in an object adds nothing to the place where it stands: its own name, or a word for any
/// value.
fn says_nothing(name: &str, path: &str) -> bool {
    let name = normal(name);
    if WRAPPERS.contains(&name.as_str()) {
        return true;
    }
    let own = normal(own_name(path));
    let single = |name: &str| name.strip_suffix('s').unwrap_or(name).to_owned();
    !own.is_empty() && single(&name) == single(&own)
}

/// The value of an `enum` that `value` stands for.
fn matched(known: &[Value], value: &Value) -> Option<(Value, What)> {
    let alike = |option: &&Value| match (option, value) {
        (Value::String(option), Value::String(text)) => option.trim().to_lowercase() == text.trim().to_lowercase(),
        (Value::String(option), Value::Number(number)) => integral(number) && *option == number.to_string(),
        (Value::Number(_), Value::String(text)) => {
            scalar("number", &text.as_str().into()).is_some_and(|number| number == **option)
        }
        (Value::Bool(_), Value::String(text)) => {
            scalar("boolean", &text.as_str().into()).is_some_and(|flag| flag == **option)
        }
        _ => false,
    };
    let mut alike = known.iter().filter(alike);
    let only = alike.next().filter(|_| alike.next().is_none())?;
    Some((only.clone(), if only.is_string() && value.is_string() { What::Matched } else { What::Coerced }))
}

/// A value of the type `wanted` that another one is without a doubt.
fn scalar(wanted: &str, value: &Value) -> Option<Value> {
    match (wanted, value) {
        ("integer" | "number", Value::String(text)) => {
            let number = exact_number(text.trim())?;
            if wanted == "number" || number.is_i64() || number.is_u64() {
                return Some(number.into());
            }
            // 3.0 in quotes; as an integer it has one form only.
            const LIMIT: f64 = (1u64 << 53) as f64;
            let float = number.as_f64().filter(|float| float.fract() == 0.0 && float.abs() < LIMIT)?;
            format!("{float:.0}").parse::<i64>().ok().map(Value::from)
        }
        ("boolean", Value::String(text)) => match text.trim() {
            "true" | "True" | "TRUE" => Some(true.into()),
            "false" | "False" | "FALSE" => Some(false.into()),
            _ => None,
        },
        ("null", Value::String(text)) => matches!(text.trim(), "null" | "None").then_some(Value::Null),
        // A whole number has one spelling; one with a fraction has several.
        ("string", Value::Number(number)) if number.is_i64() || number.is_u64() => Some(number.to_string().into()),
        _ => None,
    }
}

/// A number in JSON's own spelling that loses no digit.
fn exact_number(text: &str) -> Option<Number> {
    let number: Number = serde_json::from_str(text).ok()?;
    (text.starts_with(|first: char| first.is_ascii_digit() || first == '-') && keeps_digits(text, &number))
        .then_some(number)
}

fn keeps_digits(text: &str, number: &Number) -> bool {
    const DIGITS: usize = 15;
    let mantissa = text.split(['e', 'E']).next().unwrap_or_default();
    let significant = mantissa.chars().filter(char::is_ascii_digit).skip_while(|digit| *digit == '0').count();
    number.is_i64() || number.is_u64() || significant <= DIGITS
}

/// Whether writing out JSON again after reading it loses no digit of its numbers.
pub(in crate::openai::tools) fn keeps_numbers(json: &str) -> bool {
    let (mut text, mut escaped, mut number) = (false, false, String::new());
    let whole = |number: &mut String| {
        let number = std::mem::take(number);
        number.is_empty() || serde_json::from_str::<Number>(&number).is_ok_and(|value| keeps_digits(&number, &value))
    };
    for c in json.chars() {
        match c {
            _ if text => (text, escaped) = (escaped || c != '"', !escaped && c == '\\'),
            '"' => text = true,
            '0'..='9' | '-' | '+' | '.' | 'e' | 'E' if !number.is_empty() || c.is_ascii_digit() || c == '-' => {
                number.push(c);
            }
            _ if !whole(&mut number) => return false,
            _ => {}
        }
    }
    whole(&mut number)
}

/// A list or an object that was serialized as text: as JSON, or as Python writes it.
fn serialized(text: &str) -> Option<Value> {
    let text = text.trim();
    if !text.starts_with(['[', '{']) {
        return None;
    }
    let value: Value = serde_json::from_str(text).ok().or_else(|| literal::read(text))?;
    ((value.is_array() || value.is_object()) && keeps_numbers(text)).then_some(value)
}
