//! `farllama-check compare`: the same scenarios on several targets, and against a baseline.

use std::{collections::BTreeMap, io::IsTerminal, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::{
    Select,
    run::{CONFORMANCE, FARLLAMA},
    select,
};
use crate::{
    backend::{
        Backend, Capabilities,
        endpoint::{self, Endpoint},
        preflight, remote,
    },
    compare::{Column, Comparison, page},
    exit::Exit,
    expect::laws::Laws,
    limit::{self, Limit},
    net,
    process::{interrupted, print, runtime},
    report::{RunResult, check_files},
    run::{self, Plan},
    scenario::{loaded::Loaded, variables::Variables},
    smoke,
};

pub(super) const HELP: &str = "\
Targets, each [NAME=]TARGET[#MODEL]:
  mock                      farllama in front of the built-in mock
  http://gpu-box:11434      farllama in front of the Ollama there
  http://host:8000/v1       the server itself, any with OpenAI's API
  ollama-v1:http://gpu-box:11434
                            Ollama's own /v1, without farllama
  FILE.json                 an earlier result (run --json, compare --json)

Examples:
  farllama-check compare --library old=http://old-box:11434 new=http://new-box:11434 --model qwen3:8b
  farllama-check compare --library http://gpu-box:11434 ollama-v1:http://gpu-box:11434 --model qwen3:8b --html out.html
  farllama-check compare --library http://gpu-box:11434 --model qwen3:8b --against baseline.json

Exit codes:
  0  compared (with --against: nothing got worse)
  1  with --against: something got worse
  2  unusable input (flags, YAML), or a target that cannot be used
  3  nothing was checked: no scenario was selected
  130  interrupted";

/// The largest number of targets: a table must stay readable.
const TARGETS: usize = 5;

#[derive(Args, Debug)]
pub(super) struct Flags {
    /// What to compare, two to five (one with --against); see below
    #[arg(value_name = "TARGET", required = true, num_args = 1..)]
    targets: Vec<String>,
    /// The scenarios that come with farllama-check
    #[arg(long, conflicts_with = "paths")]
    library: bool,
    /// Scenario files, or folders of them (may be given several times) [default: scenarios]
    #[arg(long = "scenarios", value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Only scenarios with this tag (may be given several times: any of them)
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// Only scenarios whose file or title contains this text
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// The model of targets that name none
    #[arg(long)]
    model: Option<String>,
    /// The model that makes vectors, as ${embedding_model} [default: the model]
    #[arg(long, value_name = "MODEL")]
    embedding_model: Option<String>,
    /// How often everything is run: a server must be right every time, a model is counted
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=100))]
    times: u16,
    /// An earlier result (run --json, compare --json): exit code 1 if something got worse
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    /// How long each call may take
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = limit::parse)]
    timeout: Limit,
    /// The key of remotes
    #[arg(long, value_name = "KEY", env = remote::KEY, hide_env_values = true)]
    remote_api_key: Option<String>,
    /// The key of servers themselves
    #[arg(long, value_name = "KEY", env = endpoint::KEY, hide_env_values = true)]
    api_key: Option<String>,
    /// Writes the comparison as JSON, which --against takes
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Writes the comparison as Markdown, as it is printed
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// Writes the comparison as one HTML file
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// A target of the command line.
enum Target {
    /// A result that was saved.
    Saved(Column),
    /// A place to run scenarios on.
    Live { name: String, backend: Arc<Backend>, model: Option<String> },
}

impl Flags {
    fn target(&self, given: &str) -> anyhow::Result<Target> {
        let (name, text) = match given.split_once('=') {
            Some((name, text)) if !name.contains([':', '/', '.']) && !name.is_empty() => (Some(name), text),
            _ => (None, given),
        };
        if text.ends_with(".json") && !text.contains("://") {
            let read = std::fs::read_to_string(text).with_context(|| text.to_owned())?;
            let column = Column::read(&read).map_err(|why| anyhow::anyhow!("{text}: {why}"))?;
            return Ok(Target::Saved(Column { name: name.unwrap_or(text).to_owned(), ..column }));
        }
        let (place, model) = match text.split_once('#') {
            Some((place, model)) => (place, Some(model.to_owned())),
            None => (text, None),
        };
        let endpoint = |url: String| {
            let flags =
                endpoint::Flags { base_url: Some(url), api_key: self.api_key.clone(), ..endpoint::Flags::default() };
            Endpoint::new(&flags).map(Backend::Endpoint).map_err(|why| anyhow::anyhow!("{given}: {why}"))
        };
        let backend = if place == "mock" {
            Backend::Mock
        } else if let Some(url) = place.strip_prefix("ollama-v1:") {
            endpoint(format!("{}/v1", url.trim_end_matches('/')))?
        } else if !place.contains("://") {
            bail!("{given:?} is not a target: expected mock, a URL, ollama-v1:URL or FILE.json");
        } else if place.trim_end_matches('/').ends_with("/v1") {
            endpoint(place.to_owned())?
        } else {
            let flags = remote::Flags {
                remote_host: Some(place.to_owned()),
                remote_api_key: self.remote_api_key.clone(),
                ..remote::Flags::default()
            };
            let config = flags.config().with_context(|| given.to_owned())?;
            Backend::Remote(Box::new(remote::Remote::new(config.remote)))
        };
        let name = name.map_or_else(|| place.to_owned(), str::to_owned);
        Ok(Target::Live { name, backend: Arc::new(backend), model: model.or_else(|| self.model.clone()) })
    }

    /// The scenarios: the same for all targets.
    fn scenarios(&self, targets: &[Target]) -> Result<Vec<Loaded>, ExitCode> {
        let paths = if self.paths.is_empty() { vec![PathBuf::from("scenarios")] } else { self.paths.clone() };
        let chosen = Select { library: self.library, paths, tags: self.tags.clone(), filter: self.filter.clone() };
        let mut scenarios = select(&chosen)?;
        let is_foreign = |target: &Target| matches!(target, Target::Live { backend, .. } if matches!(**backend, Backend::Endpoint(_)));
        if self.tags.is_empty() && targets.iter().any(is_foreign) {
            // What only farllama promises says nothing about other servers.
            let has = |loaded: &Loaded, name: &str| loaded.scenario.tags.iter().any(|tag| tag == name);
            scenarios.retain(|loaded| if self.library { has(loaded, CONFORMANCE) } else { !has(loaded, FARLLAMA) });
        }
        Ok(scenarios)
    }
}

pub(super) fn run(flags: &Flags) -> anyhow::Result<ExitCode> {
    if flags.targets.len() > TARGETS {
        bail!("{} targets are too many for a table: at most {TARGETS}", flags.targets.len());
    }
    if flags.targets.len() < 2 && flags.against.is_none() {
        bail!("name a second target to compare with, or an earlier result with --against");
    }
    let written = [("--json", &flags.json), ("--markdown", &flags.markdown), ("--html", &flags.html)];
    check_files(written.into_iter().filter_map(|(flag, path)| Some((flag, path.as_deref()?))))?;
    let baseline = match &flags.against {
        None => None,
        Some(path) => {
            let text = std::fs::read_to_string(path).with_context(|| format!("--against {}", path.display()))?;
            Some(Column::read(&text).map_err(|why| anyhow::anyhow!("--against {}: {why}", path.display()))?)
        }
    };
    let targets = flags.targets.iter().map(|given| flags.target(given)).collect::<anyhow::Result<Vec<_>>>()?;
    let scenarios = if targets.iter().all(|target| matches!(target, Target::Saved(_))) {
        Vec::new()
    } else {
        match flags.scenarios(&targets) {
            Ok(scenarios) => scenarios,
            Err(code) => return Ok(code),
        }
    };
    let columns = runtime()?.block_on(async {
        tokio::select! {
            biased;
            () = interrupted() => None,
            columns = all(flags, targets, &scenarios) => Some(columns),
        }
    });
    let Some(columns) = columns else {
        eprintln!("interrupted");
        return Ok(Exit::Interrupted.into());
    };
    let mut comparison = Comparison::new(columns?);
    if let Some(baseline) = &baseline {
        comparison = comparison.against(baseline);
    }
    let markdown = page::markdown(&comparison);
    print(&markdown);
    if let Some(path) = &flags.json {
        let text = serde_json::to_string_pretty(&comparison)? + "\n";
        std::fs::write(path, text).with_context(|| format!("--json {}", path.display()))?;
    }
    if let Some(path) = &flags.markdown {
        std::fs::write(path, &markdown).with_context(|| format!("--markdown {}", path.display()))?;
    }
    if let Some(path) = &flags.html {
        std::fs::write(path, page::html(&comparison).render()).with_context(|| format!("--html {}", path.display()))?;
    }
    if comparison.columns.iter().all(|column| column.score().1 == 0) {
        return Ok(Exit::NothingChecked.into());
    }
    let is_worse = comparison.worse.as_ref().is_some_and(|worse| !worse.is_empty());
    Ok(if is_worse { Exit::Unfit } else { Exit::Fit }.into())
}

async fn all(flags: &Flags, targets: Vec<Target>, scenarios: &[Loaded]) -> anyhow::Result<Vec<Column>> {
    let mut columns = Vec::new();
    for target in targets {
        match target {
            Target::Saved(column) => columns.push(column),
            Target::Live { name, backend, model } => {
                let runs = live(flags, &name, backend, model, scenarios).await?;
                columns.push(Column::of(name, &runs));
            }
        }
    }
    Ok(columns)
}

async fn live(
    flags: &Flags,
    name: &str,
    backend: Arc<Backend>,
    model: Option<String>,
    scenarios: &[Loaded],
) -> anyhow::Result<Vec<RunResult>> {
    let http = net::client()?;
    let is_mock = backend.is_mock();
    // The mock has no models of other servers.
    let mut model = if is_mock { None } else { model };
    if !is_mock {
        let is_foreign = matches!(*backend, Backend::Endpoint(_));
        let question = preflight::Question {
            model: model.as_deref().or((!is_foreign).then_some(smoke::MODEL)),
            is_default: model.is_none(),
            asks_model: true,
            asks_api: true,
            timeout: Some(flags.timeout.time()),
        };
        let found = backend.preflight(question, &http).await.map_err(|why| anyhow::anyhow!("{name}: {why}"))?;
        model = model.or(found);
    }
    let model = model.unwrap_or_else(|| smoke::MODEL.to_owned());
    let mut variables = Variables::new(&model, smoke::PROMPT, smoke::SYSTEM_PROMPT);
    if !is_mock {
        variables.set("embedding_model", flags.embedding_model.as_deref().unwrap_or(&model).into());
    }
    let jobs = if is_mock { std::thread::available_parallelism().map_or(4, |cores| cores.get() * 4) } else { 1 };
    let is_foreign = matches!(*backend, Backend::Endpoint(_));
    let laws = if is_foreign { Laws::default().portable() } else { Laws::default() };
    let plan = Plan {
        backend,
        http,
        variables,
        given: BTreeMap::new(),
        timeout: flags.timeout.time(),
        jobs,
        strict: false,
        fail_fast: false,
        laws,
        capabilities: Capabilities::default().within(flags.timeout.time()),
    };
    let bar = progress(name, scenarios.len() * usize::from(flags.times));
    let mut runs = Vec::new();
    for _ in 0..flags.times {
        runs.push(run::run(scenarios.to_vec(), &plan, |_| bar.inc(1)).await);
    }
    bar.finish_and_clear();
    Ok(runs)
}

fn progress(name: &str, length: usize) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        eprintln!("running {length} scenarios on {name}");
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(u64::try_from(length).unwrap_or(u64::MAX));
    if let Ok(style) = ProgressStyle::with_template("{msg} {bar:30} {pos} of {len}, {elapsed}") {
        bar.set_style(style);
    }
    bar.set_message(name.to_owned());
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
