//! JSONPath (RFC 9535): which part of a document a check is about.

use std::borrow::Cow;

use jsonpath_rust::{
    JsonPath,
    parser::{
        model::{Segment, Selector},
        parse_json_path,
    },
};
use serde_json::Value;

use crate::text::shorten;

/// A path as an example in messages.
const EXAMPLE: &str = "$.choices[0].message.content";

/// Whether a path can be read.
///
/// # Errors
/// What is wrong with it, in one line, and what a path looks like.
pub fn check(path: &str) -> Result<(), String> {
    let Err(error) = parse_json_path(path) else { return Ok(()) };
    let reason = reason(path).unwrap_or_else(|| {
        // The parser draws a caret; its first line has the column.
        let reported = error.to_string();
        let column = reported.lines().find_map(|line| line.rsplit_once("--> 1:")).map(|(_, column)| column.trim());
        match column {
            Some(column) => format!("it cannot be read from character {column} on"),
            None => reported.lines().next().unwrap_or_default().to_owned(),
        }
    });
    Err(format!("invalid JSONPath `{path}`: {reason}; a path looks like {EXAMPLE}"))
}

/// The usual mistakes.
fn reason(path: &str) -> Option<String> {
    let count = |c| path.matches(c).count();
    if path != path.trim() {
        return Some("there are blanks around it".to_owned());
    }
    let Some(rest) = path.strip_prefix('$') else {
        let rest = path.trim_start_matches('.');
        let meant = if rest.starts_with('[') { format!("${rest}") } else { format!("$.{rest}") };
        let meant = if parse_json_path(&meant).is_ok() { format!(": did you mean `{meant}`?") } else { String::new() };
        return Some(format!("it does not begin with `$`{meant}"));
    };
    if count('[') > count(']') {
        return Some("a `[` has no `]`".to_owned());
    }
    if count(']') > count('[') {
        return Some("a `]` has no `[`".to_owned());
    }
    if rest.contains("[]") {
        return Some("`[]` selects nothing: write `[0]` for the first, `[*]` for all".to_owned());
    }
    if rest.ends_with('.') {
        return Some("it ends with a dot".to_owned());
    }
    if rest.starts_with(|c: char| c.is_alphanumeric()) {
        return Some(format!("a dot is missing behind `$`: did you mean `$.{rest}`?"));
    }
    if rest.ends_with(')') && !rest.contains('?') {
        return Some("functions work only within a filter, such as $.data[?length(@.embedding) > 3]; to check a length use the matcher `length`".to_owned());
    }
    let name = rest.split(['.', '[']).find(|name| name.contains('-') && !name.contains(['\'', '"', ']']));
    name.map(|name| format!("a name with a dash stands in brackets: ['{name}']"))
}

/// What there is instead of what a path names: how far it leads, and what is there.
#[must_use]
pub fn missing(document: &Value, path: &str) -> String {
    let Ok(query) = parse_json_path(path) else { return "nothing".to_owned() };
    let (mut at, mut here) = ("$".to_owned(), document);
    for segment in &query.segments {
        let next = match segment {
            Segment::Selector(Selector::Name(name)) => {
                let name = name.trim_matches(['\'', '"']);
                here.get(name).map(|next| (format!("{at}.{name}"), next))
            }
            Segment::Selector(Selector::Index(index)) => {
                let length = here.as_array().map_or(0, Vec::len);
                let nth = usize::try_from(*index)
                    .ok()
                    .or_else(|| length.checked_sub(usize::try_from(index.unsigned_abs()).unwrap_or(usize::MAX)));
                nth.and_then(|nth| here.get(nth)).map(|next| (format!("{at}[{index}]"), next))
            }
            _ => None,
        };
        let Some((place, value)) = next else { break };
        (at, here) = (place, value);
    }
    let there = match here {
        Value::Object(fields) if fields.is_empty() => "is an empty object".to_owned(),
        Value::Object(fields) => {
            let names: Vec<_> = fields.keys().map(String::as_str).collect();
            format!("has {}", shorten(&names.join(", "), 200))
        }
        Value::Array(items) => match items.len() {
            0 => "is an empty list".to_owned(),
            1 => "is a list of 1 element".to_owned(),
            many => format!("is a list of {many} elements"),
        },
        // An answer that is none, or that could not be read.
        Value::Null if at == "$" => return "nothing".to_owned(),
        other => format!("is {}", shorten(&other.to_string(), 80)),
    };
    format!("nothing; `{at}` {there}")
}

/// Whether a path names one place.
fn names_one(path: &str) -> Option<bool> {
    let one = |segment: &Segment| matches!(segment, Segment::Selector(Selector::Name(_) | Selector::Index(_)));
    Some(parse_json_path(path).ok()?.segments.iter().all(one))
}

/// Whether what a path selected is the array of nothing that it found.
#[must_use]
pub fn found_none(path: &str, selected: &Value) -> bool {
    selected.as_array().is_some_and(Vec::is_empty) && names_one(path) == Some(false)
}

/// What a path selects: one value if it names one place, and otherwise the array of all that it finds.
#[must_use]
pub fn select<'a>(document: &'a Value, path: &str) -> Option<Cow<'a, Value>> {
    let found = document.query(path).ok()?;
    if names_one(path)? {
        return found.first().map(|value| Cow::Borrowed(*value));
    }
    Some(Cow::Owned(found.into_iter().cloned().collect()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_path_to_one_place_selects_that_value_or_nothing() {
        let document = json!({"a": [{"b": null}, {"b": 2}]});
        assert_eq!(select(&document, "$.a[1].b").as_deref(), Some(&json!(2)));
        assert_eq!(select(&document, "$.a[-1].b").as_deref(), Some(&json!(2)));
        assert_eq!(select(&document, "$.a[0].b").as_deref(), Some(&Value::Null));
        assert_eq!(select(&document, "$.a[2].b"), None);
        assert_eq!(select(&document, "$").as_deref(), Some(&document));
    }

    #[test]
    fn a_path_to_many_places_selects_an_array_even_of_none() {
        let document = json!({"a": [{"b": 1}, {"b": 2, "c": 3}]});
        assert_eq!(select(&document, "$.a[*].b").as_deref(), Some(&json!([1, 2])));
        assert_eq!(select(&document, "$.a[?@.b == 2].c").as_deref(), Some(&json!([3])));
        assert_eq!(select(&document, "$.a[1]['b','c']").as_deref(), Some(&json!([2, 3])));
        assert_eq!(select(&document, "$.x[*]").as_deref(), Some(&json!([])));
        assert!(
            found_none("$.x[*]", &json!([])) && !found_none("$.x", &json!([])) && !found_none("$.x[*]", &json!([1]))
        );
    }

    #[test]
    fn an_invalid_path_is_explained_with_an_example() {
        assert_eq!(check("$.choices[0].message"), Ok(()));
        for (path, reported) in [
            ("object", "it does not begin with `$`: did you mean `$.object`?"),
            ("choices[0].text", "did you mean `$.choices[0].text`?"),
            ("$.a[", "a `[` has no `]`"),
            ("$.choices[0.text", "a `[` has no `]`"),
            ("$.a[]", "write `[0]` for the first, `[*]` for all"),
            ("$.a.", "it ends with a dot"),
            ("$a", "did you mean `$.a`?"),
            ("$.a.length()", "use the matcher `length`"),
            ("$.content-type", "['content-type']"),
            ("$.a[?@ ==]", "it cannot be read from character"),
        ] {
            let wrong = check(path).unwrap_err();
            assert!(wrong.starts_with(&format!("invalid JSONPath `{path}`: ")), "{wrong}");
            assert!(
                wrong.contains(reported) && wrong.ends_with("a path looks like $.choices[0].message.content"),
                "{wrong}"
            );
            assert!(!wrong.contains("jp_query") && !wrong.contains("selector"), "{wrong}");
        }
    }

    #[test]
    fn what_is_there_instead_is_listed() {
        let document = json!({"id": "1", "choices": [{"index": 0, "message": {}}]});
        for (path, reported) in [
            ("$.choice[0]", "nothing; `$` has id, choices"),
            ("$.choices[3]", "nothing; `$.choices` is a list of 1 element"),
            ("$.choices[-1].text", "nothing; `$.choices[-1]` has index, message"),
            ("$.choices[0].message.content", "nothing; `$.choices[0].message` is an empty object"),
            ("$.id.x", "nothing; `$.id` is \"1\""),
            ("$['choice']", "nothing; `$` has id, choices"),
        ] {
            assert_eq!(missing(&document, path), reported, "{path}");
        }
        assert_eq!(missing(&Value::Null, "$.a"), "nothing");
    }
}
