//! From the sources to one checked [`Config`]: file, then environment, then flags; a later one wins. All mistakes are
//! reported at once.

use std::{borrow::Cow, collections::HashMap, fmt, fs, io, ops::Range, path::PathBuf};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{Config, Protocol, Proxy, models, remote, remotes, tokens, vscode};
use crate::config::{
    settings::{Draft, SECTIONS, SETTINGS, Setting, find},
    value::Value,
};
use crate::near::nearest;

/// Where settings may come from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// A file that must be there.
    pub file: Option<PathBuf>,
    /// A file that is read if it is there.
    pub usual_file: Option<PathBuf>,
    /// Environment variables; those that do not begin with `FARLLAMA_` are passed over.
    pub environment: Vec<(String, String)>,
    /// Flags: a setting's key and its value.
    pub flags: Vec<(&'static str, String)>,
}

impl Sources {
    /// The file that the settings are read from, or would be.
    #[must_use]
    pub fn path(&self) -> Option<&PathBuf> {
        self.file.as_ref().or(self.usual_file.as_ref())
    }
}

/// A checked configuration, and where each of its values came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What looks wrong, but can be used.
    pub warnings: Vec<String>,
    /// The file that was read, if there was one.
    pub file: Option<PathBuf>,
    places: HashMap<&'static str, Place>,
    /// Where the entries of `[models]` stand, by name.
    models: HashMap<String, Place>,
}

impl Loaded {
    /// Where the value of `setting` came from, for people: `default`, `farllama.toml:3:8`, `FARLLAMA_REMOTE_HOST`,
    /// `--remote-host`.
    #[must_use]
    pub fn origin(&self, setting: &Setting) -> String {
        self.places.get(setting.key).map_or_else(|| "default".to_owned(), ToString::to_string)
    }

    /// Where an entry of `[models]` came from. Those that stand nowhere else came with `models.aliases`.
    pub(super) fn origin_of_model(&self, name: &str) -> String {
        let place = self.models.get(name).or_else(|| self.places.get("models.aliases"));
        place.map_or_else(|| "default".to_owned(), ToString::to_string)
    }

    /// Whether any source names the remote: its host or URL, or another port on this machine.
    #[must_use]
    pub fn names_remote(&self) -> bool {
        ["remotes"].iter().chain(&NAMES_REMOTE).any(|key| self.places.contains_key(key))
    }
}

/// The settings that name the remote of `[remote]`.
const NAMES_REMOTE: [&str; 3] = ["remote.host", "remote.url", "remote.port"];

/// Where a value stands.
#[derive(Clone, Debug)]
pub(super) enum Place {
    File { path: String, line: usize, column: usize },
    Variable(String),
    Flag(String),
}

impl Place {
    /// Higher for a later source.
    pub(super) fn rank(&self) -> u8 {
        match self {
            Self::File { .. } => 0,
            Self::Variable(_) => 1,
            Self::Flag(_) => 2,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line, column } => write!(f, "{path}:{line}:{column}"),
            Self::Variable(name) => f.write_str(name),
            Self::Flag(name) => write!(f, "--{name}"),
        }
    }
}

/// Every mistake in the settings, each with its place: file, line and column, variable, or flag.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct Error(Vec<String>);

impl Error {
    pub(super) fn new(what: String) -> Self {
        Self(vec![what])
    }

    /// The mistakes, one text each.
    #[must_use]
    pub fn mistakes(&self) -> &[String] {
        &self.0
    }
}

impl Config {
    /// Reads settings from the text of a file, without environment and flags.
    ///
    /// # Errors
    /// Fails with every mistake, each with line and column.
    pub fn from_toml(text: &str) -> Result<Self, Error> {
        let mut loader = Loader::default();
        loader.file("settings", text);
        Ok(loader.finish()?.config)
    }
}

/// Reads all `sources`.
///
/// # Errors
/// Fails with every mistake, each with its place.
pub fn load(sources: &Sources) -> Result<Loaded, Error> {
    let mut loader = Loader { environment: sources.environment.clone(), ..Loader::default() };
    let in_environment = sources.environment.iter().find(|(name, _)| name == "FARLLAMA_REMOTE_KIND");
    let flag = sources.flags.iter().rfind(|(key, _)| *key == "remote.kind");
    loader.kind = flag.map(|(_, value)| value).or(in_environment.map(|(_, value)| value)).cloned();
    if let Some(path) = sources.file.as_ref().or(sources.usual_file.as_ref()) {
        match fs::read_to_string(path) {
            Ok(text) => {
                if path.extension().is_some_and(|extension| extension == "json" || extension == "jsonc") {
                    loader.vscode(&path.to_string_lossy(), &text);
                } else {
                    loader.file(&path.to_string_lossy(), &text);
                }
                loader.read = Some(path.clone());
            }
            // A file that is read only if it is there.
            Err(error) if error.kind() == io::ErrorKind::NotFound && sources.file.is_none() => {}
            Err(error) => loader.mistakes.push(format!("{}: cannot read this file: {error}", path.display())),
        }
    }
    loader.expect_kind(&DeTable::new());
    for (name, value) in &sources.environment {
        loader.variable(name, value);
    }
    for (key, value) in &sources.flags {
        if let Some(setting) = find(key) {
            loader.set(setting, value.clone(), Place::Flag(setting.flag()));
        }
    }
    loader.keys_file();
    loader.finish()
}

#[derive(Default)]
struct Loader {
    draft: Draft,
    places: HashMap<&'static str, Place>,
    models: HashMap<String, Place>,
    mistakes: Vec<String>,
    warnings: Vec<String>,
    /// What a later source says that the remote speaks, which decides what an address may look like.
    kind: Option<String>,
    /// Where `key_env` looks.
    environment: Vec<(String, String)>,
    /// The file that was read.
    read: Option<PathBuf>,
}

impl Loader {
    /// Takes a value from a variable or a flag, whose name says which setting it is.
    fn set(&mut self, setting: &'static Setting, value: String, place: Place) {
        match setting.set(&mut self.draft, Value::Text(value)) {
            Ok(()) => {
                self.places.insert(setting.key, place);
            }
            Err(wrong) => self.mistakes.push(format!("{place}: {wrong}")),
        }
    }

    fn variable(&mut self, name: &str, value: &str) {
        if !name.starts_with("FARLLAMA_") || name == "FARLLAMA_CONFIG" {
            return;
        }
        let known = |setting: &&Setting| setting.variable() == name;
        let old = || find("auth.tokens").filter(|_| name == "FARLLAMA_AUTH_TOKENS");
        if let Some(setting) = SETTINGS.iter().find(known).or_else(old) {
            return self.set(setting, value.to_owned(), Place::Variable(name.to_owned()));
        }
        let names: Vec<_> = SETTINGS.iter().map(Setting::variable).collect();
        let near = nearest(name, names.iter().map(String::as_str));
        let near = near.map_or(String::new(), |near| format!(". Did you mean {near}?"));
        self.warnings.push(format!("unknown environment variable {name}{near}"));
    }

    fn file(&mut self, path: &str, text: &str) {
        let source = Source { path, text };
        let (table, errors) = DeTable::parse_recoverable(text);
        let mut lines = Vec::new();
        for error in &errors {
            let line = error.span().map(|span| source.line_and_column(span.start).0);
            // One slip often makes several errors in its line.
            if !lines.contains(&line) {
                lines.push(line);
                self.mistakes.push(source.broken(error, table.get_ref()));
            }
        }
        self.expect_kind(table.get_ref());
        // What follows a broken line may stand in another table than it seems.
        if errors.iter().all(is_duplicate) {
            self.table(&source, "", table.get_ref());
        }
    }

    /// Reads `remote.kind` before anything else: an address may stand in front of it.
    fn expect_kind(&mut self, table: &DeTable<'_>) {
        let given = table.get("remote").and_then(|remote| match remote.get_ref() {
            DeValue::Table(remote) => remote.get("kind")?.get_ref().as_str().map(str::to_owned),
            _ => None,
        });
        if let (Some(kind), Some(setting)) = (self.kind.clone().or(given), find("remote.kind")) {
            // What is wrong with it is reported where it stands.
            let _ = setting.set(&mut self.draft, Value::Text(kind));
        }
    }

    /// Takes the settings that stand in a `settings.json` of VS Code.
    fn vscode(&mut self, path: &str, text: &str) {
        let source = Source { path, text };
        let entries = match vscode::read(text) {
            Ok(entries) => entries,
            Err(wrong) => return self.mistakes.push(format!("{path}: {wrong}")),
        };
        for vscode::Entry { name, at, setting, value } in entries {
            let wrong = |what: &str| source.hidden(at..at, what);
            let setting = match setting {
                Ok(setting) => setting,
                Err(near) => {
                    self.mistakes.push(wrong(&format!("unknown setting {name}{near}")));
                    continue;
                }
            };
            let (line, column) = source.line_and_column(at);
            self.places.insert(setting.key, Place::File { path: path.to_owned(), line, column });
            if let Err(what) = value.and_then(|value| setting.set(&mut self.draft, value)) {
                self.mistakes.push(wrong(&format!("{name}: {what}")));
            }
        }
    }

    fn table(&mut self, source: &Source<'_>, prefix: &str, table: &DeTable<'_>) {
        for (name, value) in table {
            let key =
                if prefix.is_empty() { name.get_ref().to_string() } else { format!("{prefix}.{}", name.get_ref()) };
            match (find(&key), value.get_ref()) {
                (Some(setting), given) => {
                    let (line, column) = source.line_and_column(value.span().start);
                    self.places.insert(setting.key, Place::File { path: source.path.to_owned(), line, column });
                    match given {
                        DeValue::Array(items) if setting.key == "auth.keys" && items.iter().all(is_table) => {
                            self.keys(source, items);
                        }
                        DeValue::Array(items) if setting.key == "remotes" && items.iter().all(is_table) => {
                            self.remotes(source, items);
                        }
                        _ => {
                            let set = value_of(value).and_then(|value| setting.set(&mut self.draft, value));
                            if let Err(wrong) = set {
                                let text = format!("{key}: {wrong}");
                                let point = if setting.secret { Source::hidden } else { Source::wrong };
                                self.mistakes.push(point(source, value.span(), &text));
                            }
                        }
                    }
                }
                (None, DeValue::Table(inner)) if SETTINGS.iter().any(|setting| setting.section() == key) => {
                    self.table(source, &key, inner);
                }
                (None, DeValue::Table(fields)) if prefix == "models" => self.model(source, name, fields),
                (None, _) => self.mistakes.push(source.wrong(name.span(), &unknown(&key, prefix))),
            }
        }
    }

    /// An alias or a preset: a table of its own.
    fn model(&mut self, source: &Source<'_>, name: &Spanned<Cow<'_, str>>, fields: &DeTable<'_>) {
        let (model, before) = (&**name.get_ref(), self.mistakes.len());
        let mut draft = models::Draft::default();
        for (name, value) in fields {
            let known = || models::FIELDS.iter().map(|(field, _)| *field);
            let Some((field, set)) = models::FIELDS.iter().find(|(field, _)| *field == name.get_ref()) else {
                let near = match nearest(name.get_ref(), known()) {
                    Some(near) => format!("did you mean {near}?"),
                    None => format!("there are {}", known().collect::<Vec<_>>().join(", ")),
                };
                let what = format!("models.{model:?}: unknown field {}; {near}", name.get_ref());
                self.mistakes.push(source.wrong(name.span(), &what));
                continue;
            };
            if let Err(what) = set(&mut draft, value.get_ref()) {
                self.mistakes.push(source.wrong(value.span(), &format!("models.{model:?}.{field}: {what}")));
            }
        }
        if self.mistakes.len() > before {
            return;
        }
        match self.draft.config.models.add(model, draft) {
            Ok(()) => {
                let (line, column) = source.line_and_column(name.span().start);
                self.models.insert(model.to_owned(), Place::File { path: source.path.to_owned(), line, column });
            }
            Err(what) => self.mistakes.push(source.wrong(name.span(), &format!("models.{model:?}: {what}"))),
        }
    }

    /// The callers' keys, each a table of its own.
    fn keys(&mut self, source: &Source<'_>, items: &[Spanned<DeValue<'_>>]) {
        let mut found = Vec::new();
        for (at, item) in items.iter().enumerate() {
            let mut draft = tokens::Draft::default();
            let DeValue::Table(table) = item.get_ref() else { continue };
            let before = self.mistakes.len();
            for (name, value) in table {
                let wrong = |span, what: &str| source.hidden(span, &format!("auth.keys: {what}"));
                let Some((field, set)) = tokens::FIELDS.iter().find(|(field, _)| *field == name.get_ref()) else {
                    let known: Vec<_> = tokens::FIELDS.iter().map(|(field, _)| *field).collect();
                    let what = format!("unknown field {}; there are {}", name.get_ref(), known.join(", "));
                    self.mistakes.push(wrong(name.span(), &what));
                    continue;
                };
                let set = value_of(value).and_then(|given| set(&mut draft, given, &self.environment));
                if let Err(what) = set {
                    self.mistakes.push(wrong(value.span(), &format!("{field}: {what}")));
                }
            }
            if self.mistakes.len() > before {
                continue;
            }
            match draft.finish(at + 1) {
                Ok(token) => found.push(token),
                Err(what) => self.mistakes.push(source.hidden(item.span(), &format!("auth.keys: {what}"))),
            }
        }
        self.draft.config.auth.tokens = found;
    }

    /// Adds the keys of `auth.keys_file` to those of the settings.
    fn keys_file(&mut self) {
        let Some(path) = self.draft.config.auth.keys_file.clone() else { return };
        let path = path.to_string_lossy();
        let text = match fs::read_to_string(&*path) {
            Ok(text) => text,
            Err(error) => {
                let at = self.places.get("auth.keys_file").map_or(String::new(), |place| format!("{place}: "));
                return self.mistakes.push(format!("{at}auth.keys_file: cannot read {path}: {error}"));
            }
        };
        let source = Source { path: &path, text: &text };
        let (table, errors) = DeTable::parse_recoverable(&text);
        self.mistakes
            .extend(errors.iter().take(1).map(|error| source.hidden(error.span().unwrap_or(0..0), error.message())));
        let settings = std::mem::take(&mut self.draft.config.auth.tokens);
        for (name, value) in table.get_ref() {
            match value.get_ref() {
                DeValue::Array(items) if name.get_ref() == "keys" && items.iter().all(is_table) => {
                    self.keys(&source, items);
                }
                _ => self.mistakes.push(source.hidden(
                    name.span(),
                    &format!("auth.keys_file: unknown field {}; expected [[keys]] tables alone", name.get_ref()),
                )),
            }
        }
        self.draft.config.auth.tokens.splice(0..0, settings);
    }

    /// The remotes, each a table of its own.
    fn remotes(&mut self, source: &Source<'_>, items: &[Spanned<DeValue<'_>>]) {
        let mut found = Vec::new();
        for (at, item) in items.iter().enumerate() {
            let mut entry = remotes::Entry::default();
            let DeValue::Table(table) = item.get_ref() else { continue };
            let before = self.mistakes.len();
            // What a remote speaks decides what its address may look like.
            let (kind, others): (Vec<_>, Vec<_>) = table.iter().partition(|(name, _)| name.get_ref() == "kind");
            for (name, value) in kind.into_iter().chain(others) {
                let field = name.get_ref();
                let (line, column) = source.line_and_column(value.span().start);
                let place = Place::File { path: source.path.to_owned(), line, column };
                let set = value_of(value).and_then(|given| entry.set(field, given, place));
                if let Err(what) = set {
                    let point = if remotes::is_secret(field) { Source::hidden } else { Source::wrong };
                    self.mistakes.push(point(source, value.span(), &format!("remotes: {field}: {what}")));
                }
            }
            if self.mistakes.len() > before {
                continue;
            }
            match entry.finish(at + 1) {
                Ok(remote) => found.push(remote),
                Err(Error(wrong)) => {
                    self.mistakes.extend(wrong.into_iter().map(|what| source.hidden(item.span(), &what)));
                }
            }
        }
        self.draft.config.remotes = found;
    }

    /// Puts the parts together, and checks what no single setting can.
    fn finish(self) -> Result<Loaded, Error> {
        let Self { draft, mut places, models, mut mistakes, mut warnings, kind: _, environment, read } = self;
        if !mistakes.is_empty() {
            return Err(Error(mistakes));
        }
        let mut config = draft.config.clone();
        match remote::join(draft, &mut places) {
            Ok(remote) => config.remote = remote,
            Err(Error(wrong)) => mistakes.extend(wrong),
        }
        let named = NAMES_REMOTE.iter().any(|key| places.contains_key(key));
        if let Err(wrong) = proxy_of_environment(&mut config.remote, &environment, &mut places) {
            mistakes.push(wrong);
        }
        for entry in &mut config.remotes {
            if let Err(wrong) = proxy_of_environment(&mut entry.remote, &environment, &mut HashMap::new()) {
                mistakes.push(wrong);
            }
        }
        let at = |key: &str| places.get(key).map_or(String::new(), |place| format!("{place}: "));
        // A flag and a variable name the setting themselves.
        let named_at = |key: &str| match places.get(key) {
            Some(place @ Place::File { .. }) => format!("{place}: {key}: "),
            Some(place) => format!("{place}: "),
            None => format!("{key}: "),
        };
        if let Err(wrong) = remotes::join(&mut config, named) {
            mistakes.push(format!("{}{wrong}", named_at("remotes")));
        }
        for (name, what) in config.models.finish().err().unwrap_or_default() {
            let place = models.get(&name).map_or_else(|| at("models.aliases"), |place| format!("{place}: "));
            mistakes.push(format!("{place}models.{name:?}: {what}"));
        }
        if config.models.default.contains('*') {
            let default = &config.models.default;
            mistakes.push(format!("{}invalid name {default:?}: expected one model", named_at("models.default")));
        }
        if config.local.tls_cert.is_some() != config.local.tls_key.is_some() {
            mistakes.push(format!(
                "{}local.tls_cert and local.tls_key belong together: set both, or neither",
                at(if config.local.tls_cert.is_some() { "local.tls_cert" } else { "local.tls_key" })
            ));
        }
        for entry in config.every_remote() {
            let at = |key: &str| if entry.section { at(key) } else { format!("remotes: {}: ", entry.name) };
            let remote::Checked { wrong, odd } = remote::check(&entry.remote, &at);
            mistakes.extend(wrong);
            warnings.extend(odd);
        }
        if config.every_remote().iter().any(|entry| !entry.remote.verify) {
            warnings.push(
                "remote.verify is false: THE REMOTE'S CERTIFICATE IS NOT VERIFIED; anyone on the way can read and change everything"
                    .to_owned(),
            );
        }
        let auth = &config.auth;
        if let Err(wrong) = tokens::check(&auth.tokens) {
            mistakes.push(format!("{}{wrong}", named_at("auth.keys")));
        }
        match (auth.enabled, auth.tokens.is_empty()) {
            (true, true) => mistakes.push(format!(
                "{}auth.enabled is true, but auth.keys has no key: create one with `farllama key new --name NAME --save`",
                at("auth.enabled")
            )),
            (false, false) => {
                warnings.push("auth.keys has keys, but auth.enabled is false: no key is required".to_owned());
            }
            _ => {}
        }
        let loopback = config.admin.host.eq_ignore_ascii_case("localhost")
            || config.admin.host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
        if config.admin.enabled && !loopback && config.admin.token.0.is_empty() {
            mistakes.push(format!(
                "{}admin.host {:?} is not loopback: set admin.token, or anyone on the network could steer this proxy",
                at("admin.host"),
                config.admin.host
            ));
        }
        if auth.enabled && config.remote.forward_auth {
            mistakes.push(format!(
                "{}remote.forward_auth would send the callers' keys to the remote: with auth.enabled it must be false",
                at("remote.forward_auth")
            ));
        }
        if mistakes.is_empty() {
            Ok(Loaded { config, warnings, file: read, places, models })
        } else {
            Err(Error(mistakes))
        }
    }
}

/// Uses the proxy that the environment names, unless the settings say how the remote is reached.
///
/// # Errors
/// Fails if such a variable has a value that cannot be used.
pub(super) fn proxy_of_environment(
    remote: &mut super::Remote,
    environment: &[(String, String)],
    places: &mut HashMap<&'static str, Place>,
) -> Result<(), String> {
    let reach = &mut remote.reach;
    if reach.proxy.is_some() || reach.no_proxy || reach.ssh.is_some() {
        return Ok(());
    }
    match Proxy::of_environment(environment, remote.protocol == Protocol::Https, &remote.host) {
        Ok(None) => {}
        Ok(Some((name, proxy))) => {
            places.insert("remote.proxy", Place::Variable(name.to_owned()));
            reach.proxy = Some(proxy);
        }
        Err((name, wrong)) => {
            return Err(format!("{name}: {wrong}; to ignore this variable, set remote.proxy to \"none\""));
        }
    }
    Ok(())
}

/// Says what there is instead of the setting `key`, which stands in `table`.
fn unknown(key: &str, table: &str) -> String {
    let meant = |near: &str| format!("unknown setting {key}: did you mean {near}?");
    let within = || SETTINGS.iter().filter(|setting| setting.section() == table).map(|setting| setting.key);
    if table == "models" && nearest(name_of(key), within().map(name_of)).is_none() {
        let name = key.strip_prefix("models.").unwrap_or(key);
        return format!(
            "unknown setting {key}: an alias is a table: write [models.{name:?}] and, below it, to = \"MODEL\""
        );
    }
    if !table.is_empty() {
        // Compared without the table: it makes all names in it alike.
        return match nearest(name_of(key), within().map(name_of)) {
            Some(near) => meant(&format!("{table}.{near}")),
            None => {
                format!("unknown setting {key}: [{table}] has {}", within().map(name_of).collect::<Vec<_>>().join(", "))
            }
        };
    }
    let tables = || SECTIONS.iter().map(|(name, _)| *name).filter(|name| !name.is_empty());
    if let Some(first) = SETTINGS.iter().find(|setting| setting.section() == key) {
        let first = name_of(first.key);
        return format!(
            "{key} is a section: write [{key}] on a line of its own, and its settings below it, such as {first} = …"
        );
    }
    let named: Vec<_> = SETTINGS.iter().map(|setting| setting.key).filter(|known| name_of(known) == key).collect();
    if !named.is_empty() {
        return meant(&named.join(" or "));
    }
    if let Some(near) = nearest(key, tables().chain(SETTINGS.iter().map(|setting| setting.key))) {
        return meant(near);
    }
    let known: Vec<_> = tables().map(|name| format!("[{name}]")).chain(within().map(str::to_owned)).collect();
    format!("unknown setting {key}: there are {}", known.join(", "))
}

/// The last part of a key.
fn name_of(key: &str) -> &str {
    key.rsplit('.').next().unwrap_or(key)
}

fn is_duplicate(error: &toml::de::Error) -> bool {
    error.message().starts_with("duplicate key")
}

fn is_table(value: &Spanned<DeValue<'_>>) -> bool {
    matches!(value.get_ref(), DeValue::Table(_))
}

fn value_of(value: &Spanned<DeValue<'_>>) -> Result<Value, String> {
    let scalar = |value: &DeValue<'_>| match value {
        DeValue::String(text) => Ok(text.to_string()),
        other => Err(format!("expected a string, got {}", other.type_str())),
    };
    Ok(match value.get_ref() {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) => {
            let parsed = i64::from_str_radix(number.as_str(), number.radix());
            Value::Integer(parsed.map_err(|_| format!("{} is out of range", number.as_str()))?)
        }
        DeValue::Boolean(on) => Value::Boolean(*on),
        // A date without quotes.
        DeValue::Datetime(at) => Value::Text(at.to_string()),
        DeValue::Array(items) => {
            Value::List(items.iter().map(|item| scalar(item.get_ref())).collect::<Result<_, _>>()?)
        }
        DeValue::Table(table) => Value::Table(
            table
                .iter()
                .map(|(name, value)| Ok((name.get_ref().to_string(), scalar(value.get_ref())?)))
                .collect::<Result<_, String>>()?,
        ),
        other => return Err(format!("a {} is not expected here", other.type_str())),
    })
}

/// A file's text, to point into.
struct Source<'a> {
    path: &'a str,
    text: &'a str,
}

impl Source<'_> {
    /// Both from 1.
    fn line_and_column(&self, at: usize) -> (usize, usize) {
        let before = &self.text[..at.min(self.text.len())];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        (line, column)
    }

    /// Points at a place whose text must not be shown.
    fn hidden(&self, span: Range<usize>, message: &str) -> String {
        let (line, column) = self.line_and_column(span.start);
        format!("{}:{line}:{column}: {message}", self.path)
    }

    /// Points at a place and shows its line as far as it goes, unless that has to do with a secret.
    fn wrong(&self, span: Range<usize>, message: &str) -> String {
        let text = self.hidden(span.clone(), message);
        let (line, column) = self.line_and_column(span.start);
        let whole = self.text.lines().nth(line - 1).unwrap_or_default();
        let pointed = self.text.get(span).unwrap_or_default().lines().next().unwrap_or_default();
        let length = pointed.chars().count().max(1);
        let shown: String = whole.chars().take(column - 1 + length).collect();
        if hints_at_a_secret(&shown) {
            return text;
        }
        let more = if shown.len() < whole.trim_end().len() { " …" } else { "" };
        let margin = " ".repeat(line.to_string().len());
        let carets = format!("{}{}", " ".repeat(column - 1), "^".repeat(length));
        format!("{text}\n{margin} |\n{line} | {shown}{more}\n{margin} | {carets}")
    }

    /// Describes text that is not TOML. What is a secret in it is not known, so a table that may have one is not shown.
    /// `table` is what was understood: of two equal keys it has the first.
    fn broken(&self, error: &toml::de::Error, table: &DeTable<'_>) -> String {
        let Some(span) = error.span() else { return format!("{}: {}", self.path, error.message()) };
        let (line, _) = self.line_and_column(span.start);
        let first = is_duplicate(error).then(|| self.first(span.clone(), table)).flatten();
        let message = match first {
            Some((name, line)) => format!("duplicate key `{name}`; the first one is in line {line}"),
            None => error.message().to_owned(),
        };
        let before: Vec<&str> = self.text.lines().take(line).collect();
        let table = before.iter().rposition(|text| text.starts_with('[')).unwrap_or_default();
        if before[table..].iter().any(|text| hints_at_a_secret(text)) {
            return self.hidden(span, &message);
        }
        self.wrong(span, &message)
    }

    /// The name of the key that stands at `span` for the second time, and the line of the first.
    fn first(&self, span: Range<usize>, table: &DeTable<'_>) -> Option<(String, usize)> {
        fn find(table: &DeTable<'_>, name: &str, before: usize) -> Option<usize> {
            let own = table.iter().filter(|(key, _)| key.get_ref() == name && key.span().start < before);
            let own = own.map(|(key, _)| key.span().start);
            let inner = table.iter().filter_map(|(_, value)| match value.get_ref() {
                DeValue::Table(inner) => find(inner, name, before),
                _ => None,
            });
            // Between the two there is no other table's key of that name.
            own.chain(inner).max()
        }
        let name = self.text.get(span.clone())?.trim_matches(['"', '\'', '[', ']']).rsplit('.').next()?.trim();
        let header =
            |line: &str| line.trim().strip_prefix('[').is_some_and(|rest| rest.starts_with(&format!("{name}]")));
        let line = match self.text[..span.start].lines().position(header) {
            Some(before) if self.text[..span.start].ends_with('[') => before + 1,
            _ => self.line_and_column(find(table, name, span.start)?).0,
        };
        Some((name.to_owned(), line))
    }
}

fn hints_at_a_secret(text: &str) -> bool {
    let text = text.to_lowercase();
    let secret = SETTINGS.iter().filter(|setting| setting.secret).filter_map(|setting| setting.key.rsplit('.').next());
    ["key", "authorization", "@"].into_iter().chain(secret).any(|word| text.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Protocol, Remote};

    fn reported(text: &str) -> String {
        Config::from_toml(text).unwrap_err().to_string()
    }

    #[test]
    fn a_wrong_value_is_reported_with_file_line_column_and_a_caret() {
        let reported = reported("[local]\nhost = \"::1\"\nport = \"high\"\n");
        assert_eq!(
            reported,
            "settings:3:8: local.port: invalid port \"high\": expected a number from 0 to 65535\n  |\n3 | port = \"high\"\n  |        ^^^^^^"
        );
    }

    #[test]
    fn an_unknown_name_is_reported_with_the_nearest() {
        assert!(
            reported("[remote]\nhots = \"x\"")
                .starts_with("settings:2:1: unknown setting remote.hots: did you mean remote.host?")
        );
        assert!(reported("remote = \"gpu-box\"").contains("remote is a section: write [remote] on a line of its own"));
        let host = reported("host = \"gpu-box\"");
        assert!(host.contains("did you mean local.host or remote.host"), "{host}");
        let unknown = reported("[zzz]\na = 1");
        assert!(unknown.contains("there are [local], [remote],") && !unknown.contains("local.host"), "{unknown}");
        assert!(reported("[heartbeat]\nzzz = 1").contains("[heartbeat] has after, every"));
    }

    #[test]
    fn all_mistakes_are_reported_at_once() {
        let error = Config::from_toml(
            "[local]\nport = \"x\"\nhots = 1\n[limits]\nbody = \"10MB\"\nidle = \"5\"\n[zzz]\n[auth]\nkeys = [{ key = 1 }, {}]\n",
        )
        .unwrap_err();
        let lines: Vec<_> = error.mistakes().iter().map(|wrong| wrong.split(':').nth(1).unwrap()).collect();
        assert_eq!(lines.len(), 7, "{error}");
        for line in ["2", "3", "5", "6", "7", "9"] {
            assert!(lines.contains(&line), "{line}: {error}");
        }
        let crossed = Config::from_toml("[auth]\nenabled = true\n[local]\ntls_cert = \"c\"\n").unwrap_err();
        assert_eq!(crossed.mistakes().len(), 2, "{crossed}");
    }

    #[test]
    fn a_second_table_or_key_is_reported_with_the_first() {
        let twice = reported("[local]\nport = 1\n\n[local]\nhost = \"::1\"\n");
        assert!(twice.starts_with("settings:4:") && twice.contains("`local`; the first one is in line 1"), "{twice}");
        let twice = reported("[local]\nhost = \"a\"\n[remote]\nhost = \"b\"\nport = 1\nhost = \"c\"\n");
        assert!(twice.starts_with("settings:6:1") && twice.contains("`host`; the first one is in line 4"), "{twice}");
    }

    #[test]
    fn units_are_listed_where_one_is_wrong() {
        let size = reported("[limits]\nbody = \"10MB\"");
        assert!(size.contains("KiB, MiB or GiB") && size.contains("Did you mean \"10MiB\"?"), "{size}");
        assert!(reported("[limits]\nbody = \"ten\"").contains("KiB, MiB or GiB"));
        assert!(reported("[timeouts]\nidle = \"10x\"").contains("ms, s, m, h or d"));
        for given in ["10", "\"10\""] {
            assert!(reported(&format!("[timeouts]\nidle = {given}")).contains("write \"10s\" or \"10ms\""));
        }
    }

    #[test]
    fn broken_toml_is_reported_with_its_place() {
        assert!(reported("[remote]\nhost = ").starts_with("settings:2:"));
    }

    #[test]
    fn the_parts_of_a_url_win_over_single_settings() {
        let config = Config::from_toml(
            "[remote]\nhost = \"http://gpu:1/p\"\nport = 2\nbase_path = \"/q\"\nprotocol = \"https\"",
        )
        .unwrap();
        let remote = config.remote;
        assert_eq!((&*remote.host, remote.port, &*remote.base_path, remote.protocol), ("gpu", 1, "/p", Protocol::Http));
        let remote = Config::from_toml("[remote]\nhost = \"https://gpu\"").unwrap().remote;
        assert_eq!((remote.port, remote.protocol), (443, Protocol::Https));
        let remote = Config::from_toml("[remote]\nhost = \"https://gpu\"\nport = 8443").unwrap().remote;
        assert_eq!(remote.port, 8443);
    }

    #[test]
    fn two_claims_to_one_header_are_an_error_that_names_both() {
        let both = reported("[remote]\nurl = \"http://u:p@h\"\napi_key = \"k\"");
        assert!(both.contains("remote.api_key") && both.contains("URL"), "{both}");
        let both = reported("[remote]\napi_key = \"k\"\nheaders = { Authorization = \"x\" }");
        assert!(both.starts_with("settings:2:11: ") && both.contains("remote.headers"), "{both}");
    }

    #[test]
    fn no_error_and_no_debug_text_shows_a_secret() {
        for text in [
            "[remote]\napi_key = \"hunter2\\u0001\"",
            "[remote]\napi_key = 5 # hunter2",
            "[remote]\nheaders = { Host = \"hunter2\" }",
            "[remote]\nurl = \"ftp://u:hunter2@h\"",
            "[remote]\nbasic_auth = \"hunter2\"",
            "[remote]\nurl = \"http://u:hunter2/x@h\"",
            "[remote]\nurl = \"http://hunter2@h\"",
            "[remote]\nhost = \"u:hunter2@h/prefix\"",
            "[remote]\nhost = \"u:hunter2 @h\"",
            "[remote.headers]\nX-Team = \"hunter2",
            "[remote.headers]\nX-Team = \"hunter2\\u0001\"",
            "[remote]\nheaders = \"hunter2\"",
            "[remote]\napi_kye = \"hunter2\"",
            "remote = { api_key = \"hunter2\", port = \"x\" }",
            "[remote]\nheaders = {\nX-Team = \"hunter2\n}",
        ] {
            let reported = reported(text);
            assert!(!reported.contains("hunter2"), "{reported}");
        }
        let config = Config::from_toml("[remote]\napi_key = \"hunter2\"\nheaders = { X-Key = \"hunter2\" }").unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
    }

    /// The remote as a URL, of what a file, variables and flags say.
    fn joined(file: &str, variables: &[(&str, &str)], flags: &[(&'static str, &str)]) -> Result<String, Error> {
        let mut loader = Loader::default();
        loader.file("settings", file);
        for (name, value) in variables {
            loader.variable(name, value);
        }
        for (key, value) in flags {
            let setting = find(key).unwrap();
            loader.set(setting, (*value).to_owned(), Place::Flag(setting.flag()));
        }
        let Remote { protocol, host, port, base_path, authorization, .. } = loader.finish()?.config.remote;
        let authorization = authorization.map_or(String::new(), |value| format!(" {}", value.to_str().unwrap()));
        Ok(format!("{protocol:?} {host} {port} {base_path}{authorization}"))
    }

    #[test]
    fn a_later_source_wins_over_an_earlier_url_part_by_part_and_as_a_whole() {
        let url = "[remote]\nport = 7\nurl = \"https://u:p@gpu:444/p\"";
        assert_eq!(joined(url, &[], &[]).unwrap(), "Https gpu 444 /p Basic dTpw");
        assert_eq!(joined(url, &[("FARLLAMA_REMOTE_PORT", "5")], &[]).unwrap(), "Https gpu 5 /p Basic dTpw");
        // Another machine gets neither the path nor the password of the first; the file's own port stays.
        assert_eq!(joined(url, &[], &[("remote.host", "other")]).unwrap(), "Http other 7 ");
        assert_eq!(joined(url, &[], &[("remote.host", "http://other:9")]).unwrap(), "Http other 9 ");
        assert_eq!(
            joined(url, &[("FARLLAMA_REMOTE_HOST", "a:1")], &[("remote.url", "http://b")]).unwrap(),
            "Http b 7 "
        );
        let flags = [("remote.host", "http://gpu:1/p"), ("remote.base_path", "/q"), ("remote.port", "2")];
        assert_eq!(joined("", &[], &flags).unwrap(), "Http gpu 1 /p");
    }

    #[test]
    fn claims_of_several_sources_are_reported_with_their_places() {
        let reported =
            joined("[remote]\napi_key = \"k\"", &[], &[("remote.host", "http://u:p@h")]).unwrap_err().to_string();
        assert!(
            reported.starts_with("settings:2:11: remote.api_key and ") && reported.contains("URL (--remote-host)"),
            "{reported}"
        );
    }

    #[test]
    fn a_later_source_wins() {
        let variable = |value: &str| ("FARLLAMA_REMOTE_HOST".to_owned(), value.to_owned());
        let mut sources = Sources { environment: vec![variable("from-env")], ..Sources::default() };
        assert_eq!(load(&sources).unwrap().config.remote.host, "from-env");
        sources.flags = vec![("remote.host", "from-flag".to_owned())];
        let loaded = load(&sources).unwrap();
        assert_eq!(loaded.config.remote.host, "from-flag");
        assert_eq!(loaded.origin(find("remote.host").unwrap()), "--remote-host");
    }

    #[test]
    fn a_wrong_variable_is_named_and_an_unknown_one_is_warned_of() {
        let mut sources =
            Sources { environment: vec![("FARLLAMA_LOCAL_PORT".to_owned(), "x".to_owned())], ..Sources::default() };
        assert!(load(&sources).unwrap_err().to_string().starts_with("FARLLAMA_LOCAL_PORT: invalid port"));
        sources.environment = vec![("FARLLAMA_REMOTE_HOTS".to_owned(), "x".to_owned())];
        assert!(load(&sources).unwrap().warnings[0].contains("Did you mean FARLLAMA_REMOTE_HOST?"));
    }

    #[test]
    fn keys_come_plain_hashed_from_files_and_from_the_environment() {
        let folder = tempfile::tempdir().unwrap();
        let (file, key) = (folder.path().join("farllama.toml"), folder.path().join("key"));
        std::fs::write(&key, "from-file\n").unwrap();
        let hashed = tokens::Digest::of(b"hashed");
        let text = format!(
            "[auth]\nenabled = true\ntokens = [{{ key = \"plain\", name = \"ann\", limit_per_minute = 3 }}, {{ key_file = {key:?} }}, {{ key_env = \"TEAM_KEY\" }}, {{ key_hash = \"{hashed}\", models = [\"m\"] }}]"
        );
        std::fs::write(&file, text).unwrap();
        let mut sources = Sources { file: Some(file), ..Sources::default() };
        let missing = load(&sources).unwrap_err().to_string();
        assert!(missing.contains("farllama.toml:3:") && missing.contains("TEAM_KEY is not set"), "{missing}");
        sources.environment = vec![("TEAM_KEY".to_owned(), "from-env".to_owned())];
        let tokens = load(&sources).unwrap().config.auth.tokens;
        let digests: Vec<_> = tokens.iter().map(|token| token.digest).collect();
        assert_eq!(digests, ["plain", "from-file", "from-env", "hashed"].map(|key| tokens::Digest::of(key.as_bytes())));
        assert_eq!((&*tokens[0].name, tokens[0].limit_per_minute, &*tokens[1].name), ("ann", Some(3), "key 2"));
    }

    #[test]
    fn what_is_wrong_with_a_key_is_pointed_at_and_the_key_is_not_shown() {
        let reported = |tokens: &str| {
            let text = format!("[auth]\nenabled = true\ntokens = [\n  {tokens}\n]\n");
            Config::from_toml(&text).unwrap_err().to_string()
        };
        for (tokens, place, what) in [
            ("{ key = \"hunter2\", limit_per_minute = \"x\" }", "4:41: ", "limit_per_minute"),
            ("{ key = \"hunter2\", limit = 3 }", "4:22: ", "unknown field limit"),
            ("{ key = \"hunter2\", max_concurrent = 0 }", "4:39: ", "leave it out"),
            ("{ name = \"ann\" }", "4:3: ", "a key is missing"),
            ("{ key = \"hunter2\", key_hash = \"hunter2\" }", "4:33: ", "64 hexadecimal digits"),
            ("{ key = \"hunter2\", routes = [\"api\"] }", "4:31: ", "invalid path"),
            ("{ key = \"hunter2\" }, { key = \"hunter2\" }", "", "the same key"),
            ("\"hunter2\", 5", "3:10: ", "expected a string"),
        ] {
            let reported = reported(tokens);
            assert!(reported.contains(place) && reported.contains(what), "{reported}");
            assert!(!reported.contains("hunter2"), "{reported}");
        }
    }

    #[test]
    fn asking_for_keys_without_having_any_is_refused() {
        assert!(Config::from_toml("[auth]\nenabled = true").unwrap_err().to_string().contains("farllama key new"));
        let both = "[auth]\nenabled = true\ntokens = [\"k\"]\n[remote]\nforward_auth = true";
        assert!(Config::from_toml(both).unwrap_err().to_string().contains("forward_auth"));
    }

    #[test]
    fn the_example_names_every_setting_and_changes_nothing() {
        let example = include_str!("../../config.example.toml");
        let config = Config::from_toml(example).unwrap();
        assert_eq!(format!("{config:?}"), format!("{:?}", Config::default()));
        for setting in SETTINGS {
            let name = setting.key.rsplit('.').next().unwrap_or_default();
            let there = example.lines().any(|line| line.trim_start_matches("# ").starts_with(&format!("{name} = ")));
            assert!(there, "{} is not in config.example.toml", setting.key);
            let titled = SECTIONS.iter().any(|(name, _)| *name == setting.section());
            assert!(titled, "{} is in a section without a title for help texts", setting.key);
        }
    }
}
