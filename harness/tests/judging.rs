//! A harness that cannot fail proves nothing: servers that break each promise, byte by byte, and what is found.

use std::{sync::Arc, time::Duration};

use farllama_check::{
    backend::{Backend, Capabilities, Standing},
    check::load,
    expect::laws::Laws,
    net,
    report::{ScenarioResult, Verdict},
    run::{self, Plan},
    scenario::{loaded::Loaded, variables::Variables},
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
    against_server(scenario, move |_, _| answer.clone()).await
}

/// Runs a scenario against a server that answers each connection by its number and its request, and then closes it.
async fn against_server(
    scenario: &str,
    answer: impl Fn(usize, &str) -> Vec<u8> + Clone + Send + 'static,
) -> ScenarioResult {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        for nth in 0.. {
            let Ok((mut stream, _)) = listener.accept().await else { return };
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut request = vec![0; 64 << 10];
                let read = stream.read(&mut request).await.unwrap_or(0);
                let answer = answer(nth, &String::from_utf8_lossy(&request[..read]));
                let _ = stream.write_all(&answer).await;
                let _ = stream.shutdown().await;
            });
        }
    });
    let openai = format!("{url}/v1");
    let backend = Standing { name: "a server".to_owned(), url, openai, journal: None };
    let plan = Plan {
        backend: Arc::new(Backend::Standing(backend)),
        http: net::client().unwrap(),
        variables: Variables::new("m", "hi", "be brief"),
        given: std::collections::BTreeMap::new(),
        timeout: Duration::from_secs(10),
        jobs: 1,
        strict: false,
        fail_fast: false,
        laws: Laws::default(),
        capabilities: Capabilities::default(),
    };
    let scenario = load::read("x.yaml", scenario).unwrap();
    Box::pin(run::one(&Loaded::new("x.yaml".to_owned(), scenario), &plan)).await
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
    let reported: Vec<_> = result.steps.iter().flat_map(|step| &step.findings).collect();
    let found = reported.iter().any(|finding| {
        format!("{}: expected {}, actual {}", finding.about, finding.expected, finding.actual).contains(words)
    });
    assert!(found, "no {words:?} in {reported:#?}");
}

#[tokio::test]
async fn a_proper_stream_passes() {
    let result = against(STREAMED, sse(&format!("data: {FIRST}\n\ndata: {LAST}\n\ndata: [DONE]\n\n"))).await;
    assert_eq!(result.verdict, Verdict::Passed, "{result:#?}");
}

#[tokio::test]
async fn what_the_client_hides_is_found_in_the_bytes() {
    for (events, words) in [
        (
            format!("data: {FIRST}\n\ndata: {LAST}\n\n"),
            "a stream of chunks ends with [DONE] or an error, actual closed after 2 events",
        ),
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
async fn an_error_that_no_step_expects_is_found_even_where_the_words_are_right() {
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
async fn a_status_that_no_step_expects_is_found() {
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

const MODELS: &str = r#"{"object":"list","data":[]}"#;

/// Refuses the first `refusals` connections.
fn refusing(refusals: usize) -> impl Fn(usize, &str) -> Vec<u8> + Clone {
    move |nth, _| {
        let refused =
            json("429 Too Many", r#"{"error":{"message":"later","type":"requests","param":null,"code":null}}"#);
        let answer = if nth < refusals {
            refused.replace("Content-Type", "Retry-After: 1\r\nContent-Type")
        } else {
            json("200 OK", MODELS)
        };
        answer.replace("Content-Type", "Connection: close\r\nContent-Type").into_bytes()
    }
}

#[tokio::test]
async fn several_calls_at_once_are_counted_by_status_and_each_is_judged() {
    let burst =
        |answers: &str| format!("title: a burst\nsteps:\n  - call: models\n    times: 5\n    answers: {answers}\n");
    let right =
        "{ 200: 3, 429: { count: 2, expect: { $.error.message: later }, wire: { headers: { retry-after: '1' } } } }";
    let result = against_server(&burst(right), refusing(2)).await;
    assert_eq!(result.verdict, Verdict::Passed, "{result:#?}");
    for (answers, words) in [
        ("{ 200: 2, 429: 3 }", "answers.200: expected 2, actual 3"),
        ("{ 200: 2, 429: 3 }", "answers.429: expected 3, actual 2"),
        ("{ 200: {} }", "answers: expected no other status, actual 2 with 429"),
        ("{ 200: {}, 429: {}, 500: {} }", "answers.500: expected at least 1, actual 0"),
        ("{ 200: {}, 429: { wire: { headers: { retry-after: '2' } } } }", "wire.headers retry-after: expected \"2\""),
        ("{ 200: { expect: { $.object: lost } }, 429: {} }", "$.object: expected \"lost\""),
    ] {
        assert_found(&against_server(&burst(answers), refusing(2)).await, words);
    }
    // Without a word about statuses each answer must be a good one.
    let plain = "title: a burst\nsteps:\n  - call: models\n    times: 3\n    expect: { $.object: list }\n";
    assert_found(&against_server(plain, refusing(1)).await, "an error: 429: later");
    assert_eq!(against_server(plain, refusing(0)).await.verdict, Verdict::Passed);
}

#[tokio::test]
async fn different_calls_at_once_are_judged_each_by_its_own() {
    let path = |_: usize, request: &str| {
        let path = request.split(' ').nth(1).unwrap_or_default();
        json("200 OK", &format!("{{\"path\":{path:?}}}")).into_bytes()
    };
    let scenario = |one: &str| {
        format!(
            "title: two\nsteps:\n  - parallel:\n      - {{ call: {{ http: {{ path: /a }} }}, expect: {{ $.path: /a }} }}\n      - {{ name: the other, call: {{ http: {{ path: /b }} }}, expect: {{ $.path: {one} }} }}\n"
        )
    };
    assert_eq!(against_server(&scenario("/b"), path).await.verdict, Verdict::Passed);
    let result = against_server(&scenario("/c"), path).await;
    assert_found(&result, "$.path: expected \"/c\", actual \"/b\"");
    let names: Vec<_> = result.steps.iter().map(|step| &*step.name).collect();
    assert_eq!(names, ["step 1", "step 1: the other", "step 1, as a whole"]);
}

#[tokio::test]
async fn a_client_that_tries_again_is_recognized_by_its_attempts() {
    let scenario = |client: &str, expected: &str| {
        format!("title: again\nclient: {client}\nsteps:\n  - call: models\n    {expected}\n")
    };
    let patient = scenario("{ retries: default }", "wire: { status: 200, attempts: 3 }");
    let result = against_server(&patient, refusing(2)).await;
    assert_eq!(result.verdict, Verdict::Passed, "{result:#?}");
    assert_found(&against_server(&patient, refusing(1)).await, "wire.attempts: expected 3, actual 2");
    assert_found(&against_server(&patient, refusing(99)).await, "wire.status: expected 200, actual 429");
    let once = scenario("{}", "wire: { status: 429, attempts: 1 }");
    assert_eq!(against_server(&once, refusing(1)).await.verdict, Verdict::Passed);
    let twice = scenario("{ retries: 1 }", "wire: { status: 429, attempts: 2 }");
    assert_eq!(against_server(&twice, refusing(9)).await.verdict, Verdict::Passed);
}

#[tokio::test]
async fn the_key_goes_where_the_scenario_says_and_nowhere_else() {
    // Says which headers with keys came.
    let echo = |_: usize, request: &str| {
        let lines =
            request.lines().filter(|line| line.contains("-key") || line.to_lowercase().starts_with("authorization"));
        let reported = lines.map(str::to_lowercase).collect::<Vec<_>>().join("|");
        json(
            "200 OK",
            &format!(
                r#"{{"object":"list","data":[{{"id":"{reported}","object":"model","created":0,"owned_by":"x"}}]}}"#
            ),
        )
        .into_bytes()
    };
    for (general, own, sent) in [
        ("{}", "{}", "authorization: bearer farllama-check"),
        ("{ key: blue-key }", "{}", "authorization: bearer blue-key"),
        ("{ key: blue-key }", "{ key: red-key }", "authorization: bearer red-key"),
        ("{ key: blue-key }", "{ header: x-api-key }", "x-api-key: blue-key"),
        ("{ key: blue-key }", "{ key: false }", ""),
    ] {
        let scenario = format!(
            "title: a key\nclient: {general}\nsteps:\n  - call: models\n    client: {own}\n    expect: {{ \"$.data[0].id\": \"{sent}\" }}\n"
        );
        let result = against_server(&scenario, echo).await;
        assert_eq!(result.verdict, Verdict::Passed, "{result:#?}");
    }
}
