//! A chat request for Ollama, and its whole answer back. Pure.

use std::{borrow::Cow, collections::HashMap};

use serde_json::value::RawValue;

use super::wire::{Answer, Choice, Completion, Facts, Logprob, Logprobs, Message, Request, ResponseFormat, TopLogprob};
use crate::{
    app::Stamp,
    error::Error,
    ollama::{client::encode, wire as native},
    openai::{
        asking::Ask,
        content::{Gathered, gather},
        context::Policy,
        forced::{self, Form, Said},
        options::{limit, next_seed, raw, think},
        receipt::Receipt,
        tools::{self, Numbering},
        usage::Usage,
    },
};

/// What every answer says of the system that made it.
pub(super) const FINGERPRINT: &str = "fp_ollama";

/// What is asked of Ollama, once for each answer that is wanted, and what may be changed about it where it is refused.
///
/// # Errors
/// As [`request`].
pub(super) fn asks(asked: Request<'_>, policy: &Policy) -> Result<Vec<Ask>, Error> {
    let model = asked.model.to_string();
    let effort = if asked.native.think.is_some() {
        None
    } else {
        let switch = asked.thinking_switch.map(|_| "chat_template_kwargs");
        asked.effort.as_ref().map(|(param, _)| *param).or(switch)
    };
    let may_grow = policy.may_grow(&asked.native);
    let limit = limit(&asked.native.options);
    let n = asked.choices.0;
    let mut native = request(asked, policy)?;
    let mut asks = Vec::with_capacity(n);
    for nth in 0..n {
        if nth > 0 {
            next_seed(&mut native.options)?;
        }
        let (model, body) = (model.clone(), encode(&native)?);
        asks.push(Ask { path: "/api/chat", about: "messages", model, body, may_grow, limit, effort });
    }
    Ok(asks)
}

/// Client → upstream.
///
/// # Errors
/// Content, tools or a format that Ollama cannot be given.
pub(super) fn request<'a>(request: Request<'a>, policy: &Policy) -> Result<native::ChatRequest<'a>, Error> {
    let form = request.form();
    let mut native = request.native;
    let truncate = policy.apply(&mut native)?;
    let think = match (native.think, &request.effort, request.thinking_switch) {
        (Some(raw), _, _) => Some(Cow::Borrowed(raw)),
        (None, Some((param, effort)), _) => Some(Cow::Owned(think(effort, param)?)),
        (None, None, Some(on)) => Some(Cow::Owned(raw(&on)?)),
        (None, None, None) => None,
    };
    let wanted = match request.response_format {
        Some(format) => response_format(format)?,
        None => native.format.map(Cow::Borrowed),
    };
    let format = match form {
        Form::Free => wanted,
        Form::Call(_) => Some(Cow::Owned(forced::format(&request.tools, None)?)),
        Form::CallOrAnswer(_) => {
            // JSON mode is no schema.
            let any = raw(&serde_json::json!({"type": "object"}))?;
            let answer = wanted.as_deref().filter(|format| format.get().starts_with('{')).unwrap_or(&any);
            Some(Cow::Owned(forced::format(&request.tools, Some(answer))?))
        }
    };
    let tools = if request.tools.is_empty() { None } else { Some(Cow::Owned(raw(&tools::offer(request.tools)?)?)) };
    Ok(native::ChatRequest {
        model: request.model.0,
        messages: messages(request.messages)?,
        stream: request.stream,
        format,
        keep_alive: native.keep_alive,
        tools,
        options: native.options,
        think,
        truncate: Some(truncate),
        shift: native.shift,
        logprobs: request.logprobs,
        top_logprobs: request.top_logprobs.filter(|_| request.logprobs),
    })
}

fn response_format(format: ResponseFormat<'_>) -> Result<Option<Cow<'_, RawValue>>, Error> {
    match &*format.kind {
        "text" => Ok(None),
        "json_object" => Ok(Some(Cow::Owned(raw(&"json")?))),
        "json_schema" => {
            match format.json_schema.and_then(|named| named.schema).filter(|schema| schema.get() != "null") {
                Some(schema) => Ok(Some(Cow::Borrowed(schema))),
                None => Err(Error::Invalid {
                    message: "Missing required parameter: 'response_format.json_schema.schema'.".to_owned(),
                    param: Some("response_format.json_schema.schema".to_owned()),
                    code: Some("missing_required_parameter"),
                }),
            }
        }
        other => Err(Error::invalid(
            "response_format.type",
            format!("Invalid value: '{other}'. Supported values are: 'text', 'json_object', and 'json_schema'."),
        )),
    }
}

/// One native message for each of OpenAI's.
fn messages(messages: Vec<Message<'_>>) -> Result<Vec<native::Message<'_>>, Error> {
    // A tool's result names its call by id; Ollama's templates want the function's name.
    let mut called: HashMap<String, Cow<'_, str>> = HashMap::new();
    let mut out = Vec::with_capacity(messages.len());
    for (n, message) in messages.into_iter().enumerate() {
        let at = format!("messages[{n}]");
        let Gathered { text, images } = gather(message.content, &format!("{at}.content"))?;
        let mut asked = native::Message { content: text, images, ..native::Message::default() };
        match &*message.role {
            // Few templates know OpenAI's newer name for the system's voice.
            "developer" | "system" => asked.role = Cow::Borrowed("system"),
            "user" => asked.role = Cow::Borrowed("user"),
            "assistant" => {
                asked.role = Cow::Borrowed("assistant");
                asked.thinking =
                    message.reasoning_content.or(message.reasoning).map(|text| text.0).filter(|text| !text.is_empty());
                if let Some(refusal) = message.refusal.filter(|_| asked.content.is_empty()) {
                    asked.content = refusal.0;
                }
                asked.tool_calls = tools::history(message.tool_calls.unwrap_or_default(), &format!("{at}.tool_calls"))?;
                for call in &asked.tool_calls {
                    if let Some(id) = &call.id {
                        called.insert(id.to_string(), call.function.name.clone());
                    }
                }
            }
            "tool" | "function" => {
                asked.role = Cow::Borrowed("tool");
                asked.tool_name = match message.name {
                    Some(name) => Some(name.0),
                    None => message.tool_call_id.as_ref().and_then(|id| called.get(&**id)).cloned(),
                };
                asked.tool_call_id = message.tool_call_id.map(|id| id.0);
            }
            other => {
                return Err(Error::invalid(
                    format!("{at}.role"),
                    format!(
                        "Invalid value: '{other}'. Supported values are: 'system', 'assistant', 'user', 'function', 'tool', and 'developer'."
                    ),
                ));
            }
        }
        out.push(asked);
    }
    Ok(out)
}

/// Upstream → client: a whole answer, of one reply for each choice.
///
/// # Errors
/// An answer that Ollama itself broke off, or one without the call that had to be made.
pub(super) fn response<'a>(
    stamp: &'a Stamp,
    facts: &'a Facts,
    replies: Vec<native::ChatReply<'a>>,
    receipt: &mut Receipt,
) -> Result<Completion<'a>, Error> {
    let mut usage = Usage::default();
    let mut choices = Vec::with_capacity(replies.len());
    for (nth, reply) in replies.into_iter().enumerate() {
        usage = usage.plus(Usage::from(&reply));
        choices.push(choice(stamp, facts, nth, reply, receipt)?);
    }
    Ok(Completion {
        id: &stamp.id,
        object: "chat.completion",
        created: stamp.created,
        model: &facts.model,
        system_fingerprint: FINGERPRINT,
        choices,
        usage: usage.into(),
    })
}

/// What the ids of the calls of one choice are made of.
pub(super) fn digits(stamp: &Stamp, nth: usize) -> String {
    if nth == 0 { stamp.random.clone() } else { format!("{nth:02x}{}", stamp.random) }
}

fn choice<'a>(
    stamp: &Stamp,
    facts: &Facts,
    nth: usize,
    reply: native::ChatReply<'a>,
    receipt: &mut Receipt,
) -> Result<Choice<'a>, Error> {
    if !reply.done {
        return Err(Error::unfinished());
    }
    let usage = Usage::from(&reply);
    let mut numbering = Numbering::new(&digits(stamp, nth));
    let called = reply.message.tool_calls.unwrap_or_default().into_iter();
    let most = if facts.one_call { 1 } else { usize::MAX };
    let mut tool_calls: Vec<_> = called.take(most).map(|call| numbering.next(call).1).collect();
    let thinking = reply.message.thinking.filter(|text| !text.is_empty());
    let mut content = reply.message.content;
    if facts.form != Form::Free {
        let text = std::mem::take(&mut content);
        if tool_calls.is_empty() {
            match said(facts, &text, reply.done_reason.as_deref(), receipt)? {
                Some(Said::Call { name, arguments }) => tool_calls.push(numbering.read(name, arguments).1),
                Some(Said::Answer(answer)) => content = Cow::Owned(answer),
                None => {}
            }
        }
    }
    let finish_reason = finish_reason(reply.done_reason.as_deref(), !tool_calls.is_empty());
    if facts.offers && finish_reason == "stop" && content.is_empty() && usage.output > 0 {
        lost(receipt);
    }
    let content = Some(content).filter(|text| tool_calls.is_empty() || !text.is_empty());
    Ok(Choice {
        index: nth,
        finish_reason,
        message: Answer {
            role: "assistant",
            content,
            refusal: None,
            annotations: [],
            reasoning_content: thinking.clone(),
            reasoning: thinking,
            tool_calls,
        },
        logprobs: reply.logprobs.map(logprobs),
    })
}

/// What the words of a model that is held to a form stand for. `None`: they were cut off before they meant anything.
///
/// # Errors
/// There is no call where one must be made.
pub(super) fn said(
    facts: &Facts,
    text: &str,
    done_reason: Option<&str>,
    receipt: &mut Receipt,
) -> Result<Option<Said>, Error> {
    match (facts.form.read(text), &facts.form) {
        (Some(said), _) => Ok(Some(said)),
        (None, _) if done_reason == Some("length") => Ok(None),
        (None, Form::Free | Form::CallOrAnswer(_)) => {
            receipt.note("response_format", "not-obeyed");
            Ok(Some(Said::Answer(text.to_owned())))
        }
        (None, Form::Call(_)) => Err(Error::unsupported(
            "tool_choice",
            "The model made no call, though 'tool_choice' asks for one and its answer was constrained to one by 'format': \
             this model, or this version of Ollama, does not obey 'format'. Use tool_choice 'auto', or another model.",
        )),
    }
}

/// Ollama drops a call that it cannot read, without a word (recorded: tools/garbled-whole); all that is left is that the model wrote something.
pub(super) fn lost(receipt: &mut Receipt) {
    receipt.note("tool_calls", "lost");
}

/// OpenAI's word for why the model stopped. Ollama says `stop` of tool calls too; `load` and `unload` come without an answer.
pub(super) fn finish_reason(done_reason: Option<&str>, called: bool) -> &'static str {
    match done_reason {
        Some("length") => "length",
        _ if called => "tool_calls",
        _ => "stop",
    }
}

/// Probabilities in OpenAI's shape: keys that Ollama leaves out are null or empty.
pub(super) fn logprobs(tokens: Vec<native::Logprob<'_>>) -> Logprobs<'_> {
    fn one(token: native::Logprob<'_>) -> Logprob<'_> {
        Logprob {
            token: token.token,
            logprob: token.logprob,
            bytes: token.bytes,
            top_logprobs: token.top_logprobs.into_iter().map(alternative).collect(),
        }
    }
    Logprobs { content: tokens.into_iter().map(one).collect(), refusal: None }
}

fn alternative(top: native::Logprob<'_>) -> TopLogprob<'_> {
    TopLogprob { token: top.token, logprob: top.logprob, bytes: top.bytes }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        ollama::client::encode,
        openai::{json::Json, receipt::Receipt},
    };

    /// Any JSON, with a liking for the names and values that the API has.
    fn any_json() -> impl Strategy<Value = Value> {
        const NAMES: &[&str] = &[
            "role",
            "content",
            "type",
            "text",
            "image_url",
            "url",
            "function",
            "name",
            "arguments",
            "tool_calls",
            "id",
            "effort",
        ];
        const WORDS: &[&str] = &[
            "user",
            "tool",
            "assistant",
            "text",
            "image_url",
            "function",
            "{}",
            "data:image/png;base64,QUJD",
            "none",
            "json_schema",
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "\\PC{0,5}".prop_map(Value::from),
            prop::sample::select(WORDS).prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((prop::sample::select(NAMES), inner), 0..4).prop_map(|fields| fields
                    .into_iter()
                    .map(|(name, value)| (name.to_owned(), value))
                    .collect::<serde_json::Map<_, _>>()
                    .into()),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_json_makes_the_translation_panic(
            value in any_json(),
            field in prop::sample::select(&["messages", "tools", "tool_choice", "response_format", "stop", "options", "reasoning", "stream_options", "logprobs", "max_tokens", "n", "modalities"][..]),
        ) {
            let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
            body[field] = value;
            let json = Json::from(body.to_string().into_bytes());
            let request = json.fields().and_then(|fields| Request::read(fields, &mut Receipt::default()));
            if let Ok(ask) = request.and_then(|request| super::request(request, &Policy::default())).and_then(|ask| encode(&ask)) {
                prop_assert!(serde_json::from_slice::<Value>(&ask).unwrap()["messages"].is_array());
            }
        }
    }
}
