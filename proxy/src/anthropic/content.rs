//! Blocks of a content, gathered into the one text and the list of images that Ollama takes. Pure.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::wire::{Block, Source};
use crate::{
    error::Error,
    ollama::wire::Message,
    openai::request::{
        content::{self, Content},
        json::{Text, parse, read},
        parameters::unread,
    },
    receipt::Receipt,
};

/// What the first block of Claude Code's system prompt begins with. It is for Anthropic's billing alone, and differs
/// from request to request: in front of the prompt it would keep Ollama from finding the rest in its cache.
const BILLING: &str = "x-anthropic-billing-header";

/// What Ollama takes of a content.
#[derive(Debug, Default)]
pub(super) struct Gathered<'a> {
    pub(super) texts: Vec<Cow<'a, str>>,
    /// Bare base64.
    images: Vec<Cow<'a, str>>,
}

impl<'a> Gathered<'a> {
    pub(super) fn is_empty(&self) -> bool {
        self.texts.is_empty() && self.images.is_empty()
    }

    /// Says that a tool has failed: Ollama has no field for it.
    pub(super) fn blame(&mut self) {
        let says_so = |text: &str| {
            let start: String = text.trim_start().chars().take(32).collect();
            start.to_ascii_lowercase().contains("error")
        };
        match self.texts.first_mut() {
            Some(first) if says_so(first) => {}
            Some(first) => *first = Cow::Owned(format!("Error: {first}")),
            None => self.texts.push(Cow::Borrowed("Error: the tool failed without a message.")),
        }
    }

    /// One message. Texts are joined with a newline: they are blocks, not pieces.
    pub(super) fn message(mut self, role: &'static str) -> Message<'a> {
        let content = if self.texts.len() == 1 { self.texts.swap_remove(0) } else { Cow::Owned(self.texts.join("\n")) };
        Message { role: Cow::Borrowed(role), content, images: self.images, ..Message::default() }
    }
}

/// The system's message, which stands at `at`. None: there is nothing in it for the model.
///
/// # Errors
/// Fails on a block that Ollama cannot be given.
pub(super) fn system<'a>(
    content: Content<'a, Block<'a>>,
    at: &str,
    receipt: &mut Receipt,
) -> Result<Option<Message<'a>>, Error> {
    let mut said = Gathered::default();
    match content {
        Content::Text(text) => said.texts.extend(Some(text.0).filter(|text| !text.is_empty())),
        Content::Parts(blocks) => {
            for (n, block) in blocks.into_iter().enumerate() {
                if block.text.as_ref().is_some_and(|text| text.starts_with(BILLING)) {
                    receipt.note("system.billing_header", "skipped");
                    continue;
                }
                if block.cache_control.is_some() {
                    receipt.no_effect("cache_control");
                }
                block_of(block, &format!("{at}[{n}]"), &mut said, receipt)?;
            }
        }
    }
    Ok((!said.is_empty()).then(|| said.message("system")))
}

/// Gathers the content of a tool's result or of a document: a text or blocks.
///
/// # Errors
/// Fails on a block that Ollama cannot be given.
pub(super) fn gather<'a>(raw: &'a RawValue, at: &str, receipt: &mut Receipt) -> Result<Gathered<'a>, Error> {
    let mut unknown = Vec::new();
    let content: Content<'a, Block<'a>> = parse(at, raw, &mut unknown)?;
    unknown.iter().for_each(|path| unread(path, receipt));
    let mut said = Gathered::default();
    all(content, at, &mut said, receipt)?;
    Ok(said)
}

fn all<'a>(
    content: Content<'a, Block<'a>>,
    at: &str,
    said: &mut Gathered<'a>,
    receipt: &mut Receipt,
) -> Result<(), Error> {
    match content {
        Content::Text(text) => said.texts.push(text.0),
        Content::Parts(blocks) => {
            for (n, block) in blocks.into_iter().enumerate() {
                if block.cache_control.is_some() {
                    receipt.no_effect("cache_control");
                }
                block_of(block, &format!("{at}[{n}]"), said, receipt)?;
            }
        }
    }
    Ok(())
}

/// Gathers one block, which stands at `at`. What Anthropic runs itself, and what does not exist yet, must not end a
/// conversation, because clients send every block again on each turn: it is skipped, or given as the text that it has.
///
/// # Errors
/// Fails on a block that Ollama cannot be given.
pub(super) fn block_of<'a>(
    block: Block<'a>,
    at: &str,
    said: &mut Gathered<'a>,
    receipt: &mut Receipt,
) -> Result<(), Error> {
    match &*block.kind {
        "text" => {
            let text = block.text.ok_or_else(|| Error::missing(format!("{at}.text")))?;
            said.texts.extend(Some(text.0).filter(|text| !text.is_empty()));
        }
        "image" => {
            let at = format!("{at}.source");
            let source = source(block.source, &at)?;
            said.images.push(image(source, &at)?);
        }
        "document" => {
            if block.citations.is_some_and(|raw| raw.get().contains("true")) {
                receipt.no_effect("citations");
            }
            let at = format!("{at}.source");
            let source = source(block.source, &at)?;
            // Under its name, so that the model can distinguish documents.
            said.texts.extend(block.title.filter(|title| !title.is_empty()).map(|title| title.0));
            said.texts.extend(block.context.filter(|context| !context.is_empty()).map(|context| context.0));
            document(source, &at, said, receipt)?;
        }
        "search_result" => {
            if block.citations.is_some_and(|raw| raw.get().contains("true")) {
                receipt.no_effect("citations");
            }
            said.texts.extend(block.title.map(|title| title.0));
            let source = block.source.map(|raw| read::<Text<'a>>(&format!("{at}.source"), raw)).transpose()?;
            said.texts.extend(source.map(|source| source.0));
            let content = block.content.ok_or_else(|| Error::missing(format!("{at}.content")))?;
            let Gathered { texts, images } = gather(content, &format!("{at}.content"), receipt)?;
            said.texts.extend(texts);
            said.images.extend(images);
        }
        // The tool that a search has found is among the tools of the request.
        "tool_reference" => said.texts.extend(block.tool_name.map(|name| name.0)),
        kind => match block.text {
            Some(text) => {
                receipt.note(&format!("content.{kind}"), "as-text");
                said.texts.push(text.0);
            }
            None => receipt.note(&format!("content.{kind}"), "skipped"),
        },
    }
    Ok(())
}

fn source<'a>(raw: Option<&'a RawValue>, at: &str) -> Result<Source<'a>, Error> {
    read(at, raw.ok_or_else(|| Error::missing(at))?)
}

/// The base64 of an image.
fn image<'a>(source: Source<'a>, at: &str) -> Result<Cow<'a, str>, Error> {
    match &*source.kind {
        "base64" => {
            let data = source.data.ok_or_else(|| Error::missing(format!("{at}.data")))?;
            content::image_of_type(source.media_type.as_deref().unwrap_or_default(), data.0, &format!("{at}.data"))
        }
        // Those that are to be fetched are data URLs by now.
        "url" => {
            let url = source.url.ok_or_else(|| Error::missing(format!("{at}.url")))?;
            content::image(url.0, &format!("{at}.url"))
        }
        other => Err(no_source(other, at, "'base64' and 'url'")),
    }
}

/// Gathers a document: its text, and the images that are part of it.
fn document<'a>(source: Source<'a>, at: &str, said: &mut Gathered<'a>, receipt: &mut Receipt) -> Result<(), Error> {
    match &*source.kind {
        "text" => said.texts.push(source.data.ok_or_else(|| Error::missing(format!("{at}.data")))?.0),
        "content" => {
            let content = source.content.ok_or_else(|| Error::missing(format!("{at}.content")))?;
            all(content, &format!("{at}.content"), said, receipt)?;
        }
        "base64" => {
            let at = format!("{at}.data");
            let data = source.data.ok_or_else(|| Error::missing(&at))?;
            said.texts.push(Cow::Owned(content::text_of_file(&data, &at)?));
        }
        "url" => {
            return Err(Error::unsupported(
                format!("{at}.url"),
                "Documents are not fetched unless the setting images.fetch says so; send the document itself, as base64 in 'source.data'.",
            ));
        }
        other => return Err(no_source(other, at, "'text', 'base64' and 'content'")),
    }
    Ok(())
}

fn no_source(kind: &str, at: &str, known: &str) -> Error {
    let why = if kind == "file" { "No files are stored here; send the data itself. " } else { "" };
    Error::unsupported(
        format!("{at}.type"),
        format!("{why}A source of type '{kind}' cannot be given to Ollama; supported are {known}."),
    )
}
