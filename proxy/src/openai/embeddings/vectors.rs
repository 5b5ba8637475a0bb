//! How a vector of embeddings is checked.

use async_openai::types::embeddings::{CreateBase64EmbeddingResponse, CreateEmbeddingResponse};
use serde_json::value::RawValue;

use super::translate;
use crate::{
    ollama::embed::EmbedReply,
    openai::{
        embeddings::wire::{Encoding, Request},
        request::json::Json,
        upstream_request::context::Policy,
    },
    receipt::Receipt,
    upstream::client::encode,
    vectors::Case,
};

pub(crate) fn check(case: &mut Case) {
    let json = Json::of_test(case.input("client.json").unwrap());
    let mut receipt = Receipt::default();
    let translated = json.fields().and_then(|fields| Request::read(fields, &mut receipt)).and_then(|request| {
        let facts = request.facts();
        Ok((facts, encode(&translate::request(request, &Policy::default())?)?))
    });
    let facts = match translated {
        Ok((facts, ask)) => {
            case.json("upstream.json", &serde_json::from_slice::<&RawValue>(&ask).unwrap());
            facts
        }
        Err(error) => return case.refusal(&error),
    };
    if !receipt.is_empty() {
        case.output("receipt.txt", &format!("{receipt}\n"));
    }
    if let Some(reply) = case.input("reply.json") {
        let reply: EmbedReply<'_> = serde_json::from_slice(&reply).unwrap();
        match translate::response(&facts, &reply, 0) {
            Ok(answer) => {
                let text = String::from_utf8(answer).unwrap();
                match facts.encoding {
                    Encoding::Float => case.read_by::<CreateEmbeddingResponse>(&text),
                    Encoding::Base64 => case.read_by::<CreateBase64EmbeddingResponse>(&text),
                }
                // As it crosses the wire: every digit of a vector counts.
                case.output("answer.json", &format!("{text}\n"));
            }
            Err(error) => case.refusal(&error),
        }
    }
}
