//! What the log says: of the remote, of requests that run for long, and of those that end without a response.

use std::{net::SocketAddr, time::Duration};

use crate::program::Program;
use crate::support::{self, Act, CHAT, CHAT_STREAM, Client, Upstream, ask, last, post, raw_response, word};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

const JSON: &str = "Content-Type: application/json\r\n";

/// The lines of a log whose message is `message`.
fn lines(log: &str, message: &str) -> Vec<Value> {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["message"] == message).collect()
}

#[tokio::test]
async fn a_client_that_leaves_before_the_response_is_logged_with_what_it_waited_for() {
    for (path, body) in [("/api/chat", "{}"), ("/v1/chat/completions", CHAT), ("/v1/chat/completions", CHAT_STREAM)] {
        let upstream = Upstream::start(vec![Act::Hold]).await;
        let program = Program::start(&["--remote-host", &upstream.addr.to_string()], &[]);
        let client = Client::sending(program.addr, post(path, body)).await;
        upstream.until(|seen| seen.text().contains("POST /api/chat")).await;
        drop(client);
        program.until("client gone").await;
        let log = program.log();
        let found = lines(&log, &format!("POST {path}"));
        let [line] = &found[..] else { panic!("{log}") };
        assert_eq!((&line["ended"], &line["waiting_for"]), (&"client gone".into(), &"the remote".into()), "{line}");
        assert!(line["status"].is_null() && line["first_byte_ms"].is_null(), "{line}");
        assert!(line["total_ms"].as_f64().unwrap() > 0.0 && line["id"].as_str().unwrap().starts_with("req_"), "{line}");
        assert!(line["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{line}");
        assert_eq!(line["model"] == "m", path.starts_with("/v1"), "{line}");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_second_signal_cuts_the_connections_and_does_not_blame_the_clients() {
    for (path, body) in [("/api/chat", "{}"), ("/v1/chat/completions", CHAT_STREAM)] {
        let upstream = Upstream::start(vec![Act::Hold]).await;
        let program = Program::start(&["--remote-host", &upstream.addr.to_string()], &[]);
        let _client = Client::sending(program.addr, post(path, body)).await;
        upstream.until(|seen| seen.text().contains("POST /api/chat")).await;
        let interrupt =
            || std::process::Command::new("kill").args(["-INT", &program.id().to_string()]).status().unwrap();
        interrupt();
        program.until("topping").await;
        interrupt();
        program.until(&format!("POST {path}")).await;
        let log = program.printed();
        let found = lines(&log, &format!("POST {path}"));
        assert_eq!(found[0]["ended"], "canceled", "{log}");
    }
}

#[tokio::test]
async fn the_first_token_is_distinguished_from_a_heartbeat() {
    let head = [support::STREAM_HEAD.as_bytes(), &word("one")].concat();
    let end = [word("two"), last(), support::STREAM_END.into()].concat();
    let upstream = Upstream::start(vec![Act::Hold, Act::Write(head), Act::Hold, Act::Write(end)]).await;
    let remote = upstream.addr.to_string();
    let program = Program::start(&["--remote-host", &remote, "--heartbeat-after", "20ms", "--remote-probe", "0s"], &[]);
    let mut client = Client::sending(program.addr, post("/v1/chat/completions", CHAT_STREAM)).await;
    // A heartbeat is two empty lines: a chunk of two bytes.
    client.until("\r\n2\r\n\n\n").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    upstream.go_on();
    client.until("one").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    upstream.go_on();
    client.until("[DONE]").await;
    program.until("\"ended\":\"complete\"").await;
    let log = program.log();
    let line = &lines(&log, "POST /v1/chat/completions")[0];
    let number = |name: &str| line[name].as_f64().unwrap_or_else(|| panic!("no {name} in {line}"));
    assert!(number("first_token_ms") >= number("first_byte_ms") + 90.0, "{line}");
    // Three tokens in a little more than a tenth of a second.
    assert!((1.0..=30.0).contains(&number("tokens_per_second")), "{line}");
}

#[tokio::test]
async fn the_speed_of_a_native_answer_is_ollamas_own() {
    let body =
        "{\"model\":\"m\",\"done\":true,\"prompt_eval_count\":7,\"eval_count\":30,\"eval_duration\":2000000000}\n";
    let upstream = Upstream::answering(raw_response("200 OK", JSON, body)).await;
    let program = Program::start(&["--remote-host", &upstream.addr.to_string()], &[]);
    assert_eq!(ask(program.addr, post("/api/chat", "{}")).await.code(), 200);
    program.until("\"ended\":\"complete\"").await;
    let log = program.log();
    assert_eq!(lines(&log, "POST /api/chat")[0]["tokens_per_second"], 15.0, "{log}");
}

#[tokio::test]
async fn a_misspelled_field_is_unknown_and_the_log_suggests_the_right_one() {
    let reply = "{\"model\":\"m\",\"message\":{\"role\":\"assistant\",\"content\":\"hi\"},\"done\":true,\"done_reason\":\"stop\"}";
    let upstream = Upstream::answering(raw_response("200 OK", JSON, reply)).await;
    let program = Program::start(&["--remote-host", &upstream.addr.to_string()], &[]);
    let body = r#"{"model":"m","temprature":3,"user":"u","messages":[{"role":"user","content":"hi"}]}"#;
    let answer = ask(program.addr, post("/v1/chat/completions", body)).await;
    assert_eq!(answer.header("x-farllama-receipt"), Some("user=no-effect, temprature=unknown"));
    program.until("did you mean `temperature`?").await;
    let log = program.log();
    let hint = "unknown field `temprature`: did you mean `temperature`?";
    assert_eq!(lines(&log, "POST /v1/chat/completions")[0]["hint"], hint);
}

#[tokio::test]
async fn every_debug_line_of_a_request_has_its_id() {
    let stream = [support::STREAM_HEAD.as_bytes(), &word("one"), &last(), support::STREAM_END.as_bytes()].concat();
    let upstream = Upstream::answering(stream).await;
    let program = Program::start(&["--remote-host", &upstream.addr.to_string(), "--verbose"], &[]);
    let request = String::from_utf8(post("/v1/chat/completions", CHAT_STREAM)).unwrap();
    let request = request.replacen("\r\n", "\r\nx-request-id: mine-1\r\n", 1);
    Client::sending(program.addr, request).await.until("[DONE]").await;
    program.until("\"ended\":\"complete\"").await;
    let log = program.log();
    let payloads: Vec<_> = log.lines().filter(|line| line.contains("sent data:") || line.contains("ask {")).collect();
    assert!(payloads.len() >= 4 && payloads.iter().all(|line| line.contains("\"id\":\"mine-1\"")), "{log}");
}

#[tokio::test]
async fn a_request_that_runs_for_long_is_logged_while_it_runs() {
    let upstream = Upstream::start(vec![Act::Hold]).await;
    let program = Program::start(&["--remote-host", &upstream.addr.to_string(), "--log-running", "100ms"], &[]);
    let _client = Client::sending(program.addr, post("/v1/chat/completions", CHAT)).await;
    program.until("POST /v1/chat/completions is still running").await;
    let log = program.log();
    let line = &lines(&log, "POST /v1/chat/completions is still running")[0];
    assert_eq!(
        (&line["model"], &line["waiting_for"], &line["level"]),
        (&"m".into(), &"the remote".into(), &"INFO".into())
    );
}

#[tokio::test]
async fn what_farllama_refuses_by_itself_is_not_a_failure_of_the_remote() {
    let upstream = Upstream::answering(raw_response("200 OK", JSON, "{}")).await;
    let program = Program::start(&["--remote-host", &upstream.addr.to_string()], &[]);
    assert_eq!(ask(program.addr, post("/v1/messages/batches", "{}")).await.code(), 501);
    program.until("\"ended\":\"refused\"").await;
    let log = program.log();
    assert!(!log.contains("upstream failed"), "{log}");
}

#[tokio::test]
async fn a_prompt_that_is_refused_for_its_length_names_the_setting_once() {
    let error = "{\"error\":\"the input length exceeds the context length\"}";
    let upstream = Upstream::answering(raw_response("400 Bad Request", JSON, error)).await;
    let program = Program::start(&["--remote-host", &upstream.addr.to_string()], &[]);
    for _ in 0..2 {
        assert_eq!(ask(program.addr, post("/v1/chat/completions", CHAT)).await.code(), 400);
    }
    program.until("\"ended\":\"refused\"").await;
    let log = program.log();
    assert_eq!(log.matches("--context-max 65536").count(), 1, "{log}");
}

/// An Ollama that answers every request alike, until it is dropped.
struct Remote(tokio::task::JoinHandle<()>);

impl Remote {
    async fn start(addr: SocketAddr) -> Self {
        let listener = TcpListener::bind(addr).await.unwrap();
        Self(tokio::spawn(async move {
            let body = r#"{"version":"0.33.0","models":[{"name":"gpt-oss:20b"},{"name":"qwen3:8b"}]}"#;
            let reply = raw_response("200 OK", "Content-Type: application/json\r\nConnection: close\r\n", body);
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(&reply).await;
            }
        }))
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn the_remote_is_probed_at_start_and_logged_when_it_comes_and_goes() {
    let addr = free().await;
    let program = Program::start(&["--remote-host", &addr.to_string(), "--remote-probe", "50ms"], &[]);
    // The listener does not wait for the probe: it is already up.
    program
        .until(&format!("remote http://{addr}: cannot reach the remote Ollama at http://{addr}: connection refused"))
        .await;
    let remote = Remote::start(addr).await;
    program.until(&format!("remote http://{addr}: Ollama 0.33.0, 2 models (reachable again)")).await;
    drop(remote);
    let gone = async {
        while program.printed().matches("connection refused").count() < 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), gone).await.unwrap();
    let warned =
        program.log().lines().filter(|line| line.contains("connection refused") && line.contains("WARN")).count();
    assert_eq!(warned, 2);
}

#[tokio::test]
async fn what_answers_but_is_no_ollama_is_warned_of_at_start() {
    let upstream = Upstream::answering(raw_response("404 Not Found", "", "404 page not found")).await;
    let program = Program::start(&["--remote-host", &upstream.addr.to_string()], &[]);
    program.until("not an Ollama at").await;
    assert!(program.log().lines().any(|line| line.contains("not an Ollama at") && line.contains("WARN")));
}

#[cfg(unix)]
#[tokio::test]
async fn a_reload_says_what_changed_and_which_patterns_match_no_model() {
    let addr = free().await;
    let _remote = Remote::start(addr).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("farllama.toml");
    let keys = |models: &str| {
        format!(
            "[auth]\nenabled = true\nkeys = [{{ key = \"a-long-key\", name = \"ann\", models = [\"{models}\"] }}]\n"
        )
    };
    std::fs::write(&file, keys("gpt-oss")).unwrap();
    let runtime = folder.path().display().to_string();
    let environment = [("XDG_RUNTIME_DIR", &*runtime)];
    let flags = ["--config", file.to_str().unwrap(), "--remote-host", &addr.to_string()];
    let program = Program::start(&flags, &environment);
    program.until("Ollama 0.33.0, 2 models").await;
    let reload = async || {
        let (runtime, binary) = (runtime.clone(), env!("CARGO_BIN_EXE_farllama"));
        let command = move || {
            std::process::Command::new(binary)
                .arg("reload")
                .env_clear()
                .env("XDG_RUNTIME_DIR", runtime)
                .output()
                .unwrap()
        };
        let output = tokio::task::spawn_blocking(command).await.unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8(text).unwrap())
    };
    let (code, text) = reload().await;
    assert!(code == 0 && text.contains("configuration reloaded: nothing changed"), "{code} {text}");
    std::fs::write(&file, keys("gpt-os") + "[quota]\nqueue = 5\n").unwrap();
    let (code, text) = reload().await;
    let changes = "configuration reloaded: auth.keys: ann changed; quota.queue: 100 → 5";
    assert!(code == 0 && text.contains(changes), "{code} {text}");
    program.until("ann is allowed \\\"gpt-os\\\", but the remote has no such model").await;
    std::fs::write(
        &file,
        keys("gpt-os") + "[quota]\nqueue = 5\n[local]\nhost = \"127.0.0.2\"\n[admin]\nrequests = 7\n",
    )
    .unwrap();
    let (code, text) = reload().await;
    let restart =
        "nothing changed; only a restart changes local.host: \"127.0.0.1\" → \"127.0.0.2\"; admin.requests: 500 → 7";
    assert!(code == 0 && text.contains(restart), "{code} {text}");
    std::fs::write(&file, "[quota]\nqueue = \"x\"\n").unwrap();
    let (code, text) = reload().await;
    assert!(
        code == 2 && text.contains("keeping the previous configuration") && text.contains("farllama.toml:2:"),
        "{code} {text}"
    );
    program.log();
    let (code, text) = reload().await;
    assert!(code == 2 && text.contains("no running farllama"), "{code} {text}");
}
