//! What a model's GGUF file says about it, and the tables that `/api/show` makes of that.

use serde_json::{Map, Value, json};

/// ChatML, as Go's template.
pub(super) const TEMPLATE: &str = "{{- if .System }}<|im_start|>system\n{{ .System }}<|im_end|>\n{{ end }}{{- range .Messages }}{{- if ne .Role \"system\" }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}{{ end }}<|im_start|>assistant\n";

/// What Go takes where a model has no template.
pub(super) const NO_TEMPLATE: &str = "{{ .Prompt }}";
/// Kinds of weights that Ollama makes, in its order.
pub(crate) const QUANTIZATIONS: [&str; 5] = ["F32", "F16", "Q4_K_S", "Q4_K_M", "Q8_0"];

/// The kind of transformer, which decides the names of keys and tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Architecture {
    /// A decoder; its name prefixes the keys.
    Decoder(&'static str),
    /// An encoder for embeddings.
    Bert,
}

/// Facts of a file.
#[derive(Clone, Debug)]
pub(crate) struct Card {
    pub(crate) architecture: Architecture,
    pub(crate) basename: &'static str,
    pub(crate) parameter_count: u64,
    pub(crate) parameter_size: &'static str,
    pub(crate) quantization: &'static str,
    pub(crate) file_type: u32,
    pub(crate) context_length: u32,
    pub(crate) embedding_length: u32,
    pub(crate) feed_forward_length: u32,
    pub(crate) blocks: u32,
    pub(crate) heads: u32,
    pub(crate) heads_kv: u32,
    pub(crate) vocabulary: u32,
}

impl Card {
    /// A small llama; also what a model that was added by name is.
    pub(crate) const PLAIN: Self = Self {
        architecture: Architecture::Decoder("llama"),
        basename: "smollm2",
        parameter_count: 134_515_008,
        parameter_size: "134.52M",
        quantization: "Q4_1",
        file_type: 3,
        context_length: 8192,
        embedding_length: 576,
        feed_forward_length: 1536,
        blocks: 30,
        heads: 9,
        heads_kv: 3,
        vocabulary: 49152,
    };

    pub(crate) fn family(&self) -> &'static str {
        match self.architecture {
            Architecture::Decoder(name) => name,
            Architecture::Bert => "bert",
        }
    }

    /// Takes on other weights, one of [`QUANTIZATIONS`].
    pub(crate) fn quantize(&mut self, to: &'static str) {
        self.quantization = to;
        self.file_type = match to {
            "F32" => 0,
            "F16" => 1,
            "Q4_K_S" => 14,
            "Q4_K_M" => 15,
            _ => 7,
        };
    }

    /// Bytes of the file.
    pub(crate) fn file_size(&self) -> u64 {
        let bits = match self.quantization {
            "F32" => 32,
            "F16" => 16,
            "Q8_0" => 8,
            "Q4_1" => 6,
            _ => 5,
        };
        self.parameter_count * bits / 8
    }

    /// `model_info` of `/api/show`, keys sorted; arrays are null unless they are asked for.
    pub(crate) fn model_info(&self, verbose: bool) -> Map<String, Value> {
        let family = self.family();
        let array = |value: Value| if verbose { value } else { Value::Null };
        let mut info: Vec<(String, Value)> = vec![
            ("general.architecture".into(), family.into()),
            ("general.file_type".into(), self.file_type.into()),
            ("general.parameter_count".into(), self.parameter_count.into()),
            ("general.quantization_version".into(), 2.into()),
        ];
        let mut of_family = |key: &str, value: Value| info.push((format!("{family}.{key}"), value));
        of_family("attention.head_count", self.heads.into());
        of_family("block_count", self.blocks.into());
        of_family("context_length", self.context_length.into());
        of_family("embedding_length", self.embedding_length.into());
        of_family("feed_forward_length", self.feed_forward_length.into());
        match self.architecture {
            Architecture::Decoder(_) => {
                of_family("attention.head_count_kv", self.heads_kv.into());
                of_family("attention.layer_norm_rms_epsilon", json!(1e-5));
                of_family("rope.dimension_count", (self.embedding_length / self.heads.max(1)).into());
                of_family("rope.freq_base", 100_000.into());
                of_family("vocab_size", self.vocabulary.into());
                info.extend([
                    ("general.basename".into(), self.basename.into()),
                    ("general.finetune".into(), "instruct".into()),
                    ("general.languages".into(), array(json!(["en"]))),
                    ("general.license".into(), "apache-2.0".into()),
                    ("general.organization".into(), "Mock".into()),
                    ("general.size_label".into(), self.parameter_size.into()),
                    ("general.type".into(), "model".into()),
                    ("tokenizer.ggml.add_bos_token".into(), false.into()),
                    ("tokenizer.ggml.add_space_prefix".into(), false.into()),
                    ("tokenizer.ggml.bos_token_id".into(), 1.into()),
                    ("tokenizer.ggml.eos_token_id".into(), 2.into()),
                    ("tokenizer.ggml.merges".into(), array(json!(["Ġ t", "Ġ a"]))),
                    ("tokenizer.ggml.model".into(), "gpt2".into()),
                    ("tokenizer.ggml.padding_token_id".into(), 2.into()),
                    ("tokenizer.ggml.pre".into(), "smollm".into()),
                    ("tokenizer.ggml.token_type".into(), array(json!([3, 3, 3, 1]))),
                    (
                        "tokenizer.ggml.tokens".into(),
                        array(json!(["<|endoftext|>", "<|im_start|>", "<|im_end|>", "!"])),
                    ),
                    ("tokenizer.ggml.unknown_token_id".into(), 0.into()),
                ]);
            }
            Architecture::Bert => {
                of_family("attention.causal", false.into());
                of_family("attention.layer_norm_epsilon", json!(1e-12));
                of_family("normalize_embeddings", true.into());
                of_family("pooling_type", 1.into());
                info.extend([
                    ("tokenizer.ggml.cls_token_id".into(), 101.into()),
                    ("tokenizer.ggml.mask_token_id".into(), 103.into()),
                    ("tokenizer.ggml.model".into(), "bert".into()),
                    ("tokenizer.ggml.padding_token_id".into(), 0.into()),
                    ("tokenizer.ggml.pre".into(), "default".into()),
                    ("tokenizer.ggml.scores".into(), array(json!([-1000, -1000, -1000, -1000]))),
                    ("tokenizer.ggml.seperator_token_id".into(), 102.into()),
                    ("tokenizer.ggml.token_type".into(), array(json!([3, 1, 1, 1]))),
                    ("tokenizer.ggml.token_type_count".into(), 2.into()),
                    ("tokenizer.ggml.tokens".into(), array(json!(["[PAD]", "[unused0]", "[UNK]", "[CLS]"]))),
                    ("tokenizer.ggml.unknown_token_id".into(), 100.into()),
                ]);
            }
        }
        info.sort_by(|(one, _), (other, _)| one.cmp(other));
        info.into_iter().collect()
    }

    /// `tensors` of `/api/show`.
    pub(crate) fn tensors(&self) -> Vec<Value> {
        let (width, inner, kv) = (
            self.embedding_length,
            self.feed_forward_length,
            self.embedding_length / self.heads.max(1) * self.heads_kv,
        );
        let tensor = |name: &str, kind: &str, shape: &[u32]| json!({"name": name, "type": kind, "shape": shape});
        let weights = self.quantization;
        let mut all = match self.architecture {
            Architecture::Decoder(_) => vec![
                tensor("output_norm.weight", "F32", &[width]),
                tensor("token_embd.weight", "Q8_0", &[width, self.vocabulary]),
            ],
            Architecture::Bert => vec![
                tensor("position_embd.weight", "F16", &[width, self.context_length]),
                tensor("token_embd.weight", "F16", &[width, self.vocabulary]),
                tensor("token_embd_norm.bias", "F32", &[width]),
                tensor("token_embd_norm.weight", "F32", &[width]),
                tensor("token_types.weight", "F32", &[width, 2]),
            ],
        };
        let block: Vec<(&str, &str, Vec<u32>)> = match self.architecture {
            Architecture::Decoder(_) => vec![
                ("attn_k.weight", weights, vec![width, kv]),
                ("attn_norm.weight", "F32", vec![width]),
                ("attn_output.weight", weights, vec![width, width]),
                ("attn_q.weight", weights, vec![width, width]),
                ("attn_v.weight", weights, vec![width, kv]),
                ("ffn_down.weight", weights, vec![inner, width]),
                ("ffn_gate.weight", weights, vec![width, inner]),
                ("ffn_norm.weight", "F32", vec![width]),
                ("ffn_up.weight", weights, vec![width, inner]),
            ],
            Architecture::Bert => vec![
                ("attn_k.bias", "F32", vec![width]),
                ("attn_k.weight", weights, vec![width, width]),
                ("attn_output.bias", "F32", vec![width]),
                ("attn_output.weight", weights, vec![width, width]),
                ("attn_output_norm.bias", "F32", vec![width]),
                ("attn_output_norm.weight", "F32", vec![width]),
                ("attn_q.bias", "F32", vec![width]),
                ("attn_q.weight", weights, vec![width, width]),
                ("attn_v.bias", "F32", vec![width]),
                ("attn_v.weight", weights, vec![width, width]),
                ("ffn_down.bias", "F32", vec![width]),
                ("ffn_down.weight", weights, vec![inner, width]),
                ("ffn_up.bias", "F32", vec![inner]),
                ("ffn_up.weight", weights, vec![width, inner]),
                ("layer_output_norm.bias", "F32", vec![width]),
                ("layer_output_norm.weight", "F32", vec![width]),
            ],
        };
        for nth in 0..self.blocks {
            all.extend(block.iter().map(|(name, kind, shape)| tensor(&format!("blk.{nth}.{name}"), kind, shape)));
        }
        all
    }
}
