//! Runs scenarios against mutants, and says which mutants no scenario notices and which scenarios notice no mutant.
//!
//! A scenario's tag `mutant:NAME` claims that it notices that mutant, in each of its ways; the claim is held to.

pub mod parameters;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use futures_util::{StreamExt, stream};

use crate::{
    backend::Backend,
    mutants::{Field, MUTANTS, Mutant, Mutation, Traffic, named},
    report::{ScenarioResult, Verdict},
    run::{self, Plan},
    scenario::loaded::Loaded,
};

/// What a tag begins with that names a mutant.
pub const TAG: &str = "mutant:";
/// Frames or options of one exchange that are taken in turn, at most.
const WAYS: usize = 200;

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Proof {
    /// How often a scenario was run.
    pub runs: usize,
    /// Each mutant and the files of the scenarios that noticed it.
    pub noticed: Vec<(&'static Mutant, BTreeSet<String>)>,
    /// How many fields of requests are missed by a scenario when they are dropped.
    pub missed: usize,
    /// Scenarios that notice only what breaks almost every answer; known of the full matrix.
    pub thin: Vec<String>,
    /// What is wrong, a sentence each.
    pub problems: Vec<String>,
    /// Mutants that do not concern the scenarios.
    pub left_out: usize,
}

/// One scenario against one mutant.
#[derive(Clone, Debug, Default)]
struct Trial {
    /// Ways that changed the traffic.
    touched: usize,
    /// What the ways that were not noticed did, as `frame 3`.
    missed: Vec<usize>,
    /// Why it could not be judged.
    broken: Option<String>,
}

impl Trial {
    fn noticed(&self) -> bool {
        self.touched > self.missed.len()
    }
}

/// What is to be proved.
#[derive(Clone, Debug, Default)]
pub struct Question {
    /// Each is to be noticed.
    pub mutants: Vec<&'static Mutant>,
    /// Each is to be missed when it is dropped.
    pub fields: Vec<Field>,
    /// Every scenario against every mutant, and not only against those that it claims to notice.
    pub all: bool,
    /// Leaves out mutants that do not concern the scenarios: those that none claims to notice, or with `all`, those
    /// that change nothing in any.
    pub concerned: bool,
}

/// Runs the scenarios that claim to notice one of the mutants, or all, and those that send one of the fields.
pub async fn prove(scenarios: &[Loaded], question: &Question, plan: &Plan) -> Proof {
    let Question { mutants, fields, all, concerned } = question;
    let mut proof = Proof::default();
    for loaded in scenarios {
        for name in claims(loaded).filter(|name| named(name).is_none()) {
            proof.problems.push(format!("{}: the tag {TAG}{name} names no mutant", loaded.file));
        }
    }
    let run = |loaded: &&Loaded, mutant: &Mutant| *all || claims(loaded).any(|name| name == mutant.name);
    let needed = |loaded: &&Loaded| !fields.is_empty() || mutants.iter().any(|mutant| run(loaded, mutant));
    let passed = control(scenarios.iter().filter(needed), plan, &mut proof).await;
    // A mutant that changes nothing there need not be tried, but a claim is.
    let reached = |loaded: &Loaded, mutant: &Mutant| {
        let claimed = claims(loaded).any(|name| name == mutant.name);
        passed.get(&loaded.name()).is_some_and(|traffic| claimed || mutant.reaches(traffic))
    };
    let pairs = mutants.iter().flat_map(|mutant| {
        let run = scenarios.iter().filter(|loaded| run(loaded, mutant) && reached(loaded, mutant));
        run.map(|loaded| (*mutant, loaded))
    });
    let trials = stream::iter(pairs.collect::<Vec<_>>().into_iter().map(|(mutant, loaded)| async move {
        let claimed = claims(loaded).any(|name| name == mutant.name);
        // Who claims nothing needs to notice but one way.
        let trial = trial(loaded, mutant, claimed, plan).await;
        (mutant, loaded, claimed, trial)
    }));
    let trials: Vec<_> = trials.buffer_unordered(plan.jobs.max(1)).collect().await;

    let mut noticed: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    let mut failed_by: BTreeMap<String, Vec<&'static Mutant>> =
        if *all { passed.keys().map(|name| (name.clone(), Vec::new())).collect() } else { BTreeMap::new() };
    let mut touched = BTreeSet::new();
    for (mutant, loaded, claimed, trial) in trials {
        proof.runs += trial.touched.max(1);
        if trial.touched > 0 {
            touched.insert(mutant.name);
        }
        if trial.noticed() {
            noticed.entry(mutant.name).or_default().insert(loaded.name());
            failed_by.entry(loaded.name()).and_modify(|by| by.push(mutant));
        }
        if let Some(reason) = trial.broken {
            proof.problems.push(format!("{}: with {} it cannot be run: {reason}", loaded.name(), mutant.name));
        } else if claimed {
            proof.problems.extend(broken_claim(&loaded.name(), mutant, &trial));
        }
    }
    for mutant in mutants {
        if *concerned
            && !touched.contains(mutant.name)
            && !scenarios.iter().any(|loaded| claims(loaded).any(|name| name == mutant.name))
        {
            proof.left_out += 1;
            continue;
        }
        let by = noticed.remove(mutant.name).unwrap_or_default();
        if by.is_empty() {
            proof.problems.push(format!("{}: no scenario notices that {}", mutant.name, mutant.what));
        }
        proof.noticed.push((mutant, by));
    }
    for (file, by) in failed_by {
        if by.is_empty() {
            proof.problems.push(format!("{file}: no mutant can fail it"));
        } else if by.iter().all(|mutant| mutant.blunt) {
            proof.thin.push(file);
        }
    }
    parameters::prove(fields, scenarios, &passed, plan, &mut proof).await;
    proof.problems.sort();
    proof
}

/// The mutants that a scenario claims to notice.
fn claims(loaded: &Loaded) -> impl Iterator<Item = &str> {
    loaded.scenario.tags.iter().filter_map(|tag| tag.strip_prefix(TAG))
}

fn broken_claim(file: &str, mutant: &Mutant, trial: &Trial) -> Option<String> {
    if trial.touched == 0 {
        return Some(format!("{file}: the tag {TAG}{} claims too much: it changes nothing there", mutant.name));
    }
    if trial.missed.is_empty() {
        return None;
    }
    let which: Vec<_> = trial.missed.iter().map(|nth| (nth + 1).to_string()).collect();
    let which = if mutant.in_turn() { format!(" (number {})", which.join(", ")) } else { String::new() };
    Some(format!("{file}: it passes although {}{which}", mutant.what))
}

/// Those that pass through layers that change nothing, by name, and what passes.
async fn control(
    scenarios: impl Iterator<Item = &Loaded>,
    plan: &Plan,
    proof: &mut Proof,
) -> BTreeMap<String, Traffic> {
    let running = stream::iter(scenarios.map(|loaded| async move {
        let mutation = Mutation::default();
        let result = once(loaded, mutation.clone(), plan).await;
        (loaded.name(), result, mutation.traffic())
    }));
    let results: Vec<_> = running.buffer_unordered(plan.jobs.max(1)).collect().await;
    let mut fit = BTreeMap::new();
    for (file, result, traffic) in results {
        proof.runs += 1;
        match result.verdict {
            Verdict::Passed => {
                fit.insert(file, traffic);
            }
            _ => proof.problems.push(format!("{file}: it does not pass even without a mutant: {}", reason(&result))),
        }
    }
    fit
}

async fn trial(loaded: &Loaded, mutant: &'static Mutant, every: bool, plan: &Plan) -> Trial {
    let mut trial = Trial::default();
    for nth in 0..if mutant.in_turn() { WAYS } else { 1 } {
        let mutation = Mutation::of(mutant, nth);
        let result = once(loaded, mutation.clone(), plan).await;
        if !mutation.touched() {
            break;
        }
        trial.touched += 1;
        match result.verdict {
            Verdict::Failed if every => {}
            Verdict::Failed => break,
            Verdict::Passed => trial.missed.push(nth),
            Verdict::Broken | Verdict::Skipped => {
                trial.missed.push(nth);
                trial.broken = Some(reason(&result));
            }
        }
    }
    trial
}

async fn once(loaded: &Loaded, mutation: Mutation, plan: &Plan) -> ScenarioResult {
    let plan = Plan { backend: Arc::new(Backend::Tampered(mutation)), ..plan.clone() };
    run::one(loaded, &plan).await
}

fn reason(result: &ScenarioResult) -> String {
    let finding = result.steps.iter().flat_map(|step| &step.findings).next();
    match (&result.reason, finding) {
        (Some(reason), _) => reason.clone(),
        (None, Some(reported)) => {
            format!("{}: expected {}, got {}", reported.about, reported.expected, reported.actual)
        }
        (None, None) => "no reason is known".to_owned(),
    }
}

/// The mutants of these names, or all.
///
/// # Errors
/// A name that no mutant has.
pub fn choose(names: &[String]) -> Result<Vec<&'static Mutant>, String> {
    if names.is_empty() {
        return Ok(MUTANTS.iter().collect());
    }
    let find = |name: &String| {
        named(name).ok_or_else(|| format!("there is no mutant {name:?}; `farllama-check mutate --list` shows all"))
    };
    names.iter().map(find).collect()
}
