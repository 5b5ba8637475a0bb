//! Which browser pages may call, and under which name: Ollama's own rules, judged here, because the remote sees neither
//! `Origin` nor `Host`.
//!
//! Rules: `ollama-wire` B4, recorded in `basic/*origin*`, `basic/preflight*`, `basic/foreign-host*`.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use crate::{error::Error, gate::pattern, text};

/// Pages on this machine, on any port.
const LOCAL: [&str; 3] = ["localhost", "127.0.0.1", "0.0.0.0"];

/// Programs that show pages of their own.
const PROGRAMS: [&str; 5] = ["app://*", "file://*", "tauri://*", "vscode-webview://*", "vscode-file://*"];

/// What a preflight that asks for no headers may send.
const ALLOWED_HEADERS: &str = "Authorization,Content-Type,User-Agent,Accept,X-Requested-With,X-Api-Key,Openai-Beta,Openai-Organization,Openai-Project,\
     X-Client-Request-Id,X-Stainless-Arch,X-Stainless-Async,X-Stainless-Custom-Poll-Interval,X-Stainless-Helper-Method,X-Stainless-Lang,\
     X-Stainless-Os,X-Stainless-Package-Version,X-Stainless-Poll-Helper,X-Stainless-Read-Timeout,X-Stainless-Retry-Count,\
     X-Stainless-Runtime,X-Stainless-Runtime-Version,X-Stainless-Timeout";

/// What pages may read of an answer's head, besides what browsers always show.
const EXPOSED_HEADERS: HeaderValue = HeaderValue::from_static(
    "Retry-After,X-Request-Id,Request-Id,X-Farllama-Receipt,X-Ratelimit-Limit-Requests,X-Ratelimit-Remaining-Requests,X-Ratelimit-Reset-Requests,\
     Anthropic-Ratelimit-Requests-Limit,Anthropic-Ratelimit-Requests-Remaining,Anthropic-Ratelimit-Requests-Reset",
);

/// What is known about origins and names from the settings.
#[derive(Debug)]
pub(crate) struct Rules {
    /// Patterns besides Ollama's own, each with one `*` at most.
    origins: Vec<String>,
    /// Whether the listener is on loopback, where a foreign `Host` means that a page rebound its name to us.
    loopback: bool,
    /// Names of this machine.
    names: Vec<String>,
    /// Names that the settings allow, each with one `*` at most. If there are any, they bind listeners on every
    /// address.
    hosts: Vec<String>,
}

/// What to do with a request, as far as its origin is concerned.
#[derive(Debug, PartialEq)]
pub(crate) enum Verdict {
    /// No page asks, or one of our own address: nothing to add.
    Pass,
    /// An allowed page asks: these headers go onto the answer.
    Allow(HeaderValue),
    /// A page asks whether it may ask.
    Preflight(HeaderValue),
}

impl Rules {
    pub(crate) fn new(origins: Vec<String>, loopback: bool, names: Vec<String>, hosts: &[String]) -> Self {
        let hosts = hosts.iter().map(|host| host.to_ascii_lowercase()).collect();
        Self { origins, loopback, names, hosts }
    }

    /// # Errors
    /// The page or the name is not allowed here.
    pub(crate) fn judge(&self, method: &Method, headers: &HeaderMap) -> Result<Verdict, Error> {
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        let verdict = match headers.get(header::ORIGIN) {
            None => Verdict::Pass,
            Some(origin) => self.judge_origin(method, origin, host)?,
        };
        if (self.loopback || !self.hosts.is_empty()) && !self.knows(host) {
            let host: String = host.chars().take(200).collect();
            return Err(Error::Forbidden {
                message: format!(
                    "the host name {host:?} is not one of this machine's: use localhost or its address, or add the name to local.hosts (this \
                     guards against web pages that point their own name here)"
                ),
            });
        }
        Ok(verdict)
    }

    fn judge_origin(&self, method: &Method, origin: &HeaderValue, host: &str) -> Result<Verdict, Error> {
        let text = origin.to_str().unwrap_or_default();
        let own =
            text.split_once("://").is_some_and(|(scheme, rest)| matches!(scheme, "http" | "https") && rest == host);
        if own {
            return Ok(Verdict::Pass);
        }
        if !self.allows(text) {
            return Err(Error::Forbidden {
                message: format!(
                    "pages of the origin {:?} may not call here; to allow it, add it to `origins` in the settings",
                    text::name(text)
                ),
            });
        }
        let reported = if self.origins.iter().any(|pattern| pattern == "*") {
            HeaderValue::from_static("*")
        } else {
            origin.clone()
        };
        Ok(if method == Method::OPTIONS { Verdict::Preflight(reported) } else { Verdict::Allow(reported) })
    }

    fn allows(&self, origin: &str) -> bool {
        let local = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://")).is_some_and(|rest| {
            LOCAL.iter().any(|name| {
                rest.strip_prefix(name).is_some_and(|port| {
                    port.is_empty()
                        || port.strip_prefix(':').is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()))
                })
            })
        });
        local
            || PROGRAMS
                .iter()
                .copied()
                .chain(self.origins.iter().map(String::as_str))
                .any(|pattern| pattern::fits(pattern, origin))
    }

    /// Whether `host`, as a client named us, can be us.
    fn knows(&self, host: &str) -> bool {
        let name = without_port(host).to_ascii_lowercase();
        if let Ok(ip) = name.trim_matches(['[', ']']).parse::<IpAddr>() {
            // A page's name cannot be an address that is not its server's, so an address is as good as its listener.
            return !self.loopback
                || self.lists(&name)
                || match ip {
                    IpAddr::V4(ip) => ip.is_loopback() || ip.is_private() || ip.is_unspecified(),
                    IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unspecified(),
                };
        }
        name.is_empty()
            || name == "localhost"
            || [".localhost", ".local", ".internal"].iter().any(|end| name.ends_with(end))
            || self.names.iter().any(|known| known.eq_ignore_ascii_case(&name))
            || self.lists(&name)
    }

    /// Whether the settings allow `name`, in lower case.
    fn lists(&self, name: &str) -> bool {
        self.hosts.iter().any(|pattern| pattern::fits(pattern, name))
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port))
            if !name.is_empty() && !name.ends_with(':') && port.bytes().all(|byte| byte.is_ascii_digit()) =>
        {
            name
        }
        _ => host,
    }
}

/// Whether a value is a list of header names.
fn are_names(value: &HeaderValue) -> bool {
    value.to_str().is_ok_and(|text| text.split(',').all(|name| name.trim().parse::<HeaderName>().is_ok()))
}

/// Adds to an answer what an allowed page needs to read it.
pub(crate) fn allow(headers: &mut HeaderMap, origin: HeaderValue) {
    share(headers, origin);
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED_HEADERS);
}

fn share(headers: &mut HeaderMap, origin: HeaderValue) {
    if origin != "*" {
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
    }
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
}

/// The headers of an answer to a preflight.
///
/// An allowed origin may send every header that it asks for: clients have headers of their own, and none gives more
/// power than the request.
pub(crate) fn preflight(headers: &mut HeaderMap, origin: HeaderValue, request: &HeaderMap) {
    share(headers, origin);
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static("GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS"),
    );
    let wanted = request.get(header::ACCESS_CONTROL_REQUEST_HEADERS).filter(|wanted| are_names(wanted));
    let wanted = wanted.cloned().unwrap_or(HeaderValue::from_static(ALLOWED_HEADERS));
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, wanted);
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("43200"));
    headers.append(header::VARY, HeaderValue::from_static("Access-Control-Request-Method"));
    headers.append(header::VARY, HeaderValue::from_static("Access-Control-Request-Headers"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(origins: &[&str], origin: Option<&str>, host: &str) -> Result<Verdict, Error> {
        let rules =
            Rules::new(origins.iter().map(|&origin| origin.to_owned()).collect(), true, vec!["devbox".to_owned()], &[]);
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        headers.extend(origin.map(|origin| (header::ORIGIN, origin.parse().unwrap())));
        rules.judge(&Method::GET, &headers)
    }

    #[test]
    fn ollamas_own_list_is_allowed() {
        for origin in [
            "http://localhost",
            "https://127.0.0.1:3000",
            "http://0.0.0.0:8080",
            "app://obsidian.md",
            "vscode-webview://x",
        ] {
            assert!(matches!(judge(&[], Some(origin), "127.0.0.1:11434"), Ok(Verdict::Allow(_))), "{origin}");
        }
    }

    #[test]
    fn other_pages_are_refused_until_the_settings_name_them() {
        for origin in
            ["https://evil.example", "null", "http://localhost.evil.example", "http://localhost:80.evil.example"]
        {
            assert!(judge(&[], Some(origin), "127.0.0.1:11434").is_err(), "{origin}");
        }
        assert!(judge(&["https://*.example"], Some("https://chat.example"), "localhost").is_ok());
        assert_eq!(judge(&["*"], Some("null"), "localhost").unwrap(), Verdict::Allow(HeaderValue::from_static("*")));
    }

    #[test]
    fn a_preflight_grants_every_header_that_it_asks_for() {
        let granted = |wanted: Option<&str>| {
            let (mut request, mut headers) = (HeaderMap::new(), HeaderMap::new());
            request.extend(wanted.map(|wanted| (header::ACCESS_CONTROL_REQUEST_HEADERS, wanted.parse().unwrap())));
            preflight(&mut headers, HeaderValue::from_static("http://localhost"), &request);
            headers[header::ACCESS_CONTROL_ALLOW_HEADERS].to_str().unwrap().to_owned()
        };
        let asked = "x-title,dangerously-allow-browser, idempotency-key";
        assert_eq!(granted(Some(asked)), asked);
        for other in [None, Some(""), Some("a b"), Some("*,\"")] {
            assert_eq!(granted(other), ALLOWED_HEADERS, "{other:?}");
        }
    }

    #[test]
    fn a_page_of_our_own_address_needs_no_headers() {
        assert_eq!(judge(&[], Some("http://127.0.0.1:11434"), "127.0.0.1:11434").unwrap(), Verdict::Pass);
    }

    #[test]
    fn a_foreign_name_on_a_loopback_listener_is_refused() {
        for host in ["evil.example", "evil.example:11434", "8.8.8.8"] {
            assert!(judge(&[], None, host).is_err(), "{host}");
        }
        for host in ["localhost:11434", "127.0.0.1", "[::1]:11434", "192.168.1.4:1", "nas.local", "DevBox:11434"] {
            assert!(judge(&[], None, host).is_ok(), "{host}");
        }
    }

    #[test]
    fn listed_hosts_are_allowed_and_bind_public_listeners_too() {
        let judge = |loopback, hosts: &[&str], host: &str| {
            let hosts: Vec<_> = hosts.iter().map(|&host| host.to_owned()).collect();
            let rules = Rules::new(Vec::new(), loopback, vec!["devbox".to_owned()], &hosts);
            let headers = HeaderMap::from_iter([(header::HOST, host.parse().unwrap())]);
            rules.judge(&Method::GET, &headers).is_ok()
        };
        assert!(judge(false, &[], "evil.example"), "without a list, a public listener has any name");
        for host in
            ["ai.example", "AI.example:11434", "gpu.team.example", "devbox", "8.8.8.8", "[2001:db8::1]:80", "localhost"]
        {
            assert!(judge(false, &["ai.example", "*.team.example"], host), "{host}");
        }
        assert!(!judge(false, &["ai.example", "*.team.example"], "evil.example"));
        assert!(judge(true, &["AI.example"], "ai.example:11434") && !judge(true, &["ai.example"], "8.8.8.8"));
    }
}
