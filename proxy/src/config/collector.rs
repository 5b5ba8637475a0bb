//! Where traces are sent. Pure.

use std::fmt;

use http::Uri;

use super::{Protocol, bracketed};
use crate::config::value::Word;

/// The path under which collectors take traces.
const PATH: &str = "/v1/traces";

/// A collector that takes OTLP over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollectorUrl {
    /// `http` or `https`.
    pub protocol: Protocol,
    /// Address or host name; an IPv6 address without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Where traces are posted.
    pub path: String,
}

impl CollectorUrl {
    /// Reads the base URL of a collector, to which `/v1/traces` is added, or one that ends so already.
    ///
    /// # Errors
    /// Fails with what is wrong.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let wrong = || "expected a URL such as \"http://127.0.0.1:4318\", without user, query and fragment".to_owned();
        let uri: Uri = text.trim().parse().map_err(|_| wrong())?;
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@')).ok_or_else(wrong)?;
        let (protocol, usual) = match uri.scheme_str() {
            Some("http") => (Protocol::Http, 80),
            Some("https") => (Protocol::Https, 443),
            _ => return Err(wrong()),
        };
        if uri.query().is_some() || authority.host().is_empty() {
            return Err(wrong());
        }
        let path = uri.path().trim_end_matches('/');
        let path = if path.ends_with(PATH) { path.to_owned() } else { format!("{path}{PATH}") };
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        Ok(Self { protocol, host, port: authority.port_u16().unwrap_or(usual), path })
    }
}

impl fmt::Display for CollectorUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}{}", self.protocol.word(), bracketed(&self.host), self.port, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_for_traces_is_added_once() {
        for (text, shown) in [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
            ("https://otel.example/", "https://otel.example:443/v1/traces"),
            ("http://[::1]:4318/v1/traces", "http://[::1]:4318/v1/traces"),
            ("https://api.example/otlp", "https://api.example:443/otlp/v1/traces"),
        ] {
            assert_eq!(CollectorUrl::parse(text).unwrap().to_string(), shown);
        }
        for wrong in ["127.0.0.1:4318", "grpc://x:4317", "http://u:hunter2@x", "http://x/?a=1", ""] {
            let error = CollectorUrl::parse(wrong).unwrap_err();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
