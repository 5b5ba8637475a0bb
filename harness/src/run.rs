//! Runs scenarios side by side, each with a target of its own, and builds the tree of results.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, future::join_all, stream};
use serde_json::Value;

use crate::{
    backend::{Backend, Missing, Shared, Target},
    call::{self, Door, Outcome},
    expect::{self, Finding},
    report::{Exchange, RunResult, ScenarioResult, Secrets, StepResult, Told, Verdict},
    scenario::{Client, Place, Step, load::Loaded, variables::Variables},
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
    for (nth, step) in loaded.scenario.steps.iter().enumerate() {
        let name = step.name.clone().unwrap_or_else(|| format!("step {}", nth + 1));
        match one_step(&name, step, target, plan, &loaded.scenario.client, &mut variables).await {
            Err(reason) => return unrun(loaded, Verdict::Broken, format!("{name}: {reason}")),
            Ok(judged) => {
                let failed = judged.iter().any(|judged| !judged.findings.is_empty());
                let sent = judged.iter().filter_map(|judged| Some(&judged.outcome.as_ref()?.recording));
                let secrets = Secrets::of(sent);
                let told = |finding| Told::new(&loaded.file, finding, &secrets);
                let shown = |outcome: &Outcome| Exchange::new(outcome, &secrets);
                result.steps.extend(judged.into_iter().map(|Judged { name, findings, outcome, understood }| {
                    StepResult {
                        name,
                        findings: findings.into_iter().map(told).collect(),
                        exchange: outcome.as_ref().map(shown).unwrap_or_default(),
                        understood,
                    }
                }));
                if failed {
                    result.verdict = Verdict::Failed;
                    break;
                }
            }
        }
    }
    result
}

/// An answer, or the whole of several, with what was found.
struct Judged {
    name: String,
    findings: Vec<Finding>,
    outcome: Option<Outcome>,
    understood: Value,
}

/// Makes the calls of a step and judges each, and the whole.
///
/// # Errors
/// Something in it cannot be read: the sentence that says so.
async fn one_step(
    name: &str,
    step: &Step,
    target: &Target,
    plan: &Plan,
    client: &Client,
    variables: &mut Variables,
) -> Result<Vec<Judged>, String> {
    if let Some(settings) = &step.reload {
        target.reload(&settings.value)?;
        return Ok(Vec::new());
    }
    let door = Door { url: &target.url, openai: &target.openai, http: &plan.http };
    let mut calls = Vec::new();
    for part in &step.parts {
        let call = variables.call(&part.call.value)?;
        let client = variables.client(&part.client.as_ref().map_or_else(|| client.clone(), |own| own.or(client)))?;
        calls.extend((0..part.calls()).map(|nth| (part, nth, call.clone(), client.clone())));
    }
    let before = target.journal.as_ref().map_or(0, |journal| journal.entries().len());
    let outcomes =
        join_all(calls.iter().map(|(_, _, call, client)| call::make(call, client, door, plan.timeout))).await;
    let answers = step.answers.as_ref();
    let mut judged = Vec::new();
    for ((part, nth, ..), outcome) in calls.iter().zip(&outcomes) {
        let findings = expect::judge(part, answers.map(|answers| &answers.value), outcome, variables)?;
        let own = part.name.as_deref().map_or_else(|| name.to_owned(), |own| format!("{name}: {own}"));
        let name = if part.calls() > 1 { format!("{own}, {} of {}", nth + 1, part.calls()) } else { own };
        judged.push(Judged { name, findings, outcome: Some(outcome.clone()), understood: outcome.understood.clone() });
    }
    let (mut whole, mut understood) = (Vec::new(), Value::Null);
    if let Some(answers) = answers {
        let (tally, findings) = expect::tally(&answers.value, Place::from(answers), &outcomes, variables)?;
        (understood, whole) = (tally, findings);
    }
    if let (Some(sent), Some(journal)) = (&step.sent, &target.journal) {
        whole.extend(expect::seen(sent, step.place(), journal, before, variables).await?);
    }
    if let (Some(live), Some(journal), [outcome]) = (step.live(), &target.journal, &outcomes[..]) {
        whole.extend(expect::live(live, outcome, journal, before).await);
    }
    match (&mut judged[..], &outcomes[..]) {
        // Of one call the answer is the whole.
        ([only], [outcome]) => {
            only.findings.extend(whole);
            if only.findings.is_empty() {
                only.findings.extend(expect::capture(step, outcome, variables).err());
            }
        }
        _ => judged.push(Judged { name: format!("{name}, as a whole"), findings: whole, outcome: None, understood }),
    }
    Ok(judged)
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
