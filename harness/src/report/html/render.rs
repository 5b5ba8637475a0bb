//! Typed pages to HTML.

use std::{collections::BTreeSet, fmt::Write};

use base64::{Engine, engine::general_purpose::STANDARD};
use sha2::{Digest, Sha256};
use similar::{ChangeTag, TextDiff};

use super::{Block, Item, Page, Section, Table};
use crate::report::{Exchange, ReportedFinding};

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
/// Beyond this, a difference is not looked for: it takes time, and is of no use.
const DIFFED: usize = 20_000;
/// The width of a timeline.
const WIDTH: f64 = 1000.0;

/// Text as HTML, in an element or in an attribute with double quotes.
fn esc(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // What is no character of HTML is shown as one.
            '\0'..='\x08' | '\x0b' | '\x0c' | '\x0e'..='\x1f' | '\x7f' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// The source of a policy that lets only this text run.
fn hash(text: &str) -> String {
    format!("'sha256-{}'", STANDARD.encode(Sha256::digest(text.as_bytes())))
}

pub(super) fn page(page: &Page) -> String {
    let mut out = String::from("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    let policy = format!("default-src 'none'; style-src {}; script-src {}", hash(STYLE), hash(SCRIPT));
    let _ = writeln!(out, "<meta http-equiv=\"Content-Security-Policy\" content=\"{policy}\">");
    let _ = writeln!(out, "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">");
    let title = esc(&page.title);
    let _ = writeln!(out, "<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>");
    for note in &page.notes {
        let _ = writeln!(out, "<p class=\"dim\">{}</p>", esc(note));
    }
    out.push_str("<ul class=\"counts\">\n");
    for count in &page.counts {
        let (class, word) = (count.tone.class(), esc(&count.word));
        let _ = writeln!(out, "<li><b class=\"{class}\">{}</b> {word}</li>", count.count);
    }
    out.push_str("</ul>\n");
    filters(&mut out, page);
    for section in &page.sections {
        part(&mut out, section);
    }
    let _ = write!(out, "<script>{SCRIPT}</script>\n</body>\n</html>\n");
    out
}

fn filters(out: &mut String, page: &Page) {
    let items = || page.sections.iter().flat_map(|section| &section.items);
    let words: BTreeSet<&str> = items().map(|item| item.word.as_str()).collect();
    let areas: BTreeSet<&str> = items().map(|item| item.area.as_str()).collect();
    out.push_str("<form>\n<input type=\"search\" name=\"text\" placeholder=\"search\" aria-label=\"search\">\n");
    for (name, all, options) in [("state", "every state", words), ("area", "every area", areas)] {
        let _ = write!(out, "<select name=\"{name}\" aria-label=\"{name}\"><option value=\"\">{all}</option>");
        for option in options {
            let option = esc(option);
            let _ = write!(out, "<option value=\"{option}\">{option}</option>");
        }
        out.push_str("</select>\n");
    }
    out.push_str("<span class=\"dim\" id=\"shown\"></span>\n</form>\n");
}

fn part(out: &mut String, section: &Section) {
    out.push_str("<section>\n");
    if !section.title.is_empty() {
        let _ = writeln!(out, "<h2>{}</h2>", esc(&section.title));
    }
    if let Some(one) = &section.table {
        table(out, one);
    }
    for one in &section.items {
        item(out, one);
    }
    out.push_str("</section>\n");
}

fn table(out: &mut String, table: &Table) {
    out.push_str("<table>\n<tr>");
    for head in &table.head {
        let _ = write!(out, "<th>{}</th>", esc(head));
    }
    out.push_str("</tr>\n");
    for row in &table.rows {
        out.push_str("<tr>");
        for (text, tone) in row {
            let _ = match tone {
                Some(tone) => write!(out, "<td><b class=\"{}\">{}</b></td>", tone.class(), esc(text)),
                None => write!(out, "<td>{}</td>", esc(text)),
            };
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</table>\n");
}

fn item(out: &mut String, item: &Item) {
    let (class, word, area) = (item.tone.class(), esc(&item.word), esc(&item.area));
    let head = format!(
        "<span class=\"word\">{word}</span><span class=\"title\">{}</span><span class=\"area\">{area}</span>",
        esc(&item.title)
    );
    let data = format!("class=\"item {class}\" data-state=\"{word}\" data-area=\"{area}\"");
    if item.blocks.is_empty() {
        let _ = writeln!(out, "<div {data}><div class=\"head\">{head}</div></div>");
        return;
    }
    let _ = writeln!(out, "<details {data}><summary>{head}</summary><div class=\"body\">");
    for block in &item.blocks {
        match block {
            Block::Text(text) => {
                let _ = writeln!(out, "<p>{}</p>", esc(text));
            }
            Block::Labeled(label, text) => {
                let _ = writeln!(out, "<p><span class=\"dim\">{}:</span> {}</p>", esc(label), esc(text));
            }
            Block::Finding(reported) => finding(out, reported),
            Block::Exchange(one) => exchange(out, one),
            Block::Table(one) => table(out, one),
        }
    }
    out.push_str("</div></details>\n");
}

fn finding(out: &mut String, reported: &ReportedFinding) {
    let law = reported.law.map(|law| format!(", law {law}")).unwrap_or_default();
    let _ = writeln!(
        out,
        "<div class=\"finding\"><code>{}</code> {} <span class=\"dim\">(blame: {}{})</span>",
        esc(&reported.at),
        esc(&reported.about),
        reported.blamed(),
        esc(&law)
    );
    let (expected, actual) = marked(&reported.expected, &reported.actual);
    let _ = writeln!(out, "<pre>expected {expected}\nactual   {actual}</pre></div>");
}

/// Two texts with what differs marked, word by word.
fn marked(expected: &str, actual: &str) -> (String, String) {
    if expected.len() + actual.len() > DIFFED {
        return (esc(expected), esc(actual));
    }
    let (mut old, mut new) = (String::new(), String::new());
    let diff = TextDiff::from_words(expected, actual);
    for change in diff.iter_all_changes() {
        let text = esc(change.value());
        match change.tag() {
            ChangeTag::Equal => {
                old.push_str(&text);
                new.push_str(&text);
            }
            ChangeTag::Delete => {
                let _ = write!(old, "<del>{text}</del>");
            }
            ChangeTag::Insert => {
                let _ = write!(new, "<ins>{text}</ins>");
            }
        }
    }
    (old, new)
}

fn exchange(out: &mut String, exchange: &Exchange) {
    let lines = |headers: &[(String, String)]| {
        headers.iter().map(|(name, value)| format!("{}: {}\n", esc(name), esc(value))).collect::<String>()
    };
    let status = exchange.status.map_or_else(|| "no status".to_owned(), |status| status.to_string());
    let _ = writeln!(
        out,
        "<pre>{}\n{}\n{}</pre>\n<pre>{status} after {} ms, {} after {} ms\n{}\n{}</pre>",
        esc(&exchange.request),
        lines(&exchange.request_headers),
        esc(&exchange.request_body),
        exchange.head_after.as_millis(),
        esc(&exchange.end),
        exchange.took.as_millis(),
        lines(&exchange.headers),
        esc(&exchange.body),
    );
    timeline(out, exchange);
}

/// When each piece of a stream came.
fn timeline(out: &mut String, exchange: &Exchange) {
    if exchange.chunks.len() < 2 {
        return;
    }
    let total = exchange.chunks.iter().map(|chunk| chunk.after_ms).fold(exchange.took.as_secs_f64() * 1000.0, f64::max);
    let at = |time: f64| if total > 0.0 { time / total * (WIDTH - 4.0) } else { 0.0 };
    let largest = exchange.chunks.iter().map(|chunk| chunk.bytes).max().unwrap_or(1).max(1);
    let _ = write!(
        out,
        "<svg viewBox=\"0 0 {WIDTH} 54\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"when each piece of the stream came\">"
    );
    let _ = write!(out, "<line x1=\"0\" y1=\"36\" x2=\"{WIDTH}\" y2=\"36\"/>");
    let head = at(exchange.head_after.as_secs_f64() * 1000.0);
    let _ = write!(
        out,
        "<rect class=\"head\" x=\"{head:.1}\" y=\"2\" width=\"2\" height=\"34\"><title>head</title></rect>"
    );
    for chunk in &exchange.chunks {
        #[expect(clippy::cast_precision_loss, reason = "a height in a drawing")]
        let height = 6.0 + 26.0 * (chunk.bytes as f64 / largest as f64);
        let _ = write!(
            out,
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"2\" height=\"{height:.1}\"><title>{:.1} ms: {} bytes</title></rect>",
            at(chunk.after_ms),
            36.0 - height,
            chunk.after_ms,
            chunk.bytes
        );
    }
    let _ = writeln!(
        out,
        "<text x=\"0\" y=\"50\">0</text><text x=\"{WIDTH}\" y=\"50\" text-anchor=\"end\">{total:.0} ms, {} pieces</text></svg>",
        exchange.chunks.len()
    );
}
