//! What differs between a recorded response and another one to the same request, as facts that a table can show.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{
    Recording, Response,
    skeleton::{self, Forced},
};

/// One fact that is not the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Difference {
    /// Such as `status`, `header Content-Type`, `line .message.content`.
    pub what: String,
    /// As recorded; `(absent)` if it is new.
    pub recorded: String,
    /// As it is now; `(absent)` if it is gone.
    pub now: String,
}

/// A header that only says how long the body is, or when it was sent.
const VARYING: [&str; 2] = ["Date", "Content-Length"];
/// The longest text of a fact.
const SHOWN: usize = 120;
const ABSENT: &str = "(absent)";

/// Compares the recorded response with another one: status, headers, framing, and the keys, kinds and fixed texts of
/// the JSON. What a model writes is not compared, nor times, digests, ids and measured durations.
#[must_use]
pub fn differences(recording: &Recording, now: &Response) -> Vec<Difference> {
    let forced = Forced::by(recording);
    let is_same_kind = recording.response.code() == now.code();
    let (recorded, now) = (facts(&recording.response, recording, forced), facts(now, recording, forced));
    let names: BTreeSet<&String> = recorded.keys().chain(now.keys()).collect();
    let differing = names.into_iter().filter(|name| recorded.get(*name) != now.get(*name)).filter(|name| {
        if !name.starts_with(BODY) {
            return true;
        }
        // A success and an error have nothing to compare; and what is new or gone as a whole is one difference.
        let is_part_of_absent = parent(name).is_some_and(|parent| {
            let (recorded, now) = (recorded.get(parent), now.get(parent));
            recorded.is_none() || now.is_none() || kind(recorded) != kind(now)
        });
        is_same_kind && !is_part_of_absent && !only_keys_differ(name, &recorded, &now)
    });
    let differing = differing.map(|name| Difference {
        what: name.split_once('\t').map_or(&**name, |(_, name)| name).to_owned(),
        recorded: shown(recorded.get(name)),
        now: shown(now.get(name)),
    });
    differing.collect()
}

/// The rank of facts about the body, and the tab after it.
const BODY: &str = "4\t";

/// The fact about what holds the value of another fact.
fn parent(name: &str) -> Option<&str> {
    let (document, path) = name.rsplit_once(' ')?;
    let end = path.rfind(['.', '['])?;
    match end {
        0 if path == "." => None,
        // The document itself is called `.`.
        0 => Some(&name[..=document.len() + 1]),
        end => Some(&name[..=document.len() + end]),
    }
}

/// Objects, lists, or values.
fn kind(values: Option<&BTreeSet<String>>) -> Option<char> {
    values?.first()?.chars().next().filter(|first| matches!(first, '{' | '['))
}

/// Whether two objects differ in nothing but keys that one of them lacks: each such key is a fact of its own.
fn only_keys_differ(name: &str, recorded: &Facts, now: &Facts) -> bool {
    let (Some(one), Some(other)) = (recorded.get(name), now.get(name)) else { return false };
    if kind(Some(one)) != Some('{') || kind(Some(other)) != Some('{') {
        return false;
    }
    let keys = |set: &BTreeSet<String>| -> Vec<Vec<String>> {
        let lists = set.iter().map(|keys| keys.trim_matches(['{', '}']).split(", ").map(str::to_owned).collect());
        lists.collect()
    };
    let (one, other) = (keys(one), keys(other));
    let (in_one, in_other): (BTreeSet<&String>, BTreeSet<&String>) =
        (one.iter().flatten().collect(), other.iter().flatten().collect());
    let common = |lists: &[Vec<String>]| -> BTreeSet<Vec<String>> {
        let is_common = |key: &&String| in_one.contains(key) && in_other.contains(key);
        lists.iter().map(|keys| keys.iter().filter(is_common).cloned().collect()).collect()
    };
    in_one != in_other && common(&one) == common(&other)
}

fn shown(values: Option<&BTreeSet<String>>) -> String {
    let Some(values) = values else { return ABSENT.to_owned() };
    let text = values.iter().map(String::as_str).collect::<Vec<_>>().join(" or ");
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Fact → its values. Names start with their rank and a tab, so that they sort as one reads a response.
type Facts = BTreeMap<String, BTreeSet<String>>;

fn facts(response: &Response, recording: &Recording, forced: Forced) -> Facts {
    let mut facts = Facts::new();
    let mut add = |rank: u8, name: &str, value: &str| {
        facts.entry(format!("{rank}\t{name}")).or_default().insert(value.to_owned());
    };
    add(0, "status", &response.status);
    for (name, value) in &response.headers {
        add(1, &format!("header {name}"), if VARYING.contains(&name.as_str()) { "present" } else { value });
    }
    add(2, "framing", &response.framing);
    let body = response.body();
    let is_stream = response.header("Content-Type").is_some_and(|value| value.contains("ndjson"));
    if is_stream && response.framing == "chunked" {
        let is_line = |chunk: &str| chunk.ends_with('\n') && chunk.matches('\n').count() == 1;
        let each = response.chunks.iter().all(|(_, chunk)| is_line(chunk));
        add(3, "lines in chunks", if each { "one line in each chunk" } else { "not one line in each chunk" });
    }
    let lists_models = matches!(recording.request.path.as_str(), "/api/tags" | "/api/ps");
    let documents: Vec<&str> = if is_stream { body.lines().collect() } else { vec![body.trim_end()] };
    for (nth, text) in documents.iter().enumerate().filter(|(_, text)| !text.is_empty()) {
        let name = match (is_stream, nth + 1 == documents.len()) {
            (false, _) => "body",
            (true, false) => "line",
            (true, true) => "last line",
        };
        match serde_json::from_str::<Value>(text) {
            Ok(value) => walk(&mut facts, &Place { name, forced, lists_models }, "", "", &value),
            Err(_) => {
                facts.entry(format!("{BODY}{name}")).or_default().insert((*text).to_owned());
            }
        }
    }
    // Whether one of many lines is empty is up to the model.
    for values in facts.values_mut().filter(|values| values.contains("text")) {
        values.remove("\"\"");
    }
    facts
}

struct Place<'a> {
    name: &'a str,
    forced: Forced,
    /// Each machine has its own models, so that only names and kinds can be compared.
    lists_models: bool,
}

fn walk(facts: &mut Facts, place: &Place<'_>, path: &str, key: &str, value: &Value) {
    let mut add = |path: &str, value: String| {
        let path = if path.is_empty() { "." } else { path };
        facts.entry(format!("{BODY}{} {path}", place.name)).or_default().insert(value);
    };
    match value {
        _ if skeleton::is_opaque(key) => add(path, "…".to_owned()),
        Value::Object(object) => {
            let keys: Vec<&str> = object.keys().map(String::as_str).collect();
            add(path, format!("{{{}}}", keys.join(", ")));
            for (key, value) in object {
                walk(facts, place, &format!("{path}.{key}"), key, value);
            }
        }
        Value::Array(items) if key == "tensors" => add(path, if items.is_empty() { "[]" } else { "[…]" }.to_owned()),
        Value::Array(items) => {
            add(path, if items.is_empty() { "[]" } else { "[…]" }.to_owned());
            for item in items {
                walk(facts, place, &format!("{path}[]"), key, item);
            }
        }
        Value::String(_) if place.lists_models => add(path, "text".to_owned()),
        value => add(path, skeleton::leaf(key, value, place.forced)),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::posted, *};

    fn row(what: &str, recorded: &str, now: &str) -> Difference {
        Difference { what: what.to_owned(), recorded: recorded.to_owned(), now: now.to_owned() }
    }

    #[test]
    fn what_differs_is_named_and_what_a_model_writes_does_not_count() {
        let line = "{\"model\":\"m\",\"message\":{\"role\":\"assistant\",\"content\":\"Hi\"},\"done\":false}\n";
        let last = "{\"model\":\"m\",\"done\":true,\"done_reason\":\"stop\",\"eval_count\":2}\n";
        let recording = posted("/api/chat", "{\"model\":\"m\"}", "chunked", &[line, line, last]);
        let mut now = recording.response.clone();
        now.chunks.remove(0);
        now.chunks[0].1 = line.replace("Hi", "Hello");
        assert_eq!(differences(&recording, &now), []);

        now.headers.push(("Vary".to_owned(), "Origin".to_owned()));
        now.chunks[0].1 = line.replace("\"content\":\"Hi\"", "\"content\":\"Hi\",\"calls\":[{\"a\":1}]");
        now.chunks[1].1 = last.replace(",\"eval_count\":2", "").replace("\"done\":true", "\"done\":1");
        let found = differences(&recording, &now);
        assert_eq!(
            found,
            [
                row("header Vary", ABSENT, "Origin"),
                row("last line .done", "true", "1"),
                row("last line .eval_count", "integer", ABSENT),
                row("line .message.calls", ABSENT, "[…]"),
            ]
        );

        now.status = "HTTP/1.1 500 Internal Server Error".to_owned();
        let found = differences(&recording, &now);
        let status = row("status", "HTTP/1.1 200 OK", "HTTP/1.1 500 Internal Server Error");
        assert_eq!(found, [status, row("header Vary", ABSENT, "Origin")], "an error has no parts to compare");
    }

    #[test]
    fn the_order_of_keys_and_the_text_of_an_error_count() {
        let recording = posted("/api/chat", "{}", "length", &["{\"error\":\"no\",\"code\":1}"]);
        let mut now = recording.response.clone();
        now.chunks[0].1 = "{\"code\":1,\"error\":\"yes\"}".to_owned();
        let found = differences(&recording, &now);
        let expected = [row("body .", "{error, code}", "{code, error}"), row("body .error", "\"no\"", "\"yes\"")];
        assert_eq!(found, expected);
    }

    #[test]
    fn other_models_on_another_machine_are_no_difference() {
        let mut recording = posted("/api/tags", "", "length", &["{\"models\":[{\"name\":\"a\",\"size\":1}]}"]);
        recording.request.method = "GET".to_owned();
        let mut now = recording.response.clone();
        now.chunks[0].1 = "{\"models\":[{\"name\":\"b\",\"size\":2},{\"name\":\"c\",\"size\":3}]}".to_owned();
        assert_eq!(differences(&recording, &now), []);
    }
}
