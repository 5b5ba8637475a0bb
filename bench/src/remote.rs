//! The remote: answers as Ollama does, in both of its APIs, at the least cost, so that what is measured is what stands
//! in front of it. One thread, which the run pins to a core of its own.

use std::{
    convert::Infallible,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::BoxBody};
use hyper::{
    Request, Response,
    body::{Frame, Incoming},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    time::Instant,
};

use crate::{
    tls,
    work::{self, Api, word},
};

type Body = BoxBody<Bytes, Infallible>;

/// What the remote counts, which `GET /counts` shows.
#[derive(Default)]
struct Counts {
    /// Streams that are open.
    open: AtomicUsize,
}

/// Counts a stream as open until it is dropped.
struct Open(Arc<Counts>);

impl Open {
    fn new(counts: &Arc<Counts>) -> Self {
        counts.open.fetch_add(1, Ordering::Relaxed);
        Self(counts.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Serves for ever: plain HTTP at `port`, TLS at `tls_port` with the certificate in `certificates`.
///
/// # Errors
/// A port is taken, or the certificate cannot be read.
pub(crate) async fn serve(port: u16, tls_port: u16, certificates: &Path) -> Result<()> {
    let counts = Arc::new(Counts::default());
    let plain = listen(port)?;
    let secure = listen(tls_port)?;
    let acceptor = tls::acceptor(certificates)?;
    loop {
        let (socket, is_tls) = tokio::select! {
            accepted = plain.accept() => (accepted, false),
            accepted = secure.accept() => (accepted, true),
        };
        let Ok((socket, _)) = socket else { continue };
        let _ = socket.set_nodelay(true);
        let (counts, acceptor) = (counts.clone(), acceptor.clone());
        tokio::spawn(async move {
            if is_tls {
                if let Ok(socket) = acceptor.accept(socket).await {
                    connection(socket, counts).await;
                }
            } else {
                connection(socket, counts).await;
            }
        });
    }
}

/// A listener with room for thousands that connect at once.
pub(crate) fn listen(port: u16) -> Result<TcpListener> {
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::from(([127, 0, 0, 1], port)))?;
    Ok(socket.listen(16_384)?)
}

async fn connection(socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, counts: Arc<Counts>) {
    let service = service_fn(move |request| {
        let counts = counts.clone();
        async move { Ok::<_, Infallible>(answer(request, counts).await) }
    });
    // A client that hangs up is no error here.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service).await;
}

#[derive(Deserialize)]
struct Asked<'a> {
    #[serde(borrow)]
    model: &'a str,
    stream: Option<bool>,
    #[serde(default, borrow)]
    input: Vec<&'a serde_json::value::RawValue>,
}

async fn answer(request: Request<Incoming>, counts: Arc<Counts>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let Ok(body) = request.into_body().collect().await else { return json(400, "{\"error\":\"unreadable\"}") };
    let body = body.to_bytes();
    match &*path {
        "/" => json(200, "Ollama is running"),
        "/api/version" => json(200, "{\"version\":\"0.33.0\"}"),
        "/api/ps" => json(200, "{\"models\":[]}"),
        "/api/tags" => json(200, TAGS),
        "/api/show" => json(
            200,
            "{\"details\":{\"family\":\"llama\"},\"model_info\":{},\"capabilities\":[\"completion\",\"tools\"]}",
        ),
        "/counts" => json(200, counts.open.load(Ordering::Relaxed).to_string()),
        _ => {
            let Ok(asked) = serde_json::from_slice::<Asked<'_>>(&body) else {
                return json(400, "{\"error\":\"no JSON with a model\"}");
            };
            match &*path {
                "/api/chat" => chat(&asked, Api::Native, &counts),
                "/v1/chat/completions" => chat(&asked, Api::Openai, &counts),
                "/api/embed" => embeddings(&asked, Api::Native),
                "/v1/embeddings" => embeddings(&asked, Api::Openai),
                _ => json(404, "404 page not found"),
            }
        }
    }
}

const TAGS: &str = "{\"models\":[{\"name\":\"words-64-0:latest\",\"model\":\"words-64-0:latest\",\"modified_at\":\"2026-11-01T12:00:00Z\",\
    \"size\":2019393189,\"digest\":\"a80c4f17acd55265feec403c7aef86be0c25983ab279d83f3bcd3abbcb5b8b72\",\"details\":{\"family\":\"llama\"}}]}";

fn json(status: u16, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Full::new(body.into()).boxed());
    *response.status_mut() = hyper::StatusCode::from_u16(status).unwrap_or_default();
    let kind = hyper::header::HeaderValue::from_static("application/json; charset=utf-8");
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, kind);
    response
}

const AT: &str = "2026-11-22T12:37:41.512345678Z";

fn chat(asked: &Asked<'_>, api: Api, counts: &Arc<Counts>) -> Response<Body> {
    let model = asked.model.to_owned();
    let Some([words, pause]) = work::numbers(&model, "words-") else {
        return json(404, format!("{{\"error\":\"model '{model}' not found\"}}"));
    };
    let words = words as usize;
    if !asked.stream.unwrap_or(api == Api::Native) {
        let text: String = (0..words).map(word).collect();
        return json(
            200,
            match api {
                Api::Native => format!(
                    "{{\"model\":\"{model}\",\"created_at\":\"{AT}\",\"message\":{{\"role\":\"assistant\",\"content\":\"{text}\"}},{}}}",
                    done(words)
                ),
                Api::Openai => format!(
                    "{{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion\",\"created\":1,\"model\":\"{model}\",\"choices\":[{{\"index\":0,\
                 \"message\":{{\"role\":\"assistant\",\"content\":\"{text}\"}},\"finish_reason\":\"stop\"}}],\
                 \"usage\":{{\"prompt_tokens\":26,\"completion_tokens\":{words},\"total_tokens\":{}}}}}",
                    words + 26
                ),
            },
        );
    }
    let open = Open::new(counts);
    let pause = Duration::from_micros(pause);
    let start = Instant::now();
    let lines = stream::unfold((0, open), move |(n, open)| {
        let model = model.clone();
        async move {
            if n > words {
                return None;
            }
            if n > 0 && !pause.is_zero() && n < words {
                tokio::time::sleep_until(start + pause * u32::try_from(n).unwrap_or(u32::MAX)).await;
            } else if n > 0 {
                // hyper writes what it has when the body has nothing ready: a write a chunk, as Ollama does.
                tokio::task::yield_now().await;
            }
            let line = match (api, n < words) {
                (Api::Native, true) => format!(
                    "{{\"model\":\"{model}\",\"created_at\":\"{AT}\",\"message\":{{\"role\":\"assistant\",\"content\":\"{}\"}},\"done\":false}}\n",
                    word(n)
                ),
                (Api::Native, false) => format!(
                    "{{\"model\":\"{model}\",\"created_at\":\"{AT}\",\"message\":{{\"role\":\"assistant\",\"content\":\"\"}},{}}}\n",
                    done(words)
                ),
                (Api::Openai, true) => format!(
                    "data: {{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"{model}\",\"choices\":[{{\
                     \"index\":0,\"delta\":{{\"role\":\"assistant\",\"content\":\"{}\"}},\"finish_reason\":null}}]}}\n\n",
                    word(n)
                ),
                (Api::Openai, false) => format!(
                    "data: {{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"{model}\",\"choices\":[{{\
                     \"index\":0,\"delta\":{{}},\"finish_reason\":\"stop\"}}]}}\n\ndata: [DONE]\n\n"
                ),
            };
            Some((Ok::<_, Infallible>(Frame::data(Bytes::from(line))), (n + 1, open)))
        }
    });
    let mut response = Response::new(BoxBody::new(StreamBody::new(lines)));
    let kind = if api == Api::Native { "application/x-ndjson" } else { "text/event-stream" };
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    response
}

fn done(words: usize) -> String {
    format!(
        "\"done\":true,\"done_reason\":\"stop\",\"total_duration\":349612559,\"load_duration\":1927880,\"prompt_eval_count\":26,\
         \"prompt_eval_duration\":9212000,\"eval_count\":{words},\"eval_duration\":334307000"
    )
}

fn embeddings(asked: &Asked<'_>, api: Api) -> Response<Body> {
    use std::fmt::Write as _;
    let Some([dimensions]) = work::numbers(asked.model, "floats-") else {
        return json(404, format!("{{\"error\":\"model '{}' not found\"}}", asked.model));
    };
    let mut vector = String::new();
    for n in 0..dimensions {
        // Digits as a real model's: nine, and some exponents.
        let _ = write!(vector, "{}{:.9}", if n == 0 { "" } else { "," }, (n as f64 * 0.731).sin() / 32.0);
    }
    let (model, inputs) = (asked.model, asked.input.len());
    let vectors: Vec<String> = (0..inputs)
        .map(|n| match api {
            Api::Native => format!("[{vector}]"),
            Api::Openai => format!("{{\"object\":\"embedding\",\"index\":{n},\"embedding\":[{vector}]}}"),
        })
        .collect();
    let vectors = vectors.join(",");
    json(
        200,
        match api {
            Api::Native => format!(
                "{{\"model\":\"{model}\",\"embeddings\":[{vectors}],\"total_duration\":14143917,\"load_duration\":1019500,\"prompt_eval_count\":8}}"
            ),
            Api::Openai => format!(
                "{{\"object\":\"list\",\"data\":[{vectors}],\"model\":\"{model}\",\"usage\":{{\"prompt_tokens\":8,\"total_tokens\":8}}}}"
            ),
        },
    )
}
