//! Chat completions with the OpenAI client: its types judge the answer, and its stream reader reads the stream.

use async_openai::{
    Client,
    config::OpenAIConfig,
    types::chat::{CreateChatCompletionResponse, CreateChatCompletionStreamResponse},
};
use futures_util::StreamExt;
use serde::{
    Deserialize,
    de::{DeserializeOwned, Deserializer, Error},
};
use serde_json::{Value, json};

use super::{Understood, as_written, error, fold::Fold, without_nulls};

/// What clients for thinking models read beside the client's own types.
const EXTENSIONS: [&str; 2] = ["reasoning", "reasoning_content"];

/// Sends the request as it is written; `stream: true` in it asks for a stream.
pub(super) async fn create(client: &Client<OpenAIConfig>, request: Value, understood: &Understood) {
    if request["stream"] != json!(true) {
        let answer = client.chat().create_byot::<_, Typed<CreateChatCompletionResponse>>(request).await;
        return understood.set(answer.map_or_else(|failed| error(&failed), Typed::into_value));
    }
    let stream = client.chat().create_stream_byot::<_, Typed<CreateChatCompletionStreamResponse>>(request).await;
    let mut stream = match stream {
        Ok(stream) => stream,
        Err(failed) => return understood.set(error(&failed)),
    };
    let mut fold = Fold::default();
    let mut failed = None;
    while let Some(item) = stream.next().await {
        match item {
            Ok(chunk) => fold.add(&chunk.value),
            // The client goes on after an error; the first one is what its user sees.
            Err(item) => failed = failed.or_else(|| Some(error(&item))),
        }
    }
    let mut answer = fold.finish();
    if let Some(failed) = failed {
        answer["error"] = failed["error"].clone();
    }
    understood.set(answer);
}

/// What one of the client's types keeps of a document, and the extensions. A document that the type cannot take is an
/// error.
pub(super) struct Typed<T> {
    value: Value,
    kind: std::marker::PhantomData<fn() -> T>,
}

impl<T> Typed<T> {
    pub(super) fn into_value(self) -> Value {
        self.value
    }
}

impl<'de, T: DeserializeOwned + serde::Serialize> Deserialize<'de> for Typed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let document = Value::deserialize(deserializer)?;
        let typed = T::deserialize(&document).map_err(D::Error::custom)?;
        let mut value = without_nulls(as_written(&typed).map_err(D::Error::custom)?);
        let choices = value["choices"].as_array_mut().into_iter().flatten();
        for (choice, original) in choices.zip(document["choices"].as_array().into_iter().flatten()) {
            for part in ["message", "delta"] {
                for name in EXTENSIONS {
                    if let Some(text) = original[part].get(name).filter(|text| !text.is_null()) {
                        choice[part][name] = text.clone();
                    }
                }
            }
        }
        Ok(Self { value, kind: std::marker::PhantomData })
    }
}
