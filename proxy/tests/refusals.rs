//! What went wrong, in plain words: one text for each cause, in both dialects.

use std::{sync::Arc, time::Duration};

use crate::support::{self, Answer, CHAT, Client, Upstream, ask, config, post, proxy, raw_response};
use farllama::{Config, Running, config::Protocol, serve};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpSocket, TcpStream},
};

const TAGS: &str = "GET /api/tags HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// Asks on both lanes; each answer must have `status` and contain `words`, in its own dialect.
async fn both_apis_say(proxy: &Running, status: u16, words: &[&str]) {
    let native = ask(proxy.addr(), TAGS).await;
    let openai = ask(proxy.addr(), post("/v1/chat/completions", CHAT)).await;
    let reported = native.json()["error"].as_str().unwrap_or_else(|| panic!("{native:?}")).to_owned();
    for (answer, reported) in [(&native, reported), (&openai, openai.message())] {
        assert_eq!(answer.code(), status, "{reported}");
        for word in words {
            assert!(reported.contains(word), "no {word:?} in {reported:?}");
        }
    }
    let error = &openai.json()["error"];
    assert_eq!((&error["type"], &error["param"]), (&"server_error".into(), &serde_json::Value::Null));
}

async fn remote(change: impl FnOnce(&mut Config)) -> Running {
    let mut config = config("127.0.0.1:9".parse().unwrap());
    change(&mut config);
    serve(config).await.unwrap()
}

#[tokio::test]
async fn a_name_without_address_is_reported() {
    let proxy = remote(|config| "gpu-box.invalid".clone_into(&mut config.remote.host)).await;
    both_apis_say(&proxy, 502, &["http://gpu-box.invalid:9", "no address is known", "--remote-host"]).await;
}

#[tokio::test]
async fn a_refused_connection_is_reported_with_ollamas_usual_reason() {
    // A port that was free a moment ago.
    let addr = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let proxy = proxy(addr).await;
    both_apis_say(&proxy, 502, &[&addr.to_string(), "connection refused", "OLLAMA_HOST", "--remote-port"]).await;
}

#[tokio::test]
async fn a_connection_that_does_not_come_about_is_reported_with_the_bound() {
    // A listener whose queue is full accepts no connection.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let addr = listener.local_addr().unwrap();
    let mut queue = Vec::new();
    while let Ok(stream) = tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(addr)).await {
        queue.push(stream);
    }
    let mut config = config(addr);
    config.timeouts.connect = Duration::from_millis(100);
    let proxy = serve(config).await.unwrap();
    both_apis_say(&proxy, 504, &[&addr.to_string(), "no connection within 100ms", "firewall", "timeouts.connect"])
        .await;
}

#[tokio::test]
async fn tls_spoken_to_a_plain_port_is_reported() {
    let plain = Upstream::answering(raw_response("400 Bad Request", "", "what?")).await;
    // A TLS greeting has no blank line, so this server answers at the first byte.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(&raw_response("400 Bad Request", "Connection: close\r\n", "what?")).await;
        }
    });
    drop(plain);
    let mut config = config(addr);
    config.remote.protocol = Protocol::Https;
    let proxy = serve(config).await.unwrap();
    both_apis_say(&proxy, 502, &["https://", "does not speak TLS", "--remote-protocol http"]).await;
}

#[tokio::test]
async fn a_port_that_accepts_connections_but_no_tls_handshake_is_not_called_a_dead_machine() {
    // The kernel accepts; nothing reads.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = config(silent.local_addr().unwrap());
    config.remote.protocol = Protocol::Https;
    config.timeouts.connect = Duration::from_millis(300);
    let proxy = serve(config).await.unwrap();
    both_apis_say(&proxy, 504, &["connected, but no answer to the TLS handshake", "--remote-protocol http"]).await;
}

/// A TLS server that answers every connection with `OK`; gives the PEM of its authority.
async fn tls_server() -> (std::net::SocketAddr, String) {
    let signed = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let pem = signed.cert.pem();
    let key = tokio_rustls::rustls::pki_types::PrivateKeyDer::Pkcs8(signed.signing_key.serialize_der().into());
    let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
    let tls = tokio_rustls::rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![signed.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let _ = stream
                    .write_all(&raw_response(
                        "200 OK",
                        "Content-Type: application/json\r\nConnection: close\r\n",
                        "{\"models\":[]}",
                    ))
                    .await;
                let _ = stream.shutdown().await;
            });
        }
    });
    (addr, pem)
}

#[tokio::test]
async fn an_unknown_authority_is_reported_and_trusted_once_it_is_named() {
    let (addr, pem) = tls_server().await;
    let https = |config: &mut Config| {
        config.remote.protocol = Protocol::Https;
        "localhost".clone_into(&mut config.remote.host);
        config.remote.port = addr.port();
    };
    let proxy = remote(https).await;
    both_apis_say(&proxy, 502, &["https://localhost", "authority", "remote.ca_file"]).await;

    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), pem).unwrap();
    let trusting = remote(|config| {
        https(config);
        config.remote.ca_file = Some(file.path().to_owned());
    })
    .await;
    assert_eq!(ask(trusting.addr(), TAGS).await.text(), "{\"models\":[]}");
}

#[tokio::test]
async fn a_remote_that_hangs_up_without_a_word_is_reported() {
    let upstream = Upstream::start(vec![support::Act::Close]).await;
    let proxy = proxy(upstream.addr).await;
    both_apis_say(&proxy, 502, &[&upstream.addr.to_string(), "closed the connection without an answer"]).await;
}

#[tokio::test]
async fn a_remote_that_does_not_speak_http_is_reported() {
    let upstream = Upstream::answering("SSH-2.0-OpenSSH_9.2\r\n").await;
    let proxy = proxy(upstream.addr).await;
    both_apis_say(&proxy, 502, &["does not speak HTTP", "--remote-protocol https"]).await;
}

#[tokio::test]
async fn a_first_byte_that_does_not_come_is_a_timeout_where_the_settings_bound_it() {
    let upstream = Upstream::start(vec![support::Act::Hold]).await;
    let mut config = config(upstream.addr);
    config.timeouts.first_byte = Duration::from_millis(50);
    let proxy = serve(config).await.unwrap();
    both_apis_say(&proxy, 504, &["sent nothing within 50ms", "timeouts.first_byte"]).await;
}

#[tokio::test]
async fn the_openai_lane_names_what_is_not_an_ollama() {
    let cases = [
        ("200 OK", "Content-Type: text/html\r\n", "<!DOCTYPE html><title>Router</title>", "an HTML page"),
        ("404 Not Found", "Content-Type: text/plain\r\n", "404 page not found", "--remote-base-path"),
        ("400 Bad Request", "", "Client sent an HTTP request to an HTTPS server.\n", "--remote-protocol https"),
        ("302 Found", "Location: https://login.example/\r\n", "", "a redirect"),
        ("200 OK", "Content-Type: application/json\r\n", "{\"hello\":1}", "does not answer as Ollama does"),
    ];
    for (status, headers, body, words) in cases {
        let upstream = Upstream::answering(raw_response(status, headers, body)).await;
        let proxy = proxy(upstream.addr).await;
        for request in
            [post("/v1/chat/completions", CHAT), b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec()]
        {
            let answer = ask(proxy.addr(), request).await;
            assert_eq!(answer.code(), 502, "{answer:?}");
            let reported = answer.message();
            assert!(
                reported.contains(words) && reported.contains(&upstream.addr.to_string()),
                "no {words:?} in {reported:?}"
            );
        }
    }
}

#[tokio::test]
async fn the_openai_lane_keeps_what_a_gateway_says() {
    let page = |text: &str| format!("<html><head><title>{text}</title></head><body><hr>nginx</body></html>");
    let cases = [
        (401, "", "Unauthorized".to_owned(), "remote.api_key"),
        (403, "", page("Forbidden"), "refuses this machine or these credentials"),
        (403, "", String::new(), "OLLAMA_HOST"),
        (429, "Retry-After: 17\r\n", page("Too Many"), "ask again later"),
        (429, "Retry-After: 17\r\n", "{\"error\":\"you have reached your limit\"}".to_owned(), "reached your limit"),
        (502, "Server: nginx\r\n", page("502 Bad Gateway"), "`502 Bad Gateway`"),
        (504, "Server: nginx\r\n", page("504 Gateway Time-out"), "nginx: proxy_read_timeout"),
        (524, "Server: cloudflare\r\n", page("A timeout occurred"), "Proxy Read Timeout"),
    ];
    for (status, headers, body, text) in cases {
        let upstream = Upstream::answering(raw_response(&format!("{status} X"), headers, &body)).await;
        let proxy = proxy(upstream.addr).await;
        for request in
            [post("/v1/chat/completions", CHAT), b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec()]
        {
            let answer = ask(proxy.addr(), request).await;
            assert_eq!(answer.code(), status, "{answer:?}");
            assert_eq!(answer.header("retry-after"), headers.contains("Retry").then_some("17"));
            let reported = answer.message();
            assert!(reported.contains(text) && !reported.contains('<'), "no {text:?} in {reported:?}");
        }
    }
}

async fn chat(body: &str) -> Answer {
    let upstream = Upstream::answering(raw_response("500 Internal Server Error", "", "not to be asked")).await;
    let proxy = proxy(upstream.addr).await;
    let answer = ask(proxy.addr(), post("/v1/chat/completions", body)).await;
    assert!(upstream.seen().is_empty(), "the remote was asked: {:?}", upstream.seen());
    answer
}

#[tokio::test]
async fn bad_input_is_refused_with_the_field_that_is_to_blame() {
    let messages = r#""messages":[{"role":"user","content":"hi"}]"#;
    let cases = [
        ("{\"model\": \"m\",\n oops".to_owned(), None, "line 2 column 2"),
        (String::new(), None, "empty"),
        ("[]".to_owned(), None, "JSON object"),
        (r#"{"messages":[]}"#.to_owned(), Some("model"), "Missing required parameter: 'model'."),
        (r#"{"model":"m"}"#.to_owned(), Some("messages"), "Missing required parameter"),
        (r#"{"model":"m","messages":[]}"#.to_owned(), Some("messages"), "empty array"),
        (
            r#"{"model":"m","messages":[{"role":"user","content":5}]}"#.to_owned(),
            Some("messages[0].content"),
            "a string or an array",
        ),
        (r#"{"model":"m","messages":[{"role":"alien","content":""}]}"#.to_owned(), Some("messages[0].role"), "'alien'"),
        (format!(r#"{{"model":"m",{messages},"temperature":3}}"#), Some("temperature"), "<= 2"),
        (format!(r#"{{"model":"m",{messages},"temperature":"hot"}}"#), Some("temperature"), "Invalid type"),
        (format!(r#"{{"model":"m",{messages},"max_tokens":0}}"#), Some("max_tokens"), ">= 1"),
        (format!(r#"{{"model":"m",{messages},"top_logprobs":3}}"#), Some("top_logprobs"), "'logprobs'"),
        (format!(r#"{{"model":"m",{messages},"logprobs":true,"top_logprobs":21}}"#), Some("top_logprobs"), "0 to 20"),
        (
            format!(r#"{{"model":"m",{messages},"response_format":{{"type":"xml"}}}}"#),
            Some("response_format.type"),
            "'xml'",
        ),
        (format!(r#"{{"model":"m",{messages},"reasoning_effort":"huge"}}"#), Some("reasoning_effort"), "'huge'"),
        (format!(r#"{{"model":"m",{messages},"stream":"yes"}}"#), Some("stream"), "boolean"),
    ];
    for (body, param, words) in cases {
        let answer = chat(&body).await;
        let error = answer.json()["error"].clone();
        assert_eq!((answer.code(), error["param"].as_str()), (400, param), "{body}: {error}");
        assert!(answer.message().contains(words), "no {words:?} in {error}");
        assert_eq!(error["type"], "invalid_request_error");
        assert!(error.as_object().unwrap().contains_key("code"));
    }
}

#[tokio::test]
async fn a_body_beyond_the_bound_is_refused_with_the_setting_that_helps() {
    let mut config = config("127.0.0.1:9".parse().unwrap());
    config.limits.body = 1000;
    let proxy = serve(config).await.unwrap();
    let answer = ask(proxy.addr(), post("/v1/chat/completions", &" ".repeat(1001))).await;
    assert_eq!(answer.code(), 413);
    assert!(answer.message().contains("limits.body"));
}

#[tokio::test]
async fn a_wrong_method_is_reported_with_the_right_one() {
    let proxy = proxy("127.0.0.1:9".parse().unwrap()).await;
    let answer = ask(proxy.addr(), "GET /v1/completions HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!((answer.code(), answer.header("allow")), (405, Some("POST")));
    assert!(answer.message().contains("POST"));
}

#[tokio::test]
async fn a_client_refused_while_still_sending_may_ask_again_on_the_same_connection() {
    let proxy = proxy(Upstream::answering("").await.addr).await;
    let mut client = Client::connect(proxy.addr()).await;
    let request = post("/v1/audio/speech", r#"{"model":"m","input":"hi","voice":"alloy"}"#);
    let (head, body) = request.split_at(request.len() - 10);
    // The refusal wins the race with the body nearly always, because small writes wait for an acknowledgement.
    for _ in 0..5 {
        client.send(head).await;
        tokio::task::yield_now().await;
        client.send(body).await;
        let answer = client.answer().await;
        assert_eq!((answer.code(), answer.header("connection")), (400, None));
    }
}

#[tokio::test]
async fn a_client_with_much_left_to_send_learns_that_the_connection_ends() {
    let proxy = proxy(Upstream::answering("").await.addr).await;
    let head = "POST /v1/audio/speech HTTP/1.1\r\nHost: localhost\r\n";
    for more in ["Content-Length: 5000000\r\n\r\n{", "Expect: 100-continue\r\nContent-Length: 5\r\n\r\n"] {
        let answer = ask(proxy.addr(), format!("{head}{more}")).await;
        assert_eq!((answer.code(), answer.header("connection")), (400, Some("close")), "{more}");
    }
}

#[tokio::test]
async fn a_runner_that_dies_is_a_server_error_without_its_address() {
    // recorded: 0.33.0-rc2 mid-failure/embed
    let body = r#"{"error":"Post \"http://127.0.0.1:40000/tokenize\": EOF"}"#;
    let dying = raw_response("400 Bad Request", "Content-Type: application/json\r\n", body);
    let proxy = proxy(Upstream::answering(dying).await.addr).await;
    for (path, body) in [("/v1/embeddings", r#"{"model":"all-minilm","input":"a"}"#), ("/v1/chat/completions", CHAT)] {
        let answer = ask(proxy.addr(), post(path, body)).await;
        assert_eq!((answer.code(), &answer.json()["error"]["type"]), (500, &"server_error".into()), "{path}");
        assert!(!answer.text().contains("40000") && answer.message().contains("EOF"), "{}", answer.text());
    }
}

#[tokio::test]
async fn credentials_that_the_remote_repeats_do_not_reach_the_caller() {
    let error = r#"{"error":"bad credential Basic Z3B1OmNhbmFyeQ== of key canary-in-a-header"}"#;
    let stream = CHAT.replacen('{', r#"{"stream":true,"#, 1);
    for (status, body) in [
        ("403 Forbidden", error.to_owned()),
        ("403 Forbidden", "no page for Z3B1OmNhbmFyeQ==".to_owned()),
        ("200 OK", format!("{error}\n")),
        ("200 OK", format!("{{\"message\":{{\"content\":\"a\"}},\"done\":false}}\n{error}\n")),
    ] {
        let upstream = raw_response(status, "Content-Type: application/json\r\n", &body);
        let mut config = config(Upstream::answering(upstream).await.addr);
        config.remote.authorization = Some("Basic Z3B1OmNhbmFyeQ==".parse().unwrap());
        config.remote.headers = vec![("x-team".parse().unwrap(), "canary-in-a-header".parse().unwrap())];
        let proxy = serve(config).await.unwrap();
        for (path, body) in [
            ("/v1/chat/completions", CHAT),
            ("/v1/chat/completions", &*stream),
            ("/v1/embeddings", r#"{"model":"m","input":"a"}"#),
            ("/v1/models/m", ""),
            ("/v1/models", ""),
            ("/v1/responses", r#"{"model":"m","input":"a"}"#),
            ("/v1/responses", r#"{"model":"m","input":"a","stream":true}"#),
        ] {
            let request = match body {
                "" => format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes(),
                body => post(path, body),
            };
            let text = ask(proxy.addr(), request).await.text();
            // A body without fields is a model to `/v1/models/m`.
            assert!(text.contains("error") || path == "/v1/models/m", "{path}: {text}");
            assert!(!text.contains("Z3B1") && !text.contains("canary"), "{path}: {text}");
        }
    }
}
