//! What must hold of every streamed answer.

use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    stream::{self, Now, Stream},
    translate::{Facts, Shape},
};
use crate::{error::Error, redact::Redactor};

const NOW: Now<'static> = Now { created_at: "2026-11-22T12:37:41.5Z", elapsed: Duration::from_millis(5) };

fn facts(shape: Shape) -> Facts {
    Facts { model: "m".to_owned(), shape, stream: true, splits: true }
}

/// The lines that a stream becomes, and how it fails.
fn run(shape: Shape, packets: &[&[u8]]) -> (Vec<Value>, Option<Error>) {
    let mut stream = Stream::new(facts(shape), Redactor::default());
    let mut out = Vec::new();
    let mut pushed = packets.iter().try_for_each(|packet| stream.push(Bytes::copy_from_slice(packet), &NOW, &mut out));
    if pushed.is_ok() {
        pushed = stream.end(&NOW, &mut out);
    }
    let text = String::from_utf8(out).unwrap();
    (text.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), pushed.err())
}

/// What an answer is made of.
#[derive(Clone, Debug)]
struct Answer {
    reasoning: Vec<String>,
    content: Vec<String>,
    calls: Vec<(String, String)>,
    finish: &'static str,
    usage: bool,
    done: bool,
}

fn answers() -> impl Strategy<Value = Answer> {
    let text = || prop::collection::vec("[a-c é<]{0,4}|<think>|</think>", 0..5);
    let calls = prop::collection::vec(("[fg]", r#"\{"x":"[a-cé]{0,3}"\}|\{\}"#), 0..3);
    (text(), text(), calls, prop::sample::select(vec!["stop", "length", "tool_calls"]), any::<bool>(), any::<bool>())
        .prop_map(|(reasoning, content, calls, finish, usage, done)| {
            // Where the thinking comes apart, tags are text.
            Answer { reasoning, content, calls, finish, usage, done }
        })
}

impl Answer {
    /// As a server streams it; the arguments of calls in pieces of `size` characters.
    fn events(&self, size: usize) -> Vec<u8> {
        let mut events = String::from(": keep-alive\n\n");
        let mut event = |value: Value| events.push_str(&format!("data: {value}\r\n\r\n"));
        let delta = |delta: Value| json!({"id": "x", "choices": [{"index": 0, "delta": delta, "finish_reason": null}]});
        event(delta(json!({"role": "assistant", "content": ""})));
        for text in &self.reasoning {
            event(delta(json!({"reasoning_content": text})));
        }
        for text in &self.content {
            event(delta(json!({"content": text})));
        }
        for (index, (name, arguments)) in self.calls.iter().enumerate() {
            event(delta(json!({"tool_calls": [{"index": index, "id": format!("call_{index}"), "type": "function",
                "function": {"name": name, "arguments": ""}}]})));
            let chars: Vec<char> = arguments.chars().collect();
            for piece in chars.chunks(size) {
                let piece: String = piece.iter().collect();
                event(delta(json!({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})));
            }
        }
        event(json!({"choices": [{"index": 0, "delta": {}, "finish_reason": self.finish}]}));
        if self.usage {
            event(json!({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}));
        }
        if self.done {
            events.push_str("data: [DONE]\n\n");
        }
        events.into_bytes()
    }

    /// As a server answers it whole.
    fn whole(&self) -> Value {
        let calls: Vec<Value> = self.calls.iter().enumerate().map(|(index, (name, arguments))| {
            json!({"id": format!("call_{index}"), "type": "function", "function": {"name": name, "arguments": arguments}})
        }).collect();
        let usage = if self.usage { json!({"prompt_tokens": 7, "completion_tokens": 3}) } else { Value::Null };
        json!({"choices": [{"index": 0, "finish_reason": self.finish, "message": {"role": "assistant",
            "reasoning_content": self.reasoning.concat(), "content": self.content.concat(), "tool_calls": calls}}],
            "usage": usage})
    }
}

/// Joins lines, as a client does.
fn fold(shape: Shape, lines: &[Value]) -> Value {
    let text = |of: &dyn Fn(&Value) -> &Value| lines.iter().filter_map(|line| of(line).as_str()).collect::<String>();
    let last = lines.last().unwrap();
    let (content, thinking) = match shape {
        Shape::Chat => (text(&|line| &line["message"]["content"]), text(&|line| &line["message"]["thinking"])),
        Shape::Generate => (text(&|line| &line["response"]), text(&|line| &line["thinking"])),
    };
    let calls: Vec<Value> =
        lines.iter().filter_map(|line| line["message"]["tool_calls"].as_array().cloned()).flatten().collect();
    json!({"content": content, "thinking": thinking, "calls": calls, "done": last["done"],
        "done_reason": last["done_reason"], "eval_count": last["eval_count"], "prompt_eval_count": last["prompt_eval_count"]})
}

fn shapes() -> impl Strategy<Value = Shape> {
    prop::sample::select(vec![Shape::Chat, Shape::Generate])
}

proptest! {
    #[test]
    fn joined_lines_are_the_whole_answer(answer in answers(), size in 1_usize..5, shape in shapes()) {
        // A server that gives thinking in a field does so from the beginning.
        prop_assume!(answer.reasoning.is_empty() || !answer.reasoning.concat().is_empty());
        let (lines, failed) = run(shape, &[&answer.events(size)]);
        prop_assert_eq!(failed, None);
        let whole = stream::whole(&facts(shape), answer.whole().to_string().as_bytes(), &Redactor::default(), &NOW).unwrap();
        let whole: Value = serde_json::from_slice(&whole).unwrap();
        prop_assert_eq!(fold(shape, &lines), fold(shape, &[whole]));
    }

    #[test]
    fn any_packet_split_gives_the_same_lines(answer in answers(), size in 1_usize..40, shape in shapes()) {
        let events = answer.events(3);
        let packets: Vec<&[u8]> = events.chunks(size).collect();
        prop_assert_eq!(run(shape, &packets), run(shape, &[&events]));
    }

    #[test]
    fn a_stream_ends_exactly_once_and_one_that_is_cut_is_never_done(answer in answers(), at in 0_usize..3000, shape in shapes()) {
        let events = answer.events(2);
        let cut = &events[..at.min(events.len())];
        let (lines, failed) = run(shape, &[cut]);
        let done = lines.iter().filter(|line| line["done"] == true).count();
        prop_assert_eq!(done + usize::from(failed.is_some()), 1);
        // The reason why the model stopped is the least that must have come.
        let text = String::from_utf8_lossy(cut).into_owned();
        let finished = text.contains(&format!("\"finish_reason\":\"{}\"", answer.finish));
        prop_assert!(finished || done == 0, "{}", text);
        if done == 1 {
            prop_assert_eq!(&lines.last().unwrap()["done"], &json!(true));
        }
    }

    #[test]
    fn whatever_comes_after_the_end_is_not_heard(answer in answers(), more in answers()) {
        let mut first = Answer { done: true, ..answer }.events(2);
        let alone = run(Shape::Chat, &[&first]);
        first.extend(more.events(2));
        prop_assert_eq!(run(Shape::Chat, &[&first]), alone);
    }

    #[test]
    fn no_bytes_make_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), text in "(data: |\\{\"choices\":|\\[|\\}|\n|\"|null|1){0,30}") {
        let _ = run(Shape::Chat, &[&bytes, text.as_bytes()]);
        let _ = stream::whole(&facts(Shape::Chat), &bytes, &Redactor::default(), &NOW);
        let _ = stream::whole(&facts(Shape::Generate), text.as_bytes(), &Redactor::default(), &NOW);
    }
}
