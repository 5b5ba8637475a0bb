//! Who may pass: keys, on both lanes, as a client sees it on the wire.

use crate::support::{self, CHAT, Upstream, ask, config, post, raw_response};
use farllama::{
    Config, Running,
    config::{Auth, Token},
    serve,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const TAGS: &str = "{\"models\":[]}";

fn with_keys(upstream: &Upstream, tokens: Vec<Token>) -> Config {
    Config { auth: Auth { enabled: true, tokens, ..Auth::default() }, ..config(upstream.addr) }
}

async fn upstream() -> Upstream {
    Upstream::answering(raw_response("200 OK", "Content-Type: application/json\r\n", TAGS)).await
}

async fn gated(upstream: &Upstream, tokens: Vec<Token>) -> Running {
    serve(with_keys(upstream, tokens)).await.unwrap()
}

/// A request with more header lines.
fn with(request: impl Into<Vec<u8>>, lines: &str) -> Vec<u8> {
    let text = String::from_utf8(request.into()).unwrap();
    text.replacen("\r\n", &format!("\r\n{lines}\r\n"), 1).into_bytes()
}

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes()
}

#[tokio::test]
async fn without_a_key_every_path_is_refused_in_its_own_words() {
    let upstream = upstream().await;
    let proxy = gated(&upstream, vec![Token::new("ann", "a-key")]).await;
    for path in ["/", "/api/version", "/api/tags", "/v1/models", "/v1/nothing", "/x"] {
        let answer = ask(proxy.addr(), get(path)).await;
        assert_eq!(
            (answer.code(), answer.header("www-authenticate")),
            (401, Some("Bearer realm=\"farllama\"")),
            "{path}"
        );
        let error = &answer.json()["error"];
        if path.starts_with("/v1") {
            // OpenAI has no code where there is no key.
            assert!(error["code"].is_null() && error["type"] == "invalid_request_error", "{error}");
        } else {
            assert!(error.is_string(), "{error}");
        }
    }
    let wrong = ask(proxy.addr(), with(post("/v1/chat/completions", CHAT), "Authorization: Bearer other")).await;
    assert!(wrong.code() == 401 && wrong.message().starts_with("Incorrect API key provided"), "{}", wrong.text());
    assert_eq!(wrong.json()["error"]["code"], "invalid_api_key");
    assert_eq!(wrong.header("www-authenticate"), Some("Bearer realm=\"farllama\", error=\"invalid_token\""));
    assert!(!wrong.text().contains("other"));
    assert!(upstream.seen().is_empty(), "what is refused never reaches the remote");
}

#[tokio::test]
async fn a_key_passes_and_stays_here() {
    let upstream = upstream().await;
    let settings = with_keys(&upstream, vec![Token::new("ann", "a-key")]);
    let auth = Auth { header: "x-team-key".parse().unwrap(), ..settings.auth.clone() };
    let proxy = serve(Config { auth, ..settings }).await.unwrap();
    for key in ["X-Team-Key: a-key", "Authorization: Bearer a-key", "X-Team-Key: a-key\r\nX-Api-Key: a-key"] {
        for path in ["/api/tags?x=1", "/v1/models"] {
            assert_eq!(ask(proxy.addr(), with(get(path), key)).await.code(), 200, "{key} {path}");
        }
    }
    let seen: String = upstream.seen().iter().map(support::Seen::text).collect();
    assert!(seen.contains("GET /api/tags?x=1 ") && !seen.contains("a-key"), "{seen}");
}

#[tokio::test]
async fn a_preflight_needs_no_key_and_a_page_can_read_a_refusal() {
    let upstream = upstream().await;
    let proxy = gated(&upstream, vec![Token::new("ann", "a-key")]).await;
    let page = "Origin: http://localhost:3000\r\nAccess-Control-Request-Method: GET";
    let preflight = String::from_utf8(get("/v1/models")).unwrap().replace("GET", "OPTIONS");
    assert_eq!(ask(proxy.addr(), &preflight).await.code(), 401, "without a page it is none");
    assert_eq!(ask(proxy.addr(), with(preflight, page)).await.code(), 204);
    let refused = ask(proxy.addr(), with(get("/v1/models"), page)).await;
    assert_eq!((refused.code(), refused.header("access-control-allow-origin")), (401, Some("http://localhost:3000")));
    let readable = refused.header("access-control-expose-headers").unwrap().to_lowercase();
    for header in ["retry-after", "x-request-id", "x-farllama-receipt", "x-ratelimit-remaining-requests"] {
        assert!(readable.split(',').any(|one| one == header), "{header}: {readable}");
    }
}

fn only(models: Option<&[&str]>, routes: Option<&[&str]>) -> Token {
    let list = |list: &[&str]| list.iter().map(|&one| one.to_owned()).collect();
    Token { models: models.map(list), routes: routes.map(list), ..Token::new("ann", "a-key") }
}

const ANN: &str = "Authorization: Bearer a-key";

fn forbidden(answer: &support::Answer, openai: bool) -> bool {
    let error = &answer.json()["error"];
    let challenge = answer.header("www-authenticate").is_some_and(|reported| reported.contains("insufficient_scope"));
    answer.code() == 403 && challenge && if openai { error["message"].is_string() } else { error.is_string() }
}

#[tokio::test]
async fn a_key_with_routes_passes_only_there_however_they_are_written() {
    let upstream = upstream().await;
    let proxy = gated(&upstream, vec![only(None, Some(&["*", "!/api/delete"]))]).await;
    for path in ["/api/delete", "/api/%64elete", "/api%2Fdelete", "/api/delete/?x=1"] {
        assert!(forbidden(&ask(proxy.addr(), with(post(path, "{}"), ANN)).await, false), "{path}");
    }
    for path in ["/api//delete", "/api/x/../delete"] {
        assert!(forbidden(&ask(proxy.addr(), with(post(path, "{}"), ANN)).await, false), "{path}");
    }
    for path in ["/api/x/../chat", "/api/%2e/tags", "/api/tags//", "//api/tags"] {
        let refused = ask(proxy.addr(), with(post(path, "{}"), ANN)).await;
        assert!(refused.code() == 400 && refused.text().contains("`//`"), "{path}: {}", refused.text());
    }
    assert!(upstream.seen().is_empty());
    // The raw bytes pass on.
    assert_eq!(ask(proxy.addr(), with(get("/api/%74ags/?a=%20"), ANN)).await.code(), 200);
    upstream.until(|seen| seen.text().starts_with("GET /api/%74ags/?a=%20 HTTP/1.1\r\n")).await;
}

#[tokio::test]
async fn gate_and_router_read_one_path() {
    let upstream = upstream().await;
    let settings = with_keys(&upstream, vec![Token::new("ann", "a-key")]);
    let exempt = vec!["/".to_owned(), "/api/version".to_owned()];
    let auth = Auth { exempt, ..settings.auth.clone() };
    let proxy = serve(Config { auth, ..settings }).await.unwrap();
    for target in [
        "/v1/models/x/../../../api/version",
        "/v1/models/x%2F..%2F..%2F..",
        "/v1/responses/x%2F..%2F..%2F..",
        "/v1/models/../../",
        "/api/version/../tags",
        "/x/..",
    ] {
        for method in ["GET", "HEAD", "DELETE"] {
            let request = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
            let keyed = ask(proxy.addr(), with(request.clone(), ANN)).await;
            assert_eq!((ask(proxy.addr(), request).await.code(), keyed.code()), (401, 400), "{method} {target}");
        }
    }
    for (request, code) in [
        ("CONNECT evil:80 HTTP/1.1\r\nHost: evil:80", 405),
        ("TRACE / HTTP/1.1\r\nHost: localhost", 405),
        ("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0", 401),
        ("DELETE /api/version HTTP/1.1\r\nHost: localhost", 401),
    ] {
        let answer = ask(proxy.addr(), format!("{request}\r\nConnection: close\r\n\r\n")).await;
        assert_eq!(answer.code(), code, "{request}");
    }
    assert!(upstream.seen().is_empty());
    assert_eq!(ask(proxy.addr(), get("/api/version")).await.code(), 200);
    // Percent-encoded letters are the same path for both.
    let models = ask(proxy.addr(), with(get("/v1/%6dodels"), ANN)).await;
    assert_eq!((models.code(), &models.json()["object"]), (200, &"list".into()));
}

#[tokio::test]
async fn trace_is_answered_here_without_keys_too() {
    let upstream = upstream().await;
    let proxy = support::proxy(upstream.addr).await;
    let answer = ask(proxy.addr(), "TRACE /x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
    assert!(answer.code() == 405 && answer.header("allow").is_some_and(|allow| allow.contains("OPTIONS")));
    assert!(upstream.seen().is_empty());
}

#[tokio::test]
async fn weights_without_a_name_are_not_for_keys_with_models() {
    let upstream = upstream().await;
    let proxy = gated(&upstream, vec![only(Some(&["m*"]), None)]).await;
    let digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    for body in [
        format!(r#"{{"model":"m","files":{{"a.gguf":"{digest}"}}}}"#),
        format!(r#"{{"model":"m","from":"m","adapters":{{"a":"{digest}"}}}}"#),
    ] {
        let refused = ask(proxy.addr(), with(post("/api/create", &body), ANN)).await;
        assert!(forbidden(&refused, false) && refused.text().contains("leave it out"), "{}", refused.text());
    }
    for method in ["HEAD", "POST", "GET"] {
        let request = format!("{method} /api/blobs/{digest} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        assert_eq!(ask(proxy.addr(), with(request, ANN)).await.code(), 403, "{method}");
    }
    for name in ["m.evil.example/a/b", "m:11434/library/x"] {
        let pull = post("/api/pull", &format!(r#"{{"model":"{name}","insecure":true}}"#));
        let refused = ask(proxy.addr(), with(pull, ANN)).await;
        assert!(forbidden(&refused, false) && refused.text().contains("does not match a slash"), "{name}");
    }
    assert!(upstream.seen().is_empty());
    let own = with(post("/api/create", r#"{"model":"mine","from":"m","files":{}}"#), ANN);
    assert_eq!(ask(proxy.addr(), own).await.code(), 200);
}

#[tokio::test]
async fn a_part_of_a_form_is_one_model_for_gate_and_handler() {
    let upstream = upstream().await;
    let proxy = gated(&upstream, vec![only(Some(&["*:latest"]), None)]).await;
    for (value, code) in [(&b"secret:8b"[..], 403), (b"m\xff", 403), (b"m", 400)] {
        let head = b"--x\r\nContent-Disposition: form-data; name=\"model\"\r\nContent-Type: text/plain; charset=utf-16le\r\n\r\n";
        let part = [&head[..], value, b"\r\n--x--\r\n"].concat();
        let mut request = with(
            format!(
                "POST /v1/audio/transcriptions HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\nContent-Length: {}\r\n\r\n",
                part.len()
            ),
            ANN,
        );
        request.extend(part);
        assert_eq!(ask(proxy.addr(), request).await.code(), code, "{value:?}");
    }
}

#[tokio::test]
async fn a_key_with_models_is_counted_before_its_body_is_read() {
    let upstream = upstream().await;
    let token = Token { limit_per_minute: Some(1), max_concurrent: Some(1), ..only(Some(&["m"]), None) };
    let proxy = gated(&upstream, vec![token]).await;
    let begun = with("POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 209715200\r\n\r\n", ANN);
    let mut first = support::Client::sending(proxy.addr(), [&begun[..], b"{"].concat()).await;
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    for _ in 0..3 {
        let second = ask(proxy.addr(), [&begun[..], b"{"].concat()).await;
        assert_eq!(second.code(), 429, "{}", second.text());
    }
    // What is refused costs nothing: the place comes back.
    first.send(r#""model":"other","messages":[]}"#).await;
    assert_eq!(first.answer().await.code(), 403);
    assert_eq!(ask(proxy.addr(), with(post("/api/chat", r#"{"model":"m"}"#), ANN)).await.code(), 200);
}

#[tokio::test]
async fn a_model_is_refused_before_the_rest_of_its_body_comes() {
    let upstream = upstream().await;
    let proxy = gated(&upstream, vec![only(Some(&["m"]), None)]).await;
    let begun = with("POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 62914560\r\n\r\n", ANN);
    let refused = ask(proxy.addr(), [&begun[..], br#"{"model":"other","#].concat()).await;
    assert!(forbidden(&refused, true), "{}", refused.text());
    assert!(upstream.seen().is_empty());
}

#[tokio::test]
async fn a_long_name_makes_no_long_answer() {
    let upstream = upstream().await;
    let proxy = gated(&upstream, vec![only(Some(&["m"]), None)]).await;
    let body = format!(r#"{{"model":"{}","messages":[]}}"#, "x".repeat(4000));
    let refused = ask(proxy.addr(), with(post("/v1/chat/completions", &body), ANN)).await;
    assert!(forbidden(&refused, true) && refused.body.len() < 1000, "{}", refused.text());
    let body = format!(r#"{{"model":"{}","messages":[]}}"#, "x".repeat(2 << 20));
    let refused = ask(proxy.addr(), with(post("/v1/chat/completions", &body), ANN)).await;
    assert!(forbidden(&refused, true) && refused.body.len() < 1000, "{}", refused.text());
}

#[tokio::test]
async fn a_text_names_no_model_that_the_key_may_not_use() {
    let models = ["m:8b", "m:9b", "m:secret"]
        .map(|name| format!(r#"{{"name":"{name}","model":"{name}","modified_at":"2026-11-22T12:37:41.5Z","size":1}}"#));
    let tags =
        raw_response("200 OK", "Content-Type: application/json\r\n", &format!("{{\"models\":[{}]}}", models.join(",")));
    let upstream = by_path("/api/tags", tags, "404 Not Found", r#"{"error":"model 'm:7b' not found"}"#).await;
    let proxy = gated_at(upstream, vec![only(Some(&["m:7b", "m:8b"]), None), Token::new("bob", "b-key")]).await;
    let chat = post("/v1/chat/completions", r#"{"model":"m:7b","messages":[{"role":"user","content":"hi"}]}"#);
    let reported = ask(proxy.addr(), with(chat.clone(), ANN)).await;
    assert!(reported.code() == 404 && reported.text().contains("m:8b"), "{}", reported.text());
    assert!(!reported.text().contains("m:9b") && !reported.text().contains("secret"), "{}", reported.text());
    let all = ask(proxy.addr(), with(chat, "X-Api-Key: b-key")).await;
    assert!(all.text().contains("m:9b"), "{}", all.text());
}

/// A remote that answers `path` with `there`, and all else with an error.
async fn by_path(
    path: &'static str,
    there: Vec<u8>,
    status: &'static str,
    error: &'static str,
) -> std::net::SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let other = raw_response(status, "Content-Type: application/json\r\n", error);
    #[expect(clippy::disallowed_methods, reason = "a test may start what it likes")]
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (there, other) = (there.clone(), other.clone());
            tokio::spawn(async move {
                let mut buffer = vec![0; 64 << 10];
                while let Ok(n) = stream.read(&mut buffer).await {
                    if n == 0 {
                        return;
                    }
                    let found = String::from_utf8_lossy(&buffer[..n]).contains(path);
                    if stream.write_all(if found { &there } else { &other }).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    addr
}

async fn gated_at(upstream: std::net::SocketAddr, tokens: Vec<Token>) -> Running {
    serve(Config { auth: Auth { enabled: true, tokens, ..Auth::default() }, ..config(upstream) }).await.unwrap()
}

#[tokio::test]
async fn a_wrong_base_url_is_answered_with_the_right_one() {
    let bare = raw_response("404 Not Found", "Content-Type: text/plain\r\n", "404 page not found");
    let upstream = Upstream::answering(bare).await;
    let proxy = support::proxy(upstream.addr).await;
    for (path, right) in [
        ("/chat/completions", "/v1/chat/completions"),
        ("/v1/v1/chat/completions", "/v1/chat/completions"),
        ("/v1/api/chat", "/api/chat"),
        ("/v1/threads", "under /v1"),
        ("/health", "/api/version"),
    ] {
        let answer = ask(proxy.addr(), post(path, "{}")).await;
        let openai = path.starts_with("/v1");
        let error = answer.json()["error"].clone();
        let message = if openai { error["message"].as_str() } else { error.as_str() }.unwrap_or_default().to_owned();
        assert_eq!(answer.code(), 404, "{path}");
        assert!(message.contains(right) && message.contains(path), "{path}: {message}");
        assert!(!openai || error["code"] == "unknown_url", "{error}");
    }
    // What the table has passes on as it is, and so does what only the remote has.
    let known = ask(proxy.addr(), post("/api/chat", "{}")).await;
    assert_eq!((known.code(), &*known.text()), (404, "404 page not found"));
    let gateway = raw_response("404 Not Found", "Content-Type: text/plain\r\n", "no such tenant at all");
    let upstream = Upstream::answering(gateway).await;
    let proxy = support::proxy(upstream.addr).await;
    assert_eq!(ask(proxy.addr(), get("/health")).await.text(), "no such tenant at all");
}

#[tokio::test]
async fn a_preflight_of_an_allowed_page_grants_what_it_asks_for() {
    let upstream = upstream().await;
    let proxy = support::proxy(upstream.addr).await;
    let preflight = String::from_utf8(get("/v1/chat/completions")).unwrap().replace("GET", "OPTIONS");
    let asked = "dangerously-allow-browser,x-title,http-referer,anthropic-version,session-id,idempotency-key";
    let page = |origin: &str| {
        format!("Origin: {origin}\r\nAccess-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: {asked}")
    };
    let granted = ask(proxy.addr(), with(preflight.clone(), &page("app://obsidian.md"))).await;
    assert_eq!((granted.code(), granted.header("access-control-allow-headers")), (204, Some(asked)));
    let refused = ask(proxy.addr(), with(preflight, &page("https://evil.example"))).await;
    assert_eq!((refused.code(), refused.header("access-control-allow-headers")), (403, None));
}

#[tokio::test]
async fn a_key_with_models_passes_only_for_them() {
    let upstream = upstream().await;
    let proxy = gated(&upstream, vec![only(Some(&["m"]), None)]).await;
    for (path, body) in [
        ("/api/chat", r#"{"model":"other"}"#),
        ("/api/chat", r#"{"model":"m","MODEL":"other"}"#),
        ("/api/chat", "{ broken"),
        ("/api/show", r#"{"name":"other"}"#),
        ("/api/create", r#"{"model":"m","from":"other"}"#),
        ("/api/copy", r#"{"source":"other","destination":"m"}"#),
        ("/api/copy", r#"{"source":"m","destination":"other"}"#),
        ("/api/unknown", r#"{"model":"m"}"#),
    ] {
        assert!(forbidden(&ask(proxy.addr(), with(post(path, body), ANN)).await, false), "{path} {body}");
    }
    for body in [r#"{"model":"other","messages":[]}"#, r#"{"model":"other","Model":"m","messages":[]}"#, "{ broken"] {
        assert!(forbidden(&ask(proxy.addr(), with(post("/v1/chat/completions", body), ANN)).await, true), "{body}");
    }
    assert!(forbidden(&ask(proxy.addr(), with(get("/v1/models/other"), ANN)).await, true));
    let form = |model: &str| {
        let part = format!("--x\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\n{model}\r\n--x--\r\n");
        let json = String::from_utf8(post("/v1/audio/transcriptions", &part)).unwrap();
        with(json.replace("application/json", "multipart/form-data; boundary=x"), ANN)
    };
    assert!(forbidden(&ask(proxy.addr(), form("other")).await, true));
    // Past the gate: what is missing now is the recording.
    let heard = ask(proxy.addr(), form("m")).await;
    assert_eq!((heard.code(), &heard.json()["error"]["param"]), (400, &"file".into()), "{}", heard.text());
    let packed = with(post("/api/chat", r#"{"model":"m"}"#), &format!("{ANN}\r\nContent-Encoding: gzip"));
    assert!(forbidden(&ask(proxy.addr(), packed).await, false));
    assert!(upstream.seen().is_empty());
    let body = "{ \"stream\": false,\"model\" :\"other\", \"MODEL\":\"M:latest\" }";
    assert_eq!(ask(proxy.addr(), with(post("/api/chat", body), ANN)).await.code(), 200);
    upstream.until(|seen| seen.text().ends_with(body)).await;
}

#[tokio::test]
async fn lists_show_a_key_only_its_models() {
    let (own, other) = (
        r#"{"name":"m:latest","model":"m:latest","modified_at":"2026-11-22T12:37:41.5Z","size":1}"#,
        r#"{"name":"other:1b","model":"other:1b","modified_at":"2026-11-22T12:37:41.5Z","size":2}"#,
    );
    let list = &*format!("{{\"models\":[{own},{other}]}}");
    let upstream = Upstream::answering(raw_response("200 OK", "Content-Type: application/json\r\n", list)).await;
    let proxy = gated(&upstream, vec![only(Some(&["m"]), None), Token::new("bob", "b-key")]).await;
    let native = ask(proxy.addr(), with(get("/api/tags"), ANN)).await;
    assert_eq!(native.text(), format!("{{\"models\":[{own}]}}"));
    let openai = ask(proxy.addr(), with(get("/v1/models"), ANN)).await;
    let openai: serde_json::Value = serde_json::from_str(&openai.text()).unwrap();
    assert_eq!((openai["data"].as_array().unwrap().len(), &openai["data"][0]["id"]), (1, &"m:latest".into()));
    assert_eq!(ask(proxy.addr(), with(get("/api/tags"), "X-Api-Key: b-key")).await.text(), list);
}
