//! Reports as one HTML file: no external resource, light and dark, with filters. Every text is escaped here and nowhere
//! else.
//!
//! What is shown is typed ([`Page`]); runs, diagnoses and comparisons make one of their results.

mod render;

use super::{Exchange, ReportedFinding, RunResult, ScenarioResult, Verdict};
use crate::{finding::Blame, text::duration};

/// How good a thing is, for its color and its filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// As it should be.
    Good,
    /// With limits, or skipped.
    Limited,
    /// It failed.
    Bad,
    /// Not known.
    Unknown,
    /// Neither good nor bad.
    Info,
}

impl Tone {
    fn class(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Limited => "limited",
            Self::Bad => "bad",
            Self::Unknown => "unknown",
            Self::Info => "info",
        }
    }
}

/// A whole report.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// Its heading.
    pub title: String,
    /// Sentences below it.
    pub notes: Vec<String>,
    /// The counts.
    pub counts: Vec<Count>,
    /// What was found, by section.
    pub sections: Vec<Section>,
}

/// A count in the summary.
#[derive(Clone, Debug)]
pub struct Count {
    /// What is counted.
    pub word: String,
    /// How many.
    pub count: usize,
    /// Its color.
    pub tone: Tone,
}

/// A part of the page.
#[derive(Clone, Debug, Default)]
pub struct Section {
    /// Its heading.
    pub title: String,
    /// A table above the items.
    pub table: Option<Table>,
    /// Its items.
    pub items: Vec<Item>,
}

/// A table.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// The heads of its columns.
    pub head: Vec<String>,
    /// Its rows: cells with their color.
    pub rows: Vec<Vec<(String, Option<Tone>)>>,
}

/// Something that was found, which can be filtered.
#[derive(Clone, Debug)]
pub struct Item {
    /// How good it is.
    pub tone: Tone,
    /// The word for that.
    pub word: String,
    /// What the filter of areas sorts it by.
    pub area: String,
    /// What it is about.
    pub title: String,
    /// What can be said about it.
    pub blocks: Vec<Block>,
}

/// A part of an item.
#[derive(Clone, Debug)]
pub enum Block {
    /// A paragraph.
    Text(String),
    /// A paragraph with a label.
    Labeled(String, String),
    /// An expectation that does not hold.
    Finding(ReportedFinding),
    /// What crossed the wire.
    Exchange(Box<Exchange>),
    /// A table.
    Table(Table),
}

impl Page {
    /// The page as HTML.
    #[must_use]
    pub fn render(&self) -> String {
        render::page(self)
    }
}

/// What a filter calls the area of a scenario: its folder.
fn area(file: &str) -> String {
    let mut parts: Vec<&str> = file.split('/').collect();
    parts.pop();
    parts.last().map_or_else(|| "scenarios".to_owned(), |folder| (*folder).to_owned())
}

fn tone(scenario: &ScenarioResult) -> (Tone, &'static str) {
    match scenario.verdict {
        Verdict::Passed => (Tone::Good, "passed"),
        Verdict::Failed if scenario.failed_by_model() => (Tone::Limited, "failed (model)"),
        Verdict::Failed => (Tone::Bad, "failed"),
        Verdict::Broken => (Tone::Bad, "broken"),
        Verdict::Skipped => (Tone::Unknown, "skipped"),
    }
}

/// A run as a page.
#[must_use]
pub fn of_run(run: &RunResult) -> Page {
    let summary = run.summary;
    let verdict = match (summary.failed + summary.broken, summary.passed) {
        (1.., _) => "not fit",
        (0, 0) => "nothing was checked",
        _ => "fit",
    };
    let counts = [
        ("passed", summary.passed, Tone::Good),
        ("failed", summary.failed, Tone::Bad),
        ("broken", summary.broken, Tone::Bad),
        ("skipped", summary.skipped, Tone::Unknown),
    ];
    let mut notes = vec![format!("On {}, in {}.", run.backend, duration(run.took))];
    notes.extend([run.failed_by_model(), run.failed_though_tried(), run.passed_in_part()].into_iter().flatten());
    Page {
        title: format!("farllama-check: {verdict}"),
        notes,
        counts: counts.map(|(word, count, tone)| Count { word: word.to_owned(), count, tone }).to_vec(),
        sections: vec![Section { items: run.scenarios.iter().map(item).collect(), ..Section::default() }],
    }
}

/// A scenario as an item.
#[must_use]
pub fn item(scenario: &ScenarioResult) -> Item {
    let (tone, word) = tone(scenario);
    let mut blocks = vec![Block::Labeled("file".to_owned(), scenario.file.clone())];
    blocks.extend(scenario.reason.clone().map(Block::Text));
    for step in &scenario.steps {
        blocks.push(Block::Labeled("step".to_owned(), step.name.clone()));
        if let Some((right, times)) = step.rate {
            blocks.push(Block::Text(format!("the model was right {right} times of {times}")));
        }
        blocks.extend(step.findings.iter().cloned().map(Block::Finding));
        if !step.exchange.request.is_empty() {
            blocks.push(Block::Exchange(Box::new(step.exchange.clone())));
        }
    }
    Item { tone, word: word.to_owned(), area: area(&scenario.file), title: scenario.title.clone(), blocks }
}

impl ReportedFinding {
    /// Who is to blame, as a word of the report.
    fn blamed(&self) -> &'static str {
        match self.blame {
            Blame::Server => "server",
            Blame::Model => "model",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixed;

    const HOSTILE: &str = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&";

    #[test]
    fn a_run_as_a_page() {
        let page = of_run(&fixed::run()).render();
        assert!(page.contains("farllama-check: not fit") && page.contains("scenarios/chat/tools.yaml:12:7"), "{page}");
        assert!(page.contains("<del>") && page.contains("<ins>"), "the difference is marked");
        assert!(page.contains("<svg"), "a stream has a timeline");
        // Nothing is fetched from anywhere.
        for outside in ["http-equiv=\"refresh", "<link", "src=", "url(", "@import"] {
            assert!(!page.contains(outside), "{outside}");
        }
    }

    #[test]
    fn every_text_of_a_server_is_escaped() {
        let mut run = fixed::run();
        run.backend = HOSTILE.to_owned();
        for scenario in &mut run.scenarios {
            (scenario.title, scenario.file) = (HOSTILE.to_owned(), HOSTILE.to_owned());
            scenario.reason = Some(HOSTILE.to_owned());
            for step in &mut scenario.steps {
                step.name = HOSTILE.to_owned();
                let exchange = &mut step.exchange;
                (exchange.body, exchange.request_body) = (HOSTILE.to_owned(), HOSTILE.to_owned());
                (exchange.request, exchange.end) = (HOSTILE.to_owned(), HOSTILE.to_owned());
                exchange.headers = vec![(HOSTILE.to_owned(), HOSTILE.to_owned())];
                for reported in &mut step.findings {
                    (reported.at, reported.about) = (HOSTILE.to_owned(), HOSTILE.to_owned());
                    (reported.expected, reported.actual) = (HOSTILE.to_owned(), format!("{HOSTILE} more"));
                }
            }
        }
        let mut page = of_run(&run);
        page.sections[0].title = HOSTILE.to_owned();
        page.sections[0].table =
            Some(Table { head: vec![HOSTILE.to_owned()], rows: vec![vec![(HOSTILE.to_owned(), Some(Tone::Bad))]] });
        let html = page.render();
        assert_eq!(html.matches("<script").count(), 1, "the page's own");
        assert_eq!(html.matches("<img").count(), 0);
        assert!(html.matches("&lt;script&gt;").count() > 20);
        // An attribute cannot be left.
        assert!(!html.contains("data-area=\"<") && !html.contains("onerror=alert(2)>\""));
    }
}
