//! What an unsuccessful response of an OpenAI server means to a client of Ollama's. Pure.

use http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use crate::{
    error::Error,
    ollama::refusal::{Refusal, Refused},
    redact::Redactor,
};

/// How much of a text that is not an error is quoted.
const QUOTED: usize = 200;

/// What servers put into an error, each in its own way.
#[derive(Debug, Default, PartialEq)]
struct ServerError {
    message: String,
    code: String,
}

impl ServerError {
    /// Reads OpenAI's envelope, and what FastAPI, older vLLM, Ollama, and Google's server make of it.
    fn of(body: &Value) -> Option<Self> {
        let body = body.get(0).unwrap_or(body);
        let text = |value: &Value| match value {
            Value::String(text) => text.clone(),
            Value::Null => String::new(),
            other => other.to_string(),
        };
        let error = body.get("error").unwrap_or(body);
        let message = match error {
            Value::String(text) => text.clone(),
            error => text(error.get("message").or_else(|| error.get("detail")).or_else(|| body.get("message"))?),
        };
        // OpenRouter says only here what the provider behind it minds.
        let inner = error.get("metadata").and_then(|metadata| metadata.get("raw")).map(text).unwrap_or_default();
        let message = if inner.is_empty() { message } else { format!("{message}: {inner}") };
        let code = error.get("code").or_else(|| error.get("type")).map(text).unwrap_or_default();
        (!message.is_empty()).then_some(Self { message, code })
    }
}

/// Returns the error that a response with `status`, `headers` and `body` stands for; `asked` names the URL, and `model`
/// the model as the client spelled it.
pub(super) fn read(
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    asked: &str,
    model: Option<&str>,
    redactor: &Redactor,
) -> Error {
    let reported = serde_json::from_slice::<Value>(body).ok().as_ref().and_then(ServerError::of);
    let Some(ServerError { message, code }) = reported else { return stranger(status, headers, body, asked, redactor) };
    let message = redactor.redact(&message);
    if let Some(model) = model.filter(|_| is_unknown_model(status, &message, &code)) {
        return Error::NotFound {
            message: format!("model '{model}' not found"),
            param: Some("model".to_owned()),
            code: "model_not_found",
        };
    }
    // A key that the remote refuses is the proxy's, not the caller's.
    let (status, message, refusal) = match status.as_u16() {
        401 | 403 => {
            let message = format!("the remote refused the key that farllama sends (remote.api_key): {message}");
            (status, message, Refusal::Gateway)
        }
        400..600 => (status, message, refusal(&code)),
        // A redirect, or a success that is an error.
        _ => (StatusCode::BAD_GATEWAY, message, Refusal::Other),
    };
    let retry_after = headers.get(header::RETRY_AFTER).cloned();
    Refused { retry_after, refusal, ..Refused::new(status, message) }.into()
}

/// Kinds that the routes which are translated twice distinguish.
fn refusal(code: &str) -> Refusal {
    match code {
        "context_length_exceeded" | "exceed_context_size_error" => Refusal::ContextLength { counts: None, cap: None },
        _ => Refusal::Other,
    }
}

/// Whether a server refuses a text because the model cannot take so much of it.
pub(super) fn is_too_long(error: &Error) -> bool {
    // vLLM and SGLang; llama.cpp's embeddings; TEI.
    const TEXTS: [&str; 3] = ["maximum context length", "is too large to process", "must have less than"];
    match error {
        Error::Refused(refused) => {
            matches!(refused.refusal, Refusal::ContextLength { .. })
                || TEXTS.iter().any(|text| refused.message.contains(text))
        }
        _ => false,
    }
}

fn is_unknown_model(status: StatusCode, message: &str, code: &str) -> bool {
    let message = message.to_ascii_lowercase();
    let missing = ["not found", "does not exist", "not exist", "no such", "not a valid model", "unknown model"];
    let named = message.contains("model") && missing.iter().any(|text| message.contains(text));
    match status {
        StatusCode::NOT_FOUND => code == "model_not_found" || named,
        StatusCode::BAD_REQUEST => code == "model_not_found" || message.contains("is not a valid model"),
        _ => false,
    }
}

/// Something answered that is not an OpenAI server, or a gateway in front of one.
fn stranger(status: StatusCode, headers: &HeaderMap, body: &[u8], asked: &str, redactor: &Redactor) -> Error {
    let text = redactor.redact(&String::from_utf8_lossy(&body[..body.len().min(4096)]));
    let line = text.trim().lines().next().unwrap_or_default();
    let quoted = match line.is_empty() || line.starts_with('<') {
        true => String::new(),
        false => format!(": `{}`", line.chars().take(QUOTED).collect::<String>()),
    };
    let code = status.as_u16();
    match code {
        400..600 if code != 404 && code != 405 => {
            let retry_after = headers.get(header::RETRY_AFTER).cloned();
            let message = format!("the server at {asked} answered with status {code}{quoted}");
            Refused { retry_after, refusal: Refusal::Gateway, ..Refused::new(status, message) }.into()
        }
        404 | 405 => Error::NotOllama {
            message: format!(
                "the server at {asked} has no such route (status {code}{quoted}): check remote.base_path, which is the path of its base URL, \
                 such as /v1"
            ),
        },
        _ => Error::NotOllama {
            message: format!(
                "not an OpenAI server at {asked}: it answered with status {code}{quoted}; check remote.host and remote.base_path"
            ),
        },
    }
}

/// The error in an event of a stream.
pub(super) fn in_stream(error: &RawValue, redactor: &Redactor) -> Error {
    #[derive(Deserialize)]
    struct Coded {
        code: Option<Value>,
    }
    let value: Value = serde_json::from_str(error.get()).unwrap_or_default();
    let reported = match &value {
        Value::String(text) => ServerError { message: text.clone(), code: String::new() },
        value => ServerError::of(value).unwrap_or(ServerError { message: error.get().to_owned(), code: String::new() }),
    };
    // Some put the status there that the head did not have.
    let code = serde_json::from_str::<Coded>(error.get()).ok().and_then(|coded| coded.code);
    let status = code.and_then(|code| u16::try_from(code.as_u64()?).ok()).filter(|code| (400..600).contains(code));
    let status = status.and_then(|code| StatusCode::from_u16(code).ok()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let message = redactor.redact(&reported.message);
    Refused { refusal: refusal(&reported.code), ..Refused::new(status, message) }.into()
}

/// A success that is no completion.
pub(super) fn no_completion(body: &[u8], why: &str, redactor: &Redactor) -> Error {
    let text = redactor.redact(&String::from_utf8_lossy(&body[..body.len().min(QUOTED)]));
    let line = text.trim().lines().next().unwrap_or_default();
    Error::NotOllama { message: format!("the remote's response is not a completion ({why}): `{line}`") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reported(status: u16, headers: &[(&'static str, &'static str)], body: &str) -> (u16, String) {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        let status = StatusCode::from_u16(status).unwrap();
        let redactor = Redactor::new([http::HeaderValue::from_static("Bearer sk-canary-123456")]);
        let error = read(status, &map, body.as_bytes(), "http://box/v1/chat/completions", Some("m:latest"), &redactor);
        (error.row().status.as_u16(), error.to_string())
    }

    #[test]
    fn every_envelope_becomes_one_text() {
        for (status, body, expected) in [
            (400, r#"{"error":{"message":"bad","type":"invalid_request_error","code":null}}"#, "bad"),
            (400, r#"{"object":"error","message":"bad","type":"BadRequestError","code":400}"#, "bad"),
            (422, r#"{"detail":[{"loc":["body"],"msg":"no"}]}"#, r#"[{"loc":["body"],"msg":"no"}]"#),
            (400, r#"[{"error":{"code":400,"message":"bad","status":"INVALID_ARGUMENT"}}]"#, "bad"),
            (500, r#"{"error":"text"}"#, "text"),
            (
                502,
                r#"{"error":{"message":"Provider error","code":502,"metadata":{"raw":"overloaded"}}}"#,
                "Provider error: overloaded",
            ),
        ] {
            assert_eq!(reported(status, &[], body), (status, expected.to_owned()), "{body}");
        }
    }

    #[test]
    fn an_unknown_model_has_ollamas_text() {
        for (status, body) in [
            (404, r#"{"error":{"message":"The model `m` does not exist.","code":"model_not_found"}}"#),
            (404, r#"{"error":{"message":"The model `m` does not exist.","type":"NotFoundError","code":404}}"#),
            (400, r#"{"error":{"message":"m is not a valid model ID","code":400}}"#),
        ] {
            assert_eq!(reported(status, &[], body), (404, "model 'm:latest' not found".to_owned()), "{body}");
        }
        assert_eq!(reported(404, &[], r#"{"error":{"message":"no route"}}"#), (404, "no route".to_owned()));
    }

    #[test]
    fn a_refused_key_is_the_proxys_and_is_never_shown() {
        let (status, text) = reported(401, &[], r#"{"error":{"message":"Incorrect API key: sk-canary-123456"}}"#);
        assert_eq!(status, 401);
        assert!(text.contains("remote.api_key") && !text.contains("canary"), "{text}");
        let (_, text) = reported(500, &[], "Bearer sk-canary-123456");
        assert!(!text.contains("canary"), "{text}");
    }

    #[test]
    fn retry_after_is_passed_on() {
        let mut headers = HeaderMap::new();
        headers.insert(header::RETRY_AFTER, "7".parse().unwrap());
        for body in [r#"{"error":{"message":"slow down"}}"#, "slow down"] {
            let status = StatusCode::TOO_MANY_REQUESTS;
            let error = read(status, &headers, body.as_bytes(), "", None, &Redactor::default());
            let Error::Refused(refused) = error else { panic!("a refusal") };
            assert_eq!((refused.retry_after.unwrap(), refused.status), ("7".parse().unwrap(), status));
        }
    }

    #[test]
    fn what_is_no_openai_server_is_named_with_what_to_change() {
        assert!(reported(404, &[], "404 page not found").1.contains("remote.base_path"));
        assert!(reported(302, &[], "").1.contains("not an OpenAI server"));
        assert_eq!(reported(503, &[], "<html>").0, 503);
    }
}
