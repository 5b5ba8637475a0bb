//! One turn of a model over `POST /api/chat`, as chat completions and responses both ask for it. Pure.

use std::borrow::Cow;

use bytes::Bytes;
use serde_json::{Value, value::RawValue};

use crate::{
    error::{Error, Params},
    ollama::wire as native,
    openai::{
        request::{
            json::Text,
            options::{Native, limit, raw, think},
        },
        schema::{self, Impossible},
        tools::{
            self, Tool,
            forced::{self, Form},
            repair::Repairs,
        },
        upstream_request::{
            context::Policy,
            send::{UpstreamRequest, VersionGated},
        },
    },
    receipt::Receipt,
};

/// All that is asked, but for the messages.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    pub(crate) model: Text<'a>,
    pub(crate) stream: bool,
    pub(crate) native: Native<'a>,
    /// How much to think, and the field that says so.
    pub(crate) effort: Option<(&'static str, Text<'a>)>,
    /// Whether to think at all, and the field that says so.
    pub(crate) thinking_switch: Option<(&'static str, bool)>,
    /// The form that the answer must have, in Ollama's words.
    pub(crate) format: Option<Cow<'a, RawValue>>,
    /// Those that may be called.
    pub(crate) tools: Vec<Tool<'a>>,
    /// What the model's words will be read as.
    pub(crate) form: Form,
    /// How many calls are wanted at most, where there must be some.
    pub(crate) most_calls: usize,
    pub(crate) logprobs: bool,
    pub(crate) top_logprobs: Option<u8>,
}

impl<'a> Turn<'a> {
    /// What may be changed about it where Ollama refuses; the body is still to come, and with it what is new. `params`
    /// are the endpoint's own names for what Ollama may refuse.
    pub(crate) fn ask(&self, params: Params, policy: &Policy) -> UpstreamRequest {
        let native = &self.native;
        let effort = if native.think.is_some() {
            None
        } else {
            let switch = self.thinking_switch.map(|(param, _)| param);
            self.effort.as_ref().map(|(param, _)| *param).or(switch)
        };
        let format = match &self.form {
            Form::Call(_) => "tools",
            _ if native.format.is_some() => "format",
            _ => params.format,
        };
        let said = if native.think.is_some() { "think" } else { effort.unwrap_or(params.effort) };
        let params = Params { format, effort: said, ..params };
        UpstreamRequest {
            path: "/api/chat",
            params,
            model: self.model.to_string(),
            body: Bytes::new(),
            may_grow: policy.may_grow(native),
            limit: limit(&native.options),
            effort,
            forced: self.form != Form::Free,
            version_gated: VersionGated::default(),
            reask: Repairs::default(),
        }
    }

    /// Client → upstream.
    ///
    /// # Errors
    /// Tools or an effort that Ollama cannot be given.
    pub(crate) fn request(
        mut self,
        mut messages: Vec<native::Message<'a>>,
        policy: &Policy,
        receipt: &mut Receipt,
    ) -> Result<native::ChatRequest<'a>, Error> {
        let truncate = policy.apply(&mut self.native);
        if let Some(system) = self.native.preset_system
            && !messages.iter().any(|message| message.role == "system")
        {
            let (role, content) = (Cow::Borrowed("system"), Cow::Borrowed(system));
            messages.insert(0, native::Message { role, content, ..native::Message::default() });
        }
        let think = match (self.native.think, &self.effort, self.thinking_switch) {
            (Some(raw), _, _) => Some(Cow::Borrowed(raw)),
            (None, Some((param, effort)), _) => Some(Cow::Owned(think(effort, param)?)),
            (None, None, Some((_, on))) => Some(Cow::Owned(raw(&on))),
            (None, None, None) => self.native.preset_think.map(Cow::Borrowed),
        };
        let wanted = self.format.or(self.native.format.map(Cow::Borrowed));
        let format = match self.form {
            Form::Free => wanted,
            Form::Call(_) => Some(Cow::Owned(forced::format(&self.tools, None, self.most_calls, receipt)?)),
            Form::CallOrAnswer(_) => {
                // JSON mode is no schema.
                let any = raw(&serde_json::json!({"type": "object"}));
                let answer = wanted.as_deref().filter(|format| format.get().starts_with('{')).unwrap_or(&any);
                Some(Cow::Owned(forced::format(&self.tools, Some(answer), self.most_calls, receipt)?))
            }
        };
        let tools = if self.tools.is_empty() { None } else { Some(Cow::Owned(raw(&tools::offer(self.tools)?))) };
        Ok(native::ChatRequest {
            model: self.model.0,
            messages,
            stream: self.stream,
            format,
            keep_alive: self.native.keep_alive,
            tools,
            options: self.native.options,
            think,
            truncate: Some(truncate),
            shift: self.native.shift,
            logprobs: self.logprobs,
            top_logprobs: self.top_logprobs.filter(|_| self.logprobs),
        })
    }
}

/// `format` for an answer of `kind`: nothing for text. `at` is the path of the format, `schema_at` that of its schema.
///
/// # Errors
/// A kind that OpenAI's API does not have, no schema where one is needed, or one that Ollama cannot enforce.
pub(crate) fn format<'a>(
    kind: &str,
    schema: Option<&'a RawValue>,
    at: &str,
    schema_at: &str,
    receipt: &mut Receipt,
) -> Result<Option<Cow<'a, RawValue>>, Error> {
    match kind {
        "text" => Ok(None),
        "json_object" => Ok(Some(Cow::Owned(raw(&"json")))),
        "json_schema" => match schema.filter(|schema| schema.get() != "null") {
            Some(schema) => grammar(schema, schema_at, receipt).map(Some),
            None => Err(Error::missing(schema_at)),
        },
        other => Err(Error::invalid(
            format!("{at}.type"),
            format!("Invalid value: '{other}'. Supported values are: 'text', 'json_object', and 'json_schema'."),
        )),
    }
}

/// A schema as Ollama's grammar takes it; verbatim if it does. What it leaves out is noted.
fn grammar<'a>(given: &'a RawValue, at: &str, receipt: &mut Receipt) -> Result<Cow<'a, RawValue>, Error> {
    let value: Value = serde_json::from_str(given.get()).map_err(|_| Error::invalid(at, schema::TOO_DEEP))?;
    let mut rewritten = value.clone();
    schema::rewrite(&mut rewritten, at, Impossible::Refused, true, receipt)?;
    if rewritten == value { Ok(Cow::Borrowed(given)) } else { Ok(Cow::Owned(raw(&rewritten))) }
}
