//! An Ollama somewhere, as flags and environment name it. The proxy's own reading of settings decides what they mean.

use clap::Args;
use farllama::{
    Config,
    config::{Error, Remote as Settings, Sources, load},
};

/// The variable that holds the remote's key.
pub const KEY: &str = "FARLLAMA_REMOTE_API_KEY";

/// Where the remote Ollama is.
#[derive(Args, Clone, Debug, Default)]
#[group(skip)]
#[command(next_help_heading = "Remote Ollama")]
pub struct Flags {
    /// The machine that runs Ollama: a host, or a URL such as http://gpu-box:11434/prefix (its parts win over the flags below)
    #[arg(long, value_name = "HOST|URL")]
    pub remote_host: Option<String>,
    /// Its port [default: 11434]
    #[arg(long, value_name = "PORT")]
    pub remote_port: Option<String>,
    /// http or https [default: http]
    #[arg(long, value_name = "PROTOCOL")]
    pub remote_protocol: Option<String>,
    /// What every path is prefixed with [default: /]
    #[arg(long, value_name = "PATH")]
    pub remote_base_path: Option<String>,
    /// The key that the remote or its gateway wants; better given by the environment than as a flag, which others can see
    #[arg(long, value_name = "KEY", env = KEY, hide_env_values = true)]
    pub remote_api_key: Option<String>,
}

impl Flags {
    /// Whether a remote is named.
    #[must_use]
    pub fn named(&self) -> bool {
        self.remote_host.as_deref().is_some_and(|host| !host.trim().is_empty())
    }

    /// The settings that these flags mean, read by the proxy's own rules.
    ///
    /// # Errors
    /// A flag that cannot be used, named.
    pub fn config(&self) -> Result<Config, Error> {
        let pairs = [
            ("remote.host", &self.remote_host),
            ("remote.port", &self.remote_port),
            ("remote.protocol", &self.remote_protocol),
            ("remote.base_path", &self.remote_base_path),
            ("remote.api_key", &self.remote_api_key),
        ];
        let flags = pairs.into_iter().filter_map(|(key, value)| Some((key, value.clone()?))).collect();
        Ok(load(&Sources { flags, ..Sources::default() })?.config)
    }
}

/// An Ollama somewhere.
#[derive(Clone, Debug)]
pub struct Remote(Settings);

impl Remote {
    /// From what flags mean.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self(settings)
    }

    /// Where it is, without secrets.
    #[must_use]
    pub fn url(&self) -> String {
        self.0.url()
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_url_win_over_single_flags() {
        let flags = Flags {
            remote_host: Some("https://gpu-box/prefix/".to_owned()),
            remote_port: Some("1".to_owned()),
            remote_base_path: Some("/other".to_owned()),
            ..Flags::default()
        };
        assert_eq!(flags.config().unwrap().remote.url(), "https://gpu-box:1/prefix");
    }

    #[test]
    fn a_flag_that_cannot_be_used_is_named() {
        let flags = Flags { remote_port: Some("many".to_owned()), ..Flags::default() };
        assert!(flags.config().unwrap_err().to_string().contains("--remote-port"));
    }
}
