//! Self-proof, itself proved: claims that do not hold and scenarios that cannot fail are reported.

use assert_cmd::Command;
use predicates::{prelude::PredicateBooleanExt, str::contains};

const UPSTREAM: &str = "
needs: [script]
upstream:
  - when: { path: /api/chat }
    reply:
      lines:
        - { message: { role: assistant, content: One } }
        - { message: { role: assistant, content: ' two' } }
        - { done: true, done_reason: stop, prompt_eval_count: 5, eval_count: 3 }
steps:
  - call: { chat: { model: m, stream: true, user: blue, messages: [{ role: user, content: hi }] } }
";

/// Runs `mutate` with these arguments on one scenario.
fn mutate(tags: &str, expect: &str, args: &[&str]) -> assert_cmd::assert::Assert {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.yaml");
    std::fs::write(&file, format!("title: a stream\ntags: [{tags}]{UPSTREAM}    {expect}\n")).unwrap();
    Command::cargo_bin("farllama-check").unwrap().arg("mutate").arg(&file).args(args).assert()
}

#[test]
fn a_claim_that_holds_is_reported_and_passes() {
    let reported = contains("noticed by").and(contains("1 mutants, 0 unnoticed, 0 problems"));
    mutate("mutant:done-missing", "wire: { done: true }", &["--mutant", "done-missing"]).code(0).stdout(reported);
}

#[test]
fn a_claim_that_does_not_hold_is_a_problem_and_says_where() {
    let reported = contains("a.yaml: it passes although every choice is said to be filtered");
    mutate("mutant:finish-wrong", "wire: { frames: { gte: 1 } }", &["--mutant", "finish-wrong"])
        .code(1)
        .stdout(reported);
}

#[test]
fn a_claim_about_something_that_does_not_occur_claims_too_much() {
    let reported = contains("claims too much: it changes nothing there");
    mutate("mutant:usage-early", "wire: { done: true }", &["--mutant", "usage-early"]).code(1).stdout(reported);
}

#[test]
fn a_scenario_that_fails_anyway_proves_nothing() {
    let reported = contains("it does not pass even without a mutant");
    mutate("mutant:crlf", "wire: { frames: 99 }", &["--mutant", "crlf"]).code(1).stdout(reported);
}

#[test]
fn a_mutant_that_no_scenario_notices_and_a_scenario_that_cannot_fail_are_problems() {
    let reported = contains("no scenario notices that").and(contains("no mutant can fail it"));
    mutate("", "wire: { status: 200 }", &["--all", "--mutant", "finish-wrong"]).code(1).stdout(reported);
}

#[test]
fn a_field_that_no_scenario_sends_or_misses_is_a_problem() {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("page.md");
    let proof = |fields: &[&str]| {
        let rows: String = fields.iter().map(|field| format!("| `{field}` | x |\n")).collect();
        std::fs::write(&page, format!("## POST /v1/chat/completions\n\n{rows}")).unwrap();
        let args = ["--mutant", "done-missing", "--parameters", page.to_str().unwrap()];
        mutate("mutant:done-missing", "wire: { done: true }", &args)
    };
    proof(&["stream", "messages"]).code(0).stdout(contains("2 of 2 fields missed, 0 problems"));
    let reported = "POST /v1/chat/completions: no scenario misses `user` when it is dropped: ";
    proof(&["stream", "user"]).code(1).stdout(contains(reported).and(contains("1 of 2 fields missed")));
    proof(&["seed"]).code(1).stdout(contains("POST /v1/chat/completions: no scenario sends `seed`"));
    proof(&[]).code(2).stderr(contains("there are no fields"));
}

#[test]
fn unknown_names_are_reported() {
    mutate("", "wire: { done: true }", &["--mutant", "nope"]).code(2).stderr(contains("there is no mutant \"nope\""));
    let reported = contains("the tag mutant:nope names no mutant");
    mutate("mutant:nope", "wire: { done: true }", &["--mutant", "crlf"]).code(1).stdout(reported);
}

#[test]
fn all_mutants_can_be_listed() {
    let list = contains("frame-dropped").and(contains("gzip-unasked"));
    Command::cargo_bin("farllama-check").unwrap().args(["mutate", "--list"]).assert().code(0).stdout(list);
}

#[test]
fn mutants_that_change_nothing_there_can_be_left_out() {
    let args = ["--all", "--reached", "--mutant", "done-missing", "--mutant", "ping-missing"];
    mutate("", "wire: { done: true }", &args)
        .code(0)
        .stdout(contains("1 mutants, 0 unnoticed, 1 more do not concern these scenarios, 0 problems"));
    // Without the flag it is a gap.
    mutate("", "wire: { done: true }", &["--all", "--mutant", "done-missing", "--mutant", "ping-missing"])
        .code(1)
        .stdout(contains("ping-missing: no scenario notices"));
}

#[test]
fn each_tool_notices_the_mutants_that_would_break_it() {
    let persona = |name: &str| {
        let mut command = Command::cargo_bin("farllama-check").unwrap();
        command.args(["mutate", "--persona", name]);
        command.assert()
    };
    persona("codex").code(0).stdout(contains("end-missing").and(contains("0 unnoticed")).and(contains("0 problems")));
    persona("codx").code(2).stderr(contains("did you mean `codex`?"));
}
