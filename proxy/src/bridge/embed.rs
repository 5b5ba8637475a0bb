//! Vectors of an OpenAI server as Ollama's: of length 1 and in order, whether they come as numbers or as base64. Pure.

use std::borrow::Cow;

use base64::{Engine, engine::general_purpose::STANDARD};
use zmij::{Buffer, Float};

use crate::{
    bridge::{go::bad_request, refusal, wire::Embeddings},
    error::Error,
    json_writer,
    redact::Redactor,
};

/// How far from 1 the length of a vector may be that stays unchanged.
const EXACT: f32 = 1e-5;

/// The vectors for `inputs` texts as the server wrote them, in their order, and the tokens that they took.
fn vectors<'a>(reply: &'a [u8], inputs: usize, redactor: &Redactor) -> Result<(Vec<&'a str>, u64), Error> {
    // One look at all of it is cheaper than one at each string.
    let read = std::str::from_utf8(reply).map_or_else(|_| serde_json::from_slice(reply), serde_json::from_str);
    let Embeddings { data, usage } =
        read.map_err(|error| refusal::no_completion(reply, &error.to_string(), redactor))?;
    if data.len() != inputs {
        let message = format!("the remote gave {} vectors for {inputs} inputs", data.len());
        return Err(Error::NotOllama { message });
    }
    let mut vectors = vec![""; inputs];
    for (at, embedding) in data.into_iter().enumerate() {
        let at = embedding.index.unwrap_or(at);
        let place = vectors.get_mut(at).filter(|place| place.is_empty());
        let place = place.ok_or_else(|| Error::NotOllama {
            message: format!("the remote gave a vector for the input {at}, of {inputs} inputs"),
        })?;
        *place = embedding.embedding.get();
    }
    Ok((vectors, usage.and_then(|usage| usage.prompt_tokens).unwrap_or(0)))
}

/// Reads vectors one after the other, in the same buffers.
#[derive(Default)]
struct Numbers {
    bytes: Vec<u8>,
    numbers: Vec<f32>,
}

impl Numbers {
    /// The numbers of `raw`: a list, or base64.
    fn read(&mut self, raw: &str) -> Result<&mut [f32], Error> {
        let no_vector = || Error::NotOllama {
            message: "the remote returned an embedding that is not a list of numbers".to_owned(),
        };
        self.numbers.clear();
        if raw.starts_with('"') {
            // Base64 needs no escapes, but a slash may have one.
            let text = match memchr::memchr(b'\\', raw.as_bytes()) {
                None => Cow::Borrowed(raw.trim_matches('"')),
                Some(_) => serde_json::from_str(raw).map_err(|_| no_vector())?,
            };
            let size = base64::decoded_len_estimate(text.len());
            if self.bytes.len() < size {
                self.bytes.resize(size, 0);
            }
            let length = STANDARD.decode_slice(&*text, &mut self.bytes).map_err(|_| no_vector())?;
            let (numbers, rest) = self.bytes[..length].as_chunks();
            if !rest.is_empty() {
                return Err(no_vector());
            }
            self.numbers.extend(numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)));
        } else {
            self.numbers = serde_json::from_str(raw).map_err(|_| no_vector())?;
        }
        match self.numbers.iter().all(|number| number.is_finite()) {
            true => Ok(&mut self.numbers),
            false => Err(bad_request("embedding contains NaN or Inf values")),
        }
    }
}

/// The same direction, of length 1.
fn normalize(vector: &mut [f32]) {
    let length = vector.iter().map(|number| number * number).sum::<f32>().sqrt();
    if length > 0.0 && (length - 1.0).abs() > EXACT {
        vector.iter_mut().for_each(|number| *number /= length);
    }
}

/// Appends `vector` as JSON. Its numbers are finite.
fn write(out: &mut Vec<u8>, vector: impl IntoIterator<Item = impl Float>) {
    let mut buffer = Buffer::new();
    out.push(b'[');
    for number in vector {
        out.extend_from_slice(buffer.format_finite(number).as_bytes());
        out.push(b',');
    }
    match out.last_mut().filter(|last| **last == b',') {
        Some(last) => *last = b']',
        None => out.push(b']'),
    }
}

/// The answer of `POST /api/embed`.
///
/// # Errors
/// Fails if the vectors cannot be read, or do not belong to the inputs.
pub(super) fn reply(
    model: &str,
    reply: &[u8],
    inputs: usize,
    elapsed: std::time::Duration,
    redactor: &Redactor,
) -> Result<Vec<u8>, Error> {
    let (vectors, tokens) = vectors(reply, inputs, redactor)?;
    let mut out = Vec::with_capacity(reply.len() * 2 + 256);
    let mut numbers = Numbers::default();
    out.extend_from_slice(br#"{"model":"#);
    json_writer::text(&mut out, model);
    out.extend_from_slice(br#","embeddings":["#);
    for (at, raw) in vectors.into_iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        let vector = numbers.read(raw)?;
        normalize(vector);
        write(&mut out, vector.iter().copied());
    }
    out.push(b']');
    let duration = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
    // Zero is left out, as Ollama does.
    for (name, number) in [("total_duration", duration), ("prompt_eval_count", tokens)] {
        if number > 0 {
            for part in [",\"", name, "\":", itoa::Buffer::new().format(number)] {
                out.extend_from_slice(part.as_bytes());
            }
        }
    }
    out.push(b'}');
    Ok(out)
}

/// The answer of `POST /api/embeddings`.
///
/// # Errors
/// As [`reply`].
pub(super) fn old_reply(reply: &[u8], redactor: &Redactor) -> Result<Vec<u8>, Error> {
    let (vectors, _) = vectors(reply, 1, redactor)?;
    let mut out = Vec::with_capacity(reply.len() * 2 + 256);
    out.extend_from_slice(br#"{"embedding":"#);
    let mut numbers = Numbers::default();
    let vector = numbers.read(vectors.first().copied().unwrap_or_default())?;
    write(&mut out, vector.iter().map(|number| f64::from(*number)));
    out.push(b'}');
    Ok(out)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn reported(json: &str, inputs: usize) -> Result<Vec<Vec<f32>>, String> {
        #[derive(serde::Deserialize)]
        struct Body {
            embeddings: Vec<Vec<f32>>,
        }
        let reply = reply("m", json.as_bytes(), inputs, Duration::ZERO, &Redactor::default());
        let reply = reply.map_err(|error| error.to_string())?;
        Ok(serde_json::from_slice::<Body>(&reply).unwrap().embeddings)
    }

    #[test]
    fn numbers_and_base64_are_the_same_vectors_of_length_one() {
        let bytes: Vec<u8> = [3.0_f32, -4.0].iter().flat_map(|number| number.to_le_bytes()).collect();
        let base64 = format!(r#"{{"data":[{{"index":0,"embedding":"{}"}}]}}"#, STANDARD.encode(bytes));
        let expected = Ok(vec![vec![0.6, -0.8]]);
        assert_eq!(reported(&base64, 1), expected);
        assert_eq!(reported(r#"{"data":[{"embedding":[3,-4.0]}]}"#, 1), expected);
        // Some servers escape slashes.
        for slashes in ["////PgAAAAA=", r"\/\/\/\/PgAAAAA="] {
            let base64 = format!(r#"{{"data":[{{"embedding":"{slashes}"}}]}}"#);
            assert_eq!(reported(&base64, 1), Ok(vec![vec![1.0, 0.0]]));
        }
        let old = old_reply(base64.as_bytes(), &Redactor::default()).unwrap();
        assert_eq!(String::from_utf8(old).unwrap(), r#"{"embedding":[3.0,-4.0]}"#, "the older route changes nothing");
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
