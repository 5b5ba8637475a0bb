//! Entry points of the fuzz targets in `fuzz/`: everything that reads bytes of clients, of the remote or of a settings
//! file.
//!
//! Each must return, without a panic, whatever the bytes are, and checks a property where there is one. The seeds in
//! `fuzz/seeds/` run as an ordinary test, with a few thousand mutations of them.

use std::{borrow::Cow, sync::LazyLock};

use axum::extract::Query;
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{HeaderValue, Method, Uri};
use serde::de::IgnoredAny;
use serde_json::{Value, json, value::RawValue};

use crate::{
    Config,
    bridge::{self, translate::Shape},
    config::{self, Limits},
    explain,
    gate::{
        model_names::{Scan, first_name},
        paths,
    },
    ollama::{self, ndjson::Lines},
    openai::{
        audio, chat, paging,
        request::{
            content::{self, Content},
            json::{Json, Text},
        },
        response::sse::{Feed, Translator},
        responses,
        tools::{Function, Tool, repair::Repairs},
    },
    routes,
    stamp::Stamp,
    upstream::fence,
};

/// A name, and what reads the bytes.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: &[Target] = &[
    ("json_fields", json_fields),
    ("ndjson", ndjson),
    ("chat_stream", chat_stream),
    ("form", form),
    ("paths", paths),
    ("data_url", data_url),
    ("settings", settings),
    ("resume", resume),
    ("schema", schema),
    ("request", request),
    ("rescue", rescue),
    ("bridge_stream", bridge_stream),
    ("grammar", grammar),
    ("model_names", model_names),
    ("pdf", pdf),
];

/// The bytes as a request body: its top level.
pub fn json_fields(data: &[u8]) {
    let json = Json::new(data.to_vec(), &Limits::default());
    if let Ok(fields) = json.fields() {
        // What is an object for us is one for every parser that takes its depth.
        for (_, value) in fields.left() {
            assert!(std::str::from_utf8(value.get().as_bytes()).is_ok());
        }
        assert_eq!(json.bytes().trim_ascii_start().first(), Some(&b'{'));
    }
}

fn lines(data: &[u8], step: usize) -> Vec<Bytes> {
    let (mut lines, mut all) = (Lines::default(), Vec::new());
    for packet in data.chunks(step.max(1)) {
        if lines.push(Bytes::copy_from_slice(packet)).is_err() {
            break;
        }
        all.extend(std::iter::from_fn(|| lines.next()));
    }
    all.extend(lines.rest());
    all
}

/// The bytes as a remote's stream: it makes no difference how they are cut.
pub fn ndjson(data: &[u8]) {
    let step = usize::from(data.first().copied().unwrap_or(1));
    let whole = lines(data, usize::MAX);
    assert_eq!(whole, lines(data, step), "in packets of {step}");
    assert!(whole.iter().all(|line| !line.is_empty() && !line.contains(&b'\n')));
}

/// The bytes as a remote's stream of a chat: it ends exactly once, with `[DONE]` or an error.
pub fn chat_stream(data: &[u8]) {
    let random = "0123456789abcdef0123456789abcdef".to_owned();
    let stamp = Stamp { id: format!("chatcmpl-{random}"), random, created: 1_700_000_000 };
    let mut feed = Feed::of(chat::stream_of_one(&stamp), 1);
    let step = usize::from(data.first().copied().unwrap_or(1)).max(1);
    let outcome = data.chunks(step).try_for_each(|packet| feed.packet_of(0, Bytes::copy_from_slice(packet)));
    let failed = outcome.and_then(|()| feed.eof_of(0)).is_err();
    assert!(feed.translator().closed());
    let frames = feed.frames.take();
    let frames = String::from_utf8_lossy(&frames);
    let done = frames.split("\n\n").filter(|frame| *frame == "data: [DONE]").count();
    assert_eq!(done, usize::from(!failed), "{frames}");
}

/// The bytes as a form of the audio API, between its boundaries or with them.
pub fn form(data: &[u8]) {
    let kind = HeaderValue::from_static("multipart/form-data; boundary=x");
    let part: &[u8] = b"--x\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\n";
    for body in [data.to_vec(), [part, data, b"\r\n--x--\r\n"].concat()] {
        let json = Json::new(body, &Limits::default());
        let read = audio::form::read(Some(&kind), json).now_or_never();
        assert!(read.is_some(), "a body that is here needs no waiting");
    }
}

/// The bytes as a request's path: the fence of the base path, the gate's reading, and the table of routes.
pub fn paths(data: &[u8]) {
    let path = String::from_utf8_lossy(data);
    let leaves = fence::leaves(&path);
    // As the simplest gateway resolves it.
    let mut depth = 0_i64;
    for segment in path.split('/') {
        depth += match segment {
            ".." => -1,
            "" | "." => 0,
            _ => 1,
        };
        assert!(depth >= 0 || leaves, "{path:?} leaves the base path");
    }
    let reading = paths::read(&path);
    let parts = reading.clean.strip_prefix('/').map(|rest| rest.split('/'));
    assert!(parts.is_some_and(|mut parts| parts.all(|part| !matches!(part, "." | ".."))), "{reading:?}");
    assert!(!reading.clean.contains("//") && (reading.clean == "/" || !reading.clean.ends_with('/')), "{reading:?}");
    for method in [Method::GET, Method::POST, Method::DELETE] {
        let _ = routes::find(&method, &path, "/v1");
    }
    let _ = routes::allow(&path);
}

fn translate(body: &Value, endpoint: &str) {
    explained(body.to_string().into_bytes(), endpoint);
}

fn explained(body: Vec<u8>, endpoint: &str) {
    // Made once: a target is as good as the number of inputs that it reads in a minute.
    static CONFIG: LazyLock<Config> = LazyLock::new(Config::default);
    if let Ok(explained) = explain(body, Some(endpoint), &CONFIG) {
        let text = serde_json::to_string(&explained).unwrap_or_default();
        assert!(serde_json::from_str::<IgnoredAny>(&text).is_ok(), "{text}");
    }
}

/// The bytes as the URL of an image, and as a recording. One whole translation shows how each API takes them apart.
pub fn data_url(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for url in [text.to_string(), format!("data:{text}"), format!("data:image/png;base64,{text}")] {
        let parts = json!([{"type": "image_url", "image_url": {"url": url}}, {"type": "input_audio", "input_audio": {"data": url}}]);
        for part in parts.as_array().into_iter().flatten() {
            let part = json!([part]).to_string();
            let content = serde_json::from_str::<Content<'_>>(&part).ok();
            for image in
                content::gather(content, || "content".to_owned()).map(|gathered| gathered.images).unwrap_or_default()
            {
                assert!(ollama::BASE64.decode(&*image).is_ok(), "{image:?} of {url:?} is not base64");
            }
        }
        if let Ok(sound) = content::sound(Cow::Borrowed(&url), "file") {
            assert!(ollama::BASE64.decode(&*sound).is_ok(), "{sound:?} of {url:?} is not base64");
        }
    }
    // Four in a hundred inputs, so that most are quick.
    if data.len().is_multiple_of(25) {
        let url = format!("data:{text}");
        let chat = json!([{"type": "image_url", "image_url": {"url": url}}]);
        translate(&json!({"model": "m", "messages": [{"role": "user", "content": chat}]}), "/v1/chat/completions");
        let response = json!([{"type": "input_image", "image_url": url}]);
        translate(&json!({"model": "m", "input": [{"role": "user", "content": response}]}), "/v1/responses");
    }
}

/// The bytes as a settings file.
pub fn settings(data: &[u8]) {
    let _ = Config::from_toml(&String::from_utf8_lossy(data));
}

/// The bytes as the query of a stored response, or of its items.
pub fn resume(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for query in [text.to_string(), format!("stream=true&starting_after={text}"), format!("after={text}&limit={text}")]
    {
        let Ok(uri) = Uri::try_from(format!("/v1/responses/resp_x?{query}")) else { continue };
        if let Ok(Query(pairs)) = Query::<Vec<(String, String)>>::try_from_uri(&uri) {
            let _ = responses::kept::starting_after(&pairs);
            let _ = paging::Paging::of_items(&pairs);
        }
    }
}

/// The bytes as a schema: of a response format, and of a tool's parameters.
pub fn schema(data: &[u8]) {
    let Ok(schema) = serde_json::from_slice::<Value>(data) else { return };
    let format = json!({"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": true}});
    let tool = json!({"type": "function", "function": {"name": "f", "parameters": schema, "strict": true}});
    let messages = json!([{"role": "user", "content": "x"}]);
    translate(
        &json!({"model": "m", "messages": messages, "tools": [tool], "response_format": format}),
        "/v1/chat/completions",
    );
    let format = json!({"format": {"type": "json_schema", "name": "x", "schema": schema}});
    let tool = json!({"type": "function", "name": "f", "parameters": schema});
    translate(&json!({"model": "m", "input": "x", "tools": [tool], "text": format}), "/v1/responses");
}

/// The bytes as the whole body of a request to each endpoint that takes JSON.
pub fn request(data: &[u8]) {
    for endpoint in explain_endpoints() {
        explained(data.to_vec(), &endpoint);
    }
}

/// What an answer becomes that arrives in `pieces`: its text, and its calls.
fn rescued<'t>(pieces: impl IntoIterator<Item = &'t str>, done_reason: &str) -> (String, Vec<String>) {
    static REPAIRS: LazyLock<Repairs> = LazyLock::new(|| {
        let parameters = r#"{"type":"object","properties":{"city":{"type":"string"},"days":{"type":"integer"}},"required":["city"]}"#;
        let parameters = RawValue::from_string(parameters.to_owned()).ok().map(Cow::Owned);
        let function = Function { name: Text("get_weather".into()), description: None, parameters, strict: None };
        let list = Function { name: Text("list_files".into()), description: None, parameters: None, strict: None };
        Repairs::new(&[Tool::from(function), Tool::from(list)], &config::Tools::default())
    });
    let Some(mut rescue) = REPAIRS.rescue() else { return Default::default() };
    let mut text: String = pieces.into_iter().map(|piece| rescue.push(piece).into_owned()).collect();
    let rest = rescue.finish(Some(done_reason));
    text.push_str(&rest.text);
    (text, rest.calls.into_iter().map(|call| format!("{} {}", call.name, call.arguments)).collect())
}

/// The bytes as an answer with calls in its text: it makes no difference in which packets it arrives, and no text is
/// lost.
pub fn rescue(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let step = usize::from(data.first().copied().unwrap_or(1) % 16) + 1;
    let chars: Vec<char> = text.chars().collect();
    let pieces: Vec<String> = chars.chunks(step).map(|piece| piece.iter().collect()).collect();
    for reason in ["stop", "length"] {
        let whole = rescued([&*text], reason);
        assert_eq!(rescued(pieces.iter().map(String::as_str), reason), whole, "in pieces of {step}");
        match whole.1.is_empty() {
            true => assert_eq!(whole.0, text),
            false => assert!(text.starts_with(&whole.0), "{whole:?}"),
        }
    }
}

/// The bytes as the stream of an OpenAI server: it makes no difference how they are cut, every line is JSON, and either
/// the last one says that the answer is complete, or the stream fails.
pub fn bridge_stream(data: &[u8]) {
    let step = usize::from(data.first().copied().unwrap_or(1)).max(1);
    for shape in [Shape::Chat, Shape::Generate] {
        let (lines, failed) = bridge::lines_of(data, data.len().max(1), shape);
        assert_eq!(bridge::lines_of(data, step, shape), (lines.clone(), failed), "in packets of {step}");
        let lines: Vec<Value> = lines.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let done = lines.iter().filter(|line| line["done"] == true).count();
        assert_eq!(done, usize::from(!failed), "{lines:?}");
        assert!(failed || lines.last().is_some_and(|last| last["done"] == true), "{lines:?}");
    }
}

/// The bytes as the grammar of a custom tool.
pub fn grammar(data: &[u8]) {
    let definition = String::from_utf8_lossy(data);
    for syntax in ["lark", "regex"] {
        let format = json!({"type": "grammar", "syntax": syntax, "definition": definition});
        let tool = json!({"type": "custom", "name": "patch", "format": format});
        translate(&json!({"model": "m", "input": "x", "tools": [tool], "tool_choice": "required"}), "/v1/responses");
    }
}

/// The bytes as a native request body, whose models' names the gate reads as it comes: it makes no difference how it is
/// cut, and a name that a parser of JSON finds is found.
pub fn model_names(data: &[u8]) {
    const FIELDS: &[&str] = &["model", "from"];
    let step = usize::from(data.first().copied().unwrap_or(1)).max(1);
    for of_kind in [Scan::new, Scan::of_definition] {
        let read = |step: usize| {
            let mut scan = of_kind(FIELDS);
            let outcome = data.chunks(step).try_for_each(|part| scan.push(part)).and_then(|()| scan.end());
            (outcome.is_ok(), scan.found().to_vec())
        };
        let (is_read, names) = read(data.len().max(1));
        assert_eq!(read(step), (is_read, names.clone()), "in packets of {step}");
        let body = serde_json::from_slice::<Value>(data).unwrap_or_default();
        for field in FIELDS.iter().filter(|_| is_read) {
            let known = |name: &str| names.iter().any(|found| found.field == *field && *found.name == *name);
            assert!(body[field].as_str().is_none_or(known), "{field} of {body} is not in {names:?}");
        }
    }
    // A look at the beginning finds what reading all of it finds.
    let mut scan = Scan::new(&["model"]);
    let is_read = scan.push(data).and_then(|()| scan.end()).is_ok();
    let first = first_name(data, &["model"]).filter(|_| is_read);
    assert!(first.is_none_or(|first| scan.found() == [first]), "{:?}", scan.found());
}

/// The bytes as a PDF in a request.
pub fn pdf(data: &[u8]) {
    let data = format!("data:application/pdf;base64,{}", STANDARD.encode(data));
    let file = json!({"type": "input_file", "filename": "x.pdf", "file_data": data});
    translate(&json!({"model": "m", "input": [{"role": "user", "content": [file]}]}), "/v1/responses");
}

fn explain_endpoints() -> impl Iterator<Item = String> {
    ["chat/completions", "completions", "responses", "embeddings", "moderations", "images/generations", "messages"]
        .map(|name| format!("/v1/{name}"))
        .into_iter()
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use proptest::{
        prelude::*,
        test_runner::{Config as Settings, RngAlgorithm, TestRng, TestRunner},
    };

    use super::*;

    /// One change: bytes replaced, inserted, removed or repeated.
    fn mutated(seed: &[u8], at: usize, length: usize, with: &[u8]) -> Vec<u8> {
        let at = at % (seed.len() + 1);
        let end = (at + length % 8).min(seed.len());
        [&seed[..at], with, &seed[end..]].concat()
    }

    #[test]
    fn no_seed_and_no_mutation_of_one_breaks_a_target() {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds");
        for (name, target) in TARGETS {
            let files = fs::read_dir(seeds.join(name)).unwrap_or_else(|error| panic!("no seeds for {name}: {error}"));
            let seeds: Vec<_> = files.map(|file| fs::read(file.unwrap().path()).unwrap()).collect();
            assert!(!seeds.is_empty(), "{name}");
            target(b"");
            seeds.iter().for_each(|seed| target(seed));
            let settings = Settings { cases: 300, failure_persistence: None, ..Settings::default() };
            let mut runner = TestRunner::new_with_rng(settings, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
            let piece = prop_oneof![
                prop::collection::vec(any::<u8>(), 0..6),
                prop::sample::select(vec![
                    "\"", "{", "}", "[", "\\", "\\ud800", "\r\n", "..", "%2e", "null", "1e999", "é"
                ])
                .prop_map(|piece| piece.as_bytes().to_vec()),
            ];
            let change =
                (any::<prop::sample::Index>(), prop::collection::vec((0..4096_usize, 0..8_usize, piece), 1..4));
            let broken = runner.run(&change, |(seed, changes)| {
                let mut input = seed.get(&seeds).clone();
                for (at, length, with) in changes {
                    input = mutated(&input, at, length, &with);
                }
                target(&input);
                Ok(())
            });
            assert!(broken.is_ok(), "{name}: {broken:?}");
        }
    }
}
