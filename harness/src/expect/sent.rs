//! What reached the upstream, judged by the mock's journal.

use std::{
    borrow::Cow,
    time::{Duration, Instant},
};

use mock_ollama::{Ending, Entry, Journal};
use serde_json::Value;

use super::{Finding, headers, one, within};
use crate::scenario::{Ask, Check, Place, Sent, variables::Variables};

/// How long an exchange may take to end at the mock after it has ended here.
const PATIENCE: Duration = Duration::from_secs(5);

/// Judges the requests that came since the journal had `before` entries; `left` is when the client had its answer, or
/// had left.
///
/// # Errors
/// An expectation cannot be read: the sentence that says so.
pub async fn seen(
    sent: &Sent,
    at: Place,
    journal: &Journal,
    before: usize,
    left: Option<Instant>,
    variables: &Variables,
) -> Result<Vec<Finding>, String> {
    let mut findings = Vec::new();
    let (places, entries): (Vec<usize>, Vec<Entry>) = in_order(journal.entries().into_iter().enumerate().skip(before));
    let asks = sent.asks();
    if let Sent::Each(asks) = sent
        && asks.len() != entries.len()
    {
        let expected = match asks.len() {
            0 => "no request upstream".to_owned(),
            1 => "one request upstream".to_owned(),
            many => format!("{many} requests upstream"),
        };
        findings.push(Finding::new(at, "sent", expected, listed(&entries)));
    }
    for (nth, ask) in asks.iter().enumerate() {
        let about = if asks.len() > 1 { format!("sent[{nth}]") } else { "sent".to_owned() };
        if let Some(count) = &ask.count {
            let actual = Value::from(entries.len());
            findings.extend(one(&format!("{about}.count"), count, Some(Cow::Owned(actual)), variables)?);
        }
        match entries.get(nth) {
            Some(entry) => findings.extend(judge(ask, entry, &about, variables)?),
            None if ask.count.is_some() && only_counts(ask) => {}
            None if matches!(sent, Sent::Each(_)) => {}
            None => findings.push(Finding {
                at,
                about: about.clone(),
                expected: "a request upstream".to_owned(),
                actual: "none".to_owned(),
                law: None,
            }),
        }
        if ask.ended.is_none() && ask.ended_ms.is_none() {
            continue;
        }
        let place = places.get(nth).copied().unwrap_or(before + nth);
        let entry = journal.ended(place, PATIENCE).await;
        let ended = entry.and_then(|entry| entry.ended);
        if let Some(check) = &ask.ended {
            let word = ended.map(|(ending, _)| match ending {
                Ending::Complete => "complete",
                Ending::Aborted => "aborted",
            });
            let actual = word.map(|word| Cow::Owned(Value::from(word)));
            findings.extend(one(&format!("{about}.ended"), check, actual, variables)?);
        }
        if let Some(check) = &ask.ended_ms {
            let later = ended.zip(left).map(|((_, there), here)| there.saturating_duration_since(here).as_millis());
            let actual = later.map(|later| Cow::Owned(Value::from(u64::try_from(later).unwrap_or(u64::MAX))));
            findings.extend(one(&format!("{about}.ended_ms"), check, actual, variables)?);
        }
    }
    Ok(findings)
}

/// The requests with their places in the journal. The proxy asks for both lists of models at once, and they arrive in
/// any order: that of the models counts as the first.
fn in_order(entries: impl Iterator<Item = (usize, Entry)>) -> (Vec<usize>, Vec<Entry>) {
    let mut entries: Vec<_> = entries.collect();
    for at in 1..entries.len() {
        if entries[at - 1].1.target == "/api/ps" && entries[at].1.target == "/api/tags" {
            entries.swap(at - 1, at);
        }
    }
    entries.into_iter().unzip()
}

fn only_counts(ask: &Ask) -> bool {
    let rest = Ask { count: None, ..ask.clone() };
    Sent::First(Box::new(rest)).is_empty()
}

fn listed(entries: &[Entry]) -> String {
    match entries {
        [] => "none".to_owned(),
        entries => {
            let lines: Vec<_> = entries.iter().map(|entry| format!("{} {}", entry.method, entry.target)).collect();
            format!("{}: {}", entries.len(), lines.join(", "))
        }
    }
}

fn judge(ask: &Ask, entry: &Entry, about: &str, variables: &Variables) -> Result<Vec<Finding>, String> {
    let mut findings = headers(&format!("{about}.headers "), &entry.headers, &ask.headers, variables)?;
    let mut judge = |check: &Option<Check>, actual: String| -> Result<(), String> {
        if let Some(check) = check {
            let about = format!("{about}.{}", check.key);
            findings.extend(one(&about, check, Some(Cow::Owned(Value::String(actual))), variables)?);
        }
        Ok(())
    };
    judge(&ask.method, entry.method.clone())?;
    judge(&ask.path, entry.target.clone())?;
    judge(&ask.text, String::from_utf8_lossy(&entry.body).into_owned())?;
    if !ask.body.0.is_empty() {
        // No JSON is nothing at every path.
        let document = entry.json().unwrap_or_default();
        for check in &ask.body.0 {
            findings.extend(within(&format!("{about} "), &document, check, variables)?);
        }
    }
    Ok(findings)
}
