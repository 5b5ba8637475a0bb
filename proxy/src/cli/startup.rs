//! What is checked and said before the proxy runs: that it does not lead to itself, and which program holds the port if
//! it is taken.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use farllama::{
    Config,
    config::{Loaded, bracketed},
    leads_to_itself,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::variable;

/// How long a program that holds our port may take to answer.
const INTRODUCTION: Duration = Duration::from_secs(1);

/// Why `serve` would refuse these settings, if it would. Waits for name resolution.
pub(crate) fn refusal(loaded: &Loaded, environment: &[(String, String)]) -> Option<String> {
    if leads_to_itself(&loaded.config) {
        return Some(if loaded.names_remote() { itself(&loaded.config) } else { no_remote(environment) });
    }
    farllama::check(&loaded.config).err().map(|error| error.to_string())
}

/// For a first start without any settings.
fn no_remote(environment: &[(String, String)]) -> String {
    match ollama_host(environment) {
        Some(host) => format!("no remote is set. OLLAMA_HOST is {host}; for that one, try: farllama serve {host}"),
        None => "no remote is set. Try: farllama serve --remote-host NAME-OF-YOUR-GPU-MACHINE".to_owned(),
    }
}

/// The remote that `OLLAMA_HOST` names for Ollama's own tools. farllama does not use it: on its machine it should name
/// farllama.
pub(crate) fn ollama_host(environment: &[(String, String)]) -> Option<&str> {
    let host = variable(environment, "OLLAMA_HOST")?;
    let bare = host.split_once("://").map_or(host, |(_, rest)| rest);
    let here = ["127.", "localhost", "0.0.0.0", "[::", ":"].iter().any(|local| bare.starts_with(local));
    (!here).then_some(host)
}

/// What to say of a remote that is the listener itself.
fn itself(config: &Config) -> String {
    format!(
        "the remote is {}, this proxy itself: set --remote-host to the machine that runs Ollama, or choose another --local-port",
        local(config)
    )
}

/// What to say of a port that is taken, with advice that frees it or does without it.
fn taken(who: &Listener, config: &Config) -> String {
    let at = local(config);
    let free = match who {
        Listener::Farllama => {
            "it may be the one that you want, already running. If not, stop it, or choose another port"
        }
        Listener::Ollama(_) => {
            "stop it (`systemctl stop ollama`, or quit its app), or choose another port for farllama"
        }
        Listener::Other | Listener::Unknown => "stop it, or choose another port",
    };
    // What is asked for must not be taken as well.
    let port = if config.local.port == 18000 { 18001 } else { 18000 };
    format!("{who} already listens on {at}: {free}: --local-port {port}")
}

/// Where we want to listen.
fn local(config: &Config) -> String {
    format!("{}:{}", bracketed(&config.local.host), config.local.port)
}

/// What to say when the proxy cannot listen.
pub(crate) async fn cannot_listen(config: &Config, error: &io::Error) -> String {
    let at = local(config);
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            let who = who_answers(&config.local.host, config.local.port).await;
            taken(&who.unwrap_or(Listener::Unknown), config)
        }
        // What the settings say of the remote cannot be used.
        io::ErrorKind::InvalidInput => error.to_string(),
        io::ErrorKind::PermissionDenied => {
            format!("cannot listen on {at}: {error}; ports below 1024 need special rights: choose another --local-port")
        }
        io::ErrorKind::AddrNotAvailable => format!(
            "cannot listen on {at}: this machine does not have that address. --local-host (--host) is where farllama \
             listens; if Ollama runs there: farllama serve {}",
            config.local.host
        ),
        _ => format!("cannot listen on {at}: {error}"),
    }
}

/// What to say when the admin listener cannot listen.
pub(crate) fn no_admin(config: &Config, error: &io::Error) -> String {
    let (host, port) = (&config.admin.host, config.admin.port);
    let at = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "the admin listener's address {at} is taken, perhaps by another farllama: choose another port (--admin-port), or --admin-enabled false"
        ),
        _ => format!("the admin listener cannot listen on {at}: {error} (admin.host, admin.port)"),
    }
}

/// The same if the remote is the address that we want to listen on, and a program listens there already.
pub(crate) async fn refused(config: &Config, refusal: String) -> String {
    match who_answers(&config.local.host, config.local.port).await {
        Some(who) if leads_to_itself(config) => format!(
            "{refusal}\n({who} listens on {}. To put farllama in front of an Ollama on this machine, choose another port: --local-port 18000)",
            local(config)
        ),
        _ => refusal,
    }
}

/// A program that listens on the port that we want.
#[derive(Debug, PartialEq)]
enum Listener {
    Farllama,
    /// With its version, if it says.
    Ollama(Option<String>),
    /// It speaks HTTP.
    Other,
    /// It says nothing that we understand.
    Unknown,
}

impl std::fmt::Display for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Farllama => f.write_str("another farllama"),
            Self::Ollama(Some(version)) => write!(f, "an Ollama {version}"),
            Self::Ollama(None) => f.write_str("an Ollama"),
            Self::Other => f.write_str("a web server that is not Ollama"),
            Self::Unknown => f.write_str("another program"),
        }
    }
}

/// Who answers on the port that we want, if any program accepts connections there.
async fn who_answers(host: &str, port: u16) -> Option<Listener> {
    let asking = async {
        // farllama answers this by itself, whatever its remote is; Ollama has no such method there.
        let (head, _) = get(host, port, "/v1/chat/completions").await?;
        if head.contains("x-request-id: req_") || head.contains("realm=\"farllama\"") {
            return Some(Listener::Farllama);
        }
        let (_, version) = get(host, port, "/api/version").await?;
        let version = serde_json::from_str::<serde_json::Value>(&version).unwrap_or_default();
        if let Some(version) = version["version"].as_str() {
            return Some(Listener::Ollama(Some(version.to_owned())));
        }
        let (_, root) = get(host, port, "/").await?;
        Some(if root.starts_with("Ollama is running") { Listener::Ollama(None) } else { Listener::Other })
    };
    match tokio::time::timeout(INTRODUCTION, asking).await {
        Ok(Some(who)) => Some(who),
        Ok(None) => TcpStream::connect((host, port)).await.ok().map(|_| Listener::Unknown),
        Err(_) => Some(Listener::Unknown),
    }
}

/// Head and body of a response, whatever its status. Asks as HTTP/1.0 did, so that the body comes in one piece.
async fn get(host: &str, port: u16, path: &str) -> Option<(String, String)> {
    let mut stream = TcpStream::connect((host, port)).await.ok()?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut response = Vec::new();
    (&mut stream).take(64 << 10).read_to_end(&mut response).await.ok()?;
    let response = String::from_utf8_lossy(&response);
    response.split_once("\r\n\r\n").map(|(head, body)| (head.to_owned(), body.to_owned()))
}

/// Where programs on this machine reach Ollama's API at the proxy.
pub(crate) fn local_url(config: &Config) -> String {
    let scheme = if config.local.tls_cert.is_some() { "https" } else { "http" };
    let host = match config.local.host.parse::<IpAddr>() {
        Ok(ip) if ip.is_unspecified() => "127.0.0.1",
        _ => &config.local.host,
    };
    format!("{scheme}://{}:{}", bracketed(host), config.local.port)
}

/// Where the proxy can be reached, for the log: an address that a person can type, also if it listens on all of them.
pub(crate) fn urls(addr: SocketAddr, config: &Config) -> (String, String) {
    let scheme = if config.local.tls_cert.is_some() { "https" } else { "http" };
    let shown = match addr.ip().is_unspecified().then(own_address).flatten() {
        Some(own) => SocketAddr::new(own, addr.port()),
        None => addr,
    };
    let base = format!("{scheme}://{shown}");
    (base.clone(), format!("{base}{}", config.openai.base_path))
}

/// The address that this machine has in its network. A socket is connected to see which one would be used; nothing is
/// sent.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    // RFC 5737: an address that no machine has.
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    socket.local_addr().ok().map(|addr| addr.ip()).filter(|own| !own.is_unspecified())
}

/// What to warn of when the proxy listens on `addr`.
pub(crate) fn warnings(addr: SocketAddr, config: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    if addr.ip().is_loopback() {
        return warnings;
    }
    if !config.auth.enabled {
        warnings.push(format!(
            "ANYONE who can reach {addr} can use this proxy: no key is required (auth.enabled is false)"
        ));
    }
    if config.local.tls_cert.is_none() {
        let what = if config.auth.enabled { "keys, prompts and answers" } else { "prompts and answers" };
        warnings.push(format!(
            "{what} cross the network in clear text: set local.tls_cert and local.tls_key, or put farllama behind a TLS proxy"
        ));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_ollama_host_elsewhere_is_mentioned() {
        let found = |host: &str| {
            let environment = vec![("OLLAMA_HOST".to_owned(), host.to_owned())];
            ollama_host(&environment).map(str::to_owned)
        };
        assert_eq!(found("gpu-box:11434").as_deref(), Some("gpu-box:11434"));
        assert_eq!(found("http://gpu-box").as_deref(), Some("http://gpu-box"));
        for here in ["", "127.0.0.1", "http://localhost:11434", "0.0.0.0", ":11434", "[::1]:11434"] {
            assert_eq!(found(here), None, "{here}");
        }
    }

    #[test]
    fn an_address_for_all_networks_is_shown_as_one_that_can_be_typed() {
        let (native, openai) = urls("0.0.0.0:18000".parse().unwrap(), &Config::default());
        assert!(native.ends_with(":18000") && openai.ends_with(":18000/v1"), "{native} {openai}");
        if own_address().is_some() {
            assert!(!native.contains("0.0.0.0"), "{native}");
        }
    }

    #[test]
    fn a_public_address_without_tls_is_warned_of() {
        let public = "0.0.0.0:1".parse().unwrap();
        let mut config = Config::default();
        assert_eq!(warnings(public, &config).len(), 2);
        config.auth.enabled = true;
        assert!(warnings(public, &config)[0].starts_with("keys, prompts and answers"));
        config.local.tls_cert = Some("c".into());
        assert!(warnings(public, &config).is_empty());
        assert!(warnings("127.0.0.1:1".parse().unwrap(), &Config::default()).is_empty());
    }
}
