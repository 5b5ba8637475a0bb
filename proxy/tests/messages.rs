//! Anthropic's Messages API on the wire: its events, its errors, its headers, and what the remote is asked.

use std::time::Duration;

use crate::support::{
    self, Act, Answer, Client, STREAM_END, STREAM_HEAD, Upstream, ask, chunk, config, last, post, raw_response, word,
};
use farllama::{
    Config, Running,
    config::{Anthropic, Auth, Heartbeat, Token},
    serve,
};
use mock_ollama::{Mock, Options, Script};
use serde_json::{Value, json};

const BODY: &str = r#"{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}"#;

fn body(more: &Value) -> String {
    let mut body: Value = serde_json::from_str(BODY).unwrap();
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body.to_string()
}

fn request(more: &Value) -> Vec<u8> {
    post("/v1/messages?beta=true", &body(more))
}

/// A request with this line in its head.
fn with(request: Vec<u8>, line: &str) -> String {
    String::from_utf8(request).unwrap().replacen("\r\n", &format!("\r\n{line}\r\n"), 1)
}

fn get(path: &str, line: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{line}\r\n\r\n")
}

async fn mock() -> Mock {
    Mock::start(Script::default()).await.unwrap()
}

/// The type of an error in Anthropic's envelope, which names its request as the header does.
fn kind(answer: &Answer) -> (u16, String) {
    let json = answer.json();
    assert_eq!(json["type"], "error", "{json}");
    assert!(json["error"]["message"].is_string(), "{json}");
    assert_eq!(json["request_id"].as_str(), answer.header("request-id"), "{json}");
    (answer.code(), json["error"]["type"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn a_message_is_the_same_streamed_and_whole() {
    let mock = mock().await;
    let proxy = serve(config(mock.addr())).await.unwrap();
    let whole = ask(proxy.addr(), request(&json!({"model": "agent"}))).await;
    assert_eq!((whole.code(), whole.header("content-type")), (200, Some("application/json")));
    assert!(whole.header("request-id").is_some_and(|id| id.starts_with("req_")));
    let message = whole.json();
    assert_eq!(
        (&message["type"], &message["role"], &message["model"]),
        (&json!("message"), &json!("assistant"), &json!("agent"))
    );
    let streamed = ask(proxy.addr(), request(&json!({"model": "agent", "stream": true}))).await;
    assert_eq!(streamed.header("content-type"), Some("text/event-stream"));
    let events: Vec<Value> = streamed.events().iter().map(|event| serde_json::from_str(event).unwrap()).collect();
    let text: String = events.iter().filter_map(|event| event["delta"]["text"].as_str()).collect();
    assert_eq!(message["content"], json!([{"type": "text", "text": text, "citations": null}]));
    let end = &events[events.len() - 2];
    assert_eq!((&end["delta"]["stop_reason"], &end["usage"]), (&message["stop_reason"], &message["usage"]));
    assert!(streamed.text().ends_with("event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"));
    for entry in mock.journal().entries() {
        assert_eq!(entry.target, "/api/chat");
        assert_eq!(entry.json().unwrap()["options"]["num_predict"], 9);
    }
}

#[tokio::test]
async fn a_ping_shows_that_a_stream_lives_while_the_model_loads() {
    let acts = [Act::Hold, Act::Write([STREAM_HEAD.as_bytes(), &word("a"), &last(), STREAM_END.as_bytes()].concat())];
    let upstream = Upstream::start(acts.to_vec()).await;
    let beat = Duration::from_millis(20);
    let settings = Config { heartbeat: Heartbeat { after: beat, every: beat }, ..config(upstream.addr) };
    let proxy = serve(settings).await.unwrap();
    let mut client = Client::sending(proxy.addr(), request(&json!({"stream": true}))).await;
    let ping = "event: ping\ndata: {\"type\":\"ping\"}\n\n";
    let begin = client.until(&format!("{ping}\r\n")).await;
    assert!(begin.starts_with("HTTP/1.1 200 OK") && !begin.contains("message_start"), "{begin}");
    upstream.go_on();
    let rest = client.until("message_stop\"}").await;
    assert!(rest.contains("message_start") && rest.contains("\"text\":\"a\""), "{rest}");
}

#[tokio::test]
async fn a_stop_sequence_ends_the_message_and_the_generation() {
    for stream in [true, false] {
        let acts = [Act::Write([STREAM_HEAD.as_bytes(), &word("one EN"), &word("D two")].concat()), Act::Hold];
        let upstream = Upstream::start(acts.to_vec()).await;
        let proxy = support::proxy(upstream.addr).await;
        let answer = ask(proxy.addr(), request(&json!({"stream": stream, "stop_sequences": ["END"]}))).await;
        assert_eq!(answer.code(), 200, "{}", answer.text());
        let (text, receipt) = (answer.text(), answer.header("x-farllama-receipt").unwrap().to_owned());
        assert!(text.contains(r#""stop_reason":"stop_sequence","stop_sequence":"END""#), "{text}");
        assert!(text.contains("one ") && !text.contains("two") && !text.contains("\"text\":\"EN"), "{text}");
        assert!(format!("{receipt} {text}").contains("usage=estimate"), "{receipt} {text}");
        upstream.until(|seen| seen.left).await;
        assert!(!upstream.seen()[0].text().contains("END"), "the remote is not asked to stop there");
    }
}

#[tokio::test]
async fn a_failure_in_mid_stream_is_an_error_event_and_a_failure_of_a_whole_message_a_status() {
    let error = chunk("{\"error\":\"model runner has unexpectedly stopped\"}\n");
    let acts = [Act::Write([STREAM_HEAD.as_bytes(), &word("a"), &error, STREAM_END.as_bytes()].concat())];
    let upstream = Upstream::start(acts.to_vec()).await;
    let proxy = support::proxy(upstream.addr).await;
    let streamed = ask(proxy.addr(), request(&json!({"stream": true}))).await;
    let (_, end) =
        streamed.text().split_once("event: error\ndata: ").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    let event: Value = serde_json::from_str(end.trim_end()).unwrap();
    assert_eq!((&event["type"], &event["error"]["type"]), (&json!("error"), &json!("api_error")));
    assert_eq!(event["request_id"].as_str(), streamed.header("request-id"));
    assert!(!streamed.text().contains("message_stop"));
    assert_eq!(kind(&ask(proxy.addr(), request(&json!({}))).await), (500, "api_error".to_owned()));
    let cut = Upstream::start(vec![Act::Write([STREAM_HEAD.as_bytes(), &word("a")].concat()), Act::Close]).await;
    let proxy = support::proxy(cut.addr).await;
    let streamed = ask(proxy.addr(), request(&json!({"stream": true}))).await;
    assert!(streamed.text().contains("event: error\n") && !streamed.text().contains("message_stop"));
    assert_eq!(kind(&ask(proxy.addr(), request(&json!({}))).await), (502, "api_error".to_owned()));
}

#[tokio::test]
async fn errors_come_in_anthropics_envelope() {
    let mock = mock().await;
    let proxy = serve(config(mock.addr())).await.unwrap();
    let version = "anthropic-version: 2023-06-01";
    let ask = |request: Vec<u8>| ask(proxy.addr(), request);
    let put = String::from_utf8(request(&json!({}))).unwrap().replacen("POST", "PUT", 1).into_bytes();
    for (request, code, expected) in [
        (request(&json!({"model": "nope"})), 404, "not_found_error"),
        (request(&json!({"model": "nope", "stream": true})), 404, "not_found_error"),
        (post("/v1/messages", "{"), 400, "invalid_request_error"),
        (post("/v1/messages", ""), 400, "invalid_request_error"),
        (request(&json!({"max_tokens": 0})), 400, "invalid_request_error"),
        (post("/v1/messages/batches", "{}"), 501, "api_error"),
        (get("/v1/models/nope", version).into_bytes(), 404, "not_found_error"),
        (put, 405, "invalid_request_error"),
    ] {
        let shown = String::from_utf8_lossy(&request).into_owned();
        assert_eq!(kind(&ask(request).await), (code, expected.to_owned()), "{shown}");
    }
    let missing = ask(request(&json!({"model": "claude-sonnet-4-5"}))).await;
    assert!(missing.message().contains("anthropic.model"), "{}", missing.message());
}

#[tokio::test]
async fn a_full_queue_of_ollamas_is_overloaded() {
    let busy = raw_response(
        "503 Service Unavailable",
        "Content-Type: application/json\r\n",
        r#"{"error":"server busy, please try again.  maximum pending requests exceeded"}"#,
    );
    let upstream = Upstream::answering(busy).await;
    let proxy = support::proxy(upstream.addr).await;
    let answer = ask(proxy.addr(), request(&json!({}))).await;
    assert_eq!(kind(&answer), (529, "overloaded_error".to_owned()));
    assert_eq!(answer.header("retry-after"), Some("1"));
}

async fn gated(mock: &Mock, token: Token, anthropic: Anthropic) -> Running {
    let auth = Auth { enabled: true, tokens: vec![token], ..Auth::default() };
    serve(Config { auth, anthropic, ..config(mock.addr()) }).await.unwrap()
}

#[tokio::test]
async fn a_key_is_taken_from_both_headers_and_goes_no_further() {
    let mock = mock().await;
    let proxy = gated(&mock, Token::new("ann", "a-key"), Anthropic::default()).await;
    let hi = || request(&json!({"model": "agent"}));
    for line in ["x-api-key: a-key", "Authorization: Bearer a-key", "Authorization: Bearer dummy\r\nX-Api-Key: a-key"] {
        assert_eq!(ask(proxy.addr(), with(hi(), line)).await.code(), 200, "{line}");
    }
    for line in ["x-api-key: other", "X-A: b"] {
        assert_eq!(
            kind(&ask(proxy.addr(), with(hi(), line)).await),
            (401, "authentication_error".to_owned()),
            "{line}"
        );
    }
    assert_eq!(mock.journal().entries().len(), 3);
    for entry in mock.journal().entries() {
        let keyed = |(name, value): &(String, String)| {
            ["x-api-key", "authorization"].contains(&&*name.to_ascii_lowercase()) || value.contains("a-key")
        };
        assert!(!entry.headers.iter().any(keyed), "{:?}", entry.headers);
    }
}

#[tokio::test]
async fn a_limit_is_reported_in_anthropics_headers() {
    let mock = mock().await;
    let token = Token { limit_per_minute: Some(1), ..Token::new("ann", "a-key") };
    let proxy = gated(&mock, token, Anthropic::default()).await;
    let hi = || with(request(&json!({"model": "agent"})), "x-api-key: a-key");
    let first = ask(proxy.addr(), hi()).await;
    let header =
        |answer: &Answer, name: &str| answer.header(&format!("anthropic-ratelimit-requests-{name}")).map(str::to_owned);
    assert_eq!((header(&first, "limit").as_deref(), header(&first, "remaining").as_deref()), (Some("1"), Some("0")));
    let reset: jiff::Timestamp = header(&first, "reset").unwrap().parse().unwrap();
    let left = reset.as_second() - jiff::Timestamp::now().as_second();
    assert!((50..=61).contains(&left), "{left}");
    let second = ask(proxy.addr(), hi()).await;
    assert_eq!(kind(&second), (429, "rate_limit_error".to_owned()));
    assert!(second.header("retry-after").unwrap().parse::<u64>().unwrap() > 50);
    assert_eq!(second.header("x-ratelimit-limit-requests"), None);
}

fn aliases() -> Anthropic {
    Anthropic { model: "agent".to_owned(), small_model: "gpt-oss:20b".to_owned(), ..Anthropic::default() }
}

#[tokio::test]
async fn anthropics_names_stand_for_the_models_in_the_settings_and_the_gate_knows_it() {
    let mock = mock().await;
    let token = Token { models: Some(vec!["agent".to_owned()]), ..Token::new("ann", "a-key") };
    let proxy = gated(&mock, token, aliases()).await;
    let asked = |model: &str| with(request(&json!({"model": model})), "x-api-key: a-key");
    let answer = ask(proxy.addr(), asked("claude-sonnet-4-5-20250929")).await;
    assert_eq!((answer.code(), &answer.json()["model"]), (200, &json!("claude-sonnet-4-5-20250929")));
    assert_eq!(mock.journal().entries()[0].json().unwrap()["model"], "agent");
    // Another API has no such names, and the key may not use the small model.
    let openai = post("/v1/chat/completions", r#"{"model":"claude-x","messages":[{"role":"user","content":"hi"}]}"#);
    assert_eq!(ask(proxy.addr(), with(openai, "x-api-key: a-key")).await.code(), 403);
    for model in ["claude-haiku-4-5", "gpt-oss:20b"] {
        assert_eq!(kind(&ask(proxy.addr(), asked(model)).await), (403, "permission_error".to_owned()), "{model}");
    }
    let model = |name: &str| get(&format!("/v1/models/{name}"), "x-api-key: a-key\r\nanthropic-version: 2023-06-01");
    let shown = ask(proxy.addr(), model("claude-opus-4-1")).await;
    assert_eq!((&shown.json()["id"], &shown.json()["display_name"]), (&json!("claude-opus-4-1"), &json!("agent")));
    assert_eq!(ask(proxy.addr(), model("claude-haiku-4-5")).await.code(), 403);
    // The one model is looked up among those that are installed and those that are loaded.
    assert_eq!(mock.journal().entries().len(), 3);
}

#[tokio::test]
async fn the_length_of_a_prompt_is_an_estimate_that_says_so() {
    let mock = mock().await;
    let proxy = serve(config(mock.addr())).await.unwrap();
    let count = async |text: &str| {
        let body = json!({"model": "agent", "messages": [{"role": "user", "content": text}], "system": "Be brief."});
        ask(proxy.addr(), post("/v1/messages/count_tokens", &body.to_string())).await
    };
    let (short, long) = (count("hi").await, count(&"word ".repeat(100)).await);
    assert!(short.json()["input_tokens"].as_u64().unwrap() < long.json()["input_tokens"].as_u64().unwrap());
    assert_eq!(short.header("x-farllama-receipt"), Some("input_tokens=estimate"));
    assert!(mock.journal().entries().is_empty());
}

#[tokio::test]
async fn models_have_anthropics_shape_for_its_clients_alone() {
    let mock = mock().await;
    let proxy = serve(config(mock.addr())).await.unwrap();
    let page = ask(proxy.addr(), get("/v1/models?limit=2", "anthropic-version: 2023-06-01")).await.json();
    assert_eq!((page["data"].as_array().unwrap().len(), &page["has_more"]), (2, &json!(true)));
    assert_eq!((&page["data"][0]["type"], &page["first_id"]), (&json!("model"), &page["data"][0]["id"]));
    assert_eq!(page["last_id"], page["data"][1]["id"]);
    let next = format!("/v1/models?after_id={}", page["last_id"].as_str().unwrap());
    let rest = ask(proxy.addr(), get(&next, "anthropic-version: 2023-06-01")).await.json();
    assert_eq!(rest["has_more"], false);
    let openai = ask(proxy.addr(), get("/v1/models", "x-a: b")).await.json();
    let models = openai["data"].as_array().unwrap().len();
    assert_eq!((&openai["object"], rest["data"].as_array().unwrap().len()), (&json!("list"), models - 2));
}

#[tokio::test]
async fn a_setting_passes_the_routes_through() {
    let reply = r#"{"type":"message","content":[]}"#;
    let upstream = Upstream::answering(raw_response("200 OK", "Content-Type: application/json\r\n", reply)).await;
    let anthropic = Anthropic { passthrough: true, ..aliases() };
    let proxy = serve(Config { anthropic, ..config(upstream.addr) }).await.unwrap();
    let sent = with(request(&json!({"model": "claude-opus-4-1"})), "x-api-key: a-key");
    let answer = ask(proxy.addr(), sent).await;
    assert_eq!((answer.code(), answer.text()), (200, reply.to_owned()));
    let seen = upstream.seen()[0].text();
    assert!(
        seen.starts_with("POST /v1/messages?beta=true ") && seen.contains("\"model\":\"claude-opus-4-1\""),
        "{seen}"
    );
    assert!(!seen.contains("a-key"));
}

#[tokio::test]
async fn a_prompt_that_does_not_fit_grows_the_context_or_is_refused_in_the_words_that_agents_know() {
    let options = Options { context_length: Some(4096), ..Options::default() };
    let mock = Mock::start_with(options, Script::default()).await.unwrap();
    let long = |thousands: usize| {
        let content = "word ".repeat(thousands * 1000);
        request(
            &json!({"model": "caller:135m", "max_tokens": 32_000, "messages": [{"role": "user", "content": content}]}),
        )
    };
    let proxy = serve(config(mock.addr())).await.unwrap();
    let refused = ask(proxy.addr(), long(6)).await;
    assert_eq!(kind(&refused), (400, "invalid_request_error".to_owned()));
    assert!(
        refused.message().starts_with("prompt is too long: ") && refused.message().contains(" tokens > 4096 maximum")
    );
    let mut settings = config(mock.addr());
    settings.context.max = 8192;
    let proxy = serve(settings).await.unwrap();
    let grown = ask(proxy.addr(), long(6)).await;
    assert_eq!(
        (grown.code(), grown.header("x-farllama-receipt")),
        (200, Some("num_ctx=raised:8192")),
        "{}",
        grown.text()
    );
    let refused = ask(proxy.addr(), long(9)).await;
    assert!(refused.message().contains(" tokens > 8192 maximum"), "{}", refused.message());
}

#[tokio::test]
async fn a_model_that_cannot_think_answers_all_the_same() {
    let mock = mock().await;
    let proxy = serve(config(mock.addr())).await.unwrap();
    let adaptive = json!({"model": "smollm2:135m", "thinking": {"type": "adaptive"}});
    let answer = ask(proxy.addr(), request(&adaptive)).await;
    assert_eq!((answer.code(), answer.header("x-farllama-receipt")), (200, Some("thinking=no-effect")));
}

#[tokio::test]
async fn an_image_by_its_url_is_fetched_where_the_settings_say_so() {
    let mock = mock().await;
    let host = Upstream::answering(raw_response("200 OK", "Content-Type: image/gif\r\n", "GIF89a12345678")).await;
    let image = json!({"type": "image", "source": {"type": "url", "url": format!("http://{}/a.gif", host.addr)}});
    let body = json!({"model": "qwen3-vl:8b", "messages": [{"role": "user", "content": [image]}]});
    let mut settings = config(mock.addr());
    let proxy = serve(settings.clone()).await.unwrap();
    let refused = ask(proxy.addr(), request(&body)).await;
    assert!(refused.code() == 400 && refused.message().contains("images.fetch"), "{}", refused.text());
    (settings.images.fetch, settings.images.allow_private) = (true, true);
    let proxy = serve(settings).await.unwrap();
    let answer = ask(proxy.addr(), request(&body)).await;
    assert_eq!(
        (answer.code(), answer.header("x-farllama-receipt")),
        (200, Some("image_url=fetched")),
        "{}",
        answer.text()
    );
    let chat = mock.journal().entries().into_iter().find(|entry| entry.target == "/api/chat").unwrap();
    assert_eq!(chat.json().unwrap()["messages"][0]["images"], json!(["R0lGODlhMTIzNDU2Nzg="]));
}
