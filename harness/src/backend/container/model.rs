//! Brings a model into an Ollama that has just been started, and reports its progress.

use futures_util::StreamExt;
use serde_json::{Value, json};

use super::Reporter;
use crate::{net, text::chain};

/// A line of a pull's answer; its real lines are far shorter.
const LONGEST: usize = 1 << 20;

/// Pulls `model` from where Ollama gets it, unless it is there already (in a volume, say), however long that takes.
pub(super) async fn bring(model: &str, url: &str, reporter: &Reporter) -> Result<(), String> {
    let failed = |why: String| format!("{model} cannot be pulled: {why}");
    let reported = |error: reqwest::Error| failed(chain(&error));
    let http = net::client().map_err(reported)?;
    let shown = http.post(format!("{url}/api/show")).json(&json!({"model": model})).send().await.map_err(reported)?;
    if shown.status().is_success() {
        reporter.say(&format!("{model} is there already"));
        return Ok(());
    }
    reporter.say(&format!("pulling {model}"));
    // Ollama talks to a registry without TLS only if that is requested twice: by the name, and by this.
    let ask = json!({"model": model, "insecure": model.starts_with("http://")});
    let answer = http.post(format!("{url}/api/pull")).json(&ask).send().await.map_err(reported)?;
    let mut pieces = answer.bytes_stream();
    let (mut rest, mut progress) = (Vec::new(), Progress::default());
    while let Some(piece) = pieces.next().await {
        rest.extend_from_slice(&piece.map_err(reported)?);
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            progress.line(&line, &|words| reporter.say(&format!("{model}: {words}"))).map_err(failed)?;
        }
        if rest.len() > LONGEST {
            return Err(failed("the server is not an Ollama".to_owned()));
        }
    }
    // A refusal is one line without an end.
    progress.line(&rest, &|_| {}).map_err(failed)?;
    if progress.success { Ok(()) } else { Err(failed("the answer ended too early".to_owned())) }
}

/// How far a pull is.
#[derive(Debug, Default)]
struct Progress {
    /// What is being done, and how many tenths of it were reported.
    now: (String, u64),
    success: bool,
}

impl Progress {
    /// Takes a line of the answer; news are reported.
    ///
    /// # Errors
    /// Ollama says what is wrong, whatever the status of the answer.
    fn line(&mut self, line: &[u8], reporter: &dyn Fn(&str)) -> Result<(), String> {
        let Ok(line) = serde_json::from_slice::<Value>(line) else { return Ok(()) };
        if let Some(error) = line["error"].as_str() {
            return Err(error.to_owned());
        }
        let status = line["status"].as_str().unwrap_or_default();
        self.success = status == "success";
        if status != self.now.0 {
            self.now = (status.to_owned(), 0);
            reporter(status);
        }
        let (done, total) = (line["completed"].as_u64().unwrap_or(0), line["total"].as_u64().unwrap_or(0));
        let tenths = (done.saturating_mul(10)).checked_div(total).unwrap_or(0).min(10);
        if tenths > self.now.1 {
            self.now.1 = tenths;
            reporter(&format!("{status}, {}0 % of {} MB", tenths, total.div_ceil(1_000_000)));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reported(lines: &[&str]) -> (Vec<String>, Result<(), String>, bool) {
        let said = std::cell::RefCell::new(Vec::new());
        let mut progress = Progress::default();
        let result = lines
            .iter()
            .try_for_each(|line| progress.line(line.as_bytes(), &|words| said.borrow_mut().push(words.to_owned())));
        (said.into_inner(), result, progress.success)
    }

    #[test]
    fn each_tenth_is_told_once() {
        let (said, result, success) = reported(&[
            r#"{"status":"pulling manifest"}"#,
            r#"{"status":"pulling abc","total":2000000000}"#,
            r#"{"status":"pulling abc","total":2000000000,"completed":199000000}"#,
            r#"{"status":"pulling abc","total":2000000000,"completed":210000000}"#,
            r#"{"status":"pulling abc","total":2000000000,"completed":220000000}"#,
            r#"{"status":"pulling abc","total":2000000000,"completed":2000000000}"#,
            r#"{"status":"success"}"#,
        ]);
        assert_eq!(
            said,
            [
                "pulling manifest",
                "pulling abc",
                "pulling abc, 10 % of 2000 MB",
                "pulling abc, 100 % of 2000 MB",
                "success"
            ]
        );
        assert!(result.is_ok() && success);
    }

    #[test]
    fn an_error_in_an_answer_that_began_well_is_an_error() {
        let (_, result, success) =
            reported(&[r#"{"status":"pulling manifest"}"#, r#"{"error":"no space left on device"}"#]);
        assert_eq!(result, Err("no space left on device".to_owned()));
        assert!(!success);
    }

    #[test]
    fn what_ended_before_success_is_none() {
        let (_, result, success) = reported(&[r#"{"status":"pulling manifest"}"#, r#"{"status":"verifying"}"#]);
        assert!(result.is_ok() && !success);
    }
}
