//! Tools and `tool_choice` in Anthropic's shape, as the tools and the choice that all endpoints share. Pure.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::wire::{Choice, ClientTool};
use crate::{
    config::Hosted,
    error::Error,
    openai::{
        request::{
            json::{Text, parse, read},
            parameters::unread,
        },
        tools::{
            Function, Tool,
            choice::{Mode, ToolChoice},
            parameters,
        },
    },
    receipt::Receipt,
};

/// The tools that the model is offered. Those that Anthropic defines or runs itself have a `type` with a date, and no
/// schema that a model of Ollama's could follow.
///
/// # Errors
/// Fails on a tool that lacks its name or schema, that has a schema which Ollama cannot be given, or that Anthropic
/// runs itself while `hosted` refuses those.
pub(super) fn offer<'a>(
    tools: Vec<&'a RawValue>,
    hosted: Hosted,
    receipt: &mut Receipt,
) -> Result<Vec<Tool<'a>>, Error> {
    #[derive(Deserialize)]
    struct Kind<'a> {
        #[serde(borrow, default, rename = "type")]
        kind: Option<Text<'a>>,
    }
    let (mut offered, mut unknown, mut cached) = (Vec::with_capacity(tools.len()), Vec::new(), false);
    for (n, raw) in tools.into_iter().enumerate() {
        let at = format!("tools[{n}]");
        if let Some(kind) = read::<Kind<'a>>(&at, raw)?.kind.filter(|kind| **kind != *"custom") {
            if hosted == Hosted::Refuse {
                return Err(Error::unsupported(
                    format!("{at}.type"),
                    format!("Tools of type '{}' are not run here, and anthropic.server_tools is \"refuse\".", &*kind),
                ));
            }
            receipt.note(&format!("tools.{}", &*kind), "skipped");
            continue;
        }
        let tool: ClientTool<'a> = parse(&at, raw, &mut unknown)?;
        cached |= tool.cache_control.is_some();
        let name = tool.name.filter(|name| !name.is_empty()).ok_or_else(|| Error::missing(format!("{at}.name")))?;
        let schema = tool.input_schema.ok_or_else(|| Error::missing(format!("{at}.input_schema")))?;
        let parameters = parameters::accepted(schema, || format!("{at}.input_schema"))?;
        offered.push(Tool::from(Function {
            name,
            description: tool.description,
            parameters: Some(parameters),
            strict: tool.strict,
        }));
    }
    if cached {
        receipt.no_effect("cache_control");
    }
    unknown.iter().for_each(|path| unread(path, receipt));
    Ok(offered)
}

/// Which tools may or must be called, and whether several at a time.
///
/// # Errors
/// Fails on a value that Anthropic's API does not have.
pub(super) fn choice(choice: Choice<'_>) -> Result<(ToolChoice<'_>, bool), Error> {
    let parallel = !choice.disable_parallel_tool_use.unwrap_or(false);
    let choice = match &*choice.kind {
        "auto" => ToolChoice::default(),
        "none" => ToolChoice::new(Mode::None, None),
        "any" => ToolChoice::new(Mode::Required, None),
        "tool" => {
            let name = choice.name.ok_or_else(|| Error::missing("tool_choice.name"))?;
            ToolChoice::new(Mode::Required, Some(vec![(name, "tool_choice.name")]))
        }
        other => {
            return Err(Error::invalid(
                "tool_choice.type",
                format!("Invalid value: '{other}'. Supported values are: 'auto', 'any', 'tool' and 'none'."),
            ));
        }
    };
    Ok((choice, parallel))
}
