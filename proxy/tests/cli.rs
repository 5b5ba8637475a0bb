//! The `farllama` binary as a person meets it: help, exit codes, messages.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::{Child, Command as Process, Stdio},
    time::{Duration, Instant},
};

use assert_cmd::Command;
use predicates::{prelude::PredicateBooleanExt, str::contains};

/// The binary, away from this machine's own settings.
fn farllama(args: &[&str]) -> Command {
    let mut command = Command::cargo_bin("farllama").unwrap();
    command.args(args).env_clear().env("HOME", "/nonexistent").timeout(Duration::from_secs(20));
    command
}

/// A running proxy on a free port, ended with the test.
struct Serving {
    child: Child,
    port: u16,
    log: BufReader<std::process::ChildStderr>,
}

impl Serving {
    fn start(args: &[&str]) -> Self {
        let mut child = Process::new(env!("CARGO_BIN_EXE_farllama"))
            .args(["serve", "--local-port", "0", "--admin-enabled=false", "--log", "json"])
            .args(args)
            .env_clear()
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let port = loop {
            let mut line = String::new();
            assert!(log.read_line(&mut line).unwrap() > 0, "it ended before it listened");
            let line: serde_json::Value = serde_json::from_str(&line).unwrap();
            if line["message"] == "listening" {
                break line["ollama"].as_str().unwrap().rsplit(':').next().unwrap().parse().unwrap();
            }
        };
        Self { child, port, log }
    }

    fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// Sends SIGTERM, and gives the exit code and the rest of the log.
    fn terminate(mut self) -> (Option<i32>, String) {
        Process::new("kill").arg(self.child.id().to_string()).status().unwrap();
        let mut rest = String::new();
        self.log.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap().code(), rest)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn stdout(args: &[&str]) -> String {
    String::from_utf8(farllama(args).assert().success().get_output().stdout.clone()).unwrap()
}

#[test]
fn long_help_shows_all_settings_in_groups_and_examples() {
    for args in [&["--help"][..], &["serve", "--help"]] {
        let help = stdout(args);
        for text in ["--remote-host <HOST>", "FARLLAMA_REMOTE_HOST", "Examples:", "The remote Ollama:", "--quota-wait"]
        {
            assert!(help.contains(text), "{text} in {help}");
        }
    }
    farllama(&[]).assert().code(2).stderr(contains("Usage:"));
    farllama(&["--version"]).assert().success().stdout(contains("farllama 0.2.0"));
}

#[test]
fn short_help_fits_on_a_screen_and_shows_what_people_use() {
    for args in [&["-h"][..], &["serve", "-h"]] {
        let help = stdout(args);
        for text in ["--remote-host", "--local-port", "--context-max", "--config", "Examples:", "serve gpu-box"] {
            assert!(help.contains(text), "{text} in {help}");
        }
        assert!(!help.contains("--quota-wait") && !help.contains("FARLLAMA_"), "{help}");
        assert!(
            help.lines().count() <= 34 && help.lines().all(|line| line.len() <= 80),
            "{} lines: {help}",
            help.lines().count()
        );
    }
    let help = stdout(&["-h"]);
    assert!(help.contains("Commands:") && help.contains("  serve ") && help.lines().count() <= 24, "{help}");
    for (args, own) in [
        (&["key", "new", "-h"][..], "--models"),
        (&["key", "list", "-h"], "--config"),
        (&["key", "revoke", "-h"], "<NAME>"),
        (&["config", "check", "-h"], "--config"),
        (&["explain", "-h"], "--loaded"),
        (&["reload", "-h"], "--pid"),
    ] {
        let help = stdout(args);
        assert!(help.contains(own) && !help.contains("--remote-host <"), "{help}");
        assert!(help.lines().count() <= 30, "{} lines: {help}", help.lines().count());
    }
}

#[test]
fn completions_and_manual_pages_have_every_command_and_setting() {
    for (shell, has) in [
        ("bash", "--context-max"),
        ("zsh", "--context-max"),
        ("fish", "-l context-max"),
        ("powershell", "--context-max"),
        ("elvish", "--context-max"),
    ] {
        let text = stdout(&["completions", shell]);
        assert!(text.contains(has) && text.contains("inspect"), "{shell}");
    }
    farllama(&["completions", "cmd"]).assert().code(2).stderr(contains("[possible values: bash"));
    let folder = tempfile::tempdir().unwrap();
    stdout(&["man", folder.path().to_str().unwrap()]);
    let page = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    for name in ["farllama.1", "farllama-key-new.1", "farllama-inspect.1", "farllama-completions.1"] {
        assert!(page(name).starts_with(".ie \\n(.g .ds Aq"), "{name}");
    }
    assert!(page("farllama-serve.1").contains(r"\-\-context\-max"));
}

#[test]
fn without_a_remote_the_command_to_try_is_shown() {
    for verb in [&["serve"][..], &["config", "check"]] {
        farllama(verb).assert().code(2).stderr(contains("no remote is set. Try: farllama serve --remote-host NAME"));
        farllama(verb)
            .env("OLLAMA_HOST", "gpu-box:11434")
            .assert()
            .code(2)
            .stderr(contains("OLLAMA_HOST is gpu-box:11434").and(contains("farllama serve gpu-box:11434")));
    }
    farllama(&["gpu-box"]).assert().code(2).stderr(contains("farllama serve gpu-box"));
}

#[test]
fn a_remote_that_ends_in_the_path_of_an_api_is_an_error_with_the_right_one() {
    for verb in [&["serve"][..], &["config", "check"]] {
        farllama(&[verb, &["--remote-host", "http://gpu-box:11434/v1"]].concat())
            .assert()
            .code(2)
            .stderr(contains("farllama: --remote-host: ").and(contains("write \"http://gpu-box:11434\"")));
    }
}

#[test]
fn an_address_of_another_machine_cannot_be_listened_on_and_the_remote_is_named() {
    farllama(&["serve", "--host", "192.0.2.7", "--remote-host", "gpu-box"])
        .assert()
        .code(2)
        .stderr(contains("without keys").or(contains("farllama serve 192.0.2.7")));
    farllama(&["serve", "--host", "192.0.2.7", "--remote-host", "gpu-box", "--local-public"])
        .assert()
        .code(2)
        .stderr(contains("farllama serve 192.0.2.7"));
}

#[test]
fn a_check_fails_where_serve_would_refuse_and_names_the_file() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    let check = |text: &str| {
        std::fs::write(file.path(), text).unwrap();
        farllama(&["config", "check", "--config", path])
    };
    let fine = "[remote]\nhost = \"gpu-box\"\n";
    check(fine).assert().success().stdout(contains("OK. settings file: ").and(contains(path)));
    for (text, why) in [
        ("[remote]\nhost = \"localhost\"\n", "this proxy itself"),
        (
            "[remote]\nhost = \"gpu-box\"\n[local]\nhost = \"0.0.0.0\"\n",
            "refusing to listen on 0.0.0.0 without keys: create one",
        ),
        (
            "[remote]\nhost = \"gpu-box\"\n[local]\nhost = \"0.0.0.0\"\n[auth]\nenabled = false\nkeys = [{ key = \"k\" }]\n",
            "auth.enabled is false, so those in auth.keys are not required: set it to true",
        ),
    ] {
        check(text).assert().code(2).stderr(contains(why).and(contains(path)));
        farllama(&["serve", "--config", path]).assert().code(2).stderr(contains(why));
    }
    farllama(&["config", "check", "--remote-host", "gpu-box"])
        .assert()
        .success()
        .stdout(contains("settings file: none (/nonexistent/.config/farllama/config.toml does not exist)"));
    farllama(&["config", "show"]).assert().success().stdout(contains("# settings file: none"));
    check("[local]\nport = \"x\"\n[limits]\nbody = \"10MB\"\n")
        .assert()
        .code(2)
        .stderr(contains("2 mistakes").and(contains(":2:8: local.port")).and(contains(":4:8: limits.body")));
}

#[test]
fn keys_are_created_listed_and_revoked_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("farllama").join("config.toml");
    let run = |args: &[&str]| {
        let mut command = farllama(args);
        command.env("XDG_CONFIG_HOME", folder.path());
        command
    };
    run(&["key", "list"]).assert().success().stdout(contains("There are no keys"));
    run(&["key", "new", "--name", "ann", "--limit", "60", "--models", "gpt-oss,qwen3:8b", "--save"])
        .assert()
        .success()
        .stdout(contains("fl-").and(contains(path.to_str().unwrap())));
    run(&["key", "new", "--name", "bob", "--save"]).assert().success();
    run(&["key", "new", "--name", "bob", "--save"]).assert().code(2).stderr(contains("key revoke bob"));
    run(&["key", "list"]).assert().success().stdout(contains("gpt-oss, qwen3:8b").and(contains("bob")));
    run(&["key", "revoke", "ann"]).assert().success();
    run(&["key", "revoke", "ann"]).assert().code(2).stderr(contains("There are: bob"));
    run(&["key", "list"]).assert().success().stdout(contains("ann").not());
    run(&["key", "new", "--limit", "0"]).assert().code(2);
    let off = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(off.path(), "[auth]\nenabled = false\n").unwrap();
    farllama(&["key", "new", "--save", "--config", off.path().to_str().unwrap()])
        .assert()
        .success()
        .stdout(contains("Saved in").and(contains("auth.enabled is false, so no key is required yet")));
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains("enabled = true") && !text.contains("fl-"), "{text}");
}

#[test]
fn an_unknown_flag_is_reported_with_the_nearest() {
    farllama(&["serve", "--remote-hots", "x"]).assert().code(2).stderr(contains("--remote-host"));
}

#[test]
fn a_wrong_file_is_reported_with_file_line_and_column() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "[local]\nport = \"x\"\n").unwrap();
    let path = file.path().to_str().unwrap();
    farllama(&["config", "check", "--config", path])
        .assert()
        .code(2)
        .stderr(contains(format!("{path}:2:8: local.port:")));
    farllama(&["config", "check", "--config", "/nonexistent/x.toml"])
        .assert()
        .code(2)
        .stderr(contains("/nonexistent/x.toml"));
}

#[test]
fn a_wrong_variable_and_a_wrong_flag_are_named() {
    farllama(&["config", "check"])
        .env("FARLLAMA_LOCAL_PORT", "x")
        .assert()
        .code(2)
        .stderr(contains("FARLLAMA_LOCAL_PORT"));
    farllama(&["config", "check", "--local-port", "x"]).assert().code(2).stderr(contains("--local-port"));
    let flag = "farllama: --local-port: invalid port \"x\": expected a number from 0 to 65535";
    farllama(&["config", "check", "--local-port", "x"]).assert().code(2).stderr(contains(flag));
    farllama(&["config", "check", "--remote-host", "gpu-box"])
        .env("FARLLAMA_LOCAL_PROT", "1")
        .assert()
        .success()
        .stderr(contains("Did you mean FARLLAMA_LOCAL_PORT?"));
}

#[test]
fn the_settings_in_force_are_shown_with_their_origins_and_without_secrets() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "[remote]\nhost = \"from-file\"\nport = 1\napi_key = \"hunter2\"\n").unwrap();
    farllama(&["config", "show", "--config", file.path().to_str().unwrap(), "--remote-port", "3"])
        .env("FARLLAMA_REMOTE_PORT", "2")
        .env("FARLLAMA_TIMEOUTS_IDLE", "7s")
        .assert()
        .success()
        .stdout(
            contains("port = 3  # --remote-port")
                .and(contains("host = \"from-file\"  # "))
                .and(contains("idle = \"7s\"  # FARLLAMA_TIMEOUTS_IDLE"))
                .and(contains("api_key = \"***\""))
                .and(contains("hunter2").not()),
        );
}

#[test]
fn the_parts_of_a_url_are_shown_with_the_flag_that_gave_it() {
    farllama(&["config", "show", "--remote-host", "https://u:hunter2@gpu-box/p"]).assert().success().stdout(
        contains("protocol = \"https\"  # --remote-host")
            .and(contains("host = \"gpu-box\"  # --remote-host"))
            .and(contains("port = 443  # --remote-host"))
            .and(contains("basic_auth = \"***\"  # --remote-host"))
            .and(contains("hunter2").not()),
    );
}

#[test]
fn what_is_shown_can_be_loaded_again() {
    let shown = farllama(&["config", "show", "--remote-host", "https://gpu-box/p", "--origins", "https://a.example"])
        .output()
        .unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), shown.stdout).unwrap();
    farllama(&["config", "show", "--config", file.path().to_str().unwrap()]).assert().success().stdout(
        contains("base_path = \"/p\"").and(contains("protocol = \"https\"")).and(contains("https://a.example")),
    );
}

#[test]
fn a_remote_that_is_the_proxy_itself_is_refused_with_the_flag_to_set() {
    farllama(&["serve"]).assert().code(2).stderr(contains("--remote-host"));
    farllama(&["serve", "--local-host", "0.0.0.0", "--remote-host", "localhost"])
        .assert()
        .code(2)
        .stderr(contains("this proxy itself"));
}

/// Something that answers every request with `answer`, on a free port.
fn answering(answer: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(answer);
        }
    });
    port
}

#[test]
fn a_taken_port_is_reported_with_who_answers_there() {
    let serve = |port: &str| farllama(&["serve", "--local-port", port, "--remote-host", "gpu-box"]);
    let ollama: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\nConnection: close\r\n\r\n{\"version\":\"0.32.5\"}";
    let port = answering(ollama);
    let said = format!("an Ollama 0.32.5 already listens on 127.0.0.1:{port}: stop it");
    serve(&port).assert().code(2).stderr(contains(&*said).and(contains("--local-port 18000")));
    // The remote is the listener's own address, and an Ollama is there.
    farllama(&["serve", "--local-port", &port, "--remote-port", &port]).assert().code(2).stderr(
        contains("this proxy itself").and(contains("an Ollama 0.32.5 listens on")).and(contains("--local-port 18000")),
    );
    let port = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
    serve(&port).assert().code(2).stderr(contains("a web server that is not Ollama already listens"));
    for keys in [&[][..], &["--auth-enabled", "--auth-keys", "a-long-key"]] {
        let other = Serving::start(&[&["--remote-host", "127.0.0.1:9"], keys].concat());
        let said = format!("another farllama already listens on 127.0.0.1:{}", other.port);
        serve(&other.port.to_string()).assert().code(2).stderr(contains(&*said).and(contains("remote-host").not()));
    }
}

#[test]
fn a_file_of_authorities_that_is_not_there_is_named() {
    for verb in [&["serve"][..], &["config", "check"]] {
        let flags =
            ["--local-port", "0", "--remote-host", "https://gpu-box", "--remote-ca-file", "/nonexistent/ca.pem"];
        farllama(&[verb, &flags].concat()).assert().code(2).stderr(
            contains("remote.ca_file").and(contains("/nonexistent/ca.pem")).and(contains("cannot listen").not()),
        );
    }
}

#[test]
fn headers_may_be_given_several_times() {
    farllama(&["config", "show", "--remote-headers", "X-A: 1", "--remote-headers", "X-B: 2"])
        .assert()
        .success()
        .stdout(contains("headers = { \"x-a\" = \"***\", \"x-b\" = \"***\" }  # --remote-headers"));
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_no_text_is_named() {
    use std::os::unix::ffi::OsStrExt;
    farllama(&["config", "check"])
        .env("FARLLAMA_REMOTE_HOST", std::ffi::OsStr::from_bytes(b"\xff"))
        .assert()
        .code(2)
        .stderr(contains("FARLLAMA_REMOTE_HOST: its value is not UTF-8"));
}

#[test]
fn a_request_is_one_line_of_the_log_and_a_signal_ends_the_proxy_in_order() {
    let remote = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = remote.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = remote.accept() {
            let _ = stream.read(&mut [0; 1024]);
            let body = "{\"model\":\"m\",\"done\":true,\"prompt_eval_count\":7,\"eval_count\":3}\n";
            let _ =
                write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
        }
    });
    let serving = Serving::start(&["--remote-host", &addr]);
    assert!(serving.get("/api/chat?x=1").ends_with("\"eval_count\":3}\n"));
    let (code, log) = serving.terminate();
    assert_eq!(code, Some(0));
    let lines: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let line = lines.iter().find(|line| line["message"] == "GET /api/chat").unwrap_or_else(|| panic!("{log}"));
    assert_eq!(
        (&line["model"], &line["status"], &line["input_tokens"], &line["output_tokens"], &line["ended"]),
        (&"m".into(), &200.into(), &7.into(), &3.into(), &"complete".into())
    );
    assert!(line["first_byte_ms"].is_number() && line["total_ms"].is_number() && line["timestamp"].is_string());
}

#[test]
fn an_idle_proxy_ends_at_once() {
    let serving = Serving::start(&["--remote-host", "127.0.0.1:9"]);
    let reported = Instant::now();
    assert_eq!(serving.terminate().0, Some(0));
    println!("ended after {:?}", reported.elapsed());
}

#[test]
fn a_new_key_is_printed_with_a_line_that_knows_it() {
    let said = stdout(&["key", "new", "--name", "ann"]);
    let key = said.lines().map(str::trim).find(|line| line.starts_with("fl-")).unwrap();
    let (_, settings) = said.split_once("[auth]").unwrap();
    let config = farllama::Config::from_toml(&format!("[auth]{settings}")).unwrap();
    assert_eq!(config.auth.tokens[0].digest, farllama::config::Digest::of(key.as_bytes()));
    assert_eq!(config.auth.tokens[0].name, "ann");
    assert!(!settings.contains(key));
}

#[test]
fn the_settings_in_the_guide_to_sharing_can_be_used() {
    let guide = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/sharing.md")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    for file in ["bob", "cert.pem", "key.pem"] {
        std::fs::write(path(file), "bobs-key").unwrap();
    }
    let signed = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(path("cert.pem"), signed.cert.pem()).unwrap();
    std::fs::write(path("key.pem"), signed.signing_key.serialize_pem()).unwrap();
    let blocks: Vec<_> = guide.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(blocks.len(), 6);
    for block in blocks {
        let here = path("").replace('\\', "/");
        std::fs::write(path("config.toml"), block.replace("/run/secrets/", &here).replace("/etc/farllama/", &here))
            .unwrap();
        // A block about one thing lacks what the guide has said before.
        let keys = if block.contains("host = ") { &["--auth-enabled", "--auth-keys", "a-long-key"][..] } else { &[] };
        let check = ["config", "check", "--config", &path("config.toml"), "--remote-host", "gpu-box"];
        farllama(&[&check, keys].concat()).env("CI_KEY", "cis-key").assert().success();
    }
}

#[test]
fn explain_shows_what_a_request_becomes_without_a_remote() {
    let body = r#"{"model":"m","user":"u","messages":[{"role":"user","content":"hi"}],"max_tokens":5}"#;
    let shown = farllama(&["explain"]).env("FARLLAMA_REMOTE_HOST", "gpu-box").write_stdin(body).assert().success();
    let shown: serde_json::Value = serde_json::from_slice(&shown.get_output().stdout).unwrap();
    assert_eq!(
        (&shown["requests"][0]["url"], &shown["receipt"], &shown["endpoint"]),
        (&"http://gpu-box:11434/api/chat".into(), &"user=no-effect".into(), &"POST /v1/chat/completions".into())
    );
    assert_eq!(shown["requests"][0]["body"]["options"]["num_predict"], 5);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("body.json");
    std::fs::write(&file, body).unwrap();
    let flags = ["explain", "--curl", "--remote-api-key", "canary", file.to_str().unwrap()];
    let command = farllama(&flags).assert().success();
    let command = String::from_utf8_lossy(&command.get_output().stdout).into_owned();
    assert!(command.contains("curl -N -X POST 'http://127.0.0.1:11434/api/chat'"), "{command}");
    assert!(command.contains("the remote wants credentials") && !command.contains("canary"), "{command}");
    farllama(&["explain"]).write_stdin("{\"model\":\"m\"}").assert().code(1);
    farllama(&["explain", "no-such-file.json"]).assert().code(2);
    farllama(&["explain", "--endpoint", "poems"]).write_stdin(body).assert().code(2);
}

#[test]
fn explain_finds_the_endpoint_from_the_body_unless_it_is_reported() {
    let shown = |flags: &[&str], body: &str| -> serde_json::Value {
        let shown = farllama(&[&["explain"], flags].concat()).write_stdin(body.to_owned()).assert().success();
        serde_json::from_slice(&shown.get_output().stdout).unwrap()
    };
    let found = shown(&[], r#"{"model":"m","input":"hi"}"#);
    assert_eq!(
        (&found["endpoint"], &found["requests"][0]["body"]["input"][0]),
        (&"POST /v1/embeddings".into(), &"hi".into())
    );
    let reported = shown(&["--endpoint", "moderations"], r#"{"model":"m","input":"hi"}"#);
    assert_eq!(reported["endpoint"], "POST /v1/moderations");
}

#[tokio::test]
async fn explain_compares_with_what_a_remote_has_loaded_only_where_it_is_told_to() {
    let options = mock_ollama::Options { version: "0.20.0".parse().unwrap(), ..mock_ollama::Options::default() };
    let script = mock_ollama::Script::on("/api/ps").body(serde_json::json!({"models": [
        {"name": "m:latest", "model": "m:latest", "size": 1, "size_vram": 1, "context_length": 4096},
    ]}));
    let mock = mock_ollama::Mock::start_with(options, script).await.unwrap();
    let address = mock.addr().to_string();
    let warnings = async |flags: Vec<String>, num_ctx: u32| {
        let body = format!(
            r#"{{"model":"m","num_ctx":{num_ctx},"reasoning_effort":"max","messages":[{{"role":"user","content":"hi"}}]}}"#
        );
        let address = address.clone();
        let shown = tokio::task::spawn_blocking(move || {
            let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
            farllama(&[&["explain"], &flags[..]].concat())
                .env("FARLLAMA_REMOTE_HOST", address)
                .write_stdin(body)
                .assert()
                .success()
        });
        let shown: serde_json::Value = serde_json::from_slice(&shown.await.unwrap().get_output().stdout).unwrap();
        shown["warnings"].to_string()
    };
    let reported = warnings(Vec::new(), 8192).await;
    assert!(
        reported.contains("if the model is loaded with another value") && mock.journal().entries().is_empty(),
        "{reported}"
    );
    let reported = warnings(vec!["--loaded".to_owned()], 8192).await;
    assert!(
        reported.contains("the model is loaded with 4096") && reported.contains("0.20.0, which has no level max"),
        "{reported}"
    );
    let reported = warnings(vec!["--remote-host".to_owned(), address.clone()], 4096).await;
    assert!(!reported.contains("num_ctx") && reported.contains("no level max"), "{reported}");
    drop(mock);
    let reported = warnings(vec!["--loaded".to_owned()], 8192).await;
    assert!(reported.contains("not compared with what is loaded: cannot reach the remote Ollama"), "{reported}");
}

fn page(path: &str) -> String {
    std::fs::read_to_string(format!("{}/../{path}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

#[test]
fn the_readme_begins_with_what_a_newcomer_needs() {
    let readme = page("README.md");
    let first: String = readme.lines().take(15).collect::<Vec<_>>().join("\n");
    for needed in ["cargo install", "farllama serve gpu-box", "curl http://127.0.0.1:11434/v1/", "chat.completion"] {
        assert!(first.contains(needed), "{needed} in {first}");
    }
    assert!(readme.contains("--context-max 65536") && readme.contains("docs/troubleshooting.md"));
}

/// A page that explains texts which the program no longer has would mislead.
#[test]
fn every_text_that_the_troubleshooting_page_explains_is_in_the_program() {
    let page = page("docs/troubleshooting.md");
    let explained: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("### `")?.strip_suffix('`')).collect();
    assert!(explained.len() >= 18, "{explained:?}");
    let mut sources = String::new();
    for folder in ["src/upstream", "src/upstream/connect", "src/ollama", "src"] {
        for file in std::fs::read_dir(format!("{}/{folder}", env!("CARGO_MANIFEST_DIR"))).unwrap() {
            sources.push_str(&std::fs::read_to_string(file.unwrap().path()).unwrap_or_default());
        }
    }
    let gone: Vec<_> = explained.iter().filter(|text| !sources.contains(**text)).collect();
    assert!(gone.is_empty(), "{gone:?}");
}

#[tokio::test]
async fn explain_says_when_it_guesses_the_endpoint_and_suggests_names_for_typos() {
    let shown = |flags: &[&str], body: &str| -> serde_json::Value {
        let shown = farllama(&[&["explain"], flags].concat()).write_stdin(body.to_owned()).assert().success();
        serde_json::from_slice(&shown.get_output().stdout).unwrap()
    };
    let warnings = |flags: &[&str], body: &str| shown(flags, body)["warnings"].to_string();
    let body = r#"{"model":"m","input":"hi"}"#;
    let guessed = warnings(&[], body);
    assert!(guessed.contains("guessed POST /v1/embeddings") && guessed.contains("--endpoint"), "{guessed}");
    assert!(guessed.contains("POST /v1/responses"), "{guessed}");
    assert_eq!(warnings(&["--endpoint", "embeddings"], body), "[]");
    let chat = r#"{"model":"m","temprature":3,"n":2,"messages":[{"role":"user","content":"hi"}]}"#;
    let typo = shown(&[], chat);
    assert_eq!(typo["receipt"], "n=emulated, temprature=unknown");
    let typo = typo["warnings"].to_string();
    assert!(typo.contains("unknown field `temprature`: did you mean `temperature`?"), "{typo}");
    assert!(typo.contains("without a seed"), "{typo}");
    assert!(!typo.contains("guessed"), "only a chat has messages: {typo}");
    let seeded = shown(&[], &chat.replace("\"n\":2", "\"n\":2,\"seed\":7"));
    let seeds: Vec<_> = (0..2).map(|nth| seeded["requests"][nth]["body"]["options"]["seed"].clone()).collect();
    assert_eq!(seeds, [7, 8]);
    assert!(!seeded["warnings"].to_string().contains("seed"));
}

#[tokio::test]
async fn explain_checks_the_model_and_the_context_against_the_remote() {
    let mock =
        mock_ollama::Mock::start_with(mock_ollama::Options::default(), mock_ollama::Script::default()).await.unwrap();
    let address = mock.addr().to_string();
    let warnings = async |model: &str, words: usize| {
        let body =
            format!(r#"{{"model":"{model}","messages":[{{"role":"user","content":"{}"}}]}}"#, "word ".repeat(words));
        let flags = ["explain", "--remote-host", &address].map(str::to_owned);
        let shown = tokio::task::spawn_blocking(move || {
            farllama(&flags.each_ref().map(String::as_str)).write_stdin(body).assert().success()
        });
        let shown: serde_json::Value = serde_json::from_slice(&shown.await.unwrap().get_output().stdout).unwrap();
        shown["warnings"].to_string()
    };
    let missing = warnings("no-such-model", 1).await;
    assert!(missing.contains("the remote has no model `no-such-model`: the request gets a 404"), "{missing}");
    assert!(!missing.contains("loads it"), "{missing}");
    let there = warnings("smollm2:135m", 1).await;
    assert!(!there.contains("has no model") && !there.contains("context"), "{there}");
    let long = warnings("smollm2:135m", 9000).await;
    assert!(long.contains("tokens") && long.contains("--context-max"), "{long}");
}

#[cfg(unix)]
#[test]
fn systemd_learns_when_the_proxy_is_ready_and_when_it_stops() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let received = || {
        let mut buffer = [0; 100];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    let mut child = Process::new(env!("CARGO_BIN_EXE_farllama"))
        .args(["serve", "--local-port", "0", "--admin-enabled=false", "--remote-host", "127.0.0.1:9"])
        .env_clear()
        .env("NOTIFY_SOCKET", &path)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    assert_eq!(received(), "READY=1");
    Process::new("kill").arg(child.id().to_string()).status().unwrap();
    assert_eq!(received(), "STOPPING=1");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_running_farllama_is_steered_from_the_command_line() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.toml");
    std::fs::write(&config, "# ours\n").unwrap();
    let mut child = Process::new(env!("CARGO_BIN_EXE_farllama"))
        .args(["serve", "--local-port", "0", "--admin-port", "0", "--log", "json", "--remote-host", "127.0.0.1:9"])
        .args(["--remote-probe", "0s", "--config", config.to_str().unwrap()])
        .env_clear()
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let port = log.find_map(|line| {
        let line: serde_json::Value = serde_json::from_str(&line).ok()?;
        Some(line["console"].as_str()?.rsplit(':').next()?.to_owned())
    });
    let port = port.unwrap();
    let run = |args: &[&str]| {
        let mut all = args.to_vec();
        all.extend(["--admin-port", &port]);
        farllama(&all).assert()
    };
    run(&["status"]).success().stdout(contains("data listener running").and(contains("refused")));
    run(&["status", "--json"]).success().stdout(contains("\"running\":true"));
    run(&["stop"]).success().stdout("data listener: stopped\n");
    run(&["stop"]).success().stdout("data listener: stopped already\n");
    run(&["status"]).success().stdout(contains("stopped (farllama start)"));
    run(&["start", "--json"]).success().stdout("{\"running\":true,\"changed\":true}\n");
    run(&["restart"]).success().stdout("data listener: running\n");
    run(&["remote", "show"]).success().stdout("http://127.0.0.1:9 (credentials: none)\n");
    run(&["remote", "set", "127.0.0.1:10"]).code(1).stderr(contains("nothing was changed"));
    run(&["remote", "set", "127.0.0.1:10", "--test"]).code(1);
    run(&["remote", "set", "127.0.0.1:10", "--force", "--save"])
        .success()
        .stdout(contains("remote set to http://127.0.0.1:10").and(contains("saved in")))
        .stderr(contains("--remote-host names the remote too"));
    assert!(std::fs::read_to_string(&config).unwrap().starts_with("# ours\n"));
    run(&["requests"]).success().stdout(contains("KEY"));
    run(&["requests", "--cancel", "7"]).code(1).stderr(contains("no request with the key 7"));
    run(&["inspect", "on"]).success();
    run(&["top", "--once"]).success().stdout(contains("inspector   ON").and(contains("last minute 0 requests")));
    run(&["inspect", "show", "7"]).code(1).stderr(contains("no exchange"));
    run(&["logs", "--search", "remote set to"]).success().stdout(contains("remote set to http://127.0.0.1:10"));
    child.kill().unwrap();
    child.wait().unwrap();
    run(&["status"]).code(3).stderr(contains("not running"));
    run(&["remote"]).code(2);
}

#[test]
fn a_taken_admin_port_is_a_warning_unless_it_is_required() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let serve = ["serve", "--local-port", "0", "--remote-host", "127.0.0.1:9", "--admin-port", &port];
    let mut required = serve.to_vec();
    required.push("--admin-required");
    farllama(&required)
        .assert()
        .code(2)
        .stderr(contains("is taken, perhaps by another farllama: choose another port (--admin-port)"));
    let mut child =
        Process::new(env!("CARGO_BIN_EXE_farllama")).args(serve).env_clear().stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(log.any(|line| line.contains("going on without it")));
    assert!(log.any(|line| line.contains("listening")));
    child.kill().unwrap();
    child.wait().unwrap();
}
