//! What one client may take from the others: connections, heads, bodies; settings that are read again.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::program::Program;
use crate::support::{
    self, Act, Client, PATIENCE, STREAM_END, STREAM_HEAD, Upstream, ask, chunk, config, last, post, proxy,
    raw_response, word,
};
use farllama::{
    Config,
    config::{Auth, Limits, Local, Quota, Token},
    serve,
};

const GET: &str = "GET /api/tags HTTP/1.1\r\nHost: localhost\r\n\r\n";

fn reply() -> Vec<u8> {
    raw_response("200 OK", "Content-Type: application/json\r\n", "{\"models\":[]}")
}

#[tokio::test]
async fn two_hundred_clients_that_never_finish_a_head_do_not_stop_others() {
    let upstream = Upstream::start(vec![Act::Hold, Act::Write(reply())]).await;
    let limits = Limits { connections: 50, ..Limits::default() };
    let proxy = serve(Config { limits, ..config(upstream.addr) }).await.unwrap();
    // One that is being answered is never closed for others.
    let mut busy = Client::sending(proxy.addr(), GET).await;
    upstream.until(|seen| seen.text().contains("/api/tags")).await;
    let mut slow = Vec::new();
    for _ in 0..200 {
        slow.push(Client::sending(proxy.addr(), "GET / HTTP/1.1\r\nHost: ").await);
    }
    let mut other = Client::sending(proxy.addr(), GET.replace("tags", "ps")).await;
    upstream.until(|seen| seen.text().contains("/api/ps")).await;
    upstream.go_on();
    assert_eq!((busy.answer().await.code(), other.answer().await.code()), (200, 200));
}

#[tokio::test]
async fn a_head_that_takes_too_long_ends_its_connection_and_an_idle_one_may_wait() {
    let upstream = Upstream::answering(reply()).await;
    let limits = Limits { head_time: Duration::from_millis(50), ..Limits::default() };
    let proxy = serve(Config { limits, ..config(upstream.addr) }).await.unwrap();
    let mut idle = Client::sending(proxy.addr(), GET).await;
    assert_eq!(idle.answer().await.code(), 200);
    // It is closed, or this waits in vain.
    Client::sending(proxy.addr(), "GET / HTTP/1.1\r\nHo").await.answer_or_nothing().await;
    idle.send(GET).await;
    assert_eq!(idle.answer().await.code(), 200);
}

#[tokio::test]
async fn a_client_that_falls_silent_in_its_body_is_refused_on_both_lanes() {
    let upstream = Upstream::answering(reply()).await;
    let limits = Limits { body_idle: Duration::from_millis(50), ..Limits::default() };
    let proxy = serve(Config { limits, ..config(upstream.addr) }).await.unwrap();
    for path in ["/v1/chat/completions", "/api/chat"] {
        let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{{\"model\":");
        let reported = ask(proxy.addr(), head).await;
        assert!(reported.code() == 408 && reported.text().contains("limits.body_idle"), "{path}: {}", reported.text());
        assert_eq!(reported.header("connection"), Some("close"), "{path}");
    }
}

#[tokio::test]
async fn a_connection_that_is_idle_for_too_long_ends_but_not_while_it_is_answered() {
    let upstream = Upstream::start(vec![Act::Hold, Act::Write(reply())]).await;
    let limits = Limits { idle: Duration::from_millis(50), ..Limits::default() };
    let proxy = serve(Config { limits, ..config(upstream.addr) }).await.unwrap();
    let mut busy = Client::sending(proxy.addr(), GET).await;
    upstream.until(|seen| seen.text().contains("/api/tags")).await;
    // It is closed, or this waits in vain; by then the other has been without an answer for as long.
    Client::sending(proxy.addr(), "").await.answer_or_nothing().await;
    upstream.go_on();
    assert_eq!(busy.answer().await.code(), 200);
    busy.answer_or_nothing().await;
}

#[tokio::test]
async fn heads_and_native_bodies_beyond_their_limits_are_refused() {
    let upstream = Upstream::answering(reply()).await;
    let limits = Limits { head: 8 << 10, native_body: 100, ..Limits::default() };
    let proxy = serve(Config { limits, ..config(upstream.addr) }).await.unwrap();
    let long = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: {}\r\n\r\n", "x".repeat(20 << 10));
    assert_eq!(ask(proxy.addr(), long).await.code(), 431);
    let big = ask(proxy.addr(), post("/api/chat", &"x".repeat(101))).await;
    assert!(big.code() == 413 && big.text().contains("limits.native_body"), "{}", big.text());
    assert!(upstream.seen().is_empty());
    // A body of unknown length is sent on up to the limit.
    let reported = "Content-Length: 101\r\n\r\n";
    let chunked = String::from_utf8(post("/api/chat", &"x".repeat(101))).unwrap();
    let chunked = chunked.replace(reported, "Transfer-Encoding: chunked\r\n\r\n65\r\n") + "\r\n0\r\n\r\n";
    let big = ask(proxy.addr(), chunked).await;
    assert!(big.code() == 413 && big.text().contains("limits.native_body"), "{}", big.text());
    assert_eq!(ask(proxy.addr(), post("/api/chat", &"x".repeat(100))).await.code(), 200);
}

#[tokio::test]
async fn an_address_that_others_can_reach_needs_keys_or_a_word() {
    let upstream = Upstream::answering(reply()).await;
    let local = Local { host: "0.0.0.0".to_owned(), port: 0, ..Local::default() };
    let settings = Config { local, ..config(upstream.addr) };
    let error = serve(settings.clone()).await.unwrap_err().to_string();
    assert!(error.contains("farllama key new") && error.contains("--local-public"), "{error}");
    let auth = Auth { enabled: true, tokens: vec![Token::new("ann", "a-key")], ..Auth::default() };
    assert!(serve(Config { auth, ..settings.clone() }).await.is_ok());
    let local = Local { public: true, ..settings.local.clone() };
    assert!(serve(Config { local, ..settings }).await.is_ok());
}

#[cfg(unix)]
#[tokio::test]
async fn settings_are_read_again_on_sighup_without_dropping_a_stream_and_a_bad_file_changes_nothing() {
    let acts = [STREAM_HEAD.as_bytes().to_vec(), word("one")].map(Act::Write).into_iter().chain([Act::Hold]);
    let rest = [word("two"), last(), STREAM_END.into()].map(Act::Write);
    let upstream = Upstream::start(acts.chain(rest).collect()).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("farllama.toml");
    let write = |key: &str| {
        let text = format!(
            "[auth]\nenabled = true\nexempt = [\"/none\"]\ntokens = [{{ key = \"{key}\", limit_per_minute = 2 }}]\n"
        );
        std::fs::write(&file, text).unwrap();
    };
    write("old-key");
    let remote = upstream.addr.to_string();
    let program = Program::start(&["--config", file.to_str().unwrap(), "--remote-host", &remote], &[]);
    let stream = String::from_utf8(post("/v1/chat/completions", support::CHAT_STREAM)).unwrap();
    let mut running =
        Client::sending(program.addr, stream.replacen("\r\n", "\r\nAuthorization: Bearer old-key\r\n", 1)).await;
    running.until("one").await;
    let hang_up = || {
        let reported = std::process::Command::new("kill").args(["-HUP", &program.id().to_string()]).status().unwrap();
        assert!(reported.success());
    };
    let code = async |key: &str| {
        let get = format!("GET /v1/none HTTP/1.1\r\nHost: localhost\r\nx-api-key: {key}\r\nConnection: close\r\n\r\n");
        let mut client = Client::sending(program.addr, get).await;
        let head = client.until("\r\n\r\n").await;
        head.contains(" 401 ")
    };
    let early = "GET /v1/none HTTP/1.1\r\nHost: localhost\r\nx-api-key: new-key\r\n\r\n";
    let mut kept = Client::sending(program.addr, early).await;
    assert_eq!(kept.answer().await.code(), 401);
    write("new-key");
    hang_up();
    let turned = async { while !code("old-key").await {} };
    tokio::time::timeout(PATIENCE, turned).await.unwrap();
    // A connection from before is answered by the new settings too.
    kept.send(early).await;
    kept.until("HTTP/1.1 200 OK").await;
    std::fs::write(&file, "[auth]\nenabled = maybe\n").unwrap();
    hang_up();
    program.until("keeping the previous configuration").await;
    assert!(code("old-key").await && !code("new-key").await);
    upstream.go_on();
    running.until("[DONE]").await;
    let log = program.log();
    assert!(log.contains("farllama.toml:2:") && !log.contains("old-key") && !log.contains("new-key"), "{log}");
}

#[tokio::test]
async fn a_new_connection_evicts_the_one_that_is_idle_now_and_never_one_in_flight() {
    let upstream = Upstream::start(vec![Act::Hold, Act::Write(reply())]).await;
    let limits = Limits { connections: 2, ..Limits::default() };
    let proxy = serve(Config { limits, ..config(upstream.addr) }).await.unwrap();
    let mut longest_idle = Client::sending(proxy.addr(), "GET /v1/none HTTP/1.1\r\n").await;
    let mut idle = Client::sending(proxy.addr(), "GET /v1/none HTTP/1.1\r\n").await;
    // Two are open: only now does the listener wait for a third, and the first becomes busy.
    longest_idle.send("Host: localhost\r\n\r\n").await;
    upstream.until(|seen| seen.text().contains("/v1/none")).await;
    let mut newcomer = Client::sending(proxy.addr(), GET).await;
    idle.answer_or_nothing().await;
    upstream.until(|seen| seen.text().contains("/api/tags")).await;
    upstream.go_on();
    assert_eq!((longest_idle.answer().await.code(), newcomer.answer().await.code()), (200, 200));
}

#[tokio::test]
async fn a_connection_that_finds_all_busy_waits_for_one_to_end() {
    let upstream = Upstream::start(vec![Act::Hold, Act::Write(reply())]).await;
    let limits = Limits { connections: 1, ..Limits::default() };
    let proxy = serve(Config { limits, ..config(upstream.addr) }).await.unwrap();
    let mut busy = Client::sending(proxy.addr(), GET).await;
    upstream.until(|seen| seen.text().contains("/api/tags")).await;
    let mut waiting = Client::sending(proxy.addr(), GET.replace("tags", "ps")).await;
    upstream.go_on();
    assert_eq!(busy.answer().await.code(), 200);
    upstream.until(|seen| seen.text().contains("/api/ps")).await;
    upstream.go_on();
    assert_eq!(waiting.answer().await.code(), 200);
}

#[tokio::test]
async fn a_connection_on_which_a_request_has_just_arrived_is_not_evicted() {
    use std::io::Write as _;

    let upstream = Upstream::answering(reply()).await;
    let limits = Limits { connections: 1, ..Limits::default() };
    let proxy = serve(Config { limits, ..config(upstream.addr) }).await.unwrap();
    // Each takes the place of the one before, which is idle, and none waits for it to rest.
    let begun = std::time::Instant::now();
    let mut newcomer = Client::sending(proxy.addr(), GET).await;
    assert_eq!(newcomer.answer().await.code(), 200);
    for _ in 0..5 {
        let mut used = std::mem::replace(&mut newcomer, Client::sending(proxy.addr(), GET).await);
        assert_eq!(newcomer.answer().await.code(), 200);
        used.answer_or_nothing().await;
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    // The request and the next newcomer arrive together: the proxy runs on this thread, and sees neither before.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut together = std::net::TcpStream::connect(proxy.addr()).unwrap();
    newcomer.try_send(GET);
    together.write_all(GET.as_bytes()).unwrap();
    assert_eq!(newcomer.answer().await.code(), 200);
    together.set_nonblocking(true).unwrap();
    let mut together = Client::from(tokio::net::TcpStream::from_std(together).unwrap());
    assert_eq!(together.answer().await.code(), 200);
}

#[tokio::test]
async fn one_address_cannot_take_all_connections() {
    let upstream = Upstream::start(vec![Act::Hold, Act::Write(reply())]).await;
    let limits = Limits { connections_per_address: 2, ..Limits::default() };
    let proxy = serve(Config { limits, ..config(upstream.addr) }).await.unwrap();
    let mut busy = Client::sending(proxy.addr(), GET).await;
    upstream.until(|seen| seen.text().contains("/api/tags")).await;
    let mut idle = Client::sending(proxy.addr(), "").await;
    // The third takes the place of the idle one.
    let begun = "POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{";
    let body = Client::sending(proxy.addr(), begun).await;
    idle.answer_or_nothing().await;
    upstream.until(|seen| seen.text().contains("/api/chat")).await;
    // The fourth finds two busy ones.
    for (path, message) in [("/api/tags", "$.error"), ("/v1/models", "$.error.message")] {
        let refused = ask(proxy.addr(), format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
        assert!(refused.code() == 503 && refused.text().contains("limits.connections_per_address"), "{message}");
        assert!(refused.header("retry-after").is_some(), "{:?}", refused.headers);
    }
    drop(body);
    upstream.go_on();
    assert_eq!(busy.answer().await.code(), 200);
    upstream.until(|seen| seen.left).await;
}

#[tokio::test]
async fn one_key_cannot_take_all_connections_with_bodies_that_it_does_not_finish() {
    let upstream = Upstream::answering(reply()).await;
    let limits = Limits { connections_per_key: 1, ..Limits::default() };
    let tokens = vec![
        Token { models: Some(vec!["m".to_owned()]), ..Token::new("ann", "key-of-ann") },
        Token::new("bob", "key-of-bob"),
    ];
    let auth = Auth { enabled: true, tokens, ..Auth::default() };
    let proxy = serve(Config { limits, auth, ..config(upstream.addr) }).await.unwrap();
    let begun = "POST /api/chat HTTP/1.1\r\nHost: localhost\r\nx-api-key: key-of-ann\r\nContent-Length: 1000\r\n\r\n{";
    let body = Client::sending(proxy.addr(), begun).await;
    let get = |key: &str| GET.replacen("\r\n\r\n", &format!("\r\nx-api-key: {key}\r\n\r\n"), 1);
    let refused = async {
        loop {
            let answer = ask(proxy.addr(), get("key-of-ann")).await;
            if answer.code() == 503 {
                return answer;
            }
        }
    };
    let refused = tokio::time::timeout(PATIENCE, refused).await.unwrap();
    assert!(refused.text().contains("limits.connections_per_key"), "{}", refused.text());
    assert_eq!(ask(proxy.addr(), get("key-of-bob")).await.code(), 200);
    drop(body);
    let admitted = async { while ask(proxy.addr(), get("key-of-ann")).await.code() != 200 {} };
    tokio::time::timeout(PATIENCE, admitted).await.unwrap();
}

#[tokio::test]
async fn a_client_that_stops_reading_is_ended_and_frees_its_permit_and_the_remote() {
    let endless = [STREAM_HEAD.as_bytes(), &chunk(&"x".repeat(64 << 20))].concat();
    let upstream = Upstream::start(vec![Act::Write(endless)]).await;
    let limits = Limits { write_idle: Duration::from_millis(300), ..Limits::default() };
    let quota = Quota { max_concurrent: 1, ..Quota::default() };
    let proxy = serve(Config { limits, quota, ..config(upstream.addr) }).await.unwrap();
    let mut stopped = Client::sending(proxy.addr(), post("/api/chat", "{}")).await;
    stopped.until("HTTP/1.1 200 OK").await;
    upstream.until(|seen| seen.left).await;
    // The only permit is free again.
    let mut next = Client::sending(proxy.addr(), post("/api/chat", "{}")).await;
    next.until("HTTP/1.1 200 OK").await;
}

#[tokio::test]
async fn what_breaks_the_rules_of_http_is_refused_in_the_right_dialect() {
    let upstream = Upstream::answering(reply()).await;
    let proxy = proxy(upstream.addr).await;
    let cases = [
        ("HTTP/1.1\r\n", 400),
        ("HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n", 400),
        ("HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip, chunked\r\n", 501),
        ("HTTP/1.1\r\nHost: localhost\r\nExpect: 200-ok\r\n", 417),
    ];
    for (rest, code) in cases {
        let native = ask(proxy.addr(), format!("POST /api/chat {rest}Connection: close\r\n\r\n")).await;
        assert!(native.code() == code && native.json()["error"].is_string(), "{rest:?}: {}", native.text());
        let openai = ask(proxy.addr(), format!("POST /v1/chat/completions {rest}Connection: close\r\n\r\n")).await;
        assert_eq!((openai.code(), openai.message().is_empty()), (code, false), "{rest:?}");
    }
    assert!(upstream.seen().is_empty());
    assert_eq!(ask(proxy.addr(), "GET /api/tags HTTP/1.0\r\n\r\n").await.code(), 200);
}

#[tokio::test]
async fn a_stream_to_http_1_0_is_not_promised_keep_alive() {
    let stream = [STREAM_HEAD.as_bytes(), &word("one"), STREAM_END.as_bytes()].concat();
    let upstream = Upstream::answering(stream).await;
    let proxy = proxy(upstream.addr).await;
    let head = "POST /api/chat HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\n{}";
    let mut client = Client::sending(proxy.addr(), head).await;
    let mut got = client.until("\"one\"").await;
    got.push_str(&String::from_utf8(client.answer_or_nothing().await.body).unwrap());
    assert!(!got.to_ascii_lowercase().contains("keep-alive"), "{got}");
    // One with a length may go on.
    let upstream = Upstream::answering(reply()).await;
    let proxy = serve(config(upstream.addr)).await.unwrap();
    let get = "GET /api/tags HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
    let mut client = Client::sending(proxy.addr(), get).await;
    assert_eq!(client.answer().await.header("connection"), Some("keep-alive"));
    client.send(get).await;
    assert_eq!(client.answer().await.code(), 200);
}

#[tokio::test]
async fn no_body_is_asked_for_that_is_refused_anyway() {
    let upstream = Upstream::answering(reply()).await;
    let limits = Limits { body: 1000, native_body: 1000, ..Limits::default() };
    let models = Some(vec!["m".to_owned()]);
    let tokens = vec![
        Token { models: models.clone(), ..Token::new("ann", "key-of-ann") },
        Token { models, routes: Some(vec!["/api/tags".to_owned()]), ..Token::new("bob", "key-of-bob") },
    ];
    let auth = Auth { enabled: true, tokens, ..Auth::default() };
    let keyed = serve(Config { limits: limits.clone(), auth, ..config(upstream.addr) }).await.unwrap();
    let open = serve(Config { limits: limits.clone(), ..config(upstream.addr) }).await.unwrap();
    let quota = Quota { max_concurrent: 1, ..Quota::default() };
    let slots = serve(Config { limits: limits.clone(), quota, ..config(upstream.addr) }).await.unwrap();
    let models = Config::from_toml("[models.\"alias\"]\nto = \"m\"\n").unwrap().models;
    let named = serve(Config { limits, models, ..config(upstream.addr) }).await.unwrap();
    let mut asked = Vec::new();
    for (addr, path, headers, code) in [
        (keyed.addr(), "/api/chat", "", 401),
        (keyed.addr(), "/v1/chat/completions", "", 401),
        (keyed.addr(), "/api/unknown", "", 401),
        (keyed.addr(), "/api/unknown", "x-api-key: key-of-ann\r\n", 403),
        (keyed.addr(), "/v1/chat/completions", "x-api-key: key-of-bob\r\n", 403),
        (keyed.addr(), "/api/chat", "x-api-key: key-of-ann\r\n", 413),
        (keyed.addr(), "/v1/models", "x-api-key: key-of-ann\r\n", 405),
        (open.addr(), "/v1/models", "", 405),
        (slots.addr(), "/v1/models", "", 405),
        (slots.addr(), "/v1/chat/completions", "", 413),
        (slots.addr(), "/api/chat", "", 413),
        (named.addr(), "/v1/models/m", "", 405),
        (named.addr(), "/v1/chat/completions", "", 413),
        (named.addr(), "/api/chat", "", 413),
        (open.addr(), "/v1/chat/completions", "", 413),
        (open.addr(), "/v1/responses", "", 413),
        (open.addr(), "/v1/audio/transcriptions", "Content-Type: multipart/form-data; boundary=x\r\n", 413),
        (open.addr(), "/api/chat", "", 413),
    ] {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: 1000000\r\nExpect: 100-continue\r\n\r\n"
        );
        let mut client = Client::sending(addr, head).await;
        let got = client.until("\r\n\r\n").await;
        if !got.starts_with(&format!("HTTP/1.1 {code} ")) {
            asked.push(format!("{path} {headers}: {}", got.lines().next().unwrap_or_default()));
        }
    }
    assert!(asked.is_empty(), "{asked:#?}");
    // What is not refused is asked for.
    let head =
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n";
    Client::sending(open.addr(), head).await.until("HTTP/1.1 100 Continue").await;
}

/// A remote that answers a head at once: an unknown path with 404, all else with `100 Continue` and, once the body has
/// come, with what it has read.
async fn reading_remote() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (mut read, mut buffer) = (Vec::new(), [0; 4096]);
            while !read.ends_with(b"\r\n\r\n") {
                let n = stream.read(&mut buffer).await.unwrap_or(0);
                assert!(n > 0, "no head");
                read.extend_from_slice(&buffer[..n]);
            }
            let response = if String::from_utf8_lossy(&read).contains("/unknown") {
                raw_response("404 Not Found", "Content-Type: text/plain\r\n", "404 page not found")
            } else {
                stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.unwrap();
                let n = stream.read(&mut buffer).await.unwrap();
                raw_response("200 OK", "", &String::from_utf8_lossy(&buffer[..n]))
            };
            stream.write_all(&response).await.unwrap();
        }
    });
    addr
}

#[tokio::test]
async fn an_unknown_path_is_a_404_before_its_body_is_asked_for() {
    let remote = reading_remote().await;
    let proxy = proxy(remote).await;
    let begun = std::time::Instant::now();
    for path in ["/api/unknown", "/v1/unknown", "/unknown"] {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 100000\r\n\r\n"
        );
        let got = Client::sending(proxy.addr(), head).await.until("\r\n\r\n").await;
        assert!(got.starts_with("HTTP/1.1 404 ") && got.contains("connection: close"), "{path}: {got}");
    }
    // The remote asks for the body of what it knows, and the client is asked then.
    let head = "POST /api/create HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";
    let mut client = Client::sending(proxy.addr(), head).await;
    client.until("HTTP/1.1 100 Continue\r\n\r\n").await;
    client.send("body").await;
    client.until("\r\n\r\nbody").await;
    assert!(begun.elapsed() < Duration::from_secs(1), "nothing waits for what does not come");
}

/// The program with a stderr that is not read any further once it listens.
#[cfg(unix)]
struct Unread {
    child: std::process::Child,
    addr: std::net::SocketAddr,
    log: std::io::BufReader<std::process::ChildStderr>,
}

#[cfg(unix)]
impl Unread {
    fn start() -> Self {
        use std::{io::BufRead, process::Stdio};
        let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_farllama"))
            .args([
                "serve",
                "--local-port",
                "0",
                "--admin-enabled=false",
                "--log",
                "json",
                "--remote-host",
                "127.0.0.1:9",
            ])
            .env_clear()
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = std::io::BufReader::new(child.stderr.take().unwrap());
        let addr = loop {
            let mut line = String::new();
            assert!(log.read_line(&mut line).unwrap() > 0);
            let line: serde_json::Value = serde_json::from_str(&line).unwrap();
            if line["message"] == "listening" {
                break line["ollama"].as_str().unwrap().trim_start_matches("http://").parse().unwrap();
            }
        };
        Self { child, addr, log }
    }

    /// Sends more requests than a pipe and the log's buffer have room for lines, and reads all responses.
    async fn ask_often(&self) {
        const TIMES: usize = 4000;
        // Refused by the gate: no remote is needed.
        let request = "GET / HTTP/1.1\r\nHost: foreign.example\r\n\r\n".repeat(TIMES);
        let mut stream = tokio::net::TcpStream::connect(self.addr).await.unwrap();
        let (mut reading, mut writing) = stream.split();
        let read = async {
            use tokio::io::AsyncReadExt;
            let (mut buffer, mut tail, mut responses) = (vec![0; 64 << 10], Vec::new(), 0);
            while responses < TIMES {
                let n = reading.read(&mut buffer).await.unwrap();
                assert!(n > 0, "the connection ended after {responses} responses");
                tail.extend_from_slice(&buffer[..n]);
                responses += String::from_utf8_lossy(&tail).matches("HTTP/1.1 403").count();
                // What may be the beginning of the next status line.
                let cut = tail.len().saturating_sub("HTTP/1.1 403".len() - 1);
                tail.drain(..cut);
            }
        };
        let write = tokio::io::AsyncWriteExt::write_all(&mut writing, request.as_bytes());
        let both = tokio::time::timeout(4 * PATIENCE, async { tokio::join!(read, write) });
        both.await.expect("a response to each request").1.unwrap();
    }
}

#[cfg(unix)]
impl Drop for Unread {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_stderr_that_is_not_read_stops_no_request_and_the_log_counts_what_it_dropped() {
    use std::io::BufRead;
    let mut program = Unread::start();
    program.ask_often().await;
    let (mut lines, mut dropped) = (0, None);
    while dropped.is_none() {
        let mut line = String::new();
        assert!(program.log.read_line(&mut line).unwrap() > 0, "the log ended after {lines} lines");
        let line: serde_json::Value = serde_json::from_str(&line).expect("no line is cut");
        dropped = line["dropped"].as_u64();
        lines += u64::from(line["status"] == 403);
    }
    // Some lines may stand behind the one that counts.
    assert!(lines + dropped.unwrap() <= 4000 && dropped.unwrap() > 0, "{lines} lines, {dropped:?} dropped");
}

#[cfg(unix)]
#[tokio::test]
async fn sigterm_ends_a_program_whose_stderr_is_not_read() {
    let mut program = Unread::start();
    program.ask_often().await;
    let id = program.child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    let ended = async {
        loop {
            match program.child.try_wait().unwrap() {
                Some(status) => return status,
                None => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    assert!(tokio::time::timeout(PATIENCE, ended).await.expect("it ends").success());
}

/// A client that writes its whole request before it reads: status and `Connection` of the response.
async fn write_all_then_read(addr: std::net::SocketAddr, path: &str, size: usize) -> (u16, Option<String>) {
    let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n");
    let mut client = Client::sending(addr, head).await;
    client.send(vec![b'x'; size]).await;
    let answer = client.answer().await;
    (answer.code(), answer.header("connection").map(str::to_owned))
}

#[tokio::test]
async fn a_response_before_the_end_of_an_upload_reaches_a_client_that_writes_first() {
    // As Ollama does for a blob that it has (0.33.0-rc2 http/early-answer): it answers, reads nothing, and closes half
    // a second later.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        use std::io::{Read, Write};
        for stream in listener.incoming() {
            std::thread::spawn(move || {
                let mut stream = stream.unwrap();
                let _ = stream.read(&mut [0; 4096]);
                stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").unwrap();
                let _ = stream.shutdown(std::net::Shutdown::Write);
                std::thread::sleep(Duration::from_millis(500));
            });
        }
    });
    let proxy = proxy(addr).await;
    for _ in 0..5 {
        let got = write_all_then_read(proxy.addr(), "/api/blobs/sha256:0", 45 << 20).await;
        assert_eq!(got, (200, Some("close".to_owned())));
    }
}

#[tokio::test]
async fn a_refusal_of_a_large_body_reaches_a_client_that_writes_first() {
    let upstream = Upstream::answering(reply()).await;
    let limits = Limits { body: 1000, native_body: 1000, ..Limits::default() };
    let proxy = serve(Config { limits, ..config(upstream.addr) }).await.unwrap();
    for path in ["/v1/chat/completions", "/api/chat"] {
        let got = write_all_then_read(proxy.addr(), path, 45 << 20).await;
        assert_eq!(got, (413, Some("close".to_owned())), "{path}");
    }
}

#[tokio::test]
async fn bodies_held_in_memory_have_one_budget_and_small_ones_always_find_room() {
    let upstream = Upstream::answering(reply()).await;
    let limits = Limits { buffered: 4 << 20, ..Limits::default() };
    let proxy = serve(Config { limits, ..config(upstream.addr) }).await.unwrap();
    let begun = |length: usize| {
        format!("POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n")
    };
    let part = "x".repeat(3 << 20);
    let body = format!(r#"{{"model":"m","messages":[],"a":"{part}"}}"#);
    let (most, rest) = body.split_at(body.len() - 10);
    // One that withholds its end.
    let mut first = Client::sending(proxy.addr(), begun(body.len()) + most).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    // Another finds no room, and waits.
    let mut second = Client::connect(proxy.addr()).await;
    let whole = begun(body.len()) + &body;
    let addr = proxy.addr();
    #[expect(clippy::disallowed_methods, reason = "a test may start what it likes")]
    let sending = tokio::spawn(async move {
        second.send(whole).await;
        second.answer().await.code()
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!sending.is_finished(), "it meets backpressure");
    let small = ask(addr, post("/v1/chat/completions", r#"{"model":"m","messages":[],"n":"x"}"#)).await;
    assert_eq!(small.code(), 400, "a small one is read at once");
    // What can never fit is refused at once.
    let large = ask(addr, begun(5 << 20) + &"x".repeat(5 << 20)).await;
    assert!(large.code() == 413 && large.message().contains("limits.buffered"), "{}", large.text());
    first.send(rest).await;
    assert_ne!(first.answer().await.code(), 503);
    let code = tokio::time::timeout(PATIENCE, sending).await.unwrap().unwrap();
    assert_ne!(code, 503, "it goes on once there is room");
}
