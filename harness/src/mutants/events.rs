//! What is done to the events of a response.
//!
//! Where an event goes or comes, those after it are numbered anew: that something is missing must show by what it was.

use serde_json::Value;

use super::frame::{Act, Frame, Tamper};

/// Does something with each event of a response, and closes the gap in the numbers.
fn each(mut does: impl FnMut(Value) -> Vec<Value> + Send + 'static) -> Tamper {
    let mut next: Option<u64> = None;
    Box::new(move |frame| {
        let Some(frame) = frame else { return Vec::new() };
        let Some(event) = frame.document().filter(|event| event["sequence_number"].is_u64()) else {
            return vec![Act::Write(frame.0)];
        };
        let number = next.get_or_insert_with(|| event["sequence_number"].as_u64().unwrap_or_default());
        let written = does(event).into_iter().map(|mut event| {
            event["sequence_number"] = (*number).into();
            *number += 1;
            Act::Write(frame.with(&event).0)
        });
        written.collect()
    })
}

fn kind(event: &Value) -> &str {
    event["type"].as_str().unwrap_or_default()
}

fn is_end(event: &Value) -> bool {
    matches!(kind(event), "response.completed" | "response.incomplete" | "response.failed")
}

pub(super) fn misnamed() -> Tamper {
    Box::new(|frame| {
        let Some(Frame(bytes)) = frame else { return Vec::new() };
        let text = String::from_utf8_lossy(&bytes).replacen("event: response.", "event: ", 1);
        vec![Act::Write(text.into_bytes())]
    })
}

pub(super) fn created_missing() -> Tamper {
    each(|event| if kind(&event) == "response.created" { Vec::new() } else { vec![event] })
}

pub(super) fn end_missing() -> Tamper {
    each(|event| if is_end(&event) { Vec::new() } else { vec![event] })
}

pub(super) fn end_twice() -> Tamper {
    each(|event| if is_end(&event) { vec![event.clone(), event] } else { vec![event] })
}

pub(super) fn delta_missing() -> Tamper {
    let mut gone = false;
    each(move |event| {
        if !gone && kind(&event).ends_with(".delta") {
            gone = true;
            return Vec::new();
        }
        vec![event]
    })
}

/// The text in the deltas is another, and that which is done is not.
pub(super) fn delta_changed(event: &mut Value, _: usize) {
    if kind(event).ends_with(".delta")
        && let Some(delta) = event["delta"].as_str()
    {
        event["delta"] = format!("{delta} ").into();
    }
}

pub(super) fn number_gap(event: &mut Value, nth: usize) {
    if nth > 1 {
        shift(event, "sequence_number", 1);
    }
}

pub(super) fn number_twice(event: &mut Value, nth: usize) {
    if nth > 1 {
        shift(event, "sequence_number", -1);
    }
}

pub(super) fn output_index_wrong(event: &mut Value, _: usize) {
    shift(event, "output_index", 1);
}

pub(super) fn content_index_wrong(event: &mut Value, _: usize) {
    shift(event, "content_index", 1);
    shift(event, "summary_index", 1);
}

fn shift(event: &mut Value, name: &str, by: i64) {
    if let Some(number) = event.get(name).and_then(Value::as_i64) {
        event[name] = (number + by).into();
    }
}

pub(super) fn item_id_wrong(event: &mut Value, _: usize) {
    if event.get("item_id").is_some_and(Value::is_string) {
        event["item_id"] = "msg_other".into();
    }
}

/// A response, the whole answer or the one in its last event.
fn ended(document: &mut Value) -> Option<&mut Value> {
    if document["object"] == "response" {
        return Some(document);
    }
    if is_end(document) { document.get_mut("response") } else { None }
}

pub(super) fn output_wrong(document: &mut Value, _: usize) {
    if let Some(output) = ended(document).and_then(|response| response["output"].as_array_mut()) {
        output.pop();
    }
}

pub(super) fn usage_missing(document: &mut Value, _: usize) {
    if let Some(response) = ended(document).filter(|response| response["usage"].is_object()) {
        response["usage"] = Value::Null;
    }
}

pub(super) fn status_wrong(document: &mut Value, _: usize) {
    if let Some(response) = ended(document) {
        response["status"] = "in_progress".into();
    }
}

/// So well that only its length differs.
pub(super) fn incomplete_hidden() -> Tamper {
    Box::new(|frame| {
        let Some(frame) = frame else { return Vec::new() };
        let Some(mut event) = frame.document().filter(|event| kind(event) == "response.incomplete") else {
            return vec![Act::Write(frame.0)];
        };
        event["type"] = "response.completed".into();
        event["response"]["status"] = "completed".into();
        event["response"]["incomplete_details"] = Value::Null;
        let text = String::from_utf8_lossy(&frame.with(&event).0).replacen(".incomplete\n", ".completed\n", 1);
        vec![Act::Write(text.into_bytes())]
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn after(mut tamper: Tamper, events: &[Value]) -> Vec<Value> {
        let frame = |event: &Value| Frame(format!("event: {}\ndata: {event}\n\n", kind(event)).into_bytes());
        let acts = events.iter().flat_map(|event| tamper(Some(frame(event))));
        let written =
            acts.map(|act| if let Act::Write(bytes) = act { Frame(bytes).document().unwrap() } else { json!(0) });
        written.collect()
    }

    fn stream() -> Vec<Value> {
        let kinds =
            ["response.created", "response.output_text.delta", "response.output_text.delta", "response.completed"];
        kinds.iter().enumerate().map(|(n, kind)| json!({"type": kind, "sequence_number": n, "delta": "a"})).collect()
    }

    #[test]
    fn what_goes_or_comes_leaves_no_gap_in_the_numbers() {
        for (tamper, left) in [
            (created_missing(), vec![1, 2, 3]),
            (delta_missing(), vec![0, 2, 3]),
            (end_missing(), vec![0, 1, 2]),
            (end_twice(), vec![0, 1, 2, 3, 3]),
        ] {
            let reported = after(tamper, &stream());
            let kinds: Vec<_> = left.iter().map(|n: &usize| stream()[*n]["type"].clone()).collect();
            assert_eq!(reported.iter().map(|event| event["type"].clone()).collect::<Vec<_>>(), kinds);
            let numbers: Vec<_> = reported.iter().map(|event| event["sequence_number"].as_u64().unwrap()).collect();
            assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{numbers:?}");
        }
    }

    #[test]
    fn a_response_is_changed_whole_or_in_its_last_event() {
        let response = json!({"object": "response", "status": "completed", "usage": {}, "output": [1, 2]});
        let event = json!({"type": "response.completed", "response": response});
        for change in [output_wrong, usage_missing, status_wrong] {
            let (mut whole, mut last) = (response.clone(), event.clone());
            change(&mut whole, 0);
            change(&mut last, 0);
            assert_ne!(whole, response);
            assert_eq!(last["response"], whole);
        }
    }

    #[test]
    fn an_incomplete_end_is_reported_as_a_complete_one() {
        let end =
            json!({"type": "response.incomplete", "response": {"status": "incomplete", "incomplete_details": {}}});
        let reported = after(incomplete_hidden(), &[end]);
        assert_eq!(reported[0]["type"], "response.completed");
        assert_eq!(reported[0]["response"], json!({"status": "completed", "incomplete_details": null}));
    }
}
