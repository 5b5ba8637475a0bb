//! A request, its fields taken apart; what a response repeats of them; and what making the response must know. Pure.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::{
    Value,
    value::{RawValue, to_raw_value},
};

use super::choice;
use crate::{
    config::{self, Hosted, Overflow},
    error::Error,
    openai::{
        request::{
            json::{Fields, Text, read},
            options::{self, Native},
            parameters::{Endpoint, settle},
        },
        response::logprobs,
        responses::{
            offer::{Offer, Offered},
            wire::{Echo, InConversation, Reasoning},
        },
        tools::{Tool, forced::Form, repair::Repairs, repairs},
        upstream_request::{context::Policy, message},
    },
    receipt::Receipt,
};

/// A request, its known fields taken apart.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub(crate) model: Text<'a>,
    pub(crate) instructions: Option<Text<'a>>,
    pub(crate) native: Native<'a>,
    pub(crate) effort: Option<(&'static str, Text<'a>)>,
    pub(crate) format: Option<Cow<'a, RawValue>>,
    /// Those that `tool_choice` leaves.
    pub(crate) tools: Vec<Tool<'a>>,
    pub(crate) logprobs: bool,
    pub(crate) top_logprobs: Option<u8>,
    /// What becomes of a prompt that does not fit, where the client says so.
    pub(crate) overflow: Option<Overflow>,
    pub(crate) facts: Facts,
}

/// What making the response must know of its request.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) model: String,
    pub(crate) stream: bool,
    /// What the model's words are read as.
    pub(crate) form: Form,
    /// Whether the model was offered tools.
    pub(crate) offers: bool,
    /// Which tools stand behind the names that it was offered.
    pub(crate) offered: Offered,
    /// What its calls are checked against.
    pub(crate) repairs: Repairs,
    /// How many of its calls count.
    pub(crate) most_calls: usize,
    /// The stop strings that an answer in a form is cut at here.
    pub(crate) stops: Vec<String>,
    /// Whether the client will carry the thoughts.
    pub(crate) sealed: bool,
    /// Whether the model is to answer: a warm-up on a WebSocket only prepares what a later turn goes on from.
    pub(crate) generate: bool,
    /// About how many tokens the prompt has.
    pub(crate) estimate: u64,
    pub(crate) echo: Echo,
}

impl Facts {
    /// What is known of a response that is stored.
    pub(super) fn stored(model: String, sealed: bool, echo: Echo) -> Self {
        Self {
            model,
            stream: true,
            form: Form::Free,
            offers: false,
            offered: Offered::default(),
            repairs: Repairs::default(),
            most_calls: 0,
            stops: Vec::new(),
            sealed,
            generate: true,
            estimate: 0,
            echo,
        }
    }
}

/// What a request goes on from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Continuation {
    #[default]
    Nothing,
    /// The response with this id, and all before it.
    Response(String),
    /// The conversation with this id, which it becomes part of.
    Conversation(String),
}

impl Continuation {
    /// Reads `previous_response_id` and `conversation`, which stay where they are.
    ///
    /// # Errors
    /// Fails if there are both, or one is not an id.
    pub(crate) fn of(fields: &Fields<'_>) -> Result<Self, Error> {
        #[derive(Deserialize)]
        struct Named<'a> {
            #[serde(borrow)]
            id: Text<'a>,
        }
        match (fields.raw("previous_response_id"), fields.raw("conversation")) {
            (None, None) => Ok(Self::Nothing),
            (Some(_), Some(_)) => Err(Error::invalid(
                "previous_response_id",
                "'previous_response_id' cannot be used together with 'conversation'.",
            )),
            (Some(raw), None) => Ok(Self::Response(read::<Text<'_>>("previous_response_id", raw)?.to_string())),
            (None, Some(raw)) if raw.get().starts_with('"') => {
                Ok(Self::Conversation(read::<Text<'_>>("conversation", raw)?.to_string()))
            }
            (None, Some(raw)) => Ok(Self::Conversation(read::<Named<'_>>("conversation", raw)?.id.to_string())),
        }
    }

    /// The field that names it.
    pub(crate) fn field(&self) -> &'static str {
        match self {
            Self::Conversation(_) => "conversation",
            _ => "previous_response_id",
        }
    }
}

/// What the settings say about requests.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Terms {
    pub(crate) hosted: Hosted,
    /// Whether responses can be kept at all.
    pub(crate) keeps: bool,
    pub(crate) tools: config::Tools,
    /// Whether it is a turn on a WebSocket.
    pub(crate) socket: bool,
}

#[derive(Default, Deserialize)]
struct TextConfig<'a> {
    #[serde(borrow, default)]
    format: Option<Format<'a>>,
    #[serde(borrow, default)]
    verbosity: Option<Text<'a>>,
}

/// What form the answer must have. Of a schema, name and description are for OpenAI's models.
#[derive(Deserialize)]
struct Format<'a> {
    #[serde(borrow, rename = "type")]
    kind: Text<'a>,
    #[serde(borrow, default)]
    schema: Option<&'a RawValue>,
    #[serde(borrow, default)]
    #[expect(dead_code, reason = "known, so that it does not count as ignored")]
    name: Option<&'a RawValue>,
    #[serde(borrow, default)]
    #[expect(dead_code, reason = "known, so that it does not count as ignored")]
    description: Option<&'a RawValue>,
    #[serde(borrow, default)]
    #[expect(dead_code, reason = "known, so that it does not count as ignored")]
    strict: Option<&'a RawValue>,
}

/// What may stand in `include`.
const INCLUDES: [&str; 8] = [
    "reasoning.encrypted_content",
    "message.output_text.logprobs",
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
];

/// Those of tools that OpenAI runs itself, so that there is nothing to include.
pub(crate) const OF_HOSTED_TOOLS: [&str; 4] = [
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "code_interpreter_call.outputs",
];

/// Checks the names in `include`.
///
/// # Errors
/// Fails on one that OpenAI's API does not have.
pub(crate) fn check_include<'n>(names: impl Iterator<Item = &'n str>) -> Result<(), Error> {
    match names.enumerate().find(|(_, name)| !INCLUDES.contains(name)) {
        None => Ok(()),
        Some((n, wrong)) => Err(Error::invalid(
            format!("include[{n}]"),
            format!(
                "Invalid value: '{wrong}'. Supported values are: {}.",
                INCLUDES.map(|name| format!("'{name}'")).join(", ")
            ),
        )),
    }
}

impl<'a> Request<'a> {
    /// Takes the rest of a body apart, where [`input`] and the model are taken. `brought` are the tools that items
    /// bring along. What it does not know, and what has no effect, is noted in `receipt`.
    ///
    /// # Errors
    /// A field that is missing, of the wrong type, out of range, or that Ollama cannot serve.
    pub(crate) fn read(
        model: Text<'a>,
        mut fields: Fields<'a>,
        brought: &[(String, &'a RawValue)],
        terms: Terms,
        receipt: &mut Receipt,
    ) -> Result<Self, Error> {
        let mut unknown = Vec::new();
        let ignored = &mut unknown;
        let instructions: Option<Text<'a>> = fields.take("instructions", ignored)?;
        let continuation = Continuation::of(&fields)?;
        for name in ["previous_response_id", "conversation"] {
            fields.take_raw(name);
        }
        let (previous, conversation) = match continuation {
            Continuation::Nothing => (None, None),
            Continuation::Response(id) => (Some(id), None),
            Continuation::Conversation(id) => (None, Some(InConversation { id })),
        };
        let number = |name: &str, default: &str| owned(fields.raw(name), default);
        let (temperature, top_p) = (number("temperature", "1.0")?, number("top_p", "1.0")?);
        let (presence_penalty, frequency_penalty) =
            (number("presence_penalty", "0")?, number("frequency_penalty", "0")?);
        let max_output_tokens =
            fields.raw("max_output_tokens").map(|raw| read::<u64>("max_output_tokens", raw)).transpose();
        let mut native = Native::take(&mut fields, &["max_output_tokens"], receipt)?;
        let include: Vec<Text<'a>> = fields.take("include", ignored)?.unwrap_or_default();
        check_include(include.iter().map(|name| &**name))?;
        for name in include.iter().filter(|name| OF_HOSTED_TOOLS.contains(&&***name)) {
            receipt.no_effect(&format!("include.{}", &**name));
        }
        let includes = |name: &str| include.iter().any(|known| **known == *name);
        let logprobs = includes("message.output_text.logprobs");
        let top_logprobs = fields.take_raw("top_logprobs").map(logprobs::top).transpose()?;
        if top_logprobs.is_some_and(|n| n > 0) && !logprobs {
            ignored.push("top_logprobs".to_owned());
        }
        let reasoning: options::Reasoning<'a> = fields.take("reasoning", ignored)?.unwrap_or_default();
        let text = owned(fields.raw("text"), "{}")?;
        let config: TextConfig<'a> = fields.take("text", ignored)?.unwrap_or_default();
        if config.verbosity.is_some_and(|verbosity| *verbosity != *"medium") {
            ignored.push("text.verbosity".to_owned());
        }
        let format = config.format.map_or(Ok(None), |format| {
            message::format(&format.kind, format.schema, "text.format", "text.format.schema", receipt)
        })?;
        let given: Vec<&'a RawValue> = fields.take("tools", ignored)?.unwrap_or_default();
        let Offer { tools, offered, echo: tools_echo } = Offer::read(given, brought, terms.hosted, receipt)?;
        let tool_choice = owned(fields.raw("tool_choice"), "\"auto\"")?;
        let choice = match fields.take_raw("tool_choice") {
            Some(raw) => choice::read_choice(raw, &offered, receipt)?,
            None => Default::default(),
        };
        if choice.steers() && !tools.is_empty() {
            receipt.emulated("tool_choice");
        }
        let (mode, one) = (choice.mode, choice.is_for_one());
        let tools = choice.cut(tools)?;
        let parallel = fields.take("parallel_tool_calls", ignored)?.unwrap_or(true);
        if !parallel && !tools.is_empty() {
            receipt.emulated("parallel_tool_calls");
        }
        let max_tool_calls = fields.take_raw("max_tool_calls").map(at_least_one).transpose()?;
        if max_tool_calls.is_some() && !tools.is_empty() {
            receipt.emulated("max_tool_calls");
        }
        let most = max_tool_calls.and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX);
        let overflow = match fields.take::<Text<'a>>("truncation", ignored)?.as_deref() {
            None => None,
            Some("auto") => Some(Overflow::Truncate),
            Some("disabled") => Some(Overflow::Refuse),
            Some(other) => {
                return Err(Error::invalid(
                    "truncation",
                    format!("Invalid value: '{other}'. Supported values are: 'auto' and 'disabled'."),
                ));
            }
        };
        let store: Option<bool> = fields.take("store", ignored)?;
        if store == Some(true) && !terms.keeps {
            ignored.push("store".to_owned());
        }
        let generate = if terms.socket { fields.take("generate", ignored)?.unwrap_or(true) } else { true };
        let background = fields.take("background", ignored)?.unwrap_or(false);
        if background && (store == Some(false) || !terms.keeps) {
            let why = if terms.keeps {
                "set 'store' to true"
            } else {
                "this proxy stores no responses (responses.max_bytes, responses.max_count)"
            };
            return Err(Error::invalid(
                "background",
                format!("A response in the background must be stored, so that it can be fetched: {why}."),
            ));
        }
        let metadata = fields.take_raw("metadata");
        if let Some(raw) = metadata {
            read::<std::collections::HashMap<String, String>>("metadata", raw)?;
        }
        let stream = fields.take("stream", ignored)?.unwrap_or(false);
        let form = Form::of(&tools, mode, format.is_some());
        let held = form != Form::Free;
        let stops = form.take_stops(&mut native.options, receipt);
        let repairs = repairs(&tools, &form, &terms.tools, "tools[].strict", receipt);
        if held && logprobs {
            // They would be those of the JSON that a call or an answer is read out of.
            receipt.no_effect("include");
        }
        if matches!(form, Form::CallOrAnswer(_)) {
            receipt.emulated("text.format");
        }
        let said = |name: &str| -> Result<Option<String>, Error> {
            Ok(fields.raw(name).map(|raw| read::<Text<'a>>(name, raw)).transpose()?.map(|text| text.to_string()))
        };
        let echo = Echo {
            background,
            instructions: instructions.as_deref().map(ToOwned::to_owned),
            max_output_tokens: max_output_tokens?,
            max_tool_calls,
            parallel_tool_calls: parallel,
            previous_response_id: previous,
            conversation,
            reasoning: Reasoning {
                effort: reasoning.effort.as_deref().map(ToOwned::to_owned),
                summary: reasoning
                    .summary
                    .map(|raw| read::<Text<'a>>("reasoning.summary", raw))
                    .transpose()?
                    .map(|text| text.to_string()),
            },
            store: store.unwrap_or(true) && terms.keeps,
            temperature,
            top_p,
            presence_penalty,
            frequency_penalty,
            top_logprobs: top_logprobs.unwrap_or(0),
            text: formatted(text)?,
            tool_choice,
            tools: raw(&tools_echo)?,
            truncation: if overflow == Some(Overflow::Truncate) { "auto" } else { "disabled" },
            user: said("user")?,
            metadata: owned(metadata, "{}")?,
            safety_identifier: said("safety_identifier")?,
            prompt_cache_key: said("prompt_cache_key")?,
        };
        let facts = Facts {
            model: model.to_string(),
            stream,
            offers: !tools.is_empty(),
            form,
            offered,
            repairs,
            // A client that names one tool expects one call.
            most_calls: if parallel && !one { most } else { 1 },
            stops,
            sealed: includes("reasoning.encrypted_content"),
            generate,
            estimate: 0,
            echo,
        };
        settle(Endpoint::Responses, fields, unknown, receipt)?;
        Ok(Self {
            model,
            instructions,
            native,
            effort: reasoning.effort.map(|effort| ("reasoning.effort", effort)),
            format,
            tools,
            logprobs: logprobs && !held,
            top_logprobs,
            overflow,
            facts,
        })
    }

    /// What is asked of Ollama about the context: the client's word wins over the settings. The response shows the
    /// result.
    pub(crate) fn policy(&mut self, settings: Policy) -> Policy {
        let overflow = self.overflow.unwrap_or(settings.overflow);
        self.facts.echo.truncation = if overflow == Overflow::Truncate { "auto" } else { "disabled" };
        Policy { overflow, ..settings }
    }
}

/// The items of `input`; a string is one message of the user's.
///
/// # Errors
/// It is neither a string nor a list.
pub(crate) fn input<'a>(fields: &mut Fields<'a>) -> Result<Vec<Cow<'a, RawValue>>, Error> {
    let Some(given) = fields.take_raw("input") else { return Ok(Vec::new()) };
    if given.get().starts_with('"') {
        let text: Text<'a> = read("input", given)?;
        let message = serde_json::json!({"type": "message", "role": "user", "content": &*text});
        return Ok(vec![Cow::Owned(raw(&message)?)]);
    }
    Ok(read::<Vec<&'a RawValue>>("input", given)?.into_iter().map(Cow::Borrowed).collect())
}

fn at_least_one(raw: &RawValue) -> Result<u64, Error> {
    let n: i64 = read("max_tool_calls", raw)?;
    u64::try_from(n).ok().filter(|n| *n > 0).ok_or_else(|| Error::Invalid {
        message: format!(
            "Invalid 'max_tool_calls': integer below minimum value. Expected a value >= 1, but got {n} instead."
        ),
        param: Some("max_tool_calls".to_owned()),
        code: Some("integer_below_min_value"),
    })
}

fn raw(value: &impl serde::Serialize) -> Result<Box<RawValue>, Error> {
    to_raw_value(value).map_err(|error| Error::Internal { message: error.to_string() })
}

fn owned(given: Option<&RawValue>, default: &str) -> Result<Box<RawValue>, Error> {
    match given {
        Some(given) => Ok(given.to_owned()),
        None => {
            RawValue::from_string(default.to_owned()).map_err(|error| Error::Internal { message: error.to_string() })
        }
    }
}

/// `text` as a response repeats it: with a format.
fn formatted(text: Box<RawValue>) -> Result<Box<RawValue>, Error> {
    let mut value: Value = read("text", &text)?;
    match value.as_object_mut() {
        Some(object) if object.get("format").is_none_or(Value::is_null) => {
            object.insert("format".to_owned(), serde_json::json!({"type": "text"}));
            raw(&value)
        }
        _ => Ok(text),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::openai::request::json::Json;

    /// What a response must know of a request with this body.
    pub(in super::super) fn facts(body: &Value) -> Facts {
        let json = Json::of_test(body.to_string().into_bytes());
        let terms = Terms { keeps: true, ..Terms::default() };
        let mut fields = json.fields().unwrap();
        let model = fields.need("model", &mut Vec::new()).unwrap();
        input(&mut fields).unwrap();
        Request::read(model, fields, &[], terms, &mut Receipt::default()).unwrap().facts
    }
}
