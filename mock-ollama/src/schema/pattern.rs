//! Regular expressions as llama-server takes them: what it refuses, and a text that its grammar allows.

use regex_syntax::{
    Parser,
    hir::{Class, Hir, HirKind},
};

/// How often what may be repeated without end is repeated beyond what it must.
const MORE: u32 = 2;
/// Bytes at which a text is long enough, whatever the pattern says.
const LONGEST: usize = 1 << 16;

/// A text that matches the pattern, if it is one that can be read. Anchors are taken to hold; what looks ahead or
/// behind is ignored, as llama-server does.
pub(super) fn sample(pattern: &str, roll: usize) -> Option<String> {
    let mut text = Vec::new();
    write(&Parser::new().parse(&without_looks(pattern)).ok()?, roll, &mut text);
    String::from_utf8(text).ok()
}

/// Why a pattern cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It becomes no grammar.
    Pattern(&'static str),
    /// It becomes a grammar that cannot be read: it has an escape that grammars do not know, such as `\\d`.
    Grammar,
}

/// Characters that are escaped in patterns, but stand as they are in a grammar's literals.
const PLAIN_IN_LITERALS: &str = "^$.[]()|{}*+?";
/// What may follow a backslash in a grammar.
const GRAMMAR_ESCAPES: &str = "xuUtrn\\\"[]";

/// What llama-server finds wrong with a pattern.
pub(super) fn fault(pattern: &str) -> Option<Fault> {
    let Some(inner) = pattern.strip_prefix('^').and_then(|rest| rest.strip_suffix('$')) else {
        return Some(Fault::Pattern("Pattern must start with '^' and end with '$'"));
    };
    let inner = without_looks(inner);
    let mut chars = inner.chars();
    let mut grammar = None;
    let mut judge = |escaped: Option<char>, plain: &str| {
        if escaped.is_some_and(|c| !plain.contains(c) && !GRAMMAR_ESCAPES.contains(c)) {
            grammar = Some(Fault::Grammar);
        }
    };
    while let Some(c) = chars.next() {
        match c {
            '\\' => judge(chars.next(), PLAIN_IN_LITERALS),
            '[' => loop {
                match chars.next() {
                    Some(']') => break,
                    Some('\\') => judge(chars.next(), ""),
                    Some(_) => {}
                    None => return Some(Fault::Pattern("Unbalanced square brackets")),
                }
            },
            '{' => {
                let mut numbers = String::new();
                loop {
                    match chars.next() {
                        Some('}') => break,
                        Some(c) => numbers.push(c),
                        None => return Some(Fault::Pattern("Unbalanced curly brackets")),
                    }
                }
                let parts: Vec<&str> = numbers.split(',').collect();
                if parts.len() > 2 {
                    return Some(Fault::Pattern("Wrong number of values in curly brackets"));
                }
                let is_number = |part: &&str| part.trim().starts_with(|c: char| c.is_ascii_digit());
                let may_be_empty = parts.len() == 2;
                if !parts.iter().all(|part| is_number(part) || (may_be_empty && part.is_empty())) {
                    return Some(Fault::Pattern("Invalid number in curly brackets"));
                }
            }
            _ => {}
        }
    }
    grammar
}

/// The pattern without groups that look ahead or behind; `(?:` is a group like any other.
fn without_looks(pattern: &str) -> String {
    let mut kept = String::new();
    let mut rest = pattern;
    while let Some(c) = rest.chars().next() {
        let is_look = rest.starts_with("(?") && !rest.starts_with("(?:");
        let escaped = c == '\\';
        let len = match () {
            () if is_look => look_len(rest),
            () if escaped => c.len_utf8() + rest.chars().nth(1).map_or(0, char::len_utf8),
            () => c.len_utf8(),
        };
        if !is_look {
            kept.push_str(&rest[..len]);
        }
        rest = &rest[len..];
    }
    kept
}

/// Bytes of the group at the start, up to its closing parenthesis or the end.
fn look_len(group: &str) -> usize {
    let mut depth = 0_usize;
    let mut chars = group.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => {
                chars.next();
            }
            '(' => depth += 1,
            ')' => {
                depth -= 1;
                if depth == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
    }
    group.len()
}

fn write(hir: &Hir, roll: usize, text: &mut Vec<u8>) {
    if text.len() > LONGEST {
        return;
    }
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => {}
        HirKind::Literal(literal) => text.extend_from_slice(&literal.0),
        HirKind::Class(Class::Unicode(class)) => {
            // Control characters only where nothing else is allowed.
            let range = class.ranges().iter().find(|range| range.end() >= ' ').or(class.ranges().first());
            if let Some(range) = range {
                let first = u32::from(range.start().max(' ').min(range.end()));
                let span = u32::from(range.end()).saturating_sub(first).min(25) + 1;
                let chosen = first + u32::try_from(roll + text.len()).unwrap_or(0) % span;
                text.extend_from_slice(char::from_u32(chosen).unwrap_or(range.start()).to_string().as_bytes());
            }
        }
        HirKind::Class(Class::Bytes(class)) => {
            text.extend(class.ranges().first().map(regex_syntax::hir::ClassBytesRange::start));
        }
        HirKind::Repetition(repetition) => {
            let most = repetition.max.unwrap_or(u32::MAX).min(repetition.min.saturating_add(MORE));
            let times = repetition.min + u32::try_from(roll).unwrap_or(0) % (most - repetition.min + 1);
            (0..times).for_each(|_| write(&repetition.sub, roll, text));
        }
        HirKind::Capture(capture) => write(&capture.sub, roll, text),
        HirKind::Concat(parts) => parts.iter().for_each(|part| write(part, roll, text)),
        HirKind::Alternation(parts) => write(&parts[roll % parts.len()], roll, text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_match_their_patterns() {
        for pattern in ["^[A-Z]{3}-\\d{2,4}$", "^(foo|ba[rz]+)?$", "^\\S+@\\w+\\.(com|org)$", "^[^\"]*$", "^$", "a.c"] {
            let regex = regex::Regex::new(pattern).unwrap();
            for roll in 0..40 {
                let text = sample(pattern, roll).unwrap();
                assert!(regex.is_match(&text), "{pattern}: {text}");
            }
        }
        assert_eq!(sample("(", 1), None);
        assert_eq!(sample("^(?=h(e|\\)))(?:a)[b]$", 1).unwrap(), "ab", "what looks ahead is ignored");
    }

    #[test]
    fn patterns_are_refused_for_llama_servers_reasons() {
        let anchors = Fault::Pattern("Pattern must start with '^' and end with '$'");
        for (pattern, why) in [
            ("[A-Z]{2}", Some(anchors)),
            ("^a", Some(anchors)),
            ("", Some(anchors)),
            ("^[a-z$", Some(Fault::Pattern("Unbalanced square brackets"))),
            ("^a{2$", Some(Fault::Pattern("Unbalanced curly brackets"))),
            ("^a{1,2,3}$", Some(Fault::Pattern("Wrong number of values in curly brackets"))),
            ("^a{x}$", Some(Fault::Pattern("Invalid number in curly brackets"))),
            ("^\\d{3}$", Some(Fault::Grammar)),
            ("^[\\w]$", Some(Fault::Grammar)),
            ("^a\\-b$", Some(Fault::Grammar)),
            ("^a\\.b\\n[\\]]{2,}$", None),
            ("^(?=\\d)[0-9]{3}$", None),
            ("^$", None),
        ] {
            assert_eq!(fault(pattern), why, "{pattern}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_pattern_makes_it_panic(pattern in "[()\\[\\]{}?:=!\\\\a^$,1é]{0,16}", roll in 0_usize..9) {
            let _ = (fault(&pattern), sample(&pattern, roll));
        }
    }
}
