//! A text that matches a regular expression.

use regex_syntax::{
    Parser,
    hir::{Class, Hir, HirKind},
};

/// How often what may be repeated without end is repeated beyond what it must.
const MORE: u32 = 2;
/// Bytes at which a text is long enough, whatever the pattern says.
const LONGEST: usize = 1 << 16;

/// A text that matches the pattern, if it is one that can be read. Anchors are taken to hold.
pub(super) fn sample(pattern: &str, roll: usize) -> Option<String> {
    let mut text = Vec::new();
    write(&Parser::new().parse(pattern).ok()?, roll, &mut text);
    String::from_utf8(text).ok()
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
    }
}
