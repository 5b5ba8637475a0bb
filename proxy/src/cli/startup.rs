//! What is checked and said before the proxy runs: that it does not lead to itself, and who holds the port if it is taken.

use std::{
    io,
    net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket},
    time::Duration,
};

use farllama::Config;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// How long whoever holds our port may take to say who they are.
const INTRODUCTION: Duration = Duration::from_secs(1);

/// Whoever listens and says nothing that we understand.
const MUTE: &str = "another program";

/// Whether the remote is the listener itself. Names that have no address are not: the first request will say so. Waits for name look-ups.
pub(crate) fn leads_to_itself(config: &Config) -> bool {
    let Config { local, remote, .. } = config;
    if local.port == 0 || local.port != remote.port {
        return false;
    }
    let addresses = |host: &str| -> Vec<IpAddr> {
        (host, 0).to_socket_addrs().map(|found| found.map(|addr| addr.ip()).collect()).unwrap_or_default()
    };
    let (locals, remotes) = (addresses(&local.host), addresses(&remote.host));
    remotes.iter().any(|remote| {
        locals.iter().any(|local| {
            local == remote
                || (local.is_unspecified() && is_own(*remote))
                || (remote.is_unspecified() && local.is_loopback())
        })
    })
}

/// What to say of a remote that is the listener itself.
pub(crate) fn itself(config: &Config) -> String {
    format!(
        "the remote is {}, this proxy itself: give --remote-host (the machine that runs Ollama), or another --local-port",
        local(config)
    )
}

/// The same, if another program listens there already: then that one is meant.
pub(crate) async fn itself_or_another(config: &Config) -> String {
    match who_answers(&config.local.host, config.local.port).await {
        Some(who) => {
            format!("{who} already listens on {}: give --local-port, or point --remote-host elsewhere", local(config))
        }
        None => itself(config),
    }
}

fn taken(who: &str, at: &str) -> String {
    let instead = if who.starts_with("an Ollama") { "point --remote-host elsewhere" } else { "stop it" };
    format!("{who} already listens on {at}: give --local-port, or {instead}")
}

/// Where we want to listen.
fn local(config: &Config) -> String {
    let (host, port) = (&config.local.host, config.local.port);
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Whether this machine has the address: only then can a socket be bound to it.
fn is_own(address: IpAddr) -> bool {
    address.is_loopback() || address.is_unspecified() || UdpSocket::bind((address, 0)).is_ok()
}

/// What to say when the proxy cannot listen.
pub(crate) async fn cannot_listen(config: &Config, error: &io::Error) -> String {
    let at = local(config);
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            let who = who_answers(&config.local.host, config.local.port).await;
            taken(who.as_deref().unwrap_or(MUTE), &at)
        }
        // What the settings say of the remote cannot be used.
        io::ErrorKind::InvalidInput => error.to_string(),
        io::ErrorKind::PermissionDenied => {
            format!("cannot listen on {at}: {error}; ports below 1024 need special rights: give --local-port")
        }
        io::ErrorKind::AddrNotAvailable => {
            format!("cannot listen on {at}: this machine does not have that address: give --local-host")
        }
        _ => format!("cannot listen on {at}: {error}"),
    }
}

/// Who answers on the port that we want, if anybody takes connections there.
async fn who_answers(host: &str, port: u16) -> Option<String> {
    let asking = async {
        let version = get(host, port, "/api/version").await?;
        let version = serde_json::from_str::<serde_json::Value>(&version).unwrap_or_default();
        if let Some(version) = version["version"].as_str() {
            return Some(format!("an Ollama {version}"));
        }
        let root = get(host, port, "/").await?;
        Some(if root.starts_with("Ollama is running") { "an Ollama" } else { "something that is no Ollama" }.to_owned())
    };
    match tokio::time::timeout(INTRODUCTION, asking).await {
        Ok(Some(who)) => Some(who),
        Ok(None) => TcpStream::connect((host, port)).await.ok().map(|_| MUTE.to_owned()),
        Err(_) => Some(MUTE.to_owned()),
    }
}

/// The body of an answer, whatever its status. Asks as HTTP/1.0 did, so that the body comes in one piece.
async fn get(host: &str, port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect((host, port)).await.ok()?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    (&mut stream).take(64 << 10).read_to_end(&mut answer).await.ok()?;
    let answer = String::from_utf8_lossy(&answer);
    answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
}

/// Where the proxy can be reached, for the log.
pub(crate) fn urls(addr: SocketAddr, config: &Config) -> (String, String) {
    let scheme = if config.local.tls_cert.is_some() { "https" } else { "http" };
    let base = format!("{scheme}://{addr}");
    (base.clone(), format!("{base}{}", config.openai.base_path))
}
