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
};
use laws::{Breach, Laws};
use matcher::{Difference, Matcher};

pub use sent::seen;
pub use time::live;
pub use whole::tally;

/// What a finding is about that is an error instead of an answer.
const CALL: &str = "call";

/// Judges an outcome by everything that can be judged without the upstream's journal; `answers` are what is expected by
/// status.
///
/// # Errors
/// An expectation cannot be read (`check` would have reported it): the sentence that says so.
pub fn judge(
    part: &Part,
    answers: Option<&Answers>,
    outcome: &Outcome,
    variables: &Variables,
    laws: &Laws,
) -> Result<Vec<Finding>, String> {
    let mut findings = Vec::new();
    let place = Place::from(&part.call);
    let variables = &this_answer(outcome, variables);
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
            law: None,
        });
        // All else that is missing is missing because of this.
        return Ok(findings);
    }
    let answered = answers.zip(outcome.recording.status).and_then(|(answers, status)| answers.of(status));
    if answered.is_none() {
        unexpected_failure(part, outcome, place, &mut findings);
        if findings.iter().any(|finding| finding.about == CALL) {
            // All else fails because of this.
            return Ok(findings);
        }
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
        // That [DONE] is missing may have been found already, because the scenario asks for it.
        let found = findings.iter().any(|finding| finding.about == wire::DONE_FINDING);
        let breaches = laws::breaches(&outcome.recording.body(), laws).into_iter();
        let breaches = breaches.filter(|breach| !found || !["ending", "done-once", "done-last"].contains(&breach.law));
        findings.extend(breaches.map(|breach| broken_law(place, breach)));
    }
    Ok(findings)
}

/// What is known of an answer while it is judged.
fn this_answer(outcome: &Outcome, variables: &Variables) -> Variables {
    let mut variables = variables.clone();
    variables.set_this_answer(outcome.understood.clone());
    variables
}

/// An event that came in several pieces, from an upstream and a proxy that are on this machine.
#[must_use]
pub fn torn(part: &Part, outcome: &Outcome, laws: &Laws) -> Option<Finding> {
    let complete = outcome.recording.end == End::Complete;
    let breach = complete.then(|| laws::torn(&outcome.recording))?.filter(|breach| laws.has(breach.law))?;
    Some(broken_law(Place::from(&part.call), breach))
}

fn broken_law(at: Place, breach: Breach) -> Finding {
    let what = laws::named(breach.law).map_or("", |law| law.what);
    let finding = Finding::new(at, format!("law {}", breach.law), what, breach.actual);
    Finding { law: Some(breach.law), ..finding }
}

/// Judges what depends on how good the model is.
///
/// # Errors
/// As [`judge`].
pub fn model_findings(part: &Part, outcome: &Outcome, variables: &Variables) -> Result<Vec<Finding>, String> {
    let variables = &this_answer(outcome, variables);
    let mut findings = Vec::new();
    for check in &part.model.0 {
        findings.extend(within("model ", &outcome.understood, check, variables)?);
    }
    Ok(findings)
}

/// A failure that no expectation asks for is a finding: a scenario about words must not pass on an error.
fn unexpected_failure(part: &Part, outcome: &Outcome, at: Place, findings: &mut Vec<Finding>) {
    let mut report = |about: &str, expected: &str, actual: String| {
        let (about, expected) = (about.to_owned(), expected.to_owned());
        findings.push(Finding::new(at, about, expected, actual));
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
        report(CALL, "an answer", format!("an error: {status}{message}"));
    } else if part.wire.status.is_none()
        && !excused
        && let Some(status) = recording.status
        && !(200..300).contains(&status)
    {
        report("wire.status", "2xx", status.to_string());
    }
    if part.wire.end.is_none() {
        match &recording.end {
            End::Cut(words) => report("wire.end", "complete", format!("cut: {words}")),
            End::NoAnswer(words) if asked => report(CALL, "an answer", words.clone()),
            _ => {}
        }
    }
}

/// Judges the part of a document that a check's key selects.
fn within(prefix: &str, document: &Value, check: &Check, variables: &Variables) -> Result<Option<Finding>, String> {
    path::check(&check.key)?;
    let selected = path::select(document, &check.key);
    let there = selected.is_some();
    let finding = one(&format!("{prefix}{}", check.key), check, selected, variables)?;
    Ok(finding.map(|finding| match there {
        true => finding,
        false => Finding { actual: path::missing(document, &check.key), ..finding },
    }))
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
    let Some(actual) = actual else { return Ok(Some(Finding::new(check.at, about, expected, "nothing"))) };
    let mut finding = match matcher.narrow(&actual) {
        Some(Difference { at, expected, actual }) => Finding::new(check.at, format!("{about}{at}"), expected, actual),
        None => Finding::new(check.at, about, expected, matcher::brief(&actual)),
    };
    if let Some(hint) = matcher.kind_hint(&actual) {
        finding.actual = format!("{} ({hint})", finding.actual);
    }
    Ok(Some(finding))
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
                law: None,
            });
        };
        variables.set(&check.key, value.into_owned());
    }
    Ok(())
}
