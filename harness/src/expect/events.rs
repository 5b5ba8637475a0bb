//! Single events of a stream, judged: which there are, what each holds, and their order.

use std::borrow::Cow;

use serde_json::{Value, json};
use serde_saphyr::Spanned;

use super::{Finding, matcher::Matcher, one, within};
use crate::{
    call::{Outcome, frames::Frames},
    scenario::{
        Check, Place,
        events::{At, Entry, Events, Next, Pick, Wanted},
        variables::Variables,
    },
    text::shorten,
};

/// An event, or a line.
struct Event {
    /// The name on its `event:` line; a line has none.
    name: Option<String>,
    document: Value,
}

/// Judges the events of an answer; `[DONE]` is none.
///
/// # Errors
/// An expectation cannot be read: the sentence that says so.
pub(super) fn judge(entries: &Events, outcome: &Outcome, variables: &Variables) -> Result<Vec<Finding>, String> {
    let Some(first) = entries.first() else { return Ok(Vec::new()) };
    if let Frames::Whole(body) = &outcome.frames {
        return Ok(vec![Finding {
            at: Place::from(first),
            about: "events".to_owned(),
            expected: "a stream of events or lines".to_owned(),
            actual: format!("a whole body ({}): {}", outcome.recording.media_type(), shorten(body, 200)),
            law: None,
        }]);
    }
    let events: Vec<_> = outcome.frames.events().map(|(name, document)| Event { name, document }).collect();
    let mut findings = Vec::new();
    for (nth, entry) in entries.iter().enumerate() {
        let about = format!("events[{nth}]");
        match &entry.value {
            Entry::Some(wanted) => {
                findings.extend(judged(wanted, Place::from(entry), &about, &events, variables)?);
            }
            Entry::InOrder(order) => findings.extend(in_order(&about, &order.value, &events, variables)?),
        }
    }
    Ok(findings)
}

/// Judges those that are picked; the entry stands at `place`.
fn judged(
    wanted: &Wanted,
    place: Place,
    about: &str,
    events: &[Event],
    variables: &Variables,
) -> Result<Vec<Finding>, String> {
    if let Some(finding) = lost(&wanted.pick, place, about, variables)? {
        return Ok(vec![finding]);
    }
    let picked = picked(&wanted.pick, events, variables)?;
    let count = Check {
        key: "count".to_owned(),
        expected: wanted.count.as_ref().map_or_else(|| json!({"gte": 1}), |count| count.value.clone()),
        at: wanted.count.as_ref().map_or(place, Place::from),
    };
    let actual = Some(Cow::Owned(Value::from(picked.len())));
    if let Some(mut finding) = one(&format!("{about}.count"), &count, actual, variables)? {
        finding.actual = format!("{} of these: {}", finding.actual, listed(events));
        // What is expected of events that are too few or too many says nothing more.
        return Ok(vec![finding]);
    }
    let chosen = match wanted.at {
        None => &picked[..],
        Some(at) => match at.of(picked.len()) {
            Some(nth) => &picked[nth..=nth],
            None => {
                let expected = match at {
                    At::FromFirst(nth) => format!("one with the number {nth}, from 0"),
                    At::FromLast(nth) => format!("one with the number -{}, from the last", nth + 1),
                };
                let (about, actual) = (format!("{about}.at"), format!("{} picked", picked.len()));
                return Ok(vec![Finding::new(place, about, expected, actual)]);
            }
        },
    };
    if chosen.is_empty() && !wanted.expect.0.is_empty() {
        let (about, expected) = (about.to_owned(), "an event that something can be expected of".to_owned());
        return Ok(vec![Finding::new(place, about, expected, "none picked")]);
    }
    let mut findings = Vec::new();
    for nth in chosen {
        for check in &wanted.expect.0 {
            let about = format!("{about} (event {nth}) ");
            findings.extend(within(&about, &events[*nth].document, check, variables)?);
        }
    }
    Ok(findings)
}

/// Whether it picks by a comparison with something that was not there: then that it picks nothing says nothing.
fn lost(pick: &Pick, at: Place, about: &str, variables: &Variables) -> Result<Option<Finding>, String> {
    let words = [&pick.r#type, &pick.event].into_iter().flatten().map(|wanted| &wanted.value);
    for expected in words.chain(pick.r#where.0.iter().map(|check| &check.expected)) {
        let matcher = Matcher::parse(&variables.value(expected)?, variables)?;
        if matcher.is_lost() {
            let (about, expected) = (about.to_owned(), matcher.phrase());
            return Ok(Some(Finding::new(at, about, expected, "nothing to compare with")));
        }
    }
    Ok(None)
}

/// The numbers of the events that are picked.
fn picked(pick: &Pick, events: &[Event], variables: &Variables) -> Result<Vec<usize>, String> {
    let mut numbers = Vec::new();
    for (nth, event) in events.iter().enumerate() {
        if is_picked(pick, event, variables)? {
            numbers.push(nth);
        }
    }
    Ok(numbers)
}

fn is_picked(pick: &Pick, event: &Event, variables: &Variables) -> Result<bool, String> {
    let name = event.name.as_ref().map(|name| Cow::Owned(Value::from(name.as_str())));
    for (wanted, actual) in [(&pick.event, name), (&pick.r#type, event.document.get("type").map(Cow::Borrowed))] {
        let Some(wanted) = wanted else { continue };
        let check = Check { key: String::new(), expected: wanted.value.clone(), at: Place::from(wanted) };
        if one("", &check, actual, variables)?.is_some() {
            return Ok(false);
        }
    }
    for check in &pick.r#where.0 {
        if within("", &event.document, check, variables)?.is_some() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Looks for each behind the one before.
fn in_order(
    about: &str,
    order: &[Spanned<Next>],
    events: &[Event],
    variables: &Variables,
) -> Result<Option<Finding>, String> {
    let mut from = 0;
    for (nth, next) in order.iter().enumerate() {
        let (at, Next(pick)) = (Place::from(next), &next.value);
        let mut found = None;
        for (number, event) in events.iter().enumerate().skip(from) {
            if is_picked(pick, event, variables)? {
                found = Some(number);
                break;
            }
        }
        let Some(found) = found else {
            let after = match from {
                0 => "from the beginning".to_owned(),
                from => format!("after event {}", from - 1),
            };
            let about = format!("{about}.in_order[{nth}]");
            let expected = format!("{} {after}", pick.phrase());
            return Ok(Some(Finding::new(at, about, expected, listed(events))));
        };
        from = found + 1;
    }
    Ok(None)
}

/// The events in few words: the type of each, or what it is.
fn listed(events: &[Event]) -> String {
    let word = |event: &Event| match (event.document.get("type").and_then(Value::as_str), &event.name) {
        (Some(word), _) => word.to_owned(),
        (None, Some(name)) if name != "message" => name.clone(),
        _ => shorten(&event.document.to_string(), 60),
    };
    if events.is_empty() {
        return "no events".to_owned();
    }
    shorten(&events.iter().map(word).collect::<Vec<_>>().join(", "), 400)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{call::tap::Recording, scenario::variables::Answer};

    /// Judges a stream by entries as they stand in a file.
    async fn findings(entries: &str, media_type: &str, body: &str) -> Vec<String> {
        let entries: Events = serde_saphyr::from_str(entries).unwrap();
        let recording = Recording {
            headers: vec![("content-type".to_owned(), media_type.to_owned())],
            pieces: vec![crate::call::tap::Piece { after: std::time::Duration::ZERO, bytes: body.to_owned().into() }],
            ..Recording::default()
        };
        let frames = Frames::of(&recording).await;
        let outcome = Outcome { understood: Value::Null, recording, frames, attempts: 1, timed_out: false };
        let mut known = Variables::default();
        known.answered("undone", Answer::Promised);
        let listed = judge(&entries, &outcome, &known).unwrap();
        listed
            .into_iter()
            .map(|finding| format!("{}: {} | {}", finding.about, finding.expected, finding.actual))
            .collect()
    }

    const STREAM: &str = "event: a\ndata: {\"type\":\"a\",\"n\":0}\n\n: beat\n\nevent: b\ndata: {\"type\":\"b\",\"n\":1}\n\nevent: b\ndata: {\"type\":\"b\",\"n\":2,\"x\":null}\n\ndata: [DONE]\n\n";

    async fn of_stream(entries: &str) -> Vec<String> {
        findings(entries, "text/event-stream", STREAM).await
    }

    #[tokio::test]
    async fn events_are_picked_by_type_name_number_and_what_they_hold() {
        for entries in [
            "[{ type: a, count: 1, expect: { $.n: 0 } }]",
            "[{ event: b, expect: { $.n: { gte: 1 } } }]",
            "[{ at: last, type: b, expect: { $.n: 2, $.x: null } }]",
            "[{ at: 0, expect: { $.type: a } }, { at: -2, expect: { $.n: 1 } }, { count: 3 }]",
            "[{ where: { $.x: { exists: true } }, count: 1 }, { type: c, count: 0 }]",
            "[{ type: { one_of: [a, b] }, count: 3 }]",
            "[{ in_order: [a, b, { where: { $.n: 2 } }] }, { in_order: [{ event: a }, b] }]",
        ] {
            assert_eq!(of_stream(entries).await, Vec::<String>::new(), "{entries}");
        }
    }

    #[tokio::test]
    async fn what_does_not_hold_is_reported_with_its_event() {
        for (entries, listed) in [
            ("[{ type: c }]", "events[0].count: at least 1 | 0 of these: a, b, b"),
            ("[{ type: b, count: 1 }]", "events[0].count: 1 | 2 of these: a, b, b"),
            ("[{ type: a, count: 0 }]", "events[0].count: 0 | 1 of these: a, b, b"),
            ("[{ type: a }, { type: b, expect: { $.n: 1 } }]", "events[1] (event 2) $.n: 1 | 2"),
            ("[{ type: b, at: 2, expect: { $.n: 1 } }]", "events[0].at: one with the number 2, from 0 | 2 picked"),
            ("[{ type: b, at: -3 }]", "events[0].at: one with the number -3, from the last | 2 picked"),
            ("[{ in_order: [b, a] }]", "events[0].in_order[1]: an event with type \"a\" after event 1 | a, b, b"),
            ("[{ in_order: [c] }]", "events[0].in_order[0]: an event with type \"c\" from the beginning | a, b, b"),
            ("[{ in_order: [b, b, b] }]", "events[0].in_order[2]: an event with type \"b\" after event 2 | a, b, b"),
        ] {
            assert_eq!(of_stream(entries).await, [listed], "{entries}");
        }
    }

    #[tokio::test]
    async fn nothing_is_expected_of_no_event() {
        let listed = ["events[0]: an event that something can be expected of | none picked"];
        assert_eq!(of_stream("[{ type: c, count: { lte: 2 }, expect: { $.n: 1 } }]").await, listed);
        assert_eq!(of_stream("[{ type: c, count: { lte: 2 } }]").await, Vec::<String>::new());
        let lost = "[{ where: { $.n: { same_as: { step: undone, path: $.n } } }, count: 0 }]";
        let listed = ["events[0]: the same as $.n of the step `undone`, which was not done | nothing to compare with"];
        assert_eq!(of_stream(lost).await, listed);
    }

    #[tokio::test]
    async fn lines_are_events_without_a_name_and_a_whole_body_has_none() {
        let lines = "{\"done\":false}\n{\"done\":true}\n";
        let entries = "[{ at: last, expect: { $.done: true } }, { count: 2 }]";
        assert_eq!(findings(entries, "application/x-ndjson", lines).await, Vec::<String>::new());
        assert_eq!(findings("[{ event: a }]", "application/x-ndjson", lines).await.len(), 1);
        let whole = findings("[{ type: a, count: 0 }]", "application/json", "{}").await;
        assert_eq!(whole, ["events: a stream of events or lines | a whole body (application/json): {}"]);
        let empty = findings("[{ type: a }]", "text/event-stream", "").await;
        assert_eq!(empty, ["events[0].count: at least 1 | 0 of these: no events"]);
    }
}
