//! Ollama's API over a server that speaks OpenAI's, and OpenAI's own routes passing through to it.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
};

use crate::support::{self, Answer, Client, STREAM_END, ask, chunk, config, post};
use axum::{
    Router,
    body::to_bytes,
    extract::Request,
    response::{IntoResponse, Response},
};
use farllama::{Config, Running, config::Kind, serve};
use mock_ollama::{Mock, Options, Script, Stock};
use serde_json::{Value, json};

/// A request that the OpenAI server got.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) path: String,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Asked {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| &**value)
    }
}

/// A scripted OpenAI server that records its requests.
pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    pub(crate) async fn start(answer: impl Fn(&Asked) -> Response + Clone + Send + Sync + 'static) -> Self {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (seen, answer) = (asked.clone(), Arc::new(answer));
        let handler = move |request: Request| {
            let (seen, answer) = (seen.clone(), answer.clone());
            async move {
                let (parts, body) = request.into_parts();
                let headers = parts.headers.iter();
                let asked = Asked {
                    method: parts.method.to_string(),
                    path: parts.uri.to_string(),
                    headers: headers
                        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
                        .collect(),
                    body: to_bytes(body, usize::MAX).await.unwrap().to_vec(),
                };
                seen.lock().unwrap().push(asked.clone());
                answer(&asked)
            }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(handler)).await });
        Self { addr, asked }
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

fn settings(upstream: SocketAddr) -> Config {
    let mut config = config(upstream);
    config.remote.kind = Kind::OpenAi;
    config
}

async fn proxy(upstream: SocketAddr) -> Running {
    serve(settings(upstream)).await.unwrap()
}

pub(crate) fn json_response(status: u16, body: &Value) -> Response {
    let head = [("content-type", "application/json")];
    (http::StatusCode::from_u16(status).unwrap(), head, body.to_string()).into_response()
}

fn events(events: &[Value]) -> Response {
    let mut text: String = events.iter().map(|event| format!("data: {event}\n\n")).collect();
    text += "data: [DONE]\n\n";
    ([("content-type", "text/event-stream; charset=utf-8")], text).into_response()
}

fn delta(delta: &Value, finish: Option<&str>) -> Value {
    json!({"id": "c", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})
}

pub(crate) fn hello(asked: &Asked) -> Response {
    let usage = json!({"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9});
    match (&*asked.path, asked.body.windows(13).any(|part| part == b"\"stream\":true")) {
        ("/v1/models", _) => json_response(
            200,
            &json!({"object": "list", "data": [{"id": "org/m", "created": 1_700_000_000, "max_model_len": 4096}, {"id": "e"}]}),
        ),
        ("/v1/chat/completions", true) => events(&[
            delta(&json!({"role": "assistant", "content": ""}), None),
            delta(&json!({"content": "Hel"}), None),
            delta(&json!({"content": "lo"}), None),
            delta(&json!({}), Some("stop")),
            json!({"choices": [], "usage": usage}),
        ]),
        ("/v1/chat/completions", false) => json_response(
            200,
            &json!({"choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}], "usage": usage}),
        ),
        ("/v1/embeddings", _) => json_response(200, &json!({"data": [{"index": 0, "embedding": [3, 4]}]})),
        _ => json_response(404, &json!({"error": {"message": "no such route"}})),
    }
}

const CHAT: &str = r#"{"model":"org/m:latest","messages":[{"role":"user","content":"hi"}],"options":{"num_ctx":4096}}"#;

pub(crate) fn lines(answer: &Answer) -> Vec<Value> {
    answer.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn unstreamed(body: &str) -> String {
    body.replacen('{', "{\"stream\":false,", 1)
}

#[tokio::test]
async fn a_chat_streams_in_ollamas_lines_and_the_callers_key_stays_here() {
    let server = Server::start(hello).await;
    let mut config = settings(server.addr);
    config.remote.authorization = Some("Bearer remote-key".parse().unwrap());
    let proxy = serve(config).await.unwrap();
    let request = String::from_utf8(post("/api/chat", CHAT)).unwrap();
    let request = request.replace("Host:", "Authorization: Bearer callers-key\r\nX-Api-Key: callers-key\r\nHost:");
    let answer = ask(proxy.addr(), request).await;
    assert_eq!((answer.code(), answer.header("content-type")), (200, Some("application/x-ndjson")));
    assert!(answer.header("x-farllama-receipt").unwrap().contains("options.num_ctx=no-effect"));
    let lines = lines(&answer);
    let said: Vec<_> = lines.iter().map(|line| line["message"]["content"].as_str().unwrap()).collect();
    assert_eq!(said, ["Hel", "lo", ""]);
    assert!(lines.iter().all(|line| line["model"] == "org/m:latest"));
    let last = &lines[2];
    assert_eq!((&last["done"], &last["done_reason"], &last["eval_count"]), (&json!(true), &json!("stop"), &json!(2)));
    assert!(last["total_duration"].as_u64().unwrap() > 0);
    let asked = server.asked().into_iter().find(|asked| asked.path == "/v1/chat/completions").unwrap();
    assert_eq!(asked.json()["model"], "org/m");
    assert_eq!(asked.header("authorization"), Some("Bearer remote-key"));
    assert!(asked.headers.iter().all(|(_, value)| !value.contains("callers-key")));
}

#[tokio::test]
async fn whole_answers_vectors_and_models_have_ollamas_form() {
    let server = Server::start(hello).await;
    let proxy = proxy(server.addr).await;
    let whole = ask(proxy.addr(), post("/api/chat", &unstreamed(CHAT))).await;
    assert_eq!(whole.header("content-type"), Some("application/json; charset=utf-8"));
    assert_eq!((&whole.json()["message"]["content"], &whole.json()["done"]), (&json!("Hello"), &json!(true)));
    let generated = ask(proxy.addr(), post("/api/generate", r#"{"model":"org/m","prompt":"hi","stream":false}"#)).await;
    assert_eq!(generated.json()["response"], "Hello");
    let embedded = ask(proxy.addr(), post("/api/embed", r#"{"model":"e","input":"hi"}"#)).await;
    assert_eq!(embedded.json()["embeddings"], json!([[0.6, 0.8]]));
    let get = |method: &str, path: &str| format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let tags = ask(proxy.addr(), get("GET", "/api/tags")).await.json();
    assert_eq!((&tags["models"][0]["name"], &tags["models"][1]["name"]), (&json!("org/m:latest"), &json!("e:latest")));
    let ps = ask(proxy.addr(), get("GET", "/api/ps")).await.json();
    let loaded: Vec<_> = ps["models"].as_array().unwrap().iter().map(|model| model["name"].as_str().unwrap()).collect();
    assert_eq!(loaded, ["org/m:latest", "e:latest"], "one that the server says it holds, and one that has answered");
    let unloaded = ask(proxy.addr(), post("/api/generate", r#"{"model":"e","keep_alive":0}"#)).await.json();
    assert_eq!(unloaded["done_reason"], "unload");
    let ps = ask(proxy.addr(), get("GET", "/api/ps")).await.json();
    assert_eq!(ps["models"].as_array().unwrap().len(), 1);
    let show = ask(proxy.addr(), post("/api/show", r#"{"name":"org/m"}"#)).await.json();
    assert_eq!(show["model_info"]["m.context_length"], 4096);
    let version = ask(proxy.addr(), get("GET", "/api/version")).await.json();
    assert_eq!((&version["version"], &version["remote_kind"]), (&json!("0.33.0"), &json!("openai")));
    assert_eq!(ask(proxy.addr(), get("GET", "/")).await.text(), "Ollama is running");
    let mut head =
        Client::sending(proxy.addr(), get("HEAD", "/").replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")).await;
    assert!(head.until("\r\n\r\n").await.to_ascii_lowercase().contains("content-length: 17"));
    let pulled = ask(proxy.addr(), post("/api/pull", r#"{"model":"org/m"}"#)).await;
    assert_eq!(lines(&pulled).last().unwrap()["status"], "success");
    let absent = ask(proxy.addr(), post("/api/pull", r#"{"model":"x"}"#)).await;
    assert!(
        lines(&absent).last().unwrap()["error"]
            .as_str()
            .unwrap()
            .starts_with("pull model manifest: file does not exist")
    );
    let created = ask(proxy.addr(), post("/api/create", r#"{"model":"x","from":"org/m"}"#)).await;
    assert_eq!(created.code(), 501);
    assert!(created.json()["error"].as_str().unwrap().contains("OpenAI server"));
    let wrong = ask(proxy.addr(), get("GET", "/api/chat")).await;
    assert_eq!((wrong.code(), wrong.header("allow"), &*wrong.text()), (405, Some("POST"), "405 method not allowed"));
}

#[tokio::test]
async fn openais_routes_pass_through_byte_for_byte_to_where_the_remote_has_them() {
    let server = Server::start(|asked| (http::StatusCode::IM_A_TEAPOT, asked.body.clone()).into_response()).await;
    let mut config = settings(server.addr);
    config.remote.base_path = "/api/v9".to_owned();
    config.remote.authorization = Some("Bearer remote-key".parse().unwrap());
    let proxy = serve(config).await.unwrap();
    for (path, there) in [
        ("/v1/chat/completions?x=1", "/api/v9/chat/completions?x=1"),
        ("/v1/embeddings", "/api/v9/embeddings"),
        ("/v1/files/f/content", "/api/v9/files/f/content"),
        ("/v1/rerank", "/api/v9/rerank"),
    ] {
        let body = "{ \"model\":\"m\",\n\"odd\" : 1.0 }";
        let request =
            String::from_utf8(post(path, body)).unwrap().replace("Host:", "Authorization: Bearer mine\r\nHost:");
        let answer = ask(proxy.addr(), request).await;
        assert_eq!((answer.code(), &*answer.text()), (418, body), "{path}");
        let asked = server.asked().pop().unwrap();
        assert_eq!((&*asked.path, asked.header("authorization")), (there, Some("Bearer remote-key")));
    }
    let models = ask(proxy.addr(), "GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!((models.code(), &*server.asked().pop().unwrap().path), (418, "/api/v9/models"));
    let before = server.asked().len();
    for path in ["/v1/../admin", "/v1/%2e%2e/admin", "/api/status", "/metrics"] {
        let answer = ask(proxy.addr(), format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
        assert!(answer.code() == 400 || answer.code() == 404, "{path}: {}", answer.status);
    }
    assert_eq!(server.asked().len(), before, "none of them is asked there");
}

#[tokio::test]
async fn refusals_have_ollamas_words_and_status() {
    let server = Server::start(|asked| {
        let body = asked.json();
        match body["model"].as_str().unwrap() {
            "nope" => json_response(
                404,
                &json!({"error": {"message": "The model `nope` does not exist.", "code": "model_not_found"}}),
            ),
            "busy" => {
                let mut response =
                    json_response(429, &json!({"error": {"message": "Rate limit reached", "type": "requests"}}));
                response.headers_mut().insert("retry-after", "7".parse().unwrap());
                response
            }
            "broken" => json_response(500, &json!({"error": "the engine is dead"})),
            // A failure where the first event should be.
            _ => (
                [("content-type", "text/event-stream")],
                "data: {\"error\":{\"message\":\"out of memory\",\"code\":503}}\n\n",
            )
                .into_response(),
        }
    })
    .await;
    let proxy = proxy(server.addr).await;
    let chat = |model: &str| {
        post("/api/chat", &format!(r#"{{"model":"{model}","messages":[{{"role":"user","content":"x"}}]}}"#))
    };
    for (model, status, text) in [
        ("nope", 404, "model 'nope' not found"),
        ("busy", 429, "Rate limit reached"),
        ("broken", 500, "the engine is dead"),
        ("early", 503, "out of memory"),
    ] {
        let answer = ask(proxy.addr(), chat(model)).await;
        assert_eq!((answer.code(), answer.json()), (status, json!({"error": text})), "{model}");
        assert_eq!(answer.header("content-type"), Some("application/json; charset=utf-8"));
        assert_eq!(answer.header("retry-after").is_some(), model == "busy" || status == 503, "{model}");
    }
    let embed = ask(proxy.addr(), post("/api/embed", r#"{"model":"nope","input":"x"}"#)).await;
    assert_eq!(embed.json(), json!({"error": "model \"nope\" not found, try pulling it first"}));
    for (path, body, text) in [
        ("/api/chat", "", "missing request body"),
        ("/api/chat", r#"{"model": "smollm2:135m", "#, "unexpected EOF"),
        ("/api/show", "{}", "model is required"),
    ] {
        let answer = ask(proxy.addr(), post(path, body)).await;
        assert_eq!((answer.code(), answer.json()), (400, json!({"error": text})), "{path} {body}");
    }
}

#[tokio::test]
async fn a_stream_that_breaks_off_is_never_done() {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    let event = |event: &Value| chunk(&format!("data: {event}\n\n"));
    let said = event(&delta(&json!({"content": "Hel"}), None));
    let failed = event(&json!({"error": {"message": "CUDA out of memory"}}));
    for (acts, text) in [
        // The connection breaks.
        ([head.as_bytes(), &said].concat(), "broke off"),
        // The body ends in order, but too soon.
        ([head.as_bytes(), &said, STREAM_END.as_bytes()].concat(), "before it was done"),
        // The server says what went wrong.
        ([head.as_bytes(), &said, &failed, STREAM_END.as_bytes()].concat(), "CUDA out of memory"),
    ] {
        let upstream = support::Upstream::start(vec![support::Act::Write(acts), support::Act::Close]).await;
        let proxy = proxy(upstream.addr).await;
        let answer = ask(proxy.addr(), post("/api/chat", &CHAT.replace(":latest", ""))).await;
        let lines = lines(&answer);
        assert_eq!(lines[0]["message"]["content"], "Hel");
        assert!(lines[1]["error"].as_str().unwrap().contains(text), "{text}: {}", answer.text());
        assert_eq!((lines.len(), answer.whole), (2, false), "and the connection is cut");
    }
}

#[tokio::test]
async fn fields_that_the_server_refuses_are_left_out_and_remembered() {
    let server = Server::start(|asked| {
        let body = asked.json();
        for (field, message) in [
            ("top_k", "Unrecognized request argument supplied: top_k"),
            ("max_tokens", "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."),
        ] {
            if body.get(field).is_some() {
                return json_response(400, &json!({"error": {"message": message, "type": "invalid_request_error"}}));
            }
        }
        hello(asked)
    })
    .await;
    let proxy = proxy(server.addr).await;
    let body = r#"{"model":"m","stream":false,"messages":[{"role":"user","content":"x"}],"options":{"top_k":5,"num_predict":3,"temperature":0}}"#;
    for expected in [3, 4] {
        let answer = ask(proxy.addr(), post("/api/chat", body)).await;
        assert_eq!(answer.json()["message"]["content"], "Hello", "{}", answer.text());
        assert_eq!(answer.header("x-farllama-receipt"), Some("options.top_k=no-effect"));
        let asked = server.asked();
        assert_eq!(asked.len(), expected, "the second request knows");
        let last = asked.last().unwrap().json();
        assert_eq!((&last["max_completion_tokens"], &last["temperature"]), (&json!(3), &json!(0)));
    }
}

#[tokio::test]
async fn responses_and_messages_are_made_of_its_chats() {
    let server = Server::start(hello).await;
    let proxy = proxy(server.addr).await;
    let response = ask(proxy.addr(), post("/v1/responses", r#"{"model":"org/m","input":"hi"}"#)).await;
    assert_eq!(response.json()["output"][0]["content"][0]["text"], "Hello", "{}", response.text());
    assert_eq!(response.json()["usage"]["output_tokens"], 2);
    let streamed = ask(proxy.addr(), post("/v1/responses", r#"{"model":"org/m","input":"hi","stream":true}"#)).await;
    assert!(streamed.text().contains("event: response.completed"), "{}", streamed.text());
    let message = r#"{"model":"org/m","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}"#;
    let message = ask(proxy.addr(), post("/v1/messages", message)).await;
    assert_eq!(message.json()["content"][0]["text"], "Hello", "{}", message.text());
    let asked: Vec<_> = server.asked().into_iter().map(|asked| (asked.method, asked.path)).collect();
    let (chat, probe) =
        (("POST", "/v1/chat/completions"), ["/v1/responses", "/v1/messages"].map(|path| ("POST", path)));
    let expected = [probe[0], chat, chat, probe[1], chat].map(|(method, path)| (method.to_owned(), path.to_owned()));
    assert_eq!(asked, expected, "each route is asked for once");
}

#[tokio::test]
async fn a_server_that_has_responses_and_messages_answers_them_itself() {
    let server = Server::start(|asked| match (&*asked.path, &*asked.body) {
        (_, b"{}") => json_response(422, &json!({"detail": "Field required"})),
        ("/v1/responses" | "/v1/messages/count_tokens" | "/v1/responses/resp_1/cancel", body) => {
            (http::StatusCode::ACCEPTED, body.to_vec()).into_response()
        }
        _ => hello(asked),
    })
    .await;
    let mut config = settings(server.addr);
    config.remote.authorization = Some("Bearer remote-key".parse().unwrap());
    let proxy = serve(config).await.unwrap();
    let body = "{ \"model\":\"org/m\", \"input\":\"hi\", \"odd\": 1.0 }";
    for path in ["/v1/responses", "/v1/messages/count_tokens", "/v1/responses", "/v1/responses/resp_1/cancel"] {
        let request = String::from_utf8(post(path, body)).unwrap().replace("Host:", "X-Api-Key: mine\r\nHost:");
        let answer = ask(proxy.addr(), request).await;
        assert_eq!((answer.code(), &*answer.text()), (202, body), "{path}");
        let last = server.asked().pop().unwrap();
        assert_eq!((last.header("authorization"), last.header("x-api-key")), (Some("Bearer remote-key"), None));
    }
    assert_eq!(server.asked().iter().filter(|asked| asked.body == b"{}").count(), 2, "each route is asked for once");
}

#[tokio::test]
async fn anthropics_names_stand_for_models_where_messages_pass_through_too() {
    let server = Server::start(|asked| match &*asked.body {
        b"{}" => json_response(400, &json!({"error": {"message": "model is required"}})),
        body => body.to_vec().into_response(),
    })
    .await;
    let mut config = settings(server.addr);
    config.anthropic.model = "org/m".to_owned();
    let proxy = serve(config).await.unwrap();
    let body = r#"{"max_tokens":9,"model":"claude-opus-4-5","messages":[{"role":"user","content":"hi"}]}"#;
    let answer = ask(proxy.addr(), post("/v1/messages", body)).await;
    assert_eq!((answer.code(), answer.text()), (200, body.replace("claude-opus-4-5", "org/m")));
}

#[tokio::test]
async fn texts_that_are_too_long_to_embed_are_cut_unless_that_is_not_wanted() {
    let server = Server::start(|asked| {
        let body = asked.json();
        let inputs = body["input"].as_array().unwrap().iter().map(|text| text.as_str().unwrap().len());
        if inputs.clone().any(|length| length > 100) {
            let message = "This model's maximum context length is 100 tokens. However, your request has 2700 input tokens.";
            return json_response(400, &json!({"error": {"message": message, "type": "BadRequestError", "code": 400}}));
        }
        json_response(200, &json!({"data": inputs.enumerate().map(|(index, length)| json!({"index": index, "embedding": [length, 0]})).collect::<Vec<_>>()}))
    })
    .await;
    let proxy = proxy(server.addr).await;
    let texts = ["short".to_owned(), "\u{e9}".repeat(1000)];
    let embed = |more: Value| {
        let mut body = json!({"model": "e", "input": texts});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        post("/api/embed", &body.to_string())
    };
    let cut = ask(proxy.addr(), embed(json!({}))).await;
    assert_eq!((cut.code(), cut.header("x-farllama-receipt")), (200, Some("truncate=emulated")), "{}", cut.text());
    let last = server.asked().pop().unwrap().json();
    assert_eq!(last["input"][0], "short", "only what is too long is cut");
    assert!((50..=100).contains(&last["input"][1].as_str().unwrap().len()), "{last}");
    let before = server.asked().len();
    let refused = ask(proxy.addr(), embed(json!({"truncate": false}))).await;
    assert_eq!((refused.code(), refused.header("x-farllama-receipt")), (400, None));
    assert_eq!(server.asked().len(), before + 1);
}

#[tokio::test]
async fn aliases_and_presets_count_where_v1_passes_through() {
    let server = Server::start(hello).await;
    let mut config = Config::from_toml(
        "[models]\nhidden = [\"e\"]\n[models.\"gpt-4o\"]\nto = \"org/m\"\nnum_ctx = 4096\nsystem = \"Be brief.\"\n\
         options = { seed = 3 }\n",
    )
    .unwrap();
    config.local.port = 0;
    config.remote.port = server.addr.port();
    config.remote.kind = Kind::OpenAi;
    let proxy = serve(config).await.unwrap();
    let body = r#"{ "model":"gpt-4o", "odd":1.0,"messages":[{"role":"user","content":"hi"}]}"#;
    let answer = ask(proxy.addr(), post("/v1/chat/completions", body)).await;
    assert_eq!(answer.code(), 200, "{}", answer.text());
    let receipt = answer.header("x-farllama-receipt").unwrap();
    assert_eq!(receipt, "model=alias:org/m, preset.num_ctx=no-effect");
    let expected = r#"{ "model":"org/m", "odd":1.0,"messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"hi"}],"seed":3}"#;
    assert_eq!(String::from_utf8(server.asked().pop().unwrap().body).unwrap(), expected);
    let plain = ask(proxy.addr(), post("/v1/chat/completions", &body.replace("gpt-4o", "org/m"))).await;
    assert_eq!((plain.code(), plain.header("x-farllama-receipt")), (200, None));
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let listed = |list: &Value, field: &str| -> Vec<String> {
        list.as_array().unwrap().iter().map(|model| model[field].as_str().unwrap().to_owned()).collect()
    };
    let models = ask(proxy.addr(), get("/v1/models")).await.json();
    assert_eq!(listed(&models["data"], "id"), ["org/m", "gpt-4o"]);
    let tags = ask(proxy.addr(), get("/api/tags")).await.json();
    assert_eq!(listed(&tags["models"], "name"), ["org/m:latest", "gpt-4o"]);
}

#[tokio::test]
async fn what_the_remote_speaks_is_found_out() {
    let server = Server::start(hello).await;
    let mock = Mock::start(Script::default()).await.unwrap();
    for (upstream, kind) in [(server.addr, Some("openai")), (mock.addr(), None)] {
        let mut config = config(upstream);
        config.remote.kind = Kind::Auto;
        let proxy = serve(config).await.unwrap();
        let version = ask(proxy.addr(), "GET /api/version HTTP/1.1\r\nHost: localhost\r\n\r\n").await.json();
        assert_eq!(version.get("remote_kind").and_then(Value::as_str), kind, "{version}");
    }
}

#[tokio::test]
async fn a_key_with_a_list_of_models_sees_and_uses_no_others() {
    let server = Server::start(hello).await;
    let mut config = Config::from_toml(
        "[auth]\nenabled = true\nkeys = [{ key = \"secret-key\", name = \"ann\", models = [\"e\"] }]",
    )
    .unwrap();
    config.local.port = 0;
    config.remote.port = server.addr.port();
    config.remote.kind = Kind::OpenAi;
    let proxy = serve(config).await.unwrap();
    let keyed = |request: Vec<u8>| {
        String::from_utf8(request).unwrap().replace("Host:", "Authorization: Bearer secret-key\r\nHost:")
    };
    let tags = ask(proxy.addr(), keyed(b"GET /api/tags HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec())).await.json();
    assert_eq!(tags["models"].as_array().unwrap().len(), 1);
    let models = ask(proxy.addr(), keyed(b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec())).await.json();
    assert_eq!(models["data"].as_array().unwrap().len(), 1);
    for body in [CHAT.to_owned(), CHAT.replace("\"model\"", "\"MODEL\""), CHAT.replacen('{', "{\"model\":\"e\",", 1)] {
        let answer = ask(proxy.addr(), keyed(post("/api/chat", &body))).await;
        assert_eq!(answer.code(), 403, "{body}: {}", answer.text());
    }
}

/// Fixtures whose answers cannot be the same, each with the reason.
const DIFFERENT: &[(&str, &str)] = &[
    ("chat/bad-schema", "a refused schema is another server's text"),
    ("chat/debug-render", "only Ollama shows its rendered prompt"),
    ("chat/developer-role", "farllama calls the role system on /v1"),
    ("chat/images-on-plain", "the text for images is the server's"),
    ("chat/no-role", "a message without a role becomes the user's"),
    ("chat/odd-role", "OpenAI has no roles of one's own"),
    ("chat/overflow", "num_ctx has no effect, so the prompt is not cut"),
    ("chat/overflow-history", "num_ctx has no effect, so the prompt is not cut"),
    ("chat/overflow-no-truncate", "num_ctx has no effect"),
    ("chat/overflow-no-truncate-stream", "num_ctx has no effect"),
    ("chat/think-level-on-plain", "farllama lowers thinking on /v1 instead of refusing it"),
    ("chat/think-on-plain", "farllama lowers thinking on /v1 instead of refusing it"),
    ("embed/chat-model", "the text of a model that cannot embed is the server's"),
    ("embed/dimensions-many", "farllama refuses more dimensions than there are on /v1"),
    ("embed/mixed", "OpenAI refuses an empty text"),
    ("embed/overflow", "a text that is too long is cut by its characters, because its tokens are not known"),
    ("embed/overflow-no-truncate", "farllama's own text on /v1"),
    ("generate/context", "refused: OpenAI has no context in tokens"),
    ("generate/embedding-model", "the text of a model that cannot generate is the server's"),
    ("generate/images", "the text for images is the server's"),
    ("generate/overflow", "num_ctx has no effect, so the prompt is not cut"),
    ("generate/overflow-no-truncate", "num_ctx has no effect"),
    ("generate/shift-false", "num_ctx and shift have no effect"),
    ("generate/shift-false-stream", "num_ctx and shift have no effect"),
    ("generate/template", "refused: OpenAI has no template of one's own"),
    ("structured/array-any", "farllama rewrites the schema on /v1, so that all of it is enforced"),
    ("structured/empty-schema", "farllama rewrites the schema on /v1, so that all of it is enforced"),
    ("structured/false-schema", "a refused schema is another server's text"),
    ("structured/pattern-broken", "a refused schema is another server's text"),
    ("structured/pattern-class", "farllama rewrites the schema on /v1, so that all of it is enforced"),
    ("structured/pattern-no-anchor", "farllama rewrites the schema on /v1, so that all of it is enforced"),
    ("structured/prefix-items", "farllama rewrites the schema on /v1, so that all of it is enforced"),
    ("structured/ref-unknown", "a refused schema is another server's text"),
    ("structured/refused-stream", "a refused schema is another server's text"),
    ("structured/top-type-number", "a refused schema is another server's text"),
    ("structured/top-unknown-type", "a refused schema is another server's text"),
    ("structured/true-schema", "farllama rewrites the schema on /v1, so that all of it is enforced"),
    ("tools/no-parameters", "farllama adds parameters on /v1, so that the call is not lost"),
    ("tools/not-a-function", "OpenAI's tools are functions"),
    ("tools/odd-schema", "farllama rewrites the schema on /v1, so that nothing of it is lost"),
    ("tools/result", "farllama numbers the call, which the mock counts as tokens"),
    ("tools/with-format", "farllama lets the model call or answer on /v1"),
];

/// What a client makes of an answer: the parts of its lines together, without times, and ids only as whether there are
/// any.
fn meaning(answer: &Answer) -> Value {
    let mut reported = json!({"status": answer.code(), "type": answer.header("content-type")});
    let mut text = |name: &str, part: &Value| {
        if let Some(part) = part.as_str().filter(|part| !part.is_empty()) {
            reported[name] = format!("{}{part}", reported[name].as_str().unwrap_or_default()).into();
        }
    };
    let (mut calls, mut logprobs, mut last) = (Vec::new(), Vec::new(), Value::Null);
    for line in lines(answer) {
        text("content", &line["message"]["content"]);
        text("thinking", &line["message"]["thinking"]);
        text("response", &line["response"]);
        text("thinking", &line["thinking"]);
        text("error", &line["error"]);
        for call in line["message"]["tool_calls"].as_array().into_iter().flatten() {
            calls.push(json!({"function": call["function"], "id": call["id"].is_string()}));
        }
        logprobs.extend(line["logprobs"].as_array().cloned().unwrap_or_default());
        last = line;
    }
    for name in ["done", "done_reason", "eval_count", "prompt_eval_count", "embeddings", "embedding", "model"] {
        if !last[name].is_null() {
            reported[name] = last[name].clone();
        }
    }
    reported["calls"] = calls.into();
    reported["logprobs"] = logprobs.into();
    reported
}

#[tokio::test]
async fn there_and_back_again_the_recorded_requests_have_the_same_answers() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../mock-ollama/fixtures/0.33.0-rc2");
    let options = Options { version: "0.33.0-rc2".parse().unwrap(), stock: Stock::Recorded, ..Options::default() };
    // The mock's own words depend on the route, and generate goes over chat.
    const WORDS: &str = "Hello to the world, it is a fine day for a walk.";
    let says = |path: &str| Script::on(path).says(WORDS);
    let both = |text: &str| says("/api/generate").containing(text).and(says("/api/chat").containing(text));
    let script = ["Say hello to the world.", "Once upon", "smiling", "<think>", "What is 2+2?", "sunny"].map(both);
    let script = script.into_iter().fold(Script::default(), Script::and);
    let mock = Mock::start_with(options, script).await.unwrap();
    let mut behind = config(mock.addr());
    // As other servers' completions are.
    behind.completions.raw = true;
    let openai = serve(behind).await.unwrap();
    let bridge = proxy(openai.addr()).await;
    let (mut same, mut errors, mut different, mut wrong) = (0, 0, 0, Vec::new());
    let mut files: Vec<_> = ["two-documents", "trailing-garbage", "bom", "content-encoding", "no-content-type"]
        .map(|name| root.join("http").join(name).with_extension("json"))
        .into_iter()
        .filter(|file| file.exists())
        .collect();
    for area in ["chat", "generate", "embed", "thinking", "tools", "structured", "logprobs-raw", "show"] {
        files.extend(fs::read_dir(root.join(area)).unwrap().map(|file| file.unwrap().path()));
    }
    files.sort();
    for file in files {
        let part = |path: &Path| path.file_stem().unwrap().to_str().unwrap().to_owned();
        let name = format!("{}/{}", part(file.parent().unwrap()), part(&file));
        let recording: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        let request = &recording["request"];
        let body = request["body"].as_str().unwrap_or_default();
        let bytes = post(request["path"].as_str().unwrap(), body);
        let (direct, bridged) = (ask(mock.addr(), &bytes).await, ask(bridge.addr(), &bytes).await);
        let (direct, bridged) = (meaning(&direct), meaning(&bridged));
        let reason = DIFFERENT.iter().find(|(known, _)| *known == name);
        match (direct == bridged, reason) {
            (true, None) => same += 1,
            (false, Some(_)) => different += 1,
            (true, Some((_, reason))) => wrong.push(format!("{name}: the same after all ({reason})")),
            (false, None) => wrong.push(format!("{name}: {body:.300}\n  direct  {direct}\n  bridged {bridged}")),
        }
        // The recorded text itself, and not only what the mock makes of it.
        let recorded = &recording["response"];
        let status = recorded["status"].as_str().and_then(|line| line.split(' ').nth(1)?.parse::<u16>().ok());
        let parts = recorded["chunks"].as_array().into_iter().flatten();
        let text: String = parts.filter_map(|part| part[1].as_str()).collect();
        let text = serde_json::from_str::<Value>(&text).ok();
        let error = text.and_then(|body| body["error"].as_str().map(str::to_owned));
        if let (Some(status @ 400..), Some(error), None) = (status, error, reason) {
            errors += 1;
            if (&bridged["status"], &bridged["error"]) != (&json!(status), &json!(error)) {
                wrong.push(format!("{name}: recorded {status} {error}\n  bridged {bridged}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} differ, {same} are the same:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(different, DIFFERENT.len(), "a reason names a recording that is not there");
    assert!(same > 80 && errors > 30, "{same} {errors}");
}
