//! A recorded exchange with the mock, over a raw socket.

use std::net::SocketAddr;

use mock_ollama::recording::{Recording, Request, Response};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

/// The head of a recorded request, for a server at `host`.
fn head(request: &Request, host: &str) -> String {
    let version = request.version.as_deref().unwrap_or("1.1");
    let mut head = format!("{} {} HTTP/{version}\r\nHost: {host}\r\n", request.method, request.path);
    for (name, value) in request.whole_headers() {
        head += &format!("{name}: {value}\r\n");
    }
    if request.chunks.is_none() && (!request.body.is_empty() || request.method == "POST") {
        head += &format!("Content-Length: {}\r\n", request.whole_body().len());
    }
    head + "\r\n"
}

fn body(request: &Request) -> String {
    let Some(chunks) = &request.chunks else { return request.whole_body() };
    let chunks = chunks.iter().filter(|chunk| !chunk.is_empty());
    chunks.map(|chunk| format!("{:x}\r\n{chunk}\r\n", chunk.len())).collect::<String>() + "0\r\n\r\n"
}

/// Sends what was recorded, and reads the answer as the recorder did. Returns the 100 Continue too, if there was one.
pub(crate) async fn ask(addr: SocketAddr, recording: &Recording, host: &str) -> (Option<String>, Response) {
    let request = &recording.request;
    let socket = TcpStream::connect(addr).await.unwrap();
    let (reader, mut writer) = socket.into_split();
    let mut reader = BufReader::new(reader);
    let (mut head, mut body) = match &request.whole_head {
        Some(whole) => (whole.clone(), String::new()),
        None => (head(request, host), body(request)),
    };
    let expects = request.headers.iter().any(|(name, _)| name == "Expect");
    if !expects {
        head += &std::mem::take(&mut body);
    }
    // An answer may come before all was sent, and what is sent after it fails.
    let (sent, mut status) = tokio::join!(
        async move {
            let _ = writer.write_all(head.as_bytes()).await;
            writer
        },
        line(&mut reader)
    );
    let mut writer = sent;
    let mut interim = None;
    if expects && status.contains(" 100 ") {
        assert_eq!(line(&mut reader).await, "", "a 100 Continue has no headers");
        interim = Some(std::mem::take(&mut status));
        writer.write_all(body.as_bytes()).await.unwrap();
        status = line(&mut reader).await;
    }
    let mut headers = Vec::new();
    loop {
        let header = line(&mut reader).await;
        let Some((name, value)) = header.split_once(": ") else { break };
        headers.push((name.to_owned(), value.to_owned()));
    }
    let value = |name: &str| headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    let mut chunks = Vec::new();
    let framing = if request.method == "HEAD" || status.contains(" 204 ") {
        "none"
    } else if value("Transfer-Encoding").as_deref() == Some("chunked") {
        loop {
            let size = usize::from_str_radix(&line(&mut reader).await, 16).unwrap();
            let chunk = text(&mut reader, size).await;
            assert_eq!(line(&mut reader).await, "", "a chunk ends with a line");
            if size == 0 {
                break;
            }
            chunks.push((0, chunk));
            if recording.left_after_chunks == Some(chunks.len()) {
                break;
            }
        }
        "chunked"
    } else if let Some(length) = value("Content-Length") {
        chunks.push((0, text(&mut reader, length.parse().unwrap()).await));
        "length"
    } else {
        let mut rest = String::new();
        reader.read_to_string(&mut rest).await.unwrap();
        chunks.push((0, rest));
        "close"
    };
    (interim, Response { status, headers, head_ms: 0, framing: framing.to_owned(), chunks })
}

async fn line(socket: &mut (impl AsyncBufReadExt + Unpin)) -> String {
    let mut line = String::new();
    socket.read_line(&mut line).await.unwrap();
    line.trim_end_matches(['\r', '\n']).to_owned()
}

async fn text(socket: &mut (impl AsyncReadExt + Unpin), length: usize) -> String {
    let mut bytes = vec![0; length];
    socket.read_exact(&mut bytes).await.unwrap();
    String::from_utf8(bytes).unwrap()
}
