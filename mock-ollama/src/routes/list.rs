//! The small reads: liveness, version, `/api/tags`, `/api/ps` (`ollama-wire` A2, A3).

use crate::version::Feature;
use http::StatusCode;
use serde_json::{Value, json};

use super::{Call, Refusal};
use crate::{
    models::{Architecture, Model},
    server::answer::Answer,
    version::Version,
};

pub(super) fn root(_: &Call<'_>) -> Result<Answer, Refusal> {
    Ok(Answer::text(StatusCode::OK, "text/plain; charset=utf-8", "Ollama is running"))
}

pub(super) fn version(call: &Call<'_>) -> Result<Answer, Refusal> {
    Ok(Answer::json(StatusCode::OK, &json!({"version": call.state.version.to_string()})))
}

pub(super) fn tags(call: &Call<'_>) -> Result<Answer, Refusal> {
    let version = &call.state.version;
    let models: Vec<Value> = call.state.models().iter().map(|model| tag(model, version)).collect();
    Ok(Answer::json(StatusCode::OK, &json!({"models": models})))
}

fn tag(model: &Model, version: &Version) -> Value {
    let mut details = details(model, model.parent.as_deref().unwrap_or_default());
    let name = model.name.short();
    let mut item = json!({
        "name": name,
        "model": name,
        "modified_at": model.modified.to_string(),
        "size": model.size(),
        "digest": model.digest(),
    });
    if !version.has(Feature::TagsCapabilities) {
        item["details"] = details;
        return item;
    }
    // The list does not know what an encoder is; `/api/show` does (recorded: basic/tags, show/embedding-model).
    let is_encoder = model.card.architecture == Architecture::Bert;
    if !is_encoder {
        details["context_length"] = model.card.context_length.into();
        details["embedding_length"] = model.card.embedding_length.into();
    }
    item["details"] = details;
    item["capabilities"] = if is_encoder { json!(["completion"]) } else { capabilities(model) };
    item
}

pub(super) fn capabilities(model: &Model) -> Value {
    model.capabilities.iter().map(|capability| capability.word()).collect()
}

pub(super) fn details(model: &Model, parent: &str) -> Value {
    let family = model.card.family();
    json!({
        "parent_model": parent,
        "format": "gguf",
        "family": family,
        "families": [family],
        "parameter_size": model.card.parameter_size,
        "quantization_level": model.card.quantization,
    })
}

pub(super) fn ps(call: &Call<'_>) -> Result<Answer, Refusal> {
    let models: Vec<Value> = call
        .state
        .loaded()
        .iter()
        .map(|loaded| {
            let model = &loaded.model;
            let name = model.name.short();
            let cache = u64::from(loaded.context_length) * u64::from(model.card.embedding_length) * 4;
            let mut item = json!({
                "name": name,
                "model": name,
                "size": model.size() + cache,
                "digest": model.digest(),
                "details": details(model, model.parent.as_deref().unwrap_or_default()),
                "expires_at": loaded.expires.to_string(),
                "size_vram": 0,
            });
            if call.state.version.has(Feature::PsContextLength) {
                item["context_length"] = loaded.context_length.into();
            }
            item
        })
        .collect();
    Ok(Answer::json(StatusCode::OK, &json!({"models": models})))
}
