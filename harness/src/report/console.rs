//! The run for people: one line for each scenario as it lands, the findings of those that failed, and the last line.
//!
//! Colors are always written here; the printer strips them where there is no terminal.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

use anstyle::{AnsiColor, Style};

use super::{Exchange, RunResult, ScenarioResult, Verdict};
use crate::{
    finding::Blame,
    text::{duration, shorten},
};

const DIM: Style = Style::new().dimmed();

/// A verdict's word, as wide as the others, and its color.
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
        out.push_str(&details(scenario, verbose));
    } else if verbose {
        for step in &scenario.steps {
            out.push_str(&exchange(&step.exchange, "    "));
        }
    }
    out
}

/// The findings of a scenario that failed; `verbose` adds the exchange that they are about.
#[must_use]
pub fn details(scenario: &ScenarioResult, verbose: bool) -> String {
    let mut out = String::new();
    let failed: Vec<_> = scenario.steps.iter().filter(|step| !step.findings.is_empty()).collect();
    // Of many calls at once, many fail alike.
    for steps in failed.chunk_by(|one, other| one.findings == other.findings) {
        let [step, others @ ..] = steps else { continue };
        for finding in &step.findings {
            let blame = if finding.blame == Blame::Model { ", blame: model" } else { "" };
            let _ = writeln!(out, "  {}: {} ({}{blame})", finding.at, finding.about, step.name);
            let _ = writeln!(out, "    expected {}", finding.expected);
            let _ = writeln!(out, "    actual   {}", finding.actual);
        }
        if verbose {
            out.push_str(&exchange(&step.exchange, "    "));
        }
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

/// What is printed at the end: what failed, what was skipped and why, and the counts in the last line.
#[must_use]
pub fn ending(run: &RunResult, verbose: bool) -> String {
    let summary = run.summary;
    let mut out = String::new();
    failed(&mut out, run, verbose);
    if !verbose {
        skipped(&mut out, run);
    }
    for sentence in [run.failed_by_model(), run.failed_though_tried()].into_iter().flatten() {
        let _ = writeln!(out, "{sentence}");
    }
    if let Some(sentence) = run.passed_in_part() {
        let _ = writeln!(out, "{DIM}{sentence}{DIM:#}");
    }
    let _ = writeln!(out, "on {}, in {}", run.backend, duration(run.took));
    // Those that could not be run are counted apart, as in the other reports.
    let broken = if summary.broken > 0 { format!(" {} broken,", summary.broken) } else { String::new() };
    let (passed, failed, skipped) = (summary.passed, summary.failed, summary.skipped);
    let _ = writeln!(out, "{passed} passed, {failed} failed,{broken} {skipped} skipped");
    out
}

/// One line for each scenario that failed, and for each law that was broken.
fn failed(out: &mut String, run: &RunResult, verbose: bool) {
    let is_failed = |scenario: &&ScenarioResult| matches!(scenario.verdict, Verdict::Failed | Verdict::Broken);
    let all: Vec<_> = run.scenarios.iter().filter(is_failed).collect();
    if all.is_empty() {
        return;
    }
    let hint = if verbose { "" } else { " (-v shows the exchanges)" };
    let _ = writeln!(out, "\nfailed{hint}:");
    for scenario in all {
        let (word, style) = word(scenario.verdict);
        let findings: Vec<_> = scenario.steps.iter().flat_map(|step| &step.findings).collect();
        let why = match (&scenario.reason, findings.first()) {
            (Some(reason), _) => reason.lines().next().unwrap_or_default().to_owned(),
            (None, Some(reported)) => {
                let one_line = |text: &str| shorten(&text.replace('\n', " "), 80);
                let more = if findings.len() > 1 { format!(" (+{})", findings.len() - 1) } else { String::new() };
                format!(
                    "{}: expected {}, actual {}{more}",
                    reported.about,
                    one_line(&reported.expected),
                    one_line(&reported.actual)
                )
            }
            (None, None) => String::new(),
        };
        let _ = writeln!(out, "  {style}{word}{style:#} {}  {}  {DIM}{why}{DIM:#}", scenario.file, scenario.title);
    }
    let mut laws: BTreeMap<&str, usize> = BTreeMap::new();
    for scenario in &run.scenarios {
        let broken = scenario.steps.iter().flat_map(|step| &step.findings).filter_map(|reported| reported.law);
        for law in broken.collect::<BTreeSet<_>>() {
            *laws.entry(law).or_default() += 1;
        }
    }
    for (law, count) in laws {
        let scenarios = if count == 1 { "1 scenario".to_owned() } else { format!("{count} scenarios") };
        let _ = writeln!(out, "the law {law} is broken in {scenarios} (--no-law {law} switches it off)");
    }
    out.push('\n');
}

/// How many were skipped for which reason.
fn skipped(out: &mut String, run: &RunResult) {
    let mut reasons: Vec<(&str, usize)> = Vec::new();
    for scenario in run.scenarios.iter().filter(|scenario| scenario.verdict == Verdict::Skipped) {
        let reason = scenario.reason.as_deref().unwrap_or_default();
        match reasons.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, count)) => *count += 1,
            None => reasons.push((reason, 1)),
        }
    }
    reasons.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    for (reason, count) in reasons {
        let _ = writeln!(out, "{DIM}skipped {count}: {reason}{DIM:#}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_on_the_console() {
        let run = crate::report::fixed::run();
        let mut text: String = run.scenarios.iter().map(|result| scenario(result, false)).collect();
        text.push_str(&ending(&run, false));
        insta::assert_snapshot!(anstream::adapter::strip_str(&text).to_string());
    }

    #[test]
    fn answers_that_fail_alike_are_shown_once() {
        let mut run = crate::report::fixed::run();
        let steps = &mut run.scenarios[1].steps;
        steps.extend(vec![steps[1].clone(); 59]);
        let text = anstream::adapter::strip_str(&details(&run.scenarios[1], true)).to_string();
        assert_eq!((text.matches("expected").count(), text.matches("> POST").count()), (1, 1), "{text}");
        assert!(text.ends_with("and 59 more alike\n"), "{text}");
    }

    #[test]
    fn an_exchange_is_shown_only_when_asked_and_what_failed_is_listed_at_the_end() {
        let mut run = crate::report::fixed::run();
        let text = anstream::adapter::strip_str(&scenario(&run.scenarios[1], false)).to_string();
        assert!(!text.contains("> POST") && text.contains("expected \"tool_calls\""), "{text}");
        run.scenarios[1].steps[1].findings[0].law = Some("role-first");
        let text = anstream::adapter::strip_str(&ending(&run, false)).to_string();
        assert!(text.contains("failed (-v shows the exchanges):\n  FAILED  scenarios/chat/tools.yaml  "), "{text}");
        assert!(
            text.contains("actual \"stop\"\n") && text.contains("  BROKEN  scenarios/chat/upstream.yaml  "),
            "{text}"
        );
        assert!(text.contains("the law role-first is broken in 1 scenario ("), "{text}");
        assert!(text.contains("skipped 1: it needs script, which a remote cannot promise\n"), "{text}");
    }

    #[test]
    fn the_server_kept_its_promises_only_if_no_failure_is_its_own() {
        let fixed = crate::report::fixed::run();
        let failed = |blame: Blame| {
            let mut scenario = fixed.scenarios[1].clone();
            scenario.steps.iter_mut().flat_map(|step| &mut step.findings).for_each(|reported| reported.blame = blame);
            scenario
        };
        let sentence = |of_model: usize, of_server: usize| {
            let mut scenarios = vec![failed(Blame::Model); of_model];
            scenarios.extend(vec![failed(Blame::Server); of_server]);
            let run = RunResult::new("x".to_owned(), fixed.took, scenarios);
            let text = anstream::adapter::strip_str(&ending(&run, false)).to_string();
            assert_eq!(text.contains("kept its promises"), of_model > 0 && of_server == 0, "{text}");
            let markdown = crate::report::markdown::render(&run);
            run.failed_by_model().inspect(|sentence| assert!(text.contains(sentence) && markdown.contains(sentence)))
        };
        assert_eq!(sentence(3, 16).unwrap(), "3 of the 19 failures are the model's; 16 are the server's.");
        assert_eq!(sentence(1, 1).unwrap(), "1 of the 2 failures is the model's; 1 is the server's.");
        assert_eq!(sentence(1, 0).unwrap(), "The failure is the model's; the server kept its promises.");
        assert_eq!(sentence(2, 0).unwrap(), "All 2 failures are the model's; the server kept its promises.");
        assert_eq!(sentence(0, 2), None);
        let broken = fixed.scenarios.iter().find(|scenario| scenario.verdict == Verdict::Broken).unwrap().clone();
        let run = RunResult::new("x".to_owned(), fixed.took, vec![failed(Blame::Model), broken]);
        assert_eq!(run.failed_by_model().unwrap(), "The failure is the model's.");
    }

    #[test]
    fn every_exchange_is_shown_when_asked() {
        let run = crate::report::fixed::run();
        let text = anstream::adapter::strip_str(&scenario(&run.scenarios[0], true)).to_string();
        assert!(text.contains("> authorization: ***") && text.contains("< 200 after 3 ms"), "{text}");
    }
}
