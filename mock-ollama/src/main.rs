//! `mock-ollama`: the mock as a program. Everything it can do is in the library; this reads flags, starts it and waits
//! for a signal.

use std::{
    fs,
    io::{self, IsTerminal, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpStream},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result};
use clap::{ArgAction, CommandFactory, Parser, ValueEnum};
use clap_complete::Shell;
use mock_ollama::{Chaos, Mock, Model, Options, Pace, Replay, Script, Stock, Version};
use tracing_subscriber::{Layer, filter::LevelFilter, layer::SubscriberExt, util::SubscriberInitExt};

/// Plays an Ollama server without a model: faithful answers that obey the request, in the manner of the version that
/// you choose, and misbehavior on request.
#[derive(Debug, Parser)]
#[command(name = "mock-ollama", version, disable_version_flag = true, after_help = AFTER_HELP)]
struct Flags {
    /// Address to listen on
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    host: IpAddr,
    /// Port to listen on; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 11436)]
    port: u16,
    /// Ollama version to play, such as 0.20.0 (for this program's own version see --about)
    /// [default: 0.33.0-rc2, or that of the recordings]
    #[arg(long, value_name = "X")]
    version: Option<Version>,
    /// JSON file with a version and the features in which it differs, such as {"version": "0.34.0", "features":
    /// {"think_max": false}}; docs/mock.md lists them
    #[arg(long, value_name = "FILE", conflicts_with = "version")]
    profile: Option<PathBuf>,
    /// Tokens of context where no request or Modelfile sets them, as OLLAMA_CONTEXT_LENGTH [default: 4096]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(4..))]
    context_length: Option<u32>,
    /// Requests that may wait for a model's place in memory, as OLLAMA_MAX_QUEUE: more are refused with 503 [default:
    /// there is always a place]
    #[arg(long, value_name = "N")]
    max_queue: Option<usize>,
    /// Models in memory at the same time, as OLLAMA_MAX_LOADED_MODELS [default: 3]
    #[arg(long, value_name = "N", requires = "max_queue")]
    max_loaded_models: Option<usize>,
    /// Tokens of prompts that are read in a second, one prompt after the other; a prompt that has begun is read to its
    /// end, although its client has left [default: prompts take no time]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    prompt_speed: Option<u32>,
    /// Milliseconds that a short request waits after 16 long prompts, as when llama-server copies idle slots to memory
    /// (LLAMA_ARG_CACHE_RAM)
    #[arg(long, value_name = "MS", requires = "prompt_speed", default_value_t = 0)]
    cache_stall: u64,
    /// Add a model; can be given several times. WORDS are capabilities (completion, tools, insert, vision, embedding,
    /// thinking, audio), `jinja` (its tool calls are on the last chunk), `guard` (it judges like Llama Guard) and
    /// `context:N`
    #[arg(long = "model", value_name = "NAME[=WORDS]")]
    models: Vec<Model>,
    /// Models to start with
    #[arg(long, value_enum, value_name = "WHICH", default_value_t)]
    stock: StockFlag,
    /// JSON file with rules of when and reply, and models: an array such as [{"models": ["mine=tools"]}, {"when":
    /// {"path": "/api/chat"}, "reply": {"status": 503, "body": {"error": "busy"}}}]
    #[arg(long, value_name = "FILE")]
    script: Option<PathBuf>,
    /// Misbehave at random, the same way for the same seed and requests: seed=N and, for each written line, the
    /// probability that it is cut, stalls (nothing more comes), is reset, is split into several writes, or comes late,
    /// such as seed=7,cut=0.01,stall=0.01,reset=0.005, split=0.2,slow=0.1
    #[arg(long, value_name = "SETTINGS")]
    chaos: Option<Chaos>,
    /// Answer from the recordings of a folder, as `farllama-check record` makes them: the recorded response for the
    /// request that was recorded, and for another one of the same shape that response with the request's own text
    #[arg(long, value_name = "DIR")]
    replay: Option<PathBuf>,
    /// Wait between the chunks of a recording as long as the recorded server did
    #[arg(long, requires = "replay")]
    replay_timing: bool,
    /// Answer like Ollama where no recording fits [default: 501 with the nearest recording]
    #[arg(long, requires = "replay")]
    replay_fallback: bool,
    /// Do not log requests on stderr
    #[arg(short, long)]
    quiet: bool,
    /// Check that a mock answers at --host and --port, and end: for health checks of containers
    #[arg(long)]
    health: bool,
    /// Print completions for a shell
    #[arg(long, hide = true, value_name = "SHELL")]
    completions: Option<Shell>,
    /// Write the manual page to a folder
    #[arg(long, hide = true, value_name = "DIR")]
    man: Option<PathBuf>,
    /// Print this program's own version
    #[arg(short = 'V', long, action = ArgAction::Version)]
    about: Option<bool>,
}

/// How long a mock may take to answer a health check.
const PATIENCE: Duration = Duration::from_secs(5);

const AFTER_HELP: &str = "\
Prints the address that it listens on, and runs until Ctrl-C or SIGTERM.
Exit codes: 0 ended by a signal; 2 unusable flag or script, or the address is not available.";

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum StockFlag {
    /// gpt-oss:20b, agent, qwen3-vl:8b, gemma4:e4b, llama-guard3:8b, and the recorded ones
    #[default]
    Usual,
    /// Those of the recordings: smollm2:135m, caller:135m, pair:135m, thinker:135m, filler:135m, all-minilm
    Recorded,
    /// None
    Empty,
}

impl From<StockFlag> for Stock {
    fn from(flag: StockFlag) -> Self {
        match flag {
            StockFlag::Usual => Self::Usual,
            StockFlag::Recorded => Self::Recorded,
            StockFlag::Empty => Self::Empty,
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let flags = Flags::parse();
    match run(flags).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mock-ollama: {error:#}");
            ExitCode::from(2)
        }
    }
}

async fn run(flags: Flags) -> Result<()> {
    if let Some(shell) = flags.completions {
        clap_complete::generate(shell, &mut Flags::command(), "mock-ollama", &mut io::stdout());
        return Ok(());
    }
    if let Some(dir) = &flags.man {
        let written = fs::create_dir_all(dir).and_then(|()| clap_mangen::generate_to(Flags::command(), dir));
        return written.with_context(|| format!("cannot write the manual page to {}", dir.display()));
    }
    if flags.health {
        return health(flags.host, flags.port).with_context(|| format!("no mock at {}:{}", flags.host, flags.port));
    }
    let level = if flags.quiet { LevelFilter::WARN } else { LevelFilter::INFO };
    let log = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false);
    tracing_subscriber::registry().with(log.with_filter(level)).init();

    let script = flags.script.as_deref().map(read_script).transpose()?.unwrap_or_default();
    let profile = flags.profile.as_deref().map(read_profile).transpose()?;
    let version = flags.version.or(profile);
    let mut replay = flags.replay.as_deref().map(|dir| Replay::read(dir, version.as_ref())).transpose()?;
    if let Some(replay) = &mut replay {
        replay.timing = flags.replay_timing;
        replay.fallback = flags.replay_fallback;
    }
    let recorded = replay.as_ref().map(|replay| (replay.version().clone(), replay.len()));
    let version = version.or_else(|| recorded.as_ref().map(|(version, _)| version.clone())).unwrap_or_default();
    let played = match recorded {
        Some((_, count)) => format!("replays {count} recordings of Ollama {version}"),
        None => format!("plays Ollama {version}"),
    };
    let options = Options {
        host: flags.host,
        port: flags.port,
        version,
        context_length: flags.context_length,
        max_queue: flags.max_queue,
        max_loaded_models: flags.max_loaded_models,
        pace: flags
            .prompt_speed
            .map(|prompt_speed| Pace { prompt_speed, cache_stall: Duration::from_millis(flags.cache_stall) }),
        stock: flags.stock.into(),
        models: flags.models,
        chaos: flags.chaos,
        replay,
    };
    // Signals are caught before the address is printed, so that its reader may send one.
    let signal = signal()?;
    let mock = Mock::start_with(options, script).await.with_context(|| {
        format!("cannot listen on {}, port {}; choose others with --host and --port", flags.host, flags.port)
    })?;
    let mut stdout = io::stdout();
    writeln!(stdout, "mock-ollama {played} on {}", mock.url())?;
    stdout.flush()?;
    signal.await;
    Ok(())
}

/// Asks a mock for its version.
fn health(host: IpAddr, port: u16) -> io::Result<()> {
    // What listens everywhere is asked on this machine.
    let host = match host {
        IpAddr::V4(host) if host.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(host) if host.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        host => host,
    };
    let mut socket = TcpStream::connect_timeout(&(host, port).into(), PATIENCE)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.write_all(b"GET /api/version HTTP/1.0\r\n\r\n")?;
    let mut response = String::new();
    socket.read_to_string(&mut response)?;
    if response.split(' ').nth(1) == Some("200") {
        return Ok(());
    }
    let line = response.lines().next().unwrap_or_default().to_owned();
    Err(io::Error::other(format!("unexpected response {line:?}")))
}

fn read_script(path: &Path) -> Result<Script> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read the script {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is not a script", path.display()))
}

fn read_profile(path: &Path) -> Result<Version> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read the profile {}", path.display()))?;
    Version::from_profile(&text).with_context(|| format!("{} is not a profile", path.display()))
}

/// Ends with Ctrl-C or SIGTERM.
#[cfg(unix)]
fn signal() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// Ends with Ctrl-C.
#[cfg(not(unix))]
fn signal() -> io::Result<impl Future<Output = ()>> {
    Ok(async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    })
}
