//! `cargo xtask soak`: everything at once, for long: native chats, chats and streams of `OpenAI`'s, responses,
//! embeddings, clients that hang up, a key with a quota, reloads, and a remote that comes and goes. Every response is
//! checked; memory and descriptors must stay flat.
//!
//! The proxy and its remotes are processes of their own; the clients are threads and sockets of the standard library.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    rig::{self, Proxy, lock},
    step::Step,
};

const HELP: &str = "\
cargo xtask soak [--minutes N] [--release]

Mixed load through the proxy in front of three remotes (mock-ollama), one of which is killed and started again, for N minutes (2). Prints what
became of the requests of each kind, and memory and descriptors over time. Fails if a response is wrong or lost that need not be, if a quota
admits more than it may, if memory or descriptors grow, or if anything is left over at the end.
";

/// Longer than any request takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long the remote that comes and goes is there, and how long it is not.
const THERE: Duration = Duration::from_secs(6);
const GONE: Duration = Duration::from_secs(3);

/// How often the settings are read again.
const RELOAD: Duration = Duration::from_secs(5);

/// How often memory and descriptors are noted.
const SAMPLE: Duration = Duration::from_secs(2);

/// Requests in a window of a minute of the key that has a quota.
const QUOTA: usize = 30;

const FREE: &str = "soak-free-key-0123456789abcdef";
const LIMITED: &str = "soak-limited-key-0123456789abcdef";

/// Growth of memory that is none: what a full pool and full caches add, in MB.
const MEMORY: f64 = 12.0;
/// The same of descriptors: idle connections to three remotes.
const DESCRIPTORS: usize = 24;

/// A kind of request.
struct Kind {
    name: &'static str,
    path: &'static str,
    /// `{n}` is the request's own number.
    body: &'static str,
    /// What the whole response ends with, or has.
    end: &'static str,
    /// Where the model's text is.
    text: &'static str,
    key: &'static str,
    /// Leaves after some bytes.
    hangs_up: bool,
    pause: Duration,
}

const KIND: Kind = Kind {
    name: "",
    path: "/api/chat",
    body: r#"{"model":"smollm2:135m","messages":[{"role":"user","content":"soak-{n}-end apples"}]}"#,
    end: "\"done\":true",
    text: "\"content\":\"",
    key: FREE,
    hangs_up: false,
    pause: Duration::from_millis(10),
};

const KINDS: [Kind; 9] = [
    Kind {
        name: "native chat",
        body: r#"{"model":"smollm2:135m","stream":false,"messages":[{"role":"user","content":"soak-{n}-end apples"}]}"#,
        ..KIND
    },
    Kind { name: "native stream", ..KIND },
    Kind { name: "chat", path: "/v1/chat/completions", end: "finish_reason", ..KIND },
    Kind {
        name: "stream",
        path: "/v1/chat/completions",
        body: r#"{"model":"smollm2:135m","stream":true,"messages":[{"role":"user","content":"soak-{n}-end apples"}]}"#,
        end: "data: [DONE]",
        ..KIND
    },
    Kind {
        name: "response",
        path: "/v1/responses",
        body: r#"{"model":"smollm2:135m","input":"soak-{n}-end apples"}"#,
        end: "\"status\":\"completed\"",
        text: "\"text\":\"",
        ..KIND
    },
    Kind {
        name: "embedding",
        path: "/v1/embeddings",
        body: r#"{"model":"all-minilm","input":"soak-{n}-end apples"}"#,
        end: "\"object\":\"list\"",
        text: "",
        ..KIND
    },
    Kind {
        name: "model that is nowhere",
        body: r#"{"model":"nowhere","messages":[]}"#,
        end: "not found on any remote",
        text: "",
        ..KIND
    },
    Kind { name: "hang-up", hangs_up: true, ..KIND },
    Kind { name: "limited key", key: LIMITED, pause: Duration::from_millis(700), ..KIND },
];

/// What became of the requests of one kind.
#[derive(Clone, Copy, Default)]
struct Tally {
    whole: usize,
    /// Cut while the remote that comes and goes left.
    cut: usize,
    /// Refused by a quota.
    refused: usize,
}

/// What all threads share.
struct Field {
    proxy: SocketAddr,
    over: AtomicBool,
    next: AtomicU64,
    /// Counts how often the remote was killed.
    kills: AtomicUsize,
    tallies: Mutex<BTreeMap<&'static str, Tally>>,
    /// When requests of the limited key were admitted.
    admitted: Mutex<Vec<Instant>>,
    wrong: Mutex<Vec<String>>,
}

/// A remote of its own process, which ends with this.
struct Remote(Child);

impl Remote {
    fn start(program: &Path, port: u16) -> Result<Self, String> {
        let child = Command::new(program)
            .args(["--quiet", "--chaos", "seed=1,slow=0.1,split=0.1", "--port", &port.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("cannot start {}: {error}", program.display()))?;
        let remote = Self(child);
        let until = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if Instant::now() > until {
                return Err("a remote does not listen".to_owned());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(remote)
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A port that was free a moment ago.
fn free_port() -> Result<u16, String> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
    listener.local_addr().map(|addr| addr.port()).map_err(|error| error.to_string())
}

/// Runs it.
pub(crate) fn run(args: &[String]) -> Result<(), String> {
    let (mut minutes, mut release) = (2.0, false);
    let mut args = args.iter();
    while let Some(flag) = args.next() {
        match &**flag {
            "--help" | "-h" => {
                print!("{HELP}");
                return Ok(());
            }
            "--release" => release = true,
            "--minutes" => {
                let given = args.next().and_then(|value| value.parse::<f64>().ok());
                minutes = given
                    .filter(|minutes| (0.1..=600.0).contains(minutes))
                    .ok_or("--minutes needs a number from 0.1 to 600")?;
            }
            other => return Err(format!("unknown flag {other}\n\n{HELP}")),
        }
    }
    let program = rig::program(None, release)?;
    Step::cargo(&format!("build{} -p mock-ollama", if release { " --release" } else { "" })).run()?;
    let mock = program.with_file_name("mock-ollama");
    soak(&program, &mock, Duration::from_secs_f64(minutes * 60.0))
}

fn settings(ports: &[u16], queue: usize) -> String {
    let mut text = format!(
        "[local]\nport = 0\n[admin]\nenabled = false\n[log]\nformat = \"json\"\n[health]\ninterval = \"1s\"\n[quota]\nqueue = {queue}\n\
         [auth]\nenabled = true\nkeys = [{{ key = \"{FREE}\" }}, {{ key = \"{LIMITED}\", limit_per_minute = {QUOTA} }}]\n"
    );
    for (port, name) in ports.iter().zip('a'..) {
        let _ = write!(text, "[[remotes]]\nname = \"{name}\"\nurl = \"http://127.0.0.1:{port}\"\n");
    }
    text
}

fn soak(program: &Path, mock: &Path, length: Duration) -> Result<(), String> {
    let folder = crate::root().join("target").join("soak");
    std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    let file = folder.join("farllama.toml");
    let ports = [free_port()?, free_port()?, free_port()?];
    let write = |queue| std::fs::write(&file, settings(&ports, queue)).map_err(|error| error.to_string());
    write(100)?;
    let steady = [Remote::start(mock, ports[1])?, Remote::start(mock, ports[2])?];
    // The first of the settings is the one that comes and goes: it is preferred while it is there.
    let mortal = Remote::start(mock, ports[0])?;
    let proxy = Proxy::start(program, &["--config".to_owned(), file.display().to_string()])?;
    let field = Arc::new(Field {
        proxy: proxy.addr,
        over: AtomicBool::new(false),
        next: AtomicU64::new(0),
        kills: AtomicUsize::new(0),
        tallies: Mutex::default(),
        admitted: Mutex::default(),
        wrong: Mutex::default(),
    });
    let mut threads: Vec<_> = KINDS
        .iter()
        .map(|kind| {
            let field = field.clone();
            thread::spawn(move || ask_on(&field, kind))
        })
        .collect();
    let (killer, kills, mock, port) = (field.clone(), field.clone(), mock.to_owned(), ports[0]);
    threads.push(thread::spawn(move || come_and_go(&killer, &mock, port, mortal)));
    let started = Instant::now();
    let (mut reloads, mut samples) = (0, Vec::new());
    let mut next_reload = started + RELOAD;
    while started.elapsed() < length {
        thread::sleep(SAMPLE);
        samples.push(Sample {
            at: started.elapsed(),
            memory: proxy.memory("VmRSS:") as f64 / 1024.0,
            descriptors: proxy.descriptors(),
        });
        if Instant::now() >= next_reload {
            reloads += 1;
            write(100 + reloads % 2)?;
            proxy.reload()?;
            next_reload = Instant::now() + RELOAD;
        }
    }
    field.over.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().map_err(|_| "a client failed")?;
    }
    thread::sleep(Duration::from_secs(3));
    let rest = proxy.descriptors();
    let mut wrong = std::mem::take(&mut *lock(&field.wrong));
    let growth = growth(&samples);
    println!(
        "{:.1} minutes, {} kills, {reloads} reloads",
        length.as_secs_f64() / 60.0,
        kills.kills.load(Ordering::Relaxed)
    );
    println!("| requests | whole | cut while a remote left | refused by the quota |\n|---|---|---|---|");
    for (name, Tally { whole, cut, refused }) in &*lock(&field.tallies) {
        println!("| {name} | {whole} | {cut} | {refused} |");
        if *whole == 0 {
            wrong.push(format!("{name}: none was whole"));
        }
    }
    println!("| minute | memory, MB | descriptors |\n|---|---|---|");
    for sample in samples.iter().step_by((samples.len() / 12).max(1)) {
        println!("| {:.1} | {:.1} | {} |", sample.at.as_secs_f64() / 60.0, sample.memory, sample.descriptors);
    }
    println!("memory grew by {:.1} MB, descriptors by {}; {rest} descriptors are left when idle", growth.0, growth.1);
    wrong.extend(over_quota(&lock(&field.admitted)));
    if growth.0 > MEMORY {
        wrong.push(format!("memory grew by {:.1} MB", growth.0));
    }
    if growth.1 > DESCRIPTORS as i64 {
        wrong.push(format!("descriptors grew by {}", growth.1));
    }
    drop(steady);
    proxy.end()?;
    if wrong.is_empty() { Ok(()) } else { Err(format!("{} findings, the first:\n{}", wrong.len(), wrong[0])) }
}

/// What the proxy had at one time.
struct Sample {
    at: Duration,
    /// MB.
    memory: f64,
    descriptors: usize,
}

/// How much memory, in MB, and how many descriptors the last third has more than the one before it; the first is for
/// warming up.
fn growth(samples: &[Sample]) -> (f64, i64) {
    let third = samples.len() / 3;
    let median = |part: &[Sample], of: fn(&Sample) -> f64| {
        let mut values: Vec<f64> = part.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(0.0)
    };
    let (before, after) = (&samples[third..2 * third], &samples[2 * third..]);
    let grew = |of| median(after, of) - median(before, of);
    (grew(|sample| sample.memory), grew(|sample| sample.descriptors as f64) as i64)
}

/// What the quota admitted too much.
fn over_quota(admitted: &[Instant]) -> Option<String> {
    // The clients' clock is not the proxy's: a window that is a little shorter must not have more.
    let window = Duration::from_millis(59_500);
    let most =
        admitted.iter().map(|from| admitted.iter().filter(|at| *at >= from && **at < *from + window).count()).max();
    most.filter(|most| *most > QUOTA).map(|most| format!("the quota of {QUOTA} a minute admitted {most}"))
}

/// Kills the remote on `port` and starts it again, until it is over.
fn come_and_go(field: &Field, mock: &Path, port: u16, remote: Remote) {
    let mut remote = Some(remote);
    let rest = |length: Duration| {
        let until = Instant::now() + length;
        while Instant::now() < until && !field.over.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(50));
        }
    };
    while !field.over.load(Ordering::Relaxed) {
        rest(THERE);
        field.kills.fetch_add(1, Ordering::SeqCst);
        drop(remote.take());
        rest(GONE);
        match Remote::start(mock, port) {
            Ok(started) => remote = Some(started),
            Err(error) => lock(&field.wrong).push(error),
        }
    }
}

/// Sends requests of one kind until it is over.
fn ask_on(field: &Field, kind: &'static Kind) {
    while !field.over.load(Ordering::Relaxed) {
        let (n, kills, sent) =
            (field.next.fetch_add(1, Ordering::Relaxed), field.kills.load(Ordering::SeqCst), Instant::now());
        let asked = ask(field.proxy, kind, n);
        let killed = field.kills.load(Ordering::SeqCst) > kills;
        let mut change = Tally::default();
        match asked.and_then(|response| judge(kind, n, &response)) {
            Ok(Judged::Whole) => {
                change.whole = 1;
                if kind.key == LIMITED {
                    lock(&field.admitted).push(sent);
                }
            }
            Ok(Judged::Refused) => change.refused = 1,
            // What was running on it is cut: after the first byte no other remote takes over.
            Err(_) if killed => change.cut = 1,
            Err(error) => lock(&field.wrong).push(format!("{}, request {n}: {error}", kind.name)),
        }
        let mut tallies = lock(&field.tallies);
        let tally = tallies.entry(kind.name).or_default();
        (tally.whole, tally.cut) = (tally.whole + change.whole, tally.cut + change.cut);
        tally.refused += change.refused;
        drop(tallies);
        thread::sleep(kind.pause);
    }
}

/// Sends one request, and reads its response; of one that hangs up the beginning.
fn ask(proxy: SocketAddr, kind: &Kind, n: u64) -> Result<Vec<u8>, String> {
    let asking = || -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect_timeout(&proxy, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let body = kind.body.replace("{n}", &n.to_string());
        write!(
            stream,
            "POST {} HTTP/1.1\r\nHost: localhost\r\nx-api-key: {}\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            kind.path,
            kind.key,
            body.len()
        )?;
        let mut response = Vec::new();
        if kind.hangs_up {
            let mut begin = [0; 300];
            let read = stream.read(&mut begin)?;
            response.extend_from_slice(&begin[..read]);
        } else {
            stream.read_to_end(&mut response)?;
        }
        Ok(response)
    };
    asking().map_err(|error| error.to_string())
}

enum Judged {
    Whole,
    /// By the quota.
    Refused,
}

/// Checks a response.
fn judge(kind: &Kind, n: u64, response: &[u8]) -> Result<Judged, String> {
    let text = String::from_utf8_lossy(response).into_owned();
    let status = text.split(' ').nth(1).unwrap_or_default();
    let fail = |what: &str| Err(format!("{what}: {}", &text[..text.len().min(2000)]));
    if status == "429" && kind.key == LIMITED {
        return Ok(Judged::Refused);
    }
    if kind.text.is_empty() && kind.end.contains("not found") {
        return if status == "404" && text.contains(kind.end) { Ok(Judged::Whole) } else { fail("no 404") };
    }
    if status != "200" {
        return fail("no 200");
    }
    if kind.hangs_up {
        return Ok(Judged::Whole);
    }
    let Some(body) = body(response) else { return fail("not whole") };
    if !body.contains(kind.end) {
        return fail("no end");
    }
    if !kind.text.is_empty() {
        let said: String = body.split(kind.text).skip(1).map(until_quote).collect();
        let own = format!("soak-{n}-end");
        if !said.contains(&own) || said.matches("soak-").count() != said.matches(&own).count() {
            return fail(&format!("it says {said:?}"));
        }
    }
    Ok(Judged::Whole)
}

/// A JSON string up to its closing quote.
fn until_quote(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => break,
            '\\' => out.extend(chars.next()),
            c => out.push(c),
        }
    }
    out
}

/// The body of a response, if it came to its end.
fn body(response: &[u8]) -> Option<String> {
    let at = response.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&response[..at]).to_ascii_lowercase();
    let mut rest = &response[at + 4..];
    let length = head.split("\r\n").find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
    let mut body = Vec::new();
    match length {
        Some(length) if rest.len() == length => body.extend_from_slice(rest),
        Some(_) => return None,
        None => loop {
            let end = rest.windows(2).position(|window| window == b"\r\n")?;
            let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).ok()?, 16).ok()?;
            rest = rest.get(end + 2..)?;
            body.extend_from_slice(rest.get(..size)?);
            rest = rest.get(size + 2..)?;
            if size == 0 {
                break;
            }
        },
    }
    String::from_utf8(body).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_of_another_request_or_without_its_end_is_wrong() {
        let kind = &KINDS[2];
        let response =
            |body: &str| format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes();
        let right = r#"{"content":"I was asked \"soak-7-end apples\"","finish_reason":"stop"}"#;
        assert!(judge(kind, 7, &response(right)).is_ok());
        assert!(judge(kind, 8, &response(right)).is_err());
        assert!(judge(kind, 7, &response(&right.replace("finish_reason", "x"))).is_err());
        assert!(judge(kind, 7, &response(right)[..80]).is_err());
        assert!(judge(kind, 7, b"HTTP/1.1 502 Bad Gateway\r\n\r\n").is_err());
        let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
        assert_eq!(body(chunked).as_deref(), Some("abc"));
        assert_eq!(body(&chunked[..chunked.len() - 5]), None);
    }

    #[test]
    fn growth_is_seen_after_warming_up() {
        let sample = |memory| Sample { at: Duration::ZERO, memory, descriptors: 7 };
        let flat: Vec<_> = (0..30).map(|at| sample(if at < 10 { f64::from(at) } else { 10.0 })).collect();
        assert!(growth(&flat).0.abs() < 1e-9);
        let leak: Vec<_> = (0..30).map(|at| sample(f64::from(at))).collect();
        assert!(growth(&leak).0 > 9.0);
    }

    #[test]
    fn a_quota_that_admits_too_much_is_noticed() {
        let start = Instant::now();
        let admitted: Vec<_> = (0..=QUOTA as u64).map(|at| start + Duration::from_secs(at)).collect();
        assert!(over_quota(&admitted).is_some());
        assert!(over_quota(&admitted[1..]).is_none());
    }
}
