//! `farllama-check verify`: recorded requests to another server, and a table of what differs.

use std::{collections::BTreeMap, fmt::Write as _, path::PathBuf, process::ExitCode};

use anyhow::{Context, bail};
use clap::Args;
use mock_ollama::recording::{self, Difference};
use serde_json::json;

use crate::{
    backend::remote,
    exit::Exit,
    limit::{self, Limit},
    process::{interrupted, print, runtime},
    recorder::{Masks, Skipped, Terms, Upstream, Verified, introduce, verify},
};

pub(super) const HELP: &str = "\
Compared are status, headers, framing, and the keys, kinds and fixed texts of the JSON; \
not what a model writes, times, ids or durations.

Example:
  farllama-check verify recordings --remote-host gpu-box

Exit codes:
  0  all responses agree with the recordings
  1  some differ
  2  unusable flags or recordings, or the remote cannot be reached
  3  nothing was compared
  130  interrupted";

/// The widest column of the table.
const WIDEST: usize = 44;
/// How many exchanges a row names.
const NAMED: usize = 3;

/// The flags of `verify`.
#[derive(Args, Debug)]
#[group(skip)]
pub(super) struct Flags {
    /// The folder with recordings
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    #[command(flatten)]
    remote: remote::Flags,
    /// Only recordings whose name contains this text
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Sends requests that change the remote, too: create, copy, delete, pull, push, blobs
    #[arg(long)]
    writes: bool,
    /// How long each exchange may take: 30s, 500ms
    #[arg(long, default_value = "120s", value_name = "TIME", value_parser = limit::parse)]
    timeout: Limit,
    /// Writes the new responses as recordings
    #[arg(long, value_name = "DIR")]
    save: Option<PathBuf>,
    /// Writes the outcome as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What became of the recordings.
#[derive(Debug, Default)]
struct Outcome {
    agree: usize,
    /// Name → what differs.
    differ: BTreeMap<String, Vec<Difference>>,
    /// Name → why there is no response.
    failed: BTreeMap<String, String>,
    skipped: BTreeMap<Skipped, usize>,
}

pub(super) fn run(flags: &Flags) -> anyhow::Result<ExitCode> {
    if !flags.remote.named() {
        bail!("--remote-host is missing: name the machine whose Ollama is to be compared with the recordings");
    }
    let mut recordings = recording::read_dir(&flags.dir)?;
    recordings.retain(|recording| flags.filter.as_ref().is_none_or(|text| recording.name.contains(text)));
    let upstream = Upstream::new(&flags.remote.config()?.remote)?;
    let masks = Masks::new(&[], upstream.secrets())?;
    let timeout = flags.timeout.time();
    if let Some(note) = flags.timeout.note() {
        eprintln!("{note}");
    }
    runtime()?.block_on(async {
        let (version, models) = match introduce(&upstream, timeout).await {
            Ok(introduced) => introduced,
            Err(why) => bail!("cannot compare with {}: {why}", upstream.url),
        };
        let save = flags.save.clone().map(|out| (out, version.clone(), &masks));
        let terms = Terms { upstream: &upstream, models, writes: flags.writes, timeout, save };
        let mut outcome = Outcome::default();
        let interrupted = interrupted();
        tokio::pin!(interrupted);
        for recording in &recordings {
            let verified = tokio::select! {
                biased;
                () = &mut interrupted => return Ok(Exit::Interrupted.into()),
                verified = verify(recording, &terms) => verified,
            };
            let name = recording.name.clone();
            match verified {
                Verified::Skipped(why) => *outcome.skipped.entry(why).or_default() += 1,
                Verified::Failed(why) => drop(outcome.failed.insert(name, why)),
                Verified::Compared(found) if found.is_empty() => outcome.agree += 1,
                Verified::Compared(found) => drop(outcome.differ.insert(name, found)),
            }
        }
        let mut versions: Vec<&str> = recordings.iter().map(|recording| &*recording.ollama).collect();
        versions.sort_unstable();
        versions.dedup();
        print(&format!("recorded {}, compared with {version} at {}\n\n", versions.join(", "), upstream.url));
        print(&outcome.table());
        if let Some(file) = &flags.json {
            let text = format!("{:#}\n", outcome.json(&versions, &version));
            std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
        }
        Ok(outcome.exit().into())
    })
}

impl Outcome {
    fn exit(&self) -> Exit {
        match (self.agree, self.differ.len() + self.failed.len()) {
            (0, 0) => Exit::NothingChecked,
            (_, 0) => Exit::Fit,
            _ => Exit::Unfit,
        }
    }

    /// A row for each difference, with the exchanges that have it, most frequent first.
    fn table(&self) -> String {
        let mut rows: BTreeMap<&Difference, Vec<&str>> = BTreeMap::new();
        for (name, found) in &self.differ {
            for difference in found {
                rows.entry(difference).or_default().push(name);
            }
        }
        let mut rows: Vec<(&Difference, Vec<&str>)> = rows.into_iter().collect();
        rows.sort_by_key(|(_, names)| std::cmp::Reverse(names.len()));
        let mut cells = vec![["what", "recorded", "now", "exchanges"].map(str::to_owned)];
        for (Difference { what, recorded, now }, names) in &rows {
            let more = if names.len() > NAMED { ", …" } else { "" };
            let named = names.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
            cells.push([cut(what), cut(recorded), cut(now), format!("{}: {named}{more}", names.len())]);
        }
        let mut out = String::new();
        if !rows.is_empty() {
            let width = |column: usize| cells.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
            let widths = [width(0), width(1), width(2)];
            for [what, recorded, now, names] in &cells {
                let _ = writeln!(out, "{what:0$}  {recorded:1$}  {now:2$}  {names}", widths[0], widths[1], widths[2]);
            }
            out.push('\n');
        }
        for (name, why) in &self.failed {
            let _ = writeln!(out, "no response: {name}: {why}");
        }
        for (why, count) in &self.skipped {
            let why = match why {
                Skipped::Writes => "it would change the remote (--writes sends it)".to_owned(),
                Skipped::Killed => "the process of the model was killed while it was recorded".to_owned(),
                Skipped::LacksModel(model) => format!("the remote lacks {model} (ollama pull {model})"),
            };
            let _ = writeln!(out, "skipped {count}: {why}");
        }
        let skipped: usize = self.skipped.values().sum();
        let differ = self.differ.len() + self.failed.len();
        let _ = writeln!(out, "{} agree, {differ} differ, {skipped} skipped", self.agree);
        out
    }

    fn json(&self, recorded: &[&str], now: &str) -> serde_json::Value {
        let differences = |found: &Vec<Difference>| {
            let found =
                found.iter().map(|found| json!({"what": found.what, "recorded": found.recorded, "now": found.now}));
            found.collect::<Vec<_>>()
        };
        let differ: serde_json::Map<_, _> =
            self.differ.iter().map(|(name, found)| (name.clone(), json!(differences(found)))).collect();
        json!({
            "recorded": recorded,
            "now": now,
            "agree": self.agree,
            "differ": differ,
            "failed": self.failed,
            "skipped": self.skipped.values().sum::<usize>(),
        })
    }
}

/// A text that fits into a column.
fn cut(text: &str) -> String {
    match text.char_indices().nth(WIDEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_groups_exchanges_by_what_differs() {
        let found = |what: &str| Difference { what: what.to_owned(), recorded: "a".to_owned(), now: "b".to_owned() };
        let mut outcome = Outcome { agree: 3, ..Outcome::default() };
        for name in ["chat/1", "chat/2", "chat/3", "chat/4"] {
            outcome.differ.insert(name.to_owned(), vec![found("header Vary")]);
        }
        outcome.differ.insert("show/1".to_owned(), vec![found("status")]);
        outcome.skipped.insert(Skipped::LacksModel("m".to_owned()), 2);
        let expected = "\
what         recorded  now  exchanges
header Vary  a         b    4: chat/1, chat/2, chat/3, …
status       a         b    1: show/1

skipped 2: the remote lacks m (ollama pull m)
3 agree, 5 differ, 2 skipped
";
        assert_eq!(outcome.table(), expected);
        assert_eq!(outcome.exit(), Exit::Unfit);
        assert_eq!(outcome.json(&["1"], "2")["differ"]["show/1"][0]["what"], "status");
        assert_eq!(Outcome::default().exit(), Exit::NothingChecked);
    }
}
