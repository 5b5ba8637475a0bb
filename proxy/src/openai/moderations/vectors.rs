//! How a vector of moderations is checked. `upstream.json` is the list of asks, and `reply.json` that of their answers.
//! Where there is a file `scored` the version gives probabilities, and where there is `not-configured` the remote's own
//! guard model judges, a ShieldGemma.

use async_openai::types::moderations::CreateModerationResponse;

use super::translate;
use crate::{
    ollama::wire::ChatReply,
    openai::{
        moderations::wire::Request,
        request::json::Json,
        upstream_request::{context::Policy, send},
    },
    receipt::Receipt,
    vectors::{Case, stamp},
};

pub(crate) fn check(case: &mut Case) {
    let json = Json::of_test(case.input("client.json").unwrap());
    let scored = case.input("scored").is_some();
    let configured = if case.input("not-configured").is_some() { "" } else { "llama-guard3" };
    let mut receipt = Receipt::default();
    let translated = json.fields().and_then(|fields| Request::read(fields, &mut receipt)).and_then(|request| {
        let model = translate::model(request.model.as_deref(), configured, Some("shieldgemma:2b"), &mut receipt)?;
        let (asks, facts) = translate::asks(request, &model, &Policy::default(), usize::MAX, scored)?;
        Ok((send::bodies(&asks), facts))
    });
    let facts = match translated {
        Ok((asks, facts)) => {
            case.json("upstream.json", &asks);
            facts
        }
        Err(error) => return case.refusal(&error),
    };
    if !receipt.is_empty() {
        case.output("receipt.txt", &format!("{receipt}\n"));
    }
    if let Some(replies) = case.input("reply.json") {
        let replies: Vec<ChatReply<'_>> = serde_json::from_slice(&replies).unwrap();
        match translate::response(&stamp("modr-"), &facts, &replies) {
            Ok(answer) => {
                case.read_by::<CreateModerationResponse>(&serde_json::to_string(&answer).unwrap());
                case.json("answer.json", &answer);
            }
            Err(error) => case.refusal(&error),
        }
    }
}
