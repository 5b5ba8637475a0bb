//! The pool against raw sockets: age, bound, closed connections, requests that are sent again.

use std::sync::atomic::{AtomicU64, Ordering};

use http::Request;
use http_body_util::BodyExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::config::{Remote, Timeouts};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

async fn pool() -> (Pool, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let remote = Remote { port: listener.local_addr().unwrap().port(), ..Remote::default() };
    let connector = Connector::new(&remote, &Timeouts::default()).unwrap();
    (Pool::new(connector), listener)
}

/// A pool whose clock the test moves by seconds.
fn with_clock(pool: &mut Pool, clock: fn() -> SystemTime) {
    pool.idle = Arc::new(Idle { state: Mutex::default(), clock });
}

fn post(body: &'static str) -> Request<RequestBody> {
    Request::post("/x").body(RequestBody::whole(body.into())).unwrap()
}

fn outgoing(request: Request<RequestBody>) -> Outgoing {
    let (parts, body) = request.into_parts();
    Outgoing::new(&parts.method, parts.uri.path(), &parts.headers, |_| false, b"", body)
}

async fn send(pool: &Pool, request: Request<RequestBody>) -> Result<Bytes, Failure> {
    let response = pool.send(outgoing(request), Duration::ZERO).await?;
    Ok(response.into_body().collect().await.map_err(Failure::Exchange)?.to_bytes())
}

/// Reads a request whose body ends with `end`.
async fn read(stream: &mut TcpStream, end: &str) -> String {
    let mut read = Vec::new();
    while !read.ends_with(end.as_bytes()) {
        assert!(stream.read_buf(&mut read).await.unwrap() > 0, "{}", String::from_utf8_lossy(&read));
    }
    String::from_utf8(read).unwrap()
}

/// Answers one request on a new connection.
async fn answer(listener: &TcpListener, end: &str) -> TcpStream {
    let (mut stream, _) = listener.accept().await.unwrap();
    read(&mut stream, end).await;
    stream.write_all(OK).await.unwrap();
    stream
}

fn idle(pool: &Pool) -> usize {
    pool.idle.state().connections.len()
}

#[tokio::test]
async fn a_connection_is_reused_and_a_dropped_response_closes_it() {
    let (pool, listener) = pool().await;
    let (first, mut stream) = tokio::join!(send(&pool, post("a")), answer(&listener, "a"));
    assert_eq!((first.unwrap(), idle(&pool)), (Bytes::from("ok"), 1));
    let again = async {
        read(&mut stream, "b").await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf").await.unwrap();
    };
    let (second, ()) = tokio::join!(pool.send(outgoing(post("b")), Duration::ZERO), again);
    drop(second.unwrap());
    assert_eq!(idle(&pool), 0);
    assert_eq!(stream.read(&mut [0; 9]).await.unwrap_or(0), 0, "the unread rest must not reach the next request");
}

#[tokio::test]
async fn a_request_that_meets_a_closed_connection_is_sent_once_more_on_a_fresh_one() {
    let (pool, listener) = pool().await;
    let (first, mut stream) = tokio::join!(send(&pool, post("a")), answer(&listener, "a"));
    first.unwrap();
    let serving = async {
        // It reads the request and closes, as a gateway does that has just decided to.
        read(&mut stream, "b").await;
        drop(stream);
        let (mut fresh, _) = listener.accept().await.unwrap();
        let request = read(&mut fresh, "b").await;
        fresh.write_all(OK).await.unwrap();
        (fresh, request)
    };
    let (second, (_fresh, request)) = tokio::join!(send(&pool, post("b")), serving);
    assert_eq!(second.unwrap(), "ok");
    assert!(request.starts_with("POST /x HTTP/1.1\r\n") && request.contains("content-length: 1\r\n"), "{request}");
}

#[tokio::test]
async fn a_fresh_connection_that_fails_is_not_tried_again_nor_is_a_begun_response() {
    let (pool, listener) = pool().await;
    let closing = async { drop(listener.accept().await.unwrap()) };
    let (first, ()) = tokio::join!(send(&pool, post("a")), closing);
    assert!(matches!(first, Err(Failure::Exchange(_))), "{first:?}");
    let (warm, mut stream) = tokio::join!(send(&pool, post("b")), answer(&listener, "b"));
    warm.unwrap();
    let serving = async {
        read(&mut stream, "c").await;
        stream.write_all(b"HTTP/1.1 2").await.unwrap();
        drop(stream);
    };
    let (second, ()) = tokio::join!(send(&pool, post("c")), serving);
    assert!(matches!(second, Err(Failure::Exchange(Error::Closed))), "{second:?}");
}

#[tokio::test]
async fn a_streamed_body_beyond_its_bound_is_sent_once() {
    for (limit, again) in [(4, true), (3, false)] {
        let (pool, listener) = pool().await;
        let (first, mut stream) = tokio::join!(send(&pool, post("a")), answer(&listener, "a"));
        first.unwrap();
        let body = RequestBody::stream(axum::body::Body::from("body"), limit, Vec::new());
        let serving = async {
            read(&mut stream, "body").await;
            drop(stream);
            if again { Some(answer(&listener, "body").await) } else { None }
        };
        let (second, _stream) = tokio::join!(send(&pool, Request::put("/x").body(body).unwrap()), serving);
        assert_eq!(second.is_ok(), again, "{second:?}");
    }
}

#[tokio::test]
async fn a_connection_is_too_old_by_the_clock_on_the_wall() {
    static NOW: AtomicU64 = AtomicU64::new(1_000_000);
    let (mut pool, listener) = pool().await;
    with_clock(&mut pool, || SystemTime::UNIX_EPOCH + Duration::from_secs(NOW.load(Ordering::Relaxed)));
    let (first, _one) = tokio::join!(send(&pool, post("a")), answer(&listener, "a"));
    first.unwrap();
    // The machine sleeps, and with it every `Instant`.
    NOW.fetch_add(MAX_IDLE.as_secs(), Ordering::Relaxed);
    let (second, _two) = tokio::join!(send(&pool, post("b")), answer(&listener, "b"));
    second.unwrap();
    assert_eq!(idle(&pool), 1);
    // A clock that was set back makes everything old.
    NOW.fetch_sub(10, Ordering::Relaxed);
    let (third, _three) = tokio::join!(send(&pool, post("c")), answer(&listener, "c"));
    third.unwrap();
}

#[tokio::test]
async fn no_more_idle_connections_are_kept_than_the_bound() {
    let (pool, listener) = pool().await;
    let mut held = Vec::new();
    let mut streams = Vec::new();
    for _ in 0..MAX_IDLE_CONNECTIONS + 2 {
        let (response, stream) = tokio::join!(pool.send(outgoing(post("a")), Duration::ZERO), answer(&listener, "a"));
        held.push(response.unwrap());
        streams.push(stream);
    }
    for response in held {
        response.into_body().collect().await.unwrap();
    }
    assert_eq!(idle(&pool), MAX_IDLE_CONNECTIONS);
}

#[tokio::test]
async fn the_reaper_closes_what_the_remote_has_closed_and_ends_with_the_pool() {
    let (pool, listener) = pool().await;
    let reaper = tokio::task::LocalSet::new();
    reaper
        .run_until(async {
            let reaping = tokio::task::spawn_local(pool.reaper());
            tokio::task::yield_now().await;
            let (first, stream) = tokio::join!(send(&pool, post("a")), answer(&listener, "a"));
            first.unwrap();
            assert_eq!(idle(&pool), 1);
            drop(stream);
            // Without a further request.
            while idle(&pool) > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            drop(pool);
            tokio::time::timeout(Duration::from_secs(5), reaping).await.expect("the reaper ends").unwrap();
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn the_reaper_closes_what_is_too_old_without_a_further_request() {
    static NOW: AtomicU64 = AtomicU64::new(1_000_000);
    let (mut pool, listener) = pool().await;
    with_clock(&mut pool, || SystemTime::UNIX_EPOCH + Duration::from_secs(NOW.load(Ordering::Relaxed)));
    let reaper = tokio::task::LocalSet::new();
    reaper
        .run_until(async {
            let _reaping = tokio::task::spawn_local(pool.reaper());
            tokio::task::yield_now().await;
            let (first, mut stream) = tokio::join!(send(&pool, post("a")), answer(&listener, "a"));
            first.unwrap();
            tokio::task::yield_now().await;
            NOW.fetch_add(MAX_IDLE.as_secs(), Ordering::Relaxed);
            tokio::time::sleep(MAX_IDLE + Duration::from_secs(1)).await;
            assert_eq!(idle(&pool), 0);
            assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
        })
        .await;
}

#[tokio::test]
async fn the_first_byte_is_waited_for_from_when_the_request_has_been_sent() {
    let (pool, listener) = pool().await;
    let (sender, receiver) = tokio::sync::mpsc::channel::<Result<Bytes, std::io::Error>>(1);
    let pieces = futures_util::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|piece| (piece, receiver))
    });
    let body = RequestBody::stream(axum::body::Body::from_stream(pieces), 0, Vec::new());
    let uploading = async {
        for piece in ["one", "two", "three"] {
            tokio::time::sleep(Duration::from_millis(100)).await;
            sender.send(Ok(piece.into())).await.unwrap();
        }
        drop(sender);
    };
    let serving = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        read(&mut stream, "0\r\n\r\n").await;
        (tokio::time::Instant::now(), stream)
    };
    let begun = tokio::time::Instant::now();
    let sending = pool.send(outgoing(Request::post("/x").body(body).unwrap()), Duration::from_millis(200));
    let (sent, (), (received, _stream)) = tokio::join!(sending, uploading, serving);
    assert!(matches!(sent, Err(Failure::FirstByte)));
    assert!(received - begun >= Duration::from_millis(300) && received.elapsed() >= Duration::from_millis(150));
}

#[test]
fn a_version_is_believed_for_a_minute() {
    let known = Known::default();
    assert!(known.version().is_none());
    known.learn(Version::read("0.12.0"));
    let now = wall_clock();
    assert!(known.version_at(now + MAX_VERSION_AGE / 2).is_some());
    assert!(known.version_at(now + MAX_VERSION_AGE).is_none());
    assert!(known.version_at(now).is_none(), "what was forgotten is asked for again");
}

/// How long written bytes of the idle connection may stay unacknowledged.
#[cfg(target_os = "linux")]
fn patience(pool: &Pool) -> Option<Duration> {
    let state = pool.idle.state();
    socket2::SockRef::from(state.connections[0].0.connection.io().tcp().unwrap()).tcp_user_timeout().unwrap()
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn an_upload_may_stay_unread_for_longer_than_a_small_request() {
    let (pool, listener) = pool().await;
    let large: &'static str = Box::leak("x".repeat(100 << 10).into_boxed_str());
    let mut stream = None;
    for (body, expected) in [("a", UNACKNOWLEDGED), (large, UNACKNOWLEDGED_UPLOAD), ("a", UNACKNOWLEDGED)] {
        let serving = async {
            let mut stream = match stream.take() {
                None => listener.accept().await.unwrap().0,
                Some(stream) => stream,
            };
            read(&mut stream, body).await;
            stream.write_all(OK).await.unwrap();
            stream
        };
        let (sent, served) = tokio::join!(send(&pool, post(body)), serving);
        sent.unwrap();
        stream = Some(served);
        assert_eq!(patience(&pool), Some(expected));
    }
}

#[tokio::test]
async fn a_laptop_that_slept_serves_its_first_request() {
    static NOW: AtomicU64 = AtomicU64::new(1_000_000);
    for (slept, closed) in [(MAX_IDLE.as_secs() / 2, true), (MAX_IDLE.as_secs() * 2, false)] {
        let (mut pool, listener) = pool().await;
        with_clock(&mut pool, || SystemTime::UNIX_EPOCH + Duration::from_secs(NOW.load(Ordering::Relaxed)));
        let (first, stream) = tokio::join!(send(&pool, post("a")), answer(&listener, "a"));
        first.unwrap();
        // The remote has reset the connection meanwhile, or it is just forgotten on the way and stays silent.
        let silent = if closed {
            socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
            drop(stream);
            None
        } else {
            Some(stream)
        };
        NOW.fetch_add(slept, Ordering::Relaxed);
        let (second, _fresh) = tokio::join!(send(&pool, post("b")), answer(&listener, "b"));
        assert_eq!(second.unwrap(), "ok");
        drop(silent);
    }
}
