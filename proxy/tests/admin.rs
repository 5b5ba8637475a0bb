//! The admin listener: what it does to the data listener, and what it does not.

use std::{net::SocketAddr, process::Command, time::Duration};

use crate::support::{
    self, Act, Answer, CHAT, CHAT_STREAM, Client, PATIENCE, STREAM_END, STREAM_HEAD, Upstream, ask, last, post,
    raw_response, word,
};
use farllama::{
    Config, LogRing, Running,
    admin::Admin,
    config::{Secret, Sources, Token},
    serve,
};
use serde_json::{Value, json};

const MESSAGES_STREAM: &str =
    "{\"model\":\"m\",\"max_tokens\":9,\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"stream\":true}";

/// A proxy with an admin listener, both on free ports.
struct Steered {
    proxy: Running,
    admin: Admin,
    log: LogRing,
}

impl Steered {
    async fn start(upstream: &Upstream) -> Self {
        Self::with(support::config(upstream.addr), Sources::default()).await
    }

    async fn with(mut config: Config, sources: Sources) -> Self {
        config.admin.port = 0;
        let log = LogRing::default();
        let proxy = serve(config).await.unwrap();
        let admin = proxy.admin(log.clone(), sources).await.unwrap();
        Self { proxy, admin, log }
    }

    fn addr(&self) -> SocketAddr {
        self.proxy.addr()
    }

    async fn call(&self, method: &str, path: &str, body: &str) -> Answer {
        let length = body.len();
        let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nX-Farllama-Admin: 1\r\n");
        ask(self.admin.addr(), format!("{head}Content-Length: {length}\r\n\r\n{body}")).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, "").await
    }

    /// Waits until `path` answers with what `wanted` accepts.
    async fn until(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let waiting = async {
            loop {
                let answer = self.get(path).await;
                if answer.code() == 200 && wanted(&answer.json()) {
                    return answer.json();
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("{path} in vain"))
    }
}

/// An upstream whose stream says `one`, waits, and then says `two` and ends.
async fn holding() -> Upstream {
    let begin = [STREAM_HEAD.as_bytes().to_vec(), word("one")].concat();
    let end = [word("two"), last(), STREAM_END.as_bytes().to_vec()].concat();
    Upstream::start(vec![Act::Write(begin), Act::Hold, Act::Write(end)]).await
}

fn version() -> Vec<u8> {
    raw_response("200 OK", "Content-Type: application/json\r\n", "{\"version\":\"0.33.0\",\"models\":[]}")
}

#[tokio::test]
async fn the_data_listener_stops_and_starts_while_a_stream_goes_on() {
    let upstream = holding().await;
    let steered = Steered::start(&upstream).await;
    let mut stream = Client::sending(steered.addr(), post("/v1/chat/completions", CHAT_STREAM)).await;
    stream.until("one").await;
    let stopped = steered.call("POST", "/api/stop", "").await.json();
    assert_eq!(stopped, json!({ "running": false, "changed": true }));
    assert!(tokio::net::TcpStream::connect(steered.addr()).await.is_err(), "the port is free again");
    assert_eq!(steered.call("POST", "/api/stop", "").await.json(), json!({ "running": false, "changed": false }));
    let ready = steered.get("/readyz").await;
    assert_eq!((ready.code(), &ready.json()["reason"]), (503, &json!("the data listener is stopped")));
    assert_eq!(steered.get("/healthz").await.text(), "ok\n");
    assert_eq!(steered.call("POST", "/api/start", "").await.json(), json!({ "running": true, "changed": true }));
    assert_eq!(steered.call("POST", "/api/start", "").await.json(), json!({ "running": true, "changed": false }));
    assert_eq!(steered.call("POST", "/api/restart", "").await.code(), 200);
    let mut second = Client::sending(steered.addr(), post("/v1/chat/completions", CHAT_STREAM)).await;
    second.until("one").await;
    upstream.go_on();
    let rest = stream.until("[DONE]").await;
    assert!(rest.contains("two") && rest.contains("\"finish_reason\":\"stop\""), "{rest}");
    second.until("[DONE]").await;
}

#[tokio::test]
async fn a_taken_port_is_reported_and_start_can_be_tried_again() {
    let upstream = Upstream::answering(version()).await;
    let steered = Steered::start(&upstream).await;
    steered.call("POST", "/api/stop", "").await;
    let taken = tokio::net::TcpListener::bind(steered.addr()).await.unwrap();
    let refused = steered.call("POST", "/api/start", "").await;
    assert_eq!(refused.code(), 409);
    assert!(refused.text().contains("cannot listen on 127.0.0.1:"), "{}", refused.text());
    drop(taken);
    assert_eq!(steered.call("POST", "/api/start", "").await.code(), 200);
}

#[tokio::test]
async fn the_remote_changes_while_a_stream_from_the_old_one_goes_on() {
    let (old, new) = (holding().await, Upstream::answering(version()).await);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.toml");
    std::fs::write(&file, "# ours\n[remote]\nhost = \"old\" # the old box\napi_key = \"hunter2hunter2\"\n").unwrap();
    let sources = Sources { file: Some(file.clone()), ..Sources::default() };
    let mut config = support::config(old.addr);
    config.remote.authorization = Some("Bearer hunter2hunter2".parse().unwrap());
    let steered = Steered::with(config, sources).await;
    let mut stream = Client::sending(steered.addr(), post("/v1/chat/completions", CHAT_STREAM)).await;
    stream.until("one").await;
    let change = json!({ "url": format!("http://{}/base", new.addr), "save": true });
    let outcome = steered.call("PUT", "/api/remote", &change.to_string()).await;
    assert_eq!(outcome.code(), 200, "{}", outcome.text());
    let outcome = outcome.json();
    assert_eq!((&outcome["applied"], &outcome["version"]), (&json!(true), &json!("0.33.0")));
    assert!(outcome["warnings"][0].as_str().unwrap().contains("credentials of the old remote"), "{outcome}");
    assert_eq!(ask(steered.addr(), "GET /api/tags HTTP/1.1\r\nHost: localhost\r\n\r\n").await.code(), 200);
    let seen = new.seen();
    assert!(seen.iter().any(|seen| seen.text().contains("GET /base/api/tags")), "{seen:?}");
    assert!(seen.iter().all(|seen| !seen.text().contains("hunter2")), "no key of one machine goes to another");
    let saved = std::fs::read_to_string(&file).unwrap();
    assert!(saved.contains("# ours") && saved.contains("\"127.0.0.1\" # the old box"), "{saved}");
    assert!(saved.contains("base_path = \"/base\"") && !saved.contains("hunter2"), "{saved}");
    old.go_on();
    assert!(stream.until("[DONE]").await.contains("two"));
    let shown = steered.get("/api/remote").await.json();
    assert_eq!(shown["url"], format!("http://{}/base", new.addr));
    assert_eq!(steered.get("/readyz").await.json(), json!({ "ready": true }));
}

#[tokio::test]
async fn an_openai_server_is_set_with_its_kind_shown_as_one_and_not_ready_when_it_is_gone() {
    let old = Upstream::answering(version()).await;
    let list = "{\"object\":\"list\",\"data\":[{\"id\":\"Org/m\",\"owned_by\":\"vllm\",\"max_model_len\":9}]}";
    let server = Upstream::answering(raw_response("200 OK", "Content-Type: application/json\r\n", list)).await;
    let steered = Steered::start(&old).await;
    let remote = steered.get("/api/status").await.json()["remote"].clone();
    assert_eq!((&remote["kind"], &remote["version"]), (&json!("ollama"), &json!("0.33.0")));
    let mut change = json!({ "url": format!("http://{}/v1", server.addr) });
    let refused = steered.call("PUT", "/api/remote", &change.to_string()).await;
    assert_eq!(refused.code(), 400, "an Ollama has no such address: {}", refused.text());
    change["kind"] = json!("openai");
    let outcome = steered.call("PUT", "/api/remote", &change.to_string()).await.json();
    for (field, value) in
        [("applied", json!(true)), ("kind", json!("openai")), ("server", json!("vLLM")), ("models", json!(1))]
    {
        assert_eq!(outcome[field], value, "{outcome}");
    }
    let remote = steered.get("/api/status").await.json()["remote"].clone();
    for (field, value) in [("reachable", json!(true)), ("kind", json!("openai")), ("server", json!("vLLM"))] {
        assert_eq!(remote[field], value, "{remote}");
    }
    assert!(remote["version"].is_null(), "{remote}");
    let remotes = steered.get("/api/remotes").await.json();
    let listed = &remotes["remotes"][0];
    assert_eq!((&listed["installed"], &listed["loaded"]), (&json!(["Org/m"]), &json!(["Org/m"])), "{listed}");
    assert_eq!(steered.get("/api/remote").await.json()["kind"], "openai");
    let gone = json!({ "url": "http://127.0.0.1:9/v1", "kind": "openai", "force": true });
    assert_eq!(steered.call("PUT", "/api/remote", &gone.to_string()).await.code(), 200);
    assert_eq!(steered.get("/readyz").await.code(), 503);
}

#[tokio::test]
async fn a_remote_that_cannot_be_used_changes_nothing() {
    let upstream = Upstream::answering(version()).await;
    let steered = Steered::start(&upstream).await;
    let own = json!({ "host": "localhost", "port": steered.addr().port() }).to_string();
    let before = steered.get("/api/remote").await.json();
    for (body, status, text) in [
        ("{", 400, "invalid body"),
        ("{\"host\":\"a\",\"hots\":1}", 400, "unknown field `hots`"),
        ("{}", 400, "url or host is missing"),
        ("{\"url\":\"a\",\"host\":\"b\"}", 400, "only one"),
        ("{\"url\":\"ftp://a\"}", 400, "ftp"),
        ("{\"host\":\"a\",\"port\":70000}", 400, "invalid body"),
        ("{\"url\":\"http://127.0.0.1:9\",\"save\":true}", 502, "nothing was changed"),
        (&own, 400, "this proxy itself"),
    ] {
        let refused = steered.call("PUT", "/api/remote", body).await;
        assert_eq!(refused.code(), status, "{body}: {}", refused.text());
        assert!(refused.json()["error"].as_str().unwrap().contains(text), "{body}: {}", refused.text());
    }
    assert_eq!(steered.get("/api/remote").await.json(), before);
    // On purpose, before the machine is up.
    let forced = steered.call("PUT", "/api/remote", "{\"url\":\"http://127.0.0.1:9\",\"force\":true}").await.json();
    assert_eq!((&forced["applied"], &forced["reachable"]), (&json!(true), &json!(false)));
    let ready = steered.get("/readyz").await;
    assert_eq!(ready.code(), 503);
    assert!(ready.json()["reason"].as_str().unwrap().contains("127.0.0.1:9"), "{}", ready.text());
}

#[tokio::test]
async fn a_canceled_request_ends_with_an_error_in_its_own_dialect() {
    let upstream = holding().await;
    let steered = Steered::start(&upstream).await;
    let cases = [
        ("/v1/chat/completions", CHAT_STREAM, "\"code\":\"request_canceled\""),
        ("/api/chat", CHAT_STREAM, "{\"error\":\"an operator of the proxy has canceled this request\"}\n"),
        ("/v1/messages", MESSAGES_STREAM, "event: error\ndata: {\"type\":\"error\""),
    ];
    for (ended, (path, body, error)) in (1..).zip(cases) {
        let mut stream = Client::sending(steered.addr(), post(path, body)).await;
        stream.until("one").await;
        let running = steered.until("/api/requests", |all| !all["running"].as_array().unwrap().is_empty()).await;
        let row = &running["running"][0];
        assert_eq!(row["path"], path);
        assert!(row["first_token_ms"].is_u64() && row["waiting_for"].is_null(), "{row}");
        let canceled = steered.call("POST", &format!("/api/requests/{}/cancel", row["key"]), "").await;
        assert_eq!(canceled.code(), 204);
        let end = stream.until("\r\n0\r\n\r\n").await;
        assert!(end.contains(error) && !end.contains("[DONE]"), "{end}");
        let left = async {
            while upstream.seen().iter().filter(|seen| seen.text().contains("/api/chat") && seen.left).count() < ended {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, left).await.unwrap();
    }
    let finished = steered.until("/api/requests", |all| all["finished"].as_array().unwrap().len() == 3).await;
    assert!(finished["finished"].as_array().unwrap().iter().all(|row| row["ending"] == "canceled"), "{finished}");
    assert_eq!(steered.call("POST", "/api/requests/1/cancel", "").await.code(), 404);
    assert_eq!(steered.call("POST", "/api/requests/x/cancel", "").await.code(), 400);
    let metrics = steered.get("/metrics").await.text();
    assert!(metrics.contains("farllama_canceled_requests_total{by=\"operator\"} 3"), "{metrics}");
}

#[tokio::test]
async fn a_request_that_is_canceled_before_its_response_gets_a_status() {
    let upstream = Upstream::start(vec![Act::Hold]).await;
    let steered = Steered::start(&upstream).await;
    let mut client = Client::sending(steered.addr(), post("/v1/chat/completions", CHAT)).await;
    let running = steered.until("/api/requests", |all| !all["running"].as_array().unwrap().is_empty()).await;
    steered.call("POST", &format!("/api/requests/{}/cancel", running["running"][0]["key"]), "").await;
    let answer = client.answer().await;
    assert_eq!((answer.code(), &answer.json()["error"]["code"]), (403, &json!("request_canceled")));
}

#[tokio::test]
async fn after_the_grace_streams_end_with_an_error_and_new_connections_are_refused() {
    let upstream = holding().await;
    let proxy = support::proxy(upstream.addr).await;
    let addr = proxy.addr();
    let mut stream = Client::sending(addr, post("/v1/chat/completions", CHAT_STREAM)).await;
    let mut native = Client::sending(addr, post("/api/chat", CHAT_STREAM)).await;
    stream.until("one").await;
    native.until("one").await;
    let stopping = proxy.stop(Duration::from_millis(100));
    let reading = async {
        let end = stream.until("\r\n0\r\n\r\n").await;
        assert!(end.contains("\"code\":\"shutting_down\"") && !end.contains("[DONE]"), "{end}");
        let end = native.until("\r\n0\r\n\r\n").await;
        assert!(end.contains("{\"error\":\"the proxy is shutting down"), "{end}");
    };
    tokio::join!(stopping, reading);
    assert!(tokio::net::TcpStream::connect(addr).await.is_err());
}

#[tokio::test]
async fn responses_are_as_the_document_says() {
    let upstream = Upstream::answering(version()).await;
    let mut config = support::config(upstream.addr);
    config.auth.enabled = true;
    config.auth.tokens = vec![Token { limit_per_minute: Some(5), ..Token::new("ann", "anns-own-key") }];
    let steered = Steered::with(config, Sources::default()).await;
    steered.call("PUT", "/api/inspector", "{\"on\":true}").await;
    let request = "GET /api/tags HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer anns-own-key\r\n\r\n";
    assert_eq!(ask(steered.addr(), request).await.code(), 200);
    assert_eq!(ask(steered.addr(), post("/v1/chat/completions", CHAT)).await.code(), 401);
    steered.log.push(b"2026-11-27T00:00:00Z  WARN a line\n");
    let document = steered.get("/openapi.json").await.json();
    let finished = steered.until("/api/requests", |all| all["finished"].as_array().unwrap().len() == 2).await;
    let key = &finished["finished"][0]["key"];
    let one = format!("/api/inspector/{key}");
    let host = json!({ "host": upstream.addr.ip().to_string(), "port": upstream.addr.port() }).to_string();
    for (method, path, known, body) in [
        ("GET", "/api/status", "/api/status", ""),
        ("GET", "/readyz", "/readyz", ""),
        ("POST", "/api/stop", "/api/stop", ""),
        ("POST", "/api/start", "/api/start", ""),
        ("POST", "/api/restart", "/api/restart", ""),
        ("GET", "/api/remote", "/api/remote", ""),
        ("GET", "/api/remotes", "/api/remotes", ""),
        ("PUT", "/api/remote", "/api/remote", &*host),
        ("PUT", "/api/remote", "/api/remote", "{}"),
        ("POST", "/api/remote/test", "/api/remote/test", &*host),
        ("GET", "/api/models", "/api/models", ""),
        ("GET", "/api/requests", "/api/requests", ""),
        ("GET", "/api/history", "/api/history", ""),
        ("GET", "/api/quotas", "/api/quotas", ""),
        ("GET", "/api/logs?level=warn&search=LINE", "/api/logs", ""),
        ("GET", "/api/logs?level=loud", "/api/logs", ""),
        ("GET", "/api/inspector", "/api/inspector", ""),
        ("GET", &*one, "/api/inspector/{key}", ""),
        ("GET", "/api/inspector/777", "/api/inspector/{key}", ""),
        ("PUT", "/api/inspector", "/api/inspector", "{\"on\":false}"),
    ] {
        let answer = steered.call(method, path, body).await;
        let described = &document["paths"][known][method.to_lowercase()]["responses"][answer.code().to_string()];
        let mut schema = described["content"]["application/json"]["schema"].clone();
        assert!(schema.is_object(), "{method} {path}: {} is not described", answer.code());
        schema["components"] = document["components"].clone();
        let validator = jsonschema::validator_for(&schema).unwrap();
        let errors: Vec<String> = validator.iter_errors(&answer.json()).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{method} {path}: {errors:?} in {}", answer.text());
    }
    let quotas = steered.get("/api/quotas").await.json();
    assert_eq!((&quotas["keys"][0]["used"], &quotas["keys"][0]["left"]), (&json!(1), &json!(4)));
    let lines = steered.get("/api/logs?search=a+line").await.json();
    assert_eq!(lines["lines"][0]["level"], "warn");
    assert_eq!(steered.call("DELETE", "/api/logs", "").await.code(), 204);
    assert_eq!(steered.get("/api/logs").await.json(), json!({ "lines": [] }));
    let inspected = steered.get(&one).await.text();
    assert!(inspected.contains("\"***\"") && !inspected.contains("anns-own-key"), "{inspected}");
    assert_eq!(steered.get("/api/nothing").await.code(), 404);
    assert_eq!(steered.call("PATCH", "/api/status", "").await.code(), 405);
}

#[tokio::test]
async fn the_token_is_needed_and_a_callers_key_is_no_token() {
    let upstream = Upstream::answering(version()).await;
    let mut config = support::config(upstream.addr);
    config.admin.token = Secret("operators-own".to_owned());
    config.auth.enabled = true;
    config.auth.tokens = vec![Token::new("ann", "anns-own-key")];
    let steered = Steered::with(config, Sources::default()).await;
    let get = |token: &str| {
        let request = format!("GET /api/status HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n");
        ask(steered.admin.addr(), request)
    };
    assert_eq!(get("operators-own").await.code(), 200);
    assert_eq!(get("anns-own-key").await.code(), 401);
    assert_eq!(steered.get("/metrics").await.code(), 401);
    assert_eq!(steered.get("/healthz").await.code(), 200);
    let page = ask(
        steered.admin.addr(),
        "GET /api/status HTTP/1.1\r\nHost: evil.example\r\nAuthorization: Bearer operators-own\r\n\r\n",
    );
    assert_eq!(page.await.code(), 403);
}

#[tokio::test]
async fn watching_changes_no_byte() {
    let response = [STREAM_HEAD.as_bytes().to_vec(), word("one"), last(), STREAM_END.as_bytes().to_vec()].concat();
    let upstream = Upstream::answering(response).await;
    let plain = support::proxy(upstream.addr).await;
    let steered = Steered::start(&upstream).await;
    steered.call("PUT", "/api/inspector", "{\"on\":true}").await;
    let mut events = Client::sending(steered.admin.addr(), "GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    events.until("event: status").await;
    for request in [post("/api/chat", CHAT_STREAM), post("/v1/chat/completions", CHAT_STREAM)] {
        let bytes = async |addr| {
            let mut client = Client::sending(addr, &request).await;
            let text = client.until("\r\n0\r\n\r\n").await;
            // What differs from request to request.
            let varying = |line: &&str| !line.starts_with("x-request-id") && !line.starts_with("data: {\"id\"");
            text.lines().filter(varying).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(bytes(plain.addr()).await, bytes(steered.addr()).await);
    }
    events.until("\"output_tokens\":3").await;
    // What reached Ollama, but for the name that each proxy has in `Via`. Several requests share a connection.
    let mut chats: Vec<String> = Vec::new();
    for text in upstream.seen().iter().map(support::Seen::text) {
        for request in text.split("POST ").filter(|request| request.starts_with("/api/chat ")) {
            let request = request.split("GET ").next().unwrap();
            chats.push(request.lines().filter(|line| !line.to_lowercase().starts_with("via: ")).collect());
        }
    }
    chats.sort();
    assert_eq!(chats.len(), 4);
    assert!(chats[0] == chats[1] && chats[2] == chats[3] && chats[1] != chats[2], "{chats:#?}");
    let inspected = steered.get("/api/inspector").await.json();
    assert_eq!(inspected["exchanges"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn the_inspector_keeps_what_ollama_replied_to_a_request_that_is_not_streamed() {
    let stream = [STREAM_HEAD.as_bytes().to_vec(), word("one"), last(), STREAM_END.as_bytes().to_vec()].concat();
    let upstream = Upstream::answering(stream).await;
    let steered = Steered::start(&upstream).await;
    steered.call("PUT", "/api/inspector", "{\"on\":true}").await;
    let (message, response) =
        (MESSAGES_STREAM.replace("true", "false"), "{\"model\":\"m\",\"input\":\"hi\",\"store\":false}");
    for (path, body) in [("/v1/messages", &*message), ("/v1/responses", response)] {
        assert_eq!(ask(steered.addr(), post(path, body)).await.code(), 200, "{path}");
    }
    let wanted = |all: &Value| all["exchanges"].as_array().unwrap().len() == 2;
    let kept = steered.until("/api/inspector", wanted).await;
    let lines = String::from_utf8([word("one"), last()].concat()).unwrap();
    let lines: Vec<&str> = lines.lines().filter(|line| line.starts_with('{')).collect();
    for exchange in kept["exchanges"].as_array().unwrap() {
        let one = steered.get(&format!("/api/inspector/{}", exchange["key"])).await.json();
        let reply = one["reply"]["text"].as_str().unwrap();
        assert_eq!(reply.lines().collect::<Vec<_>>(), lines, "{one}");
        let saved = steered.get(&format!("/api/inspector/{}/scenario", exchange["key"])).await.text();
        assert!(saved.contains("upstream:") && saved.contains("one"), "{saved}");
    }
}

/// Runs a program of Debian's package `prometheus`; None if it is missing, which is an error where all tools must be
/// there.
fn prometheus(program: &str) -> Option<Command> {
    let there = Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success());
    assert!(there || std::env::var("CI").is_ok_and(|ci| ci != "true") || std::env::var("CI").is_err(), "no {program}");
    if !there {
        eprintln!("SKIPPED: {program} is missing (Debian: apt-get install prometheus)");
    }
    there.then(|| Command::new(program))
}

#[tokio::test]
async fn metrics_are_what_prometheus_expects_and_a_real_one_scrapes_them() {
    let response = [STREAM_HEAD.as_bytes().to_vec(), word("one"), last(), STREAM_END.as_bytes().to_vec()].concat();
    let upstream = Upstream::answering(response).await;
    let steered = Steered::start(&upstream).await;
    ask(steered.addr(), post("/v1/chat/completions", CHAT_STREAM)).await;
    ask(steered.addr(), post("/v1/chat/completions", "{}")).await;
    let text = steered.get("/metrics").await.text();
    let folder = tempfile::tempdir().unwrap();
    if let Some(mut promtool) = prometheus("promtool") {
        let file = folder.path().join("metrics");
        std::fs::write(&file, &text).unwrap();
        let output = promtool.args(["check", "metrics"]).stdin(std::fs::File::open(&file).unwrap()).output().unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success() && said.trim().is_empty(), "{said}\n{text}");
    }
    let Some(mut server) = prometheus("prometheus") else { return };
    let target = steered.admin.addr();
    let config = format!(
        "global: {{ scrape_interval: 1s }}\nscrape_configs:\n  - job_name: farllama\n    static_configs: [{{ targets: [\"{target}\"] }}]\n"
    );
    std::fs::write(folder.path().join("prometheus.yml"), config).unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut child = server
        .current_dir(folder.path())
        .args([
            "--config.file=prometheus.yml",
            "--storage.tsdb.path=data",
            &format!("--web.listen-address=127.0.0.1:{port}"),
        ])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let query =
        "GET /api/v1/query?query=farllama_requests_total HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let mut found = String::new();
    for _ in 0..300 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        if tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            continue;
        }
        found = ask(([127, 0, 0, 1], port).into(), query).await.text();
        if found.contains("\"endpoint\":\"chat\"") {
            break;
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(found.contains("\"ending\":\"complete\"") && found.contains("\"status\":\"400\""), "{found}");
}
