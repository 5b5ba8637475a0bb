//! Request bodies as Go's `BindJSON` takes them.

use serde_json::{Map, Value};

use super::scan::scan;

/// What Go's decoder takes a field for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Text,
    Bool,
    Int,
    Texts,
    Ints,
    /// `map[string]interface {}`.
    Map,
    /// `map[string]string`.
    TextMap,
    Messages,
    Tools,
    /// Whatever it is, the handler judges it.
    Any,
}

impl Kind {
    fn go(self) -> &'static str {
        match self {
            Self::Text => "string",
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Texts => "[]string",
            Self::Ints => "[]int",
            Self::Map => "map[string]interface {}",
            Self::TextMap => "map[string]string",
            Self::Messages => "[]api.Message",
            Self::Tools => "api.Tools",
            Self::Any => "interface {}",
        }
    }
}

/// A request type: its Go name and the fields that are read.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) name: &'static str,
    pub(crate) fields: &'static [(&'static str, Kind)],
}

/// Reads a body as Go's `BindJSON` does: names in any case, the last wins, null is absent, unknown names are dropped, what follows the first
/// value is not looked at.
///
/// # Errors
/// Go's text.
pub(crate) fn decode(body: &[u8], request: &Request, own_argument_parser: bool) -> Result<Map<String, Value>, String> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err("missing request body".to_owned());
    }
    let text = String::from_utf8_lossy(body);
    let first = scan(&text)?;
    let value: Value = serde_json::from_str(&lenient(first)).map_err(|_| "unexpected EOF".to_owned())?;
    let object = match value {
        Value::Object(object) => object,
        Value::Null => Map::new(),
        other => {
            return Err(format!("json: cannot unmarshal {} into Go value of type api.{}", word(&other), request.name));
        }
    };
    let mut out = Map::new();
    for (name, value) in object {
        let Some((known, kind)) = request.fields.iter().find(|(known, _)| known.eq_ignore_ascii_case(&name)) else {
            continue;
        };
        if value.is_null() {
            continue;
        }
        check(&format!("{}.{known}", request.name), *kind, &value, own_argument_parser)?;
        out.insert((*known).to_owned(), value);
    }
    Ok(out)
}

/// Go takes a lone surrogate for U+FFFD; serde_json does not take it at all.
fn lenient(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    let mut rest = json;
    while let Some(at) = rest.find("\\u") {
        let escaped = rest[..at].bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1;
        let hex = |from: usize| rest.get(from..from + 4).and_then(|hex| u32::from_str_radix(hex, 16).ok());
        let (text, skip) = match (escaped, hex(at + 2)) {
            (false, Some(0xD800..=0xDBFF)) => {
                let paired = rest.get(at + 6..at + 8) == Some("\\u") && matches!(hex(at + 8), Some(0xDC00..=0xDFFF));
                if paired { (&rest[at..at + 12], 12) } else { ("\\ufffd", 6) }
            }
            (false, Some(0xDC00..=0xDFFF)) => ("\\ufffd", 6),
            _ => (&rest[at..at + 2], 2),
        };
        out.push_str(&rest[..at]);
        out.push_str(text);
        rest = &rest[at + skip..];
    }
    out.push_str(rest);
    out
}

/// Go's word for the kind of a value.
fn word(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn check(path: &str, kind: Kind, value: &Value, own_argument_parser: bool) -> Result<(), String> {
    let wrong = |path: &str, go: &str, value: &Value| {
        Err(format!("json: cannot unmarshal {} into Go struct field {path} of type {go}", word(value)))
    };
    match (kind, value) {
        (Kind::Any, _)
        | (Kind::Text, Value::String(_))
        | (Kind::Bool, Value::Bool(_))
        | (Kind::Map, Value::Object(_)) => Ok(()),
        (Kind::Int, Value::Number(n)) if n.is_i64() || n.is_u64() => Ok(()),
        (Kind::Int, Value::Number(n)) => {
            Err(format!("json: cannot unmarshal number {n} into Go struct field {path} of type int"))
        }
        (Kind::Texts | Kind::Ints, Value::Array(items)) => {
            let item = if matches!(kind, Kind::Texts) { Kind::Text } else { Kind::Int };
            items
                .iter()
                .filter(|item| !item.is_null())
                .try_for_each(|value| check(path, item, value, own_argument_parser))
        }
        (Kind::TextMap, Value::Object(items)) => items
            .values()
            .filter(|item| !item.is_null())
            .try_for_each(|value| check(path, Kind::Text, value, own_argument_parser)),
        (Kind::Messages, Value::Array(messages)) => {
            for message in messages {
                let Value::Object(message) = message else {
                    return wrong(path, "api.Message", message);
                };
                for (name, value) in message.iter().filter(|(_, value)| !value.is_null()) {
                    match &*name.to_ascii_lowercase() {
                        field @ ("role" | "content" | "thinking" | "tool_name" | "tool_call_id") => {
                            check(&format!("{path}.{field}"), Kind::Text, value, own_argument_parser)?;
                        }
                        "tool_calls" => check_calls(path, value, own_argument_parser)?,
                        _ => {}
                    }
                }
            }
            Ok(())
        }
        (Kind::Tools, Value::Array(tools)) => tools.iter().try_for_each(|tool| check_tool(path, tool)),
        _ => wrong(path, kind.go(), value),
    }
}

/// Go's types know schemas of a plain kind only: no list of types at the top, no list of properties, no boolean as a property.
fn check_tool(path: &str, tool: &Value) -> Result<(), String> {
    let wrong = |path: &str, go: &str, value: &Value| {
        Err(format!("json: cannot unmarshal {} into Go struct field {path} of type {go}", word(value)))
    };
    if !tool.is_object() && !tool.is_null() {
        return wrong(path, "api.Tool", tool);
    }
    let parameters = &tool["function"]["parameters"];
    let path = format!("{path}.function.parameters");
    match &parameters["type"] {
        Value::Null | Value::String(_) => {}
        kind => return wrong(&format!("{path}.type"), "string", kind),
    }
    match &parameters["properties"] {
        Value::Null => Ok(()),
        Value::Object(properties) => {
            match properties.values().find(|property| !property.is_object() && !property.is_null()) {
                Some(property) => wrong(&format!("{path}.properties"), "api.ToolProperty", property),
                None => Ok(()),
            }
        }
        properties => wrong(&format!("{path}.properties"), "map[string]api.ToolProperty", properties),
    }
}

fn check_calls(path: &str, calls: &Value, own_argument_parser: bool) -> Result<(), String> {
    for call in calls.as_array().into_iter().flatten() {
        let arguments = &call["function"]["arguments"];
        if arguments.is_string() {
            return Err(if own_argument_parser {
                "Value looks like object, but can't find closing '}' symbol".to_owned()
            } else {
                format!(
                    "json: cannot unmarshal string into Go struct field {path}.tool_calls.function.arguments of type api.ToolCallFunctionArguments"
                )
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ANY: Request = Request {
        name: "ChatRequest",
        fields: &[("model", Kind::Text), ("messages", Kind::Messages), ("tools", Kind::Tools)],
    };

    #[test]
    fn names_match_in_any_case_and_the_last_wins() {
        let read = decode(br#"{"Model":"a","MODEL":"b","x":1,"tools":null} rest"#, &ANY, true).unwrap();
        assert_eq!(Value::from(read), serde_json::json!({"model": "b"}));
    }

    #[test]
    fn a_lone_surrogate_is_a_replacement_character() {
        let read = decode(br#"{"model":"a\ud83d b \ud83d\ude00 \\ud83d"}"#, &ANY, true).unwrap();
        assert_eq!(read["model"], "a\u{fffd} b 😀 \\ud83d");
    }

    #[test]
    fn schemas_that_gos_types_do_not_know_are_refused() {
        let told = |parameters: &str| {
            let body = format!("{{\"tools\":[{{\"function\":{{\"parameters\":{parameters}}}}}]}}");
            decode(body.as_bytes(), &ANY, true).map(|_| ())
        };
        assert_eq!(told("{\"type\":\"object\",\"properties\":{\"a\":{\"type\":[\"string\",\"null\"]}}}"), Ok(()));
        for wrong in ["{\"type\":[\"object\"]}", "{\"properties\":[]}", "{\"properties\":{\"a\":true}}"] {
            assert!(told(wrong).unwrap_err().contains("ChatRequest.tools.function.parameters"), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(body in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = decode(&body, &ANY, true);
        }

        #[test]
        fn it_takes_what_serde_json_writes(text in "\\PC{0,20}") {
            let json = serde_json::json!({"model": text, "x": [1, 2.5, null, true]}).to_string();
            prop_assert_eq!(scan(&json).unwrap(), &json);
            let read = decode(json.as_bytes(), &ANY, true).unwrap();
            prop_assert_eq!(read["model"].as_str().unwrap(), text);
        }
    }
}
