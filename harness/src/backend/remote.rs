//! An Ollama somewhere, as flags, the environment and farllama's settings file name it. The proxy's own reading of
//! settings decides what they mean.

use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
use farllama::{
    Config,
    config::{Loaded, Remote as Settings, Sources, load},
};

/// The variable that holds the remote's key.
pub const KEY: &str = "FARLLAMA_REMOTE_API_KEY";

/// Where the remote Ollama is.
#[derive(Args, Clone, Debug, Default)]
#[group(skip)]
#[command(next_help_heading = "Remote Ollama")]
pub struct Flags {
    /// The machine that runs Ollama: a host, or a URL such as http://gpu-box:11434/prefix (its parts win over the flags
    /// below)
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
    /// API key of the remote or its gateway; as an environment variable it is not visible to other users
    #[arg(long, value_name = "KEY", env = KEY, hide_env_values = true)]
    pub remote_api_key: Option<String>,
    /// A PEM file with certificate authorities to trust besides the system's
    #[arg(long, value_name = "FILE")]
    pub remote_ca_file: Option<PathBuf>,
    /// A PEM file with the certificate that is shown to the remote
    #[arg(long, value_name = "FILE", requires = "remote_client_key")]
    pub remote_client_cert: Option<PathBuf>,
    /// A PEM file with the key of that certificate
    #[arg(long, value_name = "FILE", requires = "remote_client_cert")]
    pub remote_client_key: Option<PathBuf>,
    /// farllama's settings file: where the remote is, its key, headers, certificates and proxies, read as `farllama
    /// serve --config` does, with FARLLAMA_… variables; the flags here win
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Which of several remotes of that file
    #[arg(long, value_name = "NAME", requires = "config")]
    pub remote_name: Option<String>,
}

impl Flags {
    /// Whether a remote is named.
    #[must_use]
    pub fn named(&self) -> bool {
        self.config.is_some() || self.remote_host.as_deref().is_some_and(|host| !host.trim().is_empty())
    }

    /// The settings that these flags mean, read by the proxy's own rules: with one remote, also if the file has
    /// several.
    ///
    /// # Errors
    /// A flag or a setting that cannot be used, named; or several remotes of which none is chosen.
    pub fn config(&self) -> anyhow::Result<Config> {
        let config = self.load()?.config;
        let mut all = config.every_remote();
        let names: Vec<_> = all.iter().map(|named| named.name.clone()).collect();
        let is_meant = |name: &str, section: bool| match &self.remote_name {
            Some(wanted) => wanted == name,
            // A host of the command line is that of `[remote]`.
            None => names.len() == 1 || section && self.remote_host.is_some(),
        };
        all.retain(|named| is_meant(&named.name, named.section));
        let Some(chosen) = all.pop() else {
            let list = names.join(", ");
            match &self.remote_name {
                Some(name) => bail!("--remote-name: unknown remote `{name}`; the settings have {list}"),
                None => bail!("the settings have several remotes: name one with --remote-name ({list})"),
            }
        };
        Ok(Config { remote: chosen.remote, remotes: Vec::new(), ..config })
    }

    /// The settings that these flags mean, and where each came from.
    ///
    /// # Errors
    /// A flag or a setting that cannot be used, named.
    pub fn load(&self) -> anyhow::Result<Loaded> {
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.to_string_lossy().into_owned());
        let (ca, cert, key) =
            (path(&self.remote_ca_file), path(&self.remote_client_cert), path(&self.remote_client_key));
        let pairs = [
            ("remote.host", &self.remote_host),
            ("remote.port", &self.remote_port),
            ("remote.protocol", &self.remote_protocol),
            ("remote.base_path", &self.remote_base_path),
            ("remote.api_key", &self.remote_api_key),
            ("remote.ca_file", &ca),
            ("remote.client_cert", &cert),
            ("remote.client_key", &key),
        ];
        let flags = pairs.into_iter().filter_map(|(key, value)| Some((key, value.clone()?))).collect();
        // Without a settings file, what the flags say is what is examined: variables of the user's own proxy do not
        // count.
        let environment = if self.config.is_some() { std::env::vars().collect() } else { Vec::new() };
        Ok(load(&Sources { file: self.config.clone(), environment, flags, ..Sources::default() })?)
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

    #[test]
    fn a_settings_file_is_read_as_farllama_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            Some(path)
        };
        let one = write(
            "one.toml",
            "[remote]\nurl = \"https://gpu-box/prefix\"\napi_key = \"secret\"\n[remote.headers]\nx-team = \"a\"\n[context]\nmax = 65536\n",
        );
        let config = Flags { config: one.clone(), ..Flags::default() }.config().unwrap();
        assert_eq!((config.remote.url().as_str(), config.context.max), ("https://gpu-box/prefix", 65_536));
        assert!(config.remote.authorization.is_some() && config.remote.headers.len() == 1);
        // A flag wins over the file.
        let host = Some("http://other:1".to_owned());
        let config = Flags { config: one, remote_host: host, ..Flags::default() }.config().unwrap();
        assert!(config.remote.url().starts_with("http://other:1"), "{}", config.remote.url());

        let two = write(
            "two.toml",
            "[[remotes]]\nname = \"near\"\nurl = \"http://near:1\"\n[[remotes]]\nname = \"far\"\nurl = \"http://far:2\"\n",
        );
        let named = |name: Option<&str>| Flags {
            config: two.clone(),
            remote_name: name.map(str::to_owned),
            ..Flags::default()
        };
        assert!(named(None).config().unwrap_err().to_string().ends_with("name one with --remote-name (near, far)"));
        assert!(named(Some("fra")).config().unwrap_err().to_string().contains("unknown remote `fra`"));
        let config = named(Some("far")).config().unwrap();
        assert_eq!((config.remote.url().as_str(), config.remotes.len()), ("http://far:2", 0));

        let wrong = write("wrong.toml", "[remote]\nprot = 1\n");
        let error = Flags { config: wrong, ..Flags::default() }.config().unwrap_err().to_string();
        assert!(error.contains("wrong.toml:2"), "{error}");
    }
}
