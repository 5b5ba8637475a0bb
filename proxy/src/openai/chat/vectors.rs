//! How a vector of chat completions is checked.

use async_openai::types::chat::{CreateChatCompletionResponse, CreateChatCompletionStreamResponse};

use super::{translate, wire};
use crate::{
    ollama::wire::ChatReply,
    openai::{chat::stream::Chat, request::json::Json, upstream_request::context::Policy},
    receipt::Receipt,
    upstream::client::encode,
    vectors::{Case, stamp},
};

pub(crate) fn check(case: &mut Case) {
    let json = Json::of_test(case.input("client.json").unwrap());
    let mut receipt = Receipt::default();
    let settings = case.tools();
    let request = json.fields().and_then(|fields| wire::Request::read(fields, &settings, &mut receipt));
    let translated = request.and_then(|request| {
        let facts = request.facts();
        let native = translate::request(request, &Policy::default(), &mut receipt)?;
        Ok((facts, encode(&native)?))
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
    case.stream::<CreateChatCompletionStreamResponse>(Chat::new(&stamp("chatcmpl-"), facts.clone()));
    let replies = case.inputs("reply", "json");
    if !replies.is_empty() {
        let replies: Vec<ChatReply<'_>> = replies.iter().map(|reply| serde_json::from_slice(reply).unwrap()).collect();
        let stamp = stamp("chatcmpl-");
        let mut receipt = Receipt::default();
        match translate::response(&stamp, &facts, replies, &mut receipt) {
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
