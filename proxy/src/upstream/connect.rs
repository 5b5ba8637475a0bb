//! Makes connections to the remote: name lookup, TCP and TLS, all within one timeout.
//!
//! Knows nothing of HTTP. A failure is a [`Cause`], so that its texts are in one place.

use std::{
    error::Error as StdError,
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::Uri;
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::{
    client::legacy::connect::{HttpConnector, dns::Name},
    rt::TokioIo,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tower::Service;

use crate::{
    config::{Protocol, Remote, Timeouts},
    tls_client::{self, Trust},
};

type BoxError = Box<dyn StdError + Send + Sync>;

/// How long written bytes may stay unacknowledged before the connection counts as dead. It also ends an upload that the remote does not
/// read, so it is longer than a request may wait in another farllama's queue (`quota.wait`, 5 min by default).
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED: Duration = Duration::from_secs(360);

/// What a connection is made of: TCP, or TLS over it.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Cause {
    /// The name has no address.
    #[error("no address is known for that name")]
    NameNotFound,
    /// Nobody listens on that port.
    #[error("connection refused")]
    Refused,
    /// No connection within the bound.
    #[error("no connection within {}", humantime::format_duration(*.0))]
    Timeout(Duration),
    /// TCP connected, but nothing answered the TLS handshake within the bound.
    #[error("connected, but no answer to the TLS handshake within {}", humantime::format_duration(*.0))]
    NoHandshake(Duration),
    /// We spoke TLS and were answered in something else.
    #[error("it does not speak TLS on that port")]
    PlainPort,
    /// The certificate's authority is unknown.
    #[error("its certificate is signed by an authority that this machine does not trust")]
    UnknownCa,
    /// TLS failed in another way, in the library's words.
    #[error("TLS failed: {0}")]
    Tls(String),
    /// Anything else, in the system's words.
    #[error("{0}")]
    Other(String),
}

/// Makes connections for the pool. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Connector {
    inner: HttpsConnector<HttpConnector<Resolver>>,
    within: Duration,
}

impl Connector {
    /// # Errors
    /// Fails if `remote.ca_file` cannot be read, or TLS cannot be set up.
    pub(crate) fn new(remote: &Remote, timeouts: &Timeouts) -> io::Result<Self> {
        let mut tcp = HttpConnector::new_with_resolver(Resolver);
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        // A peer that died silently must not hold a stream forever: thinking has no limit, but its machine must be there.
        tcp.set_keepalive(Some(Duration::from_secs(30)));
        tcp.set_keepalive_interval(Some(Duration::from_secs(10)));
        tcp.set_keepalive_retries(Some(3));
        #[cfg(target_os = "linux")]
        tcp.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
        let trust = match (remote.protocol, remote.verify) {
            (Protocol::Http, _) => Trust::Nobody,
            (Protocol::Https, true) => Trust::System { ca_file: remote.ca_file.as_deref() },
            (Protocol::Https, false) => Trust::Anyone,
        };
        let inner = HttpsConnector::from((tcp, Arc::new(tls_client::config(trust)?)));
        Ok(Self { inner, within: timeouts.connect })
    }
}

impl Service<Uri> for Connector {
    type Response = Box<dyn Io>;
    type Error = Cause;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Cause>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Cause>> {
        self.inner.poll_ready(cx).map_err(|error| cause(error.as_ref()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.inner.call(uri.clone());
        let within = self.within;
        Box::pin(async move {
            let connected = if within.is_zero() {
                connecting.await
            } else {
                match tokio::time::timeout(within, connecting).await {
                    Ok(connected) => connected,
                    Err(_) => return Err(timed_out(&uri, within).await),
                }
            };
            let io: Box<dyn Io> = match connected.map_err(|error: BoxError| cause(error.as_ref()))? {
                MaybeHttpsStream::Http(tcp) => Box::new(tcp.into_inner()),
                tls @ MaybeHttpsStream::Https(_) => Box::new(TokioIo::new(tls)),
            };
            Ok(io)
        })
    }
}

/// Why there is no connection within the limit: an HTTPS address that accepts TCP has not answered the handshake.
async fn timed_out(uri: &Uri, within: Duration) -> Cause {
    /// For one more TCP connection to a machine that the failed one has just reached.
    const AGAIN: Duration = Duration::from_secs(1);
    let (Some("https"), Some(host), Some(port)) = (uri.scheme_str(), uri.host(), uri.port_u16()) else {
        return Cause::Timeout(within);
    };
    let address = (host.trim_matches(['[', ']']), port);
    match tokio::time::timeout(AGAIN, tokio::net::TcpStream::connect(address)).await {
        Ok(Ok(_)) => Cause::NoHandshake(within),
        _ => Cause::Timeout(within),
    }
}

/// The system's resolver; its failure keeps a type.
#[derive(Clone)]
struct Resolver;

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = Cause;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Cause>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Cause>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        Box::pin(async move {
            let found: Vec<_> =
                tokio::net::lookup_host((name.as_str(), 0)).await.map_err(|_| Cause::NameNotFound)?.collect();
            if found.is_empty() { Err(Cause::NameNotFound) } else { Ok(found.into_iter()) }
        })
    }
}

/// Finds the cause in an error and its sources.
pub(crate) fn cause(error: &(dyn StdError + 'static)) -> Cause {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(cause) = error.downcast_ref::<Cause>() {
            return cause.clone();
        }
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return tls_cause(tls);
        }
        if let Some(io) = error.downcast_ref::<io::Error>() {
            match io.kind() {
                io::ErrorKind::ConnectionRefused => return Cause::Refused,
                io::ErrorKind::TimedOut => return Cause::Other("the connection timed out".to_owned()),
                _ => {}
            }
            // `io::Error::source` skips the error that it wraps itself.
            next = io.get_ref().map(|inner| inner as &(dyn StdError + 'static)).or_else(|| io.source());
            if next.is_none() {
                return Cause::Other(io.to_string());
            }
            continue;
        }
        match error.source() {
            None => return Cause::Other(error.to_string()),
            inner => next = inner,
        }
    }
    Cause::Other(error.to_string())
}

fn tls_cause(error: &rustls::Error) -> Cause {
    match error {
        rustls::Error::InvalidMessage(_) => Cause::PlainPort,
        rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer) => Cause::UnknownCa,
        other => Cause::Tls(other.to_string()),
    }
}
