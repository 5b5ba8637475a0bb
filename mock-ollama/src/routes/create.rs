//! `/api/create` (`ollama-wire` A8).

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::{
    Call, Refusal, flag, name, named,
    progress::{self, Failure, Step, status},
    text, transfer,
};
use crate::{
    go,
    models::{Calls, Capability, Mode, Model},
    names::Name,
    server::answer::Answer,
    state::State,
};

const REQUEST: go::Request = go::Request {
    name: "CreateRequest",
    fields: &[
        ("model", go::Kind::Text),
        ("stream", go::Kind::Bool),
        ("quantize", go::Kind::Text),
        ("from", go::Kind::Text),
        ("files", go::Kind::TextMap),
        ("adapters", go::Kind::TextMap),
        ("template", go::Kind::Text),
        ("license", go::Kind::Any),
        ("system", go::Kind::Text),
        ("parameters", go::Kind::Map),
        ("messages", go::Kind::Messages),
        ("name", go::Kind::Text),
        ("quantization", go::Kind::Text),
    ],
};

pub(super) fn create(call: &Call<'_>) -> Result<Answer, Refusal> {
    let fields = call.decode(&REQUEST)?;
    let name = name(named(&fields))?;
    let stream = flag(&fields, "stream", true);
    Ok(progress::answer(stream, Creation::new(call.state, name, fields)))
}

/// A model in the making: each stage has its steps, and the next is entered when they are used up.
struct Creation {
    state: Arc<State>,
    name: Name,
    fields: Map<String, Value>,
    stage: Stage,
    steps: Box<dyn Iterator<Item = Step> + Send>,
}

enum Stage {
    Start,
    /// The steps of a pull are told first.
    Pulling(Name),
    Based(Box<Model>),
    Writing(Box<Model>),
    Over,
}

impl Iterator for Creation {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        loop {
            if let Some(step) = self.steps.next() {
                if step.is_err() {
                    self.stage = Stage::Over;
                }
                return Some(step);
            }
            self.steps = match std::mem::replace(&mut self.stage, Stage::Over) {
                Stage::Start => self.base(),
                Stage::Pulling(from) => {
                    self.stage = self.state.model(&from).map_or(Stage::Over, |base| Stage::Based(Box::new(base)));
                    Box::new(std::iter::empty())
                }
                Stage::Based(base) => self.layers(*base),
                Stage::Writing(model) => {
                    self.state.put(*model);
                    Box::new([status("writing manifest"), status("success")].into_iter())
                }
                Stage::Over => return None,
            };
        }
    }
}

impl Creation {
    fn new(state: &Arc<State>, name: Name, fields: Map<String, Value>) -> Self {
        Self { state: Arc::clone(state), name, fields, stage: Stage::Start, steps: Box::new(std::iter::empty()) }
    }

    /// What the model is made of.
    fn base(&mut self) -> Box<dyn Iterator<Item = Step> + Send> {
        let fail = |failure| -> Box<dyn Iterator<Item = Step> + Send> { Box::new(std::iter::once(Err(failure))) };
        let from = text(&self.fields, "from");
        if !from.is_empty() {
            let Some(from) = Name::parse(from) else { return fail(Failure::bad_request("invalid model name")) };
            if let Some(mut base) = self.state.model(&from) {
                base.parent = Some(from.short());
                self.stage = Stage::Based(Box::new(base));
                return Box::new(std::iter::empty());
            }
            let pulling = transfer::pulling(&self.state, &from, false);
            self.stage = Stage::Pulling(from);
            // Its last word is not the creation's.
            return Box::new(pulling.filter(|step| !matches!(step, Ok(value) if value["status"] == "success")));
        }
        let files: Vec<(String, String)> = self
            .fields
            .get("files")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .map(|(name, digest)| (name.clone(), digest.as_str().unwrap_or_default().to_owned()))
            .collect();
        if files.is_empty() {
            return fail(Failure::bad_request("neither 'from' or 'files' was specified"));
        }
        if files.iter().any(|(file, _)| file.starts_with('/') || file.split('/').any(|part| part == "..")) {
            return fail(Failure::bad_request("file path must be relative"));
        }
        let converts = files.iter().any(|(file, _)| file.ends_with(".safetensors"));
        let first = status(if converts { "converting model" } else { "parsing GGUF" });
        let fault = files.iter().find_map(|(_, digest)| self.file_fault(digest, converts));
        let second = match fault {
            Some(text) => Some(Err(Failure::bad_request(text))),
            None => {
                self.stage = Stage::Based(Box::new(self.model_of_files()));
                None
            }
        };
        Box::new(std::iter::once(first).chain(second))
    }

    fn file_fault(&self, digest: &str, converts: bool) -> Option<String> {
        if !is_digest(digest) {
            return Some("invalid digest format".to_owned());
        }
        let Some(start) = self.state.blob(&digest.replacen('-', ":", 1)) else {
            return Some(format!(
                "open {}/blobs/{}: no such file or directory",
                crate::models::STORE,
                digest.replacen(':', "-", 1)
            ));
        };
        (!converts && !start.starts_with(b"GGUF")).then(|| "supplied file was not in GGUF format".to_owned())
    }

    /// A plain model; its template decides what it can do.
    fn model_of_files(&self) -> Model {
        Model {
            capabilities: vec![Capability::Completion],
            mode: Mode::Rendered,
            calls: Calls::Named,
            ..Model::new(self.name.clone())
        }
    }

    /// The base with what the request changes, told layer by layer.
    fn layers(&mut self, base: Model) -> Box<dyn Iterator<Item = Step> + Send> {
        let fields = &self.fields;
        let mut model = Model { name: self.name.clone(), modified: Timestamp::now(), ..base };
        let mut steps = Vec::new();
        let quantize = [text(fields, "quantize"), text(fields, "quantization")].into_iter().find(|to| !to.is_empty());
        if let Some(to) = quantize {
            let Some(known) =
                ["Q4_K_M", "Q4_K_S", "Q8_0", "F16"].into_iter().find(|known| known.eq_ignore_ascii_case(to))
            else {
                return Box::new(std::iter::once(Err(Failure::bad_request(format!(
                    "unsupported quantization type {to}"
                )))));
            };
            steps.push(Ok(serde_json::json!({
                "status": format!("quantizing {} model to {known}", model.card.quantization),
                "digest": "0000000000000000000",
                "total": model.card.file_size(),
                "completed": model.card.file_size(),
            })));
            model.card.quantization = known;
        }
        if !text(fields, "template").is_empty() {
            text(fields, "template").clone_into(&mut model.template);
            learn_from_template(&mut model);
        }
        if !text(fields, "system").is_empty() {
            text(fields, "system").clone_into(&mut model.system);
        }
        match fields.get("license") {
            Some(Value::String(license)) => model.license.clone_from(license),
            Some(Value::Array(parts)) => {
                model.license = parts.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("\n");
            }
            _ => {}
        }
        if let Some(parameters) = fields.get("parameters").and_then(Value::as_object) {
            model.parameters.extend(parameters.clone());
        }
        if let Some(messages) = fields.get("messages").and_then(Value::as_array) {
            model.messages.clone_from(messages);
        }
        for digest in model.layers() {
            let digest = format!("sha256:{digest}");
            let verb = if self.state.blob(&digest).is_some() { "using existing layer" } else { "creating new layer" };
            steps.push(status(format!("{verb} {digest}")));
        }
        self.stage = Stage::Writing(Box::new(model));
        Box::new(steps.into_iter())
    }
}

/// Ollama reads capabilities off a Go template.
fn learn_from_template(model: &mut Model) {
    for (mark, capability) in
        [(".Tools", Capability::Tools), (".Suffix", Capability::Insert), ("<think>", Capability::Thinking)]
    {
        if model.template.contains(mark) && !model.can(capability) {
            model.capabilities.push(capability);
        }
    }
    model.capabilities.sort_unstable();
}

/// `sha256:` or `sha256-`, and 64 hex digits.
pub(super) fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256")
        .and_then(|rest| rest.strip_prefix([':', '-']))
        .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
}
