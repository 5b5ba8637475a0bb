//! The tools of a request: functions as they are, custom tools and namespaces as functions and back, and what OpenAI
//! runs itself left out. Pure.

use std::{borrow::Cow, collections::HashMap};

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::{
    Value, json,
    value::{RawValue, to_raw_value},
};

use crate::{
    config::Hosted,
    error::Error,
    openai::{
        request::{
            json::{Text, parse, read},
            parameters::unread,
        },
        responses::grammar::Grammar,
        tools::{Function, Tool, parameters},
    },
    receipt::Receipt,
};

/// Tools that OpenAI, or a client that OpenAI knows, runs itself.
const HOSTED: [&str; 17] = [
    "apply_patch",
    "code_interpreter",
    "computer",
    "computer_use_preview",
    "file_search",
    "image_generation",
    "local_shell",
    "mcp",
    "programmatic_tool_calling",
    "shell",
    "tool_search",
    "web_search",
    "web_search_2025_08_26",
    "web_search_preview",
    "web_search_preview_2025_03_11",
    "x_search",
    "memory",
];

/// Whether `kind` is a tool that is run elsewhere.
pub(crate) fn is_hosted(kind: &str) -> bool {
    HOSTED.contains(&kind)
}

/// A tool as the client sends it; which fields are filled depends on `kind`.
#[derive(Debug, Deserialize)]
struct GivenTool<'a> {
    #[serde(borrow, rename = "type")]
    kind: Text<'a>,
    #[serde(borrow, default)]
    name: Option<Text<'a>>,
    #[serde(borrow, default)]
    description: Option<Text<'a>>,
    #[serde(borrow, default)]
    parameters: Option<&'a RawValue>,
    #[serde(default)]
    strict: Option<bool>,
    /// Of a custom tool: the form of its input.
    #[serde(borrow, default)]
    format: Option<Format<'a>>,
    /// Of a namespace.
    #[serde(borrow, default)]
    tools: Option<Vec<&'a RawValue>>,
}

#[derive(Debug, Deserialize)]
struct Format<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Option<Text<'a>>,
    #[serde(borrow, default)]
    syntax: Option<Text<'a>>,
    #[serde(borrow, default)]
    definition: Option<Text<'a>>,
}

/// A function as a response repeats it: all keys always.
#[derive(Serialize)]
struct Repeated<'a> {
    r#type: &'static str,
    name: &'a str,
    description: Option<&'a str>,
    parameters: Option<&'a RawValue>,
    strict: Option<bool>,
}

/// What the model may be offered.
#[derive(Debug, Default)]
pub(crate) struct Offer<'a> {
    /// As functions, under the names that Ollama gets.
    pub(crate) tools: Vec<Tool<'a>>,
    pub(crate) offered: Offered,
    /// What a response repeats.
    pub(crate) echo: Vec<Box<RawValue>>,
}

/// Which of the client's tools stands behind each name that Ollama got.
#[derive(Clone, Debug, Default)]
pub(crate) struct Offered {
    tools: IndexMap<String, Called>,
    /// The grammars of those custom tools that have one.
    grammars: HashMap<String, Grammar>,
}

/// A tool, as the client names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Called {
    Function { name: String, namespace: Option<String> },
    Custom { name: String, namespace: Option<String> },
}

impl Offered {
    /// The tool that the model means by `name`; a name that was not offered is taken for a function's.
    pub(crate) fn called(&self, name: &str) -> Called {
        let known = self.tools.get(name).cloned();
        known.unwrap_or_else(|| Called::Function { name: name.to_owned(), namespace: None })
    }

    /// The grammar of the tool that Ollama got under this name, if it has one.
    pub(crate) fn grammar(&self, native: &str) -> Option<&Grammar> {
        self.grammars.get(native)
    }

    /// The names that Ollama got, by the kind (`function`, `custom`, `namespace`) and the name that the client has for
    /// them.
    pub(crate) fn natives(&self) -> HashMap<(&str, &str), Vec<&str>> {
        let mut natives: HashMap<_, Vec<_>> = HashMap::new();
        for (native, called) in &self.tools {
            let (kind, name, namespace) = match called {
                Called::Function { name, namespace } => ("function", name, namespace),
                Called::Custom { name, namespace } => ("custom", name, namespace),
            };
            natives.entry((kind, &**name)).or_default().push(&**native);
            if let Some(namespace) = namespace {
                natives.entry(("namespace", &**namespace)).or_default().push(&**native);
            }
        }
        natives
    }
}

/// The name that Ollama gets for a tool in a namespace.
pub(crate) fn native_name(namespace: Option<&str>, name: &str) -> String {
    match namespace {
        None => name.to_owned(),
        Some(namespace) if namespace.ends_with("__") => format!("{namespace}{name}"),
        Some(namespace) => format!("{namespace}__{name}"),
    }
}

/// What a custom tool's function takes.
pub(crate) fn arguments(input: &str) -> Result<Box<RawValue>, Error> {
    to_raw_value(&json!({ "input": input })).map_err(|error| Error::Internal { message: error.to_string() })
}

/// The input of a custom tool, out of the arguments of its function. A model that does not keep to it has given the
/// arguments themselves.
pub(crate) fn input(arguments: &str) -> String {
    #[derive(Deserialize)]
    struct Given {
        input: String,
    }
    serde_json::from_str::<Given>(arguments).map_or_else(|_| arguments.to_owned(), |given| given.input)
}

impl<'a> Offer<'a> {
    /// Reads the request's tools, and those that items of its input bring along, each with its place.
    ///
    /// # Errors
    /// Fails on a tool that lacks its name, that has parameters which Ollama cannot be given, or that is run elsewhere
    /// while `hosted` refuses those.
    pub(crate) fn read(
        given: Vec<&'a RawValue>,
        brought: &[(String, &'a RawValue)],
        hosted: Hosted,
        receipt: &mut Receipt,
    ) -> Result<Self, Error> {
        let mut offer = Self::default();
        for (n, raw) in given.into_iter().enumerate() {
            offer.add(raw, &format!("tools[{n}]"), None, hosted, receipt)?;
        }
        // A response repeats the tools of its request alone.
        let repeated = offer.echo.len();
        for (at, raw) in brought {
            offer.add(raw, at, None, hosted, receipt)?;
        }
        offer.echo.truncate(repeated);
        Ok(offer)
    }

    fn add(
        &mut self,
        raw: &'a RawValue,
        at: &str,
        namespace: Option<&str>,
        hosted: Hosted,
        receipt: &mut Receipt,
    ) -> Result<(), Error> {
        #[derive(Deserialize)]
        struct Kind<'a> {
            #[serde(borrow, rename = "type")]
            kind: Text<'a>,
        }
        // A tool that is run elsewhere has fields of its own. So has one of a type that does not exist yet: an error
        // would lock out every session of a client that is newer than this proxy.
        let kind = read::<Kind<'a>>(at, raw)?.kind;
        let known = matches!(&*kind, "function" | "custom") || &*kind == "namespace" && namespace.is_none();
        if !known {
            if hosted == Hosted::Refuse {
                return Err(Error::unsupported(
                    format!("{at}.type"),
                    format!("Tools of type '{}' are not run here, and responses.hosted_tools is \"refuse\".", &*kind),
                ));
            }
            receipt.note(&format!("tools.{}", &*kind), "skipped");
            self.echo.extend((namespace.is_none()).then(|| raw.to_owned()));
            return Ok(());
        }
        let mut unknown = Vec::new();
        let given: GivenTool<'a> = parse(at, raw, &mut unknown)?;
        unknown.iter().for_each(|path| unread(path, receipt));
        let need = |field: &str| Error::missing(format!("{at}.{field}"));
        let name = given.name.as_ref().filter(|name| !name.is_empty()).ok_or_else(|| need("name"));
        match &*given.kind {
            "function" => {
                let name = name?.to_string();
                if namespace.is_none() {
                    let repeated = Repeated {
                        r#type: "function",
                        name: &name,
                        description: given.description.as_deref(),
                        parameters: given.parameters,
                        strict: given.strict,
                    };
                    self.echo.push(raw_of(&repeated)?);
                }
                self.offer(
                    at,
                    Called::Function { name, namespace: namespace.map(ToOwned::to_owned) },
                    given.description,
                    given.parameters.map(Cow::Borrowed),
                    given.strict,
                )?;
            }
            "custom" => {
                let name = name?.to_string();
                let mut description = given.description.map(|text| text.0.into_owned()).unwrap_or_default();
                let grammar = match &given.format {
                    Some(format) if format.kind.as_deref() == Some("grammar") || format.definition.is_some() => {
                        Some(format.grammar(at)?)
                    }
                    _ => None,
                };
                let native = native_name(namespace, &name);
                // A tool that comes again takes the place of the earlier one.
                self.offered.grammars.remove(&native);
                if let Some((grammar, text)) = &grammar {
                    description.push_str(text);
                    receipt.emulated(&format!("{at}.format"));
                    self.offered.grammars.insert(native, grammar.clone());
                }
                let pattern = grammar.map(|(grammar, _)| grammar.pattern);
                if namespace.is_none() {
                    // Some clients cannot read one without its format.
                    let mut repeated: Value = read(at, raw)?;
                    if given.format.is_none() {
                        repeated["format"] = json!({"type": "text"});
                    }
                    self.echo.push(raw_of(&repeated)?);
                }
                self.offer(
                    at,
                    Called::Custom { name, namespace: namespace.map(ToOwned::to_owned) },
                    Some(description).filter(|text| !text.is_empty()).map(|text| Text(text.into())),
                    Some(Cow::Owned(custom_parameters(pattern.as_deref())?)),
                    pattern.map(|_| true),
                )?;
            }
            // A namespace.
            _ => {
                let name = name?.to_string();
                self.echo.push(raw.to_owned());
                for (n, raw) in given.tools.ok_or_else(|| need("tools"))?.into_iter().enumerate() {
                    self.add(raw, &format!("{at}.tools[{n}]"), Some(&name), hosted, receipt)?;
                }
            }
        }
        Ok(())
    }

    /// # Errors
    /// Another tool has that name, so that a call could be of either.
    fn offer(
        &mut self,
        at: &str,
        called: Called,
        description: Option<Text<'a>>,
        parameters: Option<Cow<'a, RawValue>>,
        strict: Option<bool>,
    ) -> Result<(), Error> {
        let (Called::Function { name, namespace } | Called::Custom { name, namespace }) = &called;
        let native = native_name(namespace.as_deref(), name);
        if self.offered.tools.get(&native).is_some_and(|other| *other != called) {
            return Err(Error::invalid(
                format!("{at}.name"),
                format!(
                    "Two tools would be offered to the model as '{native}', so that its calls could be of either; rename one."
                ),
            ));
        }
        let parameters = match parameters {
            Some(Cow::Borrowed(raw)) => Some(parameters::accepted(raw, || format!("{at}.parameters"))?),
            own => own,
        };
        let function = Function { name: Text(native.clone().into()), description, parameters, strict };
        let tool = Tool { kind: Text("function".into()), function: Some(function) };
        // A tool that comes again, such as one that was searched for twice, takes the place of the earlier one.
        match self.offered.tools.get_index_of(&native) {
            Some(nth) => self.tools[nth] = tool,
            None => {
                self.tools.push(tool);
                self.offered.tools.insert(native, called);
            }
        }
        Ok(())
    }
}

/// What the function of a custom tool takes; `pattern` is what its input must match.
fn custom_parameters(pattern: Option<&str>) -> Result<Box<RawValue>, Error> {
    let mut input = json!({"type": "string", "description": "The input of the tool, as plain text"});
    if let Some(pattern) = pattern {
        input["pattern"] = pattern.into();
    }
    raw_of(&json!({"type": "object", "properties": {"input": input}, "required": ["input"]}))
}

impl Format<'_> {
    /// The grammar, and what the model reads of it.
    fn grammar(&self, at: &str) -> Result<(Grammar, String), Error> {
        let need = |field: &str| Error::missing(format!("{at}.format.{field}"));
        let definition = self.definition.as_deref().ok_or_else(|| need("definition"))?;
        let syntax = self.syntax.as_deref().ok_or_else(|| need("syntax"))?;
        let grammar = Grammar::read(syntax, definition).map_err(|why| {
            Error::unsupported(
                format!("{at}.format.definition"),
                format!(
                    "This grammar cannot be enforced: {why}. Supported are regular expressions, and lark grammars whose rules do not refer to \
                     themselves; or describe the form in 'description', with the format 'text'."
                ),
            )
        })?;
        Ok((grammar, format!("\n\nThe input must follow this {syntax} grammar:\n{definition}")))
    }
}

fn raw_of(value: &impl Serialize) -> Result<Box<RawValue>, Error> {
    to_raw_value(value).map_err(|error| Error::Internal { message: error.to_string() })
}
