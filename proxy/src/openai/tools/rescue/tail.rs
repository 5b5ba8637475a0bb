//! Where JSON ends in a text, and JSON whose end is missing. Pure.

use serde_json::Value;

/// Deepest nesting, as `serde_json` has it.
const DEPTH: usize = 128;

/// Where a value ends.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Before this byte.
    At(usize),
    /// The text ends before the value.
    Open,
    /// A closer does not match.
    Never,
}

/// What is open at the end of a text.
#[derive(Default)]
struct Scan {
    closers: Vec<u8>,
    /// The quote of a string that is open.
    quote: Option<u8>,
    escaped: bool,
}

impl Scan {
    /// Reads a byte; whether the value ends with it. `None`: it does not match.
    fn byte(&mut self, byte: u8, single: bool) -> Option<bool> {
        if let Some(quote) = self.quote {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                byte if byte == quote => self.quote = None,
                _ => {}
            }
            return Some(false);
        }
        match byte {
            b'"' => self.quote = Some(byte),
            b'\'' if single => self.quote = Some(byte),
            b'{' | b'[' | b'(' => {
                self.closers.push(match byte {
                    b'{' => b'}',
                    b'[' => b']',
                    _ => b')',
                });
                if self.closers.len() > DEPTH {
                    return None;
                }
            }
            b'}' | b']' | b')' => {
                if self.closers.pop() != Some(byte) {
                    return None;
                }
                return Some(self.closers.is_empty());
            }
            _ => {}
        }
        Some(false)
    }
}

/// Whether a value has strings in single quotes, as Python writes them: its first quote is one.
fn single(text: &str) -> bool {
    text.starts_with('(') || text.find(['"', '\'']).is_some_and(|at| text[at..].starts_with('\''))
}

/// Where the value ends that `text` begins with, an object, a list or a parenthesis.
pub(super) fn end(text: &str) -> End {
    let (mut scan, single) = (Scan::default(), single(text));
    for (at, byte) in text.bytes().enumerate() {
        match scan.byte(byte, single) {
            Some(true) => return End::At(at + 1),
            Some(false) => {}
            None => return End::Never,
        }
    }
    End::Open
}

/// Adds the closers that are missing at the end of a value, a quote among them, and takes a comma away that nothing
/// follows. `stopped`: the model ended by itself; otherwise a text, number or word that is open may go on, and is not
/// completed. `None`: more is missing.
pub(super) fn complete(text: &str, stopped: bool) -> Option<String> {
    let (mut scan, single) = (Scan::default(), single(text));
    for byte in text.bytes() {
        if scan.byte(byte, single)? {
            return None;
        }
    }
    let mut whole = text.trim_end().to_owned();
    if let Some(quote) = scan.quote {
        if !stopped || scan.escaped {
            return None;
        }
        whole = text.to_owned();
        whole.push(char::from(quote));
    } else if let Some(before) = whole.strip_suffix(',') {
        whole.truncate(before.trim_end().len());
    } else if !stopped && whole.ends_with(|c: char| c.is_alphanumeric()) {
        return None;
    }
    whole.extend(scan.closers.iter().rev().map(|closer| char::from(*closer)));
    // A name without its value is more than a closer; the parser of parentheses finds that out.
    (text.starts_with('(') || single || serde_json::from_str::<Value>(&whole).is_ok()).then_some(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_closes_is_added() {
        for (text, stopped, whole) in [
            (r#"{"a":{"b":1}"#, true, Some(r#"{"a":{"b":1}}"#)),
            (r#"{"a":{"b":1}"#, false, Some(r#"{"a":{"b":1}}"#)),
            (r#"{"a":["x"#, true, Some(r#"{"a":["x"]}"#)),
            (r#"{"a":["x"#, false, None),
            (r#"{"a":1"#, true, Some(r#"{"a":1}"#)),
            (r#"{"a":1"#, false, None),
            (r#"{"a":tru"#, true, None),
            (r#"{"a":true"#, true, Some(r#"{"a":true}"#)),
            (r#"{"a":"x", "#, false, Some(r#"{"a":"x"}"#)),
            (r#"{"a":"x","b"#, true, None),
            (r#"{"a":"x","b":"#, true, None),
            (r#"{"a":"x\"#, true, None),
            (r#"{"a":"} "#, true, Some(r#"{"a":"} "}"#)),
            (r#"{"a":1]"#, true, None),
            (r#"{"a":1}"#, true, None),
        ] {
            assert_eq!(complete(text, stopped).as_deref(), whole, "{text} {stopped}");
        }
    }

    #[test]
    fn a_value_ends_where_its_first_bracket_closes() {
        assert_eq!(end(r#"{"a":"}"} x"#), End::At(9));
        assert_eq!(end("('it\\'s)', [1]) x"), End::At(15));
        assert_eq!(end(r#"{"it's": 1}"#), End::At(11));
        assert_eq!(end("[{]"), End::Never);
        assert_eq!(end("[{"), End::Open);
        assert_eq!(end(&"[".repeat(200)), End::Never);
    }
}
