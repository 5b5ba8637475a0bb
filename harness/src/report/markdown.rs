//! The run as Markdown, for a pull request's comment or a job's summary: the counts, what failed and why, what was
//! skipped.

use std::fmt::Write;

use super::{RunResult, ScenarioResult, Verdict};
use crate::text::{duration, shorten};

/// Most characters of a value: a table must stay readable.
const MOST: usize = 200;

/// The whole report.
#[must_use]
pub fn render(run: &RunResult) -> String {
    let summary = run.summary;
    let mut out = String::new();
    let fit = if summary.failed + summary.broken > 0 {
        "not fit"
    } else if summary.passed == 0 {
        "nothing was checked"
    } else {
        "fit"
    };
    let _ = writeln!(out, "## farllama-check: {fit}\n");
    let _ = writeln!(out, "On {}, in {}.\n", plain(&run.backend), duration(run.took));
    let _ = writeln!(out, "| passed | failed | broken | skipped |\n|---|---|---|---|");
    let _ = writeln!(out, "| {} | {} | {} | {} |", summary.passed, summary.failed, summary.broken, summary.skipped);
    for sentence in [run.failed_by_model(), run.failed_though_tried(), run.passed_in_part()].into_iter().flatten() {
        let _ = writeln!(out, "\n{}", plain(&sentence));
    }
    for scenario in &run.scenarios {
        match scenario.verdict {
            Verdict::Failed => failed(&mut out, scenario),
            Verdict::Broken => {
                let _ = writeln!(out, "\n### Could not be run: {}\n\n`{}`\n", plain(&scenario.title), scenario.file);
                let _ = writeln!(out, "{}", fenced(scenario.reason.as_deref().unwrap_or_default()));
            }
            Verdict::Passed | Verdict::Skipped => {}
        }
    }
    list(&mut out, run, Verdict::Skipped, "Skipped");
    list(&mut out, run, Verdict::Passed, "Passed");
    out
}

fn failed(out: &mut String, scenario: &ScenarioResult) {
    let _ = writeln!(out, "\n### Failed: {}\n\n`{}`\n", plain(&scenario.title), scenario.file);
    let _ = writeln!(out, "| where | blame | what | expected | actual |\n|---|---|---|---|---|");
    for step in &scenario.steps {
        for finding in &step.findings {
            let cells = [&finding.at, &finding.about, &finding.expected, &finding.actual];
            let mut cells: Vec<_> = cells.into_iter().map(|text| cell(text)).collect();
            cells.insert(1, finding.blame.to_string());
            let _ = writeln!(out, "| {} |", cells.join(" | "));
        }
    }
}

fn list(out: &mut String, run: &RunResult, verdict: Verdict, word: &str) {
    let all: Vec<_> = run.scenarios.iter().filter(|scenario| scenario.verdict == verdict).collect();
    if all.is_empty() {
        return;
    }
    let _ = writeln!(out, "\n<details><summary>{word}: {}</summary>\n", all.len());
    for scenario in all {
        let reason = scenario.reason.as_ref().map(|reason| format!(": {}", plain(reason))).unwrap_or_default();
        let _ = writeln!(out, "- {}{reason}", plain(&scenario.title));
    }
    let _ = writeln!(out, "\n</details>");
}

/// Text that is no markup.
pub(crate) fn plain(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '\n' => out.push(' '),
            '<' => out.push_str("&lt;"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '#' => {
                out.push('\\');
                out.push(c);
            }
            c => out.push(c),
        }
    }
    out
}

/// Code in a table.
pub(crate) fn cell(text: &str) -> String {
    let text = shorten(text, MOST).replace('\n', " ").replace('|', "\\|").replace('`', "'");
    format!("`{text}`")
}

/// A block that its own text cannot end.
fn fenced(text: &str) -> String {
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    format!("{fence}text\n{text}\n{fence}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_as_markdown() {
        insta::assert_snapshot!(render(&crate::report::fixed::run()));
    }

    #[test]
    fn what_scenarios_and_servers_say_is_no_markup() {
        assert_eq!(plain("a|b <c> *d*"), "a\\|b &lt;c> \\*d\\*");
        assert_eq!(cell("a`b|c\nd"), "`a'b\\|c d`");
        assert!(fenced("a ``` b").starts_with("````text\n"));
    }
}
