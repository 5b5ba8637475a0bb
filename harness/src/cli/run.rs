//! `farllama-check run`: which backend the flags mean, the preflight, the run, its reports.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::IsTerminal,
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::bail;
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};

use super::{Select, select};
#[cfg(feature = "container")]
use crate::backend::container::{Container, Reporter};
use crate::{
    backend::{
        Backend, Capabilities,
        bridge::{self, Exceptions},
        endpoint::{self, Endpoint},
        preflight, remote,
    },
    check::warn,
    exit::Exit,
    expect::laws::Laws,
    limit::{self, Limit},
    net,
    process::{interrupted, print, runtime},
    report::{Files, Verdict, console, github},
    run::{self, Plan},
    scenario::{
        Call, Need, Scenario,
        loaded::Loaded,
        variables::Variables,
        versions::{self, Asked},
    },
    smoke,
    text::suggestion,
};

/// The image of the container backend, unless another is named.
const IMAGE: &str = "ollama/ollama:0.32.11";
/// The tag of scenarios that every OpenAI-compatible server is expected to pass.
pub(super) const CONFORMANCE: &str = "conformance";
/// The tag of scenarios about what only farllama promises.
pub(super) const FARLLAMA: &str = "farllama";

#[derive(Args, Debug)]
pub(super) struct Flags {
    #[command(flatten)]
    select: Select,
    /// Only what this tool sends, such as codex, of the scenarios that come with farllama-check (may be given several
    /// times)
    #[arg(long = "persona", value_name = "TOOL", conflicts_with = "paths")]
    personas: Vec<String>,
    /// Runs scenarios again when their files change, until interrupted
    #[arg(long, conflicts_with_all = ["library", "personas", "dry_run"])]
    watch: bool,
    /// Leaves out scenarios whose file or title contains this text (may be given several times)
    #[arg(long = "skip", value_name = "TEXT")]
    skip: Vec<String>,
    /// What stands behind the proxy [default: what other flags imply (--base-url: target, --remote-host: remote,
    /// --image, --pull, --volume: container), else mock]
    #[arg(long, value_enum)]
    backend: Option<Kind>,
    /// The image of the container backend [default: ollama/ollama:0.32.11]
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
    /// The version of Ollama that the mock plays, for the scenarios that speak of it (may be given several times);
    /// `each`: every version that the proxy treats differently
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
    /// The model of scenarios that leave it open [default: the only one that a target lists; gpt-oss:20b elsewhere]
    #[arg(long)]
    model: Option<String>,
    /// The model that makes vectors, as ${embedding_model} [default: --model; all-minilm on the mock]
    #[arg(long, value_name = "MODEL")]
    embedding_model: Option<String>,
    /// What the server and the model can do, such as tools,embeddings, or `none`; what is not named is skipped
    /// [default: found out by asking]
    #[arg(long = "capability", value_name = "NAME,…", value_delimiter = ',')]
    capabilities: Vec<String>,
    /// Does not check streams against this law (may be given several times; `all`: against none);
    /// `farllama-check laws` lists them
    #[arg(long = "no-law", value_name = "NAME")]
    no_laws: Vec<String>,
    /// Checks the streams of a target against the strict laws too, which farllama keeps and not every server
    #[arg(long)]
    strict_laws: bool,
    /// Does not ask first whether the server can be reached, accepts the key and has the model
    #[arg(long)]
    no_preflight: bool,
    /// How many scenarios run at a time [default: several on the mock, one elsewhere]
    #[arg(long, value_name = "N", value_parser = limit::jobs)]
    jobs: Option<usize>,
    /// How long each call may take: 30s, 500ms; a bare number below 1000 is seconds, from 10000 on milliseconds
    /// [default: 30s on the mock, 5m elsewhere]
    #[arg(long, value_name = "TIME", value_parser = limit::parse)]
    timeout: Option<Limit>,
    /// A variable of the scenarios, such as city=Oslo (may be given several times)
    #[arg(long = "var", value_name = "NAME=VALUE", value_parser = variable)]
    vars: Vec<(String, String)>,
    /// Begins no scenario after one that failed
    #[arg(long)]
    fail_fast: bool,
    /// Shows what would run and what would be skipped, and makes no call
    #[arg(long)]
    dry_run: bool,
    /// Shows every exchange, keys masked, and every scenario that is skipped
    #[arg(long, short, conflicts_with = "quiet")]
    verbose: bool,
    /// Shows what failed, and the counts
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    files: Files,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Kind {
    /// A mock Ollama of its own for each scenario, in process
    Mock,
    /// The same mock behind an OpenAI server, of which the proxy makes an Ollama again: for scenarios that call
    /// Ollama's API
    Bridge,
    /// The Ollama that --remote-host names
    Remote,
    /// An Ollama in a container (see --image)
    Container,
    /// The server that --base-url names, without a proxy of ours: Ollama's own /v1, LiteLLM, vLLM, llama.cpp, …
    Target,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Mock => "mock",
            Self::Bridge => "bridge",
            Self::Remote => "remote",
            Self::Container => "container",
            Self::Target => "target",
        }
    }

    /// How many scenarios run at a time.
    pub(super) fn jobs(self) -> usize {
        match self {
            // They wait more than they work.
            Self::Mock | Self::Bridge => std::thread::available_parallelism().map_or(4, |cores| cores.get() * 4),
            // A real Ollama would only put them into its queue.
            Self::Remote | Self::Container | Self::Target => 1,
        }
    }

    /// How long a call may take.
    fn timeout(self) -> Duration {
        match self {
            Self::Mock | Self::Bridge => Duration::from_secs(30),
            // A model may have to be loaded first.
            Self::Remote | Self::Container | Self::Target => Duration::from_secs(300),
        }
    }
}

impl Flags {
    /// The backend that the flags mean. A flag of one backend implies it, so that a run never checks another one in
    /// silence.
    fn kind(&self) -> anyhow::Result<Kind> {
        let implied = [
            ("--base-url", self.target.base_url.is_some(), Kind::Target),
            ("--remote-host", self.remote.remote_host.is_some(), Kind::Remote),
            ("--api-key", is_flag(self.target.api_key.as_deref(), endpoint::KEY), Kind::Target),
            ("--remote-api-key", is_flag(self.remote.remote_api_key.as_deref(), remote::KEY), Kind::Remote),
            ("--image", self.image.is_some(), Kind::Container),
            ("--pull", self.pull, Kind::Container),
            ("--volume", self.volume.is_some(), Kind::Container),
            ("--mock-version", !self.mock_versions.is_empty(), Kind::Mock),
        ];
        let mut chosen = self.backend.map(|kind| (format!("--backend {}", kind.name()), kind));
        for (flag, _, kind) in implied.into_iter().filter(|(_, is_given, _)| *is_given) {
            match &chosen {
                Some((other, chosen)) if *chosen != kind => {
                    let instead = match (flag, chosen) {
                        ("--api-key", Kind::Remote) => " (the key of a remote is --remote-api-key)",
                        ("--remote-api-key", Kind::Target) => " (the key of a target is --api-key)",
                        _ => "",
                    };
                    bail!(
                        "{flag} is for --backend {}, which contradicts {other}: leave out one of them{instead}",
                        kind.name()
                    );
                }
                Some(_) => {}
                None => chosen = Some((flag.to_owned(), kind)),
            }
        }
        let kind = chosen.map_or(Kind::Mock, |(_, kind)| kind);
        let parts = [
            ("--remote-port", self.remote.remote_port.is_some()),
            ("--remote-protocol", self.remote.remote_protocol.is_some()),
            ("--remote-base-path", self.remote.remote_base_path.is_some()),
        ];
        if let Some((flag, _)) = parts.iter().find(|(_, is_given)| *is_given && kind != Kind::Remote) {
            bail!("{flag} is given without --remote-host: name the machine too");
        }
        if matches!(kind, Kind::Mock | Kind::Bridge) && !self.capabilities.is_empty() {
            bail!("--capability is for other backends: the built-in mock has models for every capability");
        }
        if self.strict_laws && kind != Kind::Target {
            bail!("--strict-laws is for --backend target; elsewhere they are checked anyway");
        }
        Ok(kind)
    }

    fn backend(&self, kind: Kind, bar: &ProgressBar) -> anyhow::Result<Backend> {
        Ok(match kind {
            Kind::Mock => Backend::Mock,
            Kind::Bridge => Backend::Bridge(Exceptions::read().map_err(anyhow::Error::msg)?),
            Kind::Remote if !self.remote.named() => {
                let empty = if self.remote.remote_host.is_some() { "--remote-host is empty: " } else { "" };
                bail!("{empty}--backend remote needs --remote-host, such as gpu-box or http://gpu-box:11434");
            }
            Kind::Remote => Backend::Remote(Box::new(remote::Remote::new(self.remote.config()?.remote))),
            #[cfg(not(feature = "container"))]
            Kind::Container => {
                let _ = (bar, IMAGE);
                bail!(
                    "this farllama-check was built without the container backend: install it with the feature `container` \
                     (cargo install --features container), or start Ollama yourself and give --remote-host"
                );
            }
            #[cfg(feature = "container")]
            Kind::Container => {
                let model = self.pull.then(|| self.model.clone().unwrap_or_else(|| smoke::MODEL.to_owned()));
                let bar = bar.clone();
                let reporter = Reporter::by(move |line| bar.suspend(|| eprintln!("{line}")));
                let image = self.image.as_deref().unwrap_or(IMAGE);
                let container = Container::new(image, reporter).with_volume(self.volume.clone()).with_model(model);
                Backend::Container(Box::new(container))
            }
            Kind::Target => Backend::Endpoint(Endpoint::new(&self.target).map_err(anyhow::Error::msg)?),
        })
    }

    /// What runs on a target: of the library the conformance set, of other files all that farllama does not promise
    /// alone. With --tag, the tags choose.
    fn of_target(&self, scenarios: Vec<Loaded>) -> Vec<Loaded> {
        if !self.select.tags.is_empty() || !self.personas.is_empty() {
            return scenarios;
        }
        let has = |loaded: &Loaded, name: &str| loaded.scenario.tags.iter().any(|tag| tag == name);
        let all = scenarios.len();
        let library = self.select.library;
        let chosen = |loaded: &Loaded| if library { has(loaded, CONFORMANCE) } else { !has(loaded, FARLLAMA) };
        let kept: Vec<_> = scenarios.into_iter().filter(chosen).collect();
        if kept.len() < all && !self.quiet {
            let what = if library { "the conformance set" } else { "what farllama alone promises is left out" };
            eprintln!("{what}: {} of {all} scenarios (--tag {FARLLAMA} runs what only farllama promises)", kept.len());
        }
        kept
    }

    fn plan(&self, kind: Kind, backend: Backend, scenarios: &[Loaded]) -> anyhow::Result<Plan> {
        let model = self.model.as_deref().unwrap_or(smoke::MODEL);
        let mut variables = Variables::new(model, smoke::PROMPT, smoke::SYSTEM_PROMPT);
        let is_mock = backend.is_mock();
        if let Some(vectors) = self.embedding_model.as_deref().or_else(|| (!is_mock).then_some(model)) {
            variables.set("embedding_model", vectors.into());
        }
        let given: BTreeMap<String, String> = self.vars.iter().cloned().collect();
        for (name, value) in &given {
            let declared = |loaded: &Loaded| loaded.scenario.vars.0.iter().any(|check| check.key == *name);
            if variables.knows(name) {
                variables.set(name, value.as_str().into());
            } else if !scenarios.iter().any(declared) {
                bail!("--var {name}: no selected scenario has this variable (`vars: {{ {name}: … }}`)");
            }
        }
        let laws = Laws::without(&self.no_laws).map_err(|wrong| anyhow::anyhow!("--no-law {wrong}"))?;
        let capabilities = Capabilities::given(&self.capabilities);
        let timeout = self.timeout.map_or(kind.timeout(), Limit::time);
        Ok(Plan {
            backend: Arc::new(backend),
            http: if kind == Kind::Target { self.target.client()? } else { net::client()? },
            variables,
            given,
            timeout,
            jobs: self.jobs.unwrap_or(kind.jobs()),
            strict: std::env::var("CI").is_ok_and(|ci| ci == "true"),
            fail_fast: self.fail_fast,
            laws: match kind {
                Kind::Target if !self.strict_laws => laws.portable(),
                // What passes through comes in the pieces of the network.
                Kind::Bridge => laws.and_without([&"one-piece".to_owned()]).map_err(anyhow::Error::msg)?,
                _ => laws,
            },
            capabilities: capabilities.map_err(|wrong| anyhow::anyhow!("--capability {wrong}"))?.within(timeout),
        })
    }
}

/// The tag of scenarios that send what a tool sends.
const PERSONA: &str = "persona:";
/// How often files are looked at for changes.
const LOOK: Duration = Duration::from_millis(300);

pub(super) fn run(flags: &Flags) -> anyhow::Result<ExitCode> {
    if !flags.watch {
        return once(flags, None);
    }
    let mut before = Vec::new();
    loop {
        // A file that is being written may be missing, or no YAML; the next look finds it whole.
        let now = written(&flags.select.paths);
        let changed: Vec<PathBuf> =
            now.iter().filter(|entry| !before.contains(*entry)).map(|(path, _)| path.clone()).collect();
        let is_shared = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('_'));
        if !changed.is_empty() {
            let all = before.is_empty() || changed.iter().any(is_shared);
            match once(flags, (!all).then_some(&changed[..])) {
                Ok(code) if code == Exit::Interrupted.into() => return Ok(code),
                Ok(_) => {}
                Err(error) => eprintln!("farllama-check: {error:#}"),
            }
            eprintln!("waiting for changes; Ctrl-C ends");
        }
        before = now;
        let ended = runtime()?.block_on(async {
            tokio::select! {
                biased;
                () = interrupted() => true,
                () = tokio::time::sleep(LOOK) => false,
            }
        });
        if ended {
            return Ok(Exit::Interrupted.into());
        }
    }
}

/// The scenario files, shared steps included, each with the time at which it was written.
fn written(paths: &[PathBuf]) -> Vec<(PathBuf, Option<SystemTime>)> {
    let mut found = Vec::new();
    let mut left = paths.to_vec();
    while let Some(path) = left.pop() {
        if let Ok(entries) = std::fs::read_dir(&path) {
            left.extend(entries.filter_map(|entry| entry.ok().map(|entry| entry.path())));
        } else if path.extension().is_some_and(|ending| ending == "yaml" || ending == "yml") {
            let time = path.metadata().and_then(|data| data.modified()).ok();
            found.push((path, time));
        }
    }
    found.sort();
    found
}

/// The scenarios that the flags select, and `only` those of these files.
fn selected(flags: &Flags, only: Option<&[PathBuf]>) -> anyhow::Result<Result<Vec<Loaded>, ExitCode>> {
    if flags.personas.is_empty() {
        let scenarios = select(&flags.select);
        let is_meant =
            |loaded: &Loaded| only.is_none_or(|only| only.iter().any(|path| path.as_os_str() == &*loaded.file));
        return Ok(scenarios.map(|all| all.into_iter().filter(is_meant).collect()));
    }
    of_tools(&flags.select, &flags.personas)
}

/// The scenarios of the library that send what these tools send.
pub(super) fn of_tools(chosen: &Select, tools: &[String]) -> anyhow::Result<Result<Vec<Loaded>, ExitCode>> {
    let all = match select(&Select { library: true, ..chosen.clone() }) {
        Ok(all) => all,
        Err(code) => return Ok(Err(code)),
    };
    let names: Vec<&str> =
        all.iter().flat_map(|loaded| &loaded.scenario.tags).filter_map(|tag| tag.strip_prefix(PERSONA)).collect();
    for name in tools {
        if !names.contains(&&**name) {
            let known: std::collections::BTreeSet<_> = names.iter().copied().collect();
            let list = known.iter().copied().collect::<Vec<_>>().join(", ");
            bail!("--persona: unknown tool `{name}`{}; known are {list}", suggestion(name, known));
        }
    }
    let is_meant = |loaded: &Loaded| {
        let tags = loaded.scenario.tags.iter().filter_map(|tag| tag.strip_prefix(PERSONA));
        tags.into_iter().any(|name| tools.iter().any(|wanted| wanted == name))
    };
    Ok(Ok(all.into_iter().filter(is_meant).collect()))
}

/// Runs once.
fn once(flags: &Flags, only: Option<&[PathBuf]>) -> anyhow::Result<ExitCode> {
    let kind = flags.kind()?;
    if let Some(note) = flags.timeout.and_then(Limit::note) {
        eprintln!("{note}");
    }
    let bar = progress();
    let backend = flags.backend(kind, &bar)?;
    let scenarios = match selected(flags, only)? {
        Ok(scenarios) => scenarios,
        Err(code) => return Ok(code),
    };
    for warning in warn::of(&scenarios) {
        eprintln!("warning: {warning}");
    }
    let left_out = |loaded: &Loaded| {
        flags.skip.iter().any(|text| loaded.file.contains(text) || loaded.scenario.title.value.contains(text))
    };
    let scenarios: Vec<_> = scenarios.into_iter().filter(|loaded| !left_out(loaded)).collect();
    let mut scenarios = versions::expand(scenarios, &flags.mock_versions);
    if scenarios.is_empty() {
        eprintln!("farllama-check: no scenario is left to run (--skip, --mock-version)");
        return Ok(Exit::NothingChecked.into());
    }
    if kind == Kind::Target {
        scenarios = flags.of_target(scenarios);
        if scenarios.is_empty() {
            eprintln!("farllama-check: no selected scenario is for a server other than farllama");
            return Ok(Exit::NothingChecked.into());
        }
    }
    if kind == Kind::Bridge {
        scenarios.retain(|loaded| bridge::is_native(&loaded.scenario));
        if scenarios.is_empty() {
            eprintln!("farllama-check: no selected scenario calls Ollama's API (--backend bridge)");
            return Ok(Exit::NothingChecked.into());
        }
    }
    let mut plan = flags.plan(kind, backend, &scenarios)?;
    flags.files.check()?;
    if flags.dry_run {
        return Ok(dry_run(&scenarios, &plan));
    }
    let runtime = runtime()?;
    let able: Vec<_> = scenarios
        .iter()
        .filter(|loaded| run::ruled_out(loaded, &plan).is_none())
        .map(|loaded| &loaded.scenario)
        .collect();
    let is_default = flags.model.is_none() && !plan.backend.is_mock();
    let asks_model = able.iter().any(|scenario| scenario.mentions("model"));
    if flags.no_preflight && kind == Kind::Target && is_default && asks_model {
        bail!("name the model to ask with --model: without the preflight, what the server has is not known");
    }
    if !flags.no_preflight && !able.is_empty() {
        let question = preflight::Question {
            model: flags.model.as_deref().or((kind != Kind::Target).then_some(smoke::MODEL)),
            is_default,
            asks_model: asks_model || able.iter().any(|scenario| tries_model(scenario, &plan.capabilities)),
            asks_api: able.iter().any(|scenario| asks_api(scenario)),
            timeout: Some(plan.timeout),
        };
        let asked = runtime.block_on(async {
            let mut preflight = std::pin::pin!(plan.backend.preflight(question, &plan.http));
            tokio::select! {
                biased;
                () = interrupted() => {
                    // A container that is being started must be started before it can be removed, so its start goes on.
                    let starting = async {
                        let _ = preflight.await;
                        std::future::pending::<()>().await;
                    };
                    tokio::select! {
                        () = plan.backend.stop() => {}
                        () = starting => {}
                    }
                    None
                }
                asked = &mut preflight => Some(asked),
            }
        });
        match asked {
            None => {
                eprintln!("interrupted");
                return Ok(Exit::Interrupted.into());
            }
            Some(Ok(None)) => {}
            Some(Ok(Some(model))) => {
                eprintln!("model: {model}, the only one that the server lists (--model names another)");
                if flags.embedding_model.is_none() {
                    plan.variables.set("embedding_model", model.as_str().into());
                }
                plan.variables.set("model", model.into());
            }
            Some(Err(problem)) => {
                runtime.block_on(plan.backend.stop());
                bail!("{problem}");
            }
        }
    }
    if kind != Kind::Target && is_default && asks_model {
        eprintln!("model: {}, the default (--model names another)", smoke::MODEL);
    }
    bar.set_length(u64::try_from(scenarios.len()).unwrap_or(u64::MAX));
    let github = github::reads().then(github::quoted);
    if let Some((begin, _)) = &github {
        print(begin);
    }
    let run = runtime.block_on(async {
        let running = run::run(scenarios, &plan, |result| {
            let shown = match result.verdict {
                Verdict::Failed | Verdict::Broken => true,
                Verdict::Passed => !flags.quiet,
                Verdict::Skipped => flags.verbose,
            };
            if shown {
                bar.suspend(|| print(&console::scenario(result, flags.verbose)));
            }
            bar.inc(1);
        });
        let run = tokio::select! {
            biased;
            () = interrupted() => None,
            run = running => Some(run),
        };
        plan.backend.stop().await;
        run
    });
    bar.finish_and_clear();
    if let Some(run) = &run {
        print(&console::ending(run, flags.verbose));
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

/// Shows what would be done with each scenario, by the same rules as the run.
fn dry_run(scenarios: &[Loaded], plan: &Plan) -> ExitCode {
    let mut out = String::new();
    let (mut runs, mut skipped, mut broken) = (0, 0, 0);
    for loaded in scenarios {
        let (file, scenario) = (&loaded.file, &loaded.scenario);
        let exception = || Some((Verdict::Skipped, plan.backend.exception(file)?.to_owned()));
        let _ = match run::ruled_out(loaded, plan).or_else(exception) {
            None => {
                runs += 1;
                let is_open = |need: &Need| match need {
                    Need::Capability(capability) => !plan.capabilities.requires(*capability),
                    need => need.is_asked(),
                };
                let asked: Vec<_> = if plan.backend.is_mock() {
                    Vec::new()
                } else {
                    scenario.needs().iter().filter(|need| is_open(need)).map(ToString::to_string).collect()
                };
                let provided =
                    if asked.is_empty() { String::new() } else { format!(" (if it has {})", asked.join(" and ")) };
                writeln!(out, "run     {file}  {}{provided}", scenario.title.value)
            }
            Some((Verdict::Broken, reason)) => {
                broken += 1;
                writeln!(out, "broken  {file}  {}\n    {reason}", scenario.title.value)
            }
            Some((_, reason)) => {
                skipped += 1;
                writeln!(out, "skip    {file}  {}\n    {reason}", scenario.title.value)
            }
        };
    }
    let could_not = if broken > 0 { format!(", {broken} could not be run") } else { String::new() };
    let _ = writeln!(out, "{runs} would run on {}, {skipped} would be skipped{could_not}", plan.backend.name());
    print(&out);
    match (broken, runs) {
        (1.., _) => Exit::Unusable,
        (0, 0) => Exit::NothingChecked,
        _ => Exit::Fit,
    }
    .into()
}

/// Whether the model is asked to find out whether it can do what a scenario needs.
fn tries_model(scenario: &Scenario, capabilities: &Capabilities) -> bool {
    scenario.needs().iter().any(|need| matches!(need, Need::Capability(one) if !capabilities.requires(*one)))
}

/// Whether a scenario makes a call of OpenAI's API, and not only raw calls of other paths.
fn asks_api(scenario: &Scenario) -> bool {
    scenario.all_steps().flat_map(|step| &step.parts).any(|part| match &part.call.value {
        Call::Http(http) => http.path.starts_with("/v1/"),
        _ => true,
    })
}

/// Whether a key was given by its flag. One in the environment may be there for another run, so it implies no backend.
fn is_flag(key: Option<&str>, variable: &str) -> bool {
    key.is_some() && std::env::var(variable).ok().as_deref() != key
}

/// Reads `NAME=VALUE`.
fn variable(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("a variable is written NAME=VALUE, such as city=Oslo")?;
    if !crate::scenario::variables::is_name(name) {
        return Err(format!("invalid variable name {name:?}: use letters, digits and _"));
    }
    Ok((name.to_owned(), value.to_owned()))
}

/// A bar on a terminal; nothing elsewhere.
fn progress() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos} of {len}, {elapsed}") {
        bar.set_style(style);
    }
    bar
}
