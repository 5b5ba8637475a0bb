//! The real binary, as a child process that ends with the test.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part of this")]

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    thread::JoinHandle,
    time::Duration,
};

use tokio::sync::watch;

/// A running `farllama serve`.
pub struct Program {
    child: Child,
    pub addr: SocketAddr,
    printed: watch::Receiver<String>,
    reading: Option<JoinHandle<()>>,
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Program {
    /// On a free port, with no settings but these, once it says that it listens.
    pub fn start(flags: &[&str], environment: &[(&str, &str)]) -> Self {
        Self::with(&[&["--local-port", "0", "--admin-enabled=false", "--log", "json"], flags].concat(), environment)
    }

    /// With the settings of a file alone, which must have a free port and the log in JSON.
    pub fn of_file(file: &Path, environment: &[(&str, &str)]) -> Self {
        Self::with(&["--config", file.to_str().expect("text")], environment)
    }

    fn with(flags: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_farllama"))
            .arg("serve")
            .args(flags)
            .env_clear()
            .envs(environment.iter().copied())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let mut log = BufReader::new(child.stderr.take().expect("it is piped"));
        let mut printed = String::new();
        let addr = loop {
            let mut line = String::new();
            assert!(log.read_line(&mut line).expect("text") > 0, "it ended before it listened: {printed}");
            printed.push_str(&line);
            // Warnings about the settings come before the log, as plain text.
            let Ok(line) = serde_json::from_str::<serde_json::Value>(&line) else { continue };
            if line["message"] == "listening" {
                let url = line["ollama"].as_str().expect("an address");
                break url.rsplit_once('/').expect("a URL").1.parse().expect("an address");
            }
        };
        let (sender, receiver) = watch::channel(printed);
        let reading = std::thread::spawn(move || {
            for line in log.lines() {
                let line = line.expect("text");
                sender.send_modify(|printed| printed.push_str(&(line + "\n")));
            }
        });
        Self { child, addr, printed: receiver, reading: Some(reading) }
    }

    /// Waits until the log has `text`.
    pub async fn until(&self, text: &str) {
        let mut printed = self.printed.clone();
        let hearing = printed.wait_for(|printed| printed.contains(text));
        let received = tokio::time::timeout(Duration::from_secs(5), hearing).await;
        assert!(received.is_ok_and(|received| received.is_ok()), "no {text:?} in: {}", *self.printed.borrow());
    }

    /// Lets it read its settings again. Returns what it logs of that.
    pub async fn reload(&self) -> String {
        let outcomes = |printed: &str| -> Vec<String> {
            let lines = printed.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
            let texts = lines.filter_map(|line| Some(line["message"].as_str()?.to_owned()));
            texts
                .filter(|text| text.starts_with("configuration reloaded") || text.starts_with("reload failed"))
                .collect()
        };
        let mut printed = self.printed.clone();
        let before = outcomes(&printed.borrow()).len();
        let sent = Command::new("kill").args(["-HUP", &self.child.id().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "it has ended: {}", *self.printed.borrow());
        let hearing = printed.wait_for(|printed| outcomes(printed).len() > before);
        let heard = tokio::time::timeout(Duration::from_secs(10), hearing).await;
        let printed = heard.expect("an outcome in time").expect("it runs").clone();
        outcomes(&printed).pop().unwrap_or_default()
    }

    /// All that it has logged so far.
    pub fn printed(&self) -> String {
        self.printed.borrow().clone()
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends the program in order, so that it writes all that it has logged, and returns that.
    pub fn log(mut self) -> String {
        let ended = Command::new("kill").arg(self.child.id().to_string()).status();
        assert!(ended.is_ok_and(|status| status.success()), "it still runs");
        self.child.wait().expect("it was started here");
        self.reading.take().and_then(|reading| reading.join().ok()).expect("it was read");
        self.printed.borrow().clone()
    }
}
