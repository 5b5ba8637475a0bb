//! The models that the mock has: what each can do, and what Ollama reports about it.

mod card;
mod stock;

use std::{fmt, str::FromStr};

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, de::Error};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

pub(crate) use self::card::{Architecture, Card, QUANTIZATIONS};
pub use self::stock::Stock;
use crate::{names::Name, server::request::hex};

/// Where Ollama keeps its models on Linux.
pub(crate) const STORE: &str = "/usr/share/ollama/.ollama/models";

/// What a model can do, in Ollama's words and order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Capability {
    Completion,
    Tools,
    Insert,
    Vision,
    Embedding,
    Thinking,
    Audio,
}

impl Capability {
    const ALL: [Self; 7] =
        [Self::Completion, Self::Tools, Self::Insert, Self::Vision, Self::Embedding, Self::Thinking, Self::Audio];

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Completion => "completion",
            Self::Tools => "tools",
            Self::Insert => "insert",
            Self::Vision => "vision",
            Self::Embedding => "embedding",
            Self::Thinking => "thinking",
            Self::Audio => "audio",
        }
    }
}

/// How a model's text becomes tool calls (`ollama-wire` A5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Ollama renders the prompt and parses the answer: each call stands on a chunk of its own.
    Rendered,
    /// As rendered, and the index of every call is 0 (gpt-oss).
    Harmony,
    /// The file's own Jinja template runs in llama-server: all calls stand on the final chunk, with its ids.
    Jinja,
}

/// When a model calls tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Calls {
    /// Those that the last message names.
    Named,
    /// The first one that is offered, always.
    First,
    /// The first one, twice.
    FirstTwice,
}

/// A model. `"NAME=tools,thinking"` parses to one (see [`Model::from_str`]).
#[derive(Clone, Debug)]
pub struct Model {
    pub(crate) name: Name,
    pub(crate) capabilities: Vec<Capability>,
    pub(crate) mode: Mode,
    pub(crate) calls: Calls,
    /// It judges, and does not answer.
    pub(crate) is_guard: bool,
    /// What its weights are, if the facts of the file do not identify them.
    pub(crate) origin: String,
    /// The digest of its weights, where they are a file that was brought or pulled.
    pub(crate) file: Option<String>,
    pub(crate) card: Card,
    /// The short name of the model that it was made from; without one it was made from a file.
    pub(crate) parent: Option<String>,
    pub(crate) template: String,
    pub(crate) system: String,
    /// Modelfile parameters, in their order.
    pub(crate) parameters: Map<String, Value>,
    /// Modelfile messages.
    pub(crate) messages: Vec<Value>,
    pub(crate) license: String,
    pub(crate) modified: Timestamp,
}

/// A text that describes no model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoModel {
    /// Not `[host/][namespace/]model[:tag]`.
    #[error("{0:?} is not a model name such as llama3.2 or me/model:tag")]
    Name(String),
    /// A word after `=` that is not known.
    #[error(
        "{0:?} is not a capability: use completion, tools, insert, vision, embedding, thinking, audio, jinja, guard, context:N"
    )]
    Word(String),
}

/// `NAME` or `NAME=WORD,…`: capabilities (a model that says nothing, or no `embedding`, can complete), `jinja` for the
/// second placement of tool calls, `guard` for a model that judges like Llama Guard, `context:N` for the trained
/// context length.
impl FromStr for Model {
    type Err = NoModel;

    fn from_str(text: &str) -> Result<Self, NoModel> {
        let (name, words) = text.split_once('=').unwrap_or((text, ""));
        let mut model = Self::new(Name::parse(name).ok_or_else(|| NoModel::Name(name.to_owned()))?);
        // A file of its own.
        model.origin = model.name.full();
        for word in words.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            if let Some(known) = Capability::ALL.into_iter().find(|known| known.word() == word) {
                model.capabilities.push(known);
            } else if word == "jinja" {
                model.mode = Mode::Jinja;
            } else if word == "guard" {
                model.is_guard = true;
            } else if let Some(Ok(length)) = word.strip_prefix("context:").map(str::parse) {
                model.card.context_length = length;
            } else {
                return Err(NoModel::Word(word.to_owned()));
            }
        }
        if !model.can(Capability::Embedding) {
            model.capabilities.push(Capability::Completion);
        }
        model.capabilities.sort_unstable();
        model.capabilities.dedup();
        Ok(model)
    }
}

impl<'de> Deserialize<'de> for Model {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<&str> = self.capabilities.iter().map(|capability| capability.word()).collect();
        write!(f, "{} ({})", self.name.short(), words.join(", "))
    }
}

impl Model {
    pub(crate) fn new(name: Name) -> Self {
        Self {
            name,
            capabilities: Vec::new(),
            mode: Mode::Rendered,
            calls: Calls::Named,
            is_guard: false,
            origin: String::new(),
            file: None,
            card: Card::PLAIN,
            parent: None,
            template: card::TEMPLATE.to_owned(),
            system: String::new(),
            parameters: Map::new(),
            messages: Vec::new(),
            license: String::new(),
            modified: Timestamp::now(),
        }
    }

    pub(crate) fn can(&self, capability: Capability) -> bool {
        self.capabilities.contains(&capability)
    }

    /// Digest of the manifest: 64 hex digits that follow from what the model is.
    pub(crate) fn digest(&self) -> String {
        let parts = (self.layers(), self.parameters.len(), &self.capabilities);
        digest_of(&format!("{parts:?}"))
    }

    /// Bytes on disk.
    pub(crate) fn size(&self) -> u64 {
        let texts = self.template.len() + self.system.len() + self.license.len();
        self.card.file_size() + texts as u64 + 500
    }

    /// The digest of the weights.
    pub(crate) fn weights(&self) -> String {
        self.file.clone().unwrap_or_else(|| digest_of(&self.weights_text()))
    }

    /// A placeholder for the weights, which do not exist.
    fn weights_text(&self) -> String {
        format!("GGUF {} {:?}", self.origin, self.card)
    }

    /// Whether the template is a layer; Go's default is none.
    pub(crate) fn has_template(&self) -> bool {
        !self.template.is_empty() && self.template != card::NO_TEMPLATE
    }

    /// Digests of the layers that it has.
    pub(crate) fn layers(&self) -> Vec<String> {
        self.contents().into_iter().map(|layer| layer.digest).collect()
    }

    /// The layers in Ollama's order: weights, template, system, license, parameters, messages.
    pub(crate) fn contents(&self) -> Vec<Layer> {
        let mut weights = Layer::new("model", self.weights_text());
        weights.digest = self.weights();
        let mut layers = vec![weights];
        if self.has_template() {
            layers.push(Layer::new("template", self.template.clone()));
        }
        for (kind, text) in [("system", &self.system), ("license", &self.license)] {
            if !text.is_empty() {
                layers.push(Layer::new(kind, text.clone()));
            }
        }
        if !self.parameters.is_empty() {
            layers.push(Layer::new("params", Value::from(self.parameters.clone()).to_string() + "\n"));
        }
        if !self.messages.is_empty() {
            layers.push(Layer::new("messages", Value::from(self.messages.clone()).to_string() + "\n"));
        }
        layers
    }

    /// The blob that describes it.
    pub(crate) fn config(&self) -> Layer {
        let layers = self.layers().into_iter().map(|digest| format!("sha256:{digest}"));
        let config = serde_json::json!({
            "model_format": "gguf",
            "model_family": self.card.family(),
            "model_families": [self.card.family()],
            "model_type": self.card.parameter_size,
            "file_type": self.card.quantization,
            "architecture": "amd64",
            "os": "linux",
            "capabilities": self.capabilities.iter().map(|can| can.word()).collect::<Vec<_>>(),
            // What weights and a template decide elsewhere.
            "mock": {"mode": format!("{:?}", self.mode), "calls": format!("{:?}", self.calls), "guard": self.is_guard},
            "rootfs": {"type": "layers", "diff_ids": layers.collect::<Vec<String>>()},
        });
        Layer { media_type: CONFIG, ..Layer::new("", config.to_string()) }
    }

    /// A model as a manifest describes it. What the mock's models and their quantized forms have beyond that is known
    /// by their weights.
    pub(crate) fn of_manifest(name: &Name, manifest: &Value, blob: impl Fn(&str) -> Option<Bytes>) -> Self {
        let mut model = Self { template: card::NO_TEMPLATE.to_owned(), ..Self::new(name.clone()) };
        let layers = manifest["layers"].as_array().into_iter().flatten();
        for layer in layers {
            let digest = layer["digest"].as_str().unwrap_or_default();
            let kind = layer["mediaType"].as_str().and_then(|kind| kind.rsplit('.').next()).unwrap_or_default();
            let content = blob(digest).unwrap_or_default();
            let text = || String::from_utf8_lossy(&content).into_owned();
            match kind {
                "model" => model.has_weights(digest.strip_prefix("sha256:").unwrap_or(digest)),
                "template" => model.template = text(),
                "system" => model.system = text(),
                "license" => model.license = text(),
                "params" => model.parameters = serde_json::from_slice(&content).unwrap_or_default(),
                "messages" => model.messages = serde_json::from_slice(&content).unwrap_or_default(),
                _ => {}
            }
        }
        let config = blob(manifest["config"]["digest"].as_str().unwrap_or_default()).unwrap_or_default();
        model.has_config(&serde_json::from_slice(&config).unwrap_or_default());
        if model.capabilities.is_empty() {
            model.capabilities.push(Capability::Completion);
        }
        model
    }

    /// Applies a mock's config.
    fn has_config(&mut self, config: &Value) {
        let is = |key: &str, word: String| config["mock"][key] == word;
        let words = config["capabilities"].as_array().map_or(&[][..], Vec::as_slice);
        if !words.is_empty() {
            self.capabilities =
                Capability::ALL.into_iter().filter(|can| words.iter().any(|word| word == can.word())).collect();
        }
        let modes = [Mode::Rendered, Mode::Harmony, Mode::Jinja];
        self.mode = modes.into_iter().find(|mode| is("mode", format!("{mode:?}"))).unwrap_or(self.mode);
        let calls = [Calls::Named, Calls::First, Calls::FirstTwice];
        self.calls = calls.into_iter().find(|calls| is("calls", format!("{calls:?}"))).unwrap_or(self.calls);
        self.is_guard = config["mock"]["guard"].as_bool().unwrap_or(self.is_guard);
    }

    /// Takes over what is known of weights.
    fn has_weights(&mut self, digest: &str) {
        let forms = Stock::Usual.models().into_iter().flat_map(|known| {
            let quantized = card::QUANTIZATIONS.into_iter().map({
                let known = known.clone();
                move |to| {
                    let mut form = known.clone();
                    form.card.quantize(to);
                    form
                }
            });
            [known.clone()].into_iter().chain(quantized.collect::<Vec<Self>>())
        });
        let known = forms.into_iter().find(|form| form.weights() == digest);
        self.file = Some(digest.to_owned());
        if let Some(known) = known {
            self.card = known.card;
            self.capabilities = known.capabilities;
            (self.mode, self.calls, self.is_guard) = (known.mode, known.calls, known.is_guard);
        }
    }
}

/// The media type of a config.
const CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// A blob of a model.
#[derive(Clone, Debug)]
pub(crate) struct Layer {
    pub(crate) media_type: &'static str,
    /// 64 hex digits.
    pub(crate) digest: String,
    pub(crate) content: Bytes,
}

impl Layer {
    fn new(kind: &str, content: String) -> Self {
        let media_type = match kind {
            "model" => "application/vnd.ollama.image.model",
            "template" => "application/vnd.ollama.image.template",
            "system" => "application/vnd.ollama.image.system",
            "license" => "application/vnd.ollama.image.license",
            "messages" => "application/vnd.ollama.image.messages",
            _ => "application/vnd.ollama.image.params",
        };
        Self { media_type, digest: digest_of(&content), content: content.into() }
    }

    pub(crate) fn is_weights(&self) -> bool {
        self.media_type == "application/vnd.ollama.image.model"
    }

    /// Bytes as a played transfer reports them.
    pub(crate) fn size(&self, model: &Model) -> u64 {
        if self.is_weights() { model.card.file_size() } else { self.content.len() as u64 }
    }
}

/// SHA-256 as 64 hex digits.
pub(crate) fn digest_of(text: &str) -> String {
    hex(&Sha256::digest(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_described_by_its_name_and_what_it_can_do() {
        let model: Model = "me/coder:7b=tools,insert,jinja,context:2048".parse().unwrap();
        assert_eq!(model.to_string(), "me/coder:7b (completion, tools, insert)");
        assert_eq!((model.mode, model.card.context_length), (Mode::Jinja, 2048));
        assert_eq!("e=embedding".parse::<Model>().unwrap().to_string(), "e:latest (embedding)");
        assert_eq!("x y".parse::<Model>().unwrap_err(), NoModel::Name("x y".to_owned()));
        assert_eq!("x=fly".parse::<Model>().unwrap_err(), NoModel::Word("fly".to_owned()));
    }

    #[test]
    fn digests_follow_from_what_a_model_is() {
        let one: Model = "a".parse().unwrap();
        let mut other = Model { name: Name::parse("b").unwrap(), ..one.clone() };
        assert_eq!(one.digest(), other.digest());
        other.system = "Be brief.".to_owned();
        assert_ne!(one.digest(), other.digest());
        assert_eq!(one.weights(), other.weights());
        assert_ne!(one.weights(), "b".parse::<Model>().unwrap().weights(), "each has a file of its own");
    }
}
