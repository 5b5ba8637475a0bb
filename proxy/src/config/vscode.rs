//! Settings in a `settings.json` of VS Code: the names that begin with `ollamaProxy.`, such as
//! `ollamaProxy.remote.host`, or `ollamaProxy.remoteHost` in the editor's own style. Everything else in the file is the
//! editor's.

use jsonc_parser::{ParseOptions, cst::CstRootNode};
use serde_json::Value as Json;

use super::{
    settings::{SETTINGS, Setting},
    value::Value,
};
use crate::near::nearest;

const PREFIX: &str = "ollamaProxy";

/// A name of the file that begins with the prefix.
pub(super) struct Entry {
    /// As it stands there.
    pub(super) name: String,
    /// Where it stands.
    pub(super) at: usize,
    /// None: there is no such setting; the text says which one is near.
    pub(super) setting: Result<&'static Setting, String>,
    pub(super) value: Result<Value, String>,
}

/// Reads a file's text.
///
/// # Errors
/// Fails if it is not a JSON object.
pub(super) fn read(text: &str) -> Result<Vec<Entry>, String> {
    let root = CstRootNode::parse(text, &ParseOptions::default()).map_err(|error| error.to_string())?;
    let Some(Json::Object(all)) = root.to_serde_value() else { return Err("expected a JSON object".to_owned()) };
    let mut entries = Vec::new();
    for (name, value) in all {
        let Some(rest) = name.strip_prefix(PREFIX) else { continue };
        let at = text.find(&format!("\"{name}\"")).unwrap_or(0);
        match (rest.strip_prefix('.'), value) {
            (Some(rest), value) => add(&mut entries, rest, at, value),
            (None, Json::Object(sections)) if rest.is_empty() => {
                sections.into_iter().for_each(|(section, value)| add(&mut entries, &section, at, value));
            }
            _ => {}
        }
    }
    Ok(entries)
}

/// Adds a setting, or those of a section.
fn add(entries: &mut Vec<Entry>, name: &str, at: usize, value: Json) {
    match (find(name), value) {
        (None, Json::Object(inner)) if SETTINGS.iter().any(|setting| plain(setting.section()) == plain(name)) => {
            inner.into_iter().for_each(|(key, value)| add(entries, &format!("{name}.{key}"), at, value));
        }
        (setting, value) => {
            let setting = setting.ok_or_else(|| {
                let names: Vec<String> = SETTINGS.iter().map(|setting| plain(setting.key)).collect();
                let near = nearest(&plain(name), names.iter().map(String::as_str)).and_then(find);
                near.map_or_else(String::new, |near| format!(": did you mean {PREFIX}.{}?", near.key))
            });
            entries.push(Entry { name: format!("{PREFIX}.{name}"), at, setting, value: value_of(value) });
        }
    }
}

fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| plain(setting.key) == plain(name))
}

/// A name without what the two styles write differently.
fn plain(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

fn value_of(value: Json) -> Result<Value, String> {
    let text = |value: Json| match value {
        Json::String(text) => Ok(text),
        other => Err(format!("expected a string, got {other}")),
    };
    Ok(match value {
        Json::String(text) => Value::Text(text),
        Json::Bool(on) => Value::Boolean(on),
        Json::Number(number) => {
            Value::Integer(number.as_i64().ok_or_else(|| format!("{number} is not a whole number"))?)
        }
        Json::Array(items) => Value::List(items.into_iter().map(text).collect::<Result<_, _>>()?),
        Json::Object(pairs) => {
            let pairs = pairs.into_iter().map(|(name, value)| Ok((name, text(value)?)));
            Value::Table(pairs.collect::<Result<_, String>>()?)
        }
        Json::Null => return Err("null is not a value here: remove the line".to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use crate::config::{Config, Error, Sources, load};

    fn loaded(text: &str) -> Result<Config, Error> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("settings.json");
        fs::write(&path, text).unwrap();
        load(&Sources { file: Some(path), ..Sources::default() }).map(|loaded| loaded.config)
    }

    #[test]
    fn both_styles_of_names_are_read_among_those_of_the_editor() {
        let config = loaded(
            "{\n  // mine\n  \"editor.fontSize\": 14,\n  \"ollamaProxy.remoteHost\": \"gpu-box\",\n  \"ollamaProxy.remote.base_path\": \"/x\",\n  \
             \"ollamaProxy.local\": { \"port\": 12345 },\n  \"ollamaProxy.openaiStrict\": true,\n  \"ollamaProxy.models.aliases\": { \"gpt-4o\": \"qwen3:30b\" },\n}\n",
        )
        .unwrap();
        assert_eq!((&*config.remote.host, &*config.remote.base_path, config.local.port), ("gpu-box", "/x", 12345));
        assert!(config.openai.strict);
        assert_eq!(config.models.behind("gpt-4o", None).0, "qwen3:30b");
        let nested = loaded("{\"ollamaProxy\": {\"remote\": {\"host\": \"a\"}, \"localPort\": 5}}").unwrap();
        assert_eq!((&*nested.remote.host, nested.local.port), ("a", 5));
    }

    #[test]
    fn mistakes_have_their_line() {
        let wrong =
            loaded("{\n  \"ollamaProxy.remoteHots\": \"x\",\n  \"ollamaProxy.localPort\": \"high\"\n}\n").unwrap_err();
        let text = wrong.to_string();
        assert!(
            text.contains(
                "settings.json:2:3: unknown setting ollamaProxy.remoteHots: did you mean ollamaProxy.remote.host?"
            ),
            "{text}"
        );
        assert!(text.contains("settings.json:3:3: ollamaProxy.localPort: invalid port \"high\""), "{text}");
        assert!(loaded("[]").unwrap_err().to_string().contains("expected a JSON object"));
    }
}
