//! `cargo xtask bench`: the proxy beside nginx, bare hyper and no proxy at all, on the same work, in turns.

mod contender;
mod floor;
mod load;
mod process;
mod remote;
mod report;
mod rows;
mod tls;
mod work;

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fs,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand, ValueEnum};

use crate::{
    contender::{Contender, Place, Running},
    process::Process,
    report::{Report, RowReport},
    rows::{Row, rows},
};

/// Times the proxy beside nginx (which passes through), bare hyper (which does the least) and no proxy at all.
///
/// All answer the same requests of the same load generator, in turns, round after round; each response is checked. The
/// remote and the load generator share one core, each contender has the other. Run it on a quiet machine.
#[derive(Parser)]
#[command(
    name = "bench",
    bin_name = "cargo xtask bench",
    max_term_width = 80,
    subcommand_negates_reqs = true,
    args_conflicts_with_subcommands = true
)]
struct Cli {
    #[command(subcommand)]
    part: Option<Part>,
    #[command(flatten)]
    run: Run,
}

#[derive(clap::Args)]
struct Run {
    /// How long each measurement takes.
    #[arg(long, value_name = "N", default_value_t = 3)]
    seconds: u64,
    #[arg(long, value_name = "N", default_value_t = 3)]
    rounds: usize,
    /// Only these rows, by parts of their names, such as chat or nlag; separated by commas.
    #[arg(long, value_delimiter = ',')]
    rows: Vec<String>,
    /// Only these contenders, separated by commas.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Contender>,
    /// Everything on one core: no wake-ups between cores, so that the work itself is compared.
    #[arg(long)]
    one_core: bool,
    /// The folder for results.json and results.md; without it, only the tables are printed.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// The proxy to measure, instead of the one beside this program.
    #[arg(long, value_name = "FILE")]
    farllama: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Part {
    /// The remote.
    #[command(hide = true)]
    Remote {
        #[arg(long)]
        port: u16,
        #[arg(long)]
        tls_port: u16,
        #[arg(long)]
        certificates: PathBuf,
    },
    /// A floor.
    #[command(hide = true)]
    Floor {
        kind: FloorKind,
        #[arg(long)]
        port: u16,
        #[arg(long)]
        remote: u16,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum FloorKind {
    Pass,
    Translate,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    // Thousands of connections; what the system allows is enough or the rows with many fail.
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let cli = Cli::parse();
    match cli.part {
        Some(Part::Remote { port, tls_port, certificates }) => remote::serve(port, tls_port, &certificates).await,
        Some(Part::Floor { kind, port, remote }) => {
            floor::serve(port, remote, matches!(kind, FloorKind::Translate)).await
        }
        None => run(&cli.run).await,
    }
}

/// The first of the ports that are used; each process has one of its own.
const FIRST_PORT: u16 = 19_500;

async fn run(options: &Run) -> Result<()> {
    if options.rounds == 0 || options.seconds == 0 {
        bail!("--rounds and --seconds must be at least 1");
    }
    let own = std::env::current_exe()?;
    let farllama = options.farllama.clone().unwrap_or_else(|| own.with_file_name("farllama"));
    if !farllama.exists() {
        bail!("{} is not there: cargo build --release -p farllama", farllama.display());
    }
    let rows: Vec<Row> = rows()
        .into_iter()
        .filter(|row| options.rows.is_empty() || options.rows.iter().any(|part| row.name.contains(part.as_str())))
        .collect();
    if rows.is_empty() {
        bail!("no row has such a name");
    }
    let folder = tempfile::tempdir()?;
    tls::create(folder.path())?;
    let cores = std::thread::available_parallelism()?.get();
    let (rig, core) = match (cores, options.one_core) {
        (1, _) => (None, None),
        (_, true) => (Some(0), Some(0)),
        (_, false) => (Some(0), Some(1)),
    };
    if let Some(rig) = rig {
        // The load generator is this very process.
        let id = std::process::id().to_string();
        let status = std::process::Command::new("taskset").args(["-a", "-cp", &rig.to_string(), &id]).output();
        status.context("taskset (Debian: util-linux) pins processes to cores")?;
    }
    let place = Place { folder: folder.path().to_owned(), own, farllama, core, remote: (FIRST_PORT, FIRST_PORT + 1) };
    let certificates = place.folder.display().to_string();
    let (port, tls_port) = (place.remote.0.to_string(), place.remote.1.to_string());
    let args = ["remote", "--port", &port, "--tls-port", &tls_port, "--certificates", &certificates];
    let log = place.folder.join("remote.log");
    let mut remote = Process::start(rig, &place.own, &args, &log)?;
    remote.listens(place.remote.0).with_context(|| fs::read_to_string(&log).unwrap_or_default())?;

    let contenders: Vec<Contender> =
        Contender::ALL.into_iter().filter(|one| options.only.is_empty() || options.only.contains(one)).collect();
    // After the remote's two.
    let mut next_port = FIRST_PORT + 1;
    let mut report = Report { about: about(options, cores), rows: Vec::new() };
    for row in &rows {
        let mut measured = RowReport {
            name: row.name.to_owned(),
            what: row.what.to_owned(),
            rounds: BTreeMap::new(),
            missing: BTreeMap::new(),
        };
        let mut running: BTreeMap<Contender, Running> = BTreeMap::new();
        for round in 0..options.rounds {
            for &contender in contenders.iter().filter(|one| row.is_for(**one)) {
                if measured.missing.contains_key(&contender) {
                    continue;
                }
                eprintln!("{} {}/{}: {}", row.name, round + 1, options.rounds, contender.name());
                let outcome = async {
                    if row.needs_fresh() {
                        running.remove(&contender);
                    }
                    let running = match running.entry(contender) {
                        Entry::Occupied(running) => running.into_mut(),
                        Entry::Vacant(entry) => {
                            next_port += 1;
                            entry.insert(row.start(contender, next_port, &place)?)
                        }
                    };
                    row.measure(running, Duration::from_secs(options.seconds), &place).await
                };
                match outcome.await {
                    Ok(values) => {
                        let values = values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
                        measured.rounds.entry(contender).or_default().push(values);
                    }
                    Err(error) => {
                        eprintln!("  {error:#}");
                        measured.missing.insert(contender, format!("{error:#}"));
                    }
                }
                if row.needs_fresh() {
                    running.remove(&contender);
                }
            }
        }
        report.rows.push(measured);
    }
    drop(remote);
    print!("{}", report.markdown());
    if let Some(out) = &options.out {
        fs::create_dir_all(out)?;
        fs::write(out.join("results.json"), serde_json::to_string_pretty(&report)?)?;
        fs::write(out.join("results.md"), report.markdown())?;
        eprintln!("written: {}", out.join("results.{json,md}").display());
    }
    let failed = report.rows.iter().any(|row| row.missing.contains_key(&Contender::Farllama));
    if failed {
        bail!("farllama could not be measured in every row")
    }
    Ok(())
}

/// When, on what, and how.
fn about(options: &Run, cores: usize) -> Vec<String> {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown processor", |(_, name)| name);
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split_whitespace().next().unwrap_or("?").to_owned();
    let nginx = std::process::Command::new("nginx").arg("-v").output();
    let nginx = nginx.map_or_else(
        |_| "no nginx".to_owned(),
        |output| String::from_utf8_lossy(&output.stderr).trim().replace("nginx version: ", ""),
    );
    let now = humantime::format_rfc3339_seconds(SystemTime::now());
    vec![
        format!(
            "{now}, {cpu}, {cores} cores ({}), load {load} at the start, {nginx};",
            if options.one_core { "one used" } else { "one for what is measured" }
        ),
        format!(
            "{} rounds of {} s; median (least–most); ratios to nginx within a round, their median.",
            options.rounds, options.seconds
        ),
    ]
}
