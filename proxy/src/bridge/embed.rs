//! Vectors of an OpenAI server as Ollama's: of length 1 and in order, whether they come as numbers or as base64. Pure.

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::{
    bridge::{
        go::bad_request,
        refusal,
        wire::{EmbedReply, Embeddings, OldEmbedReply},
    },
    error::Error,
    redact::Redactor,
};

/// How far from 1 the length of a vector may be that stays unchanged.
const EXACT: f32 = 1e-5;

/// The vectors for `inputs` texts, in their order, and the tokens that they took.
fn vectors(reply: &[u8], inputs: usize, redactor: &Redactor) -> Result<(Vec<Vec<f32>>, u64), Error> {
    let Embeddings { data, usage } =
        serde_json::from_slice(reply).map_err(|error| refusal::no_completion(reply, &error.to_string(), redactor))?;
    if data.len() != inputs {
        let message = format!("the remote gave {} vectors for {inputs} inputs", data.len());
        return Err(Error::NotOllama { message });
    }
    let mut vectors = vec![Vec::new(); inputs];
    for (at, embedding) in data.into_iter().enumerate() {
        let at = embedding.index.unwrap_or(at);
        let place = vectors.get_mut(at).filter(|place| place.is_empty());
        let place = place.ok_or_else(|| Error::NotOllama {
            message: format!("the remote gave a vector for the input {at}, of {inputs} inputs"),
        })?;
        *place = numbers(embedding.embedding.get())?;
    }
    Ok((vectors, usage.and_then(|usage| usage.prompt_tokens).unwrap_or(0)))
}

fn numbers(raw: &str) -> Result<Vec<f32>, Error> {
    let no_vector =
        || Error::NotOllama { message: "the remote returned an embedding that is not a list of numbers".to_owned() };
    let numbers: Vec<f32> = if raw.starts_with('"') {
        let text: String = serde_json::from_str(raw).map_err(|_| no_vector())?;
        let bytes = STANDARD.decode(text).map_err(|_| no_vector())?;
        let (numbers, rest) = bytes.as_chunks::<4>();
        if !rest.is_empty() {
            return Err(no_vector());
        }
        numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    } else {
        serde_json::from_str(raw).map_err(|_| no_vector())?
    };
    match numbers.iter().all(|number| number.is_finite()) {
        true => Ok(numbers),
        false => Err(bad_request("embedding contains NaN or Inf values")),
    }
}

/// The same direction, of length 1.
fn normalized(mut vector: Vec<f32>) -> Vec<f32> {
    let length = vector.iter().map(|number| number * number).sum::<f32>().sqrt();
    if length > 0.0 && (length - 1.0).abs() > EXACT {
        vector.iter_mut().for_each(|number| *number /= length);
    }
    vector
}

/// The answer of `POST /api/embed`.
///
/// # Errors
/// Fails if the vectors cannot be read, or do not belong to the inputs.
pub(super) fn reply<'a>(
    model: &'a str,
    reply: &[u8],
    inputs: usize,
    elapsed: std::time::Duration,
    redactor: &Redactor,
) -> Result<EmbedReply<'a>, Error> {
    let (vectors, prompt_eval_count) = vectors(reply, inputs, redactor)?;
    Ok(EmbedReply {
        model,
        embeddings: vectors.into_iter().map(normalized).collect(),
        total_duration: u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX),
        prompt_eval_count,
    })
}

/// The answer of `POST /api/embeddings`.
///
/// # Errors
/// As [`reply`].
pub(super) fn old_reply(reply: &[u8], redactor: &Redactor) -> Result<OldEmbedReply, Error> {
    let (mut vectors, _) = vectors(reply, 1, redactor)?;
    let embedding = vectors.pop().unwrap_or_default().into_iter().map(f64::from).collect();
    Ok(OldEmbedReply { embedding })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn reported(json: &str, inputs: usize) -> Result<Vec<Vec<f32>>, String> {
        let reply = reply("m", json.as_bytes(), inputs, Duration::ZERO, &Redactor::default());
        reply.map(|reply| reply.embeddings).map_err(|error| error.to_string())
    }

    #[test]
    fn numbers_and_base64_are_the_same_vectors_of_length_one() {
        let bytes: Vec<u8> = [3.0_f32, -4.0].iter().flat_map(|number| number.to_le_bytes()).collect();
        let base64 = format!(r#"{{"data":[{{"index":0,"embedding":"{}"}}]}}"#, STANDARD.encode(bytes));
        let expected = Ok(vec![vec![0.6, -0.8]]);
        assert_eq!(reported(&base64, 1), expected);
        assert_eq!(reported(r#"{"data":[{"embedding":[3,-4.0]}]}"#, 1), expected);
        let old = old_reply(base64.as_bytes(), &Redactor::default()).unwrap();
        assert_eq!(old.embedding, [3.0, -4.0], "the older route has them as they are");
    }

    #[test]
    fn vectors_stand_in_the_order_of_their_inputs() {
        let swapped = r#"{"data":[{"index":1,"embedding":[0,1]},{"index":0,"embedding":[1,0]}]}"#;
        assert_eq!(reported(swapped, 2), Ok(vec![vec![1.0, 0.0], vec![0.0, 1.0]]));
    }

    #[test]
    fn vectors_that_do_not_belong_to_the_inputs_are_an_error() {
        for (reply, inputs) in [
            (r#"{"data":[]}"#, 1),
            (r#"{"data":[{"index":7,"embedding":[1]}]}"#, 1),
            (r#"{"data":[{"index":0,"embedding":[1]},{"index":0,"embedding":[1]}]}"#, 2),
            (r#"{"data":[{"embedding":"QUJD"}]}"#, 1),
            (r#"{"data":[{"embedding":{"x":1}}]}"#, 1),
            ("<html>", 1),
        ] {
            assert!(reported(reply, inputs).is_err(), "{reply}");
        }
    }
}
