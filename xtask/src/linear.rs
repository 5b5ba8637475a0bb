//! `cargo xtask linear`: counts the instructions for each row of `proxy/src/costs.rs` at n, 2n and 4n, under valgrind.
//! What a client or the remote chooses the number of must cost in proportion: at most [`MOST`] times the instructions
//! for twice as many.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

const HELP: &str = "\
cargo xtask linear [--n N] [WORD…]

Counts instructions at N (1000 by default), 2 N and 4 N; all rows, or those whose name has a WORD. Needs valgrind.
";

/// How much more twice as many may cost. A search within a loop costs four times as much.
const MOST: f64 = 2.3;

const TEST: &str = "costs::one_row";

pub(crate) fn run(args: &[String]) -> Result<(), String> {
    let (mut n, mut words) = (1000_u64, Vec::new());
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match &**arg {
            "--help" | "-h" => {
                print!("{HELP}");
                return Ok(());
            }
            "--n" => {
                let given = args.next().and_then(|n| n.parse().ok()).filter(|n| *n > 0);
                n = given.ok_or("--n takes a number above 0")?;
            }
            word => words.push(word.to_lowercase()),
        }
    }
    let tests = tests()?;
    let listed = Command::new(&tests).args(["--exact", TEST, "--nocapture"]).output();
    let listed = listed.map_err(|error| format!("cannot run {}: {error}", tests.display()))?;
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let rows = listed.lines().filter_map(|line| line.split_once("row: ").map(|(_, name)| name));
    let rows: Vec<&str> =
        rows.filter(|row| words.is_empty() || words.iter().any(|word| row.to_lowercase().contains(word))).collect();
    if rows.is_empty() {
        return Err("no row has that word in its name".to_owned());
    }
    let mut failed = Vec::new();
    println!("{:<40} {:>14} {:>14} {:>14}  ratios", "row", format!("n = {n}"), "2 n", "4 n");
    for row in rows {
        // What starting takes, which has no part in the ratios.
        let start = instructions(&tests, row, 1)?;
        let count = |n| instructions(&tests, row, n).map(|count| count.saturating_sub(start).max(1));
        let [one, two, four] = [count(n)?, count(2 * n)?, count(4 * n)?];
        let ratios = [two as f64 / one as f64, four as f64 / two as f64];
        let fine = ratios.iter().all(|ratio| *ratio <= MOST);
        let note = if fine { "" } else { "  TOO MUCH" };
        println!("{row:<40} {one:>14} {two:>14} {four:>14}  {:.2} {:.2}{note}", ratios[0], ratios[1]);
        failed.extend((!fine).then_some(row));
    }
    match &*failed {
        [] => Ok(()),
        failed => Err(format!("the cost grows faster than the number of: {}", failed.join("; "))),
    }
}

/// Builds the unit tests of the proxy; where they are.
fn tests() -> Result<PathBuf, String> {
    let mut build = Command::new("cargo");
    build.args(["test", "--quiet", "-p", "farllama", "--lib", "--no-run", "--message-format", "json"]);
    let built = build.output().map_err(|error| format!("cannot start cargo: {error}"))?;
    let text = String::from_utf8_lossy(&built.stdout);
    // The last artifact with an executable is the one.
    let found = text.lines().rev().find_map(|line| {
        let (_, rest) = line.split_once("\"executable\":\"")?;
        rest.split_once('"').map(|(path, _)| PathBuf::from(path))
    });
    found.ok_or_else(|| format!("cannot build the tests: {}", String::from_utf8_lossy(&built.stderr)))
}

fn instructions(tests: &Path, row: &str, n: u64) -> Result<u64, String> {
    let mut count = Command::new("valgrind");
    count.args(["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]);
    // One thread, and the same hashes each time as far as can be.
    count.arg(tests).args(["--exact", TEST, "--test-threads", "1"]);
    count.env("FARLLAMA_COST", format!("{n} {row}"));
    let counted = count.output().map_err(|error| format!("cannot start valgrind: {error}"))?;
    let text = String::from_utf8_lossy(&counted.stderr);
    let refs = text.lines().rev().find_map(|line| line.split_once("I refs:").or(line.split_once("I   refs:")));
    let refs = refs.and_then(|(_, count)| count.trim().replace(',', "").parse().ok());
    match refs {
        Some(refs) if counted.status.success() => Ok(refs),
        _ => Err(format!("{row} at {n} failed:\n{text}{}", String::from_utf8_lossy(&counted.stdout))),
    }
}
