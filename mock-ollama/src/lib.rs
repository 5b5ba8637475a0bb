//! An Ollama that needs no model: it plays the native API of a chosen version faithfully, obeys what it is asked,
//! misbehaves on request, and keeps a journal of what it was asked.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> std::io::Result<()> {
//! use mock_ollama::{Mock, Script, Then};
//!
//! let mock = Mock::start(Script::on("/api/tags").times(1).then(Then::Cut)).await?;
//! println!("OLLAMA_HOST={}", mock.url());
//! # Ok(())
//! # }
//! ```
//!
//! It deliberately knows nothing of `/v1` (those paths are 404), of accounts and of the cloud, and shares no types with
//! the proxy that is tested against it: what it says is measured by recordings of real servers (`tests/truth.rs`).

mod chaos;
mod generation;
mod go;
mod journal;
mod models;
mod names;
mod pace;
pub mod recording;
mod replay;
mod routes;
mod schema;
mod script;
mod seen;
mod server;
mod state;
mod timestamps;
mod tokens;
mod version;
mod words;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use tokio::{net::TcpListener, task::JoinHandle};

pub use self::{
    chaos::{Chaos, NoChaos},
    journal::{Ending, Entry, Journal},
    models::{Model, NoModel, Stock},
    pace::Pace,
    replay::{Replay, ReplayError},
    script::{BodyIs, Content, Line, Reply, Rule, Script, Then, Wait, When},
    seen::Seen,
    version::{NoVersion, ProfileError, Version},
};

/// Tokens of context by default on a machine with less than 24 GB of video memory.
const CONTEXT_LENGTH: u32 = 4096;
/// Models in memory at the same time on a machine without a GPU.
const LOADED_MODELS: usize = 3;

/// How the mock is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it listens.
    pub host: IpAddr,
    /// 0 takes a free one.
    pub port: u16,
    /// The Ollama that it plays.
    pub version: Version,
    /// As `OLLAMA_CONTEXT_LENGTH`: tokens of context where neither a request nor a Modelfile says. Absent: 4096, as on
    /// a machine with less than 24 GB of video memory.
    pub context_length: Option<u32>,
    /// As `OLLAMA_MAX_QUEUE`: how many requests may wait for a place in memory behind the one that is next. Absent:
    /// there is always a place, and requests on the same model run side by side.
    pub max_queue: Option<usize>,
    /// As `OLLAMA_MAX_LOADED_MODELS`, where `max_queue` is set. Absent: 3, as on a machine without a GPU.
    pub max_loaded_models: Option<usize>,
    /// How long models take to read prompts. Absent: no time.
    pub pace: Option<Pace>,
    /// The models that it has from the start.
    pub stock: Stock,
    /// More models; one of a known name replaces it.
    pub models: Vec<Model>,
    /// Seeded misbehavior of every response; a script's own wins.
    pub chaos: Option<Chaos>,
    /// Recordings to answer from, where no rule of the script applies.
    pub replay: Option<Replay>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            host: Ipv4Addr::LOCALHOST.into(),
            port: 0,
            version: Version::default(),
            context_length: None,
            max_queue: None,
            max_loaded_models: None,
            pace: None,
            stock: Stock::default(),
            models: Vec::new(),
            chaos: None,
            replay: None,
        }
    }
}

/// A running mock. Dropping it ends the server and its connections.
#[derive(Debug)]
pub struct Mock {
    addr: SocketAddr,
    journal: Journal,
    seen: Seen,
    server: JoinHandle<()>,
}

impl Mock {
    /// Starts on a free port of 127.0.0.1, with the default options.
    ///
    /// # Errors
    /// No port could be had.
    pub async fn start(script: Script) -> io::Result<Self> {
        Self::start_with(Options::default(), script).await
    }

    /// Starts as the options say.
    ///
    /// # Errors
    /// The address is taken, or not this machine's.
    pub async fn start_with(options: Options, script: Script) -> io::Result<Self> {
        let listener = TcpListener::bind((options.host, options.port)).await?;
        let addr = listener.local_addr()?;
        let (journal, seen) = (Journal::default(), Seen::default());
        let models =
            options.stock.models().into_iter().chain(options.models).chain(script.models.iter().cloned()).collect();
        let limits = options
            .max_queue
            .map(|queue| state::Limits { queue, loaded: options.max_loaded_models.unwrap_or(LOADED_MODELS).max(1) });
        let app = server::App {
            state: Arc::new(
                state::State::new(
                    options.version,
                    options.context_length.unwrap_or(CONTEXT_LENGTH),
                    addr.ip().is_loopback(),
                    limits,
                    models,
                )
                .publishing(script.published.clone()),
            ),
            fates: chaos::Fates::new(script.chaos.or(options.chaos)),
            playing: script::Playing::new(script, seen.clone()),
            journal: journal.clone(),
            runner: options.pace.map(pace::Runner::new),
            replaying: options.replay.map(replay::Replaying::new),
        };
        let server = tokio::spawn(server::serve(listener, Arc::new(app)));
        Ok(Self { addr, journal, seen, server })
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `http://` and [`Mock::addr`].
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// What it was asked so far; the same journal at every call.
    #[must_use]
    pub fn journal(&self) -> Journal {
        self.journal.clone()
    }

    /// Where its client reports what it has seen, for scripts that wait for that ([`Wait::Seen`]).
    #[must_use]
    pub fn seen(&self) -> Seen {
        self.seen.clone()
    }
}

impl Drop for Mock {
    fn drop(&mut self) {
        self.server.abort();
    }
}
