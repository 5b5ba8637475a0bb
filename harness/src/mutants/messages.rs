//! What is done to the events and the objects of Anthropic's messages.

use serde_json::Value;

use super::frame::{Act, Tamper};

fn kind(event: &Value) -> &str {
    event["type"].as_str().unwrap_or_default()
}

/// Writes those events that `stays` is true of, and everything else.
fn those(stays: fn(&Value) -> bool) -> Tamper {
    Box::new(move |frame| {
        let Some(frame) = frame else { return Vec::new() };
        match frame.document() {
            Some(event) if !stays(&event) => Vec::new(),
            _ => vec![Act::Write(frame.0)],
        }
    })
}

pub(super) fn end_missing() -> Tamper {
    those(|event| kind(event) != "message_stop")
}

pub(super) fn signature_missing() -> Tamper {
    those(|event| event["delta"]["type"] != "signature_delta")
}

pub(super) fn ping_missing() -> Tamper {
    those(|event| kind(event) != "ping")
}

/// The error within a stream becomes its regular end.
pub(super) fn error_hidden() -> Tamper {
    Box::new(|frame| {
        let Some(frame) = frame else { return Vec::new() };
        let error = frame.document().is_some_and(|event| kind(&event) == "error" && event["error"]["type"].is_string());
        if !error {
            return vec![Act::Write(frame.0)];
        }
        let end = "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\",\"stop_sequence\":null},\
                   \"usage\":{\"output_tokens\":1}}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
        vec![Act::Write(end.into())]
    })
}

/// What says how a message ended: the whole one, or the delta of its end.
fn end(document: &mut Value) -> Option<&mut Value> {
    match kind(document) {
        "message" => Some(document),
        "message_delta" => document.get_mut("delta"),
        _ => None,
    }
}

pub(super) fn stop_reason_wrong(document: &mut Value, _: usize) {
    if let Some(end) = end(document).filter(|end| end["stop_reason"].is_string()) {
        end["stop_reason"] = if end["stop_reason"] == "end_turn" { "max_tokens" } else { "end_turn" }.into();
    }
}

pub(super) fn stop_sequence_missing(document: &mut Value, _: usize) {
    if let Some(end) = end(document).filter(|end| end["stop_sequence"].is_string()) {
        end["stop_sequence"] = Value::Null;
    }
}

pub(super) fn usage_wrong(document: &mut Value, _: usize) {
    if matches!(kind(document), "message" | "message_delta")
        && let Some(tokens) = document["usage"]["input_tokens"].as_u64()
    {
        document["usage"]["input_tokens"] = (tokens + 1).into();
    }
}

pub(super) fn block_index_wrong(event: &mut Value, _: usize) {
    if kind(event).starts_with("content_block_")
        && let Some(index) = event["index"].as_u64()
    {
        event["index"] = (index + 1).into();
    }
}

/// The input of a call lacks its end.
pub(super) fn input_cut(event: &mut Value, _: usize) {
    if let Some(json) =
        event["delta"]["partial_json"].as_str().and_then(|json| json.get(..json.len().saturating_sub(1)))
    {
        event["delta"]["partial_json"] = json.to_owned().into();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::frame::Frame, *};

    fn after(mut tamper: Tamper, events: &[Value]) -> String {
        let frame = |event: &Value| Frame(format!("event: {}\ndata: {event}\n\n", kind(event)).into_bytes());
        let acts = events.iter().flat_map(|event| tamper(Some(frame(event))));
        acts.map(|act| if let Act::Write(bytes) = act { String::from_utf8(bytes).unwrap() } else { String::new() })
            .collect()
    }

    #[test]
    fn events_go_and_an_error_becomes_an_end() {
        let signature = json!({"type": "content_block_delta", "delta": {"type": "signature_delta"}});
        let all = [json!({"type": "ping"}), signature, json!({"type": "message_stop"})];
        for (tamper, gone) in
            [(end_missing(), "message_stop"), (signature_missing(), "signature"), (ping_missing(), "ping")]
        {
            let left = after(tamper, &all);
            assert!(!left.contains(gone) && left.matches("event: ").count() == 2, "{left}");
        }
        let hidden = after(error_hidden(), &[json!({"type": "error", "error": {"type": "api_error"}})]);
        assert!(hidden.ends_with("{\"type\":\"message_stop\"}\n\n") && !hidden.contains("api_error"), "{hidden}");
    }

    #[test]
    fn a_message_is_changed_whole_or_in_its_events() {
        let message = json!({"type": "message", "stop_reason": "stop_sequence", "stop_sequence": "x", "usage": {"input_tokens": 1}});
        let delta = json!({"type": "message_delta", "delta": {"stop_reason": "stop_sequence", "stop_sequence": "x"}, "usage": {"input_tokens": 1}});
        for change in [stop_reason_wrong, stop_sequence_missing, usage_wrong] {
            for document in [&message, &delta] {
                let mut changed = document.clone();
                change(&mut changed, 0);
                assert_ne!(changed, *document);
            }
        }
        let block = json!({"type": "content_block_delta", "index": 0, "delta": {"partial_json": "{}"}});
        for change in [block_index_wrong, input_cut] {
            let mut changed = block.clone();
            change(&mut changed, 0);
            assert_ne!(changed, block);
        }
    }
}
