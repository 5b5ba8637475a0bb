//! The order of a chat's chunks, or of a legacy completion's.

use std::collections::HashMap;

use serde_json::Value;

use super::{Breach, breach, shorten, usage_sum};

/// One role, one finish for each choice, one usage at the end, one ending of two kinds.
pub(super) fn breaches(chunks: &[Value], done: bool) -> Vec<Breach> {
    let mut breaches = Vec::new();
    let is_error = |chunk: &&Value| chunk.get("error").is_some();
    let errors = chunks.iter().filter(is_error).count();
    match (done, errors) {
        (true, 0) | (false, 1) => {}
        (true, _) => {
            breaches.push(breach("no-done-after-error", "this one has an error and [DONE]"));
        }
        (false, 0) => breaches.push(breach("ending", format!("closed after {} events without it", chunks.len()))),
        (false, many) => breaches.push(breach("one-error", format!("this one has {many} errors"))),
    }
    if errors > 0 && chunks.last().is_some_and(|chunk| chunk.get("error").is_none()) {
        breaches.push(breach("error-last", "a chunk did"));
    }
    let chunks: Vec<_> = chunks.iter().filter(|chunk| !is_error(chunk)).collect();
    for (name, law) in [("id", "same-id"), ("created", "same-created"), ("model", "same-model")] {
        if let Some(other) = chunks.iter().find(|chunk| chunk[name] != chunks[0][name]) {
            let (first, other) = (&chunks[0][name], &other[name]);
            breaches.push(breach(law, format!("there are {first} and {other}")));
        }
    }
    if let Some(at) = chunks.iter().position(|chunk| chunk["choices"].as_array().is_some_and(Vec::is_empty))
        && at + 1 != chunks.len()
    {
        breaches.push(breach("usage-last", "chunks follow it"));
    }
    let sums = chunks.iter().filter_map(|chunk| usage_sum(&chunk["usage"], ["prompt_tokens", "completion_tokens"]));
    breaches.extend(sums.take(1));
    let mut choices: HashMap<String, Choice> = HashMap::new();
    for choice in chunks.iter().flat_map(|chunk| chunk["choices"].as_array().into_iter().flatten()) {
        choices.entry(choice["index"].to_string()).or_default().add(choice, &mut breaches);
    }
    for (index, choice) in choices {
        if done && !choice.finished {
            breaches.push(breach("finish", format!("choice {index} has none")));
        }
        // Without an error the stream did not fail; its end is missing, which is one defect.
        if !done && errors > 0 && choice.finished {
            breaches.push(breach("no-finish-when-failed", format!("choice {index} has one")));
        }
    }
    breaches
}

#[derive(Default)]
struct Choice {
    begun: bool,
    finished: bool,
    calls: u64,
}

impl Choice {
    fn add(&mut self, choice: &Value, breaches: &mut Vec<Breach>) {
        let delta = &choice["delta"];
        if self.finished {
            // Some servers send their usage so; no client is hurt by a delta that says nothing.
            let is_empty = |part: &Value| part.as_object().is_none_or(|fields| fields.values().all(Value::is_null));
            let nothing = is_empty(delta)
                && choice["text"].as_str().is_none_or(str::is_empty)
                && choice["finish_reason"].is_null();
            let law = if nothing { "finish-last-at-all" } else { "finish-last" };
            breaches.push(breach(law, format!("this did: {}", shorten(&choice.to_string()))));
        }
        // The legacy completions have no roles.
        if delta.is_object() && delta.get("role").is_some() == self.begun {
            breaches.push(if self.begun {
                breach("role-once", "it came again")
            } else {
                breach("role-first", "it is not there")
            });
        }
        if let Some(role) = delta.get("role").filter(|role| **role != "assistant") {
            breaches.push(breach("role-assistant", format!("it is {role}")));
        }
        self.begun = true;
        for call in delta["tool_calls"].as_array().into_iter().flatten() {
            match call["index"].as_u64() {
                Some(index) if index == self.calls => {
                    self.calls += 1;
                    if call["id"].as_str().is_none_or(str::is_empty) || call["function"]["name"].as_str().is_none() {
                        breaches.push(breach("call-begins", format!("this has not: {}", shorten(&call.to_string()))));
                    }
                }
                Some(index) if index < self.calls => {
                    if call.get("id").is_some() || call["function"].get("name").is_some() {
                        breaches.push(breach("call-continues", format!("this does: {}", shorten(&call.to_string()))));
                    }
                }
                _ => breaches.push(breach("call-numbers", format!("there is {}", shorten(&call.to_string())))),
            }
        }
        self.finished |= choice["finish_reason"].is_string();
    }
}
