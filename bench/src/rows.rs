//! The rows of the table: what is asked of each contender, and what is measured.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http_body_util::BodyExt as _;

use crate::{
    contender::{self, Contender, Place, Running},
    load::{self, Connection, Load, Measured},
    process::{SystemCalls, cpu, resident},
    work::{Api, Work},
};

/// A row.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    pub(crate) api: Api,
    pub(crate) kind: Kind,
    pub(crate) tls: bool,
}

/// How a row is measured.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    /// Requests, one after another on each of so many connections: how long each takes, how many there are, what each
    /// costs.
    Requests { work: Work, connections: usize },
    /// Streams as fast as they come: what a chunk costs.
    Chunks { connections: usize },
    /// Streams of 50 chunks a second: how late chunks are.
    Lag { connections: usize },
    /// So many open streams: memory, and how soon the remote notices that all clients have left.
    Held { streams: usize },
    /// So many connections that do nothing: memory.
    Idle { connections: usize },
    /// System calls of a request.
    SystemCalls,
}

/// What one measurement found: names with their units, and values.
pub(crate) type Values = Vec<(&'static str, f64)>;

const CHAT: Work = Work::chat(false, 64, Duration::ZERO);
const EMBED: Work = Work::Embed { inputs: 64, dimensions: 1024 };
const LONG: Work = Work::Chat { streamed: false, words: 64, pause: Duration::ZERO, messages: 200, bytes: 1 << 20 };

/// Pairs of rows: in OpenAI's API, which farllama translates, and in Ollama's, which it passes through.
pub(crate) fn rows() -> Vec<Row> {
    let pair = |names: [&'static str; 2], what, kind, tls| {
        [Api::Openai, Api::Native].into_iter().zip(names).map(move |(api, name)| Row { name, what, api, kind, tls })
    };
    let requests = |work, connections| Kind::Requests { work, connections };
    [
        pair(["chat_c1", "nchat_c1"], "a chat of 64 words, one connection", requests(CHAT, 1), false),
        pair(["chat_c64", "nchat_c64"], "the same on 64 connections", requests(CHAT, 64), false),
        pair(
            ["stream_c32", "nstream_c32"],
            "32 streams of 200 chunks, as fast as they come",
            Kind::Chunks { connections: 32 },
            false,
        ),
        pair(["lag_c32", "nlag_c32"], "32 streams of 50 chunks a second", Kind::Lag { connections: 32 }, false),
        pair(["embed_c1", "nembed_c1"], "64 embeddings of 1,024 numbers", requests(EMBED, 1), false),
        pair(["long_c1", "nlong_c1"], "a chat of 200 messages and 1 MB", requests(LONG, 1), false),
        pair(["tls_c1", "ntls_c1"], "chat_c1 with TLS on both sides", requests(CHAT, 1), true),
        pair(["calls", "ncalls"], "system calls of a chat, one connection", Kind::SystemCalls, false),
        pair(
            ["held_1000", "nheld_1000"],
            "1,000 open streams, then all clients leave",
            Kind::Held { streams: 1000 },
            false,
        ),
        pair(
            ["idle_9000", "nidle_9000"],
            "9,000 connections that did one request each",
            Kind::Idle { connections: 9000 },
            false,
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

impl Row {
    /// Whether a contender can do this row. The floors know chats without TLS.
    pub(crate) fn is_for(&self, contender: Contender) -> bool {
        let embeds = matches!(self.kind, Kind::Requests { work: Work::Embed { .. }, .. });
        let of_a_process = matches!(self.kind, Kind::Idle { .. } | Kind::SystemCalls);
        match contender {
            Contender::Direct => !of_a_process,
            Contender::Floor => !(self.tls || embeds && self.api == Api::Openai),
            Contender::Nginx | Contender::Farllama => true,
        }
    }

    /// Measures one contender for `time`.
    ///
    /// # Errors
    /// A response was wrong, or a process ended.
    pub(crate) async fn measure(&self, running: &Running, time: Duration, place: &Place) -> Result<Values> {
        let load = |work, connections, requests| Load {
            port: running.port,
            api: self.api,
            work,
            connections,
            time,
            requests,
            certificates: self.tls.then(|| place.folder.clone()),
        };
        let process = running.process.as_ref().map(crate::process::Process::id);
        match self.kind {
            Kind::Requests { work, connections } => {
                let (measured, used) = timed(&load(work, connections, usize::MAX), process).await?;
                let mut values = vec![
                    ("p50 ms", quantile(&measured.latencies, 0.5)?),
                    ("p99 ms", quantile(&measured.latencies, 0.99)?),
                    ("requests/s", measured.requests as f64 / (measured.time as f64 / 1e9)),
                ];
                // With the requests that are not counted: one for each connection.
                values.extend(used.map(|used| ("CPU µs/request", used / (measured.requests + connections) as f64)));
                Ok(values)
            }
            Kind::Chunks { connections } => {
                let (measured, used) =
                    timed(&load(Work::chat(true, 200, Duration::ZERO), connections, usize::MAX), process).await?;
                let mut values = vec![("chunks/s", measured.words as f64 / (measured.time as f64 / 1e9))];
                values.extend(used.map(|used| ("CPU µs/chunk", used / (measured.words + connections * 200) as f64)));
                Ok(values)
            }
            Kind::Lag { connections } => {
                let work = Work::chat(true, 50, Duration::from_millis(20));
                let (measured, _) = timed(&load(work, connections, usize::MAX), process).await?;
                Ok(vec![("p50 ms", quantile(&measured.lags, 0.5)?), ("p95 ms", quantile(&measured.lags, 0.95)?)])
            }
            Kind::SystemCalls => {
                let process = process.context("no process to trace")?;
                let (few, many) = (50, 250);
                let mut counts = Vec::new();
                for requests in [few, many] {
                    let calls = SystemCalls::start(process)?;
                    let measured =
                        load::run(&Load { time: Duration::from_secs(60), ..load(CHAT, 1, requests) }).await?;
                    ensure!(measured.failures.is_empty(), "{}", measured.failures.join("; "));
                    counts.push(calls.stop()?);
                }
                Ok(vec![("calls/request", counts[1].saturating_sub(counts[0]) as f64 / (many - few) as f64)])
            }
            Kind::Held { streams } => {
                let memory = || process.map(resident);
                let before = memory();
                let held = load::hold(running.port, self.api, streams).await?;
                let open = memory();
                drop(held);
                let left = Instant::now();
                let mut remote = Connection::open(place.remote.0, None, 0).await?;
                loop {
                    let count = remote.send("/counts", &Bytes::new()).await?.collect().await?.to_bytes();
                    if &*count == b"0" {
                        break;
                    }
                    ensure!(
                        left.elapsed() < Duration::from_secs(30),
                        "{} streams are open 30 s later",
                        String::from_utf8_lossy(&count)
                    );
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                let noticed = left.elapsed().as_secs_f64() * 1000.0;
                tokio::time::sleep(Duration::from_secs(10)).await;
                let mut values: Values = [("idle MB", before), ("open MB", open), ("10 s later MB", memory())]
                    .into_iter()
                    .filter_map(|(name, value)| Some((name, value?)))
                    .collect();
                values.push(("noticed ms", noticed));
                Ok(values)
            }
            Kind::Idle { connections } => {
                let process = process.context("no process")?;
                let before = resident(process);
                let mut open = Vec::with_capacity(connections);
                for number in 0..connections {
                    let mut connection = Connection::open(running.port, None, number).await?;
                    connection.send("/api/version", &Bytes::new()).await?.collect().await?;
                    open.push(connection);
                }
                Ok(vec![("KB/connection", (resident(process) - before) * 1024.0 / connections as f64)])
            }
        }
    }

    /// Whether each measurement needs a process that has done nothing yet.
    pub(crate) fn needs_fresh(&self) -> bool {
        matches!(self.kind, Kind::Held { .. } | Kind::Idle { .. })
    }

    /// Starts a contender for this row.
    ///
    /// # Errors
    /// As [`contender::start`].
    pub(crate) fn start(&self, contender: Contender, port: u16, place: &Place) -> Result<Running> {
        contender::start(contender, self.api, self.tls, port, place)
    }
}

fn quantile(values: &[u64], quantile: f64) -> Result<f64> {
    Measured::quantile(values, quantile).context("nothing was measured")
}

/// Runs a load; with it, the microseconds that the process ran meanwhile.
async fn timed(load: &Load, process: Option<u32>) -> Result<(Measured, Option<f64>)> {
    let before = process.map(cpu);
    let measured = load::run(load).await?;
    ensure!(measured.failures.is_empty(), "{}", measured.failures.join("; "));
    let used = process.zip(before).map(|(process, before)| cpu(process).saturating_sub(before) as f64 / 1000.0);
    Ok((measured, used))
}
