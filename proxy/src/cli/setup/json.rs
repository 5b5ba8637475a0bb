//! Changes JSON files that may have comments, preserving them and the layout.

use jsonc_parser::{
    ParseOptions,
    cst::{CstInputValue, CstNode, CstObject, CstRootNode},
};
use serde_json::Value;

/// A JSON file with comments.
pub(super) struct Json(CstRootNode);

impl Json {
    /// Reads a file; an empty text is one without a value.
    ///
    /// # Errors
    /// Fails if the text is not JSON.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        CstRootNode::parse(text, &ParseOptions::default()).map(Self).map_err(|error| format!("it is not JSON: {error}"))
    }

    /// Sets the value at a path of names.
    ///
    /// # Errors
    /// Fails if something on the way is not an object.
    pub(super) fn set(&self, path: &[&str], value: &Value) -> Result<(), String> {
        if self.0.value().is_some_and(|value| value.as_object().is_none()) {
            return Err("it is not an object".to_owned());
        }
        let mut object = self.0.object_value_or_set();
        let Some((last, way)) = path.split_last() else { return Ok(()) };
        for name in way {
            if object.get(name).and_then(|property| property.value()).is_some_and(|value| value.as_object().is_none()) {
                return Err(format!("`{name}` in it is not an object"));
            }
            object = object.object_value_or_set(name);
        }
        set(&object, last, value);
        Ok(())
    }

    /// The value at a path of names.
    pub(super) fn get(&self, path: &[&str]) -> Option<Value> {
        let whole = self.0.value()?.to_serde_value()?;
        path.iter().try_fold(&whole, |value, name| value.get(name)).cloned()
    }

    /// The object of a list at the top whose `field` is the same as in `value`.
    pub(super) fn find(&self, field: &str, value: &Value) -> Option<Value> {
        let list = self.0.value()?.to_serde_value()?;
        list.as_array()?
            .iter()
            .find(|known| known.get(field).is_some() && known.get(field) == value.get(field))
            .cloned()
    }

    /// Puts `value` in the place of the object of a list at the top whose `field` is the same, or at the end.
    ///
    /// # Errors
    /// Fails if it is not a list.
    pub(super) fn put(&self, field: &str, value: &Value) -> Result<(), String> {
        if self.0.value().is_some_and(|value| value.as_array().is_none()) {
            return Err("it is not a list".to_owned());
        }
        let list = self.0.array_value_or_set();
        let same = |node: &CstNode| {
            node.to_serde_value()
                .is_some_and(|known| known.get(field).is_some() && known.get(field) == value.get(field))
        };
        match list.elements().into_iter().find(same) {
            Some(known) if known.to_serde_value().as_ref() == Some(value) => {}
            Some(known) => {
                if let Some(object) = known.as_object() {
                    object.replace_with(input(value));
                }
            }
            None => {
                list.append(input(value));
            }
        }
        Ok(())
    }

    /// The text, with a newline at its end.
    pub(super) fn text(&self) -> String {
        let text = self.0.to_string();
        if text.ends_with('\n') { text } else { text + "\n" }
    }
}

fn set(object: &CstObject, name: &str, value: &Value) {
    match object.get(name) {
        // What is the same keeps its layout.
        Some(property) if property.value().and_then(|known| known.to_serde_value()).as_ref() == Some(value) => {}
        Some(property) => property.set_value(input(value)),
        None => {
            object.append(name, input(value));
        }
    }
}

fn input(value: &Value) -> CstInputValue {
    match value {
        Value::Null => CstInputValue::Null,
        Value::Bool(on) => CstInputValue::Bool(*on),
        Value::Number(number) => CstInputValue::Number(number.to_string()),
        Value::String(text) => CstInputValue::String(text.clone()),
        Value::Array(list) => CstInputValue::Array(list.iter().map(input).collect()),
        Value::Object(map) => {
            CstInputValue::Object(map.iter().map(|(name, value)| (name.clone(), input(value))).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn comments_and_layout_stay() {
        let text = "{\n  // mine\n  \"theme\": \"dark\", // dark\n  \"a\": { \"b\": 1 }\n}\n";
        let json = Json::read(text).unwrap();
        json.set(&["a", "b"], &json!(1)).unwrap();
        assert_eq!(json.text(), text);
        json.set(&["a", "c"], &json!({"d": [true]})).unwrap();
        let changed = json.text();
        for kept in ["// mine", "\"theme\": \"dark\", // dark", "\"b\": 1"] {
            assert!(changed.contains(kept), "{changed}");
        }
        let again = Json::read(&changed).unwrap();
        again.set(&["a", "c"], &json!({"d": [true]})).unwrap();
        assert_eq!(again.text(), changed);
    }

    #[test]
    fn a_new_file_gets_an_object_and_another_kind_of_value_is_left_alone() {
        let json = Json::read("").unwrap();
        json.set(&["a", "b"], &json!("x")).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&json.text()).unwrap(), json!({"a": {"b": "x"}}));
        assert!(Json::read("[1]").unwrap().set(&["a"], &json!(1)).is_err());
        assert!(Json::read("{\"a\": 1}").unwrap().set(&["a", "b"], &json!(1)).is_err());
        assert!(Json::read("{ nothing").is_err());
    }

    #[test]
    fn an_entry_of_a_list_is_replaced_by_its_name() {
        let json = Json::read("[\n  // mine\n  { \"name\": \"other\" }\n]\n").unwrap();
        json.put("name", &json!({"name": "farllama", "x": 1})).unwrap();
        json.put("name", &json!({"name": "farllama", "x": 2})).unwrap();
        assert!(json.text().contains("// mine"));
        let again = Json::read(&json.text()).unwrap();
        again.put("name", &json!({"name": "farllama", "x": 2})).unwrap();
        assert_eq!(again.text(), json.text());
        assert!(again.text().matches("farllama").count() == 1 && again.text().contains("\"x\": 2"));
    }
}
