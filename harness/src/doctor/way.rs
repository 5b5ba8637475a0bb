//! The way there: name, connection, TLS, who answers, the key, and how far away it is.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use hyper_util::client::legacy::connect::HttpInfo;
use reqwest::Url;
use serde_json::json;
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate};

use super::{
    asker::{Answer, Ask, Asker, Lane, brief, quantile},
    fact::{Fact, State},
};
use crate::net;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How often the latency is measured.
const ROUNDS: usize = 15;
/// A certificate that ends sooner is worth a note.
const SOON_DAYS: i64 = 14;

/// Who answers.
#[derive(Clone, Debug)]
pub(super) enum Server {
    /// An Ollama of this version.
    Ollama(String),
    /// Another server that speaks OpenAI's API.
    Other,
}

/// Probes the way. Without a server, the last fact says why.
pub(super) async fn probe(asker: &Asker, is_foreign: bool, facts: &mut Vec<Fact>) -> Option<Server> {
    let Ok(url) = Url::parse(&asker.place) else {
        facts.push(Fact::new("way.name", "name", State::Bad, format!("invalid URL {:?}", asker.place)));
        return None;
    };
    if let Some(how) = &asker.by_way_of {
        let text = format!("farllama reaches it {how}; name, connection and TLS are not probed separately");
        facts.push(Fact::new("way.connect", "connection", State::Info, text));
        let server = server(asker, is_foreign, false, facts).await?;
        latency(asker, &server, facts).await;
        return Some(server);
    }
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let port = url.port_or_known_default().unwrap_or(80);
    let addresses = name(&host, port, connect_time(asker), facts).await?;
    connect(&addresses, &host, connect_time(asker), facts).await?;
    let is_tls = url.scheme() == "https";
    encryption(asker, &url, &addresses, facts).await?;
    let server = server(asker, is_foreign, is_tls, facts).await?;
    headers(asker, &server, facts).await;
    latency(asker, &server, facts).await;
    Some(server)
}

/// How long a connection or a small request may take.
fn connect_time(asker: &Asker) -> Duration {
    CONNECT.min(asker.timeout)
}

async fn name(host: &str, port: u16, within: Duration, facts: &mut Vec<Fact>) -> Option<Vec<std::net::SocketAddr>> {
    let start = Instant::now();
    let Ok(found) = tokio::time::timeout(within, tokio::net::lookup_host((host, port))).await else {
        let text = format!("DNS does not answer for {host:?} within {}", brief(within));
        facts.push(
            Fact::new("way.name", "name", State::Bad, text)
                .cure("check this machine's DNS, or use the address of the machine"),
        );
        return None;
    };
    let addresses: Vec<_> = found.map(Iterator::collect).unwrap_or_default();
    if addresses.is_empty() {
        facts.push(
            Fact::new("way.name", "name", State::Bad, format!("the host {host:?} is not found (DNS)"))
                .cure("check the spelling, this machine's DNS, or use the address of the machine"),
        );
        return None;
    }
    let list: Vec<_> = addresses.iter().map(|address| address.ip().to_string()).collect();
    let text = if host.parse::<IpAddr>().is_ok() {
        format!("{host} is an address")
    } else {
        format!("{host} is {} (found in {})", list.join(", "), brief(start.elapsed()))
    };
    facts.push(Fact::new("way.name", "name", State::Good, text));
    Some(addresses)
}

async fn connect(
    addresses: &[std::net::SocketAddr],
    host: &str,
    within: Duration,
    facts: &mut Vec<Fact>,
) -> Option<()> {
    let mut failures = Vec::new();
    for address in addresses {
        let start = Instant::now();
        match tokio::time::timeout(within, tokio::net::TcpStream::connect(address)).await {
            Ok(Ok(_)) => {
                let text = format!("connected to {address} in {}", brief(start.elapsed()));
                let fact = Fact::new("way.connect", "connection", State::Good, text);
                facts.push(if failures.is_empty() {
                    fact
                } else {
                    Fact {
                        state: State::Limited,
                        text: format!("{}, after {}", fact.text, failures.join("; ")),
                        ..fact
                    }
                    .cure(format!("the first address of {host} does not answer: name the other one, or fix DNS"))
                });
                return Some(());
            }
            Ok(Err(error)) => failures.push(format!("{address}: {error}")),
            Err(_) => failures.push(format!("{address}: no answer within {}", brief(within))),
        }
    }
    let refused = failures.iter().all(|failure| failure.contains("refused"));
    let cure = if refused {
        "is Ollama running there, and on all interfaces (OLLAMA_HOST=0.0.0.0), and is the port right?"
    } else {
        "is the machine on, and does its firewall let this port pass?"
    };
    facts.push(Fact::new("way.connect", "connection", State::Bad, failures.join("; ")).cure(cure));
    None
}

async fn encryption(asker: &Asker, url: &Url, addresses: &[std::net::SocketAddr], facts: &mut Vec<Fact>) -> Option<()> {
    if url.scheme() != "https" {
        let is_near = addresses.iter().all(|address| is_private(address.ip()));
        let fact = if is_near {
            Fact::new("way.tls", "encryption", State::Info, "plain HTTP, within this machine or network")
        } else {
            Fact::new(
                "way.tls",
                "encryption",
                State::Limited,
                "plain HTTP over the internet: prompts and keys can be read",
            )
            .cure("put TLS in front of Ollama, or reach it by a VPN or an SSH tunnel")
        };
        facts.push(fact);
        return Some(());
    }
    match asker.http.get(url.clone()).timeout(connect_time(asker) * 2).send().await {
        Ok(response) => {
            let info = response.extensions().get::<reqwest::tls::TlsInfo>();
            facts.push(certificate(info.and_then(reqwest::tls::TlsInfo::peer_certificate)));
            Some(())
        }
        Err(error) => {
            let why = net::why(&error);
            let cure = if error.is_timeout() {
                "look at what answers on that port: it accepts connections, and does not answer"
            } else if why.contains("CertificateRequired") || why.contains("HandshakeFailure") {
                "name the certificate that the server asks for: --remote-client-cert and --remote-client-key \
                 (remote.client_cert and remote.client_key in farllama's settings)"
            } else {
                "name the certificate's authority (--remote-ca-file, remote.ca_file in farllama's settings; with --base-url: --ca-file), \
                 or the host that the certificate is for"
            };
            facts.push(Fact::new("way.tls", "encryption", State::Bad, why).cure(cure));
            None
        }
    }
}

fn certificate(der: Option<&[u8]>) -> Fact {
    let parsed = der.and_then(|der| X509Certificate::from_der(der).ok());
    let Some((_, certificate)) = parsed else {
        return Fact::new("way.tls", "encryption", State::Good, "TLS; the certificate is accepted");
    };
    let days = (certificate.validity().not_after.timestamp() - certificate.validity().not_before.timestamp()) / 86400;
    let left = (certificate.validity().not_after.timestamp() - ASN1Time::now().timestamp()) / 86400;
    let text = format!(
        "TLS; certificate of {}, issued by {}, valid for {left} more of {days} days",
        certificate.subject(),
        certificate.issuer()
    );
    let fact = Fact::new("way.tls", "encryption", State::Good, text).with(left);
    if left < SOON_DAYS {
        return Fact { state: State::Limited, ..fact }.cure("renew the certificate");
    }
    fact
}

fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [first, second, ..] = v4.octets();
            // 100.64.0.0/10 is what VPNs such as Tailscale give (RFC 6598).
            v4.is_loopback() || v4.is_private() || v4.is_link_local() || first == 100 && (64..128).contains(&second)
        }
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

/// Who answers, and whether it takes the key.
async fn server(asker: &Asker, is_foreign: bool, is_tls: bool, facts: &mut Vec<Fact>) -> Option<Server> {
    let version = asker.ask(Ask::get(Lane::Direct, "/api/version")).await;
    if let Some(text) = version.json()["version"].as_str().filter(|_| version.is_ok()) {
        let text = text.to_owned();
        // Ollama itself names neither.
        let header = |name: &str| version.outcome.recording.header(name).map(str::to_owned);
        let gateway = header("server").or_else(|| header("via"));
        let behind = gateway.map(|gateway| format!(", behind a gateway ({gateway})")).unwrap_or_default();
        facts.push(Fact::new("way.server", "server", State::Good, format!("Ollama {text}{behind}")));
        let answer = asker.ask(Ask::get(Lane::Direct, "/api/tags")).await;
        if matches!(answer.status(), Some(401 | 403)) {
            facts.push(refused(answer));
            return None;
        }
        key(asker, "/api/version", facts).await;
        return Some(Server::Ollama(text));
    }
    if let Some(fact) = host_refused(asker, &version).await {
        facts.push(fact);
        return None;
    }
    let models = if is_foreign { Some(asker.ask(Ask::get(Lane::V1, "/models")).await) } else { None };
    if let Some(models) = models.filter(|models| models.status() != Some(404) || !models.json()["error"].is_null()) {
        if matches!(models.status(), Some(401 | 403)) {
            facts.push(refused(models));
            return None;
        }
        if models.is_ok() && !models.is_page() {
            let maker = models.outcome.recording.header("server").unwrap_or("no Server header").to_owned();
            let text = format!("a server with OpenAI's API, not an Ollama ({maker})");
            facts.push(Fact::new("way.server", "server", State::Info, text));
            return Some(Server::Other);
        }
        facts.push(unusable(models, is_tls));
        return None;
    }
    if matches!(version.status(), Some(401 | 403)) {
        facts.push(refused(version));
        return None;
    }
    facts.push(unusable(version, is_tls));
    None
}

/// Ollama on a loopback address refuses names that it does not know with an empty 403.
async fn host_refused(asker: &Asker, version: &Answer) -> Option<Fact> {
    if version.status() != Some(403) || !version.outcome.recording.body().is_empty() {
        return None;
    }
    if asker.by_way_of.is_none() {
        let known = asker.ask(Ask::get(Lane::Direct, "/api/version").header("host", "localhost")).await;
        if !known.is_ok() {
            return None;
        }
    }
    let text = "the server refuses the name that it is called by (403 without a body, as an Ollama does that listens on its own machine only)";
    let cure = "OLLAMA_HOST=0.0.0.0 on the remote, or let the gateway send `Host: localhost`";
    Some(version.clone().shows(Fact::new("way.host", "Host header", State::Bad, text).cure(cure)))
}

fn refused(answer: Answer) -> Fact {
    let text = format!("the server refuses the request: {}", answer.words());
    answer.shows(
        Fact::new("way.auth", "authentication", State::Bad, text)
            .cure("give its key: FARLLAMA_REMOTE_API_KEY (with --base-url: FARLLAMA_CHECK_API_KEY)"),
    )
}

/// Something answers that cannot be used.
fn unusable(answer: Answer, is_tls: bool) -> Fact {
    let words = answer.words();
    let (text, cure) = match answer.status() {
        None => {
            let other = if is_tls { "http://" } else { "https://" };
            (
                format!("it accepts connections and does not answer in HTTP: {words}"),
                format!("is the port right, and is it {other}?"),
            )
        }
        Some(502..=504) => (
            format!("a gateway answers, and Ollama behind it does not: {words}"),
            "start Ollama behind the gateway, and check the gateway's address of it".to_owned(),
        ),
        Some(404) => (
            format!("the server is not an Ollama, or Ollama is below another path: {words}"),
            "name the path of the gateway (--remote-base-path), or the right port (Ollama's is 11434)".to_owned(),
        ),
        Some(_) if answer.is_page() => (
            format!("a web page answers instead of Ollama: {words}"),
            "name the path of the gateway (--remote-base-path), or log in where the page asks for it".to_owned(),
        ),
        Some(_) => {
            (format!("the server is not an Ollama: {words}"), "check the address, the port and the path".to_owned())
        }
    };
    answer.shows(Fact::new("way.server", "server", State::Bad, text).cure(cure))
}

async fn key(asker: &Asker, path: &str, facts: &mut Vec<Fact>) {
    if asker.headers.is_empty() && asker.key.is_none() {
        facts.push(Fact::new("way.auth", "authentication", State::Info, "no key is asked for"));
        return;
    }
    if let Some(how) = &asker.by_way_of {
        let text =
            format!("the key is accepted; whether it is asked for is not known, since the server is reached {how}");
        facts.push(Fact::new("way.auth", "authentication", State::Good, text));
        return;
    }
    let bare = asker.http.get(format!("{}{path}", asker.direct)).timeout(connect_time(asker)).send().await;
    let text = if bare.is_ok_and(|answer| answer.status().is_success()) {
        "the key is accepted, but requests without it are answered too"
    } else {
        "the key is accepted, and requests without it are refused"
    };
    facts.push(Fact::new("way.auth", "authentication", State::Good, text));
}

/// What Ollama makes of names and origins that it does not know; farllama sends neither on.
async fn headers(asker: &Asker, server: &Server, facts: &mut Vec<Fact>) {
    if !matches!(server, Server::Ollama(_)) {
        return;
    }
    for (id, title, name, value, cure) in [
        (
            "way.host",
            "Host header",
            "host",
            "another.example",
            "behind a gateway of your own name: OLLAMA_HOST=0.0.0.0",
        ),
        (
            "way.origin",
            "Origin header",
            "origin",
            "https://another.example",
            "for browsers without farllama: OLLAMA_ORIGINS",
        ),
    ] {
        let answer = asker.ask(Ask::get(Lane::Direct, "/api/version").header(name, value)).await;
        let fact = match answer.status() {
            Some(403) => {
                Fact::new(id, title, State::Info, "a foreign one is refused (403); farllama sends its own").cure(cure)
            }
            Some(status) => Fact::new(id, title, State::Info, format!("a foreign one is answered with {status}")),
            None => Fact::unknown(id, title, answer.words()),
        };
        facts.push(fact);
    }
}

/// Keep-alive, the time of a round trip, and what farllama adds to it.
async fn latency(asker: &Asker, server: &Server, facts: &mut Vec<Fact>) {
    let path = if matches!(server, Server::Ollama(_)) { "/api/version" } else { "/models" };
    let root = if matches!(server, Server::Ollama(_)) { &asker.direct } else { &asker.openai };
    let mut ports = Vec::new();
    let mut times = rounds(asker, &format!("{root}{path}"), &mut ports).await;
    ports.dedup();
    let keep_alive = match ports.len() {
        0 => Fact::unknown("way.keep_alive", "keep-alive", "the connections could not be counted"),
        1 => Fact::new(
            "way.keep_alive",
            "keep-alive",
            State::Good,
            format!("{} requests on one connection", times.len()),
        ),
        // A server may end a connection after so many requests, or when it restarts.
        many if many * 4 <= times.len() => Fact::new(
            "way.keep_alive",
            "keep-alive",
            State::Good,
            format!("{} requests on {many} connections", times.len()),
        ),
        many => Fact::new(
            "way.keep_alive",
            "keep-alive",
            State::Limited,
            format!("{} requests needed {many} connections", times.len()),
        )
        .cure("let the gateway keep connections open (nginx: keepalive_timeout)"),
    };
    facts.push(keep_alive);
    if times.is_empty() {
        facts.push(Fact::unknown("way.latency", "latency", "no request was answered"));
        return;
    }
    let (p50, p95) = (quantile(&mut times, 0.5), quantile(&mut times, 0.95));
    let text = format!("p50 {}, p95 {} for a small request", brief(p50), brief(p95));
    facts.push(
        Fact::new("way.latency", "latency", State::Info, text).with(json!({"p50_ms": ms(p50), "p95_ms": ms(p95)})),
    );
    if asker.direct == asker.native {
        return;
    }
    let mut through = rounds(asker, &format!("{}{path}", asker.native), &mut Vec::new()).await;
    if through.is_empty() {
        return;
    }
    let (with50, with95) = (quantile(&mut through, 0.5), quantile(&mut through, 0.95));
    let (added50, added95) = (with50.saturating_sub(p50), with95.saturating_sub(p95));
    let text = format!("p50 {}, p95 {} more through farllama", brief(added50), brief(added95));
    let value = json!({"p50_ms": ms(added50), "p95_ms": ms(added95)});
    facts.push(Fact::new("way.added", "added latency", State::Info, text).with(value));
}

async fn rounds(asker: &Asker, url: &str, ports: &mut Vec<u16>) -> Vec<Duration> {
    let mut times = Vec::new();
    // The first one may open the connection.
    for nth in 0..=ROUNDS {
        let mut request = asker.http.get(url).timeout(connect_time(asker));
        for (name, value) in &asker.headers {
            request = request.header(name, value);
        }
        if let Some(key) = &asker.key {
            request = request.bearer_auth(key);
        }
        let start = Instant::now();
        // One that is not answered is no measure, and more would take long.
        let Ok(response) = request.send().await else { break };
        if nth > 0 {
            times.push(start.elapsed());
            ports.extend(response.extensions().get::<HttpInfo>().map(|info| info.local_addr().port()));
        }
        let _ = response.bytes().await;
    }
    times
}

fn ms(time: Duration) -> f64 {
    (time.as_secs_f64() * 100_000.0).round() / 100.0
}
