//! `metadata` of what is stored. Pure.

use serde_json::{Map, Value};

use crate::error::Error;

/// Checks metadata: at most 16 texts, with names of at most 64 and values of at most 512 characters.
///
/// # Errors
/// Fails if it is anything else.
pub(crate) fn checked(metadata: Map<String, Value>) -> Result<Map<String, Value>, Error> {
    let fits = |(name, value): (&String, &Value)| {
        name.chars().count() <= 64 && value.as_str().is_some_and(|value| value.chars().count() <= 512)
    };
    if metadata.len() > 16 || !metadata.iter().all(fits) {
        return Err(Error::invalid(
            "metadata",
            "Invalid 'metadata': expected at most 16 texts, with names of at most 64 and values of at most 512 characters.",
        ));
    }
    Ok(metadata)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn metadata_has_its_bounds() {
        assert!(checked(Map::from_iter([("a".to_owned(), "b".into())])).is_ok());
        for wrong in [json!({"a": 1}), json!({"a": "x".repeat(513)}), json!({"x".repeat(65): "b"})] {
            assert!(checked(wrong.as_object().unwrap().clone()).is_err(), "{wrong}");
        }
    }
}
