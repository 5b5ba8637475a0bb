//! What `/api/chat` and `/api/generate` share: judging a request in Ollama's order, fitting the prompt, and the numbers at the end.

use std::time::Duration;

use http::StatusCode;
use serde_json::{Map, Value};

use super::{
    Call, Refusal, flag,
    options::{Options, options},
};
use crate::{
    generation::{
        Done, Task,
        reply::Telling,
        thinking::Thinking,
        tool_calls::{self, ToolCalls},
    },
    go::{self, KeepAlive},
    models::{Capability, Mode, Model},
    names::Name,
    schema,
    server::answer::Answer,
    tokens,
    version::Version,
    words::Question,
};

/// What a request wants, once it is judged.
#[derive(Debug)]
pub(super) struct Inference {
    pub(super) model: Model,
    /// As the client spelled it.
    pub(super) asked_model: String,
    pub(super) keep_alive: Option<KeepAlive>,
    pub(super) options: Options,
    pub(super) stream: bool,
    pub(super) format: Format,
    /// Whether the model thinks, and whether that is told apart from its content.
    pub(super) thinks: Thinks,
    pub(super) truncate: bool,
    pub(super) shift: bool,
    pub(super) logprobs: Option<usize>,
    /// Tokens of context that requests may use.
    pub(super) context_length: usize,
}

/// What becomes of a request.
#[derive(Debug)]
pub(super) enum Judged {
    Unloaded { asked_model: String },
    Wanted(Box<Inference>),
}

/// What the answer has to be.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Format {
    Text,
    Json,
    Schema(Value),
    /// No format at all; found out when generation starts.
    Wrong(String),
}

/// How a model thinks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Thinks {
    No,
    Apart,
    /// With its tags, in the content: what happened before thinking was told apart by default.
    Inline,
}

/// An error that is found once the model is at work; a stream that has not begun tells it with its status.
#[derive(Debug)]
pub(super) struct Late {
    pub(super) status: StatusCode,
    pub(super) text: String,
}

impl Late {
    pub(super) fn answer(&self, stream: bool) -> Answer {
        if stream { Answer::stream_error(self.status, &self.text) } else { Answer::error(self.status, &self.text) }
    }
}

impl Inference {
    /// Judges the fields that both routes have, in Ollama's order. `needs` are the capabilities that the request needs; `asks_nothing` is an
    /// empty prompt, which unloads the model where `keep_alive` is 0, whatever it can do.
    pub(super) fn judge(
        call: &Call<'_>,
        fields: &Map<String, Value>,
        needs: &[Capability],
        asks_nothing: bool,
        route: &str,
    ) -> Result<Judged, Refusal> {
        let version = &call.state.version;
        let keep_alive = keep_alive(fields)?;
        let think = think(fields.get("think"), version)?;
        let top_logprobs = fields.get("top_logprobs").and_then(Value::as_i64).unwrap_or(0);
        let top_logprobs = usize::try_from(top_logprobs).ok().filter(|top| *top <= 20);
        let top_logprobs = match top_logprobs {
            None if version.has_logprobs() => {
                return Err(Refusal::bad_request("top_logprobs must be between 0 and 20"));
            }
            top => top.unwrap_or(0),
        };
        let asked_model = super::text(fields, "model").to_owned();
        let model = find(call, &asked_model, route)?;
        if asks_nothing && keep_alive == Some(Some(Duration::ZERO)) {
            call.state.unload(&model);
            return Ok(Judged::Unloaded { asked_model });
        }
        check(&model, needs, think.as_ref(), &asked_model, route)?;
        let can_think = model.can(Capability::Thinking);
        if can_think
            && matches!(think, Some(Think::Level))
            && model.mode != Mode::Harmony
            && !version.levels_switch_thinking()
        {
            let level = fields.get("think").and_then(Value::as_str).unwrap_or_default();
            return Err(Refusal::bad_request(format!("think value {level:?} is not supported for this model")));
        }
        let thinks = match think {
            _ if !can_think => Thinks::No,
            Some(Think::Off) => Thinks::No,
            Some(Think::On | Think::Level) => Thinks::Apart,
            None if version.thinks_by_default() => Thinks::Apart,
            None => Thinks::Inline,
        };
        let options = options(&model.parameters, fields.get("options"))
            .map_err(|text| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, text))?;
        let context_length = context_length(call, &model, &options);
        Ok(Judged::Wanted(Box::new(Self {
            asked_model,
            keep_alive,
            stream: flag(fields, "stream", true),
            format: format(fields.get("format")),
            thinks,
            truncate: flag(fields, "truncate", true),
            shift: flag(fields, "shift", true),
            logprobs: (flag(fields, "logprobs", false) && version.has_logprobs()).then_some(top_logprobs),
            model,
            options,
            context_length,
        })))
    }

    /// Loads the model, and tells how long that took, in nanoseconds.
    pub(super) fn load(&self, call: &Call<'_>) -> u64 {
        let context_length = u32::try_from(self.context_length).unwrap_or(u32::MAX);
        if call.state.load(&self.model, context_length, self.keep_alive) { 514_701_010 } else { 1_427_310 }
    }

    /// Tokens that the runner has room for; llama-server rounds up.
    fn capacity(&self, version: &Version) -> usize {
        if version.has_llama_server() { self.context_length.next_multiple_of(256) } else { self.context_length }
    }

    /// The prompt's tokens once it fits.
    ///
    /// # Errors
    /// It does not, and may not be cut; or the format is none.
    pub(super) fn fit(&self, version: &Version, prompt_tokens: usize) -> Result<usize, Late> {
        let late = |status, text: String| Err(Late { status, text });
        match &self.format {
            Format::Wrong(raw) => {
                let text = format!("invalid format: {raw:?}; expected \"json\" or a valid JSON Schema object");
                return late(StatusCode::INTERNAL_SERVER_ERROR, text);
            }
            Format::Schema(schema) => {
                if let Some(fault) = schema::fault(schema) {
                    if !version.has_llama_server() {
                        return late(StatusCode::INTERNAL_SERVER_ERROR, "invalid JSON schema in format".to_owned());
                    }
                    let message =
                        format!("Field 'json_schema': \"json_schema\": JSON schema conversion failed:\n{fault}");
                    return late(StatusCode::BAD_REQUEST, llama_error(&message, "invalid_request_error", None));
                }
            }
            Format::Text | Format::Json => {}
        }
        let capacity = self.capacity(version);
        if prompt_tokens <= capacity {
            return Ok(prompt_tokens);
        }
        if !version.has_llama_server() {
            return if self.truncate {
                Ok(capacity)
            } else {
                late(StatusCode::BAD_REQUEST, "the input length exceeds the context length".to_owned())
            };
        }
        if !self.truncate {
            let message = format!(
                "request ({prompt_tokens} tokens) exceeds the available context size ({capacity} tokens), try increasing it"
            );
            return late(
                StatusCode::BAD_REQUEST,
                llama_error(&message, "exceed_context_size_error", Some((prompt_tokens, capacity))),
            );
        }
        if !self.shift {
            let text = "the prompt is longer than the context length currently available to the model; shorten the prompt, adjust the \
                        context length in settings, or use a model with a longer context length";
            return late(StatusCode::BAD_REQUEST, text.to_owned());
        }
        // The first tokens and the last half of the rest stay (recorded: 258 of 512).
        Ok(self.options.num_keep + (capacity - self.options.num_keep.min(capacity)) / 2)
    }

    /// What the runner gets: the words of a script, or those that the question asks for.
    pub(super) fn task(
        &self,
        version: &Version,
        question: &Question<'_>,
        tools: &[Value],
        given: Option<&str>,
        prompt_tokens: usize,
    ) -> (Task, Telling) {
        let mut words = match (given, &self.format) {
            (Some(words), _) => words.to_owned(),
            (None, Format::Schema(schema)) => question.value(schema),
            (None, Format::Json) => question.object(),
            (None, _) => question.calls(tools).unwrap_or_else(|| question.answer()),
        };
        let apart = self.thinks == Thinks::Apart;
        let mut then = None;
        // A script writes its own tags.
        if self.thinks != Thinks::No && given.is_none() {
            let thinking = format!("<think>\n{}</think>\n\n", question.thinking());
            if apart && self.format != Format::Text {
                then = Some(std::mem::replace(&mut words, thinking + "{"));
            } else {
                words.insert_str(0, &thinking);
            }
        }
        let most = self.most(version, prompt_tokens);
        let task = Task { words, prompt_tokens, most, stop: self.options.stop.clone(), logprobs: self.logprobs };
        let names = tools.iter().map(|tool| tool["function"]["name"].as_str().unwrap_or_default().to_owned()).collect();
        let telling = Telling {
            thinking: apart.then(Thinking::default),
            // The grammar wins over tools (recorded: tools/with-format).
            tool_calls: (!tools.is_empty()).then(|| ToolCalls::new(names)),
            calls_last: self.model.mode == Mode::Jinja && version.has_llama_server(),
            tells_held: false,
            then: then.map(|words| Task { words, ..task.clone() }),
        };
        (task, telling)
    }

    /// The most tokens: what was asked for, and the context where it may not shift.
    fn most(&self, version: &Version, prompt_tokens: usize) -> Option<usize> {
        // Older runners wrote one more than fits (recorded: generate/shift-false).
        let capacity = self.capacity(version) + usize::from(!version.has_llama_server());
        let room = (!self.shift).then(|| capacity.saturating_sub(prompt_tokens).max(1));
        let most = self.options.num_predict.unwrap_or(10 * self.context_length);
        Some(room.map_or(most, |room| room.min(most)))
    }
}

/// llama-server's error body, as text: it leaks into Ollama's.
fn llama_error(message: &str, kind: &str, sizes: Option<(usize, usize)>) -> String {
    let mut error = serde_json::json!({"code": 400, "message": message, "type": kind});
    if let Some((prompt, context)) = sizes {
        error["n_prompt_tokens"] = prompt.into();
        error["n_ctx"] = context.into();
    }
    serde_json::json!({"error": error}).to_string()
}

/// What a text-only model says to pictures: nothing, in older versions.
pub(super) fn refuse_images(model: &Model, images: usize, version: &Version) -> Option<Late> {
    let refuses =
        images > 0 && version.has_llama_server() && !model.can(Capability::Vision) && !model.can(Capability::Audio);
    refuses.then(|| {
        let message = "Multimodal data provided, but model does not support multimodal requests.";
        Late { status: StatusCode::BAD_REQUEST, text: llama_error(message, "invalid_request_error", None) }
    })
}

/// `keep_alive` of a request.
pub(super) fn keep_alive(fields: &Map<String, Value>) -> Result<Option<KeepAlive>, Refusal> {
    fields.get("keep_alive").map(go::keep_alive).transpose().map_err(Refusal::bad_request)
}

/// The model of a request for an answer.
fn find(call: &Call<'_>, asked: &str, route: &str) -> Result<Model, Refusal> {
    let version = &call.state.version;
    let missing = || Refusal::not_found(format!("model '{asked}' not found"));
    let name = Name::parse(asked).ok_or_else(|| match route {
        "chat" if asked.is_empty() || !version.tells_bad_names() => Refusal::bad_request("model is required"),
        _ if asked.is_empty() || !version.tells_bad_names() => missing(),
        _ => Refusal::bad_request("invalid model name"),
    })?;
    call.state.model(&name).ok_or_else(missing)
}

/// `think`, where it is given.
enum Think {
    Off,
    On,
    Level,
}

fn think(value: Option<&Value>, version: &Version) -> Result<Option<Think>, Refusal> {
    let known = if version.has_think_max() {
        "\"high\", \"medium\", \"low\", \"max\""
    } else {
        "\"high\", \"medium\", \"low\""
    };
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(false)) => Ok(Some(Think::Off)),
        Some(Value::Bool(true)) => Ok(Some(Think::On)),
        Some(Value::String(level)) => match level.as_str() {
            "high" | "medium" | "low" => Ok(Some(Think::Level)),
            "max" if version.has_think_max() => Ok(Some(Think::Level)),
            _ => Err(Refusal::bad_request(format!("invalid think value: {level:?} (must be {known}, true, or false)"))),
        },
        Some(_) => Err(Refusal::bad_request(format!("think must be a boolean or string ({known}, true, or false)"))),
    }
}

fn format(value: Option<&Value>) -> Format {
    match value {
        None | Some(Value::Null) => Format::Text,
        Some(Value::String(text)) if text.is_empty() => Format::Text,
        Some(Value::String(text)) if text == "json" => Format::Json,
        Some(schema @ Value::Object(_)) => Format::Schema(schema.clone()),
        Some(other) => Format::Wrong(other.to_string()),
    }
}

/// The capabilities that are missing, each with its own text.
fn check(model: &Model, needs: &[Capability], think: Option<&Think>, asked: &str, route: &str) -> Result<(), Refusal> {
    if !model.can(Capability::Completion) {
        return Err(Refusal::bad_request(format!("{asked:?} does not support {route}")));
    }
    let missing: Vec<&str> = needs.iter().filter(|need| !model.can(**need)).map(|need| need.word()).collect();
    let wants_thinking = matches!(think, Some(Think::On | Think::Level)) && !model.can(Capability::Thinking);
    if wants_thinking && missing.is_empty() {
        return Err(Refusal::bad_request(format!("{asked:?} does not support thinking")));
    }
    if missing.is_empty() {
        return Ok(());
    }
    let mut text = format!("{} does not support {}", model.name.full(), missing.join("\n"));
    if wants_thinking {
        text += "\nthinking";
    }
    Err(Refusal::bad_request(text))
}

/// Tokens of context: what is asked, else what the server is set to, else all that the model was trained for.
pub(super) fn context_length(call: &Call<'_>, model: &Model, options: &Options) -> usize {
    let trained = model.card.context_length as usize;
    let wanted = options.num_ctx.or(call.state.context_length.map(|length| length as usize)).unwrap_or(trained);
    let least = if model.can(Capability::Vision) { 2048 } else { 4 };
    wanted.max(least).min(trained.max(least))
}

/// Base64 images of a message or request, counted.
///
/// # Errors
/// Go's text for the first bad one.
pub(super) fn images(value: Option<&Value>) -> Result<usize, Refusal> {
    let images = value.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    for image in images {
        check_base64(image.as_str().unwrap_or_default())
            .map_err(|at| Refusal::bad_request(format!("illegal base64 data at input byte {at}")))?;
    }
    Ok(images.len())
}

/// Standard base64 with padding, newlines skipped; the offset at which Go stops.
fn check_base64(text: &str) -> Result<(), usize> {
    let bytes: Vec<(usize, u8)> = text.bytes().enumerate().filter(|(_, byte)| !matches!(byte, b'\r' | b'\n')).collect();
    let digits =
        bytes.iter().take_while(|(_, byte)| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/')).count();
    let rest = &bytes[digits..];
    let padding = (4 - digits % 4) % 4;
    match rest.first() {
        None if padding == 0 => Ok(()),
        None => Err(text.len()),
        Some((at, b'=')) if padding == 0 || padding == 3 => Err(*at),
        Some((_, b'=')) => match rest.get(..padding) {
            Some(marks) if marks.iter().all(|(_, byte)| *byte == b'=') => {
                rest.get(padding).map_or(Ok(()), |(at, _)| Err(*at))
            }
            _ => Err(text.len()),
        },
        Some((at, _)) => Err(*at),
    }
}

/// The numbers of the final object, in Ollama's order. Durations are nanoseconds that follow from the counts.
pub(super) fn metrics(done: &Done, load: u64, version: &Version) -> Vec<(&'static str, Value)> {
    let (prompt, written) = (done.prompt_tokens as u64, done.tokens as u64);
    let prompt_duration = 9_000_000 + prompt * 41_000;
    let mut duration = written.saturating_sub(1) * 9_871_000;
    if duration == 0 && version.has_llama_server() {
        duration = 1000;
    }
    let numbers = [
        ("total_duration", load + prompt_duration + duration + 1_203_417),
        ("load_duration", load),
        ("prompt_eval_count", prompt),
        ("prompt_eval_duration", prompt_duration),
        ("eval_count", written),
        ("eval_duration", duration),
    ];
    // Go omits what is zero.
    numbers.into_iter().filter(|(_, number)| *number > 0).map(|(key, number)| (key, number.into())).collect()
}

/// Calls as the wire has them.
pub(super) fn calls(
    calls: &[tool_calls::Call],
    first: usize,
    model: &Model,
    call_seed: u64,
    version: &Version,
) -> Value {
    let calls = calls.iter().zip(first..).map(|(made, nth)| {
        let mut whole = Map::new();
        if version.calls_have_id() {
            whole.insert(
                "id".to_owned(),
                id(model.mode == Mode::Jinja && version.has_llama_server(), call_seed, nth).into(),
            );
        }
        let mut function = Map::new();
        if version.calls_have_index() {
            function.insert("index".to_owned(), if model.mode == Mode::Harmony { 0 } else { nth }.into());
        }
        function.insert("name".to_owned(), made.name.clone().into());
        function.insert("arguments".to_owned(), made.arguments.clone().into());
        whole.insert("function".to_owned(), function.into());
        Value::from(whole)
    });
    calls.collect()
}

/// Ollama's ids are `call_` and 8 characters, llama-server's are 32 characters.
fn id(is_llama: bool, seed: u64, nth: usize) -> String {
    const CHARACTERS: &[u8; 62] = b"abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";
    let (len, among) = if is_llama { (32, 62) } else { (8, 36) };
    let characters = (0..len).map(|at: usize| {
        let roll = tokens::hash(&[seed.to_le_bytes(), (nth as u64).to_le_bytes(), (at as u64).to_le_bytes()].concat());
        char::from(CHARACTERS[usize::try_from(roll >> 20).unwrap_or(0) % among])
    });
    let text: String = characters.collect();
    if is_llama { text } else { format!("call_{text}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_judged_as_go_does() {
        assert_eq!(check_base64("!!!"), Err(0));
        assert_eq!(check_base64("data:image/png;base64,iVBO"), Err(4));
        assert_eq!(check_base64("YWJj\nZA=="), Ok(()));
        assert_eq!(check_base64("YWI"), Err(3));
        assert_eq!(check_base64(""), Ok(()));
    }

    #[test]
    fn ids_have_the_form_of_their_maker() {
        assert!(id(false, 1, 0).starts_with("call_") && id(false, 1, 0).len() == 13);
        assert_eq!(id(true, 1, 0).len(), 32);
        assert_ne!(id(false, 1, 0), id(false, 1, 1));
        assert_ne!(id(false, 1, 0), id(false, 2, 0));
    }
}
