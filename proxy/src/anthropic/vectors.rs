//! How a vector of messages is checked. Besides the files of every endpoint: where there is a file
//! `server-tools-refused` the settings refuse tools that Anthropic runs itself.

use bytes::Bytes;
use serde_json::value::RawValue;

use super::{
    request::{For, Request},
    stream::Messages,
    translate,
};
use crate::{
    config::{Anthropic, Config, Hosted},
    openai::{
        request::json::Json,
        response::sse::{Feed, Translator},
        upstream_request::context::Policy,
    },
    receipt::Receipt,
    vectors::{Case, stamp},
};

pub(crate) fn check(case: &mut Case) {
    let json = Json::of_test(case.input("client.json").unwrap());
    let tools = case.tools();
    let server_tools = if case.input("server-tools-refused").is_some() { Hosted::Refuse } else { Hosted::Skip };
    let anthropic = Anthropic {
        model: "qwen3-coder".to_owned(),
        small_model: "qwen3:0.6b".to_owned(),
        server_tools,
        ..Anthropic::default()
    };
    let config = Config { anthropic, ..Config::default() };
    let mut receipt = Receipt::default();
    let translated = json
        .fields()
        .and_then(|fields| Request::read(fields, For::Message, &config, &tools, &mut receipt))
        .and_then(|request| translate::ask(request, &Policy::default(), &mut receipt));
    let facts = match translated {
        Ok((ask, facts)) => {
            case.json("upstream.json", &serde_json::from_slice::<&RawValue>(&ask.body).unwrap());
            facts
        }
        Err(error) => return case.anthropic_refusal(&error),
    };
    if !receipt.is_empty() {
        case.output("receipt.txt", &format!("{receipt}\n"));
    }
    let Some(lines) = case.input("upstream.ndjson") else { return };
    let stream = facts.stream;
    let mut feed = Feed::new(Messages::new(stamp("msg_"), facts, Some("req_1".to_owned())));
    // What goes wrong is in the frames.
    let outcome = feed.packet(Bytes::from(lines)).and_then(|()| {
        // The driver reads no further either.
        if feed.translator().closed() { Ok(()) } else { feed.eof() }
    });
    let late = feed.receipt();
    if !late.is_empty() {
        case.output("late-receipt.txt", &format!("{late}\n"));
    }
    match outcome {
        _ if stream => case.output("client.sse", std::str::from_utf8(&feed.frames.take()).unwrap()),
        Ok(()) => case.json("answer.json", &feed.translator().answer()),
        Err(error) => case.anthropic_refusal(&error),
    }
}
