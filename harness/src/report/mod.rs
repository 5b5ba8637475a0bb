//! What came of a run, as data. JSON serializes it, JUnit is a function of it, the console prints it as it grows.

pub mod console;
mod files;
pub mod github;
pub mod html;
pub mod json;
pub mod junit;
pub mod markdown;
mod secrets;

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

pub use files::Files;
pub(crate) use files::check as check_files;
pub use secrets::Secrets;
pub(crate) use secrets::masked;

use crate::{
    call::{
        Outcome,
        tap::{End, Piece, Recording},
    },
    exit::Exit,
    finding::{Blame, Finding},
    text::abridge,
};

/// A whole run.
#[derive(Clone, Debug, Serialize)]
pub struct RunResult {
    /// What the scenarios ran on.
    pub backend: String,
    /// The id of the container that was started for the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// How many of each verdict.
    pub summary: Summary,
    /// How long it took.
    #[serde(rename = "took_ms", serialize_with = "millis")]
    pub took: Duration,
    /// The scenarios, in order of their files.
    pub scenarios: Vec<ScenarioResult>,
    /// Of the failed: how many need which capability that a trial found.
    #[serde(skip)]
    pub tried: BTreeMap<&'static str, usize>,
}

impl RunResult {
    /// Counts the verdicts.
    #[must_use]
    pub fn new(backend: String, took: Duration, scenarios: Vec<ScenarioResult>) -> Self {
        let mut summary = Summary::default();
        for scenario in &scenarios {
            *match scenario.verdict {
                Verdict::Passed => &mut summary.passed,
                Verdict::Failed => &mut summary.failed,
                Verdict::Broken => &mut summary.broken,
                Verdict::Skipped => &mut summary.skipped,
            } += 1;
        }
        summary.failed_by_model = scenarios.iter().filter(|scenario| scenario.failed_by_model()).count();
        let in_part = |scenario: &&ScenarioResult| scenario.steps.iter().any(|step| !step.unchecked.is_empty());
        let passed = |scenario: &&ScenarioResult| scenario.verdict == Verdict::Passed;
        summary.passed_in_part = scenarios.iter().filter(passed).filter(in_part).count();
        Self { backend, container: None, summary, took, scenarios, tried: BTreeMap::new() }
    }

    /// A sentence about those that passed, but not with everything that they expect.
    #[must_use]
    pub fn passed_in_part(&self) -> Option<String> {
        (self.summary.passed_in_part > 0).then(|| {
            let count = self.summary.passed_in_part;
            let scenarios = if count == 1 { "scenario" } else { "scenarios" };
            format!(
                "Note: `sent` checks were skipped in {count} passed {scenarios} ({} does not show what reached Ollama).",
                self.backend
            )
        })
    }

    /// A sentence about failures of what the server seemed to have when it was tried.
    #[must_use]
    pub fn failed_though_tried(&self) -> Option<String> {
        let list: Vec<_> = self.tried.iter().map(|(name, count)| format!("{name} ({count})")).collect();
        (!list.is_empty()).then(|| {
            format!(
                "Note: some failures need what the server seemed to have when it was tried: {}. Name what it has with --capability NAME,… \
                 (or none); scenarios that need more are skipped.",
                list.join(", ")
            )
        })
    }

    /// A sentence about failures that only the model is to blame for. Only if there are no others has the server kept
    /// its promises.
    #[must_use]
    pub fn failed_by_model(&self) -> Option<String> {
        let Summary { failed, failed_by_model: of_model, broken, .. } = self.summary;
        let of_server = failed - of_model;
        match (of_model, of_server) {
            (0, _) => None,
            (_, 0) => {
                let all = if failed == 1 { "The failure is".to_owned() } else { format!("All {failed} failures are") };
                let kept = if broken == 0 { "; the server kept its promises" } else { "" };
                Some(format!("{all} the model's{kept}."))
            }
            _ => {
                let are = |count: usize| if count == 1 { "is" } else { "are" };
                Some(format!(
                    "{of_model} of the {failed} failures {} the model's; {of_server} {} the server's.",
                    are(of_model),
                    are(of_server)
                ))
            }
        }
    }

    /// 0: all that ran passed. 1: the target is not fit. 2: something could not be run. 3: nothing was checked.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self.summary {
            Summary { failed: 1.., .. } => Exit::Unfit,
            Summary { broken: 1.., .. } => Exit::Unusable,
            Summary { passed: 0, .. } => Exit::NothingChecked,
            _ => Exit::Fit,
        }
    }
}

/// How many of each verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "`Verdict` documents the verdicts")]
pub struct Summary {
    pub passed: usize,
    pub failed: usize,
    pub broken: usize,
    pub skipped: usize,
    /// Of the failed: those that only the model is to blame for.
    pub failed_by_model: usize,
    /// Of the passed: those with expectations that this backend cannot check.
    pub passed_in_part: usize,
}

/// What became of a scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Every expectation held.
    Passed,
    /// An expectation did not hold.
    Failed,
    /// It could not be run.
    Broken,
    /// It was not run.
    Skipped,
}

/// One scenario.
#[derive(Clone, Debug, Serialize)]
pub struct ScenarioResult {
    /// Its file.
    pub file: String,
    /// Its title.
    pub title: String,
    /// Its tags.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// What became of it.
    pub verdict: Verdict,
    /// Why it was skipped or could not be run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How long it took.
    #[serde(rename = "took_ms", serialize_with = "millis")]
    pub took: Duration,
    /// What its calls are, whatever its file and title: by it a renamed scenario is known again.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub fingerprint: String,
    /// The steps that were run.
    pub steps: Vec<StepResult>,
}

impl ScenarioResult {
    /// Whether it failed, and only the model is to blame.
    #[must_use]
    pub fn failed_by_model(&self) -> bool {
        let mut findings = self.steps.iter().flat_map(|step| &step.findings);
        self.verdict == Verdict::Failed && findings.all(|reported| reported.blame == Blame::Model)
    }
}

/// One step.
#[derive(Clone, Debug, Default, Serialize)]
pub struct StepResult {
    /// Its name or number.
    pub name: String,
    /// The expectations that did not hold.
    pub findings: Vec<ReportedFinding>,
    /// The expectations that could not be checked, because the backend does not show what reached the upstream.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unchecked: Vec<&'static str>,
    /// Of a step that is repeated: how often the model was right, and how often it was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<(usize, usize)>,
    /// What crossed the wire.
    pub exchange: Exchange,
    /// What the client understood.
    #[serde(skip)]
    pub understood: Value,
}

/// A finding as it is reported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReportedFinding {
    /// `file:line:column` of the expectation.
    pub at: String,
    /// What it is about.
    pub about: String,
    /// What was expected.
    pub expected: String,
    /// What there was.
    pub actual: String,
    /// The law that a stream breaks, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub law: Option<&'static str>,
    /// Who is to blame.
    pub blame: Blame,
}

impl ReportedFinding {
    /// Adds the file to a finding.
    #[must_use]
    pub fn new(file: &str, finding: Finding, secrets: &Secrets) -> Self {
        let Finding { at, about, expected, actual, law } = finding;
        let (expected, actual) = (secrets.hidden(&expected), secrets.hidden(&actual));
        Self { at: format!("{file}:{}:{}", at.line, at.column), about, expected, actual, law, blame: Blame::Server }
    }

    /// The same, but it is the model that is to blame.
    #[must_use]
    pub fn of_model(self) -> Self {
        Self { blame: Blame::Model, ..self }
    }
}

/// What crossed the wire, shortened, keys masked.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Exchange {
    /// The request's method and URL.
    pub request: String,
    /// The request's headers.
    pub request_headers: Vec<(String, String)>,
    /// The request's body.
    pub request_body: String,
    /// The answer's status.
    pub status: Option<u16>,
    /// The answer's headers.
    pub headers: Vec<(String, String)>,
    /// The answer's body.
    pub body: String,
    /// How the answer ended.
    pub end: String,
    /// When the answer's head came.
    #[serde(rename = "head_ms", serialize_with = "millis")]
    pub head_after: Duration,
    /// When the answer ended.
    #[serde(rename = "took_ms", serialize_with = "millis")]
    pub took: Duration,
    /// Of a stream: when each piece came, the first of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub chunks: Vec<Chunk>,
}

/// A piece of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Chunk {
    /// When it came, counted from the request.
    pub after_ms: f64,
    /// Its size.
    pub bytes: usize,
}

/// The maximum number of pieces that a report shows.
const CHUNKS: usize = 400;

impl Exchange {
    /// Shortens and masks a recording.
    #[must_use]
    pub fn new(outcome: &Outcome, secrets: &Secrets) -> Self {
        let recording: &Recording = &outcome.recording;
        let headers = |headers: &[(String, String)]| {
            headers.iter().map(|(name, value)| (name.clone(), secrets.hidden(secrets::masked(name, value)))).collect()
        };
        let body = |body: &[u8]| abridge(&secrets.hidden(&String::from_utf8_lossy(body)));
        Self {
            request: secrets.hidden(&format!("{} {}", recording.method, recording.url)),
            request_headers: headers(&recording.request_headers),
            request_body: body(&recording.request_body),
            status: recording.status,
            headers: headers(&recording.headers),
            body: body(&recording.body()),
            end: match &recording.end {
                End::Open => "had not ended".to_owned(),
                End::Complete => "complete".to_owned(),
                End::Cut(words) => format!("cut: {words}"),
                End::Left => "the client left, as the step says".to_owned(),
                End::NoAnswer(words) => format!("no answer: {words}"),
            },
            head_after: recording.head_after,
            took: recording.took,
            chunks: if recording.pieces.len() > 1 {
                let chunk = |piece: &Piece| Chunk {
                    after_ms: (piece.after.as_secs_f64() * 10_000.0).round() / 10.0,
                    bytes: piece.bytes.len(),
                };
                recording.pieces.iter().take(CHUNKS).map(chunk).collect()
            } else {
                Vec::new()
            },
        }
    }
}

fn millis<S: Serializer>(took: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(took.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
pub(crate) mod fixed {
    //! A run that never was, for the snapshots.

    use super::*;

    fn scenario(name: &str, verdict: Verdict, reason: Option<&str>, steps: Vec<StepResult>) -> ScenarioResult {
        ScenarioResult {
            file: format!("scenarios/{name}.yaml"),
            title: format!("{} is as it should be", name.replace('/', " ")),
            tags: vec!["quick".to_owned()],
            verdict,
            reason: reason.map(str::to_owned),
            took: Duration::from_millis(12),
            fingerprint: String::new(),
            steps,
        }
    }

    /// One scenario of each verdict.
    pub(crate) fn run() -> RunResult {
        let exchange = Exchange {
            request: "POST http://127.0.0.1:1/v1/chat/completions".to_owned(),
            request_headers: vec![
                ("authorization".to_owned(), secrets::masked("authorization", "Bearer secret").to_owned()),
                ("content-type".to_owned(), "application/json".to_owned()),
            ],
            request_body: r#"{"model":"m","messages":[]}"#.to_owned(),
            status: Some(200),
            headers: vec![("content-type".to_owned(), "application/json".to_owned())],
            body: r#"{"choices":[{"finish_reason":"stop"}]}"#.to_owned(),
            end: "complete".to_owned(),
            head_after: Duration::from_millis(3),
            took: Duration::from_millis(1_250),
            chunks: vec![Chunk { after_ms: 3.5, bytes: 20 }, Chunk { after_ms: 1_249.0, bytes: 18 }],
        };
        let finding = ReportedFinding {
            at: "scenarios/chat/tools.yaml:12:7".to_owned(),
            about: "$.choices[0].finish_reason".to_owned(),
            expected: "\"tool_calls\"".to_owned(),
            actual: "\"stop\"".to_owned(),
            law: None,
            blame: Blame::Server,
        };
        let passed = StepResult {
            name: "step 1".to_owned(),
            findings: Vec::new(),
            unchecked: vec!["sent"],
            rate: None,
            exchange: exchange.clone(),
            understood: Value::Null,
        };
        let failed = StepResult { name: "the second answer".to_owned(), findings: vec![finding], ..passed.clone() };
        RunResult::new(
            "the mock".to_owned(),
            Duration::from_millis(1_300),
            vec![
                scenario("chat/plain", Verdict::Passed, None, vec![passed.clone()]),
                scenario("chat/tools", Verdict::Failed, None, vec![passed, failed]),
                scenario(
                    "chat/upstream",
                    Verdict::Broken,
                    Some("the proxy cannot start: no <port> & no hope"),
                    Vec::new(),
                ),
                scenario(
                    "native/tags",
                    Verdict::Skipped,
                    Some("it needs script, which a remote cannot promise"),
                    Vec::new(),
                ),
            ],
        )
    }

    #[test]
    fn the_exit_code_is_the_worst() {
        let mut run = run();
        assert_eq!((run.summary.passed, run.exit()), (1, Exit::Unfit));
        run.summary.failed = 0;
        assert_eq!(run.exit(), Exit::Unusable);
        run.summary.broken = 0;
        assert_eq!(run.exit(), Exit::Fit);
        run.summary.passed = 0;
        assert_eq!(run.exit(), Exit::NothingChecked);
    }
}
