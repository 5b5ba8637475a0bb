//! The diagnosis for people.

use std::fmt::Write;

use anstyle::{AnsiColor, Style};

use super::{
    Diagnosis,
    fact::{Fact, State},
    persona::Level,
};
use crate::text::duration;

const DIM: Style = Style::new().dimmed();
const BOLD: Style = Style::new().bold();

/// The facts by area, and their headings.
const AREAS: [(&str, &[&str]); 8] = [
    ("The way there", &["way."]),
    ("Version", &["version"]),
    ("Ollama's API", &["native.", "model.", "way.model"]),
    ("Context, memory, speed", &["context.", "memory", "keep_alive", "load", "speed.", "parallel", "hang-up"]),
    ("OpenAI's and Anthropic's API", &["v1.", "chat", "responses.", "messages."]),
    ("Tool calls", &["tools."]),
    ("Answers", &["schema", "thinking.", "embeddings", "vision"]),
    ("Known traps", &["trap."]),
];

/// The heading of the area that a fact belongs to.
#[must_use]
pub fn area(fact: &Fact) -> &'static str {
    let is_in = |parts: &[&str]| parts.iter().any(|part| fact.id.starts_with(part));
    AREAS.iter().find(|(_, parts)| is_in(parts)).map_or("Other", |(name, _)| name)
}

fn sign(state: State) -> (&'static str, Style) {
    match state {
        State::Good => ("ok     ", AnsiColor::Green.on_default()),
        State::Limited => ("limited", AnsiColor::Yellow.on_default()),
        State::Bad => ("BAD    ", AnsiColor::Red.on_default().bold()),
        State::Unknown => ("unknown", DIM),
        State::Info => ("       ", Style::new()),
    }
}

fn style(level: Level) -> Style {
    match level {
        Level::Ready => AnsiColor::Green.on_default().bold(),
        Level::Limits => AnsiColor::Yellow.on_default().bold(),
        Level::Unknown => DIM,
        Level::NotReady => AnsiColor::Red.on_default().bold(),
    }
}

/// The whole page. `verbose` shows every feature of the version, also those that are there.
#[must_use]
pub fn render(diagnosis: &Diagnosis, verbose: bool) -> String {
    let mut out = String::new();
    let front = if diagnosis.through_farllama { ", through farllama" } else { ", without farllama" };
    let _ = writeln!(out, "{BOLD}{}{front}{BOLD:#}", diagnosis.target);
    areas(&mut out, &diagnosis.facts.iter().collect::<Vec<_>>(), verbose);
    for report in &diagnosis.models {
        if let Some(model) = &report.model {
            let _ = writeln!(out, "\n{BOLD}Model {model}{BOLD:#}");
        }
        areas(&mut out, &report.facts.iter().collect::<Vec<_>>(), verbose);
        let name = report.model.as_ref().map_or_else(String::new, |model| format!(" with {model}"));
        let _ = writeln!(out, "\n{BOLD}What works{name}{BOLD:#}");
        let width = report.verdicts.iter().map(|verdict| verdict.tool.chars().count()).max().unwrap_or(0);
        for verdict in &report.verdicts {
            let style = style(verdict.level);
            let _ = writeln!(out, "  {:width$}  {style}{}{style:#}", verdict.tool, verdict.level);
            for reason in &verdict.reasons {
                let _ = writeln!(out, "      {}: {} {DIM}[{}]{DIM:#}", reason.because, reason.found, reason.probe);
                if let Some(change) = &reason.change {
                    let _ = writeln!(out, "      change: {change}");
                }
            }
        }
    }
    let count = |level: Level| {
        diagnosis.models.iter().flat_map(|model| &model.verdicts).filter(|verdict| verdict.level == level).count()
    };
    let unknown = count(Level::Unknown);
    let unknown = if unknown > 0 { format!(", {unknown} unknown") } else { String::new() };
    let _ = writeln!(
        out,
        "\n{} ready, {} with limits, {} not ready{unknown}, in {}",
        count(Level::Ready),
        count(Level::Limits),
        count(Level::NotReady),
        duration(std::time::Duration::from_millis(diagnosis.took_ms))
    );
    out
}

fn areas(out: &mut String, facts: &[&Fact], verbose: bool) {
    for (name, _) in AREAS {
        let all: Vec<_> = facts.iter().filter(|fact| area(fact) == name).collect();
        if all.is_empty() {
            continue;
        }
        let _ = writeln!(out, "\n{name}");
        // Most features are there; only those that are missing are worth a line.
        let shown = |fact: &&&&Fact| verbose || !(fact.id.starts_with("version.") && fact.state == State::Good);
        let width = all.iter().filter(shown).map(|fact| fact.title.chars().count()).max().unwrap_or(0).min(44);
        for fact in all.iter().filter(shown) {
            let (sign, style) = sign(fact.state);
            let _ = writeln!(out, "  {style}{sign}{style:#} {:width$}  {}", fact.title, fact.text);
            if let Some(cure) = fact.cure.as_ref().filter(|_| fact.state != State::Good) {
                let _ = writeln!(out, "          {DIM}cure: {cure}{DIM:#}");
            }
        }
        let there = all.iter().filter(|fact| fact.id.starts_with("version.") && fact.state == State::Good).count();
        if !verbose && there > 0 {
            let _ = writeln!(out, "  {DIM}and {there} features that it has (-v lists them){DIM:#}");
        }
    }
}
