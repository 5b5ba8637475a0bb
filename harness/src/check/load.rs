//! Finds scenario files, reads them, and reports what is wrong with them, pointing at file, line and column.

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::de::DeserializeOwned;

use super::{explain::explain, validate};
use crate::scenario::{
    Place, Scenario, Step,
    loaded::{Loaded, expand},
};

/// Something that is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file as it was given or found.
    pub file: String,
    /// Where in the file, if it is about a place.
    pub at: Option<Place>,
    /// What is wrong and what to change.
    pub message: String,
    /// The line that it is about.
    pub line: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(at) = self.at else { return write!(f, "{}: {}", self.file, self.message) };
        write!(f, "{}:{}:{}: {}", self.file, at.line, at.column, self.message)?;
        if let Some(line) = &self.line {
            let number = at.line.to_string();
            let (margin, indent) = (" ".repeat(number.len()), indent(line, at.column));
            write!(f, "\n{margin} |\n{number} | {line}\n{margin} | {indent}^")?;
        }
        Ok(())
    }
}

/// What stands before a column, as blanks; tabs stay, so that the caret stands right.
fn indent(line: &str, column: u64) -> String {
    let before = usize::try_from(column.saturating_sub(1)).unwrap_or(0);
    line.chars().take(before).map(|c| if c == '\t' { '\t' } else { ' ' }).collect()
}

/// All `.yaml` and `.yml` files at `paths`; folders are searched with those below them. Sorted, each once.
///
/// # Errors
/// A path that cannot be read.
pub fn find(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Problem> {
    let mut files = Vec::new();
    for path in paths {
        search(path, true, &mut files).map_err(|error| Problem {
            file: path.display().to_string(),
            at: None,
            message: format!("cannot be read: {error}"),
            line: None,
        })?;
    }
    files.sort();
    files.dedup();
    Ok(files)
}

fn search(path: &Path, named: bool, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    if fs::metadata(path)?.is_dir() {
        for entry in fs::read_dir(path)? {
            search(&entry?.path(), false, files)?;
        }
    } else if named
        || is_scenario(path) && path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
    {
        files.push(path.to_owned());
    }
    Ok(())
}

/// Whether a file in a folder is a scenario by its name: what begins with `_` is there to be included.
fn is_scenario(path: &Path) -> bool {
    path.file_name().is_some_and(|name| !name.to_string_lossy().starts_with('_'))
}

/// Reads files.
///
/// # Errors
/// Everything that is wrong with any of them.
pub fn load(files: &[PathBuf]) -> Result<Vec<Loaded>, Vec<Problem>> {
    let mut loaded = Vec::new();
    let mut problems = Vec::new();
    for path in files {
        let file = path.display().to_string();
        match fs::read_to_string(path) {
            Ok(text) => match read_from(&file, &text, Some(path.parent().unwrap_or(Path::new("")))) {
                Ok(scenario) => loaded.extend(expand(&file, &scenario)),
                Err(wrong) => problems.extend(wrong),
            },
            Err(error) => {
                problems.push(Problem { file, at: None, message: format!("cannot be read: {error}"), line: None });
            }
        }
    }
    if problems.is_empty() { Ok(loaded) } else { Err(problems) }
}

/// Reads the text of one file, which includes no other.
///
/// # Errors
/// The first thing that is wrong with its YAML or shape, or else everything that is wrong with its meaning.
pub fn read(file: &str, text: &str) -> Result<Scenario, Vec<Problem>> {
    read_from(file, text, None)
}

/// Reads the text of one file, and the steps that it includes from files in `folder`.
fn read_from(file: &str, text: &str, folder: Option<&Path>) -> Result<Scenario, Vec<Problem>> {
    let mut sources = Sources { file, texts: BTreeMap::from([(file.to_owned(), text.to_owned())]) };
    let mut scenario: Scenario = sources.parse(file).map_err(|problem| vec![problem])?;
    for steps in [&mut scenario.setup, &mut scenario.steps, &mut scenario.teardown] {
        sources.include(steps, folder).map_err(|problem| vec![problem])?;
    }
    let wrong = validate::wrong(&scenario);
    if wrong.is_empty() {
        Ok(scenario)
    } else {
        let reported =
            |(from, at, message): validate::Wrong| sources.problem(from.as_deref().unwrap_or(file), Some(at), &message);
        Err(wrong.into_iter().map(reported).collect())
    }
}

/// The texts that a scenario consists of.
struct Sources<'a> {
    file: &'a str,
    texts: BTreeMap<String, String>,
}

impl Sources<'_> {
    fn problem(&self, file: &str, at: Option<Place>, message: &str) -> Problem {
        let text = self.texts.get(file).map_or("", String::as_str);
        let line = at.and_then(|at| text.lines().nth(usize::try_from(at.line).ok()?.checked_sub(1)?));
        Problem { file: file.to_owned(), at, message: explain(message, line), line: line.map(str::to_owned) }
    }

    fn parse<T: DeserializeOwned>(&self, file: &str) -> Result<T, Problem> {
        let text = self.texts.get(file).map_or("", String::as_str);
        let options = serde_saphyr::options! { strict_booleans: true };
        serde_saphyr::from_str_with_options(text, options).map_err(|error| {
            let error = error.without_snippet();
            let at = error.location().map(Place::from).filter(|at| at.line > 0);
            let mut message = error.to_string();
            if let Some(at) = at {
                // The message begins with it.
                let tail = format!(" at line {}, column {}", at.line, at.column);
                message = message.strip_suffix(&tail).map(str::to_owned).unwrap_or(message);
            }
            self.problem(file, at, &message)
        })
    }

    /// Puts the steps of other files in the place of those that name them.
    fn include(&mut self, steps: &mut Vec<Step>, folder: Option<&Path>) -> Result<(), Problem> {
        for step in std::mem::take(steps) {
            let Some(include) = &step.include else {
                steps.push(step);
                continue;
            };
            let at = Some(Place::from(include));
            let path = match folder {
                Some(folder) => folder.join(&include.value),
                None => return Err(self.problem(self.file, at, "nothing can be included here")),
            };
            let name = path.display().to_string();
            let text = fs::read_to_string(&path)
                .map_err(|error| self.problem(self.file, at, &format!("{} cannot be read: {error}", include.value)))?;
            self.texts.insert(name.clone(), text);
            let included: Vec<Step> = self.parse(&name)?;
            if let Some(nested) = included.iter().find_map(|step| step.include.as_ref()) {
                let message = "a file that is included includes no other";
                return Err(self.problem(&name, Some(Place::from(nested)), message));
            }
            let from: Arc<str> = name.into();
            steps.extend(included.into_iter().map(|step| Step { from: Some(from.clone()), ..step }));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wrong(text: &str) -> Vec<String> {
        read("x.yaml", text).unwrap_err().iter().map(ToString::to_string).collect()
    }

    const HEAD: &str = "title: models can be listed\nsteps:\n  - call: models\n";

    #[test]
    fn a_small_scenario_is_read() {
        let scenario = read("x.yaml", &format!("{HEAD}    expect: {{ $.object: list }}\n")).unwrap();
        assert_eq!(scenario.title.value, "models can be listed");
        assert_eq!(scenario.steps[0].parts[0].expect.0[0].key, "$.object");
        assert_eq!(scenario.steps[0].parts[0].expect.0[0].at, Place { line: 4, column: 15 });
    }

    #[test]
    fn an_unknown_key_is_pointed_at_with_the_known_ones() {
        assert_eq!(
            wrong("title: a\nstep: []\n"),
            [
                "x.yaml:2:1: unknown field `step`, expected one of title, tags, needs, mock, upstream, config, no_laws, vars, matrix, setup, client, steps, teardown; did you mean `steps`?\n  |\n2 | step: []\n  | ^"
            ]
        );
    }

    #[test]
    fn an_unknown_matcher_is_pointed_at_with_the_known_ones() {
        let wrong = wrong(&format!("{HEAD}    expect:\n      $.object: {{ equal: list }}\n"));
        assert!(wrong[0].starts_with("x.yaml:5:7: unknown matcher `equal`, expected one of equals, "), "{wrong:?}");
    }

    #[test]
    fn a_step_that_checks_nothing_is_refused() {
        let refused = wrong(HEAD);
        assert!(refused[0].starts_with("x.yaml:3:11: nothing is expected of this call"), "{refused:?}");
        assert!(wrong(&format!("{HEAD}    wire: {{}}\n    sent: {{}}\n"))[0].contains("nothing is expected"));
        assert!(wrong("title: a\nsteps: []\n")[0].contains("no steps"));
    }

    #[test]
    fn no_request_upstream_is_something_to_expect() {
        assert!(read("x.yaml", &format!("{HEAD}    sent: []\n")).is_ok());
    }

    #[test]
    fn every_problem_of_a_file_is_reported_in_one_go() {
        let reported = wrong(&format!(
            "{HEAD}    expect: {{ $.a: {{ gte: x }}, b: 1 }}\n    wire: {{ status: '${{nope}}' }}\n    sent: {{ count: 1, $.c: {{}} }}\n"
        ));
        let all = reported.join("\n");
        assert_eq!(reported.len(), 4, "{all}");
        for part in ["`gte` takes a number", "invalid JSONPath `b`", "unknown variable `nope`", "checks nothing"] {
            assert!(all.contains(part), "{part}: {all}");
        }
    }

    #[test]
    fn words_that_look_like_switches_are_no_booleans() {
        assert!(wrong(&format!("{HEAD}    wire: {{ done: yes }}\n"))[0].contains("strict mode expects true/false"));
    }

    #[test]
    fn brackets_within_braces_are_explained() {
        assert!(wrong(&format!("{HEAD}    expect: {{ $.a[0].b: 1 }}\n"))[0].contains("needs quotes within braces"));
    }

    #[test]
    fn settings_of_the_proxy_are_checked() {
        let wrong = wrong(&format!("config: |\n  [remot]\n  port = 1\n{HEAD}    expect: {{ $.a: 1 }}\n"));
        assert!(wrong[0].starts_with("x.yaml:2:3: config: "), "{wrong:?}");
    }

    #[test]
    fn a_captured_name_is_known_to_later_steps_alone() {
        let step = "  - call: models\n    expect: { $.a: 1 }\n    capture: { first: '$.data[0].id' }\n  - call: { model: '${first}' }\n    expect: { $.id: '${first}' }\n";
        assert!(read("x.yaml", &format!("title: a\nsteps:\n{step}")).is_ok());
        assert!(wrong(&format!("{HEAD}    expect: {{ $.a: '${{first}}' }}\n"))[0].contains("unknown variable `first`"));
    }

    #[test]
    fn what_a_value_is_compared_with_must_have_been_there_before() {
        let first = "  - { name: first, call: models, expect: { $.object: list } }\n";
        let scenario =
            |step: &str| format!("title: a\nsteps:\n{first}  - {step}\n  - {{ name: last, call: models, sent: [] }}\n");
        let same = |step: &str| format!("{{ same_as: {{ step: {step}, path: $.id }} }}");
        for at in [
            "expect: { $.id: HERE }",
            "model: { $.id: HERE }",
            "wire: { status: 200, body: { $.id: { not: HERE } } }",
            "sent: { $.id: HERE }",
        ] {
            let step = format!("{{ name: own, call: models, {at} }}");
            assert!(read("x.yaml", &scenario(&step.replace("HERE", &same("first")))).is_ok(), "{at}");
            for (step_named, reported) in [
                ("frist", "unknown step `frist`, expected one of first, last, own"),
                ("last", "the step `last` has not been done by then"),
                ("own", "the step `own` has not been done by then"),
            ] {
                let reported_instead = wrong(&scenario(&step.replace("HERE", &same(step_named))));
                assert!(
                    reported_instead[0].starts_with("x.yaml:4:") && reported_instead[0].contains(reported),
                    "{reported_instead:?}"
                );
            }
        }
        let twice = scenario(&format!(
            "{{ name: first, call: models, sent: [] }}\n  - {{ call: models, expect: {{ $.id: {} }} }}",
            same("first")
        ));
        assert!(wrong(&twice)[0].contains("is not the only one with this name"));
        for several in ["times: 2", "repeat: { times: 2 }"] {
            let several = scenario(&format!(
                "{{ name: many, call: models, {several}, expect: {{ $.a: 1 }} }}\n  - {{ call: models, expect: {{ $.id: {} }} }}",
                same("many")
            ));
            assert!(
                wrong(&several)[0].contains("x.yaml:5:31: in `same_as`: the step `many` makes several calls"),
                "{:?}",
                wrong(&several)
            );
        }
        assert!(
            wrong(&scenario("{ call: models, expect: { $.id: { same_as: id } } }"))[0]
                .contains("unknown variable `id`")
        );
    }

    #[test]
    fn several_calls_are_checked() {
        let step = |step: &str| format!("title: a\nsteps:\n  - {step}\n");
        let two = "parallel: [{ call: models }, { call: { http: { path: / } }, times: 3 }]";
        let scenario = read(
            "x.yaml",
            &step(&format!(
                "{{ {two}, answers: {{ 200: 3, 429: {{ count: 1, wire: {{ headers: {{ retry-after: '1' }} }} }} }} }}"
            )),
        )
        .unwrap();
        assert_eq!((scenario.steps[0].parts.len(), scenario.steps[0].calls()), (2, 4));
        for (written, reported) in [
            ("{ expect: { $.a: 1 } }", "x.yaml:3:5: a step has a `call`, or several in `parallel`"),
            (&*format!("{{ {two}, call: models, sent: [] }}"), "not both"),
            (&format!("{{ {two}, expect: {{ $.a: 1 }} }}"), "belong to each call in `parallel`"),
            ("{ parallel: [], sent: [] }", "has no calls"),
            (&format!("{{ {two} }}"), "nothing is expected"),
            ("{ call: models, answers: { 200: 1 } }", "x.yaml:3:30: answers are of several calls"),
            (&format!("{{ {two}, answers: {{ 200: 3, 429: 2 }} }}"), "there are 4 calls, but 5 answers"),
            (&format!("{{ {two}, answers: {{ 20: 4 }} }}"), "20 is not an HTTP status"),
            (&format!("{{ {two}, answers: {{ 200: {{ counts: 4 }} }} }}"), "unknown field `counts`"),
            (&format!("{{ {two}, answers: {{ 200: {{ wire: {{ status: 200 }} }} }} }}"), "given already"),
            (&format!("{{ {two}, answers: {{}} }}"), "names no status"),
            (&format!("{{ {two}, sent: [], capture: {{ a: $.b }} }}"), "no single answer to capture from"),
            ("{ call: models, times: 0, sent: [] }", "from 1 to 1000"),
            ("{ reload: '[auth', name: x }", "x.yaml:3:15: reload: "),
            ("{ reload: '' }", "nothing is done after this reload"),
            ("{ reload: '', sent: [] }", "a `reload` has no answer"),
            ("{ reload: '', call: models, sent: [] }", "a `call` or a `reload`"),
            ("{ call: models, times: 2, answers: { 200: { count: { gtee: 1 } } } }", "unknown matcher `gtee`"),
        ] {
            let reported_instead = wrong(&step(written));
            assert!(reported_instead[0].contains(reported), "{reported}: {reported_instead:?}");
        }
    }

    #[test]
    fn expectations_of_single_events_are_checked() {
        let step = |events: &str| format!("title: a\nsteps:\n  - call: models\n    events: {events}\n");
        for events in [
            "[{ type: a }, { at: -1, expect: { $.a: '${model}' } }, { in_order: [a, { event: b }] }]",
            "[{ where: { $.a: { gt: 1 } }, count: 0 }]",
            "\n      - { at: last, type: { one_of: [a, b] }, count: { lte: 2 } }",
        ] {
            assert!(read("x.yaml", &step(events)).is_ok(), "{events}");
        }
        for (events, reported) in [
            ("[]", "x.yaml:3:11: nothing is expected of this call"),
            ("{ type: a }", "x.yaml:4:13: "),
            (
                "[{}]",
                "x.yaml:4:14: an entry of `events` has type, event or where, at, count, expect; or in_order alone",
            ),
            (
                "[{ typ: a }]",
                "x.yaml:4:16: unknown field `typ`, expected one of type, event, where, at, count, expect, in_order",
            ),
            ("[{ at: middle }]", "`at` takes first, last, or a number"),
            ("[{ type: a, count: 0, expect: { $.a: 1 } }]", "x.yaml:4:32: of no events nothing can be expected"),
            ("[{ in_order: [a] }]", "x.yaml:4:26: an order is of two events or more"),
            ("[{ in_order: [a, {}] }]", "x.yaml:4:30: an event in an order has type, event or where"),
            ("[{ in_order: [a, { at: 1 }] }]", "unknown field `at`, expected one of type, event, where"),
            ("[{ in_order: [a, b], type: a }]", "`in_order` must be alone"),
            ("[{ type: '${nope}' }]", "x.yaml:4:22: unknown variable `nope`"),
            ("[{ in_order: [a, '${nope}'] }]", "x.yaml:4:30: unknown variable `nope`"),
            ("[{ where: { a: 1 } }]", "x.yaml:4:25: invalid JSONPath `a`"),
            ("[{ type: a, expect: { $.a: { nope: 1 } } }]", "x.yaml:4:35: unknown matcher `nope`"),
        ] {
            let reported_instead = wrong(&step(events)).remove(0);
            assert!(reported_instead.contains(reported), "{reported}: {reported_instead:?}");
        }
    }

    #[test]
    fn the_clients_settings_are_checked() {
        let step = |client: &str| format!("title: a\nclient: {client}\nsteps:\n  - {{ call: models, sent: [] }}\n");
        for client in ["{ key: blue-key, header: x-api-key, retries: default }", "{ key: false }", "{ retries: 2 }"] {
            assert!(read("x.yaml", &step(client)).is_ok(), "{client}");
        }
        for (client, reported) in [
            ("{ key: true }", "x.yaml:2:16: key takes a key, or false for none"),
            ("{ key: '' }", "false sends none"),
            ("{ key: '${nope}' }", "unknown variable `nope`"),
            ("{ key: a, header: 'a b' }", "not a header name"),
            ("{ key: false, header: x-api-key }", "no header to hold it"),
            ("{ retries: often }", "`often` is not a number of retries"),
            ("{ retries: 99 }", "up to 10"),
            ("{ retry: 1 }", "unknown field `retry`"),
        ] {
            let reported_instead = wrong(&step(client));
            assert!(reported_instead[0].contains(reported), "{reported}: {reported_instead:?}");
        }
        let raw = "title: a\nsteps:\n  - { call: { http: { path: / } }, client: { key: a }, sent: [] }\n";
        assert!(wrong(raw)[0].contains("a raw call has headers of its own"));
    }

    #[test]
    fn raw_calls_are_checked() {
        let call =
            |call: &str| format!("title: a\nsteps:\n  - call: {{ http: {call} }}\n    wire: {{ status: 200 }}\n");
        assert!(read("x.yaml", &call("{ path: /api/tags }")).is_ok());
        assert!(wrong(&call("{ path: api }"))[0].contains("does not begin with a slash"));
        for path in ["/a b", "/ü", "/a#b", "\"/a\\0\""] {
            assert!(wrong(&call(&format!("{{ path: {path} }}")))[0].contains("no request can have the path"), "{path}");
        }
        assert!(read("x.yaml", &call("{ path: '/a%20b/../:1?x=[${model}]&y=%2F' }")).is_ok());
        assert!(wrong(&call("{ path: /, method: 'a b' }"))[0].contains("not an HTTP method"));
        assert!(wrong(&call("{ path: /, headers: { 'a b': c } }"))[0].contains("not an HTTP header"));
        assert!(
            wrong(&call("{ path: /, verb: GET }"))[0].contains("unknown field `verb`, expected one of method, path")
        );
    }

    proptest! {
        #[test]
        fn no_text_makes_loading_panic(text in "\\PC{0,200}") {
            let _ = read("x.yaml", &text);
        }

        #[test]
        fn no_text_with_the_words_of_scenarios_makes_loading_panic(
            parts in prop::collection::vec(prop::sample::select(&[
                "title: a\n", "steps:\n", "  - call: models\n", "    expect: ", "{ $.a: 1 }\n", "    wire: { done: true }\n",
                "    sent: []\n", "    times: 3\n", "    answers: { 200: 3 }\n", "  - parallel: [{ call: models }]\n", "client: { key: false }\n", "upstream:\n", "  - when: { path: / }\n", "    reply: { status: 200 }\n", "config: |\n  a = 1\n",
                "&a ", "*a", "{", "}", "[", "]", ": ", "- ", "\n", "\t", "~", "!!str ", "<<: *a\n", "${model}", "${", "$[?(@.", "\u{feff}", "'", "\"",
                "matrix: { a: [1, 2] }\n", "matrix: { a: 1 }\n", "vars: { a: { env: HOME } }\n", "    repeat: { times: 2, pass: 3 }\n",
                "    within: 1s\n", "  - include: x\n", "    model: { $.a: 1 }\n", "setup:\n", "teardown:\n", "needs: [ollama>=1]\n", "${a}",
                "    expect: { $.a: { schema: { $ref: '#' } } }\n", "    time: { live: true }\n", "    events: [{ type: a, at: -1, count: 0 }, { in_order: [a, {}] }]\n",
                "  - name: a\n", "    name: b\n", "    expect: { $.a: { same_as: { step: a, path: $.b } } }\n", "    expect: { $.a: { same_as: a } }\n", "    times: 99999999999\n",
                "    call: { chat: { model: m } }\n", "    capture: { a: $.a }\n", "    expect: { $.a: { matches: '(' } }\n", "1e999", ".inf", "\0",
            ][..]), 0..24)
        ) {
            let _ = read("x.yaml", &parts.concat());
        }
    }
}
