//! The models that the mock has from the start.

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::{Architecture, Calls, Capability, Card, Mode, Model};
use crate::names::Name;

/// Which models the mock has from the start; others can be added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stock {
    /// `gpt-oss:20b`, `agent`, `qwen3-vl:8b`, `gemma4:e4b`, `llama-guard3:8b`, and the recorded ones.
    #[default]
    Usual,
    /// Those of the recordings alone: `smollm2:135m`, `caller:135m`, `pair:135m`, `thinker:135m`, `filler:135m`,
    /// `all-minilm`.
    Recorded,
    /// None.
    Empty,
}

impl Stock {
    /// The models; they were made yesterday, so that what is made today is newer.
    pub(crate) fn models(self) -> Vec<Model> {
        let mut models = match self {
            Self::Empty => Vec::new(),
            Self::Recorded => recorded(),
            Self::Usual => recorded().into_iter().chain(usual()).collect(),
        };
        let yesterday =
            Timestamp::now().saturating_sub(SignedDuration::from_hours(24)).unwrap_or(Timestamp::UNIX_EPOCH);
        models.iter_mut().for_each(|model| model.modified = yesterday);
        models
    }
}

fn library(name: &str, tag: &str, capabilities: &[Capability]) -> Model {
    let mut model = Model { capabilities: capabilities.to_vec(), ..Model::new(Name::in_library(name, tag)) };
    if model.can(Capability::Completion) {
        model.parameters.insert("stop".to_owned(), json!(["<|im_start|>", "<|im_end|>"]));
    }
    model
}

fn recorded() -> Vec<Model> {
    use Capability::{Completion, Embedding, Insert, Thinking, Tools};
    let minilm = Card {
        architecture: Architecture::Bert,
        basename: "all-minilm",
        parameter_count: 22_565_376,
        parameter_size: "22.57M",
        quantization: "F16",
        file_type: 1,
        context_length: 512,
        embedding_length: 384,
        feed_forward_length: 1536,
        blocks: 6,
        heads: 12,
        heads_kv: 12,
        vocabulary: 30522,
    };
    vec![
        library("smollm2", "135m", &[Completion]),
        Model { calls: Calls::First, ..library("caller", "135m", &[Completion, Tools]) },
        Model { calls: Calls::FirstTwice, ..library("pair", "135m", &[Completion, Tools]) },
        library("thinker", "135m", &[Completion, Thinking]),
        library("filler", "135m", &[Completion, Insert]),
        Model { card: minilm, template: "{{ .Prompt }}".to_owned(), ..library("all-minilm", "latest", &[Embedding]) },
    ]
}

fn usual() -> Vec<Model> {
    use Capability::{Audio, Completion, Thinking, Tools, Vision};
    let card =
        |family: &'static str, basename: &'static str, (count, size): (u64, &'static str), context_length: u32| Card {
            architecture: Architecture::Decoder(family),
            basename,
            parameter_count: count,
            parameter_size: size,
            quantization: "Q4_K_M",
            file_type: 15,
            context_length,
            embedding_length: 2880,
            feed_forward_length: 2880,
            blocks: 24,
            heads: 64,
            heads_kv: 8,
            vocabulary: 201_088,
        };
    let gpt_oss =
        Card { quantization: "MXFP4", file_type: 4, ..card("gptoss", "gpt-oss", (20_914_757_184, "20.9B"), 131_072) };
    vec![
        Model { card: gpt_oss, mode: Mode::Harmony, ..library("gpt-oss", "20b", &[Completion, Tools, Thinking]) },
        Model {
            // What agents say about themselves and their tools fills 8192 tokens.
            card: Card { context_length: 131_072, ..Card::PLAIN },
            calls: Calls::First,
            mode: Mode::Jinja,
            ..library("agent", "latest", &[Completion, Tools])
        },
        Model {
            card: card("qwen3vl", "qwen3-vl", (8_767_123_696, "8.8B"), 262_144),
            ..library("qwen3-vl", "8b", &[Completion, Tools, Vision, Thinking])
        },
        Model {
            card: card("gemma4", "gemma4", (7_996_157_418, "8.0B"), 131_072),
            ..library("gemma4", "e4b", &[Completion, Vision, Audio])
        },
        Model {
            card: card("llama", "llama-guard3", (8_030_261_312, "8.0B"), 131_072),
            is_guard: true,
            ..library("llama-guard3", "8b", &[Completion])
        },
    ]
}
