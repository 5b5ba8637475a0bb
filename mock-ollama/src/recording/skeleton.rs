//! The part of a response that must be the same at every run: its skeleton. Keys in their order, texts and flags that
//! do not vary, and the kind of everything else. Repetitions count once, because a model decides how often it writes
//! the same kind of line.

use serde_json::Value;

use super::{Recording, Response};

/// Values that are compared verbatim.
const EXACT: [&str; 21] = [
    "error",
    "role",
    "model",
    "name",
    "version",
    "done",
    "done_reason",
    "format",
    "family",
    "families",
    "parameter_size",
    "quantization_level",
    "parent_model",
    "capabilities",
    "index",
    "size_vram",
    "status",
    "tool_name",
    "general.architecture",
    "general.basename",
    "general.type",
];
/// Values whose content is up to the model.
const OPAQUE: [&str; 2] = ["arguments", "projector_info"];

/// Returns everything that is compared, as text.
#[must_use]
pub fn of(response: &Response, recording: &Recording) -> String {
    let mut text = format!("{}\n", response.status);
    let body: String = response.chunks.iter().map(|(_, chunk)| chunk.as_str()).collect();
    // A HEAD of the list has a length, but no body that would explain it.
    let is_head_of_list = recording.request.method == "HEAD" && recording.request.path == "/api/tags";
    let varies = is_head_of_list
        || serde_json::from_str::<Value>(&body)
            .is_ok_and(|body| body.get("error").is_none() && body.get("version").is_none());
    for (name, value) in &response.headers {
        match name.as_str() {
            "Date" => text += "Date\n",
            "Content-Length" if varies => text += "Content-Length\n",
            _ => text += &format!("{name}: {value}\n"),
        }
    }
    text += &format!("framing {}\n", response.framing);
    let forced = Forced::by(recording);
    let mut last = String::new();
    // Without chunks of HTTP, only the lines can be distinguished.
    let pieces: Vec<&str> = match response.framing.as_str() {
        "close" => body.split_inclusive('\n').collect(),
        _ => response.chunks.iter().map(|(_, chunk)| chunk.as_str()).collect(),
    };
    for chunk in pieces {
        let newline = if chunk.ends_with('\n') { "⏎" } else { "" };
        let line = match serde_json::from_str::<Value>(chunk) {
            Ok(value) => value_of("", &value, forced) + newline,
            Err(_) => chunk.to_owned() + newline,
        };
        if line != last {
            text += &format!("{line}\n");
        }
        last = line;
    }
    text
}

/// What the request decides about its response, whatever the model writes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Forced {
    /// Why it ends.
    reason: bool,
    /// The tokens of its prompt; the templates of some models add examples that no client sees.
    prompt: bool,
}

impl Forced {
    pub(super) fn by(recording: &Recording) -> Self {
        let request: Value = serde_json::from_str(&recording.request.body).unwrap_or_default();
        let options = &request["options"];
        let is_short = options["num_predict"].as_u64().is_some_and(|most| (1..=5).contains(&most));
        let is_full = request["shift"] == false && options["num_predict"] == 300;
        let is_load = request["messages"] == Value::Array(Vec::new());
        let is_plain = request["model"] == "smollm2:135m" || request["model"] == "all-minilm";
        Self {
            reason: is_short || is_full || is_load || !options["stop"].is_null(),
            prompt: is_plain && recording.request.body.is_ascii()
                && !recording.request.body.contains("wizard")
                // A real tokenizer has tokens such as `{"`.
                && !recording.request.body.contains("JSON {")
                && !recording.request.body.contains("zeta"),
        }
    }
}

fn value_of(key: &str, value: &Value, forced: Forced) -> String {
    match value {
        _ if is_opaque(key) => "…".to_owned(),
        Value::Object(object) => {
            let parts = object.iter().map(|(key, value)| format!("{key}:{}", value_of(key, value, forced)));
            format!("{{{}}}", parts.collect::<Vec<_>>().join(","))
        }
        Value::Array(items) if key == "models" => {
            // Their order is a matter of when they were made.
            let mut items: Vec<String> = items.iter().map(|item| value_of(key, item, forced)).collect();
            items.sort();
            format!("[{}]", items.join(","))
        }
        Value::Array(items) => {
            let mut parts: Vec<String> = items.iter().map(|item| value_of(item_key(key), item, forced)).collect();
            if !matches!(key, "tool_calls" | "top_logprobs" | "embeddings") {
                parts.dedup();
            }
            if key == "tensors" {
                // Versions list them in their own orders.
                parts.sort();
                parts.dedup();
            }
            format!("[{}]", parts.join(","))
        }
        leaf => self::leaf(key, leaf, forced),
    }
}

/// Whether the content of `key` is up to the model.
pub(super) fn is_opaque(key: &str) -> bool {
    OPAQUE.contains(&key)
}

/// A value that is neither object nor array, verbatim or by its kind.
pub(super) fn leaf(key: &str, value: &Value, forced: Forced) -> String {
    match value {
        Value::String(text) => text_of(key, text, forced),
        Value::Number(number) if key == "prompt_eval_count" && forced.prompt => number.to_string(),
        Value::Number(number) if EXACT.contains(&key) => number.to_string(),
        Value::Number(number) => if number.is_f64() { "float" } else { "integer" }.to_owned(),
        value => value.to_string(),
    }
}

/// Tensors have names of their own; what else is in a list is like the list.
fn item_key(key: &str) -> &str {
    if key == "tensors" { "" } else { key }
}

fn text_of(key: &str, text: &str, forced: Forced) -> String {
    let is_hex = |text: &str| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let masked = || {
        // Digests, and their beginnings as progress reports show them; each piece ends with what divides it from the
        // next.
        let is_start = |part: &str| part.len() == 12 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
        let parts = text.split_inclusive([':', '-', '/', '"', ' ']).map(|part| {
            let word = part.trim_end_matches([':', '-', '/', '"', ' ']);
            if is_hex(word) || is_start(word) { format!("<hex>{}", &part[word.len()..]) } else { part.to_owned() }
        });
        parts.collect::<String>()
    };
    match key {
        "done_reason" if matches!(text, "stop" | "length") && !forced.reason => "ended".to_owned(),
        "created_at" | "modified_at" | "expires_at" => if is_time(text) { "time" } else { "time?" }.to_owned(),
        "id" => {
            let is_id = text
                .strip_prefix("call_")
                .is_some_and(|id| id.len() == 8 && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()));
            if is_id { "id".to_owned() } else { format!("id? {text}") }
        }
        "digest" => {
            // A model's, or a layer's with its kind.
            if is_hex(text) {
                "digest".to_owned()
            } else if text.strip_prefix("sha256:").is_some_and(is_hex) {
                "sha256:digest".to_owned()
            } else {
                format!("digest? {text}")
            }
        }
        key if EXACT.contains(&key) => format!("\"{}\"", masked()),
        _ => if text.is_empty() { "\"\"" } else { "text" }.to_owned(),
    }
}

/// RFC 3339 in UTC, trailing zeros of the second trimmed.
fn is_time(text: &str) -> bool {
    let Some(time) = text.strip_suffix('Z') else { return false };
    let (second, fraction) = time.split_once('.').unwrap_or((time, "1"));
    let is_second = second.len() == 19 && second.bytes().all(|byte| byte.is_ascii_digit() || b"-T:".contains(&byte));
    is_second
        && (1..=9).contains(&fraction.len())
        && fraction.bytes().all(|byte| byte.is_ascii_digit())
        && !fraction.ends_with('0')
}
