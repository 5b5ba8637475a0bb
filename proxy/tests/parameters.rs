//! What becomes of each of OpenAI's request fields, as the remote and the client see it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use farllama::serve;
use mock_ollama::{Mock, Script};
use serde_json::{Value, json};
use support::{ask, config, post};

/// What must be seen of a field.
enum Seen {
    /// The remote is asked differently for each of these values.
    Mapped(Vec<Value>),
    /// The answer differs for each of these values.
    Answered(Vec<Value>),
    /// 400 for this value, naming the field.
    Refused(Value),
    /// It stands in the receipt.
    NoEffect(Value),
}

const TOOLS: &str = r#"[{"type":"function","function":{"name":"f","parameters":{"type":"object","properties":{"a":{"type":"string"}}}}},{"type":"function","function":{"name":"g"}}]"#;

/// A field without a line here fails the test.
fn seen(field: &str) -> Seen {
    use Seen::{Answered, Mapped, NoEffect, Refused};
    let two = |a: Value, b: Value| Mapped(vec![a, b]);
    match field {
        "model" => two(json!("agent"), json!("gpt-oss:20b")),
        "messages" => two(json!([{"role": "user", "content": "a"}]), json!([{"role": "user", "content": "b"}])),
        "temperature" | "top_p" | "frequency_penalty" | "presence_penalty" => two(json!(0.25), json!(0.5)),
        "max_tokens" | "max_completion_tokens" | "seed" => two(json!(3), json!(4)),
        "stop" => two(json!("x"), json!(["y", "z"])),
        "logprobs" | "stream" => two(json!(false), json!(true)),
        "top_logprobs" => two(json!(1), json!(2)),
        "reasoning_effort" => Mapped(["none", "low", "medium", "high", "max"].map(Value::from).to_vec()),
        "response_format" => two(
            json!({"type": "json_object"}),
            json!({"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}),
        ),
        "tools" => two(json!([]), serde_json::from_str(TOOLS).unwrap()),
        "stream_options" => Answered(vec![json!({"include_usage": true}), json!({"include_usage": false})]),
        "tool_choice" => Mapped(vec![
            json!("auto"),
            json!("none"),
            json!("required"),
            json!({"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "g"}}]}}),
        ]),
        "parallel_tool_calls" => Answered(vec![json!(true), json!(false)]),
        "n" => Answered(vec![json!(1), json!(2)]),
        "audio" => Refused(json!({"voice": "alloy", "format": "mp3"})),
        "modalities" => Refused(json!(["text", "audio"])),
        "logit_bias" => Refused(json!({"50256": -100})),
        "functions" => Refused(json!([{"name": "f"}])),
        "function_call" => Refused(json!({"name": "f"})),
        "metadata" => NoEffect(json!({"a": "b"})),
        "store" => NoEffect(json!(true)),
        "service_tier" => NoEffect(json!("flex")),
        "verbosity" => NoEffect(json!("low")),
        "prompt_cache_retention" => NoEffect(json!("24h")),
        "moderation" | "prediction" | "prompt_cache_options" | "web_search_options" => {
            NoEffect(json!({"type": "content", "content": "x"}))
        }
        "user" | "safety_identifier" | "prompt_cache_key" => NoEffect(json!("u1")),
        other => panic!("{other} has no line in this test"),
    }
}

fn body(field: &str, value: Value) -> String {
    let mut body = json!({"model": "agent", "messages": [{"role": "user", "content": "hi"}]});
    match field {
        "tool_choice" => body["tools"] = serde_json::from_str(TOOLS).unwrap(),
        "parallel_tool_calls" => {
            body["model"] = "pair:135m".into();
            body["tools"] = serde_json::from_str(TOOLS).unwrap();
        }
        "top_logprobs" => body["logprobs"] = true.into(),
        "stream_options" => body["stream"] = true.into(),
        "reasoning_effort" => body["model"] = "gpt-oss:20b".into(),
        _ => {}
    }
    body[field] = value;
    body.to_string()
}

#[tokio::test]
async fn every_field_is_mapped_emulated_refused_or_in_the_receipt() {
    let mock = Mock::start(Script::default()).await.unwrap();
    let proxy = serve(config(mock.addr())).await.unwrap();
    let mut strict = config(mock.addr());
    strict.openai.strict = true;
    let strict = serve(strict).await.unwrap();
    let chat = |field: &'static str, value: &Value| post("/v1/chat/completions", &body(field, value.clone()));
    for field in include_str!("../src/openai/chat/fields.txt").lines() {
        match seen(field) {
            Seen::Mapped(values) => {
                let mut asked = Vec::new();
                for value in values {
                    let before = mock.journal().entries().len();
                    let answer = ask(proxy.addr(), chat(field, &value)).await;
                    assert_eq!(answer.code(), 200, "{field}: {}", answer.text());
                    let entry = mock.journal().entries()[before..].iter().find_map(mock_ollama::Entry::json).unwrap();
                    assert!(!asked.contains(&entry), "{field}: {value} changes nothing: {entry}");
                    asked.push(entry);
                }
            }
            Seen::Answered(values) => {
                let mut answers = Vec::new();
                for value in values {
                    let answer = ask(proxy.addr(), chat(field, &value)).await;
                    assert_eq!(answer.code(), 200, "{field}: {}", answer.text());
                    answers.push((
                        answer.events().len(),
                        answer.text().matches("\"call_").count(),
                        answer.text().matches("\"index\":").count(),
                    ));
                }
                assert_ne!(answers[0], answers[1], "{field}");
            }
            Seen::Refused(value) => {
                let before = mock.journal().entries().len();
                let answer = ask(proxy.addr(), chat(field, &value)).await;
                assert_eq!(
                    (answer.code(), answer.json()["error"]["param"].as_str()),
                    (400, Some(field)),
                    "{}",
                    answer.text()
                );
                assert_eq!(mock.journal().entries().len(), before, "{field} is refused before the remote is asked");
            }
            Seen::NoEffect(value) => {
                let answer = ask(proxy.addr(), chat(field, &value)).await;
                let line = format!("{field}=no-effect");
                assert_eq!((answer.code(), answer.header("x-farllama-receipt")), (200, Some(&*line)), "{field}");
                let answer = ask(strict.addr(), chat(field, &value)).await;
                let error = &answer.json()["error"];
                assert_eq!((answer.code(), &error["code"]), (400, &json!("unsupported_parameter")), "{field}");
                assert_eq!(error["param"], field);
            }
        }
    }
}

#[tokio::test]
async fn what_asks_for_nothing_is_never_refused_even_by_a_strict_proxy() {
    let mock = Mock::start(Script::default()).await.unwrap();
    let mut strict = config(mock.addr());
    strict.openai.strict = true;
    let proxy = serve(strict).await.unwrap();
    let mut body = json!({"model": "agent", "messages": [{"role": "user", "content": "hi"}],
        "logit_bias": {}, "n": 1, "parallel_tool_calls": true, "modalities": ["text"], "service_tier": "auto", "store": false,
        "functions": [], "tools": [], "metadata": {}, "user": "", "verbosity": "medium", "stop": null});
    for field in include_str!("../src/openai/chat/fields.txt").lines() {
        if body.get(field).is_none() {
            body[field] = Value::Null;
        }
    }
    let answer = ask(proxy.addr(), post("/v1/chat/completions", &body.to_string())).await;
    assert_eq!((answer.code(), answer.header("x-farllama-receipt")), (200, None), "{}", answer.text());
}
