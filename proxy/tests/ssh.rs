//! A remote that is reached over SSH, against a real `sshd` on loopback.

#![cfg(unix)]

use std::{
    fs,
    io::Read,
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::program::Program;
use crate::support::{self, Act, Upstream, ask, raw_response};

const GET: &str = "GET /api/tags HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// Debian's, and what other systems have.
const SSHD: [&str; 3] = ["/usr/sbin/sshd", "/usr/bin/sshd", "/usr/local/sbin/sshd"];

/// An `sshd` for this user, and an `ssh` that knows it as `gpu-box`.
struct Sshd {
    folder: tempfile::TempDir,
    program: PathBuf,
    port: u16,
    child: Option<Child>,
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.stop();
    }
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

impl Sshd {
    /// None: this machine has no `sshd`, which `.ci/run` installs.
    fn start() -> Option<Self> {
        let Some(program) = SSHD.iter().map(PathBuf::from).find(|path| path.exists()) else {
            assert!(std::env::var("CI").is_ok_and(|ci| ci != "true") || std::env::var("CI").is_err(), "no sshd");
            eprintln!("SKIPPED: sshd is missing (Debian: apt-get install openssh-server)");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut sshd = Self { folder, program, port, child: None };
        for name in ["host", "user", "stranger"] {
            run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", &sshd.path(name)]);
        }
        fs::copy(sshd.path("user.pub"), sshd.path("authorized")).unwrap();
        if run("id", &["-u"]) == "0" {
            // Where root's sshd locks its unprivileged half in.
            fs::create_dir_all("/run/sshd").unwrap();
        }
        let settings = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\n\
             PidFile none\nPasswordAuthentication no\nPermitRootLogin prohibit-password\nLogLevel VERBOSE\n",
            sshd.path("host"),
            sshd.path("authorized"),
        );
        fs::write(sshd.path("sshd_config"), settings).unwrap();
        sshd.trust(&fs::read_to_string(sshd.path("host.pub")).unwrap());
        sshd.identify("user");
        // ssh looks for its configuration in the home of the user, which a test must not change.
        let wrapper = format!(
            "#!/bin/sh\nexec /usr/bin/env -u SSH_AUTH_SOCK {} -F {} \"$@\"\n",
            run("which", &["ssh"]),
            sshd.path("ssh_config")
        );
        let bin = sshd.folder.path().join("bin");
        fs::create_dir(&bin).unwrap();
        fs::write(bin.join("ssh"), wrapper).unwrap();
        fs::set_permissions(bin.join("ssh"), fs::Permissions::from_mode(0o755)).unwrap();
        sshd.run();
        Some(sshd)
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// Makes `key` the host key that the client knows.
    fn trust(&self, key: &str) {
        fs::write(self.path("known"), format!("[127.0.0.1]:{} {key}", self.port)).unwrap();
    }

    /// Makes `name` the key of the client.
    fn identify(&self, name: &str) {
        let settings = format!(
            "Host gpu-box\n  HostName 127.0.0.1\n  Port {}\n  User {}\n  IdentityFile {}\n  IdentitiesOnly yes\n  \
             UserKnownHostsFile {}\n  GlobalKnownHostsFile none\n",
            self.port,
            run("id", &["-un"]),
            self.path(name),
            self.path("known"),
        );
        fs::write(self.path("ssh_config"), settings).unwrap();
    }

    fn run(&mut self) {
        let log = fs::File::options().create(true).append(true).open(self.path("log")).unwrap();
        let child = Command::new(&self.program)
            .args(["-D", "-e", "-f", &self.path("sshd_config")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(begun.elapsed() < support::PATIENCE, "{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ends it, and with it the connections that it serves.
    fn stop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        // They are its children, one for each connection, and one more of that.
        let mut all = vec![child.id().to_string()];
        let mut at = 0;
        while let Some(parent) = all.get(at) {
            let output = Command::new("ps").args(["-o", "pid=", "--ppid", parent]).output().unwrap();
            all.extend(String::from_utf8_lossy(&output.stdout).split_whitespace().map(str::to_owned));
            at += 1;
        }
        let _ = Command::new("kill").arg("-9").args(&all).stderr(Stdio::null()).status();
        let _ = child.wait();
    }

    fn log(&self) -> String {
        let mut text = String::new();
        fs::File::open(Path::new(&self.path("log"))).unwrap().read_to_string(&mut text).unwrap();
        text
    }

    /// How often a user came in.
    fn logins(&self) -> usize {
        self.log().matches("Accepted publickey").count()
    }

    /// A farllama whose remote listens on `port` of that machine.
    fn farllama(&self, port: u16) -> Program {
        let path = format!("{}:{}", self.path("bin"), std::env::var("PATH").unwrap());
        let flags = ["--remote-host", "ssh://gpu-box", "--remote-port", &port.to_string(), "--remote-probe", "0s"];
        Program::start(&flags, &[("PATH", &path)])
    }

    async fn failure(&self, port: u16) -> String {
        let farllama = self.farllama(port);
        let response = ask(farllama.addr, GET).await;
        let text = String::from_utf8(response.body.clone()).unwrap();
        assert_eq!(response.code(), 502, "{text}");
        text
    }
}

fn port_of(addr: SocketAddr) -> u16 {
    addr.port()
}

async fn upstream() -> Upstream {
    Upstream::answering(raw_response("200 OK", "Content-Type: application/json\r\n", "{\"models\":[]}")).await
}

#[tokio::test]
async fn requests_share_one_ssh_connection_which_is_made_again_when_it_is_lost() {
    let Some(mut sshd) = Sshd::start() else { return };
    let upstream = upstream().await;
    let farllama = sshd.farllama(port_of(upstream.addr));
    let together = futures_util::future::join_all((0..5).map(|_| ask(farllama.addr, GET))).await;
    for response in together {
        assert_eq!(response.code(), 200, "{} {}", String::from_utf8_lossy(&response.body), sshd.log());
    }
    assert_eq!(sshd.logins(), 1, "{}", sshd.log());
    assert!(upstream.seen().len() > 1, "they were sent at the same time");
    assert_eq!(upstream.seen()[0].header("host").unwrap(), format!("127.0.0.1:{}", port_of(upstream.addr)));
    sshd.stop();
    sshd.run();
    assert_eq!(ask(farllama.addr, GET).await.code(), 200, "{}", sshd.log());
    assert_eq!(sshd.logins(), 2, "{}", sshd.log());
    farllama.log();
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_request_at_the_remote() {
    let Some(sshd) = Sshd::start() else { return };
    let upstream = Upstream::start(vec![
        Act::Write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{}\n\r\n"
                .to_vec(),
        ),
        Act::Hold,
    ])
    .await;
    let farllama = sshd.farllama(port_of(upstream.addr));
    let mut client = tokio::net::TcpStream::connect(farllama.addr).await.unwrap();
    let request = "POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}";
    tokio::io::AsyncWriteExt::write_all(&mut client, request.as_bytes()).await.unwrap();
    tokio::io::AsyncReadExt::read_exact(&mut client, &mut [0; 15]).await.unwrap();
    drop(client);
    upstream.until(|seen| seen.left).await;
}

#[tokio::test]
async fn what_ssh_refuses_is_reported_with_what_to_do() {
    let Some(sshd) = Sshd::start() else { return };
    let upstream = upstream().await;
    let port = port_of(upstream.addr);
    let check = |text: &str, parts: &[&str]| {
        for part in parts {
            assert!(text.contains(part), "{part}: {text}\n{}", sshd.log());
        }
    };
    // Nothing listens there.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    check(
        &sshd.failure(free).await,
        &["connected to ssh://gpu-box", &format!("which cannot reach 127.0.0.1:{free}"), "is Ollama running there"],
    );
    sshd.identify("stranger");
    check(
        &sshd.failure(port).await,
        &["ssh://gpu-box accepts no key of this user", "Permission denied", "ssh-copy-id"],
    );
    sshd.trust("");
    check(&sshd.failure(port).await, &["does not trust the host key of ssh://gpu-box", "connect once by hand"]);
    sshd.trust(&fs::read_to_string(sshd.path("user.pub")).unwrap());
    check(&sshd.failure(port).await, &["host key of ssh://gpu-box", "another one than before", "ssh-keygen -R"]);
    assert!(upstream.seen().is_empty());
}

#[tokio::test]
async fn a_real_socks_proxy_leads_to_the_remote() {
    let Some(sshd) = Sshd::start() else { return };
    let upstream = upstream().await;
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut socks = Command::new(sshd.folder.path().join("bin/ssh"))
        .args(["-N", "-o", "BatchMode=yes", "-D", &format!("127.0.0.1:{port}"), "gpu-box"])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(socks.try_wait().unwrap().is_none(), "{}", sshd.log());
        std::thread::sleep(Duration::from_millis(10));
    }
    let (proxy, remote) = (format!("socks5://127.0.0.1:{port}"), port_of(upstream.addr).to_string());
    let flags =
        ["--remote-host", "localhost", "--remote-port", &remote, "--remote-proxy", &proxy, "--remote-probe", "0s"];
    let farllama = Program::start(&flags, &[]);
    let response = ask(farllama.addr, GET).await;
    let _ = socks.kill();
    let _ = socks.wait();
    assert_eq!(response.code(), 200, "{}", String::from_utf8_lossy(&response.body));
}
