//! Two schemas that both have to hold, as one.

use serde_json::{Map, Value, json};

/// Puts a keyword beside those that are there: of two bounds the narrower, of two sets of properties both.
pub(super) fn merge(flat: &mut Map<String, Value>, key: &str, value: &Value) {
    let Some(known) = flat.get_mut(key) else {
        flat.insert(key.to_owned(), value.clone());
        return;
    };
    match (key, &mut *known, value) {
        ("properties", Value::Object(known), Value::Object(more)) => {
            for (name, part) in more {
                let both = known.get(name).map_or_else(|| part.clone(), |there| json!({"allOf": [there, part]}));
                known.insert(name.clone(), both);
            }
        }
        ("required", Value::Array(known), Value::Array(more)) => known.extend(more.iter().cloned()),
        ("enum", Value::Array(known), Value::Array(more)) => known.retain(|value| more.contains(value)),
        ("minimum" | "exclusiveMinimum" | "minItems" | "minLength" | "minProperties", known, value) => {
            if value.as_f64() > known.as_f64() {
                *known = value.clone();
            }
        }
        ("maximum" | "exclusiveMaximum" | "maxItems" | "maxLength", known, value) => {
            if value.as_f64() < known.as_f64() {
                *known = value.clone();
            }
        }
        (_, known, value) => *known = value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_bounds_the_narrower_holds() {
        let mut flat = json!({"minimum": 1, "maximum": 9, "enum": ["a", "b"]}).as_object().unwrap().clone();
        for (key, value) in
            [("minimum", json!(3)), ("maximum", json!(20)), ("enum", json!(["b", "c"])), ("title", json!("t"))]
        {
            merge(&mut flat, key, &value);
        }
        assert_eq!(Value::from(flat), json!({"minimum": 3, "maximum": 9, "enum": ["b"], "title": "t"}));
    }
}
