//! Who may pass: keys, on both lanes, as a client sees it on the wire.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use farllama::{
    Config, Running,
    config::{Auth, Token},
    serve,
};
use support::{CHAT, Upstream, ask, config, post, raw_response};

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
    let challenge = answer.header("www-authenticate").is_some_and(|told| told.contains("insufficient_scope"));
    answer.code() == 403 && challenge && if openai { error["message"].is_string() } else { error.is_string() }
}

#[tokio::test]
async fn a_key_with_routes_passes_only_there_however_they_are_written() {
    let upstream = upstream().await;
    let proxy = gated(&upstream, vec![only(None, Some(&["*", "!/api/delete"]))]).await;
    for path in ["/api/delete", "/api/%64elete", "/api//delete", "/api/x/../delete", "/api/delete/?x=1"] {
        assert!(forbidden(&ask(proxy.addr(), with(post(path, "{}"), ANN)).await, false), "{path}");
    }
    assert!(upstream.seen().is_empty());
    // The raw bytes pass on.
    assert_eq!(ask(proxy.addr(), with(get("/api/%74ags//?a=%20"), ANN)).await.code(), 200);
    upstream.until(|seen| seen.text().starts_with("GET /api/%74ags//?a=%20 HTTP/1.1\r\n")).await;
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
