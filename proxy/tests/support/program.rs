//! The real binary, as a child process that ends with the test.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part of this")]

use std::{
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    thread::JoinHandle,
};

/// A running `farllama serve`.
pub struct Program {
    child: Child,
    pub addr: SocketAddr,
    log: Option<JoinHandle<String>>,
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
        let mut child = Command::new(env!("CARGO_BIN_EXE_farllama"))
            .args(["serve", "--local-port", "0", "--log", "json"])
            .args(flags)
            .env_clear()
            .envs(environment.iter().copied())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let mut log = BufReader::new(child.stderr.take().expect("it is piped"));
        let mut told = String::new();
        let addr = loop {
            let mut line = String::new();
            assert!(log.read_line(&mut line).expect("text") > 0, "it ended before it listened: {told}");
            told.push_str(&line);
            // Warnings about the settings come before the log, as plain text.
            let Ok(line) = serde_json::from_str::<serde_json::Value>(&line) else { continue };
            if line["message"] == "listening" {
                let url = line["ollama"].as_str().expect("an address");
                break url.rsplit_once('/').expect("a URL").1.parse().expect("an address");
            }
        };
        let log = std::thread::spawn(move || {
            log.read_to_string(&mut told).expect("text");
            told
        });
        Self { child, addr, log: Some(log) }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends the program, and gives all that it has logged.
    pub fn log(mut self) -> String {
        self.child.kill().expect("it still runs");
        self.child.wait().expect("it was started here");
        self.log.take().and_then(|log| log.join().ok()).expect("it was read")
    }
}
