//! `farllama-check init`: a first scenario to start from.

use std::{fs, io::Write, path::PathBuf, process::ExitCode};

use anyhow::{Context, bail};
use clap::Args;

use crate::process::print;

/// The first scenario.
pub(super) const FIRST: &str = include_str!("first.yaml");

#[derive(Args, Debug)]
pub(super) struct Flags {
    /// The file to write
    #[arg(default_value = "scenarios/first.yaml", value_name = "FILE")]
    file: PathBuf,
}

pub(super) fn run(flags: &Flags) -> anyhow::Result<ExitCode> {
    let file = &flags.file;
    if let Some(folder) = file.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    let created = fs::File::options().write(true).create_new(true).open(file);
    match created {
        Ok(mut created) => created.write_all(FIRST.as_bytes()).with_context(|| file.display().to_string())?,
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            bail!("{} exists already; name another file: farllama-check init FILE", file.display())
        }
        Err(error) => return Err(error).with_context(|| file.display().to_string()),
    }
    let file = file.display();
    print(&format!(
        "wrote {file}\n\nTry it on the built-in mock:\n  farllama-check run {file}\nThen on your server:\n  farllama-check run {file} --base-url http://127.0.0.1:8000/v1 --model NAME\n"
    ));
    Ok(ExitCode::SUCCESS)
}
