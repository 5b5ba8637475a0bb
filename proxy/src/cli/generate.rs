//! Shell completions and manual pages, made from the command itself.

use std::path::{Path, PathBuf};

use clap::{Arg, ArgMatches, Command};
use clap_complete::Shell;

/// The commands: `completions` and, for packagers, `man`.
pub(super) fn commands() -> [Command; 2] {
    let shell = Arg::new("shell").value_name("SHELL").required(true).value_parser(clap::value_parser!(Shell));
    let dir = Arg::new("dir").value_name("DIR").required(true).value_parser(clap::value_parser!(PathBuf));
    [
        Command::new("completions")
            .about("Print completions for a shell")
            .arg(shell)
            .after_help("Example:\n  farllama completions bash > ~/.local/share/bash-completion/completions/farllama"),
        Command::new("man").about("Write the manual pages to a folder").arg(dir),
    ]
    .map(|command| command.hide(true))
}

/// The whole command, with what `-h` leaves out.
fn whole() -> Command {
    super::command().mut_subcommands(|command| {
        let is_internal = command.get_name() == "man";
        command.hide(is_internal)
    })
}

/// Prints completions or writes manual pages, as the command line says.
///
/// # Errors
/// Fails if the pages cannot be written.
pub(crate) fn run(matches: &ArgMatches) -> Result<String, String> {
    let Some((_, leaf)) = matches.subcommand() else { return Ok(String::new()) };
    if let Ok(Some(shell)) = leaf.try_get_one::<Shell>("shell") {
        let mut text = Vec::new();
        clap_complete::generate(*shell, &mut whole(), "farllama", &mut text);
        return Ok(String::from_utf8_lossy(&text).into_owned());
    }
    let dir = leaf.get_one::<PathBuf>("dir").map_or(Path::new("."), PathBuf::as_path);
    let written = std::fs::create_dir_all(dir).and_then(|()| clap_mangen::generate_to(whole(), dir));
    written.map(|()| String::new()).map_err(|error| format!("cannot write manual pages to {}: {error}", dir.display()))
}
