//! The laws of the event grammar, checked on any stream that Ollama may send.

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    request::{Facts, For, Request},
    stream::Messages,
    translate,
};
use crate::{
    config::{Config, Tools},
    openai::{
        arbitrary::{self, in_pieces, lines, wire},
        request::json::Json,
        response::sse::Feed,
        upstream_request::context::Policy,
    },
    receipt::Receipt,
    sealed,
    vectors::stamp,
};

/// One of several kinds of requests.
fn request() -> impl Strategy<Value = Value> {
    let tool = json!({"name": "f", "input_schema": {"type": "object"}});
    let base = json!({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}], "stream": true});
    let with = move |more: Value| {
        let mut request = base.clone();
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        request
    };
    let format = json!({"format": {"type": "json_schema", "schema": {"type": "object"}}});
    prop_oneof![
        Just(with(json!({}))),
        Just(with(json!({"thinking": {"type": "adaptive"}}))),
        Just(with(
            json!({"thinking": {"type": "enabled", "budget_tokens": 1024, "display": "omitted"}, "tools": [tool]})
        )),
        Just(with(json!({"stop_sequences": ["ab", "c"], "thinking": {"type": "adaptive"}}))),
        Just(with(json!({"tools": [tool], "tool_choice": {"type": "auto", "disable_parallel_tool_use": true}}))),
        Just(with(json!({"tools": [tool], "tool_choice": {"type": "any"}, "stop_sequences": ["a"]}))),
        Just(with(json!({"tools": [tool], "output_config": format, "stop_sequences": ["[]"]}))),
    ]
}

fn facts(request: &Value) -> Facts {
    let json = Json::of_test(request.to_string().into_bytes());
    let mut receipt = Receipt::default();
    let request =
        Request::read(json.fields().unwrap(), For::Message, &Config::default(), &Tools::default(), &mut receipt)
            .unwrap();
    translate::ask(request, &Policy::default(), &mut receipt).unwrap().1
}

fn feed(facts: Facts, packets: impl IntoIterator<Item = Vec<u8>>) -> (Feed<Messages>, bool) {
    let mut feed = Feed::new(Messages::new(stamp("msg_"), facts, Some("req_1".to_owned())));
    let fed = packets.into_iter().try_for_each(|packet| feed.packet(Bytes::from(packet)));
    let failed = fed.and_then(|()| feed.eof()).is_err();
    (feed, failed)
}

fn run(request: &Value, packets: impl IntoIterator<Item = Vec<u8>>) -> String {
    String::from_utf8(feed(facts(request), packets).0.frames.take().to_vec()).unwrap()
}

/// The object that an unstreamed request is answered with. None: it is refused.
fn whole(request: &Value, lines: &[Value]) -> Option<Value> {
    let mut request = request.clone();
    request["stream"] = false.into();
    let (mut feed, failed) = feed(facts(&request), [wire(lines)]);
    let frames = feed.frames.take();
    assert!(failed || frames.is_empty(), "no client reads events");
    (!failed).then(|| serde_json::to_value(feed.translator().answer()).unwrap())
}

/// Folds events to the message, as the official clients do, and checks each event against the grammar. None: the stream
/// ends with an error.
fn fold(text: &str) -> Option<Value> {
    let mut message = Value::Null;
    let mut open: Option<(usize, String)> = None;
    let (mut ended, mut delta_seen) = (false, false);
    for block in text.split_terminator("\n\n") {
        let (kind, data) = block.strip_prefix("event: ").unwrap().split_once("\ndata: ").unwrap();
        let event: Value = serde_json::from_str(data).unwrap();
        assert_eq!(event["type"], kind);
        assert!(!ended, "nothing comes after the end: {kind}");
        assert_eq!(message.is_null(), kind == "message_start" || (kind == "error" && message.is_null()), "{kind}");
        match kind {
            "message_start" => {
                message = event["message"].clone();
                assert_eq!((&message["content"], &message["stop_reason"]), (&json!([]), &Value::Null));
            }
            "content_block_start" => {
                let content = message["content"].as_array_mut().unwrap();
                assert_eq!((event["index"].as_u64(), open.is_none()), (Some(content.len() as u64), true));
                open = Some((content.len(), String::new()));
                content.push(event["content_block"].clone());
            }
            "content_block_delta" => {
                let (index, json) = open.as_mut().unwrap();
                assert_eq!(event["index"].as_u64(), Some(*index as u64));
                let (block, delta) = (&mut message["content"][*index], &event["delta"]);
                let mut add = |field: &str| {
                    let text = format!("{}{}", block[field].as_str().unwrap(), delta[field].as_str().unwrap());
                    block[field] = text.into();
                };
                match delta["type"].as_str().unwrap() {
                    "text_delta" => add("text"),
                    "thinking_delta" => add("thinking"),
                    "signature_delta" => add("signature"),
                    "input_json_delta" => json.push_str(delta["partial_json"].as_str().unwrap()),
                    other => panic!("no such delta: {other}"),
                }
            }
            "content_block_stop" => {
                let (index, json) = open.take().unwrap();
                assert_eq!(event["index"].as_u64(), Some(index as u64));
                let block = &mut message["content"][index];
                match block["type"].as_str().unwrap() {
                    "tool_use" => block["input"] = serde_json::from_str(&json).unwrap_or(json!({})),
                    "text" => assert_ne!(block["text"], "", "an empty text is no block"),
                    "thinking" => {
                        let (thinking, signature) = (&block["thinking"], block["signature"].as_str().unwrap());
                        let own = sealed::check(signature, thinking.as_str().unwrap()) == Some(true);
                        assert!(own || (thinking == "" && sealed::open(signature).is_some()), "{block}");
                    }
                    other => panic!("no such block: {other}"),
                }
            }
            "message_delta" => {
                assert!(open.is_none() && !std::mem::replace(&mut delta_seen, true));
                for field in ["stop_reason", "stop_sequence"] {
                    message[field] = event["delta"][field].clone();
                }
                message["usage"] = event["usage"].clone();
            }
            "message_stop" => {
                assert!(delta_seen);
                ended = true;
            }
            "error" => return text.ends_with(&format!("{block}\n\n")).then_some(()).and(None),
            other => panic!("no such event: {other}"),
        }
    }
    assert!(ended, "there is an end");
    Some(message)
}

proptest! {
    #[test]
    fn folding_the_events_gives_exactly_the_unstreamed_object(request in request(), lines in lines()) {
        let folded = fold(&run(&request, [wire(&lines)]));
        prop_assert_eq!(folded, whole(&request, &lines));
    }

    #[test]
    fn any_packet_split_gives_the_same_stream(request in request(), lines in lines(), size in 1usize..40) {
        let bytes = wire(&lines);
        let packets: Vec<_> = bytes.chunks(size).map(<[u8]>::to_vec).collect();
        prop_assert_eq!(run(&request, packets), run(&request, [bytes]));
    }

    #[test]
    fn text_and_thoughts_may_come_in_any_pieces(request in request(), lines in lines(), size in 1usize..4) {
        let pieces = in_pieces(&lines, size);
        // One that ends at a stop sequence has an estimated usage, by the number of replies.
        let but_usage = |message: Option<Value>| message.map(|mut message| {
            if message["stop_reason"] == "stop_sequence" {
                message["usage"] = Value::Null;
            }
            message
        });
        prop_assert_eq!(but_usage(fold(&run(&request, [wire(&pieces)]))), but_usage(whole(&request, &lines)));
    }

    #[test]
    fn a_stream_ends_exactly_once_wherever_it_is_cut(request in request(), lines in lines(), at in 0usize..2000) {
        let mut bytes = wire(&lines);
        let (whole, at) = (bytes.len(), at.min(bytes.len()));
        bytes.truncate(at);
        let text = run(&request, [bytes]);
        let message = fold(&text);
        let ends = text.matches("event: message_stop").count() + text.matches("event: error").count();
        prop_assert_eq!(ends, 1);
        // Without its newline the last line is whole all the same.
        if at + 1 < whole && message.as_ref().is_none_or(|message| message["stop_reason"] != "stop_sequence") {
            prop_assert_eq!(message, None);
        }
    }

    #[test]
    fn nothing_that_comes_after_the_end_changes_anything(request in request(), lines in lines(), more in lines()) {
        let (first, second) = (wire(&lines), wire(&more));
        prop_assert_eq!(run(&request, [first.clone(), second]), run(&request, [first]));
    }
}

/// Any JSON, with a liking for the names and values that the API has.
fn any_json() -> impl Strategy<Value = Value> {
    const NAMES: &[&str] = &[
        "type",
        "role",
        "content",
        "text",
        "source",
        "data",
        "url",
        "media_type",
        "id",
        "name",
        "input",
        "tool_use_id",
        "is_error",
        "thinking",
        "signature",
        "title",
        "citations",
        "input_schema",
        "format",
        "schema",
        "effort",
        "properties",
    ];
    const WORDS: &[&str] = &[
        "user",
        "assistant",
        "system",
        "text",
        "image",
        "document",
        "search_result",
        "tool_use",
        "tool_result",
        "thinking",
        "redacted_thinking",
        "base64",
        "url",
        "content",
        "custom",
        "auto",
        "any",
        "tool",
        "none",
        "enabled",
        "adaptive",
        "disabled",
        "json_schema",
        "image/png",
        "application/pdf",
        "aGkh",
        "low",
        "object",
        "web_search_20250305",
    ];
    arbitrary::json(NAMES, WORDS)
}

proptest! {
    #[test]
    fn no_json_makes_the_translation_panic(
        value in any_json(),
        field in prop::sample::select(&["messages", "system", "tools", "tool_choice", "thinking", "output_config", "output_format", "stop_sequences", "max_tokens", "options"][..]),
        within: bool,
    ) {
        let mut body = json!({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]});
        match (field, within) {
            ("messages", true) => body["messages"] = json!([{"role": "user", "content": [value]}]),
            ("messages", false) => body["messages"] = json!([{"role": "assistant", "content": [value]}]),
            _ => body[field] = value,
        }
        let json = Json::of_test(body.to_string().into_bytes());
        let mut receipt = Receipt::default();
        let ask = json
            .fields()
            .and_then(|fields| Request::read(fields, For::Message, &Config::default(), &Tools::default(), &mut receipt))
            .and_then(|request| translate::ask(request, &Policy::default(), &mut receipt));
        match ask {
            Ok((ask, _)) => prop_assert!(serde_json::from_slice::<Value>(&ask.body).unwrap()["messages"].is_array()),
            Err(error) => prop_assert_eq!(error.row().status, 400),
        }
    }
}
