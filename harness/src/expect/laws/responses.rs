//! The order of a response's events: numbered without a gap, named as they are, one end with everything that was sent.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Breach, breach, shorten, usage_sum};

const ENDS: [&str; 3] = ["response.completed", "response.incomplete", "response.failed"];

/// The breaches of a response's events, by their text and their JSON.
pub(super) fn breaches(text: &str, events: &[Value]) -> Vec<Breach> {
    let mut breaches = Vec::new();
    let names: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
    let types: Vec<&str> = events.iter().map(kind).collect();
    if names != types {
        breaches.push(breach("event-names", "some are not"));
    }
    let numbers: Vec<u64> = events.iter().filter_map(|event| event["sequence_number"].as_u64()).collect();
    let first = numbers.first().copied().unwrap_or_default();
    if numbers.len() != events.len() || !numbers.iter().copied().eq((first..).take(events.len())) {
        breaches.push(breach("event-numbers", format!("these are {numbers:?}")));
    }
    let ends = types.iter().filter(|kind| ENDS.contains(kind)).count();
    if ends != 1 || types.last().is_none_or(|kind| !ENDS.contains(kind)) {
        breaches.push(breach("one-end", format!("there are {ends} ends")));
    }
    for event in events {
        breaches.extend(end(event));
    }
    // A stream that resumes in the middle of a response has not shown what came before.
    if first == 0 {
        let mut sent = Sent::default();
        events.iter().for_each(|event| sent.add(event, &mut breaches));
        breaches.extend(sent.against(types.first().copied(), events.last().unwrap_or(&Value::Null)));
    }
    breaches
}

fn kind(event: &Value) -> &str {
    event["type"].as_str().unwrap_or_default()
}

/// What an event that ends a response says of it.
fn end(event: &Value) -> Vec<Breach> {
    let (kind, response) = (kind(event), &event["response"]);
    let mut breaches = Vec::new();
    // The API has no event for a canceled response: it ends as one that is incomplete.
    let canceled = kind == "response.incomplete" && response["status"] == "cancelled";
    if ENDS.contains(&kind) && !canceled && response["status"].as_str() != kind.strip_prefix("response.") {
        breaches.push(breach("end-status", format!("its status is {}", response["status"])));
    }
    if kind == "response.completed" && !response["usage"].is_object() {
        breaches.push(breach("end-usage", "this one has none"));
    }
    breaches.extend(usage_sum(&response["usage"], ["input_tokens", "output_tokens"]));
    breaches
}

/// What the events have sent so far.
#[derive(Default)]
struct Sent<'a> {
    /// The id of each item that was begun, in order.
    items: Vec<&'a Value>,
    /// The items that were done.
    done: Vec<&'a Value>,
    /// How many parts of one kind an item has.
    parts: BTreeMap<(&'static str, String), u64>,
    /// What the deltas of one kind, of one part of one item, add up to.
    texts: BTreeMap<(String, String), String>,
}

impl<'a> Sent<'a> {
    fn add(&mut self, event: &'a Value, breaches: &mut Vec<Breach>) {
        let kind = kind(event);
        let at = event["output_index"].as_u64().and_then(|at| usize::try_from(at).ok());
        match kind {
            "response.output_item.added" => {
                if at != Some(self.items.len()) {
                    breaches.push(breach(
                        "item-numbers",
                        format!("number {} is called {}", self.items.len(), event["output_index"]),
                    ));
                }
                self.items.push(&event["item"]["id"]);
            }
            "response.output_item.done" => self.done.push(&event["item"]),
            _ => {}
        }
        if let Some(id) = event.get("item_id")
            && at.and_then(|at| self.items.get(at)) != Some(&id)
        {
            breaches.push(breach("item-known", format!("not so: {}", brief(event))));
        }
        for index in ["content_index", "summary_index"] {
            let Some(number) = event[index].as_u64() else { continue };
            let parts = self.parts.entry((index, event["item_id"].to_string())).or_default();
            // One more than there are is there when it is added.
            let known = if kind.ends_with("part.added") { number == *parts } else { number < *parts };
            *parts += u64::from(kind.ends_with("part.added"));
            if !known {
                breaches.push(breach("item-numbers", format!("not so: {}", brief(event))));
            }
        }
        self.text(event, kind, breaches);
    }

    /// Pieces, and the text that they are pieces of.
    fn text(&mut self, event: &Value, kind: &str, breaches: &mut Vec<Breach>) {
        let part = |of: &str| {
            (of.to_owned(), format!("{} {} {}", event["item_id"], event["content_index"], event["summary_index"]))
        };
        if let (Some(of), Some(delta)) = (kind.strip_suffix(".delta"), event["delta"].as_str()) {
            self.texts.entry(part(of)).or_default().push_str(delta);
        } else if let Some(of) = kind.strip_suffix(".done") {
            let whole = ["text", "arguments", "input", "refusal"].iter().find_map(|name| event[*name].as_str());
            let Some(whole) = whole else { return };
            let pieces = self.texts.get(&part(of)).map_or("", String::as_str);
            if whole != pieces {
                breaches.push(breach("deltas", format!("{pieces:?} is not {whole:?}")));
            }
        }
    }

    fn against(&self, first: Option<&str>, end: &Value) -> Vec<Breach> {
        let mut breaches = Vec::new();
        if first != Some("response.created") {
            breaches.push(breach("created-first", format!("this one with {first:?}")));
        }
        let held: Vec<&Value> = end["response"]["output"].as_array().into_iter().flatten().collect();
        if self.done != held {
            breaches.push(breach("end-output", "this one does not"));
        }
        breaches
    }
}

fn brief(event: &Value) -> String {
    shorten(&event.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn stream() -> Vec<Value> {
        let item = json!({"id": "msg_1", "type": "message", "content": [{"type": "output_text", "text": "ab"}]});
        let at = json!({"item_id": "msg_1", "output_index": 0, "content_index": 0});
        let response = |status: &str, output: Value, usage: Value| json!({"object": "response", "status": status, "output": output, "usage": usage});
        let event = |kind: &str, more: &Value| {
            let mut event = json!({"type": kind});
            event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            event
        };
        let with = |name: &str, value: &str| {
            let mut at = at.clone();
            at[name] = value.into();
            at
        };
        let mut events = vec![
            event("response.created", &json!({"response": response("in_progress", json!([]), Value::Null)})),
            event("response.output_item.added", &json!({"output_index": 0, "item": {"id": "msg_1"}})),
            event("response.content_part.added", &with("part", "x")),
            event("response.output_text.delta", &with("delta", "a")),
            event("response.output_text.delta", &with("delta", "b")),
            event("response.output_text.done", &with("text", "ab")),
            event("response.content_part.done", &with("part", "x")),
            event("response.output_item.done", &json!({"output_index": 0, "item": item})),
            event("response.completed", &json!({"response": response("completed", json!([item]), json!({}))})),
        ];
        number(&mut events);
        events
    }

    fn number(events: &mut [Value]) {
        events.iter_mut().enumerate().for_each(|(n, event)| event["sequence_number"] = n.into());
    }

    fn found(events: &[Value]) -> Vec<Breach> {
        let text: String = events.iter().map(|event| format!("event: {}\ndata: {event}\n\n", kind(event))).collect();
        breaches(&text, events)
    }

    #[test]
    fn a_proper_response_breaks_no_law() {
        assert_eq!(found(&stream()), []);
        // Its second half, as a stream that resumes in the middle shows it.
        assert_eq!(found(&stream()[4..]), []);
    }

    #[test]
    fn each_way_to_break_a_response_is_reported() {
        let changed = |n: usize, pointer: &str, value: Value| {
            let mut events = stream();
            *events[n].pointer_mut(pointer).unwrap() = value;
            events
        };
        let without = |n: usize| {
            let mut events = stream();
            events.remove(n);
            number(&mut events);
            events
        };
        for (events, law) in [
            (changed(3, "/sequence_number", json!(4)), "event-numbers"),
            (without(0), "created-first"),
            (without(8), "one-end"),
            (stream().into_iter().chain(stream()).collect(), "one-end"),
            (without(4), "deltas"),
            (changed(3, "/delta", json!("c")), "deltas"),
            (changed(1, "/output_index", json!(1)), "item-numbers"),
            (changed(5, "/output_index", json!(1)), "item-known"),
            (changed(5, "/item_id", json!("msg_2")), "item-known"),
            (changed(2, "/content_index", json!(1)), "item-numbers"),
            (changed(4, "/content_index", json!(1)), "item-numbers"),
            (changed(8, "/response/output", json!([])), "end-output"),
            (changed(8, "/response/usage", Value::Null), "end-usage"),
            (
                changed(8, "/response/usage", json!({"input_tokens": 1, "output_tokens": 1, "total_tokens": 3})),
                "usage-sum",
            ),
            (changed(8, "/response/status", json!("incomplete")), "end-status"),
        ] {
            let found = found(&events);
            assert!(found.iter().any(|breach| breach.law == law), "{law}: {found:?}");
        }
        let text = "event: response.created\ndata: {}\n\nevent: other\ndata: {}\n\n";
        assert!(breaches(text, &stream()[..2])[0].law == "event-names");
    }
}
