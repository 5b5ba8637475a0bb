//! The HTTP client that every request of the harness goes out through.

use std::{error::Error, io::ErrorKind, time::Duration};

use crate::text::chain;

/// How long an unused connection is reused: less than what servers allow, so that a request never meets a connection
/// that the server is about to close. llama.cpp's server closes after 5 s (`Keep-Alive: timeout=5`, seen with xllamacpp
/// 2026.10.11549), uvicorn too.
const REUSE_WITHIN: Duration = Duration::from_secs(2);

/// Returns a client for calls: no proxy from the environment, no redirects, nothing decompressed.
///
/// # Errors
/// Fails if TLS cannot be set up.
pub fn client() -> reqwest::Result<reqwest::Client> {
    builder().build()
}

/// As [`client`], with a TLS configuration of its own: other authorities, or a certificate to show. Responses carry the
/// server's certificate.
///
/// # Errors
/// As [`client`].
pub fn client_with(tls: rustls::ClientConfig) -> reqwest::Result<reqwest::Client> {
    builder().tls_backend_preconfigured(tls).tls_info(true).build()
}

fn builder() -> reqwest::ClientBuilder {
    let redirects = reqwest::redirect::Policy::none();
    reqwest::Client::builder().no_proxy().redirect(redirects).pool_idle_timeout(REUSE_WITHIN)
}

/// Returns in one phrase why a request has no answer: libraries wrap the cause in three others and repeat the URL.
#[must_use]
pub fn why(error: &reqwest::Error) -> String {
    let mut causes: Vec<&(dyn Error + 'static)> = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        causes.push(cause);
        next = cause.source();
    }
    let Some(innermost) = causes.last().map(ToString::to_string) else { return chain(error) };
    if innermost.contains("InvalidContentType") {
        // TLS begins with a record whose type a plain server does not know.
        return "it does not speak TLS on that port; it is probably plain http: use http://, or name the port that speaks TLS"
            .to_owned();
    }
    if innermost.contains("UnknownIssuer") {
        return "its certificate was issued by an authority that is not known here".to_owned();
    }
    for cause in &causes {
        if let Some(hyper) = cause.downcast_ref::<hyper::Error>() {
            if hyper.is_parse() {
                return "the server there does not speak HTTP; if it speaks TLS, use https://".to_owned();
            }
            if hyper.is_incomplete_message() {
                return "it closed the connection without an answer".to_owned();
            }
        }
    }
    if innermost.contains("failed to lookup address") || innermost.contains("No such host is known") {
        let host = error.url().and_then(|url| url.host_str()).unwrap_or_default();
        return format!("the host {host:?} is not found (DNS): check the spelling, and this machine's DNS");
    }
    let io = causes.iter().rev().find_map(|cause| cause.downcast_ref::<std::io::Error>());
    match io.map(std::io::Error::kind) {
        Some(ErrorKind::ConnectionRefused) => "connection refused".to_owned(),
        Some(ErrorKind::ConnectionReset) => "it reset the connection".to_owned(),
        Some(ErrorKind::TimedOut) => "no answer; the machine is off or a firewall drops the packets".to_owned(),
        _ if error.is_timeout() => "it did not answer in time".to_owned(),
        _ => innermost,
    }
}
