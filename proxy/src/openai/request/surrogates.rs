//! Lone surrogates in JSON text: JavaScript clients cut an emoji in two and send `\ud83d` alone. It is no character, so
//! that most JSON readers refuse the whole body; Go, and with it Ollama, reads U+FFFD. Pure.

use bytes::Bytes;

/// Replaces each escaped lone surrogate by an escaped U+FFFD, which takes as many bytes. All other bytes stay
/// unchanged, and a body without one is not copied.
///
/// Text inside of text (`"arguments":"{\"a\":\"\\ud83d\"}"`) has an escaped backslash there, and is left alone.
pub(crate) fn mend(body: Bytes) -> Bytes {
    let lone = lone(&body);
    if lone.is_empty() {
        return body;
    }
    let mut text = Vec::from(body);
    for at in lone {
        text[at + 2..at + 6].copy_from_slice(b"fffd");
    }
    text.into()
}

/// [`mend`] for JSON text that was inside of a text.
pub(crate) fn mend_text(text: String) -> String {
    // Only ASCII was put in the place of ASCII.
    String::from_utf8(mend(Bytes::from(text)).into()).unwrap_or_default()
}

/// Where the lone ones begin.
fn lone(text: &[u8]) -> Vec<usize> {
    let mut found = Vec::new();
    // The second half of a pair begins before this.
    let mut after = 0;
    for at in memchr::memmem::find_iter(text, b"\\u") {
        let Some(0xD800..=0xDFFF) = unit(text, at) else { continue };
        if at < after || !begins_an_escape(text, at) {
            continue;
        }
        match (unit(text, at), unit(text, at + 6)) {
            (Some(0xD800..=0xDBFF), Some(0xDC00..=0xDFFF)) => after = at + 12,
            _ => found.push(at),
        }
    }
    found
}

/// The number of an escape such as `\ud83d`, if one stands there.
fn unit(text: &[u8], at: usize) -> Option<u16> {
    let digits = text.get(at..at + 6)?.strip_prefix(b"\\u")?;
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// A backslash that an odd number of others precedes is itself escaped.
fn begins_an_escape(text: &[u8], at: usize) -> bool {
    text[..at].iter().rev().take_while(|byte| **byte == b'\\').count().is_multiple_of(2)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mended(text: &str) -> String {
        String::from_utf8(mend(Bytes::copy_from_slice(text.as_bytes())).to_vec()).unwrap()
    }

    #[test]
    fn only_lone_surrogates_are_replaced() {
        for (text, expected) in [
            (r#"{"a":"cut \ud83d"}"#, r#"{"a":"cut \ufffd"}"#),
            (r#""\uDE00\ud83d\ude00\uD83D""#, r#""\ufffd\ud83d\ude00\ufffd""#),
            (r#""\ud83d\ud83d\ude00""#, r#""\ufffd\ud83d\ude00""#),
            (r#""\\ud83d \\\ud83d \\\\ud83d""#, r#""\\ud83d \\\ufffd \\\\ud83d""#),
            (r#""\u00e9 \ud83 \ud83""#, r#""\u00e9 \ud83 \ud83""#),
            ("\\ud83", "\\ud83"),
        ] {
            assert_eq!(mended(text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_mended_text_is_read_as_go_reads_it(parts in prop::collection::vec(prop_oneof![
            Just("\\ud83d"), Just("\\uDE00"), Just("\\\\"), Just("\\u00e9"), Just("x"), Just("\\\""), Just("é"),
        ], 0..12)) {
            let json = format!("\"{}\"", parts.concat());
            let expected = serde_json::from_str::<crate::openai::request::json::Text<'_>>(&json).unwrap();
            prop_assert_eq!(serde_json::from_str::<String>(&mended(&json)).unwrap(), &*expected);
        }
    }
}
