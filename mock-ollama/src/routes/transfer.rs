//! `/api/pull` and `/api/push` (`ollama-wire` A8): with a registry on this machine for real, and played for Ollama's
//! own library and for the hosts that a script publishes models at. No byte leaves the machine.

use std::{sync::Arc, time::Duration};

use http_body_util::BodyExt;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use tokio::time::{Instant, interval_at};

use super::{
    Call, Refusal, flag, name, named,
    progress::{self, Failure, Reports, steps},
    registry::Registry,
};
use crate::{
    go,
    models::{Capability, Card, Layer, Model, STORE, Stock},
    names::Name,
    server::{answer::Answer, request::hex},
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

/// How often Ollama reports the progress of a layer. A download that takes less is silent, an upload is reported once
/// more when it is done (recorded: transfer/pull, transfer/push).
const TICK: Duration = Duration::from_millis(60);

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
    let (state, insecure) = (Arc::clone(call.state), is_insecure(&fields));
    let steps = steps(move |reports| async move {
        pulling(&state, &name, insecure, &reports).await?;
        reports.status("success");
        Ok(())
    });
    Ok(progress::answer(flag(&fields, "stream", true), steps))
}

fn is_insecure(fields: &Map<String, Value>) -> bool {
    flag(fields, "insecure", false)
}

/// Pulls a model, which is there afterwards.
///
/// # Errors
/// It is not published, or its registry cannot be reached.
pub(super) async fn pulling(state: &Arc<State>, name: &Name, insecure: bool, reports: &Reports) -> Result<(), Failure> {
    reports.status("pulling manifest");
    let model = if name.is_default_host() || state.publishes_at(&name.host) {
        played_pull(state, name, reports)?
    } else {
        fetched(state, name, insecure, reports).await?
    };
    state.put(model);
    Ok(())
}

fn played_pull(state: &State, name: &Name, reports: &Reports) -> Result<Model, Failure> {
    let missing = || Failure::new("pull model manifest: file does not exist");
    let model = state.published(name).or_else(|| published(name)).ok_or_else(missing)?;
    for layer in model.contents().into_iter().chain([model.config()]) {
        let total = layer.size(&model);
        if state.blob(&format!("sha256:{}", layer.digest)).is_some() {
            reports.layer("pulling", &layer.digest, total, total);
        } else if layer.is_weights() {
            // The last report comes before the end.
            (1..=5).for_each(|part| reports.layer("pulling", &layer.digest, total, total * part / 6));
        }
        state.put_blob(&format!("sha256:{}", layer.digest), layer.content);
    }
    reports.status("verifying sha256 digest");
    reports.status("writing manifest");
    Ok(model)
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

/// Pulls from a registry on this machine.
async fn fetched(state: &Arc<State>, name: &Name, insecure: bool, reports: &Reports) -> Result<Model, Failure> {
    let registry = Registry::of(name, insecure);
    let manifest = registry.manifest(&name.tag).await;
    let manifest = manifest.map_err(|text| Failure::new(format!("pull model manifest: {text}")))?;
    let layers = manifest["layers"].as_array().into_iter().flatten().chain([&manifest["config"]]);
    for layer in layers {
        let (Some(digest), total) = (layer["digest"].as_str(), layer["size"].as_u64().unwrap_or_default()) else {
            return Err(Failure::new("pull model manifest: file does not exist"));
        };
        let hex = digest.strip_prefix("sha256:").filter(|hex| hex.len() == 64);
        let hex = hex.ok_or_else(|| Failure::new("invalid digest format"))?;
        if state.blob(digest).is_some() {
            reports.layer("pulling", hex, total, total);
        } else {
            download(state, &registry, digest, hex, total, reports).await?;
        }
    }
    reports.status("verifying sha256 digest");
    reports.status("writing manifest");
    Ok(Model::of_manifest(name, &manifest, |digest| state.blob_content(digest)))
}

/// Downloads a blob, from where an earlier download was left.
async fn download(
    state: &State,
    registry: &Registry,
    digest: &str,
    hex_digest: &str,
    total: u64,
    reports: &Reports,
) -> Result<(), Failure> {
    let mut completed = state.partial(digest);
    let mut body = registry.blob(digest, completed).await.map_err(Failure::new)?;
    let mut ticks = interval_at(Instant::now() + TICK, TICK);
    loop {
        tokio::select! {
            frame = body.frame() => match frame {
                None => break,
                Some(Err(error)) => return Err(Failure::new(error.to_string())),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        completed = state.add_to_partial(digest, &data);
                    }
                }
            },
            _ = ticks.tick() => reports.layer("pulling", hex_digest, total, completed),
        }
    }
    let content = state.take_partial(digest);
    let got = hex(&Sha256::digest(&content));
    if got != hex_digest {
        let text = format!("digest mismatch, file must be downloaded again: want {digest}, got sha256:{got}");
        return Err(Failure::new(text));
    }
    state.put_blob(digest, content.into());
    Ok(())
}

pub(super) fn push(call: &Call<'_>) -> Result<Answer, Refusal> {
    let fields = call.decode(&PUSH)?;
    let asked = named(&fields);
    if asked.is_empty() {
        return Err(Refusal::bad_request("model is required"));
    }
    let name = name(asked)?;
    let (state, insecure) = (Arc::clone(call.state), is_insecure(&fields));
    let steps = steps(move |reports| async move {
        pushing(&state, &name, insecure, &reports).await?;
        reports.status("success");
        Ok(())
    });
    Ok(progress::answer(flag(&fields, "stream", true), steps))
}

async fn pushing(state: &State, name: &Name, insecure: bool, reports: &Reports) -> Result<(), Failure> {
    reports.status("retrieving manifest");
    let Some(model) = state.model(name) else {
        let Name { host, namespace, model, tag, .. } = name;
        reports.status("couldn't retrieve manifest");
        let text = format!("open {STORE}/manifests/{host}/{namespace}/{model}/{tag}: no such file or directory");
        return Err(Failure::new(text));
    };
    let layers: Vec<Layer> = model.contents().into_iter().chain([model.config()]).collect();
    if name.is_default_host() || state.publishes_at(&name.host) {
        for layer in &layers {
            let total = layer.size(&model);
            let parts = if layer.is_weights() { 4 } else { 1 };
            (1..=parts).for_each(|part| reports.layer("pushing", &layer.digest, total, total * part / parts));
        }
        reports.status("pushing manifest");
        return Ok(());
    }
    let registry = Registry::of(name, insecure);
    for layer in &layers {
        upload(state, &registry, layer, reports).await?;
    }
    reports.status("pushing manifest");
    let described = |layer: &Layer| {
        let size = state
            .blob_content(&format!("sha256:{}", layer.digest))
            .map_or(layer.content.len(), |content| content.len());
        json!({"mediaType": layer.media_type, "digest": format!("sha256:{}", layer.digest), "size": size})
    };
    let (config, others) = layers.split_last().ok_or_else(|| Failure::new("no layers"))?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": described(config),
        "layers": others.iter().map(described).collect::<Vec<Value>>(),
    });
    registry.put_manifest(&name.tag, manifest.to_string()).await.map_err(Failure::new)
}

/// Uploads a layer that the registry does not have. Progress is reported at every tick, and at the first one after the
/// end.
async fn upload(state: &State, registry: &Registry, layer: &Layer, reports: &Reports) -> Result<(), Failure> {
    let digest = format!("sha256:{}", layer.digest);
    let has = registry.has(&digest).await.map_err(Failure::new)?;
    let content = state.blob_content(&digest).unwrap_or_else(|| layer.content.clone());
    let total = content.len() as u64;
    if has {
        reports.layer("pushing", &layer.digest, total, total);
        return Ok(());
    }
    if hex(&Sha256::digest(&content)) != layer.digest {
        let text = format!("open {STORE}/blobs/sha256-{}: no such file or directory", layer.digest);
        return Err(Failure::new(text));
    }
    let mut uploading = std::pin::pin!(registry.upload(&digest, content));
    let mut ticks = interval_at(Instant::now() + TICK, TICK);
    let mut done = None;
    loop {
        tokio::select! {
            result = &mut uploading, if done.is_none() => done = Some(result),
            _ = ticks.tick() => {
                reports.layer("pushing", &layer.digest, total, if done.is_some() { total } else { total / 2 });
                if let Some(result) = done {
                    return result.map_err(Failure::new);
                }
            }
        }
    }
}
