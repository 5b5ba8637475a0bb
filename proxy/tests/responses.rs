//! Responses between raw sockets: how events are cut into writes, what a client that leaves leaves behind, and what
//! outlives a reload.

use crate::support::{Act, Client, STREAM_END, STREAM_HEAD, Upstream, ask, config, last, post, proxy, word};
use farllama::{Running, config::Secret, serve};
use mock_ollama::{Mock, Options, Script};
use serde_json::json;

const STREAM: &str = r#"{"model":"m","input":"hi","stream":true}"#;

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

/// The HTTP chunks of a body, which are the proxy's writes.
fn writes(body: &str) -> Vec<&str> {
    let mut writes = Vec::new();
    let mut rest = body;
    while let Some((size, from)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            break;
        }
        writes.push(&from[..size]);
        rest = &from[size + 2..];
    }
    writes
}

#[tokio::test]
async fn no_event_is_split_over_two_writes() {
    // Packets of the remote end in the middle of lines, and in the middle of chunks.
    let whole = [STREAM_HEAD.as_bytes(), &word("One"), &word(" two"), &last(), STREAM_END.as_bytes()].concat();
    let upstream = Upstream::start(whole.chunks(97).map(|part| Act::Write(part.to_vec())).collect()).await;
    let proxy = proxy(upstream.addr).await;
    let mut client = Client::sending(proxy.addr(), post("/v1/responses", STREAM)).await;
    let got = client.until("[DONE]\n\n\r\n0\r\n").await;
    let writes = writes(got.split_once("\r\n\r\n").unwrap().1);
    assert!(!got.contains("Content-Encoding") && !writes.is_empty());
    for write in writes {
        assert!(write.starts_with("event: ") || write.starts_with("data: [DONE]"), "{write:?}");
        assert!(write.ends_with("\n\n"), "{write:?}");
    }
}

#[tokio::test]
async fn a_client_that_leaves_cancels_the_remote_and_leaves_nothing_behind() {
    let begun = [STREAM_HEAD.as_bytes(), &word("one")].concat();
    let upstream = Upstream::start(vec![Act::Write(begun), Act::Hold]).await;
    let proxy = proxy(upstream.addr).await;
    let mut client = Client::sending(proxy.addr(), post("/v1/responses", STREAM)).await;
    let got = client.until("\"delta\":\"one\"").await;
    drop(client);
    upstream.until(|seen| seen.left).await;
    let at = got.find("\"id\":\"resp_").unwrap() + "\"id\":\"".len();
    let id = &got[at..at + "resp_".len() + 32];
    let answer = ask(proxy.addr(), get(&format!("/v1/responses/{id}"))).await;
    assert_eq!((answer.code(), &answer.json()["error"]["code"]), (404, &json!("response_not_found")));
}

#[tokio::test]
async fn a_client_that_leaves_after_the_last_event_finds_the_response_again() {
    let upstream = Upstream::start(vec![
        Act::Write([STREAM_HEAD.as_bytes(), &word("one"), &last()].concat()),
        // The remote's own end never comes.
        Act::Hold,
    ])
    .await;
    let proxy = proxy(upstream.addr).await;
    let mut client = Client::sending(proxy.addr(), post("/v1/responses", STREAM)).await;
    let got = client.until("event: response.completed").await;
    drop(client);
    let at = got.find("\"id\":\"resp_").unwrap() + "\"id\":\"".len();
    let id = &got[at..at + "resp_".len() + 32];
    let answer = ask(proxy.addr(), get(&format!("/v1/responses/{id}"))).await;
    assert_eq!((answer.code(), &answer.json()["output"][0]["content"][0]["text"]), (200, &json!("one")));
}

#[tokio::test]
async fn responses_outlive_a_reload_and_new_bounds_count_at_once() {
    let mock = Mock::start_with(Options::default(), Script::default()).await.unwrap();
    let proxy = serve(config(mock.addr())).await.unwrap();
    let body = r#"{"model":"smollm2:135m","input":"hi"}"#;
    let id = ask(proxy.addr(), post("/v1/responses", body)).await.json()["id"].as_str().unwrap().to_owned();
    proxy.reload(config(mock.addr())).unwrap();
    assert_eq!(ask(proxy.addr(), get(&format!("/v1/responses/{id}"))).await.code(), 200);
    let mut tighter = config(mock.addr());
    tighter.responses.max_count = 1;
    proxy.reload(tighter).unwrap();
    let next = ask(proxy.addr(), post("/v1/responses", body)).await.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(ask(proxy.addr(), get(&format!("/v1/responses/{id}"))).await.code(), 404);
    assert_eq!(ask(proxy.addr(), get(&format!("/v1/responses/{next}"))).await.code(), 200);
}

#[tokio::test]
async fn a_compaction_is_read_after_a_restart_with_its_key_and_never_with_another() {
    let mock = Mock::start_with(Options::default(), Script::default()).await.unwrap();
    let serving = async |key: &str| {
        let mut config = config(mock.addr());
        config.responses.compaction_key = Secret(key.to_owned());
        serve(config).await.unwrap()
    };
    let read = async |proxy: &Running, carried: &str| {
        let body = json!({"model": "smollm2:135m", "input": [{"type": "compaction", "encrypted_content": carried}]});
        ask(proxy.addr(), post("/v1/responses", &body.to_string())).await
    };
    let body = r#"{"model":"smollm2:135m","input":"remember the lantern"}"#;
    for (key, again, code) in
        [("a key of a proxy", "a key of a proxy", 200), ("a key of a proxy", "another key here", 400), ("", "", 400)]
    {
        let first = serving(key).await;
        let made = ask(first.addr(), post("/v1/responses/compact", body)).await.json();
        let carried = made["output"][0]["encrypted_content"].as_str().unwrap().to_owned();
        assert!(!carried.contains("lantern"), "it is opaque");
        assert_eq!(read(&first, &carried).await.code(), 200);
        drop(first);
        let second = serving(again).await;
        let answer = read(&second, &carried).await;
        assert_eq!(answer.code(), code, "{key:?} {again:?}: {}", answer.text());
    }
}
