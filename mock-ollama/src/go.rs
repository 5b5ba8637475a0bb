//! JSON as Go reads and writes it: keys in any case, the first value only, its error texts, its escapes; and its durations. Pure.
//!
//! Texts: `ollama-wire` B2 and A4; those that were recorded are checked by the truth test.

use std::time::Duration;

use serde_json::{Map, Value};

/// Writes `value` as Go's encoder does: `<`, `>`, `&` and the two Unicode line ends are escaped.
pub(crate) fn encode(value: &Value) -> String {
    escape(&value.to_string())
}

/// Go's escapes, for a text that is JSON already.
pub(crate) fn escape(json: &str) -> String {
    if !json.contains(['<', '>', '&', '\u{2028}', '\u{2029}']) {
        return json.to_owned();
    }
    let mut out = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}

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
        other => return Err(format!("json: cannot unmarshal {} into Go value of type api.{}", word(&other), request.name)),
    };
    let mut out = Map::new();
    for (name, value) in object {
        let Some((known, kind)) = request.fields.iter().find(|(known, _)| known.eq_ignore_ascii_case(&name)) else { continue };
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
            items.iter().filter(|item| !item.is_null()).try_for_each(|value| check(path, item, value, own_argument_parser))
        }
        (Kind::TextMap, Value::Object(items)) => {
            items.values().filter(|item| !item.is_null()).try_for_each(|value| check(path, Kind::Text, value, own_argument_parser))
        }
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
        (Kind::Tools, Value::Array(tools)) => match tools.iter().find(|tool| !tool.is_object()) {
            Some(tool) => wrong(path, "api.Tool", tool),
            None => Ok(()),
        },
        _ => wrong(path, kind.go(), value),
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

/// The first JSON value of `text`.
///
/// # Errors
/// Go's text for what stands where it should not.
pub(crate) fn scan(text: &str) -> Result<&str, String> {
    let mut scanner = Scanner { text, at: 0 };
    scanner.space();
    let start = scanner.at;
    scanner.value(0)?;
    Ok(&text[start..scanner.at])
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl Scanner<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    fn wrong<T>(&self, looking: &str) -> Result<T, String> {
        match self.text[self.at..].chars().next() {
            None => Err("unexpected EOF".to_owned()),
            Some('\'') => Err(format!("invalid character '\\'' {looking}")),
            Some('\n') => Err(format!("invalid character '\\n' {looking}")),
            Some(c) => Err(format!("invalid character '{c}' {looking}")),
        }
    }

    fn value(&mut self, depth: usize) -> Result<(), String> {
        // Go stops at 10,000; a mock may stop where its own parser does.
        if depth > 120 {
            return Err("json: cannot unmarshal: exceeded max depth".to_owned());
        }
        match self.peek() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => self.string(),
            Some(b't') => self.literal("true"),
            Some(b'f') => self.literal("false"),
            Some(b'n') => self.literal("null"),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => self.wrong("looking for beginning of value"),
        }
    }

    fn object(&mut self, depth: usize) -> Result<(), String> {
        self.at += 1;
        self.space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.space();
            if self.peek() != Some(b'"') {
                return self.wrong("looking for beginning of object key string");
            }
            self.string()?;
            self.space();
            if self.peek() != Some(b':') {
                return self.wrong("after object key");
            }
            self.at += 1;
            self.space();
            self.value(depth + 1)?;
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return self.wrong("after object key:value pair"),
            }
        }
    }

    fn array(&mut self, depth: usize) -> Result<(), String> {
        self.at += 1;
        self.space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.space();
            self.value(depth + 1)?;
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return self.wrong("after array element"),
            }
        }
    }

    fn string(&mut self) -> Result<(), String> {
        self.at += 1;
        loop {
            match self.peek() {
                None => return Err("unexpected EOF".to_owned()),
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => {
                    self.at += 1;
                    match self.peek() {
                        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
                        Some(b'u') => {
                            self.at += 1;
                            for _ in 0..4 {
                                if !self.peek().is_some_and(|byte| byte.is_ascii_hexdigit()) {
                                    return self.wrong("in \\u hexadecimal character escape");
                                }
                                self.at += 1;
                            }
                        }
                        _ => return self.wrong("in string escape code"),
                    }
                }
                Some(byte) if byte < 0x20 => return self.wrong("in string literal"),
                Some(_) => self.at += self.text[self.at..].chars().next().map_or(1, char::len_utf8),
            }
        }
    }

    fn literal(&mut self, word: &str) -> Result<(), String> {
        for (n, expected) in word.bytes().enumerate() {
            if self.peek() != Some(expected) {
                let expected = char::from(word.as_bytes()[n]);
                return self.wrong(&format!("in literal {word} (expecting '{expected}')"));
            }
            self.at += 1;
        }
        Ok(())
    }

    fn number(&mut self) -> Result<(), String> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits(),
            _ => return self.wrong("in numeric literal"),
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            if !self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
                return self.wrong("after decimal point in numeric literal");
            }
            self.digits();
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            if !self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
                return self.wrong("in exponent of numeric literal");
            }
            self.digits();
        }
        Ok(())
    }

    fn digits(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
    }
}

/// How long a model stays loaded; `None` is for ever.
pub(crate) type KeepAlive = Option<Duration>;

/// Reads `keep_alive`: a number of seconds, or a Go duration; negative is for ever.
///
/// # Errors
/// Go's or Ollama's text.
pub(crate) fn keep_alive(value: &Value) -> Result<KeepAlive, String> {
    match value {
        Value::Number(n) => {
            let seconds = n.as_f64().unwrap_or(0.0);
            Ok(if seconds < 0.0 { None } else { Some(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)) })
        }
        Value::String(text) => duration(text),
        other => Err(format!(
            "Unsupported type: '{}'",
            match other {
                Value::Bool(_) => "bool",
                Value::Array(_) => "[]interface {}",
                _ => "map[string]interface {}",
            }
        )),
    }
}

/// A Go duration such as `1h30m` or `300ms`; negative ones are for ever.
fn duration(text: &str) -> Result<KeepAlive, String> {
    let invalid = || format!("time: invalid duration {text:?}");
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(Some(Duration::ZERO));
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number: f64 = rest[..digits].parse().map_err(|_| invalid())?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let scale = match &rest[..unit] {
            "" => return Err(format!("time: missing unit in duration {text:?}")),
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            other => return Err(format!("time: unknown unit {other:?} in duration {text:?}")),
        };
        total += number * scale;
        rest = &rest[unit..];
    }
    Ok(if negative { None } else { Some(Duration::try_from_secs_f64(total).unwrap_or(Duration::MAX)) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn broken_json_is_told_in_gos_words() {
        let told = |text: &str| scan(text).unwrap_err();
        assert_eq!(told("{\"model\":\"m\""), "unexpected EOF");
        assert_eq!(told("{bad"), "invalid character 'b' looking for beginning of object key string");
        assert_eq!(told("hello"), "invalid character 'h' looking for beginning of value");
        assert_eq!(told("{\"a\":1,}"), "invalid character '}' looking for beginning of object key string");
        assert_eq!(told("[1 2]"), "invalid character '2' after array element");
        assert_eq!(told("nul!"), "invalid character '!' in literal null (expecting 'l')");
        assert_eq!(scan(" {\"a\":[1,-2.5e3,\"\\u00e9\"]} trailing").unwrap(), "{\"a\":[1,-2.5e3,\"\\u00e9\"]}");
    }

    #[test]
    fn durations_are_gos() {
        assert_eq!(keep_alive(&"1h30m".into()).unwrap(), Some(Duration::from_secs(5400)));
        assert_eq!(keep_alive(&42.5.into()).unwrap(), Some(Duration::from_millis(42500)));
        assert_eq!(keep_alive(&"-1m".into()).unwrap(), None);
        assert_eq!(keep_alive(&"300".into()).unwrap_err(), "time: missing unit in duration \"300\"");
        assert_eq!(keep_alive(&"1d".into()).unwrap_err(), "time: unknown unit \"d\" in duration \"1d\"");
        assert_eq!(keep_alive(&"soon".into()).unwrap_err(), "time: invalid duration \"soon\"");
        assert_eq!(keep_alive(&true.into()).unwrap_err(), "Unsupported type: 'bool'");
    }

    #[test]
    fn html_is_escaped_as_go_does() {
        assert_eq!(encode(&serde_json::json!({"a": "<&>\u{2028}"})), "{\"a\":\"\\u003c\\u0026\\u003e\\u2028\"}");
    }

    const ANY: Request = Request { name: "ChatRequest", fields: &[("model", Kind::Text), ("messages", Kind::Messages), ("tools", Kind::Tools)] };

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

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(body in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = decode(&body, &ANY, true);
        }

        #[test]
        fn it_takes_what_serde_json_writes(text in "\\PC{0,20}") {
            let json = serde_json::json!({"model": text, "x": [1, 2.5, null, true]}).to_string();
            prop_assert_eq!(scan(&json).unwrap(), &json);
            prop_assert_eq!(decode(json.as_bytes(), &ANY, true).unwrap()["model"].as_str().unwrap(), text);
        }
    }
}
