//! A recorded exchange, and the same exchange with the mock, over a raw socket.

use std::{net::SocketAddr, path::Path};

use serde::Deserialize;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

#[derive(Debug, Deserialize)]
pub(crate) struct Recording {
    pub(crate) request: Request,
    pub(crate) response: Response,
    /// The client closed after so many chunks.
    pub(crate) left_after_chunks: Option<usize>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    #[serde(default)]
    pub(crate) body: String,
}

#[derive(Debug, Deserialize, PartialEq)]
pub(crate) struct Response {
    pub(crate) status: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) framing: String,
    /// Time and text of each HTTP chunk, or of the whole body.
    pub(crate) chunks: Vec<(u64, String)>,
}

impl Recording {
    pub(crate) fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }
}

/// Sends what was recorded, and reads the answer as the recorder did.
pub(crate) async fn ask(addr: SocketAddr, recording: &Recording, host: &str) -> Response {
    let Request { method, path, headers, body } = &recording.request;
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    if !body.is_empty() || method == "POST" {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    let mut socket = TcpStream::connect(addr).await.unwrap();
    socket.write_all(format!("{head}\r\n{body}").as_bytes()).await.unwrap();
    let mut socket = BufReader::new(socket);

    let status = line(&mut socket).await;
    let mut headers = Vec::new();
    loop {
        let header = line(&mut socket).await;
        let Some((name, value)) = header.split_once(": ") else { break };
        headers.push((name.to_owned(), value.to_owned()));
    }
    let value = |name: &str| headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    let mut chunks = Vec::new();
    let framing = if method == "HEAD" || status.contains(" 204 ") {
        "none"
    } else if value("Transfer-Encoding").as_deref() == Some("chunked") {
        loop {
            let size = usize::from_str_radix(&line(&mut socket).await, 16).unwrap();
            let chunk = text(&mut socket, size).await;
            assert_eq!(line(&mut socket).await, "", "a chunk ends with a line");
            if size == 0 {
                break;
            }
            chunks.push((0, chunk));
            if recording.left_after_chunks == Some(chunks.len()) {
                break;
            }
        }
        "chunked"
    } else {
        let length = value("Content-Length").map_or(0, |length| length.parse().unwrap());
        chunks.push((0, text(&mut socket, length).await));
        "length"
    };
    Response { status, headers, framing: framing.to_owned(), chunks }
}

async fn line(socket: &mut BufReader<TcpStream>) -> String {
    let mut line = String::new();
    socket.read_line(&mut line).await.unwrap();
    line.trim_end_matches(['\r', '\n']).to_owned()
}

async fn text(socket: &mut BufReader<TcpStream>, length: usize) -> String {
    let mut bytes = vec![0; length];
    socket.read_exact(&mut bytes).await.unwrap();
    String::from_utf8(bytes).unwrap()
}
