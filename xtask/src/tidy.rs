//! The rules of this repository that no compiler checks. Each reads like the sentence that it enforces, and has a test
//! that shows it can fail.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A file's path from the root, and its text.
type File = (String, String);

/// Checks every rule.
///
/// # Errors
/// What breaks which rule, a line each.
pub(crate) fn run(root: &Path) -> Result<(), String> {
    let files = files(root)?;
    let mut broken = Vec::new();
    for (rule, check) in RULES {
        broken.extend(check(&files).into_iter().map(|what| format!("{rule}: {what}")));
    }
    if broken.is_empty() {
        println!("  {} rules hold for {} files", RULES.len(), files.len());
        return Ok(());
    }
    Err(format!("{} findings\n  {}", broken.len(), broken.join("\n  ")))
}

type Rule = (&'static str, fn(&[File]) -> Vec<String>);

const RULES: &[Rule] = &[
    ("pure files know no IO, clock or dice", pure_files_are_pure),
    ("error bodies are made in one place", error_bodies_are_made_in_one_place),
    ("settings match their example", settings_match_their_example),
    ("every route has a vector and a scenario", every_route_has_a_vector_and_a_scenario),
    ("every parameter has a scenario", every_parameter_has_a_scenario),
    ("every promise names its scenarios", every_promise_names_its_scenarios),
    ("the threat model names what exists", the_threat_model_names_what_exists),
    ("every module says what it is for", every_module_says_what_it_is_for),
    ("no test is ignored", no_test_is_ignored),
    ("every test file is run", every_test_file_is_run),
    ("every dependency is used", every_dependency_is_used),
    ("texts name who acts", texts_name_who_acts),
    ("lines fit into 120 columns", lines_fit),
    ("the repository speaks of the product alone", no_foreign_paths),
];

/// Text files that are ours, without what is built.
fn files(root: &Path) -> Result<Vec<File>, String> {
    let mut files = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))? {
            let path = entry.map_err(|error| error.to_string())?.path();
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            // In a worktree of git's, `.git` is a file.
            if matches!(&*name, "target" | ".git") {
                continue;
            }
            // A link shows a file of the repository at a second place (`harness/data/`).
            if path.is_symlink() {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(text) = fs::read_to_string(&path) {
                files.push((relative(root, &path), text));
            }
        }
    }
    files.sort();
    Ok(files)
}

fn relative(root: &Path, path: &Path) -> String {
    let path: PathBuf = path.strip_prefix(root).unwrap_or(path).components().collect();
    path.to_string_lossy().replace('\\', "/")
}

/// What stands before the tests of a file.
fn code(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests").next().unwrap_or(text)
}

fn rust(files: &[File]) -> impl Iterator<Item = &File> {
    files.iter().filter(|(path, _)| path.ends_with(".rs"))
}

/// Line numbers, from 1, of the lines that `is` is true of.
fn lines<'a>(text: &'a str, is: impl Fn(&str) -> bool + 'a) -> impl Iterator<Item = usize> + 'a {
    text.lines().enumerate().filter(move |(_, line)| is(line)).map(|(n, _)| n + 1)
}

fn pure_files_are_pure(files: &[File]) -> Vec<String> {
    const IMPURE: [&str; 13] = [
        "async ",
        "tokio",
        "std::io",
        "std::fs",
        "std::net",
        "std::env",
        "std::process",
        "std::thread",
        "SystemTime",
        "Instant",
        "::now(",
        "uuid::",
        "rand::",
    ];
    let pure = |path: &str| {
        path.starts_with("proxy/src/")
            && ["/wire.rs", "/translate.rs", "/stream.rs"].iter().any(|name| path.ends_with(name))
    };
    rust(files)
        .filter(|(path, _)| pure(path))
        .flat_map(|(path, text)| {
            let impure =
                |line: &str| !line.trim_start().starts_with("//") && IMPURE.iter().any(|word| line.contains(word));
            lines(code(text), impure).map(move |line| format!("{path}:{line}"))
        })
        .collect()
}

fn error_bodies_are_made_in_one_place(files: &[File]) -> Vec<String> {
    rust(files)
        .filter(|(path, _)| {
            path.starts_with("proxy/src/") && path != "proxy/src/error.rs" && !path.ends_with("/vectors.rs")
        })
        .flat_map(|(path, text)| {
            let makes = |line: &str| {
                let line = line.replace(' ', "");
                // A test for such a body makes none.
                let reads = line.contains("starts_with(b\"{\\\"error\\\"");
                !line.starts_with("//") && !reads && (line.contains("{\"error\"") || line.contains("{\\\"error\\\""))
            };
            lines(code(text), makes).map(move |line| format!("{path}:{line}"))
        })
        .collect()
}

fn settings_match_their_example(files: &[File]) -> Vec<String> {
    let text = |path: &str| files.iter().find(|(known, _)| known == path).map_or("", |(_, text)| text);
    let example = text("proxy/config.example.toml");
    // A row is a call such as `flag("local.public", …)`, on one line or several: the key is its first argument.
    let known: Vec<&str> = text("proxy/src/config/settings.rs")
        .split_once("pub const SETTINGS")
        .map_or("", |(_, rows)| rows)
        .lines()
        .filter_map(|line| {
            let (call, rest) = line.trim().split_once('"')?;
            let name = call.strip_suffix('(').unwrap_or(call);
            let row = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
            let (key, after) = rest.split_once('"')?;
            let plain = key.bytes().all(|byte| byte.is_ascii_lowercase() || matches!(byte, b'_' | b'.'));
            (row && plain && after.starts_with(',')).then_some(key)
        })
        .collect();
    let mut table = String::new();
    let mut shown = Vec::new();
    for line in example.lines() {
        if line.trim_start_matches("# ").starts_with("[[") {
            // The fields of an entry are not settings of their own.
            table = "[[".to_owned();
        } else if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            table = format!("{name}.");
        } else if table == "[[" {
            continue;
        } else if let Some((name, _)) = line.trim_start_matches("# ").split_once(" = ") {
            let plain = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
            shown.extend(plain.then(|| format!("{table}{name}")));
        }
    }
    let missing = known.iter().filter(|key| !shown.iter().any(|shown| shown == *key));
    let unknown = shown.iter().filter(|shown| !known.contains(&shown.as_str()));
    let mut wrong: Vec<String> = missing.map(|key| format!("{key} is not in config.example.toml")).collect();
    wrong.extend(unknown.map(|key| format!("config.example.toml has {key}, which is no setting")));
    if known.is_empty() {
        wrong.push("no settings found in proxy/src/config/settings.rs".to_owned());
    }
    wrong
}

fn every_route_has_a_vector_and_a_scenario(files: &[File]) -> Vec<String> {
    const TABLE: &str = "proxy/src/routes.rs";
    let Some((_, routes)) = files.iter().find(|(path, _)| path == TABLE) else {
        return vec![format!("{TABLE} is missing")];
    };
    let mut wrong = Vec::new();
    let mut endpoints = Vec::new();
    // Rows that have a handler: the others pass through.
    let rows = code(routes).split("    row(").skip(1).filter(|row| row.contains(".handler("));
    for route in rows.filter_map(|row| row.split_once("\"{base}/")?.1.split('"').next()) {
        let first = route.split('/').next().unwrap_or_default();
        if !endpoints.contains(&first) {
            endpoints.push(first);
        }
    }
    if endpoints.is_empty() {
        wrong.push(format!("no routes found in {TABLE}"));
    }
    for endpoint in endpoints {
        let vectors = format!("proxy/vectors/{endpoint}/");
        if !files.iter().any(|(path, _)| path.starts_with(&vectors)) {
            wrong.push(format!("/v1/{endpoint} has no vector in {vectors}"));
        }
        let scenario = |(path, text): &File| {
            path.starts_with("scenarios/")
                && (text.contains(&format!("call: {{ {endpoint}"))
                    || text.contains(&format!("{endpoint}:"))
                    || text.contains(&format!("/v1/{endpoint}")))
        };
        if !files.iter().any(scenario) {
            wrong.push(format!("/v1/{endpoint} has no scenario"));
        }
    }
    wrong
}

/// Whether `word` stands in `text`, and not within another word.
fn has_word(text: &str, word: &str) -> bool {
    let part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| !text[..at].ends_with(part) && !text[at + word.len()..].starts_with(part))
}

/// At a glance; that a scenario fails without the parameter is for `cargo xtask mutate` to prove.
fn every_parameter_has_a_scenario(files: &[File]) -> Vec<String> {
    let Some((_, table)) = files.iter().find(|(path, _)| path == "docs/parameters.md") else {
        return vec!["docs/parameters.md is missing".to_owned()];
    };
    let (mut endpoint, mut fields, mut wrong) = ("", 0, Vec::new());
    for line in table.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            endpoint = heading.split(' ').next_back().unwrap_or_default();
        }
        let Some(field) = line.strip_prefix("| `").and_then(|row| row.split('`').next()) else { continue };
        fields += 1;
        // A typed call names the endpoint by its first word: `chat: { … }`.
        let call = endpoint.trim_start_matches("/v1/").split('/').next().unwrap_or_default();
        let asks = |text: &str| has_word(text, &format!("{call}:")) || text.contains(&format!("path: {endpoint}"));
        let name = field.rsplit('.').next().unwrap_or(field);
        if !files.iter().any(|(path, text)| path.starts_with("scenarios/") && asks(text) && has_word(text, name)) {
            wrong.push(format!("{endpoint}: no scenario has `{field}`"));
        }
    }
    if fields == 0 {
        wrong.push("no parameters found in docs/parameters.md".to_owned());
    }
    wrong
}

fn every_promise_names_its_scenarios(files: &[File]) -> Vec<String> {
    let readme = files.iter().find(|(path, _)| path == "README.md").map_or("", |(_, text)| text);
    let promised = readme.split("\n## What is promised\n").nth(1).and_then(|rest| rest.split("\n## ").next());
    let promises: Vec<&str> = promised.unwrap_or_default().split("\n- ").skip(1).collect();
    let mut wrong = Vec::new();
    for promise in &promises {
        let name = promise.split("**").nth(1).unwrap_or(promise).trim();
        let links: Vec<&str> =
            promise.split("](scenarios/").skip(1).filter_map(|rest| rest.split(')').next()).collect();
        if links.is_empty() {
            wrong.push(format!("README.md: {name:?} links to no scenarios"));
        }
        for link in links {
            let path = format!("scenarios/{link}");
            if !files.iter().any(|(known, _)| known.starts_with(&path) && known.ends_with(".yaml")) {
                wrong.push(format!("README.md: there are no scenarios at {path}"));
            }
        }
    }
    if promises.is_empty() {
        wrong.push("README.md has no promises under `## What is promised`".to_owned());
    }
    wrong
}

/// In SECURITY.md, `path` is a file, and `path::name` a test in it.
fn the_threat_model_names_what_exists(files: &[File]) -> Vec<String> {
    let text = files.iter().find(|(path, _)| path == "SECURITY.md").map_or("", |(_, text)| text);
    let named = text.split('`').skip(1).step_by(2).filter(|name| {
        let path = name.split("::").next().unwrap_or(name);
        path.contains('/') && (path.ends_with(".rs") || path.ends_with(".yaml"))
    });
    let mut wrong = Vec::new();
    let mut tests = 0;
    for name in named {
        let (path, test) = name.split_once("::").unwrap_or((name, ""));
        tests += usize::from(!test.is_empty());
        match files.iter().find(|(known, _)| known == path) {
            None => wrong.push(format!("SECURITY.md: there is no {path}")),
            Some((_, text)) if !test.is_empty() && !text.contains(&format!("fn {test}(")) => {
                wrong.push(format!("SECURITY.md: {path} has no test {test}"));
            }
            Some(_) => {}
        }
    }
    if tests == 0 {
        wrong.push("SECURITY.md names no test".to_owned());
    }
    wrong
}

fn every_module_says_what_it_is_for(files: &[File]) -> Vec<String> {
    let silent = |(path, text): &&File| path.contains("/src/") && !text.starts_with("//!");
    rust(files).filter(silent).map(|(path, _)| path.clone()).collect()
}

fn no_test_is_ignored(files: &[File]) -> Vec<String> {
    // Put together, so that this line is not one.
    let ignored = concat!("#[", "ignore");
    rust(files)
        .flat_map(|(path, text)| {
            lines(text, move |line| line.trim_start().starts_with(ignored)).map(move |line| format!("{path}:{line}"))
        })
        .collect()
}

/// With `autotests = false`, a file is run only if its manifest or `all.rs` beside it names it.
fn every_test_file_is_run(files: &[File]) -> Vec<String> {
    let text = |path: String| files.iter().find(|(known, _)| *known == path).map_or("", |(_, text)| text);
    rust(files)
        .filter_map(|(path, _)| {
            let (package, name) = path.split_once("/tests/")?;
            let name = name.strip_suffix(".rs").filter(|name| !name.contains('/'))?;
            let manifest = text(format!("{package}/Cargo.toml"));
            let known = !manifest.contains("autotests = false")
                || manifest.contains(&format!("[[test]]\nname = \"{name}\"\n"))
                || lines(text(format!("{package}/tests/all.rs")), |line| line == format!("mod {name};"))
                    .next()
                    .is_some();
            (!known).then(|| path.clone())
        })
        .collect()
}

fn every_dependency_is_used(files: &[File]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (path, manifest) in files.iter().filter(|(path, _)| path.ends_with("Cargo.toml") && path.contains('/')) {
        let folder = path.trim_end_matches("Cargo.toml");
        let mut section = "";
        for line in manifest.lines() {
            if line.starts_with('[') {
                section = line.trim_matches(['[', ']']);
                continue;
            }
            let Some(name) = line.split(['.', ' ', '=']).next().filter(|_| section.ends_with("dependencies")) else {
                continue;
            };
            if name.is_empty() || name.starts_with('#') {
                continue;
            }
            let word = name.replace('-', "_");
            let is_dev = section.ends_with("dev-dependencies");
            let is_own = |path: &str| {
                // The fuzz targets are a package of their own.
                let inner = path.strip_prefix(folder).filter(|inner| !inner.starts_with("fuzz/"));
                inner.is_some_and(|inner| is_dev || inner.starts_with("src/") || folder.contains("fuzz"))
            };
            if !rust(files).any(|(path, text)| is_own(path) && has_word(text, &word)) {
                wrong.push(format!("{path}: {name}"));
            }
        }
    }
    wrong
}

/// Words that hide the actor or the act. "report", "return", "log", "caller", "client" and "remote" say it.
const RIDDLES: [&str; 10] = [
    "whoever",
    "nobody",
    "anybody",
    "everybody",
    "somebody",
    "told",
    "tells",
    "cannot be had",
    "is no more",
    "no more of it",
];

/// Whether a text has one of the words that no user should have to puzzle over. Names in braces are code.
fn is_riddle(text: &str) -> bool {
    let mut plain = text.to_lowercase();
    while let Some(open) = plain.find('{') {
        let close = plain[open..].find('}').map_or(plain.len(), |at| open + at + 1);
        plain.replace_range(open..close, "");
    }
    RIDDLES.iter().any(|riddle| has_word(&plain, riddle))
}

/// Strings of the programs, comments, the documentation, the example of settings, and the titles of scenarios and of
/// the foreign clients' checks.
fn texts_name_who_acts(files: &[File]) -> Vec<String> {
    let sources = ["proxy/src/", "harness/src/", "mock-ollama/src/", "http1-client/src/"];
    let of_programs = rust(files)
        // What a model says is no text of ours.
        .filter(|(path, _)| sources.iter().any(|folder| path.starts_with(folder)) && !path.ends_with("/words.rs"))
        .flat_map(|(path, text)| {
            let riddle = |line: &str| {
                let line = line.trim_start();
                // What stands between quotes.
                let mut texts = line.split('"').skip(1).step_by(2);
                !line.starts_with("//") && texts.any(is_riddle)
            };
            lines(code(text), riddle).map(move |line| format!("{path}:{line}"))
        });
    let of_comments = rust(files).flat_map(|(path, text)| {
        // Help texts are comments, too.
        let riddle = |line: &str| line.trim_start().starts_with("//") && is_riddle(line);
        lines(text, riddle).map(move |line| format!("{path}:{line}"))
    });
    let of_witnesses =
        files.iter().filter(|(path, _)| path.starts_with("xtask/witnesses/")).flat_map(|(path, text)| {
            let riddle = |line: &str| line.trim_start_matches('@').starts_with("check") && is_riddle(line);
            lines(text, riddle).map(move |line| format!("{path}:{line}"))
        });
    let is_page = |path: &str| {
        let folders =
            ["docs/", "scenarios/README.md", "README.md", "CONTRIBUTING.md", "SECURITY.md", "ARCHITECTURE.md"];
        folders.iter().any(|start| path.starts_with(start)) && path.ends_with(".md")
    };
    let of_pages = files
        .iter()
        .filter(move |(path, _)| is_page(path) || path == "proxy/config.example.toml")
        .flat_map(|(path, text)| lines(text, is_riddle).map(move |line| format!("{path}:{line}")));
    let of_scenarios = files
        .iter()
        .filter(|(path, _)| path.starts_with("scenarios/") && path.ends_with(".yaml"))
        .flat_map(|(path, text)| {
            let riddle = |line: &str| line.starts_with("title:") && is_riddle(line);
            lines(text, riddle).map(move |line| format!("{path}:{line}"))
        });
    of_programs.chain(of_comments).chain(of_witnesses).chain(of_pages).chain(of_scenarios).collect()
}

/// Prose of pages and comments of code; rustfmt and the other formatters are for the code itself. A line that cannot be
/// broken (a URL, a table) may be longer.
fn lines_fit(files: &[File]) -> Vec<String> {
    const WIDTH: usize = 120;
    let is_long = |line: &str| line.chars().count() > WIDTH;
    let mut wrong = Vec::new();
    for (path, text) in files {
        let is_generated = ["mock-ollama/fixtures/", "proxy/vectors/", "docs/parameters.md", "CHANGELOG.md"]
            .iter()
            .any(|folder| path.starts_with(folder));
        let comment = match path.rsplit('.').next() {
            _ if is_generated => continue,
            Some("rs") => "//",
            Some("toml") => "#",
            Some("md") => "",
            _ => continue,
        };
        let mut in_block = false;
        for (n, line) in text.lines().enumerate() {
            let inner = line.trim_start();
            in_block ^= inner.trim_start_matches(['/', '!', ' ']).starts_with("```");
            let is_table = inner.trim_start_matches(['/', '!', ' ']).starts_with('|');
            let unbroken = inner.trim_start_matches(['/', '!', '#', ' ', '-', '|']);
            let can_break = unbroken.chars().take(WIDTH / 2).any(char::is_whitespace);
            if is_long(line) && inner.starts_with(comment) && !is_table && can_break && !in_block {
                wrong.push(format!("{path}:{}", n + 1));
            }
        }
    }
    wrong
}

fn no_foreign_paths(files: &[File]) -> Vec<String> {
    // Put together, so that these lines are none.
    let words = [
        concat!("/ro", "ot/"),
        concat!("/wo", "rk/"),
        concat!("/ho", "me/"),
        concat!("/tm", "p/t-"),
        concat!("index.crates", ".io"),
        concat!("pypi", ".org"),
        concat!("registry.npm", "js"),
        // Where npm found a package: a lock file without it holds for every registry.
        concat!("\"resol", "ved\": \"http"),
    ];
    files
        .iter()
        .filter(|(path, _)| !path.ends_with(".lock"))
        .flat_map(|(path, text)| {
            lines(text, move |line| words.iter().any(|word| line.contains(word)))
                .map(move |line| format!("{path}:{line}"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> File {
        (path.to_owned(), text.to_owned())
    }

    #[test]
    fn a_clock_in_a_pure_file_is_found() {
        let wrong = file("proxy/src/openai/chat/stream.rs", "//! x\nuse std::time::Instant;\n");
        assert_eq!(pure_files_are_pure(&[wrong]), ["proxy/src/openai/chat/stream.rs:2"]);
        let tested = file("proxy/src/openai/chat/wire.rs", "//! x\n#[cfg(test)]\nmod tests { use tokio; }");
        assert!(pure_files_are_pure(&[tested]).is_empty());
    }

    #[test]
    fn a_second_place_that_makes_error_bodies_is_found() {
        let wrong = file("proxy/src/app.rs", "//! x\nlet body = json!({ \"error\": 1 });\n");
        assert_eq!(error_bodies_are_made_in_one_place(&[wrong]), ["proxy/src/app.rs:2"]);
    }

    #[test]
    fn a_setting_without_example_and_an_example_without_setting_are_found() {
        let settings = file(
            "proxy/src/config/settings.rs",
            "pub const SETTINGS: &[Setting] = &[\n    flag(\"a.b\", \"On\", |c| &mut c.b),\n    other(\n        \"a.c\",\n        \"FILE\",\n        \"A file\",\n    ),\n];\n",
        );
        let example = file("proxy/config.example.toml", "[a]\nb = 1\n# d = 2\n# [[e]]\n# f = 3\n");
        let wrong = settings_match_their_example(&[settings, example]);
        assert_eq!(wrong, ["a.c is not in config.example.toml", "config.example.toml has a.d, which is no setting"]);
        assert!(!settings_match_their_example(&[]).is_empty());
    }

    #[test]
    fn a_route_without_vector_or_scenario_is_found() {
        let routes = file(
            "proxy/src/routes.rs",
            "    row(\n        Post,\n        \"{base}/chat/completions\",\n    )\n    .handler(h),\n    row(Any, \"{base}/messages\"),\n",
        );
        let vector = file("proxy/vectors/chat/a/client.json", "{}");
        assert_eq!(every_route_has_a_vector_and_a_scenario(&[routes.clone(), vector]), ["/v1/chat has no scenario"]);
        assert_eq!(every_route_has_a_vector_and_a_scenario(&[routes]).len(), 2);
    }

    #[test]
    fn a_parameter_without_a_scenario_is_found() {
        let table = file(
            "docs/parameters.md",
            "## POST /v1/chat/completions\n\n| `seed` | mapped | x |\n| `stop` | mapped | x |\n",
        );
        let scenario = file("scenarios/a.yaml", "call: { chat: { seed: 1, stopped: 2 } }");
        let other = file("scenarios/b.yaml", "call: { completions: { stop: 1 } }");
        let wrong = every_parameter_has_a_scenario(&[table, scenario, other]);
        assert_eq!(wrong, ["/v1/chat/completions: no scenario has `stop`"]);
        assert!(!every_parameter_has_a_scenario(&[]).is_empty());
    }

    #[test]
    fn a_promise_without_scenarios_is_found() {
        let readme = file(
            "README.md",
            "x\n## What is promised\n\n- **A.** See [a](scenarios/a).\n- **B.** Yes.\n- **C.** [c](scenarios/c).\n\n## More\n- no promise\n",
        );
        let wrong = every_promise_names_its_scenarios(&[readme, file("scenarios/a/x.yaml", "")]);
        assert_eq!(
            wrong,
            ["README.md: \"B.\" links to no scenarios", "README.md: there are no scenarios at scenarios/c"]
        );
        assert!(!every_promise_names_its_scenarios(&[]).is_empty());
    }

    #[test]
    fn a_test_that_the_threat_model_invents_is_found() {
        let model =
            file("SECURITY.md", "| x | `a/b.rs`, `a/c.rs` | `a/b.rs::holds`, `a/b.rs::breaks`, `limits.head` |");
        let wrong = the_threat_model_names_what_exists(&[model, file("a/b.rs", "fn holds() {}")]);
        assert_eq!(wrong, ["SECURITY.md: there is no a/c.rs", "SECURITY.md: a/b.rs has no test breaks"]);
        assert!(!the_threat_model_names_what_exists(&[]).is_empty());
    }

    #[test]
    fn a_silent_module_is_found() {
        assert_eq!(every_module_says_what_it_is_for(&[file("proxy/src/x.rs", "use y;")]), ["proxy/src/x.rs"]);
    }

    #[test]
    fn a_test_file_that_no_program_contains_is_found() {
        let manifest =
            file("a/Cargo.toml", "autotests = false\n[[test]]\nname = \"all\"\n\n[[test]]\nname = \"own\"\n");
        let mut files = vec![
            manifest,
            file("a/tests/all.rs", "mod known;\n"),
            file("a/tests/known.rs", ""),
            file("a/tests/own.rs", ""),
        ];
        assert_eq!(every_test_file_is_run(&files), Vec::<String>::new());
        files.extend([file("a/tests/lost.rs", ""), file("a/tests/support/mod.rs", ""), file("b/tests/found.rs", "")]);
        assert_eq!(every_test_file_is_run(&files), ["a/tests/lost.rs"]);
    }

    #[test]
    fn an_ignored_test_is_found() {
        let text = format!("{}]\nfn x() {{}}", concat!("#[", "ignore"));
        assert_eq!(no_test_is_ignored(&[file("a/tests/x.rs", &text)]), ["a/tests/x.rs:1"]);
    }

    #[test]
    fn a_dependency_without_use_is_found() {
        let manifest = file(
            "a/Cargo.toml",
            "[package]\nname = \"a\"\n[dependencies]\nused-one.workspace = true\nidle = \"1\"\n[dev-dependencies]\ntested = \"1\"\n",
        );
        let source = file("a/src/lib.rs", "//! x\nuse used_one::idle2;");
        let test = file("a/tests/x.rs", "use tested; use idle;");
        assert_eq!(every_dependency_is_used(&[manifest, source, test]), ["a/Cargo.toml: idle"]);
    }

    #[test]
    fn a_text_or_a_comment_with_a_riddle_is_found_and_a_name_is_not() {
        let source = file("proxy/src/x.rs", "// nobody\nlet a = \"Nobody listens\";\nlet nobody = \"x\";\n");
        let witness = file("xtask/witnesses/python/x.py", "@check(\"the client is told\")\ntold = 1\n");
        let found = ["proxy/src/x.rs:2", "proxy/src/x.rs:1", "xtask/witnesses/python/x.py:1"];
        assert_eq!(texts_name_who_acts(&[source, witness]), found);
    }

    #[test]
    fn a_page_or_a_title_with_a_riddle_is_found_and_names_in_braces_are_code() {
        let page = file("docs/x.md", "The client is told.\nThe log shows it.\n");
        let title = file("scenarios/x.yaml", "title: whoever waits is served\nsteps: [] # told\n");
        let source = file("proxy/src/x.rs", "let a = format!(\"invalid: {told}\");\n");
        assert_eq!(texts_name_who_acts(&[page, title, source]), ["docs/x.md:1", "scenarios/x.yaml:1"]);
    }

    #[test]
    fn a_long_comment_and_a_long_line_of_a_page_are_found() {
        let long = "word ".repeat(30);
        let source = file("proxy/src/x.rs", &format!("//! x\n/// {long}\nlet a = \"{long}\";\n"));
        let page = file("docs/x.md", &format!("{long}\n| {long} |\n```\n{long}\n```\n<https://{}>\n", "x".repeat(120)));
        assert_eq!(lines_fit(&[source, page]), ["proxy/src/x.rs:2", "docs/x.md:1"]);
    }

    #[test]
    fn a_path_of_somebodys_machine_is_found() {
        let text = format!("see {}me/x", concat!("/ho", "me/"));
        assert_eq!(no_foreign_paths(&[file("README.md", &text)]), ["README.md:1"]);
        let text = concat!("{\n  \"resol", "ved\": \"https://npm.example/x.tgz\"\n}");
        assert_eq!(no_foreign_paths(&[file("a/package-lock.json", text)]), ["a/package-lock.json:2"]);
    }
}
