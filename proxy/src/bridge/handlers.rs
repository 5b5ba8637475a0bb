//! The native routes, where the remote is an OpenAI server.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header};
use http_body::{Body as HttpBody, Frame};
use http_body_util::BodyExt;
use serde_json::json;

use crate::{
    app::App,
    bridge::{self, Answer, Answered, VERSION, go::bad_request, translate::Shape},
    error::{self, Dialect, Error},
    observe::Recorder,
    ollama::refusal::{Refusal, Refused},
    openai::request::json::Json,
    upstream::{
        client::{Upstream, encode},
        remotes::Counted,
    },
};

const JSON: &str = "application/json; charset=utf-8";
const LINES: &str = "application/x-ndjson";

/// `POST /api/chat`.
pub(crate) async fn chat(
    method: Method,
    State(app): State<App>,
    recorder: Recorder,
    json: Json,
) -> Result<Response, Error> {
    generation(&method, &app, &recorder, &json, Shape::Chat).await
}

/// `POST /api/generate`.
pub(crate) async fn generate(
    method: Method,
    State(app): State<App>,
    recorder: Recorder,
    json: Json,
) -> Result<Response, Error> {
    generation(&method, &app, &recorder, &json, Shape::Generate).await
}

async fn generation(
    method: &Method,
    app: &App,
    recorder: &Recorder,
    json: &Json,
    shape: Shape,
) -> Result<Response, Error> {
    if method != Method::POST {
        return Ok(not_allowed("POST"));
    }
    let asked = bridge::generation(app.upstream.client(), shape, json.bytes().clone());
    let (answer, counted) = recorded(app, recorder, json, asked).await?;
    let mut upstream = match answer {
        Answer::Whole(body) => return Ok(respond(JSON, Body::from(body))),
        Answer::Line(line) => return Ok(respond(LINES, Body::from([&line, &b"\n"[..]].concat()))),
        Answer::Stream(upstream) => upstream,
    };
    if let Some(counted) = counted {
        upstream.count(counted);
    }
    // Ollama sends no head before its first line, so that what fails until then has a status of its own.
    let first = match upstream.frame().await {
        Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
        Some(Err(error)) => return Err(in_its_own_words(error)),
        None => Bytes::new(),
    };
    upstream.put_back(first, true);
    Ok(respond(LINES, Body::new(Lines { upstream: *upstream, recorder: recorder.clone(), failed: false })))
}

/// Waits for the answer, and records the exchange.
async fn recorded(
    app: &App,
    recorder: &Recorder,
    json: &Json,
    asked: impl Future<Output = Result<Answered, Error>>,
) -> Result<(Answer, Option<Counted>), Error> {
    recorder.payload("request", json.bytes());
    recorder.waits_for("the remote");
    let (answered, counted) = app.upstream.watched(asked).await.map_err(in_its_own_words)?;
    let Answered { answer, receipt, model } = answered;
    recorder.model(&model);
    recorder.receipt(receipt);
    Ok((answer, counted))
}

/// The same refusal with the server's text alone: what OpenAI's clients look for is of no use to Ollama's.
fn in_its_own_words(error: Error) -> Error {
    match error {
        Error::Refused(mut refused) if matches!(refused.refusal, Refusal::ContextLength { .. }) => {
            refused.refusal = Refusal::Other;
            Error::Refused(refused)
        }
        error => error,
    }
}

/// Lines on their way. A failure becomes the last one, after which the connection is cut: some clients notice the one,
/// some the other.
struct Lines {
    upstream: Upstream,
    recorder: Recorder,
    /// Whether the last line is written that says what failed.
    failed: bool,
}

impl HttpBody for Lines {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        Pin::new(&mut self.upstream).poll_frame(cx).map(|frame| match frame {
            Some(Err(error)) if !self.failed => {
                self.recorder.failed(&error);
                let mut line = error::body(&error, Dialect::Ollama, None);
                line.push(b'\n');
                self.failed = true;
                self.upstream.fail_later(error);
                Some(Ok(Frame::data(line.into())))
            }
            frame => frame,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.upstream.is_end_stream()
    }
}

/// `POST /api/embed`.
pub(crate) async fn embed(
    method: Method,
    State(app): State<App>,
    recorder: Recorder,
    json: Json,
) -> Result<Response, Error> {
    embedding(&method, &app, &recorder, &json, false).await
}

/// `POST /api/embeddings`.
pub(crate) async fn embeddings(
    method: Method,
    State(app): State<App>,
    recorder: Recorder,
    json: Json,
) -> Result<Response, Error> {
    embedding(&method, &app, &recorder, &json, true).await
}

async fn embedding(method: &Method, app: &App, recorder: &Recorder, json: &Json, old: bool) -> Result<Response, Error> {
    if method != Method::POST {
        return Ok(not_allowed("POST"));
    }
    let asked = bridge::embedding(app.upstream.client(), old, json.bytes().clone());
    match recorded(app, recorder, json, asked).await?.0 {
        Answer::Whole(body) | Answer::Line(body) => Ok(respond(JSON, Body::from(body))),
        Answer::Stream(_) => Err(Error::Internal { message: "vectors do not stream".to_owned() }),
    }
}

/// `GET /api/tags`.
pub(crate) async fn tags(method: Method, State(app): State<App>) -> Result<Response, Error> {
    if !matches!(method, Method::GET | Method::HEAD) {
        return Ok(not_allowed("HEAD, GET"));
    }
    let asked = bridge::catalog(app.upstream.client(), Duration::ZERO);
    whole(&app.upstream.watched(asked).await?.0.tags())
}

/// `GET /api/ps`.
pub(crate) async fn ps(method: Method, State(app): State<App>) -> Result<Response, Error> {
    if method != Method::GET {
        return Ok(not_allowed("GET"));
    }
    let asked = bridge::catalog(app.upstream.client(), Duration::ZERO);
    let catalog = app.upstream.watched(asked).await?.0;
    whole(&app.upstream.client().bridge().ps(&catalog))
}

/// `POST /api/show`.
pub(crate) async fn show(
    method: Method,
    State(app): State<App>,
    recorder: Recorder,
    json: Json,
) -> Result<Response, Error> {
    if method != Method::POST {
        return Ok(not_allowed("POST"));
    }
    let body = String::from_utf8_lossy(json.bytes()).into_owned();
    let shown = app.upstream.watched(bridge::shown(app.upstream.client(), &body)).await?.0;
    if let Ok((model, _)) = bridge::request::named("ShowRequest", &body) {
        recorder.model(&model);
    }
    whole(&shown)
}

/// `GET /api/version`: one that has all that is offered, and beside it who answers.
pub(crate) async fn version(method: Method) -> Result<Response, Error> {
    if !matches!(method, Method::GET | Method::HEAD) {
        return Ok(not_allowed("HEAD, GET"));
    }
    whole(&json!({ "version": VERSION, "farllama": env!("CARGO_PKG_VERSION"), "remote_kind": "openai" }))
}

/// `GET /`.
pub(crate) async fn root(method: Method) -> Response {
    if !matches!(method, Method::GET | Method::HEAD) {
        return not_allowed("HEAD, GET");
    }
    respond("text/plain; charset=utf-8", Body::from("Ollama is running"))
}

/// `POST /api/pull`: a model that the server has is there at once, and no other can be fetched.
pub(crate) async fn pull(method: Method, State(app): State<App>, json: Json) -> Result<Response, Error> {
    if method != Method::POST {
        return Ok(not_allowed("POST"));
    }
    let body = String::from_utf8_lossy(json.bytes());
    let (model, stream) = bridge::request::named("PullRequest", &body)?;
    if model.is_empty() {
        return Err(bad_request("invalid model name"));
    }
    let catalog = app.upstream.watched(bridge::catalog(app.upstream.client(), Duration::ZERO)).await?.0;
    let outcome = match catalog.has(&model) {
        true => encode(&json!({ "status": "success" }))?,
        false => {
            let message = format!(
                "pull model manifest: file does not exist: the remote is an OpenAI server, whose models cannot be pulled, and {model} is not \
                 one of the {} that it lists",
                catalog.len()
            );
            let error = Error::from(Refused::new(StatusCode::INTERNAL_SERVER_ERROR, message));
            if !stream {
                return Err(error);
            }
            error::body(&error, Dialect::Ollama, None).into()
        }
    };
    if !stream {
        return Ok(respond("application/json", Body::from(outcome)));
    }
    let begin = encode(&json!({ "status": "pulling manifest" }))?;
    Ok(respond(LINES, Body::from([&begin[..], b"\n", &outcome, b"\n"].concat())))
}

/// Routes that change the models of an Ollama.
pub(crate) async fn refuse() -> Result<Response, Error> {
    Err(Error::NotImplemented {
        message:
            "the remote is an OpenAI server: its models cannot be created, copied, deleted or pushed through farllama"
                .to_owned(),
    })
}

fn whole(value: &serde_json::Value) -> Result<Response, Error> {
    Ok(respond(JSON, Body::from(encode(value)?)))
}

fn respond(kind: &'static str, body: Body) -> Response {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// As Ollama answers to a wrong method (recorded: `basic/wrong-method`).
fn not_allowed(allow: &'static str) -> Response {
    let head = [(header::CONTENT_TYPE, "text/plain"), (header::ALLOW, allow)];
    (StatusCode::METHOD_NOT_ALLOWED, head, "405 method not allowed").into_response()
}
