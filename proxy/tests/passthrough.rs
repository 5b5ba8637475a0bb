//! The native lane: bytes in, bytes out.

use std::time::Duration;

use crate::support::{
    self, Act, Answer, Client, STREAM_END, STREAM_HEAD, Upstream, ask, chunk, config, last, proxy, raw_response, word,
};
use farllama::serve;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok";

#[tokio::test]
async fn raw_targets_reach_the_remote_untouched() {
    let upstream = Upstream::answering(OK).await;
    let proxy = proxy(upstream.addr).await;
    for target in [
        "/",
        "/api/%2e%2e/x",
        "/api/a/../b",
        "/api/./x//y",
        "/api/'x",
        "/api/{x}",
        "/api/x?q=%2F&empty=",
        "/api/x?",
        "/api/tags?a=b&a=%20c+d",
        "/v1/systemone?beta=true",
        "/v1/unknown/resp_1",
        "/v1/chat/completions/",
        "/v1beta/models",
        "//api/tags",
    ] {
        let answer = ask(proxy.addr(), format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
        assert_eq!((answer.code(), &*answer.text()), (200, "ok"), "{target}");
        let line = format!("GET {target} HTTP/1.1\r\n");
        let arrived = upstream.seen().iter().any(|seen| seen.text().contains(&line));
        assert!(
            arrived,
            "{target} did not arrive: {:?}",
            upstream.seen().iter().map(support::Seen::head).collect::<Vec<_>>()
        );
    }
}

#[tokio::test]
async fn a_request_goes_out_as_it_came_but_for_host_keys_and_the_hop() {
    let upstream = Upstream::answering(OK).await;
    let proxy = proxy(upstream.addr).await;
    let body = "{\"model\": \"m\",\n \"a\\u003c\": 1.0}";
    let request = format!(
        "DELETE /api/delete HTTP/1.1\r\nHost: localhost:1\r\nAuthorization: Bearer caller\r\nX-Api-Key: caller\r\nX-Twice: a\r\nX-Twice: b\r\n\
         Origin: http://localhost:3000\r\nAccept-Encoding: gzip, deflate\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nTE: trailers\r\n\
         Via: 1.0 fred\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    ask(proxy.addr(), request).await;
    let seen = &upstream.seen()[0];
    let mut head = seen.head();
    assert!(seen.text().ends_with(&format!("\r\n\r\n{body}")));
    assert_eq!(head.remove(0), "DELETE /api/delete HTTP/1.1");
    let via = head.iter().position(|line| line.starts_with("via: 1.1 farllama-")).expect("our own hop is told");
    head.remove(via);
    head.sort();
    let mut expected = vec![
        "accept-encoding: gzip, deflate".to_owned(),
        format!("content-length: {}", body.len()),
        "content-type: application/x-www-form-urlencoded".to_owned(),
        format!("host: {}", upstream.addr),
        "via: 1.0 fred".to_owned(),
        "x-twice: a".to_owned(),
        "x-twice: b".to_owned(),
    ];
    expected.sort();
    assert_eq!(head, expected);
}

#[tokio::test]
async fn an_answer_comes_back_as_it_was() {
    let raw = "HTTP/1.1 418 I'm a teapot\r\nX-B: 2\r\nX-A: 1\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Encoding: gzip\r\n\
               Connection: X-Hop\r\nX-Hop: 1\r\nContent-Length: 6\r\n\r\n\x1f\u{0}\n\r\n!";
    let upstream = Upstream::answering(raw).await;
    let mut config = config(upstream.addr);
    config.remote.forward_cookies = true;
    let proxy = serve(config).await.unwrap();
    let answer = ask(proxy.addr(), "GET /api/x HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(answer.code(), 418);
    assert_eq!(answer.body, b"\x1f\0\n\r\n!");
    assert_eq!(
        answer.headers,
        [
            pair("x-b", "2"),
            pair("x-a", "1"),
            pair("set-cookie", "a=1"),
            pair("set-cookie", "b=2"),
            pair("content-encoding", "gzip"),
            pair("content-length", "6"),
        ]
    );
}

#[tokio::test]
async fn a_head_request_is_answered_with_the_head_alone() {
    let upstream = Upstream::answering("HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n").await;
    let proxy = proxy(upstream.addr).await;
    let mut client = Client::sending(proxy.addr(), "HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let head = client.until("\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200 OK") && head.contains("content-length: 17"), "{head}");
    // The connection goes on: nothing of a body is in the way.
    client.send("HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    client.until("\r\n\r\n").await;
}

#[tokio::test]
async fn lines_arrive_while_the_remote_is_still_writing() {
    let head = [STREAM_HEAD.as_bytes(), &word("one")].concat();
    let rest = [word("two"), last(), STREAM_END.into()].concat();
    let upstream = Upstream::start(vec![Act::Write(head), Act::Hold, Act::Write(rest)]).await;
    let proxy = proxy(upstream.addr).await;
    let mut client = Client::sending(proxy.addr(), support::post("/api/chat", "{}")).await;
    let begun = client.until("\"one\"").await;
    assert!(begun.contains("content-type: application/x-ndjson") && !begun.contains("\"two\""));
    upstream.go_on();
    let ended = client.until(STREAM_END).await;
    assert!(ended.contains("\"two\""));
}

#[tokio::test]
async fn a_chunked_upload_streams_through() {
    let upstream = Upstream::answering(OK).await;
    let proxy = proxy(upstream.addr).await;
    let mut client = Client::connect(proxy.addr()).await;
    client.send("POST /api/blobs/sha256:0 HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    client.send(chunk("first")).await;
    upstream.until(|seen| seen.text().contains("first")).await;
    client.send(chunk("\0second\u{e9}")).await;
    client.send(STREAM_END).await;
    assert_eq!(client.answer().await.text(), "ok");
    assert!(upstream.seen()[0].text().contains("second\u{e9}"));
}

#[tokio::test]
async fn curl_gets_its_100_continue() {
    let upstream = Upstream::answering(OK).await;
    let proxy = proxy(upstream.addr).await;
    let head = "POST /api/create HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
    let mut client = Client::sending(proxy.addr(), head).await;
    client.until("HTTP/1.1 100 Continue\r\n\r\n").await;
    client.send("{}").await;
    client.until("\r\n\r\nok").await;
}

#[tokio::test]
async fn a_remote_under_a_prefix_is_asked_under_it() {
    let upstream = Upstream::answering(OK).await;
    let mut config = config(upstream.addr);
    config.remote.base_path = "/ollama".to_owned();
    let proxy = serve(config).await.unwrap();
    ask(proxy.addr(), "GET /api/%2e%2e/tags?x=%2F HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(upstream.seen()[0].head()[0], "GET /ollama/api/%2e%2e/tags?x=%2F HTTP/1.1");
}

#[tokio::test]
async fn the_remotes_own_credentials_take_the_place_of_the_callers() {
    let upstream = Upstream::answering(OK).await;
    let mut config = config(upstream.addr);
    config.remote.authorization = Some("Bearer remote".parse().unwrap());
    config.remote.headers = vec![("x-team".parse().unwrap(), "ours".parse().unwrap())];
    let proxy = serve(config).await.unwrap();
    ask(
        proxy.addr(),
        "GET /api/tags HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer caller\r\nX-Team: theirs\r\n\r\n",
    )
    .await;
    let seen = &upstream.seen()[0];
    assert_eq!(
        (seen.header("authorization"), seen.header("x-team")),
        (Some("Bearer remote".into()), Some("ours".into()))
    );
    assert!(!seen.text().contains("caller") && !seen.text().contains("theirs"));
}

#[tokio::test]
async fn a_callers_authorization_goes_on_only_where_the_settings_say_so() {
    let upstream = Upstream::answering(OK).await;
    let mut config = config(upstream.addr);
    config.remote.forward_auth = true;
    let proxy = serve(config).await.unwrap();
    ask(proxy.addr(), "GET /api/tags HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer caller\r\n\r\n").await;
    assert_eq!(upstream.seen()[0].header("authorization"), Some("Bearer caller".into()));
}

#[tokio::test]
async fn a_request_that_passed_here_before_is_refused_instead_of_going_round() {
    // An upstream that plays the next hop: it shows us the `Via` to come back with.
    let upstream = Upstream::answering(OK).await;
    let proxy = proxy(upstream.addr).await;
    ask(proxy.addr(), "GET /api/tags HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let via = upstream.seen()[0].header("via").unwrap();
    let answer =
        ask(proxy.addr(), format!("GET /api/tags HTTP/1.1\r\nHost: localhost\r\nVia: 1.1 other, {via}\r\n\r\n")).await;
    assert_eq!(answer.code(), 508);
    assert!(answer.json()["error"].as_str().unwrap().contains("--remote-host"));
    // A translated request carries it too, and gets it too.
    ask(proxy.addr(), support::post("/v1/chat/completions", support::CHAT)).await;
    assert!(
        upstream
            .seen()
            .iter()
            .all(|seen| seen.text().matches("via: 1.1 farllama-").count() == seen.text().matches(" HTTP/1.1").count())
    );
    let models = ask(proxy.addr(), format!("GET /v1/models HTTP/1.1\r\nHost: localhost\r\nVia: {via}\r\n\r\n")).await;
    assert_eq!(models.code(), 508);
    assert!(models.message().contains("--remote-host"));
}

#[tokio::test]
async fn a_remote_that_breaks_off_is_not_made_to_look_whole() {
    let begun = [STREAM_HEAD.as_bytes(), &word("one")].concat();
    let upstream = Upstream::start(vec![Act::Write(begun), Act::Close]).await;
    let proxy = proxy(upstream.addr).await;
    let answer = ask(proxy.addr(), support::post("/api/chat", "{}")).await;
    assert!(answer.text().contains("\"one\"") && !answer.whole, "{answer:?}");
}

#[tokio::test]
async fn what_is_not_an_ollama_is_passed_on_as_it_is() {
    for (status, body) in
        [("200 OK", "<html>login</html>"), ("401 Unauthorized", "no"), ("404 Not Found", "404 page not found")]
    {
        let upstream = Upstream::answering(raw_response(status, "Content-Type: text/html\r\n", body)).await;
        let proxy = proxy(upstream.addr).await;
        let answer = ask(proxy.addr(), "GET /api/tags HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        assert_eq!(
            (answer.status, String::from_utf8(answer.body).unwrap()),
            (format!("HTTP/1.1 {status}"), body.to_owned())
        );
    }
}

#[tokio::test]
async fn an_allowed_page_can_read_its_answer_and_a_foreign_one_is_refused() {
    let upstream = Upstream::answering(OK).await;
    let proxy = proxy(upstream.addr).await;
    let get = |origin: &str| format!("GET /api/tags HTTP/1.1\r\nHost: localhost\r\nOrigin: {origin}\r\n\r\n");
    let allowed = ask(proxy.addr(), get("http://localhost:3000")).await;
    assert_eq!(allowed.header("access-control-allow-origin"), Some("http://localhost:3000"));
    let refused = ask(proxy.addr(), get("https://evil.example")).await;
    assert_eq!(refused.code(), 403);
    let preflight = ask(
        proxy.addr(),
        "OPTIONS /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost:3000\r\nAccess-Control-Request-Method: POST\r\n\r\n",
    )
    .await;
    assert_eq!(preflight.code(), 204);
    assert!(preflight.header("access-control-allow-headers").unwrap().contains("X-Stainless-Lang"));
    assert_eq!(upstream.seen().len(), 1);
}

#[tokio::test]
async fn a_stream_in_flight_may_end_at_shutdown_and_new_connections_are_refused() {
    let head = [STREAM_HEAD.as_bytes(), &word("one")].concat();
    let rest = [word("two"), STREAM_END.into()].concat();
    let upstream = Upstream::start(vec![Act::Write(head), Act::Hold, Act::Write(rest)]).await;
    let proxy = proxy(upstream.addr).await;
    let addr = proxy.addr();
    let mut client = Client::sending(addr, support::post("/api/chat", "{}")).await;
    client.until("\"one\"").await;
    let stopping = tokio::spawn(proxy.stop(Duration::from_secs(5)));
    while tokio::net::TcpStream::connect(addr).await.is_ok() {
        tokio::task::yield_now().await;
    }
    upstream.go_on();
    client.until("\"two\"").await;
    stopping.await.unwrap();
}

#[tokio::test]
async fn a_stream_that_outlives_the_grace_ends_with_an_error() {
    let head = [STREAM_HEAD.as_bytes(), &word("one")].concat();
    let upstream = Upstream::start(vec![Act::Write(head), Act::Hold]).await;
    let proxy = proxy(upstream.addr).await;
    let mut client = Client::sending(proxy.addr(), support::post("/api/chat", "{}")).await;
    client.until("\"one\"").await;
    proxy.stop(Duration::from_millis(10)).await;
    let answer: Answer = client.answer_or_nothing().await;
    // In Ollama's own form, as a last line, so that no client takes the stream for complete.
    let end = answer.text();
    assert!(end.starts_with("{\"error\":\"the proxy is shutting down") && !end.contains("\"done\":true"), "{end}");
    upstream.until(|seen| seen.left).await;
}
