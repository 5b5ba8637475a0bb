//! What crossed the wire, judged: status, headers, frames, bytes and their end.

use std::borrow::Cow;

use serde_json::Value;
use serde_saphyr::Spanned;

use super::{Finding, headers, one, within};
use crate::{
    call::{
        Outcome,
        frames::{DONE, Frames},
        tap::{End, Recording},
    },
    scenario::{Check, Place, Wire, variables::Variables},
};

/// What a finding about `[DONE]` is about.
pub(super) const DONE_FINDING: &str = "wire.done";

pub(super) fn judge(wire: &Wire, outcome: &Outcome, variables: &Variables) -> Result<Vec<Finding>, String> {
    let recording = &outcome.recording;
    let text = || Value::String(String::from_utf8_lossy(&recording.body()).into_owned());
    let mut findings = headers("wire.headers ", &recording.headers, &wire.headers, variables)?;
    for (name, expected, actual) in [
        ("status", &wire.status, recording.status.map(Value::from)),
        ("content_type", &wire.content_type, recording.header("content-type").map(Value::from)),
        ("frames", &wire.frames, outcome.frames.count().map(Value::from)),
        ("text", &wire.text, recording.status.map(|_| text())),
        ("attempts", &wire.attempts, Some(Value::from(outcome.attempts))),
        ("end", &wire.end, Some(Value::from(end(&recording.end)))),
    ] {
        let Some(expected) = expected else { continue };
        findings.extend(one(&format!("wire.{name}"), &check(name, expected), actual.map(Cow::Owned), variables)?);
    }
    if let Some(whole) = &wire.whole {
        findings.extend(pieces(whole, recording));
    }
    if let Some(done) = &wire.done {
        findings.extend(ending(done, &outcome.frames));
    }
    if !wire.body.0.is_empty() {
        let document = outcome.frames.document();
        for check in &wire.body.0 {
            findings.extend(within("wire.body ", &document, check, variables)?);
        }
    }
    Ok(findings)
}

fn check(name: &str, spanned: &Spanned<Value>) -> Check {
    Check { key: name.to_owned(), expected: spanned.value.clone(), at: Place::from(spanned) }
}

/// A word for how an answer ended.
#[must_use]
fn end(end: &End) -> &'static str {
    match end {
        End::Open => "open",
        End::Complete => "complete",
        End::Cut(_) => "cut",
        End::Left => "left",
        End::NoAnswer(_) => "no answer",
    }
}

/// Whether every piece ends where an event or a line does.
fn pieces(whole: &Spanned<bool>, recording: &Recording) -> Option<Finding> {
    let mark: &[u8] = if recording.media_type() == "text/event-stream" { b"\n\n" } else { b"\n" };
    let torn = recording.pieces.iter().find(|piece| !piece.bytes.ends_with(mark));
    let (holds, expected) = if whole.value {
        (torn.is_none() && !recording.pieces.is_empty(), "each event in one piece")
    } else {
        (torn.is_some(), "an event in several pieces")
    };
    let actual = match torn {
        Some(piece) => format!("a piece that ends within one: {}", String::from_utf8_lossy(&piece.bytes)),
        None => format!("{} pieces, none torn", recording.pieces.len()),
    };
    let (at, about, expected) = (Place::from(whole), "wire.whole".to_owned(), expected.to_owned());
    (!holds).then(|| Finding::new(at, about, expected, crate::text::shorten(&actual, 200)))
}

/// Whether `[DONE]` stands once, and last, or nowhere.
fn ending(done: &Spanned<bool>, frames: &Frames) -> Option<Finding> {
    let events = if let Frames::Events(events) = frames { &events[..] } else { &[] };
    let times = events.iter().filter(|event| event.data == DONE).count();
    let last = events.last().is_some_and(|event| event.data == DONE);
    let (holds, expected) = if done.value {
        (times == 1 && last, "data: [DONE] exactly once, at the end")
    } else {
        (times == 0, "no data: [DONE]")
    };
    let actual = match (frames, times) {
        (Frames::Events(_), 0) => "none".to_owned(),
        (Frames::Events(_), times) => format!("{times}, {}", if last { "the last event" } else { "not at the end" }),
        _ => "no event stream".to_owned(),
    };
    (!holds).then(|| Finding::new(Place::from(done), DONE_FINDING, expected, actual))
}
