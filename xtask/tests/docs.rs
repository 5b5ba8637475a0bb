//! What the documentation shows exists: commands, their flags, files, pages.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

const PROGRAMS: [&str; 3] = ["farllama", "farllama-check", "mock-ollama"];
/// Commands and flags that no help shows, because they are for packages.
const HIDDEN: [&str; 2] = ["completions", "man"];

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The pages, by their paths from the root.
pub(crate) fn pages() -> BTreeMap<String, String> {
    let docs = fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().file_name());
    let docs = docs.map(|name| format!("docs/{}", name.to_string_lossy())).filter(|path| path.ends_with(".md"));
    let others = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "ARCHITECTURE.md", "scenarios/README.md"];
    let paths = docs.chain(others.map(str::to_owned));
    paths.map(|path| (path.clone(), fs::read_to_string(root().join(path)).unwrap())).collect()
}

/// The lines of the shell blocks of a page without comments, and the commands within its sentences.
fn commands(page: &str) -> Vec<String> {
    let blocks = page.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    let lines = blocks.flat_map(str::lines).map(|line| line.split("  #").next().unwrap_or(line).trim().to_owned());
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    let sentences = page.split("```").step_by(2).flat_map(|text| text.split('`').skip(1).step_by(2));
    let is_command = |span: &&str| {
        span.split(' ').nth(1).is_some()
            && (span.starts_with("cargo xtask ") || PROGRAMS.iter().any(|name| span.starts_with(&format!("{name} "))))
    };
    lines.chain(sentences.filter(is_command).map(|span| span.replace('\n', " "))).collect()
}

/// The help of a command, as far as its words are subcommands.
fn help(words: &[&str]) -> String {
    let program = Path::new(env!("CARGO_BIN_EXE_xtask")).with_file_name(words[0]);
    let output = Command::new(program).args(&words[1..]).arg("--help").output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn is_built() -> bool {
    let beside = Path::new(env!("CARGO_BIN_EXE_xtask"));
    if PROGRAMS.iter().all(|name| beside.with_file_name(name).exists()) {
        return true;
    }
    assert!(env::var("CI").as_deref() != Ok("true"), "run cargo build first");
    eprintln!("\n*** SKIPPED: run cargo build first; the commands of the documentation were NOT checked ***\n");
    false
}

#[test]
fn every_command_shown_exists_with_its_flags() {
    if !is_built() {
        return;
    }
    let xtask = Command::new(env!("CARGO_BIN_EXE_xtask")).arg("help").output().unwrap();
    let xtask = String::from_utf8_lossy(&xtask.stdout).into_owned();
    // `  name [ARGS…]  text`, or `  name, name [ARGS…]`.
    let lines = xtask.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names: Vec<&str> = lines
        .flat_map(|line| {
            line.trim().split(' ').scan(true, |more, word| {
                let is_name = std::mem::replace(more, word.ends_with(','));
                is_name.then(|| word.trim_end_matches(','))
            })
        })
        .collect();
    let mut helps: BTreeMap<String, String> = BTreeMap::new();
    let (mut checked, mut wrong) = (0, Vec::new());
    for (path, page) in pages() {
        for line in commands(&page) {
            let words: Vec<&str> =
                line.split(' ').filter(|word| !word.contains('=') || word.starts_with("--")).collect();
            if let ["cargo", "xtask", command, ..] = &words[..] {
                checked += 1;
                if !names.contains(command) {
                    wrong.push(format!("{path}: cargo xtask has no command {command}"));
                }
            }
            let Some(program) = words.first().filter(|word| PROGRAMS.contains(word)) else { continue };
            checked += 1;
            // The words before the first flag or argument that are commands.
            let mut chain = vec![*program];
            for word in words[1..].iter().take_while(|word| !word.starts_with('-')).take(2) {
                let help = helps.entry(chain.join(" ")).or_insert_with(|| help(&chain)).clone();
                let is_command = help.lines().any(|line| line.split_whitespace().next() == Some(*word))
                    || HIDDEN.contains(word)
                    // The first help fits on a screen and lists some commands in a sentence.
                    || self::help(&[chain[0], word]).contains(&format!("Usage: {} {word}", chain[0]));
                if !is_command {
                    if chain.len() == 1 && *program != "mock-ollama" {
                        wrong.push(format!("{path}: {program} has no command {word}"));
                    }
                    break;
                }
                chain.push(word);
            }
            let own = helps.entry(chain.join(" ")).or_insert_with(|| help(&chain)).clone();
            // The settings are flags of every command, but only `serve` lists them.
            let all = if *program == "farllama" { own + &help(&["farllama", "serve"]) } else { own };
            for flag in words.iter().filter_map(|word| word.strip_prefix("--")) {
                let flag = flag.split(['=', ']']).next().unwrap_or(flag);
                if !all.contains(&format!("--{flag}")) && !flag.is_empty() && !HIDDEN.contains(&flag) {
                    wrong.push(format!("{path}: {} has no --{flag}", chain.join(" ")));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(checked > 20, "{checked} commands found");
}

/// The pairs of lines of a help text that were broken by hand: the first word of the second fits on the first.
fn broken_by_hand(help: &str, width: usize) -> Vec<String> {
    let lines: Vec<&str> = help.lines().collect();
    let indent = |line: &str| line.len() - line.trim_start().len();
    let is_broken = |pair: &&[&str]| {
        let (first, second) = (pair[0], pair[1].trim_start());
        let word = second.split(' ').next().unwrap_or_default();
        let is_text = |line: &str| !line.trim_start().contains("  ") && !line.trim_start().starts_with('-');
        let goes_on = word.starts_with(|c: char| c.is_ascii_lowercase()) && !PROGRAMS.contains(&word);
        let fits = first.chars().count() + 1 + word.chars().count() <= width;
        // Commands and their explanations have other indents, and so do tables.
        !first.is_empty() && indent(first) == indent(pair[1]) && is_text(first) && is_text(second) && goes_on && fits
    };
    lines.windows(2).filter(is_broken).map(|pair| pair.join(" | ")).collect()
}

#[test]
fn no_line_of_a_help_is_broken_by_hand() {
    assert_eq!(broken_by_hand("a text that\n  ends\n\nand\nthen goes\n", 12), ["and | then goes"]);
    if !is_built() {
        return;
    }
    let (mut wrong, mut asked) = (Vec::new(), 0);
    let mut chains: Vec<Vec<String>> = PROGRAMS.map(|name| vec![name.to_owned()]).to_vec();
    while let Some(chain) = chains.pop() {
        let words: Vec<&str> = chain.iter().map(String::as_str).collect();
        let program = Path::new(env!("CARGO_BIN_EXE_xtask")).with_file_name(words[0]);
        let output = Command::new(program).args(&words[1..]).arg("--help").env("COLUMNS", "100").output().unwrap();
        let help = String::from_utf8_lossy(&output.stdout).into_owned();
        asked += 1;
        wrong.extend(broken_by_hand(&help, 100).into_iter().map(|lines| format!("{}: {lines}", words.join(" "))));
        let list = help.split("Commands:\n").nth(1).and_then(|rest| rest.split("\n\n").next()).unwrap_or_default();
        let names = list.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
        let names = names.filter(|name| !matches!(*name, "" | "help") && words.len() < 3);
        chains.extend(names.map(|name| chain.iter().cloned().chain([name.to_owned()]).collect()));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(asked > 20, "{asked} commands");
}

#[test]
fn every_link_leads_to_a_file_and_every_page_is_linked() {
    let mut wrong = Vec::new();
    for (path, page) in pages() {
        let folder = root().join(&path).parent().unwrap().to_owned();
        for link in page.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap_or(link);
            let is_here = !file.is_empty() && !file.contains("://") && !file.contains(' ');
            if is_here && !folder.join(file).exists() {
                wrong.push(format!("{path}: there is no {link}"));
            }
        }
    }
    let pages = pages();
    for path in pages.keys().filter(|path| path.starts_with("docs/") && *path != "docs/README.md") {
        let name = path.trim_start_matches("docs/");
        let links = |(other, page): (&String, &String)| {
            other != path
                && [format!("({name})"), format!("({name}#"), format!("docs/{name}")]
                    .iter()
                    .any(|link| page.contains(link))
        };
        if !pages.iter().any(links) {
            wrong.push(format!("no page links to {path}: docs/README.md is the index"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
