//! `compare`, `fmt`, `run --persona`, `run --watch` and `--html`, as programs call them.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::Stdio,
    time::Duration,
};

use assert_cmd::Command;
use predicates::str::contains;

fn check() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_farllama-check"));
    command.env_remove("GITHUB_ACTIONS").env_remove("CI").timeout(Duration::from_secs(60));
    command
}

fn scenario(folder: &Path, name: &str, title: &str, object: &str) {
    // A call of its own kind for what is wrong, so that the two are not taken for each other.
    let call = if object == "banana" { "{ http: { path: /v1/models } }" } else { "models" };
    let text = format!("title: {title}\nsteps:\n  - call: {call}\n    expect: {{ $.object: {object} }}\n");
    std::fs::write(folder.join(name), text).unwrap();
}

#[test]
fn targets_are_compared_and_only_what_got_worse_fails() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    scenario(here, "good.yaml", "models are listed", "list");
    scenario(here, "bad.yaml", "models are a banana", "banana");
    let run = || {
        let mut command = check();
        command.current_dir(here);
        command
    };
    run().args(["run", "good.yaml", "bad.yaml", "--json", "before.json"]).assert().code(1);
    // What failed before may fail.
    let both = ["--scenarios", "good.yaml", "--scenarios", "bad.yaml"];
    run()
        .args(["compare", "mock"])
        .args(both)
        .args(["--against", "before.json", "--times", "2", "--html", "out.html", "--json", "out.json"])
        .assert()
        .code(0)
        .stdout(contains("Nothing got worse"));
    let page = std::fs::read_to_string(here.join("out.html")).unwrap();
    assert!(page.starts_with("<!doctype html>") && page.contains("models are a banana"));
    // It was renamed, and it fails now.
    std::fs::remove_file(here.join("good.yaml")).unwrap();
    scenario(here, "renamed.yaml", "the list of models is one", "tree");
    run()
        .args(["compare", "now=mock", "then=before.json", "--scenarios", "renamed.yaml", "--scenarios", "bad.yaml"])
        .args(["--against", "out.json"])
        .assert()
        .code(1)
        .stdout(contains("Worse than the baseline"))
        .stdout(contains("the list of models is one"))
        .stdout(contains("| scenario | now | then |"));
}

#[test]
fn unusable_targets_are_named() {
    for (args, words) in [
        (&["mock"][..], "name a second target"),
        (&["mock", "banana"], "\"banana\" is not a target"),
        (&["mock", "missing.json"], "missing.json"),
        (&["mock", "mock", "mock", "mock", "mock", "mock"], "too many"),
    ] {
        check().arg("compare").args(args).arg("--library").assert().code(2).stderr(contains(words));
    }
}

#[test]
fn files_are_formatted_and_comments_stay() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.yaml");
    std::fs::write(&file, "#why\ntitle:  x\n\n\nsteps:\n- call: models\n  expect: {$.object: list}   # here\n")
        .unwrap();
    let fmt = |more: &[&str]| check().arg("fmt").args(more).arg(&file).assert();
    fmt(&["--check"]).code(1).stdout(contains("is not formatted"));
    fmt(&[]).code(0);
    fmt(&["--check"]).code(0);
    let text = std::fs::read_to_string(&file).unwrap();
    assert_eq!(text, "# why\ntitle: x\n\nsteps:\n  - call: models\n    expect: { $.object: list }   # here\n");
    std::fs::write(&file, "title: [x\n").unwrap();
    fmt(&[]).code(2).stderr(contains("not YAML"));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "title: [x\n");
}

#[test]
fn a_persona_is_run_by_its_name() {
    check().args(["run", "--persona", "codex", "-q"]).assert().code(0).stdout(contains("1 passed"));
    check().args(["run", "--persona", "codx"]).assert().code(2).stderr(contains("did you mean `codex`?"));
}

#[test]
fn changed_scenarios_are_run_again() {
    let folder = tempfile::tempdir().unwrap();
    scenario(folder.path(), "one.yaml", "the first", "list");
    scenario(folder.path(), "two.yaml", "the second", "list");
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_farllama-check"))
        .args(["run", "--watch"])
        .arg(folder.path())
        .env_remove("GITHUB_ACTIONS")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (sender, lines) = std::sync::mpsc::channel();
    let out = child.stdout.take().unwrap();
    std::thread::spawn(move || {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    let until = |wanted: &str| {
        let mut seen = Vec::new();
        loop {
            let line =
                lines.recv_timeout(Duration::from_secs(30)).unwrap_or_else(|_| panic!("no {wanted:?} after {seen:?}"));
            let found = line.contains(wanted);
            seen.push(line);
            if found {
                return seen;
            }
        }
    };
    until("2 passed");
    // File systems may have times in whole seconds.
    std::thread::sleep(Duration::from_millis(1100));
    scenario(folder.path(), "two.yaml", "the second, changed", "banana");
    let seen = until("1 failed");
    assert!(seen.iter().any(|line| line.contains("the second, changed")), "{seen:?}");
    assert!(!seen.iter().any(|line| line.contains("the first")), "only the changed one runs: {seen:?}");
    child.kill().unwrap();
    child.wait().unwrap();
}
