//! How a vector of the bridge is checked.
//!
//! | file | what |
//! |---|---|
//! | `chat.json`, `generate.json`, `embed.json` or `embeddings.json` | what a client of Ollama asks |
//! | `asked.json` | where the OpenAI server is asked for it, and what |
//! | `receipt.txt` | what had no effect, if anything |
//! | `upstream.sse` → `client.ndjson` | a streamed answer, before and after |
//! | `reply.json` → `answer.json` | a whole answer, before and after |
//! | `models.json` → `tags.json`, `ps.json`, `show.json` | a list of models, and what becomes of it (`show.json`: of the first) |
//! | `refused.json` → `error.json` | a refusal of the server's, with its status |
//! | `error.json` | how the request, or its answer, fails |

use std::time::Duration;

use async_openai::types::{
    chat::CreateChatCompletionRequest, completions::CreateCompletionRequest, embeddings::CreateEmbeddingRequest,
};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json, value::RawValue};

use super::{
    Catalog, Prepared, embed,
    fields::Without,
    prepare, refusal,
    request::Embed,
    stream::{self, Now, Stream},
    translate::{self, Shape},
};
use crate::{
    error::{self, Dialect, Error},
    receipt::Receipt,
    redact::Redactor,
    upstream::client::encode,
    vectors::Case,
};

const NOW: Now<'static> = Now { created_at: "2026-11-22T12:37:41.5Z", elapsed: Duration::from_millis(1500) };

pub(crate) fn check(case: &mut Case) {
    if let Some(models) = case.input("models.json") {
        let catalog = Catalog::read(&models).unwrap();
        case.json("tags.json", &catalog.tags());
        case.json("ps.json", &catalog.ps(&[], ""));
        let first = catalog.names().next();
        case.json("show.json", &first.and_then(|name| catalog.show(&name)));
        return;
    }
    if let Some(refused) = case.input("refused.json") {
        let refused: Value = serde_json::from_slice(&refused).unwrap();
        let status = StatusCode::from_u16(refused["status"].as_u64().unwrap().try_into().unwrap()).unwrap();
        let body = refused["body"].to_string();
        let asked = "http://gpu-box:8000/v1/chat/completions";
        let headers = HeaderMap::new();
        let error = refusal::read(status, &headers, body.as_bytes(), asked, Some("m"), &Redactor::default());
        return fails(case, &error);
    }
    if let Some(body) = case.input("chat.json") {
        generation(case, Shape::Chat, &body);
    } else if let Some(body) = case.input("generate.json") {
        generation(case, Shape::Generate, &body);
    } else if let Some(body) = case.input("embed.json") {
        embedding(case, false, &body);
    } else if let Some(body) = case.input("embeddings.json") {
        embedding(case, true, &body);
    } else {
        panic!("a vector of the bridge without an input");
    }
}

fn fails(case: &mut Case, error: &Error) {
    let body: Value = serde_json::from_slice(&error::body(error, Dialect::Ollama, None)).unwrap();
    case.json("error.json", &json!({ "status": error.row().status.as_u16(), "body": body }));
}

fn asked(case: &mut Case, path: &str, body: &[u8]) {
    let text = std::str::from_utf8(body).unwrap();
    match path {
        "/chat/completions" => case.read_by::<CreateChatCompletionRequest>(text),
        "/completions" => case.read_by::<CreateCompletionRequest>(text),
        _ => case.read_by::<CreateEmbeddingRequest>(text),
    }
    let body: &RawValue = serde_json::from_slice(body).unwrap();
    #[derive(serde::Serialize)]
    struct Asked<'a> {
        path: &'a str,
        body: &'a RawValue,
    }
    case.json("asked.json", &Asked { path, body });
}

fn noted(case: &mut Case, receipt: &Receipt) {
    if !receipt.is_empty() {
        case.output("receipt.txt", &format!("{receipt}\n"));
    }
}

fn generation(case: &mut Case, shape: Shape, body: &[u8]) {
    let without = case.input("without.json").map_or_else(Without::default, |names| {
        let names: Vec<String> = serde_json::from_slice(&names).unwrap();
        let mut without = Without::default();
        names.iter().for_each(|name| {
            without.add(name, &Without::default());
        });
        without
    });
    let (facts, ask, unloads, receipt, _): Prepared = match prepare(shape, body, None, &|_| without) {
        Ok(prepared) => prepared,
        Err(error) => return fails(case, &error),
    };
    noted(case, &receipt);
    let Some(ask) = ask else {
        let answer = stream::nothing(&facts, unloads, &NOW).unwrap();
        return case.json("answer.json", &serde_json::from_slice::<&RawValue>(&answer).unwrap());
    };
    asked(case, ask.path, &ask.body);
    if let Some(events) = case.input("upstream.sse") {
        let mut stream = Stream::new(facts.clone(), Redactor::default());
        let mut out = Vec::new();
        let ended = stream.push(Bytes::from(events), &NOW, &mut out).and_then(|()| stream.end(&NOW, &mut out));
        if let Err(error) = ended {
            out.extend(error::body(&error, Dialect::Ollama, None));
            out.push(b'\n');
        }
        case.output("client.ndjson", &String::from_utf8(out).unwrap());
    }
    if let Some(reply) = case.input("reply.json") {
        match stream::whole(&facts, &reply, &Redactor::default(), &NOW) {
            Ok(answer) => case.json("answer.json", &serde_json::from_slice::<&RawValue>(&answer).unwrap()),
            Err(error) => fails(case, &error),
        }
    }
}

fn embedding(case: &mut Case, old: bool, body: &[u8]) {
    let text = std::str::from_utf8(body).unwrap();
    let mut receipt = Receipt::default();
    let read = if old { Embed::read_old(text, &mut receipt) } else { Embed::read(text, &mut receipt) };
    let request = match read {
        Ok(request) => request,
        Err(error) => return fails(case, &error),
    };
    noted(case, &receipt);
    let (ask, _) = translate::embed(&request, &request.model, &Without::default());
    asked(case, "/embeddings", &encode(&ask).unwrap());
    let Some(reply) = case.input("reply.json") else { return };
    let answer = match old {
        true => embed::old_reply(&reply, &Redactor::default()),
        false => embed::reply(&request.model, &reply, request.input.len(), NOW.elapsed, &Redactor::default()),
    };
    match answer {
        Ok(answer) => case.json("answer.json", &serde_json::from_slice::<&RawValue>(&answer).unwrap()),
        Err(error) => fails(case, &error),
    }
}
