//! A message's request for Ollama. Pure; the way back is `stream.rs`.

use std::{borrow::Cow, collections::HashMap};

use super::{
    content::{Gathered, block_of, gather, system},
    request::{Facts, Request},
    wire::{Block, Message},
};
use crate::{
    error::{Error, Params},
    ollama::wire as native,
    openai::{
        request::content::Content,
        tools::{arguments, forced::Form, repair::Repairs},
        upstream_request::{
            context::Policy,
            estimate,
            message::Turn,
            send::{UpstreamRequest, VersionGated},
        },
    },
    receipt::Receipt,
    sealed,
    upstream::client::encode,
};

/// What is asked of Ollama, and what making the answer must know.
///
/// The upstream request is always streamed: only a stream shows in which order a model thinks, writes and calls tools,
/// and only a stream can be ended at a stop sequence.
///
/// # Errors
/// Fails on content, tools or a format that Ollama cannot be given.
pub(super) fn ask(
    request: Request<'_>,
    policy: &Policy,
    receipt: &mut Receipt,
) -> Result<(UpstreamRequest, Facts), Error> {
    let mut facts = request.facts;
    let mut conversation = Conversation::default();
    if let Some(content) = request.system {
        conversation.messages.extend(system(content, "system", receipt)?);
    }
    for (n, message) in request.messages.into_iter().enumerate() {
        conversation.add(message, &format!("messages[{n}]"), receipt)?;
    }
    if conversation.cached {
        receipt.no_effect("cache_control");
    }
    let reask = if facts.form == Form::Free { facts.repairs.for_asking_again() } else { Repairs::default() };
    let turn = Turn {
        model: request.model,
        stream: true,
        native: request.native,
        effort: request.effort,
        thinking_switch: request.thinking_switch,
        format: request.format,
        tools: request.tools,
        form: facts.form.clone(),
        most_calls: facts.most_calls,
        logprobs: false,
        top_logprobs: None,
    };
    let params = Params { prompt: "messages", format: "output_config.format", effort: "thinking" };
    let ask = turn.ask(params, policy);
    let native = turn.request(conversation.messages, policy, receipt)?;
    facts.estimate = estimate::tokens(&native);
    Ok((UpstreamRequest { body: encode(&native)?, version_gated: VersionGated::of(&native), reask, ..ask }, facts))
}

/// A conversation as it grows, message by message.
#[derive(Default)]
struct Conversation<'a> {
    messages: Vec<native::Message<'a>>,
    /// The names of the tools that were called, by call.
    called: HashMap<String, Cow<'a, str>>,
    /// Whether some block has a `cache_control`.
    cached: bool,
}

impl<'a> Conversation<'a> {
    fn add(&mut self, message: Message<'a>, at: &str, receipt: &mut Receipt) -> Result<(), Error> {
        match &*message.role {
            "user" => self.user(message.content, &format!("{at}.content"), receipt),
            "assistant" => self.assistant(message.content, &format!("{at}.content"), receipt),
            "system" => {
                self.messages.extend(system(message.content, &format!("{at}.content"), receipt)?);
                Ok(())
            }
            other => Err(Error::invalid(
                format!("{at}.role"),
                format!("Invalid value: '{other}'. Supported values are: 'user', 'assistant' and 'system'."),
            )),
        }
    }

    /// What the user says, and the results of tools, each of which is a message of its own.
    fn user(&mut self, content: Content<'a, Block<'a>>, at: &str, receipt: &mut Receipt) -> Result<(), Error> {
        let blocks = match content {
            Content::Text(text) => {
                self.messages.push(native::Message { role: "user".into(), content: text.0, ..Default::default() });
                return Ok(());
            }
            Content::Parts(blocks) => blocks,
        };
        let mut said = Gathered::default();
        let mut spoke = false;
        for (n, block) in blocks.into_iter().enumerate() {
            self.cached |= block.cache_control.is_some();
            if &*block.kind == "tool_result" {
                if std::mem::take(&mut spoke) {
                    self.messages.push(std::mem::take(&mut said).message("user"));
                }
                self.result(block, &format!("{at}[{n}]"), receipt)?;
            } else {
                spoke = true;
                block_of(block, &format!("{at}[{n}]"), &mut said, receipt)?;
            }
        }
        if spoke && !said.is_empty() {
            self.messages.push(said.message("user"));
        }
        Ok(())
    }

    fn result(&mut self, block: Block<'a>, at: &str, receipt: &mut Receipt) -> Result<(), Error> {
        let id = block.tool_use_id.ok_or_else(|| Error::missing(format!("{at}.tool_use_id")))?;
        let Some(name) = self.called.get(&*id).cloned() else {
            return Err(Error::invalid(
                format!("{at}.tool_use_id"),
                format!(
                    "unexpected `tool_use_id` found in `tool_result` blocks: {}. Each `tool_result` block must have a corresponding \
                     `tool_use` block before it.",
                    &*id
                ),
            ));
        };
        let mut result = match block.content {
            Some(content) => gather(content, &format!("{at}.content"), receipt)?,
            None => Gathered::default(),
        };
        if block.is_error == Some(true) {
            receipt.emulated("is_error");
            result.blame();
        }
        let message = result.message("tool");
        self.messages.push(native::Message { tool_name: Some(name), tool_call_id: Some(id.0), ..message });
        Ok(())
    }

    /// What the model said, thought and called: one message, because results follow their calls.
    fn assistant(&mut self, content: Content<'a, Block<'a>>, at: &str, receipt: &mut Receipt) -> Result<(), Error> {
        let blocks = match content {
            Content::Text(text) => {
                self.messages.push(native::Message { role: "assistant".into(), content: text.0, ..Default::default() });
                return Ok(());
            }
            Content::Parts(blocks) => blocks,
        };
        let (mut said, mut thoughts, mut calls) = (Gathered::default(), Gathered::default(), Vec::new());
        for (n, block) in blocks.into_iter().enumerate() {
            let at = format!("{at}[{n}]");
            self.cached |= block.cache_control.is_some();
            match &*block.kind {
                "thinking" => thoughts.texts.extend(thought(block, &at, receipt)),
                "tool_use" => {
                    let id = block.id.ok_or_else(|| Error::missing(format!("{at}.id")))?;
                    let name = block.name.ok_or_else(|| Error::missing(format!("{at}.name")))?;
                    let arguments = arguments(block.input, || format!("{at}.input"), receipt);
                    self.called.insert(id.to_string(), name.0.clone());
                    let function = native::AskedFunction { index: calls.len(), name: name.0, arguments };
                    calls.push(native::AskedCall { id: Some(id.0), function });
                }
                _ => block_of(block, &at, &mut said, receipt)?,
            }
        }
        let thinking = Some(thoughts.message("").content).filter(|text| !text.is_empty());
        let message = said.message("assistant");
        self.messages.push(native::Message { thinking, tool_calls: calls, ..message });
        Ok(())
    }
}

/// The thoughts of a block. A signature of ours is verified, and never fatal: thoughts of other servers are thoughts
/// too.
fn thought<'a>(block: Block<'a>, at: &str, receipt: &mut Receipt) -> Option<Cow<'a, str>> {
    let signature = block.signature.as_deref().unwrap_or_default();
    let thinking = block.thinking.map(|text| text.0).filter(|text| !text.is_empty());
    match thinking {
        Some(text) => {
            if sealed::check(signature, &text) == Some(false) {
                receipt.note(&format!("{at}.signature"), "of-another-text");
            }
            Some(text)
        }
        // One that the client asked not to be shown.
        None => {
            let carried = sealed::open(signature);
            if carried.is_none() {
                receipt.no_effect(&format!("{at}.signature"));
            }
            carried.map(Cow::Owned)
        }
    }
}
