//! How a remote is reached: through proxies, with a client's certificate, after its machine was woken.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::support::{
    self, CHAT_STREAM, Client, STREAM_END, STREAM_HEAD, Upstream, ask, config, last, post, raw_response, word,
};
use farllama::{
    Config, Running,
    config::{Protocol, Reach, Remote},
    serve,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

const GET: &str = "GET /api/tags HTTP/1.1\r\nHost: localhost\r\n\r\n";

async fn upstream() -> Upstream {
    Upstream::answering(raw_response("200 OK", "Content-Type: application/json\r\n", "{\"models\":[]}")).await
}

/// Settings for `upstream` under a name, with these lines under `[remote]`.
fn settings(upstream: SocketAddr, lines: &str) -> Config {
    let text = format!("[local]\nport = 0\n[remote]\nhost = \"gpu-box.test\"\nport = {}\n{lines}\n", upstream.port());
    Config::from_toml(&text).unwrap()
}

/// What a proxy was asked, one line each.
pub(crate) type Asked = Arc<Mutex<Vec<String>>>;

pub(crate) fn asked(asked: &Asked) -> Vec<String> {
    asked.lock().unwrap().clone()
}

/// A proxy that answers CONNECT with `status`, and then connects to `upstream`, whatever it was asked.
pub(crate) async fn connect_proxy(upstream: SocketAddr, status: &'static str) -> (SocketAddr, Asked) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (addr, seen) = (listener.local_addr().unwrap(), Asked::default());
    let notes = seen.clone();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let notes = notes.clone();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(client.read_u8().await.unwrap());
                }
                notes.lock().unwrap().push(String::from_utf8(head).unwrap());
                client.write_all(format!("HTTP/1.1 {status}\r\n\r\n").as_bytes()).await.unwrap();
                if status.starts_with('2') {
                    let mut server = TcpStream::connect(upstream).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                }
            });
        }
    });
    (addr, seen)
}

/// A SOCKS5 proxy that asks for `user:pass` if `pair` is one, and answers with the code `reply`.
async fn socks_proxy(upstream: SocketAddr, pair: Option<&'static str>, reply: u8) -> (SocketAddr, Asked) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (addr, seen) = (listener.local_addr().unwrap(), Asked::default());
    let notes = seen.clone();
    let text = async |stream: &mut TcpStream| {
        let size = stream.read_u8().await.unwrap();
        let mut text = vec![0; size.into()];
        stream.read_exact(&mut text).await.unwrap();
        text
    };
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            assert_eq!(client.read_u8().await.unwrap(), 5);
            let methods = text(&mut client).await;
            let method = if pair.is_some() { 2 } else { 0 };
            if !methods.contains(&method) {
                client.write_all(&[5, 0xff]).await.unwrap();
                continue;
            }
            client.write_all(&[5, method]).await.unwrap();
            if let Some(pair) = pair {
                assert_eq!(client.read_u8().await.unwrap(), 1);
                let (user, password) = (text(&mut client).await, text(&mut client).await);
                let right = [user, password].join(&b':') == pair.as_bytes();
                client.write_all(&[1, u8::from(!right)]).await.unwrap();
                if !right {
                    continue;
                }
            }
            let mut request = [0; 4];
            client.read_exact(&mut request).await.unwrap();
            assert_eq!(request, [5, 1, 0, 3], "the proxy resolves the name");
            let host = String::from_utf8(text(&mut client).await).unwrap();
            let port = client.read_u16().await.unwrap();
            notes.lock().unwrap().push(format!("{host}:{port}"));
            client.write_all(&[5, reply, 0, 1, 0, 0, 0, 0, 0, 0]).await.unwrap();
            if reply == 0 {
                let mut server = TcpStream::connect(upstream).await.unwrap();
                tokio::spawn(async move {
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                });
            }
        }
    });
    (addr, seen)
}

/// Status and text of what a client gets.
async fn get(proxy: &Running) -> (u16, String) {
    let response = ask(proxy.addr(), GET).await;
    (response.code(), String::from_utf8_lossy(&response.body).into_owned())
}

#[tokio::test]
async fn requests_go_through_a_proxy_with_connect_and_its_password() {
    let upstream = upstream().await;
    let (proxy, seen) = connect_proxy(upstream.addr, "200 Connection established").await;
    let farllama = serve(settings(upstream.addr, &format!("proxy = \"http://me:p%40ss@{proxy}\""))).await.unwrap();
    assert_eq!(get(&farllama).await.0, 200);
    assert_eq!(get(&farllama).await.0, 200);
    let seen = asked(&seen);
    let target = format!("gpu-box.test:{}", upstream.addr.port());
    assert_eq!(seen.len(), 1, "the tunnel is kept for the second request: {seen:?}");
    let head = seen[0].to_lowercase();
    assert!(head.starts_with(&format!("connect {target} http/1.1\r\n")), "{head}");
    assert!(head.contains(&format!("host: {target}\r\n")), "{head}");
    assert!(seen[0].contains("Basic bWU6cEBzcw=="), "{seen:?}");
    // The remote sees neither the proxy nor its password.
    let request = upstream.seen()[0].text();
    assert!(request.starts_with("GET /api/tags HTTP/1.1\r\n") && !request.contains("bWU6"), "{request}");
}

#[tokio::test]
async fn requests_go_through_a_socks_proxy_which_resolves_the_name() {
    let upstream = upstream().await;
    for (pair, user) in [(None, ""), (Some("me:p@ss"), "me:p%40ss@")] {
        let (proxy, seen) = socks_proxy(upstream.addr, pair, 0).await;
        let farllama = serve(settings(upstream.addr, &format!("proxy = \"socks5://{user}{proxy}\""))).await.unwrap();
        assert_eq!(get(&farllama).await.0, 200);
        assert_eq!(asked(&seen), [format!("gpu-box.test:{}", upstream.addr.port())]);
    }
}

#[tokio::test]
async fn what_a_proxy_answers_is_reported_with_what_to_change_and_without_its_password() {
    let upstream = upstream().await;
    let addr = upstream.addr;
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let http = async |status| format!("http://me:hunter2@{}", connect_proxy(addr, status).await.0);
    let socks = async |pair, reply| format!("socks5://me:hunter2@{}", socks_proxy(addr, pair, reply).await.0);
    for (proxy, expected) in [
        (http("407 Proxy Authentication Required").await, ["407 Proxy Authentication Required", "user:pass@proxy"]),
        (http("403 Forbidden").await, ["403 Forbidden", "allow CONNECT"]),
        (http("502 Bad Gateway").await, ["502 Bad Gateway", "--remote-host"]),
        (format!("http://me:hunter2@{addr}"), ["does not connect to it", "remote.proxy"]),
        (format!("http://me:hunter2@{closed}"), ["cannot be reached: connection refused", "remote.proxy"]),
        (socks(Some("me:other"), 0).await, ["auth", "user:pass@proxy"]),
        (socks(Some("me:hunter2"), 2).await, ["not allowed by ruleset", "NO_PROXY"]),
        (socks(Some("me:hunter2"), 4).await, ["Host unreachable", "--remote-host"]),
    ] {
        let farllama = serve(settings(addr, &format!("proxy = \"{proxy}\""))).await.unwrap();
        let (code, text) = get(&farllama).await;
        assert_eq!(code, 502, "{text}");
        for part in expected {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(text.contains("gpu-box.test") && !text.contains("hunter2"), "{text}");
    }
}

/// Certificates of one authority, as files.
pub(crate) struct Authority {
    folder: tempfile::TempDir,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        // Authorities differ by name, as those of different companies do.
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let cert = params.self_signed(&key).unwrap();
        fs::write(folder.path().join("ca.pem"), cert.pem()).unwrap();
        Self { folder, issuer: rcgen::Issuer::new(params, key) }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes `NAME.pem` and `NAME.key`, for localhost.
    pub(crate) fn issue(&self, name: &str) -> (PathBuf, PathBuf) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        let (cert_path, key_path) = (self.path(&format!("{name}.pem")), self.path(&format!("{name}.key")));
        fs::write(&cert_path, cert.pem()).unwrap();
        fs::write(&key_path, key.serialize_pem()).unwrap();
        (cert_path, key_path)
    }
}

/// A TLS listener that requires a certificate of `authority` from clients, in front of `upstream`.
pub(crate) async fn mutual(
    authority: &Authority,
    upstream: SocketAddr,
    version: &'static rustls::SupportedProtocolVersion,
) -> SocketAddr {
    let (cert, key) = authority.issue("server");
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority.path("ca.pem")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier =
        rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build();
    let server = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_client_cert_verifier(verifier.unwrap())
        .with_single_cert(
            vec![CertificateDer::from_pem_file(cert).unwrap()],
            PrivateKeyDer::from_pem_file(key).unwrap(),
        )
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut client) = acceptor.accept(stream).await else { return };
                let mut server = TcpStream::connect(upstream).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    addr
}

#[tokio::test]
async fn a_remote_that_requires_a_certificate_gets_it_and_says_so_if_there_is_none() {
    let upstream = upstream().await;
    let (authority, other) = (Authority::new("ours"), Authority::new("theirs"));
    let (cert, key) = authority.issue("client");
    let (stranger, stranger_key) = other.issue("stranger");
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let addr = mutual(&authority, upstream.addr, version).await;
        let remote = |identity: Option<(&Path, &Path)>| Remote {
            protocol: Protocol::Https,
            host: "localhost".to_owned(),
            port: addr.port(),
            ca_file: Some(authority.path("ca.pem")),
            reach: Reach {
                client_cert: identity.map(|(cert, _)| cert.to_owned()),
                client_key: identity.map(|(_, key)| key.to_owned()),
                ..Reach::default()
            },
            ..Remote::default()
        };
        let served = async |identity| {
            let farllama = serve(Config { remote: remote(identity), ..config(upstream.addr) }).await.unwrap();
            get(&farllama).await
        };
        let (code, text) = served(Some((&*cert, &*key))).await;
        assert_eq!(code, 200, "{text}");
        for identity in [None, Some((&*stranger, &*stranger_key))] {
            let (code, text) = served(identity).await;
            assert_eq!(code, 502, "{text}");
            assert!(text.contains("rejects this client's certificate"), "{text}");
            assert!(text.contains("remote.client_cert"), "{text}");
        }
    }
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_is_reported_with_its_file() {
    let authority = Authority::new("ours");
    let (cert, key) = authority.issue("client");
    let (_, other) = authority.issue("other");
    let broken = authority.path("broken.pem");
    fs::write(&broken, "hunter2").unwrap();
    let lines =
        |cert: &Path, key: &Path| format!("protocol = \"https\"\nclient_cert = {cert:?}\nclient_key = {key:?}\n");
    let upstream = SocketAddr::from(([127, 0, 0, 1], 9));
    for (cert, key, expected) in [
        (&*cert, &*other, ["remote.client_key", "other.key", "does not belong to the certificate"]),
        (&*broken, &*key, ["remote.client_cert", "broken.pem", "no certificate"]),
        (&*cert, &*broken, ["remote.client_key", "broken.pem", ""]),
        (&*authority.path("gone.pem"), &*key, ["remote.client_cert", "gone.pem", "No such file"]),
    ] {
        let error = farllama::check(&settings(upstream, &lines(cert, key))).unwrap_err().to_string();
        for part in expected {
            assert!(error.contains(part) && !error.contains("hunter2"), "{part}: {error}");
        }
    }
    let alone = format!("[remote]\nprotocol = \"https\"\nclient_cert = {cert:?}\n");
    assert!(Config::from_toml(&alone).unwrap_err().to_string().contains("belong together"));
}

#[cfg(target_os = "linux")]
/// A machine that is asleep: its backlog is full, so that packets are dropped. Dropping the connections wakes it.
pub(crate) async fn asleep() -> (std::net::TcpListener, Vec<TcpStream>) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket.listen(0).unwrap();
    socket.set_nonblocking(true).unwrap();
    let addr = socket.local_addr().unwrap().as_socket().unwrap();
    let mut filled = Vec::new();
    for _ in 0..3 {
        let connecting = tokio::time::timeout(Duration::from_millis(100), TcpStream::connect(addr)).await;
        filled.extend(connecting.into_iter().flatten());
    }
    (socket.into(), filled)
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_stream_is_held_by_heartbeats_while_the_machine_wakes() {
    let stream = [STREAM_HEAD.as_bytes().to_vec(), word("awake"), last(), STREAM_END.as_bytes().to_vec()].concat();
    let upstream = Upstream::answering(stream).await;
    let (listener, filled) = asleep().await;
    let card = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let text = format!(
        "[local]\nport = 0\n[remote]\nhost = \"127.0.0.1\"\nport = {}\nwake = \"aa:bb:cc:dd:ee:ff@{}\"\n\
         [timeouts]\nconnect = \"200ms\"\n[heartbeat]\nafter = \"50ms\"\nevery = \"50ms\"\n",
        listener.local_addr().unwrap().port(),
        card.local_addr().unwrap()
    );
    let farllama = serve(Config::from_toml(&text).unwrap()).await.unwrap();
    let mut client = Client::sending(farllama.addr(), post("/v1/chat/completions", CHAT_STREAM)).await;
    let held = client.until("\r\n2\r\n\n\n").await;
    assert!(held.starts_with("HTTP/1.1 200 OK\r\n") && !held.contains("awake"), "{held}");
    let mut packet = [0; 200];
    let size = tokio::time::timeout(support::PATIENCE, card.recv(&mut packet)).await.unwrap().unwrap();
    assert_eq!((size, &packet[..12]), (102, &b"\xff\xff\xff\xff\xff\xff\xaa\xbb\xcc\xdd\xee\xff"[..]));
    drop(filled);
    let listener = TcpListener::from_std(listener).unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut server = TcpStream::connect(upstream.addr).await.unwrap();
            tokio::spawn(async move {
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    let rest = client.until("[DONE]").await;
    assert!(rest.contains("awake"), "{rest}");
}
