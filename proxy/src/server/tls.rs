//! TLS on the listener, from PEM files.

use std::{io, path::Path, sync::Arc};

use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio_rustls::TlsAcceptor;

use crate::config::Local;

/// None where the settings name no certificate.
///
/// # Errors
/// The files cannot be read, or do not belong together.
pub(crate) fn acceptor(local: &Local) -> io::Result<Option<TlsAcceptor>> {
    let (Some(cert), Some(key)) = (&local.tls_cert, &local.tls_key) else { return Ok(None) };
    let unusable = |setting: &str, path: &Path, error: &dyn std::fmt::Display| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("{setting} {}: {error}", path.display()))
    };
    let wrong_cert = |error: &dyn std::fmt::Display| unusable("local.tls_cert", cert, error);
    let chain: Vec<_> = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect)
        .map_err(|error: rustls::pki_types::pem::Error| wrong_cert(&error))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| unusable("local.tls_key", key, &error))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(|error| wrong_cert(&error))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Some(TlsAcceptor::from(Arc::new(config))))
}
