//! A registry without TLS, as small as Ollama's transfers need it: blobs are answered with a redirect to another host
//! name, where they come slowly enough for progress to be seen.

use std::{
    collections::HashMap,
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// Into so many pieces weights are divided, with a pause before each.
const PIECES: usize = 8;
const PAUSE: Duration = Duration::from_millis(40);

/// Blobs by digest, manifests by path.
type Files = Arc<Mutex<HashMap<String, Bytes>>>;

/// Serves until its runtime ends.
pub(crate) async fn start() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let files = Files::default();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let files = Arc::clone(&files);
            let service = service_fn(move |request| serve(request, Arc::clone(&files), addr.port()));
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    addr
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

fn answer(status: StatusCode, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Full::new(body).boxed_unsync());
    *response.status_mut() = status;
    response
}

fn with(mut response: Response<Body>, name: &'static str, value: &str) -> Response<Body> {
    response.headers_mut().insert(name, value.parse().unwrap());
    response
}

async fn serve(request: Request<Incoming>, files: Files, port: u16) -> Result<Response<Body>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let path = head.uri.path().to_owned();
    let get = |key: &str| files.lock().unwrap().get(key).cloned();
    let put = |key: &str, body: Bytes| files.lock().unwrap().insert(key.to_owned(), body);
    let last = path.rsplit('/').next().unwrap();
    let missing = || answer(StatusCode::NOT_FOUND, Bytes::new());
    Ok(match head.method {
        Method::POST => with(answer(StatusCode::ACCEPTED, Bytes::new()), "location", &format!("{path}upload?state=1")),
        Method::PATCH => {
            put("upload", body);
            with(answer(StatusCode::ACCEPTED, Bytes::new()), "location", &format!("{path}?state=2"))
        }
        Method::PUT if path.contains("/manifests/") => {
            put(&path, body);
            answer(StatusCode::CREATED, Bytes::new())
        }
        Method::PUT => {
            let digest = head.uri.query().unwrap().split("digest=").nth(1).unwrap();
            put(digest, get("upload").unwrap());
            answer(StatusCode::CREATED, Bytes::new())
        }
        _ if path.starts_with("/files/") => slow(&get(last).unwrap(), &head.headers["range"]),
        Method::HEAD if get(last).is_some() => answer(StatusCode::OK, Bytes::new()),
        _ if path.contains("/manifests/") => get(&path).map_or_else(missing, |body| answer(StatusCode::OK, body)),
        Method::GET if get(last).is_some() => {
            let place = format!("http://localhost:{port}/files/{last}");
            with(answer(StatusCode::TEMPORARY_REDIRECT, Bytes::new()), "location", &place)
        }
        _ => missing(),
    })
}

/// The bytes from `bytes=N-` on; weights come slowly.
fn slow(content: &Bytes, range: &http::HeaderValue) -> Response<Body> {
    let from: usize = range.to_str().unwrap().trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap();
    let rest = content.slice(from..);
    let pause = if content.starts_with(b"GGUF") { PAUSE } else { Duration::ZERO };
    let size = rest.len().div_ceil(PIECES).max(1);
    let pieces: Vec<Bytes> = rest.chunks(size).map(Bytes::copy_from_slice).collect();
    let frames = stream::iter(pieces).then(move |piece| async move {
        tokio::time::sleep(pause).await;
        Ok(Frame::data(piece))
    });
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    response
}
