//! How a vector of the list of models is checked.

use async_openai::types::models::{ListModelResponse, Model};

use super::translate;
use crate::{
    config::Config,
    ollama::{
        listing::Listing,
        wire::{Show, Tags},
    },
    vectors::Case,
};

pub(crate) fn check(case: &mut Case) {
    let config = Config::default();
    let listing = Listing { config: &config, loaded: None };
    if let Some(reply) = case.input("show.json") {
        let show: Show<'_> = serde_json::from_slice(&reply).unwrap();
        let model = translate::shown(&listing, "namespace/m:1b", "namespace/m:1b", &show);
        case.read_by::<Model>(&serde_json::to_string(&model).unwrap());
        return case.json("answer.json", &model);
    }
    let reply = case.input("reply.json").unwrap();
    let tags: Tags<'_> = serde_json::from_slice(&reply).unwrap();
    let list = translate::list(&listing, &tags);
    case.read_by::<ListModelResponse>(&serde_json::to_string(&list).unwrap());
    case.json("answer.json", &list);
}
