//! Messages of the YAML reader in the words of scenarios.

use std::sync::LazyLock;

use regex::Regex;

use crate::text::nearest;

/// An unknown name, and those that are known.
static UNKNOWN: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"(?s)unknown \w+(?: key)? `([^`]+)`[^,]*, expected (?:one of )?(.*)$").ok());

/// The keys that stand beside `call` in a step.
const BESIDE: [&str; 12] =
    ["name", "expect", "events", "model", "wire", "time", "sent", "capture", "client", "times", "repeat", "within"];

/// What a message means in a scenario file, and what to change. `line` is the line that it is about.
pub(super) fn explain(message: &str, line: Option<&str>) -> String {
    let mut reported = rewritten(message, line).unwrap_or_else(|| message.to_owned());
    let in_flow = message.contains("flow mapping") || message.contains("flow sequence");
    if in_flow && let Some(variable) = line.and_then(unquoted_variable) {
        return format!("a text with {variable} needs quotes within braces and brackets: \"{variable}\"");
    }
    if message.contains("flow mapping") && line.is_some_and(|line| line.contains('[')) {
        reported.push_str(" (a key with brackets, such as $.choices[0], needs quotes within braces)");
    }
    if let Some(near) = meant(&reported) {
        reported = format!("{reported}; did you mean `{near}`?");
    }
    reported
}

/// The first `${…}` of a line that stands outside of quotes.
fn unquoted_variable(line: &str) -> Option<&str> {
    let mut quote = None;
    for (at, c) in line.char_indices() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, '$') if line[at..].starts_with("${") => {
                let end = line[at..].find('}')?;
                return Some(&line[at..=at + end]);
            }
            _ => {}
        }
    }
    None
}

fn rewritten(message: &str, line: Option<&str>) -> Option<String> {
    let key = line.and_then(|line| line.trim_start().trim_start_matches("- ").split(':').next()).unwrap_or_default();
    if message.contains("expected end of mapping after enum variant") {
        return Some(if BESIDE.contains(&key) {
            format!("`{key}` is indented too far: it belongs beside `call`, not below it")
        } else {
            "a `call` has one entry, such as `chat: { … }`; what is expected stands beside `call`".to_owned()
        });
    }
    if message.contains("expected sequence start") || message.contains("expected a sequence") {
        return Some("a list is expected here: begin each entry with `- `, or write [a, b]".to_owned());
    }
    if message.contains("expected mapping start") || message.contains("expected a mapping") {
        return Some("a mapping is expected here: `key: value` lines, or { key: value }".to_owned());
    }
    if message.contains("missing field `title`") {
        return Some("the scenario has no `title`: one sentence about what a user can rely on".to_owned());
    }
    if message.contains("missing field `steps`") {
        return Some("the scenario has no `steps`: a list of calls and what is expected of them".to_owned());
    }
    // What a variant is, only Rust knows.
    message.strip_prefix("unknown variant").map(|rest| format!("unknown call{rest}"))
}

/// The known name that an unknown one is near to.
fn meant(message: &str) -> Option<String> {
    if message.contains("did you mean") {
        return None;
    }
    let found = UNKNOWN.as_ref()?.captures(message)?;
    let (name, known) = (found.get(1)?.as_str(), found.get(2)?.as_str());
    let known = known.split([',', ' ']).map(|name| name.trim_matches(['`', ' '])).filter(|name| !name.is_empty());
    nearest(name, known).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::explain;
    use crate::check::load::read;

    #[test]
    fn a_typo_is_answered_with_the_name_that_is_near() {
        let reported = explain("unknown field `expct`, expected one of call, expect, wire", None);
        assert!(reported.ends_with("; did you mean `expect`?"), "{reported}");
        assert_eq!(explain("unknown field `banana`, expected one of call, expect", None).matches("mean").count(), 0);
    }

    #[test]
    fn usual_mistakes_are_reported_in_the_words_of_scenarios() {
        for (text, reported) in [
            ("title: a\nsteps:\n  - call: models\n    expct: { $.a: 1 }\n", "did you mean `expect`?"),
            ("title: a\nsteps:\n  - call: { modl: m }\n    expect: { $.a: 1 }\n", "did you mean `model`?"),
            ("title: a\nsteps:\n  - call: { completion: {} }\n    expect: { $.a: 1 }\n", "did you mean `completions`?"),
            ("title: a\nsteps:\n  - call: models\n    expect: { $.a: { typ: string } }\n", "did you mean `type`?"),
            ("title: a\nsteps:\n  - call: models\n    wire: { statu: 200 }\n", "did you mean `status`?"),
            ("title: a\nneeds: [tool]\nsteps: []\n", "did you mean `tools`?"),
            ("titel: a\nsteps: []\n", "did you mean `title`?"),
            (
                "title: a\nsteps:\n  - call:\n      chat: { model: m }\n      expect: { $.a: 1 }\n",
                "`expect` is indented too far: it belongs beside `call`, not below it",
            ),
            (
                "title: a\nsteps:\n  - call: { chat: { model: ${model}, messages: [{ role: user, content: hi }] } }\n    expect: { $.a: 1 }\n",
                "a text with ${model} needs quotes within braces and brackets: \"${model}\"\n",
            ),
            (
                "title: a\nsteps:\n  - call: { chat: { model: \"${model}\", messages: [{ role: user, content: ${prompt} }] } }\n    expect: { $.a: 1 }\n",
                "a text with ${prompt} needs quotes",
            ),
            (
                "title: a\nsteps:\n  - call: { embeddings: { model: m, input: [${model}] } }\n    expect: { $.a: 1 }\n",
                "a text with ${model} needs quotes",
            ),
            (
                "title: a\nsteps:\n  - call: models\n    expect: { $.id: x${model} }\n",
                "a text with ${model} needs quotes",
            ),
            ("title: a\nsteps:\n  call: models\n", "begin each entry with `- `"),
            ("title: a\n", "the scenario has no `steps`"),
            ("steps: []\n", "the scenario has no `title`"),
            ("title: a\nsteps:\n  - call: models\n    expect: { object: list }\n", "did you mean `$.object`?"),
        ] {
            let problems = read("x.yaml", text).unwrap_err();
            let all = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
            assert!(all.contains(reported), "{reported}: {all}");
            assert!(!all.contains("variant") && !all.contains("jp_query") && !all.contains("sequence start"), "{all}");
        }
    }
}
