//! A recorded exchange, and the same exchange with the mock, over a raw socket.

use std::{net::SocketAddr, path::Path};

use serde::Deserialize;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

type Headers = Vec<(String, String)>;

#[derive(Debug, Deserialize)]
pub(crate) struct Recording {
    pub(crate) request: Request,
    pub(crate) response: Response,
    /// The client closed after so many chunks.
    pub(crate) left_after_chunks: Option<usize>,
    /// The 100 Continue before the answer, where one was asked for: null if there was none.
    #[serde(default)]
    pub(crate) interim: Option<(u64, String, Headers)>,
    /// The process that runs the model was killed after so many chunks.
    pub(crate) runner_killed_after_chunks: Option<u64>,
    /// The same, so many milliseconds after the request.
    pub(crate) runner_killed_ms: Option<u64>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: Headers,
    #[serde(default)]
    pub(crate) body: String,
    /// HTTP's version, if it is not 1.1.
    version: Option<String>,
    /// The body's own chunks.
    chunks: Option<Vec<String>>,
    /// Sent instead of all of that.
    whole_head: Option<String>,
}

#[derive(Debug, Deserialize, PartialEq)]
pub(crate) struct Response {
    pub(crate) status: String,
    pub(crate) headers: Headers,
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

/// A text that was cut, at its full length: the last character again and again. JSON is closed where it was cut inside a list of texts.
fn whole(text: &str) -> String {
    let Some((start, rest)) = text.split_once("…(+") else { return text.to_owned() };
    let missing: usize = rest.strip_suffix(" characters)").unwrap().parse().unwrap();
    let last = start.chars().next_back().unwrap().to_string();
    let end = if start.starts_with('{') { "\"]}" } else { "" };
    start.to_owned() + &last.repeat(missing - end.len()) + end
}

impl Request {
    fn head(&self, host: &str) -> String {
        let version = self.version.as_deref().unwrap_or("1.1");
        let mut head = format!("{} {} HTTP/{version}\r\nHost: {host}\r\n", self.method, self.path);
        for (name, value) in &self.headers {
            head += &format!("{name}: {}\r\n", whole(value));
        }
        if self.chunks.is_none() && (!self.body.is_empty() || self.method == "POST") {
            head += &format!("Content-Length: {}\r\n", whole(&self.body).len());
        }
        head + "\r\n"
    }

    fn body(&self) -> String {
        let Some(chunks) = &self.chunks else { return whole(&self.body) };
        let chunks = chunks.iter().filter(|chunk| !chunk.is_empty());
        chunks.map(|chunk| format!("{:x}\r\n{chunk}\r\n", chunk.len())).collect::<String>() + "0\r\n\r\n"
    }
}

/// Sends what was recorded, and reads the answer as the recorder did. Returns the 100 Continue too, if there was one.
pub(crate) async fn ask(addr: SocketAddr, recording: &Recording, host: &str) -> (Option<String>, Response) {
    let request = &recording.request;
    let socket = TcpStream::connect(addr).await.unwrap();
    let (reader, mut writer) = socket.into_split();
    let mut reader = BufReader::new(reader);
    let (mut head, mut body) = match &request.whole_head {
        Some(whole) => (whole.clone(), String::new()),
        None => (request.head(host), request.body()),
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
    (interim, Response { status, headers, framing: framing.to_owned(), chunks })
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
