//! How a vector of completions is checked. `upstream.json` is the list of asks, and `reply.json` that of their answers.

use async_openai::types::completions::CreateCompletionResponse;
use bytes::Bytes;
use serde_json::value::RawValue;

use super::{stream::Completions, translate, wire::Request};
use crate::{
    ollama::{client::encode, generate::GenerateReply},
    openai::{json::Json, sse::Feed},
    vectors::{Case, stamp},
};

pub(crate) fn check(case: &mut Case) {
    let json = Json::from(case.input("client.json").unwrap());
    let mut ignored = Vec::new();
    let translated = json.fields().and_then(|fields| Request::read(fields, &mut ignored)).and_then(|request| {
        let facts = request.facts();
        Ok((facts, encode(&translate::requests(request, false)?)?))
    });
    let facts = match translated {
        Ok((facts, asks)) => {
            case.json("upstream.json", &serde_json::from_slice::<&RawValue>(&asks).unwrap());
            facts
        }
        Err(error) => return case.refusal(&error),
    };
    if !ignored.is_empty() {
        case.json("ignored.json", &ignored);
    }
    if let Some(lines) = case.input("upstream.ndjson") {
        let mut feed = Feed::new(Completions::new(stamp("cmpl-"), facts.clone()));
        // What went wrong stands in the frames.
        let _ = feed.packet(Bytes::from(lines)).and_then(|()| feed.eof());
        let text = String::from_utf8(feed.frames.take().to_vec()).unwrap();
        for data in text.split("\n\n").filter_map(|event| event.strip_prefix("data: ")) {
            if data != "[DONE]" && !data.starts_with("{\"error\"") {
                case.read_by::<CreateCompletionResponse>(data);
            }
        }
        case.output("client.sse", &text);
    }
    if let Some(replies) = case.input("reply.json") {
        let replies: Vec<GenerateReply<'_>> = serde_json::from_slice(&replies).unwrap();
        let stamp = stamp("cmpl-");
        match translate::response(&stamp, &facts, replies) {
            Ok(answer) => {
                case.read_by::<CreateCompletionResponse>(&serde_json::to_string(&answer).unwrap());
                case.json("answer.json", &answer);
            }
            Err(error) => case.refusal(&error),
        }
    }
}
