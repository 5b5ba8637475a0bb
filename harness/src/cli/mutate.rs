//! `farllama-check mutate`: whether scenarios notice broken traffic.

use std::{collections::BTreeMap, fmt::Write, path::PathBuf, process::ExitCode, sync::Arc};

use anyhow::Context;
use clap::Args;

use super::{
    Select,
    run::{Kind, of_tools},
    select,
};
use crate::{
    backend::{Backend, Capabilities},
    exit::Exit,
    expect::laws::Laws,
    limit::{self, Limit},
    mutants::MUTANTS,
    net,
    process::{interrupted, print, runtime},
    proof::{self, Proof, Question, parameters},
    run::Plan,
    scenario::{loaded::Loaded, variables::Variables},
    smoke,
};

pub(super) const HELP: &str = "\
A scenario with the tag mutant:NAME claims that it fails when that mutant is at work; these claims are run. \
With --all, every scenario runs against every mutant; --reached leaves out those that change nothing there. \
With --parameters, each request field of a table is dropped in turn, until a scenario that sends it fails.

Exit codes:
  0  each mutant is noticed, and every claim holds
  1  no scenario notices a mutant or misses a field, a claim does not hold, or a scenario cannot fail
  2  unusable input (flags, YAML), or something could not be started
  3  nothing was checked: no scenario was selected";

#[derive(Args, Debug)]
pub(super) struct Flags {
    #[command(flatten)]
    select: Select,
    /// Every scenario against every mutant
    #[arg(long)]
    all: bool,
    /// Only what this tool sends, such as codex, against the mutants that would break it (may be given several times)
    #[arg(long = "persona", value_name = "TOOL", conflicts_with_all = ["paths", "all"])]
    personas: Vec<String>,
    /// Leaves out mutants that change nothing in the selected scenarios: for scenarios about one API, or about a server
    /// without farllama
    #[arg(long)]
    reached: bool,
    /// Only this mutant (may be given several times)
    #[arg(long = "mutant", value_name = "NAME")]
    mutants: Vec<String>,
    /// A page with a table of request fields, such as docs/parameters.md: each must be missed when it is dropped
    #[arg(long, value_name = "FILE")]
    parameters: Option<PathBuf>,
    /// Shows the mutants and what each does
    #[arg(long)]
    list: bool,
    /// How many scenarios run at a time
    #[arg(long, value_name = "N", value_parser = limit::jobs)]
    jobs: Option<usize>,
    /// How long each call may take: 30s, 500ms; a bare number below 1000 is seconds, from 10000 on milliseconds
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = limit::parse)]
    timeout: Limit,
}

pub(super) fn run(flags: &Flags) -> anyhow::Result<ExitCode> {
    if flags.list {
        let width = MUTANTS.iter().map(|mutant| mutant.name.len()).max().unwrap_or(0);
        let lines: Vec<_> = MUTANTS.iter().map(|mutant| format!("{:width$}  {}\n", mutant.name, mutant.what)).collect();
        print(&lines.concat());
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(note) = flags.timeout.note() {
        eprintln!("{note}");
    }
    let mutants = proof::choose(&flags.mutants).map_err(anyhow::Error::msg)?;
    let fields = match &flags.parameters {
        None => Vec::new(),
        Some(path) => {
            let page = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
            parameters::table(&page).map_err(|why| anyhow::anyhow!("{}: {why}", path.display()))?
        }
    };
    let selected =
        if flags.personas.is_empty() { select(&flags.select) } else { of_tools(&flags.select, &flags.personas)? };
    let scenarios = match selected {
        Ok(scenarios) => scenarios,
        Err(code) => return Ok(code),
    };
    let claims = |loaded: &Loaded| loaded.scenario.tags.iter().any(|tag| tag.starts_with(proof::TAG));
    if !flags.all && fields.is_empty() && !scenarios.iter().any(claims) {
        eprintln!(
            "farllama-check: none of the {} selected scenarios has a tag such as `mutant:usage-wrong`, which claims that it fails when that \
             mutant breaks the traffic; so there is nothing to prove.\nRun every scenario against every mutant with --all, see the mutants \
             with --list, then tag each scenario with those that it must notice: `tags: [mutant:NAME]`.",
            scenarios.len()
        );
        return Ok(Exit::NothingChecked.into());
    }
    let plan = Plan {
        backend: Arc::new(Backend::Mock),
        http: net::client()?,
        variables: Variables::new(smoke::MODEL, smoke::PROMPT, smoke::SYSTEM_PROMPT),
        given: BTreeMap::new(),
        timeout: flags.timeout.time(),
        jobs: flags.jobs.unwrap_or(Kind::Mock.jobs()),
        strict: false,
        fail_fast: false,
        laws: Laws::default(),
        capabilities: Capabilities::default(),
    };
    let concerned = flags.reached || !flags.personas.is_empty();
    let question = Question { mutants, fields, all: flags.all, concerned };
    let proof = runtime()?.block_on(async {
        tokio::select! {
            biased;
            () = interrupted() => None,
            proof = proof::prove(&scenarios, &question, &plan) => Some(proof),
        }
    });
    let Some(proof) = proof else {
        eprintln!("interrupted");
        return Ok(Exit::Interrupted.into());
    };
    print(&summary(&proof, question.fields.len()));
    Ok(match (proof.problems.is_empty(), proof.runs) {
        (true, 0) => Exit::NothingChecked.into(),
        (true, _) => ExitCode::SUCCESS,
        (false, _) => Exit::Unfit.into(),
    })
}

fn summary(proof: &Proof, fields: usize) -> String {
    let width = proof.noticed.iter().map(|(mutant, _)| mutant.name.len()).max().unwrap_or(0);
    let mut out = String::new();
    for (mutant, by) in &proof.noticed {
        let who = match by.iter().next() {
            None => "no scenario".to_owned(),
            Some(only) if by.len() == 1 => only.clone(),
            Some(first) => format!("{first} and {} more", by.len() - 1),
        };
        let _ = writeln!(out, "{:width$}  {}: noticed by {who}", mutant.name, mutant.what);
    }
    for file in &proof.thin {
        let _ = writeln!(out, "? {file}: only what breaks almost every answer can fail it");
    }
    for problem in &proof.problems {
        let _ = writeln!(out, "! {problem}");
    }
    let unnoticed = proof.noticed.iter().filter(|(_, by)| by.is_empty()).count();
    let left_out = match proof.left_out {
        0 => String::new(),
        count => format!("{count} more do not concern these scenarios, "),
    };
    let fields = if fields == 0 { String::new() } else { format!("{} of {fields} fields missed, ", proof.missed) };
    let _ = writeln!(
        out,
        "{} mutants, {unnoticed} unnoticed, {left_out}{fields}{} problems, {} runs",
        proof.noticed.len(),
        proof.problems.len(),
        proof.runs
    );
    out
}
