//! Runs scenarios side by side, each with a target of its own, and builds the tree of results.

mod steps;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream};

use crate::{
    backend::{Backend, Capabilities, Missing, Shared},
    expect::laws::Laws,
    report::{RunResult, ScenarioResult, Verdict},
    scenario::{loaded::Loaded, variables::Variables},
};

/// How to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where.
    pub backend: Shared,
    /// Makes the requests; see [`crate::net::client()`].
    pub http: reqwest::Client,
    /// What `${…}` stands for.
    pub variables: Variables,
    /// Values of variables that a person gives; they win over those that scenarios give.
    pub given: BTreeMap<String, String>,
    /// How long each call may take.
    pub timeout: Duration,
    /// How many scenarios run at a time.
    pub jobs: usize,
    /// A scenario that is skipped because the machine lacks a service counts as broken (`CI=true`).
    pub strict: bool,
    /// After a scenario that failed none is begun.
    pub fail_fast: bool,
    /// What every stream is checked against.
    pub laws: Laws,
    /// What the server and its model can do.
    pub capabilities: Capabilities,
}

/// Runs all; `landed` is called with each result.
pub async fn run(scenarios: Vec<Loaded>, plan: &Plan, mut landed: impl FnMut(&ScenarioResult)) -> RunResult {
    let start = Instant::now();
    let stopped = Arc::new(AtomicBool::new(false));
    let needs: Vec<_> = scenarios.iter().map(|loaded| loaded.scenario.needs()).collect();
    let running = scenarios.into_iter().enumerate().map(|(nth, loaded)| {
        let plan = plan.clone();
        let stopped = stopped.clone();
        async move {
            if stopped.load(Ordering::SeqCst) {
                return (
                    nth,
                    unrun(&loaded, Verdict::Skipped, "another scenario failed before (--fail-fast)".to_owned()),
                );
            }
            let loaded = Arc::new(loaded);
            // A task of its own, so that a panic ends this scenario and no other.
            let task = tokio::spawn({
                let loaded = loaded.clone();
                async move { one(&loaded, &plan).await }
            });
            (
                nth,
                task.await
                    .unwrap_or_else(|error| unrun(&loaded, Verdict::Broken, format!("a bug in the harness: {error}"))),
            )
        }
    });
    let mut running = stream::iter(running).buffer_unordered(plan.jobs.max(1));
    let mut results = Vec::new();
    while let Some((nth, result)) = running.next().await {
        if plan.fail_fast && matches!(result.verdict, Verdict::Failed | Verdict::Broken) {
            stopped.store(true, Ordering::SeqCst);
        }
        landed(&result);
        results.push((nth, result));
    }
    results.sort_by_key(|(nth, _)| *nth);
    let mut tried: BTreeMap<&'static str, usize> = BTreeMap::new();
    for (nth, _) in results.iter().filter(|(_, result)| result.verdict == Verdict::Failed) {
        for capability in plan.capabilities.found(&needs[*nth]) {
            *tried.entry(capability.name()).or_default() += 1;
        }
    }
    let container = plan.backend.container();
    let run =
        RunResult::new(plan.backend.name(), start.elapsed(), results.into_iter().map(|(_, result)| result).collect());
    RunResult { container, tried, ..run }
}

/// What becomes of a scenario that cannot run here, and why, as far as that is known without a call.
#[must_use]
pub fn ruled_out(loaded: &Loaded, plan: &Plan) -> Option<(Verdict, String)> {
    if let Some(reason) = plan.backend.refuses(&loaded.scenario) {
        return Some((Verdict::Skipped, reason));
    }
    if let Err(reason) = steps::variables(loaded, plan) {
        return Some(if plan.strict {
            (Verdict::Broken, format!("{reason}; on CI (CI=true) this is a failure"))
        } else {
            (Verdict::Skipped, reason)
        });
    }
    let excluded = plan.capabilities.excluded(&loaded.scenario.needs()).filter(|_| !plan.backend.is_mock());
    excluded.map(|reason| (Verdict::Skipped, reason))
}

/// Runs one scenario.
pub async fn one(loaded: &Loaded, plan: &Plan) -> ScenarioResult {
    let start = Instant::now();
    let backend: &Backend = &plan.backend;
    if let Some((verdict, reason)) = ruled_out(loaded, plan) {
        return unrun(loaded, verdict, reason);
    }
    let mut result = match backend.target(&loaded.scenario).await {
        Ok(target) => {
            let needs = loaded.scenario.needs();
            let lacking = if backend.is_mock() {
                Ok(None)
            } else {
                target.lacks(&needs, &plan.variables, &plan.capabilities, &plan.http).await
            };
            let result = match lacking {
                Ok(None) => {
                    let result = steps::run(loaded, &target, plan).await;
                    match backend.exception(&loaded.file) {
                        None => result,
                        Some(reason) => expected_to_fail(result, reason),
                    }
                }
                Ok(Some(reason)) => unrun(loaded, Verdict::Skipped, reason),
                Err(reason) => unrun(loaded, Verdict::Broken, reason),
            };
            let suspect = matches!(result.verdict, Verdict::Failed | Verdict::Broken);
            let gone = if suspect { backend.gone(&plan.http).await } else { None };
            let result = match gone {
                Some(reason) => ScenarioResult { verdict: Verdict::Broken, reason: Some(reason), ..result },
                None => result,
            };
            target.stop().await;
            result
        }
        Err(Missing::Service(reason)) if plan.strict => {
            unrun(loaded, Verdict::Broken, format!("{reason}; on CI (CI=true) this is a failure"))
        }
        Err(Missing::Service(reason)) => unrun(loaded, Verdict::Skipped, reason),
        Err(Missing::Broken(reason)) => unrun(loaded, Verdict::Broken, reason),
    };
    result.took = start.elapsed();
    result
}

/// The result of a scenario that cannot hold here: skipped, or failed if it holds, so that the list of such scenarios
/// stays true.
fn expected_to_fail(result: ScenarioResult, reason: &str) -> ScenarioResult {
    match result.verdict {
        Verdict::Passed => ScenarioResult {
            verdict: Verdict::Failed,
            reason: Some(format!("it passes, but the list of exceptions has it: remove it there ({reason})")),
            ..result
        },
        Verdict::Failed => {
            ScenarioResult { verdict: Verdict::Skipped, reason: Some(reason.to_owned()), steps: Vec::new(), ..result }
        }
        Verdict::Skipped | Verdict::Broken => result,
    }
}

/// The result of a scenario whose steps were not run.
fn unrun(loaded: &Loaded, verdict: Verdict, reason: String) -> ScenarioResult {
    ScenarioResult {
        file: loaded.file.clone(),
        title: loaded.scenario.title.value.clone(),
        tags: loaded.scenario.tags.clone(),
        verdict,
        reason: Some(reason),
        took: Duration::ZERO,
        fingerprint: loaded.fingerprint(),
        steps: Vec::new(),
    }
}
