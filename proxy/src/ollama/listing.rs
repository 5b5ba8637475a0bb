//! What lists say about models: those of the remote and the aliases that the settings give them, each with the context
//! that is in force. Pure.

use std::borrow::Cow;

use crate::{
    config::Config,
    ollama::{
        name,
        wire::{Ps, Show, Tag, Tags},
    },
};

/// What decides how models are listed.
#[derive(Clone, Copy)]
pub(crate) struct Listing<'a> {
    pub(crate) config: &'a Config,
    /// What the remote has loaded, as far as it says.
    pub(crate) loaded: Option<&'a Ps<'a>>,
}

/// A model as it is listed.
#[derive(Debug)]
pub(crate) struct Entry<'a> {
    /// Its name, as clients of OpenAI's API know it, or an alias.
    pub(crate) name: Cow<'a, str>,
    /// The remote's model.
    pub(crate) tag: &'a Tag<'a>,
    pub(crate) context: Option<u64>,
}

impl<'a> Listing<'a> {
    /// The models of the remote in its order, then the aliases of those that it has.
    pub(crate) fn entries(&self, tags: &'a Tags<'a>) -> Vec<Entry<'a>> {
        let models = &self.config.models;
        let entry = |name: Cow<'a, str>, tag: &'a Tag<'a>| {
            let own = tag.details.as_ref().and_then(|details| details.context_length);
            Entry { context: self.context(&name, &tag.name, own, None), name, tag }
        };
        let hides = |tag: &Tag<'_>| {
            // An alias of that name takes its place.
            !models.lists(&tag.name) || name::full(models.behind(&tag.name, None).0) != name::full(&tag.name)
        };
        let own = tags.models.iter().filter(|tag| !hides(tag)).map(|tag| entry(tag.id().into(), tag));
        let aliases = models.aliases().filter(|alias| models.lists(alias.name)).filter_map(|alias| {
            let tag = tags.models.iter().find(|tag| name::full(&tag.name) == name::full(alias.target))?;
            Some(entry(alias.name.into(), tag))
        });
        own.chain(aliases).collect()
    }

    /// The context of a model that was asked for as `asked`, and shown by the remote as `model`.
    pub(crate) fn shown(&self, asked: &str, model: &str, show: &Show<'_>) -> Option<u64> {
        self.context(asked, model, show.context_length(), show.num_ctx())
    }

    /// Tokens that a prompt and its answer may have together: what is asked for, or can be, at most what the model was
    /// made for; else what its model file says, or what it is loaded with.
    fn context(&self, asked: &str, model: &str, own: Option<u64>, in_file: Option<u64>) -> Option<u64> {
        match (self.in_force(asked, model, in_file), own) {
            (Some(tokens), Some(own)) => Some(tokens.min(own)),
            (tokens, own) => tokens.or(own),
        }
    }

    /// What is asked for, what the model file says, or what is loaded. None: the remote decides when it loads the
    /// model.
    pub(crate) fn in_force(&self, asked: &str, model: &str, in_file: Option<u64>) -> Option<u64> {
        let config = self.config;
        let preset = config.models.preset(asked).and_then(|preset| preset.num_ctx);
        let configured = preset.unwrap_or(config.context.num_ctx).max(config.context.max);
        let loaded = || {
            let loaded = self.loaded?.models.iter().find(|loaded| name::full(&loaded.name) == name::full(model))?;
            loaded.context_length.filter(|tokens| *tokens > 0)
        };
        Some(configured).filter(|tokens| *tokens > 0).or(in_file).or_else(loaded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAGS: &str = r#"{"models":[
        {"name":"qwen3:30b","modified_at":"","details":{"context_length":262144}},
        {"name":"llama3:latest","modified_at":"","details":{"context_length":8192}},
        {"name":"old:1b","modified_at":""}]}"#;

    fn listed(settings: &str) -> Vec<String> {
        let config = Config::from_toml(settings).unwrap();
        let tags: Tags<'_> = serde_json::from_str(TAGS).unwrap();
        let ps: Ps<'_> = serde_json::from_str(r#"{"models":[{"name":"qwen3:30b","context_length":4096}]}"#).unwrap();
        let listing = Listing { config: &config, loaded: Some(&ps) };
        let text = |entry: Entry<'_>| format!("{} {}", entry.name, entry.context.unwrap_or(0));
        listing.entries(&tags).into_iter().map(text).collect()
    }

    #[test]
    fn what_is_loaded_is_in_force_unless_something_is_asked_for() {
        assert_eq!(listed(""), ["qwen3:30b 4096", "llama3:latest 8192", "old:1b 0"]);
        assert_eq!(listed("[context]\nnum_ctx = 16384"), ["qwen3:30b 16384", "llama3:latest 8192", "old:1b 16384"]);
        assert_eq!(listed("[context]\nmax = 65536")[0], "qwen3:30b 65536");
    }

    #[test]
    fn aliases_are_listed_behind_the_models_with_their_own_context() {
        let settings = "[models.\"gpt-4o\"]\nto = \"qwen3:30b\"\nnum_ctx = 32768\n[models.nowhere]\nto = \"absent\"\n\
                        [models.llama3]\nto = \"qwen3:30b\"\n[models.\"old:1b\"]\nnum_ctx = 2048\n[models.\"x*\"]\nto = \"llama3\"\n";
        assert_eq!(listed(settings), ["qwen3:30b 4096", "old:1b 2048", "gpt-4o 32768", "llama3 4096"]);
    }

    #[test]
    fn hidden_names_are_left_out() {
        let settings = "[models]\nhidden = [\"old*\", \"gpt-4*\"]\n[models.\"gpt-4o\"]\nto = \"llama3\"\n[models.mini]\nto = \"old:1b\"\n";
        assert_eq!(listed(settings), ["qwen3:30b 4096", "llama3:latest 8192", "mini 0"]);
    }

    #[test]
    fn a_model_file_may_say_how_large_the_context_is() {
        let show = r#"{"parameters":"stop    \"x\"\nnum_ctx                        2048\n","model_info":{"general.architecture":"llama","llama.context_length":8192}}"#;
        let show: Show<'_> = serde_json::from_str(show).unwrap();
        let config = Config::default();
        assert_eq!(Listing { config: &config, loaded: None }.shown("m", "m", &show), Some(2048));
    }
}
