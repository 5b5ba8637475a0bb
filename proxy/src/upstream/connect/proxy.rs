//! A tunnel through a proxy: HTTP's CONNECT, or SOCKS5.

use std::io;

use axum::body::Body;
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderValue, Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio_socks::tcp::Socks5Stream;

use super::{Cause, Io, ProxyRefusal, cause, tcp::Tcp, tls::Tls};
use crate::config::{Proxy, ProxyProtocol, bracketed};

/// Makes tunnels to one remote through one proxy.
#[derive(Clone)]
pub(super) struct ProxyConnector {
    proxy: Proxy,
    tcp: Tcp,
    tls: Option<Tls>,
    /// Where the tunnel ends.
    host: String,
    port: u16,
}

impl ProxyConnector {
    /// # Errors
    /// Fails if a host name is invalid, or TLS cannot be set up.
    pub(super) fn new(proxy: &Proxy, host: &str, port: u16) -> io::Result<Self> {
        let of_setting =
            |error: io::Error| io::Error::new(io::ErrorKind::InvalidInput, format!("{error} (remote.proxy)"));
        let tls = (proxy.protocol == ProxyProtocol::Https).then(|| Tls::of_host(&proxy.host));
        Ok(Self {
            tcp: Tcp::new(&proxy.host, proxy.port).map_err(of_setting)?,
            tls: tls.transpose().map_err(of_setting)?,
            proxy: proxy.clone(),
            host: host.to_owned(),
            port,
        })
    }

    /// # Errors
    /// Fails if the proxy cannot be reached, or does not connect to the remote.
    pub(super) async fn connect(&self) -> Result<Box<dyn Io>, Cause> {
        let lost = |cause| Cause::NoProxy { proxy: self.proxy.to_string(), cause: Box::new(cause) };
        let tcp = self.tcp.connect().await.map_err(lost)?;
        let stream: Box<dyn Io> = match &self.tls {
            None => Box::new(tcp),
            Some(tls) => Box::new(tls.secure(tcp).await.map_err(lost)?),
        };
        match self.proxy.protocol {
            ProxyProtocol::Http | ProxyProtocol::Https => self.tunnel(stream).await,
            ProxyProtocol::Socks5 => self.socks(stream).await,
        }
    }

    fn refused(&self, kind: ProxyRefusal, answer: String) -> Cause {
        Cause::Proxy { proxy: self.proxy.to_string(), answer, kind }
    }

    async fn tunnel(&self, stream: Box<dyn Io>) -> Result<Box<dyn Io>, Cause> {
        let broken = |error: hyper::Error| self.refused(ProxyRefusal::Protocol, format!("{}", cause(&error)));
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let mut connection = std::pin::pin!(connection.with_upgrades());
        let target = format!("{}:{}", bracketed(&self.host), self.port);
        let mut request = Request::new(Body::empty());
        *request.method_mut() = Method::CONNECT;
        let invalid = |error: &dyn std::fmt::Display| Cause::Other(error.to_string());
        *request.uri_mut() = target.parse().map_err(|error: http::uri::InvalidUri| invalid(&error))?;
        let host = HeaderValue::try_from(target).map_err(|error| invalid(&error))?;
        request.headers_mut().insert(header::HOST, host);
        if let Some((user, password)) = &self.proxy.credentials {
            let pair = STANDARD.encode(format!("{user}:{}", password.0));
            let value = HeaderValue::try_from(format!("Basic {pair}")).map_err(|error| invalid(&error))?;
            request.headers_mut().insert(header::PROXY_AUTHORIZATION, value);
        }
        let mut asking = std::pin::pin!(async {
            let response = sender.send_request(request).await?;
            let status = response.status();
            if !status.is_success() {
                return Ok(Err(status));
            }
            hyper::upgrade::on(response).await.map(Ok)
        });
        // The connection ends when it hands itself over, so the answer is waited for beyond its end.
        let answered = tokio::select! {
            biased;
            answered = &mut asking => answered,
            closed = &mut connection => match closed {
                Ok(()) => asking.await,
                Err(error) => Err(error),
            },
        };
        let upgraded = match answered.map_err(broken)? {
            Ok(upgraded) => upgraded,
            Err(status) => {
                let kind = match status {
                    StatusCode::PROXY_AUTHENTICATION_REQUIRED | StatusCode::UNAUTHORIZED => ProxyRefusal::Credentials,
                    status if status.is_server_error() => ProxyRefusal::Unreachable,
                    _ => ProxyRefusal::Forbidden,
                };
                return Err(self.refused(kind, status.to_string()));
            }
        };
        match upgraded.downcast::<TokioIo<Box<dyn Io>>>() {
            // A server of HTTP or TLS waits for the client.
            Ok(parts) if parts.read_buf.is_empty() => Ok(parts.io.into_inner()),
            _ => Err(self.refused(ProxyRefusal::Protocol, "bytes that were not asked for".to_owned())),
        }
    }

    async fn socks(&self, stream: Box<dyn Io>) -> Result<Box<dyn Io>, Cause> {
        let target = (self.host.as_str(), self.port);
        let connected = match &self.proxy.credentials {
            None => Socks5Stream::connect_with_socket(stream, target).await,
            Some((user, password)) => {
                Socks5Stream::connect_with_password_and_socket(stream, target, user, &password.0).await
            }
        };
        connected.map(Socks5Stream::into_inner).map_err(|error| {
            use tokio_socks::Error as Socks;
            let kind = match error {
                Socks::NoAcceptableAuthMethods
                | Socks::UnknownAuthMethod
                | Socks::InvalidAuthValues(_)
                | Socks::PasswordAuthFailure(_)
                | Socks::AuthorizationRequired => ProxyRefusal::Credentials,
                Socks::ConnectionNotAllowedByRuleset => ProxyRefusal::Forbidden,
                Socks::NetworkUnreachable
                | Socks::HostUnreachable
                | Socks::ConnectionRefused
                | Socks::TtlExpired
                | Socks::GeneralSocksServerFailure => ProxyRefusal::Unreachable,
                _ => ProxyRefusal::Protocol,
            };
            self.refused(kind, error.to_string())
        })
    }
}
