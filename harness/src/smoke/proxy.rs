//! The proxy as a child process: started, waited for, watched, and always ended.

use std::{
    collections::VecDeque,
    path::PathBuf,
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, bail};
use mock_ollama::Mock;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, ChildStderr, Command},
    sync::oneshot,
    task::JoinHandle,
};

use super::Flags;

/// How long the proxy may take to listen.
const PATIENCE: Duration = Duration::from_secs(20);

/// How many of its last words are kept.
const LAST_WORDS: usize = 20;

/// A running proxy. Dropping it, in a panic too, kills it.
pub(super) struct Proxy {
    child: Child,
    listens: Listens,
    words: Words,
    reader: JoinHandle<()>,
}

/// Where the proxy listens, as it says itself; no slash at the end.
#[derive(Clone, Debug)]
pub(super) struct Listens {
    /// The root, where Ollama's API is.
    pub(super) ollama: String,
    /// The root of OpenAI's API.
    pub(super) openai: String,
}

impl Listens {
    fn read(event: &Value) -> Option<Self> {
        let url = |name: &str| Some(event[name].as_str()?.trim_end_matches('/').to_owned());
        Some(Self { ollama: url("ollama")?, openai: url("openai")? })
    }
}

/// The last lines that the proxy has written.
#[derive(Clone, Debug, Default)]
struct Words(Arc<Mutex<VecDeque<String>>>);

impl Words {
    fn add(&self, line: String) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == LAST_WORDS {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    fn all(&self) -> String {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.is_empty() { "it said nothing".to_owned() } else { Vec::from(lines.clone()).join("\n") }
    }
}

impl Proxy {
    /// Starts it, and waits until it listens.
    pub(super) async fn start(flags: &Flags, mock: Option<&Mock>) -> anyhow::Result<Self> {
        let binary = binary(flags);
        let mut child = command(&binary, flags, mock).spawn().with_context(|| {
            format!(
                "cannot start the proxy ({}): name it with --proxy-bin, or build it with `cargo build`",
                binary.display()
            )
        })?;
        let words = Words::default();
        let stderr = child.stderr.take().context("the proxy's stderr is not there")?;
        let (listening, listens) = oneshot::channel();
        let mut reader = tokio::spawn(read(stderr, words.clone(), listening));
        let listens = tokio::select! {
            listens = listens => listens.ok(),
            () = tokio::time::sleep(PATIENCE) => bail!("the proxy does not listen after {PATIENCE:?}; it said:\n{}", words.all()),
        };
        let Some(listens) = listens else {
            // It ended without listening, and has said why.
            let _ = child.wait().await;
            let _ = tokio::time::timeout(Duration::from_secs(1), &mut reader).await;
            bail!("the proxy cannot start:\n{}", words.all());
        };
        Ok(Self { child, listens, words, reader })
    }

    /// Where it listens.
    pub(super) fn listens(&self) -> &Listens {
        &self.listens
    }

    /// Waits until it ends by itself, which it should not, and gives its last words.
    pub(super) async fn died(&mut self) -> String {
        let _ = self.child.wait().await;
        let _ = tokio::time::timeout(Duration::from_secs(1), &mut self.reader).await;
        self.words.all()
    }

    /// Ends it, and waits until it is gone.
    pub(super) async fn stop(mut self) {
        // It holds nothing that needs an orderly end.
        let _ = self.child.kill().await;
    }
}

/// The one that was named, or stands beside this program, or is on the PATH.
fn binary(flags: &Flags) -> PathBuf {
    let name = format!("farllama{}", std::env::consts::EXE_SUFFIX);
    flags.proxy_bin.clone().unwrap_or_else(|| {
        let beside = std::env::current_exe().ok().map(|own| own.with_file_name(&name));
        beside.filter(|beside| beside.is_file()).unwrap_or_else(|| name.into())
    })
}

fn command(binary: &PathBuf, flags: &Flags, mock: Option<&Mock>) -> Command {
    let mut command = Command::new(binary);
    command.arg("serve").args(["--log", "json", "--local-host", &flags.local_host]);
    // What the scenarios cause is looked for in the mock's journal: nothing else may ask the mock.
    command.args(["--remote-probe", "0s", "--admin-enabled=false"]);
    command.args(["--local-port", &flags.local_port.to_string(), "--openai-base-path", &flags.openai_base_path]);
    // What the flags say is what is checked: without --config, neither a settings file nor variables of the user's own
    // proxy count.
    if let Some(path) = &flags.remote.config {
        // The checks bring no key.
        command.arg("--config").arg(path).arg("--auth-enabled=false");
    } else {
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("FARLLAMA_") {
                command.env_remove(name);
            }
        }
        command.env_remove("HOME").env_remove("XDG_CONFIG_HOME");
    }
    if let Some(mock) = mock {
        let addr = mock.addr();
        command.args(["--remote-host", &addr.ip().to_string(), "--remote-port", &addr.port().to_string()]);
    } else {
        let remote = &flags.remote;
        for (flag, value) in [
            ("--remote-host", &remote.remote_host),
            ("--remote-port", &remote.remote_port),
            ("--remote-protocol", &remote.remote_protocol),
            ("--remote-base-path", &remote.remote_base_path),
        ] {
            if let Some(value) = value {
                command.args([flag, value]);
            }
        }
        for (flag, path) in [
            ("--remote-ca-file", &remote.remote_ca_file),
            ("--remote-client-cert", &remote.remote_client_cert),
            ("--remote-client-key", &remote.remote_client_key),
        ] {
            if let Some(path) = path {
                command.arg(flag).arg(path);
            }
        }
        if let Some(key) = &remote.remote_api_key {
            // Flags can be seen by every user of the machine.
            command.env("FARLLAMA_REMOTE_API_KEY", key);
        }
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// Reads the proxy's log to its end: keeps the last lines, reports its address, and passes warnings on.
async fn read(stderr: ChildStderr, words: Words, listening: oneshot::Sender<Listens>) {
    let mut listening = Some(listening);
    let mut lines = BufReader::new(stderr).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let event: Value = serde_json::from_str(&line).unwrap_or_default();
        match (event["message"].as_str(), event["level"].as_str()) {
            (Some("listening"), _) => {
                if let (Some(listens), Some(listening)) = (Listens::read(&event), listening.take()) {
                    // The waiting check may have given up.
                    let _ = listening.send(listens);
                }
            }
            (Some(message), Some("WARN" | "ERROR")) => {
                if listening.is_none() {
                    eprintln!("proxy: {message}");
                }
                words.add(message.to_owned());
            }
            // One line for each request; the checks report that better.
            (Some(_), _) => {}
            (None, _) => words.add(line),
        }
    }
}
