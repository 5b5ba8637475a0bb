//! The models of an OpenAI server as Ollama lists and shows them: from what the server reports about each, else from
//! its name. Pure.

use std::{fmt::Write, time::Duration};

use serde::Serialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::ollama::name;

/// The models that a server lists.
#[derive(Debug, Default)]
pub(crate) struct Catalog(Vec<Model>);

/// What is known of a model.
#[derive(Debug, Default)]
struct Model {
    id: String,
    /// Whom the server calls the owner.
    owner: String,
    /// Unix seconds.
    created: i64,
    /// Tokens.
    context: Option<u64>,
    /// The same, if the server itself says so: it is in force.
    reported: Option<u64>,
    parameters: Option<u64>,
    bytes: u64,
    embedding: Option<u64>,
    /// Whether the server has it in memory, as servers of one model do.
    loaded: bool,
    gguf: bool,
    capabilities: Vec<&'static str>,
}

/// A model as `/api/tags` lists it.
#[derive(Debug, Serialize)]
struct Tag<'a> {
    name: String,
    model: String,
    /// The server's own id, where `name` has a tag that it does not have.
    #[serde(skip_serializing_if = "Option::is_none")]
    openai_id: Option<&'a str>,
    modified_at: String,
    size: u64,
    digest: String,
    details: Details,
    capabilities: &'a [&'static str],
}

/// A model as `/api/ps` lists it.
#[derive(Debug, Serialize)]
struct Loaded<'a> {
    name: String,
    model: String,
    /// The server's own id, where `name` has a tag that it does not have.
    #[serde(skip_serializing_if = "Option::is_none")]
    openai_id: Option<&'a str>,
    size: u64,
    digest: String,
    details: Details,
    expires_at: String,
    size_vram: u64,
    context_length: u64,
}

#[derive(Debug, Serialize)]
struct Details {
    parent_model: &'static str,
    format: &'static str,
    family: String,
    families: [String; 1],
    parameter_size: String,
    quantization_level: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    context_length: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    embedding_length: Option<u64>,
}

/// The answer of `POST /api/show`, in Ollama's order.
#[derive(Debug, Serialize)]
struct Show<'a> {
    modelfile: String,
    /// As a model file has them, one a line.
    #[serde(skip_serializing_if = "String::is_empty")]
    parameters: String,
    template: &'static str,
    details: Details,
    model_info: Map<String, Value>,
    capabilities: &'a [&'static str],
    modified_at: String,
}

/// The form in which Ollama's own templates begin, for clients that look for what they mention.
const TEMPLATE: &str =
    "{{ if .System }}{{ .System }}\n\n{{ end }}{{ if .Tools }}{{ .Tools }}\n\n{{ end }}{{ .Prompt }}";
const EMBEDDING_TEMPLATE: &str = "{{ .Prompt }}";

/// A model that is never unloaded, as Ollama shows it.
const NEVER: &str = "2318-01-01T00:00:00Z";

/// Parts of names, in lowercase, of models that embed and do not chat.
const EMBEDDERS: [&str; 9] = ["embed", "minilm", "bge-", "/bge", "e5-", "gte-", "jina-clip", "nomic-ai", "voyage-"];

/// What is known of models by a part of their names, where the server does not say: capabilities besides `completion`,
/// and the context. The first row that fits counts.
const KNOWN: &[(&str, &[&str], u64)] = &[
    ("gpt-5", &["tools", "vision", "thinking"], 400_000),
    ("gpt-4.1", &["tools", "vision"], 1_047_576),
    ("gpt-4o", &["tools", "vision"], 128_000),
    ("gpt-4-turbo", &["tools", "vision"], 128_000),
    ("gpt-3.5-turbo", &["tools"], 16_385),
    ("gpt-oss", &["tools", "thinking"], 131_072),
    ("o4-mini", &["tools", "vision", "thinking"], 200_000),
    ("o3", &["tools", "vision", "thinking"], 200_000),
    ("claude", &["tools", "vision", "thinking"], 200_000),
    ("gemini-2", &["tools", "vision", "thinking"], 1_048_576),
    ("gemini-3", &["tools", "vision", "thinking"], 1_048_576),
    ("gemma-3", &["vision"], 131_072),
    ("llama-3.2-11b", &["vision"], 131_072),
    ("llama-3.2-90b", &["vision"], 131_072),
    ("llama-3.1", &["tools"], 131_072),
    ("llama-3.2", &["tools"], 131_072),
    ("llama-3.3", &["tools"], 131_072),
    ("llama-4", &["tools", "vision"], 1_048_576),
    ("qwen3-vl", &["tools", "vision"], 262_144),
    ("qwen3-coder", &["tools"], 262_144),
    ("qwen3", &["tools", "thinking"], 40_960),
    ("qwq", &["tools", "thinking"], 131_072),
    ("qwen2.5-vl", &["vision"], 128_000),
    ("qwen2-vl", &["vision"], 32_768),
    ("qwen2.5", &["tools"], 32_768),
    ("deepseek-r1", &["thinking"], 131_072),
    ("deepseek-reasoner", &["tools", "thinking"], 131_072),
    ("deepseek", &["tools"], 131_072),
    ("mistral-small", &["tools", "vision"], 131_072),
    ("magistral", &["tools", "thinking"], 40_960),
    ("pixtral", &["tools", "vision"], 131_072),
    ("mistral", &["tools"], 32_768),
    ("mixtral", &["tools"], 32_768),
    ("glm-4.5", &["tools", "thinking"], 131_072),
    ("kimi-k2", &["tools"], 262_144),
    ("llava", &["vision"], 4_096),
    ("smollm2", &["tools"], 8_192),
    ("phi-4", &["tools"], 16_384),
];

impl Catalog {
    /// Reads the answer of `GET /models`: a list, or one under `data`.
    pub(super) fn read(reply: &[u8]) -> Option<Self> {
        let whole: Value = serde_json::from_slice(reply).ok()?;
        let list = whole.as_array().or_else(|| whole.get("data")?.as_array());
        // No models, as some servers put it.
        let list = match list {
            Some(list) => list.as_slice(),
            None if whole.get("object").is_some_and(|object| object == "list") => &[],
            None => return None,
        };
        Some(Self(list.iter().filter_map(Model::read).collect()))
    }

    /// The server's id of the model that a client calls `name`: `m:latest` is `m`, unless there is a model of that
    /// whole name.
    pub(super) fn id_of<'a>(&'a self, name: &'a str) -> &'a str {
        let bare = name.strip_suffix(":latest").unwrap_or(name);
        self.find(name).map_or(bare, |model| &model.id)
    }

    /// Whether there is a model that a client calls `name`.
    pub(super) fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The program that serves the models, if it says so: some call themselves the owner of every model.
    pub(crate) fn server(&self) -> Option<&'static str> {
        const SERVERS: [(&str, &str); 3] = [("vllm", "vLLM"), ("sglang", "SGLang"), ("llamacpp", "llama.cpp")];
        let owner = &self.0.first()?.owner;
        let (_, server) = SERVERS.iter().find(|(known, _)| known == owner)?;
        self.0.iter().all(|model| model.owner == *owner).then_some(server)
    }

    /// The names of the models, as clients of Ollama see them.
    pub(crate) fn names(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|model| named(&model.id))
    }

    fn find(&self, name: &str) -> Option<&Model> {
        let bare = name.strip_suffix(":latest").unwrap_or(name);
        let by = |is: &dyn Fn(&str) -> bool| self.0.iter().find(|model| is(&model.id));
        by(&|id| id == name).or_else(|| by(&|id| id == bare)).or_else(|| by(&|id| name::full(id) == name::full(name)))
    }

    /// The answer of `GET /api/tags`.
    pub(super) fn tags(&self) -> Value {
        let mut models: Vec<&Model> = self.0.iter().collect();
        models.sort_by_key(|model| std::cmp::Reverse(model.created));
        let tag = |model: &Model| {
            let tag = Tag {
                name: named(&model.id),
                model: named(&model.id),
                openai_id: model.untagged(),
                modified_at: model.modified_at(),
                size: model.bytes,
                digest: model.digest(),
                details: model.details(true),
                capabilities: &model.capabilities,
            };
            serde_json::to_value(tag).unwrap_or_default()
        };
        let list: Vec<Value> = models.into_iter().map(tag).collect();
        serde_json::json!({ "models": list })
    }

    /// The answer of `GET /api/ps` at the time `now`: models that the server is known to have in memory, and those that
    /// answered lately, each with the time for which it still counts as loaded.
    pub(super) fn ps(&self, used: &[(&str, Duration)], now: &str) -> Value {
        let now: jiff::Timestamp = now.parse().unwrap_or_default();
        let loaded = self.0.iter().filter_map(|model| {
            let left = used.iter().find(|(id, _)| *id == model.id).map(|(_, left)| *left);
            let expires_at = match (model.loaded, left) {
                (true, _) => NEVER.to_owned(),
                (false, left) => now.checked_add(left?).unwrap_or(now).to_string(),
            };
            let loaded = Loaded {
                name: named(&model.id),
                model: named(&model.id),
                openai_id: model.untagged(),
                size: model.bytes,
                digest: model.digest(),
                details: model.details(false),
                expires_at,
                size_vram: model.bytes,
                context_length: model.context.unwrap_or(0),
            };
            Some(serde_json::to_value(loaded).unwrap_or_default())
        });
        let list: Vec<Value> = loaded.collect();
        serde_json::json!({ "models": list })
    }

    /// The answer of `POST /api/show`. None if there is no such model.
    pub(super) fn show(&self, name: &str) -> Option<Value> {
        let model = self.find(name)?;
        let family = model.family();
        let mut info = Map::new();
        info.insert("general.architecture".to_owned(), family.clone().into());
        info.insert("general.basename".to_owned(), model.id.clone().into());
        if let Some(parameters) = model.parameters {
            info.insert("general.parameter_count".to_owned(), parameters.into());
        }
        if let Some(context) = model.context {
            info.insert(format!("{family}.context_length"), context.into());
        }
        if let Some(embedding) = model.embedding {
            info.insert(format!("{family}.embedding_length"), embedding.into());
        }
        let embeds = model.capabilities.contains(&"embedding");
        let template = if embeds { EMBEDDING_TEMPLATE } else { TEMPLATE };
        let name = named(&model.id);
        let show = Show {
            modelfile: format!(
                "# {name} runs on an OpenAI server behind farllama\nFROM {name}\nTEMPLATE \"\"\"{template}\"\"\"\n"
            ),
            parameters: model.reported.map(|tokens| format!("{:<30} {tokens}", "num_ctx")).unwrap_or_default(),
            template,
            details: model.details(false),
            model_info: info,
            capabilities: &model.capabilities,
            modified_at: model.modified_at(),
        };
        serde_json::to_value(show).ok()
    }
}

/// An id as Ollama names models: with a tag.
fn named(id: &str) -> String {
    match id.rsplit('/').next().unwrap_or(id).contains(':') {
        true => id.to_owned(),
        false => format!("{id}:latest"),
    }
}

impl Model {
    fn read(value: &Value) -> Option<Self> {
        let id = value.get("id").or_else(|| value.get("name"))?.as_str().filter(|id| !id.is_empty())?;
        let meta = value.get("meta");
        let number = |value: Option<&Value>| value.and_then(Value::as_u64).filter(|number| *number > 0);
        // vLLM and SGLang; OpenRouter, Together and farllama; Groq; Mistral and LM Studio; llama.cpp.
        const CONTEXTS: [&str; 5] =
            ["max_model_len", "context_length", "context_window", "max_context_length", "loaded_context_length"];
        let context = CONTEXTS.iter().find_map(|name| number(value.get(*name)));
        let of_meta = |name: &str| number(meta.and_then(|meta| meta.get(name)));
        let lower = id.to_ascii_lowercase();
        let known = KNOWN.iter().find(|(part, ..)| lower.contains(part));
        let context = context.or_else(|| of_meta("n_ctx")).or_else(|| of_meta("n_ctx_train"));
        Some(Self {
            owner: value.get("owned_by").and_then(Value::as_str).unwrap_or_default().to_owned(),
            created: value.get("created").and_then(Value::as_i64).unwrap_or(0),
            context: context.or(known.map(|(.., context)| *context)),
            reported: context,
            parameters: of_meta("n_params"),
            bytes: of_meta("size").unwrap_or(0),
            embedding: of_meta("n_embd"),
            loaded: meta.is_some_and(Value::is_object) || value.get("max_model_len").is_some(),
            gguf: meta.is_some_and(|meta| meta.get("n_params").is_some()) || lower.contains("gguf"),
            capabilities: capabilities(value, &lower, known.map_or(&["tools"], |(_, capabilities, _)| capabilities)),
            id: id.to_owned(),
        })
    }

    /// Its id, if its name in Ollama's lists is another.
    fn untagged(&self) -> Option<&str> {
        Some(&*self.id).filter(|id| named(id) != **id)
    }

    /// Of the id: servers have no other.
    fn digest(&self) -> String {
        let mut digest = String::with_capacity(64);
        for byte in Sha256::digest(self.id.as_bytes()) {
            let _ = write!(digest, "{byte:02x}");
        }
        digest
    }

    fn modified_at(&self) -> String {
        jiff::Timestamp::from_second(self.created).unwrap_or_default().to_string()
    }

    /// The first word of the name: `Qwen/Qwen2.5-7B-Instruct` is of the family `qwen2`.
    fn family(&self) -> String {
        let name = self.id.rsplit(['/', '\\']).next().unwrap_or(&self.id).to_ascii_lowercase();
        let word: String = name.chars().take_while(char::is_ascii_alphanumeric).collect();
        if word.is_empty() { "unknown".to_owned() } else { word }
    }

    fn details(&self, listed: bool) -> Details {
        let family = self.family();
        Details {
            parent_model: "",
            format: if self.gguf { "gguf" } else { "" },
            families: [family.clone()],
            family,
            parameter_size: self.parameters.map_or_else(|| size_in(&self.id), shown),
            quantization_level: quantization(&self.id),
            context_length: self.context.filter(|_| listed),
            embedding_length: self.embedding.filter(|_| listed),
        }
    }
}

/// A number of parameters as Ollama writes it.
fn shown(parameters: u64) -> String {
    match parameters {
        1_000_000_000.. => format!("{:.1}B", parameters as f64 / 1e9),
        1_000_000.. => format!("{:.2}M", parameters as f64 / 1e6),
        _ => parameters.to_string(),
    }
}

/// The number of parameters in a name such as `Llama-3.1-8B-Instruct`.
fn size_in(id: &str) -> String {
    let parts = id.split(|c: char| !(c.is_ascii_alphanumeric() || c == '.'));
    let size = parts.filter(|part| part.len() > 1 && part.ends_with(['b', 'B', 'm', 'M'])).find(|part| {
        let number = &part[..part.len() - 1];
        number.parse::<f64>().is_ok() && number.starts_with(|c: char| c.is_ascii_digit())
    });
    size.unwrap_or_default().to_ascii_uppercase()
}

/// The quantization in a name such as `model-Q4_K_M.gguf`.
fn quantization(id: &str) -> String {
    const KINDS: [&str; 14] = [
        "Q2_K", "Q3_K_M", "Q4_K_M", "Q4_K_S", "Q5_K_M", "Q4_0", "Q4_1", "Q6_K", "Q8_0", "BF16", "F16", "FP8", "AWQ",
        "GPTQ",
    ];
    let upper = id.to_ascii_uppercase();
    KINDS.into_iter().find(|kind| upper.contains(kind)).unwrap_or("unknown").to_owned()
}

/// What a model can do: from what the server reports, else `guessed` from its name.
fn capabilities(value: &Value, id: &str, guessed: &[&'static str]) -> Vec<&'static str> {
    const NAMES: [&str; 7] = ["completion", "tools", "insert", "vision", "embedding", "thinking", "audio"];
    // A list in Ollama's words (farllama, llama.cpp).
    if let Some(list) = value.get("capabilities").and_then(Value::as_array) {
        let has = |name: &&&str| list.iter().any(|known| known == **name);
        let listed: Vec<_> = NAMES.iter().filter(has).copied().collect();
        if !listed.is_empty() {
            return listed;
        }
    }
    let kind = value.get("type").and_then(Value::as_str).unwrap_or_default();
    if matches!(kind, "embedding" | "embeddings") || EMBEDDERS.iter().any(|part| id.contains(part)) {
        return vec!["embedding"];
    }
    let mut all = vec!["completion"];
    let mut reported = false;
    // Mistral: `{"function_calling": true, "vision": false}`.
    if let Some(flags) = value.get("capabilities").and_then(Value::as_object) {
        const FLAGS: [(&str, &str); 4] =
            [("function_calling", "tools"), ("vision", "vision"), ("audio", "audio"), ("completion_fim", "insert")];
        reported = true;
        all.extend(
            FLAGS.iter().filter(|(flag, _)| flags.get(*flag) == Some(&Value::Bool(true))).map(|(_, name)| *name),
        );
    }
    // OpenRouter: the fields that a model takes, and what it reads.
    if let Some(fields) = value.get("supported_parameters").and_then(Value::as_array) {
        reported = true;
        let has = |name: &str| fields.iter().any(|field| field == name);
        all.extend(has("tools").then_some("tools"));
        all.extend((has("reasoning") || has("include_reasoning")).then_some("thinking"));
    }
    let reads = value.get("architecture").and_then(|architecture| architecture.get("input_modalities"));
    if let Some(reads) = reads.and_then(Value::as_array) {
        reported = true;
        all.extend(reads.iter().any(|kind| kind == "image").then_some("vision"));
        all.extend(reads.iter().any(|kind| kind == "audio").then_some("audio"));
    }
    if kind == "vlm" {
        all.push("vision");
    }
    if !reported {
        all.extend(guessed);
    }
    NAMES.into_iter().filter(|name| all.contains(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalog(json: &str) -> Catalog {
        Catalog::read(json.as_bytes()).unwrap()
    }

    #[test]
    fn a_name_finds_its_model_with_and_without_a_tag() {
        let models = catalog(
            r#"{"data":[{"id":"Org/Model-7B"},{"id":"a:free"},{"id":"b"},{"id":"b:latest"},{"id":"c:latest"}]}"#,
        );
        for (name, id) in [
            ("Org/Model-7B:latest", "Org/Model-7B"),
            ("Org/Model-7B", "Org/Model-7B"),
            ("org/model-7b:latest", "Org/Model-7B"),
            ("a:free", "a:free"),
            ("b", "b"),
            ("b:latest", "b:latest"),
            ("c", "c:latest"),
            ("unlisted:latest", "unlisted"),
            ("unlisted:beta", "unlisted:beta"),
        ] {
            assert_eq!(models.id_of(name), id, "{name}");
        }
        assert!(models.has("A:FREE") && !models.has("unlisted"));
        assert_eq!(
            models.names().collect::<Vec<_>>(),
            ["Org/Model-7B:latest", "a:free", "b:latest", "b:latest", "c:latest"]
        );
    }

    #[test]
    fn what_servers_report_is_understood() {
        for (model, context, capabilities) in [
            (r#"{"id":"x","max_model_len":8192}"#, Some(8192), &["completion", "tools"][..]),
            (r#"{"id":"x","meta":{"n_ctx_train":4096,"n_params":134515008}}"#, Some(4096), &["completion", "tools"]),
            (
                r#"{"id":"x","context_length":1000,"supported_parameters":["tools","reasoning"],"architecture":{"input_modalities":["text","image"]}}"#,
                Some(1000),
                &["completion", "tools", "vision", "thinking"],
            ),
            (r#"{"id":"x","supported_parameters":[]}"#, None, &["completion"]),
            (r#"{"id":"x","capabilities":["completion","vision"]}"#, None, &["completion", "vision"]),
            (
                r#"{"id":"x","max_context_length":32768,"capabilities":{"completion_chat":true,"function_calling":true,"vision":false}}"#,
                Some(32768),
                &["completion", "tools"],
            ),
            (r#"{"id":"text-embedding-3-small"}"#, None, &["embedding"]),
            (r#"{"id":"x","type":"embeddings","max_context_length":512}"#, Some(512), &["embedding"]),
            (r#"{"id":"gpt-4o-mini"}"#, Some(128_000), &["completion", "tools", "vision"]),
        ] {
            let catalog = catalog(&format!("[{model}]"));
            assert_eq!((catalog.0[0].context, &*catalog.0[0].capabilities), (context, capabilities), "{model}");
        }
        assert!(Catalog::read(b"<html>").is_none() && Catalog::read(b"{}").is_none());
        assert_eq!(catalog(r#"{"object":"list","data":null}"#).len(), 0);
    }

    #[test]
    fn lists_have_the_servers_own_id_where_the_name_differs() {
        let models = catalog(r#"[{"id":"Org/m","max_model_len":1},{"id":"a:free","max_model_len":1}]"#);
        for list in [models.tags(), models.ps(&[], "")] {
            let list = list["models"].as_array().unwrap();
            let shown: Vec<_> = list.iter().map(|model| (&model["name"], model.get("openai_id"))).collect();
            let id = Value::from("Org/m");
            assert_eq!(shown, [(&Value::from("Org/m:latest"), Some(&id)), (&Value::from("a:free"), None)]);
        }
    }

    #[test]
    fn a_server_is_known_by_the_owner_of_all_models() {
        for (list, server) in [
            (r#"[{"id":"a","owned_by":"vllm"},{"id":"b","owned_by":"vllm"}]"#, Some("vLLM")),
            (r#"[{"id":"a","owned_by":"llamacpp"}]"#, Some("llama.cpp")),
            (r#"[{"id":"a","owned_by":"vllm"},{"id":"b","owned_by":"me"}]"#, None),
            (r#"[{"id":"a","owned_by":"openai"}]"#, None),
            (r#"[{"id":"a"}]"#, None),
            ("[]", None),
        ] {
            assert_eq!(catalog(list).server(), server, "{list}");
        }
    }

    #[test]
    fn only_models_that_are_known_to_be_in_memory_are_loaded() {
        let models = catalog(r#"[{"id":"a","meta":{"size":7,"n_params":135000000,"n_ctx_train":9}},{"id":"b"}]"#);
        let ps = models.ps(&[], "");
        assert_eq!(ps["models"].as_array().unwrap().len(), 1);
        assert_eq!((&ps["models"][0]["name"], &ps["models"][0]["size"]), (&"a:latest".into(), &7.into()));
        let used = [("b", Duration::from_secs(60)), ("gone", Duration::from_secs(60))];
        let ps = models.ps(&used, "2026-01-01T00:00:00Z");
        let shown = |nth: usize| (ps["models"][nth]["name"].as_str(), ps["models"][nth]["expires_at"].as_str());
        assert_eq!(shown(0), (Some("a:latest"), Some(NEVER)));
        assert_eq!(shown(1), (Some("b:latest"), Some("2026-01-01T00:01:00Z")));
        assert_eq!(ps["models"].as_array().unwrap().len(), 2);
        let shown = models.show("a").unwrap();
        assert_eq!(shown["model_info"]["a.context_length"], 9);
        assert_eq!(shown["parameters"], "num_ctx                        9");
        assert!(models.show("b").unwrap().get("parameters").is_none());
        assert!(models.show("c").is_none());
    }

    #[test]
    fn sizes_are_read_out_of_names() {
        for (id, size, level) in [
            ("meta-llama/Llama-3.1-8B-Instruct", "8B", "unknown"),
            ("SmolLM2-135M-Instruct.Q4_1.gguf", "135M", "Q4_1"),
            ("Qwen2.5-0.5B-AWQ", "0.5B", "AWQ"),
            ("gpt-4o", "", "unknown"),
        ] {
            assert_eq!((&*size_in(id), &*quantization(id)), (size, level));
        }
    }
}
