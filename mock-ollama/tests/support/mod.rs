//! Asking the mock over raw sockets.

#![allow(dead_code, reason = "each test file uses its own part of this")]

use mock_ollama::Mock;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

pub(crate) async fn send(mock: &Mock, method: &str, path: &str, body: &str) -> TcpStream {
    let mut socket = TcpStream::connect(mock.addr()).await.unwrap();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        mock.addr(),
        body.len()
    );
    socket.write_all((head + body).as_bytes()).await.unwrap();
    socket
}

/// Head and body as they came, and whether the connection ended well.
pub(crate) async fn ask(mock: &Mock, method: &str, path: &str, body: &str) -> (String, String, bool) {
    let mut socket = send(mock, method, path, body).await;
    let mut bytes = Vec::new();
    let ended_well = socket.read_to_end(&mut bytes).await.is_ok();
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    (head.to_owned(), body.to_owned(), ended_well)
}

/// Chunks of a chunked body; the last flag is whether the end came.
pub(crate) fn chunks(mut body: &str) -> (Vec<String>, bool) {
    let mut chunks = Vec::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            return (chunks, true);
        }
        let Some(chunk) = rest.get(..size) else { break };
        chunks.push(chunk.to_owned());
        let Some(after) = rest.get(size + 2..) else { break };
        body = after;
    }
    (chunks, false)
}

/// The JSON lines of a streamed answer.
pub(crate) async fn lines(mock: &Mock, path: &str, body: &Value) -> Vec<Value> {
    let (head, body, _) = ask(mock, "POST", path, &body.to_string()).await;
    assert!(head.contains("Content-Type: application/x-ndjson"), "{head}\n{body}");
    let (chunks, is_whole) = chunks(&body);
    assert!(is_whole);
    chunks.iter().map(|chunk| serde_json::from_str(chunk.strip_suffix('\n').unwrap()).unwrap()).collect()
}

/// The JSON of an unstreamed answer.
pub(crate) async fn whole(mock: &Mock, path: &str, body: &Value) -> Value {
    json(&ask(mock, "POST", path, &body.to_string()).await)
}

pub(crate) fn user(model: &str, text: &str) -> Value {
    serde_json::json!({"model": model, "messages": [{"role": "user", "content": text}]})
}

pub(crate) fn content(lines: &[Value]) -> String {
    lines.iter().map(|line| line["message"]["content"].as_str().unwrap()).collect()
}

/// The JSON of an answer, chunked or not.
pub(crate) fn json((head, body, _): &(String, String, bool)) -> Value {
    let body = if head.contains("Transfer-Encoding: chunked") { chunks(body).0.concat() } else { body.clone() };
    serde_json::from_str(&body).unwrap()
}
