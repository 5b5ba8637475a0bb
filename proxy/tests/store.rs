//! Several proxies on one Redis server: limits hold for all together, stored responses are everywhere, and an outage
//! costs neither.

use std::time::Duration;

use crate::program::Program;
use crate::redis::RedisServer;
use crate::support::{
    Act, CHAT_STREAM, Client, STREAM_END, STREAM_HEAD, Upstream, ask, config, last, post, raw_response, word,
};
use farllama::{
    Config, Running,
    config::{Auth, Fail, Quota, Secret, Store, Token},
    serve,
};

const ANN: &str = "Authorization: Bearer a-key";
const BOB: &str = "Authorization: Bearer b-key";

fn get(path: &str, key: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{key}\r\n\r\n").into_bytes()
}

fn with_key(request: Vec<u8>, key: &str) -> Vec<u8> {
    String::from_utf8(request).unwrap().replacen("\r\n", &format!("\r\n{key}\r\n"), 1).into_bytes()
}

fn reply() -> Vec<u8> {
    raw_response("200 OK", "Content-Type: application/json\r\n", "{\"models\":[]}")
}

/// A stream of two words that cost 7 tokens for the prompt and 3 for the answer.
fn stream() -> Vec<u8> {
    [STREAM_HEAD.as_bytes(), &word("a"), &word("b"), &last(), STREAM_END.as_bytes()].concat()
}

fn store(server: &RedisServer) -> Store {
    Store { url: Secret(server.url()), ..Store::default() }
}

/// A proxy that shares `store`; ann's key is limited as `ann` says.
async fn proxy(upstream: &Upstream, store: Store, ann: Token, quota: Quota) -> Running {
    let auth = Auth { enabled: true, tokens: vec![ann, Token::new("bob", "b-key")], ..Auth::default() };
    serve(Config { auth, quota, store, ..config(upstream.addr) }).await.unwrap()
}

fn ann() -> Token {
    Token::new("ann", "a-key")
}

/// The status codes of `n` requests at once, spread over the proxies.
async fn codes(addrs: &[std::net::SocketAddr], n: usize) -> Vec<u16> {
    let asking = |nth: usize| {
        let addr = addrs[nth % addrs.len()];
        tokio::spawn(async move { ask(addr, get("/api/tags", ANN)).await.code() })
    };
    let asking: Vec<_> = (0..n).map(asking).collect();
    let mut codes = Vec::new();
    for one in asking {
        codes.push(one.await.unwrap());
    }
    codes
}

fn count(codes: &[u16], code: u16) -> usize {
    codes.iter().filter(|found| **found == code).count()
}

#[tokio::test]
async fn two_proxies_together_admit_exactly_the_limit() {
    let Some(server) = RedisServer::start() else { return };
    let upstream = Upstream::answering(reply()).await;
    let limited = || Token { limit_per_minute: Some(20), ..ann() };
    let quota = || Quota { window: Duration::from_secs(600), ..Quota::default() };
    let first = proxy(&upstream, store(&server), limited(), quota()).await;
    let second = proxy(&upstream, store(&server), limited(), quota()).await;
    let codes = codes(&[first.addr(), second.addr()], 200).await;
    assert_eq!((count(&codes, 200), count(&codes, 429)), (20, 180), "{codes:?}");
    let reached: usize = upstream.seen().iter().map(|seen| seen.text().matches("GET /api/tags ").count()).sum();
    assert_eq!(reached, 20);
    for proxy in [&first, &second] {
        let refused = ask(proxy.addr(), get("/api/tags", ANN)).await;
        let header = |name| refused.header(name).unwrap();
        assert_eq!((header("x-ratelimit-limit-requests"), header("x-ratelimit-remaining-requests")), ("20", "0"));
        let wait: u64 = header("retry-after").parse().unwrap();
        assert!(refused.code() == 429 && (500..=600).contains(&wait), "{wait}");
        assert_eq!(ask(proxy.addr(), get("/api/tags", BOB)).await.code(), 200, "bob has no limit");
    }
}

#[tokio::test]
async fn requests_at_the_same_time_are_counted_over_all_proxies_and_a_slot_comes_back() {
    let Some(server) = RedisServer::start() else { return };
    let upstream = Upstream::start(vec![Act::Hold, Act::Write(reply())]).await;
    let quick = Upstream::answering(reply()).await;
    let own = (Token { max_concurrent: Some(1), ..ann() }, Quota::default());
    let all = (ann(), Quota { max_concurrent: 1, ..Quota::default() });
    for (nth, (token, quota)) in [own, all].into_iter().enumerate() {
        let store = || Store { prefix: format!("{nth}:"), ..store(&server) };
        let short = Quota { wait: Duration::from_millis(300), ..quota.clone() };
        let first = proxy(&upstream, store(), token.clone(), quota.clone()).await;
        let second = proxy(&quick, store(), token.clone(), short).await;
        let patient = proxy(&quick, store(), token, quota).await;
        let mut running = Client::sending(first.addr(), get(&format!("/api/held{nth}"), ANN)).await;
        upstream.until(|seen| seen.text().contains(&format!("/api/held{nth}"))).await;
        let refused = ask(second.addr(), get("/api/tags", ANN)).await;
        assert_eq!(refused.code(), 429, "{nth}: {}", refused.text());
        let waiting = tokio::spawn(async move { ask(patient.addr(), get("/api/tags", ANN)).await.code() });
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(!waiting.is_finished());
        upstream.go_on();
        assert_eq!(running.answer().await.code(), 200);
        assert_eq!(waiting.await.unwrap(), 200, "{nth}");
    }
}

#[tokio::test]
async fn what_a_dead_proxy_held_is_free_after_the_lease_and_not_before() {
    let Some(server) = RedisServer::start() else { return };
    let held = Upstream::start(vec![Act::Hold, Act::Write(reply())]).await;
    let quick = Upstream::answering(reply()).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("farllama.toml");
    let settings = format!(
        "[auth]\nenabled = true\nkeys = [{{ key = \"a-key\", max_concurrent = 1 }}]\n[store]\nurl = {:?}\nlease = \"900ms\"\n",
        server.url()
    );
    std::fs::write(&file, settings).unwrap();
    let remote = held.addr.to_string();
    let flags = ["--config", file.to_str().unwrap(), "--remote-host", &remote, "--remote-probe", "0s"];
    let program = Program::start(&flags, &[]);
    let _running = Client::sending(program.addr, get("/api/held", ANN)).await;
    held.until(|seen| seen.text().contains("/api/held")).await;
    let store = Store { lease: Duration::from_millis(900), ..store(&server) };
    let quota = Quota { wait: Duration::from_millis(200), ..Quota::default() };
    let other = proxy(&quick, store, Token { max_concurrent: Some(1), ..ann() }, quota).await;
    // A lease that is in use is renewed.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(ask(other.addr(), get("/api/tags", ANN)).await.code(), 429);
    assert!(std::process::Command::new("kill").args(["-9", &program.id().to_string()]).status().unwrap().success());
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert_eq!(ask(other.addr(), get("/api/tags", ANN)).await.code(), 200);
}

#[tokio::test]
async fn a_restart_of_the_server_loses_no_request_and_admits_none_twice() {
    let Some(mut server) = RedisServer::start() else { return };
    let upstream = Upstream::answering(reply()).await;
    let streaming = Upstream::start(vec![
        Act::Write([STREAM_HEAD.as_bytes(), &word("begun")].concat()),
        Act::Hold,
        Act::Write([last(), STREAM_END.into()].concat()),
    ])
    .await;
    let folder = tempfile::tempdir().unwrap();
    let settings = |name: &str, fail: &str, upstream: &Upstream| {
        let file = folder.path().join(name);
        let text = format!(
            "[auth]\nenabled = true\nkeys = [{{ key = \"a-key\", limit_per_minute = 20, tokens_per_minute = 100000 }}]\n\
             [quota]\nwindow = \"10m\"\n[remote]\nurl = \"http://{}\"\n[store]\nurl = {:?}\nfail = {fail:?}\ntimeout = \"300ms\"\n",
            upstream.addr,
            server.url()
        );
        std::fs::write(&file, text).unwrap();
        Program::start(&["--config", file.to_str().unwrap(), "--remote-probe", "0s"], &[])
    };
    let (first, second) = (settings("1.toml", "closed", &upstream), settings("2.toml", "closed", &upstream));
    let third = settings("3.toml", "closed", &streaming);
    let addrs = [first.addr, second.addr];
    let before = codes(&addrs, 9).await;
    assert_eq!(count(&before, 200), 9, "{before:?}");
    let mut running = Client::sending(third.addr, with_key(post("/api/chat", CHAT_STREAM), ANN)).await;
    running.until("begun").await;
    server.stop();
    let during = codes(&addrs, 10).await;
    assert_eq!(count(&during, 503), 10, "{during:?}");
    first.until("cannot be reached").await;
    server.run();
    first.until("can be reached again").await;
    second.until("can be reached again").await;
    // The request that ran goes on, and counts: ten of twenty are left.
    streaming.go_on();
    running.until("\"done\":true").await;
    let after = codes(&addrs, 200).await;
    assert_eq!((count(&after, 200), count(&after, 429)), (10, 190), "{after:?}");
    third.until("can be reached again").await;
    let left = ask(third.addr, with_key(post("/api/chat", CHAT_STREAM), ANN)).await;
    assert_eq!(left.code(), 429, "{}", left.text());
    let log = first.log();
    assert!(log.contains("requests that need it are refused") && !log.contains("a-key"), "{log}");
}

#[tokio::test]
async fn without_the_server_an_open_proxy_counts_alone() {
    let Some(mut server) = RedisServer::start() else { return };
    let upstream = Upstream::answering(reply()).await;
    let limited = || Token { limit_per_minute: Some(3), ..ann() };
    let store = Store { timeout: Duration::from_millis(200), fail: Fail::Open, ..store(&server) };
    let first = proxy(&upstream, store.clone(), limited(), Quota::default()).await;
    let second = proxy(&upstream, store, limited(), Quota::default()).await;
    server.stop();
    for proxy in [&first, &second] {
        let codes = codes(&[proxy.addr()], 9).await;
        assert_eq!((count(&codes, 200), count(&codes, 429)), (3, 6), "{codes:?}");
    }
    server.run();
    tokio::time::sleep(Duration::from_millis(700)).await;
    let codes = codes(&[first.addr(), second.addr()], 9).await;
    assert_eq!((count(&codes, 200), count(&codes, 429)), (3, 6), "together again: {codes:?}");
}

#[tokio::test]
async fn tokens_of_one_proxy_count_on_the_other() {
    let Some(server) = RedisServer::start() else { return };
    let upstream = Upstream::answering(stream()).await;
    let limited = || Token { tokens_per_minute: Some(10_000), tokens_per_day: Some(20_000), ..ann() };
    let first = proxy(&upstream, store(&server), limited(), Quota::default()).await;
    let second = proxy(&upstream, store(&server), limited(), Quota::default()).await;
    let reserved = u64::try_from(CHAT_STREAM.len()).unwrap() / 4 + 256;
    let mut used = 0;
    for nth in 0..6 {
        let proxy = if nth % 2 == 0 { &first } else { &second };
        for attempt in 0.. {
            let answer = ask(proxy.addr(), with_key(post("/v1/chat/completions", CHAT_STREAM), ANN)).await;
            let left: u64 = answer.header("x-ratelimit-remaining-tokens").unwrap().parse().unwrap();
            assert_eq!(answer.code(), 200);
            used += 10;
            // The end of the request before may be on its way still; then it counts with its estimate.
            if left == 10_000 - (used - 10) - reserved {
                break;
            }
            assert!(attempt < 20, "{left} are left after {used}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test]
async fn responses_of_one_proxy_go_on_on_another_and_outlive_both() {
    let Some(server) = RedisServer::start() else { return };
    let upstream = Upstream::answering(stream()).await;
    let new = || proxy(&upstream, store(&server), ann(), Quota::default());
    let (first, second) = (new().await, new().await);
    let ask_for = |body: serde_json::Value, key: &str| with_key(post("/v1/responses", &body.to_string()), key);
    let one = ask(first.addr(), ask_for(serde_json::json!({"model": "m", "input": "first question"}), ANN)).await;
    assert_eq!(one.code(), 200, "{}", one.text());
    let first_id = one.json()["id"].as_str().unwrap().to_owned();
    let more =
        serde_json::json!({"model": "m", "input": "second question", "previous_response_id": first_id, "stream": true});
    let two = ask(second.addr(), ask_for(more.clone(), ANN)).await;
    let completed: serde_json::Value = serde_json::from_str(&two.events()[two.events().len() - 2]).unwrap();
    let second_id = completed["response"]["id"].as_str().unwrap().to_owned();
    let asked = upstream.until(|seen| seen.text().contains("second question")).await.text();
    let asked = &asked[asked.rfind("POST /api/chat").unwrap()..];
    assert!(asked.contains("first question") && asked.contains("\"ab\""), "{asked}");
    // Another key finds nothing.
    let stolen = ask(second.addr(), ask_for(more, BOB)).await;
    assert_eq!(stolen.code(), 400, "{}", stolen.text());
    assert_eq!(ask(first.addr(), get(&format!("/v1/responses/{first_id}"), BOB)).await.code(), 404);
    first.stop(Duration::from_secs(1)).await;
    second.stop(Duration::from_secs(1)).await;
    let third = new().await;
    for id in [&first_id, &second_id] {
        let found = ask(third.addr(), get(&format!("/v1/responses/{id}"), ANN)).await;
        assert_eq!((found.code(), found.json()["id"].as_str()), (200, Some(&**id)));
    }
    let items = ask(third.addr(), get(&format!("/v1/responses/{second_id}/input_items?order=asc"), ANN)).await.json();
    assert_eq!(items["data"].as_array().unwrap().len(), 3, "{items}");
    let item = items["data"][0]["id"].as_str().unwrap();
    let again = serde_json::json!({"model": "m", "input": [{"type": "item_reference", "id": item}]});
    assert_eq!(ask(third.addr(), ask_for(again, ANN)).await.code(), 200);
    let delete = get(&format!("/v1/responses/{first_id}"), ANN);
    let delete = String::from_utf8(delete).unwrap().replacen("GET", "DELETE", 1);
    assert_eq!(ask(third.addr(), &delete).await.code(), 200);
    assert_eq!(ask(third.addr(), &delete).await.code(), 404);
}

#[tokio::test]
async fn the_server_is_reached_over_tls() {
    let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let Some(server) = RedisServer::with_tls(&signed.cert.pem(), &signed.signing_key.serialize_pem()) else { return };
    let upstream = Upstream::answering(reply()).await;
    let limited = || Token { limit_per_minute: Some(1), ..ann() };
    let trusting = Store { ca_file: Some(server.folder().join("cert.pem")), fail: Fail::Closed, ..store(&server) };
    let first = proxy(&upstream, trusting.clone(), limited(), Quota::default()).await;
    let second = proxy(&upstream, trusting, limited(), Quota::default()).await;
    let codes = codes(&[first.addr(), second.addr()], 4).await;
    assert_eq!((count(&codes, 200), count(&codes, 429)), (1, 3), "{codes:?}");
    // An untrusted certificate is rejected.
    let strict = Store { fail: Fail::Closed, timeout: Duration::from_millis(300), ..store(&server) };
    let third = proxy(&upstream, strict, limited(), Quota::default()).await;
    assert_eq!(ask(third.addr(), get("/api/tags", ANN)).await.code(), 503);
}

#[tokio::test]
async fn one_node_of_a_cluster_has_all_keys_whichever_is_named() {
    let Some(nodes) = RedisServer::cluster::<2>() else { return };
    let upstream = Upstream::answering(stream()).await;
    for named in &nodes {
        let prefix = format!("{{{}}}:", named.port);
        let shared = Store { prefix, timeout: Duration::from_secs(10), ..store(named) };
        let limited = || Token { limit_per_minute: Some(6), ..ann() };
        let quota = || Quota { window: Duration::from_secs(600), ..Quota::default() };
        let first = proxy(&upstream, shared.clone(), limited(), quota()).await;
        let second = proxy(&upstream, shared.clone(), limited(), quota()).await;
        let codes = codes(&[first.addr(), second.addr()], 20).await;
        assert_eq!((count(&codes, 200), count(&codes, 429)), (6, 14), "{codes:?}");
        let body = serde_json::json!({"model": "m", "input": "hi"}).to_string();
        let made = ask(first.addr(), with_key(post("/v1/responses", &body), BOB)).await;
        let id = made.json()["id"].as_str().unwrap().to_owned();
        let found = ask(second.addr(), get(&format!("/v1/responses/{id}"), BOB)).await;
        assert_eq!((found.code(), found.json()["id"].as_str()), (200, Some(&*id)));
    }
    let nodes_with_keys = nodes.iter().filter(|node| !node.command("DBSIZE").starts_with(":0")).count();
    assert!(nodes_with_keys >= 1);
    // Keys without a hash tag belong to several nodes.
    let shared = Store { prefix: "plain:".to_owned(), fail: Fail::Closed, ..store(&nodes[0]) };
    let limited = Token { limit_per_minute: Some(6), max_concurrent: Some(2), ..ann() };
    let refusing = proxy(&upstream, shared, limited, Quota::default()).await;
    let refused = ask(refusing.addr(), get("/api/tags", ANN)).await;
    assert_eq!(refused.code(), 503, "{}", refused.text());
}

/// A request for a response in the background.
fn in_background(key: &str) -> Vec<u8> {
    let body = serde_json::json!({"model": "m", "input": "hi", "background": true}).to_string();
    with_key(post("/v1/responses", &body), key)
}

/// The status of a response, and the whole of it.
async fn status_of(addr: std::net::SocketAddr, id: &str) -> (String, serde_json::Value) {
    let found = ask(addr, get(&format!("/v1/responses/{id}"), ANN)).await;
    assert_eq!(found.code(), 200, "{}", found.text());
    (found.json()["status"].as_str().unwrap().to_owned(), found.json())
}

async fn until_status(addr: std::net::SocketAddr, id: &str, status: &str) -> serde_json::Value {
    let begun = std::time::Instant::now();
    loop {
        let (now, whole) = status_of(addr, id).await;
        if now == status {
            return whole;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "{now} instead of {status}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_response_in_the_background_is_known_and_canceled_on_every_proxy() {
    let Some(server) = RedisServer::start() else { return };
    let begun = [STREAM_HEAD.as_bytes(), &word("a")].concat();
    let upstream = Upstream::start(vec![
        Act::Write(begun),
        Act::Hold,
        Act::Write([&word("b")[..], &last(), STREAM_END.as_bytes()].concat()),
    ])
    .await;
    let new = || proxy(&upstream, store(&server), ann(), Quota::default());
    let (first, second) = (new().await, new().await);
    let queued = ask(first.addr(), in_background(ANN)).await.json();
    let id = queued["id"].as_str().unwrap();
    let (status, _) = status_of(second.addr(), id).await;
    assert!(["queued", "in_progress"].contains(&&*status), "{status}");
    until_status(second.addr(), id, "in_progress").await;
    let items = ask(second.addr(), get(&format!("/v1/responses/{id}/input_items"), ANN)).await;
    assert_eq!(items.json()["data"][0]["content"][0]["text"], "hi", "{}", items.text());
    assert_eq!(ask(second.addr(), get(&format!("/v1/responses/{id}"), BOB)).await.code(), 404);
    // Its events come once it has ended.
    let streaming = get(&format!("/v1/responses/{id}?stream=true"), ANN);
    let streaming = tokio::spawn(async move { ask(second.addr(), streaming).await });
    upstream.go_on();
    let streamed = streaming.await.unwrap();
    let events = streamed.events();
    assert!(events[0].contains("response.created") && events[events.len() - 1] == "[DONE]", "{events:?}");
    assert!(events[events.len() - 2].contains("response.completed"), "{events:?}");
    let second = new().await;
    let whole = until_status(second.addr(), id, "completed").await;
    assert_eq!(whole["output"][0]["content"][0]["text"], "ab");

    let held = Upstream::start(vec![Act::Write([STREAM_HEAD.as_bytes(), &word("a")].concat()), Act::Hold]).await;
    let third = proxy(&held, store(&server), ann(), Quota::default()).await;
    let queued = ask(third.addr(), in_background(ANN)).await.json();
    let id = queued["id"].as_str().unwrap();
    until_status(second.addr(), id, "in_progress").await;
    let canceled = ask(second.addr(), with_key(post(&format!("/v1/responses/{id}/cancel"), ""), ANN)).await;
    assert_eq!((canceled.code(), &canceled.json()["status"]), (200, &"cancelled".into()), "{}", canceled.text());
    held.until(|seen| seen.left).await;
    assert_eq!(status_of(third.addr(), id).await.0, "cancelled");
}

#[tokio::test]
async fn a_response_whose_process_died_has_failed_once_its_lease_is_over() {
    let Some(server) = RedisServer::start() else { return };
    let begun = [STREAM_HEAD.as_bytes(), &word("a")].concat();
    let upstream = Upstream::start(vec![Act::Write(begun), Act::Hold]).await;
    let shared = Store { lease: Duration::from_secs(2), ..store(&server) };
    let settings = format!(
        "[remote]\nurl = \"http://{}\"\n[auth]\nenabled = true\nkeys = [{{ key = \"a-key\", name = \"ann\" }}]\n[store]\nurl = \"{}\"\nlease = \"2s\"\n",
        upstream.addr,
        server.url()
    );
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("farllama.toml");
    std::fs::write(&file, settings).unwrap();
    let dying = Program::start(&["--config", &file.to_string_lossy(), "--remote-probe", "0s"], &[]);
    let queued = ask(dying.addr, in_background(ANN)).await.json();
    let id = queued["id"].as_str().unwrap();
    let other = proxy(&upstream, shared, ann(), Quota::default()).await;
    until_status(other.addr(), id, "in_progress").await;
    // It is renewed for as long as it runs.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(status_of(other.addr(), id).await.0, "in_progress");
    drop(dying);
    let failed = until_status(other.addr(), id, "failed").await;
    assert_eq!(failed["error"]["code"], "server_error");
    assert!(failed["error"]["message"].as_str().unwrap().contains("is gone"), "{failed}");
    let streamed = ask(other.addr(), get(&format!("/v1/responses/{id}?stream=true"), ANN)).await;
    assert!(streamed.text().contains("response.failed"), "{}", streamed.text());
    let canceled = ask(other.addr(), with_key(post(&format!("/v1/responses/{id}/cancel"), ""), ANN)).await;
    assert_eq!(canceled.json()["status"], "failed");
    let delete = get(&format!("/v1/responses/{id}"), ANN);
    let delete = String::from_utf8(delete).unwrap().replacen("GET", "DELETE", 1);
    assert_eq!(ask(other.addr(), &delete).await.code(), 200);
    assert_eq!(ask(other.addr(), &delete).await.code(), 404);
}

/// A request of ann's with this method, whose answer must be a 200.
async fn call(addr: std::net::SocketAddr, method: &str, path: &str, body: &serde_json::Value) -> serde_json::Value {
    let request = String::from_utf8(with_key(post(path, &body.to_string()), ANN)).unwrap();
    let answer = ask(addr, request.replacen("POST", method, 1)).await;
    assert_eq!(answer.code(), 200, "{method} {path}: {}", answer.text());
    answer.json()
}

fn upload(text: &str, purpose: &str) -> Vec<u8> {
    let body = format!(
        "--x\r\ncontent-disposition: form-data; name=\"purpose\"\r\n\r\n{purpose}\r\n--x\r\ncontent-disposition: form-data; \
         name=\"file\"; filename=\"a.jsonl\"\r\n\r\n{text}\r\n--x--\r\n"
    );
    let head = format!(
        "POST /v1/files HTTP/1.1\r\nHost: localhost\r\n{ANN}\r\nContent-Type: multipart/form-data; boundary=x\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    (head + &body).into_bytes()
}

fn line(id: &str) -> String {
    let body = serde_json::json!({"model": "smollm2:135m", "messages": [{"role": "user", "content": "hi"}]});
    serde_json::json!({"custom_id": id, "method": "POST", "url": "/v1/chat/completions", "body": body}).to_string()
        + "\n"
}

async fn until_batch(addr: std::net::SocketAddr, id: &str, status: &str) -> serde_json::Value {
    let begun = std::time::Instant::now();
    loop {
        let now = ask(addr, get(&format!("/v1/batches/{id}"), ANN)).await.json();
        if now["status"] == status {
            return now;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "not {status}: {now}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A batch of these lines; its id.
async fn batch(addr: std::net::SocketAddr, lines: &str) -> String {
    let file = ask(addr, upload(lines, "batch")).await.json();
    let body = serde_json::json!({"input_file_id": file["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h"});
    call(addr, "POST", "/v1/batches", &body).await["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn conversations_chats_files_and_batches_are_shared_and_outlive_the_proxies() {
    let Some(server) = RedisServer::start() else { return };
    let mock = mock_ollama::Mock::start(mock_ollama::Script::default()).await.unwrap();
    let new = || {
        let auth = Auth { enabled: true, tokens: vec![ann(), Token::new("bob", "b-key")], ..Auth::default() };
        serve(Config { auth, store: store(&server), ..config(mock.addr()) })
    };
    let (first, second) = (new().await.unwrap(), new().await.unwrap());
    let (here, there) = (first.addr(), second.addr());
    let none = serde_json::json!({});
    // A conversation of the one proxy takes part in a response of the other.
    let message = serde_json::json!({"type": "message", "role": "user", "content": "first"});
    let made = call(here, "POST", "/v1/conversations", &serde_json::json!({"items": [message]})).await;
    let conversation = made["id"].as_str().unwrap();
    let body = serde_json::json!({"model": "smollm2:135m", "input": "second", "conversation": conversation});
    call(there, "POST", "/v1/responses", &body).await;
    let items = format!("/v1/conversations/{conversation}/items");
    // A chat completion is listed, and changed, by the other.
    let body =
        serde_json::json!({"model": "smollm2:135m", "messages": [{"role": "user", "content": "hi"}], "store": true});
    let chat = call(here, "POST", "/v1/chat/completions", &body).await;
    let chat = format!("/v1/chat/completions/{}", chat["id"].as_str().unwrap());
    let changed = call(there, "POST", &chat, &serde_json::json!({"metadata": {"a": "b"}})).await;
    assert_eq!(changed["metadata"], serde_json::json!({"a": "b"}));
    // A file is read by the other, and a batch of one is seen by the other.
    let file = ask(here, upload("a lantern", "user_data")).await.json();
    let file = format!("/v1/files/{}", file["id"].as_str().unwrap());
    assert_eq!(ask(there, get(&format!("{file}/content"), ANN)).await.text(), "a lantern");
    let batched = batch(here, &line("a")).await;
    let ended = until_batch(there, &batched, "completed").await;
    let output = format!("/v1/files/{}/content", ended["output_file_id"].as_str().unwrap());
    first.stop(Duration::from_secs(1)).await;
    second.stop(Duration::from_secs(1)).await;

    let third = new().await.unwrap();
    let addr = third.addr();
    let listed = call(addr, "GET", &items, &none).await;
    assert_eq!(listed["data"].as_array().unwrap().len(), 3, "{listed}");
    let chats = call(addr, "GET", "/v1/chat/completions", &none).await;
    assert_eq!((chats["data"].as_array().unwrap().len(), &chats["data"][0]["metadata"]), (1, &changed["metadata"]));
    assert_eq!(call(addr, "GET", &format!("{chat}/messages"), &none).await["data"][0]["content"], "hi");
    assert_eq!(call(addr, "GET", &format!("/v1/batches/{batched}"), &none).await, ended);
    let text = ask(addr, get(&output, ANN)).await.text();
    assert_eq!(text.lines().count(), 1, "{text}");
    // What the two made belongs to ann on every proxy.
    for path in [&items, &chat, &file, &format!("{file}/content"), &output, &format!("/v1/batches/{batched}")] {
        assert_eq!(ask(addr, get(path, BOB)).await.code(), 404, "{path}");
    }
    for path in [&chat, &file, &format!("/v1/conversations/{conversation}")] {
        call(addr, "DELETE", path, &none).await;
        assert_eq!(ask(addr, get(path, ANN)).await.code(), 404, "{path}");
    }
}

#[tokio::test]
async fn a_batch_is_canceled_on_every_proxy_and_failed_once_its_process_is_gone() {
    let Some(server) = RedisServer::start() else { return };
    let begun = [STREAM_HEAD.as_bytes(), &word("a")].concat();
    let upstream = Upstream::start(vec![Act::Write(begun), Act::Hold]).await;
    let shared = Store { lease: Duration::from_secs(2), ..store(&server) };
    let new = || proxy(&upstream, shared.clone(), ann(), Quota::default());
    let (first, second) = (new().await, new().await);
    let id = batch(first.addr(), &[line("a"), line("b")].concat()).await;
    upstream.until(|_| true).await;
    // The lease is renewed while one request takes its time.
    tokio::time::sleep(Duration::from_secs(3)).await;
    until_batch(second.addr(), &id, "in_progress").await;
    let cancel = with_key(post(&format!("/v1/batches/{id}/cancel"), ""), ANN);
    assert_eq!(ask(second.addr(), &cancel).await.json()["status"], "cancelling");
    upstream.until(|seen| seen.left).await;
    let canceled = until_batch(second.addr(), &id, "cancelled").await;
    assert!(canceled["cancelling_at"].is_u64() && canceled["error_file_id"].is_string(), "{canceled}");

    // A proxy that stops stores what it has, and says so.
    let id = batch(first.addr(), &line("a")).await;
    until_batch(second.addr(), &id, "in_progress").await;
    first.stop(Duration::from_secs(5)).await;
    let stopped = until_batch(second.addr(), &id, "failed").await;
    assert_eq!(stopped["errors"]["data"][0]["code"], "shutting_down", "{stopped}");

    // One that dies cannot.
    let settings = format!(
        "[remote]\nurl = \"http://{}\"\n[auth]\nenabled = true\nkeys = [{{ key = \"a-key\", name = \"ann\" }}]\n[store]\nurl = \"{}\"\nlease = \"2s\"\n",
        upstream.addr,
        server.url()
    );
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("farllama.toml");
    std::fs::write(&file, settings).unwrap();
    let dying = Program::start(&["--config", &file.to_string_lossy(), "--remote-probe", "0s"], &[]);
    let id = batch(dying.addr, &line("a")).await;
    until_batch(second.addr(), &id, "in_progress").await;
    drop(dying);
    let lost = until_batch(second.addr(), &id, "failed").await;
    assert_eq!(lost["errors"]["data"][0]["code"], "lost", "{lost}");
    assert_eq!(ask(second.addr(), &cancel).await.json()["status"], "cancelled");
}

#[tokio::test]
async fn uploads_at_the_same_time_do_not_exceed_the_bounds_of_their_key() {
    let Some(server) = RedisServer::start() else { return };
    let upstream = Upstream::answering(reply()).await;
    let mut bounded = Config {
        auth: Auth { enabled: true, tokens: vec![ann()], ..Auth::default() },
        store: store(&server),
        ..config(upstream.addr)
    };
    bounded.files.max_count_per_key = 3;
    let proxy = serve(bounded).await.unwrap();
    let addr = proxy.addr();
    let uploads = (0..12).map(|_| tokio::spawn(async move { ask(addr, upload("a lantern", "user_data")).await }));
    let mut stored = 0;
    for uploaded in uploads.collect::<Vec<_>>() {
        let answer = uploaded.await.unwrap();
        match answer.code() {
            200 => stored += 1,
            _ => assert_eq!(answer.json()["error"]["code"], "file_storage_full", "{}", answer.text()),
        }
    }
    assert!(stored <= 3, "{stored}");
    // What was reserved is free again.
    while stored < 3 {
        assert_eq!(ask(addr, upload("a lantern", "user_data")).await.code(), 200);
        stored += 1;
    }
    assert_eq!(ask(addr, upload("a lantern", "user_data")).await.code(), 400);
}
