//! Several answers to one chat.

use crate::support::{ask, post, proxy};
use mock_ollama::{Mock, Script};
use serde_json::{Value, json};

fn chat(n: usize, stream: bool) -> Vec<u8> {
    let body = json!({"model": "agent", "n": n, "seed": 7, "stream": stream, "stream_options": {"include_usage": true},
        "messages": [{"role": "user", "content": "hi"}]});
    post("/v1/chat/completions", &body.to_string())
}

#[tokio::test]
async fn the_remote_is_asked_once_for_each_answer_with_a_seed_of_its_own() {
    for stream in [false, true] {
        let mock = Mock::start(Script::default()).await.unwrap();
        let proxy = proxy(mock.addr()).await;
        let answer = ask(proxy.addr(), chat(3, stream)).await;
        assert_eq!(
            (answer.code(), answer.header("x-farllama-receipt")),
            (200, Some("n=emulated")),
            "{}",
            answer.text()
        );
        let mut seeds: Vec<_> =
            mock.journal().entries().iter().map(|entry| entry.json().unwrap()["options"]["seed"].as_i64()).collect();
        seeds.sort_unstable();
        assert_eq!(seeds, [Some(7), Some(8), Some(9)]);
        let usage = if stream {
            let events = answer.events();
            assert_eq!(events.last().unwrap(), "[DONE]");
            assert_eq!(answer.text().matches("\"finish_reason\":\"stop\"").count(), 3);
            serde_json::from_str::<Value>(&events[events.len() - 2]).unwrap()["usage"].clone()
        } else {
            let json = answer.json();
            let indices: Vec<_> =
                json["choices"].as_array().unwrap().iter().map(|choice| choice["index"].clone()).collect();
            assert_eq!(indices, [0, 1, 2]);
            json["usage"].clone()
        };
        let one = ask(proxy.addr(), chat(1, false)).await.json()["usage"]["prompt_tokens"].as_u64().unwrap();
        assert_eq!(usage["prompt_tokens"].as_u64(), Some(3 * one));
    }
}

#[tokio::test]
async fn if_one_of_several_answers_fails_the_whole_fails_once() {
    let script =
        Script::on("/api/chat").lines([json!({"message": {"role": "assistant", "content": "a"}, "done": false})]);
    let mock = Mock::start(script).await.unwrap();
    let proxy = proxy(mock.addr()).await;
    let answer = ask(proxy.addr(), chat(2, true)).await;
    assert_eq!(answer.text().matches("data: {\"error\"").count(), 1, "{}", answer.text());
    assert!(!answer.text().contains("[DONE]") && !answer.text().contains("\"finish_reason\":\"stop\""));
    assert_eq!(ask(proxy.addr(), chat(2, false)).await.code(), 502);
}
