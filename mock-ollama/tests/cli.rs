//! The program: its help, its messages, its exit codes, and that it serves until a signal.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::{Child, Command as Process, Stdio},
};

use assert_cmd::Command;
use predicates::{prelude::PredicateBooleanExt, str::contains};

fn mock() -> Command {
    Command::new(env!("CARGO_BIN_EXE_mock-ollama"))
}

#[test]
fn help_distinguishes_the_two_versions() {
    let reported =
        contains("--version <X>").and(contains("own version")).and(contains("--about")).and(contains("Exit codes"));
    mock().arg("--help").assert().success().stdout(reported);
    mock().arg("--about").assert().success().stdout(contains(env!("CARGO_PKG_VERSION")));
    mock().arg("-V").assert().success().stdout(contains("mock-ollama"));
}

#[test]
fn unusable_flags_say_what_would_do() {
    for (flags, reported) in [
        (["--version", "new"], "is not an Ollama version such as 0.32.5"),
        (["--model", "x=fly"], "is not a capability: use completion"),
        (["--model", "a b"], "is not a model name such as"),
        (["--context-length", "1"], "4.."),
        (["--stock", "all"], "possible values"),
        (["--chaos", "cut=2"], "invalid probability"),
        (["--max-loaded-models", "2"], "--max-queue"),
        (["--script", "/nowhere/x.json"], "cannot read the script /nowhere/x.json"),
    ] {
        mock().args(flags).assert().code(2).stderr(contains(reported));
    }
}

#[test]
fn a_health_check_succeeds_where_a_mock_runs_and_fails_elsewhere() {
    let (running, addr) = start(&[]);
    let port = addr.rsplit(':').next().unwrap();
    for host in ["127.0.0.1", "0.0.0.0"] {
        mock().args(["--health", "--host", host, "--port", port]).assert().success();
    }
    drop(running);
    mock().args(["--health", "--port", port]).assert().code(2).stderr(contains("no mock at 127.0.0.1:"));
}

#[test]
fn completions_and_the_manual_page_have_the_flags() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        mock().args(["--completions", shell]).assert().success().stdout(contains("replay-timing"));
    }
    let folder = tempfile::tempdir().unwrap();
    mock().arg("--man").arg(folder.path()).assert().success();
    assert!(fs::read_to_string(folder.path().join("mock-ollama.1")).unwrap().contains(r"\-\-replay"));
}

#[test]
fn a_script_with_a_mistake_is_refused_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("script.json");
    fs::write(&path, "[{\"when\": {\"pat\": 1}}]").unwrap();
    let reported = contains("is not a script").and(contains("unknown field `pat`")).and(contains("line 1"));
    mock().arg("--script").arg(&path).assert().code(2).stderr(reported);
}

#[test]
fn a_profile_with_a_mistake_is_rejected_and_a_valid_one_is_played() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("profile.json");
    fs::write(&path, r#"{"version": "0.34.0", "features": {"flies": true}}"#).unwrap();
    let reason = contains("is not a profile").and(contains("unknown variant `flies`"));
    mock().arg("--profile").arg(&path).assert().code(2).stderr(reason);
    fs::write(&path, r#"{"version": "0.34.0", "features": {"think_max": false}}"#).unwrap();
    mock().args(["--version", "0.20.0", "--profile"]).arg(&path).assert().code(2).stderr(contains("--version"));
    // It gets as far as the port, which is taken.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    mock().args(["--port", &port, "--profile"]).arg(&path).assert().code(2).stderr(contains("cannot listen"));
}

#[test]
fn a_taken_port_is_an_error() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    mock()
        .args(["--port", &port])
        .assert()
        .code(2)
        .stderr(contains("cannot listen on 127.0.0.1").and(contains("--port")));
}

/// A running program, killed if a test fails.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts it on a free port, and reads the address that it prints.
fn start(flags: &[&str]) -> (Running, String) {
    let mut child = Process::new(env!("CARGO_BIN_EXE_mock-ollama"))
        .args(["--port", "0", "--quiet"])
        .args(flags)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let stdout = child.stdout.take().unwrap();
    let running = Running(child);
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line).unwrap();
    let addr = line.trim().rsplit("http://").next().unwrap().to_owned();
    (running, addr)
}

fn get(addr: &str, path: &str) -> String {
    let mut socket = TcpStream::connect(addr).unwrap();
    write!(socket, "GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn it_serves_as_its_flags_say() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("script.json");
    fs::write(
        &script,
        "[{\"when\": {\"path\": \"/api/ps\"}, \"reply\": {\"status\": 503, \"body\": {\"error\": \"busy\"}}}]",
    )
    .unwrap();
    let flags =
        ["--version", "0.20.0", "--stock", "empty", "--model", "me/x:1=tools", "--script", script.to_str().unwrap()];
    let (_running, addr) = start(&flags);
    assert!(get(&addr, "/api/version").contains("{\"version\":\"0.20.0\"}"));
    let tags = get(&addr, "/api/tags");
    assert_eq!(tags.matches("\"name\"").count(), 1);
    assert!(tags.contains("me/x:1"));
    assert!(get(&addr, "/api/ps").starts_with("HTTP/1.1 503"));
}

#[cfg(unix)]
#[test]
fn a_signal_ends_it_with_success() {
    for signal in ["INT", "TERM"] {
        let (mut running, _) = start(&[]);
        let sent = Process::new("kill").args(["-s", signal, &running.0.id().to_string()]).status().unwrap();
        assert!(sent.success());
        assert!(running.0.wait().unwrap().success(), "{signal}");
    }
}

#[test]
fn recordings_are_replayed_and_a_request_that_none_fits_names_the_nearest() {
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures");
    let (_running, addr) = start(&["--replay", fixtures, "--version", "0.20.0"]);
    let recording = mock_ollama::recording::read(format!("{fixtures}/0.20.0/chat/stream.json").as_ref()).unwrap();
    let body = &recording.request.body;
    let replayed = post(&addr, "/api/chat", body);
    let lines: Vec<&str> = recording.response.chunks.iter().map(|(_, chunk)| chunk.trim_end()).collect();
    let sent: Vec<&str> = replayed.lines().filter(|line| line.starts_with('{')).collect();
    assert_eq!(sent, lines);
    let other = body.replace("Say hello to the world.", "These are my own words.");
    assert!(post(&addr, "/api/chat", &other).contains("words."), "its own text");
    let refused = post(&addr, "/api/chat", &body.replace("smollm2:135m", "other"));
    assert!(refused.starts_with("HTTP/1.0 501 ") && refused.contains("whose model is"), "{refused}");
    assert!(refused.contains("smollm2:135m"), "{refused}");
}

#[test]
fn recordings_that_cannot_be_replayed_are_exit_code_2() {
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures");
    for (flags, reported) in [
        (["--replay", fixtures, "--quiet"].as_slice(), "choose one with --version"),
        (&["--replay", "/nowhere"], "cannot read /nowhere"),
        (&["--replay-timing"], "--replay <DIR>"),
    ] {
        mock().args(flags).assert().code(2).stderr(contains(reported));
    }
}

/// What a server answers to a body, its head included.
fn post(addr: &str, path: &str, body: &str) -> String {
    let mut socket = TcpStream::connect(addr).unwrap();
    let head = format!("POST {path} HTTP/1.0\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    socket.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer
}
