//! A comparison for people: as Markdown, and as a page of HTML.

use std::fmt::Write;

use super::{Comparison, Row, State};
use crate::report::{
    html::{Block, Count, Item, Page, Section, Table, Tone},
    markdown::{cell, plain},
};

fn score(comparison: &Comparison) -> Vec<String> {
    comparison
        .columns
        .iter()
        .map(|column| {
            let (right, all) = column.score();
            format!("{right} of {all}")
        })
        .collect()
}

fn text(row: &Row, at: usize) -> &str {
    row.cells[at].as_ref().map_or("not run", |cell| &cell.text)
}

/// The comparison as Markdown: the scores, what differs, what got worse.
#[must_use]
pub fn markdown(comparison: &Comparison) -> String {
    let names: Vec<_> = comparison.columns.iter().map(|column| plain(&column.name)).collect();
    let mut out = format!("| scenario | {} |\n|---|{}\n", names.join(" | "), "---|".repeat(names.len()));
    let _ = writeln!(out, "| **passed** | {} |", score(comparison).join(" | "));
    let differing: Vec<_> = comparison.rows.iter().filter(|row| row.differs).collect();
    for row in &differing {
        let cells: Vec<_> = (0..names.len()).map(|at| plain(text(row, at))).collect();
        let _ = writeln!(out, "| {} | {} |", plain(&row.title), cells.join(" | "));
    }
    let same = comparison.rows.len() - differing.len();
    let _ = writeln!(out, "\n{} scenarios differ, {same} do not.", differing.len());
    for row in differing.iter().filter(|row| !row.assertions.is_empty()) {
        let _ = writeln!(out, "\n### {}\n\n`{}`\n", plain(&row.title), row.file);
        let _ = writeln!(
            out,
            "| step | what | expected | {} |\n|---|---|---|{}",
            names.join(" | "),
            "---|".repeat(names.len())
        );
        for one in &row.assertions {
            let actual: Vec<_> = one
                .actual
                .iter()
                .enumerate()
                .map(|(at, actual)| match (actual, row.cells[at].as_ref().map(|cell| cell.state)) {
                    (Some(actual), _) => cell(actual),
                    (None, Some(State::Passed | State::Model)) => "holds".to_owned(),
                    (None, _) => "not reached".to_owned(),
                })
                .collect();
            let _ = writeln!(
                out,
                "| {} | {} | {} | {} |",
                plain(&one.step),
                cell(&one.about),
                cell(&one.expected),
                actual.join(" | ")
            );
        }
    }
    if let Some(worse) = &comparison.worse {
        let _ =
            writeln!(out, "\n## {}\n", if worse.is_empty() { "Nothing got worse" } else { "Worse than the baseline" });
        for one in worse {
            let _ = writeln!(
                out,
                "- {} (`{}`, {}): {} before, now {}",
                plain(&one.title),
                one.file,
                plain(&one.target),
                one.before,
                one.now
            );
        }
    }
    out
}

fn tone(state: Option<State>) -> Tone {
    match state {
        Some(State::Passed) => Tone::Good,
        Some(State::Model) => Tone::Limited,
        Some(State::Failed) => Tone::Bad,
        Some(State::Skipped) | None => Tone::Unknown,
    }
}

/// The comparison as a page.
#[must_use]
pub fn html(comparison: &Comparison) -> Page {
    let names = || comparison.columns.iter().map(|column| column.name.clone());
    let head = |first: &[&str]| first.iter().map(|name| (*name).to_owned()).chain(names()).collect::<Vec<_>>();
    let worse = comparison.worse.as_deref().unwrap_or_default();
    let differing = comparison.rows.iter().filter(|row| row.differs).count();
    let mut counts = vec![
        Count { word: "differ".to_owned(), count: differing, tone: Tone::Limited },
        Count { word: "do not".to_owned(), count: comparison.rows.len() - differing, tone: Tone::Good },
    ];
    if comparison.worse.is_some() {
        let tone = if worse.is_empty() { Tone::Good } else { Tone::Bad };
        counts.push(Count { word: "worse than the baseline".to_owned(), count: worse.len(), tone });
    }
    let scores =
        std::iter::once(("passed".to_owned(), None)).chain(score(comparison).into_iter().map(|text| (text, None)));
    let table = Table { head: head(&[""]), rows: vec![scores.collect()] };
    let item = |row: &Row| {
        let is_worse = worse.iter().any(|one| one.file == row.file && one.title == row.title);
        let states = || row.cells.iter().map(|cell| cell.as_ref().map(|cell| cell.state));
        let (tone_of_row, word) = match (is_worse, row.differs) {
            (true, _) => (Tone::Bad, "worse"),
            (false, true) => (Tone::Limited, "differs"),
            (false, false) => (states().next().map_or(Tone::Unknown, tone), "same"),
        };
        let cells = std::iter::once((String::new(), None)).chain(
            row.cells
                .iter()
                .enumerate()
                .map(|(at, cell)| (text(row, at).to_owned(), Some(tone(cell.as_ref().map(|cell| cell.state))))),
        );
        let mut rows = vec![cells.collect()];
        for one in &row.assertions {
            let what = format!("{}: {}, expected {}", one.step, one.about, one.expected);
            let actual = one.actual.iter().map(|actual| (actual.clone().unwrap_or_default(), None));
            rows.push(std::iter::once((what, None)).chain(actual).collect());
        }
        Item {
            tone: tone_of_row,
            word: word.to_owned(),
            area: row.file.rsplit('/').nth(1).unwrap_or("scenarios").to_owned(),
            title: row.title.clone(),
            blocks: vec![
                Block::Labeled("file".to_owned(), row.file.clone()),
                Block::Table(Table { head: head(&[""]), rows }),
            ],
        }
    };
    Page {
        title: format!("farllama-check compare: {}", names().collect::<Vec<_>>().join(", ")),
        notes: Vec::new(),
        counts,
        sections: vec![
            Section { title: "Score".to_owned(), table: Some(table), items: Vec::new() },
            Section { title: "Scenarios".to_owned(), table: None, items: comparison.rows.iter().map(item).collect() },
        ],
    }
}
