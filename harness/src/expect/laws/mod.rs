//! What holds of every stream, whether a scenario asks for it or not: its framing, its one end, and the order of its chunks. Pure.
//!
//! Each breach is a sentence.

mod chunks;
mod responses;

use serde_json::Value;

use crate::call::{frames::DONE, tap::Recording};

/// Below this, whoever reads has room for all that is there, so that an event comes in the pieces that it was written in.
const ROOM: usize = 4096;

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
    if chunks.iter().any(|chunk| chunk["object"] == "chat.completion.chunk" || chunk["object"] == "text_completion") {
        breaches.extend(chunks::breaches(&chunks, data.iter().any(|data| data == DONE)));
    }
    if chunks.iter().any(|event| event["response"]["object"] == "response") {
        breaches.extend(responses::breaches(&text, &chunks));
    }
    breaches
}

/// Whether an event came in several pieces. A network may split what is written, so it is asked only where there is none.
#[must_use]
pub fn torn(recording: &Recording) -> Option<String> {
    let size: usize = recording.pieces.iter().map(|piece| piece.bytes.len()).sum();
    if recording.media_type() != "text/event-stream" || size > ROOM {
        return None;
    }
    let torn = recording.pieces.iter().find(|piece| !piece.bytes.ends_with(b"\n\n"))?;
    let text = String::from_utf8_lossy(&torn.bytes);
    Some(format!("each event comes in one piece, but a piece ends within one: {}", shorten(&text)))
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
    fn an_event_in_two_pieces_is_torn() {
        let came = |pieces: &[&'static str], media_type: &str| {
            let piece = |text: &&'static str| Piece { after: Duration::ZERO, bytes: text.as_bytes().into() };
            let headers = vec![("content-type".to_owned(), media_type.to_owned())];
            torn(&Recording { pieces: pieces.iter().map(piece).collect(), headers, ..Recording::default() })
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
