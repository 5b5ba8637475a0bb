//! A chat request for Ollama, and its whole answer back. Pure.

use std::{borrow::Cow, collections::HashMap};

use serde_json::value::RawValue;

use crate::{
    error::{Error, Params},
    ollama::wire as native,
    openai::{
        chat::wire::{Answer, Choice, Completion, Facts, Logprobs, Message, Request, ResponseFormat},
        request::{
            content::{Gathered, gather},
            options::Seeds,
        },
        tools::{
            self, Numbering, PastCall,
            forced::{Form, Said, cut_at},
            repair::Repairs,
        },
        upstream_request::{
            context::Policy,
            message::{self, Turn},
            send::{Bodies, UpstreamRequest, VersionGated},
        },
    },
    receipt::Receipt,
    stamp::Stamp,
    usage::Usage,
};

/// What every answer says of the system that made it.
pub(super) const FINGERPRINT: &str = "fp_ollama";

/// What is asked of Ollama, once for each answer that is wanted, and what may be changed about it where it is refused.
///
/// # Errors
/// As [`request`]; bodies that are larger than `room` together.
pub(super) fn asks(
    asked: Request<'_>,
    policy: &Policy,
    room: usize,
    receipt: &mut Receipt,
) -> Result<Vec<UpstreamRequest>, Error> {
    let n = asked.choices.0;
    let reask = if asked.form() == Form::Free { asked.repairs.for_asking_again() } else { Repairs::default() };
    let (turn, messages) = turn(asked, receipt)?;
    let ask = turn.ask(Params::default(), policy);
    let mut native = turn.request(messages, policy, receipt)?;
    let ask = UpstreamRequest { version_gated: VersionGated::of(&native), reask, ..ask };
    let (mut seeds, mut bodies) = (Seeds::of(&native.options), Bodies::within(room).of_size(size(&native)));
    seeds.first(&mut native.options);
    let mut asks = Vec::with_capacity(n);
    for nth in 0..n {
        if nth == 0 || seeds.next(&mut native.options) {
            bodies.encode(&native)?;
        }
        asks.push(UpstreamRequest { body: bodies.last(), ..ask.clone() });
    }
    Ok(asks)
}

/// About how long a request is as JSON, somewhat more than less.
fn size(native: &native::ChatRequest<'_>) -> usize {
    let message = |message: &native::Message<'_>| {
        let images: usize = message.images.iter().map(|image| image.len() + 3).sum();
        let thinking = message.thinking.as_ref().map_or(0, |text| text.len());
        128 + (message.content.len() + thinking) / 8 * 9 + images + message.tool_calls.len() * 256
    };
    let raw = [&native.tools, &native.format].map(|raw| raw.as_ref().map_or(0, |raw| raw.get().len()));
    512 + native.messages.iter().map(message).sum::<usize>() + raw.iter().sum::<usize>()
}

/// Client → upstream.
///
/// # Errors
/// Content, tools or a format that Ollama cannot be given.
#[cfg(test)]
pub(super) fn request<'a>(
    request: Request<'a>,
    policy: &Policy,
    receipt: &mut Receipt,
) -> Result<native::ChatRequest<'a>, Error> {
    let (turn, messages) = turn(request, receipt)?;
    turn.request(messages, policy, receipt)
}

/// What is asked, and the messages.
fn turn<'a>(request: Request<'a>, receipt: &mut Receipt) -> Result<(Turn<'a>, Vec<native::Message<'a>>), Error> {
    let form = request.form();
    let format = request.response_format.map_or(Ok(None), |format| response_format(format, receipt))?;
    let turn = Turn {
        model: request.model,
        stream: request.stream,
        native: request.native,
        effort: request.effort,
        thinking_switch: request.thinking_switch.map(|on| ("chat_template_kwargs", on)),
        format,
        tools: request.tools,
        form,
        most_calls: request.most_calls,
        logprobs: request.logprobs,
        top_logprobs: request.top_logprobs,
    };
    Ok((turn, messages(request.messages, receipt)?))
}

fn response_format<'a>(format: ResponseFormat<'a>, receipt: &mut Receipt) -> Result<Option<Cow<'a, RawValue>>, Error> {
    let schema = format.json_schema.and_then(|named| named.schema);
    message::format(&format.kind, schema, "response_format", "response_format.json_schema.schema", receipt)
}

/// One native message for each of OpenAI's.
fn messages<'a>(messages: Vec<Message<'a>>, receipt: &mut Receipt) -> Result<Vec<native::Message<'a>>, Error> {
    // A tool's result names its call by id; Ollama's templates want the function's name.
    let mut called: HashMap<String, Cow<'a, str>> = HashMap::new();
    let mut out = Vec::with_capacity(messages.len());
    for (n, message) in messages.into_iter().enumerate() {
        // Written only where something is wrong.
        let at = |field: &str| format!("messages[{n}]{field}");
        let Gathered { text, images } = gather(message.content, || at(".content"))?;
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
                let mut calls = message.tool_calls.unwrap_or_default();
                calls.extend(message.function_call.map(PastCall::from));
                asked.tool_calls = tools::history(calls, || at(".tool_calls"), receipt);
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
                    at(".role"),
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
    let mut tool_calls: Vec<_> = called.take(facts.most_calls).map(|call| numbering.next(call).1).collect();
    for call in &mut tool_calls {
        facts.repairs.fix(&mut call.function, receipt);
    }
    let thinking = reply.message.thinking.filter(|text| !text.is_empty());
    let mut content = reply.message.content;
    if facts.form == Form::Free {
        if tool_calls.is_empty()
            && reply.logprobs.as_ref().is_none_or(Vec::is_empty)
            && let Some(mut rescue) = facts.repairs.rescue()
        {
            let mut text = rescue.push(&content).into_owned();
            let rest = rescue.finish(reply.done_reason.as_deref());
            if !rest.calls.is_empty() {
                text.push_str(&rest.text);
                content = Cow::Owned(text);
            }
            tools::rescued(&rest.calls, receipt);
            tool_calls.extend(rest.calls.into_iter().take(facts.most_calls).map(|call| {
                let (_, mut call) = numbering.read(call);
                facts.repairs.fix(&mut call.function, receipt);
                call
            }));
        }
    } else {
        let text = std::mem::take(&mut content);
        if tool_calls.is_empty() {
            match facts.form.said(&text, reply.done_reason.as_deref(), "response_format", receipt)? {
                Some(Said::Calls(calls)) => {
                    tool_calls.extend(calls.into_iter().take(facts.most_calls).map(|call| {
                        let (_, mut call) = numbering.read(call);
                        facts.repairs.fix(&mut call.function, receipt);
                        call
                    }));
                }
                Some(Said::Answer(mut answer)) => {
                    cut_at(&mut answer, &facts.stops);
                    content = Cow::Owned(answer);
                }
                None => {}
            }
        } else if let Some(mut answer) = facts.form.answer_beside_calls(&text) {
            cut_at(&mut answer, &facts.stops);
            content = Cow::Owned(answer);
        }
    }
    let finish_reason = finish_reason(reply.done_reason.as_deref(), !tool_calls.is_empty(), facts.legacy);
    if facts.offers && finish_reason == "stop" && content.is_empty() && usage.output > 0 {
        tools::lost(receipt);
    }
    let content = Some(content).filter(|text| tool_calls.is_empty() || !text.is_empty());
    let function_call = if facts.legacy { tool_calls.pop().map(|call| call.function) } else { None };
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
            function_call,
        },
        logprobs: reply.logprobs.map(Logprobs::of),
    })
}

/// OpenAI's word for why the model stopped. Ollama says `stop` of tool calls too; `load` and `unload` come without an
/// answer.
pub(super) fn finish_reason(done_reason: Option<&str>, called: bool, legacy: bool) -> &'static str {
    match done_reason {
        Some("length") => "length",
        _ if called && legacy => "function_call",
        _ if called => "tool_calls",
        _ => "stop",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::{openai::request::json::Json, receipt::Receipt, upstream::client::encode};

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
            field in prop::sample::select(&["messages", "tools", "tool_choice", "response_format", "stop", "options", "reasoning", "stream_options", "logprobs", "max_tokens", "n", "modalities", "functions", "function_call"][..]),
        ) {
            let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
            body[field] = value;
            let json = Json::of_test(body.to_string().into_bytes());
            let mut receipt = Receipt::default();
            let settings = crate::config::Tools::default();
            let request = json.fields().and_then(|fields| Request::read(fields, &settings, &mut receipt));
            let ask = request.and_then(|request| super::request(request, &Policy::default(), &mut receipt)).and_then(|ask| encode(&ask));
            match ask {
                Ok(ask) => prop_assert!(serde_json::from_slice::<Value>(&ask).unwrap()["messages"].is_array()),
                Err(error) => prop_assert_eq!(error.row().status, 400),
            }
        }
    }
}
