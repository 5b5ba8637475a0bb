//! The diagnosis for people.

use std::fmt::Write;

use anstyle::{AnsiColor, Style};

use super::{
    Diagnosis,
    fact::{Fact, State},
    persona::Level,
};
use crate::{
    report::html::{Block, Count, Item, Page, Section, Tone},
    text::duration,
};

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

/// What a reason means for its tool.
fn label(level: Level) -> &'static str {
    match level {
        Level::NotReady => "needs",
        Level::Unknown => "unknown",
        Level::Limits | Level::Ready => "limit",
    }
}

/// What a change is for: to make it work, or to find out whether it does.
fn advice(is_known: bool) -> &'static str {
    if is_known { "change:" } else { "to know:" }
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
        // What keeps every tool from working is said once.
        let is_shared = match &report.verdicts[..] {
            [first, others @ ..] => !others.is_empty() && others.iter().all(|other| other.reasons == first.reasons),
            [] => false,
        };
        let all = format!("All {} tools", report.verdicts.len());
        let shown = if is_shared { &report.verdicts[..1] } else { &report.verdicts[..] };
        for verdict in shown {
            let style = style(verdict.level);
            let tool = if is_shared { &all } else { &verdict.tool };
            let _ = writeln!(out, "  {tool:width$}  {style}{}{style:#}", verdict.level);
            for reason in &verdict.reasons {
                let _ = writeln!(out, "      {}: {}", label(reason.level), reason.because);
                let _ = writeln!(out, "        found:   {} {DIM}[{}]{DIM:#}", reason.found, reason.probe);
                if let Some(change) = &reason.change {
                    let _ = writeln!(out, "        {:8} {change}", advice(reason.known));
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
        let mut last = None;
        for fact in all.iter().filter(shown) {
            let (sign, style) = sign(fact.state);
            let _ = writeln!(out, "  {style}{sign}{style:#} {:width$}  {}", fact.title, fact.text);
            // Several facts often have one cure.
            let cure = fact.cure.as_ref().filter(|_| fact.state != State::Good);
            if let Some(cure) = cure.filter(|_| cure != last) {
                let _ = writeln!(out, "          {DIM}{} {cure}{DIM:#}", advice(fact.state != State::Unknown));
            }
            last = cure;
        }
        let there = all.iter().filter(|fact| fact.id.starts_with("version.") && fact.state == State::Good).count();
        if !verbose && there > 0 {
            let _ = writeln!(out, "  {DIM}and {there} features that it has (-v lists them){DIM:#}");
        }
    }
}

/// The diagnosis as a page of HTML.
#[must_use]
pub fn html(diagnosis: &Diagnosis) -> Page {
    let levels = [Level::Ready, Level::Limits, Level::NotReady, Level::Unknown];
    let verdicts = || diagnosis.models.iter().flat_map(|model| &model.verdicts);
    let counts = levels.map(|level| Count {
        word: level.to_string().to_lowercase(),
        count: verdicts().filter(|verdict| verdict.level == level).count(),
        tone: level_tone(level),
    });
    let front = if diagnosis.through_farllama { "through farllama" } else { "without farllama" };
    let took = duration(std::time::Duration::from_millis(diagnosis.took_ms));
    let mut sections = Vec::new();
    for report in &diagnosis.models {
        let name = report.model.as_deref().map_or_else(String::new, |model| format!(" with {model}"));
        let items = report.verdicts.iter().map(|verdict| Item {
            tone: level_tone(verdict.level),
            word: verdict.level.to_string(),
            area: "tools".to_owned(),
            // The first reason is the worst one.
            title: match verdict.reasons.first() {
                Some(reason) => format!("{}: {}", verdict.tool, reason.found),
                None => verdict.tool.clone(),
            },
            blocks: verdict
                .reasons
                .iter()
                .flat_map(|reason| {
                    let found = format!("{} [{}]", reason.found, reason.probe);
                    let advice = advice(reason.known).trim_end_matches(':').to_owned();
                    let change = reason.change.iter().map(move |change| Block::Labeled(advice.clone(), change.clone()));
                    let labeled = |label: &str, text: &str| Block::Labeled(label.to_owned(), text.to_owned());
                    [labeled(label(reason.level), &reason.because), labeled("found", &found)].into_iter().chain(change)
                })
                .chain([Block::Labeled("rules".to_owned(), format!("{}; {}", verdict.version, verdict.source))])
                .collect(),
        });
        sections.push(Section { title: format!("What works{name}"), items: items.collect(), ..Section::default() });
    }
    let all = std::iter::once((None, &diagnosis.facts));
    let all = all.chain(diagnosis.models.iter().map(|report| (report.model.as_deref(), &report.facts)));
    for (model, facts) in all {
        for (name, _) in AREAS {
            let items: Vec<_> =
                facts.iter().filter(|fact| area(fact) == name).map(|fact| fact_item(fact, name)).collect();
            if !items.is_empty() {
                let title = model.map_or_else(|| name.to_owned(), |model| format!("{name} ({model})"));
                sections.push(Section { title, items, ..Section::default() });
            }
        }
    }
    Page {
        title: format!("farllama-check doctor: {}", diagnosis.target),
        notes: vec![format!("Examined {front}, in {took}, by farllama-check {}.", diagnosis.farllama)],
        counts: counts.to_vec(),
        sections,
    }
}

fn fact_item(fact: &Fact, area: &str) -> Item {
    let (tone, word) = match fact.state {
        State::Good => (Tone::Good, "ok"),
        State::Limited => (Tone::Limited, "limited"),
        State::Bad => (Tone::Bad, "bad"),
        State::Unknown => (Tone::Unknown, "unknown"),
        State::Info => (Tone::Info, "fact"),
    };
    let mut blocks: Vec<_> = fact
        .cure
        .iter()
        .map(|cure| {
            let advice = advice(fact.state != State::Unknown).trim_end_matches(':').to_owned();
            Block::Labeled(advice, cure.clone())
        })
        .collect();
    blocks.extend(fact.exchange.iter().map(|exchange| Block::Exchange(Box::new(exchange.clone()))));
    let title = format!("{}: {}", fact.title, fact.text);
    Item { tone, word: word.to_owned(), area: area.to_owned(), title, blocks }
}

fn level_tone(level: Level) -> Tone {
    match level {
        Level::Ready => Tone::Good,
        Level::Limits => Tone::Limited,
        Level::Unknown => Tone::Unknown,
        Level::NotReady => Tone::Bad,
    }
}
