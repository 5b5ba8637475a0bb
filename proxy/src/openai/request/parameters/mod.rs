//! The one table of request fields: what becomes of each, at each endpoint. Pure. The rows stand in `table.rs`, those
//! of responses in `responses.rs`, those of Anthropic's messages in `messages.rs`; `nested.rs` has the names inside of
//! objects.
//!
//! Read by the endpoints (which refuse and note by it), by the tests (a field without a row fails), and by the page
//! `docs/parameters.md`.

mod messages;
mod nested;
mod responses;
mod table;

use serde_json::{Value, value::RawValue};

pub(crate) use nested::unread;

use crate::{
    error::Error,
    near::nearest,
    openai::request::{
        json::{Fields, is_empty},
        options,
    },
    receipt::Receipt,
};

/// The endpoints that have fields of OpenAI's or Anthropic's; `routes.rs` has their paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Chat,
    Completions,
    Embeddings,
    Moderations,
    Images,
    Transcriptions,
    Translations,
    Responses,
    Messages,
}

/// What becomes of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Ollama is given it, in its own words.
    Mapped,
    /// Ollama has nothing like it; farllama brings its effect about.
    Emulated,
    /// It is not available here, so a request that asks for it is rejected.
    Refused,
    /// A hint that changes nothing here. It stands in the receipt.
    NoEffect,
}

/// One field at some endpoints.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) on: &'static [Endpoint],
    pub(crate) fate: Fate,
    /// JSON that asks for nothing, besides null and what is empty.
    pub(crate) defaults: &'static [&'static str],
    /// What is done, or for what is refused: the words of the refusal.
    pub(crate) note: &'static str,
}

use Fate::{Emulated, Mapped, NoEffect, Refused};

fn all() -> impl Iterator<Item = &'static Row> {
    table::TABLE.iter().chain(responses::TABLE).chain(messages::TABLE)
}

/// The rows of one endpoint.
pub(crate) fn rows(endpoint: Endpoint) -> impl Iterator<Item = &'static Row> {
    all().filter(move |row| row.on.contains(&endpoint))
}

impl Row {
    /// Whether a value asks for anything: null, what is empty and OpenAI's default do not.
    fn asks(&self, raw: &RawValue) -> bool {
        let value: Value = serde_json::from_str(raw.get()).unwrap_or_default();
        match &value {
            Value::Null => false,
            Value::String(text) if text.is_empty() => false,
            Value::Array(list) if list.is_empty() => false,
            Value::Object(map) if map.is_empty() => false,
            // A form has text alone.
            value => !self.defaults.iter().any(|default| {
                value.as_str() == Some(default)
                    || serde_json::from_str::<Value>(default).is_ok_and(|default| *value == default)
            }),
        }
    }
}

/// How many unknown names of a body are compared with all known ones: it may have a thousand.
const COMPARED: usize = 16;

/// Settles what the endpoint has not taken: refuses it, or notes that it has no effect. A name that neither OpenAI nor
/// Ollama has is noted as unknown, with the name that it may be a misspelling of. Paths in `unknown` are those that the
/// types of what was taken do not have: see [`unread`].
///
/// # Errors
/// A field that asks for something that is not available.
pub(crate) fn settle(
    endpoint: Endpoint,
    mut fields: Fields<'_>,
    unknown: Vec<String>,
    receipt: &mut Receipt,
) -> Result<(), Error> {
    // Most requests have nothing else.
    let others = if fields.is_empty() { None } else { Some(rows(endpoint)) };
    for row in others.into_iter().flatten() {
        match row.fate {
            Mapped | Emulated => {}
            Refused => {
                if fields.take_raw(row.name).is_some_and(|raw| row.asks(raw)) {
                    return Err(Error::unsupported(row.name, row.note));
                }
            }
            NoEffect => {
                if fields.take_raw(row.name).is_some_and(|raw| row.asks(raw)) {
                    receipt.no_effect(row.name);
                }
            }
        }
    }
    let asks = |raw: &RawValue| serde_json::from_str(raw.get()).map_or(true, |value| !is_empty(&value));
    for (nth, (name, raw)) in fields.left().enumerate() {
        let known = || rows(endpoint).map(|row| row.name);
        if known().any(|known| known == name) {
            if asks(raw) {
                receipt.no_effect(&name);
            }
        } else {
            let near = (nth < COMPARED).then(|| nearest(&name, known().chain(options::names()))).flatten();
            // `false` asks for nothing, but `stor: false` asks for something.
            if asks(raw) || near.is_some() && raw.get() != "null" {
                receipt.unknown(&name, near);
            }
        }
    }
    for path in unknown {
        if rows(endpoint).any(|row| row.name == path) { receipt.no_effect(&path) } else { unread(&path, receipt) }
    }
    Ok(())
}

/// Hints at names of a body that are probably misspelled, for a request that fails before [`settle`] sees them.
pub(crate) fn misspelled(endpoint: Endpoint, fields: Fields<'_>) -> Option<String> {
    let known = || rows(endpoint).map(|row| row.name).chain(options::names());
    let mut receipt = Receipt::default();
    for (name, _) in fields.left().filter(|(name, _)| !known().any(|known| known == name)).take(COMPARED) {
        receipt.unknown(&name, nearest(&name, known()));
    }
    receipt.hint()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes;

    /// The rows of routes that have fields.
    fn endpoints() -> impl Iterator<Item = (Endpoint, &'static routes::Row)> {
        routes::TABLE.iter().filter_map(|row| Some((row.endpoint?, row)))
    }

    /// The API's own list of an endpoint's fields: `fields.txt` in its folder, or a file with its name in a folder that
    /// it shares.
    fn fields(name: &str) -> String {
        let openai = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/openai");
        let own = std::fs::read_to_string(openai.join(name).join("fields.txt"));
        let shared = || std::fs::read_to_string(openai.join("audio").join(format!("{name}.txt")));
        // Anthropic's API has one folder for all.
        let anthropic = || std::fs::read_to_string(openai.join("../anthropic/fields.txt"));
        own.or_else(|_| shared()).or_else(|_| anthropic()).unwrap()
    }

    #[test]
    fn every_field_of_the_api_has_one_row_at_its_endpoint() {
        for (endpoint, route) in endpoints() {
            let known: Vec<&str> = rows(endpoint).map(|row| row.name).collect();
            let fields = fields(route.name);
            let fields: Vec<&str> = fields.lines().collect();
            assert_eq!(known, fields, "the table and the list of fields of {} have the same, by name", route.path);
        }
    }

    #[test]
    fn what_asks_for_nothing_is_neither_refused_nor_noted() {
        for row in all() {
            for text in ["null", "\"\"", "[]", "{}", " { } "].iter().chain(row.defaults) {
                let raw: &RawValue = serde_json::from_str(text).unwrap();
                assert!(!row.asks(raw), "{} {text}", row.name);
            }
        }
    }

    #[test]
    fn the_page_shows_what_the_table_says() {
        let mut page = String::from(
            "# What becomes of each request field\n\n\
             A field is *mapped* to what Ollama has, *emulated* by farllama, *refused* with a 400, or has *no effect*; what is\n\
             emulated or has no effect is listed in the response header `x-farllama-receipt`. A field that neither OpenAI nor Ollama\n\
             has (a typo, say) is listed there as `unknown`; `farllama explain` and the log suggest the name that was probably meant.\n\
             Null, empty values and OpenAI's defaults are never refused.\n",
        );
        for (endpoint, route) in endpoints() {
            page.push_str(&format!(
                "\n## {}\n\n{}\n\n| field | fate | how |\n|---|---|---|\n",
                route.title(),
                route.summary
            ));
            for row in rows(endpoint) {
                let fate = match row.fate {
                    Mapped => "mapped",
                    Emulated => "emulated",
                    Refused => "refused",
                    NoEffect => "no effect",
                };
                page.push_str(&format!("| `{}` | {fate} | {} |\n", row.name, row.note));
            }
        }
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/parameters.md");
        if std::env::var_os("FARLLAMA_BLESS").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &page).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap_or_default(), page, "cargo xtask bless rewrites the page");
    }
}
