//! `cargo xtask instructions`: counts the instructions that a request and a chunk of a stream cost the proxy, under
//! valgrind. Counts are repeatable on a busy machine, where times are not, so they may fail a build: none may exceed
//! its entry in `instructions.txt` by more than [`MOST`].
//!
//! Each row is counted twice, for few and for many, and the difference is divided: what starting and connecting cost
//! has no part in it. The remote and the client are this process. The remote writes a chunk when the client has
//! received the one before it, so that each chunk travels alone.

use std::{
    fmt::Write as _,
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
};

use crate::{
    rig::{self, Proxy},
    root,
};

const HELP: &str = "\
cargo xtask instructions [--bless] [--proxy FILE] [WORD…]

Counts instructions in user space for each row, or for those whose name has a WORD, and compares them with
xtask/instructions.txt. Fails if a count has grown by more than 5 %, or exceeds the row that it is compared with by more
than it may: with three remotes and ten aliases by 5 %, with the admin listener by 3 %, over an OpenAI server by 20 %.
--bless writes the counts there. Builds the proxy in release mode unless --proxy names one. Needs valgrind.
";

/// How much a count may exceed its entry: the difference between two machines and two minor versions of the compiler is
/// smaller.
const MOST: f64 = 1.05;

/// The committed counts: a name and a number a line.
const BASELINE: &str = "xtask/instructions.txt";

/// What is counted.
struct Row {
    name: &'static str,
    path: &'static str,
    /// What the remote answers with, by the name of the model.
    model: &'static str,
    unit: Unit,
    setting: Setting,
    /// Another row, and how many times its count this one may have at most.
    like: Option<(&'static str, f64)>,
}

/// What stands around the proxy.
#[derive(Clone, Copy, PartialEq)]
enum Setting {
    /// One remote, no alias, and no admin listener.
    Plain,
    /// [`REMOTES`] and [`ALIASES`]. The request names the model itself.
    Remotes,
    /// The same, where it names an alias.
    Alias,
    /// With the admin listener: metrics, history and log lines are kept, so that a console can look at them.
    Admin,
    /// The same, and then a console is opened, which is sent every request and its log line.
    Console,
    /// The remote is an OpenAI server.
    Bridge,
}

/// How many remotes there are, all of which have the model.
const REMOTES: usize = 3;

/// How many names stand for the model.
const ALIASES: usize = 10;

#[derive(Clone, Copy, PartialEq)]
enum Unit {
    Request,
    /// A chunk of a stream.
    Chunk,
}

const CHAT: &str = "/v1/chat/completions";

const NATIVE: &str = "/api/chat";

const MESSAGES: &str = "/v1/messages";

const EMBEDDINGS: &str = "/v1/embeddings";

const ROWS: &[Row] = {
    use Setting::{Admin, Alias, Bridge, Console, Remotes};
    use Unit::{Chunk, Request};
    &[
        row("chat, translated", CHAT, "whole", Request),
        row("chat, native", NATIVE, "whole", Request),
        row("chat, translated, 3 remotes and 10 aliases", CHAT, "whole", Request)
            .with(Remotes)
            .like("chat, translated", 1.06),
        row("chat, native, 3 remotes and 10 aliases", NATIVE, "whole", Request)
            .with(Remotes)
            .like("chat, native", 1.12),
        row("chat, translated, by one of 10 aliases", CHAT, "whole", Request).with(Alias),
        row("chat, native, by one of 10 aliases", NATIVE, "whole", Request).with(Alias),
        row("messages, translated", MESSAGES, "whole", Request),
        row("embeddings, translated", EMBEDDINGS, "vectors", Request),
        row("embeddings as base64, translated", EMBEDDINGS, "base64", Request),
        row("text chunk, translated", CHAT, "text", Chunk),
        row("text chunk, messages", MESSAGES, "text", Chunk),
        row("text chunk, native", NATIVE, "text", Chunk),
        row("thinking chunk, translated", CHAT, "thinking", Chunk).like("text chunk, translated", 1.2),
        row("tool call chunk, translated", CHAT, "calls", Chunk),
        row("chat, bridged", NATIVE, "whole", Request).with(Bridge).like("chat, translated", 1.2),
        // Numbers are made of base64 here, and base64 of numbers there.
        row("embeddings, bridged", "/api/embed", "vectors", Request)
            .with(Bridge)
            .like("embeddings as base64, translated", 1.2),
        row("text chunk, bridged", NATIVE, "text", Chunk).with(Bridge).like("text chunk, translated", 1.2),
        row("chat, translated, watched", CHAT, "whole", Request).with(Admin).like("chat, translated", 1.03),
        row("chat, native, watched", NATIVE, "whole", Request).with(Admin).like("chat, native", 1.03),
        row("text chunk, translated, watched", CHAT, "text", Chunk).with(Admin).like("text chunk, translated", 1.03),
        row("text chunk, native, watched", NATIVE, "text", Chunk).with(Admin).like("text chunk, native", 1.03),
        // However many requests there are, a console is sent 200 in a second.
        row("chat, native, sent to a console", NATIVE, "whole", Request).with(Console),
    ]
};

const fn row(name: &'static str, path: &'static str, model: &'static str, unit: Unit) -> Row {
    Row { name, path, model, unit, setting: Setting::Plain, like: None }
}

impl Row {
    const fn with(self, setting: Setting) -> Self {
        Self { setting, ..self }
    }

    const fn like(self, name: &'static str, most: f64) -> Self {
        Self { like: Some((name, most)), ..self }
    }

    /// The name of the model in requests.
    fn asked(&self) -> String {
        match self.setting {
            Setting::Alias => format!("alias-{}", ALIASES / 2),
            _ => self.model.to_owned(),
        }
    }

    fn body(&self) -> String {
        let model = self.asked();
        if matches!(self.model, "vectors" | "base64") {
            let inputs: Vec<String> = (0..16).map(|n| format!("\"sentence number {n} of some length\"")).collect();
            let format = if self.model == "base64" { r#","encoding_format":"base64""# } else { "" };
            return format!(r#"{{"model":"{model}","input":[{}]{format}}}"#, inputs.join(","));
        }
        let system = "You are a helpful assistant. Answer briefly and precisely. ".repeat(6);
        let user = "Explain what a reverse proxy does,\\nand why \\\"buffering\\\" matters for streaming. ".repeat(8);
        let stream = self.unit == Unit::Chunk;
        if self.setting == Setting::Bridge {
            return format!(
                r#"{{"model":"{model}","messages":[{{"role":"system","content":"{system}"}},{{"role":"user","content":"{user}"}}],"stream":{stream},"options":{{"temperature":0.7,"num_predict":100}}}}"#
            );
        }
        if self.path == MESSAGES {
            return format!(
                r#"{{"model":"{model}","system":"{system}","messages":[{{"role":"user","content":"{user}"}}],"stream":{stream},"temperature":0.7,"max_tokens":100}}"#
            );
        }
        format!(
            r#"{{"model":"{model}","messages":[{{"role":"system","content":"{system}"}},{{"role":"user","content":"{user}"}}],"stream":{stream},"temperature":0.7,"max_tokens":100}}"#
        )
    }

    /// Two amounts of work: requests, and chunks in each.
    fn amounts(&self) -> [(usize, usize); 2] {
        match self.unit {
            // A console begins with the last 200.
            Unit::Request if self.setting == Setting::Console => [(20, 0), (180, 0)],
            Unit::Request => [(20, 0), (220, 0)],
            Unit::Chunk => [(4, 10), (4, 110)],
        }
    }
}

pub(crate) fn run(args: &[String]) -> Result<(), String> {
    let (mut bless, mut proxy, mut words) = (false, None, Vec::new());
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match &**arg {
            "--help" | "-h" => {
                print!("{HELP}");
                return Ok(());
            }
            "--bless" => bless = true,
            "--proxy" => proxy = Some(PathBuf::from(args.next().ok_or("--proxy needs a file")?)),
            word => words.push(word.to_lowercase()),
        }
    }
    let program = rig::program(proxy.as_deref(), true)?;
    let file = root().join(BASELINE);
    let known = std::fs::read_to_string(&file).unwrap_or_default();
    let known = |name: &str| known.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")?.parse().ok());
    let wanted = |row: &Row| words.is_empty() || words.iter().any(|word| row.name.contains(word.as_str()));
    let (mut counts, mut wrong) = (String::new(), Vec::new());
    println!("{:<44} {:>12} {:>12}  change", "instructions", "baseline", "now");
    let mut counted: Vec<(&str, u64)> = Vec::new();
    for row in ROWS {
        let baseline: Option<u64> = known(row.name);
        let compared = ROWS.iter().any(|other| wanted(other) && other.like.is_some_and(|(name, _)| name == row.name));
        let count = match baseline {
            Some(count) if !wanted(row) && !compared => count,
            None if !wanted(row) && !compared => continue,
            _ => count(&program, row)?,
        };
        // Writing to a string does not fail.
        let _ = writeln!(counts, "{}: {count}", row.name);
        counted.push((row.name, count));
        if !wanted(row) {
            continue;
        }
        let change = |of: u64| (count as f64 / of as f64 - 1.0) * 100.0;
        match baseline {
            Some(of) => println!("{:<44} {of:>12} {count:>12}  {:+.1} %", row.name, change(of)),
            None => println!("{:<44} {:>12} {count:>12}", row.name, "-"),
        }
        match baseline {
            None if !bless => wrong.push(format!("{} has no entry", row.name)),
            Some(of) if !bless && count as f64 > of as f64 * MOST => {
                wrong.push(format!("{}: {count} instead of {of}", row.name));
            }
            _ => {}
        }
        let like = row.like.and_then(|(name, most)| Some((counted.iter().find(|(other, _)| *other == name)?, most)));
        if let Some(((name, of), most)) = like {
            println!("{:<44} {of:>12} {count:>12}  {:+.1} %", format!("  of {name:?}"), change(*of));
            if count as f64 > *of as f64 * most {
                wrong.push(format!("{}: {count} is more than {most} times the {of} of {name:?}", row.name));
            }
        }
    }
    if bless {
        return std::fs::write(&file, counts).map_err(|error| format!("cannot write {BASELINE}: {error}"));
    }
    if wrong.is_empty() {
        return Ok(());
    }
    Err(format!("more instructions than {BASELINE} allows (--bless accepts them): {}", wrong.join("; ")))
}

/// The instructions of one unit.
fn count(program: &Path, row: &Row) -> Result<u64, String> {
    let [few, many] = row.amounts().map(|(requests, chunks)| {
        let units = if row.unit == Unit::Request { requests } else { requests * chunks };
        total(program, row, requests, chunks).map(|total| (total, units as u64))
    });
    let (few, many) = (few?, many?);
    Ok(many.0.saturating_sub(few.0) / (many.1 - few.1))
}

/// The instructions of a proxy from its start to its end, with so many requests.
fn total(program: &Path, row: &Row, requests: usize, chunks: usize) -> Result<u64, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", row.name);
    let (received, next) = channel();
    let mut next = Some(next);
    let several = matches!(row.setting, Setting::Remotes | Setting::Alias);
    let addrs: Vec<_> = (0..if several { REMOTES } else { 1 })
        .map(|_| remote(chunks, next.take().unwrap_or_else(|| channel().1)).map_err(failed))
        .collect::<Result<_, _>>()?;
    let log = std::env::temp_dir().join(format!("farllama-instructions-{}", std::process::id()));
    let mut counted = Command::new("valgrind");
    counted.args(["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]);
    counted.arg(format!("--log-file={}", log.display())).arg(program);
    let mut flags = ["--local-port", "0", "--log", "json", "--remote-probe", "0s"].map(str::to_owned).to_vec();
    if several {
        let remotes = addrs.iter().enumerate().map(|(nth, addr)| format!("remote-{nth}=http://{addr}"));
        let aliases = (0..ALIASES).map(|nth| format!("alias-{nth}={}", row.model));
        let (remotes, aliases) = (remotes.collect::<Vec<_>>().join(","), aliases.collect::<Vec<_>>().join(","));
        // How long the count takes must not decide how often health is checked.
        let quiet = ["--health-interval", "0s", "--health-models-age", "1h"].map(str::to_owned);
        flags.extend(["--remotes".to_owned(), remotes, "--models-aliases".to_owned(), aliases]);
        flags.extend(quiet);
    } else {
        let kind = if row.setting == Setting::Bridge { "openai" } else { "ollama" };
        flags.extend(["--remote-url".to_owned(), format!("http://{}", addrs[0])]);
        flags.extend(["--remote-kind", kind].map(str::to_owned));
    }
    let admin = matches!(row.setting, Setting::Admin | Setting::Console);
    flags.push(if admin { "--admin-port=0" } else { "--admin-enabled=false" }.to_owned());
    let proxy = Proxy::spawn(counted, &flags)
        .map_err(|error| format!("{error} (valgrind is needed: apt-get install valgrind)"))?;
    ask(proxy.addr, row, requests, &received).map_err(failed)?;
    if row.setting == Setting::Console {
        let admin = proxy.admin.ok_or_else(|| format!("{}: the proxy has no admin listener", row.name))?;
        console(admin, requests).map_err(failed)?;
    }
    proxy.end()?;
    let text = std::fs::read_to_string(&log).map_err(failed)?;
    let _ = std::fs::remove_file(&log);
    let refs = text.lines().rev().find_map(|line| line.split_once("I refs:").or(line.split_once("I   refs:")));
    let refs = refs.and_then(|(_, count)| count.trim().replace(',', "").parse().ok());
    refs.ok_or_else(|| format!("valgrind counted nothing:\n{text}"))
}

/// Opens a console, and closes it when it was sent the last of so many requests, and log lines.
fn console(admin: SocketAddr, requests: usize) -> std::io::Result<()> {
    let stream = TcpStream::connect(admin)?;
    (&stream).write_all(b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    let mut events = BufReader::new(&stream);
    let (status, _) = head(&mut events)?;
    if !status.contains(" 200 ") {
        return Err(std::io::Error::other(status));
    }
    let (last, mut line) = (format!(r#""seq":{requests},"key""#), String::new());
    let (mut requests, mut lines) = (false, false);
    while !(requests && lines) {
        line.clear();
        if events.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        requests |= line.contains(&last);
        lines |= line.contains("POST /api/chat");
    }
    stream.shutdown(Shutdown::Both)
}

/// Sends requests one after the other on one connection, and reads each response to its end.
fn ask(addr: SocketAddr, row: &Row, requests: usize, received: &Sender<()>) -> std::io::Result<()> {
    let body = row.body();
    let request = format!(
        "POST {} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: xtask\r\nContent-Type: application/json\r\nAuthorization: Bearer sk-placeholder\r\nContent-Length: {}\r\n\r\n{body}",
        row.path,
        body.len()
    );
    let stream = TcpStream::connect(addr)?;
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(&stream);
    for _ in 0..requests {
        (&stream).write_all(request.as_bytes())?;
        let (status, length) = head(&mut reader)?;
        if !status.contains(" 200 ") {
            return Err(std::io::Error::other(status));
        }
        if let Some(length) = length {
            std::io::copy(&mut (&mut reader).take(length), &mut std::io::sink())?;
            continue;
        }
        // A chunk of the transfer coding is one write of the proxy.
        loop {
            let mut size = String::new();
            reader.read_line(&mut size)?;
            let size = u64::from_str_radix(size.trim(), 16).map_err(std::io::Error::other)?;
            std::io::copy(&mut (&mut reader).take(size + 2), &mut std::io::sink())?;
            if size == 0 {
                break;
            }
            // The remote has gone when it has written its last chunk.
            let _ = received.send(());
        }
    }
    Ok(())
}

/// Reads the head of a message: its first line, and its length if it has one.
fn head(reader: &mut impl BufRead) -> std::io::Result<(String, Option<u64>)> {
    let (mut first, mut length) = (String::new(), None);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end();
        if line.is_empty() {
            return Ok((first, length));
        }
        if first.is_empty() {
            first = line.to_owned();
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok();
        }
    }
}

/// A remote for one proxy. One client at a time reads a stream. A stream has `chunks` chunks; each is written when the
/// one before has been received.
fn remote(chunks: usize, received: Receiver<()>) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let addr = listener.local_addr()?;
    let received = Arc::new(Mutex::new(received));
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let received = received.clone();
            // Ends when the connection does.
            thread::spawn(move || while answer(&stream, chunks, &received).is_ok() {});
        }
    });
    Ok(addr)
}

fn answer(mut stream: &TcpStream, chunks: usize, received: &Mutex<Receiver<()>>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    let (first, length) = head(&mut reader)?;
    let mut body = String::new();
    (&mut reader).take(length.unwrap_or(0)).read_to_string(&mut body)?;
    let model = body.split_once(r#""model":""#).and_then(|(_, rest)| rest.split('"').next()).unwrap_or_default();
    let openai = first.contains("/v1/");
    let whole = match model {
        _ if first.contains("/api/version") => Some(r#"{"version":"0.33.0"}"#.to_owned()),
        _ if first.contains("/api/tags") || first.contains("/api/ps") => {
            let model = |name: &str| format!(r#"{{"name":"{name}:latest","model":"{name}:latest","size":1}}"#);
            Some(format!(r#"{{"models":[{},{}]}}"#, model("whole"), model("vectors")))
        }
        "whole" => {
            let text = "Hello, \\\"world\\\".\\nThis is an answer of some length, with a café in it. ".repeat(6);
            let content = format!(r#""content":"{text}""#);
            Some(if openai { completion(&content) } else { message("whole", &content, true) })
        }
        "vectors" if openai => {
            // 256 numbers of four bytes.
            let vector = "zMzM".repeat(341) + "zA==";
            let vectors: Vec<String> =
                (0..16).map(|n| format!(r#"{{"object":"embedding","index":{n},"embedding":"{vector}"}}"#)).collect();
            let data = vectors.join(",");
            Some(format!(r#"{{"object":"list","data":[{data}],"model":"vectors","usage":{{"prompt_tokens":9}}}}"#))
        }
        "vectors" | "base64" => {
            let vectors = vec![format!("[{}]", vec!["-0.0123456789"; 256].join(",")); 16].join(",");
            Some(format!(r#"{{"model":"vectors","embeddings":[{vectors}],"total_duration":1,"prompt_eval_count":9}}"#))
        }
        _ => None,
    };
    if let Some(whole) = whole {
        let response = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\nDate: Thu, 26 Nov 2026 00:00:00 GMT\r\nContent-Length: {}\r\n\r\n{whole}",
            whole.len()
        );
        // In one write, so that it comes in one piece.
        return stream.write_all(response.as_bytes());
    }
    let chunk = match model {
        "thinking" => r#""content":"","thinking":" maybe""#,
        "calls" => {
            r#""content":"","tool_calls":[{"id":"call_1","function":{"index":0,"name":"weather","arguments":{"city":"Paris"}}}]"#
        }
        _ => r#""content":" word""#,
    };
    if openai {
        return events(stream, chunk, chunks, received);
    }
    let framed = |line: &str| format!("{:x}\r\n{line}\n\r\n", line.len() + 1);
    let received = received.lock().unwrap_or_else(PoisonError::into_inner);
    // What the client received of the stream before.
    while received.try_recv().is_ok() {}
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n")?;
    for _ in 0..chunks {
        stream.write_all(framed(&message(model, chunk, false)).as_bytes())?;
        received.recv().map_err(std::io::Error::other)?;
    }
    stream.write_all((framed(&message(model, r#""content":"""#, true)) + "0\r\n\r\n").as_bytes())
}

/// The events of an OpenAI server: `chunks` of them with `delta`, each written when the one before has been received.
fn events(mut stream: &TcpStream, delta: &str, chunks: usize, received: &Mutex<Receiver<()>>) -> std::io::Result<()> {
    let framed = |event: &str| format!("{:x}\r\ndata: {event}\n\n\r\n", event.len() + 8);
    let event = |delta: &str, finish: &str| {
        framed(&format!(
            r#"{{"id":"chatcmpl-123","object":"chat.completion.chunk","created":1795000000,"model":"m","choices":[{{"index":0,"delta":{{{delta}}},"finish_reason":{finish}}}]}}"#
        ))
    };
    let received = received.lock().unwrap_or_else(PoisonError::into_inner);
    // What the client received of the stream before.
    while received.try_recv().is_ok() {}
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")?;
    for _ in 0..chunks {
        stream.write_all(event(delta, "null").as_bytes())?;
        received.recv().map_err(std::io::Error::other)?;
    }
    let usage = r#"{"id":"chatcmpl-123","object":"chat.completion.chunk","choices":[],"usage":{"prompt_tokens":26,"completion_tokens":64,"total_tokens":90}}"#;
    let end = [event("", "\"stop\""), framed(usage), framed("[DONE]"), "0\r\n\r\n".to_owned()];
    stream.write_all(end.concat().as_bytes())
}

/// A whole answer of an OpenAI server.
fn completion(content: &str) -> String {
    format!(
        r#"{{"id":"chatcmpl-123","object":"chat.completion","created":1795000000,"model":"m","choices":[{{"index":0,"message":{{"role":"assistant",{content}}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":26,"completion_tokens":64,"total_tokens":90}}}}"#
    )
}

/// One reply of Ollama's.
fn message(model: &str, content: &str, done: bool) -> String {
    let end = if done {
        r#","done_reason":"stop","total_duration":174560334,"load_duration":101397084,"prompt_eval_count":26,"prompt_eval_duration":13074791,"eval_count":64,"eval_duration":52479709"#
    } else {
        ""
    };
    format!(
        r#"{{"model":"{model}","created_at":"2026-11-22T12:37:41.512345678Z","message":{{"role":"assistant",{content}}},"done":{done}{end}}}"#
    )
}
