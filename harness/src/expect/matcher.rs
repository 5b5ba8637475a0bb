//! What a value is compared with: a plain value, or a mapping of matcher names to their arguments, all of which must
//! hold.

use std::fmt::Write;

use regex::Regex;
use serde_json::{Map, Number, Value};

use super::{path, schema::Schema};
use crate::{
    scenario::variables::{Answer, Variables},
    text::shorten,
};

/// Every matcher by name.
pub const NAMES: [&str; 21] = [
    "equals",
    "type",
    "gt",
    "gte",
    "lt",
    "lte",
    "matches",
    "contains",
    "starts_with",
    "length",
    "one_of",
    "absent",
    "exists",
    "not",
    "any",
    "every",
    "keys",
    "json",
    "set",
    "schema",
    "same_as",
];

const TYPES: [&str; 7] = ["null", "boolean", "integer", "number", "string", "array", "object"];

/// A judge of one value.
#[derive(Clone, Debug)]
pub enum Matcher {
    /// All must hold.
    All(Vec<Matcher>),
    /// The same JSON; numbers by value, objects in any order of keys.
    Equals(Value),
    /// One of JSON Schema's types.
    Type(String),
    /// `gt`, `gte`, `lt`, `lte`: a number beyond a bound.
    Bound(Bound, f64),
    /// A regular expression that is found in a text.
    Matches(Regex),
    /// A text within a text, an element of an array, or a key of an object.
    Contains(Value),
    /// The beginning of a text.
    StartsWith(String),
    /// Characters of a text, elements of an array, keys of an object.
    Length(Box<Matcher>),
    /// The same as one of these.
    OneOf(Vec<Value>),
    /// Nothing is there.
    Absent,
    /// Something is there; it may be null.
    Exists,
    /// The other does not hold (of something that is there).
    Not(Box<Matcher>),
    /// It holds of at least one element.
    Any(Box<Matcher>),
    /// It holds of every element, of which there must be one.
    Every(Box<Matcher>),
    /// The keys of an object, in this order.
    Keys(Vec<String>),
    /// The same elements in any order, each as often.
    Set(Vec<Value>),
    /// It is as a JSON Schema has it.
    Schema(Schema),
    /// The text is JSON, and its parts match.
    Json(Vec<(String, Matcher)>),
    /// The same as what was captured, or as a part of another step's answer.
    SameAs {
        /// What it is compared with, in words.
        other: String,
        /// Its value; nothing where there was nothing, which nothing is the same as.
        value: Option<Value>,
    },
}

/// Which side of a bound.
#[derive(Clone, Copy, Debug)]
pub enum Bound {
    /// More.
    Gt,
    /// At least.
    Gte,
    /// Less.
    Lt,
    /// At most.
    Lte,
}

impl Bound {
    fn words(self) -> &'static str {
        match self {
            Self::Gt => "more than",
            Self::Gte => "at least",
            Self::Lt => "less than",
            Self::Lte => "at most",
        }
    }
}

impl Matcher {
    /// Reads a matcher as it is written, but for names in texts, which stand there as values already; `known` is what
    /// it may compare with.
    ///
    /// # Errors
    /// What is wrong with it; an unknown name is reported with the known ones.
    pub fn parse(value: &Value, known: &Variables) -> Result<Self, String> {
        let Value::Object(written) = value else { return Ok(Self::Equals(value.clone())) };
        if written.is_empty() {
            return Err("an empty mapping checks nothing; to expect an empty object write `equals: {}`".to_owned());
        }
        let mut all =
            written.iter().map(|(name, argument)| Self::one(name, argument, known)).collect::<Result<Vec<_>, _>>()?;
        Ok(if all.len() == 1 { all.remove(0) } else { Self::All(all) })
    }

    fn one(name: &str, argument: &Value, known: &Variables) -> Result<Self, String> {
        let text = || argument.as_str().map(str::to_owned).ok_or_else(|| format!("`{name}` takes a text"));
        let list = || argument.as_array().ok_or_else(|| format!("`{name}` takes a list"));
        let inner = || Self::parse(argument, known).map(Box::new).map_err(|wrong| format!("in `{name}`: {wrong}"));
        let bound = |bound| {
            argument.as_f64().map(|number| Self::Bound(bound, number)).ok_or_else(|| format!("`{name}` takes a number"))
        };
        Ok(match name {
            "equals" => Self::Equals(argument.clone()),
            "type" => {
                let kind = text()?;
                if !TYPES.contains(&&*kind) {
                    return Err(format!("`{kind}` is not a type: expected one of {}", TYPES.join(", ")));
                }
                Self::Type(kind)
            }
            "gt" => bound(Bound::Gt)?,
            "gte" => bound(Bound::Gte)?,
            "lt" => bound(Bound::Lt)?,
            "lte" => bound(Bound::Lte)?,
            "matches" => Self::Matches(
                Regex::new(&text()?).map_err(|error| format!("`matches` takes a regular expression: {error}"))?,
            ),
            "contains" => Self::Contains(argument.clone()),
            "starts_with" => Self::StartsWith(text()?),
            "length" => Self::Length(Box::new(inner()?.by_length())),
            "set" => Self::Set(list()?.clone()),
            "schema" => Self::Schema(Schema::read(argument)?),
            "one_of" => Self::OneOf(list()?.clone()),
            "absent" | "exists" => {
                let wanted = argument.as_bool().ok_or_else(|| format!("`{name}` takes true or false"))?;
                if (name == "exists") == wanted { Self::Exists } else { Self::Absent }
            }
            "not" => Self::Not(inner()?),
            "any" => Self::Any(inner()?),
            "every" => Self::Every(inner()?),
            "keys" => Self::Keys(
                list()?
                    .iter()
                    .map(|key| key.as_str().map(str::to_owned).ok_or("`keys` takes a list of texts"))
                    .collect::<Result<_, _>>()?,
            ),
            "json" => {
                Self::json(argument.as_object().ok_or("`json` takes a mapping of JSONPaths to matchers")?, known)?
            }
            "same_as" => Self::same_as(argument, known)?,
            // `did you mean` is added where the file is read.
            other => return Err(format!("unknown matcher `{other}`, expected one of {}", NAMES.join(", "))),
        })
    }

    fn json(parts: &Map<String, Value>, known: &Variables) -> Result<Self, String> {
        let parts = parts.iter().map(|(key, value)| {
            path::check(key).map_err(|wrong| format!("in `json`: {wrong}"))?;
            Ok((key.clone(), Self::parse(value, known).map_err(|wrong| format!("in `json`: {wrong}"))?))
        });
        Ok(Self::Json(parts.collect::<Result<_, String>>()?))
    }

    /// The name of something captured, or a path into a step's answer.
    fn same_as(argument: &Value, known: &Variables) -> Result<Self, String> {
        const FORMS: &str = "`same_as` takes the name of a capture, { step: NAME, path: JSONPATH }, or { path: JSONPATH } in this answer; a value is compared by `equals`";
        let text = |name: &str| argument.get(name).and_then(Value::as_str);
        let (step, path) = match argument {
            Value::String(name) => {
                let value = known.get(name).map_err(|unknown| format!("in `same_as`: {unknown}"))?;
                return Ok(Self::SameAs { other: format!("`{name}`"), value: Some(value.clone()) });
            }
            Value::Object(fields) if fields.len() == 2 => {
                (Some(text("step").ok_or(FORMS)?), text("path").ok_or(FORMS)?)
            }
            Value::Object(fields) if fields.len() == 1 => (None, text("path").ok_or(FORMS)?),
            _ => return Err(FORMS.to_owned()),
        };
        path::check(path).map_err(|wrong| format!("in `same_as`: {wrong}"))?;
        let (other, answer) = match step {
            Some(step) => {
                let answer = known.answer(step).map_err(|wrong| format!("in `same_as`: {wrong}"))?;
                (format!("{path} of the step `{step}`"), answer)
            }
            None => (format!("{path} of this answer"), known.this_answer()),
        };
        Ok(match answer {
            Answer::Given(answer) => match path::select(answer, path) {
                Some(value) => Self::SameAs { other, value: Some(value.into_owned()) },
                None => Self::SameAs { other: format!("{other}, where there was nothing"), value: None },
            },
            Answer::Promised | Answer::None(_) => {
                Self::SameAs { other: format!("{other}, which was not done"), value: None }
            }
        })
    }

    /// The same, for a length: `same_as` means the length of what it names, unless that is a number.
    fn by_length(self) -> Self {
        match self {
            Self::SameAs { other, value: Some(value) } => match length(&value) {
                Some(length) => Self::SameAs { other: format!("that of {other}"), value: Some(length.into()) },
                None => Self::SameAs { other, value: Some(value) },
            },
            Self::Not(inner) => Self::Not(Box::new(inner.by_length())),
            Self::All(all) => Self::All(all.into_iter().map(Self::by_length).collect()),
            other => other,
        }
    }

    /// Where exactly a value that was judged falls short, if that is only a part of it.
    #[must_use]
    pub fn narrow(&self, actual: &Value) -> Option<Difference> {
        match self {
            Self::All(all) => all.iter().find(|matcher| matcher.judge(Some(actual)).is_err())?.narrow(actual),
            Self::Equals(expected) => different(expected, actual),
            Self::Every(matcher) => {
                let (nth, element) =
                    elements(actual).enumerate().find(|(_, element)| matcher.judge(Some(element)).is_err())?;
                Some(
                    matcher
                        .narrow(element)
                        .unwrap_or_else(|| Difference::of(matcher, element))
                        .below(&format!("[{nth}]")),
                )
            }
            Self::Length(_) => {
                let reported = length(actual).map(|length| format!("a length of {length}: {}", brief(actual)))?;
                Some(Difference { at: String::new(), expected: self.phrase(), actual: reported })
            }
            Self::Json(parts) => {
                let document: Value = serde_json::from_str(actual.as_str()?).ok()?;
                let judged = |(key, matcher): &(String, Matcher)| {
                    let part = path::select(&document, key);
                    let expected = matcher.judge(part.as_deref()).err()?;
                    let part = part.as_deref().map_or_else(|| path::missing(&document, key), brief);
                    Some(Difference { at: format!(" as JSON, {key}"), expected, actual: part })
                };
                parts.iter().find_map(judged)
            }
            Self::Set(wanted) => {
                let items = actual.as_array()?;
                let without = |these: &[Value], those: &[Value]| {
                    let mut left: Vec<&Value> = those.iter().collect();
                    let mut over = Vec::new();
                    for item in these {
                        match left.iter().position(|other| same(item, other)) {
                            Some(at) => drop(left.swap_remove(at)),
                            None => over.push(item.to_string()),
                        }
                    }
                    over.join(", ")
                };
                let reported = [("missing", without(wanted, items)), ("surplus", without(items, wanted))];
                let reported: Vec<_> = reported
                    .iter()
                    .filter(|(_, items)| !items.is_empty())
                    .map(|(word, items)| format!("{word}: {}", shorten(items, 200)))
                    .collect();
                Some(Difference { at: String::new(), expected: self.phrase(), actual: reported.join("; ") })
            }
            _ => None,
        }
    }

    /// A hint for a text that was compared with a number or a boolean that reads the same, or the other way round.
    #[must_use]
    pub fn kind_hint(&self, actual: &Value) -> Option<&'static str> {
        match (self, actual) {
            (Self::All(all), _) => all.iter().find_map(|matcher| matcher.kind_hint(actual)),
            (Self::Equals(Value::String(text)), Value::Number(_) | Value::Bool(_)) if reads_as(text, actual) => {
                Some("the expected value is a text: leave out the quotes")
            }
            (Self::Equals(expected @ (Value::Number(_) | Value::Bool(_))), Value::String(text))
                if reads_as(text, expected) =>
            {
                Some("the actual value is a text: put the expected one in quotes")
            }
            (Self::Bound(..), Value::String(text)) if text.parse::<f64>().is_ok() => {
                Some("the actual value is a text, not a number")
            }
            _ => None,
        }
    }

    /// Whether it compares with something that was not there. Then it cannot hold, and neither can its contrary.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        match self {
            Self::SameAs { value, .. } => value.is_none(),
            Self::All(all) => all.iter().any(Self::is_lost),
            Self::Length(inner) | Self::Not(inner) | Self::Any(inner) | Self::Every(inner) => inner.is_lost(),
            Self::Json(parts) => parts.iter().any(|(_, inner)| inner.is_lost()),
            _ => false,
        }
    }

    /// Judges what is there.
    ///
    /// # Errors
    /// What was expected, as a phrase that goes on after "expected".
    pub fn judge(&self, actual: Option<&Value>) -> Result<(), String> {
        self.judge_found(actual, actual.is_some())
    }

    /// Judges what is there; a path that can find several things gives an array even where nothing was `found`.
    ///
    /// # Errors
    /// As [`Self::judge`].
    pub fn judge_found(&self, actual: Option<&Value>, found: bool) -> Result<(), String> {
        if let Self::All(all) = self {
            return all.iter().try_for_each(|matcher| matcher.judge_found(actual, found));
        }
        let holds = match (self, actual) {
            (Self::Absent, _) => !found,
            (Self::Exists, _) => found,
            (_, None) => false,
            (Self::Not(matcher), actual) => found && !matcher.is_lost() && matcher.judge_found(actual, found).is_err(),
            (Self::Json(parts), Some(actual)) => {
                let document: Value = actual
                    .as_str()
                    .and_then(|text| serde_json::from_str(text).ok())
                    .ok_or_else(|| "a text that is JSON".to_owned())?;
                return parts.iter().try_for_each(|(key, matcher)| {
                    matcher
                        .judge(path::select(&document, key).as_deref())
                        .map_err(|expected| format!("a text that is JSON with {key}: {expected}"))
                });
            }
            (Self::Schema(schema), Some(actual)) => {
                return schema
                    .breach(actual)
                    .map_or(Ok(()), |breach| Err(format!("what its schema allows ({breach})")));
            }
            (Self::Length(matcher), Some(actual)) => {
                let length = length(actual).map(|length| Value::Number(Number::from(length)));
                return matcher.judge(length.as_ref()).map_err(|expected| format!("a length of {expected}"));
            }
            (_, Some(actual)) => self.holds(actual),
        };
        if holds { Ok(()) } else { Err(self.phrase()) }
    }

    fn holds(&self, actual: &Value) -> bool {
        match self {
            Self::Equals(expected) => same(expected, actual),
            Self::Type(kind) => match &**kind {
                "null" => actual.is_null(),
                "boolean" => actual.is_boolean(),
                "integer" => actual.is_i64() || actual.is_u64(),
                "number" => actual.is_number(),
                "string" => actual.is_string(),
                "array" => actual.is_array(),
                _ => actual.is_object(),
            },
            Self::Bound(bound, limit) => actual.as_f64().is_some_and(|number| match bound {
                Bound::Gt => number > *limit,
                Bound::Gte => number >= *limit,
                Bound::Lt => number < *limit,
                Bound::Lte => number <= *limit,
            }),
            Self::Set(wanted) => actual.as_array().is_some_and(|items| {
                let mut left: Vec<&Value> = wanted.iter().collect();
                items.len() == left.len()
                    && items.iter().all(|item| {
                        left.iter().position(|wanted| same(wanted, item)).map(|at| left.swap_remove(at)).is_some()
                    })
            }),
            Self::Matches(expression) => actual.as_str().is_some_and(|text| expression.is_match(text)),
            Self::Contains(wanted) => match (actual, wanted) {
                (Value::String(text), Value::String(part)) => text.contains(part),
                (Value::Array(items), wanted) => items.iter().any(|item| same(wanted, item)),
                (Value::Object(fields), Value::String(key)) => fields.contains_key(key),
                _ => false,
            },
            Self::StartsWith(start) => actual.as_str().is_some_and(|text| text.starts_with(start)),
            Self::OneOf(choices) => choices.iter().any(|choice| same(choice, actual)),
            Self::SameAs { value, .. } => value.as_ref().is_some_and(|value| same(value, actual)),
            Self::Any(matcher) => elements(actual).any(|element| matcher.judge(Some(element)).is_ok()),
            Self::Every(matcher) => {
                let mut elements = elements(actual).peekable();
                elements.peek().is_some() && elements.all(|element| matcher.judge(Some(element)).is_ok())
            }
            Self::Keys(keys) => actual.as_object().is_some_and(|fields| fields.keys().eq(keys)),
            Self::All(_)
            | Self::Length(_)
            | Self::Json(_)
            | Self::Schema(_)
            | Self::Not(_)
            | Self::Absent
            | Self::Exists => self.judge(Some(actual)).is_ok(),
        }
    }

    /// What it expects, as a phrase.
    #[must_use]
    pub fn phrase(&self) -> String {
        match self {
            Self::All(all) => all.iter().map(Self::phrase).collect::<Vec<_>>().join(" and "),
            Self::Equals(value) => value.to_string(),
            Self::Type(kind) => match &**kind {
                "null" => "null".to_owned(),
                "integer" | "array" | "object" => format!("an {kind}"),
                _ => format!("a {kind}"),
            },
            Self::Bound(bound, limit) => format!("{} {limit}", bound.words()),
            Self::Set(wanted) => format!("{} in any order", Value::Array(wanted.clone())),
            Self::Schema(_) => "what its schema allows".to_owned(),
            Self::Matches(expression) => format!("a text that matches /{expression}/"),
            Self::Contains(value) => format!("something that contains {value}"),
            Self::StartsWith(start) => format!("a text that starts with {start:?}"),
            Self::Length(matcher) => format!("a length of {}", matcher.phrase()),
            Self::OneOf(choices) => {
                let mut out = "one of ".to_owned();
                for (nth, choice) in choices.iter().enumerate() {
                    let _ = write!(out, "{}{choice}", if nth == 0 { "" } else { ", " });
                }
                out
            }
            Self::SameAs { other, value: Some(value) } => format!("the same as {other}, {value}"),
            Self::SameAs { other, value: None } => format!("the same as {other}"),
            Self::Absent => "nothing to be there".to_owned(),
            Self::Exists => "something to be there".to_owned(),
            Self::Not(matcher) => format!("anything but {}", matcher.phrase()),
            Self::Any(matcher) => format!("at least one element that is {}", matcher.phrase()),
            Self::Every(matcher) => format!("elements that are each {}", matcher.phrase()),
            Self::Keys(keys) => format!("an object with the keys {} in this order", keys.join(", ")),
            Self::Json(parts) => {
                let parts: Vec<_> = parts.iter().map(|(key, matcher)| format!("{key}: {}", matcher.phrase())).collect();
                format!("a text that is JSON with {}", parts.join(", "))
            }
        }
    }
}

/// The part of a value that differs from what is expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Where it is, from the value that was judged: `[2].name`.
    pub at: String,
    /// What was expected there.
    pub expected: String,
    /// What is there.
    pub actual: String,
}

impl Difference {
    fn of(matcher: &Matcher, actual: &Value) -> Self {
        Self { at: String::new(), expected: matcher.phrase(), actual: brief(actual) }
    }

    fn below(self, at: &str) -> Self {
        Self { at: format!("{at}{}", self.at), ..self }
    }
}

/// The first difference within two lists or objects.
fn different(expected: &Value, actual: &Value) -> Option<Difference> {
    let deeper = |at: String, expected: &Value, actual: &Value| {
        let whole = || Difference { at: String::new(), expected: expected.to_string(), actual: brief(actual) };
        different(expected, actual).unwrap_or_else(whole).below(&at)
    };
    match (expected, actual) {
        (Value::Array(these), Value::Array(those)) => {
            let unlike = these.iter().zip(those).enumerate().find(|(_, (one, other))| !same(one, other));
            if let Some((nth, (one, other))) = unlike {
                return Some(deeper(format!("[{nth}]"), one, other));
            }
            let reported = |items: &[Value], others: usize| {
                format!(
                    "{} elements{}",
                    items.len(),
                    items.get(others).map_or_else(String::new, |more| format!(", also {}", brief(more)))
                )
            };
            Some(Difference {
                at: String::new(),
                expected: reported(these, those.len()),
                actual: reported(those, these.len()),
            })
        }
        (Value::Object(these), Value::Object(those)) => {
            let keys: Vec<_> = these.keys().chain(those.keys().filter(|key| !these.contains_key(*key))).collect();
            let key = keys.into_iter().find(|key| match (these.get(*key), those.get(*key)) {
                (Some(one), Some(other)) => !same(one, other),
                _ => true,
            })?;
            match (these.get(key), those.get(key)) {
                (Some(one), Some(other)) => Some(deeper(format!(".{key}"), one, other)),
                (one, other) => {
                    let reported = |value: Option<&Value>| value.map_or_else(|| "nothing".to_owned(), brief);
                    Some(Difference { at: format!(".{key}"), expected: reported(one), actual: reported(other) })
                }
            }
        }
        _ => None,
    }
}

/// Whether a text is a number or a boolean as JSON writes it.
fn reads_as(text: &str, value: &Value) -> bool {
    serde_json::from_str::<Value>(text).is_ok_and(|read| read == *value)
}

/// A value in reports.
pub(super) fn brief(value: &Value) -> String {
    shorten(&value.to_string(), 400)
}

fn elements(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn length(value: &Value) -> Option<usize> {
    match value {
        Value::String(text) => Some(text.chars().count()),
        Value::Array(items) => Some(items.len()),
        Value::Object(fields) => Some(fields.len()),
        _ => None,
    }
}

/// Whether two values are the same JSON; `1` is `1.0`.
fn same(expected: &Value, actual: &Value) -> bool {
    match (expected, actual) {
        (Value::Number(a), Value::Number(b)) => a == b || (a.as_f64() == b.as_f64() && (a.is_f64() || b.is_f64())),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        (a, b) => a == b,
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Borrow;

    use serde_json::json;

    use super::*;

    fn parse(written: &Value) -> Result<Matcher, String> {
        Matcher::parse(written, &Variables::default())
    }

    fn judge(matcher: impl Borrow<Value>, actual: impl Borrow<Value>) -> Result<(), String> {
        parse(matcher.borrow()).unwrap().judge(Some(actual.borrow()))
    }

    #[test]
    fn a_plain_value_is_compared_as_json() {
        assert_eq!(judge(json!(1), json!(1.0)), Ok(()));
        assert_eq!(judge(json!([1, "a"]), json!([1, "a"])), Ok(()));
        assert_eq!(judge(json!({"equals": {"a": 1, "b": 2}}), json!({"b": 2, "a": 1})), Ok(()));
        assert_eq!(judge(json!("stop"), json!("length")), Err("\"stop\"".to_owned()));
        assert_eq!(judge(json!("1"), json!(1)), Err("\"1\"".to_owned()));
        assert!(judge(json!(9_007_199_254_740_993_u64), json!(9_007_199_254_740_992_u64)).is_err());
    }

    #[test]
    fn all_matchers_of_a_mapping_must_hold_and_the_failing_one_is_reported() {
        assert_eq!(judge(json!({"gte": 2, "lt": 5}), json!(2)), Ok(()));
        assert_eq!(judge(json!({"gte": 2, "lt": 5}), json!(5)), Err("less than 5".to_owned()));
        assert_eq!(judge(json!({"gt": 1}), json!("2")), Err("more than 1".to_owned()));
    }

    #[test]
    fn a_set_is_the_same_in_any_order_and_a_schema_reports_the_breach() {
        assert_eq!(judge(json!({"set": [1, 2, 2]}), json!([2, 1, 2])), Ok(()));
        assert!(judge(json!({"set": [1, 2]}), json!([2, 2])).is_err());
        assert!(judge(json!({"set": [1]}), json!([1, 1])).is_err());
        let schema = json!({"schema": {"type": "object", "required": ["a"]}});
        assert_eq!(judge(&schema, json!({"a": 1})), Ok(()));
        assert_eq!(
            judge(&schema, json!({})),
            Err("what its schema allows (/: \"a\" is a required property)".to_owned())
        );
        assert!(parse(&json!({"schema": {"requird": ["a"]}})).unwrap_err().contains("`requird`"));
    }

    #[test]
    fn texts_lists_and_objects_can_contain_things() {
        assert_eq!(judge(json!({"contains": "ell"}), json!("hello")), Ok(()));
        assert_eq!(judge(json!({"contains": 2}), json!([1, 2])), Ok(()));
        assert_eq!(judge(json!({"contains": "a"}), json!({"a": 1})), Ok(()));
        assert!(judge(json!({"contains": 1}), json!("1")).is_err());
        assert_eq!(judge(json!({"matches": "^h.*o$"}), json!("hello")), Ok(()));
        assert_eq!(judge(json!({"starts_with": "he"}), json!("hello")), Ok(()));
    }

    #[test]
    fn lengths_are_numbers_to_be_matched() {
        assert_eq!(judge(json!({"length": 3}), json!("äöü")), Ok(()));
        assert_eq!(judge(json!({"length": {"gte": 2}}), json!([1])), Err("a length of at least 2".to_owned()));
        assert!(judge(json!({"length": 0}), json!(5)).is_err());
    }

    #[test]
    fn nothing_is_absent_and_null_is_not_nothing() {
        let absent = parse(&json!({"absent": true})).unwrap();
        assert_eq!(absent.judge(None), Ok(()));
        assert!(absent.judge(Some(&Value::Null)).is_err());
        let exists = parse(&json!({"exists": true})).unwrap();
        assert_eq!(exists.judge(Some(&Value::Null)), Ok(()));
        assert!(exists.judge(None).is_err());
        assert!(parse(&json!({"exists": false})).unwrap().judge(Some(&json!(1))).is_err());
    }

    #[test]
    fn an_array_of_what_was_not_found_is_nothing() {
        let judge = |written: Value, found| parse(&written).unwrap().judge_found(Some(&json!([])), found).is_ok();
        for (written, of_none, of_an_empty_list) in [
            (json!({"exists": true}), false, true),
            (json!({"absent": true}), true, false),
            (json!({"not": "a"}), false, true),
            (json!({"not": {"exists": true}}), false, false),
            (json!([]), true, true),
            (json!({"length": 0, "absent": true}), true, false),
        ] {
            assert_eq!(
                (judge(written.clone(), false), judge(written.clone(), true)),
                (of_none, of_an_empty_list),
                "{written}"
            );
        }
    }

    #[test]
    fn not_is_no_way_to_pass_on_nothing() {
        let not = parse(&json!({"not": "a"})).unwrap();
        assert_eq!(not.judge(Some(&json!("b"))), Ok(()));
        assert!(not.judge(Some(&json!("a"))).is_err());
        assert!(not.judge(None).is_err());
    }

    #[test]
    fn every_element_means_at_least_one() {
        assert_eq!(judge(json!({"every": {"type": "string"}}), json!(["a", "b"])), Ok(()));
        assert!(judge(json!({"every": {"type": "string"}}), json!([])).is_err());
        assert_eq!(judge(json!({"any": {"gt": 1}}), json!([1, 2])), Ok(()));
        assert!(judge(json!({"any": {"gt": 2}}), json!([1, 2])).is_err());
    }

    #[test]
    fn a_text_of_json_is_looked_into() {
        let matcher = json!({"json": {"$.city": "Oslo"}});
        assert_eq!(judge(&matcher, json!("{\"city\":\"Oslo\"}")), Ok(()));
        assert_eq!(
            judge(&matcher, json!("{\"city\":\"Rome\"}")),
            Err("a text that is JSON with $.city: \"Oslo\"".to_owned())
        );
        assert_eq!(judge(matcher, json!("Oslo")), Err("a text that is JSON".to_owned()));
    }

    #[test]
    fn keys_are_compared_in_order() {
        assert_eq!(judge(json!({"keys": ["a", "b"]}), json!({"a": 1, "b": 2})), Ok(()));
        assert!(judge(json!({"keys": ["b", "a"]}), json!({"a": 1, "b": 2})).is_err());
    }

    #[test]
    fn types_are_those_of_json_schema() {
        assert_eq!(judge(json!({"type": "integer"}), json!(3)), Ok(()));
        assert!(judge(json!({"type": "integer"}), json!(3.5)).is_err());
        assert_eq!(judge(json!({"type": "number"}), json!(3)), Ok(()));
        assert!(parse(&json!({"type": "int"})).unwrap_err().contains("expected one of null, boolean"));
    }

    #[test]
    fn an_unknown_matcher_is_reported_with_the_known_ones() {
        let wrong = parse(&json!({"gte": 1, "atleast": 2})).unwrap_err();
        assert!(wrong.starts_with("unknown matcher `atleast`, expected one of equals, type, gt"), "{wrong}");
        assert!(parse(&json!({"not": {"nope": 1}})).unwrap_err().starts_with("in `not`: unknown matcher"));
        assert!(parse(&json!({})).unwrap_err().contains("checks nothing"));
    }

    #[test]
    fn every_named_matcher_is_known() {
        for name in NAMES {
            let wrong = Matcher::one(name, &json!({"nope": 1}), &Variables::default()).err().unwrap_or_default();
            assert!(!wrong.starts_with(&format!("unknown matcher `{name}`")), "{name}");
        }
    }

    fn known() -> Variables {
        let mut known = Variables::default();
        known.set("id", json!(7));
        known.answered("first", Answer::Given(json!({"id": 7, "list": [1, 2]})));
        known.answered("many", Answer::None("makes several calls, so it has no single answer"));
        known.answered("undone", Answer::Promised);
        known
    }

    #[test]
    fn a_value_is_compared_with_a_capture_or_another_answer() {
        let judge = |written: Value, actual: Value| {
            Matcher::parse(&json!({"same_as": written}), &known()).unwrap().judge(Some(&actual))
        };
        assert_eq!(judge(json!("id"), json!(7)), Ok(()));
        assert_eq!(judge(json!("id"), json!(8)), Err("the same as `id`, 7".to_owned()));
        let first = |path: &str| json!({"step": "first", "path": path});
        assert_eq!(judge(first("$.list"), json!([1, 2])), Ok(()));
        assert_eq!(judge(first("$.id"), json!(8)), Err("the same as $.id of the step `first`, 7".to_owned()));
        let nothing = "the same as $.none of the step `first`, where there was nothing";
        assert_eq!(judge(first("$.none"), json!(8)), Err(nothing.to_owned()));
        let undone = judge(json!({"step": "undone", "path": "$.id"}), json!(7));
        assert_eq!(undone, Err("the same as $.id of the step `undone`, which was not done".to_owned()));
    }

    #[test]
    fn lengths_of_two_values_are_compared() {
        let mut known = known();
        known.set_this_answer(json!({"data": [{"embedding": [1, 2, 3]}, {"embedding": [4, 5, 6]}], "n": 3}));
        let judge = |written: Value, actual: Value| Matcher::parse(&written, &known).unwrap().judge(Some(&actual));
        let vector = json!({"length": {"same_as": {"path": "$.data[0].embedding"}}});
        assert_eq!(judge(vector.clone(), json!([7, 8, 9])), Ok(()));
        let reported = judge(vector, json!([7])).unwrap_err();
        assert_eq!(reported, "a length of the same as that of $.data[0].embedding of this answer, 3");
        assert_eq!(judge(json!({"length": {"same_as": {"path": "$.n"}}}), json!("abc")), Ok(()));
        assert_eq!(judge(json!({"length": {"same_as": {"step": "first", "path": "$.list"}}}), json!([1, 2])), Ok(()));
        assert_eq!(judge(json!({"length": {"not": {"same_as": {"path": "$.n"}}}}), json!([1])), Ok(()));
        assert!(judge(json!({"length": {"same_as": {"path": "$.none"}}}), json!([1])).is_err());
        assert_eq!(judge(json!({"same_as": {"path": "$.n"}}), json!(3)), Ok(()));
    }

    #[test]
    fn only_the_element_that_differs_is_shown() {
        let narrow = |written: Value, actual: Value| {
            let Difference { at, expected, actual } = parse(&written).unwrap().narrow(&actual).unwrap();
            (at, expected, actual)
        };
        let reported = |at: &str, expected: &str, actual: &str| (at.to_owned(), expected.to_owned(), actual.to_owned());
        assert_eq!(narrow(json!([1, {"a": 2, "b": 3}]), json!([1, {"a": 2, "b": 4}])), reported("[1].b", "3", "4"));
        assert_eq!(narrow(json!([1]), json!([1, 2])), reported("", "1 elements", "2 elements, also 2"));
        assert_eq!(narrow(json!({"equals": {"a": 1}}), json!({"a": 1, "c": 5})), reported(".c", "nothing", "5"));
        let every = narrow(json!({"every": {"length": 2}}), json!([[0, 0], [0.1]]));
        assert_eq!(every, reported("[1]", "a length of 2", "a length of 1: [0.1]"));
        assert_eq!(narrow(json!({"set": [1, 2]}), json!([2, 3])).2, "missing: 1; surplus: 3");
        let json = narrow(json!({"json": {"$.city": "Oslo"}}), json!("{\"town\":\"Oslo\"}"));
        assert_eq!(json, reported(" as JSON, $.city", "\"Oslo\"", "nothing; `$` has town"));
        assert_eq!(parse(&json!(1)).unwrap().narrow(&json!(2)), None);
    }

    #[test]
    fn a_text_that_reads_like_the_number_is_hinted_at() {
        let hint = |written: Value, actual: Value| parse(&written).unwrap().kind_hint(&actual);
        assert_eq!(hint(json!("200"), json!(200)), Some("the expected value is a text: leave out the quotes"));
        assert!(hint(json!(200), json!("200")).is_some() && hint(json!("true"), json!(true)).is_some());
        assert!(hint(json!({"gt": 1}), json!("2")).is_some());
        assert_eq!(hint(json!("201"), json!(200)), None);
    }

    #[test]
    fn nothing_differs_from_what_was_not_there() {
        let lost = json!({"same_as": {"step": "first", "path": "$.none"}});
        for inner in [lost.clone(), json!({"any": lost}), json!({"length": lost}), json!({"json": {"$.a": lost}})] {
            let not = Matcher::parse(&json!({"not": inner}), &known()).unwrap();
            assert!(not.judge(Some(&json!([8]))).is_err(), "{inner}");
            assert!(not.judge(Some(&json!("{\"a\":8}"))).is_err(), "{inner}");
        }
        let not = Matcher::parse(&json!({"not": {"same_as": "id"}}), &known()).unwrap();
        assert_eq!(not.judge(Some(&json!(8))), Ok(()));
    }

    #[test]
    fn what_cannot_be_compared_with_is_reported() {
        let wrong = |written: Value| Matcher::parse(&json!({"same_as": written}), &known()).unwrap_err();
        assert!(wrong(json!("nope")).contains("unknown variable `nope`, expected one of id"));
        assert!(wrong(json!(7)).starts_with("`same_as` takes the name of a capture"));
        assert!(wrong(json!({"step": "first"})).starts_with("`same_as` takes"));
        assert!(wrong(json!({"step": "first", "path": "$.", "more": 1})).starts_with("`same_as` takes"));
        assert!(wrong(json!({"step": "first", "path": "id"})).contains("invalid JSONPath"));
        assert!(
            wrong(json!({"step": "frist", "path": "$.id"})).contains("unknown step `frist`, expected one of first")
        );
        assert!(wrong(json!({"step": "many", "path": "$.id"})).contains("the step `many` makes several calls"));
    }
}
