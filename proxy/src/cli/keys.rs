//! `farllama key`: creates, lists and revokes the callers' keys in the settings file. Comments and layout of the file
//! are preserved.

use clap::ArgMatches;
use farllama::config::{Digest, Loaded, Sources, Token, edit, load};
use toml_edit::{Array, DocumentMut, InlineTable, Item, Table, Value};

/// A key to create.
#[derive(Debug, Default)]
pub(crate) struct New {
    name: Option<String>,
    limit: Option<u32>,
    tokens_per_minute: Option<u32>,
    tokens_per_day: Option<u32>,
    expires: Option<String>,
    max_concurrent: Option<u32>,
    models: Vec<String>,
    routes: Vec<String>,
    save: bool,
}

impl New {
    pub(crate) fn of(matches: &ArgMatches) -> Self {
        let list = |name| matches.get_many::<String>(name).into_iter().flatten().cloned().collect();
        Self {
            name: matches.get_one("name").cloned(),
            limit: matches.get_one("limit").copied(),
            tokens_per_minute: matches.get_one("tokens-per-minute").copied(),
            tokens_per_day: matches.get_one("tokens-per-day").copied(),
            expires: matches.get_one("expires").cloned(),
            max_concurrent: matches.get_one("max-concurrent").copied(),
            models: list("models"),
            routes: list("routes"),
            save: matches.get_flag("save"),
        }
    }

    /// Its entry in the settings.
    fn row(&self, digest: Digest) -> InlineTable {
        let mut row = InlineTable::new();
        row.insert("key_hash", digest.to_string().into());
        if let Some(name) = &self.name {
            row.insert("name", name.into());
        }
        for (field, limit) in [
            ("limit_per_minute", self.limit),
            ("tokens_per_minute", self.tokens_per_minute),
            ("tokens_per_day", self.tokens_per_day),
            ("max_concurrent", self.max_concurrent),
        ] {
            if let Some(limit) = limit {
                row.insert(field, i64::from(limit).into());
            }
        }
        if let Some(expires) = &self.expires {
            row.insert("expires", expires.into());
        }
        for (field, list) in [("models", &self.models), ("routes", &self.routes)] {
            if !list.is_empty() {
                row.insert(field, Value::Array(list.iter().collect()));
            }
        }
        row
    }
}

/// Creates a key of 244 random bits, which needs no salt and no slow digest. Returns the text to print.
///
/// # Errors
/// Fails if the name is taken, a pattern is invalid, or the file cannot be changed.
pub(crate) fn create(new: &New, sources: &Sources) -> Result<String, String> {
    let key = format!("fl-{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple());
    let row = new.row(Digest::of(key.as_bytes()));
    // As the settings would read it, so that a wrong pattern is reported before the key is handed out.
    farllama::Config::from_toml(&format!("[auth]\nenabled = true\nkeys = [{row}]\n")).map_err(|error| {
        error.mistakes()[0].split_once("auth.keys: ").map_or(String::new(), |(_, wrong)| wrong.to_owned())
    })?;
    let current = load(sources).ok();
    let tokens = current.as_ref().map_or(&[][..], |loaded| &loaded.config.auth.tokens);
    if let Some(name) = &new.name
        && tokens.iter().any(|token| token.name == *name)
    {
        return Err(format!(
            "there is a key of that name: revoke it first (`farllama key revoke {name}`), or choose another name"
        ));
    }
    let shown = format!("Key, for the caller; it is shown only now:\n  {key}\n\n");
    if new.save {
        let path = edit(sources, |document| add(document, row))?;
        let path = path.display();
        let off = match load(sources) {
            Ok(loaded) if !loaded.config.auth.enabled => {
                "\nauth.enabled is false, so no key is required yet: set it to true under [auth].\n"
            }
            _ => "",
        };
        return Ok(format!("{shown}Saved in {path}. A running farllama takes it after `farllama reload`.\n{off}"));
    }
    let place = sources.path().map_or("the settings file".to_owned(), |path| path.display().to_string());
    Ok(if tokens.is_empty() {
        format!(
            "{shown}Add this to {place} (or let `--save` do it):\n  [auth]\n  enabled = true\n  keys = [\n    {row},\n  ]\n"
        )
    } else {
        format!("{shown}Add this line to `keys` under [auth] in {place} (or let `--save` do it):\n    {row},\n")
    })
}

/// The table of `farllama key list`.
pub(crate) fn list(loaded: &Loaded) -> String {
    let auth = &loaded.config.auth;
    if auth.tokens.is_empty() {
        return "There are no keys. Create one: farllama key new --name NAME --save\n".to_owned();
    }
    let count = |limit: Option<usize>| limit.map_or("no limit".to_owned(), |limit| limit.to_string());
    let tokens = |limit: Option<u64>| limit.map_or("no limit".to_owned(), |limit| limit.to_string());
    let names = |list: &Option<Vec<String>>| list.as_ref().map_or("all".to_owned(), |list| list.join(", "));
    let row = |token: &Token| {
        [
            token.name.clone(),
            count(token.limit_per_minute),
            count(token.max_concurrent),
            names(&token.models),
            names(&token.routes),
            tokens(token.tokens_per_minute),
            tokens(token.tokens_per_day),
            token.expires.map_or("never".to_owned(), |at| at.to_string()),
        ]
    };
    let head =
        ["NAME", "PER MINUTE", "CONCURRENT", "MODELS", "ROUTES", "TOKENS PER MINUTE", "TOKENS PER DAY", "EXPIRES"]
            .map(str::to_owned);
    let rows: Vec<[String; 8]> = std::iter::once(head).chain(auth.tokens.iter().map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..8).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    if !auth.enabled {
        text.push_str("\nauth.enabled is false: no key is required.\n");
    }
    text
}

/// Removes a key from the settings file. Returns the text to print.
///
/// # Errors
/// Fails if there is no such key in the file, if it is the last one, or if the file cannot be changed.
pub(crate) fn revoke(name: &str, sources: &Sources) -> Result<String, String> {
    let loaded = load(sources).map_err(|error| error.to_string())?;
    let auth = &loaded.config.auth;
    let known: Vec<&str> = auth.tokens.iter().map(|token| &*token.name).collect();
    let same: Vec<usize> = (0..known.len()).filter(|at| known[*at] == name).collect();
    let at = match same.as_slice() {
        [at] => *at,
        [] if known.is_empty() => return Err("there are no keys".to_owned()),
        [] => return Err(format!("there is no key {name:?}. There are: {}", known.join(", "))),
        _ => return Err(format!("{} keys are called {name:?}: remove one in the file", same.len())),
    };
    if known.len() == 1 && auth.enabled {
        return Err(format!(
            "{name:?} is the last key, and with auth.enabled farllama does not start without one: create another key \
             first, or set auth.enabled to false"
        ));
    }
    let path = edit(sources, |document| remove(document, at))?;
    let path = path.display();
    Ok(format!("Removed the key of {name} from {path}. A running farllama forgets it after `farllama reload`.\n"))
}

/// The list of keys, under its new or its old name.
fn keys_of(auth: &mut Table) -> &mut Item {
    let name = if auth.contains_key("tokens") { "tokens" } else { "keys" };
    auth.entry(name).or_insert(Item::Value(Value::Array(Array::new())))
}

fn auth_of(document: &mut DocumentMut) -> Result<&mut Table, String> {
    let auth = document.entry("auth").or_insert(Item::Table(Table::new()));
    if let Item::Value(Value::InlineTable(inline)) = auth {
        *auth = Item::Table(std::mem::take(inline).into_table());
    }
    auth.as_table_mut().ok_or_else(|| "auth is not a table in the settings file".to_owned())
}

fn add(document: &mut DocumentMut, row: InlineTable) -> Result<(), String> {
    let auth = auth_of(document)?;
    if !auth.contains_key("enabled") {
        auth.insert("enabled", true.into());
    }
    match keys_of(auth) {
        Item::ArrayOfTables(tables) => tables.push(row.into_table()),
        Item::Value(Value::Array(keys)) => {
            // What follows the last key, such as a comment in its line, stays behind that key.
            let rest = keys.trailing().as_str().unwrap_or_default().trim_end().to_owned();
            let mut row = Value::InlineTable(row);
            row.decor_mut().set_prefix(format!("{rest}\n  "));
            keys.push_formatted(row);
            keys.set_trailing_comma(true);
            keys.set_trailing("\n");
        }
        _ => return Err("auth.keys is not a list in the settings file".to_owned()),
    }
    Ok(())
}

fn remove(document: &mut DocumentMut, at: usize) -> Result<(), String> {
    let elsewhere =
        || "this key is not in the settings file, but in auth.keys_file, FARLLAMA_AUTH_KEYS or a flag".to_owned();
    match keys_of(auth_of(document)?) {
        Item::ArrayOfTables(tables) if at < tables.len() => {
            tables.remove(at);
        }
        Item::Value(Value::Array(keys)) if at < keys.len() => {
            keys.remove(at);
        }
        _ => return Err(elsewhere()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn sources(text: &str) -> (tempfile::TempDir, Sources) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        fs::write(&path, text).unwrap();
        (folder, Sources { file: Some(path), ..Sources::default() })
    }

    fn text(sources: &Sources) -> String {
        fs::read_to_string(sources.file.as_ref().unwrap()).unwrap()
    }

    fn ann() -> New {
        New {
            name: Some("ann".to_owned()),
            limit: Some(60),
            models: vec!["gpt-oss".to_owned(), "qwen3:8b".to_owned()],
            save: true,
            ..New::default()
        }
    }

    #[test]
    fn a_saved_key_is_added_and_everything_else_is_preserved() {
        for before in [
            "# mine\n[remote]\nhost = \"gpu-box\" # the big one\n",
            "[auth]\nenabled = true\nkeys = [\n  { key = \"bobs-key\", name = \"bob\" }, # bob\n]\n# end\n",
            "[auth]\nenabled = true\ntokens = [{ key = \"bobs-key\", name = \"bob\" }]\n",
            "[auth]\nenabled = true\n[[auth.keys]]\nkey = \"bobs-key\"\nname = \"bob\"\n",
            "",
        ] {
            let (_folder, sources) = sources(before);
            let said = create(&ann(), &sources).unwrap();
            let after = text(&sources);
            let lost: Vec<_> =
                before.lines().filter(|line| !line.contains("tokens") && !after.contains(line)).collect();
            assert!(lost.is_empty(), "{lost:?} of {after}");
            let auth = load(&sources).unwrap().config.auth;
            let key = said.lines().map(str::trim).find(|line| line.starts_with("fl-")).unwrap();
            let token = auth.tokens.last().unwrap();
            assert!(auth.enabled && token.digest == Digest::of(key.as_bytes()), "{after}");
            assert_eq!((&*token.name, token.limit_per_minute), ("ann", Some(60)));
            assert!(!after.contains(key), "{after}");
            assert_eq!(auth.tokens.len(), 1 + usize::from(before.contains("bob")), "{after}");
            let again = create(&ann(), &sources).unwrap_err();
            assert!(again.contains("key revoke ann"), "{again}");
        }
    }

    #[test]
    fn a_revoked_key_is_gone_and_the_last_one_stays() {
        let (_folder, sources) = sources(
            "[auth]\nenabled = true\nkeys = [\n  # ours\n  { key = \"a\", name = \"ann\" },\n  { key = \"b\", name = \"bob\" },\n]\n",
        );
        let unknown = revoke("cid", &sources).unwrap_err();
        assert!(unknown.contains("ann, bob"), "{unknown}");
        revoke("ann", &sources).unwrap();
        let names: Vec<_> = load(&sources).unwrap().config.auth.tokens.into_iter().map(|token| token.name).collect();
        assert_eq!(names, ["bob"]);
        assert!(revoke("bob", &sources).unwrap_err().contains("last key"));
        assert!(text(&sources).contains("bob"));
    }

    #[test]
    fn a_wrong_pattern_makes_no_key_and_changes_no_file() {
        let (_folder, sources) = sources("[local]\nport = 1\n");
        let wrong = New { routes: vec!["api".to_owned()], ..ann() };
        assert!(create(&wrong, &sources).unwrap_err().contains("invalid path \"api\""));
        assert_eq!(text(&sources), "[local]\nport = 1\n");
    }

    #[test]
    fn without_save_the_line_fits_under_an_existing_table() {
        let (_folder, empty) = sources("");
        let unsaved = || New { save: false, ..ann() };
        assert!(create(&unsaved(), &empty).unwrap().contains("  [auth]\n  enabled = true\n"));
        let (_folder, keyed) = sources("[auth]\nenabled = true\nkeys = [{ key = \"b\", name = \"bob\" }]\n");
        let said = create(&unsaved(), &keyed).unwrap();
        assert!(!said.contains("  [auth]\n") && said.contains("limit_per_minute = 60"), "{said}");
        assert!(!text(&keyed).contains("ann"));
    }

    #[test]
    fn the_list_shows_what_each_key_may_do() {
        let (_folder, sources) = sources("");
        create(&ann(), &sources).unwrap();
        let shown = list(&load(&sources).unwrap());
        assert!(shown.starts_with("NAME  PER MINUTE"), "{shown}");
        assert!(shown.contains("ann   60          no limit    gpt-oss, qwen3:8b  all"), "{shown}");
    }
}
