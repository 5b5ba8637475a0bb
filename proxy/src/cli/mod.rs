//! The command line: the commands, and a flag for every setting.

pub(crate) mod control;
pub(crate) mod generate;
pub(crate) mod keys;
pub(crate) mod keys_file;
pub(crate) mod log_writer;
pub(crate) mod process;
pub(crate) mod remote;
pub(crate) mod setup;
pub(crate) mod startup;

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use clap::{
    Arg, ArgAction, ArgMatches, Command,
    builder::{PossibleValue, PossibleValuesParser},
    error::ErrorKind,
};
use farllama::config::{SECTIONS, SETTINGS, Setting, Sources};

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    /// Run the proxy.
    Serve,
    /// Make a running proxy read its settings again.
    Reload,
    /// Print the settings in force.
    ConfigShow,
    /// Check the settings.
    ConfigCheck,
    /// Create a key for a caller.
    KeyNew,
    /// List the keys.
    KeyList,
    /// Remove a key.
    KeyRevoke,
    /// Show what Ollama would be asked.
    Explain,
    /// Configure a tool for the proxy.
    Setup,
    /// Steer a running proxy over its admin API.
    Control,
    /// Print completions or write manual pages.
    Generate,
}

const EXAMPLES: &str = "\
Examples:
  farllama serve gpu-box
      in front of the Ollama on gpu-box:11434: Ollama's API on http://127.0.0.1:11434, OpenAI's on http://127.0.0.1:11434/v1
  farllama serve https://ollama.example/prefix --remote-api-key KEY
      in front of a gateway with TLS and a key
  farllama serve gpu-box --port 18000 --context-max 65536 --verbose
      beside an Ollama on this machine, with room for an agent's prompts, showing payloads";

/// What follows the flags in `-h`, which fits on one screen.
const SHORT: &str = "\
Examples:
  farllama serve gpu-box
  farllama serve https://ollama.example/prefix --remote-api-key KEY
  farllama serve gpu-box --port 18000 --context-max 65536 --verbose

All settings: farllama serve --help. Those in force: farllama config show.
A running one: farllama stop|start|restart|remote|remotes|logs|requests|top";

/// The commands that `-h` leaves out.
const STEERING: &str = "\
`farllama start`, `stop`, `restart`, `remote`, `remotes`, `logs`, `requests`, `top` and `inspect` steer a running one.";

const SOURCES: &str = "\
Settings come from a file, then from FARLLAMA_… variables, then from flags; a later source wins.
`farllama config show` prints the settings in force and where each comes from.";

/// The flag that may be repeated: one header each.
const HEADERS: &str = "remote.headers";

/// The settings that `-h` shows, each in a few words: one line each on a terminal of 80 columns.
const COMMON: [(&str, &str); 8] = [
    ("remote.host", "Where Ollama runs: a name, host:port or a URL"),
    ("remote.api_key", "API key that the remote requires"),
    ("local.host", "Address to listen on"),
    ("local.port", "Port to listen on"),
    ("local.public", "Allow a public address without keys"),
    ("context.max", "Grow contexts up to this size for long prompts"),
    ("auth.enabled", "Require a key for every request"),
    ("log.format", "Format of log lines"),
];

/// Other names of a setting's flag: those that people try first, and old ones.
fn aliases(key: &str) -> &'static [&'static str] {
    match key {
        "local.host" => &["host", "listen"],
        "local.port" => &["port"],
        "remote.host" => &["remote", "ollama-host"],
        "remote.api_key" => &["api-key"],
        "auth.keys" => &["auth-tokens"],
        "log.format" => &["log"],
        _ => &[],
    }
}

/// The lines of the smallest usual terminal.
const SCREEN: usize = 24;

/// The settings that `farllama -h` shows, the most useful first: as many as fit.
const ON_SCREEN: [&str; 7] =
    ["remote.host", "local.port", "context.max", "local.host", "auth.enabled", "remote.api_key", "log.format"];

/// `farllama -h` on one screen: examples, the commands, and the flags that people use most.
fn screen() -> String {
    let command = command();
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let mut lines = vec![
        about,
        "Usage: farllama COMMAND [OPTIONS]".to_owned(),
        String::new(),
        "Examples:".to_owned(),
        "  farllama serve gpu-box".to_owned(),
        "  farllama serve https://ollama.example/prefix --remote-api-key KEY".to_owned(),
        String::new(),
        "Commands:".to_owned(),
    ];
    for command in command.get_subcommands().filter(|command| !command.is_hide_set()) {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        lines.push(format!("  {:8} {about}", command.get_name()));
    }
    let last = [
        "A running one: farllama start|stop|restart|remote|logs|requests|top|inspect",
        "Everything: farllama --help. Of one command: farllama COMMAND -h. Version: -V",
    ];
    lines.push("Options:".to_owned());
    let flags = ON_SCREEN.iter().filter_map(|key| {
        let setting = SETTINGS.iter().find(|setting| setting.key == *key)?;
        let (_, short) = COMMON.iter().find(|(common, _)| common == key)?;
        let value = if setting.is_flag() { "[=<BOOL>]".to_owned() } else { format!(" <{}>", setting.takes) };
        Some((format!("--{}{value}", setting.flag()), *short))
    });
    let file = ("--config <FILE>".to_owned(), "The settings file");
    let left = SCREEN.saturating_sub(lines.len() + last.len());
    for (flag, short) in std::iter::once(file).chain(flags).take(left) {
        lines.push(format!("  {flag:26} {short}"));
    }
    lines.extend(last.map(str::to_owned));
    lines.join("\n") + "\n"
}

/// Aliases that help texts show.
const SHOWN_ALIASES: [&str; 3] = ["host", "port", "log"];

/// How much of the settings the help of a command shows.
#[derive(Clone, Copy, PartialEq)]
enum Shown {
    /// The common ones in `-h`, all in `--help`.
    All,
    /// None: they are accepted, but the command is about something else.
    Nothing,
}

fn setting_flag(setting: &'static Setting, shown: Shown) -> Arg {
    let common = COMMON.iter().find(|(key, _)| *key == setting.key).map(|(_, short)| *short);
    let title = SECTIONS.iter().find(|(name, _)| *name == setting.section()).map_or("", |(_, title)| title);
    let arg = Arg::new(setting.key)
        .long(setting.flag())
        .value_name(if setting.is_flag() { "BOOL" } else { setting.takes })
        .help(common.unwrap_or(setting.help))
        .long_help(format!("{} [{}]", setting.help, setting.variable()))
        .help_heading(common.is_none().then_some(title))
        .hide(shown == Shown::Nothing)
        .hide_short_help(common.is_none());
    let arg = aliases(setting.key).iter().fold(arg, |arg, alias| {
        if SHOWN_ALIASES.contains(alias) { arg.visible_alias(*alias) } else { arg.alias(*alias) }
    });
    if setting.is_flag() {
        // `--local-public serve` must not take the command for its value; see `join_booleans`.
        return arg.num_args(0..=1).require_equals(true).default_missing_value("true");
    }
    if setting.key == HEADERS { arg.action(ArgAction::Append) } else { arg }
}

fn file_flag() -> Arg {
    Arg::new("config")
        .long("config")
        .value_name("FILE")
        .value_parser(clap::value_parser!(PathBuf))
        .help("The settings file")
        .long_help("The settings file [FARLLAMA_CONFIG; default: ~/.config/farllama/config.toml, if it exists]")
}

/// The flags that every command with settings takes.
fn with_settings(command: Command, shown: Shown) -> Command {
    let verbose = Arg::new("verbose")
        .long("verbose")
        .short('v')
        .alias("debug")
        .action(ArgAction::SetTrue)
        .help("Log payloads and SSE frames, keys masked")
        .long_help("Log payload snippets and each SSE frame, keys masked (as --log-level debug)");
    command
        .arg(file_flag())
        .arg(verbose.hide(shown == Shown::Nothing))
        .args(SETTINGS.iter().map(move |setting| setting_flag(setting, shown)))
}

/// The whole command.
pub(crate) fn command() -> Command {
    let group = |command: Command| command.subcommand_required(true).arg_required_else_help(true);
    let about = "A local Ollama and an OpenAI server in front of a remote Ollama";
    let root = group(Command::new("farllama").version(env!("CARGO_PKG_VERSION")).about(about));
    let file_only = |command: Command| command.arg(file_flag());
    with_settings(root, Shown::All)
        .after_help(SHORT)
        .after_long_help(format!("{EXAMPLES}\n\n{SOURCES}\n\n{STEERING}"))
        .subcommand(
            with_settings(Command::new("serve").about("Run the proxy until interrupted"), Shown::All)
                .arg(
                    Arg::new("remote")
                        .value_name("REMOTE")
                        .conflicts_with("remote.host")
                        .help("Where Ollama runs: a name, host:port or a URL (as --remote-host)"),
                )
                .after_help(SHORT)
                .after_long_help(format!("{EXAMPLES}\n\n{SOURCES}")),
        )
        .subcommand(
            Command::new("reload").about("Make the running farllama read its settings again").arg(
                Arg::new("pid")
                    .long("pid")
                    .value_name("PID")
                    .value_parser(clap::value_parser!(u32))
                    .help("Which one, if several are running"),
            ),
        )
        .subcommand(
            group(Command::new("key").about("Create, list and revoke keys for callers"))
                .subcommand(file_only(new_key()))
                .subcommand(with_settings(
                    Command::new("list").about("List the keys and what each may do"),
                    Shown::Nothing,
                ))
                .subcommand(file_only(
                    Command::new("revoke")
                        .about("Remove a key from the settings file")
                        .arg(Arg::new("name").value_name("NAME").required(true).help("The name of the key")),
                )),
        )
        .subcommands(control::commands().into_iter().map(steering).map(|command| {
            // The last lines name the others, so that `-h` fits on a screen.
            let first = command.get_name() == "status";
            command.hide(!first)
        }))
        .subcommand(with_settings(explain(), Shown::Nothing))
        .subcommand(with_settings(setup::command(), Shown::Nothing))
        .subcommands(generate::commands())
        .subcommand(
            group(Command::new("config").about("Show or check the settings"))
                .subcommand(with_settings(
                    Command::new("show")
                        .about("Print the settings in force and where each comes from; secrets are masked"),
                    Shown::Nothing,
                ))
                .subcommand(with_settings(
                    Command::new("check")
                        .about("Check the settings: exit code 0 if `serve` would start with them, 2 if not"),
                    Shown::Nothing,
                )),
        )
}

/// A command that steers a running farllama, and those below it: settings say where its admin listener is.
fn steering(command: Command) -> Command {
    let below: Vec<String> = command.get_subcommands().map(|command| command.get_name().to_owned()).collect();
    let command = below
        .into_iter()
        .fold(command, |command, name| command.mut_subcommand(name, |command| with_settings(command, Shown::Nothing)));
    with_settings(command, Shown::Nothing)
}

fn new_key() -> Command {
    let list = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).value_delimiter(',').action(ArgAction::Append).help(help)
    };
    let count = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name("COUNT").value_parser(clap::value_parser!(u32).range(1..)).help(help)
    };
    Command::new("new")
        .about("Create a key, and print it and its line for the settings file")
        .arg(Arg::new("name").long("name").value_name("NAME").help("The holder of the key, for the log"))
        .arg(count("limit", "Maximum requests in any minute"))
        .arg(count("tokens-per-minute", "Maximum tokens in any minute, prompts and answers"))
        .arg(count("tokens-per-day", "Maximum tokens in any 24 hours"))
        .arg(Arg::new("expires").long("expires").value_name("DATE").help("When it stops working, such as 2027-01-01"))
        .arg(count("max-concurrent", "Maximum concurrent requests"))
        .arg(list("models", "MODEL,…", "Allowed models, such as llama3.2 (every tag), qwen3:8b or gpt-*"))
        .arg(list("routes", "PATH,…", "Allowed paths, such as /v1/* or *,!/api/delete"))
        .arg(
            Arg::new("save")
                .long("save")
                .action(ArgAction::SetTrue)
                .help("Add the line to the settings file; comments and layout are preserved"),
        )
        .after_help("Example:\n  farllama key new --name ann --limit 60 --models gpt-oss,qwen3:8b --save")
}

fn explain() -> Command {
    let switch =
        |name: &'static str, help: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue).help(help);
    Command::new("explain")
        .about("Show the Ollama request that an OpenAI request becomes")
        .long_about("Show the Ollama request that an OpenAI request becomes. Sends nothing, except with --loaded")
        .arg(
            Arg::new("file")
                .value_name("FILE")
                .value_parser(clap::value_parser!(PathBuf))
                .help("The request body [default: standard input]"),
        )
        .arg(
            Arg::new("endpoint")
                .long("endpoint")
                .value_name("NAME")
                .value_parser(PossibleValuesParser::new(endpoints()))
                .help("The endpoint of the request [default: guessed from its fields]"),
        )
        .arg(
            Arg::new("call")
                .long("call")
                .value_name("TEXT")
                .help("A tool call as JSON, or the text of an answer: show what is repaired or rescued in it"),
        )
        .arg(switch("curl", "Print curl commands instead of JSON, without keys"))
        .arg(switch(
            "loaded",
            "Compare with the remote: its version, its models, and what is loaded. Naming --remote-host implies it",
        ))
}

/// The values of `explain --endpoint`, each with what it is for.
fn endpoints() -> impl Iterator<Item = PossibleValue> {
    farllama::endpoints().into_iter().map(|(name, summary)| PossibleValue::new(name).help(summary))
}

/// The parsed command line.
///
/// # Errors
/// Fails with the exit code if there is nothing to do but what was printed: help, the version, or what is wrong.
pub(crate) fn matches(args: impl Iterator<Item = OsString>) -> Result<ArgMatches, ExitCode> {
    let args: Vec<OsString> = args.collect();
    if args.len() == 2 && args[1] == "-h" {
        return Err(super::print(&screen()));
    }
    let args = args.into_iter();
    command().try_get_matches_from(join_booleans(args)).map_err(|error| {
        // If the terminal is gone, there is no one to show it to.
        let _ = error.print();
        if error.kind() == ErrorKind::InvalidSubcommand
            && let Some(clap::error::ContextValue::String(name)) =
                error.get(clap::error::ContextKind::InvalidSubcommand)
        {
            eprintln!("  tip: to use the Ollama on a machine called {name}: farllama serve {name}");
        }
        ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
    })
}

/// Joins `--flag` and a following `true` or `false` into `--flag=true`: a boolean flag needs no value, so clap would
/// take the next word for something else.
fn join_booleans(args: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let is_boolean = |arg: &OsString| {
        let name = arg.to_str().and_then(|arg| arg.strip_prefix("--"));
        name.is_some_and(|name| SETTINGS.iter().any(|setting| setting.is_flag() && setting.flag() == name))
    };
    let mut joined: Vec<OsString> = Vec::new();
    let mut open = false;
    for arg in args {
        let value = open && matches!(arg.to_str(), Some("true" | "false" | "1" | "0"));
        open = is_boolean(&arg);
        match joined.last_mut().filter(|_| value) {
            Some(flag) => {
                flag.push("=");
                flag.push(arg);
            }
            None => joined.push(arg),
        }
    }
    joined
}

/// What the command line says: what to do, and where the settings come from.
pub(crate) fn read(matches: &ArgMatches, environment: Vec<(String, String)>) -> (Verb, Sources) {
    let chain: Vec<(&str, &ArgMatches)> =
        std::iter::successors(Some(("", matches)), |(_, matches)| matches.subcommand()).collect();
    let names: Vec<&str> = chain.iter().map(|(name, _)| *name).skip(1).collect();
    let verb = match names.as_slice() {
        ["config", "show"] => Verb::ConfigShow,
        ["config", ..] => Verb::ConfigCheck,
        ["key", "new"] => Verb::KeyNew,
        ["key", "revoke"] => Verb::KeyRevoke,
        ["key", ..] => Verb::KeyList,
        ["explain"] => Verb::Explain,
        ["setup"] => Verb::Setup,
        ["reload"] => Verb::Reload,
        ["completions" | "man"] => Verb::Generate,
        [name, ..] if control::NAMES.contains(name) => Verb::Control,
        _ => Verb::Serve,
    };
    // A flag may stand before or after the command; the later one wins.
    let mut flags: Vec<(&'static str, String)> = Vec::new();
    let mut file = None;
    for (_, matches) in chain {
        if matches.try_get_one::<bool>("verbose").ok().flatten().is_some_and(|verbose| *verbose) {
            flags.push(("log.level", "debug".to_owned()));
        }
        if let Ok(Some(path)) = matches.try_get_one::<PathBuf>("config") {
            file = Some(path.clone());
        }
        for setting in SETTINGS {
            let values = matches.try_get_many::<String>(setting.key).ok().flatten().into_iter().flatten();
            let values: Vec<&str> = values.map(String::as_str).collect();
            if !values.is_empty() {
                flags.push((setting.key, values.join("\n")));
            }
        }
        if verb == Verb::Serve
            && let Ok(Some(remote)) = matches.try_get_one::<String>("remote")
        {
            flags.push(("remote.host", remote.clone()));
        }
    }
    let variable = |name: &str| variable(&environment, name).map(PathBuf::from);
    let home = variable("XDG_CONFIG_HOME").or_else(|| variable("HOME").map(|home| home.join(".config")));
    let sources = Sources {
        file: file.or_else(|| variable("FARLLAMA_CONFIG")),
        usual_file: home.map(|folder| folder.join("farllama").join("config.toml")),
        environment,
        flags,
    };
    (verb, sources)
}

/// The value of an environment variable, unless it is empty.
pub(crate) fn variable<'a>(environment: &'a [(String, String)], name: &str) -> Option<&'a str> {
    environment.iter().find(|(known, _)| known == name).map(|(_, value)| &**value).filter(|value| !value.is_empty())
}

/// What `explain` was given.
#[derive(Debug, Default)]
pub(crate) struct Explain {
    /// Where the body is; absent: standard input.
    pub(crate) file: Option<PathBuf>,
    /// The short name of one of [`farllama::endpoints`].
    pub(crate) endpoint: Option<String>,
    /// A call, or the text of an answer.
    pub(crate) call: Option<String>,
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
        call: leaf.get_one::<String>("call").cloned(),
        curl: leaf.get_flag("curl"),
        loaded: leaf.get_flag("loaded") || sources.flags.iter().any(|(key, _)| *key == "remote.host"),
    }
}

/// The environment as text.
///
/// # Errors
/// Fails if one of our own variables is not UTF-8. Those of others do not matter.
pub(crate) fn environment(
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> Result<Vec<(String, String)>, String> {
    let mut texts = Vec::new();
    for (name, value) in variables {
        match (name.into_string(), value.into_string()) {
            (Ok(name), Ok(value)) => texts.push((name, value)),
            (Ok(name), Err(_)) if name.starts_with("FARLLAMA_") => {
                return Err(format!("{name}: its value is not UTF-8"));
            }
            _ => {}
        }
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> (Verb, Vec<(&'static str, String)>) {
        let args = std::iter::once("farllama").chain(args.iter().copied()).map(OsString::from);
        let (verb, sources) = read(&command().try_get_matches_from(join_booleans(args)).unwrap(), Vec::new());
        (verb, sources.flags)
    }

    fn pair(key: &'static str, value: &str) -> (&'static str, String) {
        (key, value.to_owned())
    }

    #[test]
    fn the_command_is_well_formed() {
        command().debug_assert();
    }

    #[test]
    fn flags_may_stand_before_or_after_the_command() {
        for args in [["--local-port", "1", "serve"], ["serve", "--local-port", "1"]] {
            assert_eq!(parse(&args), (Verb::Serve, vec![pair("local.port", "1")]));
        }
        let twice = parse(&["--local-port", "1", "config", "check", "--local-port", "2"]);
        assert_eq!(twice, (Verb::ConfigCheck, vec![pair("local.port", "1"), pair("local.port", "2")]));
    }

    #[test]
    fn the_flags_that_people_try_first_work() {
        assert_eq!(parse(&["serve", "gpu-box"]).1, [pair("remote.host", "gpu-box")]);
        assert_eq!(
            parse(&["serve", "--host", "::", "--port", "1"]).1,
            [pair("local.host", "::"), pair("local.port", "1")]
        );
        assert_eq!(parse(&["serve", "--remote", "gpu-box"]).1, [pair("remote.host", "gpu-box")]);
    }

    #[test]
    fn a_boolean_flag_needs_no_value() {
        let public = |value| vec![pair("local.public", value)];
        assert_eq!(parse(&["serve", "--local-public"]).1, public("true"));
        assert_eq!(parse(&["--local-public", "serve"]), (Verb::Serve, public("true")));
        assert_eq!(parse(&["serve", "--local-public", "false"]).1, public("false"));
        assert_eq!(parse(&["serve", "--local-public=false"]).1, public("false"));
        let remote = parse(&["serve", "--local-public", "gpu-box"]).1;
        assert_eq!(remote, [pair("local.public", "true"), pair("remote.host", "gpu-box")]);
    }
}
