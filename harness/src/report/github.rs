//! The run as annotations of GitHub Actions: each finding stands at its line in the pull request.
//!
//! The form is that of workflow commands (docs.github.com, "Workflow commands for GitHub Actions").

use std::fmt::Write;

use super::{RunResult, ScenarioResult, Verdict};
use crate::finding::Blame;

/// Whether the job's output is read by GitHub.
#[must_use]
pub fn reads() -> bool {
    std::env::var("GITHUB_ACTIONS").is_ok_and(|there| there == "true")
}

/// Two lines between which nothing is read as a command: what a server answers stands in the output too, and is not to
/// be obeyed.
#[must_use]
pub fn quoted() -> (String, String) {
    // A server that could guess the word could end the quotation.
    let word = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), std::process::id());
    (format!("::stop-commands::{word:016x}\n"), format!("::{word:016x}::\n"))
}

/// The commands, one a line; they are read from the job's output.
#[must_use]
pub fn render(run: &RunResult) -> String {
    let mut out = String::new();
    for scenario in &run.scenarios {
        match scenario.verdict {
            Verdict::Failed => failed(&mut out, scenario),
            Verdict::Broken => {
                let reason = scenario.reason.as_deref().unwrap_or("it could not be run");
                command(&mut out, "error", &scenario.file, &scenario.title, &format!("could not be run: {reason}"));
            }
            Verdict::Skipped | Verdict::Passed => {}
        }
    }
    out
}

fn failed(out: &mut String, scenario: &ScenarioResult) {
    for finding in scenario.steps.iter().flat_map(|step| &step.findings) {
        let blame = if finding.blame == Blame::Model { " (blame: model)" } else { "" };
        let message = format!("{}{blame}\nexpected {}\nactual   {}", finding.about, finding.expected, finding.actual);
        command(out, "error", &finding.at, &scenario.title, &message);
    }
}

/// `at` is `file` or `file:line:column`.
fn command(out: &mut String, kind: &str, at: &str, title: &str, message: &str) {
    let mut parts = at.rsplitn(3, ':');
    let place = match (parts.next(), parts.next(), parts.next()) {
        (Some(column), Some(line), Some(file)) if line.parse::<u64>().is_ok() && column.parse::<u64>().is_ok() => {
            format!("file={},line={line},col={column}", property(file))
        }
        _ => format!("file={}", property(at)),
    };
    let _ = writeln!(out, "::{kind} {place},title={}::{}", property(title), data(message));
}

fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_stands_at_its_line() {
        let text = render(&crate::report::fixed::run());
        let first = text.lines().next().unwrap_or_default();
        assert_eq!(
            first,
            "::error file=scenarios/chat/tools.yaml,line=12,col=7,title=chat tools is as it should be::$.choices[0].finish_reason%0Aexpected \"tool_calls\"%0Aactual   \"stop\""
        );
        assert!(text.lines().nth(1).unwrap_or_default().contains("could not be run: the proxy cannot start"), "{text}");
        assert_eq!(text.lines().count(), 2);
    }

    #[test]
    fn nothing_ends_a_command_early() {
        assert_eq!(property("a:b,c%\nd"), "a%3Ab%2Cc%25%0Ad");
    }
}
