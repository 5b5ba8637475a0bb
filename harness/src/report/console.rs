//! The run for people: one line for each scenario as it lands, the findings of those that failed, and the last line.
//!
//! Colours are always written here; whoever prints strips them where there is no terminal.

use std::fmt::Write;

use anstyle::{AnsiColor, Style};

use super::{Exchange, RunResult, ScenarioResult, Verdict};
use crate::{finding::Blame, text::duration};

const DIM: Style = Style::new().dimmed();

/// A verdict's word, as wide as the others, and its colour.
fn word(verdict: Verdict) -> (&'static str, Style) {
    match verdict {
        Verdict::Passed => ("ok     ", AnsiColor::Green.on_default()),
        Verdict::Failed => ("FAILED ", AnsiColor::Red.on_default().bold()),
        Verdict::Broken => ("BROKEN ", AnsiColor::Magenta.on_default().bold()),
        Verdict::Skipped => ("skipped", AnsiColor::Yellow.on_default()),
    }
}

/// A scenario's line alone.
#[must_use]
pub fn line(scenario: &ScenarioResult) -> String {
    let (word, style) = word(scenario.verdict);
    let mut out = format!("{style}{word}{style:#} {}", scenario.title);
    if scenario.verdict != Verdict::Skipped {
        let _ = write!(out, " {DIM}({}){DIM:#}", duration(scenario.took));
    }
    out.push('\n');
    out
}

/// A scenario's line, and what is to be said about it; `verbose` shows every exchange.
#[must_use]
pub fn scenario(scenario: &ScenarioResult, verbose: bool) -> String {
    let mut out = line(scenario);
    for (step, (right, times)) in scenario.steps.iter().filter_map(|step| Some((step, step.rate?))) {
        let _ = writeln!(out, "    {DIM}{}: the model was right {right} times of {times}{DIM:#}", step.name);
    }
    if scenario.verdict == Verdict::Broken {
        let _ = writeln!(out, "  {}", scenario.file);
    }
    if let Some(reason) = &scenario.reason {
        for line in reason.lines() {
            let _ = writeln!(out, "    {line}");
        }
    }
    if scenario.verdict == Verdict::Failed {
        out.push_str(&details(scenario));
    } else if verbose {
        for step in &scenario.steps {
            out.push_str(&exchange(&step.exchange, "    "));
        }
    }
    out
}

/// The findings of a scenario that failed, with the exchange they are about.
#[must_use]
pub fn details(scenario: &ScenarioResult) -> String {
    let mut out = String::new();
    let failed: Vec<_> = scenario.steps.iter().filter(|step| !step.findings.is_empty()).collect();
    // Of many calls at once, many fail alike.
    for steps in failed.chunk_by(|one, other| one.findings == other.findings) {
        let [step, others @ ..] = steps else { continue };
        for finding in &step.findings {
            let blame = if finding.blame == Blame::Model { ", the model's doing" } else { "" };
            let _ = writeln!(out, "  {}: {} ({}{blame})", finding.at, finding.about, step.name);
            let _ = writeln!(out, "    expected {}", finding.expected);
            let _ = writeln!(out, "    actual   {}", finding.actual);
        }
        out.push_str(&exchange(&step.exchange, "    "));
        if !others.is_empty() {
            let _ = writeln!(out, "    and {} more alike", others.len());
        }
    }
    out
}

fn exchange(exchange: &Exchange, indent: &str) -> String {
    let mut out = String::new();
    if exchange.request.is_empty() {
        // The call was not made.
        return out;
    }
    let mut line = |mark: char, text: &str| {
        let _ = writeln!(out, "{indent}{DIM}{mark} {text}{DIM:#}");
    };
    line('>', &exchange.request);
    for (name, value) in &exchange.request_headers {
        line('>', &format!("{name}: {value}"));
    }
    exchange.request_body.lines().for_each(|text| line('>', text));
    if let Some(status) = exchange.status {
        line('<', &format!("{status} after {}", duration(exchange.head_after)));
    }
    for (name, value) in &exchange.headers {
        line('<', &format!("{name}: {value}"));
    }
    exchange.body.lines().for_each(|text| line('<', text));
    line('=', &format!("{} after {}", exchange.end, duration(exchange.took)));
    out
}

/// What is said at the end; the last line is the counts.
#[must_use]
pub fn ending(run: &RunResult) -> String {
    let summary = run.summary;
    let mut out = String::new();
    if summary.broken > 0 {
        let _ = writeln!(out, "{} of the failed could not be run (BROKEN above)", summary.broken);
    }
    if summary.failed_by_model > 0 {
        let _ = writeln!(
            out,
            "{} of the failed are the model's doing alone; the server kept its promises",
            summary.failed_by_model
        );
    }
    if let Some(sentence) = run.passed_in_part() {
        let _ = writeln!(out, "{DIM}{sentence}{DIM:#}");
    }
    let _ = writeln!(out, "on {}, in {}", run.backend, duration(run.took));
    let (passed, failed, skipped) = (summary.passed, summary.failed + summary.broken, summary.skipped);
    let _ = writeln!(out, "{passed} passed, {failed} failed, {skipped} skipped");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_on_the_console() {
        let run = crate::report::fixed::run();
        let mut text: String = run.scenarios.iter().map(|result| scenario(result, false)).collect();
        text.push_str(&ending(&run));
        insta::assert_snapshot!(anstream::adapter::strip_str(&text).to_string());
    }

    #[test]
    fn answers_that_fail_alike_are_shown_once() {
        let mut run = crate::report::fixed::run();
        let steps = &mut run.scenarios[1].steps;
        steps.extend(vec![steps[1].clone(); 59]);
        let text = anstream::adapter::strip_str(&details(&run.scenarios[1])).to_string();
        assert_eq!((text.matches("expected").count(), text.matches("> POST").count()), (1, 1), "{text}");
        assert!(text.ends_with("and 59 more alike\n"), "{text}");
    }

    #[test]
    fn every_exchange_is_shown_when_asked() {
        let run = crate::report::fixed::run();
        let text = anstream::adapter::strip_str(&scenario(&run.scenarios[0], true)).to_string();
        assert!(text.contains("> authorization: ***") && text.contains("< 200 after 3 ms"), "{text}");
    }
}
