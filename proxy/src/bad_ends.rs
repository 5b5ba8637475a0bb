//! Bad input and bad remotes: each has a clear end, and leaves nothing behind, neither a request nor a task, a
//! connection or a byte of a body.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use futures_util::{SinkExt, StreamExt};
use mock_ollama::{Mock, Script, Then};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Message, client::IntoClientRequest, http::HeaderValue},
};

use crate::{
    Config, Running,
    config::{Auth, Token},
    serve,
};

const PATIENCE: Duration = Duration::from_secs(20);

/// What a proxy holds for the requests that it has.
#[derive(Debug, Default, PartialEq)]
struct Held {
    requests: usize,
    tasks: usize,
    batches: usize,
    websockets: usize,
    buffered: usize,
}

fn held(proxy: &Running) -> Held {
    let persistent = &proxy.0.persistent;
    Held {
        requests: proxy.requests(),
        tasks: persistent.tasks.count(),
        batches: persistent.batches.tasks.count(),
        websockets: persistent.sockets.count(),
        buffered: persistent.buffered.used(),
    }
}

/// Waits until nothing is left.
async fn nothing_is_left(proxy: &Running, after: &str) {
    let begun = Instant::now();
    while held(proxy) != Held::default() {
        assert!(begun.elapsed() < PATIENCE, "after {after}: {:?}", held(proxy));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A proxy with two keys before a mock.
async fn served(script: Script) -> (Mock, Running) {
    let mock = Mock::start(script).await.unwrap();
    let tokens = vec![Token::new("ann", "a-key"), Token::new("bob", "b-key")];
    let mut config = Config { auth: Auth { enabled: true, tokens, ..Auth::default() }, ..Config::default() };
    config.local.port = 0;
    config.remote.port = mock.addr().port();
    config.limits.body = 4000;
    (mock, serve(config).await.unwrap())
}

/// The status and the body of the answer to a request of the key's.
async fn ask(addr: SocketAddr, key: &str, method: &str, path: &str, body: &str) -> (u16, Value) {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    let status = answer[9..12].parse().unwrap();
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    (status, serde_json::from_str(body).unwrap_or_default())
}

async fn websocket(addr: SocketAddr) -> WebSocketStream<TcpStream> {
    let mut request = format!("ws://localhost:{}/v1/responses", addr.port()).into_client_request().unwrap();
    request.headers_mut().insert("authorization", HeaderValue::from_static("Bearer a-key"));
    client_async(request, TcpStream::connect(addr).await.unwrap()).await.unwrap().0
}

/// A WebSocket on which a turn is under way.
async fn in_a_turn(addr: SocketAddr) -> WebSocketStream<TcpStream> {
    let mut ws = websocket(addr).await;
    let create = json!({"type": "response.create", "model": "smollm2:135m", "input": "hi", "store": false});
    ws.send(Message::text(create.to_string())).await.unwrap();
    while let Some(Ok(message)) = tokio::time::timeout(PATIENCE, ws.next()).await.unwrap() {
        if message.to_text().is_ok_and(|text| text.contains("output_text.delta")) {
            return ws;
        }
    }
    panic!("the turn has not begun");
}

/// A model that has begun to speak, and goes on for long.
fn speaking() -> Script {
    Script::on("/api/chat").says("one two three four").after(1).pause(Duration::from_secs(60))
}

#[tokio::test]
async fn ids_that_are_unknown_or_of_another_key() {
    let (_mock, proxy) = served(Script::default()).await;
    let addr = proxy.addr();
    let made = async |path: &str, body: Value| {
        let (status, made) = ask(addr, "a-key", "POST", path, &body.to_string()).await;
        assert_eq!(status, 200, "{made}");
        made["id"].as_str().unwrap().to_owned()
    };
    let response = made("/v1/responses", json!({"model": "smollm2:135m", "input": "hi"})).await;
    let conversation = made("/v1/conversations", json!({"items": [{"role": "user", "content": "hi"}]})).await;
    let messages = json!([{"role": "user", "content": "hi"}]);
    let chat =
        made("/v1/chat/completions", json!({"model": "smollm2:135m", "messages": messages, "store": true})).await;
    for (key, response, conversation, chat) in
        [("b-key", &*response, &*conversation, &*chat), ("a-key", "resp_unknown", "conv_unknown", "chatcmpl-unknown")]
    {
        for (method, path) in [
            ("GET", format!("/v1/responses/{response}")),
            ("GET", format!("/v1/responses/{response}?stream=true&starting_after=1")),
            ("GET", format!("/v1/responses/{response}/input_items")),
            ("POST", format!("/v1/responses/{response}/cancel")),
            ("DELETE", format!("/v1/responses/{response}")),
            ("GET", format!("/v1/conversations/{conversation}")),
            ("POST", format!("/v1/conversations/{conversation}")),
            ("GET", format!("/v1/conversations/{conversation}/items")),
            ("GET", format!("/v1/conversations/{conversation}/items/msg_1")),
            ("DELETE", format!("/v1/conversations/{conversation}/items/msg_1")),
            ("DELETE", format!("/v1/conversations/{conversation}")),
            ("GET", format!("/v1/chat/completions/{chat}")),
            ("GET", format!("/v1/chat/completions/{chat}/messages")),
            ("POST", format!("/v1/chat/completions/{chat}")),
            ("DELETE", format!("/v1/chat/completions/{chat}")),
            ("GET", "/v1/files/file-unknown".to_owned()),
            ("GET", "/v1/files/file-unknown/content".to_owned()),
            ("DELETE", "/v1/files/file-unknown".to_owned()),
            ("GET", "/v1/batches/batch_unknown".to_owned()),
            ("POST", "/v1/batches/batch_unknown/cancel".to_owned()),
        ] {
            let (status, body) = ask(addr, key, method, &path, r#"{"metadata":{}}"#).await;
            assert_eq!(
                (status, body["error"]["type"].as_str()),
                (404, Some("invalid_request_error")),
                "{method} {path}: {body}"
            );
        }
        for (field, id) in [("previous_response_id", response), ("conversation", conversation)] {
            let body = json!({"model": "smollm2:135m", "input": "hi", field: id});
            let (status, body) = ask(addr, key, "POST", "/v1/responses", &body.to_string()).await;
            assert!((status == 400 || status == 404) && body["error"]["param"] == field, "{body}");
        }
        nothing_is_left(&proxy, key).await;
    }
    for path in [
        format!("/v1/responses/{response}"),
        format!("/v1/conversations/{conversation}"),
        format!("/v1/chat/completions/{chat}"),
    ] {
        assert_eq!(ask(addr, "a-key", "DELETE", &path, "").await.0, 200, "{path} is still there for its own key");
    }
}

#[tokio::test]
async fn websockets_that_break_the_rules_or_break_off() {
    let (mock, proxy) = served(speaking()).await;
    let addr = proxy.addr();
    for (what, frame) in [
        ("a binary frame", &[0x82, 0x81, 0, 0, 0, 0, b'x'][..]),
        ("a reserved opcode", &[0x83, 0x80, 0, 0, 0, 0]),
        ("a frame without a mask", &[0x81, 0x01, b'x']),
        ("text that is not UTF-8", &[0x81, 0x82, 0, 0, 0, 0, 0xC3, 0x28]),
        ("a frame longer than allowed", &[0x81, 0xFE, 0xFF, 0xFF, 0, 0, 0, 0, b'x']),
        ("a close frame of one byte", &[0x88, 0x81, 0, 0, 0, 0, 1]),
    ] {
        let mut ws = in_a_turn(addr).await;
        assert_eq!((held(&proxy).websockets, held(&proxy).requests > 0), (1, true));
        ws.get_mut().write_all(frame).await.unwrap();
        let closed = async { while let Some(Ok(_)) = ws.next().await {} };
        tokio::time::timeout(PATIENCE, closed).await.unwrap_or_else(|_| panic!("{what} is not answered"));
        drop(ws);
        nothing_is_left(&proxy, what).await;
    }
    // A frame that is cut, then: nothing more, a side that is shut, and a connection that is gone.
    for (what, cut) in [("a cut frame", &[0x81, 0xFE, 0x01][..]), ("a half-closed connection", &[])] {
        let mut ws = in_a_turn(addr).await;
        ws.get_mut().write_all(cut).await.unwrap();
        ws.get_mut().shutdown().await.unwrap();
        let closed = async { while let Some(Ok(_)) = ws.next().await {} };
        tokio::time::timeout(PATIENCE, closed).await.unwrap_or_else(|_| panic!("{what} is not answered"));
        nothing_is_left(&proxy, what).await;
    }
    drop(in_a_turn(addr).await);
    nothing_is_left(&proxy, "a connection that is gone").await;
    drop(mock);
}

#[tokio::test]
async fn requests_that_are_cut_or_half_closed() {
    let (_mock, proxy) = served(speaking()).await;
    let body = json!({"model": "smollm2:135m", "input": "hi", "stream": true}).to_string();
    let head = |length: usize| {
        format!(
            "POST /v1/responses HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer a-key\r\nContent-Length: {length}\r\n\r\n"
        )
    };
    for (what, request, shut) in [
        ("a body that is cut", head(3000) + &body, false),
        ("a body that is cut and half-closed", head(3000) + &body, true),
        ("a body that is too long", head(5000) + &"x".repeat(5000), true),
        ("a stream whose client is half-closed", head(body.len()) + &body, true),
        ("a stream whose client is gone", head(body.len()) + &body, false),
    ] {
        let mut stream = TcpStream::connect(proxy.addr()).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        if what.contains("stream") {
            let mut seen = vec![0; 16];
            tokio::time::timeout(PATIENCE, stream.read_exact(&mut seen)).await.unwrap().unwrap();
        }
        if shut {
            stream.shutdown().await.unwrap();
            let mut rest = Vec::new();
            let end = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
            assert!(end.is_ok(), "{what} is not answered");
        }
        drop(stream);
        nothing_is_left(&proxy, what).await;
    }
}

#[tokio::test]
async fn responses_in_the_background_whose_remote_dies_or_goes_silent() {
    let cut = Script::on("/api/chat").says("one two three").after(1).then(Then::Reset);
    let (_mock, proxy) = served(cut).await;
    let addr = proxy.addr();
    let body = json!({"model": "smollm2:135m", "input": "hi", "background": true}).to_string();
    let (status, queued) = ask(addr, "a-key", "POST", "/v1/responses", &body).await;
    assert_eq!(status, 200, "{queued}");
    nothing_is_left(&proxy, "a remote that dies").await;
    let path = format!("/v1/responses/{}", queued["id"].as_str().unwrap());
    let (_, failed) = ask(addr, "a-key", "GET", &path, "").await;
    assert_eq!((&failed["status"], &failed["error"]["code"]), (&json!("failed"), &json!("server_error")), "{failed}");

    let (mock, proxy) = served(speaking()).await;
    let (_, queued) = ask(proxy.addr(), "a-key", "POST", "/v1/responses", &body).await;
    let path = format!("/v1/responses/{}", queued["id"].as_str().unwrap());
    assert_eq!(held(&proxy).tasks, 1);
    // One whose whole server is gone.
    while mock.journal().entries().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(mock);
    nothing_is_left(&proxy, "a remote that is gone").await;
    let (_, failed) = ask(proxy.addr(), "a-key", "GET", &path, "").await;
    assert_eq!(failed["status"], "failed", "{failed}");
}
