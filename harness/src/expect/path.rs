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

/// Whether a path can be read.
///
/// # Errors
/// Where it cannot, in one line.
pub fn check(path: &str) -> Result<(), String> {
    parse_json_path(path).map(drop).map_err(|error| {
        let told = error.to_string();
        // The parser draws a caret; its first line has the column, its last what was expected.
        let column = told.lines().find_map(|line| line.rsplit_once("--> 1:")).map(|(_, column)| column.trim());
        let reason = told.lines().find_map(|line| line.trim().strip_prefix("= "));
        match (column, reason) {
            (Some(column), Some(reason)) => format!("`{path}` is no JSONPath: at its character {column}, {reason}"),
            _ => format!("`{path}` is no JSONPath: {}", told.lines().next().unwrap_or_default()),
        }
    })
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
    fn what_is_no_path_is_told_in_one_line() {
        let wrong = check("$.a[").unwrap_err();
        assert_eq!(wrong, "`$.a[` is no JSONPath: at its character 5, expected selector");
        assert_eq!(check("$.choices[0].message"), Ok(()));
    }
}
