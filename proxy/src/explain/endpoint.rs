//! Which endpoint a body is for: as it is named, or, of those whose main field it has, the one that knows most of the
//! others. Pure.

use serde_json::{Map, Value};

use crate::{
    error::Error,
    openai::request::{
        json::Json,
        parameters::{Endpoint, rows},
    },
    routes::{self, Row},
};

/// The rows whose requests can be explained.
fn rows_with_fields() -> impl DoubleEndedIterator<Item = (Endpoint, &'static Row)> {
    routes::TABLE.iter().filter_map(|row| Some((row.endpoint?, row)))
}

/// The endpoints whose requests can be explained: short name, and what it is for.
#[must_use]
pub fn endpoints() -> Vec<(&'static str, String)> {
    let native = NATIVE.iter().filter_map(|name| routes::TABLE.iter().find(|row| row.name == *name));
    let native = native
        .map(|row| (row.name, format!("POST {}: {} For a remote that is an OpenAI server.", row.path, row.summary)));
    let openai = rows_with_fields().map(|(_, row)| (row.name, format!("{}: {}", row.title(), row.summary)));
    openai.chain(native).collect()
}

/// Native routes that are translated for a remote that is an OpenAI server.
const NATIVE: [&str; 4] = ["api/chat", "api/generate", "api/embed", "api/embeddings"];

/// The path of the native route with that short name, if it is translated for an OpenAI server.
pub(super) fn native(name: &str) -> Option<&'static str> {
    let known = NATIVE.contains(&name);
    routes::TABLE.iter().find(|row| known && row.name == name).map(|row| row.path)
}

/// The endpoint with that short name.
pub(super) fn named(name: &str) -> Option<Endpoint> {
    rows_with_fields().find(|(_, row)| row.name == name).map(|(endpoint, _)| endpoint)
}

/// Method and path.
pub(super) fn path(endpoint: Endpoint) -> String {
    routes::of(endpoint).map(Row::title).unwrap_or_default()
}

/// What a request of that endpoint is about.
fn main_field(endpoint: Endpoint) -> &'static str {
    match endpoint {
        Endpoint::Chat | Endpoint::Messages => "messages",
        Endpoint::Completions | Endpoint::Images => "prompt",
        Endpoint::Embeddings | Endpoint::Responses | Endpoint::Moderations => "input",
        Endpoint::Transcriptions | Endpoint::Translations => "file",
    }
}

/// The endpoint that a body is most likely for.
///
/// # Errors
/// The body is no JSON object.
pub(super) fn found(json: &Json) -> Result<Endpoint, Error> {
    let names: Vec<String> = json.fields()?.left().map(|(name, _)| name.into_owned()).collect();
    let has = |name: &str| names.iter().any(|known| known == name);
    // Only a moderation may leave the model to the server.
    if has("input") && !has("model") {
        return Ok(Endpoint::Moderations);
    }
    // Of those with an input, only a moderation has parts, and only a response has items.
    let input: Vec<Map<String, Value>> =
        json.fields()?.raw("input").and_then(|input| serde_json::from_str(input.get()).ok()).unwrap_or_default();
    if let Some(first) = input.first() {
        let part = first.get("type").is_some_and(|kind| kind == "text" || kind == "image_url");
        return Ok(if part { Endpoint::Moderations } else { Endpoint::Responses });
    }
    if is_message(json)? {
        return Ok(Endpoint::Messages);
    }
    // The first of those that are equally likely.
    let score = |endpoint: Endpoint| (has(main_field(endpoint)), rows(endpoint).filter(|row| has(row.name)).count());
    let endpoints = rows_with_fields().rev().map(|(endpoint, _)| endpoint);
    Ok(endpoints.max_by_key(|endpoint| score(*endpoint)).unwrap_or(Endpoint::Chat))
}

/// Whether a body has what only Anthropic's messages have: tools with an `input_schema`, or blocks of its types.
///
/// # Errors
/// Fails if the body is no JSON object.
fn is_message(json: &Json) -> Result<bool, Error> {
    let fields = json.fields()?;
    let has = |list: &str, of: &dyn Fn(&Map<String, Value>) -> bool| {
        let list = fields.raw(list).and_then(|raw| serde_json::from_str::<Vec<Map<String, Value>>>(raw.get()).ok());
        list.is_some_and(|list| list.iter().any(of))
    };
    let block = |block: &Value| {
        let kind = block["type"].as_str().unwrap_or_default();
        matches!(kind, "tool_use" | "tool_result" | "thinking" | "image" | "document" | "search_result")
    };
    let blocks = |message: &Map<String, Value>| {
        message.get("content").and_then(Value::as_array).is_some_and(|all| all.iter().any(block))
    };
    Ok(has("tools", &|tool| tool.contains_key("input_schema")) || has("messages", &blocks))
}

/// The other endpoints that a body is just as likely for as for `found`: then `found` is a guess.
///
/// # Errors
/// Fails if the body is no JSON object.
pub(super) fn as_likely(json: &Json, found: Endpoint) -> Result<Vec<Endpoint>, Error> {
    let names: Vec<String> = json.fields()?.left().map(|(name, _)| name.into_owned()).collect();
    let has = |name: &str| names.iter().any(|known| known == name);
    let is_list = json.fields()?.raw("input").is_some_and(|input| input.get().starts_with("[{"));
    // These differ in more than names.
    if is_list || !has("model") {
        return Ok(Vec::new());
    }
    let score = |endpoint: Endpoint| rows(endpoint).filter(|row| has(row.name)).count();
    // A message says how long it may be.
    let fits = |endpoint: Endpoint| has(main_field(endpoint)) && (endpoint != Endpoint::Messages || has("max_tokens"));
    let alike = |endpoint: &Endpoint| *endpoint != found && fits(*endpoint) && score(*endpoint) == score(found);
    Ok(rows_with_fields().map(|(endpoint, _)| endpoint).filter(alike).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_for_the_endpoint_whose_main_field_it_has_and_that_knows_most_of_the_others() {
        for (body, name) in [
            (r#"{"model":"m","messages":[]}"#, "chat"),
            (r#"{"model":"m"}"#, "chat"),
            (r#"{"model":"m","max_tokens":5,"system":"s","messages":[]}"#, "messages"),
            (r#"{"model":"m","messages":[],"tools":[{"name":"f","input_schema":{}}]}"#, "messages"),
            (
                r#"{"model":"m","messages":[{"role":"user","content":[{"type":"tool_result","tool_use_id":"t"}]}]}"#,
                "messages",
            ),
            (r#"{"model":"m","messages":[{"role":"user","content":[{"type":"image_url"}]}]}"#, "chat"),
            (r#"{"model":"m","prompt":"p"}"#, "completions"),
            (r#"{"model":"m","prompt":"p","suffix":"s","max_tokens":5}"#, "completions"),
            (r#"{"model":"m","prompt":"p","reasoning_effort":"max"}"#, "completions"),
            (r#"{"model":"m","prompt":"p","size":"512x512"}"#, "images"),
            (r#"{"model":"m","input":"i"}"#, "embeddings"),
            (r#"{"model":"m","input":["i"],"dimensions":8}"#, "embeddings"),
            (r#"{"model":"m","input":"i","instructions":"s"}"#, "responses"),
            (r#"{"model":"m","input":[{"role":"user","content":"hi"}]}"#, "responses"),
            (r#"{"model":"m","input":[{"type":"function_call_output","call_id":"c","output":"o"}]}"#, "responses"),
            (r#"{"model":"m","input":[{"type":"text","text":"i"}]}"#, "moderations"),
            (r#"{"input":"i"}"#, "moderations"),
            (r#"{"model":"m","file":"f"}"#, "transcriptions"),
        ] {
            assert_eq!(Some(found(&Json::of_test(body.as_bytes().to_vec())).unwrap()), named(name), "{body}");
        }
        assert!(found(&Json::of_test(b"[]".to_vec())).is_err());
    }
}
