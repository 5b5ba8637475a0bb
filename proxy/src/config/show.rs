//! The settings in force, as a file that could be loaded again: secrets masked, each value with its origin.

use std::fmt::Write;

use crate::config::{load::Loaded, settings::SETTINGS, value::Shown};

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
            let _ = write!(out, "\n[{of}]\n");
            table = of;
        }
        let value = match (setting.show)(&loaded.config) {
            Shown::Value(value) => value,
            Shown::Masked => "\"***\"".to_owned(),
            Shown::Nothing => continue,
        };
        let _ = writeln!(out, "{name} = {value}  # {}", loaded.origin(setting));
    }
    out
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
}
