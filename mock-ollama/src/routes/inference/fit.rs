//! A prompt in its context: how much room there is, what is cut, what is refused, and in whose words.

use crate::version::Feature;
use http::StatusCode;
use serde_json::json;

use super::{Format, Inference};
use crate::{
    models::{Capability, Model},
    schema::{self, Fault},
    server::answer::Answer,
    version::Version,
};

/// An error that is found once the model is at work; a stream that has not begun reports it with its status.
#[derive(Debug)]
pub(crate) struct Late {
    pub(crate) status: StatusCode,
    pub(crate) text: String,
    /// What the runner wrote about it, which a later request may hear of.
    pub(crate) runner_error: Option<&'static str>,
}

impl Late {
    pub(crate) fn answer(&self, stream: bool) -> Answer {
        if stream { Answer::stream_error(self.status, &self.text) } else { Answer::error(self.status, &self.text) }
    }
}

impl Inference {
    /// Tokens that the runner has room for; llama-server rounds up.
    fn capacity(&self, version: &Version) -> usize {
        if version.has(Feature::LlamaServer) { self.context_length.next_multiple_of(256) } else { self.context_length }
    }

    /// The prompt's tokens once it fits.
    ///
    /// # Errors
    /// It does not, and may not be cut; or the format is none.
    pub(crate) fn fit(&self, version: &Version, prompt_tokens: usize) -> Result<usize, Late> {
        let late = |status, text: String| Err(Late { status, text, runner_error: None });
        match &self.format {
            Format::Wrong(raw) => {
                let text = format!("invalid format: {raw:?}; expected \"json\" or a valid JSON Schema object");
                return late(StatusCode::INTERNAL_SERVER_ERROR, text);
            }
            Format::Schema(schema) => {
                if let Some(fault) = schema::fault(schema) {
                    if !version.has(Feature::LlamaServer) {
                        return late(StatusCode::INTERNAL_SERVER_ERROR, "invalid JSON schema in format".to_owned());
                    }
                    let runner_error = (fault == Fault::Grammar)
                        .then_some("error: task id = 0, error: Failed to initialize samplers: failed to parse grammar");
                    let message = match fault {
                        Fault::Schema(text) => {
                            format!("Field 'json_schema': \"json_schema\": JSON schema conversion failed:\n{text}")
                        }
                        Fault::Grammar => "Failed to initialize samplers: failed to parse grammar".to_owned(),
                    };
                    let text = llama_error(&message, "invalid_request_error", None);
                    return Err(Late { status: StatusCode::BAD_REQUEST, text, runner_error });
                }
            }
            Format::Text | Format::Json => {}
        }
        let capacity = self.capacity(version);
        if prompt_tokens <= capacity {
            return Ok(prompt_tokens);
        }
        if !version.has(Feature::LlamaServer) {
            return if self.truncate {
                Ok(capacity)
            } else {
                late(StatusCode::BAD_REQUEST, "the input length exceeds the context length".to_owned())
            };
        }
        if !self.truncate {
            let message = format!(
                "request ({prompt_tokens} tokens) exceeds the available context size ({capacity} tokens), try increasing it"
            );
            return late(
                StatusCode::BAD_REQUEST,
                llama_error(&message, "exceed_context_size_error", Some((prompt_tokens, capacity))),
            );
        }
        if !self.shift {
            let text = "the prompt is longer than the context length currently available to the model; shorten the prompt, adjust the \
                        context length in settings, or use a model with a longer context length";
            return late(StatusCode::BAD_REQUEST, text.to_owned());
        }
        // The first tokens and the last half of the rest stay (recorded: 258 of 512).
        let keep = self.options.num_keep.min(capacity);
        Ok(keep + (capacity - keep) / 2)
    }

    /// The most tokens: what was asked for, and the context where it may not shift.
    pub(super) fn most(&self, version: &Version, prompt_tokens: usize) -> Option<usize> {
        // Older runners wrote one more than fits (recorded: generate/shift-false).
        let capacity = self.capacity(version) + usize::from(!version.has(Feature::LlamaServer));
        let room = (!self.shift).then(|| capacity.saturating_sub(prompt_tokens).max(1));
        let most = self.options.num_predict.unwrap_or(10 * self.context_length);
        Some(room.map_or(most, |room| room.min(most)))
    }
}

/// llama-server's error body, as text: it leaks into Ollama's.
fn llama_error(message: &str, kind: &str, sizes: Option<(usize, usize)>) -> String {
    let mut error = json!({"code": 400, "message": message, "type": kind});
    if let Some((prompt, context)) = sizes {
        error["n_prompt_tokens"] = prompt.into();
        error["n_ctx"] = context.into();
    }
    json!({"error": error}).to_string()
}

/// Tokens that images or sounds take, besides their marks in the text; a model that does not see them has the marks
/// alone.
pub(crate) fn image_tokens(model: &Model, images: usize) -> usize {
    if sees(model) { images * 256 } else { 0 }
}

fn sees(model: &Model) -> bool {
    model.can(Capability::Vision) || model.can(Capability::Audio)
}

/// What a text-only model answers to images: nothing, in older versions.
pub(crate) fn refuse_images(model: &Model, images: usize, version: &Version) -> Option<Late> {
    let refuses = images > 0 && version.has(Feature::LlamaServer) && !sees(model);
    refuses.then(|| {
        let message = "Multimodal data provided, but model does not support multimodal requests.";
        let text = llama_error(message, "invalid_request_error", None);
        Late { status: StatusCode::BAD_REQUEST, text, runner_error: None }
    })
}
