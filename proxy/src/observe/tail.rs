//! Token counts of a native answer, read from a kept copy of its last bytes after the last one has left.
//!
//! What cannot be read is unknown, not zero.

use std::time::Duration;

use crate::{json_writer, usage::Usage};

/// How much is kept: the last line of a stream, or a short whole answer.
const KEPT: usize = 8 << 10;

/// The last bytes of an answer.
#[derive(Debug, Default)]
pub(crate) struct Tail(Vec<u8>);

/// What is read of a line.
#[derive(Debug, Default, PartialEq)]
struct Last {
    model: Option<String>,
    prompt_eval_count: Option<u64>,
    eval_count: Option<u64>,
    eval_duration: Option<u64>,
}

impl Last {
    /// Reads a line, which must be one JSON object. The text of the answer, most of the line, is skipped and not
    /// parsed.
    fn of(line: &[u8]) -> Option<Self> {
        let mut last = Self::default();
        let mut cursor = Cursor(line);
        cursor.take(b'{')?;
        if cursor.take(b'}').is_some() {
            return cursor.0.is_empty().then_some(last);
        }
        loop {
            let key = cursor.string()?;
            cursor.take(b':')?;
            let value = cursor.value()?;
            let number = || std::str::from_utf8(value).ok()?.parse().ok();
            match key {
                b"\"model\"" => last.model = text(value),
                b"\"prompt_eval_count\"" => last.prompt_eval_count = number(),
                b"\"eval_count\"" => last.eval_count = number(),
                b"\"eval_duration\"" => last.eval_duration = number(),
                _ => {}
            }
            if cursor.take(b',').is_none() {
                cursor.take(b'}')?;
                return cursor.0.is_empty().then_some(last);
            }
        }
    }
}

/// The string `value`.
fn text(value: &[u8]) -> Option<String> {
    let plain = value.get(1..value.len().saturating_sub(1)).filter(|text| json_writer::plain(text) == text.len());
    match plain {
        Some(text) if value[0] == b'"' => std::str::from_utf8(text).ok().map(str::to_owned),
        _ => serde_json::from_slice(value).ok(),
    }
}

/// The bytes that end a number or a word.
static ENDS: [bool; 256] = {
    let mut ends = [false; 256];
    let all = b",}] \t\n\x0c\r";
    let mut at = 0;
    while at < all.len() {
        ends[all[at] as usize] = true;
        at += 1;
    }
    ends
};

/// The rest of a line of JSON.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn skip_space(&mut self) {
        // Ollama prints none.
        if self.0.first().is_some_and(u8::is_ascii_whitespace) {
            self.0 = self.0.trim_ascii_start();
        }
    }

    /// Takes a byte that must come next, and the space around it.
    fn take(&mut self, byte: u8) -> Option<()> {
        self.skip_space();
        self.0 = self.0.strip_prefix(&[byte])?;
        self.skip_space();
        Some(())
    }

    fn split(&mut self, end: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(end)?;
        self.0 = rest;
        Some(taken)
    }

    /// Takes a string, its quotes included.
    fn string(&mut self) -> Option<&'a [u8]> {
        self.0.first().filter(|byte| **byte == b'"')?;
        let mut end = 1;
        loop {
            end += json_writer::special(self.0.get(end..)?)? + 1;
            match self.0[end - 1] {
                b'"' => return self.split(end),
                b'\\' => end += 1,
                // A control character must be escaped, but is for others to judge.
                _ => {}
            }
        }
    }

    /// Takes a value.
    fn value(&mut self) -> Option<&'a [u8]> {
        let begin = self.0;
        match begin.first()? {
            b'"' => return self.string(),
            b'{' | b'[' => {}
            _ => {
                let end = begin.iter().position(|byte| ENDS[usize::from(*byte)])?;
                return self.split(end).filter(|value| !value.is_empty());
            }
        }
        let mut depth = 0_usize;
        loop {
            let next = self.0.iter().position(|byte| matches!(byte, b'"' | b'{' | b'}' | b'[' | b']'))?;
            self.0 = &self.0[next..];
            match self.0[0] {
                b'"' => {
                    self.string()?;
                    continue;
                }
                b'{' | b'[' => depth += 1,
                _ => depth -= 1,
            }
            self.0 = &self.0[1..];
            if depth == 0 {
                return Some(&begin[..begin.len() - self.0.len()]);
            }
        }
    }
}

/// What the last line of an answer says.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Read {
    pub(crate) model: Option<String>,
    pub(crate) usage: Option<Usage>,
    /// How long the model took to generate its answer, by Ollama's clock.
    pub(crate) generating: Option<Duration>,
}

impl Tail {
    pub(crate) fn push(&mut self, packet: &[u8]) {
        // Only the last line counts, and another one begins. Of an OpenAI server's events, more than the last one does.
        if self.0.ends_with(b"\n") && packet.first() == Some(&b'{') {
            self.0.clear();
        }
        let new = &packet[packet.len().saturating_sub(KEPT)..];
        let old = (self.0.len() + new.len()).saturating_sub(KEPT).min(self.0.len());
        self.0.drain(..old);
        self.0.extend_from_slice(new);
    }

    /// Whether the answer so far ends with a whole line, or has not begun.
    pub(crate) fn ends_a_line(&self) -> bool {
        self.0.last().is_none_or(|last| *last == b'\n')
    }

    /// Reads the model and the counts in the last line.
    pub(crate) fn read(&self) -> Read {
        let kept = self.0.trim_ascii_end();
        let line = memchr::memrchr(b'\n', kept).map_or(kept, |end| &kept[end + 1..]);
        let openais = || Read { usage: of_openai(kept), ..Read::default() };
        let Some(last) = Last::of(line) else { return openais() };
        let counted = last.prompt_eval_count.is_some() || last.eval_count.is_some();
        let usage = counted.then(|| Usage {
            input: last.prompt_eval_count.unwrap_or(0),
            output: last.eval_count.unwrap_or(0),
            ..Usage::default()
        });
        let usage = usage.or_else(|| openais().usage);
        Read { model: last.model, usage, generating: last.eval_duration.map(Duration::from_nanos) }
    }
}

/// The last `usage` of an answer that passed through from an OpenAI server. Within a text its quotes would be escaped.
fn of_openai(kept: &[u8]) -> Option<Usage> {
    #[derive(serde::Deserialize)]
    struct Counts {
        #[serde(alias = "input_tokens")]
        prompt_tokens: Option<u64>,
        #[serde(alias = "output_tokens")]
        completion_tokens: Option<u64>,
    }
    const NAME: &[u8] = b"\"usage\":";
    // Events before the last one have `null`.
    memchr::memmem::rfind_iter(kept, NAME).find_map(|at| {
        let mut rest = Cursor(kept[at + NAME.len()..].trim_ascii_start());
        let counts: Counts = serde_json::from_slice(rest.value()?).ok()?;
        let counted = counts.prompt_tokens.is_some() || counts.completion_tokens.is_some();
        counted.then(|| Usage {
            input: counts.prompt_tokens.unwrap_or(0),
            output: counts.completion_tokens.unwrap_or(0),
            ..Usage::default()
        })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    /// Any JSON of a few levels.
    fn any_json() -> impl Strategy<Value = Value> {
        let text = "[a{}\\[\\]\":,\\\\é\n]{0,9}";
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            text.prop_map(Value::from)
        ];
        leaf.prop_recursive(3, 12, 4, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::hash_map(text, inner, 0..4).prop_map(|map| map.into_iter().collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_line_is_read_as_a_parser_reads_it(
            model in "[a-z\\\\\"é]{0,9}", count in prop::option::of(any::<u64>()), (message, other) in (any_json(), any_json()), pretty: bool, cut in 0_usize..200,
        ) {
            let line = json!({"model": model, "message": message, "eval_count": count, "x": other, "eval_duration": 7});
            let text = if pretty { serde_json::to_string_pretty(&line) } else { serde_json::to_string(&line) }.unwrap();
            let expected = Last { model: Some(model), prompt_eval_count: None, eval_count: count, eval_duration: Some(7) };
            prop_assert_eq!(Last::of(text.as_bytes()), Some(expected));
            // What is cut off, or is followed by anything, is no line.
            prop_assert_eq!(Last::of(&text.as_bytes()[..cut.min(text.len() - 1)]), None);
            prop_assert_eq!(Last::of(format!("{text}}}").as_bytes()), None);
        }
    }

    #[test]
    fn the_last_line_has_model_and_counts() {
        let mut tail = Tail::default();
        for _ in 0..1000 {
            tail.push(b"{\"model\":\"m\",\"done\":false}\n");
        }
        tail.push(b"{\"model\":\"m\",\"done\":true,\"prompt_eval_");
        tail.push(b"count\":7,\"eval_count\":3,\"eval_duration\":2000000000}\n");
        let read = Read {
            model: Some("m".to_owned()),
            usage: Some(Usage { input: 7, output: 3, cached: 0 }),
            generating: Some(Duration::from_secs(2)),
        };
        assert_eq!(tail.read(), read);
        assert!(tail.0.len() <= KEPT);
    }

    #[test]
    fn empty_lines_after_the_last_one_do_not_count() {
        let mut tail = Tail::default();
        for packet in ["{\"model\":\"a\"}\n", "{\"model\":\"b\",", "\"eval_count\":3}\n", "\n", " \r\n"] {
            tail.push(packet.as_bytes());
        }
        assert_eq!((tail.read().model.as_deref(), tail.ends_a_line()), (Some("b"), true));
    }

    #[test]
    fn the_usage_of_an_openai_server_is_read() {
        let usage = Some(Usage { input: 7, output: 3, cached: 0 });
        for text in [
            r#"{"object":"chat.completion","model":"m","choices":[{"message":{"content":"\"usage\": {}"}}],"usage":{"prompt_tokens":7,"completion_tokens":3}}"#,
            "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":3}}\n\ndata: {\"usage\":null}\n\ndata: [DONE]\n\n",
            "event: response.completed\ndata: {\"response\":{\"usage\": {\"input_tokens\":7,\"input_tokens_details\":{},\"output_tokens\":3}}}\n\n",
        ] {
            let (mut tail, mut parts) = (Tail::default(), Tail::default());
            tail.push(text.as_bytes());
            text.split_inclusive('\n').for_each(|part| parts.push(part.as_bytes()));
            assert_eq!((tail.read().usage, parts.read().usage), (usage, usage), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_unknown() {
        let mut tail = Tail::default();
        tail.push(b"<html>");
        assert_eq!(tail.read(), Read::default());
    }
}
