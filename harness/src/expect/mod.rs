//! From what is expected and what came to findings: path → matcher → check.
//!
//! It makes no calls and prints nothing.

mod events;
pub mod laws;
pub mod matcher;
pub mod path;
pub mod schema;
mod sent;
mod time;
mod whole;
mod wire;

use std::borrow::Cow;

use serde_json::Value;

use crate::{
    call::{Outcome, tap::End},
    finding::Finding,
    scenario::{Answers, Call, Check, Checks, Events, Part, Place, Step, Wire, variables::Variables},
    text::shorten,
};
use matcher::Matcher;

pub use sent::seen;
pub use time::live;
pub use whole::tally;

/// Judges an outcome by everything that can be judged without the upstream's journal; `answers` are what is expected by status.
///
/// # Errors
/// An expectation cannot be read (`check` would have told): the sentence that says so.
pub fn judge(
    part: &Part,
    answers: Option<&Answers>,
    outcome: &Outcome,
    variables: &Variables,
) -> Result<Vec<Finding>, String> {
    let mut findings = Vec::new();
    let place = Place::from(&part.call);
    if outcome.timed_out {
        let took = humantime::format_duration(outcome.recording.took);
        findings.push(Finding {
            at: place,
            about: "time".to_owned(),
            expected: format!("an end within {took}"),
            actual: match outcome.recording.status {
                None => "no answer".to_owned(),
                Some(status) => format!("{status}, and then no end"),
            },
        });
        // All else that is missing is missing because of this.
        return Ok(findings);
    }
    let answered = answers.zip(outcome.recording.status).and_then(|(answers, status)| answers.of(status));
    if answered.is_none() {
        unexpected_failure(part, outcome, place, &mut findings);
    }
    let mut each = |expect: &Checks, events: &Events, wire: &Wire| -> Result<(), String> {
        if findings.is_empty() {
            for check in &expect.0 {
                findings.extend(within("", &outcome.understood, check, variables)?);
            }
            findings.extend(events::judge(events, outcome, variables)?);
        }
        findings.extend(wire::judge(wire, outcome, variables)?);
        Ok(())
    };
    each(&part.expect, &part.events, &part.wire)?;
    if let Some(answered) = answered {
        each(&answered.expect, &answered.events, &answered.wire)?;
    }
    findings.extend(time::judge(&part.time, outcome, variables)?);
    if outcome.recording.end == End::Complete && matches!(outcome.frames, crate::call::frames::Frames::Events(_)) {
        let breaches = laws::breaches(&outcome.recording.body());
        findings.extend(breaches.iter().map(|breach| broken_law(place, breach)));
    }
    Ok(findings)
}

/// An event that came in several pieces, from an upstream and a proxy that are on this machine.
#[must_use]
pub fn torn(part: &Part, outcome: &Outcome) -> Option<Finding> {
    let complete = outcome.recording.end == End::Complete;
    complete.then(|| laws::torn(&outcome.recording))?.map(|breach| broken_law(Place::from(&part.call), &breach))
}

fn broken_law(at: Place, breach: &str) -> Finding {
    let (law, actual) = breach.split_once(", but ").unwrap_or((breach, "not so"));
    Finding { at, about: "stream".to_owned(), expected: law.to_owned(), actual: actual.to_owned() }
}

/// Judges what depends on the model's wisdom.
///
/// # Errors
/// As [`judge`].
pub fn wisdom(part: &Part, outcome: &Outcome, variables: &Variables) -> Result<Vec<Finding>, String> {
    let mut findings = Vec::new();
    for check in &part.model.0 {
        findings.extend(within("model ", &outcome.understood, check, variables)?);
    }
    Ok(findings)
}

/// A failure that no expectation asks for is a finding: a scenario about words must not pass on an error.
fn unexpected_failure(part: &Part, outcome: &Outcome, at: Place, findings: &mut Vec<Finding>) {
    let mut tell = |about: &str, expected: &str, actual: String| {
        let (about, expected) = (about.to_owned(), expected.to_owned());
        findings.push(Finding { at, about, expected, actual });
    };
    let recording = &outcome.recording;
    let asked = part.expect.0.iter().chain(part.events.iter().flat_map(|entry| entry.value.checks()));
    let asked = asked.into_iter().any(|check| check.key.starts_with("$.error") || check.key.starts_with("$['error"));
    let raw = matches!(part.call.value, Call::Http(_));
    // Who expects a status is not surprised by an error with that status; a failing stream has status 200.
    let excused = asked || (part.wire.status.is_some() && recording.status.is_some_and(|status| status >= 400));
    if let Some(error) = outcome.understood.get("error").filter(|_| !raw || recording.status.is_none())
        && !excused
    {
        let message = error["message"].as_str().map_or_else(|| error.to_string(), str::to_owned);
        let status = recording.status.map_or(String::new(), |status| format!("{status}: "));
        tell("call", "an answer", format!("an error: {status}{message}"));
    } else if part.wire.status.is_none()
        && !excused
        && let Some(status) = recording.status
        && !(200..300).contains(&status)
    {
        tell("wire.status", "2xx", status.to_string());
    }
    if part.wire.end.is_none() {
        match &recording.end {
            End::Cut(words) => tell("wire.end", "complete", format!("cut: {words}")),
            End::NoAnswer(words) if asked => tell("call", "an answer", words.clone()),
            _ => {}
        }
    }
}

/// Judges the part of a document that a check's key selects.
fn within(prefix: &str, document: &Value, check: &Check, variables: &Variables) -> Result<Option<Finding>, String> {
    path::check(&check.key)?;
    one(&format!("{prefix}{}", check.key), check, path::select(document, &check.key), variables)
}

/// Judges one value.
fn one(
    about: &str,
    check: &Check,
    actual: Option<Cow<'_, Value>>,
    variables: &Variables,
) -> Result<Option<Finding>, String> {
    let matcher = Matcher::parse(&variables.value(&check.expected)?, variables)?;
    let found = actual.as_deref().is_some_and(|value| !path::found_none(&check.key, value));
    let Err(expected) = matcher.judge_found(actual.as_deref(), found) else { return Ok(None) };
    let actual = actual.map_or_else(|| "nothing".to_owned(), |value| shorten(&value.to_string(), 400));
    Ok(Some(Finding { at: check.at, about: about.to_owned(), expected, actual }))
}

/// Judges headers.
fn headers(
    prefix: &str,
    known: &[(String, String)],
    checks: &Checks,
    variables: &Variables,
) -> Result<Vec<Finding>, String> {
    let mut findings = Vec::new();
    for check in &checks.0 {
        let values: Vec<_> =
            known.iter().filter(|(name, _)| name.eq_ignore_ascii_case(&check.key)).map(|(_, value)| &**value).collect();
        let actual = (!values.is_empty()).then(|| Cow::Owned(Value::String(values.join(", "))));
        findings.extend(one(&format!("{prefix}{}", check.key), check, actual, variables)?);
    }
    Ok(findings)
}

/// Takes from an answer what later steps use.
///
/// # Errors
/// There is nothing to take.
pub fn capture(step: &Step, outcome: &Outcome, variables: &mut Variables) -> Result<(), Finding> {
    for check in &step.capture.0 {
        let path = check.expected.as_str().unwrap_or_default();
        let Some(value) = path::select(&outcome.understood, path) else {
            return Err(Finding {
                at: check.at,
                about: format!("capture.{}", check.key),
                expected: format!("something at {path}"),
                actual: "nothing".to_owned(),
            });
        };
        variables.set(&check.key, value.into_owned());
    }
    Ok(())
}
