//! How a vector of completions is checked. `upstream.json` is the list of asks, and `reply.json` that of their answers.

use async_openai::types::completions::CreateCompletionResponse;

use super::translate;
use crate::{
    ollama::generate::GenerateReply,
    openai::{
        completions::{stream::Completions, wire::Request},
        request::json::Json,
        upstream_request::{context::Policy, send},
    },
    receipt::Receipt,
    vectors::{Case, stamp},
};

pub(crate) fn check(case: &mut Case) {
    let json = Json::of_test(case.input("client.json").unwrap());
    let mut receipt = Receipt::default();
    let translated = json.fields().and_then(|fields| Request::read(fields, &mut receipt)).and_then(|request| {
        let facts = request.facts();
        Ok((facts, send::bodies(&translate::asks(request, false, &Policy::default(), usize::MAX)?)))
    });
    let facts = match translated {
        Ok((facts, asks)) => {
            case.json("upstream.json", &asks);
            facts
        }
        Err(error) => return case.refusal(&error),
    };
    if !receipt.is_empty() {
        case.output("receipt.txt", &format!("{receipt}\n"));
    }
    case.stream::<CreateCompletionResponse>(Completions::new(stamp("cmpl-"), facts.clone()));
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
