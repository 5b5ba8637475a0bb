//! A client that leaves cancels the upstream, in every case.

use std::time::Instant;

use crate::support::{Act, CHAT, CHAT_STREAM, Client, STREAM_HEAD, Upstream, post, proxy, word};

const NATIVE: &str = r#"{"model":"m","messages":[]}"#;

/// Sends `request`, waits until the upstream has it (and, in mid-stream, until the client has read `mark`), leaves, and
/// waits until the upstream feels it.
async fn leave(case: &str, request: Vec<u8>, begun: Option<(Vec<u8>, &str)>) {
    let (acts, mark) = match begun {
        None => (vec![Act::Hold], None),
        Some((bytes, mark)) => (vec![Act::Write(bytes), Act::Hold], Some(mark)),
    };
    let upstream = Upstream::start(acts).await;
    let proxy = proxy(upstream.addr).await;
    let mut client = Client::sending(proxy.addr(), request).await;
    upstream.until(|seen| seen.text().contains("\"model\"")).await;
    if let Some(mark) = mark {
        client.until(mark).await;
    }
    let left = Instant::now();
    drop(client);
    upstream.until(|seen| seen.left).await;
    println!("{case}: felt upstream after {:?}", left.elapsed());
}

fn stream_begun() -> Vec<u8> {
    [STREAM_HEAD.as_bytes(), &word("one")].concat()
}

/// An unstreamed answer of which only the first half has come.
fn whole_begun() -> Vec<u8> {
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: 1000\r\n\r\n{\"model\":"
        .to_vec()
}

#[tokio::test]
async fn a_native_client_that_leaves_before_the_first_byte_cancels_the_upstream() {
    leave("native, before the first byte, streamed", post("/api/chat", NATIVE), None).await;
    leave("native, before the first byte, unstreamed", post("/api/chat", r#"{"model":"m","stream":false}"#), None)
        .await;
}

#[tokio::test]
async fn a_native_client_that_leaves_in_mid_stream_cancels_the_upstream() {
    leave("native, in mid-stream", post("/api/chat", NATIVE), Some((stream_begun(), "\"one\""))).await;
    leave("native, in mid-body", post("/api/chat", NATIVE), Some((whole_begun(), "{\"model\":"))).await;
}

#[tokio::test]
async fn an_openai_client_that_leaves_before_the_first_byte_cancels_the_upstream() {
    leave("translated, before the first byte, streamed", post("/v1/chat/completions", CHAT_STREAM), None).await;
    leave("translated, before the first byte, unstreamed", post("/v1/chat/completions", CHAT), None).await;
}

#[tokio::test]
async fn an_openai_client_that_leaves_in_mid_stream_cancels_the_upstream() {
    leave("translated, in mid-stream", post("/v1/chat/completions", CHAT_STREAM), Some((stream_begun(), "\"one\"")))
        .await;
}

#[tokio::test]
async fn an_openai_client_that_leaves_while_an_unstreamed_answer_comes_in_cancels_the_upstream() {
    let upstream = Upstream::start(vec![Act::Write(whole_begun()), Act::Hold]).await;
    let proxy = proxy(upstream.addr).await;
    let client = Client::sending(proxy.addr(), post("/v1/chat/completions", CHAT)).await;
    upstream.until(|seen| seen.text().contains("\"model\"")).await;
    drop(client);
    upstream.until(|seen| seen.left).await;
}

#[tokio::test]
async fn a_client_that_leaves_during_its_upload_ends_the_upload() {
    let upstream = Upstream::start(vec![]).await;
    let proxy = proxy(upstream.addr).await;
    let head = "POST /api/blobs/sha256:0 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\nhalf";
    let client = Client::sending(proxy.addr(), head).await;
    upstream.until(|seen| seen.text().contains("half")).await;
    drop(client);
    upstream.until(|seen| seen.left).await;
}

mod on_the_mock {
    //! The same, as the mock's journal shows it.

    use std::{net::SocketAddr, time::Duration};

    use mock_ollama::{Ending, Mock, Script};

    use super::*;
    use crate::support::PATIENCE;

    /// Every way to ask.
    fn requests() -> [(&'static str, Vec<u8>, &'static str); 4] {
        let model = "\"model\":\"smollm2:135m\"";
        let chat = format!("{{{model},\"messages\":[{{\"role\":\"user\",\"content\":\"hi\"}}]");
        [
            ("native, streamed", post("/api/chat", &format!("{chat}}}")), "\"done\":false"),
            ("native, unstreamed", post("/api/chat", &format!("{chat},\"stream\":false}}")), ""),
            (
                "translated, streamed",
                post("/v1/chat/completions", &format!("{chat},\"stream\":true}}")),
                "\"content\":",
            ),
            ("translated, unstreamed", post("/v1/chat/completions", &format!("{chat}}}")), ""),
        ]
    }

    async fn leave(case: &str, mock: &Mock, request: Vec<u8>, mark: &str) {
        let addr: SocketAddr = mock.addr();
        let proxy = proxy(addr).await;
        let nth = mock.journal().entries().len();
        let mut client = Client::sending(proxy.addr(), request).await;
        assert!(mock.journal().arrived(nth, PATIENCE).await.is_some(), "{case}: the mock was not asked");
        if !mark.is_empty() {
            client.until(mark).await;
        }
        let left = Instant::now();
        drop(client);
        let ended =
            mock.journal().ended(nth, PATIENCE).await.unwrap_or_else(|| panic!("{case}: not felt within {PATIENCE:?}"));
        println!("{case}: felt upstream after {:?}", left.elapsed());
        assert!(matches!(ended.ended, Some((Ending::Aborted, _))), "{case}: {:?}", ended.ended);
    }

    #[tokio::test]
    async fn a_client_that_leaves_before_the_first_byte_aborts_the_exchange() {
        let mock = Mock::start(Script::on("/api/chat").delay(Duration::from_secs(60))).await.unwrap();
        for (case, request, _) in requests() {
            leave(&format!("{case}, before the first byte"), &mock, request, "").await;
        }
    }

    #[tokio::test]
    async fn a_client_that_leaves_in_mid_stream_aborts_the_exchange() {
        let mock = Mock::start(Script::on("/api/chat").pause(Duration::from_secs(60))).await.unwrap();
        for (case, request, mark) in requests().into_iter().filter(|(.., mark)| !mark.is_empty()) {
            leave(&format!("{case}, in mid-stream"), &mock, request, mark).await;
        }
    }
}
