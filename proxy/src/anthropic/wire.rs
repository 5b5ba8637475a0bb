//! The types of Anthropic's messages, as they cross the wire.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    openai::request::{content::Content, json::Text},
    usage::Usage,
};

/// One message of the conversation.
#[derive(Debug, Deserialize)]
pub(crate) struct Message<'a> {
    #[serde(borrow)]
    pub(crate) role: Text<'a>,
    #[serde(borrow)]
    pub(crate) content: Content<'a, Block<'a>>,
}

/// One block of a content; which fields are filled depends on `kind`.
#[derive(Debug, Deserialize)]
pub(crate) struct Block<'a> {
    #[serde(borrow, rename = "type")]
    pub(crate) kind: Text<'a>,
    #[serde(borrow, default)]
    pub(crate) text: Option<Text<'a>>,
    /// An object of an image or a document, a text of a search result.
    #[serde(borrow, default)]
    pub(crate) source: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(crate) id: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(crate) name: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(crate) input: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(crate) tool_use_id: Option<Text<'a>>,
    /// A content of a tool's result or of a search result; something else in blocks of what Anthropic runs itself.
    #[serde(borrow, default)]
    pub(crate) content: Option<&'a RawValue>,
    #[serde(default)]
    pub(crate) is_error: Option<bool>,
    #[serde(borrow, default)]
    pub(crate) thinking: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(crate) signature: Option<Text<'a>>,
    /// Of a document or a search result.
    #[serde(borrow, default)]
    pub(crate) title: Option<Text<'a>>,
    /// Of a document.
    #[serde(borrow, default)]
    pub(crate) context: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(crate) tool_name: Option<Text<'a>>,
    /// Of redacted thoughts.
    #[serde(borrow, default)]
    #[expect(dead_code, reason = "known, so that it does not count as ignored")]
    pub(crate) data: Option<&'a RawValue>,
    /// In a request it asks for citations; in an answer that comes back it holds some.
    #[serde(borrow, default)]
    pub(crate) citations: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(crate) cache_control: Option<&'a RawValue>,
    /// Who called a tool.
    #[serde(borrow, default)]
    #[expect(dead_code, reason = "known, so that it does not count as ignored")]
    pub(crate) caller: Option<&'a RawValue>,
}

/// Where the data of an image or a document is.
#[derive(Debug, Deserialize)]
pub(crate) struct Source<'a> {
    #[serde(borrow, rename = "type")]
    pub(crate) kind: Text<'a>,
    #[serde(borrow, default)]
    pub(crate) media_type: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(crate) data: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(crate) url: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(crate) content: Option<Content<'a, Block<'a>>>,
}

/// Whether the model thinks.
#[derive(Debug, Deserialize)]
pub(crate) struct ThinkingConfig<'a> {
    #[serde(borrow, rename = "type")]
    pub(crate) kind: Text<'a>,
    #[serde(default)]
    pub(crate) budget_tokens: Option<u64>,
    #[serde(borrow, default)]
    pub(crate) display: Option<Text<'a>>,
}

/// How much effort the model makes, and the form of its answer.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct OutputConfig<'a> {
    #[serde(borrow, default)]
    pub(crate) effort: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(crate) format: Option<Format<'a>>,
}

/// The form of an answer.
#[derive(Debug, Deserialize)]
pub(crate) struct Format<'a> {
    #[serde(borrow, rename = "type")]
    pub(crate) kind: Text<'a>,
    #[serde(borrow, default)]
    pub(crate) schema: Option<&'a RawValue>,
}

/// A tool as the client defines it.
#[derive(Debug, Deserialize)]
pub(crate) struct ClientTool<'a> {
    #[serde(borrow, default)]
    pub(crate) name: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(crate) description: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(crate) input_schema: Option<&'a RawValue>,
    #[serde(default)]
    pub(crate) strict: Option<bool>,
    #[serde(borrow, default, rename = "type")]
    #[expect(dead_code, reason = "read before")]
    pub(crate) kind: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(crate) cache_control: Option<&'a RawValue>,
}

/// Which tools are called.
#[derive(Debug, Deserialize)]
pub(crate) struct Choice<'a> {
    #[serde(borrow, rename = "type")]
    pub(crate) kind: Text<'a>,
    #[serde(borrow, default)]
    pub(crate) name: Option<Text<'a>>,
    #[serde(default)]
    pub(crate) disable_parallel_tool_use: Option<bool>,
}

/// An answer: whole, or empty at the beginning of a stream. Keys that the official types require are always there.
#[derive(Debug, Serialize)]
pub(crate) struct Answer<'a> {
    pub(crate) id: &'a str,
    pub(crate) r#type: &'static str,
    pub(crate) role: &'static str,
    pub(crate) model: &'a str,
    pub(crate) content: &'a [AnswerBlock],
    pub(crate) container: Option<()>,
    pub(crate) stop_reason: Option<&'static str>,
    pub(crate) stop_sequence: Option<&'a str>,
    pub(crate) stop_details: Option<()>,
    pub(crate) usage: AnswerUsage,
}

/// One block of an answer.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum AnswerBlock {
    Thinking { thinking: String, signature: String },
    Text { text: String, citations: Option<()> },
    ToolUse { id: String, name: String, input: Box<RawValue>, caller: Caller },
}

/// Who calls a tool: the model itself.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Caller {
    r#type: &'static str,
}

impl Default for Caller {
    fn default() -> Self {
        Self { r#type: "direct" }
    }
}

/// What an answer cost. Tokens of the prompt that were in the cache are counted apart.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct AnswerUsage {
    pub(crate) input_tokens: u64,
    pub(crate) cache_creation_input_tokens: u64,
    pub(crate) cache_read_input_tokens: u64,
    pub(crate) output_tokens: u64,
}

impl From<Usage> for AnswerUsage {
    fn from(usage: Usage) -> Self {
        Self {
            input_tokens: usage.input.saturating_sub(usage.cached),
            cache_creation_input_tokens: 0,
            cache_read_input_tokens: usage.cached,
            output_tokens: usage.output,
        }
    }
}

/// The first event.
#[derive(Debug, Serialize)]
pub(crate) struct MessageStart<'a> {
    pub(crate) r#type: &'static str,
    pub(crate) message: Answer<'a>,
}

/// A block begins.
#[derive(Debug, Serialize)]
pub(crate) struct BlockStart<'a> {
    pub(crate) r#type: &'static str,
    pub(crate) index: usize,
    pub(crate) content_block: &'a AnswerBlock,
}

/// A block goes on.
#[derive(Debug, Serialize)]
pub(crate) struct BlockDelta<'a> {
    pub(crate) r#type: &'static str,
    pub(crate) index: usize,
    pub(crate) delta: Delta<'a>,
}

/// What a block gains.
#[derive(Debug, Serialize)]
#[serde(tag = "type")]
pub(crate) enum Delta<'a> {
    #[serde(rename = "text_delta")]
    Text { text: &'a str },
    #[serde(rename = "thinking_delta")]
    Thinking { thinking: &'a str },
    #[serde(rename = "signature_delta")]
    Signature { signature: &'a str },
    #[serde(rename = "input_json_delta")]
    InputJson { partial_json: &'a str },
}

/// A block is whole.
#[derive(Debug, Serialize)]
pub(crate) struct BlockStop {
    pub(crate) r#type: &'static str,
    pub(crate) index: usize,
}

/// How the message ends.
#[derive(Debug, Serialize)]
pub(crate) struct MessageDelta<'a> {
    pub(crate) r#type: &'static str,
    pub(crate) delta: End<'a>,
    pub(crate) usage: AnswerUsage,
}

/// Why the model stopped.
#[derive(Debug, Serialize)]
pub(crate) struct End<'a> {
    pub(crate) stop_reason: Option<&'static str>,
    pub(crate) stop_sequence: Option<&'a str>,
    pub(crate) stop_details: Option<()>,
    pub(crate) container: Option<()>,
}

/// The last event.
#[derive(Debug, Serialize)]
pub(crate) struct MessageStop {
    pub(crate) r#type: &'static str,
}

/// The length of a prompt.
#[derive(Debug, Serialize)]
pub(crate) struct TokenCount {
    pub(crate) input_tokens: u64,
}

/// A page of models.
#[derive(Debug, Serialize)]
pub(crate) struct ModelPage<'a> {
    pub(crate) data: Vec<Model<'a>>,
    pub(crate) has_more: bool,
    pub(crate) first_id: Option<Cow<'a, str>>,
    pub(crate) last_id: Option<Cow<'a, str>>,
}

/// One model. Keys that the official types require are always there.
#[derive(Debug, Serialize)]
pub(crate) struct Model<'a> {
    pub(crate) r#type: &'static str,
    pub(crate) id: Cow<'a, str>,
    pub(crate) display_name: Cow<'a, str>,
    pub(crate) created_at: String,
    pub(crate) deprecated_at: Option<()>,
    pub(crate) lifecycle: &'static str,
    pub(crate) line: Option<()>,
    /// The model's maximum context in tokens, if Ollama reports it.
    pub(crate) max_input_tokens: Option<u64>,
    pub(crate) max_tokens: Option<u64>,
    pub(crate) retires_at: Option<()>,
    pub(crate) capabilities: Option<Capabilities>,
}

/// Whether something can be done.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Supported {
    supported: bool,
}

/// What can be done with a model here.
#[derive(Debug, Serialize)]
pub(crate) struct Capabilities {
    batch: Supported,
    citations: Supported,
    code_execution: Supported,
    context_management: ContextManagement,
    effort: Effort,
    image_input: Supported,
    pdf_input: Supported,
    server_tools: ServerTools,
    structured_outputs: Supported,
    thinking: ThinkingCapability,
}

#[derive(Debug, Serialize)]
struct ContextManagement {
    clear_thinking_20251015: Option<()>,
    clear_tool_uses_20250919: Option<()>,
    compact_20260112: Option<()>,
    supported: bool,
}

#[derive(Debug, Serialize)]
struct Effort {
    low: Supported,
    medium: Supported,
    high: Supported,
    xhigh: Supported,
    max: Supported,
    supported: bool,
}

#[derive(Debug, Serialize)]
struct ServerTools {
    code_execution: Supported,
    web_search: Supported,
    supported: bool,
}

#[derive(Debug, Serialize)]
struct ThinkingCapability {
    supported: bool,
    types: ThinkingTypes,
}

#[derive(Debug, Serialize)]
struct ThinkingTypes {
    adaptive: Supported,
    between_tools: Supported,
    disabled: Supported,
    enabled: Supported,
}

impl Capabilities {
    /// Of what Ollama says that the model can do.
    pub(crate) fn of(capabilities: &[Cow<'_, str>]) -> Self {
        let has = |name: &str| Supported { supported: capabilities.iter().any(|known| known == name) };
        let (yes, no, thinks) = (Supported { supported: true }, Supported { supported: false }, has("thinking"));
        Self {
            batch: no,
            citations: no,
            code_execution: no,
            context_management: ContextManagement {
                clear_thinking_20251015: None,
                clear_tool_uses_20250919: None,
                compact_20260112: None,
                supported: false,
            },
            effort: Effort {
                low: thinks,
                medium: thinks,
                high: thinks,
                xhigh: thinks,
                max: thinks,
                supported: thinks.supported,
            },
            image_input: has("vision"),
            // As text.
            pdf_input: yes,
            server_tools: ServerTools { code_execution: no, web_search: no, supported: false },
            structured_outputs: yes,
            thinking: ThinkingCapability {
                supported: thinks.supported,
                types: ThinkingTypes { adaptive: thinks, between_tools: thinks, disabled: yes, enabled: thinks },
            },
        }
    }
}
