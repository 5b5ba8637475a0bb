//! Native replies → chat completion chunks: a state machine without clock, dice or IO.
//!
//! ```text
//! Opening ──reply──► Flowing ──done──► Closed     (role once · finish chunk · usage if asked · [DONE])
//!    └───────── end before done ───────┘          one error frame, no [DONE]
//! ```

use std::borrow::Cow;

use serde::Serialize;

use super::{
    translate::{FINGERPRINT, finish_reason, logprobs, unfinished},
    wire::{Chunk, ChunkChoice, Delta, Facts},
};
use crate::{
    app::Stamp,
    error::Error,
    ollama::wire::ChatReply,
    openai::{
        sse::{End, Frames, Translator},
        tools::Numbering,
        usage::{CompletionUsage, Usage},
    },
};

/// One streamed answer.
#[derive(Debug)]
pub(crate) struct Chat {
    stamp: Stamp,
    facts: Facts,
    state: State,
    calls: Numbering,
    usage: Option<Usage>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Opening,
    Flowing,
    Closed,
}

impl Chat {
    pub(crate) fn new(stamp: Stamp, facts: Facts) -> Self {
        let calls = Numbering::new(&stamp.random);
        Self { stamp, facts, state: State::Opening, calls, usage: None }
    }

    fn chunk<C: Serialize>(&self, choices: C, usage: Option<CompletionUsage>, out: &mut Frames) {
        out.data(&Chunk {
            id: &self.stamp.id,
            object: "chat.completion.chunk",
            created: self.stamp.created,
            model: &self.facts.model,
            system_fingerprint: FINGERPRINT,
            choices,
            usage: self.facts.include_usage.then_some(usage),
        });
    }

    fn delta(&self, delta: Delta<'_>, out: &mut Frames) {
        self.chunk([ChunkChoice { index: 0, delta, logprobs: None, finish_reason: None }], None, out);
    }
}

impl Translator for Chat {
    type Reply<'a> = ChatReply<'a>;

    fn reply(&mut self, reply: ChatReply<'_>, out: &mut Frames) {
        if self.state == State::Closed {
            return;
        }
        if self.state == State::Opening {
            self.state = State::Flowing;
            let role = Delta { role: Some("assistant"), content: Some(Cow::Borrowed("")), ..Delta::default() };
            self.delta(role, out);
        }
        let counted = Usage::from(&reply);
        let message = reply.message;
        let thinking = message.thinking.as_deref().filter(|text| !text.is_empty());
        let tool_calls: Vec<_> = message
            .tool_calls
            .unwrap_or_default()
            .into_iter()
            .map(|call| {
                let (index, mut call) = self.calls.next(call);
                call.index = Some(index);
                call
            })
            .collect();
        let logprobs = reply.logprobs.filter(|tokens| !tokens.is_empty()).map(logprobs);
        let content = Some(message.content).filter(|text| !text.is_empty());
        if content.is_some() || thinking.is_some() || !tool_calls.is_empty() || logprobs.is_some() {
            let delta =
                Delta { content, reasoning_content: thinking, reasoning: thinking, tool_calls, ..Delta::default() };
            self.chunk([ChunkChoice { index: 0, delta, logprobs, finish_reason: None }], None, out);
        }
        if reply.done {
            let finish = finish_reason(reply.done_reason.as_deref(), self.calls.count() > 0);
            let finished =
                ChunkChoice { index: 0, delta: Delta::default(), logprobs: None, finish_reason: Some(finish) };
            self.chunk([finished], None, out);
            if self.facts.include_usage {
                self.chunk::<[(); 0]>([], Some(counted.into()), out);
            }
            out.done();
            self.usage = Some(counted);
            self.state = State::Closed;
        }
    }

    fn end(&mut self, why: End, out: &mut Frames) {
        if self.state == State::Closed {
            return;
        }
        self.state = State::Closed;
        out.error(&match why {
            End::Failed(error) => error,
            // Never a false `stop`, and no `[DONE]`, which clients take for success.
            End::Eof => Error::Cut { message: unfinished() },
        });
    }

    fn closed(&self) -> bool {
        self.state == State::Closed
    }

    fn usage(&self) -> Option<Usage> {
        self.usage
    }
}
