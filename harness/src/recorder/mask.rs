//! Takes secrets and personal data out of recordings, by rules, and counts what each rule masked.

use std::collections::BTreeMap;

use anyhow::Context;
use mock_ollama::recording::{Headers, Recording};
use regex::Regex;
use serde_json::Value;

use crate::report;

/// What takes the place of a secret.
const MASK: &str = "***";

/// How often each rule masked something.
pub(crate) type Counts = BTreeMap<String, usize>;

/// The rules.
#[derive(Debug)]
pub(crate) struct Masks {
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    name: String,
    pattern: Regex,
    /// With `$1` for the first group.
    instead: String,
}

/// Name, pattern and replacement. In JSON a backslash is written twice, and a line end as `\n`.
const RULES: [(&str, &str, &str); 7] = [
    ("home directory", r"(?i)((?:/hom[e]|/users|\\{1,2}users)(?:/|\\{1,2}))[^/\\\s:;,'<>\x22]+", "${1}user"),
    ("user and password in a URL", r"(?i)\b([a-z][a-z0-9+.-]*://)[^/\s:@'\x22]+:[^/\s@'\x22]+@", "${1}***:***@"),
    (
        "private key",
        r"-----BEGIN [A-Z ]*PRIVATE KEY-----[A-Za-z0-9+/=\\\s]*(?:-----END [A-Z ]*PRIVATE KEY-----)?",
        MASK,
    ),
    ("JSON web token", r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*", MASK),
    (
        "API key",
        r"\b(?:[sprk]k-[A-Za-z0-9_-]{16,}|gh[opsur]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}|hf_[A-Za-z0-9]{20,}|xox[abprs]-[A-Za-z0-9-]{10,}|AKIA[0-9A-Z]{16}\b|AIza[0-9A-Za-z_-]{35}|glpat-[A-Za-z0-9_-]{20,}|fl-[0-9a-f]{32,})",
        MASK,
    ),
    ("bearer token", r"(?i)\b(bearer\s+)[A-Za-z0-9._~+/=-]{8,}", "${1}***"),
    ("e-mail address", r"\b[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}\b", "user@example.com"),
];

impl Masks {
    /// The built-in rules, patterns of the user's own, and texts that are known to be secret.
    ///
    /// # Errors
    /// Fails if a pattern is not a regular expression.
    pub(crate) fn new<'a>(own: &[String], secrets: impl IntoIterator<Item = &'a str>) -> anyhow::Result<Self> {
        let mut rules = Vec::new();
        for secret in secrets.into_iter().filter(|secret| !secret.is_empty()) {
            let pattern = Regex::new(&regex::escape(secret)).context("a key is too long to be masked")?;
            rules.push(Rule { name: "key of the remote".to_owned(), pattern, instead: MASK.to_owned() });
        }
        for pattern in own {
            let compiled = Regex::new(pattern).with_context(|| format!("invalid --mask {pattern:?}"))?;
            rules.push(Rule { name: format!("--mask {pattern}"), pattern: compiled, instead: MASK.to_owned() });
        }
        for (name, pattern, instead) in RULES {
            let pattern = Regex::new(pattern).with_context(|| format!("the rule {name:?}"))?;
            rules.push(Rule { name: name.to_owned(), pattern, instead: instead.to_owned() });
        }
        Ok(Self { rules })
    }

    /// `text` without what the rules find.
    fn text(&self, text: &str, counts: &mut Counts) -> String {
        let mut text = text.to_owned();
        for rule in &self.rules {
            let mut found = 0;
            let masked = rule.pattern.replace_all(&text, |captures: &regex::Captures<'_>| {
                let mut instead = String::new();
                captures.expand(&rule.instead, &mut instead);
                found += usize::from(instead != captures[0]);
                instead
            });
            if found > 0 {
                text = masked.into_owned();
                *counts.entry(rule.name.clone()).or_default() += found;
            }
        }
        text
    }

    fn headers(&self, headers: &mut Headers, counts: &mut Counts) {
        for (name, value) in headers {
            let masked = report::masked(name, value);
            if masked == value {
                *value = self.text(value, counts);
            } else {
                *value = masked.to_owned();
                *counts.entry(format!("header {}", name.to_ascii_lowercase())).or_default() += 1;
            }
        }
    }

    /// Masks a recording, and counts what was masked.
    ///
    /// # Errors
    /// Returns the rule that applies only to the joined text of a stream: masking that would need another number of
    /// chunks, so such an exchange must not be kept.
    pub(crate) fn apply(&self, recording: &mut Recording, counts: &mut Counts) -> Result<(), String> {
        // A key in a header may be repeated anywhere else.
        let keys: Vec<String> = recording
            .request
            .headers
            .iter()
            .filter(|(name, value)| report::masked(name, value) != value)
            .filter_map(|(_, value)| value.split_ascii_whitespace().next_back())
            .filter(|key| key.len() >= 8)
            .map(str::to_owned)
            .collect();
        let mut all = |text: &str| {
            let hidden = keys.iter().fold(text.to_owned(), |text, key| text.replace(key, MASK));
            self.text(&hidden, counts)
        };
        recording.request.path = all(&recording.request.path);
        recording.request.body = all(&recording.request.body);
        for chunk in recording.request.chunks.iter_mut().flatten() {
            *chunk = all(chunk);
        }
        for (_, chunk) in &mut recording.response.chunks {
            *chunk = all(chunk);
        }
        self.headers(&mut recording.request.headers, counts);
        self.headers(&mut recording.response.headers, counts);
        if recording.response.framing == "length" {
            let length = recording.response.body().len().to_string();
            let headers = recording.response.headers.iter_mut();
            for (_, value) in headers.filter(|(name, _)| name.eq_ignore_ascii_case("content-length")) {
                value.clone_from(&length);
            }
        }
        self.spread(&recording.response.body()).map_or(Ok(()), Err)
    }

    /// The first rule that finds something only in the joined texts of lines.
    fn spread(&self, body: &str) -> Option<String> {
        let mut texts: BTreeMap<String, String> = BTreeMap::new();
        for line in body.lines() {
            let document = serde_json::from_str(line.strip_prefix("data: ").unwrap_or(line));
            join(&document.unwrap_or(Value::Null), String::new(), &mut texts);
        }
        let mut found = Counts::new();
        for text in texts.values() {
            self.text(text, &mut found);
        }
        found.into_keys().next()
    }
}

/// Appends each text of a document to those at the same place.
fn join(value: &Value, path: String, texts: &mut BTreeMap<String, String>) {
    match value {
        Value::String(text) => texts.entry(path).or_default().push_str(text),
        Value::Object(object) => {
            object.iter().for_each(|(key, value)| join(value, format!("{path}/{key}"), texts));
        }
        Value::Array(items) => items.iter().for_each(|item| join(item, format!("{path}/"), texts)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use mock_ollama::recording::{Request, Response};

    use super::*;

    fn masks() -> Masks {
        Masks::new(&["project-\\w+".to_owned()], ["remote-key"]).unwrap()
    }

    #[test]
    fn secrets_and_personal_paths_are_masked_and_counted() {
        let home = concat!("/ho", "me/");
        for (text, masked, rule) in [
            (format!("see {home}ann/notes.txt"), format!("see {home}user/notes.txt"), "home directory"),
            (r"C:\\Users\\ann\\x".to_owned(), r"C:\\Users\\user\\x".to_owned(), "home directory"),
            (r"C:\Users\ann\x".to_owned(), r"C:\Users\user\x".to_owned(), "home directory"),
            ("/Users/ann\"".to_owned(), "/Users/user\"".to_owned(), "home directory"),
            ("http://a:b@host/".to_owned(), "http://***:***@host/".to_owned(), "user and password in a URL"),
            ("sk-0123456789abcdef0123!".to_owned(), "***!".to_owned(), "API key"),
            ("\"ghp_0123456789abcdef0123\"".to_owned(), "\"***\"".to_owned(), "API key"),
            (format!("fl-{}", "0a".repeat(32)), "***".to_owned(), "API key"),
            ("Bearer abcdefgh1".to_owned(), "Bearer ***".to_owned(), "bearer token"),
            ("ann.b@mail.example.org.".to_owned(), "user@example.com.".to_owned(), "e-mail address"),
            ("eyJhbGciOiJI.eyJzdWIiOiIx.c2ln".to_owned(), "***".to_owned(), "JSON web token"),
            ("it is remote-key.".to_owned(), "it is ***.".to_owned(), "key of the remote"),
            ("project-x".to_owned(), "***".to_owned(), "--mask project-\\w+"),
            (
                r"-----BEGIN PRIVATE KEY-----\nAB+/\n-----END PRIVATE KEY-----\n".to_owned(),
                r"***\n".to_owned(),
                "private key",
            ),
        ] {
            let mut counts = Counts::new();
            assert_eq!(masks().text(&text, &mut counts), masked);
            assert_eq!(counts, Counts::from([(rule.to_owned(), 1)]), "{text}");
            // What is masked stays masked.
            assert_eq!(masks().text(&masked, &mut Counts::new()), masked);
        }
    }

    #[test]
    fn ordinary_text_stays() {
        let text =
            "ask-me-about-long-hyphenated-words, a@b, sk-short, tokens: 12, /usr/share/ollama, http://host:80/x@y";
        let mut counts = Counts::new();
        assert_eq!(masks().text(text, &mut counts), text);
        assert!(counts.is_empty(), "{counts:?}");
    }

    fn recording(chunks: &[&str]) -> Recording {
        let headers = vec![("Authorization".to_owned(), "Bearer callers-key-1".to_owned())];
        let body = "{\"prompt\":\"callers-key-1\"}".to_owned();
        Recording {
            request: Request { headers, body, ..Request::default() },
            response: Response {
                headers: vec![("Content-Length".to_owned(), "99".to_owned())],
                framing: "length".to_owned(),
                chunks: chunks.iter().map(|chunk| (0, (*chunk).to_owned())).collect(),
                ..Response::default()
            },
            ..Recording::default()
        }
    }

    #[test]
    fn a_key_of_a_header_is_masked_everywhere_and_the_length_is_right() {
        let mut masked = recording(&["{\"error\":\"callers-key-1\"}"]);
        let mut counts = Counts::new();
        masks().apply(&mut masked, &mut counts).unwrap();
        assert_eq!(masked.request.headers[0].1, "***");
        assert_eq!(masked.request.body, "{\"prompt\":\"***\"}");
        assert_eq!(masked.response.body(), "{\"error\":\"***\"}");
        assert_eq!(masked.response.header("content-length"), Some("15"));
        assert_eq!(counts, Counts::from([("header authorization".to_owned(), 1)]));
    }

    #[test]
    fn a_secret_that_is_spread_over_chunks_is_noticed() {
        let line = |text: &str| format!("{{\"message\":{{\"content\":{text:?}}}}}\n");
        let lines = ["ann", "@mail", ".example.org"].map(line);
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let why = masks().apply(&mut recording(&lines), &mut Counts::new());
        assert_eq!(why, Err("e-mail address".to_owned()));
        let why = masks().apply(&mut recording(&lines[..1]), &mut Counts::new());
        assert_eq!(why, Ok(()));
    }

    #[test]
    fn a_pattern_that_is_none_is_named() {
        let error = Masks::new(&["(".to_owned()], []).unwrap_err();
        assert!(error.to_string().contains("invalid --mask \"(\""), "{error}");
    }
}
