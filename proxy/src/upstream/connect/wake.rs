//! Wakes the remote's machine by a magic packet (Wake-on-LAN), and waits until it can be reached.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use tokio::{
    net::UdpSocket,
    time::{Instant, sleep, sleep_until, timeout_at},
};

use super::{Cause, Io};
use crate::config::Wake;

/// How often the packet is sent, and how long an attempt to connect rests after a failure that came at once.
const EVERY: Duration = Duration::from_secs(2);

/// Where a packet goes in the local network, which looks at no address: port 9 is `discard`.
const EVERYONE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::BROADCAST), 9);

/// Wakes one machine.
pub(super) struct Waker {
    wake: Wake,
    within: Duration,
    remote: String,
    /// How many connections wait for it. The log mentions the first one only.
    waiting: AtomicUsize,
}

/// A connection that waits for the machine.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Waker {
    pub(super) fn new(wake: Wake, within: Duration, remote: String) -> Self {
        Self { wake, within, remote, waiting: AtomicUsize::new(0) }
    }

    /// Sends packets and tries again with `attempt` until it succeeds. `cause` is why the first attempt failed.
    ///
    /// # Errors
    /// Fails if the machine does not wake in time, or if an attempt fails for another reason than that it sleeps or
    /// starts.
    pub(super) async fn until_awake<F: Future<Output = Result<Box<dyn Io>, Cause>>>(
        &self,
        cause: Cause,
        attempt: impl Fn() -> F,
    ) -> Result<Box<dyn Io>, Cause> {
        let first = self.waiting.fetch_add(1, Ordering::Relaxed) == 0;
        let _waiting = Waiting(&self.waiting);
        let (begun, wake) = (Instant::now(), &self.wake);
        let deadline = begun + self.within;
        if first {
            tracing::info!(target: "farllama", "remote {}: {cause}; waking {wake} (remote.wake)", self.remote);
        }
        let mut last = cause;
        let trying = async {
            loop {
                let next = Instant::now() + EVERY;
                match attempt().await {
                    Err(cause) if cause.may_pass() => last = cause,
                    done => return done,
                }
                sleep_until(next).await;
            }
        };
        let calling = async {
            loop {
                if let Err(error) = self.send().await {
                    tracing::warn!(target: "farllama", "cannot send a packet to wake {wake}: {error} (remote.wake)");
                }
                sleep(EVERY).await;
            }
        };
        let woken = tokio::select! {
            woken = timeout_at(deadline, trying) => woken,
            () = calling => return Err(last),
        };
        match woken {
            Ok(woken) => {
                if first && woken.is_ok() {
                    let took = begun.elapsed().as_secs();
                    tracing::info!(target: "farllama", "remote {}: reachable {took} s after it was woken", self.remote);
                }
                woken
            }
            Err(_) => Err(Cause::Asleep { cause: Box::new(last), after: self.within }),
        }
    }

    async fn send(&self) -> io::Result<()> {
        let to = self.wake.to.unwrap_or(EVERYONE);
        let any: SocketAddr = match to {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(any).await?;
        socket.set_broadcast(true)?;
        socket.send_to(&packet(self.wake.mac), to).await.map(|_| ())
    }
}

/// Six bytes of ones, and the address sixteen times.
fn packet(mac: [u8; 6]) -> [u8; 102] {
    let mut packet = [0xff; 102];
    for place in packet[6..].chunks_exact_mut(6) {
        place.copy_from_slice(&mac);
    }
    packet
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{Reach, Remote, Timeouts},
        upstream::connect::Connector,
    };

    #[tokio::test]
    async fn a_machine_that_does_not_answer_is_woken_and_then_connected_to() {
        // A machine that is asleep: nothing accepts, and the backlog is full, so that SYNs are dropped.
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        socket.listen(0).unwrap();
        socket.set_nonblocking(true).unwrap();
        let addr = socket.local_addr().unwrap().as_socket().unwrap();
        let fill: Vec<_> = (0..2).map(|_| tokio::net::TcpStream::connect(addr)).collect();
        let mut filled = Vec::new();
        for connecting in fill {
            filled.extend(tokio::time::timeout(Duration::from_millis(100), connecting).await);
        }
        let card = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let wake = Wake { mac: [0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0x0f], to: Some(card.local_addr().unwrap()) };
        let reach = Reach { wake: Some(wake), wake_time: Duration::from_secs(20), ..Reach::default() };
        let remote = Remote { port: addr.port(), reach, ..Remote::default() };
        let timeouts = Timeouts { connect: Duration::from_millis(200), ..Timeouts::default() };
        let connector = Connector::new(&remote, &timeouts).unwrap();
        let waking = async {
            let mut got = [0; 200];
            let size = card.recv(&mut got).await.unwrap();
            assert_eq!((size, &got[..6]), (102, &[0xff; 6][..]));
            assert!(got[6..102].chunks(6).all(|part| part == [0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0x0f]));
            // It is awake.
            drop(filled);
            let listener = tokio::net::TcpListener::from_std(socket.into()).unwrap();
            loop {
                let _accepted = listener.accept().await;
            }
        };
        let connecting = tokio::time::timeout(Duration::from_secs(15), connector.connect(true));
        tokio::select! {
            connected = connecting => assert!(connected.unwrap().is_ok()),
            () = waking => {}
        }
    }

    #[tokio::test]
    async fn a_machine_that_stays_asleep_is_reported_and_one_that_refuses_is_not_woken() {
        let card = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let waker = |within| {
            let wake = Wake { mac: [1; 6], to: Some(card.local_addr().unwrap()) };
            Waker::new(wake, within, "x".to_owned())
        };
        let asleep = || async { Err(Cause::Timeout(Duration::from_secs(1))) };
        let failed = waker(Duration::from_millis(50)).until_awake(Cause::Refused, asleep).await.err().unwrap();
        assert!(matches!(failed, Cause::Asleep { .. }) && failed.is_timeout(), "{failed:?}");
        let other = || async { Err(Cause::UnknownCa) };
        assert_eq!(
            waker(Duration::from_secs(9)).until_awake(Cause::Refused, other).await.err(),
            Some(Cause::UnknownCa)
        );
        assert!(!Cause::Refused.may_be_asleep(), "the machine is up");
    }
}
