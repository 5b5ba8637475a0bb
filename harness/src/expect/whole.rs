//! Several answers judged as a whole: how many have which status.

use std::{borrow::Cow, collections::BTreeMap};

use serde_json::{Value, json};

use super::{Finding, one};
use crate::{
    call::Outcome,
    scenario::{Answers, Check, Place, variables::Variables},
};

/// How many answers have which status, and what is wrong with that.
///
/// # Errors
/// An expectation cannot be read: the sentence that says so.
pub fn tally(
    answers: &Answers,
    at: Place,
    outcomes: &[Outcome],
    variables: &Variables,
) -> Result<(Value, Vec<Finding>), String> {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for outcome in outcomes {
        let status = outcome.recording.status.map_or_else(|| "none".to_owned(), |status| status.to_string());
        *counts.entry(status).or_default() += 1;
    }
    let mut findings = Vec::new();
    for answered in &answers.0 {
        let count = counts.get(&answered.status.to_string()).copied().unwrap_or(0);
        let expected = answered.count.clone().unwrap_or_else(|| json!({"gte": 1}));
        let check = Check { key: answered.status.to_string(), expected, at: answered.at };
        let about = format!("answers.{}", answered.status);
        findings.extend(one(&about, &check, Some(Cow::Owned(count.into())), variables)?);
    }
    let known = |status: &str| answers.0.iter().any(|answered| answered.status.to_string() == status);
    let others: Vec<_> = counts.iter().filter(|(status, _)| !known(status)).collect();
    if !others.is_empty() {
        let reported: Vec<_> = others.iter().map(|(status, count)| format!("{count} with {status}")).collect();
        findings.push(Finding {
            at,
            about: "answers".to_owned(),
            expected: "no other status".to_owned(),
            actual: reported.join(", "),
            law: None,
        });
    }
    Ok((json!(counts), findings))
}
