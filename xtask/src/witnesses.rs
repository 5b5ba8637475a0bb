//! Foreign clients against the proxy on the mock: the official `openai` and `ollama` Python packages, versions locked.

use std::process::{Command, Stdio};

use crate::{built, root, step::Step};

/// Runs them. Where they cannot run, says so loudly; with `CI=true` that is a failure.
pub(crate) fn run() -> Result<(), String> {
    let venv = root().join("target").join("witnesses");
    let locked = root().join("xtask").join("witnesses");
    if let Err(why) = prepare(&venv, &locked) {
        if std::env::var("CI").is_ok_and(|ci| ci == "true") {
            return Err(format!("the foreign witnesses cannot run: {why}"));
        }
        println!("SKIPPED: the foreign witnesses cannot run here: {why}\n");
        return Ok(());
    }
    Step::cargo("build --quiet -p farllama -p mock-ollama").run()?;
    Step::program(venv.join("bin").join("python"), "target/witnesses/bin/python")
        .arg(locked.join("witness.py"))
        .arg(built("farllama")?)
        .arg(built("mock-ollama")?)
        .run()
}

fn prepare(venv: &std::path::Path, locked: &std::path::Path) -> Result<(), String> {
    let found = Command::new("python3").args(["-c", "import venv, ensurepip"]).stderr(Stdio::null()).status();
    if !found.is_ok_and(|status| status.success()) {
        return Err("python3 with venv is missing (Debian: apt-get install python3-venv)".to_owned());
    }
    if !venv.join("bin").join("python").exists() {
        Step::program("python3", "python3").arg("-m").arg("venv").arg(venv).run()?;
    }
    Step::program(venv.join("bin").join("python"), "target/witnesses/bin/python")
        .arg("-m")
        .arg("pip")
        .arg("install")
        .arg("--quiet")
        .arg("--disable-pip-version-check")
        .arg("-r")
        .arg(locked.join("requirements.txt"))
        .run()
}
