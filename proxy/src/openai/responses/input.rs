//! Input items → native messages. What one turn of a model has brought forth (thoughts, words, calls) is several items,
//! and one message. Pure.

use std::{borrow::Cow, collections::HashMap};

use serde::Deserialize;
use serde_json::{Map, Value, value::RawValue};

use super::{compaction::Compacted, offer};
use crate::{
    error::Error,
    ollama::wire::{AskedCall, AskedFunction, Message},
    openai::{
        request::{
            content::{Content, Gathered, gather},
            json::{Text, parse, read},
            parameters::unread,
        },
        tools::arguments,
    },
    receipt::Receipt,
    sealed::{self, Key},
};

/// Items of what OpenAI runs itself: a model here can neither have made them, nor learn from them.
const HOSTED: [&str; 19] = [
    "apply_patch_call",
    "apply_patch_call_output",
    "code_interpreter_call",
    "computer_call",
    "computer_call_output",
    "file_search_call",
    "image_generation_call",
    "local_shell_call",
    "local_shell_call_output",
    "mcp_approval_request",
    "mcp_approval_response",
    "mcp_call",
    "mcp_list_tools",
    "program",
    "program_output",
    "shell_call",
    "shell_call_output",
    "tool_search_call",
    "web_search_call",
];

/// Items that bring tools along, and the field that holds them. Codex sends what a search of its tools has found in
/// this way.
const TOOLS: [&str; 2] = ["additional_tools", "tool_search_output"];

/// Items that this proxy translates, each in its own way.
const KNOWN: [&str; 9] = [
    "message",
    "reasoning",
    "function_call",
    "function_call_output",
    "custom_tool_call",
    "custom_tool_call_output",
    "item_reference",
    "compaction",
    "compaction_summary",
];

/// One item; which fields are filled depends on its type.
#[derive(Debug, Deserialize)]
struct Item<'a> {
    #[serde(borrow, rename = "type", default)]
    #[expect(dead_code, reason = "read before")]
    kind: Option<Text<'a>>,
    #[serde(borrow, default)]
    id: Option<Text<'a>>,
    #[serde(borrow, default)]
    role: Option<Text<'a>>,
    #[serde(borrow, default)]
    content: Option<Content<'a>>,
    #[serde(borrow, default)]
    call_id: Option<Text<'a>>,
    #[serde(borrow, default)]
    name: Option<Text<'a>>,
    #[serde(borrow, default)]
    namespace: Option<Text<'a>>,
    #[serde(borrow, default)]
    arguments: Option<&'a RawValue>,
    #[serde(borrow, default)]
    input: Option<Text<'a>>,
    #[serde(borrow, default)]
    output: Option<Content<'a>>,
    #[serde(borrow, default)]
    summary: Option<Content<'a>>,
    #[serde(borrow, default)]
    encrypted_content: Option<Text<'a>>,
    /// Whether an item was whole, and which phase it is of, changes nothing for the model.
    #[serde(borrow, default)]
    #[expect(dead_code, reason = "known, so that it does not count as ignored")]
    status: Option<&'a RawValue>,
    #[serde(borrow, default)]
    #[expect(dead_code, reason = "known, so that it does not count as ignored")]
    phase: Option<&'a RawValue>,
    #[serde(borrow, default)]
    #[expect(dead_code, reason = "known, so that it does not count as ignored")]
    caller: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Kind<'a> {
    #[serde(borrow, rename = "type", default)]
    kind: Option<Text<'a>>,
    #[serde(borrow, default)]
    role: Option<Text<'a>>,
    #[serde(borrow, default)]
    id: Option<Text<'a>>,
}

/// What kind of item this is; its type may be missing.
pub(crate) fn kind<'a>(item: &'a RawValue, at: &str) -> Result<Cow<'a, str>, Error> {
    // A list would be read as the fields in their order.
    if !item.get().starts_with('{') {
        return Err(Error::Invalid {
            message: format!("Invalid type for '{at}': expected an object."),
            param: Some(at.to_owned()),
            code: Some("invalid_type"),
        });
    }
    let shape: Kind<'a> = read(at, item)?;
    match (shape.kind, shape.role, shape.id) {
        (Some(kind), ..) => Ok(kind.0),
        (None, Some(_), _) => Ok(Cow::Borrowed("message")),
        (None, None, Some(_)) => Ok(Cow::Borrowed("item_reference")),
        (None, None, None) => Err(missing(at, "type")),
    }
}

/// The tools that items bring along, each with its place: those of the items that `from` names, and those of the input.
///
/// # Errors
/// Fails if the tools of an item are not a list.
pub(super) fn brought<'a>(
    from: &str,
    before: impl Iterator<Item = &'a RawValue>,
    input: &'a [Cow<'a, RawValue>],
) -> Result<Vec<(String, &'a RawValue)>, Error> {
    let mut brought = Vec::new();
    for item in before {
        tools(item, || from.to_owned(), &mut brought)?;
    }
    for (n, item) in input.iter().enumerate() {
        tools(item, || format!("input[{n}]"), &mut brought)?;
    }
    Ok(brought)
}

fn tools<'a>(
    item: &'a RawValue,
    at: impl FnOnce() -> String,
    brought: &mut Vec<(String, &'a RawValue)>,
) -> Result<(), Error> {
    #[derive(Deserialize)]
    struct Bringing<'a> {
        #[serde(borrow, default)]
        tools: Option<Vec<&'a RawValue>>,
    }
    // Nearly no item has any, and most are long.
    if memchr::memmem::find(item.get().as_bytes(), b"\"tools\"").is_none() {
        return Ok(());
    }
    let at = at();
    if TOOLS.contains(&&*kind(item, &at)?) {
        let tools = read::<Bringing<'a>>(&at, item)?.tools.unwrap_or_default();
        brought.extend(tools.into_iter().enumerate().map(|(n, tool)| (format!("{at}.tools[{n}]"), tool)));
    }
    Ok(())
}

/// The text of an item of a type that is not known here: that of its content, or of the fields that usually hold one.
fn text_of(item: &RawValue) -> Option<String> {
    /// A text, a list of texts or of parts with a text, or an object with one.
    fn gather(value: &Value, texts: &mut Vec<String>) {
        match value {
            Value::String(text) if !text.is_empty() => texts.push(text.clone()),
            Value::Array(parts) => parts.iter().for_each(|part| gather(part, texts)),
            Value::Object(part) => part.get("text").into_iter().for_each(|text| gather(text, texts)),
            _ => {}
        }
    }
    let item: Map<String, Value> = serde_json::from_str(item.get()).ok()?;
    ["content", "text", "message", "summary", "output"].into_iter().find_map(|field| {
        let mut texts = Vec::new();
        gather(item.get(field)?, &mut texts);
        (!texts.is_empty()).then(|| texts.join("\n"))
    })
}

/// The id of the item that this one stands for.
pub(super) fn reference(item: &RawValue, at: &str) -> Result<Option<String>, Error> {
    if kind(item, at)? != "item_reference" {
        return Ok(None);
    }
    let shape: Kind<'_> = read(at, item)?;
    shape.id.map(|id| Some(id.to_string())).ok_or_else(|| missing(at, "id"))
}

fn missing(at: &str, field: &str) -> Error {
    Error::missing(format!("{at}.{field}"))
}

/// A message without calls that borrows nothing.
fn owned(message: Message<'_>) -> Message<'static> {
    let Message { role, content, images, .. } = message;
    Message {
        role: Cow::Owned(role.into_owned()),
        content: Cow::Owned(content.into_owned()),
        images: images.into_iter().map(|image| Cow::Owned(image.into_owned())).collect(),
        ..Message::default()
    }
}

/// A conversation as it grows, item by item.
#[derive(Debug, Default)]
pub(crate) struct Conversation<'a> {
    messages: Vec<Message<'a>>,
    /// Whether the last message is of the turn that the next item may belong to, too.
    open: bool,
    /// The native names of what was called, by call.
    called: HashMap<String, Cow<'a, str>>,
    /// What opens compactions.
    key: Option<&'a Key>,
}

impl<'a> Conversation<'a> {
    pub(crate) fn new(instructions: Option<Text<'a>>) -> Self {
        let system = |text: Text<'a>| Message { role: "system".into(), content: text.0, ..Message::default() };
        Self { messages: instructions.map(system).into_iter().collect(), ..Self::default() }
    }

    /// Makes room for `more` items.
    pub(crate) fn reserve(&mut self, more: usize) {
        self.messages.reserve(more);
    }

    /// Compactions are opened with `key`.
    pub(crate) fn opening_with(self, key: Option<&'a Key>) -> Self {
        Self { key, ..self }
    }

    pub(super) fn messages(self) -> Vec<Message<'a>> {
        self.messages
    }

    /// Adds an item that stands at `at`, such as `input[2]`. Those that have no effect are noted.
    ///
    /// # Errors
    /// An item that Ollama cannot be given.
    pub(crate) fn add(&mut self, raw: &'a RawValue, at: &str, receipt: &mut Receipt) -> Result<(), Error> {
        let kind = kind(raw, at)?;
        if HOSTED.contains(&&*kind) {
            receipt.note(&format!("input.{kind}"), "skipped");
            return Ok(());
        }
        if TOOLS.contains(&&*kind) {
            receipt.note(&format!("input.{kind}"), "tools");
            return Ok(());
        }
        if !KNOWN.contains(&&*kind) {
            self.unknown(raw, &kind, receipt);
            return Ok(());
        }
        let mut unknown = Vec::new();
        let item: Item<'a> = parse(at, raw, &mut unknown)?;
        unknown.iter().for_each(|path| unread(path, receipt));
        match &*kind {
            "message" => self.message(item, at),
            "reasoning" => {
                self.thought(item, at, receipt)?;
                Ok(())
            }
            "function_call" => {
                let name = item.name.ok_or_else(|| missing(at, "name"))?;
                let name = match item.namespace {
                    Some(namespace) => Cow::Owned(offer::native_name(Some(&namespace), &name)),
                    None => name.0,
                };
                let arguments = arguments(item.arguments, || format!("{at}.arguments"), receipt);
                self.call(item.call_id.or(item.id).ok_or_else(|| missing(at, "call_id"))?.0, name, arguments);
                Ok(())
            }
            "custom_tool_call" => {
                let name = item.name.ok_or_else(|| missing(at, "name"))?;
                let name = offer::native_name(item.namespace.as_deref(), &name);
                let input = item.input.ok_or_else(|| missing(at, "input"))?;
                let call_id = item.call_id.ok_or_else(|| missing(at, "call_id"))?;
                self.call(call_id.0, Cow::Owned(name), Cow::Owned(offer::arguments(&input)?));
                Ok(())
            }
            "function_call_output" | "custom_tool_call_output" => {
                let (name, tool_call_id) = match (item.call_id, item.name) {
                    (Some(call_id), _) => {
                        let Some(name) = self.called.get(&*call_id) else {
                            return Err(Error::Invalid {
                                message: format!(
                                    "No tool call found for function call output with call_id {}.",
                                    &*call_id
                                ),
                                param: Some("input".to_owned()),
                                code: None,
                            });
                        };
                        (name.clone(), Some(call_id.0))
                    }
                    // Codex sends this way what no model called for, such as the goal that it pursues.
                    (None, Some(name)) => (offer::native_name(item.namespace.as_deref(), &name).into(), None),
                    (None, None) => return Err(missing(at, "call_id")),
                };
                let output = item.output.ok_or_else(|| missing(at, "output"))?;
                let Gathered { text, images } = gather(Some(output), || format!("{at}.output"))?;
                let tool_name = Some(name);
                self.push(Message {
                    role: "tool".into(),
                    content: text,
                    images,
                    tool_name,
                    tool_call_id,
                    ..Message::default()
                });
                Ok(())
            }
            "compaction" | "compaction_summary" => {
                let carried = item.encrypted_content.ok_or_else(|| missing(at, "encrypted_content"))?;
                let Some(compacted) = Compacted::open(self.key, &carried) else {
                    return Err(Error::invalid(
                        format!("{at}.encrypted_content"),
                        "This compaction cannot be read: it was changed, or was not made by this proxy with its present key \
                         (responses.compaction_key).",
                    ));
                };
                let mut inner = Conversation::new(None);
                for message in &compacted.messages {
                    inner.add(message, at, receipt)?;
                }
                inner.messages.into_iter().for_each(|message| self.push(owned(message)));
                let content = Cow::Owned(compacted.summary);
                self.push(Message { role: "user".into(), content, ..Message::default() });
                Ok(())
            }
            // What `KNOWN` has besides stands for another item, in whose place it was put before.
            _ => Ok(()),
        }
    }

    /// An item of a type that OpenAI or a client has invented since: an error would break the session, because clients
    /// send every item again on each turn (ollama/ollama#18286). Its text reaches the model; without one it is skipped.
    fn unknown(&mut self, raw: &'a RawValue, kind: &str, receipt: &mut Receipt) {
        let (name, Some(text)) = (format!("input.{kind}"), text_of(raw)) else {
            receipt.note(&format!("input.{kind}"), "skipped");
            return;
        };
        receipt.note(&name, "as-text");
        let role = serde_json::from_str::<Kind<'a>>(raw.get()).ok().and_then(|shape| shape.role);
        if kind.ends_with("reasoning") {
            if let Some(turn) = self.turn(|turn| turn.thinking.is_some() || !turn.content.is_empty()) {
                turn.thinking = Some(Cow::Owned(text));
            }
            return;
        }
        let content = Cow::Owned(text);
        match role.as_deref() {
            Some("assistant") => {
                if let Some(turn) = self.turn(|turn| !turn.content.is_empty() || !turn.tool_calls.is_empty()) {
                    turn.content = content;
                }
            }
            Some("system" | "developer") => self.push(Message { role: "system".into(), content, ..Message::default() }),
            _ => self.push(Message { role: "user".into(), content, ..Message::default() }),
        }
    }

    /// A message that is a turn of its own.
    fn push(&mut self, message: Message<'a>) {
        self.messages.push(message);
        self.open = false;
    }

    /// The model's message that goes on, or a new one where `over` says that the last cannot.
    fn turn(&mut self, over: impl FnOnce(&Message<'a>) -> bool) -> Option<&mut Message<'a>> {
        if !self.open || self.messages.last().is_none_or(over) {
            self.messages.push(Message { role: "assistant".into(), ..Message::default() });
            self.open = true;
        }
        self.messages.last_mut()
    }

    fn message(&mut self, item: Item<'a>, at: &str) -> Result<(), Error> {
        let role = item.role.ok_or_else(|| missing(at, "role"))?;
        let Gathered { text, images } = gather(item.content, || format!("{at}.content"))?;
        match &*role {
            // Few templates know OpenAI's newer name for the system's voice.
            "system" | "developer" => {
                self.push(Message { role: "system".into(), content: text, images, ..Message::default() });
            }
            "user" => self.push(Message { role: "user".into(), content: text, images, ..Message::default() }),
            "assistant" => {
                if let Some(turn) = self.turn(|turn| !turn.content.is_empty() || !turn.tool_calls.is_empty()) {
                    turn.content = text;
                    turn.images = images;
                }
            }
            other => {
                return Err(Error::invalid(
                    format!("{at}.role"),
                    format!(
                        "Invalid value: '{other}'. Supported values are: 'assistant', 'system', 'developer', and 'user'."
                    ),
                ));
            }
        }
        Ok(())
    }

    fn thought(&mut self, item: Item<'a>, at: &str, receipt: &mut Receipt) -> Result<(), Error> {
        // The words themselves if they are there, else what stands for them.
        let content = gather(item.content, || format!("{at}.content"))?.text;
        let summary = gather(item.summary, || format!("{at}.summary"))?.text;
        let carried = item.encrypted_content.map(|carried| sealed::open(&carried));
        let thought = match carried {
            _ if !content.is_empty() => content,
            Some(Some(thought)) => Cow::Owned(thought),
            Some(None) if summary.is_empty() => {
                receipt.no_effect(&format!("{at}.encrypted_content"));
                return Ok(());
            }
            _ => summary,
        };
        if !thought.is_empty()
            && let Some(turn) =
                self.turn(|turn| turn.thinking.is_some() || !turn.content.is_empty() || !turn.tool_calls.is_empty())
        {
            turn.thinking = Some(thought);
        }
        Ok(())
    }

    fn call(&mut self, id: Cow<'a, str>, name: Cow<'a, str>, arguments: Cow<'a, RawValue>) {
        self.called.insert(id.to_string(), name.clone());
        if let Some(turn) = self.turn(|_| false) {
            let index = turn.tool_calls.len();
            turn.tool_calls.push(AskedCall { id: Some(id), function: AskedFunction { index, name, arguments } });
        }
    }
}
