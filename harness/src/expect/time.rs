//! When things came, judged.

use std::{
    borrow::Cow,
    time::{Duration, Instant},
};

use mock_ollama::Journal;
use serde::de::IgnoredAny;
use serde_json::Value;
use serde_saphyr::Spanned;

use super::{Finding, one};
use crate::{
    call::{Outcome, tap::Recording},
    scenario::{Check, Place, Time, variables::Variables},
};

/// How long the upstream may take to end after the client has its answer.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) fn judge(time: &Time, outcome: &Outcome, variables: &Variables) -> Result<Vec<Finding>, String> {
    let recording = &outcome.recording;
    let mut findings = Vec::new();
    for (name, expected) in time.matchers() {
        let actual = match name {
            "head" => recording.status.map(|_| recording.head_after),
            "first" => recording.pieces.first().map(|piece| piece.after),
            "first_token" => first_token(recording),
            "gap_p50" => gap(recording, 50),
            "gap_p95" => gap(recording, 95),
            _ => Some(recording.took),
        };
        let check = Check { key: name.to_owned(), expected: expected.value.clone(), at: Place::from(expected) };
        let actual = actual.map(|time| Cow::Owned(Value::from(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))));
        findings.extend(one(&format!("time.{name}"), &check, actual, variables)?);
    }
    Ok(findings)
}

/// Fields whose text the model has generated, in OpenAI's, Ollama's and Anthropic's answers.
const GENERATED: [&str; 10] = [
    "content",
    "reasoning",
    "reasoning_content",
    "thinking",
    "refusal",
    "text",
    "response",
    "delta",
    "arguments",
    "partial_json",
];
/// Fields that lead to those. What a request is echoed in (`instructions`, `tools`, `metadata`) is not among them.
const CONTAINERS: [&str; 11] = [
    "choices",
    "message",
    "delta",
    "output",
    "content",
    "summary",
    "item",
    "part",
    "content_block",
    "response",
    "function_call",
];

/// When the first event, line or document was complete that holds something that the model generated.
fn first_token(recording: &Recording) -> Option<Duration> {
    let mut documents = Documents::of(recording.media_type());
    let holds_token = |text: String| serde_json::from_str(&text).is_ok_and(|document| is_generated(&document));
    for piece in &recording.pieces {
        if documents.read(&piece.bytes).into_iter().any(holds_token) {
            return Some(piece.after);
        }
    }
    // The last one may lack its line break.
    let last = recording.pieces.last()?;
    documents.rest().into_iter().any(holds_token).then_some(last.after)
}

/// Whether an answer, or an event of one, holds text or a tool call of the model.
fn is_generated(document: &Value) -> bool {
    match document {
        Value::Array(items) => items.iter().any(is_generated),
        Value::Object(fields) => fields.iter().any(|(name, value)| match value {
            Value::String(text) => !text.is_empty() && GENERATED.contains(&&**name),
            Value::Array(calls) if name == "tool_calls" => !calls.is_empty(),
            value => CONTAINERS.contains(&&**name) && is_generated(value),
        }),
        _ => false,
    }
}

/// Cuts a body into the texts of its JSON documents as it arrives: the data of events, lines, or the whole.
#[derive(Default)]
struct Documents {
    is_events: bool,
    /// The line that has not ended yet.
    line: Vec<u8>,
    /// The data of an event that has not ended yet, or the lines of a document that takes several.
    data: String,
    after_cr: bool,
}

impl Documents {
    fn of(media_type: &str) -> Self {
        Self { is_events: media_type == "text/event-stream", ..Self::default() }
    }

    /// The documents that end within these bytes.
    fn read(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut ended = Vec::new();
        for byte in bytes {
            // A line ends with LF, CRLF or CR.
            let is_second = *byte == b'\n' && self.after_cr;
            self.after_cr = *byte == b'\r';
            match byte {
                _ if is_second => {}
                b'\n' | b'\r' => ended.extend(self.end_line()),
                byte => self.line.push(*byte),
            }
        }
        ended
    }

    fn end_line(&mut self) -> Option<String> {
        let line = String::from_utf8_lossy(&std::mem::take(&mut self.line)).into_owned();
        // Some servers send events without their media type.
        let is_field = || ["data:", "event:", "id:", "retry:", ":"].iter().any(|field| line.starts_with(field));
        self.is_events |= self.data.is_empty() && is_field();
        if self.is_events {
            if line.is_empty() {
                return Some(std::mem::take(&mut self.data));
            }
            if let Some(data) = line.strip_prefix("data:") {
                self.data.push_str(data);
                self.data.push('\n');
            }
            return None;
        }
        if self.data.is_empty() && serde_json::from_str::<IgnoredAny>(&line).is_ok() {
            return Some(line);
        }
        self.data.push_str(&line);
        self.data.push('\n');
        None
    }

    /// What the body ended in the middle of.
    fn rest(mut self) -> Vec<String> {
        let line = self.end_line();
        line.into_iter().chain([self.data]).collect()
    }
}

/// The gap between pieces that so many of a hundred are not longer than.
fn gap(recording: &Recording, percent: usize) -> Option<Duration> {
    let mut gaps: Vec<_> =
        recording.pieces.windows(2).map(|pair| pair[1].after.saturating_sub(pair[0].after)).collect();
    gaps.sort();
    let at = (gaps.len() * percent).div_ceil(100);
    gaps.get(at.saturating_sub(1)).copied()
}

/// Whether the first piece came before the upstream wrote its last one, of the requests since the journal had `before`
/// entries. When the upstream ended says less: it may do so a little after the client that waited for its last piece.
pub async fn live(live: &Spanned<bool>, outcome: &Outcome, journal: &Journal, before: usize) -> Option<Finding> {
    let recording = &outcome.recording;
    let first = recording.began.zip(recording.pieces.first()).map(|(began, piece)| began + piece.after);
    let mut last: Option<Instant> = None;
    for nth in before..journal.entries().len() {
        last = last.max(journal.ended(nth, PATIENCE).await.and_then(|entry| entry.wrote));
    }
    let actual = match (first, last) {
        (None, _) => Err("nothing came".to_owned()),
        (_, None) => Err("nothing came from upstream".to_owned()),
        (Some(first), Some(last)) if first < last => Ok(last - first),
        (Some(first), Some(last)) => Err(format!("it came {} ms after", (first - last).as_millis())),
    };
    let finding = |expected: &str, actual: String| Finding {
        at: Place::from(live),
        about: "time.live".to_owned(),
        expected: expected.to_owned(),
        actual,
        law: None,
    };
    match (live.value, actual) {
        (true, Ok(_)) | (false, Err(_)) => None,
        (true, Err(actual)) => Some(finding("the first piece before the last one of the upstream", actual)),
        (false, Ok(earlier)) => Some(finding(
            "nothing before the last piece of the upstream",
            format!("the first piece came {} ms before", earlier.as_millis()),
        )),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::call::tap::Piece;

    fn recording(pieces: &[(u64, &'static str)]) -> Recording {
        of("text/event-stream; charset=utf-8", pieces)
    }

    fn of(media_type: &str, pieces: &[(u64, &'static str)]) -> Recording {
        let piece = |(after, text): &(u64, &'static str)| Piece {
            after: Duration::from_millis(*after),
            bytes: Bytes::from_static(text.as_bytes()),
        };
        let headers = vec![("content-type".to_owned(), media_type.to_owned())];
        Recording { headers, pieces: pieces.iter().map(piece).collect(), ..Recording::default() }
    }

    #[test]
    fn gaps_are_recognized_by_their_place_in_the_order() {
        let pieces = recording(&[(0, ""), (10, ""), (30, ""), (31, "")]);
        assert_eq!(gap(&pieces, 50), Some(Duration::from_millis(10)));
        assert_eq!(gap(&pieces, 95), Some(Duration::from_millis(20)));
        assert_eq!(gap(&recording(&[(5, "")]), 50), None);
    }

    #[test]
    fn an_empty_piece_is_no_token() {
        let pieces = recording(&[
            (1, ": x\n\n"),
            (2, "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n"),
            (3, "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n"),
        ]);
        assert_eq!(first_token(&pieces), Some(Duration::from_millis(3)));
    }

    #[test]
    fn a_token_is_found_however_its_json_is_written_and_cut() {
        let at = |recording: &Recording| first_token(recording).map(|after| after.as_millis());
        // Python's json.dumps writes spaces.
        let spaced = [
            (1, "data: {\"choices\": [{\"delta\": {\"role\": \"assistant\", \"content\": \"\"}}]}\n\n"),
            (2, "data: {\"choices\": [{\"delta\": {\"content\": \"Hello\"}}]}\n\n"),
        ];
        assert_eq!(at(&recording(&spaced)), Some(2));
        let cut = [(1, "data: {\"choices\":[{\"delta\":{\"con"), (2, "tent\" :\"a\"}}]}\r"), (3, "\n\r\n")];
        assert_eq!(at(&recording(&cut)), Some(3));
        let two_lines = [(1, "data: {\"choices\":\ndata: [{\"text\":\"a\"}]}\n"), (2, "\n")];
        assert_eq!(at(&recording(&two_lines)), Some(2));
        assert_eq!(at(&recording(&[(1, "data:{\"delta\":\"a\"}")])), Some(1), "without an end");
        for (kind, pieces, token) in [
            (
                "application/x-ndjson",
                &[(1, "{\"message\": {\"content\": \"\"}}\n{\"mess"), (2, "age\": {\"thinking\": \"a\"}}\n")][..],
                Some(2),
            ),
            ("application/x-ndjson", &[(1, "{\"response\" : \"a\"}")], Some(1)),
            (
                "application/json",
                &[(1, "{\n  \"choices\": [\n    {\"message\": {\"content\":"), (2, " \"a\"}}]\n}\n")],
                Some(2),
            ),
            (
                "application/json",
                &[(1, "{\"choices\": [{\"message\": {\"content\": null, \"tool_calls\": [ {\"id\": \"1\"}]}}]}")],
                Some(1),
            ),
            ("text/plain", &[(1, "event: x\ndata: {\"delta\": {\"text\": \"a\"}}\n\n")], Some(1)),
            ("application/json", &[(1, "{\"response\": \"\"}\n"), (2, "{\"response\": \"a\"}\n")], Some(2)),
            ("application/json", &[(1, "{\"error\": {\"message\": \"no\"}}")], None),
            // What the request says, echoed.
            (
                "text/event-stream",
                &[(
                    1,
                    "data: {\"type\": \"response.created\", \"response\": {\"instructions\": \"x\", \"output\": [], \"text\": {\"format\": {\"type\": \"text\"}}}}\n\n",
                )],
                None,
            ),
            (
                "text/event-stream",
                &[(1, "data: {\"type\": \"response.output_text.delta\", \"delta\": \"a\"}\n\n")],
                Some(1),
            ),
            (
                "text/event-stream",
                &[(
                    1,
                    "data: {\"type\": \"content_block_delta\", \"delta\": {\"type\": \"text_delta\", \"text\": \"a\"}}\n\n",
                )],
                Some(1),
            ),
        ] {
            assert_eq!(at(&of(kind, pieces)), token, "{kind} {pieces:?}");
        }
    }
}
