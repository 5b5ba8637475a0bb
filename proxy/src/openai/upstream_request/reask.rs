//! Asks once more for each call that does not fit its schema, with that schema as the format of the answer, before
//! anything of the call is sent. What comes of it takes the place of the arguments in Ollama's reply, so that every
//! endpoint goes on as if the model had written it.
//!
//! What the model says before such a call goes out as it comes. From the call on, the answer waits for its end: a
//! remote that serves one request at a time could not answer the next one before.

use std::{
    borrow::Cow,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use memchr::{memchr, memmem};
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
    upstream::client::{self, Filter, Upstream},
};

/// Maximum size of an answer that waits for its end.
const MOST: usize = 8 << 20;

/// Maximum number of calls of one answer that are asked for again: each costs a whole generation.
const MOST_CALLS: usize = 8;

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

/// Asks; calls of the answer that do not fit are asked for once more.
///
/// # Errors
/// As the request alone: where asking again fails, the first answer stands.
pub(super) async fn open(app: &App, ask: UpstreamRequest, recorder: &Recorder) -> Result<Upstream, Error> {
    let again = Again { app: app.clone(), ask: ask.clone(), recorder: recorder.clone() };
    let mut upstream = send_with_fallbacks(app, ask, recorder).await?;
    upstream.filter(Box::new(Reask { again: Some(again), lines: BytesMut::new(), seen: 0, stage: Stage::Passing }));
    Ok(upstream)
}

/// What asking again takes.
struct Again {
    app: App,
    ask: UpstreamRequest,
    recorder: Recorder,
}

/// An answer on its way.
struct Reask {
    /// None once it was asked again.
    again: Option<Again>,
    /// What has come and is not out yet.
    lines: BytesMut,
    /// How much of it was searched for the end of a line.
    seen: usize,
    stage: Stage,
}

enum Stage {
    /// Lines go out as they come.
    Passing,
    /// A call does not fit: what follows waits for the end of the answer.
    Waiting,
    Asking(Pin<Box<dyn Future<Output = Bytes> + Send>>),
    /// The rest goes out unchanged.
    Over,
}

impl Reask {
    /// Returns the whole lines up to the first one with a call that does not fit, and leaves the rest.
    fn pass(&mut self, ended: bool) -> Bytes {
        let Some(again) = &self.again else { return self.lines.split().freeze() };
        let mut out = 0;
        while let Some(end) = memchr(b'\n', &self.lines[self.seen..]).map(|end| self.seen + end + 1) {
            if is_misfit(&self.lines[out..end], &again.ask.reask) {
                self.stage = Stage::Waiting;
                break;
            }
            (out, self.seen) = (end, end);
        }
        if matches!(self.stage, Stage::Passing) {
            self.seen = self.lines.len();
            if ended && is_misfit(&self.lines[out..], &again.ask.reask) {
                self.stage = Stage::Waiting;
            } else if ended {
                out = self.lines.len();
            }
        }
        self.seen -= out;
        self.lines.split_to(out).freeze()
    }
}

impl Filter for Reask {
    fn push(&mut self, packet: Bytes) {
        self.lines.extend_from_slice(&packet);
    }

    fn poll_out(&mut self, ended: bool, cx: &mut Context<'_>) -> Poll<Bytes> {
        loop {
            match &mut self.stage {
                Stage::Passing => {
                    let out = self.pass(ended);
                    if !out.is_empty() || matches!(self.stage, Stage::Passing) {
                        return Poll::Ready(out);
                    }
                }
                Stage::Waiting if self.lines.len() > MOST => self.stage = Stage::Over,
                Stage::Waiting if !ended => return Poll::Ready(Bytes::new()),
                Stage::Waiting => match self.again.take() {
                    Some(again) => self.stage = Stage::Asking(Box::pin(again.all(self.lines.split().freeze()))),
                    None => self.stage = Stage::Over,
                },
                Stage::Asking(asking) => {
                    let answer = ready!(asking.as_mut().poll(cx));
                    self.stage = Stage::Over;
                    return Poll::Ready(answer);
                }
                Stage::Over => return Poll::Ready(self.lines.split().freeze()),
            }
        }
    }

    fn give_up(&mut self) -> Bytes {
        self.stage = Stage::Over;
        self.lines.split().freeze()
    }
}

/// Whether a line has a call that does not fit.
fn is_misfit(line: &[u8], repairs: &Repairs) -> bool {
    memmem::find(line, b"\"tool_calls\"").is_some() && !misfits(line, repairs).is_empty()
}

/// The calls that do not fit and are to be asked for again.
fn misfits(answer: &[u8], repairs: &Repairs) -> Vec<Misfit> {
    let mut misfits = Vec::new();
    for (line, text) in answer.split(|byte| *byte == b'\n').enumerate() {
        let Ok(reply) = serde_json::from_slice::<ChatReply<'_>>(text) else { continue };
        for (call, made) in reply.message.tool_calls.unwrap_or_default().into_iter().enumerate() {
            let arguments = made.function.arguments.map_or("{}", RawValue::get);
            if let Some(tool) = repairs.to_ask_again(&made.function.name, arguments) {
                let written = json!({"name": made.function.name, "arguments": made.function.arguments}).to_string();
                misfits.push(Misfit { tool, line, call, written });
            }
        }
    }
    misfits
}

/// What came of asking again.
struct Renewed {
    /// The arguments, if they fit now.
    arguments: Option<Value>,
    prompt: u64,
    output: u64,
}

impl Again {
    /// Asks for each call of `answer` that does not fit; returns the answer with what came of it.
    async fn all(self, mut answer: Bytes) -> Bytes {
        for misfit in misfits(&answer, &self.ask.reask).into_iter().take(MOST_CALLS) {
            match self.one(&misfit).await {
                Ok(renewed) => answer = in_place(&answer, &misfit, &renewed).unwrap_or(answer),
                Err(error) => {
                    tracing::info!(target: "farllama", %error, "asking again for a call that does not fit its schema failed");
                    break;
                }
            }
        }
        answer
    }

    /// Asks for one call.
    ///
    /// # Errors
    /// As any request.
    async fn one(&self, misfit: &Misfit) -> Result<Renewed, Error> {
        let Self { app, ask, recorder } = self;
        let (name, format) = ask.reask.forced_call(misfit.tool)?;
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
        let again = UpstreamRequest { body, forced: true, reask: Repairs::default(), ..ask.clone() };
        let reply = client::whole(send_with_fallbacks(app, again, recorder).await?).await?;
        recorder.payload("reply", &reply);
        let reply: ChatReply<'_> = app.upstream.read("/api/chat", &reply)?;
        let mut receipt = Receipt::default();
        receipt.note(&format!("tools.{name}"), "reasked");
        receipt.count(Call::Reasked);
        recorder.receipt(receipt);
        let arguments = match Form::Call(vec![name]).read(&reply.message.content) {
            Some(Said::Calls(calls)) => calls.first().and_then(|call| ask.reask.fitting(misfit.tool, &call.arguments)),
            _ => None,
        };
        Ok(Renewed {
            arguments: arguments.and_then(|arguments| serde_json::from_str(&arguments).ok()),
            prompt: reply.prompt_eval_count.unwrap_or(0),
            output: reply.eval_count.unwrap_or(0),
        })
    }
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
