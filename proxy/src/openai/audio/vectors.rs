//! How a vector of audio is checked: `client.json` is a body, `upstream.json` what its sound and its transcript are
//! asked for, `answer.json` a transcript.

use async_openai::types::audio::CreateTranscriptionResponseJson;
use serde_json::value::RawValue;

use super::{form, translate};
use crate::{
    openai::{
        audio::{translate::Source, wire::Request},
        request::{json::Json, parameters::Endpoint},
        upstream_request::{context::Policy, send::UpstreamRequest},
    },
    receipt::Receipt,
    usage::Usage,
    vectors::Case,
};

pub(crate) fn check(case: &mut Case) {
    let json = Json::of_test(case.input("client.json").unwrap());
    let mut receipt = Receipt::default();
    let given = match form::object(&json) {
        Ok(given) => given,
        Err(error) => return case.refusal(&error),
    };
    let request = match Request::read(&given, Endpoint::Transcriptions, &mut receipt) {
        Ok(request) => request,
        Err(error) => return case.refusal(&error),
    };
    let source = match translate::source(&request, true, false) {
        Ok(source) => source,
        Err(error) => return case.refusal(&error),
    };
    if !receipt.is_empty() {
        case.output("receipt.txt", &format!("{receipt}\n"));
    }
    let upstream = |ask: UpstreamRequest| serde_json::from_slice::<Box<RawValue>>(&ask.body).unwrap();
    let policy = Policy::default();
    match source {
        Source::Sound(sound) => {
            case.json("upstream.json", &upstream(translate::transcribe(&request, sound, &policy).unwrap()));
        }
        Source::Given(text) | Source::Prompt(text) => {
            case.json("upstream.json", &upstream(translate::english(&request, text, &policy).unwrap()));
            let answer = translate::response(text, Usage { input: 3, output: 2, cached: 0 });
            case.read_by::<CreateTranscriptionResponseJson>(&serde_json::to_string(&answer).unwrap());
            case.json("answer.json", &answer);
        }
    }
}
