//! Regular expressions of JSON Schema, as llama.cpp's grammar takes them. Pure.
//!
//! Its converter wants `^…$`, passes escapes such as `\d` on to a grammar that does not have them, and applies what it
//! reads to the JSON text of a string, in which `.` would match the quote that ends it. So a pattern is read by a real
//! parser and written anew: classes without quotes, backslashes and control characters, what is repeated in a group,
//! both anchors. What is written allows no text that the pattern does not.

use regex_syntax::ast::{
    AssertionKind, Ast, ClassPerlKind, ClassSet, ClassSetItem, GroupKind, RepetitionKind, RepetitionRange,
    parse::ParserBuilder,
};

/// A pattern that the grammar takes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Rewritten {
    pub(super) pattern: String,
    /// A lookaround was left out, so it allows more.
    pub(super) looser: bool,
}

/// Any characters that stand in JSON without an escape, as the grammar's own string rule has them.
const PLAIN: &str = r#"[^"\\\x7F\x00-\x1F]"#;

/// Rewrites a pattern; says why if it cannot be.
pub(super) fn rewrite(pattern: &str) -> Result<Rewritten, String> {
    let (bare, looser) = without_lookarounds(pattern);
    let ast = ParserBuilder::new().nest_limit(64).build().parse(&bare);
    let ast = ast.map_err(|error| format!("the pattern '{pattern}' cannot be read: {}", error.kind()))?;
    let branches: Vec<String> = branches(&ast).into_iter().map(branch).collect::<Result<_, _>>()?;
    let pattern = match &*branches {
        [only] => format!("^{only}$"),
        several => format!("^({})$", several.join("|")),
    };
    Ok(Rewritten { pattern, looser })
}

/// The pattern without `(?=…)`, `(?!…)`, `(?<=…)` and `(?<!…)`, which the grammar leaves out as well (recorded:
/// structured/pattern-lookahead), and whether there were any.
fn without_lookarounds(pattern: &str) -> (String, bool) {
    let mut out = String::with_capacity(pattern.len());
    let mut rest = pattern;
    let mut class = false;
    let mut found = false;
    while let Some(c) = rest.chars().next() {
        let len = match c {
            '\\' => c.len_utf8() + rest.chars().nth(1).map_or(0, char::len_utf8),
            '(' if !class && ["(?=", "(?!", "(?<=", "(?<!"].iter().any(|begin| rest.starts_with(begin)) => {
                found = true;
                rest = &rest[group_len(rest)..];
                continue;
            }
            c => {
                class = (class || c == '[') && c != ']';
                c.len_utf8()
            }
        };
        out.push_str(&rest[..len]);
        rest = &rest[len..];
    }
    (out, found)
}

/// Bytes of the group at the beginning of `text`; all of it if the group does not end.
fn group_len(text: &str) -> usize {
    let (mut depth, mut class, mut escaped) = (0_usize, false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ']' => class = false,
            _ if class => {}
            '[' => class = true,
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
    text.len()
}

/// The alternatives of the whole pattern, inside of a group around it too: each may have its own anchors.
fn branches(ast: &Ast) -> Vec<&Ast> {
    match ast {
        Ast::Alternation(alternation) => alternation.asts.iter().flat_map(branches).collect(),
        Ast::Group(group) if !matches!(&group.kind, GroupKind::NonCapturing(flags) if !flags.items.is_empty()) => {
            branches(&group.ast)
        }
        ast => vec![ast],
    }
}

/// One alternative, which without an anchor goes on in that direction.
fn branch(ast: &Ast) -> Result<String, String> {
    let parts = match ast {
        Ast::Concat(concat) => &concat.asts[..],
        Ast::Empty(_) => &[],
        ast => std::slice::from_ref(ast),
    };
    let is = |ast: Option<&Ast>, line, text| match ast {
        Some(Ast::Assertion(assertion)) => assertion.kind == line || assertion.kind == text,
        _ => false,
    };
    let begins = is(parts.first(), AssertionKind::StartLine, AssertionKind::StartText);
    let parts = &parts[usize::from(begins)..];
    let ends = is(parts.last(), AssertionKind::EndLine, AssertionKind::EndText);
    let parts = &parts[..parts.len() - usize::from(ends)];
    let mut out = String::new();
    if !begins {
        out.push_str(&format!("{PLAIN}*"));
    }
    for part in parts {
        write(part, &mut out)?;
    }
    if !ends && (begins || !parts.is_empty()) {
        out.push_str(&format!("{PLAIN}*"));
    }
    Ok(out)
}

fn write(ast: &Ast, out: &mut String) -> Result<(), String> {
    match ast {
        Ast::Empty(_) => {}
        Ast::Literal(literal) => write_char(literal.c, out),
        Ast::Dot(_) => out.push_str(PLAIN),
        Ast::ClassPerl(class) => write_class(&perl(&class.kind, class.negated), out)?,
        Ast::ClassBracketed(class) => {
            let set = set(&class.kind)?;
            write_class(&if class.negated { set.complement() } else { set }, out)?;
        }
        Ast::Repetition(repetition) => {
            match &*repetition.ast {
                single @ (Ast::Dot(_) | Ast::ClassPerl(_) | Ast::ClassBracketed(_) | Ast::Group(_)) => {
                    write(single, out)?;
                }
                ast => {
                    out.push('(');
                    write(ast, out)?;
                    out.push(')');
                }
            }
            match &repetition.op.kind {
                RepetitionKind::ZeroOrOne => out.push('?'),
                RepetitionKind::ZeroOrMore => out.push('*'),
                RepetitionKind::OneOrMore => out.push('+'),
                RepetitionKind::Range(RepetitionRange::Exactly(n)) => out.push_str(&format!("{{{n}}}")),
                RepetitionKind::Range(RepetitionRange::AtLeast(n)) => out.push_str(&format!("{{{n},}}")),
                RepetitionKind::Range(RepetitionRange::Bounded(n, m)) => out.push_str(&format!("{{{n},{m}}}")),
            }
        }
        Ast::Group(group) => {
            if let GroupKind::NonCapturing(flags) = &group.kind
                && !flags.items.is_empty()
            {
                return Err("a pattern with flags has no form in Ollama's grammar".to_owned());
            }
            out.push('(');
            write(&group.ast, out)?;
            out.push(')');
        }
        Ast::Alternation(alternation) => {
            for (n, ast) in alternation.asts.iter().enumerate() {
                if n > 0 {
                    out.push('|');
                }
                write(ast, out)?;
            }
        }
        Ast::Concat(concat) => concat.asts.iter().try_for_each(|ast| write(ast, out))?,
        Ast::Assertion(_) => {
            return Err("Ollama's grammar has no anchors inside of a pattern, and no word boundaries".to_owned());
        }
        Ast::ClassUnicode(_) => return Err(r"Ollama's grammar has no Unicode classes such as \p{L}".to_owned()),
        Ast::Flags(_) => return Err("a pattern with flags has no form in Ollama's grammar".to_owned()),
    }
    Ok(())
}

/// A character as it stands in JSON, and that as the converter reads it.
fn write_char(c: char, out: &mut String) {
    let json = serde_json::Value::from(c.to_string()).to_string();
    for c in json[1..json.len() - 1].chars() {
        match c {
            // The converter passes a backslash with the next character on to the grammar, which knows this escape.
            '\\' => out.push_str("\\\\"),
            '^' | '$' | '.' | '[' | ']' | '(' | ')' | '|' | '{' | '}' | '*' | '+' | '?' => out.extend(['\\', c]),
            c => out.push(c),
        }
    }
}

/// Characters as ranges, sorted and apart.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Set(Vec<(u32, u32)>);

/// The last character that there is.
const LAST: u32 = 0x10_FFFF;

/// Characters that do not stand in JSON text as themselves, and DEL, which the grammar's own string rule leaves out.
const ESCAPED: [(u32, u32); 4] = [(0, 0x1F), (0x22, 0x22), (0x5C, 0x5C), (0x7F, 0x7F)];

impl Set {
    fn new(mut ranges: Vec<(u32, u32)>) -> Self {
        ranges.sort_unstable();
        let mut out: Vec<(u32, u32)> = Vec::with_capacity(ranges.len());
        for (low, high) in ranges {
            match out.last_mut() {
                Some((_, end)) if low <= end.saturating_add(1) => *end = high.max(*end),
                _ => out.push((low, high)),
            }
        }
        Self(out)
    }

    fn complement(&self) -> Self {
        let mut out = Vec::with_capacity(self.0.len() + 1);
        let mut next = 0;
        for (low, high) in &self.0 {
            if *low > next {
                out.push((next, low - 1));
            }
            next = high + 1;
        }
        if next <= LAST {
            out.push((next, LAST));
        }
        Self(out)
    }

    fn with(self, other: Self) -> Self {
        Self::new([self.0, other.0].concat())
    }
}

fn perl(kind: &ClassPerlKind, negated: bool) -> Set {
    let c = u32::from;
    let set = match kind {
        ClassPerlKind::Digit => Set::new(vec![(c('0'), c('9'))]),
        ClassPerlKind::Word => Set::new(vec![(c('0'), c('9')), (c('A'), c('Z')), (c('_'), c('_')), (c('a'), c('z'))]),
        // ECMA-262, WhiteSpace and LineTerminator.
        ClassPerlKind::Space => Set::new(vec![
            (0x09, 0x0D),
            (0x20, 0x20),
            (0xA0, 0xA0),
            (0x1680, 0x1680),
            (0x2000, 0x200A),
            (0x2028, 0x2029),
            (0x202F, 0x202F),
            (0x205F, 0x205F),
            (0x3000, 0x3000),
            (0xFEFF, 0xFEFF),
        ]),
    };
    if negated { set.complement() } else { set }
}

fn set(class: &ClassSet) -> Result<Set, String> {
    match class {
        ClassSet::Item(item) => set_item(item),
        ClassSet::BinaryOp(_) => Err("Ollama's grammar has no operations on classes".to_owned()),
    }
}

fn set_item(item: &ClassSetItem) -> Result<Set, String> {
    Ok(match item {
        ClassSetItem::Empty(_) => Set(Vec::new()),
        ClassSetItem::Literal(literal) => Set::new(vec![(literal.c.into(), literal.c.into())]),
        ClassSetItem::Range(range) => Set::new(vec![(range.start.c.into(), range.end.c.into())]),
        ClassSetItem::Perl(class) => perl(&class.kind, class.negated),
        ClassSetItem::Bracketed(class) => {
            let set = set(&class.kind)?;
            if class.negated { set.complement() } else { set }
        }
        ClassSetItem::Union(union) => {
            let mut all = Set(Vec::new());
            for item in &union.items {
                all = all.with(set_item(item)?);
            }
            all
        }
        ClassSetItem::Ascii(_) | ClassSetItem::Unicode(_) => {
            return Err(r"Ollama's grammar has no named classes such as \p{L}".to_owned());
        }
    })
}

/// A class of the grammar. Nearly everything is written as what it is not.
fn write_class(set: &Set, out: &mut String) -> Result<(), String> {
    let escaped = Set::new(ESCAPED.to_vec());
    let outside = set.complement().with(escaped.clone());
    let inside = outside.complement();
    match &*inside.0 {
        [] => {
            // Only characters that JSON escapes.
            let chars = set.0.iter().flat_map(|(low, high)| (*low..=*high).take(0x80)).filter_map(char::from_u32);
            let texts: Vec<String> = chars
                .map(|c| {
                    let mut text = String::new();
                    write_char(c, &mut text);
                    text
                })
                .collect();
            if texts.is_empty() {
                return Err("a class without any character matches nothing".to_owned());
            }
            out.push_str(&format!("({})", texts.join("|")));
        }
        [.., (_, LAST)] if outside == escaped => out.push_str(PLAIN),
        [.., (_, LAST)] => write_ranges("[^", &outside, out),
        _ => write_ranges("[", &inside, out),
    }
    Ok(())
}

fn write_ranges(open: &str, set: &Set, out: &mut String) {
    out.push_str(open);
    for (low, high) in &set.0 {
        write_code(*low, out);
        if high > low {
            if *high > low + 1 {
                out.push('-');
            }
            write_code(*high, out);
        }
    }
    out.push(']');
}

/// A character in a class: letters, digits and a few others as themselves, all others by number.
fn write_code(code: u32, out: &mut String) {
    match char::from_u32(code) {
        Some(c) if c.is_ascii_alphanumeric() || " !#$%&'*+,./:;<=>?@_`{|}~()".contains(c) => out.push(c),
        _ if code <= 0xFF => out.push_str(&format!("\\x{code:02X}")),
        _ if code <= 0xFFFF => out.push_str(&format!("\\u{code:04X}")),
        _ => out.push_str(&format!("\\U{code:08X}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(pattern: &str) -> String {
        rewrite(pattern).unwrap().pattern
    }

    #[test]
    fn what_the_grammar_takes_is_unchanged() {
        for pattern in ["^[A-Z]{2}-[0-9]{3}$", "^(foo|ba[rz]+)?$", "^$", r"^a\.b$", "^[a-z]{2,}$", "^é+$"] {
            let expected = if pattern == "^é+$" { "^(é)+$" } else { pattern };
            assert_eq!(rewritten(pattern), expected);
        }
    }

    #[test]
    fn what_it_does_not_take_means_the_same_in_another_form() {
        for (pattern, expected) in [
            (r"^\d{3}$", "^[0-9]{3}$"),
            (r"^\w+\s$", r"^[0-9A-Z_a-z]+[ \xA0\u1680\u2000-\u200A\u2028\u2029\u202F\u205F\u3000\uFEFF]$"),
            (r"^[^\W\d]\D$", r"^[A-Z_a-z][^\x00-\x1F\x220-9\x5C\x7F]$"),
            ("[A-Z]{2}", r#"^[^"\\\x7F\x00-\x1F]*[A-Z]{2}[^"\\\x7F\x00-\x1F]*$"#),
            ("^a", r#"^a[^"\\\x7F\x00-\x1F]*$"#),
            ("^.+$", r#"^[^"\\\x7F\x00-\x1F]+$"#),
            ("^a$|b$", r#"^(a|[^"\\\x7F\x00-\x1F]*b)$"#),
            ("^(?:a|b)c$", "^(a|b)c$"),
            (r"^a\-b\/c$", "^a-b/c$"),
            (r"^[\w.-]+@x$", r"^[\x2D.0-9A-Z_a-z]+@x$"),
            (r#"^["a]"$"#, r#"^[a]\\"$"#),
            (r#"^["']$"#, "^[']$"),
            (r#"^[\\]$"#, r"^(\\\\)$"),
            ("^[ -~]$", r"^[ !#-\x5B\x5D-~]$"),
            ("^ab*$", "^a(b)*$"),
            (r"^\.*$", r"^(\.)*$"),
            ("", r#"^[^"\\\x7F\x00-\x1F]*$"#),
        ] {
            assert_eq!(rewritten(pattern), expected, "{pattern}");
        }
    }

    #[test]
    fn lookarounds_are_left_out_and_reported() {
        let expected = Rewritten { pattern: "^[a-z]{3}$".to_owned(), looser: true };
        assert_eq!(rewrite("^(?=h)[a-z]{3}$").unwrap(), expected);
        assert_eq!(rewrite("^(?!a(b[)]|c))[a-z]{3}(?<=x)$").unwrap(), expected);
        assert!(!rewrite(r"^[(?=a)]\(\?=$").unwrap().looser);
    }

    #[test]
    fn what_no_grammar_can_say_is_reported() {
        for pattern in ["^[a-z$", r"^\bx$", "a^b", r"^\p{L}$", "^(?i)a$", "^[^\\s\\S]$", "(", r"^(a)\1$"] {
            assert!(rewrite(pattern).is_err(), "{pattern}");
        }
    }

    proptest::proptest! {
        /// What a rewritten pattern allows, read as a regular expression, the pattern allows too.
        #[test]
        fn nothing_more_is_allowed(
            pattern in r"(\^)?(a|\\d|\\w|[.]|\[a-c\]|\[\^b\]|\(a\|b\)|\(c\)){0,4}([*+?]|\{1,2\})?(\$)?",
            text in "[a-c0-9_é ]{0,5}",
        ) {
            let Ok(rewritten) = rewrite(&pattern) else { return Ok(()) };
            let matches = |pattern: &str| {
                let hir = regex_syntax::parse(pattern).unwrap();
                naive(&hir, &text)
            };
            proptest::prop_assert!(!matches(&rewritten.pattern) || matches(&pattern.replace(r"\d", "[0-9]").replace(r"\w", "[0-9A-Z_a-z]")));
        }
    }

    /// Whether `text` has a part that a regular expression matches; slow and plain.
    fn naive(hir: &regex_syntax::hir::Hir, text: &str) -> bool {
        (0..=text.len()).filter(|at| text.is_char_boundary(*at)).any(|at| !ends(hir, text, &[at]).is_empty())
    }

    /// Where matches that begin at one of `starts` may end.
    fn ends(hir: &regex_syntax::hir::Hir, text: &str, starts: &[usize]) -> Vec<usize> {
        use regex_syntax::hir::{Class, HirKind, Look};
        let mut out = Vec::new();
        match hir.kind() {
            HirKind::Empty => out.extend(starts),
            HirKind::Literal(literal) => {
                let fits = |at: &&usize| text.as_bytes()[**at..].starts_with(&literal.0);
                out.extend(starts.iter().filter(fits).map(|at| at + literal.0.len()));
            }
            HirKind::Class(Class::Unicode(class)) => {
                let next = |at: &usize| text[*at..].chars().next().map(|c| (*at, c));
                let fits = |(_, c): &(usize, char)| {
                    class.ranges().iter().any(|range| (range.start()..=range.end()).contains(c))
                };
                out.extend(starts.iter().filter_map(next).filter(fits).map(|(at, c)| at + c.len_utf8()));
            }
            HirKind::Class(Class::Bytes(class)) => {
                let fits = |at: &&usize| {
                    let byte = text.as_bytes().get(**at);
                    byte.is_some_and(|byte| {
                        class.ranges().iter().any(|range| (range.start()..=range.end()).contains(byte))
                    })
                };
                out.extend(starts.iter().filter(fits).map(|at| at + 1));
            }
            HirKind::Look(Look::Start) => out.extend(starts.iter().filter(|at| **at == 0)),
            HirKind::Look(Look::End) => out.extend(starts.iter().filter(|at| **at == text.len())),
            HirKind::Look(_) => {}
            HirKind::Repetition(repetition) => {
                let mut now = starts.to_vec();
                for n in 0..=repetition.max.unwrap_or(8).min(8) {
                    if n >= repetition.min {
                        out.extend(&now);
                    }
                    now = ends(&repetition.sub, text, &now);
                }
            }
            HirKind::Capture(capture) => out = ends(&capture.sub, text, starts),
            HirKind::Concat(parts) => {
                out = parts.iter().fold(starts.to_vec(), |now, part| ends(part, text, &now));
            }
            HirKind::Alternation(parts) => out.extend(parts.iter().flat_map(|part| ends(part, text, starts))),
        }
        out.sort_unstable();
        out.dedup();
        out
    }
}
