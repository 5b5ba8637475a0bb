//! How much a key may ask, on the wire: exact under load, reported truthfully, and rejected in both dialects.

use std::time::Duration;

use crate::program::Program;
use crate::support::{
    self, Act, Answer, CHAT, CHAT_STREAM, Client, STREAM_END, STREAM_HEAD, Upstream, ask, config, last, post,
    raw_response, word,
};
use farllama::{
    Config, Running,
    config::{Auth, Limits, Quota, Token},
    serve,
};

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
async fn every_answer_of_a_limited_key_shows_where_it_stands_and_a_refusal_when_to_come_again() {
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
async fn refusals_of_every_kind_show_a_limited_key_where_it_stands() {
    let upstream = Upstream::answering(raw_response("404 Not Found", "", "404 page not found")).await;
    let token = Token { routes: Some(vec!["*".to_owned(), "!/api/pull".to_owned()]), ..per_minute(9) };
    let proxy = limited(&upstream, token, Quota::default()).await;
    for (path, code, remaining) in [
        // Refused at the gate, it costs nothing.
        ("/api/pull", 403, "9"),
        ("/v1/completions", 405, "8"),
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

/// Two keys that share one slot.
async fn one_slot(upstream: &Upstream, ann: Token) -> Running {
    limited(upstream, ann, Quota { max_concurrent: 1, ..Quota::default() }).await
}

fn begun(path: &str, length: usize) -> Vec<u8> {
    format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n{ANN}\r\nContent-Length: {length}\r\n\r\n{{").into_bytes()
}

#[tokio::test]
async fn bodies_that_arrive_slowly_take_no_slot_that_another_key_waits_for() {
    let listed = Token { models: Some(vec!["m".to_owned()]), ..Token::new("ann", "a-key") };
    for ann in [Token::new("ann", "a-key"), listed] {
        let upstream = Upstream::answering(reply()).await;
        let proxy = one_slot(&upstream, ann).await;
        let mut slow = Vec::new();
        for path in ["/api/chat", "/v1/chat/completions", "/api/chat"] {
            slow.push(Client::sending(proxy.addr(), begun(path, 100_000)).await);
        }
        for path in ["/api/tags", "/v1/models"] {
            assert_eq!(ask(proxy.addr(), get(path, "x-api-key: b-key")).await.code(), 200, "{path}");
        }
        // Each trickles on, and still nothing of it is at the remote.
        for slow in &mut slow {
            slow.send(vec![b' '; 90_000]).await;
        }
        assert_eq!(ask(proxy.addr(), get("/api/tags", "x-api-key: b-key")).await.code(), 200);
        assert!(upstream.seen().iter().all(|seen| !seen.text().contains("/api/chat")));
        let rest = format!(r#"{}"model":"m"}}"#, " ".repeat(100_000 - 90_001 - 12));
        slow[0].send(rest).await;
        assert_eq!(slow[0].answer().await.code(), 200);
        let seen = upstream.until(|seen| seen.bytes.ends_with(br#" "model":"m"}"#)).await;
        assert!(seen.text().to_ascii_lowercase().contains("content-length: 100000\r\n"), "{}", seen.text());
    }
}

#[tokio::test]
async fn a_body_without_a_length_that_was_read_first_keeps_its_framing() {
    let upstream = Upstream::answering(reply()).await;
    let proxy = one_slot(&upstream, Token::new("ann", "a-key")).await;
    let head = "POST /api/chat HTTP/1.1\r\nHost: localhost\r\nx-api-key: b-key\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut client = Client::sending(proxy.addr(), format!("{head}2\r\n{{\"\r\n")).await;
    client.send("7\r\na\":1}  \r\n0\r\n\r\n").await;
    assert_eq!(client.answer().await.code(), 200);
    let seen = upstream.until(|seen| seen.text().ends_with("0\r\n\r\n")).await;
    assert_eq!((seen.header("transfer-encoding").as_deref(), seen.header("content-length")), (Some("chunked"), None));
    let payload: String = seen.text().split("\r\n").filter(|line| line.contains(['{', 'a'])).skip(1).collect();
    assert!(payload.ends_with("{\"a\":1}  "), "{payload}");
}

#[tokio::test]
async fn a_key_has_no_more_bodies_read_than_it_may_have_requests() {
    let upstream = Upstream::answering(reply()).await;
    let ann = Token { max_concurrent: Some(1), limit_per_minute: Some(9), ..Token::new("ann", "a-key") };
    let wait = Duration::from_millis(50);
    let proxy = limited(&upstream, ann, Quota { max_concurrent: 2, wait, ..Quota::default() }).await;
    let first = Client::sending(proxy.addr(), begun("/api/chat", 1000)).await;
    let refused = async {
        // The first may not have been read yet.
        loop {
            let second = ask(proxy.addr(), begun("/v1/chat/completions", 200 << 20)).await;
            if second.code() == 429 {
                return second;
            }
        }
    };
    let refused = tokio::time::timeout(support::PATIENCE, refused).await.unwrap();
    assert!(refused.message().contains("within 50ms"), "{}", refused.text());
    assert_eq!(ask(proxy.addr(), get("/api/tags", "x-api-key: b-key")).await.code(), 200);
    // A body that breaks off gives its slot back, and costs nothing.
    drop(first);
    let admitted = async {
        loop {
            let answer = ask(proxy.addr(), get("/api/tags", ANN)).await;
            if answer.code() == 200 {
                return answer;
            }
        }
    };
    let admitted = tokio::time::timeout(support::PATIENCE, admitted).await.unwrap();
    assert_eq!(left(&admitted), ("9", "8"));
}

#[tokio::test]
async fn files_of_models_stream_without_a_slot_and_larger_bodies_than_there_is_room_for_are_refused() {
    let upstream = Upstream::answering(reply()).await;
    let auth = Auth { enabled: true, tokens: vec![Token::new("ann", "a-key")], ..Auth::default() };
    let limits = Limits { buffered: 1 << 20, ..Limits::default() };
    let quota = Quota { max_concurrent: 1, ..Quota::default() };
    let proxy = serve(Config { auth, quota, limits, ..config(upstream.addr) }).await.unwrap();
    let mut blob = Client::sending(proxy.addr(), begun("/api/blobs/sha256:0", 2 << 20)).await;
    upstream.until(|seen| seen.text().contains("/api/blobs")).await;
    let refused = ask(proxy.addr(), begun("/api/chat", 2 << 20)).await;
    assert!(refused.code() == 413 && refused.text().contains("limits.buffered"), "{}", refused.text());
    assert_eq!(ask(proxy.addr(), get("/api/tags", ANN)).await.code(), 200);
    blob.send(vec![b'x'; (2 << 20) - 1]).await;
    assert_eq!(blob.answer().await.code(), 200);
}

fn per_minute_tokens(tokens: u64) -> Token {
    let routes = Some(vec!["*".to_owned(), "!/api/closed".to_owned()]);
    Token { tokens_per_minute: Some(tokens), routes, ..Token::new("ann", "a-key") }
}

/// A request of ann's with a body.
fn anns(path: &str, body: &str) -> Vec<u8> {
    String::from_utf8(post(path, body)).unwrap().replacen("\r\n", &format!("\r\n{ANN}\r\n"), 1).into_bytes()
}

/// A stream of two words that cost 7 tokens for the prompt and 3 for the answer.
fn stream() -> Vec<Act> {
    let stream = [STREAM_HEAD.as_bytes(), &word("a"), &word("b"), &last(), STREAM_END.as_bytes()].concat();
    vec![Act::Write(stream)]
}

/// How many tokens ann has left, by the headers of a request that is refused, so that it costs none.
async fn tokens_left(proxy: &Running) -> u64 {
    let answer = ask(proxy.addr(), get("/api/closed", ANN)).await;
    answer.header("x-ratelimit-remaining-tokens").unwrap().parse().unwrap()
}

/// Waits until so many tokens are left: a request is settled when its end is noticed.
async fn until_left(proxy: &Running, tokens: u64) {
    for _ in 0..250 {
        if tokens_left(proxy).await == tokens {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{} are left, not {tokens}", tokens_left(proxy).await);
}

#[tokio::test]
async fn tokens_count_as_ollama_counts_them_on_every_lane() {
    let upstream = Upstream::start(stream()).await;
    let proxy = limited(&upstream, per_minute_tokens(10_000), Quota::default()).await;
    let claude = CHAT_STREAM.replacen('{', "{\"max_tokens\":9,", 1);
    let mut left = 10_000;
    for (path, body) in [
        ("/api/chat", CHAT_STREAM),
        ("/v1/chat/completions", CHAT_STREAM),
        ("/v1/responses", r#"{"model":"m","input":"hi"}"#),
        ("/v1/messages", &claude),
    ] {
        let answer = ask(proxy.addr(), anns(path, body)).await;
        assert_eq!(answer.code(), 200, "{path}: {}", answer.text());
        let reserved = u64::try_from(body.len()).unwrap() / 4 + 256;
        let name = if path == "/v1/messages" { "anthropic-ratelimit-tokens" } else { "x-ratelimit" };
        let shown = |what: &str| match name {
            "x-ratelimit" => answer.header(&format!("x-ratelimit-{what}-tokens")),
            _ => answer.header(&format!("{name}-{what}")),
        };
        assert_eq!(shown("limit"), Some("10000"), "{path}");
        assert_eq!(shown("remaining"), Some(&*(left - reserved).to_string()), "{path}: while it runs");
        assert!(shown("reset").is_some());
        left -= 10;
        until_left(&proxy, left).await;
    }
}

#[tokio::test]
async fn without_tokens_left_a_429_says_when_and_what_runs_no_model_passes() {
    let upstream = Upstream::start(stream()).await;
    let proxy = limited(&upstream, per_minute_tokens(15), Quota::default()).await;
    assert_eq!(ask(proxy.addr(), anns("/api/chat", CHAT_STREAM)).await.code(), 200);
    until_left(&proxy, 5).await;
    let claude = CHAT.replacen('{', "{\"max_tokens\":9,", 1);
    for (path, body) in [("/v1/chat/completions", CHAT), ("/api/chat", CHAT), ("/v1/messages", &claude)] {
        let refused = ask(proxy.addr(), anns(path, body)).await;
        let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
        assert!(refused.code() == 429 && (1..=60).contains(&wait), "{path}: {wait}");
        let error = &refused.json()["error"];
        match path {
            "/api/chat" => assert!(error.as_str().unwrap().contains("tokens per minute: Limit 15, Used 10"), "{error}"),
            "/v1/messages" => assert_eq!(error["type"], "rate_limit_error"),
            _ => assert_eq!((&error["type"], &error["code"]), (&"tokens".into(), &"rate_limit_exceeded".into())),
        }
    }
    // What runs no model passes.
    assert_eq!(ask(proxy.addr(), get("/api/tags", ANN)).await.code(), 200);
    assert_eq!(
        ask(proxy.addr(), anns("/v1/responses/input_tokens", r#"{"model":"m","input":"hi"}"#)).await.code(),
        200
    );
    assert_eq!(tokens_left(&proxy).await, 5);
}

#[tokio::test]
async fn a_day_of_tokens_is_a_limit_too_and_a_window_that_has_passed_is_free() {
    let upstream = Upstream::start(stream()).await;
    let token = Token { tokens_per_day: Some(15), ..per_minute_tokens(15) };
    let quota = Quota { window: Duration::from_millis(400), ..Quota::default() };
    let proxy = limited(&upstream, token, quota).await;
    assert_eq!(ask(proxy.addr(), anns("/api/chat", CHAT_STREAM)).await.code(), 200);
    until_left(&proxy, 15).await;
    let refused = ask(proxy.addr(), anns("/api/chat", CHAT_STREAM)).await;
    let error = refused.json()["error"].as_str().unwrap().to_owned();
    assert!(refused.code() == 429 && error.contains("tokens per day: Limit 15, Used 10"), "{error}");
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((86_000..=86_400).contains(&wait), "{wait}");
}

#[tokio::test]
async fn a_canceled_stream_costs_its_prompt_and_what_it_has_generated() {
    let begun = [STREAM_HEAD.as_bytes(), &word("a"), &word("b"), &word("c")].concat();
    let upstream = Upstream::start(vec![Act::Write(begun), Act::Hold]).await;
    let proxy = limited(&upstream, per_minute_tokens(10_000), Quota::default()).await;
    let mut left = 10_000;
    for path in ["/api/chat", "/v1/chat/completions"] {
        let mut client = Client::sending(proxy.addr(), anns(path, CHAT_STREAM)).await;
        client.until("\"c\"").await;
        drop(client);
        left -= u64::try_from(CHAT_STREAM.len()).unwrap() / 4 + 3;
        until_left(&proxy, left).await;
    }
}

#[tokio::test]
async fn a_request_that_the_remote_refuses_costs_no_tokens() {
    let upstream = Upstream::answering(raw_response("404 Not Found", "", r#"{"error":"model 'm' not found"}"#)).await;
    let proxy = limited(&upstream, per_minute_tokens(10_000), Quota::default()).await;
    for path in ["/api/chat", "/v1/chat/completions"] {
        assert_eq!(ask(proxy.addr(), anns(path, CHAT)).await.code(), 404);
        until_left(&proxy, 10_000).await;
    }
}

#[tokio::test]
async fn an_expired_key_is_refused_in_every_dialect() {
    let upstream = Upstream::answering(reply()).await;
    let token = Token { expires: Some("2020-01-01T00:00:00Z".parse().unwrap()), ..Token::new("ann", "a-key") };
    let proxy = limited(&upstream, token, Quota::default()).await;
    let native = ask(proxy.addr(), get("/api/tags", ANN)).await;
    assert!(native.code() == 401 && native.text().contains("expired at 2020-01-01T00:00:00Z"), "{}", native.text());
    let openai = ask(proxy.addr(), get("/v1/models", ANN)).await;
    assert_eq!((openai.code(), openai.json()["error"]["code"].as_str()), (401, Some("invalid_api_key")));
    assert_eq!(ask(proxy.addr(), get("/api/tags", "x-api-key: b-key")).await.code(), 200);
}

#[tokio::test]
async fn keys_of_a_file_are_read_again_when_it_changes_and_stay_when_it_is_broken() {
    let upstream = Upstream::answering(reply()).await;
    let folder = tempfile::tempdir().unwrap();
    let (file, keys) = (folder.path().join("farllama.toml"), folder.path().join("keys.toml"));
    std::fs::write(&file, format!("[auth]\nenabled = true\nkeys_file = {keys:?}\n")).unwrap();
    std::fs::write(&keys, "[[keys]]\nkey = \"a-key\"\nname = \"ann\"\n").unwrap();
    let remote = upstream.addr.to_string();
    let flags = ["--config", file.to_str().unwrap(), "--remote-host", &remote, "--remote-probe", "0s"];
    let program = Program::start(&flags, &[]);
    let code = async |key: &str| ask(program.addr, get("/api/tags", &format!("x-api-key: {key}"))).await.code();
    assert_eq!((code("a-key").await, code("b-key").await), (200, 401));
    std::fs::write(&keys, "[[keys]]\nkey = \"b-key\"\nname = \"bob\"\n").unwrap();
    program.until("auth.keys_file has changed: configuration reloaded: auth.keys: bob added, ann removed").await;
    assert_eq!((code("a-key").await, code("b-key").await), (401, 200));
    std::fs::write(&keys, "[[keys]]\nkey = \"c-key\"\nname = \"cid\"\n[[keys").unwrap();
    program.until("keeping the previous configuration").await;
    assert_eq!((code("b-key").await, code("c-key").await), (200, 401));
    let log = program.log();
    assert!(log.contains("keys.toml:4:") && !log.contains("c-key"), "{log}");
}
