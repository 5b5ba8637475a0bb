//! Asks once more for a call that does not fit its schema, with that schema as the format of the answer, before
//! anything of the answer is sent. What comes of it takes the place of the arguments in Ollama's reply, so that every
//! endpoint goes on as if the model had written it.

use std::{borrow::Cow, future::poll_fn, pin::Pin};

use bytes::{Bytes, BytesMut};
use http_body::Body;
use serde_json::{
    Value, json,
    value::{RawValue, to_raw_value},
};

use super::send::{UpstreamRequest, changed, send_with_fallbacks, set};
use crate::{
    app::App,
    error::Error,
    observe::Recorder,
    ollama::wire::ChatReply,
    openai::tools::{
        forced::{Form, Said},
        repair::Repairs,
    },
    receipt::{Call, Receipt},
    upstream::client::{self, Upstream},
};

/// Most bytes of an answer that are held back to see whether its calls fit.
const MOST: usize = 8 << 20;

/// A call that does not fit, in the text of an answer.
struct Misfit {
    /// The number of its tool.
    tool: usize,
    /// Which line of the answer it stands in, and which call of that line it is.
    line: usize,
    call: usize,
    /// As the model wrote it.
    written: String,
}

/// Asks; if the answer begins with calls and one does not fit, asks once more for that one.
///
/// # Errors
/// As the request alone: where asking again fails, the first answer stands.
pub(super) async fn open(app: &App, ask: UpstreamRequest, recorder: &Recorder) -> Result<Upstream, Error> {
    let again = ask.clone();
    let mut upstream = send_with_fallbacks(app, ask, recorder).await?;
    let (held, whole) = hold(&mut upstream, again.reask.must_fit()).await;
    let misfit = if whole { misfit(&held, &again.reask) } else { None };
    let renewed = match misfit {
        None => None,
        Some(misfit) => match renew(app, again, &misfit, recorder).await {
            Ok(renewed) => in_place(&held, &misfit, &renewed),
            Err(error) => {
                tracing::info!(target: "farllama", %error, "asking again for a call that does not fit its schema failed");
                None
            }
        },
    };
    upstream.put_back(renewed.unwrap_or(held), !whole);
    Ok(upstream)
}

/// Reads an answer until there is something that is no call, or to its end, as always where calls must fit
/// (`to_the_end`); whether it is whole.
async fn hold(upstream: &mut Upstream, to_the_end: bool) -> (Bytes, bool) {
    let (mut held, mut seen) = (BytesMut::new(), 0);
    loop {
        match poll_fn(|cx| Pin::new(&mut *upstream).poll_frame(cx)).await {
            None => return (held.freeze(), true),
            Some(Err(error)) => {
                upstream.fail_later(error);
                return (held.freeze(), false);
            }
            Some(Ok(frame)) => held.extend_from_slice(&frame.into_data().unwrap_or_default()),
        }
        while let Some(end) = held[seen..].iter().position(|byte| *byte == b'\n') {
            let line = &held[seen..seen + end];
            seen += end + 1;
            let says = serde_json::from_slice::<ChatReply<'_>>(line).map_or(true, |reply| {
                let message = &reply.message;
                // A whole answer is one line with all of it, and nothing of it is sent yet.
                !reply.done
                    && (!message.content.is_empty() || message.thinking.as_deref().is_some_and(|text| !text.is_empty()))
            });
            if says && !to_the_end {
                return (held.freeze(), false);
            }
        }
        if held.len() > MOST {
            return (held.freeze(), false);
        }
    }
}

/// The first call that does not fit and is to be asked for again.
fn misfit(held: &[u8], repairs: &Repairs) -> Option<Misfit> {
    for (line, text) in held.split(|byte| *byte == b'\n').enumerate() {
        let Ok(reply) = serde_json::from_slice::<ChatReply<'_>>(text) else { continue };
        for (call, made) in reply.message.tool_calls.unwrap_or_default().into_iter().enumerate() {
            let arguments = made.function.arguments.map_or("{}", RawValue::get);
            if let Some(tool) = repairs.to_ask_again(&made.function.name, arguments) {
                let written = json!({"name": made.function.name, "arguments": made.function.arguments}).to_string();
                return Some(Misfit { tool, line, call, written });
            }
        }
    }
    None
}

/// What came of asking again.
struct Renewed {
    /// The arguments, if they fit now.
    arguments: Option<Value>,
    prompt: u64,
    output: u64,
}

/// Asks again for one call.
///
/// # Errors
/// As any request.
async fn renew(app: &App, ask: UpstreamRequest, misfit: &Misfit, recorder: &Recorder) -> Result<Renewed, Error> {
    let repairs = ask.reask.clone();
    let (name, format) = repairs.forced_call(misfit.tool)?;
    let turn = json!([
        {"role": "assistant", "content": misfit.written},
        {"role": "user", "content": format!("The arguments of this call of {name} do not fit the schema of the tool. Write the call again, as JSON with the same intent.")},
    ]);
    let body = changed(ask.body.clone(), move |top| {
        let internal = |error: serde_json::Error| Error::Internal { message: error.to_string() };
        let added: Vec<Box<RawValue>> = serde_json::from_value::<Vec<Value>>(turn)
            .and_then(|turn| turn.iter().map(to_raw_value).collect())
            .map_err(internal)?;
        let messages = top.get("messages").map_or("[]", RawValue::get).to_owned();
        let mut messages: Vec<Box<RawValue>> = serde_json::from_str(&messages).map_err(internal)?;
        messages.extend(added);
        top.set("messages", Cow::Owned(to_raw_value(&messages).map_err(internal)?));
        top.set("format", Cow::Owned(format));
        ["logprobs", "top_logprobs"].into_iter().for_each(|name| top.remove(name));
        set(top, "stream", "false")
    })
    .await?;
    let ask = UpstreamRequest { body, forced: true, reask: Repairs::default(), ..ask };
    let reply = client::whole(send_with_fallbacks(app, ask, recorder).await?).await?;
    recorder.payload("reply", &reply);
    let reply: ChatReply<'_> = app.upstream.read("/api/chat", &reply)?;
    let mut receipt = Receipt::default();
    receipt.note(&format!("tools.{name}"), "reasked");
    receipt.count(Call::Reasked);
    recorder.receipt(receipt);
    let arguments = match Form::Call(vec![name]).read(&reply.message.content) {
        Some(Said::Calls(calls)) => calls.first().and_then(|call| repairs.fitting(misfit.tool, &call.arguments)),
        _ => None,
    };
    Ok(Renewed {
        arguments: arguments.and_then(|arguments| serde_json::from_str(&arguments).ok()),
        prompt: reply.prompt_eval_count.unwrap_or(0),
        output: reply.eval_count.unwrap_or(0),
    })
}

/// The answer with the new arguments in the place of the old ones, and what both cost together.
fn in_place(held: &[u8], misfit: &Misfit, renewed: &Renewed) -> Option<Bytes> {
    let mut lines = Vec::new();
    for (nth, line) in held.split(|byte| *byte == b'\n').enumerate() {
        let done = serde_json::from_slice::<ChatReply<'_>>(line).is_ok_and(|reply| reply.done);
        if nth != misfit.line && !done {
            lines.push(line.to_vec());
            continue;
        }
        let mut reply: Value = serde_json::from_slice(line).ok()?;
        if let (true, Some(arguments)) = (nth == misfit.line, &renewed.arguments) {
            *reply.pointer_mut(&format!("/message/tool_calls/{}/function/arguments", misfit.call))? = arguments.clone();
        }
        if done {
            for (name, more) in [("prompt_eval_count", renewed.prompt), ("eval_count", renewed.output)] {
                let before = reply.get(name).and_then(Value::as_u64).unwrap_or(0);
                reply[name] = (before + more).into();
            }
        }
        lines.push(serde_json::to_vec(&reply).ok()?);
    }
    Some(lines.join(&b'\n').into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_arguments_take_the_place_of_the_old_ones_and_the_costs_add_up() {
        let held = concat!(
            r#"{"model":"m","message":{"role":"assistant","content":"","tool_calls":[{"function":{"name":"f","arguments":{"a":1}}},"#,
            r#"{"id":"x","function":{"name":"f","arguments":{"a":"x"}}}]},"done":false}"#,
            "\n",
            r#"{"model":"m","message":{"role":"assistant","content":""},"done":true,"done_reason":"stop","prompt_eval_count":7,"eval_count":3}"#,
            "\n",
        );
        let misfit = Misfit { tool: 0, line: 0, call: 1, written: String::new() };
        let renewed = |arguments| Renewed { arguments, prompt: 10, output: 5 };
        let text = |renewed| String::from_utf8(in_place(held.as_bytes(), &misfit, &renewed).unwrap().to_vec()).unwrap();
        let expected = held
            .replace(r#"{"a":"x"}"#, r#"{"a":2}"#)
            .replace(r#""prompt_eval_count":7,"eval_count":3"#, r#""prompt_eval_count":17,"eval_count":8"#);
        assert_eq!(text(renewed(Some(json!({"a": 2})))), expected);
        // One that is no better than the first changes only what it cost.
        assert_eq!(text(renewed(None)), expected.replace(r#"{"a":2}"#, r#"{"a":"x"}"#));
    }
}
