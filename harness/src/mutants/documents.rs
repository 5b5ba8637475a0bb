//! What is done to the JSON documents of an answer: the whole of it, or each event of its stream.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

fn items<'a>(document: &'a mut Value, name: &str) -> impl Iterator<Item = &'a mut Value> {
    document.get_mut(name).and_then(Value::as_array_mut).into_iter().flatten()
}

/// Replaces a field that is there.
fn replace(document: &mut Value, name: &str, with: impl FnOnce(&Value) -> Value) {
    if let Some(field) = document.get_mut(name).filter(|field| !field.is_null()) {
        *field = with(field);
    }
}

fn number(value: &Value, change: impl FnOnce(u64) -> u64) -> Value {
    value.as_u64().map_or_else(|| value.clone(), |number| change(number).into())
}

/// Whether an object is one of OpenAI's answers (Ollama's native ones have no `object`).
fn openai(document: &Value) -> bool {
    document["object"].is_string()
}

pub(super) fn index_wrong(document: &mut Value, _: usize) {
    for list in ["choices", "data"] {
        for item in items(document, list) {
            replace(item, "index", |index| number(index, |index| index + 1));
        }
    }
}

pub(super) fn index_changing(document: &mut Value, nth: usize) {
    if nth > 1 {
        index_wrong(document, nth);
    }
}

pub(super) fn id_wrong(document: &mut Value, _: usize) {
    if openai(document) {
        replace(document, "id", |_| "7".into());
    }
}

pub(super) fn id_changing(document: &mut Value, nth: usize) {
    if openai(document) && nth > 0 {
        replace(document, "id", |id| format!("{}{nth}", id.as_str().unwrap_or_default()).into());
    }
}

pub(super) fn created_wrong(document: &mut Value, _: usize) {
    replace(document, "created", |created| number(created, |created| created * 1000));
    for item in items(document, "data") {
        replace(item, "created", |created| number(created, |created| created * 1000));
    }
}

pub(super) fn created_changing(document: &mut Value, nth: usize) {
    if nth > 0 {
        replace(document, "created", |created| number(created, |created| created + nth as u64));
    }
}

pub(super) fn model_changing(document: &mut Value, nth: usize) {
    if openai(document) && nth > 0 {
        replace(document, "model", |model| format!("{}-{nth}", model.as_str().unwrap_or_default()).into());
    }
}

pub(super) fn role_wrong(document: &mut Value, _: usize) {
    for choice in items(document, "choices") {
        for part in ["message", "delta"] {
            if let Some(message) = choice.get_mut(part) {
                replace(message, "role", |_| "user".into());
            }
        }
    }
}

/// The speaker changes after the first word.
pub(super) fn role_changing(document: &mut Value, nth: usize) {
    for choice in items(document, "choices") {
        if let Some(delta) = choice.get_mut("delta").filter(|_| nth > 0) {
            delta["role"] = "user".into();
        }
    }
}

pub(super) fn finish_wrong(document: &mut Value, _: usize) {
    for choice in items(document, "choices") {
        replace(choice, "finish_reason", |_| "content_filter".into());
    }
}

pub(super) fn finish_missing(document: &mut Value, _: usize) {
    for choice in items(document, "choices") {
        replace(choice, "finish_reason", |_| Value::Null);
    }
}

pub(super) fn usage_wrong(document: &mut Value, _: usize) {
    if let Some(usage) = document.get_mut("usage") {
        replace(usage, "total_tokens", |total| number(total, |total| total + 1));
    }
}

pub(super) fn error_bare(document: &mut Value, _: usize) {
    if let Some(message) = document.get("error").and_then(|error| error.get("message")).cloned() {
        document["error"] = message;
    }
}

/// The error within a stream; in a response, its last event.
pub(super) fn stream_error_swapped(document: &mut Value, nth: usize) {
    let at = if document["type"] == "response.failed" { "/response/error" } else { "/error" };
    if let Some(error) = document.pointer_mut(at).filter(|error| nth > 0 && error.is_object()) {
        replace(error, "type", |_| "invalid_request_error".into());
        replace(error, "code", |_| "invalid_prompt".into());
    }
}

/// In a chat and in a response.
pub(super) fn arguments_object(document: &mut Value, _: usize) {
    let object =
        |arguments: &Value| arguments.as_str().and_then(|text| serde_json::from_str(text).ok()).unwrap_or(json!({}));
    for choice in items(document, "choices") {
        for part in ["message", "delta"] {
            let Some(message) = choice.get_mut(part) else { continue };
            for call in items(message, "tool_calls") {
                if let Some(function) = call.get_mut("function") {
                    replace(function, "arguments", object);
                }
            }
        }
    }
    for item in items(document, "output").filter(|item| item["type"] == "function_call") {
        replace(item, "arguments", object);
    }
}

pub(super) fn base64_big_endian(document: &mut Value, _: usize) {
    for item in items(document, "data") {
        replace(item, "embedding", |vector| {
            let Some(mut bytes) = vector.as_str().and_then(|text| STANDARD.decode(text).ok()) else {
                return vector.clone();
            };
            bytes.chunks_exact_mut(4).for_each(<[u8]>::reverse);
            STANDARD.encode(bytes).into()
        });
    }
}

pub(super) fn embeddings_swapped(document: &mut Value, _: usize) {
    let Some([first, second, ..]) = document.get_mut("data").and_then(Value::as_array_mut).map(Vec::as_mut_slice)
    else {
        return;
    };
    if let (Some(first), Some(second)) = (first.get_mut("embedding"), second.get_mut("embedding")) {
        std::mem::swap(first, second);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(change: fn(&mut Value, usize), nth: usize, mut document: Value) -> Value {
        change(&mut document, nth);
        document
    }

    #[test]
    fn what_is_there_is_changed_and_nothing_is_added() {
        let chunk = json!({"id": "a", "object": "x", "created": 2, "choices": [{"index": 0, "delta": {"role": "assistant"}, "finish_reason": null}]});
        let changed = after(index_wrong, 0, chunk.clone());
        assert_eq!(changed["choices"][0]["index"], 1);
        assert_eq!(after(finish_wrong, 0, chunk.clone()), chunk);
        assert_eq!(after(id_changing, 0, chunk.clone()), chunk);
        assert_eq!(after(id_changing, 3, chunk.clone())["id"], "a3");
        assert_eq!(after(created_wrong, 0, chunk.clone())["created"], 2000);
        assert_eq!(after(role_changing, 0, chunk.clone()), chunk);
        assert_eq!(after(role_changing, 1, chunk.clone())["choices"][0]["delta"]["role"], "user");
        assert_eq!(after(role_wrong, 0, chunk)["choices"][0]["delta"]["role"], "user");
        let native = json!({"model": "m", "message": {"role": "assistant"}});
        assert_eq!(after(model_changing, 1, after(role_wrong, 0, native.clone())), native);
    }

    #[test]
    fn errors_are_bared_and_blamed_on_the_client() {
        let error = json!({"error": {"message": "a", "type": "server_error", "code": "upstream_cut"}});
        assert_eq!(after(error_bare, 0, error.clone()), json!({"error": "a"}));
        assert_eq!(after(error_bare, 0, json!({"error": "a"})), json!({"error": "a"}));
        assert_eq!(after(stream_error_swapped, 0, error.clone()), error);
        assert_eq!(after(stream_error_swapped, 1, json!({})), json!({}));
        assert_eq!(after(stream_error_swapped, 1, error)["error"]["type"], "invalid_request_error");
    }

    #[test]
    fn vectors_are_turned_and_swapped() {
        let vectors = json!({"data": [{"embedding": "AACAPw=="}, {"embedding": "AAAAQA=="}]});
        assert_eq!(after(base64_big_endian, 0, vectors.clone())["data"][0]["embedding"], "P4AAAA==");
        assert_eq!(after(embeddings_swapped, 0, vectors)["data"][0]["embedding"], "AAAAQA==");
    }

    #[test]
    fn arguments_become_what_they_mean() {
        let answer = json!({"choices": [{"message": {"tool_calls": [{"function": {"arguments": "{\"a\":1}"}}]}}]});
        let changed = after(arguments_object, 0, answer);
        assert_eq!(changed["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"], json!({"a": 1}));
        let response = json!({"output": [{"type": "function_call", "arguments": "{\"a\":1}"}]});
        assert_eq!(after(arguments_object, 0, response)["output"][0]["arguments"], json!({"a": 1}));
    }
}
