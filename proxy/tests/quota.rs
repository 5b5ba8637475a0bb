//! How much a key may ask, on the wire: exact under load, told truthfully, and refused in both dialects.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::disallowed_methods, reason = "a test may start what it likes")]

#[path = "support/program.rs"]
mod program;
mod support;

use std::time::Duration;

use farllama::{
    Config, Running,
    config::{Auth, Quota, Token},
    serve,
};
use program::Program;
use support::{Act, Answer, CHAT, Client, Upstream, ask, config, post, raw_response};

const ANN: &str = "Authorization: Bearer a-key";

fn reply() -> Vec<u8> {
    raw_response("200 OK", "Content-Type: application/json\r\n", "{\"models\":[]}")
}

fn get(path: &str, key: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{key}\r\n\r\n").into_bytes()
}

async fn limited(upstream: &Upstream, token: Token, quota: Quota) -> Running {
    let auth = Auth { enabled: true, tokens: vec![token, Token::new("bob", "b-key")], ..Auth::default() };
    serve(Config { auth, quota, ..config(upstream.addr) }).await.unwrap()
}

fn per_minute(limit: usize) -> Token {
    Token { limit_per_minute: Some(limit), ..Token::new("ann", "a-key") }
}

fn left(answer: &Answer) -> (&str, &str) {
    let header = |name| answer.header(name).unwrap_or("none");
    (header("x-ratelimit-limit-requests"), header("x-ratelimit-remaining-requests"))
}

#[tokio::test]
async fn a_thousand_parallel_requests_on_a_limit_of_a_hundred_admit_exactly_a_hundred() {
    rlimit::increase_nofile_limit(8192).unwrap();
    let upstream = Upstream::answering(reply()).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("farllama.toml");
    let settings =
        "[auth]\nenabled = true\ntokens = [{ key = \"a-key\", limit_per_minute = 100 }]\n[quota]\nwindow = \"10m\"\n";
    std::fs::write(&file, settings).unwrap();
    let remote = upstream.addr.to_string();
    let flags = ["--config", file.to_str().unwrap(), "--remote-host", &remote, "--remote-probe", "0s"];
    let program = Program::start(&flags, &[]);
    let addr = program.addr;
    let asking: Vec<_> =
        (0..1000).map(|_| tokio::spawn(async move { ask(addr, get("/api/tags", ANN)).await.code() })).collect();
    let mut codes = Vec::new();
    for one in asking {
        codes.push(one.await.unwrap());
    }
    let count = |code| codes.iter().filter(|found| **found == code).count();
    assert_eq!((count(200), count(429)), (100, 900));
    let reached: usize = upstream.seen().iter().map(|seen| seen.text().matches("GET /api/tags ").count()).sum();
    assert_eq!(reached, 100);
}

#[tokio::test]
async fn every_answer_of_a_limited_key_tells_where_it_stands_and_a_refusal_when_to_come_again() {
    let upstream = Upstream::answering(reply()).await;
    let proxy = limited(&upstream, per_minute(2), Quota::default()).await;
    assert_eq!(left(&ask(proxy.addr(), get("/v1/models", ANN)).await), ("2", "1"));
    assert_eq!(left(&ask(proxy.addr(), get("/api/tags", ANN)).await), ("2", "0"));
    let chat =
        String::from_utf8(post("/v1/chat/completions", CHAT)).unwrap().replacen("\r\n", &format!("\r\n{ANN}\r\n"), 1);
    let refused = ask(proxy.addr(), chat).await;
    assert_eq!((refused.code(), left(&refused)), (429, ("2", "0")));
    let error = &refused.json()["error"];
    assert_eq!((&error["type"], &error["code"]), (&"requests".into(), &"rate_limit_exceeded".into()));
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    assert!(refused.header("x-ratelimit-reset-requests").unwrap().ends_with('s'));
    let native = ask(proxy.addr(), get("/api/tags", ANN)).await;
    assert!(native.code() == 429 && native.json()["error"].is_string(), "{}", native.text());
    let other = ask(proxy.addr(), get("/api/tags", "x-api-key: b-key")).await;
    assert_eq!((other.code(), left(&other)), (200, ("none", "none")));
}

#[tokio::test]
async fn refusals_of_every_kind_tell_a_limited_key_where_it_stands() {
    let upstream = Upstream::answering(raw_response("404 Not Found", "", "404 page not found")).await;
    let token = Token { routes: Some(vec!["*".to_owned(), "!/api/pull".to_owned()]), ..per_minute(9) };
    let proxy = limited(&upstream, token, Quota::default()).await;
    for (path, code, remaining) in [
        // Refused at the gate, it costs nothing.
        ("/api/pull", 403, "9"),
        ("/v1/chat/completions", 405, "8"),
        ("/nowhere", 404, "7"),
        ("/v1/models", 502, "6"),
        ("/api/%70ull", 403, "6"),
    ] {
        let answer = ask(proxy.addr(), get(path, ANN)).await;
        assert_eq!((answer.code(), left(&answer)), (code, ("9", remaining)), "{path}: {}", answer.text());
    }
    let bad = String::from_utf8(post("/v1/chat/completions", "{ broken")).unwrap();
    let bad = ask(proxy.addr(), bad.replacen("\r\n", &format!("\r\n{ANN}\r\n"), 1)).await;
    assert_eq!((bad.code(), left(&bad)), (400, ("9", "5")));
}

#[tokio::test]
async fn after_retry_after_a_request_is_admitted() {
    let upstream = Upstream::answering(reply()).await;
    let quota = Quota { window: Duration::from_millis(700), ..Quota::default() };
    let proxy = limited(&upstream, per_minute(1), quota).await;
    assert_eq!(ask(proxy.addr(), get("/api/tags", ANN)).await.code(), 200);
    let refused = ask(proxy.addr(), get("/api/tags", ANN)).await;
    assert_eq!(refused.code(), 429);
    // This wait is what the header promises, not a guess.
    tokio::time::sleep(Duration::from_secs(refused.header("retry-after").unwrap().parse().unwrap())).await;
    assert_eq!(ask(proxy.addr(), get("/api/tags", ANN)).await.code(), 200);
}

#[tokio::test]
async fn requests_beyond_the_limit_at_the_same_time_wait_and_beyond_the_queue_are_refused() {
    let upstream = Upstream::start(vec![Act::Hold, Act::Write(reply())]).await;
    let token = Token { max_concurrent: Some(1), limit_per_minute: Some(9), ..Token::new("ann", "a-key") };
    let proxy = limited(&upstream, token, Quota { queue: 1, ..Quota::default() }).await;
    let mut first = Client::sending(proxy.addr(), get("/api/first", ANN)).await;
    upstream.until(|seen| seen.text().contains("/api/first")).await;
    // Of two that come now one waits, and the other is refused.
    let mut others = [
        Client::sending(proxy.addr(), get("/api/second", ANN)).await,
        Client::sending(proxy.addr(), get("/api/second", ANN)).await,
    ];
    let [one, two] = &mut others;
    let (refused, waiting) = tokio::select! {
        answer = one.answer() => (answer, two),
        answer = two.answer() => (answer, one),
    };
    assert_eq!((refused.code(), refused.header("retry-after")), (429, Some("1")));
    // What was refused costs nothing: two of nine are in use.
    assert_eq!(left(&refused), ("9", "7"));
    assert!(!upstream.seen().iter().any(|seen| seen.text().contains("/api/second")));
    upstream.go_on();
    assert_eq!(first.answer().await.code(), 200);
    upstream.until(|seen| seen.text().contains("/api/second")).await;
    upstream.go_on();
    assert_eq!(waiting.answer().await.code(), 200);
}

#[tokio::test]
async fn a_request_waits_no_longer_than_the_settings_say_and_costs_nothing_then() {
    let upstream = Upstream::start(vec![Act::Hold, Act::Write(reply())]).await;
    let token = Token { max_concurrent: Some(1), limit_per_minute: Some(9), ..Token::new("ann", "a-key") };
    let wait = Duration::from_millis(50);
    let proxy = limited(&upstream, token, Quota { wait, ..Quota::default() }).await;
    let mut first = Client::sending(proxy.addr(), get("/api/first", ANN)).await;
    upstream.until(|seen| seen.text().contains("/api/first")).await;
    let late = ask(proxy.addr(), get("/api/second", ANN)).await;
    assert_eq!((late.code(), late.header("retry-after"), left(&late)), (429, Some("1"), ("9", "8")));
    assert!(late.text().contains("within 50ms"), "{}", late.text());
    upstream.go_on();
    assert_eq!(first.answer().await.code(), 200);
    assert!(!upstream.seen().iter().any(|seen| seen.text().contains("/api/second")));
}

#[tokio::test]
async fn the_openai_client_waits_retry_after_out_and_succeeds() {
    use async_openai::{Client, config::OpenAIConfig};
    let list = r#"{"models":[{"name":"m:latest","model":"m:latest","modified_at":"2026-11-22T12:37:41.5Z","size":1}]}"#;
    let upstream = Upstream::answering(raw_response("200 OK", "Content-Type: application/json\r\n", list)).await;
    let quota = Quota { window: Duration::from_millis(900), ..Quota::default() };
    let proxy = limited(&upstream, per_minute(1), quota).await;
    let settings = OpenAIConfig::new().with_api_base(format!("http://{}/v1", proxy.addr())).with_api_key("a-key");
    let client = Client::with_config(settings);
    for _ in 0..3 {
        assert_eq!(client.models().list().await.unwrap().data.len(), 1);
    }
}
