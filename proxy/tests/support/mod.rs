//! What the proxy's tests stand on: a proxy in process, raw sockets on both of its sides, and an upstream whose every
//! byte is in the test.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part of this")]
#![allow(clippy::disallowed_methods, reason = "a test may start what it likes")]

pub mod dice;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use farllama::{Config, Running, config::Local, config::Remote, serve};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// Longer than anything here takes, unless it hangs.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Settings for a proxy on a free port in front of `upstream`.
pub fn config(upstream: SocketAddr) -> Config {
    Config {
        local: Local { port: 0, ..Local::default() },
        remote: Remote { port: upstream.port(), ..Remote::default() },
        ..Config::default()
    }
}

/// A proxy in front of `upstream`.
pub async fn proxy(upstream: SocketAddr) -> Running {
    serve(config(upstream)).await.expect("a free port on loopback")
}

/// What an [`Upstream`] has seen of one connection.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Every byte that came in.
    pub bytes: Vec<u8>,
    /// The peer closed or reset the connection.
    pub left: bool,
}

impl Seen {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    /// The request line and the header lines of the first request.
    pub fn head(&self) -> Vec<String> {
        let text = self.text();
        text.split("\r\n\r\n").next().unwrap_or_default().split("\r\n").map(str::to_owned).collect()
    }

    /// The value of a header of the first request.
    pub fn header(&self, name: &str) -> Option<String> {
        self.head()[1..].iter().find_map(|line| {
            let (known, value) = line.split_once(": ")?;
            known.eq_ignore_ascii_case(name).then(|| value.to_owned())
        })
    }
}

/// What an [`Upstream`] does with a connection, once a whole request is there.
#[derive(Clone, Debug)]
pub enum Act {
    /// Writes these bytes.
    Write(Vec<u8>),
    /// Waits until the test calls [`Upstream::go_on`] once more.
    Hold,
    /// Closes the connection.
    Close,
}

/// A scripted upstream that records every byte that it gets.
pub struct Upstream {
    pub addr: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    changed: watch::Receiver<u64>,
    gate: watch::Sender<u64>,
}

impl Upstream {
    /// Plays `acts` on every connection, after each whole request.
    pub async fn start(acts: Vec<Act>) -> Self {
        Self::start_with(move |_| acts.clone()).await
    }

    /// Plays what `acts` says for each whole request.
    pub async fn start_with(acts: impl Fn(&str) -> Vec<Act> + Send + Sync + 'static) -> Self {
        let acts = Arc::new(acts);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port on loopback");
        let addr = listener.local_addr().expect("a bound listener has an address");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (change, changed) = watch::channel(0);
        let (gate, _) = watch::channel(0);
        let upstream = Self { addr, seen: seen.clone(), changed, gate: gate.clone() };
        let change = Arc::new(change);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let nth = {
                    let mut seen = seen.lock().expect("no test panics while it holds this");
                    seen.push(Seen::default());
                    seen.len() - 1
                };
                tokio::spawn(play(stream, nth, acts.clone(), seen.clone(), change.clone(), gate.subscribe()));
            }
        });
        upstream
    }

    /// Answers every request with `response`, raw.
    pub async fn answering(response: impl Into<Vec<u8>>) -> Self {
        Self::start(vec![Act::Write(response.into())]).await
    }

    /// Lets every connection past one more [`Act::Hold`].
    pub fn go_on(&self) {
        self.gate.send_modify(|n| *n += 1);
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("no test panics while it holds this").clone()
    }

    /// Waits until `found` holds of some connection.
    pub async fn until(&self, found: impl Fn(&Seen) -> bool) -> Seen {
        let mut changed = self.changed.clone();
        let waiting = async {
            loop {
                changed.mark_unchanged();
                if let Some(seen) = self.seen().into_iter().find(|seen| found(seen)) {
                    return seen;
                }
                changed.changed().await.expect("the upstream lives as long as the test");
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("in vain; seen: {:#?}", self.seen()))
    }
}

async fn play(
    mut stream: TcpStream,
    nth: usize,
    acts: Arc<impl Fn(&str) -> Vec<Act> + Send + Sync + 'static>,
    seen: Arc<Mutex<Vec<Seen>>>,
    change: Arc<watch::Sender<u64>>,
    mut gate: watch::Receiver<u64>,
) {
    let note = |bytes: &[u8], left: bool| {
        let mut seen = seen.lock().expect("no test panics while it holds this");
        seen[nth].bytes.extend_from_slice(bytes);
        seen[nth].left |= left;
        drop(seen);
        change.send_modify(|n| *n += 1);
    };
    let mut pending = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return note(&[], true),
            Ok(n) => {
                note(&buffer[..n], false);
                pending.extend_from_slice(&buffer[..n]);
            }
        }
        let Some(end) = whole_request(&pending) else { continue };
        let request: Vec<u8> = pending.drain(..end).collect();
        for act in acts(&String::from_utf8_lossy(&request)) {
            match act {
                Act::Write(bytes) => {
                    if stream.write_all(&bytes).await.is_err() {
                        return note(&[], true);
                    }
                }
                Act::Hold => {
                    let passed = *gate.borrow_and_update();
                    tokio::select! {
                        _ = gate.wait_for(|n| *n > passed) => {}
                        read = stream.read(&mut buffer) => match read {
                            Ok(0) | Err(_) => return note(&[], true),
                            Ok(n) => note(&buffer[..n], false),
                        }
                    }
                }
                Act::Close => return,
            }
        }
    }
}

/// Where the first whole request in `bytes` ends.
fn whole_request(bytes: &[u8]) -> Option<usize> {
    let head = find(bytes, b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    if text.contains("transfer-encoding: chunked") {
        return find(&bytes[head..], b"0\r\n\r\n").map(|end| head + end + 5);
    }
    let length = text.split("\r\n").find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
    (bytes.len() >= head + length).then_some(head + length)
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// A raw answer with a length.
pub fn raw_response(status: &str, headers: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// One HTTP chunk.
pub fn chunk(text: &str) -> Vec<u8> {
    format!("{:x}\r\n{text}\r\n", text.len()).into_bytes()
}

/// The head of a stream as Ollama sends it.
pub const STREAM_HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nDate: Sun, 22 Nov 2026 12:37:41 GMT\r\nTransfer-Encoding: chunked\r\n\r\n";

/// The end of a chunked body.
pub const STREAM_END: &str = "0\r\n\r\n";

/// A line of a chat stream.
pub fn word(text: &str) -> Vec<u8> {
    chunk(&format!(
        "{{\"model\":\"m\",\"created_at\":\"2026-11-22T12:37:41.5Z\",\"message\":{{\"role\":\"assistant\",\"content\":\"{text}\"}},\"done\":false}}\n"
    ))
}

/// The last line of a chat stream.
pub fn last() -> Vec<u8> {
    chunk(
        "{\"model\":\"m\",\"created_at\":\"2026-11-22T12:37:42.5Z\",\"message\":{\"role\":\"assistant\",\"content\":\"\"},\"done\":true,\"done_reason\":\"stop\",\"prompt_eval_count\":7,\"eval_count\":3}\n",
    )
}

/// A request with a JSON body, as bytes.
pub fn post(path: &str, body: &str) -> Vec<u8> {
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// A small streamed chat for the OpenAI lane.
pub const CHAT_STREAM: &str = r#"{"model":"m","messages":[{"role":"user","content":"hi"}],"stream":true}"#;

/// A small unstreamed chat for the OpenAI lane.
pub const CHAT: &str = r#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#;

/// A client on a raw socket.
pub struct Client(TcpStream);

impl From<TcpStream> for Client {
    fn from(stream: TcpStream) -> Self {
        Self(stream)
    }
}

impl Client {
    pub async fn connect(addr: SocketAddr) -> Self {
        Self(TcpStream::connect(addr).await.expect("the proxy listens"))
    }

    /// Sends bytes to a new connection.
    pub async fn sending(addr: SocketAddr, bytes: impl AsRef<[u8]>) -> Self {
        let mut client = Self::connect(addr).await;
        client.send(bytes).await;
        client
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.expect("the proxy reads");
    }

    /// Sends bytes without giving way to another task.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        assert_eq!(self.0.try_write(bytes).expect("the proxy reads"), bytes.len());
    }

    /// Reads until `text` has come, and gives all that came up to there and a little beyond.
    pub async fn until(&mut self, text: &str) -> String {
        let mut got = Vec::new();
        let mut buffer = vec![0; 16 << 10];
        let reading = async {
            loop {
                let n = self.0.read(&mut buffer).await.expect("the proxy writes");
                got.extend_from_slice(&buffer[..n]);
                if find(&got, text.as_bytes()).is_some() {
                    return;
                }
                assert!(n > 0, "the connection ended before {text:?}: {}", String::from_utf8_lossy(&got));
            }
        };
        let came = tokio::time::timeout(PATIENCE, reading).await.is_ok();
        let got = String::from_utf8_lossy(&got).into_owned();
        assert!(came, "no {text:?} in: {got}");
        got
    }

    /// Reads one whole answer: until its length, or its last chunk, or the end.
    pub async fn answer(&mut self) -> Answer {
        let mut got = Vec::new();
        let mut buffer = vec![0; 64 << 10];
        let reading = async {
            loop {
                if let Some(answer) = Answer::parse(&got, false) {
                    return answer;
                }
                match self.0.read(&mut buffer).await {
                    Ok(n) if n > 0 => got.extend_from_slice(&buffer[..n]),
                    _ => return Answer::parse(&got, true).expect("a whole head"),
                }
            }
        };
        tokio::time::timeout(PATIENCE, reading).await.expect("a whole answer in time")
    }
}

impl Client {
    /// Reads what is left until the connection ends, however it does, as the body of an answer whose head was read
    /// before.
    pub async fn answer_or_nothing(&mut self) -> Answer {
        let mut rest = Vec::new();
        let reading = self.0.read_to_end(&mut rest);
        // A reset is an end too.
        let _ = tokio::time::timeout(PATIENCE, reading).await.expect("an end in time");
        let (body, whole) = dechunk(&rest);
        Answer { status: String::new(), headers: Vec::new(), body, whole }
    }
}

/// Sends bytes on a new connection, and reads one whole answer.
pub async fn ask(addr: SocketAddr, bytes: impl AsRef<[u8]>) -> Answer {
    Client::sending(addr, bytes).await.answer().await
}

/// An answer, taken apart no further than a test needs.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub status: String,
    pub headers: Vec<(String, String)>,
    /// Without the chunks' framing.
    pub body: Vec<u8>,
    /// Whether the body came to its proper end.
    pub whole: bool,
}

impl Answer {
    fn parse(bytes: &[u8], ended: bool) -> Option<Self> {
        let head = find(bytes, b"\r\n\r\n")?;
        let text = String::from_utf8_lossy(&bytes[..head]);
        let mut lines = text.split("\r\n");
        let status = lines.next()?.to_owned();
        let headers: Vec<_> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let rest = &bytes[head + 4..];
        let header = |name: &str| headers.iter().find(|(known, _)| known == name).map(|(_, value)| &**value);
        let (body, whole) = if header("transfer-encoding") == Some("chunked") {
            dechunk(rest)
        } else {
            let length: usize = header("content-length").map_or(Some(0), |length| length.parse().ok())?;
            (rest[..rest.len().min(length)].to_vec(), rest.len() >= length)
        };
        (whole || ended).then_some(Self { status, headers, body, whole })
    }

    pub fn code(&self) -> u16 {
        self.status.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| &**value)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// OpenAI's error message.
    pub fn message(&self) -> String {
        self.json()["error"]["message"].as_str().unwrap_or_else(|| panic!("no message: {}", self.text())).to_owned()
    }

    /// The `data:` of each event.
    pub fn events(&self) -> Vec<String> {
        let data = |event: &str| event.lines().find_map(|line| line.strip_prefix("data: ")).map(str::to_owned);
        self.text().split("\n\n").filter_map(data).collect()
    }
}

fn dechunk(mut bytes: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    while let Some(line) = find(bytes, b"\r\n") {
        let size = usize::from_str_radix(&String::from_utf8_lossy(&bytes[..line]), 16).expect("a chunk's size");
        let rest = &bytes[line + 2..];
        if size == 0 {
            return (body, rest.starts_with(b"\r\n"));
        }
        if rest.len() < size + 2 {
            break;
        }
        body.extend_from_slice(&rest[..size]);
        bytes = &rest[size + 2..];
    }
    (body, false)
}
