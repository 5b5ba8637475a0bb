//! What `/api/chat` and `/api/generate` share: a request judged in Ollama's order, and the work that it becomes.

mod fit;
mod images;
mod wire;

use crate::version::Feature;
use std::time::Duration;

use http::StatusCode;
use serde_json::{Map, Value};

pub(crate) use self::{
    fit::{image_tokens, refuse_images},
    images::images,
    wire::{calls, metrics},
};
use super::{
    Call, Refusal, flag,
    options::{Options, options},
};
use crate::{
    generation::{Task, reply::ReplyOptions, thinking::Thinking, tool_calls::ToolCalls},
    go::{self, KeepAlive},
    models::{Capability, Mode, Model},
    names::Name,
    version::Version,
    words::Question,
};

/// What a request wants, once it is judged.
#[derive(Debug)]
pub(crate) struct Inference {
    pub(crate) model: Model,
    /// As the client spelled it.
    pub(crate) asked_model: String,
    pub(crate) keep_alive: Option<KeepAlive>,
    pub(crate) options: Options,
    pub(crate) stream: bool,
    pub(crate) format: Format,
    /// Whether the model thinks, and whether thinking is separate from its content.
    pub(crate) thinks: Thinks,
    pub(crate) truncate: bool,
    pub(crate) shift: bool,
    pub(crate) logprobs: Option<usize>,
    /// Tokens of context that requests may use.
    pub(crate) context_length: usize,
}

/// What becomes of a request.
#[derive(Debug)]
pub(crate) enum Judged {
    Unloaded { asked_model: String },
    Wanted(Box<Inference>),
}

/// What the answer has to be.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Format {
    Text,
    Json,
    Schema(Value),
    /// No format at all; found out when generation starts.
    Wrong(String),
}

/// How a model thinks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Thinks {
    No,
    Apart,
    /// With its tags, in the content: the behavior before thinking was separated by default.
    Inline,
}

impl Inference {
    /// Judges the fields that both routes have, in Ollama's order. `needs` are the capabilities that the request needs;
    /// `asks_nothing` is an empty prompt, which unloads the model where `keep_alive` is 0, whatever it can do.
    pub(crate) fn judge(
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
            None if version.has(Feature::Logprobs) => {
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
            && !version.has(Feature::LevelsSwitchThinking)
        {
            let level = fields.get("think").and_then(Value::as_str).unwrap_or_default();
            return Err(Refusal::bad_request(format!("think value {level:?} is not supported for this model")));
        }
        let thinks = match think {
            // Nothing is parsed in raw mode (recorded: logprobs-raw/thinking).
            _ if !can_think || flag(fields, "raw", false) => Thinks::No,
            Some(Think::Off) => Thinks::No,
            Some(Think::On | Think::Level) => Thinks::Apart,
            None if version.has(Feature::ThinksByDefault) => Thinks::Apart,
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
            logprobs: (flag(fields, "logprobs", false) && version.has(Feature::Logprobs)).then_some(top_logprobs),
            model,
            options,
            context_length,
        })))
    }

    /// Loads the model, and returns how long that took, in nanoseconds.
    ///
    /// # Errors
    /// The request has to wait, or too many do.
    pub(crate) fn load(&self, call: &Call<'_>) -> Result<u64, Refusal> {
        let is_cold = super::load(call, &self.model, self.context_length, self.keep_alive)?;
        Ok(if is_cold { 514_701_010 } else { 1_427_310 })
    }

    /// What the runner gets: the words of a script, or those that the question asks for.
    pub(crate) fn task(
        &self,
        version: &Version,
        question: &Question<'_>,
        tools: &[Value],
        given: Option<&str>,
        prompt_tokens: usize,
    ) -> (Task, ReplyOptions) {
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
        let options = ReplyOptions {
            thinking: apart.then(Thinking::default),
            // The grammar wins over tools (recorded: tools/with-format).
            tool_calls: (!tools.is_empty()).then(|| ToolCalls::new(names)),
            calls_last: self.model.mode == Mode::Jinja && version.has(Feature::LlamaServer),
            sends_silent_events: false,
            then: then.map(|words| Task { words, ..task.clone() }),
        };
        (task, options)
    }
}

/// `keep_alive` of a request.
pub(crate) fn keep_alive(fields: &Map<String, Value>) -> Result<Option<KeepAlive>, Refusal> {
    fields.get("keep_alive").map(go::keep_alive).transpose().map_err(Refusal::bad_request)
}

/// The model of a request for an answer.
fn find(call: &Call<'_>, asked: &str, route: &str) -> Result<Model, Refusal> {
    let version = &call.state.version;
    let missing = || Refusal::not_found(format!("model '{asked}' not found"));
    let name = Name::parse(asked).ok_or_else(|| match route {
        "chat" if asked.is_empty() || !version.has(Feature::InvalidNames) => Refusal::bad_request("model is required"),
        _ if asked.is_empty() || !version.has(Feature::InvalidNames) => missing(),
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
    let known = if version.has(Feature::ThinkMax) {
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
            "max" if version.has(Feature::ThinkMax) => Ok(Some(Think::Level)),
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

/// Tokens of context: what is asked, else what the server is set to, at most what the model was trained for.
pub(crate) fn context_length(call: &Call<'_>, model: &Model, options: &Options) -> usize {
    let trained = model.card.context_length as usize;
    let wanted = options.num_ctx.unwrap_or(call.state.context_length as usize);
    let least = if model.can(Capability::Vision) { 2048 } else { 4 };
    wanted.max(least).min(trained.max(least))
}
