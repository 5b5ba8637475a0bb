//! Connections over SSH, through this machine's `ssh` with its configuration, keys and agent.
//!
//! One `ssh` makes the connection to the machine and stays (the master of OpenSSH's multiplexing). Each connection to
//! the remote is a `ssh -W` that goes through it: a channel of that connection, without a handshake of its own.

use std::{
    ffi::OsString,
    io,
    path::PathBuf,
    pin::Pin,
    process::Stdio,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, BufReader, ReadBuf},
    net::TcpStream,
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command},
    sync::Mutex,
};

use super::{Cause, Io, SshFailure};
use crate::config::{Ssh, bracketed};

/// Maximum size of what `ssh` says that is read.
const MESSAGE: u64 = 16 << 10;

/// How long the end of a failed `ssh` is waited for, to have its message.
const PARTING: Duration = Duration::from_secs(2);

/// What the master prints once it is connected.
const READY: &str = "farllama-ssh-ready";

/// Connects to one remote over one machine. Cheap to clone.
#[derive(Clone)]
pub(super) struct SshConnector(Arc<Inner>);

struct Inner {
    ssh: Ssh,
    /// `host:port`, as that machine sees the remote.
    target: String,
    /// None: not connected.
    master: Mutex<Option<Master>>,
}

/// The connection to the machine. Dropping it ends the `ssh` that holds it.
struct Master {
    child: Child,
    socket: PathBuf,
    /// Where the socket is: no other user may enter it.
    _folder: tempfile::TempDir,
}

impl SshConnector {
    pub(super) fn new(ssh: &Ssh, host: &str, port: u16) -> Self {
        let target = format!("{}:{port}", bracketed(host));
        Self(Arc::new(Inner { ssh: ssh.clone(), target, master: Mutex::default() }))
    }

    /// Why there is no connection after `within`.
    pub(super) fn late(&self, within: Duration) -> Cause {
        let text = format!("no connection within {}", humantime::format_duration(within));
        Cause::Ssh(SshFailure::Unreachable { ssh: self.0.ssh.to_string(), text })
    }

    /// # Errors
    /// Fails if `ssh` cannot be run, or does not connect. That the machine cannot reach the remote is noticed when the
    /// stream is read.
    pub(super) async fn connect(&self) -> Result<SshStream, Cause> {
        let socket = self.0.socket().await.map_err(Cause::Ssh)?;
        let mut command = self.0.command(&socket);
        command.args(["-o", "ControlMaster=no", "-W", &self.0.target]).arg(self.0.ssh.to_string());
        let mut child = spawn(&mut command).map_err(Cause::Ssh)?;
        let (Some(input), Some(output), Some(messages)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(Cause::Other("ssh has no standard streams".to_owned()));
        };
        let inner = self.0.clone();
        Ok(SshStream { inner, _child: child, input, output, messages, received: false, failing: None })
    }
}

/// Starts an `ssh`, which ends when the child is dropped.
fn spawn(command: &mut Command) -> Result<Child, SshFailure> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command.spawn().map_err(|error| SshFailure::NoProgram(error.to_string()))
}

impl Inner {
    fn command(&self, socket: &std::path::Path) -> Command {
        let mut command = Command::new("ssh");
        let mut path = OsString::from("ControlPath=");
        path.push(socket);
        command
            .args(["-T", "-o", "BatchMode=yes", "-o", "LogLevel=ERROR", "-o", "ControlPersist=no"])
            .args(["-o", "ServerAliveInterval=10", "-o", "ServerAliveCountMax=3", "-o", "ClearAllForwardings=yes"])
            .arg("-o")
            .arg(path)
            // What ssh says is read, so it is in one language.
            .env("LC_ALL", "C");
        command
    }

    /// The socket of the master, which is started if there is none.
    async fn socket(&self) -> Result<PathBuf, SshFailure> {
        let mut held = self.master.lock().await;
        if let Some(master) = &mut *held
            && matches!(master.child.try_wait(), Ok(None))
        {
            return Ok(master.socket.clone());
        }
        *held = None;
        let master = self.start().await?;
        let socket = master.socket.clone();
        *held = Some(master);
        Ok(socket)
    }

    /// Connects to the machine.
    async fn start(&self) -> Result<Master, SshFailure> {
        let folder = tempfile::Builder::new().prefix("farllama-").tempdir();
        let folder = folder.map_err(|error| SshFailure::Other {
            ssh: self.ssh.to_string(),
            text: format!("no folder for its socket: {error}"),
        })?;
        let socket = folder.path().join("s");
        let mut command = self.command(&socket);
        command
            .args(["-o", "ControlMaster=yes", "-N", "-o", "PermitLocalCommand=yes", "-o"])
            // Run when the user is authenticated and the socket is there.
            .arg(format!("LocalCommand=echo {READY}"))
            .arg(self.ssh.to_string());
        let mut child = spawn(&mut command)?;
        let mut line = String::new();
        if let Some(output) = child.stdout.take() {
            // An error is an end.
            let _ = BufReader::new(output.take(MESSAGE)).read_line(&mut line).await;
        }
        if line.trim() == READY {
            // Nothing reads it any more, and a full pipe would stop ssh.
            drop(child.stderr.take());
            return Ok(Master { child, socket, _folder: folder });
        }
        let mut said = Vec::new();
        if let Some(messages) = child.stderr.take() {
            let _ = tokio::time::timeout(PARTING, messages.take(MESSAGE).read_to_end(&mut said)).await;
        }
        Err(self.failure(&String::from_utf8_lossy(&said)))
    }

    /// Understands what `ssh` says.
    fn failure(&self, said: &str) -> SshFailure {
        let ssh = self.ssh.to_string();
        let lines: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let has = |words: &[&str]| {
            lines.iter().rev().find(|line| words.iter().any(|word| line.contains(word))).map(|line| (*line).to_owned())
        };
        if let Some(text) = has(&["Host key verification failed", "HOST IDENTIFICATION HAS CHANGED"]) {
            let changed = said.contains("HOST IDENTIFICATION HAS CHANGED");
            let text = if changed { "it is another one than before".to_owned() } else { text };
            return SshFailure::HostKey { ssh, text };
        }
        if let Some(text) = has(&["Permission denied", "Too many authentication failures"]) {
            return SshFailure::Key { ssh, text };
        }
        // The first where the master forwards, the others where this process does.
        if let Some(text) = has(&["Stdio forwarding request failed", "open failed", "stdio forwarding failed"]) {
            let text = text.split_once("failed: ").map_or(text.clone(), |(_, text)| text.to_owned());
            return SshFailure::Target { ssh, target: self.target.clone(), text };
        }
        let lost = ["Connection timed out", "No route to host", "Network is unreachable", "Operation timed out"];
        if let Some(text) = has(&lost) {
            return SshFailure::Unreachable { ssh, text };
        }
        let text = lines.last().map_or("it ended without a message", |line| line).to_owned();
        SshFailure::Other { ssh, text }
    }
}

/// A connection to the remote: the standard streams of a `ssh -W`.
pub(super) struct SshStream {
    inner: Arc<Inner>,
    input: ChildStdin,
    output: ChildStdout,
    messages: ChildStderr,
    /// Dropped, and so killed, after its pipes are closed: otherwise the master, which holds these too, sometimes keeps
    /// the connection.
    _child: Child,
    received: bool,
    /// What ssh has said since the stream ended without a byte.
    failing: Option<Vec<u8>>,
}

impl Io for SshStream {
    fn tcp(&self) -> Option<&TcpStream> {
        None
    }
}

impl SshStream {
    /// Reads why `ssh` ended before a byte came.
    fn poll_failure(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let said = self.failing.get_or_insert_default();
        let mut piece = [0; 1 << 10];
        loop {
            let mut buffer = ReadBuf::new(&mut piece);
            let read = ready!(Pin::new(&mut self.messages).poll_read(cx, &mut buffer));
            if read.is_err() || buffer.filled().is_empty() || said.len() as u64 > MESSAGE {
                break;
            }
            said.extend_from_slice(buffer.filled());
        }
        let failure = self.inner.failure(&String::from_utf8_lossy(said));
        Poll::Ready(io::Error::other(Cause::Ssh(failure)))
    }
}

impl AsyncRead for SshStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.failing.is_none() {
            let before = buffer.filled().len();
            ready!(Pin::new(&mut this.output).poll_read(cx, buffer))?;
            if buffer.filled().len() > before {
                this.received = true;
            }
            if this.received || buffer.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
        }
        this.poll_failure(cx).map(Err)
    }
}

impl AsyncWrite for SshStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match ready!(Pin::new(&mut self.input).poll_write(cx, bytes)) {
            // Reading says why.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe && !self.received => self.poll_failure(cx).map(Err),
            written => Poll::Ready(written),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.input).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.input).poll_shutdown(cx)
    }
}
