//! Native replies → chat completion chunks: a state machine without clock, dice or IO.
//!
//! ```text
//! Opening ──reply──► Flowing ──done──► Closed     (role once · finish chunk · usage if asked · [DONE])
//!    └───────── end before done ───────┘          one error frame, no [DONE]
//! ```

use std::borrow::Cow;

use serde::Serialize;

use crate::{
    error::Error,
    json_writer,
    ollama::wire::ChatReply,
    openai::{
        chat::{
            translate::{FINGERPRINT, digits, finish_reason},
            wire::{ChunkChoice, ChunkHead, Delta, Facts, Logprobs},
        },
        response::sse::{Frames, OpenChoices, Translator, on_one_line},
        tools::{
            Numbering,
            forced::{Form, Said, Speech, cut_at},
            lost,
            rescue::Rescue,
            rescued,
        },
    },
    receipt::Receipt,
    stamp::Stamp,
    usage::{CompletionUsage, Usage},
};

/// One streamed answer.
#[derive(Debug)]
pub(crate) struct Chat {
    facts: Facts,
    frame: ChunkFrame,
    choices: Vec<Choice>,
    /// Which choice the next reply belongs to.
    nth: usize,
    open: OpenChoices,
    receipt: Receipt,
    wrong: Option<Error>,
}

/// One of the answers that are streamed together.
#[derive(Debug)]
struct Choice {
    state: State,
    calls: Numbering,
    /// The words of a model whose output has a set form.
    speech: Speech,
    /// Whether it has said anything.
    spoke: bool,
    /// Looks for calls in its words.
    rescue: Option<Rescue>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Opening,
    Flowing,
    Closed,
}

impl Chat {
    pub(crate) fn new(stamp: &Stamp, facts: Facts) -> Self {
        let choice = |nth| Choice {
            state: State::Opening,
            calls: Numbering::new(&digits(stamp, nth)),
            speech: Speech::new(&facts.form, &facts.stops),
            spoke: false,
            rescue: if facts.form == Form::Free { facts.repairs.rescue() } else { None },
        };
        let choices = (0..facts.choices.0).map(choice).collect();
        let open = OpenChoices::new(facts.choices.0);
        let frame = ChunkFrame::new(stamp, &facts);
        Self { facts, frame, choices, nth: 0, open, receipt: Receipt::default(), wrong: None }
    }

    fn chunk<C: Serialize>(&self, choices: C, usage: Option<CompletionUsage>, out: &mut Frames) {
        match usage {
            Some(usage) => {
                out.data_between(&self.frame.head, &choices, &[b",\"usage\":", &*json(&usage), b"}"].concat());
            }
            None => out.data_between(&self.frame.head, &choices, self.frame.end),
        }
    }

    /// Writes a chunk of the first choice that has nothing but text.
    fn text(&self, text: &str, out: &mut Frames) {
        out.data_between(&self.frame.before_text, text, &self.frame.after_text);
    }

    /// Passes on text that was held because it might have become a call.
    fn release(&mut self, out: &mut Frames) {
        for nth in 0..self.choices.len() {
            let held = self.choices[nth].rescue.as_mut().map(Rescue::stop).filter(|held| !held.is_empty());
            if let Some(held) = held {
                self.nth = nth;
                self.delta(Delta { content: Some(Cow::Owned(held)), ..Delta::default() }, out);
            }
        }
    }

    fn delta(&self, delta: Delta<'_>, out: &mut Frames) {
        self.chunk([ChunkChoice { index: self.nth, delta, logprobs: None, finish_reason: None }], None, out);
    }
}

/// What all chunks of a stream share, written once: most chunks are a copy of it around a word.
#[derive(Debug)]
struct ChunkFrame {
    /// What is in front of the choices.
    head: Vec<u8>,
    /// What follows the choices of a chunk without counts.
    end: &'static [u8],
    /// What is around the text of a chunk that has nothing else, for the first choice.
    before_text: Vec<u8>,
    after_text: Vec<u8>,
}

impl ChunkFrame {
    fn new(stamp: &Stamp, facts: &Facts) -> Self {
        let head = ChunkHead {
            id: &stamp.id,
            object: "chat.completion.chunk",
            created: stamp.created,
            model: &facts.model,
            system_fingerprint: FINGERPRINT,
        };
        let mut head = on_one_line(&json(&head));
        head.pop();
        head.extend_from_slice(b",\"choices\":");
        let end: &[u8] = if facts.include_usage { b",\"usage\":null}" } else { b"}" };
        let delta = Delta { content: Some(Cow::Borrowed("")), ..Delta::default() };
        let choices = json(&[ChunkChoice { index: 0, delta, logprobs: None, finish_reason: None }]);
        let text = memchr::memmem::find(&choices, b"\"\"").unwrap_or(choices.len());
        let (before, after) = (&choices[..text], choices.get(text + 2..).unwrap_or_default());
        Self { before_text: [&*head, before].concat(), after_text: [after, end].concat(), head, end }
    }
}

fn json(value: &impl Serialize) -> Vec<u8> {
    let written = json_writer::to_vec(value, 256);
    debug_assert!(written.is_ok(), "plain structs always serialize");
    written.unwrap_or_default()
}

impl Translator for Chat {
    type Reply<'a> = ChatReply<'a>;

    fn reply(&mut self, reply: ChatReply<'_>, out: &mut Frames) {
        if self.open.closed() || self.choices[self.nth].state == State::Closed {
            return;
        }
        if self.choices[self.nth].state == State::Opening {
            self.choices[self.nth].state = State::Flowing;
            let role = Delta { role: Some("assistant"), content: Some(Cow::Borrowed("")), ..Delta::default() };
            self.delta(role, out);
        }
        let counted = Usage::from(&reply);
        let choice = &mut self.choices[self.nth];
        let message = reply.message;
        let thinking = message.thinking.as_deref().filter(|text| !text.is_empty());
        let most = self.facts.most_calls.saturating_sub(choice.calls.count());
        let mut tool_calls: Vec<_> = message
            .tool_calls
            .unwrap_or_default()
            .into_iter()
            .take(most)
            .map(|call| {
                let (index, mut call) = choice.calls.next(call);
                self.facts.repairs.fix(&mut call.function, &mut self.receipt);
                call.index = Some(index);
                call
            })
            .collect();
        let logprobs = reply.logprobs.filter(|tokens| !tokens.is_empty()).map(Logprobs::of);
        let mut content = Some(message.content).filter(|text| !text.is_empty());
        if let Some(rescue) = &mut choice.rescue {
            let text = content.take().unwrap_or_default();
            // Where there are probabilities, each belongs to its word.
            let off = !tool_calls.is_empty() || logprobs.is_some();
            let before = thinking.map(|_| rescue.interrupt()).unwrap_or_default();
            let released = if off {
                Some(rescue.stop() + &text)
            } else {
                match rescue.push(&text) {
                    Cow::Borrowed(_) => None,
                    Cow::Owned(released) => Some(released),
                }
            };
            let mut passed: Cow<'_, str> = released.map_or(text, Cow::Owned);
            if !before.is_empty() {
                passed = Cow::Owned(before + &passed);
            }
            if reply.done {
                let rest = rescue.finish(reply.done_reason.as_deref());
                passed.to_mut().push_str(&rest.text);
                rescued(&rest.calls, &mut self.receipt);
                tool_calls.extend(rest.calls.into_iter().take(most).map(|call| {
                    let (index, mut call) = choice.calls.read(call);
                    self.facts.repairs.fix(&mut call.function, &mut self.receipt);
                    call.index = Some(index);
                    call
                }));
            }
            content = Some(passed).filter(|text| !text.is_empty());
        }
        if self.facts.form != Form::Free {
            let mut words = choice.speech.push(&content.take().unwrap_or_default()).to_owned();
            if reply.done {
                let (form, done_reason) = (&self.facts.form, reply.done_reason.as_deref());
                let said = match choice.calls.count() {
                    0 => choice.speech.end(form, done_reason, "response_format", &mut self.receipt),
                    _ => Ok(choice.speech.end_beside_calls(form)),
                };
                match said {
                    Ok(Some(Said::Calls(calls))) => {
                        tool_calls.extend(calls.into_iter().take(most).map(|call| {
                            let (index, mut call) = choice.calls.read(call);
                            self.facts.repairs.fix(&mut call.function, &mut self.receipt);
                            call.index = Some(index);
                            call
                        }));
                    }
                    Ok(Some(Said::Answer(mut answer))) => {
                        cut_at(&mut answer, &self.facts.stops);
                        words.push_str(&answer);
                    }
                    Ok(None) => {}
                    Err(error) => {
                        self.open.count(counted);
                        self.wrong = Some(error);
                        return;
                    }
                }
            }
            content = Some(Cow::<str>::Owned(words)).filter(|text| !text.is_empty());
        }
        choice.spoke |= content.is_some();
        let function_call = if self.facts.legacy { tool_calls.pop().map(|call| call.function) } else { None };
        if content.is_some()
            || thinking.is_some()
            || !tool_calls.is_empty()
            || function_call.is_some()
            || logprobs.is_some()
        {
            let only = tool_calls.is_empty() && function_call.is_none() && thinking.is_none() && logprobs.is_none();
            if let Some(text) = content.as_deref().filter(|_| only && self.nth == 0) {
                self.text(text, out);
            } else {
                let delta = Delta {
                    content,
                    reasoning_content: thinking,
                    reasoning: thinking,
                    tool_calls,
                    function_call,
                    ..Delta::default()
                };
                self.chunk([ChunkChoice { index: self.nth, delta, logprobs, finish_reason: None }], None, out);
            }
        }
        if reply.done {
            let choice = &mut self.choices[self.nth];
            choice.state = State::Closed;
            let finish = finish_reason(reply.done_reason.as_deref(), choice.calls.count() > 0, self.facts.legacy);
            if self.facts.offers && finish == "stop" && !choice.spoke && counted.output > 0 {
                lost(&mut self.receipt);
            }
            let finished =
                ChunkChoice { index: self.nth, delta: Delta::default(), logprobs: None, finish_reason: Some(finish) };
            self.chunk([finished], None, out);
            if let Some(all) = self.open.finish(counted) {
                if self.facts.include_usage {
                    self.chunk::<[(); 0]>([], Some(all.into()), out);
                }
                self.open.done(out);
            }
        }
    }

    fn fail(&mut self, error: &Error, out: &mut Frames) {
        if !self.open.closed() {
            self.release(out);
        }
        self.open.fail(error, out);
    }

    fn closed(&self) -> bool {
        self.open.closed()
    }

    fn source(&mut self, nth: usize) {
        self.nth = nth;
    }

    fn finished(&self, nth: usize) -> bool {
        self.choices[nth].state == State::Closed
    }

    fn usage(&self) -> Option<Usage> {
        self.open.usage()
    }

    fn receipt(&mut self) -> Receipt {
        std::mem::take(&mut self.receipt)
    }

    fn wrong(&mut self) -> Option<Error> {
        self.wrong.take()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        openai::{
            arbitrary::{lines, wire},
            chat::{translate, wire::Choices},
            response::sse::Feed,
            tools::repair::Repairs,
        },
        vectors::stamp,
    };

    fn facts(include_usage: bool) -> Facts {
        Facts { model: "m".to_owned(), stream: true, include_usage, ..Facts::default() }
    }

    fn run(packets: impl IntoIterator<Item = Vec<u8>>, include_usage: bool) -> String {
        run_as(facts(include_usage), packets)
    }

    fn run_as(facts: Facts, packets: impl IntoIterator<Item = Vec<u8>>) -> String {
        let mut feed = Feed::new(Chat::new(&stamp("chatcmpl-"), facts));
        let fed = packets.into_iter().try_for_each(|packet| feed.packet(Bytes::from(packet)));
        let _ = fed.and_then(|()| feed.eof());
        String::from_utf8(feed.frames.take().to_vec()).unwrap()
    }

    fn events(text: &str) -> Vec<&str> {
        text.split("\n\n").filter_map(|event| event.strip_prefix("data: ")).collect()
    }

    /// Joins the deltas of a stream, as a client does.
    fn fold(events: &[&str]) -> Value {
        let mut answer = json!({"content": "", "reasoning": "", "calls": [], "logprobs": [], "finish": null});
        for event in events.iter().filter(|event| **event != "[DONE]") {
            let chunk: Value = serde_json::from_str(event).unwrap();
            let choice = &chunk["choices"][0];
            for (to, from) in [("content", "content"), ("reasoning", "reasoning_content")] {
                if let Some(text) = choice["delta"][from].as_str() {
                    answer[to] = format!("{}{text}", answer[to].as_str().unwrap()).into();
                }
            }
            for call in choice["delta"]["tool_calls"].as_array().into_iter().flatten() {
                let calls = answer["calls"].as_array_mut().unwrap();
                assert_eq!(call["index"], calls.len(), "dense from 0");
                calls.push(json!({"id": call["id"], "type": call["type"], "function": call["function"]}));
            }
            for token in choice["logprobs"]["content"].as_array().into_iter().flatten() {
                answer["logprobs"].as_array_mut().unwrap().push(token.clone());
            }
            if !choice["finish_reason"].is_null() {
                assert!(answer["finish"].is_null(), "the finish comes once");
                answer["finish"] = choice["finish_reason"].clone();
            }
        }
        answer
    }

    /// What Ollama would have answered unstreamed: all of it in one reply (`ollama-wire` A5).
    fn whole(lines: &[Value]) -> Value {
        whole_as(&facts(false), lines)
    }

    fn whole_as(facts: &Facts, lines: &[Value]) -> Value {
        let mut reply = lines.last().unwrap().clone();
        let join = |at: &str| lines.iter().filter_map(|line| line["message"][at].as_str()).collect::<String>();
        let concat = |of: &dyn Fn(&Value) -> Value| -> Vec<Value> {
            lines.iter().filter_map(|line| of(line).as_array().cloned()).flatten().collect()
        };
        reply["message"] = json!({"role": "assistant", "content": join("content"), "thinking": join("thinking"),
            "tool_calls": concat(&|line| line["message"]["tool_calls"].clone())});
        reply["logprobs"] = concat(&|line| line["logprobs"].clone()).into();
        let (text, stamp) = (reply.to_string(), stamp("chatcmpl-"));
        let answer =
            translate::response(&stamp, facts, vec![serde_json::from_str(&text).unwrap()], &mut Receipt::default())
                .unwrap();
        let choice = serde_json::to_value(&answer).unwrap()["choices"][0].clone();
        let text = |at: &str| choice["message"][at].as_str().unwrap_or_default().to_owned();
        json!({"content": text("content"), "reasoning": text("reasoning"),
            "calls": choice["message"].get("tool_calls").cloned().unwrap_or(json!([])),
            "logprobs": choice["logprobs"]["content"], "finish": choice["finish_reason"]})
    }

    proptest! {
        #[test]
        fn joining_the_deltas_gives_the_unstreamed_answer(lines in lines()) {
            prop_assert_eq!(fold(&events(&run([wire(&lines)], false))), whole(&lines));
        }

        #[test]
        fn any_packet_split_gives_the_same_stream(lines in lines(), size in 1usize..40, usage: bool) {
            let bytes = wire(&lines);
            let packets: Vec<_> = bytes.chunks(size).map(<[u8]>::to_vec).collect();
            prop_assert_eq!(run(packets, usage), run([bytes], usage));
        }

        #[test]
        fn what_is_read_out_of_words_is_the_same_however_they_are_cut(
            size in 1usize..12, answers: bool, cut in 0usize..60, length: bool, thinking in prop::option::of("[a-c]{1,3}"),
        ) {
            let words = if answers { r#"{"answer": {"b":"é", "a":1.0}}"# } else { r#"{"name":"f","arguments":{"b":"é","a":1.0}}"# };
            let words: Vec<char> = words.chars().take(words.chars().count().saturating_sub(cut)).collect();
            let message = |content: String| json!({"message": {"role": "assistant", "content": content}, "done": false});
            let mut lines: Vec<Value> = words.chunks(size).map(|part| message(part.iter().collect())).collect();
            if let Some(thinking) = thinking {
                lines.insert(0, json!({"message": {"content": "", "thinking": thinking}, "done": false}));
            }
            let reason = if length { "length" } else { "stop" };
            lines.push(json!({"message": {"content": ""}, "done": true, "done_reason": reason, "eval_count": 3}));
            for form in [Form::Call(vec!["f".to_owned()]), Form::CallOrAnswer(vec!["f".to_owned()])] {
                let facts = Facts { form, offers: true, ..facts(false) };
                let text = run_as(facts.clone(), [wire(&lines)]);
                let events = events(&text);
                if events.last() == Some(&"[DONE]") {
                    let mut whole = whole_as(&facts, &lines);
                    // The unstreamed answer of these lines holds an empty list of probabilities, the stream none.
                    whole["logprobs"] = json!([]);
                    prop_assert_eq!(fold(&events), whole);
                } else {
                    // The unstreamed answer is refused, too.
                    prop_assert!(matches!(facts.form, Form::Call(_)) && !length);
                    prop_assert_eq!(text.matches("\"error\"").count(), 1);
                }
            }
        }

        #[test]
        fn calls_in_text_are_the_same_however_the_text_is_cut(
            size in 1usize..12, parts in prop::collection::vec(0usize..8, 0..4), length: bool, native: bool, thinking: bool,
        ) {
            const PARTS: [&str; 8] = [
                "I will look.\n", "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": \"1\"}}\n</tool_call>", "\n",
                "{\"name\": \"f\", \"arguments\": {\"a\": 1}}", "{\"name\": \"f\", \"arguments\": {\"a\": ", "[TOOL_CALLS]f[ARGS]{\"A\": 2}",
                "```json\n{\"b\": 1}\n```", "é",
            ];
            let tools: Vec<crate::openai::tools::Tool<'_>> = serde_json::from_str(
                r#"[{"type":"function","function":{"name":"f","parameters":{"type":"object","properties":{"a":{"type":"integer"}},"required":["a"]}}}]"#,
            ).unwrap();
            let repairs = Repairs::new(&tools, &crate::config::Tools::default());
            let text: Vec<char> = parts.iter().flat_map(|part| PARTS[*part].chars()).collect();
            let message = |content: String| json!({"message": {"role": "assistant", "content": content}, "done": false});
            let mut lines: Vec<Value> = text.chunks(size).map(|part| message(part.iter().collect())).collect();
            if thinking {
                lines.insert(0, json!({"message": {"content": "", "thinking": "a"}, "done": false}));
            }
            let calls = if native { json!([{"function": {"name": "F", "arguments": {"a": "3"}}}]) } else { json!([]) };
            let reason = if length { "length" } else { "stop" };
            lines.push(json!({"message": {"content": "", "tool_calls": calls}, "done": true, "done_reason": reason, "eval_count": 3}));
            let facts = Facts { repairs, offers: true, ..facts(false) };
            let streamed = run_as(facts.clone(), [wire(&lines)]);
            let mut whole = whole_as(&facts, &lines);
            whole["logprobs"] = json!([]);
            prop_assert_eq!(fold(&events(&streamed)), whole);
        }

        #[test]
        fn several_answers_interleave_and_each_is_itself(
            both in prop::collection::vec(lines(), 2..4), order in prop::collection::vec(0usize..3, 0..40), cut: bool,
        ) {
            let n = both.len();
            let mut feed = Feed::of(Chat::new(&stamp("chatcmpl-"), Facts { choices: Choices(n), ..facts(true) }), n);
            let mut left: Vec<_> = both.iter().map(|lines| lines.iter()).collect();
            // Some order first, then whatever is left; the last answer may be cut off before its end.
            let rest = (0..n).flat_map(|nth| std::iter::repeat_n(nth, 10));
            for nth in order.into_iter().filter(|nth| *nth < n).chain(rest) {
                let Some(line) = left[nth].next() else { continue };
                if cut && nth == n - 1 && line["done"] == true {
                    continue;
                }
                let packet = Bytes::from(format!("{line}\n"));
                prop_assert!(feed.packet_of(nth, packet).is_ok());
            }
            let failed = (0..n).filter(|nth| feed.eof_of(*nth).is_err()).count();
            let text = String::from_utf8(feed.frames.take().to_vec()).unwrap();
            let events = events(&text);
            let errors = events.iter().filter(|event| event.starts_with("{\"error\"")).count();
            prop_assert_eq!((failed > 0, errors, events.last() == Some(&"[DONE]")), (cut, usize::from(cut), !cut));
            if cut {
                return Ok(());
            }
            let usage: Value = serde_json::from_str(events[events.len() - 2]).unwrap();
            prop_assert_eq!(&usage["usage"]["completion_tokens"], &json!(3 * n));
            for (nth, lines) in both.iter().enumerate() {
                let own: Vec<&str> = events.iter().copied().filter(|event| event.contains(&format!("\"choices\":[{{\"index\":{nth},"))).collect();
                let (mut streamed, mut whole) = (fold(&own), whole(lines));
                // Made up ids differ from choice to choice, so that none stands twice.
                for answer in [&mut streamed, &mut whole] {
                    answer["calls"].as_array_mut().unwrap().iter_mut().for_each(|call| call["id"] = Value::Null);
                }
                prop_assert_eq!(streamed, whole);
            }
        }

        #[test]
        fn a_stream_ends_exactly_once_wherever_it_is_cut(lines in lines(), at in 0usize..2000, usage: bool) {
            let mut bytes = wire(&lines);
            let (whole, at) = (bytes.len(), at.min(bytes.len()));
            bytes.truncate(at);
            let text = run([bytes], usage);
            let events = events(&text);
            let done = events.iter().filter(|event| **event == "[DONE]").count();
            let errors = events.iter().filter(|event| event.starts_with("{\"error\"")).count();
            prop_assert_eq!(done + errors, 1);
            // Without its newline the last line is whole all the same.
            prop_assert_eq!(done == 1, at + 1 >= whole);
            let last = events.last().unwrap();
            let ended = *last == "[DONE]" || last.starts_with("{\"error\"");
            prop_assert!(ended);
        }

        #[test]
        fn whatever_comes_after_the_end_is_not_heard(lines in lines(), more in lines()) {
            let (first, second) = (wire(&lines), wire(&more));
            prop_assert_eq!(run([first.clone(), second], true), run([first], true));
        }
    }
}
