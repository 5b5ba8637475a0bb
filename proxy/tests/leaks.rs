//! No key of a caller's and no key of the remote's is ever seen where it does not belong.

#[cfg(unix)]
use std::process::Command;

use crate::program::Program;

use crate::support::{self, CHAT, CHAT_STREAM, Upstream, ask, post, raw_response};

/// Every form in which a client hands over a key.
const CALLER: [(&str, &str); 10] = [
    ("Authorization", "Bearer canary-bearer"),
    ("authorization", "bearer canary-lower"),
    ("Authorization", "Basic canary-basic"),
    ("Authorization", "canary-bare"),
    ("X-Api-Key", "canary-x-api-key"),
    ("x-api-key", "canary-small"),
    ("Authorization", "Bearer   canary-spaces"),
    ("Authorization", "Bearer canary-first, Bearer canary-first"),
    ("X-API-KEY", " canary-loud "),
    ("x-api-key", "canary-twice\r\nx-api-key: canary-twice"),
];

const REMOTE: &str = "canary-remote-key";

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
        let proxy = Program::start(
            &["--log-level", "trace", "--remote-host", &upstream.addr.to_string()],
            &[("FARLLAMA_REMOTE_API_KEY", REMOTE), ("FARLLAMA_REMOTE_HEADERS", "X-Gateway-Key: canary-gateway")],
        );
        for (name, value) in CALLER {
            let keyed = |request: Vec<u8>| {
                let text = String::from_utf8(request).unwrap();
                text.replacen("\r\n", &format!("\r\n{name}: {value}\r\n"), 1).into_bytes()
            };
            let echoed = value.rsplit(' ').find(|word| !word.is_empty()).unwrap();
            let echoing =
                format!("{{\"model\":\"{echoed}\",\"messages\":[{{\"role\":\"user\",\"content\":\"{echoed}\"}}]}}");
            let broken = format!("{{ \"model\": {echoed} }}");
            for request in [
                post("/v1/chat/completions", CHAT),
                post("/v1/chat/completions", CHAT_STREAM),
                post("/v1/chat/completions", "{ broken"),
                post("/v1/messages", CHAT),
                post("/v1/messages", "{ broken"),
                post(
                    "/v1/messages",
                    r#"{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"hi"}],"stream":true}"#,
                ),
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
            answers.push_str(&ask(proxy.addr, keyed(post("/v1/chat/completions", &broken))).await.text());
        }
        for connection in upstream.seen() {
            // The echo above is the one body that may hold it.
            let text = connection.text();
            let heads: Vec<&str> = text.split("\r\n\r\n").filter(|part| part.contains("HTTP/1.1")).collect();
            seen.push_str(&heads.join("\n"));
        }
        logs.push_str(&proxy.log());
    }
    let callers = CALLER.map(|(_, value)| value.split(' ').rfind(|word| !word.is_empty()).unwrap());
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

#[tokio::test]
async fn with_the_gate_on_no_key_is_seen_anywhere_right_or_wrong_across_a_reload() {
    let json = "Content-Type: application/json\r\n";
    let upstream = Upstream::answering(raw_response("200 OK", json, "{\"models\":[]}")).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("farllama.toml");
    let settings = "[auth]\nenabled = true\nheader = \"x-team-key\"\ntokens = [{ key = \"canary-ann\", name = \"ann\", limit_per_minute = 20 }, { key = \"canary-bob\", models = [\"m\"] }]\n";
    std::fs::write(&file, settings).unwrap();
    let remote = upstream.addr.to_string();
    let flags = ["--config", file.to_str().unwrap(), "--remote-host", &remote, "--log-level", "trace"];
    let program = Program::start(&flags, &[]);
    let mut answers = String::new();
    for key in ["canary-ann", "canary-bob", "canary-wrong"] {
        for header in ["X-Team-Key: KEY", "Authorization: Bearer KEY", "X-Team-Key: KEY\r\nX-Api-Key: KEY"] {
            for request in [
                post("/v1/chat/completions?key=canary-query", CHAT),
                post("/v1/chat/completions", "{ broken KEY"),
                post("/v1/chat/completions", "{\"model\": [\"KEY\"]}"),
                post("/api/chat", "{ \"model\": \"KEY\" "),
                b"GET /api/tags?api_key=canary-query HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
                b"GET /v1/models/x HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
                b"GET /api/tags HTTP/1.1\r\nHost: evil.example\r\n\r\n".to_vec(),
            ] {
                let text = String::from_utf8(request).unwrap();
                let (head, body) = text.split_once("\r\n\r\n").unwrap();
                let head: Vec<_> = head.split("\r\n").filter(|line| !line.starts_with("Content-Length")).collect();
                let body = body.replace("KEY", key);
                let head = format!(
                    "{}\r\n{}\r\nContent-Length: {}",
                    head.join("\r\n"),
                    header.replace("KEY", key),
                    body.len()
                );
                let answer = ask(program.addr, format!("{head}\r\n\r\n{body}")).await;
                answers.push_str(&format!("{:?} {}", answer.headers, answer.text()));
            }
        }
    }
    std::fs::write(&file, settings.replace("20", "x")).unwrap();
    #[cfg(unix)]
    {
        assert!(Command::new("kill").args(["-HUP", &program.id().to_string()]).status().unwrap().success());
        program.until("keeping the previous configuration").await;
    }
    let logs = program.log();
    let seen: String = upstream.seen().iter().map(support::Seen::text).collect();
    // On the native lane a body passes as it is; each of those here begins with a brace.
    let heads: String = seen.lines().filter(|line| !line.contains('{')).collect();
    assert!(seen.contains("canary-query"), "a query passes as it is");
    for key in ["canary-ann", "canary-bob", "canary-wrong"] {
        assert!(!answers.contains(key), "{key} stands in an answer");
        let line = logs.lines().find(|line| line.contains(key));
        assert!(line.is_none(), "{key} stands in the log: {line:?}");
        assert!(!heads.contains(key), "{key} went upstream");
    }
    let line = logs.lines().find(|line| line.contains("canary-query"));
    assert!(line.is_none() && !answers.contains("canary-query"), "a query stands in the log: {line:?}");
    assert!(logs.contains("\"caller\":\"ann\""), "{logs}");
}
