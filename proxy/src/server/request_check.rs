//! What a request must have before anything else looks at it: exactly one `Host`, a transfer coding and an expectation
//! that are known, and a connection within the limits of its client.

use axum::extract::Request;
use http::{HeaderMap, StatusCode, Version, header};

use crate::{error::Error, server::listener::OverAddressLimit};

/// # Errors
/// The request breaks a rule of HTTP, asks for what is not implemented, or comes on a connection too many. Its body is
/// not read.
pub(crate) fn check(request: &Request) -> Result<(), Error> {
    if let Some(OverAddressLimit(limit)) = request.extensions().get() {
        return Err(Error::Busy {
            message: format!(
                "your address has {limit} connections with requests in flight already; wait for one to end, or raise limits.connections_per_address"
            ),
        });
    }
    let (version, headers) = (request.version(), request.headers());
    host(version, headers)?;
    transfer_encoding(headers)?;
    expect(version, headers)
}

/// RFC 9112, 3.2.
fn host(version: Version, headers: &HeaderMap) -> Result<(), Error> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let message = match (hosts.next(), hosts.next()) {
        (Some(host), None) if host.to_str().is_ok() => return Ok(()),
        (Some(_), None) => "the Host header is not a host name",
        (None, _) if version < Version::HTTP_11 => return Ok(()),
        (None, _) => "the request has no Host header, which HTTP/1.1 requires",
        (Some(_), Some(_)) => "the request has more than one Host header",
    };
    Err(Error::Http { status: StatusCode::BAD_REQUEST, message: message.to_owned() })
}

/// RFC 9112, 6.1: hyper undoes `chunked`; any other coding would reach the reader still encoded.
fn transfer_encoding(headers: &HeaderMap) -> Result<(), Error> {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(()),
        (Some(only), None) if only.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => Err(Error::Http {
            status: StatusCode::NOT_IMPLEMENTED,
            message: "the only transfer coding that is implemented is chunked; compressed bodies need Content-Encoding"
                .to_owned(),
        }),
    }
}

/// RFC 9110, 10.1.1.
fn expect(version: Version, headers: &HeaderMap) -> Result<(), Error> {
    let mut expectations = headers.get_all(header::EXPECT).iter();
    let known = |value: &http::HeaderValue| value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"100-continue");
    match expectations.find(|value| !known(value)) {
        Some(unknown) if version >= Version::HTTP_11 => Err(Error::Http {
            status: StatusCode::EXPECTATION_FAILED,
            message: format!("unknown expectation {unknown:?}: only 100-continue is supported"),
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The status that a request of `version` with these header lines is refused with.
    fn refused(version: Version, lines: &[(&str, &str)]) -> Option<u16> {
        let builder = Request::builder().version(version);
        let request = lines.iter().fold(builder, |builder, (name, value)| builder.header(*name, *value));
        let checked = check(&request.body(axum::body::Body::empty()).unwrap());
        checked.err().map(|error| error.row().status.as_u16())
    }

    #[test]
    fn a_request_has_exactly_one_host_but_http_1_0_may_have_none() {
        let (http10, http11) = (Version::HTTP_10, Version::HTTP_11);
        assert_eq!(refused(http11, &[]), Some(400));
        assert_eq!(refused(http11, &[("host", "localhost"), ("host", "localhost")]), Some(400));
        assert_eq!(refused(http11, &[("host", "localh\u{f6}st")]), Some(400));
        assert_eq!(refused(http10, &[("host", "a"), ("host", "b")]), Some(400));
        for ok in
            [refused(http10, &[]), refused(http11, &[("host", "localhost:11434")]), refused(http11, &[("host", "")])]
        {
            assert_eq!(ok, None);
        }
    }

    #[test]
    fn the_only_transfer_coding_is_chunked() {
        let coded = |codings: &[&str]| {
            let codings = codings.iter().map(|coding| ("transfer-encoding", *coding));
            refused(Version::HTTP_11, &[("host", "a")].into_iter().chain(codings).collect::<Vec<_>>())
        };
        assert_eq!((coded(&["chunked"]), coded(&["Chunked"])), (None, None));
        for codings in [&["gzip, chunked"][..], &["gzip", "chunked"], &["chunked", "chunked"], &["identity"]] {
            assert_eq!(coded(codings), Some(501), "{codings:?}");
        }
    }

    #[test]
    fn the_only_expectation_is_100_continue() {
        let expecting = |version, value| refused(version, &[("host", "a"), ("expect", value)]);
        assert_eq!(expecting(Version::HTTP_11, "100-Continue"), None);
        assert_eq!(expecting(Version::HTTP_11, "200-ok"), Some(417));
        assert_eq!(expecting(Version::HTTP_11, "100-continue, x"), Some(417));
        assert_eq!(expecting(Version::HTTP_10, "x"), None, "HTTP/1.0 has no expectations");
    }

    #[test]
    fn a_connection_too_many_is_refused_with_503() {
        let mut request = Request::builder().header("host", "a").body(axum::body::Body::empty()).unwrap();
        request.extensions_mut().insert(OverAddressLimit(7));
        let error = check(&request).unwrap_err();
        assert!(error.row().status == 503 && error.to_string().contains("limits.connections_per_address"), "{error}");
    }
}
