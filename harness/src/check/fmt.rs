//! Formats scenario files: indentation of two spaces, one blank line at most, `{ a: 1 }` and `[a]`, `# comment`.
//! Comments stay, and so does what the file says: the result is read again, and a difference is an error. Pure.

use serde_json::Value;

/// A file that cannot be formatted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unformatted {
    /// It is not YAML.
    #[error("not YAML: {0}")]
    Unreadable(String),
    /// A bug of the formatter; the file must be left alone.
    #[error("a bug: formatting would change what it says; it is left unchanged")]
    Changed,
}

/// The text, formatted.
///
/// # Errors
/// Fails if it is not YAML.
pub fn format(text: &str) -> Result<String, Unformatted> {
    let before: Value = serde_saphyr::from_str(text).map_err(|error| Unformatted::Unreadable(error.to_string()))?;
    let formatted = Formatter::default().run(text);
    let after: Result<Value, _> = serde_saphyr::from_str(&formatted);
    if after.is_ok_and(|after| after == before) { Ok(formatted) } else { Err(Unformatted::Changed) }
}

/// A level of indentation.
#[derive(Clone, Copy, Debug)]
struct Level {
    old: usize,
    new: usize,
    is_list: bool,
}

#[derive(Debug, Default)]
struct Formatter {
    out: String,
    levels: Vec<Level>,
    /// Comments and blank lines before the next line.
    held: Vec<String>,
    /// What is open at the end of the last line.
    open: Option<Open>,
}

/// Something that goes on in the next line.
#[derive(Clone, Copy, Debug)]
enum Open {
    /// A block of text (`|`, `>`): its key's old and new indentation, and that of its first line, once known.
    Block { old: usize, new: usize, first: Option<usize> },
    /// Brackets or a quoted text: how far its first line has moved.
    Flow { flow: Flow, old: usize, new: usize },
}

/// Where the reader is within brackets and quotes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Flow {
    depth: usize,
    quote: Option<char>,
}

impl Formatter {
    fn run(mut self, text: &str) -> String {
        for line in text.lines() {
            self.line(line);
        }
        let held = std::mem::take(&mut self.held);
        for comment in trimmed(held) {
            self.put(0, &comment);
        }
        while self.out.ends_with("\n\n") {
            self.out.pop();
        }
        self.out
    }

    fn put(&mut self, indent: usize, text: &str) {
        if text.is_empty() {
            if !self.out.is_empty() && !self.out.ends_with("\n\n") {
                self.out.push('\n');
            }
            return;
        }
        self.out.extend(std::iter::repeat_n(' ', indent));
        self.out.push_str(text);
        self.out.push('\n');
    }

    fn line(&mut self, line: &str) {
        let text = line.trim_end();
        let old = text.len() - text.trim_start_matches(' ').len();
        match self.open {
            Some(Open::Block { old: key, new, first }) => {
                if text.is_empty() {
                    // Within a block every blank line counts.
                    self.out.push('\n');
                    return;
                }
                if old > key {
                    let first = first.unwrap_or(old);
                    self.open = Some(Open::Block { old: key, new, first: Some(first) });
                    let indent = new + 2 + old.saturating_sub(first);
                    self.out.extend(std::iter::repeat_n(' ', indent));
                    // Spaces at the end are a part of the text.
                    self.out.push_str(&line[old..]);
                    self.out.push('\n');
                    return;
                }
                self.open = None;
            }
            Some(Open::Flow { flow, old: from, new }) => {
                let indent = (old + new).saturating_sub(from);
                let (text, flow) = if flow.quote.is_some() {
                    let (_, flow) = spaced(text.trim_start(), flow);
                    (text.trim_start().to_owned(), flow)
                } else {
                    spaced(text.trim_start(), flow)
                };
                if text.is_empty() {
                    self.out.push('\n');
                } else {
                    self.put(indent.max(2), &text);
                }
                self.open = (flow != Flow::default()).then_some(Open::Flow { flow, old: from, new });
                return;
            }
            None => {}
        }
        let content = text.trim_start();
        if content.is_empty() {
            self.held.push(String::new());
            return;
        }
        if let Some(comment) = content.strip_prefix('#') {
            let is_plain = comment.starts_with([' ', '#', '!']) || comment.is_empty();
            self.held.push(if is_plain { content.to_owned() } else { format!("# {comment}") });
            return;
        }
        self.content(content, old);
    }

    /// A line of content that begins at `old`.
    fn content(&mut self, content: &str, mut old: usize) {
        let is_item = |text: &str| text == "-" || text.starts_with("- ");
        let mut rest = content;
        let mut prefix = String::new();
        let mut indent = None;
        loop {
            let new = self.level(old, is_item(rest));
            indent.get_or_insert(new);
            if !is_item(rest) {
                break;
            }
            let after = rest[1..].trim_start();
            prefix.push('-');
            if after.is_empty() {
                rest = "";
                break;
            }
            prefix.push(' ');
            old += rest.len() - after.len();
            rest = after;
        }
        let indent = indent.unwrap_or_default();
        let key = indent + prefix.len();
        let (text, opened) = value(rest);
        let held = std::mem::take(&mut self.held);
        for comment in if self.out.is_empty() { leading(held) } else { held } {
            self.put(indent, &comment);
        }
        self.put(indent, &format!("{prefix}{text}"));
        self.open = opened.map(|opened| match opened {
            Opened::Block => Open::Block { old, new: key, first: None },
            Opened::Flow(flow) => Open::Flow { flow, old, new: key },
        });
    }

    /// The new indentation of what begins at `old`.
    fn level(&mut self, old: usize, is_item: bool) -> usize {
        while let Some(top) = self.levels.last() {
            if top.old > old || top.old == old && top.is_list && !is_item {
                self.levels.pop();
            } else {
                break;
            }
        }
        let level = match self.levels.last() {
            Some(top) if top.old == old && top.is_list == is_item => return top.new,
            // A list may begin below its key.
            Some(top) => Level { old, new: top.new + 2, is_list: is_item },
            None => Level { old, new: 0, is_list: is_item },
        };
        self.levels.push(level);
        level.new
    }
}

/// Without blank lines at the beginning.
fn leading(held: Vec<String>) -> Vec<String> {
    held.into_iter().skip_while(String::is_empty).collect()
}

/// Without blank lines at the end.
fn trimmed(mut held: Vec<String>) -> Vec<String> {
    while held.last().is_some_and(String::is_empty) {
        held.pop();
    }
    held
}

enum Opened {
    Block,
    Flow(Flow),
}

/// A line without its indentation: `key: value`, or a value. Also what is open at its end.
fn value(text: &str) -> (String, Option<Opened>) {
    let (key, rest) = match colon(text) {
        Some(at) => {
            let rest = text[at + 1..].trim_start();
            // A comment behind a key may be aligned with others.
            if rest.is_empty() || rest.starts_with('#') {
                return (text.to_owned(), None);
            }
            (format!("{}: ", text[..at].trim_end()), rest)
        }
        None => (String::new(), text),
    };
    // A tag or an anchor may come first; it is left as it is.
    if rest.starts_with(['|', '>']) {
        return (format!("{key}{rest}"), Some(Opened::Block));
    }
    if !rest.starts_with(['{', '[', '"', '\'']) {
        return (format!("{key}{rest}"), None);
    }
    let (rest, flow) = spaced(rest, Flow::default());
    (format!("{key}{rest}"), (flow != Flow::default()).then_some(Opened::Flow(flow)))
}

/// Where the colon of a line's key is, if it has one.
fn colon(text: &str) -> Option<usize> {
    let mut quote = None;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') if at == 0 => quote = Some(c),
            // A value in brackets is no key.
            (None, '{' | '[') if at == 0 => return None,
            (None, '#') if text[..at].ends_with(' ') => return None,
            (None, ':') => {
                let after = &text[at + 1..];
                if after.is_empty() || after.starts_with(' ') {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

/// Brackets with their spaces: `{ a: 1 }`, `[a]`. What is quoted, and a comment, stays.
fn spaced(text: &str, mut flow: Flow) -> (String, Flow) {
    let mut out = String::with_capacity(text.len() + 8);
    let chars: Vec<char> = text.chars().collect();
    let mut at = 0;
    while at < chars.len() {
        let c = chars[at];
        if let Some(quote) = flow.quote {
            out.push(c);
            if quote == '"' && c == '\\' {
                at += 1;
                out.extend(chars.get(at));
            } else if c == quote {
                if quote == '\'' && chars.get(at + 1) == Some(&'\'') {
                    at += 1;
                    out.push('\'');
                } else {
                    flow.quote = None;
                }
            }
            at += 1;
            continue;
        }
        match c {
            '"' | '\'' if out.is_empty() || out.ends_with([' ', '{', '[', ',', ':']) => {
                flow.quote = Some(c);
                out.push(c);
            }
            '#' if out.is_empty() || out.ends_with(' ') => {
                out.extend(&chars[at..]);
                return (out, flow);
            }
            '{' | '[' => {
                flow.depth += 1;
                out.push(c);
                let mut next = at + 1;
                while chars.get(next) == Some(&' ') {
                    next += 1;
                }
                let is_last = next >= chars.len() || chars[next] == '#';
                if !is_last {
                    if c == '{' && chars[next] != '}' {
                        out.push(' ');
                    }
                    at = next;
                    continue;
                }
            }
            '}' | ']' => {
                flow.depth = flow.depth.saturating_sub(1);
                let inner = out.trim_end().len();
                if inner > 0 {
                    out.truncate(inner);
                    if c == '}' && !out.ends_with('{') {
                        out.push(' ');
                    }
                }
                out.push(c);
            }
            // After a flow that is closed, only a comment can follow; its spaces may align it with others.
            ' ' if flow.depth > 0 && out.ends_with(' ') => {
                let rest: String = chars[at..].iter().collect();
                if rest.trim_start().starts_with('#') {
                    out.push(' ');
                }
            }
            c => out.push(c),
        }
        at += 1;
    }
    (out.trim_end().to_owned(), flow)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indentation_spaces_and_blank_lines_are_unified_and_comments_stay() {
        let text = "\n\n#first\ntitle:   \"a: {b}\"   # behind\n\n\n\nsteps:\n-   call: {chat: {model: m,  messages: [ {role: user, content: \"a  {b\"} ]}}\n    #own\n    expect:\n        $.a: {equals: {}}\n        $.b: [ ]\n    config: |\n          # no comment\n            deep  \n\n          end\n-   call: models\n\n\n";
        let wanted = "# first\ntitle: \"a: {b}\"   # behind\n\nsteps:\n  - call: { chat: { model: m, messages: [{ role: user, content: \"a  {b\" }] } }\n    # own\n    expect:\n      $.a: { equals: {} }\n      $.b: []\n    config: |\n      # no comment\n        deep  \n\n      end\n  - call: models\n";
        assert_eq!(format(text).unwrap(), wanted);
        assert_eq!(format(wanted).unwrap(), wanted);
    }

    #[test]
    fn lists_of_lists_long_texts_and_brackets_over_several_lines_stay() {
        for text in [
            "a:\n  - - b\n    - c\n  -\n    d: e\n",
            "a: \"one\n  two\"\nb: 'it''s'\n",
            "a: {\n  b: [1,\n    2],\n}\nc: d\n",
            "a: one\n  two\nb: c # d\n",
            "# only\na: 1\n# end\n",
            "a: >-\n  folded\n\n  more\nb: 1\n",
        ] {
            let once = format(text).unwrap();
            assert_eq!(format(&once).unwrap(), once, "{text}");
        }
        assert!(matches!(format("a: [1"), Err(Unformatted::Unreadable(_))));
    }

    #[test]
    fn every_scenario_of_the_library_keeps_what_it_says_and_its_comments() {
        fn files(folder: &std::path::Path, all: &mut Vec<std::path::PathBuf>) {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    files(&path, all);
                } else if path.extension().is_some_and(|ending| ending == "yaml") {
                    all.push(path);
                }
            }
        }
        let mut all = Vec::new();
        files(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios"), &mut all);
        assert!(all.len() > 100);
        for path in all {
            let text = std::fs::read_to_string(&path).unwrap();
            let once = format(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            assert_eq!(format(&once).unwrap(), once, "{}", path.display());
            let words = |text: &str| {
                let comments = text.lines().filter_map(|line| Some(line.split_once('#')?.1.trim().to_owned()));
                comments.collect::<Vec<_>>()
            };
            assert_eq!(words(&once).len(), words(&text).len(), "{}", path.display());
        }
    }
}
