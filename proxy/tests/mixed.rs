//! Ollamas and OpenAI servers side by side (`[[remotes]]` with a `kind` each).

use std::net::SocketAddr;

use crate::bridge::{Asked, Server, hello, json_response, lines};
use crate::program::Program;
use crate::support::{Answer, ask, post};
use axum::response::{IntoResponse, Response};
use farllama::{Config, Running, serve};
use mock_ollama::{Mock, Options, Script, Stock};
use serde_json::{Value, json};

/// An Ollama with these models.
async fn ollama(models: &[&str]) -> Mock {
    let models = models.iter().map(|model| model.parse().unwrap()).collect();
    Mock::start_with(Options { stock: Stock::Empty, models, ..Options::default() }, Script::default()).await.unwrap()
}

/// A proxy before an Ollama and an OpenAI server, the preferred one first, with more settings.
async fn proxy(remotes: [(&str, SocketAddr); 2], more: &str) -> Running {
    let mut text = format!("[local]\nport = 0\n[health]\ninterval = \"100ms\"\n{more}\n");
    for (kind, addr) in remotes {
        let key = if kind == "ollama" { "" } else { "key = \"remote-key\"\n" };
        let path = if kind == "openai" { "/v1" } else { "" };
        text += &format!("[[remotes]]\nname = \"{kind}\"\nkind = \"{kind}\"\nurl = \"http://{addr}{path}\"\n{key}");
    }
    serve(Config::from_toml(&text).unwrap()).await.unwrap()
}

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes()
}

/// What is asked at `path`.
fn body(path: &str, model: &str) -> String {
    let mut body = json!({"model": model, "max_tokens": 9, "stream": false});
    match path {
        "/api/generate" | "/v1/completions" => body["prompt"] = "hi".into(),
        "/v1/responses" => body = json!({"model": model, "input": "hi"}),
        _ => body["messages"] = json!([{"role": "user", "content": "hi"}]),
    }
    body.to_string()
}

fn chat(model: &str) -> String {
    body("/api/chat", model)
}

/// The paths that a server was asked for, but for its lists and what it is asked only to find out whether it has a
/// route.
fn asked(server: &Server) -> Vec<String> {
    let asked = server.asked().into_iter().filter(|asked| asked.method == "POST" && asked.body != b"{}");
    asked.map(|asked| asked.path).collect()
}

fn asked_of(mock: &Mock) -> Vec<String> {
    let entries = mock.journal().entries();
    entries.into_iter().filter(|entry| entry.method == "POST").map(|entry| entry.target).collect()
}

#[tokio::test]
async fn each_request_goes_where_its_model_is_in_the_words_of_that_remote() {
    let (mock, server) = (ollama(&["llama", "all-minilm"]).await, Server::start(hello).await);
    let proxy = proxy([("ollama", mock.addr()), ("openai", server.addr)], "").await;
    for path in [ROUTES.as_slice(), &["/v1/completions"]].concat() {
        let there = if path == "/v1/completions" { path } else { "/v1/chat/completions" };
        let before = (asked(&server).len(), asked_of(&mock).len());
        let local = ask(proxy.addr(), post(path, &body(path, "llama"))).await;
        assert_eq!(local.code(), 200, "{path}: {}", local.text());
        assert_eq!((asked(&server).len(), asked_of(&mock).len()), (before.0, before.1 + 1), "{path}");
        assert!(asked_of(&mock).last().unwrap().starts_with("/api/"), "{path}");
        let remote = ask(proxy.addr(), post(path, &body(path, "org/m"))).await;
        assert_eq!(asked(&server).last().map(String::as_str), Some(there), "{path}: {}", remote.text());
        assert_eq!((asked(&server).len(), asked_of(&mock).len()), (before.0 + 1, before.1 + 1), "{path}");
        let key = server.asked().pop().unwrap().header("authorization").map(str::to_owned);
        assert_eq!(key.as_deref(), Some("Bearer remote-key"));
    }
    let embedded = ask(proxy.addr(), post("/api/embed", r#"{"model":"e","input":"hi"}"#)).await;
    assert_eq!(embedded.json()["embeddings"], json!([[0.6, 0.8]]));
    let streamed = ask(proxy.addr(), post("/api/chat", &chat("org/m").replace("false", "true"))).await;
    assert_eq!(lines(&streamed).last().unwrap()["done"], true, "{}", streamed.text());
}

#[tokio::test]
async fn what_passes_through_to_an_openai_server_is_unchanged_but_for_a_name_of_ours() {
    let echo = |asked: &Asked| match &*asked.path {
        "/v1/models" => hello(asked),
        _ => {
            let mut response = asked.body.clone().into_response();
            response.headers_mut().insert("x-request-id", "theirs".parse().unwrap());
            response
        }
    };
    let (mock, server) = (ollama(&["llama"]).await, Server::start(echo).await);
    let aliases = "[models.\"gpt-4o\"]\nto = \"org/m\"";
    let proxy = proxy([("ollama", mock.addr()), ("openai", server.addr)], aliases).await;
    for asked in ["org/m", "org/m:latest", "ORG/M", "gpt-4o"] {
        let body = |name: &str| format!("{{ \"odd\" : 1.0,\n\"model\":\"{name}\", \"messages\":[] }}");
        for path in ["/v1/chat/completions", "/v1/audio/speech"] {
            let answer = ask(proxy.addr(), post(path, &body(asked))).await;
            assert_eq!((answer.code(), answer.text()), (200, body("org/m")), "{path} {asked}");
            assert_eq!(answer.header("x-request-id"), Some("theirs"), "the response is the server's");
        }
    }
    let unknown = ask(proxy.addr(), post("/v1/rerank", "{ }")).await;
    assert_eq!((unknown.code(), &*unknown.text()), (200, "{ }"), "Ollama has no such route");
    let native = ask(proxy.addr(), get("/api/experimental")).await;
    assert_eq!((native.code(), server.asked().iter().any(|asked| asked.path.contains("/api/"))), (404, false));
}

#[tokio::test]
async fn lists_are_one_and_models_are_shown_where_they_are() {
    let (mock, server) = (ollama(&["llama"]).await, Server::start(hello).await);
    let proxy = proxy([("ollama", mock.addr()), ("openai", server.addr)], "").await;
    let tags = ask(proxy.addr(), get("/api/tags")).await;
    let names = |answer: &Answer, list: &str, field: &str| -> Vec<String> {
        let json: Value = answer.json();
        let mut names: Vec<_> =
            json[list].as_array().unwrap().iter().map(|model| model[field].as_str().unwrap().to_owned()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&tags, "models", "name"), ["e:latest", "llama:latest", "org/m:latest"]);
    let receipt = tags.header("x-farllama-receipt").unwrap();
    assert!(receipt.contains("org/m:latest=openai") && receipt.contains("llama:latest=ollama"), "{receipt}");
    let models = ask(proxy.addr(), get("/v1/models")).await;
    assert_eq!(names(&models, "data", "id"), ["e", "llama:latest", "org/m"], "each as its server calls it");
    assert!(models.header("x-farllama-receipt").unwrap().contains("org/m=openai"), "{models:?}");
    let missing = ask(proxy.addr(), post("/v1/chat/completions", &chat("gone"))).await;
    assert!(missing.message().contains("openai has org/m, e"), "{}", missing.text());
    let missing = ask(proxy.addr(), post("/api/chat", &chat("gone"))).await;
    assert!(missing.text().contains("openai has org/m:latest, e:latest"), "{}", missing.text());
    for path in ["/v1/models/org/m", "/v1/models/llama"] {
        assert_eq!(ask(proxy.addr(), get(path)).await.code(), 200, "{path}");
    }
    for (model, key) in [("org/m", "m.context_length"), ("llama", "general.architecture")] {
        let shown = ask(proxy.addr(), post("/api/show", &json!({"model": model}).to_string())).await.json();
        assert!(!shown["model_info"][key].is_null(), "{shown}");
    }
    let ps = ask(proxy.addr(), get("/api/ps")).await;
    assert_eq!(names(&ps, "models", "name"), ["org/m:latest"]);
}

#[tokio::test]
async fn models_are_managed_on_the_ollama_and_pulled_at_once_where_an_openai_server_has_them() {
    let (mock, server) = (ollama(&["llama"]).await, Server::start(hello).await);
    let proxy = proxy([("openai", server.addr), ("ollama", mock.addr())], "").await;
    assert_eq!(ask(proxy.addr(), get("/api/tags")).await.code(), 200);
    let pulled = ask(proxy.addr(), post("/api/pull", r#"{"model":"org/m","stream":false}"#)).await;
    assert_eq!((&pulled.json()["status"], asked_of(&mock).len()), (&json!("success"), 0));
    let copied = ask(proxy.addr(), post("/api/copy", r#"{"source":"llama","destination":"mine"}"#)).await;
    assert_eq!((copied.code(), asked_of(&mock)), (200, vec!["/api/copy".to_owned()]), "{}", copied.text());
}

/// A server that has the models of [`hello`], and `llama`, and answers everything else with `status`.
async fn failing(status: u16) -> Server {
    Server::start(move |asked: &Asked| -> Response {
        match &*asked.path {
            "/v1/models" => json_response(200, &json!({"data": [{"id": "llama"}]})),
            _ => json_response(status, &json!({"error": {"message": "not now"}})),
        }
    })
    .await
}

const ROUTES: [&str; 5] = ["/api/chat", "/api/generate", "/v1/chat/completions", "/v1/responses", "/v1/messages"];

#[tokio::test]
async fn a_request_that_an_openai_server_did_not_serve_goes_on_to_an_ollama() {
    for (status, expected) in [(503, 200), (502, 200), (500, 500), (400, 400)] {
        for path in ROUTES {
            let (mock, server) = (ollama(&["llama"]).await, failing(status).await);
            let proxy = proxy([("openai", server.addr), ("ollama", mock.addr())], "").await;
            let answer = ask(proxy.addr(), post(path, &body(path, "llama"))).await;
            assert_eq!(answer.code(), expected, "{path}: {}", answer.text());
            assert_eq!(asked_of(&mock).len(), usize::from(expected == 200), "{path} {status}");
            assert!(!asked(&server).is_empty(), "it is preferred");
        }
    }
}

#[tokio::test]
async fn a_request_that_an_ollama_did_not_serve_goes_on_to_an_openai_server() {
    for path in ROUTES {
        let (mock, server) = (ollama(&["e"]).await, Server::start(hello).await);
        let (addr, remotes) = (mock.addr(), ["ollama", "openai"]);
        let proxy = proxy([(remotes[0], addr), (remotes[1], server.addr)], "models_age = \"1h\"").await;
        assert_eq!(ask(proxy.addr(), post(path, &body(path, "e"))).await.code(), 200, "{path}");
        assert_eq!((asked_of(&mock).len(), asked(&server).len()), (1, 0), "{path}: it is preferred");
        drop(mock);
        let answer = ask(proxy.addr(), post(path, &body(path, "e"))).await;
        assert_eq!((answer.code(), asked(&server).len()), (200, 1), "{path}: {}", answer.text());
    }
}

#[tokio::test]
async fn where_all_fail_the_best_remote_says_why() {
    let (mock, server) = (ollama(&["llama"]).await, failing(503).await);
    let proxy = proxy([("openai", server.addr), ("ollama", mock.addr())], "models_age = \"1h\"").await;
    assert_eq!(ask(proxy.addr(), get("/api/tags")).await.code(), 200);
    drop(mock);
    for path in ["/api/chat", "/v1/chat/completions"] {
        let answer = ask(proxy.addr(), post(path, &body(path, "llama"))).await;
        assert_eq!(answer.code(), 503, "{path}: {}", answer.text());
        assert!(answer.text().contains("not now"), "{path}: {}", answer.text());
    }
}

#[tokio::test]
async fn an_openai_server_that_dies_leaves_and_returns() {
    let (a, b) = (failing(503).await, Server::start(hello).await);
    let proxy = proxy([("openai", a.addr), ("auto", b.addr)], "").await;
    assert_eq!(ask(proxy.addr(), post("/api/chat", &chat("org/m"))).await.code(), 200, "what b speaks is found out");
    let passed = ask(proxy.addr(), post("/v1/chat/completions", &chat("org/m"))).await;
    assert_eq!(passed.json()["choices"][0]["message"]["content"], "Hello", "{}", passed.text());
    assert_eq!(ask(proxy.addr(), post("/api/chat", &chat("llama"))).await.code(), 503);
}

#[tokio::test]
async fn a_list_of_urls_names_openai_servers_by_their_path() {
    let (mock, server) = (ollama(&["llama"]).await, Server::start(hello).await);
    let remotes = format!("box=http://{},vllm=http://{}/v1", mock.addr(), server.addr);
    let program = Program::start(&["--remotes", &remotes, "--remote-probe", "0s"], &[]);
    let addr = program.addr;
    for model in ["llama", "org/m"] {
        let answer = ask(addr, post("/api/chat", &chat(model))).await;
        assert_eq!(answer.code(), 200, "{}", answer.text());
    }
    assert_eq!((asked_of(&mock).len(), asked(&server).len()), (1, 1));
}
