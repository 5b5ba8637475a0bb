//! `cargo xtask` as a person meets it.

use assert_cmd::Command;
use predicates::{prelude::PredicateBooleanExt, str::contains};

fn xtask(args: &[&str]) -> Command {
    let mut command = Command::cargo_bin("xtask").unwrap();
    command.args(args);
    command
}

#[test]
fn help_lists_the_commands() {
    xtask(&["help"])
        .assert()
        .success()
        .stdout(contains("smoke").and(contains("ci")).and(contains("tidy")).and(contains("bless")));
    xtask(&[]).assert().success().stdout(contains("Commands:"));
}

#[test]
fn an_unknown_command_is_named_and_exits_with_2() {
    xtask(&["smok"]).assert().code(2).stderr(contains("\"smok\"").and(contains("Commands:")));
}

#[test]
fn the_repository_is_tidy() {
    xtask(&["tidy"]).assert().success().stdout(contains("rules hold"));
}
