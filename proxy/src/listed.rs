//! The models that clients of the proxy see, for the configuration of tools.

use futures_util::{StreamExt, stream};

use crate::{
    app,
    config::Config,
    error::Dialect,
    ollama::{
        listing::Listing,
        models,
        wire::{Show, Tags},
    },
    upstream::remotes::{Known, Remotes},
};

/// A model as lists show it: one of the remote's, or an alias.
#[derive(Clone, Debug)]
pub struct ListedModel {
    /// Its name.
    pub name: String,
    /// The remote's model of that name, or behind it.
    pub model: String,
    /// Tokens that a prompt and its answer may have together. None: the remote does not say.
    pub context: Option<u64>,
    /// Whether this is the context in force, and not only what the model was made for.
    pub in_force: bool,
    /// What it can do, in Ollama's words. None: the remote does not say.
    pub capabilities: Option<Vec<String>>,
}

impl ListedModel {
    /// Whether it answers in chats.
    #[must_use]
    pub fn chats(&self) -> bool {
        match &self.capabilities {
            Some(capabilities) => capabilities.iter().any(|capability| capability == "completion"),
            None => !self.name.contains("embed"),
        }
    }
}

/// How many models are described at most.
const DESCRIBED: usize = 64;

/// How many descriptions are asked for at a time.
const AT_ONCE: usize = 4;

/// Returns the models that clients of a proxy with these settings see.
///
/// # Errors
/// Fails if the remote does not list its models, with the reason.
pub async fn listed_models(config: &Config) -> Result<Vec<ListedModel>, String> {
    let remotes = Remotes::new(config, &app::via(), &Known::default()).map_err(|error| error.to_string())?;
    let remote = remotes.only();
    let reply = models::tags(&remote).await.map_err(|error| error.to_string())?;
    let tags: Tags<'_> = remote.read("/api/tags", &reply).map_err(|error| error.to_string())?;
    let several = remotes.are_several();
    let loaded = models::loaded(&remote).await;
    let loaded = loaded.as_ref().and_then(|reply| remote.read("/api/ps", reply).ok());
    let listing = Listing { config, loaded: loaded.as_ref() };
    let entries = listing.entries(&tags);
    let described = stream::iter(entries.iter().take(DESCRIBED)).map(|entry| {
        let (listing, remote, remotes) = (&listing, &remote, &remotes);
        async move {
            let name = &entry.tag.name;
            let at = if several { remotes.with(name, Dialect::Ollama, |_| true).await.ok() } else { None };
            let reply = models::show(at.as_ref().unwrap_or(remote), name).await.ok();
            let show: Option<Show<'_>> = reply.as_ref().and_then(|reply| remote.read("/api/show", reply).ok());
            let capabilities =
                show.as_ref().and_then(|show| show.capabilities.as_ref()).or(entry.tag.capabilities.as_ref());
            let in_file = show.as_ref().and_then(Show::num_ctx);
            ListedModel {
                context: show.as_ref().map_or(entry.context, |show| listing.shown(&entry.name, &entry.tag.name, show)),
                in_force: listing.in_force(&entry.name, &entry.tag.name, in_file).is_some(),
                capabilities: capabilities.map(|all| all.iter().map(ToString::to_string).collect()),
                name: entry.name.to_string(),
                model: entry.tag.name.to_string(),
            }
        }
    });
    Ok(described.buffered(AT_ONCE).collect().await)
}
