//! HTTP as Go's server speaks it, beyond what single recordings show: connections that go on or end, bodies that are
//! read or not.

use std::time::{Duration, Instant};

use mock_ollama::{Chaos, Ending, Mock, Options, Script, Then};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

const LONG: Duration = Duration::from_secs(10);

async fn mock() -> Mock {
    Mock::start(Script::default()).await.unwrap()
}

async fn connect(mock: &Mock, text: &str) -> TcpStream {
    let mut socket = TcpStream::connect(mock.addr()).await.unwrap();
    socket.write_all(text.as_bytes()).await.unwrap();
    socket
}

/// Reads until the text has come; returns all that came.
async fn until(socket: &mut TcpStream, wanted: &str) -> String {
    let mut all = Vec::new();
    while !String::from_utf8_lossy(&all).contains(wanted) {
        let mut some = [0; 4096];
        let read = timeout(LONG, socket.read(&mut some)).await.unwrap().unwrap();
        assert!(read > 0, "{wanted} never came: {}", String::from_utf8_lossy(&all));
        all.extend_from_slice(&some[..read]);
    }
    String::from_utf8(all).unwrap()
}

/// All that comes until the end, and whether the end was a proper one.
async fn rest(socket: &mut TcpStream) -> (String, bool) {
    let mut all = Vec::new();
    let ended_well = timeout(LONG, socket.read_to_end(&mut all)).await.unwrap().is_ok();
    (String::from_utf8_lossy(&all).into_owned(), ended_well)
}

const GET: &str = "GET /api/version HTTP/1.1\r\nHost: localhost\r\n\r\n";

#[tokio::test]
async fn requests_may_follow_each_other_without_waiting() {
    let mock = mock().await;
    let chat = "POST /api/show HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\n{}\r\n0\r\nTrailer: 1\r\n\r\n";
    let last = GET.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    let mut socket = connect(&mock, &format!("{GET}{chat}\r\n{last}")).await;
    let (all, ended_well) = rest(&mut socket).await;
    assert!(ended_well);
    assert_eq!(all.matches("{\"version\":").count(), 2, "{all}");
    assert!(all.contains("{\"error\":\"model is required\"}"), "{all}");
    assert_eq!(mock.journal().entries().len(), 3);
}

#[tokio::test]
async fn a_short_body_that_is_not_wanted_is_read_and_a_long_one_ends_the_connection() {
    let mock = mock().await;
    let post = |len: usize| format!("POST /nope HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len}\r\n\r\n");
    let mut socket = connect(&mock, &(post(5) + "hello" + GET)).await;
    let both = until(&mut socket, "version").await;
    assert!(both.contains("404 page not found") && !both.contains("Connection: close"), "{both}");
    assert_eq!(mock.journal().arrived(0, LONG).await.unwrap().body_len, 5);

    let mut socket = connect(&mock, &post(1 << 20)).await;
    let (all, ended_well) = rest(&mut socket).await;
    assert!(ended_well && all.contains("Connection: close\r\n\r\n404 page not found"), "answered unread: {all}");
}

#[tokio::test]
async fn a_blob_that_is_there_is_answered_before_it_is_read_and_the_connection_lingers() {
    let mock = mock().await;
    let digest = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    let head =
        |len: usize| format!("POST /api/blobs/{digest} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len}\r\n\r\n");
    let mut first = connect(&mock, &(head(5) + "hello")).await;
    assert!(until(&mut first, "\r\n\r\n").await.starts_with("HTTP/1.1 201 Created"));
    let mut second = connect(&mock, &head(8 << 20)).await;
    let asked = Instant::now();
    let answer = until(&mut second, "\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains("Connection: close"), "{answer}");
    assert!(asked.elapsed() < Duration::from_millis(400), "{:?}", asked.elapsed());
    // Half open: the end comes at once, and writing fails only later.
    assert_eq!(timeout(LONG, second.read(&mut [0; 1])).await.unwrap().unwrap(), 0);
    let piece = vec![b'x'; 64 << 10];
    while second.write_all(&piece).await.is_ok() {
        assert!(asked.elapsed() < LONG, "writing goes on for ever");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(asked.elapsed() >= Duration::from_millis(350), "{:?}", asked.elapsed());
    assert!(!mock.journal().entries()[1].read);
}

#[tokio::test]
async fn continue_is_sent_only_when_the_body_is_wanted() {
    let mock = mock().await;
    let head = |path: &str| {
        format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nExpect: 100-Continue\r\nContent-Length: 2\r\n\r\n")
    };
    let mut wanted = connect(&mock, &head("/api/show")).await;
    assert_eq!(until(&mut wanted, "\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
    wanted.write_all(b"{}").await.unwrap();
    assert!(until(&mut wanted, "required").await.starts_with("HTTP/1.1 400 Bad Request"));
    let mut unwanted = connect(&mock, &head("/nope")).await;
    let (all, _) = rest(&mut unwanted).await;
    assert!(all.starts_with("HTTP/1.1 404 Not Found") && all.contains("Connection: close"), "{all}");
}

#[tokio::test]
async fn a_body_with_broken_chunks_is_refused_and_one_that_ends_early_is_not_answered() {
    let mock = mock().await;
    let head = "POST /api/show HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut socket = connect(&mock, &format!("{head}zz\r\n")).await;
    let (all, _) = rest(&mut socket).await;
    assert!(all.starts_with("HTTP/1.1 400") && all.contains("invalid byte in chunk length"), "{all}");
    let mut socket = connect(&mock, &format!("{head}5\r\nab")).await;
    socket.shutdown().await.unwrap();
    assert_eq!(rest(&mut socket).await.0, "");
    assert_eq!(mock.journal().ended(1, LONG).await.unwrap().ended.unwrap().0, Ending::Aborted);
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_work_of_a_stream() {
    let script = Script::on("/api/chat").lines([json!({"message": {"content": "a"}})]).then(Then::Stall);
    let mock = Mock::start(script).await.unwrap();
    let mut socket = connect(&mock, "POST /api/chat HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}").await;
    let start = until(&mut socket, "\"a\"").await;
    assert!(start.starts_with("HTTP/1.0 200 OK") && !start.contains("chunked"), "{start}");
    drop(socket);
    assert_eq!(mock.journal().ended(0, LONG).await.unwrap().ended.unwrap().0, Ending::Aborted);
}

/// What comes of a stream, with the date masked, and whether it ended well.
async fn run(mock: &Mock, text: &str) -> (String, bool) {
    let body = json!({"model": "smollm2:135m", "messages": [{"role": "user", "content": text}], "options": {"num_predict": 6}});
    let body = body.to_string();
    let head = format!(
        "POST /api/chat HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let (all, ended_well) = rest(&mut connect(mock, &(head + &body)).await).await;
    // Times and durations differ; where it ends does not.
    (all.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect(), ended_well)
}

async fn chaotic(chaos: Chaos) -> Vec<(usize, bool)> {
    let options = Options { chaos: Some(chaos), ..Options::default() };
    // Of the same length in each run, which a time is not.
    let lines = (0..6).map(|_| json!({"created_at": "t", "message": {"content": "a"}}));
    let mock = Mock::start_with(options, Script::on("/api/chat").lines(lines)).await.unwrap();
    let mut runs = Vec::new();
    for nth in 0..12 {
        let (all, ended_well) = run(&mock, &format!("hi {}", nth % 4)).await;
        runs.push((all.matches('\n').count(), ended_well));
    }
    runs
}

#[tokio::test]
async fn chaos_is_the_same_for_the_same_seed() {
    let chaos = Chaos::seeded(7).cut(0.05).reset(0.05).split(0.3).slow(0.05);
    let (one, other) = (chaotic(chaos).await, chaotic(chaos).await);
    assert_eq!(one, other);
    assert_ne!(one, chaotic(Chaos { seed: 8, ..chaos }).await);
    let whole = one.iter().map(|(lines, _)| *lines).max().unwrap();
    assert!(one.iter().any(|(lines, ended_well)| *lines < whole && *ended_well), "a cut: {one:?}");
    assert!(one.iter().any(|(_, ended_well)| !ended_well), "a reset: {one:?}");
    assert!(one.iter().any(|(lines, ended_well)| *lines == whole && *ended_well), "a whole one: {one:?}");
}

#[tokio::test]
async fn splits_and_delays_change_no_byte() {
    let plain = mock().await;
    let (wanted, _) = run(&plain, "hi").await;
    let script: Script = serde_json::from_value(json!([{"chaos": "seed=1,split=1,slow=0.5"}])).unwrap();
    let mock = Mock::start(script).await.unwrap();
    let (all, ended_well) = run(&mock, "hi").await;
    assert!(ended_well);
    let mask = |text: &str| {
        text.replace("Z\"", "\"").split('.').map(|part| part.trim_start_matches('0').to_owned()).collect::<String>()
    };
    assert_eq!(mask(&all).len(), mask(&wanted).len(), "{all}\n{wanted}");
    assert_eq!(mock.journal().ended(0, LONG).await.unwrap().ended.unwrap().0, Ending::Complete);
}

#[tokio::test]
async fn a_stall_keeps_the_connection_open_until_the_client_leaves() {
    let mock = Mock::start(Script::chaos(Chaos::seeded(3).stall(1.0))).await.unwrap();
    let mut socket = connect(&mock, GET).await;
    let waited = timeout(Duration::from_millis(200), socket.read_to_end(&mut Vec::new())).await;
    assert!(waited.is_err(), "the connection ended");
    drop(socket);
    assert_eq!(mock.journal().ended(0, LONG).await.unwrap().ended.unwrap().0, Ending::Aborted);
}

#[test]
fn a_script_with_wrong_chaos_is_refused_with_the_reason() {
    for (wrong, why) in [
        (json!([{"chaos": "seed=x"}]), "invalid seed"),
        (json!([{"chaos": "cut=0.1", "reply": {}}]), "write two items"),
    ] {
        let error = serde_json::from_value::<Script>(wrong.clone()).unwrap_err().to_string();
        assert!(error.contains(why), "{wrong}: {error}");
    }
}
