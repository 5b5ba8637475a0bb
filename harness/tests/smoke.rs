//! The smoke test as a person meets it: the real proxy, in front of remotes of every kind.

use std::{
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::OnceLock,
    time::Duration,
};

use mock_ollama::{Journal, Mock, Script};
use tokio::runtime::Runtime;

/// The proxy's binary, built if it is not there or old. It belongs to another package, so cargo does not do that for
/// this test.
fn proxy() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let profile = Path::new(env!("CARGO_BIN_EXE_farllama-check")).parent().unwrap();
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--package", "farllama", "--bin", "farllama", "--target-dir"]);
        cargo.arg(profile.parent().unwrap()).current_dir(env!("CARGO_MANIFEST_DIR"));
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        assert!(cargo.status().unwrap().success(), "the proxy cannot be built");
        profile.join(format!("farllama{}", std::env::consts::EXE_SUFFIX))
    })
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_farllama-check"));
    command.args(["smoke", "--local-port", "0", "--proxy-bin"]).arg(proxy()).args(args);
    for name in ["CI", "FARLLAMA_REMOTE_API_KEY", "FARLLAMA_REMOTE_HOST"] {
        command.env_remove(name);
    }
    command
}

struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Ran {
    fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
    }

    #[track_caller]
    fn assert(&self, code: i32, parts: &[&str]) {
        let all = format!("{}\n--- stderr\n{}", self.out, self.err);
        assert_eq!(self.code, Some(code), "{all}");
        for part in parts {
            assert!(all.contains(part), "no {part:?} in: {all}");
        }
    }

    /// Where the proxy was.
    fn proxy(&self) -> String {
        let line = self.out.lines().next().unwrap();
        line.split_once("http://").unwrap().1.split(' ').next().unwrap().to_owned()
    }
}

fn smoke(args: &[&str]) -> Ran {
    Ran::of(&command(args).output().unwrap())
}

/// A remote of its own for a test.
struct Remote {
    mock: Mock,
    journal: Journal,
    _runtime: Runtime,
}

impl Remote {
    fn playing(script: Script) -> Self {
        let runtime = Runtime::new().unwrap();
        let mock = runtime.block_on(Mock::start(script)).unwrap();
        Self { journal: mock.journal(), mock, _runtime: runtime }
    }

    fn url(&self) -> String {
        self.mock.url()
    }
}

#[test]
fn without_a_remote_the_built_in_mock_is_checked_and_said_to_be() {
    let ran = smoke(&[]);
    ran.assert(0, &["in front of the built-in mock, model gpt-oss:20b, 2m for each check"]);
    assert_eq!(ran.out.lines().filter(|line| line.starts_with("ok      ")).count(), 4, "{}", ran.out);
    assert!(ran.out.ends_with("4 passed, 0 failed, 0 skipped\n"), "{}", ran.out);
    assert_eq!(ran.err, "this checked the built-in mock, not a real Ollama: give --remote-host to check yours\n");
}

#[test]
fn the_proxy_is_gone_afterwards() {
    let ran = smoke(&[]);
    assert!(TcpStream::connect(ran.proxy()).is_err(), "the proxy still listens");
}

#[test]
fn a_remote_is_checked_as_the_flags_say() {
    let remote = Remote::playing(Script::default());
    let ran = smoke(&[
        "--remote-host",
        &remote.url(),
        "--model",
        "smollm2:135m",
        "--prompt",
        "say walrus",
        "--system-prompt",
        "be a walrus",
        "--openai-base-path",
        "/oai/v2",
    ]);
    ran.assert(0, &[&format!("in front of the remote {}, model smollm2:135m", remote.url()), "4 passed"]);
    assert!(!ran.err.contains("mock"), "{}", ran.err);
    let chats: Vec<_> = remote.journal.entries().into_iter().filter(|entry| entry.target == "/api/chat").collect();
    assert_eq!(chats.len(), 2);
    for chat in chats {
        let ask = chat.json().unwrap();
        assert_eq!(ask["model"], "smollm2:135m");
        assert_eq!(ask["messages"][0]["content"], "be a walrus");
        assert_eq!(ask["messages"][1]["content"], "say walrus");
    }
}

#[test]
fn the_key_reaches_the_remote_and_is_never_shown() {
    let remote = Remote::playing(Script::default());
    let output = command(&["--remote-host", &remote.url(), "--verbose"])
        .env("FARLLAMA_REMOTE_API_KEY", "canary-7f3a")
        .output()
        .unwrap();
    let ran = Ran::of(&output);
    ran.assert(0, &["> POST http://", "< 200 after", "authorization: ***", "data: [DONE]"]);
    assert!(!format!("{}{}", ran.out, ran.err).contains("canary-7f3a"));
    assert_eq!(remote.journal.entries()[0].header("authorization"), Some("Bearer canary-7f3a"));
}

#[test]
fn a_model_that_the_remote_lacks_is_reported_with_those_that_it_has() {
    let ran = smoke(&["--model", "nope:1b"]);
    ran.assert(1, &["the remote does not have the model `nope:1b`. It has: ", "smollm2:135m", "ollama pull nope:1b"]);
    assert!(ran.out.ends_with("2 passed, 1 failed, 1 skipped\n"), "{}", ran.out);
}

#[test]
fn a_remote_that_cannot_be_reached_is_reported_in_the_proxys_own_words() {
    // A port that was free a moment ago.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let ran = smoke(&["--remote-host", "127.0.0.1", "--remote-port", &port]);
    ran.assert(2, &["cannot reach the remote Ollama", "connection refused", "OLLAMA_HOST", "the first check failed"]);
    assert!(ran.out.ends_with("0 passed, 0 failed, 1 broken, 3 skipped\n"), "{}", ran.out);
}

#[test]
fn what_is_not_ollama_is_named_with_what_to_change() {
    let answering = |status: u16, media_type: &str, body: &str| {
        Script::always().status(status).header("content-type", media_type).body(body)
    };
    let (stranger, gateway) = ("not an Ollama at", "the gateway at");
    let plain_port = "Client sent an HTTP request to an HTTPS server.\n";
    for (script, what, change) in [
        (answering(200, "text/html", "<!DOCTYPE html><html>Welcome</html>"), stranger, "an HTML page"),
        (answering(401, "text/plain", "Authorization Required"), gateway, "--remote-api-key"),
        (answering(403, "text/plain", "Forbidden"), gateway, "remote.api_key"),
        (answering(404, "text/html", "<html>404</html>"), stranger, "--remote-base-path"),
        (answering(400, "text/plain", plain_port), stranger, "--remote-protocol https"),
    ] {
        let remote = Remote::playing(script);
        // Nothing could be checked, so nothing is said about the remote's fitness.
        smoke(&["--remote-host", &remote.url()]).assert(2, &[what, change, "0 passed, 0 failed, 1 broken, 3 skipped"]);
    }
}

#[test]
fn a_taken_port_is_exit_code_2_and_says_what_to_change() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_farllama-check"));
    let output = command.args(["smoke", "--local-port", &port, "--proxy-bin"]).arg(proxy()).output().unwrap();
    Ran::of(&output).assert(2, &["the proxy cannot start", &port, "--local-port"]);
}

#[test]
fn flags_that_cannot_be_used_are_exit_code_2() {
    smoke(&["--timeout", "1500"]).assert(2, &["1500 of what?"]);
    smoke(&["--remote-port", "1"]).assert(2, &["--remote-port is given without --remote-host"]);
    smoke(&["--remote-host", "ftp://gpu-box"])
        .assert(2, &["--remote-host: invalid URL \"ftp://gpu-box\": expected the protocol http, https or ssh"]);
    smoke(&["--remote-host", "gpu-box", "--remote-port", "many"]).assert(2, &["--remote-port"]);
    let output =
        Command::new(env!("CARGO_BIN_EXE_farllama-check")).args(["smoke", "--proxy-bin", "no/such/file"]).output();
    Ran::of(&output.unwrap()).assert(2, &["cannot start the proxy (no/such/file)", "--proxy-bin"]);
}

#[test]
fn a_bare_number_of_milliseconds_is_noted() {
    smoke(&["--timeout", "60000"])
        .assert(0, &["note: --timeout 60000 is taken as milliseconds (1m)", "1m for each check"]);
}

#[test]
fn a_model_that_loads_for_too_long_is_said_to_load_and_ends_with_the_timeout() {
    let remote = Remote::playing(Script::on("/api/chat").delay(Duration::from_secs(3600)));
    let ran = smoke(&["--remote-host", &remote.url(), "--timeout", "3500ms"]);
    ran.assert(
        1,
        &["the remote is loading gpt-oss:20b (3 s)", "expected an end within 3s 500ms", "2 passed, 2 failed"],
    );
}

/// A remote that has the model in memory is at work, however long it takes (`/api/ps` says so).
#[test]
fn a_model_that_is_in_memory_and_slow_is_not_said_to_load() {
    let loaded = serde_json::json!({"models": [{"name": "gpt-oss:20b", "model": "gpt-oss:20b", "digest": "d"}]});
    let slow = Script::on("/api/chat").delay(Duration::from_secs(3600));
    let remote = Remote::playing(slow.and(Script::on("/api/ps").body(loaded)));
    let ran = smoke(&["--remote-host", &remote.url(), "--timeout", "3500ms"]);
    ran.assert(1, &["waiting for gpt-oss:20b to answer (3 s)", "2 passed, 2 failed"]);
    assert!(!ran.err.contains("loading"), "{}", ran.err);
}

#[test]
fn reports_for_programs_are_written() {
    let folder = tempfile::tempdir().unwrap();
    let (json, junit) = (folder.path().join("smoke.json"), folder.path().join("smoke.xml"));
    smoke(&["--json", json.to_str().unwrap(), "--junit", junit.to_str().unwrap()]).assert(0, &[]);
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    assert_eq!(json["summary"]["passed"], 4);
    assert!(std::fs::read_to_string(junit).unwrap().contains("tests=\"4\""));
}

#[cfg(unix)]
#[test]
fn ctrl_c_and_terminate_stop_the_proxy_too() {
    use std::io::{BufRead, BufReader};

    for signal in ["INT", "TERM"] {
        let remote = Remote::playing(Script::on("/api/chat").delay(Duration::from_secs(3600)));
        let mut child =
            command(&["--remote-host", &remote.url()]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = lines.next().unwrap().unwrap();
        let proxy = first.split_once("http://").unwrap().1.split(' ').next().unwrap().to_owned();
        // The chat is in flight once the list of models has been answered.
        assert!(lines.next().unwrap().unwrap().starts_with("ok "));
        let kill = Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().unwrap();
        assert!(kill.success());
        assert_eq!(child.wait().unwrap().code(), Some(130), "SIG{signal}");
        assert!(TcpStream::connect(proxy).is_err(), "the proxy still listens after SIG{signal}");
    }
}
