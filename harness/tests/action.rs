//! `action.yml`: its steps are run as GitHub runs them, against a server that answers.
//!
//! GitHub gives expressions their values before a step begins, runs each `run` with bash, and reads what the step wrote
//! to the files that the environment names.

#![cfg(unix)]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use farllama::Config;
use mock_ollama::{Mock, Script};
use serde_json::Value;
use tempfile::TempDir;

const PASSES: &str = "title: models are listed\nsteps:\n  - call: models\n    expect: { $.object: list }\n";
const FAILS: &str = "title: there are none\nsteps:\n  - call: models\n    expect:\n      $.data: []\n";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn action() -> Value {
    serde_saphyr::from_str(&fs::read_to_string(root().join("action.yml")).unwrap()).unwrap()
}

/// What expressions may speak of.
struct Context(BTreeMap<String, String>);

impl Context {
    /// A text with the values of its expressions.
    fn expand(&self, text: &str) -> String {
        let mut out = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${{") {
            let (expression, after) = after.split_once("}}").unwrap();
            out += before;
            out += &self.value(expression);
            rest = after;
        }
        out + rest
    }

    /// `a`, `'text'`, `a == 'text'`, joined by `&&` and `||`: the last value that decides, as there.
    fn value(&self, expression: &str) -> String {
        let mut last = String::new();
        for or in expression.split("||") {
            for and in or.split("&&") {
                last = match and.split_once("==") {
                    Some((one, other)) if self.atom(one) == self.atom(other) => "true".to_owned(),
                    Some(_) => String::new(),
                    None => self.atom(and),
                };
                if last.is_empty() {
                    break;
                }
            }
            if !last.is_empty() {
                break;
            }
        }
        last
    }

    fn atom(&self, atom: &str) -> String {
        let atom = atom.trim();
        match atom.strip_prefix('\'').and_then(|text| text.strip_suffix('\'')) {
            Some(text) => text.to_owned(),
            None => self.0.get(atom).unwrap_or_else(|| panic!("nothing is known of {atom}")).clone(),
        }
    }
}

/// A job: its folders, and what its action was given.
struct Job {
    folder: TempDir,
    context: Context,
    /// Where programs are looked for first.
    path: Option<PathBuf>,
}

impl Job {
    /// With these inputs; the others are as the action has them.
    fn new(inputs: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (workspace, temp) = (folder.path().join("work space"), folder.path().join("temp"));
        fs::create_dir_all(workspace.join("scenarios")).unwrap();
        fs::create_dir_all(temp.join("farllama-check/bin")).unwrap();
        fs::write(workspace.join("scenarios/passes.yaml"), PASSES).unwrap();
        fs::write(workspace.join("scenarios/fails.yaml"), FAILS).unwrap();
        // As if it had been built before.
        fs::copy(env!("CARGO_BIN_EXE_farllama-check"), temp.join("farllama-check/bin/farllama-check")).unwrap();
        let mut known = BTreeMap::new();
        for (name, input) in action()["inputs"].as_object().unwrap() {
            known.insert(format!("inputs.{name}"), input["default"].as_str().unwrap().to_owned());
        }
        for (name, value) in inputs {
            let was = known.insert(format!("inputs.{name}"), (*value).to_owned());
            assert!(was.is_some(), "the action has no input {name}");
        }
        known.insert("runner.temp".to_owned(), temp.to_str().unwrap().to_owned());
        Self { folder, context: Context(known), path: None }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.file(name)).unwrap_or_default()
    }

    /// Runs the step with this name or id.
    fn step(&mut self, wanted: &str) -> Output {
        let action = action();
        let steps = action["runs"]["steps"].as_array().unwrap();
        let step = steps.iter().find(|step| step["name"] == wanted || step["id"] == wanted).unwrap();
        assert_eq!(step["shell"], "bash");
        let script = self.file("script.sh");
        fs::write(&script, step["run"].as_str().unwrap()).unwrap();
        let mut bash = Command::new("bash");
        bash.args(["--noprofile", "--norc", "-eo", "pipefail"]).arg(script).current_dir(self.file("work space"));
        bash.env_remove("CI").env("GITHUB_ACTIONS", "true").env("GITHUB_WORKSPACE", self.file("work space"));
        bash.env("GITHUB_ACTION_PATH", root()).env("RUNNER_TEMP", self.file("temp"));
        bash.env("GITHUB_OUTPUT", self.file("output")).env("GITHUB_STEP_SUMMARY", self.file("summary"));
        if let Some(first) = &self.path {
            bash.env("PATH", format!("{}:{}", first.display(), std::env::var("PATH").unwrap()));
        }
        for (name, value) in step["env"].as_object().into_iter().flatten() {
            bash.env(name, self.context.expand(value.as_str().unwrap()));
        }
        let output = bash.output().unwrap();
        if let Some(id) = step["id"].as_str() {
            for line in self.text("output").lines() {
                let (name, value) = line.split_once('=').unwrap();
                self.context.0.insert(format!("steps.{id}.outputs.{name}"), value.to_owned());
            }
        }
        output
    }

    /// An output of the action.
    fn output(&self, name: &str) -> String {
        self.context.expand(action()["outputs"][name]["value"].as_str().unwrap())
    }
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn all(output: &Output) -> String {
    stdout(output) + &String::from_utf8_lossy(&output.stderr)
}

/// An OpenAI-compatible server that wants a key, for as long as `check` works with its address.
fn with_server(check: impl FnOnce(&str)) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let (mock, proxy) = runtime.block_on(async {
        let mock = Mock::start(Script::default()).await.unwrap();
        let (host, port) = (mock.addr().ip(), mock.addr().port());
        let text = format!(
            "[local]\nport = 0\n[remote]\nhost = \"{host}\"\nport = {port}\n[auth]\nenabled = true\ntokens = [\"server-canary\"]\n"
        );
        let proxy = farllama::serve(Config::from_toml(&text).unwrap()).await.unwrap();
        (mock, proxy)
    });
    check(&format!("http://{}/v1", proxy.addr()));
    runtime.block_on(proxy.stop(std::time::Duration::ZERO));
    drop(mock);
}

#[test]
fn a_job_fails_with_annotations_a_summary_and_reports_where_the_server_is_not_fit() {
    with_server(|url| {
        let mut job = Job::new(&[("base-url", url), ("api-key", "server-canary"), ("scenarios", "scenarios")]);
        let ran = job.step("run");
        let reported = all(&ran);
        assert_eq!(ran.status.code(), Some(1), "{reported}");
        assert!(reported.contains("::error file=scenarios/fails.yaml,line=5,"), "{reported}");
        assert!(reported.contains("1 passed, 1 failed, 0 skipped"), "{reported}");
        let report: Value = serde_json::from_str(&fs::read_to_string(job.output("report")).unwrap()).unwrap();
        assert_eq!(report["summary"]["failed"], 1, "{report:#}");
        assert!(fs::read_to_string(job.output("junit")).unwrap().contains("<testsuites"));
        assert!(job.text("summary").contains("there are none"), "{}", job.text("summary"));
        let everything = [reported, report.to_string(), job.text("summary"), job.text("output")].concat();
        assert!(!everything.contains("server-canary"), "{everything}");
    });
}

#[test]
fn a_job_passes_where_the_server_is_fit_and_words_in_quotes_are_one() {
    with_server(|url| {
        let inputs =
            [("base-url", url), ("api-key", "server-canary"), ("scenarios", "scenarios/passes.yaml 'more of them'")];
        let mut job = Job::new(&[&inputs[..], &[("args", "--filter 'are listed' --quiet")]].concat());
        fs::create_dir(job.file("work space/more of them")).unwrap();
        fs::write(job.file("work space/more of them/also.yaml"), PASSES).unwrap();
        let ran = job.step("run");
        assert_eq!(ran.status.code(), Some(0), "{}", all(&ran));
        assert!(stdout(&ran).contains("2 passed, 0 failed, 0 skipped"), "{}", all(&ran));
    });
}

#[test]
fn without_scenarios_the_library_is_run() {
    let mut job = Job::new(&[("backend", "mock"), ("args", "--tag quick --dry-run")]);
    let ran = job.step("run");
    assert_eq!(ran.status.code(), Some(0), "{}", all(&ran));
    assert!(stdout(&ran).contains("would run on the built-in mock, 0 would be skipped"), "{}", all(&ran));
}

#[test]
fn a_job_that_names_no_server_fails() {
    let ran = Job::new(&[]).step("run");
    assert_eq!(ran.status.code(), Some(2), "{}", all(&ran));
    assert!(all(&ran).contains("--base-url"), "{}", all(&ran));
    let ran = Job::new(&[("remote-host", "http://127.0.0.1:9"), ("scenarios", "scenarios")]).step("run");
    assert_eq!(ran.status.code(), Some(2), "{}", all(&ran));
}

#[test]
fn what_inputs_say_is_never_carried_out() {
    let action = action();
    for step in action["runs"]["steps"].as_array().unwrap() {
        let run = step["run"].as_str().unwrap_or_default();
        assert!(!run.contains("${{"), "an input in the text of a script could be a script:\n{run}");
    }
    for hostile in ["$(touch here)", "`touch here`", "; touch here", "\"; touch here; \"", "' \n touch here", "*"] {
        let names = ["scenarios", "backend", "base-url", "remote-host", "image", "model", "api-key"];
        let everywhere = names.map(|name| (name, hostile));
        for inputs in [&everywhere[..], &[("backend", "mock"), ("args", hostile)]] {
            let mut job = Job::new(inputs);
            let ran = job.step("run");
            assert!(!job.file("work space/here").exists(), "{hostile}\n{}", all(&ran));
        }
    }
}

#[test]
fn an_input_that_cannot_be_used_fails_the_job() {
    for (name, value) in [("args", "--filter 'open"), ("backend", "nothing-such"), ("scenarios", "nowhere")] {
        let mut job = Job::new(&[("backend", "mock"), (name, value)]);
        let ran = job.step("run");
        assert!(!ran.status.success(), "{name}: {value}\n{}", all(&ran));
        assert!(!all(&ran).contains("passed"), "{name}: {value}\n{}", all(&ran));
    }
}

#[test]
fn it_is_built_from_its_own_sources_and_once_for_each_of_them() {
    let mut job = Job::new(&[]);
    let hash = |job: &mut Job| {
        let ran = job.step("sources");
        assert!(ran.status.success(), "{}", all(&ran));
        job.context.value("steps.sources.outputs.hash")
    };
    assert_eq!(hash(&mut job).len(), 40);
    assert_eq!(hash(&mut job), hash(&mut Job::new(&[])), "the same sources have the same name");
    // What is there is not built again; what is not, is.
    let fake = job.file("fake");
    fs::create_dir(&fake).unwrap();
    fs::write(fake.join("cargo"), "#!/bin/sh\nprintf '%s\\n' \"$@\" > \"$GITHUB_WORKSPACE/asked\"\n").unwrap();
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(fake.join("cargo"), executable).unwrap();
    job.path = Some(fake);
    assert!(job.step("Build farllama-check").status.success());
    assert_eq!(job.text("work space/asked"), "");
    fs::remove_dir_all(job.file("temp/farllama-check")).unwrap();
    assert!(job.step("Build farllama-check").status.success());
    let harness = root().join("harness");
    let into = job.file("temp/farllama-check");
    let wanted = ["install", "--locked", "--path", harness.to_str().unwrap(), "--root", into.to_str().unwrap()];
    assert_eq!(job.text("work space/asked").lines().collect::<Vec<_>>(), wanted);
}
