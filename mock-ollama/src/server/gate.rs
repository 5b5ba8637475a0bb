//! What happens before a route: Go's redirects, CORS, the Host check, and 404 and 405 (`ollama-wire` A0, B4).

use std::net::{IpAddr, Ipv6Addr};

use http::{HeaderName, Method, StatusCode, header};

use super::{
    answer::{Answer, Body},
    request::Asked,
};
use crate::routes;

const PREFLIGHT_HEADERS: &str = "Authorization,Content-Type,User-Agent,Accept,X-Requested-With,Openai-Beta,X-Stainless-Arch,X-Stainless-Async,X-Stainless-Custom-Poll-Interval,X-Stainless-Helper-Method,X-Stainless-Lang,X-Stainless-Os,X-Stainless-Package-Version,X-Stainless-Poll-Helper,X-Stainless-Retry-Count,X-Stainless-Runtime,X-Stainless-Runtime-Version,X-Stainless-Timeout";
const PREFLIGHT_METHODS: &str = "GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS";

/// Go's mux cleans paths before anything else sees them; gin then sends a known path's trailing slash away.
pub(crate) fn redirect(asked: &Asked) -> Option<Answer> {
    let cleaned = clean(&asked.path);
    if cleaned != asked.path {
        return Some(redirect_to(asked, &cleaned, StatusCode::TEMPORARY_REDIRECT));
    }
    let without_slash = asked.route.strip_suffix('/').filter(|path| !path.is_empty())?;
    routes::find(&asked.method, without_slash)?;
    let status =
        if asked.method == Method::GET { StatusCode::MOVED_PERMANENTLY } else { StatusCode::TEMPORARY_REDIRECT };
    Some(redirect_to(asked, without_slash, status))
}

fn redirect_to(asked: &Asked, path: &str, status: StatusCode) -> Answer {
    let target = asked.query.as_ref().map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    let answer = Answer::empty(status).with(header::LOCATION, &target);
    if asked.method != Method::GET && asked.method != Method::HEAD {
        return answer;
    }
    let mut answer = answer.with(header::CONTENT_TYPE, "text/html; charset=utf-8");
    if asked.method == Method::GET {
        let href = target
            .replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;")
            .replace('"', "&#34;")
            .replace('\'', "&#39;");
        let reason = status.canonical_reason().unwrap_or_default();
        answer.body = Body::Whole(format!("<a href=\"{href}\">{reason}</a>.\n\n").into());
    }
    answer
}

/// Go's `cleanPath`: no empty, `.` or `..` segment; a trailing slash stays.
fn clean(path: &str) -> String {
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            segment => segments.push(segment),
        }
    }
    let slash = path.ends_with('/') && !segments.is_empty();
    format!("/{}{}", segments.join("/"), if slash { "/" } else { "" })
}

/// What the checks of origin and host say.
#[derive(Debug)]
pub(crate) enum Admission {
    Refused,
    /// The answer to an `OPTIONS`.
    Answered(Answer),
    /// Go on; headers that the answer gets for its origin.
    Granted(Vec<(HeaderName, String)>),
}

/// CORS, then the guard against DNS rebinding, which only a server on a loopback address has.
pub(crate) fn admit(asked: &Asked, listens_on_loopback: bool) -> Admission {
    let host = asked.header(&header::HOST).unwrap_or_default();
    let foreign = asked
        .header(&header::ORIGIN)
        .filter(|origin| *origin != format!("http://{host}") && *origin != format!("https://{host}"));
    let mut granted = Vec::new();
    if let Some(origin) = foreign {
        if !is_allowed(origin) {
            return Admission::Refused;
        }
        if asked.method == Method::OPTIONS {
            return Admission::Answered(preflight(asked, origin));
        }
        granted.push((header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.to_owned()));
        granted.push((header::VARY, "Origin".to_owned()));
    }
    if listens_on_loopback {
        match judge(host) {
            Host::Foreign => return Admission::Refused,
            Host::Name if asked.method == Method::OPTIONS => {
                return Admission::Answered(Answer::empty(StatusCode::NO_CONTENT));
            }
            Host::Name | Host::Address => {}
        }
    }
    Admission::Granted(granted)
}

fn preflight(asked: &Asked, origin: &str) -> Answer {
    let answer = Answer::empty(StatusCode::NO_CONTENT)
        .with(header::ACCESS_CONTROL_ALLOW_HEADERS, PREFLIGHT_HEADERS)
        .with(header::ACCESS_CONTROL_ALLOW_METHODS, PREFLIGHT_METHODS)
        .with(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin)
        .with(header::ACCESS_CONTROL_MAX_AGE, "43200")
        .with(header::VARY, "Origin")
        .with(header::VARY, "Access-Control-Request-Method")
        .with(header::VARY, "Access-Control-Request-Headers");
    match routes::allow(&asked.method, &asked.route) {
        Some(methods) => answer.with(header::ALLOW, methods),
        None => answer,
    }
}

/// Ollama's default list: this machine with any port, and the schemes of desktop applications.
fn is_allowed(origin: &str) -> bool {
    const SCHEMES: [&str; 5] = ["app://", "file://", "tauri://", "vscode-webview://", "vscode-file://"];
    if SCHEMES.iter().any(|scheme| origin.starts_with(scheme)) {
        return true;
    }
    let Some(host) = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://")) else { return false };
    ["localhost", "127.0.0.1", "0.0.0.0"]
        .iter()
        .any(|local| host.strip_prefix(local).is_some_and(|rest| rest.is_empty() || rest.starts_with(':')))
}

enum Host {
    Address,
    Name,
    Foreign,
}

fn judge(host: &str) -> Host {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    if let Ok(address) = name.parse::<IpAddr>() {
        let near = match address {
            IpAddr::V4(v4) => v4.is_loopback() || v4.is_private() || v4.is_unspecified(),
            IpAddr::V6(v6) => v6.is_loopback() || v6 == Ipv6Addr::UNSPECIFIED || v6.is_unique_local(),
        };
        return if near { Host::Address } else { Host::Foreign };
    }
    let name = name.to_ascii_lowercase();
    let near = name.is_empty()
        || name == "localhost"
        || [".localhost", ".local", ".internal"].iter().any(|end| name.ends_with(end))
        || machine_name().is_some_and(|machine| machine.eq_ignore_ascii_case(&name));
    if near { Host::Name } else { Host::Foreign }
}

/// What the machine is called, where that can be read.
fn machine_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").or_else(|_| std::env::var("HOSTNAME"));
    name.ok().map(|name| name.trim().to_owned()).filter(|name| !name.is_empty())
}

/// No such path.
pub(crate) fn not_found() -> Answer {
    Answer::text(StatusCode::NOT_FOUND, "text/plain", "404 page not found")
}

/// The path is known with other methods.
pub(crate) fn wrong_method(allow: &str) -> Answer {
    Answer::text(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "405 method not allowed").with(header::ALLOW, allow)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_as_go_does() {
        for (path, cleaned) in [
            ("/", "/"),
            ("//api/tags", "/api/tags"),
            ("/a/./b/../c/", "/a/c/"),
            ("/..", "/"),
            ("/api/tags/", "/api/tags/"),
        ] {
            assert_eq!(clean(path), cleaned, "{path}");
        }
    }

    #[test]
    fn only_near_origins_are_allowed() {
        for near in ["http://localhost", "https://localhost:3000", "http://127.0.0.1:5173", "vscode-webview://abc"] {
            assert!(is_allowed(near), "{near}");
        }
        for far in ["https://evil.example", "null", "http://localhost.evil.example", "chrome-extension://x"] {
            assert!(!is_allowed(far), "{far}");
        }
    }

    #[test]
    fn only_near_hosts_are_served() {
        for near in
            ["127.0.0.1:1", "localhost:1", "[::1]:80", "192.168.1.5", "pc.local", "host.docker.internal:11434", ""]
        {
            assert!(!matches!(judge(near), Host::Foreign), "{near}");
        }
        for far in ["evil.example.com", "8.8.8.8", "[2001:db8::1]:1"] {
            assert!(matches!(judge(far), Host::Foreign), "{far}");
        }
    }
}
