//! How a vector of audio is checked: `client.json` is a body, `upstream.json` what its sound and its transcript are asked for, `answer.json`
//! a transcript.

use async_openai::types::audio::CreateTranscriptionResponseJson;

use super::{
    form,
    translate::{self, Source},
    wire::Request,
};
use crate::{
    openai::{json::Json, usage::Usage},
    vectors::Case,
};

pub(crate) fn check(case: &mut Case) {
    let json = Json::from(case.input("client.json").unwrap());
    let mut ignored = Vec::new();
    let request = match form::object(&json).and_then(|given| Request::take(given, &mut ignored)) {
        Ok(request) => request,
        Err(error) => return case.refusal(&error),
    };
    let source = match translate::source(&request, true, false) {
        Ok(source) => source,
        Err(error) => return case.refusal(&error),
    };
    if !ignored.is_empty() {
        case.json("ignored.json", &ignored);
    }
    match source {
        Source::Sound(sound) => case.json("upstream.json", &translate::transcribe(&request, sound).unwrap()),
        Source::Given(text) | Source::Prompt(text) => {
            case.json("upstream.json", &translate::english(&request, text).unwrap());
            let answer = translate::response(text, Usage { input: 3, output: 2 });
            case.read_by::<CreateTranscriptionResponseJson>(&serde_json::to_string(&answer).unwrap());
            case.json("answer.json", &answer);
        }
    }
}
