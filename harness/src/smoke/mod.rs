//! The smoke test: the real proxy as a child process in front of a remote Ollama (or the built-in mock), and a few
//! checks through it.
//!
//! The checks are scenarios (`scenarios/smoke/`), which stand in the binary; here is what they run on, and what is said
//! about it.

mod proxy;
mod waiting;

use std::{collections::BTreeMap, path::PathBuf, process::ExitCode, sync::Arc, time::Instant};

use anyhow::{Context, bail};
use clap::Args;
use mock_ollama::{Mock, Script};

use crate::{
    backend::{Backend, Capabilities, Standing, preflight, remote},
    check::library,
    exit::Exit,
    expect::laws::Laws,
    finding::Finding,
    limit::{self, Limit},
    net,
    process::{interrupted, print, runtime},
    report::{Files, ReportedFinding, RunResult, ScenarioResult, Secrets, StepResult, Verdict, console},
    run::{self, Plan},
    scenario::{Call, loaded::Loaded, variables::Variables},
};
use proxy::Proxy;

/// The model that is asked unless another is named.
pub const MODEL: &str = "gpt-oss:20b";
/// What it is asked.
pub const PROMPT: &str = "Count from one to ten in words.";
/// The system prompt.
pub const SYSTEM_PROMPT: &str = "You are a helpful assistant. Answer in one short sentence.";

pub(crate) const HELP: &str = "\
Examples:
  farllama-check smoke --remote-host gpu-box --model llama3.2
      the Ollama on gpu-box:11434
  FARLLAMA_REMOTE_API_KEY=… farllama-check smoke --remote-host https://ollama.example/prefix
      behind a gateway with TLS and a key
  farllama-check smoke
      the built-in mock: is farllama itself fit?

Exit codes:
  0  everything that ran passed
  1  the remote is not fit: a check failed, or it lacks the model
  2  nothing could be checked: unusable flags, the remote cannot be used, or the proxy cannot be started";

/// The flags of the smoke test.
#[derive(Args, Debug)]
#[group(skip)]
pub struct Flags {
    #[command(flatten)]
    remote: remote::Flags,
    /// Where the proxy listens meanwhile
    #[arg(long, default_value = "127.0.0.1", value_name = "HOST")]
    local_host: String,
    /// Its port; 0 takes a free one
    #[arg(long, default_value_t = 18000, value_name = "PORT")]
    local_port: u16,
    /// Where the proxy serves OpenAI's API
    #[arg(long, default_value = "/v1", value_name = "PATH")]
    openai_base_path: String,
    /// The model to ask
    #[arg(long, default_value = MODEL)]
    model: String,
    /// What to ask it
    #[arg(long, default_value = PROMPT, value_name = "TEXT")]
    prompt: String,
    /// The system prompt
    #[arg(long, default_value = SYSTEM_PROMPT, value_name = "TEXT")]
    system_prompt: String,
    /// How long each check may take: 30s, 500ms; a bare number below 1000 is seconds, from 10000 on milliseconds
    #[arg(long, default_value = "120s", value_name = "TIME", value_parser = limit::parse)]
    timeout: Limit,
    /// Shows requests and replies, keys masked
    #[arg(long, short)]
    verbose: bool,
    #[command(flatten)]
    files: Files,
    /// The proxy to start [default: farllama beside this program, or on the PATH]
    #[arg(long, value_name = "FILE")]
    proxy_bin: Option<PathBuf>,
}

/// Runs the smoke test.
///
/// # Errors
/// Flags that cannot be used, or something that cannot be started.
pub fn run(flags: &Flags) -> anyhow::Result<ExitCode> {
    let remote = &flags.remote;
    if !remote.named() {
        let given = [
            ("--remote-port", &remote.remote_port),
            ("--remote-protocol", &remote.remote_protocol),
            ("--remote-base-path", &remote.remote_base_path),
        ];
        if let Some((flag, _)) = given.iter().find(|(_, value)| value.is_some()) {
            bail!(
                "{flag} is given without --remote-host: name the machine too, or leave both out to check the built-in mock"
            );
        }
    }
    flags.files.check()?;
    // The proxy reads these itself; asking first gives its words without starting anything.
    if remote.remote_name.is_some() {
        bail!("--remote-name: the smoke test checks farllama with every remote of its settings; leave it out");
    }
    let config = if remote.config.is_some() { remote.load()?.config } else { remote.config()? };
    if let Some(note) = flags.timeout.note() {
        eprintln!("{note}");
    }
    runtime()?.block_on(async {
        let mock = if remote.named() {
            None
        } else {
            Some(Mock::start(Script::default()).await.context("the built-in mock cannot start")?)
        };
        let mut proxy = tokio::select! {
            biased;
            () = interrupted() => return Ok(Exit::Interrupted.into()),
            proxy = Proxy::start(flags, mock.as_ref()) => proxy?,
        };
        let name = match &mock {
            Some(_) => "the built-in mock".to_owned(),
            None => format!("the remote {}", config.remote.url()),
        };
        let backend = Backend::Standing(Standing {
            name,
            url: proxy.listens().ollama.clone(),
            openai: proxy.listens().openai.clone(),
            journal: mock.as_ref().map(Mock::journal),
        });
        let code = tokio::select! {
            code = checks(flags, backend) => code,
            words = proxy.died() => Err(anyhow::anyhow!("the proxy ended in the middle of the checks:\n{words}")),
            () = interrupted() => {
                eprintln!("interrupted; the proxy is stopped");
                Ok(Exit::Interrupted)
            }
        };
        proxy.stop().await;
        let code = code?;
        if mock.is_some() && code != Exit::Interrupted {
            eprintln!("this checked the built-in mock, not a real Ollama: give --remote-host to check yours");
        }
        Ok(code.into())
    })
}

/// The checks, one after the other, each reported as it ends.
async fn checks(flags: &Flags, backend: Backend) -> anyhow::Result<Exit> {
    let start = Instant::now();
    let backend = Arc::new(backend);
    let Backend::Standing(standing) = &*backend else { bail!("the checks run on a proxy that stands") };
    print(&format!(
        "farllama at {} in front of {}, model {}, {} for each check\n",
        standing.url,
        standing.name,
        flags.model,
        humantime::format_duration(flags.timeout.time())
    ));
    let plan = Plan {
        backend: backend.clone(),
        http: net::client()?,
        variables: Variables::new(&flags.model, &flags.prompt, &flags.system_prompt),
        given: BTreeMap::new(),
        timeout: flags.timeout.time(),
        jobs: 1,
        strict: false,
        fail_fast: false,
        laws: Laws::default(),
        capabilities: Capabilities::default(),
    };
    let mut results: Vec<ScenarioResult> = Vec::new();
    for loaded in scenarios()? {
        let result = match unfit(&results, &loaded, &flags.model) {
            Some(result) => result,
            None => {
                // A list of models needs none of them.
                let asks = |call: &Call| !matches!(call, Call::Models);
                let needed =
                    loaded.scenario.steps.iter().flat_map(|step| &step.parts).any(|part| asks(&part.call.value));
                let model = needed.then_some(&*flags.model);
                Box::pin(waiting::with_progress(run::one(&loaded, &plan), &plan.http, &standing.url, model)).await
            }
        };
        let result = if results.is_empty() { unusable(result) } else { result };
        match cause(&result).filter(|_| !flags.verbose) {
            // What was expected instead is plain enough.
            Some(cause) => print(&format!("{}  {cause}\n", console::line(&result))),
            None => print(&console::scenario(&result, flags.verbose)),
        }
        results.push(result);
    }
    let run = RunResult::new(backend.name(), start.elapsed(), results);
    print(&console::ending(&run, flags.verbose));
    flags.files.write(&run)?;
    Ok(run.exit())
}

/// The scenarios in the binary, in order.
fn scenarios() -> anyhow::Result<Vec<Loaded>> {
    library::scenarios(Some("smoke"))
        .map_err(|problems| anyhow::anyhow!(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")))
}

/// What can be said about a check without making it: after a first check that failed the others are skipped,
/// and a model that the remote does not have cannot be asked, which fails once.
fn unfit(results: &[ScenarioResult], loaded: &Loaded, model: &str) -> Option<ScenarioResult> {
    let first = results.first()?;
    let mut result = ScenarioResult {
        file: loaded.file.clone(),
        title: loaded.scenario.title.value.clone(),
        tags: loaded.scenario.tags.clone(),
        verdict: Verdict::Skipped,
        reason: Some(format!("the first check failed: {}", first.title)),
        took: std::time::Duration::ZERO,
        fingerprint: loaded.fingerprint(),
        steps: Vec::new(),
    };
    if first.verdict != Verdict::Passed {
        return Some(result);
    }
    if !loaded.scenario.tags.iter().any(|tag| tag == "model") {
        return None;
    }
    let listed = &first.steps.first()?.understood["data"];
    let names: Vec<&str> = listed.as_array()?.iter().filter_map(|model| model["id"].as_str()).collect();
    if preflight::lists(&names, model) {
        return None;
    }
    let lacks = format!("the remote does not have the model `{model}`");
    if results.iter().any(|earlier| earlier.verdict == Verdict::Failed) {
        result.reason = Some(lacks);
        return Some(result);
    }
    let actual = match &names[..] {
        [] => "no models yet".to_owned(),
        names => names.join(", "),
    };
    let message =
        format!("{lacks}. It has: {actual}. Name one of these with --model, or get it there: ollama pull {model}");
    let finding = Finding {
        at: loaded.scenario.steps.first()?.place(),
        about: "model".to_owned(),
        expected: format!("`{model}`"),
        actual,
        law: None,
    };
    result.verdict = Verdict::Failed;
    result.reason = None;
    result.steps.push(StepResult {
        name: "not asked".to_owned(),
        findings: vec![ReportedFinding::new(&loaded.file, finding, &Secrets::default())],
        understood: serde_json::json!({"error": {"message": message}}),
        ..StepResult::default()
    });
    Some(result)
}

/// The result of the first check. If the remote cannot be used at all (it cannot be reached, it refuses the key, it is
/// no Ollama), nothing was checked: that is no failed check. An answer that a client cannot read is one.
fn unusable(result: ScenarioResult) -> ScenarioResult {
    let failed = result.steps.iter().find(|step| !step.findings.is_empty());
    let error = failed.map(|step| &step.understood["error"]);
    let kind = error.and_then(|error| error["kind"].as_str());
    match cause(&result).map(str::to_owned) {
        Some(cause) if matches!(kind, Some("api" | "transport")) => {
            ScenarioResult { verdict: Verdict::Broken, reason: Some(cause), ..result }
        }
        _ => result,
    }
}

/// The error's own words: the proxy says what is wrong with the remote and what to change.
fn cause(result: &ScenarioResult) -> Option<&str> {
    let failed = result.steps.iter().find(|step| !step.findings.is_empty())?;
    failed.understood["error"]["message"].as_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scenarios_in_the_binary_can_be_run() {
        let scenarios = scenarios().unwrap();
        assert!(scenarios.len() >= 4);
        let first = &scenarios[0].scenario.steps[0].parts[0].call.value;
        assert!(matches!(first, Call::Models), "the list of models comes first");
    }
}
