//! The modules stand in one order, and each uses only those before it: scenario → backend → call → expect → report.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// From the lowest to the highest.
const ORDER: [&str; 22] = [
    "text",
    "net",
    "exit",
    "limit",
    "scenario",
    "finding",
    "mutants",
    "backend",
    "call",
    "expect",
    "check",
    "report",
    "process",
    "recorder",
    "run",
    "proof",
    "bench_tools",
    "smoke",
    "doctor",
    "compare",
    "cli",
    "lib",
];

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

/// The modules that code names after `crate::`, alone or within braces. Comments and tests do not count.
fn used(code: &str) -> Vec<String> {
    let code = code.split("#[cfg(test)]").next().unwrap_or_default();
    let code: String = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let mut names = Vec::new();
    for rest in code.split("crate::").skip(1) {
        let Some(within) = rest.strip_prefix('{') else {
            names.push(word(rest));
            continue;
        };
        let mut depth = 0_u32;
        let mut item = String::new();
        for c in within.chars() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => names.push(word(&std::mem::take(&mut item))),
                _ if depth == 0 => item.push(c),
                _ => {}
            }
        }
        names.push(word(&item));
    }
    names.retain(|name| !name.is_empty());
    names
}

fn word(text: &str) -> String {
    text.trim_start().chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
}

#[test]
fn a_module_uses_only_modules_before_it() {
    let mut all = Vec::new();
    files(&source(), &mut all);
    assert!(all.len() > 60, "{}", all.len());
    let level = |name: &str| ORDER.iter().position(|known| *known == name);
    let mut wrong = Vec::new();
    for file in all {
        let inner = file.strip_prefix(source()).unwrap();
        let top = inner.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs").to_owned();
        if top == "main" {
            continue;
        }
        let Some(own) = level(&top) else {
            wrong.push(format!("{top}: no place in the order"));
            continue;
        };
        for name in used(&fs::read_to_string(&file).unwrap()) {
            match level(&name) {
                Some(other) if other <= own => {}
                Some(_) => wrong.push(format!("{} uses {name}", inner.display())),
                None => wrong.push(format!("{} uses {name}, which has no place in the order", inner.display())),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_use_is_found_in_each_form() {
    let code = "use crate::{\n    a::{b, c},\n    d,\n    e::f,\n};\n// crate::no\nlet x = crate::g::h();\n#[cfg(test)]\nuse crate::i;";
    assert_eq!(used(code), ["a", "d", "e", "g"]);
}
