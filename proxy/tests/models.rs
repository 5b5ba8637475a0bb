//! Aliases and presets of models, as both sides of the proxy see them on the wire.

use crate::support::{Answer, Upstream, ask, config, post, raw_response};
use farllama::{
    Config, Running,
    config::{Auth, Token},
    serve,
};
use serde_json::{Value, json};

const REPLY: &str = r#"{"model":"qwen3:30b","created_at":"2025-01-01T00:00:00Z","message":{"role":"assistant","content":"ok"},"done":true,"done_reason":"stop","prompt_eval_count":3,"eval_count":1}"#;

/// The settings in `text`, in front of `upstream`.
fn with(upstream: &Upstream, text: &str) -> Config {
    let read = Config::from_toml(text).unwrap();
    Config {
        models: read.models,
        context: read.context,
        tools: read.tools,
        anthropic: read.anthropic,
        ..config(upstream.addr)
    }
}

async fn answering(body: &str) -> Upstream {
    Upstream::answering(raw_response("200 OK", "Content-Type: application/json\r\n", body)).await
}

struct Stage {
    upstream: Upstream,
    proxy: Running,
}

impl Stage {
    async fn new(settings: &str) -> Self {
        Self::replying(settings, REPLY).await
    }

    async fn replying(settings: &str, reply: &str) -> Self {
        let upstream = answering(reply).await;
        let proxy = serve(with(&upstream, settings)).await.unwrap();
        Self { upstream, proxy }
    }

    async fn ask(&self, request: impl AsRef<[u8]>) -> Answer {
        ask(self.proxy.addr(), request).await
    }

    /// The body of the last request to the remote.
    fn body(&self) -> String {
        let text = self.upstream.seen().last().unwrap().text();
        let last = text.rsplit("POST ").next().unwrap();
        last.split_once("\r\n\r\n").unwrap().1.to_owned()
    }

    /// What the remote is asked for `body` on `path`.
    async fn asked(&self, path: &str, body: &str) -> Value {
        let answer = self.ask(post(path, body)).await;
        assert_eq!(answer.code(), 200, "{}", answer.text());
        serde_json::from_str(&self.body()).unwrap()
    }
}

const ALIAS: &str = "[models.\"gpt-4o\"]\nto = \"qwen3:30b\"\n";

#[tokio::test]
async fn only_the_name_changes_in_a_native_body() {
    let stage = Stage::new(ALIAS).await;
    for path in ["/api/chat", "/api/generate", "/api/embed", "/api/embeddings", "/api/show"] {
        for body in [
            r#"{"model":"gpt-4o"}"#,
            "{ \"x\" : [1,{\"model\":\"gpt-4o\"}],\t\"model\" : \"gpt-4o\" , \"prompt\":\"gpt-4o \\u00e9\" }\n",
            r#"{"MODEL":"GPT-4o:latest","a":1.50}"#,
            r#"{"model":"\u0067pt-4o"}"#,
        ] {
            stage.ask(post(path, body)).await;
            let expected =
                ["\"model\" : \"gpt-4o\" ,", "\"model\":\"gpt-4o\"}", "\"GPT-4o:latest\"", r#""\u0067pt-4o""#];
            let replaced =
                ["\"model\" : \"qwen3:30b\" ,", "\"model\":\"qwen3:30b\"}", "\"qwen3:30b\"", "\"qwen3:30b\""];
            // Only the one at the top level.
            let at = expected.iter().position(|name| body.contains(name)).unwrap();
            let at = if body.contains("\"x\"") { 0 } else { at };
            assert_eq!(stage.body(), body.replacen(expected[at], replaced[at], 1), "{path}");
        }
    }
}

#[tokio::test]
async fn other_bodies_pass_unchanged_and_so_do_management_routes() {
    let stage = Stage::new(ALIAS).await;
    for (path, body) in [
        ("/api/chat", r#"{ "model": "qwen3:30b" , "messages": [] }"#),
        ("/api/chat", r#"{"messages":[{"content":"gpt-4o"}]}"#),
        ("/api/chat", "no JSON \"gpt-4o\""),
        ("/api/chat", r#"{"model":5}"#),
        ("/api/delete", r#"{"model":"gpt-4o"}"#),
        ("/api/pull", r#"{"model":"gpt-4o"}"#),
        ("/api/copy", r#"{"source":"gpt-4o","destination":"x"}"#),
        ("/api/create", r#"{"model":"x","from":"gpt-4o"}"#),
    ] {
        stage.ask(post(path, body)).await;
        assert_eq!(stage.body(), body, "{path}");
    }
}

#[tokio::test]
async fn a_long_native_body_streams_on_behind_its_name() {
    let stage = Stage::new(ALIAS).await;
    let image = "a".repeat(3 << 20);
    let body = format!(r#"{{"model":"gpt-4o","images":["{image}"]}}"#);
    stage.ask(post("/api/generate", &body)).await;
    assert_eq!(stage.body(), body.replacen("gpt-4o", "qwen3:30b", 1));
    // Behind more than is read, the name stays.
    let body = format!(r#"{{"images":["{image}"],"model":"gpt-4o"}}"#);
    stage.ask(post("/api/generate", &body)).await;
    assert_eq!(stage.body(), body);
    // Ollama would take the last name, which was not resolved.
    let twice = format!(r#"{{"model":"gpt-4o","images":["{image}"],"model":"other"}}"#);
    let answer = stage.ask(post("/api/generate", &twice)).await;
    assert_eq!(answer.code(), 400, "{}", answer.text());
}

#[tokio::test]
async fn translated_routes_ask_for_the_model_and_answer_under_the_name_that_was_asked_for() {
    let stage = Stage::new(ALIAS).await;
    let chat = r#"{"model":"gpt-4o","messages":[{"role":"user","content":"hi"}]}"#;
    let answer = stage.ask(post("/v1/chat/completions", chat)).await;
    assert_eq!(answer.json()["model"], "gpt-4o");
    assert_eq!(answer.header("x-farllama-receipt"), Some("model=alias:qwen3:30b"));
    let body: Value = serde_json::from_str(&stage.body()).unwrap();
    assert_eq!(body["model"], "qwen3:30b");

    let message = r#"{"model":"gpt-4o","max_tokens":5,"messages":[{"role":"user","content":"hi"}]}"#;
    let answer = stage.ask(post("/v1/messages", message)).await;
    assert_eq!((&answer.json()["model"], answer.code()), (&json!("gpt-4o"), 200), "{}", answer.text());
    let body: Value = serde_json::from_str(&stage.body()).unwrap();
    assert_eq!(body["model"], "qwen3:30b");

    let response = r#"{"model":"gpt-4o","input":"hi"}"#;
    let answer = stage.ask(post("/v1/responses", response)).await;
    assert_eq!((&answer.json()["model"], answer.code()), (&json!("gpt-4o"), 200), "{}", answer.text());
    let body: Value = serde_json::from_str(&stage.body()).unwrap();
    assert_eq!(body["model"], "qwen3:30b");
}

#[tokio::test]
async fn a_preset_fills_what_a_translated_request_leaves_open() {
    let stage = Stage::new(
        "[models.\"gpt-4o\"]\nto = \"qwen3:30b\"\nnum_ctx = 32768\nkeep_alive = \"30m\"\nthink = false\n\
         options = { temperature = 0.5, top_k = 7 }\nsystem = \"Be brief.\"\n[context]\nnum_ctx = 8192\n",
    )
    .await;
    let chat = |more: &str| format!(r#"{{"model":"gpt-4o","messages":[{{"role":"user","content":"hi"}}]{more}}}"#);
    let path = "/v1/chat/completions";
    let body = stage.asked(path, &chat("")).await;
    assert_eq!(body["options"], json!({"temperature": 0.5, "top_k": 7, "num_ctx": 32768}));
    assert_eq!((&body["keep_alive"], &body["think"]), (&json!("30m"), &json!(false)));
    assert_eq!(body["messages"][0], json!({"role": "system", "content": "Be brief."}));

    let own = r#","temperature":0.1,"num_ctx":4096,"keep_alive":-1,"reasoning_effort":"high""#;
    let body = stage.asked(path, &chat(own)).await;
    assert_eq!(body["options"], json!({"temperature": 0.1, "top_k": 7, "num_ctx": 4096}));
    assert_eq!((&body["keep_alive"], &body["think"]), (&json!(-1), &json!("high")));

    let own = r#"{"model":"gpt-4o","messages":[{"role":"developer","content":"x"},{"role":"user","content":"hi"}]}"#;
    let body = stage.asked(path, own).await;
    assert_eq!(body["messages"].as_array().unwrap().len(), 2, "it has one of its own: {body}");

    let plain = r#"{"model":"qwen3:30b","messages":[{"role":"user","content":"hi"}]}"#;
    assert_eq!(stage.asked(path, plain).await["options"], json!({"num_ctx": 8192}), "the preset is the alias's");
}

#[tokio::test]
async fn a_preset_fills_what_a_native_request_leaves_open() {
    let stage = Stage::new(
        "[models.\"gpt-4o\"]\nto = \"qwen3:30b\"\nnum_ctx = 32768\nkeep_alive = \"30m\"\nthink = false\nsystem = \"Be brief.\"\n\
         [models.\"llama3\"]\nnum_ctx = 4096\n",
    )
    .await;
    let messages = r#""messages":[{"role":"user","content":"hi"}]"#;
    stage.ask(post("/api/chat", &format!(r#"{{"model":"gpt-4o",{messages},"options":{{"seed":1}}}}"#))).await;
    let expected = r#"{"model":"qwen3:30b","messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"hi"}],"options":{"num_ctx":32768,"seed":1},"keep_alive":"30m","think":false}"#;
    assert_eq!(stage.body(), expected);
    let own = format!(r#"{{"model":"llama3", {messages} ,"options":{{"num_ctx":1}}}}"#);
    stage.ask(post("/api/chat", &own)).await;
    assert_eq!(stage.body(), own);
    // Read whole, so its name may stand anywhere.
    let image = "a".repeat(3 << 20);
    stage.ask(post("/api/embed", &format!(r#"{{"model":"llama3","input":"{image}"}}"#))).await;
    assert_eq!(stage.body(), format!(r#"{{"model":"llama3","input":"{image}","options":{{"num_ctx":4096}}}}"#));
    stage.ask(post("/api/show", r#"{"model":"gpt-4o"}"#)).await;
    assert_eq!(stage.body(), r#"{"model":"qwen3:30b"}"#, "a preset is about generating");
}

#[tokio::test]
async fn an_alias_is_no_way_around_a_keys_models() {
    let upstream = answering(REPLY).await;
    let keys = [("small", vec!["qwen3:4b"]), ("names-the-alias", vec!["gpt-4o", "gpt-*"])];
    let token = |(name, models): (&str, Vec<&str>)| Token {
        models: Some(models.into_iter().map(str::to_owned).collect()),
        ..Token::new(name, name)
    };
    let auth = Auth { enabled: true, tokens: keys.into_iter().map(token).collect(), ..Auth::default() };
    let settings = "[models.\"gpt-4o\"]\nto = \"qwen3:30b\"\n[models.\"gpt-*\"]\nto = \"qwen3:30b\"\n\
                    [models.mini]\nto = \"qwen3:4b\"\n[models.\"big:70b\"]\nto = \"qwen3:4b\"\n";
    let proxy = serve(Config { auth, ..with(&upstream, settings) }).await.unwrap();
    let code = async |path: &str, key: &str, body: &str| {
        let request = String::from_utf8(post(path, body)).unwrap();
        let request = request.replacen("\r\n", &format!("\r\nAuthorization: Bearer {key}\r\n"), 1);
        ask(proxy.addr(), request).await.code()
    };
    for path in ["/api/chat", "/v1/chat/completions"] {
        let body = |model: &str| format!(r#"{{"model":"{model}","messages":[{{"role":"user","content":"hi"}}]}}"#);
        for (key, model, expected) in [
            ("small", "qwen3:4b", 200),
            ("small", "mini", 200),
            ("small", "gpt-4o", 403),
            ("small", "qwen3:30b", 403),
            ("names-the-alias", "gpt-4o", 403),
            ("names-the-alias", "gpt-anything", 403),
            ("small", "big:70b", 200),
        ] {
            assert_eq!(code(path, key, &body(model)).await, expected, "{path} {key} {model}");
        }
    }
    // What is managed is the model of that very name.
    assert_eq!(code("/api/delete", "small", r#"{"model":"big:70b"}"#).await, 403);
    assert_eq!(code("/api/delete", "small", r#"{"model":"mini"}"#).await, 403);
    // A second name behind the part that is read would run.
    let long = "a".repeat(2 << 20);
    let twice = format!(r#"{{"model":"mini","images":["{long}"],"model":"big:70b"}}"#);
    assert_eq!(code("/api/generate", "small", &twice).await, 400);
}

#[tokio::test]
async fn the_default_takes_the_place_of_unknown_names_alone() {
    let tags = r#"{"models":[{"name":"qwen3:30b","model":"qwen3:30b","modified_at":""}],"message":{"role":"assistant","content":"ok"},"done":true}"#;
    let stage = Stage::replying("[models]\ndefault = \"qwen3:30b\"\n", tags).await;
    for (asked, model) in [("nope", "qwen3:30b"), ("QWEN3:30b", "QWEN3:30b")] {
        let chat = format!(r#"{{"model":"{asked}","messages":[{{"role":"user","content":"hi"}}]}}"#);
        assert_eq!(stage.asked("/v1/chat/completions", &chat).await["model"], model);
        assert_eq!(stage.asked("/api/chat", &chat).await["model"], model);
    }
}

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes()
}

#[tokio::test]
async fn lists_show_aliases_with_the_context_in_force() {
    let tags = r#"{"models":[{"name":"qwen3:30b","model":"qwen3:30b","modified_at":"2025-01-01T00:00:00Z","size":1,"details":{"context_length":262144}},{"name":"embed:latest","model":"embed:latest","modified_at":""}]}"#;
    let settings = "[models.\"gpt-4o\"]\nto = \"qwen3:30b\"\nnum_ctx = 32768\n[models.\"gone\"]\nto = \"absent\"\n[models]\nhidden = [\"embed\"]\n";
    let stage = Stage::replying(settings, tags).await;
    let list = stage.ask(get("/v1/models")).await.json();
    let listed: Vec<_> =
        list["data"].as_array().unwrap().iter().map(|model| (&model["id"], &model["context_length"])).collect();
    assert_eq!(listed, [(&json!("qwen3:30b"), &json!(262_144)), (&json!("gpt-4o"), &json!(32768))]);
    let native = stage.ask(get("/api/tags")).await.json();
    let names: Vec<_> = native["models"].as_array().unwrap().iter().map(|model| &model["model"]).collect();
    assert_eq!(names, ["qwen3:30b", "gpt-4o"]);
    assert_eq!(native["models"][1]["details"]["context_length"], 32768);
    assert_eq!(native["models"][0]["details"]["context_length"], 262_144);
    let anthropic =
        String::from_utf8(get("/v1/models")).unwrap().replacen("\r\n", "\r\nanthropic-version: 2023-06-01\r\n", 1);
    let page = stage.ask(anthropic).await.json();
    assert_eq!((&page["data"][1]["id"], &page["data"][1]["max_input_tokens"]), (&json!("gpt-4o"), &json!(32768)));
}

#[tokio::test]
async fn one_model_is_described_under_its_alias() {
    let show = r#"{"modified_at":"2025-01-01T00:00:00Z","capabilities":["tools"],"model_info":{"general.architecture":"qwen3","qwen3.context_length":262144}}"#;
    let stage = Stage::replying("[models.\"gpt-4o\"]\nto = \"qwen3:30b\"\nnum_ctx = 32768\n", show).await;
    let model = stage.ask(get("/v1/models/gpt-4o")).await.json();
    assert_eq!((&model["id"], &model["context_length"]), (&json!("gpt-4o"), &json!(32768)));
    assert!(stage.upstream.seen().iter().any(|seen| seen.text().contains(r#"{"model":"qwen3:30b"}"#)));
    let native = stage.ask(post("/api/show", r#"{"model":"gpt-4o"}"#)).await.text();
    assert_eq!(native, show.replace("262144", "32768"));
    let own = stage.ask(post("/api/show", r#"{"model":"qwen3:30b"}"#)).await.text();
    assert_eq!(own, show);
}

#[tokio::test]
async fn without_entries_lists_pass_byte_for_byte() {
    let tags = "{\"models\" : [ {\"name\":\"a:latest\"} ] }\n";
    let stage = Stage::replying("", tags).await;
    assert_eq!(stage.ask(get("/api/tags")).await.text(), tags);
}

#[tokio::test]
async fn native_calls_are_repaired_where_the_settings_say_so() {
    let line = r#"{"model":"m","message":{"role":"assistant","content":"","tool_calls":[{"function":{"name":"getWeather","arguments":{"days":"3"}}}]},"done":true}"#;
    let tools = r#""tools":[{"type":"function","function":{"name":"get_weather","parameters":{"type":"object","properties":{"days":{"type":"integer"}}}}}]"#;
    let chat = format!(r#"{{"model":"m","messages":[{{"role":"user","content":"hi"}}],{tools}}}"#);
    for (settings, repairs) in [
        ("", false),
        ("[tools]\nrepair_native = true\n", true),
        ("[models.m]\ntools = { repair_native = true }\n", true),
        ("[tools]\nrepair_native = true\n[models.m]\ntools = { repair = \"off\" }\n", false),
    ] {
        let stage = Stage::replying(settings, line).await;
        let answer = stage.ask(post("/api/chat", &chat)).await.text();
        let expected =
            if repairs { line.replace("getWeather", "get_weather").replace("\"3\"", "3") } else { line.to_owned() };
        assert_eq!(answer, expected, "{settings}");
        assert_eq!(stage.body(), chat, "{settings}");
    }
}

#[tokio::test]
async fn tools_are_set_for_single_models() {
    let reply = r#"{"model":"m","message":{"role":"assistant","content":"","tool_calls":[{"function":{"name":"get_weather","arguments":{"days":"3"}}}]},"done":true,"done_reason":"stop"}"#;
    let tools = r#""tools":[{"type":"function","function":{"name":"get_weather","parameters":{"type":"object","properties":{"days":{"type":"integer"}}}}}]"#;
    let stage = Stage::replying("[models.small]\nto = \"m\"\ntools = { repair = \"off\" }\n", reply).await;
    for (model, arguments) in [("m", "{\"days\":3}"), ("small", "{\"days\":\"3\"}")] {
        let chat = format!(r#"{{"model":"{model}","messages":[{{"role":"user","content":"hi"}}],{tools}}}"#);
        let answer = stage.ask(post("/v1/chat/completions", &chat)).await.json();
        let call = &answer["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"];
        assert_eq!(call, arguments, "{model}");
    }
}
