//! Several remotes (`[[remotes]]`): each entry has a name, how it is chosen, and the settings of `[remote]` that say
//! where it is.

use std::{collections::HashMap, fmt::Write};

use super::{Config, Kind, Remote, remote};
use crate::config::{
    address::Address,
    load::{Error, Place},
    settings::{Draft, find},
    value::{Value, Word, list, number, text},
};

/// The name of the remote that `[remote]` describes.
pub(crate) const SECTION: &str = "remote";

/// Settings of `[remote]` that are the same for all remotes.
const SHARED: [&str; 4] = ["probe", "forward_auth", "forward_cookies", "replay_body"];

/// Maximum length of a name: it stands in headers and log lines.
const MAX_NAME: usize = 64;

/// One of the remotes, and when it is chosen.
#[derive(Clone, Debug)]
pub struct NamedRemote {
    /// Its name, for `x-farllama-remote`, the log and `farllama remotes`.
    pub name: String,
    /// Where it is.
    pub remote: Remote,
    /// Remotes with a lower number are preferred: 0 by default.
    pub priority: u32,
    /// Its share of requests among remotes of equal priority: 1 by default.
    pub weight: u32,
    /// The models that it is used for, `*` at most once in each. None: all.
    pub models: Option<Vec<String>>,
    /// Whether `[remote]` describes it.
    pub section: bool,
}

impl NamedRemote {
    /// The remote of `[remote]`.
    #[must_use]
    pub fn section(remote: &Remote) -> Self {
        Self { name: SECTION.to_owned(), remote: remote.clone(), priority: 0, weight: 1, models: None, section: true }
    }
}

impl Config {
    /// Returns every remote, in the order of the settings: that of `[remote]` first.
    #[must_use]
    pub fn every_remote(&self) -> Vec<NamedRemote> {
        if self.remotes.is_empty() { vec![NamedRemote::section(&self.remote)] } else { self.remotes.clone() }
    }

    /// Whether the settings of `[remote]` that say where the remote is are in use.
    pub(super) fn uses_section(&self) -> bool {
        self.remotes.first().is_none_or(|first| first.section)
    }
}

/// Whether the setting `key` says where the remote of `[remote]` is, and not how all remotes are treated.
pub(super) fn is_of_one(key: &str) -> bool {
    key.strip_prefix("remote.").is_some_and(|name| !SHARED.contains(&name))
}

/// An entry in the making.
#[derive(Default)]
pub(super) struct Entry {
    name: Option<String>,
    priority: u32,
    weight: Option<u32>,
    models: Option<Vec<String>>,
    /// The settings that `[remote]` has, too.
    draft: Draft,
    places: HashMap<&'static str, Place>,
}

impl Entry {
    /// Sets one field. `place` is where its value stands.
    ///
    /// # Errors
    /// Fails if there is no such field, or if the value does not fit it.
    pub(super) fn set(&mut self, field: &str, value: Value, place: Place) -> Result<(), String> {
        match field {
            "name" => self.name = Some(name(text(value)?)?),
            "priority" => self.priority = small(value)?,
            "weight" => match small(value)? {
                0 => return Err("invalid weight 0: expected 1 or more".to_owned()),
                weight => self.weight = Some(weight),
            },
            "models" => {
                let models = list(value)?;
                if let Some(wrong) = models.iter().find(|model| model.matches('*').count() > 1 || model.is_empty()) {
                    return Err(format!(
                        "invalid model {wrong:?}: expected one such as \"llama3.2\" or \"qwen3:*\", with at most one *"
                    ));
                }
                self.models = Some(models);
            }
            shared if SHARED.contains(&shared) => {
                return Err(format!("this setting is the same for all remotes: set remote.{shared} instead"));
            }
            field => {
                let Some(setting) = find(&setting_of(field)) else {
                    return Err(format!(
                        "unknown field; there are name, key, priority, weight, models, and what [remote] has: {}",
                        fields().join(", ")
                    ));
                };
                setting.set(&mut self.draft, value)?;
                self.places.insert(setting.key, place);
            }
        }
        Ok(())
    }

    /// The remote, `nth` from 1 in the list.
    ///
    /// # Errors
    /// Fails if it has no name or no address, or if its settings contradict each other.
    pub(super) fn finish(mut self, nth: usize) -> Result<NamedRemote, Error> {
        let name =
            self.name.ok_or_else(|| Error::new(format!("remotes: entry {nth} has no name: add name = \"…\"")))?;
        if !["remote.url", "remote.host"].iter().any(|key| self.places.contains_key(key)) {
            return Err(Error::new(format!("remotes: {name} has no url: add url = \"http://HOST:PORT\"")));
        }
        let remote = remote::join(self.draft, &mut self.places)?;
        let weight = self.weight.unwrap_or(1);
        Ok(NamedRemote { name, remote, priority: self.priority, weight, models: self.models, section: false })
    }
}

/// The setting of `[remote]` that a field of an entry stands for.
fn setting_of(field: &str) -> String {
    format!("remote.{}", if field == "key" { "api_key" } else { field })
}

/// Whether the value of a field must not be shown.
pub(super) fn is_secret(field: &str) -> bool {
    find(&setting_of(field)).is_some_and(|setting| setting.secret)
}

/// The fields that `[remote]` has, too.
fn fields() -> Vec<&'static str> {
    let of_one = super::SETTINGS.iter().filter(|setting| is_of_one(setting.key));
    of_one.filter_map(|setting| setting.key.strip_prefix("remote.")).collect()
}

fn small(value: Value) -> Result<u32, String> {
    let number = number(value)?;
    u32::try_from(number)
        .ok()
        .filter(|number| *number <= 1_000_000)
        .ok_or_else(|| format!("invalid number {number}: expected at most 1000000"))
}

fn name(name: String) -> Result<String, String> {
    let fine = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if !fine || name.is_empty() || name.len() > MAX_NAME {
        return Err(format!("invalid name {name:?}: expected letters, digits, -, _ and ., such as \"gpu-box\""));
    }
    Ok(name)
}

/// Reads what a variable or a flag gives: `NAME=URL,…`.
pub(super) fn plain(value: Value) -> Result<Vec<NamedRemote>, String> {
    let entries = list(value)?;
    let entry = |entry: &String| {
        // The URL may have a password, and is not shown.
        let (given, url) = entry.split_once('=').ok_or("expected NAME=URL, such as gpu=http://gpu-box:11434")?;
        let url = url.trim();
        // Only the base URL of an OpenAI server ends so.
        let kind = if url.trim_end_matches('/').ends_with("/v1") { Kind::OpenAi } else { Kind::Ollama };
        let mut draft = Draft { url: Some(Address::url(url, kind)?), ..Draft::default() };
        draft.config.remote.kind = kind;
        let remote = remote::join(draft, &mut HashMap::new()).map_err(|error| error.to_string())?;
        let name = name(given.trim().to_owned())?;
        Ok(NamedRemote { name, section: false, ..NamedRemote::section(&remote) })
    };
    entries.iter().map(entry).collect()
}

/// Puts `[remote]` and the entries together: `named` says whether `[remote]` names a remote.
///
/// # Errors
/// Fails if two remotes have the same name or the same URL.
pub(super) fn join(config: &mut Config, named: bool) -> Result<(), String> {
    if config.remotes.is_empty() {
        return Ok(());
    }
    for entry in &mut config.remotes {
        let Remote { probe, forward_auth, forward_cookies, replay_body, .. } = config.remote;
        let own = &mut entry.remote;
        (own.probe, own.forward_auth) = (probe, forward_auth);
        (own.forward_cookies, own.replay_body) = (forward_cookies, replay_body);
    }
    if named {
        config.remotes.insert(0, NamedRemote::section(&config.remote));
    } else {
        config.remote = config.remotes[0].remote.clone();
    }
    for (at, entry) in config.remotes.iter().enumerate() {
        let earlier = &config.remotes[..at];
        if earlier.iter().any(|earlier| earlier.name == entry.name) {
            let hint = if entry.name == SECTION { " (it is the name of what [remote] describes)" } else { "" };
            return Err(format!("two remotes have the name {:?}{hint}: names must differ", entry.name));
        }
        if let Some(same) = earlier.iter().find(|earlier| earlier.remote.name() == entry.remote.name()) {
            return Err(format!("{:?} and {:?} are the same remote, {}", same.name, entry.name, entry.remote.name()));
        }
    }
    Ok(())
}

/// The list as a file could hold it, without secrets.
pub(super) fn shown(config: &Config) -> String {
    let row = |entry: &NamedRemote| {
        let remote = &entry.remote;
        let mut row = format!("{{ name = {:?}, url = {:?}", entry.name, remote.url_with_port());
        if remote.kind != Kind::Ollama {
            let _ = write!(row, ", kind = {:?}", remote.kind.word());
        }
        if let Some(value) = &remote.authorization {
            let basic = value.as_bytes().starts_with(b"Basic ");
            row += if basic { ", basic_auth = \"***:***\"" } else { ", key = \"***\"" };
        }
        if !remote.headers.is_empty() {
            let masked: Vec<_> =
                remote.headers.iter().map(|(name, _)| format!("{:?} = \"***\"", name.as_str())).collect();
            let _ = write!(row, ", headers = {{ {} }}", masked.join(", "));
        }
        if let Some(file) = &remote.ca_file {
            let _ = write!(row, ", ca_file = {:?}", file.to_string_lossy());
        }
        if !remote.verify {
            row += ", verify = false";
        }
        let reach = &remote.reach;
        let given = [
            ("ssh", reach.ssh.as_ref().map(ToString::to_string)),
            ("proxy", reach.proxy.as_ref().map(ToString::to_string)),
            ("proxy", reach.no_proxy.then(|| "none".to_owned())),
            ("client_cert", reach.client_cert.as_ref().map(|path| path.to_string_lossy().into_owned())),
            ("client_key", reach.client_key.as_ref().map(|path| path.to_string_lossy().into_owned())),
            ("wake", reach.wake.as_ref().map(ToString::to_string)),
        ];
        for (name, value) in given {
            if let Some(value) = value {
                let _ = write!(row, ", {name} = {value:?}");
            }
        }
        if entry.priority != 0 {
            let _ = write!(row, ", priority = {}", entry.priority);
        }
        if entry.weight != 1 {
            let _ = write!(row, ", weight = {}", entry.weight);
        }
        if let Some(models) = &entry.models {
            let _ = write!(row, ", models = {models:?}");
        }
        row + " }"
    };
    let entries = config.remotes.iter().filter(|entry| !entry.section);
    format!("[{}]", entries.map(row).collect::<Vec<_>>().join(", "))
}

/// Which remotes were changed, added and removed, by their names; None if there is no difference.
pub(super) fn changes(before: &Config, after: &Config) -> Option<String> {
    let entries = |config: &Config| config.remotes.iter().filter(|entry| !entry.section).cloned().collect::<Vec<_>>();
    let (before, after) = (entries(before), entries(after));
    let find = |entries: &[NamedRemote], name: &str| entries.iter().find(|entry| entry.name == name).cloned();
    // Header values that are secret compare equal only if they are.
    let text = |entry: &NamedRemote| {
        let remote = &entry.remote;
        (format!("{entry:?}"), remote.authorization.clone(), remote.headers.clone())
    };
    let mut changes = Vec::new();
    for entry in &after {
        match find(&before, &entry.name) {
            None => changes.push(format!("{} added", entry.name)),
            Some(old) if text(&old) != text(entry) => changes.push(format!("{} changed", entry.name)),
            Some(_) => {}
        }
    }
    let removed = before.iter().filter(|entry| find(&after, &entry.name).is_none());
    changes.extend(removed.map(|entry| format!("{} removed", entry.name)));
    (!changes.is_empty()).then(|| format!("remotes: {}", changes.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{changes, load, load::Sources, show};

    const TWO: &str = "[[remotes]]\nname = \"gpu\"\nurl = \"http://gpu-box:11434\"\nkey = \"hunter2\"\npriority = 1\n\
                       models = [\"qwen3:*\"]\n[[remotes]]\nname = \"big\"\nurl = \"https://u:hunter2@big.example/p\"\nweight = 3\n\
                       [remotes.headers]\nX-Key = \"hunter2\"\n";

    fn wrong(text: &str) -> String {
        Config::from_toml(text).unwrap_err().to_string()
    }

    #[test]
    fn entries_take_what_remote_takes_and_the_first_stands_in_for_remote() {
        let config = Config::from_toml(&format!("[remote]\nreplay_body = 7\n{TWO}")).unwrap();
        let [gpu, big] = &config.remotes[..] else { panic!("two") };
        assert_eq!((&*gpu.name, gpu.remote.url().as_str(), gpu.priority), ("gpu", "http://gpu-box:11434", 1));
        assert_eq!((big.remote.port, &*big.remote.base_path, big.weight), (443, "/p", 3));
        assert!(gpu.remote.authorization.is_some() && big.remote.authorization.is_some());
        assert_eq!((big.remote.headers.len(), big.remote.replay_body), (1, 7));
        assert_eq!(config.remote.url(), gpu.remote.url());
        let single = Config::from_toml("[remote]\nhost = \"a\"").unwrap();
        assert!(single.remotes.is_empty());
        assert_eq!((single.every_remote().len(), &*single.every_remote()[0].name), (1, "remote"));
    }

    #[test]
    fn what_remote_names_is_the_first_entry() {
        let config = Config::from_toml(&format!("[remote]\nhost = \"own\"\n{TWO}")).unwrap();
        let names: Vec<_> = config.remotes.iter().map(|entry| &*entry.name).collect();
        assert_eq!(names, ["remote", "gpu", "big"]);
        assert_eq!(config.remote.host, "own");
    }

    #[test]
    fn mistakes_are_reported_with_their_place_and_without_secrets() {
        for (text, part) in [
            ("[[remotes]]\nname = \"a b\"\nurl = \"http://h\"", "settings:2:8: remotes: name: invalid name"),
            ("[[remotes]]\nurl = \"http://h\"", "entry 1 has no name"),
            ("[[remotes]]\nname = \"a\"", "a has no url"),
            ("[[remotes]]\nname = \"a\"\nurl = \"http://h\"\nwieght = 2", "unknown field"),
            ("[[remotes]]\nname = \"a\"\nurl = \"http://h\"\nweight = 0", "invalid weight 0"),
            ("[[remotes]]\nname = \"a\"\nurl = \"http://h\"\nprobe = \"1s\"", "set remote.probe instead"),
            ("[[remotes]]\nname = \"a\"\nurl = \"ftp://u:hunter2@h\"", "remotes: url:"),
            ("[[remotes]]\nname = \"a\"\nurl = \"http://h\"\nkey = \"hunter2\\u0001\"", "remote.api_key"),
            (
                "[[remotes]]\nname = \"a\"\nurl = \"http://h\"\n[[remotes]]\nname = \"a\"\nurl = \"http://i\"",
                "the name \"a\"",
            ),
            (
                "[[remotes]]\nname = \"a\"\nurl = \"http://h\"\n[[remotes]]\nname = \"b\"\nurl = \"http://h:80\"",
                "\"a\" and \"b\" are the same remote",
            ),
            ("remotes = [\"a\"]", "expected NAME=URL"),
        ] {
            let wrong = wrong(text);
            assert!(wrong.contains(part), "{text}: {wrong}");
            assert!(!wrong.contains("hunter2"), "{wrong}");
        }
    }

    #[test]
    fn a_variable_gives_names_and_urls() {
        let environment = vec![("FARLLAMA_REMOTES".to_owned(), "a=http://a:1, b=https://u:hunter2@b".to_owned())];
        let loaded = load(&Sources { environment, ..Sources::default() }).unwrap();
        let urls: Vec<_> = loaded.config.remotes.iter().map(|entry| entry.remote.url()).collect();
        assert_eq!(urls, ["http://a:1", "https://b"]);
        assert!(loaded.names_remote());
    }

    #[test]
    fn a_mistake_names_its_setting_once() {
        let flag = |key, value: &str| {
            let sources = Sources { flags: vec![(key, value.to_owned())], ..Sources::default() };
            load(&sources).unwrap_err().to_string()
        };
        assert!(flag("remotes", "a=http://h,a=http://i").starts_with("--remotes: two remotes have the name \"a\""));
        assert!(flag("models.default", "a*").starts_with("--models-default: invalid name \"a*\""));
        let environment = vec![("FARLLAMA_REMOTES".to_owned(), "a=http://h,b=http://h".to_owned())];
        let variable = load(&Sources { environment, ..Sources::default() }).unwrap_err().to_string();
        assert!(variable.starts_with("FARLLAMA_REMOTES: \"a\" and \"b\" are the same remote"), "{variable}");
        let file = wrong("[models]\ndefault = \"a*\"");
        assert!(file.starts_with("settings:2:11: models.default: invalid name"), "{file}");
    }

    #[test]
    fn what_is_shown_has_no_secrets_and_can_be_loaded_again() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("farllama.toml");
        std::fs::write(&file, TWO).unwrap();
        let shown = show(&load(&Sources { file: Some(file), ..Sources::default() }).unwrap());
        assert!(!shown.contains("hunter2") && shown.contains("name = \"gpu\""), "{shown}");
        assert!(!shown.contains("\nhost = \"gpu-box\""), "[remote] names none: {shown}");
        let again = Config::from_toml(&shown).unwrap();
        let before = Config::from_toml(TWO).unwrap();
        assert_eq!(super::shown(&again), super::shown(&before));
    }

    #[test]
    fn changes_name_the_remotes() {
        let before = Config::from_toml(TWO).unwrap();
        let after = Config::from_toml(&TWO.replace("key = \"hunter2\"", "key = \"hunter3\"")).unwrap();
        assert_eq!(changes(&before, &after), ["remotes: gpu changed"]);
        assert!(changes(&before, &before).is_empty());
        let one = Config::from_toml("[[remotes]]\nname = \"gpu\"\nurl = \"http://x\"").unwrap();
        assert!(changes(&before, &one)[0].contains("gpu changed, big removed"));
    }
}
