//! No key of a caller's and no key of the remote's is ever seen where it does not belong.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{
    io::{BufRead, BufReader, Read},
    process::{Command, Stdio},
};

use support::{CHAT, CHAT_STREAM, Upstream, ask, post, raw_response};

/// Every form in which a client hands over a key.
const CALLER: [(&str, &str); 6] = [
    ("Authorization", "Bearer canary-bearer"),
    ("authorization", "bearer canary-lower"),
    ("Authorization", "Basic canary-basic"),
    ("Authorization", "canary-bare"),
    ("X-Api-Key", "canary-x-api-key"),
    ("x-api-key", "canary-small"),
];

const REMOTE: &str = "canary-remote-key";

/// The real binary in front of `remote`, everything logged.
struct Proxy {
    child: std::process::Child,
    addr: std::net::SocketAddr,
    log: Option<std::thread::JoinHandle<String>>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Proxy {
    fn start(remote: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_farllama"))
            .args(["serve", "--local-port", "0", "--log", "json", "--log-level", "trace", "--remote-host", remote])
            .env_clear()
            .env("FARLLAMA_REMOTE_API_KEY", REMOTE)
            .env("FARLLAMA_REMOTE_HEADERS", "X-Gateway-Key: canary-gateway")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut told = String::new();
        let addr = loop {
            let mut line = String::new();
            assert!(log.read_line(&mut line).unwrap() > 0, "it ended before it listened: {told}");
            told.push_str(&line);
            let line: serde_json::Value = serde_json::from_str(&line).unwrap();
            if line["message"] == "listening" {
                break line["ollama"].as_str().unwrap().trim_start_matches("http://").parse().unwrap();
            }
        };
        let log = std::thread::spawn(move || {
            log.read_to_string(&mut told).unwrap();
            told
        });
        Self { child, addr, log: Some(log) }
    }

    /// Ends the proxy, and gives all that it has logged.
    fn log(mut self) -> String {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.log.take().unwrap().join().unwrap()
    }
}

#[tokio::test]
async fn no_key_is_seen_in_answers_logs_or_upstream() {
    let ok = "{\"models\":[],\"message\":{\"role\":\"assistant\",\"content\":\"hi\"},\"done\":true,\"done_reason\":\"stop\"}";
    let json = "Content-Type: application/json\r\n";
    // Every kind of answer, refusals and failures among them.
    let mut upstreams = vec![
        Upstream::answering(raw_response("200 OK", json, ok)).await,
        Upstream::answering(raw_response("404 Not Found", json, "{\"error\":\"model 'm' not found\"}")).await,
        Upstream::answering(raw_response("500 Internal Server Error", json, "{\"error\":\"boom\"}")).await,
        Upstream::answering(raw_response("401 Unauthorized", "Content-Type: text/html\r\n", "<html>no</html>")).await,
        Upstream::answering("SSH-2.0-x\r\n").await,
        Upstream::start(vec![support::Act::Write(support::STREAM_HEAD.into()), support::Act::Close]).await,
    ];
    let (mut seen, mut answers) = (String::new(), String::new());
    let mut logs = String::new();
    for upstream in upstreams.drain(..) {
        let proxy = Proxy::start(&upstream.addr.to_string());
        for (name, value) in CALLER {
            let keyed = |request: Vec<u8>| {
                let text = String::from_utf8(request).unwrap();
                text.replacen("\r\n", &format!("\r\n{name}: {value}\r\n"), 1).into_bytes()
            };
            let echoing =
                format!("{{\"model\":\"{value}\",\"messages\":[{{\"role\":\"user\",\"content\":\"{value}\"}}]}}");
            for request in [
                post("/v1/chat/completions", CHAT),
                post("/v1/chat/completions", CHAT_STREAM),
                post("/v1/chat/completions", "{ broken"),
                post("/v1/chat/completions", "{\"model\": 5}"),
                post("/api/chat", "{}"),
                b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
                b"GET /api/tags HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
                b"GET /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
                b"GET /x HTTP/1.1\r\nHost: evil.example\r\n\r\n".to_vec(),
            ] {
                answers.push_str(&ask(proxy.addr, keyed(request)).await.text());
            }
            // A payload that holds the key itself is the caller's own doing; the log masks it all the same.
            ask(proxy.addr, keyed(post("/v1/chat/completions", &echoing))).await;
        }
        for connection in upstream.seen() {
            // The echo above is the one body that may hold it.
            let text = connection.text();
            let heads: Vec<&str> = text.split("\r\n\r\n").filter(|part| part.contains("HTTP/1.1")).collect();
            seen.push_str(&heads.join("\n"));
        }
        logs.push_str(&proxy.log());
    }
    let callers = CALLER.map(|(_, value)| value.split(' ').next_back().unwrap());
    for key in callers {
        assert!(!answers.contains(key), "{key} stands in an answer");
        assert!(
            !logs.contains(key),
            "{key} stands in the log: {}",
            logs.lines().find(|line| line.contains(key)).unwrap()
        );
        let upstream = seen.lines().find(|line| line.contains(key) && !line.contains("\"messages\""));
        assert!(upstream.is_none(), "{key} went upstream: {upstream:?}");
    }
    assert!(seen.contains(REMOTE) && seen.contains("canary-gateway"), "the remote's own keys are sent");
    for key in [REMOTE, "canary-gateway"] {
        assert!(!answers.contains(key) && !logs.contains(key), "{key} is shown");
    }
}
