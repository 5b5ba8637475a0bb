//! From the sources to one checked [`Config`]: file, then environment, then flags; a later one wins.

use std::{
    collections::HashMap,
    fmt, fs, io,
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    Config, Protocol,
    settings::{Draft, SETTINGS, Setting, Value, find, nearest, secret_header},
    tokens,
};

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

/// A checked configuration, and where each of its values came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What looks wrong, but harms nobody.
    pub warnings: Vec<String>,
    places: HashMap<&'static str, Place>,
}

impl Loaded {
    /// Where the value of `setting` came from, for people: `default`, `farllama.toml:3:8`, `FARLLAMA_REMOTE_HOST`, `--remote-host`.
    #[must_use]
    pub fn origin(&self, setting: &Setting) -> String {
        self.places.get(setting.key).map_or_else(|| "default".to_owned(), ToString::to_string)
    }
}

/// Where a value stands.
#[derive(Clone, Debug)]
enum Place {
    File { path: String, line: usize, column: usize },
    Variable(String),
    Flag(String),
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

/// What is wrong with the settings, with its place: file, line and column, variable, or flag.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Error(String);

impl Config {
    /// Reads settings from the text of a file, without environment and flags.
    ///
    /// # Errors
    /// What is wrong, with line and column.
    pub fn from_toml(text: &str) -> Result<Self, Error> {
        let mut loader = Loader::default();
        loader.file("settings", text)?;
        Ok(loader.finish()?.config)
    }
}

/// Reads all `sources`.
///
/// # Errors
/// The first thing that is wrong, with its place.
pub fn load(sources: &Sources) -> Result<Loaded, Error> {
    let mut loader = Loader { environment: sources.environment.clone(), ..Loader::default() };
    let unreadable =
        |path: &Path, error: &io::Error| Error(format!("{}: cannot read this file: {error}", path.display()));
    if let Some(path) = &sources.file {
        let text = fs::read_to_string(path).map_err(|error| unreadable(path, &error))?;
        loader.file(&path.to_string_lossy(), &text)?;
    } else if let Some(path) = &sources.usual_file {
        match fs::read_to_string(path) {
            Ok(text) => loader.file(&path.to_string_lossy(), &text)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(unreadable(path, &error)),
        }
    }
    for (name, value) in &sources.environment {
        loader.variable(name, value)?;
    }
    for (key, value) in &sources.flags {
        if let Some(setting) = find(key) {
            loader.set(setting, Value::Text(value.clone()), Place::Flag(setting.flag()))?;
        }
    }
    loader.finish()
}

#[derive(Default)]
struct Loader {
    draft: Draft,
    places: HashMap<&'static str, Place>,
    warnings: Vec<String>,
    /// Where `key_env` looks.
    environment: Vec<(String, String)>,
}

impl Loader {
    fn set(&mut self, setting: &'static Setting, value: Value, place: Place) -> Result<(), Error> {
        let set = (setting.set)(&mut self.draft, value);
        set.map_err(|wrong| Error(format!("{place}: {}: {wrong}", setting.key)))?;
        self.places.insert(setting.key, place);
        Ok(())
    }

    fn variable(&mut self, name: &str, value: &str) -> Result<(), Error> {
        if !name.starts_with("FARLLAMA_") || name == "FARLLAMA_CONFIG" {
            return Ok(());
        }
        match SETTINGS.iter().find(|setting| setting.variable() == name) {
            Some(setting) => self.set(setting, Value::Text(value.to_owned()), Place::Variable(name.to_owned())),
            None => {
                let names: Vec<_> = SETTINGS.iter().map(Setting::variable).collect();
                let instead = nearest(name, names.iter().map(String::as_str))
                    .map_or(String::new(), |near| format!("; is {near} meant?"));
                self.warnings.push(format!("the environment variable {name} is no setting{instead}"));
                Ok(())
            }
        }
    }

    fn file(&mut self, path: &str, text: &str) -> Result<(), Error> {
        let source = Source { path, text };
        let table = DeTable::parse(text).map_err(|error| source.wrong(error.span(), error.message()))?;
        self.table(&source, "", table.get_ref())
    }

    fn table(&mut self, source: &Source<'_>, prefix: &str, table: &DeTable<'_>) -> Result<(), Error> {
        for (name, value) in table {
            let key =
                if prefix.is_empty() { name.get_ref().to_string() } else { format!("{prefix}.{}", name.get_ref()) };
            match (find(&key), value.get_ref()) {
                (Some(setting), DeValue::Array(items))
                    if setting.key == "auth.tokens" && items.iter().all(is_table) =>
                {
                    self.tokens(source, items)?;
                    let (line, column) = source.line_and_column(value.span().start);
                    self.places.insert(setting.key, Place::File { path: source.path.to_owned(), line, column });
                }
                (Some(setting), _) => {
                    let value_of = value_of(value)
                        .map_err(|wrong| source.wrong(Some(value.span()), &format!("{key}: {wrong}")))?;
                    (setting.set)(&mut self.draft, value_of)
                        .map_err(|wrong| source.wrong(Some(value.span()), &format!("{key}: {wrong}")))?;
                    let (line, column) = source.line_and_column(value.span().start);
                    self.places.insert(setting.key, Place::File { path: source.path.to_owned(), line, column });
                }
                (None, DeValue::Table(inner))
                    if SETTINGS.iter().any(|setting| setting.key.starts_with(&format!("{key}."))) =>
                {
                    self.table(source, &key, inner)?;
                }
                (None, _) => {
                    let within =
                        |setting: &&Setting| prefix.is_empty() || setting.key.starts_with(&format!("{prefix}."));
                    let known: Vec<_> = SETTINGS.iter().filter(within).map(|setting| setting.key).collect();
                    let instead = match nearest(&key, SETTINGS.iter().map(|setting| setting.key)) {
                        Some(near) => format!("is {near} meant?"),
                        None => format!("there are {}", known.join(", ")),
                    };
                    return Err(source.wrong(Some(name.span()), &format!("unknown setting {key}; {instead}")));
                }
            }
        }
        Ok(())
    }

    /// The callers' keys, each a table of its own.
    fn tokens(&mut self, source: &Source<'_>, items: &[Spanned<DeValue<'_>>]) -> Result<(), Error> {
        let mut found = Vec::new();
        for (at, item) in items.iter().enumerate() {
            let mut draft = tokens::Draft::default();
            let DeValue::Table(table) = item.get_ref() else { continue };
            for (name, value) in table {
                let wrong = |span, what: &str| source.hidden(span, &format!("auth.tokens: {what}"));
                let Some((field, set)) = tokens::FIELDS.iter().find(|(field, _)| *field == name.get_ref()) else {
                    let known: Vec<_> = tokens::FIELDS.iter().map(|(field, _)| *field).collect();
                    let what = format!("unknown field {}; there are {}", name.get_ref(), known.join(", "));
                    return Err(wrong(name.span(), &what));
                };
                value_of(value)
                    .and_then(|given| set(&mut draft, given, &self.environment))
                    .map_err(|what| wrong(value.span(), &format!("{field}: {what}")))?;
            }
            let token =
                draft.finish(at + 1).map_err(|what| source.hidden(item.span(), &format!("auth.tokens: {what}")))?;
            found.push(token);
        }
        self.draft.config.auth.tokens = found;
        Ok(())
    }

    /// Puts the parts together, and checks what no single setting can.
    fn finish(self) -> Result<Loaded, Error> {
        let Self { draft, places, mut warnings, environment: _ } = self;
        let Draft { mut config, url, host, protocol, port, base_path, api_key, basic_auth } = draft;
        let at = |key: &str| places.get(key).map_or(String::new(), |place| format!("{place}: "));
        // The URL's parts win over the host's, and those over the single settings.
        let (url, host) = (url.unwrap_or_default(), host.unwrap_or_default());
        let named = |url: &str, host: &str| [url, host].into_iter().find(|name| !name.is_empty()).map(str::to_owned);
        let remote = &mut config.remote;
        let written = url.protocol.or(host.protocol);
        if let Some(name) = named(&url.host, &host.host) {
            remote.host = name;
        }
        remote.protocol = written.or(protocol).unwrap_or(remote.protocol);
        // As with OLLAMA_HOST: a URL without port means the protocol's own, a bare host means 11434.
        remote.port = url.port.or(host.port).or(port).unwrap_or(match written {
            None => remote.port,
            Some(Protocol::Http) => 80,
            Some(Protocol::Https) => 443,
        });
        remote.base_path = url.base_path.or(host.base_path).or(base_path).unwrap_or_default();
        if remote.port == 0 {
            return Err(Error(format!("{}remote.port: 0 is no port that Ollama can listen on", at("remote.port"))));
        }
        let in_url = url.basic_auth.or(host.basic_auth);
        let basic = in_url.clone().or(basic_auth);
        let basic_key =
            if in_url.is_some() { "the user and password in the remote's URL" } else { "remote.basic_auth" };
        let claimed = remote.headers.iter().any(|(name, _)| *name == http::header::AUTHORIZATION);
        let claims = [
            (api_key.is_some(), "remote.api_key"),
            (basic.is_some(), basic_key),
            (claimed, "Authorization in remote.headers"),
        ];
        if let [first, second, ..] =
            claims.iter().filter(|(set, _)| *set).map(|(_, name)| *name).collect::<Vec<_>>()[..]
        {
            return Err(Error(format!(
                "{}{first} and {second} both claim the Authorization header; give one of them",
                at("remote.api_key")
            )));
        }
        let authorization = match (api_key, basic) {
            (Some(key), _) => Some(("remote.api_key", format!("Bearer {key}"))),
            (None, Some(pair)) => Some(("remote.basic_auth", format!("Basic {}", STANDARD.encode(pair)))),
            (None, None) => None,
        };
        if let Some((key, value)) = authorization {
            let value = secret_header(value.trim());
            let unsendable = |()| Error(format!("{}{key}: it holds characters that a header cannot", at(key)));
            remote.authorization = Some(value.map_err(unsendable)?);
        }
        let auth = &config.auth;
        tokens::check(&auth.tokens).map_err(|wrong| Error(format!("{}auth.tokens: {wrong}", at("auth.tokens"))))?;
        match (auth.enabled, auth.tokens.is_empty()) {
            (true, true) => {
                return Err(Error(format!(
                    "{}auth.enabled is true, but auth.tokens holds no key, so nobody could call; `farllama key new` makes one",
                    at("auth.enabled")
                )));
            }
            (false, false) => {
                warnings.push("auth.tokens has keys, but auth.enabled is false: anybody may call".to_owned());
            }
            _ => {}
        }
        if auth.enabled && config.remote.forward_auth {
            return Err(Error(format!(
                "{}remote.forward_auth would send the callers' keys for this proxy on to the remote; with auth.enabled it must be false",
                at("remote.forward_auth")
            )));
        }
        Ok(Loaded { config, warnings, places })
    }
}

fn is_table(value: &Spanned<DeValue<'_>>) -> bool {
    matches!(value.get_ref(), DeValue::Table(_))
}

fn value_of(value: &Spanned<DeValue<'_>>) -> Result<Value, String> {
    let scalar = |value: &DeValue<'_>| match value {
        DeValue::String(text) => Ok(text.to_string()),
        other => Err(format!("expected a text, got {}", other.type_str())),
    };
    Ok(match value.get_ref() {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) => {
            let parsed = i64::from_str_radix(number.as_str(), number.radix());
            Value::Integer(parsed.map_err(|_| format!("{} is out of range", number.as_str()))?)
        }
        DeValue::Boolean(on) => Value::Boolean(*on),
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
    fn hidden(&self, span: std::ops::Range<usize>, message: &str) -> Error {
        let (line, column) = self.line_and_column(span.start);
        Error(format!("{}:{line}:{column}: {message}", self.path))
    }

    fn wrong(&self, span: Option<std::ops::Range<usize>>, message: &str) -> Error {
        let Some(span) = span else { return Error(format!("{}: {message}", self.path)) };
        let (line, column) = self.line_and_column(span.start);
        let text = self.text.lines().nth(line - 1).unwrap_or_default();
        let length =
            self.text.get(span).map_or(1, |span| span.lines().next().unwrap_or_default().chars().count().max(1));
        let (margin, number) = (" ".repeat(line.to_string().len()), line);
        // A line that holds a secret is not shown.
        let shown = if ["key", "tokens", "basic_auth", "headers", "authorization"]
            .iter()
            .any(|word| text.to_lowercase().contains(word))
        {
            String::new()
        } else {
            format!("\n{margin} |\n{number} | {text}\n{margin} | {}{}", " ".repeat(column - 1), "^".repeat(length))
        };
        Error(format!("{}:{line}:{column}: {message}{shown}", self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> String {
        Config::from_toml(text).unwrap_err().to_string()
    }

    #[test]
    fn a_wrong_value_is_told_with_file_line_column_and_a_caret() {
        let told = told("[local]\nhost = \"::1\"\nport = \"high\"\n");
        assert_eq!(
            told,
            "settings:3:8: local.port: \"high\" is no port; expected a number from 0 to 65535\n  |\n3 | port = \"high\"\n  |        ^^^^^^"
        );
    }

    #[test]
    fn an_unknown_name_is_told_with_the_nearest() {
        assert!(
            told("[remote]\nhots = \"x\"")
                .starts_with("settings:2:1: unknown setting remote.hots; is remote.host meant?")
        );
        assert!(told("[zzz]\na = 1").contains("there are local.host"));
    }

    #[test]
    fn broken_toml_is_told_with_its_place() {
        assert!(told("[remote]\nhost = ").starts_with("settings:2:"));
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
        let both = told("[remote]\nurl = \"http://u:p@h\"\napi_key = \"k\"");
        assert!(both.contains("remote.api_key") && both.contains("URL"), "{both}");
        let both = told("[remote]\napi_key = \"k\"\nheaders = { Authorization = \"x\" }");
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
        ] {
            let told = told(text);
            let line = told.lines().next().unwrap_or_default();
            assert!(!line.contains("hunter2"), "{told}");
        }
        let config = Config::from_toml("[remote]\napi_key = \"hunter2\"\nheaders = { X-Key = \"hunter2\" }").unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
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
        assert!(load(&sources).unwrap_err().to_string().starts_with("FARLLAMA_LOCAL_PORT: local.port:"));
        sources.environment = vec![("FARLLAMA_REMOTE_HOTS".to_owned(), "x".to_owned())];
        assert!(load(&sources).unwrap().warnings[0].contains("is FARLLAMA_REMOTE_HOST meant?"));
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
        let told = |tokens: &str| {
            let text = format!("[auth]\nenabled = true\ntokens = [\n  {tokens}\n]\n");
            Config::from_toml(&text).unwrap_err().to_string()
        };
        for (tokens, place, what) in [
            ("{ key = \"hunter2\", limit_per_minute = \"x\" }", "4:41: ", "limit_per_minute"),
            ("{ key = \"hunter2\", limit = 3 }", "4:22: ", "unknown field limit"),
            ("{ key = \"hunter2\", max_concurrent = 0 }", "4:39: ", "leave it out"),
            ("{ name = \"ann\" }", "4:3: ", "a key is missing"),
            ("{ key = \"hunter2\", key_hash = \"hunter2\" }", "4:33: ", "64 hexadecimal digits"),
            ("{ key = \"hunter2\", routes = [\"api\"] }", "4:31: ", "is no path"),
            ("{ key = \"hunter2\" }, { key = \"hunter2\" }", "", "the same key"),
            ("\"hunter2\", 5", "3:10: ", "expected a text"),
        ] {
            let told = told(tokens);
            assert!(told.contains(place) && told.contains(what), "{told}");
            assert!(!told.contains("hunter2"), "{told}");
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
        }
    }
}
