//! TLS on the listener, from PEM files that may be replaced while it runs; and a remote with an untrusted certificate.

use std::{fs, net::SocketAddr, path::Path, sync::Arc};

use crate::support::{Upstream, ask, config, raw_response};
use farllama::{
    Config,
    config::{Local, Protocol, Remote},
    serve,
};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

const GET: &str = "GET /api/tags HTTP/1.1\r\nHost: localhost\r\n\r\n";

async fn upstream() -> Upstream {
    Upstream::answering(raw_response("200 OK", "Content-Type: application/json\r\n", "{\"models\":[]}")).await
}

/// Writes `cert.pem` and `key.pem`, signed by themselves.
fn certify(folder: &Path) -> CertificateDer<'static> {
    let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(folder.join("cert.pem"), signed.cert.pem()).unwrap();
    fs::write(folder.join("key.pem"), signed.signing_key.serialize_pem()).unwrap();
    CertificateDer::from_pem_slice(signed.cert.pem().as_bytes()).unwrap()
}

/// A connection of a client that trusts `cert` alone.
async fn connect(addr: SocketAddr, cert: &CertificateDer<'static>) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(cert.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(addr).await.unwrap();
    TlsConnector::from(Arc::new(client)).connect(ServerName::try_from("localhost").unwrap(), stream).await
}

/// The status line of an answer whose body is one JSON object.
async fn get(stream: &mut TlsStream<TcpStream>) -> String {
    stream.write_all(GET.as_bytes()).await.unwrap();
    let mut got = Vec::new();
    while !got.ends_with(b"}") {
        assert!(stream.read_buf(&mut got).await.unwrap() > 0, "{}", String::from_utf8_lossy(&got));
    }
    String::from_utf8(got).unwrap().lines().next().unwrap().to_owned()
}

#[tokio::test]
async fn the_listener_speaks_tls_from_pem_files_and_an_unverified_remote_is_spoken_to() {
    let upstream = upstream().await;
    let folder = tempfile::tempdir().unwrap();
    let cert = certify(folder.path());
    let plain = config(upstream.addr);
    let file = |name| Some(folder.path().join(name));
    let local = Local { tls_cert: file("cert.pem"), tls_key: file("key.pem"), ..plain.local.clone() };
    let proxy = serve(Config { local, ..plain }).await.unwrap();
    assert_eq!(get(&mut connect(proxy.addr(), &cert).await.unwrap()).await, "HTTP/1.1 200 OK");
    // Another proxy in front of this one: its certificate is not signed by an authority that the system trusts.
    let remote = Remote {
        protocol: Protocol::Https,
        port: proxy.addr().port(),
        host: "localhost".to_owned(),
        ..Remote::default()
    };
    let wary = serve(Config { remote: remote.clone(), ..config(upstream.addr) }).await.unwrap();
    assert_eq!(ask(wary.addr(), GET).await.code(), 502);
    let knowing = Remote { ca_file: file("cert.pem"), ..remote.clone() };
    assert_eq!(
        ask(serve(Config { remote: knowing, ..config(upstream.addr) }).await.unwrap().addr(), GET).await.code(),
        200
    );
    let trusting = Config { remote: Remote { verify: false, ..remote }, ..config(upstream.addr) };
    assert_eq!(ask(serve(trusting).await.unwrap().addr(), GET).await.code(), 200);
}

#[cfg(unix)]
#[tokio::test]
async fn a_new_certificate_is_taken_on_sighup_a_broken_one_is_not_and_connections_stay() {
    use crate::program::Program;
    let upstream = upstream().await;
    let folder = tempfile::tempdir().unwrap();
    let old = certify(folder.path());
    let path = |name: &str| folder.path().join(name).display().to_string();
    let program = Program::start(
        &[
            "--local-tls-cert",
            &path("cert.pem"),
            "--local-tls-key",
            &path("key.pem"),
            "--remote-host",
            &upstream.addr.to_string(),
        ],
        &[],
    );
    let hang_up = || {
        assert!(
            std::process::Command::new("kill").args(["-HUP", &program.id().to_string()]).status().unwrap().success()
        );
    };
    let mut kept = connect(program.addr, &old).await.unwrap();
    assert_eq!(get(&mut kept).await, "HTTP/1.1 200 OK");
    let new = certify(folder.path());
    hang_up();
    program.until("configuration reloaded").await;
    assert_eq!(get(&mut connect(program.addr, &new).await.unwrap()).await, "HTTP/1.1 200 OK");
    assert!(connect(program.addr, &old).await.is_err(), "the old certificate is still shown");
    assert_eq!(get(&mut kept).await, "HTTP/1.1 200 OK");
    fs::write(folder.path().join("key.pem"), "no key").unwrap();
    hang_up();
    program.until("keeping the previous configuration").await;
    assert_eq!(get(&mut connect(program.addr, &new).await.unwrap()).await, "HTTP/1.1 200 OK");
}
