//! `farllama-check doctor`: which tools will work on a remote, and what to change.

use std::{io::IsTerminal, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use mock_ollama::{Mock, Script};

use crate::{
    backend::{
        endpoint::{self, Endpoint},
        remote,
    },
    doctor::{self, Examination, Patient, bundle, page, persona},
    exit::Exit,
    limit::{self, Limit},
    process::{interrupted, print, runtime},
    report::check_files,
};

pub(super) const HELP: &str = "\
Examples:
  farllama-check doctor --remote-host gpu-box --model qwen3:8b
      what works with the Ollama on gpu-box:11434, through farllama
  farllama-check doctor --remote-host gpu-box --for codex,continue
      whether these two will work
  farllama-check doctor --config ~/.config/farllama/config.toml
      the remote of your own settings, and what they do with requests
  farllama-check doctor --base-url http://127.0.0.1:8000/v1
      any server with OpenAI's API, without farllama

Exit codes:
  0  each tool is ready, perhaps with limits
  1  a tool is not ready, or nothing can be said of it
  2  unusable input (flags), or something could not be started
  130  interrupted";

#[derive(Args, Debug)]
pub(super) struct Flags {
    #[command(flatten)]
    remote: remote::Flags,
    #[command(flatten)]
    target: endpoint::Flags,
    /// The model (may be given several times) [default: gpt-oss:20b if it is there, else the first that can chat]
    #[arg(long = "model", value_name = "MODEL")]
    models: Vec<String>,
    /// The model of embeddings [default: the first that makes them]
    #[arg(long, value_name = "MODEL")]
    embedding_model: Option<String>,
    /// Only these tools, such as codex,continue [default: all]
    #[arg(long = "for", value_name = "TOOL,…", value_delimiter = ',')]
    tools: Vec<String>,
    /// How often what depends on the model is tried
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    tries: u16,
    /// After this time no further tries are begun
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = limit::parse)]
    within: Limit,
    /// How long one request may take
    #[arg(long, value_name = "TIME", default_value = "120s", value_parser = limit::parse)]
    timeout: Limit,
    /// Unloads the model first, to see how long a cold start takes (also for others who use it)
    #[arg(long)]
    cold: bool,
    /// Prints JSON instead of the page
    #[arg(long)]
    json: bool,
    /// Writes the page as one HTML file
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Writes a zip file for a bug report: versions, settings and what was found, keys masked, and the failed requests
    /// as scenarios
    #[arg(long, value_name = "FILE")]
    bundle: Option<PathBuf>,
    /// Lists the tools and where their rules come from
    #[arg(long)]
    list: bool,
    /// Shows every feature of the version
    #[arg(long, short)]
    verbose: bool,
}

impl Flags {
    /// What was asked for, without secrets.
    fn settings(&self) -> anyhow::Result<bundle::Settings> {
        let (remote, target) = (&self.remote, &self.target);
        let keys = [&remote.remote_api_key, &target.api_key];
        let mut secrets: Vec<String> = keys.into_iter().flatten().cloned().collect();
        // A URL may have a user and a password.
        let host = remote.remote_host.as_deref().and_then(|host| reqwest::Url::parse(host).ok());
        if let Some(url) = host {
            secrets.extend(url.password().map(str::to_owned));
        }
        let masked = |key: &Option<String>| key.as_ref().map(|_| "***".to_owned());
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        let list = |list: &[String]| (!list.is_empty()).then(|| list.join(","));
        let given = [
            ("remote-host", remote.remote_host.clone()),
            ("remote-port", remote.remote_port.clone()),
            ("remote-protocol", remote.remote_protocol.clone()),
            ("remote-base-path", remote.remote_base_path.clone()),
            ("remote-api-key", masked(&remote.remote_api_key)),
            ("remote-ca-file", path(&remote.remote_ca_file)),
            ("remote-client-cert", path(&remote.remote_client_cert)),
            ("config", path(&remote.config)),
            ("remote-name", remote.remote_name.clone()),
            ("base-url", target.base_url.clone()),
            ("api-key", masked(&target.api_key)),
            ("ca-file", path(&target.ca_file)),
            ("model", list(&self.models)),
            ("embedding-model", self.embedding_model.clone()),
            ("for", list(&self.tools)),
            ("tries", Some(self.tries.to_string())),
            ("cold", Some(self.cold.to_string())),
        ];
        let flags = given.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
        let mut farllama = None;
        if remote.config.is_some() {
            let loaded = remote.load()?;
            for remote in loaded.config.every_remote().iter().map(|named| &named.remote) {
                let values = remote.authorization.iter().chain(remote.headers.iter().map(|(_, value)| value));
                // Without the scheme: `Bearer …`.
                let keys = values.filter_map(|value| value.to_str().ok()?.split_ascii_whitespace().next_back());
                secrets.extend(keys.map(str::to_owned));
            }
            farllama = Some(farllama::config::show(&loaded));
        }
        Ok(bundle::Settings { flags, farllama, secrets })
    }
}

pub(super) fn run(flags: &Flags) -> anyhow::Result<ExitCode> {
    let tools = persona::chosen(&flags.tools).map_err(|why| anyhow::anyhow!("--for: {why}"))?;
    if flags.list {
        let width = tools.iter().map(|tool| tool.id.len()).max().unwrap_or(0);
        let line = |tool: &persona::Persona| {
            format!("{:width$}  {} ({})\n{:width$}  source: {}\n", tool.id, tool.tool, tool.version, "", tool.source)
        };
        print(&tools.iter().map(line).collect::<String>());
        return Ok(ExitCode::SUCCESS);
    }
    let written = [("--html", &flags.html), ("--bundle", &flags.bundle)];
    check_files(written.into_iter().filter_map(|(flag, path)| Some((flag, path.as_deref()?))))?;
    for limit in [flags.timeout, flags.within] {
        if let Some(note) = limit.note() {
            eprintln!("{note}");
        }
    }
    if flags.remote.named() && flags.target.base_url.is_some() {
        bail!("--remote-host (or --config) and --base-url are two servers: leave out one of them");
    }
    let patient = if flags.target.base_url.is_some() {
        let endpoint = Endpoint::new(&flags.target).map_err(anyhow::Error::msg)?;
        Some(Patient::Endpoint(endpoint, flags.target.client()?))
    } else if flags.remote.named() {
        // --ca-file is for whichever server is examined.
        let remote_ca_file = flags.remote.remote_ca_file.clone().or_else(|| flags.target.ca_file.clone());
        let remote = remote::Flags { remote_ca_file, ..flags.remote.clone() };
        Some(Patient::Remote(Box::new(remote.config()?)))
    } else {
        None
    };
    runtime()?.block_on(async {
        let (patient, mock) = match patient {
            Some(patient) => (patient, None),
            None => {
                let mock = Mock::start(Script::default()).await.context("the built-in mock cannot start")?;
                let addr = mock.addr();
                let remote =
                    farllama::config::Remote { host: addr.ip().to_string(), port: addr.port(), ..Default::default() };
                (Patient::remote(remote), Some(mock))
            }
        };
        let examination = Examination {
            patient,
            models: flags.models.clone(),
            embedding_model: flags.embedding_model.clone(),
            tools,
            tries: flags.tries.into(),
            timeout: flags.timeout.time(),
            within: flags.within.time(),
            cold: flags.cold,
        };
        let bar = progress();
        let diagnosis = tokio::select! {
            biased;
            () = interrupted() => None,
            diagnosis = doctor::examine(&examination, |what| show(&bar, what)) => Some(diagnosis),
        };
        bar.finish_and_clear();
        let Some(diagnosis) = diagnosis else {
            eprintln!("interrupted");
            return Ok(Exit::Interrupted.into());
        };
        let diagnosis = diagnosis?;
        if flags.json {
            print(&(serde_json::to_string_pretty(&diagnosis)? + "\n"));
        } else {
            print(&page::render(&diagnosis, flags.verbose));
        }
        if let Some(path) = &flags.html {
            let page = page::html(&diagnosis).render();
            std::fs::write(path, page).with_context(|| format!("--html {}", path.display()))?;
        }
        if let Some(path) = &flags.bundle {
            let zip = bundle::zip(&diagnosis, &flags.settings()?)?;
            std::fs::write(path, zip).with_context(|| format!("--bundle {}", path.display()))?;
        }
        if mock.is_some() {
            eprintln!("this examined the built-in mock, not a real Ollama: give --remote-host to examine yours");
        }
        Ok(diagnosis.exit().into())
    })
}

fn show(bar: &ProgressBar, what: &str) {
    if bar.is_hidden() {
        eprintln!("looking at {what}");
    } else {
        bar.set_message(what.to_owned());
    }
}

/// A spinner on a terminal.
fn progress() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} looking at {msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}
