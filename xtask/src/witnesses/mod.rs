//! Foreign clients against the proxy on the mock, versions locked: what they take for an answer is not ours to decide.
//!
//! Each witness is a program that prints a line for each of its checks; this starts what it needs and makes one report of all. What a check is
//! stands in `xtask/witnesses/`.

mod runtime;
mod stage;

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use self::{runtime::Runtime, stage::Stage};
use crate::step::Step;

/// A program that asks as a foreign client does.
struct Witness {
    /// Who is asking, for the report.
    client: &'static str,
    runtime: Runtime,
    /// In the runtime's folder.
    script: &'static str,
}

const WITNESSES: [Witness; 5] = [
    Witness { client: "openai for Python", runtime: Runtime::Python, script: "openai_sdk.py" },
    Witness { client: "ollama for Python", runtime: Runtime::Python, script: "ollama_sdk.py" },
    Witness { client: "openai for Node", runtime: Runtime::Node, script: "openai_sdk.mjs" },
    Witness { client: "ollama for Node", runtime: Runtime::Node, script: "ollama_sdk.mjs" },
    Witness { client: "ai-sdk for Node", runtime: Runtime::Node, script: "ai_sdk.mjs" },
];

/// A witness that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(120);

/// Runs those whose client's name holds one of `words`, or all. Where one cannot run, says so loudly; with `CI=true` that is a failure.
pub(crate) fn run(words: &[String]) -> Result<(), String> {
    let chosen =
        |witness: &&Witness| words.is_empty() || words.iter().any(|word| witness.client.contains(word.as_str()));
    let witnesses: Vec<&Witness> = WITNESSES.iter().filter(chosen).collect();
    if witnesses.is_empty() {
        return Err(format!(
            "no client is named so; there are: {}",
            WITNESSES.map(|witness| witness.client).join(", ")
        ));
    }
    let start = Instant::now();
    let skipping_fails = std::env::var("CI").is_ok_and(|ci| ci == "true");
    Step::cargo("build --quiet -p farllama -p mock-ollama").run()?;
    let mut total = Tally::default();
    for witness in witnesses {
        if let Err(why) = witness.runtime.prepare() {
            println!("SKIPPED: {} cannot be asked here: {why}\n", witness.client);
            total.skipped += 1;
            continue;
        }
        println!("{}:", witness.client);
        let start = Instant::now();
        let tally = witness.run()?;
        println!("  {:.1} s\n", start.elapsed().as_secs_f64());
        total.add(&tally);
    }
    println!("{} passed, {} failed, {} skipped", total.passed, total.failed, total.skipped);
    println!("foreign clients took {:.1} s\n", start.elapsed().as_secs_f64());
    match (total.failed, total.skipped) {
        (0, 0) => Ok(()),
        (0, _) if !skipping_fails => Ok(()),
        (0, skipped) => Err(format!("{skipped} foreign clients could not be asked")),
        (failed, _) => Err(format!("{failed} checks of foreign clients failed")),
    }
}

/// How checks went; a whole witness that could not run is one that was skipped.
#[derive(Debug, Default, PartialEq)]
struct Tally {
    passed: usize,
    failed: usize,
    skipped: usize,
}

impl Tally {
    fn add(&mut self, other: &Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }

    /// Counts a line of a witness.
    fn count(&mut self, line: &str) {
        self.passed += usize::from(line.starts_with("ok "));
        self.failed += usize::from(line.starts_with("FAILED "));
    }
}

impl Witness {
    fn run(&self) -> Result<Tally, String> {
        let stage = Stage::start()?;
        let mut witness = self
            .runtime
            .command(self.script)
            .env("WITNESS_URL", &stage.open.url)
            .env("WITNESS_KEYED_URL", &stage.keyed.url)
            .env("WITNESS_OLDER_URL", &stage.older.url)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot start {}: {error}", self.script))?;
        let (sender, lines) = mpsc::channel();
        let output = witness.stdout.take().map(BufReader::new);
        let reader = thread::spawn(move || {
            for line in output.into_iter().flat_map(BufRead::lines).map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let mut tally = Tally::default();
        let deadline = Instant::now() + LIMIT;
        loop {
            match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    println!("  {line}");
                    tally.count(&line);
                }
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    println!("  FAILED  it did not end within {} s", LIMIT.as_secs());
                    tally.failed += 1;
                    witness.kill().map_err(|error| format!("cannot end {}: {error}", self.script))?;
                    break;
                }
            }
        }
        let status = witness.wait().map_err(|error| format!("{}: {error}", self.script))?;
        drop(lines);
        // What it started itself may hold the pipe still.
        drop(reader);
        if tally.failed == 0 && (!status.success() || tally.passed == 0) {
            println!("  FAILED  it ended with {status} after {} checks", tally.passed);
            tally.failed += 1;
        }
        if tally.failed > 0 {
            let proxies =
                [("", &stage.open), (" that asks for keys", &stage.keyed), (" before an older Ollama", &stage.older)];
            for (which, proxy) in proxies {
                println!("The log of the proxy{which}:\n{}", proxy.log());
            }
        }
        Ok(tally)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_witness_are_counted_and_others_are_not() {
        let mut tally = Tally::default();
        for line in ["ok      a", "FAILED  b: c", "  ok b", "okay", ""] {
            tally.count(line);
        }
        assert_eq!(tally, Tally { passed: 1, failed: 1, skipped: 0 });
    }
}
