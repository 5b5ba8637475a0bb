//! Sends recorded requests to another server and compares its responses with the recorded ones.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use mock_ollama::recording::{Difference, Recording, Response, differences};
use serde_json::Value;
use tokio::io::{AsyncBufRead, AsyncWriteExt, BufReader};

use super::{
    mask::{Counts, Masks},
    upstream::Upstream,
    wire::{self, Body, Head, Piece},
};

/// Routes that change what the remote has.
const WRITES: [&str; 6] = ["/api/create", "/api/copy", "/api/pull", "/api/push", "/api/delete", "/api/blobs"];

/// Why a recording was not compared.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Skipped {
    /// It would change the remote.
    Writes,
    /// The process of the model was killed while it was recorded.
    Killed,
    /// The remote lacks the model.
    LacksModel(String),
}

/// The outcome for one recording.
#[derive(Debug)]
pub(crate) enum Verified {
    Skipped(Skipped),
    /// What differs; nothing, if the responses agree.
    Compared(Vec<Difference>),
    /// There was no whole response.
    Failed(String),
}

/// How recordings are compared.
pub(crate) struct Terms<'a> {
    pub(crate) upstream: &'a Upstream,
    /// The models of the remote, if it listed them.
    pub(crate) models: Option<BTreeSet<String>>,
    /// Sends requests that change the remote, too.
    pub(crate) writes: bool,
    pub(crate) timeout: Duration,
    /// Where the new responses are written, as recordings of this version.
    pub(crate) save: Option<(PathBuf, String, &'a Masks)>,
}

/// A model's name with its tag, in lower case: newer versions ignore the case.
fn tagged(name: &str) -> String {
    let name = name.to_lowercase();
    if name.rsplit('/').next().is_some_and(|last| last.contains(':')) { name } else { format!("{name}:latest") }
}

/// The version and the models of a server.
///
/// # Errors
/// Fails if it cannot be reached, or does not report a version as Ollama does.
pub(crate) async fn introduce(
    upstream: &Upstream,
    timeout: Duration,
) -> Result<(String, Option<BTreeSet<String>>), String> {
    let get = async |path: &str| -> Result<Value, String> {
        let mut recording = Recording::default();
        recording.request.method = "GET".to_owned();
        recording.request.path = path.to_owned();
        let response = ask(upstream, &recording, timeout).await?.1;
        if response.code() != Some(200) {
            return Err(format!("{} at {path}", response.status));
        }
        serde_json::from_str(&response.body()).map_err(|_| format!("{path} does not return JSON"))
    };
    let version = get("/api/version").await?;
    let version = version["version"].as_str().ok_or("/api/version names no version; this is not an Ollama")?.to_owned();
    let names = get("/api/tags").await.ok().and_then(|tags| {
        let models = tags["models"].as_array()?.iter().filter_map(|model| model["name"].as_str());
        Some(models.map(tagged).collect())
    });
    Ok((version, names))
}

/// Sends one recorded request and compares.
pub(crate) async fn verify(recording: &Recording, terms: &Terms<'_>) -> Verified {
    let path = recording.request.path.split('?').next().unwrap_or_default();
    let method = &*recording.request.method;
    let is_write = WRITES.iter().any(|write| path.starts_with(write)) && method != "HEAD" && method != "GET";
    if is_write && !terms.writes {
        return Verified::Skipped(Skipped::Writes);
    }
    if recording.runner_killed_after_chunks.is_some() || recording.runner_killed_ms.is_some() {
        return Verified::Skipped(Skipped::Killed);
    }
    let body: Value = serde_json::from_str(&recording.request.whole_body()).unwrap_or_default();
    let model = body["model"].as_str().or(body["name"].as_str());
    let is_success = recording.response.code().is_some_and(|code| code < 300);
    if let (Some(model), Some(models), true) = (model, &terms.models, is_success && !is_write)
        && !models.contains(&tagged(model))
    {
        return Verified::Skipped(Skipped::LacksModel(model.to_owned()));
    }
    match ask(terms.upstream, recording, terms.timeout).await {
        Err(why) => Verified::Failed(why),
        Ok((interim, response)) => {
            let found = differences(recording, &response);
            if let Some((out, version, masks)) = &terms.save {
                let mut now = recording.clone();
                now.ollama.clone_from(version);
                now.interim = interim;
                now.response = response;
                let saved = masks
                    .apply(&mut now, &mut Counts::new())
                    .map_err(|rule| format!("something to mask across chunks ({rule})"))
                    .and_then(|()| save(out, &now).map_err(|error| error.to_string()));
                if let Err(why) = saved {
                    return Verified::Failed(format!("not saved: {why}"));
                }
            }
            Verified::Compared(found)
        }
    }
}

/// Writes a recording under its own name.
fn save(out: &Path, recording: &Recording) -> io::Result<()> {
    let is_plain = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.contains(['\\', ':']);
    if !recording.name.split('/').all(is_plain) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("invalid name {:?}", recording.name)));
    }
    let path = out.join(format!("{}.json", recording.name));
    fs::create_dir_all(path.parent().unwrap_or(out))?;
    fs::write(path, recording.to_json())
}

type Interim = Option<(u64, String, mock_ollama::recording::Headers)>;

async fn ask(upstream: &Upstream, recording: &Recording, timeout: Duration) -> Result<(Interim, Response), String> {
    let asked = tokio::time::timeout(timeout, send(upstream, recording)).await;
    asked.map_err(|_| format!("no whole response within {timeout:?}"))?.map_err(|error| error.to_string())
}

async fn send(upstream: &Upstream, recording: &Recording) -> io::Result<(Interim, Response)> {
    let request = &recording.request;
    let body = request.whole_body();
    let version = request.version.as_deref().unwrap_or("1.1");
    let mut head = Head { line: format!("{} {} HTTP/{version}", request.method, request.path), headers: Vec::new() };
    head.headers.extend(request.whole_headers().map(|(name, value)| (name.to_owned(), value)));
    if request.chunks.is_none() && (!body.is_empty() || request.method == "POST") {
        head.headers.push(("Content-Length".to_owned(), body.len().to_string()));
    }
    let (mut first, mut body) = match (&request.whole_head, &request.chunks) {
        (Some(whole), _) => (whole.clone().into_bytes(), Vec::new()),
        (None, None) => (upstream.addressed(&head).to_bytes(), body.into_bytes()),
        (None, Some(chunks)) => {
            let chunks = chunks.iter().filter(|chunk| !chunk.is_empty());
            let mut text: String = chunks.map(|chunk| format!("{:x}\r\n{chunk}\r\n", chunk.len())).collect();
            text += "0\r\n\r\n";
            (upstream.addressed(&head).to_bytes(), text.into_bytes())
        }
    };
    let expects = head.value("expect").is_some();
    if !expects {
        first.append(&mut body);
    }
    let start = Instant::now();
    let now = || u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    let (reader, mut writer) = tokio::io::split(upstream.connect().await?);
    let mut reader = BufReader::new(reader);
    // A response may come before everything is sent, and what is sent after it fails.
    let (_, head) = tokio::join!(
        async {
            writer.write_all(&first).await?;
            writer.flush().await
        },
        wire::read_head(&mut reader)
    );
    let mut head = head?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let mut interim = None;
    if expects && head.word(1) == "100" {
        interim = Some((now(), head.line, head.headers));
        writer.write_all(&body).await?;
        writer.flush().await?;
        head = wire::read_head(&mut reader).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    }
    let head_ms = now();
    let framing = head.response_framing(&request.method)?;
    let chunks = read_chunks(&mut reader, Body::new(framing), recording.left_after_chunks, now).await?;
    let response =
        Response { status: head.line, headers: head.headers, head_ms, framing: framing.name().to_owned(), chunks };
    Ok((interim, response))
}

/// The chunks of a body, or the first so many.
async fn read_chunks(
    reader: &mut (impl AsyncBufRead + Unpin),
    mut body: Body,
    enough: Option<usize>,
    now: impl Fn() -> u64,
) -> io::Result<Vec<(u64, String)>> {
    let mut chunks: Vec<(u64, Vec<u8>)> = Vec::new();
    let mut is_new = true;
    while let Some(Piece { data, is_last }) = body.next(reader).await? {
        match chunks.last_mut() {
            Some((_, last)) if !is_new => last.extend(data),
            _ => chunks.push((now(), data)),
        }
        is_new = is_last;
        if is_last && enough == Some(chunks.len()) {
            break;
        }
    }
    let text = |bytes| String::from_utf8(bytes).unwrap_or_else(|_| "(not UTF-8)".to_owned());
    Ok(chunks.into_iter().map(|(at, bytes)| (at, text(bytes))).collect())
}
