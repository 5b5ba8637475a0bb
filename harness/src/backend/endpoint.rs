//! Any server that is somewhere, without a proxy of ours: Ollama's own `/v1`, or another maker's.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use super::Target;
use crate::net;

/// The variable that holds the target's key.
pub const KEY: &str = "FARLLAMA_CHECK_API_KEY";

/// What is below the root of the API. A base URL that ends so was copied from an example of a request.
const ENDPOINTS: [&str; 8] = [
    "/chat/completions",
    "/completions",
    "/embeddings",
    "/images/generations",
    "/messages",
    "/models",
    "/moderations",
    "/responses",
];

/// Where the server is.
#[derive(Args, Clone, Debug, Default)]
#[group(skip)]
#[command(next_help_heading = "Target")]
pub struct Flags {
    /// The root of its OpenAI API, such as http://127.0.0.1:11434/v1
    #[arg(long, value_name = "URL")]
    pub base_url: Option<String>,
    /// Its API key; as an environment variable it is not visible to other users
    #[arg(long, value_name = "KEY", env = KEY, hide_env_values = true)]
    pub api_key: Option<String>,
    /// A PEM file with certificate authorities to trust besides the system's
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
}

impl Flags {
    /// Returns a client for calls to the server.
    ///
    /// # Errors
    /// Fails if the file of authorities cannot be used.
    pub fn client(&self) -> anyhow::Result<reqwest::Client> {
        let trusted = farllama::config::Remote { ca_file: self.ca_file.clone(), ..Default::default() };
        let tls = farllama::remote_tls(&trusted).context("--ca-file")?;
        Ok(net::client_with(tls)?)
    }
}

/// A server that is somewhere.
#[derive(Clone)]
pub struct Endpoint {
    /// Its root, for raw calls, without a slash at the end.
    pub url: String,
    /// The root of its OpenAI API, without a slash at the end.
    pub openai: String,
    /// The key that it wants.
    pub key: Option<String>,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint").field("openai", &self.openai).finish_non_exhaustive()
    }
}

impl Endpoint {
    /// From what flags say.
    ///
    /// # Errors
    /// What is wrong with the URL.
    pub fn new(flags: &Flags) -> Result<Self, String> {
        let given = flags.base_url.as_deref().unwrap_or_default().trim().trim_end_matches('/');
        if given.is_empty() {
            let empty = if flags.base_url.is_some() { "--base-url is empty: " } else { "" };
            return Err(format!("{empty}--backend target needs --base-url, such as http://127.0.0.1:11434/v1"));
        }
        let url = reqwest::Url::parse(given)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
            .ok_or_else(|| format!("invalid --base-url {given:?}: expected a URL such as http://127.0.0.1:11434/v1"))?;
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
            return Err("--base-url takes no user and no query; give the key by FARLLAMA_CHECK_API_KEY".to_owned());
        }
        if let Some(root) = ENDPOINTS.iter().find_map(|endpoint| given.strip_suffix(endpoint)) {
            return Err(format!("--base-url is the root of the API, not one of its endpoints: use --base-url {root}"));
        }
        let root = given.strip_suffix("/v1").unwrap_or(given);
        Ok(Self { url: root.to_owned(), openai: given.to_owned(), key: flags.api_key.clone() })
    }

    /// What scenarios talk to.
    pub(super) fn target(&self) -> Target {
        Target {
            url: self.url.clone(),
            openai: self.openai.clone(),
            key: self.key.clone(),
            foreign: true,
            journal: None,
            seen: None,
            proxy: None,
            openai_server: None,
            _tampering: None,
            _mock: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(url: &str) -> Result<(String, String), String> {
        let flags = Flags { base_url: Some(url.to_owned()), ..Flags::default() };
        Endpoint::new(&flags).map(|endpoint| (endpoint.url, endpoint.openai))
    }

    #[test]
    fn raw_calls_go_to_what_stands_before_v1() {
        let is = |url: &str, root: &str, openai: &str| assert_eq!(at(url), Ok((root.to_owned(), openai.to_owned())));
        is("http://a:1/v1/", "http://a:1", "http://a:1/v1");
        is("https://a/ollama/v1", "https://a/ollama", "https://a/ollama/v1");
        is("http://a/openai", "http://a/openai", "http://a/openai");
    }

    #[test]
    fn an_endpoint_is_no_base_url() {
        for endpoint in ENDPOINTS {
            let reported = at(&format!("http://a:1/v1{endpoint}/")).unwrap_err();
            assert!(reported.ends_with("use --base-url http://a:1/v1"), "{reported}");
        }
        assert!(at("").unwrap_err().starts_with("--base-url is empty"));
    }

    #[test]
    fn what_is_no_url_is_refused_with_an_example() {
        for wrong in ["", "a:1/v1", "ftp://a/v1", "http://u:p@a/v1", "http://a/v1?x=1"] {
            assert!(at(wrong).is_err(), "{wrong}");
        }
    }
}
