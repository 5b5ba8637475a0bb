//! `farllama-check bench-tools`: how servers deal with calls that models get wrong.

use std::process::ExitCode;

use clap::Args;

use crate::{
    bench_tools::{self, Target},
    exit::Exit,
    net,
    process::{interrupted, print, runtime},
};

pub(super) const HELP: &str = "\
A scripted Ollama answers each case of a corpus with a malformed call, as public reports show them. \
farllama and the script alone are always compared; name further servers, which must use the script as their Ollama:

  toolrails --ollama http://127.0.0.1:11999 --port 11500 &
  farllama-check bench-tools --port 11999 --target toolrails=http://127.0.0.1:11500/v1

Exit codes:
  0  farllama repairs 95 % of what can be repaired, and changes nothing else
  1  it does not
  2  unusable input (flags), or something could not be started";

#[derive(Args, Debug)]
pub(super) struct Flags {
    /// Another server, as NAME=URL or a URL, which ends in /v1 (may be given several times)
    #[arg(long = "target", value_name = "NAME=URL", value_parser = target)]
    targets: Vec<Target>,
    /// The port of the scripted Ollama; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    port: u16,
    /// Lists the cases that did not come out as they should
    #[arg(long)]
    details: bool,
}

#[expect(clippy::unnecessary_wraps, reason = "clap wants it so")]
fn target(given: &str) -> Result<Target, String> {
    let (name, url) = match given.split_once('=') {
        Some((name, url)) if !name.contains("://") => (name, url),
        _ => (given, given),
    };
    Ok(Target { name: name.to_owned(), url: url.trim_end_matches('/').to_owned() })
}

pub(super) fn run(flags: &Flags) -> anyhow::Result<ExitCode> {
    let http = net::client()?;
    let scores = runtime()?.block_on(async {
        tokio::select! {
            biased;
            () = interrupted() => None,
            scores = bench_tools::run(&flags.targets, flags.port, &http) => Some(scores),
        }
    });
    let Some(scores) = scores else { return Ok(Exit::Interrupted.into()) };
    let scores = scores?;
    print(&scores.table());
    if flags.details {
        print(&format!("\n{}", scores.details()));
    }
    Ok(if scores.holds() { ExitCode::SUCCESS } else { Exit::Unfit.into() })
}
