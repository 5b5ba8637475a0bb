//! Images that requests name by a URL: refused unless a setting says otherwise, and then fetched with every bound.

use std::time::Duration;

use crate::support::{Act, Answer, Upstream, ask, config, post, raw_response};
use farllama::{Config, serve};
use mock_ollama::{Mock, Script};
use serde_json::{Value, json};

const GIF: &str = "GIF89a12345678";
const GIF_BASE64: &str = "R0lGODlhMTIzNDU2Nzg=";

fn fetching(mock: &Mock) -> Config {
    let mut settings = config(mock.addr());
    (settings.images.fetch, settings.images.allow_private) = (true, true);
    settings
}

async fn host() -> Upstream {
    Upstream::answering(raw_response("200 OK", "Content-Type: image/gif\r\n", GIF)).await
}

/// Asks a proxy with these settings about the images at `urls`.
async fn about(settings: Config, urls: &[&str]) -> Answer {
    let proxy = serve(settings).await.unwrap();
    let parts: Vec<Value> = urls.iter().map(|url| json!({"type": "image_url", "image_url": {"url": url}})).collect();
    let body = json!({"model": "qwen3-vl:8b", "messages": [{"role": "user", "content": parts}], "max_tokens": 9});
    let request = String::from_utf8(post("/v1/chat/completions", &body.to_string())).unwrap();
    let request =
        request.replacen("\r\n", "\r\nAuthorization: Bearer canary\r\nCookie: canary\r\nX-Request-Id: canary\r\n", 1);
    ask(proxy.addr(), request).await
}

fn refused(answer: &Answer, words: &str) {
    assert_eq!(answer.code(), 400, "{}", answer.text());
    assert_eq!(answer.json()["error"]["param"], "messages[0].content[0].image_url");
    assert!(answer.message().contains(words), "{words}: {}", answer.message());
}

#[tokio::test]
async fn unless_a_setting_says_so_nothing_is_fetched_and_the_setting_is_named() {
    let (mock, host) = (Mock::start(Script::default()).await.unwrap(), host().await);
    let mut settings = config(mock.addr());
    settings.images.allow_private = true;
    refused(&about(settings, &[&format!("http://{}/a.gif", host.addr)]).await, "images.fetch");
    assert!(host.seen().is_empty() && mock.journal().entries().is_empty());
}

#[tokio::test]
async fn an_image_is_fetched_and_sent_as_data_and_no_header_of_the_caller_goes_along() {
    let (mock, host) = (Mock::start(Script::default()).await.unwrap(), host().await);
    let url = format!("http://{}/a.gif", host.addr);
    let answer = about(fetching(&mock), &[&url, "data:image/gif;base64,QUJD", &url]).await;
    assert_eq!(
        (answer.code(), answer.header("x-farllama-receipt")),
        (200, Some("image_url=fetched")),
        "{}",
        answer.text()
    );
    let entries = mock.journal().entries();
    let sent = entries.iter().find(|entry| entry.target == "/api/chat").unwrap().json().unwrap();
    assert_eq!(sent["messages"][0]["images"], json!([GIF_BASE64, "QUJD", GIF_BASE64]));
    assert_eq!(host.seen().len(), 1, "the same image is fetched once");
    assert!(!host.seen()[0].text().contains("canary"), "{}", host.seen()[0].text());
}

#[tokio::test]
async fn every_way_to_name_this_machine_or_a_private_network_is_refused_without_a_connection() {
    let (mock, host) = (Mock::start(Script::default()).await.unwrap(), host().await);
    let port = host.addr.port();
    for name in [
        "127.0.0.1",
        "localhost",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0.0.0.0",
        "[::]",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "169.254.169.254",
        "10.0.0.1",
        "192.168.0.1",
        "100.100.100.200",
        "[fd00:ec2::254]",
        "[fe80::1]",
    ] {
        let mut settings = fetching(&mock);
        settings.images.allow_private = false;
        let answer = about(settings, &[&format!("http://{name}:{port}/a.gif")]).await;
        assert_eq!((answer.code(), &answer.json()["error"]["code"]), (400, &json!("invalid_image_url")), "{name}");
    }
    assert!(host.seen().is_empty() && mock.journal().entries().is_empty());
}

#[tokio::test]
async fn a_host_that_is_too_slow_or_silent_is_given_up() {
    let mock = Mock::start(Script::default()).await.unwrap();
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\nGIF8".to_vec();
    for acts in [vec![Act::Hold], vec![Act::Write(head), Act::Hold]] {
        let host = Upstream::start(acts).await;
        let mut settings = fetching(&mock);
        settings.images.timeout = Duration::from_millis(50);
        refused(&about(settings, &[&format!("http://{}/a.gif", host.addr)]).await, "images.timeout (50ms)");
    }
}

#[tokio::test]
async fn what_is_too_large_no_image_or_not_there_is_refused_with_the_reason() {
    let mock = Mock::start(Script::default()).await.unwrap();
    for (answer, words) in [
        (raw_response("200 OK", "", &format!("GIF89a{}", "x".repeat(1000))), "images.max_bytes (1000 bytes)"),
        (
            raw_response("200 OK", "Content-Type: image/png\r\n", "<!doctype html><p>hello"),
            "not a PNG, JPEG, WebP or GIF",
        ),
        (raw_response("404 Not Found", "", "gone"), "404"),
        (raw_response("302 Found", "Location: /again\r\n", ""), "redirected more than 3 times"),
        (raw_response("302 Found", "Location: file:///etc/passwd\r\n", ""), "not an http(s) URL"),
        (b"SSH-2.0-x\r\n".to_vec(), "broke off"),
    ] {
        let host = Upstream::answering(answer).await;
        let mut settings = fetching(&mock);
        settings.images.max_bytes = 1000;
        refused(&about(settings, &[&format!("http://{}/a.gif", host.addr)]).await, words);
    }
    assert!(mock.journal().entries().is_empty());
}

#[tokio::test]
async fn one_request_fetches_only_so_many_images() {
    let (mock, host) = (Mock::start(Script::default()).await.unwrap(), host().await);
    for (many, code) in [(64, 200), (65, 400)] {
        let before = host.seen().len();
        let urls: Vec<String> = (0..many).map(|n| format!("http://{}/{n}.gif", host.addr)).collect();
        let mut settings = fetching(&mock);
        settings.context.num_ctx = 65_536;
        let answer = about(settings, &urls.iter().map(String::as_str).collect::<Vec<_>>()).await;
        assert_eq!(answer.code(), code, "{}", answer.text());
        assert_eq!(host.seen().len() - before, if code == 200 { many } else { 0 });
    }
}

#[tokio::test]
async fn responses_and_moderations_fetch_images_too() {
    let (mock, host) = (Mock::start(Script::default()).await.unwrap(), host().await);
    let url = format!("http://{}/a.gif", host.addr);
    let proxy = serve(fetching(&mock)).await.unwrap();
    let item = json!({"role": "user", "content": [{"type": "input_image", "image_url": url}]});
    let body = json!({"model": "qwen3-vl:8b", "input": [item], "max_output_tokens": 9});
    let answer = ask(proxy.addr(), post("/v1/responses", &body.to_string())).await;
    assert_eq!(answer.code(), 200, "{}", answer.text());
    let body = json!({"model": "qwen3-vl:8b", "input": [{"type": "image_url", "image_url": {"url": url}}]});
    ask(proxy.addr(), post("/v1/moderations", &body.to_string())).await;
    let entries = mock.journal().entries();
    let chats: Vec<_> =
        entries.iter().filter(|entry| entry.target == "/api/chat").filter_map(mock_ollama::Entry::json).collect();
    assert_eq!(chats.len(), 2);
    for chat in chats {
        let images = chat["messages"].as_array().unwrap().iter().filter_map(|message| message.get("images"));
        assert_eq!(images.collect::<Vec<_>>(), [&json!([GIF_BASE64])], "{chat}");
    }
}

#[tokio::test]
async fn an_image_counts_wherever_it_is_named() {
    let (mock, host) = (Mock::start(Script::default()).await.unwrap(), host().await);
    let url = format!("http://{}/a.gif", host.addr);
    let mut settings = fetching(&mock);
    settings.images.max_bytes = 10 * GIF.len();
    let answer = about(settings.clone(), &[&*url; 10]).await;
    assert_eq!(answer.code(), 200, "{}", answer.text());
    let answer = about(settings.clone(), &[&*url; 20]).await;
    assert_eq!((answer.code(), &answer.json()["error"]["code"]), (400, &json!("image_too_large")), "{}", answer.text());
    assert!(answer.message().contains("140 bytes") && answer.message().contains("20 places"), "{}", answer.message());
    // What the body becomes is bounded as the body is.
    settings.images.max_bytes = 1 << 20;
    settings.limits.body = 8 << 10;
    let image = Upstream::answering(raw_response("200 OK", "", &format!("GIF89a{}", "x".repeat(2000)))).await;
    let url = format!("http://{}/a.gif", image.addr);
    assert_eq!(about(settings.clone(), &[&url, &url]).await.code(), 200);
    assert_eq!(about(settings, &[&url, &url, &url]).await.code(), 413);
}
