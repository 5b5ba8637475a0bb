//! The order of a chat's chunks, or of a legacy completion's.

use std::collections::HashMap;

use serde_json::Value;

use super::shorten;

/// One role, one finish for each choice, one usage at the end, one ending of two kinds.
pub(super) fn breaches(chunks: &[Value], done: bool) -> Vec<String> {
    let mut breaches = Vec::new();
    let is_error = |chunk: &&Value| chunk.get("error").is_some();
    let errors = chunks.iter().filter(is_error).count();
    match (done, errors) {
        (true, 0) | (false, 1) => {}
        (true, _) => {
            breaches.push("a stream that failed has no [DONE], but this one has an error and [DONE]".to_owned());
        }
        (false, 0) => breaches.push("a stream ends with [DONE] or an error, but this one just stops".to_owned()),
        (false, many) => breaches.push(format!("a stream fails once, but this one has {many} errors")),
    }
    if errors > 0 && chunks.last().is_some_and(|chunk| chunk.get("error").is_none()) {
        breaches.push("nothing follows an error, but a chunk did".to_owned());
    }
    let chunks: Vec<_> = chunks.iter().filter(|chunk| !is_error(chunk)).collect();
    for name in ["id", "created", "model"] {
        if let Some(other) = chunks.iter().find(|chunk| chunk[name] != chunks[0][name]) {
            let (first, other) = (&chunks[0][name], &other[name]);
            breaches.push(format!("`{name}` is the same in all chunks, but there are {first} and {other}"));
        }
    }
    if let Some(at) = chunks.iter().position(|chunk| chunk["choices"].as_array().is_some_and(Vec::is_empty))
        && at + 1 != chunks.len()
    {
        breaches.push("the usage chunk (without choices) is the last, but chunks follow it".to_owned());
    }
    let mut choices: HashMap<String, Choice> = HashMap::new();
    for choice in chunks.iter().flat_map(|chunk| chunk["choices"].as_array().into_iter().flatten()) {
        choices.entry(choice["index"].to_string()).or_default().add(choice, &mut breaches);
    }
    for (index, choice) in choices {
        if done && !choice.finished {
            breaches.push(format!("a finish_reason comes before [DONE], but choice {index} has none"));
        }
        if !done && choice.finished {
            breaches.push(format!("a stream that failed has no finish_reason, but choice {index} has one"));
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
    fn add(&mut self, choice: &Value, breaches: &mut Vec<String>) {
        let delta = &choice["delta"];
        if self.finished {
            breaches.push(format!(
                "nothing follows a choice's finish_reason, but this did: {}",
                shorten(&choice.to_string())
            ));
        }
        // The legacy completions have no roles.
        if delta.is_object() && delta.get("role").is_some() == self.begun {
            breaches.push(if self.begun {
                "the role comes in a choice's first chunk alone, but it came again".to_owned()
            } else {
                "the role comes in a choice's first chunk, but it is not there".to_owned()
            });
        }
        if let Some(role) = delta.get("role").filter(|role| **role != "assistant") {
            breaches.push(format!("the role is assistant, but it is {role}"));
        }
        self.begun = true;
        for call in delta["tool_calls"].as_array().into_iter().flatten() {
            match call["index"].as_u64() {
                Some(index) if index == self.calls => {
                    self.calls += 1;
                    if call["id"].as_str().is_none_or(str::is_empty) || call["function"]["name"].as_str().is_none() {
                        breaches.push(format!(
                            "the first piece of a tool call has an id and a name, but this has not: {call}"
                        ));
                    }
                }
                Some(index) if index < self.calls => {
                    if call.get("id").is_some() || call["function"].get("name").is_some() {
                        breaches.push(format!(
                            "later pieces of a tool call repeat neither id nor name, but this does: {call}"
                        ));
                    }
                }
                _ => breaches.push(format!("tool calls are numbered from 0 without gaps, but there is {call}")),
            }
        }
        self.finished |= choice["finish_reason"].is_string();
    }
}
