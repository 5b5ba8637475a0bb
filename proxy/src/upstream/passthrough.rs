//! Bytes in, bytes out: the lane of everything that is not translated.
//!
//! Never parses, decodes, buffers or re-encodes a body. This file has all that differs between what comes in and what
//! goes out: hop-by-hop headers, `Host`, `Origin` (checked here), credentials, headers that only this proxy may set,
//! redirects to elsewhere, one `Via`; and a stream that fails, or ends before it is done, ends with a line that says so
//! and a cut connection (`native.truthful_end`). `http1-client` adds the framing.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use axum::body::Body;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body::Body as _;

use crate::{
    config::Config,
    error::Error,
    ollama::refusal::{self, Refusal},
    upstream::{
        client::{self, Client, Missed, Upstream, is_unserved},
        pool::Outgoing,
        remotes::Candidates,
        request_body::RequestBody,
    },
};

/// Headers that concern one connection only (RFC 9110, section 7.6.1), besides those that `Connection` names.
pub(crate) static HOP_BY_HOP: [HeaderName; 8] = [
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

/// Headers in which clients of other APIs send their keys. Ollama reads none of them.
static FOREIGN_KEYS: [HeaderName; 2] = [HeaderName::from_static("api-key"), HeaderName::from_static("x-goog-api-key")];

/// Headers by which some gateways take another path than the one in the request line.
static REWRITES: [HeaderName; 2] =
    [HeaderName::from_static("x-original-url"), HeaderName::from_static("x-rewrite-url")];

/// Whether a client that expects `100 Continue` has been sent it: hyper does that when the body is first read from.
/// Until then the expectation is the remote's to meet (RFC 9110, 10.1.1), and a response that comes first, such as the
/// 404 of an unknown path, reaches the client without it. Part of a request with `Expect`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Expectation(Arc<AtomicBool>);

impl Expectation {
    /// The body is read from.
    pub(crate) fn meet(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_met(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Names the remote that a request is for.
pub(crate) static REMOTE: HeaderName = HeaderName::from_static("x-farllama-remote");

/// Prefixes of response headers that only this proxy may set.
const OWN: [&str; 3] = ["access-control-", "x-farllama-", "x-ratelimit-"];

/// Sends `request` to the remote unchanged, and returns its response unchanged, but for what the settings and this file
/// say.
///
/// # Errors
/// Fails if there is no response, or one that redirects to elsewhere. Whatever responds, Ollama or not, is passed on.
pub(crate) async fn pass(
    client: &Client,
    request: Box<Request<Body>>,
    config: &Config,
) -> Result<Response<Body>, Error> {
    let trailers = takes_trailers(request.headers());
    let ends_with_a_line =
        config.native.truthful_end && request.method() == Method::POST && streams(request.uri().path());
    let outgoing = outgoing(client, *request, config)?;
    let response = client.send(outgoing).await?;
    pass_back(client, response, trailers, ends_with_a_line, config)
}

/// As [`pass`], where there are several remotes: before the first byte of a response, a request that fails goes to the
/// next candidate.
///
/// # Errors
/// As [`pass`], of the first candidate.
pub(crate) async fn pass_to(
    candidates: &Candidates,
    request: Box<Request<Body>>,
    config: &Config,
) -> Result<Response<Body>, Error> {
    let trailers = takes_trailers(request.headers());
    let ends_with_a_line =
        config.native.truthful_end && request.method() == Method::POST && streams(request.uri().path());
    let (parts, body) = request.into_parts();
    let named = named_by_connection(&parts.headers);
    let carried = || candidates.members().iter().flat_map(|member| member.client.carried());
    let met = || parts.extensions.get().is_some_and(Expectation::is_met);
    let stops = |name: &HeaderName| {
        HOP_BY_HOP.contains(name)
            || hidden(config).any(|hidden| hidden == name)
            || named.contains(name)
            || *name == header::EXPECT && met()
    };
    let passed = match stops(&header::TRAILER) {
        true => Vec::new(),
        false => announced(&parts.headers, || hidden(config).chain(carried()).chain(&HOP_BY_HOP)),
    };
    let mut body = RequestBody::stream(body, config.remote.replay_body, passed);
    let mut first: Option<Result<Response<Body>, Error>> = None;
    loop {
        let (at, member) = candidates.position();
        let client = &member.client;
        let outgoing = client.prepare(&parts, stops, body)?;
        let counted = member.enter();
        let (failed, rest) = match client.try_send(outgoing).await {
            Ok(mut response) => {
                if parts.method != Method::HEAD && candidates.are_for_a_model() && may_lack_model(&response) {
                    let rest = response.body_mut().take_request();
                    let (lacks, kept) = Box::pin(lacks_model(client, response)).await?;
                    response = kept;
                    if lacks
                        && let Ok(rest) = rest
                        && Box::pin(candidates.advance_past_outdated(at)).await
                    {
                        member.responded();
                        body = rest.unwrap_or_default();
                        continue;
                    }
                }
                let unserved = is_unserved(response.status());
                let rest = match unserved && candidates.has_next() {
                    true => response.body_mut().take_request().map(Option::unwrap_or_default),
                    false => Err(()),
                };
                if unserved && !candidates.has_next() {
                    candidates.exhaust();
                }
                response.body_mut().forget_request();
                response.body_mut().count(counted);
                if !unserved {
                    member.responded();
                    candidates.responded(member);
                    return pass_back(client, response, trailers, ends_with_a_line, config);
                }
                if is_of_gateway(response.headers()) {
                    member.gateway_failed(response.status());
                }
                (pass_back(client, response, trailers, ends_with_a_line, config), rest)
            }
            Err(missed) => {
                drop(counted);
                member.missed(&missed);
                let Missed { error, again, body } = *missed;
                if again && !candidates.has_next() {
                    candidates.exhaust();
                }
                (Err(error), if again { Ok(body.unwrap_or_default()) } else { Err(()) })
            }
        };
        // The best remote's answer says most.
        match rest {
            Ok(rest) if candidates.advance(at) => body = rest,
            _ => return first.unwrap_or(failed),
        }
        first.get_or_insert(failed);
    }
}

/// Whether a response may be Ollama's for a model that it does not have: a 404 with a short JSON body.
fn may_lack_model(response: &Response<Upstream>) -> bool {
    const LONGEST: u64 = 64 << 10;
    response.status() == StatusCode::NOT_FOUND
        && !is_of_gateway(response.headers())
        && response.body().size_hint().upper().is_some_and(|length| length <= LONGEST)
}

/// Whether a response says that there is no such model, and the response.
///
/// # Errors
/// Fails if its body breaks off.
async fn lacks_model(client: &Client, response: Response<Upstream>) -> Result<(bool, Response<Upstream>), Error> {
    let (parts, body) = response.into_parts();
    let body = client::whole(body).await?;
    let error = refusal::read(parts.status, &parts.headers, &body, "", client.redactor());
    let lacks = matches!(error, Error::Refused(refused) if refused.refusal == Refusal::NoModel);
    Ok((lacks, Response::from_parts(parts, client.given(body))))
}

/// Whether a response that says that the request was not served does not come from Ollama, whose errors are JSON.
fn is_of_gateway(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    !kind.starts_with(b"application/json")
}

/// The response to the caller.
///
/// # Errors
/// Fails if it redirects to elsewhere.
fn pass_back(
    client: &Client,
    response: Response<Upstream>,
    trailers: bool,
    ends_with_a_line: bool,
    config: &Config,
) -> Result<Response<Body>, Error> {
    let (mut parts, mut body) = response.into_parts();
    strip_hop_by_hop(&mut parts.headers);
    strip_own(&mut parts.headers, config.remote.forward_cookies);
    if !trailers {
        // They are not sent to a client that did not ask for them.
        parts.headers.remove(header::TRAILER);
    }
    if parts.status.is_redirection()
        && let Some(location) = parts.headers.get(header::LOCATION)
        && leads_elsewhere(location)
    {
        return Err(redirected(client, location));
    }
    if ends_with_a_line && is_ndjson(parts.status, &parts.headers) {
        body.expect_final_line();
    }
    parts.version = Version::HTTP_11;
    parts.extensions.clear();
    Ok(Response::from_parts(parts, Body::new(body)))
}

/// What is sent to the remote for `request`.
///
/// # Errors
/// Fails if its path leaves the remote's base path.
fn outgoing(client: &Client, request: Request<Body>, config: &Config) -> Result<Outgoing, Error> {
    let (parts, body) = request.into_parts();
    let named = named_by_connection(&parts.headers);
    let met = || parts.extensions.get().is_some_and(Expectation::is_met);
    let stops = |name: &HeaderName| {
        HOP_BY_HOP.contains(name)
            || hidden(config).any(|hidden| hidden == name)
            || named.contains(name)
            || *name == header::EXPECT && met()
    };
    // A trailer must not say what a header may not. Unannounced trailers are dropped.
    let passed = match stops(&header::TRAILER) {
        true => Vec::new(),
        false => announced(&parts.headers, || hidden(config).chain(client.carried()).chain(&HOP_BY_HOP)),
    };
    let body = RequestBody::stream(body, config.remote.replay_body, passed);
    client.prepare(&parts, stops, body)
}

/// Request headers, and trailers, that stop here.
fn hidden(config: &Config) -> impl Iterator<Item = &HeaderName> {
    static ALWAYS: [HeaderName; 2] = [header::HOST, header::ORIGIN];
    static COOKIE: [HeaderName; 1] = [header::COOKIE];
    let remote = &config.remote;
    let (keys, foreign): (&[HeaderName], &[HeaderName]) =
        if remote.forward_auth { (&[], &[]) } else { (&KEYS, &FOREIGN_KEYS) };
    let cookies: &[HeaderName] = if remote.forward_cookies { &[] } else { &COOKIE };
    let key = (!remote.forward_auth).then_some(&config.auth.header);
    ALWAYS.iter().chain([&REMOTE]).chain(&REWRITES).chain(keys).chain(foreign).chain(cookies).chain(key)
}

/// The trailers that a request announces, without those that are hidden.
fn announced<'a, H: Iterator<Item = &'a HeaderName>>(headers: &HeaderMap, hidden: impl Fn() -> H) -> Vec<HeaderName> {
    let values = headers.get_all(header::TRAILER).iter().filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .filter(|name| hidden().all(|hidden| hidden != name))
        .collect()
}

/// Whether a client announces that it reads trailers.
fn takes_trailers(headers: &HeaderMap) -> bool {
    headers.get_all(header::TE).iter().any(|value| {
        value.as_bytes().split(|byte| *byte == b',').any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"))
    })
}

/// Whether `path` is an endpoint whose streams end with a line that says so.
fn streams(path: &str) -> bool {
    matches!(path, "/api/chat" | "/api/generate" | "/api/pull" | "/api/push" | "/api/create")
}

fn is_ndjson(status: StatusCode, headers: &HeaderMap) -> bool {
    status == StatusCode::OK
        && !headers.contains_key(header::CONTENT_ENCODING)
        && headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/x-ndjson"))
}

/// Removes what only this proxy may send to a client: its cross-origin rules, its receipt and its quotas.
fn strip_own(headers: &mut HeaderMap, cookies: bool) {
    let is_own = |name: &HeaderName| {
        OWN.iter().any(|prefix| name.as_str().starts_with(prefix)) || !cookies && *name == header::SET_COOKIE
    };
    // Most responses have none.
    while let Some(name) = headers.keys().find(|name| is_own(name)).cloned() {
        headers.remove(name);
    }
}

/// Whether a redirect leads away from this proxy. A client that follows one may take its key along.
fn leads_elsewhere(location: &HeaderValue) -> bool {
    let location = location.as_bytes().trim_ascii();
    // Browsers read `\\` as `/`, and skip control characters.
    let plain: Vec<u8> = location
        .iter()
        .filter(|byte| !byte.is_ascii_control())
        .map(|byte| if *byte == b'\\' { b'/' } else { *byte })
        .collect();
    let scheme = plain.iter().position(|byte| !byte.is_ascii_alphanumeric() && !matches!(byte, b'+' | b'-' | b'.'));
    plain.starts_with(b"//") || scheme.is_some_and(|end| end > 0 && plain[end] == b':')
}

fn redirected(client: &Client, location: &HeaderValue) -> Error {
    let location = String::from_utf8_lossy(location.as_bytes());
    // A redirect may carry a token in its query, and credentials in front of its host.
    let location: String = location.split(['?', '#']).next().unwrap_or_default().chars().take(200).collect();
    let location = match (location.find("//"), location.rfind('@')) {
        (Some(begin), Some(at)) if begin + 2 < at => format!("{}{}", &location[..begin + 2], &location[at + 1..]),
        _ => location,
    };
    Error::NotOllama {
        message: format!(
            "the remote {} redirects to {location}; point the remote at the address that answers (--remote-host, --remote-protocol)",
            client.remote()
        ),
    }
}

/// The headers that `Connection` names, which concern this connection only.
fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    let values = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).filter_map(|name| name.trim().parse().ok()).collect()
}

fn strip_hop_by_hop(headers: &mut HeaderMap) {
    for name in named_by_connection(headers) {
        headers.remove(name);
    }
    // Most responses have none.
    while let Some(name) = headers.keys().find(|name| HOP_BY_HOP.contains(name)).cloned() {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(headers: &HeaderMap) -> Vec<&str> {
        headers.keys().map(HeaderName::as_str).collect()
    }

    #[test]
    fn headers_that_connection_names_go_with_the_hop() {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONNECTION, HeaderValue::from_static("close, X-Hop"));
        headers.insert("x-hop", HeaderValue::from_static("1"));
        headers.insert("x-end", HeaderValue::from_static("1"));
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        strip_hop_by_hop(&mut headers);
        assert_eq!(names(&headers), ["x-end"]);
    }

    #[test]
    fn the_remote_cannot_speak_in_our_name() {
        let mut headers = HeaderMap::new();
        for name in [
            "access-control-allow-origin",
            "access-control-allow-credentials",
            "x-farllama-receipt",
            "x-ratelimit-remaining-requests",
            "set-cookie",
            "x-end",
        ] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static("1"));
        }
        let mut with_cookies = headers.clone();
        strip_own(&mut headers, false);
        assert_eq!(names(&headers), ["x-end"]);
        strip_own(&mut with_cookies, true);
        assert_eq!(with_cookies.len(), 2);
    }

    #[test]
    fn only_a_redirect_within_this_proxy_is_passed_on() {
        for elsewhere in
            ["https://evil.example/", "//evil.example", "/\\evil.example", "\\\\evil.example", "HTTP:evil", " //x"]
        {
            assert!(leads_elsewhere(&HeaderValue::from_static(elsewhere)), "{elsewhere}");
        }
        for within in ["/api/chat", "chat", "../chat", "/a//b", "/a:b", "?q=a:b", "./a:b"] {
            assert!(!leads_elsewhere(&HeaderValue::from_static(within)), "{within}");
        }
    }

    #[test]
    fn only_a_complete_list_of_codings_announces_trailers() {
        for (value, takes) in [("trailers", true), ("gzip, Trailers", true), ("gzip", false), ("xtrailers", false)] {
            let mut headers = HeaderMap::new();
            headers.insert(header::TE, HeaderValue::from_static(value));
            assert_eq!(takes_trailers(&headers), takes, "{value}");
        }
    }
}
