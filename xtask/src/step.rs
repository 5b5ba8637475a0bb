//! One step: the plain command that it runs, its time, and whether it passed.

use std::{
    ffi::OsStr,
    process::{Command, Stdio},
    time::Instant,
};

/// A command to run from the repository's folder.
#[derive(Debug)]
pub(crate) struct Step {
    command: Command,
    shown: String,
}

impl Step {
    /// `cargo` with words, as one writes them.
    pub(crate) fn cargo(words: &str) -> Self {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut step = Self::program(cargo, "cargo");
        for word in words.split_whitespace() {
            step = step.arg(word);
        }
        step
    }

    /// A binary of this workspace.
    ///
    /// # Errors
    /// It is not built.
    pub(crate) fn built(name: &str) -> Result<Self, String> {
        let path = crate::built(name)?;
        Ok(Self::program(&path, &path.strip_prefix(crate::root()).unwrap_or(&path).to_string_lossy()))
    }

    /// Any program; `shown` is how a person would write it.
    pub(crate) fn program(program: impl AsRef<OsStr>, shown: &str) -> Self {
        let mut command = Command::new(program);
        command.current_dir(crate::root()).stdin(Stdio::null());
        Self { command, shown: shown.to_owned() }
    }

    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.shown.push(' ');
        self.shown.push_str(&arg.as_ref().to_string_lossy());
        self.command.arg(arg);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.shown = format!("{name}={value:?} {}", self.shown);
        self.command.env(name, value);
        self
    }

    /// Runs it.
    ///
    /// # Errors
    /// It cannot be started, or says that it failed.
    pub(crate) fn run(mut self) -> Result<(), String> {
        timed(&self.shown, || {
            let status = self.command.status().map_err(|error| format!("cannot start `{}`: {error}", self.shown))?;
            if status.success() { Ok(()) } else { Err(format!("failed ({status}): {}", self.shown)) }
        })
    }
}

/// Shows the command that `work` stands for, and how long it took.
pub(crate) fn timed(shown: &str, work: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    println!("$ {shown}");
    let start = Instant::now();
    work()?;
    println!("  {:.1} s\n", start.elapsed().as_secs_f64());
    Ok(())
}
