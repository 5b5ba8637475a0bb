//! What llama-server says of a schema that is none.

use serde_json::{Map, Value};

use super::resolve;

/// Why the schema is none: the first part with an unknown type, or a reference to nothing.
pub(crate) fn fault(schema: &Value) -> Option<String> {
    fault_in(schema, schema)
}

const TYPES: [&str; 7] = ["object", "array", "string", "number", "integer", "boolean", "null"];

fn fault_in(root: &Value, schema: &Value) -> Option<String> {
    let object = schema.as_object()?;
    let is_known = |kind: &Value| kind.as_str().is_some_and(|kind| TYPES.contains(&kind));
    let types_known = match object.get("type") {
        None => true,
        Some(Value::Array(kinds)) => kinds.iter().all(is_known),
        Some(kind) => is_known(kind),
    };
    if !types_known {
        return Some(format!("Unrecognized schema: {schema}"));
    }
    if let Some(reference) = object.get("$ref").and_then(Value::as_str)
        && resolve(root, reference).is_none()
    {
        return Some(format!("Error resolving ref {reference}"));
    }
    let named = ["properties", "$defs", "definitions"].into_iter().filter_map(|key| object.get(key)?.as_object());
    let listed = ["allOf", "anyOf", "oneOf", "prefixItems"].into_iter().filter_map(|key| object.get(key)?.as_array());
    let single = ["items", "additionalProperties"].into_iter().filter_map(|key| object.get(key));
    named.flat_map(Map::values).chain(listed.flatten()).chain(single).find_map(|part| fault_in(root, part))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_schema_that_is_none_is_told() {
        assert_eq!(fault(&json!({"type": "nonsense"})).unwrap(), "Unrecognized schema: {\"type\":\"nonsense\"}");
        assert!(fault(&json!({"properties": {"a": {"items": {"type": "x"}}}})).unwrap().contains("{\"type\":\"x\"}"));
        assert!(fault(&json!({"$ref": "#/$defs/none"})).is_some());
    }
}
