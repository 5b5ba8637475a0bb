//! The container backend against a real Docker engine: an image of the mock's own static binary, so that no registry is needed.
//!
//! Without an engine the test says loudly that it did nothing; on CI (`CI=true`) that is a failure.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    env, fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

const DOCKERFILE: &str = "\
FROM scratch
COPY mock-ollama /mock-ollama
EXPOSE 11434
ENTRYPOINT [\"/mock-ollama\", \"--host\", \"0.0.0.0\", \"--port\", \"11434\"]
";

/// Runs a command that must succeed, and gives what it printed.
#[track_caller]
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command:?}\n{}\n{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

fn docker(args: &[&str]) -> Command {
    let mut docker = Command::new("docker");
    // The classic builder: the other one is a plugin of its own.
    docker.args(args).env("DOCKER_BUILDKIT", "0");
    docker
}

fn engine_answers() -> bool {
    docker(&["version"]).output().is_ok_and(|output| output.status.success())
}

/// The mock as a binary that needs no other file, built in a folder of its own.
fn static_mock() -> PathBuf {
    let target = format!("{}-unknown-linux-gnu", env::consts::ARCH);
    let profile = Path::new(env!("CARGO_BIN_EXE_farllama-check")).parent().unwrap();
    let folder = profile.parent().unwrap().join("container");
    let mut cargo = Command::new(env!("CARGO"));
    // Naming the target keeps build scripts and procedural macros out of the static flags.
    cargo.args(["build", "--quiet", "--package", "mock-ollama", "--bin", "mock-ollama", "--target", &target]);
    cargo.arg("--target-dir").arg(&folder).current_dir(env!("CARGO_MANIFEST_DIR"));
    cargo.env("RUSTFLAGS", "-C target-feature=+crt-static").env_remove("CARGO_ENCODED_RUSTFLAGS");
    run(&mut cargo);
    folder.join(target).join("debug/mock-ollama")
}

/// An image that is gone when this is dropped.
struct Image(String);

impl Image {
    fn of(binary: &Path, tag: &str) -> Self {
        let context = tempfile::tempdir().unwrap();
        fs::copy(binary, context.path().join("mock-ollama")).unwrap();
        fs::write(context.path().join("Dockerfile"), DOCKERFILE).unwrap();
        let name = format!("farllama-check-test:{tag}-{}", std::process::id());
        run(docker(&["build", "--quiet", "--tag", &name]).arg(context.path()));
        Self(name)
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // What is left of a failed test stays for whoever looks into it.
        let _ = docker(&["rmi", &self.0]).output();
    }
}

/// Whether there is an engine; without one the test says loudly that it did nothing.
fn engine() -> bool {
    if engine_answers() {
        return true;
    }
    assert!(
        !env::var("CI").is_ok_and(|ci| ci == "true"),
        "no Docker engine answers; on CI (CI=true) this is a failure"
    );
    eprintln!("\n*** SKIPPED: no Docker engine answers, so the container backend was NOT tested ***\n");
    false
}

#[test]
fn scenarios_run_on_an_ollama_in_a_container_which_is_removed_afterwards() {
    if !engine() {
        return;
    }
    let image = Image::of(&static_mock(), "plain");
    let report = tempfile::NamedTempFile::new().unwrap();
    let scenarios = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("scenarios");
    let mut check = Command::new(env!("CARGO_BIN_EXE_farllama-check"));
    check.args(["run", "--backend", "container", "--image", &image.0]).arg(scenarios.join("smoke"));
    check.arg(scenarios.join("tools/round.yaml")).arg(scenarios.join("tools/call.yaml"));
    check.arg("--json").arg(report.path());
    let told = run(&mut check);
    let report: serde_json::Value = serde_json::from_slice(&fs::read(report.path()).unwrap()).unwrap();
    assert_eq!(report["container"].as_str().map(str::len), Some(64), "{report:#}");
    assert!(told.contains(&format!("on a container of {}", image.0)), "{told}");
    assert!(told.contains("it needs script, which a container of"), "{told}");
    assert!(told.ends_with("5 passed, 0 failed, 1 skipped\n"), "{told}");
    let left = run(&mut docker(&["ps", "--all", "--quiet", "--filter", &format!("ancestor={}", image.0)]));
    assert_eq!(left, "", "the container is still there");
}

const FIRST: &str = "title: the first\nsteps:\n  - call: models\n    expect: { $.object: list }\n";
/// Longer than it takes to kill a container.
const LONG: &str = "title: the long one\nsteps:\n  - call: { http: { path: /api/version } }\n    wire: { status: 200 }\n    repeat: { times: 1000 }\n  - call: { http: { path: /api/version } }\n    wire: { status: 200 }\n    repeat: { times: 1000 }\n  - call: { http: { path: /api/version } }\n    wire: { status: 200 }\n    repeat: { times: 1000 }\n";

#[test]
fn a_container_that_is_killed_in_mid_run_makes_scenarios_broken() {
    if !engine() {
        return;
    }
    let image = Image::of(&static_mock(), "killed");
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.yaml"), FIRST).unwrap();
    fs::write(folder.path().join("b.yaml"), LONG).unwrap();
    let mut check = Command::new(env!("CARGO_BIN_EXE_farllama-check"));
    check.args(["run", ".", "--backend", "container", "--jobs", "1", "--image", &image.0]);
    let mut check = check.current_dir(folder.path()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(check.stdout.take().unwrap()).lines().map(Result::unwrap);
    let first = lines.next().unwrap();
    assert!(first.contains("the first"), "{first}");
    let id = run(&mut docker(&["ps", "--quiet", "--filter", &format!("ancestor={}", image.0)]));
    run(&mut docker(&["kill", id.trim()]));
    let rest: Vec<String> = lines.collect();
    let rest = rest.join("\n");
    assert_eq!(check.wait().unwrap().code(), Some(2), "{rest}");
    assert!(rest.contains("BROKEN") && rest.contains("has ended in mid-run"), "{rest}");
    assert!(rest.ends_with("1 passed, 1 failed, 0 skipped"), "{rest}");
}
