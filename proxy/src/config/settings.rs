//! The list of settings: one row each, with its name in the file, what it takes, what it means, and how it is shown.
//!
//! File, environment, flags, `config show` and the example are all read off these rows, so a setting cannot exist in one and not in another.

use super::{Config, Hosted, LogFormat, LogLevel, Overflow, Protocol, tokens};
use crate::config::{
    address::Address,
    value::{
        Shown, Value, base_path, boolean, by_model, bytes, count, duration, file, headers, hosted, key_header, lasting,
        list, number, overflow, overflow_word, port, quoted, shown_bytes, shown_duration, shown_file, text,
    },
};

/// One setting.
pub struct Setting {
    /// Its name in the file, such as `remote.base_path`. The flag is `--remote-base-path`, the variable `FARLLAMA_REMOTE_BASE_PATH`.
    pub key: &'static str,
    /// What it takes, for help texts.
    pub takes: &'static str,
    /// What it means, in one sentence.
    pub help: &'static str,
    /// Whether its value must never be shown.
    pub secret: bool,
    pub(super) set: fn(&mut Draft, Value) -> Result<(), String>,
    pub(super) show: fn(&Config) -> Shown,
}

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
}

/// What was said so far, before it is checked as a whole.
#[derive(Debug, Default)]
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

/// Every setting, in the order of the example file.
pub const SETTINGS: &[Setting] = &[
    Setting {
        key: "local.host",
        takes: "HOST",
        help: "Address or name to listen on",
        secret: false,
        set: |draft, value| {
            // An IPv6 address may come as URLs write it.
            text(value).map(|host| draft.config.local.host = host.trim_matches(['[', ']']).to_owned())
        },
        show: |config| quoted(&config.local.host),
    },
    Setting {
        key: "local.port",
        takes: "PORT",
        help: "Port to listen on; 0 takes a free one",
        secret: false,
        set: |draft, value| port(value).map(|port| draft.config.local.port = port),
        show: |config| Shown::Value(config.local.port.to_string()),
    },
    Setting {
        key: "local.public",
        takes: "true|false",
        help: "Listens on an address that others can reach even though no key is asked for",
        secret: false,
        set: |draft, value| boolean(value).map(|on| draft.config.local.public = on),
        show: |config| Shown::Value(config.local.public.to_string()),
    },
    Setting {
        key: "local.tls_cert",
        takes: "FILE",
        help: "A PEM file with a certificate (and its chain): the proxy then speaks TLS",
        secret: false,
        set: |draft, value| file(value).map(|path| draft.config.local.tls_cert = path),
        show: |config| shown_file(config.local.tls_cert.as_ref()),
    },
    Setting {
        key: "local.tls_key",
        takes: "FILE",
        help: "A PEM file with the certificate's key",
        secret: false,
        set: |draft, value| file(value).map(|path| draft.config.local.tls_key = path),
        show: |config| shown_file(config.local.tls_key.as_ref()),
    },
    Setting {
        key: "remote.url",
        takes: "URL",
        help: "The remote Ollama as one URL, such as http://user:pass@gpu-box:11434/prefix; its parts win over the single settings",
        secret: false,
        set: |draft, value| {
            draft.url = Some(Address::url(&text(value)?)?);
            Ok(())
        },
        show: |_| Shown::Nothing,
    },
    Setting {
        key: "remote.protocol",
        takes: "http|https",
        help: "How the remote is spoken to",
        secret: false,
        set: |draft, value| {
            draft.protocol = Some(match &*text(value)? {
                "http" => Protocol::Http,
                "https" => Protocol::Https,
                other => return Err(format!("{other:?} is neither \"http\" nor \"https\"")),
            });
            Ok(())
        },
        show: |config| {
            quoted(match config.remote.protocol {
                Protocol::Http => "http",
                Protocol::Https => "https",
            })
        },
    },
    Setting {
        key: "remote.host",
        takes: "HOST",
        help: "The machine that runs Ollama: a name, an address, host:port, or a whole URL",
        secret: false,
        set: |draft, value| {
            draft.host = Some(Address::parse(&text(value)?)?);
            Ok(())
        },
        show: |config| quoted(&config.remote.host),
    },
    Setting {
        key: "remote.port",
        takes: "PORT",
        help: "The port that Ollama listens on there",
        secret: false,
        set: |draft, value| {
            draft.port = Some(port(value)?);
            Ok(())
        },
        show: |config| Shown::Value(config.remote.port.to_string()),
    },
    Setting {
        key: "remote.base_path",
        takes: "PATH",
        help: "What every path is prefixed with there, where Ollama stands behind a gateway",
        secret: false,
        set: |draft, value| {
            draft.base_path = Some(base_path(&text(value)?)?);
            Ok(())
        },
        show: |config| quoted(if config.remote.base_path.is_empty() { "/" } else { &config.remote.base_path }),
    },
    Setting {
        key: "remote.api_key",
        takes: "KEY",
        help: "Sent to the remote as `Authorization: Bearer KEY`",
        secret: true,
        set: |draft, value| {
            draft.api_key = Some(text(value)?).filter(|key| !key.is_empty());
            Ok(())
        },
        show: |config| match &config.remote.authorization {
            Some(value) if value.as_bytes().starts_with(b"Bearer ") => Shown::Masked,
            _ => Shown::Nothing,
        },
    },
    Setting {
        key: "remote.basic_auth",
        takes: "USER:PASS",
        help: "Sent to the remote as Basic authorization",
        secret: true,
        set: |draft, value| {
            let pair = text(value)?;
            if !pair.is_empty() && !pair.contains(':') {
                return Err("expected \"user:pass\"".to_owned());
            }
            draft.basic_auth = Some(pair).filter(|pair| !pair.is_empty());
            Ok(())
        },
        show: |config| match &config.remote.authorization {
            Some(value) if value.as_bytes().starts_with(b"Basic ") => Shown::Masked,
            _ => Shown::Nothing,
        },
    },
    Setting {
        key: "remote.headers",
        takes: "'NAME: VALUE'",
        help: "Extra headers for every request to the remote, one a line",
        secret: true,
        set: |draft, value| headers(value).map(|headers| draft.config.remote.headers = headers),
        show: |config| {
            let masked = config.remote.headers.iter().map(|(name, _)| format!("{:?} = \"***\"", name.as_str()));
            match &*masked.collect::<Vec<_>>() {
                [] => Shown::Value("{}".to_owned()),
                pairs => Shown::Value(format!("{{ {} }}", pairs.join(", "))),
            }
        },
    },
    Setting {
        key: "remote.ca_file",
        takes: "FILE",
        help: "A PEM file with certificate authorities to trust besides the system's",
        secret: false,
        set: |draft, value| file(value).map(|path| draft.config.remote.ca_file = path),
        show: |config| shown_file(config.remote.ca_file.as_ref()),
    },
    Setting {
        key: "remote.verify",
        takes: "true|false",
        help: "Whether a remote with TLS must prove who it is; off, anybody on the way can read and change everything",
        secret: false,
        set: |draft, value| boolean(value).map(|on| draft.config.remote.verify = on),
        show: |config| Shown::Value(config.remote.verify.to_string()),
    },
    Setting {
        key: "remote.forward_auth",
        takes: "true|false",
        help: "Sends the callers' own credentials on to the remote, instead of stopping them here",
        secret: false,
        set: |draft, value| boolean(value).map(|on| draft.config.remote.forward_auth = on),
        show: |config| Shown::Value(config.remote.forward_auth.to_string()),
    },
    Setting {
        key: "openai.base_path",
        takes: "PATH",
        help: "Where the OpenAI routes stand",
        secret: false,
        set: |draft, value| {
            let path = base_path(&text(value)?)?;
            if path.is_empty() {
                return Err("the OpenAI routes need a path of their own, such as \"/v1\"".to_owned());
            }
            draft.config.openai.base_path = path;
            Ok(())
        },
        show: |config| quoted(&config.openai.base_path),
    },
    Setting {
        key: "openai.strict",
        takes: "true|false",
        help: "Refuses request fields that have no effect, instead of noting them in x-farllama-receipt",
        secret: false,
        set: |draft, value| boolean(value).map(|on| draft.config.openai.strict = on),
        show: |config| Shown::Value(config.openai.strict.to_string()),
    },
    Setting {
        key: "context.num_ctx",
        takes: "TOKENS",
        help: "The context that is asked for on the OpenAI routes where the client asks for none (0: the remote's own)",
        secret: false,
        set: |draft, value| count(value).map(|tokens| draft.config.context.num_ctx = tokens),
        show: |config| Shown::Value(config.context.num_ctx.to_string()),
    },
    Setting {
        key: "context.max",
        takes: "TOKENS",
        help: "Up to which size a context grows for a prompt that does not fit (0: it does not grow)",
        secret: false,
        set: |draft, value| count(value).map(|tokens| draft.config.context.max = tokens),
        show: |config| Shown::Value(config.context.max.to_string()),
    },
    Setting {
        key: "context.overflow",
        takes: "refuse|truncate",
        help: "What becomes of a prompt that does not fit: an error, or Ollama drops its oldest part in silence",
        secret: false,
        set: |draft, value| overflow(&text(value)?).map(|overflow| draft.config.context.overflow = overflow),
        show: |config| quoted(overflow_word(config.context.overflow)),
    },
    Setting {
        key: "context.overflow_by_model",
        takes: "'MODEL: refuse|truncate'",
        help: "The same for single models, one a line",
        secret: false,
        set: |draft, value| by_model(value).map(|list| draft.config.context.overflow_by_model = list),
        show: |config| {
            let word = |(model, overflow): &(String, Overflow)| format!("{model:?} = {:?}", overflow_word(*overflow));
            match &*config.context.overflow_by_model.iter().map(word).collect::<Vec<_>>() {
                [] => Shown::Value("{}".to_owned()),
                pairs => Shown::Value(format!("{{ {} }}", pairs.join(", "))),
            }
        },
    },
    Setting {
        key: "completions.raw",
        takes: "true|false",
        help: "Gives the prompts of /v1/completions to the model as they are, without its template",
        secret: false,
        set: |draft, value| boolean(value).map(|on| draft.config.completions.raw = on),
        show: |config| Shown::Value(config.completions.raw.to_string()),
    },
    Setting {
        key: "moderation.model",
        takes: "MODEL",
        help: "The model that judges on /v1/moderations where a request names none or one of OpenAI's, such as llama-guard3",
        secret: false,
        set: |draft, value| text(value).map(|model| draft.config.moderation.model = model),
        show: |config| quoted(&config.moderation.model),
    },
    Setting {
        key: "audio.prompt_as_transcript",
        takes: "true|false",
        help: "Takes the prompt beside a recording that the model cannot hear for its transcript",
        secret: false,
        set: |draft, value| boolean(value).map(|on| draft.config.audio.prompt_as_transcript = on),
        show: |config| Shown::Value(config.audio.prompt_as_transcript.to_string()),
    },
    Setting {
        key: "responses.max_bytes",
        takes: "SIZE",
        help: "How much memory responses are kept in, to be continued or fetched (0: none is kept)",
        secret: false,
        set: |draft, value| bytes(value).map(|bytes| draft.config.responses.max_bytes = bytes),
        show: |config| shown_bytes(config.responses.max_bytes),
    },
    Setting {
        key: "responses.max_count",
        takes: "NUMBER",
        help: "How many responses are kept; one more drops the one that was not used for the longest (0: none is kept)",
        secret: false,
        set: |draft, value| number(value).map(|count| draft.config.responses.max_count = count),
        show: |config| Shown::Value(config.responses.max_count.to_string()),
    },
    Setting {
        key: "responses.ttl",
        takes: "DURATION",
        help: "For how long after its last use a response is kept (0: without limit)",
        secret: false,
        set: |draft, value| duration(value).map(|ttl| draft.config.responses.ttl = ttl),
        show: |config| shown_duration(config.responses.ttl),
    },
    Setting {
        key: "responses.hosted_tools",
        takes: "skip|refuse",
        help: "What becomes of tools that OpenAI runs itself, such as web_search: they are left out, or the request is refused",
        secret: false,
        set: |draft, value| hosted(&text(value)?).map(|hosted| draft.config.responses.hosted_tools = hosted),
        show: |config| {
            quoted(match config.responses.hosted_tools {
                Hosted::Skip => "skip",
                Hosted::Refuse => "refuse",
            })
        },
    },
    Setting {
        key: "images.fetch",
        takes: "true|false",
        help: "Fetches pictures that a request names by an http(s) URL; else such a request is refused",
        secret: false,
        set: |draft, value| boolean(value).map(|on| draft.config.images.fetch = on),
        show: |config| Shown::Value(config.images.fetch.to_string()),
    },
    Setting {
        key: "images.max_bytes",
        takes: "SIZE",
        help: "Most bytes of all pictures together that are fetched for one request",
        secret: false,
        set: |draft, value| bytes(value).map(|bytes| draft.config.images.max_bytes = bytes),
        show: |config| shown_bytes(config.images.max_bytes),
    },
    Setting {
        key: "images.timeout",
        takes: "DURATION",
        help: "How long fetching the pictures of one request may take",
        secret: false,
        set: |draft, value| {
            draft.config.images.timeout = lasting(value, "a fetch must end; give a duration above zero")?;
            Ok(())
        },
        show: |config| shown_duration(config.images.timeout),
    },
    Setting {
        key: "images.allow_private",
        takes: "true|false",
        help: "Fetches pictures from private networks and from this machine, too: whoever may send a request can then look around there",
        secret: false,
        set: |draft, value| boolean(value).map(|on| draft.config.images.allow_private = on),
        show: |config| Shown::Value(config.images.allow_private.to_string()),
    },
    Setting {
        key: "timeouts.connect",
        takes: "DURATION",
        help: "How long a connection to the remote may take (0s: without limit)",
        secret: false,
        set: |draft, value| duration(value).map(|within| draft.config.timeouts.connect = within),
        show: |config| shown_duration(config.timeouts.connect),
    },
    Setting {
        key: "timeouts.first_byte",
        takes: "DURATION",
        help: "How long the first byte of an answer may take (0s: without limit; a model may load for minutes)",
        secret: false,
        set: |draft, value| duration(value).map(|within| draft.config.timeouts.first_byte = within),
        show: |config| shown_duration(config.timeouts.first_byte),
    },
    Setting {
        key: "timeouts.idle",
        takes: "DURATION",
        help: "How long an answer that has begun may be silent (0s: without limit)",
        secret: false,
        set: |draft, value| duration(value).map(|within| draft.config.timeouts.idle = within),
        show: |config| shown_duration(config.timeouts.idle),
    },
    Setting {
        key: "heartbeat.after",
        takes: "DURATION",
        help: "How long a stream waits for the remote before its head goes out; a refusal within keeps its HTTP status",
        secret: false,
        set: |draft, value| duration(value).map(|after| draft.config.heartbeat.after = after),
        show: |config| shown_duration(config.heartbeat.after),
    },
    Setting {
        key: "heartbeat.every",
        takes: "DURATION",
        help: "How often a silent stream gets a comment that keeps it alive (0s: never)",
        secret: false,
        set: |draft, value| duration(value).map(|every| draft.config.heartbeat.every = every),
        show: |config| shown_duration(config.heartbeat.every),
    },
    Setting {
        key: "limits.body",
        takes: "SIZE",
        help: "Largest request body on the OpenAI routes; native requests stream and have no bound",
        secret: false,
        set: |draft, value| bytes(value).map(|bytes| draft.config.limits.body = bytes),
        show: |config| shown_bytes(config.limits.body),
    },
    Setting {
        key: "limits.fields",
        takes: "COUNT",
        help: "Maximum number of fields in one object of a request body on the OpenAI routes, and of parts in a form (0: unlimited)",
        secret: false,
        set: |draft, value| number(value).map(|max| draft.config.limits.fields = max),
        show: |config| Shown::Value(config.limits.fields.to_string()),
    },
    Setting {
        key: "limits.native_body",
        takes: "SIZE",
        help: "Largest request body on the native routes (0: without limit)",
        secret: false,
        set: |draft, value| bytes(value).map(|bytes| draft.config.limits.native_body = bytes),
        show: |config| shown_bytes(config.limits.native_body),
    },
    Setting {
        key: "limits.head",
        takes: "SIZE",
        help: "Largest head of a request, 8KiB at least",
        secret: false,
        set: |draft, value| match bytes(value)? {
            small if small < 8 << 10 => Err(format!("{small} bytes are too few for a head; give 8KiB at least")),
            bytes => {
                draft.config.limits.head = bytes;
                Ok(())
            }
        },
        show: |config| shown_bytes(config.limits.head),
    },
    Setting {
        key: "limits.head_time",
        takes: "DURATION",
        help: "How long a request's head may take once it has begun (0s: as long as a connection may be idle)",
        secret: false,
        set: |draft, value| duration(value).map(|within| draft.config.limits.head_time = within),
        show: |config| shown_duration(config.limits.head_time),
    },
    Setting {
        key: "limits.body_idle",
        takes: "DURATION",
        help: "How long a client may be silent in the middle of a request's body (0s: without limit)",
        secret: false,
        set: |draft, value| duration(value).map(|within| draft.config.limits.body_idle = within),
        show: |config| shown_duration(config.limits.body_idle),
    },
    Setting {
        key: "limits.body_rate",
        takes: "SIZE",
        help: "Lowest rate, in bytes per second, at which a request body must arrive, after a minute of waiting for it (0: no lowest rate)",
        secret: false,
        set: |draft, value| bytes(value).map(|rate| draft.config.limits.body_rate = rate as u64),
        show: |config| shown_bytes(config.limits.body_rate as usize),
    },
    Setting {
        key: "limits.write_idle",
        takes: "DURATION",
        help: "How long a client may read nothing of its response while there is more to write (0s: without limit)",
        secret: false,
        set: |draft, value| duration(value).map(|within| draft.config.limits.write_idle = within),
        show: |config| shown_duration(config.limits.write_idle),
    },
    Setting {
        key: "limits.idle",
        takes: "DURATION",
        help: "How long a client's connection may be idle (0s: without limit)",
        secret: false,
        set: |draft, value| duration(value).map(|within| draft.config.limits.idle = within),
        show: |config| shown_duration(config.limits.idle),
    },
    Setting {
        key: "limits.connections",
        takes: "COUNT",
        help: "Clients' connections at the same time; one more evicts the one that has been idle for the longest (0: without limit)",
        secret: false,
        set: |draft, value| number(value).map(|most| draft.config.limits.connections = most),
        show: |config| Shown::Value(config.limits.connections.to_string()),
    },
    Setting {
        key: "limits.connections_per_address",
        takes: "COUNT",
        help: "Connections of one client address at the same time; one more evicts its longest idle one, or is answered 503 (0: without limit)",
        secret: false,
        set: |draft, value| number(value).map(|most| draft.config.limits.connections_per_address = most),
        show: |config| Shown::Value(config.limits.connections_per_address.to_string()),
    },
    Setting {
        key: "limits.connections_per_key",
        takes: "COUNT",
        help: "Requests of one key in flight at the same time, unread bodies included; one more is answered 503 (0: without limit)",
        secret: false,
        set: |draft, value| number(value).map(|most| draft.config.limits.connections_per_key = most),
        show: |config| Shown::Value(config.limits.connections_per_key.to_string()),
    },
    Setting {
        key: "auth.enabled",
        takes: "true|false",
        help: "Asks every request for one of the keys in auth.tokens",
        secret: false,
        set: |draft, value| boolean(value).map(|on| draft.config.auth.enabled = on),
        show: |config| Shown::Value(config.auth.enabled.to_string()),
    },
    Setting {
        key: "auth.header",
        takes: "NAME",
        help: "The header that holds a caller's key; a Bearer token is taken too",
        secret: false,
        set: |draft, value| key_header(value).map(|header| draft.config.auth.header = header),
        show: |config| quoted(config.auth.header.as_str()),
    },
    Setting {
        key: "auth.tokens",
        takes: "KEY,…",
        help: "The callers' keys; in the file with names, limits and allow-lists",
        secret: true,
        set: |draft, value| tokens::plain(value).map(|tokens| draft.config.auth.tokens = tokens),
        show: |config| Shown::Value(tokens::shown(&config.auth.tokens)),
    },
    Setting {
        key: "auth.exempt",
        takes: "PATH,…",
        help: "Paths that need no key, such as /api/version",
        secret: false,
        set: |draft, value| tokens::routes(value).map(|routes| draft.config.auth.exempt = routes),
        show: |config| Shown::Value(format!("{:?}", config.auth.exempt)),
    },
    Setting {
        key: "quota.window",
        takes: "DURATION",
        help: "The sliding window that limit_per_minute counts in",
        secret: false,
        set: |draft, value| {
            draft.config.quota.window = lasting(value, "a window needs a length, such as \"60s\"")?;
            Ok(())
        },
        show: |config| shown_duration(config.quota.window),
    },
    Setting {
        key: "quota.max_concurrent",
        takes: "COUNT",
        help: "Requests at the same time in all (0: without limit)",
        secret: false,
        set: |draft, value| number(value).map(|most| draft.config.quota.max_concurrent = most),
        show: |config| Shown::Value(config.quota.max_concurrent.to_string()),
    },
    Setting {
        key: "quota.queue",
        takes: "COUNT",
        help: "Requests that may wait for a place; further ones get a 429",
        secret: false,
        set: |draft, value| number(value).map(|most| draft.config.quota.queue = most),
        show: |config| Shown::Value(config.quota.queue.to_string()),
    },
    Setting {
        key: "quota.wait",
        takes: "DURATION",
        help: "How long one may wait for a place before it gets a 429 (0s: without limit)",
        secret: false,
        set: |draft, value| duration(value).map(|wait| draft.config.quota.wait = wait),
        show: |config| shown_duration(config.quota.wait),
    },
    Setting {
        key: "origins",
        takes: "ORIGIN,…",
        help: "Browser pages that may call, besides those that Ollama allows by default (one * in each at most)",
        secret: false,
        set: |draft, value| {
            let origins = list(value)?;
            if let Some(wrong) = origins
                .iter()
                .find(|origin| origin.matches('*').count() > 1 || !(origin.contains("://") || *origin == "*"))
            {
                return Err(format!(
                    "{wrong:?} is no origin such as \"https://chat.example\" or \"chrome-extension://*\""
                ));
            }
            draft.config.origins = origins;
            Ok(())
        },
        show: |config| Shown::Value(toml::Value::from(config.origins.clone()).to_string()),
    },
    Setting {
        key: "log.level",
        takes: "LEVEL",
        help: "error, warn, info (a line each request), debug (payloads and each SSE frame) or trace",
        secret: false,
        set: |draft, value| {
            draft.config.log.level = match &*text(value)? {
                "error" => LogLevel::Error,
                "warn" => LogLevel::Warn,
                "info" => LogLevel::Info,
                "debug" => LogLevel::Debug,
                "trace" => LogLevel::Trace,
                other => return Err(format!("{other:?} is none of error, warn, info, debug, trace")),
            };
            Ok(())
        },
        show: |config| {
            quoted(match config.log.level {
                LogLevel::Error => "error",
                LogLevel::Warn => "warn",
                LogLevel::Info => "info",
                LogLevel::Debug => "debug",
                LogLevel::Trace => "trace",
            })
        },
    },
    Setting {
        key: "log.format",
        takes: "text|json",
        help: "How a log line looks",
        secret: false,
        set: |draft, value| {
            draft.config.log.format = match &*text(value)? {
                "text" => LogFormat::Text,
                "json" => LogFormat::Json,
                other => return Err(format!("{other:?} is neither \"text\" nor \"json\"")),
            };
            Ok(())
        },
        show: |config| {
            quoted(match config.log.format {
                LogFormat::Text => "text",
                LogFormat::Json => "json",
            })
        },
    },
];

/// The setting with that name in the file.
pub(super) fn find(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
}
