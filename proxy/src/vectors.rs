//! Golden translations: one folder a case under `vectors/<endpoint>/`, plain files that a person can check against the
//! references.
//!
//! | file | what |
//! |---|---|
//! | `client.json` | what the client asks |
//! | `upstream.json` | what Ollama is asked for it |
//! | `receipt.txt` | what was emulated or had no effect, if anything |
//! | `late-receipt.txt` | what of it became known with the answer |
//! | `error.json` | or how the request is refused |
//! | `upstream.ndjson` → `client.sse` | a streamed answer, before and after |
//! | `reply.json` → `answer.json` | a whole answer, before and after |
//!
//! Where there is a file `tools-off`, calls are not repaired. Of several upstream answers the others are
//! `upstream-2.ndjson`, `reply-2.json` and so on; streams are then read a line of each in turn. Outputs are rewritten
//! when `FARLLAMA_BLESS` is set; the diff is the review. Every output is also read by another's types.

use std::{
    fs,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    config,
    error::{self, Dialect, Error},
    openai::response::sse::{Feed, Translator},
    stamp::Stamp,
};

/// One folder.
pub(crate) struct Case {
    folder: PathBuf,
    wrong: Vec<String>,
}

impl Case {
    /// An input, if the case has it.
    pub(crate) fn input(&self, name: &str) -> Option<Vec<u8>> {
        fs::read(self.folder.join(name)).ok()
    }

    /// The inputs `name.ext`, `name-2.ext` and so on.
    pub(crate) fn inputs(&self, name: &str, extension: &str) -> Vec<Vec<u8>> {
        let nth = (2..).map_while(|n| self.input(&format!("{name}-{n}.{extension}")));
        self.input(&format!("{name}.{extension}")).into_iter().chain(nth).collect()
    }

    /// The settings of tools: the defaults, unless there is a file `tools-off`.
    pub(crate) fn tools(&self) -> config::Tools {
        if self.input("tools-off").is_none() {
            return config::Tools::default();
        }
        config::Tools { repair: config::Repair::Off, rescue: config::Repair::Off, ..config::Tools::default() }
    }

    /// Has the streamed answers translated, if the case has any; another's type `T` reads each event.
    pub(crate) fn stream<T: DeserializeOwned>(&mut self, translator: impl Translator) {
        let answers = self.inputs("upstream", "ndjson");
        if answers.is_empty() {
            return;
        }
        let mut feed = Feed::of(translator, answers.len());
        let mut lines: Vec<_> = answers.iter().map(|answer| answer.split_inclusive(|byte| *byte == b'\n')).collect();
        // What goes wrong stands in the frames.
        while lines.iter().any(|lines| lines.clone().next().is_some()) {
            for (nth, lines) in lines.iter_mut().enumerate() {
                let _ = lines.next().map(|line| feed.packet_of(nth, Bytes::copy_from_slice(line)));
            }
        }
        let _ = (0..answers.len()).try_for_each(|nth| feed.eof_of(nth));
        let late = feed.receipt();
        if !late.is_empty() {
            self.output("late-receipt.txt", &format!("{late}\n"));
        }
        let text = String::from_utf8(feed.frames.take().to_vec()).unwrap();
        for data in text.split("\n\n").filter_map(|event| event.strip_prefix("data: ")) {
            if data != "[DONE]" && !data.starts_with("{\"error\"") {
                self.read_by::<T>(data);
            }
        }
        self.output("client.sse", &text);
    }

    /// A refusal in Anthropic's envelope.
    pub(crate) fn anthropic_refusal(&mut self, error: &Error) {
        let body: Value = serde_json::from_slice(&error::body(error, Dialect::Anthropic, Some("req_1"))).unwrap();
        let status = error::speak(error, Dialect::Anthropic, None).status().as_u16();
        self.json("error.json", &serde_json::json!({ "status": status, "body": body }));
    }

    /// An output as text.
    pub(crate) fn output(&mut self, name: &str, text: &str) {
        let path = self.folder.join(name);
        if std::env::var_os("FARLLAMA_BLESS").is_some() {
            fs::write(&path, text).unwrap();
            return;
        }
        let expected = fs::read_to_string(&path).unwrap_or_default();
        if expected != text {
            self.wrong.push(format!("{}\n--- expected\n{expected}\n--- actual\n{text}", path.display()));
        }
    }

    /// An output as JSON, which is printed over several lines, keys in their order.
    pub(crate) fn json(&mut self, name: &str, json: &impl Serialize) {
        let text = serde_json::to_string(json).unwrap();
        let value: Value = serde_json::from_str(&text).unwrap();
        self.output(name, &format!("{}\n", serde_json::to_string_pretty(&value).unwrap()));
    }

    /// A refusal.
    pub(crate) fn refusal(&mut self, error: &Error) {
        let body: Value = serde_json::from_slice(&error::body(error, Dialect::OpenAi, None)).unwrap();
        self.read_by::<async_openai::error::WrappedError>(&body.to_string());
        self.json("error.json", &serde_json::json!({ "status": error.row().status.as_u16(), "body": body }));
    }

    /// Has another's types read an output.
    pub(crate) fn read_by<T: DeserializeOwned>(&mut self, json: &str) {
        if let Err(error) = serde_json::from_str::<T>(json) {
            self.wrong.push(format!(
                "{}: {} cannot read it: {error}\n{json}",
                self.folder.display(),
                std::any::type_name::<T>()
            ));
        }
    }
}

/// Time and identity in every vector.
pub(crate) fn stamp(prefix: &str) -> Stamp {
    let random = "0123456789abcdef0123456789abcdef".to_owned();
    Stamp { id: format!("{prefix}{random}"), random, created: 1_700_000_000 }
}

fn folders(path: &Path) -> Vec<PathBuf> {
    let mut folders: Vec<_> =
        fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect();
    folders.sort();
    folders
}

#[test]
fn every_vector_translates_as_it_is_written_down() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors");
    let (mut cases, mut wrong) = (0, Vec::new());
    for endpoint in folders(&root) {
        let name = endpoint.file_name().unwrap().to_str().unwrap().to_owned();
        for folder in folders(&endpoint) {
            let mut case = Case { folder, wrong: Vec::new() };
            match &*name {
                "audio" => crate::openai::audio::vectors::check(&mut case),
                "batches" => crate::openai::batches::vectors::check(&mut case),
                "bridge" => crate::bridge::vectors::check(&mut case),
                "chat" => crate::openai::chat::vectors::check(&mut case),
                "completions" => crate::openai::completions::vectors::check(&mut case),
                "conversations" => crate::openai::conversations::vectors::check(&mut case),
                "embeddings" => crate::openai::embeddings::vectors::check(&mut case),
                "files" => crate::openai::files::vectors::check(&mut case),
                "images" => crate::openai::images::vectors::check(&mut case),
                "messages" => crate::anthropic::vectors::check(&mut case),
                "models" => crate::openai::models::vectors::check(&mut case),
                "moderations" => crate::openai::moderations::vectors::check(&mut case),
                "responses" => crate::openai::responses::vectors::check(&mut case),
                unknown => panic!("vectors/{unknown} belongs to no endpoint"),
            }
            cases += 1;
            wrong.append(&mut case.wrong);
        }
    }
    assert!(cases > 0, "no vectors in {}", root.display());
    assert!(
        wrong.is_empty(),
        "{} of {cases} vectors differ (cargo xtask bless rewrites them):\n\n{}",
        wrong.len(),
        wrong.join("\n\n")
    );
}
