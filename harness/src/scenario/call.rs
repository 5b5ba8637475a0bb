//! What can be called: each endpoint with the OpenAI client, and anything raw.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// What can be called. All but [`Call::Http`] goes out through the OpenAI client.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Call {
    /// `GET /v1/models`.
    Models,
    /// `GET /v1/models/{id}`.
    Model(String),
    /// `POST /v1/chat/completions`; the request as it goes out. Streamed if `stream: true`.
    Chat(Value),
    /// `POST /v1/completions`, as `chat`.
    Completions(Value),
    /// `POST /v1/embeddings`.
    Embeddings(Value),
    /// `POST /v1/moderations`.
    Moderations(Value),
    /// `POST /v1/images/generations`.
    Images(Value),
    /// `POST /v1/images/edits`.
    ImageEdits(Edit),
    /// `POST /v1/images/variations`.
    ImageVariations(Variation),
    /// `POST /v1/responses`, as `chat`.
    Responses(Value),
    /// `GET /v1/responses/{id}`.
    Response(String),
    /// `DELETE /v1/responses/{id}`.
    DeleteResponse(String),
    /// `POST /v1/responses/{id}/cancel`.
    CancelResponse(String),
    /// `GET /v1/responses/{id}/input_items`.
    InputItems(String),
    /// `POST /v1/responses/input_tokens`.
    InputTokens(Value),
    /// `POST /v1/responses/compact`.
    Compact(Value),
    /// `POST /v1/audio/speech`. What is understood is the sound, in base64.
    Speech(Value),
    /// `POST /v1/audio/transcriptions`.
    Transcriptions(Hearing),
    /// `POST /v1/audio/translations`.
    Translations(Hearing),
    /// Anything, raw.
    Http(Http),
}

/// A recording that is to be heard, as the OpenAI client uploads it. Other fields and formats go by a raw call with a form.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hearing {
    /// The model's id.
    pub model: String,
    /// The recording's bytes, in base64.
    pub base64: String,
    /// The file's name, which tells its kind.
    pub filename: String,
    /// The language that is spoken; a translation has none.
    pub language: Option<String>,
    /// A hint.
    pub prompt: Option<String>,
    /// The sampling temperature.
    pub temperature: Option<f32>,
}

/// A picture that is to be changed, as the OpenAI client uploads it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Edit {
    /// The model's id.
    pub model: String,
    /// What is to become of it.
    pub prompt: String,
    /// The picture's bytes, in base64.
    pub base64: String,
    /// The file's name, which tells its kind.
    pub filename: String,
    /// How many pictures are made.
    pub n: Option<u8>,
    /// Their size, such as `512x512`.
    pub size: Option<String>,
}

/// A picture that others are to be like, as the OpenAI client uploads it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variation {
    /// The model's id.
    pub model: Option<String>,
    /// The picture's bytes, in base64.
    pub base64: String,
    /// The file's name, which tells its kind.
    pub filename: String,
    /// How many pictures are made.
    pub n: Option<u8>,
}

/// A raw request.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Http {
    /// `GET`, or `POST` if there is a body, unless told.
    pub method: Option<String>,
    /// The path with its query.
    pub path: String,
    /// Extra headers.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// A text goes out as it is, anything else as JSON.
    pub body: Option<Value>,
    /// A form, `multipart/form-data`, instead of a body.
    pub form: Option<Vec<Field>>,
    /// The client hangs up when so many bytes of the body are sent; the head promises all of them.
    pub cut_after: Option<usize>,
    /// The client leaves after so many lines or events of the answer.
    pub leave_after: Option<usize>,
}

/// A field of a form.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// Its text.
    pub value: Option<String>,
    /// The bytes of a file, in base64.
    pub base64: Option<String>,
    /// The file's name.
    pub filename: Option<String>,
    /// The type of its content.
    pub content_type: Option<String>,
}
