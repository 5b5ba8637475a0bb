//! `cargo xtask ci`, everything that must hold; and its kin, which rewrite or measure.

use crate::{
    built, instructions, licenses, rig, root,
    step::{Step, timed},
    tidy, witnesses,
};

/// Runs all steps; the first that fails ends it.
pub(crate) fn run() -> Result<(), String> {
    Step::cargo("fmt --all --check").run()?;
    Step::cargo("clippy --workspace --all-targets --locked -- -D warnings").run()?;
    Step::cargo("doc --workspace --no-deps --locked").env("RUSTDOCFLAGS", "-D warnings").run()?;
    Step::cargo("build --workspace --locked").run()?;
    Step::cargo("test --workspace --locked").env("INSTA_UPDATE", "no").run()?;
    timed("cargo xtask tidy", || tidy::run(&root()))?;
    timed("cargo xtask licenses", licenses::check)?;
    spelling()?;
    Step::built("farllama-check")?.arg("run").arg("scenarios").run()?;
    Step::built("farllama-check")?.arg("run").arg("scenarios").arg("--backend").arg("bridge").run()?;
    // What a version of Ollama decides, at every version that the proxy branches on.
    let versions = ["run", "scenarios", "--tag", "version", "--mock-version", "each"];
    versions.iter().fold(Step::built("farllama-check")?, |step, arg| step.arg(*arg)).run()?;
    proof(Step::built("farllama-check")?, &[]).run()?;
    let proxy = built("farllama")?;
    Step::built("farllama-check")?.arg("smoke").arg("--local-port").arg("0").arg("--proxy-bin").arg(proxy).run()?;
    witnesses::run(&[])?;
    timed("cargo xtask instructions", || instructions::run(&[]))?;
    // Whether the benchmark works; what it measures here, on any machine, means nothing.
    let bench = ["--rows", "c1", "--only", "direct,floor,farllama", "--seconds", "1", "--rounds", "1"];
    bench.iter().fold(Step::built("bench")?, |step, arg| step.arg(*arg)).run()?;
    println!("all is well");
    Ok(())
}

/// Checks the spelling, where `typos` is installed; on CI it must be.
fn spelling() -> Result<(), String> {
    let is_there = std::process::Command::new("typos").arg("--version").output().is_ok();
    if !is_there && std::env::var("CI").as_deref() != Ok("true") {
        eprintln!("\n*** SKIPPED: typos is not installed, so the spelling was NOT checked ***\n");
        return Ok(());
    }
    Step::program(std::path::Path::new("typos"), "typos").run()
}

/// Whether the scenarios notice broken traffic, and miss each parameter that is dropped.
pub(crate) fn mutate(args: &[String]) -> Result<(), String> {
    Step::cargo("build --quiet -p farllama-check").run()?;
    proof(Step::built("farllama-check")?, args).run()
}

fn proof(check: Step, args: &[String]) -> Step {
    // Named mutants or files are checked alone.
    let own: &[&str] = if args.iter().all(|arg| arg == "--all") {
        &["mutate", "scenarios", "--parameters", "docs/parameters.md"]
    } else {
        &["mutate"]
    };
    args.iter().fold(own.iter().fold(check, |step, arg| step.arg(*arg)), Step::arg)
}

/// Rewrites expected outputs.
pub(crate) fn bless() -> Result<(), String> {
    Step::cargo("test -p farllama --lib vectors").env("FARLLAMA_BLESS", "1").run()?;
    Step::cargo("test --workspace").env("INSTA_UPDATE", "always").run()
}

/// Measures.
pub(crate) fn bench(args: &[String]) -> Result<(), String> {
    Step::cargo("build --release --locked -p bench").run()?;
    let bench = rig::program(None, true)?.with_file_name("bench");
    args.iter().fold(Step::program(&bench, "bench"), Step::arg).run()
}

/// Runs the chaos test of the proxy with more streams or another seed than its own.
pub(crate) fn chaos(args: &[String]) -> Result<(), String> {
    seeded("chaos", &[("--streams", "CHAOS_STREAMS"), ("--seed", "CHAOS_SEED")], args)
}

/// Runs the failover test of the proxy with more requests or another seed than its own.
pub(crate) fn failover(args: &[String]) -> Result<(), String> {
    seeded("failover", &[("--requests", "FAILOVER_REQUESTS"), ("--seed", "FAILOVER_SEED")], args)
}

/// Runs a test of the proxy, whose numbers are given by `flags`, each with its environment variable.
fn seeded(test: &str, flags: &[(&str, &str)], args: &[String]) -> Result<(), String> {
    let mut step = Step::cargo(&format!("test --release -p farllama --test {test}"));
    let mut args = args.iter();
    while let Some(flag) = args.next() {
        let Some((_, variable)) = flags.iter().find(|(known, _)| known == flag) else {
            let known: Vec<_> = flags.iter().map(|(flag, _)| format!("{flag} N")).collect();
            return Err(format!("unknown flag {flag}: expected {}", known.join(" or ")));
        };
        let value = args.next().filter(|value| value.parse::<u64>().is_ok());
        step = step.env(variable, value.ok_or_else(|| format!("{flag} needs a number"))?);
    }
    step.arg("--").arg("--nocapture").run()
}
