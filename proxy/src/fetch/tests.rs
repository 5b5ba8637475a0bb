//! Fetching from raw sockets, where one address of this machine stands for the open Internet.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;

/// A fetcher for which one address of this machine is public, and no other.
fn fetcher() -> Fetcher {
    let images = Images { fetch: true, max_bytes: 1000, ..Images::default() };
    Fetcher { images, allowed: |address| address == IpAddr::from([127, 0, 0, 1]), tls: OnceLock::new() }
}

/// The head of a request.
async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// Fetches `path` from a server that answers with each of `answers` in turn (`PORT` is its port); what it was asked.
async fn fetched(path: &str, answers: &[&[u8]]) -> (Result<(&'static str, Bytes), Refused>, Vec<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut asked = Vec::new();
    let serving = async {
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            asked.push(head(&mut stream).await);
            let answer = answer.split(|byte| *byte == b'@').collect::<Vec<_>>().join(port.to_string().as_bytes());
            // A rejected client hangs up.
            let _ = stream.write_all(&answer).await;
        }
        std::future::pending::<()>().await;
    };
    let (fetcher, url) = (fetcher(), format!("http://127.0.0.1:{port}{path}"));
    let budget = fetcher.budget();
    let fetched = tokio::select! {
        fetched = fetcher.image(&url, &budget) => fetched,
        () = serving => unreachable!("it never ends"),
    };
    (fetched, asked)
}

const GIF: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 14\r\n\r\nGIF89a12345678";

fn to(location: &str) -> Vec<u8> {
    format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n").into_bytes()
}

#[tokio::test]
async fn an_image_is_recognized_by_its_bytes_and_nothing_is_sent_but_a_plain_question() {
    let (image, asked) = fetched("/a/b.gif?size=1", &[GIF]).await;
    assert_eq!(image.unwrap(), ("image/gif", Bytes::from_static(b"GIF89a12345678")));
    let (first, rest) = asked[0].split_once("\r\n").unwrap();
    assert_eq!(first, "GET /a/b.gif?size=1 HTTP/1.1");
    let names: Vec<_> = rest.lines().filter_map(|line| Some(line.split_once(':')?.0.to_ascii_lowercase())).collect();
    assert_eq!(names, ["host", "user-agent", "accept"]);
}

#[tokio::test]
async fn an_image_that_ends_with_the_connection_is_whole() {
    let (image, _) =
        fetched("/", &[b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nGIF89a\r\n1\r\nx\r\n0\r\n\r\n"])
            .await;
    assert_eq!(image.unwrap().1, "GIF89ax");
}

#[tokio::test]
async fn a_few_redirects_are_followed() {
    for location in ["/there", "there", "http://127.0.0.1:@/there", "//127.0.0.1:@/there"] {
        let (image, asked) = fetched("/here", &[&to(location), GIF]).await;
        assert!(image.is_ok() && asked[1].starts_with("GET /there "), "{location}: {image:?}");
    }
    let again = to("/again");
    let (image, asked) = fetched("/", &[&again, &again, &again, &again, GIF]).await;
    assert_eq!((image, asked.len()), (Err(Refused::Redirects), 4));
}

// Others have but one loopback address.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_redirect_to_where_callers_must_not_look_is_refused_without_a_connection() {
    // It listens, so a connection would be seen.
    let inside = std::net::TcpListener::bind("127.0.0.2:0").unwrap();
    inside.set_nonblocking(true).unwrap();
    let port = inside.local_addr().unwrap().port();
    for location in [
        format!("http://127.0.0.2:{port}/"),
        format!("http://[::ffff:127.0.0.2]:{port}/"),
        format!("http://[::1]:{port}/"),
        "http://169.254.169.254/latest/meta-data/".to_owned(),
        "http://10.0.0.1/".to_owned(),
        "https://192.168.1.1/".to_owned(),
    ] {
        let (image, _) = fetched("/", &[&to(&location)]).await;
        assert_eq!(image, Err(Refused::NoPublicAddress), "{location}");
    }
    for location in ["file:///etc/passwd", "gopher://127.0.0.1:@/", "http://user:secret@127.0.0.1:@/"] {
        let (image, _) = fetched("/", &[&to(location)]).await;
        assert!(matches!(image, Err(Refused::Url(_))), "{location}: {image:?}");
    }
    assert!(inside.accept().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock));
}

#[tokio::test]
async fn a_name_that_does_not_exist_is_refused_like_one_that_is_private() {
    let fetcher = fetcher();
    for url in ["http://no-such-host.invalid/", "http://10.0.0.1/", "http://localhost.invalid:1/"] {
        assert_eq!(fetcher.image(url, &fetcher.budget()).await, Err(Refused::NoPublicAddress), "{url}");
    }
}

#[tokio::test]
async fn a_flood_of_interim_responses_is_cut_off() {
    let flood = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(100_000);
    let (image, _) = fetched("/", &[&flood]).await;
    assert_eq!(image, Err(Refused::Broken));
}

#[tokio::test]
async fn what_is_too_large_or_no_image_is_not_read_to_its_end() {
    let reported = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\nGIF89a".to_vec();
    let (large, _) = fetched("/", &[&[reported, vec![0; 2000]].concat()]).await;
    assert_eq!(large, Err(Refused::TooLarge(1000)));
    let (page, _) =
        fetched("/", &[b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: 99999\r\n\r\n<!doctype html>"])
            .await;
    assert_eq!(page, Err(Refused::NoImage));
    let (empty, _) = fetched("/", &[b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"]).await;
    assert_eq!(empty, Err(Refused::NoImage));
    let (absent, _) = fetched("/", &[b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"]).await;
    assert_eq!(absent, Err(Refused::Status(StatusCode::NOT_FOUND)));
}

#[tokio::test]
async fn all_images_of_a_request_share_one_bound() {
    let fetcher = fetcher();
    let budget = fetcher.budget();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let answer = [&b"HTTP/1.1 200 OK\r\nContent-Length: 600\r\n\r\nGIF89a"[..], &[0; 594]].concat();
    let serving = async {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            head(&mut stream).await;
            let _ = stream.write_all(&answer).await;
        }
    };
    let fetching = async { (fetcher.image(&url, &budget).await, fetcher.image(&url, &budget).await) };
    let (first, second) = tokio::select! {
        both = fetching => both,
        () = serving => unreachable!("it never ends"),
    };
    assert!(first.is_ok(), "{first:?}");
    assert_eq!(second, Err(Refused::TooLarge(1000)));
}

#[tokio::test]
async fn an_image_behind_tls_comes_only_from_whom_somebody_vouches_for() {
    let own = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server =
        rustls::ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
    let server = server.with_no_client_auth().with_single_cert(vec![own.cert.der().clone()], key).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/", listener.local_addr().unwrap());
    let serving = async {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            if let Ok(mut stream) = acceptor.accept(stream).await {
                stream.write_all(GIF).await.unwrap();
                stream.shutdown().await.unwrap();
            }
        }
    };
    let mut roots = rustls::RootCertStore::empty();
    roots.add(own.cert.der().clone()).unwrap();
    let trusting = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let trusting = trusting.with_root_certificates(roots).with_no_client_auth();
    let (stranger, friend) = (fetcher(), fetcher());
    friend.tls.set(Arc::new(trusting)).unwrap();
    let fetching =
        async { (stranger.image(&url, &stranger.budget()).await, friend.image(&url, &friend.budget()).await) };
    let (strange, known) = tokio::select! {
        both = fetching => both,
        () = serving => unreachable!("it never ends"),
    };
    assert_eq!(strange, Err(Refused::Connect(Cause::UnknownCa)));
    assert_eq!(known.unwrap().0, "image/gif");
}
