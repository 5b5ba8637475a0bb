//! The settings: one file, environment variables and flags, in that order of rising precedence, checked once into an
//! immutable [`Config`].
//!
//! Nothing here reads a setting later or changes one; every value in a `Config` is valid.

mod address;
mod collector;
mod file;
mod load;
mod models;
mod reach;
mod remote;
mod remotes;
mod settings;
mod show;
mod tokens;
mod value;
mod vscode;

use std::{path::PathBuf, time::Duration};

pub use collector::CollectorUrl;
pub use file::edit;
pub(crate) use file::{Credentials, SavedRemote, save_remote};
use http::{HeaderName, HeaderValue, uri::Scheme};
pub use load::{Error, Loaded, Sources, load};
pub use models::Models;
pub(crate) use models::{Alias, Preset, Resolved};
pub use reach::{Proxy, ProxyProtocol, Reach, Ssh, Wake};
pub use remotes::NamedRemote;
pub use settings::{SECTIONS, SETTINGS, Setting};
pub use show::{changes, show};
pub use tokens::{Digest, Token};

/// Every setting of the proxy, checked.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Where the proxy listens.
    pub local: Local,
    /// The Ollama that it speaks to.
    pub remote: Remote,
    /// Every remote, where `[[remotes]]` names some: that of `[remote]` first, if it is named too. Else empty.
    pub remotes: Vec<NamedRemote>,
    /// How remotes are watched, where there are several.
    pub health: Health,
    /// The native lane.
    pub native: Native,
    /// The OpenAI lane.
    pub openai: OpenAi,
    /// Aliases and presets of models, and which are listed.
    pub models: Models,
    /// How much a model remembers, and what becomes of a prompt that is longer.
    pub context: Context,
    /// The legacy completions.
    pub completions: Completions,
    /// Moderations.
    pub moderation: Moderation,
    /// Transcripts.
    pub audio: Audio,
    /// Calls of tools.
    pub tools: Tools,
    /// Responses, and how long they are kept.
    pub responses: Responses,
    /// Files, and how long they are stored.
    pub files: Files,
    /// Batches of requests.
    pub batches: Batches,
    /// Anthropic's Messages API.
    pub anthropic: Anthropic,
    /// Images that requests name by a URL.
    pub images: Images,
    /// How long to wait for what. A zero duration means without limit.
    pub timeouts: Timeouts,
    /// What keeps a stream alive while a model loads.
    pub heartbeat: Heartbeat,
    /// Bounds on what one request may take.
    pub limits: Limits,
    /// Who may call.
    pub auth: Auth,
    /// How much callers may ask.
    pub quota: Quota,
    /// Which browser origins may call, besides those that Ollama allows by default (a list entry as in
    /// `OLLAMA_ORIGINS`: one `*` at most).
    pub origins: Vec<String>,
    /// Models that stay loaded.
    pub warm: Warm,
    /// What several proxies share.
    pub store: Store,
    /// What is logged to stderr.
    pub log: Log,
    /// The second listener, for operators.
    pub admin: Admin,
    /// Where traces are sent.
    pub traces: Traces,
    /// What happens to running requests when the process stops.
    pub shutdown: Shutdown,
}

impl Config {
    /// Returns what the model's name `asked` stands for: an alias, one of Anthropic's names on a route of its API, or
    /// itself. The default model is not tried, because only the remote knows whether it is needed.
    pub(crate) fn resolve(&self, asked: &str, anthropic: bool) -> Resolved {
        let (model, preset) = self.models.behind(asked, anthropic.then_some(&self.anthropic));
        Resolved::new(asked, model, preset)
    }
}

/// Where the proxy listens.
#[derive(Clone, Debug)]
pub struct Local {
    /// Address or host name, `127.0.0.1` by default.
    pub host: String,
    /// Port, 11434 by default; 0 takes a free one.
    pub port: u16,
    /// Host names that clients may use, one `*` at most in each, besides this machine's own. Empty, the default: on
    /// loopback only this machine's own; on other addresses any.
    pub hosts: Vec<String>,
    /// Listens on an address that others can reach even though no key is required.
    pub public: bool,
    /// A PEM file with the certificate, and those that sign it: the proxy then speaks TLS only.
    pub tls_cert: Option<PathBuf>,
    /// A PEM file with the certificate's key.
    pub tls_key: Option<PathBuf>,
}

impl Default for Local {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".to_owned(),
            port: 11434,
            hosts: Vec::new(),
            public: false,
            tls_cert: None,
            tls_key: None,
        }
    }
}

/// The Ollama that the proxy speaks to.
#[derive(Clone, Debug)]
pub struct Remote {
    /// What it speaks.
    pub kind: Kind,
    /// `http` or `https`.
    pub protocol: Protocol,
    /// Address or host name, without port; an IPv6 address without brackets.
    pub host: String,
    /// Port, 11434 by default.
    pub port: u16,
    /// What every path is prefixed with: empty, or `/prefix` without a slash at the end.
    pub base_path: String,
    /// What goes out as `Authorization`: an API key as `Bearer …`, or Basic credentials. Marked sensitive.
    pub authorization: Option<HeaderValue>,
    /// Extra headers for every request to the remote. Values are marked sensitive.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// A PEM file with certificate authorities to trust besides the system's.
    pub ca_file: Option<PathBuf>,
    /// Whether the remote must prove who it is. On by default; off, anyone on the way can read and change everything.
    pub verify: bool,
    /// Through what it is reached, with which certificate, and how its machine is woken.
    pub reach: Reach,
    /// How often the remote is probed, from the start on, to log when it comes or goes: 30 s by default. Zero: never.
    pub probe: Duration,
    /// Sends the caller's `Authorization` on to the remote instead of stopping it here.
    pub forward_auth: bool,
    /// Passes cookies between callers and the remote. Off by default: callers share the remote's session otherwise.
    pub forward_cookies: bool,
    /// Maximum size of a native request body that is kept until the response begins, to be sent again if the pooled
    /// connection turns out to be closed: 1 MiB by default. 0: such bodies are sent once.
    pub replay_body: usize,
}

impl Remote {
    /// Scheme, host and port as a URL has them: an IPv6 address in brackets, a port only where it is not the usual one.
    pub(crate) fn origin(&self) -> (Scheme, String) {
        let (scheme, usual) = match self.protocol {
            Protocol::Http => (Scheme::HTTP, 80),
            Protocol::Https => (Scheme::HTTPS, 443),
        };
        let host = bracketed(&self.host);
        (scheme, if self.port == usual { host } else { format!("{host}:{}", self.port) })
    }

    /// The same with its port, so that it reads the same wherever it stands.
    pub(crate) fn url_with_port(&self) -> String {
        let (scheme, _) = self.origin();
        format!("{scheme}://{}:{}{}", bracketed(&self.host), self.port, self.base_path)
    }

    /// The remote as a URL, without credentials: `http://gpu-box:11434/prefix`.
    #[must_use]
    pub fn url(&self) -> String {
        let (scheme, authority) = self.origin();
        format!("{scheme}://{authority}{}", self.base_path)
    }

    /// The remote as a person names it, without credentials. Unlike its URL, this distinguishes machines that are
    /// reached over SSH.
    #[must_use]
    pub fn name(&self) -> String {
        match &self.reach.ssh {
            None => self.url(),
            Some(ssh) if self.origin() == (Scheme::HTTP, "127.0.0.1:11434".to_owned()) => {
                format!("{ssh}{}", self.base_path)
            }
            Some(ssh) => format!("{} (over {ssh})", self.url()),
        }
    }
}

/// A host as a URL has it: an IPv6 address in brackets.
#[must_use]
pub fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

impl Default for Remote {
    fn default() -> Self {
        Self {
            kind: Kind::default(),
            protocol: Protocol::Http,
            host: "127.0.0.1".to_owned(),
            port: 11434,
            base_path: String::new(),
            authorization: None,
            headers: Vec::new(),
            ca_file: None,
            verify: true,
            reach: Reach::default(),
            probe: Duration::from_secs(30),
            forward_auth: false,
            forward_cookies: false,
            replay_body: 1 << 20,
        }
    }
}

/// How remotes are watched, where there are several.
#[derive(Clone, Debug)]
pub struct Health {
    /// How often each remote is asked for its version and its models, give or take a tenth: 10 s by default. Zero:
    /// never.
    pub interval: Duration,
    /// How long it may take to answer: 5 s by default.
    pub timeout: Duration,
    /// After how many failures in a row it is out of use: 2 by default.
    pub fail_after: usize,
    /// After how many successes in a row it is in use again: 1 by default.
    pub return_after: usize,
    /// How old the list of its models may be: 30 s by default.
    pub models_age: Duration,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(5),
            fail_after: 2,
            return_after: 1,
            models_age: Duration::from_secs(30),
        }
    }
}

/// What the remote speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// Ollama's API.
    #[default]
    Ollama,
    /// OpenAI's API: the native routes are translated, and OpenAI's pass through.
    OpenAi,
    /// Found out when the first request comes.
    Auto,
}

impl Kind {
    /// Its name in the settings.
    pub(crate) fn name(self) -> &'static str {
        value::Word::word(self)
    }
}

/// How the remote is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Clear text.
    Http,
    /// TLS.
    Https,
}

/// The native lane.
#[derive(Clone, Debug)]
pub struct Native {
    /// Ends a stream that fails, or that the remote ends before it is done, with an error line and a cut connection, so
    /// that every client reports it. On by default.
    pub truthful_end: bool,
}

impl Default for Native {
    fn default() -> Self {
        Self { truthful_end: true }
    }
}

/// The OpenAI lane.
#[derive(Clone, Debug)]
pub struct OpenAi {
    /// Where it stands: `/v1` by default; no slash at the end, never empty.
    pub base_path: String,
    /// Refuses request fields that have no effect, instead of noting them in the receipt.
    pub strict: bool,
}

impl Default for OpenAi {
    fn default() -> Self {
        Self { base_path: "/v1".to_owned(), strict: false }
    }
}

/// How much a model remembers on the OpenAI lane, and what becomes of a prompt that is longer.
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// Tokens that are asked for (`num_ctx`) where the client asks for none; 0, the default, leaves it to the remote.
    pub num_ctx: u64,
    /// Up to how many tokens a context grows for a prompt that does not fit; 0, the default: it does not grow.
    pub max: u64,
    /// What becomes of a prompt that does not fit.
    pub overflow: Overflow,
    /// The same for single models, by name.
    pub overflow_by_model: Vec<(String, Overflow)>,
}

/// What becomes of a prompt that does not fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overflow {
    /// It is refused.
    #[default]
    Refuse,
    /// Ollama drops the oldest messages, or the middle of the only one, and says nothing of it.
    Truncate,
}

/// What is done for calls of tools that a model gets wrong.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tools {
    /// Whether names and arguments are repaired to the tools' schemas, where exactly one repair is possible. On by
    /// default.
    pub repair: Repair,
    /// Whether calls that a model writes as text become calls. On by default.
    pub rescue: Repair,
    /// Whether the model is asked once more for a call that does not fit its schema, which then forces its form. Off by
    /// default; a tool with `strict: true` is asked for again in any case.
    pub reask: bool,
    /// Whether calls in the answers of Ollama's own `/api/chat` are repaired as well. Off by default.
    pub repair_native: bool,
}

/// Whether something is repaired.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Repair {
    /// Where there is no doubt what is meant.
    #[default]
    Auto,
    /// Never.
    Off,
}

/// Responses (`/v1/responses`), and how long they are kept in memory.
#[derive(Clone, Debug)]
pub struct Responses {
    /// Bytes of all that is kept: 64 MiB by default. 0: nothing is kept.
    pub max_bytes: usize,
    /// Responses that are kept: 1000 by default. 0: none.
    pub max_count: usize,
    /// For how long after it was last used: 24 h by default. Zero: without limit.
    pub ttl: Duration,
    /// What becomes of tools that OpenAI runs itself.
    pub hosted_tools: Hosted,
    /// WebSockets (`GET /v1/responses`) that are open at the same time: 512 by default. 0: none.
    pub max_websockets: usize,
    /// How long a WebSocket may be open without a message or a running response: 10 minutes by default. Zero: without
    /// limit.
    pub websocket_idle: Duration,
    /// Responses that run or wait in the background at the same time: 64 by default. 0: none.
    pub max_background: usize,
    /// What compactions are sealed with. Empty: a random key of this process.
    pub compaction_key: Secret,
}

impl Default for Responses {
    fn default() -> Self {
        Self {
            max_bytes: 64 << 20,
            max_count: 1000,
            ttl: Duration::from_secs(24 * 60 * 60),
            hosted_tools: Hosted::default(),
            max_background: 64,
            compaction_key: Secret::default(),
            max_websockets: 512,
            websocket_idle: Duration::from_secs(600),
        }
    }
}

/// Files (`/v1/files`), and how long they are stored.
#[derive(Clone, Debug)]
pub struct Files {
    /// Maximum size of all files: 256 MiB by default. 0: none is stored.
    pub max_bytes: usize,
    /// Maximum number of all files: 1000 by default. 0: none is stored.
    pub max_count: usize,
    /// Maximum size of the files of one key: 128 MiB by default. 0: none is stored.
    pub max_bytes_per_key: usize,
    /// Maximum number of files of one key: 500 by default. 0: none is stored.
    pub max_count_per_key: usize,
    /// For how long after its last use a file is stored: 30 days by default. Zero: without limit.
    pub ttl: Duration,
}

impl Default for Files {
    fn default() -> Self {
        Self {
            max_bytes: 256 << 20,
            max_count: 1000,
            max_bytes_per_key: 128 << 20,
            max_count_per_key: 500,
            ttl: Duration::from_secs(30 * 24 * 60 * 60),
        }
    }
}

/// Batches (`/v1/batches`). Their files are bounded as all others.
#[derive(Clone, Debug)]
pub struct Batches {
    /// Maximum number of batches that run or wait at the same time: 16 by default. 0: none.
    pub max_count: usize,
    /// How many requests of batches are on their way at the same time: 1 by default.
    pub concurrency: usize,
}

impl Default for Batches {
    fn default() -> Self {
        Self { max_count: 16, concurrency: 1 }
    }
}

/// What becomes of tools that OpenAI runs itself, such as `web_search`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hosted {
    /// The model is not offered them, and the receipt says so.
    #[default]
    Skip,
    /// The request is refused.
    Refuse,
}

/// Anthropic's Messages API (`/v1/messages`).
#[derive(Clone, Debug, Default)]
pub struct Anthropic {
    /// Passes its routes through to the remote's own implementation instead of translating them. Off by default.
    pub passthrough: bool,
    /// The model behind Anthropic's names (`claude-…`). Empty by default: they are looked for on the remote.
    pub model: String,
    /// The model behind the names of Anthropic's small models (`claude-haiku-…`). Empty by default: `model`.
    pub small_model: String,
    /// What becomes of tools that Anthropic runs itself, such as `web_search_20250305`.
    pub server_tools: Hosted,
}

impl Anthropic {
    /// Returns the remote's model behind `name`, if that is one of Anthropic's names and the settings have a model for
    /// it.
    pub(crate) fn behind(&self, name: &str) -> Option<&str> {
        let name = name.to_ascii_lowercase();
        let small = name.contains("haiku") && !self.small_model.is_empty();
        let model = if small { &self.small_model } else { &self.model };
        (name.starts_with("claude-") && !model.is_empty()).then_some(model)
    }
}

/// The legacy completions (`/v1/completions`).
#[derive(Clone, Debug, Default)]
pub struct Completions {
    /// Gives prompts to the model as they are, without its template, unless a request says otherwise with `raw`. Off by
    /// default.
    pub raw: bool,
}

/// Moderations (`/v1/moderations`).
#[derive(Clone, Debug, Default)]
pub struct Moderation {
    /// The model that judges where a request names none, or one of OpenAI's. Empty by default: such requests are
    /// refused.
    pub model: String,
}

/// Transcripts (`/v1/audio/transcriptions` and `/translations`).
#[derive(Clone, Debug, Default)]
pub struct Audio {
    /// Takes the `prompt` beside a file that the model cannot hear for the transcript. Off by default: such requests
    /// are refused.
    pub prompt_as_transcript: bool,
}

/// Images that requests name by an http(s) URL.
#[derive(Clone, Debug)]
pub struct Images {
    /// Whether they are fetched. Off by default: such requests are refused.
    pub fetch: bool,
    /// Most bytes of all images of one request together.
    pub max_bytes: usize,
    /// How long fetching all images of one request may take.
    pub timeout: Duration,
    /// Whether they may come from private networks and from this machine.
    pub allow_private: bool,
}

impl Default for Images {
    fn default() -> Self {
        Self { fetch: false, max_bytes: 20 << 20, timeout: Duration::from_secs(10), allow_private: false }
    }
}

/// How long to wait for what. [`Duration::ZERO`] means without limit.
#[derive(Clone, Debug)]
pub struct Timeouts {
    /// For a connection to the remote (name look-up and TLS included): 10 s by default.
    pub connect: Duration,
    /// For the first byte of an answer. Without limit by default: a model may load for minutes.
    pub first_byte: Duration,
    /// For the next byte of an answer that has begun: 10 min by default.
    pub idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(10), first_byte: Duration::ZERO, idle: Duration::from_secs(600) }
    }
}

/// What keeps a stream alive while a model loads.
#[derive(Clone, Debug)]
pub struct Heartbeat {
    /// How long an early refusal may still get its own HTTP status: 3 s by default.
    pub after: Duration,
    /// How often a comment is sent while nothing else is: 10 s by default.
    pub every: Duration,
}

impl Default for Heartbeat {
    fn default() -> Self {
        Self { after: Duration::from_secs(3), every: Duration::from_secs(10) }
    }
}

/// Bounds on what one request may take.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of a request body on the OpenAI lane (which reads bodies whole): 64 MiB by default.
    pub body: usize,
    /// Names in one object of a request body on the OpenAI lane, and parts of a form: 1,000 by default. 0: unlimited.
    pub fields: usize,
    /// Bytes of a request body on the native lane, which streams. 0, the default: without limit.
    pub native_body: usize,
    /// Bytes of request bodies that are held in memory at the same time, in all. 0, the default: a quarter of the
    /// memory, 512 MiB at most.
    pub buffered: usize,
    /// Bytes of a request's head: 32 KiB by default, 8 KiB at least.
    pub head: usize,
    /// For a request's head, once it has begun: 30 s by default. Zero: without limit of its own.
    pub head_time: Duration,
    /// For the next byte of a request's body while it is waited for: 1 min by default. Zero: without limit.
    pub body_idle: Duration,
    /// The lowest rate at which a request body must arrive, in bytes per second of waiting for it, after a minute of
    /// waiting in all: 256 by default. 0: without limit.
    pub body_rate: u64,
    /// How long a client may read nothing of its response while there is more to write: 2 min by default. Zero: without
    /// limit.
    pub write_idle: Duration,
    /// For a connection between two requests: 2 min by default, longer than clients keep theirs (about 90 s), so that
    /// none finds its connection closed while it sends. Zero: without limit.
    pub idle: Duration,
    /// Connections at the same time: 4096 by default. One more evicts the one that has been idle for the longest. 0:
    /// without limit.
    pub connections: usize,
    /// Connections of one client address (one IPv6 /64 network) at the same time: 2048 by default. One more evicts its
    /// longest idle one, or is answered 503. 0: without limit.
    pub connections_per_address: usize,
    /// Requests of one key in flight at the same time, unread bodies included: 1024 by default. One more is answered
    /// with 503. 0: without limit.
    pub connections_per_key: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body: 64 << 20,
            fields: 1000,
            native_body: 0,
            buffered: 0,
            head: 32 << 10,
            head_time: Duration::from_secs(30),
            body_idle: Duration::from_secs(60),
            body_rate: 256,
            write_idle: Duration::from_secs(120),
            idle: Duration::from_secs(120),
            connections: 4096,
            connections_per_address: 2048,
            connections_per_key: 1024,
        }
    }
}

/// Who may call.
#[derive(Clone, Debug)]
pub struct Auth {
    /// Whether every request needs a key. Off by default.
    pub enabled: bool,
    /// The header that holds a caller's key, `x-api-key` by default; a Bearer token is taken too. Never sent to the
    /// remote.
    pub header: HeaderName,
    /// The keys. Without any, no request is admitted.
    pub tokens: Vec<Token>,
    /// A file with further keys, which are in `tokens` too. A running proxy reads it again when it changes.
    pub keys_file: Option<PathBuf>,
    /// Paths that need no key, in the form of [`Token::routes`].
    pub exempt: Vec<String>,
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            enabled: false,
            header: HeaderName::from_static("x-api-key"),
            tokens: Vec::new(),
            keys_file: None,
            exempt: Vec::new(),
        }
    }
}

/// How much callers may ask; what each key may stands with it, in [`Token`].
#[derive(Clone, Debug)]
pub struct Quota {
    /// The window that [`Token::limit_per_minute`] counts in: a minute by default.
    pub window: Duration,
    /// Requests at the same time in all. 0, the default: without limit.
    pub max_concurrent: usize,
    /// Requests that may wait for a place: 100 by default. Further ones are refused with 429.
    pub queue: usize,
    /// How long a request may wait for a place: 5 min by default, so that clients, whose own patience is mostly 10 min,
    /// hear a 429 and not silence. Zero: without limit.
    pub wait: Duration,
}

impl Default for Quota {
    fn default() -> Self {
        Self { window: Duration::from_secs(60), max_concurrent: 0, queue: 100, wait: Duration::from_secs(300) }
    }
}

/// Models that stay loaded.
#[derive(Clone, Debug, Default)]
pub struct Warm {
    /// Their names, as the remote has them. Empty by default.
    pub models: Vec<String>,
}

/// A Redis or Valkey server on which several proxies share limits and stored responses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    /// Its URL, `redis://` or `rediss://`. Empty, the default: nothing is shared, and everything is in memory.
    pub url: Secret,
    /// What its keys begin with, `{farllama}:` by default: the braces keep all of them on one node of a cluster.
    /// Proxies with the same prefix share.
    pub prefix: String,
    /// What becomes of requests while it cannot be reached.
    pub fail: Fail,
    /// For how long a request waits for it: 1 s by default.
    pub timeout: Duration,
    /// After what time a process that has died gives back its permits: 30 s by default.
    pub lease: Duration,
    /// PEM file of certificates to trust, instead of the system's.
    pub ca_file: Option<PathBuf>,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            url: Secret::default(),
            prefix: "{farllama}:".to_owned(),
            fail: Fail::default(),
            timeout: Duration::from_secs(1),
            lease: Duration::from_secs(30),
            ca_file: None,
        }
    }
}

/// What becomes of requests while the shared store cannot be reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fail {
    /// Each process counts alone. The default.
    #[default]
    Open,
    /// Requests that have limits get a 503.
    Closed,
}

/// What is logged to stderr.
#[derive(Clone, Debug)]
pub struct Log {
    /// The lowest level that is printed.
    pub level: LogLevel,
    /// Format of a line.
    pub format: LogFormat,
    /// How often a request that is still running is logged: each minute by default. Zero: never.
    pub running: Duration,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: LogLevel::default(), format: LogFormat::default(), running: Duration::from_secs(60) }
    }
}

/// A text that no log shows.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_empty() { "none" } else { "***" })
    }
}

/// The admin listener: health, metrics, an API and a console for operators.
#[derive(Clone, Debug)]
pub struct Admin {
    /// Whether it runs. On by default.
    pub enabled: bool,
    /// Whether `serve` fails if it cannot listen. Off by default: that is a warning.
    pub required: bool,
    /// Address or host name, `127.0.0.1` by default. Any other than loopback needs a token.
    pub host: String,
    /// Port, 11435 by default; 0 takes a free one.
    pub port: u16,
    /// What operators send as a Bearer token. Empty, the default: none is asked for, on loopback.
    pub token: Secret,
    /// Host names that operators may use, besides this machine's own. `*` once at most in each.
    pub hosts: Vec<String>,
    /// Requests that are listed after they have ended: 500 by default.
    pub requests: usize,
    /// Bytes of log lines that are kept: 1 MiB by default.
    pub log_bytes: usize,
    /// Exchanges that the inspector keeps: 50 by default.
    pub inspector_requests: usize,
    /// Bytes that they may take: 16 MiB by default.
    pub inspector_bytes: usize,
    /// How long the inspector stays on: 15 min by default.
    pub inspector_time: Duration,
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            enabled: true,
            required: false,
            host: "127.0.0.1".to_owned(),
            port: 11435,
            token: Secret::default(),
            hosts: Vec::new(),
            requests: 500,
            log_bytes: 1 << 20,
            inspector_requests: 50,
            inspector_bytes: 16 << 20,
            inspector_time: Duration::from_secs(15 * 60),
        }
    }
}

/// Where traces are sent (OpenTelemetry, OTLP over HTTP).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traces {
    /// The collector. None, the default: there are no traces.
    pub url: Option<CollectorUrl>,
    /// Extra headers for the collector, such as its key. Values are marked sensitive.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The name under which spans are found: `farllama` by default.
    pub service_name: String,
    /// Passes the trace on to the remote (`traceparent`). Off by default.
    pub propagate: bool,
}

impl Default for Traces {
    fn default() -> Self {
        Self { url: None, headers: Vec::new(), service_name: "farllama".to_owned(), propagate: false }
    }
}

/// What happens to running requests when the process stops.
#[derive(Clone, Debug)]
pub struct Shutdown {
    /// How long they may go on: 10 s by default. Then streams end with an error.
    pub grace: Duration,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self { grace: Duration::from_secs(10) }
    }
}

/// The least important kind of line that is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogLevel {
    /// Only what went wrong.
    Error,
    /// And what looks wrong.
    Warn,
    /// And one line a request.
    #[default]
    Info,
    /// And payload snippets and each SSE frame (`--verbose`).
    Debug,
    /// And the libraries' own messages.
    Trace,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}
