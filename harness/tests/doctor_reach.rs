//! The doctor reaches a remote as farllama's own settings say: TLS with an authority of one's own, client certificates,
//! keys, headers, SSH and proxies; and its `--timeout` bounds every wait.

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use farllama_check::doctor::fact::State;
use mock_ollama::{Mock, Script};
use predicates::{prelude::PredicateBooleanExt, str::contains};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};

/// A key that must not stand anywhere.
const CANARY: &str = "blue-canary-4711-secret";

/// An authority and certificates that it signed, for localhost, as files.
struct Authority {
    folder: tempfile::TempDir,
}

impl Authority {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, "an authority of our own");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        fs::write(folder.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        let issuer = rcgen::Issuer::new(params, key);
        for name in ["server", "client"] {
            let key = rcgen::KeyPair::generate().unwrap();
            let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
            fs::write(folder.path().join(format!("{name}.pem")), params.signed_by(&key, &issuer).unwrap().pem())
                .unwrap();
            fs::write(folder.path().join(format!("{name}.key")), key.serialize_pem()).unwrap();
        }
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A TLS gateway in front of `upstream`, which wants a certificate of its clients if `mutual`.
    async fn gateway(&self, upstream: SocketAddr, mutual: bool) -> SocketAddr {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = if mutual {
            let mut roots = rustls::RootCertStore::empty();
            roots.add(CertificateDer::from_pem_file(self.path("ca.pem")).unwrap()).unwrap();
            let verifier =
                rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.unwrap())
        } else {
            builder.with_no_client_auth()
        };
        let chain = vec![CertificateDer::from_pem_file(self.path("server.pem")).unwrap()];
        let key = PrivateKeyDer::from_pem_file(self.path("server.key")).unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(builder.with_single_cert(chain, key).unwrap()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let Ok(mut client) = acceptor.accept(stream).await else { return };
                    let Ok(mut server) = TcpStream::connect(upstream).await else { return };
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        addr
    }
}

fn check(args: &[&str]) -> assert_cmd::Command {
    let mut command = assert_cmd::Command::new(env!("CARGO_BIN_EXE_farllama-check"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("FARLLAMA_")) {
        command.env_remove(name);
    }
    command.args(args).timeout(Duration::from_secs(120));
    command
}

/// What the doctor prints as JSON, and its exit code.
async fn doctor(args: Vec<String>) -> (Value, i32) {
    tokio::task::spawn_blocking(move || {
        let mut all = vec!["doctor", "--for", "ollama-cli", "--tries", "1", "--json", "--model", "gpt-oss:20b"];
        all.extend(args.iter().map(String::as_str));
        let output = check(&all).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(!text.contains(CANARY), "a key is printed");
        let json = serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("{error}: {text}\n{}", String::from_utf8_lossy(&output.stderr)));
        (json, output.status.code().unwrap())
    })
    .await
    .unwrap()
}

fn fact<'a>(json: &'a Value, id: &str) -> &'a Value {
    let facts = json["facts"].as_array().unwrap();
    facts.iter().find(|fact| fact["id"] == id).unwrap_or(&Value::Null)
}

fn state(state: State) -> Value {
    serde_json::to_value(state).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_authority_of_ones_own_is_named_by_a_flag_or_by_the_settings() {
    let mock = Mock::start(Script::default()).await.unwrap();
    let authority = Authority::new();
    let gateway = authority.gateway(mock.addr(), false).await;
    let url = format!("https://localhost:{}", gateway.port());

    let (json, code) = doctor(vec!["--remote-host".to_owned(), url.clone()]).await;
    assert_eq!((code, &fact(&json, "way.tls")["state"]), (1, &state(State::Bad)));
    assert!(fact(&json, "way.tls")["cure"].as_str().unwrap().contains("--remote-ca-file"), "{json}");

    for flag in ["--remote-ca-file", "--ca-file"] {
        let ca = authority.path("ca.pem").display().to_string();
        let (json, code) = doctor(vec!["--remote-host".to_owned(), url.clone(), flag.to_owned(), ca]).await;
        assert_eq!(code, 0, "{json}");
        let tls = fact(&json, "way.tls")["text"].as_str().unwrap();
        assert!(tls.contains("issued by CN=an authority of our own"), "{tls}");
    }

    // The whole of a settings file, with what it says of /v1.
    let settings = format!(
        "[remote]\nurl = {url:?}\nca_file = {:?}\napi_key = \"{CANARY}\"\n[remote.headers]\nx-team-key = \"{CANARY}-2\"\n\
         [context]\nmax = 32768\n[openai]\nbase_path = \"/openai\"\n[local]\nport = 1\n",
        authority.path("ca.pem")
    );
    let path = authority.path("config.toml");
    fs::write(&path, settings).unwrap();
    let zip = authority.path("bundle.zip");
    let mut args = vec!["--config".to_owned(), path.display().to_string()];
    args.extend(["--bundle".to_owned(), zip.display().to_string()]);
    let (json, code) = doctor(args).await;
    assert_eq!(code, 0, "{json}");
    let context =
        json["models"][0]["facts"].as_array().unwrap().iter().find(|fact| fact["id"] == "context.v1").unwrap();
    assert_eq!(context["value"], 32768, "{context}");
    let last = mock.journal().entries().pop().unwrap();
    assert_eq!(last.header("authorization"), Some(&*format!("Bearer {CANARY}")));
    assert_eq!(last.header("x-team-key"), Some(&*format!("{CANARY}-2")));
    let mut archive = zip::ZipArchive::new(fs::File::open(zip).unwrap()).unwrap();
    let names: Vec<_> = archive.file_names().map(str::to_owned).collect();
    assert!(names.iter().any(|name| name == "farllama-settings.toml"), "{names:?}");
    for name in names {
        let text = std::io::read_to_string(archive.by_name(&name).unwrap()).unwrap();
        assert!(!text.contains(CANARY), "{name} has the key");
        assert!(name != "farllama-settings.toml" || text.contains("max = 32768"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_shown_to_a_server_that_wants_one() {
    let mock = Mock::start(Script::default()).await.unwrap();
    let authority = Authority::new();
    let gateway = authority.gateway(mock.addr(), true).await;
    let path = |name: &str| authority.path(name).display().to_string();
    let url = format!("https://localhost:{}", gateway.port());
    let known = vec!["--remote-host".to_owned(), url, "--remote-ca-file".to_owned(), path("ca.pem")];

    let (json, code) = doctor(known.clone()).await;
    assert_eq!(code, 1);
    assert!(fact(&json, "way.tls")["cure"].as_str().unwrap().contains("--remote-client-cert"), "{json}");

    let own =
        ["--remote-client-cert".to_owned(), path("client.pem"), "--remote-client-key".to_owned(), path("client.key")];
    let (json, code) = doctor(known.into_iter().chain(own).collect()).await;
    assert_eq!(code, 0, "{json}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_behind_tls_without_farllama_is_examined_too() {
    let mock = Mock::start(Script::default()).await.unwrap();
    let mut config = farllama::Config::default();
    config.local.port = 0;
    (config.remote.host, config.remote.port) = (mock.addr().ip().to_string(), mock.addr().port());
    let server = farllama::serve(config).await.unwrap();
    let authority = Authority::new();
    let gateway = authority.gateway(server.addr(), false).await;
    let url = format!("https://localhost:{}/v1", gateway.port());
    let ca = authority.path("ca.pem").display().to_string();
    let (json, code) = doctor(vec!["--base-url".to_owned(), url, "--ca-file".to_owned(), ca]).await;
    assert_eq!(code, 0, "{json}");
    assert_eq!(fact(&json, "way.tls")["state"], state(State::Good));
    server.stop(Duration::ZERO).await;
}

/// A proxy for CONNECT, which always connects to `to`.
async fn connecting(to: SocketAddr) -> SocketAddr {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    if client.read_buf(&mut head).await.unwrap_or(0) == 0 {
                        return;
                    }
                }
                assert!(head.starts_with(b"CONNECT gpu-box."), "{}", String::from_utf8_lossy(&head));
                client.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").await.unwrap();
                let mut server = TcpStream::connect(to).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    proxy
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_reached_through_a_proxy_is_examined_through_farllama() {
    let mock = Mock::start(Script::default()).await.unwrap();
    let proxy = connecting(mock.addr()).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    let examined = async |host: &str| {
        let settings = format!("[remote]\nurl = \"http://{host}:11434\"\nproxy = \"http://{proxy}\"\n");
        fs::write(&path, settings).unwrap();
        doctor(vec!["--config".to_owned(), path.display().to_string()]).await
    };
    let (json, code) = examined("gpu-box.internal").await;
    assert_eq!(code, 0, "{json}");
    assert!(fact(&json, "way.connect")["text"].as_str().unwrap().contains("through the proxy"), "{json}");
    // An Ollama that listens on its own machine only answers to few names.
    let (json, code) = examined("gpu-box.example").await;
    assert_eq!(code, 1);
    let host = fact(&json, "way.host");
    assert!(host["cure"].as_str().unwrap().contains("OLLAMA_HOST=0.0.0.0"), "{json}");
}

#[test]
fn flags_and_settings_that_cannot_be_used_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    fs::write(&path, "[remote]\nhots = \"a\"\n").unwrap();
    let path = path.display().to_string();
    check(&["doctor", "--config", &path]).assert().code(2).stderr(contains("config.toml:2"));
    check(&["doctor", "--config", "no-such.toml"]).assert().code(2).stderr(contains("no-such.toml"));
    check(&["doctor", "--config", &path, "--base-url", "http://a/v1"]).assert().code(2).stderr(contains("two servers"));
    let wrong = ["doctor", "--remote-host", "https://localhost", "--remote-ca-file", &path];
    check(&wrong).assert().code(2).stderr(contains("remote.ca_file").and(contains("no certificate in this file")));
    let wrong = ["doctor", "--base-url", "https://a/v1", "--ca-file", "no-such.pem"];
    check(&wrong).assert().code(2).stderr(contains("--ca-file").and(contains("no-such.pem")));
}

/// A server that accepts connections and never answers.
fn silent() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        kept.extend(listener.incoming());
    });
    addr
}

#[test]
fn the_timeout_bounds_every_wait() {
    let addr = silent();
    let (host, url) = (format!("http://{addr}"), format!("http://{addr}/v1"));
    let scenario = tempfile::tempdir().unwrap();
    let file = scenario.path().join("a.yaml");
    fs::write(&file, "title: a\nsteps:\n  - call: models\n").unwrap();
    let file = file.display().to_string();
    let cases: [(&str, Vec<&str>); 6] = [
        ("doctor", vec!["doctor", "--remote-host", &host, "--timeout", "1s"]),
        ("doctor without farllama", vec!["doctor", "--base-url", &url, "--timeout", "1s"]),
        (
            "doctor over TLS",
            vec!["doctor", "--remote-host", "https://localhost", "--remote-port", "", "--timeout", "1s"],
        ),
        ("run", vec!["run", &file, "--remote-host", &host, "--timeout", "1s"]),
        ("run without farllama", vec!["run", &file, "--base-url", &url, "--timeout", "1s"]),
        ("compare", vec!["compare", "mock", &url, "--scenarios", &file, "--timeout", "1s"]),
    ];
    let port = addr.port().to_string();
    for (name, mut args) in cases {
        if let Some(empty) = args.iter_mut().find(|arg| arg.is_empty()) {
            *empty = &port;
        }
        let start = Instant::now();
        let output = check(&args).output().unwrap();
        let took = start.elapsed();
        assert!(!output.status.success(), "{name}");
        // Two or three waits one after the other; each was up to 30 s.
        assert!(took < Duration::from_secs(12), "{name} took {took:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
