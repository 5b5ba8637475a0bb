//! Requests whose target goes out exactly as it is written. URLs are tidied before they are sent (`/v1/../api` becomes
//! `/api`), which is what an attacker does not do.

use std::error::Error;

use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// How a target goes out that is sent as a URL: without dots, control characters and a fragment, the rest encoded where
/// it must be.
#[must_use]
pub fn tidied(target: &str) -> Option<String> {
    let url = reqwest::Url::parse(&format!("http://h{target}")).ok()?;
    Some(url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path())))
}

/// Whether a target can go out as it is written.
#[must_use]
pub fn can(target: &str) -> bool {
    target.bytes().all(|byte| byte.is_ascii_graphic())
        && target
            .parse::<http::Uri>()
            .is_ok_and(|uri| uri.path_and_query().is_some_and(|whole| whole.as_str() == target))
}

/// Sends a request on a connection of its own.
///
/// # Errors
/// There is no connection or no answer: in words.
pub(super) async fn execute(request: reqwest::Request, target: &str) -> Result<reqwest::Response, String> {
    attempt(request, target).await.map_err(|error| crate::text::chain(&*error))
}

async fn attempt(request: reqwest::Request, target: &str) -> Result<reqwest::Response, Box<dyn Error + Send + Sync>> {
    let url = request.url().clone();
    let (Some(host), Some(port), "http") = (url.host_str(), url.port_or_known_default(), url.scheme()) else {
        return Err(format!("{target} can be sent verbatim to http:// only").into());
    };
    let connection = TcpStream::connect((host.trim_matches(['[', ']']), port)).await?;
    let (mut sender, driver) = hyper::client::conn::http1::handshake(TokioIo::new(connection)).await?;
    // It ends with the answer's body, which is read to its end or dropped.
    tokio::spawn(driver);
    let mut request: http::Request<reqwest::Body> = request.try_into()?;
    *request.uri_mut() = target.parse()?;
    if !request.headers().contains_key(http::header::HOST) {
        let authority = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        request.headers_mut().insert(http::header::HOST, authority.parse()?);
    }
    Ok(sender.send_request(request).await?.map(reqwest::Body::wrap).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_that_a_url_would_tidy_can_go_out_as_it_is() {
        for target in ["/v1/../api/delete", "//api/tags/../tags", "/%2e%2e/a", "/a?x=[1]&y=%2F", "/:99999"] {
            assert!(can(target), "{target}");
        }
        assert_eq!(tidied("/v1/../api/delete").as_deref(), Some("/api/delete"));
        assert_eq!(tidied("/a%20b/:1?x=[1]&y=%2F").as_deref(), Some("/a%20b/:1?x=[1]&y=%2F"));
        for target in ["/a b", "/ü", "/a#b", "/a\0", ""] {
            assert!(!can(target), "{target:?}");
        }
    }
}
