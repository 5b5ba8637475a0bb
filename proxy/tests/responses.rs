//! Responses between raw sockets: how events are cut into writes, what a client that leaves leaves behind, and what
//! outlives a reload.

use crate::support::{
    Act, Client, STREAM_END, STREAM_HEAD, Upstream, ask, chunk, config, last, post, proxy, raw_response, word,
};
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

#[tokio::test]
async fn text_before_a_call_that_must_fit_is_streamed_and_the_call_is_asked_for_again() {
    let upstream = Upstream::start_with(|request| {
        if request.contains("\"stream\":false") {
            let content = r#"{\"name\":\"c\",\"arguments\":{\"input\":\"ab\"}}"#;
            let reply = format!(
                r#"{{"model":"m","created_at":"2026-11-22T12:37:42.5Z","message":{{"role":"assistant","content":"{content}"}},"done":true,"done_reason":"stop","prompt_eval_count":20,"eval_count":5}}"#
            );
            return vec![Act::Write(raw_response("200 OK", "Content-Type: application/json\r\n", &reply))];
        }
        let call = r#"{"model":"m","created_at":"2026-11-22T12:37:42.5Z","message":{"role":"assistant","content":"","tool_calls":[{"function":{"name":"c","arguments":{"input":"x"}}}]},"done":false}"#;
        let ended = [&chunk(&format!("{call}\n"))[..], &last(), STREAM_END.as_bytes()].concat();
        vec![Act::Write([STREAM_HEAD.as_bytes(), &word("One")].concat()), Act::Hold, Act::Write(ended)]
    })
    .await;
    let proxy = proxy(upstream.addr).await;
    let body = json!({"model": "m", "input": "hi", "stream": true, "tools": [{"type": "custom", "name": "c",
        "format": {"type": "grammar", "syntax": "regex", "definition": "a+b"}}]});
    let mut client = Client::sending(proxy.addr(), post("/v1/responses", &body.to_string())).await;
    client.until("\"delta\":\"One\"").await;
    upstream.go_on();
    let rest = client.until("data: [DONE]").await;
    assert!(rest.contains("response.completed") && rest.contains("\"input\":\"ab\""), "{rest}");
    assert!(!rest.contains("\"input\":\"x\"") && rest.contains("\"output_tokens\":8"), "{rest}");
}

#[tokio::test]
async fn what_is_fetched_has_what_include_asks_for() {
    let thought = r#"{"model":"m","created_at":"2026-11-22T12:37:42.5Z","message":{"role":"assistant","content":"","thinking":"hm"},"done":false}"#;
    let reply = [STREAM_HEAD.as_bytes(), &chunk(&format!("{thought}\n")), &word("One"), &last(), STREAM_END.as_bytes()]
        .concat();
    let upstream = Upstream::answering(reply).await;
    let proxy = proxy(upstream.addr).await;
    let made = ask(proxy.addr(), post("/v1/responses", r#"{"model":"m","input":"hi"}"#)).await.json();
    assert!(made["output"][0]["encrypted_content"].is_null(), "{made}");
    let path = format!("/v1/responses/{}", made["id"].as_str().unwrap());
    let plain = ask(proxy.addr(), get(&path)).await;
    assert_eq!(plain.json(), made);
    let included = ask(proxy.addr(), get(&format!("{path}?include[]=reasoning.encrypted_content"))).await;
    let carried = included.json()["output"][0]["encrypted_content"].as_str().unwrap().to_owned();
    assert_eq!(included.json()["output"][1], made["output"][1]);
    let stream = ask(proxy.addr(), get(&format!("{path}?stream=true&include=reasoning.encrypted_content"))).await;
    assert!(stream.text().contains(&carried), "{}", stream.text());
    let noted = ask(proxy.addr(), get(&format!("{path}?include=message.output_text.logprobs"))).await;
    let receipt = noted.header("x-farllama-receipt").unwrap().to_owned();
    assert_eq!(receipt, "include.message.output_text.logprobs=as-stored");
    let wrong = ask(proxy.addr(), get(&format!("{path}/input_items?include=nothing"))).await;
    assert_eq!((wrong.code(), wrong.json()["error"]["param"].as_str()), (400, Some("include[0]")));
}
