//! A real `redis-server` for a test: stopped and started again as the test likes, with its data on disk.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part of this")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

pub struct RedisServer {
    child: Option<Child>,
    folder: tempfile::TempDir,
    pub port: u16,
    tls: bool,
    cluster: bool,
}

impl RedisServer {
    /// None where the machine has no `redis-server`, which a gate's machine must have.
    pub fn start() -> Option<Self> {
        Self::with(None, false)
    }

    /// The nodes of a cluster, each with its share of the slots. The last one says where the others are.
    pub fn cluster<const N: usize>() -> Option<[Self; N]> {
        const SLOTS: usize = 16_384;
        let mut nodes = Vec::new();
        for _ in 0..N {
            nodes.push(Self::with(None, true)?);
        }
        for (nth, node) in nodes.iter().enumerate() {
            let (first, end) = (nth * SLOTS / N, (nth + 1) * SLOTS / N);
            node.command(&format!("CLUSTER ADDSLOTSRANGE {first} {}", end - 1));
            node.command(&format!("CLUSTER SET-CONFIG-EPOCH {}", nth + 1));
            node.command(&format!("CLUSTER MEET 127.0.0.1 {}", nodes[0].port));
        }
        let until = Instant::now() + Duration::from_secs(60);
        while !nodes.iter().all(|node| node.command("CLUSTER INFO").contains("cluster_state:ok")) {
            assert!(Instant::now() < until, "the cluster does not come up");
            std::thread::sleep(Duration::from_millis(50));
        }
        nodes.try_into().ok()
    }

    /// Sends a command, and returns the beginning of the reply.
    pub fn command(&self, command: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.write_all(format!("{command}\r\n").as_bytes()).unwrap();
        let mut reply = [0; 4096];
        let length = stream.read(&mut reply).unwrap();
        String::from_utf8_lossy(&reply[..length]).into_owned()
    }

    /// One that takes TLS alone, with this certificate and its key.
    pub fn with_tls(cert: &str, key: &str) -> Option<Self> {
        Self::with(Some((cert, key)), false)
    }

    /// The program: `redis-server`, or another that speaks its protocol.
    fn program() -> String {
        std::env::var("REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned())
    }

    fn with(tls: Option<(&str, &str)>, cluster: bool) -> Option<Self> {
        let found = Command::new(Self::program()).arg("--version").stdout(Stdio::null()).status();
        if !found.is_ok_and(|status| status.success()) {
            assert!(
                !std::env::var("CI").is_ok_and(|ci| ci == "true"),
                "no redis-server: install the package redis-server"
            );
            eprintln!("skipped: no redis-server");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        if let Some((cert, key)) = tls {
            std::fs::write(folder.path().join("cert.pem"), cert).unwrap();
            std::fs::write(folder.path().join("key.pem"), key).unwrap();
        }
        let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        // A node of a cluster takes a second port, 10,000 above.
        let port = std::iter::repeat_with(free).find(|port| !cluster || *port < 55_000).unwrap();
        let mut server = Self { child: None, folder, port, tls: tls.is_some(), cluster };
        server.run();
        Some(server)
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn url(&self) -> String {
        let scheme = if self.tls { "rediss" } else { "redis" };
        format!("{scheme}://localhost:{}/", self.port)
    }

    /// Starts it on what it has written before.
    pub fn run(&mut self) {
        assert!(self.child.is_none());
        let port = self.port.to_string();
        let mut command = Command::new(Self::program());
        command.current_dir(self.folder.path()).args(["--bind", "127.0.0.1", "--save", "", "--loglevel", "warning"]);
        command.args(["--appendonly", "yes", "--appendfsync", "always"]);
        if self.cluster {
            command.args(["--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf"]);
        }
        if self.tls {
            command.args(["--port", "0", "--tls-port", &port, "--tls-auth-clients", "no"]);
            command.args(["--tls-cert-file", "cert.pem", "--tls-key-file", "key.pem"]);
        } else {
            command.args(["--port", &port]);
        }
        self.child = Some(command.stdout(Stdio::null()).spawn().unwrap());
        let until = Instant::now() + Duration::from_secs(20);
        while !self.answers() {
            assert!(Instant::now() < until, "redis-server does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn answers(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) else { return false };
        if self.tls {
            return true;
        }
        let mut answer = [0; 5];
        stream.write_all(b"PING\r\n").is_ok() && stream.read_exact(&mut answer).is_ok() && &answer == b"+PONG"
    }

    /// Stops it in order; its data stays on disk.
    pub fn stop(&mut self) {
        let mut child = self.child.take().unwrap();
        assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
        child.wait().unwrap();
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
