//! `farllama setup TOOL`: the configuration of a tool that is to use this proxy, printed, or written with a diff, a
//! backup and a way back.

mod backup;
mod json;
mod tools;
mod yaml;

use std::{
    fmt::{self, Write as _},
    fs, io,
    net::{TcpStream, ToSocketAddrs},
    path::{Path, PathBuf},
    process::Command as Process,
    time::Duration,
};

use clap::{Arg, ArgAction, ArgMatches, Command, builder::PossibleValuesParser};
use farllama::{Config, ListedModel};
use similar::TextDiff;

use self::tools::{Facts, Model, Plan, Tool};
use super::startup;

/// The command.
pub(super) fn command() -> Command {
    let switch =
        |name: &'static str, help: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue).help(help);
    let value = |name: &'static str, shown: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(shown).help(help)
    };
    Command::new("setup")
        .about("Show or write the configuration of a tool that is to use this proxy")
        .arg(
            Arg::new("tool")
                .value_name("TOOL")
                .required(true)
                .value_parser(PossibleValuesParser::new(tools::ALL.iter().map(|tool| tool.name)))
                .help("The tool"),
        )
        .arg(switch("write", "Write the configuration: shows a diff, keeps a backup, changes nothing twice"))
        .arg(switch("undo", "Restore what was there before the last --write").conflicts_with("write"))
        .arg(value("model", "MODEL", "The model that the tool uses first [default: the first that can call tools]"))
        .arg(value("key", "KEY", "The key for this proxy, if it needs one"))
        .arg(value("url", "URL", "Where the tool reaches this proxy [default: as local.host and local.port say]"))
        .arg(
            value("file", "FILE", "The tool's file [default: where the tool looks for it]")
                .value_parser(clap::value_parser!(PathBuf)),
        )
        .arg(switch("no-check", "Do not run the check of the tool with farllama-check after --write"))
        .after_help("Examples:\n  farllama setup codex\n  farllama setup zed --write\n  farllama setup zed --undo")
}

/// Runs the command.
///
/// # Errors
/// Fails if the remote does not list its models, or a file cannot be read, understood or written.
pub(crate) fn run(matches: &ArgMatches, config: &Config, environment: &[(String, String)]) -> Result<String, String> {
    let leaf = matches.subcommand_matches("setup").ok_or("no tool is named")?;
    let text = |name: &str| leaf.get_one::<String>(name).cloned();
    let name = text("tool").unwrap_or_default();
    let tool = tools::ALL.iter().find(|tool| tool.name == name).ok_or("unknown tool")?;
    let places = Places { environment, file: leaf.get_one::<PathBuf>("file").cloned() };
    let backups = backup::Backups::of(tool.name, environment)?;
    if leaf.get_flag("undo") {
        return backups.undo();
    }
    let write = leaf.get_flag("write");
    let facts = facts(config, text("url"), text("key"), text("model"), write)?;
    let plan = (tool.plan)(&facts, &places)?;
    let mut out = String::new();
    if write {
        write_files(&mut out, tool, &plan, &backups)?;
    } else {
        for (path, new) in &plan.files {
            let _ = writeln!(out, "# {}\n{}", path.display(), diff(path, &read(path)?, new));
        }
    }
    for step in &plan.steps {
        let _ = writeln!(out, "{step}");
    }
    if let Some(chosen) = facts.chosen().filter(|model| !model.in_force) {
        let tokens = chosen.context.map_or_else(|| "unknown".to_owned(), |tokens| format!("{tokens} tokens at most"));
        let _ = writeln!(
            out,
            "The context of {} is {tokens}: the remote decides when it loads the model, and its default is often 4096. Set it here with \
             [models.{:?}] num_ctx = 32768, or context.num_ctx = 32768, and run this again",
            chosen.name, chosen.name
        );
    }
    if !write && !plan.files.is_empty() {
        let _ = writeln!(out, "\nWrite it: farllama setup {} --write", tool.name);
    }
    let check = Check::new(tool, &facts, config);
    let _ = writeln!(out, "\nCheck what works with this model: {check}");
    if write && !leaf.get_flag("no-check") && !plan.files.is_empty() {
        // What was done is shown before the check, which takes a minute.
        print!("{out}");
        return Ok(check.run());
    }
    Ok(out)
}

/// Where a tool's files are.
pub(super) struct Places<'a> {
    environment: &'a [(String, String)],
    /// The file that the command line names.
    file: Option<PathBuf>,
}

impl Places<'_> {
    /// The path of the tool's file: the one that is named, or the usual one.
    pub(super) fn file(&self, usual: impl FnOnce() -> Result<PathBuf, String>) -> Result<PathBuf, String> {
        self.file.clone().map_or_else(usual, Ok)
    }

    /// The value of an environment variable.
    pub(super) fn variable(&self, name: &str) -> Option<PathBuf> {
        super::variable(self.environment, name).map(PathBuf::from)
    }

    pub(super) fn home(&self) -> Result<PathBuf, String> {
        let home = self.variable("HOME").or_else(|| self.variable("USERPROFILE"));
        home.ok_or_else(|| "there is no home directory: name the tool's file with --file".to_owned())
    }

    /// The folder of settings: `~/.config`, unless the system says otherwise.
    pub(super) fn settings(&self) -> Result<PathBuf, String> {
        self.variable("XDG_CONFIG_HOME").map_or_else(|| self.home().map(|home| home.join(".config")), Ok)
    }

    /// The folder in which programs with a window keep their settings.
    pub(super) fn application(&self, name: &str) -> Result<PathBuf, String> {
        if cfg!(target_os = "macos") {
            return Ok(self.home()?.join("Library/Application Support").join(name));
        }
        match self.variable("APPDATA") {
            Some(folder) if cfg!(windows) => Ok(folder.join(name)),
            _ => Ok(self.settings()?.join(name)),
        }
    }
}

/// What the configurations are made of.
fn facts(
    config: &Config,
    url: Option<String>,
    key: Option<String>,
    model: Option<String>,
    write: bool,
) -> Result<Facts, String> {
    if config.auth.enabled && key.is_none() && write {
        return Err(
            "this proxy needs a key: pass the tool's own with --key, or create one with `farllama key new`".to_owned()
        );
    }
    let native = match url {
        Some(url) => url.trim_end_matches('/').trim_end_matches("/v1").to_owned(),
        None => startup::local_url(config),
    };
    let openai = format!("{native}{}", config.openai.base_path);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("cannot start: {error}"))?;
    let models = runtime.block_on(farllama::listed_models(config))?;
    runtime.shutdown_background();
    let models: Vec<Model> = models.into_iter().filter(ListedModel::chats).map(Model::from).collect();
    let first = || models.iter().find(|model| model.tools).or(models.first()).map(|model| model.name.clone());
    let model = match model {
        Some(model) => model,
        None => first()
            .ok_or("the remote has no models that can chat: get one with `ollama pull`, or name one with --model")?,
    };
    let key = match (config.auth.enabled, key) {
        (_, Some(key)) => Some(key),
        (true, None) => Some("YOUR-KEY".to_owned()),
        (false, None) => None,
    };
    Ok(Facts { native, openai, key, models, model })
}

/// The text of a file; empty if there is none.
fn read(path: &Path) -> Result<String, String> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

/// What changes in a file, or the whole of a new one.
fn diff(path: &Path, old: &str, new: &str) -> String {
    if old.is_empty() {
        return new.to_owned();
    }
    let name = path.to_string_lossy();
    TextDiff::from_lines(old, new).unified_diff().context_radius(3).header(&name, &name).to_string()
}

fn write_files(out: &mut String, tool: &Tool, plan: &Plan, backups: &backup::Backups) -> Result<(), String> {
    if plan.files.is_empty() {
        return Err(format!(
            "{} keeps its settings where only it can change them; set them there:\n{}",
            tool.name,
            plan.steps.join("\n")
        ));
    }
    let mut changed = Vec::new();
    for (path, new) in &plan.files {
        let old = read(path)?;
        if old == *new {
            let _ = writeln!(out, "{}: nothing to change", path.display());
        } else {
            let _ = writeln!(out, "{}", diff(path, &old, new));
            changed.push((path.clone(), new.clone()));
        }
    }
    if !changed.is_empty() {
        backups.write(&changed)?;
        for (path, _) in &changed {
            let _ = writeln!(out, "{}: written. Go back with: farllama setup {} --undo", path.display(), tool.name);
        }
    }
    Ok(())
}

/// The command that checks what works in the tool.
struct Check {
    words: Vec<String>,
    /// For the environment: the key of what is checked.
    key: Option<String>,
}

impl Check {
    const PROGRAM: &str = "farllama-check";
    const KEY: &str = "FARLLAMA_REMOTE_API_KEY";

    /// How long this proxy may take to accept a connection.
    const PATIENCE: Duration = Duration::from_millis(500);

    /// Checks this proxy, with its aliases and contexts, if it runs; else the remote.
    fn new(tool: &Tool, facts: &Facts, config: &Config) -> Self {
        let model = facts.chosen();
        let (url, model, key) = if is_reachable(&facts.native) {
            (facts.native.clone(), facts.model.clone(), facts.key.clone())
        } else {
            let bearer = config.remote.authorization.as_ref().and_then(|value| value.to_str().ok());
            let key = bearer.and_then(|value| value.strip_prefix("Bearer ")).map(str::to_owned);
            (config.remote.url(), model.map_or_else(|| facts.model.clone(), |model| model.target.clone()), key)
        };
        let words = ["doctor", "--remote-host", &url, "--for", tool.persona, "--model", &model];
        Self { words: words.into_iter().map(str::to_owned).collect(), key }
    }

    /// Runs it, if its program is there.
    fn run(&self) -> String {
        // It is mostly installed beside this program.
        let name = format!("{}{}", Self::PROGRAM, std::env::consts::EXE_SUFFIX);
        let beside = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.join(&name)));
        let program = beside.filter(|path| path.exists()).unwrap_or_else(|| PathBuf::from(name));
        let mut command = Process::new(&program);
        command.args(&self.words).envs(self.key.as_ref().map(|key| (Self::KEY, key)));
        match command.status() {
            Ok(_) => String::new(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => format!("{}: {error}\n", program.display()),
        }
    }
}

/// As a person types it, without the key.
impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.key.is_some() {
            write!(f, "{}=KEY ", Self::KEY)?;
        }
        write!(f, "{} {}", Self::PROGRAM, self.words.join(" "))
    }
}

/// Whether something accepts connections at `url`.
fn is_reachable(url: &str) -> bool {
    let Ok(url) = url.parse::<http::Uri>() else { return false };
    let port = url.port_u16().unwrap_or(if url.scheme_str() == Some("https") { 443 } else { 80 });
    let host = url.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let addrs = (host, port).to_socket_addrs().into_iter().flatten();
    addrs.into_iter().any(|addr| TcpStream::connect_timeout(&addr, Check::PATIENCE).is_ok())
}
