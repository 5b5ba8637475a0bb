//! The command line: one module for each larger verb. The exit codes are those of [`Exit`].

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::anyhow;
use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use crate::{
    check::{
        json_schema, library,
        load::{self, Problem},
        warn,
    },
    exit::Exit,
    expect::laws,
    process::print,
    scenario::loaded::Loaded,
    smoke,
    text::nearest,
};

mod bench_tools;
mod compare;
mod doctor;
mod fmt;
mod init;
mod mutate;
mod record;
mod run;
mod verify;

const EXIT_CODES: &str = "\
Exit codes:
  0  everything that ran passed
  1  the target is not fit: an expectation failed
  2  unusable input (flags, YAML), a server that cannot be used, or something could not be started
  3  nothing was checked: no scenario was selected, or all of them were skipped
  130  interrupted";

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
    Run(Box<run::Flags>),
    /// Writes a first scenario to start from
    Init(init::Flags),
    /// Lists scenarios
    List(Select),
    /// Checks scenario files without running them
    Check(Select),
    /// Formats scenario files; comments stay
    #[command(after_help = fmt::HELP)]
    Fmt(fmt::Flags),
    /// Lists the laws that every event stream is checked against
    Laws,
    /// Prints the JSON Schema of scenarios, for editors
    Schema,
    /// Breaks the traffic in named ways, and reports which scenarios notice (on the built-in mock)
    #[command(after_help = mutate::HELP)]
    Mutate(mutate::Flags),
    /// Compares how servers deal with tool calls that models get wrong
    #[command(name = "bench-tools", after_help = bench_tools::HELP)]
    BenchTools(bench_tools::Flags),
    /// Runs the same scenarios on several targets, and shows what differs and what got worse
    #[command(after_help = compare::HELP)]
    Compare(Box<compare::Flags>),
    /// Examines a remote: which tools will work there, which with limits, and what to change
    #[command(after_help = doctor::HELP)]
    Doctor(Box<doctor::Flags>),
    /// Records what clients and a remote Ollama say to each other, secrets masked
    #[command(after_help = record::HELP)]
    Record(record::Flags),
    /// Sends recorded requests to a remote Ollama and lists how its responses differ
    #[command(after_help = verify::HELP)]
    Verify(verify::Flags),
    /// Smoke-tests a remote Ollama through the real proxy (without --remote-host: the built-in mock)
    #[command(after_help = smoke::HELP)]
    Smoke(Box<smoke::Flags>),
    /// Prints completions for a shell
    #[command(hide = true)]
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Writes the manual pages to a folder
    #[command(hide = true)]
    Man {
        /// The folder
        dir: PathBuf,
    },
}

/// Which scenarios.
#[derive(Args, Clone, Debug)]
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

/// Does what the command line says.
#[must_use]
pub fn run(cli: Cli) -> ExitCode {
    let code = match cli.verb {
        Verb::Run(flags) => run::run(&flags),
        Verb::Init(flags) => init::run(&flags),
        Verb::Fmt(flags) => fmt::run(&flags),
        Verb::Laws => {
            print(&laws::list());
            Ok(ExitCode::SUCCESS)
        }
        Verb::List(select) => list(&select),
        Verb::Check(select) => check(&select),
        Verb::Schema => {
            print(&format!("{:#}\n", json_schema::schema()));
            Ok(ExitCode::SUCCESS)
        }
        Verb::Mutate(flags) => mutate::run(&flags),
        Verb::BenchTools(flags) => bench_tools::run(&flags),
        Verb::Compare(flags) => compare::run(&flags),
        Verb::Doctor(flags) => doctor::run(&flags),
        Verb::Record(flags) => record::run(&flags),
        Verb::Verify(flags) => verify::run(&flags),
        Verb::Smoke(flags) => smoke::run(&flags),
        Verb::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "farllama-check", &mut text);
            print(&String::from_utf8_lossy(&text));
            Ok(ExitCode::SUCCESS)
        }
        Verb::Man { dir } => std::fs::create_dir_all(&dir)
            .and_then(|()| clap_mangen::generate_to(Cli::command(), &dir))
            .map(|()| ExitCode::SUCCESS)
            .map_err(|error| anyhow!("cannot write manual pages to {}: {error}", dir.display())),
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
        eprintln!("farllama-check: {}", problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n\n"));
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
    let (selected, others): (Vec<_>, Vec<_>) = loaded.into_iter().partition(wanted);
    if selected.is_empty() {
        let meant = meant(select, &others);
        eprintln!("farllama-check: no scenario is selected{meant}; `farllama-check list` shows what there is");
        return Err(Exit::NothingChecked.into());
    }
    Ok(selected)
}

/// The tag, or the word of a file or title, that was probably meant when nothing was selected.
fn meant(select: &Select, all: &[Loaded]) -> String {
    let tags = || all.iter().flat_map(|loaded| &loaded.scenario.tags).map(String::as_str);
    let words = || {
        let titles = all.iter().flat_map(|loaded| [&*loaded.file, &*loaded.scenario.title.value]);
        titles.flat_map(|text| text.split(|c: char| !c.is_alphanumeric())).filter(|word| word.len() > 2)
    };
    let near = select.tags.iter().find_map(|tag| nearest(tag, tags()));
    let near = near.or_else(|| select.filter.as_ref().and_then(|text| nearest(text, words())));
    near.map_or_else(String::new, |near| format!("; did you mean `{near}`?"))
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
    for warning in warn::of(&scenarios) {
        eprintln!("warning: {warning}");
    }
    let count = if scenarios.len() == 1 { "1 scenario".to_owned() } else { format!("{} scenarios", scenarios.len()) };
    print(&format!("{count} can be run\n"));
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_is_well_formed() {
        super::Cli::command().debug_assert();
    }
}
