//! Makes connections to the remote: directly, through a proxy or over SSH, then TLS, all within one timeout.
//!
//! Knows nothing of the requests. A failure is a [`Cause`], so that its texts are in one place.

mod cause;
mod proxy;
mod ssh;
mod tcp;
mod tls;
mod wake;

use std::{io, sync::Arc, time::Duration};

pub(crate) use cause::{Cause, ProxyRefusal, SshFailure, cause};
#[cfg(target_os = "linux")]
pub(crate) use tcp::{UNACKNOWLEDGED, UNACKNOWLEDGED_UPLOAD};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::Instant,
};
use tokio_rustls::client::TlsStream;

use crate::config::{Protocol, Remote, Timeouts};

/// What a connection is made of: TCP, or layers over it.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {
    /// The TCP connection at the bottom, if it is one of this process.
    fn tcp(&self) -> Option<&TcpStream>;
}

impl Io for TcpStream {
    fn tcp(&self) -> Option<&TcpStream> {
        Some(self)
    }
}

impl<S: Io> Io for TlsStream<S> {
    fn tcp(&self) -> Option<&TcpStream> {
        self.get_ref().0.tcp()
    }
}

impl Io for Box<dyn Io> {
    fn tcp(&self) -> Option<&TcpStream> {
        (**self).tcp()
    }
}

/// Makes connections for the pool. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Connector(Arc<Inner>);

struct Inner {
    path: Path,
    /// None: clear text.
    tls: Option<tls::Tls>,
    within: Duration,
    wake: Option<wake::Waker>,
}

/// How the remote is reached.
enum Path {
    Direct(tcp::Tcp),
    Proxy(proxy::ProxyConnector),
    Ssh(ssh::SshConnector),
}

impl Connector {
    /// # Errors
    /// Fails if a host name is invalid, a certificate or a key cannot be read, or TLS cannot be set up.
    pub(crate) fn new(remote: &Remote, timeouts: &Timeouts) -> io::Result<Self> {
        let (reach, host, port) = (&remote.reach, &remote.host, remote.port);
        let path = match (&reach.ssh, &reach.proxy) {
            (Some(ssh), _) => Path::Ssh(ssh::SshConnector::new(ssh, host, port)),
            (None, Some(proxy)) => Path::Proxy(proxy::ProxyConnector::new(proxy, host, port)?),
            (None, None) => Path::Direct(tcp::Tcp::new(host, port)?),
        };
        let tls = match remote.protocol {
            Protocol::Http => None,
            Protocol::Https => Some(tls::Tls::new(remote)?),
        };
        let wake = reach.wake.clone().map(|wake| wake::Waker::new(wake, reach.wake_time, remote.name()));
        Ok(Self(Arc::new(Inner { path, tls, within: timeouts.connect, wake })))
    }

    /// Makes a connection. If the machine seems to be asleep and can be woken, and this `wakes` it, waits until it is
    /// awake.
    ///
    /// # Errors
    /// Fails with the reason.
    pub(crate) async fn connect(&self, wakes: bool) -> Result<Box<dyn Io>, Cause> {
        match (self.0.attempt().await, &self.0.wake) {
            (Err(cause), Some(wake)) if wakes && cause.may_be_asleep() => {
                Box::pin(wake.until_awake(cause, || self.0.attempt())).await
            }
            (attempted, _) => attempted,
        }
    }
}

impl Inner {
    /// One attempt, within the timeout.
    async fn attempt(&self) -> Result<Box<dyn Io>, Cause> {
        let deadline = (!self.within.is_zero()).then(|| Instant::now() + self.within);
        let late = Cause::Timeout(self.within);
        match &self.path {
            Path::Direct(tcp) => {
                let stream = until(deadline, tcp.connect(), late).await?;
                self.secure(stream, deadline).await
            }
            Path::Proxy(proxy) => {
                let stream = until(deadline, proxy.connect(), late).await?;
                self.secure(stream, deadline).await
            }
            Path::Ssh(ssh) => {
                let stream = until(deadline, ssh.connect(), ssh.late(self.within)).await?;
                self.secure(stream, deadline).await
            }
        }
    }

    async fn secure<S: Io>(&self, stream: S, deadline: Option<Instant>) -> Result<Box<dyn Io>, Cause> {
        let Some(tls) = &self.tls else { return Ok(Box::new(stream)) };
        Ok(Box::new(until(deadline, tls.secure(stream), Cause::NoHandshake(self.within)).await?))
    }
}

/// Waits for `connecting` until `deadline`; then fails with `late`.
async fn until<T>(
    deadline: Option<Instant>,
    connecting: impl Future<Output = Result<T, Cause>>,
    late: Cause,
) -> Result<T, Cause> {
    match deadline {
        None => connecting.await,
        Some(deadline) => tokio::time::timeout_at(deadline, connecting).await.unwrap_or(Err(late)),
    }
}
