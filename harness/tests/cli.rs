//! The binary as a person or a script meets it: help, exit codes, messages.

use std::{fs, path::Path};

use assert_cmd::Command;
use predicates::{prelude::*, str::contains};
use tempfile::TempDir;

fn check() -> Command {
    let mut command = Command::cargo_bin("farllama-check").unwrap();
    for name in ["CI", "FARLLAMA_REMOTE_API_KEY", "OPENAI_API_KEY", "OPENAI_BASE_URL", "DOCKER_HOST"] {
        command.env_remove(name);
    }
    command
}

/// A folder with these scenario files.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = TempDir::new().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

const GOOD: &str =
    "title: models are listed\ntags: [quick]\nsteps:\n  - call: models\n    expect:\n      $.object: list\n";
const FAILING: &str = "title: models are a secret\nsteps:\n  - call: models\n    expect:\n      $.object: secret\n";
/// Only with a remote that speaks TLS: the file is read then.
const BROKEN: &str = "title: a proxy that cannot start\nconfig: |\n  [remote]\n  ca_file = \"/nowhere/ca.pem\"\nsteps:\n  - call: models\n    expect: { $.object: list }\n";
const UNREACHABLE: &str = "title: nobody is there\nsteps:\n  - call: models\n    expect: { $.error.status: 502 }\n";
const SCRIPTED: &str = "title: nothing is listed\nneeds: [script]\nupstream:\n  - when: { path: /api/tags }\n    reply: { body: { models: [] } }\nsteps:\n  - call: models\n    expect: { $.data: [] }\n";

/// Fails on purpose, so that everything is reported; the upstream says the key back, and so does the body.
const CANARY: &str = "\
title: keys are nowhere to be seen
upstream:
  - when: { path: /api/tags }
    reply: { status: 500, body: { error: canary-bearer and canary-team were here } }
config: |
  [auth]
  enabled = true
  header = \"x-team-key\"
  tokens = [{ key = \"canary-bearer\" }, { key = \"canary-team\" }]
client: { key: canary-bearer }
steps:
  - parallel:
      - { call: models, expect: { $.error.message: canary-bearer } }
      - { call: models, client: { key: canary-team, header: x-team-key }, expect: { $.object: list } }
      - call: { http: { path: '/api/chat?key=canary-team', headers: { x-team-key: canary-team, x-api-key: canary-other }, body: '{ broken canary-team canary-other' } }
        wire: { status: 418 }
      - { call: { chat: { model: canary-wrong, messages: [] } }, client: { key: canary-wrong }, wire: { status: 418 } }
    answers: { 200: 4 }
";

#[test]
fn no_report_shows_a_key() {
    let folder = folder(&[("canary.yaml", CANARY)]);
    let file = |name: &str| folder.path().join(name);
    let run = check()
        .args(["run", "--verbose", "--json"])
        .arg(file("run.json"))
        .arg("--junit")
        .arg(file("run.xml"))
        .arg(file("canary.yaml"))
        .assert()
        .code(1);
    let output = run.get_output();
    let console = [&*output.stdout, &output.stderr].concat();
    let reported = [String::from_utf8(console).unwrap(), read(&file("run.json")), read(&file("run.xml"))];
    for report in &reported {
        assert!(report.contains("***") && !report.contains("canary-"), "{report}");
    }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn help_shows_the_verbs_and_the_exit_codes() {
    check()
        .arg("--help")
        .assert()
        .success()
        .stdout(contains("run").and(contains("list")).and(contains("check")).and(contains("smoke")))
        .stdout(contains("3  nothing was checked"));
    check()
        .args(["smoke", "--help"])
        .assert()
        .success()
        .stdout(contains("--remote-host <HOST|URL>").and(contains("--timeout")));
}

#[test]
fn completions_and_manual_pages_have_every_verb() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        check().args(["completions", shell]).assert().success().stdout(contains("bench-tools").and(contains("record")));
    }
    let folder = tempfile::tempdir().unwrap();
    check().arg("man").arg(folder.path()).assert().success();
    for name in ["farllama-check.1", "farllama-check-run.1", "farllama-check-verify.1"] {
        assert!(read(&folder.path().join(name)).contains(".SH NAME"), "{name}");
    }
    check().args(["man", "/dev/null/x"]).assert().code(2).stderr(contains("cannot write manual pages"));
}

#[test]
fn a_flag_that_is_not_known_is_exit_code_2() {
    check().args(["run", "--verbos"]).assert().code(2).stderr(contains("--verbose"));
    check().assert().code(2);
}

#[test]
fn a_run_that_passes_ends_with_the_counts() {
    let folder = folder(&[("a.yaml", GOOD), ("b/c.yaml", SCRIPTED)]);
    check()
        .args(["run", "."])
        .current_dir(folder.path())
        .assert()
        .success()
        .stdout(contains("ok      models are listed (").and(contains("on the built-in mock, in")))
        .stdout(predicate::str::ends_with("2 passed, 0 failed, 0 skipped\n"))
        .stdout(contains("\u{1b}").not());
}

#[test]
fn a_finding_is_exit_code_1_and_points_at_file_line_and_column() {
    let folder = folder(&[("a.yaml", FAILING)]);
    check()
        .args(["run", "a.yaml"])
        .current_dir(folder.path())
        .assert()
        .code(1)
        .stdout(contains("FAILED  models are a secret"))
        .stdout(contains("  a.yaml:5:7: $.object (step 1)\n    expected \"secret\"\n    actual   \"list\"\n"))
        // The exchange is shown when it is asked for; what failed is listed at the end.
        .stdout(
            contains("< 200 after").not().and(contains("\nfailed (-v shows the exchanges):\n  FAILED  a.yaml  models")),
        )
        .stdout(predicate::str::ends_with("0 passed, 1 failed, 0 skipped\n"));
}

#[test]
fn yaml_that_cannot_be_read_is_exit_code_2_and_nothing_is_run() {
    let folder = folder(&[
        ("a.yaml", GOOD),
        ("b.yaml", "title: x\nsteps:\n  - call: { modal: x }\n"),
        ("c.yaml", "title: x\nstep: 1\n"),
    ]);
    for verb in ["run", "check", "list"] {
        check()
            .args([verb, "."])
            .current_dir(folder.path())
            .assert()
            .code(2)
            .stdout("")
            .stderr(
                contains("./b.yaml:3:13: unknown call `modal`, expected one of models, model, chat")
                    .and(contains("./c.yaml:2:1: unknown field `step`, expected one of title")),
            )
            .stderr(contains("2 | step: 1\n  | ^"));
    }
}

#[test]
fn an_unknown_matcher_is_reported_with_the_known_ones() {
    let folder = folder(&[("a.yaml", &*GOOD.replace(": list\n", ": { equal: list }\n"))]);
    check()
        .args(["check", "a.yaml"])
        .current_dir(folder.path())
        .assert()
        .code(2)
        .stderr(contains("a.yaml:6:7: unknown matcher `equal`, expected one of equals, type, gt"));
}

#[test]
fn a_step_that_checks_nothing_is_refused() {
    let folder = folder(&[("a.yaml", "title: x\nsteps:\n  - call: models\n")]);
    check()
        .args(["check", "a.yaml"])
        .current_dir(folder.path())
        .assert()
        .code(2)
        .stderr(contains("nothing is expected"));
}

#[test]
fn nothing_selected_is_exit_code_3() {
    let folder = folder(&[("a.yaml", GOOD)]);
    for args in [["run", "--tag", "slow"], ["list", "--filter", "nope"], ["check", "--tag", "slow"]] {
        check()
            .args(args)
            .arg(".")
            .current_dir(folder.path())
            .assert()
            .code(3)
            .stderr(contains("no scenario is selected"));
    }
    check().args(["run", "--tag", "quick", "."]).current_dir(folder.path()).assert().success();
    for (args, near) in [(["run", "--tag", "quik"], "quick"), (["list", "--filter", "modles"], "models")] {
        let reported = contains(format!("no scenario is selected; did you mean `{near}`?"));
        check().args(args).arg(".").current_dir(folder.path()).assert().code(3).stderr(reported);
    }
    check().args(["check", "a.yaml"]).current_dir(folder.path()).assert().success().stdout("1 scenario can be run\n");
    check()
        .args(["run", "nope.yaml"])
        .current_dir(folder.path())
        .assert()
        .code(2)
        .stderr(predicate::str::starts_with("farllama-check: nope.yaml: cannot be read"));
}

#[test]
fn paths_that_are_not_there_are_exit_code_2() {
    let folder = folder(&[]);
    check().arg("run").current_dir(folder.path()).assert().code(2).stderr(contains("no folder `scenarios` here"));
    check()
        .args(["run", "nope.yaml"])
        .current_dir(folder.path())
        .assert()
        .code(2)
        .stderr(contains("nope.yaml: cannot be read"));
}

#[test]
fn list_shows_titles_tags_and_needs() {
    let folder = folder(&[("a.yaml", GOOD), ("b.yaml", SCRIPTED)]);
    check()
        .args(["list", "."])
        .current_dir(folder.path())
        .assert()
        .success()
        .stdout("./a.yaml  models are listed  [quick]\n./b.yaml  nothing is listed  (needs script)\n");
}

#[test]
fn a_remote_that_cannot_promise_what_a_scenario_needs_skips_it_with_the_reason() {
    let folder = folder(&[("b.yaml", SCRIPTED)]);
    check()
        .args(["run", "--backend", "remote", "--remote-host", "127.0.0.1:9", "."])
        .current_dir(folder.path())
        .env("CI", "true")
        .assert()
        .code(3)
        .stdout(contains("it needs script, which the remote http://127.0.0.1:9 cannot promise"))
        .stdout(predicate::str::ends_with("0 passed, 0 failed, 1 skipped\n"));
}

#[test]
fn a_remote_that_cannot_be_reached_is_exit_code_2() {
    let folder = folder(&[("a.yaml", GOOD)]);
    check()
        .args(["run", "--backend", "remote", "--remote-host", "http://127.0.0.1:9", "."])
        .current_dir(folder.path())
        .assert()
        .code(2)
        .stdout("")
        .stderr(contains("cannot reach the remote Ollama at http://127.0.0.1:9"));
    check()
        .args(["run", "--no-preflight", "--remote-host", "http://127.0.0.1:9", "-v", "."])
        .current_dir(folder.path())
        .assert()
        .code(1)
        .stdout(contains("an error: 502: cannot reach the remote Ollama at http://127.0.0.1:9"))
        .stdout(contains("< 502 after").and(contains("> authorization: ***")));
    check()
        .args(["run", "--backend", "remote", "."])
        .current_dir(folder.path())
        .assert()
        .code(2)
        .stderr(contains("--remote-host"));
}

#[test]
fn a_missing_docker_engine_skips_and_fails_on_ci() {
    let folder = folder(&[("a.yaml", GOOD)]);
    let run = |ci: &str| {
        let mut command = check();
        command.args(["run", "--backend", "container", "."]).current_dir(folder.path());
        command.env("DOCKER_HOST", "unix:///nowhere/docker.sock").env("CI", ci).assert()
    };
    run("").code(3).stdout(contains("no Docker engine found").and(contains("0 passed, 0 failed, 1 skipped")));
    run("true")
        .code(2)
        .stdout(contains("BROKEN").and(contains("CI=true")).and(contains("0 passed, 0 failed, 1 broken, 0 skipped")));
}

#[test]
fn reports_for_programs_keep_failed_and_broken_apart() {
    let folder = folder(&[("a.yaml", UNREACHABLE), ("b.yaml", FAILING), ("c.yaml", BROKEN)]);
    check()
        .args(["run", ".", "--json", "run.json", "--junit", "run.xml"])
        .args(["--backend", "remote", "--remote-host", "https://127.0.0.1:9", "--no-preflight"])
        .current_dir(folder.path())
        .assert()
        .code(1)
        .stdout(contains("1 passed, 1 failed, 1 broken, 0 skipped"));
    let read = |name: &str| fs::read_to_string(folder.path().join(Path::new(name))).unwrap();
    let json: serde_json::Value = serde_json::from_str(&read("run.json")).unwrap();
    assert_eq!(
        json["summary"],
        serde_json::json!({"passed": 1, "failed": 1, "broken": 1, "skipped": 0, "failed_by_model": 0, "passed_in_part": 0})
    );
    assert_eq!(json["scenarios"][1]["steps"][0]["findings"][0]["at"], "./b.yaml:3:11");
    let xml = read("run.xml");
    assert!(xml.contains("tests=\"3\" skipped=\"0\" failures=\"1\" errors=\"1\""), "{xml}");
}

#[test]
fn something_that_could_not_be_run_is_exit_code_2() {
    let folder = folder(&[("a.yaml", UNREACHABLE), ("c.yaml", BROKEN)]);
    check()
        .args(["run", ".", "--backend", "remote", "--remote-host", "https://127.0.0.1:9", "--no-preflight"])
        .current_dir(folder.path())
        .assert()
        .code(2)
        .stdout(contains("BROKEN  a proxy that cannot start"));
}

#[test]
fn a_call_that_takes_too_long_is_a_finding() {
    let slow = "title: it answers in time\nupstream:\n  - when: { path: /api/tags }\n    reply: { delay: 1h }\nsteps:\n  - call: models\n    expect: { $.object: list }\n";
    let folder = folder(&[("a.yaml", slow)]);
    check()
        .args(["run", ".", "--timeout", "100ms"])
        .current_dir(folder.path())
        .assert()
        .code(1)
        .stdout(contains("expected an end within 100ms").and(contains("actual   no answer")));
}

#[test]
fn a_report_that_cannot_be_written_is_noticed_before_the_run() {
    let folder = folder(&[("a.yaml", GOOD)]);
    for (flag, path) in
        [("--json", "no/run.json"), ("--junit", "no/run.xml"), ("--markdown", "no/run.md"), ("--json", "a.yaml/x")]
    {
        for more in [&[][..], &["--dry-run"]] {
            let run = check().args(["run", "a.yaml", flag, path]).args(more).current_dir(folder.path()).assert();
            run.code(2).stdout("").stderr(contains(format!("{flag} {path} cannot be written: there is no folder ")));
        }
        let smoke = check().args(["smoke", flag, path]).current_dir(folder.path()).assert();
        smoke.code(2).stdout("").stderr(contains("there is no folder "));
    }
    check().args(["run", "a.yaml", "--json", "."]).current_dir(folder.path()).assert().code(2).stdout("");
}

#[test]
fn a_report_that_cannot_be_written_is_exit_code_2() {
    let folder = folder(&[("a.yaml", GOOD)]);
    check()
        .args(["run", ".", "--json", "no/such/folder.json"])
        .current_dir(folder.path())
        .assert()
        .code(2)
        .stderr(contains("--json"));
}

#[test]
fn every_scenario_of_the_repository_can_be_run() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    check().arg("check").current_dir(root).assert().success().stdout(contains("scenarios can be run"));
}

#[test]
fn the_examples_of_the_scenarios_readme_pass() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let readme = fs::read_to_string(root.join("scenarios/README.md")).unwrap();
    let examples: Vec<_> = readme.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    let folder = folder(&[("first.yaml", examples[0]), ("second.yaml", examples[1])]);
    check().args(["run", "."]).current_dir(folder.path()).assert().success().stdout(contains("2 passed"));
}

#[test]
fn a_scenario_runs_at_each_version_of_the_mock_that_is_asked_for_and_that_it_speaks_of() {
    let new =
        "title: images are refused\nmock: { from: 0.30.0 }\nsteps:\n  - call: models\n    expect: { $.object: list }\n";
    let folder = folder(&[("new.yaml", new), ("good.yaml", GOOD)]);
    let run = |version: &str| {
        let mut command = check();
        command.args(["run", "--mock-version", version]).arg(folder.path());
        command.assert()
    };
    run("0.20.0").success().stdout(contains("models are listed (Ollama 0.20.0)").and(contains("1 passed")));
    run("0.33.0").success().stdout(contains("2 passed"));
    run("each").success().stdout(contains("images are refused (Ollama 0.30.0)").and(contains("(Ollama 0.29.4)")));
    run("old").code(2).stderr(contains("0.32.5"));
}

#[test]
fn a_usual_version_of_which_a_scenario_does_not_speak_is_reported() {
    let old = "title: t\nmock: { before: 0.30.0 }\nsteps:\n  - call: models\n    expect: { $.object: list }\n";
    let folder = folder(&[("old.yaml", old)]);
    check()
        .arg("check")
        .arg(folder.path())
        .assert()
        .code(2)
        .stderr(contains("old.yaml:2:").and(contains("mock.version")));
}

#[test]
fn a_flag_implies_its_backend_and_contradictions_are_refused() {
    let folder = folder(&[("a.yaml", GOOD)]);
    let run = |args: &[&str]| check().args(["run", "a.yaml"]).args(args).current_dir(folder.path()).assert();
    let url = ["--base-url", "http://127.0.0.1:9/v1"];
    // Nothing listens there: a run on the mock would pass.
    run(&url).code(2).stdout("").stderr(contains("cannot reach the target http://127.0.0.1:9/v1"));
    run(&["--base-url", ""]).code(2).stderr(contains("needs --base-url"));
    run(&["--remote-host", "http://127.0.0.1:9"]).code(2).stderr(contains("cannot reach the remote Ollama"));
    run(&["--remote-host", ""]).code(2).stderr(contains("needs --remote-host"));
    run(&["--dry-run", "--image", "ollama/ollama:0.1"]).code(0).stdout(contains("a container of ollama/ollama:0.1"));
    run(&["--dry-run", "--pull"]).code(0).stdout(contains("a container of "));
    run(&["--dry-run", "--volume", "v"]).code(0).stdout(contains("a container of "));
    for (args, reported) in [
        (
            &["--base-url", "http://a/v1", "--remote-host", "b"][..],
            "--remote-host is for --backend remote, which contradicts --base-url",
        ),
        (
            &["--base-url", "http://a/v1", "--backend", "mock"],
            "--base-url is for --backend target, which contradicts --backend mock",
        ),
        (&["--pull", "--backend", "remote", "--remote-host", "b"], "--pull is for --backend container"),
        (&["--mock-version", "each", "--base-url", "http://a/v1"], "contradicts --base-url"),
        (
            &["--remote-host", "b", "--api-key", "k"],
            "--api-key is for --backend target, which contradicts --remote-host: leave out one of them (the key of a remote is --remote-api-key)",
        ),
        (
            &["--base-url", "http://a/v1", "--remote-api-key", "k"],
            "contradicts --base-url: leave out one of them (the key of a target is --api-key)",
        ),
        (&["--api-key", "k", "--backend", "mock"], "--api-key is for --backend target"),
        (&["--api-key", "k"], "--backend target needs --base-url"),
        (&["--remote-api-key", "k", "--image", "i"], "contradicts"),
        (&["--remote-port", "1"], "--remote-port is given without --remote-host"),
        (&["--capability", "tools"], "--capability is for other backends"),
        (&["--base-url", "http://a/v1", "--capability", "tool"], "did you mean `tools`?"),
        (&["--no-law", "role-frst"], "--no-law unknown law `role-frst`; did you mean `role-first`?"),
    ] {
        run(args).code(2).stdout("").stderr(contains(reported));
        run(&[args, &["--dry-run"]].concat()).code(2).stdout("").stderr(contains(reported));
    }
    // Keys in the environment may be there for other runs.
    check()
        .args(["run", "a.yaml"])
        .current_dir(folder.path())
        .env("FARLLAMA_CHECK_API_KEY", "k")
        .env("FARLLAMA_REMOTE_API_KEY", "k")
        .assert()
        .code(0);
}

#[test]
fn an_address_that_cannot_be_used_is_one_sentence() {
    let folder = folder(&[("a.yaml", GOOD)]);
    let run = |url: &str| check().args(["run", "a.yaml", "--base-url", url]).current_dir(folder.path()).assert();
    run("http://127.0.0.1:9/v1").code(2).stderr(
        "farllama-check: cannot reach the target http://127.0.0.1:9/v1: connection refused. Is it running, and is the address right?\n",
    );
    run("").code(2).stderr(contains("--base-url is empty: "));
    // A server that speaks plain HTTP, and one that speaks something else.
    let answering = |text: &'static [u8]| {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                use std::io::{Read, Write};
                let _ = stream.read(&mut [0; 4096]);
                let _ = stream.write_all(text);
            }
        });
        address
    };
    let plain = answering(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
    run(&format!("https://{plain}/v1")).code(2).stderr(
        contains("it does not speak TLS on that port; it is probably plain http")
            .and(contains("InvalidContentType").not()),
    );
    let secure = answering(
        b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\nClient sent an HTTP request to an HTTPS server.\n",
    );
    run(&format!("http://{secure}/v1")).code(2).stderr(contains(format!("use --base-url https://{secure}/v1")));
    let alert = answering(b"\x15\x03\x01\x00\x02\x02\x46");
    run(&format!("http://{alert}/v1")).code(2).stderr(contains("does not speak HTTP; if it speaks TLS, use https://"));
}

#[test]
fn times_and_jobs_follow_one_rule_in_every_verb() {
    let folder = folder(&[("a.yaml", GOOD)]);
    for verb in ["run", "mutate", "smoke"] {
        let with = |args: &[&str]| check().arg(verb).args(args).current_dir(folder.path()).assert();
        with(&["--timeout", "1500"]).code(2).stderr(contains("1500 of what?"));
        with(&["--timeout", "0"]).code(2).stderr(contains("a call needs some time"));
        with(&["--timeout", "soon"]).code(2).stderr(contains("write it as 30s, 500ms or 2m"));
    }
    for verb in ["run", "mutate"] {
        check().args([verb, "--jobs", "0"]).assert().code(2).stderr(contains("1 or more"));
    }
    let run = |time: &str| check().args(["run", "a.yaml", "--timeout", time]).current_dir(folder.path()).assert();
    run("5").code(0).stderr("");
    run("60000").code(0).stderr(contains("note: --timeout 60000 is taken as milliseconds (1m)"));
}

#[test]
fn laws_are_listed_and_can_be_switched_off() {
    check().arg("laws").assert().success().stdout(contains("role-first ").and(contains("--no-law NAME")));
    let stream = "title: t\nupstream:\n  - when: { path: /v1/own }\n    reply: { headers: { content-type: text/event-stream }, body: \"data: [DONE]\\n\\ndata: [DONE]\\n\\n\" }\nsteps:\n  - call: { http: { path: /v1/own } }\n    wire: { status: 200 }\n";
    let off = format!("no_laws: [done-once]\n{stream}");
    let folder = folder(&[("a.yaml", stream), ("b.yaml", &*off), ("c.yaml", &*off.replace("done-once", "done-onc"))]);
    let run = |args: &[&str]| check().arg("run").args(args).current_dir(folder.path()).assert();
    run(&["a.yaml"])
        .code(1)
        .stdout(contains("law done-once").and(contains("the law done-once is broken in 1 scenario")));
    run(&["a.yaml", "--no-law", "done-once"]).code(0);
    run(&["a.yaml", "--no-law", "all"]).code(0);
    run(&["b.yaml"]).code(0);
    run(&["c.yaml"]).code(2).stderr(contains("c.yaml:1:11: unknown law `done-onc`; did you mean `done-once`?"));
}

#[test]
fn init_writes_a_scenario_that_passes_and_overwrites_nothing() {
    let folder = folder(&[]);
    let run = |args: &[&str]| check().args(args).current_dir(folder.path()).assert();
    run(&["init"]).success().stdout(contains("wrote scenarios/first.yaml").and(contains("--base-url")));
    run(&["run"]).success().stdout(contains("1 passed"));
    run(&["init"]).code(2).stderr(contains("scenarios/first.yaml exists already"));
    run(&["init", "own.yaml"]).success();
}

#[test]
fn mutate_without_claims_explains_itself() {
    let folder = folder(&[("a.yaml", GOOD)]);
    check()
        .args(["mutate", "a.yaml"])
        .current_dir(folder.path())
        .assert()
        .code(3)
        .stdout("")
        .stderr(contains("none of the 1 selected scenarios has a tag such as").and(contains("--all")));
}

#[test]
fn a_misspelled_request_field_is_a_warning() {
    let text = "title: t\nsteps:\n  - call: { chat: { model: '${model}', temprature: 1, messages: [{ role: user, content: hi }] } }\n    expect: { $.object: chat.completion }\n";
    let folder = folder(&[("a.yaml", text)]);
    for verb in ["run", "check"] {
        let reported = "warning: a.yaml:3:11: `temprature` is not a request field of POST /v1/chat/completions; did you mean `temperature`?";
        check().args([verb, "a.yaml"]).current_dir(folder.path()).assert().success().stderr(contains(reported));
    }
}

#[test]
fn the_ten_scenarios_for_an_own_server_pass_on_the_mock() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let page = fs::read_to_string(root.join("docs/own-server.md")).unwrap();
    let examples: Vec<_> = page.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(examples.len(), 10);
    let files: Vec<_> = (0..10).map(|nth| format!("{nth}.yaml")).collect();
    let all: Vec<_> = files.iter().map(String::as_str).zip(examples).collect();
    let folder = folder(&all);
    check()
        .args(["run", "."])
        .current_dir(folder.path())
        .assert()
        .success()
        .stderr("")
        .stdout(contains("10 passed, 0 failed, 0 skipped"));
}
