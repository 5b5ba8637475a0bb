//! One call: who makes it, and its two faces, what the client understood and what crossed the wire.
//!
//! It judges nothing; that is [`crate::expect`].

mod audio;
mod chat;
mod fold;
mod form;
pub mod frames;
mod http;
mod images;
mod models;
mod responses;
pub mod tap;
mod typed;
pub mod verbatim;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_openai::{Client, config::OpenAIConfig, error::OpenAIError, middleware::retry::OpenAIRetryLayer};
use base64::{Engine, engine::general_purpose::STANDARD};
use mock_ollama::Seen;
use serde_json::{Value, json};

use crate::{
    net,
    scenario::{Call, Client as Settings, IdCall, JsonCall, Retries, client::Key},
    text::chain,
};
use frames::Frames;
use tap::{End, Recording, Tap};

/// A key that says who uses it, as people write for servers that want none.
pub const API_KEY: &str = "farllama-check";

/// What came of a call.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What the client understood: its types as JSON, without what is null; an error is `{"error": {…}}`.
    pub understood: Value,
    /// What crossed the wire.
    pub recording: Recording,
    /// The answer's body, taken apart.
    pub frames: Frames,
    /// How often the client asked, until it had this.
    pub attempts: usize,
    /// Whether there was no end within the time.
    pub timed_out: bool,
}

/// Where calls go.
#[derive(Clone, Copy, Debug)]
pub struct CallTarget<'a> {
    /// The server's root, without a slash at the end.
    pub url: &'a str,
    /// The root of the OpenAI API, without a slash at the end.
    pub openai: &'a str,
    /// The key that calls need which bring none of their own.
    pub key: Option<&'a str>,
    /// Sends the requests.
    pub http: &'a reqwest::Client,
    /// Called with each piece of a response.
    pub seen: Option<&'a Seen>,
}

/// What a client has understood so far; readable from outside while the client is still at work.
#[derive(Clone, Debug, Default)]
pub(crate) struct Understood(Arc<Mutex<Value>>);

impl Understood {
    pub(crate) fn set(&self, value: Value) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = value;
    }

    fn get(&self) -> Value {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Makes the call, with an OpenAI client as `settings` have it, and waits for the end of its answer, `within` at most.
pub async fn make(call: &Call, settings: &Settings, target: CallTarget<'_>, within: Duration) -> Outcome {
    let leave_after = if let Call::Http(http) = call { http.leave_after } else { None };
    let mut tap = Tap::new(target.http.clone(), leave_after, target.seen.cloned());
    if !matches!(call, Call::Http(_)) && key(settings, target.key).is_none_or(|(header, _)| header.is_some()) {
        tap = tap.without_bearer();
    }
    let understood = Understood::default();
    let calling = async {
        if let Call::Http(http) = call {
            if let Err(words) = http::send(&tap, target, http).await {
                understood.set(json!({"error": {"kind": "transport", "message": words}}));
                return;
            }
        } else {
            with_client(&client(&tap, settings, target), call, &understood).await;
        }
        tap.ended().await;
    };
    let timed_out = tokio::time::timeout(within, calling).await.is_err();
    let mut recording = tap.recording();
    if recording.end == End::Open {
        recording.took = within;
    }
    let frames = Frames::of(&recording).await;
    let mut understood = understood.get();
    if matches!(call, Call::Http(_)) && recording.status.is_some() {
        understood = frames.document();
    }
    Outcome { understood, recording, frames, attempts: tap.attempts(), timed_out }
}

/// Makes a call with the OpenAI client.
async fn with_client(client: &Client<OpenAIConfig>, call: &Call, understood: &Understood) {
    match call {
        // It has no client.
        Call::Http(_) => {}
        Call::Models => models::list(client, understood).await,
        Call::Json(call, request) => with_request(client, *call, request.clone(), understood).await,
        Call::ById(call, id) => match call {
            IdCall::Model => models::retrieve(client, id, understood).await,
            IdCall::Response => responses::retrieve(client, id, understood).await,
            IdCall::DeleteResponse => responses::delete(client, id, understood).await,
            IdCall::CancelResponse => responses::cancel(client, id, understood).await,
            IdCall::InputItems => responses::input_items(client, id, understood).await,
        },
        Call::ImageEdits(edit) => images::edit(client, edit, understood).await,
        Call::ImageVariations(variation) => images::variation(client, variation, understood).await,
        Call::Transcriptions(hearing) => audio::transcriptions(client, hearing, understood).await,
        Call::Translations(hearing) => audio::translations(client, hearing, understood).await,
    }
}

async fn with_request(client: &Client<OpenAIConfig>, call: JsonCall, request: Value, understood: &Understood) {
    match call {
        JsonCall::Chat => chat::create(client, request, understood).await,
        JsonCall::Completions => typed::completions(client, request, understood).await,
        JsonCall::Embeddings => typed::embeddings(client, request, understood).await,
        JsonCall::Moderations => typed::moderations(client, request, understood).await,
        JsonCall::Images => images::generate(client, request, understood).await,
        JsonCall::Responses => responses::create(client, request, understood).await,
        JsonCall::InputTokens => responses::input_tokens(client, request, understood).await,
        JsonCall::Compact => responses::compact(client, request, understood).await,
        JsonCall::Speech => audio::speech(client, &request, understood).await,
    }
}

/// Whether a call can be made as it is written; the parts of a raw one report what is wrong with them.
///
/// # Errors
/// What is wrong with it.
pub fn check(call: &Call) -> Result<(), String> {
    let file = |base64: &str, what: &str| match STANDARD.decode(base64) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("the {what} is not base64: {error}")),
    };
    match call {
        Call::ById(_, id) if id.is_empty() => Err("this call takes an id, and this one is empty".to_owned()),
        Call::Json(_, request) if !request.is_object() => Err("this call takes the request as a mapping".to_owned()),
        Call::Json(JsonCall::Speech, request) => audio::spoken(request).map(drop),
        Call::Models | Call::Http(_) | Call::ById(..) | Call::Json(..) => Ok(()),
        Call::Translations(hearing) if hearing.language.is_some() => {
            Err("a translation takes no language: it is into English from any".to_owned())
        }
        Call::Transcriptions(hearing) | Call::Translations(hearing) => file(&hearing.base64, "recording"),
        Call::ImageEdits(edit) => file(&edit.base64, "image"),
        Call::ImageVariations(variation) => file(&variation.base64, "image"),
    }
}

/// The bytes of a file; what is no base64 was refused when the scenario was read.
fn decoded(base64: &str) -> Vec<u8> {
    STANDARD.decode(base64).unwrap_or_default()
}

fn client(tap: &Tap, settings: &Settings, target: CallTarget<'_>) -> Client<OpenAIConfig> {
    // Nothing is taken from the environment: what is tested is what the scenario says.
    let mut config = OpenAIConfig::new()
        .with_api_base(target.openai)
        .with_org_id(String::new())
        .with_project_id(String::new())
        .with_api_key(String::new());
    match key(settings, target.key) {
        None => {}
        Some((None, key)) => config = config.with_api_key(key),
        Some((Some(header), key)) => {
            // What no header can hold was refused when the scenario was read.
            config = config.clone().with_header(header, key).unwrap_or(config);
        }
    }
    let client = Client::build(target.http.clone(), config);
    let retrying = |layer: OpenAIRetryLayer| tower::Layer::layer(&layer, tap.clone());
    match settings.retries {
        None | Some(Retries::Times(0)) => client.with_http_service(tap.clone()),
        Some(Retries::Times(times)) => client.with_http_service(retrying(OpenAIRetryLayer::new(times))),
        Some(Retries::Default) => client.with_http_service(retrying(OpenAIRetryLayer::default())),
    }
}

/// The key that is sent, and its header, if that is not `authorization`.
fn key<'a>(settings: &'a Settings, general: Option<&'a str>) -> Option<(Option<::http::HeaderName>, &'a str)> {
    let key = match settings.key.as_ref().map(|key| &key.value) {
        Some(Key::None) => return None,
        Some(Key::Text(key)) => key,
        None => general.unwrap_or(API_KEY),
    };
    let header = settings.header.as_ref().and_then(|header| ::http::HeaderName::try_from(&header.value).ok());
    Some((header.filter(|header| *header != ::http::header::AUTHORIZATION), key))
}

/// An error as the client's user sees it. The client does not read the body of a 5xx; it is read here, so that
/// scenarios can.
pub(crate) fn error(error: &OpenAIError) -> Value {
    let understand = match error {
        OpenAIError::ApiError(answer) => {
            let api = &answer.api_error;
            let body: Value = serde_json::from_str(&api.message).unwrap_or_default();
            let mut understand = match &body["error"] {
                Value::Object(envelope) => Value::Object(envelope.clone()),
                _ => json!({"message": api.message, "type": api.r#type, "param": api.param, "code": api.code}),
            };
            understand["kind"] = "api".into();
            understand["status"] = answer.status_code.as_u16().into();
            understand
        }
        OpenAIError::JSONDeserialize(reason, body) => {
            let document: Value = serde_json::from_str(body).unwrap_or_default();
            match &document["error"] {
                // An error event in a stream.
                Value::Object(envelope) if envelope.contains_key("message") => {
                    let mut understand = Value::Object(envelope.clone());
                    understand["kind"] = "api".into();
                    understand
                }
                _ => {
                    json!({"kind": "unreadable", "message": format!("the client cannot read this: {reason}"), "body": body})
                }
            }
        }
        OpenAIError::StreamError(reason) => json!({"kind": "stream", "message": chain(reason)}),
        OpenAIError::Reqwest(reason) => json!({"kind": "transport", "message": net::why(reason)}),
        other => json!({"kind": "client", "message": other.to_string()}),
    };
    json!({"error": without_nulls(understand)})
}

/// A typed answer as JSON. Its 32-bit numbers keep the digits that came: 0.1, not 0.10000000149011612.
pub(crate) fn as_written(typed: &impl serde::Serialize) -> serde_json::Result<Value> {
    serde_json::from_str(&serde_json::to_string(typed)?)
}

/// To a typed client, null and absent are the same.
pub(crate) fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .into_iter()
            .filter(|(_, field)| !field.is_null())
            .map(|(name, field)| (name, without_nulls(field)))
            .collect(),
        Value::Array(items) => items.into_iter().map(without_nulls).collect(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_keeps_the_digits_that_came() {
        assert_eq!(as_written(&[0.1_f32, -1e-7]).unwrap().to_string(), "[0.1,-1e-7]");
    }
}
