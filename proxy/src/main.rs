//! `farllama`: flags → settings → serve until signaled.

mod cli;

use std::{
    io::{IsTerminal, Read, Write},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use clap::ArgMatches;
use cli::{
    Verb, generate, keys, keys_file,
    log_writer::{FlushOnDrop, LogWriter},
    process, remote, startup,
};
use farllama::{
    Config, ExchangeLog, LogRing, Running, Warmer,
    admin::Admin,
    config::{Loaded, LogFormat, LogLevel, Sources, changes, load, show},
};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{filter::Targets, layer::SubscriberExt, util::SubscriberInitExt};

/// Gives memory back to the system within seconds after a burst, which glibc's allocator does not.
#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Input that cannot be used, or a start that is not possible.
const UNUSABLE: u8 = 2;

fn main() -> ExitCode {
    let matches = match cli::matches(std::env::args_os()) {
        Ok(matches) => matches,
        Err(code) => return code,
    };
    let environment = match cli::environment(std::env::vars_os()) {
        Ok(environment) => environment,
        Err(wrong) => return complain(&wrong),
    };
    let (verb, sources) = cli::read(&matches, environment);
    let leaf = || matches.subcommand().and_then(|(_, key)| key.subcommand()).map(|(_, leaf)| leaf);
    match (verb, leaf()) {
        (Verb::KeyNew, Some(leaf)) => return finish(keys::create(&keys::New::of(leaf), &sources)),
        (Verb::KeyRevoke, Some(leaf)) => {
            let name = leaf.get_one::<String>("name").map_or("", |name| name);
            return finish(keys::revoke(name, &sources));
        }
        (Verb::Generate, _) => return finish(generate::run(&matches)),
        (Verb::Reload, _) => {
            let pid = matches.subcommand().and_then(|(_, reload)| reload.get_one::<u32>("pid").copied());
            return finish(process::reload(&sources.environment, pid).map(|text| text + "\n"));
        }
        _ => {}
    }
    let loaded = match load(&sources) {
        Ok(loaded) => loaded,
        Err(error) => return complain_of(error.mistakes()),
    };
    for warning in &loaded.warnings {
        eprintln!("farllama: warning: {warning}");
    }
    match verb {
        Verb::ConfigShow => print(&format!("# {}\n{}", source_of(&loaded, &sources), show(&loaded))),
        Verb::ConfigCheck => check(&loaded, &sources),
        Verb::KeyList => print(&keys::list(&loaded)),
        Verb::Control => control(&matches, &loaded.config),
        Verb::Setup => finish(cli::setup::run(&matches, &loaded.config, &sources.environment)),
        Verb::Explain => explain(&cli::explained(&matches, &sources), loaded.config),
        Verb::Generate => finish(generate::run(&matches)),
        Verb::Serve | Verb::KeyNew | Verb::KeyRevoke | Verb::Reload => {
            finish(serve(&loaded, &sources).map(|()| String::new()))
        }
    }
}

/// Prints what a command says, or why it failed.
fn finish(outcome: Result<String, String>) -> ExitCode {
    match outcome {
        Ok(text) => print(&text),
        Err(message) => complain(&message),
    }
}

/// Which file the settings come from.
fn source_of(loaded: &Loaded, sources: &Sources) -> String {
    match (&loaded.file, &sources.usual_file) {
        (Some(file), _) => format!("settings file: {}", file.display()),
        (None, Some(usual)) => format!("settings file: none ({} does not exist)", usual.display()),
        (None, None) => "settings file: none".to_owned(),
    }
}

/// Steers a running farllama.
fn control(matches: &ArgMatches, config: &Config) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&format!("cannot start: {error}")),
    };
    match runtime.block_on(cli::control::run(matches, config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => {
            eprintln!("farllama: {}", failed.text);
            ExitCode::from(failed.code)
        }
    }
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
    let mut explained = match farllama::explain_with(body, asked.endpoint.as_deref(), asked.call.as_deref(), &config) {
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

/// Shows all mistakes of the settings.
fn complain_of(mistakes: &[String]) -> ExitCode {
    if mistakes.len() > 1 {
        eprintln!("farllama: {} mistakes in the settings", mistakes.len());
    }
    for mistake in mistakes {
        complain(mistake);
    }
    ExitCode::from(UNUSABLE)
}

/// What no single setting shows: the files that are named, and whether `serve` would start.
fn check(loaded: &Loaded, sources: &Sources) -> ExitCode {
    let config = &loaded.config;
    let files = [
        ("remote.ca_file", &config.remote.ca_file),
        ("remote.client_cert", &config.remote.reach.client_cert),
        ("remote.client_key", &config.remote.reach.client_key),
        ("local.tls_cert", &config.local.tls_cert),
        ("local.tls_key", &config.local.tls_key),
    ];
    let unreadable = files.into_iter().filter_map(|(key, path)| {
        let path = path.as_ref()?;
        std::fs::File::open(path).err().map(|error| format!("{key}: {}: {error}", path.display()))
    });
    let mut mistakes: Vec<String> = unreadable.collect();
    if mistakes.is_empty() {
        mistakes.extend(startup::refusal(loaded, &sources.environment));
    }
    if mistakes.is_empty() {
        return print(&format!("OK. {}\n", source_of(loaded, sources)));
    }
    eprintln!("farllama: {}", source_of(loaded, sources));
    complain_of(&mistakes)
}

/// Prints to stdout. A reader that has gone needs no more.
fn print(text: &str) -> ExitCode {
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

fn serve(loaded: &Loaded, sources: &Sources) -> Result<(), String> {
    let ring = LogRing::default();
    let log = LogWriter::start(ring.clone()).map_err(|error| format!("cannot start a thread: {error}"))?;
    let exchanges = log_to_stderr(&loaded.config, log.clone());
    let _flush = FlushOnDrop(log);
    raise_open_files();
    // Before signals are listened for, so that Ctrl-C ends a name resolution that hangs.
    let refusal = startup::refusal(loaded, &sources.environment);
    // One thread: a proxy waits far more than it works, and handing work from thread to thread costs more than the
    // work.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .on_thread_start(yield_to_the_event_loop)
        .build()
        .map_err(|error| format!("cannot start: {error}"))?;
    let outcome = runtime.block_on(run(&loaded.config, sources, (exchanges, ring), refusal));
    // A name lookup may still hang in a thread of its own.
    runtime.shutdown_timeout(Duration::from_millis(100));
    outcome
}

/// Starts the admin listener. If it cannot listen, that is an error only with `admin.required`.
async fn admin(running: &Running, config: &Config, sources: &Sources, ring: LogRing) -> Result<Option<Admin>, String> {
    if !config.admin.enabled {
        return Ok(None);
    }
    match running.admin(ring, sources.clone()).await {
        Ok(admin) => {
            tracing::info!(target: "farllama", console = format!("http://{}", admin.addr()), "admin listener");
            Ok(Some(admin))
        }
        Err(error) => {
            let text = startup::no_admin(config, &error);
            if config.admin.required {
                return Err(text);
            }
            tracing::warn!(target: "farllama", "{text}; going on without it");
            Ok(None)
        }
    }
}

async fn run(
    config: &Config,
    sources: &Sources,
    (exchanges, ring): (Option<ExchangeLog>, LogRing),
    refusal: Option<String>,
) -> Result<(), String> {
    let mut signals = Signals::listen().map_err(|error| format!("cannot listen for signals: {error}"))?;
    if let Some(refusal) = refusal {
        return Err(startup::refused(config, refusal).await);
    }
    let running = match farllama::serve_logging(config.clone(), exchanges).await {
        Ok(running) => running,
        Err(error) => return Err(startup::cannot_listen(config, &error).await),
    };
    let _admin = admin(&running, config, sources, ring).await?;
    let (native, openai) = startup::urls(running.addr(), config);
    tracing::info!(target: "farllama", ollama = native, openai, "listening");
    for warning in startup::warnings(running.addr(), config) {
        tracing::warn!(target: "farllama", "{warning}");
    }
    for entry in config.every_remote() {
        if let Some(proxy) = &entry.remote.reach.proxy {
            tracing::info!(target: "farllama", "remote {} is reached through the proxy {proxy}", entry.remote.name());
        }
    }
    if let Some(host) = startup::ollama_host(&sources.environment) {
        tracing::info!(target: "farllama", "OLLAMA_HOST is {host}: farllama does not use it, and tools on this machine that use it bypass farllama");
    }
    let mut registration = process::Registration::new(&sources.environment, running.addr());
    process::notify(&sources.environment, "READY=1");
    let mut keys = keys_file::Watch::default();
    loop {
        let mut remote = remote::Watch::new(&running.config());
        let mut warmer = Warmer::new(&running.config()).ok().flatten();
        keys.follow(running.config().auth.keys_file.as_ref());
        tokio::select! {
            signal = signals.next() => match signal {
                Signal::Stop => break,
                Signal::Reload => {
                    let outcome = reload(&running, sources);
                    match &outcome {
                        Ok(text) => tracing::info!(target: "farllama", "{text}"),
                        Err(text) => tracing::error!(target: "farllama", "{text}"),
                    }
                    if let Some(registration) = &mut registration {
                        registration.reloaded(outcome);
                    }
                }
            },
            () = keys.changed() => match reload(&running, sources) {
                Ok(text) => tracing::info!(target: "farllama", "auth.keys_file has changed: {text}"),
                Err(text) => tracing::error!(target: "farllama", "auth.keys_file has changed: {text}"),
            },
            () = remote.run() => {}
            () = keep_warm(&mut warmer) => {}
            () = running.remote_changed() => {}
            () = log_long_requests(&running, running.config().log.running) => {}
        }
    }
    process::notify(&sources.environment, "STOPPING=1");
    let grace = running.config().shutdown.grace;
    match running.requests() {
        0 => tracing::info!(target: "farllama", "stopping"),
        requests => tracing::info!(
            target: "farllama",
            "stopping: waiting up to {} s for {requests} running {}; press Ctrl-C again to stop now",
            grace.as_secs(),
            if requests == 1 { "request" } else { "requests" }
        ),
    }
    tokio::select! {
        () = running.stop(grace) => {}
        _ = signals.next() => {}
    }
    Ok(())
}

/// Keeps models loaded. Never ends.
async fn keep_warm(warmer: &mut Option<Warmer>) {
    match warmer {
        Some(warmer) => warmer.run().await,
        None => std::future::pending().await,
    }
}

/// Logs requests that run for long. Never ends.
async fn log_long_requests(running: &Running, every: Duration) {
    if every.is_zero() {
        return std::future::pending().await;
    }
    let mut ticks = tokio::time::interval((every / 4).max(Duration::from_millis(10)));
    loop {
        ticks.tick().await;
        running.log_long_requests(every);
    }
}

/// Reads the settings again, and returns what has changed. If they cannot be used, the old ones stay in force.
fn reload(running: &Running, sources: &Sources) -> Result<String, String> {
    let failed = |error: String| format!("reload failed, keeping the previous configuration: {error}");
    let mut loaded = load(sources).map_err(|error| failed(error.to_string()))?;
    for warning in &loaded.warnings {
        tracing::warn!(target: "farllama", "{warning}");
    }
    let current = running.config();
    let all = changes(&current, &loaded.config);
    // What the process has opened once stays as it is.
    let (local, log) = (&mut loaded.config.local, &mut loaded.config.log);
    (local.host, local.port) = (current.local.host.clone(), current.local.port);
    (log.level, log.format) = (current.log.level, current.log.format);
    loaded.config.admin = current.admin.clone();
    let changes = changes(&current, &loaded.config);
    running.reload(loaded.config).map_err(|error| failed(error.to_string()))?;
    let later: Vec<_> = all.into_iter().filter(|change| !changes.contains(change)).collect();
    let mut outcome = if changes.is_empty() { "nothing changed".to_owned() } else { changes.join("; ") };
    if !later.is_empty() {
        let later = format!("only a restart changes {}", later.join("; "));
        tracing::warn!(target: "farllama", "{later}");
        outcome = format!("{outcome}; {later}");
    }
    Ok(format!("configuration reloaded: {outcome}"))
}

/// A signal to the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Signal {
    Stop,
    #[cfg_attr(not(unix), expect(dead_code, reason = "there is no signal for it"))]
    Reload,
}

/// Ctrl-C and SIGTERM stop the process; SIGHUP makes it read its settings again.
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

/// Sends events to `writer`. Returns where the lines of exchanges go, unless the level excludes them.
fn log_to_stderr(config: &Config, writer: LogWriter) -> Option<ExchangeLog> {
    let (own, others) = match config.log.level {
        LogLevel::Error => (LevelFilter::ERROR, LevelFilter::ERROR),
        LogLevel::Warn => (LevelFilter::WARN, LevelFilter::WARN),
        LogLevel::Info => (LevelFilter::INFO, LevelFilter::WARN),
        LogLevel::Debug => (LevelFilter::DEBUG, LevelFilter::WARN),
        LogLevel::Trace => (LevelFilter::TRACE, LevelFilter::TRACE),
    };
    let color = config.log.format == LogFormat::Text
        && std::io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none();
    let exchanges = ExchangeLog::new(Arc::new(writer.clone()), config.log.format, color);
    let filter = Targets::new().with_default(others).with_target("farllama", own);
    let layer = tracing_subscriber::fmt::layer().with_writer(writer).with_target(false);
    let registry = tracing_subscriber::registry().with(filter);
    match config.log.format {
        LogFormat::Text => registry.with(layer.with_ansi(color)).init(),
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
    (own >= LevelFilter::INFO).then_some(exchanges)
}

/// Lowers the priority of a thread that parses large bodies or looks up names: streams come first where cores are
/// scarce.
fn yield_to_the_event_loop() {
    #[cfg(target_os = "linux")]
    // On Linux this is the calling thread alone. Lowering it needs no privilege.
    if let Err(error) = rustix::process::setpriority_process(None, 10) {
        tracing::debug!("cannot lower the priority of a thread: {error}");
    }
}

/// Every stream takes two sockets; the soft limit of many systems allows only about 500 of them.
fn raise_open_files() {
    #[cfg(unix)]
    match rlimit::getrlimit(rlimit::Resource::NOFILE) {
        Ok((soft, hard)) if soft < hard => match rlimit::increase_nofile_limit(hard) {
            Ok(now) => tracing::debug!(target: "farllama", "file descriptor limit raised from {soft} to {now}"),
            Err(error) => {
                tracing::warn!(target: "farllama", "file descriptor limit: {soft}; cannot raise it to {hard}: {error}");
            }
        },
        Ok((soft, _)) => tracing::debug!(target: "farllama", "file descriptor limit: {soft}"),
        Err(error) => tracing::warn!(target: "farllama", "file descriptor limit unknown: {error}"),
    }
}
