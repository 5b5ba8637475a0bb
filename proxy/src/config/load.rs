//! From the sources to one checked [`Config`]: file, then environment, then flags; a later one wins.

use std::{
    collections::HashMap,
    fmt, fs, io,
    ops::Range,
    path::{Path, PathBuf},
};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{Config, remote, tokens};
use crate::config::{
    settings::{Draft, SETTINGS, Setting, find},
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

/// What is wrong with the settings, with its place: file, line and column, variable, or flag.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Error(String);

impl Error {
    pub(super) fn new(what: String) -> Self {
        Self(what)
    }
}

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
        let table = DeTable::parse(text).map_err(|error| source.broken(&error))?;
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
                    let set = value_of(value).and_then(|value| (setting.set)(&mut self.draft, value));
                    set.map_err(|wrong| {
                        let told = format!("{key}: {wrong}");
                        if setting.secret {
                            source.hidden(value.span(), &told)
                        } else {
                            source.wrong(value.span(), &told)
                        }
                    })?;
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
                    let near = nearest(&key, SETTINGS.iter().map(|setting| setting.key));
                    let meant = near.map_or(String::new(), |near| format!("is {near} meant? "));
                    let instead = format!("{meant}there are {}", known.join(", "));
                    return Err(source.wrong(name.span(), &format!("unknown setting {key}; {instead}")));
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
        let Self { draft, mut places, mut warnings, environment: _ } = self;
        let mut config = draft.config.clone();
        config.remote = remote::join(draft, &mut places)?;
        let at = |key: &str| places.get(key).map_or(String::new(), |place| format!("{place}: "));
        if config.local.tls_cert.is_some() != config.local.tls_key.is_some() {
            return Err(Error(format!(
                "{}local.tls_cert and local.tls_key belong together; give both, or neither",
                at(if config.local.tls_cert.is_some() { "local.tls_cert" } else { "local.tls_key" })
            )));
        }
        if !config.remote.verify {
            warnings.push(
                "remote.verify is false: THE REMOTE'S CERTIFICATE IS NOT CHECKED, and anybody on the way can read and change everything"
                    .to_owned(),
            );
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
    fn hidden(&self, span: Range<usize>, message: &str) -> Error {
        let (line, column) = self.line_and_column(span.start);
        Error(format!("{}:{line}:{column}: {message}", self.path))
    }

    /// Points at a place and shows its line as far as it goes, unless that has to do with a secret.
    fn wrong(&self, span: Range<usize>, message: &str) -> Error {
        let Error(told) = self.hidden(span.clone(), message);
        let (line, column) = self.line_and_column(span.start);
        let whole = self.text.lines().nth(line - 1).unwrap_or_default();
        let pointed = self.text.get(span).unwrap_or_default().lines().next().unwrap_or_default();
        let length = pointed.chars().count().max(1);
        let text: String = whole.chars().take(column - 1 + length).collect();
        if hints_at_a_secret(&text) {
            return Error(told);
        }
        let more = if text.len() < whole.trim_end().len() { " …" } else { "" };
        let margin = " ".repeat(line.to_string().len());
        let carets = format!("{}{}", " ".repeat(column - 1), "^".repeat(length));
        Error(format!("{told}\n{margin} |\n{line} | {text}{more}\n{margin} | {carets}"))
    }

    /// Tells of text that is no TOML. What is a secret in it is not known, so a table that may have one is not shown.
    fn broken(&self, error: &toml::de::Error) -> Error {
        let Some(span) = error.span() else { return Error(format!("{}: {}", self.path, error.message())) };
        let (line, _) = self.line_and_column(span.start);
        let before: Vec<&str> = self.text.lines().take(line).collect();
        let table = before.iter().rposition(|text| text.starts_with('[')).unwrap_or_default();
        if before[table..].iter().any(|text| hints_at_a_secret(text)) {
            return self.hidden(span, error.message());
        }
        self.wrong(span, error.message())
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
            let told = told(text);
            assert!(!told.contains("hunter2"), "{told}");
        }
        let config = Config::from_toml("[remote]\napi_key = \"hunter2\"\nheaders = { X-Key = \"hunter2\" }").unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
    }

    /// The remote as a URL, of what a file, variables and flags say.
    fn joined(file: &str, variables: &[(&str, &str)], flags: &[(&'static str, &str)]) -> Result<String, Error> {
        let mut loader = Loader::default();
        loader.file("settings", file)?;
        for (name, value) in variables {
            loader.variable(name, value)?;
        }
        for (key, value) in flags {
            let setting = find(key).unwrap();
            loader.set(setting, Value::Text((*value).to_owned()), Place::Flag(setting.flag()))?;
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
    fn claims_of_several_sources_are_told_with_their_places() {
        let told =
            joined("[remote]\napi_key = \"k\"", &[], &[("remote.host", "http://u:p@h")]).unwrap_err().to_string();
        assert!(
            told.starts_with("settings:2:11: remote.api_key and ") && told.contains("URL (--remote-host)"),
            "{told}"
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
