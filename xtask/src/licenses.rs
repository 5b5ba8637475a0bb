//! The licenses of everything that is linked into a binary: a check against those that are allowed, and their texts for
//! archives.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::root;

/// Licenses that ask for no more than a notice. The same list is in deny.toml.
const ALLOWED: [&str; 14] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "MPL-2.0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// A third-party package.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Package {
    name: String,
    version: String,
    license: String,
}

/// Fails if a dependency of a shipped binary has a license that is not allowed.
pub(crate) fn check() -> Result<(), String> {
    let packages = packages()?;
    let wrong: Vec<String> = packages
        .iter()
        .filter(|package| !is_allowed(&package.license))
        .map(|package| format!("{} {}: {:?}", package.name, package.version, package.license))
        .collect();
    if wrong.is_empty() {
        println!("  {} dependencies, all with allowed licenses", packages.len());
        return Ok(());
    }
    Err(format!("licenses that are not allowed (xtask/src/licenses.rs, deny.toml):\n  {}", wrong.join("\n  ")))
}

/// What `cargo tree` knows of the packages that are linked into a binary on this machine.
fn packages() -> Result<BTreeSet<Package>, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["tree", "--locked", "--workspace", "--edges", "normal", "--prefix", "none", "--format", "{p}|{l}"])
        .current_dir(root())
        .output()
        .map_err(|error| format!("cargo tree: {error}"))?;
    if !output.status.success() {
        return Err(format!("cargo tree: {}", String::from_utf8_lossy(&output.stderr)));
    }
    Ok(parse(&String::from_utf8_lossy(&output.stdout)))
}

fn parse(tree: &str) -> BTreeSet<Package> {
    let lines = tree.lines().filter_map(|line| {
        let (package, license) = line.trim_end_matches(" (*)").split_once('|')?;
        let mut words = package.split(' ');
        let (name, version) = (words.next()?, words.next()?.trim_start_matches('v'));
        // Ours have a path.
        let is_ours = words.any(|word| word.starts_with("(/") || word.contains(":\\"));
        let package = Package { name: name.to_owned(), version: version.to_owned(), license: license.to_owned() };
        (!is_ours).then_some(package)
    });
    lines.collect()
}

/// Whether an SPDX expression can be satisfied: one side of each OR, both sides of each AND.
fn is_allowed(expression: &str) -> bool {
    let text = expression.replace(" / ", " OR ").replace('/', " OR ");
    let mut tokens: Vec<String> = Vec::new();
    for word in text.replace('(', " ( ").replace(')', " ) ").split_whitespace() {
        // An exception belongs to the license before it.
        match tokens.last_mut() {
            Some(last) if word == "WITH" || last.ends_with(" WITH") => *last = format!("{last} {word}"),
            _ => tokens.push(word.to_owned()),
        }
    }
    let mut at = 0;
    either(&tokens, &mut at) && at == tokens.len()
}

fn either(tokens: &[String], at: &mut usize) -> bool {
    let mut allowed = both(tokens, at);
    while tokens.get(*at).is_some_and(|token| token == "OR") {
        *at += 1;
        allowed |= both(tokens, at);
    }
    allowed
}

fn both(tokens: &[String], at: &mut usize) -> bool {
    let mut allowed = one(tokens, at);
    while tokens.get(*at).is_some_and(|token| token == "AND") {
        *at += 1;
        allowed &= one(tokens, at);
    }
    allowed
}

fn one(tokens: &[String], at: &mut usize) -> bool {
    let Some(token) = tokens.get(*at) else { return false };
    *at += 1;
    if token != "(" {
        return ALLOWED.contains(&token.as_str());
    }
    let allowed = either(tokens, at);
    *at += 1;
    allowed
}

/// One text with the dependencies, their licenses, and each license text once.
pub(crate) fn notices() -> Result<String, String> {
    let packages = packages()?;
    let sources = sources();
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut out = "Licenses of the software that is linked into these programs\n\n".to_owned();
    for Package { name, version, license } in &packages {
        out += &format!("{name} {version}: {license}\n");
        let id = format!("{name}-{version}");
        let folder = sources.iter().map(|source| source.join(&id)).find(|folder| folder.is_dir());
        for text in folder.iter().flat_map(|folder| license_texts(folder)) {
            texts.entry(text).or_default().push(id.clone());
        }
    }
    for (text, ids) in texts {
        out += &format!("\n{}\n{}\n\n{}\n", "-".repeat(80), ids.join(", "), text.trim_end());
    }
    Ok(out)
}

/// Where cargo unpacks packages.
fn sources() -> Vec<PathBuf> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")));
    let folder = home.unwrap_or_default().join("registry").join("src");
    fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path()).collect()
}

fn license_texts(folder: &Path) -> Vec<String> {
    let names = ["license", "licence", "copying", "notice", "copyright", "unlicense"];
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path()).collect();
    paths.sort();
    let is_license = |path: &&PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        names.iter().any(|start| name.starts_with(start))
    };
    let texts = paths.iter().filter(is_license).filter_map(|path| fs::read_to_string(path).ok());
    texts.map(|text| text.replace("\r\n", "\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_is_allowed_if_it_can_be_satisfied() {
        for allowed in [
            "MIT",
            "GPL-3.0 OR MIT",
            "MIT/GPL-3.0",
            "(GPL-3.0 OR MIT) AND BSD-3-Clause",
            "Apache-2.0 WITH LLVM-exception",
        ] {
            assert!(is_allowed(allowed), "{allowed}");
        }
        for not in ["", "GPL-3.0", "MIT AND GPL-3.0", "(MIT OR ISC) AND GPL-3.0", "MIT WITH odd-exception", "MIT ISC"] {
            assert!(!is_allowed(not), "{not}");
        }
    }

    #[test]
    fn a_tree_is_read_without_our_own_packages() {
        let tree = "farllama v0.1.0 (/src/proxy)|MIT\nhttp v1.0.0|MIT OR Apache-2.0\nhttp v1.0.0|MIT OR Apache-2.0 (*)\nodd v1.0.0 (proc-macro)|MIT\n";
        let names: Vec<String> = parse(tree).into_iter().map(|package| package.name).collect();
        assert_eq!(names, ["http", "odd"]);
    }

    #[test]
    fn the_lists_of_allowed_licenses_are_the_same() {
        let deny = fs::read_to_string(root().join("deny.toml")).unwrap_or_default();
        for license in ALLOWED.iter().filter(|license| !license.contains(" WITH ")) {
            assert!(deny.contains(&format!("\"{license}\"")), "{license} is not in deny.toml");
        }
    }
}
