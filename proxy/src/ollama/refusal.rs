//! What an unsuccessful response of the remote means: Ollama's own `{"error":"text"}`, or the text of something that is
//! not Ollama.
//!
//! The only place that matches on Ollama's texts: all others match on [`Refusal`], and `error.rs` says what it means to
//! a client. Texts and statuses were recorded on 0.13.5, 0.20.0 and 0.33.0-rc2. Pure.

use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Deserialize;

use crate::{
    error::{Error, Params},
    ollama::gateway,
    redact::Redactor,
};

/// Why Ollama did not do what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The prompt does not fit into the context.
    ContextLength {
        /// Tokens of the prompt and of the context, if this version of Ollama reports them.
        counts: Option<(u64, u64)>,
        /// The size beyond which the context cannot grow, once that is known.
        cap: Option<u64>,
    },
    /// There is no such model.
    NoModel,
    /// The model does not take tools.
    NoTools,
    /// The model does not think.
    NoThinking,
    /// The model does not take images or sound.
    NoImages,
    /// The model does not embed.
    NoEmbeddings,
    /// The model cannot do something else, such as to chat.
    Incapable,
    /// A level of thinking is unknown.
    ThinkLevel {
        /// The level was `max`, which older versions do not have.
        only_max: bool,
        /// The model can only think or not.
        for_model: bool,
    },
    /// An option has the wrong type.
    Option {
        /// Its name.
        name: String,
    },
    /// The form of the answer, a schema, is one that Ollama cannot enforce.
    Format,
    /// The process that runs the model died.
    RunnerDied,
    /// A gateway in front of Ollama refused or gave up.
    Gateway,
    /// Anything else.
    Other,
}

/// A refusal, and how Ollama put it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Refused {
    pub(crate) refusal: Refusal,
    /// The status of the response; 500 for a line in mid-stream.
    pub(crate) status: StatusCode,
    /// Ollama's text, without credentials, internal addresses and what its runner wrote about other requests.
    pub(crate) message: String,
    /// How the client calls what it may be about.
    pub(crate) params: Params,
    /// When to ask again, as the remote said.
    pub(crate) retry_after: Option<HeaderValue>,
}

impl Refused {
    /// A refusal of no known kind.
    pub(crate) fn new(status: StatusCode, message: String) -> Self {
        Self { refusal: Refusal::Other, status, message, params: Params::default(), retry_after: None }
    }
}

#[derive(Deserialize)]
struct Body {
    error: String,
}

/// The error of llama-server, which Ollama passes on as text: JSON inside JSON.
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

/// Returns the error that a response with `status`, `headers` and `body` stands for; `asked` names the URL for the
/// reader. What the remote repeats of the credentials that it got does not reach the client.
pub(crate) fn read(status: StatusCode, headers: &HeaderMap, body: &[u8], asked: &str, redactor: &Redactor) -> Error {
    match serde_json::from_slice::<Body>(body) {
        Ok(body) => {
            let retry_after = headers.get(header::RETRY_AFTER).cloned();
            Refused { retry_after, ..from_text(status, &body.error, redactor) }.into()
        }
        Err(_) => gateway::read(status, headers, body, asked, redactor),
    }
}

/// Returns the refusal that Ollama's `text` stands for, in a body with `status` or in a line in mid-stream.
pub(crate) fn from_text(status: StatusCode, text: &str, redactor: &Redactor) -> Refused {
    // The runner's last log lines may follow, about other requests too, so this comes first: they must not decide the
    // kind.
    if let Some(message) = runner_died(text) {
        return Refused { refusal: Refusal::RunnerDied, ..Refused::new(status, redactor.redact(&message)) };
    }
    // Out-of-memory log lines may follow the JSON, so only the first value is read.
    let inner = serde_json::Deserializer::from_str(text).into_iter::<Inner>().next().and_then(Result::ok);
    let (message, refusal) = match &inner {
        Some(Inner { error }) if error.r#type == "exceed_context_size_error" => {
            (&*error.message, Refusal::ContextLength { counts: error.n_prompt_tokens.zip(error.n_ctx), cap: None })
        }
        Some(Inner { error }) => (&*error.message, refusal(status, &error.message)),
        None => (text, refusal(status, text)),
    };
    Refused { refusal, ..Refused::new(status, redactor.redact(message)) }
}

fn refusal(status: StatusCode, message: &str) -> Refusal {
    let has = |part: &str| message.contains(part);
    if has("exceeds the context length") || has("longer than the context length") {
        return Refusal::ContextLength { counts: None, cap: None };
    }
    // Some versions call it 501, which clients would retry (recorded: 0.33.0-rc2 embed/chat-model).
    if has("does not support embeddings") {
        return Refusal::NoEmbeddings;
    }
    match status {
        StatusCode::NOT_FOUND if has("not found") => Refusal::NoModel,
        StatusCode::BAD_REQUEST if has("does not support tools") => Refusal::NoTools,
        StatusCode::BAD_REQUEST if has("does not support thinking") => Refusal::NoThinking,
        // recorded: 0.33.0-rc2 chat/images-on-plain
        StatusCode::BAD_REQUEST if has("does not support multimodal") => Refusal::NoImages,
        StatusCode::BAD_REQUEST if has("does not support") => Refusal::Incapable,
        // recorded: 0.20.0 thinking/level-max
        StatusCode::BAD_REQUEST if has("invalid think value") => {
            Refusal::ThinkLevel { only_max: has("invalid think value: \"max\""), for_model: false }
        }
        // recorded: 0.13.5 thinking/level-low
        StatusCode::BAD_REQUEST if has("think value") && has("is not supported for this model") => {
            Refusal::ThinkLevel { only_max: false, for_model: true }
        }
        // Ollama answers 500 to these, though no retry helps; clients retry a 500.
        StatusCode::INTERNAL_SERVER_ERROR if message.starts_with("option \"") => {
            Refusal::Option { name: message.split('"').nth(1).unwrap_or_default().to_owned() }
        }
        StatusCode::INTERNAL_SERVER_ERROR
            if message.starts_with("invalid format") || has("invalid JSON schema in format") =>
        {
            Refusal::Format
        }
        // recorded: 0.33.0-rc2 chat/bad-schema, structured/pattern-class
        StatusCode::BAD_REQUEST if has("JSON schema conversion failed") || has("failed to parse grammar") => {
            Refusal::Format
        }
        _ => Refusal::Other,
    }
}

/// Returns the message for a text that reports the death of the process which ran the model, without its internal
/// address and without what that process had written before, which may be about the requests of others.
fn runner_died(text: &str) -> Option<String> {
    const DIED: &str = "an error was encountered while running the model";
    const KNOWN: [&str; 4] = [
        DIED,
        "model runner has unexpectedly stopped",
        "llama-server process has terminated",
        "llama runner process has terminated",
    ];
    // recorded: 0.33.0-rc2 mid-failure/embed, with status 400
    if let Some((_, rest)) = text.split_once("Post \"http://127.0.0.1:") {
        let cause = rest.split_once("\": ").map_or("the connection to it is lost", |(_, cause)| cause);
        return Some(format!("{DIED}: {}", without_ports(cause)));
    }
    if !KNOWN.iter().any(|known| text.starts_with(known)) {
        return None;
    }
    // recorded: 0.33.0-rc2 mid-failure/chat-stream-older-error
    let own = text.split_once(": error: ").map_or(text, |(own, _)| own);
    Some(without_ports(own))
}

/// Returns `text` without the addresses of this kind: `127.0.0.1:40000`.
fn without_ports(text: &str) -> String {
    let mut parts = text.split("127.0.0.1:");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out.push_str("the runner");
        out.push_str(part.trim_start_matches(|c: char| c.is_ascii_digit()));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_400(body: &str) -> Error {
        read(
            StatusCode::BAD_REQUEST,
            &HeaderMap::new(),
            body.as_bytes(),
            "http://gpu-box:11434/api/chat",
            &Redactor::default(),
        )
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
        let error = read(StatusCode::INTERNAL_SERVER_ERROR, &HeaderMap::new(), body, "", &Redactor::default());
        assert_eq!((error.row().status.as_u16(), error.param()), (400, Some("num_ctx")));
    }

    #[test]
    fn a_dead_runner_is_a_server_error_whatever_it_wrote_before() {
        let internal = "Post \"http://127.0.0.1:40000/tokenize\": EOF";
        let refused = "do embedding request: Post \"http://127.0.0.1:40000/embedding\": dial tcp 127.0.0.1:40000: connect: connection refused";
        for (status, text, message) in [
            // recorded: 0.33.0-rc2 mid-failure/embed, chat-whole, chat-stream-older-error
            (400, internal, "an error was encountered while running the model: EOF"),
            (
                500,
                refused,
                "an error was encountered while running the model: dial tcp the runner: connect: connection refused",
            ),
            (
                500,
                "an error was encountered while running the model: unexpected EOF",
                "an error was encountered while running the model: unexpected EOF",
            ),
            (
                500,
                "an error was encountered while running the model: error: task id = 0, error: Failed to initialize samplers: failed to parse grammar",
                "an error was encountered while running the model",
            ),
            // Facts of another request, in every kind that a text can have.
            (
                400,
                "an error was encountered while running the model: error: the input length exceeds the context length",
                "an error was encountered while running the model",
            ),
            (
                500,
                "model runner has unexpectedly stopped, this may be due to resource limitations: error: x does not support embeddings",
                "model runner has unexpectedly stopped, this may be due to resource limitations",
            ),
            (
                404,
                "llama-server process has terminated: exit status 1: error: invalid format: model 'x' not found",
                "llama-server process has terminated: exit status 1",
            ),
        ] {
            let error: Error = from_text(StatusCode::from_u16(status).unwrap(), text, &Redactor::default()).into();
            let row = error.row();
            assert_eq!((row.status.as_u16(), row.kind, error.param()), (500, "server_error", None), "{text}");
            assert_eq!(error.to_string(), message);
        }
    }

    #[test]
    fn credentials_that_the_remote_repeats_are_masked() {
        let redactor = Redactor::new([http::HeaderValue::from_static("Basic Z3B1OmNhbmFyeQ==")]);
        let read =
            |body: &str| read(StatusCode::FORBIDDEN, &HeaderMap::new(), body.as_bytes(), "", &redactor).to_string();
        for body in [
            r#"{"error":"bad credential Basic Z3B1OmNhbmFyeQ=="}"#,
            "bad credential Basic Z3B1OmNhbmFyeQ==",
            &format!("{}Z3B1OmNhbmFyeQ==", "x".repeat(190)),
        ] {
            assert!(!read(body).contains("Z3B1"), "{}", read(body));
        }
    }
}
