//! Compares targets by the same scenarios, and with an earlier result. Pure: what was run, or read from a file, comes
//! in as [`Column`]s.

pub mod page;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    doctor::fact::Rate,
    finding::Blame,
    report::{RunResult, Verdict},
};

/// What one target made of the scenarios, in one run or in several. Saved, it is a baseline.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Column {
    /// The target, for people.
    pub name: String,
    /// Its scenarios.
    pub scenarios: Vec<Outcome>,
}

/// What a target made of a scenario.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Its file.
    pub file: String,
    /// Its title.
    pub title: String,
    /// What its calls are; see [`crate::report::ScenarioResult::fingerprint`].
    #[serde(default)]
    pub fingerprint: String,
    /// How often it passed.
    pub passed: usize,
    /// How often it failed, and only the model is to blame.
    pub failed_by_model: usize,
    /// How often it failed otherwise, or could not be run.
    pub failed: usize,
    /// Why it was skipped, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
    /// The assertions that did not hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Broken>,
}

/// An assertion that did not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Broken {
    /// The step.
    pub step: String,
    /// What it is about.
    pub about: String,
    /// What was expected.
    pub expected: String,
    /// What there was.
    pub actual: String,
    /// Who is to blame.
    #[serde(default)]
    pub blame: Blame,
}

/// A saved run, as `run --json` writes it.
#[derive(Debug, Deserialize)]
struct SavedRun {
    backend: String,
    scenarios: Vec<SavedScenario>,
}

#[derive(Debug, Deserialize)]
struct SavedScenario {
    file: String,
    title: String,
    #[serde(default)]
    fingerprint: String,
    verdict: Verdict,
    reason: Option<String>,
    #[serde(default)]
    steps: Vec<SavedStep>,
}

#[derive(Debug, Deserialize)]
struct SavedStep {
    name: String,
    #[serde(default)]
    findings: Vec<SavedFinding>,
}

#[derive(Debug, Deserialize)]
struct SavedFinding {
    about: String,
    expected: String,
    actual: String,
    #[serde(default)]
    blame: Blame,
}

impl Column {
    /// From a file that `run --json` or `compare --json` has written; of a comparison, its first target.
    ///
    /// # Errors
    /// Fails if it is neither.
    pub fn read(text: &str) -> Result<Self, String> {
        if let Ok(comparison) = serde_json::from_str::<SavedComparison>(text) {
            return comparison.columns.into_iter().next().ok_or_else(|| "the comparison has no target".to_owned());
        }
        if let Ok(column) = serde_json::from_str::<Self>(text) {
            return Ok(column);
        }
        let run: SavedRun = serde_json::from_str(text)
            .map_err(|error| format!("it is neither a run (run --json) nor a comparison (compare --json): {error}"))?;
        let scenarios = run.scenarios.into_iter().map(|saved| {
            let findings: Vec<_> = saved
                .steps
                .into_iter()
                .flat_map(|step| {
                    step.findings.into_iter().map(move |finding| Broken {
                        step: step.name.clone(),
                        about: finding.about,
                        expected: finding.expected,
                        actual: finding.actual,
                        blame: finding.blame,
                    })
                })
                .collect();
            outcome(saved.file, saved.title, saved.fingerprint, saved.verdict, saved.reason, findings)
        });
        Ok(Self { name: run.backend, scenarios: scenarios.collect() })
    }

    /// From runs of the same scenarios.
    #[must_use]
    pub fn of(name: String, runs: &[RunResult]) -> Self {
        let mut scenarios: Vec<Outcome> = Vec::new();
        for run in runs {
            for (nth, result) in run.scenarios.iter().enumerate() {
                let findings = result
                    .steps
                    .iter()
                    .flat_map(|step| {
                        step.findings.iter().map(|finding| Broken {
                            step: step.name.clone(),
                            about: finding.about.clone(),
                            expected: finding.expected.clone(),
                            actual: finding.actual.clone(),
                            blame: finding.blame,
                        })
                    })
                    .collect();
                let (file, title) = (result.file.clone(), result.title.clone());
                let one =
                    outcome(file, title, result.fingerprint.clone(), result.verdict, result.reason.clone(), findings);
                // The same scenarios in the same order, in every run.
                match scenarios.get_mut(nth) {
                    Some(known) => known.add(one),
                    None => scenarios.push(one),
                }
            }
        }
        Self { name, scenarios }
    }

    /// How many scenarios passed every time, of those that were not skipped.
    #[must_use]
    pub fn score(&self) -> (usize, usize) {
        let ran = self.scenarios.iter().filter(|outcome| outcome.skipped.is_none());
        let (mut right, mut all) = (0, 0);
        for outcome in ran {
            all += 1;
            right += usize::from(outcome.state() == State::Passed);
        }
        (right, all)
    }

    /// The outcome of the same scenario as `like`: of its file and title, else of its title, its calls, or its file.
    fn find(&self, like: &Outcome) -> Option<&Outcome> {
        let by = |same: &dyn Fn(&Outcome) -> bool| {
            let mut found = self.scenarios.iter().filter(|outcome| same(outcome));
            // What fits two scenarios names neither.
            found.next().filter(|_| found.next().is_none())
        };
        by(&|outcome| outcome.file == like.file && outcome.title == like.title)
            .or_else(|| by(&|outcome| outcome.title == like.title))
            .or_else(|| by(&|outcome| !like.fingerprint.is_empty() && outcome.fingerprint == like.fingerprint))
            .or_else(|| by(&|outcome| outcome.file == like.file))
    }
}

fn outcome(
    file: String,
    title: String,
    fingerprint: String,
    verdict: Verdict,
    reason: Option<String>,
    mut findings: Vec<Broken>,
) -> Outcome {
    let by_model = !findings.is_empty() && findings.iter().all(|finding| finding.blame == Blame::Model);
    if let (Verdict::Broken, Some(reason)) = (verdict, &reason) {
        findings.push(Broken {
            step: "scenario".to_owned(),
            about: "run".to_owned(),
            expected: "that it can be run".to_owned(),
            actual: reason.clone(),
            blame: Blame::Server,
        });
    }
    Outcome {
        file,
        title,
        fingerprint,
        passed: usize::from(verdict == Verdict::Passed),
        failed_by_model: usize::from(verdict == Verdict::Failed && by_model),
        failed: usize::from(verdict == Verdict::Broken || verdict == Verdict::Failed && !by_model),
        skipped: reason.filter(|_| verdict == Verdict::Skipped),
        findings: if verdict == Verdict::Passed { Vec::new() } else { findings },
    }
}

/// What a target made of a scenario, in all of its runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It passed every time.
    Passed,
    /// It failed sometimes or always, and only the model is to blame.
    Model,
    /// The server failed it, once at least.
    Failed,
    /// It was skipped.
    Skipped,
}

impl Outcome {
    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed_by_model += other.failed_by_model;
        self.failed += other.failed;
        self.skipped = self.skipped.take().or(other.skipped);
        for finding in other.findings {
            let is_known = |known: &Broken| known.step == finding.step && known.about == finding.about;
            if !self.findings.iter().any(is_known) {
                self.findings.push(finding);
            }
        }
    }

    /// What came of it. A server must be right every time; a model is counted.
    #[must_use]
    pub fn state(&self) -> State {
        match (self.failed, self.failed_by_model, self.passed) {
            (1.., ..) => State::Failed,
            (0, 1.., _) => State::Model,
            (0, 0, 1..) => State::Passed,
            (0, 0, 0) => State::Skipped,
        }
    }

    /// How often the model was right, of the runs in which the server was.
    #[must_use]
    pub fn rate(&self) -> Rate {
        Rate::new(self.passed, self.passed + self.failed_by_model)
    }

    fn cell(&self) -> String {
        let runs = self.passed + self.failed + self.failed_by_model;
        match self.state() {
            State::Passed if runs > 1 => format!("passed, {runs} of {runs}"),
            State::Passed => "passed".to_owned(),
            State::Model if runs > 1 => format!("model: {}", self.rate()),
            State::Model => "failed (model)".to_owned(),
            State::Failed if runs > 1 => format!("FAILED, {} of {runs} passed", self.passed),
            State::Failed => "FAILED".to_owned(),
            State::Skipped => "skipped".to_owned(),
        }
    }
}

/// What is read of a saved comparison.
#[derive(Debug, Deserialize)]
struct SavedComparison {
    columns: Vec<Column>,
}

/// Targets side by side.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// The targets.
    pub columns: Vec<Column>,
    /// Scenarios, in the order of the first target that has them.
    pub rows: Vec<Row>,
    /// What got worse, if there is a baseline.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worse: Option<Vec<Worse>>,
}

/// A scenario on each target.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Its file, on the first target.
    pub file: String,
    /// Its title.
    pub title: String,
    /// What came of it on each target; nothing if a target does not have it.
    pub cells: Vec<Option<Cell>>,
    /// Whether the targets differ.
    pub differs: bool,
    /// Each assertion that did not hold somewhere, and what there was on each target; nothing where it held.
    pub assertions: Vec<Assertion>,
}

/// A scenario on a target.
#[derive(Clone, Debug, Serialize)]
pub struct Cell {
    /// What came of it.
    pub state: State,
    /// For people.
    pub text: String,
}

/// An assertion that did not hold somewhere.
#[derive(Clone, Debug, Serialize)]
pub struct Assertion {
    /// The step.
    pub step: String,
    /// What it is about.
    pub about: String,
    /// What was expected.
    pub expected: String,
    /// What there was on each target; nothing where it held or was not reached.
    pub actual: Vec<Option<String>>,
}

/// Something that got worse.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Worse {
    /// The target.
    pub target: String,
    /// The scenario's file.
    pub file: String,
    /// Its title.
    pub title: String,
    /// What it was.
    pub before: String,
    /// What it is.
    pub now: String,
}

impl Comparison {
    /// Lines up the scenarios of all targets.
    #[must_use]
    pub fn new(columns: Vec<Column>) -> Self {
        let mut rows: Vec<Row> = Vec::new();
        let mut seen: BTreeMap<(usize, usize), ()> = BTreeMap::new();
        for (at, column) in columns.iter().enumerate() {
            for (nth, like) in column.scenarios.iter().enumerate() {
                if seen.contains_key(&(at, nth)) {
                    continue;
                }
                let outcomes: Vec<Option<&Outcome>> = columns
                    .iter()
                    .enumerate()
                    .map(|(other, column)| {
                        let found = if other == at { Some(like) } else { column.find(like) };
                        found.filter(|found| {
                            let place = column.scenarios.iter().position(|known| std::ptr::eq(known, *found));
                            place.is_some_and(|place| seen.insert((other, place), ()).is_none())
                        })
                    })
                    .collect();
                rows.push(row(like, &outcomes));
            }
        }
        Self { columns, rows, worse: None }
    }

    /// Adds what got worse than in a baseline: what passed and fails now, and models that are surely right less often.
    #[must_use]
    pub fn against(mut self, baseline: &Column) -> Self {
        let mut worse = Vec::new();
        for column in &self.columns {
            for now in &column.scenarios {
                let Some(before) = baseline.find(now) else { continue };
                if is_worse(before, now) {
                    worse.push(Worse {
                        target: column.name.clone(),
                        file: now.file.clone(),
                        title: now.title.clone(),
                        before: before.cell(),
                        now: now.cell(),
                    });
                }
            }
        }
        self.worse = Some(worse);
        self
    }
}

fn is_worse(before: &Outcome, now: &Outcome) -> bool {
    match (before.state(), now.state()) {
        (State::Passed | State::Model, State::Failed) => true,
        // A few failures of a model may be chance.
        (State::Passed | State::Model, State::Model) => {
            now.rate().high < before.rate().low || now.passed == 0 && before.passed > 0
        }
        _ => false,
    }
}

fn row(like: &Outcome, outcomes: &[Option<&Outcome>]) -> Row {
    let cells: Vec<_> = outcomes
        .iter()
        .map(|outcome| outcome.map(|outcome| Cell { state: outcome.state(), text: outcome.cell() }))
        .collect();
    let mut assertions: Vec<Assertion> = Vec::new();
    for (at, outcome) in outcomes.iter().enumerate() {
        for broken in outcome.iter().flat_map(|outcome| &outcome.findings) {
            let same = |known: &&mut Assertion| {
                known.step == broken.step && known.about == broken.about && known.expected == broken.expected
            };
            let known = match assertions.iter_mut().find(same) {
                Some(known) => known,
                None => {
                    assertions.push(Assertion {
                        step: broken.step.clone(),
                        about: broken.about.clone(),
                        expected: broken.expected.clone(),
                        actual: vec![None; outcomes.len()],
                    });
                    let Some(last) = assertions.last_mut() else { continue };
                    last
                }
            };
            known.actual[at] = Some(broken.actual.clone());
        }
    }
    let first = cells.first().and_then(|cell| cell.as_ref().map(|cell| cell.state));
    let states = cells.iter().map(|cell| cell.as_ref().map(|cell| cell.state));
    let differs = states.clone().any(|state| state != first)
        || assertions.iter().any(|assertion| assertion.actual.iter().any(|actual| *actual != assertion.actual[0]));
    Row { file: like.file.clone(), title: like.title.clone(), cells, differs, assertions }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(file: &str, title: &str, passed: usize, by_model: usize, failed: usize) -> Outcome {
        Outcome {
            file: file.to_owned(),
            title: title.to_owned(),
            fingerprint: format!("calls of {file}"),
            passed,
            failed_by_model: by_model,
            failed,
            skipped: None,
            findings: Vec::new(),
        }
    }

    fn column(name: &str, scenarios: Vec<Outcome>) -> Column {
        Column { name: name.to_owned(), scenarios }
    }

    #[test]
    fn only_what_got_worse_counts() {
        let baseline = column(
            "a",
            vec![
                outcome("1", "one", 1, 0, 0),
                outcome("2", "two", 0, 0, 1),
                outcome("3", "three", 10, 0, 0),
                outcome("4", "four", 10, 0, 0),
            ],
        );
        let now = column(
            "b",
            vec![
                outcome("1", "one", 0, 0, 1),
                outcome("2", "two", 0, 0, 1),
                outcome("3", "three", 9, 1, 0),
                outcome("4", "four", 2, 8, 0),
                outcome("5", "new", 0, 0, 1),
            ],
        );
        let comparison = Comparison::new(vec![now]).against(&baseline);
        let worse: Vec<_> = comparison.worse.as_ref().unwrap().iter().map(|worse| worse.title.as_str()).collect();
        assert_eq!(worse, ["one", "four"]);
    }

    #[test]
    fn a_renamed_scenario_is_known_again() {
        let before = outcome("old.yaml", "an old title", 1, 0, 0);
        let moved = Outcome { file: "new.yaml".to_owned(), failed: 1, passed: 0, ..before.clone() };
        let retitled = Outcome { title: "a new title".to_owned(), ..moved.clone() };
        let edited = Outcome { fingerprint: "other calls".to_owned(), file: "old.yaml".to_owned(), ..retitled.clone() };
        let another = Outcome { fingerprint: "others".to_owned(), ..retitled.clone() };
        for (now, is_known) in [(moved, true), (retitled, true), (edited, true), (another, false)] {
            let comparison = Comparison::new(vec![column("b", vec![now])]).against(&column("a", vec![before.clone()]));
            assert_eq!(comparison.worse.as_ref().unwrap().len(), usize::from(is_known));
        }
    }

    #[test]
    fn scenarios_are_lined_up_and_each_stands_in_one_row() {
        let broken = Broken {
            step: "step 1".to_owned(),
            about: "$.a".to_owned(),
            expected: "1".to_owned(),
            actual: "2".to_owned(),
            blame: Blame::Server,
        };
        let failed = Outcome { findings: vec![broken], ..outcome("1", "one", 0, 0, 1) };
        let comparison = Comparison::new(vec![
            column("a", vec![outcome("1", "one", 1, 0, 0), outcome("2", "two", 1, 0, 0)]),
            column("b", vec![outcome("2", "two", 1, 0, 0), failed, outcome("3", "three", 1, 0, 0)]),
        ]);
        let rows: Vec<_> = comparison.rows.iter().map(|row| (row.title.as_str(), row.differs)).collect();
        assert_eq!(rows, [("one", true), ("two", false), ("three", true)]);
        assert_eq!(comparison.rows[0].assertions[0].actual, [None, Some("2".to_owned())]);
        assert_eq!(comparison.columns.iter().map(Column::score).collect::<Vec<_>>(), [(2, 2), (2, 3)]);
    }

    #[test]
    fn a_saved_run_and_a_saved_comparison_can_be_read() {
        let run = crate::report::fixed::run();
        let column = Column::of("a".to_owned(), &[run.clone(), run.clone()]);
        assert_eq!(column.scenarios[0].passed, 2);
        let read = Column::read(&crate::report::json::render(&run).unwrap()).unwrap();
        assert_eq!(read.scenarios, Column::of("a".to_owned(), &[run]).scenarios);
        let saved = serde_json::to_string(&Comparison::new(vec![column.clone()])).unwrap();
        assert_eq!(Column::read(&saved).unwrap().scenarios, column.scenarios);
        assert!(Column::read("{}").is_err());
    }
}
