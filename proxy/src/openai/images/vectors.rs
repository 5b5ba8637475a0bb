//! How a vector of images is checked. `upstream.json` is the list of asks, and `reply.json` that of their answers.

use async_openai::types::images::ImagesResponse;
use serde_json::value::RawValue;

use super::translate;
use crate::{
    openai::{
        images::wire::{Reply, Request},
        request::json::Json,
    },
    receipt::Receipt,
    upstream::client::encode,
    vectors::{Case, stamp},
};

pub(crate) fn check(case: &mut Case) {
    let json = Json::of_test(case.input("client.json").unwrap());
    let mut receipt = Receipt::default();
    let request = match json.fields().and_then(|fields| Request::read(fields, &mut receipt)) {
        Ok(request) => request,
        Err(error) => return case.refusal(&error),
    };
    let asks = encode(&translate::requests(&request)).unwrap();
    case.json("upstream.json", &serde_json::from_slice::<&RawValue>(&asks).unwrap());
    if !receipt.is_empty() {
        case.output("receipt.txt", &format!("{receipt}\n"));
    }
    if let Some(replies) = case.input("reply.json") {
        let replies: Vec<Reply<'_>> = serde_json::from_slice(&replies).unwrap();
        match translate::response(&stamp(""), &request.model, replies) {
            Ok(answer) => {
                case.read_by::<ImagesResponse>(&serde_json::to_string(&answer).unwrap());
                case.json("answer.json", &answer);
            }
            Err(error) => case.refusal(&error),
        }
    }
}
