//! The steps of one scenario: each makes its calls, is judged, and may be tried again or repeated.

use std::{path::Path, time::Instant};

use futures_util::future::join_all;
use serde_json::Value;

use super::{Plan, unrun};
use crate::{
    backend::Target,
    call::{self, CallTarget, Outcome},
    expect::{self, laws::Laws},
    finding::Finding,
    report::{Exchange, ReportedFinding, ScenarioResult, Secrets, StepResult, Verdict},
    scenario::{
        Client, Place, Step,
        loaded::Loaded,
        step::Repeat,
        variables::{Answer, Variables},
        vars::Source,
    },
};

/// How long a step that may be late waits before it is tried again.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

/// What a scenario's variables stand for, and those values that no report shows.
///
/// # Errors
/// One of them has no value here: the sentence that says so.
pub(super) fn variables(loaded: &Loaded, plan: &Plan) -> Result<(Variables, Vec<String>), String> {
    let mut variables = plan.variables.clone();
    let mut secrets = Vec::new();
    let folder = Path::new(&loaded.file).parent().unwrap_or(Path::new(""));
    for check in &loaded.scenario.vars.0 {
        // What cannot be read was reported when the scenario was read.
        let source = Source::read(&check.expected)?;
        let value = match plan.given.get(&check.key) {
            Some(given) => Value::from(given.as_str()),
            None => source.value(folder)?,
        };
        if source.is_secret() {
            secrets.extend(value.as_str().map(str::to_owned));
        }
        variables.set(&check.key, value);
    }
    for (name, value) in &loaded.given {
        variables.set(name, value.clone());
    }
    Ok((variables, secrets))
}

/// All steps in order; the first that fails is the last, but what tidies up is done always.
pub(super) async fn run(loaded: &Loaded, target: &Target, plan: &Plan) -> ScenarioResult {
    let mut result = unrun(loaded, Verdict::Passed, String::new());
    result.reason = None;
    let (mut variables, secrets) = match variables(loaded, plan) {
        Ok(known) => known,
        Err(reason) => return unrun(loaded, Verdict::Broken, reason),
    };
    for step in loaded.scenario.all_steps() {
        if let Some(name) = &step.name {
            variables.answered(name, step.answer());
        }
    }
    // Unknown names were reported when the scenario was read.
    let laws =
        plan.laws.clone().and_without(loaded.scenario.no_laws.iter().map(|name| &name.value)).unwrap_or_default();
    let mut runner = Runner { loaded, target, plan, variables, secrets, laws };
    let scenario = &loaded.scenario;
    for (steps, role) in [(&scenario.setup, Some("setup")), (&scenario.steps, None)] {
        if result.verdict != Verdict::Passed {
            break;
        }
        for (nth, step) in steps.iter().enumerate() {
            runner.add(step, nth, role, &mut result).await;
            if result.verdict != Verdict::Passed {
                break;
            }
        }
    }
    for (nth, step) in scenario.teardown.iter().enumerate() {
        runner.add(step, nth, Some("teardown"), &mut result).await;
    }
    result
}

struct Runner<'a> {
    loaded: &'a Loaded,
    target: &'a Target,
    plan: &'a Plan,
    variables: Variables,
    secrets: Vec<String>,
    laws: Laws,
}

/// An answer, or the whole of several, with what was found.
struct Judged {
    name: String,
    findings: Vec<Finding>,
    /// What only the model is to blame for.
    of_model: Vec<Finding>,
    rate: Option<(usize, usize)>,
    outcome: Option<Outcome>,
    understood: Value,
}

impl Judged {
    fn fails(&self) -> bool {
        !self.findings.is_empty() || !self.of_model.is_empty()
    }
}

impl Runner<'_> {
    /// Does a step and adds what came of it. What fails in a `role` besides the steps proper is no failure of the
    /// target: the scenario could not be run.
    async fn add(&mut self, step: &Step, nth: usize, role: Option<&str>, result: &mut ScenarioResult) {
        let name = step.name.clone().unwrap_or_else(|| format!("step {}", nth + 1));
        let name = role.map_or_else(|| name.clone(), |role| format!("{role}: {name}"));
        let judged = match self.tried(&name, step).await {
            Ok(judged) => judged,
            Err(reason) => {
                // A failure that was found before is the better news.
                if result.verdict == Verdict::Passed {
                    result.verdict = Verdict::Broken;
                    result.reason = Some(format!("{name}: {reason}"));
                }
                return;
            }
        };
        let failed = judged.iter().any(Judged::fails);
        let sent = judged.iter().filter_map(|judged| Some(&judged.outcome.as_ref()?.recording));
        let secrets = Secrets::of(sent).and(&self.secrets);
        let file = step.from.as_deref().unwrap_or(&self.loaded.file);
        let reported = |finding| ReportedFinding::new(file, finding, &secrets);
        let shown = |outcome: &Outcome| Exchange::new(outcome, &secrets);
        let unchecked = if self.target.journal.is_none() { step.of_upstream() } else { Vec::new() };
        result.steps.extend(judged.into_iter().map(|judged| {
            StepResult {
                name: judged.name,
                findings: judged
                    .findings
                    .into_iter()
                    .map(reported)
                    .chain(judged.of_model.into_iter().map(|finding| reported(finding).of_model()))
                    .collect(),
                unchecked: unchecked.clone(),
                rate: judged.rate,
                exchange: judged.outcome.as_ref().map(shown).unwrap_or_default(),
                understood: judged.understood,
            }
        }));
        if !failed || result.verdict != Verdict::Passed {
            return;
        }
        match role {
            None => result.verdict = Verdict::Failed,
            Some(role) => {
                result.verdict = Verdict::Broken;
                let steps = result.steps.iter().rev().flat_map(|step| &step.findings);
                let first = steps.last().map(|reported| {
                    format!(
                        "{} {}: expected {}, actual {}",
                        reported.at, reported.about, reported.expected, reported.actual
                    )
                });
                result.reason = Some(format!("{role} failed: {}", first.unwrap_or_default()));
            }
        }
    }

    /// Does a step as often as it says.
    async fn tried(&mut self, name: &str, step: &Step) -> Result<Vec<Judged>, String> {
        if let Some(repeat) = &step.repeat {
            return self.repeated(name, step, Place::from(repeat), repeat.value).await;
        }
        // What cannot be read was reported when the scenario was read.
        let within = step.within.as_ref().and_then(|within| humantime::parse_duration(&within.value).ok());
        let start = Instant::now();
        loop {
            let judged = self.once(name, step).await?;
            let late = within.is_some_and(|within| start.elapsed() < within);
            if !late || !judged.iter().any(Judged::fails) {
                return Ok(judged);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// One after the other. A server must always be right; a model often enough.
    async fn repeated(&mut self, name: &str, step: &Step, at: Place, repeat: Repeat) -> Result<Vec<Judged>, String> {
        let mut right = 0;
        let mut last = Vec::new();
        for nth in 1..=repeat.times {
            let mut judged = self.once(&format!("{name}, {nth} of {}", repeat.times), step).await?;
            if judged.iter().any(|judged| !judged.findings.is_empty()) {
                return Ok(judged);
            }
            let wise = !judged.iter().any(Judged::fails);
            right += usize::from(wise);
            if !wise || last.is_empty() {
                std::mem::swap(&mut last, &mut judged);
            }
        }
        let enough = right >= repeat.needed();
        for judged in &mut last {
            judged.name = name.to_owned();
            judged.rate = Some((right, repeat.times));
            if enough {
                judged.of_model.clear();
            }
        }
        if let (false, Some(judged)) = (enough, last.first_mut()) {
            judged.of_model.insert(
                0,
                Finding {
                    at,
                    about: "repeat".to_owned(),
                    expected: format!("{} of {} right", repeat.needed(), repeat.times),
                    actual: format!("{right} of {}; the last that was wrong:", repeat.times),
                    law: None,
                },
            );
        }
        Ok(last)
    }

    /// Makes the calls of a step and judges each, and the whole.
    ///
    /// # Errors
    /// Something in it cannot be read: the sentence that says so.
    async fn once(&mut self, name: &str, step: &Step) -> Result<Vec<Judged>, String> {
        let (target, plan, variables) = (self.target, self.plan, &mut self.variables);
        let client: &Client = &self.loaded.scenario.client;
        if let Some(settings) = &step.reload {
            target.reload(&settings.value)?;
            return Ok(Vec::new());
        }
        let call_target = CallTarget {
            url: &target.url,
            openai: &target.openai,
            http: &plan.http,
            key: target.key.as_deref(),
            seen: target.seen.as_ref(),
        };
        let mut calls = Vec::new();
        for part in &step.parts {
            let call = variables.call(&part.call.value)?;
            let client =
                variables.client(&part.client.as_ref().map_or_else(|| client.clone(), |own| own.or(client)))?;
            calls.extend((0..part.calls()).map(|nth| (part, nth, call.clone(), client.clone())));
        }
        let before = target.journal.as_ref().map_or(0, |journal| journal.entries().len());
        let outcomes =
            join_all(calls.iter().map(|(_, _, call, client)| call::make(call, client, call_target, plan.timeout)))
                .await;
        let answers = step.answers.as_ref();
        let mut judged = Vec::new();
        for ((part, nth, ..), outcome) in calls.iter().zip(&outcomes) {
            let mut findings =
                expect::judge(part, answers.map(|answers| &answers.value), outcome, variables, &self.laws)?;
            if plan.backend.is_mock() {
                findings.extend(expect::torn(part, outcome, &self.laws));
            }
            // Of a server that is wrong nothing is known about the model.
            let of_model =
                if findings.is_empty() { expect::model_findings(part, outcome, variables)? } else { Vec::new() };
            let own = part.name.as_deref().map_or_else(|| name.to_owned(), |own| format!("{name}: {own}"));
            let name = if part.calls() > 1 { format!("{own}, {} of {}", nth + 1, part.calls()) } else { own };
            let (outcome, understood) = (Some(outcome.clone()), outcome.understood.clone());
            judged.push(Judged { name, findings, of_model, rate: None, outcome, understood });
        }
        let (mut whole, mut understood) = (Vec::new(), Value::Null);
        if let Some(answers) = answers {
            let (tally, findings) = expect::tally(&answers.value, Place::from(answers), &outcomes, variables)?;
            (understood, whole) = (tally, findings);
        }
        if let (Some(sent), Some(journal)) = (&step.sent, &target.journal) {
            let recordings = outcomes.iter().map(|outcome| &outcome.recording);
            let left = recordings.filter_map(|recording| Some(recording.began? + recording.took)).max();
            whole.extend(expect::seen(sent, step.place(), journal, before, left, variables).await?);
        }
        if let (Some(live), Some(journal), [outcome]) = (step.live(), &target.journal, &outcomes[..]) {
            whole.extend(expect::live(live, outcome, journal, before).await);
        }
        if let (Some(name), [outcome]) = (&step.name, &outcomes[..]) {
            variables.answered(name, Answer::Given(outcome.understood.clone()));
        }
        match (&mut judged[..], &outcomes[..]) {
            // Of one call the answer is the whole.
            ([only], [outcome]) => {
                only.findings.extend(whole);
                if !only.fails() {
                    only.findings.extend(expect::capture(step, outcome, variables).err());
                }
            }
            _ => judged.push(Judged {
                name: format!("{name}, as a whole"),
                findings: whole,
                of_model: Vec::new(),
                rate: None,
                outcome: None,
                understood,
            }),
        }
        Ok(judged)
    }
}
