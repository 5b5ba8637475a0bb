//! JSON and durations as Go reads and writes them: keys in any case, the first value only, its error texts, its
//! escapes. Pure.
//!
//! Texts: `ollama-wire` B2 and A4; those that were recorded are checked by the truth test.

mod decode;
mod duration;
mod scan;

use serde_json::Value;

pub(crate) use self::{
    decode::{Kind, Request, decode},
    duration::{KeepAlive, keep_alive},
};

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn html_is_escaped_as_go_does() {
        assert_eq!(encode(&serde_json::json!({"a": "<&>\u{2028}"})), "{\"a\":\"\\u003c\\u0026\\u003e\\u2028\"}");
    }
}
