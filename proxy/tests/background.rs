//! Responses in the background: what is seen of them while they run and afterwards, and that nothing of them is left
//! behind.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::support::{
    self, Act, Answer, Client, PATIENCE, STREAM_END, STREAM_HEAD, Upstream, ask, config, last, post, proxy, word,
};
use farllama::{
    Running,
    config::{Auth, Token},
    serve,
};
use serde_json::{Value, json};

const BODY: &str = r#"{"model":"m","input":"hi","background":true}"#;
const STREAM: &str = r#"{"model":"m","input":"hi","background":true,"stream":true}"#;

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

fn begun() -> Vec<u8> {
    [STREAM_HEAD.as_bytes(), &word("One")].concat()
}

fn ended() -> Vec<u8> {
    [&word(" two")[..], &last(), STREAM_END.as_bytes()].concat()
}

async fn start(addr: SocketAddr) -> Value {
    let answer = ask(addr, post("/v1/responses", BODY)).await;
    assert_eq!(answer.code(), 200, "{}", answer.text());
    answer.json()
}

async fn fetch(addr: SocketAddr, id: &Value) -> Answer {
    ask(addr, get(&format!("/v1/responses/{}", id.as_str().unwrap()))).await
}

async fn cancel(addr: SocketAddr, id: &Value) -> Answer {
    ask(addr, post(&format!("/v1/responses/{}/cancel", id.as_str().unwrap()), "")).await
}

/// The response, once it is in this state.
async fn until(addr: SocketAddr, id: &Value, status: &str) -> Value {
    let begun = Instant::now();
    loop {
        let response = fetch(addr, id).await.json();
        if response["status"] == status {
            return response;
        }
        assert!(begun.elapsed() < PATIENCE, "not {status}: {response}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until no request runs.
async fn quiet(proxy: &Running) {
    let begun = Instant::now();
    while proxy.requests() > 0 {
        assert!(begun.elapsed() < PATIENCE, "{} requests are left", proxy.requests());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The JSON of each event in `text`.
fn events(text: &str) -> Vec<Value> {
    let data = text.lines().filter_map(|line| line.strip_prefix("data: ")).filter(|data| data.starts_with('{'));
    data.map(|data| serde_json::from_str(data).unwrap()).collect()
}

#[tokio::test]
async fn it_is_queued_at_once_and_polled_until_it_is_whole() {
    let upstream = Upstream::start(vec![Act::Write(begun()), Act::Hold, Act::Write(ended())]).await;
    let proxy = proxy(upstream.addr).await;
    let queued = start(proxy.addr()).await;
    let (id, background) = (&queued["id"], &queued["background"]);
    assert_eq!((&queued["status"], background, &queued["usage"]), (&json!("queued"), &json!(true), &Value::Null));
    let running = until(proxy.addr(), id, "in_progress").await;
    assert_eq!(running["background"], true);
    let items = ask(proxy.addr(), get(&format!("/v1/responses/{}/input_items", id.as_str().unwrap()))).await;
    assert_eq!(items.json()["data"][0]["content"][0]["text"], "hi");
    upstream.go_on();
    let whole = until(proxy.addr(), id, "completed").await;
    assert_eq!(whole["output"][0]["content"][0]["text"], "One two");
    assert!(whole["usage"]["output_tokens"].is_u64() && whole["completed_at"].is_u64());
    quiet(&proxy).await;
}

#[tokio::test]
async fn its_stream_is_taken_up_where_it_was_left_while_it_runs_and_afterwards() {
    let upstream = Upstream::start(vec![Act::Write(begun()), Act::Hold, Act::Write(ended())]).await;
    let proxy = proxy(upstream.addr).await;
    let mut client = Client::sending(proxy.addr(), post("/v1/responses", STREAM)).await;
    let first = client.until("\"delta\":\"One\"").await;
    drop(client);
    let seen = events(&first);
    let kinds: Vec<_> = seen.iter().take(3).map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["response.created", "response.queued", "response.in_progress"]);
    let (id, after) = (&seen[0]["response"]["id"], seen.last().unwrap()["sequence_number"].as_u64().unwrap());
    let path = format!("/v1/responses/{}?stream=true&starting_after={after}", id.as_str().unwrap());
    let mut client = Client::sending(proxy.addr(), get(&path)).await;
    client.until("\r\n\r\n").await;
    upstream.go_on();
    let rest = client.until("[DONE]\n\n\r\n0\r\n").await;
    let rest = events(&rest);
    let numbers: Vec<_> = rest.iter().map(|event| event["sequence_number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (after + 1..=after + rest.len() as u64).collect::<Vec<_>>(), "dense from the next one on");
    assert_eq!(rest[0]["delta"], " two");
    let whole = fetch(proxy.addr(), id).await.json();
    assert_eq!(rest.last().unwrap()["response"], whole, "the last event has what is stored");
    // Afterwards, and from any number, the same events.
    let again = ask(proxy.addr(), get(&path)).await;
    assert_eq!(events(&again.text()), rest);
    let all = ask(proxy.addr(), get(&format!("/v1/responses/{}?stream=true", id.as_str().unwrap()))).await;
    assert_eq!(events(&all.text()), [seen, rest.clone()].concat());
    let beyond = ask(proxy.addr(), get(&path.replace(&format!("={after}"), "=99999999"))).await;
    assert_eq!(events(&beyond.text()), rest[rest.len() - 1..], "the end in any case");
    let wrong = ask(proxy.addr(), get(&path.replace(&format!("={after}"), "=x"))).await;
    assert_eq!((wrong.code(), &wrong.json()["error"]["param"]), (400, &json!("starting_after")));
    quiet(&proxy).await;
}

#[tokio::test]
async fn cancel_frees_the_remote_at_once_and_again_changes_nothing() {
    let upstream = Upstream::start(vec![Act::Write(begun()), Act::Hold]).await;
    let proxy = proxy(upstream.addr).await;
    let mut client = Client::sending(proxy.addr(), post("/v1/responses", STREAM)).await;
    let first = client.until("\"delta\":\"One\"").await;
    let id = events(&first)[0]["response"]["id"].clone();
    let begun = Instant::now();
    let canceled = cancel(proxy.addr(), &id).await;
    upstream.until(|seen| seen.left).await;
    assert!(begun.elapsed() < Duration::from_millis(500), "{:?}", begun.elapsed());
    let object = canceled.json();
    assert_eq!((canceled.code(), &object["status"], &object["error"]), (200, &json!("cancelled"), &Value::Null));
    assert_eq!(object["output"][0]["content"][0]["text"], "One", "what there was");
    let stream = client.until("[DONE]").await;
    assert_eq!(events(&stream).last().unwrap()["response"], object, "the open stream ends with it");
    assert_eq!(cancel(proxy.addr(), &id).await.json(), object);
    assert_eq!(fetch(proxy.addr(), &id).await.json(), object);
    quiet(&proxy).await;
}

#[tokio::test]
async fn only_what_runs_in_the_background_can_be_canceled_and_one_that_has_ended_stays() {
    let whole = [begun(), ended()].concat();
    let upstream = Upstream::start(vec![Act::Write(whole)]).await;
    let proxy = proxy(upstream.addr).await;
    let id = start(proxy.addr()).await["id"].clone();
    let completed = until(proxy.addr(), &id, "completed").await;
    assert_eq!(cancel(proxy.addr(), &id).await.json(), completed);
    let other = ask(proxy.addr(), post("/v1/responses", r#"{"model":"m","input":"hi"}"#)).await.json();
    let refused = cancel(proxy.addr(), &other["id"]).await;
    assert_eq!((refused.code(), &refused.json()["error"]["param"]), (400, &json!("response_id")));
    let unknown = cancel(proxy.addr(), &json!("resp_unknown")).await;
    assert_eq!((unknown.code(), &unknown.json()["error"]["code"]), (404, &json!("response_not_found")));
    // It can be gone on from.
    let body = json!({"model": "m", "input": "and?", "previous_response_id": id}).to_string();
    assert_eq!(ask(proxy.addr(), post("/v1/responses", &body)).await.code(), 200);
}

#[tokio::test]
async fn a_deleted_one_is_gone_with_its_request() {
    let upstream = Upstream::start(vec![Act::Write(begun()), Act::Hold]).await;
    let proxy = proxy(upstream.addr).await;
    let id = start(proxy.addr()).await["id"].clone();
    until(proxy.addr(), &id, "in_progress").await;
    let path = format!("/v1/responses/{}", id.as_str().unwrap());
    let deleted = ask(proxy.addr(), format!("DELETE {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
    assert_eq!((deleted.code(), &deleted.json()["deleted"]), (200, &json!(true)));
    upstream.until(|seen| seen.left).await;
    for path in [path.clone(), format!("{path}?stream=true"), format!("{path}/input_items")] {
        assert_eq!(ask(proxy.addr(), get(&path)).await.code(), 404, "{path}");
    }
    quiet(&proxy).await;
}

#[tokio::test]
async fn no_more_run_than_may() {
    let upstream = Upstream::start(vec![Act::Write(begun()), Act::Hold, Act::Write(ended())]).await;
    let mut bounded = config(upstream.addr);
    bounded.responses.max_background = 1;
    let proxy = serve(bounded).await.unwrap();
    let id = start(proxy.addr()).await["id"].clone();
    let refused = ask(proxy.addr(), post("/v1/responses", BODY)).await;
    assert_eq!((refused.code(), &refused.json()["error"]["code"]), (429, &json!("rate_limit_exceeded")));
    assert!(refused.header("retry-after").is_some() && refused.message().contains("responses.max_background"));
    upstream.go_on();
    until(proxy.addr(), &id, "completed").await;
    quiet(&proxy).await;
    start(proxy.addr()).await;
}

#[tokio::test]
async fn it_waits_for_its_slot_like_any_request() {
    let upstream = Upstream::start(vec![Act::Write(begun()), Act::Hold, Act::Write(ended())]).await;
    let mut one = config(upstream.addr);
    one.quota.max_concurrent = 1;
    let proxy = serve(one).await.unwrap();
    let mut first = Client::sending(proxy.addr(), post("/v1/chat/completions", support::CHAT_STREAM)).await;
    first.until("One").await;
    // Starting one needs a slot for a moment, so both begin to wait at once.
    let mut starting = [0; 2].map(|_| tokio::spawn(start(proxy.addr())));
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(starting.iter().all(|starting| !starting.is_finished()), "there is one slot");
    upstream.go_on();
    first.until("[DONE]").await;
    let ids = [(&mut starting[0]).await.unwrap()["id"].clone(), (&mut starting[1]).await.unwrap()["id"].clone()];
    // A request that waits gets a turn too, so this is fetched in between or afterwards.
    let pushing = async {
        loop {
            upstream.go_on();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let both = async {
        until(proxy.addr(), &ids[0], "completed").await;
        until(proxy.addr(), &ids[1], "completed").await;
    };
    tokio::select! {
        () = pushing => unreachable!(),
        () = both => {}
    }
    quiet(&proxy).await;
}

#[tokio::test]
async fn a_remote_that_dies_or_refuses_is_a_failed_response() {
    let upstream = Upstream::start(vec![Act::Write(begun()), Act::Close]).await;
    let dying = proxy(upstream.addr).await;
    let id = start(dying.addr()).await["id"].clone();
    let failed = until(dying.addr(), &id, "failed").await;
    assert_eq!(failed["error"]["code"], "server_error");
    assert_eq!(failed["output"][0]["content"][0]["text"], "One");
    quiet(&dying).await;
    let body = r#"{"error":"model \"m\" not found, try pulling it first"}"#;
    let upstream = Upstream::answering(support::raw_response("404 Not Found", "", body)).await;
    let refusing = proxy(upstream.addr).await;
    let id = start(refusing.addr()).await["id"].clone();
    let failed = until(refusing.addr(), &id, "failed").await;
    assert_eq!((&failed["error"]["code"], &failed["output"]), (&json!("invalid_prompt"), &json!([])));
    assert!(failed["error"]["message"].as_str().unwrap().contains("not found"), "{failed}");
    quiet(&refusing).await;
}

#[tokio::test]
async fn when_the_process_stops_it_may_end_within_the_grace() {
    let upstream = Upstream::start(vec![Act::Write(begun()), Act::Hold, Act::Write(ended())]).await;
    let proxy = proxy(upstream.addr).await;
    start(proxy.addr()).await;
    upstream.until(|seen| !seen.bytes.is_empty()).await;
    let stopping = tokio::spawn(proxy.stop(Duration::from_secs(30)));
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!stopping.is_finished(), "it runs");
    upstream.go_on();
    tokio::time::timeout(PATIENCE, stopping).await.unwrap().unwrap();
}

#[tokio::test]
async fn when_the_grace_is_over_it_fails_and_the_stream_says_why() {
    let upstream = Upstream::start(vec![Act::Write(begun()), Act::Hold]).await;
    let proxy = proxy(upstream.addr).await;
    let mut client = Client::sending(proxy.addr(), post("/v1/responses", STREAM)).await;
    client.until("\"delta\":\"One\"").await;
    let stopping = tokio::spawn(proxy.stop(Duration::from_millis(50)));
    let end = client.until("[DONE]").await;
    let end = events(&end);
    let response = &end.last().unwrap()["response"];
    assert_eq!(response["status"], "failed");
    assert!(response["error"]["message"].as_str().unwrap().contains("shutting down"), "{response}");
    upstream.until(|seen| seen.left).await;
    tokio::time::timeout(PATIENCE, stopping).await.unwrap().unwrap();
}

#[tokio::test]
async fn it_belongs_to_its_key_and_counts_once() {
    let whole = [begun(), ended()].concat();
    let upstream = Upstream::start(vec![Act::Write(whole)]).await;
    let mut keyed = config(upstream.addr);
    let tokens = vec![
        Token { limit_per_minute: Some(3), ..Token::new("ann", "a-key") },
        Token { models: Some(vec!["m".to_owned()]), ..Token::new("bob", "b-key") },
    ];
    keyed.auth = Auth { enabled: true, tokens, ..Auth::default() };
    let proxy = serve(keyed).await.unwrap();
    let with =
        |key: &str, request: String| request.replace("Host: ", &format!("Authorization: Bearer {key}\r\nHost: "));
    let body = String::from_utf8(post("/v1/responses", BODY)).unwrap();
    let queued = ask(proxy.addr(), with("a-key", body.clone())).await;
    assert_eq!((queued.code(), queued.header("x-ratelimit-remaining-requests")), (200, Some("2")));
    let path = format!("/v1/responses/{}", queued.json()["id"].as_str().unwrap());
    for request in [get(&path), get(&format!("{path}?stream=true")), get(&format!("{path}/input_items"))] {
        assert_eq!(ask(proxy.addr(), with("b-key", request)).await.code(), 404);
    }
    let stream = ask(proxy.addr(), with("a-key", get(&format!("{path}?stream=true")))).await;
    assert!(stream.text().contains("response.completed"), "{}", stream.text());
    assert_eq!(stream.header("x-ratelimit-remaining-requests"), Some("1"), "the run itself is not counted again");
    // A key that may use only some models runs them too.
    let queued = ask(proxy.addr(), with("b-key", body.clone())).await;
    let path = format!("/v1/responses/{}?stream=true", queued.json()["id"].as_str().unwrap());
    let stream = ask(proxy.addr(), with("b-key", get(&path))).await;
    assert!(stream.text().contains("response.completed"), "{}", stream.text());
    let other = ask(proxy.addr(), with("b-key", body.replace("\"m\"", "\"x\""))).await;
    assert_eq!(other.code(), 403, "{}", other.text());
}
