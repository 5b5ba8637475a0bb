//! Answers that obey the request, and what differs between versions.

use mock_ollama::{Mock, Options, Script};
use serde_json::{Value, json};

use crate::support::{self, ask, content, lines, user, whole};

async fn mock() -> Mock {
    Mock::start(Script::default()).await.unwrap()
}

async fn version(version: &str) -> Mock {
    Mock::start_with(Options { version: version.parse().unwrap(), ..Options::default() }, Script::default())
        .await
        .unwrap()
}

/// The body with more keys.
fn with(mut body: Value, more: Value) -> Value {
    let Value::Object(more) = more else { return body };
    body.as_object_mut().unwrap().extend(more);
    body
}

fn tool(name: &str) -> Value {
    let parameters = json!({
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1, "maximum": 3}, "unit": {"enum": ["C", "F"]}},
        "required": ["city", "unit"],
    });
    json!({"type": "function", "function": {"name": name, "description": "d", "parameters": parameters}})
}

fn calls(lines: &[Value]) -> Vec<&Value> {
    lines.iter().flat_map(|line| line["message"]["tool_calls"].as_array().into_iter().flatten()).collect()
}

#[tokio::test]
async fn limits_and_stop_strings_end_an_answer() {
    let mock = mock().await;
    let cut = lines(
        &mock,
        "/api/chat",
        &with(user("gpt-oss:20b", "hi"), json!({"think": false, "options": {"num_predict": 4}})),
    )
    .await;
    let last = cut.last().unwrap();
    assert_eq!((cut.len(), &last["done_reason"], &last["eval_count"]), (5, &json!("length"), &json!(4)));
    let plain = lines(&mock, "/api/chat", &user("smollm2:135m", "hi there")).await;
    let last = plain.last().unwrap();
    assert_eq!(
        (&last["done_reason"], last["eval_count"].as_u64()),
        (&json!("stop"), Some(plain.len() as u64)),
        "the end token counts"
    );
    let stopped =
        lines(&mock, "/api/chat", &with(user("smollm2:135m", "hi there"), json!({"options": {"stop": ["there"]}})))
            .await;
    let (text, whole) = (content(&stopped), content(&plain));
    assert_eq!(text, whole.split("there").next().unwrap());
    assert_eq!(stopped.last().unwrap()["done_reason"], "stop");
}

#[tokio::test]
async fn tokens_grow_with_the_text() {
    let mock = mock().await;
    let body = |text: &str| with(user("smollm2:135m", text), json!({"stream": false}));
    let short = whole(&mock, "/api/chat", &body("hi")).await["prompt_eval_count"].as_u64().unwrap();
    let long =
        whole(&mock, "/api/chat", &body(&"a longer question ".repeat(20))).await["prompt_eval_count"].as_u64().unwrap();
    assert!(long >= short + 50, "{short} {long}");
}

#[tokio::test]
async fn a_format_is_satisfied_streamed_and_whole() {
    let mock = mock().await;
    let schema = json!({"type": "object", "properties": {"name": {"type": "string"}, "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 2}}, "required": ["name", "tags"]});
    let streamed =
        lines(&mock, "/api/chat", &with(user("gpt-oss:20b", "Give me Anna."), json!({"format": schema}))).await;
    assert!(streamed.iter().any(|line| line["message"]["thinking"].is_string()), "thinking comes first");
    let value: Value = serde_json::from_str(&content(&streamed)).unwrap();
    assert!(value["name"].is_string() && value["tags"].as_array().unwrap().len() >= 2, "{value}");
    let asked = json!({"model": "smollm2:135m", "prompt": "x", "format": "json", "stream": false});
    let generated = whole(&mock, "/api/generate", &asked).await;
    assert!(serde_json::from_str::<Value>(generated["response"].as_str().unwrap()).unwrap().is_object());
}

#[tokio::test]
async fn tools_are_called_that_the_text_names() {
    let mock = mock().await;
    let tools = json!([tool("get_time"), tool("get_weather")]);
    let ask = |text: &str| with(user("gpt-oss:20b", text), json!({"tools": tools}));
    let none = lines(&mock, "/api/chat", &ask("What is the weather in Oslo?")).await;
    assert!(calls(&none).is_empty() && content(&none).contains("Oslo"));
    let one = lines(&mock, "/api/chat", &ask("Use get_weather for Oslo.")).await;
    let [call] = calls(&one)[..] else { panic!("{one:?}") };
    assert_eq!(call["function"]["name"], "get_weather");
    assert_eq!(call["function"]["arguments"]["city"], "Oslo");
    assert!(["C", "F"].contains(&call["function"]["arguments"]["unit"].as_str().unwrap()));
    assert_eq!(one.last().unwrap()["done_reason"], "stop");
    let two = lines(&mock, "/api/chat", &ask("Use get_weather and get_time for Oslo.")).await;
    let names: Vec<&Value> = calls(&two).iter().map(|call| &call["function"]["name"]).collect();
    assert_eq!(names, ["get_weather", "get_time"]);
    assert!(two.iter().any(|line| line["message"]["thinking"].is_string()));
}

#[tokio::test]
async fn some_models_always_call_and_answer_in_text_after_the_result() {
    let mock = mock().await;
    for (model, number) in [("agent", 1), ("caller:135m", 1), ("pair:135m", 2)] {
        let mut body = with(
            user(model, "What is it like in Paris and Rome?"),
            json!({"tools": [tool("get_weather"), tool("other")]}),
        );
        let called = lines(&mock, "/api/chat", &body).await;
        let made = calls(&called);
        assert_eq!(made.len(), number, "{model}");
        assert!(made.iter().all(|call| call["function"]["name"] == "get_weather"));
        let more = json!([called[0]["message"], {"role": "tool", "content": "12 degrees", "tool_name": "get_weather"}]);
        body["messages"].as_array_mut().unwrap().extend(more.as_array().unwrap().clone());
        let answered = lines(&mock, "/api/chat", &body).await;
        assert!(calls(&answered).is_empty() && content(&answered).contains("12 degrees"), "{model}");
    }
}

#[tokio::test]
async fn calls_stand_on_lines_of_their_own_or_on_the_last_by_model() {
    let mock = mock().await;
    let body =
        |model: &str| with(user(model, "What is it like in Paris and Rome?"), json!({"tools": [tool("get_weather")]}));
    let rendered = lines(&mock, "/api/chat", &body("pair:135m")).await;
    let done: Vec<bool> = rendered.iter().map(|line| line["done"].as_bool().unwrap()).collect();
    assert_eq!(done, [false, false, true]);
    assert!(rendered[2]["message"].get("tool_calls").is_none());
    assert_eq!(rendered[1]["message"]["tool_calls"][0]["function"]["index"], 1);
    let jinja = lines(&mock, "/api/chat", &body("agent")).await;
    assert_eq!(jinja.len(), 1);
    let id = jinja[0]["message"]["tool_calls"][0]["id"].as_str().unwrap();
    assert!(jinja[0]["done"] == true && id.len() == 32, "{id}");
    let again = lines(&mock, "/api/chat", &body("agent")).await;
    assert_ne!(again[0]["message"]["tool_calls"][0]["id"], id, "ids are unique");
}

#[tokio::test]
async fn a_thinking_model_thinks_unless_it_is_told_not_to() {
    let mock = mock().await;
    for model in ["gpt-oss:20b", "thinker:135m", "qwen3-vl:8b"] {
        let body = with(user(model, "hi"), json!({"stream": false}));
        assert!(whole(&mock, "/api/chat", &body).await["message"]["thinking"].is_string(), "{model}");
        let reported = with(body, json!({"think": false}));
        assert!(whole(&mock, "/api/chat", &reported).await["message"].get("thinking").is_none(), "{model}");
    }
    let old = version("0.12.3").await;
    let body = with(user("thinker:135m", "hi"), json!({"stream": false}));
    let inline = whole(&old, "/api/chat", &body).await;
    assert!(inline["message"].get("thinking").is_none() && content(&[inline]).starts_with("<think>"));
}

#[tokio::test]
async fn embeddings_have_unit_length_and_the_wanted_dimensions() {
    let mock = mock().await;
    let body = json!({"model": "all-minilm", "input": ["a cat", "a stone"], "dimensions": 16});
    let reply = whole(&mock, "/api/embed", &body).await;
    let rows: Vec<Vec<f64>> = serde_json::from_value(reply["embeddings"].clone()).unwrap();
    assert_ne!(rows[0], rows[1]);
    for row in rows {
        assert_eq!(row.len(), 16);
        assert!((row.iter().map(|number| number * number).sum::<f64>() - 1.0).abs() < 1e-5);
    }
    let old = version("0.11.10").await;
    assert_eq!(whole(&old, "/api/embed", &body).await["embeddings"][0].as_array().unwrap().len(), 384);
}

#[tokio::test]
async fn a_long_prompt_is_cut_or_refused() {
    let options = Options { context_length: Some(512), ..Options::default() };
    let mock = Mock::start_with(options, Script::default()).await.unwrap();
    let body = with(user("gpt-oss:20b", &"word ".repeat(2000)), json!({"stream": false}));
    assert_eq!(whole(&mock, "/api/chat", &body).await["prompt_eval_count"], 258);
    let refused = whole(&mock, "/api/chat", &with(body, json!({"truncate": false}))).await;
    assert!(refused["error"].as_str().unwrap().contains("exceed_context_size_error"), "{refused}");
    let ample = json!({"truncate": false, "stream": false, "options": {"num_ctx": 8192}});
    let fits = whole(&mock, "/api/chat", &with(user("gpt-oss:20b", &"word ".repeat(2000)), ample)).await;
    assert!(fits["prompt_eval_count"].as_u64().unwrap() > 2000);
}

#[tokio::test]
async fn log_probabilities_cover_the_text() {
    let mock = mock().await;
    let body = with(user("smollm2:135m", "hi"), json!({"logprobs": true, "top_logprobs": 2, "stream": false}));
    let reply = whole(&mock, "/api/chat", &body).await;
    let tokens = reply["logprobs"].as_array().unwrap();
    let text: String = tokens.iter().map(|token| token["token"].as_str().unwrap()).collect();
    assert_eq!(text, content(std::slice::from_ref(&reply)));
    assert!(tokens.iter().all(|token| token["top_logprobs"].as_array().unwrap().len() == 2));
}

#[tokio::test]
async fn keep_alive_drives_ps() {
    let mock = mock().await;
    let loaded = async || -> Value { serde_json::from_str(&ask(&mock, "GET", "/api/ps", "").await.1).unwrap() };
    whole(&mock, "/api/chat", &json!({"model": "gpt-oss:20b", "keep_alive": -1})).await;
    whole(&mock, "/api/embed", &json!({"model": "all-minilm", "input": "x"})).await;
    let there = loaded().await;
    assert_eq!(there["models"][0]["name"], "gpt-oss:20b", "the longest-lived first");
    assert_eq!(there["models"][0]["context_length"], 4096, "as Ollama's default on a small machine");
    let reply = whole(&mock, "/api/generate", &json!({"model": "all-minilm", "keep_alive": 0})).await;
    assert_eq!(reply["done_reason"], "unload", "whatever the model can do");
    assert_eq!(loaded().await["models"].as_array().unwrap().len(), 1);
    lines(&mock, "/api/chat", &with(user("gpt-oss:20b", "hi"), json!({"keep_alive": 0}))).await;
    assert_eq!(loaded().await, json!({"models": []}), "0 unloads when the request ends");
}

#[tokio::test]
async fn a_created_model_is_listed_shown_used_copied_and_deleted() {
    let mock = mock().await;
    let made = lines(
        &mock,
        "/api/create",
        &json!({"model": "me/mine", "from": "smollm2:135m", "system": "Be kind.", "parameters": {"num_ctx": 300}}),
    )
    .await;
    assert_eq!(made.last().unwrap(), &json!({"status": "success"}));
    let shown = whole(&mock, "/api/show", &json!({"model": "me/mine"})).await;
    assert_eq!((&shown["system"], &shown["details"]["parent_model"]), (&json!("Be kind."), &json!("smollm2:135m")));
    assert!(shown["parameters"].as_str().unwrap().contains("num_ctx                        300"));
    let used = whole(&mock, "/api/chat", &with(user("me/mine", "hi"), json!({"stream": false}))).await;
    let plain = whole(&mock, "/api/chat", &with(user("smollm2:135m", "hi"), json!({"stream": false}))).await;
    assert!(used["prompt_eval_count"].as_u64() > plain["prompt_eval_count"].as_u64(), "its system message counts");
    ask(&mock, "POST", "/api/copy", "{\"source\":\"me/mine\",\"destination\":\"twin\"}").await;
    ask(&mock, "DELETE", "/api/delete", "{\"model\":\"me/mine\"}").await;
    let tags = support::json(&ask(&mock, "GET", "/api/tags", "").await);
    let names: Vec<&str> =
        tags["models"].as_array().unwrap().iter().map(|model| model["name"].as_str().unwrap()).collect();
    assert_eq!(names[0], "twin:latest", "the newest first");
    assert!(!names.contains(&"me/mine:latest"));
}

#[tokio::test]
async fn a_blob_becomes_a_model() {
    let mock = mock().await;
    let digest = "sha256:c39db8d2b10350a0ab1a68be31dcb8b54d3c1beb0a2ac1d22c4a1e2d3ddc4c5a";
    assert!(
        ask(&mock, "POST", &format!("/api/blobs/{digest}"), "GGUF...").await.1.contains("digest mismatch, expected")
    );
    let reported = ask(&mock, "POST", &format!("/api/blobs/{digest}"), "GGUF...").await.1;
    let right = reported.rsplit("got \\\"").next().unwrap().split('\\').next().unwrap();
    assert!(ask(&mock, "POST", &format!("/api/blobs/{right}"), "GGUF...").await.0.starts_with("HTTP/1.1 201"));
    let made = lines(
        &mock,
        "/api/create",
        &json!({"model": "filed", "files": {"a.gguf": right}, "template": "{{ .Tools }}{{ .Suffix }}"}),
    )
    .await;
    assert_eq!(made[0], json!({"status": "parsing GGUF"}));
    let shown = whole(&mock, "/api/show", &json!({"model": "filed"})).await;
    assert_eq!(shown["capabilities"], json!(["completion", "tools", "insert"]));
}

#[tokio::test]
async fn pull_and_push_play_their_progress() {
    let mock = mock().await;
    let pulled = lines(&mock, "/api/pull", &json!({"model": "llama3.2:1b"})).await;
    let statuses: Vec<&str> = pulled.iter().map(|line| line["status"].as_str().unwrap()).collect();
    assert_eq!((statuses[0], *statuses.last().unwrap()), ("pulling manifest", "success"));
    // Of the weights; what is there already has a single report.
    let weights: Vec<&Value> = pulled.iter().filter(|line| line["digest"] == pulled[1]["digest"]).collect();
    let grown: Vec<u64> = weights.iter().filter_map(|line| line["completed"].as_u64()).collect();
    assert!(grown.len() >= 4 && grown.is_sorted(), "{pulled:?}");
    assert!(grown.last() < weights[0]["total"].as_u64().as_ref(), "the last report comes before the end: {pulled:?}");
    assert_eq!(
        whole(&mock, "/api/show", &json!({"model": "llama3.2:1b"})).await["capabilities"],
        json!(["completion", "tools"])
    );
    assert_eq!(
        whole(&mock, "/api/pull", &json!({"model": "llama3.2:1b", "stream": false})).await,
        json!({"status": "success"})
    );
    let unknown = lines(&mock, "/api/pull", &json!({"model": "nobody-made-this"})).await;
    assert_eq!(unknown[1]["error"], "pull model manifest: file does not exist");
    let pushed = lines(&mock, "/api/push", &json!({"model": "llama3.2:1b"})).await;
    assert!(
        pushed[1]["status"].as_str().unwrap().starts_with("pushing ") && pushed.last().unwrap()["status"] == "success"
    );
}

#[tokio::test]
async fn versions_differ_where_the_wire_did() {
    let call = async |number: &str| {
        let body = with(user("caller:135m", "Paris"), json!({"tools": [tool("f")], "stream": false}));
        whole(&version(number).await, "/api/chat", &body).await["message"]["tool_calls"][0].clone()
    };
    assert!(call("0.12.5").await["function"].get("index").is_none());
    assert!(call("0.12.9").await["function"]["index"] == 0 && call("0.12.9").await.get("id").is_none());
    assert!(call("0.12.10").await["id"].is_string());
    let logprobs = with(user("smollm2:135m", "hi"), json!({"logprobs": true, "stream": false}));
    assert!(whole(&version("0.12.10").await, "/api/chat", &logprobs).await.get("logprobs").is_none());
    let show = json!({"model": "smollm2:135m"});
    assert!(whole(&version("0.6.3").await, "/api/show", &show).await.get("capabilities").is_none());
    // 0.30.0 counted only what was not cached.
    let odd = version("0.30.0").await;
    let again = with(user("smollm2:135m", "hi"), json!({"stream": false}));
    assert!(whole(&odd, "/api/chat", &again).await.get("prompt_eval_count").is_some());
    assert!(whole(&odd, "/api/chat", &again).await.get("prompt_eval_count").is_none());
}

#[tokio::test]
async fn images_need_a_model_that_sees() {
    let mock = mock().await;
    let message = json!({"role": "user", "content": "What is this?", "images": ["iVBORw0KGgo="]});
    let body = |model: &str| json!({"model": model, "messages": [message], "stream": false});
    for model in ["qwen3-vl:8b", "gemma4:e4b"] {
        let seen = whole(&mock, "/api/chat", &body(model)).await;
        assert!(
            content(std::slice::from_ref(&seen)).contains("one attachment")
                && seen["prompt_eval_count"].as_u64().unwrap() > 256,
            "{model}"
        );
    }
    assert!(whole(&mock, "/api/chat", &body("gpt-oss:20b")).await["error"].as_str().unwrap().contains("Multimodal"));
}

#[tokio::test]
async fn v1_is_known_by_name_only() {
    let mock = mock().await;
    assert_eq!(ask(&mock, "POST", "/v1/chat/completions", "{}").await.1, "404 page not found");
    assert!(ask(&mock, "GET", "/v1/chat/completions", "").await.0.contains("Allow: POST"));
}
