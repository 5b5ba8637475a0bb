//! What the settings change in two native answers: lists get aliases and leave out what is hidden, and a model with a
//! context of its own says so where tools read it. Every other byte stays. Pure, but for reading the body.

use axum::body::{Body, to_bytes};
use http::{Method, Response, header};
use serde_json::value::RawValue;

use super::{
    Target,
    native_body::{Edits, Object, span},
};
use crate::{
    config::{Alias, Models},
    offload,
    ollama::name,
    routes::Route,
};

/// Larger answers are passed on unchanged. Lists and descriptions of models are far smaller.
const LIMIT: usize = 64 << 20;

/// What is changed in a native answer.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// The list of models.
    List,
    /// The context of one model.
    Context(u64),
}

/// What the answer to a request needs, if anything.
pub(crate) fn change(models: &Models, route: &Route, method: &Method, target: Option<&Target>) -> Option<Change> {
    if models.leaves_lists_alone() {
        return None;
    }
    match route.row?.name {
        "api/tags" if method == Method::GET => Some(Change::List),
        "api/show" => Some(Change::Context(target?.model.as_ref()?.preset.as_ref()?.num_ctx?)),
        _ => None,
    }
}

impl Change {
    /// Makes the change. An answer that is no success, or cannot be read, stays as it is.
    pub(crate) async fn make(self, models: &Models, response: Response<Body>) -> Response<Body> {
        let length =
            response.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let encoded = response.headers().contains_key(header::CONTENT_ENCODING);
        if !response.status().is_success() || encoded || length.is_some_and(|length: usize| length > LIMIT) {
            return response;
        }
        let (mut parts, body) = response.into_parts();
        let body = match to_bytes(body, LIMIT).await {
            Ok(body) => body,
            // It broke off; a client must not take it for a whole one.
            Err(error) => {
                parts.headers.remove(header::CONTENT_LENGTH);
                let broken = futures_util::stream::once(async move { Err::<axum::body::Bytes, _>(error) });
                return Response::from_parts(parts, Body::from_stream(broken));
            }
        };
        let (models, read) = (models.clone(), body.clone());
        let changed = offload::run(body.len(), move || match self {
            Self::List => list(&read, &models),
            Self::Context(tokens) => context(&read, tokens),
        });
        let body = changed.await.map_or(body, Into::into);
        parts.headers.remove(header::CONTENT_LENGTH);
        Response::from_parts(parts, Body::from(body))
    }
}

/// The answer of `GET /api/tags` without what is hidden, and with aliases at the end. None if it is not one.
fn list(body: &[u8], models: &Models) -> Option<Vec<u8>> {
    let answer: Object<'_> = serde_json::from_slice(body).ok()?;
    let raw = answer.last("models")?;
    let all: Vec<&RawValue> = serde_json::from_str(raw.get()).ok()?;
    let name_of = |raw: &RawValue| {
        serde_json::from_str::<String>(serde_json::from_str::<Object<'_>>(raw.get()).ok()?.last("name")?.get()).ok()
    };
    let named: Vec<(String, &RawValue)> = all.iter().filter_map(|raw| Some((name_of(raw)?, *raw))).collect();
    let shows = |(name, _): &&(String, &RawValue)| {
        models.lists(name) && name::full(models.behind(name, None).0) == name::full(name)
    };
    let own =
        named.iter().filter(shows).map(|(name, raw)| match models.preset(name).and_then(|preset| preset.num_ctx) {
            Some(tokens) => described(raw, None, Some(tokens)),
            None => raw.get().to_owned(),
        });
    let aliases = models.aliases().filter(|alias| models.lists(alias.name)).filter_map(|alias: Alias<'_>| {
        let (_, raw) = named.iter().find(|(name, _)| name::full(name) == name::full(alias.target))?;
        let tokens = models.preset(alias.name).and_then(|preset| preset.num_ctx);
        Some(described(raw, Some(alias.name), tokens))
    });
    let listed: Vec<String> = own.chain(aliases).collect();
    let mut edits = Edits::default();
    edits.replace(span(body, raw), format!("[{}]", listed.join(",")));
    Some(edits.apply(body))
}

/// A model of the list under another name, or with another context.
fn described(raw: &RawValue, name: Option<&str>, tokens: Option<u64>) -> String {
    let text = raw.get();
    let Ok(model) = serde_json::from_str::<Object<'_>>(text) else { return text.to_owned() };
    let mut edits = Edits::default();
    if let Some(name) = name {
        for field in ["name", "model"] {
            if let Some(value) = model.last(field) {
                edits.replace(span(text.as_bytes(), value), serde_json::Value::from(name).to_string());
            }
        }
    }
    let details = model.last("details").and_then(|details| serde_json::from_str::<Object<'_>>(details.get()).ok());
    if let Some((own, tokens)) = details.as_ref().and_then(|details| details.last("context_length")).zip(tokens) {
        edits.number(text.as_bytes(), own, tokens);
    }
    String::from_utf8(edits.apply(text.as_bytes())).unwrap_or_else(|_| text.to_owned())
}

/// The answer of `POST /api/show` with `tokens` for the context, if the model was made for more. None if it does not
/// say.
fn context(body: &[u8], tokens: u64) -> Option<Vec<u8>> {
    let answer: Object<'_> = serde_json::from_slice(body).ok()?;
    let mut edits = Edits::default();
    for holder in ["model_info", "details"] {
        let held = answer.last(holder).and_then(|raw| serde_json::from_str::<Object<'_>>(raw.get()).ok());
        for (name, raw) in held.iter().flat_map(|held| &held.0) {
            // Beside it there is the length that the rope scaling starts from.
            if name == "context_length" || name.ends_with(".context_length") {
                edits.number(body, raw, tokens);
            }
        }
    }
    Some(edits.apply(body))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn a_list_gets_aliases_and_keeps_its_bytes() {
        let text = "[models.\"gpt-4o\"]\nto = \"qwen3:30b\"\nnum_ctx = 32768\n[models]\nhidden = [\"old*\"]\n";
        let models = Config::from_toml(text).unwrap().models;
        let body = r#"{"models":[{"name":"qwen3:30b","model":"qwen3:30b","size":1.50,"details":{"parent_model":"","context_length":262144}}, {"name":"old:1b" ,"model":"old:1b"}], "x":1}"#;
        let expected = r#"{"models":[{"name":"qwen3:30b","model":"qwen3:30b","size":1.50,"details":{"parent_model":"","context_length":262144}},{"name":"gpt-4o","model":"gpt-4o","size":1.50,"details":{"parent_model":"","context_length":32768}}], "x":1}"#;
        assert_eq!(String::from_utf8(list(body.as_bytes(), &models).unwrap()).unwrap(), expected);
        assert_eq!(list(b"[]", &models), None);
    }

    #[test]
    fn a_description_says_how_large_the_context_is() {
        let body = r#"{"model_info":{"a.context_length":40960,"a.rope.scaling.original_context_length":4096, "b.context_length" : 2048}}"#;
        let expected = r#"{"model_info":{"a.context_length":32768,"a.rope.scaling.original_context_length":4096, "b.context_length" : 2048}}"#;
        assert_eq!(String::from_utf8(context(body.as_bytes(), 32768).unwrap()).unwrap(), expected);
    }
}
