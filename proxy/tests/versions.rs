//! What the remote's version decides: learned once, learned anew when the connections were lost, and only where
//! something depends on it.

use crate::program::Program;
use crate::support::{Answer, ask, config, post};
use farllama::{Running, serve};
use mock_ollama::{Mock, Options, Script, Then};
use serde_json::{Value, json};

const PICTURE: &str = "data:image/png;base64,iVBORw0KGgo=";

async fn remote(version: &str) -> (Mock, Running) {
    let options = Options { version: version.parse().unwrap(), ..Options::default() };
    let mock = Mock::start_with(options, Script::default()).await.unwrap();
    let proxy = serve(config(mock.addr())).await.unwrap();
    (mock, proxy)
}

/// Asks for a chat with `more` in it.
async fn chat(proxy: &Running, model: &str, more: Value) -> Answer {
    let mut body = json!({"model": model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 9});
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    ask(proxy.addr(), post("/v1/chat/completions", &body.to_string())).await
}

fn seeing() -> Value {
    json!({"messages": [{"role": "user", "content": [
        {"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": PICTURE}},
    ]}]})
}

/// Paths of what the remote was asked.
fn asked(mock: &Mock) -> Vec<String> {
    mock.journal().entries().into_iter().map(|entry| entry.target).collect()
}

/// `think` of each chat that the remote was asked.
fn thoughts(mock: &Mock) -> Vec<Value> {
    let chats = mock.journal().entries().into_iter().filter(|entry| entry.target == "/api/chat");
    chats.map(|entry| entry.json().unwrap()["think"].clone()).collect()
}

#[tokio::test]
async fn a_version_is_asked_for_once_and_only_where_it_matters() {
    let (mock, proxy) = remote("0.33.0").await;
    for effort in ["none", "low", "medium", "high"] {
        assert_eq!(chat(&proxy, "gpt-oss:20b", json!({"reasoning_effort": effort})).await.code(), 200);
    }
    assert!(!asked(&mock).contains(&"/api/version".to_owned()), "{:?}", asked(&mock));
    for _ in 0..3 {
        assert_eq!(chat(&proxy, "gpt-oss:20b", json!({"reasoning_effort": "max"})).await.code(), 200);
    }
    assert_eq!(asked(&mock).iter().filter(|path| *path == "/api/version").count(), 1);
}

#[tokio::test]
async fn a_remote_that_was_exchanged_is_asked_anew() {
    let script = Script::on("/api/version")
        .times(1)
        .body(json!({"version": "0.20.0"}))
        .and(Script::on("/api/tags").then(Then::Cut));
    let mock = Mock::start(script).await.unwrap();
    let proxy = serve(config(mock.addr())).await.unwrap();
    for _ in 0..2 {
        assert_eq!(chat(&proxy, "gpt-oss:20b", json!({"reasoning_effort": "max"})).await.code(), 200);
    }
    // The one connection breaks: whatever answers next may be another Ollama.
    ask(proxy.addr(), "GET /api/tags HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
    assert_eq!(chat(&proxy, "gpt-oss:20b", json!({"reasoning_effort": "max"})).await.code(), 200);
    assert_eq!(thoughts(&mock), ["high", "high", "max"]);
    assert_eq!(asked(&mock).iter().filter(|path| *path == "/api/version").count(), 2);
}

#[tokio::test]
async fn the_highest_effort_is_the_highest_that_a_version_has_without_a_refusal_first() {
    for (version, model, thought, receipt) in [
        ("0.33.0", "gpt-oss:20b", json!(["max"]), None),
        ("0.22.0", "gpt-oss:20b", json!(["max"]), None),
        ("0.21.3", "gpt-oss:20b", json!(["high"]), Some("reasoning_effort=lowered:high")),
        // A model that can only switch thinking, on a version that reports it.
        (
            "0.13.5",
            "thinker:135m",
            json!(["high", true]),
            Some("reasoning_effort=lowered:high, reasoning_effort=lowered:true"),
        ),
        (
            "0.20.0",
            "smollm2:135m",
            json!(["high", null]),
            Some("reasoning_effort=lowered:high, reasoning_effort=no-effect"),
        ),
    ] {
        let (mock, proxy) = remote(version).await;
        let answer = chat(&proxy, model, json!({"reasoning_effort": "max"})).await;
        assert_eq!(
            (answer.code(), answer.header("x-farllama-receipt")),
            (200, receipt),
            "{version}: {}",
            answer.text()
        );
        assert_eq!(json!(thoughts(&mock)), thought, "{version}");
    }
}

#[tokio::test]
async fn a_level_is_a_switch_for_a_model_that_can_only_think_or_not() {
    let (mock, proxy) = remote("0.13.5").await;
    let answer = chat(&proxy, "thinker:135m", json!({"reasoning_effort": "low"})).await;
    assert_eq!((answer.code(), answer.header("x-farllama-receipt")), (200, Some("reasoning_effort=lowered:true")));
    assert_eq!(thoughts(&mock), [json!("low"), json!(true)]);
}

#[tokio::test]
async fn a_remote_of_unknown_version_is_taken_for_the_newest_until_it_refuses() {
    // A fork of an old version, which reports a name instead of a number.
    let options = Options { version: "0.13.5".parse().unwrap(), ..Options::default() };
    let script = Script::on("/api/version").body(json!({"version": "our-fork"}));
    let mock = Mock::start_with(options, script).await.unwrap();
    let proxy = serve(config(mock.addr())).await.unwrap();
    let answer = chat(&proxy, "thinker:135m", json!({"reasoning_effort": "max"})).await;
    assert_eq!(answer.code(), 200, "{}", answer.text());
    assert_eq!(thoughts(&mock), [json!("max"), json!("high"), json!(true)]);
}

#[tokio::test]
async fn a_strict_proxy_lowers_no_effort() {
    let options = Options { version: "0.20.0".parse().unwrap(), ..Options::default() };
    let mock = Mock::start_with(options, Script::default()).await.unwrap();
    let mut settings = config(mock.addr());
    settings.openai.strict = true;
    let proxy = serve(settings).await.unwrap();
    let answer = chat(&proxy, "gpt-oss:20b", json!({"reasoning_effort": "max"})).await;
    assert_eq!((answer.code(), &answer.json()["error"]["param"]), (400, &json!("reasoning_effort")));
    assert_eq!(thoughts(&mock), ["max"]);
}

#[tokio::test]
async fn probabilities_are_refused_by_versions_that_would_leave_them_out_in_silence() {
    for (version, code) in [("0.12.10", 400), ("0.12.11", 200)] {
        let (mock, proxy) = remote(version).await;
        let answer = chat(&proxy, "smollm2:135m", json!({"logprobs": true})).await;
        assert_eq!(answer.code(), code, "{version}: {}", answer.text());
        if code == 400 {
            assert_eq!(answer.json()["error"]["param"], "logprobs");
            assert!(answer.message().contains("0.12.11"), "{}", answer.message());
            assert_eq!(asked(&mock), ["/api/version"]);
        }
    }
}

#[tokio::test]
async fn an_image_is_never_left_out_in_silence() {
    for version in ["0.20.0", "0.29.4", "0.30.0", "0.33.0"] {
        let (mock, proxy) = remote(version).await;
        let blind = chat(&proxy, "smollm2:135m", seeing()).await;
        assert_eq!(blind.code(), 400, "{version}: {}", blind.text());
        let sees = chat(&proxy, "qwen3-vl:8b", seeing()).await;
        assert_eq!(sees.code(), 200, "{version}: {}", sees.text());
        let shown = asked(&mock).iter().filter(|path| *path == "/api/show").count();
        assert_eq!(
            shown,
            if version < "0.30.0" { 2 } else { 0 },
            "{version}: only where the remote does not refuse by itself"
        );
    }
}

#[tokio::test]
async fn more_than_four_stops_are_refused_and_four_are_sent_at_every_version() {
    for version in farllama::VERSIONS {
        let (mock, proxy) = remote(version).await;
        let five = chat(&proxy, "smollm2:135m", json!({"stop": ["a", "b", "c", "d", "e"]})).await;
        assert_eq!((five.code(), &five.json()["error"]["code"]), (400, &json!("array_above_max_length")));
        assert_eq!(five.json()["error"]["param"], "stop");
        assert_eq!(chat(&proxy, "smollm2:135m", json!({"stop": ["aa", "bb", "cc", "dd"]})).await.code(), 200);
        assert_eq!(chat(&proxy, "smollm2:135m", json!({"stop": "aa"})).await.code(), 200);
        let entries = mock.journal().entries();
        let stops: Vec<_> = entries.iter().map(|entry| entry.json().unwrap()["options"]["stop"].clone()).collect();
        assert_eq!(stops, [json!(["aa", "bb", "cc", "dd"]), json!(["aa"])]);
    }
}

#[tokio::test]
async fn a_context_that_pushes_a_model_off_the_graphics_card_is_warned_of() {
    const MIB: u64 = 1 << 20;
    for (on_the_card, warned) in [(3000 * MIB, true), (4000 * MIB, false)] {
        let script = Script::on("/api/ps").body(json!({"models": [
            {"name": "caller:135m", "model": "caller:135m", "size": 4000 * MIB, "size_vram": on_the_card},
        ]}));
        let options = Options { context_length: Some(4096), ..Options::default() };
        let mock = Mock::start_with(options, script).await.unwrap();
        let remote = mock.url();
        let program = Program::start(&["--remote-host", &remote, "--context-max", "65536"], &[]);
        let body = json!({"model": "caller:135m", "messages": [{"role": "user", "content": "word ".repeat(5000)}], "max_tokens": 9});
        let answer = ask(program.addr, post("/v1/chat/completions", &body.to_string())).await;
        assert_eq!((answer.code(), answer.header("x-farllama-receipt")), (200, Some("num_ctx=raised:8192")));
        let log = program.log();
        let reported =
            log.contains("only 3000 of 4000 MiB of the model are on the graphics card") && log.contains("context.max");
        assert_eq!(reported, warned, "{log}");
    }
}
