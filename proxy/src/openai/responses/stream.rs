//! Native replies → a response, as events and as the object that they fold to: one state machine, without clock, dice
//! or IO.
//!
//! ```text
//! Opening ──reply──► Flowing ──done──► Closed     (created · in_progress · items in the model's order · completed or incomplete · [DONE])
//!    └───────── end before done ───────┘          (… · failed · [DONE])
//! ```
//! A response in the background is queued before it is asked for: created · queued · in_progress · …
//!
//! An unstreamed response is this machine's object, without the events on the way, so the two cannot differ.

mod replay;

use std::borrow::Cow;

use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::{events, offer};
use crate::{
    error::Error,
    ollama::wire::ChatReply,
    openai::{
        response::sse::{Frames, Translator},
        responses::{
            events::Events,
            offer::Called,
            request::Facts,
            wire::{Event, Failure, Incomplete, Item, Part, Response},
        },
        tools::{
            Numbering, ToolCall,
            forced::{Form, Said, Speech, cut_at},
            lost,
            rescue::Rescue,
            rescued,
        },
    },
    receipt::Receipt,
    sealed,
    stamp::Stamp,
    usage::Usage,
};

/// One response that comes into being.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    stamp: Stamp,
    facts: Facts,
    events: Events,
    state: State,
    /// Whether the remote has replied, or was to.
    begun: bool,
    status: Status,
    /// When the end came, in Unix seconds.
    ended: u64,
    output: Vec<Item>,
    /// What the last item of the output still takes.
    open: Open,
    calls: Numbering,
    /// The words of a model whose output has a set form.
    speech: Speech,
    /// Looks for calls in words.
    rescue: Option<Rescue>,
    usage: Option<Usage>,
    receipt: Receipt,
    wrong: Option<Error>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Opening,
    /// In the background: its first events are out, and the remote has not replied yet.
    Queued,
    Flowing,
    Closed,
}

#[derive(Clone, Debug)]
enum Status {
    Queued,
    InProgress,
    Completed,
    /// The caller has canceled it.
    Canceled,
    /// The answer was cut at its limit.
    Incomplete,
    Failed(Failure),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Open {
    Nothing,
    Thought,
    Message,
}

impl Answer {
    pub(crate) fn new(stamp: Stamp, facts: Facts) -> Self {
        let calls = Numbering::new(&stamp.random);
        let rescue = if facts.form == Form::Free { facts.repairs.rescue() } else { None };
        Self {
            ended: stamp.created,
            events: Events::new(facts.stream),
            stamp,
            state: State::Opening,
            begun: false,
            status: if facts.echo.background { Status::Queued } else { Status::InProgress },
            output: Vec::new(),
            open: Open::Nothing,
            calls,
            speech: Speech::new(&facts.form, &facts.stops),
            rescue,
            usage: None,
            receipt: Receipt::default(),
            wrong: None,
            facts,
        }
    }

    /// Sets the time, in Unix seconds, before the reply that may be the last.
    pub(crate) fn at(&mut self, now: u64) {
        self.ended = now.max(self.stamp.created);
    }

    pub(crate) fn id(&self) -> &str {
        &self.stamp.id
    }

    /// The hex digits that its ids are made of.
    pub(crate) fn random(&self) -> &str {
        &self.stamp.random
    }

    pub(crate) fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Whether the model has answered, if only as far as its limit.
    pub(crate) fn answered(&self) -> bool {
        matches!(self.status, Status::Completed | Status::Incomplete)
    }

    /// The items that there are.
    pub(crate) fn output(&self) -> &[Item] {
        &self.output
    }

    /// The object as it is now.
    pub(crate) fn response(&self) -> Response<'_> {
        let echo = &self.facts.echo;
        let (status, error, incomplete) = match &self.status {
            Status::Queued => ("queued", None, None),
            Status::InProgress => ("in_progress", None, None),
            Status::Canceled => ("cancelled", None, None),
            Status::Completed => ("completed", None, None),
            Status::Incomplete => ("incomplete", None, Some(Incomplete { reason: "max_output_tokens" })),
            Status::Failed(failure) => ("failed", Some(failure.clone()), None),
        };
        Response {
            id: &self.stamp.id,
            object: "response",
            created_at: self.stamp.created,
            completed_at: (status == "completed").then_some(self.ended),
            status,
            background: echo.background,
            error,
            incomplete_details: incomplete,
            instructions: echo.instructions.as_deref(),
            max_output_tokens: echo.max_output_tokens,
            max_tool_calls: echo.max_tool_calls,
            model: &self.facts.model,
            output: &self.output,
            parallel_tool_calls: echo.parallel_tool_calls,
            previous_response_id: echo.previous_response_id.as_deref(),
            conversation: echo.conversation.as_ref(),
            reasoning: &echo.reasoning,
            service_tier: "default",
            store: echo.store,
            temperature: &echo.temperature,
            top_p: &echo.top_p,
            presence_penalty: &echo.presence_penalty,
            frequency_penalty: &echo.frequency_penalty,
            top_logprobs: echo.top_logprobs,
            text: &echo.text,
            tool_choice: &echo.tool_choice,
            tools: &echo.tools,
            truncation: echo.truncation,
            usage: self.usage.map(Into::into),
            user: echo.user.as_deref(),
            metadata: &echo.metadata,
            safety_identifier: echo.safety_identifier.as_deref(),
            prompt_cache_key: echo.prompt_cache_key.as_deref(),
        }
    }

    /// An event with the whole response.
    fn send_state(&mut self, kind: &'static str, out: &mut Frames) {
        let mut events = std::mem::take(&mut self.events);
        events.send(Event { r#type: kind, response: Some(self.response()), ..Event::default() }, out);
        self.events = events;
    }

    /// Sends the first events of a response in the background, which waits for its turn.
    pub(crate) fn queue(&mut self, out: &mut Frames) {
        if self.state == State::Opening && self.facts.echo.background {
            self.state = State::Queued;
            self.send_state("response.created", out);
            self.send_state("response.queued", out);
        }
    }

    fn begin(&mut self, out: &mut Frames) {
        self.queue(out);
        if matches!(self.state, State::Opening | State::Queued) {
            self.status = Status::InProgress;
            if self.state == State::Opening {
                self.send_state("response.created", out);
            }
            (self.state, self.begun) = (State::Flowing, true);
            self.send_state("response.in_progress", out);
        }
    }

    /// A new item, after the one that is open.
    fn add(&mut self, prefix: &str, item: Item, out: &mut Frames) {
        self.close("completed", out);
        let index = self.output.len();
        let item = Item { id: format!("{prefix}{}{index:02x}", self.stamp.random), ..item };
        self.events.send(
            Event {
                r#type: "response.output_item.added",
                output_index: Some(index),
                item: Some(&item),
                ..Event::default()
            },
            out,
        );
        self.output.push(item);
    }

    /// The model thinks on.
    fn think(&mut self, thought: &str, out: &mut Frames) {
        if self.open != Open::Thought {
            self.add("rs_", Item { r#type: "reasoning", summary: Some(Vec::new()), ..Item::default() }, out);
            self.open = Open::Thought;
        }
        let index = self.output.len() - 1;
        let Some(item) = self.output.last_mut() else { return };
        let about =
            Event { output_index: Some(index), item_id: Some(&item.id), summary_index: Some(0), ..Event::default() };
        let summary = item.summary.get_or_insert_default();
        if summary.is_empty() {
            summary.push(Part::summary_text());
            let kind = "response.reasoning_summary_part.added";
            self.events.send(Event { r#type: kind, part: summary.first(), ..about.clone() }, out);
        }
        if let Some(part) = summary.first_mut() {
            part.text.push_str(thought);
        }
        self.events.send(Event { r#type: "response.reasoning_summary_text.delta", delta: Some(thought), ..about }, out);
    }

    /// The model speaks on; nothing at all may be said, too.
    fn speak(&mut self, words: &str, tokens: Vec<Box<RawValue>>, out: &mut Frames) {
        if self.open != Open::Message {
            let item = Item {
                r#type: "message",
                status: Some("in_progress"),
                role: Some("assistant"),
                content: Some(Vec::new()),
                ..Item::default()
            };
            self.add("msg_", item, out);
            self.open = Open::Message;
        }
        let index = self.output.len() - 1;
        let Some(item) = self.output.last_mut() else { return };
        let about =
            Event { output_index: Some(index), item_id: Some(&item.id), content_index: Some(0), ..Event::default() };
        let content = item.content.get_or_insert_default();
        if content.is_empty() {
            content.push(Part::output_text());
            let kind = "response.content_part.added";
            self.events.send(Event { r#type: kind, part: content.first(), ..about.clone() }, out);
        }
        if words.is_empty() && tokens.is_empty() {
            return;
        }
        let kind = "response.output_text.delta";
        self.events.send(Event { r#type: kind, delta: Some(words), logprobs: Some(&tokens), ..about }, out);
        if let Some(part) = content.first_mut() {
            part.text.push_str(words);
            part.logprobs.get_or_insert_default().extend(tokens);
        }
    }

    /// The model speaks on; what may become a call is held back.
    fn look(&mut self, words: &str, tokens: Vec<Box<RawValue>>, called: bool, out: &mut Frames) {
        let passed = match &mut self.rescue {
            // Where there are probabilities, each belongs to its word.
            Some(rescue) if called || !tokens.is_empty() => Cow::Owned(rescue.stop() + words),
            Some(rescue) => rescue.push(words),
            None => Cow::Borrowed(words),
        };
        if !passed.is_empty() || !tokens.is_empty() {
            self.speak(&passed, tokens, out);
        }
    }

    /// Gives out what was held back because it might have become a call.
    fn release(&mut self, how: fn(&mut Rescue) -> String, out: &mut Frames) {
        if let Some(held) = self.rescue.as_mut().map(how).filter(|held| !held.is_empty()) {
            self.speak(&held, Vec::new(), out);
        }
    }

    /// The model calls.
    ///
    /// # Errors
    /// The call does not follow the grammar of its tool.
    fn call(&mut self, mut call: ToolCall<'_>, out: &mut Frames) -> Result<(), Error> {
        self.facts.repairs.fix(&mut call.function, &mut self.receipt);
        let (call_id, text) = (Some(call.id), call.function.arguments.into_owned());
        // One that was cut at the limit has half of its arguments.
        let whole = serde_json::from_str::<IgnoredAny>(&text).is_ok();
        let status = Some(if whole { "completed" } else { "incomplete" });
        let grammar = self.facts.offered.grammar(&call.function.name);
        if whole && grammar.is_some_and(|grammar| !grammar.matches(&offer::input(&text))) {
            return Err(Error::unsupported(
                "tools",
                format!(
                    "The model's call of '{}' does not follow the grammar of the tool, though its answer was constrained to it by 'format': \
                     this model, or this version of Ollama, does not obey 'format'. Use another model, or a tool without a grammar.",
                    call.function.name
                ),
            ));
        }
        let item = match self.facts.offered.called(&call.function.name) {
            Called::Function { name, namespace } => Item {
                r#type: "function_call",
                status,
                call_id,
                name: Some(name),
                namespace,
                arguments: Some(text),
                ..Item::default()
            },
            Called::Custom { name, namespace } => Item {
                r#type: "custom_tool_call",
                status,
                call_id,
                name: Some(name),
                namespace,
                input: Some(offer::input(&text)),
                ..Item::default()
            },
        };
        self.called(item, out);
        Ok(())
    }

    /// A call, whole: Ollama sends none in pieces.
    fn called(&mut self, whole: Item, out: &mut Frames) {
        let begun = Item {
            status: Some("in_progress"),
            arguments: whole.arguments.as_ref().map(|_| String::new()),
            input: whole.input.as_ref().map(|_| String::new()),
            ..whole.clone()
        };
        self.add(if whole.input.is_some() { "ctc_" } else { "fc_" }, begun, out);
        let Some(Item { id, .. }) = self.output.pop() else { return };
        let item = Item { id, ..whole };
        let about = Event { output_index: Some(self.output.len()), item_id: Some(&item.id), ..Event::default() };
        if let Some(input) = item.input.as_deref() {
            let kind = "response.custom_tool_call_input.delta";
            self.events.send(Event { r#type: kind, delta: Some(input), ..about.clone() }, out);
            let kind = "response.custom_tool_call_input.done";
            self.events.send(Event { r#type: kind, input: Some(input), ..about }, out);
        } else {
            let (name, text) = (item.name.as_deref(), item.arguments.as_deref());
            let kind = "response.function_call_arguments.delta";
            self.events.send(Event { r#type: kind, delta: text, ..about.clone() }, out);
            let kind = "response.function_call_arguments.done";
            self.events.send(Event { r#type: kind, name, arguments: text, ..about }, out);
        }
        self.events.send(events::done(self.output.len(), &item), out);
        self.output.push(item);
    }

    /// The open item is whole.
    fn close(&mut self, status: &'static str, out: &mut Frames) {
        let open = std::mem::replace(&mut self.open, Open::Nothing);
        if open == Open::Nothing {
            return;
        }
        let Some(mut item) = self.output.pop() else { return };
        let about = Event { output_index: Some(self.output.len()), item_id: Some(&item.id), ..Event::default() };
        match open {
            Open::Thought => {
                if let Some(part) = item.summary.iter().flatten().next() {
                    let about = Event { summary_index: Some(0), ..about };
                    let kind = "response.reasoning_summary_text.done";
                    self.events.send(Event { r#type: kind, text: Some(&part.text), ..about.clone() }, out);
                    let kind = "response.reasoning_summary_part.done";
                    self.events.send(Event { r#type: kind, part: Some(part), ..about }, out);
                    if self.facts.sealed {
                        item.encrypted_content = Some(sealed::seal(&part.text));
                    }
                }
            }
            Open::Message | Open::Nothing => {
                if let Some(part) = item.content.iter().flatten().next() {
                    let about = Event { content_index: Some(0), ..about };
                    let (text, logprobs) = (Some(&*part.text), part.logprobs.as_deref());
                    let kind = "response.output_text.done";
                    self.events.send(Event { r#type: kind, text, logprobs, ..about.clone() }, out);
                    let kind = "response.content_part.done";
                    self.events.send(Event { r#type: kind, part: Some(part), ..about }, out);
                }
                item.status = Some(status);
            }
        }
        self.events.send(events::done(self.output.len(), &item), out);
        self.output.push(item);
    }

    /// Takes the end of the words of a model whose output has a set form.
    ///
    /// # Errors
    /// There is no call where one must be made, or one does not follow its grammar.
    fn end_form(&mut self, done_reason: Option<&str>, out: &mut Frames) -> Result<(), Error> {
        let form = &self.facts.form;
        let said = match self.calls.count() {
            0 => self.speech.end(form, done_reason, "text.format", &mut self.receipt)?,
            _ => self.speech.end_beside_calls(form),
        };
        match said {
            Some(Said::Calls(calls)) => {
                for call in calls.into_iter().take(self.facts.most_calls) {
                    let (_, call) = self.calls.read(call);
                    self.call(call, out)?;
                }
            }
            Some(Said::Answer(mut answer)) => {
                cut_at(&mut answer, &self.facts.stops);
                if !answer.is_empty() {
                    self.speak(&answer, Vec::new(), out);
                }
            }
            None => {}
        }
        Ok(())
    }

    fn finish(&mut self, done_reason: Option<&str>, out: &mut Frames) {
        let length = done_reason == Some("length");
        let spoke = self.output.iter().any(|item| item.r#type != "reasoning");
        if !length && !spoke && self.facts.generate {
            if self.facts.offers && self.usage.is_some_and(|usage| usage.output > 0) {
                lost(&mut self.receipt);
            }
            // An answer without a word is an answer.
            self.speak("", Vec::new(), out);
        }
        self.end(if length { Status::Incomplete } else { Status::Completed }, out);
    }

    /// The last event but `[DONE]`.
    fn end(&mut self, status: Status, out: &mut Frames) {
        let (kind, item) = match &status {
            Status::Completed => ("response.completed", "completed"),
            // The API has no event for a canceled response; clients read this one as the end of what there is.
            Status::Incomplete | Status::Canceled => ("response.incomplete", "incomplete"),
            Status::Failed(_) | Status::InProgress | Status::Queued => ("response.failed", "incomplete"),
        };
        self.close(item, out);
        self.state = State::Closed;
        self.status = status;
        // A resumed stream gets its end, wherever it was left.
        self.events.known_to(None);
        self.send_state(kind, out);
        self.events.end(out);
    }

    /// Takes a reply.
    ///
    /// # Errors
    /// The model did not do what its `format` asks for.
    fn take(&mut self, reply: ChatReply<'_>, out: &mut Frames) -> Result<(), Error> {
        self.begin(out);
        if reply.done {
            self.usage = Some(Usage::from(&reply));
        }
        let message = reply.message;
        if let Some(thought) = message.thinking.filter(|text| !text.is_empty()) {
            self.release(Rescue::interrupt, out);
            self.think(&thought, out);
        }
        let done_reason = reply.done_reason.as_deref();
        if self.facts.form == Form::Free {
            let tokens: Vec<_> =
                reply.logprobs.into_iter().flatten().filter_map(|token| events::probability(&token)).collect();
            let called = message.tool_calls.as_ref().is_some_and(|calls| !calls.is_empty());
            self.look(&message.content, tokens, called, out);
        } else {
            let words = self.speech.push(&message.content).to_owned();
            if !words.is_empty() {
                self.speak(&words, Vec::new(), out);
            }
        }
        for call in message.tool_calls.into_iter().flatten() {
            if self.calls.count() < self.facts.most_calls {
                let (_, call) = self.calls.next(call);
                self.call(call, out)?;
            }
        }
        if reply.done
            && let Some(rescue) = &mut self.rescue
        {
            let rest = rescue.finish(done_reason);
            if !rest.text.is_empty() {
                self.speak(&rest.text, Vec::new(), out);
            }
            rescued(&rest.calls, &mut self.receipt);
            for call in rest.calls.into_iter().take(self.facts.most_calls.saturating_sub(self.calls.count())) {
                let (_, call) = self.calls.read(call);
                self.call(call, out)?;
            }
        }
        if reply.done && self.facts.form != Form::Free {
            self.end_form(done_reason, out)?;
        }
        if reply.done {
            self.finish(done_reason, out);
        }
        Ok(())
    }
}

impl Translator for Answer {
    type Reply<'a> = ChatReply<'a>;

    fn reply(&mut self, reply: ChatReply<'_>, out: &mut Frames) {
        if self.state == State::Closed {
            return;
        }
        if let Err(error) = self.take(reply, out) {
            self.wrong = Some(error);
        }
    }

    fn fail(&mut self, error: &Error, out: &mut Frames) {
        if self.state == State::Closed {
            return;
        }
        // One that has waited in vain was never in progress.
        self.queue(out);
        if self.state != State::Queued {
            self.begin(out);
        }
        self.release(Rescue::stop, out);
        self.end(
            if *error == Error::CanceledByCaller { Status::Canceled } else { Status::Failed(Failure::from(error)) },
            out,
        );
    }

    fn closed(&self) -> bool {
        self.state == State::Closed
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
