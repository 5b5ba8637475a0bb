//! The floors: the least that a proxy on hyper costs. One passes requests through unchanged; the other translates chat
//! completions with derived types. No limits, no log, no checks. One thread each.

use anyhow::{Context as _, Result};
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::BoxBody};
use hyper::{
    Request, Response,
    body::{Frame, Incoming},
    header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderValue, TRANSFER_ENCODING},
    service::service_fn,
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::remote::listen;

type Error = Box<dyn std::error::Error + Send + Sync>;
type Body = BoxBody<Bytes, Error>;

#[derive(Clone)]
struct Floor {
    client: Client<HttpConnector, Body>,
    /// The remote's port.
    remote: u16,
    translates: bool,
}

/// Serves for ever at `port`, in front of the remote at `remote`.
///
/// # Errors
/// The port is taken.
pub(crate) async fn serve(port: u16, remote: u16, translates: bool) -> Result<()> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client = Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector);
    let floor = Floor { client, remote, translates };
    let listener = listen(port)?;
    loop {
        let Ok((socket, _)) = listener.accept().await else { continue };
        let _ = socket.set_nodelay(true);
        let floor = floor.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| floor.clone().answer(request));
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service).await;
        });
    }
}

#[derive(Deserialize)]
struct Asked<'a> {
    #[serde(borrow)]
    model: &'a str,
    #[serde(borrow)]
    messages: &'a RawValue,
    #[serde(default)]
    stream: bool,
    temperature: Option<f64>,
    max_tokens: Option<i64>,
}

#[derive(Serialize)]
struct Native<'a> {
    model: &'a str,
    messages: &'a RawValue,
    stream: bool,
    options: Options,
}

#[derive(Serialize)]
struct Options {
    temperature: Option<f64>,
    num_predict: Option<i64>,
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    message: Message<'a>,
    done: bool,
    prompt_eval_count: Option<u64>,
    eval_count: Option<u64>,
}

#[derive(Deserialize)]
struct Message<'a> {
    /// As it came, with its quotes.
    #[serde(borrow)]
    content: &'a RawValue,
}

impl Floor {
    async fn answer(self, request: Request<Incoming>) -> Result<Response<Body>, Error> {
        if !self.translates || request.uri().path() != "/v1/chat/completions" {
            let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned();
            let (mut parts, body) = request.into_parts();
            parts.uri = format!("http://127.0.0.1:{}{path}", self.remote).parse()?;
            parts.headers.remove(HOST);
            let body = body.map_err(Into::into).boxed();
            let response = self.client.request(Request::from_parts(parts, body)).await?;
            return Ok(response.map(|body| body.map_err(Into::into).boxed()));
        }
        let body = request.into_body().collect().await?.to_bytes();
        let asked: Asked<'_> = serde_json::from_slice(&body)?;
        let options = Options { temperature: asked.temperature, num_predict: asked.max_tokens };
        let native = Native { model: asked.model, messages: asked.messages, stream: asked.stream, options };
        let native = Full::new(Bytes::from(serde_json::to_vec(&native)?)).map_err(|never| match never {}).boxed();
        let upstream = Request::post(format!("http://127.0.0.1:{}/api/chat", self.remote))
            .header(CONTENT_TYPE, "application/json")
            .body(native)?;
        let (mut parts, reply) = self.client.request(upstream).await?.into_parts();
        parts.headers.remove(CONTENT_LENGTH);
        parts.headers.remove(TRANSFER_ENCODING);
        let model = asked.model.to_owned();
        if asked.stream {
            parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
            let mut kept = Vec::new();
            let events = reply.into_data_stream().map_err(Error::from).map(move |piece| {
                kept.extend_from_slice(&piece?);
                let mut out = String::new();
                let end = kept.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
                for line in kept[..end].split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
                    event(line, &model, &mut out)?;
                }
                kept.drain(..end);
                Ok(Frame::data(Bytes::from(out)))
            });
            return Ok(Response::from_parts(parts, BoxBody::new(StreamBody::new(events))));
        }
        let reply = reply.collect().await?.to_bytes();
        let line: Line<'_> = serde_json::from_slice(&reply).context("the remote's reply")?;
        let (prompt, words) = (line.prompt_eval_count.unwrap_or(0), line.eval_count.unwrap_or(0));
        let body = format!(
            "{{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion\",\"created\":1,\"model\":\"{model}\",\"choices\":[{{\"index\":0,\"message\":\
             {{\"role\":\"assistant\",\"content\":{}}},\"finish_reason\":\"stop\"}}],\"usage\":{{\"prompt_tokens\":{prompt},\
             \"completion_tokens\":{words},\"total_tokens\":{}}}}}",
            line.message.content,
            prompt + words
        );
        Ok(Response::from_parts(parts, Full::new(Bytes::from(body)).map_err(|never| match never {}).boxed()))
    }
}

fn event(line: &[u8], model: &str, out: &mut String) -> Result<(), Error> {
    use std::fmt::Write as _;
    let line: Line<'_> = serde_json::from_slice(line)?;
    let (delta, reason) =
        if line.done { (String::new(), "\"stop\"") } else { (format!("\"content\":{}", line.message.content), "null") };
    write!(
        out,
        "data: {{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"{model}\",\"choices\":[{{\"index\":0,\
         \"delta\":{{{delta}}},\"finish_reason\":{reason}}}]}}\n\n"
    )?;
    if line.done {
        out.push_str("data: [DONE]\n\n");
    }
    Ok(())
}
