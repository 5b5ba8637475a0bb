//! TLS for connections that the proxy makes: to the remote, and to servers of images.

use std::{fmt::Display, io, path::Path, sync::Arc};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};

/// Which certificates are accepted.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Trust<'a> {
    /// Those signed by an authority that the system trusts, or by one in `ca_file`.
    System { ca_file: Option<&'a Path> },
    /// Any: `remote.verify = false`.
    Anyone,
    /// None: for clear text, where no TLS connection is made. Reading the system's certificates takes time and memory.
    Nobody,
}

/// Returns a TLS configuration that trusts `trust`.
///
/// # Errors
/// Fails if `ca_file` cannot be read, or TLS cannot be set up.
pub(crate) fn config(trust: Trust<'_>) -> io::Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    let mut roots = RootCertStore::empty();
    match trust {
        Trust::Anyone => {
            let verifier = Arc::new(NoCertificateVerification(provider));
            return Ok(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth());
        }
        Trust::Nobody => {}
        Trust::System { ca_file } => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if let Some(path) = ca_file {
                add(path, &mut roots)?;
            }
        }
    }
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

fn add(path: &Path, roots: &mut RootCertStore) -> io::Result<()> {
    let unusable = |error: &dyn Display| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("remote.ca_file {}: {error}", path.display()))
    };
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| unusable(&error))? {
        roots.add(certificate.map_err(|error| unusable(&error))?).map_err(|error| unusable(&error))?;
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
