//! A native request for an OpenAI server. Pure.

use std::borrow::Cow;

use base64::Engine;
use serde_json::{Value, value::RawValue};

use crate::{
    bridge::{
        fields::Without,
        go::{Object, bad_request},
        request::{Chat, Common, Embed, Format, Generate, Think},
        wire::{
            Audio, Content, EmbeddingsBody, Field, GenerationBody, ImageUrl, Input, Message, NamedSchema, Part,
            PastCall, PastFunction, ResponseFormat, Tool,
        },
    },
    error::Error,
    ollama,
    receipt::Receipt,
};

/// Which of Ollama's routes is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Shape {
    #[default]
    Chat,
    Generate,
}

/// What the reply depends on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    /// As the client spelled it.
    pub(crate) model: String,
    pub(crate) shape: Shape,
    pub(crate) stream: bool,
    /// Whether thinking between tags is separated from the answer.
    pub(super) splits: bool,
}

/// What a request becomes.
#[derive(Debug)]
pub(super) enum Plan<'a> {
    /// The request only loads or unloads a model.
    Nothing { unloads: bool },
    /// This is asked, at this path below the API's root; these of its fields may be left out if the server refuses
    /// them.
    Ask { path: &'static str, body: Box<GenerationBody<'a>>, used: Without },
}

/// What `POST /api/chat` becomes. `model` is the server's id of the model.
pub(super) fn chat<'a>(
    request: &'a Chat<'a>,
    model: &'a str,
    without: &Without,
    receipt: &mut Receipt,
) -> (Facts, Plan<'a>) {
    let common = &request.common;
    let facts = facts(common, Shape::Chat, true);
    if request.messages.is_empty() {
        return (facts, Plan::Nothing { unloads: common.unloads });
    }
    let mut body = Builder::new(common, model, without, receipt);
    let messages = messages(request, &mut body);
    if let Some(tools) = &request.tools {
        body.fields.push(("tools", Field::Tools(tools.iter().map(|raw| tool(raw)).collect())));
    }
    body.thinking();
    body.format();
    body.sampling();
    if common.logprobs {
        body.fields.push(("logprobs", Field::Flag(true)));
        if common.top_logprobs > 0 {
            body.fields.push(("top_logprobs", Field::Number(common.top_logprobs.into())));
        }
    }
    (facts, body.ask("/chat/completions", Input::Messages(messages)))
}

/// What `POST /api/generate` becomes: a conversation of one prompt, or a completion where the prompt is given raw or
/// has a suffix.
///
/// # Errors
/// Fails if a raw prompt has images.
pub(super) fn generate<'a>(
    request: &'a Generate<'a>,
    model: &'a str,
    without: &Without,
    receipt: &mut Receipt,
) -> Result<(Facts, Plan<'a>), Error> {
    let common = &request.common;
    let completes = request.raw || !request.suffix.is_empty();
    let facts = facts(common, Shape::Generate, !completes);
    if request.prompt.is_empty() {
        return Ok((facts, Plan::Nothing { unloads: common.unloads }));
    }
    if completes && !request.images.is_empty() {
        return Err(bad_request(
            "images are not supported with raw or suffix: the remote is an OpenAI server, whose completions take text only",
        ));
    }
    let mut body = Builder::new(common, model, without, receipt);
    if completes {
        if common.think.is_some() {
            body.receipt.no_effect("think");
        }
        if !request.system.is_empty() {
            body.receipt.no_effect("system");
        }
        body.format();
        body.sampling();
        if common.logprobs {
            body.fields.push(("logprobs", Field::Number(common.top_logprobs.into())));
        }
        let suffix = Some(&*request.suffix).filter(|suffix| !suffix.is_empty());
        return Ok((facts, body.ask("/completions", Input::Prompt { prompt: &request.prompt, suffix })));
    }
    let mut messages = Vec::with_capacity(2);
    if !request.system.is_empty() {
        let content = Some(Content::Text(&request.system));
        messages.push(Message { role: "system", content, ..Message::default() });
    }
    let content = Some(content(&request.prompt, &request.images));
    messages.push(Message { role: "user", content, ..Message::default() });
    body.thinking();
    body.format();
    body.sampling();
    if common.logprobs {
        body.fields.push(("logprobs", Field::Flag(true)));
        if common.top_logprobs > 0 {
            body.fields.push(("top_logprobs", Field::Number(common.top_logprobs.into())));
        }
    }
    Ok((facts, body.ask("/chat/completions", Input::Messages(messages))))
}

/// What `POST /api/embed` becomes.
pub(super) fn embed<'a>(request: &'a Embed<'a>, model: &'a str, without: &Without) -> (EmbeddingsBody<'a>, Without) {
    let mut used = Without::default();
    // A third of the bytes that numbers take.
    let encoding_format = used.add("encoding_format", without).then_some("base64");
    (EmbeddingsBody { model, input: &request.input, encoding_format, dimensions: request.dimensions }, used)
}

fn facts(common: &Common<'_>, shape: Shape, splits: bool) -> Facts {
    Facts { model: common.model.to_string(), shape, stream: common.stream, splits }
}

/// Gathers the fields of a body.
struct Builder<'a, 'r> {
    common: &'a Common<'a>,
    model: &'a str,
    without: &'r Without,
    used: Without,
    fields: Vec<(&'static str, Field<'a>)>,
    receipt: &'r mut Receipt,
}

impl<'a, 'r> Builder<'a, 'r> {
    fn new(common: &'a Common<'a>, model: &'a str, without: &'r Without, receipt: &'r mut Receipt) -> Self {
        let fields = Vec::with_capacity(16);
        let mut builder = Self { common, model, without, used: Without::default(), fields, receipt };
        if common.stream {
            builder.optional("stream_options", Field::Usage { include_usage: true });
        }
        builder
    }

    /// Adds a field that not every server takes. Returns whether it was added.
    fn optional(&mut self, name: &'static str, value: Field<'a>) -> bool {
        let added = self.used.add(name, self.without);
        if added {
            self.fields.push((name, value));
        }
        added
    }

    /// Adds the option `option` under the names that servers have for it, and notes whether none of them is taken.
    fn option(&mut self, option: &str, names: &[&'static str], value: impl Fn() -> Field<'a>) {
        let mut added = false;
        for name in names {
            added |= self.optional(name, value());
        }
        if !added {
            self.receipt.no_effect(&format!("options.{option}"));
        }
    }

    /// How much to think: OpenAI's effort, and the switch that templates of vLLM, SGLang and llama.cpp know.
    fn thinking(&mut self) {
        let Some(think) = self.common.think else { return };
        let on = think != Think::Off;
        let switched = self.optional("chat_template_kwargs", Field::Template { enable_thinking: on, thinking: on });
        let effort = match think {
            Think::Off => Some("none"),
            Think::On => None,
            Think::Level("max") => {
                self.receipt.note("think", "lowered:high");
                Some("high")
            }
            Think::Level(level) => Some(level),
        };
        let leveled = effort.is_some_and(|effort| self.optional("reasoning_effort", Field::Word(effort)));
        if !switched && !leveled {
            self.receipt.no_effect("think");
        }
    }

    fn format(&mut self) {
        let format = match self.common.format {
            Format::Free => return,
            Format::Json => ResponseFormat::JsonObject,
            Format::Schema(schema) => {
                let strict = serde_json::from_str(schema.get()).is_ok_and(|schema| is_strict(&schema));
                ResponseFormat::JsonSchema { json_schema: NamedSchema { name: "response", strict, schema } }
            }
        };
        self.fields.push(("response_format", Field::Format(format)));
    }

    fn sampling(&mut self) {
        for (name, raw) in &self.common.options {
            let (name, raw) = (*name, *raw);
            match name {
                // Zero and less are no limit (recorded: chat/num-predict-0).
                "num_predict" => {
                    if let Some(limit) = whole(raw).filter(|limit| *limit > 0) {
                        let field = match self.used.add("max_tokens", self.without) {
                            true => "max_tokens",
                            false => "max_completion_tokens",
                        };
                        self.fields.push((field, Field::Number(limit)));
                    }
                }
                // -1 is a random one.
                "seed" => {
                    if let Some(seed) = whole(raw).filter(|seed| *seed != -1) {
                        self.option(name, &["seed"], || Field::Number(seed));
                    }
                }
                "stop" => {
                    if !raw.get().trim_matches(['[', ']', ' ', '\n', '\t', '\r']).is_empty() {
                        self.fields.push(("stop", Field::Raw(raw)));
                    }
                }
                "top_k" | "repeat_last_n" => {
                    if let Some(number) = whole(raw) {
                        self.option(name, &[name], || Field::Number(number));
                    }
                }
                // llama.cpp has the one name, vLLM, SGLang and OpenRouter the other.
                "repeat_penalty" => {
                    self.option(name, &["repeat_penalty", "repetition_penalty"], || Field::Raw(raw));
                }
                _ => self.option(name, &[name], || Field::Raw(raw)),
            }
        }
    }

    fn ask(self, path: &'static str, input: Input<'a>) -> Plan<'a> {
        let stream = self.common.stream;
        let body = Box::new(GenerationBody { model: self.model, input, stream, fields: self.fields });
        Plan::Ask { path, body, used: self.used }
    }
}

/// A number as Go reads it into an integer: cut.
fn whole(raw: &RawValue) -> Option<i64> {
    let text = raw.get();
    text.parse().ok().or_else(|| text.parse::<f64>().ok().map(|number| number as i64))
}

/// Whether a schema keeps the rules of OpenAI's strict mode, in which alone OpenAI enforces it: every object closed,
/// every property required.
fn is_strict(schema: &Value) -> bool {
    match schema {
        Value::Object(map) => {
            let closed = match map.get("properties") {
                Some(Value::Object(properties)) => {
                    let required: Vec<_> =
                        map.get("required").and_then(Value::as_array).into_iter().flatten().collect();
                    map.get("additionalProperties") == Some(&Value::Bool(false))
                        && properties.keys().all(|name| required.iter().any(|required| *required == name))
                }
                _ => map.get("type") != Some(&Value::from("object")),
            };
            closed && map.values().all(is_strict)
        }
        Value::Array(list) => list.iter().all(is_strict),
        _ => true,
    }
}

/// A tool, with a type.
fn tool(raw: &RawValue) -> Tool<'_> {
    let object: Object<'_> = serde_json::from_str(raw.get()).unwrap_or_default();
    match object.get("function").filter(|_| object.get("type").is_none()) {
        Some(function) => Tool::Typed { r#type: "function", function },
        None => Tool::Raw(raw),
    }
}

/// One message for each. Calls get ids where they have none, and results find the call that they belong to.
fn messages<'a>(request: &'a Chat<'a>, body: &mut Builder<'a, '_>) -> Vec<Message<'a>> {
    // Calls that no result was found for yet: id and name.
    let mut open: Vec<(Cow<'a, str>, &'a str)> = Vec::new();
    let mut invented = 0_usize;
    let mut out = Vec::with_capacity(request.messages.len());
    for message in &request.messages {
        let mut asked = Message { role: &message.role, ..Message::default() };
        if message.role.is_empty() {
            asked.role = "user";
            body.receipt.emulated("messages[].role");
        }
        for call in &message.tool_calls {
            let id = match &*call.id {
                "" => {
                    invented += 1;
                    Cow::Owned(format!("call_{invented}"))
                }
                id => Cow::Borrowed(id),
            };
            open.push((id.clone(), &call.name));
            asked.tool_calls.push(PastCall {
                id,
                r#type: "function",
                function: PastFunction { name: &call.name, arguments: call.arguments },
            });
        }
        if !message.thinking.is_empty() && body.used.add("reasoning_content", body.without) {
            asked.reasoning_content = Some(&message.thinking);
        }
        if message.role == "tool" {
            let id = &*message.tool_call_id;
            let named = |(_, name): &(Cow<'a, str>, &'a str)| *name == message.tool_name;
            let at = match id {
                "" => open.iter().position(named).or(if open.is_empty() { None } else { Some(0) }),
                id => open.iter().position(|(known, _)| known == id),
            };
            let found = at.map(|at| open.remove(at).0);
            asked.tool_call_id = Some(match id {
                "" => found.unwrap_or_else(|| {
                    invented += 1;
                    Cow::Owned(format!("call_{invented}"))
                }),
                id => Cow::Borrowed(id),
            });
        }
        let empty = message.content.is_empty() && message.images.is_empty();
        if !empty || asked.tool_calls.is_empty() {
            asked.content = Some(content(&message.content, &message.images));
        }
        out.push(asked);
    }
    out
}

/// A text, or parts where there are images or sound.
fn content<'a>(text: &'a str, images: &'a [Cow<'a, str>]) -> Content<'a> {
    if images.is_empty() {
        return Content::Text(text);
    }
    let text = Some(Part::Text { text }).filter(|_| !text.is_empty());
    let media = images.iter().map(|image| match media(image) {
        Media::Image(kind) => {
            Part::ImageUrl { image_url: ImageUrl { url: ["data:", kind, ";base64,", image].concat() } }
        }
        Media::Sound(format) => Part::InputAudio { input_audio: Audio { data: image, format } },
    });
    Content::Parts(text.into_iter().chain(media).collect())
}

/// What a file in base64 is.
#[derive(Debug, PartialEq)]
enum Media {
    Image(&'static str),
    Sound(&'static str),
}

/// By its first bytes. Ollama takes sound for an image too.
fn media(base64: &str) -> Media {
    let begin = base64.get(..16).or(base64.get(..4)).unwrap_or_default();
    let begin = ollama::BASE64.decode(begin).unwrap_or_default();
    match &*begin {
        [0xFF, 0xD8, ..] => Media::Image("image/jpeg"),
        [b'G', b'I', b'F', ..] => Media::Image("image/gif"),
        [b'B', b'M', ..] => Media::Image("image/bmp"),
        [b'I', b'D', b'3', ..] => Media::Sound("mp3"),
        // The eleven bits that begin a frame.
        [0xFF, second, ..] if *second >= 0xE0 => Media::Sound("mp3"),
        // RIFF holds both: the word after its length says which.
        [b'R', b'I', b'F', b'F', .., b'W', b'A', b'V', b'E'] => Media::Sound("wav"),
        [b'R', b'I', b'F', b'F', ..] => Media::Image("image/webp"),
        _ => Media::Image("image/png"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn files_are_known_by_their_first_bytes() {
        for (bytes, expected) in [
            (&b"\x89PNG\r\n\x1a\n...."[..], Media::Image("image/png")),
            (b"\xff\xd8\xff\xe0....", Media::Image("image/jpeg")),
            (b"GIF89a......", Media::Image("image/gif")),
            (b"RIFF\x24\x08\x00\x00WAVEfmt ", Media::Sound("wav")),
            (b"RIFF\xff\xff\xff\xffWAVEfmt ", Media::Sound("wav")),
            (b"RIFF\x24\x08\x00\x00WEBPVP8 ", Media::Image("image/webp")),
            (b"ID3\x04\x00\x00....", Media::Sound("mp3")),
            (b"\xff\xfb\x90\x00....", Media::Sound("mp3")),
            (b"????????????", Media::Image("image/png")),
        ] {
            assert_eq!(media(&ollama::BASE64.encode(bytes)), expected, "{bytes:?}");
        }
        assert_eq!(media(""), Media::Image("image/png"));
    }

    #[test]
    fn a_schema_is_strict_where_every_object_is_closed_and_every_property_required() {
        let closed = json!({"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": false});
        assert!(is_strict(&closed));
        assert!(is_strict(&json!({"type": "array", "items": closed})));
        for open in [
            json!({"type": "object"}),
            json!({"type": "object", "properties": {"a": {}}, "required": ["a"]}),
            json!({"type": "object", "properties": {"a": {}}, "additionalProperties": false}),
            json!({"type": "array", "items": {"type": "object", "properties": {}}}),
        ] {
            assert!(!is_strict(&open), "{open}");
        }
    }

    #[test]
    fn integers_are_cut_as_in_go() {
        let whole = |text: &str| whole(&RawValue::from_string(text.to_owned()).unwrap());
        assert_eq!((whole("1.9"), whole("-1"), whole("2e1")), (Some(1), Some(-1), Some(20)));
    }
}
