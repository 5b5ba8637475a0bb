//! A stream of chunks folded to the shape of an unstreamed answer, so that one expectation serves both. Pure.

use serde_json::{Map, Value, json};

/// Texts of a delta that are joined.
const TEXTS: [&str; 4] = ["content", "refusal", "reasoning", "reasoning_content"];

/// A chat completion in the making.
#[derive(Debug, Default)]
pub(super) struct Fold {
    /// The answer's own fields, from the first chunk that has them.
    answer: Map<String, Value>,
    choices: Vec<Map<String, Value>>,
}

impl Fold {
    /// Adds a chunk.
    pub(super) fn add(&mut self, chunk: &Value) {
        for (name, value) in chunk.as_object().into_iter().flatten() {
            match &**name {
                "choices" => {}
                // The last word on usage counts; on everything else the first.
                "usage" => {
                    self.answer.insert(name.clone(), value.clone());
                }
                _ => {
                    self.answer.entry(name.clone()).or_insert_with(|| value.clone());
                }
            }
        }
        for choice in chunk["choices"].as_array().into_iter().flatten() {
            self.choice(choice);
        }
    }

    fn choice(&mut self, choice: &Value) {
        let index = &choice["index"];
        let at = self.choices.iter().position(|known| known["index"] == *index).unwrap_or_else(|| {
            let fresh = json!({"index": index, "message": {}});
            self.choices.push(fresh.as_object().cloned().unwrap_or_default());
            self.choices.len() - 1
        });
        let known = &mut self.choices[at];
        if let Some(reason) = choice.get("finish_reason") {
            known.insert("finish_reason".to_owned(), reason.clone());
        }
        for token in choice["logprobs"]["content"].as_array().into_iter().flatten() {
            push(&mut entry(known, "logprobs", json!({}))["content"], token.clone());
        }
        let message = entry(known, "message", json!({}));
        let Some(delta) = choice["delta"].as_object() else { return };
        for (name, value) in delta {
            if name == "tool_calls" {
                for call in value.as_array().into_iter().flatten() {
                    tool_call(&mut message["tool_calls"], call);
                }
            } else if TEXTS.contains(&&**name) {
                join(&mut message[name.as_str()], value);
            } else if message.get(name).is_none() {
                message[name.as_str()] = value.clone();
            }
        }
    }

    /// The answer so far.
    #[must_use]
    pub(super) fn finish(mut self) -> Value {
        if self.answer.is_empty() {
            return json!({});
        }
        self.answer.insert("object".to_owned(), "chat.completion".into());
        let choices = self.choices.into_iter().map(|mut choice| {
            if let Some(message) = choice.get_mut("message").and_then(Value::as_object_mut) {
                finish(message);
            }
            Value::Object(choice)
        });
        self.answer.insert("choices".to_owned(), choices.collect());
        Value::Object(self.answer)
    }
}

/// A plain completion in the making.
#[derive(Debug, Default)]
pub(super) struct Texts {
    answer: Map<String, Value>,
    choices: Vec<Value>,
}

impl Texts {
    /// Adds a chunk.
    pub(super) fn add(&mut self, chunk: &Value) {
        for (name, value) in chunk.as_object().into_iter().flatten() {
            if name == "usage" {
                self.answer.insert(name.clone(), value.clone());
            } else if name != "choices" {
                self.answer.entry(name.clone()).or_insert_with(|| value.clone());
            }
        }
        for choice in chunk["choices"].as_array().into_iter().flatten() {
            match self.choices.iter_mut().find(|known| known["index"] == choice["index"]) {
                None => self.choices.push(choice.clone()),
                Some(known) => {
                    join(&mut known["text"], &choice["text"]);
                    if let Some(reason) = choice.get("finish_reason") {
                        known["finish_reason"] = reason.clone();
                    }
                }
            }
        }
    }

    /// The answer so far.
    #[must_use]
    pub(super) fn finish(mut self) -> Value {
        if !self.answer.is_empty() {
            self.answer.insert("choices".to_owned(), Value::Array(self.choices));
        }
        Value::Object(self.answer)
    }
}

/// Takes off a message what only deltas have.
fn finish(message: &mut Map<String, Value>) {
    let Some(calls) = message.get_mut("tool_calls").and_then(Value::as_array_mut) else { return };
    for call in calls.iter_mut().filter_map(Value::as_object_mut) {
        call.shift_remove("index");
    }
    // An unstreamed answer of calls alone has no content; a stream begins with an empty text all the same.
    if message.get("content").and_then(Value::as_str) == Some("") {
        message.shift_remove("content");
    }
}

fn entry<'a>(object: &'a mut Map<String, Value>, name: &str, fresh: Value) -> &'a mut Value {
    object.entry(name.to_owned()).or_insert(fresh)
}

fn push(array: &mut Value, item: Value) {
    match array {
        Value::Array(items) => items.push(item),
        other => *other = Value::Array(vec![item]),
    }
}

fn join(text: &mut Value, more: &Value) {
    match (&mut *text, more) {
        (Value::String(text), Value::String(more)) => text.push_str(more),
        (_, more) => *text = more.clone(),
    }
}

fn tool_call(calls: &mut Value, delta: &Value) {
    let index = &delta["index"];
    let known = calls.as_array().and_then(|calls| calls.iter().position(|call| call["index"] == *index));
    let Some(known) = known else { return push(calls, delta.clone()) };
    let call = &mut calls[known];
    // As the common accumulators do: every text is joined, so that a repeated id or name shows.
    for name in ["id", "type"] {
        if let Some(more) = delta.get(name) {
            join(&mut call[name], more);
        }
    }
    for name in ["name", "arguments"] {
        if let Some(more) = delta["function"].get(name) {
            join(&mut call["function"][name], more);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fold(chunks: &[Value]) -> Value {
        let mut fold = Fold::default();
        for chunk in chunks {
            fold.add(chunk);
        }
        fold.finish()
    }

    #[test]
    fn texts_are_joined_and_the_shape_is_that_of_an_unstreamed_answer() {
        let folded = fold(&[
            json!({"id": "1", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}),
            json!({"id": "1", "choices": [{"index": 0, "delta": {"content": "Hel"}}]}),
            json!({"id": "1", "choices": [{"index": 0, "delta": {"content": "lo", "reasoning": "hm"}}]}),
            json!({"id": "1", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}),
            json!({"id": "1", "choices": [], "usage": {"total_tokens": 3}}),
        ]);
        assert_eq!(
            folded,
            json!({
                "id": "1", "object": "chat.completion", "usage": {"total_tokens": 3},
                "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hello", "reasoning": "hm"}}]
            })
        );
    }

    #[test]
    fn pieces_of_a_tool_call_are_joined_by_index() {
        let folded = fold(&[
            json!({"id": "1", "choices": [{"index": 0, "delta": {"role": "assistant", "content": "", "tool_calls": [{"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": "{"}}]}}]}),
            json!({"id": "1", "choices": [{"index": 0, "delta": {"tool_calls": [{"index": 1, "id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}}, {"index": 0, "function": {"arguments": "}"}}]}}]}),
        ]);
        assert_eq!(
            folded["choices"][0]["message"],
            json!({"role": "assistant", "tool_calls": [
                {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}},
                {"id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
            ]})
        );
    }

    #[test]
    fn token_probabilities_are_strung_together() {
        let folded = fold(&[
            json!({"id": "1", "choices": [{"index": 0, "delta": {}, "logprobs": {"content": [{"token": "a"}]}}]}),
            json!({"id": "1", "choices": [{"index": 0, "delta": {}, "logprobs": {"content": [{"token": "b"}]}}]}),
        ]);
        assert_eq!(folded["choices"][0]["logprobs"], json!({"content": [{"token": "a"}, {"token": "b"}]}));
    }

    #[test]
    fn pieces_of_a_text_are_joined_by_index() {
        let mut fold = Texts::default();
        for chunk in [
            json!({"id": "1", "choices": [{"index": 0, "text": "Hel"}, {"index": 1, "text": "a"}]}),
            json!({"id": "2", "choices": [{"index": 0, "text": "lo", "finish_reason": "stop"}]}),
        ] {
            fold.add(&chunk);
        }
        let choices = json!([{"index": 0, "text": "Hello", "finish_reason": "stop"}, {"index": 1, "text": "a"}]);
        assert_eq!(fold.finish(), json!({"id": "1", "choices": choices}));
    }

    #[test]
    fn no_chunk_is_an_empty_answer() {
        assert_eq!(fold(&[]), json!({}));
    }
}
