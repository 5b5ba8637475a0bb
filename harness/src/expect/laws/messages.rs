//! The order of the events of one of Anthropic's messages: it begins, its blocks come one after the other, and it ends
//! once.

use serde_json::Value;

use super::{Breach, breach, shorten};

/// The breaches of a message's events, by their text and their JSON.
pub(super) fn breaches(text: &str, events: &[Value]) -> Vec<Breach> {
    let mut breaches = Vec::new();
    let names: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
    let types: Vec<&str> = events.iter().map(kind).collect();
    if names != types {
        breaches.push(breach("event-names", "some are not"));
    }
    let events_but_pings: Vec<&Value> = events.iter().filter(|event| kind(event) != "ping").collect();
    // One that failed before it began is an error alone.
    let first = events_but_pings.first().map_or("", |event| kind(event));
    let starts = types.iter().filter(|kind| **kind == "message_start").count();
    if starts > 1 || !matches!(first, "message_start" | "error") {
        breaches.push(breach("message-begins", format!("this one begins with {first:?}, and begins {starts} times")));
    }
    let ends = types.iter().filter(|kind| matches!(**kind, "message_stop" | "error")).count();
    if ends != 1 || !matches!(events_but_pings.last().map_or("", |event| kind(event)), "message_stop" | "error") {
        breaches.push(breach("message-ends", format!("there are {ends} ends")));
    }
    let mut blocks = Blocks::default();
    events_but_pings.iter().for_each(|event| blocks.add(event, &mut breaches));
    if types.last() == Some(&"message_stop") {
        let deltas: Vec<&&Value> = events_but_pings.iter().filter(|event| kind(event) == "message_delta").collect();
        let reason = deltas.last().is_some_and(|event| event["delta"]["stop_reason"].is_string());
        let usage = deltas.last().is_some_and(|event| event["usage"]["output_tokens"].is_u64());
        if deltas.len() != 1 || !reason || !usage {
            breaches.push(breach("message-reason", format!("there are {} message_delta", deltas.len())));
        }
        if blocks.open.is_some() {
            breaches.push(breach("block-order", "the last one has no end"));
        }
    }
    breaches
}

fn kind(event: &Value) -> &str {
    event["type"].as_str().unwrap_or_default()
}

/// The blocks so far.
#[derive(Default)]
struct Blocks {
    begun: u64,
    /// The number and the type of the block that is open, and the JSON of its input.
    open: Option<(u64, String, String)>,
}

impl Blocks {
    fn add(&mut self, event: &Value, breaches: &mut Vec<Breach>) {
        let index = event["index"].as_u64();
        let mut wrong = |law| breaches.push(breach(law, format!("not so: {}", shorten(&event.to_string()))));
        match kind(event) {
            "content_block_start" => {
                if self.open.is_some() || index != Some(self.begun) {
                    wrong("block-order");
                }
                let block = event["content_block"]["type"].as_str().unwrap_or_default().to_owned();
                self.open = Some((self.begun, block, String::new()));
                self.begun += 1;
            }
            "content_block_delta" => {
                let Some((number, block, json)) = &mut self.open else { return wrong("block-order") };
                if index != Some(*number) {
                    wrong("block-order");
                }
                let delta = event["delta"]["type"].as_str().unwrap_or_default();
                json.push_str(event["delta"]["partial_json"].as_str().unwrap_or_default());
                let fits = match delta {
                    "text_delta" | "citations_delta" => block == "text",
                    "thinking_delta" | "signature_delta" => block == "thinking",
                    "input_json_delta" => block.ends_with("tool_use"),
                    _ => false,
                };
                if !fits {
                    wrong("block-deltas");
                }
            }
            "content_block_stop" => match self.open.take() {
                Some((number, _, json)) => {
                    if index != Some(number) {
                        wrong("block-order");
                    }
                    let whole = json.is_empty() || serde_json::from_str::<Value>(&json).is_ok();
                    if !whole {
                        breaches.push(breach("block-input", format!("this one is not: {}", shorten(&json))));
                    }
                }
                None => wrong("block-order"),
            },
            "message_delta" | "message_stop" if self.open.is_some() => wrong("block-order"),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Laws, breaches};

    fn event(kind: &str, rest: &str) -> String {
        let comma = if rest.is_empty() { "" } else { "," };
        format!("event: {kind}\ndata: {{\"type\":\"{kind}\"{comma}{rest}}}\n\n")
    }

    fn found(events: &[String]) -> Vec<&'static str> {
        breaches(events.concat().as_bytes(), &Laws::default()).iter().map(|breach| breach.law).collect()
    }

    #[test]
    fn a_proper_message_breaks_no_law_and_each_defect_breaks_its_own() {
        let start = || event("message_start", r#""message":{"type":"message","content":[]}"#);
        let block = |n: u8, kind: &str| {
            event("content_block_start", &format!(r#""index":{n},"content_block":{{"type":"{kind}"}}"#))
        };
        let delta = |n: u8, kind: &str, field: &str, text: &str| {
            event("content_block_delta", &format!(r#""index":{n},"delta":{{"type":"{kind}","{field}":"{text}"}}"#))
        };
        let stop = |n: u8| event("content_block_stop", &format!(r#""index":{n}"#));
        let reason = || event("message_delta", r#""delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":1}"#);
        let (end, ping) = (|| event("message_stop", ""), || event("ping", ""));
        let error = || event("error", r#""error":{"type":"api_error","message":"x"}"#);
        let text = |n: u8| delta(n, "text_delta", "text", "a");
        let proper = vec![
            ping(),
            start(),
            block(0, "text"),
            text(0),
            stop(0),
            block(1, "tool_use"),
            delta(1, "input_json_delta", "partial_json", "{}"),
            stop(1),
            reason(),
            end(),
        ];
        assert_eq!(found(&proper), [""; 0]);
        assert_eq!(found(&[start(), block(0, "text"), text(0), error()]), [""; 0]);
        assert_eq!(found(&[ping(), error()]), [""; 0]);
        for (events, law) in [
            (vec![start(), start(), reason(), end()], "message-begins"),
            (vec![block(0, "text"), text(0), stop(0), reason(), end(), start()], "message-begins"),
            (vec![start(), reason()], "message-ends"),
            (vec![start(), reason(), end(), end()], "message-ends"),
            (vec![start(), reason(), end(), error()], "message-ends"),
            (vec![start(), end()], "message-reason"),
            (vec![start(), block(1, "text"), stop(1), reason(), end()], "block-order"),
            (vec![start(), block(0, "text"), block(1, "text"), stop(1), reason(), end()], "block-order"),
            (vec![start(), text(0), reason(), end()], "block-order"),
            (vec![start(), block(0, "text"), text(0), reason(), end()], "block-order"),
            (vec![start(), block(0, "thinking"), text(0), stop(0), reason(), end()], "block-deltas"),
            (
                vec![
                    start(),
                    block(0, "tool_use"),
                    delta(0, "input_json_delta", "partial_json", "{"),
                    stop(0),
                    reason(),
                    end(),
                ],
                "block-input",
            ),
            (vec![start(), reason(), end().replace("event: message_stop\n", "")], "event-names"),
        ] {
            let found = found(&events);
            assert!(found.contains(&law), "{law}: {found:?} {events:?}");
        }
    }
}
