//! When things came, judged.

use std::{
    borrow::Cow,
    time::{Duration, Instant},
};

use mock_ollama::Journal;
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

/// When the first piece came that holds something of the model.
fn first_token(recording: &Recording) -> Option<Duration> {
    let says = |piece: &str| {
        ["\"content\":\"", "\"reasoning\":\"", "\"thinking\":\"", "\"text\":\"", "\"response\":\"", "\"delta\":\""]
            .iter()
            .any(|field| piece.split(field).skip(1).any(|rest| !rest.starts_with('"')))
            || piece.contains("\"tool_calls\":[{")
    };
    let found = recording.pieces.iter().find(|piece| says(&String::from_utf8_lossy(&piece.bytes)));
    found.map(|piece| piece.after)
}

/// The gap between pieces that so many of a hundred are not longer than.
fn gap(recording: &Recording, percent: usize) -> Option<Duration> {
    let mut gaps: Vec<_> =
        recording.pieces.windows(2).map(|pair| pair[1].after.saturating_sub(pair[0].after)).collect();
    gaps.sort();
    let at = (gaps.len() * percent).div_ceil(100);
    gaps.get(at.saturating_sub(1)).copied()
}

/// Whether the first piece came before the upstream wrote its last one, of the requests since the journal had `before` entries.
/// When the upstream ended says less: it may do so a little after whoever waited for its last piece.
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
        let piece = |(after, text): &(u64, &'static str)| Piece {
            after: Duration::from_millis(*after),
            bytes: Bytes::from_static(text.as_bytes()),
        };
        Recording { pieces: pieces.iter().map(piece).collect(), ..Recording::default() }
    }

    #[test]
    fn gaps_are_told_by_their_place_in_the_order() {
        let pieces = recording(&[(0, ""), (10, ""), (30, ""), (31, "")]);
        assert_eq!(gap(&pieces, 50), Some(Duration::from_millis(10)));
        assert_eq!(gap(&pieces, 95), Some(Duration::from_millis(20)));
        assert_eq!(gap(&recording(&[(5, "")]), 50), None);
    }

    #[test]
    fn an_empty_piece_is_no_token() {
        let pieces = recording(&[(1, ": x"), (2, r#"{"content":""}"#), (3, r#"{"content":"a"}"#)]);
        assert_eq!(first_token(&pieces), Some(Duration::from_millis(3)));
    }
}
