//! `cargo xtask smoke` and `cargo xtask doctor`: build, then hand over to `farllama-check`. Flags, help and checks live
//! there.

use std::process::{Command, ExitCode};

use crate::{built, step::Step};

/// What cannot be built cannot be checked.
const UNUSABLE: u8 = 2;

/// `farllama-check smoke` with the built proxy.
pub(crate) fn run(args: &[String]) -> ExitCode {
    ended(start("-p farllama -p farllama-check", |check| {
        check.arg("smoke").arg("--proxy-bin").arg(built("farllama")?).args(args);
        Ok(())
    }))
}

/// `farllama-check doctor`.
pub(crate) fn doctor(args: &[String]) -> ExitCode {
    ended(start("-p farllama-check", |check| {
        check.arg("doctor").args(args);
        Ok(())
    }))
}

fn ended(outcome: Result<u8, String>) -> ExitCode {
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(why) => {
            eprintln!("xtask: {why}");
            ExitCode::from(UNUSABLE)
        }
    }
}

fn start(packages: &str, with: impl FnOnce(&mut Command) -> Result<(), String>) -> Result<u8, String> {
    Step::cargo(&format!("build --quiet {packages}")).run()?;
    let mut check = Command::new(built("farllama-check")?);
    with(&mut check)?;
    hand_over(check)
}

/// The check takes this process's place, so that signals and the exit code are its own.
#[cfg(unix)]
fn hand_over(mut check: Command) -> Result<u8, String> {
    use std::os::unix::process::CommandExt;
    Err(format!("cannot start farllama-check: {}", check.exec()))
}

#[cfg(not(unix))]
fn hand_over(mut check: Command) -> Result<u8, String> {
    let status = check.status().map_err(|error| format!("cannot start farllama-check: {error}"))?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}
