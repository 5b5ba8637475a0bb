//! Native replies → completion chunks: a state machine without clock, dice or IO.
//!
//! ```text
//! each answer: Opening ──reply──► Flowing ──done──► Closed      all of them: usage if asked · [DONE]
//!                 └────── end before done ─────┘                one error frame, no [DONE]
//! ```

use std::borrow::Cow;

use crate::{
    error::Error,
    ollama::generate::GenerateReply,
    openai::{
        completions::{
            translate::{FINGERPRINT, finish_reason, logprobs},
            wire::{Choice, ChunkUsage, Completion, Facts},
        },
        response::sse::{Frames, OpenChoices, Translator},
    },
    stamp::Stamp,
    usage::Usage,
};

/// The streamed answers to one request.
#[derive(Debug)]
pub(crate) struct Completions {
    stamp: Stamp,
    facts: Facts,
    answers: Vec<Answer>,
    /// Which answer the next reply belongs to.
    nth: usize,
    open: OpenChoices,
}

/// One of the answers that are streamed together.
#[derive(Clone, Copy, Debug)]
struct Answer {
    state: State,
    /// Where the next token begins, in characters.
    offset: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Opening,
    Flowing,
    Closed,
}

impl Completions {
    pub(crate) fn new(stamp: Stamp, facts: Facts) -> Self {
        let answers = vec![Answer { state: State::Opening, offset: 0 }; facts.choices];
        let open = OpenChoices::new(answers.len());
        Self { stamp, facts, answers, nth: 0, open }
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
        let Answer { state, mut offset } = self.answers[self.nth];
        if self.open.closed() || state == State::Closed {
            return;
        }
        let piece =
            |text| Choice { text, index: self.nth, logprobs: None, finish_reason: None, reasoning_content: None };
        let echoed = self.facts.echoed(self.nth);
        if state == State::Opening && !echoed.is_empty() {
            self.chunk(vec![piece(Cow::Borrowed(echoed))], None, out);
        }
        let (counted, done) = (Usage::from(&reply), reply.done);
        let finish_reason = done.then(|| finish_reason(reply.done_reason.as_deref()));
        let tokens = reply.logprobs.filter(|tokens| !tokens.is_empty());
        let thinking = reply.thinking.filter(|text| !text.is_empty());
        // Lines without anything come while Ollama holds a tag back.
        if done || !reply.response.is_empty() || tokens.is_some() || thinking.is_some() {
            let mut choice = piece(reply.response);
            choice.logprobs = tokens.map(|tokens| logprobs(tokens, &mut offset));
            choice.finish_reason = finish_reason;
            choice.reasoning_content = thinking;
            self.chunk(vec![choice], None, out);
        }
        self.answers[self.nth] = Answer { state: if done { State::Closed } else { State::Flowing }, offset };
        if !done {
            return;
        }
        if let Some(all) = self.open.finish(counted) {
            if self.facts.include_usage {
                self.chunk(Vec::new(), Some(all.into()), out);
            }
            self.open.done(out);
        }
    }

    fn fail(&mut self, error: &Error, out: &mut Frames) {
        self.open.fail(error, out);
    }

    fn closed(&self) -> bool {
        self.open.closed()
    }

    fn source(&mut self, nth: usize) {
        self.nth = nth;
    }

    fn finished(&self, nth: usize) -> bool {
        self.answers[nth].state == State::Closed
    }

    fn usage(&self) -> Option<Usage> {
        self.open.usage()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::{Value, json};

    use super::*;
    use crate::{openai::response::sse::Feed, vectors::stamp};

    fn facts(choices: usize) -> Facts {
        Facts { model: "m".to_owned(), stream: true, include_usage: true, choices, n: 1, echo: Vec::new() }
    }

    fn wire(lines: &[Value]) -> Bytes {
        lines.iter().map(|line| format!("{line}\n")).collect::<String>().into()
    }

    #[test]
    fn a_stream_that_ends_before_its_last_answer_is_no_success() {
        let done = json!({"response": "a", "done": true, "prompt_eval_count": 2, "eval_count": 1});
        let mut feed = Feed::of(Completions::new(stamp("cmpl-"), facts(2)), 2);
        feed.packet_of(0, wire(std::slice::from_ref(&done))).unwrap();
        feed.eof_of(0).unwrap();
        assert!(!feed.is_closed(), "another answer is under way");
        feed.packet_of(1, wire(&[json!({"response": "b", "done": false})])).unwrap();
        assert!(feed.eof_of(1).is_err());
        let text = String::from_utf8(feed.frames.take().to_vec()).unwrap();
        assert!(text.contains("{\"error\"") && !text.contains("[DONE]"), "{text}");
    }

    #[test]
    fn whatever_the_packets_are_the_stream_is_the_same() {
        let lines = [
            json!({"response": "é", "done": false, "logprobs": [{"token": "é", "logprob": -0.5}]}),
            json!({"response": "", "done": false}),
            json!({"response": "b", "done": true, "logprobs": [{"token": "b", "logprob": -1}], "eval_count": 2}),
        ];
        let run = |size: usize| {
            let mut feed = Feed::of(Completions::new(stamp("cmpl-"), facts(2)), 2);
            for packet in wire(&lines).chunks(size) {
                feed.packet_of(1, Bytes::copy_from_slice(packet)).unwrap();
            }
            feed.packet_of(0, wire(&[json!({"response": "c", "done": true, "done_reason": "length"})])).unwrap();
            (0..2).for_each(|nth| feed.eof_of(nth).unwrap());
            String::from_utf8(feed.frames.take().to_vec()).unwrap()
        };
        let whole = run(usize::MAX);
        assert!(whole.contains("\"text_offset\":[1]") && whole.ends_with("data: [DONE]\n\n"), "{whole}");
        for size in 1..40 {
            assert_eq!(run(size), whole, "packets of {size}");
        }
    }
}
