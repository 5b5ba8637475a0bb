//! `cargo xtask smoke`: builds, then hands over to `farllama-check smoke` with the built proxy. Flags, help and checks live there.

use std::process::{Command, ExitCode};

use crate::{built, step::Step};

/// What cannot be built cannot be checked.
const UNUSABLE: u8 = 2;

pub(crate) fn run(args: &[String]) -> ExitCode {
    match start(args) {
        Ok(code) => ExitCode::from(code),
        Err(why) => {
            eprintln!("xtask: {why}");
            ExitCode::from(UNUSABLE)
        }
    }
}

fn start(args: &[String]) -> Result<u8, String> {
    Step::cargo("build --quiet -p farllama -p farllama-check").run()?;
    let mut check = Command::new(built("farllama-check")?);
    check.arg("smoke").arg("--proxy-bin").arg(built("farllama")?).args(args);
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
