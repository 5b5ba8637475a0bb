//! Hostile clients and remotes: attacks that no other test's subject covers. SECURITY.md names the test for each
//! attack.

use crate::support::{
    self, CHAT_STREAM, Client, STREAM_END, STREAM_HEAD, Upstream, ask, config, last, post, proxy, raw_response, word,
};
use farllama::{
    Config,
    config::{Auth, Token},
    serve,
};
use serde_json::Value;

#[tokio::test]
async fn each_pipelined_request_is_judged_by_its_own_key() {
    let upstream = Upstream::answering(raw_response("200 OK", "Content-Type: application/json\r\n", "{}")).await;
    let tokens = vec![Token::new("ann", "key-of-ann"), Token::new("bob", "key-of-bob")];
    let settings = Config { auth: Auth { enabled: true, tokens, ..Auth::default() }, ..config(upstream.addr) };
    let proxy = serve(settings).await.unwrap();
    let get = |path: &str, key: &str| format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{key}\r\n");
    let all = [
        get("/api/ps?1", "x-api-key: key-of-ann\r\n"),
        get("/api/ps?2", "x-api-key: wrong\r\n"),
        get("/api/ps?3", ""),
        get("/api/ps?4", "Authorization: Bearer key-of-bob\r\n"),
    ];
    let mut client = Client::sending(proxy.addr(), all.concat()).await;
    // All four come on one connection, perhaps in one packet.
    let mut got = String::new();
    while got.matches("HTTP/1.1 ").count() < 4 || !got.ends_with('}') {
        got += &client.until("}").await;
    }
    let codes: Vec<_> = got.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect();
    assert_eq!(codes, ["200", "401", "401", "200"], "{got}");
    let seen: String = upstream.seen().iter().map(support::Seen::text).collect();
    let reached = |n: u8| seen.contains(&format!("/api/ps?{n} "));
    assert_eq!([1, 2, 3, 4].map(reached), [true, false, false, true], "{seen}");
}

#[tokio::test]
async fn content_cannot_break_out_of_its_event() {
    // In JSON these are line breaks; as they are, they would end an event and begin another one.
    let content = r"a\n\ndata: [DONE]\n\nevent: error\r\rdata: {}\r\n\r\n";
    let stream = [STREAM_HEAD.as_bytes(), &word(content), &last(), STREAM_END.as_bytes()].concat();
    let upstream = Upstream::answering(stream).await;
    let proxy = proxy(upstream.addr).await;
    let answer = ask(proxy.addr(), post("/v1/chat/completions", CHAT_STREAM)).await;
    let events = answer.events();
    assert!(answer.whole && !answer.text().contains('\r') && !answer.text().contains("event:\u{20}error\n"));
    assert_eq!(events.iter().filter(|event| *event == "[DONE]").count(), 1);
    let text: String = events[..events.len() - 1]
        .iter()
        .filter_map(|event| {
            let event: Value = serde_json::from_str(event).unwrap();
            event["choices"][0]["delta"]["content"].as_str().map(str::to_owned)
        })
        .collect();
    assert_eq!(text, "a\n\ndata: [DONE]\n\nevent: error\r\rdata: {}\r\n\r\n");
}

#[tokio::test]
async fn a_line_without_end_is_cut_off() {
    let size = 65 << 20;
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nContent-Length: {}\r\n\r\n", size + 1);
    let upstream = Upstream::answering([head.as_bytes(), &vec![b'a'; size]].concat()).await;
    let proxy = proxy(upstream.addr).await;
    let answer = ask(proxy.addr(), post("/v1/chat/completions", CHAT_STREAM)).await;
    // The last byte never comes: without the bound this would hang.
    assert!(answer.text().contains("a line of more than"), "{} {}", answer.status, answer.text());
    assert!(!answer.text().contains("[DONE]"));
}
