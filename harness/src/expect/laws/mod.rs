//! What holds of every stream, whether a scenario asks for it or not: its framing, its one end, and the order of its
//! chunks. Pure.
//!
//! Each law has a name. A run or a scenario can switch laws off; one defect is one breach.

mod chunks;
mod messages;
mod responses;

use std::{collections::BTreeSet, fmt::Write};

use serde_json::Value;

use crate::{
    call::{frames::DONE, tap::Recording},
    text::suggestion,
};

/// Below this size the reader has room for all that is there, so that an event arrives in the pieces in which it was
/// written.
const ROOM: usize = 4096;

/// Something that holds of every stream.
#[derive(Clone, Copy, Debug)]
pub struct Law {
    /// Its name, as `--no-law` and `no_laws` take it.
    pub name: &'static str,
    /// What holds.
    pub what: &'static str,
    /// Whether clients work without it, so that it is not asked of a server other than farllama.
    pub is_strict: bool,
}

const fn law(name: &'static str, what: &'static str) -> Law {
    Law { name, what, is_strict: false }
}

const fn strict(name: &'static str, what: &'static str) -> Law {
    Law { name, what, is_strict: true }
}

/// Every law: of all event streams, of chats and completions, of responses, of Anthropic's messages.
pub const LAWS: [Law; 42] = [
    strict("lf-only", "lines end with LF alone"),
    law("utf-8", "the stream is UTF-8"),
    law("blank-line", "a blank line ends the last event"),
    strict("one-piece", "each event arrives in one piece (checked on the mock alone)"),
    law("json", "each event holds one JSON document"),
    law("done-once", "[DONE] comes once"),
    law("done-last", "nothing follows [DONE]"),
    law("ending", "a stream of chunks ends with [DONE] or an error"),
    law("no-done-after-error", "a stream that failed has no [DONE]"),
    law("one-error", "a stream fails once"),
    law("error-last", "nothing follows an error"),
    law("no-finish-when-failed", "a stream that failed has no finish_reason"),
    law("same-id", "`id` is the same in all chunks"),
    law("same-model", "`model` is the same in all chunks"),
    strict("same-created", "`created` is the same in all chunks"),
    law("usage-last", "the usage chunk (without choices) is the last"),
    law("usage-sum", "the total of a usage is the sum of its parts"),
    law("finish", "each choice has a finish_reason before [DONE]"),
    law("finish-last", "nothing follows a choice's finish_reason"),
    strict("finish-last-at-all", "nothing follows a choice's finish_reason, not even an empty delta"),
    law("role-first", "the role comes in a choice's first chunk"),
    strict("role-once", "the role comes in a choice's first chunk alone"),
    law("role-assistant", "the role is assistant"),
    law("call-begins", "the first piece of a tool call has an id and a name"),
    law("call-continues", "later pieces of a tool call repeat neither id nor name"),
    law("call-numbers", "tool calls are numbered from 0 without gaps"),
    // Clients read the type within the data.
    strict("event-names", "the name of each event is its type"),
    law("event-numbers", "events are numbered without a gap"),
    law("one-end", "a response has one end, which is its last event"),
    law("end-status", "the status of a response is that of its last event"),
    law("end-usage", "a completed response has its usage"),
    law("item-numbers", "items and their parts are numbered from 0 without a gap"),
    law("item-known", "an event names an item that was added, and its number"),
    law("deltas", "the pieces add up to what is done"),
    law("created-first", "a response begins with response.created"),
    law("end-output", "the last event holds each item that was done, in order"),
    law("message-begins", "a message begins with message_start, once"),
    law("message-ends", "a message ends once, with message_stop or an error"),
    law("message-reason", "a message has one message_delta, with its stop_reason and its usage"),
    law("block-order", "blocks are numbered from 0, and each ends before the next begins"),
    law("block-deltas", "the pieces of a block are of its type"),
    law("block-input", "the pieces of an input add up to JSON"),
];

/// A law that a stream breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breach {
    /// The name of the law.
    pub law: &'static str,
    /// What there was instead.
    pub actual: String,
}

fn breach(law: &'static str, actual: impl Into<String>) -> Breach {
    debug_assert!(named(law).is_some(), "the law {law} is in the list");
    Breach { law, actual: actual.into() }
}

/// A usage whose total is another than the sum of its two parts.
fn usage_sum(usage: &Value, [input, output]: [&str; 2]) -> Option<Breach> {
    let count = |name: &str| usage[name].as_u64();
    let (input, output, total) = (count(input)?, count(output)?, count("total_tokens")?);
    (input.checked_add(output) != Some(total))
        .then(|| breach("usage-sum", format!("{input} and {output} make {total}")))
}

/// The law of this name.
#[must_use]
pub fn named(name: &str) -> Option<&'static Law> {
    LAWS.iter().find(|law| law.name == name)
}

/// The laws that are in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Laws {
    off: BTreeSet<&'static str>,
}

impl Laws {
    /// All but those that are named; `all` names every one.
    ///
    /// # Errors
    /// Fails on a name that no law has, with the nearest one.
    pub fn without<'a>(names: impl IntoIterator<Item = &'a String>) -> Result<Self, String> {
        Self::default().and_without(names)
    }

    /// These, but for those that are named.
    ///
    /// # Errors
    /// As [`Self::without`].
    pub fn and_without<'a>(mut self, names: impl IntoIterator<Item = &'a String>) -> Result<Self, String> {
        for name in names {
            if name.as_str() == "all" {
                self.off.extend(LAWS.iter().map(|law| law.name));
                continue;
            }
            let law = named(name).ok_or_else(|| {
                let near = suggestion(name, LAWS.iter().map(|law| law.name));
                format!("unknown law `{name}`{near}; `farllama-check laws` lists them")
            })?;
            self.off.insert(law.name);
        }
        Ok(self)
    }

    /// These, but for the strict ones: what OpenAI's clients rely on.
    #[must_use]
    pub fn portable(mut self) -> Self {
        self.off.extend(LAWS.iter().filter(|law| law.is_strict).map(|law| law.name));
        self
    }

    /// Whether a law is in force.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        !self.off.contains(name)
    }

    /// The first breach of each law in force, with how many more there are.
    fn first_of_each(&self, all: Vec<Breach>) -> Vec<Breach> {
        let mut kept: Vec<(Breach, usize)> = Vec::new();
        for breach in all.into_iter().filter(|breach| self.has(breach.law)) {
            match kept.iter_mut().find(|(first, _)| first.law == breach.law) {
                Some((_, more)) => *more += 1,
                None => kept.push((breach, 0)),
            }
        }
        let reported = |(breach, more): (Breach, usize)| match more {
            0 => breach,
            more => Breach { actual: format!("{} (and {more} more)", breach.actual), ..breach },
        };
        kept.into_iter().map(reported).collect()
    }
}

/// The laws as a list for people.
#[must_use]
pub fn list() -> String {
    let width = LAWS.iter().map(|law| law.name.len()).max().unwrap_or(0);
    let mut out = String::new();
    for Law { name, what, is_strict } in LAWS {
        let strict = if is_strict { " [strict]" } else { "" };
        let _ = writeln!(out, "{name:width$}  {what}{strict}");
    }
    out.push_str(
        "\nEvery event stream is checked against these. Strict ones are checked on a target only with --strict-laws.\nSwitch one off: --no-law NAME for a run, no_laws: [NAME] in a scenario.\n",
    );
    out
}

/// The breaches of a whole event stream, by its bytes.
#[must_use]
pub fn breaches(body: &[u8], laws: &Laws) -> Vec<Breach> {
    let mut breaches = framing(body);
    let text = String::from_utf8_lossy(body);
    // A carriage return is reported above; it must not hide the rest.
    let text = text.replace("\r\n", "\n");
    let data: Vec<String> = text.split("\n\n").filter_map(data).collect();
    breaches.extend(endings(&data));
    let chunks: Vec<Value> = data.iter().filter_map(|data| serde_json::from_str(data).ok()).collect();
    if chunks.iter().any(|chunk| chunk["object"] == "chat.completion.chunk" || chunk["object"] == "text_completion") {
        breaches.extend(chunks::breaches(&chunks, data.iter().any(|data| data == DONE)));
    }
    if chunks.iter().any(|event| event["response"]["object"] == "response") {
        breaches.extend(responses::breaches(&text, &chunks));
    }
    if chunks.iter().any(|event| event["message"]["type"] == "message" || event["type"] == "message_stop") {
        breaches.extend(messages::breaches(&text, &chunks));
    }
    laws.first_of_each(breaches)
}

/// Whether an event came in several pieces. A network may split what is written, so it is asked only where there is
/// none.
#[must_use]
pub fn torn(recording: &Recording) -> Option<Breach> {
    let size: usize = recording.pieces.iter().map(|piece| piece.bytes.len()).sum();
    if recording.media_type() != "text/event-stream" || size > ROOM {
        return None;
    }
    let torn = recording.pieces.iter().find(|piece| !piece.bytes.ends_with(b"\n\n"))?;
    let text = String::from_utf8_lossy(&torn.bytes);
    Some(breach("one-piece", format!("a piece ends within one: {}", shorten(&text))))
}

fn framing(body: &[u8]) -> Vec<Breach> {
    let mut breaches = Vec::new();
    if body.contains(&b'\r') {
        breaches.push(breach("lf-only", "there is a carriage return"));
    }
    if std::str::from_utf8(body).is_err() {
        breaches.push(breach("utf-8", "there are bytes that are not"));
    }
    let ends = |end: &[u8]| body.ends_with(end);
    if !body.is_empty() && !ends(b"\n\n") && !ends(b"\r\n\r\n") {
        breaches.push(breach("blank-line", "its blank line is missing"));
    }
    breaches
}

/// The joined `data:` lines of an event; nothing for one of comments alone.
fn data(event: &str) -> Option<String> {
    let lines: Vec<_> = event
        .lines()
        .filter_map(|line| line.strip_prefix("data:"))
        .map(|line| line.strip_prefix(' ').unwrap_or(line))
        .collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}

fn endings(data: &[String]) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for text in data.iter().filter(|text| *text != DONE) {
        if serde_json::from_str::<Value>(text).is_err() {
            breaches.push(breach("json", format!("this one does not: {}", shorten(text))));
        }
    }
    let dones = data.iter().filter(|text| *text == DONE).count();
    if dones > 1 {
        breaches.push(breach("done-once", format!("it came {dones} times")));
    }
    if let Some(at) = data.iter().position(|text| text == DONE)
        && let Some(after) = data[at + 1..].iter().find(|text| *text != DONE)
    {
        breaches.push(breach("done-last", format!("this did: {}", shorten(after))));
    }
    breaches
}

fn shorten(text: &str) -> String {
    crate::text::shorten(text, 120)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::call::tap::Piece;

    fn chunk(rest: &str) -> String {
        format!("data: {{\"id\":\"1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",{rest}}}\n\n")
    }

    fn first() -> String {
        chunk(r#""choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]"#)
    }

    fn word() -> String {
        chunk(r#""choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]"#)
    }

    fn finish() -> String {
        chunk(r#""choices":[{"index":0,"delta":{},"finish_reason":"stop"}]"#)
    }

    const DONE_EVENT: &str = "data: [DONE]\n\n";
    const ERROR_EVENT: &str = "data: {\"error\":{\"message\":\"cut\"}}\n\n";

    fn found(parts: &[&str]) -> Vec<String> {
        breaches(parts.concat().as_bytes(), &Laws::default()).iter().map(reported).collect()
    }

    fn reported(breach: &Breach) -> String {
        format!("{}: {}", named(breach.law).unwrap().what, breach.actual)
    }

    #[test]
    fn a_proper_stream_breaks_no_law() {
        assert_eq!(found(&[": waiting\n\n", &first(), &word(), &finish(), DONE_EVENT]), Vec::<String>::new());
        let usage = chunk(r#""choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}"#);
        assert_eq!(found(&[&first(), &finish(), &usage, DONE_EVENT]), Vec::<String>::new());
        assert_eq!(found(&[&first(), &word(), ERROR_EVENT]), Vec::<String>::new());
    }

    #[test]
    fn each_way_to_break_a_stream_is_reported() {
        let role = first();
        let other = word().replace("\"1\"", "\"2\"");
        let no_name = chunk(r#""choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{}}]}}]"#);
        let gap =
            chunk(r#""choices":[{"index":0,"delta":{"tool_calls":[{"index":1,"id":"a","function":{"name":"f"}}]}}]"#);
        let usage = chunk(r#""choices":[]"#);
        let wrong_sum = chunk(r#""choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":12}"#);
        for (parts, law) in [
            (vec![&*first(), &finish(), "data: [DONE]\r\n\r\n"], "carriage return"),
            (vec![&*first(), &finish(), "data: [DONE]\n"], "blank line is missing"),
            (vec![&*first(), &finish()], "ends with [DONE] or an error: "),
            (vec![&*first(), DONE_EVENT], "each choice has a finish_reason before [DONE]"),
            (vec![&*first(), &finish(), ERROR_EVENT], "failed has no finish_reason"),
            (vec![&*first(), ERROR_EVENT, DONE_EVENT], "that failed has no [DONE]"),
            (vec![&*first(), ERROR_EVENT, ERROR_EVENT], "2 errors"),
            (vec![&*first(), ERROR_EVENT, &word()], "nothing follows an error"),
            (vec![&*first(), &finish(), DONE_EVENT, DONE_EVENT], "2 times"),
            (vec![&*first(), &finish(), DONE_EVENT, &word()], "nothing follows [DONE]"),
            (vec![&*first(), &finish(), &word(), DONE_EVENT], "nothing follows a choice's finish_reason"),
            (vec![&*first(), &finish(), &finish().replace("\"stop\"", "null"), DONE_EVENT], "not even an empty delta"),
            (vec![&*first(), &finish(), &finish(), DONE_EVENT], "nothing follows a choice's finish_reason: "),
            (vec![&*first(), &role, &finish(), DONE_EVENT], "it came again"),
            (vec![&*word(), &finish(), DONE_EVENT], "it is not there"),
            (vec![&*role.replace("assistant", "user"), &finish(), DONE_EVENT], "the role is assistant: "),
            (vec![&*first(), &other, &finish(), DONE_EVENT], "`id` is the same"),
            (vec![&*first(), &no_name, &finish(), DONE_EVENT], "an id and a name"),
            (vec![&*first(), &gap, &finish(), DONE_EVENT], "without gaps"),
            (vec![&*first(), &usage, &finish(), DONE_EVENT], "chunks follow it"),
            (vec![&*first(), "data: {\n\n", &finish(), DONE_EVENT], "one JSON document"),
            (vec![&*first(), &finish(), &wrong_sum, DONE_EVENT], "sum of its parts: 3 and 4 make 12"),
        ] {
            let found = found(&parts);
            assert!(found.iter().any(|breach| breach.contains(law)), "{law}: {found:?}");
        }
    }

    #[test]
    fn one_defect_is_one_breach() {
        // No [DONE]: the stream did not fail besides.
        assert_eq!(found(&[&first(), &finish()]).len(), 1);
        let anonymous = word().replace("\"1\"", "\"2\"");
        let stream = [&*first(), &anonymous, &anonymous, &finish(), DONE_EVENT].concat();
        let found = found(&[&stream]);
        assert!(found.len() == 1 && found[0].contains("same in all chunks"), "{found:?}");
        let roleless = [word(), word().replace("\"index\":0", "\"index\":1")].concat() + ERROR_EVENT;
        let found = breaches(roleless.as_bytes(), &Laws::default());
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].law == "role-first" && found[0].actual.ends_with("(and 1 more)"), "{found:?}");
    }

    #[test]
    fn a_law_can_be_switched_off_by_its_name() {
        let stream = [word(), finish(), DONE_EVENT.to_owned()].concat();
        let off = Laws::without(&["role-first".to_owned()]).unwrap();
        assert_eq!(breaches(stream.as_bytes(), &Laws::default()).len(), 1);
        assert_eq!(breaches(stream.as_bytes(), &off), []);
        assert_eq!(breaches(b"data: {\r\n", &Laws::without(&["all".to_owned()]).unwrap()), []);
        let wrong = Laws::without(&["role-frst".to_owned()]).unwrap_err();
        assert_eq!(wrong, "unknown law `role-frst`; did you mean `role-first`?; `farllama-check laws` lists them");
    }

    #[test]
    fn what_no_client_relies_on_is_not_asked_of_other_servers() {
        let stream = [first(), first(), finish(), DONE_EVENT.to_owned()].concat().replace('\n', "\r\n");
        let found = breaches(stream.as_bytes(), &Laws::default());
        assert_eq!(found.iter().map(|breach| breach.law).collect::<Vec<_>>(), ["lf-only", "role-once"]);
        assert_eq!(breaches(stream.as_bytes(), &Laws::default().portable()), []);
    }

    #[test]
    fn every_law_has_a_name_of_its_own() {
        let names: BTreeSet<_> = LAWS.iter().map(|law| law.name).collect();
        assert_eq!(names.len(), LAWS.len());
        assert!(list().contains("role-first  "), "{}", list());
    }

    #[test]
    fn an_event_in_two_pieces_is_torn() {
        let came = |pieces: &[&'static str], media_type: &str| {
            let piece = |text: &&'static str| Piece { after: Duration::ZERO, bytes: text.as_bytes().into() };
            let headers = vec![("content-type".to_owned(), media_type.to_owned())];
            torn(&Recording { pieces: pieces.iter().map(piece).collect(), headers, ..Recording::default() })
                .as_ref()
                .map(reported)
        };
        assert_eq!(came(&["data: 1\n\ndata: 2\n\n", ": x\n\n"], "text/event-stream"), None);
        assert!(came(&["data: 1\n\nda", "ta: 2\n\n"], "text/event-stream").unwrap().ends_with("data: 1\n\nda"));
        assert_eq!(came(&["{\"a\":", "1}\n"], "application/x-ndjson"), None);
    }

    #[test]
    fn other_streams_are_judged_by_their_framing_alone() {
        assert_eq!(found(&["event: ping\ndata: {\"type\":\"ping\"}\n\n"]), Vec::<String>::new());
    }
}
