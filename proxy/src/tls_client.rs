//! TLS for connections that the proxy makes: to the remote, and to servers of images.

use std::{fmt::Display, io, path::Path, sync::Arc};

use rustls::{
    ClientConfig, ConfigBuilder, DigitallySignedStruct, RootCertStore,
    client::WantsClientCert,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};

use crate::config::Remote;

/// Which certificates are accepted.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Trust<'a> {
    /// Those signed by an authority that the system trusts, or by one in `ca_file`.
    System { ca_file: Option<&'a Path> },
    /// Any: `remote.verify = false`.
    Anyone,
}

/// Returns a TLS configuration that trusts `trust`, and shows the certificate in the first file of `identity`, whose
/// key is in the second.
///
/// # Errors
/// Fails if a file cannot be read, if certificate and key do not belong together, or if TLS cannot be set up.
pub(crate) fn config(trust: Trust<'_>, identity: Option<(&Path, &Path)>) -> io::Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    let mut roots = RootCertStore::empty();
    match trust {
        Trust::Anyone => {
            let verifier = Arc::new(NoCertificateVerification(provider));
            return identify(builder.dangerous().with_custom_certificate_verifier(verifier), identity);
        }
        Trust::System { ca_file } => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if let Some(path) = ca_file {
                add(path, &mut roots)?;
            }
        }
    }
    identify(builder.with_root_certificates(roots), identity)
}

/// Returns the TLS configuration of connections to `remote`: what it trusts (`ca_file`, `verify`), and the certificate
/// that it shows.
///
/// # Errors
/// Fails as farllama does at its start: if a file cannot be read, or if certificate and key do not belong together.
pub fn remote_tls(remote: &Remote) -> io::Result<ClientConfig> {
    let trust = if remote.verify { Trust::System { ca_file: remote.ca_file.as_deref() } } else { Trust::Anyone };
    let reach = &remote.reach;
    config(trust, reach.client_cert.as_deref().zip(reach.client_key.as_deref()))
}

/// Adds the certificate that the client shows, if there is one.
fn identify(
    builder: ConfigBuilder<ClientConfig, WantsClientCert>,
    identity: Option<(&Path, &Path)>,
) -> io::Result<ClientConfig> {
    let Some((cert, key)) = identity else { return Ok(builder.with_no_client_auth()) };
    let unusable = |setting: &str, path: &Path, error: &dyn Display| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("{setting} {}: {error}", path.display()))
    };
    let wrong_cert = |error: &dyn Display| unusable("remote.client_cert", cert, error);
    let chain: Vec<_> = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect)
        .map_err(|error: rustls::pki_types::pem::Error| wrong_cert(&error))?;
    if chain.is_empty() {
        return Err(wrong_cert(&"no certificate in this file; expected PEM"));
    }
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| unusable("remote.client_key", key, &error))?;
    builder.with_client_auth_cert(chain, private).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => unusable(
            "remote.client_key",
            key,
            &format!("this key does not belong to the certificate in {} (remote.client_cert)", cert.display()),
        ),
        other => wrong_cert(&other),
    })
}

fn add(path: &Path, roots: &mut RootCertStore) -> io::Result<()> {
    let unusable = |error: &dyn Display| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("remote.ca_file {}: {error}", path.display()))
    };
    let mut count = 0;
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| unusable(&error))? {
        roots.add(certificate.map_err(|error| unusable(&error))?).map_err(|error| unusable(&error))?;
        count += 1;
    }
    if count == 0 {
        return Err(unusable(&"no certificate in this file; expected PEM"));
    }
    Ok(())
}

/// Accepts any certificate: `remote.verify = false`.
#[derive(Debug)]
struct NoCertificateVerification(Arc<CryptoProvider>);

impl ServerCertVerifier for NoCertificateVerification {
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
