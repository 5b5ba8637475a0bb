//! Calls that a model is held to, end to end: the mock obeys `format` as Ollama does, and knows nothing of
//! `tool_choice`.

use crate::support::{self, ask, post, proxy};
use mock_ollama::{Mock, Script};
use serde_json::{Value, json};

fn body(stream: bool, tool_choice: &Value) -> Value {
    json!({"model": "agent", "stream": stream, "messages": [{"role": "user", "content": "Say hello."}], "tool_choice": tool_choice,
    "tools": [
        {"type": "function", "function": {"name": "book", "parameters": {"type": "object", "required": ["seats", "class"],
            "properties": {"seats": {"type": "integer"}, "class": {"$ref": "#/$defs/class"}}, "$defs": {"class": {"enum": ["first", "second"]}}}}},
        {"type": "function", "function": {"name": "cancel", "parameters": {"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]}}},
    ]})
}

/// The calls and the finish of an answer, whichever way it came.
fn calls(answer: &support::Answer, stream: bool) -> (Vec<Value>, Value) {
    if !stream {
        let choice = &answer.json()["choices"][0];
        return (choice["message"]["tool_calls"].as_array().unwrap().clone(), choice["finish_reason"].clone());
    }
    let events = answer.events();
    let chunks =
        events.iter().filter(|event| *event != "[DONE]").map(|event| serde_json::from_str::<Value>(event).unwrap());
    let (mut calls, mut finish) = (Vec::new(), Value::Null);
    for chunk in chunks {
        let choice = &chunk["choices"][0];
        assert!(
            choice["delta"]["content"].as_str().unwrap_or_default().is_empty(),
            "no JSON is shown as text: {chunk}"
        );
        calls.extend(choice["delta"]["tool_calls"].as_array().into_iter().flatten().cloned());
        if !choice["finish_reason"].is_null() {
            finish = choice["finish_reason"].clone();
        }
    }
    (calls, finish)
}

#[tokio::test]
async fn a_call_that_must_be_made_is_made_with_arguments_that_fit_its_schema() {
    let mock = Mock::start(Script::default()).await.unwrap();
    let proxy = proxy(mock.addr()).await;
    let named = |name: &str| json!({"type": "function", "function": {"name": name}});
    for (choice, names) in
        [(json!("required"), &["book", "cancel"][..]), (named("book"), &["book"]), (named("cancel"), &["cancel"])]
    {
        for stream in [false, true] {
            let answer = ask(proxy.addr(), post("/v1/chat/completions", &body(stream, &choice).to_string())).await;
            assert_eq!(answer.code(), 200, "{}", answer.text());
            assert_eq!(answer.header("x-farllama-receipt"), Some("tool_choice=emulated"));
            let (calls, finish) = calls(&answer, stream);
            assert_eq!(finish, json!("tool_calls"), "{choice}: {}", answer.text());
            // A tool that is named is called once; `required` allows several calls.
            assert!(
                calls.len() == 1 || choice == json!("required") && !calls.is_empty(),
                "{choice}: {}",
                answer.text()
            );
            let (name, id) = (calls[0]["function"]["name"].as_str().unwrap(), calls[0]["id"].as_str().unwrap());
            assert!(names.contains(&name) && id.starts_with("call_"), "{choice}: {name} {id}");
            let arguments: Value = serde_json::from_str(calls[0]["function"]["arguments"].as_str().unwrap()).unwrap();
            match name {
                "book" => {
                    let class = arguments["class"].as_str().unwrap();
                    assert!(arguments["seats"].is_i64() && ["first", "second"].contains(&class), "{arguments}");
                }
                _ => assert!(arguments["id"].is_string(), "{arguments}"),
            }
        }
    }
}

#[tokio::test]
async fn without_parallel_calls_a_forced_call_is_one_call() {
    let mock = Mock::start(Script::default()).await.unwrap();
    let proxy = proxy(mock.addr()).await;
    for seed in 0..6 {
        let mut body = body(seed % 2 == 0, &json!("required"));
        body["parallel_tool_calls"] = false.into();
        body["seed"] = seed.into();
        let answer = ask(proxy.addr(), post("/v1/chat/completions", &body.to_string())).await;
        assert_eq!(calls(&answer, seed % 2 == 0).0.len(), 1, "{}", answer.text());
    }
}

#[tokio::test]
async fn a_swallowed_call_stands_in_the_receipt_and_a_forced_one_is_no_success() {
    let lost =
        json!({"message": {"role": "assistant", "content": ""}, "done": true, "done_reason": "stop", "eval_count": 12});
    let mock = Mock::start(Script::on("/api/chat").lines([lost])).await.unwrap();
    let proxy = proxy(mock.addr()).await;
    let answer = ask(proxy.addr(), post("/v1/chat/completions", &body(true, &json!("auto")).to_string())).await;
    let text = answer.text();
    assert!(text.contains(": receipt tool_calls=lost\n\n") && text.ends_with("data: [DONE]\n\n"), "{text:?}");
    let answer = ask(proxy.addr(), post("/v1/chat/completions", &body(true, &json!("required")).to_string())).await;
    let events = answer.events();
    assert!(events.last().unwrap().contains("'tool_choice'") && !answer.text().contains("[DONE]"), "{events:?}");
    let answer = ask(proxy.addr(), post("/v1/chat/completions", &body(false, &json!("auto")).to_string())).await;
    assert_eq!((answer.code(), answer.header("x-farllama-receipt")), (200, Some("tool_calls=lost")));
    let answer = ask(proxy.addr(), post("/v1/chat/completions", &body(false, &json!("required")).to_string())).await;
    assert_eq!((answer.code(), answer.json()["error"]["param"].as_str()), (400, Some("tool_choice")));
}

#[tokio::test]
async fn tools_and_a_response_format_together_lose_neither() {
    let mock = Mock::start(Script::default()).await.unwrap();
    let proxy = proxy(mock.addr()).await;
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..12 {
        let mut body = body(seed % 2 == 0, &json!("auto"));
        body["seed"] = seed.into();
        body["response_format"] = json!({"type": "json_schema", "json_schema": {"name": "x", "schema":
            {"type": "object", "properties": {"color": {"enum": ["red", "blue"]}}, "required": ["color"]}}});
        let answer = ask(proxy.addr(), post("/v1/chat/completions", &body.to_string())).await;
        assert_eq!(answer.code(), 200, "{}", answer.text());
        let text = answer.text();
        let called = text.contains("\"tool_calls\"}") || text.contains("\"finish_reason\":\"tool_calls\"");
        // An answer is streamed as it comes.
        let pieces = answer.events().iter().filter_map(|event| serde_json::from_str::<Value>(event).ok()).collect();
        let pieces: Vec<Value> = if seed % 2 == 0 { pieces } else { vec![answer.json()] };
        let said =
            |part: &Value| part["delta"]["content"].as_str().or(part["message"]["content"].as_str()).map(str::to_owned);
        let content: String = pieces.iter().filter_map(|piece| said(&piece["choices"][0])).collect();
        let answered = content.starts_with(r#"{"color":""#) || content.starts_with(r#"{"color": ""#);
        assert!(called != answered, "{text}");
        assert!(!content.contains("answer") && !text.contains("not-obeyed"), "{text}");
        if answered {
            assert!(serde_json::from_str::<Value>(&content).unwrap()["color"].is_string(), "{text}");
        }
        seen.insert(called);
    }
    assert_eq!(seen.len(), 2, "over some seeds the model both calls and answers");
}
