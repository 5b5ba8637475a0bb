//! A request body that passes through to an OpenAI server, with those parts of a preset that OpenAI's API has a field
//! for. Pure.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value;

use super::native_body::{Edits, Object};
use crate::{config::Preset, gate::model_names::Name, openai::request::json::Text, receipt::Receipt};

/// Options of Ollama's that are fields of OpenAI's chats and completions, too.
const SAME: [&str; 6] = ["temperature", "top_p", "seed", "stop", "presence_penalty", "frequency_penalty"];

/// What a part of a preset becomes.
enum Field<'a> {
    /// A field of this name, unless the body has it or one of these.
    Set(&'static str, Cow<'a, str>, &'static [&'static str]),
    /// The system message, as JSON.
    System(String),
    /// OpenAI's API has nothing for it.
    NoEffect(String),
}

/// What each part of `preset` becomes in a chat, or in a completion.
fn fields(preset: &Preset, chat: bool) -> Vec<Field<'_>> {
    let mut fields = Vec::new();
    if preset.keep_alive.is_some() {
        fields.push(Field::NoEffect("keep_alive".to_owned()));
    }
    if let Some(think) = &preset.think {
        fields.push(match think.get() {
            "false" if chat => Field::Set("reasoning_effort", "\"none\"".into(), &[]),
            "\"max\"" if chat => Field::Set("reasoning_effort", "\"high\"".into(), &[]),
            level if chat && level.starts_with('"') => Field::Set("reasoning_effort", level.into(), &[]),
            _ => Field::NoEffect("think".to_owned()),
        });
    }
    if let Some(system) = &preset.system {
        fields.push(match chat {
            true => Field::System(Value::from(&**system).to_string()),
            false => Field::NoEffect("system".to_owned()),
        });
    }
    for (option, value) in preset.options() {
        let limits = value.get().parse::<i64>().is_ok_and(|limit| limit > 0);
        let value = || Cow::<str>::Owned(value.get().to_owned());
        fields.push(match SAME.iter().find(|known| **known == option) {
            Some(name) => Field::Set(name, value(), &[]),
            None if option == "num_predict" && limits => Field::Set("max_tokens", value(), &["max_completion_tokens"]),
            None => Field::NoEffect(option.to_owned()),
        });
    }
    fields
}

/// Notes the parts of `preset` that have no effect.
pub(super) fn note(preset: &Preset, chat: bool, receipt: &mut Receipt) {
    for field in fields(preset, chat) {
        if let Field::NoEffect(name) = field {
            receipt.no_effect(&format!("preset.{name}"));
        }
    }
}

/// `body` with `model` in the place of every name, and with those parts of `preset` that it does not have itself. None
/// if it is not an object.
pub(super) fn with_preset(
    body: &[u8],
    names: &[Name],
    model: Option<&str>,
    preset: &Preset,
    chat: bool,
) -> Option<Vec<u8>> {
    let object: Object<'_> = serde_json::from_slice(body).ok()?;
    let end = body.iter().rposition(|byte| *byte == b'}')?;
    let mut edits = Edits::default();
    if let Some(model) = model {
        edits.name(names, model);
    }
    let has = |name: &str| object.0.iter().any(|(known, raw)| known == name && raw.get() != "null");
    let mut added = String::new();
    for field in fields(preset, chat) {
        match field {
            Field::Set(name, value, others) if !has(name) && !others.iter().any(|other| has(other)) => {
                let comma = if object.0.is_empty() && added.is_empty() { "" } else { "," };
                added += &format!("{comma}\"{name}\":{value}");
            }
            Field::System(system) if !has_instructions(&object) => edits.system_message(body, &object, &system),
            _ => {}
        }
    }
    if !added.is_empty() {
        edits.replace(end..end, added);
    }
    Some(edits.apply(body))
}

/// Whether messages of a chat have one of the developer's, which is what newer clients of OpenAI call the system's.
fn has_instructions(object: &Object<'_>) -> bool {
    #[derive(Deserialize)]
    struct Message<'a> {
        #[serde(borrow, default)]
        role: Option<Text<'a>>,
    }
    let messages = object.last("messages").and_then(|raw| serde_json::from_str::<Vec<Message<'_>>>(raw.get()).ok());
    messages.into_iter().flatten().any(|message| message.role.as_deref() == Some("developer"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Config, gate::model_names::Scan};

    fn preset(fields: &str) -> Config {
        Config::from_toml(&format!("[models.a]\nto = \"b\"\n{fields}")).unwrap()
    }

    #[test]
    fn a_preset_fills_what_the_body_does_not_have() {
        let all = "num_ctx = 5\nkeep_alive = \"1m\"\nthink = \"max\"\nsystem = \"S\"\n\
                   options = { seed = 3, num_predict = 9, top_k = 7 }";
        let tail = r#""reasoning_effort":"high","max_tokens":9,"seed":3"#;
        for (chat, body, expected) in [
            (true, r#"{ "model":"a" }"#.to_owned(), format!(r#"{{ "model":"b" ,{tail}}}"#)),
            (
                true,
                r#"{"model":"a","messages":[{"role":"user","content":"}"}],"seed":1,"max_completion_tokens":2}"#.to_owned(),
                r#"{"model":"b","messages":[{"role":"system","content":"S"},{"role":"user","content":"}"}],"seed":1,"max_completion_tokens":2,"reasoning_effort":"high"}"#.to_owned(),
            ),
            (
                true,
                r#"{"model":"a","messages":[{"role":"developer","content":"x"}],"reasoning_effort":"low"}"#.to_owned(),
                r#"{"model":"b","messages":[{"role":"developer","content":"x"}],"reasoning_effort":"low","max_tokens":9,"seed":3}"#.to_owned(),
            ),
            (false, r#"{"model":"a","prompt":"x"}"#.to_owned(), r#"{"model":"b","prompt":"x","max_tokens":9,"seed":3}"#.to_owned()),
        ] {
            let config = preset(all);
            let mut scan = Scan::new(&["model"]);
            scan.push(body.as_bytes()).unwrap();
            let preset = config.models.preset("a").unwrap();
            let edited = with_preset(body.as_bytes(), scan.found(), Some("b"), preset, chat).unwrap();
            assert_eq!(String::from_utf8(edited).unwrap(), expected, "{body}");
        }
        assert_eq!(with_preset(b"[]", &[], None, preset(all).models.preset("a").unwrap(), true), None);
    }

    #[test]
    fn what_has_no_effect_is_noted() {
        let config =
            preset("num_ctx = 5\nthink = true\nsystem = \"S\"\noptions = { top_k = 7, num_predict = -1, top_p = 0.5 }");
        let noted = |chat| {
            let mut receipt = Receipt::default();
            note(config.models.preset("a").unwrap(), chat, &mut receipt);
            receipt.to_string()
        };
        let options = "preset.num_ctx=no-effect, preset.num_predict=no-effect, preset.top_k=no-effect";
        assert_eq!(noted(true), format!("preset.think=no-effect, {options}"));
        assert_eq!(noted(false), format!("preset.think=no-effect, preset.system=no-effect, {options}"));
    }
}
