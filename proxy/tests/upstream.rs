//! HTTP to the remote, between raw sockets: framing, trailers, closed connections, streams that end too early, hostile
//! headers and paths.

use std::{net::SocketAddr, time::Duration};

use crate::support::{
    self, Act, CHAT, Client, STREAM_END, STREAM_HEAD, Upstream, ask, chunk, config, last, post, proxy, raw_response,
    word,
};
use farllama::serve;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

const GET: &str = "GET /api/tags HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// What a client gets, raw, for `request` when the remote answers `response`.
async fn raw(request: &str, response: &str) -> String {
    let upstream = Upstream::answering(response).await;
    let proxy = proxy(upstream.addr).await;
    let mut stream = TcpStream::connect(proxy.addr()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut got = Vec::new();
    tokio::time::timeout(support::PATIENCE, stream.read_to_end(&mut got)).await.unwrap().unwrap();
    String::from_utf8(got).unwrap()
}

/// A request after which the connection ends.
fn closing(method: &str, headers: &str) -> String {
    format!("{method} /api/tags HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n")
}

#[tokio::test]
async fn a_length_beside_chunks_cuts_nothing_off() {
    let response = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let upstream = Upstream::answering(response).await;
    let proxy = proxy(upstream.addr).await;
    let answer = ask(proxy.addr(), GET).await;
    assert_eq!((&*answer.text(), answer.whole, answer.header("content-length")), ("hello", true, None));
}

#[tokio::test]
async fn a_head_response_keeps_the_remotes_length_or_has_none() {
    for (response, length) in [
        ("HTTP/1.1 200 OK\r\nX-A: b\r\n\r\n", None),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", None),
        ("HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n", Some("17")),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Some("0")),
    ] {
        let got = raw(&closing("HEAD", ""), response).await;
        assert!(got.starts_with("HTTP/1.1 200 OK") && got.ends_with("\r\n\r\n"), "{got}");
        let reported = got.lines().find_map(|line| line.strip_prefix("content-length: "));
        assert_eq!(reported, length, "{response:?}: {got}");
    }
}

#[tokio::test]
async fn trailers_reach_a_client_that_takes_them_and_are_announced_to_no_other() {
    let response =
        "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 7\r\n\r\n";
    let got = raw(&closing("GET", "TE: trailers\r\n"), response).await;
    assert!(got.contains("\r\ntrailer: X-Sum\r\n") && got.ends_with("\r\n0\r\nx-sum: 7\r\n\r\n"), "{got}");
    let got = raw(&closing("GET", ""), response).await;
    assert!(!got.to_lowercase().contains("trailer") && got.ends_with("2\r\nok\r\n0\r\n\r\n"), "{got}");
}

#[tokio::test]
async fn trailers_of_an_upload_reach_the_remote_without_the_callers_key() {
    let upstream = Upstream::start(vec![]).await;
    let proxy = proxy(upstream.addr).await;
    let request = "POST /api/blobs/sha256:0 HTTP/1.1\r\nHost: localhost\r\nTrailer: X-Sum, X-Api-Key\r\nTransfer-Encoding: chunked\r\n\r\n\
                   2\r\nok\r\n0\r\nX-Sum: 7\r\nX-Api-Key: caller\r\nX-Other: 1\r\n\r\n";
    let _client = Client::sending(proxy.addr(), request).await;
    let seen =
        upstream.until(|seen| seen.text().ends_with("\r\n\r\n") && seen.text().contains("2\r\nok\r\n0\r\n")).await;
    assert!(seen.text().ends_with("2\r\nok\r\n0\r\nx-sum: 7\r\n\r\n"), "{}", seen.text());
}

#[tokio::test]
async fn a_get_keeps_its_chunked_body() {
    let upstream = Upstream::answering(raw_response("200 OK", "", "ok")).await;
    let proxy = proxy(upstream.addr).await;
    let request =
        "GET /api/tags HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n";
    assert_eq!(ask(proxy.addr(), request).await.text(), "ok");
    assert!(upstream.seen()[0].text().ends_with("\r\n\r\n4\r\nbody\r\n0\r\n\r\n"), "{}", upstream.seen()[0].text());
}

#[tokio::test]
async fn each_invalid_response_has_its_own_text_on_both_lanes() {
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(120));
    for (response, text) in [
        (&*many, "more than 100 headers"),
        ("HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n", "a folded header line"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", "several Content-Length values"),
        ("HTTP/1.1 200 OK\r\nContent-Length: five\r\n\r\nhello", "an invalid Content-Length"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "an unsupported Transfer-Encoding"),
        ("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", "an unexpected switch of protocols"),
        ("SSH-2.0-OpenSSH_9.2\r\n", "does not speak HTTP"),
    ] {
        let upstream = Upstream::answering(response).await;
        let proxy = proxy(upstream.addr).await;
        let native = ask(proxy.addr(), GET).await;
        let openai = ask(proxy.addr(), post("/v1/chat/completions", CHAT)).await;
        assert_eq!((native.code(), openai.code()), (502, 502), "{text}");
        let reported = native.json()["error"].as_str().unwrap().to_owned();
        assert!(reported.contains(text) && openai.message().contains(text), "no {text:?} in {reported:?}");
        assert_eq!(reported.contains("speaks TLS"), text.contains("speak HTTP"), "{reported}");
    }
    let flood = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(100);
    let upstream = Upstream::answering(flood).await;
    let proxy = proxy(upstream.addr).await;
    let answer = ask(proxy.addr(), GET).await;
    assert_eq!(answer.code(), 502);
    assert!(answer.text().contains("interim"), "{}", answer.text());
}

/// A remote that reads a second request on each connection and closes without an answer, as a gateway whose keep-alive
/// has just ended.
async fn forgetful(response: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let response = response.clone();
            tokio::spawn(async move {
                let mut buffer = vec![0; 64 << 10];
                let _ = stream.read(&mut buffer).await;
                let _ = stream.write_all(&response).await;
                let _ = stream.read(&mut buffer).await;
            });
        }
    });
    addr
}

#[tokio::test]
async fn a_request_that_meets_a_connection_being_closed_is_answered_on_both_lanes() {
    let remote = forgetful(raw_response("200 OK", "Content-Type: application/json\r\n", "{\"models\":[]}")).await;
    let proxy = proxy(remote).await;
    for _ in 0..3 {
        assert_eq!(ask(proxy.addr(), "GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n").await.code(), 200);
        assert_eq!(ask(proxy.addr(), GET).await.code(), 200);
        assert_eq!(ask(proxy.addr(), post("/api/show", "{\"model\":\"m\"}")).await.code(), 200);
    }
}

/// Ollama on a blob that it has (recorded: 0.33.0-rc2 http/early-answer): it answers without reading the body, and
/// closes half a second later with the body unread.
async fn early() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                let response = "HTTP/1.1 200 OK\r\nDate: Fri, 27 Nov 2026 12:11:43 GMT\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                stream.write_all(response.as_bytes()).await.unwrap();
                stream.shutdown().await.unwrap();
                tokio::time::sleep(Duration::from_millis(500)).await;
            });
        }
    });
    addr
}

/// Uploads `size` bytes as a client that writes all before it reads, and reads to the end of the connection.
fn upload(proxy: SocketAddr, size: usize, pause: Duration) -> std::io::Result<String> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(proxy)?;
    let head = "POST /api/blobs/sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824 HTTP/1.1\r\nHost: localhost\r\n";
    write!(stream, "{head}Content-Length: {size}\r\n\r\n")?;
    for piece in vec![b'!'; size].chunks(1 << 20) {
        stream.write_all(piece)?;
        std::thread::sleep(pause);
    }
    let mut response = String::new();
    stream.read_to_string(&mut response)?;
    Ok(response)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_writes_before_it_reads_gets_an_early_answer_and_never_a_reset() {
    let proxy = proxy(early().await).await;
    let addr = proxy.addr();
    for (size, pause) in [(8 << 20, 0), (8 << 20, 100), (45 << 20, 0)] {
        let uploads: Vec<_> = (0..3)
            .map(|_| tokio::task::spawn_blocking(move || upload(addr, size, Duration::from_millis(pause))))
            .collect();
        for upload in uploads {
            let response = upload.await.unwrap().unwrap_or_else(|error| panic!("{size} bytes: {error}"));
            assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
            assert!(response.to_lowercase().contains("\r\nconnection: close\r\n"), "{response}");
        }
    }
}

#[tokio::test]
async fn an_early_answer_does_not_wait_for_the_upload() {
    let proxy = proxy(early().await).await;
    let mut client = Client::connect(proxy.addr()).await;
    client.send("POST /api/blobs/sha256:0 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000000\r\n\r\nhello").await;
    let answer = client.answer().await;
    assert_eq!((answer.code(), answer.header("connection")), (200, Some("close")));
}

#[tokio::test]
async fn a_finished_upload_keeps_the_connection() {
    let upstream = Upstream::answering(raw_response("201 Created", "", "")).await;
    let proxy = proxy(upstream.addr).await;
    let mut client = Client::connect(proxy.addr()).await;
    for framing in ["Content-Length: 5\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"] {
        client.send(format!("POST /api/blobs/sha256:0 HTTP/1.1\r\nHost: localhost\r\n{framing}")).await;
        let answer = client.answer().await;
        assert_eq!((answer.code(), answer.header("connection")), (201, None));
    }
}

/// What a client gets of a native stream.
async fn streamed(path: &str, head: &str, chunks: &[Vec<u8>], truthful: bool) -> support::Answer {
    let response = [head.as_bytes(), &chunks.concat(), STREAM_END.as_bytes()].concat();
    let upstream = Upstream::answering(response).await;
    let mut config = config(upstream.addr);
    config.native.truthful_end = truthful;
    let proxy = serve(config).await.unwrap();
    ask(proxy.addr(), post(path, "{\"model\":\"m\"}")).await
}

#[tokio::test]
async fn a_native_stream_that_ends_before_it_is_done_ends_with_an_error_line_and_not_in_order() {
    let status = |status: &str| chunk(&format!("{{\"status\":\"{status}\"}}\n"));
    let error = chunk("{\"error\":\"an error was encountered while running the model\"}\n");
    let plain = STREAM_HEAD.replace("x-ndjson", "json");
    let gzip = STREAM_HEAD.replace("\r\n\r\n", "\r\nContent-Encoding: gzip\r\n\r\n");
    for (path, head, chunks, whole) in [
        ("/api/chat", STREAM_HEAD, vec![word("one"), word("two")], false),
        ("/api/chat", STREAM_HEAD, vec![word("one"), last()], true),
        ("/api/chat", STREAM_HEAD, vec![word("one"), error], true),
        ("/api/generate", STREAM_HEAD, vec![word("one")], false),
        ("/api/generate", STREAM_HEAD, vec![], false),
        ("/api/pull", STREAM_HEAD, vec![status("pulling manifest")], false),
        ("/api/pull", STREAM_HEAD, vec![status("pulling manifest"), status("success")], true),
        ("/api/create", STREAM_HEAD, vec![status("success")], true),
        ("/api/push", STREAM_HEAD, vec![status("pushing")], false),
        // Where nothing is known of the end, nothing is cut.
        ("/api/chat", &plain, vec![word("one")], true),
        ("/api/chat", &gzip, vec![word("one")], true),
        ("/api/other", STREAM_HEAD, vec![word("one")], true),
    ] {
        for truthful in [true, false] {
            let answer = streamed(path, head, &chunks, truthful).await;
            let sent: Vec<u8> =
                chunks.iter().flat_map(|chunk| chunk.split(|byte| *byte == b'\n').nth(1).unwrap().to_vec()).collect();
            let got: Vec<u8> = answer.body.iter().copied().filter(|byte| *byte != b'\n').collect();
            let sent: Vec<u8> = sent.into_iter().filter(|byte| *byte != b'\r').collect();
            let (got, sent) = (String::from_utf8_lossy(&got), String::from_utf8_lossy(&sent));
            let added = got.strip_prefix(&*sent).expect("bytes stay bytes");
            assert_eq!(answer.whole, whole || !truthful, "{path}: {}", answer.text());
            match answer.whole {
                true => assert_eq!(added, ""),
                false => assert!(added.starts_with("{\"error\":\"the remote Ollama ended its answer"), "{added}"),
            }
        }
    }
}

/// Ollama's client for Go takes a cut connection for the end of a complete answer; it notices the line.
#[tokio::test]
async fn a_native_stream_that_breaks_off_ends_with_an_error_line_unless_it_broke_off_within_one() {
    let half = b"5\r\n{\"mes\r\n".to_vec();
    for (chunks, reported) in [
        (vec![], true),
        (vec![word("one")], true),
        (vec![word("one"), half], false),
        // Complete, but for HTTP's own end.
        (vec![word("one"), last()], false),
    ] {
        let response = [STREAM_HEAD.as_bytes(), &chunks.concat()].concat();
        let upstream = Upstream::start(vec![Act::Write(response), Act::Close]).await;
        let proxy = proxy(upstream.addr).await;
        let answer = ask(proxy.addr(), post("/api/chat", "{\"model\":\"m\"}")).await;
        assert!(!answer.whole, "{}", answer.text());
        let text = answer.text();
        let last = text.lines().last().unwrap_or_default();
        let error = serde_json::from_str::<serde_json::Value>(last)
            .ok()
            .and_then(|line| line["error"].as_str().map(str::to_owned));
        assert_eq!(error.as_deref().is_some_and(|error| error.contains("broke off")), reported, "{text}");
    }
}

#[tokio::test]
async fn no_path_leaves_the_base_path() {
    let upstream = Upstream::answering(raw_response("200 OK", "", "ok")).await;
    let mut config = config(upstream.addr);
    config.remote.base_path = "/ollama".to_owned();
    let proxy = serve(config).await.unwrap();
    for path in ["/../admin", "/%2e%2e/admin", "/..%2fadmin", "/api/../../admin", "/..;/admin", "/%252e%252e/admin"] {
        let answer = ask(proxy.addr(), format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
        assert_eq!(answer.code(), 400, "{path}");
        assert!(answer.text().contains("base path"), "{}", answer.text());
    }
    assert!(upstream.seen().is_empty());
}

#[tokio::test]
async fn credentials_for_others_and_rewrites_do_not_go_up() {
    let upstream = Upstream::answering(raw_response("200 OK", "", "ok")).await;
    let proxy = proxy(upstream.addr).await;
    let secret = "Cookie: s=secret\r\nApi-Key: secret\r\nX-Goog-Api-Key: secret\r\nX-Original-URL: /secret\r\nX-Rewrite-URL: /secret\r\n";
    ask(proxy.addr(), closing("GET", secret)).await;
    let seen = upstream.seen()[0].text();
    assert!(!seen.contains("secret"), "{seen}");
    let mut config = config(upstream.addr);
    (config.remote.forward_cookies, config.remote.forward_auth) = (true, true);
    let open = serve(config).await.unwrap();
    ask(open.addr(), closing("GET", secret)).await;
    let seen = upstream.seen()[1].text();
    assert!(
        seen.contains("cookie: s=secret") && seen.contains("x-goog-api-key: secret") && !seen.contains("url"),
        "{seen}"
    );
}

#[tokio::test]
async fn the_remote_cannot_open_this_proxy_to_pages_nor_speak_in_its_name() {
    let headers = "Access-Control-Allow-Origin: *\r\nAccess-Control-Allow-Credentials: true\r\nX-Farllama-Receipt: lie\r\n\
                   X-RateLimit-Remaining-Requests: 9\r\nSet-Cookie: a=1\r\nX-End: 1\r\n";
    let upstream = Upstream::answering(raw_response("200 OK", headers, "ok")).await;
    let proxy = proxy(upstream.addr).await;
    let answer = ask(proxy.addr(), GET).await;
    let mut names: Vec<_> = answer.headers.iter().map(|(name, _)| &**name).collect();
    names.sort_unstable();
    assert_eq!(names, ["content-length", "x-end"]);
}

#[tokio::test]
async fn a_redirect_to_elsewhere_is_an_error_and_one_within_passes() {
    for (location, code) in [
        ("https://user:pw@evil.example/x?token=secret", 502),
        ("//evil.example/x", 502),
        ("/api/chat", 307),
        ("../chat", 307),
    ] {
        let response = raw_response("307 Temporary Redirect", &format!("Location: {location}\r\n"), "");
        let upstream = Upstream::answering(response).await;
        let proxy = proxy(upstream.addr).await;
        let answer = ask(proxy.addr(), GET).await;
        assert_eq!(answer.code(), code, "{location}");
        if code == 502 {
            assert_eq!(answer.header("location"), None);
            let text = answer.text();
            assert!(text.contains("evil.example/x") && !text.contains("pw@") && !text.contains("secret"), "{text}");
        } else {
            assert_eq!(answer.header("location"), Some(location));
        }
    }
}
