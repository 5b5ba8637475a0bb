//! About how many tokens a prompt has. Ollama has no route that counts them. Pure.

use crate::ollama::wire::ChatRequest;

/// Bytes of text to a token, as a rule; what a message's frame takes; and what an image takes, which differs a lot from
/// model to model.
const BYTES: usize = 4;
const MESSAGE: usize = 4;
const IMAGE: usize = 576;

/// About how many tokens Ollama will count for `request`.
pub(crate) fn tokens(request: &ChatRequest<'_>) -> u64 {
    let messages = request.messages.iter().map(|message| {
        let calls =
            message.tool_calls.iter().map(|call| call.function.name.len() + call.function.arguments.get().len());
        let text = message.content.len() + message.thinking.as_ref().map_or(0, |thinking| thinking.len());
        MESSAGE + message.images.len() * IMAGE + (text + calls.sum::<usize>()).div_ceil(BYTES)
    });
    let tools = request.tools.as_ref().map_or(0, |tools| tools.get().len().div_ceil(BYTES));
    (messages.sum::<usize>() + tools) as u64
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use serde_json::value::RawValue;

    use super::*;
    use crate::ollama::wire::{AskedCall, AskedFunction, Message, Options};

    fn request(message: Message<'static>, tools: Option<&'static str>) -> ChatRequest<'static> {
        let raw = |text: &'static str| Cow::Borrowed(serde_json::from_str::<&RawValue>(text).unwrap());
        ChatRequest {
            model: "m".into(),
            messages: vec![message],
            stream: true,
            format: None,
            keep_alive: None,
            tools: tools.map(raw),
            options: Options::default(),
            think: None,
            truncate: None,
            shift: None,
            logprobs: false,
            top_logprobs: None,
        }
    }

    #[test]
    fn more_text_more_images_more_calls_and_more_tools_are_more_tokens() {
        let hi = || Message { role: "user".into(), content: "Hi there!".into(), ..Message::default() };
        let image = Message { images: vec!["QUJD".into()], ..hi() };
        let thought = Message { thinking: Some("Hm, hm.".into()), ..hi() };
        let arguments = Cow::Borrowed(serde_json::from_str::<&RawValue>(r#"{"city":"Paris"}"#).unwrap());
        let function = AskedFunction { index: 0, name: "weather".into(), arguments };
        let call = Message { tool_calls: vec![AskedCall { id: None, function }], ..hi() };
        let plain = tokens(&request(hi(), None));
        assert_eq!((plain, tokens(&request(image, None))), (7, 7 + IMAGE as u64));
        for more in [request(thought, None), request(call, None), request(hi(), Some(r#"[{"type":"function"}]"#))] {
            assert!(tokens(&more) > plain);
        }
    }
}
