//! What can go wrong, as values; the one table that gives each its status, type and code; and the one place that writes
//! error bodies.
//!
//! Messages say what to change, and keep the upstream's own text. No other module of this crate makes an error body.

use std::{borrow::Cow, fmt, time::Duration};

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

use crate::{
    ollama::refusal::{Refusal, Refused},
    text,
};

/// What went wrong with a request: a closed list of kinds, not of who noticed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(crate) enum Error {
    /// The request cannot be understood or is out of range.
    #[error("{message}")]
    Invalid { message: String, param: Option<String>, code: Option<&'static str> },
    /// The request is understood, but Ollama cannot do it, so we do not pretend.
    #[error("{message}")]
    Unsupported { message: String, param: Option<String> },
    /// The request has no key, or, where one was `sent`, it is none of ours.
    #[error("{message}")]
    Key { message: String, sent: bool },
    /// The caller asks too often, or too much at the same time; in `retry_after` seconds it may ask again.
    #[error("{message}")]
    Quota { message: String, retry_after: u64 },
    /// The caller has used its tokens; in `retry_after` seconds it may ask again.
    #[error("{message}")]
    Tokens { message: String, retry_after: u64 },
    /// The browser page that asks, or the name it asked for, is not allowed here.
    #[error("{message}")]
    Forbidden { message: String },
    /// The key is one of ours, but may not do this.
    #[error("{message}")]
    Denied { message: String },
    /// The client fell silent in the middle of its body.
    #[error(
        "the request's body was silent for {} before its end; raise limits.body_idle in the settings",
        humantime::format_duration(*within)
    )]
    Silent { within: Duration },
    /// The client sends its body more slowly than `rate` bytes per second.
    #[error(
        "the request's body arrives at less than {rate} bytes per second; lower limits.body_rate in the settings (0: no lowest rate)"
    )]
    Slow { rate: u64 },
    /// The request breaks a rule of HTTP, or needs a part of it that is not implemented.
    #[error("{message}")]
    Http { status: StatusCode, message: String },
    /// The caller has too many connections or requests open.
    #[error("{message}")]
    Busy { message: String },
    /// No such model, path or stored object.
    #[error("{message}")]
    NotFound { message: String, param: Option<String>, code: &'static str },
    /// OpenAI has this endpoint, farllama does not.
    #[error("{message}")]
    NotImplemented { message: String },
    /// The path exists, but not with this method; `allow` is the header's value.
    #[error("{method} is not allowed here; the path takes {allow}")]
    Method { method: String, allow: String },
    /// The body is larger than `limit` bytes.
    #[error(
        "the request body is larger than {limit} bytes; raise limits.body (limits.native_body on native routes) in the settings"
    )]
    TooLarge { limit: usize },
    /// Ollama refused or failed.
    #[error("{0}")]
    Refused(Box<Refused>),
    /// What answers at the remote address is not an Ollama.
    #[error("{message}")]
    NotOllama { message: String },
    /// There is no connection to the remote.
    #[error("{message}")]
    Unreachable { message: String },
    /// The remote took too long.
    #[error("{message}")]
    Timeout { message: String },
    /// The remote's answer stopped before its end.
    #[error("{message}")]
    Cut { message: String },
    /// The request has already passed this process.
    #[error("{message}")]
    Loop { message: String },
    /// The request was canceled on the proxy's side: because it stops (`shutdown`), or by an operator.
    #[error("{}", if *shutdown { "the proxy is shutting down and has ended this request; send it again" } else { "an operator of the proxy has canceled this request" })]
    Canceled { shutdown: bool },
    /// The caller has canceled its own request, with another one.
    #[error("the caller has canceled this request")]
    CanceledByCaller,
    /// A bug of ours.
    #[error("internal error: {message}")]
    Internal { message: String },
}

/// How an [`Error`] looks on the wire: a row of the table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Row {
    pub(crate) status: StatusCode,
    /// OpenAI's `error.type`.
    pub(crate) kind: &'static str,
    /// OpenAI's `error.code`.
    pub(crate) code: Option<&'static str>,
}

impl Error {
    /// The table: kind → status, type, code. Statuses that clients retry (408, 409, 429, 5xx) stand only where a retry
    /// can help.
    pub(crate) fn row(&self) -> Row {
        const CALLER: &str = "invalid_request_error";
        const SERVER: &str = "server_error";
        let row = |status, kind, code| Row { status, kind, code };
        match self {
            Self::Invalid { code, .. } => row(StatusCode::BAD_REQUEST, CALLER, *code),
            Self::Unsupported { .. } => row(StatusCode::BAD_REQUEST, CALLER, Some("unsupported_value")),
            Self::Key { sent, .. } => row(StatusCode::UNAUTHORIZED, CALLER, sent.then_some("invalid_api_key")),
            Self::Quota { .. } => row(StatusCode::TOO_MANY_REQUESTS, "requests", Some("rate_limit_exceeded")),
            Self::Tokens { .. } => row(StatusCode::TOO_MANY_REQUESTS, "tokens", Some("rate_limit_exceeded")),
            Self::Forbidden { .. } | Self::Denied { .. } => row(StatusCode::FORBIDDEN, CALLER, None),
            Self::Silent { .. } | Self::Slow { .. } => {
                row(StatusCode::REQUEST_TIMEOUT, CALLER, Some("request_timeout"))
            }
            Self::Http { status, .. } => row(*status, CALLER, None),
            Self::Busy { .. } => row(StatusCode::SERVICE_UNAVAILABLE, SERVER, Some("server_busy")),
            Self::NotFound { code, .. } => row(StatusCode::NOT_FOUND, CALLER, Some(*code)),
            Self::NotImplemented { .. } => row(StatusCode::NOT_IMPLEMENTED, CALLER, Some("not_implemented")),
            Self::Method { .. } => row(StatusCode::METHOD_NOT_ALLOWED, CALLER, Some("method_not_supported")),
            Self::TooLarge { .. } => row(StatusCode::PAYLOAD_TOO_LARGE, CALLER, Some("request_too_large")),
            Self::Refused(refused) => match &refused.refusal {
                Refusal::ContextLength { .. } => row(StatusCode::BAD_REQUEST, CALLER, Some("context_length_exceeded")),
                Refusal::NoModel => row(StatusCode::NOT_FOUND, CALLER, Some("model_not_found")),
                Refusal::NoTools
                | Refusal::NoThinking
                | Refusal::NoImages
                | Refusal::NoEmbeddings
                | Refusal::Incapable => row(StatusCode::BAD_REQUEST, CALLER, Some("unsupported_value")),
                Refusal::ThinkLevel { .. } | Refusal::Format => {
                    row(StatusCode::BAD_REQUEST, CALLER, Some("invalid_value"))
                }
                Refusal::Option { .. } => row(StatusCode::BAD_REQUEST, CALLER, Some("invalid_type")),
                Refusal::RunnerDied => row(StatusCode::INTERNAL_SERVER_ERROR, SERVER, None),
                _ if refused.status == StatusCode::TOO_MANY_REQUESTS => {
                    row(refused.status, "requests", Some("rate_limit_exceeded"))
                }
                Refusal::Gateway => match refused.status.as_u16() {
                    401 => row(refused.status, CALLER, Some("upstream_unauthorized")),
                    403 => row(refused.status, CALLER, Some("upstream_forbidden")),
                    413 => row(refused.status, CALLER, Some("request_too_large")),
                    504 | 522 | 524 => row(refused.status, SERVER, Some("timeout")),
                    _ => row(refused.status, SERVER, Some("upstream_unreachable")),
                },
                Refusal::Other if refused.status.is_client_error() => row(refused.status, CALLER, None),
                Refusal::Other => row(refused.status, SERVER, None),
            },
            Self::NotOllama { .. } => row(StatusCode::BAD_GATEWAY, SERVER, Some("not_ollama")),
            Self::Unreachable { .. } => row(StatusCode::BAD_GATEWAY, SERVER, Some("upstream_unreachable")),
            Self::Timeout { .. } => row(StatusCode::GATEWAY_TIMEOUT, SERVER, Some("timeout")),
            Self::Cut { .. } => row(StatusCode::BAD_GATEWAY, SERVER, Some("upstream_cut")),
            Self::Loop { .. } => row(StatusCode::LOOP_DETECTED, SERVER, Some("loop_detected")),
            Self::Canceled { shutdown: true } => row(StatusCode::SERVICE_UNAVAILABLE, SERVER, Some("shutting_down")),
            // Clients retry a 5xx, and what an operator cancels should not come back.
            Self::Canceled { shutdown: false } | Self::CanceledByCaller => {
                row(StatusCode::FORBIDDEN, CALLER, Some("request_canceled"))
            }
            Self::Internal { .. } => row(StatusCode::INTERNAL_SERVER_ERROR, SERVER, None),
        }
    }

    /// Status and type in Anthropic's API. It has a status of its own for a server that has too much to do, which its
    /// clients retry.
    fn anthropic(&self) -> (StatusCode, &'static str) {
        let status = match self {
            Self::Busy { .. } => overloaded(),
            Self::Refused(refused)
                if refused.refusal == Refusal::Other && refused.status == StatusCode::SERVICE_UNAVAILABLE =>
            {
                overloaded()
            }
            _ => self.row().status,
        };
        let kind = match status.as_u16() {
            401 => "authentication_error",
            403 => "permission_error",
            404 => "not_found_error",
            413 => "request_too_large",
            429 => "rate_limit_error",
            504 => "timeout_error",
            529 => "overloaded_error",
            500.. => "api_error",
            _ => "invalid_request_error",
        };
        (status, kind)
    }

    /// The request field that is to blame, as a path such as `messages[2].content`.
    pub(crate) fn param(&self) -> Option<&str> {
        match self {
            Self::Invalid { param, .. } | Self::Unsupported { param, .. } | Self::NotFound { param, .. } => {
                param.as_deref()
            }
            Self::Refused(refused) => refused.param(),
            _ => None,
        }
    }

    /// Field `param` is not there, and must be.
    pub(crate) fn missing(param: impl Into<String>) -> Self {
        let param = param.into();
        Self::Invalid {
            message: format!("Missing required parameter: '{param}'."),
            param: Some(param),
            code: Some("missing_required_parameter"),
        }
    }

    /// Whether farllama refuses the request by itself, without the remote.
    pub(crate) fn is_own_refusal(&self) -> bool {
        matches!(self, Self::NotImplemented { .. } | Self::Busy { .. } | Self::Http { .. } | Self::Loop { .. })
    }

    /// A value of field `param` that is not one of those that OpenAI's API has.
    pub(crate) fn invalid(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid { message: message.into(), param: Some(param.into()), code: Some("invalid_value") }
    }

    /// The same error for a client that has these names for what was asked.
    pub(crate) fn blaming(mut self, params: Params) -> Self {
        if let Self::Refused(refused) = &mut self {
            refused.params = params;
        }
        self
    }

    /// An answer that ends in order, but before it is done. Ollama does so without a word when a model only repeats
    /// itself (more than 30 times the same token).
    pub(crate) fn unfinished() -> Self {
        Self::Cut {
            message: "the remote Ollama ended its answer before it was done (it does so when a model only repeats itself, or when its runner dies)"
                .to_owned(),
        }
    }

    /// A panic was caught.
    pub(crate) fn panicked() -> Self {
        Self::Internal { message: "the proxy failed on this request; its log says where".to_owned() }
    }

    /// A value of field `param` that OpenAI's API has and Ollama cannot serve.
    pub(crate) fn unsupported(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Unsupported { message: message.into(), param: Some(param.into()) }
    }
}

/// The status of Anthropic's `overloaded_error`.
fn overloaded() -> StatusCode {
    StatusCode::from_u16(529).unwrap_or(StatusCode::SERVICE_UNAVAILABLE)
}

/// The client's names for what an upstream request is made of, for errors that blame one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Params {
    /// What the model reads.
    pub(crate) prompt: &'static str,
    /// What gives the answer its form.
    pub(crate) format: &'static str,
    /// What says how much to think.
    pub(crate) effort: &'static str,
}

impl Default for Params {
    /// Those of chat completions.
    fn default() -> Self {
        Self { prompt: "messages", format: "response_format", effort: "reasoning_effort" }
    }
}

impl Params {
    /// The names of an endpoint where the model reads field `prompt`.
    pub(crate) fn reading(prompt: &'static str) -> Self {
        Self { prompt, ..Self::default() }
    }
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        Self::Refused(Box::new(refused))
    }
}

impl Refused {
    /// Anthropic's sentence for a prompt that does not fit: Claude Code compacts its history when it reads it.
    fn too_long(&self) -> Option<String> {
        let Refusal::ContextLength { counts, cap } = &self.refusal else { return None };
        let counted = match counts {
            Some((tokens, context)) => format!("{tokens} tokens > {} maximum", cap.unwrap_or(*context)),
            None => "it does not fit into the model's context".to_owned(),
        };
        Some(format!(
            "prompt is too long: {counted}. Shorten the {}, ask for a larger context with num_ctx (context.num_ctx in farllama's settings), \
             or let contexts grow (context.max). (Ollama: {})",
            self.params.prompt, self.message
        ))
    }

    fn param(&self) -> Option<&str> {
        match &self.refusal {
            Refusal::ContextLength { .. } | Refusal::NoImages => Some(self.params.prompt),
            Refusal::NoModel | Refusal::NoEmbeddings | Refusal::Incapable => Some("model"),
            Refusal::NoTools => Some("tools"),
            Refusal::NoThinking | Refusal::ThinkLevel { .. } => Some(self.params.effort),
            Refusal::Option { name } => Some(name),
            Refusal::Format => Some(self.params.format),
            Refusal::RunnerDied | Refusal::Gateway | Refusal::Other => None,
        }
    }
}

/// The one place that says what a refusal means to a client.
impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { refusal, message, params, .. } = self;
        let prompt = params.prompt;
        match refusal {
            // Agents look for the words "maximum context length" to compact their history.
            Refusal::ContextLength { counts, cap } => {
                match counts {
                    Some((tokens, context)) => write!(
                        f,
                        "This model's maximum context length is {context} tokens. However, your {prompt} resulted in {tokens} tokens. "
                    )?,
                    None => write!(f, "This model's maximum context length is exceeded by your {prompt}. ")?,
                }
                write!(
                    f,
                    "Shorten the {prompt}, ask for more with num_ctx (context.num_ctx in farllama's settings), \
                     or let contexts grow (context.max). (Ollama: {message})"
                )?;
                match cap {
                    Some(cap) => {
                        write!(f, " It cannot grow beyond {cap} tokens (context.max, and what the model was made for).")
                    }
                    None => Ok(()),
                }
            }
            Refusal::NoImages => {
                write!(f, "The model cannot process images; use one with the capability vision. (Ollama: {message})")
            }
            Refusal::NoEmbeddings => {
                write!(f, "The model cannot embed; take one that can, such as nomic-embed-text. (Ollama: {message})")
            }
            _ => f.write_str(message),
        }
    }
}

/// The error of ours that another stands for: what a body ended with, as its reader reported it.
pub(crate) fn own(error: &(dyn std::error::Error + 'static)) -> Option<Error> {
    std::iter::successors(Some(error), |error| error.source()).find_map(|error| error.downcast_ref()).cloned()
}

/// Whose API an error is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// `{"error":{"message","type","param","code"}}`.
    OpenAi,
    /// `{"type":"error","error":{"type","message"},"request_id"}`.
    Anthropic,
    /// `{"error":"text"}`.
    Ollama,
}

#[derive(Serialize)]
struct OpenAiBody<'a> {
    error: OpenAiError<'a>,
}

#[derive(Serialize)]
struct OpenAiError<'a> {
    message: Cow<'a, str>,
    r#type: &'a str,
    param: Option<&'a str>,
    code: Option<&'a str>,
}

#[derive(Serialize)]
struct AnthropicBody<'a> {
    r#type: &'static str,
    error: AnthropicError<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
}

#[derive(Serialize)]
struct AnthropicError<'a> {
    r#type: &'static str,
    message: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<AnthropicDetails>,
}

/// What Anthropic's clients go by when they ask for something that is not available.
#[derive(Serialize)]
struct AnthropicDetails {
    error_code: &'static str,
    unsupported: [&'static str; 1],
}

impl AnthropicDetails {
    /// A conversation that the server should store: clients that get this error store it themselves.
    fn of(error: &Error) -> Option<Self> {
        let thread = matches!(error, Error::Unsupported { param, .. } if param.as_deref() == Some("thread"));
        thread.then_some(Self { error_code: "thread_unsupported_request", unsupported: ["thread"] })
    }
}

#[derive(Serialize)]
struct OllamaBody<'a> {
    error: Cow<'a, str>,
}

/// The maximum length of a message, in characters: names and paths of requests stand in it.
const MAX_MESSAGE: usize = 4000;

/// The body of `error` in `dialect`, one JSON object without a newline. Anthropic's names the request by `id`.
pub(crate) fn body(error: &Error, dialect: Dialect, id: Option<&str>) -> Vec<u8> {
    let message = match (error, dialect) {
        (Error::Refused(refused), Dialect::Anthropic) => refused.too_long().unwrap_or_else(|| error.to_string()),
        _ => error.to_string(),
    };
    let message = Cow::Owned(text::cut(&message, MAX_MESSAGE).into_owned());
    let row = error.row();
    let written = match dialect {
        Dialect::Anthropic => serde_json::to_vec(&AnthropicBody {
            r#type: "error",
            error: AnthropicError { r#type: error.anthropic().1, message, details: AnthropicDetails::of(error) },
            request_id: id,
        }),
        Dialect::OpenAi => serde_json::to_vec(&OpenAiBody {
            error: OpenAiError { message, r#type: row.kind, param: error.param(), code: row.code },
        }),
        Dialect::Ollama => serde_json::to_vec(&OllamaBody { error: message }),
    };
    written.unwrap_or_default()
}

/// The whole response for `error` in `dialect`, to the request named `id`.
pub(crate) fn speak(error: &Error, dialect: Dialect, id: Option<&str>) -> Response {
    let mut response = Response::new(Body::from(body(error, dialect, id)));
    *response.status_mut() = match dialect {
        Dialect::Anthropic => error.anthropic().0,
        Dialect::OpenAi | Dialect::Ollama => error.row().status,
    };
    let content_type = match dialect {
        Dialect::OpenAi | Dialect::Anthropic => "application/json",
        Dialect::Ollama => "application/json; charset=utf-8",
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    match error {
        Error::Method { allow, .. } => {
            headers.extend(HeaderValue::try_from(allow).ok().map(|allow| (header::ALLOW, allow)));
        }
        // RFC 6750, 3.1: what is wrong with a key that was sent.
        Error::Key { .. } | Error::Denied { .. } => {
            let challenge = match error {
                Error::Key { sent: false, .. } => "Bearer realm=\"farllama\"",
                Error::Key { .. } => "Bearer realm=\"farllama\", error=\"invalid_token\"",
                _ => "Bearer realm=\"farllama\", error=\"insufficient_scope\"",
            };
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        // OpenAI's clients retry every 5xx unless they are asked not to.
        Error::NotImplemented { .. } => {
            headers.insert("x-should-retry", HeaderValue::from_static("false"));
        }
        Error::Quota { retry_after, .. } | Error::Tokens { retry_after, .. } => {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(*retry_after));
        }
        // Ollama answers 503 when its queue is full; a short wait is what helps.
        Error::Busy { .. } => {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        Error::Refused(refused) if refused.retry_after.is_some() => {
            headers.extend(refused.retry_after.clone().map(|after| (header::RETRY_AFTER, after)));
        }
        Error::Refused(refused) if refused.status == StatusCode::SERVICE_UNAVAILABLE => {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        _ => {}
    }
    response
}

/// Carries the error, as a value, out to the layer that knows the dialect.
impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.row().status;
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One of each kind.
    fn all() -> Vec<Error> {
        let message = || "…".to_owned();
        let refused = |refusal, status| Error::from(Refused { refusal, ..Refused::new(status, message()) });
        let as_400 = |refusal| refused(refusal, StatusCode::BAD_REQUEST);
        vec![
            Error::Invalid { message: message(), param: None, code: None },
            Error::invalid("temperature", message()),
            Error::unsupported("n", message()),
            Error::Key { message: message(), sent: false },
            Error::Key { message: message(), sent: true },
            Error::Quota { message: message(), retry_after: 7 },
            Error::Tokens { message: message(), retry_after: 7 },
            Error::Forbidden { message: message() },
            Error::Denied { message: message() },
            Error::Silent { within: Duration::from_secs(60) },
            Error::Slow { rate: 256 },
            Error::Http { status: StatusCode::NOT_IMPLEMENTED, message: message() },
            Error::Busy { message: message() },
            Error::NotFound { message: message(), param: Some("model".to_owned()), code: "model_not_found" },
            Error::NotImplemented { message: message() },
            Error::Method { method: "PUT".to_owned(), allow: "POST".to_owned() },
            Error::TooLarge { limit: 7 },
            as_400(Refusal::ContextLength { counts: None, cap: None }),
            as_400(Refusal::ContextLength { counts: Some((20, 10)), cap: Some(15) }).blaming(Params::reading("input")),
            refused(Refusal::NoModel, StatusCode::NOT_FOUND),
            as_400(Refusal::NoTools),
            as_400(Refusal::NoThinking),
            as_400(Refusal::NoImages).blaming(Params::reading("input")),
            refused(Refusal::NoEmbeddings, StatusCode::NOT_IMPLEMENTED),
            as_400(Refusal::Incapable),
            as_400(Refusal::ThinkLevel { only_max: false, for_model: true }),
            refused(Refusal::Option { name: "num_ctx".to_owned() }, StatusCode::INTERNAL_SERVER_ERROR),
            as_400(Refusal::Format).blaming(Params { format: "tools", ..Params::default() }),
            as_400(Refusal::RunnerDied),
            as_400(Refusal::Other),
            refused(Refusal::Other, StatusCode::INTERNAL_SERVER_ERROR),
            refused(Refusal::Other, StatusCode::SERVICE_UNAVAILABLE),
            refused(Refusal::Other, StatusCode::TOO_MANY_REQUESTS),
            refused(Refusal::Gateway, StatusCode::UNAUTHORIZED),
            refused(Refusal::Gateway, StatusCode::FORBIDDEN),
            refused(Refusal::Gateway, StatusCode::PAYLOAD_TOO_LARGE),
            refused(Refusal::Gateway, StatusCode::BAD_GATEWAY),
            refused(Refusal::Gateway, StatusCode::GATEWAY_TIMEOUT),
            Error::NotOllama { message: message() },
            Error::Unreachable { message: message() },
            Error::Timeout { message: message() },
            Error::Cut { message: message() },
            Error::Loop { message: message() },
            Error::Canceled { shutdown: true },
            Error::Canceled { shutdown: false },
            Error::CanceledByCaller,
            Error::Internal { message: message() },
        ]
    }

    #[test]
    fn the_whole_table_is_as_it_is_written_down() {
        let reported = |error: &Error| {
            let spoken = speak(error, Dialect::OpenAi, None);
            let status = spoken.status().as_u16();
            format!("{status} {}", String::from_utf8(body(error, Dialect::OpenAi, None)).unwrap())
        };
        insta::assert_snapshot!(all().iter().map(reported).collect::<Vec<_>>().join("\n"));
    }

    #[test]
    fn the_whole_table_in_anthropics_envelope_is_as_it_is_written_down() {
        let shown = |error: &Error| {
            let status = speak(error, Dialect::Anthropic, Some("req_1")).status().as_u16();
            format!("{status} {}", String::from_utf8(body(error, Dialect::Anthropic, Some("req_1"))).unwrap())
        };
        insta::assert_snapshot!(all().iter().map(shown).collect::<Vec<_>>().join("\n"));
    }

    #[test]
    fn in_ollamas_words_an_error_is_one_text() {
        let error = Error::Forbidden { message: "no".to_owned() };
        assert_eq!(body(&error, Dialect::Ollama, None), b"{\"error\":\"no\"}");
    }
}
