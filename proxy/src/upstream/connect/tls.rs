//! TLS to the remote, over any connection.

use std::{io, sync::Arc};

use rustls::pki_types::ServerName;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{Cause, Io, cause};
use crate::{
    config::Remote,
    tls_client::{self, Trust},
};

/// Speaks TLS to one remote.
#[derive(Clone)]
pub(super) struct Tls {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl Tls {
    /// # Errors
    /// Fails if a certificate or a key cannot be read, or the host's name cannot be in a certificate.
    pub(super) fn new(remote: &Remote) -> io::Result<Self> {
        Self::with(tls_client::remote_tls(remote)?, &remote.host)
    }

    /// For a server `host` that must have a certificate which the system trusts.
    ///
    /// # Errors
    /// As [`Tls::new`].
    pub(super) fn of_host(host: &str) -> io::Result<Self> {
        Self::with(tls_client::config(Trust::System { ca_file: None }, None)?, host)
    }

    fn with(config: rustls::ClientConfig, host: &str) -> io::Result<Self> {
        let name = ServerName::try_from(host.to_owned()).map_err(|error| {
            io::Error::new(io::ErrorKind::InvalidInput, format!("invalid host name {host:?} for TLS: {error}"))
        })?;
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), name })
    }

    /// # Errors
    /// Fails if the handshake does.
    pub(super) async fn secure<S: Io>(&self, stream: S) -> Result<TlsStream<S>, Cause> {
        self.connector.connect(self.name.clone(), stream).await.map_err(|error| cause(&error))
    }
}
