//! Processes that are measured: pinned to a core, and what the kernel says of them.

use std::{
    fs::{self, File},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};

/// A process that ends with this value.
pub(crate) struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // SIGTERM first: nginx's master ends its worker.
        let _ = Command::new("kill").arg(self.0.id().to_string()).stderr(Stdio::null()).status();
        for _ in 0..100 {
            if matches!(self.0.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    /// Starts `program` on one core, with what it prints in `log`.
    ///
    /// # Errors
    /// It cannot be started.
    pub(crate) fn start(core: Option<usize>, program: &Path, args: &[&str], log: &Path) -> Result<Self> {
        let mut command = match core {
            Some(core) => {
                let mut command = Command::new("taskset");
                command.args(["-c", &core.to_string()]).arg(program);
                command
            }
            None => Command::new(program),
        };
        let log = File::create(log)?;
        let child = command
            .args(args)
            .env_clear()
            // Debian keeps nginx where only root looks.
            .env("PATH", format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default()))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        Ok(Self(child))
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    /// Waits until something listens at `port`.
    ///
    /// # Errors
    /// The process ends, or ten seconds pass.
    pub(crate) fn listens(&mut self, port: u16) -> Result<()> {
        for _ in 0..1000 {
            if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Ok(());
            }
            if let Some(status) = self.0.try_wait()? {
                bail!("it ended at once ({status})");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        bail!("nothing listens at port {port} after ten seconds")
    }
}

/// A process and its descendants.
pub(crate) fn tree(process: u32) -> Vec<u32> {
    let mut all = vec![process];
    let mut at = 0;
    while let Some(parent) = all.get(at) {
        let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
        all.extend(children.split_whitespace().filter_map(|id| id.parse::<u32>().ok()));
        at += 1;
    }
    all
}

/// The time that a process and its descendants have run, in nanoseconds.
pub(crate) fn cpu(process: u32) -> u64 {
    let threads =
        tree(process).into_iter().filter_map(|id| fs::read_dir(format!("/proc/{id}/task")).ok()).flatten().flatten();
    threads
        .filter_map(|thread| fs::read_to_string(thread.path().join("schedstat")).ok())
        .filter_map(|text| text.split_whitespace().next()?.parse::<u64>().ok())
        .sum()
}

/// The resident memory of a process and its descendants, in MB.
pub(crate) fn resident(process: u32) -> f64 {
    let pages: u64 = tree(process)
        .into_iter()
        .filter_map(|id| fs::read_to_string(format!("/proc/{id}/status")).ok())
        .filter_map(|text| {
            let line = text.lines().find(|line| line.starts_with("VmRSS:"))?.to_owned();
            line.split_whitespace().nth(1)?.parse::<u64>().ok()
        })
        .sum();
    pages as f64 / 1024.0
}

/// Counts the system calls of a process and its descendants until it is stopped. Needs `strace`.
pub(crate) struct SystemCalls {
    strace: Child,
    out: tempfile::NamedTempFile,
}

impl SystemCalls {
    /// Begins to count.
    ///
    /// # Errors
    /// There is no `strace`, or it may not trace.
    pub(crate) fn start(process: u32) -> Result<Self> {
        let out = tempfile::NamedTempFile::new()?;
        let mut command = Command::new("strace");
        command.args(["-f", "-c", "-q", "-o"]).arg(out.path());
        for id in tree(process) {
            command.args(["-p", &id.to_string()]);
        }
        let strace = command.stderr(Stdio::null()).spawn().context("strace")?;
        std::thread::sleep(Duration::from_millis(500));
        Ok(Self { strace, out })
    }

    /// How many there were.
    ///
    /// # Errors
    /// `strace` says nothing.
    pub(crate) fn stop(mut self) -> Result<u64> {
        Command::new("kill").args(["-INT", &self.strace.id().to_string()]).status()?;
        self.strace.wait()?;
        let text = fs::read_to_string(self.out.path())?;
        let total = text.lines().find(|line| line.ends_with(" total")).context("strace counted nothing")?;
        // "100.00  0.001  1  123  total", with errors before the last word if there were any.
        total
            .split_whitespace()
            .nth(3)
            .and_then(|calls| calls.parse().ok())
            .context("no number of calls in strace's summary")
    }
}
