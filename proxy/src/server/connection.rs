//! The state of a client connection: busy or idle, since when, and whether it was evicted; and the timeouts on its
//! socket.
//!
//! An idle connection may be evicted for a new one; a connection with a request in flight never is. A request is in
//! flight from its head until the last byte of its response has been written to the socket.

use std::{
    io,
    net::{IpAddr, Ipv6Addr},
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Notify,
    time::Instant,
};

use crate::{config::Limits, deadline::Alarm, observe::Traffic};

/// How many bytes a connection moves before others get a turn: a large body would keep the event loop to itself for as
/// long as the other side keeps up. Moving them takes up to 0.1 ms, and a chunk of a stream waits for one turn of each
/// connection that is busy.
const TURN: usize = 64 << 10;

/// Maximum size of one write: the system copies it at once.
const WRITE: usize = TURN;

/// How long a connection that closes under a client that is still sending discards what comes. Go's server closes after
/// half a second.
const LINGER: Duration = Duration::from_secs(2);

/// The state of one connection. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct ConnState(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    peer: IpAddr,
    /// A response has ended, but its last bytes are not written yet. Only changed together with `state`; atomic so that
    /// writing a chunk takes no lock.
    unflushed: AtomicBool,
    /// A request body was dropped before its end: the client may still be sending it.
    unread: AtomicBool,
    state: Mutex<State>,
    /// Notified when the connection becomes idle.
    idle: Arc<Notify>,
}

#[derive(Debug)]
struct State {
    in_flight: usize,
    /// Number of request heads received.
    heads: u64,
    /// When the connection was accepted, or became idle last.
    since: Instant,
    /// Asked to close, unless a request arrives first.
    asked: bool,
    evicted: bool,
    /// Wakes the task of the connection, which waits for bytes.
    reader: Option<Waker>,
}

impl ConnState {
    /// `idle` is notified whenever the connection becomes idle.
    pub(crate) fn new(peer: IpAddr, idle: Arc<Notify>) -> Self {
        let state = State { in_flight: 0, heads: 0, since: Instant::now(), asked: false, evicted: false, reader: None };
        let (unflushed, unread) = (AtomicBool::new(false), AtomicBool::new(false));
        Self(Arc::new(Shared { peer: network(peer), unflushed, unread, state: Mutex::new(state), idle }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The client's address, or its network where one client owns a whole one.
    pub(crate) fn peer(&self) -> IpAddr {
        self.0.peer
    }

    fn busy(&self, state: &State) -> bool {
        state.in_flight > 0 || self.0.unflushed.load(Ordering::Relaxed)
    }

    /// Since when the connection is idle; None while a request is in flight.
    pub(crate) fn idle_since(&self) -> Option<Instant> {
        let state = self.lock();
        (!self.busy(&state)).then_some(state.since)
    }

    /// Asks the connection to close, if it is idle. Its task does so when it has seen that no byte of a request has
    /// arrived, and notifies `idle` either way. One whose task waits for nothing is evicted at once.
    pub(crate) fn try_evict(&self) -> bool {
        let mut state = self.lock();
        if self.busy(&state) {
            return false;
        }
        match state.reader.take() {
            None => state.evicted = true,
            Some(reader) => {
                state.asked = true;
                drop(state);
                reader.wake();
            }
        }
        true
    }

    /// Whether the connection was asked to close, and has not decided yet.
    pub(crate) fn is_asked(&self) -> bool {
        self.lock().asked
    }

    /// Whether no request begins on the connection any more.
    pub(crate) fn is_evicted(&self) -> bool {
        self.lock().evicted
    }

    /// Evicts the connection, or keeps it for the request that has arrived.
    pub(crate) fn decide(&self, evicted: bool) {
        let mut state = self.lock();
        (state.asked, state.evicted) = (false, evicted);
        drop(state);
        self.0.idle.notify_one();
    }

    /// Begins a request, whose head has arrived. None if the connection was evicted in the meantime.
    pub(crate) fn begin(&self) -> Option<InFlight> {
        let mut state = self.lock();
        if state.evicted {
            return None;
        }
        state.in_flight += 1;
        state.heads += 1;
        let asked = std::mem::take(&mut state.asked);
        drop(state);
        if asked {
            self.0.idle.notify_one();
        }
        Some(InFlight(self.clone()))
    }

    /// A request body is dropped before its end: the connection closes after the response.
    pub(crate) fn leave_unread(&self) {
        self.0.unread.store(true, Ordering::Relaxed);
    }

    /// All that was to be written has been written.
    fn flushed(&self) {
        if self.0.unflushed.load(Ordering::Relaxed) {
            let mut state = self.lock();
            self.0.unflushed.store(false, Ordering::Relaxed);
            state.since = Instant::now();
            drop(state);
            self.0.idle.notify_one();
        }
    }
}

/// The network that counts as one client: an IPv4 address, or the 64 leading bits of an IPv6 address.
pub(crate) fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        v4 => v4,
    }
}

/// A request in flight, until this is dropped and the connection has been flushed.
#[derive(Debug)]
pub(crate) struct InFlight(ConnState);

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.in_flight -= 1;
        // hyper still holds the last bytes; it flushes the socket once they are written.
        self.0.0.unflushed.store(true, Ordering::Relaxed);
        state.since = Instant::now();
    }
}

/// A client's socket with timeouts: for a request head once it has begun, for an idle connection, and for a client that
/// does not read.
pub(crate) struct TimedStream<S> {
    inner: S,
    state: ConnState,
    /// How long a head may take. Zero here and below: without limit.
    head_time: Duration,
    /// How long the connection may be idle.
    idle: Duration,
    /// How long a write may be blocked.
    write_idle: Duration,
    /// Since when a head is arriving, and the number of heads before it.
    head_begun: Option<(u64, Instant)>,
    /// Since when the socket takes no more bytes.
    blocked: Option<Instant>,
    /// When the connection was shut down for writing.
    shut: Option<Instant>,
    /// Bytes moved since others had a turn.
    moved: usize,
    read_deadline: Alarm,
    write_deadline: Alarm,
    traffic: Option<Arc<Traffic>>,
}

impl<S> TimedStream<S> {
    /// Counts its bytes.
    pub(crate) fn counted(self, traffic: Arc<Traffic>) -> Self {
        Self { traffic: Some(traffic), ..self }
    }

    pub(crate) fn new(inner: S, state: ConnState, limits: &Limits) -> Self {
        let Limits { head_time, idle, write_idle, .. } = *limits;
        Self {
            inner,
            state,
            head_time,
            idle,
            write_idle,
            head_begun: None,
            blocked: None,
            shut: None,
            moved: 0,
            read_deadline: Alarm::default(),
            write_deadline: Alarm::default(),
            traffic: None,
        }
    }

    /// Pending once in a while, so that others get a turn in the middle of a large body.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.moved < TURN {
            return Poll::Ready(());
        }
        self.moved = 0;
        // Not `wake_by_ref`: the runtime would go on with this task dozens of times before it asks the system what else
        // is ready.
        pin!(tokio::task::yield_now()).poll(cx)
    }

    fn count_written(&mut self, polled: &Poll<io::Result<usize>>) {
        match polled {
            Poll::Ready(Ok(n)) => {
                self.moved += n;
                if let Some(traffic) = &self.traffic {
                    traffic.sent(*n);
                }
            }
            _ => self.moved = 0,
        }
    }

    /// Passes on the outcome of a write, or fails if writes have been blocked for too long.
    fn written<T>(&mut self, polled: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.blocked = None;
            return polled;
        }
        if self.write_idle.is_zero() {
            return Poll::Pending;
        }
        let since = *self.blocked.get_or_insert_with(Instant::now);
        self.write_deadline.poll(since + self.write_idle, cx).map(|()| {
            let within = humantime::format_duration(self.write_idle);
            Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("the client read nothing of its response for {within} (limits.write_idle)"),
            ))
        })
    }
}

impl<S: AsyncRead + Unpin> TimedStream<S> {
    /// Discards what the client still sends, until it closes its side or [`LINGER`] is over. A socket that is closed
    /// with unread bytes resets the connection, and a client that is still sending would lose the response.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let until = self.shut.unwrap_or_else(Instant::now) + LINGER;
        if self.read_deadline.poll(until, cx).is_ready() {
            return Poll::Ready(());
        }
        let mut scratch = [0; 16 << 10];
        loop {
            let mut buffer = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(&mut self.inner).poll_read(cx, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {}
                _ => return Poll::Ready(()),
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for TimedStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(this.poll_turn(cx));
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.inner).poll_read(cx, buffer);
        let came = buffer.filled().len() - before;
        this.moved = if read.is_pending() { 0 } else { this.moved + came };
        if came > 0
            && let Some(traffic) = &this.traffic
        {
            traffic.received(came);
        }
        let (busy, heads, since, asked) = {
            let mut state = this.state.lock();
            if read.is_pending() && !state.reader.as_ref().is_some_and(|reader| reader.will_wake(cx.waker())) {
                state.reader = Some(cx.waker().clone());
            }
            (this.state.busy(&state), state.heads, state.since, state.asked)
        };
        if busy {
            this.head_begun = None;
            if read.is_pending() && !this.idle.is_zero() {
                // hyper need not read again when the response ends, so the timer is set now: it goes off before the
                // connection is due.
                let _ = this.read_deadline.poll(Instant::now() + this.idle, cx);
            }
            return read;
        }
        this.head_begun.take_if(|(head, _)| *head != heads);
        if asked {
            // The first bytes of a request keep the connection; more of a head that was incomplete do not.
            let stays = came > 0 && this.head_begun.is_none();
            this.state.decide(!stays);
            if !stays {
                buffer.set_filled(before);
                return Poll::Ready(Ok(()));
            }
        }
        if read.is_ready() {
            if buffer.filled().len() > before {
                this.head_begun.get_or_insert_with(|| (heads, Instant::now()));
            }
            return read;
        }
        let (from, within, what) = match this.head_begun {
            Some((_, begun)) => (begun, this.head_time, "the request head took too long (limits.head_time)"),
            None => (since, this.idle, "the connection was idle for too long (limits.idle)"),
        };
        if !within.is_zero() && this.read_deadline.poll(from + within, cx).is_ready() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, what)));
        }
        read
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TimedStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_turn(cx));
        let polled = Pin::new(&mut self.inner).poll_write(cx, &bytes[..bytes.len().min(WRITE)]);
        self.count_written(&polled);
        self.written(polled, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_turn(cx));
        let polled = match slices.iter().find(|slice| !slice.is_empty()) {
            // Only whole slices can be handed on, so a large one goes alone, as far as it is not too much.
            Some(first) if first.len() > WRITE => Pin::new(&mut self.inner).poll_write(cx, &first[..WRITE]),
            _ => {
                let few = slices.iter().scan(0, |sum, slice| {
                    *sum += slice.len();
                    Some(*sum)
                });
                let few = few.take_while(|sum| *sum <= WRITE).count().max(1);
                Pin::new(&mut self.inner).poll_write_vectored(cx, &slices[..few.min(slices.len())])
            }
        };
        self.count_written(&polled);
        self.written(polled, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_flush(cx);
        if matches!(polled, Poll::Ready(Ok(()))) {
            self.state.flushed();
        }
        self.written(polled, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.shut.is_none() {
            let polled = Pin::new(&mut self.inner).poll_shutdown(cx);
            ready!(self.written(polled, cx))?;
            self.shut = Some(Instant::now());
        }
        if self.state.0.unread.load(Ordering::Relaxed) { self.poll_linger(cx).map(Ok) } else { Poll::Ready(Ok(())) }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    fn state() -> ConnState {
        ConnState::new(Ipv4Addr::LOCALHOST.into(), Arc::new(Notify::new()))
    }

    fn limits() -> Limits {
        let second = Duration::from_secs(1);
        Limits { head_time: second, idle: 10 * second, write_idle: 5 * second, ..Limits::default() }
    }

    #[test]
    fn a_connection_with_a_request_in_flight_is_never_evicted() {
        let state = state();
        let request = state.begin().expect("nothing was evicted");
        assert!(state.idle_since().is_none() && !state.try_evict());
        drop(request);
        // The last bytes of the response may still wait for the client.
        assert!(state.idle_since().is_none() && !state.try_evict());
        state.flushed();
        assert!(state.idle_since().is_some() && state.try_evict());
    }

    #[test]
    fn no_request_begins_on_an_evicted_connection() {
        let state = state();
        assert!(state.try_evict());
        assert!(state.begin().is_none());
    }

    #[tokio::test]
    async fn an_evicted_connection_closes_unless_a_request_has_arrived() {
        /// What reading gives after `before` was sent and read, `then` was sent, and the connection was asked to close.
        async fn read(before: &[u8], then: &[u8]) -> (usize, bool, bool) {
            let (near, mut far) = duplex(64);
            let idle = Arc::new(Notify::new());
            let state = ConnState::new(Ipv4Addr::LOCALHOST.into(), idle.clone());
            let mut stream = TimedStream::new(near, state.clone(), &limits());
            let mut buffer = [0; 64];
            if !before.is_empty() {
                far.write_all(before).await.unwrap();
                assert_eq!(stream.read(&mut buffer).await.unwrap(), before.len());
            }
            let mut reading = Box::pin(stream.read(&mut buffer));
            let mut poll = || reading.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            assert!(poll().is_pending());
            far.write_all(then).await.unwrap();
            assert!(state.try_evict() && state.is_asked());
            let Poll::Ready(read) = poll() else { panic!("it decides at once") };
            let notified = futures_util::FutureExt::now_or_never(idle.notified()).is_some();
            assert!(notified && !state.is_asked());
            (read.unwrap(), state.is_evicted(), state.begin().is_some())
        }
        assert_eq!(read(b"", b"").await, (0, true, false), "it is idle");
        assert_eq!(read(b"", b"GET").await, (3, false, true), "a request has arrived");
        assert_eq!(read(b"GET", b" /").await, (0, true, false), "its head takes its time");
    }

    #[test]
    fn becoming_idle_is_notified_once_the_response_is_written() {
        let idle = Arc::new(Notify::new());
        let state = ConnState::new(Ipv4Addr::LOCALHOST.into(), idle.clone());
        drop(state.begin());
        let notified = || futures_util::FutureExt::now_or_never(idle.notified()).is_some();
        assert!(!notified());
        state.flushed();
        assert!(notified());
        state.flushed();
        assert!(!notified(), "nothing was in flight since");
    }

    #[test]
    fn an_ipv6_network_of_64_bits_is_one_client() {
        let parse = |text: &str| network(text.parse().unwrap());
        assert_eq!(parse("2001:db8:1:2:3:4:5:6"), parse("2001:db8:1:2::1"));
        assert_ne!(parse("2001:db8:1:2::1"), parse("2001:db8:1:3::1"));
        assert_ne!(parse("10.0.0.1"), parse("10.0.0.2"));
        assert_eq!(parse("::ffff:10.0.0.1"), parse("10.0.0.1"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_fails_the_write_in_time() {
        let (near, _unread) = duplex(8);
        let mut stream = TimedStream::new(near, state(), &limits());
        let begun = Instant::now();
        let error = stream.write_all(&[7; 20]).await.unwrap_err();
        assert_eq!((error.kind(), begun.elapsed().as_secs()), (io::ErrorKind::TimedOut, 5));
        // One that reads slowly, but reads, is served as long as it takes.
        let (near, mut far) = duplex(8);
        let mut stream = TimedStream::new(near, state(), &limits());
        let reading = async {
            let mut byte = [0];
            for _ in 0..20 {
                tokio::time::sleep(Duration::from_secs(4)).await;
                far.read_exact(&mut byte).await.unwrap();
            }
        };
        let (written, ()) = tokio::join!(stream.write_all(&[7; 20]), reading);
        written.unwrap();
        assert_eq!(begun.elapsed().as_secs(), 5 + 80);
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_and_an_idle_connection_have_their_own_times() {
        let (near, mut far) = duplex(64);
        let state = state();
        let mut stream = TimedStream::new(near, state.clone(), &limits());
        let begun = Instant::now();
        let mut buffer = [0; 64];
        let error = stream.read(&mut buffer).await.unwrap_err();
        assert_eq!((error.kind(), begun.elapsed().as_secs()), (io::ErrorKind::TimedOut, 10));
        far.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        assert_eq!(stream.read(&mut buffer).await.unwrap(), 16);
        assert!(stream.read(&mut buffer).await.is_err());
        assert_eq!(begun.elapsed().as_secs(), 11, "a head that has begun takes head_time at most");
        // While a request is in flight, silence is fine, and idle time counts from its end.
        let request = state.begin();
        let ended = async {
            tokio::time::sleep(Duration::from_secs(60)).await;
            drop(request);
            state.flushed();
        };
        let (read, ()) = tokio::join!(stream.read(&mut buffer), ended);
        assert!(read.is_err());
        assert_eq!(begun.elapsed().as_secs(), 11 + 60 + 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_under_a_client_that_is_still_sending_lingers() {
        let begun = Instant::now();
        let (near, mut far) = duplex(8);
        let state = state();
        let mut stream = TimedStream::new(near, state.clone(), &limits());
        stream.shutdown().await.unwrap();
        assert_eq!(begun.elapsed().as_secs(), 0, "nothing is unread");
        state.leave_unread();
        // The client sends what it has to send, then reads its response and closes.
        let sending = async move {
            for _ in 0..10 {
                tokio::time::sleep(Duration::from_millis(100)).await;
                far.write_all(&[7; 20]).await.unwrap();
            }
        };
        let (closed, ()) = tokio::join!(stream.shutdown(), sending);
        closed.unwrap();
        assert_eq!(begun.elapsed().as_secs(), 1);
        // One that sends forever is left in the end.
        let (near, mut far) = duplex(8);
        let mut stream = TimedStream::new(near, state, &limits());
        let sending = async move {
            while far.write_all(&[7; 20]).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let closing = async move {
            stream.shutdown().await.unwrap();
            begun.elapsed().as_secs()
        };
        let ((), after) = tokio::join!(sending, closing);
        assert_eq!(after, 1 + LINGER.as_secs());
    }

    #[tokio::test]
    async fn a_large_body_gives_others_their_turns_and_arrives_whole() {
        use std::sync::atomic::AtomicUsize;
        const SIZE: usize = 16 << 20;
        let (near, mut far) = duplex(64 << 20);
        let mut stream = TimedStream::new(near, state(), &limits());
        let turns = AtomicUsize::new(0);
        let others = async {
            loop {
                turns.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        };
        let body: Vec<u8> = (0..SIZE).map(|at| (at >> 10) as u8).collect();
        let writing = async {
            let slices = [io::IoSlice::new(b"head"), io::IoSlice::new(&body)];
            let first = stream.write_vectored(&slices).await.unwrap();
            assert_eq!(first, 4, "a large slice does not go along with a small one");
            stream.write_all(&body).await.unwrap();
            let written = turns.swap(0, Ordering::Relaxed);
            far.write_all(&body).await.unwrap();
            let mut back = vec![0; SIZE];
            for piece in back.chunks_mut(64 << 10) {
                stream.read_exact(piece).await.unwrap();
            }
            assert!(back == body);
            (written, turns.load(Ordering::Relaxed))
        };
        tokio::select! {
            () = others => unreachable!(),
            (written, read) = writing => assert!(written >= SIZE / TURN - 2 && read >= SIZE / TURN - 2, "{written} {read}"),
        }
        let mut got = vec![0; 4 + SIZE];
        far.read_exact(&mut got).await.unwrap();
        assert!(got[..4] == *b"head" && got[4..] == body);
    }
}
