//! Native replies → a message, as events and as the object that they fold to: one state machine, without clock, dice or
//! IO.
//!
//! ```text
//! Opening ──reply──► Flowing ──done, or a stop sequence──► Closed   (message_start · blocks in the model's order · message_delta · message_stop)
//!    └───────────── end before that ─────────────┘                  (… · error)
//! ```
//! An unstreamed message is this machine's object, without the events on the way.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::{
    request::{Facts, Thoughts},
    stops::Stops,
    wire::{
        Answer, AnswerBlock, AnswerUsage, BlockDelta, BlockStart, BlockStop, Caller, Delta, End, MessageDelta,
        MessageStart, MessageStop,
    },
};
use crate::{
    error::Error,
    ollama::wire::ChatReply,
    openai::{
        response::sse::{Frames, Translator},
        tools::{
            Numbering, ToolCall,
            forced::{Form, Said, Speech},
            lost,
            rescue::Rescue,
            rescued,
        },
    },
    receipt::Receipt,
    sealed::{self, Sum},
    stamp::Stamp,
    usage::Usage,
};

/// One message that comes into being.
#[derive(Debug)]
pub(crate) struct Messages {
    stamp: Stamp,
    facts: Facts,
    /// What errors call the request.
    request_id: Option<String>,
    state: State,
    /// How many blocks were begun.
    begun: usize,
    /// The blocks that are whole, of a message that is not streamed.
    content: Vec<AnswerBlock>,
    open: Open,
    calls: Numbering,
    /// The text of a model whose output has a set form.
    speech: Speech,
    /// Looks for calls in text.
    rescue: Option<Rescue>,
    stops: Stops,
    /// The stop sequence that ended the message.
    stop: Option<String>,
    stop_reason: Option<&'static str>,
    /// Replies with anything in them, which are about as many as the tokens that they hold.
    pieces: u64,
    usage: Option<Usage>,
    receipt: Receipt,
    wrong: Option<Error>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Opening,
    Flowing,
    Closed,
}

/// The block that still grows. Its text is kept where the message is not streamed, or where the client carries it.
#[derive(Debug)]
enum Open {
    Nothing,
    Thinking { text: String, sum: Sum },
    Text(String),
}

impl Messages {
    pub(crate) fn new(stamp: Stamp, facts: Facts, request_id: Option<String>) -> Self {
        Self {
            calls: Numbering::new(&stamp.random),
            rescue: if facts.form == Form::Free { facts.repairs.rescue() } else { None },
            stops: Stops::new(facts.stops.clone()),
            stamp,
            speech: Speech::new(&facts.form, &facts.stops),
            facts,
            request_id,
            state: State::Opening,
            begun: 0,
            content: Vec::new(),
            open: Open::Nothing,
            stop: None,
            stop_reason: None,
            pieces: 0,
            usage: None,
            receipt: Receipt::default(),
            wrong: None,
        }
    }

    /// The object as it is now.
    pub(super) fn answer(&self) -> Answer<'_> {
        // Ollama says at the end how long the prompt was.
        let usage = self.usage.unwrap_or(Usage { input: self.facts.estimate, ..Usage::default() });
        Answer {
            id: &self.stamp.id,
            r#type: "message",
            role: "assistant",
            model: &self.facts.model,
            content: &self.content,
            container: None,
            stop_reason: self.stop_reason,
            stop_sequence: self.stop.as_deref(),
            stop_details: None,
            usage: usage.into(),
        }
    }

    fn begin(&mut self, out: &mut Frames) {
        if self.state == State::Opening {
            self.state = State::Flowing;
            if self.facts.stream {
                let start = MessageStart { r#type: "message_start", message: self.answer() };
                out.event(start.r#type, &start);
            }
        }
    }

    /// Begins a block, once the one that is open is whole.
    fn start(&mut self, block: &AnswerBlock, out: &mut Frames) {
        self.close(out);
        if self.facts.stream {
            let start = BlockStart { r#type: "content_block_start", index: self.begun, content_block: block };
            out.event(start.r#type, &start);
        }
        self.begun += 1;
    }

    fn delta(&self, delta: Delta<'_>, out: &mut Frames) {
        if self.facts.stream {
            let delta = BlockDelta { r#type: "content_block_delta", index: self.begun - 1, delta };
            out.event(delta.r#type, &delta);
        }
    }

    fn stop(&mut self, block: impl FnOnce() -> AnswerBlock, out: &mut Frames) {
        if self.facts.stream {
            let stop = BlockStop { r#type: "content_block_stop", index: self.begun - 1 };
            out.event(stop.r#type, &stop);
        } else {
            self.content.push(block());
        }
    }

    fn think(&mut self, thought: &str, out: &mut Frames) {
        self.flush(out);
        if !matches!(self.open, Open::Thinking { .. }) {
            self.start(&AnswerBlock::Thinking { thinking: String::new(), signature: String::new() }, out);
            self.open = Open::Thinking { text: String::new(), sum: Sum::default() };
        }
        let sealed = self.facts.thoughts == Thoughts::Sealed;
        if let Open::Thinking { text, sum } = &mut self.open {
            if sealed || !self.facts.stream {
                text.push_str(thought);
            }
            if !sealed {
                sum.add(thought);
            }
        }
        if !sealed {
            self.delta(Delta::Thinking { thinking: thought }, out);
        }
    }

    /// Adds to the text of the answer, up to a stop sequence.
    fn text(&mut self, text: &str, out: &mut Frames) {
        if self.stops.is_empty() {
            return self.speak(text, out);
        }
        let (text, stop) = self.stops.push(text);
        self.speak(&text, out);
        self.stop = stop;
    }

    /// Adds to the text of the answer what cannot become a call.
    fn look(&mut self, text: &str, called: bool, out: &mut Frames) {
        let passed = match &mut self.rescue {
            Some(rescue) if called => Cow::Owned(rescue.stop() + text),
            Some(rescue) => rescue.push(text),
            None => Cow::Borrowed(text),
        };
        self.text(&passed, out);
    }

    /// Takes the end of the text: what was held back is calls, or text after all.
    fn look_at_the_end(&mut self, done_reason: Option<&str>, out: &mut Frames) {
        let Some(rest) = self.rescue.as_mut().map(|rescue| rescue.finish(done_reason)) else { return };
        if self.stop.is_some() {
            return;
        }
        self.text(&rest.text, out);
        rescued(&rest.calls, &mut self.receipt);
        for call in rest.calls.into_iter().take(self.facts.most_calls.saturating_sub(self.calls.count())) {
            let (_, call) = self.calls.read(call);
            self.call(call, out);
        }
    }

    /// Gives out what was held back because a stop sequence might have begun there.
    fn flush(&mut self, out: &mut Frames) {
        if !self.stops.is_empty() {
            let rest = self.stops.rest();
            self.speak(&rest, out);
        }
    }

    fn speak(&mut self, text: &str, out: &mut Frames) {
        if text.is_empty() {
            return;
        }
        if !matches!(self.open, Open::Text(_)) {
            self.start(&AnswerBlock::Text { text: String::new(), citations: None }, out);
            self.open = Open::Text(String::new());
        }
        if let Open::Text(whole) = &mut self.open
            && !self.facts.stream
        {
            whole.push_str(text);
        }
        self.delta(Delta::Text { text }, out);
    }

    /// A call, which Ollama reports as a whole.
    fn call(&mut self, mut call: ToolCall<'_>, out: &mut Frames) {
        self.flush(out);
        self.facts.repairs.fix(&mut call.function, &mut self.receipt);
        let (id, name, arguments) = (call.id, call.function.name.into_owned(), call.function.arguments);
        let block = |input: Cow<'_, RawValue>| AnswerBlock::ToolUse {
            id: id.clone(),
            name: name.clone(),
            input: input.into_owned(),
            caller: Caller::default(),
        };
        self.start(&block(Cow::Borrowed(empty())), out);
        self.delta(Delta::InputJson { partial_json: &arguments }, out);
        // One that was cut at the limit has half of its arguments, which are no JSON.
        let input = serde_json::from_str::<&RawValue>(&arguments).unwrap_or(empty());
        self.stop(|| block(Cow::Borrowed(input)), out);
    }

    /// Ends the block that is open.
    fn close(&mut self, out: &mut Frames) {
        match std::mem::replace(&mut self.open, Open::Nothing) {
            Open::Nothing => {}
            Open::Text(text) => self.stop(|| AnswerBlock::Text { text, citations: None }, out),
            Open::Thinking { text, sum } => {
                let (thinking, signature) = match self.facts.thoughts {
                    Thoughts::Sealed => (String::new(), sealed::seal(&text)),
                    Thoughts::Shown | Thoughts::Hidden => (text, sum.written()),
                };
                self.delta(Delta::Signature { signature: &signature }, out);
                self.stop(|| AnswerBlock::Thinking { thinking, signature }, out);
            }
        }
    }

    /// Takes the end of the text of a model whose output has a set form.
    ///
    /// # Errors
    /// Fails if there is no call where one must be made.
    fn end_form(&mut self, done_reason: Option<&str>, out: &mut Frames) -> Result<(), Error> {
        let form = &self.facts.form;
        let said = match self.calls.count() {
            0 => self.speech.end(form, done_reason, "output_config.format", &mut self.receipt)?,
            _ => self.speech.end_beside_calls(form),
        };
        match said {
            Some(Said::Calls(calls)) => {
                for call in calls.into_iter().take(self.facts.most_calls) {
                    let (_, call) = self.calls.read(call);
                    self.call(call, out);
                }
            }
            Some(Said::Answer(answer)) if answer.is_empty() => {}
            Some(Said::Answer(answer)) => self.text(&answer, out),
            None => {}
        }
        Ok(())
    }

    fn finish(&mut self, done_reason: Option<&str>, out: &mut Frames) {
        if self.stop.is_none() {
            self.flush(out);
        }
        self.close(out);
        let reason = match done_reason {
            _ if self.stop.is_some() => "stop_sequence",
            Some("length") => "max_tokens",
            _ if self.calls.count() > 0 => "tool_use",
            _ => "end_turn",
        };
        if reason == "end_turn"
            && self.facts.offers
            && self.begun == 0
            && self.usage.is_some_and(|usage| usage.output > 0)
        {
            lost(&mut self.receipt);
        }
        self.stop_reason = Some(reason);
        self.state = State::Closed;
        if self.facts.stream {
            let delta = End {
                stop_reason: self.stop_reason,
                stop_sequence: self.stop.as_deref(),
                stop_details: None,
                container: None,
            };
            let usage = self.usage.map(AnswerUsage::from).unwrap_or_default();
            out.event("message_delta", &MessageDelta { r#type: "message_delta", delta, usage });
            out.event("message_stop", &MessageStop { r#type: "message_stop" });
        }
    }
}

/// The input of a call without arguments.
fn empty() -> &'static RawValue {
    serde_json::from_str("{}").unwrap_or(RawValue::NULL)
}

impl Translator for Messages {
    type Reply<'a> = ChatReply<'a>;

    fn reply(&mut self, reply: ChatReply<'_>, out: &mut Frames) {
        if self.state == State::Closed {
            return;
        }
        self.begin(out);
        let counted = Usage::from(&reply);
        let message = reply.message;
        let done_reason = reply.done_reason.as_deref();
        let thought = message.thinking.as_deref().filter(|text| !text.is_empty());
        self.pieces += u64::from(thought.is_some() || !message.content.is_empty());
        if reply.done {
            self.usage = Some(counted);
        }
        if thought.is_some()
            && let Some(held) = self.rescue.as_mut().map(Rescue::interrupt)
        {
            self.text(&held, out);
        }
        match thought {
            Some(_) if self.facts.thoughts == Thoughts::Hidden => self.receipt.note("thinking", "hidden"),
            Some(thought) => self.think(thought, out),
            None => {}
        }
        if self.facts.form == Form::Free {
            let called = message.tool_calls.as_ref().is_some_and(|calls| !calls.is_empty());
            self.look(&message.content, called, out);
        } else if self.stop.is_none() {
            let text = self.speech.push(&message.content).to_owned();
            if !text.is_empty() {
                self.text(&text, out);
            }
        }
        if reply.done {
            self.look_at_the_end(done_reason, out);
        }
        if self.stop.is_none() {
            for call in message.tool_calls.into_iter().flatten() {
                if self.calls.count() < self.facts.most_calls {
                    let (_, call) = self.calls.next(call);
                    self.call(call, out);
                }
            }
            if reply.done
                && self.facts.form != Form::Free
                && let Err(error) = self.end_form(done_reason, out)
            {
                self.wrong = Some(error);
                return;
            }
        }
        if self.stop.is_some() && self.usage.is_none() {
            // The rest is not generated, so that Ollama never says what it would have counted.
            self.usage = Some(Usage { input: self.facts.estimate, output: self.pieces, cached: 0 });
            self.receipt.note("usage", "estimate");
        }
        if reply.done || self.stop.is_some() {
            self.finish(done_reason, out);
        }
    }

    fn fail(&mut self, error: &Error, out: &mut Frames) {
        if std::mem::replace(&mut self.state, State::Closed) != State::Closed {
            let held = self.rescue.as_mut().map(Rescue::stop).filter(|held| !held.is_empty());
            if let Some(held) = held.filter(|_| self.facts.stream) {
                self.text(&held, out);
            }
            out.anthropic_error(error, self.request_id.as_deref());
        }
    }

    fn closed(&self) -> bool {
        self.state == State::Closed
    }

    fn heartbeat(&self, out: &mut Frames) {
        out.ping();
    }

    fn usage(&self) -> Option<Usage> {
        self.usage
    }

    fn receipt(&mut self) -> Receipt {
        std::mem::take(&mut self.receipt)
    }

    fn wrong(&mut self) -> Option<Error> {
        self.wrong.take()
    }
}
