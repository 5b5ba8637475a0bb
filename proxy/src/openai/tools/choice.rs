//! Which of the offered tools a model may or must call. Ollama knows no such thing, so the offer is cut down here, and
//! a call that must be made is brought about by [`forced`](super::forced). Pure.

use std::collections::HashSet;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::Tool;
use crate::{
    error::Error,
    openai::request::json::{Text, read},
};

/// Whether tools are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// As the model likes.
    Auto,
    /// Never.
    None,
    /// At least one.
    Required,
}

/// `tool_choice`, read.
#[derive(Debug)]
pub(crate) struct ToolChoice<'a> {
    pub(crate) mode: Mode,
    /// The names of the only tools that count, and where each stands.
    only: Option<Vec<(Text<'a>, &'static str)>>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(borrow, rename = "type")]
    kind: Text<'a>,
    #[serde(borrow, default)]
    function: Option<Named<'a>>,
    #[serde(borrow, default)]
    allowed_tools: Option<Allowed<'a>>,
}

#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow)]
    name: Text<'a>,
}

#[derive(Deserialize)]
struct Allowed<'a> {
    #[serde(borrow)]
    mode: Text<'a>,
    #[serde(borrow)]
    tools: Vec<AllowedTool<'a>>,
}

#[derive(Deserialize)]
struct AllowedTool<'a> {
    #[serde(borrow)]
    function: Named<'a>,
}

impl Default for ToolChoice<'_> {
    fn default() -> Self {
        Self { mode: Mode::Auto, only: None }
    }
}

impl<'a> ToolChoice<'a> {
    /// `only`: the names of the only tools that count, each with the field that says so.
    pub(crate) fn new(mode: Mode, only: Option<Vec<(Text<'a>, &'static str)>>) -> Self {
        Self { mode, only }
    }

    /// # Errors
    /// A value that OpenAI's API does not have, or a tool of a type that Ollama does not have.
    pub(crate) fn read(raw: &'a RawValue) -> Result<Self, Error> {
        if raw.get().starts_with('"') {
            let word: Text<'a> = read("tool_choice", raw)?;
            return Ok(Self { mode: mode(&word, "tool_choice", true)?, only: None });
        }
        let choice: Choice<'a> = read("tool_choice", raw)?;
        match (&*choice.kind, choice.function, choice.allowed_tools) {
            ("function", Some(function), _) => {
                let only = Some(vec![(function.name, "tool_choice.function.name")]);
                Ok(Self { mode: Mode::Required, only })
            }
            ("allowed_tools", _, Some(allowed)) => Ok(Self {
                mode: mode(&allowed.mode, "tool_choice.allowed_tools.mode", false)?,
                only: Some(
                    allowed
                        .tools
                        .into_iter()
                        .map(|tool| (tool.function.name, "tool_choice.allowed_tools.tools"))
                        .collect(),
                ),
            }),
            ("function", None, _) => Err(Error::missing("tool_choice.function")),
            ("allowed_tools", _, None) => Err(Error::missing("tool_choice.allowed_tools")),
            ("custom", ..) => Err(Error::unsupported(
                "tool_choice.type",
                "Ollama has no custom tools; supported are 'function' and 'allowed_tools'.",
            )),
            (other, ..) => Err(Error::invalid(
                "tool_choice.type",
                format!("Invalid value: '{other}'. Supported values are: 'function', 'allowed_tools', and 'custom'."),
            )),
        }
    }

    /// Reads `function_call`, which chose a function before there were tools.
    ///
    /// # Errors
    /// A value that OpenAI's API does not have.
    pub(crate) fn read_legacy(raw: &'a RawValue) -> Result<Self, Error> {
        if raw.get().starts_with('"') {
            return match &*read::<Text<'a>>("function_call", raw)? {
                "none" => Ok(Self { mode: Mode::None, only: None }),
                "auto" => Ok(Self::default()),
                other => Err(Error::invalid(
                    "function_call",
                    format!(
                        "Invalid value: '{other}'. Supported values are: 'none' and 'auto', or an object with a 'name'."
                    ),
                )),
            };
        }
        let Named { name } = read("function_call", raw)?;
        Ok(Self { mode: Mode::Required, only: Some(vec![(name, "function_call.name")]) })
    }

    /// Whether one tool is named, which must be called.
    pub(crate) fn is_for_one(&self) -> bool {
        self.mode == Mode::Required && self.only.as_ref().is_some_and(|only| only.len() == 1)
    }

    /// Whether the offer, or what the model does with it, is not what Ollama would do by itself.
    pub(crate) fn steers(&self) -> bool {
        self.mode != Mode::Auto || self.only.is_some()
    }

    /// What of the offer is left.
    ///
    /// # Errors
    /// A tool that is chosen but not offered, or a call that must be made with nothing to call.
    pub(crate) fn cut(&self, mut tools: Vec<Tool<'a>>) -> Result<Vec<Tool<'a>>, Error> {
        if let Some(only) = &self.only {
            let offered: HashSet<&str> = tools.iter().filter_map(Tool::name).collect();
            if let Some((name, at)) = only.iter().find(|(name, _)| !offered.contains(&**name)) {
                let field = if at.starts_with("function_call") { "functions" } else { "tools" };
                return Err(Error::invalid(
                    *at,
                    format!("Tool choice '{}' not found in '{field}' parameter.", &**name),
                ));
            }
            let chosen: HashSet<&str> = only.iter().map(|(name, _)| &**name).collect();
            tools.retain(|tool| tool.name().is_some_and(|name| chosen.contains(name)));
        }
        match self.mode {
            Mode::None => Ok(Vec::new()),
            Mode::Required if tools.is_empty() => {
                Err(Error::invalid("tool_choice", "'tool_choice' is only allowed when 'tools' are specified."))
            }
            Mode::Auto | Mode::Required => Ok(tools),
        }
    }
}

/// The mode that a word means; `none` is not everywhere one.
///
/// # Errors
/// It means none.
pub(crate) fn mode(word: &str, at: &str, none: bool) -> Result<Mode, Error> {
    match word {
        "auto" => Ok(Mode::Auto),
        "required" => Ok(Mode::Required),
        "none" if none => Ok(Mode::None),
        other => {
            let known = if none { "'none', 'auto', and 'required'" } else { "'auto' and 'required'" };
            Err(Error::invalid(at, format!("Invalid value: '{other}'. Supported values are: {known}.")))
        }
    }
}
