//! Work that must grow in proportion to what a client or the remote sends: one row for each thing whose number they
//! choose.
//!
//! `cargo xtask linear` counts the instructions of each row at n, 2n and 4n. A search within a loop shows as a factor
//! of four.

use std::{hint::black_box, sync::Arc};

use bytes::Bytes;
use futures_util::FutureExt;
use http::HeaderValue;
use serde_json::{Value, json};

use crate::{
    anthropic,
    config::{Config, Limits},
    gate::Owner,
    ollama::wire::ChatReply,
    openai::{
        audio, chat, completions, embeddings, moderations,
        request::{image_urls, json::Json, parameters::Endpoint},
        response::sse::{Feed, Translator},
        responses,
        tools::Numbering,
        upstream_request::prepare::Context,
    },
    receipt::Receipt,
    redact::masked,
    store::Store,
    vectors::stamp,
};

/// A row: what grows, and the work for `n` of it.
type Row = (&'static str, fn(usize));

const ROWS: &[Row] = &[
    ("fields of a chat", |n| chat(&json!({}), &names(n, "unknown"))),
    ("options of a chat", |n| chat(&json!({"options": names(n, "option")}), &json!({}))),
    ("stop strings in options", |n| {
        chat(&json!({"options": {"stop": list(n, |n| format!("s{n}").into())}}), &json!({}));
    }),
    ("metadata of a chat", |n| chat(&json!({"metadata": names(n, "key")}), &json!({}))),
    ("messages", |n| {
        chat(
            &json!({"messages": list(n, |n| json!({"role": "user", "content": format!("m{n}"), "x": n}))}),
            &json!({}),
        );
    }),
    ("content parts", |n| {
        chat(
            &json!({"messages": [{"role": "user", "content": list(n, |n| json!({"type": "text", "text": format!("m{n}")}))}]}),
            &json!({}),
        );
    }),
    ("calls and their results", |n| chat(&json!({"messages": calls(n)}), &json!({}))),
    ("tools", |n| chat(&json!({"tools": list(n, tool)}), &json!({}))),
    ("tools, one of which must be called", |n| {
        chat(&json!({"tools": list(n, tool), "tool_choice": "required"}), &json!({}));
    }),
    ("tools that are allowed", |n| {
        let allowed = list(n, |n| json!({"type": "function", "function": {"name": format!("f{n}")}}));
        let choice = json!({"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": allowed}});
        chat(&json!({"tools": list(n, tool), "tool_choice": choice}), &json!({}));
    }),
    ("image URLs", |n| {
        let parts =
            list(n, |n| json!({"type": "image_url", "image_url": {"url": format!("https://a.example/{n}.png")}}));
        let json = body(&json!({"model": "m", "messages": [{"role": "user", "content": parts}]}));
        black_box(image_urls::stand_in(&json));
    }),
    ("prompts", |n| {
        let json = body(&json!({"model": "m", "prompt": list(n.min(2048), |n| format!("p{n}").into()), "seed": 1}));
        black_box(completions::prepare(&json, &context()).unwrap().asks.len());
    }),
    ("inputs to embed", |n| {
        let json = body(&json!({"model": "m", "input": list(n.min(2048), |n| format!("p{n}").into())}));
        black_box(embeddings::prepare(&json, &context()).unwrap().asks.len());
    }),
    ("inputs to judge", |n| {
        let json = body(&json!({"model": "m", "input": list(n.min(2048), |n| format!("p{n}").into())}));
        black_box(moderations::explain(&json, &context()).unwrap().0.asks.len());
    }),
    ("keywords of a recording", |n| {
        let keywords = list(n, |n| format!("k{n}").into());
        let json = body(&json!({"model": "m", "file": "QUJD", "keywords": keywords}));
        black_box(audio::prepare(&json, &context(), Endpoint::Transcriptions).unwrap().0.len());
    }),
    ("fields of a response", |n| response(&json!({"input": "a"}), &names(n, "unknown"))),
    ("items", |n| {
        response(&json!({"input": list(n, |n| json!({"role": "user", "content": format!("m{n}")}))}), &json!({}));
    }),
    ("call items", |n| {
        let call = |n| json!({"type": "function_call", "call_id": format!("c{n}"), "name": "f", "arguments": "{}"});
        let output = |n| json!({"type": "function_call_output", "call_id": format!("c{n}"), "output": "a"});
        let items: Vec<Value> = (0..n).map(call).chain((0..n).map(output)).collect();
        response(&json!({"input": items}), &json!({}));
    }),
    ("tools of a response, in a namespace", |n| {
        let tools = list(n, |n| json!({"type": "function", "name": format!("f{n}"), "parameters": {"type": "object"}}));
        let namespace = json!({"type": "namespace", "name": "x", "description": "", "tools": tools});
        let choice = list(n, |_| json!({"type": "namespace", "name": "x"}));
        let choice = json!({"type": "allowed_tools", "mode": "auto", "tools": choice});
        response(&json!({"input": "a", "tools": [namespace], "tool_choice": choice}), &json!({}));
    }),
    ("stored items that are referred to", |n| {
        let store = Store::new(&Config::default(), Arc::default(), None);
        let stored = store.put(responses::stored::tests::response_of(n)).now_or_never().unwrap();
        assert!(stored.unwrap());
        let items = list(n, |nth| json!({"type": "item_reference", "id": format!("item_{nth}")}));
        let needs = responses::needs(&body(&json!({"model": "m", "input": items})));
        let fetched = needs.fetch(&store, None, Owner::default()).now_or_never().unwrap().unwrap();
        assert_eq!(fetched.found().unwrap().len(), n);
    }),
    ("blocks of a message", |n| {
        message(
            &json!({"messages": [{"role": "user", "content": list(n, |n| json!({"type": "text", "text": format!("m{n}"), "x": n}))}]}),
        );
    }),
    ("calls of messages and their results", |n| {
        let call = |n| json!({"type": "tool_use", "id": format!("c{n}"), "name": "f", "input": {}});
        let result = |n| json!({"type": "tool_result", "tool_use_id": format!("c{n}"), "content": "a"});
        let turn = |role: &str, blocks: Value| json!({"role": role, "content": blocks});
        message(&json!({"messages": [turn("assistant", list(n, call)), turn("user", list(n, result))]}));
    }),
    ("tools of a message", |n| {
        let tools = list(n, |n| json!({"name": format!("f{n}"), "input_schema": {"type": "object"}}));
        message(&json!({"tools": tools, "tool_choice": {"type": "any"}}));
    }),
    ("calls in an answer", |n| {
        let call = |n| json!({"id": format!("c{n}"), "function": {"name": "f", "arguments": {}}});
        let line = json!({"message": {"content": "", "tool_calls": list(n, call)}, "done": false});
        stream(&format!("{line}\n"));
    }),
    ("calls with the same id", |n| {
        let mut numbering = Numbering::new("0123456789abcdef0123456789abcdef");
        for _ in 0..n {
            let call = serde_json::from_str(r#"{"id":"c","function":{"name":"f"}}"#).unwrap();
            black_box(numbering.next(call));
        }
    }),
    ("lines of a stream", |n| {
        let line = json!({"message": {"content": "word "}, "done": false});
        stream(&format!("{line}\n").repeat(n));
    }),
    ("one line in many packets", |n| {
        let line = json!({"message": {"content": "word ".repeat(n)}, "done": false});
        let mut feed = Feed::new(chat::stream_of_one(&stamp("chatcmpl-")));
        for packet in format!("{line}\n").into_bytes().chunks(64) {
            feed.packet(Bytes::copy_from_slice(packet)).unwrap();
        }
        assert!(!feed.frames.take().is_empty());
    }),
    ("alternatives to a token", |n| {
        let token = |n| json!({"token": format!("t{n}"), "logprob": -1.5});
        let mut token = token(0);
        token["top_logprobs"] = list(n, |n| json!({"token": format!("t{n}"), "logprob": -1.5}));
        let text = json!([token]).to_string();
        let tokens = serde_json::from_str(&text).unwrap();
        black_box(completions::translate::logprobs(tokens, &mut 0));
    }),
    ("names in a receipt", |n| {
        let mut receipt = Receipt::default();
        (0..n).for_each(|n| receipt.no_effect(&format!("f{n}")));
        black_box(receipt.to_string());
    }),
    ("keys to mask", |n| {
        let keys: Vec<String> = (0..n).map(|n| format!("sk-{n:08}")).collect();
        black_box(masked(&keys.join(" "), &[HeaderValue::try_from(keys.join(",")).unwrap()]));
    }),
    ("parts of a form", |n| {
        let part = |n| format!("--x\r\nContent-Disposition: form-data; name=\"k{n}\"\r\n\r\n1\r\n");
        let form = (0..n).map(part).collect::<String>() + "--x--\r\n";
        let kind = HeaderValue::from_static("multipart/form-data; boundary=x");
        let json = Json::new(form.into_bytes(), &unlimited());
        let read = audio::form::read(Some(&kind), json);
        assert!(futures_util::FutureExt::now_or_never(read).unwrap().is_ok());
    }),
];

/// Of a proxy that has just begun.
fn context() -> Context<'static> {
    let (config, grown, recorder) = (Box::default(), Box::default(), Box::default());
    Context { config: Box::leak(config), grown: Box::leak(grown), recorder: Box::leak(recorder), target: None }
}

fn unlimited() -> Limits {
    Limits { fields: 0, ..Limits::default() }
}

fn body(json: &Value) -> Json {
    Json::new(json.to_string().into_bytes(), &unlimited())
}

fn list(n: usize, item: impl Fn(usize) -> Value) -> Value {
    (0..n).map(item).collect()
}

/// An object of `n` names.
fn names(n: usize, name: &str) -> Value {
    Value::Object((0..n).map(|n| (format!("{name}{n}"), n.into())).collect())
}

fn tool(n: usize) -> Value {
    json!({"type": "function", "function": {"name": format!("f{n}"), "parameters": {"type": "object", "properties": {}}}})
}

/// A message with `n` calls, and their results.
fn calls(n: usize) -> Value {
    let call = |n| json!({"id": format!("c{n}"), "type": "function", "function": {"name": "f", "arguments": "{}"}});
    let result = |n| json!({"role": "tool", "tool_call_id": format!("c{n}"), "content": "a"});
    let called = json!({"role": "assistant", "content": null, "tool_calls": list(n, call)});
    std::iter::once(called).chain((0..n).map(result)).collect()
}

fn joined(parts: &[&Value]) -> Value {
    let mut whole = json!({"model": "m"});
    for part in parts {
        for (name, value) in part.as_object().unwrap() {
            whole[name] = value.clone();
        }
    }
    whole
}

fn chat(own: &Value, more: &Value) {
    let messages = json!({"messages": [{"role": "user", "content": "a"}]});
    let json = body(&joined(&[&messages, own, more]));
    black_box(chat::prepare(&json, &context()).unwrap().asks.len());
}

/// Translates a message with `more`.
fn message(more: &Value) {
    let mut fields = json!({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "a"}]});
    fields.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    black_box(anthropic::prepare(&body(&fields), &context()).unwrap().asks.len());
}

fn response(own: &Value, more: &Value) {
    black_box(responses::explain(&body(&joined(&[own, more])), &Config::default()).unwrap().0.len());
}

fn stream(lines: &str) {
    let mut feed = Feed::new(chat::stream_of_one(&stamp("chatcmpl-")));
    feed.packet(Bytes::copy_from_slice(lines.as_bytes())).unwrap();
    assert!(!feed.translator().closed() && !feed.frames.take().is_empty());
    // Whole answers are numbered by the same code.
    black_box(serde_json::from_str::<ChatReply<'_>>(lines.lines().next().unwrap()).unwrap());
}

#[test]
fn every_row_does_its_work() {
    ROWS.iter().for_each(|(_, work)| work(20));
}

/// What `cargo xtask linear` runs under valgrind: one row. Without `FARLLAMA_COST` it prints the names of the rows.
#[test]
fn one_row() {
    match std::env::var("FARLLAMA_COST") {
        Err(_) => ROWS.iter().for_each(|(name, _)| println!("row: {name}")),
        Ok(wanted) => {
            let (n, wanted) = wanted.split_once(' ').unwrap();
            let (_, work) = ROWS.iter().find(|(name, _)| *name == wanted).unwrap();
            work(n.parse().unwrap());
        }
    }
}
