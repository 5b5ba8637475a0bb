//! The run as JUnit XML: a failed scenario is a `failure`, one that could not be run an `error`.

use quick_junit::{NonSuccessKind, Report, SerializeError, TestCase, TestCaseStatus, TestSuite};

use super::{RunResult, ScenarioResult, Verdict, console};
use crate::finding::Blame;

/// One suite with a case for each scenario.
///
/// # Errors
/// It cannot be written as XML, which would be a bug.
pub fn render(run: &RunResult) -> Result<String, SerializeError> {
    let mut suite = TestSuite::new(format!("farllama-check on {}", run.backend));
    suite.set_time(run.took);
    suite.add_test_cases(run.scenarios.iter().map(case));
    let mut report = Report::new("farllama-check");
    report.set_time(run.took);
    report.add_test_suite(suite);
    report.to_string()
}

fn case(scenario: &ScenarioResult) -> TestCase {
    let status = match scenario.verdict {
        Verdict::Passed => TestCaseStatus::success(),
        Verdict::Failed => {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            let finding = scenario.steps.iter().flat_map(|step| &step.findings).next();
            status.set_message(finding.map_or_else(String::new, |finding| {
                format!("{}: expected {}, but it is {}", finding.about, finding.expected, finding.actual)
            }));
            status.set_type(if scenario.failed_by_model() { Blame::Model } else { Blame::Server }.to_string());
            status.set_description(anstream::adapter::strip_str(&console::details(scenario, true)).to_string());
            status
        }
        Verdict::Broken => {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
            status.set_message(scenario.reason.as_deref().unwrap_or_default());
            status
        }
        Verdict::Skipped => {
            let mut status = TestCaseStatus::skipped();
            status.set_message(scenario.reason.as_deref().unwrap_or_default());
            status
        }
    };
    let mut case = TestCase::new(scenario.title.as_str(), status);
    case.set_classname(scenario.file.as_str());
    case.set_time(scenario.took);
    case
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_run_as_junit() {
        insta::assert_snapshot!(super::render(&crate::report::fixed::run()).unwrap());
    }
}
