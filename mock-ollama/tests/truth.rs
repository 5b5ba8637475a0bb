//! The mock against recordings of real servers (`fixtures/<version>/<area>/<case>.json`): the same requests over a raw socket, and the
//! answers' skeletons compared.
//!
//! Each area starts with a fresh server, as `ps/empty` was recorded. Cases come in the order of their names, except where one needs what
//! another leaves behind: see [`ORDER`] and [`FIRST`].

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "truth/recording.rs"]
mod recording;
#[path = "truth/skeleton.rs"]
mod skeleton;

use std::{collections::BTreeMap, path::PathBuf};

use mock_ollama::{Mock, Options, Script, Stock};

use self::recording::{Recording, ask};

const VERSIONS: [&str; 3] = ["0.13.5", "0.20.0", "0.33.0-rc2"];
const AREAS: [&str; 9] = ["basic", "chat", "embed", "generate", "manage", "ps", "show", "thinking", "tools"];

/// Cases of an area in the order in which the state is right: what is not named here comes before, by name.
const ORDER: [(&str, &[&str]); 2] = [
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
];

/// Recorded again when all else was done.
const LAST: (&str, &str) = ("0.33.0-rc2", "manage/tags-after-copy");

/// Asked for their effect before a case.
const FIRST: [(&str, &[&str]); 2] = [("ps/loaded", &["chat/load"]), ("ps/after-unload", &["embed/one", "chat/unload"])];

/// What the recorded weights wrote, where the mock's own words would be others: (versions, case, words).
const WORDS: [(&[&str], &str, &str); 13] = [
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
const NEW: &[&str] = &["0.33.0-rc2"];
const OLD: &[&str] = &["0.13.5", "0.20.0"];
const GARBLED: &str = "<tool_call>\n{\"name\": \"get_weather\", \"parameters\": {\"city\": Paris}\n</tool_call>";
const CALL: &str = "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Rome\"}}\n</tool_call>";

/// (version, case) → why the mock does not answer like the recording.
const KNOWN_DIFFERENCES: [(&str, &str, &str); 0] = [];

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

fn read(version: &str, case: &str) -> Recording {
    Recording::read(&fixtures().join(version).join(case).with_extension("json"))
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

async fn start(version: &str) -> Mock {
    let words = WORDS.iter().filter(|(versions, ..)| versions.contains(&version));
    let script = words.fold(Script::default(), |script, (_, case, words)| {
        let request = read(version, case).request;
        script.and(Script::on(&request.path).containing(&request.body).says(words))
    });
    let options = Options {
        version: version.parse().unwrap(),
        // The servers had their default on a machine without a GPU.
        context_length: Some(4096),
        stock: Stock::Recorded,
        ..Options::default()
    };
    Mock::start_with(options, script).await.unwrap()
}

async fn exchange(mock: &Mock, version: &str, case: &str) -> (String, String) {
    let recording = read(version, case);
    let host = if case.contains("foreign-host") { "evil.example.com".to_owned() } else { mock.addr().to_string() };
    let answer = ask(mock.addr(), &recording, &host).await;
    (skeleton::of(&recording.response, &recording), skeleton::of(&answer, &recording))
}

#[tokio::test]
async fn the_mock_answers_like_the_recorded_servers() {
    let known: BTreeMap<(&str, &str), &str> =
        KNOWN_DIFFERENCES.iter().map(|(version, case, why)| ((*version, *case), *why)).collect();
    let mut faults = Vec::new();
    for version in VERSIONS {
        let (mut agreed, mut asked) = (0, 0);
        for area in AREAS {
            let mock = start(version).await;
            for case in cases(version, area) {
                for first in FIRST.iter().filter(|(known, _)| *known == case).flat_map(|(_, first)| *first) {
                    exchange(&mock, version, first).await;
                }
                let (recorded, answered) = exchange(&mock, version, &case).await;
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
        }
        println!("{version}: {agreed} of {asked} exchanges agree with the recording");
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
