//! Connections to the Ollama that is recorded, and requests as it should get them.

use std::{io, sync::Arc};

use anyhow::Context;
use farllama::config::{Protocol, Remote, bracketed};
use mock_ollama::recording::Headers;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use super::wire::Head;

/// A connection.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Where the Ollama is, and what it needs to be asked.
#[derive(Clone)]
pub(crate) struct Upstream {
    host: String,
    port: u16,
    base_path: String,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    /// Added to every request: the key, and what the settings name.
    headers: Headers,
    /// For people.
    pub(crate) url: String,
}

impl Upstream {
    /// Prepares connections to the remote of the settings.
    ///
    /// # Errors
    /// Fails if a certificate or a key of the settings cannot be read, or if the host cannot stand in a certificate.
    pub(crate) fn new(remote: &Remote) -> anyhow::Result<Self> {
        let tls = match remote.protocol {
            Protocol::Http => None,
            Protocol::Https => {
                let config = farllama::remote_tls(remote)?;
                let name = ServerName::try_from(remote.host.clone())
                    .with_context(|| format!("invalid host {:?} for TLS", remote.host))?;
                Some((TlsConnector::from(Arc::new(config)), name))
            }
        };
        let authorization = remote.authorization.iter().map(|value| (http::header::AUTHORIZATION, value));
        let others = remote.headers.iter().map(|(name, value)| (name.clone(), value));
        let headers = authorization
            .chain(others)
            .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
            .collect();
        Ok(Self {
            host: remote.host.clone(),
            port: remote.port,
            base_path: remote.base_path.clone(),
            tls,
            headers,
            url: remote.url(),
        })
    }

    /// The values of the headers that are added: no recording may hold them.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = &str> {
        self.headers.iter().filter_map(|(_, value)| value.split_ascii_whitespace().next_back())
    }

    /// `host:port`, as requests name it.
    pub(super) fn authority(&self) -> String {
        format!("{}:{}", bracketed(&self.host), self.port)
    }

    /// Connects.
    ///
    /// # Errors
    /// Fails if the remote cannot be reached or TLS fails.
    pub(super) async fn connect(&self) -> io::Result<Box<dyn Stream>> {
        let tcp = TcpStream::connect((self.host.as_str(), self.port)).await?;
        tcp.set_nodelay(true)?;
        Ok(match &self.tls {
            None => Box::new(tcp),
            Some((connector, name)) => Box::new(connector.connect(name.clone(), tcp).await?),
        })
    }

    /// The head of a client's request as the remote should get it.
    pub(super) fn addressed(&self, head: &Head) -> Head {
        let words = (head.word(0), head.word(1), head.word(2));
        let mut own =
            Head { line: format!("{} {}{} {}", words.0, self.base_path, words.1, words.2), headers: Vec::new() };
        let is_own = |name: &str| self.headers.iter().any(|(own, _)| own.eq_ignore_ascii_case(name));
        own.headers.push(("Host".to_owned(), self.authority()));
        let others = head.headers.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("host") && !is_own(name));
        own.headers.extend(others.cloned());
        own.headers.extend(self.headers.iter().cloned());
        own
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_names_the_remote_and_carries_its_key() {
        let mut remote = Remote { host: "gpu-box".to_owned(), base_path: "/prefix".to_owned(), ..Remote::default() };
        remote.authorization = Some("Bearer remote-key".parse().unwrap());
        let upstream = Upstream::new(&remote).unwrap();
        let headers = [("host", "here"), ("Accept", "*/*"), ("authorization", "Bearer callers-key")];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let own = upstream.addressed(&Head { line: "GET /api/tags HTTP/1.1".to_owned(), headers });
        let expected = "GET /prefix/api/tags HTTP/1.1\r\nHost: gpu-box:11434\r\nAccept: */*\r\nauthorization: Bearer remote-key\r\n\r\n";
        assert_eq!(String::from_utf8(own.to_bytes()).unwrap(), expected);
        assert_eq!(upstream.secrets().collect::<Vec<_>>(), ["remote-key"]);
    }
}
