//! How a remote is reached: directly, through a proxy or over SSH, with which certificate, and how its machine is
//! woken. Pure.

use std::{fmt, path::PathBuf, time::Duration};

use http::{Uri, uri::Authority};
use hyper_util::client::proxy::matcher::Matcher;

use super::{Secret, bracketed};

/// How a remote is reached. Each remote has its own.
#[derive(Clone, Debug)]
pub struct Reach {
    /// The machine to which an SSH connection is made; `host` and `port` of the remote are then addresses as that
    /// machine sees them.
    pub ssh: Option<Ssh>,
    /// The proxy through which connections are made.
    pub proxy: Option<Proxy>,
    /// Ignores `HTTP_PROXY`, `HTTPS_PROXY` and `ALL_PROXY`.
    pub no_proxy: bool,
    /// A PEM file with the certificate (and its chain) that is shown to the remote.
    pub client_cert: Option<PathBuf>,
    /// A PEM file with the certificate's key.
    pub client_key: Option<PathBuf>,
    /// The network card that is woken if the remote cannot be reached.
    pub wake: Option<Wake>,
    /// How long a machine may take to wake: 2 min by default.
    pub wake_time: Duration,
}

impl Default for Reach {
    fn default() -> Self {
        Self {
            ssh: None,
            proxy: None,
            no_proxy: false,
            client_cert: None,
            client_key: None,
            wake: None,
            wake_time: Duration::from_secs(120),
        }
    }
}

/// A machine that SSH connects to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ssh {
    /// Its user; absent: what the configuration of `ssh` says.
    pub user: Option<String>,
    /// Its name, which may be an alias in the configuration of `ssh`.
    pub host: String,
    /// Its port; absent: what the configuration of `ssh` says.
    pub port: Option<u16>,
}

impl Ssh {
    /// Reads `user@host:port` or `ssh://user@host:port`; user and port may be absent.
    ///
    /// # Errors
    /// Fails with what is wrong.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let rest = text.trim();
        let rest = rest.strip_prefix("ssh://").unwrap_or(rest).trim_end_matches('/');
        let (user, place) = match rest.rsplit_once('@') {
            Some((user, place)) => (Some(user.to_owned()), place),
            None => (None, rest),
        };
        if user.as_ref().is_some_and(|user| user.contains(':')) {
            return Err("a password cannot be given in an SSH address: use a key (ssh-copy-id), or an agent".to_owned());
        }
        let authority = place.parse::<Authority>().ok().filter(|authority| !authority.host().is_empty());
        let (Some(authority), false) = (authority, place.contains('@')) else {
            return Err(format!("invalid SSH address {text:?}: expected one such as \"user@gpu-box\""));
        };
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let port = match place.strip_prefix(authority.host()).and_then(|rest| rest.strip_prefix(':')) {
            None => None,
            Some(port) => Some(
                port.parse()
                    .ok()
                    .filter(|port| *port > 0)
                    .ok_or_else(|| format!("invalid port {port:?}: expected a number from 1 to 65535"))?,
            ),
        };
        // They become arguments of a program.
        let safe = |text: &str| !text.is_empty() && !text.starts_with('-') && text.bytes().all(is_plain);
        if !safe(&host) || !user.as_deref().is_none_or(safe) {
            return Err(format!("invalid SSH address {text:?}: expected one such as \"user@gpu-box\""));
        }
        Ok(Self { user, host, port })
    }
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._:%+\\".contains(&byte)
}

/// As a URL.
impl fmt::Display for Ssh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ssh://")?;
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        f.write_str(&bracketed(&self.host))?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// What a proxy speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// HTTP, whose CONNECT makes a tunnel.
    Http,
    /// The same over TLS.
    Https,
    /// SOCKS version 5; the proxy resolves names.
    Socks5,
}

impl ProxyProtocol {
    /// Its name in a URL, and the port that a URL without one means.
    fn facts(self) -> (&'static str, u16) {
        match self {
            Self::Http => ("http", 80),
            Self::Https => ("https", 443),
            Self::Socks5 => ("socks5", 1080),
        }
    }
}

/// A proxy on the way to the remote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// What it speaks.
    pub protocol: ProxyProtocol,
    /// Address or host name; an IPv6 address without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// User and password.
    pub credentials: Option<(String, Secret)>,
}

impl Proxy {
    /// Reads a URL, or `host:port` for an HTTP proxy.
    ///
    /// # Errors
    /// Fails with what is wrong. The text has no password.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
        let protocol = match scheme.to_ascii_lowercase().as_str() {
            "http" => ProxyProtocol::Http,
            "https" => ProxyProtocol::Https,
            "socks5" | "socks5h" => ProxyProtocol::Socks5,
            other => {
                return Err(format!("invalid protocol {other:?} of a proxy: expected http, https or socks5"));
            }
        };
        let rest = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let (user, place) = rest.rsplit_once('@').map_or((None, rest), |(user, place)| (Some(user), place));
        let invalid = || format!("invalid proxy {place:?}: expected one such as \"http://proxy.example:3128\"");
        let authority: Authority = place.parse().map_err(|_| invalid())?;
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let port = match authority.as_str().strip_prefix(authority.host()).and_then(|rest| rest.strip_prefix(':')) {
            None => protocol.facts().1,
            Some(port) => port
                .parse()
                .ok()
                .filter(|port| *port > 0)
                .ok_or_else(|| format!("invalid port {port:?}: expected a number from 1 to 65535"))?,
        };
        if host.is_empty() {
            return Err(invalid());
        }
        let decoded = |text: &str| {
            percent_encoding::percent_decode_str(text)
                .decode_utf8()
                .map(std::borrow::Cow::into_owned)
                .map_err(|_| "the user or password of the proxy is not UTF-8".to_owned())
        };
        let credentials = match user {
            None => None,
            Some(user) => {
                let (user, password) = user.split_once(':').unwrap_or((user, ""));
                Some((decoded(user)?, Secret(decoded(password)?)))
            }
        };
        Ok(Self { protocol, host, port, credentials })
    }

    /// Returns the proxy that environment variables name for a remote, and the name of that variable. Connections to
    /// this machine use none.
    ///
    /// # Errors
    /// Fails with the name of the variable if its value cannot be used.
    pub(super) fn of_environment(
        environment: &[(String, String)],
        https: bool,
        host: &str,
    ) -> Result<Option<(&'static str, Self)>, (&'static str, String)> {
        let find = |names: &[&'static str]| {
            names.iter().find_map(|name| {
                let (_, value) = environment.iter().find(|(known, _)| known == name)?;
                Some((*name, value.as_str())).filter(|(_, value)| !value.is_empty())
            })
        };
        let own: &[_] = if https { &["https_proxy", "HTTPS_PROXY"] } else { &["http_proxy", "HTTP_PROXY"] };
        let Some((name, value)) = find(own).or_else(|| find(&["all_proxy", "ALL_PROXY"])) else { return Ok(None) };
        let here = host.eq_ignore_ascii_case("localhost")
            || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback() || ip.is_unspecified());
        if here {
            return Ok(None);
        }
        let excluded = find(&["no_proxy", "NO_PROXY"]).map_or("", |(_, value)| value);
        // The rules of NO_PROXY are those of curl, whatever the proxy is.
        let matcher = Matcher::builder().all("http://proxy.invalid").no(excluded).build();
        let remote = Uri::builder().scheme("http").authority(bracketed(host)).path_and_query("/").build();
        if remote.is_ok_and(|remote| matcher.intercept(&remote).is_none()) {
            return Ok(None);
        }
        Self::parse(value).map(|proxy| Some((name, proxy))).map_err(|wrong| (name, wrong))
    }
}

/// As a URL without credentials.
impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}", self.protocol.facts().0, bracketed(&self.host), self.port)
    }
}

/// A network card that is woken by a magic packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wake {
    /// Its hardware address.
    pub mac: [u8; 6],
    /// Where the packet is sent; absent: to the local network.
    pub to: Option<std::net::SocketAddr>,
}

impl Wake {
    /// Reads `aa:bb:cc:dd:ee:ff`, with `@ADDRESS` or `@ADDRESS:PORT` for the network of a card that is not in this one.
    ///
    /// # Errors
    /// Fails with what is wrong.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (card, to) = text.trim().split_once('@').map_or((text.trim(), None), |(card, to)| (card, Some(to)));
        let digits: String = card.chars().filter(|c| !matches!(c, ':' | '-' | '.')).collect();
        let wrong = || format!("invalid hardware address {card:?}: expected one such as \"aa:bb:cc:dd:ee:ff\"");
        if digits.len() != 12 || !digits.is_ascii() {
            return Err(wrong());
        }
        let mut mac = [0; 6];
        for (at, byte) in mac.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).map_err(|_| wrong())?;
        }
        let to = match to {
            None => None,
            Some(to) => {
                let bare = || to.trim_matches(['[', ']']).parse().map(|ip| std::net::SocketAddr::new(ip, 9));
                Some(to.parse().or_else(|_| bare()).map_err(|_| {
                    format!(
                        "invalid address {to:?}: expected an IP address such as \"192.168.1.255\", or one with a port"
                    )
                })?)
            }
        };
        Ok(Self { mac, to })
    }
}

impl fmt::Display for Wake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.mac.iter().enumerate() {
            write!(f, "{}{byte:02x}", if at == 0 { "" } else { ":" })?;
        }
        self.to.map_or(Ok(()), |to| write!(f, "@{to}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ssh_addresses_are_read_as_people_write_them_and_never_become_options() {
        for (text, shown) in [
            ("gpu-box", "ssh://gpu-box"),
            ("me@gpu-box", "ssh://me@gpu-box"),
            ("ssh://me@gpu-box:2222/", "ssh://me@gpu-box:2222"),
            ("me@[::1]:22", "ssh://me@[::1]:22"),
        ] {
            assert_eq!(Ssh::parse(text).unwrap().to_string(), shown);
        }
        for wrong in
            ["", "-oProxyCommand=x", "a@-x", "-l@host", "me@", "h:0", "h:x", "a b", "a;b", "$(x)", "u:p@h", "a@b@c"]
        {
            assert!(Ssh::parse(wrong).is_err(), "{wrong}");
        }
        let error = Ssh::parse("me:hunter2@gpu-box").unwrap_err();
        assert!(error.contains("ssh-copy-id") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn proxies_have_usual_ports_and_hidden_passwords() {
        for (text, shown) in [
            ("proxy:3128", "http://proxy:3128"),
            ("http://proxy/", "http://proxy:80"),
            ("HTTPS://proxy", "https://proxy:443"),
            ("socks5h://[::1]", "socks5://[::1]:1080"),
            ("socks5://me:hunter%202@proxy:1", "socks5://proxy:1"),
        ] {
            assert_eq!(Proxy::parse(text).unwrap().to_string(), shown);
        }
        let proxy = Proxy::parse("http://me:hunter%202@proxy:1").unwrap();
        assert_eq!(proxy.credentials, Some(("me".to_owned(), Secret("hunter 2".to_owned()))));
        assert!(!format!("{proxy:?}").contains("hunter"));
        for wrong in ["ftp://me:hunter2@proxy", "http://me:hunter2@", "http://me:hunter2@proxy:0", "http://a b"] {
            let error = Proxy::parse(wrong).unwrap_err();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn variables_name_a_proxy_except_for_this_machine_and_what_no_proxy_lists() {
        let variables = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let of = |pairs: &[(&str, &str)], https, host| {
            let found = Proxy::of_environment(&variables(pairs), https, host).unwrap();
            found.map(|(name, proxy)| format!("{name} {proxy}"))
        };
        let both = [("HTTP_PROXY", "http://a:1"), ("https_proxy", "b:2")];
        assert_eq!(of(&both, false, "gpu-box").as_deref(), Some("HTTP_PROXY http://a:1"));
        assert_eq!(of(&both, true, "gpu-box").as_deref(), Some("https_proxy http://b:2"));
        let all = [("ALL_PROXY", "socks5://c"), ("HTTP_PROXY", "")];
        assert_eq!(of(&all, false, "gpu-box").as_deref(), Some("ALL_PROXY socks5://c:1080"));
        for here in ["localhost", "127.0.0.1", "::1", "127.9.9.9"] {
            assert_eq!(of(&all, false, here), None, "{here}");
        }
        let no = |list: &str, host| of(&[("HTTP_PROXY", "a:1"), ("NO_PROXY", list)], false, host);
        assert_eq!(no("lan.example, 10.0.0.0/8", "gpu.lan.example"), None);
        assert_eq!(no("lan.example, 10.0.0.0/8", "10.1.2.3"), None);
        assert_eq!(no("*", "gpu-box"), None);
        assert_eq!(no("fd00::/8", "fd00::1"), None);
        assert!(no("lan.example, 10.0.0.0/8", "other.example").is_some());
        let wrong = Proxy::of_environment(&variables(&[("HTTP_PROXY", "ftp://x")]), false, "gpu-box").unwrap_err();
        assert_eq!(wrong.0, "HTTP_PROXY");
    }

    #[test]
    fn cards_are_read_with_any_separator() {
        for text in ["aa:bb:cc:dd:ee:0f", "AA-BB-CC-DD-EE-0F", "aabb.ccdd.ee0f", "aabbccddee0f"] {
            assert_eq!(Wake::parse(text).unwrap().to_string(), "aa:bb:cc:dd:ee:0f");
        }
        let to = |text| Wake::parse(text).unwrap().to.unwrap().to_string();
        assert_eq!(to("aabbccddee0f@192.168.1.255"), "192.168.1.255:9");
        assert_eq!(to("aabbccddee0f@192.168.1.255:7"), "192.168.1.255:7");
        for wrong in ["", "aa:bb", "aa:bb:cc:dd:ee:gg", "aabbccddee0f@gpu-box", "ääääää"] {
            assert!(Wake::parse(wrong).is_err(), "{wrong}");
        }
    }
}
