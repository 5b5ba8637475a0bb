//! Any server as the target, without a proxy of ours in front: here one that happens to be ours, with a key.

use std::fs;

use assert_cmd::Command;
use farllama::Config;
use mock_ollama::{Mock, Options, Script};
use predicates::{prelude::PredicateBooleanExt, str::contains};

const SCENARIOS: [(&str, &str); 6] = [
    ("list.yaml", "title: models are listed\nsteps:\n  - call: models\n    expect: { $.object: list }\n"),
    (
        "raw.yaml",
        "title: a raw call has the key too\nsteps:\n  - call: { http: { path: /v1/models } }\n    wire: { status: 200 }\n",
    ),
    (
        "settings.yaml",
        "title: with settings\nconfig: |\n  [heartbeat]\n  after = \"1s\"\nsteps:\n  - call: models\n    expect: { $.object: list }\n",
    ),
    (
        "receipt.yaml",
        "title: with a receipt\nsteps:\n  - call: models\n    wire: { status: 200, headers: { X-Farllama-Receipt: { absent: true } } }\n",
    ),
    ("tools.yaml", "title: with tools\nneeds: [tools]\nsteps:\n  - call: models\n    expect: { $.object: list }\n"),
    (
        "new.yaml",
        "title: with a new Ollama\nneeds: ['ollama >= 99.0.0']\nsteps:\n  - call: { http: { path: /api/version } }\n    wire: { status: 200 }\n",
    ),
];

#[test]
fn a_target_is_asked_directly_and_what_it_cannot_promise_is_skipped_with_the_reason() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let (mock, proxy) = runtime.block_on(async {
        let mock = Mock::start_with(Options::default(), Script::default()).await.unwrap();
        let text = format!(
            "[local]\nport = 0\n[remote]\nhost = \"{}\"\nport = {}\n[auth]\nenabled = true\ntokens = [\"blue-canary-key\"]\n",
            mock.addr().ip(),
            mock.addr().port()
        );
        let proxy = farllama::serve(Config::from_toml(&text).unwrap()).await.unwrap();
        (mock, proxy)
    });
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in SCENARIOS {
        fs::write(folder.path().join(name), text).unwrap();
    }
    let run = |key: &str, model: &str| {
        let mut command = Command::cargo_bin("farllama-check").unwrap();
        command.args(["run", ".", "--verbose", "--backend", "target", "--model", model]);
        command.args(["--base-url", &format!("http://{}/v1", proxy.addr())]);
        command.env("FARLLAMA_CHECK_API_KEY", key).env_remove("CI").current_dir(folder.path()).assert()
    };
    run("blue-canary-key", "gpt-oss:20b").code(0).stdout(
        contains("3 passed, 0 failed, 3 skipped")
            .and(contains("it needs proxy, which the target http://127.0.0.1:"))
            .and(contains("it needs Ollama 99.0.0, and this is 0."))
            .and(contains("blue-canary-key").not()),
    );
    run("blue-canary-key", "all-minilm")
        .code(0)
        .stdout(contains("it needs a model with tools, which all-minilm has not"));
    // Once, for all scenarios.
    run("wrong-canary-key", "gpt-oss:20b").code(2).stdout("").stderr(
        contains("refuses access (401 Unauthorized)")
            .and(contains("FARLLAMA_CHECK_API_KEY"))
            .and(contains("wrong-canary-key").not()),
    );
    runtime.block_on(proxy.stop(std::time::Duration::ZERO));
    drop(mock);
}

#[test]
fn a_target_without_an_address_says_what_to_give() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.yaml"), SCENARIOS[0].1).unwrap();
    let run = |args: &[&str]| {
        let mut command = Command::cargo_bin("farllama-check").unwrap();
        command.args(["run", ".", "--backend", "target"]).args(args).current_dir(folder.path()).assert()
    };
    run(&[]).code(2).stderr(contains("needs --base-url, such as http://127.0.0.1:11434/v1"));
    run(&["--base-url", "localhost"]).code(2).stderr(contains("invalid --base-url"));
}

#[test]
fn a_target_that_does_not_answer_makes_scenarios_broken_whatever_they_need() {
    let folder = tempfile::tempdir().unwrap();
    let (name, text) = SCENARIOS[4];
    fs::write(folder.path().join(name), text).unwrap();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut command = Command::cargo_bin("farllama-check").unwrap();
    command.args(["run", ".", "--backend", "target", "--base-url", &format!("http://{closed}/v1"), "--no-preflight"]);
    let reported = contains("BROKEN").and(contains("what it can do cannot be asked: "));
    command.env_remove("CI").current_dir(folder.path()).assert().code(2).stdout(reported);
}

#[test]
fn a_model_that_was_not_named_is_announced() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let mock = runtime.block_on(Mock::start_with(Options::default(), Script::default())).unwrap();
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("asks.yaml"), ASKS).unwrap();
    fs::write(folder.path().join("list.yaml"), SCENARIOS[0].1).unwrap();
    let run = |args: &[&str]| {
        let mut command = Command::cargo_bin("farllama-check").unwrap();
        command.args(["run", "--remote-host", &mock.url()]).args(args);
        command.env_remove("FARLLAMA_REMOTE_API_KEY").env_remove("CI").current_dir(folder.path()).assert()
    };
    let reported = "model: gpt-oss:20b, the default (--model names another)\n";
    run(&["asks.yaml"]).code(0).stderr(reported);
    run(&["asks.yaml", "--no-preflight"]).code(0).stderr(reported);
    run(&["asks.yaml", "--model", "gpt-oss:20b"]).code(0).stderr("");
    run(&["list.yaml"]).code(0).stderr("");
}

const ASKS: &str = "title: it answers\nsteps:\n  - call: { chat: { model: '${model}', messages: [{ role: user, content: hi }] } }\n    expect: { $.object: chat.completion }\n";

/// A mock Ollama as a target: its own `/v1` is not played, so farllama stands before it.
fn with_target(models: &str, check: impl FnOnce(&dyn Fn(&[&str]) -> assert_cmd::assert::Assert, &str)) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let script: Script = serde_json::from_value(serde_json::json!([
        { "when": { "path": "/api/tags" }, "reply": { "body": serde_json::from_str::<serde_json::Value>(models).unwrap() } },
    ]))
    .unwrap();
    let (mock, proxy) = runtime.block_on(async {
        let mock = Mock::start_with(Options::default(), script).await.unwrap();
        let text =
            format!("[local]\nport = 0\n[remote]\nhost = \"{}\"\nport = {}\n", mock.addr().ip(), mock.addr().port());
        (mock, farllama::serve(Config::from_toml(&text).unwrap()).await.unwrap())
    });
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("asks.yaml"), ASKS).unwrap();
    fs::write(folder.path().join("list.yaml"), SCENARIOS[0].1).unwrap();
    let run = |args: &[&str]| {
        let mut command = Command::cargo_bin("farllama-check").unwrap();
        command
            .arg("run")
            .args(args)
            .env_remove("FARLLAMA_CHECK_API_KEY")
            .env_remove("CI")
            .current_dir(folder.path())
            .assert()
    };
    check(&run, &format!("http://{}", proxy.addr()));
    runtime.block_on(proxy.stop(std::time::Duration::ZERO));
    drop(mock);
}

#[test]
fn a_model_that_is_not_there_is_one_message_and_the_only_one_is_taken() {
    let one =
        r#"{"models":[{"name":"gpt-oss:20b","model":"gpt-oss:20b","modified_at":"2025-01-01T00:00:00Z","size":1}]}"#;
    with_target(one, |run, root| {
        let url = format!("{root}/v1");
        run(&["asks.yaml", "--base-url", &url, "--model", "my-model"])
            .code(2)
            .stdout("")
            .stderr(contains("does not have the model `my-model`. It has: gpt-oss:20b."));
        run(&["asks.yaml", "--base-url", &url]).code(0).stderr(contains("model: gpt-oss:20b, the only one"));
        // It asks no model.
        run(&["list.yaml", "--base-url", &url, "--model", "my-model"]).code(0);
        run(&["asks.yaml", "--base-url", &url, "--model", "my-model", "--no-preflight"]).code(1);
        // The usual slip: the root instead of the API.
        run(&["list.yaml", "--base-url", root]).code(2).stderr(contains(format!("use --base-url {root}/v1")));
    });
}
