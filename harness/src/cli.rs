//! The command line: `run`, `list`, `check`, `mutate`, `smoke`.
//!
//! Exit codes: 0 all that ran passed; 1 the target is not fit; 2 unusable input, or something could not be started; 3 nothing was checked.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::IsTerminal,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use clap::{Args, Parser, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    backend::{
        Backend,
        container::{Container, Tell},
        endpoint::{self, Endpoint},
        remote,
    },
    check::{
        json_schema, library,
        load::{self, Problem},
    },
    exit::Exit,
    net,
    process::{interrupted, print, runtime},
    report::{Files, Verdict, console, github},
    run::{self, Plan},
    scenario::{
        loaded::Loaded,
        variables::Variables,
        versions::{self, Asked},
    },
    smoke,
};

mod mutate;

const EXIT_CODES: &str = "\
Exit codes:
  0  everything that ran passed
  1  the target is not fit: an expectation failed
  2  unusable input (flags, YAML), or something could not be started
  3  nothing was checked: no scenario was selected, or all of them were skipped";

/// Runs YAML scenarios against an OpenAI-compatible server or an Ollama, and says whether it is fit
#[derive(Debug, Parser)]
#[command(name = "farllama-check", version, after_help = EXIT_CODES, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Runs scenarios and reports
    #[command(after_help = EXIT_CODES)]
    Run(Box<RunFlags>),
    /// Lists scenarios
    List(Select),
    /// Checks scenario files without running them
    Check(Select),
    /// Prints the JSON Schema of scenarios, for editors
    Schema,
    /// Breaks the traffic in named ways, and tells which scenarios notice (on the built-in mock)
    #[command(after_help = mutate::HELP)]
    Mutate(mutate::Flags),
    /// Smoke-tests a remote Ollama through the real proxy (without --remote-host: the built-in mock)
    #[command(after_help = smoke::HELP)]
    Smoke(Box<smoke::Flags>),
}

/// Which scenarios.
#[derive(Args, Debug)]
struct Select {
    /// The scenarios that come with farllama-check
    #[arg(long, conflicts_with = "paths")]
    library: bool,
    /// Scenario files, or folders of them
    #[arg(default_value = "scenarios")]
    paths: Vec<PathBuf>,
    /// Only scenarios with this tag (may be given several times: any of them)
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// Only scenarios whose file or title contains this text
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
}

#[derive(Debug, Args)]
struct RunFlags {
    #[command(flatten)]
    select: Select,
    /// What stands behind the proxy
    #[arg(long, value_enum, default_value_t = Kind::Mock)]
    backend: Kind,
    /// The image of the container backend
    #[arg(long, default_value = "ollama/ollama:0.32.11", value_name = "IMAGE")]
    image: String,
    /// The version of Ollama that the mock plays, for the scenarios that speak of it (may be given several times); `each`: every version
    /// that the proxy treats differently
    #[arg(long = "mock-version", value_name = "VERSION|each")]
    mock_versions: Vec<Asked>,
    /// A volume for the models of the container backend, which outlives it
    #[arg(long, value_name = "NAME")]
    volume: Option<String>,
    /// Pulls --model into the container first
    #[arg(long)]
    pull: bool,
    #[command(flatten)]
    remote: remote::Flags,
    #[command(flatten)]
    target: endpoint::Flags,
    /// The model of scenarios that leave it open
    #[arg(long, default_value = smoke::MODEL)]
    model: String,
    /// How many scenarios run at a time [default: several on the mock, one elsewhere]
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// How long each call may take [default: 30s on the mock, 5m elsewhere]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    timeout: Option<Duration>,
    /// A variable of the scenarios, such as city=Oslo (may be given several times)
    #[arg(long = "var", value_name = "NAME=VALUE", value_parser = variable)]
    vars: Vec<(String, String)>,
    /// Begins no scenario after one that failed
    #[arg(long)]
    fail_fast: bool,
    /// Tells what would run and what would be skipped, and makes no call
    #[arg(long)]
    dry_run: bool,
    /// Shows every exchange, keys masked
    #[arg(long, short, conflicts_with = "quiet")]
    verbose: bool,
    /// Shows what failed, and the counts
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    files: Files,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// A mock Ollama of its own for each scenario, in process
    Mock,
    /// The Ollama that --remote-host names
    Remote,
    /// An Ollama in a container (see --image)
    Container,
    /// The server that --base-url names, without a proxy of ours: Ollama's own /v1, LiteLLM, vLLM, llama.cpp, …
    Target,
}

impl Kind {
    /// How many scenarios run at a time.
    fn jobs(self) -> usize {
        match self {
            // They wait more than they work.
            Self::Mock => std::thread::available_parallelism().map_or(4, |cores| cores.get() * 4),
            // A real Ollama would only put them into its queue.
            Self::Remote | Self::Container | Self::Target => 1,
        }
    }

    /// How long a call may take.
    fn timeout(self) -> Duration {
        match self {
            Self::Mock => Duration::from_secs(30),
            // A model may have to be loaded first.
            Self::Remote | Self::Container | Self::Target => Duration::from_secs(300),
        }
    }
}

/// Does what the command line says.
#[must_use]
pub fn run(cli: Cli) -> ExitCode {
    let code = match cli.verb {
        Verb::Run(flags) => run_scenarios(&flags),
        Verb::List(select) => list(&select),
        Verb::Check(select) => check(&select),
        Verb::Schema => {
            print(&format!("{:#}\n", json_schema::schema()));
            Ok(ExitCode::SUCCESS)
        }
        Verb::Mutate(flags) => mutate::run(&flags),
        Verb::Smoke(flags) => smoke::run(&flags),
    };
    code.unwrap_or_else(|error| {
        eprintln!("farllama-check: {error:#}");
        Exit::Unusable.into()
    })
}

/// Reads what is selected. Problems are printed; then there is only an exit code left.
fn select(select: &Select) -> Result<Vec<Loaded>, ExitCode> {
    let usual = Path::new("scenarios");
    if !select.library && select.paths == [usual] && !usual.exists() {
        eprintln!(
            "farllama-check: there is no folder `scenarios` here; name the files or folders to use, or take those that come with it: --library"
        );
        return Err(Exit::Unusable.into());
    }
    let loaded = if select.library {
        library::scenarios(None)
    } else {
        load::find(&select.paths).map_err(|problem| vec![problem]).and_then(|files| load::load(&files))
    };
    let loaded = loaded.map_err(|problems| {
        eprintln!("{}", problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n\n"));
        ExitCode::from(Exit::Unusable)
    })?;
    let wanted = |loaded: &Loaded| {
        let scenario = &loaded.scenario;
        (select.tags.is_empty() || scenario.tags.iter().any(|tag| select.tags.contains(tag)))
            && select
                .filter
                .as_ref()
                .is_none_or(|text| loaded.file.contains(text) || scenario.title.value.contains(text))
    };
    let selected: Vec<_> = loaded.into_iter().filter(wanted).collect();
    if selected.is_empty() {
        eprintln!("farllama-check: no scenario is selected; `farllama-check list` shows what there is");
        return Err(Exit::NothingChecked.into());
    }
    Ok(selected)
}

fn list(flags: &Select) -> anyhow::Result<ExitCode> {
    let scenarios = match select(flags) {
        Ok(scenarios) => scenarios,
        Err(code) => return Ok(code),
    };
    let width = scenarios.iter().map(|loaded| loaded.file.chars().count()).max().unwrap_or(0);
    let mut out = String::new();
    for Loaded { file, scenario, .. } in &scenarios {
        let _ = write!(out, "{file:width$}  {}", scenario.title.value);
        if !scenario.tags.is_empty() {
            let _ = write!(out, "  [{}]", scenario.tags.join(", "));
        }
        let needs: Vec<_> = scenario.needs().iter().map(ToString::to_string).collect();
        if !needs.is_empty() {
            let _ = write!(out, "  (needs {})", needs.join(", "));
        }
        out.push('\n');
    }
    print(&out);
    Ok(ExitCode::SUCCESS)
}

fn check(flags: &Select) -> anyhow::Result<ExitCode> {
    let scenarios = match select(flags) {
        Ok(scenarios) => scenarios,
        Err(code) => return Ok(code),
    };
    print(&format!("{} scenarios can be run\n", scenarios.len()));
    Ok(ExitCode::SUCCESS)
}

fn run_scenarios(flags: &RunFlags) -> anyhow::Result<ExitCode> {
    let scenarios = match select(&flags.select) {
        Ok(scenarios) => scenarios,
        Err(code) => return Ok(code),
    };
    if !flags.mock_versions.is_empty() && flags.backend != Kind::Mock {
        anyhow::bail!("--mock-version is for --backend mock");
    }
    let scenarios = versions::expand(scenarios, &flags.mock_versions);
    if scenarios.is_empty() {
        eprintln!("farllama-check: no selected scenario speaks of such a version");
        return Ok(Exit::NothingChecked.into());
    }
    let bar = progress(scenarios.len());
    let backend = match flags.backend {
        Kind::Mock => Backend::Mock,
        Kind::Remote if !flags.remote.named() => anyhow::bail!("--backend remote needs --remote-host"),
        Kind::Remote => Backend::Remote(Box::new(remote::Remote::new(flags.remote.config()?.remote))),
        Kind::Container => {
            let model = flags.pull.then(|| flags.model.clone());
            let bar = bar.clone();
            let tell = Tell::by(move |line| bar.suspend(|| eprintln!("{line}")));
            let container = Container::new(&flags.image, tell).with_volume(flags.volume.clone()).with_model(model);
            Backend::Container(Box::new(container))
        }
        Kind::Target => Backend::Endpoint(Endpoint::new(&flags.target).map_err(anyhow::Error::msg)?),
    };
    if flags.dry_run {
        return Ok(dry_run(&scenarios, &backend));
    }
    let mut variables = Variables::new(&flags.model, smoke::PROMPT, smoke::SYSTEM_PROMPT);
    let given: BTreeMap<String, String> = flags.vars.iter().cloned().collect();
    for (name, value) in &given {
        let declared = |loaded: &Loaded| loaded.scenario.vars.0.iter().any(|check| check.key == *name);
        if variables.knows(name) {
            variables.set(name, value.as_str().into());
        } else if !scenarios.iter().any(declared) {
            anyhow::bail!("--var {name}: no selected scenario has this variable (`vars: {{ {name}: … }}`)");
        }
    }
    let plan = Plan {
        backend: Arc::new(backend),
        http: net::client()?,
        variables,
        given,
        timeout: flags.timeout.unwrap_or(flags.backend.timeout()),
        jobs: flags.jobs.unwrap_or(flags.backend.jobs()),
        strict: std::env::var("CI").is_ok_and(|ci| ci == "true"),
        fail_fast: flags.fail_fast,
    };
    let runtime = runtime()?;
    let github = github::reads().then(github::quoted);
    if let Some((begin, _)) = &github {
        print(begin);
    }
    let run = runtime.block_on(async {
        let running = run::run(scenarios, &plan, |result| {
            let loud = matches!(result.verdict, Verdict::Failed | Verdict::Broken);
            if loud || !flags.quiet {
                bar.suspend(|| print(&console::scenario(result, flags.verbose)));
            }
            bar.inc(1);
        });
        let run = tokio::select! {
            run = running => Some(run),
            () = interrupted() => None,
        };
        plan.backend.stop().await;
        run
    });
    bar.finish_and_clear();
    if let Some(run) = &run {
        print(&console::ending(run));
    }
    if let Some((_, end)) = &github {
        print(end);
    }
    let Some(run) = run else {
        eprintln!("interrupted");
        return Ok(Exit::Interrupted.into());
    };
    if github.is_some() {
        print(&github::render(&run));
    }
    flags.files.write(&run)?;
    Ok(run.exit().into())
}

/// What would be done with each scenario.
fn dry_run(scenarios: &[Loaded], backend: &Backend) -> ExitCode {
    let mut out = String::new();
    let mut runs = 0;
    for Loaded { file, scenario, .. } in scenarios {
        let _ = match backend.refuses(scenario) {
            None => {
                runs += 1;
                writeln!(out, "run     {file}  {}", scenario.title.value)
            }
            Some(reason) => writeln!(out, "skip    {file}  {}\n    {reason}", scenario.title.value),
        };
    }
    let _ = writeln!(out, "{runs} would run on {}, {} would be skipped", backend.name(), scenarios.len() - runs);
    print(&out);
    if runs > 0 { Exit::Fit } else { Exit::NothingChecked }.into()
}

/// Reads `NAME=VALUE`.
fn variable(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("a variable is written NAME=VALUE, such as city=Oslo")?;
    if !crate::scenario::variables::is_name(name) {
        return Err(format!("{name:?} is no name of a variable: letters, digits and _ alone"));
    }
    Ok((name.to_owned(), value.to_owned()))
}

/// A bar on a terminal; nothing elsewhere.
fn progress(scenarios: usize) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(u64::try_from(scenarios).unwrap_or(u64::MAX));
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos} of {len}, {elapsed}") {
        bar.set_style(style);
    }
    bar
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_is_well_formed() {
        super::Cli::command().debug_assert();
    }
}
