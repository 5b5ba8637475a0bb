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

/// Whether the remote is the listener itself. Names that have no address are not: the first request will say so.
pub(crate) async fn leads_to_itself(config: &Config) -> bool {
    let (local, remote) = (config.local.clone(), config.remote.clone());
    if local.port == 0 || local.port != remote.port {
        return false;
    }
    let resolved = tokio::task::spawn_blocking(move || {
        let addresses = |host: &str| -> Vec<IpAddr> {
            (host, 0).to_socket_addrs().map(|found| found.map(|addr| addr.ip()).collect()).unwrap_or_default()
        };
        (addresses(&local.host), addresses(&remote.host))
    });
    let (locals, remotes) = resolved.await.unwrap_or_default();
    remotes.iter().any(|remote| {
        locals.iter().any(|local| {
            local == remote
                || (local.is_unspecified() && is_own(*remote))
                || (remote.is_unspecified() && local.is_loopback())
        })
    })
}

/// Whether this machine has the address: only then can a socket be bound to it.
fn is_own(address: IpAddr) -> bool {
    address.is_loopback() || address.is_unspecified() || UdpSocket::bind((address, 0)).is_ok()
}

/// What to say when the proxy cannot listen.
pub(crate) async fn cannot_listen(config: &Config, error: &io::Error) -> String {
    let (host, port) = (&config.local.host, config.local.port);
    let at = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    match error.kind() {
        io::ErrorKind::AddrInUse => match ollama_version(host, port).await {
            Some(version) => {
                format!(
                    "an Ollama {version} already listens on {at}: give --local-port, or point --remote-host elsewhere"
                )
            }
            None => format!("another program already listens on {at}: give --local-port, or stop it"),
        },
        io::ErrorKind::PermissionDenied => {
            format!("cannot listen on {at}: {error}; ports below 1024 need special rights: give --local-port")
        }
        io::ErrorKind::AddrNotAvailable => {
            format!("cannot listen on {at}: this machine does not have that address: give --local-host")
        }
        _ => format!("cannot listen on {at}: {error}"),
    }
}

/// The version of the Ollama that holds the port that we want, if it is one.
async fn ollama_version(host: &str, port: u16) -> Option<String> {
    let answer = tokio::time::timeout(INTRODUCTION, get(host, port, "/api/version")).await.ok()??;
    let answer: serde_json::Value = serde_json::from_str(&answer).ok()?;
    Some(answer.get("version")?.as_str()?.to_owned())
}

/// The body of an answer, whatever its status.
async fn get(host: &str, port: u16, path: &str) -> Option<String> {
    let reachable = if host == "0.0.0.0" { "127.0.0.1" } else { host };
    let mut stream = TcpStream::connect((reachable, port)).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    (&mut stream).take(64 << 10).read_to_string(&mut answer).await.ok()?;
    answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
}

/// Where the proxy can be reached, for the log.
pub(crate) fn urls(addr: SocketAddr, config: &Config) -> (String, String) {
    let base = format!("http://{addr}");
    (base.clone(), format!("{base}{}", config.openai.base_path))
}
