//! What scenarios can say, as a person writes it and the binary runs it.

use std::{fs, path::Path};

use assert_cmd::{Command, assert::Assert};
use predicates::{prelude::PredicateBooleanExt, str::contains};
use tempfile::TempDir;

/// Runs the scenarios of a folder.
fn run_in(folder: &Path, args: &[&str]) -> Assert {
    let mut command = Command::cargo_bin("farllama-check").unwrap();
    for name in ["CI", "GITHUB_ACTIONS", "FARLLAMA_CHECK_API_KEY", "FARLLAMA_REMOTE_API_KEY"] {
        command.env_remove(name);
    }
    command.args(["run", "."]).args(args).current_dir(folder).assert()
}

fn folder(text: &str) -> TempDir {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("a.yaml"), text).unwrap();
    folder
}

/// Runs one scenario.
fn run(text: &str, args: &[&str]) -> Assert {
    run_in(folder(text).path(), args)
}

/// An upstream that says `yes` so many times, and `no` from then on.
fn saying_yes(times: usize) -> String {
    let reply = |word: &str| {
        format!(
            "{{ body: {{ model: m, message: {{ role: assistant, content: {word} }}, done: true, done_reason: stop }} }}"
        )
    };
    format!(
        "needs: [script]\nupstream:\n  - when: {{ path: /api/chat }}\n    times: {times}\n    reply: {}\n  - when: {{ path: /api/chat }}\n    reply: {}\n",
        reply("'Yes'"),
        reply("'No'")
    )
}

const ASK: &str = "steps:\n  - call: { chat: { model: m, messages: [{ role: user, content: hi }] } }\n";

#[test]
fn a_matrix_runs_every_combination_under_a_title_of_its_own() {
    let text = "title: a chat\nmatrix: { stream: [true, false], seed: [1, 2] }\nsteps:\n  - call: { chat: { model: '${model}', stream: '${stream}', seed: '${seed}', messages: [{ role: user, content: hi }] } }\n    expect: { '$.choices[0].message.role': assistant }\n    sent: { $.stream: '${stream}', $.options.seed: '${seed}' }\n";
    run(text, &[]).code(0).stdout(contains("a chat (stream true, seed 2)").and(contains("4 passed, 0 failed")));
    let titled = text.replace("title: a chat", "title: a chat with stream ${stream} and seed ${seed}");
    run(&titled, &[]).code(0).stdout(contains("a chat with stream false and seed 1"));
}

#[test]
fn a_model_that_is_right_often_enough_passes_and_the_rate_is_reported() {
    let asked = |pass: usize| {
        format!(
            "title: a wise model\n{}{ASK}    model: {{ '$.choices[0].message.content': 'Yes' }}\n    repeat: {{ times: 4, pass: {pass} }}\n",
            saying_yes(3)
        )
    };
    run(&asked(3), &[]).code(0).stdout(contains("the model was right 3 times of 4"));
    let reported = contains("blame: model").and(contains("4 of 4 right")).and(contains("the server kept its promises"));
    run(&asked(4), &[]).code(1).stdout(reported);
}

#[test]
fn a_server_must_be_right_every_time() {
    let text = format!(
        "title: a wise model\n{}{ASK}    expect: {{ '$.choices[0].message.content': 'Yes' }}\n    model: {{ '$.choices[0].message.role': assistant }}\n    repeat: {{ times: 4, pass: 1 }}\n",
        saying_yes(3)
    );
    run(&text, &[]).code(1).stdout(contains("(step 1, 4 of 4)").and(contains("blame: model").not()));
}

#[test]
fn reports_for_programs_distinguish_the_model_from_the_server() {
    let text =
        format!("title: a model\n{}{ASK}    model: {{ '$.choices[0].message.content': 'Yes' }}\n", saying_yes(0));
    let folder = folder(&text);
    run_in(folder.path(), &["--json", "r.json", "--junit", "r.xml", "--markdown", "r.md"]).code(1);
    let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
    let json: serde_json::Value = serde_json::from_str(&read("r.json")).unwrap();
    assert_eq!(json["summary"]["failed_by_model"], 1);
    assert_eq!(json["scenarios"][0]["steps"][0]["findings"][0]["blame"], "model");
    assert!(read("r.xml").contains("type=\"model\""), "{}", read("r.xml"));
    assert!(read("r.md").contains("| model |"), "{}", read("r.md"));
}

#[test]
fn a_step_that_may_be_late_is_tried_again_within_its_time() {
    let text = |within: &str| {
        format!(
            "title: late\nneeds: [script]\nupstream:\n  - when: {{ path: /api/tags }}\n    times: 2\n    reply: {{ status: 503, body: {{ error: wait }} }}\nsteps:\n  - call: models\n    expect: {{ $.object: list }}\n{within}"
        )
    };
    run(&text("    within: 20s\n"), &[]).code(0);
    run(&text(""), &[]).code(1);
}

#[test]
fn variables_come_from_the_scenario_a_file_the_environment_or_the_command_line() {
    let text = "title: a header\nvars: { word: blue, text: { file: word.txt }, key: { env: FARLLAMA_TEST_NO_SUCH_KEY, default: some-long-key } }\nsteps:\n  - call: { http: { path: /api/version, headers: { x-word: '${word}', x-text: '${text}', x-value: '${key}' } } }\n    wire: { status: 200 }\n    sent: { headers: { x-word: blue, x-text: from a file, x-value: some-long-key } }\n";
    let folder = folder(text);
    fs::write(folder.path().join("word.txt"), "from a file\n").unwrap();
    let hidden = contains("some-long-key").not().and(contains("x-value: ***"));
    run_in(folder.path(), &["--verbose"]).code(0).stdout(hidden);
    run_in(folder.path(), &["--var", "word=red"]).code(1).stdout(contains("actual   \"red\""));
    run_in(folder.path(), &["--var", "wort=red"]).code(2).stderr(contains("no selected scenario has this variable"));
    run_in(folder.path(), &["--var", "word"]).code(2).stderr(contains("NAME=VALUE"));
}

#[test]
fn a_variable_that_has_no_value_here_skips_the_scenario() {
    let text = "title: a key\nvars: { key: { env: FARLLAMA_TEST_NO_SUCH_KEY } }\nsteps:\n  - call: { http: { path: /, headers: { x-value: '${key}' } } }\n    wire: { status: 200 }\n";
    run(text, &[]).code(3).stdout(contains("the environment variable FARLLAMA_TEST_NO_SUCH_KEY, which is not set"));
}

#[test]
fn a_setup_that_fails_breaks_the_scenario_and_a_teardown_is_done_all_the_same() {
    let text = |model: &str, expected: &str| {
        format!(
            "title: a copy\nneeds: [script]\nsetup:\n  - call: {{ http: {{ path: /api/copy, body: {{ source: '{model}', destination: mine }} }} }}\nsteps:\n  - call: models\n    expect: {{ $.object: {expected} }}\nteardown:\n  - call: {{ http: {{ method: DELETE, path: /api/delete, body: {{ model: mine }} }} }}\n"
        )
    };
    run(&text("smollm2:135m", "list"), &["-v"]).code(0).stdout(contains("DELETE http"));
    run(&text("smollm2:135m", "wrong"), &[]).code(1);
    run(&text("no-such-model", "list"), &[]).code(2).stdout(contains("BROKEN").and(contains("setup failed")));
}

#[test]
fn what_is_wrong_with_these_words_is_reported_with_its_place() {
    for (text, reported) in [
        ("matrix: { n: 1 }\n", "a.yaml:2:11: a matrix takes a name and a list"),
        ("vars: { a: { env: 1 } }\n", "a.yaml:2:9: a variable is a value"),
        ("vars: { 'a b': 1 }\n", "not a variable name"),
        ("vars: { a: 1 }\nmatrix: { a: [1] }\n", "`a` is both in vars and in matrix"),
        ("needs: [tool]\n", "unknown need `tool`, expected one of script"),
    ] {
        run(&format!("title: a\n{text}{ASK}    wire: {{ status: 200 }}\n"), &[]).code(2).stderr(contains(reported));
    }
    for (text, reported) in [
        ("    repeat: { times: 0 }\n", "repeat takes times from 1"),
        ("    repeat: { times: 3, pass: 2 }\n", "only what is expected under `model` may fail"),
        ("    within: soon\n", "is not a duration such as 5s"),
    ] {
        run(&format!("title: a\n{ASK}    wire: {{ status: 200 }}\n{text}"), &[]).code(2).stderr(contains(reported));
    }
}

#[test]
fn a_captured_number_can_be_compared() {
    let text = "title: two\nsteps:\n  - call: { http: { path: /api/tags } }\n    expect: { '$.models[0].size': { type: integer } }\n    capture: { size: '$.models[0].size' }\n  - call: { http: { path: /api/tags } }\n    expect: { '$.models[0].size': { gte: '${size}', lte: '${size}' } }\n";
    run(text, &[]).code(0);
}

#[test]
fn a_dry_run_makes_no_call_and_shows_what_would_be_skipped() {
    let text = "title: scripted\nmock: { version: 0.20.0 }\nsteps:\n  - call: models\n    expect: { $.object: list }\n";
    run(text, &["--dry-run"]).code(0).stdout(contains("1 would run on the built-in mock"));
    let target = ["--dry-run", "--backend", "target", "--base-url", "http://127.0.0.1:1/v1"];
    run(text, &target).code(3).stdout(contains("skip").and(contains("needs script")));
}

#[test]
fn after_a_failure_no_scenario_is_begun_if_one_is_enough() {
    let folder = folder("title: one\nsteps:\n  - call: models\n    expect: { $.object: wrong }\n");
    fs::write(folder.path().join("b.yaml"), "title: two\nsteps:\n  - call: models\n    expect: { $.object: list }\n")
        .unwrap();
    run_in(folder.path(), &["--fail-fast", "--jobs", "1"]).code(1).stdout(contains("0 passed, 1 failed, 1 skipped"));
    let quiet = contains("title").not().and(contains("two").not()).and(contains("1 passed, 1 failed"));
    run_in(folder.path(), &["--quiet"]).code(1).stdout(quiet);
}

#[test]
fn on_github_each_finding_is_an_annotation() {
    let folder = folder("title: one\nsteps:\n  - call: models\n    expect: { $.object: wrong }\n");
    let mut command = Command::cargo_bin("farllama-check").unwrap();
    command.args(["run", "a.yaml"]).env("GITHUB_ACTIONS", "true").current_dir(folder.path());
    command.assert().code(1).stdout(contains("::error file=a.yaml,line=4,col=15,title=one::$.object%0Aexpected"));
}

#[test]
fn what_a_server_answers_is_no_command_to_github() {
    let raw = "  - call: { http: { method: POST, path: /v1/chat/completions, body: '\n::error::mine' } }\n    wire: { status: 200 }\n";
    let folder = folder(&format!("title: one\nsteps:\n{raw}"));
    let mut command = Command::cargo_bin("farllama-check").unwrap();
    command.args(["run", "a.yaml", "--verbose"]).env("GITHUB_ACTIONS", "true").current_dir(folder.path());
    let output = command.assert().code(1).get_output().stdout.clone();
    let reported = String::from_utf8(output).unwrap();
    let word = reported.lines().next().and_then(|line| line.strip_prefix("::stop-commands::")).unwrap();
    assert_eq!(word.len(), 16, "{word}");
    let (quoted, read) = reported.split_once(&format!("\n::{word}::\n")).unwrap();
    assert!(quoted.contains("::error::mine") && quoted.contains("0 passed, 1 failed"), "{reported}");
    assert!(read.lines().all(|line| line.starts_with("::error file=a.yaml,")) && !read.is_empty(), "{reported}");
}

#[test]
fn steps_can_be_shared_and_what_is_wrong_in_them_is_reported_with_their_own_file() {
    let text = "title: shared\nsteps:\n  - include: _first.yaml\n  - call: { model: '${id}' }\n    expect: { $.id: '${id}' }\n";
    let folder = folder(text);
    let shared = |text: &str| fs::write(folder.path().join("_first.yaml"), text).unwrap();
    shared("- call: models\n  expect: { $.object: list }\n  capture: { id: '$.data[0].id' }\n");
    run_in(folder.path(), &[]).code(0).stdout(contains("1 passed, 0 failed"));
    shared("- call: models\n  expect: { $.object: wrong }\n  capture: { id: '$.data[0].id' }\n");
    run_in(folder.path(), &[]).code(1).stdout(contains("./_first.yaml:2:13: $.object"));
    shared("- call: models\n  expect: { $.object: { equal: list } }\n");
    run_in(folder.path(), &[]).code(2).stderr(contains("./_first.yaml:2:13: unknown matcher `equal`"));
    shared("- include: _first.yaml\n");
    run_in(folder.path(), &[]).code(2).stderr(contains("a file that is included includes no other"));
    fs::remove_file(folder.path().join("_first.yaml")).unwrap();
    run_in(folder.path(), &[]).code(2).stderr(contains("./a.yaml:3:14: _first.yaml cannot be read"));
}

#[test]
fn an_answer_that_the_clients_types_cannot_take_fails() {
    let text = |body: &str| {
        format!(
            "title: an edit\nneeds: [script]\nupstream:\n  - when: {{ path: /v1/images/edits }}\n    reply: {{ body: {body} }}\nsteps:\n  - call: {{ image_edits: {{ model: m, prompt: p, base64: aGk=, filename: a.png }} }}\n    wire: {{ status: 200 }}\n"
        )
    };
    run(&text("{ created: 1, data: [{ b64_json: QQ== }] }"), &[]).code(0);
    let reported = contains("the client cannot read this: missing field `data`");
    run(&text("{ created: 1 }"), &[]).code(1).stdout(reported);
    let edit = text("{}").replace("aGk=", "'%'");
    run(&edit, &[]).code(2).stderr(contains("the image is not base64"));
}

#[test]
fn answers_are_compared_by_the_names_of_their_steps() {
    let text = |path: &str, not: &str| {
        format!(
            "title: two lists\nsteps:\n  - {{ name: first, call: models, expect: {{ $.object: list }} }}\n  - call: models\n    expect: {{ $.data: {{ {not} }} }}\n    wire: {{ body: {{ $.object: {{ same_as: {{ step: first, path: {path} }} }} }} }}\n"
        )
    };
    let same = "same_as: { step: first, path: $.data }";
    run(&text("$.object", same), &[]).code(0);
    run(&text("$.object", &format!("not: {{ {same} }}")), &[])
        .code(1)
        .stdout(contains("anything but the same as $.data"));
    let lost = contains("expected the same as $.none of the step `first`, where there was nothing");
    run(&text("$.none", same), &[]).code(1).stdout(lost);
    let later = text("$.object", "same_as: { step: frist, path: $.data }");
    run(&later, &[]).code(2).stderr(contains("a.yaml:5:15: in `same_as`: unknown step `frist`, expected one of first"));
}

#[test]
fn a_path_goes_out_as_it_is_written() {
    let text = "title: a path\nsteps:\n  - call: { http: { path: '/api/x/../tags?a=%2F', body: { a: 1 }, headers: { x-a: b } } }\n    wire: { status: { gte: 200 } }\n    sent: { method: POST, path: '/api/x/../tags?a=%2F', headers: { x-a: b }, $.a: 1 }\n";
    run(text, &["--verbose"]).code(0).stdout(contains("/api/x/../tags?a=%2F"));
    run(&text.replace("path: '/api/x/../tags?a=%2F', body", "path: '/api/ü', body"), &[])
        .code(2)
        .stderr(contains("no request can have the path \"/api/ü\"; it may be meant as \"/api/%C3%BC\""));
}

#[test]
fn what_was_not_found_is_not_there() {
    let text = |matcher: &str| {
        format!(
            "title: models\nsteps:\n  - call: models\n    expect: {{ '$.data[*].typo': {{ {matcher} }}, $.object: list }}\n"
        )
    };
    run(&text("absent: true"), &[]).code(0);
    for matcher in ["exists: true", "not: a", "every: { type: string }"] {
        run(&text(matcher), &[]).code(1).stdout(contains("$.data[*].typo"));
    }
}
