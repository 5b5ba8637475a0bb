//! `tool_choice` as responses write it: flat, and with kinds of tools that chat does not have. Pure.

use std::collections::HashSet;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    error::Error,
    openai::{
        request::json::{Text, read},
        responses::offer::{Offered, is_hosted},
        tools::choice::{Mode, ToolChoice, mode},
    },
    receipt::Receipt,
};

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(borrow, rename = "type")]
    kind: Text<'a>,
    #[serde(borrow, default)]
    name: Option<Text<'a>>,
    #[serde(borrow, default)]
    mode: Option<Text<'a>>,
    #[serde(borrow, default)]
    tools: Option<Vec<One<'a>>>,
}

#[derive(Deserialize)]
struct One<'a> {
    #[serde(borrow, rename = "type")]
    kind: Text<'a>,
    #[serde(borrow, default)]
    name: Option<Text<'a>>,
}

/// # Errors
/// A value that OpenAI's API does not have, or a tool that is not run here.
pub(super) fn read_choice<'a>(
    raw: &'a RawValue,
    offered: &Offered,
    receipt: &mut Receipt,
) -> Result<ToolChoice<'a>, Error> {
    if raw.get().starts_with('"') {
        return ToolChoice::read(raw);
    }
    let choice: Choice<'a> = read("tool_choice", raw)?;
    let need = |field: &str| Error::missing(format!("tool_choice.{field}"));
    let natives = offered.natives();
    // A name that stands for nothing is kept, so that the error can name it.
    let names = |kind: &str, name: Text<'a>, at: &'static str| -> Vec<(Text<'a>, &'static str)> {
        match natives.get(&(kind, &*name)) {
            Some(natives) => natives.iter().map(|native| (Text((*native).to_owned().into()), at)).collect(),
            None => vec![(name, at)],
        }
    };
    match &*choice.kind {
        kind @ ("function" | "custom" | "namespace") => {
            let only = names(kind, choice.name.ok_or_else(|| need("name"))?, "tool_choice.name");
            Ok(ToolChoice::new(Mode::Required, Some(only)))
        }
        "allowed_tools" => {
            let word = choice.mode.ok_or_else(|| need("mode"))?;
            let (mut only, mut seen) = (Vec::new(), HashSet::new());
            for tool in choice.tools.ok_or_else(|| need("tools"))? {
                if is_hosted(&tool.kind) {
                    receipt.note(&format!("tools.{}", &*tool.kind), "skipped");
                } else {
                    let name = tool.name.ok_or_else(|| need("tools[].name"))?;
                    if seen.insert((tool.kind.to_string(), name.to_string())) {
                        only.extend(names(&tool.kind, name, "tool_choice.tools"));
                    }
                }
            }
            Ok(ToolChoice::new(mode(&word, "tool_choice.mode", false)?, Some(only)))
        }
        hosted if is_hosted(hosted) => Err(Error::unsupported(
            "tool_choice.type",
            format!("Tools of type '{hosted}' are run by OpenAI, not here, so that none can be called."),
        )),
        other => Err(Error::invalid(
            "tool_choice.type",
            format!(
                "Invalid value: '{other}'. Supported values are: 'function', 'custom', 'namespace', and 'allowed_tools'."
            ),
        )),
    }
}
