//! Responses over a WebSocket: turns, what a connection remembers, and how each kind of end looks.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::program::Program;
use crate::support::{Act, PATIENCE, STREAM_END, STREAM_HEAD, Upstream, ask, config, last, post, proxy, word};
use farllama::{
    Config, Running,
    config::{Auth, Token},
    serve,
};
use futures_util::{SinkExt, StreamExt};
use mock_ollama::{Mock, Options, Script};
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, net::TcpStream};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Bytes, Error, Message, client::IntoClientRequest, http::HeaderValue},
};

const MODEL: &str = "smollm2:135m";

struct Ws(WebSocketStream<TcpStream>);

impl Ws {
    async fn open(addr: SocketAddr) -> Self {
        Self::with(addr, &[]).await.unwrap()
    }

    async fn with(addr: SocketAddr, headers: &[(&'static str, &str)]) -> Result<Self, Error> {
        let mut request = format!("ws://localhost:{}/v1/responses", addr.port()).into_client_request()?;
        for (name, value) in headers {
            request.headers_mut().insert(*name, HeaderValue::from_str(value).unwrap());
        }
        let stream = TcpStream::connect(addr).await.unwrap();
        Ok(Self(client_async(request, stream).await?.0))
    }

    async fn send(&mut self, message: &Value) {
        self.0.send(Message::text(message.to_string())).await.unwrap();
    }

    async fn create(&mut self, fields: Value) {
        let mut message = json!({"type": "response.create", "model": MODEL, "input": "hi"});
        message.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        self.send(&message).await;
    }

    async fn message(&mut self) -> Option<Message> {
        tokio::time::timeout(PATIENCE, self.0.next()).await.expect("something comes").and_then(Result::ok)
    }

    async fn event(&mut self) -> Value {
        loop {
            match self.message().await {
                Some(Message::Text(text)) => return serde_json::from_str(&text).unwrap(),
                Some(Message::Ping(_) | Message::Pong(_)) => {}
                other => panic!("no event, but {other:?}"),
            }
        }
    }

    /// The events up to one that ends a turn.
    async fn turn(&mut self) -> Vec<Value> {
        let mut events = Vec::new();
        loop {
            events.push(self.event().await);
            let kind = events.last().unwrap()["type"].as_str().unwrap();
            if ["response.completed", "response.incomplete", "response.failed", "error"].contains(&kind) {
                return events;
            }
        }
    }

    /// What the last event of a turn says.
    async fn end(&mut self) -> Value {
        self.turn().await.pop().unwrap()
    }

    /// The close code.
    async fn closed(&mut self) -> Option<u16> {
        loop {
            match self.message().await {
                Some(Message::Close(frame)) => return frame.map(|frame| frame.code.into()),
                Some(_) => {}
                None => return None,
            }
        }
    }
}

async fn mock() -> Mock {
    Mock::start_with(Options::default(), Script::on("/api/chat").model(MODEL).says("Hello.")).await.unwrap()
}

async fn quiet(proxy: &Running) {
    let begun = Instant::now();
    while proxy.requests() > 0 {
        assert!(begun.elapsed() < PATIENCE, "{} requests are left", proxy.requests());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn held() -> Vec<Act> {
    let begun = [STREAM_HEAD.as_bytes(), &word("One")].concat();
    vec![Act::Write(begun), Act::Hold, Act::Write([&last()[..], STREAM_END.as_bytes()].concat())]
}

/// The messages that the mock was asked with last.
fn asked(mock: &Mock) -> Value {
    mock.journal().entries().iter().rev().find(|entry| entry.target == "/api/chat").unwrap().json().unwrap()["messages"]
        .clone()
}

#[tokio::test]
async fn the_events_are_those_of_a_stream() {
    let mock = mock().await;
    let proxy = serve(config(mock.addr())).await.unwrap();
    let mut ws = Ws::open(proxy.addr()).await;
    ws.create(json!({})).await;
    let turn = ws.turn().await;
    let stream =
        ask(proxy.addr(), post("/v1/responses", &json!({"model": MODEL, "input": "hi", "stream": true}).to_string()))
            .await
            .text();
    let data = stream.lines().filter_map(|line| line.strip_prefix("data: ")).filter(|data| *data != "[DONE]");
    let events: Vec<Value> = data.map(|data| serde_json::from_str(data).unwrap()).collect();
    let kinds = |events: &[Value]| events.iter().map(|event| event["type"].clone()).collect::<Vec<_>>();
    assert_eq!(kinds(&turn), kinds(&events));
    let numbers: Vec<_> = turn.iter().map(|event| event["sequence_number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (0..turn.len() as u64).collect::<Vec<_>>());
    // It is stored like any other, and the last event has what is.
    let end = &turn.last().unwrap()["response"];
    let path = format!("GET /v1/responses/{} HTTP/1.1\r\nHost: localhost\r\n\r\n", end["id"].as_str().unwrap());
    assert_eq!(ask(proxy.addr(), path).await.json(), *end);
}

#[tokio::test]
async fn a_connection_remembers_what_is_not_stored_and_no_other_does() {
    let mock = mock().await;
    let proxy = serve(config(mock.addr())).await.unwrap();
    let mut ws = Ws::open(proxy.addr()).await;
    ws.create(json!({"store": false, "input": "first"})).await;
    let first = ws.end().await["response"].clone();
    assert_eq!((&first["status"], &first["store"]), (&json!("completed"), &json!(false)));
    ws.create(json!({"store": false, "input": "second", "previous_response_id": first["id"]})).await;
    let second = ws.end().await["response"].clone();
    assert_eq!(second["status"], "completed", "{second}");
    let texts: Vec<_> = asked(&mock).as_array().unwrap().iter().map(|message| message["content"].clone()).collect();
    assert_eq!(texts, ["first", "Hello.", "second"]);
    // A stored one may go on from it here, and from stored ones everywhere.
    ws.create(json!({"input": "third", "previous_response_id": second["id"]})).await;
    assert_eq!(ws.end().await["response"]["status"], "completed");
    assert_eq!(asked(&mock).as_array().unwrap().len(), 5);
    let mut other = Ws::open(proxy.addr()).await;
    for id in [&first["id"], &json!("resp_unknown")] {
        other.create(json!({"previous_response_id": id})).await;
        let error = other.end().await;
        assert_eq!((&error["type"], &error["status"]), (&json!("error"), &json!(400)), "{error}");
        assert_eq!(error["error"]["code"], "previous_response_not_found");
    }
    let posted = json!({"model": MODEL, "input": "hi", "previous_response_id": first["id"]}).to_string();
    assert_eq!(ask(proxy.addr(), post("/v1/responses", &posted)).await.code(), 400);
    // A failed continuation takes its parent with it.
    ws.create(json!({"store": false, "model": "nobody", "previous_response_id": second["id"]})).await;
    assert_eq!(ws.end().await["error"]["code"], "model_not_found");
    ws.create(json!({"store": false, "previous_response_id": second["id"]})).await;
    assert_eq!(ws.end().await["error"]["code"], "previous_response_not_found");
    ws.create(json!({"store": false, "previous_response_id": first["id"]})).await;
    assert_eq!(ws.end().await["response"]["status"], "completed", "its own parent is there");
}

#[tokio::test]
async fn a_warm_up_prepares_what_a_turn_goes_on_from() {
    let mock = Mock::start_with(Options::default(), Script::default()).await.unwrap();
    let proxy = serve(config(mock.addr())).await.unwrap();
    let mut ws = Ws::open(proxy.addr()).await;
    ws.create(json!({"store": false, "generate": false, "input": "context"})).await;
    let warm = ws.end().await["response"].clone();
    assert_eq!((&warm["status"], &warm["output"]), (&json!("completed"), &json!([])));
    assert_eq!(asked(&mock), json!([]), "the model is loaded and says nothing");
    ws.create(json!({"store": false, "input": "go", "previous_response_id": warm["id"]})).await;
    assert_eq!(ws.end().await["response"]["status"], "completed");
    assert_eq!(asked(&mock)[0]["content"], "context");
}

#[tokio::test]
async fn turns_of_a_lane_run_one_after_the_other_and_lanes_at_once() {
    let upstream = Upstream::start(held()).await;
    let proxy = proxy(upstream.addr).await;
    let mut ws = Ws::open(proxy.addr()).await;
    for lane in ["a", "b"] {
        ws.create(json!({"stream_id": lane})).await;
    }
    let mut begun = Vec::new();
    while begun.len() < 2 {
        let event = ws.event().await;
        if event["type"] == "response.output_text.delta" {
            begun.push(event["stream_id"].clone());
        }
    }
    begun.sort_by_key(Value::to_string);
    assert_eq!(begun, ["a", "b"], "both run");
    ws.create(json!({"stream_id": "a"})).await;
    upstream.go_on();
    assert_eq!(ws.end().await["type"], "response.completed");
    assert_eq!(ws.end().await["type"], "response.completed");
    while ws.event().await["type"] != "response.output_text.delta" {}
    upstream.go_on();
    assert_eq!(ws.end().await["stream_id"], "a", "the second turn of its lane");
    // More lanes than may, and more turns than may wait.
    for lane in 0..9 {
        ws.create(json!({"stream_id": lane.to_string()})).await;
    }
    let mut event = ws.event().await;
    while event["type"] != "error" {
        event = ws.event().await;
    }
    assert_eq!((&event["status"], &event["stream_id"]), (&json!(429), &json!("8")));
    drop(ws);
    quiet(&proxy).await;
}

#[tokio::test]
async fn a_cancel_ends_the_turn_and_the_connection_goes_on() {
    let upstream = Upstream::start(held()).await;
    let proxy = proxy(upstream.addr).await;
    let mut ws = Ws::open(proxy.addr()).await;
    ws.send(&json!({"type": "response.cancel"})).await;
    assert_eq!(ws.end().await["error"]["code"], "response_not_active");
    ws.create(json!({})).await;
    while ws.event().await["type"] != "response.output_text.delta" {}
    ws.send(&json!({"type": "response.cancel"})).await;
    let end = ws.end().await;
    assert_eq!((&end["type"], &end["response"]["status"]), (&json!("response.incomplete"), &json!("cancelled")));
    upstream.until(|seen| seen.left).await;
    ws.send(&json!({"type": "response.steer", "previous_response_id": "resp_1", "input": "more"})).await;
    let steer = ws.event().await;
    assert_eq!((&steer["type"], &steer["steer"]["input"]), (&json!("response.steer.failed"), &json!("more")));
    upstream.go_on();
    ws.create(json!({})).await;
    while ws.event().await["type"] != "response.output_text.delta" {}
    upstream.go_on();
    assert_eq!(ws.end().await["type"], "response.completed");
}

#[tokio::test]
async fn what_is_wrong_with_a_message_is_an_error_event_and_the_connection_goes_on() {
    let mock = mock().await;
    let proxy = serve(config(mock.addr())).await.unwrap();
    let mut ws = Ws::open(proxy.addr()).await;
    for (wrong, param) in [
        ("no JSON", Value::Null),
        ("{}", json!("type")),
        (r#"{"type":"session.update"}"#, json!("type")),
        (r#"{"type":"response.create","input":"hi"}"#, json!("model")),
        (r#"{"type":"response.create","model":"m","input":5}"#, json!("input")),
        (r#"{"type":"response.create","model":"smollm2:135m","input":"hi","background":true}"#, json!("background")),
    ] {
        ws.0.send(Message::text(wrong)).await.unwrap();
        let error = ws.end().await;
        assert_eq!(
            (&error["type"], &error["status"], &error["error"]["param"]),
            (&json!("error"), &json!(400), &param)
        );
    }
    ws.0.send(Message::Ping(Bytes::from_static(b"x"))).await.unwrap();
    assert!(matches!(ws.message().await, Some(Message::Pong(pong)) if pong == "x"));
    ws.create(json!({})).await;
    assert_eq!(ws.end().await["type"], "response.completed");
    ws.0.close(None).await.unwrap();
    assert_eq!(ws.closed().await, None);
}

#[tokio::test]
async fn each_end_has_its_close_code_and_leaves_nothing_behind() {
    let upstream = Upstream::start(held()).await;
    let small = |mut config: Config| {
        config.limits.body = 2000;
        config
    };
    let proxy = serve(small(config(upstream.addr))).await.unwrap();
    let begun = async || {
        let mut ws = Ws::open(proxy.addr()).await;
        ws.create(json!({})).await;
        while ws.event().await["type"] != "response.output_text.delta" {}
        ws
    };
    let mut ws = begun().await;
    ws.0.send(Message::binary("x")).await.unwrap();
    assert_eq!(ws.closed().await, Some(1003));
    let mut ws = begun().await;
    ws.0.send(Message::text("x".repeat(3000))).await.unwrap();
    assert_eq!(ws.closed().await, Some(1009));
    // A frame with a reserved opcode, a text that is not UTF-8 (both masked with zeros), and a frame without a mask.
    for (frame, code) in [
        (&[0x83, 0x80, 0, 0, 0, 0][..], 1002),
        (&[0x81, 0x82, 0, 0, 0, 0, 0xC3, 0x28], 1007),
        (&[0x81, 0x01, b'x'], 1002),
    ] {
        let mut ws = begun().await;
        ws.0.get_mut().write_all(frame).await.unwrap();
        assert_eq!(ws.closed().await, Some(code), "{frame:?}");
    }
    // A frame that is cut, a side that is shut, and a connection that is dropped.
    let mut ws = begun().await;
    ws.0.get_mut().write_all(&[0x81, 0xFE, 0x01]).await.unwrap();
    ws.0.get_mut().shutdown().await.unwrap();
    assert_eq!(ws.closed().await, None);
    drop(begun().await);
    quiet(&proxy).await;
    let open = upstream.seen().iter().filter(|seen| !seen.left).count();
    assert_eq!(open, 0, "the remote is free again");
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_one_with_a_turn_is_not() {
    let upstream = Upstream::start(held()).await;
    let mut short = config(upstream.addr);
    short.responses.websocket_idle = Duration::from_millis(100);
    let proxy = serve(short).await.unwrap();
    let mut ws = Ws::open(proxy.addr()).await;
    ws.create(json!({})).await;
    while ws.event().await["type"] != "response.output_text.delta" {}
    tokio::time::sleep(Duration::from_millis(300)).await;
    upstream.go_on();
    assert_eq!(ws.end().await["type"], "response.completed");
    let begun = Instant::now();
    assert_eq!(ws.closed().await, Some(1000));
    assert!(begun.elapsed() >= Duration::from_millis(90), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_turn_may_end_within_the_grace_and_idle_connections_are_closed_at_once() {
    let upstream = Upstream::start(held()).await;
    let proxy = proxy(upstream.addr).await;
    let mut idle = Ws::open(proxy.addr()).await;
    let mut ws = Ws::open(proxy.addr()).await;
    ws.create(json!({})).await;
    while ws.event().await["type"] != "response.output_text.delta" {}
    let stopping = tokio::spawn(proxy.stop(Duration::from_secs(30)));
    assert_eq!(idle.closed().await, Some(1001));
    ws.create(json!({})).await;
    assert_eq!(ws.event().await["error"]["code"], "shutting_down");
    upstream.go_on();
    assert_eq!(ws.end().await["type"], "response.completed");
    assert_eq!(ws.closed().await, Some(1001));
    tokio::time::timeout(PATIENCE, stopping).await.unwrap().unwrap();
}

#[tokio::test]
async fn the_gate_judges_the_handshake_and_each_turn() {
    let mock = mock().await;
    let mut keyed = config(mock.addr());
    let tokens = vec![
        Token { limit_per_minute: Some(1), ..Token::new("ann", "a-key") },
        Token { models: Some(vec!["other".to_owned()]), ..Token::new("bob", "b-key") },
    ];
    keyed.auth = Auth { enabled: true, tokens, ..Auth::default() };
    let proxy = serve(keyed.clone()).await.unwrap();
    let refused = |headers: &'static [(&'static str, &'static str)]| {
        let addr = proxy.addr();
        async move {
            match Ws::with(addr, headers).await.map(|_| ()) {
                Err(Error::Http(response)) => response.status().as_u16(),
                other => panic!("{other:?}"),
            }
        }
    };
    assert_eq!(refused(&[]).await, 401);
    assert_eq!(refused(&[("authorization", "Bearer x")]).await, 401);
    assert_eq!(refused(&[("authorization", "Bearer a-key"), ("origin", "https://evil.example")]).await, 403);
    assert_eq!(refused(&[("authorization", "Bearer a-key"), ("host", "evil.example")]).await, 403);
    let mut ann = Ws::with(proxy.addr(), &[("authorization", "Bearer a-key")]).await.unwrap();
    ann.create(json!({})).await;
    assert_eq!(ann.end().await["response"]["status"], "completed", "the handshake has cost nothing");
    ann.create(json!({})).await;
    let error = ann.end().await;
    assert_eq!((&error["status"], &error["error"]["code"]), (&json!(429), &json!("rate_limit_exceeded")));
    assert!(error["error"]["headers"]["retry-after"].is_string(), "{error}");
    let mut bob = Ws::with(proxy.addr(), &[("authorization", "Bearer b-key")]).await.unwrap();
    bob.create(json!({})).await;
    assert_eq!(bob.end().await["status"], 403);
    // A key that is taken away ends its connection with the next turn.
    keyed.auth.tokens.truncate(1);
    proxy.reload(keyed).unwrap();
    bob.create(json!({"model": "other"})).await;
    assert_eq!(bob.end().await["status"], 401);
    assert_eq!(bob.closed().await, Some(1008));
}

#[tokio::test]
async fn without_an_upgrade_it_says_what_to_do_and_no_more_are_open_than_may() {
    let mock = mock().await;
    let mut bounded = config(mock.addr());
    bounded.responses.max_websockets = 1;
    let proxy = serve(bounded).await.unwrap();
    let plain = ask(proxy.addr(), "GET /v1/responses HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(
        (plain.code(), plain.header("upgrade"), plain.header("sec-websocket-version")),
        (426, Some("websocket"), Some("13"))
    );
    let old = Ws::with(proxy.addr(), &[("sec-websocket-version", "8")]).await;
    assert!(matches!(old, Err(Error::Http(response)) if response.status() == 426));
    let first = Ws::open(proxy.addr()).await;
    let second = Ws::with(proxy.addr(), &[]).await;
    assert!(matches!(second, Err(Error::Http(response)) if response.status() == 503));
    drop(first);
    let begun = Instant::now();
    while Ws::with(proxy.addr(), &[]).await.is_err() {
        assert!(begun.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The resident memory of a process, in bytes.
#[cfg(target_os = "linux")]
fn resident(id: u32) -> usize {
    let sizes = std::fs::read_to_string(format!("/proc/{id}/statm")).unwrap();
    sizes.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn five_hundred_idle_connections_take_at_most_20_kb_each() {
    const OPEN: usize = 500;
    const MOST: usize = 20_000;
    let mock = mock().await;
    let remote = mock.addr().to_string();
    let program = Program::start(&["--remote-host", &remote, "--remote-probe", "0s"], &[]);
    let forgetting = json!({"store": false});
    // What the first requests take, all requests take.
    for _ in 0..20 {
        let mut ws = Ws::open(program.addr).await;
        ws.create(forgetting.clone()).await;
        assert_eq!(ws.end().await["type"], "response.completed");
    }
    // Freed memory goes back to the system after a moment.
    let settled = async || {
        tokio::time::sleep(Duration::from_secs(3)).await;
        resident(program.id())
    };
    let before = settled().await;
    let mut open = Vec::new();
    for _ in 0..OPEN {
        open.push(Ws::open(program.addr).await);
    }
    let fresh = settled().await.saturating_sub(before) / OPEN;
    for ws in &mut open {
        ws.create(forgetting.clone()).await;
        assert_eq!(ws.end().await["type"], "response.completed");
    }
    let used = settled().await.saturating_sub(before) / OPEN;
    println!("bytes for each idle WebSocket: {fresh} fresh, {used} after a turn that it remembers");
    assert!(fresh <= MOST && used <= MOST, "{fresh} bytes fresh, {used} after a turn");
}
