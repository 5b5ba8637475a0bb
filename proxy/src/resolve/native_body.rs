//! A native request body with the remote's name for its model and with a preset: every other byte stays. Pure.

use std::{borrow::Cow, fmt, ops::Range};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::openai_body;
use crate::{config::Preset, gate::model_names::Name, openai::request::json::Text};

/// Which fields a route has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Chat,
    Generate,
    Embed,
    /// OpenAI's chats, which pass through to an OpenAI server.
    OpenAiChat,
    /// OpenAI's completions, which do, too.
    OpenAiCompletion,
    /// It runs nothing that a preset is about.
    Other,
}

impl Kind {
    /// The kind of the route with that name in the table.
    pub(super) fn of(route: &str) -> Self {
        match route {
            "api/chat" => Self::Chat,
            "api/generate" => Self::Generate,
            "api/embed" | "api/embeddings" => Self::Embed,
            "chat" => Self::OpenAiChat,
            "completions" => Self::OpenAiCompletion,
            _ => Self::Other,
        }
    }

    /// Whether it is a chat of OpenAI's. None if it is not OpenAI's at all.
    pub(super) fn openai(self) -> Option<bool> {
        match self {
            Self::OpenAiChat => Some(true),
            Self::OpenAiCompletion => Some(false),
            _ => None,
        }
    }

    /// Whether `preset` changes a request of this kind.
    pub(super) fn takes(self, preset: &Preset) -> bool {
        let loads = preset.num_ctx.is_some() || preset.keep_alive.is_some() || !preset.options.is_empty();
        match self {
            Self::Chat | Self::Generate | Self::OpenAiChat | Self::OpenAiCompletion => {
                loads || preset.think.is_some() || preset.system.is_some()
            }
            Self::Embed => loads,
            Self::Other => false,
        }
    }
}

/// `body` with `model` in the place of every name.
pub(super) fn with_name(body: &[u8], names: &[Name], model: &str) -> Vec<u8> {
    let mut edits = Edits::default();
    edits.name(names, model);
    edits.apply(body)
}

/// `body` with `model` in the place of every name, and with those parts of `preset` that it does not have itself. None
/// if it is not an object.
pub(super) fn with_preset(
    body: &[u8],
    names: &[Name],
    model: Option<&str>,
    preset: &Preset,
    kind: Kind,
) -> Option<Vec<u8>> {
    if let Some(chat) = kind.openai() {
        return openai_body::with_preset(body, names, model, preset, chat);
    }
    // What follows the object is not read, as in Go.
    let mut values = serde_json::Deserializer::from_slice(body).into_iter::<Object<'_>>();
    let object = values.next()?.ok()?;
    let end = values.byte_offset() - 1;
    let mut edits = Edits::default();
    if let Some(model) = model {
        edits.name(names, model);
    }
    let mut added = Vec::new();
    let mut set = |edits: &mut Edits, name: &str, value: &str, is_unset: fn(&str) -> bool| match object.last(name) {
        Some(raw) if is_unset(raw.get()) => edits.replace(span(body, raw), value.to_owned()),
        Some(_) => {}
        None => added.push(format!("\"{name}\":{value}")),
    };
    if let Some(value) = &preset.keep_alive {
        set(&mut edits, "keep_alive", value.get(), is_null);
    }
    if let Some(value) = preset.think.as_ref().filter(|_| kind != Kind::Embed) {
        set(&mut edits, "think", value.get(), is_null);
    }
    if let Some(system) = preset.system.as_ref() {
        let system = serde_json::Value::from(&**system).to_string();
        match kind {
            // Ollama's own client sends an empty one where it has none.
            Kind::Generate => set(&mut edits, "system", &system, |raw| is_null(raw) || raw == "\"\""),
            Kind::Chat => edits.system_message(body, &object, &system),
            _ => {}
        }
    }
    let options: Vec<_> = preset.options().filter(|(name, _)| !object.has_option(name)).collect();
    if !options.is_empty() {
        let pair = |(name, value): &(&str, Cow<'_, RawValue>)| format!("{}:{value}", serde_json::Value::from(*name));
        let pairs = options.iter().map(pair).collect::<Vec<_>>().join(",");
        match object.last("options").map(|raw| (raw, serde_json::from_str::<Object<'_>>(raw.get()))) {
            Some((raw, Ok(own))) => {
                let comma = if own.0.is_empty() { "" } else { "," };
                let start = span(body, raw).start + 1;
                edits.replace(start..start, format!("{pairs}{comma}"));
            }
            // What is no object is for Ollama to refuse.
            Some((raw, Err(_))) if !is_null(raw.get()) => {}
            Some((raw, Err(_))) => edits.replace(span(body, raw), format!("{{{pairs}}}")),
            None => added.push(format!("\"options\":{{{pairs}}}")),
        }
    }
    if !added.is_empty() {
        let comma = if object.0.is_empty() { "" } else { "," };
        edits.replace(end..end, format!("{comma}{}", added.join(",")));
    }
    Some(edits.apply(body))
}

fn is_null(raw: &str) -> bool {
    raw == "null"
}

/// Where `raw` stands in `body`, which it was read from.
pub(super) fn span(body: &[u8], raw: &RawValue) -> Range<usize> {
    let start = raw.get().as_ptr() as usize - body.as_ptr() as usize;
    start..start + raw.get().len()
}

/// The fields of an object, in order, each as often as it stands there.
pub(super) struct Object<'a>(pub(super) Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Object<'a> {
    /// The last field of a name, whose case does not count, as in Go.
    pub(super) fn last(&self, name: &str) -> Option<&'a RawValue> {
        self.0.iter().rev().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, raw)| *raw)
    }

    /// Whether any `options` object has `name`. Go merges them.
    fn has_option(&self, name: &str) -> bool {
        let all = self.0.iter().filter(|(known, _)| known.eq_ignore_ascii_case("options"));
        all.filter_map(|(_, raw)| serde_json::from_str::<Object<'_>>(raw.get()).ok())
            .any(|options| options.0.iter().any(|(known, raw)| known == name && !is_null(raw.get())))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some(Text(name)) = map.next_key()? {
                    fields.push((name, map.next_value()?));
                }
                Ok(Object(fields))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

/// Changes to a body.
#[derive(Default)]
pub(super) struct Edits(Vec<(Range<usize>, String)>);

impl Edits {
    pub(super) fn replace(&mut self, span: Range<usize>, text: String) {
        self.0.push((span, text));
    }

    /// Puts `number` in the place of a larger one.
    pub(super) fn number(&mut self, body: &[u8], raw: &RawValue, number: u64) {
        if raw.get().parse::<u64>().is_ok_and(|own| own > number) {
            self.replace(span(body, raw), number.to_string());
        }
    }

    pub(super) fn name(&mut self, names: &[Name], model: &str) {
        let model = serde_json::Value::from(model).to_string();
        self.0.extend(names.iter().filter_map(|name| Some((name.span.clone()?, model.clone()))));
    }

    /// Puts a system message in front of messages that have none.
    pub(super) fn system_message(&mut self, body: &[u8], object: &Object<'_>, system: &str) {
        #[derive(Deserialize)]
        struct Message<'a> {
            #[serde(borrow, default)]
            role: Option<Text<'a>>,
        }
        let Some(raw) = object.last("messages") else { return };
        let Ok(messages) = serde_json::from_str::<Vec<Message<'_>>>(raw.get()) else { return };
        let has_one = messages.iter().any(|message| message.role.as_deref() == Some("system"));
        // Without messages a model is loaded, or unloaded.
        if messages.is_empty() || has_one {
            return;
        }
        let start = span(body, raw).start + 1;
        self.replace(start..start, format!("{{\"role\":\"system\",\"content\":{system}}},"));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn apply(mut self, body: &[u8]) -> Vec<u8> {
        self.0.sort_by_key(|(span, _)| span.start);
        let more: usize = self.0.iter().map(|(_, text)| text.len()).sum();
        let (mut out, mut end) = (Vec::with_capacity(body.len() + more), 0);
        for (span, text) in self.0 {
            out.extend_from_slice(&body[end..span.start]);
            out.extend_from_slice(text.as_bytes());
            end = span.end;
        }
        out.extend_from_slice(&body[end..]);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Config, gate::model_names::Scan};

    fn edited(body: &str, settings: &str, kind: Kind) -> String {
        let config = Config::from_toml(&format!("[models.a]\nto = \"b\"\n{settings}")).unwrap();
        let mut scan = Scan::new(&["model"]);
        scan.push(body.as_bytes()).unwrap();
        let preset = config.models.preset("a").unwrap();
        let edited = with_preset(body.as_bytes(), scan.found(), Some("b"), preset, kind).unwrap();
        String::from_utf8(edited).unwrap()
    }

    #[test]
    fn every_name_is_replaced_and_nothing_else() {
        let body = br#"{ "model" : "a", "x":{"model":"a"}, "MODEL":"\u0061" }"#;
        let mut scan = Scan::new(&["model"]);
        scan.push(body).unwrap();
        let replaced = with_name(body, scan.found(), "b\"c");
        let expected = r#"{ "model" : "b\"c", "x":{"model":"a"}, "MODEL":"b\"c" }"#;
        assert_eq!(String::from_utf8(replaced).unwrap(), expected);
    }

    #[test]
    fn only_what_the_body_does_not_have_is_added() {
        let all = "num_ctx = 5\nkeep_alive = \"1m\"\nthink = false\noptions = { top_k = 7 }\nsystem = \"S\"";
        let tail = r#""keep_alive":"1m","think":false,"options":{"num_ctx":5,"top_k":7}"#;
        let hi = r#"{"role":"user","content":"hi"}"#;
        for (body, expected) in [
            (r#"{"model":"a"}"#.to_owned(), format!(r#"{{"model":"b",{tail}}}"#)),
            (
                format!(r#"{{ "model":"a", "messages": [ {hi} ] }} tail"#),
                format!(r#"{{ "model":"b", "messages": [{{"role":"system","content":"S"}}, {hi} ] ,{tail}}} tail"#),
            ),
            (
                r#"{"options":{ "num_ctx":1},"Keep_Alive":0,"think":"high","model":"a","messages":[{"role":"system","content":"x"}]}"#.to_owned(),
                r#"{"options":{"top_k":7, "num_ctx":1},"Keep_Alive":0,"think":"high","model":"b","messages":[{"role":"system","content":"x"}]}"#.to_owned(),
            ),
            (
                r#"{"model":"a","options":{},"think":null,"keep_alive":1,"messages":[]}"#.to_owned(),
                r#"{"model":"b","options":{"num_ctx":5,"top_k":7},"think":false,"keep_alive":1,"messages":[]}"#.to_owned(),
            ),
            (
                r#"{"model":"a","options":null,"think":true,"keep_alive":1}"#.to_owned(),
                r#"{"model":"b","options":{"num_ctx":5,"top_k":7},"think":true,"keep_alive":1}"#.to_owned(),
            ),
        ] {
            assert_eq!(edited(&body, all, Kind::Chat), expected);
        }
    }

    #[test]
    fn each_route_takes_what_it_has() {
        let all = "keep_alive = \"1m\"\nthink = false\nsystem = \"S\"";
        let body = r#"{"model":"a","system":"","prompt":"p"}"#;
        assert_eq!(
            edited(body, all, Kind::Generate),
            r#"{"model":"b","system":"S","prompt":"p","keep_alive":"1m","think":false}"#
        );
        assert_eq!(edited(r#"{"model":"a"}"#, all, Kind::Embed), r#"{"model":"b","keep_alive":"1m"}"#);
        let own = r#"{"model":"a","system":"mine","keep_alive":1,"think":true}"#;
        assert_eq!(edited(own, all, Kind::Generate), own.replace("\"a\"", "\"b\""));
    }
}
