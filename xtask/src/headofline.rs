//! `cargo xtask headofline`: how late the chunks of 30 streams are while other clients send and receive very large
//! bodies.
//!
//! As many streams read the remote without the proxy at the same time: how late their chunks are is the noise of the
//! machine and of the load.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::rig::{self, PACE, Proxy, Streams, lock, quantile};

const HELP: &str = "\
cargo xtask headofline [--seconds N] [--streams N] [--body MIB] [--clients N] [--limit MS] [--proxy FILE]

Opens streams through the proxy, 20 chunks a second each, and measures how late each chunk arrives: first alone, then while one other client
(--clients: several) sends chats with an image, chats of many messages and large batches of embeddings, and receives large embeddings and
replies. As many streams go past the proxy at the same time: their lag is the noise of this machine under the load. Fails if the 99th
percentile under load exceeds that of the noise by more than the limit (5 ms; 0 only reports).
";

/// Longer than a stream pauses, unless it hangs.
const PATIENCE: Duration = Duration::from_secs(60);

struct Options {
    seconds: u64,
    streams: usize,
    body: usize,
    clients: usize,
    limit: f64,
    proxy: Option<PathBuf>,
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
            "--proxy" => options.proxy = Some(value.into()),
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
    let program = rig::program(options.proxy.as_deref(), true)?;
    let started = Instant::now();
    let remote = rig::remote(started).map_err(|error| format!("cannot start a remote: {error}"))?;
    let flags = ["--local-port", "0", "--log", "json", "--limits-fields", "0", "--remote-host", &remote.to_string()];
    let proxy = Proxy::start(&program, &flags.map(str::to_owned))?;
    let fresh = proxy.memory("VmRSS:");
    let streams = [proxy.addr, remote].map(|addr| Streams::start(options.streams, addr, "", PATIENCE, started));
    let lags = || streams.each_ref().map(Streams::lags);
    thread::sleep(Duration::from_secs(1));
    lags();
    thread::sleep(Duration::from_secs(options.seconds));
    let [alone, _] = lags();
    let scheduled = proxy.scheduled();
    let done = Arc::new(AtomicBool::new(false));
    let bodies = Arc::new(AtomicUsize::new(0));
    let failed = Arc::new(Mutex::new(Vec::new()));
    let requests = Arc::new(requests(options.body << 20));
    let load: Vec<_> = (0..options.clients)
        .map(|client| {
            let (done, bodies, failed, requests) = (done.clone(), bodies.clone(), failed.clone(), requests.clone());
            let addr = proxy.addr;
            thread::spawn(move || {
                rig::lower_priority();
                for (name, request) in requests.iter().cycle().skip(client) {
                    match ask(addr, request) {
                        _ if done.load(Ordering::Relaxed) => return,
                        Ok(_) => bodies.fetch_add(1, Ordering::Relaxed),
                        Err(error) => return lock(&failed).push(format!("{name}: {error}")),
                    };
                }
            })
        })
        .collect();
    thread::sleep(Duration::from_secs(options.seconds));
    let [loaded, noise] = lags();
    let bodies = bodies.load(Ordering::Relaxed);
    let (peak, loaded_schedule) = (proxy.memory("VmHWM:"), proxy.scheduled());
    done.store(true, Ordering::Relaxed);
    load.into_iter().for_each(|thread| {
        let _ = thread.join();
    });
    lock(&failed).extend(streams[0].failures());
    streams.into_iter().for_each(Streams::stop);
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
    let rows = [("alone", alone), ("under load", loaded), ("under load, past the proxy", noise)];
    let [_, p99, noise] = rows.map(|(name, lags)| report(name, &lags));
    println!("{bodies} requests with {} MiB bodies or replies in {} s", options.body, options.seconds);
    if let (Some((ran, waited)), Some((now_ran, now_waited))) = (scheduled, loaded_schedule) {
        let (ran, waited) = ((now_ran - ran).as_secs_f64(), (now_waited - waited).as_secs_f64());
        println!(
            "under load the thread of the event loop ran for {ran:.2} s, and waited {waited:.2} s for a processor"
        );
    }
    println!(
        "resident memory: {fresh} KiB fresh, {peak} KiB at the peak, then {} after 10, 20 and 30 s",
        after.join(", ")
    );
    if let Some(failure) = lock(&failed).first() {
        return Err(format!("a request failed: {failure}"));
    }
    if bodies == 0 {
        return Err("no large body went through; give it more seconds".to_owned());
    }
    let beyond = p99 - noise;
    if options.limit > 0.0 && beyond > options.limit {
        return Err(format!(
            "the 99th percentile under load is {p99:.1} ms, {beyond:.1} ms above the noise; at most {} ms are allowed",
            options.limit
        ));
    }
    Ok(())
}

/// Prints one row, and returns its 99th percentile in milliseconds.
fn report(name: &str, lags: &[Duration]) -> f64 {
    let [p50, p95, p99, max] = [0.5, 0.95, 0.99, 1.0].map(|at| quantile(lags, at));
    println!("{name:>45} {p50:8.2} {p95:8.2} {p99:8.2} {max:8.2} {:8}", lags.len());
    p99
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
        (
            "response to many messages, stored",
            post("/v1/responses", messages.replacen("\"messages\"", "\"store\":true,\"input\"", 1)),
        ),
        (
            "chat of many messages, stored",
            post("/v1/chat/completions", messages.replacen("\"messages\"", "\"store\":true,\"messages\"", 1)),
        ),
        ("embeddings of many texts", post("/v1/embeddings", input)),
        ("long embeddings", post("/v1/embeddings", format!(r#"{{"model":"long{size}","input":"x"}}"#))),
        (
            "long streamed reply",
            post(
                "/v1/chat/completions",
                format!(r#"{{"model":"long{size}","stream":true,"messages":[{{"role":"user","content":"x"}}]}}"#),
            ),
        ),
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
