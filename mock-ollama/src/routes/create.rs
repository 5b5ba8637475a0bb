//! `/api/create` (`ollama-wire` A8).

use crate::version::Feature;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::{
    Call, Refusal, flag, name, named,
    progress::{self, Failure, Reports, steps},
    text, transfer,
};
use crate::{
    go,
    models::{Calls, Capability, Mode, Model, QUANTIZATIONS},
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
    let (state, stream) = (Arc::clone(call.state), flag(&fields, "stream", true));
    let steps = steps(move |reports| async move {
        let creation = Creation { state, name, fields, reports };
        let base = creation.base().await?;
        let model = creation.changed(base)?;
        creation.reports.status("writing manifest");
        creation.state.put(model);
        creation.reports.status("success");
        Ok(())
    });
    Ok(progress::answer(stream, steps))
}

/// A model in the making.
struct Creation {
    state: Arc<State>,
    name: Name,
    fields: Map<String, Value>,
    reports: Reports,
}

impl Creation {
    /// What the model is made of.
    async fn base(&self) -> Result<Model, Failure> {
        let from = text(&self.fields, "from");
        if !from.is_empty() {
            let from = Name::parse(from).ok_or_else(|| Failure::bad_request("invalid model name"))?;
            if let Some(mut base) = self.state.model(&from) {
                base.parent = Some(from.short());
                return Ok(base);
            }
            transfer::pulling(&self.state, &from, false, &self.reports).await?;
            return self.state.model(&from).ok_or_else(|| Failure::new("file does not exist"));
        }
        let files = self.fields.get("files").and_then(Value::as_object).cloned().unwrap_or_default();
        if files.is_empty() {
            return Err(Failure::bad_request("neither 'from' or 'files' was specified"));
        }
        if files.keys().any(|file| file.starts_with('/') || file.split('/').any(|part| part == "..")) {
            return Err(Failure::bad_request("file path must be relative"));
        }
        let converts = files.keys().any(|file| file.ends_with(".safetensors"));
        self.reports.status(if converts { "converting model" } else { "parsing GGUF" });
        for digest in files.values() {
            self.check_file(digest.as_str().unwrap_or_default(), converts)?;
        }
        let digest = files.values().next().and_then(Value::as_str).unwrap_or_default();
        Ok(self.model_of_file(&digest.replacen('-', ":", 1).to_lowercase(), converts))
    }

    fn check_file(&self, digest: &str, converts: bool) -> Result<(), Failure> {
        if !is_digest(digest) {
            return Err(Failure::bad_request("invalid digest format"));
        }
        let Some(start) = self.state.blob(&digest.replacen('-', ":", 1)) else {
            let file = digest.replacen(':', "-", 1);
            let text = format!("open {}/blobs/{file}: no such file or directory", crate::models::STORE);
            return Err(Failure::bad_request(text));
        };
        if converts || start.starts_with(b"GGUF") {
            return Ok(());
        }
        Err(Failure::bad_request("supplied file was not in GGUF format"))
    }

    /// A plain model of a file; its template decides what it can do. A file that is another model's is known.
    fn model_of_file(&self, digest: &str, converts: bool) -> Model {
        let hex = digest.strip_prefix("sha256:").unwrap_or(digest);
        let known = self.state.models().into_iter().find(|model| model.weights() == hex);
        let plain = Model {
            capabilities: vec![Capability::Completion],
            mode: Mode::Rendered,
            calls: Calls::Named,
            ..Model::new(self.name.clone())
        };
        match known {
            Some(known) => {
                let can = if known.can(Capability::Embedding) { Capability::Embedding } else { Capability::Completion };
                let template = if known.has_template() { plain.template.clone() } else { known.template };
                Model {
                    card: known.card,
                    origin: known.origin,
                    file: known.file,
                    capabilities: vec![can],
                    template,
                    ..plain
                }
            }
            None if converts => plain,
            None => Model { file: Some(hex.to_owned()), ..plain },
        }
    }

    /// The base with what the request changes, reported layer by layer.
    fn changed(&self, base: Model) -> Result<Model, Failure> {
        let fields = &self.fields;
        let mut model = Model { name: self.name.clone(), modified: Timestamp::now(), ..base };
        let quantize = [text(fields, "quantize"), text(fields, "quantization")].into_iter().find(|to| !to.is_empty());
        self.quantize(&mut model, quantize)?;
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
        for layer in model.contents() {
            let digest = format!("sha256:{}", layer.digest);
            let verb = if self.state.blob(&digest).is_some() { "using existing layer" } else { "creating new layer" };
            self.reports.status(format!("{verb} {digest}"));
            self.state.put_blob(&digest, layer.content);
        }
        Ok(model)
    }

    /// Other weights, from floats alone. llama-server's Ollama verifies what it wrote, as it does with files; older
    /// ones report progress.
    fn quantize(&self, model: &mut Model, to: Option<&str>) -> Result<(), Failure> {
        let is_new = self.state.version.has(Feature::LlamaServer);
        if let Some(to) = to {
            let wanted = to.to_uppercase();
            let Some(known) = QUANTIZATIONS.into_iter().find(|known| *known == wanted) else {
                let text = format!(
                    "unsupported quantization type {wanted} - supported types are {}",
                    QUANTIZATIONS.join(", ")
                );
                return Err(if is_new {
                    Failure::new(text)
                } else {
                    Failure::bad_request(format!("unsupported quantization type {to}"))
                });
            };
            if is_new && !["F16", "BF16", "F32"].contains(&model.card.quantization) {
                return Err(Failure::new("quantization is only supported for F16, BF16 and F32 models"));
            }
            if !is_new {
                self.reports.quantizing(model.card.quantization, known, model.card.file_size());
            }
            model.card.quantize(known);
            model.file = None;
        }
        let is_from_file = text(&self.fields, "from").is_empty();
        if is_new && (to.is_some() || is_from_file) {
            self.reports.status("verifying conversion");
        }
        Ok(())
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
