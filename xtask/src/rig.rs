//! What `headofline`, `siege` and `soak` measure with: a remote that stamps each chunk of a stream with the time at
//! which it was written, clients that compare, and a proxy of its own process. Threads and sockets of the standard
//! library, so that nothing of what is measured does the measuring.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{built, step::Step};

/// A chunk every so often.
pub(crate) const PACE: Duration = Duration::from_millis(50);

/// The proxy to measure: `given`, or the one of this repository, built now.
pub(crate) fn program(given: Option<&Path>, release: bool) -> Result<PathBuf, String> {
    if let Some(file) = given {
        return Ok(file.to_owned());
    }
    let (flag, profile) = if release { (" --release", "release") } else { ("", "debug") };
    Step::cargo(&format!("build{flag} -p farllama")).run()?;
    let debug = built("farllama").unwrap_or_default();
    Ok(debug.parent().and_then(Path::parent).unwrap_or(&debug).join(profile).join("farllama"))
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A quantile in milliseconds; not a number if there are no values.
pub(crate) fn quantile(values: &[Duration], quantile: f64) -> f64 {
    let mut values = values.to_vec();
    values.sort_unstable();
    let index = (values.len().saturating_sub(1) as f64 * quantile).round() as usize;
    values.get(index).map_or(f64::NAN, |value| value.as_secs_f64() * 1000.0)
}

/// Gives the calling thread a lower priority, where the system has renice(1) and threads with numbers of their own.
pub(crate) fn lower_priority() {
    let Ok(thread) = std::fs::read_link("/proc/thread-self") else { return };
    if let Some(id) = thread.file_name() {
        let _ = Command::new("renice")
            .args(["-n", "10", "-p"])
            .arg(id)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }
}

/// Clients that read one stream after another, and what they saw.
pub(crate) struct Streams {
    seen: Arc<Seen>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Seen {
    done: AtomicBool,
    lags: Mutex<Vec<Duration>>,
    failures: Mutex<Vec<String>>,
}

impl Streams {
    /// Starts `count` clients of `addr`, a proxy or the remote itself, where all times count from `started`.
    pub(crate) fn start(
        count: usize,
        addr: SocketAddr,
        key: &'static str,
        patience: Duration,
        started: Instant,
    ) -> Self {
        let seen = Arc::new(Seen::default());
        let threads = (0..count).map(|_| {
            let seen = seen.clone();
            thread::spawn(move || {
                while !seen.done.load(Ordering::Relaxed) {
                    if let Err(error) = stream(addr, key, patience, started, &seen) {
                        lock(&seen.failures).push(format!("stream: {error}"));
                        thread::sleep(Duration::from_millis(100));
                    }
                }
            })
        });
        let threads = threads.collect();
        Self { seen, threads }
    }

    /// How late each chunk was since this was asked last.
    pub(crate) fn lags(&self) -> Vec<Duration> {
        std::mem::take(&mut *lock(&self.seen.lags))
    }

    /// What failed since this was asked last.
    pub(crate) fn failures(&self) -> Vec<String> {
        std::mem::take(&mut *lock(&self.seen.failures))
    }

    /// Ends the clients.
    pub(crate) fn stop(self) {
        self.seen.done.store(true, Ordering::Relaxed);
        for thread in self.threads {
            let _ = thread.join();
        }
    }
}

/// Reads one stream to its end, or until it is done, and notes how late each chunk was.
///
/// # Errors
/// Fails if the response is not 200, pauses for longer than `patience`, or does not end with `[DONE]` or, at the remote
/// itself, with a line that says so.
fn stream(addr: SocketAddr, key: &str, patience: Duration, started: Instant, seen: &Seen) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&addr, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    let body = r#"{"model":"paced","stream":true,"messages":[{"role":"user","content":"hi"}]}"#;
    write!(
        stream,
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut status = None;
    for line in BufReader::new(stream).lines() {
        let (line, now) = (line?, started.elapsed());
        if !status.get_or_insert_with(|| line.clone()).contains(" 200") {
            return Err(std::io::Error::other(line));
        }
        // The content is the time at which the chunk was written, in microseconds.
        let stamp = line.split_once(r#""content":"@"#).and_then(|(_, rest)| rest.split('"').next()?.parse().ok());
        if let Some(stamp) = stamp {
            let lag = now.saturating_sub(Duration::from_micros(stamp));
            lock(&seen.lags).push(lag);
        }
        if line == "data: [DONE]" || line.contains(r#""done":true"#) || seen.done.load(Ordering::Relaxed) {
            return Ok(());
        }
    }
    Err(std::io::ErrorKind::UnexpectedEof.into())
}

/// A remote that streams stamped chunks, and answers large requests with little and small ones with much.
pub(crate) fn remote(started: Instant) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let addr = listener.local_addr()?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || while answer(&stream, started).is_ok() {});
        }
    });
    Ok(addr)
}

/// Answers one request of a connection; fails when it ends.
fn answer(stream: &TcpStream, started: Instant) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::with_capacity(256 << 10, stream);
    let (mut path, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end();
        if path.is_empty() {
            path = line.split(' ').nth(1).unwrap_or_default().to_owned();
        }
        if let Some(reported) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = reported.trim().parse().unwrap_or(0);
        }
        if line.is_empty() {
            break;
        }
    }
    let mut begin = vec![0; length.min(64)];
    reader.read_exact(&mut begin)?;
    std::io::copy(&mut reader.take((length - begin.len()) as u64), &mut std::io::sink())?;
    let begin = String::from_utf8_lossy(&begin);
    let long: Option<usize> = begin.split_once("\"long").and_then(|(_, rest)| rest.split('"').next()?.parse().ok());
    let mut writer = stream;
    if begin.contains("\"paced\"") {
        return paced(writer, started);
    }
    let body = match (&*path, long) {
        ("/api/embed", None) => {
            let vectors = vec!["[0.1,0.2]"; 2000].join(",");
            format!(r#"{{"model":"m","embeddings":[{vectors}],"prompt_eval_count":1}}"#)
        }
        ("/api/embed", Some(size)) => {
            let floats = vec!["-0.0123456789"; size / 14].join(",");
            format!(r#"{{"model":"m","embeddings":[[{floats}]],"prompt_eval_count":1}}"#)
        }
        ("/api/version", _) => r#"{"version":"0.33.0"}"#.to_owned(),
        (_, long) => {
            let text = "four ".repeat(long.unwrap_or(5) / 5);
            format!(
                r#"{{"model":"m","created_at":"2026-11-22T12:37:41.5Z","message":{{"role":"assistant","content":"{text}"}},"done":true,"done_reason":"stop","prompt_eval_count":1,"eval_count":1}}"#
            ) + "\n"
        }
    };
    write!(
        writer,
        "HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )?;
    writer.write_all(body.as_bytes())
}

/// How many chunks a stream has.
const CHUNKS: usize = 200;

/// [`CHUNKS`] chunks, each with the time at which it was written.
fn paced(mut writer: &TcpStream, started: Instant) -> std::io::Result<()> {
    write!(writer, "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n")?;
    let line = |content: &str, done: bool| {
        let end = if done { r#","done_reason":"stop","prompt_eval_count":1,"eval_count":1"# } else { "" };
        let line = format!(
            "{{\"model\":\"m\",\"created_at\":\"2026-11-22T12:37:41.5Z\",\"message\":{{\"role\":\"assistant\",\"content\":\"{content}\"}},\"done\":{done}{end}}}\n"
        );
        format!("{:x}\r\n{line}\r\n", line.len())
    };
    for _ in 0..CHUNKS {
        thread::sleep(PACE);
        let stamp = format!("@{}", started.elapsed().as_micros());
        writer.write_all(line(&stamp, false).as_bytes())?;
    }
    writer.write_all((line("", true) + "0\r\n\r\n").as_bytes())
}

/// A running proxy, which ends with this.
pub(crate) struct Proxy {
    child: Child,
    pub(crate) addr: SocketAddr,
    /// The address of its admin listener, if it has one.
    pub(crate) admin: Option<SocketAddr>,
    /// Bytes of its log.
    logged: Arc<AtomicUsize>,
}

impl Proxy {
    /// Starts `farllama serve` with `flags`, which make it log JSON, and waits until it listens.
    pub(crate) fn start(program: &Path, flags: &[String]) -> Result<Self, String> {
        Self::spawn(Command::new(program), flags)
    }

    /// The same, where `command` runs the proxy with the arguments that follow.
    pub(crate) fn spawn(mut command: Command, flags: &[String]) -> Result<Self, String> {
        let mut child = command
            .arg("serve")
            .args(flags)
            .env_clear()
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| format!("cannot start {}: {error}", command.get_program().display()))?;
        let mut log = BufReader::new(child.stderr.take().ok_or("no stderr")?).lines();
        let mut admin = None;
        let addr = loop {
            let line = log.next().and_then(Result::ok).ok_or("the proxy ended before it listened")?;
            let found = |name: &str| -> Option<SocketAddr> {
                let (_, rest) = line.split_once(&format!("\"{name}\":\"http://"))?;
                rest.split('"').next()?.parse().ok()
            };
            // The admin listener starts first.
            admin = admin.or_else(|| found("console"));
            if let Some(addr) = found("ollama") {
                break addr;
            }
        };
        // A pipe that is not read would fill up.
        let logged = Arc::new(AtomicUsize::new(0));
        let count = logged.clone();
        thread::spawn(move || {
            for line in log.map_while(Result::ok) {
                count.fetch_add(line.len(), Ordering::Relaxed);
            }
        });
        Ok(Self { child, addr, admin, logged })
    }

    /// A line of the process's status, in KiB; 0 where there is none.
    pub(crate) fn memory(&self, line: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let found = status.lines().find_map(|text| text.strip_prefix(line));
        found.and_then(|text| text.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
    }

    /// For how long the thread of its event loop has run, and has waited for a processor that others used; None where
    /// the system does not say.
    pub(crate) fn scheduled(&self) -> Option<(Duration, Duration)> {
        let status = std::fs::read_to_string(format!("/proc/{}/schedstat", self.child.id())).ok()?;
        let mut nanos = status.split_whitespace().map(|number| number.parse().map(Duration::from_nanos));
        Some((nanos.next()?.ok()?, nanos.next()?.ok()?))
    }

    /// How many descriptors it has open; 0 where the system does not say.
    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).map_or(0, Iterator::count)
    }

    /// Asks it to read its settings again.
    pub(crate) fn reload(&self) -> Result<(), String> {
        let pid = self.child.id().to_string();
        let asked = Command::new("kill").args(["-HUP", &pid]).status();
        asked.map(|_| ()).map_err(|error| format!("cannot start kill: {error}"))
    }

    /// Asks it to stop, and waits until it has.
    pub(crate) fn end(mut self) -> Result<(), String> {
        let pid = self.child.id().to_string();
        let asked = Command::new("kill").args(["-TERM", &pid]).status();
        asked.map_err(|error| format!("cannot start kill: {error}"))?;
        let ended = self.child.wait().map_err(|error| format!("the proxy did not end: {error}"))?;
        if ended.success() { Ok(()) } else { Err(format!("the proxy failed: {ended}")) }
    }

    /// The size of its log so far.
    pub(crate) fn logged(&self) -> usize {
        self.logged.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_sorted_values() {
        let values: Vec<_> = (0..=100).rev().map(Duration::from_millis).collect();
        assert!((quantile(&values, 0.99) - 99.0).abs() < 1e-9);
        assert!((quantile(&values, 0.5) - 50.0).abs() < 1e-9);
        assert!(quantile(&[], 0.5).is_nan());
    }

    #[test]
    fn streams_of_the_remote_itself_are_read_to_their_end() {
        let started = Instant::now();
        let seen = Seen::default();
        stream(remote(started).unwrap(), "", Duration::from_secs(60), started, &seen).unwrap();
        assert_eq!(lock(&seen.lags).len(), CHUNKS);
    }
}
