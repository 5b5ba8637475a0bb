//! The types of OpenAI's chat completions, as they cross the wire.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    config,
    error::Error,
    ollama::wire as native,
    openai::{
        request::{
            content::Content,
            json::{Fields, Text, is_empty, read},
            options::{Native, Reasoning},
            parameters::{Endpoint, settle},
        },
        response::logprobs::{self, Logprob},
        tools::{
            CalledFunction, Function, PastCall, PastFunction, Tool, ToolCall,
            choice::{Mode, ToolChoice},
            forced::Form,
            repair::Repairs,
            repairs,
        },
    },
    receipt::Receipt,
    usage::CompletionUsage,
};

/// A request, its known fields taken apart.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub(crate) model: Text<'a>,
    pub(crate) messages: Vec<Message<'a>>,
    pub(crate) stream: bool,
    pub(crate) include_usage: bool,
    pub(crate) native: Native<'a>,
    pub(crate) effort: Option<(&'static str, Text<'a>)>,
    pub(crate) thinking_switch: Option<bool>,
    pub(crate) response_format: Option<ResponseFormat<'a>>,
    /// Those that `tool_choice` leaves.
    pub(crate) tools: Vec<Tool<'a>>,
    pub(crate) choice: Mode,
    /// What calls are checked against.
    pub(crate) repairs: Repairs,
    /// How many calls the client wants at most.
    pub(crate) most_calls: usize,
    /// Whether the client speaks of functions instead of tools, as before November 2023.
    pub(crate) legacy: bool,
    /// The stop strings that an answer in a form is cut at here.
    pub(crate) stops: Vec<String>,
    pub(crate) choices: Choices,
    pub(crate) logprobs: bool,
    pub(crate) top_logprobs: Option<u8>,
}

/// What the answer must know of its request.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) model: String,
    pub(crate) stream: bool,
    pub(crate) include_usage: bool,
    /// What the model's words are read as.
    pub(crate) form: Form,
    /// Whether the model was offered tools.
    pub(crate) offers: bool,
    /// What its calls are checked against.
    pub(crate) repairs: Repairs,
    /// How many of its calls count.
    pub(crate) most_calls: usize,
    /// Whether a call is written as `function_call`.
    pub(crate) legacy: bool,
    /// The stop strings that an answer in a form is cut at here.
    pub(crate) stops: Vec<String>,
    /// How many answers are wanted, at least one.
    pub(crate) choices: Choices,
}

/// How many answers are wanted: 1 to 128.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Choices(pub(crate) usize);

impl Default for Facts {
    fn default() -> Self {
        Self {
            model: String::new(),
            stream: false,
            include_usage: false,
            form: Form::Free,
            offers: false,
            repairs: Repairs::default(),
            most_calls: usize::MAX,
            legacy: false,
            stops: Vec::new(),
            choices: Choices::default(),
        }
    }
}

impl Default for Choices {
    fn default() -> Self {
        Self(1)
    }
}

/// One message of the conversation; which fields are filled depends on `role`.
#[derive(Debug, Deserialize)]
pub(crate) struct Message<'a> {
    #[serde(borrow)]
    pub(crate) role: Text<'a>,
    #[serde(borrow, default)]
    pub(crate) content: Option<Content<'a>>,
    #[serde(borrow, default)]
    pub(crate) name: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(crate) refusal: Option<Text<'a>>,
    /// Thinking, as most compatible servers call it.
    #[serde(borrow, default)]
    pub(crate) reasoning_content: Option<Text<'a>>,
    /// Thinking, as Ollama's own layer calls it.
    #[serde(borrow, default)]
    pub(crate) reasoning: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(crate) tool_calls: Option<Vec<PastCall<'a>>>,
    #[serde(borrow, default)]
    pub(crate) tool_call_id: Option<Text<'a>>,
    /// The one call of an answer before there were tools.
    #[serde(borrow, default)]
    pub(crate) function_call: Option<PastFunction<'a>>,
    // Of an answer of ours that comes back: nothing that the model can use.
    #[serde(borrow, default)]
    annotations: Option<&'a RawValue>,
    #[serde(borrow, default)]
    audio: Option<&'a RawValue>,
}

/// What form the answer must have.
#[derive(Debug, Deserialize)]
pub(crate) struct ResponseFormat<'a> {
    #[serde(borrow, rename = "type")]
    pub(crate) kind: Text<'a>,
    #[serde(borrow, default)]
    pub(crate) json_schema: Option<JsonSchema<'a>>,
}

/// A named schema. Name and description are for OpenAI's models; Ollama is given the schema alone, and always holds the
/// model to it.
#[derive(Debug, Deserialize)]
pub(crate) struct JsonSchema<'a> {
    #[serde(borrow, default)]
    pub(crate) schema: Option<&'a RawValue>,
    #[serde(borrow, default)]
    #[expect(dead_code, reason = "known, so that it does not count as ignored")]
    pub(crate) name: Option<&'a RawValue>,
    #[serde(borrow, default)]
    #[expect(dead_code, reason = "known, so that it does not count as ignored")]
    pub(crate) description: Option<&'a RawValue>,
    #[serde(borrow, default)]
    #[expect(dead_code, reason = "known, so that it does not count as ignored")]
    pub(crate) strict: Option<&'a RawValue>,
}

#[derive(Debug, Default, Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: Option<bool>,
    /// Padding against eavesdroppers is optional for a server.
    #[serde(default)]
    #[expect(dead_code, reason = "known, so that it does not count as ignored")]
    include_obfuscation: Option<bool>,
}

/// A switch that vLLM and others have, and many tools send.
#[derive(Debug, Default, Deserialize)]
struct ChatTemplateKwargs {
    #[serde(default)]
    enable_thinking: Option<bool>,
}

impl<'a> Request<'a> {
    /// Takes a body apart. What it does not know, and what has no effect, is noted in `receipt`. `settings` are those
    /// of tools.
    ///
    /// # Errors
    /// A field that is missing, of the wrong type, out of range, or that Ollama cannot serve.
    pub(crate) fn read(mut fields: Fields<'a>, settings: &config::Tools, receipt: &mut Receipt) -> Result<Self, Error> {
        let mut unknown = Vec::new();
        let ignored = &mut unknown;
        let model = fields.need("model", ignored)?;
        let messages: Vec<Message<'a>> = fields.need("messages", ignored)?;
        if messages.is_empty() {
            return Err(Error::Invalid {
                message: "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an empty array instead."
                    .to_owned(),
                param: Some("messages".to_owned()),
                code: Some("empty_array"),
            });
        }
        for (n, message) in messages.iter().enumerate() {
            // Ollama's templates have a place for the name of a tool only.
            if message.name.is_some() && !matches!(&*message.role, "tool" | "function") {
                ignored.push(format!("messages[{n}].name"));
            }
            for (name, value) in [("annotations", message.annotations), ("audio", message.audio)] {
                if value.is_some_and(|value| serde_json::from_str(value.get()).map_or(true, |value| !is_empty(&value)))
                {
                    ignored.push(format!("messages[{n}].{name}"));
                }
            }
        }
        let native = Native::take(&mut fields, &["max_completion_tokens", "max_tokens"], receipt)?;
        let effort = match fields.take::<Reasoning<'a>>("reasoning", ignored)?.and_then(|reasoning| reasoning.effort) {
            Some(effort) => Some(("reasoning.effort", effort)),
            None => fields.take("reasoning_effort", ignored)?.map(|effort| ("reasoning_effort", effort)),
        };
        let thinking_switch = fields
            .take::<ChatTemplateKwargs>("chat_template_kwargs", ignored)?
            .and_then(|kwargs| kwargs.enable_thinking);
        // The handler stores it.
        if fields.take("store", ignored)?.unwrap_or(false) {
            fields.take_raw("metadata");
        }
        let stream = fields.take("stream", ignored)?.unwrap_or(false);
        let stream_options: StreamOptions = fields.take("stream_options", ignored)?.unwrap_or_default();
        let logprobs = fields.take("logprobs", ignored)?.unwrap_or(false);
        let top_logprobs = fields.take_raw("top_logprobs").map(logprobs::top).transpose()?;
        if top_logprobs.is_some_and(|n| n > 0) && !logprobs {
            return Err(Error::invalid("top_logprobs", "'top_logprobs' is allowed only when 'logprobs' is true."));
        }
        let mut tools: Vec<Tool<'a>> = fields.take("tools", ignored)?.unwrap_or_default();
        let functions: Vec<Function<'a>> = fields.take("functions", ignored)?.unwrap_or_default();
        let legacy = !functions.is_empty();
        if legacy && !tools.is_empty() {
            return Err(Error::invalid("functions", "'functions' and 'tools' cannot be used together; use 'tools'."));
        }
        let choice_field = if legacy { "function_call" } else { "tool_choice" };
        tools.extend(functions.into_iter().map(Tool::from));
        for (n, tool) in tools.iter_mut().enumerate() {
            tool.accept(|| {
                if legacy { format!("functions[{n}].parameters") } else { format!("tools[{n}].function.parameters") }
            })?;
        }
        let tool_choice = fields.take_raw("tool_choice").map(ToolChoice::read).transpose()?;
        let function_call = fields.take_raw("function_call").map(ToolChoice::read_legacy).transpose()?;
        if !legacy && function_call.as_ref().is_some_and(|choice| choice.mode == Mode::Required) {
            return Err(Error::invalid(
                "function_call",
                "'function_call' is only allowed when 'functions' are specified.",
            ));
        }
        // Each steers its own kind.
        let tool_choice = if legacy { function_call } else { tool_choice }.unwrap_or_default();
        if legacy {
            receipt.emulated("functions");
        }
        if tool_choice.steers() && !tools.is_empty() {
            receipt.emulated(choice_field);
        }
        let (choice, one) = (tool_choice.mode, tool_choice.is_for_one());
        let tools = tool_choice.cut(tools)?;
        let parallel: Option<bool> = fields.take("parallel_tool_calls", ignored)?;
        if parallel == Some(false) && !tools.is_empty() {
            receipt.emulated("parallel_tool_calls");
        }
        // A client that names one tool expects one call, and one that speaks of functions has room for one.
        let most_calls = if parallel == Some(false) || legacy || one { 1 } else { usize::MAX };
        let choices = fields.take_raw("n").map_or(Ok(Choices::default()), choices)?;
        if choices != Choices::default() {
            receipt.emulated("n");
        }
        let mut request = Self {
            model,
            messages,
            stream,
            include_usage: stream_options.include_usage.unwrap_or(false),
            native,
            effort,
            thinking_switch,
            response_format: fields.take("response_format", ignored)?,
            tools,
            choice,
            repairs: Repairs::default(),
            most_calls,
            legacy,
            stops: Vec::new(),
            choices,
            logprobs,
            top_logprobs,
        };
        let form = request.form();
        request.stops = form.take_stops(&mut request.native.options, receipt);
        let strict = if legacy { "functions[].strict" } else { "tools[].function.strict" };
        request.repairs = repairs(&request.tools, &form, settings, strict, receipt);
        match form {
            Form::Free => {}
            form => {
                if matches!(form, Form::CallOrAnswer(_)) {
                    receipt.emulated("response_format");
                }
                // They would be those of the JSON that a call or an answer is read out of.
                if std::mem::take(&mut request.logprobs) {
                    receipt.no_effect("logprobs");
                }
            }
        }
        settle(Endpoint::Chat, fields, unknown, receipt)?;
        Ok(request)
    }

    /// What the answer must know.
    pub(crate) fn facts(&self) -> Facts {
        Facts {
            model: self.model.to_string(),
            stream: self.stream,
            include_usage: self.include_usage,
            form: self.form(),
            offers: !self.tools.is_empty(),
            repairs: self.repairs.clone(),
            most_calls: self.most_calls,
            legacy: self.legacy,
            stops: self.stops.clone(),
            choices: self.choices,
        }
    }

    /// What the model must be held to.
    pub(crate) fn form(&self) -> Form {
        let formatted = self.response_format.as_ref().is_some_and(|format| &*format.kind != "text");
        Form::of(&self.tools, self.choice, formatted)
    }
}

fn choices(raw: &RawValue) -> Result<Choices, Error> {
    let n: i64 = read("n", raw)?;
    usize::try_from(n).ok().filter(|n| (1..=128).contains(n)).map(Choices).ok_or_else(|| Error::Invalid {
        message: format!("Invalid 'n': expected an integer from 1 to 128, but got {n} instead."),
        param: Some("n".to_owned()),
        code: Some(if n < 1 { "integer_below_min_value" } else { "integer_above_max_value" }),
    })
}

/// A whole answer.
#[derive(Debug, Serialize)]
pub(crate) struct Completion<'a> {
    pub(crate) id: &'a str,
    pub(crate) object: &'static str,
    pub(crate) created: u64,
    pub(crate) model: &'a str,
    pub(crate) system_fingerprint: &'static str,
    pub(crate) choices: Vec<Choice<'a>>,
    pub(crate) usage: CompletionUsage,
}

/// The one choice of an answer.
#[derive(Debug, Serialize)]
pub(crate) struct Choice<'a> {
    pub(crate) index: usize,
    pub(crate) message: Answer<'a>,
    pub(crate) logprobs: Option<Logprobs<'a>>,
    pub(crate) finish_reason: &'static str,
}

/// What the model said. `content` is null when there are only tool calls; `tool_calls` is left out when there are none.
#[derive(Debug, Serialize)]
pub(crate) struct Answer<'a> {
    pub(crate) role: &'static str,
    pub(crate) content: Option<Cow<'a, str>>,
    pub(crate) refusal: Option<&'a str>,
    pub(crate) annotations: [(); 0],
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reasoning_content: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reasoning: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) tool_calls: Vec<ToolCall<'a>>,
    /// The one call, where the client speaks of functions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) function_call: Option<CalledFunction<'a>>,
}

/// What begins each event of a streamed answer. `choices` follow; then `usage`, absent where it was not asked for, else
/// null until the last event.
#[derive(Debug, Serialize)]
pub(crate) struct ChunkHead<'a> {
    pub(crate) id: &'a str,
    pub(crate) object: &'static str,
    pub(crate) created: u64,
    pub(crate) model: &'a str,
    pub(crate) system_fingerprint: &'static str,
}

/// What a chunk adds to the one choice.
#[derive(Debug, Serialize)]
pub(crate) struct ChunkChoice<'a> {
    pub(crate) index: usize,
    pub(crate) delta: Delta<'a>,
    pub(crate) logprobs: Option<Logprobs<'a>>,
    pub(crate) finish_reason: Option<&'static str>,
}

/// What is new.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Delta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) content: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) refusal: Option<()>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reasoning_content: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reasoning: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) tool_calls: Vec<ToolCall<'a>>,
    /// The one call, where the client speaks of functions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) function_call: Option<CalledFunction<'a>>,
}

/// Probabilities of the tokens of a message or a delta.
#[derive(Debug, Serialize)]
pub(crate) struct Logprobs<'a> {
    pub(crate) content: Vec<Logprob<'a>>,
    pub(crate) refusal: Option<()>,
}

impl<'a> Logprobs<'a> {
    /// From Ollama's response.
    pub(crate) fn of(tokens: Vec<native::Logprob<'a>>) -> Self {
        Self { content: tokens.into_iter().map(Logprob::from).collect(), refusal: None }
    }
}
