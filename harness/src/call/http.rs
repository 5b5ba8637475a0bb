//! Anything, raw: a request as the scenario writes it, and the answer without a client's help.

use reqwest::{Method, header};
use serde_json::Value;

use super::{Door, tap::Tap};
use crate::scenario::Http;

/// Sends the request and waits for the end of the answer.
///
/// # Errors
/// The request cannot be made, or there is no answer: in words. An answer that breaks off is no error here; the tap has it.
pub(super) async fn send(tap: &Tap, door: Door<'_>, call: &Http) -> Result<(), String> {
    let method = match &call.method {
        Some(method) => Method::from_bytes(method.as_bytes()).map_err(|error| format!("{method}: {error}"))?,
        None if call.body.is_some() => Method::POST,
        None => Method::GET,
    };
    let mut request = door.http.request(method, format!("{}{}", door.url, call.path));
    if let Some(key) = door.key
        && !call.headers.keys().any(|name| name.eq_ignore_ascii_case("authorization"))
    {
        request = request.bearer_auth(key);
    }
    for (name, value) in &call.headers {
        request = request.header(name, value);
    }
    match &call.body {
        None => {}
        Some(Value::String(text)) => request = request.body(text.clone()),
        Some(json) => {
            if !call.headers.keys().any(|name| name.eq_ignore_ascii_case("content-type")) {
                request = request.header(header::CONTENT_TYPE, "application/json");
            }
            request = request.body(json.to_string());
        }
    }
    let request = request.build().map_err(|error| super::tap::chain(&error))?;
    tap.send(request).await.map(drop).map_err(|error| super::tap::chain(&error))
}
