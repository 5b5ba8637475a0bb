//! The container backend against a real Docker engine: an image of the mock's own static binary, so that no registry is
//! needed.
//!
//! Without an engine the test says loudly that it did nothing; on CI (`CI=true`) that is a failure.

#![cfg(all(target_os = "linux", feature = "container"))]

use std::{
    env, fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::LazyLock,
};

const DOCKERFILE: &str = "\
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

/// The static mock is built once for all tests.
static MOCK: LazyLock<PathBuf> = LazyLock::new(static_mock);

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
    /// The mock, with these flags.
    fn of(tag: &str, flags: &[&str]) -> Self {
        let context = tempfile::tempdir().unwrap();
        fs::copy(&*MOCK, context.path().join("mock-ollama")).unwrap();
        // An id of its own, by which its containers differ from those of other tests and of earlier runs. It comes
        // first, so that no layer is shared: one that another test removes would be missing in the middle of a build.
        let text = format!("FROM scratch\nLABEL test={tag}-{}\n{DOCKERFILE}CMD {flags:?}\n", std::process::id());
        fs::write(context.path().join("Dockerfile"), text).unwrap();
        let name = format!("farllama-check-test:{tag}-{}", std::process::id());
        run(docker(&["build", "--quiet", "--tag", &name]).arg(context.path()));
        Self(name)
    }

    /// The ids of all containers of it, running or not.
    fn containers(&self) -> String {
        let filter = format!("ancestor={}", self.0);
        run(&mut docker(&["ps", "--all", "--quiet", "--filter", &filter])).trim().to_owned()
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // What is left of a failed test stays for inspection.
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
    let image = Image::of("plain", &[]);
    let report = tempfile::NamedTempFile::new().unwrap();
    let scenarios = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("scenarios");
    let mut check = Command::new(env!("CARGO_BIN_EXE_farllama-check"));
    check.args(["run", "--backend", "container", "--image", &image.0]).arg(scenarios.join("smoke"));
    check.arg(scenarios.join("tools/round.yaml")).arg(scenarios.join("tools/call.yaml"));
    check.arg("--json").arg(report.path());
    let reported = run(&mut check);
    let report: serde_json::Value = serde_json::from_slice(&fs::read(report.path()).unwrap()).unwrap();
    assert_eq!(report["container"].as_str().map(str::len), Some(64), "{report:#}");
    assert!(reported.contains(&format!("on a container of {}", image.0)), "{reported}");
    assert!(reported.contains("it needs script, which a container of"), "{reported}");
    assert!(reported.ends_with("5 passed, 0 failed, 1 skipped\n"), "{reported}");
    assert_eq!(image.containers(), "", "the container is still there");
}

const FIRST: &str = "title: the first\nsteps:\n  - call: models\n    expect: { $.object: list }\n";
/// Longer than it takes to kill a container.
const LONG: &str = "title: the long one\nsteps:\n  - call: { http: { path: /api/version } }\n    wire: { status: 200 }\n    repeat: { times: 1000 }\n  - call: { http: { path: /api/version } }\n    wire: { status: 200 }\n    repeat: { times: 1000 }\n  - call: { http: { path: /api/version } }\n    wire: { status: 200 }\n    repeat: { times: 1000 }\n";

#[test]
fn a_container_that_is_killed_in_mid_run_makes_scenarios_broken() {
    if !engine() {
        return;
    }
    let image = Image::of("killed", &[]);
    let folder = tempfile::tempdir().unwrap();
    let mut check = check_in(folder.path(), &image).spawn().unwrap();
    let mut lines = BufReader::new(check.stdout.take().unwrap()).lines().map(Result::unwrap);
    let first = lines.next().unwrap();
    assert!(first.contains("the first"), "{first}");
    run(&mut docker(&["kill", &image.containers()]));
    let rest: Vec<String> = lines.collect();
    let rest = rest.join("\n");
    assert_eq!(check.wait().unwrap().code(), Some(2), "{rest}");
    assert!(rest.contains("BROKEN") && rest.contains("ended during the run"), "{rest}");
    assert!(rest.ends_with("1 passed, 0 failed, 1 broken, 0 skipped"), "{rest}");
}

/// A run in a folder with [`FIRST`] and [`LONG`], whose lines can be read as they come.
fn check_in(folder: &Path, image: &Image) -> Command {
    fs::write(folder.join("a.yaml"), FIRST).unwrap();
    fs::write(folder.join("b.yaml"), LONG).unwrap();
    let mut check = Command::new(env!("CARGO_BIN_EXE_farllama-check"));
    check.args(["run", ".", "--backend", "container", "--jobs", "1", "--image", &image.0]).current_dir(folder);
    check.stdout(Stdio::piped()).stderr(Stdio::piped());
    check
}

/// Interrupts a process, as Ctrl-C does.
fn interrupt(pid: u32) {
    run(Command::new("kill").args(["-INT", &pid.to_string()]));
}

const CHAT: &str = "title: it chats\nsteps:\n  - call: { chat: { model: \"${model}\", messages: [{ role: user, content: hi }] } }\n    expect: { $.model: \"${model}\" }\n";

#[test]
fn a_model_that_is_not_there_is_pulled_and_how_far_it_is_is_reported() {
    if !engine() {
        return;
    }
    let image = Image::of("pull", &["--stock", "empty"]);
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.yaml"), CHAT).unwrap();
    let check = |model: &str| {
        let mut check = Command::new(env!("CARGO_BIN_EXE_farllama-check"));
        check.args(["run", ".", "--backend", "container", "--image", &image.0, "--pull", "--model", model]);
        let output = check.current_dir(folder.path()).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, reported, progress) = check("llama3.2:1b");
    assert_eq!(code, Some(0), "{reported}{progress}");
    assert!(reported.ends_with("1 passed, 0 failed, 0 skipped\n"), "{reported}");
    assert!(progress.contains("pulling llama3.2:1b\n") && progress.contains(" % of 102 MB\n"), "{progress}");
    let (code, reported, _) = check("nothing-such");
    assert_eq!(code, Some(2), "{reported}");
    assert!(reported.contains("nothing-such cannot be pulled: pull model manifest: file does not exist"), "{reported}");
    assert_eq!(image.containers(), "", "a container is still there");
}

/// A volume that is gone when this is dropped.
struct Volume(String);

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = docker(&["volume", "rm", &self.0]).output();
    }
}

#[test]
fn models_are_kept_in_a_volume_that_outlives_a_run_that_is_interrupted() {
    if !engine() {
        return;
    }
    let image = Image::of("volume", &[]);
    let folder = tempfile::tempdir().unwrap();
    let volume = Volume(format!("farllama-check-test-{}", std::process::id()));
    let mut check = check_in(folder.path(), &image);
    check.args(["--volume", &volume.0, "--pull", "--model", "smollm2:135m"]);
    let mut check = check.spawn().unwrap();
    let mut lines = BufReader::new(check.stdout.take().unwrap()).lines().map(Result::unwrap);
    let first = lines.next().unwrap();
    assert!(first.contains("the first"), "{first}");
    let id = image.containers();
    let seen = run(&mut docker(&["inspect", &id]));
    let seen: serde_json::Value = serde_json::from_str(&seen).unwrap();
    let mount = &seen[0]["Mounts"][0];
    assert_eq!((mount["Name"].as_str(), mount["Destination"].as_str()), (Some(&*volume.0), Some("/models")), "{mount}");
    let env = seen[0]["Config"]["Env"].as_array().unwrap();
    assert!(env.iter().any(|env| env == "OLLAMA_MODELS=/models"), "{env:?}");
    interrupt(check.id());
    let output = check.wait_with_output().unwrap();
    let reported = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{reported}");
    assert!(reported.contains("smollm2:135m is there already\n") && reported.ends_with("interrupted\n"), "{reported}");
    assert_eq!(image.containers(), "", "the container is still there\n{reported}");
    run(&mut docker(&["volume", "inspect", &volume.0]));
}

#[test]
fn a_container_that_is_not_ready_yet_is_removed_when_the_run_is_interrupted() {
    if !engine() {
        return;
    }
    // It listens on another port.
    let image = Image::of("deaf", &["--port", "11999"]);
    let folder = tempfile::tempdir().unwrap();
    let check = check_in(folder.path(), &image).spawn().unwrap();
    // Its own container by its name: a signal that comes before the run has begun interrupts nothing.
    let name = format!("name=farllama-check-{}-", check.id());
    while run(&mut docker(&["ps", "--all", "--quiet", "--filter", &name])).trim().is_empty() {
        std::thread::yield_now();
    }
    interrupt(check.id());
    let output = check.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    assert_eq!(image.containers(), "", "the container is still there");
}

#[test]
fn a_container_that_ends_at_once_is_reported_with_its_last_words() {
    if !engine() {
        return;
    }
    let image = Image::of("ends", &["--no-such-flag"]);
    let folder = tempfile::tempdir().unwrap();
    let output = check_in(folder.path(), &image).output().unwrap();
    let reported = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(2), "{reported}");
    assert!(reported.contains("it has ended; it said: ") && reported.contains("--no-such-flag"), "{reported}");
    assert_eq!(image.containers(), "", "the container is still there");
}
