//! The other endpoints with the OpenAI client: its types judge the answers, and its stream readers read the streams.

use async_openai::{
    Client,
    config::OpenAIConfig,
    error::OpenAIError,
    types::{
        completions::CreateCompletionResponse,
        embeddings::{CreateBase64EmbeddingResponse, CreateEmbeddingResponse},
        moderations::CreateModerationResponse,
    },
};
use base64::{Engine, engine::general_purpose::STANDARD};
use futures_util::{Stream, StreamExt};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{Understood, chat::Typed, error, fold, without_nulls};

pub(super) type OpenAI = Client<OpenAIConfig>;
pub(super) type Answer<T> = Result<Typed<T>, OpenAIError>;

/// Records what the client understood of an answer.
pub(super) fn understand<T>(answer: Answer<T>, understood: &Understood) {
    understood.set(answer.map_or_else(|failed| error(&failed), Typed::into_value));
}

/// `POST /v1/completions`, streamed if `stream: true`.
pub(super) async fn completions(client: &OpenAI, request: Value, understood: &Understood) {
    if request["stream"] != json!(true) {
        return understand::<CreateCompletionResponse>(client.completions().create_byot(request).await, understood);
    }
    let stream = client.completions().create_stream_byot::<_, Typed<CreateCompletionResponse>>(request).await;
    match stream {
        Err(failed) => understood.set(error(&failed)),
        Ok(stream) => {
            let mut fold = fold::Texts::default();
            let failed = read(stream, |chunk| fold.add(&chunk)).await;
            understood.set(with_error(fold.finish(), failed));
        }
    }
}

/// `POST /v1/embeddings`. Vectors that come in base64 are decoded as the client decodes them.
pub(super) async fn embeddings(client: &OpenAI, request: Value, understood: &Understood) {
    if request["encoding_format"] != json!("base64") {
        return understand::<CreateEmbeddingResponse>(client.embeddings().create_byot(request).await, understood);
    }
    let answer: Answer<CreateBase64EmbeddingResponse> = client.embeddings().create_base64_byot(request).await;
    let mut answer = match answer {
        Ok(answer) => answer.into_value(),
        Err(failed) => return understood.set(error(&failed)),
    };
    for item in answer["data"].as_array_mut().into_iter().flatten() {
        item["embedding"] = match vector(&item["embedding"]) {
            Some(vector) => super::as_written(&vector).unwrap_or_default(),
            None => {
                let message = "the client cannot read this: a vector is not float32 in base64";
                return understood.set(json!({"error": {"kind": "unreadable", "message": message}}));
            }
        };
    }
    understood.set(answer);
}

/// As the client does it, which ends its process where the base64 is wrong.
fn vector(text: &Value) -> Option<Vec<f32>> {
    let bytes = STANDARD.decode(text.as_str()?).ok().filter(|bytes| bytes.len() % 4 == 0)?;
    Some(bytes.chunks_exact(4).map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]])).collect())
}

/// `POST /v1/moderations`.
pub(super) async fn moderations(client: &OpenAI, request: Value, understood: &Understood) {
    understand::<CreateModerationResponse>(client.moderations().create_byot(request).await, understood);
}

/// Reads a stream to its end; the first error in it is what its user sees.
pub(super) async fn read<T: DeserializeOwned + Serialize>(
    mut stream: impl Stream<Item = Answer<T>> + Unpin,
    mut each: impl FnMut(Value),
) -> Option<Value>
where
    Typed<T>: for<'de> Deserialize<'de>,
{
    let mut failed = None;
    while let Some(item) = stream.next().await {
        match item {
            Ok(item) => each(item.into_value()),
            Err(item) => failed = failed.or_else(|| Some(error(&item))),
        }
    }
    failed
}

/// What was read, and the first error in it.
pub(super) fn with_error(answer: Value, failed: Option<Value>) -> Value {
    let mut answer = without_nulls(answer);
    if let Some(failed) = failed {
        answer["error"] = failed["error"].clone();
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_is_little_endian_and_whole() {
        assert_eq!(vector(&json!("AACAPwAAAMA=")), Some(vec![1.0, -2.0]));
        assert_eq!(vector(&json!("AACA")), None);
        assert_eq!(vector(&json!("%")), None);
    }
}
