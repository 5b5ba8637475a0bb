//! How a vector of chat completions is checked.

use async_openai::types::chat::{CreateChatCompletionResponse, CreateChatCompletionStreamResponse};
use bytes::Bytes;

use super::{stream::Chat, translate, wire};
use crate::{
    ollama::{client::encode, wire::ChatReply},
    openai::{context::Policy, json::Json, receipt::Receipt, sse::Feed},
    vectors::{Case, stamp},
};

pub(crate) fn check(case: &mut Case) {
    let json = Json::from(case.input("client.json").unwrap());
    let mut receipt = Receipt::default();
    let request = json.fields().and_then(|fields| wire::Request::read(fields, &mut receipt));
    let translated = request.and_then(|request| {
        let facts = request.facts();
        Ok((facts, encode(&translate::request(request, &Policy::default())?)?))
    });
    let facts = match translated {
        Ok((facts, ask)) => {
            case.json("upstream.json", &serde_json::from_slice::<&serde_json::value::RawValue>(&ask).unwrap());
            facts
        }
        Err(error) => return case.refusal(&error),
    };
    if !receipt.is_empty() {
        case.output("receipt.txt", &format!("{receipt}\n"));
    }
    if let Some(lines) = case.input("upstream.ndjson") {
        let mut feed = Feed::new(Chat::new(stamp("chatcmpl-"), facts.clone()));
        // What went wrong stands in the frames.
        let _ = feed.packet(Bytes::from(lines)).and_then(|()| feed.eof());
        let late = feed.receipt();
        if !late.is_empty() {
            case.output("late-receipt.txt", &format!("{late}\n"));
        }
        let text = String::from_utf8(feed.frames.take().to_vec()).unwrap();
        for data in text.split("\n\n").filter_map(|event| event.strip_prefix("data: ")) {
            if data != "[DONE]" && !data.starts_with("{\"error\"") {
                case.read_by::<CreateChatCompletionStreamResponse>(data);
            }
        }
        case.output("client.sse", &text);
    }
    if let Some(reply) = case.input("reply.json") {
        let reply: ChatReply<'_> = serde_json::from_slice(&reply).unwrap();
        let stamp = stamp("chatcmpl-");
        let mut receipt = Receipt::default();
        match translate::response(&stamp, &facts, vec![reply], &mut receipt) {
            Ok(answer) => {
                case.read_by::<CreateChatCompletionResponse>(&serde_json::to_string(&answer).unwrap());
                case.json("answer.json", &answer);
            }
            Err(error) => case.refusal(&error),
        }
        if !receipt.is_empty() {
            case.output("late-receipt.txt", &format!("{receipt}\n"));
        }
    }
}
