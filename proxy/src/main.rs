//! `farllama`: flags → settings → serve until signalled.

mod cli;

use std::{
    io::{IsTerminal, Read, Write},
    process::ExitCode,
    time::Duration,
};

use cli::{
    Verb,
    log_writer::{FlushOnDrop, LogWriter},
    startup,
};
use farllama::{
    Config, Running,
    config::{Digest, Local, Log, LogFormat, LogLevel, Sources, load, show},
};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{filter::Targets, layer::SubscriberExt, util::SubscriberInitExt};

/// How long answers in flight may take once the proxy is told to stop.
const GRACE: Duration = Duration::from_secs(10);

/// Input that cannot be used, or a start that is not possible.
const UNUSABLE: u8 = 2;

fn main() -> ExitCode {
    // Unusable flags end the process here, with a message and exit code 2.
    let matches = cli::command().get_matches();
    let environment = match cli::environment(std::env::vars_os()) {
        Ok(environment) => environment,
        Err(wrong) => return complain(&wrong),
    };
    let (verb, sources) = cli::read(&matches, environment);
    if verb == Verb::KeyNew {
        return print(&new_key());
    }
    let loaded = match load(&sources) {
        Ok(loaded) => loaded,
        Err(error) => return complain(&error.to_string()),
    };
    for warning in &loaded.warnings {
        eprintln!("farllama: warning: {warning}");
    }
    match verb {
        Verb::ConfigShow => print(&show(&loaded)),
        Verb::ConfigCheck => check(&loaded.config),
        // Needs no settings, and is done.
        Verb::KeyNew => ExitCode::SUCCESS,
        Verb::Explain => explain(&cli::explained(&matches, &sources), loaded.config),
        Verb::Serve => match serve(loaded.config, &sources) {
            Ok(()) => ExitCode::SUCCESS,
            Err(message) => complain(&message),
        },
    }
}

/// A key of 244 random bits, which needs no salt and no slow digest, and the line that knows it.
fn new_key() -> String {
    let key = format!("fl-{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple());
    let digest = Digest::of(key.as_bytes());
    format!(
        "key, for the caller; it is shown only now:\n  {key}\n\nline for the settings:\n  [auth]\n  enabled = true\n  tokens = [\n    {{ key_hash = \"{digest}\", name = \"…\" }},\n  ]\n"
    )
}

/// How long a remote may take to say what it has loaded.
const LOOK: Duration = Duration::from_secs(2);

/// Shows what a request becomes: exit code 1 if it is refused.
fn explain(asked: &cli::Explain, mut config: Config) -> ExitCode {
    let read = match &asked.file {
        Some(path) => std::fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display())),
        None => {
            let mut body = Vec::new();
            std::io::stdin()
                .read_to_end(&mut body)
                .map(|_| body)
                .map_err(|error| format!("cannot read the body: {error}"))
        }
    };
    let body = match read {
        Ok(body) => body,
        Err(message) => return complain(&message),
    };
    let mut explained = match farllama::explain(body, asked.endpoint.as_deref(), &config) {
        Ok(explained) => explained,
        Err(refusal) => {
            print(&format!("{refusal}\n"));
            return ExitCode::FAILURE;
        }
    };
    if asked.loaded {
        (config.timeouts.connect, config.timeouts.first_byte) = (LOOK, LOOK);
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return complain(&format!("cannot start: {error}")),
        };
        runtime.block_on(explained.compare(&config));
        // A name look-up may still hang in a thread of its own.
        runtime.shutdown_background();
    }
    print(&if asked.curl { explained.curl() } else { explained.json() })
}

fn complain(message: &str) -> ExitCode {
    eprintln!("farllama: {message}");
    ExitCode::from(UNUSABLE)
}

/// What no single setting shows: the files that are named, and where the remote leads.
fn check(config: &Config) -> ExitCode {
    let files = [
        ("remote.ca_file", &config.remote.ca_file),
        ("local.tls_cert", &config.local.tls_cert),
        ("local.tls_key", &config.local.tls_key),
    ];
    for (key, path) in files {
        if let Some(path) = path
            && let Err(error) = std::fs::File::open(path)
        {
            return complain(&format!("{key}: {}: {error}", path.display()));
        }
    }
    if startup::leads_to_itself(config) {
        eprintln!("farllama: warning: serve will refuse this: {}", startup::itself(config));
    }
    print("the settings can be used\n")
}

/// Prints to stdout; whoever stopped reading has what they wanted.
fn print(text: &str) -> ExitCode {
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

fn serve(config: Config, sources: &Sources) -> Result<(), String> {
    let log = LogWriter::start().map_err(|error| format!("cannot start a thread: {error}"))?;
    log_to_stderr(&config, log.clone());
    let _flush = FlushOnDrop(log);
    raise_open_files();
    // Before signals are listened for, so that Ctrl-C ends a name look-up that hangs.
    let itself = startup::leads_to_itself(&config);
    // One thread: a proxy waits far more than it works, and handing work from thread to thread costs more than the work.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start: {error}"))?;
    let outcome = runtime.block_on(run(config, sources, itself));
    // A name lookup may still hang in a thread of its own.
    runtime.shutdown_timeout(Duration::from_millis(100));
    outcome
}

async fn run(config: Config, sources: &Sources, itself: bool) -> Result<(), String> {
    let mut signals = Signals::listen().map_err(|error| format!("cannot listen for signals: {error}"))?;
    if itself {
        return Err(startup::itself_or_another(&config).await);
    }
    let running = match farllama::serve(config.clone()).await {
        Ok(running) => running,
        Err(error) => return Err(startup::cannot_listen(&config, &error).await),
    };
    let (native, openai) = startup::urls(running.addr(), &config);
    tracing::info!(target: "farllama", ollama = native, openai, "listening");
    if config.local.public && !config.auth.enabled && !running.addr().ip().is_loopback() {
        tracing::warn!(target: "farllama", "ANYBODY who can reach {} can use this proxy: no key is asked for (auth.enabled is false)", running.addr());
    }
    while signals.next().await == Signal::Reload {
        reload(&running, &config, sources);
    }
    tracing::info!(target: "farllama", "stopping: answers in flight may take {} s; a second signal ends them", GRACE.as_secs());
    tokio::select! {
        () = running.stop(GRACE) => {}
        _ = signals.next() => {}
    }
    Ok(())
}

/// Reads the settings again. If they cannot be used, the old ones stay.
fn reload(running: &Running, started: &Config, sources: &Sources) {
    let loaded = match load(sources) {
        Ok(loaded) => loaded,
        Err(error) => return tracing::error!(target: "farllama", "the settings stay as they were: {error}"),
    };
    for warning in &loaded.warnings {
        tracing::warn!(target: "farllama", "{warning}");
    }
    let stays = |local: &Local, log: &Log| (local.host.clone(), local.port, log.level, log.format);
    if stays(&loaded.config.local, &loaded.config.log) != stays(&started.local, &started.log) {
        tracing::warn!(target: "farllama", "local.host, local.port and [log] change only with a restart");
    }
    match running.reload(loaded.config) {
        Ok(()) => tracing::info!(target: "farllama", "the settings are read again"),
        Err(error) => tracing::error!(target: "farllama", "the settings stay as they were: {error}"),
    }
}

/// What the process is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Signal {
    Stop,
    #[cfg_attr(not(unix), expect(dead_code, reason = "there is no signal for it"))]
    Reload,
}

/// What tells the process to stop: Ctrl-C, and SIGTERM where there is one; and to read its settings again: SIGHUP.
#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    /// From now on a signal is kept, and ends nothing by itself.
    fn listen() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::Stop,
            _ = self.terminate.recv() => Signal::Stop,
            _ = self.hangup.recv() => Signal::Reload,
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) -> Signal {
        // Without signals there is nothing to wait for but the end of the process.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
        Signal::Stop
    }
}

fn log_to_stderr(config: &Config, writer: LogWriter) {
    let (own, others) = match config.log.level {
        LogLevel::Error => (LevelFilter::ERROR, LevelFilter::ERROR),
        LogLevel::Warn => (LevelFilter::WARN, LevelFilter::WARN),
        LogLevel::Info => (LevelFilter::INFO, LevelFilter::WARN),
        LogLevel::Debug => (LevelFilter::DEBUG, LevelFilter::WARN),
        LogLevel::Trace => (LevelFilter::TRACE, LevelFilter::TRACE),
    };
    let filter = Targets::new().with_default(others).with_target("farllama", own);
    let layer = tracing_subscriber::fmt::layer().with_writer(writer).with_target(false);
    let registry = tracing_subscriber::registry().with(filter);
    match config.log.format {
        LogFormat::Text => {
            let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            registry.with(layer.with_ansi(colours)).init();
        }
        LogFormat::Json => registry.with(layer.json().flatten_event(true)).init(),
    }
    // A panic is a line of the log like any other: written to stderr directly, it would wait for a reader.
    std::panic::set_hook(Box::new(|panic| {
        let backtrace = std::backtrace::Backtrace::capture();
        let backtrace =
            (backtrace.status() == std::backtrace::BacktraceStatus::Captured).then(|| backtrace.to_string());
        let at = panic.location().map(ToString::to_string);
        let message = panic.payload_as_str().unwrap_or("no message");
        tracing::error!(target: "farllama", at, backtrace, "panic: {message}");
    }));
}

/// Every stream takes two sockets; the soft limit of many systems allows only about 500 of them.
fn raise_open_files() {
    #[cfg(unix)]
    match rlimit::getrlimit(rlimit::Resource::NOFILE) {
        Ok((soft, hard)) if soft < hard => match rlimit::increase_nofile_limit(hard) {
            Ok(now) => tracing::info!(target: "farllama", "open files: raised from {soft} to {now}"),
            Err(error) => {
                tracing::warn!(target: "farllama", "open files: {soft}; cannot raise that to {hard}: {error}");
            }
        },
        Ok((soft, _)) => tracing::info!(target: "farllama", "open files: {soft}"),
        Err(error) => tracing::warn!(target: "farllama", "open files: unknown: {error}"),
    }
}
