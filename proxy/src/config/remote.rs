//! The remote, put together from the settings that name it: a URL, a host that may be one, single parts, credentials.
//! Pure.

use std::collections::HashMap;

use base64::{Engine, engine::general_purpose::STANDARD};

use super::{Protocol, Remote};
use crate::config::{
    load::{Error, Place},
    settings::Draft,
    value::secret_header,
};

type Places = HashMap<&'static str, Place>;

/// The parts of the remote that an address can give, with the settings that give them singly.
const PARTS: [&str; 6] =
    ["remote.protocol", "remote.host", "remote.port", "remote.base_path", "remote.basic_auth", "remote.ssh"];

/// Puts `draft.config.remote` together, and notes in `places` where each part came from.
///
/// The parts of a URL win over single settings of the same source. A later source wins over both: its single setting
/// over that part of an earlier URL, its URL or host over an earlier one as a whole, so that no password of one machine
/// is sent to another.
///
/// # Errors
/// What does not go together, with its place.
pub(super) fn join(draft: Draft, places: &mut Places) -> Result<Remote, Error> {
    let Draft { config, url, host, protocol, port, base_path, api_key, basic_auth } = draft;
    let mut remote = config.remote;
    let rank = |places: &Places, key: &str| places.get(key).map(Place::rank);
    let (named, address) = match (url, host) {
        (Some(url), Some(host)) => match rank(places, "remote.url").cmp(&rank(places, "remote.host")) {
            std::cmp::Ordering::Less => ("remote.host", host),
            std::cmp::Ordering::Equal => ("remote.url", url.or(host)),
            std::cmp::Ordering::Greater => ("remote.url", url),
        },
        (Some(url), None) => ("remote.url", url),
        (None, host) => ("remote.host", host.unwrap_or_default()),
    };
    // What a later source says singly takes the place of that part.
    let address = address.without(|part| rank(places, part) > rank(places, named));
    if let Some(place) = places.get(named).cloned() {
        for part in PARTS.into_iter().filter(|part| address.has(part)) {
            places.insert(part, place.clone());
        }
        if address.protocol.is_some() {
            // It implies a port.
            places.entry("remote.port").or_insert(place);
        }
    }
    let at = |key: &str| places.get(key).map_or(String::new(), |place| format!("{place}: "));
    if !address.host.is_empty() {
        remote.host = address.host;
    }
    remote.reach.ssh = address.ssh.or(remote.reach.ssh);
    remote.protocol = address.protocol.or(protocol).unwrap_or(remote.protocol);
    // As with OLLAMA_HOST: a URL without port means the protocol's own, a bare host means 11434.
    remote.port = address.port.or(port).unwrap_or(match address.protocol {
        None => remote.port,
        Some(Protocol::Http) => 80,
        Some(Protocol::Https) => 443,
    });
    remote.base_path = address.base_path.or(base_path).unwrap_or_default();
    if remote.port == 0 {
        return Err(Error::new(format!(
            "{}remote.port: invalid port 0: expected a number from 1 to 65535",
            at("remote.port")
        )));
    }
    let in_url = address.basic_auth.is_some();
    let basic = address.basic_auth.or(basic_auth);
    let basic_key = if in_url { "the user and password in the remote's URL" } else { "remote.basic_auth" };
    let in_headers = remote.headers.iter().any(|(name, _)| *name == http::header::AUTHORIZATION);
    let claims = [
        (api_key.is_some(), "remote.api_key", "remote.api_key"),
        (basic.is_some(), "remote.basic_auth", basic_key),
        (in_headers, "remote.headers", "Authorization in remote.headers"),
    ];
    let claims: Vec<_> =
        claims.into_iter().filter(|(there, ..)| *there).map(|(_, key, name)| (places.get(key), name)).collect();
    if let [(first_at, first), (second_at, second), ..] = &claims[..] {
        let first_at = first_at.map_or(String::new(), |place| format!("{place}: "));
        let second_at = second_at.map_or(String::new(), |place| format!(" ({place})"));
        return Err(Error::new(format!(
            "{first_at}{first} and {second}{second_at} both set the Authorization header: give only one of them"
        )));
    }
    let authorization = match (api_key, basic) {
        (Some(key), _) => Some(("remote.api_key", format!("Bearer {}", key.trim()))),
        (None, Some(pair)) => Some(("remote.basic_auth", format!("Basic {}", STANDARD.encode(pair)))),
        (None, None) => None,
    };
    if let Some((key, value)) = authorization {
        let unsendable =
            |()| Error::new(format!("{}{key}: it has characters that are not allowed in a header", at(key)));
        remote.authorization = Some(secret_header(&value).map_err(unsendable)?);
    }
    Ok(remote)
}

/// What does not go together in how a remote is reached, and what looks odd.
#[derive(Debug, Default)]
pub(super) struct Checked {
    pub(super) wrong: Vec<String>,
    pub(super) odd: Vec<String>,
}

/// Checks how a remote is reached; `at` returns the place of a setting.
pub(super) fn check(remote: &Remote, at: &impl Fn(&str) -> String) -> Checked {
    let mut checked = Checked::default();
    let reach = &remote.reach;
    if reach.client_cert.is_some() != reach.client_key.is_some() {
        let given = if reach.client_cert.is_some() { "remote.client_cert" } else { "remote.client_key" };
        checked.wrong.push(format!(
            "{}remote.client_cert and remote.client_key belong together: set both, or neither",
            at(given)
        ));
    }
    if reach.ssh.is_some() && reach.proxy.is_some() {
        checked.wrong.push(format!(
            "{}remote.proxy cannot be used with remote.ssh: name the proxy in the configuration of ssh (ProxyCommand, ProxyJump)",
            at("remote.proxy")
        ));
    }
    if reach.client_cert.is_some() && remote.protocol == Protocol::Http {
        checked.odd.push("remote.client_cert has no effect: remote.protocol is http".to_owned());
    }
    checked
}
