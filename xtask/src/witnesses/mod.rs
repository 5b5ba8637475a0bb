//! Foreign clients against the proxy on the mock, versions locked: what they take for an answer is not ours to decide.
//!
//! Each witness is a program that prints a line for each of its checks; this starts what it needs and makes one report
//! of all. What a check is stands in `xtask/witnesses/`.

mod runtime;
mod scripted;
mod stage;

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::Stdio,
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use self::{
    runtime::Runtime,
    stage::{Server, Stage},
};
use crate::{built, root, step::Step};

/// A program that asks as a foreign client does.
struct Witness {
    /// Who is asking, for the report.
    client: &'static str,
    runtime: Runtime,
    /// In the runtime's folder.
    script: &'static str,
    over: Over,
}

/// Which OpenAI server the bridging proxy is in front of.
#[derive(Clone, Copy, PartialEq)]
enum Over {
    Farllama,
    Scripted,
    /// A real one, with a tiny model.
    LlamaCpp,
}

const WITNESSES: [Witness; 33] = [
    Witness { client: "openai for Python", runtime: Runtime::Python, script: "openai_sdk.py", over: Over::Farllama },
    Witness {
        client: "openai responses for Python",
        runtime: Runtime::Python,
        script: "openai_responses.py",
        over: Over::Farllama,
    },
    Witness {
        client: "openai files for Python",
        runtime: Runtime::Python,
        script: "openai_files.py",
        over: Over::Farllama,
    },
    Witness { client: "ollama for Python", runtime: Runtime::Python, script: "ollama_sdk.py", over: Over::Farllama },
    Witness {
        client: "ollama for Python over OpenAI",
        runtime: Runtime::Python,
        script: "ollama_bridge.py",
        over: Over::Farllama,
    },
    Witness {
        client: "ollama for Python over a scripted OpenAI server",
        runtime: Runtime::Python,
        script: "ollama_bridge.py",
        over: Over::Scripted,
    },
    Witness {
        client: "ollama for Python over llama.cpp",
        runtime: Runtime::Python,
        script: "ollama_bridge.py",
        over: Over::LlamaCpp,
    },
    Witness {
        client: "langchain-ollama over OpenAI",
        runtime: Runtime::Python,
        script: "langchain_bridge.py",
        over: Over::Farllama,
    },
    Witness {
        client: "langchain-ollama over a scripted OpenAI server",
        runtime: Runtime::Python,
        script: "langchain_bridge.py",
        over: Over::Scripted,
    },
    Witness {
        client: "langchain-ollama over llama.cpp",
        runtime: Runtime::Python,
        script: "langchain_bridge.py",
        over: Over::LlamaCpp,
    },
    Witness {
        client: "openai-agents for Python",
        runtime: Runtime::Python,
        script: "agents_sdk.py",
        over: Over::Farllama,
    },
    Witness {
        client: "anthropic for Python",
        runtime: Runtime::Python,
        script: "anthropic_sdk.py",
        over: Over::Farllama,
    },
    Witness { client: "openai for Node", runtime: Runtime::Node, script: "openai_sdk.mjs", over: Over::Farllama },
    Witness {
        client: "openai responses for Node",
        runtime: Runtime::Node,
        script: "openai_responses.mjs",
        over: Over::Farllama,
    },
    Witness { client: "ollama for Node", runtime: Runtime::Node, script: "ollama_sdk.mjs", over: Over::Farllama },
    Witness {
        client: "ollama for Node over OpenAI",
        runtime: Runtime::Node,
        script: "ollama_bridge.mjs",
        over: Over::Farllama,
    },
    Witness {
        client: "ollama for Node over a scripted OpenAI server",
        runtime: Runtime::Node,
        script: "ollama_bridge.mjs",
        over: Over::Scripted,
    },
    Witness {
        client: "ollama for Node over llama.cpp",
        runtime: Runtime::Node,
        script: "ollama_bridge.mjs",
        over: Over::LlamaCpp,
    },
    Witness { client: "ai-sdk for Node", runtime: Runtime::Node, script: "ai_sdk.mjs", over: Over::Farllama },
    Witness { client: "anthropic for Node", runtime: Runtime::Node, script: "anthropic_sdk.mjs", over: Over::Farllama },
    Witness { client: "openai for Go", runtime: Runtime::Go, script: "openai", over: Over::Farllama },
    Witness { client: "ollama for Go", runtime: Runtime::Go, script: "ollama", over: Over::Farllama },
    Witness {
        client: "ollama for Go over OpenAI",
        runtime: Runtime::Go,
        script: "ollama-bridge",
        over: Over::Farllama,
    },
    Witness {
        client: "ollama for Go over a scripted OpenAI server",
        runtime: Runtime::Go,
        script: "ollama-bridge",
        over: Over::Scripted,
    },
    Witness {
        client: "ollama for Go over llama.cpp",
        runtime: Runtime::Go,
        script: "ollama-bridge",
        over: Over::LlamaCpp,
    },
    Witness { client: "openai for Java", runtime: Runtime::Java, script: "Witness", over: Over::Farllama },
    Witness {
        client: "langchain4j-ollama over OpenAI",
        runtime: Runtime::Java,
        script: "OllamaWitness",
        over: Over::Farllama,
    },
    Witness {
        client: "langchain4j-ollama over a scripted OpenAI server",
        runtime: Runtime::Java,
        script: "OllamaWitness",
        over: Over::Scripted,
    },
    Witness {
        client: "langchain4j-ollama over llama.cpp",
        runtime: Runtime::Java,
        script: "OllamaWitness",
        over: Over::LlamaCpp,
    },
    Witness { client: "claude code", runtime: Runtime::Node, script: "claude_code.mjs", over: Over::Farllama },
    Witness { client: "codex", runtime: Runtime::Node, script: "codex_cli.mjs", over: Over::Farllama },
    Witness { client: "console in Chromium", runtime: Runtime::Node, script: CONSOLE, over: Over::Farllama },
    Witness { client: "reports in Chromium", runtime: Runtime::Node, script: REPORTS, over: Over::Farllama },
];

/// The witnesses that need a browser.
const CONSOLE: &str = "console.mjs";
const REPORTS: &str = "html_report.mjs";

/// What Chromium is called: by Debian, and by others.
const BROWSERS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// A witness that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(120);

/// Runs those whose client's name holds one of `words`, or all. Where one cannot run, says so loudly; with `CI=true`
/// that is a failure.
pub(crate) fn run(words: &[String]) -> Result<(), String> {
    let chosen = |witness: &&Witness| words.is_empty() || words.iter().any(|word| witness.client.contains(&**word));
    let witnesses: Vec<&Witness> = WITNESSES.iter().filter(chosen).collect();
    if witnesses.is_empty() {
        return Err(format!(
            "no client is named so; there are: {}",
            WITNESSES.map(|witness| witness.client).join(", ")
        ));
    }
    Step::cargo("build --quiet -p farllama -p mock-ollama -p farllama-check").run()?;
    let start = Instant::now();
    let mut total = Tally::default();
    let real = witnesses.iter().any(|witness| witness.over == Over::LlamaCpp);
    let llama = if real { stage::llama_cpp() } else { Err("no client asks for it".to_owned()) };
    let llama = llama.as_ref().map_err(|why| &**why);
    thread::scope(|scope| {
        // Side by side, because installing and starting take longer than asking.
        let lanes = [Runtime::Python, Runtime::Node, Runtime::Go, Runtime::Java].map(|runtime| {
            let witnesses = witnesses.iter().filter(|witness| witness.runtime == runtime).copied().collect();
            scope.spawn(move || lane(runtime, witnesses, llama))
        });
        for tally in lanes.map(|lane| lane.join().unwrap_or(Tally { failed: 1, ..Tally::default() })) {
            total.add(&tally);
        }
    });
    println!("{} passed, {} failed, {} skipped", total.passed, total.failed, total.skipped);
    println!("foreign clients took {:.1} s\n", start.elapsed().as_secs_f64());
    let skipping_fails = std::env::var("CI").is_ok_and(|ci| ci == "true");
    match (total.failed, total.skipped) {
        (0, 0) => Ok(()),
        (0, _) if !skipping_fails => Ok(()),
        (0, skipped) => Err(format!("{skipped} foreign clients could not be asked")),
        (failed, _) => Err(format!("{failed} checks of foreign clients failed")),
    }
}

/// The witnesses of one runtime, one after the other, each reported in one piece.
fn lane(runtime: Runtime, witnesses: Vec<&Witness>, llama: Result<&Server, &str>) -> Tally {
    let mut total = Tally::default();
    if witnesses.is_empty() {
        return total;
    }
    if let Err(why) = runtime.prepare() {
        for witness in &witnesses {
            println!("SKIPPED: {} cannot be asked here: {why}\n", witness.client);
        }
        return Tally { skipped: witnesses.len(), ..total };
    }
    for witness in witnesses {
        if [CONSOLE, REPORTS].contains(&witness.script) && browser().is_none() {
            println!("SKIPPED: {}: it is missing (Debian: apt-get install chromium)\n", witness.client);
            total.skipped += 1;
            continue;
        }
        if let (Over::LlamaCpp, Err(why)) = (witness.over, llama) {
            println!("SKIPPED: {}: llama.cpp cannot be had here: {why}\n", witness.client);
            total.skipped += 1;
            continue;
        }
        let start = Instant::now();
        let mut report = Report::default();
        if let Err(why) = witness.run(llama.ok(), &mut report) {
            report.line(&format!("FAILED  {why}"));
        }
        println!("{}:\n{}  {:.1} s\n", witness.client, report.text, start.elapsed().as_secs_f64());
        total.add(&report.tally);
    }
    total
}

/// Where Chromium is.
fn browser() -> Option<PathBuf> {
    let folders: Vec<PathBuf> = std::env::split_paths(&std::env::var_os("PATH")?).collect();
    BROWSERS.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name))).find(|path| path.is_file())
}

/// The lines of a witness, counted.
#[derive(Debug, Default)]
struct Report {
    text: String,
    tally: Tally,
}

impl Report {
    fn line(&mut self, line: &str) {
        self.tally.passed += usize::from(line.starts_with("ok "));
        self.tally.failed += usize::from(line.starts_with("FAILED "));
        self.text += &format!("  {line}\n");
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
}

impl Witness {
    fn run(&self, llama: Option<&Server>, report: &mut Report) -> Result<(), String> {
        let stage = Stage::start(self.over, llama)?;
        let reported = self.ask(&stage, report);
        if reported.is_err() || report.tally.failed > 0 {
            let proxies = [
                ("", &stage.open),
                (" that asks for keys", &stage.keyed),
                (" before an older Ollama", &stage.older),
                (" before an OpenAI server", &stage.bridged),
            ];
            for (which, proxy) in proxies {
                report.text += &format!("The log of the proxy{which}:\n{}", proxy.log());
            }
        }
        reported
    }

    fn ask(&self, stage: &Stage, report: &mut Report) -> Result<(), String> {
        let failed = |error: std::io::Error| format!("{}: {error}", self.script);
        let (output, input) = std::io::pipe().map_err(failed)?;
        let mut witness = self
            .runtime
            .command(self.script)
            .env("WITNESS_URL", &stage.open.url)
            .env("WITNESS_KEYED_URL", &stage.keyed.url)
            .env("WITNESS_OLDER_URL", &stage.older.url)
            .env("WITNESS_BRIDGED_URL", &stage.bridged.url)
            .envs((self.over == Over::LlamaCpp).then_some(("WITNESS_REAL", "1")))
            .env("WITNESS_BINARIES", built("farllama")?.parent().unwrap_or(Path::new("")))
            .env("WITNESS_CHROMIUM", browser().unwrap_or_default())
            .env("WITNESS_SCREENSHOTS", root().join("target").join("witnesses").join("console"))
            .stdin(Stdio::null())
            .stdout(input.try_clone().map_err(failed)?)
            .stderr(input)
            .spawn()
            .map_err(failed)?;
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let deadline = Instant::now() + LIMIT;
        loop {
            match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => report.line(&line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    witness.kill().map_err(failed)?;
                    witness.wait().map_err(failed)?;
                    return Err(format!("it did not end within {} s", LIMIT.as_secs()));
                }
            }
        }
        let status = witness.wait().map_err(failed)?;
        let Tally { passed, failed, .. } = report.tally;
        if failed == 0 && (!status.success() || passed == 0) {
            return Err(format!("it ended with {status} after {passed} checks"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_witness_are_counted_and_others_are_not() {
        let mut report = Report::default();
        for line in ["ok      a", "FAILED  b: c", "  ok b", "okay", ""] {
            report.line(line);
        }
        assert_eq!(report.tally, Tally { passed: 1, failed: 1, skipped: 0 });
    }
}
