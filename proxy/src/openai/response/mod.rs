//! What endpoints share to write a response: the event stream and log probabilities.

pub(crate) mod logprobs;
pub(crate) mod sse;

use axum::{body::Body, response::Response};
use http::{HeaderValue, header};
use serde::Serialize;

use crate::{error::Error, json_writer};

/// A response with `value`, which is about `size` bytes long as JSON.
///
/// # Errors
/// None that a plain struct can cause.
pub(crate) fn json(value: &impl Serialize, size: usize) -> Result<Response, Error> {
    let body = json_writer::to_vec(value, size).map_err(|error| Error::Internal { message: error.to_string() })?;
    Ok(written(body))
}

/// A response with JSON that is written already.
pub(crate) fn written(body: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(body));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
