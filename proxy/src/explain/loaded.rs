//! What may surprise about a request: that its model is loaded anew, and that the remote's version does not understand
//! it.

use serde::Deserialize;

use crate::{
    error::Error,
    near::nearest,
    ollama::{
        name,
        version::Version,
        wire::{Ps, Tags},
    },
    openai::upstream_request::send::UpstreamRequest,
    upstream::client::Client,
};

/// What a remote says of itself.
#[derive(Debug)]
pub(super) struct Seen {
    version: Version,
    /// The model that is named most like the one that is asked for, if the remote does not have that.
    missing: Option<Missing>,
    /// Whether the model is in memory.
    loaded: bool,
    /// Tokens of its context there, if the remote reports it (from 0.10.0 on).
    context: Option<u64>,
}

/// A model that the remote does not have.
#[derive(Debug)]
struct Missing {
    near: Option<String>,
}

/// Asks a remote.
///
/// # Errors
/// It cannot be reached, or is no Ollama.
pub(super) async fn look(client: &Client, model: &str) -> Result<Seen, Error> {
    let version = client.version().await?;
    let reply = client.call(http::Method::GET, "/api/ps", None).await?;
    let ps: Ps<'_> = client.read("/api/ps", &reply)?;
    let found = ps.models.iter().find(|loaded| name::full(&loaded.name) == name::full(model));
    // What is loaded is there.
    let missing = if found.is_none() { missing(client, model).await? } else { None };
    Ok(Seen { version, missing, loaded: found.is_some(), context: found.and_then(|loaded| loaded.context_length) })
}

/// Whether the remote lacks the model, by its list.
async fn missing(client: &Client, model: &str) -> Result<Option<Missing>, Error> {
    let reply = client.call(http::Method::GET, "/api/tags", None).await?;
    let tags: Tags<'_> = client.read("/api/tags", &reply)?;
    let asked = name::full(model);
    if tags.models.iter().any(|tag| name::full(&tag.name) == asked) {
        return Ok(None);
    }
    let near = nearest(&asked, tags.models.iter().map(|tag| &*tag.name));
    Ok(Some(Missing { near: near.map(str::to_owned) }))
}

/// The context that Ollama loads many models with if nothing says otherwise.
const USUAL_CONTEXT: u64 = 4096;

/// About how many tokens the text of a request has: four bytes are one in English, and fewer are in most other texts.
/// Images are not counted.
fn tokens(body: &serde_json::Value) -> u64 {
    use serde_json::Value;
    fn bytes(value: &Value) -> u64 {
        match value {
            Value::String(text) => text.len() as u64,
            Value::Array(list) => list.iter().map(bytes).sum(),
            Value::Object(map) => map.iter().filter(|(name, _)| *name != "images").map(|(_, value)| bytes(value)).sum(),
            _ => 0,
        }
    }
    bytes(body) / 4
}

/// That a prompt is probably too long for its context, unless contexts grow up to `max`.
fn too_long(body: &serde_json::Value, seen: Option<&Seen>, max: u64) -> Option<String> {
    let tokens = tokens(body);
    let asked = body["options"]["num_ctx"].as_u64();
    let loaded = seen.and_then(|seen| seen.context);
    let context = asked.or(loaded).unwrap_or(USUAL_CONTEXT);
    if tokens <= context.max(max) || body["truncate"] == true {
        return None;
    }
    let of = match (asked, loaded) {
        (Some(_), _) => "that the request asks for",
        (None, Some(_)) => "that the model is loaded with",
        (None, None) => "that Ollama loads many models with",
    };
    Some(format!(
        "the request has about {tokens} tokens, more than the context of {context} {of}: let contexts grow (--context-max 65536), or ask \
         for more with num_ctx"
    ))
}

/// Options that are those of the loaded model, not of one request.
const LOADED: [&str; 7] =
    ["num_ctx", "num_batch", "num_gpu", "main_gpu", "use_mmap", "num_thread", "draft_num_predict"];

/// What may surprise about an ask. `seen` is what the remote says, if it was asked; contexts grow up to `max`.
pub(super) fn warnings(ask: &UpstreamRequest, seen: Option<&Seen>, max: u64) -> Vec<String> {
    #[derive(Default, Deserialize)]
    struct Sent {
        #[serde(default)]
        options: serde_json::Map<String, serde_json::Value>,
        #[serde(default)]
        shift: Option<bool>,
    }
    let sent: Sent = serde_json::from_slice(&ask.body).unwrap_or_default();
    let mut warnings = Vec::new();
    if let Some(seen) = seen {
        outdated(ask, &seen.version, &mut warnings);
        if let Some(Missing { near }) = &seen.missing {
            let near = near.as_ref().map_or(String::new(), |near| format!(". Did you mean `{near}`?"));
            warnings.push(format!("the remote has no model `{}`: the request gets a 404{near}", ask.model));
            return warnings;
        }
        let body = serde_json::from_slice(&ask.body).unwrap_or_default();
        warnings.extend(too_long(&body, Some(seen), max));
        if !seen.loaded {
            warnings.push(format!("the model `{}` is not loaded: the remote loads it for this request", ask.model));
            return warnings;
        }
    } else {
        let body = serde_json::from_slice(&ask.body).unwrap_or_default();
        warnings.extend(too_long(&body, None, max));
    }
    let reloads = "if the model is loaded with another value, the remote loads it anew for this request";
    for (name, value) in sent.options.iter().filter(|(name, _)| LOADED.contains(&name.as_str())) {
        match seen.and_then(|seen| seen.context).filter(|_| name == "num_ctx") {
            None => warnings.push(format!("{name} is {value}: {reloads}")),
            Some(context) if value.as_u64() == Some(context) => {}
            Some(context) => warnings.push(format!(
                "num_ctx is {value}, and the model is loaded with {context}: the remote loads it anew for this request"
            )),
        }
    }
    warnings.extend(sent.shift.map(|shift| format!("shift is {shift}: {reloads}")));
    warnings
}

/// That the remote does not generate images, unless it does.
pub(super) fn makes_none(seen: &Seen) -> Option<String> {
    let text = seen.version.text();
    (!seen.version.generates_images())
        .then(|| format!("the remote is Ollama {text}, which does not generate images: the request is refused"))
}

/// What this version does not understand.
fn outdated(ask: &UpstreamRequest, version: &Version, warnings: &mut Vec<String>) {
    let text = version.text();
    if ask.version_gated.max && !version.has_think_max() {
        warnings.push(format!("the remote is Ollama {text}, which has no level max: it is asked for high"));
    }
    if ask.version_gated.logprobs && !version.has_logprobs() {
        warnings.push(format!("the remote is Ollama {text}, which gives no probabilities: the request is refused"));
    }
    if ask.version_gated.images && !version.refuses_images() {
        warnings.push(format!(
            "the remote is Ollama {text}, which would leave out in silence what the model cannot see: the request is refused unless it can"
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Params;
    use crate::openai::upstream_request::send::VersionGated;

    fn ask(body: &str) -> UpstreamRequest {
        UpstreamRequest {
            path: "/api/chat",
            params: Params::default(),
            model: "m".to_owned(),
            body: body.to_owned().into(),
            may_grow: true,
            limit: None,
            effort: Some("reasoning_effort"),
            forced: false,
            version_gated: VersionGated { max: true, ..VersionGated::default() },
            reask: crate::openai::tools::repair::Repairs::default(),
        }
    }

    #[test]
    fn a_context_is_warned_of_only_where_it_is_not_the_loaded_one() {
        let ask = ask(r#"{"options":{"num_ctx":8192,"seed":1}}"#);
        let seen = |context| Seen { version: Version::newest(), missing: None, loaded: true, context };
        assert_eq!(warnings(&ask, Some(&seen(Some(8192))), 0), [""; 0]);
        assert!(warnings(&ask, Some(&seen(Some(4096))), 0)[0].contains("loaded with 4096"));
        assert!(warnings(&ask, Some(&seen(None)), 0)[0].contains("if the model is loaded with another value"));
        assert!(warnings(&ask, None, 0)[0].starts_with("num_ctx is 8192: if"));
        let cold = Seen { loaded: false, ..seen(None) };
        assert!(warnings(&ask, Some(&cold), 0)[0].contains("is not loaded"));
    }

    #[test]
    fn a_prompt_that_is_longer_than_its_context_is_warned_of_unless_contexts_grow() {
        let body = |more: &str| {
            let text = "word ".repeat(8000);
            serde_json::from_str(&format!(r#"{{"messages":[{{"content":"{text}","images":["{text}"]}}]{more}}}"#))
                .unwrap()
        };
        let warned = |more: &str, max| too_long(&body(more), None, max);
        assert!(warned("", 0).is_some_and(|text| text.contains("about 10000 tokens, more than the context of 4096")));
        assert_eq!(warned("", 65_536), None);
        assert_eq!(warned(r#","options":{"num_ctx":16384}"#, 0), None);
        assert!(
            warned(r#","options":{"num_ctx":8192}"#, 0)
                .is_some_and(|text| text.contains("8192 that the request asks for"))
        );
        assert_eq!(warned(r#","truncate":true"#, 0), None);
    }

    #[test]
    fn what_the_version_does_not_understand_is_warned_of() {
        let old = Seen { version: Version::read("0.20.0"), missing: None, loaded: true, context: None };
        assert!(warnings(&ask("{}"), Some(&old), 0)[0].contains("0.20.0, which has no level max"));
        assert_eq!(makes_none(&old), None);
        let new = Seen { version: Version::newest(), ..old };
        assert!(makes_none(&new).is_some_and(|reported| reported.contains("does not generate images")));
    }
}
