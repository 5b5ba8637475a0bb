//! `farllama-check fmt`: formats scenario files.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::Args;

use crate::{
    check::{fmt, load},
    exit::Exit,
    process::print,
};

pub(super) const HELP: &str = "\
Exit codes:
  0  every file is formatted
  1  with --check: a file is not
  2  a file cannot be read or is not YAML";

#[derive(Args, Debug)]
pub(super) struct Flags {
    /// Scenario files, or folders of them
    #[arg(default_value = "scenarios", value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Changes nothing, and lists the files that are not formatted
    #[arg(long)]
    check: bool,
}

pub(super) fn run(flags: &Flags) -> anyhow::Result<ExitCode> {
    let files = load::find(&flags.paths).map_err(|problem| anyhow::anyhow!("{problem}"))?;
    let mut code = Exit::Fit;
    for file in files {
        let shown = file.display();
        let text = std::fs::read_to_string(&file).with_context(|| shown.to_string())?;
        match fmt::format(&text) {
            Ok(formatted) if formatted == text => {}
            Ok(_) if flags.check => {
                print(&format!("{shown} is not formatted\n"));
                code = if code == Exit::Fit { Exit::Unfit } else { code };
            }
            Ok(formatted) => {
                std::fs::write(&file, formatted).with_context(|| shown.to_string())?;
                print(&format!("formatted {shown}\n"));
            }
            Err(why) => {
                eprintln!("farllama-check: {shown}: {why}");
                code = Exit::Unusable;
            }
        }
    }
    Ok(code.into())
}
