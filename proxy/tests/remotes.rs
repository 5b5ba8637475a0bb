//! Several remotes: where a request goes, what happens when a remote fails, and what callers see of all of them
//! together.

use std::{fmt::Write as _, net::SocketAddr, time::Duration};

use crate::program::Program;
use crate::support::{self, Act, Answer, STREAM_END, STREAM_HEAD, Upstream, ask, last, post, raw_response, word};
use farllama::{Config, Running, serve};
use mock_ollama::{Mock, Options, Script, Stock};
use serde_json::{Value, json};

/// A remote with these models.
async fn remote(models: &[&str]) -> Mock {
    let models = models.iter().map(|model| model.parse().unwrap()).collect();
    Mock::start_with(Options { stock: Stock::Empty, models, ..Options::default() }, Script::default()).await.unwrap()
}

/// Settings with a remote for each address, called `a`, `b` and so on, each with more settings.
fn settings(remotes: &[(SocketAddr, &str)], more: &str) -> Config {
    let mut text = format!("[local]\nport = 0\n[health]\ninterval = \"100ms\"\n{more}\n");
    for ((addr, more), name) in remotes.iter().zip('a'..) {
        write!(text, "[[remotes]]\nname = \"{name}\"\nurl = \"http://{addr}\"\n{more}\n").unwrap();
    }
    Config::from_toml(&text).unwrap()
}

async fn proxy(remotes: &[(SocketAddr, &str)]) -> Running {
    serve(settings(remotes, "")).await.unwrap()
}

/// An address that nothing listens on.
async fn nowhere() -> SocketAddr {
    tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

fn chat(path: &str, model: &str) -> Vec<u8> {
    let body = json!({"model": model, "messages": [{"role": "user", "content": "hi"}], "stream": false});
    post(path, &body.to_string())
}

/// The same with one more header.
fn with(request: &[u8], header: &str) -> Vec<u8> {
    String::from_utf8_lossy(request).replacen("\r\n", &format!("\r\n{header}\r\n"), 1).into_bytes()
}

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes()
}

/// How often a remote was asked for a chat.
fn chats(mock: &Mock) -> usize {
    mock.journal().entries().iter().filter(|entry| entry.target == "/api/chat").count()
}

fn names(answer: &Answer, list: &str, field: &str) -> Vec<String> {
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    body[list].as_array().unwrap().iter().map(|model| model[field].as_str().unwrap().to_owned()).collect()
}

/// A remote that lists the model `m`, and does `acts` with a chat.
async fn scripted(acts: Vec<Act>) -> Upstream {
    Upstream::start_with(move |request: &str| {
        if request.starts_with("GET /api/version") {
            vec![Act::Write(raw_response("200 OK", "Content-Type: application/json\r\n", r#"{"version":"0.33.0"}"#))]
        } else if request.starts_with("GET /api/") {
            let list = r#"{"models":[{"name":"m:latest","model":"m:latest","modified_at":"2026-11-22T12:37:41Z"}]}"#;
            vec![Act::Write(raw_response("200 OK", "Content-Type: application/json\r\n", list))]
        } else {
            acts.clone()
        }
    })
    .await
}

/// How many chats a scripted remote got.
fn scripted_chats(upstream: &Upstream) -> usize {
    upstream.seen().iter().map(|seen| seen.text().matches("POST /").count()).sum()
}

#[tokio::test]
async fn a_request_goes_where_its_model_is() {
    let (a, b) = (remote(&["one", "both"]).await, remote(&["two:7b", "both"]).await);
    let proxy = proxy(&[(a.addr(), ""), (b.addr(), "")]).await;
    for path in ["/api/chat", "/v1/chat/completions"] {
        for (model, to_a) in [("one", true), ("two:7b", false), ("TWO:7b", false), ("both", true), ("one:latest", true)]
        {
            let before = (chats(&a), chats(&b));
            let answer = ask(proxy.addr(), chat(path, model)).await;
            assert_eq!(answer.code(), 200, "{path} {model}: {}", answer.text());
            let after = (before.0 + usize::from(to_a), before.1 + usize::from(!to_a));
            assert_eq!((chats(&a), chats(&b)), after, "{path} {model}");
        }
    }
    let shown = ask(proxy.addr(), post("/api/show", r#"{"model":"two:7b"}"#)).await;
    assert_eq!(shown.code(), 200, "{}", shown.text());
    assert_eq!(ask(proxy.addr(), get("/v1/models/two:7b")).await.code(), 200);
}

#[tokio::test]
async fn a_loaded_model_is_preferred_and_priorities_come_next() {
    let (a, b) = (remote(&["m"]).await, remote(&["m"]).await);
    ask(b.addr(), chat("/api/chat", "m")).await;
    let proxy = proxy(&[(a.addr(), ""), (b.addr(), "priority = 5")]).await;
    ask(proxy.addr(), chat("/api/chat", "m")).await;
    assert_eq!((chats(&a), chats(&b)), (0, 2), "it is loaded there");
    let (c, d) = (remote(&["m"]).await, remote(&["m"]).await);
    let proxy = self::proxy(&[(c.addr(), "priority = 5"), (d.addr(), "")]).await;
    ask(proxy.addr(), chat("/v1/chat/completions", "m")).await;
    assert_eq!((chats(&c), chats(&d)), (0, 1));
}

#[tokio::test]
async fn a_model_that_is_nowhere_is_one_404_that_lists_what_there_is_and_a_caller_may_see() {
    let (a, b) = (remote(&["one"]).await, remote(&["two", "secret"]).await);
    let keys =
        "[auth]\nenabled = true\nkeys = [{ key = \"all\" }, { key = \"some\", models = [\"one\", \"two\", \"none\"] }]";
    let proxy = serve(settings(&[(a.addr(), ""), (b.addr(), "")], keys)).await.unwrap();
    for (path, part) in [
        ("/api/chat", "model 'none' not found on any remote: a has one:latest; b has"),
        ("/v1/chat/completions", "The model `none` does not exist or you do not have access to it."),
    ] {
        let all = ask(proxy.addr(), with(&chat(path, "none"), "x-api-key: all")).await;
        assert_eq!(all.code(), 404, "{}", all.text());
        assert!(all.text().contains(part) && all.text().contains("secret"), "{}", all.text());
        let some = ask(proxy.addr(), with(&chat(path, "none"), "x-api-key: some")).await;
        assert_eq!(some.code(), 404, "{}", some.text());
        assert!(some.text().contains("two") && !some.text().contains("secret"), "{}", some.text());
    }
    assert_eq!((chats(&a), chats(&b)), (0, 0));
    for path in ["/api/tags", "/v1/models"] {
        let some = ask(proxy.addr(), with(&get(path), "x-api-key: some")).await;
        let receipt = some.header("x-farllama-receipt").unwrap_or_default();
        assert!(!receipt.contains("secret") && receipt.contains("two:latest=b"), "{path}: {receipt}");
        assert!(!some.text().contains("secret"), "{path}: {}", some.text());
    }
}

#[tokio::test]
async fn a_new_model_is_found_without_waiting() {
    let (a, b) = (remote(&["one"]).await, remote(&["two"]).await);
    let proxy = serve(settings(&[(a.addr(), ""), (b.addr(), "")], "models_age = \"1h\"")).await.unwrap();
    assert_eq!(ask(proxy.addr(), chat("/api/chat", "one")).await.code(), 200);
    ask(b.addr(), post("/api/copy", r#"{"source":"two","destination":"new"}"#)).await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(ask(proxy.addr(), chat("/api/chat", "new")).await.code(), 200);
}

#[tokio::test]
async fn lists_are_the_union_with_each_model_once() {
    let (a, b) = (remote(&["one", "both"]).await, remote(&["both", "two"]).await);
    let proxy = proxy(&[(a.addr(), ""), (b.addr(), "")]).await;
    let tags = ask(proxy.addr(), get("/api/tags")).await;
    let mut listed = names(&tags, "models", "name");
    listed.sort();
    assert_eq!(listed, ["both:latest", "one:latest", "two:latest"]);
    let receipt = tags.header("x-farllama-receipt").unwrap();
    assert!(receipt.contains("both:latest=a+b") && receipt.contains("two:latest=b"), "{receipt}");
    let models = ask(proxy.addr(), get("/v1/models")).await;
    assert_eq!(names(&models, "data", "id").len(), 3);
    let receipt = models.header("x-farllama-receipt").unwrap();
    assert!(receipt.contains("both:latest=a+b") && !receipt.contains("remote="), "{receipt}");
    ask(a.addr(), chat("/api/chat", "one")).await;
    ask(b.addr(), chat("/api/chat", "both")).await;
    let mut loaded = names(&ask(proxy.addr(), get("/api/ps")).await, "models", "name");
    loaded.sort();
    assert_eq!(loaded, ["both:latest", "one:latest"]);
    let direct: Value = serde_json::from_slice(&ask(b.addr(), get("/api/tags")).await.body).unwrap();
    let union: Value = serde_json::from_slice(&tags.body).unwrap();
    let two =
        |list: &Value| list["models"].as_array().unwrap().iter().find(|model| model["name"] == "two:latest").cloned();
    assert_eq!(two(&union), two(&direct), "as the remote describes it");
    drop(b);
    let left = ask(proxy.addr(), get("/api/tags")).await;
    assert_eq!(names(&left, "models", "name").len(), 2, "of those that respond");
}

#[tokio::test]
async fn a_remote_that_is_named_gets_the_request_and_not_the_header() {
    let (a, b) = (remote(&["both"]).await, remote(&["both"]).await);
    let proxy = proxy(&[(a.addr(), ""), (b.addr(), "")]).await;
    for path in ["/api/chat", "/v1/chat/completions"] {
        let answer = ask(proxy.addr(), with(&chat(path, "both"), "X-Farllama-Remote: b")).await;
        assert_eq!(answer.code(), 200, "{}", answer.text());
        let unknown = ask(proxy.addr(), with(&chat(path, "both"), "X-Farllama-Remote: c")).await;
        assert_eq!(unknown.code(), 400);
        assert!(unknown.text().contains("there are a, b"), "{}", unknown.text());
    }
    assert_eq!((chats(&a), chats(&b)), (0, 2));
    let entries = b.journal().entries();
    assert!(entries.iter().all(|entry| entry.header("x-farllama-remote").is_none()));
    let tags = ask(proxy.addr(), with(&get("/api/tags"), "X-Farllama-Remote: b")).await;
    assert_eq!(tags.header("x-farllama-receipt"), Some("remote=b"), "the list of one remote");
    drop(b);
    let gone = ask(proxy.addr(), with(&chat("/api/chat", "both"), "X-Farllama-Remote: b")).await;
    assert_eq!((gone.code(), chats(&a)), (502, 0), "no other takes its place");
}

#[tokio::test]
async fn with_one_remote_its_header_stops_here_too() {
    let a = remote(&["m"]).await;
    let proxy = proxy(&[(a.addr(), "")]).await;
    let named = |name: &str| with(&chat("/api/chat", "m"), &format!("X-Farllama-Remote: {name}"));
    assert_eq!(ask(proxy.addr(), named("a")).await.code(), 200);
    assert_eq!(ask(proxy.addr(), named("b")).await.code(), 400);
    assert!(a.journal().entries().iter().all(|entry| entry.header("x-farllama-remote").is_none()));
}

#[tokio::test]
async fn the_receipt_names_the_remote_that_responds_where_there_are_several() {
    let (a, b) = (remote(&["one"]).await, remote(&["two", "embedder"]).await);
    let proxy = self::proxy(&[(nowhere().await, ""), (a.addr(), ""), (b.addr(), "")]).await;
    let body = |model: &str, stream: bool| {
        let messages = json!([{"role": "user", "content": "hi"}]);
        json!({"model": model, "messages": messages, "max_tokens": 9, "stream": stream}).to_string()
    };
    for path in ["/api/chat", "/v1/chat/completions", "/v1/messages"] {
        for (body, name) in [(body("one", false), "b"), (body("two", false), "c"), (body("two", true), "c")] {
            let answer = ask(proxy.addr(), post(path, &body)).await;
            let receipt = answer.header("x-farllama-receipt").unwrap_or_default();
            let expected = format!("remote={name}");
            // A stream may begin before the remote responds.
            let named = receipt.split(", ").any(|line| line == expected) || answer.text().contains(&expected);
            assert!(answer.code() == 200 && named, "{path} {name} {receipt}: {}", answer.text());
        }
    }
    let refused = ask(proxy.addr(), post("/api/embed", r#"{"model":"one","input":7}"#)).await;
    assert_eq!(refused.header("x-farllama-receipt"), Some("remote=b"), "{}", refused.text());
    let alone = self::proxy(&[(a.addr(), "")]).await;
    for path in ["/api/chat", "/v1/chat/completions"] {
        assert_eq!(ask(alone.addr(), chat(path, "one")).await.header("x-farllama-receipt"), None);
    }
}

/// A proxy that reads lists of models only when it must.
async fn proxy_without_checks(remotes: &[SocketAddr]) -> Running {
    let mut text = "[local]\nport = 0\n[health]\ninterval = \"0s\"\nmodels_age = \"1h\"\n".to_owned();
    for (addr, name) in remotes.iter().zip('a'..) {
        write!(text, "[[remotes]]\nname = \"{name}\"\nurl = \"http://{addr}\"\n").unwrap();
    }
    serve(Config::from_toml(&text).unwrap()).await.unwrap()
}

#[tokio::test]
async fn a_remote_that_no_longer_has_the_model_is_passed_over_once_and_its_list_read_again() {
    for path in ["/api/chat", "/v1/chat/completions", "/v1/responses"] {
        let body =
            json!({"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": false, "input": "hi"});
        let request = post(path, &body.to_string());
        for listed_by_b in [true, false] {
            let (a, b) = (remote(&["m"]).await, remote(&["other"]).await);
            let copy = post("/api/copy", r#"{"source":"other","destination":"m"}"#);
            if listed_by_b {
                ask(b.addr(), &copy).await;
            }
            let proxy = proxy_without_checks(&[a.addr(), b.addr()]).await;
            assert_eq!(ask(proxy.addr(), &request).await.code(), 200, "{path}");
            let (before_a, before_b) = (chats(&a), chats(&b));
            assert_eq!((before_a, before_b), (1, 0), "{path}");
            let delete =
                "DELETE /api/delete HTTP/1.1\r\nHost: localhost\r\nContent-Length: 13\r\n\r\n{\"model\":\"m\"}";
            assert_eq!(ask(a.addr(), delete).await.code(), 200);
            if !listed_by_b {
                ask(b.addr(), &copy).await;
                tokio::time::sleep(Duration::from_millis(1100)).await;
            }
            for _ in 0..2 {
                let answer = ask(proxy.addr(), &request).await;
                assert_eq!(answer.code(), 200, "{path}: {}", answer.text());
                assert!(answer.header("x-farllama-receipt").unwrap().ends_with("remote=b"), "{path}");
            }
            assert_eq!((chats(&a), chats(&b)), (2, 2), "{path}: the first one is asked once more");
        }
    }
}

#[tokio::test]
async fn a_model_that_has_gone_from_every_remote_is_one_404() {
    let (a, b) = (remote(&["m"]).await, remote(&["m"]).await);
    let proxy = proxy_without_checks(&[a.addr(), b.addr()]).await;
    assert_eq!(ask(proxy.addr(), chat("/api/chat", "m")).await.code(), 200);
    let delete = "DELETE /api/delete HTTP/1.1\r\nHost: localhost\r\nContent-Length: 13\r\n\r\n{\"model\":\"m\"}";
    for mock in [&a, &b] {
        ask(mock.addr(), delete).await;
    }
    // Lists that were read a moment ago are not read again.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let native = ask(proxy.addr(), chat("/api/chat", "m")).await;
    let direct = ask(a.addr(), chat("/api/chat", "m")).await;
    assert_eq!((native.code(), &native.body), (404, &direct.body), "as the remote sends it");
    assert_eq!((chats(&a), chats(&b)), (3, 0));
    let translated = ask(proxy.addr(), chat("/v1/chat/completions", "m")).await;
    assert!(translated.code() == 404 && translated.text().contains("No remote has it"), "{}", translated.text());
}

#[tokio::test]
async fn what_changes_models_goes_to_the_first_or_the_named_remote_alone() {
    let (a, b) = (remote(&["both", "one"]).await, remote(&["both", "two"]).await);
    let proxy = proxy(&[(a.addr(), "priority = 9"), (b.addr(), "")]).await;
    let copy = post("/api/copy", r#"{"source":"both","destination":"copied"}"#);
    assert_eq!(ask(proxy.addr(), &copy).await.code(), 200);
    let delete = b"DELETE /api/delete HTTP/1.1\r\nHost: localhost\r\nContent-Length: 15\r\n\r\n{\"model\":\"both\"}";
    let delete = String::from_utf8_lossy(delete).replace("15", "16").into_bytes();
    assert_eq!(ask(proxy.addr(), with(&delete, "x-farllama-remote: b")).await.code(), 200);
    let of = |mock: &Mock, path: &str| mock.journal().entries().iter().filter(|entry| entry.target == path).count();
    assert_eq!((of(&a, "/api/copy"), of(&b, "/api/copy")), (1, 0));
    assert_eq!((of(&a, "/api/delete"), of(&b, "/api/delete")), (0, 1));
    assert_eq!(ask(proxy.addr(), chat("/api/chat", "copied")).await.code(), 200, "it is known at once");
    let gone = ask(proxy.addr(), post("/api/pull", r#"{"model":"nothing","stream":false}"#)).await;
    assert_eq!((of(&a, "/api/pull"), of(&b, "/api/pull")), (1, 0), "{}", gone.text());
}

#[tokio::test]
async fn a_remote_is_used_only_for_its_models() {
    let (a, b) = (remote(&["big:70b", "m"]).await, remote(&["m"]).await);
    let proxy = proxy(&[(a.addr(), "models = [\"big:*\"]"), (b.addr(), "")]).await;
    assert_eq!(ask(proxy.addr(), chat("/api/chat", "m")).await.code(), 200);
    assert_eq!(ask(proxy.addr(), chat("/api/chat", "big:70b")).await.code(), 200);
    assert_eq!((chats(&a), chats(&b)), (1, 1));
    let tags = ask(proxy.addr(), get("/api/tags")).await;
    let receipt = tags.header("x-farllama-receipt").unwrap();
    assert!(receipt.contains("m:latest=b"), "{receipt}");
}

#[tokio::test]
async fn before_the_first_byte_the_next_remote_is_tried_whatever_the_first_does() {
    let gateway = raw_response("502 Bad Gateway", "Content-Type: text/html\r\n", "<html>bad gateway</html>");
    let busy = raw_response(
        "503 Service Unavailable",
        "Content-Type: application/json\r\n",
        r#"{"error":"server busy, please try again.  maximum pending requests exceeded"}"#,
    );
    for acts in [vec![Act::Close], vec![Act::Write(gateway)], vec![Act::Write(busy)]] {
        for path in ["/api/chat", "/v1/chat/completions", "/v1/responses", "/v1/messages"] {
            let (a, b) = (scripted(acts.clone()).await, remote(&["m"]).await);
            let proxy = proxy(&[(a.addr, ""), (b.addr(), "priority = 1")]).await;
            let body = json!({
                "model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": false, "input": "hi", "max_tokens": 9
            });
            let answer = ask(proxy.addr(), post(path, &body.to_string())).await;
            assert_eq!(answer.code(), 200, "{acts:?} {path}: {}", answer.text());
            assert_eq!(chats(&b), 1, "{acts:?} {path}");
            // A pooled connection that is closed says little of the remote: it is asked once more on a fresh one.
            assert!((1..=2).contains(&scripted_chats(&a)), "{acts:?} {path}");
        }
    }
}

#[tokio::test]
async fn a_remote_that_is_off_is_passed_over_and_without_another_its_error_counts() {
    let (off, b) = (nowhere().await, remote(&["m", "e=embedding"]).await);
    let proxy = proxy(&[(off, ""), (b.addr(), "priority = 1")]).await;
    for path in ["/api/chat", "/v1/chat/completions"] {
        assert_eq!(ask(proxy.addr(), chat(path, "m")).await.code(), 200);
    }
    let embedded = ask(proxy.addr(), post("/v1/embeddings", r#"{"model":"e","input":"hi"}"#)).await;
    assert_eq!(embedded.code(), 200, "{}", embedded.text());
    drop(b);
    let answer = ask(proxy.addr(), chat("/api/chat", "m")).await;
    assert_eq!(answer.code(), 502, "{}", answer.text());
}

#[tokio::test]
async fn after_the_first_byte_no_other_remote_is_asked() {
    let partial = b"HTTP/1.1 200 OK\r\nContent-Ty".to_vec();
    let mut cut = STREAM_HEAD.as_bytes().to_vec();
    cut.extend(word("one"));
    for acts in [vec![Act::Write(partial), Act::Close], vec![Act::Write(cut), Act::Close]] {
        for path in ["/api/chat", "/v1/chat/completions"] {
            let (a, b) = (scripted(acts.clone()).await, remote(&["m"]).await);
            let proxy = proxy(&[(a.addr, ""), (b.addr(), "priority = 1")]).await;
            let body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": true});
            let _ = ask(proxy.addr(), post(path, &body.to_string())).await;
            assert_eq!((scripted_chats(&a), chats(&b)), (1, 0), "{path}");
        }
    }
}

#[tokio::test]
async fn a_native_body_is_sent_again_up_to_the_bound() {
    let padding = |bytes: usize| {
        let body = json!({"model": "m", "messages": [{"role": "user", "content": "x".repeat(bytes)}], "stream": false});
        post("/api/chat", &body.to_string())
    };
    for (bytes, code) in [(600 << 10, 200), (3 << 20, 502)] {
        let (a, b) = (scripted(vec![Act::Close]).await, remote(&["m"]).await);
        let proxy = proxy(&[(a.addr, ""), (b.addr(), "priority = 1")]).await;
        let answer = ask(proxy.addr(), padding(bytes)).await;
        assert_eq!(answer.code(), code, "{bytes}: {}", answer.text());
        assert_eq!(chats(&b), usize::from(code == 200), "{bytes}");
    }
    // What was never sent can go elsewhere, whatever its size.
    let (off, b) = (nowhere().await, remote(&["m"]).await);
    let proxy = proxy(&[(off, ""), (b.addr(), "priority = 1")]).await;
    assert_eq!(ask(proxy.addr(), padding(3 << 20)).await.code(), 200);
}

#[tokio::test]
async fn requests_in_flight_are_shared_by_weight() {
    let mut stream = STREAM_HEAD.as_bytes().to_vec();
    stream.extend(word("one"));
    let mut end = last();
    end.extend(STREAM_END.as_bytes());
    let acts = vec![Act::Write(stream), Act::Hold, Act::Write(end)];
    let (a, b) = (scripted(acts.clone()).await, scripted(acts).await);
    let proxy = proxy(&[(a.addr, ""), (b.addr, "weight = 3")]).await;
    let mut open = Vec::new();
    for _ in 0..8 {
        let body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": true});
        let mut client = support::Client::sending(proxy.addr(), post("/api/chat", &body.to_string())).await;
        client.until("one").await;
        open.push(client);
    }
    assert_eq!((scripted_chats(&a), scripted_chats(&b)), (2, 6));
}

#[tokio::test]
async fn a_reload_keeps_what_is_known_and_can_add_a_remote() {
    let (a, b) = (remote(&["one"]).await, remote(&["two"]).await);
    let proxy = proxy(&[(a.addr(), "")]).await;
    assert_eq!(ask(proxy.addr(), chat("/api/chat", "two")).await.code(), 404);
    proxy.reload(settings(&[(a.addr(), ""), (b.addr(), "")], "")).unwrap();
    assert_eq!(ask(proxy.addr(), chat("/api/chat", "two")).await.code(), 200);
    proxy.reload(settings(&[(a.addr(), "")], "")).unwrap();
    assert_eq!(ask(proxy.addr(), chat("/api/chat", "two")).await.code(), 404);
}

#[tokio::test]
async fn a_remote_that_leaves_and_returns_is_logged_once_each() {
    let (a, b) = (remote(&["m"]).await, remote(&["m"]).await);
    let remotes = format!("a={},b={}", a.url(), b.url());
    let flags = ["--remotes", &remotes, "--health-interval", "50ms"];
    let program = Program::start(&flags, &[]);
    program.until(&format!("remote b ({}) responds", b.url())).await;
    let addr = b.addr();
    drop(b);
    program.until(&format!("remote b (http://{addr}) is out of use")).await;
    for _ in 0..3 {
        assert_eq!(ask(program.addr, chat("/api/chat", "m")).await.code(), 200);
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let options = Options { port: addr.port(), stock: Stock::Empty, ..Options::default() };
    let _b = Mock::start_with(options, Script::default()).await.unwrap();
    program.until(&format!("remote b (http://{addr}) is in use again")).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let log = program.log();
    for line in ["is out of use", "is in use again"] {
        assert_eq!(log.matches(line).count(), 1, "{log}");
    }
}
