//! `farllama-check record` and `verify` against the mock, and the replay of what was recorded.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use mock_ollama::{Mock, Options, Replay, Script, Then, recording};
use tempfile::TempDir;

const CHAT: &str = "{\"model\":\"smollm2:135m\",\"messages\":[{\"role\":\"user\",\"content\":\"Mail ann@example.org, key canary-5f21\"}]}";

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_farllama-check"));
    command.args(args).env("FARLLAMA_REMOTE_API_KEY", "canary-7f3a");
    command
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// A running recorder, killed if a test fails.
struct Recorder {
    child: Child,
    out: BufReader<std::process::ChildStdout>,
    addr: String,
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Recorder {
    fn start(remote: &str, out: &Path, args: &[&str]) -> Self {
        let mut command = command(&["record", "--remote-host", remote, "--local-port", "0", "--out"]);
        let mut child = command.arg(out).args(args).stdout(Stdio::piped()).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        assert!(line.starts_with(&format!("recording {remote} (Ollama 0.33.0-rc2) on http://127.0.0.1:")), "{line}");
        let addr = line.split("on http://").nth(1).unwrap().split(';').next().unwrap().to_owned();
        Self { child, out, addr }
    }

    /// Waits for its end, and returns what it printed.
    fn end(mut self) -> (Option<i32>, String) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "it does not end: fewer exchanges were recorded than expected");
            thread::sleep(Duration::from_millis(10));
        }
        let mut text = String::new();
        self.out.read_to_string(&mut text).unwrap();
        (self.child.wait().unwrap().code(), text)
    }
}

/// Sends a request on a connection of its own and returns everything that comes.
fn send(addr: &str, head: &str, body: &str) -> String {
    let mut socket = TcpStream::connect(addr).unwrap();
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    write!(socket, "{head}\r\nHost: here\r\nConnection: close\r\n{length}\r\n{body}").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer
}

/// What comes until it ends with `end`, byte by byte, so that nothing after it is read.
fn read_until(socket: &mut TcpStream, end: &str) -> String {
    let mut text = Vec::new();
    while !text.ends_with(end.as_bytes()) {
        let mut byte = [0];
        assert_eq!(socket.read(&mut byte).unwrap(), 1, "{}", String::from_utf8_lossy(&text));
        text.push(byte[0]);
    }
    String::from_utf8(text).unwrap()
}

/// A response without what differs at each run.
fn lines(answer: &str) -> Vec<&str> {
    answer.lines().filter(|line| line.starts_with('{')).collect()
}

fn verify(dir: &TempDir, remote: &str, args: &[&str]) -> (Option<i32>, String) {
    let output = command(&["verify", "--remote-host", remote]).args(args).arg(dir.path()).output().unwrap();
    (output.status.code(), text(&output))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_recorded_is_masked_verified_and_replayed() {
    let script = Script::on("/api/chat").nth(1).says("I do not repeat what you said.");
    let mock = Mock::start(script).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let recorder = Recorder::start(&mock.url(), dir.path(), &["--count", "5", "--mask", "smo+l"]);
    let chat = "POST /api/chat HTTP/1.1\r\nX-Api-Key: canary-5f21";
    let streamed = send(&recorder.addr, chat, CHAT);
    assert!(streamed.contains("Transfer-Encoding: chunked") && lines(&streamed).len() > 3, "{streamed}");
    // Two requests on one connection.
    let mut socket = TcpStream::connect(&recorder.addr).unwrap();
    for _ in 0..2 {
        write!(socket, "GET /api/version HTTP/1.1\r\nHost: here\r\n\r\n").unwrap();
        let response = read_until(&mut socket, "\"}");
        assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
    }
    let show = send(&recorder.addr, "POST /api/show HTTP/1.1", "{\"model\":\"nope\"}");
    assert!(show.starts_with("HTTP/1.1 404"), "{show}");
    // The mock repeats the address token by token, which cannot be masked within chunks.
    send(&recorder.addr, chat, CHAT);
    send(&recorder.addr, "GET /api/ps HTTP/1.1", "");
    let (code, reported) = recorder.end();
    assert_eq!(code, Some(0), "{reported}");
    for line in [
        "not recorded: POST /api/chat: its streamed text has something to mask across chunks",
        &*format!("recorded 5 exchanges in {}", dir.path().display()),
        "masked 1 × header x-api-key",
        "× e-mail address",
        "× --mask smo+l",
    ] {
        assert!(reported.contains(line), "{reported}");
    }
    // The remote got the key of the settings, and the caller's own header.
    let asked = mock.journal().entries().into_iter().find(|entry| entry.target == "/api/chat").unwrap();
    assert_eq!(asked.header("authorization"), Some("Bearer canary-7f3a"));
    assert_eq!(asked.header("x-api-key"), Some("canary-5f21"));
    let file = fs::read_to_string(dir.path().join("chat/001.json")).unwrap();
    for secret in ["canary", "ann@", "smoll"] {
        assert!(!file.contains(secret), "{secret}: {file}");
    }
    assert!(file.contains("user@example.com"), "{file}");
    assert_eq!(recording::read_dir(dir.path()).unwrap().len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn recordings_agree_with_the_same_version_differ_from_another_and_are_replayed() {
    let mock = Mock::start(Script::default()).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let recorder = Recorder::start(&mock.url(), dir.path(), &["--count", "5"]);
    let hello = CHAT.replace("Mail ann@example.org, key canary-5f21", "Say hello.");
    let streamed = send(&recorder.addr, "POST /api/chat HTTP/1.1", &hello);
    send(&recorder.addr, "GET /api/tags HTTP/1.1", "");
    send(&recorder.addr, "HEAD /api/tags HTTP/1.1", "");
    send(&recorder.addr, "POST /api/show HTTP/1.1", "{\"model\":\"nope:1\"}");
    send(&recorder.addr, "DELETE /api/delete HTTP/1.1", "{\"model\":\"smollm2:135m\"}");
    assert_eq!(recorder.end().0, Some(0));

    let fresh = Mock::start(Script::default()).await.unwrap();
    let (code, reported) = verify(&dir, &fresh.url(), &[]);
    assert_eq!(code, Some(0), "{reported}");
    assert!(reported.contains("skipped 1: it would change the remote"), "{reported}");
    assert!(reported.ends_with("4 agree, 0 differ, 1 skipped\n"), "{reported}");
    assert!(fresh.journal().entries().iter().all(|entry| entry.method != "DELETE"));

    let old = Options { version: "0.20.0".parse().unwrap(), ..Options::default() };
    let old = Mock::start_with(old, Script::default()).await.unwrap();
    let report = dir.path().with_extension("report");
    let saved = tempfile::tempdir().unwrap();
    let (report, save) = (report.to_str().unwrap(), saved.path().to_str().unwrap());
    let (code, reported) = verify(&dir, &old.url(), &["--json", report, "--save", save]);
    assert_eq!(code, Some(1), "{reported}");
    assert!(
        reported.starts_with(&format!("recorded 0.33.0-rc2, compared with 0.20.0 at {}\n", old.url())),
        "{reported}"
    );
    assert!(reported.contains("body .models[].capabilities"), "{reported}");
    let json: serde_json::Value = serde_json::from_slice(&fs::read(report).unwrap()).unwrap();
    fs::remove_file(report).unwrap();
    assert!(json["differ"]["tags/001"].as_array().is_some_and(|found| !found.is_empty()), "{json:#}");
    let now = recording::read(&saved.path().join("tags/001.json")).unwrap();
    assert_eq!(now.ollama, "0.20.0");
    assert!(!now.response.body().contains("capabilities"));

    let replay = Options { replay: Some(Replay::read(dir.path(), None).unwrap()), ..Options::default() };
    let replaying = Mock::start_with(replay, Script::default()).await.unwrap();
    let replayed = send(&replaying.addr().to_string(), "POST /api/chat HTTP/1.1", &hello);
    assert_eq!(lines(&replayed), lines(&streamed));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_is_recorded_and_a_remote_that_breaks_off_is_not() {
    let script = Script::on("/api/chat").containing("cut").after(2).then(Then::Cut);
    let script = script.and(Script::on("/api/chat").after(2).then(Then::Stall));
    let mock = Mock::start(script).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let recorder = Recorder::start(&mock.url(), dir.path(), &["--count", "1"]);
    send(&recorder.addr, "POST /api/chat HTTP/1.1", &CHAT.replace("Mail", "cut"));
    let mut socket = TcpStream::connect(&recorder.addr).unwrap();
    write!(socket, "POST /api/chat HTTP/1.1\r\nHost: here\r\nContent-Length: {}\r\n\r\n{CHAT}", CHAT.len()).unwrap();
    read_until(&mut socket, "}\n");
    read_until(&mut socket, "}\n");
    drop(socket);
    let (code, reported) = recorder.end();
    assert_eq!(code, Some(0), "{reported}");
    assert!(reported.contains("not recorded: POST /api/chat: the remote broke off"), "{reported}");
    let all = recording::read_dir(dir.path()).unwrap();
    assert_eq!((all.len(), all[0].left_after_chunks), (1, Some(2)));
}

#[test]
fn a_remote_that_cannot_be_recorded_or_compared_is_exit_code_2() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().to_str().unwrap();
    for (args, reported) in [
        (&["record", "--out", out][..], "--remote-host is missing"),
        (&["verify", out], "--remote-host is missing"),
        (&["verify", out, "--remote-host", "127.0.0.1"], "no recording (*.json) in"),
        (
            &["record", "--out", out, "--remote-host", "127.0.0.1", "--remote-port", "9"],
            "cannot record http://127.0.0.1:9",
        ),
        (&["record", "--out", out, "--remote-host", "127.0.0.1", "--mask", "("], "invalid --mask"),
    ] {
        let output = command(args).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", text(&output));
        assert!(text(&output).contains(reported), "{args:?}: {}", text(&output));
    }
}
