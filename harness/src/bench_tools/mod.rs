//! Compares how servers deal with calls that models get wrong: each case of the corpus is asked of each target, whose
//! upstream is a scripted Ollama that answers with the malformed call.

mod corpus;
mod script;

use std::{fmt::Write, net::SocketAddr, time::Duration};

use anyhow::Context;
use corpus::{Case, Corpus, Wanted};
use farllama::{
    Config,
    config::{Local, Remote},
};
use script::Script;
use serde_json::{Value, json};

/// A server to compare.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its name in the table.
    pub name: String,
    /// The root of its OpenAI API.
    pub url: String,
}

/// What a target made of the cases.
#[derive(Debug, Default)]
pub struct Score {
    name: String,
    /// Repairable cases that came out right.
    right: usize,
    /// Repairable cases that came out unchanged.
    missed: Vec<String>,
    /// Repairable cases that came out as something else, and cases where nothing is certain that were changed.
    wrong: Vec<String>,
    /// Cases where nothing is certain that came out unchanged.
    left: usize,
    /// Cases that were answered with an error.
    failed: Vec<String>,
    /// Requests of the scripted Ollama.
    asked: usize,
}

/// The scores of all targets.
#[derive(Debug)]
pub struct Scores {
    repairable: usize,
    uncertain: usize,
    scores: Vec<Score>,
}

/// Runs the corpus. Besides `targets` there are farllama, in this process, and the scripted Ollama alone. `port` is the
/// script's.
///
/// # Errors
/// Fails if a server cannot be started, or a target does not speak HTTP.
pub async fn run(targets: &[Target], port: u16, http: &reqwest::Client) -> anyhow::Result<Scores> {
    let corpus = Corpus::read()?;
    let script = Script::start(&corpus, port).await.with_context(|| format!("cannot listen on port {port}"))?;
    let proxy = farllama::serve(settings(script.addr())).await?;
    let own = |name: &str, url: String| Target { name: name.to_owned(), url };
    let mut all = vec![
        own("Ollama alone (scripted)", format!("http://{}/v1", script.addr())),
        own("farllama", format!("http://{}/v1", proxy.addr())),
    ];
    all.extend_from_slice(targets);
    let uncertain = corpus.cases.iter().filter(|case| case.leave).count();
    let mut scores = Scores { repairable: corpus.cases.len() - uncertain, uncertain, scores: Vec::new() };
    for target in &all {
        let before = script.asked();
        let mut score = Score { name: target.name.clone(), ..Score::default() };
        for case in &corpus.cases {
            judge(case, ask(target, case, &corpus, http).await, &mut score);
        }
        score.asked = script.asked() - before;
        scores.scores.push(score);
    }
    proxy.stop(Duration::ZERO).await;
    Ok(scores)
}

fn settings(remote: SocketAddr) -> Config {
    Config {
        local: Local { port: 0, ..Local::default() },
        remote: Remote {
            host: remote.ip().to_string(),
            port: remote.port(),
            probe: Duration::ZERO,
            ..Remote::default()
        },
        ..Config::default()
    }
}

/// What a client gets: the text and the calls. `None`: an error.
type Got = Option<(String, Vec<Wanted>)>;

async fn ask(target: &Target, case: &Case, corpus: &Corpus, http: &reqwest::Client) -> Got {
    let body = json!({
        "model": case.id,
        "messages": [{"role": "user", "content": "Do it."}],
        "tools": corpus.tools,
    });
    let response = http.post(format!("{}/chat/completions", target.url)).json(&body).send().await.ok()?;
    if !response.status().is_success() {
        return None;
    }
    let answer: Value = response.json().await.ok()?;
    let message = answer.pointer("/choices/0/message")?;
    let call = |call: &Value| {
        let function = &call["function"];
        let arguments = function["arguments"].as_str().unwrap_or_default();
        Wanted {
            name: function["name"].as_str().unwrap_or_default().to_owned(),
            arguments: serde_json::from_str(arguments).unwrap_or_else(|_| arguments.into()),
        }
    };
    let calls = message["tool_calls"].as_array().into_iter().flatten().map(call).collect();
    Some((message["content"].as_str().unwrap_or_default().to_owned(), calls))
}

fn judge(case: &Case, got: Got, score: &mut Score) {
    let Some((text, calls)) = got else {
        score.failed.push(case.id.clone());
        return;
    };
    let unchanged = match (&case.call, &case.text) {
        (Some(call), _) => calls == std::slice::from_ref(call),
        (None, Some(written)) => calls.is_empty() && text.trim() == written.trim(),
        (None, None) => false,
    };
    match case.leave {
        true if unchanged => score.left += 1,
        false if calls == case.right => score.right += 1,
        false if unchanged => score.missed.push(case.id.clone()),
        _ => score.wrong.push(case.id.clone()),
    }
}

impl Scores {
    /// As a table in Markdown.
    #[must_use]
    pub fn table(&self) -> String {
        let mut table = format!(
            "| server | repaired, of {} | left alone, of {} | unrepaired | changed wrongly | errors | requests to Ollama |\n\
             |---|---:|---:|---:|---:|---:|---:|\n",
            self.repairable, self.uncertain
        );
        for score in &self.scores {
            let _ = writeln!(
                table,
                "| {} | {} | {} | {} | {} | {} | {} |",
                score.name,
                score.right,
                score.left,
                score.missed.len(),
                score.wrong.len(),
                score.failed.len(),
                score.asked
            );
        }
        table
    }

    /// The cases that did not come out as they should, by target.
    #[must_use]
    pub fn details(&self) -> String {
        let mut text = String::new();
        for score in &self.scores {
            for (what, cases) in
                [("unrepaired", &score.missed), ("changed wrongly", &score.wrong), ("error", &score.failed)]
            {
                if !cases.is_empty() {
                    let _ = writeln!(text, "{}, {what}: {}", score.name, cases.join(", "));
                }
            }
        }
        text
    }

    /// Whether farllama repairs at least 95 % of what can be repaired, and nothing else.
    #[must_use]
    pub fn holds(&self) -> bool {
        let own = self.scores.iter().find(|score| score.name == "farllama");
        own.is_some_and(|own| own.right * 100 >= self.repairable * 95 && own.left == self.uncertain)
    }
}
