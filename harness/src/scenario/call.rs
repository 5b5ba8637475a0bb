//! What can be called: each endpoint with the OpenAI client, and anything raw.

use std::{collections::BTreeMap, fmt, sync::LazyLock};

use serde::{
    Deserialize, Deserializer,
    de::{EnumAccess, Error, VariantAccess, Visitor},
};
use serde_json::Value;

/// What can be called. All but [`Call::Http`] goes out through the OpenAI client.
#[derive(Clone, Debug)]
pub enum Call {
    /// `GET /v1/models`.
    Models,
    /// An endpoint that takes a request as a mapping, which goes out unchanged. Streamed if `stream: true`.
    Json(JsonCall, Value),
    /// An endpoint that takes an id in its path.
    ById(IdCall, String),
    /// `POST /v1/images/edits`.
    ImageEdits(Edit),
    /// `POST /v1/images/variations`.
    ImageVariations(Variation),
    /// `POST /v1/audio/transcriptions`.
    Transcriptions(Hearing),
    /// `POST /v1/audio/translations`.
    Translations(Hearing),
    /// Anything, raw.
    Http(Http),
}

/// The endpoints that take a request as a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JsonCall {
    /// `POST /v1/chat/completions`.
    Chat,
    /// `POST /v1/completions`.
    Completions,
    /// `POST /v1/embeddings`.
    Embeddings,
    /// `POST /v1/moderations`.
    Moderations,
    /// `POST /v1/images/generations`.
    Images,
    /// `POST /v1/responses`.
    Responses,
    /// `POST /v1/responses/input_tokens`.
    InputTokens,
    /// `POST /v1/responses/compact`.
    Compact,
    /// `POST /v1/audio/speech`. What is understood is the sound, in base64.
    Speech,
}

impl JsonCall {
    /// Each with its name in scenarios and its endpoint.
    pub const ALL: [(Self, &str, &str); 9] = [
        (Self::Chat, "chat", "POST /v1/chat/completions"),
        (Self::Completions, "completions", "POST /v1/completions"),
        (Self::Embeddings, "embeddings", "POST /v1/embeddings"),
        (Self::Moderations, "moderations", "POST /v1/moderations"),
        (Self::Images, "images", "POST /v1/images/generations"),
        (Self::Responses, "responses", "POST /v1/responses"),
        (Self::InputTokens, "input_tokens", "POST /v1/responses/input_tokens"),
        (Self::Compact, "compact", "POST /v1/responses/compact"),
        (Self::Speech, "speech", "POST /v1/audio/speech"),
    ];

    /// The method and the path.
    #[must_use]
    pub fn endpoint(self) -> &'static str {
        Self::ALL.iter().find(|(call, ..)| *call == self).map_or("", |(.., endpoint)| endpoint)
    }
}

/// The endpoints that take an id in their paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdCall {
    /// `GET /v1/models/{id}`.
    Model,
    /// `GET /v1/responses/{id}`.
    Response,
    /// `DELETE /v1/responses/{id}`.
    DeleteResponse,
    /// `POST /v1/responses/{id}/cancel`.
    CancelResponse,
    /// `GET /v1/responses/{id}/input_items`.
    InputItems,
}

impl IdCall {
    /// Each with its name in scenarios, and what its id is.
    pub const ALL: [(Self, &str, &str); 5] = [
        (Self::Model, "model", "Its id."),
        (Self::Response, "response", "The response's id."),
        (Self::DeleteResponse, "delete_response", "The response's id."),
        (Self::CancelResponse, "cancel_response", "The response's id."),
        (Self::InputItems, "input_items", "The response's id."),
    ];
}

/// The names of all calls, the most common ones first.
static NAMES: LazyLock<Vec<&str>> = LazyLock::new(|| {
    let first = ["models", "model"];
    let json = JsonCall::ALL.iter().map(|(_, name, _)| *name);
    let by_id = IdCall::ALL.iter().map(|(_, name, _)| *name).filter(|name| !first.contains(name));
    let others = ["image_edits", "image_variations", "transcriptions", "translations", "http"];
    first.into_iter().chain(json).chain(by_id).chain(others).collect()
});

/// The name of a call that there is. It is checked while it is read, so that an error has its place.
struct Name(&'static str);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;
        impl Visitor<'_> for Names {
            type Value = Name;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a call")
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<Name, E> {
                let known = NAMES.iter().find(|known| **known == name);
                known.map(|known| Name(known)).ok_or_else(|| E::unknown_variant(name, &NAMES))
            }
        }
        deserializer.deserialize_identifier(Names)
    }
}

impl<'de> Deserialize<'de> for Call {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Calls;
        impl<'de> Visitor<'de> for Calls {
            type Value = Call;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a call, such as `chat: { … }`")
            }

            fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<Call, A::Error> {
                let (Name(name), content) = data.variant()?;
                if let Some((call, ..)) = JsonCall::ALL.iter().find(|(_, known, _)| *known == name) {
                    return content.newtype_variant().map(|request| Call::Json(*call, request));
                }
                if let Some((call, ..)) = IdCall::ALL.iter().find(|(_, known, _)| *known == name) {
                    return content.newtype_variant().map(|id| Call::ById(*call, id));
                }
                match name {
                    "models" => content.unit_variant().map(|()| Call::Models),
                    "image_edits" => content.newtype_variant().map(Call::ImageEdits),
                    "image_variations" => content.newtype_variant().map(Call::ImageVariations),
                    "transcriptions" => content.newtype_variant().map(Call::Transcriptions),
                    "translations" => content.newtype_variant().map(Call::Translations),
                    "http" => content.newtype_variant().map(Call::Http),
                    other => Err(A::Error::unknown_variant(other, &NAMES)),
                }
            }
        }
        deserializer.deserialize_enum("Call", &NAMES, Calls)
    }
}

/// A recording that is to be heard, as the OpenAI client uploads it. Other fields and formats go by a raw call with a
/// form.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hearing {
    /// The model's id.
    pub model: String,
    /// The recording's bytes, in base64.
    pub base64: String,
    /// The file's name, whose extension is its kind.
    pub filename: String,
    /// The language that is spoken; a translation has none.
    pub language: Option<String>,
    /// A hint.
    pub prompt: Option<String>,
    /// The sampling temperature.
    pub temperature: Option<f32>,
}

/// An image that is to be changed, as the OpenAI client uploads it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Edit {
    /// The model's id.
    pub model: String,
    /// What is to become of it.
    pub prompt: String,
    /// The image's bytes, in base64.
    pub base64: String,
    /// The file's name, whose extension is its kind.
    pub filename: String,
    /// How many images are made.
    pub n: Option<u8>,
    /// Their size, such as `512x512`.
    pub size: Option<String>,
}

/// An image that others are to be like, as the OpenAI client uploads it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variation {
    /// The model's id.
    pub model: Option<String>,
    /// The image's bytes, in base64.
    pub base64: String,
    /// The file's name, whose extension is its kind.
    pub filename: String,
    /// How many images are made.
    pub n: Option<u8>,
}

/// A raw request.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Http {
    /// Default: `GET`, or `POST` if there is a body.
    pub method: Option<String>,
    /// The path with its query.
    pub path: String,
    /// Extra headers.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// A text is sent verbatim, anything else as JSON.
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
