//! What becomes of each request field of OpenAI's and Anthropic's, as the remote and the client see it.

use crate::support::{ask, config, post};
use farllama::serve;
use mock_ollama::{Mock, Options, Script};
use serde_json::{Value, json};

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
    /// The answer can be fetched afterwards.
    Stored(Value),
    /// The remote gets the request and the answer of an earlier response, named by its id.
    GoesOn,
    /// The remote gets the items of a conversation, named by its id.
    Joins,
}

use Seen::{Answered, GoesOn, Joins, Mapped, NoEffect, Refused, Stored};

const TOOLS: &str = r#"[{"type":"function","function":{"name":"f","parameters":{"type":"object","properties":{"a":{"type":"string"}}}}},{"type":"function","function":{"name":"g"}}]"#;

/// The same, as responses write them.
const FLAT: &str = r#"[{"type":"function","name":"f","parameters":{"type":"object","properties":{"a":{"type":"string"}}}},{"type":"function","name":"g"}]"#;

/// The same, as messages write them.
const MESSAGES: &str = r#"[{"name":"f","input_schema":{"type":"object","properties":{"a":{"type":"string"}}}},{"name":"g","input_schema":{"type":"object"}}]"#;

/// One endpoint, and a request to it that lacks nothing.
struct Endpoint {
    path: &'static str,
    fields: &'static str,
    base: Value,
    seen: fn(&str) -> Seen,
}

fn endpoints() -> [Endpoint; 9] {
    let hi = json!([{"role": "user", "content": "hi"}]);
    let endpoint = |path, fields, base, seen| Endpoint { path, fields, base, seen };
    [
        endpoint(
            "/v1/chat/completions",
            include_str!("../src/openai/chat/fields.txt"),
            json!({"model": "agent", "messages": hi}),
            chat,
        ),
        endpoint(
            "/v1/completions",
            include_str!("../src/openai/completions/fields.txt"),
            json!({"model": "filler:135m", "prompt": "hi"}),
            completions,
        ),
        endpoint(
            "/v1/embeddings",
            include_str!("../src/openai/embeddings/fields.txt"),
            json!({"model": "all-minilm", "input": "hi"}),
            embeddings,
        ),
        endpoint(
            "/v1/moderations",
            include_str!("../src/openai/moderations/fields.txt"),
            json!({"model": "llama-guard3:8b", "input": "hi"}),
            moderations,
        ),
        endpoint(
            "/v1/images/generations",
            include_str!("../src/openai/images/fields.txt"),
            json!({"model": "flux", "prompt": "a cat"}),
            images,
        ),
        endpoint(
            "/v1/audio/transcriptions",
            include_str!("../src/openai/audio/transcriptions.txt"),
            json!({"model": "gemma4:e4b", "file": "UklGRg=="}),
            audio,
        ),
        endpoint(
            "/v1/audio/translations",
            include_str!("../src/openai/audio/translations.txt"),
            json!({"model": "gemma4:e4b", "file": "UklGRg=="}),
            audio,
        ),
        endpoint(
            "/v1/responses",
            include_str!("../src/openai/responses/fields.txt"),
            json!({"model": "agent", "input": "hi"}),
            responses,
        ),
        endpoint(
            "/v1/messages",
            include_str!("../src/anthropic/fields.txt"),
            json!({"model": "agent", "max_tokens": 9, "messages": hi}),
            messages,
        ),
    ]
}

fn two(a: Value, b: Value) -> Seen {
    Mapped(vec![a, b])
}

/// What steers a generation, at all endpoints that have it. A field without a line fails the test.
fn sampling(field: &str) -> Seen {
    match field {
        "temperature" | "top_p" | "frequency_penalty" | "presence_penalty" => two(json!(0.25), json!(0.5)),
        "max_tokens" | "max_completion_tokens" | "seed" => two(json!(3), json!(4)),
        "stop" => two(json!("x"), json!(["y", "z"])),
        "stream" => two(json!(false), json!(true)),
        "stream_options" => Answered(vec![json!({"include_usage": true}), json!({"include_usage": false})]),
        "logit_bias" => Refused(json!({"50256": -100})),
        "n" => Answered(vec![json!(1), json!(2)]),
        "user" | "safety_identifier" => NoEffect(json!("u1")),
        other => panic!("{other} has no line in this test"),
    }
}

fn chat(field: &str) -> Seen {
    match field {
        "model" => two(json!("agent"), json!("gpt-oss:20b")),
        "messages" => two(json!([{"role": "user", "content": "a"}]), json!([{"role": "user", "content": "b"}])),
        "logprobs" => two(json!(false), json!(true)),
        "top_logprobs" => two(json!(1), json!(2)),
        "reasoning_effort" => Mapped(["none", "low", "medium", "high", "max"].map(Value::from).to_vec()),
        "response_format" => two(
            json!({"type": "json_object"}),
            json!({"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}),
        ),
        "tools" => two(json!([]), serde_json::from_str(TOOLS).unwrap()),
        "tool_choice" => Mapped(vec![
            json!("auto"),
            json!("none"),
            json!("required"),
            json!({"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "g"}}]}}),
        ]),
        "parallel_tool_calls" => Answered(vec![json!(true), json!(false)]),
        "audio" => Refused(json!({"voice": "alloy", "format": "mp3"})),
        "modalities" => Refused(json!(["text", "audio"])),
        "functions" => two(json!([]), json!([{"name": "f"}])),
        "function_call" => Mapped(vec![json!("auto"), json!("none"), json!({"name": "f"})]),
        "metadata" => NoEffect(json!({"a": "b"})),
        "store" => Stored(json!(true)),
        "service_tier" => NoEffect(json!("flex")),
        "verbosity" => NoEffect(json!("low")),
        "prompt_cache_retention" => NoEffect(json!("24h")),
        "moderation" | "prediction" | "prompt_cache_options" | "web_search_options" => {
            NoEffect(json!({"type": "content", "content": "x"}))
        }
        "prompt_cache_key" => NoEffect(json!("u1")),
        other => sampling(other),
    }
}

fn completions(field: &str) -> Seen {
    match field {
        "model" => two(json!("filler:135m"), json!("smollm2:135m")),
        "prompt" => two(json!("a"), json!(["b"])),
        "suffix" => two(json!("a"), json!("b")),
        "logprobs" => two(json!(1), json!(2)),
        "best_of" => Refused(json!(2)),
        "echo" => Answered(vec![json!(true), json!(false)]),
        other => sampling(other),
    }
}

fn embeddings(field: &str) -> Seen {
    match field {
        "model" => two(json!("all-minilm"), json!("all-minilm:latest")),
        "input" => two(json!("a"), json!(["a", "b"])),
        "dimensions" => two(json!(2), json!(3)),
        "encoding_format" => Answered(vec![json!("float"), json!("base64")]),
        other => sampling(other),
    }
}

fn moderations(field: &str) -> Seen {
    match field {
        "model" => two(json!("llama-guard3:8b"), json!("smollm2:135m")),
        "input" => two(json!("a"), json!([{"type": "text", "text": "b"}])),
        other => panic!("{other} has no line in this test"),
    }
}

fn images(field: &str) -> Seen {
    match field {
        "model" | "prompt" => two(json!("a"), json!("b")),
        "size" => two(json!("512x256"), json!("256x512")),
        "background" => Refused(json!("transparent")),
        "frame_count" => Refused(json!(2)),
        "output_format" => Refused(json!("webp")),
        "partial_images" => Refused(json!(1)),
        "response_format" => Refused(json!("url")),
        "stream" => Refused(json!(true)),
        "svg" => Refused(json!({"model": "m"})),
        "complexity" | "quality" | "moderation" => NoEffect(json!("low")),
        "style" => NoEffect(json!("vivid")),
        "frame_duration_ms" | "output_compression" => NoEffect(json!(50)),
        other => sampling(other),
    }
}

fn audio(field: &str) -> Seen {
    match field {
        "model" => two(json!("gemma4:e4b"), json!("Gemma4:e4b")),
        "file" => two(json!("UklGRg=="), json!("UklGRgAA")),
        "prompt" | "language" => two(json!("de"), json!("en")),
        "languages" | "keywords" => two(json!(["a"]), json!(["a", "b"])),
        "response_format" => Answered(vec![json!("json"), json!("text")]),
        "include" => Refused(json!(["logprobs"])),
        "timestamp_granularities" => Refused(json!(["word"])),
        "known_speaker_names" | "known_speaker_references" => Refused(json!(["Ada"])),
        "stream" => Refused(json!(true)),
        "chunking_strategy" => NoEffect(json!({"type": "server_vad"})),
        other => sampling(other),
    }
}

fn responses(field: &str) -> Seen {
    match field {
        "input" => two(json!("a"), json!([{"role": "user", "content": "b"}])),
        "instructions" => two(json!("a"), json!("b")),
        "max_output_tokens" => two(json!(3), json!(4)),
        "include" => two(json!([]), json!(["message.output_text.logprobs"])),
        "reasoning" => Mapped(["none", "low", "medium"].map(|effort| json!({"effort": effort})).to_vec()),
        "text" => two(
            json!({"format": {"type": "json_object"}}),
            json!({"format": {"type": "json_schema", "name": "x", "schema": {"type": "object"}}}),
        ),
        "tools" => two(json!([]), serde_json::from_str(FLAT).unwrap()),
        "tool_choice" => Mapped(vec![
            json!("auto"),
            json!("none"),
            json!("required"),
            json!({"type": "function", "name": "g"}),
            json!({"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "g"}]}),
        ]),
        "truncation" => Answered(vec![json!("auto"), json!("disabled")]),
        "stream" | "store" | "background" => Answered(vec![json!(false), json!(true)]),
        "metadata" => Answered(vec![json!({"a": "b"}), json!({"b": "c"})]),
        "max_tool_calls" => Answered(vec![json!(1), json!(2)]),
        "previous_response_id" => GoesOn,
        "conversation" => Joins,
        "prompt" => Refused(json!({"id": "x"})),
        "access_programs" | "background_options" | "image" => NoEffect(json!({"mode": "x"})),
        "context_management" => NoEffect(json!([{"type": "compaction"}])),
        "stream_options" => NoEffect(json!({"include_obfuscation": true})),
        other => chat(other),
    }
}

fn messages(field: &str) -> Seen {
    let format = |name: &str| json!({"type": "json_schema", "schema": {"type": "object", "properties": {name: {"type": "string"}}}});
    match field {
        "max_tokens" | "top_k" => two(json!(3), json!(4)),
        "system" => two(json!("a"), json!([{"type": "text", "text": "b"}])),
        "stop_sequences" => Answered(vec![json!(["no such text"]), json!(["a", "e", "i", "o", "u"])]),
        "stream" => Answered(vec![json!(false), json!(true)]),
        "thinking" => Mapped(vec![
            json!({"type": "disabled"}),
            json!({"type": "adaptive"}),
            json!({"type": "enabled", "budget_tokens": 1024}),
            json!({"type": "enabled", "budget_tokens": 31_999}),
        ]),
        "output_config" => Mapped(vec![json!({}), json!({"effort": "high"}), json!({"format": format("a")})]),
        "output_format" => two(format("a"), format("b")),
        "tools" => two(json!([]), serde_json::from_str(MESSAGES).unwrap()),
        "tool_choice" => Mapped(vec![
            json!({"type": "auto"}),
            json!({"type": "none"}),
            json!({"type": "any"}),
            json!({"type": "tool", "name": "g"}),
        ]),
        "thread" => Refused(json!({"type": "create"})),
        "mcp_servers" => Refused(json!([{"type": "url", "url": "https://mcp.example", "name": "x"}])),
        "service_tier" | "speed" => NoEffect(json!("fast")),
        "metadata" => NoEffect(json!({"user_id": "u1"})),
        "context_management" => NoEffect(json!({"edits": [{"type": "clear_tool_uses_20250919"}]})),
        "billing_policy" | "cache_control" | "compaction" | "diagnostics" => NoEffect(json!({"type": "x"})),
        "container" | "fallback_credit_token" | "fallbacks" | "inference_geo" | "user_profile_id" | "workspace_id" => {
            NoEffect(json!("x"))
        }
        "model" | "messages" => chat(field),
        other => sampling(other),
    }
}

fn body(endpoint: &Endpoint, field: &str, value: Value) -> String {
    let mut body = endpoint.base.clone();
    let tools = match endpoint.path {
        "/v1/responses" => FLAT,
        "/v1/messages" => MESSAGES,
        _ => TOOLS,
    };
    match field {
        "top_logprobs" if endpoint.path == "/v1/responses" => {
            body["include"] = json!(["message.output_text.logprobs"]);
        }
        "function_call" => body["functions"] = json!([{"name": "f"}, {"name": "g"}]),
        "tool_choice" => body["tools"] = serde_json::from_str(tools).unwrap(),
        "parallel_tool_calls" | "max_tool_calls" => {
            body["model"] = "pair:135m".into();
            body["tools"] = serde_json::from_str(tools).unwrap();
        }
        "top_logprobs" => body["logprobs"] = true.into(),
        "stream_options" => body["stream"] = true.into(),
        "reasoning_effort" | "reasoning" | "thinking" => body["model"] = "gpt-oss:20b".into(),
        "output_config" => {
            body["model"] = "gpt-oss:20b".into();
            body["thinking"] = json!({"type": "adaptive"});
        }
        _ => {}
    }
    body[field] = value;
    body.to_string()
}

/// Whether an error names a field: as its `param`, or, in Anthropic's envelope, which has none, in its text.
fn blames(error: &Value, field: &str) -> bool {
    match error.get("param") {
        Some(param) => param == field && error["code"].is_string(),
        None => error["message"].as_str().is_some_and(|message| message.contains(&format!("'{field}'"))),
    }
}

/// A remote that can do all that any version can.
async fn remote() -> Mock {
    let draws = |model| {
        let shown = Script::on("/api/show")
            .model(model)
            .body(json!({"details": {}, "model_info": {}, "capabilities": ["image"]}));
        shown.and(Script::on("/api/generate").model(model).body(json!({"image": "QUJD", "done": true})))
    };
    let options = Options { version: "0.32.5".parse().unwrap(), ..Options::default() };
    let judges = Script::on("/api/chat").model("llama-guard3:8b").says("safe");
    Mock::start_with(options, judges.and(draws("flux")).and(draws("a")).and(draws("b"))).await.unwrap()
}

/// What the remote was asked, from its nth request on.
fn asked(mock: &Mock, from: usize) -> Vec<(String, Option<Value>)> {
    mock.journal().entries()[from..].iter().map(|entry| (entry.target.clone(), entry.json())).collect()
}

#[tokio::test]
async fn every_field_is_mapped_emulated_refused_or_in_the_receipt() {
    let mock = remote().await;
    let proxy = serve(config(mock.addr())).await.unwrap();
    let mut strict = config(mock.addr());
    strict.openai.strict = true;
    let strict = serve(strict).await.unwrap();
    for endpoint in endpoints() {
        for field in endpoint.fields.lines() {
            let at = format!("{field} of {}", endpoint.path);
            let to = |value: &Value| post(endpoint.path, &body(&endpoint, field, value.clone()));
            match (endpoint.seen)(field) {
                Mapped(values) => {
                    let mut all = Vec::new();
                    for value in values {
                        let before = mock.journal().entries().len();
                        let answer = ask(proxy.addr(), to(&value)).await;
                        assert_eq!(answer.code(), 200, "{at}: {}", answer.text());
                        let asked = asked(&mock, before);
                        assert!(!all.contains(&asked), "{at}: {value} changes nothing: {asked:?}");
                        all.push(asked);
                    }
                }
                Answered(values) => {
                    let mut answers = Vec::new();
                    for value in values {
                        let answer = ask(proxy.addr(), to(&value)).await;
                        assert_eq!(answer.code(), 200, "{at}: {}", answer.text());
                        answers.push((
                            answer.events().len(),
                            answer.text().matches("\"call_").count(),
                            answer.text().matches("\"index\":").count() + answer.text().matches("b64_json").count(),
                            answer.text().contains("\"text\":\"hi"),
                            answer.text().contains("\"stop_sequence\":\""),
                            ["\"store\":true", "\"metadata\":{\"a\"", "\"background\":true", "\"truncation\":\"auto\""]
                                .map(|reported| answer.text().contains(reported)),
                            answer.text().contains("\"embedding\":["),
                            answer.header("content-type").map(str::to_owned),
                        ));
                    }
                    assert_ne!(answers[0], answers[1], "{at}");
                }
                Stored(value) => {
                    let id = ask(proxy.addr(), to(&value)).await.json()["id"].as_str().unwrap().to_owned();
                    let path = format!("GET {}/{id} HTTP/1.1\r\nHost: localhost\r\n\r\n", endpoint.path);
                    assert_eq!(ask(proxy.addr(), path).await.code(), 200, "{at}");
                    let id =
                        ask(proxy.addr(), post(endpoint.path, &endpoint.base.to_string())).await.json()["id"].clone();
                    let path =
                        format!("GET {}/{} HTTP/1.1\r\nHost: localhost\r\n\r\n", endpoint.path, id.as_str().unwrap());
                    assert_eq!(ask(proxy.addr(), path).await.code(), 404, "{at}");
                }
                GoesOn => {
                    let first = ask(proxy.addr(), post(endpoint.path, &endpoint.base.to_string())).await.json();
                    let before = mock.journal().entries().len();
                    let answer = ask(proxy.addr(), to(&first["id"])).await;
                    assert_eq!(answer.code(), 200, "{at}: {}", answer.text());
                    let asked = asked(&mock, before)[0].1.clone().unwrap();
                    assert_eq!(asked["messages"].as_array().map(Vec::len), Some(3), "{at}: {asked}");
                }
                Joins => {
                    let items = json!({"items": [{"role": "user", "content": "ho"}]});
                    let made = ask(proxy.addr(), post("/v1/conversations", &items.to_string())).await.json();
                    let before = mock.journal().entries().len();
                    let answer = ask(proxy.addr(), to(&made["id"])).await;
                    assert_eq!(answer.json()["conversation"]["id"], made["id"], "{at}: {}", answer.text());
                    let asked = asked(&mock, before)[0].1.clone().unwrap();
                    assert_eq!(asked["messages"].as_array().map(Vec::len), Some(2), "{at}: {asked}");
                }
                Refused(value) => {
                    let before = mock.journal().entries().len();
                    let answer = ask(proxy.addr(), to(&value)).await;
                    let error = &answer.json()["error"];
                    assert_eq!((answer.code(), blames(error, field)), (400, true), "{at}: {error}");
                    assert_eq!(asked(&mock, before), [], "{at} is refused before the remote is asked");
                }
                NoEffect(value) => {
                    let answer = ask(proxy.addr(), to(&value)).await;
                    let line = format!("{field}=no-effect");
                    assert_eq!((answer.code(), answer.header("x-farllama-receipt")), (200, Some(&*line)), "{at}");
                    let answer = ask(strict.addr(), to(&value)).await;
                    let error = &answer.json()["error"];
                    let reported = error["message"].as_str().unwrap_or_default();
                    assert!(
                        reported.starts_with("Unsupported parameter") && reported.contains("openai.strict"),
                        "{at}: {reported}"
                    );
                    assert_eq!((answer.code(), blames(error, field)), (400, true), "{at}: {error}");
                }
            }
        }
    }
}

#[tokio::test]
async fn what_asks_for_nothing_is_never_refused_even_by_a_strict_proxy() {
    let mock = remote().await;
    let mut strict = config(mock.addr());
    strict.openai.strict = true;
    let proxy = serve(strict).await.unwrap();
    let nothing = json!({"logit_bias": {}, "n": 1, "best_of": 1, "echo": false, "parallel_tool_calls": true, "modalities": ["text"],
        "service_tier": "auto", "store": false, "functions": [], "tools": [], "metadata": {}, "user": "", "verbosity": "medium",
        "quality": "auto", "background": "auto", "include": [], "chunking_strategy": "auto", "encoding_format": "float"});
    for endpoint in endpoints() {
        let mut body = endpoint.base.clone();
        for field in endpoint.fields.lines().filter(|field| endpoint.base.get(field).is_none()) {
            body[field] = nothing.get(field).cloned().unwrap_or_default();
            if (field, endpoint.path) == ("background", "/v1/responses") {
                body[field] = false.into();
            }
        }
        let answer = ask(proxy.addr(), post(endpoint.path, &body.to_string())).await;
        let receipt = answer.header("x-farllama-receipt");
        assert_eq!((answer.code(), receipt), (200, None), "{}: {}", endpoint.path, answer.text());
    }
}
