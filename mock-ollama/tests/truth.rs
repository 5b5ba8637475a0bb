//! The mock against recordings of real servers (`fixtures/<version>/<area>/<case>.json`): the same requests over a raw
//! socket, and the answers' skeletons compared.
//!
//! Each area starts with a fresh server, as `ps/empty` was recorded. Cases come in the order of their names, except
//! where one needs what another leaves behind: see [`ORDER`] and [`FIRST`].

use crate::registry;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Duration,
};

use mock_ollama::{
    Mock, Options, Script, Stock, Then,
    recording::{self as recordings, Recording, Response, skeleton},
};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::recording::ask;

const VERSIONS: [&str; 3] = ["0.13.5", "0.20.0", "0.33.0-rc2"];
const AREAS: [&str; 9] = ["basic", "chat", "embed", "generate", "manage", "ps", "show", "thinking", "tools"];
/// What was recorded of 0.33 alone.
const NEW_AREAS: [&str; 6] = ["http", "logprobs-raw", "mid-failure", "queue", "structured", "transfer"];

/// Cases of an area in the order in which the state is right: what is not named here comes before, by name.
const ORDER: [(&str, &[&str]); 3] = [
    (
        "manage",
        &[
            // Absent, then made, then there; only then is a model made of it.
            "blob-absent",
            "blob-create",
            "blob-create-again",
            "blob-present",
            "create-not-gguf",
            // `show-derived` shows what the second creation made.
            "create-from",
            "create-from-whole",
            "show-derived",
            "delete-derived",
            "copy",
            "tags-after-copy",
            "delete",
        ],
    ),
    ("ps", &["empty", "loaded", "after-unload"]),
    (
        "transfer",
        &[
            "create-quantize",
            "create-quantize-file",
            "create-quantize-again",
            "create-quantize-unknown",
            "create-file",
            "copy-to-registry-name",
            "push",
            "push-again",
            "push-whole",
            "push-secure",
            "push-missing",
            "delete-registry-name",
            "pull",
            "show-after-pull",
            "tags-after-pull",
            "pull-present",
            "pull-present-whole",
            "pull-left",
            "pull-resumed",
            "pull-whole",
            "pull-missing",
            "pull-missing-whole",
            "pull-secure",
            "pull-http-without-insecure",
        ],
    ),
];

/// Recorded again when all else was done.
const LAST: (&str, &str) = ("0.33.0-rc2", "manage/tags-after-copy");

/// Asked for their effect before a case.
const FIRST: [(&str, &[&str]); 4] = [
    ("ps/loaded", &["chat/load"]),
    ("ps/after-unload", &["embed/one", "chat/unload"]),
    ("http/early-answer", &["manage/blob-create"]),
    // The runner's error about another request.
    ("mid-failure/chat-stream-older-error", &["structured/pattern-class"]),
];

/// Models that are deleted before a case, so that nothing of them is there.
const CLEARED: [(&str, &[&str]); 3] = [
    ("transfer/pull", &["tiny:1", "tinyfile:1", "tinyfile:3"]),
    ("transfer/pull-left", &[PULLED]),
    ("transfer/pull-whole", &[PULLED]),
];
const PULLED: &str = "127.0.0.1:5000/library/tiny:1";
/// Where the recorded registry listened.
const REGISTRY: &str = "127.0.0.1:5000";
/// The file of `all-minilm` in the recordings.
const MINILM: &str = "dc4387e2242164a128615d99e9a0853f3765a6484534cff4c65c381a69234e60";

/// What the recorded weights wrote, where the mock's own words would be others: (versions, case, words).
const WORDS: [(&[&str], &str, &str); 15] = [
    // In as many tokens of the mock as the recorded answer has.
    (NEW, "logprobs-raw/thinking", "/think>\n`\n"),
    (NEW, "logprobs-raw/unicode", " 🌍\n\n🌟"),
    (NEW, "tools/garbled-stream", GARBLED),
    (NEW, "tools/garbled-whole", GARBLED),
    (NEW, "tools/no-parameters", CALL),
    // The recorded model called again after a result.
    (NEW, "tools/result", CALL),
    (OLD, "tools/garbled-stream", GARBLED),
    (OLD, "tools/garbled-whole", GARBLED),
    (OLD, "tools/no-parameters", CALL),
    (OLD, "tools/stream", GARBLED),
    (OLD, "tools/whole", GARBLED),
    (OLD, "tools/choice-none", GARBLED),
    (OLD, "tools/logprobs-stream", GARBLED),
    (OLD, "tools/two-stream", CALL),
    (OLD, "tools/two-whole", CALL),
];
/// Longer than any answer takes.
const LONG: Duration = Duration::from_secs(20);
const NEW: &[&str] = &["0.33.0-rc2"];
const OLD: &[&str] = &["0.13.5", "0.20.0"];
/// Lists of all models, recorded where the store held more than the mock does.
const LISTS: [&str; 2] = ["http/range", "transfer/tags-after-pull"];
/// Schemas that leave the model a choice of kinds or names, and one that the mock breaks where the recorded model did
/// not.
const FREE: [&str; 11] = [
    "structured/additional-schema",
    "structured/additional-true",
    "structured/any-of-null",
    "structured/array-any",
    "structured/enum-mixed",
    "structured/one-of",
    "structured/pattern-properties",
    "structured/ref-recursive",
    "structured/top-any-of",
    "structured/top-empty",
    "structured/top-null",
];
const GARBLED: &str = "<tool_call>\n{\"name\": \"get_weather\", \"parameters\": {\"city\": Paris}\n</tool_call>";
const CALL: &str = "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Rome\"}}\n</tool_call>";

/// (version, case) → why the mock does not answer like the recording.
const KNOWN_DIFFERENCES: [(&str, &str, &str); 0] = [];

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

fn read(version: &str, case: &str) -> Recording {
    recordings::read(&fixtures().join(version).join(format!("{case}.json"))).unwrap()
}

/// The cases of an area, in order.
fn cases(version: &str, area: &str) -> Vec<String> {
    let files = std::fs::read_dir(fixtures().join(version).join(area)).unwrap();
    let names = files.map(|file| file.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned());
    let ordered = ORDER.iter().find(|(known, _)| *known == area).map_or(&[][..], |(_, ordered)| ordered);
    let place = |name: &str| {
        let is_last = LAST == (version, &format!("{area}/{name}"));
        if is_last { Some(usize::MAX) } else { ordered.iter().position(|known| *known == name) }
    };
    let mut names: Vec<(Option<usize>, String)> = names.map(|name| (place(&name), name)).collect();
    names.sort();
    names.into_iter().map(|(_, name)| format!("{area}/{name}")).collect()
}

async fn start(version: &str, area: &str) -> Mock {
    let words = WORDS.iter().filter(|(versions, ..)| versions.contains(&version));
    let script = words.fold(Script::default(), |script, (_, case, words)| {
        let request = read(version, case).request;
        script.and(Script::on(&request.path).containing(&request.body).says(words))
    });
    let mut options = Options { version: version.parse().unwrap(), stock: Stock::Recorded, ..Options::default() };
    let mut script = script;
    match area {
        "mid-failure" => script = script.and(kills(version)),
        "queue" => {
            options.max_queue = Some(1);
            options.max_loaded_models = Some(1);
            options.models.push("other:135m".parse().unwrap());
            // The request that runs all the time.
            script = script.and(Script::on("/api/chat").containing("A long story").pause(Duration::from_secs(3600)));
        }
        _ => {}
    }
    let mock = Mock::start_with(options, script).await.unwrap();
    if area == "queue" {
        fill_the_queue(&mock).await;
    }
    mock
}

/// The scripts that kill the runner when it was killed in the recordings.
fn kills(version: &str) -> Script {
    let rules = cases(version, "mid-failure").into_iter().filter_map(|case| {
        let recording = read(version, &case);
        // Texts may have been cut.
        let body = recording.request.body.split('…').next().unwrap().to_owned();
        let on = Script::on(&recording.request.path).containing(&body);
        let on = match recording.runner_killed_after_chunks {
            Some(chunks) => on.after(chunks),
            None => on,
        };
        let killed = recording.runner_killed_after_chunks.is_some() || recording.runner_killed_ms.is_some();
        killed.then(|| on.then(Then::Kill))
    });
    rules.fold(Script::default(), Script::and)
}

/// One request runs, one waits for its place, one stands in the queue; they stay until the mock is dropped.
async fn fill_the_queue(mock: &Mock) {
    let ask = async |model: &str, text: &str| {
        let body = serde_json::json!({"model": model, "messages": [{"role": "user", "content": text}]}).to_string();
        let head = format!("POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", body.len());
        let mut socket = TcpStream::connect(mock.addr()).await.unwrap();
        socket.write_all((head + &body).as_bytes()).await.unwrap();
        socket
    };
    let mut running = ask("smollm2:135m", "A long story").await;
    running.read_exact(&mut [0; 20]).await.unwrap();
    let waiting = [ask("other:135m", "hi").await, ask("other:135m", "hi").await];
    for nth in 1..=2 {
        mock.journal().arrived(nth, LONG).await.unwrap();
    }
    std::mem::forget((running, waiting));
}

/// The digest of the mock's file of `all-minilm`.
async fn minilm(mock: &Mock) -> String {
    let body = "{\"model\":\"all-minilm\"}";
    let head = format!("POST /api/show HTTP/1.0\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let mut socket = TcpStream::connect(mock.addr()).await.unwrap();
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut shown = String::new();
    socket.read_to_string(&mut shown).await.unwrap();
    shown.split("/blobs/sha256-").nth(1).unwrap()[..64].to_owned()
}

async fn delete(mock: &Mock, model: &str) {
    let body = serde_json::json!({"model": model}).to_string();
    let head = format!("DELETE /api/delete HTTP/1.0\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let mut socket = TcpStream::connect(mock.addr()).await.unwrap();
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.0 200"), "{model}: {answer}");
}

async fn exchange(mock: &Mock, version: &str, case: &str, registry: &str) -> (String, String) {
    let mut recording = read(version, case);
    if case.starts_with("transfer/") {
        let body = recording.request.body.replace(REGISTRY, registry);
        recording.request.body = body.replace(MINILM, &minilm(mock).await);
    }
    let host = if case.contains("foreign-host") { "evil.example.com".to_owned() } else { mock.addr().to_string() };
    let asked = tokio::time::timeout(LONG, ask(mock.addr(), &recording, &host)).await;
    let (interim, mut answer) = asked.unwrap_or_else(|_| panic!("{version} {case}: no whole answer within {LONG:?}"));
    let with = |interim: Option<&str>, text: String| interim.map_or(String::new(), |line| format!("{line}\n")) + &text;
    for (_, chunk) in &mut answer.chunks {
        *chunk = chunk.replace(registry, REGISTRY);
    }
    if LISTS.contains(&case) {
        only_common(&mut recording.response, &mut answer);
    }
    if case.starts_with("structured/") && !FREE.contains(&case) {
        let (recorded, answered) = (shape_of_content(&recording.response), shape_of_content(&answer));
        assert_eq!(recorded, answered, "{case}: what the schema allows");
    }
    (
        with(
            recording.interim.as_ref().map(|(_, line, _)| line.as_str()),
            skeleton::of(&recording.response, &recording),
        ),
        with(interim.as_deref(), skeleton::of(&answer, &recording)),
    )
}

/// Kinds and names of the JSON that a model wrote, if it was written to its end.
fn shape_of_content(response: &Response) -> Option<String> {
    fn shape(value: &Value) -> String {
        match value {
            Value::Object(fields) => {
                let fields = fields.iter().map(|(name, value)| format!("{name:?}: {}", shape(value)));
                format!("{{{}}}", fields.collect::<Vec<_>>().join(", "))
            }
            Value::Array(items) => {
                let mut items: Vec<String> = items.iter().map(shape).collect();
                items.dedup();
                format!("[{}]", items.join(", "))
            }
            Value::String(_) => "text".to_owned(),
            Value::Number(_) => "number".to_owned(),
            Value::Bool(_) => "flag".to_owned(),
            Value::Null => "null".to_owned(),
        }
    }
    let answer: Value = serde_json::from_str(&response.chunks[0].1).ok()?;
    let content = answer.pointer("/message/content").or(answer.get("response"))?.as_str()?;
    (answer["done_reason"] == "stop")
        .then(|| serde_json::from_str(content).map_or("no JSON".to_owned(), |json| shape(&json)))
}

/// Leaves in two lists of models those that both have.
fn only_common(recorded: &mut Response, answered: &mut Response) {
    let parse = |response: &Response| -> Value { serde_json::from_str(&response.chunks[0].1).unwrap() };
    let names = |list: &Value| -> BTreeSet<String> {
        list["models"].as_array().unwrap().iter().map(|model| model["name"].as_str().unwrap().to_owned()).collect()
    };
    let (mut one, mut other) = (parse(recorded), parse(answered));
    let common: BTreeSet<String> = names(&one).intersection(&names(&other)).cloned().collect();
    assert!(!common.is_empty());
    for (response, list) in [(recorded, &mut one), (answered, &mut other)] {
        list["models"].as_array_mut().unwrap().retain(|model| common.contains(model["name"].as_str().unwrap()));
        response.chunks[0].1 = list.to_string();
    }
}

#[tokio::test]
async fn the_mock_answers_like_the_recorded_servers() {
    let known: BTreeMap<(&str, &str), &str> =
        KNOWN_DIFFERENCES.iter().map(|(version, case, why)| ((*version, *case), *why)).collect();
    let mut faults = Vec::new();
    for version in VERSIONS {
        let areas = NEW_AREAS.iter().filter(|_| NEW.contains(&version));
        for area in AREAS.iter().chain(areas) {
            let (mut agreed, mut asked) = (0, 0);
            let mock = start(version, area).await;
            let registry = registry::start().await.to_string();
            for case in cases(version, area) {
                for first in FIRST.iter().filter(|(known, _)| *known == case).flat_map(|(_, first)| *first) {
                    exchange(&mock, version, first, &registry).await;
                }
                for model in CLEARED.iter().filter(|(known, _)| *known == case).flat_map(|(_, models)| *models) {
                    delete(&mock, &model.replace(REGISTRY, &registry)).await;
                }
                let (recorded, answered) = exchange(&mock, version, &case, &registry).await;
                asked += 1;
                let agrees = recorded == answered;
                agreed += usize::from(agrees);
                match (agrees, known.get(&(version, case.as_str()))) {
                    (true, None) => {}
                    (false, Some(why)) => println!("{version} {case} differs: {why}"),
                    (true, Some(_)) => faults.push(format!("{version} {case} is a known difference, but agrees")),
                    (false, None) => {
                        faults.push(format!("{version} {case}\n--- recorded\n{recorded}--- answered\n{answered}"));
                    }
                }
            }
            println!("{version} {area}: {agreed} of {asked} exchanges agree with the recording");
        }
    }
    assert!(faults.is_empty(), "{} faults\n\n{}", faults.len(), faults.join("\n\n"));
}

#[test]
fn the_comparison_sees_what_a_client_would() {
    let mut recording = read("0.33.0-rc2", "chat/length");
    let of = |recording: &Recording| skeleton::of(&recording.response, recording);
    let right = of(&recording);
    let whole = recording.response.chunks[0].1.clone();
    for (what, instead) in [
        ("\"done\":true,\"done_reason\":\"length\"", "\"done_reason\":\"length\",\"done\":true"),
        ("\"done_reason\":\"length\"", "\"done_reason\":\"stop\""),
        ("\"eval_count\":1,", ""),
        ("\"eval_count\":1,", "\"eval_count\":1.5,"),
        ("\"eval_count\":1,", "\"eval_count\":\"1\","),
        ("\"content\":\"I\"", "\"content\":\"\""),
        ("\"content\":\"I\"", "\"content\":null"),
        ("\"role\":\"assistant\"", "\"role\":\"user\""),
        ("\"model\":\"smollm2:135m\"", "\"model\":\"smollm2\""),
        ("Z\",", "+00:00\","),
    ] {
        assert!(whole.contains(what), "{what}");
        recording.response.chunks[0].1 = whole.replacen(what, instead, 1);
        assert_ne!(of(&recording), right, "{what} → {instead}");
    }
    recording.response.chunks[0].1 = whole.replace("\"content\":\"I\"", "\"content\":\"Hello\"");
    assert_eq!(of(&recording), right, "the model's words are its own");
    recording.response.headers.reverse();
    assert_ne!(of(&recording), right, "the order of headers");
    recording.response.headers.reverse();
    recording.response.headers[0].1 = "application/json".to_owned();
    assert_ne!(of(&recording), right, "the value of a header");

    let mut stream = read("0.33.0-rc2", "chat/stream");
    let right = of(&stream);
    let joined = stream.response.chunks[0].1.clone() + &stream.response.chunks[1].1;
    stream.response.chunks[1].1 = joined;
    assert_ne!(of(&stream), right, "two lines in a chunk");
    let mut stream = read("0.33.0-rc2", "chat/stream");
    let last = stream.response.chunks.len() - 1;
    stream.response.chunks[last].1 = stream.response.chunks[last].1.trim_end().to_owned();
    assert_ne!(of(&stream), right, "the last newline");
    let mut error = read("0.33.0-rc2", "chat/bad-option");
    let right = of(&error);
    error.response.chunks[0].1 = error.response.chunks[0].1.replace("float32", "float");
    assert_ne!(of(&error), right, "the text of an error");
}
