//! The laws of the event grammar, held against any stream that Ollama may send.

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{items, request, socket::message, stored, translate};
use crate::{
    gate::Owner,
    openai::{
        arbitrary::{self, in_pieces, lines, wire},
        conversations,
        request::json::Json,
        response::sse::Feed,
        responses::{
            event_log::{EventLog, Place},
            request::{Facts, Request, Terms, tests::facts},
            stored::{Stored, StoredItem},
            stream::Answer,
        },
        upstream_request::context::Policy,
    },
    receipt::Receipt,
    vectors::stamp,
};

/// One of several kinds of requests.
fn request() -> impl Strategy<Value = Value> {
    let function = json!({"type": "function", "name": "f", "parameters": {"type": "object"}});
    let custom = json!({"type": "custom", "name": "c"});
    let space = json!({"type": "namespace", "name": "n", "description": "", "tools": [function.clone()]});
    let base = json!({"model": "m", "input": "hi", "stream": true});
    let with = move |more: Value| {
        let mut request = base.clone();
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        request
    };
    prop_oneof![
        Just(with(json!({}))),
        Just(with(
            json!({"include": ["reasoning.encrypted_content", "message.output_text.logprobs"], "metadata": {"a": "b"}})
        )),
        Just(with(json!({"tools": [function, custom, space]}))),
        Just(with(json!({"tools": [function], "parallel_tool_calls": false}))),
        Just(with(json!({"tools": [function], "tool_choice": "required"}))),
        Just(with(json!({"background": true}))),
        Just(with(json!({"tools": [function], "text": {"format": {"type": "json_object"}}}))),
    ]
}

fn feed(facts: Facts, packets: impl IntoIterator<Item = Vec<u8>>) -> Feed<Answer> {
    let mut feed = Feed::new(Answer::new(stamp("resp_"), facts));
    let fed = packets.into_iter().try_for_each(|packet| feed.packet(Bytes::from(packet)));
    let _ = fed.and_then(|()| feed.eof());
    feed
}

fn run(request: &Value, packets: impl IntoIterator<Item = Vec<u8>>) -> String {
    String::from_utf8(feed(facts(request), packets).frames.take().to_vec()).unwrap()
}

/// The object that an unstreamed request is answered with.
fn whole(request: &Value, lines: &[Value]) -> Value {
    let mut request = request.clone();
    request["stream"] = false.into();
    let mut feed = feed(facts(&request), [wire(lines)]);
    assert!(feed.frames.take().is_empty(), "no event is left");
    serde_json::to_value(feed.translator().response()).unwrap()
}

/// Folds events to the response, as a client does that believes nothing but what is new in each. Holds each event to
/// the grammar.
fn fold(text: &str) -> Value {
    let blocks: Vec<&str> = text.split_terminator("\n\n").collect();
    let (last, blocks) = blocks.split_last().unwrap();
    assert_eq!(*last, "data: [DONE]", "the last word");
    let mut response = Value::Null;
    let mut output: Vec<Value> = Vec::new();
    let mut open = None;
    for (n, block) in blocks.iter().enumerate() {
        let (kind, data) = block.strip_prefix("event: ").unwrap().split_once("\ndata: ").unwrap();
        let event: Value = serde_json::from_str(data).unwrap();
        let running = response["status"] == "in_progress" || response["status"] == "queued";
        assert!(running || n < 2, "nothing comes after the end: {kind}");
        assert_eq!((&event["type"], &event["sequence_number"]), (&json!(kind), &json!(n)), "dense from 0");
        let at = event["output_index"].as_u64().map(|at| usize::try_from(at).unwrap());
        if let Some(id) = event.get("item_id") {
            assert_eq!((open, at, id), (at, Some(output.len() - 1), &output.last().unwrap()["id"]), "of the open item");
        }
        let item = output.last_mut();
        match (kind, item) {
            ("response.created", _) => {
                assert_eq!(n, 0);
                response = event["response"].clone();
                assert_eq!((&response["output"], &response["usage"]), (&json!([]), &Value::Null));
            }
            ("response.queued", _) => assert_eq!((n, &response), (1, &event["response"])),
            ("response.in_progress", _) => {
                let queued = response["background"] == true;
                let before = if queued { (2, "queued") } else { (1, "in_progress") };
                assert_eq!((n, response["status"].as_str()), (before.0, Some(before.1)));
                response["status"] = "in_progress".into();
                assert_eq!(response, event["response"]);
            }
            ("response.output_item.added", _) => {
                assert_eq!((at, open.replace(output.len())), (Some(output.len()), None), "one item after the other");
                output.push(event["item"].clone());
            }
            ("response.output_item.done", Some(item)) => {
                assert_eq!(open.take(), at);
                let done = event["item"].clone();
                assert_ne!(done["status"], "in_progress");
                for key in ["status", "encrypted_content"] {
                    if let Some(value) = done.get(key) {
                        item[key] = value.clone();
                    }
                }
                assert_eq!(*item, done, "the finished item equals its events");
            }
            ("response.content_part.added", Some(item)) => {
                assert_eq!((&event["content_index"], &item["content"]), (&json!(0), &json!([])));
                item["content"] = json!([event["part"]]);
            }
            ("response.output_text.delta", Some(item)) => {
                let part = &mut item["content"][0];
                part["text"] = format!("{}{}", part["text"].as_str().unwrap(), event["delta"].as_str().unwrap()).into();
                let tokens = event["logprobs"].as_array().unwrap().clone();
                part["logprobs"].as_array_mut().unwrap().extend(tokens);
            }
            ("response.output_text.done", Some(item)) => {
                let part = &item["content"][0];
                assert_eq!((&part["text"], &part["logprobs"]), (&event["text"], &event["logprobs"]));
            }
            ("response.content_part.done", Some(item)) => assert_eq!(item["content"][0], event["part"]),
            ("response.reasoning_summary_part.added", Some(item)) => {
                assert_eq!((&event["summary_index"], &item["summary"]), (&json!(0), &json!([])));
                item["summary"] = json!([event["part"]]);
            }
            ("response.reasoning_summary_text.delta", Some(item)) => {
                let part = &mut item["summary"][0];
                part["text"] = format!("{}{}", part["text"].as_str().unwrap(), event["delta"].as_str().unwrap()).into();
            }
            ("response.reasoning_summary_text.done", Some(item)) => {
                assert_eq!(item["summary"][0]["text"], event["text"]);
            }
            ("response.reasoning_summary_part.done", Some(item)) => assert_eq!(item["summary"][0], event["part"]),
            ("response.function_call_arguments.delta" | "response.custom_tool_call_input.delta", Some(item)) => {
                let at = if kind.contains("custom") { "input" } else { "arguments" };
                item[at] = format!("{}{}", item[at].as_str().unwrap(), event["delta"].as_str().unwrap()).into();
            }
            ("response.function_call_arguments.done", Some(item)) => {
                assert_eq!((&item["arguments"], &item["name"]), (&event["arguments"], &event["name"]));
            }
            ("response.custom_tool_call_input.done", Some(item)) => assert_eq!(item["input"], event["input"]),
            ("response.completed" | "response.incomplete" | "response.failed", _) => {
                assert_eq!(open, None, "every item is closed");
                let end = &event["response"];
                assert_eq!(kind.strip_prefix("response."), end["status"].as_str());
                response["output"] = output.clone().into();
                for key in ["status", "completed_at", "usage", "error", "incomplete_details"] {
                    response[key] = end[key].clone();
                }
                assert_eq!(response, *end, "the last event equals the sum of the events");
            }
            (other, _) => panic!("no such event here: {other}"),
        }
    }
    assert!(response["status"] != "in_progress" && response["status"] != "queued", "there is an end");
    response
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
    fn words_and_thoughts_may_come_in_any_pieces(request in request(), lines in lines(), size in 1usize..4) {
        let pieces = in_pieces(&lines, size);
        prop_assert_eq!(fold(&run(&request, [wire(&pieces)])), whole(&request, &lines));
    }

    #[test]
    fn a_stream_ends_exactly_once_wherever_it_is_cut(request in request(), lines in lines(), at in 0usize..2000) {
        let mut bytes = wire(&lines);
        let (whole, at) = (bytes.len(), at.min(bytes.len()));
        bytes.truncate(at);
        let text = run(&request, [bytes]);
        let response = fold(&text);
        prop_assert_eq!(text.matches("event: response.completed").count()
            + text.matches("event: response.incomplete").count()
            + text.matches("event: response.failed").count(), 1);
        // Without its newline the last line is whole all the same.
        if at + 1 < whole {
            prop_assert_eq!(&response["status"], "failed");
            prop_assert_eq!(&response["error"]["code"], "server_error");
        }
    }

    #[test]
    fn whatever_comes_after_the_end_is_not_heard(request in request(), lines in lines(), more in lines()) {
        let (first, second) = (wire(&lines), wire(&more));
        prop_assert_eq!(run(&request, [first.clone(), second]), run(&request, [first]));
    }

    #[test]
    fn told_again_it_is_the_same_response(request in request(), lines in lines(), cut: bool, after in 0u64..40) {
        let mut bytes = wire(&lines);
        if cut {
            bytes.truncate(bytes.len() / 2);
        }
        let text = run(&request, [bytes.clone()]);
        let feed = feed(facts(&request), [bytes]);
        let record = stored::record(Owner::default(), feed.translator(), Vec::new()).unwrap();
        let restored = Answer::restore(&Stored::read(&record).unwrap()).unwrap();
        prop_assert_eq!(
            serde_json::to_string(&restored.response()).unwrap(),
            serde_json::to_string(&feed.translator().response()).unwrap()
        );
        let again = String::from_utf8(restored.replay(None).take().to_vec()).unwrap();
        prop_assert_eq!(fold(&again), fold(&text));
        let later = String::from_utf8(restored.replay(Some(after)).take().to_vec()).unwrap();
        let blocks: Vec<&str> = again.split_terminator("\n\n").collect();
        let from = usize::try_from(after + 1).unwrap().min(blocks.len() - 2);
        prop_assert_eq!(later.split_terminator("\n\n").collect::<Vec<_>>(), &blocks[from..]);
    }
}

/// What a WebSocket sends of these frames, written as the events of a stream.
fn over_a_websocket(frames: &str) -> String {
    let mut sent = String::new();
    for event in message::events(&Bytes::from(frames.to_owned())) {
        let message = message::in_lane(&event, Some("a")).unwrap();
        let mut value: Value = serde_json::from_str(&message).unwrap();
        assert_eq!(value.as_object_mut().unwrap().remove("stream_id"), Some(json!("a")));
        let kind = value["type"].as_str().unwrap();
        sent.push_str(&format!("event: {kind}\ndata: {}\n\n", message::in_lane(&event, None).unwrap()));
    }
    sent + "data: [DONE]\n\n"
}

/// Streams out of a log: one that is read while it is written, and one after each event and beyond the last one once
/// it has ended.
fn out_of_a_log(request: &Value, bytes: &[u8], size: usize) -> (String, Vec<String>) {
    let mut answer = Feed::new(Answer::new(stamp("resp_"), facts(request)));
    let (mut log, mut place, mut live) = (EventLog::default(), Place::after(None), String::new());
    let mut read = |log: &EventLog| {
        let (events, ended) = place.read(log);
        live.push_str(str::from_utf8(&events).unwrap());
        ended
    };
    for packet in bytes.chunks(size) {
        let _ = answer.packet(Bytes::copy_from_slice(packet));
        log.add(answer.frames.take(), answer.is_closed());
        assert!(!read(&log), "the end waits until the response is stored");
    }
    let _ = answer.eof();
    log.add(answer.frames.take(), answer.is_closed());
    log.end();
    assert!(read(&log));
    let count = live.matches("event: ").count() as u64;
    let resumed = (0..count + 2).map(|after| {
        let (events, ended) = Place::after(Some(after)).read(&log);
        assert!(ended);
        String::from_utf8(events.to_vec()).unwrap()
    });
    let resumed = resumed.collect();
    (live, resumed)
}

proptest! {
    /// The one law of all transports: whether its events come as a stream, on a WebSocket, out of the log of a response
    /// in the background or out of the store, and wherever a stream is taken up, a client folds the same object.
    #[test]
    fn every_transport_gives_the_same_object(
        request in request(), background: bool, lines in lines(), cut: bool, size in 1usize..200,
    ) {
        let mut request = request;
        request["background"] = background.into();
        let mut bytes = wire(&lines);
        if cut {
            bytes.truncate(bytes.len() / 2);
        }
        let streamed = run(&request, [bytes.clone()]);
        let object = fold(&streamed);
        prop_assert_eq!(&over_a_websocket(&streamed), &streamed);

        let (live, resumed) = out_of_a_log(&request, &bytes, size);
        prop_assert_eq!(&live, &streamed, "out of the log, while it is written");
        let blocks: Vec<&str> = streamed.split_inclusive("\n\n").collect();
        // The last event and `[DONE]` come in any case.
        let last = blocks.len() - 2;
        for (after, resumed) in resumed.iter().enumerate() {
            prop_assert_eq!(resumed, &blocks[(after + 1).min(last)..].concat(), "after {}", after);
            // So that what is known and what is taken up are the stream, and fold to the object.
            prop_assert_eq!(&(blocks[..(after + 1).min(last)].concat() + resumed), &streamed, "after {}", after);
        }

        let feed = feed(facts(&request), [bytes]);
        let record = stored::record(Owner::default(), feed.translator(), Vec::new()).unwrap();
        let restored = Answer::restore(&Stored::read(&record).unwrap()).unwrap();
        let replayed = |after| String::from_utf8(restored.replay(after).take().to_vec()).unwrap();
        let whole = replayed(None);
        prop_assert_eq!(&fold(&whole), &object, "out of the store");
        prop_assert_eq!(&over_a_websocket(&whole), &whole);
        let blocks: Vec<&str> = whole.split_inclusive("\n\n").collect();
        let last = blocks.len() - 2;
        for after in 0..blocks.len() {
            let resumed = replayed(Some(after as u64));
            prop_assert_eq!(&resumed, &blocks[(after + 1).min(last)..].concat(), "after {}", after);
        }
    }
}

proptest! {
    #[test]
    fn a_conversation_gets_what_the_events_have_sent(request in request(), lines in lines(), cut: bool) {
        let mut bytes = wire(&lines);
        if cut {
            bytes.truncate(bytes.len() / 2);
        }
        let mut feed = feed(facts(&request), [bytes]);
        let folded = fold(str::from_utf8(&feed.frames.take()).unwrap());
        let answer = feed.translator();
        prop_assert_eq!(answer.answered(), folded["status"] == "completed" || folded["status"] == "incomplete");
        let mut conversation = conversations::stored::Stored::new(0, serde_json::Map::new());
        let added = conversation.add(stored::outputs(answer).unwrap(), "0123").unwrap();
        let record = conversation.record(Owner::default(), "conv_1").unwrap();
        let values = |items: &[StoredItem]| -> Vec<Value> {
            items.iter().map(|item| serde_json::from_str(item.json.get()).unwrap()).collect()
        };
        prop_assert_eq!(&json!(values(&added)), &folded["output"]);
        prop_assert_eq!(&json!(values(&stored::items_of(&record).unwrap())), &folded["output"], "and gives it back");
        prop_assert_eq!(record.names.len(), added.len());
        // Sent again by a client, as what it goes on from, nothing is there twice.
        conversation.add(added.clone(), "4567").unwrap();
        prop_assert_eq!(conversation.into_items().len(), added.len());
    }
}

/// Any JSON, with a liking for the names and values that the API has.
fn any_json() -> impl Strategy<Value = Value> {
    const NAMES: &[&str] = &[
        "type",
        "role",
        "content",
        "text",
        "image_url",
        "id",
        "call_id",
        "name",
        "namespace",
        "arguments",
        "input",
        "output",
        "summary",
        "encrypted_content",
        "tools",
        "mode",
        "format",
        "schema",
        "effort",
        "parameters",
    ];
    const WORDS: &[&str] = &[
        "user",
        "assistant",
        "message",
        "reasoning",
        "function_call",
        "function_call_output",
        "custom_tool_call",
        "item_reference",
        "compaction",
        "function",
        "custom",
        "namespace",
        "allowed_tools",
        "web_search",
        "auto",
        "required",
        "input_text",
        "input_image",
        "input_file",
        "{}",
        "json_schema",
        "none",
    ];
    arbitrary::json(NAMES, WORDS)
}

proptest! {
    #[test]
    fn no_json_makes_the_translation_panic(
        value in any_json(),
        field in prop::sample::select(&["input", "tools", "tool_choice", "text", "reasoning", "include", "metadata", "truncation", "max_tool_calls", "stream_options", "instructions"][..]),
    ) {
        let mut body = json!({"model": "m", "input": [{"role": "user", "content": "hi"}]});
        body[field] = value;
        let json = Json::of_test(body.to_string().into_bytes());
        let (mut fields, mut receipt) = (json.fields().unwrap(), Receipt::default());
        let model = fields.need("model", &mut Vec::new()).unwrap();
        let Ok(input) = request::input(&mut fields) else { return Ok(()) };
        let Ok(request) = Request::read(model, fields, &[], Terms::default(), &mut receipt) else { return Ok(()) };
        if let Ok((ask, facts)) = translate::ask(request, "", std::iter::empty(), &input, Policy::default(), None, &mut receipt) {
            prop_assert!(serde_json::from_slice::<Value>(&ask.body).unwrap()["messages"].is_array());
            prop_assert!(serde_json::to_string(&Answer::new(stamp("resp_"), facts).response()).is_ok());
            // What was understood once is understood again, out of what is kept.
            for item in items::asked(&input, "0123").unwrap() {
                prop_assert!(!item.id.is_empty());
            }
        }
    }
}
