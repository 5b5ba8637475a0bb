//! How a vector of responses is checked. Besides the files of every endpoint: `earlier.json` has the items of the
//! responses that this one goes on from, and where there is a file `hosted-refused` the settings refuse tools that
//! OpenAI runs itself.

use async_openai::types::responses;
use bytes::Bytes;
use serde_json::value::RawValue;

use super::{input, request, translate};
use crate::{
    config::Hosted,
    openai::{
        request::json::Json,
        response::sse::Feed,
        responses::{
            request::{Request, Terms},
            stream::Answer,
        },
        upstream_request::context::Policy,
    },
    receipt::Receipt,
    vectors::{Case, stamp},
};

pub(crate) fn check(case: &mut Case) {
    let json = Json::of_test(case.input("client.json").unwrap());
    let tools = case.tools();
    let hosted = if case.input("hosted-refused").is_some() { Hosted::Refuse } else { Hosted::Skip };
    // The items of the responses that this one goes on from, if any.
    let earlier: Vec<Box<RawValue>> =
        case.input("earlier.json").map(|earlier| serde_json::from_slice(&earlier).unwrap()).unwrap_or_default();
    let mut receipt = Receipt::default();
    let translated = json.fields().and_then(|mut fields| {
        let model = fields.need("model", &mut Vec::new())?;
        let input = request::input(&mut fields)?;
        let before = || earlier.iter().map(|item| &**item);
        let brought = input::brought("previous_response_id", before(), &input)?;
        let request =
            Request::read(model, fields, &brought, Terms { hosted, keeps: true, tools, socket: false }, &mut receipt)?;
        translate::ask(request, "previous_response_id", before(), &input, Policy::default(), None, &mut receipt)
    });
    let facts = match translated {
        Ok((ask, facts)) => {
            case.json("upstream.json", &serde_json::from_slice::<&RawValue>(&ask.body).unwrap());
            facts
        }
        Err(error) => return case.refusal(&error),
    };
    if !receipt.is_empty() {
        case.output("receipt.txt", &format!("{receipt}\n"));
    }
    let Some(lines) = case.input("upstream.ndjson") else { return };
    let mut answer = Answer::new(stamp("resp_"), facts.clone());
    answer.at(1_700_000_009);
    let mut feed = Feed::new(answer);
    // What went wrong stands in the frames.
    let outcome = feed.packet(Bytes::from(lines)).and_then(|()| feed.eof());
    let late = feed.receipt();
    if !late.is_empty() {
        case.output("late-receipt.txt", &format!("{late}\n"));
    }
    if facts.stream {
        let text = String::from_utf8(feed.frames.take().to_vec()).unwrap();
        for data in text.lines().filter_map(|line| line.strip_prefix("data: ")).filter(|data| *data != "[DONE]") {
            case.read_by::<responses::ResponseStreamEvent>(data);
        }
        case.output("client.sse", &text);
        return;
    }
    match outcome {
        Ok(()) => {
            let answer = feed.translator().response();
            case.read_by::<responses::Response>(&serde_json::to_string(&answer).unwrap());
            case.json("answer.json", &answer);
        }
        Err(error) => case.refusal(&error),
    }
}
