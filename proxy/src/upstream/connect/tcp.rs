//! TCP: name lookup, the addresses of a name tried as RFC 8305 says, and the options by which a dead peer is noticed.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http::Uri;
use hyper_util::client::legacy::connect::{HttpConnector, dns::Name};
use tokio::net::TcpStream;
use tower::{Service, ServiceExt};

use super::{Cause, cause};
use crate::config::bracketed;

/// A silent connection is probed after this time, so that the NAT on the way does not forget it. A peer that died
/// silently must not hold a stream forever: thinking has no limit, but its machine must be there. It is given up 30 s
/// after it was last heard of.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(15), Duration::from_secs(5), 3);

/// How long written bytes may stay unacknowledged before the connection counts as dead. Keep-alive does not work while
/// there are any. It is so short that a request on a pooled connection which a NAT has forgotten is soon sent again on
/// a fresh one. Linux limits unanswered probes by it, too.
#[cfg(target_os = "linux")]
pub(crate) const UNACKNOWLEDGED: Duration = Duration::from_secs(30);

/// The same for an upload: a remote may not read it for as long as a request may wait in another farllama's queue
/// (`quota.wait`, 5 min by default), and a full receive window counts as unacknowledged bytes.
#[cfg(target_os = "linux")]
pub(crate) const UNACKNOWLEDGED_UPLOAD: Duration = Duration::from_secs(360);

/// Connects to one host and port.
#[derive(Clone)]
pub(super) struct Tcp {
    connector: HttpConnector<Resolver>,
    to: Uri,
}

impl Tcp {
    /// # Errors
    /// Fails if `host` is not a host name.
    pub(super) fn new(host: &str, port: u16) -> io::Result<Self> {
        let mut connector = HttpConnector::new_with_resolver(Resolver);
        connector.enforce_http(false);
        connector.set_nodelay(true);
        let (after, every, times) = KEEPALIVE;
        connector.set_keepalive(Some(after));
        connector.set_keepalive_interval(Some(every));
        connector.set_keepalive_retries(Some(times));
        #[cfg(target_os = "linux")]
        connector.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
        let to = Uri::builder().scheme("http").authority(format!("{}:{port}", bracketed(host))).path_and_query("/");
        let to = to.build().map_err(|error| {
            io::Error::new(io::ErrorKind::InvalidInput, format!("invalid host name {host:?}: {error}"))
        })?;
        Ok(Self { connector, to })
    }

    /// # Errors
    /// Fails if the name has no address, or none of its addresses accepts a connection.
    pub(super) async fn connect(&self) -> Result<TcpStream, Cause> {
        let connected = self.connector.clone().oneshot(self.to.clone()).await;
        connected.map(hyper_util::rt::TokioIo::into_inner).map_err(|error| cause(&error))
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

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use socket2::SockRef;

    use super::*;

    #[tokio::test]
    async fn a_connection_has_the_options_by_which_a_dead_peer_is_noticed() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = Tcp::new("127.0.0.1", listener.local_addr().unwrap().port()).unwrap().connect().await.unwrap();
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().unwrap() && socket.tcp_nodelay().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEPALIVE.0);
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), KEEPALIVE.1);
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), KEEPALIVE.2);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(UNACKNOWLEDGED));
    }
}
