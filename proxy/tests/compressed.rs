//! Request bodies that are compressed: decoded for the translated routes, untouched on the native lane.

use std::io::Write;

use crate::support::{Upstream, ask, config, proxy, raw_response};
use farllama::{
    config::{Auth, Token},
    serve,
};
use flate2::{Compression, write::GzEncoder};
use mock_ollama::{Mock, Script};
use ruzstd::encoding::{CompressionLevel, compress_to_vec};

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn post(path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n{headers}\r\n", body.len());
    [head.as_bytes(), body].concat()
}

const CHAT: &[u8] = br#"{"model":"agent","messages":[{"role":"user","content":"hi \ud83d"}]}"#;

#[tokio::test]
async fn a_compressed_body_is_decoded_for_the_translated_routes() {
    let mock = Mock::start(Script::default()).await.unwrap();
    let proxy = proxy(mock.addr()).await;
    for (coding, body) in [("gzip", gzip(CHAT)), ("zstd", compress_to_vec(CHAT, CompressionLevel::Fastest))] {
        let answer =
            ask(proxy.addr(), post("/v1/chat/completions", &format!("Content-Encoding: {coding}\r\n"), &body)).await;
        assert_eq!(answer.code(), 200, "{coding}: {}", answer.text());
        let entries = mock.journal().entries();
        let asked = entries.last().unwrap();
        assert_eq!(asked.json().unwrap()["messages"][0]["content"], "hi \u{fffd}");
    }
    let answer = ask(proxy.addr(), post("/v1/chat/completions", "Content-Encoding: compress\r\n", CHAT)).await;
    assert_eq!((answer.code(), answer.message().contains("gzip, deflate, br or zstd")), (400, true));
}

#[tokio::test]
async fn a_bomb_is_too_large() {
    let mock = Mock::start(Script::default()).await.unwrap();
    let mut settings = config(mock.addr());
    settings.limits.body = 1 << 20;
    let proxy = serve(settings).await.unwrap();
    let bomb = gzip(&vec![b' '; 64 << 20]);
    let answer = ask(proxy.addr(), post("/v1/chat/completions", "Content-Encoding: gzip\r\n", &bomb)).await;
    assert_eq!(answer.code(), 413, "{}", answer.text());
}

#[tokio::test]
async fn the_native_lane_passes_compressed_bytes_unchanged() {
    let upstream = Upstream::answering(raw_response("200 OK", "", "{}")).await;
    let proxy = proxy(upstream.addr).await;
    let body = gzip(CHAT);
    ask(proxy.addr(), post("/api/chat", "Content-Encoding: gzip\r\n", &body)).await;
    let seen = &upstream.seen()[0];
    assert!(seen.bytes.ends_with(&body));
    assert_eq!(seen.header("content-encoding").as_deref(), Some("gzip"));
}

#[tokio::test]
async fn a_key_with_a_list_of_models_is_held_to_it_in_a_compressed_body_too() {
    let mock = Mock::start(Script::default()).await.unwrap();
    let token = |models: &[&str]| Token {
        models: Some(models.iter().map(ToString::to_string).collect()),
        ..Token::new("blue", "blue-key")
    };
    for (models, code) in [(&["agent"][..], 200), (&["other"], 403)] {
        let auth = Auth { enabled: true, tokens: vec![token(models)], ..Auth::default() };
        let proxy = serve(farllama::Config { auth, ..config(mock.addr()) }).await.unwrap();
        let headers = "Authorization: Bearer blue-key\r\nContent-Encoding: gzip\r\n";
        let answer = ask(proxy.addr(), post("/v1/chat/completions", headers, &gzip(CHAT))).await;
        assert_eq!(answer.code(), code, "{}", answer.text());
    }
}
