//! Bytes in, bytes out: the lane of everything that is not translated.
//!
//! Never parses, decodes, buffers or re-encodes. What differs between what comes in and what goes out stands in this file, whole:
//! hop-by-hop headers, `Host`, `Origin` (judged here), the caller's key, and one `Via`.

use axum::body::Body;
use http::{HeaderMap, HeaderName, Request, Response, Version, header};

use crate::{error::Error, upstream::client::Client};

/// Headers that concern one connection only (RFC 9110, 7.6.1), besides those that `Connection` names.
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Headers that may hold the caller's key.
pub(crate) static KEYS: [HeaderName; 2] = [header::AUTHORIZATION, HeaderName::from_static("x-api-key")];

/// Sends `request` to the remote as it is, and its answer back as it is.
///
/// # Errors
/// When there is no answer. Whatever answers, Ollama or not, is passed on.
pub(crate) async fn pass(client: &Client, request: Request<Body>, forward_auth: bool) -> Result<Response<Body>, Error> {
    let (mut parts, body) = request.into_parts();
    strip_hop_by_hop(&mut parts.headers);
    parts.headers.remove(header::HOST);
    parts.headers.remove(header::ORIGIN);
    if !forward_auth {
        for name in &KEYS {
            parts.headers.remove(name);
        }
    }
    parts.version = Version::HTTP_11;
    parts.extensions.clear();
    let answer = client.send(Request::from_parts(parts, body)).await?;
    let (mut parts, body) = answer.into_parts();
    strip_hop_by_hop(&mut parts.headers);
    parts.version = Version::HTTP_11;
    parts.extensions.clear();
    Ok(Response::from_parts(parts, Body::new(body)))
}

fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(header::CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| name.trim().parse().ok())
            .collect();
        for name in named {
            headers.remove(name);
        }
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn headers_that_connection_names_go_with_the_hop() {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONNECTION, HeaderValue::from_static("close, X-Hop"));
        headers.insert("x-hop", HeaderValue::from_static("1"));
        headers.insert("x-end", HeaderValue::from_static("1"));
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        strip_hop_by_hop(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-end"]);
    }
}
