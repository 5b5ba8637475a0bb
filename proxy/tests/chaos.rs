//! Seeded streams through a remote that misbehaves, read by clients that do as well: each ends exactly once and says
//! truthfully how, none has a byte that the remote did not send, and nothing is left over.
//!
//! `cargo xtask chaos --streams 10000 --seed 1` runs many; here is a short run. What happens to a stream depends on the
//! seed and its number alone, so a failure can be repeated: it names both.

#![allow(clippy::disallowed_methods, reason = "a test may start what it likes")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use farllama::{
    Config,
    config::{Limits, Timeouts},
    serve,
};
use support::{config, dice::Dice};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
};

/// Streams that are open at the same time.
const AT_ONCE: usize = 48;

/// A silent remote is given up after this long.
const IDLE: Duration = Duration::from_millis(400);

/// Longer than any stream takes.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lane {
    Native,
    Chat,
    Completions,
}

/// How the remote ends its response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Whole,
    /// The connection is closed at a random byte.
    Cut,
    /// The connection is reset at a random byte.
    Reset,
    /// Nothing more comes after a random byte.
    Stall,
    /// The chunks end in order, but the last line is not the one with `done`.
    Unfinished,
    /// A line with an error is the last.
    Error,
}

/// What the client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reader {
    Prompt,
    /// Reads a few bytes at a time, and pauses.
    Slow,
    /// Leaves after some bytes.
    Leaves(usize),
}

/// All that happens to one stream.
#[derive(Clone, Debug)]
struct Plan {
    lane: Lane,
    end: End,
    reader: Reader,
    /// The text of each line, in order; some come twice.
    words: Vec<String>,
    /// The response on the wire, up to where it breaks off.
    wire: Vec<u8>,
    /// Where it is divided into writes, and how many milliseconds pass before each.
    writes: Vec<(usize, u64)>,
    /// The lines within, without chunk framing, as far as they are whole.
    lines: Vec<u8>,
    /// Whether the line with `done` is whole in `wire`.
    done: bool,
}

impl Plan {
    fn of(seed: u64, n: usize) -> Self {
        let mut dice = Dice(seed ^ (n as u64).wrapping_mul(0x2545_f491_4f6c_dd1d));
        let lane = [Lane::Native, Lane::Chat, Lane::Completions][dice.roll(3)];
        let end = match dice.roll(12) {
            0 => End::Cut,
            1 => End::Reset,
            2 if dice.one_in(2) => End::Stall,
            3 => End::Unfinished,
            4 => End::Error,
            _ => End::Whole,
        };
        let reader = match dice.roll(8) {
            0 => Reader::Slow,
            1 => Reader::Leaves(dice.roll(2000)),
            _ => Reader::Prompt,
        };
        let mut words = Vec::new();
        for at in 0..dice.roll(40) {
            let most = if dice.one_in(10) { 3000 } else { 3 };
            let word = ["\u{1f999}", "w", "é", "\\\"", "long "][dice.roll(5)].repeat(1 + dice.roll(most));
            let word = format!("{n}.{at}{word}");
            if dice.one_in(12) {
                words.push(word.clone());
            }
            words.push(word);
        }
        let mut lines: Vec<String> = words.iter().map(|word| line(lane, word, false)).collect();
        match end {
            End::Unfinished => {}
            End::Error => lines.push("{\"error\":\"an error of this very stream\"}\n".to_owned()),
            _ => lines.push(line(lane, "", true)),
        }
        let mut wire = support::STREAM_HEAD.as_bytes().to_vec();
        let mut ends = Vec::new();
        for line in &lines {
            wire.extend(support::chunk(line));
            ends.push(wire.len());
        }
        wire.extend(support::STREAM_END.as_bytes());
        if matches!(end, End::Cut | End::Reset | End::Stall) {
            wire.truncate(dice.roll(wire.len()));
        }
        let whole = ends.iter().filter(|end| **end <= wire.len()).count();
        // A line is there once its own bytes are, whether the line break that ends its chunk has come or not.
        let last = ends.last().is_none_or(|end| *end <= wire.len() + "\r\n".len());
        let mut writes: Vec<_> = (0..dice.roll(6))
            .map(|_| (dice.roll(wire.len().max(1)), if dice.one_in(3) { dice.roll(20) as u64 } else { 0 }))
            .collect();
        writes.push((wire.len(), 0));
        writes.sort_unstable();
        let done = last && !matches!(end, End::Unfinished | End::Error);
        Self { lane, end, reader, lines: lines[..whole].concat().into_bytes(), words, wire, writes, done }
    }

    fn request(&self, n: usize) -> Vec<u8> {
        let prompt = format!("stream {n}.");
        let (path, body) = match self.lane {
            Lane::Native => {
                ("/api/chat", format!(r#"{{"model":"m","messages":[{{"role":"user","content":"{prompt}"}}]}}"#))
            }
            Lane::Chat => (
                "/v1/chat/completions",
                format!(r#"{{"model":"m","stream":true,"messages":[{{"role":"user","content":"{prompt}"}}]}}"#),
            ),
            Lane::Completions => ("/v1/completions", format!(r#"{{"model":"m","stream":true,"prompt":"{prompt}"}}"#)),
        };
        support::post(path, &body)
    }
}

/// One line of the remote.
fn line(lane: Lane, word: &str, done: bool) -> String {
    let end = if done { ",\"done_reason\":\"stop\",\"prompt_eval_count\":1,\"eval_count\":1" } else { "" };
    let content = match lane {
        Lane::Completions => format!("\"response\":\"{word}\""),
        Lane::Native | Lane::Chat => format!("\"message\":{{\"role\":\"assistant\",\"content\":\"{word}\"}}"),
    };
    format!("{{\"model\":\"m\",\"created_at\":\"2026-11-22T12:37:41.5Z\",{content},\"done\":{done}{end}}}\n")
}

/// Answers each connection's requests as their plans say, until it is stopped.
async fn remote(listener: TcpListener, seed: u64) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(serve_plans(stream, seed));
        while connections.try_join_next().is_some() {}
    }
}

async fn serve_plans(mut stream: TcpStream, seed: u64) {
    let mut request = Vec::new();
    let mut buffer = vec![0; 16 << 10];
    loop {
        let n = loop {
            let text = String::from_utf8_lossy(&request);
            let number = text.split_once("stream ").and_then(|(_, rest)| rest.split_once('.')?.0.parse().ok());
            if let Some(number) = number.filter(|_| text.ends_with('}')) {
                break number;
            }
            match stream.read(&mut buffer).await {
                Ok(n) if n > 0 => request.extend_from_slice(&buffer[..n]),
                _ => return,
            }
        };
        request.clear();
        let plan = Plan::of(seed, n);
        let mut written = 0;
        for (at, pause) in &plan.writes {
            tokio::time::sleep(Duration::from_millis(*pause)).await;
            if stream.write_all(&plan.wire[written..*at]).await.is_err() {
                return;
            }
            written = *at;
        }
        match plan.end {
            End::Cut => return,
            End::Reset => {
                let _ = stream.set_zero_linger();
                return;
            }
            End::Stall => {
                // Until the proxy gives up.
                while stream.read(&mut buffer).await.is_ok_and(|n| n > 0) {}
                return;
            }
            End::Whole | End::Unfinished | End::Error => {}
        }
    }
}

/// Sends the request of stream `n`, and reads its response as the plan says. None: the client left.
async fn read(proxy: SocketAddr, plan: &Plan, n: usize) -> Option<Vec<u8>> {
    let mut stream = TcpStream::connect(proxy).await.unwrap();
    let request = String::from_utf8(plan.request(n)).unwrap().replacen("\r\n", "\r\nConnection: close\r\n", 1);
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut got = Vec::new();
    let mut buffer = vec![0; if plan.reader == Reader::Slow { 900 } else { 16 << 10 }];
    loop {
        match stream.read(&mut buffer).await {
            Ok(n) if n > 0 => got.extend_from_slice(&buffer[..n]),
            // A reset ends a response too; whether it may is judged by what came.
            _ => return Some(got),
        }
        match plan.reader {
            Reader::Slow => tokio::time::sleep(Duration::from_millis(2)).await,
            Reader::Leaves(after) if got.len() >= after => return None,
            Reader::Prompt | Reader::Leaves(_) => {}
        }
    }
}

/// Takes a response apart: its status, its body without chunk framing, and whether it ended in order.
fn response(bytes: &[u8]) -> Result<(u16, Vec<u8>, bool), String> {
    let head = bytes.windows(4).position(|window| window == b"\r\n\r\n").ok_or("no response head")?;
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or("no status")?;
    let mut rest = &bytes[head + 4..];
    let length = text.split("\r\n").find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
    if let Some(length) = length {
        return Ok((status, rest.to_vec(), rest.len() == length));
    }
    let mut body = Vec::new();
    loop {
        let Some(end) = rest.windows(2).position(|window| window == b"\r\n") else { return Ok((status, body, false)) };
        let size = std::str::from_utf8(&rest[..end]).ok().and_then(|size| usize::from_str_radix(size, 16).ok());
        let size = size.ok_or("a chunk without a size")?;
        rest = &rest[end + 2..];
        if size == 0 {
            return Ok((status, body, rest == b"\r\n"));
        }
        body.extend_from_slice(&rest[..rest.len().min(size)]);
        if rest.len() < size + 2 {
            return Ok((status, body, false));
        }
        rest = &rest[size + 2..];
    }
}

/// Why the response to a stream is not what its plan allows.
fn judge(plan: &Plan, bytes: &[u8]) -> Result<(), String> {
    let (status, body, whole) = response(bytes)?;
    if status >= 500 {
        // Refused before the first byte: only where nothing of a response could have come. A reset discards what was
        // received and not yet read, so that even a whole head may be lost.
        let early = plan.end == End::Reset
            || (plan.end != End::Whole && (plan.lane != Lane::Native || plan.wire.len() < support::STREAM_HEAD.len()));
        return if early && whole { Ok(()) } else { Err(format!("refused with {status}")) };
    }
    if status != 200 {
        return Err(format!("status {status}"));
    }
    if plan.lane == Lane::Native {
        let all: Vec<u8> = {
            let ended = Plan { ..plan.clone() };
            let mut lines: Vec<u8> =
                ended.words.iter().flat_map(|word| line(plan.lane, word, false).into_bytes()).collect();
            match plan.end {
                End::Unfinished => {}
                End::Error => lines.extend(b"{\"error\":\"an error of this very stream\"}\n"),
                _ => lines.extend(line(plan.lane, "", true).into_bytes()),
            }
            lines
        };
        // What the proxy adds to a stream that fails between two lines.
        let added = body.iter().rposition(|byte| *byte == b'{').filter(|at| body[*at..].starts_with(b"{\"error\":\""));
        let (body, reported) = match added.filter(|_| plan.end != End::Error) {
            Some(at) => (&body[..at], true),
            None => (&*body, false),
        };
        if !all.starts_with(body) {
            return Err("a byte that the remote did not send".to_owned());
        }
        let between = body.ends_with(b"\n") || body.is_empty();
        let fails = matches!(plan.end, End::Cut | End::Stall | End::Unfinished) && body != all;
        let fails = fails || plan.end == End::Unfinished;
        if reported && !(between && body.len() < all.len() || plan.end == End::Unfinished) {
            return Err("an error is reported within a line, or after the last".to_owned());
        }
        if fails && between && !reported && plan.reader == Reader::Prompt {
            return Err("the failure is not reported".to_owned());
        }
        return match plan.end {
            End::Whole | End::Error if !(whole && body == all) => Err(format!("not the whole of it; whole: {whole}")),
            End::Cut | End::Reset | End::Stall if whole && body != all => Err("a cut stream ended in order".to_owned()),
            End::Cut | End::Reset | End::Stall if !body.starts_with(&plan.lines) && plan.end != End::Reset => {
                Err("a whole line of a cut stream is missing".to_owned())
            }
            _ => Ok(()),
        };
    }
    if !whole {
        return Err("an event stream that does not end in order".to_owned());
    }
    let text = String::from_utf8(body).map_err(|_| "not UTF-8")?;
    let (mut said, mut finishes, mut ends) = (String::new(), 0, Vec::new());
    for event in text.split("\n\n").filter(|event| !event.is_empty() && !event.starts_with(':')) {
        let data = event.lines().find_map(|line| line.strip_prefix("data: ")).ok_or(format!("no data in {event:?}"))?;
        if !ends.is_empty() {
            return Err(format!("{event:?} after the end"));
        }
        if data == "[DONE]" {
            ends.push(true);
            continue;
        }
        let value: serde_json::Value = serde_json::from_str(data).map_err(|error| format!("{error}: {data}"))?;
        if value.get("error").is_some() {
            ends.push(false);
            continue;
        }
        let choice = &value["choices"][0];
        said += choice["delta"]["content"].as_str().or(choice["text"].as_str()).unwrap_or_default();
        finishes += usize::from(choice["finish_reason"].is_string());
    }
    let word = |word: &String| serde_json::from_str::<String>(&format!("\"{word}\"")).unwrap();
    let all: String = plan.words.iter().map(word).collect();
    match (&*ends, finishes) {
        ([true], 1) if plan.done && said == all => Ok(()),
        ([true], 1) => Err(format!("ended well; done: {}, text whole: {}", plan.done, said == all)),
        ([false], 0) if plan.end != End::Whole && all.starts_with(&said) => Ok(()),
        _ => Err(format!("ends {ends:?}, {finishes} finish reasons, text is a prefix: {}", all.starts_with(&said))),
    }
}

/// Descriptors that this process has open.
fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

fn setting(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(usual)
}

#[tokio::test]
async fn every_stream_ends_exactly_once_with_no_wrong_byte_and_nothing_is_left_over() {
    let (streams, seed) = (setting("CHAOS_STREAMS", 300) as usize, setting("CHAOS_SEED", 1));
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let (descriptors_before, tasks_before) = (descriptors(), tasks());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let remote = tokio::spawn(remote(listener, seed));
    let timeouts = Timeouts { idle: IDLE, first_byte: 4 * IDLE, ..Timeouts::default() };
    let limits = Limits { write_idle: PATIENCE, ..Limits::default() };
    let proxy = serve(Config { timeouts, limits, ..config(addr) }).await.unwrap();
    let proxy_addr = proxy.addr();
    let permits = Arc::new(Semaphore::new(AT_ONCE));
    let mut clients = JoinSet::new();
    for n in 0..streams {
        let permit = permits.clone().acquire_owned().await.unwrap();
        clients.spawn(async move {
            let plan = Plan::of(seed, n);
            let reading = tokio::time::timeout(PATIENCE, read(proxy_addr, &plan, n)).await;
            drop(permit);
            let why = match reading {
                Err(_) => Err("no end in time".to_owned()),
                Ok(None) => Ok(()),
                Ok(Some(bytes)) => {
                    judge(&plan, &bytes).map_err(|why| format!("{why}\n{}", String::from_utf8_lossy(&bytes)))
                }
            };
            (n, plan, why)
        });
    }
    let (mut failed, mut ends) = (Vec::new(), std::collections::BTreeMap::<String, usize>::new());
    while let Some(ended) = clients.join_next().await {
        let (n, plan, why) = ended.unwrap();
        *ends.entry(format!("{:?}", plan.end)).or_default() += 1;
        if let Err(why) = why {
            failed.push(format!("seed {seed}, stream {n} ({:?}, {:?}, {:?}): {why}", plan.lane, plan.end, plan.reader));
        }
    }
    println!("{streams} streams of seed {seed}: {ends:?}");
    assert!(failed.is_empty(), "{} failed, the first: {}", failed.len(), failed[0]);
    proxy.stop(Duration::from_secs(5)).await;
    remote.abort();
    let _ = remote.await;
    let gone = async {
        while (descriptors(), tasks()) > (descriptors_before, tasks_before) || tasks() > tasks_before {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let left = tokio::time::timeout(Duration::from_secs(5), gone).await;
    assert!(
        left.is_ok(),
        "left over: {} descriptors, {} tasks",
        descriptors() - descriptors_before,
        tasks() - tasks_before
    );
}
