//! Batches: what becomes of their requests, when these are sent, and that nothing of a batch is left behind.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use farllama::{
    Running,
    config::{Auth, Config, Token},
    serve,
};
use mock_ollama::{Mock, Script};
use serde_json::{Value, json};

use crate::support::{
    Act, CHAT_STREAM, Client, PATIENCE, STREAM_END, STREAM_HEAD, Upstream, ask, config, last, post, proxy, word,
};

/// The JSON of an answer of the key's.
async fn call(addr: SocketAddr, key: &str, request: impl AsRef<[u8]>) -> Value {
    let request = String::from_utf8(request.as_ref().to_vec()).unwrap();
    let answer = ask(addr, request.replacen("\r\n", &format!("\r\nAuthorization: Bearer {key}\r\n"), 1)).await;
    answer.json()
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

/// A line that asks `model`.
fn line(id: &str, model: &str) -> String {
    let body = json!({"model": model, "messages": [{"role": "user", "content": "Say lantern."}]});
    json!({"custom_id": id, "method": "POST", "url": "/v1/chat/completions", "body": body}).to_string() + "\n"
}

async fn upload(addr: SocketAddr, key: &str, purpose: &str, lines: &str) -> Value {
    let body = format!(
        "--x\r\ncontent-disposition: form-data; name=\"purpose\"\r\n\r\n{purpose}\r\n--x\r\ncontent-disposition: form-data; \
         name=\"file\"; filename=\"asks.jsonl\"\r\n\r\n{lines}\r\n--x--\r\n"
    );
    let head = format!(
        "POST /v1/files HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    call(addr, key, head + &body).await["id"].clone()
}

async fn start(addr: SocketAddr, key: &str, lines: &str) -> Value {
    let file = upload(addr, key, "batch", lines).await;
    let body = json!({"input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h"});
    call(addr, key, post("/v1/batches", &body.to_string())).await
}

async fn fetch(addr: SocketAddr, key: &str, batch: &Value) -> Value {
    call(addr, key, get(&format!("/v1/batches/{}", batch["id"].as_str().unwrap()))).await
}

/// The batch, once it has this status.
async fn until(addr: SocketAddr, key: &str, batch: &Value, status: &str) -> Value {
    let begun = Instant::now();
    loop {
        let now = fetch(addr, key, batch).await;
        if now["status"] == status {
            return now;
        }
        assert!(begun.elapsed() < 2 * PATIENCE, "not {status}: {now}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The lines of a file, which may be none.
async fn lines(addr: SocketAddr, key: &str, file: &Value) -> Vec<Value> {
    let Some(id) = file.as_str() else { return Vec::new() };
    let request =
        format!("GET /v1/files/{id}/content HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n\r\n");
    let answer = ask(addr, request).await;
    assert_eq!(answer.code(), 200, "{}", answer.text());
    answer.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn quiet(proxy: &Running) {
    let begun = Instant::now();
    while proxy.requests() > 0 {
        assert!(begun.elapsed() < PATIENCE, "{} requests are left", proxy.requests());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn every_request_has_its_line_and_those_that_fail_are_errors() {
    let mock = Mock::start(Script::default()).await.unwrap();
    let proxy = serve(config(mock.addr())).await.unwrap();
    let addr = proxy.addr();
    let asks = [line("a", "smollm2:135m"), line("b", "no-such-model"), line("c", "smollm2:135m")].concat();
    let batch = start(addr, "", &asks).await;
    assert_eq!((&batch["object"], &batch["status"]), (&json!("batch"), &json!("validating")));
    let ended = until(addr, "", &batch, "completed").await;
    assert_eq!(ended["request_counts"], json!({"total": 3, "completed": 2, "failed": 1}));
    assert_eq!((&ended["model"], &ended["errors"]), (&json!("smollm2:135m"), &Value::Null));
    for time in ["in_progress_at", "finalizing_at", "completed_at", "expires_at"] {
        assert!(ended[time].is_u64(), "{time}: {ended}");
    }
    let output = lines(addr, "", &ended["output_file_id"]).await;
    assert_eq!([&output[0]["custom_id"], &output[1]["custom_id"]], ["a", "c"]);
    for line in &output {
        let Value::String(id) = &line["response"]["request_id"] else { panic!("{line}") };
        assert!(id.starts_with("req_") && line["response"]["status_code"] == 200 && line["error"].is_null());
        assert_eq!(line["response"]["body"]["object"], "chat.completion");
    }
    let total: u64 =
        output.iter().map(|line| line["response"]["body"]["usage"]["total_tokens"].as_u64().unwrap()).sum();
    assert_eq!(ended["usage"]["total_tokens"], total);
    let errors = lines(addr, "", &ended["error_file_id"]).await;
    assert_eq!((errors.len(), &errors[0]["custom_id"]), (1, &json!("b")));
    assert_eq!(errors[0]["response"]["status_code"], 404);
    assert_eq!(errors[0]["response"]["body"]["error"]["code"], "model_not_found");
    // An ended one stays as it is.
    let cancel = post(&format!("/v1/batches/{}/cancel", batch["id"].as_str().unwrap()), "");
    assert_eq!(call(addr, "", cancel).await, ended);
    quiet(&proxy).await;
}

#[tokio::test]
async fn a_file_that_is_none_of_requests_fails_the_batch_and_another_purpose_is_refused() {
    let upstream = Upstream::answering("").await;
    let proxy = proxy(upstream.addr).await;
    let addr = proxy.addr();
    let failed = until(addr, "", &start(addr, "", "no JSON\n").await, "failed").await;
    assert_eq!((&failed["errors"]["object"], &failed["errors"]["data"][0]["line"]), (&json!("list"), &json!(1)));
    let file = upload(addr, "", "user_data", &line("a", "m")).await;
    let body = json!({"input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h"});
    let refused = call(addr, "", post("/v1/batches", &body.to_string())).await;
    assert_eq!(refused["error"]["param"], "input_file_id");
    assert!(upstream.seen().is_empty());
}

#[tokio::test]
async fn requests_of_batches_wait_until_there_are_no_others() {
    let held = [STREAM_HEAD.as_bytes(), &word("One")].concat();
    let ended = [&last()[..], STREAM_END.as_bytes()].concat();
    let upstream = Upstream::start(vec![Act::Write(held), Act::Hold, Act::Write(ended)]).await;
    let proxy = proxy(upstream.addr).await;
    let mut client = Client::sending(proxy.addr(), post("/v1/chat/completions", CHAT_STREAM)).await;
    client.until("One").await;
    let batch = start(proxy.addr(), "", &line("a", "m")).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(
        (fetch(proxy.addr(), "", &batch).await["status"].as_str(), upstream.seen().len()),
        (Some("in_progress"), 1)
    );
    drop(client);
    let begun = Instant::now();
    while upstream.seen().len() < 2 {
        assert!(begun.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let cancel = post(&format!("/v1/batches/{}/cancel", batch["id"].as_str().unwrap()), "");
    call(proxy.addr(), "", cancel).await;
    until(proxy.addr(), "", &batch, "cancelled").await;
}

#[tokio::test]
async fn a_canceled_batch_lets_go_of_the_remote_and_says_what_was_not_sent() {
    let held = [STREAM_HEAD.as_bytes(), &word("One")].concat();
    let upstream = Upstream::start(vec![Act::Write(held), Act::Hold]).await;
    let proxy = proxy(upstream.addr).await;
    let addr = proxy.addr();
    let batch = start(addr, "", &[line("a", "m"), line("b", "m")].concat()).await;
    upstream.until(|_| true).await;
    let cancel = post(&format!("/v1/batches/{}/cancel", batch["id"].as_str().unwrap()), "");
    let begun = Instant::now();
    let canceling = call(addr, "", &cancel).await;
    assert!(["cancelling", "cancelled"].contains(&canceling["status"].as_str().unwrap()), "{canceling}");
    upstream.until(|seen| seen.left).await;
    assert!(begun.elapsed() < Duration::from_millis(500), "{:?}", begun.elapsed());
    let ended = until(addr, "", &batch, "cancelled").await;
    assert!(ended["cancelling_at"].is_u64() && ended["cancelled_at"].is_u64() && ended["output_file_id"].is_null());
    let errors = lines(addr, "", &ended["error_file_id"]).await;
    let codes: Vec<_> = errors.iter().map(|line| (&line["custom_id"], &line["error"]["code"])).collect();
    let canceled = json!("batch_cancelled");
    assert_eq!(codes, [(&json!("a"), &canceled), (&json!("b"), &canceled)]);
    assert_eq!(call(addr, "", &cancel).await["status"], "cancelled");
    quiet(&proxy).await;
}

#[tokio::test]
async fn a_batch_belongs_to_its_key_and_has_its_limits() {
    let mock = Mock::start(Script::default()).await.unwrap();
    let tokens = vec![Token { limit_per_minute: Some(6), ..Token::new("one", "one") }, Token::new("two", "two")];
    let mut config = Config { auth: Auth { enabled: true, tokens, ..Auth::default() }, ..config(mock.addr()) };
    config.quota.window = Duration::from_millis(1500);
    config.batches.max_count = 1;
    let proxy = serve(config).await.unwrap();
    let addr = proxy.addr();
    let asks: String = (0..8).map(|n| line(&n.to_string(), "smollm2:135m")).collect();
    let batch = start(addr, "one", &asks).await;
    let refused = start(addr, "two", &line("x", "smollm2:135m")).await;
    assert_eq!(refused["error"]["code"], "rate_limit_exceeded", "{refused}");
    assert_eq!(fetch(addr, "two", &batch).await["error"]["code"], "batch_not_found");
    let listed = call(addr, "two", get("/v1/batches")).await;
    assert_eq!(listed["data"], json!([]));
    // The key may ask more often than its limit allows only if that waits.
    tokio::time::sleep(Duration::from_millis(4000)).await;
    let ended = until(addr, "one", &batch, "completed").await;
    assert_eq!(ended["request_counts"], json!({"total": 8, "completed": 8, "failed": 0}));
    assert_eq!(lines(addr, "two", &Value::Null).await.len(), 0);
    // Its output is the key's, too.
    let path = format!("/v1/files/{}", ended["output_file_id"].as_str().unwrap());
    assert_eq!(call(addr, "two", get(&path)).await["error"]["code"], "file_not_found");
    quiet(&proxy).await;
}

#[tokio::test]
async fn a_key_that_is_removed_ends_its_batches() {
    let held = [STREAM_HEAD.as_bytes(), &word("One")].concat();
    let ended = [&last()[..], STREAM_END.as_bytes()].concat();
    let upstream = Upstream::start(vec![Act::Write(held), Act::Hold, Act::Write(ended)]).await;
    let with = |keys: &[&str]| {
        let tokens = keys.iter().map(|key| Token::new(*key, key)).collect();
        Config { auth: Auth { enabled: true, tokens, ..Auth::default() }, ..config(upstream.addr) }
    };
    let proxy = serve(with(&["one", "two"])).await.unwrap();
    let batch = start(proxy.addr(), "one", &[line("a", "m"), line("b", "m")].concat()).await;
    assert_eq!(batch["object"], "batch", "{batch}");
    upstream.until(|_| true).await;
    proxy.reload(with(&["two"])).unwrap();
    upstream.go_on();
    quiet(&proxy).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let asked: usize = upstream.seen().iter().map(|seen| seen.text().matches("POST /api/chat").count()).sum();
    assert_eq!(asked, 1, "the second request is refused by the gate");
}

#[tokio::test]
async fn output_beyond_the_bounds_fails_the_batch_and_a_shutdown_does_not_wait_for_one() {
    let mock = Mock::start(Script::default()).await.unwrap();
    let mut small = config(mock.addr());
    small.files.max_bytes_per_key = 700;
    let proxy = serve(small).await.unwrap();
    let asks = [line("a", "smollm2:135m"), line("b", "smollm2:135m")].concat();
    let failed = until(proxy.addr(), "", &start(proxy.addr(), "", &asks).await, "failed").await;
    let code = failed["errors"]["data"].as_array().unwrap().iter().map(|error| error["code"].as_str().unwrap());
    assert!(code.into_iter().any(|code| code.starts_with("output_")), "{failed}");

    let held = [STREAM_HEAD.as_bytes(), &word("One")].concat();
    let upstream = Upstream::start(vec![Act::Write(held), Act::Hold]).await;
    let proxy = crate::support::proxy(upstream.addr).await;
    start(proxy.addr(), "", &line("a", "m")).await;
    upstream.until(|_| true).await;
    let begun = Instant::now();
    proxy.stop(Duration::from_secs(30)).await;
    assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
    assert!(upstream.until(|seen| seen.left).await.left);
}
