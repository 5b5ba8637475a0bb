//! Models that stay loaded: `warm.models`.
//!
//! A warm model is loaded when farllama starts, or when the remote returns, and its expiry is put off while farllama
//! runs. What it leaves to Ollama: when the machine needs the memory for other models, a warm one is not loaded again
//! until those have gone.

use std::{collections::HashMap, io, time::Duration};

use bytes::Bytes;
use http::Method;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    app,
    config::{Config, NamedRemote},
    error::Error,
    gate::allows,
    ollama::{name, wire::Tags},
    upstream::client::{Client, encode},
};

/// How often the remote is asked what is loaded.
const EVERY: Duration = Duration::from_secs(60);

/// How soon it is asked again if it could not be reached.
const SOON: Duration = Duration::from_secs(10);

/// For how long a model is loaded. Long enough for a farllama that is started anew; not forever, because farllama may
/// never return.
const KEEP_ALIVE: &str = "30m";

/// The expiry is put off when less than this is left. Requests put it off too; one with a `keep_alive` of its own
/// changes it.
const LEFT: Duration = Duration::from_secs(20 * 60);

/// Keeps models loaded.
pub struct Warmer {
    /// The remotes, in the order in which a model is looked for.
    remotes: Vec<Place>,
    models: Vec<String>,
    /// The context that requests ask for; a model that is loaded with another one would be loaded again for them.
    num_ctx: u64,
    /// Models that were loaded since the remote was last reached.
    begun: Vec<String>,
    /// What was logged of a model that cannot be loaded.
    failed: HashMap<String, String>,
}

/// One remote.
struct Place {
    client: Client,
    /// The models that it is used for. None: all.
    patterns: Option<Vec<String>>,
}

impl std::fmt::Debug for Warmer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Warmer").field("models", &self.models).finish_non_exhaustive()
    }
}

/// Body of a request that loads a model.
#[derive(Serialize)]
struct Load<'a> {
    model: &'a str,
    keep_alive: &'static str,
    stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    options: Option<Options>,
}

/// The same for a model that makes embeddings only.
#[derive(Serialize)]
struct Embed<'a> {
    model: &'a str,
    input: [&'static str; 0],
    keep_alive: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    options: Option<Options>,
}

#[derive(Clone, Copy, Serialize)]
struct Options {
    num_ctx: u64,
}

/// Answer of `GET /api/ps`.
#[derive(Deserialize)]
struct Loaded {
    models: Vec<InMemory>,
}

#[derive(Deserialize)]
struct InMemory {
    name: String,
    #[serde(default)]
    expires_at: Option<String>,
    /// From 0.10.0 on.
    #[serde(default)]
    context_length: Option<u64>,
}

impl Warmer {
    /// None: the settings name no model.
    ///
    /// # Errors
    /// Fails if TLS cannot be set up.
    pub fn new(config: &Config) -> io::Result<Option<Self>> {
        if config.warm.models.is_empty() {
            return Ok(None);
        }
        let mut all = config.every_remote();
        all.sort_by_key(|remote| remote.priority);
        let place = |entry: NamedRemote| {
            let mut own = config.clone();
            own.remote = entry.remote;
            // A machine is woken for requests, not to keep models loaded.
            own.remote.reach.wake = None;
            Ok(Place { client: Client::new(&own, app::via())?, patterns: entry.models })
        };
        Ok(Some(Self {
            remotes: all.into_iter().map(place).collect::<io::Result<_>>()?,
            models: config.warm.models.clone(),
            num_ctx: config.context.num_ctx,
            begun: Vec::new(),
            failed: HashMap::new(),
        }))
    }

    /// Loads the models and keeps them loaded. Never ends.
    pub async fn run(&mut self) {
        loop {
            let rest = match self.look().await {
                Ok(()) => EVERY,
                Err(_) => {
                    // The probe logs that the remote is gone. When it returns, nothing is loaded.
                    self.begun.clear();
                    SOON
                }
            };
            tokio::time::sleep(rest).await;
        }
    }

    /// Looks once at what is loaded, and loads what must be: each model on the first remote that has it.
    ///
    /// # Errors
    /// Fails if no remote can be reached.
    async fn look(&mut self) -> Result<(), Error> {
        let mut left = self.models.clone();
        let mut failure = None;
        let remotes = std::mem::take(&mut self.remotes);
        for remote in &remotes {
            let here = match remote.wanted(&left, remotes.len() > 1).await {
                Ok(here) => here,
                Err(error) => {
                    failure = Some(error);
                    continue;
                }
            };
            match self.keep(&remote.client, &here).await {
                Ok(()) => left.retain(|model| !here.contains(model)),
                Err(error) => failure = Some(error),
            }
        }
        let reached = left.len() < self.models.len();
        self.remotes = remotes;
        match failure {
            Some(error) if !reached => Err(error),
            _ => Ok(()),
        }
    }

    /// # Errors
    /// Fails if the remote cannot be reached or is no Ollama.
    async fn keep(&mut self, client: &Client, models: &[String]) -> Result<(), Error> {
        let reply = client.call(Method::GET, "/api/ps", None).await?;
        let loaded: Loaded = client.read("/api/ps", &reply)?;
        let find = |model: &str| loaded.models.iter().find(|loaded| name::full(&loaded.name) == name::full(model));
        let is_warm = |loaded: &InMemory| models.iter().any(|model| name::full(model) == name::full(&loaded.name));
        let others = loaded.models.iter().any(|loaded| !is_warm(loaded));
        for model in models {
            let (num_ctx, anew) = match find(model) {
                // As it is loaded, or it would be loaded anew.
                Some(found) if found.expires_soon() => (found.context_length, false),
                None if !others || !self.begun.contains(model) => ((self.num_ctx > 0).then_some(self.num_ctx), true),
                _ => continue,
            };
            self.load(client, model, num_ctx, anew).await?;
            if !self.begun.contains(model) {
                self.begun.push(model.clone());
            }
        }
        Ok(())
    }

    /// # Errors
    /// Fails if the remote cannot be reached. That it cannot load the model is logged.
    async fn load(&mut self, client: &Client, model: &str, num_ctx: Option<u64>, anew: bool) -> Result<(), Error> {
        let begun = std::time::Instant::now();
        let options = num_ctx.map(|num_ctx| Options { num_ctx });
        let keep_alive = KEEP_ALIVE;
        let asked = encode(&Load { model, keep_alive, stream: false, options })?;
        let mut outcome = client.call(Method::POST, "/api/generate", Some(asked)).await;
        if matches!(&outcome, Err(error) if error.to_string().contains("does not support generate")) {
            let asked: Bytes = encode(&Embed { model, input: [], keep_alive, options })?;
            outcome = client.call(Method::POST, "/api/embed", Some(asked)).await;
        }
        match outcome {
            Ok(_) => {
                self.failed.remove(model);
                if anew {
                    let took = begun.elapsed().as_secs_f64();
                    tracing::info!(target: "farllama", "warm: {model} is loaded ({took:.1} s)");
                }
                Ok(())
            }
            Err(error @ (Error::Unreachable { .. } | Error::Timeout { .. } | Error::Cut { .. })) => Err(error),
            Err(error) => {
                let text = error.to_string();
                if self.failed.get(model) != Some(&text) {
                    tracing::warn!(target: "farllama", "warm.models: cannot load {model}: {text}");
                    self.failed.insert(model.to_owned(), text);
                }
                Ok(())
            }
        }
    }
}

impl Place {
    /// Those of `models` that this remote is used for, and, where there are `several`, has.
    ///
    /// # Errors
    /// Fails if the remote cannot be reached or is no Ollama.
    async fn wanted(&self, models: &[String], several: bool) -> Result<Vec<String>, Error> {
        let is_for = |model: &&String| self.patterns.iter().flatten().any(|pattern| allows(pattern, model));
        let mine = models.iter().filter(|model| self.patterns.is_none() || is_for(model));
        if !several {
            return Ok(mine.cloned().collect());
        }
        let reply = self.client.call(Method::GET, "/api/tags", None).await?;
        let tags: Tags<'_> = self.client.read("/api/tags", &reply)?;
        let has = |model: &&String| tags.models.iter().any(|tag| name::full(&tag.name) == name::full(model));
        Ok(mine.filter(has).cloned().collect())
    }
}

impl InMemory {
    /// Whether the model is about to be unloaded. A time that cannot be read is none.
    fn expires_soon(&self) -> bool {
        let expires = self.expires_at.as_deref().and_then(|text| text.parse::<Timestamp>().ok());
        let now = i64::try_from(crate::stamp::unix_ms() / 1000).unwrap_or(i64::MAX);
        expires.is_none_or(|expires| expires.as_second().saturating_sub(now) < LEFT.as_secs() as i64)
    }
}

#[cfg(test)]
mod tests {
    use mock_ollama::{Mock, Script};
    use serde_json::Value;

    use super::*;
    use crate::config::Remote;

    /// What the mock was asked to load, with its context and its keep-alive.
    fn asked(mock: &Mock) -> Vec<String> {
        let entries = mock.journal().entries();
        let loads = entries.iter().filter(|entry| !["/api/ps", "/api/tags", "/api/chat"].contains(&entry.path())).map(
            |entry| {
                let body = entry.json().unwrap_or_default();
                let of = |name: &str| body[name].as_str().unwrap_or("-").to_owned();
                let context = body["options"]["num_ctx"].clone();
                let context = if context == Value::Null { "-".to_owned() } else { context.to_string() };
                format!("{} {} {context} {}", entry.path(), of("model"), of("keep_alive"))
            },
        );
        loads.collect()
    }

    async fn loaded(mock: &Mock) -> Vec<String> {
        let config = Config { remote: Remote { port: mock.addr().port(), ..Remote::default() }, ..Config::default() };
        let client = Client::new(&config, app::via()).unwrap();
        let reply = client.call(Method::GET, "/api/ps", None).await.unwrap();
        let loaded: Loaded = client.read("/api/ps", &reply).unwrap();
        loaded.models.into_iter().map(|model| model.name).collect()
    }

    fn warmer(mock: &Mock, models: &[&str], num_ctx: u64) -> Warmer {
        let mut config = Config::default();
        config.remote.port = mock.addr().port();
        config.warm.models = models.iter().map(|model| (*model).to_owned()).collect();
        config.context.num_ctx = num_ctx;
        Warmer::new(&config).unwrap().unwrap()
    }

    #[tokio::test]
    async fn models_are_loaded_once_and_kept_as_they_are_loaded() {
        let mock = Mock::start(Script::default()).await.unwrap();
        let mut warmer = warmer(&mock, &["smollm2:135m", "all-minilm", "missing"], 8192);
        warmer.look().await.unwrap();
        warmer.look().await.unwrap();
        let first = asked(&mock);
        let generate = |model: &str| format!("/api/generate {model} 8192 30m");
        assert_eq!(
            first[..3],
            [generate("smollm2:135m"), generate("all-minilm"), "/api/embed all-minilm 8192 30m".to_owned()]
        );
        assert!(first[3..].iter().all(|load| load == &generate("missing")), "{first:?}");
        assert_eq!(loaded(&mock).await.len(), 2);
        // A request with a keep_alive of its own changes it.
        let client = &warmer.remotes[0].client;
        let chat = Bytes::from_static(br#"{"model":"smollm2:135m","keep_alive":"5m","stream":false,"messages":[{"role":"user","content":"hi"}],"options":{"num_ctx":2048}}"#);
        client.call(Method::POST, "/api/chat", Some(chat)).await.unwrap();
        let before = asked(&mock).len();
        warmer.look().await.unwrap();
        assert_eq!(asked(&mock)[before], "/api/generate smollm2:135m 2048 30m", "with the context that it has");
    }

    #[tokio::test]
    async fn each_model_is_loaded_on_the_first_remote_that_has_it() {
        let options = mock_ollama::Options { stock: mock_ollama::Stock::Recorded, ..mock_ollama::Options::default() };
        let first = Mock::start_with(options, Script::default()).await.unwrap();
        let second = Mock::start(Script::default()).await.unwrap();
        let text = format!(
            "[warm]\nmodels = [\"gemma4:e4b\", \"smollm2:135m\"]\n[[remotes]]\nname = \"b\"\nurl = \"{}\"\npriority = 2\n\
             [[remotes]]\nname = \"a\"\nurl = \"{}\"\npriority = 1\n",
            second.url(),
            first.url()
        );
        let mut warmer = Warmer::new(&Config::from_toml(&text).unwrap()).unwrap().unwrap();
        warmer.look().await.unwrap();
        assert_eq!(loaded(&first).await, ["smollm2:135m"]);
        assert_eq!(loaded(&second).await, ["gemma4:e4b"]);
    }

    #[tokio::test]
    async fn a_model_that_made_room_for_others_waits_until_they_have_gone() {
        let mock = Mock::start(Script::default()).await.unwrap();
        let mut warmer = warmer(&mock, &["smollm2:135m"], 0);
        warmer.look().await.unwrap();
        let ask = async |body| generate(&mock, body).await;
        ask(r#"{"model":"smollm2:135m","keep_alive":0}"#).await;
        ask(r#"{"model":"gemma4:e4b"}"#).await;
        let before = asked(&mock).len();
        warmer.look().await.unwrap();
        assert_eq!(asked(&mock).len(), before);
        ask(r#"{"model":"gemma4:e4b","keep_alive":0}"#).await;
        warmer.look().await.unwrap();
        assert_eq!(asked(&mock).last().unwrap(), "/api/generate smollm2:135m - 30m");
    }

    async fn generate(mock: &Mock, body: &'static str) {
        let config = Config { remote: Remote { port: mock.addr().port(), ..Remote::default() }, ..Config::default() };
        let client = Client::new(&config, app::via()).unwrap();
        client.call(Method::POST, "/api/generate", Some(Bytes::from_static(body.as_bytes()))).await.unwrap();
    }
}
