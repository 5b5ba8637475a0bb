//! Who may call the admin listener. Browsers are the danger: a page from elsewhere must neither read nor change
//! anything here.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use subtle::ConstantTimeEq;

use super::Problem;
use crate::{config, gate::pattern};

/// What a call that changes something must carry. A foreign page cannot send it without a preflight, which fails here.
pub(crate) const HEADER: HeaderName = HeaderName::from_static("x-farllama-admin");

/// Paths that need no token: the console itself, which asks for it, and health checks.
const OPEN: [&str; 6] = ["/", "/console.css", "/console.js", "/openapi.json", "/healthz", "/readyz"];

/// The rules.
pub(crate) struct Guard {
    token: String,
    loopback: bool,
    names: Vec<String>,
    hosts: Vec<String>,
}

impl Guard {
    pub(crate) fn new(admin: &config::Admin, addr: SocketAddr, names: Vec<String>) -> Self {
        let hosts = admin.hosts.iter().map(|host| host.to_ascii_lowercase()).collect();
        Self { token: admin.token.0.clone(), loopback: addr.ip().is_loopback(), names, hosts }
    }

    /// # Errors
    /// Says why the request is refused.
    fn judge(&self, method: &Method, path: &str, headers: &HeaderMap) -> Result<(), Problem> {
        let forbidden = |text: String| Err(Problem::new(StatusCode::FORBIDDEN, text));
        let host = headers.get(header::HOST).map_or(Ok(""), HeaderValue::to_str).unwrap_or("?");
        if !self.is_ours(host) {
            let host: String = host.chars().take(200).collect();
            return forbidden(format!(
                "the host name {host:?} is not one of this machine's: use localhost or its address, or add the name to admin.hosts"
            ));
        }
        if let Some(origin) = headers.get(header::ORIGIN) {
            let same =
                origin.to_str().ok().and_then(|origin| origin.split_once("://")).is_some_and(|(_, own)| own == host);
            if !same {
                return forbidden("pages of other origins may not call the admin listener".to_owned());
            }
        }
        // Browsers send it with every request. A link that is followed (`navigate`) shows the page, which is harmless.
        let value = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let site = value("sec-fetch-site").unwrap_or("none");
        let navigates = value("sec-fetch-mode") == Some("navigate") && path == "/";
        if !matches!(site, "same-origin" | "none") && !navigates {
            return forbidden("pages of other sites may not call the admin listener".to_owned());
        }
        if !matches!(*method, Method::GET | Method::HEAD) && !headers.contains_key(HEADER) {
            return forbidden(format!("a call that changes something needs the header {HEADER}: 1"));
        }
        if self.token.is_empty() || OPEN.contains(&path) {
            return Ok(());
        }
        let sent = value("authorization").and_then(|value| value.split_once(' '));
        let sent = sent.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, token)| token.trim());
        match sent {
            Some(sent) if bool::from(sent.as_bytes().ct_eq(self.token.as_bytes())) => Ok(()),
            Some(_) => {
                Err(Problem::new(StatusCode::UNAUTHORIZED, "wrong admin token (a caller's key does not work here)"))
            }
            None => {
                Err(Problem::new(StatusCode::UNAUTHORIZED, "the admin token is missing: Authorization: Bearer TOKEN"))
            }
        }
    }

    /// Whether `host`, as a client named us, is us. A page can point its own name at this machine, but not an address.
    fn is_ours(&self, host: &str) -> bool {
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => host,
        };
        let name = name.trim_matches(['[', ']']).to_ascii_lowercase();
        if let Ok(ip) = name.parse::<std::net::IpAddr>() {
            return !self.loopback || ip.is_loopback() || self.hosts.contains(&name);
        }
        name.is_empty()
            || name == "localhost"
            || name.ends_with(".localhost")
            || self.names.iter().any(|known| known.eq_ignore_ascii_case(&name))
            || self.hosts.iter().any(|pattern| pattern::fits(pattern, &name))
    }
}

/// Refuses what the rules do not allow, and adds to every response what browsers need to know.
pub(crate) async fn check(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    let judged = guard.judge(request.method(), request.uri().path(), request.headers());
    let mut response = match judged {
        Ok(()) => next.run(request).await,
        Err(problem) => {
            let unauthorized = problem.status == StatusCode::UNAUTHORIZED;
            let mut response = problem.into_response();
            if unauthorized {
                let challenge = HeaderValue::from_static("Bearer realm=\"farllama admin\"");
                response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
            }
            response
        }
    };
    for (name, value) in [
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(token: &str, addr: &str, method: &Method, path: &str, headers: &[(&str, &str)]) -> u16 {
        let admin = config::Admin {
            token: config::Secret(token.to_owned()),
            hosts: vec!["*.lan.example".to_owned()],
            ..config::Admin::default()
        };
        let guard = Guard::new(&admin, addr.parse().unwrap(), vec!["devbox".to_owned()]);
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| (HeaderName::try_from(*name).unwrap(), HeaderValue::try_from(*value).unwrap()))
            .collect();
        guard.judge(method, path, &headers).map_or_else(|problem| problem.status.as_u16(), |()| 200)
    }

    #[test]
    fn a_page_that_points_its_name_here_is_refused() {
        for (host, expected) in [
            ("localhost:11435", 200),
            ("127.0.0.1:11435", 200),
            ("[::1]:11435", 200),
            ("devbox", 200),
            ("box.lan.example:1", 200),
            ("evil.example", 403),
            ("evil.example:11435", 403),
            ("192.168.0.7", 403),
            ("localhost.evil.example", 403),
        ] {
            let status = judge("", "127.0.0.1:1", &Method::GET, "/api/status", &[("host", host)]);
            assert_eq!(status, expected, "{host}");
        }
        assert_eq!(judge("t", "192.168.0.7:1", &Method::GET, "/", &[("host", "192.168.0.7:1")]), 200);
    }

    #[test]
    fn pages_of_other_origins_neither_read_nor_change_anything() {
        let own = ("host", "localhost:11435");
        let get = |headers: &[(&str, &str)]| judge("", "127.0.0.1:1", &Method::GET, "/api/status", headers);
        let post = |headers: &[(&str, &str)]| judge("", "127.0.0.1:1", &Method::POST, "/api/stop", headers);
        assert_eq!(get(&[own, ("origin", "http://localhost:11435")]), 200);
        assert_eq!(get(&[own, ("origin", "http://localhost:3000")]), 403);
        assert_eq!(get(&[own, ("origin", "null")]), 403);
        assert_eq!(get(&[own, ("sec-fetch-site", "cross-site")]), 403);
        assert_eq!(get(&[own, ("sec-fetch-site", "same-site")]), 403);
        let link = [own, ("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")];
        assert_eq!(judge("", "127.0.0.1:1", &Method::GET, "/", &link), 200);
        assert_eq!(get(&link), 403);
        assert_eq!(post(&[own]), 403);
        assert_eq!(post(&[own, ("x-farllama-admin", "1")]), 200);
        assert_eq!(post(&[own, ("x-farllama-admin", "1"), ("origin", "http://evil.example")]), 403);
    }

    #[test]
    fn a_token_opens_everything_and_the_page_itself_needs_none() {
        let own = ("host", "localhost");
        let get = |path, headers: &[(&str, &str)]| judge("secret", "127.0.0.1:1", &Method::GET, path, headers);
        assert_eq!(get("/api/status", &[own]), 401);
        assert_eq!(get("/metrics", &[own]), 401);
        assert_eq!(get("/api/status", &[own, ("authorization", "Bearer wrong")]), 401);
        assert_eq!(get("/api/status", &[own, ("authorization", "Basic secret")]), 401);
        assert_eq!(get("/api/status", &[own, ("authorization", "bearer secret")]), 200);
        for path in OPEN {
            assert_eq!(get(path, &[own]), 200, "{path}");
        }
    }
}
