//! Anything, raw: a request as the scenario writes it, and the answer without a client's help.

use futures_util::{StreamExt, stream};
use reqwest::{Method, header};
use serde_json::Value;

use super::{CallTarget, form, tap::Tap, verbatim};
use crate::scenario::Http;

/// Sends the request and waits for the end of the answer.
///
/// # Errors
/// The request cannot be made, or there is no answer: in words. An answer that breaks off is no error here; the tap has
/// it.
pub(super) async fn send(tap: &Tap, target: CallTarget<'_>, call: &Http) -> Result<(), String> {
    let method = match &call.method {
        Some(method) => Method::from_bytes(method.as_bytes()).map_err(|error| format!("{method}: {error}"))?,
        None if call.body.is_some() || call.form.is_some() => Method::POST,
        None => Method::GET,
    };
    let mut request = target.http.request(method, format!("{}{}", target.url, call.path));
    if let Some(key) = target.key
        && !call.headers.keys().any(|name| name.eq_ignore_ascii_case("authorization"))
    {
        request = request.bearer_auth(key);
    }
    for (name, value) in &call.headers {
        request = request.header(name, value);
    }
    let own_type = call.headers.keys().any(|name| name.eq_ignore_ascii_case("content-type"));
    let (content_type, body) = match (&call.form, &call.body) {
        (Some(form), _) => {
            let (content_type, body) = form::multipart(form);
            (Some(content_type), Some(body))
        }
        (None, Some(Value::String(text))) => (None, Some(text.clone().into_bytes())),
        (None, Some(json)) => (Some("application/json".to_owned()), Some(json.to_string().into_bytes())),
        (None, None) => (None, None),
    };
    if let Some(content_type) = content_type.filter(|_| !own_type) {
        request = request.header(header::CONTENT_TYPE, content_type);
    }
    if let Some(body) = body {
        request = match call.cut_after {
            None => request.body(body),
            Some(cut) => request.header(header::CONTENT_LENGTH, body.len()).body(half(body, cut)),
        };
    }
    let request = request.build().map_err(|error| crate::text::chain(&error))?;
    if verbatim::tidied(&call.path).is_some_and(|tidied| tidied == call.path) {
        return tap.send(request).await.map(drop).map_err(|error| crate::net::why(&error));
    }
    let root = reqwest::Url::parse(target.url).map_err(|error| error.to_string())?;
    let path = format!("{}{}", root.path().trim_end_matches('/'), call.path);
    let url = format!("{}{}", target.url, call.path);
    tap.send_by(request, url, |request| verbatim::execute(request, &path), String::clone).await.map(drop)
}

/// The beginning of a body, and then the end of the connection.
fn half(mut body: Vec<u8>, cut: usize) -> reqwest::Body {
    body.truncate(cut);
    let hang_up = std::io::Error::other("the client hangs up, as the step says");
    // The end of the connection must not overtake what was sent before it.
    let later = async {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        Err(hang_up)
    };
    reqwest::Body::wrap_stream(stream::iter([Ok(body)]).chain(stream::once(later)))
}
