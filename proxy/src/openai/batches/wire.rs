//! A batch as clients see it, and the lines of its files. Pure.

use std::{borrow::Cow, collections::HashSet, ops::Range};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, value::RawValue};

use crate::{
    error::Error,
    openai::{
        files::wire::expires_after,
        request::{
            json::{Fields, Json, Text, read},
            metadata,
            parameters::unread,
        },
    },
    receipt::Receipt,
    stamp::Stamp,
    text,
};

/// The routes that a batch may ask.
const ENDPOINTS: [&str; 5] =
    ["/v1/chat/completions", "/v1/responses", "/v1/embeddings", "/v1/completions", "/v1/moderations"];

/// Maximum number of lines of one batch, as OpenAI's.
const MOST_LINES: usize = 50_000;

/// Maximum number of errors that are listed of one input file.
const MOST_ERRORS: usize = 100;

/// The only completion window, in seconds.
const WINDOW: u64 = 24 * 60 * 60;

/// Where a batch stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Status {
    Validating,
    Failed,
    InProgress,
    Finalizing,
    Completed,
    Expired,
    Cancelling,
    Cancelled,
}

impl Status {
    /// Whether nothing more happens to it.
    pub(super) fn is_final(self) -> bool {
        matches!(self, Self::Failed | Self::Completed | Self::Expired | Self::Cancelled)
    }
}

/// A batch.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub(super) struct Batch {
    pub(super) id: String,
    pub(super) object: Cow<'static, str>,
    pub(super) endpoint: String,
    pub(super) model: Option<String>,
    pub(super) errors: Option<Errors>,
    pub(super) input_file_id: String,
    pub(super) completion_window: Cow<'static, str>,
    pub(super) status: Status,
    pub(super) output_file_id: Option<String>,
    pub(super) error_file_id: Option<String>,
    pub(super) created_at: u64,
    pub(super) in_progress_at: Option<u64>,
    pub(super) expires_at: u64,
    pub(super) finalizing_at: Option<u64>,
    pub(super) completed_at: Option<u64>,
    pub(super) failed_at: Option<u64>,
    pub(super) expired_at: Option<u64>,
    pub(super) cancelling_at: Option<u64>,
    pub(super) cancelled_at: Option<u64>,
    pub(super) request_counts: Counts,
    pub(super) usage: Option<Usage>,
    pub(super) metadata: Option<Map<String, Value>>,
}

impl Batch {
    /// Moves it on, at the time `now`.
    pub(super) fn set(&mut self, status: Status, now: u64) {
        self.status = status;
        let time = match status {
            Status::Validating => return,
            Status::InProgress => &mut self.in_progress_at,
            Status::Finalizing => &mut self.finalizing_at,
            Status::Completed => &mut self.completed_at,
            Status::Failed => &mut self.failed_at,
            Status::Expired => &mut self.expired_at,
            Status::Cancelling => &mut self.cancelling_at,
            Status::Cancelled => &mut self.cancelled_at,
        };
        *time = Some(now);
    }

    /// Ends it with errors.
    pub(super) fn fail(&mut self, errors: Vec<LineError>, now: u64) {
        self.errors = Some(Errors { object: Cow::Borrowed("list"), data: errors });
        self.set(Status::Failed, now);
    }
}

/// What is wrong with a batch.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub(super) struct Errors {
    object: Cow<'static, str>,
    data: Vec<LineError>,
}

/// What is wrong with a line of the input file, or with the batch.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub(super) struct LineError {
    code: Cow<'static, str>,
    message: String,
    param: Option<String>,
    /// From 1 on.
    line: Option<usize>,
}

impl LineError {
    pub(super) fn of_batch(code: &'static str, message: impl Into<String>) -> Self {
        Self { code: Cow::Borrowed(code), message: message.into(), param: None, line: None }
    }
}

/// How many requests there are, and how they ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub(super) struct Counts {
    pub(super) total: usize,
    pub(super) completed: usize,
    pub(super) failed: usize,
}

/// The tokens of all requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub(super) struct Usage {
    input_tokens: u64,
    input_tokens_details: Cached,
    output_tokens: u64,
    output_tokens_details: Reasoning,
    total_tokens: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
struct Cached {
    cached_tokens: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
struct Reasoning {
    reasoning_tokens: u64,
}

impl Usage {
    /// Adds the `usage` of a response, whichever endpoint it is of.
    pub(super) fn add(&mut self, usage: &Value) {
        let count = |names: [&str; 2]| names.iter().find_map(|name| usage[*name].as_u64()).unwrap_or(0);
        let detail = |names: [&str; 2], name| names.iter().find_map(|of| usage[*of][name].as_u64()).unwrap_or(0);
        self.input_tokens += count(["input_tokens", "prompt_tokens"]);
        self.output_tokens += count(["output_tokens", "completion_tokens"]);
        self.total_tokens += count(["total_tokens", "total_tokens"]);
        self.input_tokens_details.cached_tokens +=
            detail(["input_tokens_details", "prompt_tokens_details"], "cached_tokens");
        self.output_tokens_details.reasoning_tokens +=
            detail(["output_tokens_details", "completion_tokens_details"], "reasoning_tokens");
    }
}

/// A request for a batch.
#[derive(Debug)]
pub(super) struct Create {
    pub(super) input_file_id: String,
    endpoint: String,
    metadata: Option<Map<String, Value>>,
    /// Seconds until its output files expire.
    pub(super) output_expires_after: Option<u64>,
}

impl Create {
    /// # Errors
    /// Fails if a field is missing or invalid.
    pub(super) fn read(json: &Json, receipt: &mut Receipt) -> Result<Self, Error> {
        #[derive(Deserialize)]
        struct Expiry<'a> {
            #[serde(borrow)]
            anchor: Option<Text<'a>>,
            seconds: Option<i64>,
        }
        let mut ignored = Vec::new();
        let mut fields: Fields<'_> = json.fields()?;
        let file: Text<'_> = fields.need("input_file_id", &mut ignored)?;
        let endpoint: Text<'_> = fields.need("endpoint", &mut ignored)?;
        if !ENDPOINTS.contains(&&*endpoint) {
            return Err(Error::invalid(
                "endpoint",
                format!(
                    "Invalid value: '{}'. Supported values are: '{}'.",
                    text::name(&endpoint),
                    ENDPOINTS.join("', '")
                ),
            ));
        }
        let window: Text<'_> = fields.need("completion_window", &mut ignored)?;
        if &*window != "24h" {
            let message = format!("Invalid value: '{}'. Supported values are: '24h'.", text::name(&window));
            return Err(Error::invalid("completion_window", message));
        }
        let metadata = match fields.take_raw("metadata") {
            Some(raw) => Some(metadata::checked(read("metadata", raw)?)?),
            None => None,
        };
        let expiry = fields.take::<Expiry<'_>>("output_expires_after", &mut ignored)?;
        let output_expires_after = match expiry {
            Some(Expiry { anchor, seconds }) => {
                let seconds = seconds.map(|seconds| seconds.to_string());
                expires_after("output_expires_after", anchor.as_deref(), seconds.as_deref())?
            }
            None => None,
        };
        ignored.extend(fields.left().map(|(name, _)| name.into_owned()));
        ignored.iter().for_each(|path| unread(path, receipt));
        let (input_file_id, endpoint) = (file.0.into_owned(), endpoint.0.into_owned());
        Ok(Self { input_file_id, endpoint, metadata, output_expires_after })
    }

    /// The batch, before its file is read.
    pub(super) fn batch(self, stamp: Stamp) -> Batch {
        Batch {
            id: stamp.id,
            object: Cow::Borrowed("batch"),
            endpoint: self.endpoint,
            model: None,
            errors: None,
            input_file_id: self.input_file_id,
            completion_window: Cow::Borrowed("24h"),
            status: Status::Validating,
            output_file_id: None,
            error_file_id: None,
            created_at: stamp.created,
            in_progress_at: None,
            expires_at: stamp.created.saturating_add(WINDOW),
            finalizing_at: None,
            completed_at: None,
            failed_at: None,
            expired_at: None,
            cancelling_at: None,
            cancelled_at: None,
            request_counts: Counts::default(),
            usage: None,
            metadata: self.metadata,
        }
    }
}

/// A request of the input file.
#[derive(Debug, PartialEq)]
pub(super) struct Line {
    pub(super) custom_id: String,
    /// Where its body stands in the file.
    pub(super) body: Range<usize>,
}

/// The requests of an input file for `endpoint`, and the model that the first one names.
///
/// # Errors
/// Fails if a line is not such a request; lists what is wrong.
pub(super) fn lines(file: &[u8], endpoint: &str) -> Result<(Vec<Line>, Option<String>), Vec<LineError>> {
    let Ok(text) = std::str::from_utf8(file) else {
        return Err(vec![LineError::of_batch("invalid_json_line", "The file is not UTF-8.")]);
    };
    let (mut lines, mut errors, mut model) = (Vec::new(), Vec::new(), None);
    let mut ids = HashSet::new();
    for (n, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        if lines.len() == MOST_LINES {
            errors.push(LineError::of_batch(
                "too_many_tasks",
                format!("The file has more than {MOST_LINES} requests; split it."),
            ));
            break;
        }
        match one(line, endpoint) {
            Ok((custom_id, body, named)) if ids.insert(custom_id.clone()) => {
                model = model.or(named);
                let start = body.as_ptr() as usize - text.as_ptr() as usize;
                lines.push(Line { custom_id, body: start..start + body.len() });
            }
            Ok((custom_id, ..)) => errors.push(LineError {
                code: Cow::Borrowed("duplicate_custom_id"),
                message: format!("The custom_id '{}' is that of another line, too.", text::name(&custom_id)),
                param: Some("custom_id".to_owned()),
                line: Some(n + 1),
            }),
            Err(error) => errors.push(LineError { line: Some(n + 1), ..error }),
        }
        if errors.len() == MOST_ERRORS {
            break;
        }
    }
    if lines.is_empty() && errors.is_empty() {
        errors.push(LineError::of_batch("empty_file", "The file has no requests."));
    }
    if errors.is_empty() { Ok((lines, model)) } else { Err(errors) }
}

/// The parts of one line: its id, its body, and the model that it names.
fn one<'a>(line: &'a str, endpoint: &str) -> Result<(String, &'a str, Option<String>), LineError> {
    #[derive(Deserialize)]
    struct Asked<'a> {
        #[serde(borrow)]
        custom_id: Text<'a>,
        #[serde(borrow)]
        method: Text<'a>,
        #[serde(borrow)]
        url: Text<'a>,
        #[serde(borrow)]
        body: &'a RawValue,
    }
    let wrong = |code, param: Option<&str>, message: String| LineError {
        code: Cow::Borrowed(code),
        message,
        param: param.map(str::to_owned),
        line: None,
    };
    let broken =
        |error: serde_json::Error| wrong("invalid_json_line", None, format!("This line is not a request: {error}."));
    let asked: Asked<'a> = serde_json::from_str(line).map_err(broken)?;
    if &*asked.method != "POST" {
        return Err(wrong("invalid_method", Some("method"), "The method must be 'POST'.".to_owned()));
    }
    if &*asked.url != endpoint {
        let message = format!("The URL is '{}', but the batch is for '{endpoint}'.", text::name(&asked.url));
        return Err(wrong("mismatched_endpoint", Some("url"), message));
    }
    let fields: Fields<'_> = serde_json::from_str(asked.body.get()).map_err(|error| {
        wrong("invalid_json_line", Some("body"), format!("The body is not a JSON object: {error}."))
    })?;
    for name in ["stream", "background"] {
        if fields.raw(name).is_some_and(|raw| raw.get() == "true") {
            let message = format!("A request of a batch cannot have '{name}': true.");
            return Err(wrong("unsupported_parameter", Some(&format!("body.{name}")), message));
        }
    }
    let model = fields.raw("model").and_then(|raw| serde_json::from_str::<Text<'_>>(raw.get()).ok());
    Ok((asked.custom_id.0.into_owned(), asked.body.get(), model.map(|model| model.0.into_owned())))
}

/// A line of an output file: what became of a request.
#[derive(Serialize)]
pub(super) struct Outcome<'a> {
    pub(super) id: String,
    pub(super) custom_id: &'a str,
    pub(super) response: Option<Answered<'a>>,
    pub(super) error: Option<NotAsked>,
}

/// A response, whatever its status.
#[derive(Serialize)]
pub(super) struct Answered<'a> {
    pub(super) status_code: u16,
    pub(super) request_id: &'a str,
    pub(super) body: &'a Value,
}

/// Why a request was not sent.
#[derive(Clone, Copy, Serialize)]
pub(super) struct NotAsked {
    pub(super) code: &'static str,
    pub(super) message: &'static str,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_usage_of_every_endpoint_is_added() {
        let mut usage = Usage::default();
        usage.add(&json!({"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5, "prompt_tokens_details": {"cached_tokens": 1}}));
        usage.add(&json!({"input_tokens": 10, "output_tokens": 20, "total_tokens": 30, "output_tokens_details": {"reasoning_tokens": 7}}));
        usage.add(&json!({"prompt_tokens": 4, "total_tokens": 4}));
        usage.add(&Value::Null);
        let expected = json!({"input_tokens": 17, "input_tokens_details": {"cached_tokens": 1}, "output_tokens": 22,
            "output_tokens_details": {"reasoning_tokens": 7}, "total_tokens": 39});
        assert_eq!(json!(usage), expected);
    }

    #[test]
    fn a_file_has_bounded_lines_and_errors() {
        let line =
            |n: usize| json!({"custom_id": n.to_string(), "method": "POST", "url": "/v1/embeddings", "body": {}});
        let many: String = (0..=MOST_LINES).map(|n| format!("{}\n", line(n))).collect();
        assert_eq!(lines(many.as_bytes(), "/v1/embeddings").unwrap_err()[0].code, "too_many_tasks");
        let broken = "{}\n".repeat(MOST_ERRORS + 10);
        assert_eq!(lines(broken.as_bytes(), "/v1/embeddings").unwrap_err().len(), MOST_ERRORS);
        for empty in [&b""[..], b" \n\n", b"\xFF"] {
            assert_eq!(lines(empty, "/v1/embeddings").unwrap_err().len(), 1);
        }
    }
}
