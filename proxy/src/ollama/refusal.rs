//! What an unsuccessful answer of the remote means: Ollama's own `{"error":"text"}`, or the words of something that is not Ollama.
//!
//! Texts and statuses: `ollama-wire` facts B1 to B5, seen on 0.13.5, 0.20.0 and 0.33.0-rc2. Pure.

use http::StatusCode;
use serde::Deserialize;

use crate::error::Error;

#[derive(Deserialize)]
struct Body {
    error: String,
}

/// What llama-server says, which Ollama passes on as text: JSON inside JSON.
#[derive(Deserialize)]
struct Inner {
    error: InnerError,
}

#[derive(Deserialize)]
struct InnerError {
    message: String,
    #[serde(default)]
    r#type: String,
    n_prompt_tokens: Option<u64>,
    n_ctx: Option<u64>,
}

/// The error that an answer with `status` and `body` stands for; `asked` names the URL for the reader.
pub(crate) fn read(status: StatusCode, body: &[u8], asked: &str) -> Error {
    match serde_json::from_slice::<Body>(body) {
        Ok(body) => from_text(status, &body.error),
        Err(_) => stranger(status, body, asked),
    }
}

/// The error that Ollama's `text` stands for, as a body with `status` or a line in mid-stream.
pub(crate) fn from_text(status: StatusCode, text: &str) -> Error {
    // Out-of-memory log lines may follow the JSON, so only the first value is read.
    let inner = serde_json::Deserializer::from_str(text).into_iter::<Inner>().next().and_then(Result::ok);
    let (message, kind, counts) = match &inner {
        Some(Inner { error }) => (&*error.message, &*error.r#type, error.n_prompt_tokens.zip(error.n_ctx)),
        None => (text, "", None),
    };
    if kind == "exceed_context_size_error"
        || message.contains("exceeds the context length")
        || message.contains("longer than the context length")
    {
        return context_length(message, counts);
    }
    let owned = || message.to_owned();
    match status {
        StatusCode::NOT_FOUND if message.contains("not found") => {
            Error::NotFound { message: owned(), param: Some("model".to_owned()), code: "model_not_found" }
        }
        StatusCode::BAD_REQUEST if message.contains("does not support tools") => Error::unsupported("tools", message),
        StatusCode::BAD_REQUEST if message.contains("does not support thinking") => {
            Error::unsupported("reasoning_effort", message)
        }
        // recorded: 0.33.0-rc2 chat/images-on-plain
        StatusCode::BAD_REQUEST if message.contains("does not support multimodal") => Error::unsupported(
            "messages",
            format!("The model cannot see pictures; take one with the capability vision. (Ollama: {message})"),
        ),
        StatusCode::BAD_REQUEST if message.contains("does not support") => Error::unsupported("model", message),
        StatusCode::BAD_REQUEST if message.contains("invalid think value") => {
            Error::invalid("reasoning_effort", message)
        }
        // Ollama answers 500 for these, though no retry will cure them; clients retry a 500.
        StatusCode::INTERNAL_SERVER_ERROR if message.starts_with("option \"") => {
            let name = message.split('"').nth(1).unwrap_or_default();
            Error::Invalid { message: owned(), param: Some(name.to_owned()), code: Some("invalid_type") }
        }
        StatusCode::INTERNAL_SERVER_ERROR
            if message.starts_with("invalid format") || message.contains("invalid JSON schema in format") =>
        {
            Error::invalid("response_format", message)
        }
        StatusCode::BAD_REQUEST if message.contains("JSON schema conversion failed") => {
            Error::invalid("response_format", message)
        }
        _ => Error::Upstream { status, message: owned() },
    }
}

fn context_length(message: &str, counts: Option<(u64, u64)>) -> Error {
    // Agents look for the words "maximum context length" to compact their history.
    let message = match counts {
        Some((prompt, context)) => format!(
            "This model's maximum context length is {context} tokens. However, your messages resulted in {prompt} tokens. \
             Shorten the messages, ask for more with num_ctx (context.num_ctx in farllama's settings), or let contexts grow (context.max). \
             (Ollama: {message})"
        ),
        None => format!(
            "This model's maximum context length is exceeded by your messages. Shorten the messages, ask for more with num_ctx \
             (context.num_ctx in farllama's settings), or let contexts grow (context.max). (Ollama: {message})"
        ),
    };
    Error::ContextLength { message, counts }
}

/// Something answered that is not Ollama: says what it looks like and what to change.
fn stranger(status: StatusCode, body: &[u8], asked: &str) -> Error {
    let text = String::from_utf8_lossy(&body[..body.len().min(2048)]);
    let text = text.trim();
    let lower = text.to_ascii_lowercase();
    let page = lower.starts_with("<!doctype") || lower.starts_with("<html") || lower.starts_with("<?xml");
    let (what, change) =
        if lower.contains("http request to an https server") || lower.contains("http request was sent to https port") {
            ("a port that speaks TLS", "set remote.protocol to https (--remote-protocol https)")
        } else if status.is_redirection() {
            ("a redirect", "point the remote at the address that it names (--remote-host)")
        } else if status == StatusCode::UNAUTHORIZED {
            (
                "a gateway that wants other credentials",
                "set remote.api_key (--remote-api-key), remote.basic_auth or remote.headers",
            )
        } else if status == StatusCode::FORBIDDEN && body.is_empty() {
            (
                "an empty refusal, as Ollama gives to a Host name that it does not know",
                "let it listen beyond loopback (OLLAMA_HOST=0.0.0.0), or use its IP address as remote.host",
            )
        } else if status == StatusCode::FORBIDDEN {
            (
                "a gateway that refuses this machine or these credentials",
                "check remote.api_key (--remote-api-key), remote.basic_auth, remote.headers and the gateway's rules",
            )
        } else if status == StatusCode::NOT_FOUND {
            ("a server that has no such path", "check remote.base_path (--remote-base-path), the host and the port")
        } else if page {
            ("an HTML page", "check the host, the port and remote.base_path: a web server answers there")
        } else {
            ("something that does not answer as Ollama does", "check the host, the port and remote.base_path")
        };
    let quoted = match (text.is_empty(), page) {
        (true, _) => "an empty body".to_owned(),
        (_, true) => format!("`{}…`", first(text, 60)),
        _ => format!("`{}`", first(text, 200)),
    };
    Error::NotOllama {
        message: format!("not an Ollama at {asked}: {what} answered {} with {quoted}; {change}", status.as_u16()),
    }
}

/// At most `n` characters of the first line.
fn first(text: &str, n: usize) -> String {
    text.lines().next().unwrap_or_default().chars().take(n).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_400(body: &str) -> Error {
        read(StatusCode::BAD_REQUEST, body.as_bytes(), "http://gpu-box:11434/api/chat")
    }

    #[test]
    fn a_raw_llama_refusal_of_a_long_prompt_is_context_length_exceeded_with_its_counts() {
        // recorded: 0.33.0-rc2 chat/overflow-no-truncate
        let error = read_400(
            r#"{"error":"{\"error\":{\"code\":400,\"message\":\"request (4390 tokens) exceeds the available context size (4096 tokens), try increasing it\",\"type\":\"exceed_context_size_error\",\"n_prompt_tokens\":4390,\"n_ctx\":4096}}"}"#,
        );
        assert_eq!(error.row().code, Some("context_length_exceeded"));
        assert!(
            error
                .to_string()
                .contains("maximum context length is 4096 tokens. However, your messages resulted in 4390")
        );
    }

    #[test]
    fn an_older_refusal_of_a_long_prompt_is_context_length_exceeded_too() {
        // recorded: 0.20.0 chat/overflow-no-truncate
        let error = read_400(r#"{"error":"the input length exceeds the context length"}"#);
        assert_eq!(error.row().code, Some("context_length_exceeded"));
    }

    #[test]
    fn a_permanent_fault_that_ollama_calls_500_becomes_400() {
        let body = br#"{"error":"option \"num_ctx\" must be of type integer"}"#;
        let error = read(StatusCode::INTERNAL_SERVER_ERROR, body, "");
        assert_eq!((error.row().status.as_u16(), error.param()), (400, Some("num_ctx")));
    }

    #[test]
    fn whatever_is_not_ollama_is_named_with_what_to_change() {
        let told = |status: u16, body: &str| {
            read(StatusCode::from_u16(status).unwrap(), body.as_bytes(), "http://gpu-box:11434/api/chat").to_string()
        };
        assert!(told(200, "<!DOCTYPE html><title>Router</title>").contains("an HTML page"));
        assert!(told(401, "Unauthorized").contains("remote.api_key"));
        assert!(told(403, "Forbidden").contains("a gateway that refuses"));
        assert!(told(403, "").contains("Host name"));
        assert!(told(404, "404 page not found").contains("remote.base_path"));
        assert!(told(400, "Client sent an HTTP request to an HTTPS server.\n").contains("remote.protocol to https"));
    }
}
