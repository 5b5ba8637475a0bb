//! The examples of docs/mock.md do what they say, in each language.
//!
//! A language that is missing here is reported as skipped; on CI (`CI=true`) that is a failure.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/mock.md");
    fs::read_to_string(path).unwrap()
}

/// The block of the page in a language.
fn block(language: &str) -> String {
    let page = page();
    let start = format!("\n```{language}\n");
    let block = page.split(&start).nth(1).unwrap_or_else(|| panic!("docs/mock.md has no {language} block"));
    block.split("\n```\n").next().unwrap().to_owned() + "\n"
}

/// Runs the block of a language, with the mock on the PATH.
fn run(language: &str, file: &str, program: &str, args: &[&str]) {
    let is_there = |program: &str| {
        let version = if program == "go" { "version" } else { "--version" };
        let status = Command::new(program).arg(version).stdout(Stdio::null()).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    if !is_there(program) {
        assert!(env::var("CI").as_deref() != Ok("true"), "{program} is missing");
        eprintln!("\n*** SKIPPED: {program} is missing, so the {language} example of docs/mock.md was NOT run ***\n");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(file), block(language)).unwrap();
    let mock = PathBuf::from(env!("CARGO_BIN_EXE_mock-ollama"));
    let mut path = vec![mock.parent().unwrap().to_owned()];
    path.extend(env::split_paths(&env::var_os("PATH").unwrap()));
    let output = Command::new(program)
        .args(args)
        .arg(file)
        .current_dir(folder.path())
        .env("PATH", env::join_paths(path).unwrap())
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out == "ok\n", "{language}: {}\n{out}\n{err}", output.status);
}

#[test]
fn the_python_example_runs() {
    run("python", "example.py", "python3", &[]);
}

#[test]
fn the_javascript_example_runs() {
    run("js", "example.mjs", "node", &[]);
}

#[test]
fn the_go_example_runs() {
    run("go", "example.go", "go", &["run"]);
}

#[test]
fn the_rust_example_is_the_one_that_is_built_and_it_runs() {
    let example = include_str!("../examples/in_a_test.rs");
    let code = example.split_once("\n\n").unwrap().1;
    assert_eq!(block("rust"), code);
    // Built by an ordinary `cargo test`, but not if one test file is chosen.
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["run", "--quiet", "--package", "mock-ollama", "--example", "in_a_test"]);
    let output = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "ok\n");
}

#[test]
fn the_script_of_the_page_is_one() {
    let script: mock_ollama::Script = serde_json::from_str(&block("json")).unwrap();
    assert_eq!(script.rules.len(), 2);
}

#[test]
fn the_flags_of_the_page_exist() {
    let help = Command::new(env!("CARGO_BIN_EXE_mock-ollama")).arg("--help").output().unwrap();
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    let page = page();
    let flags = page.lines().filter_map(|line| line.strip_prefix("| `--")?.split([' ', '`']).next());
    let flags: Vec<&str> = flags.collect();
    assert!(flags.len() >= 6, "{flags:?}");
    for flag in flags {
        assert!(help.contains(&format!("--{flag}")), "--{flag}");
    }
}
