//! Whether each field of a table of request fields is missed by somebody: a proxy that drops it fails a scenario.
//!
//! The table is a page such as `docs/parameters.md`: a heading `## POST /v1/…`, and below it a row for each field.

use std::collections::BTreeMap;

use futures_util::{StreamExt, stream};

use super::{
    Mutation, Traffic,
    matrix::{Proof, once},
    message::Head,
};
use crate::{report::Verdict, run::Plan, scenario::load::Loaded};

/// A field of the requests to one endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Field {
    /// As in `POST /v1/embeddings`.
    pub endpoint: String,
    /// The field's name.
    pub name: String,
}

impl Field {
    /// The field of this name in this request.
    pub(super) fn of(request: &Head, name: String) -> Self {
        Self { endpoint: endpoint(request), name }
    }

    /// Whether it is one of this request's endpoint.
    pub(super) fn is_at(&self, request: &Head) -> bool {
        self.endpoint == endpoint(request)
    }
}

fn endpoint(request: &Head) -> String {
    format!("{} {}", request.method(), request.target())
}

/// The fields that a page tells of.
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
                let passed = crate::report::shorten(&passed.join(", "), 200);
                proof.problems.push(format!("{endpoint}: nobody misses `{name}` when it is dropped: {passed}"));
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

    #[test]
    fn a_field_is_one_of_its_endpoint_alone() {
        let head = |first: &str| Head { first: first.to_owned(), headers: Vec::new() };
        let field = Field::of(&head("POST /v1/embeddings?a=b HTTP/1.1"), "user".to_owned());
        assert_eq!(field.endpoint, "POST /v1/embeddings");
        assert!(
            field.is_at(&head("POST /v1/embeddings HTTP/1.1")) && !field.is_at(&head("GET /v1/embeddings HTTP/1.1"))
        );
    }
}
