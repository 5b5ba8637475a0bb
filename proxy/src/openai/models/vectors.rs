//! How a vector of the list of models is checked.

use async_openai::types::models::ListModelResponse;

use super::translate;
use crate::{ollama::wire::Tags, vectors::Case};

pub(crate) fn check(case: &mut Case) {
    let reply = case.input("reply.json").unwrap();
    let tags: Tags<'_> = serde_json::from_slice(&reply).unwrap();
    let list = translate::list(&tags);
    case.read_by::<ListModelResponse>(&serde_json::to_string(&list).unwrap());
    case.json("answer.json", &list);
}
