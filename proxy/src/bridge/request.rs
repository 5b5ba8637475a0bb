//! What clients of Ollama ask for: the bodies of `/api/chat`, `/api/generate`, `/api/embed` and of the routes about
//! models. Pure.

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::{
    bridge::go::{Object, Reader, bad_request, check_duration, kind},
    error::Error,
    near,
    ollama::refusal::Refused,
    receipt::Receipt,
};

/// What chat and generate have in common.
#[derive(Debug, Default)]
pub(super) struct Common<'a> {
    pub(super) model: Cow<'a, str>,
    pub(super) stream: bool,
    pub(super) format: Format<'a>,
    /// Whether the model is to be unloaded at once.
    pub(super) unloads: bool,
    pub(super) options: Vec<(&'static str, &'a RawValue)>,
    pub(super) think: Option<Think>,
    pub(super) logprobs: bool,
    pub(super) top_logprobs: u8,
}

/// The form of the answer.
#[derive(Debug, Default)]
pub(super) enum Format<'a> {
    #[default]
    Free,
    Json,
    Schema(&'a RawValue),
}

/// How much the model thinks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Think {
    Off,
    On,
    Level(&'static str),
}

/// The body of `POST /api/chat`.
#[derive(Debug)]
pub(super) struct Chat<'a> {
    pub(super) common: Common<'a>,
    pub(super) messages: Vec<Message<'a>>,
    /// Not empty where it is there.
    pub(super) tools: Option<Vec<&'a RawValue>>,
}

/// One message.
#[derive(Debug, Default)]
pub(super) struct Message<'a> {
    pub(super) role: String,
    pub(super) content: Cow<'a, str>,
    pub(super) thinking: Cow<'a, str>,
    /// Base64.
    pub(super) images: Vec<Cow<'a, str>>,
    pub(super) tool_calls: Vec<Call<'a>>,
    pub(super) tool_name: Cow<'a, str>,
    pub(super) tool_call_id: Cow<'a, str>,
}

/// A call in a message of the assistant's.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub(super) id: Cow<'a, str>,
    pub(super) name: Cow<'a, str>,
    /// An object.
    pub(super) arguments: &'a str,
}

/// The body of `POST /api/generate`.
#[derive(Debug)]
pub(super) struct Generate<'a> {
    pub(super) common: Common<'a>,
    pub(super) prompt: Cow<'a, str>,
    pub(super) suffix: Cow<'a, str>,
    pub(super) system: Cow<'a, str>,
    pub(super) raw: bool,
    pub(super) images: Vec<Cow<'a, str>>,
}

/// The body of `POST /api/embed` or `POST /api/embeddings`.
#[derive(Debug)]
pub(super) struct Embed<'a> {
    pub(super) model: Cow<'a, str>,
    pub(super) input: Vec<Cow<'a, str>>,
    pub(super) dimensions: Option<u64>,
    /// Whether a text that is too long is cut, as it is by default, instead of being refused.
    pub(super) truncate: bool,
}

/// An option: its name, its Go type, and what becomes of it.
struct OptionRow(&'static str, GoType, Fate);

#[derive(Clone, Copy, PartialEq)]
enum GoType {
    Int,
    Float,
    Bool,
    Texts,
}

#[derive(Clone, Copy, PartialEq)]
enum Fate {
    /// It goes on, under OpenAI's name or the server's own.
    Passed,
    /// It is about loading the model, or about Ollama's own sampler.
    NoEffect,
}

const OPTIONS: &[OptionRow] = {
    use Fate::{NoEffect, Passed};
    use GoType::{Bool, Float, Int, Texts};
    &[
        OptionRow("num_predict", Int, Passed),
        OptionRow("temperature", Float, Passed),
        OptionRow("top_p", Float, Passed),
        OptionRow("top_k", Int, Passed),
        OptionRow("min_p", Float, Passed),
        OptionRow("typical_p", Float, Passed),
        OptionRow("seed", Int, Passed),
        OptionRow("stop", Texts, Passed),
        OptionRow("repeat_penalty", Float, Passed),
        OptionRow("repeat_last_n", Int, Passed),
        OptionRow("presence_penalty", Float, Passed),
        OptionRow("frequency_penalty", Float, Passed),
        OptionRow("num_keep", Int, NoEffect),
        OptionRow("num_ctx", Int, NoEffect),
        OptionRow("num_batch", Int, NoEffect),
        OptionRow("num_gpu", Int, NoEffect),
        OptionRow("main_gpu", Int, NoEffect),
        OptionRow("use_mmap", Bool, NoEffect),
        OptionRow("num_thread", Int, NoEffect),
        OptionRow("draft_num_predict", Int, NoEffect),
    ]
};

/// Reads `options`; notes those without effect and those that are unknown.
///
/// # Errors
/// Fails if a value is of the wrong type.
fn options<'a>(raw: &'a RawValue, receipt: &mut Receipt) -> Result<Vec<(&'static str, &'a RawValue)>, Error> {
    let object: Object<'a> = serde_json::from_str(raw.get()).unwrap_or_default();
    let mut passed: Vec<(&'static str, &'a RawValue)> = Vec::new();
    for (name, value) in object.fields().filter(|(_, value)| value.get() != "null") {
        let Some(OptionRow(known, go_type, fate)) = OPTIONS.iter().find(|row| row.0 == name) else {
            let known = OPTIONS.iter().map(|row| row.0);
            receipt.unknown(&format!("options.{name}"), near::nearest(name, known));
            continue;
        };
        let (fits, wanted) = match go_type {
            GoType::Int => (kind(value) == "number", "integer"),
            GoType::Float => (kind(value) == "number", "float32"),
            GoType::Bool => (kind(value) == "bool", "boolean"),
            GoType::Texts if kind(value) != "array" => (false, "array"),
            GoType::Texts => (serde_json::from_str::<Vec<Cow<'_, str>>>(value.get()).is_ok(), "an array of strings"),
        };
        if !fits {
            // Ollama calls it a 500 (recorded: chat/bad-option, chat/stop-string).
            let joint = if wanted.starts_with("an ") { "of" } else { "of type" };
            return Err(server_error(format!("option {name:?} must be {joint} {wanted}")));
        }
        match fate {
            Fate::NoEffect => receipt.no_effect(&format!("options.{known}")),
            Fate::Passed => match passed.iter_mut().find(|(earlier, _)| earlier == known) {
                Some(earlier) => earlier.1 = value,
                None => passed.push((known, value)),
            },
        }
    }
    Ok(passed)
}

/// An error that Ollama answers with 500, whatever its cause.
fn server_error(message: String) -> Error {
    Refused::new(http::StatusCode::INTERNAL_SERVER_ERROR, message).into()
}

/// A name that is no model's on any server.
fn check_name(name: &str) -> Result<(), Error> {
    let odd = |c: char| c.is_whitespace() || c.is_control();
    // Recorded: chat/bad-model-name, show/bad-name. Ids of other servers may have characters that Ollama's names do
    // not.
    if name.contains(odd) || name.ends_with('/') || name.ends_with(':') {
        return Err(bad_request("invalid model name"));
    }
    Ok(())
}

/// Notes the fields of a request that Ollama does not have.
fn note_unknown(object: &Object<'_>, known: &[&'static str], receipt: &mut Receipt) {
    for (name, value) in object.fields() {
        if value.get() != "null" && !known.iter().any(|known| known.eq_ignore_ascii_case(name)) {
            receipt.unknown(name, near::nearest(name, known.iter().copied()));
        }
    }
}

const COMMON: [&str; 11] = [
    "model",
    "stream",
    "format",
    "keep_alive",
    "options",
    "think",
    "truncate",
    "shift",
    "logprobs",
    "top_logprobs",
    "_debug_render_only",
];

/// Reads what chat and generate have in common, but for the model's name, whose errors differ.
fn common<'a>(reader: &mut Reader, object: &Object<'a>, receipt: &mut Receipt) -> Common<'a> {
    let mut common = Common {
        model: reader.text(object.get("model"), "model").unwrap_or_default(),
        stream: reader.flag(object.get("stream"), "stream").unwrap_or(true),
        logprobs: reader.flag(object.get("logprobs"), "logprobs").unwrap_or(false),
        ..Common::default()
    };
    if let Some(raw) = object.get("options") {
        match kind(raw) {
            "object" => match options(raw, receipt) {
                Ok(options) => common.options = options,
                Err(error) => reader.fail(error),
            },
            _ => reader.mistyped(raw, "options", "map[string]interface {}"),
        }
    }
    if let Some(raw) = object.get("keep_alive") {
        match check_duration(raw) {
            Ok(()) => {
                common.unloads = raw.get().parse::<f64>().is_ok_and(|seconds| seconds == 0.0) || raw.get() == "\"0\"";
                receipt.no_effect("keep_alive");
            }
            Err(error) => reader.fail(error),
        }
    }
    for name in ["truncate", "shift"] {
        if reader.flag(object.get(name), name).is_some() {
            receipt.no_effect(name);
        }
    }
    if reader.flag(object.get("_debug_render_only"), "_debug_render_only") == Some(true) {
        receipt.no_effect("_debug_render_only");
    }
    if let Some(raw) = object.get("think") {
        match think(raw) {
            Ok(think) => common.think = Some(think),
            Err(error) => reader.fail(error),
        }
    }
    match reader.integer(object.get("top_logprobs"), "top_logprobs").map(u8::try_from) {
        None => {}
        Some(Ok(top @ 0..=20)) => common.top_logprobs = top,
        Some(_) => reader.fail(bad_request("top_logprobs must be between 0 and 20")),
    }
    common
}

fn think(raw: &RawValue) -> Result<Think, Error> {
    const LEVELS: [&str; 4] = ["high", "medium", "low", "max"];
    match kind(raw) {
        "bool" => Ok(if raw.get() == "true" { Think::On } else { Think::Off }),
        "string" => {
            let level: String = serde_json::from_str(raw.get()).unwrap_or_default();
            LEVELS.into_iter().find(|known| *known == level).map(Think::Level).ok_or_else(|| {
                bad_request(format!(
                    "invalid think value: {level:?} (must be \"high\", \"medium\", \"low\", \"max\", true, or false)"
                ))
            })
        }
        _ => Err(bad_request(
            "think must be a boolean or string (\"high\", \"medium\", \"low\", \"max\", true, or false)",
        )),
    }
}

/// Reads `format`, which Ollama looks at last.
fn format<'a>(object: &Object<'a>) -> Result<Format<'a>, Error> {
    let Some(raw) = object.get("format") else { return Ok(Format::Free) };
    match raw.get() {
        "\"\"" => Ok(Format::Free),
        "\"json\"" => Ok(Format::Json),
        text if text.starts_with('{') => Ok(Format::Schema(raw)),
        // Recorded: chat/bad-format, chat/bad-format-number.
        text => Err(server_error(format!("invalid format: {text:?}; expected \"json\" or a valid JSON Schema object"))),
    }
}

/// Reads the images of a message.
fn images<'a>(reader: &mut Reader, raw: Option<&'a RawValue>, path: &str) -> Vec<Cow<'a, str>> {
    let Some(raw) = raw else { return Vec::new() };
    let images: Vec<crate::openai::request::json::Text<'a>> = match serde_json::from_str(raw.get()) {
        Ok(images) => images,
        Err(_) if kind(raw) == "array" => {
            reader.fail(bad_request(format!(
                "json: cannot unmarshal a value of {path} into Go value of type api.ImageData"
            )));
            return Vec::new();
        }
        Err(_) => {
            reader.mistyped(raw, path, "[]api.ImageData");
            return Vec::new();
        }
    };
    let checked = images.into_iter().map(|image| {
        if let Some(at) = bad_base64(&image) {
            // Recorded: chat/images-bad-base64, chat/images-data-url.
            reader.fail(bad_request(format!("illegal base64 data at input byte {at}")));
        }
        match image.contains(['\r', '\n']) {
            true => Cow::Owned(image.replace(['\r', '\n'], "")),
            false => image.0,
        }
    });
    checked.collect()
}

/// Where standard base64 ends to be base64. Line ends may stand anywhere.
fn bad_base64(text: &str) -> Option<usize> {
    let is_digit = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    let (mut digits, mut padding) = (0_usize, 0_usize);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'\r' | b'\n' => {}
            b'=' if (digits + padding) % 4 >= 2 && padding < 2 => padding += 1,
            byte if padding == 0 && is_digit(byte) => digits += 1,
            _ => return Some(at),
        }
    }
    (!(digits + padding).is_multiple_of(4)).then_some(text.len())
}

impl<'a> Chat<'a> {
    /// # Errors
    /// Fails where Ollama would refuse the body, with its text.
    pub(super) fn read(body: &'a str, receipt: &mut Receipt) -> Result<Self, Error> {
        let mut reader = Reader::new("ChatRequest");
        let object = reader.body(body)?;
        note_unknown(&object, &[&COMMON[..], &["messages", "tools"]].concat(), receipt);
        let mut common = common(&mut reader, &object, receipt);
        let mut messages = Vec::new();
        if let Some(raw) = object.get("messages") {
            // Mostly all of them are objects.
            match serde_json::from_str::<Vec<Object<'a>>>(raw.get()) {
                Ok(list) => messages.extend(list.iter().map(|object| message_of(&mut reader, object))),
                Err(_) => match serde_json::from_str::<Vec<&'a RawValue>>(raw.get()) {
                    Ok(list) => messages.extend(list.into_iter().filter_map(|raw| message(&mut reader, raw))),
                    Err(_) => reader.mistyped(raw, "messages", "[]api.Message"),
                },
            }
        }
        let mut tools = None;
        if let Some(raw) = object.get("tools") {
            match serde_json::from_str::<Vec<&'a RawValue>>(raw.get()) {
                Ok(list) => {
                    if let Some(wrong) = list.iter().find(|tool| kind(tool) != "object") {
                        reader.mistyped(wrong, "tools", "api.Tool");
                    }
                    tools = Some(list).filter(|list| !list.is_empty());
                }
                Err(_) => reader.mistyped(raw, "tools", "api.Tools"),
            }
        }
        reader.finish()?;
        if common.model.is_empty() {
            return Err(bad_request("model is required"));
        }
        check_name(&common.model)?;
        common.format = format(&object)?;
        Ok(Self { common, messages, tools })
    }
}

fn message<'a>(reader: &mut Reader, raw: &'a RawValue) -> Option<Message<'a>> {
    let Ok(object) = serde_json::from_str::<Object<'a>>(raw.get()) else {
        if raw.get() == "null" {
            return Some(Message::default());
        }
        reader.mistyped(raw, "messages", "api.Message");
        return None;
    };
    Some(message_of(reader, &object))
}

fn message_of<'a>(reader: &mut Reader, object: &Object<'a>) -> Message<'a> {
    let mut calls = Vec::new();
    if let Some(raw) = object.get("tool_calls") {
        match serde_json::from_str::<Vec<Object<'a>>>(raw.get()) {
            Ok(list) => calls.extend(list.iter().filter_map(|call| past_call(reader, call))),
            Err(_) => reader.mistyped(raw, "messages.tool_calls", "[]api.ToolCall"),
        }
    }
    // Older clients name the function of a result by `name`.
    let tool_name = reader.text(object.get("tool_name"), "messages.tool_name").unwrap_or_default();
    let tool_name = match object.get("name").filter(|_| tool_name.is_empty()) {
        Some(name) => {
            serde_json::from_str::<crate::openai::request::json::Text<'a>>(name.get()).map_or(tool_name, |name| name.0)
        }
        None => tool_name,
    };
    Message {
        role: reader.text(object.get("role"), "messages.role").unwrap_or_default().to_lowercase(),
        content: reader.text(object.get("content"), "messages.content").unwrap_or_default(),
        thinking: reader.text(object.get("thinking"), "messages.thinking").unwrap_or_default(),
        images: images(reader, object.get("images"), "messages.images"),
        tool_calls: calls,
        tool_name,
        tool_call_id: reader.text(object.get("tool_call_id"), "messages.tool_call_id").unwrap_or_default(),
    }
}

fn past_call<'a>(reader: &mut Reader, call: &Object<'a>) -> Option<Call<'a>> {
    let function = call.get("function")?;
    let Ok(object) = serde_json::from_str::<Object<'a>>(function.get()) else {
        reader.mistyped(function, "messages.tool_calls.function", "api.ToolCallFunction");
        return None;
    };
    let arguments = match object.get("arguments") {
        None => "{}",
        Some(raw) if raw.get().starts_with('{') => raw.get(),
        Some(_) => {
            // Recorded: tools/arguments-as-string.
            reader.fail(bad_request("Value looks like object, but can't find closing '}' symbol"));
            return None;
        }
    };
    Some(Call {
        id: reader.text(call.get("id"), "messages.tool_calls.id").unwrap_or_default(),
        name: reader.text(object.get("name"), "messages.tool_calls.function.name").unwrap_or_default(),
        arguments,
    })
}

impl<'a> Generate<'a> {
    /// # Errors
    /// Fails where Ollama would refuse the body, with its text; and on what only Ollama has: a context in tokens, a
    /// template.
    pub(super) fn read(body: &'a str, receipt: &mut Receipt) -> Result<Self, Error> {
        const OWN: [&str; 7] = ["prompt", "suffix", "system", "template", "context", "raw", "images"];
        let mut reader = Reader::new("GenerateRequest");
        let object = reader.body(body)?;
        note_unknown(&object, &[&COMMON[..], &OWN].concat(), receipt);
        let common = common(&mut reader, &object, receipt);
        let mut request = Self {
            common,
            prompt: reader.text(object.get("prompt"), "prompt").unwrap_or_default(),
            suffix: reader.text(object.get("suffix"), "suffix").unwrap_or_default(),
            system: reader.text(object.get("system"), "system").unwrap_or_default(),
            raw: reader.flag(object.get("raw"), "raw").unwrap_or(false),
            images: images(&mut reader, object.get("images"), "images"),
        };
        let template = reader.text(object.get("template"), "template").unwrap_or_default();
        let context: Vec<i64> = reader.read(object.get("context"), "context", "[]int").unwrap_or_default();
        reader.finish()?;
        if request.common.model.is_empty() {
            return Err(not_found("model '' not found".to_owned()));
        }
        check_name(&request.common.model)?;
        if request.raw && !(template.is_empty() && request.system.is_empty() && context.is_empty()) {
            return Err(bad_request("raw mode does not support template, system, or context"));
        }
        if !context.is_empty() {
            return Err(bad_request(
                "context is not supported: the remote is an OpenAI server, which takes no tokens of an earlier prompt; send the \
                 conversation to /api/chat instead",
            ));
        }
        if !template.is_empty() {
            return Err(bad_request(
                "template is not supported: the remote is an OpenAI server, which has the model's own; send the finished prompt with \
                 \"raw\": true instead",
            ));
        }
        request.common.format = format(&object)?;
        Ok(request)
    }
}

impl<'a> Embed<'a> {
    /// Cuts the longest texts to two thirds of the longest one. Returns whether there was something to cut.
    pub(super) fn cut(&mut self) -> bool {
        let longest = self.input.iter().map(|text| text.len()).max().unwrap_or(0);
        let most = longest / 3 * 2;
        for text in self.input.iter_mut().filter(|text| text.len() > most) {
            let end = text.floor_char_boundary(most);
            *text = match std::mem::take(text) {
                Cow::Borrowed(text) => Cow::Borrowed(&text[..end]),
                Cow::Owned(text) => Cow::Owned(text[..end].to_owned()),
            };
        }
        most > 0
    }

    /// The body of `POST /api/embed`.
    ///
    /// # Errors
    /// Fails where Ollama would refuse the body, with its text.
    pub(super) fn read(body: &'a str, receipt: &mut Receipt) -> Result<Self, Error> {
        let mut reader = Reader::new("EmbedRequest");
        let object = reader.body(body)?;
        note_unknown(&object, &["model", "input", "truncate", "dimensions", "keep_alive", "options"], receipt);
        let truncate = reader.flag(object.get("truncate"), "truncate");
        let dimensions = reader.integer(object.get("dimensions"), "dimensions").and_then(|n| u64::try_from(n).ok());
        let mut request = Self::new(&mut reader, &object, receipt);
        request.dimensions = dimensions.filter(|dimensions| *dimensions > 0);
        request.truncate = truncate != Some(false);
        reader.finish()?;
        request.check_model()?;
        let Some(raw) = object.get("input") else { return Ok(request) };
        let invalid = || bad_request("invalid input type");
        type Text<'a> = crate::openai::request::json::Text<'a>;
        request.input = match kind(raw) {
            "string" => {
                let text: Text<'a> = serde_json::from_str(raw.get()).map_err(|_| invalid())?;
                Some(text.0).filter(|text| !text.is_empty()).into_iter().collect()
            }
            _ => {
                let texts: Vec<Text<'a>> = serde_json::from_str(raw.get()).map_err(|_| invalid())?;
                texts.into_iter().map(|text| text.0).collect()
            }
        };
        Ok(request)
    }

    /// The body of `POST /api/embeddings`.
    ///
    /// # Errors
    /// As [`Embed::read`].
    pub(super) fn read_old(body: &'a str, receipt: &mut Receipt) -> Result<Self, Error> {
        let mut reader = Reader::new("EmbeddingRequest");
        let object = reader.body(body)?;
        note_unknown(&object, &["model", "prompt", "keep_alive", "options"], receipt);
        let mut request = Self::new(&mut reader, &object, receipt);
        let prompt = reader.text(object.get("prompt"), "prompt").unwrap_or_default();
        request.input = Some(prompt).filter(|prompt| !prompt.is_empty()).into_iter().collect();
        reader.finish()?;
        if request.model.is_empty() {
            return Err(bad_request("model is required"));
        }
        request.check_model()?;
        Ok(request)
    }

    fn new(reader: &mut Reader, object: &Object<'a>, receipt: &mut Receipt) -> Self {
        if let Some(raw) = object.get("keep_alive") {
            match check_duration(raw) {
                Ok(()) => receipt.no_effect("keep_alive"),
                Err(error) => reader.fail(error),
            }
        }
        if let Some(raw) = object.get("options") {
            match kind(raw) {
                "object" => match options(raw, receipt) {
                    // None of them is about embeddings.
                    Ok(options) => {
                        options.iter().for_each(|(name, _)| receipt.no_effect(&format!("options.{name}")));
                    }
                    Err(error) => reader.fail(error),
                },
                _ => reader.mistyped(raw, "options", "map[string]interface {}"),
            }
        }
        let model = reader.text(object.get("model"), "model").unwrap_or_default();
        Self { model, input: Vec::new(), dimensions: None, truncate: true }
    }

    fn check_model(&self) -> Result<(), Error> {
        if self.model.is_empty() {
            return Err(not_found("model '' not found".to_owned()));
        }
        check_name(&self.model)
    }
}

/// A model that does not exist, in Ollama's words.
pub(super) fn not_found(message: String) -> Error {
    Error::NotFound { message, param: Some("model".to_owned()), code: "model_not_found" }
}

/// The model that a request about models is about: `model`, or `name` of older clients; and whether it wants a stream.
///
/// # Errors
/// Fails where Ollama would refuse the body, with its text. An absent name is empty.
pub(super) fn named<'a>(go_type: &'static str, body: &'a str) -> Result<(Cow<'a, str>, bool), Error> {
    let mut reader = Reader::new(go_type);
    let object = reader.body(body)?;
    let model = reader.text(object.get("model"), "model").unwrap_or_default();
    let name = reader.text(object.get("name"), "name").unwrap_or_default();
    let stream = reader.flag(object.get("stream"), "stream").unwrap_or(true);
    reader.finish()?;
    let model = if model.is_empty() { name } else { model };
    check_name(&model)?;
    Ok((model, stream))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(body: &str) -> (u16, String) {
        let error = Chat::read(body, &mut Receipt::default()).unwrap_err();
        (error.row().status.as_u16(), error.to_string())
    }

    #[test]
    fn chats_are_refused_in_ollamas_words() {
        for (body, status, text) in [
            (r#"{"model":""}"#, 400, "model is required"),
            (r#"{"model":"a b c"}"#, 400, "invalid model name"),
            (
                r#"{"model":"m","messages":"hi"}"#,
                400,
                "json: cannot unmarshal string into Go struct field ChatRequest.messages of type []api.Message",
            ),
            (
                r#"{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"hi"}]}]}"#,
                400,
                "json: cannot unmarshal array into Go struct field ChatRequest.messages.content of type string",
            ),
            (
                r#"{"model":"m","tools":"get_weather"}"#,
                400,
                "json: cannot unmarshal string into Go struct field ChatRequest.tools of type api.Tools",
            ),
            (
                r#"{"model":"m","messages":[{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":"{}"}}]}]}"#,
                400,
                "Value looks like object, but can't find closing '}' symbol",
            ),
            (
                r#"{"model":"m","messages":[{"role":"user","images":["!!!"]}]}"#,
                400,
                "illegal base64 data at input byte 0",
            ),
            (
                r#"{"model":"m","messages":[{"role":"user","images":["data:image/png;base64,AAAA"]}]}"#,
                400,
                "illegal base64 data at input byte 4",
            ),
            (r#"{"model":"m","options":{"temperature":"hot"}}"#, 500, "option \"temperature\" must be of type float32"),
            (r#"{"model":"m","options":{"stop":"x"}}"#, 500, "option \"stop\" must be of type array"),
            (r#"{"model":"m","options":{"stop":[1]}}"#, 500, "option \"stop\" must be of an array of strings"),
            (
                r#"{"model":"m","format":"xml"}"#,
                500,
                "invalid format: \"\\\"xml\\\"\"; expected \"json\" or a valid JSON Schema object",
            ),
            (
                r#"{"model":"m","format":5}"#,
                500,
                "invalid format: \"5\"; expected \"json\" or a valid JSON Schema object",
            ),
            (
                r#"{"model":"m","think":"banana"}"#,
                400,
                "invalid think value: \"banana\" (must be \"high\", \"medium\", \"low\", \"max\", true, or false)",
            ),
            (r#"{"model":"m","top_logprobs":21}"#, 400, "top_logprobs must be between 0 and 20"),
            (r#"{"model":"m","keep_alive":"soon"}"#, 400, "time: invalid duration \"soon\""),
            (
                r#"{"model":"m","options":[]}"#,
                400,
                "json: cannot unmarshal array into Go struct field ChatRequest.options of type map[string]interface {}",
            ),
        ] {
            assert_eq!(refused(body), (status, text.to_owned()), "{body}");
        }
    }

    #[test]
    fn what_has_no_effect_and_what_is_unknown_is_noted() {
        let mut receipt = Receipt::default();
        let body = r#"{"model":"m","keep_alive":"5m","truncate":true,"shift":null,"strem":true,
            "options":{"num_ctx":4096,"temperature":0.1,"top_kk":3}}"#;
        let chat = Chat::read(body, &mut receipt).unwrap();
        assert_eq!(chat.common.options.len(), 1);
        assert_eq!(
            receipt.to_string(),
            "strem=unknown, options.num_ctx=no-effect, options.top_kk=unknown, keep_alive=no-effect, truncate=no-effect"
        );
    }

    #[test]
    fn base64_ends_where_it_must() {
        for good in ["", "QUJD", "QUI=", "QQ==", "QU\nJD\r\n"] {
            assert_eq!(bad_base64(good), None, "{good:?}");
        }
        for (bad, at) in [("QQ", 2), ("Q===", 1), ("QQ=A", 3), ("QUJD=", 4), ("QU JD", 2), ("QQ===", 4)] {
            assert_eq!(bad_base64(bad), Some(at), "{bad:?}");
        }
    }
}
