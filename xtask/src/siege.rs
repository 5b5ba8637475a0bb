//! `cargo xtask siege`: what one hostile key can do to another that chats and streams at a human pace.
//!
//! Each attack gets a proxy of its own, in front of the remote of [`crate::rig`], whose chunks carry the time at which
//! they were written. The same chats and streams go past the proxy at the same time: what they see is the noise of the
//! machine and of the attackers' own work. On loopback only; every loop ends with the attack's deadline or a count.

use std::{
    fmt::Write as _,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::rig::{self, Proxy, Streams, lock, quantile};

const HELP: &str = "\
cargo xtask siege [--seconds N] [--only WORD] [--release] [--proxy-bin FILE] [--json FILE]

One key attacks the proxy in each known way for some seconds (30), while another key chats every 30 ms and reads two streams. Prints a table
in Markdown, and writes the same as JSON to target/siege.json. The same chats and streams go past the proxy at the same time: the noise of
this machine under the attack. The attackers run at a lower priority where renice(1) exists: on machines of their own they would take no
processor from the proxy. The table also has for how long the event loop ran, and waited for a processor: others' load. Fails if the other key's first byte is later than 50 ms or a chunk later than 20 ms (99th percentiles, above
those past the proxy), if anything of it fails, if memory exceeds limits.buffered plus 100 MB, or if all is not well again within 30 s.
";

/// The goals, in milliseconds, MB and seconds.
const FIRST_BYTE: f64 = 50.0;
const CHUNK_LAG: f64 = 20.0;
const BEYOND_BUDGET: f64 = 100.0;
const RECOVERY: Duration = Duration::from_secs(30);
/// Memory is back if it is this close to what a fresh proxy has, in MB.
const NEAR_FRESH: f64 = 30.0;
/// `limits.buffered` of a proxy that does not report one, in MB.
const BUDGET: f64 = 512.0;
/// How long the victim waits for anything.
const PATIENCE: Duration = Duration::from_secs(5);

const HOSTILE: &str = "siege-hostile-key-0123456789abcdef";
/// The attacker's second key, without a list of models: its bodies are not read before it is counted.
const UNLISTED: &str = "siege-unlisted-key-0123456789abcdef";
const VICTIM: &str = "siege-victim-key-0123456789abcdef";

/// A way to attack.
struct Attack {
    name: &'static str,
    /// Lines of the settings file beside the common ones.
    settings: &'static str,
    threads: usize,
    run: fn(&Field, usize) -> std::io::Result<()>,
}

const ATTACKS: [Attack; 12] = [
    Attack { name: "no attack", settings: "", threads: 0, run: |_, _| Ok(()) },
    Attack { name: "40,000 fields in an object", settings: "", threads: 1, run: many_fields },
    Attack {
        name: "one image URL named 2,000 times",
        settings: "[images]\nfetch = true\nallow_private = true\n",
        threads: 1,
        run: image_named_often,
    },
    Attack { name: "16 bodies of 64 MiB, last byte withheld", settings: "", threads: 16, run: withheld },
    Attack { name: "4,400 begun bodies", settings: "", threads: 8, run: begun_bodies },
    Attack {
        name: "a full queue",
        settings: "[quota]\nmax_concurrent = 6\nqueue = 20\n",
        threads: 40,
        run: queue_filling,
    },
    Attack {
        name: "trickled bodies",
        settings: "[quota]\nmax_concurrent = 6\nqueue = 20\n",
        threads: 4,
        run: trickled_bodies,
    },
    Attack { name: "32 streams that are not read", settings: "", threads: 4, run: unread_streams },
    Attack { name: "honest bodies of 20 MiB", settings: "", threads: 2, run: large_bodies },
    Attack { name: "model names of 5 MiB, refused", settings: "", threads: 4, run: long_names },
    Attack { name: "1,001 stored responses", settings: "", threads: 8, run: many_responses },
    Attack { name: "2,000 unfinished heads of 200 KiB", settings: "", threads: 8, run: unfinished_heads },
];

struct Options {
    seconds: u64,
    only: String,
    release: bool,
    proxy: Option<PathBuf>,
    json: PathBuf,
}

fn options(args: &[String]) -> Result<Options, String> {
    let json = crate::root().join("target").join("siege.json");
    let mut options = Options { seconds: 30, only: String::new(), release: false, proxy: None, json };
    let mut args = args.iter();
    while let Some(flag) = args.next() {
        if flag == "--release" {
            options.release = true;
            continue;
        }
        let value = args.next().ok_or_else(|| format!("{flag} needs a value\n\n{HELP}"))?;
        match &**flag {
            "--seconds" => {
                options.seconds = match value.parse() {
                    Ok(seconds @ 1..=600) => seconds,
                    _ => return Err(format!("invalid value {value:?} for --seconds: expected a number from 1 to 600")),
                }
            }
            "--only" => options.only = value.clone(),
            "--proxy-bin" => options.proxy = Some(value.into()),
            "--json" => options.json = value.into(),
            other => return Err(format!("unknown flag {other}\n\n{HELP}")),
        }
    }
    Ok(options)
}

/// Runs the attacks one after another.
pub(crate) fn run(args: &[String]) -> Result<(), String> {
    if args.iter().any(|arg| arg == "--help" || arg == "-h") {
        print!("{HELP}");
        return Ok(());
    }
    let options = options(args)?;
    let program = rig::program(options.proxy.as_deref(), options.release)?;
    let rows: Vec<Row> = ATTACKS
        .iter()
        .filter(|attack| attack.name.contains(&options.only))
        .map(|attack| {
            let row = besiege(attack, &program, Duration::from_secs(options.seconds))?;
            eprintln!("{}", row.markdown());
            Ok(row)
        })
        .collect::<Result<_, String>>()?;
    println!("{HEAD}");
    for row in &rows {
        println!("{}", row.markdown());
    }
    let json = rows.iter().map(Row::json).collect::<Vec<_>>().join(",\n  ");
    std::fs::write(&options.json, format!("[\n  {json}\n]\n"))
        .map_err(|error| format!("cannot write {}: {error}", options.json.display()))?;
    let missed: Vec<_> =
        rows.iter().flat_map(|row| row.missed().into_iter().map(move |why| format!("{}: {why}", row.name))).collect();
    if missed.is_empty() { Ok(()) } else { Err(format!("missed goals:\n  {}", missed.join("\n  "))) }
}

/// What an attack made of the victim and of the proxy's memory.
#[derive(Debug, Default)]
struct Row {
    name: String,
    /// Quantiles in milliseconds.
    first_p50: f64,
    first_p99: f64,
    lag_p99: f64,
    /// The same past the proxy.
    noise_first_p99: f64,
    noise_lag_p99: f64,
    chats: usize,
    chunks: usize,
    failures: usize,
    first_failure: String,
    /// MB.
    fresh: f64,
    peak: f64,
    after: f64,
    budget: f64,
    /// Seconds until all was well again; none if it was not within [`RECOVERY`].
    back: Option<f64>,
    /// What the proxy logged, in MB.
    log: f64,
    /// Seconds in which the event loop ran, and waited for a processor, during the attack.
    ran: f64,
    waited: f64,
}

const HEAD: &str = "\
| attack | first byte p50 | p99 (past the proxy; ms) | chunk lag p99 (past the proxy; ms) | chats | chunks | failures | fresh → peak → after (MB) | back after (s) | log (MB) | loop ran, waited (s) | missed |
|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|---|";

impl Row {
    /// The goals that were missed.
    fn missed(&self) -> Vec<String> {
        let mut missed = Vec::new();
        // A quantile of nothing is not a number, which misses its goal.
        let late = |value: f64, noise: f64, goal: f64| {
            !matches!((value - noise).partial_cmp(&goal), Some(std::cmp::Ordering::Less))
        };
        if late(self.first_p99, self.noise_first_p99, FIRST_BYTE) {
            missed.push(format!("first byte {:.1} ms", self.first_p99));
        }
        if late(self.lag_p99, self.noise_lag_p99, CHUNK_LAG) {
            missed.push(format!("chunk lag {:.1} ms", self.lag_p99));
        }
        if self.failures > 0 {
            missed.push(format!("{} failures ({})", self.failures, self.first_failure));
        }
        if self.peak >= self.budget + BEYOND_BUDGET {
            missed.push(format!("peak {:.0} MB", self.peak));
        }
        if self.back.is_none() {
            missed.push("not back".to_owned());
        }
        missed
    }

    fn markdown(&self) -> String {
        format!(
            "| {} | {:.1} | {:.1} ({:.1}) | {:.1} ({:.1}) | {} | {} | {} | {:.0} → {:.0} → {:.0} | {} | {:.1} | {:.2}, {:.2} | {} |",
            self.name,
            self.first_p50,
            self.first_p99,
            self.noise_first_p99,
            self.lag_p99,
            self.noise_lag_p99,
            self.chats,
            self.chunks,
            self.failures,
            self.fresh,
            self.peak,
            self.after,
            self.back.map_or_else(|| "never".to_owned(), |seconds| format!("{seconds:.1}")),
            self.log,
            self.ran,
            self.waited,
            self.missed().join(", ")
        )
    }

    fn json(&self) -> String {
        let number = |value: f64| if value.is_finite() { format!("{value:.3}") } else { "null".to_owned() };
        let missed: Vec<_> = self.missed().iter().map(|why| format!("{why:?}")).collect();
        format!(
            r#"{{"attack":{:?},"first_byte_p50_ms":{},"first_byte_p99_ms":{},"chunk_lag_p99_ms":{},"past_the_proxy":{{"first_byte_p99_ms":{},"chunk_lag_p99_ms":{}}},"chats":{},"chunks":{},"failures":{},"fresh_mb":{},"peak_mb":{},"after_mb":{},"budget_mb":{},"back_after_s":{},"log_mb":{},"loop_ran_s":{},"loop_waited_s":{},"missed":[{}]}}"#,
            self.name,
            number(self.first_p50),
            number(self.first_p99),
            number(self.lag_p99),
            number(self.noise_first_p99),
            number(self.noise_lag_p99),
            self.chats,
            self.chunks,
            self.failures,
            number(self.fresh),
            number(self.peak),
            number(self.after),
            number(self.budget),
            number(self.back.unwrap_or(f64::NAN)),
            number(self.log),
            number(self.ran),
            number(self.waited),
            missed.join(",")
        )
    }
}

/// What an attacker needs to know.
struct Field {
    addr: SocketAddr,
    images: SocketAddr,
    deadline: Instant,
}

impl Field {
    fn over(&self) -> bool {
        Instant::now() >= self.deadline
    }

    /// Waits for the end, with what it holds.
    fn hold<T>(&self, _held: T) {
        thread::sleep(self.deadline.saturating_duration_since(Instant::now()));
    }

    /// A connection whose reads and writes end with the attack.
    fn connect(&self) -> std::io::Result<TcpStream> {
        let left = self.deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let stream = TcpStream::connect_timeout(&self.addr, left)?;
        stream.set_read_timeout(Some(left))?;
        stream.set_write_timeout(Some(left))?;
        Ok(stream)
    }

    /// Sends a request, and reads its response until the connection closes.
    fn ask(&self, path: &str, body: &str) -> std::io::Result<()> {
        let mut stream = self.connect()?;
        // A server may answer before the body is whole.
        let sent = stream.write_all(head(path, HOSTILE, body.len(), "Connection: close\r\n").as_bytes());
        let _ = sent.and_then(|()| stream.write_all(body.as_bytes()));
        std::io::copy(&mut stream, &mut std::io::sink()).map(drop)
    }

    /// Asks again and again.
    fn flood(&self, path: &str, body: &str) -> std::io::Result<()> {
        while !self.over() {
            if self.ask(path, body).is_err() {
                // Refused connections must not become a loop without a pause.
                thread::sleep(Duration::from_millis(5));
            }
        }
        Ok(())
    }
}

fn head(path: &str, key: &str, length: usize, more: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n{more}\r\n"
    )
}

const CHAT: &str = r#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#;

fn many_fields(field: &Field, _: usize) -> std::io::Result<()> {
    let fields: String = (0..40_000).fold(String::new(), |mut fields, n| {
        let _ = write!(fields, r#","k{n}":1"#);
        fields
    });
    field.flood("/v1/chat/completions", &(CHAT.trim_end_matches('}').to_owned() + &fields + "}"))
}

fn image_named_often(field: &Field, _: usize) -> std::io::Result<()> {
    let part = format!(r#",{{"type":"image_url","image_url":{{"url":"http://{}/i.png"}}}}"#, field.images);
    let body = format!(
        r#"{{"model":"m","messages":[{{"role":"user","content":[{{"type":"text","text":"x"}}{}]}}]}}"#,
        part.repeat(2_000)
    );
    field.flood("/v1/chat/completions", &body)
}

fn withheld(field: &Field, _: usize) -> std::io::Result<()> {
    let mut stream = field.connect()?;
    let length = 64 << 20;
    stream.write_all(head("/api/chat", HOSTILE, length, "").as_bytes())?;
    // The model comes last, so that a list of models needs the whole body.
    let beginning = r#"{"messages":[{"role":"user","content":""#;
    let mut sent = stream.write_all(beginning.as_bytes());
    for piece in vec![b'a'; length - beginning.len() - 1].chunks(256 << 10) {
        sent = sent.and_then(|()| stream.write_all(piece));
        // All sixteen together are as fast as a network of a gigabit.
        thread::sleep(Duration::from_millis(30));
        if sent.is_err() || field.over() {
            break;
        }
    }
    field.hold(stream);
    Ok(())
}

fn begun_bodies(field: &Field, _: usize) -> std::io::Result<()> {
    let mut held = Vec::new();
    for _ in 0..550 {
        if field.over() {
            break;
        }
        let mut stream = field.connect()?;
        let _ = stream.write_all((head("/api/chat", HOSTILE, 1000, "") + "{").as_bytes());
        held.push(stream);
    }
    field.hold(held);
    Ok(())
}

fn queue_filling(field: &Field, _: usize) -> std::io::Result<()> {
    field.flood("/v1/chat/completions", r#"{"model":"long2000","messages":[{"role":"user","content":"hi"}]}"#)
}

fn trickled_bodies(field: &Field, _: usize) -> std::io::Result<()> {
    let mut held = Vec::new();
    for _ in 0..10 {
        let mut stream = field.connect()?;
        stream.write_all((head("/v1/chat/completions", UNLISTED, 100_000, "") + "{").as_bytes())?;
        held.push(stream);
    }
    while !field.over() {
        for stream in &mut held {
            let _ = stream.write_all(b" ");
        }
        thread::sleep(Duration::from_secs(1));
    }
    Ok(())
}

fn unread_streams(field: &Field, thread: usize) -> std::io::Result<()> {
    let body = r#"{"model":"long4000000","stream":true,"messages":[{"role":"user","content":"hi"}]}"#;
    let path = if thread.is_multiple_of(2) { "/v1/chat/completions" } else { "/api/chat" };
    let mut held = Vec::new();
    for _ in 0..8 {
        let mut stream = field.connect()?;
        stream.write_all((head(path, HOSTILE, body.len(), "") + body).as_bytes())?;
        held.push(stream);
    }
    field.hold(held);
    Ok(())
}

fn large_bodies(field: &Field, thread: usize) -> std::io::Result<()> {
    let item = r#"{"role":"user","content":"one"}"#;
    let items = vec![item; (20 << 20) / (item.len() + 1)].join(",");
    if thread == 0 {
        field.flood("/v1/responses", &format!(r#"{{"model":"m","input":[{items}]}}"#))
    } else {
        field.flood("/v1/chat/completions", &format!(r#"{{"model":"m","messages":[{items}]}}"#))
    }
}

fn long_names(field: &Field, _: usize) -> std::io::Result<()> {
    let body = format!(r#"{{"model":"x{}","messages":[]}}"#, "y".repeat(5 << 20));
    field.flood("/v1/chat/completions", &body)
}

fn many_responses(field: &Field, _: usize) -> std::io::Result<()> {
    for _ in 0..126 {
        if field.over() {
            break;
        }
        let _ = field.ask("/v1/responses", r#"{"model":"m","input":"hi"}"#);
    }
    Ok(())
}

fn unfinished_heads(field: &Field, _: usize) -> std::io::Result<()> {
    let beginning = format!("POST /api/chat HTTP/1.1\r\nHost: localhost\r\nX-Long: {}", "a".repeat(200 << 10));
    let mut held = Vec::new();
    for _ in 0..250 {
        if field.over() {
            break;
        }
        let mut stream = field.connect()?;
        // The server may close instead of reading all of it.
        stream.set_write_timeout(Some(Duration::from_millis(200)))?;
        let _ = stream.write_all(beginning.as_bytes());
        held.push(stream);
    }
    field.hold(held);
    Ok(())
}

/// What the victim saw.
#[derive(Debug, Default)]
struct Seen {
    first_bytes: Vec<Duration>,
    failures: Vec<String>,
}

/// Runs one attack against a fresh proxy.
fn besiege(attack: &Attack, program: &std::path::Path, time: Duration) -> Result<Row, String> {
    let io = |error: std::io::Error| error.to_string();
    let started = Instant::now();
    let remote = rig::remote(started).map_err(io)?;
    let images = image_server().map_err(io)?;
    let settings = format!(
        "[remote]\nurl = \"http://{remote}\"\n[local]\nport = 0\n[log]\nformat = \"json\"\n[auth]\nenabled = true\nkeys = [\n  \
         {{ key = \"{HOSTILE}\", name = \"hostile\", models = [\"m\", \"paced\", \"long*\"] }},\n  {{ key = \"{UNLISTED}\", name = \"unlisted\" }},\n  {{ key = \"{VICTIM}\", name = \
         \"victim\" }},\n]\n{}",
        attack.settings
    );
    let file = std::env::temp_dir().join(format!("farllama-siege-{}.toml", std::process::id()));
    std::fs::write(&file, settings).map_err(|error| format!("cannot write {}: {error}", file.display()))?;
    let flags = ["--config".to_owned(), file.display().to_string()];
    let budget = budget(program, &flags);
    let proxy = Proxy::start(program, &flags)?;
    let _ = std::fs::remove_file(&file);
    let memory = |line: &str| proxy.memory(line) as f64 / 1024.0;

    let done = Arc::new(AtomicBool::new(false));
    let stored = store(proxy.addr).map_err(|error| format!("the victim cannot store a response: {error}"))?;
    // The victim, and the same past the proxy.
    let seen = [proxy.addr, remote].map(|addr| {
        let (seen, done) = (Arc::new(Mutex::new(Seen::default())), done.clone());
        let (noted, streams) = (seen.clone(), Streams::start(2, addr, VICTIM, PATIENCE, started));
        (seen, streams, thread::spawn(move || chat(addr, &noted, &done)))
    });
    let take = || {
        seen.each_ref().map(|(seen, streams, _)| {
            let mut seen = std::mem::take(&mut *lock(seen));
            seen.failures.extend(streams.failures());
            (seen, streams.lags())
        })
    };
    thread::sleep(Duration::from_secs(1));
    take();
    let fresh = memory("VmRSS:");

    let field = Field { addr: proxy.addr, images, deadline: Instant::now() + time };
    let scheduled = proxy.scheduled();
    thread::scope(|scope| {
        for thread in 0..attack.threads {
            let field = &field;
            // What fails of an attack is no concern: the proxy may refuse it.
            scope.spawn(move || {
                rig::lower_priority();
                (attack.run)(field, thread)
            });
        }
        thread::sleep(time);
    });
    let ended = Instant::now();
    let (ran, waited) = match (scheduled, proxy.scheduled()) {
        (Some((ran, waited)), Some((now_ran, now_waited))) => (now_ran - ran, now_waited - waited),
        _ => Default::default(),
    };
    let [(attacked, lags), (noise, noise_lags)] = take();
    let mut failures = attacked.failures;
    let mut back = None;
    while ended.elapsed() < RECOVERY {
        thread::sleep(Duration::from_millis(500));
        let [(Seen { first_bytes: last, failures: failed }, _), _] = take();
        failures.extend(failed);
        let well = !last.is_empty() && last.iter().all(|first| first.as_secs_f64() * 1000.0 < FIRST_BYTE);
        if well && memory("VmRSS:") <= fresh + NEAR_FRESH {
            back = Some(ended.elapsed().as_secs_f64());
            break;
        }
    }
    if let Err(error) = fetch_stored(proxy.addr, &stored) {
        failures.push(format!("stored response: {error}"));
    }
    let (peak, after) = (memory("VmHWM:"), memory("VmRSS:"));
    let log = proxy.logged() as f64 / 1e6;
    done.store(true, Ordering::Relaxed);
    for (_, streams, chats) in seen {
        streams.stop();
        let _ = chats.join();
    }
    Ok(Row {
        name: attack.name.to_owned(),
        first_p50: quantile(&attacked.first_bytes, 0.5),
        first_p99: quantile(&attacked.first_bytes, 0.99),
        noise_first_p99: quantile(&noise.first_bytes, 0.99),
        lag_p99: quantile(&lags, 0.99),
        noise_lag_p99: quantile(&noise_lags, 0.99),
        chats: attacked.first_bytes.len(),
        chunks: lags.len(),
        failures: failures.len(),
        first_failure: failures.into_iter().next().unwrap_or_default(),
        fresh,
        peak,
        after,
        budget,
        back,
        log,
        ran: ran.as_secs_f64(),
        waited: waited.as_secs_f64(),
    })
}

/// `limits.buffered` in MB, as `farllama config show` has it.
fn budget(program: &std::path::Path, flags: &[String]) -> f64 {
    let shown = std::process::Command::new(program).args(["config", "show"]).args(flags).env_clear().output();
    let shown = shown.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    buffered(&shown).unwrap_or(BUDGET)
}

fn buffered(shown: &str) -> Option<f64> {
    let value = shown.lines().find_map(|line| line.strip_prefix("buffered = "))?.trim_start_matches('"');
    let digits = value.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(value.len());
    let number: f64 = value[..digits].parse().ok()?;
    match value[digits..].split(['"', ' ']).next()? {
        _ if number == 0.0 => None,
        "KiB" => Some(number / 1024.0),
        "MiB" => Some(number),
        "GiB" => Some(number * 1024.0),
        _ => Some(number / 1_048_576.0),
    }
}

/// Chats every 30 ms until it is done, on a new connection each tenth time.
fn chat(addr: SocketAddr, seen: &Mutex<Seen>, done: &AtomicBool) {
    let mut connection = None;
    for n in 0_u64.. {
        if done.load(Ordering::Relaxed) {
            return;
        }
        if n.is_multiple_of(10) {
            connection = None;
        }
        let start = Instant::now();
        match ask_on(&mut connection, addr) {
            Ok(first) => lock(seen).first_bytes.push(first),
            Err(error) => {
                connection = None;
                let mut seen = lock(seen);
                seen.first_bytes.push(start.elapsed());
                seen.failures.push(format!("chat: {error}"));
            }
        }
        thread::sleep(Duration::from_millis(30));
    }
}

/// One chat; returns when its first byte came, connecting included.
fn ask_on(connection: &mut Option<BufReader<TcpStream>>, addr: SocketAddr) -> std::io::Result<Duration> {
    let start = Instant::now();
    // As every HTTP client does: a connection that the server has closed meanwhile takes no other request.
    connection.take_if(|reader| !is_open(reader.get_ref()));
    let reader = match connection {
        Some(reader) => reader,
        None => connection.insert(BufReader::new(connect(addr)?)),
    };
    let request = head("/v1/chat/completions", VICTIM, CHAT.len(), "") + CHAT;
    reader.get_mut().write_all(request.as_bytes())?;
    reader.fill_buf()?;
    let first = start.elapsed();
    read_response(reader)?;
    Ok(first)
}

/// Whether the other side has neither closed nor sent anything.
fn is_open(stream: &TcpStream) -> bool {
    let peeked = stream.set_nonblocking(true).and_then(|()| stream.peek(&mut [0]));
    let waits = peeked.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
    stream.set_nonblocking(false).is_ok() && waits
}

fn connect(addr: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&addr, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Reads a response with a length, and returns its body.
///
/// # Errors
/// Fails if the status is not 200, or the response is cut.
fn read_response(reader: &mut BufReader<TcpStream>) -> std::io::Result<String> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let status = line.trim_end().to_owned();
    let mut length = 0;
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let body = String::from_utf8_lossy(&body).into_owned();
    if status.contains(" 200") { Ok(body) } else { Err(std::io::Error::other(status)) }
}

/// Stores a response of the victim's, and returns its id.
fn store(addr: SocketAddr) -> std::io::Result<String> {
    let mut stream = connect(addr)?;
    let body = r#"{"model":"m","input":"hi"}"#;
    stream.write_all((head("/v1/responses", VICTIM, body.len(), "") + body).as_bytes())?;
    let body = read_response(&mut BufReader::new(stream))?;
    let id = body.split_once(r#""resp_"#).and_then(|(_, rest)| rest.split('"').next());
    id.map(|id| format!("resp_{id}")).ok_or_else(|| std::io::Error::other("no id in the response"))
}

fn fetch_stored(addr: SocketAddr, id: &str) -> std::io::Result<String> {
    let mut stream = connect(addr)?;
    write!(stream, "GET /v1/responses/{id} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {VICTIM}\r\n\r\n")?;
    read_response(&mut BufReader::new(stream))
}

/// Serves an image of 256 KiB at every path.
fn image_server() -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let addr = listener.local_addr()?;
    thread::spawn(move || {
        let image = [b"\x89PNG\r\n\x1a\n".as_slice(), &vec![0; 256 << 10]].concat();
        for mut stream in listener.incoming().flatten() {
            let image = image.clone();
            thread::spawn(move || {
                let mut request = [0; 4096];
                let _ = stream.read(&mut request);
                let _ = write!(
                    stream,
                    "HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
                    image.len()
                );
                let _ = stream.write_all(&image);
            });
        }
    });
    Ok(addr)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn well() -> Row {
        Row { first_p99: 3.0, lag_p99: 1.0, peak: 90.0, budget: 64.0, back: Some(0.5), ..Row::default() }
    }

    #[test]
    fn each_goal_can_be_missed() {
        assert_eq!(well().missed(), Vec::<String>::new());
        let wrong = [
            Row { first_p99: 50.0, ..well() },
            Row { first_p99: f64::NAN, ..well() },
            Row { lag_p99: 20.0, ..well() },
            Row { lag_p99: 29.0, noise_lag_p99: 9.0, ..well() },
            Row { failures: 1, ..well() },
            Row { peak: 164.0, ..well() },
            Row { back: None, ..well() },
        ];
        for row in wrong {
            assert_eq!(row.missed().len(), 1, "{row:?}");
        }
    }

    #[test]
    fn the_budget_is_read_from_the_settings() {
        for (shown, budget) in [
            ("[limits]\nbuffered = \"512MiB\"  # default\n", Some(512.0)),
            ("buffered = \"2GiB\"\n", Some(2048.0)),
            ("buffered = 1048576\n", Some(1.0)),
            ("buffered = 0\n", None),
            ("body = \"256MiB\"\n", None),
        ] {
            assert_eq!(buffered(shown), budget, "{shown}");
        }
    }
}
