//! The run as JSON, for programs.

use super::RunResult;

/// One object, indented.
///
/// # Errors
/// It cannot be serialized, which would be a bug.
pub fn render(run: &RunResult) -> serde_json::Result<String> {
    Ok(serde_json::to_string_pretty(run)? + "\n")
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_run_as_json() {
        insta::assert_snapshot!(super::render(&crate::report::fixed::run()).unwrap());
    }
}
