//! The registry protocol over plain HTTP, as far as Ollama speaks it: manifests, blobs with their redirects, uploads in
//! one piece.
//!
//! Only registries on this machine are asked; any other host is played as one that cannot be found.

use std::net::IpAddr;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;
use tokio::net::TcpStream;

use crate::names::Name;

const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// How many redirects on the registry's own host are followed.
const REDIRECTS: usize = 10;

/// A repository of a registry.
#[derive(Clone, Debug)]
pub(super) struct Registry {
    client: Client<HttpConnector, Full<Bytes>>,
    scheme: &'static str,
    host: String,
    repository: String,
}

impl Registry {
    /// `insecure` allows plain HTTP, with or without `http://` in the name.
    pub(super) fn of(name: &Name, insecure: bool) -> Self {
        Self {
            client: Client::builder(TokioExecutor::new()).build_http(),
            scheme: if insecure { "http" } else { "https" },
            host: name.host.clone(),
            repository: format!("{}/{}", name.namespace, name.model),
        }
    }

    fn url(&self, path: &str) -> String {
        format!("{}://{}/v2/{}/{path}", self.scheme, self.host, self.repository)
    }

    /// The manifest of a tag.
    ///
    /// # Errors
    /// Ollama's text: there is none, or the registry cannot be reached.
    pub(super) async fn manifest(&self, tag: &str) -> Result<Value, String> {
        let response = self
            .send(Method::GET, &self.url(&format!("manifests/{tag}")), &[("accept", MANIFEST)], Bytes::new())
            .await?;
        match response.status() {
            StatusCode::OK => {
                let body = response.into_body().collect().await.map_err(|error| error.to_string())?;
                serde_json::from_slice(&body.to_bytes()).map_err(|error| error.to_string())
            }
            StatusCode::NOT_FOUND => Err("file does not exist".to_owned()),
            status => Err(format!("{status}: ")),
        }
    }

    /// A blob from a byte on, where the registry says that it is.
    ///
    /// # Errors
    /// The registry sends it itself, which Ollama does not take, or it cannot be fetched.
    pub(super) async fn blob(&self, digest: &str, from: u64) -> Result<Incoming, String> {
        let mut url = self.url(&format!("blobs/{digest}"));
        for _ in 0..REDIRECTS {
            let response = self.send(Method::GET, &url, &[], Bytes::new()).await?;
            if response.status() == StatusCode::NOT_FOUND {
                return Err("file does not exist".to_owned());
            }
            let Some(location) = response.headers().get(header::LOCATION).and_then(|place| place.to_str().ok()) else {
                return Err("http: no Location header in response".to_owned());
            };
            let target = absolute(&url, location);
            let is_other_host = host_name(&target) != host_name(&url);
            url = target;
            if is_other_host {
                break;
            }
        }
        let range = format!("bytes={from}-");
        let response = self.send(Method::GET, &url, &[("range", &range)], Bytes::new()).await?;
        match response.status() {
            StatusCode::PARTIAL_CONTENT => Ok(response.into_body()),
            StatusCode::OK if from == 0 => Ok(response.into_body()),
            status => Err(format!("unexpected status code {status}")),
        }
    }

    /// Whether the registry has a blob.
    ///
    /// # Errors
    /// It cannot be reached.
    pub(super) async fn has(&self, digest: &str) -> Result<bool, String> {
        let response = self.send(Method::HEAD, &self.url(&format!("blobs/{digest}")), &[], Bytes::new()).await?;
        Ok(response.status().is_success())
    }

    /// Uploads a blob.
    ///
    /// # Errors
    /// The registry refuses it, or cannot be reached.
    pub(super) async fn upload(&self, digest: &str, content: Bytes) -> Result<(), String> {
        let begin = self.url("blobs/uploads/");
        let started = self.send(Method::POST, &begin, &[], Bytes::new()).await?;
        let place = location(&started, &begin)?;
        let last = content.len().saturating_sub(1);
        let range = format!("0-{last}");
        let headers = [("content-type", "application/octet-stream"), ("content-range", range.as_str())];
        let sent = self.send(Method::PATCH, &place, &headers, content).await?;
        let place = location(&sent, &place)?;
        let separator = if place.contains('?') { '&' } else { '?' };
        let ended = self.send(Method::PUT, &format!("{place}{separator}digest={digest}"), &[], Bytes::new()).await?;
        if ended.status().is_success() { Ok(()) } else { Err(format!("unexpected status code {}", ended.status())) }
    }

    /// Uploads a manifest.
    ///
    /// # Errors
    /// The registry refuses it, or cannot be reached.
    pub(super) async fn put_manifest(&self, tag: &str, manifest: String) -> Result<(), String> {
        let url = self.url(&format!("manifests/{tag}"));
        let put = self.send(Method::PUT, &url, &[("content-type", MANIFEST)], manifest.into()).await?;
        if put.status().is_success() { Ok(()) } else { Err(format!("unexpected status code {}", put.status())) }
    }

    /// Sends one request; errors have Go's texts.
    async fn send(
        &self,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Response<Incoming>, String> {
        let uri: Uri = url.parse().map_err(|_| format!("parse {url:?}: invalid URL"))?;
        let fail = |cause: String| {
            let mut verb = method.as_str().to_lowercase();
            verb[..1].make_ascii_uppercase();
            Err(format!("{verb} {url:?}: {cause}"))
        };
        let is_secure = uri.scheme_str() == Some("https");
        let (host, port) = (uri.host().unwrap_or_default(), uri.port_u16().unwrap_or(if is_secure { 443 } else { 80 }));
        let is_near =
            host == "localhost" || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        if !is_near {
            let cause = match host.parse::<IpAddr>() {
                Ok(ip) => format!("dial tcp {ip}:{port}: connect: connection refused"),
                Err(_) => format!("dial tcp: lookup {host} on 127.0.0.53:53: no such host"),
            };
            return fail(cause);
        }
        if let Err(error) = TcpStream::connect((host.trim_matches(['[', ']']), port)).await {
            let cause = if error.kind() == std::io::ErrorKind::ConnectionRefused {
                "connection refused".to_owned()
            } else {
                error.to_string()
            };
            return fail(format!("dial tcp {host}:{port}: connect: {cause}"));
        }
        if is_secure {
            // No registry here speaks TLS.
            return fail("http: server gave HTTP response to HTTPS client".to_owned());
        }
        let mut request = Request::builder().method(method.clone()).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body)).map_err(|error| error.to_string())?;
        match self.client.request(request).await {
            Ok(response) => Ok(response),
            Err(error) => fail(error.to_string()),
        }
    }
}

fn location(response: &Response<Incoming>, asked: &str) -> Result<String, String> {
    let place = response.headers().get("docker-upload-location").or_else(|| response.headers().get(header::LOCATION));
    match place.and_then(|place| place.to_str().ok()) {
        Some(place) => Ok(absolute(asked, place)),
        None => Err("http: no Location header in response".to_owned()),
    }
}

/// A location as a whole URL.
fn absolute(asked: &str, location: &str) -> String {
    if location.contains("://") {
        return location.to_owned();
    }
    let origin = asked.split_once("://").map(|(scheme, rest)| (scheme, rest.split('/').next().unwrap_or_default()));
    origin.map_or_else(|| location.to_owned(), |(scheme, host)| format!("{scheme}://{host}{location}"))
}

fn host_name(url: &str) -> Option<String> {
    url.parse::<Uri>().ok()?.host().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_made_whole() {
        assert_eq!(absolute("http://a:1/v2/x", "/y?z"), "http://a:1/y?z");
        assert_eq!(absolute("http://a:1/v2/x", "http://b/y"), "http://b/y");
        assert_eq!(host_name("http://a:1/x").as_deref(), Some("a"));
    }

    #[tokio::test]
    async fn hosts_beyond_this_machine_are_not_asked() {
        let name = Name::parse("registry.example.com/a/b:c").unwrap();
        let error = Registry::of(&name, true).manifest("c").await.unwrap_err();
        assert_eq!(
            error,
            "Get \"http://registry.example.com/v2/a/b/manifests/c\": dial tcp: lookup registry.example.com on 127.0.0.53:53: no such host"
        );
    }
}
