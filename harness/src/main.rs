//! `farllama-check`: runs, lists and checks scenarios; smoke-tests a remote Ollama through the proxy.

use std::process::ExitCode;

use clap::Parser;
use farllama_check::cli::Cli;

fn main() -> ExitCode {
    // Unusable flags end the process here, with a message and exit code 2.
    farllama_check::cli::run(Cli::parse())
}
