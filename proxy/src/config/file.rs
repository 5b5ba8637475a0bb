//! Changes the settings file, preserving its comments and layout.

use std::{
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
};

use toml_edit::{DocumentMut, Item, Table, Value};

use super::{Kind, Protocol, Sources, Ssh, load, value::Word};

/// The parts of a remote that a file can have, without its credentials.
const PARTS: [&str; 6] = ["url", "protocol", "host", "port", "base_path", "ssh"];

/// A remote to write into the settings file.
#[derive(Clone, Debug)]
pub(crate) struct SavedRemote {
    pub(crate) protocol: Protocol,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) base_path: String,
    pub(crate) kind: Kind,
    /// The machine over which it is reached.
    pub(crate) ssh: Option<Ssh>,
    /// None: the credentials in the file stay unchanged.
    pub(crate) credentials: Option<Credentials>,
}

/// What a remote asks for.
#[derive(Clone, Debug)]
pub(crate) enum Credentials {
    None,
    ApiKey(String),
    Basic(String),
}

/// Writes the remote into the settings file.
///
/// # Errors
/// As [`edit`].
pub(crate) fn save_remote(sources: &Sources, remote: &SavedRemote) -> Result<PathBuf, String> {
    edit(sources, |document| {
        let table = document.entry("remote").or_insert(Item::Table(Table::new()));
        if let Item::Value(Value::InlineTable(inline)) = table {
            *table = Item::Table(std::mem::take(inline).into_table());
        }
        let table = table.as_table_mut().ok_or("remote is not a table in the settings file")?;
        table.remove(PARTS[0]);
        match &remote.ssh {
            Some(ssh) => set(table, "ssh", ssh.to_string().into()),
            None => drop(table.remove("ssh")),
        }
        // An Ollama is what the file means without a word.
        if remote.kind != Kind::default() || table.contains_key("kind") {
            set(table, "kind", remote.kind.word().into());
        }
        set(table, "protocol", remote.protocol.word().into());
        set(table, "host", remote.host.as_str().into());
        set(table, "port", i64::from(remote.port).into());
        set(table, "base_path", if remote.base_path.is_empty() { "/" } else { &remote.base_path }.into());
        if let Some(credentials) = &remote.credentials {
            for name in ["api_key", "basic_auth", "headers"] {
                table.remove(name);
            }
            match credentials {
                Credentials::None => {}
                Credentials::ApiKey(key) => set(table, "api_key", key.as_str().into()),
                Credentials::Basic(pair) => set(table, "basic_auth", pair.as_str().into()),
            }
        }
        Ok(())
    })
}

/// Sets a value; a comment behind the old one stays.
fn set(table: &mut Table, name: &str, mut value: Value) {
    if let Some(old) = table.get(name).and_then(Item::as_value) {
        *value.decor_mut() = old.decor().clone();
    }
    table.insert(name, Item::Value(value));
}

/// Changes the settings file. The new text must load as settings before it takes the old one's place.
///
/// # Errors
/// Fails if the file cannot be read or written, or if its new text is not valid. Then the file stays as it was.
pub fn edit(sources: &Sources, change: impl FnOnce(&mut DocumentMut) -> Result<(), String>) -> Result<PathBuf, String> {
    let path = sources.path().ok_or("there is no settings file: name one with --config FILE")?;
    // What a link points at is changed, not the link.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.clone());
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(failed(&error)),
    };
    let mut document: DocumentMut = text.parse().map_err(|error| failed(&error))?;
    // A comment in a file without settings would end up behind the first one.
    let lead = document.as_table().is_empty().then(|| document.trailing().as_str().unwrap_or_default().to_owned());
    change(&mut document)?;
    if lead.is_some() {
        document.set_trailing("");
    }
    let text = lead.unwrap_or_default() + &document.to_string();
    let new = path.with_extension("toml.new");
    write_private(&new, &path, &text).map_err(|error| failed(&error))?;
    let environment = sources.environment.iter().filter(|(name, _)| name != "FARLLAMA_CONFIG").cloned().collect();
    let check = Sources { file: Some(new.clone()), environment, ..Sources::default() };
    let result = load(&check)
        .map_err(|error| format!("the file was not changed: {error}"))
        .and_then(|_| fs::rename(&new, &path).map_err(|error| failed(&error)));
    if result.is_err() {
        let _ = fs::remove_file(&new);
    }
    result.map(|()| path)
}

/// Writes `text` to a new file with the permissions of `like`; if there is no such file, only the owner may read it.
fn write_private(path: &Path, like: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let _ = fs::remove_file(path);
    let mut options = fs::File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    if let Ok(known) = fs::metadata(like) {
        file.set_permissions(known.permissions())?;
    }
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_saved_remote_replaces_the_old_one_and_comments_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        let sources = Sources { file: Some(path.clone()), ..Sources::default() };
        let text = "# ours\n[remote]\nurl = \"https://old.example/x\"\nhost = \"old\" # the old box\napi_key = \"hunter2\"\nprobe = \"5s\" # often\n\n[quota]\nqueue = 7 # few\n";
        fs::write(&path, text).unwrap();
        let mut remote = SavedRemote {
            protocol: Protocol::Http,
            host: "new".to_owned(),
            port: 8080,
            base_path: String::new(),
            kind: Kind::default(),
            ssh: None,
            credentials: None,
        };
        save_remote(&sources, &remote).unwrap();
        let after = fs::read_to_string(&path).unwrap();
        for kept in ["# ours", "host = \"new\" # the old box", "probe = \"5s\" # often", "queue = 7 # few", "hunter2"] {
            assert!(after.contains(kept), "{kept} in {after}");
        }
        let config = load(&sources).unwrap().config;
        assert_eq!((&*config.remote.host, config.remote.port), ("new", 8080));
        remote.credentials = Some(Credentials::None);
        save_remote(&sources, &remote).unwrap();
        assert!(!fs::read_to_string(&path).unwrap().contains("hunter2"));
        remote.ssh = Some(Ssh { user: Some("me".to_owned()), host: "gpu-box".to_owned(), port: None });
        save_remote(&sources, &remote).unwrap();
        assert_eq!(load(&sources).unwrap().config.remote.reach.ssh, remote.ssh);
        assert!(!fs::read_to_string(&path).unwrap().contains("kind"));
        for kind in [Kind::OpenAi, Kind::Ollama] {
            remote.kind = kind;
            save_remote(&sources, &remote).unwrap();
            assert_eq!(load(&sources).unwrap().config.remote.kind, kind);
        }
        let bad = SavedRemote { port: 0, ..remote };
        let before = fs::read_to_string(&path).unwrap();
        assert!(save_remote(&sources, &bad).unwrap_err().contains("port"));
        assert_eq!(fs::read_to_string(&path).unwrap(), before);
    }
}
