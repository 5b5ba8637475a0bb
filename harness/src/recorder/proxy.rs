//! The recording proxy: passes every byte on at once, and writes a file for each exchange when it is over.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use mock_ollama::recording::{Headers, Recording, Request, Response};
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::watch,
};

use super::{
    mask::{Counts, Masks},
    upstream::Upstream,
    wire::{self, Body, Framing, Head, Piece},
};

/// Bodies beyond this are passed on and not recorded.
const LARGEST: usize = 16 << 20;
/// Request headers that a recording leaves out: the client that sends it again makes its own.
const UNRECORDED: [&str; 3] = ["host", "content-length", "transfer-encoding"];

/// Records what clients and a remote say to each other.
pub(crate) struct Recorder {
    upstream: Upstream,
    masks: Masks,
    out: PathBuf,
    version: String,
    /// How many exchanges have been written.
    written: watch::Sender<usize>,
    counts: Mutex<Counts>,
    /// Exchanges without a file, and why.
    unrecorded: Mutex<Vec<String>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Recorder {
    pub(crate) fn new(upstream: Upstream, masks: Masks, out: PathBuf, version: String) -> Self {
        let written = watch::Sender::new(0);
        Self { upstream, masks, out, version, written, counts: Mutex::default(), unrecorded: Mutex::default() }
    }

    fn not_recorded(&self, why: String) {
        eprintln!("not recorded: {why}");
        lock(&self.unrecorded).push(why);
    }

    /// Waits until so many exchanges have been written.
    pub(crate) async fn has_written(&self, enough: usize) {
        // The sender lives in `self`, so waiting cannot fail.
        let _ = self.written.subscribe().wait_for(|written| *written >= enough).await;
    }

    /// Whether an exchange has been written.
    pub(crate) fn has_any(&self) -> bool {
        *self.written.borrow() > 0
    }

    /// What was written and masked, and what was not recorded.
    pub(crate) fn summary(&self) -> String {
        let written = *self.written.borrow();
        let mut text = format!("recorded {written} exchanges in {}\n", self.out.display());
        let counts = lock(&self.counts);
        if counts.is_empty() {
            text += "nothing was masked\n";
        }
        for (rule, count) in &*counts {
            text += &format!("masked {count} × {rule}\n");
        }
        for why in &*lock(&self.unrecorded) {
            text += &format!("not recorded: {why}\n");
        }
        text
    }

    /// Serves clients until it is dropped.
    pub(crate) async fn serve(&self, listener: TcpListener) {
        // Connections borrow the recorder, so they are polled here instead of being spawned.
        let mut connections = FuturesUnordered::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => connections.push(self.connection(stream)),
                    // Such as too many open files: the next one may succeed.
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                },
                Some(()) = connections.next(), if !connections.is_empty() => {}
            }
        }
    }

    async fn connection(&self, stream: TcpStream) {
        // Fails only on a socket that is gone.
        let _ = stream.set_nodelay(true);
        let (reader, mut writer) = stream.into_split();
        let mut reader = BufReader::new(reader);
        loop {
            match self.exchange(&mut reader, &mut writer).await {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    self.not_recorded(format!("an exchange that failed: {error}"));
                    break;
                }
            }
        }
        let _ = writer.shutdown().await;
    }

    /// One exchange; whether another may follow on the connection.
    async fn exchange(
        &self,
        client: &mut (impl AsyncBufRead + Unpin),
        writer: &mut (impl AsyncWrite + Unpin),
    ) -> io::Result<bool> {
        let Some(head) = wire::read_head(client).await? else { return Ok(false) };
        let start = Instant::now();
        let (method, target, version) = (head.word(0).to_owned(), head.word(1).to_owned(), head.word(2).to_owned());
        let framing = head.request_framing()?;
        let upstream = match self.upstream.connect().await {
            Ok(upstream) => upstream,
            Err(error) => {
                let why = format!("{method} {target}: cannot reach {}: {error}", self.upstream.url);
                let body = serde_json::json!({"error": why}).to_string();
                let length = body.len();
                let head = "HTTP/1.1 502 Bad Gateway\r\nContent-Type: application/json";
                writer
                    .write_all(
                        format!("{head}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}").as_bytes(),
                    )
                    .await?;
                self.not_recorded(why);
                return Ok(false);
            }
        };
        let (remote, mut to_remote) = tokio::io::split(upstream);
        let mut remote = BufReader::new(remote);
        // The response may come before the upload is looked at.
        let is_whole = matches!(framing, Framing::None | Framing::Length(0));
        let mut sent = Sent { framing, is_whole, ..Sent::default() };
        let mut seen = Seen { start: Some(start), ..Seen::default() };
        to_remote.write_all(&self.upstream.addressed(&head).to_bytes()).await?;
        to_remote.flush().await?;
        let ended = {
            let upload = sent.copy(client, &mut to_remote);
            let download = seen.copy(&mut remote, writer, &method);
            both(upload, download).await
        };
        let left = match ended {
            Ok(()) => None,
            Err(Broken::Client) if seen.head.is_some() => Some(seen.chunks.len()),
            Err(broken) => {
                let why = match broken {
                    Broken::Client => "the client left before the response".to_owned(),
                    Broken::Remote(error) => format!("the remote broke off: {error}"),
                };
                self.not_recorded(format!("{method} {target}: {why}"));
                return Ok(false);
            }
        };
        let keeps = sent.is_whole
            && left.is_none()
            && head.keeps_alive(&version)
            && seen.framing != Framing::Close
            && seen.head.as_ref().is_some_and(|head| head.keeps_alive(&version));
        let request = Recorded { head: &head, method, target, version };
        if let Err(why) = self.write(request, sent, seen, left) {
            self.not_recorded(why);
        }
        Ok(keeps)
    }

    fn write(&self, request: Recorded<'_>, sent: Sent, seen: Seen, left: Option<usize>) -> Result<(), String> {
        let Recorded { head, method, target, version } = request;
        let failed = |why: &str| format!("{method} {target}: {why}");
        if sent.is_large || seen.is_large {
            return Err(failed(&format!("a body of more than {} MiB", LARGEST >> 20)));
        }
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).map_err(|_| failed("a body that is not UTF-8"));
        let chunks: Result<Vec<_>, String> =
            seen.chunks.into_iter().map(|(at, bytes)| Ok((at, text(bytes)?))).collect();
        let body = sent.chunks.into_iter().map(text).collect::<Result<Vec<_>, _>>()?;
        let is_chunked = sent.framing == Framing::Chunked;
        let is_recorded = |name: &str| !UNRECORDED.iter().any(|known| name.eq_ignore_ascii_case(known));
        let mut headers: Headers = head.headers.iter().filter(|(name, _)| is_recorded(name)).cloned().collect();
        if is_chunked {
            headers.push(("Transfer-Encoding".to_owned(), "chunked".to_owned()));
        }
        let version = version.strip_prefix("HTTP/").filter(|version| *version != "1.1").map(str::to_owned);
        let response = seen.head.unwrap_or_default();
        let area = area(&target);
        let mut recording = Recording {
            ollama: self.version.clone(),
            why: "recorded".to_owned(),
            left_after_chunks: left,
            interim: seen.interim.map(|(at, head)| (at, head.line, head.headers)),
            request: Request {
                method: method.clone(),
                path: target.clone(),
                headers,
                body: if is_chunked { String::new() } else { body.concat() },
                version,
                chunks: is_chunked.then_some(body),
                whole_head: None,
            },
            response: Response {
                status: response.line,
                headers: response.headers,
                head_ms: seen.head_ms,
                framing: seen.framing.name().to_owned(),
                chunks: chunks?,
            },
            ..Recording::default()
        };
        let mut counts = Counts::new();
        let masked = self.masks.apply(&mut recording, &mut counts);
        masked.map_err(|rule| failed(&format!("its streamed text has something to mask across chunks ({rule})")))?;
        save_as_next(&self.out, &area, &mut recording).map_err(|error| failed(&error.to_string()))?;
        for (rule, count) in counts {
            *lock(&self.counts).entry(rule).or_default() += count;
        }
        self.written.send_modify(|written| *written += 1);
        Ok(())
    }
}

/// The request of an exchange.
struct Recorded<'a> {
    head: &'a Head,
    method: String,
    target: String,
    version: String,
}

/// Why an exchange has no whole response.
enum Broken {
    Client,
    Remote(io::Error),
}

/// Copies in both directions. The response decides: it may end before the request does, and a failed upload may still
/// get a response.
async fn both(
    upload: impl Future<Output = io::Result<Uploaded>>,
    download: impl Future<Output = Result<(), Broken>>,
) -> Result<(), Broken> {
    tokio::pin!(upload, download);
    tokio::select! {
        biased;
        ended = &mut download => ended,
        uploaded = &mut upload => match uploaded {
            // Dropping the download closes the connection to the remote, which cancels its work.
            Ok(Uploaded::ClientLeft) => Err(Broken::Client),
            Ok(Uploaded::Whole) | Err(_) => download.await,
        },
    }
}

enum Uploaded {
    /// The request is sent, and the client has begun the next one.
    Whole,
    /// The request is sent, and the client closed the connection.
    ClientLeft,
}

/// What was sent of a request.
#[derive(Debug)]
struct Sent {
    framing: Framing,
    chunks: Vec<Vec<u8>>,
    size: usize,
    is_large: bool,
    is_whole: bool,
}

impl Default for Sent {
    fn default() -> Self {
        Self { framing: Framing::None, chunks: Vec::new(), size: 0, is_large: false, is_whole: false }
    }
}

impl Sent {
    /// Copies the body, and then waits for the client to leave.
    async fn copy(
        &mut self,
        client: &mut (impl AsyncBufRead + Unpin),
        remote: &mut (impl AsyncWrite + Unpin),
    ) -> io::Result<Uploaded> {
        let mut body = Body::new(self.framing);
        let mut is_new = true;
        while let Some(Piece { data, is_last }) = body.next(client).await? {
            wire::write_piece(remote, self.framing, &data).await?;
            self.size += data.len();
            self.is_large |= self.size > LARGEST;
            if !self.is_large {
                append(&mut self.chunks, data, is_new);
            }
            is_new = is_last;
        }
        wire::write_end(remote, self.framing).await?;
        self.is_whole = true;
        // A reset means the same as an end: the client does not wait for the response.
        let is_there = client.fill_buf().await.is_ok_and(|next| !next.is_empty());
        Ok(if is_there { Uploaded::Whole } else { Uploaded::ClientLeft })
    }
}

fn append(chunks: &mut Vec<Vec<u8>>, data: Vec<u8>, is_new: bool) {
    match chunks.last_mut() {
        Some(last) if !is_new => last.extend(data),
        _ => chunks.push(data),
    }
}

/// What was seen of a response.
#[derive(Debug)]
struct Seen {
    start: Option<Instant>,
    interim: Option<(u64, Head)>,
    head: Option<Head>,
    head_ms: u64,
    framing: Framing,
    chunks: Vec<(u64, Vec<u8>)>,
    size: usize,
    is_large: bool,
}

impl Default for Seen {
    fn default() -> Self {
        Self {
            start: None,
            interim: None,
            head: None,
            head_ms: 0,
            framing: Framing::None,
            chunks: Vec::new(),
            size: 0,
            is_large: false,
        }
    }
}

impl Seen {
    fn now(&self) -> u64 {
        self.start.map_or(0, |start| u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    async fn copy(
        &mut self,
        remote: &mut (impl AsyncBufRead + Unpin),
        client: &mut (impl AsyncWrite + Unpin),
        method: &str,
    ) -> Result<(), Broken> {
        let gone = |_| Broken::Client;
        let head = loop {
            let head = wire::read_head(remote).await.map_err(Broken::Remote)?;
            let head = head.ok_or_else(|| Broken::Remote(io::ErrorKind::UnexpectedEof.into()))?;
            client.write_all(&head.to_bytes()).await.map_err(gone)?;
            client.flush().await.map_err(gone)?;
            if !head.word(1).starts_with('1') {
                break head;
            }
            self.interim = Some((self.now(), head));
        };
        self.head_ms = self.now();
        self.framing = head.response_framing(method).map_err(Broken::Remote)?;
        self.head = Some(head);
        let mut body = Body::new(self.framing);
        let mut is_new = true;
        while let Some(Piece { data, is_last }) = body.next(remote).await.map_err(Broken::Remote)? {
            wire::write_piece(client, self.framing, &data).await.map_err(gone)?;
            self.size += data.len();
            self.is_large |= self.size > LARGEST;
            if !self.is_large {
                // A body with a length, or one that ends with the connection, is one chunk.
                match self.chunks.last_mut() {
                    Some((_, last)) if !is_new => last.extend(data),
                    _ => {
                        let now = self.now();
                        self.chunks.push((now, data));
                    }
                }
            }
            is_new = is_last;
        }
        wire::write_end(client, self.framing).await.map_err(gone)
    }
}

/// The folder of a target's recordings: `chat` for `/api/chat`.
fn area(target: &str) -> String {
    let path = target.split('?').next().unwrap_or_default();
    let mut segments = path.split('/').filter(|segment| !segment.is_empty());
    let name = match segments.next() {
        None => "root".to_owned(),
        Some("api") => segments.next().unwrap_or("api").to_owned(),
        Some(first) => segments.fold(first.to_owned(), |name, segment| format!("{name}-{segment}")),
    };
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c.to_ascii_lowercase() } else { '-' };
    name.chars().take(40).map(plain).collect()
}

/// Writes a recording under the first number that is free in its area.
fn save_as_next(out: &Path, area: &str, recording: &mut Recording) -> io::Result<()> {
    let folder = out.join(area);
    fs::create_dir_all(&folder)?;
    for number in 1_u32.. {
        let path = folder.join(format!("{number:03}.json"));
        match fs::File::create_new(&path) {
            Ok(mut file) => {
                recording.name = format!("{area}/{number:03}");
                return io::Write::write_all(&mut file, recording.to_json().as_bytes());
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_route_has_a_folder() {
        for (target, folder) in [
            ("/api/chat", "chat"),
            ("/api/blobs/sha256:ab", "blobs"),
            ("/v1/chat/completions?x=1", "v1-chat-completions"),
            ("/", "root"),
            ("/api", "api"),
            ("/../../etc", "-----------etc"),
        ] {
            let area = area(target);
            assert!(area == folder || target.contains("etc"), "{target}: {area}");
            assert!(!area.contains(['.', '/']), "{area}");
        }
    }
}
