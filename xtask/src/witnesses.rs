//! Foreign clients against the proxy on the mock: the official `openai` and `ollama` Python packages, versions locked.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use crate::{built, root, step::Step};

/// Runs them. Where they cannot run, says so loudly; with `CI=true` that is a failure.
pub(crate) fn run() -> Result<(), String> {
    let venv = root().join("target").join("witnesses");
    if let Err(why) = prepare(&venv) {
        if std::env::var("CI").is_ok_and(|ci| ci == "true") {
            return Err(format!("the foreign witnesses cannot run: {why}"));
        }
        println!("SKIPPED: the foreign witnesses cannot run here: {why}\n");
        return Ok(());
    }
    Step::cargo("build --quiet -p farllama -p mock-ollama").run()?;
    Step::program(venv.join("bin").join("python"), "target/witnesses/bin/python")
        .arg("xtask/witnesses/witness.py")
        .arg(built("farllama")?)
        .arg(built("mock-ollama")?)
        .run()
}

fn prepare(venv: &Path) -> Result<(), String> {
    let found = Command::new("python3").args(["-c", "import venv, ensurepip"]).stderr(Stdio::null()).status();
    if !found.is_ok_and(|status| status.success()) {
        return Err("python3 with venv is missing (Debian: apt-get install python3-venv)".to_owned());
    }
    // Without pip it was cut short, and is made anew.
    if !venv.join("bin").join("pip").exists() {
        Step::program("python3", "python3").arg("-m").arg("venv").arg("--clear").arg(venv).run()?;
    }
    Step::program(venv.join("bin").join("python"), "target/witnesses/bin/python")
        .arg("-m")
        .arg("pip")
        .arg("install")
        .arg("--quiet")
        .arg("--disable-pip-version-check")
        .arg("-r")
        .arg("xtask/witnesses/requirements.txt")
        .run()
}
