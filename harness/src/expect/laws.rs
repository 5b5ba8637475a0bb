//! What holds of every stream, whether a scenario asks for it or not: its framing, its one end, and the order of its chunks. Pure.
//!
//! Each breach is a sentence. Whether an event was written in one piece is not judged: a reader of TCP cannot know.

use std::collections::HashMap;

use serde_json::Value;

use crate::call::frames::DONE;

/// The breaches of a whole event stream, by its bytes.
#[must_use]
pub fn breaches(body: &[u8]) -> Vec<String> {
    let mut breaches = framing(body);
    let text = String::from_utf8_lossy(body);
    // A carriage return is told above; it must not hide the rest.
    let text = text.replace("\r\n", "\n");
    let data: Vec<String> = text.split("\n\n").filter_map(data).collect();
    breaches.extend(endings(&data));
    let chunks: Vec<Value> = data.iter().filter_map(|data| serde_json::from_str(data).ok()).collect();
    if chunks.iter().any(|chunk: &Value| chunk["object"] == "chat.completion.chunk") {
        breaches.extend(chat(&chunks, data.iter().any(|data| data == DONE)));
    }
    if chunks.iter().any(|event: &Value| event["response"]["object"] == "response") {
        breaches.extend(responses(&text, &chunks, data.last().is_some_and(|data| data == DONE)));
    }
    breaches
}

fn framing(body: &[u8]) -> Vec<String> {
    let mut breaches = Vec::new();
    if body.contains(&b'\r') {
        breaches.push("lines end with LF alone, but there is a carriage return".to_owned());
    }
    if std::str::from_utf8(body).is_err() {
        breaches.push("the stream is UTF-8, but there are bytes that are not".to_owned());
    }
    if !body.is_empty() && !body.ends_with(b"\n\n") {
        breaches.push("the last event is complete, but its blank line is missing".to_owned());
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

fn endings(data: &[String]) -> Vec<String> {
    let mut breaches = Vec::new();
    for text in data.iter().filter(|text| *text != DONE) {
        if serde_json::from_str::<Value>(text).is_err() {
            breaches.push(format!("each event holds one JSON document, but this one does not: {}", shorten(text)));
        }
    }
    let dones = data.iter().filter(|text| *text == DONE).count();
    if dones > 1 {
        breaches.push(format!("[DONE] comes once, but it came {dones} times"));
    }
    if let Some(at) = data.iter().position(|text| text == DONE)
        && let Some(after) = data[at + 1..].iter().find(|text| *text != DONE)
    {
        breaches.push(format!("nothing follows [DONE], but this did: {}", shorten(after)));
    }
    breaches
}

/// The order of chat chunks: one role, one finish for each choice, one usage at the end, one ending of two kinds.
fn chat(chunks: &[Value], done: bool) -> Vec<String> {
    let mut breaches = Vec::new();
    let is_error = |chunk: &&Value| chunk.get("error").is_some();
    let errors = chunks.iter().filter(is_error).count();
    match (done, errors) {
        (true, 0) | (false, 1) => {}
        (true, _) => {
            breaches.push("a stream that failed has no [DONE], but this one has an error and [DONE]".to_owned());
        }
        (false, 0) => breaches.push("a stream ends with [DONE] or an error, but this one just stops".to_owned()),
        (false, many) => breaches.push(format!("a stream fails once, but this one has {many} errors")),
    }
    if errors > 0 && chunks.last().is_some_and(|chunk| chunk.get("error").is_none()) {
        breaches.push("nothing follows an error, but a chunk did".to_owned());
    }
    let chunks: Vec<_> = chunks.iter().filter(|chunk| !is_error(chunk)).collect();
    for name in ["id", "created", "model"] {
        if let Some(other) = chunks.iter().find(|chunk| chunk[name] != chunks[0][name]) {
            let (first, other) = (&chunks[0][name], &other[name]);
            breaches.push(format!("`{name}` is the same in all chunks, but there are {first} and {other}"));
        }
    }
    if let Some(at) = chunks.iter().position(|chunk| chunk["choices"].as_array().is_some_and(Vec::is_empty))
        && at + 1 != chunks.len()
    {
        breaches.push("the usage chunk (without choices) is the last, but chunks follow it".to_owned());
    }
    let mut choices: HashMap<String, Choice> = HashMap::new();
    for choice in chunks.iter().flat_map(|chunk| chunk["choices"].as_array().into_iter().flatten()) {
        choices.entry(choice["index"].to_string()).or_default().add(choice, &mut breaches);
    }
    for (index, choice) in choices {
        if done && !choice.finished {
            breaches.push(format!("a finish_reason comes before [DONE], but choice {index} has none"));
        }
        if !done && choice.finished {
            breaches.push(format!("a stream that failed has no finish_reason, but choice {index} has one"));
        }
    }
    breaches
}

#[derive(Default)]
struct Choice {
    begun: bool,
    finished: bool,
    calls: u64,
}

impl Choice {
    fn add(&mut self, choice: &Value, breaches: &mut Vec<String>) {
        let delta = &choice["delta"];
        if self.finished {
            breaches.push(format!(
                "nothing follows a choice's finish_reason, but this did: {}",
                shorten(&choice.to_string())
            ));
        }
        if delta.get("role").is_some() == self.begun {
            breaches.push(if self.begun {
                "the role comes in a choice's first chunk alone, but it came again".to_owned()
            } else {
                "the role comes in a choice's first chunk, but it is not there".to_owned()
            });
        }
        if let Some(role) = delta.get("role").filter(|role| **role != "assistant") {
            breaches.push(format!("the role is assistant, but it is {role}"));
        }
        self.begun = true;
        for call in delta["tool_calls"].as_array().into_iter().flatten() {
            match call["index"].as_u64() {
                Some(index) if index == self.calls => {
                    self.calls += 1;
                    if call["id"].as_str().is_none_or(str::is_empty) || call["function"]["name"].as_str().is_none() {
                        breaches.push(format!(
                            "the first piece of a tool call has an id and a name, but this has not: {call}"
                        ));
                    }
                }
                Some(index) if index < self.calls => {
                    if call.get("id").is_some() || call["function"].get("name").is_some() {
                        breaches.push(format!(
                            "later pieces of a tool call repeat neither id nor name, but this does: {call}"
                        ));
                    }
                }
                _ => breaches.push(format!("tool calls are numbered from 0 without gaps, but there is {call}")),
            }
        }
        self.finished |= choice["finish_reason"].is_string();
    }
}

/// The order of a response's events: numbered without a gap, named as they are, the end once and with all that was told.
fn responses(text: &str, events: &[Value], done: bool) -> Vec<String> {
    const ENDS: [&str; 3] = ["response.completed", "response.incomplete", "response.failed"];
    let mut breaches = Vec::new();
    let names: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
    let types: Vec<&str> = events.iter().filter_map(|event| event["type"].as_str()).collect();
    if names != types {
        breaches.push("each event's name is its type, but some are not".to_owned());
    }
    let numbers: Vec<u64> = events.iter().filter_map(|event| event["sequence_number"].as_u64()).collect();
    let first = numbers.first().copied().unwrap_or_default();
    if numbers.len() != events.len() || !numbers.iter().copied().eq((first..).take(events.len())) {
        breaches.push(format!("events are numbered without a gap, but these are {numbers:?}"));
    }
    let ends = types.iter().filter(|kind| ENDS.contains(kind)).count();
    if ends != 1 || types.last().is_none_or(|kind| !ENDS.contains(kind)) || !done {
        breaches.push(format!("a response ends once, and then with [DONE], but there are {ends} ends"));
    }
    let told: Vec<&Value> = events
        .iter()
        .filter(|event| event["type"] == "response.output_item.done")
        .map(|event| &event["item"])
        .collect();
    let held: Vec<&Value> =
        events.last().into_iter().flat_map(|end| end["response"]["output"].as_array()).flatten().collect();
    if first == 0 && told != held {
        breaches.push("the end holds each item that was done, in order, but this one does not".to_owned());
    }
    breaches
}

fn shorten(text: &str) -> String {
    crate::report::shorten(text, 120)
}

#[cfg(test)]
mod tests {
    use super::*;

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
        breaches(parts.concat().as_bytes())
    }

    #[test]
    fn a_proper_stream_breaks_no_law() {
        assert_eq!(found(&[": waiting\n\n", &first(), &word(), &finish(), DONE_EVENT]), Vec::<String>::new());
        let usage = chunk(r#""choices":[],"usage":{"total_tokens":1}"#);
        assert_eq!(found(&[&first(), &finish(), &usage, DONE_EVENT]), Vec::<String>::new());
        assert_eq!(found(&[&first(), &word(), ERROR_EVENT]), Vec::<String>::new());
    }

    #[test]
    fn each_way_to_break_a_stream_is_told() {
        let role = first();
        let other = word().replace("\"1\"", "\"2\"");
        let no_name = chunk(r#""choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{}}]}}]"#);
        let gap =
            chunk(r#""choices":[{"index":0,"delta":{"tool_calls":[{"index":1,"id":"a","function":{"name":"f"}}]}}]"#);
        let usage = chunk(r#""choices":[]"#);
        for (parts, law) in [
            (vec![&*first(), &finish(), "data: [DONE]\r\n\r\n"], "carriage return"),
            (vec![&*first(), &finish(), "data: [DONE]\n"], "blank line is missing"),
            (vec![&*first(), &finish()], "just stops"),
            (vec![&*first(), DONE_EVENT], "has none"),
            (vec![&*first(), &finish(), ERROR_EVENT], "failed has no finish_reason"),
            (vec![&*first(), ERROR_EVENT, DONE_EVENT], "has an error and [DONE]"),
            (vec![&*first(), ERROR_EVENT, ERROR_EVENT], "has 2 errors"),
            (vec![&*first(), ERROR_EVENT, &word()], "nothing follows an error"),
            (vec![&*first(), &finish(), DONE_EVENT, DONE_EVENT], "2 times"),
            (vec![&*first(), &finish(), DONE_EVENT, &word()], "nothing follows [DONE]"),
            (vec![&*first(), &finish(), &word(), DONE_EVENT], "nothing follows a choice's finish_reason"),
            (vec![&*first(), &role, &finish(), DONE_EVENT], "it came again"),
            (vec![&*word(), &finish(), DONE_EVENT], "it is not there"),
            (vec![&*role.replace("assistant", "user"), &finish(), DONE_EVENT], "the role is assistant"),
            (vec![&*first(), &other, &finish(), DONE_EVENT], "`id` is the same"),
            (vec![&*first(), &no_name, &finish(), DONE_EVENT], "an id and a name"),
            (vec![&*first(), &gap, &finish(), DONE_EVENT], "without gaps"),
            (vec![&*first(), &usage, &finish(), DONE_EVENT], "chunks follow it"),
            (vec![&*first(), "data: {\n\n", &finish(), DONE_EVENT], "one JSON document"),
        ] {
            let found = found(&parts);
            assert!(found.iter().any(|breach| breach.contains(law)), "{law}: {found:?}");
        }
    }

    #[test]
    fn other_streams_are_judged_by_their_framing_alone() {
        assert_eq!(found(&["event: ping\ndata: {\"type\":\"ping\"}\n\n"]), Vec::<String>::new());
    }
}
