//! How a connection to the remote is made: name look-up, TCP, TLS, all within one bound; and why one was not.
//!
//! Knows nothing of HTTP. A failure is a [`Cause`], so that the words for it stand in one place.

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
use rustls::{
    DigitallySignedStruct,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tower::Service;

use crate::{
    config::{Protocol, Remote, Timeouts},
    upstream::connection::Io,
};

type BoxError = Box<dyn StdError + Send + Sync>;

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

/// Makes connections for the pooled client. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Connector {
    inner: HttpsConnector<HttpConnector<Resolver>>,
    within: Duration,
}

impl Connector {
    /// # Errors
    /// Where TLS is asked for: the system's certificates or `remote.ca_file` cannot be read.
    pub(crate) fn new(remote: &Remote, timeouts: &Timeouts) -> io::Result<Self> {
        let mut tcp = HttpConnector::new_with_resolver(Resolver);
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        // A peer that died without a word must not hold a stream for ever: thinking has no limit, but its machine must be there.
        tcp.set_keepalive(Some(Duration::from_secs(30)));
        tcp.set_keepalive_interval(Some(Duration::from_secs(10)));
        tcp.set_keepalive_retries(Some(3));
        let inner = HttpsConnector::from((tcp, Arc::new(tls(remote)?)));
        Ok(Self { inner, within: timeouts.connect })
    }
}

fn tls(remote: &Remote) -> io::Result<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    // Reading the system's certificates takes time and memory, so only those who need them pay.
    if remote.protocol == Protocol::Https && remote.verify {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if let Some(path) = &remote.ca_file {
            use rustls::pki_types::pem::PemObject;
            let unusable = |error: &dyn std::fmt::Display| {
                io::Error::new(io::ErrorKind::InvalidInput, format!("remote.ca_file {}: {error}", path.display()))
            };
            for certificate in CertificateDer::pem_file_iter(path).map_err(|error| unusable(&error))? {
                roots.add(certificate.map_err(|error| unusable(&error))?).map_err(|error| unusable(&error))?;
            }
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    Ok(if remote.verify {
        builder.with_root_certificates(roots).with_no_client_auth()
    } else {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider))).with_no_client_auth()
    })
}

/// TLS for others than the remote: whoever the system trusts.
///
/// # Errors
/// TLS cannot be set up.
pub(crate) fn trusting_the_system() -> io::Result<rustls::ClientConfig> {
    tls(&Remote { protocol: Protocol::Https, ..Remote::default() })
}

/// Takes whoever answers for the remote: `remote.verify = false`.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
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
        let connecting = self.inner.call(uri);
        let within = self.within;
        Box::pin(async move {
            let connected = if within.is_zero() {
                connecting.await
            } else {
                tokio::time::timeout(within, connecting).await.map_err(|_| Cause::Timeout(within))?
            };
            let io: Box<dyn Io> = match connected.map_err(|error: BoxError| cause(error.as_ref()))? {
                MaybeHttpsStream::Http(tcp) => Box::new(tcp.into_inner()),
                tls @ MaybeHttpsStream::Https(_) => Box::new(TokioIo::new(tls)),
            };
            Ok(io)
        })
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

/// Reads the cause out of an error and whatever it wraps.
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
