//! Runs scenarios side by side, each with a target of its own, and builds the tree of results.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream};

use crate::{
    backend::{Backend, Missing, Shared, Target},
    call::{self, Door},
    expect,
    report::{Exchange, RunResult, ScenarioResult, StepResult, Told, Verdict},
    scenario::{Place, load::Loaded, variables::Variables},
};

/// How to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where.
    pub backend: Shared,
    /// Makes the requests; see [`call::http`].
    pub http: reqwest::Client,
    /// What `${…}` stands for.
    pub variables: Variables,
    /// How long each call may take.
    pub timeout: Duration,
    /// How many scenarios run at a time.
    pub jobs: usize,
    /// A scenario that is skipped because the machine lacks a service counts as broken (`CI=true`).
    pub strict: bool,
}

/// Runs all; `landed` is told each result as it lands.
pub async fn run(scenarios: Vec<Loaded>, plan: &Plan, mut landed: impl FnMut(&ScenarioResult)) -> RunResult {
    let start = Instant::now();
    let running = scenarios.into_iter().enumerate().map(|(nth, loaded)| {
        let plan = plan.clone();
        async move {
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
        landed(&result);
        results.push((nth, result));
    }
    results.sort_by_key(|(nth, _)| *nth);
    RunResult::new(plan.backend.name(), start.elapsed(), results.into_iter().map(|(_, result)| result).collect())
}

/// Runs one scenario.
pub async fn one(loaded: &Loaded, plan: &Plan) -> ScenarioResult {
    let start = Instant::now();
    let backend: &Backend = &plan.backend;
    if let Some(reason) = backend.refuses(&loaded.scenario) {
        return unrun(loaded, Verdict::Skipped, reason);
    }
    let mut result = match backend.target(&loaded.scenario).await {
        Ok(target) => {
            let result = steps(loaded, &target, plan).await;
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

/// The steps in order; the first that fails is the last.
async fn steps(loaded: &Loaded, target: &Target, plan: &Plan) -> ScenarioResult {
    let mut result = unrun(loaded, Verdict::Passed, String::new());
    result.reason = None;
    let mut variables = plan.variables.clone();
    let door = Door { url: &target.url, openai: &target.openai, http: &plan.http };
    for (nth, step) in loaded.scenario.steps.iter().enumerate() {
        let name = step.name.clone().unwrap_or_else(|| format!("step {}", nth + 1));
        let broken = |reason: String| unrun(loaded, Verdict::Broken, format!("{name}: {reason}"));
        let call = match variables.call(&step.call.value) {
            Ok(call) => call,
            Err(reason) => return broken(reason),
        };
        let before = target.journal.as_ref().map_or(0, |journal| journal.entries().len());
        let outcome = call::make(&call, door, plan.timeout).await;
        let mut findings = match expect::judge(step, &outcome, &variables) {
            Ok(findings) => findings,
            Err(reason) => return broken(reason),
        };
        if let (Some(sent), Some(journal)) = (&step.sent, &target.journal) {
            match expect::seen(sent, Place::from(&step.call), journal, before, &variables).await {
                Ok(more) => findings.extend(more),
                Err(reason) => return broken(reason),
            }
        }
        if findings.is_empty() {
            findings.extend(expect::capture(step, &outcome, &mut variables).err());
        }
        let failed = !findings.is_empty();
        result.steps.push(StepResult {
            name,
            findings: findings.into_iter().map(|finding| Told::new(&loaded.file, finding)).collect(),
            exchange: Exchange::new(&outcome),
            understood: outcome.understood,
        });
        if failed {
            result.verdict = Verdict::Failed;
            break;
        }
    }
    result
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
        steps: Vec::new(),
    }
}
