//! The list of settings: one row each, with its name in the file, what it takes, what it means, and how it is shown.
//!
//! File, environment, flags, `config show` and the example are all read off these rows, so a setting cannot exist in
//! one and not in another.

use std::{path::PathBuf, time::Duration};

use super::{CollectorUrl, Config, Overflow, Protocol, Proxy, Secret, Ssh, Wake, remotes, tokens};
use crate::config::{
    address::{Address, remote_path},
    value::{
        Shown, Value, Word, base_path, boolean, by_model, bytes, count, duration, file, headers, key_header, lasting,
        list, number, port, quoted, shown_bytes, shown_duration, shown_file, shown_word, text, word,
    },
};

/// One setting.
pub struct Setting {
    /// Its name in the file, such as `remote.base_path`. The flag is `--remote-base-path`, the variable
    /// `FARLLAMA_REMOTE_BASE_PATH`.
    pub key: &'static str,
    /// What it takes, for help texts.
    pub takes: &'static str,
    /// What it means, in one or two sentences.
    pub help: &'static str,
    /// Whether its value must never be shown.
    pub secret: bool,
    kind: Kind,
}

/// How a setting is read and shown. Most settings are one field of [`Config`] of a type that decides both.
enum Kind {
    Flag(fn(&mut Config) -> &mut bool),
    Size(fn(&mut Config) -> &mut usize),
    Number(fn(&mut Config) -> &mut usize),
    Tokens(fn(&mut Config) -> &mut u64),
    Time(fn(&mut Config) -> &mut Duration),
    /// More than zero.
    Lasting(fn(&mut Config) -> &mut Duration),
    File(fn(&mut Config) -> &mut Option<PathBuf>),
    Other {
        set: Set,
        show: fn(&Config) -> Shown,
    },
}

type Set = fn(&mut Draft, Value) -> Result<(), String>;

impl Setting {
    /// The name of its flag, without the dashes in front.
    #[must_use]
    pub fn flag(&self) -> String {
        self.key.replace(['.', '_'], "-")
    }

    /// The name of its environment variable.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("FARLLAMA_{}", self.key.replace('.', "_").to_uppercase())
    }

    /// The name of its table in the file; empty if it stands in none.
    #[must_use]
    pub fn section(&self) -> &'static str {
        self.key.split_once('.').map_or("", |(section, _)| section)
    }

    /// Whether it is true or false, so that its flag may stand without a value.
    #[must_use]
    pub fn is_flag(&self) -> bool {
        matches!(self.kind, Kind::Flag(_))
    }

    /// # Errors
    /// Fails if the value does not fit; says what was expected.
    pub(super) fn set(&self, draft: &mut Draft, value: Value) -> Result<(), String> {
        let config = &mut draft.config;
        match self.kind {
            Kind::Flag(field) => *field(config) = boolean(value)?,
            Kind::Size(field) => *field(config) = bytes(value)?,
            Kind::Number(field) => *field(config) = number(value)?,
            Kind::Tokens(field) => *field(config) = count(value)?,
            Kind::Time(field) => *field(config) = duration(value)?,
            Kind::Lasting(field) => *field(config) = lasting(value)?,
            Kind::File(field) => *field(config) = file(value)?,
            Kind::Other { set, .. } => set(draft, value)?,
        }
        Ok(())
    }

    /// Its value in `config`.
    pub(super) fn show(&self, config: &Config) -> Shown {
        // One accessor serves for reading and writing, so this reads from a copy.
        let mut copy = config.clone();
        match self.kind {
            Kind::Flag(field) => Shown::Value(field(&mut copy).to_string()),
            Kind::Size(field) => shown_bytes(*field(&mut copy)),
            Kind::Number(field) => Shown::Value(field(&mut copy).to_string()),
            Kind::Tokens(field) => Shown::Value(field(&mut copy).to_string()),
            Kind::Time(field) | Kind::Lasting(field) => shown_duration(*field(&mut copy)),
            Kind::File(field) => shown_file(field(&mut copy).as_ref()),
            Kind::Other { show, .. } => show(config),
        }
    }
}

/// What was said so far, before it is checked as a whole.
#[derive(Clone, Debug, Default)]
pub(super) struct Draft {
    pub(super) config: Config,
    pub(super) url: Option<Address>,
    pub(super) host: Option<Address>,
    pub(super) protocol: Option<Protocol>,
    pub(super) port: Option<u16>,
    pub(super) base_path: Option<String>,
    pub(super) api_key: Option<String>,
    pub(super) basic_auth: Option<String>,
}

const fn row(key: &'static str, takes: &'static str, help: &'static str, kind: Kind) -> Setting {
    Setting { key, takes, help, secret: false, kind }
}

const fn flag(key: &'static str, help: &'static str, field: fn(&mut Config) -> &mut bool) -> Setting {
    row(key, "true|false", help, Kind::Flag(field))
}

const fn size(key: &'static str, help: &'static str, field: fn(&mut Config) -> &mut usize) -> Setting {
    row(key, "SIZE", help, Kind::Size(field))
}

const fn number_of(key: &'static str, help: &'static str, field: fn(&mut Config) -> &mut usize) -> Setting {
    row(key, "NUMBER", help, Kind::Number(field))
}

const fn tokens_of(key: &'static str, help: &'static str, field: fn(&mut Config) -> &mut u64) -> Setting {
    row(key, "TOKENS", help, Kind::Tokens(field))
}

const fn time(key: &'static str, help: &'static str, field: fn(&mut Config) -> &mut Duration) -> Setting {
    row(key, "DURATION", help, Kind::Time(field))
}

/// A duration that must be more than zero.
const fn lasting_time(key: &'static str, help: &'static str, field: fn(&mut Config) -> &mut Duration) -> Setting {
    row(key, "DURATION", help, Kind::Lasting(field))
}

const fn path(key: &'static str, help: &'static str, field: fn(&mut Config) -> &mut Option<PathBuf>) -> Setting {
    row(key, "FILE", help, Kind::File(field))
}

const fn other(
    key: &'static str,
    takes: &'static str,
    help: &'static str,
    set: Set,
    show: fn(&Config) -> Shown,
) -> Setting {
    row(key, takes, help, Kind::Other { set, show })
}

const fn secret(
    key: &'static str,
    takes: &'static str,
    help: &'static str,
    set: Set,
    show: fn(&Config) -> Shown,
) -> Setting {
    Setting { secret: true, ..other(key, takes, help, set, show) }
}

/// The tables of the file, in the order of the example file, each with a title for help texts.
pub const SECTIONS: &[(&str, &str)] = &[
    ("local", "Where farllama listens"),
    ("remote", "The remote Ollama"),
    ("health", "How several remotes are watched"),
    ("native", "Ollama's own routes"),
    ("openai", "The OpenAI routes"),
    ("models", "Aliases and presets of models, and which models are listed"),
    ("context", "Context size, and prompts that do not fit"),
    ("completions", "Legacy completions"),
    ("moderation", "Moderations"),
    ("audio", "Transcriptions"),
    ("tools", "Tool calls"),
    ("responses", "Responses"),
    ("files", "Files (/v1/files)"),
    ("batches", "Batches (/v1/batches)"),
    ("anthropic", "Anthropic's Messages API"),
    ("images", "Images that a request names by URL"),
    ("timeouts", "Timeouts"),
    ("heartbeat", "Heartbeats in streams"),
    ("limits", "Limits on requests and connections"),
    ("auth", "Keys"),
    ("quota", "Quotas"),
    ("warm", "Models that stay loaded"),
    ("store", "What several proxies share"),
    ("", "Browser pages, and several remotes"),
    ("log", "Log"),
    ("admin", "The admin listener"),
    ("traces", "Traces (OpenTelemetry)"),
    ("shutdown", "Shutdown"),
];

/// Every setting, in the order of the example file.
pub const SETTINGS: &[Setting] = &[
    other(
        "local.host",
        "HOST",
        "Address to listen on",
        |draft, value| {
            // An IPv6 address may come as URLs write it.
            text(value).map(|host| draft.config.local.host = host.trim_matches(['[', ']']).to_owned())
        },
        |config| quoted(&config.local.host),
    ),
    other(
        "local.port",
        "PORT",
        "Port to listen on; 0 takes a free one",
        |draft, value| port(value).map(|port| draft.config.local.port = port),
        |config| Shown::Value(config.local.port.to_string()),
    ),
    other(
        "local.hosts",
        "NAME,…",
        "Host names that clients may use, besides this machine's own. If given, public addresses accept no others",
        |draft, value| {
            let hosts = list(value)?;
            if let Some(wrong) = hosts.iter().find(|host| host.matches('*').count() > 1 || host.contains([':', '/'])) {
                return Err(format!(
                    "invalid host name {wrong:?}: expected one such as \"ai.example\" or \"*.lan.example\", without a port"
                ));
            }
            draft.config.local.hosts = hosts;
            Ok(())
        },
        |config| Shown::Value(toml::Value::from(config.local.hosts.clone()).to_string()),
    ),
    flag(
        "local.public",
        "Listen on a non-loopback address without keys. Anyone on the network can then use it",
        |config| &mut config.local.public,
    ),
    path("local.tls_cert", "PEM file with a certificate and its chain; the proxy then speaks TLS only", |config| {
        &mut config.local.tls_cert
    }),
    path("local.tls_key", "PEM file with the private key of the certificate", |config| &mut config.local.tls_key),
    other(
        "remote.kind",
        "ollama|openai|auto",
        "What the remote speaks: Ollama's API, OpenAI's (vLLM, llama.cpp, LM Studio, OpenRouter …), or to be found out",
        |draft, value| word(value).map(|kind| draft.config.remote.kind = kind),
        |config| shown_word(config.remote.kind),
    ),
    other(
        "remote.url",
        "URL",
        "The remote Ollama as one URL, such as http://user:pass@gpu-box:11434/prefix. Its parts win over the single settings",
        |draft, value| {
            draft.url = Some(Address::url(&text(value)?, draft.config.remote.kind)?);
            Ok(())
        },
        |_| Shown::Nothing,
    ),
    other(
        "remote.protocol",
        "http|https",
        "Protocol of the remote",
        |draft, value| {
            draft.protocol = Some(word(value)?);
            Ok(())
        },
        |config| shown_word(config.remote.protocol),
    ),
    other(
        "remote.host",
        "HOST",
        "The machine that runs Ollama: a name, an address, host:port, or a URL",
        |draft, value| {
            draft.host = Some(Address::parse(&text(value)?, draft.config.remote.kind)?);
            Ok(())
        },
        |config| quoted(&config.remote.host),
    ),
    other(
        "remote.port",
        "PORT",
        "Port of the remote Ollama",
        |draft, value| {
            draft.port = Some(port(value)?);
            Ok(())
        },
        |config| Shown::Value(config.remote.port.to_string()),
    ),
    other(
        "remote.base_path",
        "PATH",
        "Path prefix of the remote Ollama, if it is behind a gateway",
        |draft, value| {
            draft.base_path = Some(remote_path(&text(value)?, draft.config.remote.kind)?);
            Ok(())
        },
        |config| quoted(if config.remote.base_path.is_empty() { "/" } else { &config.remote.base_path }),
    ),
    secret(
        "remote.api_key",
        "KEY",
        "API key for the remote, sent as `Authorization: Bearer KEY`",
        |draft, value| {
            draft.api_key = Some(text(value)?).filter(|key| !key.is_empty());
            Ok(())
        },
        |config| match &config.remote.authorization {
            Some(value) if value.as_bytes().starts_with(b"Bearer ") => Shown::Masked,
            _ => Shown::Nothing,
        },
    ),
    secret(
        "remote.basic_auth",
        "USER:PASS",
        "User and password for the remote, sent as Basic authorization",
        |draft, value| {
            let pair = text(value)?;
            if !pair.is_empty() && !pair.contains(':') {
                return Err("expected \"user:pass\"".to_owned());
            }
            draft.basic_auth = Some(pair).filter(|pair| !pair.is_empty());
            Ok(())
        },
        |config| match &config.remote.authorization {
            Some(value) if value.as_bytes().starts_with(b"Basic ") => Shown::Masked,
            _ => Shown::Nothing,
        },
    ),
    secret(
        "remote.headers",
        "'NAME: VALUE'",
        "Extra header for every request to the remote; may be repeated",
        |draft, value| headers(value).map(|headers| draft.config.remote.headers = headers),
        |config| masked_headers(&config.remote.headers),
    ),
    path("remote.ca_file", "PEM file with certificate authorities to trust besides the system's", |config| {
        &mut config.remote.ca_file
    }),
    flag(
        "remote.verify",
        "Verify the remote's TLS certificate. If false, anyone on the way can read and change everything",
        |config| &mut config.remote.verify,
    ),
    path(
        "remote.client_cert",
        "PEM file with the certificate (and its chain) that the remote asks clients for",
        |config| &mut config.remote.reach.client_cert,
    ),
    path("remote.client_key", "PEM file with the private key of remote.client_cert", |config| {
        &mut config.remote.reach.client_key
    }),
    secret(
        "remote.proxy",
        "URL",
        "Proxy on the way to the remote: http://, https:// (CONNECT) or socks5://, with user:pass@ if it needs them; \
         none: ignore HTTP_PROXY, HTTPS_PROXY and ALL_PROXY",
        |draft, value| {
            let text = text(value)?;
            let reach = &mut draft.config.remote.reach;
            (reach.proxy, reach.no_proxy) = match text.trim() {
                "" => (None, false),
                "none" => (None, true),
                url => (Some(Proxy::parse(url)?), false),
            };
            Ok(())
        },
        |config| match &config.remote.reach {
            reach if reach.no_proxy => quoted("none"),
            reach => reach.proxy.as_ref().map_or(Shown::Nothing, |proxy| quoted(&proxy.to_string())),
        },
    ),
    other(
        "remote.ssh",
        "USER@HOST",
        "Machine over which the remote is reached, through this machine's ssh; remote.host and remote.port are as it sees them",
        |draft, value| {
            let text = text(value)?;
            draft.config.remote.reach.ssh = if text.is_empty() { None } else { Some(Ssh::parse(&text)?) };
            Ok(())
        },
        |config| config.remote.reach.ssh.as_ref().map_or(Shown::Nothing, |ssh| quoted(&ssh.to_string())),
    ),
    other(
        "remote.wake",
        "MAC",
        "Network card that is woken (Wake-on-LAN) if the remote cannot be reached; MAC@ADDRESS sends the packet to ADDRESS",
        |draft, value| {
            let text = text(value)?;
            draft.config.remote.reach.wake = if text.is_empty() { None } else { Some(Wake::parse(&text)?) };
            Ok(())
        },
        |config| config.remote.reach.wake.as_ref().map_or(Shown::Nothing, |wake| quoted(&wake.to_string())),
    ),
    time("remote.wake_time", "Maximum time for the remote's machine to wake", |config| {
        &mut config.remote.reach.wake_time
    }),
    time(
        "remote.probe",
        "Interval in which the remote is probed, from the start on, to log when it comes or goes; 0: never",
        |config| &mut config.remote.probe,
    ),
    flag(
        "remote.forward_auth",
        "Forward the callers' own credentials to the remote instead of removing them",
        |config| &mut config.remote.forward_auth,
    ),
    flag("remote.forward_cookies", "Pass cookies between callers and the remote instead of removing them", |config| {
        &mut config.remote.forward_cookies
    }),
    size(
        "remote.replay_body",
        "Maximum size of a native request body that is sent again if a pooled connection turns out to be closed; 0: never",
        |config| &mut config.remote.replay_body,
    ),
    time(
        "health.interval",
        "With several remotes: interval in which each is asked for its version and models; 0: never",
        |config| &mut config.health.interval,
    ),
    lasting_time("health.timeout", "Maximum time for its response", |config| &mut config.health.timeout),
    number_of("health.fail_after", "Failures in a row after which a remote is out of use", |config| {
        &mut config.health.fail_after
    }),
    number_of("health.return_after", "Successes in a row after which it is in use again", |config| {
        &mut config.health.return_after
    }),
    time("health.models_age", "Maximum age of the list of a remote's models", |config| &mut config.health.models_age),
    flag(
        "native.truthful_end",
        "End a native stream that fails, or ends before it is done, with an error line and a cut connection",
        |config| &mut config.native.truthful_end,
    ),
    other(
        "openai.base_path",
        "PATH",
        "Path prefix of the OpenAI routes",
        |draft, value| {
            let path = base_path(&text(value)?)?;
            if path.is_empty() {
                return Err("the OpenAI routes need a path of their own, such as \"/v1\"".to_owned());
            }
            draft.config.openai.base_path = path;
            Ok(())
        },
        |config| quoted(&config.openai.base_path),
    ),
    flag(
        "openai.strict",
        "Reject request fields that are unknown or have no effect, instead of listing them in x-farllama-receipt",
        |config| &mut config.openai.strict,
    ),
    other(
        "models.aliases",
        "NAME=MODEL,…",
        "Other names for models of the remote; in the file with presets, as [models.\"NAME\"]",
        |draft, value| draft.config.models.set_aliases(value),
        // Shown with the other entries, each a table of its own.
        |_| Shown::Nothing,
    ),
    other(
        "models.default",
        "MODEL",
        "Model for names that neither an alias nor the remote has; empty: such requests fail",
        |draft, value| text(value).map(|model| draft.config.models.default = model.trim().to_owned()),
        |config| quoted(&config.models.default),
    ),
    other(
        "models.hidden",
        "NAME,…",
        "Names that no list of models shows, with * for any characters. Requests may still use them",
        |draft, value| list(value).map(|names| draft.config.models.hidden = names),
        |config| Shown::Value(toml::Value::from(config.models.hidden.clone()).to_string()),
    ),
    other(
        "models.shown",
        "NAME,…",
        "The only names that lists of models show, with * for any characters; empty: all",
        |draft, value| list(value).map(|names| draft.config.models.shown = names),
        |config| Shown::Value(toml::Value::from(config.models.shown.clone()).to_string()),
    ),
    tokens_of("context.num_ctx", "Context size for OpenAI requests that set none; 0 lets Ollama decide", |config| {
        &mut config.context.num_ctx
    }),
    tokens_of(
        "context.max",
        "Retry a prompt that does not fit with a larger context, up to this size; 0: never",
        |config| &mut config.context.max,
    ),
    other(
        "context.overflow",
        "refuse|truncate",
        "What to do with a prompt that does not fit: return an error, or let Ollama drop its oldest part silently",
        |draft, value| word(value).map(|overflow| draft.config.context.overflow = overflow),
        |config| shown_word(config.context.overflow),
    ),
    other(
        "context.overflow_by_model",
        "'MODEL: refuse|truncate'",
        "The same for single models, one per line",
        |draft, value| by_model(value).map(|list| draft.config.context.overflow_by_model = list),
        |config| {
            let word = |(model, overflow): &(String, Overflow)| format!("{model:?} = {:?}", overflow.word());
            match &*config.context.overflow_by_model.iter().map(word).collect::<Vec<_>>() {
                [] => Shown::Value("{}".to_owned()),
                pairs => Shown::Value(format!("{{ {} }}", pairs.join(", "))),
            }
        },
    ),
    flag("completions.raw", "Pass the prompts of /v1/completions to the model without its template", |config| {
        &mut config.completions.raw
    }),
    other(
        "moderation.model",
        "MODEL",
        "Model for /v1/moderations if a request names none or one of OpenAI's, such as llama-guard3",
        |draft, value| text(value).map(|model| draft.config.moderation.model = model),
        |config| quoted(&config.moderation.model),
    ),
    flag(
        "audio.prompt_as_transcript",
        "If the model has no audio input, use the request's `prompt` as the transcript",
        |config| &mut config.audio.prompt_as_transcript,
    ),
    other(
        "tools.repair",
        "auto|off",
        "Repair tool calls that do not fit the tool's schema, if exactly one repair is possible",
        |draft, value| word(value).map(|repair| draft.config.tools.repair = repair),
        |config| shown_word(config.tools.repair),
    ),
    other(
        "tools.rescue",
        "auto|off",
        "Turn tool calls that a model writes as text into tool calls",
        |draft, value| word(value).map(|rescue| draft.config.tools.rescue = rescue),
        |config| shown_word(config.tools.rescue),
    ),
    flag(
        "tools.reask",
        "Ask the model once more for a tool call that does not fit its schema; tools with strict: true always are",
        |config| &mut config.tools.reask,
    ),
    flag("tools.repair_native", "Repair tool calls in the responses of Ollama's own /api/chat, too", |config| {
        &mut config.tools.repair_native
    }),
    size("responses.max_bytes", "Maximum memory for stored responses; 0 stores none", |config| {
        &mut config.responses.max_bytes
    }),
    number_of(
        "responses.max_count",
        "Maximum number of stored responses; the least recently used one is evicted. 0 stores none",
        |config| &mut config.responses.max_count,
    ),
    time("responses.ttl", "Time after its last use until a stored response expires; 0: never", |config| {
        &mut config.responses.ttl
    }),
    number_of(
        "responses.max_websockets",
        "Maximum number of open WebSockets (GET /v1/responses); 0 refuses them",
        |config| &mut config.responses.max_websockets,
    ),
    time(
        "responses.websocket_idle",
        "Time without a message or a running response until a WebSocket is closed; 0: never",
        |config| &mut config.responses.websocket_idle,
    ),
    number_of(
        "responses.max_background",
        "Maximum number of responses that run or wait in the background; 0 refuses `background: true`",
        |config| &mut config.responses.max_background,
    ),
    secret(
        "responses.compaction_key",
        "SECRET",
        "Secret that compactions are encrypted with, so that they can be read after a restart and by other proxies",
        |draft, value| {
            let secret = text(value)?;
            if !secret.is_empty() && secret.chars().count() < 16 {
                return Err("expected at least 16 characters, such as those of `openssl rand -base64 32`".to_owned());
            }
            draft.config.responses.compaction_key = Secret(secret);
            Ok(())
        },
        |config| if config.responses.compaction_key.0.is_empty() { Shown::Nothing } else { Shown::Masked },
    ),
    other(
        "responses.hosted_tools",
        "skip|refuse",
        "What to do with tools that OpenAI runs itself, such as web_search: leave them out, or reject the request",
        |draft, value| word(value).map(|hosted| draft.config.responses.hosted_tools = hosted),
        |config| shown_word(config.responses.hosted_tools),
    ),
    size("files.max_bytes", "Maximum size of all stored files (/v1/files); 0 stores none", |config| {
        &mut config.files.max_bytes
    }),
    number_of(
        "files.max_count",
        "Maximum number of stored files; the least recently used one is evicted. 0 stores none",
        |config| &mut config.files.max_count,
    ),
    size("files.max_bytes_per_key", "Maximum size of the files of one key; more are rejected", |config| {
        &mut config.files.max_bytes_per_key
    }),
    number_of("files.max_count_per_key", "Maximum number of files of one key; more are rejected", |config| {
        &mut config.files.max_count_per_key
    }),
    time("files.ttl", "Time after its last use until a file expires; 0: never", |config| &mut config.files.ttl),
    number_of(
        "batches.max_count",
        "Maximum number of batches (/v1/batches) that run or wait; 0 refuses them",
        |config| &mut config.batches.max_count,
    ),
    number_of(
        "batches.concurrency",
        "Number of requests of batches at the same time; they are sent only while the proxy is otherwise idle",
        |config| &mut config.batches.concurrency,
    ),
    flag(
        "anthropic.passthrough",
        "Pass /v1/messages through to the remote's own implementation instead of translating it",
        |config| &mut config.anthropic.passthrough,
    ),
    other(
        "anthropic.model",
        "MODEL",
        "Model behind Anthropic's names (claude-…), such as qwen3-coder",
        |draft, value| text(value).map(|model| draft.config.anthropic.model = model),
        |config| quoted(&config.anthropic.model),
    ),
    other(
        "anthropic.small_model",
        "MODEL",
        "Model behind the names of Anthropic's small models (claude-haiku-…); empty: anthropic.model",
        |draft, value| text(value).map(|model| draft.config.anthropic.small_model = model),
        |config| quoted(&config.anthropic.small_model),
    ),
    other(
        "anthropic.server_tools",
        "skip|refuse",
        "What to do with tools that Anthropic runs itself, such as web_search: leave them out, or reject the request",
        |draft, value| word(value).map(|hosted| draft.config.anthropic.server_tools = hosted),
        |config| shown_word(config.anthropic.server_tools),
    ),
    flag(
        "images.fetch",
        "Fetch images that a request names by an http(s) URL. If false, such requests are rejected",
        |config| &mut config.images.fetch,
    ),
    size("images.max_bytes", "Maximum total size of the images that are fetched for one request", |config| {
        &mut config.images.max_bytes
    }),
    lasting_time("images.timeout", "Maximum time for fetching the images of one request", |config| {
        &mut config.images.timeout
    }),
    flag(
        "images.allow_private",
        "Also fetch images from private networks and this machine. Callers can then probe them",
        |config| &mut config.images.allow_private,
    ),
    time("timeouts.connect", "Maximum time to connect to the remote; 0: no limit", |config| {
        &mut config.timeouts.connect
    }),
    time(
        "timeouts.first_byte",
        "Maximum time until the first byte of a response; 0: no limit, as a model may load for minutes",
        |config| &mut config.timeouts.first_byte,
    ),
    time("timeouts.idle", "Maximum pause within a response; 0: no limit", |config| &mut config.timeouts.idle),
    time(
        "heartbeat.after",
        "Time to wait for the remote before answering 200. Errors within it keep their status; later ones become error events",
        |config| &mut config.heartbeat.after,
    ),
    time("heartbeat.every", "Interval of the heartbeats that keep a silent stream alive; 0: none", |config| {
        &mut config.heartbeat.every
    }),
    size("limits.body", "Maximum request body on the OpenAI routes", |config| &mut config.limits.body),
    number_of(
        "limits.fields",
        "Maximum number of fields in one object of a request body on the OpenAI routes, and of parts in a form; 0: no limit",
        |config| &mut config.limits.fields,
    ),
    size(
        "limits.buffered",
        "Maximum bytes of request bodies held in memory at the same time; 0: a quarter of the memory, at most 512MiB",
        |config| &mut config.limits.buffered,
    ),
    size("limits.native_body", "Maximum request body on the native routes; 0: no limit", |config| {
        &mut config.limits.native_body
    }),
    other(
        "limits.head",
        "SIZE",
        "Maximum request head, at least 8KiB",
        |draft, value| match bytes(value)? {
            small if small < 8 << 10 => Err(format!("invalid size {small}: expected at least 8KiB")),
            bytes => {
                draft.config.limits.head = bytes;
                Ok(())
            }
        },
        |config| shown_bytes(config.limits.head),
    ),
    time("limits.head_time", "Maximum time for a request head once it has begun; 0: as limits.idle", |config| {
        &mut config.limits.head_time
    }),
    time("limits.body_idle", "Maximum pause within a request body; 0: no limit", |config| &mut config.limits.body_idle),
    other(
        "limits.body_rate",
        "SIZE",
        "Lowest rate, in bytes per second, at which a request body must arrive, after a minute of waiting for it; 0: no limit",
        |draft, value| bytes(value).map(|rate| draft.config.limits.body_rate = rate as u64),
        |config| shown_bytes(config.limits.body_rate as usize),
    ),
    time(
        "limits.write_idle",
        "Maximum time in which a client reads nothing of its response while there is more to write; 0: no limit",
        |config| &mut config.limits.write_idle,
    ),
    time("limits.idle", "Time until an idle client connection is closed; 0: never", |config| &mut config.limits.idle),
    number_of(
        "limits.connections",
        "Maximum client connections; when it is reached, the longest idle one is closed. 0: no limit",
        |config| &mut config.limits.connections,
    ),
    number_of(
        "limits.connections_per_address",
        "Maximum connections of one client address; one more evicts its longest idle one, or gets a 503. 0: no limit",
        |config| &mut config.limits.connections_per_address,
    ),
    number_of(
        "limits.connections_per_key",
        "Maximum requests of one key in flight, unread bodies included; one more gets a 503. 0: no limit",
        |config| &mut config.limits.connections_per_key,
    ),
    flag("auth.enabled", "Require one of the keys in auth.keys for every request", |config| &mut config.auth.enabled),
    other(
        "auth.header",
        "NAME",
        "Header that holds a caller's key; a Bearer token is always accepted too",
        |draft, value| key_header(value).map(|header| draft.config.auth.header = header),
        |config| quoted(config.auth.header.as_str()),
    ),
    secret(
        "auth.keys",
        "KEY,…",
        "The callers' keys; in the file with names, limits and allowlists",
        |draft, value| tokens::plain(value).map(|tokens| draft.config.auth.tokens = tokens),
        |config| Shown::Value(tokens::shown(&config.auth.tokens)),
    ),
    path("auth.keys_file", "File with further keys, read again when it changes", |config| &mut config.auth.keys_file),
    other(
        "auth.exempt",
        "PATH,…",
        "Paths that need no key, such as /api/version",
        |draft, value| tokens::routes(value).map(|routes| draft.config.auth.exempt = routes),
        |config| Shown::Value(format!("{:?}", config.auth.exempt)),
    ),
    lasting_time("quota.window", "Sliding window in which limit_per_minute and tokens_per_minute count", |config| {
        &mut config.quota.window
    }),
    number_of("quota.max_concurrent", "Maximum concurrent requests in total; 0: no limit", |config| {
        &mut config.quota.max_concurrent
    }),
    number_of(
        "quota.queue",
        "Maximum number of requests that wait for a free slot; further ones get a 429",
        |config| &mut config.quota.queue,
    ),
    time("quota.wait", "Maximum wait for a free slot before a 429; 0: no limit", |config| &mut config.quota.wait),
    secret(
        "store.url",
        "URL",
        "Redis or Valkey server on which several proxies share limits and responses: redis:// or rediss://",
        |draft, value| {
            let url = text(value)?;
            if !url.is_empty() && !url.starts_with("redis://") && !url.starts_with("rediss://") {
                return Err("expected a URL such as redis://:password@host:6379/0, or rediss:// for TLS".to_owned());
            }
            draft.config.store.url = Secret(url);
            Ok(())
        },
        |config| quoted(if config.store.url.0.is_empty() { "" } else { "***" }),
    ),
    other(
        "store.prefix",
        "TEXT",
        "What the keys on that server begin with; proxies with the same prefix share",
        |draft, value| {
            draft.config.store.prefix = text(value)?;
            Ok(())
        },
        |config| quoted(&config.store.prefix),
    ),
    other(
        "store.fail",
        "open|closed",
        "While that server cannot be reached: each proxy counts alone, or requests with limits get a 503",
        |draft, value| {
            draft.config.store.fail = word(value)?;
            Ok(())
        },
        |config| quoted(config.store.fail.word()),
    ),
    lasting_time("store.timeout", "How long a request waits for that server", |config| &mut config.store.timeout),
    lasting_time("store.lease", "After what time a proxy that has died gives back its permits", |config| {
        &mut config.store.lease
    }),
    path("store.ca_file", "PEM file of certificates to trust for that server, instead of the system's", |config| {
        &mut config.store.ca_file
    }),
    secret(
        "remotes",
        "NAME=URL,…",
        "Several remotes; in the file as [[remotes]] with keys, priorities, weights and models (docs/remotes.md)",
        |draft, value| remotes::plain(value).map(|remotes| draft.config.remotes = remotes),
        |config| Shown::Value(remotes::shown(config)),
    ),
    other(
        "origins",
        "ORIGIN,…",
        "Browser pages that may call, besides those that Ollama allows by default. At most one * in each",
        |draft, value| {
            let origins = list(value)?;
            if let Some(wrong) = origins
                .iter()
                .find(|origin| origin.matches('*').count() > 1 || !(origin.contains("://") || *origin == "*"))
            {
                return Err(format!(
                    "invalid origin {wrong:?}: expected one such as \"https://chat.example\" or \"chrome-extension://*\""
                ));
            }
            draft.config.origins = origins;
            Ok(())
        },
        |config| Shown::Value(toml::Value::from(config.origins.clone()).to_string()),
    ),
    other(
        "warm.models",
        "MODEL,…",
        "Models that are loaded when farllama starts or the remote returns, and stay loaded while it runs",
        |draft, value| list(value).map(|models| draft.config.warm.models = models),
        |config| Shown::Value(toml::Value::from(config.warm.models.clone()).to_string()),
    ),
    other(
        "log.level",
        "LEVEL",
        "error, warn, info (one line per request), debug (payloads and each SSE frame) or trace",
        |draft, value| word(value).map(|level| draft.config.log.level = level),
        |config| shown_word(config.log.level),
    ),
    other(
        "log.format",
        "text|json",
        "Format of log lines",
        |draft, value| word(value).map(|format| draft.config.log.format = format),
        |config| shown_word(config.log.format),
    ),
    time("log.running", "Interval in which a request that is still running is logged; 0: never", |config| {
        &mut config.log.running
    }),
    flag("admin.enabled", "Run the admin listener: health, metrics, API and console", |config| {
        &mut config.admin.enabled
    }),
    flag(
        "admin.required",
        "Do not start if the admin listener cannot listen, for example because its port is taken",
        |config| &mut config.admin.required,
    ),
    other(
        "admin.host",
        "HOST",
        "Address of the admin listener; any but loopback needs admin.token",
        |draft, value| text(value).map(|host| draft.config.admin.host = host.trim_matches(['[', ']']).to_owned()),
        |config| quoted(&config.admin.host),
    ),
    other(
        "admin.port",
        "PORT",
        "Port of the admin listener; 0 takes a free one",
        |draft, value| port(value).map(|port| draft.config.admin.port = port),
        |config| Shown::Value(config.admin.port.to_string()),
    ),
    secret(
        "admin.token",
        "TOKEN",
        "Token for the admin listener, sent as `Authorization: Bearer TOKEN`; no caller's key works there",
        |draft, value| {
            let token = text(value)?;
            if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err("expected letters, digits and punctuation, without spaces".to_owned());
            }
            draft.config.admin.token = Secret(token);
            Ok(())
        },
        |config| if config.admin.token.0.is_empty() { Shown::Nothing } else { Shown::Masked },
    ),
    other(
        "admin.hosts",
        "NAME,…",
        "Host names under which operators may open the console, besides this machine's own. At most one * in each",
        |draft, value| list(value).map(|hosts| draft.config.admin.hosts = hosts),
        |config| Shown::Value(toml::Value::from(config.admin.hosts.clone()).to_string()),
    ),
    number_of("admin.requests", "Number of finished requests that the console lists", |config| {
        &mut config.admin.requests
    }),
    size("admin.log_bytes", "Maximum memory for the log lines that the console shows", |config| {
        &mut config.admin.log_bytes
    }),
    number_of("admin.inspector_requests", "Number of exchanges that the inspector keeps while it is on", |config| {
        &mut config.admin.inspector_requests
    }),
    size("admin.inspector_bytes", "Maximum memory for the exchanges that the inspector keeps", |config| {
        &mut config.admin.inspector_bytes
    }),
    lasting_time("admin.inspector_time", "Time after which the inspector switches itself off", |config| {
        &mut config.admin.inspector_time
    }),
    other(
        "traces.url",
        "URL",
        "Collector that takes traces by OTLP over HTTP, such as http://127.0.0.1:4318; without one there are no traces",
        |draft, value| {
            let text = text(value)?;
            draft.config.traces.url = if text.is_empty() { None } else { Some(CollectorUrl::parse(&text)?) };
            Ok(())
        },
        |config| config.traces.url.as_ref().map_or(Shown::Nothing, |url| quoted(&url.to_string())),
    ),
    secret(
        "traces.headers",
        "'NAME: VALUE'",
        "Extra headers for the collector, one per line",
        |draft, value| headers(value).map(|headers| draft.config.traces.headers = headers),
        |config| masked_headers(&config.traces.headers),
    ),
    other(
        "traces.service_name",
        "NAME",
        "Name under which the spans are found (service.name)",
        |draft, value| text(value).map(|name| draft.config.traces.service_name = name),
        |config| quoted(&config.traces.service_name),
    ),
    flag("traces.propagate", "Pass the trace on to the remote, in the header traceparent", |config| {
        &mut config.traces.propagate
    }),
    time(
        "shutdown.grace",
        "Maximum time for running requests when the process stops; streams then end with an error",
        |config| &mut config.shutdown.grace,
    ),
];

/// Headers without their values.
fn masked_headers(headers: &[(http::HeaderName, http::HeaderValue)]) -> Shown {
    let masked = headers.iter().map(|(name, _)| format!("{:?} = \"***\"", name.as_str()));
    match &*masked.collect::<Vec<_>>() {
        [] => Shown::Value("{}".to_owned()),
        pairs => Shown::Value(format!("{{ {} }}", pairs.join(", "))),
    }
}

/// The setting with that name in the file. `auth.tokens` is the old name of `auth.keys`.
pub(super) fn find(key: &str) -> Option<&'static Setting> {
    let key = if key == "auth.tokens" { "auth.keys" } else { key };
    SETTINGS.iter().find(|setting| setting.key == key)
}
