//! Native replies → completion chunks, one answer after the other: a state machine without clock, dice or IO.
//!
//! ```text
//! Flowing ──done──► Between ──reply──► Flowing … ──last done──► Closed    (usage if asked · [DONE])
//!    └──────── end before done ────────┘                                   one error frame, no [DONE]
//! ```

use std::borrow::Cow;

use super::{
    translate::{FINGERPRINT, finish_reason, logprobs, total},
    wire::{Choice, ChunkUsage, Completion, Facts},
};
use crate::{
    app::Stamp,
    error::Error,
    ollama::generate::GenerateReply,
    openai::{
        sse::{Frames, Translator},
        usage::Usage,
    },
};

/// The streamed answers to one request.
#[derive(Debug)]
pub(crate) struct Completions {
    stamp: Stamp,
    facts: Facts,
    state: State,
    /// The number of the answer that flows, or of the next one.
    index: usize,
    /// Where the next token begins, in characters.
    offset: u64,
    spent: Usage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The answer with the current number has not begun.
    Between,
    Flowing,
    Closed,
}

impl Completions {
    pub(crate) fn new(stamp: Stamp, facts: Facts) -> Self {
        Self { stamp, facts, state: State::Between, index: 0, offset: 0, spent: Usage::default() }
    }

    fn chunk(&self, choices: Vec<Choice<'_>>, usage: ChunkUsage, out: &mut Frames) {
        out.data(&Completion {
            id: &self.stamp.id,
            object: "text_completion",
            created: self.stamp.created,
            model: &self.facts.model,
            system_fingerprint: FINGERPRINT,
            choices,
            usage: self.facts.include_usage.then_some(usage),
        });
    }
}

impl Translator for Completions {
    type Reply<'a> = GenerateReply<'a>;

    fn reply(&mut self, reply: GenerateReply<'_>, out: &mut Frames) {
        if self.state == State::Closed {
            return;
        }
        let piece =
            |text| Choice { text, index: self.index, logprobs: None, finish_reason: None, reasoning_content: None };
        if self.state == State::Between {
            let echoed = self.facts.echoed(self.index);
            if !echoed.is_empty() {
                self.chunk(vec![piece(Cow::Borrowed(echoed))], None, out);
            }
            self.offset = 0;
        }
        self.state = State::Flowing;
        let (counted, done) = (total([&reply]), reply.done);
        let finish_reason = done.then(|| finish_reason(reply.done_reason.as_deref()));
        let tokens = reply.logprobs.filter(|tokens| !tokens.is_empty());
        let thinking = reply.thinking.filter(|text| !text.is_empty());
        // Lines without anything come while Ollama holds a tag back.
        if done || !reply.response.is_empty() || tokens.is_some() || thinking.is_some() {
            let mut choice = piece(reply.response);
            choice.logprobs = tokens.map(|tokens| logprobs(tokens, &mut self.offset));
            choice.finish_reason = finish_reason;
            choice.reasoning_content = thinking;
            self.chunk(vec![choice], None, out);
        }
        if !done {
            return;
        }
        self.spent = Usage { input: self.spent.input + counted.input, output: self.spent.output + counted.output };
        self.index += 1;
        self.state = State::Between;
        if self.index == self.facts.choices {
            if self.facts.include_usage {
                self.chunk(Vec::new(), Some(self.spent.into()), out);
            }
            out.done();
            self.state = State::Closed;
        }
    }

    fn fail(&mut self, error: &Error, out: &mut Frames) {
        if self.state != State::Closed {
            self.state = State::Closed;
            // Never a false `stop`, and no `[DONE]`, which clients take for success.
            out.error(error);
        }
    }

    fn closed(&self) -> bool {
        self.state == State::Closed
    }

    fn between(&self) -> bool {
        self.state == State::Between && self.index > 0
    }

    fn usage(&self) -> Option<Usage> {
        (self.index > 0).then_some(self.spent)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::{Value, json};

    use super::*;
    use crate::{openai::sse::Feed, vectors::stamp};

    fn facts(choices: usize) -> Facts {
        Facts { model: "m".to_owned(), stream: true, include_usage: true, choices, n: 1, echo: Vec::new() }
    }

    fn wire(lines: &[Value]) -> Bytes {
        lines.iter().map(|line| format!("{line}\n")).collect::<String>().into()
    }

    #[test]
    fn a_stream_that_ends_before_its_last_answer_is_no_success() {
        let done = json!({"response": "a", "done": true, "prompt_eval_count": 2, "eval_count": 1});
        let mut feed = Feed::new(Completions::new(stamp("cmpl-"), facts(2)));
        feed.packet(wire(std::slice::from_ref(&done))).unwrap();
        feed.eof().unwrap();
        assert!(!feed.is_closed(), "another answer is to follow");
        feed.packet(wire(&[json!({"response": "b", "done": false})])).unwrap();
        assert!(feed.eof().is_err());
        let text = String::from_utf8(feed.frames.take().to_vec()).unwrap();
        assert!(text.contains("{\"error\"") && !text.contains("[DONE]"), "{text}");
    }

    #[test]
    fn whatever_the_packets_are_the_stream_is_the_same() {
        let lines = [
            json!({"response": "é", "done": false, "logprobs": [{"token": "é", "logprob": -0.5}]}),
            json!({"response": "", "done": false}),
            json!({"response": "b", "done": true, "logprobs": [{"token": "b", "logprob": -1}], "eval_count": 2}),
            json!({"response": "c", "done": true, "done_reason": "length"}),
        ];
        let run = |size: usize| {
            let mut feed = Feed::new(Completions::new(stamp("cmpl-"), facts(2)));
            for packet in wire(&lines).chunks(size) {
                feed.packet(Bytes::copy_from_slice(packet)).unwrap();
            }
            feed.eof().unwrap();
            String::from_utf8(feed.frames.take().to_vec()).unwrap()
        };
        let whole = run(usize::MAX);
        assert!(whole.contains("\"text_offset\":[1]") && whole.ends_with("data: [DONE]\n\n"), "{whole}");
        for size in 1..40 {
            assert_eq!(run(size), whole, "packets of {size}");
        }
    }
}
