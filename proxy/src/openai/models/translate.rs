//! Ollama's models in OpenAI's words, and the words for a model that does not exist. Pure.

use std::borrow::Cow;

use crate::{
    ollama::{
        listing::{Entry, Listing},
        wire::{Show, Tags},
    },
    openai::models::wire::{List, Model},
};

/// How many near names are suggested, and how many names are listed where none is near.
const NEAREST: usize = 3;
const LISTED: usize = 10;

/// How much alike two names are at least that one may be meant for the other (Jaro-Winkler, 0 to 1).
const ALIKE: f64 = 0.85;

/// What there is in place of a model that does not exist.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Instead {
    /// Names that may be meant, the most alike first.
    Near(Vec<String>),
    /// No name is near: the first of those that there are, and how many there are.
    All(Vec<String>, usize),
}

/// How many characters of a name are compared.
const COMPARED: usize = 128;

pub(super) fn list<'a>(listing: &Listing<'a>, tags: &'a Tags<'a>) -> List<'a> {
    let listed = |entry: Entry<'a>| Model {
        id: entry.name,
        context_length: entry.context,
        capabilities: entry.tag.capabilities.as_deref(),
        ..model(&entry.tag.name, &entry.tag.modified_at)
    };
    List { object: "list", data: listing.entries(tags).into_iter().map(listed).collect() }
}

/// The remote's `target` under the name that was asked for.
pub(super) fn shown<'a>(listing: &Listing<'_>, asked: &'a str, target: &'a str, show: &'a Show<'a>) -> Model<'a> {
    Model {
        id: Cow::Borrowed(asked),
        context_length: listing.shown(asked, target, show),
        capabilities: show.capabilities.as_deref(),
        ..model(target, &show.modified_at)
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

/// Returns the Unix seconds of a time such as `2025-05-04T17:37:44.706015396-07:00`. Ollama's zero date and invalid
/// times are 0.
fn seconds(time: &str) -> u64 {
    time.parse::<jiff::Timestamp>().ok().and_then(|time| u64::try_from(time.as_second()).ok()).unwrap_or(0)
}

/// The namespace of `[host/][namespace/]model[:tag]`.
fn owner(name: &str) -> &str {
    let mut parts = name.rsplit('/');
    parts.next();
    parts.next().unwrap_or("library")
}

/// What may be meant by `model`.
pub(super) fn instead(model: &str, entries: &[Entry<'_>]) -> Instead {
    // Comparing takes the product of both lengths.
    let begin = |name: &str| name.chars().take(COMPARED).collect::<String>().to_lowercase();
    let bare = |name: &str| name.split(':').next().unwrap_or_default().to_owned();
    let asked = begin(model);
    // A tag alone makes two names neither alike nor different.
    let alike = |name: &str| {
        let name = begin(name);
        let whole = strsim::jaro_winkler(&asked, &name);
        if strsim::jaro_winkler(&bare(&asked), &bare(&name)) < ALIKE { 0.0 } else { whole.max(ALIKE) }
    };
    let mut names: Vec<(f64, &str)> = entries.iter().map(|entry| (alike(&entry.name), &*entry.name)).collect();
    let all = names.len();
    let listed: Vec<String> = names.iter().take(LISTED).map(|(_, name)| (*name).to_owned()).collect();
    names.retain(|(alike, _)| *alike >= ALIKE);
    names.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    let near: Vec<String> = names.into_iter().take(NEAREST).map(|(_, name)| name.to_owned()).collect();
    if near.is_empty() { Instead::All(listed, all) } else { Instead::Near(near) }
}

/// OpenAI's known sentence, upstream's own text, and what there is instead.
pub(super) fn not_found(model: &str, upstream: &str, instead: Option<&Instead>) -> String {
    let quoted = |names: &[String]| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>();
    let instead = match instead {
        None => String::new(),
        Some(Instead::All(_, 0)) => format!(" The remote has no models yet; get one with: ollama pull {model}"),
        Some(Instead::Near(names)) => format!(" Did you mean {}?", quoted(names).join(" or ")),
        Some(Instead::All(names, all)) => {
            let more = if *all > names.len() { format!(" and {} more", all - names.len()) } else { String::new() };
            format!(" Available models: {}{more}.", quoted(names).join(", "))
        }
    };
    let alias = match model.starts_with("claude-") {
        true => " Set anthropic.model in the settings of farllama to the model that Anthropic's names mean.",
        false => "",
    };
    format!("The model `{model}` does not exist or you do not have access to it. (Ollama: {upstream}){instead}{alias}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

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
    fn a_name_is_suggested_only_where_it_is_near() {
        let tags = |names: &[&str]| {
            let models = names.iter().map(|name| format!(r#"{{"name":"{name}","modified_at":""}}"#));
            format!(r#"{{"models":[{}]}}"#, models.collect::<Vec<_>>().join(","))
        };
        let reported = |model: &str, names: &[&str]| {
            let tags = tags(names);
            let (config, tags) = (Config::default(), serde_json::from_str(&tags).unwrap());
            let instead = instead(model, &Listing { config: &config, loaded: None }.entries(&tags));
            not_found(model, "…", Some(&instead)).split_once("(Ollama: …)").unwrap().1.trim().to_owned()
        };
        let stock = ["smollm2:135m", "all-minilm:latest", "llama3.2:latest", "gpt-oss:20b", "llama-guard3:8b"];
        for (model, expected) in [
            ("lama3.2", "Did you mean `llama3.2:latest`?"),
            ("gpt-os:20b", "Did you mean `gpt-oss:20b`?"),
            ("GPT-OSS:120b", "Did you mean `gpt-oss:20b`?"),
        ] {
            assert_eq!(reported(model, &stock), expected);
        }
        let all = "Available models: `smollm2:135m`, `all-minilm:latest`, `llama3.2:latest`, `gpt-oss:20b`, `llama-guard3:8b`.";
        assert_eq!(reported("nope", &stock), all);
        assert_eq!(reported("no-such-model:135m", &stock), all, "a tag says nothing");
        assert!(reported("nope", &["m"; 12]).ends_with("`m` and 2 more."));
        assert_eq!(reported("nope", &[]), "The remote has no models yet; get one with: ollama pull nope");
    }
}
