//! The grammars of custom tools: `regex`, and the part of `lark` that is regular, as one pattern. Pure.
//!
//! Ollama enforces a JSON schema (`format`), whose only grammar for text is `pattern`. So a `lark` grammar whose rules
//! do not refer to themselves is written as a regular expression; everything else is refused, because it could only be
//! mentioned to the model.

use std::{collections::HashMap, fmt, sync::Arc};

use jsonschema::{PatternOptions, Validator};
use serde_json::{Value, json};

use crate::openai::schema;

/// Maximum size of the pattern that a grammar becomes, and of what it is compiled to: rules that use each other
/// multiply.
const MOST: usize = 64 << 10;
const COMPILED: usize = 4 << 20;

/// Maximum nesting of groups and rules.
const DEPTH: usize = 48;

/// A grammar that can be enforced.
#[derive(Clone)]
pub(crate) struct Grammar {
    /// What the whole input matches.
    pub(super) pattern: String,
    checker: Arc<Validator>,
}

impl fmt::Debug for Grammar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pattern.fmt(f)
    }
}

impl Grammar {
    /// Reads a grammar in `syntax`.
    ///
    /// # Errors
    /// Says why it cannot be enforced.
    pub(super) fn read(syntax: &str, definition: &str) -> Result<Self, String> {
        let expression = match syntax {
            "regex" => definition.to_owned(),
            "lark" => Lark::read(definition)?.expression()?,
            other => return Err(format!("unknown syntax '{other}': supported are 'lark' and 'regex'")),
        };
        if expression.len() > MOST {
            return Err(format!("as one pattern it is longer than {MOST} bytes"));
        }
        let pattern = format!("^(?:{expression})$");
        // Exactly what is written, or not at all: a pattern without its lookarounds would allow more.
        schema::expressible(&pattern)?;
        let checker = jsonschema::options()
            .with_pattern_options(PatternOptions::regex().size_limit(COMPILED).dfa_size_limit(COMPILED))
            .offline()
            .build(&json!({"type": "string", "pattern": pattern}))
            .map_err(|_| "the pattern cannot be compiled, or is too large".to_owned())?;
        Ok(Self { pattern, checker: Arc::new(checker) })
    }

    /// Whether an input follows it.
    pub(super) fn matches(&self, input: &str) -> bool {
        self.checker.is_valid(&Value::from(input))
    }
}

/// The rules of a `lark` grammar, each with its expression.
struct Lark<'a> {
    rules: HashMap<&'a str, Vec<Token<'a>>>,
}

#[derive(Clone, Debug, PartialEq)]
enum Token<'a> {
    /// The name of a rule or a terminal.
    Name(&'a str),
    /// A text, as a pattern.
    Pattern(String),
    /// `( ) [ ] | ? * +`
    Mark(char),
    /// `~ 2..3`
    Times(u32, u32),
    /// `-> name`, which names a branch for a parser.
    Alias,
}

/// Terminals of `common.lark`.
const COMMON: &[(&str, &str)] = &[
    ("CNAME", "[_A-Za-z][_A-Za-z0-9]*"),
    ("CR", r"\r"),
    ("DECIMAL", r"(?:[0-9]+\.[0-9]*|\.[0-9]+)"),
    ("DIGIT", "[0-9]"),
    ("ESCAPED_STRING", r#""(?:[^"\\]|\\.)*""#),
    ("FLOAT", r"(?:[0-9]+[eE][+\-]?[0-9]+|(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][+\-]?[0-9]+)?)"),
    ("HEXDIGIT", "[0-9A-Fa-f]"),
    ("INT", "[0-9]+"),
    ("LCASE_LETTER", "[a-z]"),
    ("LETTER", "[A-Za-z]"),
    ("LF", r"\n"),
    ("NEWLINE", r"(?:\r?\n)+"),
    ("NUMBER", r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+\-]?[0-9]+)?"),
    ("SIGNED_INT", r"[+\-]?[0-9]+"),
    ("SIGNED_NUMBER", r"[+\-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+\-]?[0-9]+)?"),
    ("UCASE_LETTER", "[A-Z]"),
    ("WORD", "[A-Za-z]+"),
    ("WS", r"[ \t\f\r\n]+"),
    ("WS_INLINE", r"[ \t]+"),
];

impl<'a> Lark<'a> {
    fn read(text: &'a str) -> Result<Self, String> {
        let mut rules = HashMap::new();
        let mut open: Option<&'a str> = None;
        for line in text.lines() {
            let line = line.trim();
            if line.is_empty() || line.starts_with("//") || line.starts_with('#') {
                continue;
            }
            if let Some(directive) = line.strip_prefix('%') {
                open = None;
                let imported = directive.strip_prefix("import").map(str::trim);
                let Some(import) = imported else {
                    let name = directive.split_whitespace().next().unwrap_or_default();
                    return Err(format!("'%{name}' cannot be expressed as a pattern"));
                };
                Self::import(import, &mut rules)?;
                continue;
            }
            if let Some((name, body)) = head(line) {
                if rules.insert(name, tokens(body)?).is_some() {
                    return Err(format!("'{name}' is defined twice"));
                }
                open = Some(name);
                continue;
            }
            // A rule goes on over several lines.
            let Some(rule) = open.and_then(|name| rules.get_mut(name)) else {
                return Err(format!("the line '{line}' cannot be read"));
            };
            rule.extend(tokens(line)?);
        }
        Ok(Self { rules })
    }

    fn import(import: &'a str, rules: &mut HashMap<&'a str, Vec<Token<'a>>>) -> Result<(), String> {
        let (path, alias) = match import.split_once("->") {
            Some((path, alias)) => (path.trim(), Some(alias.trim())),
            None => (import, None),
        };
        let names: Vec<&str> = match path.strip_prefix("common") {
            Some(rest) if rest.starts_with('.') => vec![&rest[1..]],
            Some(rest) => {
                let list = rest.trim().strip_prefix('(').and_then(|rest| rest.strip_suffix(')'));
                list.ok_or_else(|| format!("'%import {import}' cannot be read"))?.split(',').map(str::trim).collect()
            }
            None => return Err(format!("'%import {path}': only terminals of 'common' can be imported")),
        };
        for name in names {
            let known = COMMON.iter().find(|(known, _)| *known == name);
            let (_, pattern) = known.ok_or_else(|| format!("'common.{name}' is not known"))?;
            rules.insert(alias.unwrap_or(name), vec![Token::Pattern((*pattern).to_owned())]);
        }
        Ok(())
    }

    /// The whole grammar as one expression.
    fn expression(&self) -> Result<String, String> {
        self.rule("start", &mut Vec::new())
    }

    fn rule<'s>(&'s self, name: &'s str, within: &mut Vec<&'s str>) -> Result<String, String> {
        if within.contains(&name) {
            return Err(format!("the rule '{name}' refers to itself, which no pattern can express"));
        }
        let tokens = self.rules.get(name).ok_or_else(|| format!("the rule '{name}' is not defined"))?;
        within.push(name);
        if within.len() > DEPTH {
            return Err("its rules are nested too deeply".to_owned());
        }
        let mut rest = &tokens[..];
        let expression = self.alternatives(&mut rest, within, 0)?;
        within.pop();
        match rest.first() {
            None => Ok(expression),
            Some(_) => Err(format!("the rule '{name}' has a bracket that was not opened")),
        }
    }

    fn alternatives<'s>(
        &'s self,
        rest: &mut &'s [Token<'a>],
        within: &mut Vec<&'s str>,
        depth: usize,
    ) -> Result<String, String> {
        if depth > DEPTH {
            return Err("its groups are nested too deeply".to_owned());
        }
        let mut out = String::new();
        loop {
            let Some((token, after)) = rest.split_first() else { return Ok(out) };
            let mut atom = match token {
                Token::Mark(')' | ']') => return Ok(out),
                Token::Mark('|') => {
                    *rest = after;
                    out.push('|');
                    continue;
                }
                Token::Alias => {
                    *rest = after;
                    continue;
                }
                Token::Mark(open @ ('(' | '[')) => {
                    *rest = after;
                    let inner = self.alternatives(rest, within, depth + 1)?;
                    let close = if *open == '(' { ')' } else { ']' };
                    let Some((Token::Mark(found), after)) = rest.split_first() else {
                        return Err("a bracket is not closed".to_owned());
                    };
                    if *found != close {
                        return Err("a bracket is closed by another".to_owned());
                    }
                    *rest = after;
                    format!("(?:{inner}){}", if *open == '[' { "?" } else { "" })
                }
                Token::Name(name) => {
                    *rest = after;
                    format!("(?:{})", self.rule(name, within)?)
                }
                Token::Pattern(pattern) => {
                    *rest = after;
                    format!("(?:{pattern})")
                }
                Token::Mark(_) | Token::Times(..) => return Err("a repetition repeats nothing".to_owned()),
            };
            while let Some((token, after)) = rest.split_first() {
                match token {
                    Token::Mark(mark @ ('?' | '*' | '+')) => atom = format!("(?:{atom}{mark})"),
                    Token::Times(least, most) => atom = format!("(?:{atom}{{{least},{most}}})"),
                    _ => break,
                }
                *rest = after;
            }
            out.push_str(&atom);
            if out.len() > MOST {
                return Err(format!("as one pattern it is longer than {MOST} bytes"));
            }
        }
    }
}

/// The name that a line defines, and what follows its colon.
fn head(line: &str) -> Option<(&str, &str)> {
    let line = line.trim_start_matches(['?', '!']);
    let end = line.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|end| *end > 0)?;
    let (name, rest) = line.split_at(end);
    let mut rest = rest.trim_start();
    // A priority, which matters to a lexer alone.
    if let Some(after) = rest.strip_prefix('.') {
        rest = after.trim_start_matches(|c: char| c.is_ascii_digit() || c == '-').trim_start();
    }
    Some((name, rest.strip_prefix(':')?))
}

/// Reads the body of a rule.
fn tokens(text: &str) -> Result<Vec<Token<'_>>, String> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(c) = rest.chars().next() {
        let (token, len) = match c {
            '/' if rest.starts_with("//") => break,
            '"' => {
                let (pattern, len) = string(rest)?;
                // A range of characters.
                match rest[len..].trim_start().strip_prefix("..") {
                    Some(to) if to.trim_start().starts_with('"') => {
                        let (last, end) = string(to.trim_start())?;
                        let after = rest.len() - to.trim_start().len() + end;
                        (Token::Pattern(format!("[{pattern}-{last}]")), after)
                    }
                    _ => (Token::Pattern(pattern), len),
                }
            }
            '/' => {
                let (pattern, len) = expression(rest)?;
                (Token::Pattern(pattern), len)
            }
            '(' | ')' | '[' | ']' | '|' | '?' | '*' | '+' => (Token::Mark(c), 1),
            '~' => {
                let digits = |text: &str| text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
                let body = rest[1..].trim_start();
                let start = rest.len() - body.len();
                let first = digits(body);
                let least: u32 = body[..first].parse().map_err(|_| "'~' has no number".to_owned())?;
                match body[first..].strip_prefix("..") {
                    Some(more) => {
                        let second = digits(more);
                        let most = more[..second].parse().map_err(|_| "'~' has no number".to_owned())?;
                        (Token::Times(least, most), start + first + 2 + second)
                    }
                    None => (Token::Times(least, least), start + first),
                }
            }
            '-' if rest.starts_with("->") => {
                let name = rest[2..].trim_start();
                let end = name.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(name.len());
                (Token::Alias, rest.len() - name.len() + end)
            }
            c if c.is_ascii_alphabetic() || c == '_' => {
                let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
                if rest[end..].starts_with('{') {
                    return Err(format!("'{}' is a template, which cannot be expressed as a pattern", &rest[..end]));
                }
                (Token::Name(&rest[..end]), end)
            }
            c => return Err(format!("'{c}' cannot be read")),
        };
        tokens.push(token);
        rest = rest[len..].trim_start();
    }
    Ok(tokens)
}

/// Where the literal at the beginning of `text` ends, before its closing `quote`.
fn end_of(text: &str, quote: char) -> Result<usize, String> {
    let (mut escaped, mut class) = (false, false);
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '[' if quote == '/' => class = true,
            ']' => class = false,
            c if c == quote && !class => return Ok(at),
            _ => {}
        }
    }
    Err(format!("a literal is not closed with {quote}"))
}

/// A literal text as a pattern, and its length in the grammar; `i` after it makes it match either case.
fn string(text: &str) -> Result<(String, usize), String> {
    let end = end_of(text, '"')?;
    let literal: String = serde_json::from_str(&text[..=end])
        .or_else(|_| serde_json::from_str(&text[..=end].replace("\\'", "'")))
        .map_err(|_| format!("the text {} cannot be read", &text[..=end]))?;
    let either = text[end + 1..].starts_with('i');
    let mut pattern = String::new();
    for c in literal.chars() {
        let cases: Vec<char> = c.to_lowercase().chain(c.to_uppercase()).collect();
        if either && c.is_alphabetic() && cases.len() == 2 && cases[0] != cases[1] {
            pattern.extend(['[', cases[0], cases[1], ']']);
        } else {
            pattern.push_str(&regex_syntax::escape(&c.to_string()));
        }
    }
    Ok((pattern, end + 1 + usize::from(either)))
}

/// A regular expression between slashes, and its length in the grammar.
fn expression(text: &str) -> Result<(String, usize), String> {
    let end = end_of(text, '/')?;
    let flags: String = text[end + 1..].chars().take_while(char::is_ascii_alphabetic).collect();
    // In a pattern, as in lark without flags, a dot is any character of a line.
    if !flags.is_empty() {
        return Err(format!("the flags '{flags}' of an expression have no form in Ollama's grammar"));
    }
    Ok((text[1..end].replace("\\/", "/"), end + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Codex offers to write changes of files.
    const PATCH: &str = r#"start: begin hunk+ end
begin: "*** Begin Patch" LF
end: "*** End Patch" LF?

hunk: add | delete | update
add: "*** Add File: " filename LF add_line+
delete: "*** Delete File: " filename LF
update: "*** Update File: " filename LF move? change?

filename: /(.+)/
add_line: "+" /(.*)/ LF -> line

move: "*** Move to: " filename LF
change: (context | line)+ eof?
context: ("@@" | "@@ " /(.+)/) LF
line: ("+" | "-" | " ") /(.*)/ LF
eof: "*** End of File" LF

%import common.LF
"#;

    #[test]
    fn a_grammar_of_patches_is_a_pattern() {
        let grammar = Grammar::read("lark", PATCH).unwrap();
        assert!(grammar.matches("*** Begin Patch\n*** Add File: a.txt\n+one\n+\n*** End Patch\n"));
        assert!(grammar.matches("*** Begin Patch\n*** Update File: a\n*** Move to: b\n@@ fn x\n-1\n+2\n*** End Patch"));
        for wrong in ["", "*** Begin Patch\n*** End Patch\n", "*** Begin Patch\n*** Add File: a\none\n*** End Patch\n"]
        {
            assert!(!grammar.matches(wrong), "{wrong}");
        }
    }

    #[test]
    fn what_is_regular_is_expressed() {
        for (definition, right, wrong) in [
            (r#"start: "a".."c" ~ 2"#, &["ab", "cc"][..], &["a", "ad", "abc"][..]),
            (
                r#"start: "yes"i | ["-"] INT
               %import common.INT"#,
                &["YES", "yEs", "-12", "7"],
                &["no", "--1", ""],
            ),
            (
                "start: pair (\",\" pair) ~ 0..2\npair: KEY \"=\" NUMBER\nKEY.2: /[a-z]+/\n%import common (NUMBER, WS)",
                &["a=1", "a=1,b=2.5"],
                &["a", "a=1,", "a=1,b=2,c=3,d=4"],
            ),
            (
                "// comment\n?start: a\n  | b // the other\na: \"(\" /[^)\\/]*/ \")\"\nb: \"\\\\\\\"\"",
                &["(x)", "\\\""],
                &["(x/)", "x"],
            ),
        ] {
            let grammar = Grammar::read("lark", definition).unwrap_or_else(|why| panic!("{definition}: {why}"));
            assert!(right.iter().all(|text| grammar.matches(text)), "{definition}: {}", grammar.pattern);
            assert!(!wrong.iter().any(|text| grammar.matches(text)), "{definition}: {}", grammar.pattern);
        }
        let grammar = Grammar::read("regex", r"\d{4}-\d{2}|now").unwrap();
        assert!(
            grammar.matches("2026-11")
                && grammar.matches("now")
                && !grammar.matches("2026-1")
                && !grammar.matches("nowx")
        );
    }

    #[test]
    fn what_is_not_is_refused_with_the_reason() {
        for (syntax, definition, why) in [
            ("lark", "start: \"(\" start \")\" | \"x\"", "refers to itself"),
            ("lark", "start: a\na: b\nb: a", "refers to itself"),
            ("lark", "start: INT\n%import common.INT\n%import common.WS\n%ignore WS", "%ignore"),
            ("lark", "start: x", "not defined"),
            ("lark", "start: (\"a\"", "not closed"),
            ("lark", "start: \"a\")", "not opened"),
            ("lark", "start: *", "repeats nothing"),
            ("lark", "start: _sep{x, y}", "template"),
            ("lark", "start: /a/i", "flags"),
            ("lark", "start: /(?=a)b/", "lookaround"),
            ("lark", "%import other.X\nstart: X", "common"),
            ("lark", "begin: \"a\"", "'start' is not defined"),
            ("regex", "(?!a)b", "lookaround"),
            ("regex", "(", "cannot be read"),
            ("regex", r"\bword", "word boundaries"),
            ("ebnf", "x", "unknown syntax"),
        ] {
            let error = Grammar::read(syntax, definition).unwrap_err();
            assert!(error.contains(why), "{definition}: {error}");
        }
        // Rules that use each other many times.
        let rules: String = (0..40).map(|n| format!("r{n}: r{} r{}\n", n + 1, n + 1)).collect();
        let error = Grammar::read("lark", &format!("start: r0\n{rules}r40: \"x\"")).unwrap_err();
        assert!(error.contains("longer than"), "{error}");
    }
}
