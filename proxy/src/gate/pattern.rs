//! Patterns with `*`, as `origins`, `routes` and `models` have them in the settings.

/// Whether `text` fits `pattern`, where each `*` stands for any characters.
pub(crate) fn fits(pattern: &str, text: &str) -> bool {
    let Some((before, after)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut rest) = text.strip_prefix(before) else { return false };
    let mut pieces = after.split('*');
    let last = pieces.next_back().unwrap_or_default();
    for piece in pieces {
        let Some(at) = rest.find(piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    rest.ends_with(last)
}

/// The same, where `*` stands for characters other than `/`.
pub(crate) fn fits_segments(pattern: &str, text: &str) -> bool {
    let (mut patterns, mut texts) = (pattern.split('/'), text.split('/'));
    loop {
        match (patterns.next(), texts.next()) {
            (None, None) => return true,
            (Some(pattern), Some(text)) if fits(pattern, text) => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_characters() {
        for (pattern, text, fit) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("a*", "a", true),
            ("a*c", "ac", true),
            ("a*c", "abbc", true),
            ("a*a", "a", false),
            ("*b*", "abc", true),
            ("*b*b", "abc", false),
            ("a*b*c", "a1b2c", true),
            ("*", "", true),
            ("app://*", "app://obsidian.md/x", true),
        ] {
            assert_eq!(fits(pattern, text), fit, "{pattern} {text}");
        }
    }

    #[test]
    fn in_segments_a_star_ends_at_a_slash() {
        for (pattern, text, fit) in [
            ("qwen3*", "qwen3:8b", true),
            ("qwen3*", "qwen3.evil.example/a/b", false),
            ("smollm2:*", "smollm2:11434/library/x", false),
            ("*", "ns/m", false),
            ("*/*", "ns/m", true),
            ("hf.co/*/*", "hf.co/org/m:latest", true),
            ("ns/m*", "ns/m:1b", true),
        ] {
            assert_eq!(fits_segments(pattern, text), fit, "{pattern} {text}");
        }
    }
}
