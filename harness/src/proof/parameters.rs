//! Whether each field of a table of request fields is missed by a scenario: a proxy that drops it fails a scenario.
//!
//! The table is a page such as `docs/parameters.md`: a heading `## POST /v1/…`, and below it a row for each field.

use std::collections::BTreeMap;

use futures_util::{StreamExt, stream};

use super::{Proof, once};
use crate::{
    mutants::{Field, Mutation, Traffic},
    report::Verdict,
    run::Plan,
    scenario::loaded::Loaded,
    text::shorten,
};

/// The fields that a page lists.
///
/// # Errors
/// There are none: the sentence that says so.
pub fn table(page: &str) -> Result<Vec<Field>, String> {
    let mut endpoint = "";
    let mut fields = Vec::new();
    for line in page.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            endpoint = heading.trim();
        } else if let Some(name) = line.strip_prefix("| `").and_then(|row| row.split('`').next()) {
            fields.push(Field { endpoint: endpoint.to_owned(), name: name.to_owned() });
        }
    }
    if fields.is_empty() {
        return Err(
            "there are no fields: a row such as \"| `seed` | …\" below a heading such as \"## POST /v1/embeddings\""
                .into(),
        );
    }
    Ok(fields)
}

/// Drops each field in turn, until one of the scenarios that send it fails. `passed` is what they send.
pub(super) async fn prove(
    fields: &[Field],
    scenarios: &[Loaded],
    passed: &BTreeMap<String, Traffic>,
    plan: &Plan,
    proof: &mut Proof,
) {
    let trials = stream::iter(fields.iter().map(|field| async move {
        let senders = scenarios
            .iter()
            .filter(|loaded| passed.get(&loaded.name()).is_some_and(|traffic| traffic.fields.contains(field)));
        let mut passed = Vec::new();
        for loaded in senders {
            let mutation = Mutation::without(field.clone());
            if once(loaded, mutation, plan).await.verdict == Verdict::Failed {
                return (field, passed, true);
            }
            passed.push(loaded.name());
        }
        (field, passed, false)
    }));
    let trials: Vec<_> = trials.buffer_unordered(plan.jobs.max(1)).collect().await;
    for (field, passed, missed) in trials {
        proof.runs += passed.len() + usize::from(missed);
        proof.missed += usize::from(missed);
        let Field { endpoint, name } = field;
        match (missed, &passed[..]) {
            (true, _) => {}
            (false, []) => proof.problems.push(format!("{endpoint}: no scenario sends `{name}`")),
            (false, passed) => {
                let passed = shorten(&passed.join(", "), 200);
                proof.problems.push(format!("{endpoint}: no scenario misses `{name}` when it is dropped: {passed}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_fields_below_their_endpoint() {
        let page = "# Fields\n\n## POST /v1/a\n\n| field | fate |\n|---|---|\n| `seed` | mapped |\n\n## POST /v1/b\n| `n` | x |\n";
        let field = |endpoint: &str, name: &str| Field { endpoint: endpoint.to_owned(), name: name.to_owned() };
        assert_eq!(table(page), Ok(vec![field("POST /v1/a", "seed"), field("POST /v1/b", "n")]));
        assert!(table("# Nothing").unwrap_err().contains("there are no fields"));
    }
}
