//! A zip file for a bug report: versions, settings without secrets, what was found, the failed requests as scenarios,
//! and a page.

use std::{
    fmt::Write as _,
    io::{Cursor, Write as _},
};

use serde_json::{Value, json};
use zip::{ZipWriter, write::SimpleFileOptions};

use super::{Diagnosis, fact::Fact, page};

/// A shorter key is found everywhere; headers that hold keys are masked by their names anyway.
const SHORTEST: usize = 4;

/// The settings of an examination, without secrets.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Names and values, as flags have them.
    pub flags: Vec<(&'static str, String)>,
    /// farllama's own settings in force, secrets masked, if a settings file was named.
    pub farllama: Option<String>,
    /// Values that must not stand in the bundle.
    pub secrets: Vec<String>,
}

/// The files of the bundle, by their names.
///
/// # Errors
/// Fails if something cannot be serialized, which would be a bug.
pub fn files(diagnosis: &Diagnosis, settings: &Settings) -> anyhow::Result<Vec<(String, String)>> {
    let mut versions = format!("farllama-check {}\n", diagnosis.farllama);
    let _ = writeln!(versions, "{} {}", std::env::consts::OS, std::env::consts::ARCH);
    for fact in diagnosis.facts.iter().filter(|fact| fact.id == "way.server" || fact.id == "version") {
        let _ = writeln!(versions, "{}: {}", fact.title, fact.text);
    }
    let flags: String = settings.flags.iter().map(|(name, value)| format!("{name} = {}\n", json!(value))).collect();
    let mut files = vec![
        ("versions.txt".to_owned(), versions),
        ("settings.txt".to_owned(), flags),
        ("diagnosis.json".to_owned(), serde_json::to_string_pretty(diagnosis)? + "\n"),
        ("report.html".to_owned(), page::html(diagnosis).render()),
        ("README.txt".to_owned(), README.to_owned()),
    ];
    if let Some(settings) = &settings.farllama {
        files.push(("farllama-settings.toml".to_owned(), settings.clone()));
    }
    let mut known = Vec::new();
    for fact in diagnosis.all_facts() {
        if let Some(text) = scenario(fact) {
            // Of several models, each has its own.
            let count = known.iter().filter(|id| **id == fact.id).count();
            known.push(fact.id.clone());
            let more = if count > 0 { format!("-{}", count + 1) } else { String::new() };
            files.push((format!("scenarios/{}{more}.yaml", fact.id.replace('.', "-")), text));
        }
    }
    for (_, text) in &mut files {
        for secret in settings.secrets.iter().filter(|secret| secret.len() >= SHORTEST) {
            *text = text.replace(secret.as_str(), "***");
        }
    }
    Ok(files)
}

const README: &str = "\
What farllama-check doctor found; report.html shows it. Keys are masked.
The requests that failed are scenarios, which can be run again:
  farllama-check run scenarios --remote-host HOST --model MODEL
  farllama-check run scenarios --base-url URL
";

/// The failed request of a fact as a scenario.
fn scenario(fact: &Fact) -> Option<String> {
    let replay = fact.replay.as_ref()?;
    let title = format!("{} ({}): {}", fact.title, fact.id, fact.text.replace('\n', " "));
    let mut call = json!({"method": replay.method, "path": replay.path});
    if !replay.body.is_null() {
        call["body"] = replay.body.clone();
    }
    // JSON is YAML too. `$` begins variables.
    let text = |value: &Value| value.to_string().replace("${", "$${");
    let mut out =
        format!("title: {}\ntags: [doctor]\nsteps:\n  - call: {{ http: {} }}\n", text(&title.into()), text(&call));
    out.push_str("    wire: { status: 200, end: complete }\n");
    if !replay.expect.is_null() {
        let _ = writeln!(out, "    model: {}", text(&replay.expect));
    }
    Some(out)
}

/// Everything as a zip file.
///
/// # Errors
/// As [`files`].
pub fn zip(diagnosis: &Diagnosis, settings: &Settings) -> anyhow::Result<Vec<u8>> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, text) in files(diagnosis, settings)? {
        zip.start_file(name, SimpleFileOptions::default())?;
        zip.write_all(text.as_bytes())?;
    }
    Ok(zip.finish()?.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::fact::{Replay, State};

    #[test]
    fn a_failed_request_is_a_scenario_that_can_be_read() {
        let replay = Replay {
            method: "POST".to_owned(),
            path: "/v1/chat/completions".to_owned(),
            body: json!({"model": "m", "messages": [{"role": "user", "content": "a ${b} \"c\": #d"}]}),
            expect: json!({"$.choices[0].message.tool_calls": {"length": 1}}),
        };
        let fact =
            Fact { replay: Some(replay), ..Fact::new("tools.one", "a tool call", State::Bad, "0 of 5: \"x\"\ny") };
        let text = scenario(&fact).unwrap();
        let read = crate::check::load::read("a.yaml", &text).unwrap_or_else(|problems| panic!("{text}\n{problems:?}"));
        assert_eq!(read.title.value, "a tool call (tools.one): 0 of 5: \"x\" y");
        assert!(scenario(&Fact::new("chat", "chat", State::Good, "answered")).is_none());
    }
}
