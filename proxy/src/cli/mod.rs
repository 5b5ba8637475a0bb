//! The command line: `serve`, `config show`, `config check`, and a flag for every setting.

pub(crate) mod log_writer;
pub(crate) mod startup;

use std::{ffi::OsString, path::PathBuf};

use clap::{
    Arg, ArgAction, ArgMatches, Command,
    builder::{PossibleValue, PossibleValuesParser},
};
use farllama::config::{SETTINGS, Sources};

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    /// Run the proxy.
    Serve,
    /// Print the settings in force.
    ConfigShow,
    /// Check the settings.
    ConfigCheck,
    /// Make a key for a caller.
    KeyNew,
    /// Show what Ollama would be asked.
    Explain,
}

const EXAMPLES: &str = "\
Examples:
  farllama serve --remote-host gpu-box
      a local Ollama on 127.0.0.1:11434, and OpenAI's API on http://127.0.0.1:11434/v1, in front of the Ollama on gpu-box:11434
  farllama serve --remote-host https://ollama.example/prefix --remote-api-key KEY
      the same in front of a gateway with TLS and a key
  farllama serve --local-port 18000 --remote-host gpu-box --verbose
      beside a local Ollama, showing payloads

Settings come from a file, then from FARLLAMA_… variables, then from flags; a later one wins. See `farllama config show`.";

/// The flag that may be given several times: a header each.
const HEADERS: &str = "remote.headers";

/// The whole command.
pub(crate) fn command() -> Command {
    let settings: Vec<Arg> = SETTINGS
        .iter()
        .map(|setting| {
            let arg = Arg::new(setting.key)
                .long(setting.flag())
                .value_name(setting.takes)
                .help(format!("{} [{}]", setting.help, setting.variable()))
                .global(true)
                .help_heading("Settings");
            match setting.key {
                "log.format" => arg.visible_alias("log"),
                HEADERS => arg.action(ArgAction::Append),
                _ => arg,
            }
        })
        .collect();
    Command::new("farllama")
        .version(env!("CARGO_PKG_VERSION"))
        .about("A local Ollama and an OpenAI server in front of a remote Ollama")
        .after_help(EXAMPLES)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .arg(
            Arg::new("config")
                .long("config")
                .value_name("FILE")
                .value_parser(clap::value_parser!(PathBuf))
                .help("The settings file [FARLLAMA_CONFIG; default: ~/.config/farllama/config.toml, if it is there]")
                .global(true),
        )
        .arg(
            Arg::new("verbose")
                .long("verbose")
                .short('v')
                .action(ArgAction::SetTrue)
                .help("Shows payload snippets and each SSE frame, keys masked (--log-level debug)")
                .global(true),
        )
        .args(settings)
        .subcommand(
            Command::new("serve")
                .about("Runs the proxy until it is told to stop (Ctrl-C, SIGTERM)")
                .after_help(EXAMPLES),
        )
        .subcommand(
            Command::new("key")
                .about("Makes keys for callers")
                .subcommand_required(true)
                .arg_required_else_help(true)
                .subcommand(
                    Command::new("new")
                        .about("Prints a new key, once, and the line for auth.tokens that knows it by its digest"),
                ),
        )
        .subcommand(
            Command::new("explain")
                .about("Shows what Ollama would be asked for an OpenAI request, and what becomes of its fields; asks nobody, unless told to")
                .arg(
                    Arg::new("file")
                        .value_name("FILE")
                        .value_parser(clap::value_parser!(PathBuf))
                        .help("The request's body; standard input if there is none"),
                )
                .arg(
                    Arg::new("endpoint")
                        .long("endpoint")
                        .value_name("NAME")
                        .value_parser(PossibleValuesParser::new(endpoints()))
                        .help("What the request is for; found from its fields unless told"),
                )
                .arg(Arg::new("curl").long("curl").action(ArgAction::SetTrue).help("Prints curl commands instead of JSON; never a key"))
                .arg(
                    Arg::new("loaded")
                        .long("loaded")
                        .action(ArgAction::SetTrue)
                        .help("Compares with what the remote has loaded, and with its version; so does naming --remote-host"),
                ),
        )
        .subcommand(
            Command::new("config")
                .about("Shows or checks the settings")
                .subcommand_required(true)
                .arg_required_else_help(true)
                .subcommand(
                    Command::new("show")
                        .about("Prints the settings in force and where each came from; secrets are masked"),
                )
                .subcommand(
                    Command::new("check").about("Checks the settings: exit code 0 if they can be used, 2 if not"),
                ),
        )
}

/// What the command line says: what to do, and where the settings come from.
pub(crate) fn read(matches: &ArgMatches, environment: Vec<(String, String)>) -> (Verb, Sources) {
    let (verb, leaf) = match matches.subcommand() {
        Some(("config", inner)) => match inner.subcommand() {
            Some(("show", leaf)) => (Verb::ConfigShow, leaf),
            Some((_, leaf)) => (Verb::ConfigCheck, leaf),
            None => (Verb::ConfigCheck, inner),
        },
        Some(("key", inner)) => (Verb::KeyNew, inner.subcommand().map_or(inner, |(_, leaf)| leaf)),
        Some(("explain", leaf)) => (Verb::Explain, leaf),
        Some((_, leaf)) => (Verb::Serve, leaf),
        None => (Verb::Serve, matches),
    };
    let mut flags: Vec<(&'static str, String)> = Vec::new();
    if leaf.get_flag("verbose") {
        flags.push(("log.level", "debug".to_owned()));
    }
    for setting in SETTINGS {
        let values: Vec<&str> =
            leaf.get_many::<String>(setting.key).into_iter().flatten().map(String::as_str).collect();
        if !values.is_empty() {
            flags.push((setting.key, values.join("\n")));
        }
    }
    let variable =
        |name: &str| environment.iter().find(|(known, _)| known == name).map(|(_, value)| PathBuf::from(value));
    let home = variable("XDG_CONFIG_HOME").or_else(|| variable("HOME").map(|home| home.join(".config")));
    let sources = Sources {
        file: leaf.get_one::<PathBuf>("config").cloned().or_else(|| variable("FARLLAMA_CONFIG")),
        usual_file: home.map(|folder| folder.join("farllama").join("config.toml")),
        environment,
        flags,
    };
    (verb, sources)
}

/// What `explain` was given.
#[derive(Debug, Default)]
pub(crate) struct Explain {
    /// Where the body is; absent: standard input.
    pub(crate) file: Option<PathBuf>,
    /// One of [`farllama::endpoints`].
    pub(crate) endpoint: Option<String>,
    /// Whether curl commands are wanted.
    pub(crate) curl: bool,
    /// Whether the remote is to be asked.
    pub(crate) loaded: bool,
}

/// What `explain` was given.
pub(crate) fn explained(matches: &ArgMatches, sources: &Sources) -> Explain {
    let Some(leaf) = matches.subcommand_matches("explain") else { return Explain::default() };
    Explain {
        file: leaf.get_one::<PathBuf>("file").cloned(),
        endpoint: leaf.get_one::<String>("endpoint").cloned(),
        curl: leaf.get_flag("curl"),
        loaded: leaf.get_flag("loaded") || sources.flags.iter().any(|(key, _)| *key == "remote.host"),
    }
}

/// The environment as text.
///
/// # Errors
/// A variable of ours is no UTF-8. Those of others do not matter.
pub(crate) fn environment(
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> Result<Vec<(String, String)>, String> {
    let mut texts = Vec::new();
    for (name, value) in variables {
        match (name.into_string(), value.into_string()) {
            (Ok(name), Ok(value)) => texts.push((name, value)),
            (Ok(name), Err(_)) if name.starts_with("FARLLAMA_") => {
                return Err(format!("{name}: its value is no UTF-8"));
            }
            _ => {}
        }
    }
    Ok(texts)
}

/// The values of `explain --endpoint`, each with what it is for.
fn endpoints() -> impl Iterator<Item = PossibleValue> {
    farllama::endpoints().into_iter().map(|(name, summary)| PossibleValue::new(name).help(summary))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_is_well_formed() {
        command().debug_assert();
    }

    #[test]
    fn flags_may_stand_before_or_after_the_verb() {
        for args in [["farllama", "--local-port", "1", "serve"], ["farllama", "serve", "--local-port", "1"]] {
            let (verb, sources) = read(&command().try_get_matches_from(args).unwrap(), Vec::new());
            assert_eq!((verb, sources.flags), (Verb::Serve, vec![("local.port", "1".to_owned())]));
        }
    }
}
