//! Ollama's models in OpenAI's words, and the words for a model that does not exist. Pure.

use std::borrow::Cow;

use crate::{
    ollama::wire::{Show, Tag, Tags},
    openai::models::wire::{List, Model},
};

/// How many near names are told.
const NEAREST: usize = 5;

/// How many characters of a name are compared.
const COMPARED: usize = 128;

pub(super) fn list<'a>(tags: &'a Tags<'a>) -> List<'a> {
    let listed = |tag: &'a Tag<'a>| Model {
        context_length: tag.details.as_ref().and_then(|details| details.context_length),
        capabilities: tag.capabilities.as_deref(),
        ..model(&tag.name, &tag.modified_at)
    };
    List { object: "list", data: tags.models.iter().map(listed).collect() }
}

pub(super) fn shown<'a>(name: &'a str, show: &'a Show<'a>) -> Model<'a> {
    Model {
        context_length: show.context_length(),
        capabilities: show.capabilities.as_deref(),
        ..model(name, &show.modified_at)
    }
}

fn model<'a>(name: &'a str, modified_at: &str) -> Model<'a> {
    Model {
        context_length: None,
        capabilities: None,
        id: Cow::Borrowed(name),
        object: "model",
        created: seconds(modified_at),
        owned_by: Cow::Borrowed(owner(name)),
    }
}

/// Unix seconds of a time such as `2025-05-04T17:37:44.706015396-07:00`. Ollama's zero date and what cannot be read are 0.
fn seconds(time: &str) -> u64 {
    time.parse::<jiff::Timestamp>().ok().and_then(|time| u64::try_from(time.as_second()).ok()).unwrap_or(0)
}

/// The namespace of `[host/][namespace/]model[:tag]`.
fn owner(name: &str) -> &str {
    let mut parts = name.rsplit('/');
    parts.next();
    parts.next().unwrap_or("library")
}

/// What to suggest instead of a model that does not exist.
#[derive(Debug, PartialEq)]
pub(super) struct Instead {
    /// Whether the names are like the one that was asked for.
    near: bool,
    names: Vec<String>,
}

/// Names so alike are probably meant.
const ALIKE: f64 = 0.85;

/// The names that are most like `model`, the most alike first; if none is, some of those that there are.
pub(super) fn nearest(model: &str, tags: &Tags<'_>) -> Instead {
    // Comparing takes the product of both lengths.
    let begin = |name: &str| name.chars().take(COMPARED).collect::<String>().to_lowercase();
    let asked = begin(model);
    // A name without a tag is compared with names without theirs.
    let compared = |name: &str| match asked.contains(':') {
        true => begin(name),
        false => begin(name.split(':').next().unwrap_or(name)),
    };
    let alike = |name: &str| strsim::jaro_winkler(&asked, &compared(name));
    let mut names: Vec<(f64, &str)> = tags.models.iter().map(|tag| (alike(&tag.name), &*tag.name)).collect();
    names.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    let near = names.first().is_some_and(|(most, _)| *most > ALIKE);
    names.retain(|(alike, _)| !near || *alike > ALIKE);
    Instead { near, names: names.into_iter().take(NEAREST).map(|(_, name)| name.to_owned()).collect() }
}

/// OpenAI's known sentence, upstream's own text, and what to ask for instead.
pub(super) fn not_found(model: &str, upstream: &str, instead: Option<&Instead>) -> String {
    let list = |names: &[String]| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let instead = match instead {
        None => String::new(),
        Some(Instead { names, .. }) if names.is_empty() => {
            format!(" The remote has no models yet; get one with: ollama pull {model}")
        }
        Some(Instead { near: true, names }) => format!(" Did you mean {}?", list(names)),
        Some(Instead { near: false, names }) => format!(" Available: {}.", list(names)),
    };
    format!("The model `{model}` does not exist or you do not have access to it. (Ollama: {upstream}){instead}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_becomes_unix_seconds_whatever_its_offset() {
        assert_eq!(seconds("2025-05-04T17:37:44.706015396-07:00"), 1_746_405_464);
        assert_eq!(seconds("2023-06-16T17:03:22Z"), 1_686_935_002);
        assert_eq!(seconds("0001-01-01T00:00:00Z"), 0);
    }

    #[test]
    fn the_owner_is_the_namespace() {
        assert_eq!(owner("llama3.2:latest"), "library");
        assert_eq!(owner("namespace/model:latest"), "namespace");
        assert_eq!(owner("hf.co/org/model:Q4_K_M"), "org");
    }

    #[test]
    fn the_most_alike_name_comes_first() {
        let tags: Tags<'_> = serde_json::from_str(
            r#"{"models":[{"name":"all-minilm:latest","modified_at":""},{"name":"llama3.2:latest","modified_at":""}]}"#,
        )
        .unwrap();
        let near = nearest("lama3.2", &tags);
        assert_eq!(near, Instead { near: true, names: vec!["llama3.2:latest".to_owned()] });
        assert!(not_found("lama3.2", "", Some(&near)).ends_with("Did you mean `llama3.2:latest`?"));
        let other = nearest("nope", &tags);
        assert!(!other.near && other.names.len() == 2);
        assert!(not_found("nope", "", Some(&other)).contains("Available: `"));
    }
}
