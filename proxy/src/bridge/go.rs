//! Request bodies as Ollama's Go server reads them: names in any case, unknown names passed over, `null` for "not
//! given", one document and whatever after it; and its texts for what it cannot read (recorded: 0.33.0-rc2
//! `chat/bad-json`, `chat/wrong-type`, `http/two-documents`). Pure.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, de};
use serde_json::value::RawValue;

use crate::{error::Error, openai::request::json::Text};

/// A body that cannot be read.
pub(super) fn bad_request(message: impl Into<String>) -> Error {
    Error::Invalid { message: message.into(), param: None, code: None }
}

/// The fields of an object, in order.
#[derive(Debug, Default)]
pub(super) struct Object<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::with_capacity(8);
                while let Some((Text(name), value)) = map.next_entry::<Text<'de>, &'de RawValue>()? {
                    fields.push((name, value));
                }
                Ok(Object(fields))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

impl<'a> Object<'a> {
    /// The last value of `name`, without regard to case.
    pub(super) fn get(&self, name: &str) -> Option<&'a RawValue> {
        let same = |(known, _): &&(Cow<'a, str>, &'a RawValue)| known.eq_ignore_ascii_case(name);
        self.0.iter().rev().find(same).map(|(_, value)| *value).filter(|value| value.get() != "null")
    }

    /// Names and values, in order.
    pub(super) fn into_fields(self) -> impl Iterator<Item = (Cow<'a, str>, &'a RawValue)> {
        self.0.into_iter()
    }

    /// Names and values, in order.
    pub(super) fn fields(&self) -> impl Iterator<Item = (&str, &'a RawValue)> {
        self.0.iter().map(|(name, value)| (&**name, *value))
    }
}

/// What a JSON value is, in Go's words.
pub(super) fn kind(raw: &RawValue) -> &'static str {
    match raw.get().as_bytes().first() {
        Some(b'"') => "string",
        Some(b'[') => "array",
        Some(b'{') => "object",
        Some(b't' | b'f') => "bool",
        _ => "number",
    }
}

/// Reads the fields of one request. A wrong type does not stop it, as in Go, where the first one is the error of the
/// whole.
pub(super) struct Reader {
    /// Go's name of the request's type.
    name: &'static str,
    wrong: Option<Error>,
}

impl Reader {
    pub(super) fn new(name: &'static str) -> Self {
        Self { name, wrong: None }
    }

    /// The top level of `body`.
    ///
    /// # Errors
    /// Fails if the body is empty, or does not begin with a JSON object.
    pub(super) fn body<'a>(&self, body: &'a str) -> Result<Object<'a>, Error> {
        if body.trim_ascii().is_empty() {
            return Err(bad_request("missing request body"));
        }
        // What follows the first document is not read (recorded: http/trailing-garbage).
        if let Some(Ok(object)) = serde_json::Deserializer::from_str(body).into_iter::<Object<'a>>().next() {
            return Ok(object);
        }
        let mut documents = serde_json::Deserializer::from_str(body).into_iter::<&RawValue>();
        let Some(Ok(raw)) = documents.next() else { return Err(bad_request(syntax_error(body))) };
        match raw.get().as_bytes().first() {
            Some(b'{') => Err(bad_request(syntax_error(body))),
            Some(b'n') => Ok(Object::default()),
            _ => Err(bad_request(format!(
                "json: cannot unmarshal {} into Go value of type api.{}",
                kind(raw),
                self.name
            ))),
        }
    }

    /// Notes that the value at `path` is not of the Go type `wanted`.
    pub(super) fn mistyped(&mut self, raw: &RawValue, path: &str, wanted: &str) {
        let message = || {
            format!("json: cannot unmarshal {} into Go struct field {}.{path} of type {wanted}", kind(raw), self.name)
        };
        if self.wrong.is_none() {
            self.wrong = Some(bad_request(message()));
        }
    }

    /// Notes what is wrong, unless something else was before.
    pub(super) fn fail(&mut self, error: Error) {
        self.wrong.get_or_insert(error);
    }

    /// Reads a value of the Go type `wanted`.
    pub(super) fn read<'a, T: Deserialize<'a>>(
        &mut self,
        raw: Option<&'a RawValue>,
        path: &str,
        wanted: &str,
    ) -> Option<T> {
        let raw = raw?;
        let read = serde_json::from_str(raw.get()).ok();
        if read.is_none() {
            self.mistyped(raw, path, wanted);
        }
        read
    }

    /// Reads a text.
    pub(super) fn text<'a>(&mut self, raw: Option<&'a RawValue>, path: &str) -> Option<Cow<'a, str>> {
        let raw = raw?;
        let text = Text::of(raw);
        if text.is_none() {
            self.mistyped(raw, path, "string");
        }
        text.map(|text| text.0)
    }

    /// Reads true or false.
    pub(super) fn flag(&mut self, raw: Option<&RawValue>, path: &str) -> Option<bool> {
        self.read(raw, path, "bool")
    }

    /// Reads a whole number.
    pub(super) fn integer(&mut self, raw: Option<&RawValue>, path: &str) -> Option<i64> {
        self.read(raw, path, "int")
    }

    /// Ends reading.
    ///
    /// # Errors
    /// Fails with the first thing that was wrong.
    pub(super) fn finish(self) -> Result<(), Error> {
        self.wrong.map_or(Ok(()), Err)
    }
}

/// Go's text for JSON that cannot be read: the first byte that does not fit, and where it stands.
pub(super) fn syntax_error(text: &str) -> String {
    let mut scanner = Scanner { rest: text, depth: 0 };
    match scanner.value() {
        Err(Some((c, place))) => format!("invalid character {} {place}", quoted(c)),
        // Cut off, or nothing that Go would mind.
        Err(None) | Ok(()) => "unexpected EOF".to_owned(),
    }
}

/// A character as Go quotes it.
fn quoted(c: char) -> String {
    match c {
        '\'' => r"'\''".to_owned(),
        '"' => "'\"'".to_owned(),
        c if c.is_control() => format!("'{}'", c.escape_default()),
        // It reads bytes, and takes the first one of a longer character for a character (recorded: http/bom).
        c if !c.is_ascii() => format!("'{}'", char::from(c.encode_utf8(&mut [0; 4]).as_bytes()[0])),
        c => format!("'{c}'"),
    }
}

/// Looks for the first mistake in a text that is not JSON.
struct Scanner<'a> {
    rest: &'a str,
    depth: usize,
}

/// How deep lists are looked into: each level takes a part of the stack.
const DEEPEST: usize = 200;

/// The character that does not fit, and its place; None at the end of the text.
type Scan = Result<(), Option<(char, String)>>;

impl Scanner<'_> {
    fn peek(&mut self) -> Result<char, Option<(char, String)>> {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\r', '\n']);
        self.rest.chars().next().ok_or(None)
    }

    fn skip(&mut self, c: char) {
        self.rest = &self.rest[c.len_utf8()..];
    }

    fn value(&mut self) -> Scan {
        match self.peek()? {
            '{' => self.list('{', '}', true),
            '[' => self.list('[', ']', false),
            '"' => self.string(),
            '-' | '0'..='9' => self.number(),
            't' => self.literal("true"),
            'f' => self.literal("false"),
            'n' => self.literal("null"),
            c => Err(Some((c, "looking for beginning of value".to_owned()))),
        }
    }

    /// An object or an array.
    fn list(&mut self, open: char, close: char, object: bool) -> Scan {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(None);
        }
        let list = self.elements(open, close, object);
        self.depth -= 1;
        list
    }

    fn elements(&mut self, open: char, close: char, object: bool) -> Scan {
        self.skip(open);
        let mut first = true;
        loop {
            let c = self.peek()?;
            if c == close && first {
                self.skip(c);
                return Ok(());
            }
            if object {
                if c != '"' {
                    return Err(Some((c, "looking for beginning of object key string".to_owned())));
                }
                self.string()?;
                match self.peek()? {
                    ':' => self.skip(':'),
                    c => return Err(Some((c, "after object key".to_owned()))),
                }
            }
            self.value()?;
            first = false;
            match self.peek()? {
                ',' => self.skip(','),
                c if c == close => {
                    self.skip(c);
                    return Ok(());
                }
                c => {
                    let place = if object { "after object key:value pair" } else { "after array element" };
                    return Err(Some((c, place.to_owned())));
                }
            }
        }
    }

    fn string(&mut self) -> Scan {
        self.skip('"');
        let mut chars = self.rest.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.rest = &self.rest[at + 1..];
                    return Ok(());
                }
                '\\' => match chars.next().ok_or(None)?.1 {
                    'u' => {
                        for _ in 0..4 {
                            let c = chars.next().ok_or(None)?.1;
                            if !c.is_ascii_hexdigit() {
                                return Err(Some((c, r"in \u hexadecimal character escape".to_owned())));
                            }
                        }
                    }
                    '"' | '\\' | '/' | 'b' | 'f' | 'n' | 'r' | 't' => {}
                    c => return Err(Some((c, "in string escape code".to_owned()))),
                },
                c if c < ' ' => return Err(Some((c, "in string literal".to_owned()))),
                _ => {}
            }
        }
        Err(None)
    }

    fn digits(&mut self, place: &str) -> Scan {
        match self.rest.chars().next().ok_or(None)? {
            '0'..='9' => {
                self.rest = self.rest.trim_start_matches(|c: char| c.is_ascii_digit());
                Ok(())
            }
            c => Err(Some((c, place.to_owned()))),
        }
    }

    fn number(&mut self) -> Scan {
        self.rest = self.rest.strip_prefix('-').unwrap_or(self.rest);
        match self.rest.strip_prefix('0') {
            Some(rest) => self.rest = rest,
            None => self.digits("in numeric literal")?,
        }
        if let Some(rest) = self.rest.strip_prefix('.') {
            self.rest = rest;
            self.digits("after decimal point in numeric literal")?;
        }
        if let Some(rest) = self.rest.strip_prefix(['e', 'E']) {
            self.rest = rest.strip_prefix(['+', '-']).unwrap_or(rest);
            self.digits("in exponent of numeric literal")?;
        }
        Ok(())
    }

    fn literal(&mut self, word: &str) -> Scan {
        for expected in word.chars() {
            match self.rest.chars().next().ok_or(None)? {
                c if c == expected => self.skip(c),
                c => return Err(Some((c, format!("in literal {word} (expecting {})", quoted(expected))))),
            }
        }
        Ok(())
    }
}

/// Checks a `keep_alive`, which only matters to Ollama itself.
///
/// # Errors
/// Fails if Ollama would refuse it.
pub(super) fn check_duration(raw: &RawValue) -> Result<(), Error> {
    let unsupported = |kind: &str| Err(bad_request(format!("Unsupported type: '{kind}'")));
    match kind(raw) {
        "number" => Ok(()),
        "string" => {
            let text: Text<'_> = serde_json::from_str(raw.get()).unwrap_or_default();
            duration(&text).map_err(|message| bad_request(format!("time: {message} {:?}", &*text)))
        }
        "bool" => unsupported("bool"),
        "array" => unsupported("[]interface {}"),
        _ => unsupported("map[string]interface {}"),
    }
}

/// Why `text` is not a duration such as `1h30m`.
fn duration(text: &str) -> Result<(), String> {
    const INVALID: &str = "invalid duration";
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest == "0" {
        return Ok(());
    }
    if rest.is_empty() {
        return Err(INVALID.to_owned());
    }
    while !rest.is_empty() {
        let number = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        let digits = &rest[..rest.len() - number.len()];
        if digits.matches('.').count() > 1 || !digits.bytes().any(|byte| byte.is_ascii_digit()) {
            return Err(INVALID.to_owned());
        }
        let after = number.trim_start_matches(|c: char| !c.is_ascii_digit() && c != '.');
        match &number[..number.len() - after.len()] {
            "" => return Err("missing unit in duration".to_owned()),
            "ns" | "us" | "µs" | "μs" | "ms" | "s" | "m" | "h" => {}
            unit => return Err(format!("unknown unit {unit:?} in duration")),
        }
        rest = after;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_json_is_refused_in_gos_words() {
        for (body, text) in [
            ("", "missing request body"),
            (" \n", "missing request body"),
            (r#"{"model": "smollm2:135m", "#, "unexpected EOF"),
            ("{", "unexpected EOF"),
            ("\u{feff}{}", "invalid character 'ï' looking for beginning of value"),
            (r#"{"a" é}"#, "invalid character 'Ã' after object key"),
            ("{,}", "invalid character ',' looking for beginning of object key string"),
            ("{bad", "invalid character 'b' looking for beginning of object key string"),
            ("hello", "invalid character 'h' looking for beginning of value"),
            (r#"{"a":1,}"#, "invalid character '}' looking for beginning of object key string"),
            (r#"{"a" 1}"#, "invalid character '1' after object key"),
            (r#"{"a":1 "b"}"#, "invalid character '\"' after object key:value pair"),
            (r#"{"a":[1 2]}"#, "invalid character '2' after array element"),
            (r#"{"a":tru}"#, "invalid character '}' in literal true (expecting 'e')"),
            (r#"{"a":-x}"#, "invalid character 'x' in numeric literal"),
            (r#"{"a":1.x}"#, "invalid character 'x' after decimal point in numeric literal"),
            (r#"{"a":"\q"}"#, "invalid character 'q' in string escape code"),
            ("{\"a\":\"\n\"}", "invalid character '\\n' in string literal"),
            ("[]", "json: cannot unmarshal array into Go value of type api.ChatRequest"),
        ] {
            let error = Reader::new("ChatRequest").body(body).unwrap_err();
            assert_eq!((error.to_string(), error.row().status.as_u16()), (text.to_owned(), 400), "{body}");
        }
    }

    #[test]
    fn names_count_in_any_case_null_is_absent_and_what_follows_is_not_read() {
        let object = Reader::new("ChatRequest").body(r#"{"MODEL":"a","model":"b","x":null} {"#).unwrap();
        assert_eq!(object.get("Model").unwrap().get(), "\"b\"");
        assert!(object.get("x").is_none());
        assert!(Reader::new("ChatRequest").body("null").unwrap().get("model").is_none());
    }

    #[test]
    fn a_wrong_type_names_the_field_and_what_was_wanted() {
        let object = Reader::new("ChatRequest").body(r#"{"stream":"yes","model":1}"#).unwrap();
        let mut reader = Reader::new("ChatRequest");
        assert_eq!(reader.flag(object.get("stream"), "stream"), None);
        assert_eq!(reader.text(object.get("model"), "model"), None);
        let error = reader.finish().unwrap_err().to_string();
        assert_eq!(error, "json: cannot unmarshal string into Go struct field ChatRequest.stream of type bool");
    }

    #[test]
    fn a_keep_alive_is_checked_as_go_does() {
        let check = |json: &str| {
            check_duration(&RawValue::from_string(json.to_owned()).unwrap()).map_err(|error| error.to_string())
        };
        for good in ["0", "-1", "42.5", r#""5m""#, r#""1h30m""#, r#""-1m""#, r#""0""#, r#""1.5s""#] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for (bad, text) in [
            (r#""soon""#, "time: invalid duration \"soon\""),
            (r#""""#, "time: invalid duration \"\""),
            (r#""300""#, "time: missing unit in duration \"300\""),
            (r#""1d""#, "time: unknown unit \"d\" in duration \"1d\""),
            ("true", "Unsupported type: 'bool'"),
        ] {
            assert_eq!(check(bad), Err(text.to_owned()));
        }
    }

    proptest::proptest! {
        #[test]
        fn every_text_is_read_or_refused(text in "[\\[\\]{}:,\"\\\\truefalsn0-9.eE+ \\-é\n]{0,20}|\\PC{0,20}") {
            if let Err(error) = Reader::new("ChatRequest").body(&text) {
                proptest::prop_assert!(!error.to_string().is_empty());
            }
        }
    }
}
