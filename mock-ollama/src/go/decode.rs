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

/// Reads a body as Go's `BindJSON` does: names in any case, the last wins, null is absent, unknown names are dropped,
/// what follows the first value is not looked at.
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
        (Kind::Tools, Value::Array(tools)) => {
            let reader = Tools { path, has_ordered_maps: own_argument_parser };
            tools.iter().filter(|tool| !tool.is_null()).try_for_each(|tool| reader.tool(tool))
        }
        _ => wrong(path, kind.go(), value),
    }
}

/// What Go's types know of a tool, with the texts of their refusals: schemas of a plain kind only.
struct Tools<'a> {
    path: &'a str,
    /// Properties are read into an ordered map of Ollama's own, which knows objects alone (0.14).
    has_ordered_maps: bool,
}

/// A type that a value of a tool is read into.
#[derive(Clone, Copy)]
enum Type {
    Text,
    Texts,
    /// `[]interface {}`.
    Anything,
    /// A text, or a list of them.
    Types,
    Properties,
    AnyOf,
}

impl Tools<'_> {
    fn wrong(place: &str, go: &str, value: &Value) -> Result<(), String> {
        Err(format!("json: cannot unmarshal {} into Go struct field {place} of type {go}", word(value)))
    }

    fn tool(&self, tool: &Value) -> Result<(), String> {
        let path = self.path;
        let Value::Object(fields) = tool else { return Self::wrong(path, "api.Tool", tool) };
        // The name of the innermost type, and the path from the outermost, which begins after its name.
        let (_, inside) = path.split_once('.').unwrap_or(("", path));
        for (name, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
            match &*name.to_ascii_lowercase() {
                "type" => Self::read(&format!("Tool.{inside}.type"), "Tool", Type::Text, value, self)?,
                "function" => self.function(&format!("{inside}.function"), value)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn function(&self, path: &str, function: &Value) -> Result<(), String> {
        let Value::Object(fields) = function else {
            return Self::wrong(&format!("Tool.{path}"), "api.ToolFunction", function);
        };
        for (name, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
            match &*name.to_ascii_lowercase() {
                field @ ("name" | "description") => {
                    Self::read(&format!("ToolFunction.{path}.{field}"), "ToolFunction", Type::Text, value, self)?;
                }
                "parameters" => self.parameters(&format!("{path}.parameters"), value)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn parameters(&self, path: &str, parameters: &Value) -> Result<(), String> {
        let Value::Object(fields) = parameters else {
            return Self::wrong(&format!("ToolFunction.{path}"), "api.ToolFunctionParameters", parameters);
        };
        for (name, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
            let (field, kind) = match &*name.to_ascii_lowercase() {
                "type" => ("type", Type::Text),
                "required" => ("required", Type::Texts),
                "properties" => ("properties", Type::Properties),
                _ => continue,
            };
            Self::read(&format!("ToolFunctionParameters.{path}.{field}"), "ToolFunctionParameters", kind, value, self)?;
        }
        Ok(())
    }

    /// A property and those inside it. `place` is the property's own; `owner` is the type that holds its outermost map,
    /// which Go names.
    fn property(&self, place: &str, owner: &str, property: &Value) -> Result<(), String> {
        let Value::Object(fields) = property else { return Self::wrong(place, "api.ToolProperty", property) };
        let (_, path) = place.split_once('.').unwrap_or(("", place));
        let owner = if self.has_ordered_maps { owner } else { "ToolProperty" };
        for (name, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
            let (field, kind) = match &*name.to_ascii_lowercase() {
                "type" => ("type", Type::Types),
                "description" => ("description", Type::Text),
                "enum" => ("enum", Type::Anything),
                "anyof" => ("anyOf", Type::AnyOf),
                "properties" => ("properties", Type::Properties),
                "required" if self.has_ordered_maps => ("required", Type::Texts),
                _ => continue,
            };
            Self::read(&format!("{owner}.{path}.{field}"), owner, kind, value, self)?;
        }
        Ok(())
    }

    fn read(place: &str, owner: &str, kind: Type, value: &Value, tools: &Self) -> Result<(), String> {
        let texts = |items: &[Value]| {
            let wrong = items.iter().find(|item| !item.is_string() && !item.is_null());
            wrong.map_or(Ok(()), |item| Self::wrong(place, "string", item))
        };
        match (kind, value) {
            (Type::Text | Type::Types, Value::String(_)) | (Type::Anything, Value::Array(_)) => Ok(()),
            (Type::Texts | Type::Types, Value::Array(items)) => texts(items),
            (Type::AnyOf, Value::Array(items)) => {
                items.iter().filter(|item| !item.is_null()).try_for_each(|item| tools.property(place, owner, item))
            }
            (Type::Properties, Value::Object(properties)) => {
                let properties = properties.values().filter(|property| !property.is_null());
                properties.into_iter().try_for_each(|property| tools.property(place, owner, property))
            }
            (Type::Text, _) => Self::wrong(place, "string", value),
            (Type::Texts | Type::Types, _) => Self::wrong(place, "[]string", value),
            (Type::Anything, _) => Self::wrong(place, "[]interface {}", value),
            (Type::AnyOf, _) => Self::wrong(place, "[]api.ToolProperty", value),
            (Type::Properties, _) if tools.has_ordered_maps => Err(NO_OBJECT.to_owned()),
            (Type::Properties, _) => Self::wrong(place, "map[string]api.ToolProperty", value),
        }
    }
}

/// What the parser of ordered maps says of anything but an object.
const NO_OBJECT: &str = "Value looks like object, but can't find closing '}' symbol";

fn check_calls(path: &str, calls: &Value, own_argument_parser: bool) -> Result<(), String> {
    for call in calls.as_array().into_iter().flatten() {
        let arguments = &call["function"]["arguments"];
        if arguments.is_string() {
            return Err(if own_argument_parser {
                NO_OBJECT.to_owned()
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

    fn tool(tool: &str, own_maps: bool) -> Result<(), String> {
        decode(format!("{{\"tools\":[{tool}]}}").as_bytes(), &ANY, own_maps).map(|_| ())
    }

    #[test]
    fn tools_that_gos_types_know_are_taken() {
        for fine in [
            r#"{}"#,
            r#"null"#,
            r#"{"type":"web_search"}"#,
            r#"{"function":{"parameters":null}}"#,
            r#"{"function":{"parameters":{"type":"object","properties":null,"required":null,"items":7,"$defs":[]}}}"#,
            r#"{"function":{"parameters":{"properties":{"a":{"type":["string","null"],"items":true,"const":1,"minimum":"x","anyOf":[{"type":"null"}]}},"additionalProperties":true}}}"#,
        ] {
            assert_eq!(tool(fine, true), Ok(()), "{fine}");
        }
    }

    /// Texts as real servers gave them where they are known; the others follow from the same rules of Go's decoder.
    #[test]
    fn tools_that_gos_types_do_not_know_are_refused() {
        let of = |parameters: &str| format!(r#"{{"function":{{"parameters":{parameters}}}}}"#);
        let place = "ToolFunctionParameters.tools.function.parameters";
        let go = "json: cannot unmarshal";
        for (wrong, text) in [
            ("7".to_owned(), format!("{go} number into Go struct field ChatRequest.tools of type api.Tool")),
            (r#"{"type":7}"#.to_owned(), format!("{go} number into Go struct field Tool.tools.type of type string")),
            (
                r#"{"function":"f"}"#.to_owned(),
                format!("{go} string into Go struct field Tool.tools.function of type api.ToolFunction"),
            ),
            (
                r#"{"function":{"name":7}}"#.to_owned(),
                format!("{go} number into Go struct field ToolFunction.tools.function.name of type string"),
            ),
            (
                of("[]"),
                format!(
                    "{go} array into Go struct field ToolFunction.tools.function.parameters of type api.ToolFunctionParameters"
                ),
            ),
            (of(r#"{"type":["object"]}"#), format!("{go} array into Go struct field {place}.type of type string")),
            (of(r#"{"required":{}}"#), format!("{go} object into Go struct field {place}.required of type []string")),
            (of(r#"{"required":[1]}"#), format!("{go} number into Go struct field {place}.required of type string")),
            (of(r#"{"properties":[]}"#), NO_OBJECT.to_owned()),
            (
                of(r#"{"properties":{"a":true}}"#),
                format!("{go} bool into Go struct field {place}.properties of type api.ToolProperty"),
            ),
            (
                of(r#"{"properties":{"a":{"type":7}}}"#),
                format!("{go} number into Go struct field {place}.properties.type of type []string"),
            ),
            (
                of(r#"{"properties":{"a":{"description":7}}}"#),
                format!("{go} number into Go struct field {place}.properties.description of type string"),
            ),
            (
                of(r#"{"properties":{"a":{"enum":"x"}}}"#),
                format!("{go} string into Go struct field {place}.properties.enum of type []interface {{}}"),
            ),
            (
                of(r#"{"properties":{"a":{"anyOf":[true]}}}"#),
                format!("{go} bool into Go struct field {place}.properties.anyOf of type api.ToolProperty"),
            ),
            (
                of(r#"{"properties":{"a":{"properties":{"b":false}}}}"#),
                format!("{go} bool into Go struct field {place}.properties.properties of type api.ToolProperty"),
            ),
            (
                of(r#"{"properties":{"a":{"required":{}}}}"#),
                format!("{go} object into Go struct field {place}.properties.required of type []string"),
            ),
        ] {
            assert_eq!(tool(&wrong, true), Err(text), "{wrong}");
        }
        let old = |parameters: &str| tool(&of(parameters), false).unwrap_err();
        assert_eq!(
            old(r#"{"properties":[]}"#),
            format!("{go} array into Go struct field {place}.properties of type map[string]api.ToolProperty")
        );
        assert_eq!(
            old(r#"{"properties":{"a":{"description":7}}}"#),
            format!(
                "{go} number into Go struct field ToolProperty.tools.function.parameters.properties.description of type string"
            )
        );
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
