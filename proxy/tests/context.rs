//! Prompts that do not fit: refused with what helps, cut where a setting asks for it, or given a context that grows.

use crate::support::{ask, config, post};
use farllama::{
    config::{Context, Overflow},
    serve,
};
use mock_ollama::{Mock, Options, Script};
use serde_json::{Value, json};

const MODEL: &str = "caller:135m";

/// A remote whose contexts hold 4096 tokens.
async fn remote(version: Option<&str>) -> Mock {
    let mut options = Options { context_length: Some(4096), ..Options::default() };
    if let Some(version) = version {
        options.version = version.parse().unwrap();
    }
    Mock::start_with(options, Script::default()).await.unwrap()
}

/// A chat of about that many thousand words.
fn chat(thousands: usize, more: &Value) -> Vec<u8> {
    let mut body = json!({"model": MODEL, "messages": [{"role": "user", "content": "word ".repeat(thousands * 1000)}], "max_tokens": 9});
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    post("/v1/chat/completions", &body.to_string())
}

/// `num_ctx` of each chat that the remote was asked.
fn sizes(mock: &Mock) -> Vec<Value> {
    let chats = mock.journal().entries().into_iter().filter(|entry| entry.target == "/api/chat");
    chats.map(|entry| entry.json().unwrap()["options"]["num_ctx"].clone()).collect()
}

#[tokio::test]
async fn a_prompt_that_does_not_fit_is_refused_with_its_counts_and_the_settings_that_help() {
    let mock = remote(None).await;
    let proxy = serve(config(mock.addr())).await.unwrap();
    for stream in [false, true] {
        let answer = ask(proxy.addr(), chat(6, &json!({"stream": stream}))).await;
        assert_eq!((answer.code(), &answer.json()["error"]["code"]), (400, &json!("context_length_exceeded")));
        let reported = answer.message();
        for words in
            ["maximum context length is 4096 tokens", "your messages resulted in", "context.num_ctx", "context.max"]
        {
            assert!(reported.contains(words), "{reported}");
        }
    }
    assert!(mock.journal().entries().iter().all(|entry| entry.json().unwrap()["truncate"] == json!(false)));
    // What the client says itself is passed on.
    assert_eq!(ask(proxy.addr(), chat(6, &json!({"truncate": true}))).await.code(), 200);
}

#[tokio::test]
async fn a_setting_lets_ollama_cut_for_all_models_or_for_one() {
    let mock = remote(None).await;
    let truncate = Context { overflow: Overflow::Truncate, ..Context::default() };
    let one = Context { overflow_by_model: vec![(MODEL.to_owned(), Overflow::Truncate)], ..Context::default() };
    let other = Context { overflow_by_model: vec![("agent".to_owned(), Overflow::Truncate)], ..Context::default() };
    for (context, code) in [(truncate, 200), (one, 200), (other, 400)] {
        let mut settings = config(mock.addr());
        settings.context = context;
        let proxy = serve(settings).await.unwrap();
        assert_eq!(ask(proxy.addr(), chat(6, &json!({}))).await.code(), code);
    }
}

#[tokio::test]
async fn the_context_of_the_settings_is_asked_for_unless_the_client_asks_for_its_own() {
    let mock = remote(None).await;
    let mut settings = config(mock.addr());
    settings.context.num_ctx = 8192;
    let proxy = serve(settings).await.unwrap();
    assert_eq!(ask(proxy.addr(), chat(0, &json!({}))).await.code(), 200);
    assert_eq!(ask(proxy.addr(), chat(0, &json!({"options": {"num_ctx": 2048}}))).await.code(), 200);
    assert_eq!(sizes(&mock), [8192, 2048]);
}

#[tokio::test]
async fn a_context_grows_once_and_stays_grown() {
    for stream in [false, true] {
        let mock = remote(None).await;
        let mut settings = config(mock.addr());
        settings.context.max = 65_536;
        let proxy = serve(settings).await.unwrap();
        let answer = ask(proxy.addr(), chat(5, &json!({"stream": stream}))).await;
        assert_eq!(
            (answer.code(), answer.header("x-farllama-receipt")),
            (200, Some("num_ctx=raised:8192")),
            "{}",
            answer.text()
        );
        assert!(
            answer.text().contains("\"finish_reason\":\"length\"")
                || answer.text().contains("\"finish_reason\":\"stop\"")
        );
        let later = ask(proxy.addr(), chat(0, &json!({"stream": stream}))).await;
        assert_eq!(later.header("x-farllama-receipt"), Some("num_ctx=raised:8192"));
        assert_eq!(sizes(&mock), [Value::Null, json!(8192), json!(8192)]);
        // A client that asks for a size gets what it asked for.
        let own = ask(proxy.addr(), chat(5, &json!({"stream": stream, "options": {"num_ctx": 4096}}))).await;
        assert_eq!((own.code(), &own.json()["error"]["code"]), (400, &json!("context_length_exceeded")));
    }
}

#[tokio::test]
async fn a_context_stays_grown_when_the_settings_are_read_again_unless_they_allow_less_or_name_another_remote() {
    let (mock, other) = (remote(None).await, remote(None).await);
    let settings = |remote: &Mock, max| {
        let mut settings = config(remote.addr());
        settings.context.max = max;
        settings
    };
    let proxy = serve(settings(&mock, 65_536)).await.unwrap();
    assert_eq!(ask(proxy.addr(), chat(5, &json!({}))).await.code(), 200);
    for (reloaded, mock, size) in [
        (settings(&mock, 65_536), &mock, json!(8192)),
        (settings(&mock, 6000), &mock, json!(6000)),
        (settings(&mock, 0), &mock, Value::Null),
        (settings(&other, 65_536), &other, Value::Null),
    ] {
        proxy.reload(reloaded).unwrap();
        assert_eq!(ask(proxy.addr(), chat(0, &json!({}))).await.code(), 200);
        assert_eq!(sizes(mock).last(), Some(&size));
    }
}

#[tokio::test]
async fn many_prompts_at_once_make_a_context_grow_one_after_the_other() {
    let mock = remote(None).await;
    let mut settings = config(mock.addr());
    settings.context.max = 65_536;
    let proxy = serve(settings).await.unwrap();
    let all = (0..4).map(|_| ask(proxy.addr(), chat(5, &json!({}))));
    for answer in futures_util::future::join_all(all).await {
        assert_eq!(answer.code(), 200, "{}", answer.text());
    }
    assert!(sizes(&mock).iter().all(|size| *size == Value::Null || *size == json!(8192)), "{:?}", sizes(&mock));
}

#[tokio::test]
async fn an_old_remote_that_tells_no_counts_is_asked_for_all_that_is_allowed() {
    let mock = remote(Some("0.20.0")).await;
    let mut settings = config(mock.addr());
    settings.context.max = 7000;
    let proxy = serve(settings).await.unwrap();
    let answer = ask(proxy.addr(), chat(5, &json!({}))).await;
    assert_eq!(
        (answer.code(), answer.header("x-farllama-receipt")),
        (200, Some("num_ctx=raised:7000")),
        "{}",
        answer.text()
    );
}

#[tokio::test]
async fn a_prompt_that_no_allowed_context_holds_is_refused_with_the_bound() {
    let mock = remote(None).await;
    let mut settings = config(mock.addr());
    settings.context.max = 5000;
    let proxy = serve(settings).await.unwrap();
    let answer = ask(proxy.addr(), chat(20, &json!({}))).await;
    assert_eq!((answer.code(), &answer.json()["error"]["code"]), (400, &json!("context_length_exceeded")));
    assert!(answer.message().contains("cannot grow beyond 5000"), "{}", answer.message());
    assert_eq!(sizes(&mock), [Value::Null], "it is not asked again in vain");
}

#[tokio::test]
async fn the_other_endpoints_ask_for_contexts_by_the_same_rules() {
    let long = "word ".repeat(5000);
    let long = long.as_str();
    let requests = [
        ("/v1/completions", "/api/generate", json!({"model": MODEL, "prompt": long, "max_tokens": 9})),
        ("/v1/completions", "/api/generate", json!({"model": MODEL, "prompt": long, "max_tokens": 9, "stream": true})),
        ("/v1/moderations", "/api/chat", json!({"model": "smollm2:135m", "input": long})),
        ("/v1/audio/translations", "/api/chat", json!({"model": MODEL, "text": long})),
    ];
    for (path, native, body) in requests {
        let mock = remote(None).await;
        let mut settings = config(mock.addr());
        settings.context.max = 65_536;
        let growing = serve(settings.clone()).await.unwrap();
        let answer = ask(growing.addr(), post(path, &body.to_string())).await;
        let receipt = answer.header("x-farllama-receipt");
        assert_eq!((answer.code(), receipt), (200, Some("num_ctx=raised:8192")), "{path}: {}", answer.text());
        settings.context.overflow = Overflow::Truncate;
        let cutting = serve(settings).await.unwrap();
        let answer = ask(cutting.addr(), post(path, &body.to_string())).await;
        assert_eq!(answer.code(), 200, "{path}: {}", answer.text());
        let entries = mock.journal().entries();
        assert_eq!(entries.last().unwrap().json().unwrap()["truncate"], true, "{path}");
        assert!(entries.iter().any(|entry| entry.target == native), "{path}");
    }
}

#[tokio::test]
async fn an_input_to_embed_is_cut_only_where_a_setting_says_so() {
    let mock = remote(None).await;
    let body = json!({"model": "all-minilm", "input": "word ".repeat(5000)}).to_string();
    let mut settings = config(mock.addr());
    settings.context.max = 65_536;
    let refusing = serve(settings.clone()).await.unwrap();
    let answer = ask(refusing.addr(), post("/v1/embeddings", &body)).await;
    let error = &answer.json()["error"];
    assert_eq!(
        (answer.code(), &error["code"], &error["param"]),
        (400, &json!("context_length_exceeded"), &json!("input"))
    );
    settings.context.overflow_by_model = vec![("all-minilm".to_owned(), Overflow::Truncate)];
    let cutting = serve(settings).await.unwrap();
    assert_eq!(ask(cutting.addr(), post("/v1/embeddings", &body)).await.code(), 200);
}
