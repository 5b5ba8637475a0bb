//! The doctor: probes a remote, and says of each tool that people use whether it will work there, and what to change.
//!
//! Probes give facts ([`fact`]); the rules are data ([`persona`], `personas/*.yaml`); a verdict follows from both.

mod asker;
pub mod bundle;
pub mod fact;
mod model;
pub mod page;
pub mod persona;
mod rates;
mod traps;
pub mod version;
mod way;

use std::{
    collections::BTreeMap,
    sync::atomic::AtomicBool,
    time::{Duration, Instant},
};

use farllama::{
    Config,
    config::{Kind, Local, Protocol, Remote},
};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{backend::endpoint::Endpoint, exit::Exit, report::Secrets};
use asker::{Ask, Asker, Lane};
use fact::{Fact, State};
use persona::{Level, Persona, Verdict};
use way::Server;

/// The probes that rules may name, besides those of the way, which every tool needs.
pub const PROBES: [&str; 24] = [
    "version",
    "native.root",
    "native.tags",
    "native.show",
    "native.stream",
    "v1.models",
    "chat",
    "chat.stream",
    "responses.stream",
    "messages.stream",
    "tools.one",
    "tools.two",
    "tools.result",
    "tools.fits",
    "schema",
    "thinking.on",
    "thinking.off",
    "embeddings",
    "vision",
    "context.model",
    "context.native",
    "context.v1",
    "load",
    "parallel",
];

/// How many models are asked what they can do.
const SHOWN: usize = 24;

/// Which server is examined.
#[derive(Clone, Debug)]
pub enum Patient {
    /// An Ollama, with farllama in front of it: farllama's settings, of which those of its listener do not count.
    Remote(Box<Config>),
    /// Any server without farllama, and the client for it.
    Endpoint(Endpoint, reqwest::Client),
}

impl Patient {
    /// An Ollama, with farllama in front of it and its default settings.
    #[must_use]
    pub fn remote(remote: Remote) -> Self {
        Self::Remote(Box::new(Config { remote, ..Config::default() }))
    }
}

/// How it is examined.
#[derive(Clone, Debug)]
pub struct Examination {
    /// Which server.
    pub patient: Patient,
    /// The models; one is chosen if none is named.
    pub models: Vec<String>,
    /// The model of embeddings, if it is named.
    pub embedding_model: Option<String>,
    /// The tools.
    pub tools: Vec<Persona>,
    /// How often what depends on the model is tried.
    pub tries: usize,
    /// How long one request may take.
    pub timeout: Duration,
    /// After so long, no further tries are begun.
    pub within: Duration,
    /// Unloads the model first, to see how long loading takes.
    pub cold: bool,
}

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct Diagnosis {
    /// The version of this program.
    pub farllama: &'static str,
    /// What was examined, without secrets.
    pub target: String,
    /// Whether farllama stood in front of it.
    pub through_farllama: bool,
    /// The way there and the version.
    pub facts: Vec<Fact>,
    /// Each model.
    pub models: Vec<ModelReport>,
    /// How long it took.
    pub took_ms: u64,
}

/// What was found about a model. Without a model there is one report without a name.
#[derive(Clone, Debug, Serialize)]
pub struct ModelReport {
    /// Its name.
    pub model: Option<String>,
    /// Its facts.
    pub facts: Vec<Fact>,
    /// What they mean for each tool.
    pub verdicts: Vec<Verdict>,
}

impl Diagnosis {
    /// 0: each tool is ready, perhaps with limits. 1: one is not, or nothing can be said of it.
    #[must_use]
    pub fn exit(&self) -> Exit {
        let mut verdicts = self.models.iter().flat_map(|model| &model.verdicts);
        if verdicts.any(|verdict| verdict.level > Level::Limits) { Exit::Unfit } else { Exit::Fit }
    }

    /// Every fact.
    pub fn all_facts(&self) -> impl Iterator<Item = &Fact> {
        self.facts.iter().chain(self.models.iter().flat_map(|model| &model.facts))
    }
}

/// Examines a server; `progress` is called with what is looked at.
///
/// # Errors
/// Fails if nothing can be started on this machine.
pub async fn examine(examination: &Examination, progress: impl Fn(&str)) -> anyhow::Result<Diagnosis> {
    let start = Instant::now();
    let (proxy, asker, target) = match &examination.patient {
        Patient::Remote(settings) => {
            let config = own(settings);
            let remote = &settings.remote;
            let http = match remote.protocol {
                Protocol::Http => crate::net::client()?,
                Protocol::Https => crate::net::client_with(farllama::remote_tls(remote)?)?,
            };
            let base_path = config.openai.base_path.clone();
            let proxy = farllama::serve(config).await?;
            let native = format!("http://{}", proxy.addr());
            let by_way_of = by_way_of(remote);
            let mut secrets = Vec::new();
            let mut headers = BTreeMap::new();
            let given = remote.headers.iter().map(|(name, value)| (name.as_str(), value));
            for (name, value) in given.chain(remote.authorization.as_ref().map(|value| ("authorization", value))) {
                if let Ok(text) = value.to_str() {
                    secrets.extend(text.split_ascii_whitespace().next_back().map(str::to_owned));
                    headers.insert(name.to_owned(), text.to_owned());
                }
            }
            let asker = Asker {
                http,
                place: remote.url(),
                direct: if by_way_of.is_some() { native.clone() } else { remote.url() },
                by_way_of,
                openai: format!("{native}{base_path}"),
                native,
                headers,
                key: None,
                secrets: Secrets::default().and(&secrets),
                timeout: examination.timeout,
                hung: AtomicBool::new(false),
                until: start + examination.within,
            };
            (Some(proxy), asker, format!("the remote {}", remote.name()))
        }
        Patient::Endpoint(endpoint, http) => {
            let secrets: Vec<_> = endpoint.key.iter().cloned().collect();
            let asker = Asker {
                http: http.clone(),
                place: endpoint.url.clone(),
                by_way_of: None,
                direct: endpoint.url.clone(),
                native: endpoint.url.clone(),
                openai: endpoint.openai.clone(),
                headers: BTreeMap::new(),
                key: endpoint.key.clone(),
                secrets: Secrets::default().and(&secrets),
                timeout: examination.timeout,
                hung: AtomicBool::new(false),
                until: start + examination.within,
            };
            (None, asker, format!("the server {}", endpoint.openai))
        }
    };
    let is_foreign = proxy.is_none();
    let grows_to = if let Patient::Remote(settings) = &examination.patient { settings.context.max } else { 0 };
    let (facts, models) = look(examination, &asker, grows_to, is_foreign, progress).await;
    if let Some(proxy) = proxy {
        proxy.stop(Duration::ZERO).await;
    }
    let models = models.into_iter().map(|(model, own)| {
        let all: Vec<&Fact> = own.iter().chain(&facts).collect();
        let verdicts = examination.tools.iter().map(|tool| persona::judge(tool, &all, !is_foreign)).collect();
        ModelReport { model, facts: own, verdicts }
    });
    Ok(Diagnosis {
        farllama: env!("CARGO_PKG_VERSION"),
        target,
        through_farllama: !is_foreign,
        models: models.collect(),
        facts,
        took_ms: u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX),
    })
}

/// farllama's settings for an examination: what it does with requests, without its listener, callers and observers.
fn own(settings: &Config) -> Config {
    let (settings, default) = (settings.clone(), Config::default());
    Config {
        local: Local { port: 0, ..default.local },
        remote: Remote { probe: Duration::ZERO, ..settings.remote },
        // One remote is examined.
        remotes: default.remotes,
        health: default.health,
        // Callers and what they share.
        auth: default.auth,
        quota: default.quota,
        origins: default.origins,
        store: default.store,
        files: default.files,
        batches: default.batches,
        // What runs beside requests.
        warm: default.warm,
        log: default.log,
        admin: default.admin,
        traces: default.traces,
        shutdown: default.shutdown,
        ..settings
    }
}

/// How farllama reaches a remote to which this program makes no connections of its own.
fn by_way_of(remote: &Remote) -> Option<String> {
    if let Some(ssh) = &remote.reach.ssh {
        return Some(format!("over SSH ({ssh})"));
    }
    if remote.reach.proxy.is_some() {
        return Some("through the proxy of its settings".to_owned());
    }
    (remote.kind != Kind::Ollama).then(|| "as an OpenAI server, whose answers it translates (remote.kind)".to_owned())
}

/// The facts of the server, and those of each model.
type Looked = (Vec<Fact>, Vec<(Option<String>, Vec<Fact>)>);

async fn look(
    examination: &Examination,
    asker: &Asker,
    grows_to: u64,
    is_foreign: bool,
    progress: impl Fn(&str),
) -> Looked {
    let mut facts = Vec::new();
    progress("the way there");
    let Some(server) = way::probe(asker, is_foreign, &mut facts).await else {
        return (facts, vec![(examination.models.first().cloned(), Vec::new())]);
    };
    let version = match &server {
        Server::Ollama(version) => {
            facts.extend(version::facts(version));
            version.clone()
        }
        Server::Other => {
            facts.push(Fact::unknown("version", "version", "the server is not Ollama").cure(
                "run farllama in front of it (--remote-kind openai), which answers as an Ollama of its own version",
            ));
            String::new()
        }
    };
    progress("its models");
    let listed = listed(asker, &server).await;
    let chosen = match &examination.models[..] {
        [] => listed.choice(),
        models => Ok(models.to_vec()),
    };
    let models = match chosen {
        Ok(models) => models,
        Err(why) => {
            facts.push(
                Fact::new("way.models", "models", State::Bad, why)
                    .cure("name one with --model, or pull one on the remote"),
            );
            return (facts, vec![(None, Vec::new())]);
        }
    };
    let embedding = examination.embedding_model.clone().or_else(|| listed.embedding.clone());
    let mut reports = Vec::new();
    for model in models {
        let mut own = Vec::new();
        if listed.is_known && !crate::backend::preflight::lists(&listed.names(), &model) {
            let text = format!("the server does not have {model}; it has: {}", listed.names().join(", "));
            own.push(
                Fact::new("way.model", "model", State::Bad, text).cure(format!("ollama pull {model} on the remote")),
            );
            reports.push((Some(model), own));
            continue;
        }
        progress(&format!("{model}: Ollama's API"));
        let mut card = model::native(asker, &model, &listed.weights, &mut own).await;
        let mut speed = model::Speed::default();
        if matches!(server, Server::Ollama(_)) {
            progress(&format!("{model}: loading and speed"));
            speed = model::native_stream(asker, &model, examination.cold, &mut own).await;
            model::memory(asker, &model, &card, grows_to, &mut own).await;
        } else {
            foreign(&listed, &model, &mut card, &mut own);
        }
        progress(&format!("{model}: chats, responses, messages"));
        model::openai(asker, &model, is_foreign, &mut own).await;
        progress(&format!("{model}: tool calls"));
        rates::tools(asker, &model, &card, examination.tries, &mut own).await;
        progress(&format!("{model}: schemas, thinking, embeddings"));
        rates::answers(asker, &model, &card, examination.tries, &mut own).await;
        if matches!(server, Server::Ollama(_)) {
            // Before the embeddings, which load their model.
            own.push(traps::queue(asker, &model, embedding.as_deref(), speed, examination.cold).await);
        }
        if embedding.is_none() && matches!(server, Server::Other) {
            own.push(
                Fact::unknown("embeddings", "embeddings", "not tried: no model for them was named")
                    .cure("name it with --embedding-model"),
            );
        } else {
            rates::embeddings(asker, embedding.as_deref(), &mut own).await;
        }
        rates::vision(asker, &model, &card, &mut own).await;
        if matches!(server, Server::Ollama(_)) {
            progress(&format!("{model}: several clients, and known traps"));
            model::concurrency(asker, &model, Lane::Native, speed, &mut own).await;
            let context = own.iter().find(|fact| fact.id == "context.native").and_then(|fact| fact.value.as_u64());
            own.push(traps::prompt_cache(asker, &model, &version, speed).await);
            own.push(traps::canceled_prompt(asker, &model, speed).await);
            own.push(traps::overflow(asker, &model, &card, context, speed).await);
        } else {
            progress(&format!("{model}: speed, and several clients"));
            let speed = model::foreign_speed(asker, &model, &mut own).await;
            model::concurrency(asker, &model, Lane::V1, speed, &mut own).await;
        }
        reports.push((Some(model), own));
    }
    (facts, reports)
}

/// What only an Ollama shows, of a server that is none.
fn foreign(listed: &Listed, model: &str, card: &mut model::Card, facts: &mut Vec<Fact>) {
    let why = "the server is not Ollama, and does not report it";
    facts.retain(|fact| fact.id != "context.model" && fact.id != "model.capabilities");
    for fact in facts.iter_mut().filter(|fact| fact.id.starts_with("native.") && fact.state == State::Bad) {
        *fact = no_native(&fact.id, &fact.title);
    }
    facts.push(no_native("native.stream", "native stream (/api/chat)"));
    let entry = listed.models.iter().find(|entry| entry["id"] == model);
    // vLLM, llama.cpp, and others, as they list models.
    let number = |names: &[&str]| entry.and_then(|entry| names.iter().find_map(|name| entry.pointer(name)?.as_u64()));
    let in_force = number(&["/max_model_len", "/context_length", "/max_context_length", "/meta/n_ctx"]);
    let of_model = number(&["/meta/n_ctx_train"]).or(in_force);
    card.context = of_model;
    for (id, title, context) in [
        ("context.model", "context of the model", of_model),
        ("context.native", "context in force", in_force),
        ("context.v1", "context in force on /v1", in_force),
    ] {
        facts.push(match context {
            Some(context) => {
                Fact::new(id, title, State::Info, format!("{context} tokens of context, as /v1/models says"))
                    .with(context)
                    .cure("start the server with a larger context (llama.cpp: -c, vLLM: --max-model-len)")
            }
            None => {
                Fact::unknown(id, title, why).cure("the log of the server, or how it was started, shows the context")
            }
        });
    }
    for (id, title) in [("load", "cold start"), ("memory", "memory")] {
        facts.push(Fact::unknown(id, title, why));
    }
    facts.push(Fact::unknown("trap.all", "known traps", "they are probed with Ollama's own API only"));
}

/// A part of Ollama's own API that another server does not have.
fn no_native(id: &str, title: &str) -> Fact {
    Fact::new(id, title, State::Bad, "the server does not have Ollama's own API").cure(
        "run farllama in front of it: `farllama serve URL --remote-kind openai` answers Ollama's routes for such a server",
    )
}

/// The models of the server.
#[derive(Debug, Default)]
struct Listed {
    models: Vec<Value>,
    /// Whether the list could be read.
    is_known: bool,
    /// Those that can chat.
    chat: Vec<String>,
    embedding: Option<String>,
    /// Models and the digests of their weights.
    weights: Vec<(String, String)>,
}

impl Listed {
    fn names(&self) -> Vec<&str> {
        self.models.iter().filter_map(|entry| entry["name"].as_str().or_else(|| entry["id"].as_str())).collect()
    }

    /// The model to examine if none was named.
    fn choice(&self) -> Result<Vec<String>, String> {
        let usual = crate::smoke::MODEL;
        let first = self.chat.iter().find(|name| *name == usual).or_else(|| self.chat.first());
        match first {
            Some(name) => Ok(vec![name.clone()]),
            None if !self.is_known => Err("the server does not list its models".to_owned()),
            None => Err("the server has no model that can chat".to_owned()),
        }
    }
}

async fn listed(asker: &Asker, server: &Server) -> Listed {
    let ask = match server {
        Server::Ollama(_) => Ask::get(Lane::Native, "/api/tags"),
        Server::Other => Ask::get(Lane::V1, "/models"),
    };
    let answer = asker.ask(ask).await;
    // llama.cpp lists its model twice: as Ollama does, without a context, and as OpenAI does.
    let list = answer.json()["data"].as_array().or_else(|| answer.json()["models"].as_array()).cloned();
    let mut listed =
        Listed { is_known: answer.is_ok() && list.is_some(), models: list.unwrap_or_default(), ..Listed::default() };
    let names: Vec<String> = listed.names().into_iter().map(str::to_owned).collect();
    if matches!(server, Server::Other) {
        listed.chat = names;
        return listed;
    }
    for name in names.into_iter().take(SHOWN) {
        // Not from the list, which calls a model of embeddings one of completion (seen with 0.33.0-rc2).
        let show = asker.ask(Ask::post(Lane::Native, "/api/show", json!({"model": name}))).await;
        let capabilities = show.json()["capabilities"].as_array().cloned();
        listed.weights.extend(model::weights(show.json()).map(|weights| (name.clone(), weights)));
        let can = |word: &str| capabilities.as_ref().map(|list| list.iter().any(|known| known == word));
        // Before 0.6.4 there are no capabilities: only the name shows an embedding model.
        let by_name = ["embed", "minilm", "bge", "e5"].iter().any(|part| name.contains(part));
        if can("embedding").unwrap_or(by_name) {
            listed.embedding.get_or_insert(name);
        } else if can("completion").unwrap_or(true) {
            listed.chat.push(name);
        }
    }
    listed
}
