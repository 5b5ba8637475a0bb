//! Values as Python writes them, `{'days': 3, 'metric': True}`, and calls with such values. Pure.

use serde_json::{Map, Number, Value};

/// Deepest nesting.
const DEPTH: usize = 64;

/// Reads one value, which is all of `text`.
pub(in crate::openai::tools) fn read(text: &str) -> Option<Value> {
    let mut reader = Reader { rest: text.trim() };
    let value = reader.value(0)?;
    reader.rest.is_empty().then_some(value)
}

/// What stands between the parentheses of a call.
#[derive(Debug, Default, PartialEq)]
pub(in crate::openai::tools) struct Given {
    pub(in crate::openai::tools) named: Map<String, Value>,
    /// Values without a name.
    pub(in crate::openai::tools) placed: Vec<Value>,
}

/// Reads `city="Oslo", days=3`.
pub(in crate::openai::tools) fn given(text: &str) -> Option<Given> {
    let mut reader = Reader { rest: text.trim() };
    let mut given = Given::default();
    while !reader.rest.is_empty() {
        let name_end = reader.rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(reader.rest.len());
        let after = reader.rest[name_end..].trim_start();
        if name_end > 0 && after.starts_with('=') && !after.starts_with("==") {
            let name = reader.rest[..name_end].to_owned();
            reader.rest = after[1..].trim_start();
            let value = reader.value(0)?;
            if given.named.insert(name, value).is_some() {
                return None;
            }
        } else if given.named.is_empty() {
            given.placed.push(reader.value(0)?);
        } else {
            return None;
        }
        if !reader.take(',') && !reader.rest.is_empty() {
            return None;
        }
    }
    Some(given)
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    /// Takes a character and the blanks after it.
    fn take(&mut self, c: char) -> bool {
        match self.rest.strip_prefix(c) {
            Some(rest) => {
                self.rest = rest.trim_start();
                true
            }
            None => false,
        }
    }

    fn value(&mut self, depth: usize) -> Option<Value> {
        if depth > DEPTH {
            return None;
        }
        let value = match self.rest.chars().next()? {
            '\'' | '"' => Value::String(self.string()?),
            '[' => self.items('[', ']', depth)?,
            '(' => self.items('(', ')', depth)?,
            '{' => self.entries(depth)?,
            _ => self.word()?,
        };
        self.rest = self.rest.trim_start();
        Some(value)
    }

    fn items(&mut self, open: char, close: char, depth: usize) -> Option<Value> {
        self.take(open);
        let mut items = Vec::new();
        while !self.take(close) {
            items.push(self.value(depth + 1)?);
            if !self.take(',') && !self.rest.starts_with(close) {
                return None;
            }
        }
        Some(items.into())
    }

    fn entries(&mut self, depth: usize) -> Option<Value> {
        self.take('{');
        let mut entries = Map::new();
        while !self.take('}') {
            let name = self.string()?;
            self.rest = self.rest.trim_start();
            if !self.take(':') {
                return None;
            }
            let value = self.value(depth + 1)?;
            if entries.insert(name, value).is_some() || !self.take(',') && !self.rest.starts_with('}') {
                return None;
            }
        }
        Some(entries.into())
    }

    fn word(&mut self) -> Option<Value> {
        let ends = |c: char| c.is_whitespace() || matches!(c, ',' | ')' | ']' | '}' | ':');
        let (word, rest) = self.rest.split_at(self.rest.find(ends).unwrap_or(self.rest.len()));
        let value = match word {
            "True" | "true" => true.into(),
            "False" | "false" => false.into(),
            "None" | "null" => Value::Null,
            number if number.starts_with(|c: char| c.is_ascii_digit() || c == '-') => {
                serde_json::from_str::<Number>(number).ok()?.into()
            }
            _ => return None,
        };
        self.rest = rest;
        Some(value)
    }

    fn string(&mut self) -> Option<String> {
        let quote = ["'''", "\"\"\"", "'", "\""].into_iter().find(|quote| self.rest.starts_with(quote))?;
        let mut rest = &self.rest[quote.len()..];
        let mut text = String::new();
        loop {
            if let Some(after) = rest.strip_prefix(quote) {
                self.rest = after;
                return Some(text);
            }
            let mut chars = rest.chars();
            match chars.next()? {
                '\\' => {
                    let escape = chars.next()?;
                    let code = |digits: usize, chars: &mut std::str::Chars<'_>| {
                        let digits = chars.as_str().get(..digits)?.to_owned();
                        *chars = chars.as_str()[digits.len()..].chars();
                        char::from_u32(u32::from_str_radix(&digits, 16).ok()?)
                    };
                    match escape {
                        'n' => text.push('\n'),
                        't' => text.push('\t'),
                        'r' => text.push('\r'),
                        '0' => text.push('\0'),
                        '\n' => {}
                        'x' => text.push(code(2, &mut chars)?),
                        'u' => text.push(code(4, &mut chars)?),
                        '\\' | '\'' | '"' | '/' => text.push(escape),
                        other => text.extend(['\\', other]),
                    }
                }
                '\n' if quote.len() == 1 => return None,
                c => text.push(c),
            }
            rest = chars.as_str();
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_python_writes_is_read() {
        for (text, value) in [
            ("{'a': [1, 2.5, -3], 'b': True, 'c': None}", json!({"a": [1, 2.5, -3], "b": true, "c": null})),
            ("['it\\'s', \"x\", '''a\nb''', (1,)]", json!(["it's", "x", "a\nb", [1]])),
            ("'\\u00e9\\x41\\q'", json!("éA\\q")),
            ("{}", json!({})),
        ] {
            assert_eq!(read(text), Some(value), "{text}");
        }
        for text in ["", "{", "{'a'}", "{'a': 1, 'a': 2}", "[1 2]", "x", "'a\nb'", "[1] x", "{a: 1}", "'\\u00'"] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn the_arguments_of_a_call_have_names_or_places() {
        let call = given("city=\"Oslo\", days = 3,").unwrap();
        assert_eq!(Value::from(call.named), json!({"city": "Oslo", "days": 3}));
        assert_eq!(given("\"Oslo\"").unwrap().placed, [json!("Oslo")]);
        assert_eq!(given("").unwrap(), Given::default());
        for text in ["a=1, a=2", "a=1, 2", "a==1", "a=b", "a", "a=1 b=2"] {
            assert_eq!(given(text), None, "{text}");
        }
    }
}
