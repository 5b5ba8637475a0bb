//! Any stream that Ollama may send to a chat: what the property tests of the endpoints over `POST /api/chat` are fed
//! with.

use proptest::prelude::*;
use serde_json::{Value, json};

/// Any line before the last one.
fn line() -> impl Strategy<Value = Value> {
    let text = "[a-c \u{e9}\u{2028}\"\\\\]{0,4}";
    let words = prop_oneof![
        4 => text.prop_map(|text| text),
        1 => Just(r#"{"name":"f","arguments":{"a":1}}"#.to_owned()),
        1 => Just(r#"{"answer":{"b":[]}}"#.to_owned()),
    ];
    let name = prop_oneof![Just("f"), Just("c"), Just("n__f"), Just("unknown")];
    let id = prop_oneof![Just(None), Just(Some("call_x")), Just(Some(""))];
    let call = (name, id).prop_map(|(name, id)| {
        let function = json!({"index": 0, "name": name, "arguments": {"input": "b", "a": [2.0]}});
        id.map_or(json!({"function": function}), |id| json!({"id": id, "function": function}))
    });
    let top = prop_oneof![Just(None), Just(Some(json!([{"token": "x", "logprob": -1}])))];
    let token = (text, top).prop_map(|(token, top)| {
        let mut token = json!({"token": token, "logprob": -0.5, "bytes": [97]});
        if let Some(top) = top {
            token["top_logprobs"] = top;
        }
        token
    });
    let (calls, tokens) = (prop::collection::vec(call, 0..3), prop::collection::vec(token, 0..2));
    (words, prop::option::of(text), calls, tokens).prop_map(|(content, thinking, calls, tokens)| {
        let mut message = json!({"role": "assistant", "content": content});
        if let Some(thinking) = thinking {
            message["thinking"] = thinking.into();
        }
        if !calls.is_empty() {
            message["tool_calls"] = calls.into();
        }
        let mut line = json!({"model": "m", "message": message, "done": false});
        if !tokens.is_empty() {
            line["logprobs"] = tokens.into();
        }
        line
    })
}

/// A whole stream: some lines, and the last one, which may hold words and calls too.
pub(crate) fn lines() -> impl Strategy<Value = Vec<Value>> {
    let reason = prop_oneof![Just("stop"), Just("length"), Just("load")];
    (prop::collection::vec(line(), 0..6), line(), reason).prop_map(|(mut lines, mut last, reason)| {
        last["done"] = true.into();
        last["done_reason"] = reason.into();
        last["prompt_eval_count"] = 7.into();
        last["eval_count"] = 3.into();
        lines.push(last);
        lines
    })
}

/// The lines with their texts and thoughts in pieces of `size` characters, a line for each; calls come whole.
pub(crate) fn in_pieces(lines: &[Value], size: usize) -> Vec<Value> {
    let pieces = |line: &Value| {
        let cut = |at: &str| -> Vec<String> {
            let text: Vec<char> = line["message"][at].as_str().unwrap_or_default().chars().collect();
            text.chunks(size).map(|piece| piece.iter().collect()).collect()
        };
        let piece = |at: &str, text: String| {
            let mut message = json!({"role": "assistant", "content": ""});
            message[at] = text.into();
            json!({"message": message, "done": false})
        };
        let mut pieces: Vec<Value> = cut("thinking").into_iter().map(|text| piece("thinking", text)).collect();
        pieces.extend(cut("content").into_iter().map(|text| piece("content", text)));
        let mut rest = line.clone();
        rest["message"]["content"] = "".into();
        rest["message"]["thinking"] = "".into();
        pieces.push(rest);
        pieces
    };
    lines.iter().flat_map(pieces).collect()
}

/// The lines as they cross the wire.
pub(crate) fn wire(lines: &[Value]) -> Vec<u8> {
    lines.iter().flat_map(|line| format!("{line}\n").into_bytes()).collect()
}

/// Any JSON, with a preference for the names and values of an API.
pub(crate) fn json(names: &'static [&'static str], words: &'static [&'static str]) -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "\\PC{0,5}".prop_map(Value::from),
        prop::sample::select(words).prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, move |inner| {
        let object = prop::collection::vec((prop::sample::select(names), inner.clone()), 0..5);
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(Value::from),
            object.prop_map(|fields| {
                fields
                    .into_iter()
                    .map(|(name, value)| (name.to_owned(), value))
                    .collect::<serde_json::Map<_, _>>()
                    .into()
            }),
        ]
    })
}
