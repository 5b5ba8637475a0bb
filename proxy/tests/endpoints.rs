//! The smaller endpoints of the OpenAI lane, over real sockets: what reaches Ollama, and what comes back.

use crate::support::{self, Upstream, ask, post, proxy, raw_response};
use serde_json::{Value, json};

/// An upstream that answers everything with `body`.
async fn answering(body: &str) -> Upstream {
    Upstream::answering(raw_response("200 OK", "Content-Type: application/json\r\n", body)).await
}

/// The JSON of the first request that an upstream got.
fn asked(upstream: &Upstream) -> Value {
    let text = upstream.seen()[0].text();
    serde_json::from_str(text.split_once("\r\n\r\n").unwrap().1).unwrap()
}

#[tokio::test]
async fn floats_pass_with_every_digit_that_ollama_wrote() {
    let upstream = answering(r#"{"model":"m","embeddings":[[0.10000000000000000001,1.50,-2e-09]]}"#).await;
    let proxy = proxy(upstream.addr).await;
    let answer = ask(proxy.addr(), post("/v1/embeddings", r#"{"model":"m","input":"a"}"#)).await;
    assert!(answer.text().contains("[0.10000000000000000001,1.50,-2e-09]"), "{}", answer.text());
    assert_eq!(asked(&upstream), json!({"model": "m", "input": ["a"], "truncate": false}));
}

#[tokio::test]
async fn two_thousand_and_forty_eight_inputs_are_one_ask_and_one_more_is_refused() {
    let vectors = vec!["[1,2]"; 2048].join(",");
    let upstream = answering(&format!(r#"{{"model":"m","embeddings":[{vectors}],"prompt_eval_count":4096}}"#)).await;
    let proxy = proxy(upstream.addr).await;
    let most = json!({"model": "m", "input": vec!["a"; 2048], "encoding_format": "base64"}).to_string();
    let answer = ask(proxy.addr(), post("/v1/embeddings", &most)).await.json();
    let data = answer["data"].as_array().unwrap();
    assert_eq!(
        (data.len(), &data[2047]["index"], &data[2047]["embedding"]),
        (2048, &json!(2047), &json!("AACAPwAAAEA="))
    );
    assert_eq!(answer["usage"], json!({"prompt_tokens": 4096, "total_tokens": 4096}));
    let more = json!({"model": "m", "input": vec!["a"; 2049]}).to_string();
    let answer = ask(proxy.addr(), post("/v1/embeddings", &more)).await;
    assert_eq!((answer.code(), &answer.json()["error"]["param"]), (400, &json!("input")));
}

#[tokio::test]
async fn too_few_vectors_are_no_answer() {
    let upstream = answering(r#"{"model":"m","embeddings":[[1]]}"#).await;
    let proxy = proxy(upstream.addr).await;
    let answer = ask(proxy.addr(), post("/v1/embeddings", r#"{"model":"m","input":["a","b"]}"#)).await;
    assert_eq!(answer.code(), 502, "{}", answer.text());
    assert!(answer.message().contains("1 vectors for 2 inputs"));
}

#[tokio::test]
async fn a_model_that_cannot_embed_is_a_fault_that_no_client_retries() {
    let reported = r#"{"error":"This server does not support embeddings. Start it with `--embeddings`"}"#;
    let response = raw_response("501 Not Implemented", "Content-Type: application/json\r\n", reported);
    let proxy = proxy(Upstream::answering(response).await.addr).await;
    let answer = ask(proxy.addr(), post("/v1/embeddings", r#"{"model":"m","input":"a"}"#)).await;
    assert_eq!((answer.code(), &answer.json()["error"]["param"]), (400, &json!("model")));
}

#[tokio::test]
async fn several_completions_are_several_asks_and_one_answer_or_one_stream() {
    let reply =
        r#"{"model":"m","response":" b","done":true,"done_reason":"stop","prompt_eval_count":2,"eval_count":1}"#;
    let upstream = answering(&format!("{reply}\n")).await;
    let proxy = proxy(upstream.addr).await;
    let mut request = json!({"model": "m", "prompt": ["One", "Two"], "n": 2, "echo": true});
    let whole = ask(proxy.addr(), post("/v1/completions", &request.to_string())).await.json();
    let texts: Vec<_> = whole["choices"].as_array().unwrap().iter().map(|choice| &choice["text"]).collect();
    assert_eq!(texts, ["One b", "One b", "Two b", "Two b"]);
    assert_eq!((&whole["usage"]["prompt_tokens"], &whole["usage"]["completion_tokens"]), (&json!(8), &json!(4)));

    request["stream"] = true.into();
    let events = ask(proxy.addr(), post("/v1/completions", &request.to_string())).await.events();
    assert_eq!(events.last().unwrap(), "[DONE]");
    let mut texts = [const { String::new() }; 4];
    for event in &events[..events.len() - 1] {
        let choice = &serde_json::from_str::<Value>(event).unwrap()["choices"][0];
        texts[usize::try_from(choice["index"].as_u64().unwrap()).unwrap()].push_str(choice["text"].as_str().unwrap());
    }
    assert_eq!(texts, ["One b", "One b", "Two b", "Two b"]);
}

#[tokio::test]
async fn a_completion_that_is_too_long_names_the_prompt() {
    let reported = r#"{"error":"the input length exceeds the context length"}"#;
    let response = raw_response("400 Bad Request", "Content-Type: application/json\r\n", reported);
    let proxy = proxy(Upstream::answering(response).await.addr).await;
    for stream in [false, true] {
        let request = json!({"model": "m", "prompt": "a", "stream": stream}).to_string();
        let answer = ask(proxy.addr(), post("/v1/completions", &request)).await;
        let error = answer.json()["error"].clone();
        assert_eq!(
            (answer.code(), &error["code"], &error["param"]),
            (400, &json!("context_length_exceeded"), &json!("prompt"))
        );
    }
}

/// A form as a client library writes it.
fn form(path: &str, parts: &[(&str, &str)]) -> Vec<u8> {
    let mut body = String::new();
    for (name, value) in parts {
        let file = if name.starts_with("file") { "; filename=\"a.wav\"" } else { "" };
        body.push_str(&format!("--b0\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n{value}\r\n"));
    }
    body.push_str("--b0--\r\n");
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b0\r\nContent-Length: {length}\r\n\r\n{body}")
        .into_bytes()
}

#[tokio::test]
async fn a_recording_in_a_form_is_heard_by_a_model_that_can() {
    // One answer that both asks can be content with: what the model can do, and what it says.
    let reply = r#"{"capabilities":["audio"],"message":{"role":"assistant","content":" Good morning.\n"},"done":true,"prompt_eval_count":9,"eval_count":3}"#;
    let upstream = answering(reply).await;
    let proxy = proxy(upstream.addr).await;
    // More than axum's own limit of 2 MB.
    let sound = "x".repeat(3 << 20);
    let parts = [("model", "m"), ("file", &*sound), ("language", "en"), ("prompt", "names: Ada")];
    let answer = ask(proxy.addr(), form("/v1/audio/transcriptions", &parts)).await.json();
    let usage = json!({"type": "tokens", "input_tokens": 9, "output_tokens": 3, "total_tokens": 12});
    assert_eq!(answer, json!({"text": "Good morning.", "usage": usage}));
    let all: String = upstream.seen().iter().map(support::Seen::text).collect();
    assert!(all.contains("eHh4eHh4") && all.contains("The language is en") && all.contains("names: Ada"));
}

#[tokio::test]
async fn half_a_transcript_is_refused_unless_the_client_wants_no_more() {
    let reply = r#"{"capabilities":["audio"],"message":{"role":"assistant","content":"Good"},"done":true,"done_reason":"length"}"#;
    let upstream = answering(reply).await;
    let proxy = proxy(upstream.addr).await;
    let parts = [("model", "m"), ("file", "x")];
    let cut = ask(proxy.addr(), form("/v1/audio/transcriptions", &parts)).await;
    assert_eq!((cut.code(), &cut.json()["error"]["code"]), (400, &json!("context_length_exceeded")));
    assert!(cut.message().contains("num_ctx"), "{}", cut.message());
    let limited = [&parts[..], &[("num_predict", "1")]].concat();
    let answer = ask(proxy.addr(), form("/v1/audio/transcriptions", &limited)).await;
    assert_eq!(answer.json()["text"], "Good");
    let all: String = upstream.seen().iter().map(support::Seen::text).collect();
    assert!(all.contains("\"num_predict\":-1") && all.contains("\"num_predict\":1"), "{all}");
}

#[tokio::test]
async fn a_form_that_is_broken_or_empty_is_refused() {
    let proxy = proxy("127.0.0.1:9".parse().unwrap()).await;
    let path = "/v1/audio/transcriptions";
    let asks: [(&[(&str, &str)], &str); 4] = [
        (&[("model", "m"), ("file", "")], "file"),
        (&[("model", "m")], "file"),
        (&[("file", "x")], "model"),
        (&[("model", "m"), ("file", "x"), ("timestamp_granularities[]", "word")], "timestamp_granularities"),
    ];
    for (parts, param) in asks {
        let answer = ask(proxy.addr(), form(path, parts)).await;
        assert_eq!((answer.code(), &answer.json()["error"]["param"]), (400, &json!(param)));
    }
    let cut = String::from_utf8(form(path, &[("model", "m")])).unwrap().replace("--b0--", "------");
    assert!(ask(proxy.addr(), cut).await.message().contains("multipart/form-data"));
}

#[tokio::test]
async fn large_chats_and_responses_are_stored() {
    let upstream =
        answering(r#"{"message":{"role":"assistant","content":"yes"},"done":true,"done_reason":"stop"}"#).await;
    let proxy = proxy(upstream.addr).await;
    // Large enough to be worked on off the event loop, in each step.
    let text = "a long story ".repeat(40_000);
    let chat = json!({"model": "m", "store": true, "messages": [{"role": "user", "content": text}]});
    let response = json!({"model": "m", "store": true, "input": text});
    for (path, body) in [("/v1/chat/completions", chat), ("/v1/responses", response)] {
        let answer = ask(proxy.addr(), post(path, &body.to_string())).await;
        assert_eq!(answer.code(), 200, "{path}: {}", answer.text());
        let id = answer.json()["id"].as_str().unwrap().to_owned();
        let stored = ask(proxy.addr(), format!("GET {path}/{id} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
        assert_eq!(stored.json()["id"], json!(id), "{path}");
    }
}
