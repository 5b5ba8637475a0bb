//! The load generator: connections that send one request after another and check each response.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, body::Incoming, client::conn::http1::SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde::{Deserialize, Serialize};
use tokio::{net::TcpStream, task::JoinSet};

use crate::{
    tls,
    work::{Api, Stream, Work},
};

/// What to measure.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    pub(crate) port: u16,
    pub(crate) api: Api,
    pub(crate) work: Work,
    pub(crate) connections: usize,
    /// How long requests are begun, after the warm-up.
    pub(crate) time: Duration,
    /// How many requests there are at most, in all.
    pub(crate) requests: usize,
    /// The folder of the certificate, if the server speaks TLS.
    pub(crate) certificates: Option<PathBuf>,
}

/// What was measured. Times are in nanoseconds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Measured {
    /// Requests that were counted.
    pub(crate) requests: usize,
    /// Words of streams that were counted.
    pub(crate) words: usize,
    /// From the first counted request to the end of the last.
    pub(crate) time: u64,
    /// How long each request took.
    pub(crate) latencies: Vec<u64>,
    /// How late each word was read after it was written.
    pub(crate) lags: Vec<u64>,
    /// The first failures of all.
    pub(crate) failures: Vec<String>,
}

impl Measured {
    /// A quantile of `values`, in milliseconds.
    pub(crate) fn quantile(values: &[u64], quantile: f64) -> Option<f64> {
        let mut values = values.to_vec();
        values.sort_unstable();
        let index = (values.len().checked_sub(1)? as f64 * quantile).round() as usize;
        Some(*values.get(index)? as f64 / 1e6)
    }
}

/// Runs the load.
///
/// # Errors
/// The server cannot be reached.
pub(crate) async fn run(load: &Load) -> Result<Measured> {
    let (path, body) = load.work.request(load.api);
    let load = Arc::new(load.clone());
    let share = load.requests.div_ceil(load.connections);
    let mut tasks = JoinSet::new();
    for number in 0..load.connections {
        let (load, body) = (load.clone(), body.clone());
        tasks.spawn(async move {
            let mut connection = Connection::open(load.port, load.certificates.as_deref(), number).await?;
            let mut measured = Measured::default();
            // Paced streams begin spread over a pause, or all of their words come at the same time.
            if let Work::Chat { streamed: true, pause, .. } = load.work {
                tokio::time::sleep(
                    pause * u32::try_from(number).unwrap_or(0) / u32::try_from(load.connections).unwrap_or(1),
                )
                .await;
            }
            connection.request(&load, path, &body, &mut Measured::default()).await?;
            let begun = Instant::now();
            while measured.requests < share && (begun.elapsed() < load.time || measured.requests == 0) {
                if let Err(error) = connection.request(&load, path, &body, &mut measured).await {
                    measured.failures.push(format!("{error:#}"));
                    if measured.failures.len() > 3 {
                        break;
                    }
                    connection = Connection::open(load.port, load.certificates.as_deref(), number).await?;
                }
            }
            measured.time = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
            Ok::<_, anyhow::Error>(measured)
        });
    }
    let mut all = Measured::default();
    while let Some(done) = tasks.join_next().await {
        let one = done??;
        all.requests += one.requests;
        all.words += one.words;
        all.time = all.time.max(one.time);
        all.latencies.extend(one.latencies);
        all.lags.extend(one.lags);
        all.failures.extend(one.failures);
    }
    all.failures.truncate(5);
    Ok(all)
}

/// A connection to a server.
pub(crate) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// Which key it sends.
    number: usize,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// The server cannot be reached.
    pub(crate) async fn open(port: u16, certificates: Option<&Path>, number: usize) -> Result<Self> {
        let socket = TcpStream::connect(("127.0.0.1", port)).await.with_context(|| format!("port {port}"))?;
        socket.set_nodelay(true)?;
        let sender = match certificates {
            None => {
                let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await?;
                tokio::spawn(connection);
                sender
            }
            Some(folder) => {
                let name = ServerName::try_from("localhost")?;
                let socket = tls::connector(folder)?.connect(name, socket).await?;
                let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await?;
                tokio::spawn(connection);
                sender
            }
        };
        Ok(Self { sender, number })
    }

    /// Sends a request and gives the body of its response.
    ///
    /// # Errors
    /// There is none, or its status is not 200.
    pub(crate) async fn send(&mut self, path: &str, body: &Bytes) -> Result<Incoming> {
        self.sender.ready().await?;
        let request = Request::builder()
            .method(if body.is_empty() { "GET" } else { "POST" })
            .uri(path)
            .header("host", "localhost")
            .header("authorization", format!("Bearer {}", key(self.number)))
            .header("content-type", "application/json")
            .body(Full::new(body.clone()))?;
        let response = self.sender.send_request(request).await?;
        if response.status() != 200 {
            let status = response.status();
            let text = response.into_body().collect().await?.to_bytes();
            anyhow::bail!("{status}: {}", String::from_utf8_lossy(&text));
        }
        Ok(response.into_body())
    }

    async fn request(&mut self, load: &Load, path: &str, body: &Bytes, measured: &mut Measured) -> Result<()> {
        let begun = Instant::now();
        let mut reply = self.send(path, body).await?;
        if let Work::Chat { streamed: true, words, .. } = load.work {
            let mut stream = Stream::new(load.api, words);
            while let Some(frame) = reply.frame().await {
                if let Ok(data) = frame?.into_data() {
                    stream.read(&data, &mut measured.lags)?;
                }
            }
            stream.end()?;
            measured.words += words;
            measured.latencies.push(u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX));
        } else {
            let whole = reply.collect().await?.to_bytes();
            measured.latencies.push(u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX));
            load.work.check(load.api, &whole)?;
        }
        measured.requests += 1;
        Ok(())
    }
}

/// The keys that farllama knows; others ignore them.
pub(crate) const KEYS: usize = 100;

/// One of them.
pub(crate) fn key(number: usize) -> String {
    format!("bench-key-{:03}", number % KEYS)
}

/// Opens `count` streams that say one word and then nothing for an hour, and gives their connections.
///
/// # Errors
/// One cannot be opened, or says nothing.
pub(crate) async fn hold(port: u16, api: Api, count: usize) -> Result<Vec<(Connection, Incoming)>> {
    let (path, body) = Work::chat(true, 2, Duration::from_secs(3600)).request(api);
    let mut held = Vec::with_capacity(count);
    for number in 0..count {
        let mut connection = Connection::open(port, None, number).await?;
        let mut reply = connection.send(path, &body).await?;
        let first = reply.frame().await.context("a stream ended at once")??;
        ensure!(first.data_ref().is_some_and(|data| !data.is_empty()), "a stream without a first word");
        held.push((connection, reply));
    }
    Ok(held)
}
