//! A request, its fields taken apart, and what making the answer must know of it. Pure.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::{
    tools,
    wire::{Block, Message, OutputConfig, ThinkingConfig},
};
use crate::{
    config::{Config, Tools},
    error::Error,
    openai::{
        request::{
            content::Content,
            json::{Fields, Text},
            options::Native,
            parameters::{Endpoint, settle},
        },
        tools::{Tool, forced::Form, repair::Repairs, repairs},
        upstream_request::message,
    },
    receipt::Receipt,
};

/// A request, its known fields taken apart.
#[derive(Debug)]
pub(super) struct Request<'a> {
    /// The remote's name of the model.
    pub(super) model: Text<'a>,
    pub(super) system: Option<Content<'a, Block<'a>>>,
    pub(super) messages: Vec<Message<'a>>,
    pub(super) native: Native<'a>,
    pub(super) effort: Option<(&'static str, Text<'a>)>,
    pub(super) thinking_switch: Option<(&'static str, bool)>,
    pub(super) format: Option<Cow<'a, RawValue>>,
    /// Those that `tool_choice` leaves.
    pub(super) tools: Vec<Tool<'a>>,
    pub(super) facts: Facts,
}

/// What making the answer must know of its request.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    /// As the client names it.
    pub(super) model: String,
    pub(super) stream: bool,
    /// What the model's text is read as.
    pub(super) form: Form,
    /// Whether the model was offered tools.
    pub(super) offers: bool,
    /// What its calls are checked against.
    pub(crate) repairs: Repairs,
    /// How many of its calls count.
    pub(super) most_calls: usize,
    /// The strings that end the answer.
    pub(super) stops: Vec<String>,
    pub(super) thoughts: Thoughts,
    /// About how many tokens the prompt has.
    pub(super) estimate: u64,
}

/// What the client sees of the model's thoughts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Thoughts {
    /// Nothing: it did not ask the model to think.
    Hidden,
    /// All.
    Shown,
    /// That there are some; it carries them unread.
    Sealed,
}

/// Whether a request is for a message, or only for the length of its prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum For {
    Message,
    Count,
}

impl<'a> Request<'a> {
    /// Takes a body apart. What it does not know, and what has no effect, is noted in `receipt`. `settings` are those
    /// of tools.
    ///
    /// # Errors
    /// Fails on a field that is missing, of the wrong type, out of range, or that Ollama cannot serve.
    pub(super) fn read(
        mut fields: Fields<'a>,
        purpose: For,
        config: &Config,
        settings: &Tools,
        receipt: &mut Receipt,
    ) -> Result<Self, Error> {
        let mut unknown = Vec::new();
        let ignored = &mut unknown;
        let named: Text<'a> = fields.need("model", ignored)?;
        if named.is_empty() {
            return Err(Error::missing("model"));
        }
        // An alias of that very name wins.
        let alias = config.models.preset(&named).is_some();
        let config = &config.anthropic;
        let model = match config.behind(&named).filter(|_| !alias) {
            Some(model) => {
                receipt.note("model", format!("alias:{model}"));
                Text(Cow::Owned(model.to_owned()))
            }
            None => named.clone(),
        };
        let messages: Vec<Message<'a>> = fields.need("messages", ignored)?;
        if messages.is_empty() {
            return Err(Error::Invalid {
                message: "messages: at least one message is required".to_owned(),
                param: Some("messages".to_owned()),
                code: Some("empty_array"),
            });
        }
        if purpose == For::Message && fields.raw("max_tokens").is_none() {
            return Err(Error::missing("max_tokens"));
        }
        let mut native = Native::take(&mut fields, &["max_tokens"], receipt)?;
        let system = fields.take("system", ignored)?;
        let stream = fields.take("stream", ignored)?.unwrap_or(false);
        let OutputConfig { effort, format } = fields.take("output_config", ignored)?.unwrap_or_default();
        let (format, at) = match fields.take("output_format", ignored)? {
            Some(format) => (Some(format), "output_format"),
            None => (format, "output_config.format"),
        };
        let format = match format {
            Some(format) => message::format(&format.kind, format.schema, at, &format!("{at}.schema"), receipt)?,
            None => None,
        };
        let thinking: Option<ThinkingConfig<'a>> = fields.take("thinking", ignored)?;
        let Thinking { thoughts, effort, switch } = Thinking::of(thinking, effort, receipt)?;
        // Ollama's own field wins.
        let thoughts = match native.think.map(RawValue::get) {
            Some("false") => Thoughts::Hidden,
            Some(_) if thoughts == Thoughts::Hidden => Thoughts::Shown,
            None | Some(_) => thoughts,
        };
        let tools = tools::offer(fields.take("tools", ignored)?.unwrap_or_default(), config.server_tools, receipt)?;
        let (choice, parallel) = match fields.take("tool_choice", ignored)? {
            Some(choice) => tools::choice(choice)?,
            None => (Default::default(), true),
        };
        if (choice.steers() || !parallel) && !tools.is_empty() {
            receipt.emulated("tool_choice");
        }
        let (mode, one) = (choice.mode, choice.is_for_one());
        let tools = choice.cut(tools)?;
        let mut stops = stop_sequences(fields.take("stop_sequences", ignored)?.unwrap_or_default())?;
        if !stops.is_empty() {
            receipt.emulated("stop_sequences");
        }
        let form = Form::of(&tools, mode, format.is_some());
        stops.extend(form.take_stops(&mut native.options, receipt));
        let repairs = repairs(&tools, &form, settings, "tools[].strict", receipt);
        if matches!(form, Form::CallOrAnswer(_)) {
            receipt.emulated(at);
        }
        let facts = Facts {
            model: named.to_string(),
            stream,
            offers: !tools.is_empty(),
            form,
            repairs,
            most_calls: if parallel && !one { usize::MAX } else { 1 },
            stops,
            thoughts,
            estimate: 0,
        };
        settle(Endpoint::Messages, fields, unknown, receipt)?;
        Ok(Self { model, system, messages, native, effort, thinking_switch: switch, format, tools, facts })
    }
}

/// What a request says about thinking.
struct Thinking<'a> {
    thoughts: Thoughts,
    /// How much, and the field that says so.
    effort: Option<(&'static str, Text<'a>)>,
    /// Whether at all, where nothing says how much.
    switch: Option<(&'static str, bool)>,
}

impl<'a> Thinking<'a> {
    /// # Errors
    /// Fails on a value that Anthropic's API does not have.
    fn of(config: Option<ThinkingConfig<'a>>, effort: Option<Text<'a>>, receipt: &mut Receipt) -> Result<Self, Error> {
        let on = match config.as_ref().map(|config| &*config.kind) {
            // Who does not ask for thoughts gets none: many programs take the first block of an answer for its text.
            None | Some("disabled") => false,
            Some("enabled" | "adaptive" | "between_tools") => true,
            Some(other) => {
                return Err(Error::invalid(
                    "thinking.type",
                    format!(
                        "Invalid value: '{other}'. Supported values are: 'enabled', 'adaptive', 'between_tools' and 'disabled'."
                    ),
                ));
            }
        };
        if !on {
            if effort.is_some() {
                receipt.no_effect("output_config.effort");
            }
            return Ok(Self { thoughts: Thoughts::Hidden, effort: None, switch: Some(("thinking", false)) });
        }
        let (budget, display) = config.map_or((None, None), |config| (config.budget_tokens, config.display));
        let thoughts = match display.as_deref() {
            None | Some("summarized") => Thoughts::Shown,
            Some("omitted") => Thoughts::Sealed,
            Some(other) => {
                return Err(Error::invalid(
                    "thinking.display",
                    format!("Invalid value: '{other}'. Supported values are: 'summarized' and 'omitted'."),
                ));
            }
        };
        let level = |budget: u64| match budget {
            0..=2048 => "low",
            2049..=8192 => "medium",
            _ => "high",
        };
        let effort = match (effort, budget) {
            (Some(effort), _) => Some(("output_config.effort", effort)),
            (None, Some(budget)) => Some(("thinking.budget_tokens", Text(level(budget).into()))),
            (None, None) => None,
        };
        let switch = effort.is_none().then_some(("thinking", true));
        Ok(Self { thoughts, effort, switch })
    }
}

/// The strings that end the answer, without empty ones. Each is looked for in each piece of the answer, so they are
/// bounded.
///
/// # Errors
/// Fails if there are too many, or one is too long.
fn stop_sequences(given: Vec<Text<'_>>) -> Result<Vec<String>, Error> {
    const MOST: usize = 128;
    const LONGEST: usize = 1024;
    if given.len() > MOST || given.iter().any(|stop| stop.len() > LONGEST) {
        return Err(Error::invalid(
            "stop_sequences",
            format!("Invalid 'stop_sequences': expected at most {MOST} strings of at most {LONGEST} bytes each."),
        ));
    }
    Ok(given.into_iter().filter(|stop| !stop.is_empty()).map(|stop| stop.0.into_owned()).collect())
}
