//! Sound with the OpenAI client: recordings are uploaded, speech is fetched.
#![expect(deprecated, reason = "OpenAI gives translations up; servers that have them are checked all the same")]

use async_openai::types::audio::{
    AudioInput, AudioResponseFormat, CreateSpeechRequest, CreateTranscriptionRequest, CreateTranscriptionResponseJson,
    CreateTranslationRequest, CreateTranslationResponseJson, TranslationResponseFormat,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{
    Understood, decoded, error,
    typed::{OpenAI, understand},
};
use crate::scenario::call::Hearing;

/// `POST /v1/audio/transcriptions`, as JSON.
pub(super) async fn transcriptions(client: &OpenAI, hearing: &Hearing, understood: &Understood) {
    let Hearing { model, base64, filename, language, prompt, temperature } = hearing.clone();
    let request = CreateTranscriptionRequest {
        file: AudioInput::from_vec_u8(filename, decoded(&base64)),
        model,
        language,
        prompt,
        temperature,
        response_format: Some(AudioResponseFormat::Json),
        ..CreateTranscriptionRequest::default()
    };
    let answer = client.audio().transcription().create_byot(request).await;
    understand::<CreateTranscriptionResponseJson>(answer, understood);
}

/// `POST /v1/audio/translations`, as JSON.
pub(super) async fn translations(client: &OpenAI, hearing: &Hearing, understood: &Understood) {
    // That there is no language was seen to when the scenario was read.
    let Hearing { model, base64, filename, language: _, prompt, temperature } = hearing.clone();
    let request = CreateTranslationRequest {
        file: AudioInput::from_vec_u8(filename, decoded(&base64)),
        model,
        prompt,
        temperature,
        response_format: Some(TranslationResponseFormat::Json),
    };
    understand::<CreateTranslationResponseJson>(client.audio().translation().create_byot(request).await, understood);
}

/// `POST /v1/audio/speech`.
pub(super) async fn speech(client: &OpenAI, request: &Value, understood: &Understood) {
    let request = match spoken(request) {
        Ok(request) => request,
        Err(wrong) => return understood.set(json!({"error": {"kind": "client", "message": wrong}})),
    };
    understood.set(match client.audio().speech().create(request).await {
        Ok(answer) => json!({"bytes": answer.bytes.len(), "base64": STANDARD.encode(&answer.bytes)}),
        Err(failed) => error(&failed),
    });
}

/// The request in the client's own type, which is the only one that it takes.
///
/// # Errors
/// The type cannot hold all of it.
pub(super) fn spoken(request: &Value) -> Result<CreateSpeechRequest, String> {
    let typed: CreateSpeechRequest = serde_json::from_value(request.clone())
        .map_err(|error| format!("the OpenAI client cannot send this: {error}"))?;
    let kept = super::as_written(&typed).unwrap_or_default();
    let lost = request.as_object().into_iter().flatten().map(|(name, _)| name).find(|name| kept.get(name).is_none());
    match lost {
        Some(name) => Err(format!("the OpenAI client cannot send `{name}` with speech; a raw call can")),
        None if request["stream_format"] == "sse" => {
            Err("the OpenAI client takes speech as bytes; for `stream_format: sse` make a raw call".to_owned())
        }
        None => Ok(typed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_clients_type_of_speech_would_lose_is_reported() {
        assert!(spoken(&json!({"model": "m", "input": "hi", "voice": "alloy", "speed": 1.5})).is_ok());
        let wrong = spoken(&json!({"model": "m", "input": "hi", "voice": "alloy", "speeed": 1})).unwrap_err();
        assert!(wrong.contains("`speeed`"), "{wrong}");
        assert!(spoken(&json!({"model": "m"})).unwrap_err().contains("missing field"));
    }
}
