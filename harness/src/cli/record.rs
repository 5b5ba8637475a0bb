//! `farllama-check record`: a recording proxy in front of a real Ollama.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, bail};
use clap::Args;
use tokio::net::TcpListener;

use crate::{
    backend::remote,
    exit::Exit,
    process::{interrupted, print, runtime},
    recorder::{Masks, Recorder, Upstream, introduce},
};

pub(super) const HELP: &str = "\
Point a client at the address that is printed, use it, and end with Ctrl-C. Each exchange is a file DIR/ROUTE/NNN.json.

Example:
  farllama-check record --remote-host gpu-box --out recordings
  OLLAMA_HOST=127.0.0.1:18000 ollama run smollm2:135m 'Say hi.'
  mock-ollama --replay recordings

Masked: keys in headers and wherever they are repeated, home directories, users and passwords in URLs, \
private keys, API keys, bearer and web tokens, e-mail addresses, and what --mask names. Read the files before you publish them.

Exit codes:
  0  exchanges were recorded
  2  unusable flags, or the remote cannot be reached
  3  nothing was recorded";

/// How long the remote may take to report its version.
const PATIENCE: Duration = Duration::from_secs(30);

/// The flags of `record`.
#[derive(Args, Debug)]
#[group(skip)]
pub(super) struct Flags {
    #[command(flatten)]
    remote: remote::Flags,
    /// The folder to write to
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The address to listen on
    #[arg(long, default_value = "127.0.0.1", value_name = "HOST")]
    local_host: String,
    /// The port to listen on; 0 takes a free one
    #[arg(long, default_value_t = 18000, value_name = "PORT")]
    local_port: u16,
    /// Masks what this regular expression finds, too (may be given several times)
    #[arg(long = "mask", value_name = "REGEX")]
    masks: Vec<String>,
    /// Ends after so many recorded exchanges
    #[arg(long, value_name = "N")]
    count: Option<usize>,
}

pub(super) fn run(flags: &Flags) -> anyhow::Result<ExitCode> {
    if !flags.remote.named() {
        bail!("--remote-host is missing: name the machine whose Ollama is to be recorded");
    }
    let upstream = Upstream::new(&flags.remote.config()?.remote)?;
    let masks = Masks::new(&flags.masks, upstream.secrets())?;
    let out = &flags.out;
    std::fs::create_dir_all(out).with_context(|| format!("cannot create {}", out.display()))?;
    runtime()?.block_on(async {
        let url = upstream.url.clone();
        let (version, _) = match introduce(&upstream, PATIENCE).await {
            Ok(introduced) => introduced,
            Err(why) => bail!("cannot record {url}: {why}"),
        };
        let address = (flags.local_host.as_str(), flags.local_port);
        let listener = TcpListener::bind(address).await;
        let listener = listener.with_context(|| {
            format!(
                "cannot listen on {}, port {}; choose others with --local-host and --local-port",
                address.0, address.1
            )
        })?;
        let local = listener.local_addr()?;
        if !local.ip().is_loopback() {
            eprintln!("warning: every machine that reaches {local} can use {url}, with its key");
        }
        let recorder = Recorder::new(upstream, masks, out.clone(), version.clone());
        let interrupted = interrupted();
        tokio::pin!(interrupted);
        print(&format!("recording {url} (Ollama {version}) on http://{local}; Ctrl-C ends it\n"));
        tokio::select! {
            biased;
            () = &mut interrupted => {}
            () = recorder.has_written(flags.count.unwrap_or(usize::MAX)) => {}
            () = recorder.serve(listener) => {}
        }
        print(&recorder.summary());
        Ok(if recorder.has_any() { Exit::Fit } else { Exit::NothingChecked }.into())
    })
}
