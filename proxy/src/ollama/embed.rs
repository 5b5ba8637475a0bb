//! The native types of `/api/embed`, in Ollama's own words and key order. Vectors stay text: no digit of a number
//! changes.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::ollama::wire::Options;

/// Body of `POST /api/embed`.
#[derive(Debug, Serialize)]
pub(crate) struct EmbedRequest<'a> {
    pub(crate) model: Cow<'a, str>,
    pub(crate) input: Vec<Cow<'a, str>>,
    /// Ollama cuts what is too long in silence, unless this is false.
    pub(crate) truncate: Cow<'a, RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) dimensions: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) keep_alive: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Options::is_empty")]
    pub(crate) options: Options<'a>,
}

/// Answer of `POST /api/embed`.
#[derive(Debug, Deserialize, PartialEq)]
pub(crate) struct EmbedReply<'a> {
    /// One array of numbers for each input, in their order. Each is valid JSON, though it may be no array.
    #[serde(borrow, deserialize_with = "texts")]
    pub(crate) embeddings: Vec<&'a str>,
    /// Tokens of all inputs.
    #[serde(default)]
    pub(crate) prompt_eval_count: Option<u64>,
}

fn texts<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<&'a str>, D::Error> {
    let raw: Vec<&'a RawValue> = Deserialize::deserialize(deserializer)?;
    Ok(raw.into_iter().map(RawValue::get).collect())
}

impl<'a> EmbedReply<'a> {
    /// Reads an answer printed as Ollama prints it: vectors of numbers, without spaces between them. It is checked as
    /// strictly as by a JSON parser, at a fifth of its cost: an answer may have megabytes. None: it may be valid all
    /// the same.
    pub(crate) fn compact(body: &'a [u8]) -> Option<Self> {
        const NAME: &[u8] = b"\"embeddings\":[";
        let begin = memchr::memmem::find(body, NAME)? + NAME.len() - 1;
        // The name is one of the outermost object, and it is a name.
        let before = body[..begin].strip_prefix(b"{")?;
        if memchr::memchr2(b'{', b'\\', before).is_some() {
            return None;
        }
        let (embeddings, length) = vectors(&body[begin..])?;
        let rest = [&body[..begin], b"[0]", &body[begin + length..]].concat();
        let rest: EmbedReply<'_> = serde_json::from_slice(&rest).ok()?;
        (rest.embeddings == ["0"]).then_some(Self { embeddings, prompt_eval_count: rest.prompt_eval_count })
    }
}

/// The arrays in the array that `text` begins with, and its length.
fn vectors(text: &[u8]) -> Option<(Vec<&str>, usize)> {
    let (mut all, mut at) = (Vec::new(), 1);
    loop {
        let length = vector(&text[at..])?;
        all.push(str::from_utf8(&text[at..at + length]).ok()?);
        at += length + 1;
        match text.get(at - 1)? {
            b',' => {}
            b']' => return Some((all, at)),
            _ => return None,
        }
    }
}

/// The length of the array of numbers that `text` begins with.
fn vector(text: &[u8]) -> Option<usize> {
    text.first().filter(|byte| **byte == b'[')?;
    let mut at = 1;
    loop {
        let number = usual_number(&text[at..]).or_else(|| number(&text[at..]));
        at += number? + 1;
        match text.get(at - 1)? {
            b',' => {}
            b']' => return Some(at),
            _ => return None,
        }
    }
}

/// The length of a number of the usual shape, `-0.012345678`: one digit before the dot, and five or more after it.
/// None: it has another.
fn usual_number(text: &[u8]) -> Option<usize> {
    let block: &[u8; 16] = text.first_chunk()?;
    let [begin, end] =
        [block.first_chunk()?, block.last_chunk()?].map(|half| other_than_digits(u64::from_le_bytes(*half)));
    // The first byte of the block is the lowest.
    let (dot, others) = if block[0] == b'-' { (2, 0x80_0080) } else { (1, 0x8000) };
    if begin != others || block[dot] != b'.' {
        return None;
    }
    let length = 8 + end.trailing_zeros() as usize / 8;
    text.get(length).filter(|after| matches!(after, b',' | b']')).map(|_| length)
}

/// The length of the number that `text` begins with (RFC 8259, section 6).
fn number(text: &[u8]) -> Option<usize> {
    let begin = usize::from(text.first() == Some(&b'-'));
    let whole = digits(&text[begin..])?;
    if whole > 1 && text[begin] == b'0' {
        return None;
    }
    let mut at = begin + whole;
    if text.get(at) == Some(&b'.') {
        at += 1 + digits(&text[at + 1..])?;
    }
    if matches!(text.get(at), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(text.get(at + 1), Some(b'+' | b'-')));
        at += 1 + sign + digits(&text[at + 1 + sign..])?;
    }
    Some(at)
}

/// How many digits `text` begins with. None: it begins with something else.
fn digits(text: &[u8]) -> Option<usize> {
    const BLOCK: usize = size_of::<u64>();
    let mut at = 0;
    while let Some(block) = text[at..].first_chunk() {
        let others = other_than_digits(u64::from_le_bytes(*block));
        if others != 0 {
            at += others.trailing_zeros() as usize / 8;
            return (at > 0).then_some(at);
        }
        at += BLOCK;
    }
    at += text[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    (at > 0).then_some(at)
}

/// The highest bits of those of eight bytes that are no digits. With the bits of `0` turned over, a digit is at most 9,
/// and does not reach the highest bit when 118 is added; every other byte does, or has it.
fn other_than_digits(bytes: u64) -> u64 {
    const ONES: u64 = u64::MAX / 0xff;
    let values = bytes ^ (ONES * 0x30);
    (((values & (ONES * 0x7f)) + ONES * 118) | values) & (ONES * 0x80)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(body: &str) -> Option<EmbedReply<'_>> {
        serde_json::from_str(body).ok()
    }

    proptest! {
        #[test]
        fn a_compact_answer_is_read_as_a_parser_reads_it(
            numbers in "[-+0-9.eE,\\[\\]]{0,12}", vectors in prop::collection::vec(prop::collection::vec(any::<f32>().prop_filter("a number", |x| x.is_finite()), 1..40), 1..4),
        ) {
            let vectors = serde_json::to_string(&vectors).unwrap();
            let whole = format!(r#"{{"model":"m","embeddings":{vectors},"prompt_eval_count":7}}"#);
            prop_assert!(EmbedReply::compact(whole.as_bytes()).is_some());
            prop_assert_eq!(EmbedReply::compact(whole.as_bytes()), parsed(&whole));
            // What it accepts, a parser accepts.
            for body in [format!(r#"{{"embeddings":[[{numbers}]]}}"#), format!(r#"{{"embeddings":[[1,{numbers}],[2]]}}"#)] {
                if let Some(read) = EmbedReply::compact(body.as_bytes()) {
                    prop_assert_eq!(Some(read), parsed(&body));
                }
            }
        }
    }

    #[test]
    fn digits_are_told_from_all_other_bytes() {
        for byte in 0..=u8::MAX {
            let text = [&b"1234567"[..], &[byte], b"12345678"].concat();
            assert_eq!(digits(&text), Some(if byte.is_ascii_digit() { 16 } else { 7 }), "{byte}");
        }
    }

    #[test]
    fn every_number_is_read_by_the_grammar_of_json() {
        for text in [
            "0.12345678",
            "-0.0123456789012",
            "0.1234567",
            "9.00000e5",
            "1.2345.678",
            "-.12345678",
            "12.345678",
            "0.12345x78",
            "--.1234567",
        ] {
            for after in [",", "]", "1", "e"].map(|after| format!("{text}{after},,,,,,,,,,")) {
                let (usual, number) = (usual_number(after.as_bytes()), number(after.as_bytes()));
                assert!(usual.is_none() || usual == number, "{after}: {usual:?} {number:?}");
            }
        }
        assert_eq!(usual_number(b"-0.0123456789,0.1"), Some(13));
        for text in ["0", "-0", "10", "12345678", "123456789.0123456789", "-0.5", "1e5", "1E+05", "-1.5e-10"] {
            assert_eq!(number(text.as_bytes()), Some(text.len()), "{text}");
        }
        for text in ["", "-", "00", "01", "1.", ".5", "1e", "1e+", "+1", "1.e5", "--1", "x", "1234567a."] {
            assert_ne!(number(text.as_bytes()), Some(text.len()), "{text}");
        }
    }

    #[test]
    fn what_is_printed_in_another_way_is_left_to_the_parser() {
        for body in [
            r#"{"embeddings": [[1]]}"#,
            r#"{"embeddings":[[1], [2]]}"#,
            r#"{"embeddings":[]}"#,
            r#"{"embeddings":[[]]}"#,
            r#"{"embeddings":[null]}"#,
            r#"{"embeddings":[[1]]"#,
            r#"{"embeddings":[[1]],"embeddings":[[2]]}"#,
            r#"{"x":{"embeddings":[[1]]},"embeddings":[0]}"#,
            r#"{"a\"embeddings":[[1]],"embeddings":[0]}"#,
            r#"{"error":"x"}"#,
            r#"[{"embeddings":[[1]]}]"#,
        ] {
            assert_eq!(EmbedReply::compact(body.as_bytes()), None, "{body}");
        }
    }
}
