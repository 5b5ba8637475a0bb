//! What a witness asks: proxies in front of mocks. Each witness has its own, so none sees what another left.

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
    time::Duration,
};

use super::{Over, runtime::Runtime, scripted};
use crate::{built, root};

/// Maximum time until a server prints its address.
const START: Duration = Duration::from_secs(60);

/// The version of the older Ollama: one that generates images.
const OLDER: &str = "0.20.0";

/// The servers; they end with it.
pub(super) struct Stage {
    /// It needs no key.
    pub(super) open: Server,
    /// Asks for keys.
    pub(super) keyed: Server,
    /// In front of an older Ollama.
    pub(super) older: Server,
    /// In front of an OpenAI server: the open one, or another.
    pub(super) bridged: Server,
    // Last, so that they outlive who asks them.
    _mocks: [Server; 2],
}

impl Stage {
    /// `llama` is a server of llama.cpp, if there is one.
    pub(super) fn start(over: Over, llama: Option<&Server>) -> Result<Self, String> {
        let mock = mock(&[])?;
        let older = self::mock(&["--version", OLDER])?;
        let open = proxy(&mock, "open.toml")?;
        let config = setting("open.toml").to_string_lossy().into_owned();
        let server = match (over, llama) {
            (Over::Scripted, _) => scripted::start()?,
            (Over::LlamaCpp, Some(llama)) => llama.url.clone(),
            _ => open.url.clone(),
        };
        let url = format!("{server}/v1");
        let bridged = started(&["--remote-kind", "openai", "--remote-url", &url, "--config", &config])?;
        Ok(Self {
            open,
            bridged,
            keyed: proxy(&mock, "keyed.toml")?,
            older: proxy(&older, "open.toml")?,
            _mocks: [mock, older],
        })
    }
}

/// A server of llama.cpp with a tiny model, out of packages for Python.
///
/// # Errors
/// It cannot be installed, or does not start.
pub(super) fn llama_cpp() -> Result<Server, String> {
    Runtime::Python.prepare()?;
    Server::start(&mut Runtime::Python.command("llama_server.py"))
}

fn mock(flags: &[&str]) -> Result<Server, String> {
    let mut mock = Command::new(built("mock-ollama")?);
    // As a real one on a small machine; agents need more, which the proxy asks for.
    Server::start(
        mock.args(["--context-length", "4096", "--port", "0", "--script"]).arg(setting("mock.json")).args(flags),
    )
}

fn proxy(remote: &Server, config: &str) -> Result<Server, String> {
    started(&["--remote-host", &remote.url, "--config", &setting(config).to_string_lossy()])
}

/// A proxy with these flags.
fn started(flags: &[&str]) -> Result<Server, String> {
    let mut proxy = Command::new(built("farllama")?);
    proxy.args(["serve", "--local-port", "0", "--admin-enabled=false"]).args(flags);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("FARLLAMA_") {
            proxy.env_remove(name);
        }
    }
    Server::start(&mut proxy)
}

fn setting(name: &str) -> PathBuf {
    root().join("xtask").join("witnesses").join(name)
}

/// A server of ours.
pub(super) struct Server {
    process: Child,
    /// Such as `http://127.0.0.1:11434`.
    pub(super) url: String,
    log: Arc<Mutex<String>>,
}

impl Server {
    fn start(command: &mut Command) -> Result<Self, String> {
        let name = command.get_program().to_string_lossy().into_owned();
        let failed = |error: std::io::Error| format!("cannot start {name}: {error}");
        let (output, input) = std::io::pipe().map_err(failed)?;
        command.stdin(Stdio::null()).stdout(input.try_clone().map_err(failed)?).stderr(input);
        let process = command.spawn().map_err(failed)?;
        // Our own ends of the pipe would keep it open.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let log = Arc::new(Mutex::new(String::new()));
        let mut server = Self { process, url: String::new(), log: Arc::clone(&log) };
        let (sender, reported) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if let Some(url) = url_in(&line) {
                    let _ = sender.send(url.to_owned());
                }
                let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
                log.push_str(&line);
                log.push('\n');
            }
        });
        server.url = reported
            .recv_timeout(START)
            .map_err(|_| format!("{name} did not print its address; it says:\n{}", server.log()))?;
        Ok(server)
    }

    /// What it has said so far.
    pub(super) fn log(&self) -> String {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The address that a server prints: scheme, address and port.
fn url_in(line: &str) -> Option<&str> {
    const HOST: &str = "http://127.0.0.1:";
    let start = line.find(HOST)?;
    let port = line[start + HOST.len()..].bytes().take_while(u8::is_ascii_digit).count();
    (port > 0).then(|| &line[start..start + HOST.len() + port])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_found_in_what_a_server_says() {
        assert_eq!(url_in("on http://127.0.0.1:80/v1\""), Some("http://127.0.0.1:80"));
        assert_eq!(url_in("http://127.0.0.1: no port"), None);
        assert_eq!(url_in("listening"), None);
    }
}
