//! What one client may take from the others: connections, heads, bodies; settings that are read again.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "support/program.rs"]
mod program;
mod support;

use std::time::Duration;

use farllama::{
    Config,
    config::{Auth, Limits, Local, Token},
    serve,
};
use program::Program;
use support::{Act, Client, PATIENCE, STREAM_END, STREAM_HEAD, Upstream, ask, config, last, post, raw_response, word};

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
async fn a_client_that_falls_silent_in_its_body_is_told_so_on_both_lanes() {
    let upstream = Upstream::answering(reply()).await;
    let limits = Limits { body_idle: Duration::from_millis(50), ..Limits::default() };
    let proxy = serve(Config { limits, ..config(upstream.addr) }).await.unwrap();
    for path in ["/v1/chat/completions", "/api/chat"] {
        let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{{\"model\":");
        let told = ask(proxy.addr(), head).await;
        assert!(told.code() == 408 && told.text().contains("limits.body_idle"), "{path}: {}", told.text());
        assert_eq!(told.header("connection"), Some("close"), "{path}");
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
    // What does not tell its length is sent on until it is too much.
    let told = "Content-Length: 101\r\n\r\n";
    let chunked = String::from_utf8(post("/api/chat", &"x".repeat(101))).unwrap();
    let chunked = chunked.replace(told, "Transfer-Encoding: chunked\r\n\r\n65\r\n") + "\r\n0\r\n\r\n";
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
    assert!(error.contains("[auth]") && error.contains("--local-public"), "{error}");
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
        let told = std::process::Command::new("kill").args(["-HUP", &program.id().to_string()]).status().unwrap();
        assert!(told.success());
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
    program.until("stay as they were").await;
    assert!(code("old-key").await && !code("new-key").await);
    upstream.go_on();
    running.until("[DONE]").await;
    let log = program.log();
    assert!(log.contains("farllama.toml:2:") && !log.contains("old-key") && !log.contains("new-key"), "{log}");
}
