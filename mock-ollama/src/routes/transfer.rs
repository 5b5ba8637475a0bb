//! `/api/pull` and `/api/push` (`ollama-wire` A8). No byte leaves the machine: Ollama's own library is played, other hosts cannot be reached.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::{
    Call, Refusal, flag, name, named,
    progress::{self, Failure, Step, layer, status},
};
use crate::{
    go,
    models::{Capability, Card, Model, STORE, Stock},
    names::Name,
    server::answer::Answer,
    state::State,
    tokens::hash,
};

const FIELDS: &[(&str, go::Kind)] = &[
    ("model", go::Kind::Text),
    ("insecure", go::Kind::Bool),
    ("username", go::Kind::Text),
    ("password", go::Kind::Text),
    ("stream", go::Kind::Bool),
    ("name", go::Kind::Text),
];
const PULL: go::Request = go::Request { name: "PullRequest", fields: FIELDS };
const PUSH: go::Request = go::Request { name: "PushRequest", fields: FIELDS };

/// Models of Ollama's library that can be pulled with any tag, besides the mock's own.
const LIBRARY: [(&str, &[Capability]); 12] = {
    use Capability::{Completion, Embedding, Thinking, Tools, Vision};
    [
        ("llama3.2", &[Completion, Tools]),
        ("llama3.1", &[Completion, Tools]),
        ("llama2", &[Completion]),
        ("qwen3", &[Completion, Tools, Thinking]),
        ("qwen2.5", &[Completion, Tools]),
        ("mistral", &[Completion, Tools]),
        ("gemma3", &[Completion, Vision]),
        ("phi4", &[Completion]),
        ("deepseek-r1", &[Completion, Thinking]),
        ("tinyllama", &[Completion]),
        ("nomic-embed-text", &[Embedding]),
        ("mxbai-embed-large", &[Embedding]),
    ]
};

pub(super) fn pull(call: &Call<'_>) -> Result<Answer, Refusal> {
    let fields = call.decode(&PULL)?;
    let name = name(named(&fields))?;
    Ok(progress::answer(flag(&fields, "stream", true), pulling(call.state, &name, is_insecure(&fields))))
}

fn is_insecure(fields: &Map<String, Value>) -> bool {
    flag(fields, "insecure", false)
}

/// The steps of a pull; the model is there with the last one.
pub(super) fn pulling(state: &Arc<State>, name: &Name, insecure: bool) -> impl Iterator<Item = Step> + Send + use<> {
    let mut steps = vec![status("pulling manifest")];
    let model = if name.is_default_host() {
        published(name).ok_or_else(|| "file does not exist".to_owned())
    } else {
        Err(unreachable(name, insecure))
    };
    let state = Arc::clone(state);
    let mut pulled = None;
    match model {
        Ok(model) => {
            for digest in model.layers() {
                let total = if digest == model.weights() { model.card.file_size() } else { 1024 };
                let is_there = state.blob(&format!("sha256:{digest}")).is_some();
                steps.extend(layer("pulling", &digest, total, is_there));
            }
            steps.extend([status("verifying sha256 digest"), status("writing manifest")]);
            pulled = Some(model);
        }
        Err(text) => steps.push(Err(Failure::new(format!("pull model manifest: {text}")))),
    }
    let last = std::iter::once_with(move || {
        pulled.map(|model| {
            state.put(model);
            status("success")
        })
    });
    steps.into_iter().chain(last.flatten())
}

/// A model of Ollama's library.
fn published(name: &Name) -> Option<Model> {
    if !name.is_library() {
        return None;
    }
    let own = Stock::Usual.models().into_iter().find(|model| model.name == *name);
    own.or_else(|| {
        let (known, capabilities) = *LIBRARY.iter().find(|(known, _)| *known == name.model)?;
        // Each tag has weights of its own.
        let parameter_count = Card::PLAIN.parameter_count + hash(name.tag.as_bytes()) % 1_000_000;
        let card = Card { basename: known, parameter_count, ..Card::PLAIN };
        Some(Model { capabilities: capabilities.to_vec(), card, ..Model::new(name.clone()) })
    })
}

/// Go's text for a host that is not there: an address refuses, a name is not found.
fn unreachable(name: &Name, insecure: bool) -> String {
    let scheme = if name.insecure && insecure { "http" } else { "https" };
    let (host, port) = name.host.split_once(':').unwrap_or((&name.host, if scheme == "http" { "80" } else { "443" }));
    let cause = if host.parse::<std::net::IpAddr>().is_ok() || host == "localhost" {
        format!("dial tcp {host}:{port}: connect: connection refused")
    } else {
        format!("dial tcp: lookup {host} on 127.0.0.53:53: no such host")
    };
    format!("Get \"{scheme}://{}/v2/{}/{}/manifests/{}\": {cause}", name.host, name.namespace, name.model, name.tag)
}

pub(super) fn push(call: &Call<'_>) -> Result<Answer, Refusal> {
    let fields = call.decode(&PUSH)?;
    let asked = named(&fields);
    if asked.is_empty() {
        return Err(Refusal::bad_request("model is required"));
    }
    let name = name(asked)?;
    let mut steps = vec![status("retrieving manifest")];
    match call.state.model(&name) {
        None => {
            let Name { host, namespace, model, tag, .. } = &name;
            let text = format!("open {STORE}/manifests/{host}/{namespace}/{model}/{tag}: no such file or directory");
            steps.extend([status("couldn't retrieve manifest"), Err(Failure::new(text))]);
        }
        Some(model) => {
            for digest in model.layers() {
                let total = if digest == model.weights() { model.card.file_size() } else { 1024 };
                steps.extend(layer("pushing", &digest, total, false));
            }
            steps.extend([status("pushing manifest"), status("success")]);
        }
    }
    Ok(progress::answer(flag(&fields, "stream", true), steps.into_iter()))
}
