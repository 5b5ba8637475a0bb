//! `cargo xtask headofline`: how late the chunks of 30 streams are while other clients send and receive very large bodies.
//!
//! A remote of its own stamps each chunk with the time at which it was written; the clients compare. Threads and sockets of the standard
//! library, so that nothing of what is measured does the measuring.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{built, step::Step};

const HELP: &str = "\
cargo xtask headofline [--seconds N] [--streams N] [--body MIB] [--clients N] [--limit MS] [--proxy FILE]

Opens streams through the proxy, 20 chunks a second each, and measures how late each chunk arrives: first alone, then while one other client
(--clients: several) sends chats with an image, chats of many messages and large batches of embeddings, and receives large embeddings and replies. Fails if the
99th percentile under load is above the limit (5 ms; 0 only reports).
";

/// Longer than a stream pauses, unless it hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// A chunk every so often.
const PACE: Duration = Duration::from_millis(50);

struct Options {
    seconds: u64,
    streams: usize,
    body: usize,
    clients: usize,
    limit: f64,
    proxy: Option<String>,
}

fn options(args: &[String]) -> Result<Options, String> {
    let mut options = Options { seconds: 10, streams: 30, body: 50, clients: 1, limit: 5.0, proxy: None };
    let mut args = args.iter();
    while let Some(flag) = args.next() {
        let value = args.next().ok_or_else(|| format!("{flag} needs a value\n\n{HELP}"))?;
        let wrong = |_| format!("invalid value {value:?} for {flag}: expected a number");
        match &**flag {
            "--seconds" => options.seconds = value.parse().map_err(wrong)?,
            "--streams" => options.streams = value.parse().map_err(wrong)?,
            "--body" => options.body = value.parse().map_err(wrong)?,
            "--clients" => options.clients = value.parse().map_err(wrong)?,
            "--limit" => options.limit = value.parse::<u32>().map_err(wrong)?.into(),
            "--proxy" => options.proxy = Some(value.clone()),
            other => return Err(format!("unknown flag {other}\n\n{HELP}")),
        }
    }
    Ok(options)
}

/// Measures.
pub(crate) fn run(args: &[String]) -> Result<(), String> {
    if args.iter().any(|arg| arg == "--help" || arg == "-h") {
        print!("{HELP}");
        return Ok(());
    }
    let options = options(args)?;
    let program = match &options.proxy {
        Some(file) => file.into(),
        None => {
            Step::cargo("build --release -p farllama").run()?;
            let debug = built("farllama").unwrap_or_default();
            debug.parent().and_then(|folder| folder.parent()).unwrap_or(&debug).join("release").join("farllama")
        }
    };
    let started = Instant::now();
    let remote = remote(started).map_err(|error| format!("cannot start a remote: {error}"))?;
    let remote = remote.to_string();
    let flags = ["--local-port", "0", "--log", "json", "--limits-fields", "0", "--remote-host", &remote];
    let proxy = Proxy::start(&program, &flags.map(str::to_owned))?;
    let fresh = proxy.memory("VmRSS:");
    let done = Arc::new(AtomicBool::new(false));
    let lags = Arc::new(Mutex::new(Vec::new()));
    let streams: Vec<_> = (0..options.streams)
        .map(|_| {
            let (done, lags, addr) = (done.clone(), lags.clone(), proxy.addr);
            thread::spawn(move || {
                while !done.load(Ordering::Relaxed) && stream(addr, "", PATIENCE, started, &lags, &done).is_ok() {}
            })
        })
        .collect();
    let collect =
        |lags: &Mutex<Vec<Duration>>| std::mem::take(&mut *lags.lock().unwrap_or_else(PoisonError::into_inner));
    thread::sleep(Duration::from_secs(1));
    collect(&lags);
    thread::sleep(Duration::from_secs(options.seconds));
    let alone = collect(&lags);
    let bodies = Arc::new(AtomicUsize::new(0));
    let failed = Arc::new(Mutex::new(Vec::new()));
    let requests = Arc::new(requests(options.body << 20));
    let load: Vec<_> = (0..options.clients)
        .map(|client| {
            let (done, bodies, failed, requests) = (done.clone(), bodies.clone(), failed.clone(), requests.clone());
            let addr = proxy.addr;
            thread::spawn(move || {
                for (name, request) in requests.iter().cycle().skip(client) {
                    match ask(addr, request) {
                        _ if done.load(Ordering::Relaxed) => return,
                        Ok(_) => bodies.fetch_add(1, Ordering::Relaxed),
                        Err(error) => {
                            return failed
                                .lock()
                                .unwrap_or_else(PoisonError::into_inner)
                                .push(format!("{name}: {error}"));
                        }
                    };
                }
            })
        })
        .collect();
    thread::sleep(Duration::from_secs(options.seconds));
    let loaded = collect(&lags);
    let bodies = bodies.load(Ordering::Relaxed);
    let peak = proxy.memory("VmHWM:");
    done.store(true, Ordering::Relaxed);
    load.into_iter().chain(streams).for_each(|thread| {
        let _ = thread.join();
    });
    let after: Vec<_> = (0..3)
        .map(|_| {
            thread::sleep(Duration::from_secs(10));
            format!("{} KiB", proxy.memory("VmRSS:"))
        })
        .collect();
    println!(
        "{} streams, a chunk every {} ms; late by (ms)    p50      p95      p99      max   chunks",
        options.streams,
        PACE.as_millis()
    );
    let p99 = [("alone", alone), ("under load", loaded)].map(|(name, lags)| report(name, lags));
    println!("{bodies} requests with {} MiB bodies or replies in {} s", options.body, options.seconds);
    println!(
        "resident memory: {fresh} KiB fresh, {peak} KiB at the peak, then {} after 10, 20 and 30 s",
        after.join(", ")
    );
    if let Some(failure) = failed.lock().unwrap_or_else(PoisonError::into_inner).first() {
        return Err(format!("a request failed: {failure}"));
    }
    if bodies == 0 {
        return Err("no large body went through; give it more seconds".to_owned());
    }
    match p99 {
        [_, p99] if options.limit > 0.0 && p99 > options.limit => {
            Err(format!("the 99th percentile under load is {p99:.1} ms, above {} ms", options.limit))
        }
        _ => Ok(()),
    }
}

/// Prints one row, and returns its 99th percentile in milliseconds.
fn report(name: &str, mut lags: Vec<Duration>) -> f64 {
    lags.sort_unstable();
    let at = |quantile: f64| {
        let last = lags.len().saturating_sub(1);
        let index = ((last as f64) * quantile).round() as usize;
        lags.get(index).map_or(f64::NAN, |lag| lag.as_secs_f64() * 1000.0)
    };
    println!("{name:>45} {:8.2} {:8.2} {:8.2} {:8.2} {:8}", at(0.5), at(0.95), at(0.99), at(1.0), lags.len());
    at(0.99)
}

/// The large requests, each with a name.
fn requests(size: usize) -> Vec<(&'static str, Vec<u8>)> {
    let post = |path: &str, body: String| {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        [head.into_bytes(), body.into_bytes()].concat()
    };
    let image = format!(
        r#"{{"model":"m","messages":[{{"role":"user","content":[{{"type":"text","text":"what is this?"}},{{"type":"image_url","image_url":{{"url":"data:image/png;base64,iVBORw0KGgo{}"}}}}]}}]}}"#,
        "A".repeat(size / 4 * 4 + 1)
    );
    let message = r#"{"role":"user","content":[{"type":"text","text":"How much is \"one\" and one?\nAnd two and two?"}]},{"role":"assistant","content":"Two, and four."}"#;
    let messages = vec![message; size / message.len()].join(",");
    let messages =
        format!(r#"{{"model":"m","messages":[{messages},{{"role":"user","content":"and?"}}],"temperature":0.5}}"#);
    // OpenAI takes 2,048 texts at most.
    let text = format!(r#""{}""#, "a text to be embedded ".repeat(size / 2000 / 22));
    let input = format!(r#"{{"model":"m","input":[{}]}}"#, vec![text; 2000].join(","));
    vec![
        ("chat with an image", post("/v1/chat/completions", image)),
        ("chat of many messages", post("/v1/chat/completions", messages.clone())),
        (
            "response to many messages",
            post("/v1/responses", messages.replacen("\"messages\"", "\"store\":false,\"input\"", 1)),
        ),
        ("embeddings of many texts", post("/v1/embeddings", input)),
        ("long embeddings", post("/v1/embeddings", format!(r#"{{"model":"long{size}","input":"x"}}"#))),
        (
            "long reply",
            post(
                "/v1/chat/completions",
                format!(r#"{{"model":"long{size}","messages":[{{"role":"user","content":"x"}}]}}"#),
            ),
        ),
    ]
}

/// Sends a request, and reads its whole response.
fn ask(addr: SocketAddr, request: &[u8]) -> Result<usize, String> {
    let text = |error: std::io::Error| error.to_string();
    let mut stream = TcpStream::connect(addr).map_err(text)?;
    stream.write_all(request).map_err(text)?;
    let mut reader = BufReader::with_capacity(1 << 20, stream);
    let mut status = String::new();
    reader.read_line(&mut status).map_err(text)?;
    if status.starts_with("HTTP/1.1 200") {
        return std::io::copy(&mut reader, &mut std::io::sink()).map(|size| size as usize).map_err(text);
    }
    let mut rest = String::new();
    reader.take(2000).read_to_string(&mut rest).map_err(text)?;
    Err(format!("{}: {}", status.trim_end(), rest.split("\r\n\r\n").nth(1).unwrap_or_default()))
}

/// Reads one stream through the proxy to its end, or until `done`, and notes how late each chunk was.
///
/// # Errors
/// Fails if the response is not 200, pauses for longer than `patience`, or does not end with `[DONE]`.
pub(crate) fn stream(
    addr: SocketAddr,
    key: &str,
    patience: Duration,
    started: Instant,
    lags: &Mutex<Vec<Duration>>,
    done: &AtomicBool,
) -> std::io::Result<()> {
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
            lags.lock().unwrap_or_else(PoisonError::into_inner).push(lag);
        }
        if line == "data: [DONE]" || done.load(Ordering::Relaxed) {
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
        if let Some(told) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = told.trim().parse().unwrap_or(0);
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

/// 200 chunks, each with the time at which it was written.
fn paced(mut writer: &TcpStream, started: Instant) -> std::io::Result<()> {
    write!(writer, "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n")?;
    let line = |content: &str, done: bool| {
        let end = if done { r#","done_reason":"stop","prompt_eval_count":1,"eval_count":1"# } else { "" };
        let line = format!(
            "{{\"model\":\"m\",\"created_at\":\"2026-11-22T12:37:41.5Z\",\"message\":{{\"role\":\"assistant\",\"content\":\"{content}\"}},\"done\":{done}{end}}}\n"
        );
        format!("{:x}\r\n{line}\r\n", line.len())
    };
    for _ in 0..200 {
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
    /// Bytes of its log.
    logged: Arc<AtomicUsize>,
}

impl Proxy {
    /// Starts `farllama serve` with `flags`, which make it log JSON, and waits until it listens.
    pub(crate) fn start(program: &std::path::Path, flags: &[String]) -> Result<Self, String> {
        let mut child = Command::new(program)
            .arg("serve")
            .args(flags)
            .env_clear()
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| format!("cannot start {}: {error}", program.display()))?;
        let mut log = BufReader::new(child.stderr.take().ok_or("no stderr")?).lines();
        let addr = loop {
            let line = log.next().and_then(Result::ok).ok_or("the proxy ended before it listened")?;
            let addr =
                line.split_once("\"ollama\":\"http://").and_then(|(_, rest)| rest.split('"').next()?.parse().ok());
            if let Some(addr) = addr {
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
        Ok(Self { child, addr, logged })
    }

    /// A line of the process's status, in KiB; 0 where there is none.
    pub(crate) fn memory(&self, line: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let found = status.lines().find_map(|text| text.strip_prefix(line));
        found.and_then(|text| text.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
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
