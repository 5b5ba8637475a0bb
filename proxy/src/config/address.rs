//! Where a remote is, as people write it: `gpu-box`, `gpu-box:11434`, `[::1]:11434`, `https://user:pass@host/prefix`.
//! Pure.

use http::{Uri, uri::Authority};

use super::{Kind, Protocol, Ssh};
use crate::config::value::base_path;

/// The parts that were given; the rest comes from other settings.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Address {
    pub(super) protocol: Option<Protocol>,
    /// Without brackets.
    pub(super) host: String,
    pub(super) port: Option<u16>,
    pub(super) base_path: Option<String>,
    /// `user:pass`, percent-decoded.
    pub(super) basic_auth: Option<String>,
    /// The machine through which the host is reached.
    pub(super) ssh: Option<Ssh>,
}

impl Address {
    /// A host, `host:port`, or a URL.
    ///
    /// # Errors
    /// What is wrong, for the one who wrote it.
    pub(super) fn parse(text: &str, kind: Kind) -> Result<Self, String> {
        let text = text.trim();
        if text.contains("://") {
            return Self::url(text, kind);
        }
        // A bare IPv6 address has colons, but no port.
        if text.parse::<std::net::Ipv6Addr>().is_ok() {
            return Ok(Self { host: text.to_owned(), ..Self::default() });
        }
        let safe = without_password(text);
        if text.contains('/') {
            return Err(format!(
                "{safe:?} has a path but no protocol: write it as a URL, \"http://{}\"",
                without_api(&safe)
            ));
        }
        let authority: Authority =
            text.parse().map_err(|_| format!("invalid host name {safe:?}: expected one such as \"gpu-box\""))?;
        Self::authority(&authority)
    }

    /// A URL with protocol.
    ///
    /// # Errors
    /// What is wrong, for the one who wrote it.
    pub(super) fn url(text: &str, kind: Kind) -> Result<Self, String> {
        if let Some(rest) = text.trim().strip_prefix("ssh://") {
            return Self::over_ssh(rest, kind);
        }
        let safe = without_password(text);
        let uri: Uri = text.trim().parse().map_err(|error| format!("invalid URL {safe:?}: {error}"))?;
        let protocol = match uri.scheme_str() {
            Some("http") => Protocol::Http,
            Some("https") => Protocol::Https,
            Some(_) => return Err(format!("invalid URL {safe:?}: expected the protocol http, https or ssh")),
            None => return Err(format!("invalid URL {safe:?}: expected one such as \"http://gpu-box:11434\"")),
        };
        if uri.query().is_some() {
            return Err(format!("invalid URL {safe:?}: it must not have a query"));
        }
        let authority = uri.authority().ok_or_else(|| format!("{safe:?} has no host"))?;
        // A password with a slash that is not escaped ends the host too soon.
        if uri.path().contains('@') {
            return Err(format!("{safe:?}: a / in the password must be written %2F"));
        }
        let mut address = Self::authority(authority)?;
        address.protocol = Some(protocol);
        if let Some(api) = api_of(uri.path()).filter(|_| kind == Kind::Ollama) {
            let right = without_api(&safe);
            return Err(format!("{safe:?} ends in {api}, which farllama adds itself{}: write {right:?}", hint(api)));
        }
        let path = base_path(uri.path())?;
        address.base_path = (!path.is_empty()).then_some(path);
        Ok(address)
    }

    /// An Ollama on the machine that SSH connects to, which listens where Ollama usually does there: the single
    /// settings say where else.
    fn over_ssh(rest: &str, kind: Kind) -> Result<Self, String> {
        let (machine, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
        let path = remote_path(path, kind)?;
        Ok(Self {
            host: "127.0.0.1".to_owned(),
            base_path: (!path.is_empty()).then_some(path),
            ssh: Some(Ssh::parse(machine)?),
            ..Self::default()
        })
    }

    /// These parts, and where there is none, those of `other`.
    pub(super) fn or(self, other: Self) -> Self {
        Self {
            protocol: self.protocol.or(other.protocol),
            host: if self.host.is_empty() { other.host } else { self.host },
            port: self.port.or(other.port),
            base_path: self.base_path.or(other.base_path),
            basic_auth: self.basic_auth.or(other.basic_auth),
            ssh: self.ssh.or(other.ssh),
        }
    }

    /// Without the parts whose setting `is` true of.
    pub(super) fn without(self, is: impl Fn(&str) -> bool) -> Self {
        Self {
            protocol: self.protocol.filter(|_| !is("remote.protocol")),
            host: self.host,
            port: self.port.filter(|_| !is("remote.port")),
            base_path: self.base_path.filter(|_| !is("remote.base_path")),
            basic_auth: self.basic_auth.filter(|_| !is("remote.basic_auth")),
            ssh: self.ssh.filter(|_| !is("remote.ssh")),
        }
    }

    /// Whether it gives what the setting `part` gives.
    pub(super) fn has(&self, part: &str) -> bool {
        match part {
            "remote.protocol" => self.protocol.is_some(),
            "remote.port" => self.port.is_some(),
            "remote.base_path" => self.base_path.is_some(),
            "remote.basic_auth" => self.basic_auth.is_some(),
            "remote.ssh" => self.ssh.is_some(),
            _ => !self.host.is_empty(),
        }
    }

    fn authority(authority: &Authority) -> Result<Self, String> {
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        if host.is_empty() {
            return Err("the host is missing".to_owned());
        }
        let after = authority.as_str().rsplit_once(authority.host()).map_or("", |(_, after)| after);
        let port = match after.strip_prefix(':') {
            None => None,
            Some(port) => {
                Some(port.parse().map_err(|_| format!("invalid port {port:?}: expected a number from 1 to 65535"))?)
            }
        };
        let basic_auth = match authority.as_str().rsplit_once('@') {
            None => None,
            Some((pair, _)) if pair.contains(':') => Some(
                percent_encoding::percent_decode_str(pair)
                    .decode_utf8()
                    .map_err(|_| "the user or password in the URL is not UTF-8".to_owned())?
                    .into_owned(),
            ),
            Some(_) => return Err("the URL has a user without password; write user:pass@".to_owned()),
        };
        Ok(Self { host, port, basic_auth, ..Self::default() })
    }
}

/// The path prefix of the remote.
///
/// # Errors
/// Fails if it is no path, or ends in the path of an API.
pub(super) fn remote_path(text: &str, kind: Kind) -> Result<String, String> {
    match api_of(text).filter(|_| kind == Kind::Ollama) {
        Some(api) => Err(format!(
            "{text:?} ends in {api}, which farllama adds itself{}: write {:?}",
            hint(api),
            without_api(text)
        )),
        None => base_path(text),
    }
}

/// The APIs under an Ollama's address. People copy addresses that end in one of them from the settings of other tools.
const APIS: [&str; 2] = ["/v1", "/api"];

/// The setting that makes an address that ends in `api` right.
fn hint(api: &str) -> &'static str {
    if api == "/v1" { " (unless it is an OpenAI server: set remote.kind to \"openai\")" } else { "" }
}

/// The API that `path` leads into, as its last segment.
fn api_of(path: &str) -> Option<&'static str> {
    let path = path.trim_end_matches('/');
    APIS.into_iter().find(|api| path.ends_with(api))
}

/// `address` without the API at its end.
fn without_api(address: &str) -> &str {
    let trimmed = address.trim_end_matches('/');
    match api_of(trimmed) {
        Some(api) => &trimmed[..trimmed.len() - api.len()],
        None => address,
    }
}

/// An address to show: its password must not be, even if the rest is wrong.
fn without_password(text: &str) -> String {
    match (text.split_once("://"), text.rsplit_once('@')) {
        (_, None) => text.to_owned(),
        (Some((scheme, _)), Some((_, rest))) => format!("{scheme}://***@{rest}"),
        (None, Some((_, rest))) => format!("***@{rest}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_as_people_write_them() {
        let host = |host: &str, port| Address { host: host.to_owned(), port, ..Address::default() };
        assert_eq!(Address::parse("gpu-box", Kind::Ollama).unwrap(), host("gpu-box", None));
        assert_eq!(Address::parse("gpu-box:1234", Kind::Ollama).unwrap(), host("gpu-box", Some(1234)));
        assert_eq!(Address::parse("::1", Kind::Ollama).unwrap(), host("::1", None));
        assert_eq!(Address::parse("[::1]:99", Kind::Ollama).unwrap(), host("::1", Some(99)));
        assert_eq!(
            Address::parse("https://u:p%40ss@gpu.example/a/b/", Kind::Ollama).unwrap(),
            Address {
                protocol: Some(Protocol::Https),
                host: "gpu.example".to_owned(),
                port: None,
                base_path: Some("/a/b".to_owned()),
                basic_auth: Some("u:p@ss".to_owned()),
                ssh: None,
            }
        );
    }

    #[test]
    fn the_path_of_an_api_is_an_error_that_shows_the_right_address() {
        for (wrong, right) in [
            ("http://gpu-box:11434/v1", "http://gpu-box:11434"),
            ("http://gpu-box:11434/v1/", "http://gpu-box:11434"),
            ("https://ollama.example/prefix/api", "https://ollama.example/prefix"),
            ("gpu-box:11434/v1", "http://gpu-box:11434"),
        ] {
            let error = Address::parse(wrong, Kind::Ollama).unwrap_err();
            assert!(error.ends_with(&format!("{right:?}")), "{error}");
        }
        assert!(Address::parse("http://gpu-box/api-gateway", Kind::Ollama).is_ok());
        assert!(remote_path("/prefix/v1", Kind::Ollama).unwrap_err().ends_with("write \"/prefix\""));
        assert_eq!(remote_path("/v1beta", Kind::Ollama).unwrap(), "/v1beta");
        for kind in [Kind::OpenAi, Kind::Auto] {
            let address = Address::url("https://ai.example/api/v1/", kind).unwrap();
            assert_eq!(address.base_path.unwrap(), "/api/v1");
            assert_eq!(remote_path("/v1", kind).unwrap(), "/v1");
        }
    }

    #[test]
    fn what_is_no_address_is_told_without_its_password() {
        for wrong in
            ["", "a b", "gpu-box/prefix", "ftp://x", "http://", "http://h:99999", "http://h/?q=1", "http://u@h"]
        {
            assert!(Address::parse(wrong, Kind::Ollama).is_err(), "{wrong}");
        }
        let reported = Address::parse("ftp://user:hunter2@host/x", Kind::Ollama).unwrap_err();
        assert!(!reported.contains("hunter2"), "{reported}");
    }
}
