//! The settings in force, as a file that could be loaded again: secrets masked, each value with its origin.

use std::fmt::Write;

use crate::config::{Config, Models, load::Loaded, remotes, settings::SETTINGS, tokens, value::Shown};

/// The text of `farllama config show`.
#[must_use]
pub fn show(loaded: &Loaded) -> String {
    let mut out = String::new();
    // Plain keys must stand before the first table.
    let (plain, tabled): (Vec<_>, Vec<_>) = SETTINGS.iter().partition(|setting| !setting.key.contains('.'));
    let mut table = "";
    for setting in plain.into_iter().chain(tabled) {
        let (of, name) = setting.key.split_once('.').unwrap_or(("", setting.key));
        if of != table {
            if table == "models" {
                out += &loaded.config.models.show(|name| loaded.origin_of_model(name));
            }
            let _ = write!(out, "\n[{of}]\n");
            table = of;
        }
        if !loaded.config.uses_section() && remotes::is_of_one(setting.key) {
            continue;
        }
        let value = match setting.show(&loaded.config) {
            Shown::Value(value) => value,
            Shown::Masked => "\"***\"".to_owned(),
            Shown::Nothing => continue,
        };
        let _ = writeln!(out, "{name} = {value}  # {}", loaded.origin(setting));
    }
    out
}

/// What differs between two configurations, one text per setting: `quota.queue: 100 → 5`. Secrets are named, not shown.
#[must_use]
pub fn changes(before: &Config, after: &Config) -> Vec<String> {
    let mut changes = Vec::new();
    for setting in SETTINGS {
        let key = setting.key;
        match (setting.show(before), setting.show(after)) {
            _ if key == "models.aliases" => changes.extend(Models::changes(&before.models, &after.models)),
            _ if key == "auth.keys" => {
                changes.extend(tokens::changes(&before.auth.tokens, &after.auth.tokens));
            }
            _ if key == "remotes" => changes.extend(remotes::changes(before, after)),
            // The first of several stands in for it.
            _ if remotes::is_of_one(key) && !before.uses_section() && !after.uses_section() => {}
            _ if key == "traces.headers" => {
                if before.traces.headers != after.traces.headers {
                    changes.push(key.to_owned());
                }
            }
            _ if key == "remote.headers" => {
                if before.remote.headers != after.remote.headers {
                    changes.push(key.to_owned());
                }
            }
            // Values that are not shown.
            (Shown::Masked, Shown::Masked) => {
                if differs(key, before, after) {
                    changes.push(key.to_owned());
                }
            }
            (Shown::Value(old), Shown::Value(new)) if old == new && differs(key, before, after) => {
                changes.push(key.to_owned());
            }
            (Shown::Value(old), Shown::Value(new)) => {
                if old != new {
                    changes.push(format!("{key}: {old} → {new}"));
                }
            }
            (old, new) => {
                if old != new {
                    changes.push(format!("{key} {}", if new == Shown::Nothing { "removed" } else { "added" }));
                }
            }
        }
    }
    changes
}

/// Whether what a mask hides of a setting differs.
fn differs(key: &str, before: &Config, after: &Config) -> bool {
    match key {
        "remote.api_key" | "remote.basic_auth" => before.remote.authorization != after.remote.authorization,
        "remote.proxy" => before.remote.reach.proxy != after.remote.reach.proxy,
        "responses.compaction_key" => before.responses.compaction_key != after.responses.compaction_key,
        "admin.token" => before.admin.token != after.admin.token,
        "store.url" => before.store.url != after.store.url,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load::{Sources, load};

    #[test]
    fn what_is_shown_has_origins_and_no_secrets() {
        let flags = vec![("remote.api_key", "hunter2".to_owned()), ("remote.headers", "X-Key: hunter2".to_owned())];
        let shown = show(&load(&Sources { flags, ..Sources::default() }).unwrap());
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(shown.contains("api_key = \"***\"  # --remote-api-key"), "{shown}");
        assert!(shown.contains("[local]\nhost = \"127.0.0.1\"  # default"), "{shown}");
    }

    #[test]
    fn changes_are_named_with_their_values_and_keys_by_their_names() {
        let config = |text: &str| Config::from_toml(text).unwrap();
        let keys = |keys: &str| config(&format!("[auth]\nenabled = true\nkeys = [{keys}]"));
        let before = keys("{ key = \"a\", name = \"ann\" }, { key = \"b\", name = \"bob\" }");
        let mut after = keys("{ key = \"hunter2\", name = \"ann\" }, { key = \"c\", name = \"cid\" }");
        after.quota.queue = 5;
        assert_eq!(
            changes(&before, &after),
            ["auth.keys: ann changed, cid added, bob removed", "quota.queue: 100 → 5"]
        );
        assert!(changes(&before, &before).is_empty());
        let remote = |key: &str| config(&format!("[remote]\napi_key = \"{key}\""));
        assert_eq!(changes(&remote("hunter2"), &remote("hunter3")), ["remote.api_key"]);
        assert_eq!(changes(&Config::default(), &remote("hunter3")), ["remote.api_key added"]);
        for (key, old, new) in [
            ("remote.proxy", "http://me:one@proxy:1", "http://me:two@proxy:1"),
            ("responses.compaction_key", "0123456789abcdef", "0123456789abcdeX"),
            ("admin.token", "one", "two"),
            ("store.url", "redis://:one@host", "redis://:two@host"),
        ] {
            let with = |value: &str| config(&format!("remote.api_key = \"k\"\n{key} = \"{value}\""));
            assert_eq!(changes(&with(old), &with(new)), [key], "{key}");
        }
    }
}
