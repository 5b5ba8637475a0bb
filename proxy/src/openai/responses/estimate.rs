//! `POST /v1/responses/input_tokens`. Ollama has no route that counts tokens, so this is an estimate, and the receipt says so.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use super::take;
use crate::{
    app::App,
    error::Error,
    gate::Owner,
    observe::Recorder,
    offload,
    openai::request::{image_urls, json::Json},
};

/// Bytes of text to a token, as a rule; what a message's frame takes; and what a picture takes, which differs a lot from model to model.
const BYTES: usize = 4;
const MESSAGE: usize = 4;
const IMAGE: usize = 576;

/// How long the prompt would be.
pub(crate) async fn input_tokens(
    State(app): State<App>,
    recorder: Recorder,
    owner: Owner,
    json: Json,
) -> Result<Response, Error> {
    // What is in a picture does not matter here.
    let json = if app.config.images.fetch { image_urls::stand_in(&json).0 } else { json };
    let prepared = take(&app, &recorder, owner, json, None, String::new()).await?;
    let mut receipt = prepared.receipt;
    receipt.note("input_tokens", "estimate");
    recorder.receipt(receipt);
    let body = prepared.ask.body;
    let tokens = offload::run(body.len(), move || serde_json::from_slice(&body).map(|ask| tokens(&ask))).await;
    // It is JSON that we wrote, so that only its depth can be wrong.
    let tokens = tokens.map_err(|_| Error::invalid("input", "The input is nested too deeply to be counted."))?;
    Ok(axum::Json(json!({"object": "response.input_tokens", "input_tokens": tokens})).into_response())
}

/// Tokens of a native request.
fn tokens(ask: &Value) -> usize {
    let messages = ask["messages"].as_array().map_or(&[][..], Vec::as_slice);
    let texts = messages.iter().map(|message| {
        let images = message["images"].as_array().map_or(0, Vec::len);
        let calls = message.get("tool_calls").map_or(0, |calls| calls.to_string().len());
        let text = |at: &str| message[at].as_str().map_or(0, str::len);
        MESSAGE + images * IMAGE + (text("content") + text("thinking") + calls).div_ceil(BYTES)
    });
    let tools = ask.get("tools").map_or(0, |tools| tools.to_string().len().div_ceil(BYTES));
    texts.sum::<usize>() + tools
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_text_more_pictures_and_more_tools_are_more_tokens() {
        let hi = json!({"messages": [{"role": "user", "content": "Hi there!"}]});
        let picture = json!({"messages": [{"role": "user", "content": "Hi there!", "images": ["QUJD"]}]});
        let tool = json!({"messages": [{"role": "user", "content": "Hi there!"}], "tools": [{"type": "function"}]});
        assert_eq!((tokens(&hi), tokens(&picture)), (7, 7 + IMAGE));
        assert!(tokens(&tool) > tokens(&hi));
        assert_eq!(tokens(&json!({})), 0);
    }
}
