//! Finds scenario files, reads them, and tells what is wrong with them, pointing at file, line and column.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::{Call, Check, Http, MockSettings, Place, Scenario, Sent, Step, variables::Variables, versions};
use crate::expect::{matcher::Matcher, path};

/// A scenario and where it came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The file as it was given or found.
    pub file: String,
    /// What it says.
    pub scenario: Scenario,
}

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
    } else if named || path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") {
        files.push(path.to_owned());
    }
    Ok(())
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
            Ok(text) => match read(&file, &text) {
                Ok(scenario) => loaded.push(Loaded { file, scenario }),
                Err(wrong) => problems.extend(wrong),
            },
            Err(error) => {
                problems.push(Problem { file, at: None, message: format!("cannot be read: {error}"), line: None });
            }
        }
    }
    if problems.is_empty() { Ok(loaded) } else { Err(problems) }
}

/// Reads the text of one file.
///
/// # Errors
/// The first thing that is wrong with its YAML or shape, or else everything that is wrong with its meaning.
pub fn read(file: &str, text: &str) -> Result<Scenario, Vec<Problem>> {
    let problem = |at: Option<Place>, message: String| Problem {
        file: file.to_owned(),
        at,
        message,
        line: at.and_then(|at| text.lines().nth(usize::try_from(at.line).ok()?.checked_sub(1)?)).map(str::to_owned),
    };
    let options = serde_saphyr::options! { strict_booleans: true };
    let scenario: Scenario = serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let error = error.without_snippet();
        let at = error.location().map(Place::from).filter(|at| at.line > 0);
        let mut message = error.to_string();
        if let Some(at) = at {
            // It is told in front.
            let tail = format!(" at line {}, column {}", at.line, at.column);
            message = message.strip_suffix(&tail).map(str::to_owned).unwrap_or(message);
        }
        let mut wrong = problem(at, message);
        if wrong.message.contains("flow mapping") && wrong.line.as_ref().is_some_and(|line| line.contains('[')) {
            wrong.message.push_str(" (a key with brackets, such as $.choices[0], needs quotes within braces)");
        }
        vec![wrong]
    })?;
    let mut reader = Reader { wrong: Vec::new(), variables: Variables::new("model", "prompt", "system prompt") };
    reader.scenario(&scenario);
    if reader.wrong.is_empty() {
        return Ok(scenario);
    }
    Err(reader.wrong.into_iter().map(|(at, message)| problem(Some(at), message)).collect())
}

/// Looks for what is wrong with the meaning.
struct Reader {
    wrong: Vec<(Place, String)>,
    /// What may be named so far.
    variables: Variables,
}

impl Reader {
    fn wrong(&mut self, at: Place, message: impl Into<String>) {
        self.wrong.push((at, message.into()));
    }

    fn scenario(&mut self, scenario: &Scenario) {
        let title = Place::from(&scenario.title);
        if scenario.title.value.trim().is_empty() {
            self.wrong(title, "the title is empty; tell in one sentence what a user can rely on");
        }
        if scenario.steps.is_empty() {
            self.wrong(title, "there are no steps, so nothing is checked");
        }
        if let Some(config) = &scenario.config
            && let Err(error) = farllama::Config::from_toml(&config.value)
        {
            self.wrong(config.into(), format!("config: {error}"));
        }
        if let Some(mock) = &scenario.mock {
            self.mock(mock);
        }
        for step in &scenario.steps {
            self.step(step);
        }
    }

    fn mock(&mut self, mock: &MockSettings) {
        for (name, version) in [("version", &mock.version), ("from", &mock.from), ("before", &mock.before)] {
            if let Some(version) = version
                && let Err(error) = version.value.parse::<mock_ollama::Version>()
            {
                return self.wrong(version.into(), format!("mock.{name}: {error}"));
            }
        }
        let usual = mock.version.as_ref().and_then(|version| version.value.parse().ok()).unwrap_or_default();
        if let Some(bound) = mock.from.as_ref().or(mock.before.as_ref())
            && !versions::covers(Some(mock), &usual)
        {
            self.wrong(
                bound.into(),
                format!("{usual} lies outside; name a mock.version between mock.from and mock.before"),
            );
        }
    }

    fn step(&mut self, step: &Step) {
        let at = Place::from(&step.call);
        if step.expect.0.is_empty() && step.wire.is_empty() && step.sent.as_ref().is_none_or(Sent::is_empty) {
            self.wrong(at, "nothing is expected of this call; add expect, wire or sent");
        }
        match self.variables.call(&step.call.value) {
            Err(unknown) => self.wrong(at, unknown),
            Ok(Call::Http(http)) => self.http(at, &http),
            Ok(Call::Chat(request)) if !request.is_object() => self.wrong(at, "chat takes the request as a mapping"),
            Ok(_) => {}
        }
        for check in &step.expect.0 {
            self.path(check);
        }
        let wire = &step.wire;
        for check in &wire.body.0 {
            self.path(check);
        }
        for check in &wire.headers.0 {
            self.header(check);
        }
        for spanned in [&wire.status, &wire.content_type, &wire.frames, &wire.text, &wire.end].into_iter().flatten() {
            self.matcher(spanned.into(), &spanned.value);
        }
        for ask in step.sent.iter().flat_map(Sent::asks) {
            for check in &ask.body.0 {
                self.path(check);
            }
            for check in &ask.headers.0 {
                self.header(check);
            }
            for check in [&ask.method, &ask.path, &ask.text, &ask.ended, &ask.count].into_iter().flatten() {
                self.matcher(check.at, &check.expected);
            }
        }
        if let Some(Sent::Each(asks)) = &step.sent {
            for count in asks.iter().filter_map(|ask| ask.count.as_ref()) {
                self.wrong(count.at, "a list of requests says by itself how many there are; leave out count");
            }
        }
        for check in &step.capture.0 {
            match check.expected.as_str() {
                None => self.wrong(check.at, "capture takes a name and a JSONPath"),
                Some(wanted) => {
                    if let Err(wrong) = path::check(wanted) {
                        self.wrong(check.at, wrong);
                    }
                }
            }
            self.variables.set(&check.key, Value::from("1"));
        }
    }

    fn http(&mut self, at: Place, http: &Http) {
        if !http.path.starts_with('/') {
            self.wrong(at, format!("the path {:?} does not begin with a slash", http.path));
        }
        if let Some(method) = &http.method
            && reqwest::Method::from_bytes(method.as_bytes()).is_err()
        {
            self.wrong(at, format!("{method:?} is no HTTP method"));
        }
        for (name, value) in &http.headers {
            if http::HeaderName::try_from(name).is_err() || http::HeaderValue::try_from(value).is_err() {
                self.wrong(at, format!("{name:?}: {value:?} is no HTTP header"));
            }
        }
    }

    fn path(&mut self, check: &Check) {
        if let Err(wrong) = path::check(&check.key) {
            self.wrong(check.at, wrong);
        }
        self.matcher(check.at, &check.expected);
    }

    fn header(&mut self, check: &Check) {
        if http::HeaderName::try_from(&check.key).is_err() {
            self.wrong(check.at, format!("{:?} is no header name", check.key));
        }
        self.matcher(check.at, &check.expected);
    }

    fn matcher(&mut self, at: Place, written: &Value) {
        if let Err(wrong) = self.variables.value(written).and_then(|value| Matcher::parse(&value)) {
            self.wrong(at, wrong);
        }
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
        assert_eq!(scenario.steps[0].expect.0[0].key, "$.object");
        assert_eq!(scenario.steps[0].expect.0[0].at, Place { line: 4, column: 15 });
    }

    #[test]
    fn an_unknown_key_is_pointed_at_with_the_known_ones() {
        assert_eq!(
            wrong("title: a\nstep: []\n"),
            [
                "x.yaml:2:1: unknown field `step`, expected one of title, tags, needs, mock, upstream, config, steps\n  |\n2 | step: []\n  | ^"
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
    fn every_problem_of_a_file_is_told_in_one_go() {
        let told = wrong(&format!(
            "{HEAD}    expect: {{ $.a: {{ gte: x }}, b: 1 }}\n    wire: {{ status: '${{nope}}' }}\n    sent: {{ count: 1, $.c: {{}} }}\n"
        ));
        let all = told.join("\n");
        assert_eq!(told.len(), 4, "{all}");
        for part in ["`gte` takes a number", "`b` is no JSONPath", "unknown variable `nope`", "checks nothing"] {
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
    fn raw_calls_are_checked() {
        let call =
            |call: &str| format!("title: a\nsteps:\n  - call: {{ http: {call} }}\n    wire: {{ status: 200 }}\n");
        assert!(read("x.yaml", &call("{ path: /api/tags }")).is_ok());
        assert!(wrong(&call("{ path: api }"))[0].contains("does not begin with a slash"));
        assert!(wrong(&call("{ path: /, method: 'a b' }"))[0].contains("no HTTP method"));
        assert!(wrong(&call("{ path: /, headers: { 'a b': c } }"))[0].contains("no HTTP header"));
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
                "    sent: []\n", "upstream:\n", "  - when: { path: / }\n", "    reply: { status: 200 }\n", "config: |\n  a = 1\n",
                "&a ", "*a", "{", "}", "[", "]", ": ", "- ", "\n", "\t", "~", "!!str ", "<<: *a\n", "${model}", "${", "$[?(@.", "\u{feff}", "'", "\"",
                "    call: { chat: { model: m } }\n", "    capture: { a: $.a }\n", "    expect: { $.a: { matches: '(' } }\n", "1e999", ".inf", "\0",
            ][..]), 0..24)
        ) {
            let _ = read("x.yaml", &parts.concat());
        }
    }
}
