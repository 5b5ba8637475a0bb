//! An Ollama that answers each model of the corpus with its malformed call: natively, and as its own `/v1` passes calls
//! on. A request for an answer in a format is obeyed where the corpus knows the right call, as a model that is
//! constrained would.

use std::{
    collections::HashMap,
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};

use super::corpus::{Case, Corpus};

/// A running server. Dropping it stops it.
pub(super) struct Script {
    addr: SocketAddr,
    asked: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Script {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Script {
    pub(super) async fn start(corpus: &Corpus, port: u16) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let (addr, asked) = (listener.local_addr()?, Arc::new(AtomicUsize::new(0)));
        let cases: HashMap<String, Case> = corpus.cases.iter().map(|case| (case.id.clone(), case.clone())).collect();
        let (cases, counter) = (Arc::new(cases), asked.clone());
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (cases, counter) = (cases.clone(), counter.clone());
                tokio::spawn(async move {
                    let service = service_fn(|request| answer(request, &cases, &counter));
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Ok(Self { addr, asked, task })
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// How many generations were asked for.
    pub(super) fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

async fn answer(
    request: Request<Incoming>,
    cases: &HashMap<String, Case>,
    asked: &AtomicUsize,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let case = body["model"].as_str().and_then(|model| cases.get(model));
    let text = match (&*path, case) {
        ("/api/version", _) => json!({"version": "0.33.0"}).to_string(),
        ("/v1/models", _) => json!({"object": "list", "data": []}).to_string(),
        ("/api/chat", Some(case)) => {
            asked.fetch_add(1, Ordering::Relaxed);
            native(case, &body)
        }
        ("/v1/chat/completions", Some(case)) => {
            asked.fetch_add(1, Ordering::Relaxed);
            openai(case)
        }
        _ => {
            let mut response = Response::new(Full::from(r#"{"error":"not found"}"#));
            *response.status_mut() = http::StatusCode::NOT_FOUND;
            return Ok(response);
        }
    };
    let mut response = Response::new(Full::from(text));
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
    Ok(response)
}

fn native(case: &Case, body: &Value) -> String {
    let message = if body["format"].is_object() {
        let call = case.right.first();
        let content = match call {
            // The format of a whole call, or of its arguments.
            Some(call)
                if body.pointer("/format/properties/name").is_some()
                    && body.pointer("/format/properties/arguments").is_some() =>
            {
                json!({"name": call.name, "arguments": call.arguments}).to_string()
            }
            Some(call) => call.arguments.to_string(),
            None => "{}".to_owned(),
        };
        json!({"role": "assistant", "content": content})
    } else {
        let calls = case.call.iter().map(|call| json!({"function": {"name": call.name, "arguments": call.arguments}}));
        json!({"role": "assistant", "content": case.text.as_deref().unwrap_or_default(), "tool_calls": calls.collect::<Vec<_>>()})
    };
    let reply = json!({
        "model": case.id, "created_at": "2026-11-27T10:00:00Z", "message": message, "done": true,
        "done_reason": case.done_reason.as_deref().unwrap_or("stop"), "prompt_eval_count": 10, "eval_count": 5,
    });
    format!("{reply}\n")
}

/// As Ollama's own layer passes a call on.
fn openai(case: &Case) -> String {
    let call = |call: &super::corpus::Wanted| {
        let function = json!({"name": call.name, "arguments": call.arguments.to_string()});
        json!({"id": "call_1", "index": 0, "type": "function", "function": function})
    };
    let mut message = json!({"role": "assistant", "content": case.text.as_deref().unwrap_or_default()});
    if let Some(made) = &case.call {
        message["tool_calls"] = json!([call(made)]);
    }
    let finish = if case.call.is_some() { "tool_calls" } else { case.done_reason.as_deref().unwrap_or("stop") };
    json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1_700_000_000, "model": case.id, "system_fingerprint": "fp_ollama",
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
    })
    .to_string()
}
