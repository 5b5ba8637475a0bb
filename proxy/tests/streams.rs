//! Streamed chats on the OpenAI lane, as they cross the wire.

use std::time::Duration;

use crate::support::{
    Act, CHAT_STREAM, Client, STREAM_END, STREAM_HEAD, Upstream, ask, chunk, config, last, post, proxy, raw_response,
    word,
};
use farllama::serve;
use serde_json::Value;

/// The whole stream of `lines`, in one write.
fn stream(lines: &[Vec<u8>]) -> Vec<u8> {
    [STREAM_HEAD.as_bytes(), &lines.concat(), STREAM_END.as_bytes()].concat()
}

fn json(event: &str) -> Value {
    serde_json::from_str(event).unwrap_or_else(|error| panic!("{error}: {event}"))
}

/// A heartbeat, as an HTTP chunk of its own.
const HEARTBEAT: &str = "2\r\n\n\n\r\n";

#[tokio::test]
async fn a_stream_has_its_role_first_its_finish_once_and_done_last() {
    let upstream = Upstream::answering(stream(&[word("Hel"), word("lo"), last()])).await;
    let proxy = proxy(upstream.addr).await;
    let answer = ask(proxy.addr(), post("/v1/chat/completions", CHAT_STREAM)).await;
    assert_eq!((answer.code(), answer.header("content-type")), (200, Some("text/event-stream")));
    assert!(answer.header("x-request-id").unwrap().starts_with("req_") && answer.whole);
    let events = answer.events();
    let deltas: Vec<_> = events[..4].iter().map(|event| json(event)["choices"][0].clone()).collect();
    assert_eq!(deltas[0]["delta"], serde_json::json!({"role": "assistant", "content": ""}));
    assert_eq!((&deltas[1]["delta"]["content"], &deltas[2]["delta"]["content"]), (&"Hel".into(), &"lo".into()));
    assert_eq!((&deltas[3]["delta"], &deltas[3]["finish_reason"]), (&serde_json::json!({}), &"stop".into()));
    assert_eq!((events.len(), &*events[4]), (5, "[DONE]"));
    let ids: std::collections::HashSet<_> = events[..4].iter().map(|event| json(event)["id"].to_string()).collect();
    assert_eq!(ids.len(), 1);
    assert!(events[..4].iter().all(|event| json(event).get("usage").is_none()));
}

#[tokio::test]
async fn a_long_line_stands_in_its_place_among_the_others() {
    // So long that it is read off the event loop.
    let long = "long ".repeat(200_000);
    let reading = stream(&[word("first"), word(&long), word("second"), word(&long), last()]);
    for cut in [false, true] {
        let end = if cut { reading.len() - STREAM_END.len() - last().len() - 9 } else { reading.len() };
        let upstream = Upstream::start(vec![Act::Write(reading[..end].to_vec()), Act::Close]).await;
        let proxy = proxy(upstream.addr).await;
        let events = ask(proxy.addr(), post("/v1/chat/completions", CHAT_STREAM)).await.events();
        let (end, said) = events.split_last().unwrap();
        let said: String = said
            .iter()
            .filter_map(|event| Some(json(event)["choices"][0]["delta"]["content"].as_str()?.to_owned()))
            .collect();
        if cut {
            assert!(said == format!("first{long}second") && json(end)["error"].is_object(), "{} {end}", said.len());
        } else {
            assert!(said == format!("first{long}second{long}") && end == "[DONE]", "{} {end}", said.len());
        }
    }
}

#[tokio::test]
async fn usage_comes_last_and_only_when_it_is_asked_for() {
    let upstream = Upstream::answering(stream(&[word("Hi"), last()])).await;
    let proxy = proxy(upstream.addr).await;
    let body = CHAT_STREAM.replace("\"stream\":true", "\"stream\":true,\"stream_options\":{\"include_usage\":true}");
    let events = ask(proxy.addr(), post("/v1/chat/completions", &body)).await.events();
    let usage = json(&events[events.len() - 2]);
    assert_eq!((&usage["choices"], &usage["usage"]["total_tokens"]), (&serde_json::json!([]), &10.into()));
    assert!(events[..events.len() - 2].iter().all(|event| json(event)["usage"] == Value::Null));
}

#[tokio::test]
async fn words_arrive_while_the_remote_is_still_writing() {
    let begun = [STREAM_HEAD.as_bytes(), &word("one")].concat();
    let rest = [last(), STREAM_END.into()].concat();
    let upstream = Upstream::start(vec![Act::Write(begun), Act::Hold, Act::Write(rest)]).await;
    let proxy = proxy(upstream.addr).await;
    let mut client = Client::sending(proxy.addr(), post("/v1/chat/completions", CHAT_STREAM)).await;
    let begun = client.until("\"one\"").await;
    assert!(!begun.contains("[DONE]"));
    upstream.go_on();
    client.until("[DONE]").await;
}

#[tokio::test]
async fn events_that_are_ready_together_share_one_write_and_none_is_split() {
    let words: Vec<_> = (0..50).map(|n| word(&format!("w{n}"))).chain([last()]).collect();
    let upstream = Upstream::answering(stream(&words)).await;
    let proxy = proxy(upstream.addr).await;
    let mut client = Client::sending(proxy.addr(), post("/v1/chat/completions", CHAT_STREAM)).await;
    let raw = client.until("0\r\n\r\n").await;
    let body = raw.split_once("\r\n\r\n").unwrap().1;
    let chunks: Vec<&str> = body.split("\r\n").collect();
    // Size, data, size, data …: each data is whole events.
    let data: Vec<&str> = chunks.iter().skip(1).step_by(2).copied().filter(|data| !data.is_empty()).collect();
    assert!(data.iter().all(|data| data.starts_with("data: ") && data.ends_with("\n\n")), "{data:?}");
    assert!(data.len() < 10, "{} writes for 53 events that were ready together", data.len());
}

#[tokio::test]
async fn a_failure_in_mid_stream_is_one_error_frame_without_done() {
    let line = |text: &str| chunk(&format!("{text}\n"));
    let failed = line(r#"{"error":"an error was encountered while running the model: unexpected EOF"}"#);
    let cases: [(&str, Vec<Act>, &str); 4] = [
        ("an error line", vec![Act::Write(stream(&[word("one"), failed]))], "unexpected EOF"),
        ("a cut", vec![Act::Write([STREAM_HEAD.as_bytes(), &word("one")].concat()), Act::Close], "broke off"),
        ("an end before done", vec![Act::Write(stream(&[word("one")]))], "before it was done"),
        ("a line that is no reply", vec![Act::Write(stream(&[word("one"), line("<html>")]))], "not an Ollama response"),
    ];
    for (case, acts, words) in cases {
        let upstream = Upstream::start(acts).await;
        let proxy = proxy(upstream.addr).await;
        let answer = ask(proxy.addr(), post("/v1/chat/completions", CHAT_STREAM)).await;
        let events = answer.events();
        let errors: Vec<_> = events.iter().filter(|event| event.starts_with("{\"error\"")).collect();
        assert_eq!(errors.len(), 1, "{case}: {events:?}");
        assert_eq!(events.last(), Some(errors[0]), "{case}");
        assert!(json(errors[0])["error"]["message"].as_str().unwrap().contains(words), "{case}: {errors:?}");
        assert!(!answer.text().contains("[DONE]") && !answer.text().contains("\"finish_reason\":\"stop\""), "{case}");
    }
}

#[tokio::test]
async fn an_early_refusal_keeps_its_status() {
    let body = r#"{"error":"\"m\" does not support thinking"}"#;
    let upstream =
        Upstream::answering(raw_response("400 Bad Request", "Content-Type: application/json\r\n", body)).await;
    let proxy = proxy(upstream.addr).await;
    let answer = ask(proxy.addr(), post("/v1/chat/completions", CHAT_STREAM)).await;
    assert_eq!(answer.code(), 400);
    assert_eq!(answer.message(), "\"m\" does not support thinking");
}

#[tokio::test]
async fn a_cold_model_gets_heartbeats_and_its_words_after_them() {
    let upstream = Upstream::start(vec![Act::Hold, Act::Write(stream(&[word("warm"), last()]))]).await;
    let mut config = config(upstream.addr);
    config.heartbeat.after = Duration::from_millis(20);
    config.heartbeat.every = Duration::from_millis(20);
    let proxy = serve(config).await.unwrap();
    let mut client = Client::sending(proxy.addr(), post("/v1/chat/completions", CHAT_STREAM)).await;
    let begun = client.until(HEARTBEAT).await;
    assert!(begun.starts_with("HTTP/1.1 200 OK"));
    client.until(HEARTBEAT).await;
    client.until(HEARTBEAT).await;
    upstream.go_on();
    let rest = client.until("[DONE]").await;
    assert!(rest.contains("\"warm\""));
}

#[tokio::test]
async fn what_fails_after_the_head_has_left_is_an_error_frame() {
    let body = r#"{"error":"model 'm' not found"}"#;
    let refusal = raw_response("404 Not Found", "Content-Type: application/json; charset=utf-8\r\n", body);
    let upstream = Upstream::start(vec![Act::Hold, Act::Write(refusal)]).await;
    let mut config = config(upstream.addr);
    config.heartbeat.after = Duration::from_millis(20);
    let proxy = serve(config).await.unwrap();
    let mut client = Client::sending(proxy.addr(), post("/v1/chat/completions", CHAT_STREAM)).await;
    client.until(HEARTBEAT).await;
    upstream.go_on();
    // The near names are asked for as well.
    upstream.until(|seen| seen.text().contains("GET /api/tags")).await;
    upstream.go_on();
    let frame = client.until("model_not_found").await;
    assert!(frame.contains("data: {\"error\""));
}

#[tokio::test]
async fn a_remote_that_falls_silent_in_mid_stream_is_reported_and_not_waited_for_forever() {
    let begun = [STREAM_HEAD.as_bytes(), &word("one")].concat();
    let upstream = Upstream::start(vec![Act::Write(begun), Act::Hold]).await;
    let mut config = config(upstream.addr);
    config.timeouts.idle = Duration::from_millis(50);
    let proxy = serve(config).await.unwrap();
    let answer = ask(proxy.addr(), post("/v1/chat/completions", CHAT_STREAM)).await;
    let error = json(answer.events().last().unwrap());
    assert!(error["error"]["message"].as_str().unwrap().contains("timeouts.idle"), "{error}");
    upstream.until(|seen| seen.left).await;
}

#[tokio::test]
async fn a_remote_that_does_not_end_after_its_last_line_holds_no_client() {
    let whole = [STREAM_HEAD.as_bytes(), &word("one"), &last()].concat();
    let upstream = Upstream::start(vec![Act::Write(whole), Act::Hold]).await;
    let proxy = proxy(upstream.addr).await;
    let answer = ask(proxy.addr(), post("/v1/chat/completions", CHAT_STREAM)).await;
    assert!(answer.whole && answer.events().last().unwrap() == "[DONE]");
}

#[tokio::test]
async fn the_connection_to_the_remote_is_used_again_after_a_stream() {
    let upstream = Upstream::answering(stream(&[word("one"), last()])).await;
    let proxy = proxy(upstream.addr).await;
    for _ in 0..3 {
        ask(proxy.addr(), post("/v1/chat/completions", CHAT_STREAM)).await;
    }
    assert_eq!(upstream.seen().len(), 1);
}
