//! An embedding request for Ollama, and its answer back. Pure.

use base64::{Engine, engine::general_purpose::STANDARD};
use itoa::Buffer;

use crate::{
    error::{Error, Params},
    json_writer,
    ollama::embed::{EmbedReply, EmbedRequest},
    openai::{
        embeddings::wire::{Encoding, Facts, Request},
        tools::repair::Repairs,
        upstream_request::{
            context::Policy,
            send::{UpstreamRequest, VersionGated},
        },
    },
    upstream::client::encode,
};

/// Where Ollama is asked.
pub(super) const PATH: &str = "/api/embed";

/// What is asked of Ollama, and what may be changed about it where it is refused.
///
/// # Errors
/// As [`request`].
pub(super) fn ask(asked: Request<'_>, policy: &Policy) -> Result<UpstreamRequest, Error> {
    let (model, may_grow) = (asked.model.to_string(), policy.may_grow(&asked.native));
    let body = encode(&request(asked, policy)?)?;
    // There is no answer that would need room beside the input.
    Ok(UpstreamRequest {
        path: PATH,
        params: Params::reading("input"),
        model,
        body,
        may_grow,
        limit: Some(0),
        effort: None,
        forced: false,
        version_gated: VersionGated::default(),
        reask: Repairs::default(),
    })
}

/// Client → upstream.
///
/// # Errors
/// None that a request can cause.
pub(super) fn request<'a>(request: Request<'a>, policy: &Policy) -> Result<EmbedRequest<'a>, Error> {
    let mut native = request.native;
    let truncate = policy.apply(&mut native);
    Ok(EmbedRequest {
        model: request.model.0,
        input: request.input,
        truncate,
        dimensions: request.dimensions,
        keep_alive: native.keep_alive,
        options: native.options,
    })
}

/// Upstream → client: the answer as JSON. Vectors are copied as Ollama wrote them, `size` bytes in all.
///
/// # Errors
/// Vectors that are none, too few, or not as long as was asked.
pub(super) fn response(facts: &Facts, reply: &EmbedReply<'_>, size: usize) -> Result<Vec<u8>, Error> {
    let (got, asked) = (reply.embeddings.len(), facts.inputs);
    if got != asked {
        return Err(Error::NotOllama { message: format!("the remote gave {got} vectors for {asked} inputs") });
    }
    let mut out = Vec::with_capacity(size + 512 + 64 * asked);
    out.extend_from_slice(br#"{"object":"list","data":["#);
    for (index, vector) in reply.embeddings.iter().enumerate() {
        let numbers = inside(vector)?;
        if let Some(asked) = facts.dimensions
            && let length = length(numbers)
            && asked != length
        {
            return Err(Error::unsupported("dimensions", too_short(length, asked)));
        }
        out.extend_from_slice(if index == 0 { b"" } else { b"," });
        out.extend_from_slice(br#"{"object":"embedding","index":"#);
        out.extend_from_slice(Buffer::new().format(index).as_bytes());
        out.extend_from_slice(br#","embedding":"#);
        match facts.encoding {
            Encoding::Float => out.extend_from_slice(vector.as_bytes()),
            Encoding::Base64 => json_writer::text(&mut out, &STANDARD.encode(floats(numbers)?)),
        }
        out.push(b'}');
    }
    out.extend_from_slice(br#"],"model":"#);
    json_writer::text(&mut out, &facts.model);
    let mut number = Buffer::new();
    let tokens = number.format(reply.prompt_eval_count.unwrap_or(0)).as_bytes();
    for part in [&br#","usage":{"prompt_tokens":"#[..], tokens, br#","total_tokens":"#, tokens, b"}}"] {
        out.extend_from_slice(part);
    }
    Ok(out)
}

/// Ollama leaves out in silence what it cannot do: a longer vector than the model's, and before 0.11.11 a shorter one
/// too.
fn too_short(length: u64, asked: u64) -> String {
    if asked > length {
        format!("The model's vectors have {length} dimensions; 'dimensions' cannot be {asked}.")
    } else {
        format!(
            "The remote Ollama gave vectors of {length} dimensions instead of {asked}: it can shorten them from 0.11.11 on."
        )
    }
}

/// What stands in an array.
fn inside(array: &str) -> Result<&str, Error> {
    array.strip_prefix('[').and_then(|text| text.strip_suffix(']')).map(str::trim).ok_or_else(no_vector)
}

fn no_vector() -> Error {
    Error::NotOllama { message: "the remote returned an embedding that is not a list of numbers".to_owned() }
}

/// How many numbers there are. They are valid JSON, so they have one comma less.
fn length(numbers: &str) -> u64 {
    if numbers.is_empty() { 0 } else { memchr::memchr_iter(b',', numbers.as_bytes()).count() as u64 + 1 }
}

/// Exact: Ollama writes float32 in its shortest form, and each is read as float32 again.
fn floats(numbers: &str) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::with_capacity(4096);
    for number in numbers.split(',').map(str::trim).filter(|number| !number.is_empty()) {
        let number: f32 = number.parse().map_err(|_| no_vector())?;
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn base64_holds_every_bit_of_every_float32(bits in prop::collection::vec(any::<u32>(), 1..50)) {
            let numbers: Vec<f32> = bits.into_iter().map(f32::from_bits).filter(|number| number.is_finite()).collect();
            let text = serde_json::to_string(&numbers).unwrap();
            let expected: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
            prop_assert_eq!(floats(inside(&text).unwrap()).unwrap(), expected);
            prop_assert_eq!(length(inside(&text).unwrap()), numbers.len() as u64);
        }

        #[test]
        fn the_length_does_not_depend_on_how_an_array_is_printed(numbers in prop::collection::vec(any::<i32>(), 0..50)) {
            let pretty = serde_json::to_string_pretty(&numbers).unwrap();
            for text in [&*pretty, &serde_json::to_string(&numbers).unwrap()] {
                prop_assert_eq!(length(inside(text).unwrap()), numbers.len() as u64);
            }
            prop_assert!(inside("null").is_err());
        }
    }

    #[test]
    fn base64_is_as_the_reference_says() {
        // ollama-wire E03
        assert_eq!(STANDARD.encode(floats("0.1, -0.2, 0.3").unwrap()), "zczMPc3MTL6amZk+");
    }

    #[test]
    fn what_is_no_vector_is_an_error() {
        for json in ["null", "{}", "[null]", "[\"a\"]", "[[1]]"] {
            assert!(inside(json).and_then(floats).is_err(), "{json}");
        }
    }
}
