//! A harness that cannot fail proves nothing: servers that break each promise, byte by byte, and what is found.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{sync::Arc, time::Duration};

use farllama_check::{
    backend::{Backend, Standing},
    call,
    report::{ScenarioResult, Verdict},
    run::{self, Plan},
    scenario::{
        load::{self, Loaded},
        variables::Variables,
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

const FIRST: &str = r#"{"id":"1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":"Hi"},"finish_reason":null}]}"#;
const LAST: &str = r#"{"id":"1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;

const STREAMED: &str = "\
title: a streamed answer
steps:
  - call: { chat: { model: m, stream: true, messages: [] } }
    expect: { \"$.choices[0].message.content\": Hi }
";

/// Runs a scenario against a server that answers every connection with these bytes, and then closes it.
async fn against(scenario: &str, answer: impl Into<Vec<u8>>) -> ScenarioResult {
    let answer = answer.into();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut request = vec![0; 64 << 10];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(&answer).await;
                let _ = stream.shutdown().await;
            });
        }
    });
    let openai = format!("{url}/v1");
    let backend = Standing { name: "a server".to_owned(), url, openai, journal: None };
    let plan = Plan {
        backend: Arc::new(Backend::Standing(backend)),
        http: call::http().unwrap(),
        variables: Variables::new("m", "hi", "be brief"),
        timeout: Duration::from_secs(10),
        jobs: 1,
        strict: false,
    };
    let scenario = load::read("x.yaml", scenario).unwrap();
    run::one(&Loaded { file: "x.yaml".to_owned(), scenario }, &plan).await
}

fn sse(events: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n{events}")
}

fn json(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[track_caller]
fn assert_found(result: &ScenarioResult, words: &str) {
    assert_eq!(result.verdict, Verdict::Failed, "{result:#?}");
    let told: Vec<_> = result.steps.iter().flat_map(|step| &step.findings).collect();
    let found = told.iter().any(|finding| {
        format!("{}: expected {}, actual {}", finding.about, finding.expected, finding.actual).contains(words)
    });
    assert!(found, "no {words:?} in {told:#?}");
}

#[tokio::test]
async fn a_proper_stream_passes() {
    let result = against(STREAMED, sse(&format!("data: {FIRST}\n\ndata: {LAST}\n\ndata: [DONE]\n\n"))).await;
    assert_eq!(result.verdict, Verdict::Passed, "{result:#?}");
}

#[tokio::test]
async fn what_the_client_hides_is_found_in_the_bytes() {
    for (events, words) in [
        (format!("data: {FIRST}\n\ndata: {LAST}\n\n"), "just stops"),
        (format!("data: {FIRST}\n\ndata: {LAST}\n\ndata: [DONE]\n\ndata: {LAST}\n\n"), "nothing follows [DONE]"),
        (format!("data: {FIRST}\n\ndata: {LAST}\n\ndata: [DONE]\n\ndata: [DONE]\n\n"), "2 times"),
        (format!("data: {FIRST}\r\n\r\ndata: {LAST}\r\n\r\ndata: [DONE]\r\n\r\n"), "carriage return"),
        (format!("data: {FIRST}\n\ndata: [DONE]\n\n"), "choice 0 has none"),
        (format!("data: {FIRST}\n\ndata: {LAST}\n\ndata: [DONE]\n"), "blank line"),
    ] {
        assert_found(&against(STREAMED, sse(&events)).await, words);
    }
}

#[tokio::test]
async fn an_error_that_nobody_expects_is_found_even_where_the_words_are_right() {
    let events = format!("data: {FIRST}\n\ndata: {{\"error\":{{\"message\":\"out of luck\"}}}}\n\n");
    let result = against(STREAMED, sse(&events)).await;
    assert_found(&result, "call: expected an answer, actual an error: 200: out of luck");
    let with_status = format!("{STREAMED}    wire: {{ status: 200 }}\n");
    assert_found(&against(&with_status, sse(&events)).await, "out of luck");
    let expected = STREAMED.replace("Hi }", "Hi, $.error.message: out of luck }");
    assert_eq!(against(&expected, sse(&events)).await.verdict, Verdict::Passed);
}

#[tokio::test]
async fn a_document_that_the_clients_types_refuse_is_found() {
    let scenario = "title: a chat\nsteps:\n  - call: { chat: { model: m, messages: [] } }\n    wire: { status: 200 }\n";
    let result = against(scenario, json("200 OK", r#"{"id":"1","object":"chat.completion"}"#)).await;
    assert_found(&result, "the client cannot read this");
    let negative = FIRST.replace("\"created\":1", "\"created\":-1");
    let result = against(STREAMED, sse(&format!("data: {negative}\n\ndata: {LAST}\n\ndata: [DONE]\n\n"))).await;
    assert_found(&result, "the client cannot read this");
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_found() {
    let whole = format!("data: {FIRST}\n\ndata: {LAST}\n\ndata: [DONE]\n\n");
    let cut = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: {}\r\n\r\n{whole}",
        whole.len() + 1
    );
    assert_found(&against(STREAMED, cut).await, "wire.end: expected complete, actual cut");
}

#[tokio::test]
async fn a_status_that_nobody_expects_is_found() {
    let scenario = "title: tags\nsteps:\n  - call: { http: { path: /api/tags } }\n    expect: { $.ok: true }\n";
    assert_found(&against(scenario, json("500 Oops", r#"{"ok":true}"#)).await, "wire.status: expected 2xx, actual 500");
    assert_eq!(against(scenario, json("200 OK", r#"{"ok":true}"#)).await.verdict, Verdict::Passed);
}

#[tokio::test]
async fn the_body_of_a_5xx_is_legible_and_asked_for_once() {
    let scenario = "title: a chat\nsteps:\n  - call: { chat: { model: m, messages: [] } }\n    expect: { $.error.status: 503, $.error.code: busy, $.error.message: later }\n    wire: { headers: { retry-after: '9999' } }\n";
    let body = r#"{"error":{"message":"later","type":"server_error","param":null,"code":"busy"}}"#;
    let answer = json("503 Busy", body).replace("Content-Type", "Retry-After: 9999\r\nContent-Type");
    let result = against(scenario, answer).await;
    assert_eq!(result.verdict, Verdict::Passed, "{result:#?}");
}

#[tokio::test]
async fn a_stream_that_is_no_event_stream_is_found() {
    // The client sees an empty stream and no error.
    assert_found(&against(STREAMED, json("200 OK", FIRST)).await, "$.choices[0].message.content");
}
